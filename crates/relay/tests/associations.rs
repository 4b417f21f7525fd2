//! Datagrams over real sockets: through every kind of door and path of ours, with what associations promise.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[expect(dead_code, reason = "streams use the rest")]
mod common;
mod peers;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{inbound, open, run, server_with, through_with};
use peers::{Client, Echo, PATIENCE, datagram, key, mirrored, mixed, with, with_datagrams};
use umbra_proto::address::{Address, AddressBlock};
use umbra_proto::forbidden::Forbidden;
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::key::encode_password;
use umbra_proto::shadowsocks::keyring::{Keyring, User};
use umbra_proto::shadowsocks::packet::{ClientSession, PacketHop, SessionId};
use umbra_proto::shadowsocks::{Method, UnixTime};
use umbra_proto::users::{Credentials as Login, Users};
use umbra_relay::Relay;
use umbra_relay::config::{
    Config, Filtering, Hop, Inbound, Mode, Parent, Path, Protocol, ProxyDoor, Route, Udp,
};

/// A SOCKS5 door before a Shadowsocks server, one key.
fn pair(method: Method) -> (Relay, Relay) {
    let server = run(with_datagrams(server_with(key(method, 7)), Route::direct()));
    let client = run(with_datagrams(mixed(), through_with(server.addresses()[0], key(method, 7))));
    (client, server)
}

#[test]
fn a_plain_socks5_server_relays_datagrams() {
    let (echo, relay) = (Echo::start("127.0.0.1:0"), run(with_datagrams(mixed(), Route::direct())));
    let client = Client::associate(relay.addresses()[0]);
    let target = Address::Ip(echo.address);
    for payload in [&b"one"[..], b"two", b""] {
        assert_eq!(client.trip(&target, payload), (target.clone(), mirrored(payload)));
    }
}

#[test]
fn every_method_carries_datagrams_of_every_length() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    for method in Method::ALL {
        let (client, server) = pair(method);
        let associated = Client::associate(client.addresses()[0]);
        for len in [0, 1, 512, 1400, 9000, 60_000] {
            let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
            let (source, answer) = associated.trip(&target, &payload);
            assert_eq!((source, answer.len()), (target.clone(), len), "{method}");
            assert_eq!(answer, mirrored(&payload), "{method}");
        }
        client.stop();
        server.stop();
    }
}

#[test]
fn one_association_speaks_with_many_targets_of_both_families_and_by_name() {
    let (client, _server) = pair(Method::Blake3Aes256Gcm);
    let associated = Client::associate(client.addresses()[0]);
    let echoes = [Echo::start("127.0.0.1:0"), Echo::start("127.0.0.1:0"), Echo::start("[::1]:0")];
    for round in 0..3_u8 {
        for echo in &echoes {
            let target = Address::Ip(echo.address);
            assert_eq!(associated.trip(&target, &[round, 1, 2]), (target.clone(), vec![2, 1, round]));
        }
        // Whoever answers is named by its address: a name is for the way there alone.
        let named = Address::from_host("localhost", echoes[0].address.port()).unwrap();
        associated.send(&named, b"ab");
        let heard = associated.receive();
        assert_eq!((heard.0.port(), heard.1), (named.port(), b"ba".to_vec()));
    }
}

#[test]
fn anybody_may_answer_unless_addresses_are_filtered() {
    for (filtering, is_heard) in
        [(Filtering::EndpointIndependent, true), (Filtering::AddressDependent, false)]
    {
        let udp = Udp { filtering, ..Udp::default() };
        let relay = run(with(mixed(), Route::direct(), udp));
        let client = Client::associate(relay.addresses()[0]);
        let target = UdpSocket::bind("127.0.0.1:0").unwrap();
        target.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send(&Address::Ip(target.local_addr().unwrap()), b"hello");
        let (_, outside) = target.recv_from(&mut [0; 9]).unwrap();
        let third = UdpSocket::bind("127.0.0.2:0").unwrap();
        third.send_to(b"from another", outside).unwrap();
        if is_heard {
            assert_eq!(
                client.receive(),
                (Address::Ip(third.local_addr().unwrap()), b"from another".to_vec())
            );
        } else {
            assert!(client.hears_nothing());
        }
    }
}

