//! What a batch sends: datagrams laid out behind one another, so that those of one size to one place leave in one call.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::limits::{ARENA_BYTES, RUN_BYTES_MAX, RUN_DATAGRAMS_MAX};
use crate::net::datagram::{Datagrams, Parcel, Sent, SocketId};

/// Datagrams on their way out, all from one socket. Kept from batch to batch, so that nothing is allocated for them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    arena: Vec<u8>,
    runs: Vec<Run>,
    socket: Option<SocketId>,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Course {
    /// The socket that it leaves from.
    pub(super) socket: SocketId,
    /// To whom, unless the socket has one peer.
    pub(super) to: Option<SocketAddr>,
    /// Which of our addresses it leaves from, where the socket has several.
    pub(super) from: Option<IpAddr>,
}

/// Datagrams of one size to one place, the last of which may be shorter.
#[derive(Debug)]
struct Run {
    course: Course,
    bytes: Range<usize>,
    segment: usize,
    datagrams: usize,
}

impl Outbox {
    /// From which socket what there is leaves.
    pub(super) fn socket(&self) -> Option<SocketId> {
        self.socket
    }

    /// Adds the datagram that `write` appends, unless it fails. What it has appended then is forgotten.
    pub(super) fn push<D: Datagrams, E>(
        &mut self,
        sockets: &mut D,
        course: Course,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> (Sent, Result<(), E>) {
        let mut sent = Sent::default();
        if self.socket != Some(course.socket) || self.arena.len() >= ARENA_BYTES {
            sent = self.flush(sockets);
            self.socket = Some(course.socket);
        }
        let start = self.arena.len();
        if let Err(error) = write(&mut self.arena) {
            self.arena.truncate(start);
            return (sent, Err(error));
        }
        let bytes = start..self.arena.len();
        match self.runs.last_mut() {
            Some(run) if run.takes(course, bytes.len()) => run.extend(bytes),
            Some(_) | None => self.runs.push(Run { course, segment: bytes.len(), bytes, datagrams: 1 }),
        }
        (sent, Ok(()))
    }

    /// Sends what there is.
    pub(super) fn flush<D: Datagrams>(&mut self, sockets: &mut D) -> Sent {
        let mut sent = Sent::default();
        let Some(socket) = self.socket.take() else { return sent };
        for runs in self.runs.chunks(PARCELS_PER_CALL) {
            let mut parcels = [Parcel { to: None, from: None, bytes: &[], segment: 0 }; PARCELS_PER_CALL];
            for (parcel, run) in parcels.iter_mut().zip(runs) {
                let Course { to, from, .. } = run.course;
                *parcel = Parcel { to, from, bytes: &self.arena[run.bytes.clone()], segment: run.segment };
            }
            sent += sockets.send(socket, &parcels[..runs.len()]);
        }
        self.runs.clear();
        self.arena.clear();
        sent
    }
}

impl Run {
    /// Whether a datagram of `len` bytes may follow those that are there.
    fn takes(&self, course: Course, len: usize) -> bool {
        let is_open = self.bytes.len() == self.segment * self.datagrams;
        let has_room = self.datagrams < RUN_DATAGRAMS_MAX && self.bytes.len() + len <= RUN_BYTES_MAX;
        // An empty datagram is no piece of anything.
        self.course == course && is_open && has_room && 0 < len && len <= self.segment
    }

    fn extend(&mut self, bytes: Range<usize>) {
        self.bytes.end = bytes.end;
        self.datagrams += 1;
    }
}

/// Parcels handed to a socket at a time.
const PARCELS_PER_CALL: usize = 32;
