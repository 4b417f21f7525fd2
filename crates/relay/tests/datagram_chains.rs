//! Datagrams through several hops, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[expect(dead_code, reason = "streams use the rest")]
mod common;
#[expect(dead_code, reason = "associations use the rest")]
mod peers;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{run, server_with};
use peers::{Client, Echo, PATIENCE, key, mirrored, mixed, with_datagrams};
use umbra_proto::address::{Address, DomainName};
use umbra_proto::request::Refusal;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::socks5::udp;
use umbra_relay::Relay;
use umbra_relay::config::{
    DnsProbe, Group, Hop, Inbound, Mode, Names, Parent, Path, Probe, ProbeKind, Route, Routes, Server,
};
use umbra_relay::group::{Health, Policy, Probing, Settings};
use umbra_relay::router::{Conditions, Router, Rule, TargetsBuilder};

fn server_at(address: Address, method: Method, byte: u8) -> Hop {
    let mode = Mode::Both(address.clone());
    let credentials = key(method, byte).into();
    Hop::Shadowsocks(Server { address, mode, credentials, heads: HeadReads::One, one_time_auth: false })
}

fn parent_at(address: SocketAddr) -> Hop {
    Hop::Parent(Parent::socks5(address.into(), None))
}

fn through(hops: Vec<Hop>) -> Route {
    Route::Path(Arc::new(Path::new("chain", hops)))
}

/// Any of the paths through these hops.
fn any_of(members: impl IntoIterator<Item = Vec<Hop>>) -> Route {
    let member = |(index, hops)| Path::new(format!("members[{index}]"), hops).into();
    let settings = Settings { policy: Policy::Random, ..Settings::default() };
    Route::Group(Arc::new(Group::new("any", settings, members.into_iter().enumerate().map(member).collect())))
}

/// A Shadowsocks server of ours, and the hop that it is.
fn server(method: Method, byte: u8) -> (Relay, Hop) {
    let relay = run(with_datagrams(server_with(key(method, byte)), Route::direct()));
    let hop = server_at(relay.addresses()[0].into(), method, byte);
    (relay, hop)
}

/// A SOCKS5 proxy of ours, and the hop that it is.
fn parent() -> (Relay, Hop) {
    let relay = run(with_datagrams(mixed(), Route::direct()));
    let hop = parent_at(relay.addresses()[0]);
    (relay, hop)
}

/// Sends until something has come back, as long as it may take to find out that a hop has gone.
fn insists(client: &Client, target: &Address, payload: &[u8]) {
    client.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let since = Instant::now();
    loop {
        client.send(target, payload);
        match client.socket.recv_from(&mut [0; 999]) {
            Ok(_) => break,
            Err(_) => assert!(since.elapsed() < 2 * PATIENCE, "nothing comes back"),
        }
    }
    client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn datagrams_pass_any_two_and_three_hops() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    for method in [Method::Aes256Gcm, Method::Blake3Aes256Gcm, Method::Blake3Chacha20Poly1305] {
        let (_one, first) = server(method, 1);
        let (_other, second) = server(Method::Blake3Aes128Gcm, 2);
        let (_parent, asked) = parent();
        let (_another, asked_too) = parent();
        let lists = [
            vec![first.clone(), second.clone()],
            vec![first.clone(), asked.clone()],
            vec![asked.clone(), first.clone()],
            vec![asked.clone(), asked_too.clone()],
            vec![first.clone(), asked.clone(), second.clone()],
            vec![asked.clone(), first.clone(), asked_too.clone()],
            vec![second, first.clone(), first],
        ];
        for (index, hops) in lists.into_iter().enumerate() {
            let relay = run(with_datagrams(mixed(), through(hops)));
            let client = Client::associate(relay.addresses()[0]);
            for len in [0, 1, 1200, 30_000] {
                let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
                let (source, answer) = client.trip(&target, &payload);
                assert_eq!((source, answer.len()), (target.clone(), len), "{method}, list {index}");
                assert_eq!(answer, mirrored(&payload), "{method}, list {index}");
            }
            let named = Address::from_host("localhost", echo.address.port()).unwrap();
            client.send(&named, b"ab");
            let heard = client.receive();
            assert_eq!((heard.0.port(), heard.1), (named.port(), b"ba".to_vec()), "{method}, list {index}");
        }
    }
}

