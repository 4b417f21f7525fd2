//! The simulated outside: hosts that answer or do not, names, a clock that starts at a fixed time, and chance from the seed.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use umbra_proto::shadowsocks::UnixTime;
use umbra_relay::config::Tcp;
use umbra_relay::net::Net;

use crate::chance::Chance;
use crate::link::Link;
use crate::socket::{Ledger, Record, SimSocket, connection};

/// A network. Clones are the same network.
#[derive(Clone)]
pub struct SimNet(Arc<World>);

struct World {
    state: Mutex<State>,
    ledger: Arc<Ledger>,
    started: Instant,
}

struct State {
    /// Chooses behaviours.
    chance: Chance,
    /// What sessions take for real randomness; of its own, so that they may take more without changing behaviours.
    randomness: Chance,
    hosts: HashMap<SocketAddr, Host>,
    names: HashMap<String, VecDeque<Name>>,
    dials: Vec<Dial>,
    records: Option<Vec<Arc<Mutex<Record>>>>,
    next_port: u16,
}

enum Host {
    Listening { link: Link, arrivals: mpsc::UnboundedSender<(SimSocket, SocketAddr)> },
    Absent(Absence),
}

/// How a host that serves nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// With a reset.
    Refuses,
    /// A router says that there is no way.
    Unreachable,
    /// Not at all.
    Silent,
}

/// What looking a name up gives, and when.
#[derive(Clone, Debug)]
pub struct Name {
    /// The addresses; an error if there are none.
    pub addresses: Vec<IpAddr>,
    /// How long it takes.
    pub delay: Duration,
}

/// An attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Where to.
    pub to: SocketAddr,
    /// When, since the network began.
    pub at: Duration,
}

/// Where connections to an address arrive.
#[derive(Debug)]
pub struct Listener(mpsc::UnboundedReceiver<(SimSocket, SocketAddr)>);

/// Where connections arrive that a client of the relay has asked for.
#[derive(Debug)]
pub struct SimListener {
    net: SimNet,
    address: SocketAddr,
    arrivals: Listener,
}

impl umbra_relay::net::Listener for SimListener {
    type Socket = SimSocket;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    async fn accept(&mut self) -> io::Result<(SimSocket, SocketAddr)> {
        self.arrivals.accept().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.net.state().hosts.remove(&self.address);
    }
}

impl SimNet {
    /// A network without hosts and names.
    pub fn new(mut chance: Chance) -> Self {
        let state = State {
            randomness: chance.fork(),
            chance,
            hosts: HashMap::new(),
            names: HashMap::new(),
            dials: Vec::new(),
            records: None,
            next_port: 40_000,
        };
        let ledger = Arc::<Ledger>::default();
        Self(Arc::new(World { state: Mutex::new(state), ledger, started: Instant::now() }))
    }

    /// Lets `address` be dialled, over connections like `link`.
    pub fn listen(&self, address: SocketAddr, link: Link) -> Listener {
        let (arrivals, listener) = mpsc::unbounded_channel();
        self.state().hosts.insert(address, Host::Listening { link, arrivals });
        Listener(listener)
    }

    /// Makes `address` a host that serves nobody. One that was never heard of refuses.
    pub fn absent(&self, address: SocketAddr, absence: Absence) {
        self.state().hosts.insert(address, Host::Absent(absence));
    }

    /// Gives a name to addresses.
    pub fn name(&self, name: &str, entry: Name) {
        self.names(name, [entry]);
    }

    /// Gives a name to something else at each lookup; the last of `entries` stays.
    pub fn names(&self, name: &str, entries: impl Into<VecDeque<Name>>) {
        self.state().names.insert(name.into(), entries.into());
    }

    /// Keeps what passes through connections that are made from here on.
    pub fn record(&self) {
        self.state().records = Some(Vec::new());
    }

