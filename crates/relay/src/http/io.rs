//! What hyper reads from and writes to: a socket of ours, with the bytes that were read before hyper came.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::Instant;

use crate::batch::{Batch, Size};
use crate::net::Socket;

/// A socket in hyper's hands. Unless it is [taken back](Self::into_inner), [finished](Self::finish) or ended by hyper, its peer sees a reset: hyper drops a
/// connection in the middle of a message, and a part must not pass for the whole.
#[derive(Debug)]
pub(crate) struct Io<S: Socket> {
    /// Taken only at the end.
    socket: Option<S>,
    /// Bytes that come before those of the socket.
    early: Option<Batch>,
    moved: Moved,
    /// All that was to be said has been said.
    finished: bool,
}

/// When something last moved through a connection, for whoever watches over its idle time.
#[derive(Clone, Debug)]
pub(crate) struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    /// The last time.
    pub(crate) fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl<S: Socket> Io<S> {
    /// Gives `socket` to hyper, behind what has `early` arrived from it.
    pub(crate) fn new(socket: S, early: Option<Batch>) -> Self {
        Self {
            socket: Some(socket),
            early,
            moved: Moved(Arc::new(Mutex::new(Instant::now()))),
            finished: false,
        }
    }

    /// When something moves here.
    pub(crate) fn moved(&self) -> Moved {
        self.moved.clone()
    }

    /// Lets the peer see an end in order when this is dropped.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Takes the socket back; whoever does has read everything that was there early.
    pub(crate) fn into_inner(mut self) -> Option<S> {
        self.socket.take()
    }

    fn socket(&self) -> io::Result<&S> {
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: Socket> Drop for Io<S> {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.as_ref().filter(|_| !self.finished) {
            socket.reset();
        }
    }
}

impl<S: Socket> Read for Io<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(batch) = &mut self.early {
            let slab = &mut **batch;
            let end = slab.arrived.end.min(slab.arrived.start + cursor.remaining());
            cursor.put_slice(&slab.bytes[slab.arrived.start..end]);
            slab.arrived.start = end;
            if slab.is_spent() {
                self.early = None;
            }
            return Poll::Ready(Ok(()));
        }
        let socket = self.socket()?;
        loop {
            ready!(socket.poll_readable(cx))?;
            // There is no safe way to read into the cursor, and the copy is small beside what HTTP costs.
            let mut batch = Batch::take(Size::Small);
            let room = cursor.remaining().min(batch.bytes.len());
            match socket.try_read(&mut [IoSliceMut::new(&mut batch.bytes[..room])]) {
                Ok(count) => {
                    cursor.put_slice(&batch.bytes[..count]);
                    self.moved.note();
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<S: Socket> Write for Io<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let socket = self.socket()?;
        loop {
            match socket.try_write(pieces) {
                Ok(count) => {
                    self.moved.note();
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(socket.poll_writable(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Dropped from here on it ends in order.
        match self.socket.take() {
            Some(socket) => Poll::Ready(socket.shutdown_write()),
            None => Poll::Ready(Ok(())),
        }
    }
}
