//! What is held against members: trials, the cap, lists that change, and attempts that nobody hears of again.

use std::sync::Arc;

use super::*;
use crate::limits::{ANSWER_SECS, TRIAL_SECS_MAX};

fn strict(count: usize) -> World {
    let health = Health { fail_threshold: some(1), ..Health::default() };
    World::new(Settings { none_left: NoneLeft::Fail, health, ..Settings::default() }, count)
}

/// A group whose first member is due for a trial.
fn due(count: usize) -> World {
    let mut world = strict(count).with_dead(&[0]);
    world.session();
    assert!(world.is_down(0));
    world.pass(31);
    world.events();
    world
}

fn step(world: &mut World) -> (Attempts, Attempt) {
    let mut attempts = world.begin();
    let attempt = world.state.next(&mut attempts, world.now).unwrap();
    (attempts, attempt)
}

#[test]
fn others_skip_a_member_while_one_session_tries_it() {
    let mut world = due(2);
    let (mut attempts, trial) = step(&mut world);
    assert_eq!((trial.member(), trial.kind()), (0, Kind::Trial));
    assert!(matches!(world.condition(0), Condition::Down { is_on_trial: true, .. }));
    assert_eq!([world.tried(), world.tried()], [[1], [1]]);
    let change = world.state.report(trial, Outcome::Failed, world.now);
    assert_eq!(change, Some(Change { member: 0, event: Event::TrialFailed }));
    let next = world.state.next(&mut attempts, world.now).unwrap();
    assert_eq!((next.member(), next.kind()), (1, Kind::Regular), "the session goes on");
    world.pass(30);
    assert_eq!(world.tried(), [1], "and the member rests once more");
}

#[test]
fn an_abandoned_trial_counts_as_nothing_and_another_may_be_one() {
    let mut world = due(2);
    let (_, trial) = step(&mut world);
    assert_eq!(world.state.report(trial, Outcome::Abandoned, world.now), None);
    let (_, again) = step(&mut world);
    assert_eq!((again.member(), again.kind()), (0, Kind::Trial));
    world.state.abandon(again, world.now);
    assert_eq!(step(&mut world).1.kind(), Kind::Trial);
}

#[test]
fn a_trial_that_has_no_words_for_a_target_is_there() {
    let mut world = due(2);
    let (_, trial) = step(&mut world);
    let restored = Some(Change { member: 0, event: Event::Restored });
    assert_eq!(world.state.report(trial, Outcome::Declined, world.now), restored);
}

#[test]
fn a_trial_that_says_no_has_failed_if_another_leads_there_and_is_back_if_nobody_does() {
    let mut world = due(2);
    let (_, trial) = step(&mut world);
    let doubt = world.state.doubt(trial, Outcome::Declined, world.now);
    let failed = Some(Change { member: 0, event: Event::TrialFailed });
    assert_eq!(world.state.blame(doubt, members([1])[0], world.now), failed);
    assert_eq!(world.tried(), [1], "it rests once more");
    world.pass(31);
    let (_, trial) = step(&mut world);
    let doubt = world.state.doubt(trial, Outcome::Declined, world.now);
    let restored = Some(Change { member: 0, event: Event::Restored });
    assert_eq!(world.state.settle(doubt, Ending::AllAsked, world.now), restored);
    let (_, regular) = step(&mut world);
    assert_eq!((regular.member(), regular.kind()), (0, Kind::Regular));
    let doubt = world.state.doubt(regular, Outcome::Declined, world.now);
    assert_eq!(world.state.settle(doubt, Ending::AllAsked, world.now), None, "it is there already");
}

#[test]
fn a_trial_that_is_in_doubt_keeps_others_away_until_it_is_known_who_was_to_blame() {
    for is_blamed in [true, false] {
        let mut world = due(2);
        let (_, trial) = step(&mut world);
        let doubt = world.state.doubt(trial, Outcome::Declined, world.now);
        assert_eq!(step(&mut world).1.member(), 1, "another session leaves it alone");
        if is_blamed {
            world.state.blame(doubt, members([1])[0], world.now);
            assert_eq!(world.tried(), [1]);
        } else {
            world.state.abandon(doubt.attempt, world.now);
            assert_eq!(step(&mut world).1.kind(), Kind::Trial);
        }
    }
}

