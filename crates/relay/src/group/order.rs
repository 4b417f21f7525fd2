//! Whose turn it is: the policies.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;
use umbra_proto::address::Address;

use super::record::Record;
use super::walk::{Attempts, Kind};
use super::{Health, Policy, Wanted, hash};
use crate::limits::LATENCY_GAIN_MIN;

/// What the policies remember from one session to the next.
#[derive(Debug)]
pub(super) struct Order {
    /// Whose turn it is next, in turn.
    turn: usize,
    /// The one that is in use, latched or fastest.
    current: usize,
    /// How far each is behind its weight.
    behind: Vec<i64>,
}

/// Who may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// Those that are up, and those that are due for a trial.
    Usable,
    /// Those that are up and not only tolerated, and those that are due for a trial, of which a session makes one.
    Preferred,
    /// Those that are down as well.
    All,
}

/// Those among whom a session chooses: none that it has tried in this round.
#[derive(Clone, Copy)]
pub(super) struct Candidates<'a> {
    pub(super) records: &'a [Record],
    pub(super) attempts: &'a Attempts,
    pub(super) health: &'a Health,
    pub(super) whom: Whom,
    /// Whether those that return slowly are passed over, if this is none of their sessions.
    pub(super) in_full: bool,
    pub(super) now: Instant,
}

impl Candidates<'_> {
    fn kind(&self, index: usize) -> Option<Kind> {
        if self.attempts.has_visited(index) {
            return None;
        }
        let record = self.records.get(index)?;
        let chance = || hash::mix(hash::mix(self.attempts.seed()) ^ record.key);
        if self.in_full && record.is_passed_over(chance(), self.health.slow_start, self.now) {
            return None;
        }
        match self.whom {
            Whom::All => Some(Kind::LastResort),
            Whom::Preferred if record.is_tolerated() => None,
            Whom::Preferred => {
                let usable = record.usable(self.health, self.now);
                usable.filter(|kind| *kind != Kind::Trial || !self.attempts.has_had_trial())
            }
            Whom::Usable => record.usable(self.health, self.now),
        }
    }

    /// Whether sessions may try it, this one or others.
    fn is_usable(&self, index: usize) -> bool {
        self.records.get(index).is_some_and(|record| record.usable(self.health, self.now).is_some())
    }

    fn choice(&self, index: usize) -> Option<(usize, Kind)> {
        self.kind(index).map(|kind| (index, kind))
    }

    fn all(&self) -> impl Iterator<Item = (usize, Kind)> {
        (0..self.records.len()).filter_map(|index| self.choice(index))
    }

    fn from(&self, start: usize) -> Option<(usize, Kind)> {
        (start..self.records.len()).chain(0..start).find_map(|index| self.choice(index))
    }

    /// One that is due for a trial. Where the order gives members no place, nothing else would ever lead a session to it; and one
    /// of them is enough for a session, while others are well.
    fn trial(&self) -> Option<(usize, Kind)> {
        let mut trials = self.all().filter(|(_, kind)| *kind == Kind::Trial);
        if self.attempts.has_had_trial() { None } else { trials.next() }
    }

    /// Those that are not for trial.
    fn steady(&self) -> impl Iterator<Item = (usize, Kind)> {
        self.all().filter(|(_, kind)| *kind != Kind::Trial)
    }
}

impl Order {
    pub(super) fn new(count: usize) -> Self {
        Self { turn: 0, current: 0, behind: vec![0; count] }
    }

    /// The one that is in use.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// There are `count` members, and `current` is where the one in use stands, if it is among them.
    pub(super) fn resize(&mut self, count: usize, current: Option<usize>) {
        self.turn = self.turn.checked_rem(count).unwrap_or(0);
        self.current = current.filter(|current| *current < count).unwrap_or(0);
        self.behind.clear();
        self.behind.resize(count, 0);
    }

    /// Where a session starts in the list, and the number that stands for what it wants. One that goes to a member that it is
    /// faithful to takes nobody's turn.
    pub(super) fn begin(
        &mut self,
        policy: Policy,
        wanted: &Wanted<'_>,
        count: usize,
        faithful: Option<usize>,
    ) -> (usize, u64) {
        match policy {
            Policy::Ordered | Policy::Latched | Policy::LeastLatency | Policy::Weighted | Policy::Random => {
                (0, wanted.chance)
            }
            Policy::RoundRobin => {
                if let Some(start) = faithful {
                    return (start, wanted.chance);
                }
                let start = self.turn;
                self.turn = (start + 1).checked_rem(count).unwrap_or(0);
                (start, wanted.chance)
            }
            Policy::AddressModulo => (modulo(wanted.target, count), wanted.chance),
            Policy::TargetHash => (0, hash::of_target(wanted.target)),
            Policy::SourceHash => (0, hash::of_source(wanted.source)),
        }
    }

