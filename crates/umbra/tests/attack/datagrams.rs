//! Datagrams of strangers, crowds and the dead: what they cost, and who is served beside them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::stage::{
    Chance, METHODS, PATIENCE, SECRET, Umbra, allow_many_descriptors, connect, echo, echoes, eventually,
};

/// How long a datagram must not come before it counts as dropped.
const SILENCE: Duration = Duration::from_millis(300);

/// More than any datagram has.
const ROOM: usize = 1 << 16;

/// One byte more than the longest datagram has, and than those of most networks.
const LONGEST: usize = 65_508;
const ORDINARY: usize = 1473;

fn tunnel(method: &str, server: SocketAddr, target: SocketAddr, extra: &[&str]) -> Umbra {
    let (server, target) = (server.to_string(), target.to_string());
    let words = ["tunnel", "-f", &target, "-s", &server, "-l", "0", "-m", method, "-k", SECRET];
    Umbra::start(&[&words, extra].concat())
}

fn direct(extra: &[&str]) -> Umbra {
    Umbra::start(&[&["local", "--direct", "--forbidden-ip=", "-l", "0"], extra].concat())
}

fn socket(ip: impl Into<IpAddr>) -> UdpSocket {
    UdpSocket::bind((ip.into(), 0)).unwrap()
}

/// One of sixteen million addresses on loopback.
fn address_of(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7f01_0001 + u32::try_from(number).unwrap())
}

fn hear_within(socket: &UdpSocket, patience: Duration) -> Option<Vec<u8>> {
    let mut datagram = vec![0; ROOM];
    socket.set_read_timeout(Some(patience)).unwrap();
    match socket.recv(&mut datagram) {
        Ok(len) => Some(datagram[..len].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// Says something until it is answered, as clients do.
fn ask(socket: &UdpSocket, door: SocketAddr, said: &[u8]) -> Vec<u8> {
    for _ in 0..50 {
        socket.send_to(said, door).unwrap();
        if let Some(heard) = hear_within(socket, PATIENCE / 50) {
            return heard;
        }
    }
    panic!("no answer from {door}")
}

/// A target that answers every datagram with what `answer` makes of it and of where it came from.
fn datagram_target(answer: impl Fn(&[u8], SocketAddr) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let socket = socket(Ipv4Addr::LOCALHOST);
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut datagram = vec![0; ROOM];
        while let Ok((len, from)) = socket.recv_from(&mut datagram) {
            let _gone_already = socket.send_to(&answer(&datagram[..len], from), from);
        }
    });
    address
}

fn datagram_echo() -> SocketAddr {
    datagram_target(|datagram, _| datagram.to_vec())
}

/// A target that tells whom it takes each sender for.
fn mirror() -> SocketAddr {
    datagram_target(|_, from| from.to_string().into_bytes())
}

/// An association of a SOCKS5 client: its control connection, and where its datagrams go.
fn associate(door: SocketAddr) -> (TcpStream, SocketAddr) {
    let mut control = connect(door);
    control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut answer = [0; 12];
    control.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..6], [5, 0, 5, 0, 0, 1]);
    (control, SocketAddr::new(door.ip(), u16::from_be_bytes([answer[10], answer[11]])))
}

/// A datagram as SOCKS5 clients say it.
fn socks(target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let SocketAddr::V4(target) = target else { panic!("an IPv4 target is wanted") };
    [&[0, 0, 0, 1][..], &target.ip().octets(), &target.port().to_be_bytes(), payload].concat()
}

/// Asserts that a process which has nothing to do does nothing.
fn assert_idle(umbra: &Umbra, watched: Duration) {
    let before = umbra.cpu();
    thread::sleep(watched);
    let spent = umbra.cpu() - before;
    assert!(spent <= watched / 20, "spent {spent:?} of {watched:?}");
}

