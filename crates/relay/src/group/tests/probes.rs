//! When members are probed, and what probes do to them.

use proptest::prelude::*;

use super::*;
use crate::limits::{PROBE_INTERVAL_SECS_MIN, TRIAL_SECS_MAX};

const INTERVAL: Duration = Duration::from_secs(30);

fn probed(count: usize) -> World {
    probed_with(Probing { interval: INTERVAL, ..Probing::default() }, count)
}

fn probed_with(probing: Probing, count: usize) -> World {
    let health = Health { probing: Some(probing), ..Health::default() };
    World::new(Settings { health, ..Settings::default() }, count)
}

impl World {
    /// The next probe, for which the clock is put forward.
    fn probe(&mut self) -> Option<Probe> {
        loop {
            self.chance = hash::mix(self.chance);
            match self.state.next_probe(self.now, self.chance) {
                NextProbe::Due(probe) => return Some(probe),
                NextProbe::At(next) => {
                    assert!(next > self.now, "a prober would spin");
                    self.now = next;
                }
                NextProbe::Unused => return None,
            }
        }
    }

    /// Lets probes of a member come to this, while the group is in use.
    fn probes(&mut self, member: usize, outcomes: &[Outcome]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut outcomes = outcomes.iter();
        while !outcomes.as_slice().is_empty() {
            self.session();
            let probe = self.probe().unwrap();
            if probe.member() == member {
                let change = self.state.probed(probe, *outcomes.next().unwrap(), self.now);
                events.extend(change.map(|change| change.event));
            } else {
                self.state.probed(probe, Outcome::Abandoned, self.now);
            }
        }
        events
    }
}

const GOOD: Outcome = Outcome::Reached { latency: None };

#[test]
fn whoever_goes_on_without_a_step_keeps_the_group_in_use_and_is_told_when_to_leave() {
    let mut world = probed(2);
    let [one, other] = [0, 1].map(|number| members([number])[0]);
    assert!(world.state.keep(one, world.now));
    for _ in 0..20 {
        world.pass(INTERVAL.as_secs());
        assert!(world.state.keep(one, world.now));
    }
    assert!(world.probe().is_some());
    while !world.is_down(0) {
        world.state.note(one, false, world.now);
    }
    assert!(!world.state.keep(one, world.now));
    assert!(world.state.keep(other, world.now));
    assert!(!world.state.keep(Member::named("no member"), world.now));
}

proptest! {
    #[test]
    fn probes_are_spread_within_their_bounds(jitter in 0..=100_u8, count in 1..6_usize, chance in any::<u64>()) {
        let probing = Probing { interval: INTERVAL, jitter_percent: jitter, ..Probing::default() };
        let mut world = probed_with(probing, count);
        world.chance = chance;
        let start = world.now;
        let mut last: Vec<Option<Instant>> = vec![None; count];
        for _ in 0..20 * count {
            world.session();
            let probe = world.probe().unwrap();
            let member = probe.member();
            world.state.probed(probe, GOOD, world.now);
            let spread = INTERVAL * u32::from(jitter.min(90)) / 100;
            match last[member].replace(world.now) {
                None => prop_assert!(world.now - start < INTERVAL),
                Some(before) => {
                    let gap = world.now - before;
                    prop_assert!(gap >= INTERVAL - spread && gap <= INTERVAL + spread, "{:?}", gap);
                }
            }
        }
    }
}

#[test]
fn nobody_is_probed_while_the_group_is_not_in_use() {
    let mut world = probed(2);
    assert!(world.probe().is_none(), "nobody has used it yet");
    world.begin();
    let used = world.now;
    let mut last = used;
    while let Some(probe) = world.probe() {
        last = world.now;
        world.state.probed(probe, GOOD, world.now);
    }
    assert!(last > used && last <= used + 4 * INTERVAL);
    world.pass(3600);
    assert!(world.probe().is_none());
    let (mut back, woken) = (world.begin(), world.now);
    assert!(world.state.next(&mut back, world.now).is_some());
    let probe = world.probe().unwrap();
    assert!(world.now > woken, "what was missed is not made up for at once");
    world.state.probed(probe, GOOD, world.now);
}

#[test]
fn a_group_without_probing_is_never_probed() {
    let mut world = World::new(Settings::default(), 2);
    world.begin();
    assert!(world.probe().is_none());
}

#[test]
fn probes_in_a_row_take_a_member_out_and_bring_it_back() {
    let mut world = probed(2);
    let bad = Outcome::Failed;
    assert_eq!(world.probes(0, &[bad, bad, GOOD, bad, bad]), []);
    assert_eq!(world.probes(0, &[bad]), [Event::Ejected { probes: 3 }]);
    world.state.settings.health.retry_time = Duration::from_secs(3600);
    assert_eq!(world.tried(), [1]);
    assert_eq!(world.probes(0, &[GOOD, bad, GOOD]), []);
    assert_eq!(world.probes(0, &[GOOD]), [Event::Restored]);
    assert_eq!(world.tried(), [0]);
}

#[test]
fn probes_bring_back_whom_sessions_marked_down() {
    let mut world = probed(2).with_dead(&[0]);
    world.state.settings.health.retry_time = Duration::from_secs(3600);
    world.session();
    world.session();
    assert!(world.is_down(0));
    assert_eq!(world.probes(0, &[GOOD, GOOD]), [Event::Restored]);
}

#[test]
fn one_that_probes_took_out_has_its_trial_too() {
    let mut world = probed(2);
    world.probes(0, &[Outcome::Failed; 3]);
    assert!(world.is_down(0));
    world.pass(31);
    assert_eq!(world.tried(), [0]);
    assert!(!world.is_down(0));
}

#[test]
fn the_cap_holds_for_probes() {
    let mut world = probed(2);
    world.state.settings.health.ejected_percent_max = 50;
    let bad = Outcome::Failed;
    assert_eq!(world.probes(0, &[bad; 3]), [Event::Ejected { probes: 3 }]);
    world.state.settings.health.retry_time = Duration::from_secs(36_000);
    assert_eq!(world.probes(1, &[bad; 9]), []);
    assert_eq!(world.probes(0, &[GOOD, GOOD]), [Event::Restored]);
    assert_eq!(world.probes(1, &[bad]), [Event::Ejected { probes: 10 }]);
}

#[test]
fn a_member_has_one_probe_at_a_time_and_a_lost_one_is_forgotten() {
    let mut world = probed(1);
    world.begin();
    let lost = world.probe().unwrap();
    let since = world.now;
    while world.now - since < TRIAL_SECS_MAX {
        world.begin();
        let NextProbe::At(next) = world.state.next_probe(world.now, world.chance) else { break };
        assert!(next > world.now);
        world.now = next;
    }
    world.begin();
    assert!(world.now - since >= TRIAL_SECS_MAX);
    assert!(world.probe().is_some());
    assert_eq!(world.state.probed(lost, Outcome::Failed, world.now), None);
    assert_eq!(world.state.describe(world.now)[0].probes_failed, 0);
}

#[test]
fn absurd_intervals_make_nobody_spin_or_overflow() {
    for interval in [Duration::ZERO, Duration::MAX] {
        let probing =
            Probing { interval, jitter_percent: 255, unused_intervals: u32::MAX, ..Probing::default() };
        let mut world = probed_with(probing, 3);
        let start = world.now;
        for _ in 0..90 {
            world.begin();
            let probe = world.probe().unwrap();
            world.state.probed(probe, GOOD, world.now);
        }
        assert!(world.now - start > PROBE_INTERVAL_SECS_MIN * 20);
    }
}
