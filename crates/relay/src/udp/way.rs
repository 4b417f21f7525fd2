//! The way of an association's datagrams along one path.

use std::net::IpAddr;
use std::sync::Arc;

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::packet::ClientSession;

use super::chain::{Chain, Speech};
use super::dropped::Why;
use super::link::Link;
use super::names::Names;
use super::random::session_id;
use super::trunks::Heard;
use crate::config::{Filtering, Hop, Path};
use crate::limits::FILTERED_ADDRESSES_MAX;
use crate::net::Net;
use crate::net::datagram::SocketId;

/// Where datagrams go.
#[derive(Debug)]
pub(super) enum Way {
    /// To their targets.
    Direct(Box<Direct>),
    /// To a Shadowsocks server.
    Server(Box<Through>),
    /// To a SOCKS5 proxy.
    Parent(Link),
    /// To one of these, which sends them on to another.
    Chain(Box<Chain>),
    /// As they are to another server.
    Relay(Link, Box<Address>),
}

/// Sockets that anybody may answer to, and what is known of targets.
#[derive(Debug, Default)]
pub(super) struct Direct {
    pub(super) v4: Option<SocketId>,
    pub(super) v6: Option<SocketId>,
    pub(super) names: Names,
    /// The last target that was found not to be forbidden.
    pub(super) allowed: Option<IpAddr>,
    /// Who has been sent to, where nobody else may answer.
    sent_to: Vec<IpAddr>,
}

/// A session with a Shadowsocks server.
#[derive(Debug)]
pub(super) struct Through {
    pub(super) session: ClientSession,
    pub(super) link: Link,
    pub(super) server: Address,
    /// What the server calls its sessions, where the socket is a trunk.
    pub(super) heard: Heard,
}

impl Way {
    /// A way along `path` on which nothing has gone, if that carries datagrams.
    pub(super) fn along<N: Net>(path: &Path, net: &N) -> Result<Self, Why> {
        if !path.has_datagrams() {
            return Err(Why::Unroutable);
        }
        let session = |index| {
            let hop = path.packet_hop(index).ok_or(Why::Unroutable)?;
            Ok(ClientSession::new(Arc::clone(hop), session_id(net)?))
        };
        match &*path.hops {
            [] => Ok(Self::Direct(Box::default())),
            [Hop::Shadowsocks(server)] => {
                let server = server.mode.datagrams().ok_or(Why::Unroutable)?.clone();
                let (session, link, heard) = (session(0)?, Link::default(), Heard::default());
                Ok(Self::Server(Box::new(Through { session, link, server, heard })))
            }
            [Hop::Parent(_)] => Ok(Self::Parent(Link::default())),
            hops => {
                let speech = |(index, hop): (usize, &Hop)| match hop {
                    Hop::Shadowsocks(_) => session(index).map(Speech::Server),
                    Hop::Parent(_) => Ok(Speech::Parent),
                };
                let speeches = hops.iter().enumerate().map(speech).collect::<Result<Vec<_>, Why>>()?;
                Ok(Self::Chain(Box::new(Chain::new(speeches))))
            }
        }
    }

    /// The sockets that it goes through.
    pub(super) fn sockets(&self) -> impl Iterator<Item = SocketId> + use<> {
        let (one, other) = match self {
            Self::Direct(direct) => (direct.v4, direct.v6),
            Self::Server(through) => (through.link.socket(), None),
            Self::Chain(chain) => (chain.link.socket(), None),
            Self::Parent(link) | Self::Relay(link, _) => (link.socket(), None),
        };
        one.into_iter().chain(other)
    }

    /// How many datagrams wait.
    pub(super) fn waiting(&self) -> usize {
        match self {
            Self::Direct(direct) => direct.names.waiting(),
            Self::Server(through) => through.link.waiting(),
            Self::Chain(chain) => chain.link.waiting(),
            Self::Parent(link) | Self::Relay(link, _) => link.waiting(),
        }
    }

    /// Whether somebody else could have a socket if it were closed.
    pub(super) fn holds_socket(&self) -> bool {
        match self {
            Self::Direct(direct) => direct.v4.or(direct.v6).is_some(),
            Self::Server(through) => !through.is_shared() && through.link.holds_socket(),
            Self::Chain(chain) => chain.link.holds_socket(),
            Self::Parent(link) | Self::Relay(link, _) => link.holds_socket(),
        }
    }

    /// The way to its first hop, if it has any.
    pub(super) fn link(&mut self) -> Option<&mut Link> {
        match self {
            Self::Direct(_) => None,
            Self::Server(through) => Some(&mut through.link),
            Self::Chain(chain) => Some(&mut chain.link),
            Self::Parent(link) | Self::Relay(link, _) => Some(link),
        }
    }

    /// Gives back the memory that only a busy one needs.
    pub(super) fn cool(&mut self) {
        match self {
            Self::Server(through) => through.session.cool(),
            Self::Chain(chain) => chain.cool(),
            Self::Direct(_) | Self::Parent(_) | Self::Relay(..) => {}
        }
    }
}

impl Through {
    /// Whether other associations go through the same socket.
    pub(super) fn is_shared(&self) -> bool {
        self.session.id().is_some()
    }
}

impl Direct {
    /// Remembers that `target` was sent to, where that matters.
    pub(super) fn note(&mut self, target: IpAddr, filtering: Filtering) {
        match filtering {
            Filtering::EndpointIndependent => {}
            Filtering::AddressDependent if self.sent_to.last() == Some(&target) => {}
            Filtering::AddressDependent => {
                self.sent_to.retain(|known| *known != target);
                if self.sent_to.len() >= FILTERED_ADDRESSES_MAX {
                    self.sent_to.remove(0);
                }
                self.sent_to.push(target);
            }
        }
    }

    /// Whether `source` may answer (RFC 4787, section 5).
    pub(super) fn accepts(&self, source: IpAddr, filtering: Filtering) -> bool {
        match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => self.sent_to.contains(&source),
        }
    }
}
