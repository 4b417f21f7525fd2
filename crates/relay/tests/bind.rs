//! BIND over real sockets: where the target may come to, who may come, and that both answers are true.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::proxy_header::Version;
use umbra_relay::Relay;
use umbra_relay::config::{Inbound, Names, Parent, Protocol, ProxyDoor, ProxyHeader, Route};

use common::{before, inbound, open, run, shadowsocks_server, target};

const PROXY: Protocol = Protocol::Proxy(ProxyDoor::MIXED);

fn direct() -> Relay {
    run(inbound(PROXY, Route::direct()))
}

fn socks4(ip: [u8; 4]) -> Vec<u8> {
    [&[4, 2, 0, 20][..], &ip, b"me\0"].concat()
}

fn socks5(ip: [u8; 4]) -> Vec<u8> {
    [&[5, 1, 0, 5, 2, 0, 1][..], &ip, &[0, 20]].concat()
}

/// The address in an answer of SOCKS4 or SOCKS5; the code has to be good.
fn answer(near: &mut TcpStream, is_five: bool) -> SocketAddr {
    let mut bytes = vec![0; if is_five { 10 } else { 8 }];
    near.read_exact(&mut bytes).unwrap();
    let (ip, port) = if is_five {
        assert_eq!(bytes[..4], [5, 0, 0, 1]);
        (bytes[4..8].first_chunk::<4>(), [bytes[8], bytes[9]])
    } else {
        assert_eq!(bytes[..2], [0, 90]);
        (bytes[4..8].first_chunk::<4>(), [bytes[2], bytes[3]])
    };
    SocketAddr::new(Ipv4Addr::from(*ip.unwrap()).into(), u16::from_be_bytes(port))
}

/// Connects to `address` from one of the machine's own addresses.
fn come_from(ip: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.into(), 0).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// A whole BIND session with a target that comes from `ip`.
fn session(relay: &Relay, request: &[u8], ip: Ipv4Addr) {
    let is_five = request[0] == 5;
    let mut near = open(relay.addresses()[0]);
    near.write_all(request).unwrap();
    if is_five {
        near.read_exact(&mut [0; 2]).unwrap();
    }
    let listening = answer(&mut near, is_five);
    assert_eq!(listening.ip(), Ipv4Addr::LOCALHOST);
    let mut far = come_from(ip, listening);
    assert_eq!(answer(&mut near, is_five), far.local_addr().unwrap());
    far.write_all(b"from outside").unwrap();
    let mut heard = [0; 12];
    near.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"from outside");
    near.write_all(b"back").unwrap();
    drop(near);
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"back");
}

#[test]
fn a_target_comes_to_the_address_that_the_client_was_told() {
    let relay = direct();
    for request in [socks4([127, 0, 0, 1]), socks5([127, 0, 0, 1]), socks4([0; 4]), socks5([0; 4])] {
        session(&relay, &request, Ipv4Addr::LOCALHOST);
    }
    session(&relay, &socks5([0; 4]), Ipv4Addr::new(127, 0, 0, 9));
    relay.stop();
}

#[test]
fn whoever_comes_is_sent_no_header_that_a_target_would_be_sent() {
    let proxy_header = ProxyHeader { send: Some(Version::V1), ..ProxyHeader::default() };
    let relay = run(Inbound { proxy_header, ..inbound(PROXY, Route::direct()) });
    session(&relay, &socks5([127, 0, 0, 1]), Ipv4Addr::LOCALHOST);
    relay.stop();
}

