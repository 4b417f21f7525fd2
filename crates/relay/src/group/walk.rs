//! One session's way through a group.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::Settings;

/// One session's walk: whom it has tried, and how often it may still try.
#[derive(Debug)]
pub struct Attempts {
    walk: Walk,
    made: u32,
    visited: Visited,
    /// Those with whom it has done for good.
    left: Visited,
    round: Round,
    trials: Trials,
    turn: Option<Turn>,
    /// Who was tried last.
    last: Option<usize>,
}

/// What a walk begins with.
#[derive(Debug)]
pub(super) struct Walk {
    /// Where it starts in the list.
    pub(super) start: usize,
    /// The number that stands for what the session wants, or its chance.
    pub(super) seed: u64,
    pub(super) source: IpAddr,
    /// The member that served this source before.
    pub(super) faithful: Option<usize>,
    /// The list that it goes through.
    pub(super) revision: u64,
    /// When its time is over.
    pub(super) until: Instant,
}

/// A member that a session is to try. Whoever tries it says what came of it.
#[derive(Debug)]
#[must_use = "what came of it is to be reported, or a trial keeps others away"]
pub struct Attempt {
    pub(super) index: usize,
    pub(super) key: u64,
    pub(super) kind: Kind,
    pub(super) ticket: u64,
    /// Whether it is the last of the member's tries in this turn, so that a failure counts.
    pub(super) counts: bool,
    /// Whether the session has had no attempt at another member, and will have none.
    pub(super) is_alone: bool,
    /// When the member has had its share of the session's time.
    pub(super) due: Instant,
    pub(super) source: IpAddr,
}

/// As what a member is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is up.
    Regular,
    /// It is down and has rested, and this session alone finds out whether it serves again.
    Trial,
    /// It is down, and nobody else is left.
    LastResort,
}

/// A step to a member.
pub(super) struct Step {
    pub(super) index: usize,
    pub(super) key: u64,
    pub(super) kind: Kind,
    pub(super) ticket: u64,
}

/// A member may be tried once more.
pub(super) struct Again {
    pub(super) index: usize,
    pub(super) kind: Kind,
}

#[derive(Debug)]
struct Turn {
    index: usize,
    kind: Kind,
    tries: u32,
    due: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    First,
    Later,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trials {
    NotYet,
    Had,
}

/// A set of places in the list; up to 64 of them cost no memory of their own.
#[derive(Debug, Default)]
struct Visited {
    first: u64,
    others: Vec<u64>,
}

impl Attempt {
    /// The member's place in the list that the group had when the attempt was given.
    pub fn member(&self) -> usize {
        self.index
    }

    /// As what it is tried.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the member has had its share of the session's time by `now`.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        now >= self.due
    }
}

impl Attempts {
    pub(super) fn new(walk: Walk) -> Self {
        Self {
            walk,
            made: 0,
            visited: Visited::default(),
            left: Visited::default(),
            round: Round::First,
            trials: Trials::NotYet,
            turn: None,
            last: None,
        }
    }

    /// When the session's time is over: it looks no longer for a member that leads to its target.
    pub fn until(&self) -> Instant {
        self.walk.until
    }

    /// How many attempts have been made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Has done with the member that was tried last: it is not tried once more, in this turn or in another.
    pub fn leave(&mut self) {
        self.turn = None;
        if let Some(last) = self.last {
            self.left.insert(last);
        }
    }

    /// Whether no other member has been tried before the turn of the last one: it has had all of the session's time.
    pub fn are_of_one_turn(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.tries == self.made)
    }

    pub(super) fn start(&self) -> usize {
        self.walk.start
    }

    pub(super) fn seed(&self) -> u64 {
        self.walk.seed
    }

    /// The member to try before the policy is asked.
    pub(super) fn faithful(&self) -> Option<usize> {
        if self.made == 0 { self.walk.faithful } else { None }
    }

    pub(super) fn has_visited(&self, index: usize) -> bool {
        self.visited.contains(index) || self.left.contains(index)
    }

    pub(super) fn has_had_trial(&self) -> bool {
        self.trials == Trials::Had
    }

    pub(super) fn is_in_first_round(&self) -> bool {
        self.round == Round::First
    }

    /// Goes on in another list, where places mean other members.
    pub(super) fn follow(&mut self, revision: u64) {
        if self.walk.revision != revision {
            self.walk.revision = revision;
            self.walk.faithful = None;
            self.visited = Visited::default();
            self.left = Visited::default();
            self.turn = None;
            self.last = None;
        }
    }

    /// Everybody has had a turn, and may have another; the last one, which is told, once it is readmitted.
    pub(super) fn start_again(&mut self) -> Option<usize> {
        self.visited = Visited::default();
        self.round = Round::Later;
        let last = self.last?;
        self.visited.insert(last);
        Some(last)
    }

    /// The last one may have another turn as well.
    pub(super) fn readmit(&mut self, last: Option<usize>) {
        if last.is_some() {
            self.visited = Visited::default();
        }
    }

    /// The member that was tried last, if it has tries left.
    pub(super) fn again(&self, settings: &Settings) -> Option<Again> {
        let Turn { index, kind, tries, .. } = self.turn.as_ref()?;
        (*tries < settings.attempts_per_member.get()).then_some(Again { index: *index, kind: *kind })
    }

    /// Takes a step to a member, which has this `share` of the session's time.
    pub(super) fn step(
        &mut self,
        settings: &Settings,
        step: &Step,
        share: Duration,
        now: Instant,
    ) -> Attempt {
        let Step { index, key, kind, ticket } = *step;
        let (before, due) = match &self.turn {
            Some(turn) if turn.index == index && self.again(settings).is_some() => (turn.tries, turn.due),
            Some(_) | None => (0, now + share),
        };
        let tries = before + 1;
        self.made += 1;
        self.visited.insert(index);
        self.turn = Some(Turn { index, kind, tries, due });
        self.last = Some(index);
        if kind == Kind::Trial {
            self.trials = Trials::Had;
        }
        let is_last = self.made >= settings.attempts_max.get();
        let counts = is_last || tries >= settings.attempts_per_member.get();
        let is_alone = is_last && tries == self.made;
        Attempt { index, key, kind, ticket, counts, is_alone, due, source: self.walk.source }
    }
}

impl Visited {
    fn insert(&mut self, index: usize) {
        let Some(index) = index.checked_sub(64) else {
            self.first |= 1 << index;
            return;
        };
        let (word, bit) = (index / 64, index % 64);
        if word >= self.others.len() {
            self.others.resize(word + 1, 0);
        }
        if let Some(word) = self.others.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    fn contains(&self, index: usize) -> bool {
        let (word, bit) = match index.checked_sub(64) {
            None => (Some(&self.first), index),
            Some(index) => (self.others.get(index / 64), index % 64),
        };
        word.is_some_and(|word| word >> bit & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_remembered_and_no_other() {
        let mut visited = Visited::default();
        let places = [0, 1, 63, 64, 65, 127, 128, 1000];
        for (done, place) in places.iter().enumerate() {
            visited.insert(*place);
            for at in 0..2000 {
                assert_eq!(visited.contains(at), places[..=done].contains(&at), "{at}");
            }
        }
    }
}
