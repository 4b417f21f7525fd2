//! What is explained of a session to a name, whose addresses are told here.

use super::*;
use std::fs;
use std::net::TcpListener;

use umbra_relay::router::Networks;

use crate::flags::{Command, parse};

/// What is explained of a session that `words` ask for, by `file`, where the names of targets have the addresses `known`.
struct Told {
    explained: Explained,
    forbidden: Arc<Forbidden>,
    looked_up: bool,
}

impl Told {
    fn new(file: &str, words: &[&str], known: &[&str]) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("umbra.json");
        fs::write(&path, file).unwrap();
        let words = [&["umbra", "route", "-c", path.to_str().unwrap()], words].concat();
        let Ok(Command::Route(asked)) = parse(words.into_iter().map(Into::into)) else {
            panic!("it is about a route")
        };
        let mut report = Report::default();
        let plan = plan_of(asked.role, asked.options, &mut report);
        let plan = plan.unwrap_or_else(|| panic!("{:?}", report.errors));
        let inbound = &plan.config.inbounds[0];
        let looked_up = std::cell::Cell::new(false);
        let look_up = |target: &Address| {
            if let Address::Ip(address) = target {
                return vec![*address];
            }
            looked_up.set(true);
            known.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), target.port())).collect()
        };
        let explained = explain(&plan, inbound, &asked.session, asked.dials, look_up);
        Self { explained, forbidden: Arc::clone(&inbound.forbidden), looked_up: looked_up.get() }
    }

    fn text(&self) -> &str {
        &self.explained.text
    }

    /// What datagrams are sent to.
    fn asked(&self) -> Option<String> {
        match self.explained.purpose.as_ref()? {
            Purpose::Datagrams(target) => Some(target.to_string()),
            Purpose::Stream { .. } | Purpose::LastHop => panic!("it is about datagrams"),
        }
    }

    /// The addresses that a stream is held to.
    fn allowed(&self) -> Option<Vec<String>> {
        match self.explained.purpose.as_ref()? {
            Purpose::Stream { addresses, .. } => {
                Some(addresses.as_ref()?.iter().map(|address| address.ip().to_string()).collect())
            }
            Purpose::Datagrams(_) | Purpose::LastHop => panic!("it is about a stream"),
        }
    }

    fn dial(mut self) -> String {
        dial_all(&mut self.explained.rows, &self.explained.purpose.unwrap(), &self.forbidden);
        table(&self.explained.rows)
    }
}

const TWO: [&str; 2] = ["127.0.0.1", "127.0.0.2"];

