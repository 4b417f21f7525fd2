//! What strangers get from a Shadowsocks door: nothing, for the same time, whatever they say.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::key::{Key, encode_password};
use umbra_proto::shadowsocks::keyring::{Keyring, User};
use umbra_proto::shadowsocks::stream::{HeadReads, Sealer};
use umbra_proto::shadowsocks::{Generation, Method, Salt, UnixTime};
use umbra_relay::config::{Inbound, Mode, Protocol, ProxyHeader, Route, ShadowsocksDoor, Tcp};
use umbra_relay::limits::{HANDSHAKE_SECS_MAX, SILENCE_SECS_MAX};
use umbra_relay::net::Net;
use umbra_sim::house::House;
use umbra_sim::link::Link;
use umbra_sim::peer::{Ending, Heard, Peer, seal_onto, shadowsocks_request};
use umbra_sim::seed::one_seed;
use umbra_sim::street::{Plan, Street, door, key, key_of};
use umbra_sim::{Chance, SimNet};

/// What a stranger says: pieces with a moment between them, and perhaps an end behind them.
#[derive(Clone)]
struct Probe {
    name: String,
    pieces: Vec<Vec<u8>>,
    ends: bool,
}

/// What a stranger heard, and when it was over.
#[derive(Debug)]
struct Answer {
    heard: Heard,
    after: Duration,
}

impl Probe {
    fn whole(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), pieces: vec![bytes], ends: false }
    }

    async fn ask(&self, net: &SimNet) -> Answer {
        let began = Instant::now();
        let peer = Peer::new(net.dial(door(1)).await.unwrap());
        let speak = async {
            for piece in &self.pieces {
                // A door that has heard enough closes its window, and then itself.
                let _ = peer.say(piece).await;
                sleep(Duration::from_millis(20)).await;
            }
            if self.ends {
                peer.end().unwrap();
            }
        };
        let listen = async { Answer { heard: peer.hear_out().await, after: began.elapsed() } };
        tokio::join!(listen, speak).0
    }
}

/// Asks with all probes at once, and holds the door to its silence.
async fn all_are_met_with_silence(net: &SimNet, probes: Vec<Probe>) {
    let mut asking = JoinSet::new();
    for probe in probes {
        let net = net.clone();
        asking.spawn(async move { (probe.ask(&net).await, probe.name) });
    }
    while let Some(asked) = asking.join_next().await {
        let (answer, name) = asked.unwrap();
        let nothing = Heard { bytes: Vec::new(), ending: Ending::Reset };
        assert_eq!(answer.heard, nothing, "{name}");
        assert_is_at(answer.after, HANDSHAKE_SECS_MAX, &name);
    }
}

/// The clock moves by whole milliseconds, and each socket may round once.
fn assert_is_at(after: Duration, moment: Duration, name: &str) {
    assert!((moment..=moment + Duration::from_millis(2)).contains(&after), "{name}: after {after:?}");
}

fn salt(method: Method, chance: &mut Chance) -> Salt {
    let mut random = [0; 32];
    chance.fill(&mut random);
    Salt::new(method, random)
}

/// A good request of `key` with a fresh salt, its clock `skew` seconds ahead.
fn request(net: &SimNet, key: &Key, chance: &mut Chance, skew: i64) -> Vec<u8> {
    let now = UnixTime(net.unix_time().0.checked_add_signed(skew).unwrap());
    shadowsocks_request(key, salt(key.method(), chance), &Street::target(), now, b"GET / HTTP/1.0\r\n\r\n")
}

/// Sends a good request and waits until its payload has come to the target.
async fn is_served(street: &mut Street, request: &[u8]) -> (Peer, Peer) {
    let client = Peer::new(street.net.dial(door(1)).await.unwrap());
    client.say(request).await.unwrap();
    let target = timeout(Duration::from_secs(1), street.arrive()).await.unwrap();
    assert_eq!(target.hear(18).await.unwrap(), b"GET / HTTP/1.0\r\n\r\n");
    (client, target)
}

