//! Groups of members that lead to the same place: which one a session tries, in which order, and what is remembered of their health.
//!
//! Pure: time and chance are told, and whoever asks does the dialling. A session [begins](State::begin), asks for the
//! [next](State::next) member until one is reached or there is none, and [reports](State::report) what came of each. What the settings
//! mean is told in `docs/groups.md`.
//!
//! - [`Settings`], [`Policy`], [`Health`], [`Probing`]: what an operator chooses.
//! - `walk`: one session's way through the group; `order`: whose turn it is; `record`: what is held against one member.
//! - `probe`: when members are probed; `sticky`: who served whom; `hash`: numbers out of names and addresses.
//! - [`Shared`]: a group for many workers, whose attempts cannot be forgotten.

mod hash;
mod order;
mod probe;
mod record;
mod settings;
mod shared;
mod status;
mod sticky;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use tokio::time::Instant;
use umbra_proto::address::Address;

use order::{Candidates, Order, Whom};
pub use probe::{NextProbe, Probe};
use record::{Charge, Outlook, Record};
pub use settings::{Health, NoneLeft, Policy, Probing, RetryFrom, Rounds, Settings};
pub use shared::{Doubtful, Errand, Held, Shared};
pub use status::{Condition, Status};
use sticky::Sticky;
use walk::{Again, Step, Walk};
pub use walk::{Attempt, Attempts, Kind};

/// A member of a group, as the operator or a document names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    key: u64,
    weight: NonZeroU16,
}

impl Member {
    /// The member that is called `name`, which stays the same for as long as it is the same member: its health is kept under it.
    pub fn named(name: &str) -> Self {
        Self { key: hash::of_bytes(name.bytes()), weight: NonZeroU16::MIN }
    }

    /// With so many shares, where a policy knows shares.
    #[must_use]
    pub fn with_weight(self, weight: NonZeroU16) -> Self {
        Self { weight, ..self }
    }
}

/// What a session wants, as far as a choice may depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Where it goes.
    pub target: &'a Address,
    /// Who it comes from.
    pub source: IpAddr,
    /// A random number.
    pub chance: u64,
}

/// What came of an attempt or of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The member did all that was asked of it.
    Reached {
        /// How long that took, where it says something about the member.
        latency: Option<Duration>,
    },
    /// It refused, was not to be reached, said nothing, denied, or spoke nonsense.
    Failed,
    /// It answered as it should, and the target was to blame. Where it was the member itself that could not
    /// reach the target, another one may: then there is a [doubt](State::doubt) as well.
    Declined,
    /// It said no, in words that may be about the target as well as about us: SOCKS4 has no others. If another one leads to the same target, it
    /// is [blamed](State::blame); if nobody is known to, that is [settled](State::settle) by how the session has ended.
    Doubtful,
    /// It has done all that comes before, and then said nothing of the target, or broke off. It may be waiting for the target, or have no
    /// words for what became of it. As with [`Doubtful`](Outcome::Doubtful) it is blamed if another one leads there.
    Silent,
    /// Whoever asked has gone before there was an answer. It says nothing about the member. A time that the member was given and has let
    /// pass is a failure.
    Abandoned,
}

/// An attempt of which it is not known whether the member or the target was to blame. A trial is one until that is known.
#[derive(Debug)]
#[must_use = "who was to blame is to be told, or a trial keeps others away"]
pub struct Doubt {
    attempt: Attempt,
    outcome: Outcome,
    /// Whether it has taken more than its share of the session's time, or all of its attempts.
    is_costly: bool,
}

/// How a session has ended of which it is not known whether it was led to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everybody has been asked, and nobody leads there.
    AllAsked,
    /// Somebody is left who has not been asked, or has not had its time, and may lead there.
    SomeLeft,
    /// At somebody who says nothing of targets, or at a target that changes its mind.
    Untold,
}

/// What has become of a member, for one line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the list.
    pub member: usize,
    /// What has become of it.
    pub event: Event,
}

