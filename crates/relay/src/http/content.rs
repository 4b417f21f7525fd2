//! What messages contain, for hyper to send on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{EXPECT, HeaderValue};
use hyper::{Request, StatusCode};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::io::Backlog;
use crate::limits::CONTINUE_SECS_MAX;

/// What a message contains.
pub(super) enum Content {
    Nothing,
    /// What the other side sends, as it comes and no faster than it is taken.
    Passing(Incoming),
    /// What a target answers.
    Answer(Answer),
    /// What the client keeps back until it is told to go on.
    Held(Held),
    /// What the client was never asked for. Its end is not known, so it has none.
    Withdrawn,
    /// Words of our own.
    Text(&'static str),
}

impl Body for Content {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Nothing => Poll::Ready(None),
            Self::Passing(incoming) => Pin::new(incoming).poll_frame(cx),
            Self::Answer(answer) => answer.poll_frame(cx),
            Self::Held(held) => {
                ready!(held.wanted.as_mut().poll(cx));
                *self = held.held_back.take().map_or(Self::Withdrawn, Self::Passing);
                self.poll_frame(cx)
            }
            Self::Withdrawn => Poll::Pending,
            Self::Text(text) => {
                let bytes = Bytes::from_static(text.as_bytes());
                *self = Self::Nothing;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Passing(incoming) | Self::Answer(Answer { incoming, .. }) => incoming.is_end_stream(),
            Self::Held(_) | Self::Withdrawn | Self::Text(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Passing(incoming) | Self::Answer(Answer { incoming, .. }) => incoming.size_hint(),
            Self::Held(held) => held.size,
            Self::Withdrawn => SizeHint::default(),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
        }
    }
}

/// The content of an answer, all of which the client gets also where it breaks off. hyper throws away what it has not written yet as soon
/// as it hears of that, so it is told when it has written all.
pub(super) struct Answer {
    incoming: Incoming,
    backlog: Backlog,
    /// Why no more comes.
    failed: Option<hyper::Error>,
}

impl Answer {
    /// What `incoming` says, to a client that hyper writes to with this `backlog`.
    pub(super) fn new(incoming: Incoming, backlog: Backlog) -> Self {
        Self { incoming, backlog, failed: None }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.failed.is_none() {
            match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(Err(error)) => {
                    self.failed = Some(error);
                    self.backlog.watch();
                }
                frame => return Poll::Ready(frame),
            }
        }
        // Whoever clears the backlog wakes the task that is both hyper's and ours.
        if self.backlog.is_cleared() { Poll::Ready(self.failed.take().map(Err)) } else { Poll::Pending }
    }
}

/// A client's content that is not asked for before the target wants it.
///
/// hyper tells a client to go on as soon as anybody asks it for the content. To the target that is too early: it may refuse what it has
/// seen the head of (RFC 9110, section 10.1.1).
pub(super) struct Held {
    held_back: Arc<HeldBack>,
    /// Ends when the target wants the content, or has been silent for long after the head has left, as servers are that do not know
    /// of expectations.
    wanted: Pin<Box<dyn Future<Output = ()> + Send>>,
    size: SizeHint,
}

/// What [`Held`] holds, until it is either asked for or not wanted any more.
pub(super) struct HeldBack {
    content: Mutex<Option<Incoming>>,
    /// The target has told the client to go on.
    told: Notify,
}

impl HeldBack {
    /// Leaves the content with the client, if it has not been asked for. Says whether that is so.
    pub(super) fn withdraw(&self) -> bool {
        self.take().is_some()
    }

    fn take(&self) -> Option<Incoming> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A client's request as it is sent on, with what is held back of it where the client waits to be told to go on.
pub(super) fn passing(request: Request<Incoming>) -> (Request<Content>, Option<Arc<HeldBack>>) {
    let expects = request.headers().get_all(EXPECT).iter().any(is_continue);
    if !expects || request.body().is_end_stream() {
        return (request.map(Content::Passing), None);
    }
    let size = request.body().size_hint();
    let (head, content) = request.into_parts();
    let held_back = Arc::new(HeldBack { content: Mutex::new(Some(content)), told: Notify::new() });
    let (listening, telling) = (Arc::clone(&held_back), Arc::clone(&held_back));
    // It is polled for the first time when the head has left: the time begins there.
    let wanted = Box::pin(async move {
        let _or_silent_for_long = timeout(CONTINUE_SECS_MAX, listening.told.notified()).await;
    });
    let held = Held { held_back: Arc::clone(&held_back), wanted, size };
    let mut request = Request::from_parts(head, Content::Held(held));
    hyper::ext::on_informational(&mut request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            telling.told.notify_one();
        }
    });
    (request, Some(held_back))
}

fn is_continue(value: &HeaderValue) -> bool {
    value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue")
}
