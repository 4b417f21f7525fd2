//! TLS on the way to a parent: a task of its own seals and opens, and what is inside is plain.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::batch::{Batch, Size};
use crate::conn::Conn;
use crate::failure::{At, Cause, Failure, Side, Stage};
use crate::http::{Moved, idle};
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
    let outside = agree(conn, tls, &moved).await.map_err(Cause::Io)?;
    let (inside, theirs) = pipe();
    let epitaph = theirs.epitaph();
    drop(tokio::spawn(async move {
        let mut carrier = Carrier::new(Stream::new(theirs, &moved), outside);
        let cause = tokio::select! {
            biased;
            carried = carrier.carry() => match carried {
                Ok(()) => return carrier.finish(),
                Err(error) => Cause::Io(error),
            },
            () = idle(moved, patience) => Cause::Deadline,
        };
        epitaph.write(&Failure::new(Stage::Relay, Side::Outbound, cause).at(at));
    }));
    Ok(inside)
}

async fn agree<S: Socket>(conn: Conn<S>, tls: &Tls, moved: &Moved) -> io::Result<Outside<S>> {
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    connector.connect(tls.name.clone(), Stream::new(conn, moved)).await
}

type Outside<S> = TlsStream<Stream<Conn<S>>>;

/// Carries what is said inside to the other end of the secret connection, and what comes from there back. Where nothing passes it holds
/// no buffer.
struct Carrier<S: Socket> {
    inside: Stream<Pipe>,
    outside: Outside<S>,
    uplink: Uplink,
    downlink: Downlink,
}

/// How far what is said inside has come.
enum Uplink {
    /// Nothing of it is here.
    Resting,
    /// This has arrived and is to be sealed.
    Sealing(Batch),
    /// It has ended, and the other end is to be told.
    Ending,
    /// All is done.
    Ended,
}

/// How far what comes from the other end has come.
enum Downlink {
    /// More may come.
    Passing,
    /// No more can be opened, for this reason. What was opened before is as good as it was.
    Failed(io::Error),
    /// It has ended.
    Ended,
}

/// On which side of the layer the way up broke.
enum Broken {
    /// Whoever speaks through it has left: nobody wants anything more.
    Inside(io::Error),
    /// The other end takes nothing any more. It may have said something before.
    Outside(io::Error),
}

impl<S: Socket> Carrier<S> {
    fn new(inside: Stream<Pipe>, outside: Outside<S>) -> Self {
        Self { inside, outside, uplink: Uplink::Resting, downlink: Downlink::Passing }
    }

