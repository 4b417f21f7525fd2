//! Sessions that had to make room before they were due, remembered for as long as their packets could be sent again (SIP022, 3.2.4).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::core::Key;
use crate::limits::{DISPLACED_MAX, SIP022_SESSION_SECS_MIN};

/// The newest packets of a door's displaced sessions, whichever worker had them.
#[derive(Debug, Default)]
pub(crate) struct Displaced(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    newest: HashMap<Key, (u64, Instant)>,
    /// The oldest first. One that has been displaced again stands here twice, and the later time counts.
    order: VecDeque<(Instant, Key)>,
}

impl Displaced {
    /// A session whose newest packet had the id `newest` has made room.
    pub(super) fn remember(&self, key: Key, newest: u64, now: Instant) {
        let mut memory = self.lock();
        memory.forget(now);
        memory.newest.insert(key, (newest, now));
        memory.order.push_back((now, key));
    }

    /// The id up to which packets of the session are not taken.
    pub(super) fn newest(&self, key: &Key, now: Instant) -> Option<u64> {
        let mut memory = self.lock();
        memory.forget(now);
        memory.newest.get(key).map(|(newest, _)| *newest)
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Forgets whose packets are too old by now, and the oldest beyond the bound.
    fn forget(&mut self, now: Instant) {
        while let Some((since, key)) = self.order.front().copied() {
            if now.duration_since(since) < SIP022_SESSION_SECS_MIN && self.order.len() < DISPLACED_MAX {
                return;
            }
            self.order.pop_front();
            if self.newest.get(&key).is_some_and(|(_, latest)| *latest == since) {
                self.newest.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn key(number: u32) -> Key {
        Key::Source(SocketAddr::new(std::net::Ipv4Addr::from(number).into(), 1))
    }

    #[test]
    fn a_session_is_remembered_for_its_minute_since_it_was_displaced_last() {
        let (displaced, start) = (Displaced::default(), Instant::now());
        let half = SIP022_SESSION_SECS_MIN / 2;
        displaced.remember(key(1), 7, start);
        displaced.remember(key(1), 9, start + half);
        assert_eq!(displaced.newest(&key(1), start + 2 * half), Some(9));
        assert_eq!(displaced.newest(&key(2), start + 2 * half), None);
        assert_eq!(displaced.newest(&key(1), start + 3 * half + Duration::from_secs(1)), None);
        assert!(displaced.lock().order.is_empty());
    }

    #[test]
    fn as_many_are_remembered_as_may_be() {
        let (displaced, now) = (Displaced::default(), Instant::now());
        for number in 0..u32::try_from(DISPLACED_MAX).unwrap() + 10 {
            displaced.remember(key(number), 0, now + Duration::from_nanos(number.into()));
        }
        assert_eq!(displaced.lock().order.len(), DISPLACED_MAX);
        assert_eq!(displaced.lock().newest.len(), DISPLACED_MAX);
    }
}