#[test]
fn a_trial_that_is_suspected_rests_once_more() {
    let mut world = due(2);
    let (_, trial) = step(&mut world);
    let doubt = world.state.doubt(trial, Outcome::Silent, world.now);
    let failed = Some(Change { member: 0, event: Event::TrialFailed });
    assert_eq!(world.state.settle(doubt, Ending::SomeLeft, world.now), failed);
    assert_eq!(world.tried(), [1]);
}

#[test]
fn silence_that_makes_nobody_stand_out_is_held_against_nobody_and_brings_nobody_back() {
    let mut world = strict(2);
    for _ in 0..9 {
        let (_, attempt) = step(&mut world);
        let doubt = world.state.doubt(attempt, Outcome::Silent, world.now);
        assert_eq!(world.state.settle(doubt, Ending::AllAsked, world.now), None);
    }
    assert_eq!((world.condition(0), world.tried()), (Condition::Up, vec![0]));
    let mut world = due(2);
    let (_, trial) = step(&mut world);
    let doubt = world.state.doubt(trial, Outcome::Silent, world.now);
    let failed = Some(Change { member: 0, event: Event::TrialFailed });
    assert_eq!(world.state.settle(doubt, Ending::AllAsked, world.now), failed);
    assert_eq!(world.tried(), [1], "it rests once more");
}

#[test]
fn whoever_is_suspected_comes_after_the_others_and_before_a_session_fails() {
    let mut world = strict(3);
    world.state.settings.policy = Policy::Ordered;
    world.state.settings.health.fail_threshold = some(2);
    assert_eq!(world.state.settings.none_left, NoneLeft::Fail);
    let threshold = world.state.settings.health.fail_threshold.get();
    for number in 1..=threshold {
        let attempt = lone_attempt(&mut world);
        assert_eq!(attempt.member(), 0);
        let doubt = world.state.doubt(attempt, Outcome::Declined, world.now);
        let change = world.state.settle(doubt, Ending::SomeLeft, world.now);
        let suspected = Some(Change { member: 0, event: Event::Suspected { failures: number } });
        assert_eq!(change == suspected, number == threshold);
    }
    let (_, other) = step(&mut world);
    assert_eq!(other.member(), 1, "others are tried before it");
    world.state.abandon(other, world.now);
    for member in [1, 2] {
        for _ in 0..threshold {
            let (_, attempt) = step(&mut world);
            assert_eq!(attempt.member(), member);
            world.state.report(attempt, Outcome::Failed, world.now);
        }
    }
    let (_, mut last) = step(&mut world);
    assert_eq!((last.member(), last.kind()), (0, Kind::LastResort), "nobody else is left");
    let marked = Some(Change { member: 0, event: Event::MarkedDown { failures: threshold } });
    for number in 1..threshold {
        assert_eq!(world.state.report(last, Outcome::Failed, world.now), None, "{number}");
        (_, last) = step(&mut world);
    }
    assert_eq!(world.state.report(last, Outcome::Failed, world.now), marked);
    let mut attempts = world.begin();
    assert!(world.state.next(&mut attempts, world.now).is_none(), "that was more than a suspicion");
    // Its trial may end in silence for the target's sake: then it is not known to be down still.
    world.pass(31);
    let (_, trial) = step(&mut world);
    assert_eq!((trial.member(), trial.kind()), (0, Kind::Trial));
    let doubt = world.state.doubt(trial, Outcome::Silent, world.now);
    let failed = Some(Change { member: 0, event: Event::TrialFailed });
    assert_eq!(world.state.settle(doubt, Ending::SomeLeft, world.now), failed);
    assert!(world.state.records[0].is_suspected());
}

/// The only attempt that a session has.
fn lone_attempt(world: &mut World) -> Attempt {
    let attempts_max = std::mem::replace(&mut world.state.settings.attempts_max, some(1));
    let (_, attempt) = step(world);
    world.state.settings.attempts_max = attempts_max;
    attempt
}

/// A session that has one attempt, at a member that leads nowhere: it is suspected.
fn suspect(world: &mut World) -> usize {
    let attempt = lone_attempt(world);
    let member = attempt.member();
    let doubt = world.state.doubt(attempt, Outcome::Declined, world.now);
    world.events.extend(world.state.settle(doubt, Ending::SomeLeft, world.now));
    member
}

