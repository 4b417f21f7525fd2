//! What an engine knows, and what it does with one datagram: uplink in two steps, [`understand`](Core::understand) and
//! [`send_up`](Core::send_up), downlink in one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;
use umbra_proto::address::{Address, AddressBlock, IpBlock};
use umbra_proto::shadowsocks::keyring::Holder;
use umbra_proto::shadowsocks::packet::{ClientSession, Datagram, Look, PacketDoor, ServerSession, SessionId};
use umbra_proto::shadowsocks::{SALT_BYTES_MAX, UnixTime};
use umbra_proto::socks5::udp as socks5;

use super::association::{Association, AssociationId, Client, Face, Through, Way};
use super::directory::{Directory, Home};
use super::displaced::Displaced;
use super::dropped::Why;
use super::front::Front;
use super::letter::{Letter, Strayed};
use super::link::Link;
use super::outbox::Course;
use super::outside::{Hop, Outside, WayOut};
use super::permits::Permits;
use super::queue::NoRoom;
use super::table::{Bounds, Handle, Table};
use super::trials::Trials;
use super::uplink::{Understood, place};
use crate::config::{Hop as OutHop, Path, Route, Udp};
use crate::door::Door;
use crate::group::Wanted;
use crate::limits::{ASSOCIATIONS_MAX, COOL_DELAY, HOP_RETRY_DELAY};
use crate::net::Net;
use crate::net::datagram::{Datagrams, Inbox, Received, SocketId};
use crate::path::chance;

/// All but the batch that is being looked at.
pub(super) struct Core<N: Net, D: Datagrams> {
    pub(super) posts: Vec<Post<N>>,
    pub(super) outside: Outside<D>,
    /// Associations of all doors.
    pub(super) live: usize,
    pub(super) trials: Trials,
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
        self.begin(post, key, client, face()?, now)
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
            let relay = || Association {
                key,
                client,
                face: Face::Relayed,
                way: Way::Relay(Link::default(), to.clone()),
            };
            let handle = found.unwrap_or_else(|| self.insert(post, key, relay(), now));
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
        let own = self.session_id(post)?;
        let after = match key {
            Key::Session(..) => displaced.newest(&key, now.instant),
            Key::Source(_) => None,
        };
        let (session, Datagram { address, payload }) =
            ServerSession::begin_after(packets, look, bytes, now.unix, own, after)?;
        let (block, payload) = (place(address.as_bytes()), place(payload));
        let handle = self.begin(post, key, client, Face::Shadowsocks(session), now)?;
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
    fn strayed(&mut self, strayed: Strayed) -> Result<(), Why> {
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

    /// A new association for a client that may have one.
    fn begin(
        &mut self,
        post: usize,
        key: Key,
        client: Client,
        face: Face,
        now: Moment,
    ) -> Result<Handle, Why> {
        let door = Arc::clone(&self.posts[post].door);
        let path = match door.inbound.routes.otherwise() {
            Route::Path(path) => Arc::clone(path),
            Route::Group(group) => {
                let nowhere = Address::Ip(client.address);
                let wanted =
                    Wanted { target: &nowhere, source: client.address.ip(), chance: chance(&door.net) };
                let mut attempts = group.datagrams.begin(&wanted, now.instant);
                let held = group.datagrams.next(&mut attempts, now.instant).ok_or(Why::Unroutable)?;
                Arc::clone(held.member())
            }
            Route::Refuse(_) => return Err(Why::Forbidden),
        };
        let way = self.way_along(post, &path)?;
        let control = match &face {
            Face::Socks(control) => Some(Arc::clone(control)),
            Face::Tunnel | Face::Shadowsocks(_) | Face::Relayed => None,
        };
        let handle = self.insert(post, key, Association { key, client, face, way }, now);
        if let Some(control) = control {
            control.hold(&self.outside.letters, AssociationId { post, handle });
        }
        Ok(handle)
    }

    fn way_along(&self, post: usize, path: &Arc<Path>) -> Result<Way, Why> {
        match (&*path.hops, path.packet_hop()) {
            ([], _) => Ok(Way::Direct(Box::default())),
            ([OutHop::Shadowsocks(server)], Some(hop)) => {
                let server = server.mode.datagrams().ok_or(Why::Unroutable)?.clone();
                let session = ClientSession::new(Arc::clone(hop), self.session_id(post)?);
                Ok(Way::Server(Box::new(Through { session, link: Link::default(), server })))
            }
            ([OutHop::Parent(_)], _) if path.has_datagrams() => {
                Ok(Way::Parent(Link::default(), Arc::clone(path)))
            }
            _ => Err(Why::Unroutable),
        }
    }

    fn insert(&mut self, post: usize, key: Key, association: Association, now: Moment) -> Handle {
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
            Face::Socks(_) | Face::Tunnel | Face::Relayed => None,
        };
        if let (Some(newest), Some(Front::Shadowsocks { displaced, .. })) =
            (newest, &self.posts[id.post].door.front)
        {
            displaced.remember(association.key, newest, now.instant);
        }
        self.close(id, association);
    }

