//! What is known of one member, and held against it.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use tokio::time::Instant;

use super::probe::Schedule;
use super::status::{Condition, Status};
use super::walk::Kind;
use super::{Event, Health, Member, RetryFrom};
use crate::limits::{ANSWER_SECS, LATENCY_GOOD_FOR, LATENCY_MAX, MEASURING_SECS_MAX, TRIAL_SECS_MAX};

/// One member.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) key: u64,
    pub(super) weight: NonZeroU16,
    standing: Standing,
    /// Since when it is back, if it has been away.
    returned: Option<Instant>,
    latency: Option<Latency>,
    /// Since when a session measures it.
    measuring: Option<Instant>,
    /// Whether it has said no, or failed where no more may be out, and has served nobody since.
    is_tolerated: bool,
    /// The number of the last attempt that there was when it served a session last: the later, the higher. Times may be the same.
    served: Option<u64>,
    pub(super) schedule: Schedule,
    reached: u64,
    failed: u64,
}

#[derive(Debug)]
enum Standing {
    Up(Option<Failures>),
    Down {
        /// From when its rest counts, unless that is over.
        rests_from: Option<Instant>,
        since: Instant,
        trial: Slot,
        /// How long trials of it have lasted that were given up since its rest.
        waited: Duration,
        grounds: Grounds,
    },
}

/// What speaks against a member that is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grounds {
    /// That much, that sessions had better fail than go to it, if nobody else is left and the operator wishes so.
    Failure,
    /// It may have been the target: others are tried before it, and it is tried before a session fails.
    Suspicion {
        /// Failures of its own beside that.
        failures: u32,
    },
}

/// What a session holds against a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// It has failed.
    Failure,
    /// It may have, or its target.
    Suspicion,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    suspicions: u32,
    first: Instant,
    last: Instant,
}

/// A place for one at a time, who is forgotten if nothing is heard of it.
#[derive(Debug, Default)]
pub(super) struct Slot(Option<(u64, Instant)>);

#[derive(Clone, Copy, Debug)]
struct Latency {
    smoothed: Duration,
    measured: Instant,
}

/// What there is to know about a failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    pub(super) kind: Kind,
    /// Whether a trial is the one that is under way, and not one that was forgotten.
    pub(super) is_current: bool,
    /// Whether one more member may be taken out.
    pub(super) may_eject: bool,
    pub(super) charge: Charge,
}

impl Slot {
    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.0.is_none_or(|(_, since)| now.saturating_duration_since(since) >= TRIAL_SECS_MAX)
    }

    pub(super) fn take(&mut self, ticket: u64, now: Instant) {
        self.0 = Some((ticket, now));
    }

    /// Frees it, if whoever has `ticket` has it, and tells since when.
    pub(super) fn free(&mut self, ticket: u64) -> Option<Instant> {
        self.0.take_if(|(current, _)| *current == ticket).map(|(_, since)| since)
    }
}

impl Grounds {
    /// What speaks against it after one more charge, by its trial or by somebody who had nobody else.
    fn with(self, outlook: Outlook, is_trial: bool, threshold: NonZeroU32) -> Self {
        match (self, outlook.charge) {
            // What it was out for may be over: it is not known to be so still.
            (Self::Failure, Charge::Suspicion) if is_trial => Self::Suspicion { failures: 0 },
            (Self::Failure | Self::Suspicion { .. }, Charge::Suspicion)
            | (Self::Failure, Charge::Failure) => self,
            (Self::Suspicion { failures }, Charge::Failure) => {
                let failures = failures.saturating_add(1);
                let is_out = failures >= threshold.get() && outlook.may_eject;
                if is_out { Self::Failure } else { Self::Suspicion { failures } }
            }
        }
    }
}

impl Failures {
    fn begin(now: Instant) -> Self {
        Self { count: 0, suspicions: 0, first: now, last: now }
    }

    fn all(&self) -> u32 {
        self.count.saturating_add(self.suspicions)
    }

    fn are_recent(&self, health: &Health, now: Instant) -> bool {
        now.saturating_duration_since(self.first) <= health.fail_window
    }

    /// What is left of them when a session has been served: what may have been its targets is nothing.
    fn after_success(self, health: &Health) -> Option<Self> {
        (!health.success_clears && self.count > 0).then_some(Self { suspicions: 0, ..self })
    }
}

