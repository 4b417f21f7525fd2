//! The names that one association sends to, each looked up once.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::queue::{NoRoom, Queue, Room};
use crate::limits::{LOOKUPS_PER_ASSOCIATION_MAX, NAME_RETRY_DELAY, NAMES_PER_ASSOCIATION_MAX};

/// Targets with names, as an association knows them; the latest last.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<Name>);

/// One target, by its address block as it comes in datagrams.
#[derive(Debug)]
struct Name {
    block: Box<[u8]>,
    state: State,
}

#[derive(Debug)]
enum State {
    Asked(Queue),
    /// At least one.
    Known(Box<[SocketAddr]>),
    /// It has no address that may be sent to; asked again after this.
    Unknown(Instant),
}

/// What to do with a datagram for a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'n> {
    /// Send it to one of these, of which there is one at least.
    At(&'n [SocketAddr]),
    /// It waits; and if nobody has asked yet, the name is to be looked up.
    Waits {
        /// Whether somebody has to ask now.
        ask: bool,
    },
    /// There is nowhere to send it.
    Nowhere,
    /// There is no room to keep it, or too much is being looked up already.
    Crowded,
}

impl Names {
    /// Where a datagram with `payload` for the target `block` goes.
    pub(super) fn find(&mut self, block: &[u8], payload: &[u8], now: Instant, room: &Arc<Room>) -> Found<'_> {
        // The latest is asked for mostly.
        let Some(at) = self.0.iter().rposition(|name| *name.block == *block) else {
            return self.ask(block, payload, room);
        };
        if matches!(&self.0[at].state, State::Unknown(until) if now >= *until) {
            drop(self.0.remove(at));
            return self.ask(block, payload, room);
        }
        match &mut self.0[at].state {
            State::Known(addresses) => Found::At(addresses),
            State::Asked(queue) => match queue.push(payload) {
                Ok(()) => Found::Waits { ask: false },
                Err(NoRoom) => Found::Crowded,
            },
            State::Unknown(_) => Found::Nowhere,
        }
    }

    fn ask(&mut self, block: &[u8], payload: &[u8], room: &Arc<Room>) -> Found<'static> {
        let asked = self.0.iter().filter(|name| matches!(name.state, State::Asked(_))).count();
        if asked >= LOOKUPS_PER_ASSOCIATION_MAX {
            return Found::Crowded;
        }
        if self.0.len() >= NAMES_PER_ASSOCIATION_MAX {
            // What is waited for stays.
            let Some(oldest) = self.0.iter().position(|name| !matches!(name.state, State::Asked(_))) else {
                return Found::Crowded;
            };
            drop(self.0.remove(oldest));
        }
        let mut queue = Queue::new(room);
        if queue.push(payload) == Err(NoRoom) {
            return Found::Crowded;
        }
        self.0.push(Name { block: block.into(), state: State::Asked(queue) });
        Found::Waits { ask: true }
    }

    /// Nobody can look `block` up now: as if nobody had asked.
    pub(super) fn forget(&mut self, block: &[u8]) {
        self.0.retain(|name| *name.block != *block);
    }

    /// How many datagrams wait for an address.
    pub(super) fn waiting(&self) -> usize {
        let waiting = |name: &Name| match &name.state {
            State::Asked(queue) => queue.len(),
            State::Known(_) | State::Unknown(_) => 0,
        };
        self.0.iter().map(waiting).sum()
    }

    /// The lookup of `block` has come to an end, with these addresses or none. Gives what waited for it.
    pub(super) fn learn(
        &mut self,
        block: &[u8],
        addresses: Box<[SocketAddr]>,
        now: Instant,
    ) -> Option<Queue> {
        let asked = |name: &&mut Name| *name.block == *block && matches!(name.state, State::Asked(_));
        let name = self.0.iter_mut().find(asked)?;
        let state = if addresses.is_empty() {
            State::Unknown(now + NAME_RETRY_DELAY)
        } else {
            State::Known(addresses)
        };
        match std::mem::replace(&mut name.state, state) {
            State::Asked(queue) => Some(queue),
            State::Known(_) | State::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.0.2.1:7";

    fn asked<'n>(names: &'n mut Names, block: &[u8], payload: &[u8], now: Instant) -> Found<'n> {
        names.find(block, payload, now, &Arc::default())
    }

    fn here() -> Box<[SocketAddr]> {
        [HERE.parse().unwrap()].into()
    }

    #[test]
    fn a_name_is_asked_for_once_and_what_waited_goes_in_order() {
        let (mut names, now) = (Names::default(), Instant::now());
        assert_eq!(asked(&mut names, b"name", b"1", now), Found::Waits { ask: true });
        assert_eq!(asked(&mut names, b"name", b"2", now), Found::Waits { ask: false });
        let waited = names.learn(b"name", here(), now).unwrap();
        assert_eq!(waited.datagrams().collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(asked(&mut names, b"name", b"3", now), Found::At(&here()));
    }

    #[test]
    fn a_name_without_address_is_asked_for_again_later() {
        let (mut names, now) = (Names::default(), Instant::now());
        asked(&mut names, b"name", b"1", now);
        let waited = names.learn(b"name", Box::default(), now).unwrap();
        assert_eq!((waited.len(), names.waiting()), (1, 0));
        assert!(names.learn(b"name", Box::default(), now).is_none(), "nobody has asked");
        assert_eq!(asked(&mut names, b"name", b"2", now), Found::Nowhere);
        assert_eq!(asked(&mut names, b"name", b"3", now + NAME_RETRY_DELAY), Found::Waits { ask: true });
    }

    #[test]
    fn names_and_what_waits_for_them_are_bounded() {
        let (mut names, now) = (Names::default(), Instant::now());
        let block = |number: usize| number.to_be_bytes();
        for number in 0..NAMES_PER_ASSOCIATION_MAX {
            assert_eq!(asked(&mut names, &block(number), b"", now), Found::Waits { ask: true });
            names.learn(&block(number), here(), now);
        }
        assert_eq!(asked(&mut names, b"one more", b"", now), Found::Waits { ask: true });
        assert_eq!(asked(&mut names, &block(1), b"", now), Found::At(&here()));
        assert_eq!(asked(&mut names, &block(0), b"", now), Found::Waits { ask: true }, "its place was taken");
        let kept = (0..100).take_while(|_| asked(&mut names, b"one more", b"more", now) != Found::Crowded);
        assert_eq!(kept.count() + 1, crate::limits::WAITING_DATAGRAMS_MAX);
    }

    #[test]
    fn few_names_are_looked_up_at_a_time_and_one_that_had_no_turn_may_be_at_once() {
        let (mut names, now) = (Names::default(), Instant::now());
        for number in 0..LOOKUPS_PER_ASSOCIATION_MAX {
            assert_eq!(asked(&mut names, &number.to_be_bytes(), b"", now), Found::Waits { ask: true });
        }
        assert_eq!(asked(&mut names, b"one more", b"", now), Found::Crowded);
        names.forget(&0_usize.to_be_bytes());
        assert_eq!(asked(&mut names, b"one more", b"", now), Found::Waits { ask: true });
        names.learn(&1_usize.to_be_bytes(), Box::default(), now);
        assert_eq!(asked(&mut names, &0_usize.to_be_bytes(), b"", now), Found::Waits { ask: true });
    }
}
