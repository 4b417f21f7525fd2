//! A connection within the process: what the pump carries between two sockets, it carries between a socket and our own code too.
//!
//! So whoever has to speak through a path (HTTP does) speaks into a pipe, and whatever the path does to the bytes stays the pump's.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::failure::{Buried, Failure};
use crate::limits::PIPE_BYTES_MAX;
use crate::net::Socket;

/// One end of a connection within the process. Dropped, it ends both of its directions in order.
#[derive(Debug)]
pub(crate) struct Pipe {
    shared: Arc<Mutex<Shared>>,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    First,
    Second,
}

#[derive(Debug, Default)]
struct Shared {
    from_first: Way,
    from_second: Way,
    /// One end wants the other to know that what it has got is not the whole.
    reset: bool,
    /// Why.
    epitaph: Option<Buried>,
}

/// What tells the other end why a pipe was reset.
#[derive(Debug)]
pub(crate) struct Epitaph(Arc<Mutex<Shared>>);

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// What is under way, at most [`PIPE_BYTES_MAX`] behind what has been read.
    bytes: Vec<u8>,
    /// How much of it has been read.
    read: usize,
    /// The writer has ended it.
    ended: bool,
    /// The reader is gone.
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Both ends of a new connection.
pub(crate) fn pipe() -> (Pipe, Pipe) {
    let shared = Arc::<Mutex<Shared>>::default();
    let end = |end| Pipe { shared: Arc::clone(&shared), end };
    (end(End::First), end(End::Second))
}

impl Pipe {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// Whatever tells the other end why this one was reset, before it looks.
    pub(crate) fn epitaph(&self) -> Epitaph {
        Epitaph(Arc::clone(&self.shared))
    }
}

impl Epitaph {
    /// Resets the pipe, for this reason.
    pub(crate) fn write(self, why: &Failure) {
        let mut shared = lock(&self.0);
        shared.reset = true;
        shared.epitaph = Some(why.bury());
        shared.wake_all();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn check(&self) -> io::Result<()> {
        match (self.reset, &self.epitaph) {
            (false, _) => Ok(()),
            (true, None) => Err(io::ErrorKind::ConnectionReset.into()),
            (true, Some(why)) => Err(why.clone().into()),
        }
    }

    fn inward(&mut self, end: End) -> &mut Way {
        match end {
            End::First => &mut self.from_second,
            End::Second => &mut self.from_first,
        }
    }

    fn outward(&mut self, end: End) -> &mut Way {
        match end {
            End::First => &mut self.from_first,
            End::Second => &mut self.from_second,
        }
    }

    fn wake_all(&mut self) {
        for way in [&mut self.from_first, &mut self.from_second] {
            way.wake_reader();
            way.wake_writer();
        }
    }
}

impl Way {
    fn len(&self) -> usize {
        self.bytes.len() - self.read
    }

