//! SOCKS4 and 4a, the server's side.

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
        1 => Command::Connect,
        2 => Command::Bind,
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
    match rest.iter().take(max + 1).position(|byte| *byte == 0) {
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
    output.extend_from_slice(&[0, code.wire()]);
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
