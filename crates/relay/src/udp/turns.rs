//! Lookups that a worker may have under way, and for whom.
//!
//! A name server that never answers keeps a turn for as long as the system waits for it. So nobody has more turns than are left: of two who
//! want all there are each gets a third, and there is one for the next.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::EVERYBODY;

/// The turns of one worker.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Mutex<Left>>);

/// The right to look something up; given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    source: IpAddr,
}

#[derive(Debug)]
struct Left {
    count: usize,
    sources: HashMap<IpAddr, usize>,
}

impl Turns {
    /// So many.
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(Left { count, sources: HashMap::new() })))
    }

    /// A turn for a client at `source`, if it may have one. For [`EVERYBODY`] there is one as long as there are any.
    pub(super) fn take(&self, source: IpAddr) -> Option<Turn> {
        let Left { count, sources } = &mut *self.left();
        let held = sources.get(&source).copied().unwrap_or_default();
        if *count == 0 || (source != EVERYBODY && held >= *count) {
            return None;
        }
        *count -= 1;
        sources.insert(source, held + 1);
        Some(Turn { turns: self.clone(), source })
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Left { count, sources } = &mut *self.turns.left();
        *count += 1;
        if let Some(held) = sources.get_mut(&self.source) {
            *held -= 1;
            if *held == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(turns: &Turns, last: u8) -> Vec<Turn> {
        let source = IpAddr::from([192, 0, 2, last]);
        std::iter::repeat_with(|| turns.take(source)).map_while(|turn| turn).collect()
    }

    #[test]
    fn whoever_wants_all_turns_leaves_some_to_each_of_the_others() {
        let turns = Turns::new(64);
        let first = all_of(&turns, 1);
        assert_eq!(first.len(), 32);
        let others: Vec<_> = (2..7).map(|last| all_of(&turns, last)).collect();
        assert_eq!(others.iter().map(Vec::len).collect::<Vec<_>>(), [16, 8, 4, 2, 1]);
        let hops: Vec<_> = std::iter::repeat_with(|| turns.take(EVERYBODY)).map_while(|turn| turn).collect();
        assert_eq!(hops.len(), 1);
        drop((first, others, hops));
        assert_eq!(all_of(&turns, 9).len(), 32);
        assert!(turns.left().sources.is_empty());
        assert_eq!(turns.left().count, 64);
    }

    #[test]
    fn one_turn_is_for_whoever_comes_first() {
        let turns = Turns::new(1);
        let held = all_of(&turns, 1);
        assert_eq!((held.len(), all_of(&turns, 2).len()), (1, 0));
    }
}