/// Sends random datagrams of every length below `end`.
fn flood(from: &UdpSocket, door: SocketAddr, count: usize, end: usize, seed: u64) {
    let mut chance = Chance(seed);
    for number in 0..count {
        let len = chance.below(end);
        from.send_to(&chance.bytes(len), door).unwrap();
        if number % 16 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_flood_of_random_packets_leaves_a_server_as_it_was_and_its_users_served() {
    for method in METHODS {
        let server = Umbra::server(method, &[]);
        let tunnel = tunnel(method, server.address, datagram_echo(), &[]);
        let client = socket(Ipv4Addr::LOCALHOST);
        assert_eq!(ask(&client, tunnel.address, b"before"), b"before");
        let floods = [socket(Ipv4Addr::LOCALHOST), socket(Ipv4Addr::new(127, 0, 0, 2))];
        // What a worker keeps for batches comes to be with the first long ones.
        for end in [LONGEST, ORDINARY] {
            floods.iter().for_each(|from| flood(from, server.address, 2000, end, 1));
        }
        let before = (server.descriptors(), server.resident_kib());
        thread::scope(|scope| {
            for (seed, from) in (2..).zip(&floods) {
                scope.spawn(move || flood(from, server.address, 15_000, ORDINARY, seed));
            }
            for round in 0..20_u8 {
                assert_eq!(ask(&client, tunnel.address, &[round]), [round]);
            }
        });
        assert_eq!(server.descriptors(), before.0);
        let more = server.resident_kib().saturating_sub(before.1);
        assert!(more < 512, "{method}: {more} KiB more");
        assert_idle(&server, Duration::from_secs(1));
    }
}

#[test]
fn a_flood_of_strangers_leaves_a_socks_door_as_it_was_and_its_client_served() {
    let local = direct(&[]);
    let target = datagram_echo();
    let (_control, relay) = associate(local.address);
    let client = socket(Ipv4Addr::LOCALHOST);
    let said = socks(target, b"there and back");
    assert_eq!(ask(&client, relay, &said), said);
    let stranger = socket(Ipv4Addr::new(127, 0, 0, 2));
    flood(&stranger, relay, 2000, LONGEST, 1);
    flood(&stranger, relay, 2000, ORDINARY, 1);
    let before = (local.descriptors(), local.resident_kib());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            flood(&stranger, relay, 15_000, ORDINARY, 2);
            is_over.store(true, Ordering::Relaxed);
        });
        // Strangers who say the right words, each from another address.
        scope.spawn(|| {
            for number in (0..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                socket(address_of(number)).send_to(&said, relay).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..20 {
            assert_eq!(ask(&client, relay, &said), said);
        }
    });
    assert_eq!(local.descriptors(), before.0);
    let more = local.resident_kib().saturating_sub(before.1);
    assert!(more < 512, "{more} KiB more");
    assert_idle(&local, Duration::from_secs(1));
}

/// How many associations are begun and ended: two hundred thousand, where the environment asks for a soak.
fn crowd_len() -> usize {
    if std::env::var_os("UMBRA_SOAK").is_some() { 200_000 } else { 20_000 }
}

/// Clients with numbers, each of an address of its own, of which each hears what it has said.
fn visit(door: SocketAddr, numbers: std::ops::Range<usize>) {
    let mut numbers = numbers.peekable();
    while numbers.peek().is_some() {
        let clients: Vec<_> = numbers.by_ref().take(64).map(|number| socket(address_of(number))).collect();
        for client in &clients {
            client.send_to(b"short visit", door).unwrap();
        }
        for client in &clients {
            let heard = hear_within(client, PATIENCE / 10);
            // What was dropped in a crowd is said again.
            assert_eq!(heard.unwrap_or_else(|| ask(client, door, b"short visit")), b"short visit");
        }
    }
}

#[test]
fn associations_by_the_thousand_come_and_go_and_leave_nothing_behind() {
    const AT_ONCE: &str = "2000";
    allow_many_descriptors();
    // Each worker has its part of them.
    let bounds = ["--workers", "1", "--udp-timeout", "1", "--udp-max-associations", AT_ONCE];
    let bounds = [&bounds[..], &["--udp-max-associations-per-source", AT_ONCE]].concat();
    let server = Umbra::server(METHODS[0], &bounds);
    let tunnel = tunnel(METHODS[0], server.address, datagram_echo(), &bounds);
    let ends = [&server, &tunnel];
    let fresh = ends.map(Umbra::descriptors);
    let assert_gone = || {
        eventually(|| {
            let now = ends.map(Umbra::descriptors);
            if now == fresh { Ok(()) } else { Err(format!("descriptors {fresh:?} have become {now:?}")) }
        });
    };
    // As many as there may be at once, and a few of them put out by others.
    visit(tunnel.address, 0..3000);
    assert_gone();
    let before = ends.map(Umbra::resident_kib);
    let since = Instant::now();
    visit(tunnel.address, 3000..crowd_len() + 3000);
    let took = since.elapsed();
    assert_gone();
    let after = ends.map(Umbra::resident_kib);
    println!("{} in {took:?}: resident KiB {before:?}, then {after:?}", crowd_len());
    for (before, after) in before.into_iter().zip(after) {
        assert!(after <= before + 1024, "resident KiB {before} have become {after}");
    }
    for end in ends {
        assert_idle(end, Duration::from_secs(2));
    }
}

#[test]
fn at_the_bound_the_longest_idle_goes_and_the_active_stay() {
    let server = Umbra::server(METHODS[0], &[]);
    let tunnel =
        tunnel(METHODS[0], server.address, mirror(), &["--workers", "1", "--udp-max-associations", "8"]);
    let seen = |client: &UdpSocket| ask(client, tunnel.address, b"who am I?");
    let (idle, active) = (socket(address_of(0)), socket(address_of(1)));
    let as_seen = (seen(&idle), seen(&active));
    for number in 2..40 {
        seen(&socket(address_of(number)));
        assert_eq!(seen(&active), as_seen.1, "after {number} others");
    }
    assert_ne!(seen(&idle), as_seen.0);
}

#[test]
fn one_source_that_is_many_puts_out_its_own_and_nobody_else() {
    let server = Umbra::server(METHODS[0], &[]);
    let bounds = ["--workers", "1", "--udp-max-associations", "8", "--udp-max-associations-per-source", "2"];
    let tunnel = tunnel(METHODS[0], server.address, mirror(), &bounds);
    let seen = |client: &UdpSocket| ask(client, tunnel.address, b"who am I?");
    let others: Vec<_> = (0..6).map(|number| socket(address_of(number))).collect();
    let as_seen: Vec<_> = others.iter().map(seen).collect();
    let crowd: Vec<_> = (0..20).map(|_| socket(Ipv4Addr::LOCALHOST)).collect();
    let crowd_seen: Vec<_> = crowd.iter().map(seen).collect();
    assert_eq!(others.iter().map(seen).collect::<Vec<_>>(), as_seen);
    assert_eq!(seen(&crowd[19]), crowd_seen[19]);
    assert_ne!(seen(&crowd[0]), crowd_seen[0]);
}

#[test]
fn associations_without_end_leave_descriptors_to_sessions() {
    // All of them are of one address, which has half of the sockets unless it may have more.
    let bounds = ["--nofile", "160", "--udp-timeout", "2", "--udp-max-associations-per-source", "600"];
    let mut local = direct(&bounds);
    let (streams, datagrams) = (echo(), datagram_echo());
    assert!(echoes(local.address, streams));
    let (_control, relay) = associate(local.address);
    let before = local.descriptors();
    let said = socks(datagrams, b"one of many");
    let clients: Vec<_> = (0..600).map(|_| socket(Ipv4Addr::LOCALHOST)).collect();
    for client in &clients {
        client.send_to(&said, relay).unwrap();
    }
    let most = eventually(|| match local.descriptors() {
        taken if taken > before + 20 => Ok(taken),
        taken => Err(format!("{before} descriptors have become {taken}")),
    });
    assert!(most < 100, "{most} descriptors");
    let busy = (Instant::now(), local.cpu());
    while busy.0.elapsed() < Duration::from_secs(1) {
        assert!(echoes(local.address, streams), "a session while associations take what they may");
        clients[0].send_to(&said, relay).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    let spent = local.cpu() - busy.1;
    assert!(spent < busy.0.elapsed() / 4, "spent {spent:?} of {:?}", busy.0.elapsed());
    // Whoever comes last has room made by whoever has been idle for longest.
    let last = socket(Ipv4Addr::LOCALHOST);
    assert_eq!(ask(&last, relay, &said), said);
    drop(clients);
    eventually(|| {
        let now = local.descriptors();
        if now <= before { Ok(()) } else { Err(format!("{before} descriptors have become {now}")) }
    });
    assert_eq!(ask(&last, relay, &said), said, "after all have gone");
    assert!(local.is_alive());
}

#[test]
fn associations_through_a_parent_leave_descriptors_to_sessions_too() {
    let parent = direct(&["--nofile", "4096"]);
    let url = format!("socks5://{}", parent.address);
    let words = ["local", "--outbound-proxy", &url, "-l", "0", "--nofile", "160", "--udp-timeout", "2"];
    let local = Umbra::start(&words);
    let (streams, datagrams) = (echo(), datagram_echo());
    assert!(echoes(local.address, streams));
    let (_control, relay) = associate(local.address);
    let before = local.descriptors();
    let said = socks(datagrams, b"one of many");
    let clients: Vec<_> = (0..600).map(|_| socket(Ipv4Addr::LOCALHOST)).collect();
    for round in clients.chunks(50) {
        for client in round {
            client.send_to(&said, relay).unwrap();
        }
        assert!(echoes(local.address, streams), "a session while associations take what they may");
        // Each of them has a control connection of its own, and a socket.
        let taken = local.descriptors();
        assert!(taken < 100, "{taken} descriptors");
    }
    let last = socket(Ipv4Addr::LOCALHOST);
    assert_eq!(ask(&last, relay, &said), said);
    eventually(|| {
        let now = local.descriptors();
        if now <= before { Ok(()) } else { Err(format!("{before} descriptors have become {now}")) }
    });
    assert_eq!(ask(&last, relay, &said), said, "after all have gone");
}

/// Stands between a client and its server, and tells of what the client sends. Answers go back.
fn tap(server: SocketAddr) -> (SocketAddr, UdpSocket, mpsc::Receiver<Vec<u8>>) {
    let (near, far) = (socket(Ipv4Addr::LOCALHOST), socket(Ipv4Addr::LOCALHOST));
    far.connect(server).unwrap();
    let (address, injector) = (near.local_addr().unwrap(), far.try_clone().unwrap());
    let (sender, packets) = mpsc::channel();
    thread::spawn(move || {
        let (mut packet, near) = (vec![0; ROOM], Arc::new(near));
        let mut downlink = None;
        while let Ok((len, client)) = near.recv_from(&mut packet) {
            let _over = sender.send(packet[..len].to_vec());
            far.send(&packet[..len]).unwrap();
            downlink.get_or_insert_with(|| {
                let (near, far) = (Arc::clone(&near), far.try_clone().unwrap());
                thread::spawn(move || {
                    let mut packet = vec![0; ROOM];
                    while let Ok(len) = far.recv(&mut packet) {
                        let _gone_already = near.send_to(&packet[..len], client);
                    }
                })
            });
        }
    });
    (address, injector, packets)
}

#[test]
fn packets_that_are_sent_again_or_have_been_changed_reach_no_target() {
    for method in ["2022-blake3-aes-256-gcm", "2022-blake3-chacha20-poly1305"] {
        let server = Umbra::server(method, &[]);
        let (between, injector, packets) = tap(server.address);
        let target = socket(Ipv4Addr::LOCALHOST);
        let tunnel = tunnel(method, between, target.local_addr().unwrap(), &[]);
        let client = socket(Ipv4Addr::LOCALHOST);
        let elsewhere = socket(Ipv4Addr::new(127, 0, 0, 2));
        let mut captured = Vec::new();
        for round in 0..20_u8 {
            client.send_to(&[round], tunnel.address).unwrap();
            assert_eq!(hear_within(&target, PATIENCE), Some(vec![round]), "{method}");
            captured.push(packets.recv_timeout(PATIENCE).unwrap());
        }
        for packet in &captured {
            injector.send(packet).unwrap();
            elsewhere.send_to(packet, server.address).unwrap();
        }
        let last = captured.last().unwrap();
        for bit in 0..last.len() * 8 {
            let mut changed = last.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            injector.send(&changed).unwrap();
            elsewhere.send_to(&changed[..changed.len() - bit % 16], server.address).unwrap();
        }
        assert_eq!(hear_within(&target, SILENCE), None, "{method}");
        // None of them has led answers away or closed the window.
        client.send_to(b"and on", tunnel.address).unwrap();
        let mut heard = [0; 16];
        target.set_read_timeout(Some(PATIENCE)).unwrap();
        let (len, from) = target.recv_from(&mut heard).unwrap();
        assert_eq!(&heard[..len], b"and on");
        for packet in &captured {
            elsewhere.send_to(packet, server.address).unwrap();
        }
        thread::sleep(SILENCE);
        target.send_to(b"answer", from).unwrap();
        assert_eq!(hear_within(&client, PATIENCE), Some(b"answer".to_vec()), "{method}");
        assert_eq!(hear_within(&elsewhere, SILENCE), None, "{method}");
    }
}

#[test]
fn a_thousand_idle_associations_cost_no_time() {
    allow_many_descriptors();
    let server = Umbra::server(METHODS[0], &[]);
    let tunnel = tunnel(METHODS[0], server.address, datagram_echo(), &[]);
    let before = server.descriptors();
    visit(tunnel.address, 0..1000);
    // Cooled down.
    thread::sleep(Duration::from_secs(6));
    assert!(server.descriptors() >= before + 1000);
    for end in [&server, &tunnel] {
        assert_idle(end, Duration::from_secs(2));
    }
}

#[test]
fn targets_that_are_not_there_and_answers_that_are_too_long_end_only_themselves() {
    let server = Umbra::server(METHODS[0], &[]);
    let local = Umbra::local(METHODS[0], server.address, &[]);
    let longest =
        datagram_target(|datagram, _| if datagram == b"all" { vec![7; 65_507] } else { datagram.to_vec() });
    let nobody = socket(Ipv4Addr::LOCALHOST).local_addr().unwrap();
    let direct = direct(&[]);
    for door in [direct.address, local.address] {
        let (_control, relay) = associate(door);
        let client = socket(Ipv4Addr::LOCALHOST);
        for _ in 0..200 {
            client.send_to(&socks(nobody, b"anybody?"), relay).unwrap();
        }
        let said = socks(longest, b"little");
        assert_eq!(ask(&client, relay, &said), said);
        for _ in 0..5 {
            client.send_to(&socks(longest, b"all"), relay).unwrap();
        }
        assert_eq!(hear_within(&client, SILENCE), None, "no datagram is that long");
        assert_eq!(ask(&client, relay, &said), said);
    }
    for end in [&direct, &local, &server] {
        assert_idle(end, Duration::from_secs(1));
    }
}
