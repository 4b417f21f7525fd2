//! Workers: threads with a runtime of their own that share nothing on the data path.
//!
//! The first worker accepts and places each connection with the worker that has the fewest sessions; a session then stays
//! there.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::batch::trim_pool;
use crate::door::Door;
use crate::limits::{
    ACCEPT_PAUSE, RESOLVER_THREADS_MAX, SHORTAGE_LINE_PERIOD, TRIM_DELAY, TRIM_SESSIONS_MIN,
};
use crate::net::datagram::SocketId;
use crate::net::os::conduit::{allow_conduits, close_free_conduits};
use crate::net::os::datagram::OsDatagrams;
use crate::net::os::{self, OsNet, OsSocket, Watched};
use crate::places::Place;
use crate::session;
use crate::udp::Engine;
use crate::udp::budget::Budget;

/// A connection on its way to a worker.
pub(crate) struct Arrival {
    door: Arc<Door<OsNet>>,
    place: Place,
    connection: OwnedFd,
    source: SocketAddr,
    presence: Presence,
}

/// What others see of a worker.
#[derive(Debug)]
pub(crate) struct Seat {
    arrivals: mpsc::UnboundedSender<Arrival>,
    crowd: Arc<Crowd>,
}

/// The sessions of one worker, counted.
#[derive(Debug, Default)]
struct Crowd {
    live: AtomicUsize,
    peak: AtomicUsize,
    ended: Notify,
}

/// One live session in its worker's count.
struct Presence(Arc<Crowd>);

/// A worker that has not begun.
pub(crate) struct Worker {
    pub(crate) runtime: Runtime,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    crowd: Arc<Crowd>,
}

impl Worker {
    /// A worker and its seat.
    pub(crate) fn new() -> io::Result<(Self, Seat)> {
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(RESOLVER_THREADS_MAX).build()?;
        let (sender, arrivals) = mpsc::unbounded_channel();
        let crowd = Arc::<Crowd>::default();
        Ok((Self { runtime, arrivals, crowd: Arc::clone(&crowd) }, Seat { arrivals: sender, crowd }))
    }

    /// Serves until it is told to stop; then every session here ends.
    pub(crate) fn run(self, duties: Duties) {
        let Self { runtime, mut arrivals, crowd } = self;
        let Duties { accepting, datagrams, conduits, mut stopped } = duties;
        allow_conduits(conduits);
        runtime.block_on(async {
            for door in accepting {
                tokio::spawn(door.run());
            }
            tokio::spawn(tidy(crowd));
            let mut relaying = pin!(async {
                match datagrams {
                    Some(datagrams) => datagrams.relay().await,
                    None => pending().await,
                }
            });
            loop {
                tokio::select! {
                    _ = stopped.changed() => return,
                    Some(arrival) = arrivals.recv() => arrival.serve(),
                    never = &mut relaying => match never {},
                }
            }
        });
        // Lookups under way are the system's and may take long; nothing waits for them.
        runtime.shutdown_background();
    }
}

/// What a worker is there for, beside the connections that are placed with it.
pub(crate) struct Duties {
    /// Doors whose connections it accepts.
    pub(crate) accepting: Vec<Accepting>,
    /// Doors whose datagrams come to it.
    pub(crate) datagrams: Option<DatagramDoors>,
    /// How many pipes of the kernel it may have.
    pub(crate) conduits: usize,
    /// Changes, or loses its sender, when it is to end.
    pub(crate) stopped: watch::Receiver<()>,
}

/// Doors whose datagrams come to one worker, the sockets by which they come, and how many others it may open.
pub(crate) struct DatagramDoors {
    doors: Vec<(Arc<Door<OsNet>>, SocketId)>,
    sockets: OsDatagrams,
    budget: Arc<Budget>,
}

impl DatagramDoors {
    /// Watches each door's socket. To be called on the worker's runtime, before anybody is told that the doors are open.
    pub(crate) fn watch(doors: Vec<(Arc<Door<OsNet>>, UdpSocket)>, budget: Arc<Budget>) -> io::Result<Self> {
        let mut sockets = OsDatagrams::new()?;
        let adopt = |(door, socket)| Ok((door, sockets.adopt(socket)?));
        let doors = doors.into_iter().map(adopt).collect::<io::Result<_>>()?;
        Ok(Self { doors, sockets, budget })
    }

