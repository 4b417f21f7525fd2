//! Datagrams of every length, through tunnels, and at doors with several addresses.

use std::net::{Ipv4Addr, SocketAddr};

use umbra_proto::address::Address;
use umbra_sim::datagrams::DatagramPeer;
use umbra_sim::seed::one_seed;
use umbra_sim::street::door;

use crate::life::{WHILE, begin, reaches};
use crate::route::{METHODS, Plan, Route, client_at, host, target_at};

#[test]
fn the_shortest_and_the_longest_pass_and_what_is_too_long_ends_nothing() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let route = Route::lay(&net, &mut chance, Plan::new(method));
            let target = DatagramPeer::new(&route.air, target_at(1));
            let (client, from) = begin(&route, 1000, &target).await;
            // What IPv4 carries, without the heads of SOCKS5 and of the method with the longest ones.
            for len in [0, 1, 1200, 9000, 65_507 - 10 - 80, 65_507 - 10, 0, 20] {
                let bytes = chance.bytes(len);
                client.send(&Address::Ip(target.address()), &bytes);
                let arrived = target.receive_within(WHILE).await;
                let is_too_long = len == 65_507 - 10 && method.is_some();
                assert_eq!(arrived, (!is_too_long).then_some((from, bytes.clone())), "{method:?}, {len}");
                target.send(from, &bytes);
                let heard = client.receive_within(WHILE).await;
                assert_eq!(heard, (!is_too_long).then_some((target.address(), bytes)), "{method:?}, {len}");
            }
        });
    }
}

#[test]
fn a_tunnel_leads_each_client_to_its_target_and_answers_each() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let target = target_at(1);
            let plan = Plan { tunnel: Some(Address::Ip(target)), ..Plan::new(method) };
            let route = Route::lay(&net, &mut chance, plan);
            let target = DatagramPeer::new(&route.air, target);
            let clients = [1000, 1001].map(|port| DatagramPeer::new(&route.air, client_at(port)));
            let mut sources = Vec::new();
            for client in &clients {
                client.send(door(0), b"question");
                let (from, bytes) = target.receive_within(WHILE).await.unwrap();
                assert_eq!(bytes, b"question");
                sources.push(from);
            }
            for (number, from) in sources.iter().enumerate().rev() {
                target.send(*from, &[7; 9][..=number]);
            }
            for (number, client) in clients.iter().enumerate() {
                let heard = client.receive_within(WHILE).await;
                assert_eq!(heard, Some((door(0), vec![7; number + 1])), "{method:?}");
            }
        });
    }
}

#[test]
fn a_door_at_every_address_answers_from_the_one_that_was_asked() {
    for method in METHODS {
        one_seed(1, |net, mut chance| async move {
            let mut plan = Plan::new(method);
            plan.udp[0].listen = Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), door(0).port()));
            let route = Route::lay(&net, &mut chance, plan);
            let target = DatagramPeer::new(&route.air, target_at(1));
            let (mut client, first) = begin(&route, 1000, &target).await;
            for ip in [host(0)[0], host(0)[2], host(0)[0]] {
                // Here the client sends, and expects its answers from.
                client.relay = SocketAddr::new(ip, door(0).port());
                client.send(&Address::Ip(target.address()), b"question");
                let (from, _) = target.receive_within(WHILE).await.unwrap();
                assert_eq!(from, first, "the same association");
                assert!(reaches(&target, from, &client).await, "{method:?}");
            }
        });
    }
}
