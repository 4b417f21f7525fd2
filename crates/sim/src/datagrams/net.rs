//! The wire between datagram sockets: it loses, delays and so reorders, doubles, damages; and address translators on it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::sleep;
use umbra_relay::net::datagram::SocketId;

use crate::chance::Chance;

/// A network of datagram sockets. Clones are the same network.
#[derive(Clone)]
pub struct DatagramNet(Arc<Mutex<State>>);

struct State {
    chance: Chance,
    /// Who is at an address; several, if they share it.
    sockets: HashMap<SocketAddr, Vec<Arc<Mutex<Waiting>>>>,
    impairments: Impairments,
    between: HashMap<Pair, Impairments>,
    counts: HashMap<Pair, Count>,
    /// How an address looks from outside, and back.
    outside: HashMap<SocketAddr, SocketAddr>,
    inside: HashMap<SocketAddr, SocketAddr>,
    /// What comes from there, or goes there, is lost.
    cut: HashSet<SocketAddr>,
    seen: Option<Vec<Seen>>,
    next_port: u16,
}

/// Two hosts, the lower address first.
type Pair = (IpAddr, IpAddr);

/// What the network does to datagrams between two hosts, in either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairments {
    /// One in so many is lost; none for zero, as below.
    pub lost_one_in: u64,
    /// One in so many arrives twice.
    pub doubled_one_in: u64,
    /// One in so many has a flipped bit.
    pub damaged_one_in: u64,
    /// The longest that one is under way. Each takes a time of its own, so they overtake each other.
    pub delay_max: Duration,
}

/// What has become of datagrams between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Sent by either.
    pub sent: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Copies that nobody sent.
    pub doubled: u64,
    /// With a flipped bit.
    pub damaged: u64,
    /// Nobody was there, or nobody who listens to the sender.
    pub refused: u64,
    /// There was no room at the receiver's.
    pub crowded: u64,
}

/// A datagram that was sent, as the network sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// From where.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// What has arrived at a socket and was not received yet.
pub(super) struct Waiting {
    pub(super) datagrams: VecDeque<Arrived>,
    pub(super) capacity: usize,
    /// The only one it listens to.
    pub(super) peer: Option<SocketAddr>,
    pub(super) bell: Bell,
}

/// A datagram that has arrived.
pub(super) struct Arrived {
    pub(super) source: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// Who is to know that something has arrived.
pub(super) enum Bell {
    /// Whoever waits for this socket alone.
    Own(Option<Waker>),
    /// A worker, unless it has been told and has not drained the socket since.
    Worker { socket: SocketId, is_told: bool, ready: Arc<Mutex<Ready>> },
}

/// The sockets that a worker is to be told of.
#[derive(Default)]
pub(super) struct Ready {
    pub(super) sockets: Vec<SocketId>,
    pub(super) waker: Option<Waker>,
}

impl Impairments {
    /// Impairments from a seed; nothing is damaged.
    pub fn random(chance: &mut Chance) -> Self {
        Self {
            lost_one_in: *chance.choose(&[0, 2, 5, 30]),
            doubled_one_in: *chance.choose(&[0, 2, 5, 30]),
            damaged_one_in: 0,
            delay_max: Duration::from_millis(*chance.choose(&[0, 1, 20, 400])),
        }
    }

