//! Sockets that many associations share. Under SIP022 a packet says whose it is, so that one socket does for all who go through the
//! same server: what they send leaves in runs, whoever it is from, and so do the answers; and each of them costs no descriptor.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use umbra_proto::shadowsocks::packet::{PacketHop, SessionId, Uncovered};

use super::dropped::Why;
use super::lanes::LaneId;
use crate::limits::TRUNK_SILENCE_SECS;
use crate::net::datagram::SocketId;

/// The shared sockets of one engine.
#[derive(Debug, Default)]
pub(super) struct Trunks {
    open: HashMap<SocketId, Trunk>,
    /// Those of them through which nothing goes any more. Nobody else is led there.
    failed: HashSet<SocketId>,
    /// Memory for packets of which it is not known whose they are.
    scratch: Vec<u8>,
}

/// A socket to one server, and the lanes that go through it.
#[derive(Debug)]
struct Trunk {
    leads: Leads,
    /// By what the client's end of a lane calls its session.
    clients: HashMap<SessionId, LaneId>,
    /// By what the server calls its. What is missing here is found out anew.
    servers: HashMap<SessionId, Other>,
    silence: Silence,
    opened: Instant,
}

/// How long nothing has come back.
#[derive(Clone, Copy, Debug)]
enum Silence {
    /// Nothing has been sent since the last answer.
    None,
    /// Something has, as was seen at this time, if it was seen.
    Since(Option<Instant>),
}

/// The other end of a server's session.
#[derive(Clone, Copy, Debug)]
enum Other {
    /// This lane, and no other.
    Lane(LaneId),
    /// Several lanes: a server that calls all its sessions the same. Each packet has to say whose it is.
    Several,
}

/// Where a trunk leads, and how.
#[derive(Clone, Debug)]
pub(super) struct Leads {
    /// With the keys of one path.
    pub(super) hop: Arc<PacketHop>,
    pub(super) address: SocketAddr,
    /// Whether the network may cut what it carries.
    pub(super) fragments: bool,
}

/// What a server calls its sessions of one lane: those that it was heard of last.
#[derive(Debug, Default)]
pub(super) struct Heard([Option<SessionId>; 2]);

/// Whose an answer is.
#[derive(Debug)]
pub(super) struct Whose<'p> {
    pub(super) lane: LaneId,
    pub(super) packet: Uncovered<'p>,
    /// The server's session was not known to be this lane's.
    pub(super) is_new: bool,
}

impl Trunks {
    /// The socket that leads there, if there is one.
    pub(super) fn find(&self, leads: &Leads) -> Option<SocketId> {
        let leads_there =
            |(socket, trunk): &(&SocketId, &Trunk)| trunk.leads.are(leads) && !self.has_failed(**socket);
        self.open.iter().find(leads_there).map(|(socket, _)| *socket)
    }

    /// Adds a socket that nobody goes through yet.
    pub(super) fn add(&mut self, socket: SocketId, leads: Leads, opened: Instant) {
        let (clients, servers) = (HashMap::new(), HashMap::new());
        let trunk = Trunk { leads, clients, servers, silence: Silence::None, opened };
        self.open.insert(socket, trunk);
    }

    /// The lane with the session `client` goes through `socket` from here on.
    pub(super) fn enter(&mut self, socket: SocketId, client: SessionId, lane: LaneId) {
        if let Some(trunk) = self.open.get_mut(&socket) {
            trunk.clients.insert(client, lane);
        }
    }

    /// The lane with the session `client` is gone.
    pub(super) fn leave(&mut self, socket: SocketId, client: SessionId, heard: &Heard) {
        let Some(trunk) = self.open.get_mut(&socket) else { return };
        trunk.clients.remove(&client);
        for server in heard.0.iter().flatten() {
            trunk.servers.remove(server);
        }
    }

    /// Nothing goes through `socket`. It keeps the address that it was opened with, which may be no address of ours any more, so that it
    /// would stay so for as long as anybody goes through it.
    pub(super) fn fail(&mut self, socket: SocketId) {
        if self.open.contains_key(&socket) {
            self.failed.insert(socket);
        }
    }

