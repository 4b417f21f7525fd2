//! Names of targets that are resolved here for whoever is asked last and told addresses alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::Refusal;
use umbra_relay::config::{self, Group, Hop, Names, Parent, Path, Routes};
use umbra_relay::group::{Policy, Settings};
use umbra_relay::router::{Conditions, Router, Rule, TargetsBuilder};
use umbra_sim::log::events_of;
use umbra_sim::net::Name;
use umbra_sim::seed::one_seed;
use umbra_sim::street::door;

use crate::life::WHILE;
use crate::members::open;
use crate::route::{Plan, Route, target_at};

/// Through the parent at a door, which is told addresses alone.
fn parent(number: usize) -> Path {
    let parent = Parent { names: Names::ResolveHere, ..Parent::socks5(door(number).into(), None) };
    Path::new(format!("parent {number}"), [Hop::Parent(parent)])
}

/// What the parent at door 8 is asked for, three times, where a name has the addresses of `targets` and the first target is forbidden.
fn asked_for(targets: &'static [SocketAddr], routes: impl Into<Routes>) -> (Vec<SocketAddr>, Vec<String>) {
    let (routes, forbidden) = (routes.into(), format!("{}/32", target_at(1).ip()).parse().unwrap());
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let lines = events_of(|| {
        one_seed(1, move |net, mut chance| {
            let forbidden = Arc::new(Forbidden::listed(vec![forbidden]));
            let plan = Plan { routes: Some(routes.clone()), forbidden, ..Plan::new(None) };
            let noted = Arc::clone(&noted);
            async move {
                let route = Route::lay(&net, &mut chance, plan);
                open(&route, 8, Some(Duration::ZERO));
                let addresses = targets.iter().map(SocketAddr::ip).collect();
                net.name("some.example", Name { addresses, delay: Duration::from_millis(5) });
                let name = Address::from_host("some.example", target_at(1).port()).unwrap();
                let client = route.associate(1000).await;
                for _ in 0..3 {
                    client.send(&name, b"hello");
                    // The parent answers as if whoever it is asked for did.
                    let Some((source, payload)) = client.receive_within(WHILE).await else { continue };
                    assert_eq!(payload, b"hello");
                    noted.lock().unwrap().push(source);
                }
                sleep(Duration::from_secs(61)).await;
            }
        });
    });
    let lines = lines.into_iter().map(|line| line.text).filter(|line| line.contains("datagrams dropped"));
    (std::mem::take(&mut asked.lock().unwrap()), lines.collect())
}

#[test]
fn a_name_is_resolved_for_a_parent_that_is_told_addresses_and_none_that_is_forbidden() {
    static TARGETS: std::sync::LazyLock<[SocketAddr; 2]> =
        std::sync::LazyLock::new(|| [target_at(1), target_at(2)]);
    let route = || config::Route::Path(Arc::new(parent(8)));
    assert_eq!(asked_for(&TARGETS[1..], route()), (vec![target_at(2); 3], vec![]));
    assert_eq!(
        asked_for(&*TARGETS, route()),
        (vec![target_at(2); 3], vec![]),
        "there is one that nobody forbids"
    );

    let (asked, dropped) = asked_for(&TARGETS[..1], route());
    assert_eq!(asked, [], "nobody is led there by any name");
    assert!(dropped.iter().all(|line| line.contains("forbidden=3")) && dropped.len() == 1, "{dropped:?}");
    let (asked, dropped) = asked_for(&[], route());
    assert_eq!(asked, []);
    assert!(dropped.iter().all(|line| line.contains("unroutable=3")) && dropped.len() == 1, "{dropped:?}");
}

#[test]
fn what_has_waited_in_vain_with_a_name_is_led_by_that_name_again() {
    static TARGET: std::sync::LazyLock<[SocketAddr; 1]> = std::sync::LazyLock::new(|| [target_at(2)]);
    // Nobody is at the first door.
    let members = vec![parent(7).into(), parent(8).into()];
    let settings = Settings { policy: Policy::Ordered, ..Settings::default() };
    let group = Arc::new(Group::new("parents", settings, members));
    let mut targets = TargetsBuilder::default();
    targets.suffix("example").unwrap();
    let conditions = Conditions { target: Some(targets.build().unwrap()), ..Conditions::default() };
    let rules = vec![Rule { name: "by name".into(), conditions, verdict: config::Route::Group(group) }];
    let otherwise = config::Route::Refuse(Refusal::NotAllowed);
    assert_eq!(asked_for(&*TARGET, Routes::new(Router { rules, otherwise })).0, [target_at(2); 3]);
}
