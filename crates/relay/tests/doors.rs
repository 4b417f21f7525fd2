//! Every way in and out over real sockets: what proxies speak, tunnels, a parent, and PROXY headers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use umbra_proto::proxy_header::Version;
use umbra_proto::users::{Credentials, Users};
use umbra_relay::Relay;
use umbra_relay::config::{Inbound, Parent, Protocol, ProxyDoor, ProxyHeader, Route};

use common::{before, inbound, open, run, shadowsocks_server, target};

fn proxy(users: Option<Arc<Users>>) -> Protocol {
    Protocol::Proxy(ProxyDoor { users, ..ProxyDoor::MIXED })
}

fn users() -> Option<Arc<Users>> {
    let alice = Credentials::new("alice", "secret").unwrap();
    Some(Arc::new(Users::new([7; 32], [alice]).unwrap()))
}

fn start(protocol: Protocol, route: Route) -> Relay {
    run(inbound(protocol, route))
}

fn octets(address: SocketAddr) -> [u8; 4] {
    let IpAddr::V4(ip) = address.ip() else { return [0; 4] };
    ip.octets()
}

/// SOCKS4 towards an IPv4 address.
fn socks4(target: SocketAddr) -> Vec<u8> {
    [&[4, 1][..], &target.port().to_be_bytes(), &octets(target), b"me\0"].concat()
}

/// SOCKS5 with a name and a password towards an IPv4 address, all in one piece.
fn socks5_login(target: SocketAddr, password: &str) -> Vec<u8> {
    let mut bytes = vec![5, 2, 0, 2, 1, 5];
    bytes.extend(b"alice");
    bytes.push(u8::try_from(password.len()).unwrap());
    bytes.extend(password.as_bytes());
    bytes.extend([5, 1, 0, 1]);
    bytes.extend(octets(target));
    bytes.extend(target.port().to_be_bytes());
    bytes
}

type Request = fn(SocketAddr) -> Vec<u8>;

fn socks5(target: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0];
    bytes.extend(&socks5_login(target, "")[12..]);
    bytes
}

fn connect_head(target: SocketAddr) -> Vec<u8> {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes()
}

/// Says `request` and a question in one piece, and hears the `greeting` of the door and the target's answer behind it.
fn ask(door: SocketAddr, request: &[u8], greeting: &[u8]) {
    let mut near = open(door);
    near.write_all(&[request, b"question"].concat()).unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).unwrap();
    assert!(heard.starts_with(greeting) && heard.ends_with(b"answer"), "{heard:?}");
}

/// A target that hears `expected` and answers.
fn answering(expected: &'static [u8]) -> (SocketAddr, std::thread::JoinHandle<()>) {
    target(move |mut stream| {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, expected);
        stream.write_all(b"answer").unwrap();
    })
}

#[test]
fn one_port_speaks_socks4_socks5_and_connect_with_payload_glued_to_the_request() {
    let relay = start(proxy(None), Route::direct());
    let door = relay.addresses()[0];
    let requests: [(Request, &[u8]); 3] =
        [(socks4, &[0, 90]), (socks5, &[5, 0, 5, 0, 0]), (connect_head, b"HTTP/1.1 200 ")];
    for (request, greeting) in requests {
        let (address, far) = answering(b"question");
        ask(door, &request(address), greeting);
        far.join().unwrap();
    }
    relay.stop();
}

#[test]
fn a_door_with_users_lets_nobody_else_in_by_any_protocol() {
    let relay = start(proxy(users()), Route::direct());
    let door = relay.addresses()[0];
    let (address, far) = answering(b"question");
    let hear = |request: &[u8]| {
        let mut near = open(door);
        near.write_all(request).unwrap();
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).unwrap();
        heard
    };
    assert_eq!(hear(&socks4(address))[..2], [0, 91]);
    assert_eq!(hear(&socks5(address)), [5, 0xff]);
    assert_eq!(hear(&socks5_login(address, "guess")), [5, 2, 1, 1]);
    assert!(hear(&connect_head(address)).starts_with(b"HTTP/1.1 407 "));
    let basic = |pair| format!("CONNECT {address} HTTP/1.1\r\nProxy-Authorization: Basic {pair}\r\n\r\n");
    assert!(hear(basic("YWxpY2U6Z3Vlc3M=").as_bytes()).starts_with(b"HTTP/1.1 407 "));
    ask(door, basic("YWxpY2U6c2VjcmV0").as_bytes(), b"HTTP/1.1 200 ");
    far.join().unwrap();
    let (address, far) = answering(b"question");
    ask(door, &socks5_login(address, "secret"), &[5, 2, 1, 0, 5, 0, 0]);
    far.join().unwrap();
    relay.stop();
}