#[test]
fn a_hops_name_is_looked_up_by_whoever_sends_to_it() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    let named = |relay: &Relay| Address::from_host("localhost", relay.addresses()[0].port()).unwrap();
    let (one, _) = server(Method::Aes256Gcm, 1);
    let (other, _) = server(Method::Blake3Aes256Gcm, 2);
    let (asked, _) = parent();
    let first = server_at(named(&one), Method::Aes256Gcm, 1);
    let second = server_at(named(&other), Method::Blake3Aes256Gcm, 2);
    let third = Hop::Parent(Parent::socks5(named(&asked), None));
    let resolving = Hop::Parent(Parent { names: Names::ResolveHere, ..Parent::socks5(named(&asked), None) });
    for hops in [vec![first.clone(), second.clone()], vec![first, third], vec![resolving, second]] {
        let relay = run(with_datagrams(mixed(), through(hops)));
        let client = Client::associate(relay.addresses()[0]);
        for payload in [&b"one"[..], b"two"] {
            assert_eq!(client.trip(&target, payload), (target.clone(), mirrored(payload)));
        }
    }
}

#[test]
fn a_last_hop_that_is_told_addresses_is_told_no_name() {
    let echo = Echo::start("127.0.0.1:0");
    let named = Address::from_host("localhost", echo.address.port()).unwrap();
    // It leads nobody to any name.
    let mut names = TargetsBuilder::default();
    names.suffix("localhost").unwrap();
    let conditions = Conditions { target: Some(names.build().unwrap()), ..Conditions::default() };
    let verdict = Route::Refuse(Refusal::NotAllowed);
    let rules = vec![Rule { name: "names".into(), conditions, verdict }];
    let routes = Routes::new(Router { rules, otherwise: Route::direct() });
    let strict = run(Inbound { routes, ..with_datagrams(mixed(), Route::direct()) });
    let (_server, server) = server(Method::Blake3Aes256Gcm, 1);
    let last = |names| Hop::Parent(Parent { names, ..Parent::socks5(strict.addresses()[0].into(), None) });
    for before in [vec![], vec![server]] {
        let by = |names| run(with_datagrams(mixed(), through([&before[..], &[last(names)]].concat())));
        let relay = by(Names::ResolveHere);
        let client = Client::associate(relay.addresses()[0]);
        for payload in [&b"one"[..], b"two"] {
            let (source, answer) = client.trip(&named, payload);
            assert_eq!((source, answer), (Address::Ip(echo.address), mirrored(payload)), "it says who it is");
        }
        let relay = by(Names::PassOn);
        let client = Client::associate(relay.addresses()[0]);
        client.send(&named, b"one");
        assert!(client.hears_nothing());
    }
}

/// A SOCKS5 proxy that takes one association, sends what it gets to `server`, and gives the answer back twice: first as if it were from
/// somebody else.
fn liar(server: SocketAddr) -> (SocketAddr, JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
    relay.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut control, _) = listener.accept().unwrap();
        control.read_exact(&mut [0; 3]).unwrap();
        control.write_all(&[5, 0]).unwrap();
        control.read_exact(&mut [0; 10]).unwrap();
        let mut granted = vec![5, 0, 0];
        Address::Ip(relay.local_addr().unwrap()).encode(&mut granted);
        control.write_all(&granted).unwrap();
        let mut bytes = vec![0; 2000];
        let (len, client) = relay.recv_from(&mut bytes).unwrap();
        let (target, payload) = udp::open(&bytes[..len]).unwrap();
        assert_eq!(target.to_address(), Address::Ip(server));
        relay.send_to(payload, server).unwrap();
        let (len, from) = relay.recv_from(&mut bytes).unwrap();
        assert_eq!(from, server);
        for source in
            [SocketAddr::new(server.ip(), 9), SocketAddr::from(([127, 0, 0, 9], server.port())), server]
        {
            relay.send_to(&peers::datagram(&source.into(), &bytes[..len]), client).unwrap();
        }
        control
    });
    (address, thread)
}