#[test]
fn where_all_are_suspected_the_first_that_serves_has_the_others_tried_at_once() {
    for policy in POLICIES {
        let mut world = strict(3);
        world.state.settings.policy = policy;
        for _ in 0..9 {
            suspect(&mut world);
        }
        assert!((0..3).all(|member| world.is_down(member)), "{policy:?}");
        world.is_well[2] = false;
        let tried: Vec<_> = (0..9).flat_map(|_| world.tried()).collect();
        let finding_out = tried.iter().filter(|tried| **tried == 2).count();
        assert!(finding_out <= 2, "{policy:?}: for want of others, and on trial: {tried:?}");
        if matches!(policy, Policy::RoundRobin | Policy::LeastLatency | Policy::Weighted | Policy::Random) {
            assert_eq!([0, 1, 2].map(|member| world.is_down(member)), [false, false, true], "{policy:?}");
        }
    }
}

#[test]
fn whoever_is_suspected_beside_one_that_is_up_has_its_rest() {
    let mut world = strict(3);
    while !(world.is_down(0) && world.is_down(1)) {
        suspect(&mut world);
    }
    for _ in 0..3 {
        assert_eq!(world.tried(), [2]);
    }
    world.pass(31);
    assert_eq!([world.tried(), world.tried()], [[0], [0]], "which is over for each at its own time");
    assert!(world.is_down(1));
}

#[test]
fn a_session_that_is_served_lifts_a_suspicion_that_was_raised_while_it_was_on_its_way_and_no_more() {
    let mut world = strict(2);
    let (_, slow) = step(&mut world);
    let (_, too) = step(&mut world);
    suspect(&mut world);
    assert!(world.is_down(0));
    let restored = Some(Change { member: 0, event: Event::Restored });
    assert_eq!(world.state.report(slow, Outcome::Reached { latency: None }, world.now), restored);
    // A failure beside it is taken back as any other, or counts on.
    for success_clears in [true, false] {
        let mut world = strict(2);
        world.state.settings.health = Health { fail_threshold: some(2), success_clears, ..Health::default() };
        let (_, slow) = step(&mut world);
        let (_, failing) = step(&mut world);
        world.state.report(failing, Outcome::Failed, world.now);
        suspect(&mut world);
        assert!(world.state.records[0].is_suspected());
        assert_eq!(world.state.report(slow, Outcome::Reached { latency: None }, world.now), restored);
        let (_, failing) = step(&mut world);
        world.state.report(failing, Outcome::Failed, world.now);
        assert_eq!(world.is_down(0), !success_clears);
    }
    // What it has failed for itself is another matter.
    world.is_well[0] = false;
    world.session();
    assert!(world.is_down(0));
    assert_eq!(world.state.report(too, Outcome::Reached { latency: None }, world.now), None);
}

#[test]
fn the_word_of_one_that_is_asked_for_want_of_others_does_not_bring_it_back() {
    let mut world = strict(2).with_dead(&[0, 1]);
    world.state.settings.none_left = NoneLeft::TryAll;
    for _ in 0..9 {
        world.session();
    }
    let (_, resort) = step(&mut world);
    assert_eq!(resort.kind(), Kind::LastResort);
    let at = resort.member();
    let doubt = world.state.doubt(resort, Outcome::Declined, world.now);
    assert_eq!(world.state.settle(doubt, Ending::AllAsked, world.now), None);
    assert!(world.is_down(at));
}

#[test]
fn the_last_one_that_is_up_is_not_taken_out_for_a_target_that_another_reached() {
    let mut world = strict(2).with_dead(&[0]);
    for _ in 0..9 {
        world.session();
    }
    assert!(world.is_down(0) && !world.is_down(1));
    for _ in 0..9 {
        let (_, attempt) = step(&mut world);
        assert_eq!(attempt.member(), 1);
        let doubt = world.state.doubt(attempt, Outcome::Declined, world.now);
        world.state.blame(doubt, members([1])[0], world.now);
        assert!(!world.is_down(1));
    }
    let (_, attempt) = step(&mut world);
    world.state.report(attempt, Outcome::Failed, world.now);
    assert!(world.is_down(1), "a failure of its own is no doubt");
}