fn with_every_method<F: Future<Output = ()>>(scenario: impl Fn(Street, Key, Chance) -> F) {
    for (seed, method) in (0..).zip(Method::COMMON) {
        one_seed(seed, |net, chance| {
            scenario(Street::lay(&net, &Plan::pair(method)), key_of(method, 0), chance)
        });
    }
}

#[test]
fn random_bytes_of_any_length_get_nothing_for_the_same_time() {
    with_every_method(|street, _, mut chance| async move {
        let lengths = (0..=400).chain([1_000, 17_000, 66_000, 70_000, 200_000]);
        let probes = lengths.map(|len| Probe::whole(format!("{len} bytes"), chance.bytes(len))).collect();
        all_are_met_with_silence(&street.net, probes).await;
        assert_eq!(street.target_dials(), 0);
        street.empties(Duration::from_secs(1)).await;
    });
}

#[test]
fn a_bit_flipped_anywhere_in_a_request_gets_nothing_for_the_same_time() {
    with_every_method(|street, key, mut chance| async move {
        let len = request(&street.net, &key, &mut chance, 0).len();
        let probes = (0..len).map(|at| {
            let mut bytes = request(&street.net, &key, &mut chance, 0);
            bytes[at] ^= 1 << chance.within(0..=7);
            Probe::whole(format!("flipped at {at}"), bytes)
        });
        all_are_met_with_silence(&street.net, probes.collect()).await;
        assert_eq!(street.target_dials(), 0);
        street.empties(Duration::from_secs(1)).await;
    });
}

#[test]
fn wrong_keys_wrong_clocks_and_split_heads_get_nothing_for_the_same_time() {
    with_every_method(|street, good, mut chance| async move {
        let net = street.net.clone();
        let wrong = key(good.method(), 99).unwrap();
        let mut probes = vec![Probe::whole("a wrong key", request(&net, &wrong, &mut chance, 0))];
        if good.method().generation() == Generation::Aead2022 {
            for skew in [-31, 31, -3600, i64::from(i32::MAX)] {
                probes.push(Probe::whole(format!("{skew} s off"), request(&net, &good, &mut chance, skew)));
            }
            for cut in 1..good.method().salt_len() + 27 {
                let bytes = request(&net, &good, &mut chance, 0);
                let pieces = vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()];
                probes.push(Probe { name: format!("cut at {cut}"), pieces, ends: false });
            }
        }
        all_are_met_with_silence(&net, probes).await;
        assert_eq!(street.target_dials(), 0);
        street.empties(Duration::from_secs(1)).await;
    });
}

/// A street with one more door: a server whose port has a key of its own where the method has identity headers, with two users
/// whom it serves, and where it can be a third whom it passes on to a server behind.
fn street_with_users(net: &SimNet, method: Method) -> Street {
    let user =
        |name: &str, byte, forward| User { name: name.into(), key: key(method, byte).unwrap(), forward };
    let mut users = vec![user("ann", ANN, None), user("bob", BOB, None)];
    let is_identified = method.generation() == Generation::Aead2022;
    if is_identified {
        users.push(user("far", FAR, Some(door(2).into())));
    }
    let port = is_identified.then(|| key(method, PORT).unwrap());
    let keys = Keyring::new(method, port, users).unwrap().into();
    let street = Street::lay(net, &Plan::direct());
    let inbound = Inbound {
        name: "door".into(),
        listen: door(1),
        protocol: Protocol::Shadowsocks(ShadowsocksDoor { keys, heads: ONE, one_time_auth: false }),
        routes: Route::direct().into(),
        mode: Mode::Streams,
        forbidden: Arc::default(),
        idle: Duration::from_secs(300),
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    };
    street.house.open(inbound, Link::plain().with_whole_start());
    street
}

