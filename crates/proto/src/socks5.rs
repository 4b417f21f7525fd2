//! SOCKS5 (RFC 1928) with user names and passwords (RFC 1929), the server's side; the client's is in [`client`], and
//! what datagrams look like in [`udp`].

pub mod client;
pub mod udp;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use zeroize::Zeroize as _;

use crate::address::{Address, AddressError};
use crate::request::Command;
use crate::users::{UserName, Users};
use crate::wire::{Input, Reader, Stop};
use crate::{Handshake, Step};

/// A server named after what it waits for.
#[derive(Debug)]
pub enum Server<'u> {
    /// The version and the client's list of methods.
    ExpectGreeting {
        /// Who may come in; everybody if there are no users.
        users: Option<&'u Users>,
    },
    /// The client's name and password.
    ExpectLogin {
        /// Who may come in.
        users: &'u Users,
    },
    /// What the client wants.
    ExpectRequest {
        /// Who it is.
        user: Option<UserName>,
    },
}

/// A request that is understood and not yet answered: consumed by exactly one of the answers.
#[must_use = "the client waits for an answer"]
#[derive(Debug, PartialEq, Eq)]
pub struct Pending {
    command: Command,
    target: Address,
    user: Option<UserName>,
}

/// A BIND request whose client knows where we listen, and waits to hear who came.
#[must_use = "the client waits for the second answer"]
#[derive(Debug, PartialEq, Eq)]
pub struct PendingPeer {
    _private: (),
}

/// The reply codes of RFC 1928, section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 00
    Succeeded,
    /// 01
    GeneralFailure,
    /// 02
    NotAllowed,
    /// 03
    NetworkUnreachable,
    /// 04
    HostUnreachable,
    /// 05
    ConnectionRefused,
    /// 06
    TtlExpired,
    /// 07
    CommandNotSupported,
    /// 08
    AddressTypeNotSupported,
}

/// How a client can be wrong. Where the protocol has an answer, the machine has already put it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first byte is not 5: another protocol, or none.
    Version(u8),
    /// None of the offered methods is ours; the client has been told `FF`.
    NoMethod,
    /// The first byte of the login is not 1; the client has been told that it failed.
    LoginVersion(u8),
    /// Nobody has this name and this password; the client has been told that the login failed.
    Login,
    /// A command unheard of; the client has been told 07.
    Command(u8),
    /// No address; the client has been told 08.
    Address(AddressError),
}

impl Server<'static> {
    /// A server at the start of a connection, for everybody.
    pub fn new() -> Self {
        Self::with_users(None)
    }
}

impl<'u> Server<'u> {
    /// A server at the start of a connection, for these users only, if there are any.
    pub fn with_users(users: Option<&'u Users>) -> Self {
        Self::ExpectGreeting { users }
    }
}

impl Default for Server<'_> {
    fn default() -> Self {
        Self::with_users(None)
    }
}

impl Handshake for Server<'_> {
    type Done = Pending;
    type Error = Error;

    fn advance(mut self, input: &mut Input<'_>, output: &mut Vec<u8>) -> Result<Step<Self>, Error> {
        loop {
            let outcome = match &mut self {
                Self::ExpectGreeting { users } => greet(*users, input, output).map(Step::Wait),
                Self::ExpectLogin { users } => log_in(users, input, output).map(Step::Wait),
                Self::ExpectRequest { user } => understand(user, input).map(Step::Done),
            };
            match outcome {
                Ok(Step::Wait(next)) => self = next,
                Ok(Step::Done(pending)) => return Ok(Step::Done(pending)),
                Err(Stop::Incomplete) => return Ok(Step::Wait(self)),
                Err(Stop::Malformed(error)) => {
                    refuse(error, output);
                    return Err(error);
                }
            }
        }
    }
}

/// ```text
///  +-----+----------+----------+
///  | VER | NMETHODS | METHODS  |    RFC 1928, section 3
///  |  1  |    1     | 1 to 255 |
///  +-----+----------+----------+
/// ```
fn greet<'u>(
    users: Option<&'u Users>,
    input: &mut Input<'_>,
    output: &mut Vec<u8>,
) -> Result<Server<'u>, Stop<Error>> {
    // With users there is no way in without a name: whoever offers 00 alone is refused.
    let (method, next) = match users {
        None => (METHOD_NONE, Server::ExpectRequest { user: None }),
        Some(users) => (METHOD_LOGIN, Server::ExpectLogin { users }),
    };
    let offers_ours = input.decode(|reader| {
        version(reader.u8()?)?;
        let count = reader.u8()?;
        Ok(reader.slice(usize::from(count))?.contains(&method))
    })?;
    if !offers_ours {
        return Err(Stop::Malformed(Error::NoMethod));
    }
    output.extend_from_slice(&[VERSION, method]);
    Ok(next)
}