#[test]
fn one_that_said_no_before_it_was_marked_down_is_not_brought_back_by_it() {
    let mut world = strict(2).with_dead(&[0]);
    let (_, before) = step(&mut world);
    let doubt = world.state.doubt(before, Outcome::Declined, world.now);
    world.session();
    assert!(world.is_down(0));
    assert_eq!(world.state.settle(doubt, Ending::AllAsked, world.now), None);
    assert!(world.is_down(0));
}

#[test]
fn a_trial_that_nobody_hears_of_is_forgotten_and_its_late_failure_counts_for_nothing() {
    let mut world = due(2);
    let (_, lost) = step(&mut world);
    world.now += TRIAL_SECS_MAX - Duration::from_millis(1);
    assert_eq!(world.tried(), [1]);
    world.now += Duration::from_millis(1);
    let (_, trial) = step(&mut world);
    assert_eq!(trial.kind(), Kind::Trial);
    assert_eq!(world.state.report(lost, Outcome::Failed, world.now), None);
    assert_eq!(world.tried(), [1], "the other trial goes on");
    let restored = Some(Change { member: 0, event: Event::Restored });
    assert_eq!(world.state.report(trial, Outcome::Reached { latency: None }, world.now), restored);
}

#[test]
fn a_trial_of_several_tries_fails_once() {
    let mut world = due(2);
    world.state.settings.attempts_per_member = some(2);
    assert_eq!(world.tried(), [0, 0, 1]);
    assert_eq!(world.events(), [(0, Event::TrialFailed)]);
}

#[test]
fn a_session_tries_one_member_that_was_down_where_it_has_no_place_in_an_order() {
    for policy in [Policy::LeastLatency, Policy::Weighted, Policy::Random] {
        let mut world = strict(5).with_dead(&[0, 1, 2, 3]);
        world.state.settings.policy = policy;
        while (0..4).any(|member| !world.is_down(member)) {
            world.session();
        }
        world.pass(31);
        let told = world.session();
        assert_eq!((told.tried.len(), told.reached), (2, Some(4)), "{policy:?}");
        for _ in 0..3 {
            world.session();
        }
        assert_eq!(world.tried(), [4], "each has had its trial");
    }
}

#[test]
fn those_that_are_down_are_a_last_resort_once_for_a_session() {
    let mut world = strict(3).with_dead(&[0, 1, 2]);
    world.session();
    world.state.settings.none_left = NoneLeft::TryAll;
    assert_eq!(world.tried(), [0, 1, 2]);
    world.is_well[1] = true;
    assert_eq!(world.tried(), [0, 1]);
    assert!(!world.is_down(1), "one that is reached that way is back");
    world.is_well[1] = false;
    world.state.settings.health.fail_threshold = some(2);
    world.state.settings.rounds = Rounds::UntilAttemptsEnd;
    assert_eq!(world.tried(), [1, 0, 2, 1]);
}

#[test]
fn success_takes_failures_back() {
    let mut world = World::new(Settings::default(), 2);
    for _ in 0..10 {
        world.is_well[0] = false;
        world.session();
        world.is_well[0] = true;
        world.session();
    }
    assert_eq!(world.condition(0), Condition::Up);
    assert_eq!(world.events(), vec![(0, Event::Failing); 10]);
}

#[test]
fn datagrams_that_fail_with_a_member_that_is_down_are_no_trial_of_it() {
    let mut world = due(2);
    let member = members([0])[0];
    for _ in 0..200 {
        assert_eq!(world.state.note(member, false, world.now), None, "nor anything to tell");
    }
    assert_eq!(world.tried(), [0, 1], "its rest is not renewed by them");
    world.events();
    let restored = Some(Change { member: 0, event: Event::Restored });
    assert_eq!(world.state.note(member, true, world.now), restored);
}

#[test]
fn a_late_success_of_a_session_that_began_before_brings_nobody_back() {
    let mut world = strict(2).with_dead(&[0]);
    let (_, before) = step(&mut world);
    world.session();
    assert!(world.is_down(0));
    assert_eq!(world.state.report(before, Outcome::Reached { latency: None }, world.now), None);
    assert!(world.is_down(0));
}