/// A request with these identity keys and then this key of its own, all of one byte each.
fn request_of(net: &SimNet, method: Method, keys: &[u8], chance: &mut Chance) -> Vec<u8> {
    let text = |byte: &u8| encode_password(&vec![*byte; method.key_len()]).to_string();
    let credentials = match keys {
        [byte] => key(method, *byte).unwrap().into(),
        keys => {
            let password = keys.iter().map(text).collect::<Vec<_>>().join(":");
            Credentials::from_password(method, &password).unwrap()
        }
    };
    let mut sealer = credentials.request(salt(method, chance), &Street::target());
    let mut bytes = Vec::new();
    seal_onto(&mut sealer, b"GET / HTTP/1.0\r\n\r\n", net.unix_time(), &mut bytes);
    bytes
}

#[test]
fn whoever_names_nobody_or_lies_about_a_name_gets_nothing_for_the_same_time() {
    for method in [Method::Blake3Aes128Gcm, Method::Blake3Aes256Gcm] {
        one_seed(1, |net, mut chance| async move {
            let mut street = street_with_users(&net, method);
            let head_len = method.salt_len() + 16 + 27;
            let mut probes = Vec::new();
            for (name, keys) in [
                ("an unknown user", &[PORT, 99][..]),
                ("another port's user", &[98, ANN]),
                ("the port's key alone", &[PORT]),
                ("a user's key alone", &[ANN]),
                ("a header too many", &[PORT, ANN, BOB]),
            ] {
                probes.push(Probe::whole(name, request_of(&net, method, keys, &mut chance)));
            }
            let ann = request_of(&net, method, &[PORT, ANN], &mut chance);
            let liar = request_of(&net, method, &[PORT, BOB], &mut chance);
            let (named, sealed) = (&ann[..method.salt_len() + 16], &liar[method.salt_len() + 16..]);
            probes.push(Probe::whole("another's key behind a name", [named, sealed].concat()));
            for at in 0..head_len {
                let mut bytes = request_of(&net, method, &[PORT, ANN], &mut chance);
                bytes[at] ^= 1 << chance.within(0..=7);
                probes.push(Probe::whole(format!("flipped at {at}"), bytes));
            }
            for (name, cut) in (1..head_len).map(|cut| (format!("cut at {cut}"), cut)) {
                // Whether they name one whom we serve or one whom we pass on.
                for user in [ANN, FAR] {
                    let bytes = request_of(&net, method, &[PORT, user], &mut chance);
                    let pieces = vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()];
                    probes.push(Probe { name: name.clone(), pieces, ends: false });
                }
            }
            all_are_met_with_silence(&net, probes).await;
            assert_eq!((street.target_dials(), net.dials_to(door(2))), (0, 0));

            let good = request_of(&net, method, &[PORT, BOB], &mut chance);
            let (client, target) = is_served(&mut street, &good).await;
            all_are_met_with_silence(&net, vec![Probe::whole("a replay", good)]).await;
            assert_eq!(street.target_dials(), 1);
            drop((client, target));
            street.empties(Duration::from_secs(1)).await;
        });
    }
}

#[test]
fn whoever_holds_none_of_many_keys_gets_nothing_for_the_same_time() {
    for method in [Method::Aes128Gcm, Method::Aes256Gcm, Method::Chacha20IetfPoly1305] {
        one_seed(1, |net, mut chance| async move {
            let mut street = street_with_users(&net, method);
            let lengths = (0..=120).chain([1_000, 70_000]);
            let mut probes: Vec<_> =
                lengths.map(|len| Probe::whole(format!("{len} bytes"), chance.bytes(len))).collect();
            probes.push(Probe::whole("a stranger", request_of(&net, method, &[99], &mut chance)));
            all_are_met_with_silence(&net, probes).await;
            assert_eq!(street.target_dials(), 0);
            let mut sessions = Vec::new();
            for user in [BOB, ANN, BOB] {
                let good = request_of(&net, method, &[user], &mut chance);
                sessions.push(is_served(&mut street, &good).await);
                all_are_met_with_silence(&net, vec![Probe::whole("a replay", good)]).await;
            }
            assert_eq!(street.target_dials(), 3);
            drop(sessions);
            street.empties(Duration::from_secs(1)).await;
        });
    }
}

