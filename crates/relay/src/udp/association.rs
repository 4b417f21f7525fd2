//! One client's datagrams: how the client is spoken with, and the ways that its datagrams go.

use std::net::{IpAddr, SocketAddr};

use tokio::time::Instant;
use umbra_proto::shadowsocks::packet::ServerSession;

use super::core::Key;
use super::lanes::Lanes;
use super::permits::Claim;
use super::probe::Answer;
use super::table::Handle;

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
    /// When its control connection has ended, if it has another's since, who may be meant or not: nothing is given to the client before
    /// that has shown that it is there.
    pub(super) orphaned: Option<Instant>,
    /// The ways that its datagrams have gone.
    pub(super) lanes: Lanes,
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
    Socks(Claim),
    /// In nothing: its datagrams are the target's as they are.
    Tunnel,
    /// In Shadowsocks.
    Shadowsocks(ServerSession),
    /// In what another server understands. What is known is the newest packet's id.
    Relayed { newest: u64 },
    /// Not at all: what we ask ourselves has one answer, for whoever waits.
    Probe(Option<Answer>),
}

impl Association {
    pub(super) fn new(key: Key, client: Client, face: Face, lanes: Lanes) -> Self {
        Self { key, client, face, orphaned: None, lanes }
    }

    /// Whether somebody else could have a socket if it ended.
    pub(super) fn holds_socket(&self) -> bool {
        self.lanes.iter().any(|lane| lane.way.holds_socket())
    }

    /// The Shadowsocks session with the client, if it is spoken with so.
    pub(super) fn session(&mut self) -> Option<&mut ServerSession> {
        match &mut self.face {
            Face::Shadowsocks(session) => Some(session),
            Face::Socks(_) | Face::Tunnel | Face::Relayed { .. } | Face::Probe(_) => None,
        }
    }

    /// Gives back the memory that only a busy association needs.
    pub(super) fn cool(&mut self) {
        for lane in self.lanes.iter_mut() {
            lane.way.cool();
        }
        if let Face::Shadowsocks(session) = &mut self.face {
            session.cool();
        }
    }
}
