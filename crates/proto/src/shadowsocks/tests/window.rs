//! The window at its edges, and against a set that forgets nothing.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

const WIDTH: u64 = PACKET_WINDOW_IDS;

fn with(ids: impl IntoIterator<Item = u64>) -> Window {
    let mut window = Window::new();
    for id in ids {
        window.insert(id).unwrap();
    }
    window
}

#[test]
fn an_id_is_taken_once_and_the_first_may_be_any() {
    for id in [0, 1, 63, 64, WIDTH - 1, WIDTH, u64::MAX - 1, u64::MAX] {
        let mut window = Window::new();
        assert_eq!(window.check(id), Ok(()));
        assert_eq!(window.insert(id), Ok(()));
        assert_eq!(window.insert(id), Err(WindowRefusal::Seen), "{id}");
    }
}

#[test]
fn the_oldest_id_within_the_window_is_taken_and_the_one_before_it_is_not() {
    let mut window = with([10_000]);
    assert_eq!(window.check(10_000 - WIDTH), Err(WindowRefusal::Old));
    assert_eq!(window.insert(10_000 - WIDTH + 1), Ok(()));
    assert_eq!(window.insert(10_000 - WIDTH + 1), Err(WindowRefusal::Seen));
    assert_eq!(window.insert(9_999), Ok(()));
}

#[test]
fn a_jump_forward_beyond_the_window_forgets_what_was_before_it() {
    for jump in [WIDTH - 1, WIDTH, WIDTH + 1, 10 * WIDTH, u64::MAX - WIDTH] {
        let mut window = with(0..WIDTH);
        let newest = WIDTH - 1 + jump;
        assert_eq!(window.insert(newest), Ok(()), "{jump}");
        assert_eq!(window.insert(newest), Err(WindowRefusal::Seen));
        assert_eq!(window.insert(newest - 1), Ok(()), "it was skipped");
        assert_eq!(window.check(newest - WIDTH), Err(WindowRefusal::Old));
    }
}

#[test]
fn asking_changes_nothing() {
    let window = with([5]);
    for id in [0, 5, 6, 5_000, u64::MAX] {
        let _: Result<(), WindowRefusal> = window.check(id);
    }
    assert_eq!((window.newest, window.check(5)), (5, Err(WindowRefusal::Seen)));
    assert_eq!(window.check(4), Ok(()));
}

/// The model: every id that was ever taken, and the newest of them.
fn judge(seen: &HashSet<u64>, id: u64) -> Result<(), WindowRefusal> {
    let newest = seen.iter().copied().max().unwrap_or(0);
    if newest.checked_sub(id).is_some_and(|age| age >= WIDTH) {
        return Err(WindowRefusal::Old);
    }
    if seen.contains(&id) { Err(WindowRefusal::Seen) } else { Ok(()) }
}

/// How the next id lies beside the newest one.
fn steps() -> impl Strategy<Value = Vec<i64>> {
    let width = i64::try_from(WIDTH).unwrap();
    let step = prop_oneof![
        8 => -3_i64..=3,
        3 => -200_i64..=200,
        2 => -width - 70..=width + 70,
        1 => Just(width), 1 => Just(-width), 1 => Just(1 - width),
        1 => 0..=5 * width,
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #[test]
    fn the_window_is_a_set_that_forgets_what_is_old(
        first in prop_oneof![0..3 * WIDTH, u64::MAX - 3 * WIDTH..=u64::MAX], steps in steps(),
    ) {
        let (mut window, mut seen) = (Window::new(), HashSet::new());
        let mut newest = first;
        for step in std::iter::once(0).chain(steps) {
            let id = newest.saturating_add_signed(step);
            let expected = judge(&seen, id);
            prop_assert_eq!(window.check(id), expected, "{}", id);
            prop_assert_eq!(window.insert(id), expected, "{}", id);
            if expected.is_ok() {
                seen.insert(id);
                newest = newest.max(id);
            }
        }
    }
}

#[test]
fn what_is_begun_after_an_id_has_seen_everything_up_to_it() {
    for newest in [0, 1, 63, 64, PACKET_WINDOW_IDS, u64::MAX] {
        let mut window = Window::after(newest);
        assert_eq!(window.newest(), newest);
        for id in [newest, newest / 2, 0] {
            assert!(window.check(id).is_err(), "{id} of {newest}");
        }
        if let Some(next) = newest.checked_add(2) {
            assert_eq!(window.insert(next), Ok(()));
            assert_eq!(window.insert(next - 1), Ok(()), "what was left out may still come");
            assert_eq!(window.insert(next - 2), Err(WindowRefusal::Seen));
        }
    }
}
