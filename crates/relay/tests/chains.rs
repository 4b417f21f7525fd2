//! Parents of every kind, alone and one inside the other, over real sockets: what is asked on the wire, what is taken for an answer, and
//! what becomes of the bytes and the ends behind it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[expect(dead_code, reason = "shared with other tests")]
mod common;
#[expect(dead_code, reason = "shared with other tests")]
#[path = "common/parents.rs"]
mod parents;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::http::client::BasicLogin;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::socks4::client::UserId;
use umbra_proto::users::{Credentials, Users};
use umbra_relay::Relay;
use umbra_relay::config::{
    Group, Hop, Inbound, Mode, Names, Parent, ParentProtocol, Path, Protocol, ProxyDoor, Route, Server,
    ShadowsocksDoor,
};

use umbra_relay::group::Settings;

use common::{inbound, run, target};
use parents::{Scripted, ask, reset};

/// What passes between a proxy and us.
#[derive(Clone)]
enum Line {
    Hears(Vec<u8>),
    /// The head of a request that has all these lines and no other.
    HearsHead(Vec<String>),
    Says(Vec<u8>),
}

use Line::{Hears, HearsHead, Says};

/// Plays `lines` in whole pieces or byte by byte, the last of them with words of the target behind it, and then is the target.
fn play(mut stream: TcpStream, lines: &[Line], is_cut: bool) -> Vec<u8> {
    let mut lines = lines.to_vec();
    if let Some(Says(last)) = lines.last_mut() {
        last.extend(b"banner");
    }
    for line in &lines {
        match line {
            Hears(expected) => {
                let mut heard = vec![0; expected.len()];
                stream.read_exact(&mut heard).unwrap();
                assert_eq!(heard, *expected);
            }
            HearsHead(expected) => {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let heard: Vec<_> = head.trim_end().split("\r\n").collect();
                assert_eq!(heard, *expected);
            }
            Says(words) if is_cut => words.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap()),
            Says(words) => stream.write_all(words).unwrap(),
        }
    }
    let mut question = Vec::new();
    stream.read_to_end(&mut question).unwrap();
    stream.write_all(b"answer after the end").unwrap();
    question
}

/// A session with a target that speaks first, and answers when it has heard the end.
fn converse(door: SocketAddr, target: &Address) {
    let (code, mut near) = ask(door, target);
    assert_eq!(code, 0);
    let mut banner = [0; 6];
    near.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"banner");
    let question = vec![b'q'; 200_000];
    near.write_all(&question).unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer after the end");
}

fn parent(address: SocketAddr, protocol: ParentProtocol, names: Names) -> Parent {
    Parent { protocol, names, ..Parent::socks5(address.into(), None) }
}

/// A proxy of this protocol that plays `lines` is asked for `asked`.
fn check(protocol: &ParentProtocol, names: Names, asked: &str, lines: &[Line]) {
    for is_cut in [false, true] {
        let (said, heard) = mpsc::channel();
        let script = lines.to_vec();
        let proxy = Scripted::start(move |stream| said.send(play(stream, &script, is_cut)).unwrap());
        let route = Route::parent(parent(proxy.address, protocol.clone(), names));
        let relay = run(inbound(PROXY, route));
        converse(relay.addresses()[0], &asked.parse().unwrap());
        assert_eq!(heard.recv().unwrap(), vec![b'q'; 200_000]);
        assert_eq!(proxy.came(), 1);
        relay.stop();
    }
}

#[test]
fn a_socks4_parent_is_asked_for_the_targets_own_address_or_its_name() {
    let protocol = ParentProtocol::Socks4(UserId::new(b"me").unwrap());
    let granted = || Says(vec![0, 90, 9, 9, 9, 9, 9, 9]);
    let lines = [Hears(b"\x04\x01\x01\xbb\x09\x08\x07\x06me\0".to_vec()), granted()];
    check(&protocol, Names::PassOn, "9.8.7.6:443", &lines);
    let lines = [Hears(b"\x04\x01\x01\xbb\x00\x00\x00\x01me\0there.example\0".to_vec()), granted()];
    check(&protocol, Names::PassOn, "there.example:443", &lines);
    let lines = [Hears(b"\x04\x01\x01\xbb\x7f\x00\x00\x01me\0".to_vec()), granted()];
    check(&protocol, Names::ResolveHere, "localhost:443", &lines);
}

#[test]
fn a_socks5_parent_may_answer_with_any_form_of_address() {
    let request = [&[5, 1, 0, 3, 13][..], b"there.example", &[1, 187]].concat();
    for bound in [
        &[1, 9, 9, 9, 9, 0, 80][..],
        &[1, 0, 0, 0, 0, 0, 0],
        &[4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 80],
        b"\x03\x09localhost\x00\x50",
        b"\x03\x00\x00\x00",
    ] {
        let reply = [&[5, 0, 0][..], bound].concat();
        let lines = [Hears(vec![5, 1, 0]), Says(vec![5, 0]), Hears(request.clone()), Says(reply)];
        check(&ParentProtocol::Socks5(None), Names::PassOn, "there.example:443", &lines);
    }
}