#[test]
fn no_more_are_down_than_may_be() {
    let mut world = strict(4).with_dead(&[0, 1, 2]);
    world.state.settings.health.ejected_percent_max = 50;
    assert_eq!(world.tried(), [0, 1, 2, 3]);
    let (marked, spared) = (Event::MarkedDown { failures: 1 }, Event::Spared { failures: 1 });
    assert_eq!(world.events(), [(0, marked), (1, marked), (2, spared)]);
    assert_eq!(world.tried(), [2, 3]);
    assert_eq!(world.events(), [], "which is told once");
}

#[test]
fn whoever_is_blamed_where_no_more_may_be_out_comes_after_the_others_and_is_not_out() {
    let mut world = strict(4).with_dead(&[0]);
    world.state.settings.health.ejected_percent_max = 25;
    assert_eq!(world.tried(), [0, 1]);
    // One that says no at once costs no more than an attempt, and stays where it is.
    let (_, attempt) = step(&mut world);
    assert_eq!(attempt.member(), 1);
    let doubt = world.state.doubt(attempt, Outcome::Declined, world.now);
    let spared = Some(Change { member: 1, event: Event::Spared { failures: 1 } });
    assert_eq!(world.state.blame(doubt, members([2])[0], world.now), spared);
    let (_, attempt) = step(&mut world);
    assert_eq!(attempt.member(), 1);
    world.now += ANSWER_SECS;
    let doubt = world.state.doubt(attempt, Outcome::Declined, world.now);
    let suspected = Some(Change { member: 1, event: Event::Suspected { failures: 2 } });
    assert_eq!(world.state.blame(doubt, members([2])[0], world.now), suspected);
    assert_eq!(world.tried(), [2]);
    assert!(world.state.records[1].is_suspected() && !world.state.records[0].is_suspected());
    // One that is out stays so, though that is as many as may be.
    world.pass(31);
    let (_, trial) = step(&mut world);
    let doubt = world.state.doubt(trial, Outcome::Declined, world.now);
    let failed = Some(Change { member: 0, event: Event::TrialFailed });
    assert_eq!(world.state.blame(doubt, members([2])[0], world.now), failed);
    assert!(!world.state.records[0].is_suspected());
}

#[test]
fn whoever_fails_where_no_more_may_be_out_comes_after_the_others_if_it_costs_them_time() {
    let mut world = strict(4).with_dead(&[0]);
    world.state.settings.health.ejected_percent_max = 25;
    assert_eq!(world.tried(), [0, 1]);
    for (takes, event) in
        [(Duration::ZERO, Event::Spared { failures: 1 }), (ANSWER_SECS, Event::Suspected { failures: 2 })]
    {
        let (_, attempt) = step(&mut world);
        assert_eq!(attempt.member(), 1);
        world.now += takes;
        let change = world.state.report(attempt, Outcome::Failed, world.now);
        assert_eq!(change, Some(Change { member: 1, event }), "{takes:?}");
    }
    assert_eq!(world.tried(), [2]);
    // With nobody to come after it stays where it is.
    let mut world = strict(2).with_dead(&[0]);
    world.state.settings.health.ejected_percent_max = 50;
    assert_eq!(world.tried(), [0, 1]);
    let (_, attempt) = step(&mut world);
    world.now += ANSWER_SECS;
    let spared = Some(Change { member: 1, event: Event::Spared { failures: 1 } });
    assert_eq!(world.state.report(attempt, Outcome::Failed, world.now), spared);
    assert_eq!(world.tried(), [1]);
}

/// A session of two attempts that nobody serves; each member says no at once.
fn refused(world: &mut World) -> [usize; 2] {
    world.state.settings.attempts_max = some(2);
    let mut attempts = world.begin();
    let doubts = [(); 2].map(|()| {
        let attempt = world.state.next(&mut attempts, world.now).unwrap();
        attempts.leave();
        (attempt.member(), world.state.doubt(attempt, Outcome::Declined, world.now))
    });
    assert!(world.state.next(&mut attempts, world.now).is_none());
    doubts.map(|(member, doubt)| {
        world.events.extend(world.state.settle(doubt, Ending::SomeLeft, world.now));
        member
    })
}

/// Whom the second attempts of so many sessions went to.
fn seconds(world: &mut World, sessions: usize) -> Vec<usize> {
    let mut seconds: Vec<_> = (0..sessions).map(|_| refused(world)[1]).collect();
    seconds.sort_unstable();
    seconds.dedup();
    seconds
}

