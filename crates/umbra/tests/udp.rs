//! Datagrams through the real program: associations, tunnels, and a QUIC client that knows nothing of either.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test program uses a part of it")]
mod running;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use running::{PATIENCE, Umbra};
use rustls::RootCertStore;
use rustls::pki_types::PrivatePkcs8KeyDer;

/// How long a datagram must not come before it counts as dropped.
const SILENCE: Duration = Duration::from_millis(300);

const KEY_32: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn server(method: &str, password: &str, extra: &[&str]) -> Umbra {
    let server = ["server", "--forbidden-ip=", "-s", "127.0.0.1:0", "-m", method, "-k", password];
    Umbra::start(&[&server, extra].concat())
}

fn local(server: &Umbra, method: &str, password: &str, extra: &[&str]) -> Umbra {
    let server = server.address.to_string();
    let local = ["local", "-s", &server, "-l", "0", "-m", method, "-k", password];
    Umbra::start(&[&local, extra].concat())
}

fn direct(extra: &[&str]) -> Umbra {
    Umbra::start(&[&["local", "--direct", "--forbidden-ip=", "-l", "0"], extra].concat())
}

/// A program's association: its control connection, and its socket.
struct Association {
    control: TcpStream,
    relay: SocketAddr,
    socket: UdpSocket,
}

impl Association {
    fn open(door: SocketAddr) -> Self {
        Self::open_after(door, &[5, 1, 0], &[5, 0])
    }

    /// Says `greeting`, hears `choice`, and asks for an association.
    fn open_after(door: SocketAddr, greeting: &[u8], choice: &[u8]) -> Self {
        let mut control = TcpStream::connect(door).unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        control.write_all(greeting).unwrap();
        let mut chosen = vec![0; choice.len()];
        control.read_exact(&mut chosen).unwrap();
        assert_eq!(chosen, choice);
        control.write_all(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut head = [0; 4];
        control.read_exact(&mut head).unwrap();
        assert_eq!(head[..3], [5, 0, 0], "the answer to an association");
        let mut address = vec![0; if head[3] == 1 { 6 } else { 18 }];
        control.read_exact(&mut address).unwrap();
        let relay = read_address(&[&head[3..], &address].concat()).0;
        assert!(!relay.ip().is_unspecified(), "an address that the client can send to");
        let any: IpAddr =
            if relay.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        Self { control, relay, socket }
    }

    fn send(&self, block: &[u8], payload: &[u8]) {
        self.send_raw(&[&[0; 3], block, payload].concat());
    }

    fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.relay).unwrap();
    }

    /// Where the next datagram comes from, and its payload.
    fn hear(&self) -> (SocketAddr, Vec<u8>) {
        self.hear_within(PATIENCE).expect("a datagram")
    }

    fn hear_within(&self, patience: Duration) -> Option<(SocketAddr, Vec<u8>)> {
        let mut datagram = vec![0; 65_536];
        let (len, from) = receive(&self.socket, &mut datagram, patience)?;
        assert_eq!(from, self.relay);
        assert_eq!(datagram[..3], [0; 3]);
        let (source, payload) = read_address(&datagram[3..len]);
        Some((source, payload.to_vec()))
    }

    /// A datagram there and back.
    fn assert_echoes(&self, target: SocketAddr, payload: &[u8]) {
        self.send(&block(target), payload);
        assert_eq!(self.hear(), (target, payload.to_vec()));
    }

    fn assert_silent(&self) {
        assert_eq!(self.hear_within(SILENCE), None);
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8], patience: Duration) -> Option<(usize, SocketAddr)> {
    socket.set_read_timeout(Some(patience)).unwrap();
    match socket.recv_from(buffer) {
        Ok(received) => Some(received),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

fn block(address: SocketAddr) -> Vec<u8> {
    let mut block = match address.ip() {
        IpAddr::V4(ip) => [&[1], &ip.octets()[..]].concat(),
        IpAddr::V6(ip) => [&[4], &ip.octets()[..]].concat(),
    };
    block.extend(address.port().to_be_bytes());
    block
}

fn name_block(name: &str, port: u16) -> Vec<u8> {
    [&[3, u8::try_from(name.len()).unwrap()], name.as_bytes(), &port.to_be_bytes()].concat()
}

fn read_address(bytes: &[u8]) -> (SocketAddr, &[u8]) {
    let (ip, rest): (IpAddr, _) = match bytes[0] {
        1 => (<[u8; 4]>::try_from(&bytes[1..5]).unwrap().into(), &bytes[5..]),
        4 => (<[u8; 16]>::try_from(&bytes[1..17]).unwrap().into(), &bytes[17..]),
        other => panic!("an address of type {other}"),
    };
    (SocketAddr::new(ip, u16::from_be_bytes([rest[0], rest[1]])), &rest[2..])
}

/// A target that sends every datagram back.
fn echo() -> SocketAddr {
    echo_at("127.0.0.1:0")
}

fn echo_at(address: &str) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut datagram = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut datagram) {
            let _gone_already = socket.send_to(&datagram[..len], from);
        }
    });
    address
}

