//! Datagrams that wait until it is known where they go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::{WAITING_BYTES_MAX, WAITING_BYTES_PER_WORKER_MAX, WAITING_DATAGRAMS_MAX};

/// A few datagrams, in order; what does not fit is dropped, as a network would.
#[derive(Debug)]
pub(super) struct Queue {
    datagrams: Vec<Box<[u8]>>,
    bytes: u32,
    /// For how many members of a group some of it has waited in vain before.
    in_vain: u32,
    room: Arc<Room>,
}

/// Bytes that may wait on one worker, of all its queues together.
#[derive(Debug)]
pub(super) struct Room(AtomicUsize);

/// As much waits as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Queue {
    /// Nothing yet, with what comes taken from `room`.
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self { datagrams: Vec::new(), bytes: 0, in_vain: 0, room: Arc::clone(room) }
    }

    /// Keeps `datagram`, if there is room.
    pub(super) fn push(&mut self, datagram: &[u8]) -> Result<(), NoRoom> {
        let len = u32::try_from(datagram.len()).map_err(|_| NoRoom)?;
        let bytes = self.bytes.checked_add(len).filter(|bytes| *bytes as usize <= WAITING_BYTES_MAX);
        let bytes = bytes.filter(|_| self.datagrams.len() < WAITING_DATAGRAMS_MAX).ok_or(NoRoom)?;
        self.room.take(datagram.len())?;
        self.bytes = bytes;
        self.datagrams.push(datagram.into());
        Ok(())
    }

    /// For how many members of a group some of it has waited in vain before this one.
    pub(super) fn in_vain(&self) -> u32 {
        self.in_vain
    }

    /// Some of it has waited in vain for so many.
    pub(super) fn note_in_vain(&mut self, members: u32) {
        self.in_vain = self.in_vain.max(members);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// What waits, in order.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.datagrams.iter().map(|datagram| &**datagram)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes as usize, Ordering::Relaxed);
    }
}

impl Room {
    fn take(&self, bytes: usize) -> Result<(), NoRoom> {
        let less = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).map(drop).map_err(|_| NoRoom)
    }
}

impl Default for Room {
    fn default() -> Self {
        Self(AtomicUsize::new(WAITING_BYTES_PER_WORKER_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_for_each_and_for_all_and_room_comes_back() {
        let room = Arc::<Room>::default();
        let mut queue = Queue::new(&room);
        assert_eq!(queue.push(&vec![0; WAITING_BYTES_MAX]), Ok(()));
        assert_eq!(queue.push(&[0]), Err(NoRoom));
        assert_eq!(queue.push(&[]), Ok(()), "it takes nothing");
        let full: Vec<_> = std::iter::repeat_with(|| {
            let mut queue = Queue::new(&room);
            queue.push(&vec![0; WAITING_BYTES_MAX]).map(|()| queue)
        })
        .map_while(Result::ok)
        .collect();
        assert_eq!(full.len() + 1, WAITING_BYTES_PER_WORKER_MAX / WAITING_BYTES_MAX);
        drop(full);
        assert_eq!(Queue::new(&room).push(&[0]), Ok(()));
    }
}
