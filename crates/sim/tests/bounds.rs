//! Nothing outlives its deadline, nothing grows without bound, and what waits costs nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::{Generation, Method};
use umbra_relay::limits::{
    BATCH_MARGIN_BYTES, BIND_SECS_MAX, CONNECT_SECS_MAX, DIAL_SECS_MAX, HANDSHAKE_SECS_MAX,
    LARGE_BATCH_BYTES, REFUSAL_SECS_MAX, RESOLVE_SECS_MAX,
};
use umbra_sim::SimNet;
use umbra_sim::link::{Fault, FaultKind, Link};
use umbra_sim::net::{Absence, Name};
use umbra_sim::peer::{Ending, Heard, Peer};
use umbra_sim::seed::one_seed;
use umbra_sim::street::{Plan, Street, TARGET, door};

fn assert_is_at(after: Duration, moment: Duration) {
    assert!((moment..=moment + Duration::from_millis(3)).contains(&after), "after {after:?}, not {moment:?}");
}

/// A session through a client and a server of ours, with its two outer ends.
async fn open(street: &mut Street) -> (Peer, Peer) {
    let client = street.enter().await;
    assert_eq!(client.ask_socks5(&Street::target(), b"").await.unwrap(), 0);
    (client, street.arrive().await)
}

#[test]
fn a_socks5_client_that_does_not_finish_its_request_is_let_go_at_the_deadline() {
    for trickles in [false, true] {
        one_seed(1, |net, _| async move {
            let street = Street::lay(&net, &Plan::direct());
            let began = Instant::now();
            let client = street.enter().await;
            let trickle = async {
                // A greeting that goes on for ever, well within any patience between two bytes.
                let mut byte = 5;
                while trickles && client.say(&[byte]).await.is_ok() {
                    byte = 255;
                    sleep(Duration::from_secs(1)).await;
                }
            };
            let listen = async {
                let heard = client.hear_out().await;
                assert!(heard.bytes.is_empty());
                assert_is_at(began.elapsed(), HANDSHAKE_SECS_MAX);
            };
            tokio::join!(listen, timeout(HANDSHAKE_SECS_MAX * 2, trickle)).1.ok();
            street.house.empties(REFUSAL_SECS_MAX).await;
            drop(client);
            street.empties(Duration::ZERO).await;
        });
    }
}

/// What a client is told of a target, and when.
async fn told(net: &SimNet, target: &Address) -> (u8, Duration) {
    let street = Street::lay(net, &Plan::direct());
    let began = Instant::now();
    let client = street.enter().await;
    let code = client.ask_socks5(target, b"early").await.unwrap();
    let after = began.elapsed();
    assert_eq!(client.hear_out().await.bytes, b"");
    drop(client);
    street.empties(REFUSAL_SECS_MAX).await;
    (code, after)
}

#[test]
fn a_target_that_cannot_be_reached_is_told_truly_and_in_time() {
    one_seed(1, |net, _| async move {
        let far = |last| SocketAddr::new(Ipv4Addr::new(203, 0, 113, last).into(), 80);
        net.absent(far(1), Absence::Silent);
        net.absent(far(2), Absence::Unreachable);
        let silent: Vec<IpAddr> = (100..116).map(|last| far(last).ip()).collect();
        for ip in &silent {
            net.absent(SocketAddr::new(*ip, 80), Absence::Silent);
        }
        net.name("silent.example", Name { addresses: silent, delay: Duration::ZERO });
        net.name("slow.example", Name { addresses: vec![far(3).ip()], delay: Duration::from_secs(3600) });
        net.name("empty.example", Name { addresses: Vec::new(), delay: Duration::from_secs(1) });
        let cases = [
            ("203.0.113.1:80", 4, CONNECT_SECS_MAX),
            ("203.0.113.2:80", 3, Duration::ZERO),
            ("203.0.113.3:80", 5, Duration::ZERO),
            ("silent.example:80", 4, CONNECT_SECS_MAX + Duration::from_millis(250) * 15),
            ("slow.example:80", 4, RESOLVE_SECS_MAX),
            ("empty.example:80", 4, Duration::from_secs(1)),
            ("unknown.example:80", 4, Duration::ZERO),
        ];
        for (target, code, moment) in cases {
            let told = told(&net, &target.parse().unwrap()).await;
            assert_eq!(told.0, code, "{target}");
            assert_is_at(told.1, moment);
            assert!(told.1 <= DIAL_SECS_MAX);
        }
    });
}

#[test]
fn behind_a_server_an_unreachable_target_is_a_reset_and_not_an_empty_answer() {
    for method in Method::COMMON {
        one_seed(1, |net, _| async move {
            net.absent("203.0.113.1:80".parse().unwrap(), Absence::Silent);
            let street = Street::lay(&net, &Plan::pair(method));
            let cases = [
                ("203.0.113.1:80", CONNECT_SECS_MAX),
                ("203.0.113.3:80", Duration::ZERO),
                ("unknown.example:80", Duration::ZERO),
            ];
            for (target, moment) in cases {
                let (client, began) = (street.enter().await, Instant::now());
                assert_eq!(client.ask_socks5(&target.parse().unwrap(), b"early").await.unwrap(), 0);
                assert_eq!(client.hear_out().await, Heard { bytes: Vec::new(), ending: Ending::Reset });
                assert_is_at(began.elapsed(), moment);
                drop(client);
                street.empties(Duration::from_secs(1)).await;
            }
        });
    }
}

