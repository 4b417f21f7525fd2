//! What is asked for, what is answered, and what has no place in a request.

use super::*;
use crate::address::DomainName;
use crate::http::{self, Server};
use crate::testing::{Outcome, run, run_cut, users};
use proptest::prelude::*;

fn login(name: &str, password: &str) -> Result<BasicLogin, LoginError> {
    BasicLogin::new(&Credentials::new(name, password).unwrap())
}

/// What is sent; where nothing can be said, that nothing was.
fn say(target: &Address, login: Option<&BasicLogin>) -> Result<String, RequestError> {
    let mut output = Vec::new();
    let asked = Request { target, login }.send(&mut output);
    assert!(asked.is_ok() || output.is_empty());
    asked.map(|_| String::from_utf8(output).unwrap())
}

fn sent(target: &str) -> Result<String, RequestError> {
    say(&target.parse().unwrap(), None)
}

fn named(name: &str) -> Result<String, RequestError> {
    say(&Address::Name(DomainName::new(name).unwrap(), 80), None)
}

fn start(output: &mut Vec<u8>) -> ExpectHead {
    let target = "a:1".parse().unwrap();
    let machine = Request { target: &target, login: None }.send(output).unwrap();
    output.clear();
    machine
}

/// What becomes of an answer, in which nothing is said again.
fn hear(server: &str) -> Outcome<(), ClientError> {
    let outcome = run_cut(start, server.as_bytes());
    assert_eq!(outcome.output, b"");
    outcome
}

fn error(server: &str) -> ClientError {
    hear(server).done.unwrap_err()
}

const OK: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

#[test]
fn the_request_names_the_target_twice_and_the_login_where_there_is_one() {
    assert_eq!(
        sent("example.com:443").unwrap(),
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
    );
    let alice = login("alice", "secret").unwrap();
    assert_eq!(
        say(&"203.0.113.9:80".parse().unwrap(), Some(&alice)).unwrap(),
        "CONNECT 203.0.113.9:80 HTTP/1.1\r\nHost: 203.0.113.9:80\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n"
    );
}

#[test]
fn an_ipv6_target_has_brackets_and_no_zone_and_an_ipv4_one_has_neither() {
    for (target, authority) in [
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("[fe80::1%7]:1", "[fe80::1]:1"),
        ("[::ffff:203.0.113.9]:80", "203.0.113.9:80"),
        ("203.0.113.9:65535", "203.0.113.9:65535"),
    ] {
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        assert_eq!(sent(target), Ok(request), "{target}");
    }
}

#[test]
fn a_target_that_has_no_place_in_a_request_line_is_an_error_before_anything_is_said() {
    for name in
        ["bücher.example", "a?b", "a#b", "a\\b", "a%0d%0ab", "a\"b", "a<b>", "a|b", "{a}", "a^b", "a`b"]
    {
        assert_eq!(named(name), Err(RequestError::Name), "{name}");
    }
    for name in ["xn--bcher-kva.example", "_dns.a-b.example.", "a~b", "127.1", "0x7f.1", "1.2.3.4"] {
        assert!(named(name).unwrap().starts_with(&format!("CONNECT {name}:80 HTTP/1.1\r\n")), "{name}");
    }
    for target in ["example.com:0", "1.2.3.4:0", "[::1]:0"] {
        assert_eq!(sent(target), Err(RequestError::Port), "{target}");
    }
    // What would begin another line is not even a name.
    for name in ["a\r\nB: c", "a\nb", "a b", "a\tb", "a\0b", "a:1"] {
        assert!(DomainName::new(name).is_err(), "{name:?}");
    }
}

#[test]
fn a_login_that_a_server_would_take_for_another_is_none() {
    assert_eq!(login("a:b", "c").err(), Some(LoginError::Colon));
    for (name, password) in [("a\r\n", "b"), ("a", "b\n"), ("a\0", "b"), ("a", "\x7f")] {
        assert_eq!(login(name, password).err(), Some(LoginError::Control), "{name:?} {password:?}");
    }
    for (name, password, text) in
        [("a", "b:c", "YTpiOmM="), ("a", "b", "YTpi"), ("ab", "c é", "YWI6YyDDqQ==")]
    {
        assert_eq!(*login(name, password).unwrap().0, text.as_bytes());
    }
    let longest = login(&"x".repeat(255), &"y".repeat(255)).unwrap();
    assert_eq!(longest.0.len(), 684);
}

