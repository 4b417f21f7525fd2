//! What an engine knows, and what it does with one datagram: uplink in two steps, [`understand`](Core::understand) and
//! [`send_up`](Core::send_up), downlink in one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;
use umbra_proto::address::AddressBlock;
use umbra_proto::shadowsocks::UnixTime;
use umbra_proto::shadowsocks::keyring::Holder;
use umbra_proto::shadowsocks::packet::{Datagram, Look, PacketDoor, ServerSession, SessionId};
use umbra_proto::socks5::udp as socks5;

use super::answer;
use super::association::{Association, AssociationId, Client, Face};
use super::choice::{choose, path_answered};
use super::directory::{Directory, Home};
use super::displaced::Displaced;
use super::dropped::Why;
use super::front::Front;
use super::lanes::{Lane, LaneId, Lanes};
use super::letter::Strayed;
use super::link::Link;
use super::outbox::Course;
use super::outside::{Hop, Outside, WayOut};
use super::permits::Permits;
use super::queue::NoRoom;
use super::random::{Random, session_id};
use super::table::{Bounds, Handle, Table};
use super::trials::Trials;
use super::uplink::{Understood, place};
use super::way::{Through, Way};
use crate::config::{Path, Udp};
use crate::door::Door;
use crate::limits::{ASSOCIATIONS_MAX, COOL_DELAY};
use crate::net::Net;
use crate::net::datagram::{Datagrams, Inbox, Received, SocketId};

/// All but the batch that is being looked at.
pub(super) struct Core<N: Net, D: Datagrams> {
    pub(super) posts: Vec<Post<N>>,
    pub(super) outside: Outside<D>,
    /// Associations of all doors.
    pub(super) live: usize,
    pub(super) trials: Trials,
    /// Associations of questions of our own.
    pub(super) probes: Vec<AssociationId>,
    /// How many of those there have been.
    pub(super) probed: u64,
}

/// A door's datagrams on one worker.
pub(super) struct Post<N: Net> {
    pub(super) door: Arc<Door<N>>,
    pub(super) udp: Udp,
    pub(super) timeout: Duration,
    pub(super) socket: SocketId,
    pub(super) table: Table<Key, Association>,
}

/// By what an association is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Where its datagrams come from.
    Source(SocketAddr),
    /// What its packets say (SIP022), wherever they come from. Each user has ids of their own.
    Session(SessionId, Holder),
    /// By nothing: nobody sends in it but ourselves.
    Probe(u64),
}

/// The time of a batch.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) unix: UnixTime,
}

impl<N: Net> Post<N> {
    /// The datagrams of `door` at `socket`; none, if it takes none.
    pub(super) fn new(door: Arc<Door<N>>, socket: SocketId) -> Option<Self> {
        let udp = door.inbound.mode.datagrams()?.clone();
        let timeout = door.inbound.udp_timeout()?;
        let total = udp.associations_max.map_or(ASSOCIATIONS_MAX, |max| max.get().min(ASSOCIATIONS_MAX));
        // One source cannot take the places of all others, unless it is told that it may.
        let per_source =
            udp.associations_per_source_max.map_or(total.div_ceil(2), |max| max.get().min(total));
        Some(Self { door, udp, timeout, socket, table: Table::new(Bounds { total, per_source }) })
    }
}

impl<N: Net> Post<N> {
    fn directory(&self) -> Option<&Directory> {
        match &self.door.front {
            Some(Front::Shadowsocks { directory, .. }) => directory.as_ref(),
            Some(Front::Proxy(_) | Front::Tunnel(_)) | None => None,
        }
    }
}

impl<N: Net, D: Datagrams> Core<N, D> {
    pub(super) fn now(&self) -> Moment {
        let unix = self.posts.first().map_or(UnixTime(0), |post| post.door.net.unix_time());
        Moment { instant: Instant::now(), unix }
    }

    /// Whether there is anything that a sweep could end or tell of.
    pub(super) fn wants_sweep(&self) -> bool {
        self.live > 0 || self.outside.dropped.any()
    }

    /// Learns what a client's datagram at the door `post` says. Nothing of it is remembered unless the client may send here.
    pub(super) fn understand(
        &mut self,
        post: usize,
        client: Client,
        bytes: &mut [u8],
        now: Moment,
    ) -> Result<Understood, Why> {
        let door = Arc::clone(&self.posts[post].door);
        match door.front.as_ref().ok_or(Why::Stranger)? {
            Front::Proxy(permits) => self.understand_socks(post, permits, client, bytes, now),
            Front::Tunnel(_) => {
                let handle = self.of_source(post, client, now, || Ok(Face::Tunnel))?;
                Ok(Understood { handle, block: None, payload: place(bytes) })
            }
            Front::Shadowsocks { packets, directory, displaced } => {
                let memory = (directory.as_ref(), displaced);
                self.understand_packet(post, packets, memory, client, bytes, now)
            }
        }
    }

