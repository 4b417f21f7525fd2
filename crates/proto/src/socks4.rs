//! SOCKS4 and 4a, the server's side; the client's is in [`client`].

pub mod client;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::address::{Address, AddressError};
use crate::limits::{DOMAIN_NAME_BYTES_MAX, SOCKS4_USER_ID_BYTES_MAX};
use crate::request::Command;
use crate::wire::{Input, Reader, Stop};
use crate::{Handshake, Step};

/// A server.
#[derive(Debug)]
pub enum Server {
    /// What the client wants.
    ExpectRequest,
    /// Anything at all, to be refused: the protocol has no passwords, and this door asks for one.
    RefuseAll,
}

/// A request that is understood and not yet answered.
#[must_use = "the client waits for an answer"]
#[derive(Debug, PartialEq, Eq)]
pub struct Pending {
    command: Command,
    target: Address,
    user_id: Box<[u8]>,
}

/// A BIND request whose client knows where we listen, and waits to hear who came.
#[must_use = "the client waits for the second answer"]
#[derive(Debug, PartialEq, Eq)]
pub struct PendingPeer {
    _private: (),
}

/// The reply codes; 92, about a daemon on the client's machine that nobody runs, is never given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 90
    Granted,
    /// 91
    Rejected,
    /// 93
    UserIdMismatch,
}

/// How a client can be wrong. It has been told 91, save where it does not speak SOCKS4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first byte is not 4: another protocol, or none.
    Version(u8),
    /// The door asks for a password, and SOCKS4 has none.
    LoginRequired,
    /// Neither CONNECT nor BIND.
    Command(u8),
    /// A user id of more than 255 bytes.
    LongUserId,
    /// No address.
    Address(AddressError),
}

impl Server {
    /// A server at the start of a connection, at a door that asks for no password.
    pub fn new() -> Self {
        Self::ExpectRequest
    }

    /// A server at a door that asks for a password.
    pub fn refusing() -> Self {
        Self::RefuseAll
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Handshake for Server {
    type Done = Pending;
    type Error = Error;

    fn advance(self, input: &mut Input<'_>, output: &mut Vec<u8>) -> Result<Step<Self>, Error> {
        let outcome = match self {
            Self::ExpectRequest => input.decode(understand),
            Self::RefuseAll => input.decode(|reader| {
                version(reader.u8()?)?;
                Err(Stop::Malformed(Error::LoginRequired))
            }),
        };
        match outcome {
            Ok(pending) => Ok(Step::Done(pending)),
            Err(Stop::Incomplete) => Ok(Step::Wait(self)),
            Err(Stop::Malformed(error)) => {
                refuse(error, output);
                Err(error)
            }
        }
    }
}

/// ```text
///  +----+----+------+-------+---------+----+ - - - - - - - - +
///  | VN | CD | port |  IP   | user id | 00 | name    |   00  |    the name only where IP is 0.0.0.x with x not 0 (4a)
///  | 4  | 1  |  2   |   4   | 0..255  | 1  | 1..255  |   1   |
///  +----+----+------+-------+---------+----+ - - - - - - - - +
/// ```
fn understand(reader: &mut Reader<'_>) -> Result<Pending, Stop<Error>> {
    version(reader.u8()?)?;
    let command = match reader.u8()? {
        COMMAND_CONNECT => Command::Connect,
        COMMAND_BIND => Command::Bind,
        other => return Err(Stop::Malformed(Error::Command(other))),
    };
    let port = reader.u16()?;
    let ip = reader.array::<4, _>()?;
    let user_id = until_nul(reader, SOCKS4_USER_ID_BYTES_MAX, Error::LongUserId)?.into();
    let target = match ip {
        [0, 0, 0, 1..=255] => {
            let long = Error::Address(AddressError::LongName);
            let name = until_nul(reader, DOMAIN_NAME_BYTES_MAX, long)?;
            let name = str::from_utf8(name).map_err(|_| AddressError::BadName);
            // An IP literal sent as a name is an IP here as it is in SOCKS5.
            let target = name.and_then(|name| Address::from_host(name, port));
            target.map_err(|error| Stop::Malformed(Error::Address(error)))?
        }
        _ => Address::Ip(SocketAddr::new(Ipv4Addr::from(ip).into(), port)),
    };
    Ok(Pending { command, target, user_id })
}

/// The bytes before the next NUL, at most `max`; the NUL is read as well.
fn until_nul<'a>(reader: &mut Reader<'a>, max: usize, long: Error) -> Result<&'a [u8], Stop<Error>> {
    let rest = reader.rest();
    match rest[..rest.len().min(max + 1)].iter().position(|byte| *byte == 0) {
        Some(len) => {
            let field = reader.slice(len)?;
            reader.u8()?;
            Ok(field)
        }
        None if rest.len() > max => Err(Stop::Malformed(long)),
        None => Err(Stop::Incomplete),
    }
}