    fn session_id(&self, post: usize) -> Result<SessionId, Why> {
        let mut id = [0; 8];
        self.posts[post].door.net.fill_random(&mut id).map_err(|_| Why::NoRoom)?;
        Ok(SessionId(id))
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
        let Some(Association { way, .. }) = table.get_mut(id.handle) else { return Ok(()) };
        let block = match (block, &door.front) {
            (Some(block), _) => block,
            (None, Some(Front::Tunnel(block))) => block,
            (None, Some(Front::Proxy(_) | Front::Shadowsocks { .. }) | None) => NOWHERE,
        };
        let (target, _) = AddressBlock::split(block).map_err(|_| Why::Malformed)?;
        let way_out = WayOut { door, udp, id, now: now.instant };
        match way {
            Way::Direct(direct) => outside.send_to_target(&way_out, direct, target, payload),
            Way::Server(through) => {
                let Through { session, link, server } = &mut **through;
                let random = Random::draw(&door.net)?;
                outside.send_to_hop(&way_out, link, Hop::At(server), |out| {
                    session.seal(target, payload, now.unix, |room| random.fill(room), out);
                })
            }
            Way::Parent(link, path) => outside.send_to_hop(&way_out, link, Hop::Parent(path), |out| {
                socks5::head(target, out);
                out.extend_from_slice(payload);
            }),
            Way::Relay(link, server) => {
                outside.send_to_hop(&way_out, link, Hop::At(server), |out| out.extend_from_slice(payload))
            }
        }
    }

