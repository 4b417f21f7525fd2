//! A short wait that thousands of sessions a second share one timer for.
//!
//! A timer of its own for each session's few milliseconds would wake the worker's driver each time it is set, which costs more
//! than all else that is done for the wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::limits::FIRST_FLIGHT;

/// Ends after one to two times [`FIRST_FLIGHT`].
pub(crate) async fn first_flight() {
    let ticker = TICKER.with(Arc::clone);
    // Joined in the middle of a period, one tick alone could come at once.
    let _place = Place::take(&ticker);
    ticker.tick.notified().await;
    ticker.tick.notified().await;
}

/// Ticks while somebody waits.
#[derive(Default)]
struct Ticker {
    tick: Notify,
    waiting: AtomicUsize,
    running: AtomicBool,
}

/// Somebody who waits.
struct Place<'a>(&'a Ticker);

impl<'a> Place<'a> {
    fn take(ticker: &'a Arc<Ticker>) -> Self {
        ticker.waiting.fetch_add(1, Ordering::Relaxed);
        if !ticker.running.swap(true, Ordering::Relaxed) {
            drop(tokio::spawn(run(Running(Arc::clone(ticker)))));
        }
        Self(ticker)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The one task that ticks; another may be started when it is gone, however it went.
struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Relaxed);
    }
}

async fn run(running: Running) {
    let ticker = &running.0;
    while ticker.waiting.load(Ordering::Relaxed) > 0 {
        sleep(FIRST_FLIGHT).await;
        ticker.tick.notify_waiters();
    }
}

thread_local! {
    static TICKER: Arc<Ticker> = Arc::default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_wait_lasts_one_to_two_periods_whenever_it_begins() {
        let began = Instant::now();
        let early = tokio::spawn(async move {
            first_flight().await;
            began.elapsed()
        });
        sleep(FIRST_FLIGHT / 2).await;
        let late = tokio::spawn(async move {
            let began = Instant::now();
            first_flight().await;
            began.elapsed()
        });
        for waited in [early.await.unwrap(), late.await.unwrap()] {
            assert!((FIRST_FLIGHT..=FIRST_FLIGHT * 2).contains(&waited), "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_short_waits_share_one_ticking_task() {
        for _ in 0..20 {
            drop(tokio::time::timeout(FIRST_FLIGHT / 50, first_flight()).await);
        }
        assert!(TICKER.with(Arc::strong_count) <= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_wait_stops_the_ticks() {
        drop(tokio::time::timeout(FIRST_FLIGHT / 2, first_flight()).await);
        sleep(FIRST_FLIGHT * 2).await;
        assert_eq!(TICKER.with(|ticker| ticker.waiting.load(Ordering::Relaxed)), 0);
        assert_eq!(TICKER.with(Arc::strong_count), 1, "the ticking task has ended");
    }
}