#[test]
fn whoever_says_no_at_once_keeps_its_place_and_hides_nobody() {
    let mut world = World::new(Settings { none_left: NoneLeft::Fail, ..Settings::default() }, 4);
    // From the second attempt on those come first that have not said so.
    assert_eq!([(); 3].map(|()| refused(&mut world)), [[0, 1], [0, 2], [0, 3]]);
    assert_eq!((0..4).map(|member| world.condition(member)).collect::<Vec<_>>(), [Condition::Up; 4]);
    assert_eq!(world.events(), [], "none is out of turn, and nothing is told of it");
    assert_eq!(seconds(&mut world, 60), [1, 2, 3], "and then any");
    world.is_well = vec![false, true, false, false];
    world.state.settings.health.fail_threshold = some(99);
    world.state.settings.attempts_max = some(16);
    world.session();
    world.state.settings.attempts_max = some(2);
    assert_eq!(world.tried(), [0, 1], "it has led to a target since, and comes first again");
    // Names that are not there come between, and each session finds it all the same, more often than not.
    let served = (0..60).filter(|_| {
        refused(&mut world);
        refused(&mut world);
        world.reached() == Some(1)
    });
    assert!(served.count() > 40);
    world.is_well[0] = true;
    assert_eq!([world.tried(), world.tried()], [[0], [0]]);
}

#[test]
fn one_that_says_no_in_its_trial_is_there_however_few_the_attempts() {
    let mut world = due(3);
    world.is_well[0] = true;
    assert_eq!(refused(&mut world), [0, 1]);
    assert_eq!(world.events(), [(0, Event::Restored)]);
    assert_eq!(world.tried(), [0]);
    // One that ends without a word, or takes its time, may be as ill as before.
    for (outcome, takes) in [(Outcome::Silent, Duration::ZERO), (Outcome::Declined, ANSWER_SECS)] {
        let mut world = due(3);
        let (_, trial) = step(&mut world);
        world.now += takes;
        let doubt = world.state.doubt(trial, outcome, world.now);
        let failed = Some(Change { member: 0, event: Event::TrialFailed });
        assert_eq!(world.state.settle(doubt, Ending::SomeLeft, world.now), failed);
    }
}

#[test]
fn a_session_has_one_trial_while_somebody_is_up() {
    for policy in POLICIES {
        let mut world = strict(3).with_dead(&[0, 1]);
        world.state.settings.policy = policy;
        for member in members([0, 1]) {
            world.state.note(member, false, world.now);
        }
        world.state.settings.attempts_max = some(2);
        for _ in 0..9 {
            world.pass(31);
            assert_eq!(world.reached(), Some(2), "{policy:?}");
        }
        world.is_well = vec![false, true, false];
        world.pass(31);
        world.state.settings.attempts_max = some(3);
        assert_eq!(world.reached(), Some(1), "{policy:?}: and another one before it fails");
    }
}

#[test]
fn whoever_takes_long_to_say_no_comes_after_the_others_also_before_one_that_tells_nothing() {
    for ending in [Ending::SomeLeft, Ending::Untold] {
        for (takes, is_down) in [(ANSWER_SECS / 2, false), (ANSWER_SECS, true)] {
            let mut world = strict(2);
            let (_, attempt) = step(&mut world);
            world.now += takes;
            let doubt = world.state.doubt(attempt, Outcome::Declined, world.now);
            world.state.settle(doubt, ending, world.now);
            assert_eq!(world.is_down(0), is_down, "{ending:?} after {takes:?}");
        }
    }
    // Where there is less time for each, less is long.
    let mut world = strict(3);
    world.state.settings.patience = ANSWER_SECS;
    let (_, attempt) = step(&mut world);
    world.now += ANSWER_SECS / 3;
    let doubt = world.state.doubt(attempt, Outcome::Doubtful, world.now);
    world.state.settle(doubt, Ending::SomeLeft, world.now);
    assert!(world.is_down(0));
}

