//! What slow work tells an engine when it is done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use umbra_proto::address::Address;

use super::association::{AssociationId, Client};
use super::core::Key;
use super::lanes::LaneId;
use super::probe::Question;
use super::queue::NoRoom;
use crate::failure::Failure;
use crate::limits::STRAYED_MAX;

/// News for an engine.
#[derive(Debug)]
pub(super) enum Letter {
    /// A target's name has been looked up.
    Named {
        /// Who asked.
        id: LaneId,
        /// The address block that was asked for.
        block: Box<[u8]>,
        /// The addresses that may be sent to, best first; none, if there is none.
        addresses: Box<[SocketAddr]>,
    },
    /// The first hop of a lane can be sent to at this address now; or one of its hops cannot be found.
    Reached {
        /// Whose way it is on.
        id: LaneId,
        /// Where; or what has gone wrong.
        address: Result<SocketAddr, Box<Failure>>,
        /// Where those behind it are, that one had to ask for: as the hop before each is told.
        stops: Box<[Address]>,
    },
    /// A hop has let go of a lane.
    Lost(LaneId),
    /// An association has lost what it lived by.
    End(AssociationId),
    /// Something to be asked.
    Probe(Box<Question>),
    /// A packet for an association that lives here has come to another worker.
    Strayed(Box<Strayed>),
}

/// A packet that another worker has looked at.
#[derive(Debug)]
pub(super) struct Strayed {
    /// The door, as this engine counts.
    pub(super) post: usize,
    /// Whose association.
    pub(super) key: Key,
    /// Where it came from.
    pub(super) client: Client,
    /// The packet after the first look.
    pub(super) bytes: Box<[u8]>,
    /// What is known of it, if another server understands it.
    pub(super) forward: Option<Onward>,
}

/// What is known of a packet that another server understands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Onward {
    /// Where the part begins that goes on.
    pub(super) start: usize,
    /// Its id in its session.
    pub(super) packet: u64,
}

/// Where letters for one engine are posted.
#[derive(Clone, Debug)]
pub(crate) struct Letters {
    sender: UnboundedSender<Letter>,
    /// Packets on their way: strangers can cause these.
    strayed: Arc<AtomicUsize>,
}

/// Letters as they are read.
pub(super) type Mailbox = UnboundedReceiver<Letter>;

impl Letters {
    pub(super) fn new() -> (Self, Mailbox) {
        let (sender, mailbox) = unbounded_channel();
        (Self { sender, strayed: Arc::default() }, mailbox)
    }

    /// Posts a letter. An engine that has stopped needs no news.
    pub(super) fn send(&self, letter: Letter) {
        let _ = self.sender.send(letter);
    }

    /// Whether both are for the same engine.
    pub(super) fn lead_to_same(&self, other: &Self) -> bool {
        self.sender.same_channel(&other.sender)
    }

    /// Sends a packet to where it belongs, unless too many are on their way there.
    pub(super) fn forward(&self, packet: Strayed) -> Result<(), NoRoom> {
        if self.strayed.fetch_add(1, Ordering::Relaxed) >= STRAYED_MAX {
            self.strayed.fetch_sub(1, Ordering::Relaxed);
            return Err(NoRoom);
        }
        self.send(Letter::Strayed(Box::new(packet)));
        Ok(())
    }

    /// A packet has arrived.
    pub(super) fn arrived(&self) {
        self.strayed.fetch_sub(1, Ordering::Relaxed);
    }
}
