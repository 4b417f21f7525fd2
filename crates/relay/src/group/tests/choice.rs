//! What each policy makes of members that are well.

use proptest::prelude::*;

use super::*;
use crate::limits::{LATENCY_GAIN_MIN, LATENCY_GOOD_FOR};

fn world(policy: Policy, count: usize) -> World {
    World::new(Settings { policy, ..Settings::default() }, count)
}

fn tally(world: &mut World, sessions: usize) -> Vec<usize> {
    let mut tally = vec![0; world.is_well.len()];
    for _ in 0..sessions {
        tally[world.reached().unwrap()] += 1;
    }
    tally
}

fn anywhere(chance: u64) -> IpAddr {
    Ipv4Addr::from_bits(u32::try_from(chance >> 32).unwrap()).into()
}

/// One session that takes so long to reach a member.
fn timed(world: &mut World, latency: impl Fn(usize) -> u64) -> usize {
    let mut attempts = world.begin();
    let attempt = world.state.next(&mut attempts, world.now).unwrap();
    let member = attempt.member();
    let latency = Some(Duration::from_millis(latency(member)));
    world.state.report(attempt, Outcome::Reached { latency }, world.now);
    member
}

proptest! {
    #[test]
    fn round_robin_is_fair(count in 1..20_usize, rounds in 1..20_usize) {
        let tally = tally(&mut world(Policy::RoundRobin, count), count * rounds);
        prop_assert_eq!(tally, vec![rounds; count]);
    }

    #[test]
    fn weights_are_kept_to_exactly_and_nobody_comes_in_bursts(weights in prop::collection::vec(1..20_u16, 1..8)) {
        let named = members(0..weights.len());
        let weighted = |(member, weight): (&Member, &u16)| member.with_weight(NonZeroU16::new(*weight).unwrap());
        let named: Vec<_> = named.iter().zip(&weights).map(weighted).collect();
        let mut world = world(Policy::Weighted, weights.len());
        world.state.replace(&named, world.now);
        let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
        let mut so_far = vec![0_usize; weights.len()];
        for session in 1..=2 * total {
            so_far[world.reached().unwrap()] += 1;
            for (got, weight) in so_far.iter().zip(&weights) {
                let due = usize::from(*weight) * session / total;
                prop_assert!(got.abs_diff(due) <= weights.len(), "{:?} after {}", so_far, session);
            }
        }
        let twice: Vec<_> = weights.iter().map(|weight| 2 * usize::from(*weight)).collect();
        prop_assert_eq!(so_far, twice);
    }

    #[test]
    fn a_member_that_goes_takes_only_its_own_share(count in 2..12_usize, gone in any::<usize>()) {
        let gone = gone % count;
        for policy in [Policy::TargetHash, Policy::SourceHash] {
            let mut world = world(policy, count);
            let key = |member: usize, world: &World| world.state.records[member].key;
            let wanted = |world: &mut World, number: u32| {
                world.source = Ipv4Addr::from_bits(number).into();
                world.target = Address::from_host(&format!("host{number}.example"), 443).unwrap();
                let member = world.reached().unwrap();
                key(member, world)
            };
            let before: Vec<_> = (0..200).map(|number| wanted(&mut world, number)).collect();
            let dead = key(gone, &world);
            world.is_well[gone] = false;
            let while_dead: Vec<_> = (0..200).map(|number| wanted(&mut world, number)).collect();
            world.state.replace(&members((0..count).filter(|member| *member != gone)), world.now);
            world.is_well = vec![true; count - 1];
            let after: Vec<_> = (0..200).map(|number| wanted(&mut world, number)).collect();
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(*before == dead || before == after);
            }
            prop_assert_eq!(while_dead, after, "and failing over leads to the same ones");
        }
    }
}

#[test]
fn hashes_and_chance_spread_sessions_evenly() {
    for policy in [Policy::TargetHash, Policy::SourceHash, Policy::Random, Policy::AddressModulo] {
        let mut world = world(policy, 4);
        let mut tally = [0_usize; 4];
        for number in 0..4000_u32 {
            world.source = Ipv4Addr::from_bits(number).into();
            world.target = Address::from_host(&Ipv4Addr::from_bits(number).to_string(), 1).unwrap();
            tally[world.reached().unwrap()] += 1;
        }
        assert!(tally.iter().all(|count| count.abs_diff(1000) < 150), "{policy:?}: {tally:?}");
    }
}