#[test]
fn a_login_is_not_printed_and_no_copy_of_it_stays_behind_in_a_buffer_that_grew() {
    let target = "example.com:80".parse().unwrap();
    for (name, password) in [("alice", "secret"), ("a", "b")] {
        let login = login(name, password).unwrap();
        let mut output = Vec::new();
        let request = Request { target: &target, login: Some(&login) };
        assert!(!format!("{request:?}").contains(str::from_utf8(&login.0).unwrap()));
        request.send(&mut output).unwrap();
        assert_eq!(output.capacity(), output.len());
    }
}

#[test]
fn every_2xx_is_a_success_and_what_is_glued_behind_its_head_is_the_targets() {
    for head in [
        OK,
        "HTTP/1.0 200 Connection established\r\nProxy-agent: Apache/2.4\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 299 \r\n\r\n",
        "HTTP/1.1 200\r\n\r\n",
        "HTTP/1.0 200 OK\n\n",
        "HTTP/1.1 200 OK\nA: b\r\n\n",
    ] {
        for behind in ["", "220 banner", "\r\n\r\nHTTP/1.1 500 no\r\n\r\n", "\n", "\0\u{7f}"] {
            let outcome = hear(&format!("{head}{behind}"));
            assert_eq!(outcome.done, Ok(Some(())), "{head}");
            assert_eq!(outcome.leftover, behind.as_bytes(), "{head}");
        }
    }
}

#[test]
fn heads_that_are_no_answer_yet_are_skipped_up_to_a_bound() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let outcome = hear(&format!("{interim}{OK}banner"));
    assert_eq!((outcome.done, &outcome.leftover[..]), (Ok(Some(())), &b"banner"[..]));
    assert_eq!(hear(interim).done, Ok(None));
    assert_eq!(error(&format!("{interim}HTTP/1.1 403 no\r\n\r\n")), ClientError::Denied(403));
    let once = "HTTP/1.1 199 x\r\n\r\n";
    assert_eq!(hear(&format!("{}{OK}", once.repeat(HTTP_INTERIM_HEADS_MAX))).done, Ok(Some(())));
    assert_eq!(error(&once.repeat(HTTP_INTERIM_HEADS_MAX + 1)), ClientError::Interim);
}

#[test]
fn every_way_of_saying_no_is_an_error_of_its_own() {
    for status in [101, 300, 302, 400, 403, 404, 502, 503, 504, 599, 999] {
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(error(&answer), ClientError::Denied(status));
    }
    assert_eq!(error("HTTP/1.1 099 x\r\n\r\n"), ClientError::Denied(99));
    for version in ["1.0", "1.1"] {
        let answer = format!("HTTP/{version} 407 x\r\nProxy-Authenticate: Basic realm=\"a\"\r\n\r\n");
        assert_eq!(error(&answer), ClientError::Login);
    }
}

#[test]
fn what_is_no_answer_is_told_as_soon_as_it_can_be() {
    for answer in [
        "\x05\x00",
        "SSH-2.0-x",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "ICY",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
    ] {
        assert_eq!(error(answer), ClientError::Malformed, "{answer:?}");
    }
    assert_eq!(hear("HTTP/1.").done, Ok(None));
    assert_eq!(hear("").done, Ok(None));
}

