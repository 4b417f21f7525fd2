//! Which worker has which association, where clients are known by their packets: one whose address changes may come to another
//! worker, and is still the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::core::Key;
use super::letter::Letters;

/// The associations of a door on all workers.
#[derive(Debug, Default)]
pub(crate) struct Directory(Mutex<HashMap<Key, Home>>);

/// A door on the worker where an association lives.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(super) letters: Letters,
    /// The door, as that worker's engine counts.
    pub(super) post: usize,
}

impl Home {
    fn is(&self, other: &Self) -> bool {
        self.post == other.post && self.letters.lead_to_same(&other.letters)
    }
}

impl Directory {
    /// Where the association is that is known by `key`.
    pub(super) fn find(&self, key: &Key) -> Option<Home> {
        self.lock().get(key).cloned()
    }

    /// An association lives at `home` from here on; unless it lives elsewhere already, which it is told then.
    pub(super) fn enter(&self, key: Key, home: Home) -> Result<(), Home> {
        match self.lock().entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(home);
                Ok(())
            }
            Entry::Occupied(occupied) if occupied.get().is(&home) => Ok(()),
            Entry::Occupied(occupied) => Err(occupied.get().clone()),
        }
    }

    /// It has ended at `home`. One that lives elsewhere stays there.
    pub(super) fn leave(&self, key: &Key, home: &Home) {
        let mut homes = self.lock();
        if homes.get(key).is_some_and(|known| known.is(home)) {
            homes.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Home>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};

    #[test]
    fn of_two_workers_that_meet_a_session_at_once_one_has_it_and_only_that_one_can_end_it() {
        let directory = Directory::default();
        let key = Key::Source(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1));
        let [one, other] = [(); 2].map(|()| Home { letters: Letters::new().0, post: 0 });
        assert!(directory.enter(key, one.clone()).is_ok());
        assert!(directory.enter(key, other.clone()).is_err_and(|home| home.is(&one)));
        assert!(directory.enter(key, one.clone()).is_ok(), "it has it already");
        let elsewhere = Home { post: 1, ..one.clone() };
        assert!(directory.enter(key, elsewhere.clone()).is_err_and(|home| home.is(&one)));
        directory.leave(&key, &other);
        directory.leave(&key, &elsewhere);
        assert!(directory.find(&key).is_some_and(|home| home.is(&one)));
        directory.leave(&key, &one);
        assert!(directory.find(&key).is_none());
        assert!(directory.enter(key, other).is_ok());
    }
}