#[test]
fn heads_that_may_arrive_in_pieces_are_understood_in_pieces() {
    for (method, heads) in Method::COMMON.into_iter().flat_map(|method| [(method, ONE), (method, MANY)]) {
        one_seed(1, |net, mut chance| async move {
            let mut street = Street::lay(&net, &Plan { heads, ..Plan::pair(method) });
            let first = match (method.generation(), heads) {
                (Generation::Stream | Generation::Aead, _) | (Generation::Aead2022, MANY) => 1,
                (Generation::Aead2022, ONE) => method.salt_len() + 27,
            };
            let bytes = request(&net, &key_of(method, 0), &mut chance, 0);
            let client = Peer::new(net.dial(door(1)).await.unwrap());
            client.say(&bytes[..first]).await.unwrap();
            for byte in &bytes[first..] {
                sleep(Duration::from_millis(1)).await;
                client.say(&[*byte]).await.unwrap();
            }
            let target = timeout(Duration::from_secs(1), street.arrive()).await.unwrap();
            assert_eq!(target.hear(18).await.unwrap(), b"GET / HTTP/1.0\r\n\r\n");
        });
    }
}

#[test]
fn a_door_that_admits_heads_in_pieces_is_as_silent() {
    for method in Method::COMMON {
        one_seed(1, |net, mut chance| async move {
            let street = Street::lay(&net, &Plan { heads: MANY, ..Plan::pair(method) });
            let lengths = (0..=120).chain([1_000, 70_000]);
            let mut probes: Vec<_> =
                lengths.map(|len| Probe::whole(format!("{len} bytes"), chance.bytes(len))).collect();
            let wrong = request(&net, &key(method, 99).unwrap(), &mut chance, 0);
            for cut in 1..wrong.len() {
                let pieces = vec![wrong[..cut].to_vec(), wrong[cut..].to_vec()];
                probes.push(Probe { name: format!("a wrong key, cut at {cut}"), pieces, ends: false });
            }
            all_are_met_with_silence(&net, probes).await;
            assert_eq!(street.target_dials(), 0);
            street.empties(Duration::from_secs(1)).await;
        });
    }
}

#[test]
fn a_peer_that_ends_first_gets_an_end_at_once_wherever_it_was() {
    with_every_method(|street, key, mut chance| async move {
        let good = request(&street.net, &key, &mut chance, 0);
        for len in 0..good.len() {
            let bad = chance.bytes(len);
            for bytes in [good[..len].to_vec(), bad] {
                let probe = Probe { name: String::new(), pieces: vec![bytes], ends: true };
                let answer = probe.ask(&street.net).await;
                let nothing = Heard { bytes: Vec::new(), ending: Ending::End };
                assert_eq!(answer.heard, nothing, "{len} bytes and an end");
                assert!(answer.after < Duration::from_millis(30), "{len} bytes: {:?}", answer.after);
            }
        }
        // Parts of a good request are known by their salt once its first sealed bytes were whole; none of them dialled.
        assert_eq!(street.target_dials(), 0);
        street.empties(Duration::from_secs(1)).await;
    });
}

#[test]
fn a_stranger_cannot_have_a_salt_remembered() {
    with_every_method(|mut street, key, mut chance| async move {
        let good = request(&street.net, &key, &mut chance, 0);
        let mut copies = Vec::new();
        for at in key.method().salt_len()..key.method().salt_len() + 18 {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            copies.push(Probe::whole(format!("a copy touched at {at}"), bytes));
        }
        let strangers = tokio::spawn({
            let net = street.net.clone();
            async move { all_are_met_with_silence(&net, copies).await }
        });
        sleep(Duration::from_secs(1)).await;
        let ends = is_served(&mut street, &good).await;
        strangers.await.unwrap();
        drop(ends);
        street.empties(Duration::from_secs(1)).await;
    });
}

