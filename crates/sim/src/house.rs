//! Doors of the relay on a simulated network, with their sessions counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use umbra_relay::config::Inbound;
use umbra_relay::{Door, session};

use crate::link::Link;
use crate::net::SimNet;

/// Doors that are open on a network.
#[derive(Clone, Debug)]
pub struct House {
    net: SimNet,
    count: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    live: AtomicUsize,
    begun: AtomicUsize,
    panicked: AtomicUsize,
}

/// One session in the count.
struct Presence(Arc<Count>);

impl House {
    /// A house without doors.
    pub fn new(net: &SimNet) -> Self {
        Self { net: net.clone(), count: Arc::default() }
    }

    /// Opens a door, to which connections like `link` lead.
    pub fn open(&self, inbound: Inbound, link: Link) {
        self.open_for(usize::MAX, inbound, link);
    }

    /// Opens a door for at most `sessions_max` sessions at a time.
    pub fn open_for(&self, sessions_max: usize, inbound: Inbound, link: Link) {
        let mut listener = self.net.listen(inbound.listen, link);
        let door = Arc::new(Door::new(inbound, self.net.clone(), sessions_max));
        let count = Arc::clone(&self.count);
        drop(tokio::spawn(async move {
            while let Some((client, source)) = listener.accept().await {
                let place = door.place(|| {}).await;
                let presence = Presence::enter(&count);
                let door = Arc::clone(&door);
                drop(tokio::spawn(async move {
                    session::run(door, place, client, source).await;
                    drop(presence);
                }));
            }
        }));
    }

    /// Sessions under way.
    pub fn sessions(&self) -> usize {
        self.count.live.load(Ordering::Relaxed)
    }

    /// Sessions that have begun.
    pub fn sessions_begun(&self) -> usize {
        self.count.begun.load(Ordering::Relaxed)
    }

    /// Waits until every session has ended. Gives the time that took.
    ///
    /// # Panics
    /// If one of them panicked, or is still there after `within`.
    pub async fn empties(&self, within: Duration) -> Duration {
        let started = Instant::now();
        while self.sessions() > 0 {
            assert!(started.elapsed() <= within, "{} sessions outlive {within:?}", self.sessions());
            sleep(Duration::from_millis(1).max(within / 1000)).await;
        }
        assert_eq!(self.count.panicked.load(Ordering::Relaxed), 0, "a session panicked");
        started.elapsed()
    }
}

impl Presence {
    fn enter(count: &Arc<Count>) -> Self {
        count.live.fetch_add(1, Ordering::Relaxed);
        count.begun.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
        if std::thread::panicking() {
            self.0.panicked.fetch_add(1, Ordering::Relaxed);
        }
    }
}
