//! Any bytes as an HTTP proxy that is asked for a tunnel, cut anywhere; any target and any login in a request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_fuzz::handshake::run;
use umbra_proto::address::{Address, DomainName};
use umbra_proto::http::client::{BasicLogin, ClientError, Request};
use umbra_proto::http::{self, Server};
use umbra_proto::users::{Credentials, Users};

/// How an answer begins, what follows, where it is cut; a target with its port; a name and a password.
type Session = (u8, Vec<u8>, Vec<u16>, Result<[u8; 16], String>, u16, String, String);

fuzz_target!(|session: Session| {
    let (opening, bytes, cuts, target, port, name, password) = session;
    let opening = OPENINGS[usize::from(opening) % OPENINGS.len()];
    hear(&[opening, &bytes, b"\r\n\r\nbehind"].concat(), &cuts);
    hear(&[opening, &bytes].concat(), &cuts);
    let Some(target) = read(&target, port) else { return };
    ask(&target, Credentials::new(&name, &password).ok(), &cuts);
});

fn hear(bytes: &[u8], cuts: &[u16]) {
    let target: Address = "example.com:80".parse().expect("an address");
    let start =
        |output: &mut Vec<u8>| Request { target: &target, login: None }.send(output).expect("a good name");
    let mut request = Vec::new();
    start(&mut request);
    let outcome = run(start, bytes, cuts);
    assert_eq!(outcome.output, request, "nothing is said but the request");
    match outcome.done {
        Ok(Some(())) => {
            // The head ends with an empty line, whichever line ends it has.
            let head = &bytes[..bytes.len() - outcome.leftover.len()];
            assert!(head.starts_with(b"HTTP/1.") && (head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n")));
        }
        Ok(None) => assert!(outcome.leftover.len() < 16 * 1024),
        Err(ClientError::Denied(status)) => assert!(!matches!(status, 100 | 102..=299 | 407)),
        Err(ClientError::Login | ClientError::Malformed | ClientError::TooLarge | ClientError::Interim) => {}
    }
}

/// Our server understands whatever can be asked for, and finds one request in it.
fn ask(target: &Address, credentials: Option<Credentials>, cuts: &[u16]) {
    let login = credentials.as_ref().and_then(|credentials| BasicLogin::new(credentials).ok());
    let mut output = Vec::new();
    let asked = Request { target, login: login.as_ref() }.send(&mut output);
    if asked.is_err() {
        assert!(output.is_empty(), "an error comes before anything is said");
        return;
    }
    assert!(output.len() <= 1500);
    let users =
        login.and(credentials).map(|credentials| Users::new([7; 32], [credentials]).expect("one user"));
    let outcome = run(|_| Server::new(users.as_ref()), &output, cuts);
    let Ok(Some(http::Request::Tunnel(pending))) = outcome.done else {
        panic!("the server understands {:?}", outcome.done);
    };
    assert!(outcome.leftover.is_empty() && pending.user().is_some() == users.is_some());
    assert_eq!(pending.target().port(), target.port());
}

fn read(target: &Result<[u8; 16], String>, port: u16) -> Option<Address> {
    match target {
        Ok(ip) => Some(Address::Ip((*ip, port).into())),
        Err(name) => DomainName::new(name).ok().map(|name| Address::Name(name, port)),
    }
}

/// What the fuzzer would take long to find.
const OPENINGS: [&[u8]; 5] =
    [b"", b"HTTP/1.", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200\n", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 "];