#[test]
fn trials_that_are_given_up_are_one_in_vain_when_they_have_lasted_as_long_together() {
    let mut world = due(2);
    let give_up = |world: &mut World, after| {
        let (_, trial) = step(world);
        assert_eq!((trial.member(), trial.kind()), (0, Kind::Trial));
        world.now += after;
        world.state.abandon(trial, world.now);
    };
    for _ in 0..2 {
        // Whoever is gone at once has waited for nothing.
        for after in [Duration::ZERO; 50].into_iter().chain([ANSWER_SECS / 3; 3]) {
            give_up(&mut world, after);
        }
        assert_eq!(world.tried(), [1]);
        assert!(world.state.records[0].is_suspected(), "it may be well, and is asked for want of others");
        world.pass(31);
    }
    assert_eq!(step(&mut world).1.kind(), Kind::Trial);
}

#[test]
fn of_several_one_may_be_down_and_of_one_none_unless_all_may() {
    let max =
        |percent, count| Health { ejected_percent_max: percent, ..Health::default() }.ejected_max(count);
    assert_eq!([max(10, 2), max(10, 9), max(10, 19), max(10, 20)], [1, 1, 1, 2]);
    assert_eq!([max(99, 1), max(100, 1), max(200, 3), max(0, 9), max(50, 0)], [0, 1, 3, 0, 0]);
}

#[test]
fn members_that_stay_keep_their_health_wherever_they_stand() {
    let mut world = strict(3).with_dead(&[0]);
    world.session();
    world.state.replace(&members([3, 2, 0, 4]), world.now);
    world.is_well = vec![true, true, false, true];
    let down: Vec<_> = (0..4).filter(|member| world.is_down(*member)).collect();
    assert_eq!(down, [2]);
    assert_eq!(world.state.describe(world.now)[2].sessions_failed, 1);
    world.state.replace(&members([1]), world.now);
    world.state.replace(&members([0]), world.now);
    assert!(!world.is_down(0), "one that went away comes as a stranger");
}

#[test]
fn each_member_has_one_turn_unless_attempts_are_to_be_used_up() {
    let mut world = World::new(Settings::default(), 3).with_dead(&[0, 1, 2]);
    assert_eq!(world.tried(), [0, 1, 2]);
    let again = Settings { rounds: Rounds::UntilAttemptsEnd, attempts_max: some(5), ..Settings::default() };
    let mut world = World::new(again, 3).with_dead(&[0, 1, 2]);
    assert_eq!(world.tried(), [0, 1, 2, 0, 1]);
}

#[test]
fn a_walk_goes_on_among_other_members_and_still_counts() {
    let mut world = strict(3).with_dead(&[0, 1, 2]);
    world.state.settings.attempts_max = some(3);
    let (mut attempts, first) = step(&mut world);
    world.state.replace(&members([7, 0]), world.now);
    let change = world.state.report(first, Outcome::Failed, world.now);
    assert_eq!(change, Some(Change { member: 1, event: Event::MarkedDown { failures: 1 } }));
    let second = world.state.next(&mut attempts, world.now).unwrap();
    assert_eq!(second.member(), 0);
    world.state.replace(&members([8, 9]), world.now);
    assert_eq!(world.state.report(second, Outcome::Failed, world.now), None, "it is nobody's any more");
    assert!(world.state.next(&mut attempts, world.now).is_some());
    assert!(world.state.next(&mut attempts, world.now).is_none());
}

#[test]
fn a_latch_follows_its_member() {
    let mut world = World::new(Settings::like_traffic_server(Policy::Latched), 3).with_dead(&[0, 1]);
    assert_eq!(world.reached(), Some(2));
    world.state.replace(&members([2, 1, 0]), world.now);
    world.is_well = vec![true; 3];
    assert_eq!(world.reached(), Some(0));
}

#[test]
fn a_list_or_a_cap_that_shrinks_brings_back_those_that_were_down_for_the_longest_time() {
    let mut world = strict(6).with_dead(&[0, 1, 2]);
    for member in 0..3 {
        world.is_well = vec![true; 6];
        world.is_well[member] = false;
        world.pass(1);
        world.session();
    }
    let down = |world: &World| -> Vec<_> {
        (0..world.state.len()).filter(|member| world.is_down(*member)).collect()
    };
    assert_eq!(down(&world), [0, 1, 2]);
    let health = Health { ejected_percent_max: 50, ..world.state.settings.health };
    world.state.reconfigure(Settings { health, ..world.state.settings }, world.now);
    assert_eq!(down(&world), [0, 1, 2]);
    world.state.replace(&members([0, 1, 2, 3]), world.now);
    assert_eq!(down(&world), [1, 2]);
}

