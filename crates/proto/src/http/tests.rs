//! Heads of every kind, logins, bounds, and answers.

use super::*;
use crate::testing::{Outcome, run, run_cut, users};
use proptest::prelude::*;

fn serve(session: &str) -> Outcome<Request, Error> {
    run_cut(|_| Server::new(None), session.as_bytes())
}

fn serve_users(session: &str) -> Outcome<Request, Error> {
    let users = users();
    run_cut(|_| Server::new(Some(&users)), session.as_bytes())
}

fn told(status: Status) -> String {
    let mut answer = Vec::new();
    status.answer(true, &mut answer);
    String::from_utf8(answer).unwrap()
}

fn text(outcome: &Outcome<Request, Error>) -> &str {
    str::from_utf8(&outcome.output).unwrap()
}

fn with_login(login: &str) -> String {
    format!("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n{login}\r\n")
}

const CONNECT: &str = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n\x16\x03\x01";
const GET: &str = "GET http://example.com/a?b HTTP/1.1\r\nHost: example.com\r\n\r\n";
/// `alice:secret`
const ALICE: &str = "Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n";

#[test]
fn connect_is_understood_and_early_payload_is_left() {
    let outcome = serve(CONNECT);
    let target = "example.com:443".parse().unwrap();
    assert_eq!(outcome.done, Ok(Some(Request::Tunnel(Pending { target, user: None }))));
    assert_eq!((outcome.output, &outcome.leftover[..]), (vec![], &b"\x16\x03\x01"[..]));
}

#[test]
fn a_request_to_forward_is_left_as_it_came() {
    for (session, target) in [
        (GET, "example.com:80"),
        ("POST HTTP://[2001:db8::1]:8080/x HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", "[2001:db8::1]:8080"),
        ("GET http://1.2.3.4?q HTTP/1.0\r\n\r\n", "1.2.3.4:80"),
        ("DELETE http://a:/ HTTP/1.1\r\n\r\n", "a:80"),
        ("OPTIONS http://[::1] HTTP/1.1\r\n\r\n", "[::1]:80"),
    ] {
        let outcome = serve(session);
        let target = target.parse().unwrap();
        assert_eq!(outcome.done, Ok(Some(Request::Forward(Forward { target, user: None }))), "{session}");
        assert_eq!((outcome.output, &outcome.leftover[..]), (vec![], session.as_bytes()));
    }
}

#[test]
fn a_split_anywhere_changes_nothing() {
    for session in [
        CONNECT,
        GET,
        "CONNECT example.com HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\nHost: a\n\n",
        "\r\nGET http://a/ HTTP/1.1\r\n\r\n",
        "",
    ] {
        serve(session);
        serve_users(session);
    }
}

#[test]
fn what_old_clients_send_for_connect_is_understood() {
    for session in [
        "CONNECT 1.2.3.4:22 HTTP/1.0\r\n\r\n",
        "CONNECT 1.2.3.4:22 HTTP/1.0\r\nContent-Length: 0\r\nProxy-Connection: keep-alive\r\n\r\n",
    ] {
        let target = "1.2.3.4:22".parse().unwrap();
        assert_eq!(serve(session).done, Ok(Some(Request::Tunnel(Pending { target, user: None }))));
    }
}

#[test]
fn heads_that_could_be_read_in_two_ways_are_malformed() {
    for session in [
        "GET http://a/ HTTP/1.1\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHo st: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost\r\n\r\n",
        "GET  http://a/ HTTP/1.1\r\n\r\n",
        "GET http://a/  HTTP/1.1\r\n\r\n",
        "GET http://a/ b HTTP/1.1\r\n\r\n",
        "GET http://a/\tHTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1 \r\n\r\n",
        "GET http://a/ HTTP/2.0\r\n\r\n",
        "GET http://a/ http/1.1\r\n\r\n",
        "GET http://a/\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        " GET http://a/ HTTP/1.1\r\n\r\n",
        "\r\nGET http://a/ HTTP/1.1\r\n\r\n",
        "G\0T http://a/ HTTP/1.1\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
    ] {
        let outcome = serve(session);
        assert_eq!(outcome.done, Err(Error::Malformed), "{session:?}");
        assert_eq!(text(&outcome), told(Status::BadRequest));
    }
}

