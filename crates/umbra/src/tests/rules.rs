//! Rules in each of their forms, good and bad, and where sessions go that none of them fits.

use std::fs;

use tempfile::TempDir;
use umbra_proto::address::Address;
use umbra_relay::router::{Decision, Query, Transport};
use zeroize::Zeroizing;

use super::ways::{assert_bad, client, hop_words};
use super::*;
use crate::raw::Value;

/// Where the first inbound leads a session.
fn leads(config: &Config, target: &str, transport: Transport, user: Option<&str>) -> String {
    let target: Address = target.parse().unwrap();
    let inbound = &config.inbounds[0];
    let source = "192.168.0.9".parse().unwrap();
    let query = Query { target: &target, transport, source, inbound: &inbound.name, user };
    match inbound.routes.decide(&query, None) {
        Decision::Take { verdict: Route::Path(path), .. } => path.name.to_string(),
        Decision::Take { verdict: Route::Group(group), .. } => group.name.to_string(),
        Decision::Take { verdict: Route::Refuse(refusal), .. } => format!("{refusal:?}"),
        Decision::Resolve => "resolve".into(),
        Decision::Unresolvable { .. } => panic!("nothing was resolved"),
    }
}

fn tcp(config: &Config, target: &str) -> String {
    leads(config, target, Transport::Tcp, None)
}

#[test]
fn the_first_rule_that_fits_decides() {
    let folder = TempDir::new().unwrap();
    let (names, networks) = (folder.path().join("names"), folder.path().join("networks"));
    fs::write(&names, "# of a file\nfull:listed.example\n").unwrap();
    fs::write(&networks, "203.0.113.0/24\n").unwrap();
    let file = format!(
        r#"{{"paths": [{{"name": "p", "hops": "socks5://a"}}], "otherwise": "p",
            "locals": [{{"local_port": 1, "users": [{{"name": "ann", "password": "long-enough"}}]}}, {{"local_port": 2, "name": "two"}}],
            "rules": [
                {{"domains": ["ads.example", "keyword:track", "full:a.b", "regexp:^x[0-9]$"], "to": "refuse", "reply": "connection_refused"}},
                {{"domain_files": "{}", "network_files": ["{}"], "to": "refuse", "name": "lists"}},
                {{"ports": [22, "8000-8999"], "to": "direct"}},
                {{"users": "ann", "inbounds": "local-1", "sources": ["192.168.0.0/16"], "network": "udp", "to": "refuse"}},
                {{"inbounds": ["two"], "to": "refuse"}},
                {{"networks": "10.0.0.0/8, 192.0.2.1", "to": "direct"}},
            ]}}"#,
        names.display(),
        networks.display()
    );
    let (config, warnings) = Outcome::good("umbra local", &file);
    assert_eq!(warnings, [""; 0]);
    for (target, way) in [
        ("ads.example:1", "ConnectionRefused"),
        ("www.ADS.example:1", "ConnectionRefused"),
        ("xtrackx.example:1", "ConnectionRefused"),
        ("a.b:1", "ConnectionRefused"),
        ("x1:1", "ConnectionRefused"),
        ("listed.example:1", "NotAllowed"),
        ("203.0.113.9:1", "NotAllowed"),
        ("192.0.2.9:22", "direct"),
        ("192.0.2.9:8999", "direct"),
        ("192.0.2.9:9000", "p"),
        ("10.1.2.3:1", "direct"),
        ("192.0.2.1:1", "direct"),
        ("192.0.2.2:1", "p"),
        ("other.example:1", "resolve"),
    ] {
        assert_eq!(tcp(&config, target), way, "{target}");
    }
    assert_eq!(leads(&config, "192.0.2.2:1", Transport::Udp, Some("ann")), "NotAllowed");
    assert_eq!(leads(&config, "192.0.2.2:1", Transport::Udp, Some("bob")), "p");
    assert_eq!(leads(&config, "192.0.2.2:1", Transport::Tcp, Some("ann")), "p");
}

