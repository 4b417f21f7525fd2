//! How many outgoing sockets an engine may have: half of them are set aside, evenly, so that no worker can take from another all that
//! it has; the other half is for whoever comes first.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sockets that are left to one engine.
#[derive(Debug)]
pub struct Budget {
    /// What there was for all engines.
    sockets: usize,
    own: AtomicUsize,
    common: Arc<AtomicUsize>,
    /// Those of the common ones that are in use here.
    borrowed: AtomicUsize,
    /// For whom how many are in use here.
    sources: Mutex<HashMap<IpAddr, usize>>,
}

impl Budget {
    /// A budget of `sockets` for one engine.
    pub fn new(sockets: usize) -> Arc<Self> {
        Self::among(sockets, sockets, Arc::default())
    }

    /// Budgets of `sockets` in all for so many engines.
    pub fn share(sockets: usize, engines: usize) -> Vec<Arc<Self>> {
        let each = sockets / 2 / engines.max(1);
        let common = Arc::new(AtomicUsize::new(sockets - each * engines));
        (0..engines).map(|_| Self::among(sockets, each, Arc::clone(&common))).collect()
    }

    fn among(sockets: usize, own: usize, common: Arc<AtomicUsize>) -> Arc<Self> {
        let (own, borrowed) = (AtomicUsize::new(own), AtomicUsize::new(0));
        Arc::new(Self { sockets, own, common, borrowed, sources: Mutex::default() })
    }

    /// What there was for all engines.
    pub(super) fn sockets(&self) -> usize {
        self.sockets
    }

    /// Takes one for a client at `source`. Whoever has taken it gives it back.
    pub(super) fn take(&self, source: IpAddr) -> Result<(), Spent> {
        if !one_less(&self.own) {
            if !one_less(&self.common) {
                return Err(Spent);
            }
            self.borrowed.fetch_add(1, Ordering::Relaxed);
        }
        *self.sources().entry(source).or_default() += 1;
        Ok(())
    }

    /// Takes `count` for work beside the engine, or none.
    pub(super) fn lend(self: &Arc<Self>, count: usize, source: IpAddr) -> Result<Lent, Spent> {
        let mut lent = Lent { budget: Arc::clone(self), count: 0, source };
        while lent.count < count {
            self.take(source)?;
            lent.count += 1;
        }
        Ok(lent)
    }

    /// Gives one back that was taken for `source`: to the other engines first.
    pub(super) fn give_back(&self, source: IpAddr) {
        let to = if one_less(&self.borrowed) { &*self.common } else { &self.own };
        to.fetch_add(1, Ordering::Relaxed);
        let mut sources = self.sources();
        if let Some(count) = sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&source);
            }
        }
    }

    /// How many are in use here for clients at `source`.
    pub(super) fn held_by(&self, source: IpAddr) -> usize {
        self.sources().get(&source).copied().unwrap_or_default()
    }

    /// Whether any are in use here for clients at one address, and not for [`EVERYBODY`].
    pub(super) fn is_held_by_clients(&self) -> bool {
        // Nobody is counted who has none, so that this looks at two at most.
        self.sources().keys().any(|source| *source != EVERYBODY)
    }

    /// Whether there is none.
    pub(super) fn is_spent(&self) -> bool {
        self.own.load(Ordering::Relaxed) + self.common.load(Ordering::Relaxed) == 0
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_less(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
}

/// Sockets of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Lent {
    budget: Arc<Budget>,
    count: usize,
    source: IpAddr,
}

impl Drop for Lent {
    fn drop(&mut self) {
        for _ in 0..self.count {
            self.budget.give_back(self.source);
        }
    }
}

/// For whom a socket is that all clients share.
pub(super) const EVERYBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Every socket is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent;

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn take_all(budget: &Budget) -> usize {
        std::iter::repeat_with(|| budget.take(SOMEBODY)).take_while(Result::is_ok).count()
    }

    #[test]
    fn a_crowd_at_one_worker_leaves_the_others_their_share() {
        let budgets = Budget::share(100, 5);
        assert_eq!((take_all(&budgets[0]), take_all(&budgets[1])), (60, 10));
        assert!(budgets[0].is_spent() && !budgets[2].is_spent());
        for _ in 0..60 {
            budgets[0].give_back(SOMEBODY);
        }
        assert_eq!(take_all(&budgets[3]), 60, "what was common is common again");
        assert_eq!(take_all(&budgets[0]), 10);
    }

    #[test]
    fn no_more_sockets_are_shared_than_there_are() {
        for (sockets, engines) in [(0, 1), (1, 1), (3, 1), (3, 8), (17, 3)] {
            let budgets = Budget::share(sockets, engines);
            assert_eq!(budgets.iter().map(|budget| take_all(budget)).sum::<usize>(), sockets);
        }
    }

    #[test]
    fn several_are_lent_or_none_and_come_back() {
        let budget = Budget::new(3);
        let lent = budget.lend(2, SOMEBODY).unwrap();
        assert_eq!(budget.lend(2, SOMEBODY).unwrap_err(), Spent);
        assert_eq!(budget.lend(1, SOMEBODY).map(drop), Ok(()));
        assert_eq!(budget.held_by(SOMEBODY), 2);
        drop(lent);
        assert_eq!(budget.held_by(SOMEBODY), 0);
        assert_eq!(take_all(&budget), 3);
    }

    #[test]
    fn what_is_for_everybody_is_no_clients() {
        let budget = Budget::new(2);
        budget.take(EVERYBODY).unwrap();
        assert!(!budget.is_held_by_clients());
        budget.take(SOMEBODY).unwrap();
        assert!(budget.is_held_by_clients());
        budget.give_back(SOMEBODY);
        assert!(!budget.is_held_by_clients());
    }
}