    fn understand_socks(
        &mut self,
        post: usize,
        permits: &Permits,
        client: Client,
        bytes: &[u8],
        now: Moment,
    ) -> Result<Understood, Why> {
        let (block, payload) = socks5::open(bytes)?;
        let (block, payload) = (place(block.as_bytes()), place(payload));
        let door = Arc::clone(&self.posts[post].door);
        let face = || permits.claim(client.address, door.sources()).map(Face::Socks).ok_or(Why::Stranger);
        let handle = self.of_source(post, client, now, face)?;
        if let Some(Face::Socks(control)) = self.posts[post].table.get_mut(handle).map(|found| &found.face) {
            control.count();
        }
        Ok(Understood { handle, block: Some(block), payload })
    }

    /// The association of whoever sends from this address, or a new one with the face that they are to be shown.
    fn of_source(
        &mut self,
        post: usize,
        client: Client,
        now: Moment,
        face: impl FnOnce() -> Result<Face, Why>,
    ) -> Result<Handle, Why> {
        let table = &mut self.posts[post].table;
        let key = Key::Source(client.address);
        if let Some(handle) = table.find(&key) {
            match table.get_mut(handle) {
                Some(Association { face: Face::Socks(control), .. }) if !control.is_live() => {
                    self.end(AssociationId { post, handle });
                }
                Some(association) => {
                    association.client = client;
                    table.touch(handle, now.instant);
                    return Ok(handle);
                }
                None => {}
            }
        }
        Ok(self.begin(post, key, client, face()?, now))
    }

