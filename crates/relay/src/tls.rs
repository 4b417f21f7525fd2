//! TLS on the way to a parent: a task of its own seals and opens, and what is inside is plain.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio_rustls::TlsConnector;

use crate::conn::Conn;
use crate::failure::{At, Cause, Failure, Side, Stage};
use crate::http::{Moved, idle};
use crate::limits::PIPE_BYTES_MAX;
use crate::net::Socket;
use crate::pipe::{Pipe, pipe};

/// How to know that a parent is who it says.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Trusts whom `config` trusts, if it can show that it is `name`: a DNS name or an IP address.
    ///
    /// # Errors
    /// If `name` is neither.
    pub fn new(config: Arc<ClientConfig>, name: &str) -> Result<Self, InvalidDnsNameError> {
        Ok(Self { config, name: ServerName::try_from(name)?.to_owned() })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

/// Agrees on TLS with whoever is at the other end of `conn`, which has said nothing yet. No deadline: whoever waits has one. Once agreed,
/// the layer lasts until both directions have ended, or nothing has moved for `patience`.
pub(crate) async fn wrap<S: Socket>(
    conn: Conn<S>,
    tls: &Tls,
    at: At,
    patience: Duration,
) -> Result<Pipe, Cause> {
    let moved = Moved::new();
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let conn = Stream::new(conn, &moved);
    let mut outside = connector.connect(tls.name.clone(), conn).await.map_err(Cause::Io)?;
    let (inside, theirs) = pipe();
    let epitaph = theirs.epitaph();
    drop(tokio::spawn(async move {
        let mut theirs = Stream::new(theirs, &moved);
        let copying =
            copy_bidirectional_with_sizes(&mut theirs, &mut outside, PIPE_BYTES_MAX, PIPE_BYTES_MAX);
        let cause = tokio::select! {
            biased;
            copied = copying => match copied {
                Ok(_) => {
                    theirs.is_whole = true;
                    let outside = outside.get_mut().0;
                    outside.is_whole = true;
                    outside.socket.finish();
                    return;
                }
                Err(error) => Cause::Io(error),
            },
            () = idle(moved, patience) => Cause::Deadline,
        };
        epitaph.write(&Failure::new(Stage::Relay, Side::Outbound, cause).at(at));
    }));
    Ok(inside)
}

/// A socket as tokio's own traits have it. Unless all that was to be said has been said, its peer sees a reset.
struct Stream<S: Socket> {
    socket: S,
    moved: Moved,
    is_whole: bool,
}

impl<S: Socket> Stream<S> {
    fn new(socket: S, moved: &Moved) -> Self {
        Self { socket, moved: moved.clone(), is_whole: false }
    }
}

impl<S: Socket> Drop for Stream<S> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.socket.reset();
        }
    }
}

impl<S: Socket> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_readable(cx))?;
            match self.socket.try_read(&mut [IoSliceMut::new(buffer.initialize_unfilled())]) {
                Ok(count) => {
                    self.moved.note();
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<S: Socket> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.try_write(&[IoSlice::new(bytes)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_writable(cx))?;
                }
                written => {
                    self.moved.note();
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.shutdown_write() {
            // The peer has torn it down already, and needs no telling.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            told => Poll::Ready(told),
        }
    }
}
