//! A connection towards a target: a socket, or a pipe behind which our own code carries on.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use crate::net::Socket;
use crate::pipe::Pipe;

/// What a session's outbound side is read from and written to.
#[derive(Debug)]
pub(crate) enum Conn<S> {
    /// A connection to the first hop, or to the target itself.
    Socket(S),
    /// The inside of a layer that is sealed and opened by a task of its own.
    Pipe(Pipe),
}

impl<S: Socket> Socket for Conn<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => socket.poll_readable(cx),
            Self::Pipe(pipe) => pipe.poll_readable(cx),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => socket.poll_writable(cx),
            Self::Pipe(pipe) => pipe.poll_writable(cx),
        }
    }

    fn try_read(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.try_read(pieces),
            Self::Pipe(pipe) => pipe.try_read(pieces),
        }
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.try_write(pieces),
            Self::Pipe(pipe) => pipe.try_write(pieces),
        }
    }

    fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.shutdown_write(),
            Self::Pipe(pipe) => pipe.shutdown_write(),
        }
    }

    fn reset(&self) {
        match self {
            Self::Socket(socket) => socket.reset(),
            Self::Pipe(pipe) => pipe.reset(),
        }
    }

    fn expect_bulk(&self) {
        match self {
            Self::Socket(socket) => socket.expect_bulk(),
            Self::Pipe(pipe) => pipe.expect_bulk(),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Socket(socket) => socket.local_addr(),
            Self::Pipe(pipe) => pipe.local_addr(),
        }
    }
}