    fn understand_packet(
        &mut self,
        post: usize,
        packets: &PacketDoor,
        (directory, displaced): (Option<&Directory>, &Displaced),
        client: Client,
        bytes: &mut [u8],
        now: Moment,
    ) -> Result<Understood, Why> {
        let look = packets.look(bytes)?;
        let key = match look {
            Look::Source => Key::Source(client.address),
            Look::Session { id, holder } | Look::Forward { session: id, holder, .. } => {
                Key::Session(id, holder)
            }
        };
        let found = self.posts[post].table.find(&key);
        if let (None, Some(home)) = (found, directory.and_then(|directory| directory.find(&key))) {
            return self.forward(home, key, client, look, bytes);
        }
        if let Look::Forward { to, start, .. } = look {
            let handle = found.unwrap_or_else(|| {
                let way = Way::Relay(Link::default(), Box::new(to.clone()));
                let lanes = Lanes::one(self.outside.numbers.next(), Arc::new(Path::direct()), way);
                self.insert(post, key, Association { key, client, face: Face::Relayed, lanes }, now)
            });
            self.follow(post, handle, client, now);
            return Ok(Understood { handle, block: None, payload: place(&bytes[start..]) });
        }
        let table = &mut self.posts[post].table;
        let session = found.and_then(|handle| Some((handle, table.get_mut(handle)?.session()?)));
        if let Some((handle, session)) = session {
            match session.open(packets, look, bytes, now.unix) {
                Ok(Datagram { address, payload }) => {
                    let (block, payload) = (place(address.as_bytes()), place(payload));
                    self.follow(post, handle, client, now);
                    return Ok(Understood { handle, block: Some(block), payload });
                }
                // Somebody else may have come to the same address.
                Err(_) if packets.is_tried() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if packets.is_tried() {
            self.trials.take(packets.keyring().len(), now.instant).map_err(|NoRoom| Why::NoRoom)?;
        }
        let own = session_id(&self.posts[post].door.net)?;
        let after = match key {
            Key::Session(..) => displaced.newest(&key, now.instant),
            Key::Source(_) | Key::Probe(_) => None,
        };
        let (session, Datagram { address, payload }) =
            ServerSession::begin_after(packets, look, bytes, now.unix, own, after)?;
        let (block, payload) = (place(address.as_bytes()), place(payload));
        let handle = self.begin(post, key, client, Face::Shadowsocks(session), now);
        Ok(Understood { handle, block: Some(block), payload })
    }

    /// Hands a packet on to the worker that has its association.
    fn forward(
        &self,
        Home { letters, post }: Home,
        key: Key,
        client: Client,
        look: Look<'_>,
        bytes: &[u8],
    ) -> Result<Understood, Why> {
        let forward = match look {
            Look::Forward { start, .. } => Some(start),
            Look::Session { .. } | Look::Source => None,
        };
        let strayed = Strayed { post, key, client, bytes: bytes.into(), forward };
        letters.forward(strayed).map_err(|NoRoom| Why::NoRoom)?;
        Err(Why::Elsewhere)
    }

    /// A packet that came to another worker.
    pub(super) fn strayed(&mut self, strayed: Strayed) -> Result<(), Why> {
        let now = self.now();
        let Strayed { post, key, client, mut bytes, forward } = strayed;
        let door = Arc::clone(&self.posts[post].door);
        let (Some(Front::Shadowsocks { packets, .. }), Key::Session(id, holder)) = (&door.front, key) else {
            return Err(Why::Malformed);
        };
        let table = &mut self.posts[post].table;
        let handle = table.find(&key).ok_or(Why::Malformed)?;
        let session = table.get_mut(handle).and_then(Association::session);
        let (block, payload) = match (session, forward) {
            (Some(session), None) => {
                let look = Look::Session { id, holder };
                let Datagram { address, payload } = session.open(packets, look, &mut bytes, now.unix)?;
                (Some(address.as_bytes()), payload)
            }
            (None, Some(start)) => (None, &bytes[start..]),
            (Some(_), Some(_)) | (None, None) => return Err(Why::Malformed),
        };
        self.follow(post, handle, client, now);
        self.send_up(AssociationId { post, handle }, block, payload, now)
    }

    /// An authentic datagram has come from here: answers go here from now on (SIP022, 3.2.4).
    fn follow(&mut self, post: usize, handle: Handle, client: Client, now: Moment) {
        let table = &mut self.posts[post].table;
        table.touch(handle, now.instant);
        if let Some(association) = table.get_mut(handle) {
            association.client = client;
        }
    }

    /// A new association for a client that may have one. Its first datagram finds it a way.
    fn begin(&mut self, post: usize, key: Key, client: Client, face: Face, now: Moment) -> Handle {
        let control = match &face {
            Face::Socks(control) => Some(Arc::clone(control)),
            Face::Tunnel | Face::Shadowsocks(_) | Face::Relayed | Face::Probe(_) => None,
        };
        let lanes = Lanes::default();
        let handle = self.insert(post, key, Association { key, client, face, lanes }, now);
        if let Some(control) = control {
            control.hold(&self.outside.letters, AssociationId { post, handle });
        }
        handle
    }

    pub(super) fn insert(&mut self, post: usize, key: Key, association: Association, now: Moment) -> Handle {
        debug!(source = %association.client.address, "association begins");
        let source = association.client.address.ip();
        let table = &mut self.posts[post].table;
        if self.outside.budget.is_spent() {
            // Somebody who has been idle for long makes room.
            if let Some((handle, oldest)) = table.remove_oldest() {
                self.displace(AssociationId { post, handle }, &oldest, now);
            }
        }
        let table = &mut self.posts[post].table;
        let (handle, displaced) = table.insert(key, source, now.instant, association);
        self.live += 1;
        if let Some((displaced, association)) = displaced {
            self.displace(AssociationId { post, handle: displaced }, &association, now);
        }
        if let (Key::Session(..), Some(directory)) = (key, self.posts[post].directory()) {
            directory.enter(key, Home { letters: self.outside.letters.clone(), post });
        }
        handle
    }

    /// Ends an association that has to make room before it is due.
    fn displace(&mut self, id: AssociationId, association: &Association, now: Moment) {
        let newest = match &association.face {
            Face::Shadowsocks(session) => session.newest(),
            Face::Socks(_) | Face::Tunnel | Face::Relayed | Face::Probe(_) => None,
        };
        if let (Some(newest), Some(Front::Shadowsocks { displaced, .. })) =
            (newest, &self.posts[id.post].door.front)
        {
            displaced.remember(association.key, newest, now.instant);
        }
        self.close(id, association);
    }

    /// Sends a client's `payload` on its way, to the target `block` unless the door or another server knows the target.
    pub(super) fn send_up(
        &mut self,
        id: AssociationId,
        block: Option<&[u8]>,
        payload: &[u8],
        now: Moment,
    ) -> Result<(), Why> {
        let Self { posts, outside, .. } = self;
        let Post { door, udp, table, .. } = &mut posts[id.post];
        let Some(association) = table.get_mut(id.handle) else { return Ok(()) };
        let block = match (block, &door.front) {
            (Some(block), _) => block,
            (None, Some(Front::Tunnel(block))) => block,
            (None, Some(Front::Proxy(_) | Front::Shadowsocks { .. }) | None) => NOWHERE,
        };
        let (target, _) = AddressBlock::split(block).map_err(|_| Why::Malformed)?;
        let settled = match &association.face {
            Face::Relayed | Face::Probe(_) => association.lanes.first(),
            Face::Socks(_) | Face::Tunnel | Face::Shadowsocks(_) => {
                association.lanes.settled(block, door.inbound.routes.has_rules())
            }
        };
        let number = match settled {
            Some(number) => number,
            None => choose(door, outside, association, target, now.instant)?,
        };
        association.lanes.touch(number);
        let Some(Lane { way, path, .. }) = association.lanes.get_mut(number) else { return Ok(()) };
        let way_out = WayOut { door, udp, id: LaneId { association: id, number }, path, now };
        match way {
            Way::Direct(direct) => outside.send_to_target(&way_out, direct, target, payload),
            Way::Server(through) => {
                let Through { session, link, server } = &mut **through;
                let random = Random::draw(&door.net)?;
                outside.send_to_hop(&way_out, link, Hop::At(server), |out| {
                    session.seal(target, payload, now.unix, |room| random.fill(room), out);
                })
            }
            Way::Parent(link) => outside.send_to_hop(&way_out, link, Hop::Asked, |out| {
                socks5::head(target, out);
                out.extend_from_slice(payload);
            }),
            Way::Chain(chain) => outside.send_through(&way_out, chain, target, payload),
            Way::Relay(link, server) => {
                outside.send_to_hop(&way_out, link, Hop::At(server), |out| out.extend_from_slice(payload))
            }
        }
    }

    /// Answers that have come by the lane `id`.
    pub(super) fn downlink(&mut self, id: LaneId, inbox: &mut Inbox, now: Moment) {
        let LaneId { association: AssociationId { post, handle }, number } = id;
        let Self { posts, outside, .. } = self;
        let Post { door, udp, table, socket, .. } = &mut posts[post];
        let Some(Association { client, face, lanes, .. }) = table.get_mut(handle) else { return };
        let Some(lane) = lanes.get_mut(number) else { return };
        let Client { address, local } = *client;
        let course = Course { socket: *socket, to: Some(address), from: local };
        let mut is_alive = false;
        for Received { source, bytes, .. } in inbox.datagrams() {
            let answer = answer::open(&mut lane.way, source, udp, bytes, now.unix);
            let (source, payload) = match answer {
                Ok(answer) => answer,
                Err(why) => {
                    outside.dropped.count(why);
                    continue;
                }
            };
            is_alive = true;
            match face {
                Face::Socks(control) => {
                    control.count();
                    outside.push(course, |out| {
                        socks5::head(source.block(), out);
                        out.extend_from_slice(payload);
                    });
                }
                Face::Probe(answer) => {
                    if let Some(answer) = answer.take() {
                        // Whoever asked may wait no more.
                        let _ = answer.send(payload.to_vec());
                    }
                }
                Face::Tunnel | Face::Relayed => outside.push(course, |out| out.extend_from_slice(payload)),
                Face::Shadowsocks(session) => {
                    let Some(Front::Shadowsocks { packets, .. }) = &door.front else { continue };
                    match Random::draw(&door.net) {
                        Ok(random) => outside.push(course, |out| {
                            let fill = |room: &mut [u8]| random.fill(room);
                            session.seal(packets, source.block(), payload, now.unix, fill, out);
                        }),
                        Err(why) => outside.dropped.count(why),
                    }
                }
            }
        }
        let is_first = is_alive && !lane.has_answered;
        if is_alive {
            lanes.touch(number);
        }
        if is_first {
            path_answered(door, lanes, number, now.instant);
        }
        let is_answered = matches!(face, Face::Probe(None));
        if is_alive {
            table.touch(handle, now.instant);
        }
        if is_answered {
            self.end(id.association);
        }
    }

    /// Ends an association.
    pub(super) fn end(&mut self, id: AssociationId) {
        if let Some(association) = self.posts[id.post].table.remove(id.handle) {
            self.close(id, &association);
        }
    }

    /// Gives back what an association held that is in no table any more.
    fn close(&mut self, id: AssociationId, association: &Association) {
        self.live -= 1;
        debug!(source = %association.client.address, "association ended");
        if let (Key::Session(..), Some(directory)) = (association.key, self.posts[id.post].directory()) {
            directory.leave(&association.key);
        }
        self.outside.close(id, association);
    }

    /// Ends what has been idle for long, and lets what is idle hold less.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        self.sweep_probes();
        for post in 0..self.posts.len() {
            let timeout = self.posts[post].timeout;
            while let Some((handle, association)) = self.posts[post].table.expire(now, timeout) {
                self.close(AssociationId { post, handle }, &association);
            }
            while let Some(association) = self.posts[post].table.settle(now, COOL_DELAY) {
                association.cool();
            }
        }
        self.outside.dropped.tell();
    }
}

/// The address block of a target that is never sent to: another server knows the true one.
const NOWHERE: &[u8] = &[1, 0, 0, 0, 0, 0, 0];
