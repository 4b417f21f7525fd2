//! Peers for tests of datagrams over real sockets: targets that echo, clients with control connections, doors.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use umbra_proto::address::{Address, AddressBlock};
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::key::{Key, encode_password};
use umbra_proto::socks5::udp;
use umbra_relay::config::{Inbound, Mode, Protocol, ProxyDoor, Route, Udp};

use crate::common::{inbound, open};

/// Gives every datagram back to whoever sent it, with a mark before it.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start(at: &str) -> Self {
        let socket = UdpSocket::bind(at).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (address, stop) = (socket.local_addr().unwrap(), Arc::<AtomicBool>::default());
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut datagram = vec![0; 65_536];
            while !told.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut datagram) else { continue };
                // As long as what came, so that the longest fits.
                datagram[..len].reverse();
                let _ = socket.send_to(&datagram[..len], from);
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A client with a control connection.
pub(crate) struct Client {
    pub(crate) control: TcpStream,
    pub(crate) socket: UdpSocket,
    pub(crate) relay: SocketAddr,
}

impl Client {
    pub(crate) fn associate(door: SocketAddr) -> Self {
        let mut control = open(door);
        control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut answer = [0; 2 + 10];
        control.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..6], [5, 0, 5, 0, 0, 1]);
        let (address, _) = AddressBlock::split(&answer[5..]).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { control, socket, relay: address.ip().unwrap() }
    }

    pub(crate) fn send(&self, target: &Address, payload: &[u8]) {
        self.socket.send_to(&datagram(target, payload), self.relay).unwrap();
    }

    pub(crate) fn receive(&self) -> (Address, Vec<u8>) {
        let mut bytes = vec![0; 65_536];
        let (len, from) = self.socket.recv_from(&mut bytes).unwrap();
        assert_eq!(from, self.relay);
        let (source, payload) = udp::open(&bytes[..len]).unwrap();
        (source.to_address(), payload.to_vec())
    }

    /// There and back. Where the machine has no memory left for datagrams, the kernel drops one now and then.
    pub(crate) fn trip(&self, target: &Address, payload: &[u8]) -> (Address, Vec<u8>) {
        for _ in 0..3 {
            self.send(target, payload);
            let mut peeked = [0; 1];
            if self.socket.peek_from(&mut peeked).is_ok() {
                break;
            }
        }
        self.receive()
    }

    pub(crate) fn hears_nothing(&self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let heard = self.socket.recv_from(&mut [0; 1]);
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        heard.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }
}

pub(crate) fn datagram(target: &Address, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 3];
    target.encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) fn mirrored(payload: &[u8]) -> Vec<u8> {
    payload.iter().rev().copied().collect()
}

pub(crate) fn with_datagrams(protocol: Protocol, route: Route) -> Inbound {
    with(protocol, route, Udp::default())
}

pub(crate) fn with(protocol: Protocol, route: Route, udp: Udp) -> Inbound {
    Inbound { mode: Mode::Both(udp), ..inbound(protocol, route) }
}

pub(crate) fn mixed() -> Protocol {
    Protocol::Proxy(ProxyDoor::MIXED)
}

pub(crate) fn key(method: Method, byte: u8) -> Key {
    Key::from_password(method, &encode_password(&vec![byte; method.key_len()])).unwrap()
}

/// Nothing here takes nearly as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
