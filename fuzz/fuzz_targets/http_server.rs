//! Any bytes as the head of a request to an HTTP proxy, with and without a login, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_fuzz::handshake::{run, users};
use umbra_proto::http::{self, Request, Server, Status};

fuzz_target!(|session: (u8, bool, Vec<u8>, Vec<u16>)| {
    let (opening, asks, bytes, cuts) = session;
    let opening = OPENINGS[usize::from(opening) % OPENINGS.len()];
    let bytes = [opening, &bytes, b"\r\n\r\nbehind"].concat();
    let users = users();
    let outcome = run(|_| Server::new(asks.then_some(&users)), &bytes, &cuts);
    assert!(outcome.output.len() <= 300);
    match outcome.done {
        Ok(None) => unreachable!("the head has come to its end"),
        Ok(Some(Request::Tunnel(pending))) => {
            assert_eq!(pending.user().is_some(), asks);
            assert!(pending.target().port() != 0 && bytes.starts_with(b"CONNECT "));
            let head = &bytes[..bytes.len() - outcome.leftover.len()];
            assert_eq!(head.windows(4).position(|window| window == b"\r\n\r\n"), Some(head.len() - 4));
            let mut answer = Vec::new();
            pending.reject(Status::BadGateway, &mut answer);
            assert!(answer.starts_with(b"HTTP/1.1 502 "));
        }
        Ok(Some(Request::Forward(forward))) => {
            assert_eq!(forward.user.is_some(), asks);
            assert_eq!(outcome.leftover, bytes);
        }
        Err(_) => assert!(outcome.output.starts_with(b"HTTP/1.1 4")),
    }
    if let Ok(text) = str::from_utf8(&bytes) {
        drop((http::connect_target(text), http::forward_target(text)));
        assert!(http::list_members(text).all(|name| !name.is_empty() && !name.contains(',')));
    }
});

/// What the fuzzer would take long to find, and the login, which it cannot.
const OPENINGS: [&[u8]; 5] = [
    b"",
    b"CONNECT ",
    b"GET http://",
    b"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n",
    b"HEAD http://a/ HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n",
];
