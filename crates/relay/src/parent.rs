//! Asks a parent, a proxy on the way, for the next hop or the target.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use umbra_proto::address::{Address, AddressError};
use umbra_proto::request::{Command, Refusal};
use umbra_proto::wire::Input;
use umbra_proto::{Handshake, Step, http, socks4, socks5};
use zeroize::Zeroizing;

use crate::config::{Parent, ParentProtocol};
use crate::drive::{DriveError, Inbox, drive, write_all};
use crate::failure::Cause;
use crate::group::Outcome;
use crate::net::Socket;

/// Why a parent gives us no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentError {
    /// A SOCKS4 proxy: it refused, or is none.
    Socks4(socks4::client::ClientError),
    /// A SOCKS5 proxy: it refused, or is none.
    Socks5(socks5::client::ClientError),
    /// An HTTP proxy: it refused, or is none.
    Http(http::client::ClientError),
    /// SOCKS4 has no words for the target; nothing has been said.
    Socks4Request(socks4::client::RequestError),
    /// HTTP has no words for the target, or for the command; nothing has been said.
    HttpRequest(http::client::RequestError),
}

/// What a parent agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// The address that it told, if it did.
    pub(crate) bound: Option<SocketAddr>,
    /// What it will say of who comes, where that was asked for.
    pub(crate) visitor: Option<Visitor>,
}

/// The words in which a parent tells who has come to the address of a BIND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visitor {
    /// Those of SOCKS4.
    Socks4,
    /// Those of SOCKS5.
    Socks5,
}

/// Whether a parent has answered all that comes before the target, and has been asked for that. Whoever stops waiting for it wants to
/// know: a parent that says nothing from then on may be waiting for the target itself.
#[derive(Debug, Default)]
pub(crate) struct Asked(AtomicBool);

/// A client of SOCKS5 that tells when it asks.
struct Asking<'c> {
    client: socks5::client::Client<'c>,
    asked: &'c Asked,
}

/// Asks the parent at the other end of `socket` for `command` towards `target`. What came behind its answer
/// stays in `inbox`, and belongs to whoever is at the other end. No deadline: whoever waits has one.
pub(crate) async fn negotiate<S: Socket>(
    socket: &S,
    inbox: &mut Inbox,
    parent: &Parent,
    (command, target): (Command, &Address),
    asked: &Asked,
) -> Result<Agreed, Cause> {
    let visitor = |visitor| (command == Command::Bind).then_some(visitor);
    let mut hello = Zeroizing::new(Vec::new());
    match &parent.protocol {
        ParentProtocol::Socks4(user_id) => {
            let request = socks4::client::Request { command, target, names: parent.names, user_id };
            let expect =
                request.send(&mut hello).map_err(|error| Cause::Parent(ParentError::Socks4Request(error)))?;
            say(socket, &hello).await?;
            asked.mark();
            let granted = hear(socket, inbox, expect, ParentError::Socks4).await?;
            Ok(Agreed { bound: Some(granted.bound.into()), visitor: visitor(Visitor::Socks4) })
        }
        ParentProtocol::Socks5(login) => {
            let request = socks5::client::Request { command, target };
            let client = socks5::client::Client::new(request, login.as_ref(), &mut hello);
            say(socket, &hello).await?;
            let granted = hear(socket, inbox, Asking { client, asked }, ParentError::Socks5).await?;
            Ok(Agreed { bound: bound_by(&granted, command)?, visitor: visitor(Visitor::Socks5) })
        }
        ParentProtocol::Http(login) => {
            if command != Command::Connect {
                return Err(Cause::Command(command));
            }
            let request = http::client::Request { target, login: login.as_ref() };
            let expect =
                request.send(&mut hello).map_err(|error| Cause::Parent(ParentError::HttpRequest(error)))?;
            say(socket, &hello).await?;
            asked.mark();
            hear(socket, inbox, expect, ParentError::Http).await?;
            Ok(Agreed { bound: None, visitor: None })
        }
    }
}

/// Waits for the second answer of a parent that has been asked for BIND: who has come, if it says so.
pub(crate) async fn arrival<S: Socket>(
    socket: &S,
    inbox: &mut Inbox,
    words: Visitor,
) -> Result<Option<SocketAddr>, Cause> {
    match words {
        Visitor::Socks4 => {
            let granted = hear(socket, inbox, socks4::client::ExpectReply, ParentError::Socks4).await?;
            Ok(Some(granted.bound.into()))
        }
        Visitor::Socks5 => {
            let granted = hear(socket, inbox, socks5::client::ExpectReply, ParentError::Socks5).await?;
            Ok(address_of(&granted))
        }
    }
}

