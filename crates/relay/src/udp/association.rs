//! One client's datagrams: how the client is spoken with, and the way that its datagrams go.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::packet::{ClientSession, ServerSession};

use super::core::Key;
use super::link::Link;
use super::names::Names;
use super::permits::Control;
use super::table::Handle;
use crate::config::{Filtering, Path};
use crate::limits::FILTERED_ADDRESSES_MAX;
use crate::net::datagram::SocketId;

/// An association, whatever becomes of it: a name that no other ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AssociationId {
    /// The door, as the engine counts.
    pub(super) post: usize,
    /// Its place in the door's table.
    pub(super) handle: Handle,
}

/// One client's datagrams.
#[derive(Debug)]
pub(super) struct Association {
    /// By what it is known.
    pub(super) key: Key,
    pub(super) client: Client,
    pub(super) face: Face,
    pub(super) way: Way,
}

/// Where a client was heard from last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// Its address.
    pub(super) address: SocketAddr,
    /// Our address that it sends to, where the door has several: answers leave from there.
    pub(super) local: Option<IpAddr>,
}

/// How a client is spoken with.
#[derive(Debug)]
pub(super) enum Face {
    /// In SOCKS5, for as long as its control connection lives.
    Socks(Arc<Control>),
    /// In nothing: its datagrams are the target's as they are.
    Tunnel,
    /// In Shadowsocks.
    Shadowsocks(ServerSession),
    /// In what another server understands.
    Relayed,
}

/// Where the client's datagrams go.
#[derive(Debug)]
pub(super) enum Way {
    /// To their targets.
    Direct(Box<Direct>),
    /// To a Shadowsocks server.
    Server(Box<Through>),
    /// To a SOCKS5 proxy at the end of this path.
    Parent(Link, Arc<Path>),
    /// As they are to another server.
    Relay(Link, Address),
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
}

impl Association {
    /// The sockets that are its own.
    pub(super) fn sockets(&self) -> impl Iterator<Item = SocketId> {
        let (one, other) = match &self.way {
            Way::Direct(direct) => (direct.v4, direct.v6),
            Way::Server(through) => (through.link.socket(), None),
            Way::Parent(link, _) | Way::Relay(link, _) => (link.socket(), None),
        };
        one.into_iter().chain(other)
    }

    /// The way to its one hop, if that is what it has.
    pub(super) fn link(&mut self) -> Option<&mut Link> {
        match &mut self.way {
            Way::Direct(_) => None,
            Way::Server(through) => Some(&mut through.link),
            Way::Parent(link, _) | Way::Relay(link, _) => Some(link),
        }
    }

    /// The Shadowsocks session with the client, if it is spoken with so.
    pub(super) fn session(&mut self) -> Option<&mut ServerSession> {
        match &mut self.face {
            Face::Shadowsocks(session) => Some(session),
            Face::Socks(_) | Face::Tunnel | Face::Relayed => None,
        }
    }

    /// Gives back the memory that only a busy association needs.
    pub(super) fn cool(&mut self) {
        if let Way::Server(through) = &mut self.way {
            through.session.cool();
        }
        if let Face::Shadowsocks(session) = &mut self.face {
            session.cool();
        }
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