    /// A session's last try at `member` has failed; the session was served by `reached`, if that is known.
    pub(super) fn failed(&mut self, policy: Policy, member: usize, reached: Option<usize>) {
        if policy == Policy::Latched && member == self.current {
            let next = || (member + 1).checked_rem(self.behind.len()).unwrap_or(0);
            self.current = reached.unwrap_or_else(next);
        }
    }

    pub(super) fn choose(&mut self, policy: Policy, among: &Candidates<'_>) -> Option<(usize, Kind)> {
        match policy {
            Policy::Ordered | Policy::RoundRobin | Policy::AddressModulo => {
                among.from(among.attempts.start())
            }
            Policy::Latched => {
                let chosen = among.from(self.current)?;
                // One that this session alone has done with stays in use for the others.
                if !among.is_usable(self.current) {
                    self.current = chosen.0;
                }
                Some(chosen)
            }
            Policy::TargetHash | Policy::SourceHash => most_meant(among),
            Policy::LeastLatency => among.trial().or_else(|| self.fastest(among)).or_else(|| any(among)),
            Policy::Weighted => among.trial().or_else(|| self.furthest_behind(among)).or_else(|| any(among)),
            Policy::Random => among.trial().or_else(|| random(among)).or_else(|| any(among)),
        }
    }

    /// One that has to be measured, or the fastest; the one in use stays, unless another gains enough.
    fn fastest(&mut self, among: &Candidates<'_>) -> Option<(usize, Kind)> {
        let unknown = |index: &usize| {
            among.records.get(*index).is_some_and(|record| record.wants_measure(among.health, among.now))
        };
        if let Some(unmeasured) = among.steady().find(|(index, _)| unknown(index)) {
            return Some(unmeasured);
        }
        let latency = |index: usize| among.records.get(index).and_then(Record::latency);
        let best = among.steady().min_by_key(|(index, _)| latency(*index).unwrap_or(Duration::MAX))?;
        if among.attempts.made() > 0 {
            return Some(best);
        }
        let current = among.steady().find(|(index, _)| *index == self.current);
        let chosen = match (current, latency(self.current), latency(best.0)) {
            (Some(current), Some(used), Some(fastest)) if !is_gain(used, fastest) => current,
            (Some(_) | None, _, _) => best,
        };
        self.current = chosen.0;
        Some(chosen)
    }

    /// Smooth weighted round robin, as nginx has it: everybody earns its weight, and who is chosen pays for all.
    fn furthest_behind(&mut self, among: &Candidates<'_>) -> Option<(usize, Kind)> {
        let mut total = 0;
        let mut chosen: Option<(usize, Kind, i64)> = None;
        for (index, kind) in among.steady() {
            let (Some(record), Some(behind)) = (among.records.get(index), self.behind.get_mut(index)) else {
                continue;
            };
            let weight = i64::from(record.weight.get());
            total += weight;
            *behind += weight;
            if chosen.is_none_or(|(_, _, most)| *behind > most) {
                chosen = Some((index, kind, *behind));
            }
        }
        let (index, kind, _) = chosen?;
        if let Some(behind) = self.behind.get_mut(index) {
            *behind -= total;
        }
        Some((index, kind))
    }
}

fn any(among: &Candidates<'_>) -> Option<(usize, Kind)> {
    among.all().next()
}

fn random(among: &Candidates<'_>) -> Option<(usize, Kind)> {
    let count = u64::try_from(among.steady().count()).ok()?;
    let chance = hash::mix(among.attempts.seed().wrapping_add(among.attempts.made().into()));
    let place = usize::try_from(chance.checked_rem(count)?).ok()?;
    among.steady().nth(place)
}

fn most_meant(among: &Candidates<'_>) -> Option<(usize, Kind)> {
    let affinity = |index: usize| {
        let record = among.records.get(index);
        record.map_or(0.0, |record| hash::affinity(among.attempts.seed(), record.key, record.weight))
    };
    let with_affinity = among.all().map(|choice| (choice, affinity(choice.0)));
    with_affinity.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(choice, _)| choice)
}

/// Whether it is worth moving from one of latency `used` to one of latency `fastest`.
fn is_gain(used: Duration, fastest: Duration) -> bool {
    let gain = used.saturating_sub(fastest);
    gain.cmp(&LATENCY_GAIN_MIN.max(used / 8)) == Ordering::Greater
}

fn modulo(target: &Address, count: usize) -> usize {
    let number = match target {
        Address::Ip(SocketAddr::V4(address)) => u64::from(address.ip().to_bits()),
        Address::Ip(SocketAddr::V6(address)) => match address.ip().to_canonical() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(_) => hash::of_target(target),
        },
        Address::Name(..) => hash::of_target(target),
    };
    let place = u64::try_from(count).ok().and_then(|count| number.checked_rem(count));
    place.and_then(|place| usize::try_from(place).ok()).unwrap_or(0)
}