#[test]
fn targets_that_are_none_for_a_proxy_are_told_so() {
    let form = TargetError::Form;
    let (port, name) =
        (TargetError::Address(AddressError::BadPort), TargetError::Address(AddressError::BadName));
    let empty = TargetError::Address(AddressError::EmptyName);
    for (target, error) in [
        ("CONNECT example.com", port),
        ("CONNECT example.com:", port),
        ("CONNECT example.com:0", port),
        ("CONNECT example.com:65536", port),
        ("CONNECT example.com:+80", port),
        ("CONNECT :80", empty),
        ("CONNECT ::1:80", name),
        ("CONNECT [::1]", port),
        ("CONNECT [::1:80", name),
        ("CONNECT [1.2.3.4]:80", name),
        ("CONNECT [example.com]:80", name),
        ("CONNECT user@example.com:80", name),
        ("CONNECT http://example.com:80", name),
        ("CONNECT http://example.com:80/", port),
        ("CONNECT /", port),
        ("GET /", form),
        ("GET *", form),
        ("GET example.com:80", form),
        ("GET https://example.com/", form),
        ("GET ftp://example.com/", form),
        ("GET http:/example.com/", form),
        ("GET http:///x", empty),
        ("GET http://?x", empty),
        ("GET http://:80/", empty),
        ("GET http://user:secret@example.com/", port),
        ("GET http://user@example.com/", name),
        ("GET http://[::1/", name),
        ("GET http://::1/", name),
        ("GET http://a:99999/", port),
        ("GET http://a:0/", port),
    ] {
        let outcome = serve(&format!("{target} HTTP/1.1\r\n\r\n"));
        assert_eq!(outcome.done, Err(Error::Target(error)), "{target}");
        assert_eq!(text(&outcome), told(Status::BadRequest));
    }
}

#[test]
fn a_login_opens_both_kinds_of_request() {
    let outcome = serve_users(&with_login(ALICE));
    let Ok(Some(Request::Tunnel(pending))) = outcome.done else { panic!("{outcome:?}") };
    assert_eq!(pending.user().map(UserName::as_str), Some("alice"));
    let session = GET.replace("\r\n\r\n", &format!("\r\n{ALICE}\r\n"));
    let outcome = serve_users(&session);
    let Ok(Some(Request::Forward(forward))) = outcome.done else { panic!("{outcome:?}") };
    assert_eq!(forward.user.as_ref().map(UserName::as_str), Some("alice"));
    assert_eq!(outcome.leftover, session.as_bytes());
    for login in [
        "proxy-authorization: bAsIc YWxpY2U6c2VjcmV0\r\n",
        "Proxy-Authorization:Basic   YWxpY2U6c2VjcmV0  \r\n",
        "Proxy-Authorization: Basic Ym9iOmh1bnRlcjI=\r\n",
        "Proxy-Authorization: Basic Ym9iOmh1bnRlcjI\r\n",
    ] {
        assert!(serve_users(&with_login(login)).done.is_ok(), "{login}");
    }
}

