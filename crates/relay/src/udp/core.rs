//! What an engine knows, and what it does with one datagram: uplink in two steps, [`understand`](Core::understand) and
//! [`send_up`](Core::send_up), downlink in one.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;
use umbra_proto::address::{Address, AddressBlock, IpBlock};
use umbra_proto::forbidden::{Forbidden, Rule};
use umbra_proto::shadowsocks::UnixTime;
use umbra_proto::shadowsocks::keyring::Holder;
use umbra_proto::shadowsocks::packet::SessionId;
use umbra_proto::socks5::udp as socks5;

use super::answer::{self, Arrived};
use super::association::{Association, AssociationId, Client, Face};
use super::choice::{Wayfarer, address_of, choose, path_answered};
use super::directory::{Directory, Home};
use super::dropped::Why;
use super::front::{Front, Workers};
use super::lanes::{Chosen, Lane, LaneId, Lanes};
use super::outbox::Course;
use super::outside::{Outside, Unsealed, WayOut};
use super::permits::Standing;
use super::table::{Bounds, Handle, Table};
use super::trials::Trials;
use super::trunks::Whose;
use super::uplink::{Payloads, Understood, place};
use super::way::Way;
use crate::config::Udp;
use crate::door::Door;
use crate::limits::{ASSOCIATIONS_MAX, COOL_DELAY, ORPHAN_SECS_MAX};
use crate::net::Net;
use crate::net::datagram::{Datagrams, Inbox, Received, SocketId};

/// All but the batch that is being looked at.
pub(super) struct Core<N: Net, D: Datagrams> {
    pub(super) posts: Vec<Post<N>>,
    pub(super) outside: Outside<D>,
    /// Associations of all doors.
    pub(super) live: usize,
    pub(super) trials: Trials,
    /// Associations whose control connections have ended, among them some that have shown to be another's since.
    pub(super) orphans: HashSet<AssociationId>,
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

/// The time of a turn: all its batches are received at once.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) unix: UnixTime,
}

impl<N: Net> Post<N> {
    /// The datagrams of `door` at `socket`; none, if it takes none. All engines together may have so many `sockets`.
    pub(super) fn new(door: Arc<Door<N>>, socket: SocketId, sockets: usize) -> Option<Self> {
        let udp = door.inbound.mode.datagrams()?.clone();
        let timeout = door.inbound.udp_timeout()?;
        let bounds = bounds(&udp, sockets, door.workers);
        Some(Self { door, udp, timeout, socket, table: Table::new(bounds) })
    }
}

/// How many associations of a door there may be on one of its workers, where all associations may have so many `sockets`.
fn bounds(udp: &Udp, sockets: usize, workers: Workers) -> Bounds {
    // What is promised of the door has to be true of all its workers together.
    let part = |max: usize| (max / workers.count()).max(1);
    let max = udp.associations_max.map_or(usize::MAX, NonZeroUsize::get);
    let total = udp.associations_max.map_or(ASSOCIATIONS_MAX, |max| part(max.get()).min(ASSOCIATIONS_MAX));
    // One source cannot take the places or the sockets of all others, unless it is told that it may.
    let half = max.min(sockets).min(ASSOCIATIONS_MAX).div_ceil(2);
    let per_source = udp.associations_per_source_max.map_or(half, NonZeroUsize::get);
    Bounds { total, per_source: part(per_source).min(total) }
}

