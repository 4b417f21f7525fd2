//! Datagrams: one engine for each worker. Wait, receive a batch, understand each datagram where it lies, bring together what goes
//! the same way, lay it out behind one another and seal it, send.
//!
//! - [`association`]: one client's datagrams; [`table`]: those of a door on a worker.
//! - [`choice`], [`lanes`]: which path a datagram takes; [`way`], [`chain`]: what is done to it there, and to the [`answer`].
//! - [`permits`]: whose datagrams a SOCKS5 door takes; [`packets`]: whose a Shadowsocks packet is.
//! - [`trunks`]: sockets to Shadowsocks servers that associations share.
//! - [`names`], [`link`], [`queue`]: targets and hops that have to be found first, and what waits for them.
//! - [`shortage`]: who makes room where sockets are spent; [`turns`]: who may look something up.
//! - [`outbox`]: what a batch sends; [`dropped`]: what went nowhere.
//! - [`letter`], [`news`]: what slow work tells an engine when it is done, and what comes of it.
//! - [`probe`]: questions of our own.

mod answer;
mod association;
pub(crate) mod budget;
mod chain;
mod choice;
mod core;
pub(crate) mod directory;
mod displaced;
mod dropped;
pub(crate) mod front;
mod lanes;
mod letter;
mod link;
mod member_trial;
mod names;
mod news;
mod outbox;
mod outside;
mod packets;
pub(crate) mod permits;
mod probe;
mod queue;
mod random;
mod search;
mod shortage;
pub(crate) mod table;
#[cfg(test)]
mod tests;
mod trials;
mod trunks;
mod turns;
mod uplink;
mod way;

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep};
use tracing::{error, warn};

use self::core::{Core, Moment, Post};
use umbra_proto::shadowsocks::packet::{AHEAD_MAX, PacketHop};

use crate::door::Door;
use crate::limits::{
    DATAGRAM_BATCHES_PER_TURN, DATAGRAM_TURNS_MAX, INBOX_SLOTS, SHORTAGE_LINE_PERIOD, SWEEP_PERIOD,
};
use crate::net::Net;
use crate::net::datagram::{Arrivals, Backlog, Datagrams, Inbox, Received, SocketId};
use answer::Arrived;
use association::{AssociationId, Client};
use budget::Budget;
use directory::Home;
use dropped::Why;
use lanes::LaneId;
use letter::{Letters, Mailbox};
use outside::{Outside, Owner};
use trials::Trials;
use uplink::{Payloads, Understood};

/// A worker's datagrams: everything between its sockets, for all doors that take datagrams.
pub struct Engine<N: Net, D: Datagrams> {
    core: Core<N, D>,
    mailbox: Mailbox,
    inbox: Inbox,
    /// How many of those that were too long have been counted.
    truncated: usize,
    /// What the batch in the inbox came to.
    uplinks: Vec<Understood>,
    /// Lanes by which something has come, and in which slots of the inbox it lies.
    lanes: Vec<(LaneId, Range<usize>)>,
    ready: VecDeque<SocketId>,
    told_ready: Vec<SocketId>,
    /// Sockets that could not be received from, to be tried again at the next sweep.
    failed: Vec<SocketId>,
    /// When it was last said that there are any.
    failure_told: Option<Instant>,
    sweep: Pin<Box<Sleep>>,
}

impl<N: Net, D: Datagrams> Engine<N, D> {
    /// An engine for `doors`, each with its socket among `sockets`, and with outgoing sockets from `budget`.
    pub fn new(doors: Vec<(Arc<Door<N>>, SocketId)>, sockets: D, budget: Arc<Budget>) -> Self {
        let (letters, mailbox) = Letters::new();
        let mut core = Core {
            posts: Vec::with_capacity(doors.len()),
            outside: Outside::new(sockets, letters, budget),
            live: 0,
            trials: Trials::new(Instant::now()),
            orphans: HashSet::new(),
            probes: Vec::new(),
            probed: 0,
        };
        for (door, socket) in doors {
            let post = core.posts.len();
            core.outside.own(socket, post);
            let Some(known) = Post::new(door, socket, core.outside.budget.sockets()) else { continue };
            // The first worker that has the door sees to its questions.
            let _ = known.door.engine.set(Home { letters: core.outside.letters.clone(), post });
            core.posts.push(known);
        }
        Self {
            core,
            mailbox,
            inbox: Inbox::new(),
            truncated: 0,
            uplinks: Vec::new(),
            lanes: Vec::new(),
            ready: VecDeque::new(),
            told_ready: Vec::new(),
            failed: Vec::new(),
            failure_told: None,
            sweep: Box::pin(sleep(SWEEP_PERIOD)),
        }
    }

