//! Which worker has which association, where clients are known by their packets: one whose address changes may come to another
//! worker, and is still the same.

use std::collections::HashMap;
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

impl Directory {
    /// Where the association is that is known by `key`.
    pub(super) fn find(&self, key: &Key) -> Option<Home> {
        self.lock().get(key).cloned()
    }

    /// An association lives there from here on.
    pub(super) fn enter(&self, key: Key, home: Home) {
        self.lock().insert(key, home);
    }

    /// It has ended.
    pub(super) fn leave(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Home>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
