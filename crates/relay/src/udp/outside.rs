//! An engine's side of the outside: its sockets, whose they are, and what is on its way to them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;
use umbra_proto::address::{Address, AddressBlock};
use umbra_proto::shadowsocks::packet::SessionId;
use umbra_proto::socks5::udp as socks5;

use super::association::{Association, AssociationId};
use super::budget::{Budget, EVERYBODY, Spent};
use super::chain::{Chain, Scratch};
use super::core::Moment;
use super::dropped::{Dropped, Why};
use super::lanes::{Lane, LaneId, LaneNumber, LaneNumbers};
use super::letter::Letters;
use super::link::{Link, Next};
use super::names::{Found, Names};
use super::outbox::{Course, Outbox};
use super::queue::{NoRoom, Queue, Room};
use super::random;
use super::search;
use super::trunks::{Leads, Trunks};
use super::turns::{Turn, Turns};
use super::uplink::Payloads;
use super::way::{Direct, Through, Way};
use crate::config::{Hop as PathHop, Path, Udp};
use crate::door::Door;
use crate::failure::{Cause, Failure, Stage, is_ours};
use crate::limits::{HOP_RETRY_DELAY, LOOKUPS_MAX};
use crate::net::Net;
use crate::net::datagram::{Binding, Datagrams, Sent, SocketId};

/// Sockets, and what goes through them.
pub(super) struct Outside<D: Datagrams> {
    pub(super) sockets: D,
    pub(super) letters: Letters,
    pub(super) dropped: Dropped,
    owners: HashMap<SocketId, Owner>,
    outbox: Outbox,
    scratch: Scratch,
    pub(super) trunks: Trunks,
    pub(super) numbers: LaneNumbers,
    pub(super) budget: Arc<Budget>,
    /// For what waits.
    room: Arc<Room>,
    /// Lookups that may be under way.
    turns: Turns,
}

/// Whose a socket is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    /// A door's.
    Post(usize),
    /// A lane's, for a client who was there when it was opened.
    Lane(AssociationId, LaneNumber, IpAddr),
    /// That of all lanes through one server.
    Trunk,
}

/// Whose datagram leaves, and by which settings.
pub(super) struct WayOut<'a, N: Net> {
    pub(super) door: &'a Arc<Door<N>>,
    pub(super) udp: &'a Udp,
    pub(super) id: LaneId,
    /// Where the client is.
    pub(super) source: IpAddr,
    pub(super) path: &'a Arc<Path>,
    pub(super) now: Moment,
}

/// A datagram that somebody is asked to send on.
pub(super) struct Unsealed<'t, 'p> {
    /// Where the client sends it. It is kept with this while there is no way: another one may be taken then, which is told otherwise.
    pub(super) target: AddressBlock<'t>,
    /// What whoever is asked is told of that: its address, where it is to be told no name.
    pub(super) told: AddressBlock<'t>,
    pub(super) payload: &'p [u8],
}

/// Why there is no socket.
#[derive(Debug)]
pub(super) enum Unopened {
    /// There is none left, unless somebody makes room.
    Spent,
    /// Our own machine has nothing left.
    Exhausted,
    /// The system has no way to that address.
    Refused(io::Error),
}