#[test]
fn hashes_give_heavier_members_a_larger_share() {
    let mut world = world(Policy::SourceHash, 2);
    let named = members(0..2);
    world.state.replace(&[named[0].with_weight(NonZeroU16::new(3).unwrap()), named[1]], world.now);
    let mut first = 0_u32;
    for number in 0..4000 {
        world.source = Ipv4Addr::from_bits(number).into();
        first += u32::from(world.reached() == Some(0));
    }
    assert!(first.abs_diff(3000) < 150, "{first}");
}

#[test]
fn a_source_is_its_network_where_addresses_change_by_themselves() {
    let mut world = world(Policy::SourceHash, 16);
    let mut reached = |source: &str| {
        world.source = source.parse().unwrap();
        world.reached()
    };
    assert_eq!(reached("2001:db8:1:2:aaaa::1"), reached("2001:db8:1:2:bbbb::2"));
    assert_eq!(reached("192.0.2.1"), reached("::ffff:192.0.2.1"));
    let networks: HashSet<_> = (0..50).map(|number| reached(&format!("2001:db8:1:{number}::1"))).collect();
    assert!(networks.len() > 8);
}

#[test]
fn the_fastest_is_used_once_all_are_measured() {
    let mut world = world(Policy::LeastLatency, 3);
    let latency = |member: usize| [50, 10, 30][member];
    let first: Vec<_> = (0..3).map(|_| timed(&mut world, latency)).collect();
    assert_eq!(first, [0, 1, 2]);
    assert_eq!([timed(&mut world, latency), timed(&mut world, latency)], [1, 1]);
}

#[test]
fn one_session_measures_and_the_others_do_not_wait_for_it() {
    let mut world = world(Policy::LeastLatency, 2);
    timed(&mut world, |_| 10);
    let mut measuring = world.begin();
    let slow = world.state.next(&mut measuring, world.now).unwrap();
    assert_eq!(slow.member(), 1);
    assert_eq!([timed(&mut world, |_| 10), timed(&mut world, |_| 10)], [0, 0]);
    world.state.abandon(slow, world.now);
    assert_eq!(timed(&mut world, |_| 100), 1, "one that was abandoned is made up for");
}

#[test]
fn small_differences_move_nobody_and_large_ones_do() {
    let mut world = world(Policy::LeastLatency, 2);
    let even = |_| 40;
    timed(&mut world, even);
    timed(&mut world, even);
    let gain = u64::try_from(LATENCY_GAIN_MIN.as_millis()).unwrap();
    let used = timed(&mut world, even);
    for round in 0..100 {
        // It gets slower and faster by more than the least gain, but not by an eighth.
        let swing = if round % 2 == 0 { 40 + 2 * gain } else { 40 };
        assert_eq!(timed(&mut world, |_| swing), used);
    }
    let moved = (0..10).any(|_| timed(&mut world, |member| if member == used { 400 } else { 40 }) != used);
    assert!(moved);
}

#[test]
fn a_member_that_was_slow_once_is_measured_again_when_that_is_long_ago() {
    let mut world = world(Policy::LeastLatency, 2);
    let slow_first = |member| if member == 0 { 500 } else { 50 };
    timed(&mut world, slow_first);
    timed(&mut world, slow_first);
    world.now += LATENCY_GOOD_FOR / 2;
    assert_eq!(timed(&mut world, slow_first), 1);
    world.now += LATENCY_GOOD_FOR / 2;
    assert_eq!(timed(&mut world, |_| 5), 0);
    assert_eq!(timed(&mut world, |_| 5), 0);
}

#[test]
fn a_member_that_failed_before_it_was_measured_is_measured_once_for_each_rest() {
    for (fail_window, retry_time) in [(60, 30), (30, 3600)] {
        let mut world = world(Policy::LeastLatency, 2).with_dead(&[0]);
        let health = &mut world.state.settings.health;
        (health.fail_window, health.retry_time) =
            (Duration::from_secs(fail_window), Duration::from_secs(retry_time));
        health.fail_threshold = some(99);
        for _ in 0..5 {
            assert_eq!(world.tried(), [0, 1], "one session finds out");
            for _ in 0..3 {
                world.pass(10);
                assert_eq!(world.tried(), [1]);
            }
            world.pass(1);
        }
        world.is_well[0] = true;
        let latency = |member| if member == 0 { 5 } else { 50 };
        assert_eq!(timed(&mut world, latency), 0);
        assert_eq!(timed(&mut world, latency), 0, "and it is the fastest");
    }
}

