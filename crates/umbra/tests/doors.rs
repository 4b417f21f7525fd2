//! Every front door of the real program, with curl as the client.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "running/foreground.rs"]
mod foreground;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use foreground::{Config, Running};

/// An HTTP server that answers each request with its first line and the wanted header.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || serve(&stream));
        }
    });
    address
}

fn serve(mut stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
        }
        let body = format!("heard {first}");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// What curl says of a page behind a proxy: its exit code and its output.
fn curl(args: &[&str], url: &str) -> (Option<i32>, String) {
    let mut command = Command::new("curl");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", ""]).args(args).arg(url);
    let output = command.stdin(Stdio::null()).output().expect("curl is there; these tests knock with it");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A client and a server between which the stream is encrypted; returns the client's door too.
fn pair(local: &str, server: &str) -> (Running, Running, String) {
    let server_file = Config::new(&format!(
        r#"{{"server": "127.0.0.1", "server_port": 0, "password": "long-enough", "method": "aes-128-gcm", "forbidden_ip": []{server}}}"#
    ));
    let mut server = Running::start(&["server", "-c", server_file.path()]);
    let address = server.wait_for("starting server at ");
    let local_file = Config::new(&format!(
        r#"{{"server": "{address}", "password": "long-enough", "method": "aes-128-gcm", "local_port": 0{local}}}"#
    ));
    let mut client = Running::start(&["local", "-c", local_file.path()]);
    let door = client.wait_for("starting local at ");
    (server, client, door)
}

#[test]
fn curl_comes_in_through_every_door_of_one_port() {
    let origin = origin();
    let (_server, _client, door) = pair("", "");
    let by_ip = format!("http://{origin}/page");
    let by_name = format!("http://localhost:{}/page", origin.port());
    for (args, url) in [
        (&["--socks4", &door][..], &by_ip),
        (&["--socks4a", &door], &by_name),
        (&["--socks5", &door], &by_ip),
        (&["--socks5-hostname", &door], &by_name),
        (&["--proxy", &format!("http://{door}")], &by_ip),
        (&["--proxy", &format!("http://{door}"), "--proxytunnel"], &by_name),
        // Nobody is asked who they are, and nobody minds being told.
        (&["--proxy-user", "ann:x", "--socks5", &door], &by_ip),
        (&["--proxy-user", "ann:x", "--proxy", &door], &by_ip),
    ] {
        assert_eq!(curl(args, url), (Some(0), "heard GET /page HTTP/1.1\r\n".into()), "{args:?} {url}");
    }
}

#[test]
fn a_door_with_users_is_closed_to_everybody_else() {
    let origin = origin();
    let users =
        r#", "users": [{"name": "ann", "password": "wonder land"}, {"name": "bob", "password": "b:c"}]"#;
    let (_server, _client, door) = pair(users, "");
    let url = format!("http://{origin}/page");
    let http = format!("http://{door}");
    let doors = [&["--socks5", &door][..], &["--proxy", &http], &["--proxy", &http, "--proxytunnel"]];
    for way in doors {
        for login in ["ann:wonder land", "bob:b:c"] {
            let (code, page) = curl(&[way, &["--proxy-user", login]].concat(), &url);
            assert_eq!((code, page.as_str()), (Some(0), "heard GET /page HTTP/1.1\r\n"), "{way:?} {login}");
        }
        for login in
            [&["--proxy-user", "ann:wrong"][..], &["--proxy-user", "eve:b:c"], &["--proxy-user", "bob:"], &[]]
        {
            let (_, page) = curl(&[way, login].concat(), &url);
            assert!(!page.contains("heard"), "{way:?} {login:?}: {page}");
        }
    }
    for way in [
        &["--socks4", &door][..],
        &["--socks4", &door, "--proxy-user", "ann:wonder land"],
        &["--socks4a", &door],
    ] {
        let (code, page) = curl(way, &url);
        assert!(code != Some(0) && page.is_empty(), "{way:?}: SOCKS4 has no password");
    }
}

#[test]
fn the_protocol_closes_the_other_doors() {
    let origin = origin();
    let url = format!("http://{origin}/page");
    let (_server, _client, socks) = pair(r#", "protocol": "socks""#, "");
    assert_eq!(curl(&["--socks5", &socks], &url).0, Some(0));
    assert_eq!(curl(&["--socks4", &socks], &url).0, Some(0));
    assert_ne!(curl(&["--proxy", &socks], &url).0, Some(0));
    let (_server, _client, http) = pair(r#", "protocol": "http""#, "");
    assert_eq!(curl(&["--proxy", &http], &url).0, Some(0));
    assert_ne!(curl(&["--socks5", &http], &url).0, Some(0));
    assert_ne!(curl(&["--socks4", &http], &url).0, Some(0));
}

/// Sends its words before it has heard any, and then what it hears.
fn banner_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _gone = stream.write_all(b"welcome\r\n");
                let mut copy = stream.try_clone().unwrap();
                let _gone = std::io::copy(&mut copy, &mut stream);
            });
        }
    });
    address
}

