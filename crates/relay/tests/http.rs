//! Forwarded HTTP requests over real sockets: what reaches the target, what comes back, and what becomes of the connections.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use umbra_proto::users::{Credentials, Users};
use umbra_relay::Relay;
use umbra_relay::config::{Protocol, ProxyDoor, Route};
use umbra_relay::limits::{CONTINUE_SECS_MAX, HALF_CLOSED_SECS_MAX};

use common::{Pair, before, inbound, open, run, shadowsocks_server, target};

fn direct() -> Relay {
    run(inbound(Protocol::Proxy(ProxyDoor::MIXED), Route::direct()))
}

/// A proxy before a Shadowsocks server.
fn shadowsocks_pair(protocol: Protocol) -> Pair {
    before(run(inbound(shadowsocks_server(), Route::direct())), 0, protocol)
}

/// A connection on which messages are said and heard.
struct Wire {
    reader: BufReader<TcpStream>,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        Self { reader: BufReader::new(stream) }
    }

    fn to(relay: &Relay) -> Self {
        Self::new(open(relay.addresses()[0]))
    }

    fn say(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// A head, in lower case, with its lines sorted behind the first.
    fn head(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            if line == "\r\n" || line.is_empty() {
                break;
            }
            lines.push(line.trim_end().to_lowercase());
        }
        if !lines.is_empty() {
            lines[1..].sort();
        }
        lines
    }

    fn body(&mut self, len: usize) -> Vec<u8> {
        let mut body = vec![0; len];
        self.reader.read_exact(&mut body).unwrap();
        body
    }

    fn get(&mut self, target: SocketAddr, path: &str) {
        self.say(&format!("GET http://{target}{path} HTTP/1.1\r\nHost: elsewhere\r\n\r\n"));
    }
}

/// A target that serves each of its connections with `script`.
fn server(script: impl Fn(Wire) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, script) = (stream.unwrap(), Arc::clone(&script));
            thread::spawn(move || script(Wire::new(stream)));
        }
    });
    address
}

/// A target that tells each request its number on the connection, until the client has gone.
fn counting() -> SocketAddr {
    server(|mut wire| {
        for number in 1.. {
            if wire.head().is_empty() {
                return;
            }
            wire.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"));
        }
    })
}

#[test]
fn a_forwarded_request_is_the_targets_own_and_says_nothing_of_us() {
    let (address, far) = target(|stream| {
        let mut wire = Wire::new(stream);
        let head = wire.head();
        wire.say("HTTP/1.1 200 OK\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nServer: x\r\nContent-Length: 2\r\n\r\nok");
        head
    });
    let relay = direct();
    let mut near = Wire::to(&relay);
    near.say(&format!(
        "GET http://{address}/a?b HTTP/1.1\r\nHost: elsewhere\r\nProxy-Connection: keep-alive\r\nConnection: X-Private, keep-alive\r\n\
         X-Private: 1\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\nAccept: */*\r\n\r\n"
    ));
    assert_eq!(near.head(), ["http/1.1 200 ok", "content-length: 2", "server: x"]);
    assert_eq!(near.body(2), b"ok");
    assert_eq!(far.join().unwrap(), ["get /a?b http/1.1", "accept: */*", &format!("host: {address}")]);
    relay.stop();
}

#[test]
fn one_connection_carries_requests_to_several_targets_and_keeps_the_last_of_them() {
    let pair = shadowsocks_pair(Protocol::Proxy(ProxyDoor::MIXED));
    let (first, second) = (counting(), counting());
    for relay in [&pair.client, &direct()] {
        let mut near = Wire::to(relay);
        for (address, number) in [(first, b"1"), (first, b"2"), (first, b"3"), (second, b"1"), (first, b"1")]
        {
            near.get(address, "/");
            assert_eq!(near.head()[0], "http/1.1 200 ok");
            assert_eq!(near.body(1), number);
        }
    }
    pair.stop();
}