#[test]
fn an_unreachable_server_is_told_as_well() {
    one_seed(1, |net, _| async move {
        let street = Street::lay(&net, &Plan::pair(Method::Aes256Gcm));
        net.absent(door(1), Absence::Silent);
        let began = Instant::now();
        let client = street.enter().await;
        assert_eq!(client.ask_socks5(&Street::target(), b"").await.unwrap(), 4);
        assert_is_at(began.elapsed(), CONNECT_SECS_MAX);
        drop(client);
        street.empties(REFUSAL_SECS_MAX).await;
    });
}

#[test]
fn a_session_that_carries_nothing_ends_at_its_idle_time_and_not_before() {
    for method in [Method::Aes128Gcm, Method::Blake3Aes128Gcm] {
        one_seed(1, |net, _| async move {
            let plan = Plan::pair(method);
            let mut street = Street::lay(&net, &plan);
            let (client, target) = open(&mut street).await;
            // A word now and then, in either direction, keeps both.
            for turn in 0..6 {
                sleep(plan.idle - Duration::from_secs(1)).await;
                let (from, to) = if turn % 2 == 0 { (&client, &target) } else { (&target, &client) };
                from.say(b"word").await.unwrap();
                assert_eq!(to.hear(4).await.unwrap(), b"word");
            }
            let began = Instant::now();
            let listen = async |peer: &Peer| (peer.hear_out().await, began.elapsed());
            for (heard, after) in <[_; 2]>::from(tokio::join!(listen(&client), listen(&target))) {
                assert_eq!(heard, Heard { bytes: Vec::new(), ending: Ending::Reset });
                assert_is_at(after, plan.idle);
            }
            drop((client, target));
            street.empties(Duration::from_secs(1)).await;
        });
    }
}

#[test]
fn an_idle_session_does_nothing_at_all() {
    one_seed(1, |net, _| async move {
        let mut plan = Plan::pair(Method::Blake3Aes256Gcm);
        plan.idle = Duration::from_secs(24 * 3600);
        let mut street = Street::lay(&net, &plan);
        let (client, target) = open(&mut street).await;
        client.say(b"word").await.unwrap();
        target.hear(4).await.unwrap();
        target.say(b"word").await.unwrap();
        client.hear(4).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let before = net.operations();
        sleep(Duration::from_secs(23 * 3600)).await;
        assert_eq!(net.operations(), before);
    });
}

#[test]
fn a_blocked_reader_holds_a_bounded_amount_and_not_the_other_direction() {
    for method in [Method::Chacha20IetfPoly1305, Method::Blake3Aes256Gcm] {
        for blocks_client in [true, false] {
            one_seed(1, |net, mut chance| async move {
                let mut street = Street::lay(&net, &Plan::pair(method));
                let (client, target) = open(&mut street).await;
                let (source, blocked) = if blocks_client { (&target, &client) } else { (&client, &target) };
                let said = Cell::new(0);
                let (bulk, words) = (chance.bytes(10_000_000), chance.bytes(1_000_000));
                let pour = async {
                    for piece in bulk.chunks(10_000) {
                        source.say(piece).await.unwrap();
                        said.set(said.get() + piece.len());
                    }
                    source.end().unwrap();
                };
                let meet = async {
                    sleep(Duration::from_secs(10)).await;
                    let stuck = said.get();
                    // Three sockets' buffers and a batch at each door, with what sealing adds.
                    let bound = 3 * 64 * 1024 + 2 * (LARGE_BATCH_BYTES + BATCH_MARGIN_BYTES) + 10_000;
                    assert!(stuck <= bound, "{stuck} bytes taken for a reader that takes none");
                    let (heard, spoken) = tokio::join!(source.hear(words.len()), blocked.say(&words));
                    spoken.unwrap();
                    assert!(heard.unwrap() == words, "the other direction goes on");
                    assert_eq!(said.get(), stuck);
                    blocked.hear_out().await
                };
                let ((), heard) = tokio::join!(pour, meet);
                assert!(heard == Heard { bytes: bulk, ending: Ending::End });
                drop((client, target));
                street.empties(Duration::from_secs(1)).await;
            });
        }
    }
}

#[test]
fn a_reader_that_stays_blocked_is_let_go_at_the_idle_time() {
    one_seed(1, |net, chance| async move {
        let plan = Plan::pair(Method::Aes256Gcm);
        let mut street = Street::lay(&net, &plan);
        let (client, target) = open(&mut street).await;
        let bulk = chance.clone().bytes(5_000_000);
        assert!(target.say(&bulk).await.is_err(), "reset while it is stuck");
        let (after, slack) = (net.elapsed(), Duration::from_millis(20));
        assert!((plan.idle..=plan.idle + slack).contains(&after), "after {after:?}");
        drop((client, target));
        street.empties(Duration::from_secs(1)).await;
    });
}