/// Whether this machine has IPv6 on loopback.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn datagrams_go_there_and_back_with_a_method_of_each_generation() {
    let target = echo();
    for (method, password) in [
        ("aes-256-cfb", "long-enough"),
        ("chacha20-ietf-poly1305", "long-enough"),
        ("2022-blake3-aes-256-gcm", KEY_32),
        ("2022-blake3-chacha20-poly1305", KEY_32),
    ] {
        let server = server(method, password, &[]);
        let local = local(&server, method, password, &[]);
        let association = Association::open(local.address);
        for len in [1, 512, 1400, 9000, 60_000, 0] {
            let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
            association.assert_echoes(target, &payload);
        }
    }
}

#[test]
fn one_association_has_many_targets_by_address_and_by_name() {
    let server = server("aes-256-gcm", "long-enough", &[]);
    let local = local(&server, "aes-256-gcm", "long-enough", &[]);
    let association = Association::open(local.address);
    let targets = [echo(), echo(), echo_at("127.0.0.2:0")];
    for round in 0..3u8 {
        for target in targets {
            association.assert_echoes(target, &[round]);
        }
    }
    association.send(&name_block("localhost", targets[0].port()), b"by name");
    assert_eq!(association.hear().1, b"by name");
    if has_ipv6() {
        association.assert_echoes(echo_at("[::1]:0"), b"of the other family");
    }
}

#[test]
fn an_association_ends_with_its_control_connection() {
    let local = direct(&[]);
    let (target, association) = (echo(), Association::open(local.address));
    association.assert_echoes(target, b"while it lasts");
    let Association { control, relay, socket } = association;
    drop(control);
    let deadline = Instant::now() + PATIENCE;
    let mut datagram = [0; 64];
    loop {
        socket.send_to(&[&[0; 3], &block(target)[..], b"after"].concat(), relay).unwrap();
        if receive(&socket, &mut datagram, SILENCE).is_none() {
            break;
        }
        assert!(Instant::now() < deadline, "the association goes on without its control connection");
    }
}

#[test]
fn a_control_connection_stays_open_while_its_association_does() {
    let local = direct(&["--udp-timeout", "60"]);
    let (target, mut association) = (echo(), Association::open(local.address));
    association.assert_echoes(target, b"one");
    association.control.set_read_timeout(Some(SILENCE)).unwrap();
    let heard = association.control.read(&mut [0]).unwrap_err();
    assert_eq!(heard.kind(), io::ErrorKind::WouldBlock);
    association.assert_echoes(target, b"two");
}

#[test]
fn datagrams_of_whoever_has_no_association_are_dropped() {
    let local = direct(&[]);
    let (target, relay) = (echo(), {
        // An association that has ended says where the relay is.
        Association::open(local.address).relay
    });
    let datagram = [&[0; 3], &block(target)[..], b"stranger"].concat();
    let mut answer = [0; 64];
    thread::sleep(SILENCE);
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    nobody.send_to(&datagram, relay).unwrap();
    assert_eq!(receive(&nobody, &mut answer, SILENCE), None);
    // Somebody else's association is of no use to another address.
    let association = Association::open(local.address);
    association.assert_echoes(target, b"mine");
    let elsewhere = UdpSocket::bind("127.0.0.2:0").unwrap();
    elsewhere.send_to(&datagram, association.relay).unwrap();
    assert_eq!(receive(&elsewhere, &mut answer, SILENCE), None);
    association.assert_echoes(target, b"mine still");
}