#[test]
fn datagrams_are_taken_from_where_a_control_connection_is_and_no_longer_than_it() {
    let (echo, relay) = (Echo::start("127.0.0.1:0"), run(with_datagrams(mixed(), Route::direct())));
    let target = Address::Ip(echo.address);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stranger.send_to(&datagram(&target, b"let me in"), relay.addresses()[0]).unwrap();
    assert!(stranger.recv_from(&mut [0; 99]).is_err(), "nobody has a control connection");

    let client = Client::associate(relay.addresses()[0]);
    client.trip(&target, b"there and back");
    let elsewhere = UdpSocket::bind("127.0.0.3:0").unwrap();
    elsewhere.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    elsewhere.send_to(&datagram(&target, b"let me in"), relay.addresses()[0]).unwrap();
    assert!(elsewhere.recv_from(&mut [0; 99]).is_err(), "it is another's connection");

    client.control.shutdown(std::net::Shutdown::Both).unwrap();
    let ended = Instant::now();
    loop {
        client.send(&target, b"still there?");
        if client.hears_nothing() {
            break;
        }
        assert!(ended.elapsed() < PATIENCE, "the association outlives its connection");
    }
}

#[test]
fn behind_a_password_a_control_connection_is_for_one_port() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    let users = Users::new([7; 32], [Login::new("somebody", "secret").unwrap()]).unwrap();
    let door = ProxyDoor { users: Some(Arc::new(users)), ..ProxyDoor::MIXED };
    let relay = run(with_datagrams(Protocol::Proxy(door), Route::direct()));
    let mut control = open(relay.addresses()[0]);
    control.write_all(b"\x05\x01\x02\x01\x08somebody\x06secret\x05\x03\x00\x01\0\0\0\0\0\0").unwrap();
    let mut answer = [0; 2 + 2 + 10];
    control.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..6], [5, 2, 1, 0, 5, 0]);
    let socket = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let client = Client { control, socket: socket(), relay: relay.addresses()[0] };
    assert_eq!(client.trip(&target, b"mine"), (target.clone(), mirrored(b"mine")));
    let neighbour = Client { control: open(relay.addresses()[0]), socket: socket(), ..client };
    neighbour.send(&target, b"and mine?");
    assert!(neighbour.hears_nothing(), "it has no password");
}

#[test]
fn fragments_and_nonsense_are_dropped_and_the_next_datagram_passes() {
    let (echo, relay) = (Echo::start("127.0.0.1:0"), run(with_datagrams(mixed(), Route::direct())));
    let client = Client::associate(relay.addresses()[0]);
    let target = Address::Ip(echo.address);
    let mut fragment = datagram(&target, b"a part");
    fragment[2] = 1;
    for bytes in [&fragment[..], &[], &[0], &[0; 3], &[0, 0, 0, 9, 1, 2], &[0xff; 2000]] {
        client.socket.send_to(bytes, client.relay).unwrap();
    }
    assert_eq!(client.trip(&target, b"whole"), (target.clone(), mirrored(b"whole")));
    assert!(client.hears_nothing());
}

#[test]
fn every_datagram_is_judged_by_its_target() {
    let (echo, other) = (Echo::start("127.0.0.1:0"), Echo::start("127.0.0.2:0"));
    let forbidden = Arc::new(Forbidden::listed(vec!["127.0.0.2/32".parse().unwrap()]));
    let relay = run(Inbound { forbidden, ..with_datagrams(mixed(), Route::direct()) });
    let client = Client::associate(relay.addresses()[0]);
    for _ in 0..3 {
        client.trip(&Address::Ip(echo.address), b"allowed");
        client.send(&Address::Ip(other.address), b"forbidden");
        assert!(client.hears_nothing(), "on the same association");
    }
}

