//! What is told of datagrams that go nowhere.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::shadowsocks::Method;
use umbra_relay::config::{self, Group, Hop, Names, Parent, Path};
use umbra_relay::group::{Health, Policy, Settings};
use umbra_sim::datagrams::DatagramPeer;
use umbra_sim::log::events_of;
use umbra_sim::net::Name;
use umbra_sim::seed::one_seed;
use umbra_sim::street::door;

use crate::life::{WHILE, begin};
use crate::members::open;
use crate::route::{ATTACKER, Plan, Route, server_at, target_at};

#[test]
fn every_datagram_that_goes_nowhere_is_counted_by_its_reason() {
    let mut lines = events_of(|| {
        one_seed(1, |net, mut chance| async move {
            let mut plan = Plan::new(None);
            plan.forbidden = Arc::new(Forbidden::standard());
            let route = Route::lay(&net, &mut chance, plan);
            let target = DatagramPeer::new(&route.air, target_at(1));
            let stranger = DatagramPeer::new(&route.air, ATTACKER);
            let (client, _) = begin(&route, 1000, &target).await;
            let block = [1, 203, 0, 113, 1, 20, 180];
            let repeat = |count: usize, send: &dyn Fn()| (0..count).for_each(|_| send());
            repeat(1, &|| stranger.send(client.relay, &[&[0, 0, 0][..], &block, b"hello"].concat()));
            repeat(2, &|| client.peer.send(client.relay, b"\0\0\0nothing"));
            repeat(3, &|| client.peer.send(client.relay, &[&[0, 0, 1][..], &block, b"part"].concat()));
            repeat(2, &|| client.send(&Address::Ip("127.0.0.1:1".parse().unwrap()), b"forbidden"));
            // The same in the clothes of the other family.
            repeat(2, &|| {
                client.send(&Address::Ip("[::ffff:127.0.0.2]:1".parse().unwrap()), b"forbidden");
            });
            net.name("none.example", Name { addresses: Vec::new(), delay: Duration::from_secs(1) });
            repeat(5, &|| client.send(&Address::from_host("none.example", 1).unwrap(), b"nowhere"));
            repeat(6, &|| client.send(&Address::Ip(target.address()), &vec![0; 65_508]));
            assert_eq!(target.receive_within(WHILE).await, None);
            // Those that wait when their association ends have not gone anywhere either.
            net.name("slow.example", Name { addresses: Vec::new(), delay: Duration::from_secs(9) });
            let mut leaving = route.associate(1001).await;
            repeat(7, &|| leaving.send(&Address::from_host("slow.example", 1).unwrap(), b"waits"));
            sleep(WHILE).await;
            drop(leaving.control.take());
            sleep(Duration::from_secs(61)).await;
        });
    });
    lines.retain(|line| line.text.contains("datagrams dropped"));
    let total = |name: &str| -> u64 {
        let counts = lines.iter().filter_map(|line| line.text.split_once(&format!(" {name}=")));
        counts.map(|(_, rest)| rest.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let counted = ["strangers", "malformed", "fragments", "forbidden", "unroutable", "oversized", "crowded"];
    assert_eq!(counted.map(total), [1, 2, 3, 4, 5, 6, 7], "{lines:?}");
    assert!(!lines.iter().any(|line| line.text.contains("203.0.113") || line.text.contains("example")));
}

#[test]
fn a_member_that_cannot_be_reached_is_told_with_the_cause_and_not_for_each_association() {
    let lines = events_of(|| {
        one_seed(1, |net, mut chance| async move {
            let health = Health {
                fail_threshold: NonZeroU32::MIN,
                retry_time: Duration::from_secs(3600),
                ..Health::default()
            };
            let settings = Settings { policy: Policy::Ordered, health, ..Settings::default() };
            let dead = [8, 9].map(|number| {
                let hop = Hop::Parent(Parent::socks5(door(number).into(), None));
                Path::new(format!("dead {number}"), [hop]).into()
            });
            let group = config::Route::Group(Arc::new(Group::new("g", settings, dead.into())));
            let plan = Plan { routes: Some(group.into()), ..Plan::new(None) };
            let route = Route::lay(&net, &mut chance, plan);
            for port in 1000..1060 {
                let client = route.associate(port).await;
                client.send(&Address::Ip(target_at(1)), b"nowhere");
                sleep(Duration::from_millis(10)).await;
            }
        });
    });
    let told = |words: &str| lines.iter().filter(|line| line.text.contains(words)).collect::<Vec<_>>();
    let down = told("path marked down");
    assert_eq!(down.len(), 2, "{down:?}");
    let cause = "why=hop 1 of dead 8: connect failed, outbound side: ";
    assert!(down.iter().any(|line| line.text.contains(cause)), "{down:?}");
    assert!(told("still down").is_empty(), "nobody is on trial: {:?}", told("still down"));
}

#[test]
fn a_hop_that_has_no_address_is_told_and_counted_at_its_place() {
    for (number, before) in [(1, false), (2, true)] {
        let lines = events_of(|| {
            one_seed(1, |net, mut chance| async move {
                net.name("none.example", Name { addresses: Vec::new(), delay: Duration::ZERO });
                let address = Address::from_host("none.example", 8388).unwrap();
                let server = server_at(address, Method::Aes256Gcm);
                let parent = Parent { names: Names::ResolveHere, ..Parent::socks5(door(8).into(), None) };
                let mut hops = vec![Hop::Shadowsocks(server)];
                if before {
                    hops.insert(0, Hop::Parent(parent));
                }
                let path = Arc::new(Path::new("way", hops));
                let routes = config::Route::Path(Arc::clone(&path)).into();
                let route = Route::lay(&net, &mut chance, Plan { routes: Some(routes), ..Plan::new(None) });
                open(&route, 8, Some(Duration::ZERO));
                let client = route.associate(1000).await;
                for _ in 0..3 {
                    client.send(&Address::Ip(target_at(1)), b"nowhere");
                    sleep(Duration::from_millis(10)).await;
                }
                let counts = path.counts();
                assert_eq!(counts.datagrams_failed, 1, "it rests");
                let of_hops: Vec<_> = counts.datagram_hops.iter().map(|hop| hop.resolve).collect();
                assert_eq!(of_hops, if before { vec![0, 1] } else { vec![1] });
            });
        });
        let failed: Vec<_> = lines.iter().filter(|line| line.text.contains("session failed")).collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        let words = ["stage=resolve", "path=\"way\"", &format!("hop={number} "), "no address"];
        assert!(words.iter().all(|word| failed[0].text.contains(word)), "{failed:?}");
    }
}
