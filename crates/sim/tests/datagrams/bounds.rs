//! How many associations there are at most, who makes room, and what strangers bring about: nothing.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::time::sleep;
use umbra_proto::address::Address;
use umbra_sim::datagrams::DatagramPeer;
use umbra_sim::net::Name;
use umbra_sim::seed::{each_seed, note, one_seed};
use umbra_sim::street::door;

use crate::life::{WHILE, begin, reaches};
use crate::route::{ATTACKER, Client, METHODS, Plan, Route, host, target_at};

#[test]
fn at_the_bound_whoever_was_idle_longest_makes_room() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let mut plan = Plan::new(method);
            let last = plan.doors() - 1;
            plan.udp[last].associations_max = NonZeroUsize::new(3);
            plan.udp[last].associations_per_source_max = NonZeroUsize::new(3);
            let route = Route::lay(&net, &mut chance, plan);
            assert_eq!(survivors(&route, last).await, [false, true, false, false, true, true], "{method:?}");
        });
    }
}

#[test]
fn one_source_has_no_more_associations_than_it_may() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let mut plan = Plan::new(method);
            let last = plan.doors() - 1;
            plan.udp[last].associations_per_source_max = NonZeroUsize::new(3);
            let route = Route::lay(&net, &mut chance, plan);
            assert_eq!(survivors(&route, last).await, [false, true, false, false, true, true], "{method:?}");
        });
    }
}

#[test]
fn where_sockets_run_out_whoever_was_idle_longest_makes_room() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let mut plan = Plan::new(method);
            let last = plan.doors() - 1;
            plan.sockets_max = 3;
            plan.udp[last].associations_per_source_max = NonZeroUsize::new(6);
            let route = Route::lay(&net, &mut chance, plan);
            assert_eq!(survivors(&route, last).await, [false, true, false, false, true, true], "{method:?}");
        });
    }
}

#[test]
fn whoever_has_a_socket_makes_room_for_those_whose_name_is_found_later() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let mut plan = Plan::new(method);
            let last = plan.doors() - 1;
            plan.sockets_max = 3;
            plan.udp[last].associations_per_source_max = NonZeroUsize::new(6);
            let route = Route::lay(&net, &mut chance, plan);
            let target = DatagramPeer::new(&route.air, target_at(1));
            let delay = Duration::from_secs(2);
            net.name("slow.example", Name { addresses: vec![target.address().ip()], delay });
            let name = Address::from_host("slow.example", target.address().port()).unwrap();
            let mut busy = Vec::new();
            for number in 0..3 {
                busy.push(begin(&route, 1000 + number, &target).await);
            }
            let mut late = Vec::new();
            for number in 3..6 {
                let client = route.associate(1000 + number).await;
                client.send(&name, b"by name");
                late.push(client);
            }
            for (client, from) in &busy {
                sleep(Duration::from_millis(500)).await;
                assert!(reaches(&target, *from, client).await, "{method:?}: nobody wants its socket yet");
            }
            let mut left = Vec::new();
            for client in &late {
                let (from, bytes) = target.receive_within(delay).await.unwrap();
                assert_eq!(bytes, b"by name", "{method:?}");
                assert!(route.sockets(last) <= 3);
                left.push((client, from));
            }
            for (client, from) in left {
                assert!(reaches(&target, from, client).await, "{method:?}");
            }
            for (client, from) in &busy {
                assert!(!reaches(&target, *from, client).await, "{method:?}: it has made room");
            }
            // Whoever had to go begins anew.
            busy[0].0.send(&Address::Ip(target.address()), b"again");
            assert!(target.receive_within(WHILE).await.is_some());
        });
    }
}

