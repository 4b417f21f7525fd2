//! Any bytes at a port that speaks some of the protocols, to some users or to all, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_fuzz::handshake::{run, users};
use umbra_proto::detect::{Error, Options, Request, Server};
use umbra_proto::request::{Command, Refusal};

fuzz_target!(|session: ([bool; 4], u8, Vec<u8>, Vec<u16>)| {
    let ([socks4, socks5, http, asks], opening, bytes, cuts) = session;
    let bytes = [OPENINGS[usize::from(opening) % OPENINGS.len()], &bytes].concat();
    let users = users();
    let options = Options { socks4, socks5, http, users: asks.then_some(&users) };
    let outcome = run(|_| Server::new(options), &bytes, &cuts);
    assert!(outcome.output.len() <= 300);
    match outcome.done {
        Ok(None) => {}
        Ok(Some(Request::Tunnel(pending))) => {
            assert_eq!(pending.user().is_some(), asks, "no door is open without a login");
            let listening = "10.0.0.1:1".parse().expect("an address");
            let mut answer = Vec::new();
            match pending.command() {
                Command::Connect | Command::UdpAssociate => pending.reject(Refusal::TimedOut, &mut answer),
                Command::Bind => {
                    let waiting = pending.bound(listening, &mut answer).expect("BIND is of SOCKS");
                    waiting.reject(Refusal::TimedOut, &mut answer);
                }
            }
            assert!((8..=300).contains(&answer.len()));
        }
        Ok(Some(Request::Forward(forward))) => {
            assert!(http && forward.user.is_some() == asks);
            assert_eq!(outcome.leftover, bytes);
        }
        Err(Error::Protocol(first)) => assert!(first == bytes[0] && outcome.output.is_empty()),
        Err(Error::Socks4(_)) => assert!(socks4 && bytes[0] == 4),
        Err(Error::Socks5(_)) => assert!(socks5 && bytes[0] == 5),
        Err(Error::Http(_)) => assert!(http && outcome.output.starts_with(b"HTTP/1.1 4")),
    }
});

/// The login, which the fuzzer cannot find, for it is compared as a digest.
const OPENINGS: [&[u8]; 3] = [
    b"",
    b"\x05\x01\x02\x01\x05alice\x06secret",
    b"CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n",
];
