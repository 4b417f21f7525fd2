//! What is said, and what comes of it.

mod datagrams;
mod linked;
mod rules;
mod ways;

use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::{Method, Salt, UnixTime};
use umbra_relay::config::{Hop, Parent, ParentProtocol, Protocol, ProxyDoor, Route, Server, ShadowsocksDoor};
use zeroize::Zeroizing;

use super::*;
use crate::file;
use crate::flags;
use crate::linked::find_linked;

/// What `words` of the command line and `file` come to.
struct Outcome {
    plan: Option<Plan>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Outcome {
    fn good(words: &str, file: &str) -> (Config, Vec<String>) {
        let outcome = outcome(words, file);
        assert_eq!(outcome.errors, Vec::<String>::new(), "{words} {file}");
        (outcome.plan.unwrap().config, outcome.warnings)
    }

    fn bad(words: &str, file: &str) -> Vec<String> {
        let outcome = outcome(words, file);
        assert!(outcome.plan.is_none());
        assert!(!outcome.errors.is_empty(), "{words} {file}");
        outcome.errors
    }
}

fn outcome(words: &str, file: &str) -> Outcome {
    let mut report = Report::default();
    let command = flags::parse(words.split(' ').map(Into::into)).map_err(|error| error.to_string()).unwrap();
    let flags::Command::Run(role, options) = command else { panic!("{words} does not run") };
    let mut raw =
        if file.is_empty() { Raw::default() } else { file::parse("x.json", file, &mut report).unwrap() };
    let url = options.url.map(|text| text.parse().unwrap());
    let mut flags = options.settings;
    let online = load_all(find_linked(&mut raw, &mut flags, &mut report));
    let plan = resolve(role, Sources { file: raw, url, flags, online }, &mut report);
    let lines = |notes: &[crate::report::Note]| notes.iter().map(ToString::to_string).collect();
    Outcome { plan, errors: lines(&report.errors), warnings: lines(&report.warnings) }
}

/// With what is on this machine.
fn load_all(documents: Vec<Subscription>) -> Vec<Online> {
    let load = |subscription: Subscription| {
        let loaded = matches!(subscription.source, Source::File(_)).then(|| subscription.load());
        Online { subscription, loaded }
    };
    documents.into_iter().map(load).collect()
}

fn servers(config: &Config) -> Vec<String> {
    let describe = |server: Server| format!("{} {}", server.address, server.credentials.method());
    shadowsocks_hops(config).into_iter().map(describe).collect()
}

/// The Shadowsocks servers on the way out of the first inbound.
pub(super) fn shadowsocks_hops(config: &Config) -> Vec<Server> {
    let paths = match config.inbounds[0].routes.otherwise() {
        Route::Path(path) => vec![Arc::clone(path)],
        Route::Group(group) => {
            let (mut paths, streams) = (group.paths_of_datagrams(), group.paths());
            paths.retain(|path| streams.iter().all(|other| other.name != path.name));
            streams.into_iter().chain(paths).collect()
        }
        Route::Refuse(refusal) => panic!("{refusal:?}"),
    };
    let hops = paths.iter().flat_map(|path| &path.hops);
    let server = |hop: &Hop| match hop {
        Hop::Shadowsocks(server) => Some(server.clone()),
        Hop::Parent(_) => None,
    };
    hops.filter_map(server).collect()
}

fn listens(config: &Config) -> Vec<String> {
    config.inbounds.iter().map(|inbound| inbound.listen.to_string()).collect()
}

const SECRET: &str = "long-enough";

#[test]
fn flags_alone_are_enough_and_defaults_fill_the_rest() {
    let (config, warnings) = Outcome::good(&format!("umbra local -s example.com -k {SECRET}"), "");
    assert_eq!(servers(&config), ["example.com:8388 chacha20-ietf-poly1305"]);
    assert_eq!(listens(&config), ["127.0.0.1:1080"]);
    assert_eq!(config.inbounds[0].idle, Duration::from_secs(300));
    assert!(config.inbounds[0].tcp.no_delay && !config.inbounds[0].tcp.fast_open);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("-k: other users"));

    let (config, _) = Outcome::good(&format!("ssserver -k {SECRET} -m aes-256-gcm"), "");
    assert_eq!(listens(&config), ["0.0.0.0:8388"]);
    assert!(
        matches!(&config.inbounds[0].protocol, Protocol::Shadowsocks(ShadowsocksDoor { keys, heads: HeadReads::One, .. }) if keys.method().name() == "aes-256-gcm")
    );
    assert!(config.inbounds[0].routes.otherwise().is_direct());
}

