//! Groups with members that live and die, and a clock that we hold.

mod choice;
mod invariants;
mod members;
mod model;
mod probes;
mod sequences;

use super::*;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

/// A group, what its members would do, and the time.
struct World {
    state: State,
    now: Instant,
    is_well: Vec<bool>,
    events: Vec<Change>,
    chance: u64,
    source: IpAddr,
    target: Address,
}

/// What a session came to.
#[derive(Debug, PartialEq)]
struct Told {
    tried: Vec<usize>,
    reached: Option<usize>,
}

impl World {
    fn new(settings: Settings, count: usize) -> Self {
        Self {
            state: State::new(settings, &members(0..count)),
            now: Instant::now(),
            is_well: vec![true; count],
            events: Vec::new(),
            chance: 0,
            source: Ipv4Addr::LOCALHOST.into(),
            target: "192.0.2.1:80".parse().unwrap(),
        }
    }

    fn with_dead(mut self, dead: &[usize]) -> Self {
        for index in dead {
            self.is_well[*index] = false;
        }
        self
    }

    fn pass(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    fn begin(&mut self) -> Attempts {
        self.chance = hash::mix(self.chance);
        let wanted = Wanted { target: &self.target, source: self.source, chance: self.chance };
        self.state.begin(&wanted, self.now)
    }

    /// A session from its beginning to its end.
    fn session(&mut self) -> Told {
        let mut attempts = self.begin();
        let mut tried = Vec::new();
        while let Some(attempt) = self.state.next(&mut attempts, self.now) {
            let member = attempt.member();
            tried.push(member);
            let latency = Some(Duration::from_millis(10));
            let outcome = if self.is_well[member] { Outcome::Reached { latency } } else { Outcome::Failed };
            self.events.extend(self.state.report(attempt, outcome, self.now));
            if self.is_well[member] {
                return Told { tried, reached: Some(member) };
            }
        }
        Told { tried, reached: None }
    }

    /// Whom a session tries.
    fn tried(&mut self) -> Vec<usize> {
        self.session().tried
    }

    /// Whom a session reaches.
    fn reached(&mut self) -> Option<usize> {
        self.session().reached
    }

    fn events(&mut self) -> Vec<(usize, Event)> {
        self.events.drain(..).map(|change| (change.member, change.event)).collect()
    }

    fn condition(&self, member: usize) -> Condition {
        self.state.describe(self.now)[member].condition
    }

    fn is_down(&self, member: usize) -> bool {
        matches!(self.condition(member), Condition::Down { .. })
    }
}

fn members(numbers: impl IntoIterator<Item = usize>) -> Vec<Member> {
    numbers.into_iter().map(|number| Member::named(&format!("parent{number}:1080"))).collect()
}

fn some(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

const POLICIES: [Policy; 9] = [
    Policy::Ordered,
    Policy::RoundRobin,
    Policy::AddressModulo,
    Policy::Latched,
    Policy::TargetHash,
    Policy::SourceHash,
    Policy::LeastLatency,
    Policy::Weighted,
    Policy::Random,
];
