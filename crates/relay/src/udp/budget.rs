//! How many outgoing sockets there may be, shared by the engines of all workers.

use std::sync::Arc;
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

    /// Takes one for work beside the engine, which need not give it back itself.
    pub(super) fn lend(self: &Arc<Self>) -> Result<Lent, Spent> {
        self.take().map(|()| Lent(Arc::clone(self)))
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

/// One socket of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Lent(Arc<Budget>);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// Every socket is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent;
