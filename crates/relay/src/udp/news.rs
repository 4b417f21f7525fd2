//! What an engine does with letters: what slow work has come to.

use std::net::SocketAddr;

use umbra_proto::address::{Address, AddressBlock};

use super::association::{Association, AssociationId, Face};
use super::choice::{choices, path_failed};
use super::core::{Core, Moment, Post};
use super::dropped::Why;
use super::lanes::{Lane, LaneId, LaneNumber};
use super::letter::Letter;
use super::link::Link;
use super::outbox::Course;
use super::outside::{Unopened, WayOut, unconnected};
use super::queue::Queue;
use super::uplink::Payloads;
use super::way::Way;
use crate::failure::{Cause, Failure, Stage};
use crate::net::Net;
use crate::net::datagram::{Datagrams, SocketId};

/// How a datagram waits.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Its target, and the payload: it may go by any way.
    Whole,
    /// Sealed, or as it came.
    Sealed,
}

impl Form {
    fn along(way: &Way) -> Self {
        match way {
            Way::Parent(_) | Way::Chain(_) => Self::Whole,
            Way::Direct(_) | Way::Server(_) | Way::Relay(..) => Self::Sealed,
        }
    }
}

impl<N: Net, D: Datagrams> Core<N, D> {
    /// What slow work has come to.
    pub(super) fn read(&mut self, letter: Letter) {
        match letter {
            Letter::Named { id, block, addresses } => self.named(id, &block, addresses),
            Letter::Reached { id, address, stops } => self.reached(id, address, &stops),
            Letter::Lost(id) => self.lost(id),
            Letter::End(id) => self.let_go(id),
            Letter::Probe(question) => {
                if let Err(why) = self.probe(*question) {
                    self.outside.dropped.count(why);
                }
            }
            Letter::Strayed(strayed) => {
                self.outside.letters.arrived();
                if let Err(why) = self.strayed(*strayed) {
                    self.outside.dropped.count(why);
                }
            }
        }
    }

    fn named(&mut self, id: LaneId, block: &[u8], addresses: Box<[SocketAddr]>) {
        let now = self.now();
        let association = self.posts[id.association.post].table.get_mut(id.association.handle);
        if id.number == LaneNumber::ALL {
            let names = association.map(|association| association.lanes.names());
            let waiting = names.and_then(|names| names.learn(block, addresses, now.instant));
            return waiting.into_iter().for_each(|waiting| self.led(id.association, block, &waiting, now));
        }
        let lane = association.and_then(|association| association.lanes.get_mut(id.number));
        let Some(Lane { way: Way::Direct(direct), .. }) = lane else { return };
        let address = addresses.first().copied();
        let waiting = direct.names.learn(block, addresses, now.instant);
        let Some(waiting) = waiting else { return };
        let Some(address) = address else {
            return self.outside.dropped.count_many(Why::Unroutable, waiting.len());
        };
        // What has waited goes out now: others have been idle for longer.
        self.posts[id.association.post].table.touch(id.association.handle, now.instant);
        for payload in waiting.datagrams() {
            let send = |core: &mut Self| core.send_found(id, address, payload, now);
            if let Err(why) = self.with_room(id.association, now, send) {
                self.outside.dropped.count(why);
            }
        }
    }

    /// Sends what has waited for the addresses of its target, wherever it is led now.
    fn led(&mut self, id: AssociationId, block: &[u8], waiting: &Queue, now: Moment) {
        self.posts[id.post].table.touch(id.handle, now.instant);
        for payload in waiting.datagrams() {
            if let Err(why) = self.send_up(id, Some(block), payload, now) {
                self.outside.dropped.count(why);
            }
        }
    }

    /// Sends what has waited for the address of its target.
    fn send_found(
        &mut self,
        id: LaneId,
        address: SocketAddr,
        payload: &[u8],
        now: Moment,
    ) -> Result<(), Why> {
        let Self { posts, outside, .. } = self;
        let Post { door, udp, table, .. } = &mut posts[id.association.post];
        let association = table.get_mut(id.association.handle).ok_or(Why::NoRoom)?;
        let source = association.client.address.ip();
        let lane = association.lanes.get_mut(id.number);
        let Some(Lane { way: Way::Direct(direct), path, .. }) = lane else { return Err(Why::NoRoom) };
        let way_out = WayOut { door, udp, id, source, path, now };
        outside.send_to_address(&way_out, direct, address, payload, &mut Payloads::default())
    }

    /// Opens the socket of a lane whose first hop is found, if there is still somebody who waits for it; or says why the system cannot.
    fn open_found(
        &mut self,
        id: LaneId,
        address: SocketAddr,
        now: Moment,
    ) -> Result<Result<SocketId, Box<Failure>>, Why> {
        let Self { posts, outside, .. } = self;
        let Post { udp, table, .. } = &mut posts[id.association.post];
        // What has waited goes out now: others have been idle for longer.
        table.touch(id.association.handle, now.instant);
        let association = table.get_mut(id.association.handle).ok_or(Why::NoRoom)?;
        let source = association.client.address.ip();
        let Lane { way, path, .. } = association.lanes.get_mut(id.number).ok_or(Why::NoRoom)?;
        let opened = match way {
            Way::Server(through) if through.is_shared() => outside.trunk(path, udp, address, now.instant),
            Way::Direct(_) | Way::Server(_) | Way::Parent(_) | Way::Chain(_) | Way::Relay(..) => {
                outside.open(id, udp, address.ip(), Some(address), source)
            }
        };
        match opened {
            Ok(socket) => Ok(Ok(socket)),
            Err(Unopened::Refused(error)) => Ok(Err(unconnected(path, error))),
            Err(why) => Err(why.into()),
        }
    }