    fn take(&mut self, pieces: &mut [IoSliceMut<'_>]) -> usize {
        let before = self.read;
        for piece in pieces {
            let rest = &self.bytes[self.read..];
            let count = rest.len().min(piece.len());
            piece[..count].copy_from_slice(&rest[..count]);
            self.read += count;
        }
        let count = self.read - before;
        if self.len() == 0 {
            // A pipe that rests holds nothing.
            (self.bytes, self.read) = (Vec::new(), 0);
        }
        count
    }

    fn put(&mut self, pieces: &[IoSlice<'_>]) -> usize {
        self.bytes.drain(..std::mem::take(&mut self.read));
        let before = self.bytes.len();
        for piece in pieces {
            let count = piece.len().min(PIPE_BYTES_MAX - self.bytes.len());
            self.bytes.extend_from_slice(&piece[..count]);
        }
        self.bytes.len() - before
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

impl Socket for Pipe {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared();
        let reset = shared.reset;
        let way = shared.inward(self.end);
        if reset || way.ended || way.len() > 0 {
            return Poll::Ready(Ok(()));
        }
        way.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared();
        let reset = shared.reset;
        let way = shared.outward(self.end);
        if reset || way.closed || way.len() < PIPE_BYTES_MAX {
            return Poll::Ready(Ok(()));
        }
        way.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn try_read(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut shared = self.shared();
        // What came through a layer before it failed is as good as it was; whoever resets in person wants nothing more to pass.
        let is_torn = shared.reset && shared.epitaph.is_none();
        if is_torn || shared.inward(self.end).len() == 0 {
            shared.check()?;
        }
        let way = shared.inward(self.end);
        if way.len() == 0 {
            return if way.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = way.take(pieces);
        way.wake_writer();
        Ok(count)
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut shared = self.shared();
        shared.check()?;
        let way = shared.outward(self.end);
        if way.closed || way.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if way.len() >= PIPE_BYTES_MAX {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = way.put(pieces);
        way.wake_reader();
        Ok(count)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        let mut shared = self.shared();
        let way = shared.outward(self.end);
        way.ended = true;
        way.wake_reader();
        Ok(())
    }

    fn reset(&self) {
        let mut shared = self.shared();
        shared.reset = true;
        shared.wake_all();
    }

    fn expect_bulk(&self) {}

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::AddrNotAvailable.into())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut shared = self.shared();
        shared.outward(self.end).ended = true;
        shared.inward(self.end).closed = true;
        shared.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Cause, Stage};

    fn write(pipe: &Pipe, bytes: &[u8]) -> io::Result<usize> {
        pipe.try_write(&[IoSlice::new(bytes)])
    }

    fn read(pipe: &Pipe, room: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; room];
        let (first, second) = bytes.split_at_mut(room / 2);
        let count = pipe.try_read(&mut [IoSliceMut::new(first), IoSliceMut::new(second)])?;
        bytes.truncate(count);
        Ok(bytes)
    }

    fn kind<T>(outcome: io::Result<T>) -> Option<io::ErrorKind> {
        outcome.err().map(|error| error.kind())
    }

    #[test]
    fn bytes_come_out_as_they_went_in_and_then_the_end() {
        let (near, far) = pipe();
        assert_eq!(kind(read(&far, 4)), Some(io::ErrorKind::WouldBlock));
        assert_eq!(write(&near, b"abcdefg").unwrap(), 7);
        assert_eq!(read(&far, 4).unwrap(), b"abcd");
        assert_eq!(write(&near, b"hi").unwrap(), 2);
        near.shutdown_write().unwrap();
        assert_eq!(read(&far, 100).unwrap(), b"efghi");
        assert_eq!(read(&far, 100).unwrap(), b"");
        assert_eq!(write(&far, b"still").unwrap(), 5);
        assert_eq!(read(&near, 100).unwrap(), b"still");
    }

    #[test]
    fn it_takes_no_more_than_its_bound_before_something_is_read() {
        let (near, far) = pipe();
        let much = vec![1; PIPE_BYTES_MAX + 1];
        assert_eq!(write(&near, &much).unwrap(), PIPE_BYTES_MAX);
        assert_eq!(kind(write(&near, b"x")), Some(io::ErrorKind::WouldBlock));
        assert_eq!(read(&far, 10).unwrap().len(), 10);
        assert_eq!(write(&near, &much).unwrap(), 10);
    }

    #[test]
    fn a_reset_is_no_end_and_a_dropped_end_takes_nothing_more() {
        let (near, far) = pipe();
        write(&near, b"part").unwrap();
        near.reset();
        drop(near);
        assert_eq!(kind(read(&far, 9)), Some(io::ErrorKind::ConnectionReset));

        let (near, far) = pipe();
        write(&near, b"part").unwrap();
        let why = Failure::outbound(Stage::Relay, Cause::Truncated);
        near.epitaph().write(&why);
        drop(near);
        assert_eq!(read(&far, 9).unwrap(), b"part");
        assert_eq!(read(&far, 9).unwrap_err().to_string(), why.cause.to_string());

        let (near, far) = pipe();
        write(&near, b"all").unwrap();
        drop(near);
        assert_eq!(read(&far, 9).unwrap(), b"all");
        assert_eq!(read(&far, 9).unwrap(), b"");
        assert_eq!(kind(write(&far, b"x")), Some(io::ErrorKind::BrokenPipe));
    }
}