/// A client by whose one rule sessions to `network` go direct, and others nowhere.
fn only(network: &str) -> String {
    with_rule(&format!(r#"{{"networks": "{network}", "to": "direct"}}"#), "")
}

/// A client with one rule, which forbids the addresses that are `forbidden`.
fn with_rule(rule: &str, forbidden: &str) -> String {
    format!(
        r#"{{"local_port": 0, "mode": "tcp_and_udp", "forbidden_ip": "{forbidden}", "rules": [{rule}], "otherwise": "refuse"}}"#
    )
}

#[test]
fn a_name_is_dialled_at_the_addresses_that_its_rules_have_looked_at_and_let_pass() {
    let found = ["127.0.0.1:7", "127.0.0.2:7"].map(|text| text.parse().unwrap());
    let networks = Networks::new(["127.0.0.2/32".parse().unwrap()]);
    assert_eq!(allowed_by(Dial::Within(&networks), found.to_vec()), Some(found[1..].to_vec()));
    assert_eq!(allowed_by(Dial::Addresses, found.to_vec()), Some(found.to_vec()));
    assert_eq!(allowed_by(Dial::Target, found.to_vec()), None);

    let allowed = |network: &str| Told::new(&only(network), &["two.example:7"], &TWO).allowed();
    assert_eq!(allowed("127.0.0.0/8"), Some(TWO.map(Into::into).to_vec()));
    assert_eq!(allowed("127.0.0.2/32"), Some(vec!["127.0.0.2".into()]));
    let by_name = with_rule(r#"{"domains": "two.example", "to": "direct"}"#, "");
    assert_eq!(Told::new(&by_name, &["two.example:7"], &TWO).allowed(), None, "no rule had to know");
}

#[test]
fn a_route_dials_no_address_that_its_rule_does_not_allow() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("two.example:{}", listener.local_addr().unwrap().port());
    for (network, is_there) in [("127.0.0.1/32", true), ("127.0.0.2/32", false)] {
        let rows = Told::new(&only(network), &[&target], &TWO).dial();
        assert_eq!(rows.contains(" ok "), is_there, "{rows}");
        assert_eq!(rows.contains("Connection refused"), !is_there, "{rows}");
    }
}

#[test]
fn a_question_goes_to_the_address_that_the_datagrams_of_a_session_would_go_to() {
    let words = ["--udp", "two.example:53"];
    let asked = |network: &str| Told::new(&only(network), &words, &TWO).asked();
    assert_eq!(asked("127.0.0.2/32").as_deref(), Some("127.0.0.2:53"), "the only one that is allowed");
    assert_eq!(asked("127.0.0.0/8").as_deref(), Some("127.0.0.1:53"));
    let forbidding = with_rule(r#"{"networks": "127.0.0.0/8", "to": "direct"}"#, "127.0.0.1");
    let told = Told::new(&forbidding, &words, &TWO);
    assert_eq!(told.asked().as_deref(), Some("127.0.0.2:53"), "there is one that nobody forbids");
    let told = Told::new(&forbidding, &words, &TWO[..1]);
    assert_eq!(told.asked(), None, "nobody is led there");
    assert!(told.text().contains("127.0.0.1 is forbidden"), "{}", told.text());

    let nowhere = only("192.0.2.1").replace("\"refuse\"", "\"direct\"");
    let told = Told::new(&nowhere, &words, &[]);
    assert_eq!(told.asked(), None);
    assert!(told.text().contains("has no address to send to, so they are dropped"), "{}", told.text());
    for words in [&["two.example:80"][..], &["--no-dial", "two.example:80"]] {
        let told = Told::new(&nowhere, words, &[]);
        let text = "where the name has no address to connect to, so every one fails";
        assert!(told.text().contains(text), "{}", told.text());
        assert!(!Told::new(&nowhere, words, &TWO).text().contains(text));
    }
    let through = only("192.0.2.1").replace("\"refuse\"", "\"here\"");
    let paths = r#"{"paths": [{"name": "here", "hops": "socks5://192.0.2.9"}], "#;
    let told = Told::new(&through.replacen('{', paths, 1), &words, &[]);
    assert_eq!(told.asked(), None, "it is told addresses alone");
    // A proxy has the name, where no rule had to know.
    let proxy = r#"{"local_port": 0, "mode": "tcp_and_udp", "outbound_proxy": "socks5h://192.0.2.9"}"#;
    assert_eq!(Told::new(proxy, &words, &TWO).asked().as_deref(), Some("two.example:53"));
}

#[test]
fn addresses_are_judged_where_a_session_would_find_them() {
    let file = |ways: &str| format!(r#"{{"local_port": 0, "forbidden_ip": "127.0.0.1", {ways}}}"#);
    let told = |ways: &str, target: &str| Told::new(&file(ways), &[target], &TWO);
    let is_judged = |told: &Told| told.text().contains("127.0.0.1 is forbidden");
    let paths = r#""paths": [{"name": "here", "hops": "socks5://192.0.2.9"}, {"name": "there", "hops": "socks5h://192.0.2.9"}],
        "groups": [{"name": "both", "members": ["here", "there"]}]"#;
    let to =
        |way: &str| format!(r#"{paths}, "rules": [{{"ports": 7, "to": "direct"}}], "otherwise": "{way}""#);

    let left = told(&to("there"), "two.example:80");
    assert!(!left.looked_up && !is_judged(&left), "{}", left.text());
    let words = "whose last proxy resolves the name, to addresses that are not judged here";
    assert!(left.text().contains(words), "{}", left.text());

    for (way, port) in [("here", 80), ("there", 7)] {
        let found = told(&to(way), &format!("two.example:{port}"));
        assert!(found.looked_up && is_judged(&found), "{way}: {}", found.text());
        assert!(!found.text().contains("last proxy"), "{}", found.text());
    }
    let some = told(&to("both"), "two.example:80");
    assert!(is_judged(&some) && some.text().contains("of which 1 have"), "{}", some.text());
    // What is an address, or has to be known, is judged whoever is asked.
    assert!(is_judged(&told(&to("there"), "127.0.0.1:80")));
    let known =
        format!(r#"{paths}, "rules": [{{"networks": "127.0.0.0/8", "to": "there"}}], "otherwise": "direct""#);
    let known = told(&known, "two.example:80");
    assert!(is_judged(&known) && !known.text().contains("last proxy"), "{}", known.text());
}

#[test]
fn a_session_takes_none_of_the_servers_that_do_not_carry_it() {
    let server = |port: u16, mode: &str| {
        format!(
            r#"{{"server": "127.0.0.1", "server_port": {port}, "password": "long-enough", "mode": "{mode}"}}"#
        )
    };
    let file = |servers: &[String]| {
        format!(r#"{{"local_port": 0, "mode": "tcp_and_udp", "servers": [{}]}}"#, servers.join(", "))
    };
    let (streams, datagrams) = (server(1, "tcp_only"), server(2, "udp_only"));
    let mixed = file(&[streams.clone(), datagrams.clone()]);
    for (words, there, other) in [
        (&["192.0.2.1:80"][..], "127.0.0.1:1", "127.0.0.1:2"),
        (&["--udp", "192.0.2.1:53"], "127.0.0.1:2", "127.0.0.1:1"),
    ] {
        let told = Told::new(&mixed, words, &[]);
        assert!(told.text().contains("group servers, one of 1 paths"), "{}", told.text());
        let rows = table(&told.explained.rows);
        assert!(rows.contains(there) && !rows.contains(other), "{rows}");
    }
    for (server, words, what) in [
        (&datagrams, &["192.0.2.1:80"][..], "of which none carries streams, so every one is refused"),
        (&streams, &["--udp", "192.0.2.1:53"], "of which none carries datagrams, so they are dropped"),
    ] {
        let told = Told::new(&file(std::slice::from_ref(server)), words, &[]);
        assert!(told.explained.rows.is_empty() && told.text().contains(what), "{}", told.text());
    }
}