    /// Relays them, for as long as it is polled.
    pub(crate) async fn relay(self) -> Infallible {
        // Boxed: the worker's own future is small, and this one lives as long.
        Box::pin(Engine::new(self.doors, self.sockets, self.budget).run()).await
    }
}

/// A listening door with the seats of all workers.
pub(crate) struct Accepting {
    pub(crate) door: Arc<Door<OsNet>>,
    pub(crate) listener: Watched,
    pub(crate) seats: Arc<[Seat]>,
}

impl Accepting {
    async fn run(mut self) {
        let mut shortage = Shortage::default();
        loop {
            match self.listener.accept().await {
                Ok((connection, source)) => {
                    // A session must find a descriptor for its target too: else a crowd that comes at once takes all of them,
                    // and none of it is served.
                    let place = self.door.place(|| shortage.tell(&"every descriptor is taken")).await;
                    seat(&self.seats, &self.door, place, connection, source);
                }
                Err(error) if os::is_exhaustion(&error) => {
                    shortage.tell(&error);
                    sleep(ACCEPT_PAUSE).await;
                }
                // Linux reports a connection's own trouble here; the next one may be well. The pause keeps an error that
                // stays from becoming a spin.
                Err(error) => {
                    debug!(%error, "a connection was lost before it was accepted");
                    sleep(ACCEPT_PAUSE / 20).await;
                }
            }
        }
    }
}

/// When a shortage was last told of: one that comes and goes with every session would fill the log.
#[derive(Default)]
struct Shortage(Option<Instant>);

impl Shortage {
    fn tell(&mut self, why: &dyn fmt::Display) {
        if self.0.is_none_or(|told| told.elapsed() >= SHORTAGE_LINE_PERIOD) {
            self.0 = Some(Instant::now());
            warn!(%why, "cannot accept for now; raise nofile if this stays");
        }
    }
}

/// Gives a connection to the worker with the fewest sessions. The first seat is that of the calling worker.
fn seat(seats: &[Seat], door: &Arc<Door<OsNet>>, place: Place, connection: OwnedFd, source: SocketAddr) {
    let manned = seats.iter().enumerate().filter(|(_, seat)| !seat.arrivals.is_closed());
    let fewest = manned.min_by_key(|(_, seat)| seat.crowd.live.load(Ordering::Relaxed));
    let Some((index, seat)) = fewest else { return };
    let presence = Presence::enter(&seat.crowd);
    let arrival = Arrival { door: Arc::clone(door), place, connection, source, presence };
    if index == 0 {
        arrival.serve();
    } else if seat.arrivals.send(arrival).is_err() {
        debug!("a worker has stopped; its connection is dropped");
    }
}

impl Arrival {
    fn serve(self) {
        let Self { door, place, connection, source, presence } = self;
        match OsSocket::register(connection) {
            Ok(client) => {
                drop(tokio::spawn(async move {
                    session::run(door, place, client, source).await;
                    drop(presence);
                }));
            }
            Err(error) => debug!(%error, "a connection cannot be watched"),
        }
    }
}

impl Presence {
    fn enter(crowd: &Arc<Crowd>) -> Self {
        let live = crowd.live.fetch_add(1, Ordering::Relaxed) + 1;
        crowd.peak.fetch_max(live, Ordering::Relaxed);
        Self(Arc::clone(crowd))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_one();
    }
}

/// Gives memory back some time after many sessions have ended. Sleeps while none ends.
async fn tidy(crowd: Arc<Crowd>) {
    loop {
        crowd.ended.notified().await;
        sleep(TRIM_DELAY).await;
        let live = crowd.live.load(Ordering::Relaxed);
        let peak = crowd.peak.load(Ordering::Relaxed);
        if live == 0 || peak >= live + TRIM_SESSIONS_MIN {
            crowd.peak.store(live, Ordering::Relaxed);
            trim_pool();
            close_free_conduits();
            os::release_free_memory();
        }
    }
}
