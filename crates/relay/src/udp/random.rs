//! Chance for packets, drawn before they are begun: without it nothing may be sealed.

use umbra_proto::shadowsocks::SALT_BYTES_MAX;
use umbra_proto::shadowsocks::packet::{Chance, SessionId};

use super::dropped::Why;
use crate::net::Net;

/// Chance for one packet: as much as it asks for, since much of it costs more than a small packet's cipher.
pub(super) struct Random {
    bytes: [u8; SALT_BYTES_MAX],
    len: usize,
}

/// The same, and more for packets to come.
pub(super) struct Source<'n, N> {
    first: Random,
    net: &'n N,
}

impl<'n, N: Net> Source<'n, N> {
    pub(super) fn draw(net: &'n N, len: usize) -> Result<Self, Why> {
        Ok(Self { first: Random::draw(net, len)?, net })
    }
}

// Where it lies: it is larger than most of what is done with it.
impl<N: Net> Chance for &Source<'_, N> {
    fn fill(&mut self, room: &mut [u8]) {
        self.first.fill(room);
    }

    fn more(&mut self, room: &mut [u8]) -> bool {
        self.net.fill_random(room).is_ok()
    }
}

impl Random {
    pub(super) fn draw<N: Net>(net: &N, len: usize) -> Result<Self, Why> {
        let mut bytes = [0; SALT_BYTES_MAX];
        if len > 0 {
            net.fill_random(&mut bytes[..len]).map_err(|_| Why::NoRoom)?;
        }
        Ok(Self { bytes, len })
    }

    /// Gives what was drawn. Less than is asked for would be no chance at all, and must not be sealed with.
    pub(super) fn fill(&self, room: &mut [u8]) {
        room.copy_from_slice(&self.bytes[..self.len]);
    }

    #[cfg(test)]
    pub(super) fn constant(byte: u8, len: usize) -> Self {
        Self { bytes: [byte; SALT_BYTES_MAX], len }
    }
}

/// An id for a session of ours.
pub(super) fn session_id<N: Net>(net: &N) -> Result<SessionId, Why> {
    let mut id = [0; 8];
    net.fill_random(&mut id).map_err(|_| Why::NoRoom)?;
    Ok(SessionId(id))
}