#[test]
fn what_was_once_good_is_not_good_again_as_long_as_its_clock_would_be() {
    with_every_method(|mut street, key, mut chance| async move {
        // The fastest clock that is let in stays good for a minute.
        let good = request(&street.net, &key, &mut chance, 30);
        let ends = is_served(&mut street, &good).await;
        let mut asking = JoinSet::new();
        for secs in [0, 1, 29, 30, 31, 59, 60, 61, 62, 90, 119, 120, 121, 122, 200] {
            let (net, replay) = (street.net.clone(), Probe::whole(format!("{secs} s later"), good.clone()));
            asking.spawn(async move {
                sleep(Duration::from_secs(secs)).await;
                all_are_met_with_silence(&net, vec![replay]).await;
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
        assert_eq!(street.target_dials(), 1);
        drop(ends);
        street.empties(Duration::from_secs(1)).await;
    });
}

#[test]
fn either_direction_of_a_captured_session_sent_again_gets_nothing() {
    with_every_method(|mut street, _, _| async move {
        street.net.record();
        let client = street.enter().await;
        assert_eq!(client.ask_socks5(&Street::target(), b"question").await.unwrap(), 0);
        let target = street.arrive().await;
        assert_eq!(target.hear(8).await.unwrap(), b"question");
        // Under SIP004 an answer that starts like an address would be a request for it.
        let mut answer = Vec::new();
        Street::target().encode(&mut answer);
        answer.extend_from_slice(b"answer");
        target.say(&answer).await.unwrap();
        assert_eq!(client.hear(answer.len()).await.unwrap(), answer);
        let captured = street.net.records().remove(1);
        let probes = vec![
            Probe::whole("the request again", captured.uplink.concat()),
            Probe::whole("the answer as a request", captured.downlink.concat()),
        ];
        all_are_met_with_silence(&street.net, probes).await;
        assert_eq!(street.target_dials(), 1);
        drop((client, target));
        street.empties(Duration::from_secs(1)).await;
    });
}

#[test]
fn a_good_client_is_served_beside_a_flood_of_strangers() {
    with_every_method(|mut street, key, mut chance| async move {
        let mut strangers = JoinSet::new();
        for number in 0..500 {
            let (net, bytes) = (street.net.clone(), chance.bytes(50 + number % 300));
            strangers.spawn(async move { Probe::whole("flood", bytes).ask(&net).await });
        }
        sleep(Duration::from_millis(100)).await;
        let good = request(&street.net, &key, &mut chance, 0);
        let (client, target) = is_served(&mut street, &good).await;
        target.say(b"answer").await.unwrap();
        assert!(!client.hear_some(1000).await.unwrap().is_empty());
        assert_eq!(street.house.sessions(), 501);
        drop((client, target));
        assert_eq!(strangers.join_all().await.len(), 500);
        street.empties(Duration::from_secs(1)).await;
    });
}

/// Pairs of beginnings that a server must not tell apart: what is found to be wrong at its last byte, and what is not finished.
fn twins(net: &SimNet, method: Method, chance: &mut Chance) -> [Vec<u8>; 2] {
    let mut around = |judged_at| [chance.bytes(judged_at - 1), chance.bytes(judged_at)];
    match method.generation() {
        Generation::Aead => around(method.salt_len() + 18),
        Generation::Aead2022 => around(method.salt_len() + 27),
        Generation::Stream => [[3], [2]].map(|kind| answer_of(net, &key_of(method, 0), chance, &kind)),
    }
}

const TWINS: [Method; 4] = [Method::Aes256Gcm, Method::Blake3Aes256Gcm, Method::Aes256Cfb, Method::Rc4Md5];

/// A Shadowsocks door with so many places.
fn door_of(net: &SimNet, method: Method, places: usize) -> House {
    let house = House::new(net);
    let keys = Arc::new(key_of(method, 0).into());
    let protocol = Protocol::Shadowsocks(ShadowsocksDoor { keys, heads: MANY, one_time_auth: false });
    house.open_for(places, shadowsocks_inbound(protocol), Link::plain());
    house
}

fn shadowsocks_inbound(protocol: Protocol) -> Inbound {
    Inbound {
        name: "door".into(),
        listen: door(1),
        protocol,
        routes: Route::direct().into(),
        mode: Mode::Streams,
        forbidden: Arc::default(),
        idle: Duration::from_secs(300),
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    }
}

#[test]
fn bad_heads_that_have_all_places_but_one_shorten_nobody_s_wait() {
    for method in TWINS {
        one_seed(1, |net, mut chance| async move {
            let house = door_of(&net, method, 40);
            let mut probes = Vec::new();
            for number in 0..19 {
                let [unfinished, bad] = twins(&net, method, &mut chance);
                probes.push(Probe::whole(format!("{number}, unfinished"), unfinished));
                probes.push(Probe::whole(format!("{number}, bad"), bad));
            }
            // All of the rest are bad, as they are where somebody fills the door before asking.
            probes.extend((0..2).map(|number| Probe::whole(format!("filler {number}"), chance.bytes(500))));
            all_are_met_with_silence(&net, probes).await;
            house.empties(Duration::from_secs(1)).await;
        });
    }
}

#[test]
fn at_a_full_door_a_bad_head_goes_when_an_unfinished_one_of_its_age_would() {
    const PLACES: usize = 8;
    for method in TWINS {
        let goings = RefCell::new(Vec::new());
        // Whether the peers by turns are: all unfinished, all bad, and both ways mixed.
        for kinds in [[0, 0], [1, 1], [0, 1], [1, 0]] {
            let goings = &goings;
            one_seed(1, |net, mut chance| async move {
                let house = door_of(&net, method, PLACES);
                let mut asking = JoinSet::new();
                for number in 0..2 * PLACES {
                    let bytes = twins(&net, method, &mut chance)[kinds[number % 2]].clone();
                    let net = net.clone();
                    asking.spawn(async move { (number, Probe::whole("", bytes).ask(&net).await) });
                    sleep(Duration::from_millis(10)).await;
                }
                let mut answers = asking.join_all().await;
                answers.sort_by_key(|(number, _)| *number);
                let nothing = Heard { bytes: Vec::new(), ending: Ending::Reset };
                assert!(answers.iter().all(|(_, answer)| answer.heard == nothing), "{answers:?}");
                let after = answers.into_iter().map(|(_, answer)| answer.after);
                goings.borrow_mut().push(after.collect::<Vec<_>>());
                house.empties(Duration::from_secs(1)).await;
            });
        }
        let goings = goings.into_inner();
        let (all_unfinished, others) = goings.split_first().unwrap();
        let early = SILENCE_SECS_MAX - Duration::from_millis(1);
        assert!(all_unfinished.iter().all(|&after| after >= early), "{goings:?}");
        assert!(all_unfinished[..PLACES].iter().all(|&after| after < HANDSHAKE_SECS_MAX / 2), "{goings:?}");
        for goings in others {
            for (number, (one, other)) in all_unfinished.iter().zip(goings).enumerate() {
                assert!(one.abs_diff(*other) <= Duration::from_millis(2), "{number}: {one:?}, {other:?}");
            }
        }
    }
}

/// What a server says: it has no address in it, and with SIP022 another type.
fn answer_of(net: &SimNet, key: &Key, chance: &mut Chance, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let [own, of_request] = [(); 2].map(|()| salt(key.method(), chance));
    seal_onto(&mut Sealer::response(key, own, of_request), payload, net.unix_time(), &mut bytes);
    bytes
}

#[test]
fn what_knows_the_key_and_is_no_request_gets_nothing_for_the_same_time() {
    let streams = [Method::Aes256Cfb, Method::Aes128Ctr, Method::Rc4Md5, Method::Chacha20Ietf, Method::Table];
    for method in Method::COMMON.into_iter().chain(streams) {
        one_seed(2, |net, mut chance| async move {
            let street = Street::lay(&net, &Plan::pair(method));
            let key = key_of(method, 0);
            let mut probes = Vec::new();
            // Address types that there are not, an empty name, and names that are none; one-time authentication is not spoken here.
            for payload in
                [&[0; 40][..], &[2; 40], &[5; 40], &[255; 40], b"\x03\x00\x00\x50", b"\x03\x03a b\x00\x50"]
            {
                let bytes = answer_of(&net, &key, &mut chance, payload);
                probes.push(Probe::whole(format!("{method:?} with {payload:?}"), bytes));
            }
            all_are_met_with_silence(&net, probes).await;
            assert_eq!(street.target_dials(), 0);
            street.empties(Duration::from_secs(1)).await;
        });
    }
}

#[test]
fn a_port_of_several_users_is_as_silent_whoever_it_is_that_is_unknown() {
    for method in [Method::Blake3Aes256Gcm, Method::Blake3Aes128Gcm, Method::Chacha20IetfPoly1305] {
        one_seed(3, |net, mut chance| async move {
            let has_port_key = method.generation() == Generation::Aead2022;
            let users = [10, 11].map(|byte| User {
                name: format!("user {byte}").into(),
                key: key(method, byte).unwrap(),
                forward: None,
            });
            let port = has_port_key.then(|| key_of(method, 0));
            let keys = Arc::new(Keyring::new(method, port, users.into()).unwrap());
            let protocol =
                Protocol::Shadowsocks(ShadowsocksDoor { keys, heads: HeadReads::One, one_time_auth: false });
            let house = House::new(&net);
            house.open(shadowsocks_inbound(protocol), Link::plain());
            let mut probes: Vec<_> = (0..200)
                .step_by(7)
                .map(|len| Probe::whole(format!("{len} bytes"), chance.bytes(len)))
                .collect();
            for byte in [10, 99] {
                let user = key(method, byte).unwrap();
                if has_port_key || byte == 99 {
                    // Without an identity header, where there has to be one, or nobody's.
                    let bytes = request(&net, &user, &mut chance, 0);
                    probes.push(Probe::whole(format!("{byte} alone"), bytes));
                }
            }
            if has_port_key {
                let bytes = request(&net, &key_of(method, 0), &mut chance, 0);
                probes.push(Probe::whole("the port's own key alone", bytes));
                for (port, user) in [(0, 99), (98, 10), (98, 99)] {
                    let secrets =
                        [port, user].map(|byte| encode_password(&vec![byte; method.key_len()]).to_string());
                    let password = secrets.join(":");
                    let unknown = Credentials::from_password(method, &password).unwrap();
                    let mut bytes = Vec::new();
                    let mut sealer = unknown.request(salt(method, &mut chance), &Street::target());
                    seal_onto(&mut sealer, b"GET /", net.unix_time(), &mut bytes);
                    probes.push(Probe::whole(format!("user {user} of port {port}"), bytes));
                }
            }
            all_are_met_with_silence(&net, probes).await;
            house.empties(Duration::from_secs(1)).await;
        });
    }
}

/// The bytes that keys are made of, in a street with users.
const PORT: u8 = 100;
const ANN: u8 = 1;
const BOB: u8 = 2;
const FAR: u8 = 3;

const ONE: HeadReads = HeadReads::One;
const MANY: HeadReads = HeadReads::Many;