#[test]
fn a_source_with_many_ports_leaves_half_of_the_sockets_to_others() {
    one_seed(1, |net, mut chance| async move {
        let mut plan = Plan::new(None);
        let target = target_at(1);
        plan.tunnel = Some(Address::Ip(target));
        plan.sockets_max = 6;
        let route = Route::lay(&net, &mut chance, plan);
        let target = DatagramPeer::new(&route.air, target);
        let mut sources = Vec::new();
        for number in 0..20 {
            // The first three come from elsewhere, and are the ones idle longest.
            let ip = if number < 3 { [192, 0, 2, 77] } else { [192, 0, 2, 66] };
            let client = DatagramPeer::new(&route.air, SocketAddr::from((ip, 1000 + number)));
            client.send(door(0), b"word");
            let (from, _) = target.receive_within(WHILE).await.unwrap();
            sources.push((client, from));
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(route.sockets(0), 6);
        for (number, (client, from)) in sources.iter().enumerate() {
            target.send(*from, b"answer");
            let is_there = client.receive_within(WHILE).await.is_some();
            assert_eq!(is_there, !(3..17).contains(&number), "{number}");
        }
    });
}

#[test]
fn a_crowd_at_one_worker_leaves_sockets_to_the_clients_of_another() {
    one_seed(1, |net, mut chance| async move {
        let mut plan = Plan::new(None);
        plan.workers = 2;
        plan.sockets_max = 4;
        plan.udp[0].associations_per_source_max = NonZeroUsize::new(1000);
        let route = Route::lay(&net, &mut chance, plan);
        let target = DatagramPeer::new(&route.air, target_at(1));
        // Those with even ports come to one worker.
        let mut crowd = Vec::new();
        for number in 0..8 {
            crowd.push(begin(&route, 1000 + 2 * number, &target).await);
        }
        assert_eq!(route.sockets(0), 3);
        let (client, from) = begin(&route, 1001, &target).await;
        for (client, from) in &crowd[5..] {
            assert!(reaches(&target, *from, client).await);
        }
        assert!(reaches(&target, from, &client).await);
        assert_eq!(route.sockets(0), 4);
    });
}

/// Six clients come to a door that has room for three, the second of whom speaks again before the fifth comes. Says who is left.
async fn survivors(route: &Route, last: usize) -> Vec<bool> {
    let target = DatagramPeer::new(&route.air, target_at(1));
    let mut clients = Vec::new();
    for number in 0..6 {
        if number == 4 {
            let (second, from): &(Client, SocketAddr) = &clients[1];
            assert!(reaches(&target, *from, second).await, "it was not the one idle longest before");
        }
        clients.push(begin(route, 1000 + number, &target).await);
        assert!(route.sockets(last) <= 3);
        sleep(Duration::from_secs(1)).await;
    }
    let mut left = Vec::new();
    for (client, from) in &clients {
        left.push(reaches(&target, *from, client).await);
    }
    left
}

#[test]
fn packets_of_nobody_begin_nothing_and_change_nothing() {
    each_seed(20, |net, mut chance| async move {
        let mut plan = Plan::new(*chance.choose(&METHODS[1..6]));
        plan.workers = chance.length(1..=3);
        note(format!("{plan:?}"));
        let route = Route::lay(&net, &mut chance, plan);
        let target = DatagramPeer::new(&route.air, target_at(1));
        let attacker = DatagramPeer::new(&route.air, ATTACKER);
        let mut noise = |count: usize| {
            for _ in 0..count {
                let len = chance.uneven_length(0..=3000);
                let from =
                    SocketAddr::from(([192, 0, 2, 66], 600 + u16::try_from(chance.within(0..=99)).unwrap()));
                route.air.send(from, door(1), &chance.bytes(len));
            }
        };
        noise(300);
        sleep(WHILE).await;
        assert_eq!(route.sockets(1), 0);
        let (client, from) = begin(&route, 1000, &target).await;
        for _ in 0..5 {
            noise(300);
            assert!(reaches(&target, from, &client).await);
            client.send(&Address::Ip(target.address()), b"word");
            assert_eq!(target.receive_within(WHILE).await, Some((from, b"word".to_vec())));
        }
        assert_eq!(route.sockets(1), 1);
        assert_eq!((attacker.received(), target.received()), (vec![], vec![]));
        let to_strangers = route.air.count_between(host(1)[0], ATTACKER.ip());
        assert_eq!(to_strangers.sent, 6 * 300, "nothing was said to them");
        route.assert_is_whole();
    });
}