async fn say<S: Socket>(socket: &S, hello: &[u8]) -> Result<(), Cause> {
    write_all(socket, hello).await.map_err(Cause::Io)
}

/// Hears `machine` out.
async fn hear<H: Handshake, S: Socket>(
    socket: &S,
    inbox: &mut Inbox,
    machine: H,
    wrong: fn(H::Error) -> ParentError,
) -> Result<H::Done, Cause> {
    let driven: Result<_, DriveError<H::Error>> = drive(machine, socket, inbox).await;
    driven.map(|(done, _)| done).map_err(|error| Cause::of_drive(error, |error| Cause::Parent(wrong(error))))
}

/// The address that was agreed to, where one is needed or told. Datagrams have to go somewhere: where that has a name, which we need not
/// find what it is to the parent, it is the parent itself, at that port.
fn bound_by(granted: &socks5::client::Granted, command: Command) -> Result<Option<SocketAddr>, Cause> {
    match (command, &granted.bound) {
        (Command::UdpAssociate, Some(Address::Name(_, port))) => {
            Ok(Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *port)))
        }
        (Command::UdpAssociate, None) => {
            let error = socks5::client::ClientError::Address(AddressError::BadName);
            Err(Cause::Parent(ParentError::Socks5(error)))
        }
        (Command::Connect | Command::Bind | Command::UdpAssociate, _) => Ok(address_of(granted)),
    }
}

/// The address in an answer, where it is one.
fn address_of(granted: &socks5::client::Granted) -> Option<SocketAddr> {
    match granted.bound {
        Some(Address::Ip(address)) => Some(address),
        Some(Address::Name(..)) | None => None,
    }
}

impl Asked {
    /// It has been asked.
    fn mark(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has been.
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Handshake for Asking<'_> {
    type Done = socks5::client::Granted;
    type Error = socks5::client::ClientError;

    fn advance(
        self,
        input: &mut Input<'_>,
        output: &mut Vec<u8>,
    ) -> Result<Step<Self>, socks5::client::ClientError> {
        let Self { client, asked } = self;
        let step = client.advance(input, output)?;
        if let Step::Wait(socks5::client::Client::ExpectReply(_)) = step {
            asked.mark();
        }
        Ok(step.map(|client| Self { client, asked }, |granted| granted))
    }
}

impl ParentError {
    /// What the client is told of it.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Socks4(socks4::client::ClientError::Denied(code)) => Refusal::of_socks4(code),
            Self::Socks5(socks5::client::ClientError::Denied(code)) => Refusal::of_socks5(code),
            Self::Http(http::client::ClientError::Denied(status)) => Refusal::of_http(status),
            Self::Socks4Request(_) | Self::HttpRequest(_) => Refusal::AddressTypeNotSupported,
            Self::Socks4(_) | Self::Socks5(_) | Self::Http(_) => Refusal::GeneralFailure,
        }
    }

    /// What it says about the parent. One that answers as it should, and cannot reach the target, is well. Some words are said of targets
    /// and of clients alike: a general failure, what a rule does not allow, a name that is not taken or not found, and all that SOCKS4 has.
    pub(crate) fn outcome(self) -> Outcome {
        use http::client::ClientError as Http;
        use socks4::client::ClientError as Socks4;
        use socks5::client::ClientError as Socks5;
        match self {
            // Among them an address of a family that it has not.
            Self::Socks5(Socks5::Denied(3..=6 | 8)) | Self::Http(Http::Denied(502..=504)) => {
                Outcome::Declined
            }
            Self::Socks4Request(_) | Self::HttpRequest(_) => Outcome::Declined,
            // The high ones are what Tor has for onion services.
            Self::Socks5(Socks5::Denied(1 | 2 | 0xf0..=0xf7)) => Outcome::Doubtful,
            Self::Http(Http::Denied(status)) if is_said_of_targets(status) => Outcome::Doubtful,
            Self::Socks4(Socks4::Denied(SOCKS4_FAILED)) => Outcome::Doubtful,
            Self::Socks4(_) | Self::Socks5(_) | Self::Http(_) => Outcome::Failed,
        }
    }

    /// Whether it says that it could not reach the target, which another one may be able to.
    pub(crate) fn is_unreached(self) -> bool {
        use http::client::ClientError as Http;
        use socks5::client::ClientError as Socks5;
        matches!(self, Self::Socks5(Socks5::Denied(3..=6)) | Self::Http(Http::Denied(502..=504)))
    }

    /// Whether it does not know what it was asked for.
    pub(crate) fn is_unknown_command(self) -> bool {
        matches!(self, Self::Socks5(socks5::client::ClientError::Denied(7)))
    }

    /// Whether it has said no, in the words that its protocol has for that.
    pub(crate) fn is_denial(self) -> bool {
        use http::client::ClientError as Http;
        use socks4::client::ClientError as Socks4;
        use socks5::client::ClientError as Socks5;
        match self {
            Self::Socks4(Socks4::Denied(_)) | Self::Http(Http::Denied(_) | Http::Login) => true,
            Self::Socks5(Socks5::Denied(_) | Socks5::MethodRefused | Socks5::LoginRefused) => true,
            Self::Socks4(Socks4::Version(_)) => false,
            Self::Socks5(Socks5::MethodNotOffered(_) | Socks5::Version(_) | Socks5::Address(_)) => false,
            Self::Http(Http::Malformed | Http::TooLarge | Http::Interim) => false,
            Self::Socks4Request(_) | Self::HttpRequest(_) => false,
        }
    }
}