/// Who carries datagrams on.
#[derive(Clone, Copy)]
pub(super) enum Hop<'a> {
    /// Whoever is at this address.
    At(&'a Address),
    /// A server of SIP022 at this address, which knows a lane by its session, whatever socket its packets come through.
    Shared(&'a Address, SessionId),
    /// The hops of the path, of which some say themselves where they are.
    Asked,
}

impl From<Unopened> for Why {
    fn from(why: Unopened) -> Self {
        match why {
            Unopened::Spent => Self::Spent,
            Unopened::Exhausted => Self::NoRoom,
            Unopened::Refused(_) => Self::Unroutable,
        }
    }
}

impl Unsealed<'_, '_> {
    fn wait_for(&self, link: &mut Link) -> Result<(), Why> {
        let datagram = [self.target.as_bytes(), self.payload].concat();
        link.keep(&datagram).map_err(|NoRoom| Why::NoRoom)
    }
}

impl<D: Datagrams> Outside<D> {
    pub(super) fn new(sockets: D, letters: Letters, budget: Arc<Budget>) -> Self {
        Self {
            sockets,
            letters,
            dropped: Dropped::default(),
            owners: HashMap::new(),
            outbox: Outbox::default(),
            scratch: Scratch::default(),
            trunks: Trunks::default(),
            numbers: LaneNumbers::default(),
            budget,
            room: Arc::default(),
            turns: Turns::new(LOOKUPS_MAX),
        }
    }

    /// What comes to `socket` is for the door `post`.
    pub(super) fn own(&mut self, socket: SocketId, post: usize) {
        self.owners.insert(socket, Owner::Post(post));
    }

    pub(super) fn owner(&self, socket: SocketId) -> Option<Owner> {
        self.owners.get(&socket).copied()
    }

    /// Adds what `write` appends to what is on its way.
    pub(super) fn push(&mut self, course: Course, write: impl FnOnce(&mut Vec<u8>)) {
        let Ok(()) = self.try_push(course, |out| {
            write(out);
            Ok::<_, Infallible>(())
        });
    }

    /// The same where it may fail, and then adds nothing.
    fn try_push<E>(
        &mut self,
        course: Course,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.outbox.socket();
        let (sent, outcome) = self.outbox.push(&mut self.sockets, course, write);
        self.settle(before, sent);
        outcome
    }

    /// Sends what is on its way.
    pub(super) fn flush(&mut self) {
        let socket = self.outbox.socket();
        let sent = self.outbox.flush(&mut self.sockets);
        self.settle(socket, sent);
    }

    /// What became of datagrams from `socket`.
    fn settle(&mut self, socket: Option<SocketId>, sent: Sent) {
        self.dropped.count_unsent(sent);
        let Some(socket) = socket else { return };
        if sent.datagrams > 0 {
            self.trunks.sent(socket);
        } else if sent.failed > 0 {
            self.trunks.fail(socket);
        }
    }

    /// Opens a socket of the lane `id`, of the family of `ip`, for anybody or for one `peer`.
    pub(super) fn open(
        &mut self,
        id: LaneId,
        udp: &Udp,
        family: IpAddr,
        peer: Option<SocketAddr>,
        source: IpAddr,
    ) -> Result<SocketId, Unopened> {
        let socket = self.open_for(source, family, peer, udp.fragments)?;
        self.owners.insert(socket, Owner::Lane(id.association, id.number, source));
        Ok(socket)
    }

    /// The socket of all lanes to the server of `path`, which is at `address`. It is opened if nobody has needed it before.
    pub(super) fn trunk(
        &mut self,
        path: &Path,
        udp: &Udp,
        address: SocketAddr,
        now: Instant,
    ) -> Result<SocketId, Unopened> {
        let no_server = || Unopened::Refused(io::ErrorKind::InvalidInput.into());
        let hop = Arc::clone(path.packet_hop(0).ok_or_else(no_server)?);
        let leads = Leads { hop, address, fragments: udp.fragments };
        if let Some(socket) = self.trunks.find(&leads) {
            return Ok(socket);
        }
        let socket = self.open_for(EVERYBODY, address.ip(), Some(address), udp.fragments)?;
        self.owners.insert(socket, Owner::Trunk);
        self.trunks.add(socket, leads, now);
        Ok(socket)
    }

    fn open_for(
        &mut self,
        source: IpAddr,
        family: IpAddr,
        peer: Option<SocketAddr>,
        fragments: bool,
    ) -> Result<SocketId, Unopened> {
        let ip = if family.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        self.budget.take(source).map_err(|Spent| Unopened::Spent)?;
        let is_shared = source == EVERYBODY;
        self.sockets.open(Binding::Outgoing { ip, peer, fragments, is_shared }).map_err(|error| {
            self.budget.give_back(source);
            debug!(%error, "cannot open a socket for datagrams");
            if is_ours(&error) { Unopened::Exhausted } else { Unopened::Refused(error) }
        })
    }

    /// Closes a socket, unless others go through it.
    pub(super) fn shut(&mut self, socket: SocketId) {
        if self.trunks.is_in_use(socket) {
            return;
        }
        // What is on its way from it leaves before.
        self.flush();
        let owner = self.owners.remove(&socket);
        self.sockets.close(socket);
        match owner {
            Some(Owner::Lane(_, _, source)) => self.budget.give_back(source),
            Some(Owner::Trunk) => {
                self.trunks.remove(socket);
                self.budget.give_back(EVERYBODY);
            }
            Some(Owner::Post(_)) | None => {}
        }
    }

    /// Takes a lane off a trunk through which nothing goes any more, so that its next datagram has another.
    fn change_trunk(&mut self, through: &mut Through, now: Instant) {
        let Through { session, link, heard, .. } = through;
        if let (Some(socket), Some(client)) = (link.socket(), session.id())
            && let Some(opened) = self.trunks.failed_since_opened(socket)
        {
            self.trunks.leave(socket, client, &std::mem::take(heard));
            link.lose_since(opened, now);
            self.shut(socket);
        }
    }

    /// Closes what a lane holds that is in no association any more. What waits there goes nowhere.
    pub(super) fn leave(&mut self, lane: &Lane) {
        if let Way::Server(through) = &lane.way
            && let (Some(socket), Some(client)) = (through.link.socket(), through.session.id())
        {
            self.trunks.leave(socket, client, &through.heard);
        }
        for socket in lane.way.sockets() {
            self.shut(socket);
        }
        self.dropped.count_many(Why::NoRoom, lane.way.waiting());
    }

    /// Closes what an association holds.
    pub(super) fn close(&mut self, association: &Association) {
        for lane in association.lanes.iter() {
            self.leave(lane);
        }
        self.dropped.count_many(Why::Unroutable, association.lanes.waiting());
    }

    /// What is to be done with a datagram whose target is looked up among `names`.
    pub(super) fn find<'n>(
        &self,
        names: &'n mut Names,
        target: AddressBlock<'_>,
        payload: &[u8],
        now: Instant,
    ) -> Found<'n> {
        names.find(target.as_bytes(), payload, now, &self.room)
    }

    /// The right to look something up for a client at `source`, if it is to be had.
    pub(super) fn turn(&self, source: IpAddr) -> Option<Turn> {
        self.turns.take(source)
    }

    /// Sends `datagram` along `way`. Once that leads somewhere, what there is `more` for the same target goes there at once.
    pub(super) fn send<'p, N: Net>(
        &mut self,
        way_out: &WayOut<'_, N>,
        way: &mut Way,
        datagram: &Unsealed<'_, 'p>,
        more: &mut Payloads<'p>,
    ) -> Result<(), Why> {
        let Unsealed { told, payload, .. } = *datagram;
        match way {
            Way::Direct(direct) => self.send_to_target(way_out, direct, told, payload, more),
            Way::Server(through) => {
                let WayOut { door, now, .. } = way_out;
                self.change_trunk(through, now.instant);
                let Through { session, link, server, .. } = &mut **through;
                let hop = session.id().map_or(Hop::At(server), |client| Hop::Shared(server, client));
                self.send_to_hop(way_out, link, hop, payload, more, |payload, out| {
                    let chance = random::Source::draw(&door.net, session.chance_bytes())?;
                    session.seal(told, payload, now.unix, &chance, out);
                    Ok(())
                })
            }
            Way::Parent(link) => self.send_to_parent(way_out, link, datagram),
            Way::Chain(chain) => self.send_through(way_out, chain, datagram),
            Way::Relay(link, server) => {
                self.send_to_hop(way_out, link, Hop::At(server), payload, more, |payload, out| {
                    out.extend_from_slice(payload);
                    Ok(())
                })
            }
        }
    }

    /// Sends to a target, straight: `payload`, and once it is known where the target is what there is `more`.
    fn send_to_target<'p, N: Net>(
        &mut self,
        way: &WayOut<'_, N>,
        direct: &mut Direct,
        target: AddressBlock<'_>,
        payload: &'p [u8],
        more: &mut Payloads<'p>,
    ) -> Result<(), Why> {
        let address = match target.ip() {
            Some(address) => address,
            None => match self.find(&mut direct.names, target, payload, way.now.instant) {
                Found::At(addresses) => addresses[0],
                Found::Waits { ask: false } => return Ok(()),
                Found::Waits { ask: true } => {
                    let Some(turn) = self.turn(way.source) else {
                        direct.names.forget(target.as_bytes());
                        return Err(Why::NoRoom);
                    };
                    search::look_up(way, &self.letters, target, turn);
                    return Ok(());
                }
                Found::Nowhere => return Err(Why::Unroutable),
                Found::Crowded => return Err(Why::NoRoom),
            },
        };
        self.send_to_address(way, direct, address, payload, more)
    }

    /// Sends to an address, unless it is forbidden.
    pub(super) fn send_to_address<'p, N: Net>(
        &mut self,
        way: &WayOut<'_, N>,
        direct: &mut Direct,
        address: SocketAddr,
        payload: &'p [u8],
        more: &mut Payloads<'p>,
    ) -> Result<(), Why> {
        let ip = address.ip().to_canonical();
        if direct.allowed != Some(ip) {
            if let Some(rule) = way.door.inbound.forbidden.check(ip) {
                debug!(%rule, "IP {ip} is in forbidden list, drop");
                return Err(Why::Forbidden);
            }
            direct.allowed = Some(ip);
            direct.note(ip, way.udp.filtering);
        }
        let socket = if ip.is_ipv4() { &mut direct.v4 } else { &mut direct.v6 };
        let socket = match *socket {
            Some(socket) => socket,
            None => *socket.insert(self.open(way.id, way.udp, ip, None, way.source)?),
        };
        let course = Course { socket, to: Some(SocketAddr::new(ip, address.port())), from: None };
        for payload in iter::once(payload).chain(more) {
            self.push(course, |out| out.extend_from_slice(payload));
        }
        Ok(())
    }

    /// Sends what `write` appends for `payload` to a hop, which is looked for first if nobody has yet; once it is there, also what it
    /// appends for what there is `more`.
    fn send_to_hop<'p, N: Net>(
        &mut self,
        way: &WayOut<'_, N>,
        link: &mut Link,
        hop: Hop<'_>,
        payload: &'p [u8],
        more: &mut Payloads<'p>,
        mut write: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), Why>,
    ) -> Result<(), Why> {
        match self.approach(way, link, hop)? {
            Next::Send(socket) => {
                let course = Course { socket, to: None, from: None };
                iter::once(payload)
                    .chain(more)
                    .try_for_each(|payload| self.try_push(course, |out| write(payload, out)))
            }
            Next::Keep => {
                let mut datagram = Vec::new();
                write(payload, &mut datagram)?;
                link.keep(&datagram).map_err(|NoRoom| Why::NoRoom)
            }
            Next::Search | Next::Drop => Err(Why::Unroutable),
        }
    }

    /// Sends what a SOCKS5 proxy is to send on. That is asked first if nobody has yet.
    fn send_to_parent<N: Net>(
        &mut self,
        way: &WayOut<'_, N>,
        link: &mut Link,
        datagram: &Unsealed<'_, '_>,
    ) -> Result<(), Why> {
        match self.approach(way, link, Hop::Asked)? {
            Next::Send(socket) => {
                self.push(Course { socket, to: None, from: None }, |out| {
                    socks5::head(datagram.told, out);
                    out.extend_from_slice(datagram.payload);
                });
                Ok(())
            }
            Next::Keep => datagram.wait_for(link),
            Next::Search | Next::Drop => Err(Why::Unroutable),
        }
    }

    /// What is to be done with a datagram for a hop, which is looked for if nobody has yet.
    fn approach<N: Net>(&mut self, way: &WayOut<'_, N>, link: &mut Link, hop: Hop<'_>) -> Result<Next, Why> {
        if let Next::Search = link.next(way.now.instant) {
            *link = self.search(way, hop)?;
        }
        Ok(link.next(way.now.instant))
    }

    /// Sends through several hops, which are looked for first if nobody has yet.
    fn send_through<N: Net>(
        &mut self,
        way: &WayOut<'_, N>,
        chain: &mut Chain,
        datagram: &Unsealed<'_, '_>,
    ) -> Result<(), Why> {
        let Unsealed { told, payload, .. } = *datagram;
        if let Next::Search = chain.link.next(way.now.instant) {
            chain.link = match way.path.datagram_addresses().as_deref() {
                Some([first, stops @ ..]) => {
                    chain.found(stops);
                    self.search(way, Hop::At(first))?
                }
                Some([]) | None => self.search(way, Hop::Asked)?,
            };
        }
        match chain.link.next(way.now.instant) {
            Next::Send(socket) => {
                let mut scratch = std::mem::take(&mut self.scratch);
                let drawn = self.try_push(Course { socket, to: None, from: None }, |out| {
                    chain.draw(&way.door.net, &mut scratch)?;
                    chain.seal(told, payload, way.now.unix, &mut scratch, out);
                    Ok(())
                });
                self.scratch = scratch;
                drawn
            }
            Next::Keep => datagram.wait_for(&mut chain.link),
            Next::Search | Next::Drop => Err(Why::Unroutable),
        }
    }

    fn search<N: Net>(&mut self, way: &WayOut<'_, N>, hop: Hop<'_>) -> Result<Link, Why> {
        let WayOut { door, udp, id, source, path, now } = *way;
        let search = match hop {
            Hop::At(Address::Ip(address)) | Hop::Shared(Address::Ip(address), _) => {
                let opened = match hop {
                    Hop::Shared(..) => self.trunk(path, udp, *address, now.instant),
                    Hop::At(_) | Hop::Asked => self.open(id, udp, address.ip(), Some(*address), source),
                };
                if let (Ok(socket), Hop::Shared(_, client)) = (&opened, hop) {
                    self.trunks.enter(*socket, client, id);
                }
                return match opened {
                    Ok(socket) => Ok(Link::Open { socket, since: now.instant, _search: None }),
                    Err(Unopened::Spent) => Err(Why::Spent),
                    // What the system refuses it is not asked for with each datagram.
                    Err(Unopened::Exhausted) => Ok(Link::Failed(now.instant + HOP_RETRY_DELAY)),
                    // Another path may be taken for it, which has to be chosen first.
                    Err(Unopened::Refused(error)) => {
                        let search = search::give_up(&self.letters, id, unconnected(path, error));
                        Ok(Link::Waiting(Queue::new(&self.room), search))
                    }
                };
            }
            Hop::At(address) | Hop::Shared(address, _) => {
                let turn = self.turn(EVERYBODY).ok_or(Why::NoRoom)?;
                search::find(way, &self.letters, address.clone(), turn)
            }
            Hop::Asked => {
                let asked = path.hops.iter().filter(|hop| matches!(hop, PathHop::Parent(_)));
                let controls = self.budget.lend(asked.count(), source)?;
                search::ask(door, &self.letters, id, Arc::clone(path), controls)
            }
        };
        Ok(Link::Waiting(Queue::new(&self.room), search))
    }
}

/// The system has no way to the first hop of `path`.
pub(super) fn unconnected(path: &Path, error: io::Error) -> Box<Failure> {
    Box::new(Failure::outbound(Stage::Connect, Cause::Io(error)).at(path.at(0)))
}