#[test]
fn a_head_without_an_end_and_one_of_too_many_lines_are_too_large() {
    let lines = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
    let whole = |text: &str| run(start, &[text.as_bytes()]).done;
    assert_eq!(whole(&lines(HTTP_HEADERS_MAX)), Ok(Some(())));
    assert_eq!(whole(&lines(HTTP_HEADERS_MAX + 1)), Err(ClientError::TooLarge));
    let padded = |len: usize| {
        let rest = "HTTP/1.1 200 OK\r\na: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(len - rest))
    };
    let longest = padded(HTTP_HEAD_BYTES_MAX);
    assert_eq!(whole(&longest), Ok(Some(())));
    assert_eq!(whole(&padded(HTTP_HEAD_BYTES_MAX + 1)), Err(ClientError::TooLarge));
    let endless = "HTTP/1.1 200 ".to_owned() + &"x".repeat(HTTP_HEAD_BYTES_MAX);
    assert_eq!(whole(&endless[..HTTP_HEAD_BYTES_MAX - 1]), Ok(None));
    assert_eq!(whole(&endless), Err(ClientError::TooLarge));
    let pieces: Vec<_> = endless.as_bytes().chunks(1).collect();
    assert_eq!(run(start, &pieces).done, Err(ClientError::TooLarge));
}

#[test]
fn our_client_and_our_server_understand_each_other() {
    let users = users();
    let right = login("alice", "secret").unwrap();
    let wrong = login("alice", "hunter2").unwrap();
    for (asks, login, granted) in [
        (false, None, Ok(Some(()))),
        (false, Some(&right), Ok(Some(()))),
        (true, Some(&right), Ok(Some(()))),
        (true, Some(&wrong), Err(ClientError::Login)),
        (true, None, Err(ClientError::Login)),
    ] {
        for target in ["example.com:80", "[2001:db8::1]:443", "203.0.113.9:65535"] {
            let target: Address = target.parse().unwrap();
            let mut request = say(&target, login).unwrap().into_bytes();
            let (mut input, mut answer) = (Input::new(&mut request), Vec::new());
            match Server::new(asks.then_some(&users)).advance(&mut input, &mut answer) {
                Ok(Step::Done(http::Request::Tunnel(pending))) => {
                    assert_eq!(pending.target(), &target);
                    assert_eq!(pending.user().is_some(), asks);
                    pending.accept(&mut answer);
                }
                Ok(other) => panic!("{other:?}"),
                Err(why) => assert_eq!(why, http::Error::Login),
            }
            assert_eq!(hear(str::from_utf8(&answer).unwrap()).done, granted);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_say_anything(
        bytes: Vec<u8>, opening in 0..4_usize, ends: bool, cut: prop::sample::Index,
    ) {
        let openings = ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 x\r\n\r\n", "HTTP/1.0 "];
        let end = if ends { "\r\n\r\nbehind" } else { "" };
        let bytes = [openings[opening].as_bytes(), &bytes, end.as_bytes()].concat();
        let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
        let whole = run(start, &[&bytes]);
        prop_assert!(whole.output.is_empty() && bytes.ends_with(&whole.leftover));
        prop_assert_eq!(run(start, &[head, tail]), whole);
    }

    #[test]
    fn whatever_can_be_said_is_one_request_for_its_target(
        name in "[a-z0-9.]{1,20}|\\PC{1,60}", ip: [u8; 16], port: u16, is_named: bool,
        user in "\\PC{1,40}", password in "\\PC{1,40}",
    ) {
        let target = match DomainName::new(&name) {
            Ok(name) if is_named => Address::Name(name, port),
            _ => Address::Ip((ip, port).into()),
        };
        let credentials = Credentials::new(&user, &password).unwrap();
        let (Ok(login), users) = (BasicLogin::new(&credentials), crate::users::Users::new([1; 32], [credentials])) else {
            return Ok(());
        };
        if let Ok(request) = say(&target, Some(&login)) {
            let users = users.unwrap();
            let outcome = run(|_| Server::new(Some(&users)), &[request.as_bytes()]);
            let Ok(Some(http::Request::Tunnel(pending))) = outcome.done else { panic!("{request:?}") };
            prop_assert_eq!(outcome.leftover, b"");
            // A name that is an IP literal is that IP to the server.
            prop_assert_eq!(pending.target().to_string(), target.to_string());
            prop_assert_eq!(pending.user().map(crate::users::UserName::as_str), Some(&user[..]));
        }
    }
}