#[test]
fn no_hop_is_asked_for_a_target_that_is_forbidden() {
    let (echo, other) = (Echo::start("127.0.0.1:0"), Echo::start("127.0.0.2:0"));
    let (_, server) = pair(Method::Aes256Gcm);
    let parent = run(with_datagrams(mixed(), Route::direct()));
    let proxy = Hop::Parent(Parent::socks5(parent.addresses()[0].into(), None));
    for route in [
        through_with(server.addresses()[0], key(Method::Aes256Gcm, 7)),
        Route::Path(Arc::new(Path::new("parent", [proxy.clone()]))),
        Route::Path(Arc::new(Path::new("parents", [proxy.clone(), proxy]))),
    ] {
        let forbidden = Arc::new(Forbidden::listed(vec!["127.0.0.2/32".parse().unwrap()]));
        let relay = run(Inbound { forbidden, ..with_datagrams(mixed(), route) });
        let client = Client::associate(relay.addresses()[0]);
        for _ in 0..2 {
            client.trip(&Address::Ip(echo.address), b"allowed");
            client.send(&Address::Ip(other.address), b"forbidden");
            client.send(&Address::from_host("127.2", other.address.port()).unwrap(), b"the same");
            assert!(client.hears_nothing(), "on the same association");
        }
    }
}

#[test]
fn a_tunnel_carries_what_it_is_given_and_nothing_else() {
    let (_, server) = pair(Method::Aes256Gcm);
    let echo = Echo::start("127.0.0.1:0");
    let route = through_with(server.addresses()[0], key(Method::Aes256Gcm, 7));
    let target = Address::Ip(echo.address);
    let tunnel = run(with_datagrams(Protocol::Tunnel { target }, route));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(tunnel.addresses()[0]).unwrap();
    let mut bytes = [0; 99];
    for payload in [&b"query"[..], b"", b"another"] {
        socket.send(payload).unwrap();
        let len = socket.recv(&mut bytes).unwrap();
        assert_eq!(bytes[..len], mirrored(payload));
    }
}

#[test]
fn a_parent_is_asked_for_an_association_and_asked_again_when_it_has_gone() {
    let echo = Echo::start("127.0.0.1:0");
    let parent = run(with_datagrams(mixed(), Route::direct()));
    let at = parent.addresses()[0];
    let route = Route::parent(Parent::socks5(at.into(), None));
    let relay = run(with_datagrams(mixed(), route));
    let client = Client::associate(relay.addresses()[0]);
    let target = Address::Ip(echo.address);
    assert_eq!(client.trip(&target, b"one"), (target.clone(), mirrored(b"one")));
    parent.stop();
    let again = Inbound { listen: at, ..with_datagrams(mixed(), Route::direct()) };
    let _parent = run(again);
    client.socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let since = Instant::now();
    loop {
        client.send(&target, b"two");
        match client.socket.recv_from(&mut [0; 99]) {
            Ok(_) => break,
            Err(_) => assert!(since.elapsed() < PATIENCE, "it is not asked again"),
        }
    }
}

/// Whether the kernel watches for the end of the peer of the connection between these ports, from the first one's side.
#[cfg(target_os = "linux")]
fn is_watched(own: u16, peer: u16) -> bool {
    let ends = format!(" 0100007F:{own:04X} 0100007F:{peer:04X} 01 ");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|line| line.contains(&ends)).unwrap();
    // The timer that runs: 2 is for signs of life.
    line.split_whitespace().nth(5).unwrap().starts_with("02:")
}

