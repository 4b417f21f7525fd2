//! How long an association lives, what it outlives, and what it waits for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use umbra_proto::address::{Address, AddressBlock};
use umbra_proto::shadowsocks::packet::{ClientSession, PacketHop, SessionId};
use umbra_proto::shadowsocks::{Method, UnixTime};
use umbra_relay::config::Filtering;
use umbra_relay::limits::{
    LOOKUPS_MAX, LOOKUPS_PER_ASSOCIATION_MAX, NAME_RETRY_DELAY, ORPHAN_SECS_MAX, TRUNK_SILENCE_SECS,
    WAITING_DATAGRAMS_MAX,
};
use umbra_relay::net::Net;
use umbra_sim::Chance;
use umbra_sim::datagrams::{DatagramPeer, Seen};
use umbra_sim::net::Name;
use umbra_sim::seed::{each_seed, note, one_seed};
use umbra_sim::street::{door, key_of};

use crate::route::{ATTACKER, Arrivals, Client, METHODS, Plan, Route, message, number_of, target_at};

const SIP022: [Method; 3] =
    [Method::Blake3Aes128Gcm, Method::Blake3Aes256Gcm, Method::Blake3Chacha20Poly1305];

/// A short while in which everything on the way arrives.
pub(crate) const WHILE: Duration = Duration::from_millis(50);

/// A client whose first message has come to `target`, and where the target saw it come from.
pub(crate) async fn begin(route: &Route, port: u16, target: &DatagramPeer) -> (Client, SocketAddr) {
    let client = route.associate(port).await;
    client.send(&Address::Ip(target.address()), b"first");
    let (from, bytes) = target.receive_within(WHILE).await.unwrap();
    assert_eq!(bytes, b"first");
    (client, from)
}

/// Whether what `target` sends to `from` comes to the client.
pub(crate) async fn reaches(target: &DatagramPeer, from: SocketAddr, client: &Client) -> bool {
    target.send(from, b"word from the target");
    let heard = client.receive_within(WHILE).await;
    heard.is_some_and(|heard| heard == (target.address(), b"word from the target".to_vec()))
}

#[test]
fn an_association_ends_with_its_control_connection_and_without_one_there_is_none() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let route = Route::lay(&net, &mut chance, Plan::new(method));
            let target = DatagramPeer::new(&route.air, target_at(1));
            let stranger = DatagramPeer::new(&route.air, ATTACKER);
            let (mut client, from) = begin(&route, 1000, &target).await;
            stranger.send(client.relay, &[&[0, 0, 0, 1, 203, 0, 113, 1, 20, 180][..], b"let me in"].concat());
            assert!(reaches(&target, from, &client).await);
            assert_eq!(route.sockets(0), 1);
            drop(client.control.take());
            sleep(WHILE).await;
            assert_eq!(route.sockets(0), 0);
            assert!(!reaches(&target, from, &client).await);
            client.send(&Address::Ip(target.address()), b"too late");
            assert_eq!(target.receive_within(WHILE).await, None);
            assert_eq!(route.sockets(0), 0);
        });
    }
}

#[test]
fn of_two_programs_that_name_no_port_the_one_that_stays_keeps_its_association_whoever_sent_first() {
    for method in METHODS {
        for is_swapped in [false, true] {
            one_seed(3, |net, mut chance| async move {
                let route = Route::lay(&net, &mut chance, Plan::new(method));
                let target = DatagramPeer::new(&route.air, target_at(1));
                let [one, other] =
                    [route.associate_saying(1000, 0).await, route.associate_saying(1001, 0).await];
                // The first to send is taken for whoever has come first.
                let (mut goes, stays) = if is_swapped { (one, other) } else { (other, one) };
                let mut seen = Vec::new();
                for client in [&stays, &goes] {
                    client.send(&Address::Ip(target.address()), b"here");
                    seen.push(target.receive_within(WHILE).await.unwrap().0);
                }
                drop(goes.control.take());
                sleep(WHILE).await;
                assert!(is_swapped || !reaches(&target, seen[1], &goes).await, "it has ended");
                stays.send(&Address::Ip(target.address()), b"still here");
                let (from, _) = target.receive_within(WHILE).await.unwrap();
                assert_eq!(from, seen[0], "{method:?}: by the same socket");
                assert!(reaches(&target, from, &stays).await);
                sleep(ORPHAN_SECS_MAX + Duration::from_secs(2)).await;
                assert!(reaches(&target, from, &stays).await);
                // What was taken for the other's is its own as far as anybody knows.
                assert_eq!(reaches(&target, seen[1], &goes).await, is_swapped);
            });
        }
    }
}

