//! Rules over real sockets: the first that fits decides, and what is refused is refused in the client's words.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[expect(dead_code, reason = "shared with other tests")]
mod common;
#[expect(dead_code, reason = "shared with other tests")]
#[path = "common/parents.rs"]
mod parents;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use socket2::{Domain, Socket, Type};
use umbra_proto::address::Address;
use umbra_proto::request::Refusal;
use umbra_proto::users::{Credentials, Users};
use umbra_relay::Relay;
use umbra_relay::config::{Inbound, Parent, Protocol, ProxyDoor, Route, Routes};
use umbra_relay::router::{Conditions, Networks, Router, Rule, Targets, TargetsBuilder};

use common::{inbound, open, run};
use parents::{Scripted, ask, hear_socks5};

fn rule(name: &str, conditions: Conditions, verdict: Route) -> Rule<Route> {
    Rule { name: name.into(), conditions, verdict }
}

fn targets(networks: &[&str], suffixes: &[&str]) -> Option<Targets> {
    let mut builder = TargetsBuilder::default();
    networks.iter().for_each(|network| builder.network_text(network).unwrap());
    suffixes.iter().for_each(|suffix| builder.suffix(suffix).unwrap());
    Some(builder.build().unwrap())
}

fn with_rules(door: ProxyDoor, rules: Vec<Rule<Route>>, otherwise: Route) -> Relay {
    let routes = Routes::new(Router { rules, otherwise });
    run(Inbound { routes, ..inbound(Protocol::Proxy(door), Route::direct()) })
}

/// A SOCKS5 parent that remembers who was asked for.
fn noting() -> (Scripted, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&asked);
    let parent = Scripted::start(move |mut stream| {
        if let Some(target) = hear_socks5(&mut stream) {
            noted.lock().unwrap().push(target.to_string());
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
            answer_http(stream);
        }
    });
    (parent, asked)
}

