//! What holds whatever the settings, with many sessions at a time that end in every way.

use proptest::prelude::*;

use super::*;
use crate::limits::TRIAL_SECS_MAX;

fn settings() -> impl Strategy<Value = Settings> {
    let walk = (0..POLICIES.len(), 1..4_u32, 1..12_u32, any::<[bool; 3]>());
    let health = (1..4_u32, 1..90_u64, any::<bool>(), any::<bool>(), 0..90_u64, 0..=100_u8);
    (walk, health).prop_map(|((policy, per_member, most, [tries_all, is_sticky, is_once]), health)| {
        let (threshold, retry, from_first, success_clears, slow_start, percent) = health;
        let retry_time = Duration::from_secs(retry);
        Settings {
            policy: POLICIES[policy],
            attempts_per_member: some(per_member),
            attempts_max: some(most),
            patience: Duration::from_secs(u64::from(most)),
            rounds: if is_once { Rounds::One } else { Rounds::UntilAttemptsEnd },
            none_left: if tries_all { NoneLeft::TryAll } else { NoneLeft::Fail },
            sticky: is_sticky.then_some(retry_time),
            health: Health {
                fail_threshold: some(threshold),
                fail_window: Duration::from_secs(60),
                retry_time,
                retry_from: if from_first { RetryFrom::FirstFailure } else { RetryFrom::Marking },
                success_clears,
                slow_start: Duration::from_secs(slow_start),
                ejected_percent_max: percent,
                probing: Some(Probing::default()),
            },
        }
    })
}

#[derive(Clone, Debug)]
enum Act {
    Begin(u8),
    Next(usize),
    Report(usize, Outcome),
    Drop(usize),
    Pass(u64),
    Probe(u64, Outcome),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let outcome = prop_oneof![
        2 => (0..500_u64).prop_map(|millis| Outcome::Reached { latency: Some(Duration::from_millis(millis)) }),
        4 => Just(Outcome::Failed),
        1 => Just(Outcome::Declined),
        1 => Just(Outcome::Abandoned),
    ];
    let probe = (any::<u64>(), outcome.clone());
    let act = prop_oneof![
        3 => any::<u8>().prop_map(Act::Begin),
        8 => any::<usize>().prop_map(Act::Next),
        8 => (any::<usize>(), outcome).prop_map(|(at, outcome)| Act::Report(at, outcome)),
        1 => any::<usize>().prop_map(Act::Drop),
        3 => (0..40_u64).prop_map(Act::Pass),
        1 => probe.prop_map(|(chance, outcome)| Act::Probe(chance, outcome)),
    ];
    prop::collection::vec(act, 0..200)
}

struct Session {
    attempts: Attempts,
    held: Option<Held>,
    tried: Vec<usize>,
    is_over: bool,
}

/// What a session has been given to try.
struct Held {
    attempt: Attempt,
    since: Instant,
    /// How often its member had been up by then.
    ups: usize,
}

impl Session {
    /// The member on trial, unless it has been for so long that it is forgotten, or has been up since: then the next trial is another.
    fn trial(&self, now: Instant, ups: &[usize]) -> Option<usize> {
        let Held { attempt, since, ups: before } = self.held.as_ref()?;
        let is_current = now - *since < TRIAL_SECS_MAX && *before == ups[attempt.member()];
        (attempt.kind() == Kind::Trial && is_current).then(|| attempt.member())
    }
}

fn step(world: &mut World, sessions: &mut [Session], at: usize, ups: &[usize]) {
    let settings = world.state.settings;
    let now = world.now;
    let session = &mut sessions[at];
    let Some(attempt) = world.state.next(&mut session.attempts, now) else {
        session.is_over = true;
        return;
    };
    let member = attempt.member();
    session.tried.push(member);
    assert!(session.tried.len() <= settings.attempts_max.get() as usize);
    let in_row = session.tried.iter().rev().take_while(|tried| **tried == member).count();
    let per_member = settings.attempts_per_member.get() as usize;
    // Another turn of the same one begins only where there is nobody else.
    if in_row > per_member && in_row % per_member == 1 % per_member {
        let others = (0..world.is_well.len()).filter(|other| *other != member);
        assert!(others.into_iter().all(|other| world.is_down(other)), "there was another to try");
    }
    match attempt.kind() {
        Kind::Regular => assert!(!world.is_down(member)),
        Kind::Trial => assert!(world.is_down(member)),
        Kind::LastResort => {
            let is_suspected = world.state.records[member].is_suspected();
            // Or it was when its turn began.
            let may_be_asked = settings.none_left == NoneLeft::TryAll || is_suspected || in_row > 1;
            assert!(world.is_down(member) && may_be_asked);
        }
    }
    session.held = Some(Held { attempt, since: now, ups: ups[member] });
    let mut trials: Vec<_> = sessions.iter().filter_map(|session| session.trial(now, ups)).collect();
    trials.sort_unstable();
    assert!(trials.windows(2).all(|pair| pair[0] != pair[1]), "one trial at a time");
}