#[test]
fn sticky_sources_stay_with_whoever_served_them_until_that_fails() {
    let settings =
        Settings { policy: Policy::RoundRobin, sticky: Some(Duration::from_secs(60)), ..Settings::default() };
    let mut world = World::new(settings, 3);
    let from = |world: &mut World, last: u8| {
        world.source = Ipv4Addr::new(192, 0, 2, last).into();
        world.reached().unwrap()
    };
    let (one, two) = (from(&mut world, 1), from(&mut world, 2));
    assert_ne!(one, two);
    for _ in 0..5 {
        world.pass(30);
        assert_eq!((from(&mut world, 1), from(&mut world, 2)), (one, two));
    }
    world.is_well[one] = false;
    let other = from(&mut world, 1);
    assert_ne!(other, one);
    world.is_well[one] = true;
    assert_eq!([from(&mut world, 1), from(&mut world, 1)], [other; 2], "it does not go back and forth");
    world.pass(60);
    let again: HashSet<_> = (0..3)
        .map(|_| {
            world.pass(60);
            from(&mut world, 1)
        })
        .collect();
    assert_eq!(again.len(), 3, "after a while it is anybody's");
}

#[test]
fn a_source_is_not_taken_to_a_stranger_that_stands_where_its_member_stood() {
    let sticky = Some(Duration::from_secs(60));
    let mut world = World::new(Settings { sticky, ..Settings::default() }, 2).with_dead(&[0]);
    assert_eq!(world.reached(), Some(1));
    let mut attempts = world.begin();
    world.state.replace(&members([0, 7, 1]), world.now);
    let attempt = world.state.next(&mut attempts, world.now).unwrap();
    assert_eq!(attempt.member(), 0);
    world.state.abandon(attempt, world.now);
    world.is_well.push(true);
    assert_eq!(world.reached(), Some(2), "the next session finds it where it stands");
}

#[test]
fn faithful_sources_take_nobodys_turn() {
    let settings =
        Settings { policy: Policy::RoundRobin, sticky: Some(Duration::from_secs(60)), ..Settings::default() };
    let mut world = World::new(settings, 2);
    let strangers: Vec<_> = (2..8)
        .filter_map(|last| {
            world.source = Ipv4Addr::new(192, 0, 2, 1).into();
            world.session();
            world.source = Ipv4Addr::new(192, 0, 2, last).into();
            world.reached()
        })
        .collect();
    assert_eq!(strangers, [1, 0, 1, 0, 1, 0]);
}

#[test]
fn a_member_that_comes_back_gets_a_growing_part() {
    for policy in POLICIES.into_iter().filter(|policy| *policy != Policy::Latched) {
        let slow_start = Duration::from_secs(100);
        let health = Health { slow_start, retry_time: Duration::from_secs(1), ..Health::default() };
        let mut world = World::new(Settings { policy, health, ..Settings::default() }, 2);
        // The first one is what sessions would choose, by every policy that prefers one.
        let part = |world: &mut World| {
            (0..1000_u32)
                .filter(|number| {
                    world.source = Ipv4Addr::from_bits(*number).into();
                    world.target = Address::from_host(&Ipv4Addr::from_bits(*number).to_string(), 1).unwrap();
                    timed(world, |member| [10, 90][member]) == 0
                })
                .count()
        };
        let whole = part(&mut world);
        world.is_well[0] = false;
        while !world.is_down(0) {
            world.source = anywhere(world.chance);
            world.target = Address::from_host(&world.source.to_string(), 1).unwrap();
            world.session();
        }
        world.is_well[0] = true;
        world.pass(2);
        while world.is_down(0) {
            world.source = anywhere(world.chance);
            world.target = Address::from_host(&world.source.to_string(), 1).unwrap();
            world.session();
        }
        assert!(matches!(world.condition(0), Condition::Returning { .. }));
        let mut parts = Vec::new();
        for _ in 0..5 {
            parts.push(part(&mut world));
            world.pass(25);
        }
        let quarter = whole / 4;
        for (step, part) in parts.iter().enumerate() {
            assert!(part.abs_diff(quarter * step) < 80, "{policy:?}: {parts:?} of {whole}");
        }
        assert_eq!(world.condition(0), Condition::Up);
    }
}

#[test]
fn one_that_comes_back_slowly_serves_all_when_there_is_nobody_else() {
    let health = Health { slow_start: Duration::from_secs(100), ..Health::default() };
    let mut world = World::new(Settings { health, ..Settings::default() }, 2).with_dead(&[0, 1]);
    world.session();
    world.session();
    world.is_well[1] = true;
    for _ in 0..50 {
        assert_eq!(world.reached(), Some(1));
    }
}
