//! Rules about the addresses of names.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::Refusal;
use umbra_relay::config::{self, Group, Parent, Path};
use umbra_relay::group::Settings;
use umbra_relay::router::{Conditions, Networks, Router, Rule, Targets};
use umbra_sim::net::Name;
use umbra_sim::seed::one_seed;

use crate::life::WHILE;
use crate::route::{Arrivals, Plan, Route, message, target_at};

/// Where a name with the addresses of two targets is led by a rule about the network of one of them.
fn led_by(networks: &str, verdict: config::Route, forbidden: Forbidden) -> Vec<SocketAddr> {
    let targets = [target_at(1), target_at(2)];
    let led = Arc::new(Mutex::new(Vec::new()));
    let rule = Rule {
        name: "one of them".into(),
        conditions: Conditions {
            target: Some(Targets::of_networks(Networks::new([networks.parse().unwrap()]))),
            ..Conditions::default()
        },
        verdict,
    };
    let router = Router { rules: vec![rule], otherwise: config::Route::direct() };
    let (routes, forbidden, noted) = (config::Routes::new(router), Arc::new(forbidden), Arc::clone(&led));
    one_seed(1, move |net, mut chance| {
        let plan =
            Plan { routes: Some(routes.clone()), forbidden: Arc::clone(&forbidden), ..Plan::new(None) };
        let noted = Arc::clone(&noted);
        async move {
            let route = Route::lay(&net, &mut chance, plan);
            let arrivals = Arrivals::default();
            targets.into_iter().for_each(|target| arrivals.echo(&route.air, target));
            let addresses = targets.map(|target| target.ip()).into();
            net.name("two.example", Name { addresses, delay: Duration::ZERO });
            let name = Address::from_host("two.example", targets[0].port()).unwrap();
            let client = route.associate(1000).await;
            for number in 0..3 {
                client.send(&name, &message(&mut chance, number, 10));
                sleep(WHILE).await;
            }
            let mut all: Vec<_> = arrivals.all().into_values().flatten().map(|arrival| arrival.at).collect();
            noted.lock().unwrap().append(&mut all);
        }
    });
    std::mem::take(&mut led.lock().unwrap())
}

#[test]
fn a_rule_about_networks_fits_a_name_by_any_of_its_addresses_and_only_those_are_sent_to() {
    let [first, second] = [target_at(1), target_at(2)];
    let refuse = || config::Route::Refuse(Refusal::NotAllowed);
    let (direct, nothing) = (config::Route::direct, || Forbidden::NOTHING);
    for target in [first, second] {
        let network = format!("{}/32", target.ip());
        assert_eq!(led_by(&network, refuse(), nothing()), [], "{network} is one of them");
        assert_eq!(led_by(&network, direct(), nothing()), [target; 3]);
    }
    assert_eq!(led_by("203.0.113.9/32", refuse(), nothing()), [first; 3], "it has none of the rule's");
    let forbidden = Forbidden::listed(vec![format!("{}/32", first.ip()).parse().unwrap()]);
    assert_eq!(
        led_by("203.0.113.0/24", direct(), forbidden),
        [second; 3],
        "there is one that nobody forbids"
    );
}

#[test]
fn a_name_without_an_address_for_the_rules_is_not_looked_up_anew_for_a_direct_way_alone_or_in_a_group() {
    let group = || {
        let members = vec![Path::direct().into()];
        config::Route::Group(Arc::new(Group::new("any", Settings::default(), members)))
    };
    for otherwise in [config::Route::direct(), group()] {
        let rule = Rule {
            name: "elsewhere".into(),
            conditions: Conditions {
                target: Some(Targets::of_networks(Networks::new(["203.0.113.0/24".parse().unwrap()]))),
                ..Conditions::default()
            },
            verdict: config::Route::parent(Parent::socks5("192.0.2.99:1080".parse().unwrap(), None)),
        };
        let routes = config::Routes::new(Router { rules: vec![rule], otherwise });
        one_seed(1, move |net, mut chance| {
            let plan = Plan { routes: Some(routes.clone()), ..Plan::new(None) };
            async move {
                let route = Route::lay(&net, &mut chance, plan);
                let arrivals = Arrivals::default();
                arrivals.echo(&route.air, target_at(1));
                // Whoever has the name says first that there is none.
                let answers = [Vec::new(), vec![target_at(1).ip()]];
                let answers = answers.map(|addresses| Name { addresses, delay: Duration::ZERO });
                net.names("flip.example", answers);
                let name = Address::from_host("flip.example", target_at(1).port()).unwrap();
                let client = route.associate(1000).await;
                for number in 0..3 {
                    client.send(&name, &message(&mut chance, number, 10));
                    sleep(WHILE).await;
                }
                assert!(arrivals.all().is_empty());
            }
        });
    }
}