#[test]
fn either_direction_alone_keeps_an_association_alive() {
    for method in METHODS {
        for is_upward in [true, false] {
            one_seed(1, |net, mut chance| async move {
                let route = Route::lay(&net, &mut chance, plan(method, 100));
                let target = DatagramPeer::new(&route.air, target_at(1));
                let (client, from) = begin(&route, 1000, &target).await;
                for _ in 0..8 {
                    sleep(Duration::from_secs(90)).await;
                    if is_upward {
                        client.send(&Address::Ip(target.address()), b"again");
                        let arrived = target.receive_within(WHILE).await;
                        assert_eq!(arrived, Some((from, b"again".to_vec())));
                    } else {
                        assert!(reaches(&target, from, &client).await);
                    }
                }
            });
        }
    }
}

fn plan(method: Option<Method>, timeout_secs: u64) -> Plan {
    let mut plan = Plan::new(method);
    for udp in &mut plan.udp {
        udp.timeout = Duration::from_secs(timeout_secs);
    }
    plan
}

#[test]
fn an_association_expires_at_its_time_and_the_next_datagram_begins_another() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let route = Route::lay(&net, &mut chance, plan(method, 100));
            let target = DatagramPeer::new(&route.air, target_at(1));
            let (client, from) = begin(&route, 1000, &target).await;
            let last = route.plan.doors() - 1;
            sleep(Duration::from_secs(99)).await;
            assert_eq!((route.sockets(0), route.sockets(last)), (1, 1));
            sleep(Duration::from_secs(3)).await;
            assert_eq!((route.sockets(0), route.sockets(last)), (0, 0));
            assert!(!reaches(&target, from, &client).await);
            client.send(&Address::Ip(target.address()), b"again");
            let (another, bytes) = target.receive_within(WHILE).await.unwrap();
            assert_eq!(bytes, b"again");
            assert_ne!(another, from);
            assert!(reaches(&target, another, &client).await);
        });
    }
}

#[test]
fn what_is_refused_keeps_no_association_alive() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let mut plan = plan(method, 100);
            let last = plan.doors() - 1;
            plan.udp[last].filtering = Filtering::AddressDependent;
            let route = Route::lay(&net, &mut chance, plan);
            let target = DatagramPeer::new(&route.air, target_at(1));
            let stranger = DatagramPeer::new(&route.air, target_at(2));
            let (client, from) = begin(&route, 1000, &target).await;
            assert!(reaches(&target, from, &client).await);
            for _ in 0..3 {
                sleep(Duration::from_secs(60)).await;
                assert!(!reaches(&stranger, from, &client).await);
            }
            assert_eq!(route.sockets(last), 0);
        });
    }
}

#[test]
fn a_server_that_begins_anew_goes_on_with_its_clients() {
    each_seed(20, |net, mut chance| async move {
        let method = *chance.choose(&METHODS[1..]);
        note(format!("{method:?}"));
        let mut route = Route::lay(&net, &mut chance, Plan::new(method));
        let target = DatagramPeer::new(&route.air, target_at(1));
        let (client, mut from) = begin(&route, 1000, &target).await;
        let way_up = way_up(&route, &client, &target).await;
        for _ in 0..5 {
            assert!(reaches(&target, from, &client).await);
            sleep(Duration::from_secs(*chance.choose(&[0, 0, 10, 70]))).await;
            route.restart().await;
            assert!(!reaches(&target, from, &client).await, "nobody knows of it any more");
            client.send(&Address::Ip(target.address()), b"again");
            let arrived = target.receive_within(WHILE).await.unwrap();
            assert_eq!(arrived.1, b"again");
            from = arrived.0;
        }
        assert_eq!(
            self::way_up(&route, &client, &target).await,
            way_up,
            "for the client it is the same association"
        );
    });
}

/// Where the client's door sends to the server's from.
async fn way_up(route: &Route, client: &Client, target: &DatagramPeer) -> SocketAddr {
    route.air.record();
    client.send(&Address::Ip(target.address()), b"see");
    target.receive_within(WHILE).await.unwrap();
    route.air.seen().iter().find(|seen| seen.to == door(1)).unwrap().from
}

