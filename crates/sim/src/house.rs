//! Doors of the relay on a simulated network, with their sessions counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use umbra_relay::config::Inbound;
use umbra_relay::{Budget, Door, Engine, session};

use crate::datagrams::SimDatagrams;
use crate::link::Link;
use crate::net::{Listener, SimNet};

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

/// The engines of a door for datagrams. Dropped, they end, and their sockets close.
#[derive(Debug)]
pub struct Workforce {
    engines: Vec<JoinHandle<()>>,
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
        let listener = self.net.listen(inbound.listen, link);
        self.accept(Arc::new(Door::new(inbound, self.net.clone(), sessions_max)), listener);
    }

    /// Opens a door that takes datagrams too, with `workers` whose associations may have `sockets_max` sockets together.
    ///
    /// # Panics
    /// If the inbound takes no datagrams.
    pub fn open_for_datagrams(
        &self,
        inbound: Inbound,
        workers: Vec<SimDatagrams>,
        sockets_max: usize,
    ) -> Workforce {
        let listener = self.net.listen(inbound.listen, Link::plain());
        let udp = inbound.mode.datagrams().expect("datagrams are what it is opened for");
        let address = udp.listen.unwrap_or(inbound.listen);
        let among = workers.len().into();
        let door = Door::new(inbound, self.net.clone(), usize::MAX).with_datagrams(address, among);
        let (door, budgets) = (Arc::new(door), Budget::share(sockets_max, workers.len()));
        let engines = workers.into_iter().zip(budgets).map(|(mut sockets, budget)| {
            let socket = sockets.door(address);
            let engine = Engine::new(vec![(Arc::clone(&door), socket)], sockets, budget);
            tokio::spawn(async move {
                engine.run().await;
            })
        });
        let engines = engines.collect();
        self.accept(door, listener);
        Workforce { engines }
    }

    fn accept(&self, door: Arc<Door<SimNet>>, mut listener: Listener) {
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

impl Workforce {
    /// Ends the engines, and waits until their sockets are closed.
    pub async fn end(mut self) {
        for engine in self.engines.drain(..) {
            engine.abort();
            // Why it has ended is known.
            let _ = engine.await;
        }
    }

    /// Whether none has ended: none does by itself.
    pub fn is_whole(&self) -> bool {
        self.engines.iter().all(|engine| !engine.is_finished())
    }
}

impl Drop for Workforce {
    fn drop(&mut self) {
        for engine in &self.engines {
            engine.abort();
        }
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
