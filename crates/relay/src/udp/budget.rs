//! How many outgoing sockets there may be, shared by the engines of all workers.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Sockets that are left.
#[derive(Debug)]
pub struct Budget(AtomicUsize);

impl Budget {
    /// A budget of `sockets`.
    pub fn new(sockets: usize) -> Self {
        Self(AtomicUsize::new(sockets))
    }

    /// Takes one. Whoever has taken it gives it back.
    pub(super) fn take(&self) -> Result<(), Spent> {
        let one_less = |left: usize| left.checked_sub(1);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        taken.map(drop).map_err(|_| Spent)
    }

    /// Gives one back.
    pub(super) fn give_back(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there is none.
    pub(super) fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// Every socket is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent;