#[test]
fn under_sip022_a_client_is_followed_to_another_address_by_authentic_packets_alone() {
    each_seed(30, |net, mut chance| async move {
        let mut plan = Plan::new(Some(*chance.choose(&SIP022)));
        plan.workers = chance.length(1..=4);
        note(format!("{plan:?}"));
        let route = Route::lay(&net, &mut chance, plan);
        let target = DatagramPeer::new(&route.air, target_at(1));
        let attacker = DatagramPeer::new(&route.air, ATTACKER);
        let (client, from) = begin(&route, 1000, &target).await;
        let inside = way_up(&route, &client, &target).await;
        for number in 0..5 {
            attack(&route, &mut chance, &attacker).await;
            assert!(reaches(&target, from, &client).await, "answers go where they went");
            assert_eq!(target.received(), []);
            let outside = SocketAddr::from(([192, 0, 2, 200], 3000 + 17 * number));
            route.air.translate(inside, outside);
            assert!(!reaches(&target, from, &client).await, "nobody knows yet");
            client.send(&Address::Ip(target.address()), b"from elsewhere");
            let arrived = target.receive_within(WHILE).await;
            assert_eq!(arrived, Some((from, b"from elsewhere".to_vec())), "the same association");
            assert!(reaches(&target, from, &client).await, "followed");
        }
        assert_eq!(attacker.received(), []);
        assert_eq!((route.sockets(0), route.sockets(1)), (1, 1));
    });
}

/// Sends what was seen on the way to the server, as it was, damaged, and cut short.
/// The last address of the first door that sent to the second.
fn last_sender(route: &Route) -> SocketAddr {
    route.air.seen().iter().rev().find(|seen| seen.to == door(1)).unwrap().from
}

#[test]
fn a_shared_socket_whose_datagrams_are_lost_without_a_word_is_left_by_everybody() {
    for method in SIP022 {
        one_seed(7, |net, mut chance| async move {
            let route = Route::lay(&net, &mut chance, Plan::new(Some(method)));
            route.air.record();
            let arrivals = Arrivals::default();
            arrivals.echo(&route.air, target_at(1));
            let target = Address::Ip(target_at(1));
            let clients = [route.associate(1000).await, route.associate(1001).await];
            let mut number = 0;
            let mut asks = async |client: &Client, chance: &mut Chance| {
                number += 1;
                client.send(&target, &message(chance, number, 9));
                client.receive_within(WHILE).await.is_some()
            };
            // For as long as answers come, all is as it is, however long that may be.
            for _ in 0..60 {
                for client in &clients {
                    assert!(asks(client, &mut chance).await);
                }
                sleep(Duration::from_secs(1)).await;
            }
            let before = last_sender(&route);
            assert!(route.air.seen().iter().all(|seen| seen.to != door(1) || seen.from == before));
            route.air.cut(before);
            let (mut lost, mut youngest) = (0, None);
            while !asks(&clients[0], &mut chance).await {
                lost += 1;
                assert!(lost <= 2 + TRUNK_SILENCE_SECS.as_secs(), "{method}: nothing comes back");
                let young = youngest.insert(route.associate(2000 + u16::try_from(lost).unwrap()).await);
                assert!(!asks(young, &mut chance).await);
                sleep(Duration::from_secs(1)).await;
            }
            for client in clients.iter().skip(1).chain(&youngest) {
                assert!(asks(client, &mut chance).await, "{method}: it goes where the other goes");
            }
            assert_ne!(last_sender(&route), before);
            assert_eq!(route.sockets(0), 1, "{method}: nobody needs the other one");
        });
    }
}

async fn attack(route: &Route, chance: &mut Chance, attacker: &DatagramPeer) {
    for Seen { to, mut bytes, .. } in route.air.seen() {
        if to != door(1) || bytes.is_empty() {
            continue;
        }
        attacker.send(to, &bytes);
        attacker.send(to, &bytes[..chance.length(0..=bytes.len() - 1)]);
        let bit = chance.length(0..=bytes.len() * 8 - 1);
        bytes[bit / 8] ^= 1 << (bit % 8);
        attacker.send(to, &bytes);
    }
    sleep(WHILE).await;
}

#[test]
fn a_packet_whose_time_is_ahead_is_known_again_for_as_long_as_it_could_be_taken() {
    for method in SIP022 {
        one_seed(1, |net, mut chance| async move {
            // The door looks for idle ones between two seconds of the clock.
            sleep(Duration::from_millis(300)).await;
            let route = Route::lay(&net, &mut chance, plan(Some(method), 1));
            sleep(Duration::from_millis(700)).await;
            let target = DatagramPeer::new(&route.air, target_at(1));
            let peer = DatagramPeer::new(&route.air, ATTACKER);
            let hop = Arc::new(PacketHop::new(&key_of(method, 0).into(), false));
            let mut session = ClientSession::new(hop, SessionId(*b"a client"));
            let (mut block, mut packet) = (Vec::new(), Vec::new());
            Address::Ip(target.address()).encode(&mut block);
            let (block, _) = AddressBlock::split(&block).unwrap();
            let ahead = UnixTime(net.unix_time().0 + 30);
            session.seal(block, b"once", ahead, |random: &mut [u8]| random.fill(1), &mut packet);
            peer.send(door(1), &packet);
            assert!(target.receive_within(WHILE).await.is_some(), "{method}");
            sleep(Duration::from_secs(59)).await;
            for _ in 0..40 {
                peer.send(door(1), &packet);
                assert_eq!(target.receive_within(2 * WHILE).await, None, "{method}");
            }
            assert_eq!(route.sockets(1), 0, "it has ended meanwhile");
        });
    }
}

