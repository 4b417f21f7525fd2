//! All doors of a proxy on one port, told apart by the first byte.

use std::fmt;
use std::net::SocketAddr;

use crate::address::Address;
use crate::request::{Command, Refusal};
use crate::users::{UserName, Users};
use crate::wire::Input;
use crate::{Handshake, Step, http, socks4, socks5};

/// Which protocols a port speaks, and with whom.
#[derive(Clone, Copy, Debug)]
pub struct Options<'u> {
    /// SOCKS4 and 4a.
    pub socks4: bool,
    /// SOCKS5.
    pub socks5: bool,
    /// HTTP, CONNECT and requests to forward.
    pub http: bool,
    /// Who may come in; everybody if there are none. With users SOCKS4, which has no passwords, is refused.
    pub users: Option<&'u Users>,
}

/// A server of whatever the client speaks.
#[derive(Debug)]
pub enum Server<'u> {
    /// The first byte.
    ExpectFirstByte(Options<'u>),
    /// A SOCKS4 client.
    Socks4(socks4::Server),
    /// A SOCKS5 client.
    Socks5(socks5::Server<'u>),
    /// An HTTP client.
    Http(http::Server<'u>),
}

/// What a client wants, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// A way to a target, in any of the protocols.
    Tunnel(Pending),
    /// An HTTP request to forward, with all its bytes still in the input.
    Forward(http::Forward),
}

/// A request for a way, not yet answered.
#[must_use = "the client waits for an answer"]
#[derive(Debug, PartialEq, Eq)]
pub enum Pending {
    /// Of a SOCKS4 client.
    Socks4(socks4::Pending),
    /// Of a SOCKS5 client.
    Socks5(socks5::Pending),
    /// Of an HTTP client: CONNECT.
    Http(http::Pending),
}

/// A BIND request whose client knows where we listen, and waits to hear who came.
#[must_use = "the client waits for the second answer"]
#[derive(Debug, PartialEq, Eq)]
pub enum PendingPeer {
    /// Of a SOCKS4 client.
    Socks4(socks4::PendingPeer),
    /// Of a SOCKS5 client.
    Socks5(socks5::PendingPeer),
}

/// How a client can be wrong. Where its protocol has an answer, the machine has already put it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first byte begins nothing that this port speaks; nothing has been said.
    Protocol(u8),
    /// A SOCKS4 client.
    Socks4(socks4::Error),
    /// A SOCKS5 client.
    Socks5(socks5::Error),
    /// An HTTP client.
    Http(http::Error),
}

impl<'u> Server<'u> {
    /// A server at the start of a connection.
    pub fn new(options: Options<'u>) -> Self {
        Self::ExpectFirstByte(options)
    }
}

impl<'u> Options<'u> {
    fn choose(self, first: u8) -> Result<Server<'u>, Error> {
        match first {
            4 if self.socks4 && self.users.is_some() => Ok(Server::Socks4(socks4::Server::refusing())),
            4 if self.socks4 => Ok(Server::Socks4(socks4::Server::new())),
            5 if self.socks5 => Ok(Server::Socks5(socks5::Server::with_users(self.users))),
            b'A'..=b'Z' | b'a'..=b'z' if self.http => Ok(Server::Http(http::Server::new(self.users))),
            other => Err(Error::Protocol(other)),
        }
    }
}

impl Handshake for Server<'_> {
    type Done = Request;
    type Error = Error;

    fn advance(self, input: &mut Input<'_>, output: &mut Vec<u8>) -> Result<Step<Self>, Error> {
        match self {
            Self::ExpectFirstByte(options) => match input.rest().first() {
                None => Ok(Step::Wait(self)),
                Some(first) => options.choose(*first)?.advance(input, output),
            },
            Self::Socks4(server) => {
                let step = server.advance(input, output).map_err(Error::Socks4)?;
                Ok(step.map(Self::Socks4, |pending| Request::Tunnel(Pending::Socks4(pending))))
            }
            Self::Socks5(server) => {
                let step = server.advance(input, output).map_err(Error::Socks5)?;
                Ok(step.map(Self::Socks5, |pending| Request::Tunnel(Pending::Socks5(pending))))
            }
            Self::Http(server) => {
                let step = server.advance(input, output).map_err(Error::Http)?;
                Ok(step.map(Self::Http, |request| match request {
                    http::Request::Tunnel(pending) => Request::Tunnel(Pending::Http(pending)),
                    http::Request::Forward(forward) => Request::Forward(forward),
                }))
            }
        }
    }
}

impl Pending {
    /// What the client wants.
    pub fn command(&self) -> Command {
        match self {
            Self::Socks4(pending) => pending.command(),
            Self::Socks5(pending) => pending.command(),
            Self::Http(_) => Command::Connect,
        }
    }

    /// Where the client wants to go. With BIND, from where it expects a connection; with UDP ASSOCIATE, from where it will send.
    pub fn target(&self) -> &Address {
        match self {
            Self::Socks4(pending) => pending.target(),
            Self::Socks5(pending) => pending.target(),
            Self::Http(pending) => pending.target(),
        }
    }