/// Something authentic has come from `client`: answers go there from now on (SIP022, 3.2.4).
pub(super) fn follow(table: &mut Table<Key, Association>, handle: Handle, client: Client, now: Moment) {
    table.touch(handle, now.instant);
    if let Some(association) = table.get_mut(handle) {
        association.client = client;
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

    /// Where the associations of a door live that are here.
    pub(super) fn home(&self, post: usize) -> Home {
        Home { letters: self.outside.letters.clone(), post }
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
        // Of a door that all workers share, nothing is counted for a datagram: they would take the count from each other.
        match self.posts[post].door.front.as_ref().ok_or(Why::Stranger)? {
            Front::Proxy(_) => self.understand_socks(post, client, bytes, now),
            Front::Tunnel(_) => {
                let handle = match self.of_source(post, client, now) {
                    Some(handle) => handle,
                    None => self.begin(post, Key::Source(client.address), client, Face::Tunnel, now),
                };
                Ok(Understood { handle, block: None, payload: place(bytes) })
            }
            Front::Shadowsocks { .. } => self.understand_packet(post, client, bytes, now),
        }
    }

    fn understand_socks(
        &mut self,
        post: usize,
        client: Client,
        bytes: &[u8],
        now: Moment,
    ) -> Result<Understood, Why> {
        let (block, payload) = socks5::open(bytes)?;
        let (block, payload) = (place(block.as_bytes()), place(payload));
        let handle = match self.of_source(post, client, now) {
            Some(handle) => handle,
            None => {
                let door = &self.posts[post].door;
                let Some(Front::Proxy(permits)) = &door.front else { return Err(Why::Stranger) };
                let claim = permits.claim(client.address, door.sources()).ok_or(Why::Stranger)?;
                self.begin(post, Key::Source(client.address), client, Face::Socks(claim), now)
            }
        };
        if let Some(Association { face: Face::Socks(claim), orphaned, .. }) =
            self.posts[post].table.get_mut(handle)
        {
            claim.count();
            *orphaned = None;
        }
        Ok(Understood { handle, block: Some(block), payload })
    }

    /// The association of whoever sends from this address, if there is one that may go on.
    fn of_source(&mut self, post: usize, client: Client, now: Moment) -> Option<Handle> {
        let table = &mut self.posts[post].table;
        let handle = table.find(&Key::Source(client.address))?;
        if let Face::Socks(claim) = &table.get_mut(handle)?.face
            && claim.standing() != Standing::Good
        {
            self.let_go(AssociationId { post, handle });
        }
        let table = &mut self.posts[post].table;
        table.get_mut(handle)?;
        follow(table, handle, client, now);
        Some(handle)
    }

    /// What an association lived by has ended. It does as well, unless it may live by another control connection.
    pub(super) fn let_go(&mut self, id: AssociationId) {
        let association = self.posts[id.post].table.get_mut(id.handle);
        let Some(Association { face: Face::Socks(claim), orphaned, .. }) = association else { return };
        match claim.standing() {
            Standing::Good => {}
            Standing::Doubtful => {
                claim.note_doubt();
                *orphaned = Some(Instant::now());
                self.orphans.insert(id);
            }
            Standing::Ended => self.end(id),
        }
    }

    /// A new association for a client that may have one. Its first datagram finds it a way.
    pub(super) fn begin(&mut self, post: usize, key: Key, client: Client, face: Face, now: Moment) -> Handle {
        let handle = self.insert(post, key, Association::new(key, client, face, Lanes::default()), now);
        let association = self.posts[post].table.get_mut(handle);
        if let Some(Association { face: Face::Socks(claim), .. }) = association {
            claim.tell(&self.outside.letters, AssociationId { post, handle });
        }
        handle
    }

    pub(super) fn insert(&mut self, post: usize, key: Key, association: Association, now: Moment) -> Handle {
        debug!(source = %association.client.address, "association begins");
        let source = association.client.address.ip();
        let table = &mut self.posts[post].table;
        let (handle, displaced) = table.insert(key, source, now.instant, association);
        self.live += 1;
        if let Some((displaced, association)) = displaced {
            self.displace(AssociationId { post, handle: displaced }, &association, now);
        }
        handle
    }

    /// Ends an association that has to make room before it is due.
    pub(super) fn displace(&mut self, id: AssociationId, association: &Association, now: Moment) {
        let newest = match &association.face {
            Face::Shadowsocks(session) => session.newest(),
            Face::Relayed { newest } => Some(*newest),
            Face::Socks(_) | Face::Tunnel | Face::Probe(_) => None,
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
        self.send_up_with(id, block, payload, &mut Payloads::default(), now)
    }

    /// The same with as many of those behind it, of what there is `more`, as go where it goes without being thought about.
    pub(super) fn send_up_with<'p>(
        &mut self,
        id: AssociationId,
        block: Option<&[u8]>,
        payload: &'p [u8],
        more: &mut Payloads<'p>,
        now: Moment,
    ) -> Result<(), Why> {
        self.with_room(id, now, |core| core.try_up(id, block, payload, more, now))
    }

    fn try_up<'p>(
        &mut self,
        id: AssociationId,
        block: Option<&[u8]>,
        payload: &'p [u8],
        more: &mut Payloads<'p>,
        now: Moment,
    ) -> Result<(), Why> {
        let Self { posts, outside, .. } = self;
        let Post { door, udp, table, .. } = &mut posts[id.post];
        // It may have made room for another one of the same batch.
        let association = table.get_mut(id.handle).ok_or(Why::NoRoom)?;
        let block = match (block, &door.front) {
            (Some(block), _) => block,
            (None, Some(Front::Tunnel(block))) => block,
            (None, Some(Front::Proxy(_) | Front::Shadowsocks { .. }) | None) => NOWHERE,
        };
        let (target, _) = AddressBlock::split(block).map_err(|_| Why::Malformed)?;
        let settled = match &association.face {
            Face::Relayed { .. } | Face::Probe(_) => association.lanes.only(),
            Face::Socks(_) | Face::Tunnel | Face::Shadowsocks(_) => {
                association.lanes.settled(block, door.inbound.routes.has_rules(), now.instant)
            }
        };
        let source = association.client.address.ip();
        let wayfarer = Wayfarer { id, source, target, payload };
        let chosen = match settled {
            Some(chosen) => Some(chosen),
            None => choose(door, outside, association, &wayfarer, now.instant)?,
        };
        let Some(Chosen { number, address, .. }) = chosen else { return Ok(()) };
        association.lanes.touch(number);
        let Some(lane) = association.lanes.get_mut(number) else { return Ok(()) };
        judge(&door.inbound.forbidden, &association.face, &lane.way, target)?;
        let address = match address {
            None if target.ip().is_none() && lane.wants_address() => {
                let found = address_of(door, outside, &mut association.lanes, &wayfarer, now.instant)?;
                // Where there is none yet, the datagram waits for it.
                let Some(found) = found else { return Ok(()) };
                Some(found)
            }
            known => known,
        };
        let block = address.map(IpBlock::from);
        let datagram = Unsealed { target, told: block.as_ref().map_or(target, IpBlock::block), payload };
        let Some(Lane { way, path, .. }) = association.lanes.get_mut(number) else { return Ok(()) };
        // What was found here is judged whoever sends, as it is on a direct way.
        if let (Some(address), false) = (address, matches!(way, Way::Direct(_))) {
            refuse(door.inbound.forbidden.check(address.ip().to_canonical()))?;
        }
        let id = LaneId { association: id, number };
        let way_out = WayOut { door, udp, id, source, path, now };
        outside.send(&way_out, way, &datagram, more)
    }

    /// Answers that have come to a trunk, each for the lane that it names.
    pub(super) fn answers(&mut self, socket: SocketId, inbox: &mut Inbox, now: Moment) {
        let mut is_good = false;
        for Received { bytes, .. } in inbox.datagrams() {
            let Whose { lane, packet, is_new } = match self.outside.trunks.whose(socket, bytes) {
                Ok(whose) => whose,
                Err(why) => {
                    self.outside.dropped.count(why);
                    continue;
                }
            };
            let server = packet.server();
            match self.downlink(lane, std::iter::once(Arrived::Uncovered(packet)), now) {
                Ok(()) if is_new => self.learn(socket, server, lane),
                Err(Why::Stranger) if !is_new => self.outside.trunks.doubt(socket, server),
                Ok(()) => {}
                Err(_) => continue,
            }
            is_good = true;
        }
        if is_good {
            self.outside.trunks.heard(socket);
        }
    }

    /// What the server calls `server` is the other end of `lane`.
    fn learn(&mut self, socket: SocketId, server: SessionId, lane: LaneId) {
        let LaneId { association: AssociationId { post, handle }, number } = lane;
        let association = self.posts[post].table.get_mut(handle);
        let found = association.and_then(|association| association.lanes.get_mut(number));
        let Some(Lane { way: Way::Server(through), .. }) = found else { return };
        let past = through.heard.add(server);
        self.outside.trunks.learn(socket, server, lane, past);
    }

    /// Answers that have come by the lane `id`. If none of them is good, says why the last one is not.
    #[expect(single_use_lifetimes, reason = "one without a name is not stable here")]
    pub(super) fn downlink<'p>(
        &mut self,
        id: LaneId,
        arrived: impl Iterator<Item = Arrived<'p>>,
        now: Moment,
    ) -> Result<(), Why> {
        let LaneId { association: AssociationId { post, handle }, number } = id;
        if let Some(Association { face: Face::Socks(claim), .. }) = self.posts[post].table.get_mut(handle)
            && claim.standing() != Standing::Good
        {
            self.let_go(id.association);
        }
        let Self { posts, outside, .. } = self;
        let Post { door, udp, table, socket, .. } = &mut posts[post];
        let Some(Association { client, face, lanes, orphaned: None, .. }) = table.get_mut(handle) else {
            return Err(Why::Unroutable);
        };
        let Some(lane) = lanes.get_mut(number) else { return Err(Why::Unroutable) };
        let Client { address, local } = *client;
        let course = Course { socket: *socket, to: Some(address), from: local };
        let mut outcome = Err(Why::Unroutable);
        for arrived in arrived {
            let answer = answer::open(&mut lane.way, arrived, udp, now.unix);
            let (source, payload) = match answer {
                Ok(answer) => answer,
                Err(why) => {
                    outside.dropped.count(why);
                    outcome = outcome.or(Err(why));
                    continue;
                }
            };
            outcome = Ok(());
            if let Err(why) = answer::give(face, door, outside, course, &source, payload, now) {
                outside.dropped.count(why);
            }
        }
        let is_alive = outcome.is_ok();
        let is_first = is_alive && !lane.has_answered;
        if is_alive {
            lanes.touch(number);
        }
        // What a probe finds is told by whoever has sent it.
        if is_first && !matches!(face, Face::Probe(_)) {
            path_answered(door, lanes, number, now.instant);
        }
        let is_answered = matches!(face, Face::Probe(None));
        if is_alive {
            table.touch(handle, now.instant);
        }
        if is_answered {
            self.end(id.association);
        }
        outcome
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
            directory.leave(&association.key, &self.home(id.post));
        }
        self.outside.close(association);
    }

    /// Ends the associations that nobody has shown to be theirs in time.
    fn sweep_orphans(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.orphans) {
            let association = self.posts[id.post].table.get_mut(id.handle);
            let Some(since) = association.and_then(|association| association.orphaned) else { continue };
            if now.duration_since(since) >= ORPHAN_SECS_MAX {
                self.end(id);
            } else {
                self.orphans.insert(id);
            }
        }
    }

    /// Ends what has been idle for long, and lets what is idle hold less.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        self.sweep_probes();
        self.sweep_orphans(now);
        self.outside.trunks.sweep(now);
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

