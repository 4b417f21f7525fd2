//! SOCKS5 (RFC 1928), the server's side.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use crate::address::{Address, AddressError};
use crate::wire::{Input, Stop};
use crate::{Handshake, Step};

/// A server named after what it waits for.
#[derive(Debug)]
pub enum Server {
    /// The version and the client's list of methods.
    ExpectGreeting,
    /// What the client wants.
    ExpectRequest,
}

/// A request that is understood and not yet answered: consumed by exactly one of the two answers.
#[must_use = "the client waits for an answer"]
#[derive(Debug, PartialEq, Eq)]
pub struct Pending {
    target: Address,
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
    /// BIND, UDP ASSOCIATE or something unheard of; the client has been told 07.
    Command(u8),
    /// No address; the client has been told 08.
    Address(AddressError),
}

impl Server {
    /// A server at the start of a connection.
    pub fn new() -> Self {
        Self::ExpectGreeting
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

    fn advance(mut self, input: &mut Input<'_>, output: &mut Vec<u8>) -> Result<Step<Self>, Error> {
        loop {
            let outcome = match self {
                Self::ExpectGreeting => greet(input, output).map(Step::Wait),
                Self::ExpectRequest => understand(input).map(Step::Done),
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
fn greet(input: &mut Input<'_>, output: &mut Vec<u8>) -> Result<Server, Stop<Error>> {
    let offers_ours = input.decode(|reader| {
        version(reader.u8()?)?;
        let count = reader.u8()?;
        Ok(reader.slice(usize::from(count))?.contains(&METHOD_NONE))
    })?;
    if !offers_ours {
        return Err(Stop::Malformed(Error::NoMethod));
    }
    output.extend_from_slice(&[VERSION, METHOD_NONE]);
    Ok(Server::ExpectRequest)
}

/// ```text
///  +-----+-----+------+---------+
///  | VER | CMD | RSV  | address |    RFC 1928, section 4
///  |  1  |  1  |  00  | 5..259  |
///  +-----+-----+------+---------+
/// ```
fn understand(input: &mut Input<'_>) -> Result<Pending, Stop<Error>> {
    input.decode(|reader| {
        version(reader.u8()?)?;
        let command = reader.u8()?;
        if command != COMMAND_CONNECT {
            return Err(Stop::Malformed(Error::Command(command)));
        }
        reader.u8()?;
        let target = Address::decode(reader).map_err(|stop| stop.map(Error::Address))?;
        Ok(Pending { target })
    })
}

fn version(byte: u8) -> Result<(), Stop<Error>> {
    if byte == VERSION { Ok(()) } else { Err(Stop::Malformed(Error::Version(byte))) }
}

fn refuse(error: Error, output: &mut Vec<u8>) {
    match error {
        Error::Version(_) => {}
        Error::NoMethod => output.extend_from_slice(&[VERSION, METHOD_UNACCEPTABLE]),
        Error::Command(_) => reply(Reply::CommandNotSupported, UNSPECIFIED, output),
        Error::Address(_) => reply(Reply::AddressTypeNotSupported, UNSPECIFIED, output),
    }
}

impl Pending {
    /// Where the client wants to go.
    pub fn target(&self) -> &Address {
        &self.target
    }

    /// Tells the client that the way stands. `bound` is the address that the target sees, where it is known.
    pub fn accept(self, bound: Option<SocketAddr>, output: &mut Vec<u8>) {
        reply(Reply::Succeeded, bound.unwrap_or(UNSPECIFIED), output);
    }

    /// Tells the client why there is no way; the connection is to be closed within 10 seconds (RFC 1928, section 6).
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
            Self::Command(command) => write!(f, "unknown command {command}"),
            Self::Address(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

const VERSION: u8 = 5;
const METHOD_NONE: u8 = 0;
const METHOD_UNACCEPTABLE: u8 = 0xff;
const COMMAND_CONNECT: u8 = 1;
const UNSPECIFIED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything a run leaves behind: outcome, answers, and the next layer's bytes.
    #[derive(Debug, PartialEq, Eq)]
    struct Outcome {
        target: Result<Option<Address>, Error>,
        output: Vec<u8>,
        leftover: Vec<u8>,
    }

    fn run(pieces: &[&[u8]]) -> Outcome {
        let (mut buffer, mut output) = (Vec::new(), Vec::new());
        let mut server = Some(Server::new());
        let mut target = Ok(None);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            let Some(machine) = server.take() else { continue };
            let mut input = Input::new(&mut buffer);
            match machine.advance(&mut input, &mut output) {
                Ok(Step::Wait(next)) => server = Some(next),
                Ok(Step::Done(pending)) => target = Ok(Some(pending.target)),
                Err(error) => target = Err(error),
            }
            let taken = input.taken();
            buffer.drain(..taken);
        }
        Outcome { target, output, leftover: buffer }
    }

    const SESSION: &[u8] = b"\x05\x02\x00\x02\x05\x01\x00\x03\x0bexample.com\x00\x50GET /";

    #[test]
    fn a_session_is_understood_and_early_payload_is_left() {
        let outcome = run(&[SESSION]);
        assert_eq!(outcome.target, Ok(Some("example.com:80".parse().unwrap())));
        assert_eq!(outcome.output, [5, 0]);
        assert_eq!(outcome.leftover, b"GET /");
    }

    #[test]
    fn a_split_anywhere_changes_nothing() {
        for session in [
            SESSION,
            b"\x05\x01\x00\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50",
            b"\x05\x01\x00\x05\x01\x00\x05",
        ] {
            let whole = run(&[session]);
            for at in 0..=session.len() {
                let (head, tail) = session.split_at(at);
                let split = run(&[head, tail]);
                assert_eq!((&split.target, &split.output), (&whole.target, &whole.output), "split at {at}");
                if whole.target.is_ok() {
                    assert_eq!(split.leftover, whole.leftover, "split at {at}");
                }
            }
            let bytes = run(&session.chunks(1).collect::<Vec<_>>());
            assert_eq!((bytes.target, bytes.output), (whole.target, whole.output));
        }
    }

    #[test]
    fn every_refusal_is_told_as_the_rfc_says() {
        let told = |bytes: &[u8]| run(&[bytes]);
        assert_eq!(told(b"\x04\x01").target, Err(Error::Version(4)));
        assert_eq!(told(b"\x04\x01").output, b"");
        assert_eq!(told(b"\x05\x01\x02").target, Err(Error::NoMethod));
        assert_eq!(told(b"\x05\x01\x02").output, [5, 0xff]);
        assert_eq!(told(b"\x05\x00").target, Err(Error::NoMethod));
        for command in [0, 2, 3, 9] {
            let outcome = run(&[b"\x05\x01\x00", &[5, command, 0, 1, 1, 2, 3, 4, 0, 80]]);
            assert_eq!(outcome.target, Err(Error::Command(command)));
            assert_eq!(outcome.output, [5, 0, 5, 7, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        let outcome = told(b"\x05\x01\x00\x05\x01\x00\x05");
        assert_eq!(outcome.target, Err(Error::Address(AddressError::UnknownType(5))));
        assert_eq!(outcome.output, [5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn two_hundred_and_fifty_five_methods_with_repeats_are_fine() {
        let mut greeting = vec![5, 255];
        greeting.resize(2 + 254, 0x80);
        greeting.push(0);
        assert_eq!(run(&[&greeting]).output, [5, 0]);
    }

    #[test]
    fn an_answer_names_the_bound_address() {
        let answer = |bound: Option<&str>| {
            let mut output = Vec::new();
            let pending = Pending { target: "a:1".parse().unwrap() };
            pending.accept(bound.map(|text| text.parse().unwrap()), &mut output);
            output
        };
        assert_eq!(answer(None), [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer(Some("10.0.0.1:258")), [5, 0, 0, 1, 10, 0, 0, 1, 1, 2]);
        assert_eq!(answer(Some("[::1]:258")).len(), 22);
        let mut output = Vec::new();
        Pending { target: "a:1".parse().unwrap() }.reject(Reply::ConnectionRefused, &mut output);
        assert_eq!(output, [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_answer_at_length(bytes: Vec<u8>, cut: prop::sample::Index) {
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert!(run(&[head, tail]).output.len() <= 2 + 10);
        }
    }
}