#[test]
fn nobody_else_may_come_in_the_place_of_the_target() {
    let relay = direct();
    let mut near = open(relay.addresses()[0]);
    near.write_all(&socks5([127, 0, 0, 7])).unwrap();
    near.read_exact(&mut [0; 2]).unwrap();
    let listening = answer(&mut near, true);
    let mut wrong = come_from(Ipv4Addr::new(127, 0, 0, 8), listening);
    let end = wrong.read(&mut [0; 1]);
    assert!(matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    let mut right = come_from(Ipv4Addr::new(127, 0, 0, 7), listening);
    assert_eq!(answer(&mut near, true), right.local_addr().unwrap());
    right.write_all(b"x").unwrap();
    near.read_exact(&mut [0; 1]).unwrap();
    // One was asked for, and one has come.
    let late = TcpStream::connect(listening);
    assert!(late.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
    relay.stop();
}

/// What is told to a client that waits for `ip` at a door which leads nobody to 127.0.0.8/30.
fn bind_before_forbidden(relay: &Relay, ip: [u8; 4]) -> (TcpStream, u8, u16) {
    let mut near = open(relay.addresses()[0]);
    near.write_all(&socks5(ip)).unwrap();
    let mut told = [0; 12];
    near.read_exact(&mut told).unwrap();
    (near, told[3], u16::from_be_bytes([told[10], told[11]]))
}

#[test]
fn nobody_whom_a_client_must_not_be_led_to_is_waited_for_or_comes() {
    let forbidden = Arc::new(Forbidden::listed(vec!["127.0.0.8/30".parse().unwrap()]));
    let relay = run(Inbound { forbidden, ..inbound(PROXY, Route::direct()) });
    assert_eq!(bind_before_forbidden(&relay, [127, 0, 0, 9]).1, 2);
    let (mut near, code, port) = bind_before_forbidden(&relay, [0; 4]);
    assert_eq!(code, 0);
    let listening = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let mut wrong = come_from(Ipv4Addr::new(127, 0, 0, 9), listening);
    let end = wrong.read(&mut [0; 1]);
    assert!(matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    let right = come_from(Ipv4Addr::new(127, 0, 0, 7), listening);
    assert_eq!(answer(&mut near, true), right.local_addr().unwrap());
    relay.stop();
}

#[test]
fn whoever_comes_to_a_parent_is_not_let_in_either_if_a_client_must_not_be_led_there() {
    let parent = direct();
    let forbidden =
        Arc::new(Forbidden::listed(vec!["127.0.0.8/30".parse().unwrap(), "0.0.0.0/8".parse().unwrap()]));
    let route = Route::parent(Parent {
        names: Names::ResolveHere,
        ..Parent::socks5(parent.addresses()[0].into(), None)
    });
    let relay = run(Inbound { forbidden, ..inbound(PROXY, route) });
    assert_eq!(bind_before_forbidden(&relay, [127, 0, 0, 9]).1, 2);
    for (last, code) in [(9, 2), (7, 0)] {
        let (mut near, granted, port) = bind_before_forbidden(&relay, [0; 4]);
        assert_eq!(granted, 0);
        let mut far = come_from(Ipv4Addr::new(127, 0, 0, last), (Ipv4Addr::LOCALHOST, port).into());
        let mut second = [0; 10];
        near.read_exact(&mut second).unwrap();
        assert_eq!(second[1], code);
        if code != 0 {
            let end = far.read(&mut [0; 1]);
            assert!(
                matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
            );
        }
    }
    relay.stop();
    parent.stop();
}

#[test]
fn a_parent_is_asked_to_wait_and_both_its_answers_are_passed_on() {
    let parent = direct();
    let route = Route::parent(Parent::socks5(parent.addresses()[0].into(), None));
    let relay = run(inbound(PROXY, route));
    session(&relay, &socks5([127, 0, 0, 1]), Ipv4Addr::LOCALHOST);
    session(&relay, &socks4([0; 4]), Ipv4Addr::LOCALHOST);
    relay.stop();
    parent.stop();
}

#[test]
fn a_way_through_shadowsocks_has_no_bind_and_says_so() {
    let pair = before(run(inbound(shadowsocks_server(), Route::direct())), 0, PROXY);
    for (request, told) in [(socks4([1; 4]), &[0, 91][..]), (socks5([1; 4]), &[5, 0, 5, 7])] {
        let mut near = open(pair.client.addresses()[0]);
        near.write_all(&request).unwrap();
        let mut heard = Vec::new();
        near.read_to_end(&mut heard).unwrap();
        assert!(heard.starts_with(told), "{heard:?}");
    }
    pair.stop();
}

#[test]
fn a_parent_that_tells_only_a_port_is_where_the_target_may_come_to() {
    tells_only_a_port(|parent| parent.into());
    tells_only_a_port(|parent| Address::from_host("localhost", parent.port()).unwrap());
}

fn tells_only_a_port(known_as: impl Fn(SocketAddr) -> Address) {
    let (parent, asked) = target(|mut stream| {
        let mut request = [0; 3 + 10];
        stream.read_exact(&mut request[..3]).unwrap();
        stream.write_all(&[5, 0]).unwrap();
        stream.read_exact(&mut request[3..]).unwrap();
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 4, 210]).unwrap();
        stream.write_all(b"\x05\x00\x00\x01\x09\x08\x07\x06\x00\x50first words").unwrap();
        request
    });
    let route = Route::parent(Parent::socks5(known_as(parent), None));
    let relay = run(inbound(PROXY, route));
    let mut near = open(relay.addresses()[0]);
    near.write_all(&socks4([9, 8, 7, 6])).unwrap();
    assert_eq!(answer(&mut near, false), SocketAddr::new(parent.ip(), 1234));
    assert_eq!(answer(&mut near, false), "9.8.7.6:80".parse().unwrap());
    let mut heard = [0; 11];
    near.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"first words");
    assert_eq!(asked.join().unwrap(), *b"\x05\x01\x00\x05\x02\x00\x01\x09\x08\x07\x06\x00\x14");
    relay.stop();
}

#[test]
fn whoever_leaves_is_not_waited_for_any_longer_and_what_it_has_said_is_kept_until_then() {
    let relay = direct();
    for request in [socks4([127, 0, 0, 7]), socks5([127, 0, 0, 7])] {
        let is_five = request[0] == 5;
        let mut near = open(relay.addresses()[0]);
        near.write_all(&request).unwrap();
        if is_five {
            near.read_exact(&mut [0; 2]).unwrap();
        }
        let listening = answer(&mut near, is_five);
        drop(near);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(listening).is_ok() {
            assert!(Instant::now() < deadline, "somebody still listens");
            thread::sleep(Duration::from_millis(5));
        }
    }
    let mut near = open(relay.addresses()[0]);
    near.write_all(&socks4([127, 0, 0, 1])).unwrap();
    let listening = answer(&mut near, false);
    near.write_all(b"said too early").unwrap();
    // Nothing shows that it has been read; in most runs it has been after this.
    thread::sleep(Duration::from_millis(50));
    let mut far = come_from(Ipv4Addr::LOCALHOST, listening);
    answer(&mut near, false);
    let mut heard = [0; 14];
    far.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"said too early");
    relay.stop();
}