/// Waits until it is watched: for a moment another timer runs, until what was said is acknowledged.
#[cfg(target_os = "linux")]
fn expect_watched(own: u16, peer: u16) {
    let since = Instant::now();
    while !is_watched(own, peer) {
        assert!(since.elapsed() < PATIENCE, "nobody would know of its end");
        thread::yield_now();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn control_connections_are_watched_since_nothing_is_said_on_them() {
    let echo = Echo::start("127.0.0.1:0");
    let parent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (relayed, at) = (UdpSocket::bind("127.0.0.1:0").unwrap(), parent.local_addr().unwrap());
    let relay = run(with_datagrams(mixed(), Route::parent(Parent::socks5(at.into(), None))));
    let client = Client::associate(relay.addresses()[0]);
    let [door, own] = [client.control.peer_addr().unwrap(), client.control.local_addr().unwrap()];
    expect_watched(door.port(), own.port());
    assert!(!is_watched(own.port(), door.port()), "the test sees the difference");
    client.send(&Address::Ip(echo.address), b"one");
    let (mut asked, from) = parent.accept().unwrap();
    asked.read_exact(&mut [0; 3]).unwrap();
    asked.write_all(&[5, 0]).unwrap();
    asked.read_exact(&mut [0; 10]).unwrap();
    expect_watched(from.port(), at.port());
    let mut answer = vec![5, 0, 0];
    Address::Ip(relayed.local_addr().unwrap()).encode(&mut answer);
    asked.write_all(&answer).unwrap();
    let mut came = [0; 99];
    relayed.set_read_timeout(Some(PATIENCE)).unwrap();
    relayed.recv_from(&mut came).unwrap();
}

#[test]
fn a_parent_is_asked_for_an_association_in_its_own_family() {
    let (mut ipv4, mut ipv6) = ([0; 1 + 4 + 2], [0; 1 + 16 + 2]);
    (ipv4[0], ipv6[0]) = (1, 4);
    for (place, unknown) in [("127.0.0.1:0", &ipv4[..]), ("[::1]:0", &ipv6)] {
        let parent = TcpListener::bind(place).unwrap();
        let route = Route::parent(Parent::socks5(parent.local_addr().unwrap().into(), None));
        let relay = run(with_datagrams(mixed(), route));
        let client = Client::associate(relay.addresses()[0]);
        client.send(&Address::Ip("127.0.0.1:9".parse().unwrap()), b"one");
        let (mut asked, _) = parent.accept().unwrap();
        asked.set_read_timeout(Some(PATIENCE)).unwrap();
        asked.read_exact(&mut [0; 3]).unwrap();
        asked.write_all(&[5, 0]).unwrap();
        let mut request = vec![0; 3 + unknown.len()];
        asked.read_exact(&mut request).unwrap();
        assert_eq!(request, [&[5, 3, 0], unknown].concat());
    }
}

#[test]
fn users_of_one_port_are_told_apart_by_trial_and_by_identity() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    for method in [Method::Aes128Gcm, Method::Blake3Aes128Gcm, Method::Blake3Aes256Gcm] {
        let user = |byte: u8| User { name: byte.to_string().into(), key: key(method, byte), forward: None };
        let identified = method != Method::Aes128Gcm;
        let port = identified.then(|| key(method, 9));
        let keyring = Keyring::new(method, port, vec![user(1), user(2), user(3)]).unwrap();
        let server = run(with_datagrams(server_with(keyring), Route::direct()));
        for byte in [3, 1, 2, 3] {
            let secret = |byte: u8| encode_password(&vec![byte; method.key_len()]).to_string();
            let password = if identified { format!("{}:{}", secret(9), secret(byte)) } else { secret(byte) };
            let credentials = Credentials::from_password(method, &password).unwrap();
            let client = run(with_datagrams(mixed(), through_with(server.addresses()[0], credentials)));
            let associated = Client::associate(client.addresses()[0]);
            assert_eq!(associated.trip(&target, b"who").1, mirrored(b"who"), "{method} {byte}");
        }
    }
}

#[test]
fn a_user_who_has_been_here_begins_as_many_associations_as_there_are_queries() {
    let method = Method::Aes128Gcm;
    // As many keys as are tried: of strangers' packets there may be a few hundred in a second.
    let user = |number: usize| {
        let mut secret = [7; 16];
        secret[..8].copy_from_slice(&number.to_be_bytes());
        User {
            name: number.to_string().into(),
            key: Key::from_bytes(method, &secret).unwrap(),
            forward: None,
        }
    };
    let own = user(0).key;
    let keyring = Keyring::new(method, None, (0..1024).map(user).collect()).unwrap();
    let server = run(with_datagrams(server_with(keyring), Route::direct()));
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut block = Vec::new();
    Address::Ip(target.local_addr().unwrap()).encode(&mut block);
    let (block, _) = AddressBlock::split(&block).unwrap();
    let mut session =
        ClientSession::new(Arc::new(PacketHop::new(&own.into(), false)), SessionId(*b"a client"));
    for number in 0..1500_u64 {
        let mut packet = Vec::new();
        let fill = |room: &mut [u8]| room[..8].copy_from_slice(&number.to_be_bytes());
        session.seal(block, b"it is me", UnixTime(0), fill, &mut packet);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&packet, server.addresses()[0]).unwrap();
        assert!(target.recv_from(&mut [0; 99]).is_ok(), "query {number}");
    }
}

