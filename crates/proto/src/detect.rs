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
