//! When members are probed: only while the group is in use, and never by the clock, so that nobody knows us by it.

use std::time::Duration;

use tokio::time::Instant;

use super::record::Slot;
use super::{Change, Outcome, Probing, State, hash};
use crate::limits::PROBE_JITTER_PERCENT_MAX;

/// A member that is to be probed. What came of it is to be [told](State::probed).
#[derive(Debug)]
#[must_use = "what came of it is to be told"]
pub struct Probe {
    index: usize,
    key: u64,
    ticket: u64,
}

/// What a prober is to do.
#[derive(Debug)]
pub enum NextProbe {
    /// This, and then ask again.
    Due(Probe),
    /// To ask again at this time.
    At(Instant),
    /// Nothing, until the group is used again.
    Unused,
}

/// One member's probes.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    next: Option<Instant>,
    out: Slot,
    /// Results of one kind in a row.
    in_row: Option<(Found, u32)>,
    good: u64,
    failed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Good,
    Failed,
}

impl Probe {
    /// The member's place in the list that the group had when the probe was given.
    pub fn member(&self) -> usize {
        self.index
    }
}

impl Schedule {
    /// Counts a result. Tells how many of its kind there have been in a row.
    pub(super) fn count(&mut self, is_good: bool) -> u32 {
        let found = if is_good { Found::Good } else { Found::Failed };
        let total = if is_good { &mut self.good } else { &mut self.failed };
        *total = total.saturating_add(1);
        let before = self.in_row.filter(|(before, _)| *before == found).map_or(0, |(_, count)| count);
        let count = before.saturating_add(1);
        self.in_row = Some((found, count));
        count
    }

    /// Another row begins.
    pub(super) fn start_count(&mut self) {
        self.in_row = None;
    }

    /// Good and failed ones.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.good, self.failed)
    }
}

impl State {
    /// The next probe, or when to ask again. `chance` is a random number.
    pub fn next_probe(&mut self, now: Instant, chance: u64) -> NextProbe {
        let Some(probing) = self.settings.health.probing.filter(|probing| self.is_used(*probing, now)) else {
            return NextProbe::Unused;
        };
        let mut earliest: Option<(Instant, usize)> = None;
        for (number, (index, record)) in (0_u64..).zip(self.records.iter_mut().enumerate()) {
            let chance = hash::mix(chance.wrapping_add(number));
            // The first one comes at any time of an interval, so that members are not probed together.
            let first = || now + part(probing.interval(), chance);
            let mut next = *record.schedule.next.get_or_insert_with(first);
            if next <= now && !record.schedule.out.is_free(now) {
                next = now + jittered(probing, chance);
                record.schedule.next = Some(next);
            }
            if earliest.is_none_or(|(before, _)| next < before) {
                earliest = Some((next, index));
            }
        }
        let Some((next, index)) = earliest else { return NextProbe::Unused };
        let Some(record) = self.records.get_mut(index) else { return NextProbe::Unused };
        if next > now {
            return NextProbe::At(next);
        }
        record.schedule.next = Some(now + jittered(probing, hash::mix(!chance)));
        self.tickets += 1;
        record.schedule.out.take(self.tickets, now);
        NextProbe::Due(Probe { index, key: record.key, ticket: self.tickets })
    }

    /// What came of a probe. Tells what has become of the member.
    #[expect(clippy::needless_pass_by_value, reason = "a probe has one outcome")]
    pub fn probed(&mut self, probe: Probe, outcome: Outcome, now: Instant) -> Option<Change> {
        let Probe { index, key, ticket } = probe;
        let member = self.find(index, key)?;
        let may_eject = self.may_eject();
        let record = self.records.get_mut(member)?;
        // One that was forgotten may be older than one that has come since.
        record.schedule.out.free(ticket)?;
        let is_good = match outcome {
            Outcome::Reached { latency } => {
                record.measure(latency, now);
                true
            }
            Outcome::Failed => false,
            Outcome::Declined | Outcome::Doubtful | Outcome::Silent | Outcome::Abandoned => return None,
        };
        let event = record.probed(is_good, may_eject, &self.settings.health, now)?;
        Some(Change { member, event })
    }

    /// The group is used at this moment.
    pub(super) fn take_into_use(&mut self, now: Instant) {
        if self.settings.health.probing.is_some_and(|probing| !self.is_used(probing, now)) {
            self.forget_schedule();
        }
        self.used = Some(now);
    }

    /// Whether it was used lately.
    fn is_used(&self, probing: Probing, now: Instant) -> bool {
        let lately = probing.interval().saturating_mul(probing.unused_intervals);
        self.used.is_some_and(|used| now.saturating_duration_since(used) <= lately)
    }

    /// What was planned before the group was left is not made up for.
    fn forget_schedule(&mut self) {
        for record in &mut self.records {
            record.schedule.next = None;
        }
    }
}

/// The interval, longer or shorter by chance.
fn jittered(probing: Probing, chance: u64) -> Duration {
    let percent = u32::from(probing.jitter_percent.min(PROBE_JITTER_PERCENT_MAX));
    let most = probing.interval() * percent / 100;
    probing.interval() - most + part(most * 2, chance)
}

/// A part of `whole`, each as likely as the others.
fn part(whole: Duration, chance: u64) -> Duration {
    let nanos = (whole.as_nanos().min(u64::MAX.into()) * u128::from(chance)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
