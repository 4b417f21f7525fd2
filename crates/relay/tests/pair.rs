//! Our client and our server over real sockets: what goes in comes out, whatever the method and the manners of the ends.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[expect(dead_code, reason = "shared with other tests")]
mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::key::{Key, encode_password};
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_relay::Relay;
use umbra_relay::config::{Inbound, Mode, Protocol, ProxyDoor, Route, Server, ShadowsocksDoor, Tcp};

use common::{inbound, open, run, server_with, target};

/// A client and a server of ours, connected.
struct Pair {
    client: Relay,
    server: Relay,
}

impl Pair {
    fn start(method: Method) -> Self {
        Self::with_one_time_auth(method, false)
    }

    /// A server that demands it, and a client that has it; or neither.
    fn with_one_time_auth(method: Method, one_time_auth: bool) -> Self {
        let door =
            ShadowsocksDoor { keys: Arc::new(key(method, 1).into()), heads: HeadReads::One, one_time_auth };
        let server = start(Protocol::Shadowsocks(door), Route::direct());
        let route = Route::servers(vec![Server {
            address: server.addresses()[0].into(),
            mode: Mode::Streams,
            credentials: key(method, 1).into(),
            heads: HeadReads::One,
            one_time_auth,
        }]);
        Self { client: start(Protocol::Proxy(ProxyDoor::MIXED), route), server }
    }

    fn connect(&self, target: SocketAddr) -> TcpStream {
        let mut stream = open(self.client.addresses()[0]);
        stream.write_all(&greeting(target)).unwrap();
        let mut reply = [0; 12];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..5], [5, 0, 5, 0, 0]);
        stream
    }

    fn stop(self) {
        self.client.stop();
        self.server.stop();
    }
}

fn key(method: Method, byte: u8) -> Key {
    Key::from_password(method, &encode_password(&vec![byte; method.key_len()])).unwrap()
}

fn start(protocol: Protocol, route: Route) -> Relay {
    start_at("127.0.0.1:0", protocol, route)
}

/// With fast open asked for: it must change nothing but the number of packets.
fn start_at(listen: &str, protocol: Protocol, route: Route) -> Relay {
    let listen = listen.parse().unwrap();
    let tcp = Tcp { no_delay: true, fast_open: true };
    run(Inbound { listen, tcp, ..inbound(protocol, route) })
}

/// Greeting and request in one piece.
fn greeting(target: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 5, 1, 0];
    match target {
        SocketAddr::V4(target) => {
            bytes.push(1);
            bytes.extend(target.ip().octets());
        }
        SocketAddr::V6(target) => {
            bytes.push(4);
            bytes.extend(target.ip().octets());
        }
    }
    bytes.extend(target.port().to_be_bytes());
    bytes
}

/// Bytes that no shift or repeat of themselves equals.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