#[test]
fn a_tunnel_leads_to_a_server_that_speaks_first() {
    let target = banner_server();
    let mut server = Running::start(&["server", "-s", "127.0.0.1:0", "-k", "long-enough", "--forbidden-ip="]);
    let address = server.wait_for("starting server at ");
    let mut tunnel = Running::start(&[
        "tunnel",
        "-s",
        &address,
        "-k",
        "long-enough",
        "-l",
        "0",
        "-f",
        &target.to_string(),
    ]);
    let line = tunnel.wait_for("starting tcp tunnel at ");
    let (door, _) = line.split_once(" forward to ").unwrap();
    let mut stream = TcpStream::connect(door).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut banner = [0; 9];
    stream.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"welcome\r\n");
    stream.write_all(b"there and back").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"there and back");
}

#[test]
fn a_direct_way_and_a_socks5_parent_carry_sessions() {
    let url = format!("http://{}/page", origin());
    let parent_file =
        Config::new(r#"{"direct": true, "local_port": 0, "users": [{"name": "ann", "password": "a@b"}]}"#);
    let mut parent = Running::start(&["local", "-c", parent_file.path()]);
    let parent_door = parent.wait_for("starting local at ");
    assert_eq!(curl(&["--proxy-user", "ann:a@b", "--socks5", &parent_door], &url).0, Some(0));
    for (login, code) in [("ann:a%40b", true), ("ann:wrong", false)] {
        let proxy = format!("socks5://{login}@{parent_door}");
        let file = Config::new(&format!(r#"{{"outbound_proxy": "{proxy}", "local_port": 0}}"#));
        let mut child = Running::start(&["local", "-c", file.path()]);
        let door = child.wait_for("starting local at ");
        assert_eq!(curl(&["--socks5-hostname", &door], &url).0 == Some(0), code, "{login}");
    }
}

/// Accepts one connection and returns what comes until there is a line end, or as many bytes as a version 2 header has.
fn first_bytes() -> (SocketAddr, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = Vec::new();
        let _until_the_end = stream.read_to_end(&mut bytes);
        bytes
    });
    (address, heard)
}

#[test]
fn a_load_balancers_header_names_the_client_to_the_target() {
    let (target, heard) = first_bytes();
    let file = Config::new(&format!(
        r#"{{"direct": true, "local_port": 0, "forward_address": "{target}",
            "accept_proxy_protocol": ["127.0.0.0/8"], "send_proxy_protocol": "v1"}}"#
    ));
    let mut tunnel = Running::start(&["tunnel", "-c", file.path()]);
    let line = tunnel.wait_for("starting tcp tunnel at ");
    let (door, _) = line.split_once(" forward to ").unwrap();
    let mut stream = TcpStream::connect(door).unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.9 192.0.2.1 50000 443\r\nhello").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let heard = String::from_utf8(heard.join().unwrap()).unwrap();
    assert!(heard.starts_with("PROXY TCP4 192.0.2.9 ") && heard.ends_with("\r\nhello"), "{heard:?}");
    assert!(heard.contains(" 50000 "), "{heard:?}");

    let mut forged = TcpStream::connect(door).unwrap();
    forged.write_all(b"no header at all\r\n").unwrap();
    let mut answer = Vec::new();
    let _reset_is_an_end_too = forged.read_to_end(&mut answer);
    assert!(answer.is_empty());
}

#[test]
fn a_client_with_many_servers_goes_on_when_most_of_them_are_gone() {
    let url = format!("http://{}/page", origin());
    let mut server = Running::start(&["server", "-s", "127.0.0.1:0", "-k", "long-enough", "--forbidden-ip="]);
    let good: SocketAddr = server.wait_for("starting server at ").parse().unwrap();
    // Nobody listens on the ports of listeners that are gone.
    let gone: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string())
        .collect();
    let file = Config::new(&format!(
        r#"{{"server": ["127.0.0.1"], "server_port": [{}, {}], "password": "long-enough", "local_port": 0}}"#,
        gone.join(", "),
        good.port()
    ));
    let mut client = Running::start(&["local", "-c", file.path()]);
    let door = client.wait_for("starting local at ");
    for _ in 0..12 {
        assert_eq!(curl(&["--socks5-hostname", &door], &url).0, Some(0));
    }
}

