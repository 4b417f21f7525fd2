//! Who served whom, for as long as a source is to stay with a member; bounded, and swept a little by each session.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{STICKY_SOURCES_MAX, STICKY_SWEPT_MAX};
use crate::udp::table::{Bounds, Table};

/// Sources, with the member that served each of them last.
#[derive(Debug)]
pub(super) struct Sticky {
    bonds: Table<IpAddr, Bond>,
    lasting: Duration,
}

#[derive(Debug)]
struct Bond {
    key: u64,
    since: Instant,
}

impl Sticky {
    pub(super) fn new() -> Self {
        Self::with_room(STICKY_SOURCES_MAX)
    }

    fn with_room(total: usize) -> Self {
        Self { bonds: Table::new(Bounds { total, per_source: total }), lasting: Duration::ZERO }
    }

    /// The key of the member that served `source`.
    pub(super) fn find(&mut self, source: IpAddr, now: Instant) -> Option<u64> {
        let handle = self.bonds.find(&source)?;
        let bond = self.bonds.get_mut(handle)?;
        (now.saturating_duration_since(bond.since) < self.lasting).then_some(bond.key)
    }

    /// A member has served `source`.
    pub(super) fn remember(&mut self, source: IpAddr, key: u64, lasting: Duration, now: Instant) {
        self.lasting = lasting;
        let bond = Bond { key, since: now };
        let Some(handle) = self.bonds.find(&source) else {
            self.bonds.insert(source, source, now, bond);
            return;
        };
        if let Some(old) = self.bonds.get_mut(handle) {
            *old = bond;
        }
        self.bonds.touch(handle, now);
    }

    /// Takes out some of those whose time is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        for _ in 0..STICKY_SWEPT_MAX {
            if self.bonds.expire(now, self.lasting).is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LASTING: Duration = Duration::from_secs(10);

    fn source(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn a_bond_lasts_from_the_last_session_on_and_no_longer() {
        let start = Instant::now();
        let mut sticky = Sticky::new();
        sticky.remember(source(1), 7, LASTING, start);
        sticky.remember(source(1), 8, LASTING, start + LASTING / 2);
        assert_eq!(sticky.find(source(1), start + LASTING), Some(8));
        assert_eq!(sticky.find(source(1), start + LASTING * 3 / 2), None);
        assert_eq!(sticky.find(source(2), start), None);
    }

    #[test]
    fn there_are_never_more_sources_than_may_be_and_the_oldest_goes() {
        let start = Instant::now();
        let mut sticky = Sticky::with_room(100);
        for number in 0..1000 {
            sticky.remember(source(number), 1, LASTING, start + Duration::from_millis(number.into()));
        }
        assert_eq!(sticky.bonds.len(), 100);
        assert_eq!(sticky.find(source(899), start), None);
        assert_eq!(sticky.find(source(900), start), Some(1));
    }

    #[test]
    fn sessions_sweep_more_than_they_add() {
        let start = Instant::now();
        let mut sticky = Sticky::new();
        for number in 0..1000 {
            sticky.remember(source(number), 1, LASTING, start);
        }
        for number in 0..400 {
            sticky.sweep(start + LASTING);
            sticky.remember(source(10_000 + number), 1, LASTING, start + LASTING);
        }
        assert_eq!(sticky.bonds.len(), 400);
    }
}