impl Record {
    pub(super) fn new(Member { key, weight }: Member) -> Self {
        Self {
            key,
            weight,
            standing: Standing::Up(None),
            returned: None,
            latency: None,
            measuring: None,
            is_tolerated: false,
            served: None,
            schedule: Schedule::default(),
            reached: 0,
            failed: 0,
        }
    }

    pub(super) fn with_weight(self, weight: NonZeroU16) -> Self {
        Self { weight, ..self }
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.standing, Standing::Down { .. })
    }

    /// Whether it is down and others are tried before it, and no more than that.
    pub(super) fn is_suspected(&self) -> bool {
        matches!(self.standing, Standing::Down { grounds: Grounds::Suspicion { .. }, .. })
    }

    /// Whether it is up, though it has said no, or failed where no more may be out, and has served nobody since.
    pub(super) fn is_tolerated(&self) -> bool {
        self.is_tolerated && !self.is_down()
    }

    /// It has said no, and that has cost a session an attempt and no time.
    pub(super) fn tolerate(&mut self) {
        self.is_tolerated = true;
    }

    /// Since when it is taken out.
    pub(super) fn out_since(&self) -> Option<Instant> {
        match self.standing {
            Standing::Down { since, grounds: Grounds::Failure, .. } => Some(since),
            Standing::Up(_) | Standing::Down { grounds: Grounds::Suspicion { .. }, .. } => None,
        }
    }

    /// As what a session may try it.
    pub(super) fn usable(&self, health: &Health, now: Instant) -> Option<Kind> {
        match &self.standing {
            Standing::Up(_) => Some(Kind::Regular),
            Standing::Down { rests_from, trial, .. } => {
                let is_rested =
                    rests_from.is_none_or(|since| now.saturating_duration_since(since) > health.retry_time);
                (is_rested && trial.is_free(now)).then_some(Kind::Trial)
            }
        }
    }

    /// Whether a session with this `chance` leaves it to others, since it comes back slowly.
    pub(super) fn is_passed_over(&self, chance: u64, slow_start: Duration, now: Instant) -> bool {
        let Some(returned) = self.returned else { return false };
        let back = now.saturating_duration_since(returned).as_nanos();
        let wanted = (slow_start.as_nanos().min(u64::MAX.into()) * u128::from(chance)) >> 64;
        back < slow_start.as_nanos() && back <= wanted
    }

    /// A session is given it to try.
    pub(super) fn give(&mut self, kind: Kind, ticket: u64, now: Instant) {
        if let (Kind::Trial, Standing::Down { trial, .. }) = (kind, &mut self.standing) {
            trial.take(ticket, now);
        }
        self.measuring = Some(now);
    }

    /// How late it served a session last, if it ever has.
    pub(super) fn served(&self) -> Option<u64> {
        self.served
    }

    /// A session has done with it. Tells whether it was the trial that is under way.
    pub(super) fn take_back(&mut self, ticket: u64) -> bool {
        self.measuring = None;
        match &mut self.standing {
            Standing::Up(_) => false,
            Standing::Down { trial, .. } => trial.free(ticket).is_some(),
        }
    }

    /// A session has gone before anything was known of it. Somebody else may try it in its place, but not for ever: when they have waited as long
    /// together as an answer takes, it is as if one had waited in vain.
    pub(super) fn give_up(&mut self, ticket: u64, now: Instant) {
        self.measuring = None;
        let Standing::Down { rests_from, trial, waited, grounds, .. } = &mut self.standing else { return };
        let Some(since) = trial.free(ticket) else { return };
        *waited = waited.saturating_add(now.saturating_duration_since(since));
        if *waited >= ANSWER_SECS {
            (*rests_from, *waited) = (Some(now), Duration::ZERO);
            if *grounds == Grounds::Failure {
                *grounds = Grounds::Suspicion { failures: 0 };
            }
        }
    }

    /// A session has reached it, when the last attempt that there was had this number.
    pub(super) fn reach(&mut self, kind: Kind, latest: u64, health: &Health, now: Instant) -> Option<Event> {
        self.served = Some(latest);
        self.is_tolerated = false;
        match &mut self.standing {
            Standing::Up(failures) => {
                *failures = failures.and_then(|failures| failures.after_success(health));
                None
            }
            // What it was suspected of may have been its targets, and it has served since.
            Standing::Down { grounds: Grounds::Suspicion { failures }, since, .. } => {
                let failures = Failures { count: *failures, ..Failures::begin(*since) };
                self.restore(now);
                self.standing = Standing::Up(failures.after_success(health));
                Some(Event::Restored)
            }
            Standing::Down { grounds: Grounds::Failure, .. } => self.answer(kind, now),
        }
    }

    /// If it is down on no more than a suspicion, the next session may find out whether it serves.
    pub(super) fn end_rest(&mut self) {
        if let Standing::Down { rests_from, grounds: Grounds::Suspicion { .. }, .. } = &mut self.standing {
            *rests_from = None;
        }
    }

    /// It has answered a session as it should, whatever it said: if it was down, it is back.
    pub(super) fn answer(&mut self, kind: Kind, now: Instant) -> Option<Event> {
        match (&self.standing, kind) {
            (Standing::Up(_), _) => None,
            // It was tried before it was marked down, and says nothing about what came after.
            (Standing::Down { .. }, Kind::Regular) => None,
            (Standing::Down { .. }, Kind::Trial | Kind::LastResort) => {
                self.restore(now);
                Some(Event::Restored)
            }
        }
    }

    /// A session's last try has failed, or may have.
    pub(super) fn fail(&mut self, outlook: Outlook, health: &Health, now: Instant) -> Option<Event> {
        match &mut self.standing {
            Standing::Up(failures) => {
                let mut failures = match *failures {
                    Some(failures) if failures.are_recent(health, now) => failures,
                    Some(_) | None => Failures::begin(now),
                };
                failures.last = now;
                let count = match outlook.charge {
                    Charge::Failure => &mut failures.count,
                    Charge::Suspicion => &mut failures.suspicions,
                };
                *count = count.saturating_add(1);
                self.judge(failures, outlook.may_eject, health, now)
            }
            Standing::Down { rests_from, waited, grounds, .. } => {
                let is_trial = outlook.kind == Kind::Trial && outlook.is_current;
                // One that was begun before says nothing about what came after.
                if !is_trial && outlook.kind != Kind::LastResort {
                    return None;
                }
                let was_out = *grounds == Grounds::Failure;
                *grounds = grounds.with(outlook, is_trial, health.fail_threshold);
                let is_out = *grounds == Grounds::Failure;
                if is_trial || is_out && !was_out {
                    (*rests_from, *waited) = (Some(now), Duration::ZERO);
                }
                match (*grounds, is_trial) {
                    (_, true) => Some(Event::TrialFailed),
                    (Grounds::Failure, false) if !was_out => {
                        Some(Event::MarkedDown { failures: health.fail_threshold.get() })
                    }
                    (Grounds::Failure | Grounds::Suspicion { .. }, false) => None,
                }
            }
        }
    }

    fn judge(&mut self, failed: Failures, may_eject: bool, health: &Health, now: Instant) -> Option<Event> {
        let Failures { count: failures, suspicions, first, .. } = failed;
        let all = failed.all();
        let threshold = health.fail_threshold.get();
        let rests_from = match health.retry_from {
            RetryFrom::FirstFailure => first,
            RetryFrom::Marking => now,
        };
        if failures >= threshold && may_eject {
            self.take_out(Grounds::Failure, rests_from, now);
            return Some(Event::MarkedDown { failures });
        }
        if suspicions > 0 && all >= threshold {
            self.take_out(Grounds::Suspicion { failures }, rests_from, now);
            return Some(Event::Suspected { failures: all });
        }
        self.standing = Standing::Up(Some(failed));
        if failures >= threshold {
            self.tolerate();
        }
        if failures == threshold {
            Some(Event::Spared { failures })
        } else if all == 1 {
            Some(Event::Failing)
        } else {
            None
        }
    }

    /// A probe has come back. Probes in a row decide, whatever sessions have found.
    pub(super) fn probed(
        &mut self,
        is_good: bool,
        may_eject: bool,
        health: &Health,
        now: Instant,
    ) -> Option<Event> {
        let probing = health.probing?;
        let in_row = self.schedule.count(is_good);
        match self.standing {
            Standing::Up(_) if !is_good && in_row >= probing.fall.get() && may_eject => {
                self.take_out(Grounds::Failure, now, now);
                Some(Event::Ejected { probes: in_row })
            }
            Standing::Down { grounds: Grounds::Suspicion { .. }, .. }
                if !is_good && in_row >= probing.fall.get() && may_eject =>
            {
                self.take_out(Grounds::Failure, now, now);
                Some(Event::Ejected { probes: in_row })
            }
            Standing::Down { .. } if is_good && in_row >= probing.rise.get() => {
                self.restore(now);
                Some(Event::Restored)
            }
            Standing::Up(_) | Standing::Down { .. } => None,
        }
    }

    fn take_out(&mut self, grounds: Grounds, rests_from: Instant, now: Instant) {
        let rests_from = Some(rests_from);
        let trial = Slot::default();
        self.standing = Standing::Down { rests_from, since: now, trial, waited: Duration::ZERO, grounds };
        self.returned = None;
        self.schedule.start_count();
    }

    pub(super) fn restore(&mut self, now: Instant) {
        self.standing = Standing::Up(None);
        self.is_tolerated = false;
        self.returned = Some(now);
        self.schedule.start_count();
    }

    pub(super) fn counted_reached(&mut self) {
        self.reached = self.reached.saturating_add(1);
    }

    pub(super) fn counted_failed(&mut self) {
        self.failed = self.failed.saturating_add(1);
    }

    pub(super) fn latency(&self) -> Option<Duration> {
        self.latency.map(|latency| latency.smoothed)
    }

    /// Whether nothing recent is known of its latency, and nobody is about to know. One that has failed of late is not worth the wait: it
    /// has as long a rest from that as one that is down, unless its failure is forgotten before.
    pub(super) fn wants_measure(&self, health: &Health, now: Instant) -> bool {
        let rest = health.fail_window.min(health.retry_time);
        match self.standing {
            Standing::Up(None) => {}
            Standing::Up(Some(Failures { last, .. })) if now.saturating_duration_since(last) > rest => {}
            Standing::Up(Some(_)) | Standing::Down { .. } => return false,
        }
        let is_good = |latency: Latency| latency.age(now) < LATENCY_GOOD_FOR;
        let is_awaited = |since| now.saturating_duration_since(since) < MEASURING_SECS_MAX;
        !self.latency.is_some_and(is_good) && !self.measuring.is_some_and(is_awaited)
    }

    /// Takes in how long it took to reach it, one part in eight (the smoothing of RFC 6298); one that is stale counts for nothing.
    pub(super) fn measure(&mut self, sample: Option<Duration>, now: Instant) {
        let Some(sample) = sample.map(|sample| sample.min(LATENCY_MAX)) else { return };
        let smoothed = match self.latency {
            Some(latency) if latency.age(now) < LATENCY_GOOD_FOR => (latency.smoothed * 7 + sample) / 8,
            Some(_) | None => sample,
        };
        self.latency = Some(Latency { smoothed, measured: now });
    }

    pub(super) fn status(&self, health: &Health, now: Instant) -> Status {
        let condition = match &self.standing {
            Standing::Up(Some(failures)) => {
                Condition::Failing { failures: failures.all(), threshold: health.fail_threshold.get() }
            }
            Standing::Up(None) => match self.returned.map(|returned| now.saturating_duration_since(returned))
            {
                Some(back) if back < health.slow_start => Condition::Returning { back },
                Some(_) | None => Condition::Up,
            },
            Standing::Down { rests_from, since, trial, grounds, .. } => Condition::Down {
                since: *since,
                retry_in: rests_from.map_or(Duration::ZERO, |rests_from| {
                    health.retry_time.saturating_sub(now.saturating_duration_since(rests_from))
                }),
                is_on_trial: !trial.is_free(now),
                is_suspected: matches!(grounds, Grounds::Suspicion { .. }),
            },
        };
        let (probes_good, probes_failed) = self.schedule.counts();
        Status {
            condition,
            latency: self.latency(),
            sessions_reached: self.reached,
            sessions_failed: self.failed,
            probes_good,
            probes_failed,
        }
    }
}

impl Latency {
    fn age(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.measured)
    }
}