    /// Something has been sent through `socket`.
    pub(super) fn sent(&mut self, socket: SocketId) {
        if let Some(Trunk { silence: silence @ Silence::None, .. }) = self.open.get_mut(&socket) {
            *silence = Silence::Since(None);
        }
    }

    /// A good answer has come to `socket`.
    pub(super) fn heard(&mut self, socket: SocketId) {
        if let Some(trunk) = self.open.get_mut(&socket) {
            trunk.silence = Silence::None;
        }
    }

    /// Gives up the sockets that have been answered nothing for long. A filter on the way, or a translator that has begun anew, drops
    /// without a word what comes from one port; of those who hold one each it would be one that is lost, and not everybody.
    pub(super) fn sweep(&mut self, now: Instant) {
        let Self { open, failed, .. } = self;
        for (socket, trunk) in open {
            match trunk.silence {
                Silence::None => {}
                Silence::Since(None) => trunk.silence = Silence::Since(Some(now)),
                Silence::Since(Some(since)) if now.saturating_duration_since(since) < TRUNK_SILENCE_SECS => {}
                Silence::Since(Some(_)) => drop(failed.insert(*socket)),
            }
        }
    }

    /// Whether nothing goes through `socket`.
    fn has_failed(&self, socket: SocketId) -> bool {
        self.failed.contains(&socket)
    }

    /// When `socket` was opened, if nothing goes through it any more.
    pub(super) fn failed_since_opened(&self, socket: SocketId) -> Option<Instant> {
        // Nearly always there is none, and it is asked for with each datagram.
        if self.failed.is_empty() || !self.has_failed(socket) {
            return None;
        }
        self.open.get(&socket).map(|trunk| trunk.opened)
    }

    /// Whose the packet `bytes` is that has come to `socket`. Of a session that is not known yet, only an authentic one says so.
    pub(super) fn whose<'p>(&mut self, socket: SocketId, bytes: &'p mut [u8]) -> Result<Whose<'p>, Why> {
        let Self { open, scratch, .. } = self;
        let trunk = open.get(&socket).ok_or(Why::Stranger)?;
        let hop = &trunk.leads.hop;
        let packet = hop.uncover(bytes)?;
        let known = trunk.servers.get(&packet.server());
        if let Some(Other::Lane(lane)) = known {
            return Ok(Whose { lane: *lane, packet, is_new: false });
        }
        let client = hop.client_of(&packet, scratch)?;
        let lane = *trunk.clients.get(&client).ok_or(Why::Stranger)?;
        Ok(Whose { lane, packet, is_new: known.is_none() })
    }

    /// The session `server` has proved to be that of `lane`, and `past` is looked for no more.
    pub(super) fn learn(
        &mut self,
        socket: SocketId,
        server: SessionId,
        lane: LaneId,
        past: Option<SessionId>,
    ) {
        let Some(trunk) = self.open.get_mut(&socket) else { return };
        if let Some(past) = past {
            trunk.servers.remove(&past);
        }
        trunk.servers.insert(server, Other::Lane(lane));
    }

    /// The session `server` was another lane's than it was thought to be.
    pub(super) fn doubt(&mut self, socket: SocketId, server: SessionId) {
        if let Some(other) = self.open.get_mut(&socket).and_then(|trunk| trunk.servers.get_mut(&server)) {
            *other = Other::Several;
        }
    }

    /// Whether a lane goes through `socket`.
    pub(super) fn is_in_use(&self, socket: SocketId) -> bool {
        self.open.get(&socket).is_some_and(|trunk| !trunk.clients.is_empty())
    }

    /// Forgets a socket that is closed.
    pub(super) fn remove(&mut self, socket: SocketId) {
        self.open.remove(&socket);
        self.failed.remove(&socket);
    }
}

impl Leads {
    fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hop, &other.hop)
            && (self.address, self.fragments) == (other.address, other.fragments)
    }
}

impl Heard {
    /// Takes note of one more; gives the one that is forgotten for it.
    pub(super) fn add(&mut self, server: SessionId) -> Option<SessionId> {
        let [newest, older] = &mut self.0;
        std::mem::replace(older, newest.replace(server))
    }
}