#[test]
fn megabytes_stream_both_ways_in_one_exchange() {
    let pair = shadowsocks_pair(Protocol::Proxy(ProxyDoor::MIXED));
    let much: Vec<u8> =
        (0..4_000_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let echoes = much.len();
    for chunked in [false, true] {
        let address = server(move |mut wire| {
            let is_chunked = wire.head().contains(&"transfer-encoding: chunked".into());
            wire.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {echoes}\r\n\r\n"));
            let mut writer = wire.reader.get_ref().try_clone().unwrap();
            let mut left = echoes;
            while left > 0 {
                let len = if is_chunked {
                    let mut line = String::new();
                    wire.reader.read_line(&mut line).unwrap();
                    usize::from_str_radix(line.trim(), 16).unwrap()
                } else {
                    left.min(10_000)
                };
                writer.write_all(&wire.body(len)).unwrap();
                if is_chunked {
                    wire.body(2);
                }
                left -= len;
            }
            if is_chunked {
                assert_eq!(wire.head(), ["0"]);
            }
        });
        let mut near = Wire::to(&pair.client);
        let framing = if chunked {
            "Transfer-Encoding: chunked".into()
        } else {
            format!("Content-Length: {}", much.len())
        };
        near.say(&format!("POST http://{address}/ HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
        let mut writer = near.reader.get_ref().try_clone().unwrap();
        let upload = much.clone();
        let writing = thread::spawn(move || {
            for part in upload.chunks(33_333) {
                if chunked {
                    writer.write_all(format!("{:x}\r\n", part.len()).as_bytes()).unwrap();
                }
                writer.write_all(part).unwrap();
                if chunked {
                    writer.write_all(b"\r\n").unwrap();
                }
            }
            if chunked {
                writer.write_all(b"0\r\n\r\n").unwrap();
            }
        });
        assert_eq!(near.head()[0], "http/1.1 200 ok");
        assert!(near.body(much.len()) == much);
        writing.join().unwrap();
    }
    pair.stop();
}

#[test]
fn a_kept_connection_that_has_died_costs_a_get_nothing() {
    // Says one answer that promises to stay, and goes.
    let address = server(|mut wire| {
        wire.head();
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let relay = direct();
    let mut near = Wire::to(&relay);
    for _ in 0..5 {
        near.get(address, "/");
        assert_eq!(near.head()[0], "http/1.1 200 ok");
        assert_eq!(near.body(2), b"ok");
    }
    relay.stop();
}

#[test]
fn a_failure_is_told_with_a_status_and_the_conversation_goes_on() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Goes without a word.
    let mute = server(|mut wire| drop(wire.head()));
    let good = counting();
    let relay = direct();
    let mut near = Wire::to(&relay);
    for (address, status) in [(closed, "502 bad gateway"), (mute, "502 bad gateway"), (good, "200 ok")] {
        near.get(address, "/");
        let head = near.head();
        assert_eq!(head[0], format!("http/1.1 {status}"));
        let len = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        near.body(len.parse().unwrap());
    }
    near.say("GET https://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(near.head()[0], "http/1.1 400 bad request");
    assert!(near.reader.read_to_end(&mut Vec::new()).is_ok());
    relay.stop();
}

#[test]
fn a_later_head_may_be_no_longer_than_a_first_one() {
    let address = counting();
    let relay = direct();
    let head = |len: usize| {
        let (start, end) = (format!("GET http://{address}/ HTTP/1.1\r\nHost: x\r\nX-Long: "), "\r\n\r\n");
        format!("{start}{}{end}", "x".repeat(len - start.len() - end.len()))
    };
    let too_large = "http/1.1 431 request header fields too large";
    for (len, status) in
        [(16 * 1024, "http/1.1 200 ok"), (16 * 1024 + 8, too_large), (20_000, too_large), (60_000, too_large)]
    {
        for earlier in 0..3 {
            let mut near = Wire::to(&relay);
            for _ in 0..earlier {
                near.get(address, "/");
                assert_eq!(near.head()[0], "http/1.1 200 ok");
                near.body(1);
            }
            near.say(&head(len));
            assert_eq!(near.head()[0], status, "{len} bytes behind {earlier} requests");
        }
    }
    relay.stop();
}

#[test]
fn bare_line_feeds_of_a_later_request_are_not_passed_on() {
    let address = server(|mut wire| {
        let mut heard = Vec::new();
        while !heard.ends_with(b"X-Last: 1\r\n\r\n") {
            heard.push(wire.body(1)[0]);
            if heard.ends_with(b"\r\n\r\n") && !heard.ends_with(b"X-Last: 1\r\n\r\n") {
                wire.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
        let lines = heard.iter().filter(|byte| **byte == b'\n').count();
        let whole = heard.windows(2).filter(|pair| pair == b"\r\n").count();
        wire.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Bare: {}\r\n\r\n", lines - whole));
    });
    let relay = direct();
    let mut near = Wire::to(&relay);
    near.get(address, "/");
    assert_eq!(near.head()[0], "http/1.1 200 ok");
    near.say(&format!("GET http://{address}/ HTTP/1.1\nHost: x\nX-Last: 1\n\n"));
    assert!(near.head().contains(&"x-bare: 0".into()));
    relay.stop();
}

#[test]
fn every_request_has_to_show_its_password() {
    let users = Users::new([7; 32], [Credentials::new("alice", "secret").unwrap()]).unwrap();
    let door = ProxyDoor { users: Some(Arc::new(users)), ..ProxyDoor::MIXED };
    let relay = run(inbound(Protocol::Proxy(door), Route::direct()));
    let address = counting();
    let mut near = Wire::to(&relay);
    near.say(&format!(
        "GET http://{address}/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n"
    ));
    assert_eq!(near.head()[0], "http/1.1 200 ok");
    near.body(1);
    near.get(address, "/");
    let head = near.head();
    assert_eq!(head[0], "http/1.1 407 proxy authentication required");
    assert!(head.contains(&"proxy-authenticate: basic realm=\"umbra\"".into()), "{head:?}");
    let mut rest = Vec::new();
    near.reader.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"password.\n"));
    relay.stop();
}

#[test]
fn connect_works_behind_requests_that_were_forwarded() {
    let pair = shadowsocks_pair(Protocol::Proxy(ProxyDoor::MIXED));
    let first = counting();
    let (address, far) = target(|mut stream| {
        let mut heard = [0; 8];
        stream.read_exact(&mut heard).unwrap();
        stream.write_all(b"answer").unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        (heard, rest)
    });
    let mut near = Wire::to(&pair.client);
    near.get(first, "/");
    near.head();
    near.body(1);
    near.say(&format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\nquestion"));
    assert_eq!(near.head(), ["http/1.1 200 ok"]);
    assert_eq!(near.body(6), b"answer");
    near.say("more");
    near.reader.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(near.reader.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert_eq!(far.join().unwrap(), (*b"question", b"more".to_vec()));
    pair.stop();
}

#[test]
fn a_change_of_protocol_passes_through() {
    let pair = shadowsocks_pair(Protocol::Proxy(ProxyDoor::MIXED));
    for relay in [&pair.client, &direct()] {
        let (address, far) = target(|stream| {
            let mut wire = Wire::new(stream);
            let head = wire.head();
            wire.say(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
            );
            let heard = wire.body(4);
            wire.say("bye");
            (head, heard)
        });
        let mut near = Wire::to(relay);
        near.say(&format!(
            "GET http://{address}/chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
        ));
        let head = near.head();
        assert_eq!(head[0], "http/1.1 101 switching protocols");
        assert!(head.contains(&"upgrade: websocket".into()), "{head:?}");
        assert_eq!(near.body(5), b"hello");
        near.say("ping");
        let mut rest = Vec::new();
        near.reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"bye");
        let (head, heard) = far.join().unwrap();
        assert_eq!(heard, b"ping");
        let expected =
            ["get /chat http/1.1", "connection: upgrade", &format!("host: {address}"), "upgrade: websocket"];
        assert_eq!(head, expected);
    }
    pair.stop();
}

#[test]
fn a_change_of_protocol_that_is_not_to_be_passed_on_stays_here() {
    for (version, upgrade, passed_on) in [
        ("1.1", "Upgrade: websocket\r\n", "Upgrade: websocket\r\n"),
        ("1.0", "Upgrade: websocket\r\n", ""),
        ("1.1", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", ""),
        ("1.1", "Upgrade: H2C, websocket\r\nHTTP2-Settings: AAMAAABk\r\n", "Upgrade: websocket\r\n"),
        ("1.1", "Upgrade: h2c\r\nUpgrade: a/1, b\r\n", "Upgrade: a/1, b\r\n"),
        ("1.1", "HTTP2-Settings: AAMAAABk\r\n", ""),
    ] {
        // A client that forgets to list the settings must not have them pass either.
        for connection in ["Upgrade, HTTP2-Settings", "Upgrade"] {
            let (_, heard) = passed(|address| {
                format!(
                    "GET http://{address}/ HTTP/{version}\r\nHost: x\r\nConnection: {connection}\r\n{upgrade}\r\n"
                )
            });
            let mut lines: Vec<_> = heard.split_inclusive("\r\n").skip(1).collect();
            lines.sort_unstable();
            let expected = if passed_on.is_empty() {
                vec!["\r\n", "Host: ADDRESS\r\n"]
            } else {
                vec!["\r\n", "Connection: Upgrade\r\n", "Host: ADDRESS\r\n", passed_on]
            };
            assert_eq!(lines, expected, "HTTP/{version}, {upgrade:?}");
        }
    }
}

#[test]
fn an_old_client_is_told_whether_its_connection_stays() {
    for (method, answer, stays) in [
        ("GET", "Content-Length: 5\r\n\r\nhello", true),
        ("HEAD", "Content-Length: 5\r\n\r\n", true),
        ("HEAD", "Transfer-Encoding: chunked\r\n\r\n", true),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false),
        ("GET", "\r\nhello", false),
    ] {
        let said = format!("HTTP/1.1 200 OK\r\n{answer}");
        let address = server(move |mut wire| {
            wire.head();
            wire.say(&said);
        });
        let relay = direct();
        let mut near = Wire::to(&relay);
        near.say(&format!(
            "{method} http://{address}/ HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
        ));
        let head = near.head();
        let told: Vec<_> = head.iter().filter(|line| line.starts_with("connection:")).collect();
        assert_eq!(
            told,
            [if stays { "connection: keep-alive" } else { "connection: close" }],
            "{method} {answer:?}"
        );
        if method == "GET" {
            assert_eq!(near.body(5), b"hello", "{answer:?}");
        }
        if stays {
            near.get(counting(), "/");
            assert_eq!(near.head()[0], "http/1.1 200 ok", "{method} {answer:?}");
        } else {
            assert_eq!(near.rest(), "", "{answer:?}");
        }
        relay.stop();
    }
    let relay = direct();
    let mut near = Wire::to(&relay);
    near.say("GET https://a/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(!near.rest().contains("keep-alive"), "a refusal that ends the connection");
    let mut near = Wire::to(&relay);
    near.get(counting(), "/");
    assert_eq!(near.head()[0], "http/1.1 200 ok");
    near.body(1);
    near.say("GET https://a/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(!near.rest().contains("keep-alive"), "and a later one");
    relay.stop();
}

#[test]
fn a_client_that_only_ends_its_direction_gets_its_answer_and_one_that_has_gone_does_not_hold_the_target() {
    let (first_answer, begun) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (wait, seen) = (Arc::clone(&first_answer), Arc::clone(&begun));
    let quick = server(move |mut wire| {
        wire.head();
        wait.wait();
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nok");
        seen.wait();
        // What has begun may take its time.
        let pause = wire.reader.get_ref().try_clone().unwrap();
        pause.set_read_timeout(Some(HALF_CLOSED_SECS_MAX + Duration::from_secs(1))).unwrap();
        assert!((&pause).read(&mut [0]).is_err(), "the target is not left");
        wire.say("later");
    });
    let (mute, left) = target(|stream| {
        let mut wire = Wire::new(stream);
        wire.head();
        let begun = Instant::now();
        let _a_reset_is_an_end_too = wire.reader.read_to_end(&mut Vec::new());
        begun.elapsed()
    });
    let (slow, read) = target(|stream| {
        let mut wire = Wire::new(stream);
        wire.head();
        // The content may be here by now or not: nobody but the target knows.
        let pause = wire.reader.get_ref().try_clone().unwrap();
        pause.set_read_timeout(Some(HALF_CLOSED_SECS_MAX + Duration::from_secs(1))).unwrap();
        let content = wire.body(5);
        let cut_off = (&pause).read(&mut [0]).is_ok();
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken");
        (content, cut_off)
    });
    let asked = Arc::new(Barrier::new(2));
    let is_asked = Arc::clone(&asked);
    let (asked_again, left_again) = target(move |stream| {
        let mut wire = Wire::new(stream);
        wire.head();
        is_asked.wait();
        let begun = Instant::now();
        let _a_reset_is_an_end_too = wire.reader.read_to_end(&mut Vec::new());
        begun.elapsed()
    });
    let relay = direct();
    let ended = |mut near: Wire| {
        near.reader.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
        near
    };
    let ask = |address: SocketAddr| {
        let mut near = Wire::to(&relay);
        near.get(address, "/");
        ended(near)
    };
    let (mut near, mut given_up) = (ask(quick), ask(mute));
    let mut upload = Wire::to(&relay);
    upload.say(&format!("POST http://{slow}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nwhole"));
    let mut upload = ended(upload);
    let mut in_a_row = Wire::to(&relay);
    in_a_row.get(asked_again, "/");
    asked.wait();
    in_a_row.get(asked_again, "/again");
    drop(in_a_row);
    first_answer.wait();
    assert_eq!(near.head()[0], "http/1.1 200 ok");
    assert_eq!(near.body(2), b"ok");
    begun.wait();
    let waited = Instant::now();
    assert_eq!(given_up.head()[0], "http/1.1 504 gateway timeout");
    assert!(waited.elapsed() + Duration::from_secs(1) >= HALF_CLOSED_SECS_MAX, "{:?}", waited.elapsed());
    given_up.rest();
    assert!(left.join().unwrap() < 2 * HALF_CLOSED_SECS_MAX);
    assert!(left_again.join().unwrap() < 2 * HALF_CLOSED_SECS_MAX, "who asks for more and goes");
    assert_eq!(near.rest(), "later");
    assert_eq!(upload.head()[0], "http/1.1 200 ok");
    assert_eq!(upload.rest(), "taken");
    assert_eq!(read.join().unwrap(), (b"whole".into(), false));
    relay.stop();
}

#[test]
fn an_answer_that_breaks_off_does_not_pass_for_a_whole_one() {
    // No length: only the end of the connection says where the answer ends.
    let passed_on = Arc::new(Barrier::new(2));
    let seen = Arc::clone(&passed_on);
    let address = server(move |mut wire| {
        wire.head();
        wire.say("HTTP/1.1 200 OK\r\n\r\nhalf of it");
        let stream = wire.reader.into_inner();
        passed_on.wait();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let relay = direct();
    for version in ["1.0", "1.1"] {
        let mut near = Wire::to(&relay);
        near.say(&format!("GET http://{address}/ HTTP/{version}\r\nHost: x\r\n\r\n"));
        assert_eq!(near.head()[0], format!("http/{version} 200 ok"));
        near.body(1);
        seen.wait();
        assert!(near.reader.read_to_end(&mut Vec::new()).is_err(), "HTTP/{version}");
    }
    relay.stop();
}

#[test]
fn an_answer_to_head_has_no_body_and_the_next_answer_is_found() {
    let address = server(|mut wire| {
        while !wire.head().is_empty() {
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        }
    });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = direct();
    let mut near = Wire::to(&relay);
    for (address, status) in [(address, "200 ok"), (closed, "502 bad gateway"), (address, "200 ok")] {
        near.say(&format!("HEAD http://{address}/ HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(near.head()[0], format!("http/1.1 {status}"));
    }
    relay.stop();
}

/// Whether a request has come to its end, of which the only coding is chunks.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    text.ends_with(if text.contains("chunked") { "\r\n0\r\n\r\n" } else { "\r\n\r\n" })
}

/// Says `request` to a fresh proxy; gives the status that comes back, and what has reached the target until then.
fn passed(request: impl FnOnce(SocketAddr) -> String) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let far = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
        while !is_whole(&heard) {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(count) => heard.extend_from_slice(&piece[..count]),
            }
        }
        let _nobody_may_listen = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
        String::from_utf8(heard).unwrap()
    });
    let relay = direct();
    let mut near = Wire::to(&relay);
    near.say(&request(address));
    let status = near.head().remove(0);
    // Whether anything came or not, this ends the waiting for it.
    drop(TcpStream::connect(address));
    let heard = far.join().unwrap().replace(&address.to_string(), "ADDRESS");
    relay.stop();
    (status, heard)
}

#[test]
fn of_two_lengths_in_a_request_only_the_chunks_are_passed_on() {
    for length in ["Content-Length: 2\r\n", "Content-Length: 200\r\n"] {
        for both in [
            format!("{length}Transfer-Encoding: chunked\r\n"),
            format!("transfer-encoding: CHUNKED\r\n{length}"),
        ] {
            let (status, heard) = passed(|address| {
                format!(
                    "POST http://{address}/ HTTP/1.1\r\nHost: x\r\n{both}\r\n6;a=b\r\nnotend\r\n0\r\nX: 1\r\n\r\n"
                )
            });
            assert_eq!(status, "http/1.1 204 no content");
            assert_eq!(
                heard.to_lowercase(),
                "post / http/1.1\r\nhost: address\r\ntransfer-encoding: chunked\r\n\r\n6\r\nnotend\r\n0\r\n\r\n"
            );
        }
    }
}

#[test]
fn content_in_chunks_is_passed_on_whatever_the_method() {
    let expectation = "Expect: 100-continue\r\n";
    for (method, expectation) in
        [("GET", ""), ("GET", expectation), ("HEAD", ""), ("DELETE", ""), ("OPTIONS", ""), ("POST", "")]
    {
        let (_, heard) = passed(|address| {
            format!(
                "{method} http://{address}/ HTTP/1.1\r\nHost: x\r\n{expectation}Transfer-Encoding: chunked\r\n\r\n\
                 5\r\nquery\r\n0\r\n\r\n"
            )
        });
        assert!(heard.contains("\r\nTransfer-Encoding: chunked\r\n"), "{method}: {heard}");
        assert!(heard.ends_with("\r\n\r\n5\r\nquery\r\n0\r\n\r\n"), "{method}: {heard}");
        let (_, heard) = passed(|address| format!("{method} http://{address}/ HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(!heard.contains("Transfer-Encoding"), "{method}: {heard}");
    }
}

#[test]
fn a_request_whose_length_is_told_in_an_unknown_way_goes_nowhere() {
    for (framing, status) in [
        ("Transfer-Encoding: gzip, chunked", "501 not implemented"),
        ("Transfer-Encoding: chunked, chunked", "501 not implemented"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "501 not implemented"),
        ("Transfer-Encoding: chunked, identity", "400 bad request"),
        ("Transfer-Encoding: xchunked", "400 bad request"),
        ("Content-Length: 3\r\nContent-Length: 5", "400 bad request"),
        ("Content-Length: 5, 5", "400 bad request"),
        ("Content-Length: +5", "400 bad request"),
        ("Content-Length : 5", "400 bad request"),
        ("Transfer-Encoding : chunked", "400 bad request"),
        ("Transfer-Encoding:\r\n chunked", "400 bad request"),
        ("X: a\rTransfer-Encoding: chunked", "400 bad request"),
        ("X: a\nTransfer-Encoding: chunked", "400 bad request"),
        ("Transfer-Encoding: \x0bchunked", "400 bad request"),
    ] {
        let (answer, heard) = passed(|address| {
            format!("POST http://{address}/ HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n3\r\nend\r\n0\r\n\r\n")
        });
        assert_eq!((answer, heard), (format!("http/1.1 {status}"), String::new()), "{framing:?}");
    }
}

#[test]
fn broken_chunks_are_the_clients_fault_and_do_not_pass_for_whole_ones() {
    for content in ["three\r\n", "-1\r\n", "3\r\nendless\r\n", "3\r\nend\r\n?\r\n", "1ffffffffffffffff\r\n"] {
        let (answer, heard) = passed(|address| {
            format!(
                "POST http://{address}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{content}0\r\n\r\n"
            )
        });
        assert_eq!(answer, "http/1.1 400 bad request", "{content:?}");
        assert!(!heard.contains("\r\n0\r\n"), "{content:?}: {heard:?}");
    }
}

#[test]
fn the_path_that_was_asked_for_is_asked_of_the_target_and_the_shortest_where_there_was_none() {
    for (method, asked, own) in [
        ("OPTIONS", "/", "/"),
        ("OPTIONS", "?a", "/?a"),
        ("OPTIONS", "/b", "/b"),
        ("GET", "", "/"),
        ("GET", "/", "/"),
    ] {
        let (answer, heard) =
            passed(|address| format!("{method} http://{address}{asked} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(answer, "http/1.1 204 no content");
        assert_eq!(heard, format!("{method} {own} HTTP/1.1\r\nHost: ADDRESS\r\n\r\n"), "{method} {asked}");
    }
}

#[test]
fn what_a_connection_line_lists_stays_here_whatever_stands_beside_it() {
    let (_, heard) = passed(|address| {
        format!(
            "GET http://{address}?q=1 HTTP/1.1\r\nHost: x\r\nConnection: host, X-One, a b, \u{e9},, content-length, last\r\nX-One: 1\r\n\
             X-Two: 2\r\nEnd: 1\r\nLast: 1\r\n\r\n"
        )
    });
    let mut lines: Vec<_> = heard.split_terminator("\r\n").collect();
    lines.sort_unstable();
    assert_eq!(lines, ["", "End: 1", "GET /?q=1 HTTP/1.1", "Host: ADDRESS", "X-Two: 2"]);
}

#[test]
fn an_answer_has_one_length_and_our_own_version_whatever_the_target_says() {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for (answer, status, framing) in [
        (
            format!("1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            "200 ok",
            "transfer-encoding: chunked",
        ),
        (
            format!("1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n{chunks}"),
            "200 ok",
            "transfer-encoding: chunked",
        ),
        ("1.0 200 OK\r\n\r\nhello".into(), "200 ok", "transfer-encoding: chunked"),
        (
            "1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
                .into(),
            "200 ok",
            "content-length: 5",
        ),
        (
            format!("1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{chunks}"),
            "502 bad gateway",
            "content-length: 30",
        ),
        (
            format!("1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n{chunks}"),
            "502 bad gateway",
            "content-length: 30",
        ),
        (
            "1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello".into(),
            "502 bad gateway",
            "content-length: 30",
        ),
        ("1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n".into(), "502 bad gateway", "content-length: 30"),
        ("1.1 200 OK\r\nX: a\r\n b\r\n\r\n".into(), "502 bad gateway", "content-length: 30"),
        (
            "1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".into(),
            "502 bad gateway",
            "content-length: 30",
        ),
        ("2 200 OK\r\n\r\n".into(), "502 bad gateway", "content-length: 30"),
    ] {
        let said = format!("HTTP/{answer}");
        let address = server(move |mut wire| {
            wire.head();
            wire.say(&said);
        });
        let relay = direct();
        let mut near = Wire::to(&relay);
        near.get(address, "/");
        let head = near.head();
        assert_eq!(head[0], format!("http/1.1 {status}"), "{answer:?}");
        let lengths: Vec<_> =
            head.iter().filter(|line| line.contains("-length") || line.contains("transfer-")).collect();
        assert_eq!(lengths, [framing], "{answer:?}");
        if status == "200 ok" {
            let body = if framing.ends_with("chunked") { chunks } else { "hello" };
            assert_eq!(near.body(body.len()), body.as_bytes(), "{answer:?}");
        } else {
            near.body(30);
        }
        // Whatever else the target said is not the answer to the next request.
        let good = counting();
        near.get(good, "/");
        assert_eq!(near.head()[0], "http/1.1 200 ok", "{answer:?}");
        relay.stop();
    }
}

#[test]
fn connect_with_content_is_refused_behind_other_requests_as_it_is_before_them() {
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let relay = direct();
        let first = counting();
        let mut near = Wire::to(&relay);
        near.get(first, "/");
        near.head();
        near.body(1);
        near.say(&format!("CONNECT {first} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
        assert_eq!(near.head()[0], "http/1.1 400 bad request");
        relay.stop();
    }
}

#[test]
fn what_is_said_behind_connect_is_kept_however_long_the_way_takes() {
    let pair = shadowsocks_pair(Protocol::Proxy(ProxyDoor::MIXED));
    for relay in [&pair.client, &direct()] {
        let first = counting();
        let (address, far) = target(|mut stream| {
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            heard
        });
        let mut near = Wire::to(relay);
        near.get(first, "/");
        near.head();
        near.body(1);
        near.say(&format!("CONNECT {address} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let question = "question ".repeat(5_000);
        near.say(&question);
        near.reader.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(near.head(), ["http/1.1 200 ok"]);
        assert!(far.join().unwrap() == question.as_bytes());
    }
    pair.stop();
}

/// The head of an upload of `len` bytes that waits to be told to go on.
fn upload(target: SocketAddr, len: usize) -> String {
    format!(
        "PUT http://{target}/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len}\r\n\r\n"
    )
}

#[test]
fn content_that_a_target_refuses_by_its_head_is_never_asked_for() {
    let (address, far) = target(|stream| {
        let mut wire = Wire::new(stream);
        let head = wire.head();
        wire.say("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno");
        // All that comes until the connection ends.
        let mut content = Vec::new();
        let _reset_is_an_end_too = wire.reader.read_to_end(&mut content);
        (head, content)
    });
    let pair = shadowsocks_pair(Protocol::Proxy(ProxyDoor::MIXED));
    let mut near = Wire::to(&pair.client);
    near.say(&upload(address, 30_000_000));
    let head = near.head();
    assert_eq!(head[0], "http/1.1 401 unauthorized", "no 100 comes before it");
    assert!(head.contains(&"connection: close".into()), "{head:?}");
    assert_eq!(near.body(2), b"no");
    let mut rest = Vec::new();
    near.reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "the connection ends in order, with nothing behind the answer");
    let (head, content) = far.join().unwrap();
    assert!(head.contains(&"expect: 100-continue".into()), "{head:?}");
    assert_eq!(content, b"");
    pair.stop();
}

#[test]
fn content_is_asked_for_when_the_target_wants_it() {
    let (told, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let address = server(move |mut wire| {
        wire.head();
        // Another word first, which is none about the content.
        wire.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        wait.lock().unwrap().recv().unwrap();
        wire.say("HTTP/1.1 100 Continue\r\n\r\n");
        let content = wire.body(5);
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        wire.reader.get_mut().write_all(&content).unwrap();
        // The connection goes on to be good for another request.
        wire.head();
        wire.say("HTTP/1.1 204 No Content\r\n\r\n");
    });
    let relay = direct();
    let mut near = Wire::to(&relay);
    near.say(&upload(address, 5));
    near.reader.get_ref().set_read_timeout(Some(CONTINUE_SECS_MAX / 10)).unwrap();
    assert!(near.reader.fill_buf().is_err(), "nothing is said before the target has said it");
    near.reader.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    told.send(()).unwrap();
    assert_eq!(near.head(), ["http/1.1 100 continue"]);
    near.say("hello");
    assert_eq!(near.head(), ["http/1.1 200 ok", "content-length: 5"]);
    assert_eq!(near.body(5), b"hello");
    near.get(address, "/");
    assert_eq!(near.head()[0], "http/1.1 204 no content");
    relay.stop();
}

#[test]
fn content_is_asked_for_when_the_target_has_said_nothing_for_a_second() {
    let address = server(|mut wire| {
        wire.head();
        assert_eq!(wire.body(5), b"hello");
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let relay = direct();
    let mut near = Wire::to(&relay);
    let asked = Instant::now();
    near.say(&upload(address, 5));
    assert_eq!(near.head(), ["http/1.1 100 continue"]);
    assert!(asked.elapsed() >= CONTINUE_SECS_MAX, "{:?}", asked.elapsed());
    near.say("hello");
    assert_eq!(near.head(), ["http/1.1 200 ok", "content-length: 2"]);
    assert_eq!(near.body(2), b"ok");
    relay.stop();
}

#[test]
fn an_expectation_of_an_old_client_is_ignored() {
    let (answer, heard) = passed(|address| upload(address, 0).replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(answer, "http/1.0 204 no content");
    assert!(!heard.to_lowercase().contains("expect"), "{heard}");
}

#[test]
fn a_request_goes_no_further_than_its_max_forwards() {
    for (method, given, passed_on) in [
        ("OPTIONS", "1", "0"),
        ("TRACE", "70", "69"),
        ("OPTIONS", "99999999999", "4294967295"),
        ("GET", "0", "0"),
    ] {
        let (answer, heard) = passed(|address| {
            format!("{method} http://{address}/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: {given}\r\n\r\n")
        });
        assert_eq!(answer, "http/1.1 204 no content");
        assert!(heard.contains(&format!("Max-Forwards: {passed_on}\r\n")), "{method} {given}: {heard}");
    }
    let address = counting();
    let relay = direct();
    let mut near = Wire::to(&relay);
    for (method, answer) in [("OPTIONS", "http/1.1 200 ok"), ("TRACE", "http/1.1 405 method not allowed")] {
        near.say(&format!(
            "{method} http://{address}/ HTTP/1.1\r\nHost: x\r\nCookie: secret\r\nMax-Forwards: 0\r\n\r\n"
        ));
        assert_eq!(near.head(), [answer, "allow: options", "content-length: 0"]);
    }
    near.get(address, "/");
    assert_eq!(near.head()[0], "http/1.1 200 ok");
    assert_eq!(near.body(1), b"1", "none of the others has reached the target");
    for lines in
        ["Max-Forwards: -1", "Max-Forwards: 1x", "Max-Forwards:", "Max-Forwards: 1\r\nMax-Forwards: 2"]
    {
        let (answer, heard) =
            passed(|address| format!("OPTIONS http://{address}/ HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n"));
        assert_eq!((answer.as_str(), heard.as_str()), ("http/1.1 400 bad request", ""), "{lines}");
    }
    relay.stop();
}

impl Wire {
    /// All that comes until the connection ends.
    fn rest(mut self) -> String {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).unwrap();
        String::from_utf8(rest).unwrap()
    }
}

#[test]
fn a_refusal_has_the_same_bytes_wherever_it_comes_in_a_conversation() {
    let users = Users::new([7; 32], [Credentials::new("alice", "secret").unwrap()]).unwrap();
    let closed = ProxyDoor { users: Some(Arc::new(users)), ..ProxyDoor::MIXED };
    let (open, closed) = (direct(), run(inbound(Protocol::Proxy(closed), Route::direct())));
    let address = counting();
    let good = format!(
        "GET http://{address}/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n"
    );
    let refused = |relay: &Relay, request: &str| {
        let mut first = Wire::to(relay);
        first.say(request);
        let first = first.rest();
        let mut later = Wire::to(relay);
        later.say(&good);
        assert_eq!(later.head()[0], "http/1.1 200 ok");
        later.body(1);
        later.say(request);
        assert_eq!(first, later.rest(), "{request}");
        first
    };
    let stranger = refused(&closed, &format!("GET http://{address}/ HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(stranger.starts_with("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic"));
    assert!(stranger.ends_with("\r\nConnection: close\r\n\r\nThis proxy asks for a name and a password.\n"));
    let mut told: Vec<_> = [
        "G T http://ADDRESS/ HTTP/1.1\r\n\r\n",
        "GET http://ADDRESS/ HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET https://ADDRESS/ HTTP/1.1\r\n\r\n",
        "POST http://ADDRESS/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST http://ADDRESS/ HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ]
    .map(|request| refused(&open, &request.replace("ADDRESS", &address.to_string())))
    .into();
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"), "{told:?}");
    assert!(told[0].ends_with("\r\n\r\nThis is a proxy; the request is not one for it.\n"));
    let lines = "X: 1\r\n".repeat(101);
    let large = refused(&open, &format!("GET http://{address}/ HTTP/1.1\r\n{lines}\r\n"));
    assert!(large.starts_with("HTTP/1.1 431 ") && large.ends_with("too large.\n"), "{large}");
    open.stop();
    closed.stop();
}

#[test]
fn an_answer_that_says_what_the_library_would_say_comes_through() {
    let address = server(|mut wire| {
        wire.head();
        wire.say("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let relay = direct();
    let mut near = Wire::to(&relay);
    near.say(&format!("GET http://{address}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let answer = near.rest();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    relay.stop();
}

#[test]
fn the_names_of_an_answers_lines_are_as_its_target_wrote_them() {
    let address = server(|mut wire| {
        wire.head();
        wire.say("HTTP/1.1 200 OK\r\nx-lOWER: 1\r\ncontent-length: 0\r\n\r\n");
    });
    let relay = direct();
    let mut near = Wire::to(&relay);
    near.say(&format!("GET http://{address}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let answer = near.rest();
    assert!(
        answer.contains("\r\nx-lOWER: 1\r\n") && answer.contains("\r\ncontent-length: 0\r\n"),
        "{answer}"
    );
    relay.stop();
}