/// What can become of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has failed for the first time in a while.
    Failing,
    /// It has failed too often and is left alone for a while.
    MarkedDown {
        /// So often.
        failures: u32,
    },
    /// It has failed as often, or its targets have: it is tried after the others.
    Suspected {
        /// So often.
        failures: u32,
    },
    /// It has failed often enough, and as many are down as may be.
    Spared {
        /// So often.
        failures: u32,
    },
    /// The session that tried it again has failed, and it is left alone once more.
    TrialFailed,
    /// It has failed too many probes in a row and is left alone for a while.
    Ejected {
        /// So many.
        probes: u32,
    },
    /// It serves again.
    Restored,
}

/// A group's members and all that is known of them.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    records: Vec<Record>,
    order: Order,
    sticky: Sticky,
    /// Counts the lists that there have been.
    revision: u64,
    /// Counts trials and probes.
    tickets: u64,
    /// When a session last began, or one without steps last went on.
    used: Option<Instant>,
}

impl State {
    /// A group of whose members nothing is known.
    pub fn new(settings: Settings, members: &[Member]) -> Self {
        let records: Vec<_> = distinct(members).map(Record::new).collect();
        let order = Order::new(records.len());
        Self { settings, records, order, sticky: Sticky::new(), revision: 0, tickets: 0, used: None }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no member at all.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Exchanges the members. Those that stay keep their health, and sessions on their way go on among the new ones.
    pub fn replace(&mut self, members: &[Member], now: Instant) {
        let current = self.records.get(self.order.current()).map(|record| record.key);
        let mut known: HashMap<_, _> = self.records.drain(..).map(|record| (record.key, record)).collect();
        self.records = distinct(members)
            .map(|member| match known.remove(&member.key) {
                Some(record) => record.with_weight(member.weight),
                None => Record::new(member),
            })
            .collect();
        let current = current.and_then(|key| self.position(key));
        self.order.resize(self.records.len(), current);
        self.revision += 1;
        self.hold_cap(now);
    }

    /// Changes the settings. What is known of the members stays.
    pub fn reconfigure(&mut self, settings: Settings, now: Instant) {
        self.settings = settings;
        self.order.resize(self.records.len(), Some(self.order.current()));
        self.hold_cap(now);
    }

    /// A session's walk through the group, which has taken no step yet.
    pub fn begin(&mut self, wanted: &Wanted<'_>, now: Instant) -> Attempts {
        self.take_into_use(now);
        self.sticky.sweep(now);
        let source = hash::canonical(wanted.source);
        let faithful = self.faithful(source, now);
        let (start, seed) = self.order.begin(self.settings.policy, wanted, self.records.len(), faithful);
        let until = now + self.settings.patience;
        Attempts::new(Walk { start, seed, source, faithful, revision: self.revision, until })
    }

    /// The member that the session is to try next, or none if it has failed. What came of it is to be [reported](Self::report), before
    /// the next one is asked for.
    pub fn next(&mut self, attempts: &mut Attempts, now: Instant) -> Option<Attempt> {
        if attempts.made() >= self.settings.attempts_max.get() {
            return None;
        }
        attempts.follow(self.revision);
        let (index, kind) = match self.again(attempts, now) {
            Some(again) => again,
            None => self.another(attempts, now)?,
        };
        let share = self.settings.share(self.records.len());
        let record = self.records.get_mut(index)?;
        self.tickets += 1;
        record.give(kind, self.tickets, now);
        let step = Step { index, key: record.key, kind, ticket: self.tickets };
        Some(attempts.step(&self.settings, &step, share, now))
    }

    /// What came of an attempt. Tells what has become of the member.
    #[expect(clippy::needless_pass_by_value, reason = "an attempt has one outcome")]
    pub fn report(&mut self, attempt: Attempt, outcome: Outcome, now: Instant) -> Option<Change> {
        let Attempt { index, key, kind, ticket, counts, source, .. } = attempt;
        let member = self.find(index, key)?;
        let may_eject = self.may_eject();
        let charge = self.charge(member, attempt.is_alone || attempt.is_overdue(now), may_eject);
        let record = self.records.get_mut(member)?;
        let event = match outcome {
            Outcome::Reached { latency } => {
                record.take_back(ticket);
                if let Some(lasting) = self.settings.sticky {
                    self.sticky.remember(source, key, lasting, now);
                }
                record.measure(latency, now);
                self.reached(member, kind, now)
            }
            Outcome::Failed => {
                let is_current = record.take_back(ticket);
                let outlook = Outlook { kind, is_current, may_eject, charge };
                if counts {
                    self.order.failed(self.settings.policy, member, None);
                }
                return self.failed(member, outlook, counts, now);
            }
            // It is there, whatever it has no words for.
            Outcome::Declined if record.take_back(ticket) => record.answer(kind, now),
            Outcome::Declined | Outcome::Doubtful | Outcome::Silent => {
                record.take_back(ticket);
                None
            }
            Outcome::Abandoned => {
                record.give_up(ticket, now);
                None
            }
        };
        event.map(|event| Change { member, event })
    }

    /// What is held against `member`, which has failed: where as many are out as may be, it stays in use; but if that would cost the next
    /// session as much, it comes after the others. The last one has nobody to come after.
    fn charge(&self, member: usize, is_costly: bool, may_eject: bool) -> Charge {
        let is_kept =
            !may_eject && !self.is_last() && self.records.get(member).is_some_and(|record| !record.is_down());
        if is_kept && is_costly { Charge::Suspicion } else { Charge::Failure }
    }

    /// Whether no more than one is not out.
    fn is_last(&self) -> bool {
        self.records.iter().filter(|record| record.out_since().is_none()).count() <= 1
    }

    /// Keeps an attempt of which it is not known yet whether the target or the member was to blame, though the session goes on.
    pub fn doubt(&mut self, attempt: Attempt, outcome: Outcome, now: Instant) -> Doubt {
        if !attempt.counts
            && let Some(member) = self.find(attempt.index, attempt.key)
            && let Some(record) = self.records.get_mut(member)
        {
            // The session has another try of the same turn.
            record.take_back(attempt.ticket);
        }
        Doubt { is_costly: attempt.is_alone || attempt.is_overdue(now), attempt, outcome }
    }

    /// Whether the session has tried everybody whom it may.
    pub fn has_tried_all(&self, attempts: &Attempts, now: Instant) -> bool {
        let may_be_tried = |record: &Record| match self.settings.none_left {
            NoneLeft::TryAll => true,
            NoneLeft::Fail => record.is_suspected() || record.usable(&self.settings.health, now).is_some(),
        };
        let mut records = self.records.iter().enumerate();
        !attempts.is_in_first_round()
            || records.all(|(index, record)| attempts.has_visited(index) || !may_be_tried(record))
    }

    /// Another member, `reached`, has led where this one had not: it has failed. Tells what has become of it. The last one that is up stays so, or
    /// whoever has targets that tell their visitors apart could take out all; and where as many are out as may be, it is suspected if it has cost
    /// the session time, and tolerated if not.
    #[expect(clippy::needless_pass_by_value, reason = "it is blamed once")]
    pub fn blame(&mut self, doubt: Doubt, reached: Member, now: Instant) -> Option<Change> {
        let Doubt { attempt: Attempt { index, key, kind, ticket, counts, .. }, is_costly, .. } = doubt;
        let member = self.find(index, key)?;
        let may_eject = !self.is_last() && self.may_eject();
        let charge = self.charge(member, is_costly, may_eject);
        let is_current = self.records.get_mut(member)?.take_back(ticket);
        let outlook = Outlook { kind, is_current, may_eject, charge };
        if counts {
            // Those between them may have failed the same session.
            self.order.failed(self.settings.policy, member, self.position(reached.key));
        }
        self.failed(member, outlook, counts, now)
    }

    /// Nobody is known to lead where this one has not. It may be to blame all the same. Tells what has become of the member.
    pub fn settle(&mut self, doubt: Doubt, ending: Ending, now: Instant) -> Option<Change> {
        match (doubt.outcome, ending) {
            // Nobody stands out, and nobody was hidden.
            (Outcome::Silent, Ending::AllAsked) => self.excuse(doubt, now),
            (Outcome::Silent, Ending::SomeLeft | Ending::Untold) => self.suspect(doubt, now),
            // Words about us, perhaps, or of one that is cut off: the next one might not have said them.
            (Outcome::Doubtful | Outcome::Declined, Ending::SomeLeft) => self.suspect(doubt, now),
            // Whoever says no in vain each time costs each session as much.
            (Outcome::Doubtful | Outcome::Declined, Ending::Untold) if doubt.is_costly => {
                self.suspect(doubt, now)
            }
            (Outcome::Doubtful | Outcome::Declined, Ending::AllAsked | Ending::Untold) => {
                self.acquit(doubt, now)
            }
            (Outcome::Failed | Outcome::Abandoned | Outcome::Reached { .. }, _) => self.acquit(doubt, now),
        }
    }

    /// There are others that have not been asked, or that say nothing of targets. If it has cost the session time, it is held against the member
    /// as often as a failure, and others are tried before it; but nobody is out of reach for it, since it may have been the target each time,
    /// and no latch moves. If it has cost an attempt, it is tolerated: a trial of one that says no is over, since that is there.
    fn suspect(&mut self, doubt: Doubt, now: Instant) -> Option<Change> {
        let is_word = doubt.outcome != Outcome::Silent;
        let Attempt { index, key, kind, ticket, counts, .. } = doubt.attempt;
        let member = self.find(index, key)?;
        if !doubt.is_costly && (is_word || kind == Kind::Regular) {
            let change = self.acquit(doubt, now);
            self.records.get_mut(member)?.tolerate();
            return change;
        }
        let is_current = self.records.get_mut(member)?.take_back(ticket);
        let outlook = Outlook { kind, is_current, may_eject: false, charge: Charge::Suspicion };
        self.failed(member, outlook, counts, now)
    }

    /// It has said no, and nobody is known to lead there: the target was to blame. A trial is over then, since whoever says no is there;
    /// the word of one that is asked because nobody else is left changes nothing.
    #[expect(clippy::needless_pass_by_value, reason = "it is acquitted once")]
    fn acquit(&mut self, doubt: Doubt, now: Instant) -> Option<Change> {
        let Attempt { index, key, kind, ticket, .. } = doubt.attempt;
        let member = self.find(index, key)?;
        let record = self.records.get_mut(member)?;
        let is_over = record.take_back(ticket) && kind == Kind::Trial;
        let event = if is_over { record.answer(kind, now) } else { None };
        event.map(|event| Change { member, event })
    }

    /// It has said nothing, and everybody has been asked and nobody leads there: nobody stands out, and nothing is held against it, or a
    /// target that swallows connections would take a whole group out of turn. A trial has not shown that the member is back.
    fn excuse(&mut self, doubt: Doubt, now: Instant) -> Option<Change> {
        match doubt.attempt.kind {
            Kind::Trial => self.suspect(doubt, now),
            Kind::Regular | Kind::LastResort => {
                self.abandon(doubt.attempt, now);
                None
            }
        }
    }

    /// `member` has served. If it was suspected, and nobody else is up, the others that are suspected may be as well as it is: each is due for
    /// a trial at once, or it would have all sessions for itself until they have rested.
    fn reached(&mut self, member: usize, kind: Kind, now: Instant) -> Option<Event> {
        let record = self.records.get_mut(member)?;
        let was_suspected = record.is_suspected();
        record.counted_reached();
        let event = record.reach(kind, self.tickets, &self.settings.health, now)?;
        if was_suspected && self.records.iter().filter(|record| !record.is_down()).count() == 1 {
            self.records.iter_mut().for_each(Record::end_rest);
        }
        Some(event)
    }

    /// An attempt at `member` has failed, and is the last one of its turn if it counts.
    fn failed(&mut self, member: usize, outlook: Outlook, counts: bool, now: Instant) -> Option<Change> {
        let record = self.records.get_mut(member)?;
        record.counted_failed();
        if !counts {
            return None;
        }
        let event = record.fail(outlook, &self.settings.health, now);
        event.map(|event| Change { member, event })
    }

    /// What has come of using `member` by somebody who took no step to it: datagrams go without asking, and what becomes of them shows
    /// later. Tells what has become of the member.
    pub fn note(&mut self, member: Member, is_well: bool, now: Instant) -> Option<Change> {
        let index = self.position(member.key)?;
        let may_eject = self.may_eject();
        let record = self.records.get_mut(index)?;
        // Whoever tries one that is down alone has an attempt at it.
        let kind = if record.is_down() { Kind::LastResort } else { Kind::Regular };
        let event = if is_well {
            self.reached(index, kind, now)
        } else {
            record.counted_failed();
            let outlook = Outlook { kind, is_current: true, may_eject, charge: Charge::Failure };
            record.fail(outlook, &self.settings.health, now)
        };
        event.map(|event| Change { member: index, event })
    }

    /// Somebody who took no step goes on using `member`: datagrams take for long what was chosen for the first. That keeps the group in
    /// use. Tells whether it is a member still, and well; if not, they had better take another one.
    pub fn keep(&mut self, member: Member, now: Instant) -> bool {
        self.take_into_use(now);
        self.position(member.key).is_some_and(|index| self.is_up(index, now))
    }

    /// Takes an attempt back of which nothing is known: the same as reporting that it was abandoned.
    #[expect(clippy::needless_pass_by_value, reason = "an attempt has one outcome")]
    pub fn abandon(&mut self, attempt: Attempt, now: Instant) {
        let Attempt { index, key, ticket, .. } = attempt;
        if let Some(record) = self.find(index, key).and_then(|member| self.records.get_mut(member)) {
            record.give_up(ticket, now);
        }
    }

    /// The same member once more, where a member is given several tries and may still be tried.
    fn again(&self, attempts: &Attempts, now: Instant) -> Option<(usize, Kind)> {
        let Again { index, kind } = attempts.again(&self.settings)?;
        let usable = self.records.get(index)?.usable(&self.settings.health, now);
        let kind = match kind {
            // It may have come back between two tries.
            Kind::LastResort => usable.unwrap_or(kind),
            Kind::Regular | Kind::Trial => usable?,
        };
        Some((index, kind))
    }

    /// Another member: one that served this source before, one that is up or due for a trial, whoever is in doubt, one of those that are down if
    /// the session may, and then all that are up over again.
    fn another(&mut self, attempts: &mut Attempts, now: Instant) -> Option<(usize, Kind)> {
        if let Some(index) = attempts.faithful()
            && self.is_up(index, now)
        {
            return Some((index, Kind::Regular));
        }
        // With one that says no at once, and may be right, a session loses its first attempt, and with all of them all that it has.
        let whom = if attempts.made() == 0 { Whom::Usable } else { Whom::Preferred };
        if let Some(usable) = self.pick(attempts, whom, now) {
            return Some(usable);
        }
        if let Some(in_doubt) = self.in_doubt(attempts, now) {
            return Some(in_doubt);
        }
        if let Some(trial) = self.pick(attempts, Whom::Usable, now) {
            return Some(trial);
        }
        if attempts.is_in_first_round() {
            let may_try_all = match self.settings.none_left {
                NoneLeft::Fail => false,
                NoneLeft::TryAll => true,
            };
            if may_try_all && let Some(resort) = self.pick(attempts, Whom::All, now) {
                return Some(resort);
            }
        }
        if self.settings.rounds == Rounds::One {
            return None;
        }
        // Whoever was tried last is not the first again, unless it is the only one.
        let last = attempts.start_again();
        let usable = self.pick(attempts, Whom::Usable, now);
        attempts.readmit(last);
        usable.or_else(|| self.pick(attempts, Whom::Usable, now))
    }

    /// One of those that are up and tolerated, or down on no more than a suspicion. Most often it is the one that has served last, or else any of
    /// them: it may have fallen ill, and another one be well that nobody asks; and no order is one that clients could go by. Whoever is down
    /// has one turn for that.
    fn in_doubt(&self, attempts: &Attempts, now: Instant) -> Option<(usize, Kind)> {
        let kind = |record: &Record| match record.usable(&self.settings.health, now) {
            Some(Kind::Regular) => Some(Kind::Regular),
            _ if record.is_suspected() && attempts.is_in_first_round() => Some(Kind::LastResort),
            _ => None,
        };
        let in_doubt = || {
            let left = self.records.iter().enumerate().filter(|(index, _)| !attempts.has_visited(*index));
            left.filter_map(|(index, record)| Some((index, kind(record)?)))
        };
        let count = u64::try_from(in_doubt().count()).ok()?;
        let chance = hash::mix(attempts.seed().wrapping_add(attempts.made().into()) ^ self.tickets);
        let served = |index: usize| self.records.get(index).and_then(Record::served);
        let proven = in_doubt().filter(|(index, _)| served(*index).is_some());
        if !chance.is_multiple_of(4)
            && let Some(latest) = proven.max_by_key(|(index, _)| served(*index))
        {
            return Some(latest);
        }
        let place = usize::try_from((chance / 4).checked_rem(count)?).ok()?;
        in_doubt().nth(place)
    }

    /// The member that served `source` last, if it is up.
    fn faithful(&mut self, source: IpAddr, now: Instant) -> Option<usize> {
        self.settings.sticky?;
        let key = self.sticky.find(source, now)?;
        self.position(key).filter(|index| self.is_up(*index, now))
    }

    fn is_up(&self, index: usize, now: Instant) -> bool {
        let usable = self.records.get(index).and_then(|record| record.usable(&self.settings.health, now));
        usable == Some(Kind::Regular)
    }

    /// The first by the policy. Those that return slowly are passed over by a part of the sessions, unless there is nobody else.
    fn pick(&mut self, attempts: &Attempts, whom: Whom, now: Instant) -> Option<(usize, Kind)> {
        let (policy, health) = (self.settings.policy, &self.settings.health);
        let in_full = whom != Whom::All && policy != Policy::Latched && !health.slow_start.is_zero();
        let candidates = Candidates { records: &self.records, attempts, health, whom, in_full, now };
        let chosen = self.order.choose(policy, &candidates);
        if chosen.is_some() || !in_full {
            return chosen;
        }
        self.order.choose(policy, &Candidates { in_full: false, ..candidates })
    }

    /// Where a member stands, which most often is where it stood.
    fn find(&self, hint: usize, key: u64) -> Option<usize> {
        match self.records.get(hint) {
            Some(record) if record.key == key => Some(hint),
            Some(_) | None => self.position(key),
        }
    }

    fn position(&self, key: u64) -> Option<usize> {
        self.records.iter().position(|record| record.key == key)
    }

    /// Whether one more member may be taken out.
    fn may_eject(&self) -> bool {
        let down = self.records.iter().filter(|record| record.out_since().is_some()).count();
        down < self.settings.health.ejected_max(self.records.len())
    }

    /// Brings back those that have been down for the longest time, until no more are down than may be.
    fn hold_cap(&mut self, now: Instant) {
        let max = self.settings.health.ejected_max(self.records.len());
        let mut down: Vec<_> =
            self.records.iter_mut().filter_map(|record| Some((record.out_since()?, record))).collect();
        let excess = down.len().saturating_sub(max);
        down.sort_by_key(|(since, _)| *since);
        for (_, record) in down.into_iter().take(excess) {
            record.restore(now);
        }
    }
}

/// The members, of whom no two have the same key: one that is named twice is two.
fn distinct(members: &[Member]) -> impl Iterator<Item = Member> {
    let mut keys = HashSet::new();
    members.iter().map(move |member| {
        let mut key = member.key;
        while !keys.insert(key) {
            key = hash::mix(key);
        }
        Member { key, ..*member }
    })
}
