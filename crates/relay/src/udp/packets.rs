//! Shadowsocks packets from clients: whose each is, and what of that is told to other workers.

use std::sync::Arc;

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::packet::{AHEAD_MAX, Ahead, Datagram, Look, PacketHop, ServerSession};

use super::association::{Association, AssociationId, Client, Face};
use super::core::{Core, Key, Moment, Post, follow};
use super::directory::Home;
use super::dropped::Why;
use super::front::Front;
use super::lanes::{LaneId, Lanes};
use super::letter::{Onward, Strayed};
use super::link::Link;
use super::queue::NoRoom;
use super::random::session_id;
use super::uplink::{Place, Understood, place};
use super::way::Way;
use crate::config::Path;
use crate::net::Net;
use crate::net::datagram::{Arrivals, Datagrams};

/// A packet of nobody who is known here.
enum First {
    /// What can be opened here, after the first look.
    Own(Look<'static>),
    /// What another server understands.
    Relayed(Address, Onward),
}

impl<N: Net, D: Datagrams> Core<N, D> {
    /// To be kept while the next [`AHEAD_MAX`] of `arrivals` are understood at the door `post`.
    pub(super) fn ahead_at_door(&self, post: usize, arrivals: &Arrivals<'_>) -> Option<Ahead> {
        match &self.posts[post].door.front {
            Some(Front::Shadowsocks { packets, .. }) => packets.ahead(arrivals.upcoming().take(AHEAD_MAX)),
            Some(Front::Proxy(_) | Front::Tunnel(_)) | None => None,
        }
    }

    /// The server whose packets come on the lane `id`, if they are that and nothing around it.
    pub(super) fn hop_on_lane(&mut self, id: LaneId) -> Option<&Arc<PacketHop>> {
        let association = self.posts[id.association.post].table.get_mut(id.association.handle)?;
        match &association.lanes.get_mut(id.number)?.way {
            Way::Server(through) => Some(through.session.hop()),
            Way::Direct(_) | Way::Parent(_) | Way::Chain(_) | Way::Relay(..) => None,
        }
    }

