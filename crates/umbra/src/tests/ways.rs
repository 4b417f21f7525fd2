//! Paths and groups: each key, good and bad.

use std::fs;

use base64::prelude::*;
use proptest::prelude::*;
use tempfile::TempDir;
use umbra_relay::config::Names;

use super::*;

/// A client's file with one inbound, and `rest`.
pub(super) fn client(rest: &str) -> String {
    format!(r#"{{"locals": [{{"local_port": 1080, "name": "door"}}], {rest}}}"#)
}

/// A client with one path of these hops.
fn hops(hops: &str) -> String {
    client(&format!(r#""paths": [{{"name": "p", "hops": {hops}}}], "otherwise": "p""#))
}

pub(super) fn path_of(route: &Route) -> &Path {
    match route {
        Route::Path(path) => path,
        Route::Group(_) | Route::Refuse(_) => panic!("{route:?}"),
    }
}

/// The proxies on the way where no rule fits.
fn hops_of(file: &str) -> Vec<String> {
    let (config, _) = Outcome::good("umbra local", file);
    let path = path_of(config.inbounds[0].routes.otherwise());
    path.hops.iter().map(hop_words).collect()
}

pub(super) fn hop_words(hop: &Hop) -> String {
    match hop {
        Hop::Shadowsocks(server) => format!("ss {} {}", server.address, server.credentials.method()),
        Hop::Parent(Parent { address, protocol, names, tls }) => {
            let protocol = match protocol {
                ParentProtocol::Socks4(user) => format!("socks4 {}", !user.is_empty()),
                ParentProtocol::Socks5(login) => format!("socks5 {}", login.is_some()),
                ParentProtocol::Http(login) => format!("http {}", login.is_some()),
            };
            let names = match names {
                Names::PassOn => "on",
                Names::ResolveHere => "here",
            };
            let tls = tls.as_ref().map_or_else(String::new, |tls| format!(" {tls:?}"));
            format!("{protocol} {address} {names}{tls}")
        }
    }
}

/// Errors that have to be told for each of these files, and nothing beside them.
pub(super) fn assert_bad(cases: &[(String, &[&str])]) {
    for (file, expected) in cases {
        let errors = Outcome::bad("umbra local", file);
        assert_eq!(errors.len(), expected.len(), "{file}: {errors:#?}");
        for (error, expected) in errors.iter().zip(*expected) {
            assert!(error.starts_with(expected), "{file}: {error} / {expected}");
        }
    }
}

#[test]
fn hops_read_as_urls_and_as_objects() {
    for (said, meant) in [
        (r#"["socks5h://10.0.0.1"]"#, vec!["socks5 false 10.0.0.1:1080 on"]),
        (r#""socks5://a.example:9""#, vec!["socks5 false a.example:9 here"]),
        (
            r#"["http://me:pw@a:3128", "socks4a://you@b"]"#,
            vec!["http true a:3128 on", "socks4 true b:1080 on"],
        ),
        (r#"{"url": "socks4://192.0.2.1:1"}"#, vec!["socks4 false 192.0.2.1:1 here"]),
        (
            r#"["ss://YWVzLTEyOC1nY206bG9uZy1lbm91Z2g@192.0.2.9:8888#x"]"#,
            vec!["ss 192.0.2.9:8888 aes-128-gcm"],
        ),
        (r#"{"protocol": "socks5h", "address": "a"}"#, vec!["socks5 false a:1080 on"]),
        (r#"{"protocol": "socks4", "address": "a:7", "user": "me"}"#, vec!["socks4 true a:7 here"]),
        (
            r#"{"protocol": "http", "server": "a", "port": 7, "name": "me", "password": "pw"}"#,
            vec!["http true a:7 on"],
        ),
        (r#"{"protocol": "http", "address": "::1"}"#, vec!["http false [::1]:80 on"]),
        (
            r#"{"protocol": "shadowsocks", "address": "a", "method": "aes-256-gcm", "password": "long-enough"}"#,
            vec!["ss a:8388 aes-256-gcm"],
        ),
    ] {
        assert_eq!(hops_of(&hops(said)), meant, "{said}");
    }
}

#[test]
fn a_hop_that_cannot_be_one_is_told_with_the_remedy() {
    let bad = |said: &str, errors: &'static [&'static str]| (hops(said), errors);
    assert_bad(&[
        bad("[]", &["paths[0].hops: empty"]),
        bad("[7]", &["paths[0].hops[0]: wants a proxy"]),
        bad(r#""ftp://a""#, &["paths[0].hops: the URL starts with none of socks5://"]),
        bad(r#"["socks5://a:0"]"#, &["paths[0].hops[0]: 0 is no port"]),
        bad(r#"["ss://x"]"#, &["paths[0].hops[0]: the part after ss://"]),
        bad(
            r#"["ss://YWVzLTEyOC1nY206bG9uZy1lbm91Z2g@192.0.2.9:8888/?plugin=obfs-local"]"#,
            &["paths[0].hops[0]: a plugin leads to one place only"],
        ),
        bad(r#"{"address": "a"}"#, &["paths[0].hops.protocol: missing"]),
        bad(
            r#"{"protocol": "sock5", "address": "a"}"#,
            &["paths[0].hops.protocol: unknown protocol sock5; did you mean socks5?"],
        ),
        bad(r#"{"protocol": "http"}"#, &["paths[0].hops.address: missing"]),
        bad(r#"{"protocol": "http", "address": "a", "port": 0}"#, &["paths[0].hops.port: 0 is no port"]),
        bad(
            r#"{"protocol": "http", "address": "a", "user": "me"}"#,
            &["paths[0].hops.user: there is a name"],
        ),
        bad(
            r#"{"protocol": "socks5", "address": "a", "password": "x"}"#,
            &["paths[0].hops.password: there is a password and no name"],
        ),
        bad(
            r#"{"protocol": "socks4", "address": "a", "user": "me", "password": "x"}"#,
            &["paths[0].hops.password: SOCKS4 has no passwords"],
        ),
        bad(
            r#"{"protocol": "socks5", "address": "a", "method": "aes-256-gcm"}"#,
            &["paths[0].hops.method: is for Shadowsocks"],
        ),
        bad(
            r#"{"protocol": "ss", "address": "a", "user": "x"}"#,
            &["paths[0].hops.user: Shadowsocks knows nobody", "paths[0].hops.password: missing"],
        ),
        bad(r#"{"url": "socks5://a", "address": "b"}"#, &["paths[0].hops.address: the URL says it already"]),
        bad(
            r#"{"url": "socks5://a", "tls_nam": "x"}"#,
            &[
                "paths[0].hops.tls_nam: unknown key, without which more or other traffic could go here than is meant; did you mean tls_name?",
            ],
        ),
        bad(
            r#"["socks4://a", "http://[2001:db8::1]:1"]"#,
            &["paths[0].hops[0]: SOCKS4 leads to no IPv6 address, and the next hop is [2001:db8::1]:1"],
        ),
        (
            client(
                r#""paths": [{"name": "p", "hops": "socks5://a", "connect_timeout": 0, "negotiate_timeout": 301}], "otherwise": "p""#,
            ),
            &["paths[0].connect_timeout: 0 is no number of seconds", "paths[0].negotiate_timeout: 301 is"],
        ),
    ]);
    Outcome::good("umbra local", &hops(r#"["socks4://a", "http://192.0.2.1:1"]"#));
}

#[test]
fn deadlines_of_a_path_are_as_they_are_said() {
    let file = client(
        r#""paths": [{"name": "p", "hops": "socks5://a", "connect_timeout": 3, "negotiate_timeout": 4}], "otherwise": "p""#,
    );
    let (config, _) = Outcome::good("umbra local", &file);
    let deadlines = path_of(config.inbounds[0].routes.otherwise()).deadlines;
    assert_eq!((deadlines.connect.as_secs(), deadlines.negotiate.as_secs()), (3, 4));
}

/// A file of one certificate.
fn certificate(folder: &TempDir) -> String {
    let path = folder.path().join("ca.pem");
    let made = rcgen::generate_simple_self_signed(["proxy.example".into()]).unwrap();
    let text = BASE64_STANDARD.encode(made.cert.der());
    fs::write(&path, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")).unwrap();
    path.display().to_string()
}

#[test]
fn proxies_within_tls_are_checked_by_a_file_and_under_a_name() {
    let folder = TempDir::new().unwrap();
    let ca = certificate(&folder);
    for (said, meant) in [
        (r#""hops": "https://a.example""#, r#"http false a.example:443 on Tls(DnsName("a.example"))"#),
        (
            r#""hops": {"protocol": "socks5h", "address": "192.0.2.1", "tls": true, "tls_name": "b.example"}"#,
            r#"socks5 false 192.0.2.1:1080 on Tls(DnsName("b.example"))"#,
        ),
        (
            r#""hops": {"protocol": "http", "address": "a.example", "tls": true}"#,
            r#"http false a.example:443 on Tls(DnsName("a.example"))"#,
        ),
    ] {
        let file =
            client(&format!(r#""paths": [{{"name": "p", "ca_file": "{ca}", {said}}}], "otherwise": "p""#));
        assert_eq!(hops_of(&file), [meant], "{said}");
    }
    let own = format!(r#""outbound_proxy": {{"url": "https://a.example", "ca_file": "{ca}"}}"#);
    assert_eq!(hops_of(&client(&own)).len(), 1);

    let bad = |said: &str, errors: &'static [&'static str]| {
        let file =
            format!(r#""paths": [{{"name": "p", "ca_file": "{ca}", "hops": {said}}}], "otherwise": "p""#);
        (client(&file), errors)
    };
    assert_bad(&[
        bad(
            r#"{"url": "https://a_b.example.", "tls_name": "not a name"}"#,
            &["paths[0].hops.tls_name: not a name is no name that a certificate could have"],
        ),
        bad(r#"{"url": "https://a", "tls": false}"#, &["paths[0].hops.tls: https is HTTP within TLS"]),
        bad(
            r#"{"url": "http://a", "tls_name": "a"}"#,
            &["paths[0].hops.tls_name: is for TLS; add \"tls\": true"],
        ),
        bad(
            r#"{"url": "https://a", "ca_file": "/nonexistent.pem"}"#,
            &["paths[0].hops.ca_file: /nonexistent.pem cannot be read"],
        ),
    ]);
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "nothing").unwrap();
    let file = client(&format!(
        r#""paths": [{{"name": "p", "ca_file": "{}", "hops": "https://a"}}], "otherwise": "p""#,
        empty.display()
    ));
    let errors = Outcome::bad("umbra local", &file);
    assert!(
        errors[0].starts_with("paths[0].ca_file: ") && errors[0].contains("has no certificate in it"),
        "{errors:?}"
    );
}

#[test]
fn a_chain_may_stand_in_place_of_the_server() {
    let (config, _) =
        Outcome::good("umbra local", r#"{"outbound_proxy": ["socks5://a", {"url": "http://b:1"}]}"#);
    let path = path_of(config.inbounds[0].routes.otherwise());
    let words: Vec<_> = path.hops.iter().map(hop_words).collect();
    assert_eq!(words, ["socks5 false a:1080 here", "http false b:1 on"]);
    let (config, _) =
        Outcome::good("umbra server", r#"{"password": "long-enough", "outbound_proxy": "socks4a://a"}"#);
    assert_eq!(hop_words(&path_of(config.inbounds[0].routes.otherwise()).hops[0]), "socks4 false a:1080 on");
    let (config, _) = Outcome::good("umbra local --outbound-proxy socks5://a", "");
    let alone = hop_words(&path_of(config.inbounds[0].routes.otherwise()).hops[0]);
    assert_eq!(alone, "socks5 false a:1080 on", "as it has always been");
    let errors = Outcome::bad("umbra local", r#"{"outbound_proxy": null}"#);
    assert!(errors[0].starts_with("outbound_proxy: null, which says nothing"), "{errors:?}");
    let errors = Outcome::bad("umbra local", r#"{"outbound_proxy": ["socks5://a:0"]}"#);
    assert_eq!(errors, ["outbound_proxy[0]: 0 is no port to connect to"]);
    let errors = Outcome::bad(
        "umbra server",
        r#"{"servers": [{"password": "long-enough", "outbound_proxy": "socks5://a"}]}"#,
    );
    assert!(
        errors[0].starts_with("servers[0].outbound_proxy: has no meaning here, only at the top"),
        "{errors:?}"
    );
}

/// A group with `keys`, of two paths and the direct one.
fn group(keys: &str) -> String {
    client(&format!(
        r#""paths": [{{"name": "a", "hops": "socks5://a"}}, {{"name": "b", "hops": "socks5://b"}}],
           "groups": [{{"name": "g", {keys}}}], "otherwise": "g""#
    ))
}

#[test]
fn a_proxy_that_is_empty_is_no_direct_way() {
    for (words, file) in [
        ("umbra server", r#"{"password": "long-enough", "outbound_proxy": ""}"#),
        ("umbra server", r#"{"password": "long-enough", "outbound_proxy": []}"#),
        (
            "umbra server",
            r#"{"password": "long-enough", "outbound_proxy": "", "rules": [{"ports": 1, "to": "refuse"}]}"#,
        ),
        ("umbra local", r#"{"outbound_proxy": []}"#),
        ("umbra local", r#"{"outbound_proxy": ""}"#),
    ] {
        let errors = Outcome::bad(words, file);
        assert_eq!(errors.len(), 1, "{words} {file}: {errors:?}");
        assert!(errors[0].starts_with("outbound_proxy: empty; name a proxy, or leave it out"), "{errors:?}");
    }
    let listed = r#"{"outbound_proxy": "", "servers": [{"server": "a", "password": "long-enough"}]}"#;
    assert!(Outcome::bad("umbra local", listed)[0].starts_with("outbound_proxy: empty"));
    let errors = Outcome::bad("umbra server", r#"{"password": "long-enough", "outbound_proxy": [7]}"#);
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn a_group_has_its_members_in_order() {
    let members = r#""members": ["b", {"name": "a", "weight": 3}, "direct"]"#;
    let keys = r#""policy": "weighted", "per_server_connection_attempts": 2, "connection_attempts": 9, "fail_threshold": 1,
                  "fail_window": 5, "retry_time": 6, "sticky": 7, "slow_start": 8, "max_ejected_percent": 50,
                  "when_all_down": "fail", "patience": 19,
                  "probe": {"url": "http://c.example/x", "expect": "204", "interval": 5, "timeout": 2, "rise": 1, "fall": 1}"#;
    let (config, warnings) = Outcome::good("umbra local", &group(&format!("{members}, {keys}")));
    assert_eq!(warnings, [""; 0]);
    let Route::Group(group) = config.inbounds[0].routes.otherwise() else { panic!("no group") };
    assert_eq!(group.paths().iter().map(|path| &*path.name).collect::<Vec<_>>(), ["b", "a", "direct"]);
    assert_eq!(&*group.name, "g");
}

#[test]
fn a_group_may_ask_a_name_server_through_its_paths() {
    let probe = r#""members": ["a"], "probe": {"kind": "dns", "target": "192.0.2.1:53"}"#;
    let (_, warnings) = Outcome::good("umbra local", &group(&format!("{probe}, \"policy\": \"ordered\"")));
    assert!(warnings.iter().all(|warning| !warning.starts_with("groups[0].probe")), "{warnings:?}");
    let (_, warnings) =
        Outcome::good("umbra local", &group(&probe.replace("}", ", \"url\": \"http://a/\"}")));
    let aside = "groups[0].probe.url: left aside: it is for probes of the kind http";
    assert!(warnings.iter().any(|warning| warning == aside), "{warnings:?}");
}

#[test]
fn what_a_probe_cannot_know_of_its_members_is_told() {
    let link = r#""ss://YWVzLTEyOC1nY206bG9uZy1lbm91Z2g@192.0.2.9:8888""#;
    let of_server =
        "groups[0].members[1] ends in a Shadowsocks server, of which a handshake says only that it listens";
    let without = "no member carries datagrams, so nobody is probed";
    for (members, probe, expected) in [
        (format!(r#""a", {link}"#), r#"{"target": "192.0.2.1:80"}"#, vec![("groups[0].probe", of_server)]),
        (
            format!(r#""a", {link}"#),
            r#"{"kind": "handshake", "target": "192.0.2.1:80"}"#,
            vec![("groups[0].probe.kind", of_server)],
        ),
        (format!(r#""a", {link}"#), r#"{"url": "http://a/"}"#, vec![]),
        (format!(r#""a", {link}"#), r#"{"kind": "connect"}"#, vec![]),
        (r#""a""#.into(), r#"{"target": "192.0.2.1:80"}"#, vec![]),
        (
            r#""http://a""#.into(),
            r#"{"kind": "dns", "target": "192.0.2.1:53"}"#,
            vec![("groups[0].probe.kind", without)],
        ),
        (r#""http://a", "a""#.into(), r#"{"kind": "dns", "target": "192.0.2.1:53"}"#, vec![]),
    ] {
        let file = group(&format!(r#""members": [{members}], "probe": {probe}"#));
        let (_, warnings) = Outcome::good("umbra local", &file);
        let told: Vec<_> = warnings.iter().filter(|warning| warning.starts_with("groups[0].probe")).collect();
        assert_eq!(told.len(), expected.len(), "{file}: {warnings:?}");
        for (told, (place, text)) in told.iter().zip(expected) {
            assert!(told.starts_with(&format!("{place}: {text}")), "{told}");
        }
    }
}

#[test]
fn a_group_that_would_end_a_session_at_its_first_silent_member_is_told() {
    let file = |paths: &str, group: &str| {
        let (paths, group) = (format!(r#""paths": [{paths}]"#), format!(r#"{{"name": "g", {group}}}"#));
        client(&format!(r#"{paths}, "groups": [{group}], "otherwise": "g""#))
    };
    let slow = r#"{"name": "a", "hops": "socks5://a", "connect_timeout": 60}"#;
    let usual = r#"{"name": "a", "hops": "socks5://a"}"#;
    for (paths, group, expected) in [
        (
            usual,
            r#""members": ["direct", "a"], "patience": 10"#,
            Some("10 s for a session, and direct may take 10 s"),
        ),
        (
            usual,
            r#""members": ["a", "direct"], "patience": 15"#,
            Some("15 s for a session, and a may take 15 s (neg"),
        ),
        (usual, r#""members": ["a", "direct"], "patience": 16"#, None),
        (usual, r#""members": ["a"], "patience": 3"#, None),
        (
            slow,
            r#""members": ["a", "direct"]"#,
            Some("60 s for a session, and a may take 60 s (connect_timeout)"),
        ),
        (slow, r#""members": ["a", "direct"], "patience": 61"#, None),
    ] {
        let (_, warnings) = Outcome::good("umbra local", &file(paths, group));
        let told: Vec<_> = warnings.iter().filter(|told| told.starts_with("groups[0].patience: ")).collect();
        assert_eq!(told.len(), expected.iter().count(), "{group}: {warnings:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(&format!("groups[0].patience: {expected}")), "{told}");
        }
    }
}

#[test]
fn a_probe_may_expect_one_of_several_statuses() {
    for expect in ["204", r#""200-299""#, r#"[200, "204-206"]"#] {
        let probe = format!(r#""probe": {{"url": "http://a/", "expect": {expect}}}"#);
        let (_, warnings) =
            Outcome::good("umbra local", &group(&format!(r#""members": ["a", "b"], {probe}"#)));
        assert_eq!(warnings, [""; 0], "{expect}");
    }
}

#[test]
fn a_group_that_cannot_be_one_is_told_with_the_remedy() {
    let bad = |keys: &str, errors: &'static [&'static str]| (group(keys), errors);
    assert_bad(&[
        bad("\"policy\": \"random\"", &["groups[0].members: empty"]),
        bad(r#""members": ["a", "bb"]"#, &["groups[0].members[1]: there is no way bb; did you mean b?"]),
        bad(r#""members": ["a", "a"]"#, &["groups[0].members[1]: a is in the group already"]),
        bad(r#""members": ["servers"]"#, &["groups[0].members[0]: servers cannot be in a group"]),
        bad(r#""members": ["refuse"]"#, &["groups[0].members[0]: refuse cannot be in a group"]),
        bad(r#""members": [{"weight": 1}]"#, &["groups[0].members[0].name: missing"]),
        bad(
            r#""members": [{"name": "a", "weight": 0}], "policy": "weighted""#,
            &["groups[0].members[0].weight: 0 is no weight here; use 1 to 65535"],
        ),
        bad(
            r#""members": ["a"], "policy": "rund_robin""#,
            &["groups[0].policy: unknown policy rund_robin; did you mean round_robin?"],
        ),
        bad(
            r#""members": ["a"], "when_all_down": "direct", "connection_attempts": 0, "max_ejected_percent": 101, "patience": 0"#,
            &[
                "groups[0].when_all_down: direct is neither",
                "groups[0].connection_attempts: 0 is no number",
                "groups[0].max_ejected_percent: 101 is no percentage",
                "groups[0].patience: 0 is no number of seconds",
            ],
        ),
        bad(r#""members": ["a"], "probe": {"kind": "ping"}"#, &["groups[0].probe.kind: unknown kind ping"]),
        bad(r#""members": ["a"], "probe": {"kind": "handshake"}"#, &["groups[0].probe.target: missing"]),
        bad(r#""members": ["a"], "probe": {"target": "a.example"}"#, &["groups[0].probe.target: "]),
        bad(
            r#""members": ["a"], "probe": {"kind": "dns"}"#,
            &["groups[0].probe.target: missing; say which name server"],
        ),
        bad(
            r#""members": ["a"], "probe": {"kind": "dns", "target": "192.0.2.1:53", "name": ""}"#,
            &["groups[0].probe.name: "],
        ),
        bad(r#""members": ["a"], "probe": {"kind": "http"}"#, &["groups[0].probe.url: missing"]),
        bad(
            r#""members": ["a"], "probe": {"url": "https://a/"}"#,
            &["groups[0].probe.url: a probe asks over http:// alone"],
        ),
        bad(
            r#""members": ["a"], "probe": {"url": "http://a/", "expect": "20x"}"#,
            &["groups[0].probe.expect: 20x is no status"],
        ),
        bad(
            r#""members": ["a"], "probe": {"url": "http://a/", "expect": [204, "20x", 600]}"#,
            &[
                "groups[0].probe.expect[1]: 20x is no status",
                "groups[0].probe.expect[2]: 600 is no status; use one like 204",
            ],
        ),
        bad(
            r#""members": ["a"], "probe": {"url": "http://a/", "expect": true}"#,
            &["groups[0].probe.expect: wants a status like 204, a range like \"200-399\""],
        ),
        bad(
            r#""members": ["a"], "probe": {"url": "http://a/", "expect": [204, {}]}"#,
            &["groups[0].probe.expect[1]: wants a status like 204"],
        ),
        bad(
            r#""members": ["a"], "probe": {"url": "http://a/", "expect": []}"#,
            &["groups[0].probe.expect: empty; use statuses"],
        ),
        bad(
            r#""members": ["a"], "probe": {"url": "http://bücher.example/"}"#,
            &[
                "groups[0].probe.url: has a host with other letters than ASCII; write it as programs ask for it: xn--",
            ],
        ),
    ]);
    let groups = client(
        r#""paths": [{"name": "a", "hops": "socks5://a"}],
           "groups": [{"name": "g", "members": ["a"]}, {"name": "h", "members": ["g"]}], "otherwise": "h""#,
    );
    assert_bad(&[(groups, &["groups[1].members[0]: g is a group"])]);
    let (_, warnings) =
        Outcome::good("umbra local", &group(r#""members": [{"name": "a", "weight": 2}, "b"]"#));
    assert!(warnings[0].starts_with("groups[0].members[0].weight: left aside: the policy knows no weights"));
}

#[test]
fn names_of_ways_are_their_own_and_used() {
    let path = |name: &str| format!(r#"{{"name": "{name}", "hops": "socks5://a"}}"#);
    for (paths, error) in [
        (path("direct"), "paths[0].name: direct has a meaning of its own"),
        (path("servers"), "paths[0].name: servers has"),
        (path("refuse"), "paths[0].name: refuse has"),
        (path(""), "paths[0].name: is no name"),
        (r#"{"hops": "socks5://a"}"#.into(), "paths[0].name: missing"),
        (format!("{}, {}", path("a"), path("a")), "paths[1].name: paths[0] has this name already"),
    ] {
        let file = client(&format!(r#""paths": [{paths}], "otherwise": "direct""#));
        assert!(Outcome::bad("umbra local", &file)[0].starts_with(error), "{error}");
    }
    let file = client(&format!(
        r#""paths": [{}, {}], "otherwise": "used""#,
        path("used"),
        r#"{"name": "unused", "hops": "socks5://b"}"#
    ));
    let (_, warnings) = Outcome::good("umbra local", &file);
    assert_eq!(warnings, ["paths[1]: nothing leads to unused; name it in a rule, a group or otherwise"]);
    let disabled = client(r#""paths": [{"disabled": true, "name": "p", "hops": "x"}], "otherwise": "p""#);
    assert!(Outcome::bad("umbra local", &disabled)[0].starts_with("otherwise: there is no way p"));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_of_hops_or_rules_panic(text in "\\PC{0,40}") {
        let quoted = text.replace(['\\', '"'], "");
        for file in [
            hops(&format!(r#""{quoted}""#)),
            hops(&format!(r#"{{"protocol": "socks5", "address": "{quoted}"}}"#)),
            client(&format!(r#""otherwise": "direct", "rules": [{{"domains": "{quoted}", "to": "{quoted}"}}]"#)),
            group(&format!(r#""members": ["{quoted}"], "probe": {{"url": "http://{quoted}"}}"#)),
        ] {
            outcome("umbra local", &file);
        }
    }
}