/// Whether `target` may be asked for along `way`. A direct way judges by itself what it sends to, once a name's address is known.
fn judge(forbidden: &Forbidden, face: &Face, way: &Way, target: AddressBlock<'_>) -> Result<(), Why> {
    let is_asked_for = match (way, face) {
        (Way::Direct(_) | Way::Relay(..), _) | (_, Face::Relayed { .. } | Face::Probe(_)) => false,
        (Way::Server(_) | Way::Parent(_) | Way::Chain(_), Face::Socks(_) | Face::Tunnel) => true,
        (Way::Server(_) | Way::Parent(_) | Way::Chain(_), Face::Shadowsocks(_)) => true,
    };
    if !is_asked_for || forbidden.is_empty() {
        return Ok(());
    }
    let rule = match target.to_address() {
        Address::Ip(address) => forbidden.check(address.ip().to_canonical()),
        Address::Name(name, _) => forbidden.check_name(name.as_str()),
    };
    refuse(rule)
}

/// Nobody is led to what `rule` is about, if there is one.
fn refuse(rule: Option<Rule>) -> Result<(), Why> {
    let Some(rule) = rule else { return Ok(()) };
    debug!(%rule, "a target in forbidden list, drop");
    Err(Why::Forbidden)
}

/// The address block of a target that is never sent to: another server knows the true one.
const NOWHERE: &[u8] = &[1, 0, 0, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_door_may_have_is_true_of_its_workers_together_and_half_of_it_is_for_one_source() {
        let bounds_of = |total, per_source, sockets, workers| {
            let udp = Udp {
                associations_max: NonZeroUsize::new(total),
                associations_per_source_max: NonZeroUsize::new(per_source),
                ..Udp::default()
            };
            let Bounds { total, per_source } = bounds(&udp, sockets, workers);
            (total, per_source)
        };
        let four = Workers::Several(NonZeroUsize::new(4).unwrap());
        assert_eq!(bounds_of(0, 0, 300, Workers::One), (ASSOCIATIONS_MAX, 150));
        assert_eq!(bounds_of(0, 0, 300, four), (ASSOCIATIONS_MAX, 37));
        assert_eq!(bounds_of(100, 0, 300, Workers::One), (100, 50));
        assert_eq!(bounds_of(100, 0, 300, four), (25, 12));
        assert_eq!(bounds_of(100, 80, 300, four), (25, 20));
        assert_eq!(bounds_of(100, 500, 300, Workers::One), (100, 100));
        assert_eq!(bounds_of(2, 1, 300, four), (1, 1));
        assert_eq!(bounds_of(0, 0, 0, four), (ASSOCIATIONS_MAX, 1));
        assert_eq!(bounds_of(0, 0, usize::MAX, Workers::One), (ASSOCIATIONS_MAX, ASSOCIATIONS_MAX / 2));
    }
}