#[test]
fn every_wrong_login_gets_the_same_answer() {
    let missing = with_login("");
    for session in [
        // alice:wrong, carol:secret, alice, alice:secret1, :
        with_login("Proxy-Authorization: Basic YWxpY2U6d3Jvbmc=\r\n"),
        with_login("Proxy-Authorization: Basic Y2Fyb2w6c2VjcmV0\r\n"),
        with_login("Proxy-Authorization: Basic YWxpY2U=\r\n"),
        with_login("Proxy-Authorization: Basic YWxpY2U6c2VjcmV0MQ==\r\n"),
        with_login("Proxy-Authorization: Basic Og==\r\n"),
        with_login("Proxy-Authorization: Basic\r\n"),
        with_login("Proxy-Authorization: BasicYWxpY2U6c2VjcmV0\r\n"),
        with_login("Proxy-Authorization: Basic \u{20ac}\r\n"),
        with_login("Proxy-Authorization: Basic !!!!\r\n"),
        with_login("Proxy-Authorization: Bearer YWxpY2U6c2VjcmV0\r\n"),
        with_login("Proxy-Authorization: \r\n"),
        with_login("Authorization: Basic YWxpY2U6c2VjcmV0\r\n"),
        with_login(&ALICE.repeat(2)),
        missing.clone(),
        // What else is wrong is not told to a stranger.
        missing.replace("example.com:443 HTTP", "nonsense HTTP"),
        GET.to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let outcome = serve_users(&session);
        assert_eq!(outcome.done, Err(Error::Login), "{session}");
        assert_eq!(text(&outcome), told(Status::ProxyAuthenticationRequired));
    }
}

#[test]
fn a_login_is_wiped_from_the_buffer_that_brought_it() {
    let users = users();
    let mut bytes = with_login(ALICE).into_bytes();
    let step = Server::new(Some(&users)).advance(&mut Input::new(&mut bytes), &mut Vec::new());
    assert!(matches!(step, Ok(Step::Done(Request::Tunnel(_)))));
    assert!(!bytes.windows(16).any(|window| window == b"YWxpY2U6c2VjcmV0"));
}