#[test]
fn a_target_that_refuses_is_told_in_the_words_of_each_protocol() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = start(proxy(None), Route::direct());
    for (request, told) in [
        (socks4(closed), &[0, 91][..]),
        (socks5(closed), &[5, 0, 5, 5]),
        (connect_head(closed), b"HTTP/1.1 502 "),
    ] {
        let mut near = open(relay.addresses()[0]);
        near.write_all(&request).unwrap();
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).unwrap();
        assert!(heard.starts_with(told), "{heard:?}");
    }
    relay.stop();
}

#[test]
fn a_tunnel_dials_at_once_and_a_server_that_speaks_first_is_heard() {
    let (address, far) = target(|mut stream| {
        stream.write_all(b"220 ready\r\n").unwrap();
        let mut line = [0; 4];
        stream.read_exact(&mut line).unwrap();
        line
    });
    let pair = before(
        run(inbound(shadowsocks_server(), Route::direct())),
        0,
        Protocol::Tunnel { target: address.into() },
    );
    let started = Instant::now();
    let mut near = open(pair.client.addresses()[0]);
    let mut banner = [0; 11];
    near.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"220 ready\r\n");
    assert!(started.elapsed() < Duration::from_millis(400));
    near.write_all(b"quit").unwrap();
    assert_eq!(&far.join().unwrap(), b"quit");
    pair.stop();
}

fn through_parent(parent: &Relay, password: &str) -> Route {
    let login = Some(Credentials::new("alice", password).unwrap());
    Route::parent(Parent::socks5(parent.addresses()[0].into(), login))
}

#[test]
fn a_parent_is_asked_with_its_password_and_its_refusal_is_passed_on() {
    let parent = start(proxy(users()), Route::direct());
    let relay = start(proxy(None), through_parent(&parent, "secret"));
    let (address, far) = answering(b"question");
    ask(relay.addresses()[0], &socks5(address), &[5, 0, 5, 0, 0]);
    far.join().unwrap();

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stranger = start(proxy(None), through_parent(&parent, "guess"));
    for (door, code) in [(&relay, 5), (&stranger, 1)] {
        let mut near = open(door.addresses()[0]);
        near.write_all(&socks5(closed)).unwrap();
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).unwrap();
        assert_eq!(heard[..4], [5, 0, 5, code]);
    }
    for relay in [relay, stranger, parent] {
        relay.stop();
    }
}

#[test]
fn a_banner_glued_to_a_parents_answer_is_not_lost() {
    let (parent, asked) = target(|mut stream| {
        let mut request = [0; 3 + 10];
        stream.read_exact(&mut request[..3]).unwrap();
        stream.write_all(&[5, 0]).unwrap();
        stream.read_exact(&mut request[3..]).unwrap();
        stream.write_all(b"\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50220 ready\r\n").unwrap();
        request
    });
    let route = Route::parent(Parent::socks5(parent.into(), None));
    let relay = start(proxy(None), route);
    let mut near = open(relay.addresses()[0]);
    near.write_all(b"\x04\x01\x00\x16\x09\x08\x07\x06\x00").unwrap();
    let mut heard = [0; 8 + 11];
    near.read_exact(&mut heard).unwrap();
    assert_eq!(&heard[..8], [0, 90, 0, 80, 1, 2, 3, 4]);
    assert_eq!(&heard[8..], b"220 ready\r\n");
    assert_eq!(asked.join().unwrap(), *b"\x05\x01\x00\x05\x01\x00\x01\x09\x08\x07\x06\x00\x16");
    relay.stop();
}

