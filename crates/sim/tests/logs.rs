//! What sessions of every kind write to the log, and what they never do.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::Level;
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::key::encode_password;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::shadowsocks::{Method, Salt};
use umbra_relay::config::{
    Group, Hop, Inbound, Mode, Parent, Path, Protocol, ProxyDoor, ProxyHeader, Route, Server,
    ShadowsocksDoor, Tcp,
};
use umbra_relay::group::{Health, Settings};
use umbra_relay::net::Net;
use umbra_sim::SimNet;
use umbra_sim::house::House;
use umbra_sim::link::{Fault, FaultKind, Link};
use umbra_sim::log::{Line, events_of};
use umbra_sim::net::{Absence, DIALLER, Name};
use umbra_sim::peer::{Peer, shadowsocks_request};
use umbra_sim::seed::one_seed;
use umbra_sim::street::{Plan, Street, TARGET, door, key, key_of};

/// Sessions that go well and sessions that fail at every stage.
async fn mixed_sessions(street: &mut Street, method: Method) {
    let net = street.net.clone();
    let name = Name { addresses: vec![TARGET.ip()], delay: Duration::ZERO };
    net.name(NAME, name);
    net.name(
        "silent.example",
        Name { addresses: vec!["203.0.113.1".parse().unwrap()], delay: Duration::ZERO },
    );
    net.absent("203.0.113.1:443".parse().unwrap(), Absence::Silent);
    for (target, good) in [
        (format!("{NAME}:443"), true),
        (TARGET.to_string(), true),
        ("unknown.example:443".into(), false),
        ("silent.example:443".into(), false),
        ("203.0.113.77:443".into(), false),
    ] {
        let client = street.enter().await;
        assert_eq!(client.ask_socks5(&target.parse().unwrap(), PAYLOAD).await.unwrap(), 0);
        if good {
            let far = street.arrive().await;
            far.hear(PAYLOAD.len()).await.unwrap();
            far.say(PAYLOAD).await.unwrap();
            client.hear(PAYLOAD.len()).await.unwrap();
            far.reset();
        }
        client.hear_out().await;
    }
    // Strangers, a replay, a client of another protocol, and one that is silent.
    let stranger = key(method, 99).unwrap();
    let salt = Salt::new(method, [7; 32]);
    for key in [&stranger, &key_of(method, 0), &key_of(method, 0)] {
        let request = shadowsocks_request(key, salt, &Street::target(), net.unix_time(), PAYLOAD);
        let peer = Peer::new(net.dial(door(1)).await.unwrap());
        peer.say(&request).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(street.arrive().await.hear_out().await.bytes, PAYLOAD);
    for words in
        [&b"GET / HTTP/1.0\r\n\r\n"[..], b"\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", b""]
    {
        let client = street.enter().await;
        client.say(words).await.unwrap();
        client.hear_out().await;
    }
}

#[test]
fn above_debug_nobody_is_named_but_who_did_not_know_the_key_and_no_level_has_secrets() {
    for (seed, method) in (0..).zip(Method::COMMON) {
        let lines = events_of(|| {
            one_seed(seed, |net, _| async move {
                let mut plan = Plan::pair(method);
                let mut street = Street::lay(&net, &plan);
                Box::pin(mixed_sessions(&mut street, method)).await;
                street.empties(plan.idle_of_all()).await;
                // And one whose sealed stream is damaged by a network that ends it.
                plan.links[1].uplink.fault = Some(Fault { at_byte: 200, kind: FaultKind::ForgedEnd });
                let street = Street::lay(&net, &plan);
                let client = street.enter().await;
                client.ask_socks5(&Street::target(), &[1; 500]).await.unwrap();
                client.hear_out().await;
            });
        });
        judge(method, &lines);
    }
}

#[test]
fn each_server_that_is_chosen_and_each_that_led_nowhere_is_told_at_debug() {
    let method = Method::Aes256Gcm;
    let dialled = Cell::new(0);
    let dialled = &dialled;
    let lines = events_of(|| {
        one_seed(1, move |net, _| async move {
            let mut target = net.listen(TARGET, Link::plain());
            let house = House::new(&net);
            // The second is not there.
            let servers = [1, 2].map(|number| server(method, number)).into();
            house.open(inbound(0, Protocol::Proxy(ProxyDoor::MIXED), Route::servers(servers)), Link::plain());
            let keys = Arc::new(key_of(method, 0).into());
            let far = ShadowsocksDoor { keys, heads: HeadReads::One, one_time_auth: false };
            house.open(inbound(1, Protocol::Shadowsocks(far), Route::direct()), Link::plain());
            for _ in 0..20 {
                let client = Peer::new(net.dial(door(0)).await.unwrap());
                assert_eq!(client.ask_socks5(&Street::target(), PAYLOAD).await.unwrap(), 0);
                let (far, _) = target.accept().await.unwrap();
                Peer::new(far).hear(PAYLOAD.len()).await.unwrap();
            }
            assert!(net.dials_to(door(2)) > 0, "the one that is not there was tried");
            assert_eq!(net.dials_to(door(1)), 20);
            dialled.set(net.dials_to(door(2)));
        });
    });
    let count = |words: &str, path: &str| {
        let is_told = |text: &str| text.contains(words) && text.contains(&format!(" path={path}"));
        lines.iter().filter(|line| line.level == Level::DEBUG && is_told(&line.text)).count()
    };
    assert_eq!(count("chosen path", "servers[0]"), 20, "{lines:#?}");
    assert_eq!(count("chosen path", "servers[1]"), dialled.get());
    assert_eq!(
        (count("path led nowhere", "servers[0]"), count("path led nowhere", "servers[1]")),
        (0, dialled.get())
    );
}

/// A group of a SOCKS5 proxy at the first door, which says these codes in turn, and of a direct way.
fn group_of_denier(net: &SimNet, fail_threshold: u32, codes: &'static [u8]) -> Route {
    let mut listener = net.listen(door(1), Link::plain());
    drop(tokio::spawn(async move {
        let mut codes = codes.iter().cycle();
        while let Some((socket, _)) = listener.accept().await {
            let (peer, code) = (Peer::new(socket), *codes.next().unwrap());
            peer.hear(3).await.unwrap();
            peer.say(&[5, 0]).await.unwrap();
            peer.hear(10).await.unwrap();
            peer.say(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            drop(tokio::spawn(async move { peer.hear_out().await }));
        }
    }));
    let denier = Path::new("denier", [Hop::Parent(Parent::socks5(door(1).into(), None))]);
    let health = Health { fail_threshold: NonZeroU32::new(fail_threshold).unwrap(), ..Health::default() };
    let settings = Settings { health, ..Settings::default() };
    Route::Group(Arc::new(Group::new("g", settings, vec![denier.into(), Path::direct().into()])))
}

/// Logs of this many sessions, one after the other.
fn lines_of_sessions(sessions: usize, fail_threshold: u32, codes: &'static [u8]) -> Vec<Line> {
    events_of(|| {
        one_seed(1, move |net, _| async move {
            let mut target = net.listen(TARGET, Link::plain());
            drop(tokio::spawn(async move {
                while let Some((socket, _)) = target.accept().await {
                    drop(tokio::spawn(async move { Peer::new(socket).hear_out().await }));
                }
            }));
            let house = House::new(&net);
            let route = group_of_denier(&net, fail_threshold, codes);
            house.open(inbound(0, Protocol::Proxy(ProxyDoor::MIXED), route), Link::plain());
            for _ in 0..sessions {
                let client = Peer::new(net.dial(door(0)).await.unwrap());
                assert_eq!(client.ask_socks5(&Street::target(), b"").await.unwrap(), 0);
            }
        });
    })
}

#[test]
fn a_member_that_is_blamed_is_told_with_what_it_has_said() {
    for codes in [&[1], &[5]] {
        let lines = lines_of_sessions(2, 2, codes);
        let told: Vec<_> = lines.iter().filter(|line| line.text.contains("path marked down")).collect();
        let [Line { level: Level::INFO, text }] = told[..] else { panic!("{told:?}") };
        assert!(
            text.contains("path=\"denier\"") && text.contains("why=hop 1 of denier: negotiate"),
            "{text}"
        );
    }
}

#[test]
fn what_becomes_of_members_is_told_at_a_rate() {
    let lines = lines_of_sessions(300, 9, &[9, 0]);
    let told: Vec<_> = lines.iter().filter(|line| line.text.contains("marked as failing")).collect();
    assert!((20..100).contains(&told.len()), "{} of 150", told.len());
}

fn server(method: Method, number: usize) -> Server {
    let address = Address::Ip(door(number));
    let credentials = key_of(method, 0).into();
    Server { address, mode: Mode::Streams, credentials, heads: HeadReads::One, one_time_auth: false }
}

fn inbound(number: usize, protocol: Protocol, route: Route) -> Inbound {
    Inbound {
        name: "door".into(),
        listen: door(number),
        protocol,
        routes: route.into(),
        mode: Mode::Streams,
        forbidden: Arc::default(),
        idle: Duration::from_secs(3600),
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    }
}

fn judge(method: Method, lines: &[Line]) {
    let has = |part: &str| lines.iter().any(|line| line.text.contains(part));
    assert!(
        has("connecting") && has("session failed") && has("session ended"),
        "what is logged is caught: {lines:?}"
    );
    let ban = "can not parse header when handling connection from ";
    let bans = lines.iter().filter(|line| line.level == Level::ERROR && line.text.contains(ban)).count();
    assert_eq!(bans, 2, "the wrong key and the replay, at ERROR");
    let places = ["example", "203.0.113.", "198.51.100.", ":443"];
    for Line { level, text: line } in lines.iter().filter(|line| line.level <= Level::INFO) {
        if let Some(source) = line.trim_end().strip_prefix(&format!(" message={ban}")) {
            let (ip, port) = source.rsplit_once(':').unwrap();
            assert_eq!((*level, ip), (Level::ERROR, DIALLER.to_string().as_str()), "the address comes last");
            assert!(port.parse::<u16>().is_ok(), "{line}");
            continue;
        }
        assert_ne!(*level, Level::ERROR, "{line}");
        assert!(!places.iter().any(|place| line.contains(place)), "{level}: {line}");
    }
    let secret = vec![0; method.key_len()];
    let secrets = [
        encode_password(&secret).to_string(),
        format!("{secret:?}"),
        "payload".into(),
        format!("{PAYLOAD:?}"),
        format!("{:?}", &PAYLOAD[..4]).trim_matches(['[', ']']).into(),
    ];
    for Line { level, text: line } in lines {
        assert!(!secrets.iter().any(|secret| line.contains(secret.as_str())), "{level}: {line}");
    }
}

const NAME: &str = "target.example";
const PAYLOAD: &[u8] = b"payload that is nobody's business";
