//! Datagrams of the outside: many for a call, both ways.
//!
//! Sockets are told by number, so that one wait watches all of them and a late word about one that is closed reaches nobody.

use std::fmt;
use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::ops::{AddAssign, Range};
use std::slice::ChunksMut;
use std::task::{Context, Poll};

use crate::limits::{INBOX_SLOT_BYTES, INBOX_SLOTS};

/// The sockets of one worker.
pub trait Datagrams: Send + 'static {
    /// Opens a socket.
    fn open(&mut self, binding: Binding) -> io::Result<SocketId>;

    /// Closes a socket. What waits in it is lost, and its number means nothing from here on.
    fn close(&mut self, socket: SocketId);

    /// Where a socket is.
    fn local_addr(&self, socket: SocketId) -> io::Result<SocketAddr>;

    /// Waits until something may be received, and appends the sockets where. After that a socket is told again only once it has been
    /// drained; it may be told although nothing is there.
    fn poll_ready(&mut self, cx: &mut Context<'_>, ready: &mut Vec<SocketId>) -> Poll<io::Result<()>>;

    /// Receives one batch, behind what is in `inbox` and no more than has room there. It may be empty.
    ///
    /// What the network tells of earlier datagrams (ICMP) is no error here. After an error the socket is of no more use.
    fn receive(&mut self, socket: SocketId, inbox: &mut Inbox) -> io::Result<Backlog>;

    /// Sends `parcels` in their order. What cannot be sent at once is dropped.
    fn send(&mut self, socket: SocketId, parcels: &[Parcel<'_>]) -> Sent;
}

/// One socket of a worker. Its number may be used again after it is closed, the whole of it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// Where the socket stands in its worker's table.
    pub index: u32,
    /// Which of those that stood there.
    pub generation: u32,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The way out, on a port of the system's choice.
    Outgoing {
        /// Its own address. An unspecified one leaves the choice to the routes, and says which family it is.
        ip: IpAddr,
        /// The only one it speaks with.
        peer: Option<SocketAddr>,
        /// Whether the network may cut datagrams that are too long for it. Else they are not sent.
        fragments: bool,
        /// Whether it is for many clients, so that it needs the room of a door.
        is_shared: bool,
    },
}

/// What a receive has left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Nothing: the socket will be told when something has come.
    Drained,
    /// There may be more, and the socket will not be told until it has been drained.
    More,
}

/// Datagrams of one size on their way to one place.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// Where to; whoever the socket is connected with, if it is none.
    pub to: Option<SocketAddr>,
    /// The address to send from, of those that a socket bound to all of them has.
    pub from: Option<IpAddr>,
    /// The datagrams, one after the other.
    pub bytes: &'a [u8],
    /// Bytes of each datagram but the last, which may be shorter. Nought means that it is one.
    pub segment: usize,
}

impl Parcel<'_> {
    /// How many datagrams it is.
    pub fn count(&self) -> usize {
        if self.segment == 0 { 1 } else { self.bytes.len().div_ceil(self.segment).max(1) }
    }
}

/// What has become of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// They went.
    pub datagrams: usize,
    /// Dropped for want of room in the socket or its device.
    pub crowded: usize,
    /// Dropped since they were too long for the way.
    pub oversized: usize,
    /// Dropped for another reason: no route, a firewall, a port that is none.
    pub failed: usize,
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.crowded += other.crowded;
        self.oversized += other.oversized;
        self.failed += other.failed;
    }
}

/// Room for one batch or several short ones, and what was received last. One for each worker: it is large, but only what is used of it takes memory.
pub struct Inbox {
    slots: Box<[u8]>,
    filled: Vec<Filled>,
    truncated: usize,
}

/// What lies in a slot: a datagram, or several of one size that the system has put together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filled {
    pub(crate) source: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    pub(crate) len: usize,
    /// Bytes of each datagram but the last; nought if it is one.
    pub(crate) segment: usize,
    /// There was more of it than the slot holds.
    pub(crate) is_truncated: bool,
}

/// A datagram that has come.
#[derive(Debug)]
pub struct Received<'a> {
    /// Who has sent it. An IPv4 address is one, whatever the family of the socket.
    pub source: SocketAddr,
    /// Which of our addresses it came to, if a door is bound to all of them.
    pub local: Option<IpAddr>,
    /// The datagram.
    pub bytes: &'a mut [u8],
}

