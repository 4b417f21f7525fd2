//! What hyper reads from and writes to: a socket of ours, with the bytes that were read before hyper came.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::{Instant, sleep_until};

use crate::batch::{Batch, Size};
use crate::net::Socket;

/// A socket in hyper's hands. Unless it is [taken back](Self::into_inner), [finished](Self::finish) or ended by hyper, its peer sees a reset: hyper drops a
/// connection in the middle of a message, and a part must not pass for the whole.
#[derive(Debug)]
pub(crate) struct Io<S: Socket> {
    line: Line<S>,
    moved: Moved,
    backlog: Backlog,
    /// All that was to be said has been said.
    finished: bool,
    refusals: Refusals,
}

/// What becomes of the words that hyper has for a head which it cannot understand. They are not ours, and what a client is told must not
/// depend on who has found the mistake.
#[derive(Debug)]
enum Refusals {
    /// There are none: hyper is the client here.
    Passed,
    /// They are kept back, as the last words of the conversation.
    Withheld(Option<&'static [u8]>),
}

/// Looks after a socket in hyper's hands while hyper does not read from it: in the middle of an exchange it would not learn that its
/// peer is gone.
#[derive(Debug)]
pub(crate) struct Lookout<S>(Line<S>);

/// hyper and its lookout take turns, within one task.
type Line<S> = Arc<Mutex<Ends<S>>>;

#[derive(Debug)]
struct Ends<S> {
    /// Taken only at the end.
    socket: Option<S>,
    /// Bytes that come before those of the socket.
    early: Option<Batch>,
    /// When the peer has ended its direction, if it has, and all that came before is in `early`.
    ended: Option<Instant>,
}

/// What hyper has been given to write and has not written yet, for whoever waits until there is nothing of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlog(Arc<AtomicBool>);

impl Backlog {
    /// Waits for hyper to have written all that it has now.
    pub(super) fn watch(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has, since then.
    pub(super) fn is_cleared(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    /// It has. Says whether somebody waits for that.
    fn clear(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// When something last moved through a connection, for whoever watches over its idle time.
#[derive(Clone, Debug)]
pub(crate) struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    /// Something moves now.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// The last time.
    pub(crate) fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something moves once more.
    pub(crate) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl<S: Socket> Io<S> {
    /// Gives `socket` to hyper, behind what has `early` arrived from it.
    pub(crate) fn new(socket: S, early: Option<Batch>) -> Self {
        Self::with(socket, early, Refusals::Passed)
    }

    /// The same for the socket of a client that hyper is the server of. What hyper says by itself to a head is [withheld](Self::withheld).
    pub(crate) fn of_client(socket: S, early: Option<Batch>) -> Self {
        Self::with(socket, early, Refusals::Withheld(None))
    }

    fn with(socket: S, early: Option<Batch>, refusals: Refusals) -> Self {
        let line = Arc::new(Mutex::new(Ends { socket: Some(socket), early, ended: None }));
        Self { line, moved: Moved::new(), backlog: Backlog::default(), finished: false, refusals }
    }

    /// The last words, where they are such as hyper says by itself.
    pub(crate) fn withheld(&self) -> Option<&'static [u8]> {
        match self.refusals {
            Refusals::Withheld(words) => words,
            Refusals::Passed => None,
        }
    }

    /// When something moves here.
    pub(crate) fn moved(&self) -> Moved {
        self.moved.clone()
    }

    /// What hyper has not written here yet.
    pub(super) fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// Whoever looks after the peer.
    pub(crate) fn lookout(&self) -> Lookout<S> {
        Lookout(Arc::clone(&self.line))
    }

    /// Lets the peer see an end in order when this is dropped.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Takes the socket back, with what hyper has not read of it.
    pub(crate) fn into_inner(self) -> Option<(S, Vec<u8>)> {
        let mut ends = lock(&self.line);
        let unread =
            ends.early.take().map_or_else(Vec::new, |batch| batch.bytes[batch.arrived.clone()].into());
        ends.socket.take().map(|socket| (socket, unread))
    }
}

impl<S: Socket> Drop for Io<S> {
    fn drop(&mut self) {
        // A lookout may outlast it, the connection does not.
        let socket = lock(&self.line).socket.take();
        if let Some(socket) = socket.filter(|_| !self.finished) {
            socket.reset();
        }
    }
}

impl<S: Socket> Lookout<S> {
    /// Ends when the peer has broken the connection off. One that has ended its direction only may still want an answer.
    ///
    /// It reads one small buffer ahead at the most, so the peer of an exchange that stands still is as much held back as before.
    pub(crate) async fn broken(&self) -> io::Error {
        poll_fn(|cx| self.poll_broken(cx)).await
    }

    /// Ends when the peer has ended its direction and `patience` has passed since then, and since this was first asked. In the task of
    /// [`broken`](Self::broken) alone, which sees that end and has the task look here again.
    pub(crate) async fn ended_for(&self, patience: Duration) {
        let asked = Instant::now();
        let ended = poll_fn(|_| lock(&self.0).ended.map_or(Poll::Pending, Poll::Ready)).await;
        sleep_until(ended.max(asked) + patience).await;
    }

    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut ends = lock(&self.0);
        let Ends { socket: Some(socket), early, ended } = &mut *ends else { return Poll::Pending };
        loop {
            let unread = early.as_ref().map_or(0, |batch| batch.arrived.end);
            // What has been read ahead is hyper's to take first; then this is polled again, in the same task.
            if ended.is_some() || early.as_ref().is_some_and(|batch| batch.bytes.len() == unread) {
                return Poll::Pending;
            }
            if let Err(error) = ready!(socket.poll_readable(cx)) {
                return Poll::Ready(error);
            }
            let mut batch = early.take().unwrap_or_else(|| Batch::take(Size::Small));
            let read = socket.try_read(&mut [IoSliceMut::new(&mut batch.bytes[unread..])]);
            batch.arrived.end += read.as_ref().map_or(0, |count| *count);
            *early = Some(batch).filter(|batch| !batch.is_spent());
            match read {
                Ok(count) => {
                    *ended = (count == 0).then(Instant::now);
                    // hyper may have been told just before that there is nothing.
                    cx.waker().wake_by_ref();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(error),
            }
        }
    }
}

impl<S: Socket> Read for Io<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut ends = lock(&self.line);
        let Ends { socket, early, ended } = &mut *ends;
        if let Some(batch) = early {
            let slab = &mut **batch;
            let end = slab.arrived.end.min(slab.arrived.start + cursor.remaining());
            let taken = &slab.bytes[slab.arrived.start..end];
            cursor.put_slice(taken);
            self.moved.note();
            slab.arrived.start = end;
            if slab.is_spent() {
                *early = None;
            }
            return Poll::Ready(Ok(()));
        }
        if ended.is_some() {
            return Poll::Ready(Ok(()));
        }
        let socket = socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
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
        let this = self.get_mut();
        if let (Refusals::Withheld(words), [piece]) = (&mut this.refusals, pieces)
            && let Some(own) = OWN_WORDS.into_iter().find(|own| **own == **piece)
        {
            *words = Some(own);
            return Poll::Ready(Ok(own.len()));
        }
        let ends = lock(&this.line);
        let socket = ends.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        loop {
            match socket.try_write(pieces) {
                Ok(count) => {
                    this.moved.note();
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

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper gets here when it has written all.
        if self.backlog.clear() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Dropped from here on it ends in order.
        match lock(&self.line).socket.take() {
            Some(socket) => Poll::Ready(socket.shutdown_write()),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// Both ends are whole at every moment.
fn lock<S>(line: &Mutex<Ends<S>>) -> MutexGuard<'_, Ends<S>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What hyper says to a head that it cannot understand, and to one that is too large for it; the connection ends with it.
const OWN_WORDS: [&[u8]; 2] = [
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
];