fn version(byte: u8) -> Result<(), Stop<Error>> {
    if byte == VERSION { Ok(()) } else { Err(Stop::Malformed(Error::Version(byte))) }
}

fn refuse(error: Error, output: &mut Vec<u8>) {
    match error {
        Error::Version(_) => {}
        Error::LoginRequired | Error::Command(_) | Error::LongUserId | Error::Address(_) => {
            reply(Reply::Rejected, None, output);
        }
    }
}

impl Pending {
    /// What the client wants.
    pub fn command(&self) -> Command {
        self.command
    }

    /// Where the client wants to go, or from where it expects a connection.
    pub fn target(&self) -> &Address {
        &self.target
    }

    /// The name that the client gives itself, and that nothing proves.
    pub fn user_id(&self) -> &[u8] {
        &self.user_id
    }

    /// Tells the client that the way stands. `bound` is the address that the target sees, where it is known.
    pub fn accept(self, bound: Option<SocketAddr>, output: &mut Vec<u8>) {
        reply(Reply::Granted, bound, output);
    }

    /// Tells the client of a BIND request where its target may connect to.
    pub fn bound(self, listening: SocketAddr, output: &mut Vec<u8>) -> PendingPeer {
        reply(Reply::Granted, Some(listening), output);
        PendingPeer { _private: () }
    }

    /// Tells the client that there is no way.
    pub fn reject(self, why: Reply, output: &mut Vec<u8>) {
        reply(why, None, output);
    }
}

impl PendingPeer {
    /// Tells the client who has connected.
    pub fn accept(self, peer: SocketAddr, output: &mut Vec<u8>) {
        reply(Reply::Granted, Some(peer), output);
    }

    /// Tells the client that nobody came, or that the wrong one did.
    pub fn reject(self, why: Reply, output: &mut Vec<u8>) {
        reply(why, None, output);
    }
}

/// ```text
///  +----+----+------+----+
///  | VN | CD | port | IP |    VN is 0; zeros where there is no IPv4 address to tell
///  | 1  | 1  |  2   | 4  |
///  +----+----+------+----+
/// ```
fn reply(code: Reply, bound: Option<SocketAddr>, output: &mut Vec<u8>) {
    output.extend_from_slice(&[REPLY_VERSION, code.wire()]);
    let port = bound.map_or(0, |address| address.port());
    // A client reads zeros as "the address where you reached me", which is the best that can be said of an IPv6 one.
    let ip = match bound.map(|address| address.ip().to_canonical()) {
        Some(IpAddr::V4(ip)) => ip,
        Some(IpAddr::V6(_)) | None => Ipv4Addr::UNSPECIFIED,
    };
    output.extend_from_slice(&port.to_be_bytes());
    output.extend_from_slice(&ip.octets());
}