    /// Who the client is, at a door that asks. A SOCKS4 user id is not proven and is nobody's name.
    pub fn user(&self) -> Option<&UserName> {
        match self {
            Self::Socks4(_) => None,
            Self::Socks5(pending) => pending.user(),
            Self::Http(pending) => pending.user(),
        }
    }

    /// Tells the client that the way stands. `bound` is the address that the target sees, where it is known.
    pub fn accept(self, bound: Option<SocketAddr>, output: &mut Vec<u8>) {
        match self {
            Self::Socks4(pending) => pending.accept(bound, output),
            Self::Socks5(pending) => pending.accept(bound, output),
            Self::Http(pending) => pending.accept(output),
        }
    }

    /// Tells the client of a BIND request where its target may connect to. HTTP has no such request; it comes back
    /// unanswered.
    pub fn bound(self, listening: SocketAddr, output: &mut Vec<u8>) -> Result<PendingPeer, Self> {
        match self {
            Self::Socks4(pending) => Ok(PendingPeer::Socks4(pending.bound(listening, output))),
            Self::Socks5(pending) => Ok(PendingPeer::Socks5(pending.bound(listening, output))),
            Self::Http(_) => Err(self),
        }
    }

    /// Tells the client why there is no way; the connection is to be closed.
    pub fn reject(self, why: Refusal, output: &mut Vec<u8>) {
        match self {
            Self::Socks4(pending) => pending.reject(why.socks4(), output),
            Self::Socks5(pending) => pending.reject(why.socks5(), output),
            Self::Http(pending) => pending.reject(why.http(), output),
        }
    }
}

impl PendingPeer {
    /// Tells the client who has connected.
    pub fn accept(self, peer: SocketAddr, output: &mut Vec<u8>) {
        match self {
            Self::Socks4(pending) => pending.accept(peer, output),
            Self::Socks5(pending) => pending.accept(peer, output),
        }
    }

