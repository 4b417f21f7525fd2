//! A connection towards a target: a socket, or a pipe behind which our own code carries on.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use crate::net::Socket;
use crate::net::os::OsSocket;
use crate::pipe::Pipe;

/// What a session's outbound side is read from and written to.
#[derive(Debug)]
pub(crate) enum Conn<S> {
    /// A connection to the first hop, or to the target itself.
    Socket(S),
    /// The inside of a layer that is sealed and opened by a task of its own.
    Layer(Layer),
}

/// One end of a pipe. Unless a session has carried all there was through it, whoever is behind it sees a reset when it is dropped, and
/// does not wait for what nobody wants.
#[derive(Debug)]
pub(crate) struct Layer {
    pipe: Pipe,
    is_whole: bool,
}

impl<S> Conn<S> {
    /// The inside of a layer, whose task has the other end of `pipe`.
    pub(crate) fn inside(pipe: Pipe) -> Self {
        Self::Layer(Layer { pipe, is_whole: false })
    }

    /// Both directions have ended in order, or are about to.
    pub(crate) fn finish(&mut self) {
        match self {
            Self::Socket(_) => {}
            Self::Layer(layer) => layer.is_whole = true,
        }
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        if !self.is_whole {
            self.pipe.reset();
        }
    }
}

impl<S: Socket> Socket for Conn<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => socket.poll_readable(cx),
            Self::Layer(layer) => layer.pipe.poll_readable(cx),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => socket.poll_writable(cx),
            Self::Layer(layer) => layer.pipe.poll_writable(cx),
        }
    }

    fn try_read(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.try_read(pieces),
            Self::Layer(layer) => layer.pipe.try_read(pieces),
        }
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.try_write(pieces),
            Self::Layer(layer) => layer.pipe.try_write(pieces),
        }
    }

    fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.shutdown_write(),
            Self::Layer(layer) => layer.pipe.shutdown_write(),
        }
    }

    fn reset(&self) {
        match self {
            Self::Socket(socket) => socket.reset(),
            Self::Layer(layer) => layer.pipe.reset(),
        }
    }

    fn expect_bulk(&self) {
        match self {
            Self::Socket(socket) => socket.expect_bulk(),
            Self::Layer(layer) => layer.pipe.expect_bulk(),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Socket(socket) => socket.local_addr(),
            Self::Layer(layer) => layer.pipe.local_addr(),
        }
    }

    fn kernel(&self) -> Option<&OsSocket> {
        match self {
            Self::Socket(socket) => socket.kernel(),
            Self::Layer(_) => None,
        }
    }
}