#[test]
fn an_answer_is_taken_from_the_next_hop_and_from_nobody_else() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    // A packet of SIP022 is taken once: had the lie come through, the truth would not. One of SIP004 is taken as often as it comes.
    for method in [Method::Blake3Aes256Gcm, Method::Aes256Gcm] {
        let (server, hop) = server(method, 1);
        let (at, lying) = liar(server.addresses()[0]);
        let relay = run(with_datagrams(mixed(), through(vec![parent_at(at), hop])));
        let client = Client::associate(relay.addresses()[0]);
        client.send(&target, b"hello");
        assert_eq!(client.receive(), (target.clone(), mirrored(b"hello")), "{method}");
        assert!(client.hears_nothing(), "{method}");
        drop(lying.join().unwrap());
    }
}

/// A SOCKS5 proxy that says that it takes datagrams at what `told` makes of the port where it does, and gives each of them back as if its
/// target did.
fn telling(told: impl Fn(u16) -> Address + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (address, port) = (listener.local_addr().unwrap(), relay.local_addr().unwrap().port());
    thread::spawn(move || {
        let mut bytes = vec![0; 2000];
        while let Ok((len, client)) = relay.recv_from(&mut bytes) {
            let _gone = relay.send_to(&bytes[..len], client);
        }
    });
    thread::spawn(move || {
        let mut controls = Vec::new();
        for control in listener.incoming() {
            let mut control = control.unwrap();
            control.read_exact(&mut [0; 3]).unwrap();
            control.write_all(&[5, 0]).unwrap();
            control.read_exact(&mut [0; 10]).unwrap();
            let mut granted = vec![5, 0, 0];
            told(port).encode(&mut granted);
            control.write_all(&granted).unwrap();
            controls.push(control);
        }
    });
    address
}

#[test]
fn a_parent_may_tell_its_address_in_the_words_of_the_other_family_or_by_a_name() {
    let target = Address::Ip("192.0.2.1:7".parse().unwrap());
    let mapped = |port| Address::Ip(format!("[::ffff:127.0.0.1]:{port}").parse().unwrap());
    // Nobody else has to know what it calls itself.
    let named = |port| Address::from_host("parent.invalid", port).unwrap();
    let (_server, hop) = server(Method::Aes256Gcm, 1);
    for parent in [parent_at(telling(mapped)), parent_at(telling(named))] {
        for hops in [vec![parent.clone()], vec![hop.clone(), parent]] {
            let relay = run(with_datagrams(mixed(), through(hops)));
            let client = Client::associate(relay.addresses()[0]);
            assert_eq!(client.trip(&target, b"there"), (target.clone(), b"there".to_vec()));
        }
    }
}

#[test]
fn a_member_is_left_to_which_the_system_has_no_way() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    let (_asked, well) = parent();
    // Nobody sends there without having asked to be let.
    let everybody = |port| Address::Ip(SocketAddr::from(([255, 255, 255, 255], port)));
    let server = server_at(everybody(9), Method::Aes256Gcm, 1);
    let shared = server_at(everybody(9), Method::Blake3Aes256Gcm, 2);
    let dead =
        [vec![parent_at(telling(everybody))], vec![server.clone()], vec![shared], vec![server, well.clone()]];
    for (index, dead) in dead.into_iter().enumerate() {
        let settings = Settings { policy: Policy::Ordered, ..Settings::default() };
        let members = vec![Path::new("dead", dead).into(), Path::new("well", [well.clone()]).into()];
        let group = Arc::new(Group::new("members", settings, members));
        let relay = run(with_datagrams(mixed(), Route::Group(Arc::clone(&group))));
        let client = Client::associate(relay.addresses()[0]);
        insists(&client, &target, b"one");
        assert_eq!(group.paths_of_datagrams()[0].counts().datagrams_failed, 1, "member {index}");
    }
}

#[test]
fn a_parent_behind_another_hop_is_asked_again_when_it_has_gone() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    let (_server, hop) = server(Method::Blake3Aes256Gcm, 1);
    let (asked, last) = parent();
    let at = asked.addresses()[0];
    let relay = run(with_datagrams(mixed(), through(vec![hop, last])));
    let client = Client::associate(relay.addresses()[0]);
    assert_eq!(client.trip(&target, b"one"), (target.clone(), mirrored(b"one")));
    asked.stop();
    let _asked = run(Inbound { listen: at, ..with_datagrams(mixed(), Route::direct()) });
    insists(&client, &target, b"two");
}