fn expecting(protocol: Protocol, trusted: &str, send: Option<Version>) -> Inbound {
    let expect_from = Arc::new([trusted.parse().unwrap()]);
    let proxy_header = ProxyHeader { expect_from, send };
    Inbound { proxy_header, ..inbound(protocol, Route::direct()) }
}

#[test]
fn the_address_that_a_load_balancer_tells_goes_on_to_the_target() {
    let relay = run(expecting(proxy(None), "127.0.0.0/8", Some(Version::V1)));
    let door = relay.addresses()[0];
    let (address, far) = answering(b"PROXY TCP4 192.0.2.1 192.0.2.9 1111 2222\r\nquestion");
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.9 1111 2222\r\n";
    ask(door, &[&header[..], &socks5(address)].concat(), &[5, 0, 5, 0, 0]);
    far.join().unwrap();
    // Nobody who is trusted to send a header gets in without one.
    for bytes in [&socks5(address)[..], b"PROXY TCP9 1 2 3 4\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"] {
        let mut near = open(door);
        near.write_all(bytes).unwrap();
        let mut heard = Vec::new();
        assert!(near.read_to_end(&mut heard).is_err() || heard.is_empty());
        assert!(heard.is_empty());
    }
    relay.stop();
}

#[test]
fn nobody_elses_header_is_read() {
    let relay = run(expecting(proxy(None), "10.0.0.0/8", Some(Version::V1)));
    let door = relay.addresses()[0];
    let (address, far) = target(|mut stream| {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        stream.write_all(b"answer").unwrap();
        (stream.peer_addr().unwrap(), String::from_utf8(heard).unwrap())
    });
    ask(door, &socks5(address), &[5, 0, 5, 0, 0]);
    let (_, heard) = far.join().unwrap();
    let port = door.port();
    assert!(
        heard.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 ") && heard.ends_with("\r\nquestion"),
        "{heard}"
    );
    assert!(heard.contains(&format!(" {port}\r\n")), "{heard}");
    relay.stop();
}

/// A load balancer for one connection, which puts `header` before what it passes on, in one write with the first bytes.
fn glue(server: SocketAddr, header: &'static [u8]) -> SocketAddr {
    let (address, _) = target(move |mut client| {
        let mut server = open(server);
        let mut first = vec![0; 4096];
        let count = client.read(&mut first).unwrap();
        server.write_all(&[header, &first[..count]].concat()).unwrap();
        let (mut back, mut forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let backward = std::thread::spawn(move || std::io::copy(&mut back, &mut forth));
        let _ = std::io::copy(&mut client, &mut server);
        let _ = backward.join();
    });
    address
}

#[test]
fn a_header_goes_through_shadowsocks_both_before_the_salt_and_as_first_payload() {
    for (send, first) in [
        (Version::V1, &b"PROXY TCP4 192.0.2.1 192.0.2.9 1111 2222\r\n"[..]),
        (Version::V2, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x09\x04\x57\x08\xae"),
    ] {
        let far = move |mut stream: std::net::TcpStream| {
            let mut heard = vec![0; first.len() + 8];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(b"hello").unwrap();
            heard
        };
        let (address, far) = target(far);
        // The client's tunnel sends a header to the server, which trusts it, and the server sends what it says to the target.
        let server = shadowsocks_server();
        let server = run(expecting(server, "127.0.0.1/32", Some(send)));
        let balancer = glue(server.addresses()[0], b"PROXY TCP4 192.0.2.1 192.0.2.9 1111 2222\r\n");
        let client = start(Protocol::Tunnel { target: address.into() }, common::through(balancer));
        let mut near = open(client.addresses()[0]);
        near.write_all(b"question").unwrap();
        let mut heard = [0; 5];
        near.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        assert_eq!(far.join().unwrap(), [first, b"question"].concat());
        client.stop();
        server.stop();
    }
}