#[test]
fn a_client_that_changes_its_address_keeps_its_session_on_whichever_worker_it_arrives() {
    for method in [Method::Blake3Aes128Gcm, Method::Blake3Chacha20Poly1305] {
        let server = run(with_datagrams(server_with(key(method, 7)), Route::direct()));
        let target = UdpSocket::bind("127.0.0.1:0").unwrap();
        target.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = Address::Ip(target.local_addr().unwrap());
        let mut block = Vec::new();
        address.encode(&mut block);
        let (block, _) = AddressBlock::split(&block).unwrap();
        let hop = Arc::new(PacketHop::new(&key(method, 7).into(), false));
        let mut session = ClientSession::new(hop, SessionId(*b"a client"));
        let now = UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
        let mut outside = None;
        // Each port comes to one of the two workers, and to the same one every time: of so many, some come to the other.
        for number in 0..16 {
            let mut packet = Vec::new();
            session.seal(block, b"it is me", now, |random: &mut [u8]| random.fill(number), &mut packet);
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(&packet, server.addresses()[0]).unwrap();
            let (_, from) = target.recv_from(&mut [0; 99]).unwrap();
            assert_eq!(*outside.get_or_insert(from), from, "it is one association");
            target.send_to(b"so it is", from).unwrap();
            let mut answer = [0; 999];
            let (len, _) = socket.recv_from(&mut answer).unwrap();
            assert_eq!(session.open(&mut answer[..len], now).unwrap().payload, b"so it is");
            // What somebody has recorded and sends again changes nothing.
            let thief = UdpSocket::bind("127.0.0.1:0").unwrap();
            thief.send_to(&packet, server.addresses()[0]).unwrap();
            target.send_to(b"and again", from).unwrap();
            let (len, _) = socket.recv_from(&mut answer).unwrap();
            assert_eq!(session.open(&mut answer[..len], now).unwrap().payload, b"and again");
        }
        target.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(target.recv_from(&mut [0; 99]).is_err(), "nothing has come twice");
    }
}

#[test]
fn what_was_said_in_a_session_that_had_to_make_room_is_not_taken_again() {
    let method = Method::Blake3Aes128Gcm;
    let udp = Udp { associations_max: NonZeroUsize::new(1), ..Udp::default() };
    let inbound = with(server_with(key(method, 7)), Route::direct(), udp);
    let config = Config { inbounds: vec![inbound], workers: NonZeroUsize::MIN };
    let server = Relay::start(&config).unwrap();
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut block = Vec::new();
    Address::Ip(target.local_addr().unwrap()).encode(&mut block);
    let (block, _) = AddressBlock::split(&block).unwrap();
    let hop = Arc::new(PacketHop::new(&key(method, 7).into(), false));
    let now = UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let [mut one, mut other] =
        [*b"client 1", *b"client 2"].map(|id| ClientSession::new(Arc::clone(&hop), SessionId(id)));
    let seal = |session: &mut ClientSession, payload: &[u8]| {
        let mut packet = Vec::new();
        session.seal(block, payload, now, |random: &mut [u8]| random.fill(1), &mut packet);
        packet
    };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let heard = |packet: &[u8]| {
        socket.send_to(packet, server.addresses()[0]).unwrap();
        let mut bytes = [0; 99];
        target.recv_from(&mut bytes).map(|(len, _)| bytes[..len].to_vec()).ok()
    };
    let recorded = seal(&mut one, b"once");
    assert_eq!(heard(&recorded).unwrap(), b"once");
    assert_eq!(heard(&seal(&mut other, b"make room")).unwrap(), b"make room");
    target.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(heard(&recorded), None);
    target.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(heard(&seal(&mut one, b"more")).unwrap(), b"more", "its own client goes on");
}

#[test]
fn a_relay_sends_a_users_packets_on_and_the_answers_back() {
    let method = Method::Blake3Aes256Gcm;
    let echo = Echo::start("127.0.0.1:0");
    let server = run(with_datagrams(server_with(key(method, 1)), Route::direct()));
    let next = Some(Address::Ip(server.addresses()[0]));
    let user = User { name: "next".into(), key: key(method, 1), forward: next };
    let keyring = Keyring::new(method, Some(key(method, 9)), vec![user]).unwrap();
    let relay = run(with_datagrams(server_with(keyring), Route::direct()));
    let secret = |byte: u8| encode_password(&vec![byte; method.key_len()]).to_string();
    let password = format!("{}:{}", secret(9), secret(1));
    let credentials = Credentials::from_password(method, &password).unwrap();
    let client = run(with_datagrams(mixed(), through_with(relay.addresses()[0], credentials)));
    let associated = Client::associate(client.addresses()[0]);
    let target = Address::Ip(echo.address);
    for payload in [&b"one"[..], b"two"] {
        assert_eq!(associated.trip(&target, payload), (target.clone(), mirrored(payload)));
    }
}