#[test]
fn one_that_is_named_twice_is_two() {
    let twice = [members([0]), members([0])].concat();
    let mut state = State::new(Settings::default(), &twice);
    let now = Instant::now();
    assert_ne!(state.records[0].key, state.records[1].key);
    let before = state.records[1].key;
    state.replace(&twice, now);
    assert_eq!(state.records[1].key, before);
}

#[test]
fn tries_of_a_member_end_when_it_is_left() {
    let mut world = strict(2);
    world.state.settings.attempts_per_member = some(3);
    let (mut attempts, first) = step(&mut world);
    world.state.report(first, Outcome::Declined, world.now);
    attempts.leave();
    let second = world.state.next(&mut attempts, world.now).unwrap();
    assert_eq!(second.member(), 1);
    assert_eq!(attempts.made(), 2);
}

#[test]
fn a_member_that_was_left_has_no_other_turn_and_who_failed_has() {
    let mut world = strict(3);
    let rounds = Rounds::UntilAttemptsEnd;
    world.state.settings = Settings { attempts_max: some(9), rounds, ..world.state.settings };
    let (mut attempts, first) = step(&mut world);
    world.state.report(first, Outcome::Declined, world.now);
    attempts.leave();
    let mut tried = Vec::new();
    while let Some(attempt) = world.state.next(&mut attempts, world.now) {
        tried.push(attempt.member());
        world.state.report(attempt, Outcome::Declined, world.now);
        if tried.len() == 3 {
            attempts.leave();
        }
    }
    assert_eq!(tried[..3], [1, 2, 1], "the first has been left");
    assert_eq!(tried[3..], [2; 5], "and then the second");
    assert_eq!(attempts.made(), 9);
}

#[test]
fn an_attempt_that_is_dropped_gives_its_place_back() {
    let mut world = due(2);
    let named = members(0..2);
    let list = named.iter().zip(["a", "b"]).map(|(member, what)| (*member, Arc::new(what))).collect();
    let shared = Shared::new(world.state.settings, list);
    shared.with_state(|state| std::mem::swap(state, &mut world.state));
    let (target, now) = (world.target.clone(), world.now);
    let begin = || shared.begin(&Wanted { target: &target, source: world.source, chance: 1 }, now);
    let (mut one, mut two) = (begin(), begin());
    let held = shared.next(&mut one, now).unwrap();
    assert_eq!((**held.member(), held.kind()), ("a", Kind::Trial));
    let other = shared.next(&mut two, now).unwrap();
    assert_eq!((**other.member(), other.kind()), ("b", Kind::Regular));
    assert_eq!(other.report(Outcome::Reached { latency: None }, now), None);
    drop(held);
    let again = shared.next(&mut begin(), now).unwrap();
    assert_eq!((**again.member(), again.kind()), ("a", Kind::Trial));
    let restored = Some(Change { member: 0, event: Event::Restored });
    assert_eq!(again.report(Outcome::Reached { latency: None }, now), restored);
}

#[test]
fn what_is_told_of_members_is_true() {
    let mut world = World::new(Settings::default(), 3).with_dead(&[0]);
    world.session();
    let told = world.state.describe(world.now);
    assert_eq!(told[0].condition, Condition::Failing { failures: 1, threshold: 2 });
    assert_eq!((told[0].sessions_reached, told[0].sessions_failed), (0, 1));
    assert_eq!((told[1].sessions_reached, told[1].sessions_failed), (1, 0));
    assert_eq!(told[1].latency, Some(Duration::from_millis(10)));
    assert_eq!((told[2].condition, told[2].latency), (Condition::Up, None));
    world.pass(5);
    world.session();
    world.pass(10);
    let since = world.now - Duration::from_secs(10);
    let retry_in = Duration::from_secs(20);
    let (is_on_trial, is_suspected) = (false, false);
    assert_eq!(world.condition(0), Condition::Down { since, retry_in, is_on_trial, is_suspected });
    assert_eq!(world.condition(0).word(), "down");
    world.pass(21);
    let (_, trial) = step(&mut world);
    assert_eq!(world.condition(0).word(), "trial");
    let doubt = world.state.doubt(trial, Outcome::Silent, world.now);
    world.state.settle(doubt, Ending::SomeLeft, world.now);
    assert_eq!(world.condition(0).word(), "suspected");
}