/// ```text
///  +-----+------+----------+------+----------+      +-----+--------+
///  | VER | ULEN |  UNAME   | PLEN |  PASSWD  |      | VER | STATUS |    RFC 1929, section 2
///  |  1  |  1   | 1 to 255 |  1   | 1 to 255 |      |  1  |   1    |    0: welcome
///  +-----+------+----------+------+----------+      +-----+--------+
/// ```
fn log_in<'u>(
    users: &'u Users,
    input: &mut Input<'_>,
    output: &mut Vec<u8>,
) -> Result<Server<'u>, Stop<Error>> {
    let mut reader = Reader::new(input.rest());
    match reader.u8()? {
        LOGIN_VERSION => {}
        other => return Err(Stop::Malformed(Error::LoginVersion(other))),
    }
    let name_len = reader.u8()?;
    let name = reader.slice(usize::from(name_len))?;
    let password_len = reader.u8()?;
    let password = reader.slice(usize::from(password_len))?;
    let user = users.check(name, password).cloned();
    let login_len = reader.taken();
    // The buffer goes on to other uses; the password does not.
    if let Some(login) = input.take(login_len) {
        login.zeroize();
    }
    let Some(user) = user else {
        return Err(Stop::Malformed(Error::Login));
    };
    output.extend_from_slice(&[LOGIN_VERSION, LOGIN_WELCOME]);
    Ok(Server::ExpectRequest { user: Some(user) })
}

/// ```text
///  +-----+-----+------+---------+
///  | VER | CMD | RSV  | address |    RFC 1928, section 4
///  |  1  |  1  |  00  | 5..259  |
///  +-----+-----+------+---------+
/// ```
fn understand(user: &mut Option<UserName>, input: &mut Input<'_>) -> Result<Pending, Stop<Error>> {
    let (command, target) = input.decode(|reader| {
        version(reader.u8()?)?;
        let command = match reader.u8()? {
            COMMAND_CONNECT => Command::Connect,
            COMMAND_BIND => Command::Bind,
            COMMAND_UDP_ASSOCIATE => Command::UdpAssociate,
            other => return Err(Stop::Malformed(Error::Command(other))),
        };
        reader.u8()?;
        let target = Address::decode(reader).map_err(|stop| stop.map(Error::Address))?;
        Ok((command, target))
    })?;
    Ok(Pending { command, target, user: user.take() })
}

fn version(byte: u8) -> Result<(), Stop<Error>> {
    if byte == VERSION { Ok(()) } else { Err(Stop::Malformed(Error::Version(byte))) }
}

fn refuse(error: Error, output: &mut Vec<u8>) {
    match error {
        Error::Version(_) => {}
        Error::NoMethod => output.extend_from_slice(&[VERSION, METHOD_UNACCEPTABLE]),
        Error::LoginVersion(_) | Error::Login => output.extend_from_slice(&[LOGIN_VERSION, LOGIN_FAILED]),
        Error::Command(_) => reply(Reply::CommandNotSupported, UNSPECIFIED, output),
        Error::Address(_) => reply(Reply::AddressTypeNotSupported, UNSPECIFIED, output),
    }
}

impl Pending {
    /// What the client wants.
    pub fn command(&self) -> Command {
        self.command
    }

    /// Where the client wants to go. With BIND, from where it expects a connection; with UDP ASSOCIATE, from where it will send.
    pub fn target(&self) -> &Address {
        &self.target
    }

    /// Who the client is, at a door that asks.
    pub fn user(&self) -> Option<&UserName> {
        self.user.as_ref()
    }

    /// Tells the client that the way stands. `bound` is the address that the target sees, where it is known.
    pub fn accept(self, bound: Option<SocketAddr>, output: &mut Vec<u8>) {
        reply(Reply::Succeeded, bound.unwrap_or(UNSPECIFIED), output);
    }

    /// Tells the client of a BIND request where its target may connect to.
    pub fn bound(self, listening: SocketAddr, output: &mut Vec<u8>) -> PendingPeer {
        reply(Reply::Succeeded, listening, output);
        PendingPeer { _private: () }
    }

    /// Tells the client why there is no way; the connection is to be closed within 10 seconds (RFC 1928, section 6).
    pub fn reject(self, why: Reply, output: &mut Vec<u8>) {
        reply(why, UNSPECIFIED, output);
    }
}

impl PendingPeer {
    /// Tells the client who has connected.
    pub fn accept(self, peer: SocketAddr, output: &mut Vec<u8>) {
        reply(Reply::Succeeded, peer, output);
    }