#[test]
fn whoever_sends_a_packet_to_a_relay_again_gets_no_answers_and_begins_nothing() {
    let method = Method::Blake3Aes128Gcm;
    let [next, thief, client] = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    for socket in [&next, &client] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    thief.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let user = |byte: u8| {
        let forward = Some(Address::Ip(next.local_addr().unwrap()));
        User { name: byte.to_string().into(), key: key(method, byte), forward }
    };
    let keyring = Keyring::new(method, Some(key(method, 9)), vec![user(1)]).unwrap();
    let udp = Udp { associations_max: NonZeroUsize::new(1), ..Udp::default() };
    let relay = run(with(server_with(keyring), Route::direct(), udp));
    let secret = |byte: u8| encode_password(&vec![byte; method.key_len()]).to_string();
    let password = format!("{}:{}", secret(9), secret(1));
    let hop = Arc::new(PacketHop::new(&Credentials::from_password(method, &password).unwrap(), false));
    let mut sessions =
        [*b"client 1", *b"client 2"].map(|id| ClientSession::new(Arc::clone(&hop), SessionId(id)));
    let mut block = Vec::new();
    Address::from_host("target.example", 7).unwrap().encode(&mut block);
    let (block, _) = AddressBlock::split(&block).unwrap();
    let mut seal = |session: usize| {
        let mut packet = Vec::new();
        // It is the other server that judges the time.
        sessions[session].seal(
            block,
            b"sealed",
            UnixTime(0),
            |random: &mut [u8]| random.fill(1),
            &mut packet,
        );
        packet
    };
    let passes = |from: &UdpSocket, packet: &[u8]| {
        from.send_to(packet, relay.addresses()[0]).unwrap();
        next.recv_from(&mut [0; 999]).ok().map(|(_, way)| way)
    };
    let [first, second] = [seal(0), seal(0)];
    let way = passes(&client, &second).unwrap();
    // Seen on the way, and one that was slower than the next: both go on, and neither says where the client is.
    for packet in [&second, &first] {
        assert_eq!(passes(&thief, packet), Some(way));
        next.send_to(b"answer", way).unwrap();
        assert_eq!(client.recv(&mut [0; 99]).unwrap(), 6);
        assert!(thief.recv(&mut [0; 99]).is_err());
    }
    // The client itself is followed.
    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    elsewhere.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(passes(&elsewhere, &seal(0)), Some(way));
    next.send_to(b"answer", way).unwrap();
    assert_eq!(elsewhere.recv(&mut [0; 99]).unwrap(), 6);
    // When it has had to make room, what was seen of it begins nothing; what it says itself does.
    assert!(passes(&client, &seal(1)).is_some_and(|other| other != way));
    next.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(passes(&thief, &second), None);
    next.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(passes(&elsewhere, &seal(0)).is_some());
}

#[test]
fn a_door_without_datagrams_refuses_associations_and_leaves_the_port_alone() {
    let relay = run(Inbound { mode: Mode::Streams, ..inbound(mixed(), Route::direct()) });
    let at = relay.addresses()[0];
    let mut control = open(at);
    control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut answer = [0; 2 + 10];
    control.read_exact(&mut answer).unwrap();
    assert_eq!(answer[2..4], [5, 7]);
    UdpSocket::bind(at).unwrap();
}

#[test]
fn a_port_that_is_taken_for_datagrams_is_an_error_that_says_so() {
    let start = || {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap();
        let config = Config {
            inbounds: vec![Inbound { listen, ..with_datagrams(mixed(), Route::direct()) }],
            workers: NonZeroUsize::MIN,
        };
        let error = Relay::start(&config).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::AddrInUse);
        error.what == format!("listen on {listen} for datagrams")
    };
    // The same port may be taken for streams as well, by whatever runs beside this.
    assert!((0..20).any(|_| start()));
}