    /// Answers that have come for the association `id`.
    pub(super) fn downlink(&mut self, id: AssociationId, inbox: &mut Inbox, now: Moment) {
        let Self { posts, outside, .. } = self;
        let Post { door, udp, table, socket, .. } = &mut posts[id.post];
        let Some(association) = table.get_mut(id.handle) else { return };
        let Client { address, local } = association.client;
        let course = Course { socket: *socket, to: Some(address), from: local };
        let mut is_alive = false;
        for Received { source, bytes, .. } in inbox.datagrams() {
            let answer = answer(&mut association.way, source, udp, bytes, now);
            let (source, payload) = match answer {
                Ok(answer) => answer,
                Err(why) => {
                    outside.dropped.count(why);
                    continue;
                }
            };
            is_alive = true;
            match &mut association.face {
                Face::Socks(control) => {
                    control.count();
                    outside.push(course, |out| {
                        socks5::head(source.block(), out);
                        out.extend_from_slice(payload);
                    });
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
        if is_alive {
            table.touch(id.handle, now.instant);
        }
    }

    /// What slow work has come to.
    pub(super) fn read(&mut self, letter: Letter) {
        match letter {
            Letter::Named { id, block, address } => self.named(id, &block, address),
            Letter::Reached { id, address } => self.reached(id, address),
            Letter::Lost(id) => self.lost(id),
            Letter::End(id) => self.end(id),
            Letter::Strayed(strayed) => {
                self.outside.letters.arrived();
                if let Err(why) = self.strayed(*strayed) {
                    self.outside.dropped.count(why);
                }
            }
        }
    }

    fn named(&mut self, id: AssociationId, block: &[u8], address: Option<SocketAddr>) {
        let now = self.now();
        let Self { posts, outside, .. } = self;
        let Post { door, udp, table, .. } = &mut posts[id.post];
        let Some(Association { way: Way::Direct(direct), .. }) = table.get_mut(id.handle) else { return };
        let waiting = direct.names.learn(block, address, now.instant);
        let Some((waiting, address)) = waiting.zip(address) else { return };
        let way_out = WayOut { door, udp, id, now: now.instant };
        for payload in waiting.datagrams() {
            if let Err(why) = outside.send_to_address(&way_out, direct, address, payload) {
                outside.dropped.count(why);
            }
        }
    }

    fn reached(&mut self, id: AssociationId, address: Option<SocketAddr>) {
        let now = Instant::now();
        let Self { posts, outside, .. } = self;
        let Post { udp, table, .. } = &mut posts[id.post];
        let Some(link) = table.get_mut(id.handle).and_then(Association::link) else { return };
        let opened = match address {
            Some(address) => outside.open(id, udp, address.ip(), Some(address)),
            None => Err(Why::Unroutable),
        };
        match (opened, std::mem::replace(link, Link::Failed(now + HOP_RETRY_DELAY))) {
            (Ok(socket), Link::Waiting(queue, search)) => {
                *link = Link::Open { socket, _search: Some(search) };
                for datagram in queue.datagrams() {
                    let course = Course { socket, to: None, from: None };
                    outside.push(course, |out| out.extend_from_slice(datagram));
                }
            }
            // Nobody waits any more.
            (Ok(socket), other) => {
                *link = other;
                outside.shut(socket);
            }
            (Err(why), _) => outside.dropped.count(why),
        }
    }

    /// The hop has let go of the association; the next datagram asks it again.
    fn lost(&mut self, id: AssociationId) {
        let Self { posts, outside, .. } = self;
        let found = posts[id.post].table.get_mut(id.handle);
        let Some(link) = found.and_then(Association::link) else { return };
        if let Link::Open { socket, .. } = std::mem::take(link) {
            outside.shut(socket);
        }
    }

    /// Ends an association.
    fn end(&mut self, id: AssociationId) {
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

/// What an answer says: whom it is from, and what the client is to get. Nothing changes unless it may come.
fn answer<'p>(
    way: &mut Way,
    source: SocketAddr,
    udp: &Udp,
    bytes: &'p mut [u8],
    now: Moment,
) -> Result<(Source<'p>, &'p [u8]), Why> {
    match way {
        Way::Direct(direct) if direct.accepts(source.ip(), udp.filtering) => {
            Ok((Source::Address(IpBlock::from(source)), bytes))
        }
        Way::Direct(_) => Err(Why::Stranger),
        Way::Server(through) => {
            let Datagram { address, payload } = through.session.open(bytes, now.unix)?;
            Ok((Source::Told(address), payload))
        }
        Way::Parent(..) => {
            let (source, payload) = socks5::open(bytes)?;
            Ok((Source::Told(source), payload))
        }
        // Only the client can say whom it is from.
        Way::Relay(..) => Ok((Source::Address(IpBlock::from(source)), bytes)),
    }
}

/// Whom an answer is from.
enum Source<'p> {
    /// It came from there.
    Address(IpBlock),
    /// A hop says so.
    Told(AddressBlock<'p>),
}

impl Source<'_> {
    fn block(&self) -> AddressBlock<'_> {
        match self {
            Self::Address(block) => block.block(),
            Self::Told(block) => *block,
        }
    }
}

/// Chance for one packet, drawn before the packet is begun: without it nothing may be sealed.
struct Random([u8; SALT_BYTES_MAX]);

impl Random {
    fn draw<N: Net>(net: &N) -> Result<Self, Why> {
        let mut random = [0; SALT_BYTES_MAX];
        net.fill_random(&mut random).map_err(|_| Why::NoRoom)?;
        Ok(Self(random))
    }

    fn fill(&self, room: &mut [u8]) {
        room.copy_from_slice(&self.0[..room.len()]);
    }
}

/// The address block of a target that is never sent to: another server knows the true one.
const NOWHERE: &[u8] = &[1, 0, 0, 0, 0, 0, 0];
