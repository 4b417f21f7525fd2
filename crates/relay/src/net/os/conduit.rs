//! Pipes of the kernel: bytes that go from one of its sockets to another as they are need not come into this process (splice(2)).
//!
//! A worker has few of them, since each is two descriptors, and keeps those that are free.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use super::{OsSocket, transfer};
use crate::limits::CONDUIT_BYTES;

/// A pipe of the kernel in use. Goes back to its worker when dropped, unless something still lies in it.
#[derive(Debug)]
pub(crate) struct Conduit {
    /// Always there until the drop.
    ends: Option<Box<Ends>>,
}

/// Boxed, so that a direction that has none stays small.
#[derive(Debug)]
struct Ends {
    way_in: OwnedFd,
    way_out: OwnedFd,
    /// Bytes that lie in it.
    held: usize,
}

impl Conduit {
    /// One that nothing lies in; none where the worker's are all in use, or the kernel has none to give.
    pub(crate) fn take() -> Option<Self> {
        POOL.with_borrow_mut(Pool::take).map(|ends| Self { ends: Some(ends) })
    }

    /// Whether nothing lies in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.as_ref().is_none_or(|ends| ends.held == 0)
    }

    /// Moves in what `source` has, up to [`CONDUIT_BYTES`]. To be called when it is empty: a full one would look like a source that
    /// has nothing. `Ok(0)` is the source's end.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] means wait for the source. [`io::ErrorKind::Unsupported`]: what comes next has to be read, and nothing
    /// of it has been taken. Where this system moves no bytes so at all, no conduit is given to this worker any more.
    pub(crate) fn fill(&mut self, source: &OsSocket) -> io::Result<usize> {
        let Some(ends) = &mut self.ends else { return Err(io::ErrorKind::Unsupported.into()) };
        // That it came short says nothing: a pipe can be full of small pieces.
        let moved = transfer(&source.0, Interest::READABLE, 0, || {
            match splice(&source.0, None, &ends.way_in, None, CONDUIT_BYTES, FLAGS) {
                Ok(0) | Err(Errno::AGAIN) => stop(source),
                moved => moved,
            }
        });
        match moved {
            Ok(count) => {
                ends.held += count;
                Ok(count)
            }
            // A filter of system calls, or a kernel that has none of it.
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NOSYS | Errno::PERM | Errno::INVAL)
                ) =>
            {
                POOL.with_borrow_mut(Pool::close);
                Err(io::ErrorKind::Unsupported.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Moves on to `sink` as much as it takes. [`io::ErrorKind::WouldBlock`] means wait for the sink.
    ///
    /// There is no flag against SIGPIPE here; Rust's programs ignore that signal.
    pub(crate) fn drain(&mut self, sink: &OsSocket) -> io::Result<usize> {
        let Some(ends) = &mut self.ends else { return Ok(0) };
        let count = transfer(&sink.0, Interest::WRITABLE, 0, || {
            splice(&ends.way_out, None, &sink.0, None, ends.held, FLAGS)
        })?;
        ends.held -= count.min(ends.held);
        Ok(count)
    }
}

/// Why nothing has moved. The kernel moves nothing past an urgent byte (RFC 9293, section 3.8.5): of what is behind it, it says that it has
/// not come, and once the peer has ended, that there is none. Whoever reads steps over that byte.
fn stop(source: &OsSocket) -> Result<usize, Errno> {
    // What it says of an error it says once, so that this has to be passed on.
    match recv(&source.0, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)? {
        (0, _) => Ok(0),
        _ => Err(Errno::OPNOTSUPP),
    }
}

impl Drop for Conduit {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        // While a thread ends its pool may be gone; then the pipe just closes.
        let _ = POOL.try_with(|pool| pool.borrow_mut().put(ends));
    }
}

impl Ends {
    fn open() -> io::Result<Box<Self>> {
        let (way_out, way_in) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A user who has many may have only small ones from here on; they carry as well.
        let _ = fcntl_setpipe_size(&way_in, CONDUIT_BYTES);
        Ok(Box::new(Self { way_in, way_out, held: 0 }))
    }
}

/// A worker's free conduits.
#[derive(Default)]
struct Pool {
    #[expect(clippy::vec_box, reason = "pipes move between conduits and the pool as boxes")]
    free: Vec<Box<Ends>>,
    in_use: usize,
    /// How many there may be.
    allowed: usize,
}

impl Pool {
    fn take(&mut self) -> Option<Box<Ends>> {
        if self.in_use >= self.allowed {
            return None;
        }
        let ends = self.free.pop().or_else(|| Ends::open().ok())?;
        self.in_use += 1;
        Some(ends)
    }

    /// Gives none any more.
    fn close(&mut self) {
        self.allowed = 0;
        self.free = Vec::new();
    }

    fn put(&mut self, ends: Box<Ends>) {
        self.in_use = self.in_use.saturating_sub(1);
        // What lies in it is one session's, and must not come out in another's.
        if ends.held == 0 && self.free.len() + self.in_use < self.allowed {
            self.free.push(ends);
        }
    }
}

/// How many conduits the calling worker may have. At first it is none.
pub(crate) fn allow_conduits(count: usize) {
    POOL.with_borrow_mut(|pool| pool.allowed = count);
}

/// Closes this worker's free conduits.
pub(crate) fn close_free_conduits() {
    POOL.with_borrow_mut(|pool| pool.free = Vec::new());
}

/// Conduits that are in use on the calling thread, and free ones.
#[cfg(test)]
pub(crate) fn conduits() -> (usize, usize) {
    POOL.with_borrow(|pool| (pool.in_use, pool.free.len()))
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

#[cfg(test)]
mod tests;
