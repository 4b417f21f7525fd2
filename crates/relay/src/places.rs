//! Places for sessions: as many as the process has descriptors for, shared by all doors.
//!
//! Half of them are set aside, evenly, so that no door can take from another all that it has; the other half is for whoever comes
//! first. So a crowd at one door is served almost as if it were the only one, however many doors there are. When no place is
//! left, those who have not been understood make room for those who wait, the one that came first before the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::limits::ACCEPT_PAUSE;

/// The places that the sessions of one door can have.
#[derive(Debug)]
pub(crate) struct Places {
    own: Arc<Pool>,
    common: Arc<Pool>,
}

/// A number of places.
#[derive(Debug)]
pub(crate) struct Pool {
    max: usize,
    taken: AtomicUsize,
    /// Holders of a place who would give it up.
    willing: AtomicUsize,
    /// Those who wait for a place to be given up.
    waiting: AtomicUsize,
    /// Wakes the one of them who has been so for longest.
    leave: Notify,
    freed: Notify,
}

/// A session's place; free again when dropped.
#[derive(Debug)]
pub struct Place(Arc<Pool>);

impl Places {
    /// `total` places, at least one, for `doors` doors.
    pub(crate) fn share(total: usize, doors: usize) -> Vec<Self> {
        let each = total / 2 / doors.max(1);
        let common = Pool::new((total - each * doors).max(1));
        (0..doors).map(|_| Self { own: Pool::new(each), common: Arc::clone(&common) }).collect()
    }

    /// A place, if one is free.
    pub(crate) fn take(&self) -> Option<Place> {
        self.own.take().or_else(|| self.common.take())
    }

    /// Sends away whoever has been willing for longest, if anybody is, and waits for a place, for a moment.
    pub(crate) async fn make_room(&self) -> Option<Place> {
        let _waiting = (Counted::new(&self.own.waiting), Counted::new(&self.common.waiting));
        if !self.common.send_one_away() {
            self.own.send_one_away();
        }
        let freed = async {
            loop {
                // A place that was given back long ago is told of here as well, so what counts is what there is.
                if let Some(place) = self.take() {
                    return place;
                }
                tokio::select! {
                    () = self.own.freed.notified() => {}
                    () = self.common.freed.notified() => {}
                }
            }
        };
        timeout(ACCEPT_PAUSE, freed).await.ok()
    }
}

impl Pool {
    fn new(max: usize) -> Arc<Self> {
        let count = || AtomicUsize::new(0);
        let (taken, willing, waiting) = (count(), count(), count());
        Arc::new(Self { max, taken, willing, waiting, leave: Notify::new(), freed: Notify::new() })
    }

    fn take(self: &Arc<Self>) -> Option<Place> {
        let one_more = |taken| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place(Arc::clone(self)))
    }

    fn send_one_away(&self) -> bool {
        let anybody = self.willing.load(Ordering::Relaxed) > 0;
        if anybody {
            self.leave.notify_one();
        }
        anybody
    }
}

impl Place {
    /// Ends when somebody else is to have this place. Those who wait here are asked in the order in which they came.
    pub(crate) async fn wanted(&self) {
        let _willing = Counted::new(&self.0.willing);
        loop {
            self.0.leave.notified().await;
            // A request that met nobody, since whoever it was for had just gone, is kept for the next one to come here, however
            // long after.
            if self.0.waiting.load(Ordering::Relaxed) > 0 {
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

/// One in a count.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[test]
    fn a_crowd_at_one_door_leaves_the_other_its_share() {
        let doors = Places::share(100, 5);
        let crowd: Vec<_> = std::iter::from_fn(|| doors[0].take()).collect();
        assert_eq!(crowd.len(), 60);
        let others: Vec<_> = std::iter::from_fn(|| doors[1].take()).collect();
        assert_eq!(others.len(), 10);
        drop(crowd);
        let again: Vec<_> = std::iter::from_fn(|| doors[0].take()).collect();
        assert_eq!(again.len(), 60);
    }

    #[test]
    fn more_doors_than_places_share_what_there_is() {
        let doors = Places::share(3, 2000);
        assert_eq!(doors.len(), 2000);
        let taken: Vec<_> = doors.iter().filter_map(Places::take).collect();
        assert_eq!(taken.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_who_has_waited_longest_is_sent_away_and_nobody_who_is_busy() {
        let doors = Places::share(6, 1);
        let mut held: Vec<_> = std::iter::from_fn(|| doors[0].take()).collect();
        let _busy = held.split_off(3);
        let mut silent = Vec::new();
        for place in held {
            silent.push(tokio::spawn(async move { place.wanted().await }));
            tokio::task::yield_now().await;
        }
        for left in [2, 1, 0] {
            let place = timeout(ACCEPT_PAUSE / 2, doors[0].make_room()).await.unwrap();
            silent.remove(0).await.unwrap();
            assert_eq!(silent.iter().filter(|waiting| !waiting.is_finished()).count(), left);
            std::mem::forget(place.unwrap());
        }
        assert!(doors[0].make_room().await.is_none(), "nobody else goes");
    }

    #[tokio::test(start_paused = true)]
    async fn places_given_back_long_ago_send_nobody_away() {
        let doors = Places::share(4, 1);
        drop(std::iter::from_fn(|| doors[0].take()).collect::<Vec<_>>());
        let mut silent = Vec::new();
        for place in std::iter::from_fn(|| doors[0].take()) {
            silent.push(tokio::spawn(async move {
                place.wanted().await;
                place
            }));
        }
        tokio::task::yield_now().await;
        // Whoever is asked to go takes the time that it takes.
        assert!(doors[0].make_room().await.is_none());
        assert_eq!(silent.iter().filter(|waiting| waiting.is_finished()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_to_go_that_met_nobody_sends_nobody_away_later() {
        let doors = Places::share(1, 1);
        let place = doors[0].take().unwrap();
        let mut wanted = Box::pin(place.wanted());
        assert!(timeout(ACCEPT_PAUSE, &mut wanted).await.is_err());
        assert!(doors[0].make_room().await.is_none());
        // The one that was asked has just said what it wants.
        drop(wanted);
        assert!(timeout(ACCEPT_PAUSE, place.wanted()).await.is_err(), "nobody waits any more");
    }
}