/// Answers each request as a web server would.
fn answer_http(mut stream: TcpStream) {
    while stream.read(&mut [0; 2048]).is_ok_and(|count| count > 0) {
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

fn through(parent: &Scripted) -> Route {
    Route::parent(Parent::socks5(parent.address.into(), None))
}

#[test]
fn the_first_rule_that_fits_decides_and_the_others_are_not_asked() {
    let ((one, asked_one), (two, asked_two), (rest, asked_rest)) = (noting(), noting(), noting());
    let by_target = |networks: &[&str], suffixes: &[&str]| Conditions {
        target: targets(networks, suffixes),
        ..Conditions::default()
    };
    let by_port = Conditions { ports: Some(vec![80..=90]), ..Conditions::default() };
    let rules = vec![
        rule("one", by_target(&["192.0.2.0/24"], &["one.example"]), through(&one)),
        rule("two", by_port, through(&two)),
        rule("one again", by_target(&[], &["late.one.example"]), through(&rest)),
    ];
    let relay = with_rules(ProxyDoor::MIXED, rules, through(&rest));
    for target in ["192.0.2.9:80", "late.one.example:443", "198.51.100.1:85", "198.51.100.1:443"] {
        assert_eq!(ask(relay.addresses()[0], &target.parse().unwrap()).0, 0, "{target}");
    }
    assert_eq!(*asked_one.lock().unwrap(), ["192.0.2.9:80", "late.one.example:443"]);
    assert_eq!(*asked_two.lock().unwrap(), ["198.51.100.1:85"]);
    assert_eq!(*asked_rest.lock().unwrap(), ["198.51.100.1:443"]);
    relay.stop();
}

#[test]
fn a_name_is_resolved_for_a_rule_about_addresses_and_what_was_found_is_asked_for() {
    let ((here, asked_here), (rest, asked_rest)) = (noting(), noting());
    let loopback = Conditions { target: targets(&["127.0.0.0/8"], &[]), ..Conditions::default() };
    let relay = with_rules(ProxyDoor::MIXED, vec![rule("here", loopback, through(&here))], through(&rest));
    assert_eq!(ask(relay.addresses()[0], &"localhost:80".parse().unwrap()).0, 0);
    assert_eq!(*asked_here.lock().unwrap(), ["127.0.0.1:80"]);
    assert!(asked_rest.lock().unwrap().is_empty());
    relay.stop();
}

#[test]
fn what_a_rule_refuses_is_refused_in_the_words_of_every_protocol() {
    for (refusal, socks5, status) in [
        (Refusal::NotAllowed, 2, "403"),
        (Refusal::HostUnreachable, 4, "502"),
        (Refusal::ConnectionRefused, 5, "502"),
    ] {
        let conditions = Conditions { target: targets(&["192.0.2.0/24"], &[]), ..Conditions::default() };
        let rules = vec![rule("no", conditions, Route::Refuse(refusal))];
        let relay = with_rules(ProxyDoor::MIXED, rules, Route::direct());
        let door = relay.addresses()[0];
        assert_eq!(ask(door, &"192.0.2.1:80".parse().unwrap()).0, socks5);
        for (request, told) in [
            (&b"\x04\x01\x00\x50\xc0\x00\x02\x01me\0"[..], "\0\x5b".to_owned()),
            (b"\x04\x02\x00\x50\xc0\x00\x02\x01me\0", "\0\x5b".to_owned()),
            (b"CONNECT 192.0.2.1:80 HTTP/1.1\r\n\r\n", format!("HTTP/1.1 {status} ")),
            (b"GET http://192.0.2.1/ HTTP/1.1\r\nConnection: close\r\n\r\n", format!("HTTP/1.1 {status} ")),
        ] {
            let mut near = open(door);
            near.write_all(request).unwrap();
            let mut heard = Vec::new();
            near.read_to_end(&mut heard).unwrap();
            assert!(heard.starts_with(told.as_bytes()), "{refusal:?}: {:?}", String::from_utf8_lossy(&heard));
        }
        relay.stop();
    }
}

#[test]
fn requests_of_different_users_on_one_connection_go_each_their_own_way() {
    let ((alices, asked_alices), (rest, asked_rest)) = (noting(), noting());
    let user = |name: &str| Credentials::new(name, "secret").unwrap();
    let users = Users::new([1; 32], [user("alice"), user("bob")]).unwrap();
    let door = ProxyDoor { users: Some(Arc::new(users)), ..ProxyDoor::MIXED };
    let conditions = Conditions { users: Some(vec!["alice".into()]), ..Conditions::default() };
    let relay = with_rules(door, vec![rule("alice", conditions, through(&alices))], through(&rest));
    let mut near = open(relay.addresses()[0]);
    // alice:secret and bob:secret.
    for login in ["YWxpY2U6c2VjcmV0", "Ym9iOnNlY3JldA==", "YWxpY2U6c2VjcmV0", "YWxpY2U6c2VjcmV0"] {
        let head = format!(
            "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {login}\r\n\r\n"
        );
        near.write_all(head.as_bytes()).unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\nok") {
            let mut byte = [0];
            near.read_exact(&mut byte).unwrap();
            heard.extend(byte);
        }
        assert!(heard.starts_with(b"HTTP/1.1 200 "));
    }
    assert_eq!(asked_alices.lock().unwrap().len(), 2, "one before bob, and one after him that is kept");
    assert_eq!(asked_rest.lock().unwrap().len(), 1);
    relay.stop();
}

#[test]
fn a_rule_may_ask_for_the_door_and_for_the_source() {
    let ((one, asked), (rest, asked_rest)) = (noting(), noting());
    let here = || Some(Networks::new(["127.0.0.1/32".parse().unwrap()]));
    let elsewhere = || Some(Networks::new(["192.0.2.0/24".parse().unwrap()]));
    let door = |name: &str| Some(vec![name.into()]);
    let target: Address = "198.51.100.1:80".parse().unwrap();
    for (source, inbounds, fits) in [
        (here(), door("door"), true),
        (here(), door("another"), false),
        (elsewhere(), door("door"), false),
        (elsewhere(), None, false),
        (here(), None, true),
    ] {
        let conditions = Conditions { source, inbounds, ..Conditions::default() };
        let relay =
            with_rules(ProxyDoor::MIXED, vec![rule("rule", conditions, through(&one))], through(&rest));
        assert_eq!(ask(relay.addresses()[0], &target).0, 0);
        let taken = if fits { &asked } else { &asked_rest };
        assert_eq!(taken.lock().unwrap().drain(..).count(), 1);
        relay.stop();
    }
    assert!(asked.lock().unwrap().is_empty() && asked_rest.lock().unwrap().is_empty());
}

#[test]
fn bind_goes_by_the_rules_and_waits_for_nobody_but_whom_they_have_seen() {
    let (parent, asked) = noting();
    let away = Conditions { target: targets(&["192.0.2.0/24"], &[]), ..Conditions::default() };
    let never = Conditions { target: targets(&["198.51.100.0/24"], &[]), ..Conditions::default() };
    let rules =
        vec![rule("away", away, through(&parent)), rule("never", never, Route::Refuse(Refusal::NotAllowed))];
    let relay = with_rules(ProxyDoor::MIXED, rules, Route::direct());
    let bind = |ip: [u8; 4]| -> (u8, SocketAddr) {
        let mut near = open(relay.addresses()[0]);
        near.write_all(&[&[5, 1, 0, 5, 2, 0, 1][..], &ip, &[0, 20]].concat()).unwrap();
        let mut reply = [0; 12];
        near.read_exact(&mut reply).unwrap();
        let ip = std::net::Ipv4Addr::from(*reply[6..10].first_chunk::<4>().unwrap());
        (reply[3], (ip, u16::from_be_bytes([reply[10], reply[11]])).into())
    };
    let (code, here) = bind([127, 0, 0, 1]);
    assert!(code == 0 && here.ip().is_loopback() && here.port() != 0, "{code} {here}");
    assert_eq!(bind([192, 0, 2, 1]).0, 0);
    assert_eq!(*asked.lock().unwrap(), ["192.0.2.1:20"]);
    assert_eq!(bind([198, 51, 100, 1]).0, 2);
    relay.stop();
}

#[test]
fn nobody_comes_to_a_client_that_waits_for_anybody_to_whom_the_rules_do_not_lead_it_directly() {
    let never = Conditions { target: targets(&["127.0.0.8/30"], &[]), ..Conditions::default() };
    let rules = vec![rule("never", never, Route::Refuse(Refusal::NotAllowed))];
    let relay = with_rules(ProxyDoor::MIXED, rules, Route::direct());
    let mut near = open(relay.addresses()[0]);
    near.write_all(&[5, 1, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 20]).unwrap();
    let mut reply = [0; 12];
    near.read_exact(&mut reply).unwrap();
    let listening = SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([reply[10], reply[11]])));
    let come_from = |last| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
        socket.connect(&listening.into()).unwrap();
        TcpStream::from(socket)
    };
    let end = come_from(9).read(&mut [0; 1]);
    assert!(matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    let right = come_from(7);
    let mut second = [0; 10];
    near.read_exact(&mut second).unwrap();
    assert_eq!(second[..8], [5, 0, 0, 1, 127, 0, 0, 7]);
    drop(right);
    relay.stop();
}
