//! What Traffic Server was seen to do, with its own settings: whom requests try, one after another.

use super::*;

fn ats(policy: Policy, count: usize) -> World {
    World::new(Settings::like_traffic_server(policy), count)
}

#[test]
fn round_robin_false_always_starts_at_the_first() {
    let mut world = ats(Policy::Ordered, 3);
    assert_eq!([world.reached(), world.reached(), world.reached()], [Some(0); 3]);
}

#[test]
fn round_robin_strict_takes_the_next_for_each_request() {
    let mut world = ats(Policy::RoundRobin, 3);
    let reached: Vec<_> = (0..7).filter_map(|_| world.reached()).collect();
    assert_eq!(reached, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn round_robin_true_takes_the_targets_address_as_a_number() {
    let mut world = ats(Policy::AddressModulo, 3);
    let mut reached = |target: &str| {
        world.target = target.parse().unwrap();
        world.reached()
    };
    assert_eq!(reached("203.0.113.9:8123"), Some(1));
    assert_eq!(reached("203.0.113.10:8123"), Some(2));
    assert_eq!(reached("203.0.113.11:8123"), Some(0));
    assert_eq!(reached("203.0.113.9:1"), Some(1), "the port says nothing");
    assert_eq!(reached("[::ffff:203.0.113.10]:1"), Some(2), "nor does the way an address is written");
    let (named, again) = (reached("a.example:1"), reached("A.Example:2"));
    assert!(named.is_some() && named == again, "a name has a place of its own");
    assert!(reached("[2001:db8::1]:1").is_some());
}

#[test]
fn round_robin_latched_stays_until_a_failure_and_stays_with_the_next() {
    let mut world = ats(Policy::Latched, 3);
    assert_eq!([world.reached(), world.reached()], [Some(0); 2]);
    world.is_well[0] = false;
    assert_eq!(world.tried(), [0, 1]);
    world.is_well[0] = true;
    assert_eq!([world.tried(), world.tried()], [[1], [1]], "the first is well again and not wanted");
    world.is_well[1] = false;
    assert_eq!(world.tried(), [1, 2]);
    world.is_well[2] = false;
    assert_eq!(world.tried(), [2, 0]);
}

#[test]
fn a_slow_failure_of_a_parent_that_was_left_long_ago_moves_no_latch() {
    let mut world = ats(Policy::Latched, 3).with_dead(&[0]);
    let mut slow = world.begin();
    let first = world.state.next(&mut slow, world.now).unwrap();
    assert_eq!(world.tried(), [0, 1]);
    world.is_well[1] = false;
    assert_eq!(world.tried(), [1, 2]);
    world.is_well[1] = true;
    assert_eq!(first.member(), 0);
    world.state.report(first, Outcome::Failed, world.now);
    let second = world.state.next(&mut slow, world.now).unwrap();
    assert_eq!(second.member(), 2, "it goes where the others are");
    world.state.report(second, Outcome::Reached { latency: None }, world.now);
    assert_eq!(world.tried(), [2]);
}

#[test]
fn a_parent_that_is_blamed_leaves_the_latch_to_whoever_was_reached() {
    let mut world = ats(Policy::Latched, 3);
    let mut attempts = world.begin();
    let silent = world.state.next(&mut attempts, world.now).unwrap();
    let doubt = world.state.doubt(silent, Outcome::Declined, world.now);
    let second = world.state.next(&mut attempts, world.now).unwrap();
    world.state.report(second, Outcome::Failed, world.now);
    let third = world.state.next(&mut attempts, world.now).unwrap();
    world.state.report(third, Outcome::Reached { latency: None }, world.now);
    world.state.blame(doubt, members([2])[0], world.now);
    assert_eq!(world.tried(), [2], "and not to the next one, which has failed as well");
}

#[test]
fn a_parent_that_has_done_its_part_stays_latched() {
    let mut world = ats(Policy::Latched, 2);
    let mut attempts = world.begin();
    let first = world.state.next(&mut attempts, world.now).unwrap();
    world.state.report(first, Outcome::Declined, world.now);
    let second = world.state.next(&mut attempts, world.now).unwrap();
    assert_eq!(second.member(), 1);
    world.state.report(second, Outcome::Reached { latency: None }, world.now);
    assert_eq!(world.tried(), [0]);
}

#[test]
fn two_requests_find_out_and_the_third_skips_the_dead() {
    let mut world = ats(Policy::Ordered, 3).with_dead(&[0, 1]);
    assert_eq!(world.session(), Told { tried: vec![0, 1, 2], reached: Some(2) });
    assert_eq!(world.events(), [(0, Event::Failing), (1, Event::Failing)]);
    assert_eq!(world.session(), Told { tried: vec![0, 1, 2], reached: Some(2) });
    let marked = Event::MarkedDown { failures: 2 };
    assert_eq!(world.events(), [(0, marked), (1, marked)]);
    assert_eq!(world.session(), Told { tried: vec![2], reached: Some(2) });
    assert_eq!(world.events(), []);
}

#[test]
fn a_failure_outside_the_window_counts_from_one() {
    let mut world = ats(Policy::Ordered, 2).with_dead(&[0]);
    assert_eq!(world.tried(), [0, 1]);
    world.pass(301);
    assert_eq!(world.tried(), [0, 1]);
    assert!(!world.is_down(0));
    world.pass(300);
    assert_eq!(world.tried(), [0, 1], "the window reaches to its last moment");
    assert!(world.is_down(0));
}

#[test]
fn a_success_in_between_takes_nothing_back_there() {
    let mut world = ats(Policy::Ordered, 2).with_dead(&[0]);
    world.session();
    world.is_well[0] = true;
    assert_eq!(world.tried(), [0]);
    world.is_well[0] = false;
    world.session();
    assert!(world.is_down(0));
}

#[test]
fn a_parent_that_is_down_is_tried_again_after_the_retry_time_which_counts_from_its_first_failure() {
    let mut world = ats(Policy::Ordered, 2).with_dead(&[0]);
    world.session();
    world.pass(100);
    world.session();
    world.events();
    world.pass(200);
    assert_eq!(world.tried(), [1], "not at the very moment");
    world.pass(1);
    assert_eq!(world.tried(), [0, 1]);
    assert_eq!(world.events(), [(0, Event::TrialFailed)]);
    world.pass(300);
    assert_eq!(world.tried(), [1]);
    world.is_well[0] = true;
    world.pass(1);
    assert_eq!(world.tried(), [0]);
    assert_eq!(world.events(), [(0, Event::Restored)]);
    assert_eq!(world.condition(0), Condition::Up, "and nothing is held against it");
}

#[test]
fn when_all_are_down_a_request_fails_at_once_and_one_trial_restores() {
    let mut world = ats(Policy::Ordered, 2).with_dead(&[0, 1]);
    assert_eq!(world.tried(), [0, 1, 0, 1], "four attempts");
    assert_eq!(world.session(), Told { tried: vec![], reached: None });
    world.is_well = vec![true; 2];
    world.pass(300);
    assert_eq!(world.tried(), []);
    world.pass(1);
    let mut first = world.begin();
    let trial = world.state.next(&mut first, world.now).unwrap();
    assert_eq!((trial.member(), trial.kind()), (0, Kind::Trial));
    world.state.report(trial, Outcome::Reached { latency: None }, world.now);
    assert_eq!(world.tried(), [0]);
    assert!(world.is_down(1));
}

#[test]
fn two_tries_of_three_attempts_are_three_attempts() {
    let settings = Settings {
        attempts_per_member: some(2),
        attempts_max: some(3),
        ..Settings::like_traffic_server(Policy::Ordered)
    };
    let mut world = World::new(settings, 3).with_dead(&[0, 1, 2]);
    assert_eq!(world.tried(), [0, 0, 1]);
    let failing = |member| (member, Event::Failing);
    assert_eq!(world.events(), [failing(0), failing(1)], "a failure for each turn, also one cut short");
    assert_eq!(world.tried(), [0, 0, 1]);
    assert_eq!(world.tried(), [2, 2, 2]);
}

#[test]
fn with_one_server_one_request_marks_it_down() {
    let mut world = ats(Policy::Ordered, 1).with_dead(&[0]);
    assert_eq!(world.tried(), [0, 0]);
    assert!(world.is_down(0));
    assert_eq!(world.tried(), []);
}

#[test]
fn there_are_four_attempts_unless_more_are_asked_for() {
    let mut world = ats(Policy::RoundRobin, 6).with_dead(&[0, 1, 2, 3, 4]);
    assert_eq!(world.session(), Told { tried: vec![0, 1, 2, 3], reached: None });
    assert_eq!(world.session(), Told { tried: vec![1, 2, 3, 4], reached: None });
    assert_eq!(world.session(), Told { tried: vec![4, 5], reached: Some(5) }, "2 and 3 are down");
}
