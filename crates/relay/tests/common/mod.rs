//! Doors and targets for tests over real sockets.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::keyring::Keyring;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_relay::Relay;
use umbra_relay::config::{
    Config, Inbound, Mode, Protocol, ProxyHeader, Route, Server, ShadowsocksDoor, Tcp,
};

/// A client and a server of ours, connected.
pub(crate) struct Pair {
    pub(crate) client: Relay,
    pub(crate) server: Relay,
}

impl Pair {
    pub(crate) fn stop(self) {
        self.client.stop();
        self.server.stop();
    }
}

fn key() -> Key {
    Key::from_bytes(METHOD, &[7; 32]).unwrap()
}

pub(crate) fn shadowsocks_server() -> Protocol {
    server_with(key())
}

/// A server for whoever holds one of `keys`.
pub(crate) fn server_with(keys: impl Into<Keyring>) -> Protocol {
    let (heads, one_time_auth) = (HeadReads::One, false);
    Protocol::Shadowsocks(ShadowsocksDoor { keys: Arc::new(keys.into()), heads, one_time_auth })
}

/// The way through a server of ours.
pub(crate) fn through(server: SocketAddr) -> Route {
    through_with(server, key())
}

/// The way through a server of ours for the holder of `credentials`.
pub(crate) fn through_with(server: SocketAddr, credentials: impl Into<Credentials>) -> Route {
    let (heads, one_time_auth) = (HeadReads::One, false);
    let credentials = credentials.into();
    Route::servers(vec![Server {
        address: server.into(),
        mode: Mode::Both(server.into()),
        credentials,
        heads,
        one_time_auth,
    }])
}

/// A door that speaks `protocol`, and behind it one of the doors of `server`, which speak Shadowsocks.
pub(crate) fn before(server: Relay, door: usize, protocol: Protocol) -> Pair {
    Pair { client: run(inbound(protocol, through(server.addresses()[door]))), server }
}

pub(crate) fn inbound(protocol: Protocol, route: Route) -> Inbound {
    Inbound {
        name: "door".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        protocol,
        routes: route.into(),
        mode: Mode::Streams,
        forbidden: Arc::default(),
        idle: Duration::from_secs(60),
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    }
}

pub(crate) fn run(inbound: Inbound) -> Relay {
    Relay::start(&Config { inbounds: vec![inbound], workers: NonZeroUsize::new(2).unwrap() }).unwrap()
}

pub(crate) fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A target that serves one connection with `script`.
pub(crate) fn target<T: Send + 'static>(
    script: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        script(stream)
    });
    (address, thread)
}

const METHOD: Method = Method::Blake3Aes256Gcm;