#[test]
fn a_member_that_cannot_be_reached_gives_way_to_another() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    let (_asked, well) = parent();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_server, hop) = server(Method::Aes256Gcm, 1);
    // Most associations begin with one of those that are dead.
    let relay = run(with_datagrams(
        mixed(),
        any_of([vec![parent_at(nobody)], vec![hop.clone(), parent_at(nobody)], vec![hop, well]]),
    ));
    for _ in 0..6 {
        let client = Client::associate(relay.addresses()[0]);
        insists(&client, &target, b"somebody");
        assert_eq!(client.trip(&target, b"again").1, mirrored(b"again"), "and it stays there");
    }
}

/// Answers every question with itself, marked as an answer.
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut question) {
            question[2] |= 0x80;
            let _ = socket.send_to(&question[..len], from);
        }
    });
    address
}

#[test]
fn a_member_that_probes_take_out_is_left_by_an_association_that_is_never_at_rest() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    // It takes everything and says nothing, so that nobody but a probe finds out.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = server_at(silent.local_addr().unwrap().into(), Method::Aes256Gcm, 1);
    let (_server, well) = server(Method::Aes256Gcm, 1);
    let probing = Probing { interval: Duration::from_secs(1), fall: NonZeroU32::MIN, ..Probing::default() };
    let settings = Settings {
        policy: Policy::Ordered,
        health: Health { probing: Some(probing), ..Health::default() },
        ..Settings::default()
    };
    let members = vec![Path::new("dead", [dead]).into(), Path::new("well", [well]).into()];
    let question =
        DnsProbe { server: Address::Ip(name_server()), name: DomainName::new("a.example").unwrap() };
    let probe = Probe { kind: ProbeKind::Dns(question), patience: Duration::from_secs(1) };
    let group = Arc::new(Group::new("servers", settings, members).with_probe(probe));
    let relay = run(with_datagrams(mixed(), Route::Group(group)));
    insists(&Client::associate(relay.addresses()[0]), &target, b"is anybody there?");
}

/// In order, with one failure that marks a member down for so long.
fn strict(retry_time: Duration) -> Settings {
    let health = Health { fail_threshold: NonZeroU32::MIN, retry_time, ..Health::default() };
    Settings { policy: Policy::Ordered, health, ..Settings::default() }
}

#[test]
fn a_silent_member_that_was_down_is_tried_by_one_association_and_rests_once_more() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    let (_asked, well) = parent();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, came) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counting = Arc::clone(&came);
    thread::spawn(move || {
        // The first who comes is sent away, and the others hear nothing.
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            if counting.fetch_add(1, Ordering::SeqCst) > 0 {
                silent.push(stream);
            }
        }
    });
    let members = vec![Path::new("silent", [parent_at(at)]).into(), Path::new("well", [well]).into()];
    let group = Arc::new(Group::new("parents", strict(Duration::from_secs(2)), members));
    let relay = run(with_datagrams(mixed(), Route::Group(Arc::clone(&group))));
    let served = |clients: usize| {
        let clients: Vec<_> = (0..clients).map(|_| Client::associate(relay.addresses()[0])).collect();
        clients.iter().for_each(|client| client.send(&target, b"one"));
        clients.iter().for_each(|client| assert_eq!(client.receive().1, mirrored(b"one")));
    };
    served(1);
    // Then it is left alone for a while, and one tries it.
    let since = Instant::now();
    let trial = loop {
        let client = Client::associate(relay.addresses()[0]);
        client.send(&target, b"one");
        client.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        if client.socket.recv_from(&mut [0; 999]).is_err() {
            break client;
        }
        assert!(since.elapsed() < PATIENCE, "nobody tries it again");
    };
    assert_eq!(came.load(Ordering::SeqCst), 2);
    served(10);
    assert_eq!(came.load(Ordering::SeqCst), 2, "the others leave it alone meanwhile");
    insists(&trial, &target, b"two");
    let counts = group.paths_of_datagrams()[0].counts();
    assert_eq!((counts.datagrams_reached, counts.datagrams_failed), (0, 2), "the silence is counted");
    served(10);
    assert_eq!(came.load(Ordering::SeqCst), 2, "and so they do afterwards");
}