#[test]
fn a_socks5_parent_is_told_a_login_only_if_it_asks_for_one() {
    let login = ParentProtocol::Socks5(Some(Credentials::new("alice", "secret").unwrap()));
    let v4 = [5, 1, 0, 1, 9, 8, 7, 6, 1, 187].to_vec();
    let v6 = [&[5, 1, 0, 4][..], &[0x20; 16], &[1, 187]].concat();
    let granted = || Says(vec![5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let lines = [
        Hears(vec![5, 2, 0, 2]),
        Says(vec![5, 2]),
        Hears(b"\x01\x05alice\x06secret".to_vec()),
        Says(vec![1, 0]),
        Hears(v4),
        granted(),
    ];
    check(&login, Names::PassOn, "9.8.7.6:443", &lines);
    let lines = [Hears(vec![5, 2, 0, 2]), Says(vec![5, 0]), Hears(v6), granted()];
    check(&login, Names::PassOn, "[2020:2020:2020:2020:2020:2020:2020:2020]:443", &lines);
}

#[test]
fn an_http_parent_is_asked_for_a_tunnel_with_its_login_at_once() {
    let login = BasicLogin::new(&Credentials::new("alice", "secret").unwrap()).unwrap();
    let head = |target: &str, login: Option<&str>| {
        let lines = [format!("CONNECT {target} HTTP/1.1"), format!("Host: {target}")];
        HearsHead(lines.into_iter().chain(login.map(str::to_owned)).collect())
    };
    let basic = Some("Proxy-Authorization: Basic YWxpY2U6c2VjcmV0");
    for (protocol, said) in [(ParentProtocol::Http(Some(login)), basic), (ParentProtocol::Http(None), None)] {
        for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 299 Fine\r\nVia: x\r\nContent-Length: 5\r\n\r\n"]
        {
            for target in ["there.example:443", "9.8.7.6:80", "[2020::1]:80"] {
                let lines = [head(target, said), Says(answer.into())];
                check(&protocol, Names::PassOn, target, &lines);
            }
        }
    }
}

#[test]
fn what_a_protocol_has_no_words_for_is_refused_and_nothing_is_said() {
    let (heard, said) = mpsc::channel();
    let proxy = Scripted::start(move |mut stream| {
        let mut bytes = Vec::new();
        let _gone = stream.read_to_end(&mut bytes);
        heard.send(bytes).unwrap();
    });
    let protocol = ParentProtocol::Socks4(UserId::new(b"me").unwrap());
    let relay = run(inbound(PROXY, Route::parent(parent(proxy.address, protocol, Names::PassOn))));
    assert_eq!(ask(relay.addresses()[0], &"[2020::1]:80".parse().unwrap()).0, 8);
    assert_eq!(said.recv().unwrap(), b"");
    relay.stop();
}

#[test]
fn what_a_parent_says_of_the_target_is_passed_on_in_the_same_words() {
    for code in [1, 2, 3, 4, 5, 7, 8] {
        let proxy = Scripted::answering(code);
        let relay = run(inbound(PROXY, Route::parent(Parent::socks5(proxy.address.into(), None))));
        assert_eq!(ask(relay.addresses()[0], &"9.9.9.9:9".parse().unwrap()).0, code);
        relay.stop();
    }
}

/// One of our own doors on the way, and how it is spoken with.
/// Forbidden targets in forms that are known here.
const FORBIDDEN: [&str; 9] = [
    "127.0.0.1:9",
    "[::1]:9",
    "[::ffff:127.0.0.1]:9",
    "169.254.169.254:80",
    "localhost:9",
    "a.localhost.:9",
    "127.1:9",
    "2130706433:9",
    "0x7f.0.0.1:9",
];

#[test]
fn no_parent_is_asked_for_what_is_forbidden_by_any_door() {
    let parent = Scripted::answering(0);
    let hop = || Hop::Parent(Parent::socks5(parent.address.into(), None));
    let alone = Route::Path(Arc::new(Path::new("alone", [hop()])));
    let members = vec![Path::direct().into(), Path::new("other", [hop()]).into()];
    let group = Route::Group(Arc::new(Group::new("any", Settings::default(), members)));
    for route in [alone, group] {
        let protocol = Protocol::Proxy(ProxyDoor::MIXED);
        let relay = run(Inbound { forbidden: Arc::new(Forbidden::standard()), ..inbound(protocol, route) });
        for target in FORBIDDEN {
            let (code, _) = ask(relay.addresses()[0], &target.parse().unwrap());
            assert_eq!(code, 2, "{target}");
        }
        relay.stop();
    }
    assert_eq!(parent.came(), 0);
    let route = Route::Path(Arc::new(Path::new("alone", [hop()])));
    let protocol = Protocol::Proxy(ProxyDoor::MIXED);
    let relay = run(Inbound { forbidden: Arc::new(Forbidden::standard()), ..inbound(protocol, route) });
    assert_eq!(ask(relay.addresses()[0], &"there.example:9".parse().unwrap()).0, 0, "and for others it is");
    relay.stop();
}

fn stage(kind: &str) -> (Relay, Hop) {
    let method = match kind {
        "aead" => Some(Method::Aes256Gcm),
        "2022" => Some(Method::Blake3Aes256Gcm),
        _ => None,
    };
    if let Some(method) = method {
        let key = Key::from_bytes(method, &vec![7; method.key_len()]).unwrap();
        let (heads, one_time_auth) = (HeadReads::Many, false);
        let keys = Arc::new(key.clone().into());
        let door = Protocol::Shadowsocks(ShadowsocksDoor { keys, heads, one_time_auth });
        let relay = run(inbound(door, Route::direct()));
        let (address, mode, credentials) = (Address::Ip(relay.addresses()[0]), Mode::Streams, key.into());
        return (relay, Hop::Shadowsocks(Server { address, mode, credentials, heads, one_time_auth }));
    }
    let login = || Credentials::new("alice", "secret").unwrap();
    let users = || Some(Arc::new(Users::new([1; 32], [login()]).unwrap()));
    let (users, protocol) = match kind {
        "socks4" => (None, ParentProtocol::Socks4(UserId::new(b"").unwrap())),
        "socks5" => (users(), ParentProtocol::Socks5(Some(login()))),
        _ => (users(), ParentProtocol::Http(Some(BasicLogin::new(&login()).unwrap()))),
    };
    let relay = run(inbound(Protocol::Proxy(ProxyDoor { users, ..ProxyDoor::MIXED }), Route::direct()));
    let hop = Hop::Parent(parent(relay.addresses()[0], protocol, Names::PassOn));
    (relay, hop)
}

#[test]
fn any_list_of_hops_carries_both_ways_and_both_ends() {
    for kinds in [
        &["socks4"][..],
        &["aead", "socks5"],
        &["2022", "http"],
        &["aead", "aead"],
        &["2022", "2022"],
        &["socks5", "http", "socks4"],
        &["http", "socks5", "2022"],
        &["2022", "aead", "socks5", "http", "aead", "2022"],
    ] {
        let (relays, hops): (Vec<_>, Vec<_>) = kinds.iter().map(|kind| stage(kind)).unzip();
        let door = run(inbound(PROXY, Route::Path(Arc::new(Path::new("chain", hops)))));
        let (address, far) = target(|mut stream| {
            stream.write_all(b"banner").unwrap();
            let mut question = Vec::new();
            stream.read_to_end(&mut question).unwrap();
            stream.write_all(b"answer after the end").unwrap();
            question.len()
        });
        converse(door.addresses()[0], &address.into());
        assert_eq!(far.join().unwrap(), 200_000, "{kinds:?}");
        // A target that is not there is told of as far back as anybody speaks of it.
        let (code, mut near) = ask(door.addresses()[0], &parents::nobody().into());
        if kinds.last() == Some(&"socks5") {
            assert_eq!(code, 5, "{kinds:?}");
        }
        let mut heard = Vec::new();
        let end = near.read_to_end(&mut heard);
        assert!(heard.is_empty(), "{kinds:?}: {end:?}");
        door.stop();
        relays.into_iter().for_each(Relay::stop);
    }
}

#[test]
fn a_reset_passes_through_every_hop_and_is_no_end() {
    for kinds in [&["aead", "socks5"][..], &["http", "2022"], &["2022", "socks5", "aead"]] {
        let (relays, hops): (Vec<_>, Vec<_>) = kinds.iter().map(|kind| stage(kind)).unzip();
        let door = run(inbound(PROXY, Route::Path(Arc::new(Path::new("chain", hops)))));
        let (address, far) = target(|mut stream| {
            stream.write_all(b"banner").unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
            reset(stream);
        });
        let (_, mut near) = ask(door.addresses()[0], &address.into());
        near.read_exact(&mut [0; 6]).unwrap();
        near.write_all(b"more").unwrap();
        let end = near.read(&mut [0; 1]);
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{kinds:?}");
        far.join().unwrap();
        door.stop();
        relays.into_iter().for_each(Relay::stop);
    }
}

#[test]
fn a_parent_that_is_silent_behind_a_layer_is_left_at_its_deadline_with_all_that_led_to_it() {
    let (gone, left) = mpsc::channel();
    let silent = Scripted::start(move |mut stream| {
        let began = Instant::now();
        let mut heard = Vec::new();
        let end = stream.read_to_end(&mut heard).map_err(|error| error.kind());
        gone.send((began.elapsed(), end)).unwrap();
    });
    let (server, hop) = stage("aead");
    let second = Hop::Parent(Parent::socks5(silent.address.into(), None));
    let mut path = Path::new("chain", [hop, second]);
    path.deadlines.negotiate = Duration::from_millis(500);
    let door = run(inbound(PROXY, Route::Path(Arc::new(path))));
    assert_eq!(ask(door.addresses()[0], &"9.9.9.9:9".parse().unwrap()).0, 4);
    let (after, end) = left.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(after < Duration::from_secs(5), "{after:?}");
    assert!(end.is_err(), "a session that failed is no orderly end");
    door.stop();
    server.stop();
}

const PROXY: Protocol = Protocol::Proxy(ProxyDoor::MIXED);