#[test]
fn megabytes_cross_both_ways_at_once_with_every_method() {
    let plain = Method::ALL.into_iter().map(|method| (method, false));
    let authenticated = [Method::Aes256Cfb, Method::Chacha20, Method::Rc4].map(|method| (method, true));
    for (method, one_time_auth) in plain.chain(authenticated) {
        let pair = Pair::with_one_time_auth(method, one_time_auth);
        // Enough to grow the buffers where it matters most.
        let len = if Method::COMMON.contains(&method) { 5_000_000 } else { 100_000 };
        let sent = Arc::new(pattern(len));
        let echoed = Arc::clone(&sent);
        let (address, far) = target(move |mut stream| {
            let mut reader = stream.try_clone().unwrap();
            let got = thread::spawn(move || {
                let mut got = Vec::new();
                reader.read_to_end(&mut got).unwrap();
                got
            });
            stream.write_all(&echoed).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            got.join().unwrap()
        });
        let mut near = pair.connect(address);
        let mut writer = near.try_clone().unwrap();
        let upload = Arc::clone(&sent);
        let writing = thread::spawn(move || {
            // Uneven writes, so that records of every size come about.
            let mut rest = &upload[..];
            for len in (1..).map(|turn: usize| turn * 37 % 40_000 + 1) {
                let (now, later) = rest.split_at(len.min(rest.len()));
                writer.write_all(now).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        near.read_to_end(&mut got).unwrap();
        writing.join().unwrap();
        assert!(got == *sent, "{method}: downlink");
        assert!(far.join().unwrap() == *sent, "{method}: uplink");
        pair.stop();
    }
}

#[test]
fn a_server_that_demands_one_time_authentication_serves_nobody_without() {
    let pair = Pair::with_one_time_auth(Method::Aes128Ctr, true);
    let route = Route::servers(vec![Server {
        address: pair.server.addresses()[0].into(),
        mode: Mode::Streams,
        credentials: key(Method::Aes128Ctr, 1).into(),
        heads: HeadReads::One,
        one_time_auth: false,
    }]);
    let without = Pair { client: start(Protocol::Proxy(ProxyDoor::MIXED), route), server: pair.server };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut refused = without.connect(listener.local_addr().unwrap());
    refused.write_all(b"hello").unwrap();
    refused.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(refused.read(&mut [0; 1]).is_err(), "silence");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the target hears nothing");
    without.stop();
    pair.client.stop();
}

#[test]
fn an_answer_comes_after_the_client_has_ended_its_half() {
    for method in [Method::Aes256Gcm, Method::Blake3Aes256Gcm, Method::Aes256Cfb, Method::Plain] {
        let pair = Pair::start(method);
        let (address, far) = target(|mut stream| {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            stream.write_all(&got.repeat(2)).unwrap();
        });
        let mut near = pair.connect(address);
        near.write_all(b"question").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        near.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"questionquestion");
        far.join().unwrap();
        pair.stop();
    }
}

#[test]
fn a_client_that_ends_without_a_word_still_reaches_its_target() {
    for method in [Method::Aes256Gcm, Method::Blake3Aes256Gcm, Method::Aes256Cfb, Method::Plain] {
        let pair = Pair::start(method);
        let (address, far) = target(|mut stream| {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            stream.write_all(b"bye").unwrap();
            got
        });
        let mut near = pair.connect(address);
        near.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        near.read_to_end(&mut got).unwrap();
        assert_eq!((got, far.join().unwrap()), (b"bye".to_vec(), Vec::new()));
        pair.stop();
    }
}

#[test]
fn a_server_that_speaks_first_is_heard_without_a_wait() {
    for method in [Method::Aes256Gcm, Method::Blake3Aes256Gcm, Method::Aes256Cfb, Method::Plain] {
        let pair = Pair::start(method);
        let (address, far) = target(|mut stream| {
            stream.write_all(b"220 ready\r\n").unwrap();
            let mut line = [0; 4];
            stream.read_exact(&mut line).unwrap();
            line
        });
        let started = Instant::now();
        let mut near = pair.connect(address);
        let mut banner = [0; 11];
        near.read_exact(&mut banner).unwrap();
        assert!(started.elapsed() < Duration::from_millis(400), "peers wait 500 ms");
        near.write_all(b"quit").unwrap();
        assert_eq!(&far.join().unwrap(), b"quit");
        pair.stop();
    }
}

#[test]
fn a_session_runs_over_ipv6_at_every_end() {
    let listener = match TcpListener::bind("[::1]:0") {
        // Where nothing may be left out, this is a failure like any other.
        Err(error) if std::env::var_os("CI").is_none() && error.kind() == ErrorKind::AddrNotAvailable => {
            return eprintln!("not run: this machine has no IPv6");
        }
        bound => bound.unwrap(),
    };
    let address = listener.local_addr().unwrap();
    let server = start_at("[::1]:0", server_with(key(Method::Blake3Aes256Gcm, 1)), Route::direct());
    let route = Route::servers(vec![Server {
        address: server.addresses()[0].into(),
        mode: Mode::Streams,
        credentials: key(Method::Blake3Aes256Gcm, 1).into(),
        heads: HeadReads::One,
        one_time_auth: false,
    }]);
    let pair = Pair { client: start_at("[::1]:0", Protocol::Proxy(ProxyDoor::MIXED), route), server };
    let mut near = pair.connect(address);
    near.write_all(b"six").unwrap();
    let (mut far, source) = listener.accept().unwrap();
    assert!(source.is_ipv6());
    far.write_all(b"and four").unwrap();
    let (mut up, mut down) = ([0; 3], [0; 8]);
    far.read_exact(&mut up).unwrap();
    near.read_exact(&mut down).unwrap();
    assert_eq!((&up, &down), (b"six", b"and four"));
    pair.stop();
}

#[test]
fn early_payload_glued_to_the_request_is_not_lost() {
    for len in [1, 100, 16_300, 18_930, 70_000] {
        let pair = Pair::start(Method::Aes128Gcm);
        let payload = pattern(len);
        let expected = payload.clone();
        let (address, far) = target(move |mut stream| {
            let mut got = vec![0; len];
            stream.read_exact(&mut got).unwrap();
            got
        });
        let mut near = open(pair.client.addresses()[0]);
        let mut bytes = greeting(address);
        bytes.extend(payload);
        near.write_all(&bytes).unwrap();
        assert!(far.join().unwrap() == expected, "{len} bytes");
        pair.stop();
    }
}

#[test]
fn a_refused_target_of_a_direct_path_is_told_as_refused() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = start(Protocol::Proxy(ProxyDoor::MIXED), Route::direct());
    let mut near = open(relay.addresses()[0]);
    near.write_all(&greeting(closed)).unwrap();
    let mut got = Vec::new();
    near.read_to_end(&mut got).unwrap();
    assert_eq!(got, [5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    relay.stop();
}

#[test]
fn a_shadowsocks_inbound_may_go_out_through_another_server() {
    let far_server = start(server_with(key(Method::Aes256Gcm, 2)), Route::direct());
    let onward = Route::servers(vec![Server {
        address: far_server.addresses()[0].into(),
        mode: Mode::Streams,
        credentials: key(Method::Aes256Gcm, 2).into(),
        heads: HeadReads::One,
        one_time_auth: false,
    }]);
    let middle = start(server_with(key(Method::Blake3Aes256Gcm, 1)), onward);
    let inward = Route::servers(vec![Server {
        address: middle.addresses()[0].into(),
        mode: Mode::Streams,
        credentials: key(Method::Blake3Aes256Gcm, 1).into(),
        heads: HeadReads::One,
        one_time_auth: false,
    }]);
    let pair = Pair { client: start(Protocol::Proxy(ProxyDoor::MIXED), inward), server: middle };
    let sent = pattern(3_000_000);
    let expected = sent.clone();
    let (address, far) = target(move |mut stream| {
        let mut got = vec![0; 3_000_000];
        stream.read_exact(&mut got).unwrap();
        stream.write_all(&got).unwrap();
        got
    });
    let mut near = pair.connect(address);
    let mut reader = near.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got
    });
    near.write_all(&sent).unwrap();
    assert!(far.join().unwrap() == expected);
    assert!(reading.join().unwrap() == expected);
    pair.stop();
    far_server.stop();
}

#[test]
fn nothing_is_lost_when_the_target_sends_much_and_closes_at_once() {
    let pair = Pair::start(Method::Chacha20IetfPoly1305);
    let sent = pattern(5_000_000);
    let expected = sent.clone();
    let (address, far) = target(move |mut stream| stream.write_all(&sent).unwrap());
    let mut near = pair.connect(address);
    let mut got = Vec::new();
    near.read_to_end(&mut got).unwrap();
    assert!(got == expected);
    far.join().unwrap();
    pair.stop();
}

#[test]
fn a_wrong_key_reaches_no_target_and_other_clients_go_on() {
    let server = start(server_with(key(Method::Aes256Gcm, 1)), Route::direct());
    let path_with = |byte| {
        Route::servers(vec![Server {
            address: server.addresses()[0].into(),
            mode: Mode::Streams,
            credentials: key(Method::Aes256Gcm, byte).into(),
            heads: HeadReads::One,
            one_time_auth: false,
        }])
    };
    let stranger = start(Protocol::Proxy(ProxyDoor::MIXED), path_with(9));
    let friend = start(Protocol::Proxy(ProxyDoor::MIXED), path_with(1));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut refused = open(stranger.addresses()[0]);
    refused.write_all(&greeting(address)).unwrap();
    refused.write_all(b"hello").unwrap();
    let mut good = open(friend.addresses()[0]);
    good.write_all(&greeting(address)).unwrap();
    good.write_all(b"HELLO").unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut got = [0; 5];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"HELLO");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the stranger's session must not reach the target");
    for relay in [stranger, friend, server] {
        relay.stop();
    }
}