#[test]
fn two_thousand_ports_with_a_password_each_start_and_serve() {
    let ports: Vec<_> = (0..2000).map(|n| format!(r#""{}": "secret-number-{n}""#, PORT_FIRST + n)).collect();
    let file = Config::new(&format!(
        r#"{{"server": "127.0.0.1", "method": "aes-128-gcm", "forbidden_ip": "", "port_password": {{{}}}}}"#,
        ports.join(", ")
    ));
    let start = Instant::now();
    let mut server = Running::start(&["server", "-c", file.path()]);
    server.wait_for(&format!("starting server at 127.0.0.1:{}", PORT_FIRST + 1999));
    let took = start.elapsed();
    println!("2000 ports after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}, in a build that is not optimized");

    let url = format!("http://{}/page", origin());
    for n in [0, 999, 1999] {
        let (port, secret) = ((PORT_FIRST + n).to_string(), format!("secret-number-{n}"));
        let mut client = Running::start(&[
            "local",
            "-s",
            "127.0.0.1",
            "-p",
            &port,
            "-m",
            "aes-128-gcm",
            "-k",
            &secret,
            "-l",
            "0",
        ]);
        let door = client.wait_for("starting local at ");
        assert_eq!(curl(&["--socks5-hostname", &door], &url).0, Some(0), "port {port}");
    }
}

/// Whether a client of the server at `address` gets a page. A server says nothing to strangers, so they wait in vain.
fn gets_through(address: &str, method: &str, password: &str, url: &str) -> bool {
    let args = ["local", "-s", address, "-m", method, "-k", password, "-l", "0"];
    let mut client = Running::start(&args);
    let door = client.wait_for("starting local at ");
    curl(&["--socks5-hostname", &door, "--max-time", "3"], url).0 == Some(0)
}

#[test]
fn several_users_share_a_port_and_nobody_else_gets_in() {
    let url = format!("http://{}/page", origin());
    let users = |ann: &str, bob: &str| {
        format!(
            r#""users": [{{"name": "ann", "password": "{ann}"}}, {{"name": "bob", "password": "{bob}"}}]"#
        )
    };
    let start = |method: &str, rest: &str| {
        let file = Config::new(&format!(
            r#"{{"server": "127.0.0.1", "server_port": 0, "forbidden_ip": "", "method": "{method}", {rest}}}"#
        ));
        let mut server = Running::start(&["server", "-c", file.path()]);
        let address = server.wait_for("starting server at ");
        (server, address)
    };
    let method = "2022-blake3-aes-128-gcm";
    let (_server, address) =
        start(method, &format!(r#""password": "{PORT_KEY}", {}"#, users(ANN_KEY, BOB_KEY)));
    for key in [ANN_KEY, BOB_KEY] {
        assert!(gets_through(&address, method, &format!("{PORT_KEY}:{key}"), &url));
    }
    for password in [PORT_KEY, ANN_KEY, &format!("{PORT_KEY}:{EVE_KEY}"), &format!("{EVE_KEY}:{ANN_KEY}")] {
        assert!(!gets_through(&address, method, password, &url), "{password}");
    }
    let method = "chacha20-ietf-poly1305";
    let (_server, address) = start(
        method,
        &format!(r#""password": "secret-of-all", {}"#, users("secret-of-ann", "secret-of-bob")),
    );
    for password in ["secret-of-all", "secret-of-ann", "secret-of-bob"] {
        assert!(gets_through(&address, method, password, &url), "{password}");
    }
    assert!(!gets_through(&address, method, "secret-of-eve", &url));
}

#[test]
fn a_server_passes_a_users_stream_on_to_the_next_one() {
    let url = format!("http://{}/page", origin());
    let method = "2022-blake3-aes-128-gcm";
    let server = |users: &str, password: &str| {
        let file = Config::new(&format!(
            r#"{{"server": "127.0.0.1", "server_port": 0, "forbidden_ip": "", "method": "{method}", "password": "{password}", "users": [{users}]}}"#
        ));
        let mut server = Running::start(&["server", "-c", file.path()]);
        let address = server.wait_for("starting server at ");
        (server, address)
    };
    let (_behind, behind) = server(&format!(r#"{{"name": "ann", "password": "{ANN_KEY}"}}"#), BOB_KEY);
    let (_front, front) =
        server(&format!(r#"{{"name": "next", "password": "{BOB_KEY}", "forward": "{behind}"}}"#), PORT_KEY);
    assert!(gets_through(&front, method, &format!("{PORT_KEY}:{BOB_KEY}:{ANN_KEY}"), &url));
    assert!(!gets_through(&front, method, &format!("{PORT_KEY}:{BOB_KEY}:{EVE_KEY}"), &url));
    assert!(!gets_through(&front, method, &format!("{PORT_KEY}:{EVE_KEY}:{ANN_KEY}"), &url));
}

const PORT_KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NQ==";
const ANN_KEY: &str = "QU5OMzQ1Njc4OTAxMjM0NQ==";
const BOB_KEY: &str = "Qk9CMzQ1Njc4OTAxMjM0NQ==";
const EVE_KEY: &str = "RVZFMzQ1Njc4OTAxMjM0NQ==";

/// Below the ports that systems give out by themselves.
const PORT_FIRST: u32 = 21_000;