    /// Ends when both directions have. Of a layer that breaks outside, all that came before has passed then.
    async fn carry(&mut self) -> io::Result<()> {
        let mut refused = None;
        poll_fn(|cx| {
            let mut up = Poll::Pending;
            if refused.is_none() {
                match self.poll_up(cx) {
                    Poll::Ready(Err(Broken::Inside(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(Err(Broken::Outside(error))) => refused = Some(error),
                    Poll::Ready(Ok(())) => up = Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            let down = ready!(self.poll_down(cx));
            match (refused.take(), down) {
                (Some(error), _) | (None, Err(error)) => Poll::Ready(Err(error)),
                (None, Ok(())) => up.map(Ok),
            }
        })
        .await
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            self.uplink = match &mut self.uplink {
                Uplink::Resting => {
                    if self.inside.socket.poll_readable(cx).map_err(Broken::Inside)?.is_pending() {
                        // What has been sealed leaves first.
                        ready!(Pin::new(&mut self.outside).poll_flush(cx)).map_err(Broken::Outside)?;
                        return Poll::Pending;
                    }
                    let mut batch = Batch::take(Size::Medium);
                    match self.inside.socket.try_read(&mut [IoSliceMut::new(&mut batch.bytes)]) {
                        Ok(0) => Uplink::Ending,
                        Ok(count) => {
                            self.inside.moved.note();
                            batch.arrived = 0..count;
                            Uplink::Sealing(batch)
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Uplink::Resting,
                        Err(error) => return Poll::Ready(Err(Broken::Inside(error))),
                    }
                }
                Uplink::Sealing(batch) => {
                    let rest = &batch.bytes[batch.arrived.clone()];
                    let written = ready!(Pin::new(&mut self.outside).poll_write(cx, rest));
                    let count = written.map_err(Broken::Outside)?;
                    batch.arrived.start += count;
                    if count == 0 {
                        return Poll::Ready(Err(Broken::Outside(io::ErrorKind::WriteZero.into())));
                    }
                    if !batch.arrived.is_empty() {
                        continue;
                    }
                    Uplink::Resting
                }
                Uplink::Ending => {
                    ready!(Pin::new(&mut self.outside).poll_shutdown(cx)).map_err(Broken::Outside)?;
                    Uplink::Ended
                }
                Uplink::Ended => return Poll::Ready(Ok(())),
            };
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inside, outside, downlink, .. } = self;
        loop {
            // It lies opened where TLS has it, and is copied from there.
            let opened = match downlink {
                Downlink::Ended => return Poll::Ready(Ok(())),
                Downlink::Passing => match ready!(Pin::new(&mut *outside).poll_fill_buf(cx)) {
                    Ok([]) => {
                        inside.socket.shutdown_write()?;
                        *downlink = Downlink::Ended;
                        continue;
                    }
                    Ok(opened) => opened,
                    Err(error) => {
                        *downlink = Downlink::Failed(error);
                        continue;
                    }
                },
                // Records that came with the one that could not be opened.
                Downlink::Failed(error) => match outside.get_mut().1.reader().into_first_chunk() {
                    Ok(opened @ [_, ..]) => opened,
                    Ok([]) | Err(_) => {
                        return Poll::Ready(Err(std::mem::replace(error, io::ErrorKind::BrokenPipe.into())));
                    }
                },
            };
            match inside.socket.try_write(&[IoSlice::new(opened)]) {
                Ok(count) => {
                    inside.moved.note();
                    Pin::new(&mut *outside).consume(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(inside.socket.poll_writable(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Both directions have ended in order.
    fn finish(mut self) {
        self.inside.is_whole = true;
        let outside = self.outside.get_mut().0;
        outside.is_whole = true;
        outside.socket.finish();
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsAcceptor;

    /// How to know a parent that echoes, and what it shows.
    fn certified() -> (Tls, TlsAcceptor) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.into()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let trusting = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let showing = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        (Tls::new(Arc::new(trusting), NAME).unwrap(), TlsAcceptor::from(Arc::new(showing)))
    }

    #[tokio::test]
    async fn a_layer_through_which_nothing_passes_holds_no_buffer() {
        let (tls, acceptor) = certified();
        let (moved, (ours, parents)) = (Moved::new(), pipe());
        let parent = Stream::new(parents, &moved);
        let echoing = tokio::spawn(async move {
            let (mut heard, mut said) = tokio::io::split(acceptor.accept(parent).await.unwrap());
            tokio::io::copy(&mut heard, &mut said).await
        });
        let outside = agree(Conn::<Pipe>::inside(ours), &tls, &moved).await.unwrap();
        let (inside, theirs) = pipe();
        let mut carrier = Carrier::new(Stream::new(theirs, &moved), outside);
        assert!(matches!(carrier.uplink, Uplink::Resting));
        let (mut heard, mut said) = tokio::io::split(Stream::new(inside, &moved));
        let conversing = async {
            let mut bytes = vec![7; 200_000];
            let (written, read) = tokio::join!(said.write_all(&[7; 200_000]), heard.read_exact(&mut bytes));
            (written.unwrap(), read.unwrap())
        };
        tokio::select! {
            biased;
            never = carrier.carry() => panic!("{never:?}"),
            ((), count) = conversing => assert_eq!(count, 200_000),
        }
        assert!(matches!(carrier.uplink, Uplink::Resting), "all has passed, and nothing is kept for more");
        echoing.abort();
    }

    #[tokio::test]
    async fn what_had_come_passes_though_the_other_end_takes_nothing_any_more() {
        let (tls, acceptor) = certified();
        let (moved, (ours, parents)) = (Moved::new(), pipe());
        let epitaph = parents.epitaph();
        let parent = Stream::new(parents, &moved);
        let speaking = tokio::spawn(async move {
            let mut parent = acceptor.accept(parent).await.unwrap();
            parent.write_all(&[7; 20_000]).await.unwrap();
            parent.flush().await.unwrap();
            parent
        });
        let outside = agree(Conn::<Pipe>::inside(ours), &tls, &moved).await.unwrap();
        let parent = speaking.await.unwrap();
        epitaph.write(&Failure::outbound(Stage::Relay, Cause::Truncated));
        let (inside, theirs) = pipe();
        inside.try_write(&[IoSlice::new(b"nobody hears this")]).unwrap();
        let mut carrier = Carrier::new(Stream::new(theirs, &moved), outside);
        let error = carrier.carry().await.unwrap_err();
        assert_eq!(error.to_string(), Cause::Truncated.to_string());
        let mut heard = vec![0; 30_000];
        assert_eq!(inside.try_read(&mut [IoSliceMut::new(&mut heard)]).unwrap(), 20_000);
        drop(parent);
    }

    #[tokio::test]
    async fn records_pass_that_came_with_one_that_cannot_be_opened() {
        let (tls, acceptor) = certified();
        let (moved, (ours, parents)) = (Moved::new(), pipe());
        let parent = Stream::new(parents, &moved);
        let speaking = tokio::spawn(async move {
            let mut parent = acceptor.accept(parent).await.unwrap();
            parent.write_all(b"good").await.unwrap();
            parent.flush().await.unwrap();
            parent.get_mut().0.write_all(&[7; 100]).await.unwrap();
            parent
        });
        let outside = agree(Conn::<Pipe>::inside(ours), &tls, &moved).await.unwrap();
        let _parent = speaking.await.unwrap();
        let (inside, theirs) = pipe();
        let mut carrier = Carrier::new(Stream::new(theirs, &moved), outside);
        assert_eq!(carrier.carry().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut heard = [0; 9];
        assert_eq!(inside.try_read(&mut [IoSliceMut::new(&mut heard)]).unwrap(), 4);
    }

    const NAME: &str = "parent.example";
}
