//! Buffers in three sizes, pooled per worker, and what lies in one: bytes that arrived, and pieces ready to leave.

use std::cell::RefCell;
use std::ops::Range;

use crate::limits::{
    LARGE_BATCH_BYTES, LARGE_BATCHES_MAX, MEDIUM_BATCH_BYTES, MEDIUM_READ_BYTES, POOLED_LARGE_MAX,
    POOLED_MEDIUM_MAX, POOLED_SMALL_MAX, SMALL_BATCH_BYTES,
};

/// How large a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// One record: latency, handshakes.
    Small,
    /// Some records.
    Medium,
    /// Bulk; their number is bounded.
    Large,
}

impl Size {
    /// Bytes in a buffer of this size.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Small => SMALL_BATCH_BYTES,
            Self::Medium => MEDIUM_BATCH_BYTES,
            Self::Large => LARGE_BATCH_BYTES,
        }
    }

    /// How much of it a read may fill.
    pub(crate) fn reach(self) -> usize {
        match self {
            Self::Small | Self::Large => self.bytes(),
            Self::Medium => MEDIUM_READ_BYTES,
        }
    }

    /// The next larger size.
    pub(crate) fn larger(self) -> Self {
        match self {
            Self::Small => Self::Medium,
            Self::Medium | Self::Large => Self::Large,
        }
    }

    /// The next smaller size.
    pub(crate) fn smaller(self) -> Self {
        match self {
            Self::Small | Self::Medium => Self::Small,
            Self::Large => Self::Medium,
        }
    }
}

/// A buffer in use. Goes back to its worker's pool when dropped.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Always there until the drop.
    slab: Option<Box<Slab>>,
}

/// What a batch holds, boxed so that a direction that has none stays small.
#[derive(Debug)]
pub(crate) struct Slab {
    size: Size,
    /// The whole buffer.
    pub(crate) bytes: Box<[u8]>,
    /// How much of it a read may fill, unless one record needs more.
    pub(crate) reach: usize,
    /// Where bytes lie that have arrived and are not yet opened or forwarded.
    pub(crate) arrived: Range<usize>,
    /// Pieces ready to be written, in order.
    ready: Vec<Range<usize>>,
    /// The first piece of `ready` that is not wholly written.
    next: usize,
}

impl Batch {
    /// A buffer of `size`, or of the next smaller one where the worker's large ones are all in use.
    pub(crate) fn take(size: Size) -> Self {
        Self { slab: Some(POOL.with_borrow_mut(|pool| pool.take(size))) }
    }

    /// A buffer of exactly `len` bytes that is not pooled, for what fits no size.
    pub(crate) fn unpooled(len: usize) -> Self {
        Self { slab: Some(Slab::new(Size::Small, len, len)) }
    }

    /// Moves what has arrived to the front, or to a larger buffer, so that at least `room` bytes fit from the first of them
    /// on. The pieces must have been written. Says whether it succeeded: no buffer is larger than a large one.
    pub(crate) fn make_room(&mut self, room: usize) -> bool {
        let slab = &mut **self;
        let len = slab.arrived.len();
        if room > slab.bytes.len() {
            let size = [Size::Medium, Size::Large].into_iter().find(|size| size.bytes() >= room);
            let Some(size) = size else { return false };
            let mut larger = Self::take(size);
            if larger.bytes.len() < room {
                return false;
            }
            larger.bytes[..len].copy_from_slice(&slab.bytes[slab.arrived.clone()]);
            larger.arrived = 0..len;
            *self = larger;
        } else if slab.arrived.start > 0 {
            slab.bytes.copy_within(slab.arrived.clone(), 0);
            slab.arrived = 0..len;
        }
        true
    }
}

impl Slab {
    fn new(size: Size, len: usize, reach: usize) -> Box<Self> {
        let bytes = vec![0; len].into_boxed_slice();
        Box::new(Self { size, bytes, reach, arrived: 0..0, ready: Vec::new(), next: 0 })
    }

    /// The size it was taken as.
    #[cfg(test)]
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Adds a piece to be written; adjacent ones become one.
    pub(crate) fn push_ready(&mut self, piece: Range<usize>) {
        match self.ready.last_mut() {
            _ if piece.is_empty() => {}
            Some(last) if last.end == piece.start => last.end = piece.end,
            Some(_) | None => self.ready.push(piece),
        }
    }

    /// Like [`push_ready`](Self::push_ready), but moves the piece down to the one before it first.
    pub(crate) fn gather_ready(&mut self, piece: Range<usize>) {
        let Some(last) = self.ready.last_mut() else { return self.push_ready(piece) };
        let end = last.end + piece.len();
        self.bytes.copy_within(piece, last.end);
        last.end = end;
    }

    /// Pieces not written yet.
    pub(crate) fn ready(&self) -> &[Range<usize>] {
        &self.ready[self.next..]
    }

