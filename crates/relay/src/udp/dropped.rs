//! Datagrams that went nowhere, counted, and told of once in a while.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;
use umbra_proto::shadowsocks::packet::PacketError;
use umbra_proto::socks5::udp::UdpError;

use crate::net::datagram::Sent;

/// Why a datagram goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is from nobody who may send here.
    Stranger,
    /// It is not what is spoken here, not with our key, or was there before.
    Malformed,
    /// It is a part of a datagram (RFC 1928, section 7), and nobody puts these together.
    Fragment,
    /// It is for where nobody is led.
    Forbidden,
    /// There is no address, no way, or no permission of the system's.
    Unroutable,
    /// It is longer than the way carries.
    Oversized,
    /// There was no room: in a socket, or while a name was looked up.
    NoRoom,
    /// It does go somewhere: another worker sees to it.
    Elsewhere,
}

/// Counts since the last line.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    counts: [u64; 7],
    told: Option<Instant>,
}

impl Dropped {
    /// Counts a datagram.
    pub(super) fn count(&mut self, why: Why) {
        self.add(why, 1);
    }

    /// Counts what could not be sent.
    pub(super) fn count_unsent(&mut self, Sent { datagrams: _, crowded, oversized, failed }: Sent) {
        self.add(Why::NoRoom, crowded);
        self.add(Why::Oversized, oversized);
        self.add(Why::Unroutable, failed);
    }

    fn add(&mut self, why: Why, count: usize) {
        if let Some(counted) = self.counts.get_mut(why as usize) {
            *counted += count as u64;
        }
    }

    /// Whether there is anything to tell of.
    pub(super) fn any(&self) -> bool {
        self.counts != [0; 7]
    }

    /// Tells of the counts, if there are any and it has been a while.
    pub(super) fn tell(&mut self) {
        if !self.any() || self.told.is_some_and(|told| told.elapsed() < LINE_PERIOD) {
            return;
        }
        let [strangers, malformed, fragments, forbidden, unroutable, oversized, crowded] = self.counts;
        info!(
            strangers,
            malformed, fragments, forbidden, unroutable, oversized, crowded, "datagrams dropped"
        );
        *self = Self { counts: [0; 7], told: Some(Instant::now()) };
    }
}

impl From<UdpError> for Why {
    fn from(error: UdpError) -> Self {
        match error {
            UdpError::Fragment => Self::Fragment,
            UdpError::Truncated | UdpError::Address(_) => Self::Malformed,
        }
    }
}

impl From<PacketError> for Why {
    fn from(_: PacketError) -> Self {
        Self::Malformed
    }
}

/// The counts are told once in this time at most.
const LINE_PERIOD: Duration = Duration::from_secs(60);