#[test]
fn a_key_of_sip006_stands_wherever_a_password_may() {
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let bytes = b"01234567890123456789012345678901";
    let expected = request_of(&Key::from_bytes(Method::Aes256Gcm, bytes).unwrap().into());
    let of_client = |words: &str, file: &str| {
        let (config, _) = Outcome::good(words, file);
        let servers = shadowsocks_hops(&config);
        assert_eq!(request_of(&servers[0].credentials), expected, "{words} {file}");
    };
    let said = format!(r#""server": "a.example", "method": "aes-256-gcm", "key": "{key}""#);
    of_client("umbra local", &format!("{{{said}}}"));
    of_client("umbra local", &format!(r#"{{"servers": [{{{said}}}]}}"#));
    of_client(&format!("umbra local -s a.example -m aes-256-gcm --key {key}"), "");
    of_client(&format!("umbra tunnel -f b.example:1 -s a.example -m aes-256-gcm --key {key}"), "");
    // A flag beats the file, whichever of the two it says.
    of_client(
        &format!("umbra local --key {key}"),
        r#"{"server": "a.example", "method": "aes-256-gcm", "password": "long-enough"}"#,
    );
    of_client("umbra local", &format!(r#"{{{said}, "password": null, "plugin": ""}}"#));
    for words in
        ["umbra server".to_owned(), format!("umbra server --key {key}"), format!("ssserver -k {SECRET}")]
    {
        let (config, warnings) =
            Outcome::good(&words, &format!("{{{said}}}").replace("a.example", "127.0.0.1"));
        assert_eq!(listens(&config), ["127.0.0.1:8388"]);
        let visible = warnings.iter().filter(|warning| warning.contains("other users of this machine"));
        assert_eq!(visible.count(), usize::from(words != "umbra server"), "{warnings:?}");
        assert!(!format!("{warnings:?}").contains(key));
    }
    let both = format!(r#"{{{said}, "password": "long-enough"}}"#);
    let mut report = Report::default();
    file::parse("x.json", &both, &mut report);
    assert_eq!(report.errors[0].to_string(), "password: says again what key said; keep one of them");
    let empty = r#"{"server": "a.example", "method": "aes-256-gcm", "password": "long-enough", "key": ""}"#;
    Outcome::good("umbra local", empty);
    let words = format!("umbra local -s a.example -k {SECRET} --key {key}");
    let Err(error) = flags::parse(words.split(' ').map(Into::into)) else { panic!("{words}") };
    assert!(
        error.to_string().contains("--key <BASE64>") && error.to_string().contains("--password"),
        "{error}"
    );
    let words = format!("umbra local --server-url ss://YWVzLTEyOC1nY206dGVzdA@h:1 --key {key}");
    assert!(flags::parse(words.split(' ').map(Into::into)).is_err());
    let words = "umbra local -s a.example -m aes-256-gcm --key ${KEY}";
    assert!(flags::parse(words.split(' ').map(Into::into)).is_err());
}

/// What credentials make of a salt and a target, which tells their keys apart: keys do not print themselves.
fn request_of(credentials: &Credentials) -> Vec<u8> {
    let salt = Salt::new(credentials.method(), [7; 32]);
    let mut request = Vec::new();
    let mut sealer = credentials.request(salt, &"b.example:1".parse().unwrap());
    sealer.seal_request_without_payload(0, UnixTime(0), &mut request);
    request
}

#[test]
fn a_manager_is_left_aside_by_a_client_and_keeps_a_server_from_starting() {
    let manager = r#""manager_address": "127.0.0.1", "manager_port": 6001"#;
    let (_, warnings) = Outcome::good(
        "umbra local",
        &format!(r#"{{{manager}, "server": "a.example", "password": "long-enough"}}"#),
    );
    assert_eq!(warnings, ["manager_address: left aside: it is for a server"]);
    for (words, rest, told) in [
        (
            "umbra server",
            r#""port_password": {"8388": "long-enough"}"#,
            "the ports in port_password are served",
        ),
        ("umbra server", r#""servers": [{"password": "long-enough"}]"#, "the ports in servers are served"),
        ("umbra server", r#""server_port": 1, "password": "long-enough""#, "the ports in server_port are"),
        ("umbra server -p 1", r#""password": "long-enough""#, "the ports in -p are served"),
        ("umbra server", r#""password": "long-enough""#, "list the ports in port_password or servers[]"),
    ] {
        let errors = Outcome::bad(words, &format!("{{{manager}, {rest}}}"));
        assert!(
            errors.len() == 1 && errors[0].starts_with("manager_address: managers are not"),
            "{errors:?}"
        );
        assert!(errors[0].contains("take it out") && errors[0].contains(told), "{errors:?}");
    }
    let off = r#"{"manager_address": "", "manager_port": 0, "password": "long-enough"}"#;
    Outcome::good("umbra server", off);
}

#[test]
fn a_file_of_shadowsocksr_starts_neither_end() {
    let file = |rest: &str| format!(r#"{{"server": "127.0.0.1", "password": "long-enough", {rest}}}"#);
    for (rest, places) in [
        (r#""protocol": "auth_aes128_md5", "obfs": "plain""#, &["protocol"][..]),
        (r#""protocol": "origin", "obfs": "tls1.2_ticket_auth""#, &["obfs"]),
        (r#""protocol": "verify_sha1", "obfs": "http_simple""#, &["protocol", "obfs"]),
    ] {
        let errors = Outcome::bad("umbra server", &file(rest));
        assert_eq!(errors.len(), places.len(), "{errors:?}");
        for (error, place) in errors.iter().zip(places) {
            assert!(error.starts_with(&format!("{place}: is of ShadowsocksR")), "{error}");
            assert!(error.contains("take it out"), "{error}");
        }
        assert!(Outcome::bad("umbra local", &file(rest))[0].starts_with("protocol: unknown protocol"));
    }
    Outcome::good("umbra server", &file(r#""protocol": "origin", "obfs": "plain""#));
    Outcome::good("umbra server", &file(r#""protocol": "socks", "obfs": """#));
    let (_, warnings) = Outcome::good("umbra local", &file(r#""obfs": "http""#));
    assert!(warnings.len() == 1 && warnings[0].starts_with("obfs: unknown key, left aside"), "{warnings:?}");
}

#[test]
fn addresses_come_with_and_without_a_port() {
    for (said, meant) in [
        ("-s 1.2.3.4", "1.2.3.4:8388"),
        ("-s 1.2.3.4:1", "1.2.3.4:1"),
        ("-s 1.2.3.4 -p 1", "1.2.3.4:1"),
        ("-s 1.2.3.4:1 -p 1", "1.2.3.4:1"),
        ("-s ::1", "[::1]:8388"),
        ("-s [::1]", "[::1]:8388"),
        ("-s [::1]:1", "[::1]:1"),
        ("-s example.com:1", "example.com:1"),
    ] {
        let (config, _) = Outcome::good(&format!("umbra local {said} -k {SECRET} -b [::1]:9 -t 60"), "");
        assert_eq!(servers(&config), [format!("{meant} chacha20-ietf-poly1305")], "{said}");
        assert_eq!(listens(&config), ["[::1]:9"]);
    }
    for wrong in ["-s 1.2.3.4:1 -p 2", "-s a:b", "-s a:99999", "-s a:", "-s a/b", "-p 0 -s a"] {
        Outcome::bad(&format!("umbra local {wrong} -k {SECRET}"), "");
    }
}

#[test]
fn flags_beat_the_file_port_and_address_apart() {
    let file = r#"{"server": "a.example:1", "password": "other-secret", "method": "aes-128-gcm", "local_port": 7,
                   "timeout": 120, "workers": 3, "fast_open": true, "no_delay": false}"#;
    let (config, _) = Outcome::good("umbra local", file);
    assert_eq!(servers(&config), ["a.example:1 aes-128-gcm"]);
    assert_eq!(listens(&config), ["127.0.0.1:7"]);
    assert_eq!((config.workers.get(), config.inbounds[0].idle.as_secs()), (3, 120));
    assert!(config.inbounds[0].tcp.fast_open && !config.inbounds[0].tcp.no_delay);

    let (config, _) =
        Outcome::good("umbra local -p 2 -m aes-256-gcm -b 127.0.0.2 -t 200 --workers 1 --no-delay", file);
    assert_eq!(servers(&config), ["a.example:2 aes-256-gcm"]);
    assert_eq!(listens(&config), ["127.0.0.2:7"]);
    assert_eq!((config.workers.get(), config.inbounds[0].idle.as_secs()), (1, 200));
    assert!(config.inbounds[0].tcp.no_delay);

    let (config, _) = Outcome::good("umbra local -s b.example", file);
    assert_eq!(servers(&config), ["b.example:1 aes-128-gcm"]);
}

#[test]
fn a_link_takes_the_place_of_all_servers() {
    let file = r#"{"servers": [{"server": "a"}], "local_port": 7}"#;
    let link = "ss://YWVzLTEyOC1nY206bG9uZy1lbm91Z2g@192.168.100.1:8888#x";
    let (config, warnings) = Outcome::good(&format!("umbra local --server-url {link}"), file);
    assert_eq!(servers(&config), ["192.168.100.1:8888 aes-128-gcm"]);
    assert_eq!(listens(&config), ["127.0.0.1:7"]);
    assert!(warnings[0].starts_with("--server-url: other users"));

    let errors =
        Outcome::bad(&format!("umbra local --server-url {}", link.replace("#x", "/?plugin=poweroff")), "");
    assert!(errors[0].starts_with("--server-url: poweroff is not among the plugins"), "{errors:?}");
    let errors = Outcome::bad("umbra local --server-url ss://YmYtY2ZiOnRlc3RAMTkyLjE2OC4xMDAuMTo4ODg4", "");
    assert_eq!(errors.len(), 1, "the example password; of the method there is a warning: {errors:?}");
}

#[test]
fn a_client_has_its_servers_in_order_and_several_doors() {
    let file = r#"{
        "servers": [
            {"server": "a", "server_port": 1, "password": "long-enough", "method": "aes-128-gcm", "remarks": "x"},
            {"address": "b", "port": 2, "method": "aes-256-cfb", "disabled": true},
            {"server": "c", "server_port": "3", "password": "long-enough"},
        ],
        "locals": [
            {"local_address": "127.0.0.1", "local_port": 1080, "protocol": "socks"},
            {"local_address": "0.0.0.0", "local_port": 1081, "timeout": 200},
        ],
    }"#;
    let (config, warnings) = Outcome::good("umbra local", file);
    assert_eq!(servers(&config), ["a:1 aes-128-gcm", "c:3 chacha20-ietf-poly1305"]);
    assert_eq!(listens(&config), ["127.0.0.1:1080", "0.0.0.0:1081"]);
    assert_eq!(config.inbounds[1].idle.as_secs(), 200);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("local set to listen on 0.0.0.0, it's not safe"));

    let errors = Outcome::bad("umbra local -m aes-256-gcm -l 9", file);
    assert_eq!(errors.len(), 2);
    assert!(errors[0].starts_with("-m: the file's servers[] has 2 entries in use"), "{errors:?}");
}

#[test]
fn flags_beat_the_only_entry_in_use() {
    let file = r#"{"servers": [{"server": "a", "password": "long-enough", "disabled": true},
                               {"server": "b", "password": "long-enough"}]}"#;
    let (config, _) = Outcome::good("umbra local -p 5", file);
    assert_eq!(servers(&config), ["b:5 chacha20-ietf-poly1305"]);
}

#[test]
fn a_server_opens_one_door_for_each_entry() {
    let file = r#"{"servers": [{"server": "::", "server_port": 1, "password": "long-enough"},
                               {"server_port": 2, "password": "long-enough", "timeout": 400}], "timeout": 200}"#;
    let (config, warnings) = Outcome::good("umbra server", file);
    assert_eq!(listens(&config), ["[::]:1", "0.0.0.0:2"]);
    assert_eq!(config.inbounds.iter().map(|inbound| inbound.idle.as_secs()).collect::<Vec<_>>(), [200, 400]);
    assert!(warnings.is_empty(), "{warnings:?}");

    let shared = r#"{"servers": [{"password": "long-enough"}, {"password": "long-enough"}]}"#;
    assert!(Outcome::bad("umbra server", shared)[0].contains("another entry listens on 0.0.0.0:8388"));
}

#[test]
fn every_error_is_told_at_once() {
    let file = r#"{
        "servers": [
            {"server": "a", "password": "mypassword"},
            {"server": "a", "method": "2022-blake3-aes-256-gcm", "password": "AAAAAAAAAAAAAAAAAAAAAA=="},
            {"method": "aes-256-cfb64", "mode": "udp"},
        ],
        "server": "b", "locals": [{"protocol": "htp", "local_address": "name"}],
        "timeout": 0, "workers": 0, "nofile": 1, "mode": "both", "acl": "x",
    }"#;
    let errors = Outcome::bad("umbra local", file);
    for expected in [
        "acl: ",
        "timeout: 0 is no idle time",
        "mode: unknown mode both",
        "workers: 0 is no number",
        "nofile: 1 ",
        "server: cannot stand beside servers[]",
        "servers[0].password: an example",
        "servers[1].password: 2022-blake3-aes-256-gcm wants 32 bytes in base64, got 16; make one with: umbra key",
        "servers[2].mode: unknown mode udp; use tcp_only, tcp_and_udp or udp_only",
        "servers[2].server: missing",
        "servers[2].method: unknown method aes-256-cfb64",
        "servers[2].password: missing",
        "locals[0].protocol: unknown protocol htp; did you mean http? the protocols are mixed, socks, http, tunnel",
        "locals[0].local_address: name is no IP address",
    ] {
        assert_eq!(
            errors.iter().filter(|error| error.starts_with(expected)).count(),
            1,
            "{expected} in {errors:#?}"
        );
    }
    assert_eq!(errors.len(), 14, "{errors:#?}");
}

#[test]
fn what_is_doubtful_warns() {
    let file = r#"{"server": "127.0.0.1", "password": "long-enough", "timeout": 10, "mode": "tcp_and_udp", "locals": []}"#;
    let (_, warnings) = Outcome::good("umbra server", file);
    for expected in [
        "your timeout 10 seems too short",
        "locals: left aside",
        "server set to listen on 127.0.0.1:8388, are you sure?",
    ] {
        assert!(warnings.iter().any(|warning| warning.starts_with(expected)), "{expected} in {warnings:#?}");
    }
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    let (_, warnings) =
        Outcome::good("umbra local -t 1000", r#"{"server": "0.0.0.0", "password": "long-enough"}"#);
    assert_eq!(warnings[0], "your timeout 1000 seems too long");
    assert!(warnings[1].starts_with("server: 0.0.0.0 is where a server listens"));
}

#[test]
fn nothing_in_use_is_an_error() {
    for file in [r#"{"servers": []}"#, r#"{"servers": [{"password": "long-enough", "disabled": true}]}"#] {
        assert!(Outcome::bad("umbra server", file)[0].starts_with("servers: no entry is in use"));
    }
}

#[test]
fn the_content_tells_which_end_it_is_for() {
    let guess = |file| {
        let file = file::parse("x.json", file, &mut Report::default()).unwrap();
        guess_role(&Sources { file, ..Sources::default() })
    };
    assert_eq!(guess(r#"{"server": "a", "password": "b"}"#), Role::Server);
    assert_eq!(guess(r#"{"server": "a", "local_port": 1}"#), Role::Client);
    assert_eq!(guess(r#"{"servers": [], "locals": []}"#), Role::Client);
    assert_eq!(guess(r#"{"direct": true}"#), Role::Client);
}

#[test]
fn segmented_heads_are_let_in_only_where_the_file_says_so() {
    let file = r#"{"servers": [
        {"server": "127.0.0.2", "server_port": 1, "password": "long enough", "segmented_heads": true},
        {"server": "127.0.0.2", "server_port": 2, "password": "long enough"}]}"#;
    let heads = |inbound: &Inbound| match &inbound.protocol {
        Protocol::Shadowsocks(door) => door.heads,
        Protocol::Proxy(_) | Protocol::Tunnel { .. } => panic!("a server's inbound speaks Shadowsocks"),
    };
    let (config, _) = Outcome::good("umbra server", file);
    assert_eq!(config.inbounds.iter().map(heads).collect::<Vec<_>>(), [HeadReads::Many, HeadReads::One]);
}

#[test]
fn lists_of_addresses_and_ports_are_every_pair_of_them() {
    let file = r#"{"server": ["a", "b:9", "::1"], "server_port": [1, "2"], "password": "long-enough"}"#;
    let (config, _) = Outcome::good("umbra local", file);
    let method = "chacha20-ietf-poly1305";
    let pairs = |pairs: &[&str]| pairs.iter().map(|pair| format!("{pair} {method}")).collect::<Vec<_>>();
    assert_eq!(servers(&config), pairs(&["a:1", "a:2", "b:9", "[::1]:1", "[::1]:2"]));
    let (config, _) = Outcome::good("umbra local -p 3", file);
    assert_eq!(servers(&config), pairs(&["a:3", "b:3", "[::1]:3"]), "a flag beats the file");
    let (config, _) = Outcome::good("umbra local -s c", file);
    assert_eq!(servers(&config), pairs(&["c:1", "c:2"]));

    let file = r#"{"server": ["127.0.0.2", "::1"], "server_port": [1, 2], "password": "long-enough"}"#;
    let (config, warnings) = Outcome::good("umbra server", file);
    assert_eq!(listens(&config), ["127.0.0.2:1", "127.0.0.2:2", "[::1]:1", "[::1]:2"]);
    assert_eq!(warnings, ["server set to listen on 127.0.0.2:1, are you sure?"], "once for all of them");
}

#[test]
fn what_is_wrong_in_a_list_is_told_once_with_its_place() {
    let file = r#"{"server": ["a:x", "b c", "d"], "server_port": [0, 1, 2], "password": "mypassword"}"#;
    let errors = Outcome::bad("umbra local", file);
    for expected in [
        "server[0]: a:x has no good port",
        "server[1]: ",
        "server_port[0]: 0 is no port to connect to",
        "password: an example",
    ] {
        assert_eq!(
            errors.iter().filter(|error| error.starts_with(expected)).count(),
            1,
            "{expected} in {errors:#?}"
        );
    }
    assert_eq!(errors.len(), 4, "{errors:#?}");
    let file = r#"{"server_port": [5, 6, 5], "password": "long-enough"}"#;
    assert!(
        Outcome::bad("umbra server", file)[0]
            .starts_with("server_port[2]: another entry listens on 0.0.0.0:5")
    );
}

#[test]
fn port_password_is_a_server_for_each_port() {
    let file = r#"{"server": "::", "port_password": {"8388": "first-secret", "8389": "second-secret"}, "timeout": 200}"#;
    let (config, warnings) = Outcome::good("umbra server", file);
    assert_eq!(listens(&config), ["[::]:8388", "[::]:8389"]);
    assert_eq!(warnings, Vec::<String>::new());
    let (config, _) = Outcome::good("umbra local -s a.example", file);
    assert_eq!(servers(&config).len(), 2, "a client chooses one of them");

    let both = r#"{"server_port": 1, "password": "long-enough", "port_password": {"8388": "first-secret"}}"#;
    let (config, warnings) = Outcome::good("umbra server", both);
    assert_eq!(listens(&config), ["0.0.0.0:8388"]);
    assert_eq!(
        warnings,
        [
            "port_password should not be used with server_port and password. server_port and password will be ignored"
        ]
    );
    let (config, _) = Outcome::good("umbra local -s a.example", both);
    assert_eq!(servers(&config), ["a.example:1 chacha20-ietf-poly1305"]);

    let errors = Outcome::bad("umbra server", r#"{"port_password": {}}"#);
    assert!(errors[0].starts_with("port_password: password or port_password not specified"), "{errors:?}");
    Outcome::good("umbra server", r#"{"port_password": {}, "password": "long-enough"}"#);
    let errors =
        Outcome::bad("umbra server", r#"{"servers": [{"port_password": {"1": "", "2": "mypassword"}}]}"#);
    assert!(errors[0].starts_with("servers[0].port_password.1: empty"), "{errors:?}");
    assert!(errors[1].starts_with("servers[0].port_password.2: an example"), "{errors:?}");
}

#[test]
fn a_short_password_of_a_port_or_a_user_keeps_no_port_from_starting() {
    let ports = r#"{"method": "aes-256-cfb", "port_password": {"1": "abc123", "2": "long-enough"}}"#;
    let users = r#"{"method": "aes-256-gcm", "users": [{"name": "ann", "password": "abc123"}]}"#;
    for (file, count, place) in [(ports, 2, "port_password.1"), (users, 1, "users[0].password")] {
        let (config, warnings) = Outcome::good("umbra server", file);
        assert_eq!(config.inbounds.len(), count, "{file}");
        let wanted =
            format!("{place}: shorter than 8 characters, so it can be guessed; make one with: umbra key ");
        assert_eq!(warnings.iter().filter(|line| line.starts_with(&wanted)).count(), 1, "{warnings:?}");
    }
}

#[test]
fn two_thousand_ports_are_understood_at_once() {
    let ports: Vec<_> = (10_000..12_000).map(|port| format!("\"{port}\": \"secret-of-{port}\"")).collect();
    let start = std::time::Instant::now();
    let (config, _) =
        Outcome::good("umbra server", &format!("{{\"port_password\": {{{}}}}}", ports.join(",")));
    assert_eq!(config.inbounds.len(), 2000);
    let ports: Vec<_> = (10_000..12_000).map(|port| port.to_string()).collect();
    let file = format!("{{\"server_port\": [{}], \"password\": \"long-enough\"}}", ports.join(","));
    assert_eq!(Outcome::good("umbra server", &file).0.inbounds.len(), 2000);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}, which grows with the square", start.elapsed());
}

fn tunnel_target(config: &Config) -> String {
    match &config.inbounds[0].protocol {
        Protocol::Tunnel { target } => target.to_string(),
        Protocol::Proxy(_) | Protocol::Shadowsocks(_) => panic!("no tunnel"),
    }
}

#[test]
fn a_tunnel_leads_where_any_of_its_names_says() {
    let good = |words: &str, file: &str| {
        let (config, _) = Outcome::good(&format!("{words} -s a -k long-enough"), file);
        format!("{} {}", listens(&config)[0], tunnel_target(&config))
    };
    assert_eq!(good("umbra tunnel -l 53 -f 8.8.8.8:53", ""), "127.0.0.1:53 8.8.8.8:53");
    assert_eq!(good("sstunnel -f [::1]:53", ""), "127.0.0.1:1080 [::1]:53");
    assert_eq!(good("umbra local --protocol tunnel -f a.example:80", ""), "127.0.0.1:1080 a.example:80");
    let python =
        r#"{"local_port": 7, "tunnel_remote": "8.8.4.4", "tunnel_remote_port": 5353, "tunnel_port": 8}"#;
    assert_eq!(good("umbra tunnel", python), "127.0.0.1:8 8.8.4.4:5353");
    assert_eq!(good("umbra tunnel -l 9 -f b:1", python), "127.0.0.1:9 b:1");
    assert_eq!(
        good("umbra tunnel", r#"{"tunnel_remote": "8.8.4.4", "local_port": 7}"#),
        "127.0.0.1:7 8.8.4.4:53"
    );
    let rust =
        r#"{"locals": [{"protocol": "tunnel", "forward_address": "a", "forward_port": 1, "local_port": 2}]}"#;
    assert_eq!(good("umbra local", rust), "127.0.0.1:2 a:1");

    for (file, target) in [
        (r#"{"tunnel_address": "8.8.4.4:5353"}"#, "8.8.4.4:5353"),
        (r#"{"tunnel_address": "[::1]:5353"}"#, "[::1]:5353"),
        (r#"{"tunnel_remote": "a.example:5353"}"#, "a.example:5353"),
    ] {
        assert_eq!(good("umbra tunnel", file), format!("127.0.0.1:1080 {target}"));
    }
    let portless = r#"{"tunnel_address": "8.8.4.4", "server": "a", "password": "long-enough"}"#;
    assert!(Outcome::bad("umbra tunnel", portless)[0].starts_with("tunnel_address: has no port"));

    let client = "-s a -k long-enough";
    for (words, complaint) in [
        ("umbra tunnel", "forward_address: missing; say where the tunnel leads, with -f HOST:PORT"),
        ("umbra tunnel -f a.example", "-f: has no port"),
        ("umbra tunnel -f a.example:0", "-f: 0 is no port"),
        ("umbra local -f a.example:1", "-f: is for a tunnel; start umbra tunnel"),
    ] {
        let errors = Outcome::bad(&format!("{words} {client}"), "");
        assert!(errors[0].starts_with(complaint), "{words}: {errors:?}");
    }
    let (config, warnings) = Outcome::good(&format!("umbra local {client}"), python);
    assert_eq!(listens(&config), ["127.0.0.1:7"]);
    assert_eq!(warnings.iter().filter(|warning| warning.contains("this inbound is no tunnel")).count(), 3);
}

#[test]
fn a_server_that_was_to_reach_its_targets_from_one_address_is_told_that_it_does_not() {
    for (address, count) in [
        ("192.0.2.7", 1),
        ("2001:db8::7", 1),
        ("192.0.2.7:1080", 1),
        ("127.0.0.1", 0),
        ("::ffff:127.0.0.1", 0),
        ("0.0.0.0", 0),
        ("::", 0),
        ("localhost", 0),
    ] {
        let file =
            format!(r#"{{"server": "192.0.2.1", "password": "long-enough", "local_address": "{address}"}}"#);
        let (_, warnings) = Outcome::good("umbra server", &file);
        let wanted =
            "local_address: left aside: connections to targets leave by the address that the system chooses";
        let told = warnings.iter().filter(|warning| warning.starts_with(wanted)).count();
        assert_eq!((told, warnings.len()), (count, count), "{address}: {warnings:?}");
        let (_, warnings) = Outcome::good("umbra local", &file);
        assert!(!warnings.iter().any(|warning| warning.starts_with(wanted)), "{warnings:?}");
    }
}

#[test]
fn the_protocol_says_which_doors_are_open() {
    let doors = |words: &str| {
        let (config, _) = Outcome::good(&format!("umbra local -s a -k long-enough{words}"), "");
        let Protocol::Proxy(ProxyDoor { socks4, socks5, http, .. }) = &config.inbounds[0].protocol else {
            panic!()
        };
        [*socks4, *socks5, *http]
    };
    assert_eq!(doors(""), [true, true, true]);
    assert_eq!(doors(" --protocol mixed"), [true, true, true]);
    assert_eq!(doors(" --protocol socks"), [true, true, false]);
    assert_eq!(doors(" --protocol http"), [false, false, true]);
}

#[test]
fn only_whoever_asks_for_a_direct_way_gets_one() {
    for (words, file) in
        [("umbra local --direct", ""), ("umbra local", r#"{"direct": true, "local_port": 1}"#)]
    {
        let (config, _) = Outcome::good(words, file);
        assert!(config.inbounds[0].routes.otherwise().is_direct(), "{words}");
    }
    assert!(Outcome::bad("umbra local", "{}")[0].starts_with("server: missing"));
    for (words, file, place) in [
        ("umbra local --direct -s a", "", "-s: cannot stand beside direct"),
        ("umbra local --direct", r#"{"servers": [{}]}"#, "servers: cannot stand beside direct"),
        ("umbra local", r#"{"direct": true, "password": "x"}"#, "password: cannot stand beside direct"),
        (
            "umbra local --direct --server-url ss://YmYtY2ZiOnRlc3RAMTkyLjE2OC4xMDAuMTo4ODg4",
            "",
            "--server-url: cannot",
        ),
    ] {
        assert!(Outcome::bad(words, file)[0].starts_with(place), "{words}");
    }
}

#[test]
fn a_server_behind_a_plugin_is_not_reached_past_it() {
    let file = r#"{"servers": [
        {"server": "a", "password": "long-enough", "plugin": "obfs-local", "plugin_opts": "obfs=http", "plugin_args": ["-v"]},
        {"server": "b", "password": "long-enough"},
    ]}"#;
    let plan = outcome("umbra local", file).plan.unwrap();
    assert_eq!(
        servers(&plan.config),
        ["b:8388 chacha20-ietf-poly1305"],
        "the other comes in with its plugin"
    );
    let [behind, plain] = plan.listed.as_slice() else { panic!() };
    assert!(plain.plugin.is_none());
    let plugin = behind.plugin.as_ref().unwrap();
    assert_eq!((plugin.program.as_str(), plugin.place.as_str()), ("obfs-local", "servers[0].plugin"));
    assert_eq!(plugin.options.as_ref().map(|options| options.as_str()), Some("obfs=http"));
    assert_eq!(plugin.args.iter().map(|arg| arg.as_str()).collect::<Vec<_>>(), ["-v"]);
    assert_eq!(behind.server.address.to_string(), "a:8388");

    let link = "ss://YWVzLTEyOC1nY206bG9uZy1lbm91Z2g@192.0.2.1:1/?plugin=obfs-local%3Bobfs%3Dtls%3Ba%3Db#x";
    let plan = outcome(&format!("umbra local --server-url {link}"), "").plan.unwrap();
    let options = plan.plugins().next().unwrap().options.clone();
    assert_eq!(options.as_ref().map(|options| options.as_str()), Some("obfs=tls;a=b"));
}

#[test]
fn a_door_behind_a_plugin_is_on_loopback_only_and_takes_heads_in_pieces() {
    let file =
        r#"{"server": "0.0.0.0", "server_port": [1, 2], "password": "long-enough", "plugin": "obfs-server"}"#;
    let plan = outcome("umbra server", file).plan.unwrap();
    assert_eq!(listens(&plan.config), ["127.0.0.1:0", "127.0.0.1:0"]);
    let fronts: Vec<_> = plan.fronts.iter().map(|front| (front.inbound, front.listen.to_string())).collect();
    assert_eq!(fronts, [(0, "0.0.0.0:1".to_owned()), (1, "0.0.0.0:2".to_owned())]);
    for inbound in &plan.config.inbounds {
        let Protocol::Shadowsocks(door) = &inbound.protocol else { panic!() };
        assert_eq!(door.heads, HeadReads::Many);
    }
    let file = r#"{"servers": [{"server_port": 1, "password": "long-enough", "plugin": "obfs-server"},
                               {"server_port": 1, "password": "long-enough"}]}"#;
    assert!(Outcome::bad("umbra server", file)[0].contains("another entry listens on 0.0.0.0:1 already"));
}

#[test]
fn insecure_methods_run_with_a_warning_unless_they_are_denied() {
    let off = r#"{"password": "long-enough", "plugin": "", "one_time_auth": false, "security": {"insecure_methods": "deny"}}"#;
    assert_eq!(Outcome::good("umbra server", off).1, Vec::<String>::new());
    let old = |method: &str, policy: &str| {
        format!(
            r#"{{"password": "long-enough", "method": "{method}", "security": {{"insecure_methods": "{policy}"}}}}"#
        )
    };
    let denied = Outcome::bad("umbra server", &old("aes-256-cfb", "deny"));
    assert!(denied[0].starts_with("method: aes-256-cfb is insecure"), "{denied:?}");
    let (_, warnings) = Outcome::good("umbra server", &old("RC4", "warn"));
    assert_eq!(warnings, ["RC4 is not safe; please use a safer cipher, like AES-256-GCM"]);
    let (_, warnings) = Outcome::good("umbra local -s a", &old("aes-256-gcm", "deny"));
    assert_eq!(warnings, Vec::<String>::new());
    let words = r#"{"security": {"insecure_methods": "x"}}"#;
    assert!(
        Outcome::bad("umbra server -k long-enough", words)[0]
            .starts_with("security.insecure_methods: x is neither")
    );
}

#[test]
fn insecure_methods_are_denied_wherever_a_server_is_described() {
    let deny = r#""security": {"insecure_methods": "deny"}"#;
    for method in Method::ALL.into_iter().filter(|method| method.is_insecure()) {
        let entry =
            format!(r#""server": "a", "server_port": 1, "password": "long-enough", "method": "{method}""#);
        let link = ServerUrl {
            method: method.name().into(),
            password: Zeroizing::new("long-enough".into()),
            address: "a.example:1".parse().unwrap(),
            plugin: None,
            tag: None,
            has_prefix: false,
        };
        let link = link.to_text().to_string();
        let files = [
            ("umbra local", format!("{{{entry}, {deny}}}")),
            ("umbra server", format!("{{{entry}, {deny}}}")),
            ("umbra local", format!(r#"{{"servers": [{{{entry}}}], {deny}}}"#)),
            ("umbra server", format!(r#"{{"servers": [{{{entry}}}], {deny}}}"#)),
            ("umbra local", format!(r#"{{"servers": ["{link}"], {deny}}}"#)),
            ("umbra local", format!(r#"{{"version": 1, "servers": [{{{entry}}}], {deny}}}"#)),
            (
                "umbra server",
                format!(
                    r#"{{"port_password": {{"1": "long-enough", "2": "long-too-is"}}, "method": "{method}", {deny}}}"#
                ),
            ),
            (
                "umbra server",
                format!(r#"{{{entry}, "users": [{{"name": "ann", "password": "long-too-is"}}], {deny}}}"#),
            ),
        ];
        for (words, file) in files {
            let errors = Outcome::bad(words, &file);
            assert!(
                errors.iter().any(|error| error.ends_with("security.insecure_methods is deny")),
                "{file}: {errors:?}"
            );
        }
        for words in
            [format!("umbra local --server-url {link}"), format!("umbra server -k long-enough -m {method}")]
        {
            let errors = Outcome::bad(&words, &format!("{{{deny}}}"));
            assert!(
                errors.iter().any(|error| error.ends_with("security.insecure_methods is deny")),
                "{words}: {errors:?}"
            );
        }
        let (listed, report) = subscribed(&format!(r#"{{{entry}}}"#), deny);
        assert_eq!(listed, None, "{method}");
        assert!(report.errors[0].to_string().ends_with("names no server that can be used"), "{report:?}");
        let good = r#"{"server": "b", "server_port": 1, "password": "long-enough", "method": "aes-128-gcm"}"#;
        let (listed, report) = subscribed(&format!(r#"{{{entry}}}, {good}"#), deny);
        assert_eq!((listed, report.errors.len()), (Some(1), 0), "{method}");
        assert!(report.warnings[0].to_string().contains("security.insecure_methods is deny"), "{report:?}");
    }
}

/// How many servers of a document with these entries are used by a client whose file says `rest`.
fn subscribed(entries: &str, rest: &str) -> (Option<usize>, Report) {
    let mut report = Report::default();
    let text = format!(r#"{{"version": 1, "servers": [{entries}]}}"#);
    let document = Document::parse(Zeroizing::new(text), "x").unwrap();
    let file = format!(r#"{{"online_config": {{"config_url": "https://a.example/x"}}, {rest}}}"#);
    let file = file::parse("x.json", &file, &mut report).unwrap();
    let subscription = Subscription::from_settings(&file.root, &mut report).unwrap();
    let online = vec![Online { subscription, loaded: Some(Ok(document)) }];
    let plan = resolve(Role::Client, Sources { file, online, ..Sources::default() }, &mut report);
    (plan.map(|plan| plan.online[0].listed.len()), report)
}

#[test]
fn one_time_authentication_is_added_by_a_client_and_wanted_by_a_server() {
    let file =
        |on| format!(r#"{{"password": "long-enough", "method": "aes-256-cfb", "one_time_auth": {on}}}"#);
    for on in [true, false] {
        let (config, _) = Outcome::good("umbra server", &file(on));
        let Protocol::Shadowsocks(door) = &config.inbounds[0].protocol else { panic!() };
        assert_eq!(door.one_time_auth, on);
        let (config, _) = Outcome::good("umbra local -s a", &file(on));
        assert_eq!(shadowsocks_hops(&config)[0].one_time_auth, on);
    }
}

fn door_users(config: &Config) -> String {
    match &config.inbounds[0].protocol {
        Protocol::Proxy(door) => format!("{:?}", door.users),
        Protocol::Tunnel { .. } | Protocol::Shadowsocks(_) => panic!("no proxy"),
    }
}

#[test]
fn a_door_with_users_lets_in_nobody_else_and_is_not_warned_of() {
    let client = r#""server": "a", "password": "long-enough""#;
    let users = r#""users": [{"name": "ann", "password": "x"}, {"user_name": "bob", "password": "y"}]"#;
    let (config, warnings) =
        Outcome::good("umbra local", &format!(r#"{{{client}, "local_address": "0.0.0.0", {users}}}"#));
    assert_eq!(door_users(&config), "Some(Users<2>(..))");
    assert_eq!(warnings, Vec::<String>::new());
    let (config, warnings) =
        Outcome::good("umbra local", &format!(r#"{{{client}, "locals": [{{"local_address": "0.0.0.0"}}]}}"#));
    assert_eq!(door_users(&config), "None");
    assert!(warnings[0].starts_with("local set to listen on 0.0.0.0, it's not safe"));

    let listed = r#"{"users": [{"name": "ann"}, {"password": "x"}, {"name": "", "password": "x"}, {"name": "b", "password": ""},
                               {"name": "c", "password": "x", "forward": "a:1"}, {"name": "c", "password": "y"}]}"#;
    let errors = Outcome::bad("umbra local", &format!(r#"{{{client}, "locals": [{listed}]}}"#));
    for (found, expected) in errors.iter().zip([
        "locals[0].users[0].password: missing",
        "locals[0].users[1].name: missing",
        "locals[0].users[2].name: the user name is empty",
        "locals[0].users[3].password: the password is empty",
        "locals[0].users[5].name: there is another user c",
    ]) {
        assert!(found.starts_with(expected), "{found} / {expected}");
    }
    assert_eq!(errors.len(), 5, "{errors:#?}");
    let errors = Outcome::bad("umbra local", &format!(r#"{{{client}, "users": []}}"#));
    assert!(errors[0].starts_with("users: nobody could come in"), "{errors:?}");
    let tunnel = format!(r#"{{{client}, "forward_address": "a:1", {users}}}"#);
    assert!(Outcome::bad("umbra tunnel", &tunnel)[0].starts_with("users: a tunnel cannot ask who comes in"));
}

#[test]
fn the_users_file_of_shadowsocks_rust_reads() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("auth.json");
    let path = path.to_str().unwrap();
    let config =
        format!(r#"{{"server": "a", "password": "long-enough", "socks5_auth_config_path": "{path}"}}"#);
    let judge = |text: &str| {
        std::fs::write(path, text).unwrap();
        outcome("umbra local", &config)
    };
    let good = judge(r#"{"password": {"users": [{"user_name": "ann", "password": "x"}]}}"#);
    assert_eq!(
        (good.errors.len(), door_users(&good.plan.unwrap().config).as_str()),
        (0, "Some(Users<1>(..))")
    );
    for (text, complaint) in [
        (r#"{"password": {"users": []}}"#, "socks5_auth_config_path: nobody could come in".to_owned()),
        (r#"{"users": []}"#, format!("{path}: password: wants {{ \"password\"")),
        (
            r#"{"password": {"users": [{"user_name": "ann"}]}}"#,
            format!("{path}: password.users[0].password: missing"),
        ),
        ("{", format!("{path}:1:")),
    ] {
        let bad = judge(text);
        assert!(bad.plan.is_none() && bad.errors[0].starts_with(&complaint), "{complaint}: {:?}", bad.errors);
    }
    std::fs::remove_file(path).unwrap();
    let missing = outcome("umbra local", &config).errors;
    let [only] = &missing[..] else { panic!("{missing:?}") };
    let place = format!("socks5_auth_config_path: {path} cannot be read: no such file");
    assert!(only.starts_with(&place), "{only}");
    assert!(only.ends_with("; check the path that socks5_auth_config_path names"), "{only}");
    std::fs::create_dir(path).unwrap();
    let folder = outcome("umbra local", &config).errors;
    assert!(folder[0].ends_with("; socks5_auth_config_path wants a file of JSON"), "{folder:?}");
}

#[test]
fn proxy_headers_are_for_whom_the_file_names() {
    let file = r#"{"servers": [{"password": "long-enough", "accept_proxy_protocol": ["10.0.0.0/8", "::1"], "send_proxy_protocol": "v2"}]}"#;
    let (config, _) = Outcome::good("umbra server", file);
    let header = &config.inbounds[0].proxy_header;
    let networks: Vec<_> = header.expect_from.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(header.send, Some(umbra_proto::proxy_header::Version::V2));
    let file = r#"{"server": "a", "password": "long-enough", "accept_proxy_protocol": "10.0.0.0/33", "send_proxy_protocol": "v3"}"#;
    let errors = Outcome::bad("umbra local", file);
    assert!(
        errors[0].starts_with("accept_proxy_protocol: Not a valid CIDR notation: 10.0.0.0/33"),
        "{errors:?}"
    );
    assert!(errors[1].starts_with("send_proxy_protocol: v3 is no version"), "{errors:?}");
    let (config, warnings) = Outcome::good(
        "umbra local",
        r#"{"servers": [{"server": "a", "password": "long-enough", "send_proxy_protocol": "v1"}]}"#,
    );
    assert_eq!(config.inbounds[0].proxy_header.send, None);
    assert!(warnings[0].starts_with("servers[0].send_proxy_protocol: left aside"), "{warnings:?}");
}

#[test]
fn a_socks5_proxy_takes_the_place_of_the_server() {
    let words = "--outbound-proxy socks5://me:secret@proxy.example:9";
    for role in ["local", "server"] {
        let file = if role == "server" { r#"{"password": "long-enough"}"# } else { "" };
        let (config, warnings) = Outcome::good(&format!("umbra {role} {words}"), file);
        assert!(warnings[0].starts_with("--outbound-proxy: other users"), "{warnings:?}");
        let Route::Path(path) = config.inbounds[0].routes.otherwise() else { panic!("{role}") };
        let [Hop::Parent(Parent { address, protocol: ParentProtocol::Socks5(Some(_)), .. })] = &*path.hops
        else {
            panic!("{role}: {path:?}")
        };
        assert_eq!(address.to_string(), "proxy.example:9");
    }
    for (words, complaint) in [
        ("--outbound-proxy socks5://a -s b", "-s: cannot stand beside outbound_proxy"),
        ("--outbound-proxy socks5://a --direct", "--outbound-proxy: cannot stand beside direct"),
        ("--outbound-proxy ftp://a", "--outbound-proxy: the URL starts with none of socks5://"),
        ("--outbound-proxy socks5://a:0", "--outbound-proxy: 0 is no port"),
    ] {
        let errors = Outcome::bad(&format!("umbra local {words}"), "");
        assert!(errors[0].starts_with(complaint), "{words}: {errors:?}");
    }
}

fn key_counts(config: &Config) -> Vec<usize> {
    let keys = |inbound: &Inbound| match &inbound.protocol {
        Protocol::Shadowsocks(door) => door.keys.len(),
        Protocol::Proxy(_) | Protocol::Tunnel { .. } => panic!("a server's inbound speaks Shadowsocks"),
    };
    config.inbounds.iter().map(keys).collect()
}

const PORT_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NQ==";
const ANN_KEY: &str = "QU5OMzQ1Njc4OTAxMjM0NQ==";
const BOB_KEY: &str = "Qk9CMzQ1Njc4OTAxMjM0NQ==";

#[test]
fn a_servers_users_are_found_as_the_method_finds_them() {
    let file = format!(
        r#"{{"servers": [
            {{"server_port": 1, "method": "2022-blake3-aes-128-gcm", "password": "{PORT_KEY}", "users": [
                {{"name": "ann", "password": "{ANN_KEY}"}}, {{"name": "bob", "password": "{BOB_KEY}", "forward": "a.example:1"}}]}},
            {{"server_port": 2, "method": "aes-128-gcm", "users": [
                {{"name": "ann", "password": "secret-of-ann"}}, {{"name": "bob", "password": "secret-of-bob"}}]}},
            {{"server_port": 3, "method": "aes-128-gcm", "password": "secret-of-all", "users": [
                {{"name": "ann", "password": "secret-of-ann"}}]}},
        ]}}"#
    );
    let (config, warnings) = Outcome::good("umbra server", &file);
    assert_eq!(key_counts(&config), [2, 2, 2]);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn what_is_wrong_with_a_servers_users_is_told_where_it_was_written() {
    let judge = |method: &str, rest: &str| {
        let file = format!(r#"{{"servers": [{{"method": "{method}", {rest}}}]}}"#);
        Outcome::bad("umbra server", &file).join("\n")
    };
    let of_2022 = |users: &str| {
        judge("2022-blake3-aes-128-gcm", &format!(r#""password": "{PORT_KEY}", "users": [{users}]"#))
    };
    let user = |name: &str, key: &str| format!(r#"{{"name": "{name}", "password": "{key}"}}"#);
    let (ann, bob) = (user("ann", ANN_KEY), user("bob", BOB_KEY));
    for (found, expected) in [
        (of_2022(""), "servers[0].users: empty; add a user"),
        (
            of_2022(&format!("{ann}, {}", user("ann", BOB_KEY))),
            "servers[0].users[1].name: there is another user ann",
        ),
        (
            of_2022(&format!("{bob}, {}", user("ann", BOB_KEY))),
            "servers[0].users[1].password: bob has the same",
        ),
        (of_2022(&user("ann", PORT_KEY)), "servers[0].users[0].password: the port has the same"),
        (
            of_2022(&user("ann", "short")),
            "servers[0].users[0].password: 2022-blake3-aes-128-gcm wants 16 bytes",
        ),
        (of_2022(r#"{"name": "ann"}"#), "servers[0].users[0].password: missing"),
        (
            of_2022(&format!(r#"{{"name": "ann", "password": "{ANN_KEY}", "forward": "a"}}"#)),
            "servers[0].users[0].forward: ",
        ),
        (
            judge("2022-blake3-aes-128-gcm", &format!(r#""users": [{ann}]"#)),
            "servers[0].password: missing; with users, 2022-blake3-aes-128-gcm wants a key of the port as well",
        ),
        (
            judge(
                "2022-blake3-chacha20-poly1305",
                &format!(
                    r#""password": "{LONG_KEY}", "users": [{}]"#,
                    user("ann", "QU5OMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
                ),
            ),
            "servers[0].users: 2022-blake3-chacha20-poly1305 cannot tell users apart",
        ),
        (
            judge(
                "aes-128-gcm",
                r#""users": [{"name": "ann", "password": "long-enough", "forward": "a:1"}]"#,
            ),
            "servers[0].users[0].forward: only 2022-blake3-aes-256-gcm",
        ),
        (
            judge("aes-128-gcm", r#""users": [{"name": "ann", "password": ""}]"#),
            "servers[0].users[0].password: empty",
        ),
    ] {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

const LONG_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

#[test]
fn a_client_with_an_identity_joins_the_keys_with_colons() {
    let method = "2022-blake3-aes-128-gcm";
    let (config, _) = Outcome::good(&format!("umbra local -s a -m {method} -k {PORT_KEY}:{ANN_KEY}"), "");
    assert_eq!(shadowsocks_hops(&config)[0].credentials.identities().len(), 1);
    let errors = Outcome::bad(&format!("umbra local -s a -m {method} -k {PORT_KEY}:x"), "");
    assert!(
        errors[0].starts_with("-k: part 2 of 2, the user's: 2022-blake3-aes-128-gcm wants 16 bytes"),
        "{errors:?}"
    );
    // A password of SIP004 is what it is.
    Outcome::good("umbra local -s a -m aes-128-gcm -k one:two:three", "");
}

/// Which of some addresses the first inbound does not lead to.
fn forbids(config: &Config) -> Vec<&'static str> {
    let asked = ["127.0.0.1", "169.254.169.254", "10.0.0.1", "192.0.2.0", "192.0.2.1", "8.8.8.8"];
    let forbidden = &config.inbounds[0].forbidden;
    asked.into_iter().filter(|ip| forbidden.check(ip.parse().unwrap()).is_some()).collect()
}

#[test]
fn a_list_that_takes_the_place_of_the_standard_one_tells_what_is_reached() {
    let file = |words: &str, keys: &str| match words {
        "umbra server" => {
            let comma = if keys.is_empty() { "" } else { ", " };
            format!(r#"{{"password": "{SECRET}"{comma}{keys}}}"#)
        }
        _ => format!("{{{keys}}}"),
    };
    let all = "127.0.0.0/8,::1,169.254.0.0/16,fe80::/10,168.63.129.16,100.100.100.200,192.0.0.192,fd00::/8";
    for (words, keys, told) in [
        (
            "umbra server",
            r#""forbidden_ip": ["10.0.0.0/8"]"#,
            "(loopback, cloud metadata, link-local): add 100.100.100.200/32,127.0.0.0/8,",
        ),
        (
            "umbra server",
            r#""forbidden_ip": "127.0.0.0/8,::1/128""#,
            "(cloud metadata, link-local): add 100.100.100.200/32,168.63.129.16/32,169.254.0.0/16,",
        ),
        (
            "umbra server",
            r#""forbidden_ip": "10.0.0.0/8", "forbid_private": true"#,
            "(loopback, cloud metadata, link-local)",
        ),
        (
            "umbra server",
            r#""forbidden_ip": "169.254.0.0/16,fe80::/10,::/0", "allowed_ip": "168.63.129.16,100.100.100.200,192.0.0.192""#,
            "(loopback): add 127.0.0.0/8,",
        ),
        (
            "umbra local --direct",
            r#""forbidden_ip": "10.0.0.0/8", "forbid_private": true"#,
            "(loopback, cloud metadata, link-local)",
        ),
    ] {
        let (_, warnings) = Outcome::good(words, &file(words, keys));
        let told_of =
            warnings.iter().filter(|warning| warning.starts_with("forbidden_ip: takes the place of"));
        let told_of: Vec<_> = told_of.collect();
        assert!(told_of.len() == 1 && told_of[0].contains(told), "{words} {keys}: {warnings:?}");
    }
    let all_and_more = format!(r#""forbidden_ip": "{all},fd20:ce::254,10.0.0.0/8""#);
    for (words, keys) in [
        ("umbra server", ""),
        ("umbra server", r#""forbid_private": true, "allowed_ip": "127.0.0.1""#),
        ("umbra server", &all_and_more),
        ("umbra server", r#""forbidden_ip": "10.0.0.0/8", "allowed_ip": "0.0.0.0/0,::/0""#),
        ("umbra local --direct", r#""forbidden_ip": "10.0.0.0/8""#),
    ] {
        let (_, warnings) = Outcome::good(words, &file(words, keys));
        assert!(!warnings.concat().contains("takes the place of"), "{words} {keys}: {warnings:?}");
    }
}

#[test]
fn a_server_forbids_by_itself_and_a_list_takes_the_place_of_that() {
    let own = ["127.0.0.1", "169.254.169.254"];
    let private = ["127.0.0.1", "169.254.169.254", "10.0.0.1"];
    let table: &[(&str, &str, &[&str])] = &[
        ("umbra server", "", &own),
        ("umbra server", r#", "forbidden_ip": null"#, &own),
        ("umbra server", r#", "forbid_private": true"#, &private),
        ("umbra server --forbid-private", "", &private),
        ("umbra server", r#", "forbidden_ip": "192.0.2.0/24""#, &["192.0.2.0", "192.0.2.1"]),
        (
            "umbra server",
            r#", "forbidden_ip": ["192.0.2.0/24, 8.8.8.8", "127.0.0.1"]"#,
            &["127.0.0.1", "192.0.2.0", "192.0.2.1", "8.8.8.8"],
        ),
        ("umbra server --forbidden-ip=8.8.8.8", r#", "forbidden_ip": "192.0.2.0/24""#, &["8.8.8.8"]),
        ("umbra server", r#", "forbidden_ip": "8.8.8.8", "forbid_private": true"#, &["10.0.0.1", "8.8.8.8"]),
        ("umbra server", r#", "allowed_ip": ["127.0.0.0/8"]"#, &["169.254.169.254"]),
        ("umbra server --allowed-ip=10.0.0.1,127.0.0.1", r#", "forbid_private": true"#, &["169.254.169.254"]),
        // The same file may be at both ends, and beyond a server it is the server's to say.
        ("umbra local", r#", "forbid_private": true"#, &[]),
        ("umbra server --outbound-proxy socks5h://a.example:1", "", &own),
        ("umbra server --outbound-proxy socks5h://a.example:1", r#", "forbid_private": true"#, &private),
    ];
    for (words, keys, expected) in table {
        let file = format!(r#"{{"server": "192.0.2.9", "password": "{SECRET}"{keys}}}"#);
        let (config, _) = Outcome::good(words, &file);
        assert_eq!(forbids(&config), *expected, "{words} {keys}");
    }
    let direct: &[(&str, &[&str])] = &[
        ("umbra local --direct", &[]),
        ("umbra local --direct --forbid-private", &private),
        ("umbra local --direct --forbidden-ip=127.0.0.0/8", &["127.0.0.1"]),
    ];
    for (words, expected) in direct {
        let (config, warnings) = Outcome::good(words, "");
        assert_eq!((forbids(&config), warnings.len()), (expected.to_vec(), 0), "{words}");
    }
}

#[test]
fn what_is_doubtful_in_a_list_of_networks_is_said() {
    let server = |keys: &str| format!(r#"{{"password": "{SECRET}"{keys}}}"#);
    for empty in [r#""""#, "[]", r#"[""]"#, r#"" , ""#] {
        let (config, warnings) =
            Outcome::good("umbra server", &server(&format!(r#", "forbidden_ip": {empty}"#)));
        assert_eq!(forbids(&config), [""; 0], "{empty}");
        assert_eq!(
            warnings,
            ["forbidden_ip: empty, so clients reach what this machine and its cloud keep for themselves"]
        );
    }
    let (config, warnings) = Outcome::good("umbra server", &server(r#", "forbidden_ip": "192.0.2.0""#));
    assert_eq!(forbids(&config), ["192.0.2.0"], "without a prefix, one address");
    assert_eq!(warnings[0], "forbidden_ip: 192.0.2.0 is one address; a network is said like 192.0.2.0/24");

    let (_, warnings) = Outcome::good("umbra local -s a --forbidden-ip=::1", &server(""));
    assert_eq!(warnings, ["--forbidden-ip: left aside: it is for a server, or for a client without servers"]);

    for (words, file, error) in [
        (
            "umbra server --forbidden-ip=10.0.0.0/33",
            server(""),
            "--forbidden-ip: Not a valid CIDR notation: 10.0.0.0/33; use one like 10.0.0.0/8, or an address",
        ),
        (
            "umbra server",
            server(r#", "allowed_ip": ["::1", "a.example"]"#),
            "allowed_ip[1]: Not a valid CIDR notation: a.example; use one like 10.0.0.0/8, or an address",
        ),
    ] {
        assert_eq!(outcome(words, &file).errors, [error], "{words}");
    }
    for (words, keys, place) in
        [("", r#", "forbid_private": true"#, "forbid_private"), ("--forbidden-ip=::1", "", "--forbidden-ip")]
    {
        let words = format!("umbra server --outbound-proxy socks5://a.example:1 {words}");
        let (_, warnings) = Outcome::good(words.trim_end(), &server(keys));
        let text = "held to addresses and to names that are resolved here: what a name means to a proxy that resolves it, only the \
                    proxy could refuse";
        assert_eq!(warnings[0], format!("{place}: {text}"));
    }
    // A client without servers has it for itself: no server has the same file.
    let to = r#""paths": [{"name": "p", "hops": "socks5h://a.example:1"}], "otherwise": "p""#;
    for way in [to, r#""outbound_proxy": "socks5://a.example:1""#] {
        let file = format!(r#"{{"local_port": 0, "forbidden_ip": "127.0.0.0/8", {way}}}"#);
        let (config, warnings) = Outcome::good("umbra local", &file);
        assert_eq!(forbids(&config), ["127.0.0.1"], "{way}");
        assert!(warnings[0].starts_with("forbidden_ip: held to addresses and to names"), "{warnings:?}");
    }
    let (config, warnings) = Outcome::good("umbra local -s a", &server(r#", "forbidden_ip": "127.0.0.0/8""#));
    assert_eq!((forbids(&config).len(), warnings.len()), (0, 0), "the server's");
    let behind = server(r#", "forbid_private": false, "allowed_ip": "::1""#);
    let (_, warnings) = Outcome::good("umbra server --outbound-proxy socks5://a.example:1", &behind);
    assert_eq!(warnings, [""; 0]);
}