impl Reply {
    fn wire(self) -> u8 {
        match self {
            Self::Granted => 90,
            Self::Rejected => 91,
            Self::UserIdMismatch => 93,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "SOCKS version {version}"),
            Self::LoginRequired => f.write_str("SOCKS4, where a password is asked for"),
            Self::Command(command) => write!(f, "unknown command {command}"),
            Self::LongUserId => write!(f, "a user id of more than {SOCKS4_USER_ID_BYTES_MAX} bytes"),
            Self::Address(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

const VERSION: u8 = 4;
/// A reply is of the version of its code, and there has been one only.
const REPLY_VERSION: u8 = 0;

const COMMAND_CONNECT: u8 = 1;
const COMMAND_BIND: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Outcome, run, run_cut};
    use proptest::prelude::*;

    fn serve(session: &[u8]) -> Outcome<Pending, Error> {
        run_cut(|_| Server::new(), session)
    }

    fn pending(session: &[u8]) -> (Pending, Vec<u8>) {
        let outcome = serve(session);
        assert_eq!(outcome.output, b"");
        (outcome.done.unwrap().unwrap(), outcome.leftover)
    }

    const NAMED: &[u8] = b"\x04\x01\x00\x50\x00\x00\x00\x07me\x00example.com\x00GET /";

    #[test]
    fn addresses_names_and_user_ids_are_understood_and_early_payload_is_left() {
        let (by_ip, leftover) = pending(b"\x04\x01\x1f\xbb\xcb\x00\x71\x09\x00");
        assert_eq!(by_ip.command(), Command::Connect);
        assert_eq!(by_ip.target(), &"203.0.113.9:8123".parse().unwrap());
        assert_eq!((by_ip.user_id(), &leftover[..]), (&b""[..], &b""[..]));
        let (by_name, leftover) = pending(NAMED);
        assert_eq!(by_name.target(), &"example.com:80".parse().unwrap());
        assert_eq!((by_name.user_id(), &leftover[..]), (&b"me"[..], &b"GET /"[..]));
        let (bind, _) = pending(b"\x04\x02\x00\x00\x01\x02\x03\x04\xff\x00");
        assert_eq!((bind.command(), bind.user_id()), (Command::Bind, &b"\xff"[..]));
        // A name that is an IP literal is that IP, so one target has one form.
        let (literal, _) = pending(b"\x04\x01\x00\x50\x00\x00\x00\x01\x00[::1]\x00");
        assert_eq!(literal.target(), &"[::1]:80".parse().unwrap());
        let (nowhere, _) = pending(b"\x04\x01\x00\x50\x00\x00\x00\x00\x00");
        assert_eq!(nowhere.target(), &"0.0.0.0:80".parse().unwrap());
    }

    #[test]
    fn a_split_anywhere_changes_nothing() {
        for session in [
            NAMED,
            b"\x04\x01\x00\x50\x01\x02\x03\x04\x00",
            b"\x04\x09\x00\x50\x01\x02\x03\x04\x00",
            b"\x05\x01\x00",
        ] {
            serve(session);
            run_cut(|_| Server::refusing(), session);
        }
    }

    #[test]
    fn every_refusal_is_told_with_91() {
        let head = &b"\x04\x01\x00\x50\x00\x00\x00\x01"[..];
        let long = [b'x'; 256];
        let malformed = [
            (b"\x04\x03\x00\x50\x01\x02\x03\x04\x00".to_vec(), Error::Command(3)),
            (b"\x04\x00".to_vec(), Error::Command(0)),
            ([head, &long[..]].concat(), Error::LongUserId),
            ([head, b"\x00", &long[..]].concat(), Error::Address(AddressError::LongName)),
            ([head, &b"\x00\x00"[..]].concat(), Error::Address(AddressError::EmptyName)),
            ([head, &b"\x00a b\x00"[..]].concat(), Error::Address(AddressError::BadName)),
            ([head, &b"\x00\xff\x00"[..]].concat(), Error::Address(AddressError::BadName)),
        ];
        for (session, error) in malformed {
            let outcome = serve(&session);
            assert_eq!(outcome.done, Err(error));
            assert_eq!(outcome.output, [0, 91, 0, 0, 0, 0, 0, 0]);
        }
        let outcome = serve(b"\x05\x01\x00");
        assert_eq!((outcome.done, &outcome.output[..]), (Err(Error::Version(5)), &b""[..]));
    }

    #[test]
    fn a_user_id_and_a_name_of_255_bytes_are_fine() {
        let long = [b'x'; 255];
        let session = [b"\x04\x01\x00\x50\x00\x00\x00\x01", &long[..], b"\x00", &long[..], b"\x00"].concat();
        let (pending, _) = pending(&session);
        assert_eq!(pending.user_id(), long);
    }

    #[test]
    fn where_a_password_is_asked_for_every_request_is_refused_at_once() {
        for session in [NAMED, b"\x04", b"\x04\x02\x00\x50\x01\x02\x03\x04alice\x00", b"\x04\xff\xff"] {
            let outcome = run_cut(|_| Server::refusing(), session);
            assert_eq!(outcome.done, Err(Error::LoginRequired));
            assert_eq!(outcome.output, [0, 91, 0, 0, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn answers_have_eight_bytes_and_name_an_ipv4_address_where_there_is_one() {
        let answer = |bound: Option<&str>| {
            let mut output = Vec::new();
            pending(NAMED).0.accept(bound.map(|text| text.parse().unwrap()), &mut output);
            output
        };
        assert_eq!(answer(None), [0, 90, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer(Some("10.0.0.1:258")), [0, 90, 1, 2, 10, 0, 0, 1]);
        assert_eq!(answer(Some("[::ffff:10.0.0.1]:258")), [0, 90, 1, 2, 10, 0, 0, 1]);
        assert_eq!(answer(Some("[2001:db8::1]:258")), [0, 90, 1, 2, 0, 0, 0, 0]);
        let mut output = Vec::new();
        pending(NAMED).0.reject(Reply::UserIdMismatch, &mut output);
        assert_eq!(output, [0, 93, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn bind_is_answered_twice() {
        let mut output = Vec::new();
        let waiting = pending(NAMED).0.bound("10.0.0.1:258".parse().unwrap(), &mut output);
        waiting.accept("10.0.0.2:259".parse().unwrap(), &mut output);
        assert_eq!(output, [0, 90, 1, 2, 10, 0, 0, 1, 0, 90, 1, 3, 10, 0, 0, 2]);
        output.clear();
        let waiting = pending(NAMED).0.bound("10.0.0.1:258".parse().unwrap(), &mut output);
        waiting.reject(Reply::Rejected, &mut output);
        assert_eq!(output[8..], [0, 91, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_answer_at_length(
            mut bytes: Vec<u8>, cut: prop::sample::Index, is_socks4: bool, refusing: bool,
        ) {
            if is_socks4 && let Some(first) = bytes.first_mut() {
                *first = 4;
            }
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            let start = |_: &mut Vec<u8>| if refusing { Server::refusing() } else { Server::new() };
            let whole = run(start, &[&bytes]);
            prop_assert!(whole.output.len() <= 8);
            prop_assert_eq!(run(start, &[head, tail]), whole);
        }
    }
}
