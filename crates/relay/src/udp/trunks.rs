//! Sockets that many associations share. Under SIP022 a packet says whose it is, so that one socket does for all who go through the
//! same server: what they send leaves in runs, whoever it is from, and so do the answers; and each of them costs no descriptor.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use umbra_proto::shadowsocks::packet::{PacketHop, SessionId, Uncovered};

use super::dropped::Why;
use super::lanes::LaneId;
use crate::limits::{SILENT_SERVERS_MAX, TRUNK_SILENCE_SECS, TRUNK_SILENCE_SECS_MAX};
use crate::net::datagram::SocketId;

/// The shared sockets of one engine.
#[derive(Debug, Default)]
pub(super) struct Trunks {
    open: HashMap<SocketId, Trunk>,
    /// Those of them through which nothing goes any more. Nobody else is led there.
    failed: HashMap<SocketId, Fault>,
    /// Where nothing has come back through the last socket, which may be closed, and how long that was waited for.
    silent: Vec<(Leads, Duration)>,
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
    /// From when until when it has been sent through without an answer, as far as that was seen.
    unanswered: Option<(Instant, Instant)>,
    /// Something was sent since that was looked at.
    was_sent: bool,
    /// How long it is sent through without an answer before it is given up.
    patience: Duration,
    opened: Instant,
}

/// Why nothing goes through a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The system sends nothing.
    Dead,
    /// Nothing comes back.
    Silent,
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
        // Where another port changes nothing, it is the far side that has nothing to say.
        let before = self.silent.iter().find(|(silent, _)| silent.are(&leads)).map(|(_, patience)| *patience);
        let patience =
            before.map_or(TRUNK_SILENCE_SECS, |patience| (2 * patience).min(TRUNK_SILENCE_SECS_MAX));
        let trunk = Trunk { leads, clients, servers, unanswered: None, was_sent: false, patience, opened };
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
            self.failed.insert(socket, Fault::Dead);
        }
    }

    /// Something has been sent through `socket`.
    pub(super) fn sent(&mut self, socket: SocketId) {
        if let Some(trunk) = self.open.get_mut(&socket) {
            trunk.was_sent = true;
        }
    }

    /// A good answer has come to `socket`.
    pub(super) fn heard(&mut self, socket: SocketId) {
        if let Some(trunk) = self.open.get_mut(&socket) {
            (trunk.unanswered, trunk.was_sent, trunk.patience) = (None, false, TRUNK_SILENCE_SECS);
            if !self.silent.is_empty() {
                self.silent.retain(|(silent, _)| !silent.are(&trunk.leads));
            }
            if self.failed.get(&socket) == Some(&Fault::Silent) {
                self.failed.remove(&socket);
            }
        }
    }

    /// Gives up the sockets that have been answered nothing for long. A filter on the way, or a translator that has begun anew, drops
    /// without a word what comes from one port; of those who hold one each it would be one that is lost, and not everybody.
    pub(super) fn sweep(&mut self, now: Instant) {
        let Self { open, failed, silent, .. } = self;
        for (socket, trunk) in open {
            if !std::mem::take(&mut trunk.was_sent) {
                continue;
            }
            // The last packet of a conversation needs no answer: it begins anew after a pause.
            let going_on = trunk.unanswered.filter(|(_, last)| now.duration_since(*last) < trunk.patience);
            let since = going_on.map_or(now, |(since, _)| since);
            trunk.unanswered = Some((since, now));
            if now.duration_since(since) >= trunk.patience && !failed.contains_key(socket) {
                failed.insert(*socket, Fault::Silent);
                silent.retain(|(silent, _)| !silent.are(&trunk.leads));
                if silent.len() >= SILENT_SERVERS_MAX {
                    silent.remove(0);
                }
                silent.push((trunk.leads.clone(), trunk.patience));
            }
        }
    }

    /// Whether nothing goes through `socket`.
    fn has_failed(&self, socket: SocketId) -> bool {
        self.failed.contains_key(&socket)
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

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_proto::shadowsocks::Method;
    use umbra_proto::shadowsocks::identity::Credentials;

    fn socket(index: u32) -> SocketId {
        SocketId { index, generation: 1 }
    }

    fn leads() -> Leads {
        let password = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let credentials = Credentials::from_password(Method::Blake3Aes256Gcm, password).unwrap();
        let hop = Arc::new(PacketHop::new(&credentials, false));
        Leads { hop, address: "192.0.2.1:8388".parse().unwrap(), fragments: false }
    }

    /// Sends once a second for so many seconds.
    fn send(trunks: &mut Trunks, socket: SocketId, now: &mut Instant, secs: u64) {
        for _ in 0..secs {
            trunks.sent(socket);
            trunks.sweep(*now);
            *now += Duration::from_secs(1);
        }
    }

    #[test]
    fn a_socket_is_given_up_that_is_sent_through_for_long_and_never_for_a_pause() {
        let (mut trunks, leads, mut now) = (Trunks::default(), leads(), Instant::now());
        trunks.add(socket(1), leads.clone(), now);
        let patience = TRUNK_SILENCE_SECS.as_secs();
        for _ in 0..5 {
            // The last words of a conversation.
            send(&mut trunks, socket(1), &mut now, 1);
            for _ in 0..100 {
                trunks.sweep(now);
                now += Duration::from_secs(1);
            }
            assert_eq!(trunks.find(&leads), Some(socket(1)));
        }
        send(&mut trunks, socket(1), &mut now, patience);
        assert_eq!(trunks.find(&leads), Some(socket(1)));
        send(&mut trunks, socket(1), &mut now, 1);
        assert_eq!(trunks.find(&leads), None);
        trunks.heard(socket(1));
        assert_eq!(trunks.find(&leads), Some(socket(1)), "it has only been slow");
    }

    #[test]
    fn where_another_port_is_no_better_the_next_is_waited_for_longer() {
        let (mut trunks, leads, mut now) = (Trunks::default(), leads(), Instant::now());
        for (number, secs) in (1..).zip([15, 30, 60, 120, 240, 240]) {
            trunks.add(socket(number), leads.clone(), now);
            send(&mut trunks, socket(number), &mut now, secs);
            assert_eq!(trunks.find(&leads), Some(socket(number)), "{secs}");
            send(&mut trunks, socket(number), &mut now, 1);
            assert_eq!(trunks.find(&leads), None, "{secs}");
            trunks.remove(socket(number));
        }
        trunks.add(socket(9), leads.clone(), now);
        trunks.heard(socket(9));
        send(&mut trunks, socket(9), &mut now, 16);
        assert_eq!(trunks.find(&leads), None, "an answer makes it as it was at first");
    }

    #[test]
    fn a_socket_through_which_the_system_sends_nothing_stays_given_up() {
        let (mut trunks, leads, now) = (Trunks::default(), leads(), Instant::now());
        trunks.add(socket(1), leads.clone(), now);
        trunks.fail(socket(1));
        trunks.heard(socket(1));
        assert_eq!(trunks.find(&leads), None);
    }
}
