//! The real program explains which way a session would take, dials every way, and tells what came of those that sessions took.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "running/foreground.rs"]
mod foreground;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use foreground::{Config, Running};

/// What came of it: the exit code, and both outputs.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn umbra(args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_umbra")).args(args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!said.out.contains("hunter2") && !said.err.contains("hunter2"), "{}{}", said.out, said.err);
    said
}

/// A SOCKS5 and HTTP proxy.
fn proxy() -> (Running, String) {
    let mut proxy = Running::start(&["local", "--direct", "-l", "0"]);
    let address = proxy.wait_for("starting local at ");
    (proxy, address)
}

/// Somebody who lets everybody in and says nothing.
fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().map(Result::unwrap).collect::<Vec<_>>());
    address
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn line<'a>(said: &'a Said, start: &str) -> &'a str {
    let line = said.out.lines().find(|line| line.starts_with(start));
    line.unwrap_or_else(|| panic!("no line {start} in:\n{}{}", said.out, said.err))
}

/// An HTTP proxy within TLS that grants whatever whoever logs in asks for, and the file of its certificate, which names `localhost`.
fn proxy_within_tls(folder: &TempDir) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let certificate = folder.path().join("proxy.pem");
    let der = BASE64_STANDARD.encode(made.cert.der());
    fs::write(&certificate, format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n"))
        .unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(tls, stream.unwrap());
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let knows = String::from_utf8_lossy(&head).contains(&BASE64_STANDARD.encode("me:hunter2"));
            let status = if knows { "200 OK" } else { "407 Who Are You" };
            let _whoever_asked_may_be_gone =
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
            let _likewise = stream.flush();
            // Whoever has the answer goes first.
            let _ended = stream.read(&mut byte);
        }
    });
    (address, certificate.display().to_string())
}