    fn reached(&mut self, id: LaneId, address: Result<SocketAddr, Box<Failure>>, stops: &[Address]) {
        let now = self.now();
        let address = match address {
            Ok(address) => address,
            Err(failure) => return self.unreachable(id, &failure, now),
        };
        match self.with_room(id.association, now, |core| core.open_found(id, address, now)) {
            Ok(Ok(socket)) => self.opened(id, socket, stops, now),
            Ok(Err(failure)) => self.unreachable(id, &failure, now),
            Err(why) => {
                if let Some((_, queue)) = self.stop_waiting(id, now) {
                    self.outside.dropped.count_many(why, queue.len());
                }
            }
        }
    }

    /// Sends from `socket` what has waited for it, if anybody still waits.
    fn opened(&mut self, id: LaneId, socket: SocketId, stops: &[Address], now: Moment) {
        let Self { posts, outside, .. } = self;
        let association = posts[id.association.post].table.get_mut(id.association.handle);
        let lane = association.and_then(|association| association.lanes.get_mut(id.number));
        let Some(Lane { way, .. }) = lane else { return outside.shut(socket) };
        let Some(queue) = way.link().and_then(|link| link.open(socket, now.instant)) else {
            return outside.shut(socket);
        };
        if let Way::Server(through) = way
            && let Some(client) = through.session.id()
        {
            outside.trunks.enter(socket, client, id);
        }
        if let Way::Chain(chain) = way {
            chain.found(stops);
        }
        match Form::along(way) {
            Form::Whole => self.send_whole(id.association, &queue, now),
            Form::Sealed => {
                for datagram in queue.datagrams() {
                    let course = Course { socket, to: None, from: None };
                    outside.push(course, |out| out.extend_from_slice(datagram));
                }
            }
        }
    }

    /// Sends what waits with its target, by the way that it is led now.
    fn send_whole(&mut self, id: AssociationId, queue: &Queue, now: Moment) {
        for datagram in queue.datagrams() {
            let Ok((target, payload)) = AddressBlock::split(datagram) else { continue };
            if let Err(why) = self.send_up(id, Some(target.as_bytes()), payload, now) {
                self.outside.dropped.count(why);
            }
        }
    }

    /// The path of a lane leads nowhere: what has waited takes another one of the group, and a question of our own has failed.
    fn unreachable(&mut self, id: LaneId, why: &Failure, now: Moment) {
        let Post { door, table, .. } = &mut self.posts[id.association.post];
        door.notices.failure(why);
        let Some(Association { face, lanes, .. }) = table.get_mut(id.association.handle) else { return };
        if matches!(face, Face::Probe(_)) {
            if let Some((_, queue)) = self.stop_waiting(id, now) {
                self.outside.dropped.count_many(Why::Unroutable, queue.len());
            }
            return self.end(id.association);
        }
        path_failed(door, lanes, id.number, why, now.instant);
        let choices = choices(door, lanes, id.number);
        let Some((form, queue)) = self.stop_waiting(id, now) else { return };
        // Each member is given it once: where all are dead it would go round among them as fast as they refuse.
        if queue.in_vain() + 1 < choices {
            self.send_again(id.association, form, Why::Unroutable, &queue, now);
        } else {
            self.outside.dropped.count_many(Why::Unroutable, queue.len());
        }
    }

    /// Takes from a lane what waits for its way, which is not looked for again at once.
    fn stop_waiting(&mut self, id: LaneId, now: Moment) -> Option<(Form, Queue)> {
        let association = self.posts[id.association.post].table.get_mut(id.association.handle)?;
        let way = &mut association.lanes.get_mut(id.number)?.way;
        let form = Form::along(way);
        Some((form, way.link()?.fail(now.instant)?))
    }

    /// Sends along another path what has waited for one that could not be taken, as far as it was not sealed for that.
    fn send_again(&mut self, id: AssociationId, form: Form, why: Why, queue: &Queue, now: Moment) {
        match form {
            Form::Whole => self.send_whole(id, queue, now),
            Form::Sealed => self.outside.dropped.count_many(why, queue.len()),
        }
        let association = self.posts[id.post].table.get_mut(id.handle);
        for lane in association.into_iter().flat_map(|association| association.lanes.iter_mut()) {
            if let Some(Link::Waiting(waiting, _)) = lane.way.link() {
                waiting.note_in_vain(queue.in_vain() + 1);
            }
        }
    }

    /// A hop has let go of the association; the next datagram asks it again, or takes another path of the group.
    fn lost(&mut self, id: LaneId) {
        let now = self.now();
        let Self { posts, outside, .. } = self;
        let Post { door, table, .. } = &mut posts[id.association.post];
        let Some(Association { face, lanes, .. }) = table.get_mut(id.association.handle) else { return };
        if !matches!(face, Face::Probe(_)) {
            let why = Failure::outbound(Stage::Relay, Cause::Truncated);
            path_failed(door, lanes, id.number, &why, now.instant);
        }
        let Some(lane) = lanes.get_mut(id.number) else { return };
        let Some(link) = lane.way.link() else { return };
        if let Some(socket) = link.lose(now.instant) {
            outside.shut(socket);
        }
    }
}