    /// Learns what a packet at the door `post` says. On the way of a client that is known, nothing is touched that workers share.
    pub(super) fn understand_packet(
        &mut self,
        post: usize,
        client: Client,
        bytes: &mut [u8],
        now: Moment,
    ) -> Result<Understood, Why> {
        let Post { door, table, .. } = &mut self.posts[post];
        let Some(Front::Shadowsocks { packets, .. }) = &door.front else { return Err(Why::Stranger) };
        let look = packets.look(bytes)?;
        let key = match look {
            Look::Source => Key::Source(client.address),
            Look::Session { id, holder } | Look::Forward { session: id, holder, .. } => {
                Key::Session(id, holder)
            }
        };
        let found = table.find(&key).and_then(|handle| Some((handle, table.get_mut(handle)?)));
        let first = match (look, found) {
            (Look::Forward { start, packet, .. }, Some((handle, association))) => {
                if is_newer(association, packet) {
                    follow(table, handle, client, now);
                }
                return Ok(Understood { handle, block: None, payload: place(&bytes[start..]) });
            }
            (Look::Forward { to, start, packet, .. }, None) => {
                First::Relayed(to.clone(), Onward { start, packet })
            }
            (Look::Session { .. } | Look::Source, found) => {
                let session = found.and_then(|(handle, found)| Some((handle, found.session()?)));
                if let Some((handle, session)) = session {
                    match session.open(packets, look, bytes, now.unix) {
                        Ok(Datagram { address, payload }) => {
                            let (block, payload) = (place(address.as_bytes()), place(payload));
                            follow(table, handle, client, now);
                            return Ok(Understood { handle, block: Some(block), payload });
                        }
                        // Somebody else may have come to the same address.
                        Err(_) if packets.is_tried() => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                match key {
                    Key::Session(id, holder) => First::Own(Look::Session { id, holder }),
                    Key::Source(_) | Key::Probe(_) => First::Own(Look::Source),
                }
            }
        };
        self.meet(post, key, first, client, bytes, now)
    }

    /// A packet of nobody who is known here.
    fn meet(
        &mut self,
        post: usize,
        key: Key,
        first: First,
        client: Client,
        bytes: &mut [u8],
        now: Moment,
    ) -> Result<Understood, Why> {
        let door = Arc::clone(&self.posts[post].door);
        let Some(Front::Shadowsocks { packets, directory, displaced }) = &door.front else {
            return Err(Why::Stranger);
        };
        let directory = directory.as_ref().filter(|_| matches!(key, Key::Session(..)));
        if let Some(home) = directory.and_then(|directory| directory.find(&key)) {
            return forward(home, key, client, &first, bytes);
        }
        // Another worker may meet the same session at the same moment: one of the two has it, and gets what came to the other.
        let enter = |core: &Self| match directory {
            Some(directory) => directory.enter(key, core.home(post)),
            None => Ok(()),
        };
        let after = match key {
            Key::Session(..) => displaced.newest(&key, now.instant),
            Key::Source(_) | Key::Probe(_) => None,
        };
        match first {
            First::Relayed(_, Onward { packet, .. }) if after.is_some_and(|after| packet <= after) => {
                Err(Why::Malformed)
            }
            First::Relayed(to, onward @ Onward { start, packet }) => {
                if let Err(home) = enter(self) {
                    return forward(home, key, client, &First::Relayed(to, onward), bytes);
                }
                let way = Way::Relay(Link::default(), Box::new(to));
                let lanes = Lanes::one(self.outside.numbers.next(), Arc::new(Path::direct()), way);
                let face = Face::Relayed { newest: packet };
                let handle = self.insert(post, key, Association::new(key, client, face, lanes), now);
                Ok(Understood { handle, block: None, payload: place(&bytes[start..]) })
            }
            First::Own(look) => {
                let own = session_id(&door.net)?;
                let copy: Option<Box<[u8]>> = directory.map(|_| (&*bytes).into());
                let source = (post, client.address.ip());
                let recalled = self.trials.recall(source).filter(|_| packets.is_tried());
                let recalled =
                    recalled.and_then(|holder| ServerSession::begin_as(packets, holder, bytes).ok());
                let (session, block, payload) = match recalled.map(apart) {
                    Some(begun) => begun,
                    None => {
                        if packets.is_tried() {
                            let keys = packets.keyring().len();
                            self.trials.take(keys, now.instant).map_err(|NoRoom| Why::NoRoom)?;
                        }
                        apart(ServerSession::begin_after(packets, look, bytes, now.unix, own, after)?)
                    }
                };
                if packets.is_tried() {
                    self.trials.learn(source, session.holder());
                }
                if let Err(home) = enter(self) {
                    return forward(home, key, client, &First::Own(look), &copy.unwrap_or_default());
                }
                let handle = self.begin(post, key, client, Face::Shadowsocks(session), now);
                Ok(Understood { handle, block: Some(block), payload })
            }
        }
    }

    /// A packet that came to another worker.
    pub(super) fn strayed(&mut self, strayed: Strayed) -> Result<(), Why> {
        let now = self.now();
        let Strayed { post, key, client, mut bytes, forward } = strayed;
        let Post { door, table, .. } = &mut self.posts[post];
        let (Some(Front::Shadowsocks { packets, .. }), Key::Session(id, holder)) = (&door.front, key) else {
            return Err(Why::Malformed);
        };
        let handle = table.find(&key).ok_or(Why::Malformed)?;
        let association = table.get_mut(handle).ok_or(Why::Malformed)?;
        let (block, payload, is_followed) = match (&mut association.face, forward) {
            (Face::Shadowsocks(session), None) => {
                let look = Look::Session { id, holder };
                let Datagram { address, payload } = session.open(packets, look, &mut bytes, now.unix)?;
                (Some(address.as_bytes()), payload, true)
            }
            (Face::Relayed { .. }, Some(Onward { start, packet })) => {
                (None, &bytes[start..], is_newer(association, packet))
            }
            (
                Face::Socks(_) | Face::Tunnel | Face::Shadowsocks(_) | Face::Relayed { .. } | Face::Probe(_),
                _,
            ) => {
                return Err(Why::Malformed);
            }
        };
        if is_followed {
            follow(table, handle, client, now);
        }
        self.send_up(AssociationId { post, handle }, block, payload, now)
    }
}

/// A new session, and where its first packet's target and payload lie.
fn apart(
    (session, Datagram { address, payload }): (ServerSession, Datagram<'_>),
) -> (ServerSession, Place, Place) {
    (session, place(address.as_bytes()), place(payload))
}

/// Whether a packet for another server is newer than all before it in its session. Only then is it taken as a sign of where the client
/// is: anybody can send what was there before. It goes on all the same, since only the other server can judge it, and whoever is faster
/// than the client's own packet would otherwise keep that from arriving.
fn is_newer(association: &mut Association, packet: u64) -> bool {
    match &mut association.face {
        Face::Relayed { newest } if *newest < packet => {
            *newest = packet;
            true
        }
        Face::Relayed { .. } | Face::Socks(_) | Face::Tunnel | Face::Shadowsocks(_) | Face::Probe(_) => false,
    }
}

/// Hands a packet on to the worker that has its association.
fn forward(
    Home { letters, post }: Home,
    key: Key,
    client: Client,
    first: &First,
    bytes: &[u8],
) -> Result<Understood, Why> {
    let forward = match first {
        First::Relayed(_, onward) => Some(*onward),
        First::Own(_) => None,
    };
    let strayed = Strayed { post, key, client, bytes: bytes.into(), forward };
    letters.forward(strayed).map_err(|NoRoom| Why::NoRoom)?;
    Err(Why::Elsewhere)
}