#[test]
fn a_proxy_within_tls_is_believed_only_with_its_certificate_and_under_its_name() {
    let folder = TempDir::new().unwrap();
    let (address, ca_file) = proxy_within_tls(&folder);
    let port = address.port();
    let config = Config::new(&format!(
        r#"{{"local_port": 0, "otherwise": "good", "paths": [
            {{"name": "good", "ca_file": "{ca_file}", "hops": "https://me:hunter2@localhost:{port}"}},
            {{"name": "named", "ca_file": "{ca_file}",
              "hops": {{"url": "http://me:hunter2@127.0.0.1:{port}", "tls": true, "tls_name": "localhost"}}}},
            {{"name": "other name", "ca_file": "{ca_file}", "hops": "https://me:hunter2@127.0.0.1:{port}"}},
            {{"name": "stranger", "ca_file": "{ca_file}", "hops": "https://localhost:{port}"}}]}}"#
    ));
    let said = umbra(&["probe", "-c", config.path(), "192.0.2.1:80"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    for good in ["good", "named"] {
        assert!(line(&said, good).contains(" ok "), "{}", said.out);
    }
    for bad in ["other name", "stranger"] {
        let line = line(&said, bad);
        assert!(line.contains("negotiate failed at hop 1: "), "{line}");
    }
    assert!(line(&said, "other name").contains("certificate"), "{}", said.out);
    assert!(line(&said, "stranger").contains("HTTP proxy"), "{}", said.out);
}

#[test]
fn every_path_is_dialled_and_one_that_fails_is_the_exit_code() {
    let (_running, proxy) = proxy();
    let (target, nobody) = (target(), nobody());
    let good = format!(
        r#"{{"name": "good", "hops": "socks5h://me:hunter2@{proxy}"}},
           {{"name": "chain", "hops": ["socks5://{proxy}", {{"protocol": "http", "address": "{proxy}"}}]}}"#
    );
    let file = |paths: &str| {
        Config::new(&format!(
            r#"{{"local_port": 0, "paths": [{paths}], "groups": [{{"name": "all", "members": ["good", "chain", "direct"]}}],
                "otherwise": "all"}}"#
        ))
    };
    let config = file(&good);
    let said = umbra(&["probe", "-c", config.path(), &target.to_string()]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(line(&said, "PATH ").contains("HOPS"), "{}", said.out);
    for name in ["good", "chain", "direct"] {
        let line = line(&said, name);
        assert!(
            line.contains(&target.to_string()) && line.contains(" ok ") && line.ends_with(" ms"),
            "{line}"
        );
    }
    assert!(line(&said, "chain").contains(&format!("socks5://{proxy} → http://{proxy}")), "{}", said.out);

    let said = umbra(&["probe", "-c", config.path()]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(line(&said, "good").contains(&format!("connect {proxy}")), "{}", said.out);
    assert!(line(&said, "chain").contains(&format!("reach {proxy}")), "{}", said.out);
    assert!(line(&said, "direct").contains("nothing to dial without a target"), "{}", said.out);

    let config =
        file(&format!(r#"{good}, {{"name": "bad", "hops": ["socks5h://{proxy}", "http://{nobody}"]}}"#));
    let said = umbra(&["probe", "-c", config.path(), &target.to_string()]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert!(line(&said, "good").contains(" ok "), "{}", said.out);
    let bad = line(&said, "bad");
    assert!(bad.contains("failed at hop") && !bad.contains(" ok "), "{bad}");
    assert!(said.err.contains("paths[2]: nothing leads to bad"), "{}", said.err);
}

/// What the SOCKS5 door at `door` answers to whoever wants to go to `target`.
fn reply(door: &str, target: SocketAddr) -> u8 {
    let SocketAddr::V4(target) = target else { panic!("an IPv4 target is wanted") };
    let mut stream = TcpStream::connect(door).unwrap();
    let request = [&[5, 1, 0, 5, 1, 0, 1][..], &target.ip().octets(), &target.port().to_be_bytes()].concat();
    stream.write_all(&request).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    answer[3]
}

/// A parent that hangs up on everybody, and how many it has.
fn hanging_up() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    (address, count)
}

#[test]
fn each_member_has_one_turn_unless_somebody_says_how_many_attempts_are_made() {
    for (said, tries) in [
        ("", [1, 1, 1]),
        (r#", "connection_attempts": 3"#, [1, 1, 1]),
        (r#", "connection_attempts": 2"#, [1, 1, 0]),
        (r#", "connection_attempts": 5"#, [2, 2, 1]),
        (r#", "per_server_connection_attempts": 2"#, [2, 2, 2]),
        (r#", "per_server_connection_attempts": 2, "connection_attempts": 3"#, [2, 1, 0]),
    ] {
        let parents = [hanging_up(), hanging_up(), hanging_up()];
        let [a, b, c] = [0, 1, 2].map(|index| format!(r#""socks5h://{}""#, parents[index].0));
        let config = Config::new(&format!(
            r#"{{"local_port": 0, "groups": [{{"name": "g", "members": [{a}, {b}, {c}]{said}}}], "otherwise": "g"}}"#
        ));
        let mut local = Running::start(&["local", "-c", config.path()]);
        let door = local.wait_for("starting local at ");
        assert_ne!(reply(&door, target()), 0, "{said}");
        let counts = [0, 1, 2].map(|index| parents[index].1.load(Ordering::SeqCst));
        assert_eq!(counts, tries, "{said}");
    }
}

#[test]
fn sessions_go_where_route_says_that_they_would() {
    let (_running, proxy) = proxy();
    let (through, refused, unreachable) = (target(), target(), target());
    let config = Config::new(&format!(
        r#"{{"local_port": 0,
            "paths": [{{"name": "p", "hops": ["socks5h://{proxy}", "http://{proxy}"]}}, {{"name": "dead", "hops": "socks5://{}"}}],
            "groups": [{{"name": "g", "members": ["dead", "p"]}}],
            "rules": [
                {{"ports": {}, "to": "refuse", "reply": "connection_refused"}},
                {{"networks": "127.0.0.0/8", "ports": {}, "to": "refuse", "reply": "host_unreachable"}},
                {{"sources": "127.0.0.1", "to": "g"}}],
            "otherwise": "refuse"}}"#,
        nobody(),
        refused.port(),
        unreachable.port()
    ));
    let mut local = Running::start(&["local", "-c", config.path()]);
    let door = local.wait_for("starting local at ");
    assert_eq!([through, refused, unreachable].map(|target| reply(&door, target)), [0, 5, 4]);
    for (target, way) in [
        (through, "way      group g, one of 2 paths"),
        (refused, "way      refused: connection refused"),
        (unreachable, "way      refused: host unreachable"),
    ] {
        let said = umbra(&["route", "--no-dial", "-c", config.path(), &target.to_string()]);
        assert_eq!(line(&said, "way"), way);
    }
}

fn signal(running: &Running, signal: Signal) {
    kill_process(Pid::from_child(&running.child), signal).unwrap();
}

/// What is told of ways in `log`, without the time of each line and without what depends on time.
fn counts(log: &str) -> Vec<String> {
    let timeless = |field: &&str| !field.starts_with("latency_ms=") && !field.starts_with("retry_in_s=");
    let lines = log.lines().filter_map(|line| line.split_once(" counts of ").map(|(_, rest)| rest));
    lines.map(|line| line.split(' ').filter(timeless).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn what_came_of_every_way_is_told_when_asked_for_and_at_the_end() {
    let (_running, proxy) = proxy();
    let (open, chained, grouped, closed, dead) = (target(), target(), target(), nobody(), nobody());
    let config = Config::new(&format!(
        r#"{{"local_port": 0, "mode": "tcp_only",
            "paths": [{{"name": "alone", "hops": "socks5h://{proxy}"}}, {{"name": "chain", "hops": ["socks5://{proxy}", "http://{dead}"]}},
                {{"name": "dead", "hops": "socks5://{dead}"}}, {{"name": "good", "hops": "http://{proxy}"}}],
            "groups": [{{"name": "both", "members": ["dead", "good"]}}],
            "rules": [{{"ports": [{}, {}], "to": "alone"}}, {{"ports": {}, "to": "chain"}}, {{"ports": {}, "to": "both"}}],
            "otherwise": "refuse"}}"#,
        open.port(),
        closed.port(),
        chained.port(),
        grouped.port(),
    ));
    let mut local = Running::start(&["local", "-c", config.path()]);
    let door = local.wait_for("starting local at ");
    assert_eq!([open, open, closed, chained].map(|target| reply(&door, target)), [0, 0, 5, 5]);
    // Two failures mark the first member down, and the third session passes it over.
    assert_eq!([grouped; 3].map(|target| reply(&door, target)), [0; 3]);
    signal(&local, Signal::USR1);
    local.wait_for("counts of member group=both path=good");
    let told = counts(&local.seen);
    let expected = [
        "path path=alone network=tcp tried=3 reached=2 declined=1 failed=0 abandoned=0",
        "parent path=alone network=tcp hop=1 failed=0 resolve=0 connect=0 negotiate=0 denied=0",
        "path path=chain network=tcp tried=1 reached=0 declined=0 failed=1 abandoned=0",
        "parent path=chain network=tcp hop=1 failed=1 resolve=0 connect=0 negotiate=0 denied=1",
        "parent path=chain network=tcp hop=2 failed=0 resolve=0 connect=0 negotiate=0 denied=0",
        "path path=dead network=tcp tried=2 reached=0 declined=0 failed=2 abandoned=0",
        "parent path=dead network=tcp hop=1 failed=2 resolve=0 connect=2 negotiate=0 denied=0",
        "path path=good network=tcp tried=3 reached=3 declined=0 failed=0 abandoned=0",
        "parent path=good network=tcp hop=1 failed=0 resolve=0 connect=0 negotiate=0 denied=0",
        "member group=both path=dead network=tcp health=down reached=0 failed=2 probes_good=0 probes_failed=0",
        "member group=both path=good network=tcp health=up reached=3 failed=0 probes_good=0 probes_failed=0",
    ];
    assert_eq!(told, expected);
    // It goes on, and says the rest when it ends.
    assert_eq!(reply(&door, open), 0);
    signal(&local, Signal::TERM);
    let mut rest = String::new();
    local.log.read_to_string(&mut rest).unwrap();
    let last = counts(&rest);
    assert_eq!(last[0], "path path=alone network=tcp tried=4 reached=3 declined=1 failed=0 abandoned=0");
    assert_eq!(last[1..], expected[1..]);
    assert_eq!(local.child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_came_of_datagrams_is_told_apart() {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = echo.local_addr().unwrap();
    let config = Config::new(&format!(
        r#"{{"locals": [{{"protocol": "tunnel", "local_port": 0, "forward_address": "127.0.0.1", "forward_port": {},
            "mode": "udp_only"}}], "otherwise": "direct"}}"#,
        target.port()
    ));
    let mut local = Running::start(&["local", "-c", config.path()]);
    let said = local.wait_for("starting udp tunnel at ");
    let (door, _) = said.split_once(' ').unwrap();
    for _client in 0..2 {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"words", door).unwrap();
        let mut bytes = [0; 8];
        let (_, from) = echo.recv_from(&mut bytes).unwrap();
        echo.send_to(b"words", from).unwrap();
        assert_eq!(client.recv(&mut bytes).unwrap(), 5);
    }
    signal(&local, Signal::USR1);
    local.wait_for("counts of path path=direct");
    assert_eq!(counts(&local.seen), ["path path=direct network=udp reached=2 failed=0"]);

    let config = Config::new(&format!(
        r#"{{"locals": [{{"protocol": "tunnel", "local_port": 0, "forward_address": "127.0.0.1", "forward_port": 9,
            "mode": "udp_only"}}], "paths": [{{"name": "dead", "hops": "socks5://{}"}}], "otherwise": "dead"}}"#,
        nobody()
    ));
    let mut local = Running::start(&["local", "-c", config.path()]);
    let said = local.wait_for("starting udp tunnel at ");
    let (door, _) = said.split_once(' ').unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"words", door).unwrap();
    local.wait_for("session failed");
    // The engine hears of it a moment later.
    let has_heard = (0..1000).any(|_| {
        signal(&local, Signal::USR1);
        local.wait_for("counts of path path=dead network=udp ") == "reached=0 failed=1"
    });
    assert!(has_heard, "{}", local.seen);
    let of_hop = local.wait_for("counts of parent path=dead network=udp ");
    assert_eq!(of_hop, "hop=1 failed=1 resolve=0 connect=1 negotiate=0 denied=0");
}

