//! Bad manners at the doors that proxies speak through: greedy clients, hostile targets, and strangers among users.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::stage::{
    End, METHODS, Pair, Umbra, accept, connect, echo, echoes, eventually, listener, read_to_end, reset,
    target,
};

/// A client without a server before a configuration of these lines, or with only these.
fn alone(lines: &str, extra: &[&str]) -> (Umbra, tempfile::TempDir) {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, format!(r#"{{"direct": true, "local_port": 0{lines}}}"#)).unwrap();
    (Umbra::start(&[&["local", "-c", path.to_str().unwrap()], extra].concat()), folder)
}

/// A target that answers every request and never ends.
fn staying() -> SocketAddr {
    target(|mut stream| {
        let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            heard.extend_from_slice(&piece[..count]);
            if heard.ends_with(b"\r\n\r\n") {
                heard.clear();
                let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
        stay();
    })
}

/// Keeps what the thread holds as long as the test runs.
fn stay() -> ! {
    loop {
        thread::park();
    }
}

/// A target that answers one request and ends.
fn leaving() -> SocketAddr {
    target(|mut stream| {
        hear(&mut stream, b"\r\n\r\n");
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    })
}

fn get(target: SocketAddr) -> String {
    format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// Reads an answer of which the end is known.
fn hear(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    while !heard.ends_with(end) {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        assert_ne!(count, 0, "an end after {:?}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&piece[..count]);
    }
    heard
}

#[test]
fn a_client_that_asks_for_many_targets_over_one_connection_holds_one_of_them() {
    let (umbra, _folder) = alone("", &["--nofile", "200"]);
    let targets = [staying(), staying()];
    let before = umbra.descriptors();
    let mut client = connect(umbra.address);
    for number in 0..500 {
        client.write_all(get(targets[number % 2]).as_bytes()).unwrap();
        let answer = hear(&mut client, b"ok");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        assert!(umbra.descriptors() <= before + 4, "{} descriptors", umbra.descriptors());
    }
    drop(client);
    returns_to(&umbra, before);
}

/// Waits until no more descriptors are open than before.
fn returns_to(umbra: &Umbra, before: usize) {
    eventually(|| match umbra.descriptors() {
        some if some <= before => Ok(()),
        some => Err(format!("{before} descriptors have become {some}")),
    });
}

#[test]
fn clients_that_leave_at_once_give_their_place_only_with_all_that_was_opened_for_them() {
    let (umbra, _folder) = alone("", &["--nofile", "200"]);
    let mute = target(|_stream| stay());
    let (before, echo) = (umbra.descriptors(), echo());
    for _ in 0..600 {
        let mut client = connect(umbra.address);
        client.write_all(get(mute).as_bytes()).unwrap();
        reset(client);
    }
    assert!(echoes(umbra.address, echo), "somebody else is served meanwhile");
    let log = umbra.log();
    assert!(!log.contains("Too many open files"), "{log}");
    returns_to(&umbra, before);
}

/// What a client without a login, or with a wrong one, says; each is told of by its name.
fn intruders(target: SocketAddr) -> Vec<(&'static str, Vec<u8>)> {
    let SocketAddr::V4(v4) = target else { panic!("an IPv4 target is wanted") };
    let address = [&v4.ip().octets()[..], &v4.port().to_be_bytes()].concat();
    let socks4 =
        |command| [&[4, command][..], &v4.port().to_be_bytes(), &v4.ip().octets(), b"ann\0"].concat();
    let http = |line: &str| get(target).replace("Host: x\r\n", line).into_bytes();
    let login = |user: &str, password: &str| {
        let lengths = [user.len(), password.len()].map(|len| u8::try_from(len).unwrap());
        [&[5, 1, 2, 1, lengths[0]], user.as_bytes(), &[lengths[1]], password.as_bytes()].concat()
    };
    vec![
        ("socks4 connect", socks4(1)),
        ("socks4 bind", socks4(2)),
        ("socks5 none", [&[5, 1, 0, 5, 1, 0, 1][..], &address].concat()),
        ("socks5 udp", [&[5, 1, 0, 5, 3, 0, 1][..], &address].concat()),
        ("login unknown", login("eve", "wonderland")),
        ("login wrong", login("ann", "wonderlame")),
        ("login empty", login("", "")),
        ("login skipped", [&[5, 1, 2, 5, 1, 0, 1][..], &address].concat()),
        ("http none", http("")),
        ("http unknown", http("Proxy-Authorization: Basic ZXZlOndvbmRlcmxhbmQ=\r\n")),
        ("http wrong", http("Proxy-Authorization: Basic YW5uOndyb25n\r\n")),
        ("http no colon", http("Proxy-Authorization: Basic YW5u\r\n")),
        ("http malformed", http("Proxy-Authorization: Basic !!!!\r\n")),
        ("http scheme", http("Proxy-Authorization: Bearer YW5uOndvbmRlcmxhbmQ=\r\n")),
        ("http to the target", http("Authorization: Basic YW5uOndvbmRlcmxhbmQ=\r\n")),
        ("http twice", http(&"Proxy-Authorization: Basic YW5uOndvbmRlcmxhbmQ=\r\n".repeat(2))),
        ("http connect", format!("CONNECT {target} HTTP/1.1\r\n\r\n").into_bytes()),
        ("http to nowhere", b"GET /here HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

const USERS: &str =
    r#", "users": [{"name": "bob", "password": "builder"}, {"name": "ann", "password": "wonderland"}]"#;

#[test]
fn with_users_nothing_is_open_and_nobody_learns_what_was_wrong() {
    let (umbra, _folder) = alone(USERS, &[]);
    let listener = listener();
    let target = listener.local_addr().unwrap();
    for (name, said) in intruders(target) {
        let mut client = connect(umbra.address);
        client.write_all(&said).unwrap();
        let (heard, end) = read_to_end(&mut client);
        let expected: &[u8] = match name.split_once(' ').unwrap().0 {
            "socks4" => &[0, 91, 0, 0, 0, 0, 0, 0],
            "socks5" => &[5, 255],
            "login" => &[5, 2, 1, 1],
            _ => {
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"umbra\"\r\n\
                   Content-Type: text/plain\r\nContent-Length: 43\r\nConnection: close\r\n\r\n\
                   This proxy asks for a name and a password.\n"
            }
        };
        assert_eq!(
            (String::from_utf8_lossy(&heard), end),
            (String::from_utf8_lossy(expected), End::Orderly),
            "{name}"
        );
    }
    // Whoever was let in once shows the password again with each request.
    let known = get(target).replace("Host: x", "Proxy-Authorization: Basic YW5uOndvbmRlcmxhbmQ=");
    let unknown = [get(target), format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")];
    for second in unknown {
        let mut client = connect(umbra.address);
        client.write_all(format!("{known}{second}").as_bytes()).unwrap();
        let mut far = accept(&listener);
        hear(&mut far, b"\r\n\r\n");
        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        let (heard, _) = read_to_end(&mut client);
        let heard = String::from_utf8(heard).unwrap();
        let (_, after) = heard.split_once("\r\n\r\nok").unwrap();
        assert!(after.starts_with("HTTP/1.1 407 "), "{heard}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody else has come to the target");
    let log = umbra.log();
    for secret in ["wonderl", "ann", "eve", "YW5u", &target.to_string()] {
        assert!(!log.contains(secret), "«{secret}» is in the log:\n{log}");
    }
}

#[test]
fn a_wrong_login_takes_the_time_of_an_unknown_one() {
    let many: String =
        (0..500).map(|n| format!(r#", {{"name": "user-{n}", "password": "secret-{n}"}}"#)).collect();
    let users = format!(r#", "users": [{{"name": "ann", "password": "wonderland"}}{many}]"#);
    let (umbra, _folder) = alone(&users, &[]);
    let target = "127.0.0.1:9".parse().unwrap();
    let told: Vec<_> = intruders(target)
        .into_iter()
        .filter(|(name, _)| {
            [
                "login unknown",
                "login wrong",
                "login empty",
                "http none",
                "http unknown",
                "http wrong",
                "http malformed",
            ]
            .contains(name)
        })
        .collect();
    let mut times = vec![Vec::new(); told.len()];
    for _ in 0..300 {
        for (place, (_, said)) in told.iter().enumerate() {
            let mut client = connect(umbra.address);
            let began = Instant::now();
            client.write_all(said).unwrap();
            read_to_end(&mut client);
            times[place].push(began.elapsed());
        }
    }
    let medians: Vec<_> = times
        .iter_mut()
        .zip(&told)
        .map(|(times, (name, _))| {
            times.sort_unstable();
            (*name, times[times.len() / 2])
        })
        .collect();
    for kind in ["login", "http"] {
        let times = medians.iter().filter(|(name, _)| name.starts_with(kind)).map(|(_, median)| *median);
        let (least, most) = (times.clone().min().unwrap(), times.max().unwrap());
        assert!(most < least * 2, "{medians:?}");
    }
}

#[test]
fn silent_strangers_do_not_keep_users_out_of_any_door() {
    for method in METHODS {
        let pair = Pair::with(method, &["--nofile", "200"], &["--nofile", "200"]);
        let (web, echo) = (leaving(), echo());
        pair.assert_serves();
        let before = pair.descriptors();
        let mut strangers = Vec::new();
        for number in 0..150 {
            for (door, heads) in [
                (
                    pair.local.address,
                    [&b""[..], b"\x05", b"\x05\x01", b"\x04\x01\x00\x50", b"GET http://x", b"CONNECT x"],
                ),
                (pair.server.address, [&[][..], &[7; 10], &[7; 31], &[7; 32], &[7; 60], &[7; 3000]]),
            ] {
                let mut stranger = connect(door);
                let _refused_already = stranger.write_all(heads[number % heads.len()]);
                strangers.push(stranger);
            }
        }
        for _ in 0..3 {
            let began = Instant::now();
            assert!(echoes(pair.local.address, echo), "{method}: SOCKS5");
            let mut client = connect(pair.local.address);
            client.write_all(get(web).as_bytes()).unwrap();
            assert!(hear(&mut client, b"ok").starts_with(b"HTTP/1.1 200"), "{method}: HTTP");
            println!("{method}: {:?}", began.elapsed());
            assert!(began.elapsed() < Duration::from_secs(15), "{method}: {:?}", began.elapsed());
        }
        drop(strangers);
        pair.assert_descriptors_return_to(before);
    }
}

#[test]
fn only_a_trusted_header_names_the_source_of_a_bad_head() {
    for (trusted, named) in [("127.0.0.1", "10.1.2.3:4567"), ("192.0.2.1", "127.0.0.1:")] {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("config.json");
        let config = format!(
            r#"{{"server": "127.0.0.1", "server_port": 0, "method": "aes-256-gcm", "password": "long-enough", "accept_proxy_protocol": "{trusted}"}}"#
        );
        std::fs::write(&path, config).unwrap();
        let umbra = Umbra::start(&["server", "-c", path.to_str().unwrap()]);
        let mut stranger = connect(umbra.address);
        stranger.write_all(b"PROXY TCP4 10.1.2.3 10.0.0.1 4567 80\r\n").unwrap();
        stranger.write_all(&[9; 200]).unwrap();
        umbra.wait_for(&format!("can not parse header when handling connection from {named}"));
        // A header that is none is nobody's key guessed wrong.
        let mut stranger = connect(umbra.address);
        stranger.write_all(b"PROXY TCP4 10.9.9.9 10.0.0.1 4567 80 and more\r\n").unwrap();
        if trusted == "127.0.0.1" {
            assert_eq!(read_to_end(&mut stranger), (vec![], End::Reset));
        }
        assert!(!umbra.log().contains("10.9.9.9"), "{}", umbra.log());
    }
}

#[test]
fn what_a_slow_client_reads_and_a_slow_target_takes_is_held_in_little_memory() {
    const EACH: usize = 8 << 20;
    const MANY: usize = 40;
    let (umbra, _folder) = alone("", &[]);
    let fast = target(|mut stream| {
        hear(&mut stream, b"\r\n\r\n");
        let _slow = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {EACH}\r\n\r\n");
        let _gone = stream.write_all(&vec![7; EACH]);
    });
    let patience = Arc::new(RwLock::new(()));
    let lost = Arc::clone(&patience);
    let slow = target(move |_stream| drop(lost.read()));
    let patience = patience.write().unwrap();
    let (descriptors, resident) = (umbra.descriptors(), umbra.resident_kib());
    let mut clients = Vec::new();
    for _ in 0..MANY {
        let mut client = connect(umbra.address);
        client.write_all(get(fast).as_bytes()).unwrap();
        clients.push(client);
        let mut client = connect(umbra.address);
        let post = get(slow).replace("GET", "POST").replace("Host: x", &format!("Content-Length: {EACH}"));
        client.write_all(post.as_bytes()).unwrap();
        client.set_nonblocking(true).unwrap();
        clients.push(client);
    }
    // All that will be taken is taken.
    let block = vec![7; 1 << 20];
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        for mut client in clients.iter().skip(1).step_by(2) {
            let _full = client.write(&block);
        }
        thread::sleep(Duration::from_millis(20));
    }
    let held = umbra.resident_kib().saturating_sub(resident) / (2 * MANY);
    println!("{held} KiB each");
    assert!(held < 300, "{held} KiB each");
    // What has been taken may still be on its way; what spins never rests.
    eventually(|| {
        let busy = umbra.cpu();
        thread::sleep(Duration::from_millis(500));
        match umbra.cpu() - busy {
            little if little < Duration::from_millis(100) => Ok(()),
            much => Err(format!("nothing moves, and it takes {much:?} in half a second")),
        }
    });
    drop((clients, patience));
    returns_to(&umbra, descriptors);
}
