//! Datagrams that went nowhere, counted, and told of once in a while.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;
use umbra_proto::shadowsocks::packet::PacketError;
use umbra_proto::socks5::udp::UdpError;

use super::budget::Spent;
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
    /// There is no socket for it, unless somebody makes room.
    Spent,
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
        self.count_many(why, 1);
    }

    /// Counts so many.
    pub(super) fn count_many(&mut self, why: Why, count: usize) {
        if let Some(counted) = self.counts.get_mut(why as usize) {
            *counted += count as u64;
        }
    }

    /// Counts what could not be sent.
    pub(super) fn count_unsent(&mut self, Sent { datagrams: _, crowded, oversized, failed }: Sent) {
        self.count_many(Why::NoRoom, crowded);
        self.count_many(Why::Oversized, oversized);
        self.count_many(Why::Unroutable, failed);
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
        self.told = Some(Instant::now());
        let [strangers, malformed, fragments, forbidden, unroutable, oversized, crowded] =
            std::mem::take(&mut self.counts);
        info!(
            strangers,
            malformed, fragments, forbidden, unroutable, oversized, crowded, "datagrams dropped"
        );
    }
}

impl Drop for Dropped {
    /// What has come since the last line is told when an engine ends.
    fn drop(&mut self) {
        self.told = None;
        self.tell();
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

impl From<Spent> for Why {
    fn from(Spent: Spent) -> Self {
        Self::Spent
    }
}

impl From<PacketError> for Why {
    fn from(_: PacketError) -> Self {
        Self::Malformed
    }
}

/// The counts are told once in this time at most.
const LINE_PERIOD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_goes_nowhere_is_counted_by_its_reason_and_told_of_once_in_a_while() {
        let mut dropped = Dropped::default();
        assert!(!dropped.any());
        dropped.count(Why::Elsewhere);
        assert!(!dropped.any(), "it has arrived");
        let reasons = [
            Why::Stranger,
            Why::Malformed,
            Why::Fragment,
            Why::Forbidden,
            Why::Unroutable,
            Why::Oversized,
            Why::NoRoom,
        ];
        for (why, count) in reasons.into_iter().zip(1..) {
            dropped.count_many(why, count);
        }
        assert_eq!(dropped.counts, [1, 2, 3, 4, 5, 6, 7]);
        dropped.count_unsent(Sent { datagrams: 9, crowded: 10, oversized: 20, failed: 30 });
        assert_eq!(dropped.counts, [1, 2, 3, 4, 35, 26, 17]);
        dropped.tell();
        assert!(!dropped.any());
        dropped.count(Why::Stranger);
        dropped.tell();
        assert!(dropped.any(), "there was a line a moment ago");
        tokio::time::advance(LINE_PERIOD).await;
        dropped.tell();
        assert!(!dropped.any());
    }
}