impl fmt::Display for ParentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socks4(error) => write!(f, "the SOCKS4 proxy on the way: {error}"),
            Self::Socks5(error) => write!(f, "the SOCKS5 proxy on the way: {error}"),
            Self::Http(error) => write!(f, "the HTTP proxy on the way: {error}"),
            Self::Socks4Request(error) => write!(f, "SOCKS4 on the way: {error}"),
            Self::HttpRequest(error) => write!(f, "HTTP on the way: {error}"),
        }
    }
}

/// Whether proxies say `status` of targets as well as of clients: of a name that they do not take (400, and 414 of a long one), that has no
/// address (404, 410), that contradicts itself or is none of theirs (409, 421), that is not allowed (403, 451; Squid can lead
/// away from it with a 3xx instead), or of whatever else went wrong (500). That of a method, of a login or of a client's rate, no target can cause.
fn is_said_of_targets(status: u16) -> bool {
    matches!(status, 300..=399 | 400 | 403 | 404 | 409 | 410 | 414 | 421 | 451 | 500)
}

/// All that SOCKS4 has for a request that it understands and does not grant.
const SOCKS4_FAILED: u8 = 91;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_well_that_cannot_reach_a_target_and_not_one_that_denies_us() {
        use http::client::ClientError as Http;
        use socks4::client::ClientError as Socks4;
        use socks5::client::ClientError as Socks5;
        let of_socks5 = |code| ParentError::Socks5(Socks5::Denied(code)).outcome();
        for code in [3, 4, 5, 6, 8] {
            assert_eq!(of_socks5(code), Outcome::Declined);
        }
        for code in [1, 2, 0xf0, 0xf7] {
            assert_eq!(of_socks5(code), Outcome::Doubtful);
        }
        for code in [7, 9, 0xff] {
            assert_eq!(of_socks5(code), Outcome::Failed);
        }
        assert_eq!(ParentError::Socks5(Socks5::LoginRefused).outcome(), Outcome::Failed);
        let of_socks4 = |code| ParentError::Socks4(Socks4::Denied(code)).outcome();
        assert_eq!([0x5b, 0x5c, 0x5d].map(of_socks4), [Outcome::Doubtful, Outcome::Failed, Outcome::Failed]);
        let of_http = |status| ParentError::Http(Http::Denied(status)).outcome();
        assert_eq!([502, 503, 504].map(of_http), [Outcome::Declined; 3]);
        for status in [302, 307, 400, 403, 404, 409, 410, 414, 421, 451, 500] {
            assert_eq!(of_http(status), Outcome::Doubtful, "{status}");
        }
        for status in [401, 405, 407, 429, 501, 505, 511] {
            assert_eq!(of_http(status), Outcome::Failed, "{status}");
        }
        assert_eq!(ParentError::Http(Http::Login).outcome(), Outcome::Failed);
    }
}
