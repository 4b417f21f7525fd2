//! A client's datagram between the two steps of its way up.

use std::ops::Range;

use super::table::Handle;

/// What one client sends to one target in one batch, in order: whatever was found out for the first is true of all.
#[derive(Debug, Default)]
pub(super) struct Payloads<'b> {
    bytes: &'b [u8],
    left: &'b [Understood],
}

/// Whose a datagram is, and which parts of it go where.
#[derive(Debug)]
pub(super) struct Understood {
    /// The association, in its door's table.
    pub(super) handle: Handle,
    /// The target's address block; none where the door or another server knows the target.
    pub(super) block: Option<Place>,
    /// What the target is to get.
    pub(super) payload: Place,
}

/// Where something lies in memory, to be found again in the inbox once nobody writes to that any more. What came first is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    address: usize,
    len: usize,
}

impl Understood {
    /// Whether `other` goes from the same client to the same target. Both lie in `bytes`.
    pub(super) fn is_like(&self, other: &Self, bytes: &[u8]) -> bool {
        let block = |place: Option<Place>| place.map(|place| &bytes[place.within(bytes)]);
        self.handle == other.handle && block(self.block) == block(other.block)
    }
}

impl<'b> Payloads<'b> {
    /// Those of `alike`, which lie in `bytes`.
    pub(super) fn new(bytes: &'b [u8], alike: &'b [Understood]) -> Self {
        Self { bytes, left: alike }
    }
}

impl<'b> Iterator for Payloads<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let (next, left) = self.left.split_first()?;
        self.left = left;
        Some(&self.bytes[next.payload.within(self.bytes)])
    }
}

/// The place of `part`.
pub(super) fn place(part: &[u8]) -> Place {
    Place { address: part.as_ptr() as usize, len: part.len() }
}

impl Place {
    /// Where it lies in `whole`, of which it is a part.
    pub(super) fn within(self, whole: &[u8]) -> Range<usize> {
        let start = self.address.wrapping_sub(whole.as_ptr() as usize);
        start..start + self.len
    }
}
