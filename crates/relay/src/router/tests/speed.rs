//! How long a million names take to load, and how long a match among them takes. Not a test of anything:
//! `CARGO_PROFILE_RELEASE_LTO=off cargo test --release -p umbra-relay router::tests::speed -- --ignored --nocapture`

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::list::{read_names, read_networks};
use super::*;

const NAMES: u32 = 1_000_000;

#[test]
#[ignore = "a measurement, to be run optimised and alone"]
fn speed_of_a_million_names() {
    let mut text = String::new();
    for number in 0..NAMES {
        writeln!(text, "{}", name_of(number)).unwrap();
    }
    let began = on_cpu();
    let mut targets = TargetsBuilder::default();
    read_names("names.txt", text.as_bytes(), &mut targets).unwrap();
    let targets = targets.build().unwrap();
    let loaded = on_cpu() - began;
    println!("{NAMES} names, {} MB: loaded in {:.0} ms", text.len() / 1_000_000, loaded.as_secs_f64() * 1e3);
    let router = one_rule(targets);
    let scattered = (0..NAMES).map(|number| number.wrapping_mul(2_654_435_761) % NAMES);
    let below = scattered.clone().map(|number| format!("www.{}", name_of(number))).collect::<Vec<_>>();
    let beside = scattered.map(|number| format!("www.x{}", name_of(number))).collect::<Vec<_>>();
    measure("below one of them", &router, &below, true);
    measure("below none of them", &router, &beside, false);
    measure("of 127 labels", &router, &many("a.".repeat(126) + "a"), false);
    measure("of 253 bytes and few labels", &router, &many("a".repeat(251) + ".c"), false);
}

#[test]
#[ignore = "a measurement, to be run optimised and alone"]
fn speed_of_a_hundred_thousand_networks_and_of_patterns() {
    let text: String = (0..100_000_u32).map(|n| format!("{}/24\n", Ipv4Addr::from(n << 13))).collect();
    let began = on_cpu();
    let mut targets = TargetsBuilder::default();
    read_networks("networks.txt", text.as_bytes(), &mut targets).unwrap();
    let router = one_rule(targets.build().unwrap());
    println!("100000 networks: loaded in {:.1} ms", (on_cpu() - began).as_secs_f64() * 1e3);
    let inside: Vec<_> = (0..100_000_u32)
        .map(|n| Ipv4Addr::from((n.wrapping_mul(40_503) % 100_000) << 13 | 7).to_string())
        .collect();
    measure("in one of the networks", &router, &inside, true);

    let began = on_cpu();
    let mut targets = TargetsBuilder::default();
    for number in 0..4000 {
        targets.pattern(&format!("^[a-z]+{number}x?\\.example$")).unwrap();
    }
    let router = one_rule(targets.build().unwrap());
    println!("4000 patterns: compiled in {:.0} ms", (on_cpu() - began).as_secs_f64() * 1e3);
    measure("with the last pattern", &router, &many("abc3999.example".into()), true);
    measure("of 253 bytes with no pattern", &router, &many("a".repeat(253)), false);
    let scattered: Vec<_> = (0..1000).map(|n| format!("{}.example", "ab7c9x".repeat(n % 40))).collect();
    measure("of many kinds with no pattern", &router, &scattered, false);
}

fn name_of(number: u32) -> String {
    format!("{:x}.{}.example", number.wrapping_mul(2_654_435_761), number % 1000)
}

/// So many that reading the clock costs nothing beside them.
fn many(name: String) -> Vec<String> {
    vec![name; 1000]
}

fn one_rule(targets: Targets) -> Router<Way> {
    let conditions = Conditions { target: Some(targets), ..Conditions::default() };
    let rule = Rule { name: "0".into(), conditions, verdict: Way::Refuse };
    Router { rules: vec![rule], otherwise: Way::Path(0) }
}

fn measure(what: &str, router: &Router<Way>, targets: &[String], fits: bool) {
    let targets: Vec<_> = targets.iter().map(|text| Address::from_host(text, 443).unwrap()).collect();
    let source = IpAddr::from([192, 0, 2, 1]);
    let (mut rounds, began) = (0_u32, on_cpu());
    let mut took = Duration::ZERO;
    while took < Duration::from_millis(300) {
        for target in &targets {
            let query = Query { target, transport: Transport::Tcp, source, inbound: "", user: None };
            let decision = black_box(router.route(black_box(&query), None));
            assert_eq!(matches!(decision, Decision::Take { rule: Some(_), .. }), fits);
        }
        rounds += 1;
        took = on_cpu() - began;
    }
    let each = took.as_secs_f64() / f64::from(rounds) / targets.len() as f64;
    println!("    a match {what}: {:.0} ns", each * 1e9);
}

/// What this thread has had of a processor, however many others want one.
fn on_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