    /// What has passed, connection by connection in the order in which they were made.
    pub fn records(&self) -> Vec<Record> {
        let state = self.state();
        let records = state.records.iter().flatten();
        records.map(|record| record.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Every attempt to connect so far, also those of peers.
    pub fn dials(&self) -> Vec<Dial> {
        self.state().dials.clone()
    }

    /// Attempts to connect to `address` so far.
    pub fn dials_to(&self, address: SocketAddr) -> usize {
        self.state().dials.iter().filter(|dial| dial.to == address).count()
    }

    /// Socket ends that somebody still holds.
    pub fn live_sockets(&self) -> usize {
        self.0.ledger.live()
    }

    /// Calls on sockets so far: waits, reads, writes, ends.
    pub fn operations(&self) -> u64 {
        self.0.ledger.operations()
    }

    /// Time since the network began.
    pub fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Connects to `address` as a peer does.
    pub async fn dial(&self, address: SocketAddr) -> io::Result<SimSocket> {
        self.connect(address, Tcp { no_delay: true, fast_open: false }).await
    }

    fn arrive(&self, address: SocketAddr) -> io::Result<SimSocket> {
        let mut state = self.state();
        let state = &mut *state;
        let Some(Host::Listening { link, arrivals }) = state.hosts.get(&address) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let record = state.records.as_mut().map(|records| {
            let record = Arc::<Mutex<Record>>::default();
            records.push(Arc::clone(&record));
            record
        });
        state.next_port = state.next_port.checked_add(1).unwrap_or(40_000);
        let source = SocketAddr::new(DIALLER.into(), state.next_port);
        let ends = connection((source, address), link.clone(), state.chance.fork(), &self.0.ledger, record);
        arrivals.send((ends.1, source)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(ends.0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// The next connection and where it came from; none when the network is gone.
    pub async fn accept(&mut self) -> Option<(SimSocket, SocketAddr)> {
        self.0.recv().await
    }
}

impl Net for SimNet {
    type Socket = SimSocket;
    type Listener = SimListener;

    fn listen(&self, ip: IpAddr, _: Tcp) -> io::Result<SimListener> {
        let port = {
            let mut state = self.state();
            state.next_port = state.next_port.checked_add(1).unwrap_or(40_000);
            state.next_port
        };
        let address = SocketAddr::new(ip, port);
        let arrivals = SimNet::listen(self, address, Link::plain());
        Ok(SimListener { net: self.clone(), address, arrivals })
    }

    fn source_towards(&self, _: IpAddr) -> io::Result<IpAddr> {
        Ok(DIALLER.into())
    }

    async fn connect(&self, address: SocketAddr, _: Tcp) -> io::Result<SimSocket> {
        let at = self.elapsed();
        let (opening, absence) = {
            let mut state = self.state();
            state.dials.push(Dial { to: address, at });
            match state.hosts.get(&address) {
                None => (Duration::ZERO, Some(Absence::Refuses)),
                Some(Host::Absent(absence)) => (Duration::ZERO, Some(*absence)),
                Some(Host::Listening { link, .. }) => (link.opening, None),
            }
        };
        match absence {
            Some(Absence::Refuses) => Err(io::ErrorKind::ConnectionRefused.into()),
            Some(Absence::Unreachable) => Err(io::ErrorKind::NetworkUnreachable.into()),
            Some(Absence::Silent) => pending().await,
            None => {
                if !opening.is_zero() {
                    sleep(opening).await;
                }
                self.arrive(address)
            }
        }
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let entry = self.state().names.get_mut(name).and_then(|entries| {
            let last = entries.front().cloned();
            if entries.len() > 1 { entries.pop_front() } else { last }
        });
        // Resolvers name what they did not find; logs must not.
        let unknown = || io::Error::other(format!("{name}: no such name"));
        let entry = entry.ok_or_else(unknown)?;
        if !entry.delay.is_zero() {
            sleep(entry.delay).await;
        }
        if entry.addresses.is_empty() {
            return Err(unknown());
        }
        Ok(entry.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }

    fn unix_time(&self) -> UnixTime {
        UnixTime(START_SECS + self.elapsed().as_secs())
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.state().randomness.fill(bytes);
        Ok(())
    }
}

impl fmt::Debug for SimNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNet").field("live_sockets", &self.live_sockets()).finish_non_exhaustive()
    }
}

/// When networks begin: some day in 2027.
const START_SECS: u64 = 1_800_000_000;

/// Whoever dials comes from this address, with a port of its own.
pub const DIALLER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