#[test]
fn a_name_that_takes_long_holds_up_nothing_else() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let route = Route::lay(&net, &mut chance, Plan::new(method));
            let (arrivals, slow, quick) = (Arrivals::default(), target_at(1), target_at(2));
            arrivals.echo(&route.air, slow);
            arrivals.echo(&route.air, quick);
            let entry = Name { addresses: vec![slow.ip()], delay: Duration::from_secs(5) };
            route.net.name("slow.example", entry);
            let name = Address::from_host("slow.example", slow.port()).unwrap();
            let client = route.associate(1000).await;
            for number in 0..40 {
                client.send(&name, &message(&mut chance, number, 10));
                client.send(&Address::Ip(quick), &message(&mut chance, 100 + number, 10));
            }
            sleep(Duration::from_millis(4900)).await;
            let numbers = |client: &Client| -> Vec<u64> {
                client.received().iter().map(|(_, bytes)| number_of(bytes)).collect()
            };
            assert_eq!(numbers(&client), (100..140).collect::<Vec<_>>(), "{method:?}");
            sleep(Duration::from_millis(200)).await;
            let waited: Vec<_> = (0..WAITING_DATAGRAMS_MAX as u64).collect();
            assert_eq!(numbers(&client), waited, "{method:?}: as many as may wait, in their order");
            client.send(&name, &message(&mut chance, 50, 10));
            sleep(WHILE).await;
            assert_eq!(numbers(&client), [50], "it is known now");
        });
    }
}

#[test]
fn a_lookup_that_nobody_waits_for_has_its_turn_until_it_ends() {
    one_seed(1, |net, mut chance| async move {
        let route = Route::lay(&net, &mut chance, Plan::new(None));
        let target = DatagramPeer::new(&route.air, target_at(1));
        let name = |name: &str| Address::from_host(name, target.address().port()).unwrap();
        net.name("quick.example", Name { addresses: vec![target.address().ip()], delay: Duration::ZERO });
        let mut clients = Vec::new();
        for number in 0..LOOKUPS_MAX {
            let at = number / LOOKUPS_PER_ASSOCIATION_MAX;
            if clients.len() == at {
                clients.push(route.associate(1000 + u16::try_from(at).unwrap()).await);
            }
            let slow = format!("slow-{number}.example");
            net.name(&slow, Name { addresses: Vec::new(), delay: Duration::from_secs(60) });
            clients[at].send(&name(&slow), b"word");
        }
        let other = route.associate(999).await;
        // The last one is after these associations have stopped waiting.
        for _ in 0..4 {
            other.send(&name("quick.example"), b"too early");
            assert_eq!(target.receive_within(Duration::from_secs(4)).await, None);
        }
        sleep(Duration::from_secs(45)).await;
        other.send(&name("quick.example"), b"in turn");
        assert!(target.receive_within(WHILE).await.is_some_and(|(_, bytes)| bytes == b"in turn"));
    });
}

#[test]
fn a_name_that_nobody_finds_is_asked_for_again_later() {
    for delay in [Duration::ZERO, Duration::from_secs(3600)] {
        one_seed(1, |net, mut chance| async move {
            let route = Route::lay(&net, &mut chance, Plan::new(None));
            let (arrivals, target) = (Arrivals::default(), target_at(1));
            arrivals.echo(&route.air, target);
            let entry = Name { addresses: Vec::new(), delay };
            route.net.name("lost.example", entry);
            let name = Address::from_host("lost.example", target.port()).unwrap();
            let client = route.associate(1000).await;
            client.send(&name, &message(&mut chance, 0, 10));
            // Longer than a lookup may take.
            sleep(Duration::from_secs(10) + WHILE).await;
            route.net.name("lost.example", Name { addresses: vec![target.ip()], delay: Duration::ZERO });
            sleep(NAME_RETRY_DELAY).await;
            client.send(&name, &message(&mut chance, 1, 10));
            sleep(WHILE).await;
            assert_eq!((arrivals.of(0).len(), arrivals.of(1).len()), (0, 1));
            assert_eq!(client.received().len(), 1);
        });
    }
}