/// The datagrams of a batch, one after the other.
#[derive(Debug)]
pub struct Arrivals<'i> {
    /// What is left of a slot that has been begun with.
    begun: Option<(&'i Filled, &'i mut [u8])>,
    /// The slots behind it, and what lies in them.
    slots: &'i mut [u8],
    filled: &'i [Filled],
}

impl Inbox {
    /// Room for a batch.
    pub fn new() -> Self {
        let slots = vec![0; INBOX_SLOTS * INBOX_SLOT_BYTES].into_boxed_slice();
        Self { slots, filled: Vec::with_capacity(INBOX_SLOTS), truncated: 0 }
    }

    /// All datagrams, those of each batch in the order of their arrival.
    pub fn datagrams(&mut self) -> Arrivals<'_> {
        self.datagrams_in(0..self.filled.len())
    }

    /// The datagrams in some slots.
    pub(crate) fn datagrams_in(&mut self, slots: Range<usize>) -> Arrivals<'_> {
        let Self { slots: bytes, filled, .. } = self;
        let bytes = &mut bytes[slots.start * INBOX_SLOT_BYTES..slots.end * INBOX_SLOT_BYTES];
        Arrivals { begun: None, slots: bytes, filled: &filled[slots] }
    }

    /// Slots that are filled.
    pub(crate) fn len(&self) -> usize {
        self.filled.len()
    }

    /// Slots that are free.
    pub fn room(&self) -> usize {
        INBOX_SLOTS - self.filled.len()
    }

    /// The memory that datagrams lie in, to find again what was seen in it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.slots
    }

    /// How many datagrams have been dropped so far because they were longer than any can be.
    pub fn truncated(&self) -> usize {
        self.truncated
    }

    /// Frees all slots.
    pub fn clear(&mut self) {
        self.filled.clear();
    }

    /// Adds datagrams of `segment` bytes each, the last of which may be shorter, or one if `segment` is nought. Says whether there was
    /// room.
    pub fn push(&mut self, source: SocketAddr, local: Option<IpAddr>, bytes: &[u8], segment: usize) -> bool {
        let slot = self.slots.chunks_mut(INBOX_SLOT_BYTES).nth(self.filled.len());
        let Some(room) = slot.and_then(|slot| slot.get_mut(..bytes.len())) else { return false };
        room.copy_from_slice(bytes);
        self.filled.push(Filled { source, local, len: bytes.len(), segment, is_truncated: false });
        true
    }

    /// The free slots, and how what is put there is told of, in the order of the slots.
    pub(crate) fn fill(&mut self) -> (ChunksMut<'_, u8>, impl FnMut(Filled)) {
        let Self { slots, filled, truncated } = self;
        let free = slots[filled.len() * INBOX_SLOT_BYTES..].chunks_mut(INBOX_SLOT_BYTES);
        let told = |mut slot: Filled| {
            if slot.is_truncated {
                *truncated += 1;
            }
            slot.len = slot.len.min(INBOX_SLOT_BYTES);
            filled.push(slot);
        };
        (free, told)
    }
}

impl Arrivals<'_> {
    /// Whether there are any more.
    pub(crate) fn has_more(&self) -> bool {
        self.begun.is_some() || self.filled.iter().any(|filled| !filled.is_truncated)
    }

    /// What those say that come next, where that is anything.
    pub(crate) fn upcoming(&self) -> impl Iterator<Item = &[u8]> {
        let begun = self.begun.as_ref().map(|(filled, rest)| (*filled, &**rest));
        let slots = self.filled.iter().zip(self.slots.chunks(INBOX_SLOT_BYTES));
        let whole = slots.filter(|(filled, _)| !filled.is_truncated);
        let whole = whole.map(|(filled, slot)| (filled, &slot[..filled.len]));
        begun.into_iter().chain(whole).flat_map(|(filled, bytes)| bytes.chunks(filled.piece_bytes()))
    }
}

// Written out, since each datagram goes through it: of adapters around each other as much was spent here as on a small packet's cipher.
impl<'i> Iterator for Arrivals<'i> {
    type Item = Received<'i>;

