//! TLS in front of doors that speak none, as a terminator does it for a proxy.
//!
//! Time and chance inside TLS are real. Nothing that a network sees depends on them: keys, signatures and certificates always have the same
//! lengths, and no connection resumes an earlier one.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::client::Resumption;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use umbra_relay::net::Socket as _;
use umbra_relay::tls::Tls;

use crate::link::Link;
use crate::net::SimNet;
use crate::socket::SimSocket;

/// Both sides of the one certificate that there is.
struct Certified {
    trusting: Tls,
    showing: Arc<ServerConfig>,
}

static CERTIFIED: LazyLock<Certified> = LazyLock::new(Certified::make);

/// How to know a terminator.
pub fn trusting() -> Tls {
    CERTIFIED.trusting.clone()
}

/// Listens at `at`, to which connections like `link` lead, and carries what comes within TLS to `behind` without it, both ways. Ends pass as
/// ends; whatever breaks on one side is a reset on both. Aborted, it takes nobody any more, and goes on with those that have come.
pub fn terminate(net: &SimNet, at: SocketAddr, link: Link, behind: SocketAddr) -> JoinHandle<()> {
    let (net, mut listener) = (net.clone(), net.listen(at, link));
    tokio::spawn(async move {
        while let Some((outside, _)) = listener.accept().await {
            let net = net.clone();
            drop(tokio::spawn(async move {
                // Both sides learn of it by how they end.
                let _ = Box::pin(carry(&net, outside, behind)).await;
            }));
        }
    })
}

async fn carry(net: &SimNet, outside: SimSocket, behind: SocketAddr) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::clone(&CERTIFIED.showing));
    let mut outside = acceptor.accept(Stream::new(outside)).await?;
    let mut inside = Stream::new(net.dial(behind).await?);
    copy_bidirectional(&mut outside, &mut inside).await?;
    outside.get_mut().0.is_whole = true;
    inside.is_whole = true;
    Ok(())
}

impl Certified {
    fn make() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("the library has the algorithm");
        let mut params = CertificateParams::new([NAME.to_owned()]).expect("it is a name");
        params.serial_number = Some(SerialNumber::from(1));
        let certificate = params.self_signed(&key).expect("its own key signs it");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("it is a certificate");
        let mut trusting = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        trusting.resumption = Resumption::disabled();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let showing = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("the key is the certificate's");
        let trusting = Tls::new(Arc::new(trusting), NAME).expect("it is a name");
        Self { trusting, showing: Arc::new(showing) }
    }
}

/// A socket as tokio's own traits have it. Unless both ways have ended in order, its peer sees a reset.
struct Stream {
    socket: SimSocket,
    is_whole: bool,
}

impl Stream {
    fn new(socket: SimSocket) -> Self {
        Self { socket, is_whole: false }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.is_whole {
            self.socket.reset();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_readable(cx))?;
            match self.socket.try_read(&mut [IoSliceMut::new(buffer.initialize_unfilled())]) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.try_write(&[IoSlice::new(bytes)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_writable(cx))?;
                }
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown_write())
    }
}

/// What the certificate is for.
const NAME: &str = "parent.example";
