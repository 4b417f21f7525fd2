//! What messages contain, for hyper to send on.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

/// What a message contains.
pub(super) enum Content {
    Nothing,
    /// What the other side sends, as it comes and no faster than it is taken.
    Passing(Incoming),
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
            Self::Passing(incoming) => incoming.is_end_stream(),
            Self::Text(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Passing(incoming) => incoming.size_hint(),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
        }
    }
}