    /// Relays until it is dropped; all its sockets close then.
    pub async fn run(mut self) -> Infallible {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Infallible> {
        for _ in 0..DATAGRAM_TURNS_MAX {
            while let Poll::Ready(Some(letter)) = self.mailbox.poll_recv(cx) {
                self.core.read(letter);
            }
            // Asked again after each sweep: whoever is not asked need not wake us.
            while (self.core.wants_sweep() || !self.failed.is_empty())
                && self.sweep.as_mut().poll(cx).is_ready()
            {
                self.core.sweep();
                self.ready.extend(self.failed.drain(..));
                self.sweep.as_mut().reset(Instant::now() + SWEEP_PERIOD);
            }
            match self.core.outside.sockets.poll_ready(cx, &mut self.told_ready) {
                Poll::Ready(Ok(())) => self.ready.extend(self.told_ready.drain(..)),
                Poll::Ready(Err(error)) => {
                    error!(%error, "datagram sockets cannot be watched any more");
                    return Poll::Pending;
                }
                Poll::Pending if self.ready.is_empty() => {
                    self.core.outside.flush();
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
            let now = self.core.now();
            for _ in 0..DATAGRAM_BATCHES_PER_TURN {
                let Some(socket) = self.ready.pop_front() else { break };
                self.batch(socket, now);
            }
            self.core.outside.flush();
        }
        // The worker's other work has its turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One batch of what waits at `socket`, or short ones of several.
    fn batch(&mut self, socket: SocketId, now: Moment) {
        self.inbox.clear();
        match self.core.outside.owner(socket) {
            Some(Owner::Post(post)) => {
                self.receive(socket);
                self.uplink(post, now);
            }
            Some(Owner::Lane(association, number, _)) => {
                self.gather(LaneId { association, number }, socket);
                self.downlink(now);
            }
            Some(Owner::Trunk) => {
                self.receive(socket);
                self.core.answers(socket, &mut self.inbox, now);
            }
            None => {}
        }
    }

    /// Receives what waits at `socket`, as far as there is room for it.
    fn receive(&mut self, socket: SocketId) {
        let Self { core, inbox, truncated, .. } = self;
        match core.outside.sockets.receive(socket, inbox) {
            Ok(Backlog::More) => self.ready.push_back(socket),
            Ok(Backlog::Drained) => {}
            Err(error) => {
                // It may pass, as a want of memory does; nothing would tell of the socket again. As many as there are may fail at every
                // sweep, and one line says it.
                if self.failure_told.is_none_or(|told| told.elapsed() >= SHORTAGE_LINE_PERIOD) {
                    self.failure_told = Some(Instant::now());
                    warn!(%error, "cannot receive datagrams for now");
                }
                core.outside.trunks.fail(socket);
                self.failed.push(socket);
            }
        }
        let cut = inbox.truncated() - std::mem::replace(truncated, inbox.truncated());
        core.outside.dropped.count_many(Why::Oversized, cut);
    }

    /// Receives what has come by the lane `id` to its `socket`, and what waits for other lanes that are ready behind it: each brings one or
    /// two datagrams where there are many, and opened together they cost less.
    fn gather(&mut self, id: LaneId, socket: SocketId) {
        self.lanes.clear();
        let mut next = Some((id, socket));
        while let Some((id, socket)) = next.take() {
            let start = self.inbox.len();
            self.receive(socket);
            self.lanes.push((id, start..self.inbox.len()));
            if self.inbox.len().max(self.lanes.len()) < GATHERED_SLOTS
                && let Some(socket) = self.ready.front().copied()
                && let Some(Owner::Lane(association, number, _)) = self.core.outside.owner(socket)
            {
                self.ready.pop_front();
                next = Some((LaneId { association, number }, socket));
            }
        }
    }

    /// What has come by lanes.
    fn downlink(&mut self, now: Moment) {
        let Self { core, inbox, lanes, .. } = self;
        let mut lanes = &lanes[..];
        while let [(first, _), ..] = lanes {
            let hop = core.hop_on_lane(*first).cloned();
            let ahead = |arrivals: &Arrivals<'_>| hop.as_ref()?.ahead(arrivals.upcoming().take(AHEAD_MAX));
            let (these, others) = lanes.split_at(together(core, inbox, hop.as_ref(), lanes));
            let slots = these.iter().map(|(_, slots)| slots.clone());
            let slots = slots.reduce(|all, more| all.start..more.end).unwrap_or_default();
            let mut known = ahead(&inbox.datagrams_in(slots));
            for (id, slots) in these {
                let mut arrivals = inbox.datagrams_in(slots.clone());
                while arrivals.has_more() {
                    let some = arrivals.by_ref().take(AHEAD_MAX);
                    let mut arrived =
                        some.map(|Received { source, bytes, .. }| Arrived::Whole(source, bytes));
                    // What is not good has been counted, and what the lane does not take goes nowhere.
                    let _ = core.downlink(*id, arrived.by_ref(), now);
                    arrived.for_each(drop);
                    if arrivals.has_more() {
                        // What was known is forgotten before more is.
                        drop(known.take());
                        known = ahead(&arrivals);
                    }
                }
            }
            lanes = others;
        }
    }

    /// What clients have sent to the door `post`.
    fn uplink(&mut self, post: usize, now: Moment) {
        let Self { core, inbox, uplinks, .. } = self;
        let mut arrivals = inbox.datagrams();
        while arrivals.has_more() {
            let _ahead = core.ahead_at_door(post, &arrivals);
            for Received { source, local, bytes } in arrivals.by_ref().take(AHEAD_MAX) {
                match core.understand(post, Client { address: source, local }, bytes, now) {
                    Ok(understood) => uplinks.push(understood),
                    Err(why) => core.outside.dropped.count(why),
                }
            }
        }
        // Brought together by association, those of each in the order in which they came.
        uplinks.sort_unstable_by_key(|uplink| (uplink.handle, uplink.payload));
        let bytes = inbox.bytes();
        for alike in uplinks.chunk_by(|one, next| one.is_like(next, bytes)) {
            let id = AssociationId { post, handle: alike[0].handle };
            let block = alike[0].block.map(|place| &bytes[place.within(bytes)]);
            let mut payloads = Payloads::new(bytes, alike);
            while let Some(payload) = payloads.next() {
                if let Err(why) = core.send_up_with(id, block, payload, &mut payloads, now) {
                    core.outside.dropped.count(why);
                }
            }
        }
        uplinks.clear();
    }
}

/// How many of `lanes`, the first of which leads to `hop`, are opened together: those through the same server that bring no more than is
/// known ahead; or the first alone, whatever it brings.
fn together<N: Net, D: Datagrams>(
    core: &mut Core<N, D>,
    inbox: &mut Inbox,
    hop: Option<&Arc<PacketHop>>,
    lanes: &[(LaneId, Range<usize>)],
) -> usize {
    let mut left = AHEAD_MAX;
    let fits = |(id, slots): &&(LaneId, Range<usize>)| {
        let is_same = core.hop_on_lane(*id).zip(hop).is_some_and(|(other, hop)| Arc::ptr_eq(other, hop));
        let rest = left.checked_sub(inbox.datagrams_in(slots.clone()).upcoming().count());
        left = rest.unwrap_or(0);
        is_same && rest.is_some()
    };
    lanes.iter().take_while(fits).count().max(1)
}

/// With so many slots filled, or so many lanes asked, no other lane is looked at: there is room for a batch of the last one.
const GATHERED_SLOTS: usize = INBOX_SLOTS / 2;
