//! A connection to a target that requests are forwarded over, as long as both it and the client last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, Parts, SendRequest};
use hyper::{Method, Request, Response};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use umbra_proto::address::Address;
use umbra_proto::limits::HTTP_HEADERS_MAX;
use umbra_proto::users::UserName;

use super::content::Content;
use super::io::Io;
use crate::limits::HTTP_BUFFER_BYTES_MAX;
use crate::pipe::Pipe;

/// A connection to `target`, in hyper's hands.
///
/// hyper speaks into a pipe, and an ordinary session carries what it says along the path. Dropped, this lets both go.
pub(super) struct Onward {
    target: Address,
    /// Whose it is: rules may have another way for somebody else.
    user: Option<UserName>,
    sender: SendRequest<Content>,
    connection: JoinHandle<hyper::Result<Parts<Io<Pipe>>>>,
    present: Present,
}

/// Tells the session of a connection that somebody still speaks into its pipe.
#[derive(Debug)]
pub(super) struct Present {
    /// Its drop is what tells.
    _sender: oneshot::Sender<()>,
    told: Told,
}

/// Whether it has been told why a connection failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Told(Arc<AtomicBool>);

impl Told {
    /// It has.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Present {
    /// Somebody, what ends when it is gone, and where the session says that it has told of its failure.
    pub(super) fn new() -> (Self, oneshot::Receiver<()>, Told) {
        let (sender, gone) = oneshot::channel();
        let told = Told::default();
        (Self { _sender: sender, told: told.clone() }, gone, told)
    }
}

/// Why a request has no answer.
pub(super) enum Unanswered {
    /// The target has not begun to act on it, or would do the same again.
    MayBeSentAgain(Box<Request<Content>>),
    /// The client's content is not what it has announced: the target cannot know, and waits for more of it.
    Malformed,
    /// Nobody knows what the target has done.
    Lost,
}

impl Onward {
    /// Begins to speak HTTP with a target at the other end of `pipe`.
    pub(super) async fn open(
        target: &Address,
        user: Option<&UserName>,
        pipe: Pipe,
        present: Present,
    ) -> hyper::Result<Self> {
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_headers(HTTP_HEADERS_MAX)
            .max_buf_size(HTTP_BUFFER_BYTES_MAX)
            .handshake(Io::new(pipe, None))
            .await?;
        let connection = tokio::spawn(async {
            let mut parts = connection.without_shutdown().await?;
            parts.io.finish();
            Ok(parts)
        });
        Ok(Self { target: target.clone(), user: user.cloned(), sender, connection, present })
    }

    /// Whether it is for requests of `user` to `target`, as far as is known.
    pub(super) fn leads_to(&self, target: &Address, user: Option<&UserName>) -> bool {
        self.target == *target && self.user.as_ref() == user && !self.sender.is_closed()
    }

    /// Whether it has been told why the connection failed.
    pub(super) fn is_told(&self) -> bool {
        self.present.told.0.load(Ordering::Relaxed)
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Content>) -> Result<Response<Incoming>, Unanswered> {
        let again = copy_of(&request);
        if self.sender.ready().await.is_err() {
            return Err(Unanswered::MayBeSentAgain(Box::new(request)));
        }
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            // hyper holds a body's errors against whoever gave it the body, and here that is the client.
            Err(error) if error.error().is_user() => Err(Unanswered::Malformed),
            Err(mut error) => match error.take_message().or(again) {
                Some(request) => Err(Unanswered::MayBeSentAgain(Box::new(request))),
                None => Err(Unanswered::Lost),
            },
        }
    }

    /// The pipe itself, with what the target has said behind its last answer, where that has changed the protocol.
    /// What comes third has to be kept as long as the pipe is in use.
    pub(super) async fn into_pipe(self) -> Option<(Pipe, Bytes, Present)> {
        let parts = self.connection.await.ok()?.ok()?;
        let (pipe, _nobody_reads_ahead_here) = parts.io.into_inner()?;
        Some((pipe, parts.read_buf, self.present))
    }
}

/// A second copy of a request that may be sent twice (RFC 9110, section 9.2.2): one that changes nothing and has no content.
fn copy_of(request: &Request<Content>) -> Option<Request<Content>> {
    let harmless = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    if !harmless || !hyper::body::Body::is_end_stream(request.body()) {
        return None;
    }
    let mut copy = Request::new(Content::Nothing);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}