    /// Takes note that the first `count` bytes of [`ready`](Self::ready) have left.
    pub(crate) fn written(&mut self, mut count: usize) {
        while let Some(piece) = self.ready.get_mut(self.next) {
            let part = count.min(piece.len());
            piece.start += part;
            count -= part;
            if piece.start < piece.end {
                return;
            }
            self.next += 1;
        }
        self.ready.clear();
        self.next = 0;
    }

    /// Whether nothing lies here any more.
    pub(crate) fn is_spent(&self) -> bool {
        self.arrived.is_empty() && self.ready.is_empty()
    }

    fn clear(&mut self) {
        self.arrived = 0..0;
        self.ready.clear();
        self.next = 0;
    }
}

impl std::ops::Deref for Batch {
    type Target = Slab;

    fn deref(&self) -> &Slab {
        self.slab.as_deref().expect("a batch has its slab until it is dropped")
    }
}

impl std::ops::DerefMut for Batch {
    fn deref_mut(&mut self) -> &mut Slab {
        self.slab.as_deref_mut().expect("a batch has its slab until it is dropped")
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let Some(slab) = self.slab.take() else { return };
        // While a thread ends its pool may be gone; then the slab just goes too.
        let _ = POOL.try_with(|pool| pool.borrow_mut().put(slab));
    }
}

/// A worker's free buffers, last in first out, so that the warm one is used next.
#[derive(Default)]
struct Pool {
    #[expect(clippy::vec_box, reason = "slabs move between batches and the pool as boxes")]
    free: [Vec<Box<Slab>>; 3],
    large_in_use: usize,
}

impl Pool {
    fn take(&mut self, wanted: Size) -> Box<Slab> {
        let scarce = wanted == Size::Large && self.large_in_use >= LARGE_BATCHES_MAX;
        let size = if scarce { Size::Medium } else { wanted };
        if size == Size::Large {
            self.large_in_use += 1;
        }
        self.free[size as usize].pop().unwrap_or_else(|| Slab::new(size, size.bytes(), size.reach()))
    }

    fn put(&mut self, mut slab: Box<Slab>) {
        let kept = match slab.size {
            Size::Small => POOLED_SMALL_MAX,
            Size::Medium => POOLED_MEDIUM_MAX,
            Size::Large => POOLED_LARGE_MAX,
        };
        if slab.size == Size::Large {
            self.large_in_use = self.large_in_use.saturating_sub(1);
        }
        slab.clear();
        let free = &mut self.free[slab.size as usize];
        if free.len() < kept && slab.bytes.len() == slab.size.bytes() {
            free.push(slab);
        }
    }
}

/// Gives this worker's free buffers back to the allocator.
pub(crate) fn trim_pool() {
    POOL.with_borrow_mut(|pool| pool.free = Default::default());
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_are_bounded_and_come_back() {
        let held: Vec<_> = (0..LARGE_BATCHES_MAX).map(|_| Batch::take(Size::Large)).collect();
        assert!(held.iter().all(|batch| batch.size() == Size::Large));
        assert_eq!(Batch::take(Size::Large).size(), Size::Medium);
        drop(held);
        assert_eq!(Batch::take(Size::Large).size(), Size::Large);
    }

    #[test]
    fn a_buffer_comes_back_empty() {
        let mut batch = Batch::take(Size::Small);
        batch.arrived = 3..9;
        batch.push_ready(0..3);
        drop(batch);
        let batch = Batch::take(Size::Small);
        assert!(batch.is_spent());
    }

    #[test]
    fn what_arrived_survives_a_move_to_the_front_and_to_a_larger_buffer() {
        let mut batch = Batch::take(Size::Small);
        batch.bytes[100..104].copy_from_slice(b"abcd");
        batch.arrived = 100..104;
        assert!(batch.make_room(SMALL_BATCH_BYTES));
        assert_eq!((&batch.bytes[..4], batch.arrived.clone()), (&b"abcd"[..], 0..4));
        assert!(batch.make_room(SMALL_BATCH_BYTES + 1));
        assert_eq!((&batch.bytes[..4], batch.size()), (&b"abcd"[..], Size::Medium));
        assert!(!batch.make_room(LARGE_BATCH_BYTES + 1));
    }

    #[test]
    fn pieces_leave_in_order_however_they_are_cut() {
        let mut batch = Batch::take(Size::Small);
        for (at, byte) in batch.bytes[..100].iter_mut().zip(0_u8..).map(|(byte, at)| (at, byte)) {
            *byte = at;
        }
        batch.push_ready(0..10);
        batch.push_ready(20..30);
        batch.gather_ready(50..55);
        let mut seen = Vec::new();
        while let Some(piece) = batch.ready().first().cloned() {
            let count = piece.len().min(7);
            seen.extend_from_slice(&batch.bytes[piece.start..piece.start + count]);
            batch.written(count);
        }
        let expected: Vec<u8> = (0..10).chain(20..30).chain(50..55).collect();
        assert_eq!(seen, expected);
        assert!(batch.is_spent());
    }
}