#[test]
fn a_failure_is_told_with_its_path_before_the_client_has_gone() {
    let mut local = Running::start(&["local", "--direct", "-b", "127.0.0.1:0"]);
    let door = local.wait_for("starting local at ");
    let mut client = TcpStream::connect(&door).unwrap();
    client.write_all(&[5, 1, 0]).unwrap();
    let port = nobody().port().to_be_bytes();
    client.write_all(&[&[5, 1, 0, 1, 127, 0, 0, 1][..], &port].concat()).unwrap();
    let mut answer = [0; 2 + 10];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer[3], 5);
    // Nothing but the client ends the wait for its end before two seconds are over, and it stays.
    let answered = Instant::now();
    let told = local.wait_for("session failed ");
    assert!(answered.elapsed() < Duration::from_millis(1500), "only when the client has been seen off");
    assert!(told.contains("path=\"direct\"") || told.contains("path=direct"), "{told}");
    drop(client);
}

#[test]
fn a_route_is_explained_with_the_rule_and_the_health_of_its_paths() {
    let (_running, proxy) = proxy();
    let (target, nobody) = (target(), nobody());
    let config = Config::new(&format!(
        r#"{{"locals": [{{"local_port": 0, "name": "desk"}}, {{"local_address": "::1", "local_port": 0, "name": "guests"}}],
            "paths": [{{"name": "one", "hops": "socks5h://me:hunter2@{proxy}"}}, {{"name": "two", "hops": "http://{nobody}"}}],
            "groups": [{{"name": "both", "members": ["one", "two"]}}],
            "rules": [
                {{"name": "no ads", "domains": ["ads.example"], "to": "refuse"}},
                {{"inbounds": ["guests"], "to": "refuse", "reply": "host_unreachable"}},
                {{"users": [], "domains": ["x.example"], "disabled": true}},
                {{"networks": ["127.0.0.0/8"], "to": "both"}},
            ],
            "otherwise": "one"}}"#
    ));
    let route = |args: &[&str]| umbra(&[&["route", "-c", config.path()], args].concat());

    let said = route(&["www.ads.example"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(line(&said, "target"), "target   www.ads.example:443, a stream from 127.0.0.1 through desk");
    assert_eq!(line(&said, "rule"), "rule     no ads, which has ads.example with all below it");
    assert_eq!(line(&said, "way"), "way      refused: not allowed");
    assert!(!said.out.contains("PATH"), "{}", said.out);

    let said = route(&["localhost:1", "--inbound", "guests", "--source", "10.0.0.1", "--no-dial"]);
    assert!(line(&said, "target").ends_with("from 10.0.0.1 through guests"), "{}", said.out);
    assert_eq!(line(&said, "rule"), "rule     rules[1], which has the inbound guests");
    assert_eq!(line(&said, "way"), "way      refused: host unreachable");

    let said = route(&[&target.to_string()]);
    assert_eq!(line(&said, "rule"), "rule     rules[3], which has 127.0.0.0 to 127.255.255.255");
    assert_eq!(line(&said, "way"), "way      group both, one of 2 paths");
    assert!(line(&said, "one").contains(" ok "), "{}", said.out);
    assert!(line(&said, "two").contains("connect failed at hop 1: Connection refused"), "{}", said.out);

    let said = route(&["--no-dial", &format!("localhost:{}", target.port())]);
    assert!(line(&said, "address").contains("127.0.0.1"), "a rule had to know: {}", said.out);
    assert_eq!(line(&said, "way"), "way      group both, one of 2 paths");
    assert!(line(&said, "PATH ").ends_with("HOPS"), "nothing was tried: {}", said.out);

    let said = route(&["--no-dial", "192.0.2.1:53", "--udp"]);
    assert!(line(&said, "target").contains("datagrams from"), "{}", said.out);
    assert_eq!(line(&said, "rule"), "rule     none fits: otherwise");
    assert_eq!(line(&said, "way"), "way      path one");

    let said = route(&["a.example", "--inbound", "gests"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("--inbound: there is no inbound gests; did you mean guests?"), "{}", said.err);
    let said = route(&["a.example", "--user", "ann"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    let words = "--user: there is no user ann at desk; nobody logs in there, so leave it out";
    assert!(said.err.contains(words), "{}", said.err);
}

#[test]
fn a_route_says_what_in_its_rule_fits_and_whom_it_does_not_know() {
    let config = Config::new(
        r#"{"local_port": 0, "users": [{"name": "ann", "password": "a password"}, {"name": "bea", "password": "another one"}],
            "rules": [
                {"name": "early", "domains": "b.example", "to": "direct"},
                {"name": "calls", "network": "udp", "ports": ["1-5", "9000-9100"], "sources": "10.0.0.0/8", "users": ["bea", "ann"], "to": "direct"},
                {"name": "mail", "domains": "keyword:mail", "ports": 25, "network": "tcp", "to": "refuse"},
                {"name": "all", "inbounds": "local-0", "to": "direct"}],
            "otherwise": "refuse"}"#,
    );
    let rule = |args: &[&str]| {
        let said = umbra(&[&["route", "--no-dial", "-c", config.path()], args].concat());
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        line(&said, "rule").split_once(' ').unwrap().1.trim().to_owned()
    };
    let calls = ["--udp", "--source", "10.1.2.3", "--user", "ann"];
    assert_eq!(
        rule(&[&["a.example:9001"][..], &calls].concat()),
        "calls, which has the ports 9000 to 9100, the source 10.0.0.0 to 10.255.255.255, the user ann and the network udp"
    );
    assert_eq!(
        rule(&["webmail.example:25"]),
        "mail, which has the word mail, the port 25 and the network tcp"
    );
    assert_eq!(rule(&["a.example:9001"]), "all, which has the inbound local-0");
    assert!(
        rule(&["b.example:9001", "--udp", "--source", "10.1.2.3"]).starts_with("early, "),
        "for everybody"
    );
    // Whoever comes in has logged in, and this rule wants to know as whom.
    let said = umbra(&[
        "route",
        "--no-dial",
        "-c",
        config.path(),
        "a.example:9001",
        "--udp",
        "--source",
        "10.1.2.3",
    ]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    let words =
        "--user: whoever comes in at local-0 is one of its users, and a rule asks which; say one: ann, bea";
    assert!(said.err.contains(words), "{}", said.err);
    let said = umbra(&["route", "--no-dial", "-c", config.path(), "a.example", "--user", "anna"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("--user: there is no user anna at local-0; did you mean ann?"), "{}", said.err);
}

#[test]
fn a_route_of_datagrams_is_tried_with_a_question_where_a_name_server_would_be() {
    let config = Config::new(r#"{"local_port": 0, "otherwise": "direct"}"#);
    let route = |target: &str| umbra(&["route", "--udp", "-c", config.path(), target]);
    let said = route("192.0.2.1:9000");
    assert!(
        line(&said, "direct").ends_with("not tried: only a name server, at port 53, answers whoever asks"),
        "{}",
        said.out
    );
    let asked = |route: Said| {
        line(&route, "direct").split_once("ask 127.0.0.77:53 for example.com").unwrap().1.trim().to_owned()
    };
    // The port is for root alone: without it the probe is proven in the relay's own tests.
    let Ok(server) = UdpSocket::bind("127.0.0.77:53") else { return };
    assert_eq!(asked(route("127.0.0.77:53")), "relay failed: no answer came");
    server.set_nonblocking(true).unwrap();
    server.recv_from(&mut [0; 512]).unwrap();
    server.set_nonblocking(false).unwrap();
    let answering = thread::spawn(move || {
        let mut bytes = [0; 512];
        server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (len, from) = server.recv_from(&mut bytes).unwrap();
        bytes[2] |= 0x80;
        server.send_to(&bytes[..len], from).unwrap();
    });
    let said = asked(route("127.0.0.77:53"));
    assert!(said.starts_with("ok "), "{said}");
    answering.join().unwrap();
}

#[test]
fn a_question_along_a_dead_proxy_fails_where_the_proxy_does() {
    let config = Config::new(&format!(
        r#"{{"local_port": 0, "paths": [{{"name": "dead", "hops": "socks5://{}"}}], "otherwise": "dead"}}"#,
        nobody()
    ));
    let said = umbra(&["route", "--udp", "-c", config.path(), "192.0.2.1:53"]);
    let row = line(&said, "dead");
    assert!(
        row.contains("ask 192.0.2.1:53 for example.com  connect failed at hop 1: Connection refused"),
        "{row}"
    );
}

#[test]
fn users_of_a_server_are_known_to_route() {
    let key = |byte: u8| {
        BASE64_STANDARD.encode(std::array::from_fn::<u8, 16, _>(|at| byte ^ u8::try_from(at).unwrap()))
    };
    let users: Vec<_> = (1..=12)
        .map(|number| format!(r#"{{"name": "somebody {number}", "password": "{}"}}"#, key(number)))
        .collect();
    let config = Config::new(&format!(
        r#"{{"server_port": 0, "method": "2022-blake3-aes-128-gcm", "password": "{}", "users": [{}],
            "rules": [{{"users": "somebody 7", "to": "refuse"}}]}}"#,
        key(99),
        users.join(", ")
    ));
    let route = |user| {
        umbra(&["route", "--as", "server", "-c", config.path(), "--no-dial", "192.0.2.1:80", "--user", user])
    };
    assert_eq!(line(&route("somebody 7"), "rule"), "rule     rules[0], which has the user somebody 7");
    assert_eq!(line(&route("somebody 8"), "rule"), "rule     none fits: otherwise");
    let nobody = umbra(&["route", "--as", "server", "-c", config.path(), "--no-dial", "192.0.2.1:80"]);
    assert_eq!(nobody.code, Some(1), "{}", nobody.out);
    assert!(
        nobody.err.contains("say one: somebody 1, ") && nobody.err.contains(" and 2 more"),
        "{}",
        nobody.err
    );
    let said = route("xyz");
    assert!(
        said.err.contains("there is no user xyz at ") && said.err.contains("somebody 10 and 2 more"),
        "{}",
        said.err
    );
}

#[test]
fn a_direct_way_says_where_nobody_is_led() {
    let config = Config::new(r#"{"password": "long-enough", "server_port": 0}"#);
    let said = umbra(&["route", "--as", "server", "-c", config.path(), "--no-dial", "127.0.0.1:80"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(line(&said, "way"), "way      path direct");
    assert!(said.out.contains("127.0.0.1 is forbidden"), "{}", said.out);
    let said = umbra(&["route", "--as", "server", "-c", config.path(), "--no-dial", "192.0.2.1:80"]);
    assert!(!said.out.contains("forbidden"), "{}", said.out);
}

#[test]
fn a_wrong_command_line_or_configuration_is_told() {
    for args in [&["route"][..], &["route", "a:0"], &["route", "a", "--source", "x"], &["probe", "a:b"]] {
        assert_eq!(umbra(args).code, Some(2), "{args:?}");
    }
    let config = Config::new(r#"{"locals": [{}], "rules": [{"ports": 1, "to": "nowhere"}]}"#);
    for command in ["route", "probe"] {
        let said = umbra(&[command, "-c", config.path(), "a.example"]);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{}", said.err);
        assert!(said.err.contains("rules[0].to: there is no way nowhere"), "{}", said.err);
        assert!(said.err.contains("otherwise: missing"), "{}", said.err);
    }
}

#[test]
fn a_clients_servers_are_dialled_and_those_behind_plugins_are_not() {
    let (target, nobody) = (target(), nobody());
    let config = Config::new(&format!(
        r#"{{"local_port": 0, "servers": [
            {{"server": "127.0.0.1", "server_port": {}, "password": "hunter2hunter2"}},
            {{"server": "127.0.0.1", "server_port": {}, "password": "hunter2hunter2", "plugin": "sh"}}]}}"#,
        target.port(),
        nobody.port()
    ));
    let said = umbra(&["probe", "-c", config.path()]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(line(&said, "servers[0]").contains(&format!("ss://{target}")), "{}", said.out);
    assert!(line(&said, "servers ").contains("sh → "), "{}", said.out);
    assert!(line(&said, "servers ").contains("not tried: its plugin does not run"), "{}", said.out);
}

#[test]
fn a_server_for_datagrams_alone_is_not_connected_to_and_streams_say_that_none_carries_them() {
    let config = Config::new(&format!(
        r#"{{"local_port": 0, "server": "{}", "password": "hunter2hunter2", "mode": "udp_only"}}"#,
        nobody()
    ));
    let said = umbra(&["probe", "-c", config.path()]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let words = "not tried: it carries datagrams alone; umbra route --udp NAMESERVER:53 asks along it";
    assert!(line(&said, "servers[0]").ends_with(words), "{}", said.out);
    let said = umbra(&["probe", "-c", config.path(), "192.0.2.1:80"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(line(&said, "servers[0]").ends_with("not tried: it carries datagrams alone"), "{}", said.out);

    let locals = r#""locals": [{"local_port": 0, "mode": "tcp_only"}]"#;
    let config = Config::new(&format!(
        r#"{{{locals}, "servers": [{{"server": "{}", "password": "hunter2hunter2", "mode": "udp_only"}}]}}"#,
        nobody()
    ));
    let mut local = Running::start(&["local", "-c", config.path()]);
    let door = local.wait_for("starting local at ");
    assert_ne!(reply(&door, target()), 0);
    let told = local.wait_for("session failed ");
    assert!(told.contains("no path of the group carries streams"), "{told}");
}

#[test]
fn a_shadowsocks_server_that_is_connected_to_is_not_called_a_target_that_is_reached() {
    let (_running, proxy) = proxy();
    let (server, closed) = (target(), nobody());
    let ss = |address: SocketAddr| {
        format!(
            r#"{{"protocol": "ss", "address": "{address}", "method": "aes-256-gcm", "password": "hunter2hunter2"}}"#
        )
    };
    let (listening, other) = (ss(server), ss(closed));
    let config = Config::new(&format!(
        r#"{{"local_port": 0, "otherwise": "all", "groups": [{{"name": "all", "members": ["alone", "behind", "before"]}}],
            "paths": [{{"name": "alone", "hops": [{listening}]}},
                {{"name": "behind", "hops": ["socks5h://{proxy}", {listening}, {other}]}},
                {{"name": "before", "hops": [{listening}, {other}]}}]}}"#
    ));
    let silent = "ok: connected; a Shadowsocks server says nothing of the target ";
    for command in ["probe", "route"] {
        let said = umbra(&[command, "-c", config.path(), "192.0.2.1:80"]);
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        for (name, words) in [("alone", "connect"), ("behind", "reach"), ("before", "connect")] {
            let row = line(&said, name);
            assert!(row.contains(&format!(" {words} {server} ")) && row.contains(silent), "{row}");
            assert!(!row.contains("192.0.2.1"), "{row}");
        }
    }
    let said = umbra(&["probe", "-c", config.path()]);
    assert!(line(&said, "alone").contains(" ok "), "{}", said.out);
    for (name, words) in [("behind", "reach"), ("before", "connect")] {
        let row = line(&said, name);
        assert!(row.contains(&format!(" {words} {server} ")), "{row}");
        assert!(row.contains("ok: connected; a Shadowsocks server says nothing of the next proxy "), "{row}");
    }
}

#[test]
fn a_route_that_no_session_could_ask_for_is_refused_with_the_remedy() {
    let route = |config: &Config, args: &[&str]| {
        let said = umbra(&[&["route", "--no-dial", "-c", config.path()], args].concat());
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{}", said.err);
        said.err
    };
    let config = Config::new(
        r#"{"locals": [
            {"name": "streams", "local_port": 0, "mode": "tcp_only"},
            {"name": "games", "local_address": "::1", "local_port": 0, "mode": "udp_only"},
            {"name": "names", "local_address": "127.0.0.2", "local_port": 0, "protocol": "tunnel", "forward_address": "192.0.2.1", "forward_port": 53}],
            "paths": [{"name": "web", "hops": "http://192.0.2.9"}],
            "groups": [{"name": "webs", "members": ["web"]}],
            "rules": [{"ports": 53, "to": "webs"}],
            "otherwise": "direct"}"#,
    );
    let told = route(&config, &["192.0.2.1:53", "--udp"]);
    assert!(
        told.contains("--udp: streams carries no datagrams; ask without it, say another --inbound"),
        "{told}"
    );
    let told = route(&config, &["192.0.2.1:53", "--inbound", "games"]);
    assert!(
        told.contains("TARGET: games carries no streams; ask with --udp, say another --inbound"),
        "{told}"
    );
    let told = route(&config, &["192.0.2.2:53", "--inbound", "names"]);
    assert!(
        told.contains("TARGET: the tunnel at names leads to 192.0.2.1:53, whatever is asked for"),
        "{told}"
    );
    let said =
        umbra(&["route", "--no-dial", "--udp", "-c", config.path(), "192.0.2.1:53", "--inbound", "names"]);
    assert_eq!(line(&said, "way"), "way      group webs, one of 0 paths");
    assert!(said.out.contains("of which none carries datagrams, so they are dropped"), "{}", said.out);

    let key = |byte: u8| {
        BASE64_STANDARD.encode(std::array::from_fn::<u8, 16, _>(|at| byte ^ u8::try_from(at).unwrap()))
    };
    let config = Config::new(&format!(
        r#"{{"server_port": 0, "method": "2022-blake3-aes-128-gcm", "password": "{}",
            "users": [{{"name": "ann", "password": "{}"}}, {{"name": "bea", "password": "{}", "forward": "192.0.2.7:8388"}}]}}"#,
        key(99),
        key(1),
        key(2)
    ));
    let told = route(&config, &["--as", "server", "192.0.2.1:80", "--user", "bea"]);
    let words = "leads to 192.0.2.7:8388, whatever is asked for; ask for that";
    assert!(told.contains("TARGET: the forward of bea at ") && told.contains(words), "{told}");
    for (user, target) in [("bea", "192.0.2.7:8388"), ("ann", "192.0.2.1:80")] {
        let said =
            umbra(&["route", "--no-dial", "--as", "server", "-c", config.path(), target, "--user", user]);
        assert_eq!(line(&said, "way"), "way      path direct", "{}", said.err);
    }
}

#[test]
fn a_file_with_nothing_but_a_proxy_is_a_clients_to_everybody_who_asks() {
    let (proxy, address) = proxy();
    let config = Config::new(&format!(r#"{{"outbound_proxy": "socks5://{address}"}}"#));
    let check = umbra(&["check", config.path()]);
    assert!(
        check.code == Some(0) && check.out.contains("good for umbra local"),
        "{}{}",
        check.out,
        check.err
    );
    let route = umbra(&["route", "-c", config.path(), "192.0.2.1:80"]);
    assert!(route.code == Some(0) && route.out.contains("outbound_proxy"), "{}{}", route.out, route.err);
    let probe = umbra(&["probe", "-c", config.path()]);
    assert!(probe.code == Some(0) && probe.out.contains("outbound_proxy"), "{}{}", probe.out, probe.err);
    drop(proxy);
}