#[test]
fn a_rule_that_cannot_be_one_is_told_with_the_remedy() {
    let bad = |rule: &str, errors: &'static [&'static str]| {
        (client(&format!(r#""otherwise": "direct", "rules": [{rule}]"#)), errors)
    };
    assert_bad(&[
        bad(r#"{"to": "direct"}"#, &["rules[0]: says nothing of when it fits"]),
        bad(r#"{"ports": 1}"#, &["rules[0].to: missing"]),
        bad(
            r#"{"ports": 1, "to": "dircet"}"#,
            &["rules[0].to: there is no way dircet; did you mean direct?"],
        ),
        bad(r#"{"ports": 1, "to": "servers"}"#, &["rules[0].to: there are no servers here"]),
        bad(r#"{"ports": [], "to": "direct"}"#, &["rules[0].ports: empty, so the rule fits nothing"]),
        bad(r#"{"domains": [], "to": "direct"}"#, &["rules[0].domains: empty"]),
        bad(r#"{"networks": [], "to": "direct"}"#, &["rules[0].networks: empty"]),
        bad(
            r#"{"ports": [0, "9-8", "x"], "to": "direct"}"#,
            &[
                "rules[0].ports[0]: 0 is no port",
                "rules[0].ports[1]: 9-8 is no port",
                "rules[0].ports[2]: x is no port",
            ],
        ),
        bad(
            r#"{"networks": ["10.0.0.0/33"], "to": "direct"}"#,
            &["rules[0].networks[0]: Not a valid CIDR notation"],
        ),
        bad(r#"{"sources": "x", "to": "direct"}"#, &["rules[0].sources: Not a valid CIDR notation"]),
        bad(
            r#"{"domains": ["*.example", "ful:a", "regexp:("], "to": "direct"}"#,
            &[
                "rules[0].domains[0]: no name has '*'",
                "rules[0].domains[1]: unknown prefix ful",
                "rules[0].domains[2]: it is no regular expression",
            ],
        ),
        bad(
            r#"{"domain_files": ["/nonexistent"], "to": "direct"}"#,
            &["rules[0].domain_files[0]: /nonexistent cannot be read"],
        ),
        bad(r#"{"domain_files": ["/"], "to": "direct"}"#, &["rules[0].domain_files[0]: / cannot be read"]),
        bad(
            r#"{"inbounds": ["dor"], "to": "direct"}"#,
            &["rules[0].inbounds[0]: there is no inbound dor; did you mean door?"],
        ),
        bad(
            r#"{"users": ["ann"], "to": "direct"}"#,
            &["rules[0].users[0]: there is no user ann; there is none"],
        ),
        bad(r#"{"network": "icmp", "to": "direct"}"#, &["rules[0].network: icmp is neither tcp nor udp"]),
        bad(r#"{"ports": 1, "to": "refuse", "reply": "no"}"#, &["rules[0].reply: unknown reply no"]),
        bad(
            r#"{"ports": 1, "to": "direct", "reply": "timed_out"}"#,
            &["rules[0].reply: is for whoever is refused"],
        ),
        bad(
            r#"{"domain": ["a"], "to": "direct"}"#,
            &[
                "rules[0].domain: unknown key, without which more or other traffic could go here than is meant; did you mean domains?",
                "rules[0]: says nothing of when it fits",
            ],
        ),
    ]);
}

#[test]
fn without_a_rule_that_fits_nothing_goes_direct_unless_somebody_says_so() {
    let rules = r#""rules": [{"ports": 25, "to": "refuse"}]"#;
    let errors = Outcome::bad("umbra local", &client(rules));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("otherwise: missing; say where sessions go"), "{errors:?}");
    let errors = Outcome::bad("umbra local", &client(r#""paths": [{"name": "p", "hops": "socks5://a"}]"#));
    assert!(errors[0].starts_with("otherwise: missing"), "{errors:?}");

    let server = r#""servers": [{"server": "a", "password": "long-enough"}]"#;
    for (rest, way) in [
        (format!(r#"{rules}, "otherwise": "direct""#), "direct"),
        (format!(r#"{rules}, "otherwise": "refuse""#), "NotAllowed"),
        (format!(r#"{rules}, "direct": true"#), "direct"),
        (format!(r#"{rules}, "outbound_proxy": "socks5://a""#), "outbound_proxy"),
        (format!("{rules}, {server}"), "servers"),
        (format!(r#"{rules}, {server}, "otherwise": "servers""#), "servers"),
    ] {
        let (config, _) = Outcome::good("umbra local", &client(&rest));
        assert_eq!(tcp(&config, "192.0.2.1:80"), way, "{rest}");
        assert_eq!(tcp(&config, "192.0.2.1:25"), "NotAllowed", "{rest}");
    }
    let (_, warnings) = Outcome::good("umbra local", &client(&format!(r#"{server}, "otherwise": "direct""#)));
    assert_eq!(warnings, ["servers: nothing leads to them; name them in a rule or otherwise"]);
    for both in [r#""outbound_proxy": "socks5://a""#, r#""direct": true"#] {
        let errors = Outcome::bad("umbra local", &client(&format!(r#"{both}, "otherwise": "refuse""#)));
        assert!(errors[0].starts_with("otherwise: cannot stand beside"), "{errors:?}");
    }
    let (config, _) = Outcome::good("umbra server", &format!(r#"{{"password": "long-enough", {rules}}}"#));
    assert_eq!(tcp(&config, "192.0.2.1:80"), "direct");
    assert_eq!(&*config.inbounds[0].name, "server-8388");
    let errors = Outcome::bad(
        "umbra server",
        r#"{"password": "long-enough", "rules": [{"ports": 1, "to": "servers"}]}"#,
    );
    assert!(errors[0].starts_with("rules[0].to: there are no servers here"), "{errors:?}");
}

#[test]
fn datagrams_are_not_led_where_none_can_go() {
    let paths = r#""paths": [{"name": "http", "hops": "http://a"}, {"name": "socks", "hops": "socks5://a"},
                             {"name": "chain", "hops": ["socks5://a", "socks5://b"]},
                             {"name": "mixed", "hops": ["socks5://a", "http://b"]}]"#;
    for (to, is_good) in
        [("socks", true), ("chain", true), ("http", false), ("mixed", false), ("direct", true)]
    {
        let file = client(&format!(
            r#"{paths}, "rules": [{{"network": "udp", "to": "{to}"}}], "otherwise": "direct""#
        ));
        let errors = outcome("umbra local", &file).errors;
        assert_eq!(errors.is_empty(), is_good, "{to}: {errors:?}");
        let told = "SOCKS5 and Shadowsocks carry them, alone and behind one another";
        assert!(
            is_good
                || errors[0].starts_with(&format!(
                    "rules[0].to: no datagram can go through {to}: of proxies, {told}"
                )),
            "{errors:?}"
        );
    }
    for (mode, is_good) in
        [(r#""mode": "tcp_and_udp","#, false), (r#""mode": "tcp_only","#, true), ("", true)]
    {
        let file = client(&format!(r#"{mode} "outbound_proxy": "http://a""#));
        let errors = outcome("umbra local", &file).errors;
        assert_eq!(errors.is_empty(), is_good, "{mode}: {errors:?}");
        assert!(is_good || errors[0].starts_with("mode: no datagram can leave"), "{errors:?}");
    }
    for (ways, takes) in [
        (r#""outbound_proxy": "http://a""#.to_owned(), false),
        (r#""outbound_proxy": "socks5://a""#.to_owned(), true),
        (format!(r#"{paths}, "rules": [{{"ports": 1, "to": "socks"}}], "otherwise": "http""#), true),
        (format!(r#"{paths}, "rules": [{{"ports": 1, "to": "http"}}], "otherwise": "refuse""#), false),
    ] {
        let (config, warnings) = Outcome::good("umbra local", &client(&ways));
        assert_eq!(config.inbounds[0].mode.datagrams().is_some(), takes, "{ways}: {warnings:?}");
        assert!(config.inbounds[0].mode.has_streams());
    }
    let file = client(&format!(
        r#"{paths}, "mode": "tcp_and_udp", "rules": [{{"network": "udp", "to": "socks"}}], "otherwise": "http""#
    ));
    Outcome::good("umbra local", &file);
}

#[test]
fn forbidden_targets_are_kept_to_on_every_way_whatever_rules_say() {
    let rules = r#""rules": [{"ports": 22, "to": "direct"}]"#;
    let paths = r#""paths": [{"name": "p", "hops": "socks5://a"}], "otherwise": "p""#;
    let (config, _) =
        Outcome::good("umbra server", &format!(r#"{{"password": "long-enough", {rules}, {paths}}}"#));
    assert_eq!(forbids(&config), ["127.0.0.1", "169.254.169.254"]);
    let said = format!(r#"{{"password": "long-enough", "forbid_private": true, {rules}, {paths}}}"#);
    let (config, warnings) = Outcome::good("umbra server", &said);
    assert_eq!(forbids(&config), ["127.0.0.1", "169.254.169.254", "10.0.0.1"]);
    assert!(warnings[0].starts_with("forbid_private: held to addresses and to names"), "{warnings:?}");
    let said = format!(r#"{{"password": "long-enough", "forbid_private": true, {paths}}}"#);
    let (config, warnings) = Outcome::good("umbra server", &said);
    assert_eq!(forbids(&config), ["127.0.0.1", "169.254.169.254", "10.0.0.1"]);
    assert!(warnings[0].starts_with("forbid_private: held to addresses and to names"), "{warnings:?}");
    let (config, warnings) =
        Outcome::good("umbra local --forbid-private", &client(&format!("{rules}, {paths}")));
    assert_eq!((forbids(&config).len(), warnings.len()), (3, 0), "{warnings:?}");
}

#[test]
fn an_access_list_is_followed_at_both_ends() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.acl");
    let acl = |text: &str| {
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let file =
        acl("[proxy_all]\n[bypass_list]\n10.0.0.0/8\n||local.example\n[outbound_block_list]\n192.0.2.0/24\n");
    let server = r#""servers": [{"server": "a", "password": "long-enough"}]"#;
    let (config, warnings) = Outcome::good("umbra local", &client(&format!(r#"{server}, "acl": "{file}""#)));
    assert_eq!(tcp(&config, "10.0.0.1:1"), "direct");
    assert_eq!(tcp(&config, "x.local.example:1"), "direct");
    assert_eq!(tcp(&config, "8.8.8.8:1"), "servers");
    assert!(warnings[0].contains("left aside: speaks of a server's targets"), "{warnings:?}");
    let (config, _) = Outcome::good(&format!("umbra local --acl {file} -s a -k long-enough"), "");
    assert_eq!(tcp(&config, "8.8.8.8:1"), "servers");
    let paths = r#""paths": [{"name": "p", "hops": "socks5://a"}], "otherwise": "p""#;
    let (config, _) = Outcome::good("umbra local", &client(&format!(r#"{paths}, "acl": "{file}""#)));
    assert_eq!(tcp(&config, "8.8.8.8:1"), "p");
    let (config, _) =
        Outcome::good("umbra server", &format!(r#"{{"password": "long-enough", "acl": "{file}"}}"#));
    assert_eq!(tcp(&config, "192.0.2.1:1"), "NotAllowed");
    assert_eq!(tcp(&config, "8.8.8.8:1"), "direct");

    for (rest, error) in [
        (
            format!(r#"{server}, "acl": "{file}", "rules": [{{"ports": 1, "to": "direct"}}]"#),
            "acl: cannot stand beside rules",
        ),
        (format!(r#""acl": "{file}""#), "otherwise: missing"),
        (format!(r#""direct": true, "acl": "{file}""#), "acl: has nothing to lead through"),
        (format!(r#"{server}, "acl": "/nonexistent""#), "acl: /nonexistent cannot be read"),
    ] {
        let errors = Outcome::bad("umbra local", &client(&rest));
        assert_eq!(errors.len(), 1, "{rest}: {errors:?}");
        assert!(errors[0].starts_with(error), "{rest}: {errors:?}");
    }
    // A list that is not there says nothing of datagrams.
    for path in ["", "/nonexistent"] {
        let file = format!(r#"{{"password": "long-enough", "mode": "tcp_and_udp", "acl": "{path}"}}"#);
        let errors = Outcome::bad("umbra server", &file);
        assert!(errors.len() == 1 && errors[0].starts_with("acl: "), "{path}: {errors:?}");
        let file = client(&format!(r#"{server}, "mode": "tcp_and_udp", "acl": "{path}""#));
        let errors = Outcome::bad("umbra local", &file);
        assert!(errors.len() == 1 && errors[0].starts_with("acl: "), "{path}: {errors:?}");
    }
    let file = acl("[proxy_al]\n");
    let errors = Outcome::bad("umbra local", &client(&format!(r#"{server}, "acl": "{file}""#)));
    assert!(errors[0].contains("x.acl:1: unknown section"), "{errors:?}");
    let inside = client(&format!(r#"{server}, "rules": []"#)).replace(r#""name": "door""#, r#""acl": "x""#);
    assert!(Outcome::bad("umbra local", &inside)[0].starts_with("locals[0].acl: has no meaning here"));
}

/// Traffic Server's two files in a folder.
fn traffic_server(records: &str, socks: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let lines = records.split(';').filter(|line| !line.is_empty());
    let lines: String = lines.map(|line| format!("CONFIG proxy.config.socks.{line}\n")).collect();
    fs::write(folder.path().join("records.config"), lines).unwrap();
    fs::write(folder.path().join("socks.config"), socks).unwrap();
    folder
}

#[test]
fn traffic_servers_files_are_followed_and_lead_nowhere_but_where_they_say() {
    let socks = "auth u me secret\nno_socks 10.0.0.0/8\ndest_ip=192.0.2.0-192.0.2.255 parent=\"a:1; b:2\" round_robin=strict\n\
                 dest_ip=192.0.2.7 parent=\"c:3\"\n";
    let five = "socks_needed INT 1;socks_version INT 5;server_connect_timeout INT 4;socks_timeout INT 7";
    let folder = traffic_server(five, socks);
    let path = folder.path().display();
    let file = client(&format!(r#""records_config": "{path}/records.config""#));
    let (config, warnings) = Outcome::good("umbra local", &file);
    assert_eq!(warnings, [""; 0]);
    assert_eq!(tcp(&config, "10.1.1.1:1"), "direct");
    assert_eq!(tcp(&config, "127.0.0.1:1"), "direct");
    assert_eq!(tcp(&config, "192.0.2.1:1"), format!("{path}/socks.config:3"));
    assert_eq!(tcp(&config, "192.0.2.7:1"), format!("{path}/socks.config:4"), "the later line wins");
    assert_eq!(tcp(&config, "8.8.8.8:1"), "NotAllowed", "nothing goes direct that no line says");
    let target = "192.0.2.1:1".parse().unwrap();
    let inbound = &config.inbounds[0];
    let query = Query {
        target: &target,
        transport: Transport::Tcp,
        source: "127.0.0.1".parse().unwrap(),
        inbound: &inbound.name,
        user: None,
    };
    let Decision::Take { verdict: Route::Group(group), .. } = inbound.routes.decide(&query, None) else {
        panic!("no group")
    };
    let paths = group.paths();
    assert_eq!(hop_words(&paths[0].hops[0]), "socks5 true a:1 on");
    assert_eq!((paths[0].deadlines.connect.as_secs(), paths[0].deadlines.negotiate.as_secs()), (4, 21));

    let rest = client(&format!(r#""records_config": "{path}/records.config", "otherwise": "direct""#));
    assert_eq!(tcp(&Outcome::good("umbra local", &rest).0, "8.8.8.8:1"), "direct");
    let alone = client(&format!(r#""socks_config": "{path}/socks.config""#));
    let (config, warnings) = Outcome::good("umbra local", &alone);
    assert_eq!(tcp(&config, "8.8.8.8:1"), "NotAllowed");
    assert!(warnings[0].starts_with("socks_config: its login is left aside"), "{warnings:?}");

    let default = traffic_server(
        "socks_needed INT 1;default_servers STRING d:4;accept_enabled INT 1;accept_port INT 9",
        "",
    );
    let path = default.path().display();
    let file = client(&format!(r#""records_config": "{path}/records.config""#));
    let (config, warnings) = Outcome::good("umbra local", &file);
    assert_eq!(tcp(&config, "8.8.8.8:1"), "default_servers");
    assert!(warnings[0].starts_with("records_config: its accept_port is left aside"), "{warnings:?}");
}

#[test]
fn what_is_wrong_in_traffic_servers_files_starts_nothing() {
    for (records, socks, rest, error) in [
        ("socks_needed INT 0", "no_socks 10.0.0.1", "", "records.config:1: the file says socks_needed 0"),
        ("socks_needed INT 1;socks_version INT 6", "", "", "records.config:2: socks_version: 6 does not do"),
        ("socks_needed INT 1", "no_socks 10.0.0.1 -", "", "socks.config:1: no_socks: 10.0.0.1 -"),
        ("socks_needed INT 1;socks_config_file STRING none", "", "", "none cannot be read"),
        (
            "socks_needed INT 1",
            "no_socks 10.0.0.1",
            r#", "direct": true"#,
            "direct: cannot stand beside Traffic Server's files",
        ),
        (
            "socks_needed INT 1",
            "no_socks 10.0.0.1",
            r#", "rules": [{"ports": 1, "to": "direct"}]"#,
            "cannot stand beside rules",
        ),
        (
            "socks_needed INT 1;default_servers STRING d:4",
            "",
            r#", "otherwise": "direct""#,
            "otherwise: cannot stand beside default_servers",
        ),
    ] {
        let folder = traffic_server(records, socks);
        let path = folder.path().display();
        let file = client(&format!(r#""records_config": "{path}/records.config"{rest}"#));
        let errors = Outcome::bad("umbra local", &file);
        assert_eq!(errors.len(), 1, "{records} {rest}: {errors:?}");
        assert!(errors[0].contains(error), "{errors:?} / {error}");
    }
    let errors = Outcome::bad("umbra local", &client(r#""socks_config": "/nonexistent""#));
    assert!(errors[0].starts_with("socks_config: /nonexistent cannot be read"), "{errors:?}");
}

#[test]
fn traffic_servers_files_that_lead_nowhere_are_an_error_as_a_list_without_an_entry_is() {
    for (records, socks) in [
        ("socks_needed INT 1", ""),
        ("socks_needed INT 1", "# parents\n\n"),
        ("socks_needed INT 1;socks_version INT 5", "auth u me secret\n"),
        ("socks_needed INT 1;default_servers STRING NULL", "# none\n"),
    ] {
        let folder = traffic_server(records, socks);
        let path = folder.path().display();
        for keys in [
            format!(r#""records_config": "{path}/records.config""#),
            format!(r#""records_config": "{path}/records.config", "otherwise": "direct""#),
            format!(r#""socks_config": "{path}/socks.config", "otherwise": "direct""#),
        ] {
            let errors = Outcome::bad("umbra local", &client(&keys));
            assert_eq!(errors.len(), 1, "{records} {socks}: {errors:?}");
            let wanted = format!("{path}/socks.config:1: there is no dest_ip line and no no_socks line");
            assert!(
                errors[0].starts_with(&wanted) && errors[0].contains("or take the key out"),
                "{errors:?}"
            );
        }
    }
    let folder = traffic_server("socks_needed INT 1", "no_socks 127.0.0.1\n");
    let path = folder.path().display();
    let file = client(&format!(r#""records_config": "{path}/records.config", "otherwise": "direct""#));
    Outcome::good("umbra local", &file);
}

#[test]
fn what_is_wrong_in_both_of_traffic_servers_files_is_told_at_once() {
    let folder = traffic_server(
        "socks_needed INT 1;socks_version INT 6;socks_timeout INT 0",
        "no_socks x\nfoo\nauth u a\n",
    );
    let path = folder.path().display();
    let file = client(&format!(
        r#""records_config": "{path}/records.config", "socks_config": "{path}/socks.config""#
    ));
    let errors = Outcome::bad("umbra local", &file);
    for (found, line) in errors.iter().zip([
        "records.config:2",
        "records.config:3",
        "socks.config:1",
        "socks.config:2",
        "socks.config:3",
    ]) {
        assert!(found.contains(line), "{found} / {line}");
    }
    assert_eq!(errors.len(), 5, "{errors:#?}");
}

#[test]
fn every_line_of_a_list_that_is_wrong_is_told_and_a_list_of_none_is_wrong() {
    let folder = TempDir::new().unwrap();
    let list = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let names = list("names.txt", &"a b\n".repeat(23));
    let nets = list("nets.txt", "10.0.0.0/33\n10.0.0.0/8\n010.0.0.1/8\n");
    let none = list("none.txt", "# to come\n");
    let good = list("good.txt", "a.example\n");
    let rule = |keys: &str| {
        let file = client(&format!(r#""rules": [{{{keys}, "to": "refuse"}}], "otherwise": "direct""#));
        outcome("umbra local", &file).errors
    };
    let errors = rule(&format!(r#""domain_files": ["{good}", "{names}"], "network_files": "{nets}""#));
    assert_eq!(errors.len(), 23, "{errors:#?}");
    assert!(
        errors[0].starts_with(&format!("rules[0].domain_files[1]: {names}:1: no name has ' '; ")),
        "{errors:?}"
    );
    assert_eq!(errors[20], format!("rules[0].domain_files[1]: {names}: 3 more lines are wrong"));
    assert!(
        errors[22].starts_with(&format!("rules[0].network_files: {nets}:3: it is neither")),
        "{errors:?}"
    );
    for keys in [
        format!(r#""domain_files": "{none}""#),
        format!(r#""domain_files": ["{good}", "{none}"]"#),
        format!(r#""network_files": "{none}""#),
        format!(r#""domains": "b.example", "network_files": "{none}""#),
    ] {
        let errors = rule(&keys);
        assert_eq!(errors.len(), 1, "{keys}: {errors:?}");
        assert!(
            errors[0].contains("none.txt:1: there is no entry in the file, which would fit nothing; "),
            "{errors:?}"
        );
    }
    let acl = |path: &str| {
        outcome("umbra server", &format!(r#"{{"password": "long-enough", "acl": "{path}"}}"#)).errors
    };
    assert!(acl(&none)[0].starts_with(&format!("acl: {none}:1: there is no entry")), "{:?}", acl(&none));
    let lines = list("x.acl", "[a]\n[bypass_list]\n10.0.0.0/8\n10.0.0.0/33\n");
    assert_eq!(acl(&lines).len(), 2, "{:?}", acl(&lines));
}

#[test]
fn a_file_without_a_path_and_one_that_is_no_text_are_told_as_such() {
    for keys in [
        r#""server": "a", "password": "long-enough", "acl": """#,
        r#""socks_config": """#,
        r#""records_config": """#,
        r#""otherwise": "direct", "rules": [{"domain_files": [""], "to": "refuse"}]"#,
        r#""otherwise": "direct", "rules": [{"network_files": "", "to": "refuse"}]"#,
        r#""otherwise": "p", "paths": [{"name": "p", "hops": [{"url": "https://a", "ca_file": ""}]}]"#,
    ] {
        let errors = outcome("umbra local", &client(keys)).errors;
        let told = errors
            .iter()
            .filter(|error| error.ends_with(": empty; give the path of a file, or leave it out"));
        assert_eq!(told.count(), 1, "{keys}: {errors:?}");
        assert!(!errors.concat().contains("cannot be read"), "{errors:?}");
    }
    let users = Outcome::bad("umbra local", r#"{"direct": true, "socks5_auth_config_path": ""}"#);
    assert_eq!(users, ["socks5_auth_config_path: empty; give the path of a file, or leave it out"]);
    let folder = traffic_server("socks_needed INT 1", "");
    let path = folder.path().display();
    for (file, key) in [("socks.config", "socks_config"), ("records.config", "records_config")] {
        fs::write(folder.path().join(file), b"# one\n# two\n\xff\xfe\n").unwrap();
        let errors = Outcome::bad("umbra local", &client(&format!(r#""{key}": "{path}/{file}""#)));
        let wanted = format!("{path}/{file}:3: the line is not UTF-8 text; check the path, and save");
        assert!(errors[0].starts_with(&wanted), "{errors:?}");
    }
}

#[test]
fn a_network_with_zeros_in_front_is_none_wherever_it_stands() {
    let rule = |key: &str| {
        let file = client(&format!(
            r#""rules": [{{"{key}": "010.0.0.1/8", "to": "refuse"}}], "otherwise": "direct""#
        ));
        Outcome::bad("umbra local", &file)
    };
    for errors in [
        rule("networks"),
        rule("sources"),
        Outcome::bad("umbra server", r#"{"password": "long-enough", "forbidden_ip": "010.0.0.1/8"}"#),
        Outcome::bad("umbra server", r#"{"password": "long-enough", "allowed_ip": "010.0.0.1/8"}"#),
        Outcome::bad(
            "umbra server",
            r#"{"password": "long-enough", "accept_proxy_protocol": "010.0.0.1/8"}"#,
        ),
    ] {
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("Not a valid CIDR notation: 010.0.0.1/8; "), "{errors:?}");
    }
}

#[test]
fn rules_without_a_server_are_for_a_client() {
    let guess = |file: &str| {
        let file = file::parse("x.json", file, &mut Report::default()).unwrap();
        guess_role(&Sources { file, ..Sources::default() })
    };
    assert_eq!(guess(r#"{"otherwise": "direct"}"#), Role::Client);
    assert_eq!(guess(r#"{"password": "x", "otherwise": "direct"}"#), Role::Server);
    for way in [r#""outbound_proxy": "socks5://a""#, r#""paths": []"#, r#""groups": []"#] {
        assert_eq!(guess(&format!("{{{way}}}")), Role::Client, "{way}");
        assert_eq!(guess(&format!(r#"{{"password": "x", {way}}}"#)), Role::Server, "{way}");
    }
    let mut flags = Settings::default();
    flags.insert(Id::OutboundProxy, "--outbound-proxy", Value::Text(Zeroizing::new("socks5://a".into())));
    assert_eq!(guess_role(&Sources { flags, ..Sources::default() }), Role::Client);
}