    fn next(&mut self) -> Option<Received<'i>> {
        let (filled, bytes) = match self.begun.take() {
            Some(begun) => begun,
            None => loop {
                let (filled, others) = self.filled.split_first()?;
                let (slot, slots) = mem::take(&mut self.slots).split_at_mut_checked(INBOX_SLOT_BYTES)?;
                (self.filled, self.slots) = (others, slots);
                if !filled.is_truncated {
                    break (filled, &mut slot[..filled.len]);
                }
            },
        };
        // An empty datagram is one as well.
        let (bytes, rest) = bytes.split_at_mut(bytes.len().min(filled.piece_bytes()));
        if !rest.is_empty() {
            self.begun = Some((filled, rest));
        }
        Some(Received { source: filled.source, local: filled.local, bytes })
    }
}

impl Filled {
    /// Bytes of each datagram but the last.
    fn piece_bytes(&self) -> usize {
        if self.segment == 0 { INBOX_SLOT_BYTES } else { self.segment }
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("filled", &self.filled.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(inbox: &mut Inbox) -> Vec<usize> {
        inbox.datagrams().map(|received| received.bytes.len()).collect()
    }

    #[test]
    fn what_was_put_together_is_taken_apart_and_an_empty_datagram_is_one() {
        let mut inbox = Inbox::new();
        let source = SocketAddr::from(([192, 0, 2, 1], 53));
        assert!(inbox.push(source, None, &[7; 25], 10));
        assert!(inbox.push(source, None, &[], 0));
        assert!(inbox.push(source, None, &[7; 20], 10));
        assert!(inbox.push(source, None, &[7; 3], 10));
        assert_eq!(lengths(&mut inbox), [10, 10, 5, 0, 10, 10, 3]);
    }

    #[test]
    fn what_comes_next_is_known_before_it_is_taken() {
        let mut inbox = Inbox::new();
        let source = SocketAddr::from(([192, 0, 2, 1], 53));
        assert!(inbox.push(source, None, &[7; 25], 10));
        let (_, mut told) = inbox.fill();
        told(Filled { source, local: None, len: INBOX_SLOT_BYTES + 1, segment: 0, is_truncated: true });
        told(Filled { source, local: None, len: 4, segment: 0, is_truncated: false });
        told(Filled { source, local: None, len: 9, segment: 0, is_truncated: true });
        drop(told);
        assert_eq!((inbox.datagrams_in(1..4).count(), inbox.room()), (1, INBOX_SLOTS - 4));
        let mut arrivals = inbox.datagrams();
        let mut left = vec![10, 10, 5, 4];
        while arrivals.has_more() {
            assert!(arrivals.upcoming().map(<[u8]>::len).eq(left.iter().copied()));
            assert_eq!(arrivals.next().map(|received| received.bytes.len()), Some(left.remove(0)));
        }
        assert!(left.is_empty() && arrivals.next().is_none());
    }

    #[test]
    fn what_is_too_long_for_any_slot_or_one_too_many_finds_no_room() {
        let mut inbox = Inbox::new();
        let source = SocketAddr::from(([192, 0, 2, 1], 53));
        assert!(!inbox.push(source, None, &vec![0; INBOX_SLOT_BYTES + 1], 0));
        for _ in 0..INBOX_SLOTS {
            assert!(inbox.push(source, None, b"x", 0));
        }
        assert!(!inbox.push(source, None, b"x", 0));
        inbox.clear();
        assert!(lengths(&mut inbox).is_empty());
    }

    #[test]
    fn a_truncated_datagram_is_counted_and_not_shown() {
        let mut inbox = Inbox::new();
        let source = SocketAddr::from(([192, 0, 2, 1], 53));
        let (_, mut told) = inbox.fill();
        told(Filled { source, local: None, len: INBOX_SLOT_BYTES + 1, segment: 0, is_truncated: true });
        told(Filled { source, local: None, len: 4, segment: 0, is_truncated: false });
        drop(told);
        assert_eq!((lengths(&mut inbox), inbox.truncated()), (vec![4], 1));
    }

    #[test]
    fn a_parcel_knows_how_many_it_is() {
        let parcel = |len: usize, segment| Parcel { to: None, from: None, bytes: &[0; 99][..len], segment };
        let counts = [(0, 0), (0, 5), (99, 0), (99, 99), (99, 33), (99, 50), (99, 100)];
        assert_eq!(counts.map(|(len, segment)| parcel(len, segment).count()), [1, 1, 1, 1, 3, 2, 1]);
    }
}