#[test]
fn a_door_with_users_relays_datagrams_of_whoever_has_logged_in() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let users = r#"{"direct": true, "forbidden_ip": "", "local_port": 0, "users": [{"name": "alice", "password": "correct horse"}]}"#;
    std::fs::write(&config, users).unwrap();
    let local = Umbra::start(&["local", "-c", config.to_str().unwrap()]);
    let mut stranger = TcpStream::connect(local.address).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    stranger.write_all(&[5, 1, 0]).unwrap();
    let mut choice = [0; 2];
    stranger.read_exact(&mut choice).unwrap();
    assert_eq!(choice, [5, 0xff]);
    let login = [&[5, 1, 2, 1, 5][..], b"alice", &[13], b"correct horse"].concat();
    let association = Association::open_after(local.address, &login, &[5, 2, 1, 0]);
    // Nobody without a login gets anything through, not even while somebody else is at the door.
    let stranger = UdpSocket::bind("127.0.0.9:0").unwrap();
    let target = echo();
    stranger.send_to(&[&[0; 3], &block(target)[..], b"of nobody"].concat(), association.relay).unwrap();
    association.assert_echoes(target, b"of a user");
    stranger.set_nonblocking(true).unwrap();
    assert_eq!(stranger.recv(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn fragments_and_heads_that_are_wrong_are_dropped_and_whole_datagrams_are_not() {
    let local = direct(&[]);
    let (target, association) = (echo(), Association::open(local.address));
    for start in [[0, 0, 1], [0, 0, 0x80]] {
        association.send_raw(&[&start, &block(target)[..], b"a part"].concat());
    }
    for nonsense in [&[][..], &[0], &[0, 0, 0], &[0, 0, 0, 9, 1, 2], &[0, 0, 0, 1, 127, 0], &[0, 0, 0, 3, 0]]
    {
        association.send_raw(nonsense);
    }
    association.assert_silent();
    association.assert_echoes(target, b"whole");
}

#[test]
fn forbidden_targets_are_refused_to_every_datagram_of_an_association() {
    let (allowed, forbidden) = (echo(), echo_at("127.0.0.2:0"));
    let relayed = |association: &Association| {
        for round in 0..3u8 {
            association.assert_echoes(allowed, &[round]);
            association.send(&block(forbidden), b"forbidden");
            association.send(&name_block("127.0.0.2", forbidden.port()), b"forbidden");
        }
        association.assert_silent();
    };
    let lists = ["local", "--direct", "--forbidden-ip", "127.0.0.2", "-l", "0"];
    relayed(&Association::open(Umbra::start(&lists).address));
    let server = Umbra::start(&[
        "server",
        "--forbidden-ip",
        "127.0.0.2",
        "-s",
        "127.0.0.1:0",
        "-m",
        "aes-128-gcm",
        "-k",
        "long-enough",
    ]);
    let local = local(&server, "aes-128-gcm", "long-enough", &[]);
    relayed(&Association::open(local.address));
}

/// A client of an association, the address that its target sees, and two addresses of others.
fn seen_by_target(association: &Association) -> (SocketAddr, UdpSocket, UdpSocket) {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    association.send(&block(target.local_addr().unwrap()), b"here I am");
    let mut datagram = [0; 64];
    let (_, seen) = receive(&target, &mut datagram, PATIENCE).expect("a datagram at the target");
    let another = UdpSocket::bind("127.0.0.1:0").unwrap();
    let third_party = UdpSocket::bind("127.0.0.2:0").unwrap();
    (seen, another, third_party)
}

#[test]
fn anybody_may_send_to_an_association_unless_it_is_held_to_addresses() {
    for (filtering, is_open) in [("endpoint_independent", true), ("address_dependent", false)] {
        let server = server("aes-256-gcm", "long-enough", &["--udp-filtering", filtering]);
        let local = local(&server, "aes-256-gcm", "long-enough", &[]);
        let association = Association::open(local.address);
        let (seen, same_address, third_party) = seen_by_target(&association);
        same_address.send_to(b"another port", seen).unwrap();
        assert_eq!(association.hear(), (same_address.local_addr().unwrap(), b"another port".to_vec()));
        third_party.send_to(b"another address", seen).unwrap();
        if is_open {
            assert_eq!(association.hear(), (third_party.local_addr().unwrap(), b"another address".to_vec()));
        } else {
            association.assert_silent();
        }
    }
}

#[test]
fn a_target_sees_one_source_whatever_targets_an_association_has() {
    let server = server("2022-blake3-aes-256-gcm", KEY_32, &[]);
    let local = local(&server, "2022-blake3-aes-256-gcm", KEY_32, &[]);
    let association = Association::open(local.address);
    assert_eq!(seen_by_target(&association).0, seen_by_target(&association).0);
}

#[test]
fn a_tunnel_carries_datagrams_both_ways_for_several_programs() {
    let (server, target) =
        (server("2022-blake3-aes-128-gcm", "MDEyMzQ1Njc4OWFiY2RlZg==", &[]), echo().to_string());
    let address = server.address.to_string();
    let tunnel = ["tunnel", "-f", &target, "-s", &address, "-l", "0", "-m", "2022-blake3-aes-128-gcm"];
    let tunnel = [&tunnel[..], &["-k", "MDEyMzQ1Njc4OWFiY2RlZg=="]].concat();
    let tunnel = Umbra::start(&tunnel);
    assert!(tunnel.wait_for("starting udp tunnel at ").ends_with(&format!(" forward to {target}")));
    let programs: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut answer = [0; 64];
    for round in 0..3u8 {
        for (at, program) in (0u8..).zip(&programs) {
            program.send_to(&[at, round], tunnel.address).unwrap();
        }
        for (at, program) in (0u8..).zip(&programs) {
            let (len, from) = receive(program, &mut answer, PATIENCE).expect("an answer");
            assert_eq!((from, &answer[..len]), (tunnel.address, &[at, round][..]));
        }
    }
}

#[test]
fn one_time_authentication_goes_through_a_tunnel_both_as_streams_and_as_datagrams() {
    let server = server("aes-256-cfb", "long-enough", &["-a"]);
    let address = server.address.to_string();
    let tunnel = |target: SocketAddr| {
        let target = target.to_string();
        let words =
            ["tunnel", "-f", &target, "-s", &address, "-l", "0", "-m", "aes-256-cfb", "-k", "long-enough"];
        Umbra::start(&[&words[..], &["-a"]].concat())
    };
    let (streams, datagrams) = (tunnel(running::echo()), tunnel(echo()));
    let mut stream = TcpStream::connect(streams.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"there and back").unwrap();
    let mut came = [0; 14];
    stream.read_exact(&mut came).unwrap();
    assert_eq!(&came, b"there and back");
    let program = UdpSocket::bind("127.0.0.1:0").unwrap();
    program.send_to(b"there and back", datagrams.address).unwrap();
    assert_eq!(receive(&program, &mut came, PATIENCE), Some((14, datagrams.address)));
    assert_eq!(&came, b"there and back");
}

#[test]
fn an_association_lives_while_datagrams_go_either_way_and_ends_when_none_do() {
    let server = server("aes-256-gcm", "long-enough", &["--udp-timeout", "2"]);
    let local = local(&server, "aes-256-gcm", "long-enough", &[]);
    let association = Association::open(local.address);
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let block = block(target.local_addr().unwrap());
    let mut came = [0; 64];
    let mut hear = || receive(&target, &mut came, PATIENCE).expect("a datagram at the target").1;
    association.send(&block, b"first");
    let seen = hear();
    let step = Duration::from_millis(500);
    // Three times as long as an association may be idle, each way by itself.
    for _ in 0..12 {
        thread::sleep(step);
        target.send_to(b"down", seen).unwrap();
        assert_eq!(association.hear().1, b"down");
    }
    for _ in 0..12 {
        thread::sleep(step);
        association.send(&block, b"up");
        assert_eq!(hear(), seen);
    }
    target.send_to(b"down again", seen).unwrap();
    assert_eq!(association.hear().1, b"down again");
    thread::sleep(Duration::from_secs(5));
    // Nobody is there any more; the way back of the program's next datagram is a new one.
    target.send_to(b"too late", seen).unwrap();
    association.assert_silent();
    association.send(&block, b"anew");
    // Word of the closed port may come before it.
    let again = running::eventually(|| match target.recv_from(&mut [0; 64]) {
        Ok((_, from)) => Ok(from),
        Err(error) => Err(error.to_string()),
    });
    target.send_to(b"welcome back", again).unwrap();
    assert_eq!(association.hear().1, b"welcome back");
}

#[test]
fn a_door_for_streams_alone_refuses_associations_and_hears_no_datagrams() {
    let local = direct(&["--mode", "tcp_only"]);
    let mut control = TcpStream::connect(local.address).unwrap();
    control.set_read_timeout(Some(PATIENCE)).unwrap();
    control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut answer = [0; 4];
    control.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [5, 0, 5, 7]);
    assert!(UdpSocket::bind(local.address).is_ok(), "nobody else is there");
}

#[test]
fn a_door_for_datagrams_alone_refuses_connections() {
    let local = direct(&["-U"]);
    let target = running::echo();
    assert_eq!(running::exchange(local.address, target, b"x"), Err("refused with 7".to_owned()));
    Association::open(local.address).assert_echoes(echo(), b"a datagram");
}

#[test]
fn datagrams_go_through_a_parent() {
    let parent = direct(&[]);
    let url = format!("socks5://{}", parent.address);
    let local = Umbra::start(&["local", "--outbound-proxy", &url, "-l", "0"]);
    let association = Association::open(local.address);
    association.assert_echoes(echo(), b"through two doors");
}

#[test]
fn a_door_on_every_address_tells_one_that_the_client_can_send_to() {
    let target = echo();
    let doors = [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1")];
    for (listen, near) in doors.into_iter().filter(|(listen, _)| *listen != "::" || has_ipv6()) {
        let local = direct(&["-b", listen]);
        let door = SocketAddr::new(near.parse().unwrap(), local.address.port());
        Association::open(door).assert_echoes(target, near.as_bytes());
    }
}

/// A plain socket that a program takes for its peer, behind which everything goes through an association to `target`.
fn disguise(association: Association, target: SocketAddr) -> SocketAddr {
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = near.local_addr().unwrap();
    thread::spawn(move || {
        let mut datagram = vec![0; 65_536];
        let (len, program) = near.recv_from(&mut datagram).unwrap();
        near.connect(program).unwrap();
        association.send(&block(target), &datagram[..len]);
        let (back, association) = (near.try_clone().unwrap(), Arc::new(association));
        let downlink = Arc::clone(&association);
        thread::spawn(move || {
            while let Some((source, payload)) = downlink.hear_within(PATIENCE) {
                assert_eq!(source, target);
                let _gone_already = back.send(&payload);
            }
        });
        while let Ok(len) = near.recv(&mut datagram) {
            association.send(&block(target), &datagram[..len]);
        }
    });
    address
}

/// A server of QUIC that sends back what comes on each stream, and a client's settings that trust it.
fn quic_server() -> (quinn::Endpoint, quinn::ClientConfig) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["quic.example".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = &[&rustls::version::TLS13];
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
    let endpoint = quinn::Endpoint::server(server, "127.0.0.1:0".parse().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (endpoint, quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap())))
}

#[test]
fn a_quic_client_moves_a_megabyte_there_and_back_through_an_association() {
    let server = server("2022-blake3-aes-256-gcm", KEY_32, &[]);
    let local = local(&server, "2022-blake3-aes-256-gcm", KEY_32, &[]);
    let association = Association::open(local.address);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let exchange = async move {
        let (endpoint, config) = quic_server();
        let near = disguise(association, endpoint.local_addr().unwrap());
        tokio::spawn(async move {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let (mut writer, mut reader) = connection.accept_bi().await.unwrap();
            let came = reader.read_to_end(2_000_000).await.unwrap();
            writer.write_all(&came).await.unwrap();
            writer.finish().unwrap();
            connection.closed().await;
        });
        let client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = client.connect_with(config, near, "quic.example").unwrap().await.unwrap();
        let (mut writer, mut reader) = connection.open_bi().await.unwrap();
        let sent: Vec<u8> = (0..=250).cycle().take(1_000_003).collect();
        writer.write_all(&sent).await.unwrap();
        writer.finish().unwrap();
        assert!(reader.read_to_end(2_000_000).await.unwrap() == sent);
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await }).expect("a megabyte in time");
}