    /// Only delays.
    pub fn delays(delay_max: Duration) -> Self {
        Self { delay_max, ..Self::default() }
    }
}

impl DatagramNet {
    /// A network without sockets, on which everything arrives at once.
    pub fn new(chance: Chance) -> Self {
        let state = State {
            chance,
            sockets: HashMap::new(),
            impairments: Impairments::default(),
            between: HashMap::new(),
            counts: HashMap::new(),
            outside: HashMap::new(),
            inside: HashMap::new(),
            cut: HashSet::new(),
            seen: None,
            next_port: FIRST_PORT,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Treats datagrams like this from here on, but for hosts with impairments of their own.
    pub fn impair(&self, impairments: Impairments) {
        self.state().impairments = impairments;
    }

    /// Treats datagrams between two hosts like this from here on.
    pub fn impair_between(&self, one: IpAddr, other: IpAddr, impairments: Impairments) {
        self.state().between.insert(pair(one, other), impairments);
    }

    /// What has become of datagrams between two hosts so far.
    pub fn count_between(&self, one: IpAddr, other: IpAddr) -> Count {
        self.state().counts.get(&pair(one, other)).copied().unwrap_or_default()
    }

    /// Remembers what is sent from here on.
    pub fn record(&self) {
        self.state().seen = Some(Vec::new());
    }

    /// What was sent since, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone().unwrap_or_default()
    }

    /// Lets what is sent from `inside` come from `outside`, and what is sent there arrive; nothing reaches `inside` by its own address
    /// or an earlier one any more. As where an address translator has begun anew.
    pub fn translate(&self, inside: SocketAddr, outside: SocketAddr) {
        let mut state = self.state();
        if let Some(before) = state.outside.insert(inside, outside) {
            state.inside.remove(&before);
        }
        state.inside.insert(outside, inside);
    }

    /// Loses everything from and to `address`, without a word, from here on.
    pub fn cut(&self, address: SocketAddr) {
        self.state().cut.insert(address);
    }

    /// How many sockets of `host` are open.
    pub fn open_at(&self, host: IpAddr) -> usize {
        let state = self.state();
        let at_host = state.sockets.iter().filter(|(address, _)| address.ip() == host);
        at_host.map(|(_, sockets)| sockets.len()).sum()
    }

    /// Sends `bytes` as `from`, which need not be the sender's own address.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut guard = self.state();
        let state = &mut *guard;
        let hosts = pair(from.ip(), to.ip());
        let from = state.outside.get(&from).copied().unwrap_or(from);
        if let Some(seen) = &mut state.seen {
            seen.push(Seen { from, to, bytes: bytes.into() });
        }
        let rules = state.between.get(&hosts).copied().unwrap_or(state.impairments);
        let count = state.counts.entry(hosts).or_default();
        count.sent += 1;
        if state.cut.contains(&from) || state.cut.contains(&to) || state.chance.one_in(rules.lost_one_in) {
            count.lost += 1;
            return;
        }
        let is_doubled = state.chance.one_in(rules.doubled_one_in);
        count.doubled += u64::from(is_doubled);
        for _ in 0..=usize::from(is_doubled) {
            let mut bytes = bytes.to_vec();
            if !bytes.is_empty() && state.chance.one_in(rules.damaged_one_in) {
                let bit = state.chance.length(0..=bytes.len() * 8 - 1);
                bytes[bit / 8] ^= 1 << (bit % 8);
                state.counts.entry(hosts).or_default().damaged += 1;
            }
            let delay_micros = u64::try_from(rules.delay_max.as_micros()).unwrap_or(u64::MAX);
            let delay = Duration::from_micros(state.chance.within(0..=delay_micros));
            let arrived = Arrived { source: from, to, bytes };
            if delay.is_zero() {
                state.arrive(arrived);
            } else {
                let net = self.clone();
                drop(tokio::spawn(async move {
                    sleep(delay).await;
                    net.state().arrive(arrived);
                }));
            }
        }
    }

    /// Puts a socket at addresses.
    pub(super) fn enter(&self, addresses: &[SocketAddr], waiting: &Arc<Mutex<Waiting>>) {
        let mut state = self.state();
        for address in addresses {
            state.sockets.entry(*address).or_default().push(Arc::clone(waiting));
        }
    }

    /// Takes a socket away.
    pub(super) fn leave(&self, addresses: &[SocketAddr], waiting: &Arc<Mutex<Waiting>>) {
        let mut state = self.state();
        for address in addresses {
            if let Some(sockets) = state.sockets.get_mut(address) {
                sockets.retain(|socket| !Arc::ptr_eq(socket, waiting));
                if sockets.is_empty() {
                    state.sockets.remove(address);
                }
            }
        }
    }

    /// A port that nobody has had.
    pub(super) fn free_port(&self) -> u16 {
        let mut state = self.state();
        state.next_port = state.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        state.next_port
    }

    /// A generator of its own for somebody on the network.
    pub(super) fn fork(&self) -> Chance {
        self.state().chance.fork()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl State {
    fn arrive(&mut self, mut arrived: Arrived) {
        let count = self.counts.entry(pair(arrived.source.ip(), arrived.to.ip())).or_default();
        let is_hidden = self.outside.contains_key(&arrived.to);
        if let Some(inside) = self.inside.get(&arrived.to) {
            arrived.to = *inside;
        } else if is_hidden {
            count.refused += 1;
            return;
        }
        let Some(sockets) = self.sockets.get(&arrived.to) else {
            count.refused += 1;
            return;
        };
        // As where the kernel divides those who come: whoever sends from one address comes to one socket.
        let share = usize::from(arrived.source.port()) + usize::from(last_byte(arrived.source.ip()));
        let mut waiting = lock(&sockets[share % sockets.len()]);
        if waiting.peer.is_some_and(|peer| peer != arrived.source) {
            count.refused += 1;
        } else if waiting.datagrams.len() >= waiting.capacity {
            count.crowded += 1;
        } else {
            waiting.datagrams.push_back(arrived);
            waiting.bell.ring();
        }
    }
}

impl Bell {
    fn ring(&mut self) {
        match self {
            Self::Own(waker) => {
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
            }
            Self::Worker { is_told: true, .. } => {}
            Self::Worker { socket, is_told, ready } => {
                *is_told = true;
                let mut ready = lock(ready);
                ready.sockets.push(*socket);
                if let Some(waker) = ready.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

fn pair(one: IpAddr, other: IpAddr) -> Pair {
    (one.min(other), one.max(other))
}

fn last_byte(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

/// Everything runs on one thread, and what is kept under these locks is whole between any two calls.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for DatagramNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramNet").field("addresses", &self.state().sockets.len()).finish_non_exhaustive()
    }
}

/// From here on ports are given out.
const FIRST_PORT: u16 = 20_000;