    /// Tells the client that nobody came, or that the wrong one did.
    pub fn reject(self, why: Refusal, output: &mut Vec<u8>) {
        match self {
            Self::Socks4(pending) => pending.reject(why.socks4(), output),
            Self::Socks5(pending) => pending.reject(why.socks5(), output),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(first @ (4 | 5)) => write!(f, "unsupported SOCKS protocol version {first}"),
            Self::Protocol(first) => write!(f, "no protocol of this port begins with byte {first}"),
            Self::Socks4(error) => error.fmt(f),
            Self::Socks5(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Outcome, run, run_cut, users};
    use proptest::prelude::*;

    const ALL: Options<'static> = Options { socks4: true, socks5: true, http: true, users: None };

    fn serve(options: Options<'_>, session: &[u8]) -> Outcome<Request, Error> {
        run_cut(|_| Server::new(options), session)
    }

    fn pending(session: &[u8]) -> Pending {
        match serve(ALL, session).done {
            Ok(Some(Request::Tunnel(pending))) => pending,
            other => panic!("{other:?}"),
        }
    }

    const SOCKS4: &[u8] = b"\x04\x01\x00\x50\x00\x00\x00\x01me\x00example.com\x00early";
    const SOCKS5: &[u8] = b"\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x00\x50early";
    const SOCKS5_LOGIN: &[u8] =
        b"\x05\x01\x02\x01\x05alice\x06secret\x05\x01\x00\x03\x0bexample.com\x00\x50early";
    const CONNECT: &[u8] = b"CONNECT example.com:80 HTTP/1.1\r\n\r\nearly";
    const CONNECT_LOGIN: &[u8] =
        b"CONNECT example.com:80 HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\nearly";
    const GET: &[u8] = b"GET http://example.com/ HTTP/1.1\r\n\r\n";
    const GET_LOGIN: &[u8] =
        b"GET http://example.com/ HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n";

    #[test]
    fn every_protocol_is_understood_on_one_port_and_early_payload_is_left() {
        for session in [SOCKS4, SOCKS5, CONNECT] {
            let outcome = serve(ALL, session);
            let Ok(Some(Request::Tunnel(pending))) = outcome.done else { panic!("{:?}", outcome.done) };
            assert_eq!(pending.target(), &"example.com:80".parse().unwrap());
            assert_eq!((pending.command(), pending.user()), (Command::Connect, None));
            assert_eq!(outcome.leftover, b"early");
        }
        let outcome = serve(ALL, GET);
        let Ok(Some(Request::Forward(forward))) = outcome.done else { panic!("{:?}", outcome.done) };
        assert_eq!(forward.target, "example.com:80".parse().unwrap());
        assert_eq!(outcome.leftover, GET);
    }

    #[test]
    fn a_split_anywhere_changes_nothing() {
        let users = users();
        for session in
            [SOCKS4, SOCKS5, SOCKS5_LOGIN, CONNECT, CONNECT_LOGIN, GET, GET_LOGIN, b"\x16\x03\x01", b""]
        {
            serve(ALL, session);
            serve(Options { users: Some(&users), ..ALL }, session);
        }
    }

    #[test]
    fn with_users_no_door_is_open_without_a_login() {
        let users = users();
        let options = Options { users: Some(&users), ..ALL };
        for (session, error) in [
            (SOCKS4, Error::Socks4(socks4::Error::LoginRequired)),
            (SOCKS5, Error::Socks5(socks5::Error::NoMethod)),
            (b"\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", Error::Socks5(socks5::Error::NoMethod)),
            (CONNECT, Error::Http(http::Error::Login)),
            (GET, Error::Http(http::Error::Login)),
        ] {
            assert_eq!(serve(options, session).done, Err(error));
        }
        for session in [SOCKS5_LOGIN, CONNECT_LOGIN, GET_LOGIN] {
            let user = match serve(options, session).done {
                Ok(Some(Request::Tunnel(pending))) => pending.user().cloned(),
                Ok(Some(Request::Forward(forward))) => forward.user,
                other => panic!("{other:?}"),
            };
            assert_eq!(user.as_ref().map(UserName::as_str), Some("alice"));
        }
    }

    #[test]
    fn what_is_not_enabled_is_no_protocol_and_is_told_nothing() {
        let none = Options { socks4: false, socks5: false, http: false, users: None };
        for (session, only) in [
            (SOCKS4, Options { socks4: true, ..none }),
            (SOCKS5, Options { socks5: true, ..none }),
            (CONNECT, Options { http: true, ..none }),
            (GET, Options { http: true, ..none }),
        ] {
            assert!(serve(only, session).done.is_ok());
            let others =
                Options { socks4: !only.socks4, socks5: !only.socks5, http: !only.http, users: None };
            for options in [none, others] {
                let outcome = serve(options, session);
                assert_eq!(outcome.done, Err(Error::Protocol(session[0])));
                assert_eq!(outcome.output, b"");
            }
        }
    }

    #[test]
    fn only_three_kinds_of_first_byte_begin_anything() {
        for first in 0..=u8::MAX {
            let is_known = matches!(first, 4 | 5) || first.is_ascii_alphabetic();
            let outcome = run(|_| Server::new(ALL), &[&[first]]);
            assert_eq!(outcome.done, if is_known { Ok(None) } else { Err(Error::Protocol(first)) });
            assert_eq!(outcome.output, b"");
        }
    }

    #[test]
    fn every_client_is_answered_in_its_own_words() {
        let answers = |answer: &dyn Fn(Pending, &mut Vec<u8>)| {
            [SOCKS4, SOCKS5, CONNECT].map(|session| {
                let mut output = Vec::new();
                answer(pending(session), &mut output);
                output
            })
        };
        let bound = "10.0.0.1:258".parse().ok();
        let [four, five, http] = answers(&|pending, output| pending.accept(bound, output));
        assert_eq!(four, [0, 90, 1, 2, 10, 0, 0, 1]);
        assert_eq!(five, [5, 0, 0, 1, 10, 0, 0, 1, 1, 2]);
        assert!(http.starts_with(b"HTTP/1.1 200 "));
        let [four, five, http] = answers(&|pending, output| pending.reject(Refusal::NotAllowed, output));
        assert_eq!((four[1], five[1]), (91, 2));
        assert!(http.starts_with(b"HTTP/1.1 403 "));
    }

    #[test]
    fn bind_has_two_answers_where_there_is_bind() {
        let listening = "10.0.0.1:258".parse().unwrap();
        for (session, len) in [(SOCKS4, 8), (SOCKS5, 10)] {
            let mut bind = session.to_vec();
            bind[if session == SOCKS4 { 1 } else { 4 }] = 2;
            assert_eq!(pending(&bind).command(), Command::Bind);
            let mut output = Vec::new();
            let waiting = pending(&bind).bound(listening, &mut output).unwrap();
            waiting.accept("10.0.0.2:1".parse().unwrap(), &mut output);
            assert_eq!(output.len(), 2 * len);
            let waiting = pending(&bind).bound(listening, &mut Vec::new()).unwrap();
            waiting.reject(Refusal::TimedOut, &mut output);
            assert_eq!(output.len(), 3 * len);
        }
        let mut output = Vec::new();
        assert_eq!(pending(CONNECT).bound(listening, &mut output), Err(pending(CONNECT)));
        assert_eq!(output, b"");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_answer_at_length(
            bytes: Vec<u8>, first in prop::sample::select(vec![4, 5, b'C', b'g', 0x16]),
            cut: prop::sample::Index, asks: bool,
        ) {
            let bytes = [&[first], &bytes[..]].concat();
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            let users = users();
            let options = Options { users: asks.then_some(&users), ..ALL };
            let whole = run(|_| Server::new(options), &[&bytes]);
            prop_assert!(whole.output.len() <= 300);
            prop_assert_eq!(run(|_| Server::new(options), &[head, tail]), whole);
        }
    }
}
