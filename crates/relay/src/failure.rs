//! How and why a session failed: one value that is the log line, and, by one table, what the client is told.

use std::fmt;
use std::io;

use umbra_proto::shadowsocks::head::HeadError;
use umbra_proto::shadowsocks::stream::OpenError;
use umbra_proto::socks5;

/// Where a session failed, on whose side, and why.
#[derive(Debug)]
pub struct Failure {
    /// What was under way.
    pub stage: Stage,
    /// Whose end it was.
    pub side: Side,
    /// What went wrong.
    pub cause: Cause,
}

/// What a session was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Learning what the client wants.
    Handshake,
    /// Looking a name up.
    Resolve,
    /// Opening a connection.
    Connect,
    /// Carrying bytes.
    Relay,
}

/// Which end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that came to us.
    Inbound,
    /// The one we went to.
    Outbound,
}

/// Why a stage failed. None of these names a target or a client.
#[derive(Debug)]
pub enum Cause {
    /// The system said no.
    Io(io::Error),
    /// It took too long.
    Deadline,
    /// The peer ended before it had said what it wanted, or in the middle of a record.
    Truncated,
    /// The peer said more than any handshake needs.
    TooLong,
    /// The name has no address.
    NoAddress,
    /// Not SOCKS5 as we speak it.
    Socks(socks5::Error),
    /// Not the start of a Shadowsocks request with our key.
    Head(HeadError),
    /// Not a Shadowsocks record with our key.
    Open(OpenError),
}

impl Failure {
    /// A failure of the client's side before its wish was known.
    pub(crate) fn handshake(cause: Cause) -> Self {
        Self { stage: Stage::Handshake, side: Side::Inbound, cause }
    }

    /// A failure on the way to the target.
    pub(crate) fn outbound(stage: Stage, cause: Cause) -> Self {
        Self { stage, side: Side::Outbound, cause }
    }

    /// What a SOCKS5 client is told (the table of `docs/protocols.md`, with RFC 1928, section 6).
    pub fn socks5_reply(&self) -> socks5::Reply {
        match (&self.cause, self.stage) {
            (Cause::Io(error), _) => reply_to(error),
            (Cause::NoAddress, _) | (Cause::Deadline, Stage::Resolve | Stage::Connect) => {
                socks5::Reply::HostUnreachable
            }
            (Cause::Deadline, Stage::Handshake | Stage::Relay)
            | (Cause::Truncated | Cause::TooLong | Cause::Socks(_) | Cause::Head(_) | Cause::Open(_), _) => {
                socks5::Reply::GeneralFailure
            }
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the system's kinds are many and open-ended")]
fn reply_to(error: &io::Error) -> socks5::Reply {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => socks5::Reply::ConnectionRefused,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => socks5::Reply::NetworkUnreachable,
        io::ErrorKind::HostUnreachable | io::ErrorKind::TimedOut => socks5::Reply::HostUnreachable,
        io::ErrorKind::PermissionDenied => socks5::Reply::NotAllowed,
        // The others say nothing that a client could use.
        _ => socks5::Reply::GeneralFailure,
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => "handshake",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Relay => "relay",
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Deadline => f.write_str("deadline passed"),
            Self::Truncated => f.write_str("the peer ended too early"),
            Self::TooLong => f.write_str("a handshake without end"),
            Self::NoAddress => f.write_str("the name has no address"),
            Self::Socks(error) => error.fmt(f),
            Self::Head(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed, {} side: {}", self.stage, self.side, self.cause)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_the_truth_about_a_dial() {
        let told = |cause| Failure::outbound(Stage::Connect, cause).socks5_reply();
        assert_eq!(
            told(Cause::Io(io::ErrorKind::ConnectionRefused.into())),
            socks5::Reply::ConnectionRefused
        );
        assert_eq!(
            told(Cause::Io(io::ErrorKind::NetworkUnreachable.into())),
            socks5::Reply::NetworkUnreachable
        );
        assert_eq!(told(Cause::Io(io::ErrorKind::HostUnreachable.into())), socks5::Reply::HostUnreachable);
        assert_eq!(told(Cause::Io(io::Error::from_raw_os_error(24))), socks5::Reply::GeneralFailure);
        assert_eq!(told(Cause::Deadline), socks5::Reply::HostUnreachable);
        assert_eq!(
            Failure::outbound(Stage::Resolve, Cause::NoAddress).socks5_reply(),
            socks5::Reply::HostUnreachable
        );
    }
}