    /// Tells the client that nobody came, or that the wrong one did.
    pub fn reject(self, why: Reply, output: &mut Vec<u8>) {
        reply(why, UNSPECIFIED, output);
    }
}

/// ```text
///  +-----+-----+------+---------------+
///  | VER | REP | RSV  | bound address |    RFC 1928, section 6
///  |  1  |  1  |  00  |    7 or 19    |
///  +-----+-----+------+---------------+
/// ```
fn reply(code: Reply, bound: SocketAddr, output: &mut Vec<u8>) {
    output.extend_from_slice(&[VERSION, code.wire(), 0]);
    Address::Ip(bound).encode(output);
}

impl Reply {
    fn wire(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::GeneralFailure => 1,
            Self::NotAllowed => 2,
            Self::NetworkUnreachable => 3,
            Self::HostUnreachable => 4,
            Self::ConnectionRefused => 5,
            Self::TtlExpired => 6,
            Self::CommandNotSupported => 7,
            Self::AddressTypeNotSupported => 8,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "SOCKS version {version}"),
            Self::NoMethod => f.write_str("no acceptable method"),
            Self::LoginVersion(version) => write!(f, "login of version {version}"),
            Self::Login => f.write_str("nobody has this name and this password"),
            Self::Command(command) => write!(f, "unknown command {command}"),
            Self::Address(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

const VERSION: u8 = 5;
const METHOD_NONE: u8 = 0;
const METHOD_LOGIN: u8 = 2;
const METHOD_UNACCEPTABLE: u8 = 0xff;
const LOGIN_VERSION: u8 = 1;
const LOGIN_WELCOME: u8 = 0;
const LOGIN_FAILED: u8 = 1;
const COMMAND_CONNECT: u8 = 1;
const COMMAND_BIND: u8 = 2;
const COMMAND_UDP_ASSOCIATE: u8 = 3;
const UNSPECIFIED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A request to answer.
    pub(crate) fn pending() -> Pending {
        Pending { command: Command::Connect, target: "a:1".parse().expect("a target"), user: None }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::pending;
    use super::*;
    use crate::testing::{Outcome, run, run_cut, users};
    use proptest::prelude::*;

    fn serve(session: &[u8]) -> Outcome<Pending, Error> {
        run_cut(|_| Server::new(), session)
    }

    fn serve_users(session: &[u8]) -> Outcome<Pending, Error> {
        let users = users();
        run_cut(|_| Server::with_users(Some(&users)), session)
    }

    const SESSION: &[u8] = b"\x05\x02\x00\x02\x05\x01\x00\x03\x0bexample.com\x00\x50GET /";
    const LOGIN: &[u8] =
        b"\x05\x02\x00\x02\x01\x05alice\x06secret\x05\x01\x00\x03\x0bexample.com\x00\x50GET /";

    #[test]
    fn a_session_is_understood_and_early_payload_is_left() {
        let outcome = serve(SESSION);
        let pending = outcome.done.unwrap().unwrap();
        assert_eq!((pending.command(), pending.user()), (Command::Connect, None));
        assert_eq!(pending.target(), &"example.com:80".parse().unwrap());
        assert_eq!(outcome.output, [5, 0]);
        assert_eq!(outcome.leftover, b"GET /");
    }

    #[test]
    fn a_session_with_a_login_is_understood_and_early_payload_is_left() {
        let outcome = serve_users(LOGIN);
        let pending = outcome.done.unwrap().unwrap();
        assert_eq!(pending.user().map(UserName::as_str), Some("alice"));
        assert_eq!(pending.target(), &"example.com:80".parse().unwrap());
        assert_eq!(outcome.output, [5, 2, 1, 0]);
        assert_eq!(outcome.leftover, b"GET /");
    }

    #[test]
    fn a_split_anywhere_changes_nothing() {
        for session in [
            SESSION,
            LOGIN,
            b"\x05\x01\x00\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50",
            b"\x05\x01\x00\x05\x01\x00\x05",
            b"\x05\x01\x02\x01\x05alice\x01x",
        ] {
            serve(session);
            serve_users(session);
        }
    }

    #[test]
    fn every_refusal_is_told_as_the_rfc_says() {
        assert_eq!(serve(b"\x04\x01").done, Err(Error::Version(4)));
        assert_eq!(serve(b"\x04\x01").output, b"");
        assert_eq!(serve(b"\x05\x01\x02").done, Err(Error::NoMethod));
        assert_eq!(serve(b"\x05\x01\x02").output, [5, 0xff]);
        assert_eq!(serve(b"\x05\x00").done, Err(Error::NoMethod));
        for command in [0, 4, 9] {
            let outcome = serve(&[b"\x05\x01\x00", &[5, command, 0, 1, 1, 2, 3, 4, 0, 80][..]].concat());
            assert_eq!(outcome.done, Err(Error::Command(command)));
            assert_eq!(outcome.output, [5, 0, 5, 7, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        let outcome = serve(b"\x05\x01\x00\x05\x01\x00\x05");
        assert_eq!(outcome.done, Err(Error::Address(AddressError::UnknownType(5))));
        assert_eq!(outcome.output, [5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn where_a_login_is_asked_for_nobody_comes_in_without_one() {
        for greeting in [&b"\x05\x01\x00"[..], b"\x05\x00", b"\x05\x03\x00\x01\x80"] {
            let outcome = serve_users(&[greeting, b"\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50"].concat());
            assert_eq!((outcome.done, &outcome.output[..]), (Err(Error::NoMethod), &[5, 0xff][..]));
        }
        // A request in the place of the login is no login.
        let outcome = serve_users(b"\x05\x01\x02\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50");
        assert_eq!((outcome.done, &outcome.output[..]), (Err(Error::LoginVersion(5)), &[5, 2, 1, 1][..]));
    }

    #[test]
    fn every_wrong_login_gets_the_same_answer() {
        for login in [
            &b"\x01\x05alice\x06sEcret"[..],
            b"\x01\x05alicf\x06secret",
            b"\x01\x05alice\x07secret\x00",
            b"\x01\x05alice\x00",
            b"\x01\x00\x06secret",
            b"\x01\x00\x00",
            b"\x01\x03bob\x06secret",
            b"\x01\x05alic\xff\x06secret",
        ] {
            let outcome =
                serve_users(&[b"\x05\x01\x02", login, b"\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50"].concat());
            assert_eq!(
                (outcome.done, &outcome.output[..]),
                (Err(Error::Login), &[5, 2, 1, 1][..]),
                "{login:?}"
            );
        }
    }

    #[test]
    fn a_login_is_wiped_from_the_buffer_that_brought_it() {
        let users = users();
        let mut bytes = LOGIN.to_vec();
        let mut input = Input::new(&mut bytes);
        let step = Server::with_users(Some(&users)).advance(&mut input, &mut Vec::new());
        assert!(matches!(step, Ok(Step::Done(_))));
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn all_three_commands_are_understood() {
        let commands = [(1, Command::Connect), (2, Command::Bind), (3, Command::UdpAssociate)];
        for (code, command) in commands {
            let outcome = serve(&[5, 1, 0, 5, code, 0, 1, 1, 2, 3, 4, 0, 80]);
            assert_eq!(outcome.done.unwrap().unwrap().command(), command);
        }
    }

    #[test]
    fn two_hundred_and_fifty_five_methods_with_repeats_are_fine() {
        let mut greeting = vec![5, 255];
        greeting.resize(2 + 254, 0x80);
        greeting.push(0);
        assert_eq!(serve(&greeting).output, [5, 0]);
    }

    #[test]
    fn an_answer_names_the_bound_address() {
        let answer = |bound: Option<&str>| {
            let mut output = Vec::new();
            pending().accept(bound.map(|text| text.parse().unwrap()), &mut output);
            output
        };
        assert_eq!(answer(None), [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer(Some("10.0.0.1:258")), [5, 0, 0, 1, 10, 0, 0, 1, 1, 2]);
        assert_eq!(answer(Some("[::1]:258")).len(), 22);
        let mut output = Vec::new();
        pending().reject(Reply::ConnectionRefused, &mut output);
        assert_eq!(output, [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn bind_is_answered_twice() {
        let mut output = Vec::new();
        let waiting = pending().bound("10.0.0.1:258".parse().unwrap(), &mut output);
        waiting.accept("10.0.0.2:259".parse().unwrap(), &mut output);
        assert_eq!(output, [5, 0, 0, 1, 10, 0, 0, 1, 1, 2, 5, 0, 0, 1, 10, 0, 0, 2, 1, 3]);
        output.clear();
        let waiting = pending().bound("[::1]:258".parse().unwrap(), &mut output);
        waiting.reject(Reply::HostUnreachable, &mut output);
        assert_eq!(output[22..], [5, 4, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_answer_at_length(
            bytes: Vec<u8>, welcome in 0..4_usize, cut: prop::sample::Index, asks: bool,
        ) {
            let openings = [&b""[..], b"\x05\x02\x00\x02", b"\x05\x01\x02\x01\x05alice\x06secret", b"\x05"];
            let bytes = [openings[welcome], &bytes].concat();
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            let users = users();
            let start = |_: &mut Vec<u8>| Server::with_users(asks.then_some(&users));
            let whole = run(start, &[&bytes]);
            prop_assert!(whole.output.len() <= 4 + 10);
            prop_assert_eq!(run(start, &[head, tail]), whole);
        }
    }
}
