//! Datagrams that wait until it is known where they go.

use crate::limits::{WAITING_BYTES_MAX, WAITING_DATAGRAMS_MAX};

/// A few datagrams, in order; what does not fit is dropped, as a network would.
#[derive(Debug, Default)]
pub(super) struct Queue {
    datagrams: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Queue {
    /// Keeps `datagram`, if there is room.
    pub(super) fn push(&mut self, datagram: &[u8]) -> Result<(), NoRoom> {
        if self.datagrams.len() >= WAITING_DATAGRAMS_MAX || self.bytes + datagram.len() > WAITING_BYTES_MAX {
            return Err(NoRoom);
        }
        self.bytes += datagram.len();
        self.datagrams.push(datagram.into());
        Ok(())
    }
}

/// As many wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl IntoIterator for Queue {
    type Item = Box<[u8]>;
    type IntoIter = std::vec::IntoIter<Box<[u8]>>;

    fn into_iter(self) -> Self::IntoIter {
        self.datagrams.into_iter()
    }
}