/// What comes out at the far end of a sealed connection that ends in order after `at_byte`, although nobody ended it.
async fn cut_sealed_link(net: &SimNet, method: Method, uplink: bool, at_byte: u64) -> Option<Heard> {
    let mut plan = Plan::pair(method);
    let fault = Some(Fault { at_byte, kind: FaultKind::ForgedEnd });
    if uplink {
        plan.links[1].uplink.fault = fault;
    } else {
        plan.links[1].downlink.fault = fault;
    }
    let mut street = Street::lay(net, &plan);
    let client = street.enter().await;
    assert_eq!(client.ask_socks5(&Street::target(), b"first words").await.unwrap(), 0);
    let target = timeout(Duration::from_secs(1), street.arrive()).await.ok();
    let (from, to) = if uplink { (Some(&client), target.as_ref()) } else { (target.as_ref(), Some(&client)) };
    let heard = if let (Some(from), Some(to)) = (from, to) {
        let speak = async {
            if !uplink {
                from.say(b"first words").await.unwrap();
            }
            sleep(Duration::from_secs(1)).await;
            // By then the door may know.
            let _ = from.say(b"later words").await;
        };
        Some(tokio::join!(to.hear_out(), speak).0)
    } else {
        None
    };
    drop((client, target));
    street.empties(Duration::from_secs(1)).await;
    heard
}

/// Bytes on the sealed connection of the first and of the second words.
async fn sealed_lens(net: &SimNet, method: Method, uplink: bool) -> (u64, u64) {
    net.record();
    let heard = cut_sealed_link(net, method, uplink, u64::MAX).await;
    let record = net.records().remove(1);
    let writes = if uplink { record.uplink } else { record.downlink };
    assert!(heard.is_some_and(|heard| heard.bytes == b"first wordslater words"));
    assert_eq!(writes.len(), 2, "each of them left in one write");
    (writes[0].len() as u64, writes[1].len() as u64)
}

#[test]
fn a_sealed_stream_that_is_cut_short_never_ends_in_order() {
    for method in [Method::Aes128Gcm, Method::Blake3Aes128Gcm] {
        for uplink in [true, false] {
            let lens = Cell::default();
            let lens = &lens;
            one_seed(1, |net, _| async move { lens.set(sealed_lens(&net, method, uplink).await) });
            let (first, second) = lens.get();
            // Between records, and between a salt and its first record, nobody can tell: the protocol has no end of its own.
            let salt_len = method.salt_len() as u64;
            let is_boundary = |at: u64| {
                at == first || (!uplink && at == salt_len && method.generation() == Generation::Aead)
            };
            for at_byte in (1..first + second).filter(|at| !is_boundary(*at)) {
                one_seed(at_byte, |net, _| async move {
                    let heard = cut_sealed_link(&net, method, uplink, at_byte).await;
                    let whole = if at_byte > first { &b"first words"[..] } else { b"" };
                    match heard {
                        Some(heard) => {
                            assert_eq!(heard.ending, Ending::Reset, "{method}, cut at {at_byte}");
                            assert_eq!(heard.bytes, whole, "{method}, cut at {at_byte}");
                        }
                        None => assert!(uplink && at_byte < first, "{method}, cut at {at_byte}"),
                    }
                });
            }
        }
    }
}

#[test]
fn a_small_buffer_at_every_connection_loses_and_holds_nothing() {
    one_seed(1, |net, mut chance| async move {
        let mut plan = Plan::pair(Method::Blake3Chacha20Poly1305);
        plan.links[0] = Link::plain().with_capacity(64);
        plan.links[2] = Link::plain().with_capacity(1);
        let mut street = Street::lay(&net, &plan);
        let (client, target) = open(&mut street).await;
        let words = chance.bytes(20_000);
        let speak = async |peer: &Peer| {
            peer.say(&words).await.unwrap();
            peer.end().unwrap();
        };
        let (up, down, (), ()) =
            tokio::join!(target.hear_out(), client.hear_out(), speak(&client), speak(&target));
        assert!(up == down && up == Heard { bytes: words.clone(), ending: Ending::End });
        drop((client, target));
        street.empties(Duration::from_secs(1)).await;
        assert_eq!(net.dials_to(TARGET), 1);
    });
}

#[test]
fn a_target_that_does_not_come_is_waited_for_two_minutes() {
    one_seed(1, |net, _| async move {
        let street = Street::lay(&net, &Plan::direct());
        let client = street.enter().await;
        client.say(b"\x05\x01\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00").await.unwrap();
        assert_eq!(client.hear(2 + 4).await.unwrap(), [5, 0, 5, 0, 0, 1]);
        client.hear(4 + 2).await.unwrap();
        let began = Instant::now();
        assert_eq!(client.hear(10).await.unwrap()[..2], [5, 4]);
        assert_is_at(began.elapsed(), BIND_SECS_MAX);
        drop(client);
        street.empties(REFUSAL_SECS_MAX).await;
    });
}
