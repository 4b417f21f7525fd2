//! A client's datagram between the two steps of its way up.

use std::ops::Range;

use super::table::Handle;

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