#[test]
fn a_member_whose_trial_is_answered_is_up() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    let ((_asked, well), (asked, first)) = (parent(), parent());
    let at = asked.addresses()[0];
    asked.stop();
    let members = vec![Path::new("first", [first]).into(), Path::new("well", [well]).into()];
    let group = Arc::new(Group::new("parents", strict(Duration::from_millis(200)), members));
    let relay = run(with_datagrams(mixed(), Route::Group(Arc::clone(&group))));
    let served = || {
        let client = Client::associate(relay.addresses()[0]);
        insists(&client, &target, b"one");
        group.paths_of_datagrams()[0].counts().datagrams_reached
    };
    assert_eq!(served(), 0);
    let _asked = run(Inbound { listen: at, ..with_datagrams(mixed(), Route::direct()) });
    let since = Instant::now();
    while served() == 0 {
        assert!(since.elapsed() < PATIENCE, "nobody tries it again");
    }
    assert_eq!([served(), served(), served()], [2, 3, 4], "all go there at once");
}

#[test]
fn what_waits_for_a_member_in_vain_goes_by_the_next() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    let (_asked, well) = parent();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_server, hop) = server(Method::Aes256Gcm, 1);
    let dead = [vec![parent_at(nobody)], vec![hop, parent_at(nobody)]];
    for dead in dead {
        // Never left alone for good, so that each association begins with it.
        let health = Health { fail_threshold: NonZeroU32::new(99).unwrap(), ..Health::default() };
        let settings = Settings { policy: Policy::Ordered, health, ..Settings::default() };
        let members = vec![Path::new("dead", dead).into(), Path::new("well", [well.clone()]).into()];
        let group = Arc::new(Group::new("parents", settings, members));
        let relay = run(with_datagrams(mixed(), Route::Group(group)));
        for _ in 0..3 {
            let client = Client::associate(relay.addresses()[0]);
            client.send(&target, b"one");
            client.send(&target, b"two");
            assert_eq!(client.receive(), (target.clone(), mirrored(b"one")));
            assert_eq!(client.receive(), (target.clone(), mirrored(b"two")));
        }
    }
}

#[test]
fn where_all_members_are_dead_each_is_asked_once_for_what_waits() {
    let asked = Arc::new(AtomicUsize::new(0));
    let dead = [(); 3].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, asked) = (listener.local_addr().unwrap(), Arc::clone(&asked));
        thread::spawn(move || {
            for _gone in listener.incoming() {
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        Path::new(at.to_string(), [parent_at(at)]).into()
    });
    let group = Arc::new(Group::new("parents", Settings::default(), dead.into()));
    let relay = run(with_datagrams(mixed(), Route::Group(group)));
    let client = Client::associate(relay.addresses()[0]);
    let target = Address::Ip("192.0.2.1:9".parse().unwrap());
    client.send(&target, b"one");
    let since = Instant::now();
    while asked.load(Ordering::Relaxed) < 3 {
        assert!(since.elapsed() < PATIENCE, "each has its turn");
        thread::yield_now();
    }
    assert!(client.hears_nothing());
    assert_eq!(asked.load(Ordering::Relaxed), 3, "and no other");
}

#[test]
fn no_member_that_carries_streams_alone_is_chosen() {
    let echo = Echo::start("127.0.0.1:0");
    let target = Address::Ip(echo.address);
    let (_server, hop) = server(Method::Aes256Gcm, 1);
    let streams = |hop: &Hop| match hop {
        Hop::Shadowsocks(server) => Hop::Shadowsocks(Server { mode: Mode::Streams, ..server.clone() }),
        Hop::Parent(_) => hop.clone(),
    };
    let unfit = [[streams(&hop), hop.clone()], [hop.clone(), streams(&hop)], [streams(&hop), streams(&hop)]];
    let members = unfit.into_iter().chain([[hop.clone(), hop]]).map(Vec::from);
    let relay = run(with_datagrams(mixed(), any_of(members)));
    for _ in 0..8 {
        let client = Client::associate(relay.addresses()[0]);
        assert_eq!(client.trip(&target, b"fit").1, mirrored(b"fit"));
    }
}