fn play(settings: Settings, count: usize, acts: Vec<Act>) {
    let mut world = World::new(settings, count);
    let mut sessions: Vec<Session> = Vec::new();
    // After how many acts each member was up.
    let mut ups = vec![0; count];
    for act in acts {
        let chosen = |at: usize| at.checked_rem(sessions.len());
        match act {
            Act::Begin(source) => {
                world.source = Ipv4Addr::new(192, 0, 2, source % 4).into();
                let attempts = world.begin();
                sessions.push(Session { attempts, held: None, tried: Vec::new(), is_over: false });
            }
            Act::Next(at) => {
                let Some(at) = chosen(at) else { continue };
                if sessions[at].held.is_none() && !sessions[at].is_over {
                    step(&mut world, &mut sessions, at, &ups);
                }
            }
            Act::Report(at, outcome) => {
                let Some(at) = chosen(at) else { continue };
                let Some(Held { attempt, .. }) = sessions[at].held.take() else { continue };
                world.state.report(attempt, outcome, world.now);
            }
            Act::Drop(at) => {
                let Some(at) = chosen(at) else { continue };
                let session = sessions.swap_remove(at);
                if let Some(Held { attempt, .. }) = session.held {
                    world.state.abandon(attempt, world.now);
                }
            }
            Act::Pass(secs) => world.pass(secs),
            Act::Probe(chance, outcome) => {
                if let NextProbe::Due(probe) = world.state.next_probe(world.now, chance) {
                    world.state.probed(probe, outcome, world.now);
                }
            }
        }
        for (member, ups) in ups.iter_mut().enumerate() {
            *ups += usize::from(!world.is_down(member));
        }
        let out = world.state.records.iter().filter(|record| record.out_since().is_some()).count();
        assert!(out <= settings.health.ejected_max(count), "{out} of {count} are out");
    }
    nothing_leaks(world, sessions);
}

/// When every session has gone, whoever is down and has rested can be tried.
fn nothing_leaks(mut world: World, sessions: Vec<Session>) {
    for Held { attempt, .. } in sessions.into_iter().filter_map(|session| session.held) {
        world.state.abandon(attempt, world.now);
    }
    let on_trial = |status: &Status| matches!(status.condition, Condition::Down { is_on_trial: true, .. });
    assert!(!world.state.describe(world.now).iter().any(on_trial));
    world.pass(1000);
    assert!(world.reached().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bounds_hold_whatever_sessions_and_members_do(
        settings in settings(),
        count in 1..7_usize,
        acts in acts(),
    ) {
        play(settings, count, acts);
    }

    #[test]
    fn a_session_with_enough_attempts_reaches_whoever_is_well(
        settings in settings(),
        count in 1..7_usize,
        steps in prop::collection::vec((0..60_u64, any::<[bool; 7]>(), any::<u8>(), any::<bool>()), 1..40),
    ) {
        let attempts_max = settings.attempts_per_member.saturating_mul(some(u32::try_from(count).unwrap()));
        let settings = Settings { none_left: NoneLeft::TryAll, attempts_max, ..settings };
        let mut world = World::new(settings, count);
        let mut stuck = Vec::new();
        for (secs, is_well, source, gets_stuck) in steps {
            world.pass(secs);
            world.is_well = is_well.to_vec();
            world.source = Ipv4Addr::new(192, 0, 2, source).into();
            if gets_stuck {
                let mut attempts = world.begin();
                stuck.extend(world.state.next(&mut attempts, world.now));
            }
            let told = world.session();
            prop_assert_eq!(told.reached.is_some(), is_well[..count].contains(&true), "{:?}", told);
        }
    }
}

#[test]
fn no_session_fails_when_a_member_dies_and_comes_back() {
    for policy in POLICIES {
        let mut world = World::new(Settings { policy, ..Settings::default() }, 3);
        for second in 0..300 {
            world.is_well[0] = !(50..150).contains(&second);
            world.is_well[1] = !(120..250).contains(&second);
            world.pass(1);
            for _ in 0..5 {
                assert!(world.reached().is_some(), "{policy:?}, second {second}");
            }
        }
    }
}

#[test]
fn no_member_is_no_attempt() {
    for policy in POLICIES {
        let mut world = World::new(Settings { policy, ..Settings::default() }, 0);
        assert_eq!(world.session(), Told { tried: vec![], reached: None });
        assert!(world.state.is_empty());
    }
}