#[test]
fn a_head_has_a_bound_in_bytes_and_in_lines() {
    let once = |session: &str| run(|_| Server::new(None), &[session.as_bytes()]);
    let padded = |len: usize| {
        let empty = "CONNECT a:1 HTTP/1.1\r\nX: \r\n\r\n";
        empty.replace("X: ", &format!("X: {}", "x".repeat(len - empty.len())))
    };
    let most = padded(HTTP_HEAD_BYTES_MAX);
    assert!(matches!(once(&most).done, Ok(Some(Request::Tunnel(_)))));
    let long = padded(HTTP_HEAD_BYTES_MAX + 1);
    assert_eq!(once(&long).done, Err(Error::TooLarge));
    // Already without its end it is known to be too long.
    assert_eq!(once(&long[..HTTP_HEAD_BYTES_MAX]).done, Err(Error::TooLarge));
    assert_eq!(once(&long[..HTTP_HEAD_BYTES_MAX - 1]).done, Ok(None));
    assert_eq!(text(&once(&long)), told(Status::HeadTooLarge));
    let lines = |count: usize| format!("CONNECT a:1 HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(count));
    assert!(once(&lines(HTTP_HEADERS_MAX)).done.is_ok());
    assert_eq!(once(&lines(HTTP_HEADERS_MAX + 1)).done, Err(Error::TooLarge));
}

#[test]
fn a_success_has_neither_length_nor_coding() {
    let mut answer = Vec::new();
    Pending { target: "a:1".parse().unwrap(), user: None }.accept(&mut answer);
    assert_eq!(answer, b"HTTP/1.1 200 Connection established\r\n\r\n");
}

#[test]
fn every_refusal_is_a_whole_answer_that_ends_the_connection() {
    for (status, code) in [
        (Status::BadRequest, 400),
        (Status::Forbidden, 403),
        (Status::ProxyAuthenticationRequired, 407),
        (Status::HeadTooLarge, 431),
        (Status::NotImplemented, 501),
        (Status::BadGateway, 502),
        (Status::ServiceUnavailable, 503),
        (Status::GatewayTimeout, 504),
    ] {
        let mut answer = Vec::new();
        Pending { target: "a:1".parse().unwrap(), user: None }.reject(status, &mut answer);
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Response::new(&mut headers);
        let head_len = parsed.parse(&answer).unwrap().unwrap();
        assert_eq!((parsed.code, parsed.reason), (Some(code), Some(status.reason())));
        assert_eq!(status.code(), code);
        let value = |name: &str| {
            let header = parsed.headers.iter().find(|header| header.name == name);
            header.map(|header| str::from_utf8(header.value).unwrap())
        };
        assert_eq!(value("Connection"), Some("close"));
        assert_eq!(value("Content-Length").unwrap(), (answer.len() - head_len).to_string());
        assert_eq!(&answer[head_len..], status.text().as_bytes());
        assert_eq!(value("Proxy-Authenticate"), (code == 407).then_some("Basic realm=\"umbra\""));
    }
}

#[test]
fn an_answer_to_head_has_no_body() {
    let outcome = serve("HEAD / HTTP/1.1\r\n\r\n");
    assert_eq!(outcome.done, Err(Error::Target(TargetError::Form)));
    let whole = told(Status::BadRequest);
    assert_eq!(text(&outcome), whole.strip_suffix(Status::BadRequest.text()).unwrap());
    assert!(outcome.output.ends_with(b"\r\n\r\n"));
}

#[test]
fn headers_for_one_hop_are_known_in_any_case_of_letters() {
    for name in [
        "Connection",
        "PROXY-CONNECTION",
        "keep-alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "HTTP2-Settings",
    ] {
        assert!(is_hop_by_hop(name), "{name}");
    }
    for name in ["Proxy-Authorization", "Proxy-Authenticate"] {
        assert!(is_hop_by_hop(name), "{name}");
    }
    for name in ["Host", "Content-Length", "Trailers", "Authorization", ""] {
        assert!(!is_hop_by_hop(name), "{name}");
    }
    let names: Vec<_> = list_members(" close, X-One,\tx-two ,,").collect();
    assert_eq!(names, ["close", "X-One", "x-two"]);
    assert_eq!(list_members("").count(), 0);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_answer_at_length(
        bytes: Vec<u8>, opening in 0..5_usize, cut: prop::sample::Index, asks: bool,
    ) {
        let openings = ["", "CONNECT ", "GET http://", "CONNECT a:1 HTTP/1.1\r\n", "HEAD http://a/ HTTP/1.1\r\nA: "];
        let bytes = [openings[opening].as_bytes(), &bytes, b"\r\n\r\n"].concat();
        let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
        let users = users();
        let start = |_: &mut Vec<u8>| Server::new(asks.then_some(&users));
        let whole = run(start, &[&bytes]);
        prop_assert!(whole.output.len() <= 300);
        prop_assert_eq!(run(start, &[head, tail]), whole);
    }

    #[test]
    fn a_target_is_the_same_in_both_forms(host in "[a-z0-9.-]{1,63}", port in 1_u16.., v6: [u8; 16]) {
        for host in [host, format!("[{}]", std::net::Ipv6Addr::from(v6))] {
            let target = connect_target(&format!("{host}:{port}")).unwrap();
            prop_assert_eq!(target.port(), port);
            prop_assert_eq!(forward_target(&format!("http://{host}:{port}/x:1")).unwrap(), target.clone());
            prop_assert_eq!(target.to_string().parse::<Address>().unwrap(), target);
        }
    }

    #[test]
    fn no_text_makes_the_helpers_panic(text: String, value: Vec<u8>) {
        drop((connect_target(&text), forward_target(&text), forward_target(&format!("http://{text}"))));
        prop_assert!(list_members(&text).count() <= text.len());
        prop_assert!(check_basic(&users(), &value).is_none());
        let name = format!("x-{text}");
        prop_assert!(!is_hop_by_hop(&name));
    }
}

#[test]
fn a_request_goes_one_further_than_its_number_says_for_the_next() {
    for (value, left) in [
        ("0", Ok(None)),
        ("000", Ok(None)),
        ("1", Ok(Some(0))),
        (" 70\t", Ok(Some(69))),
        ("4294967295", Ok(Some(u32::MAX - 1))),
        ("99999999999999999999999", Ok(Some(u32::MAX))),
        ("", Err(Error::Malformed)),
        ("-1", Err(Error::Malformed)),
        ("+1", Err(Error::Malformed)),
        ("1, 1", Err(Error::Malformed)),
        ("0x1", Err(Error::Malformed)),
        ("1.0", Err(Error::Malformed)),
    ] {
        assert_eq!(forwards_left(value.as_bytes()), left, "{value:?}");
    }
}
