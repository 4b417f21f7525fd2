//! A worker's datagram sockets on the simulated network.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use umbra_relay::limits::{RUN_BYTES_MAX, RUN_DATAGRAMS_MAX};
use umbra_relay::net::datagram::{Backlog, Binding, Datagrams, Inbox, Parcel, Sent, SocketId};

use super::net::{Bell, DatagramNet, Ready, Waiting, lock};
use crate::chance::Chance;

/// The sockets of one worker on a host with these addresses.
///
/// Batches are of any size, runs of datagrams come together or do not, there may be said to be more although there is not, and a socket
/// is now and then told ready for nothing. One that has been told and not drained is not told again.
pub struct SimDatagrams {
    net: DatagramNet,
    chance: Chance,
    /// The first of a family is the one that it speaks from.
    host: Vec<IpAddr>,
    held: Vec<Option<Held>>,
    generation: u32,
    capacity: usize,
    ready: Arc<Mutex<Ready>>,
}

struct Held {
    generation: u32,
    bound: SocketAddr,
    /// Where it is known on the network.
    addresses: Vec<SocketAddr>,
    peer: Option<SocketAddr>,
    waiting: Arc<Mutex<Waiting>>,
}

impl SimDatagrams {
    /// No sockets yet. `capacity` datagrams wait in each of them.
    pub fn new(net: &DatagramNet, host: &[IpAddr], capacity: usize) -> Self {
        Self {
            net: net.clone(),
            chance: net.fork(),
            host: host.into(),
            held: Vec::new(),
            generation: 0,
            capacity,
            ready: Arc::default(),
        }
    }

    /// Opens a door at `address`, beside those of other workers. An unspecified one stands for every address of the host.
    pub fn door(&mut self, address: SocketAddr) -> SocketId {
        let is_any = address.ip().is_unspecified();
        let hosts = if is_any { self.host.clone() } else { vec![address.ip()] };
        let addresses = hosts.into_iter().map(|ip| SocketAddr::new(ip, address.port())).collect();
        self.hold(address, addresses, None)
    }

    fn hold(&mut self, bound: SocketAddr, addresses: Vec<SocketAddr>, peer: Option<SocketAddr>) -> SocketId {
        let place = self.held.iter().position(Option::is_none).unwrap_or_else(|| {
            self.held.push(None);
            self.held.len() - 1
        });
        self.generation += 1;
        let socket =
            SocketId { index: u32::try_from(place).unwrap_or(u32::MAX), generation: self.generation };
        let bell = Bell::Worker { socket, is_told: false, ready: Arc::clone(&self.ready) };
        let waiting = Waiting { datagrams: [].into(), capacity: self.capacity, peer, bell };
        let waiting = Arc::new(Mutex::new(waiting));
        self.net.enter(&addresses, &waiting);
        self.held[place] = Some(Held { generation: self.generation, bound, addresses, peer, waiting });
        socket
    }

    /// The address of this host that speaks with `peer`.
    fn speaks_with(&self, peer: IpAddr) -> Option<IpAddr> {
        self.host.iter().copied().find(|ip| ip.is_ipv4() == peer.is_ipv4())
    }
}

impl Datagrams for SimDatagrams {
    fn open(&mut self, binding: Binding) -> io::Result<SocketId> {
        let Binding::Outgoing { ip, peer, fragments: _, is_shared: _ } = binding;
        let ip = self.speaks_with(ip).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let address = SocketAddr::new(ip, self.net.free_port());
        Ok(self.hold(address, vec![address], peer))
    }

    fn close(&mut self, socket: SocketId) {
        if let Some(Held { addresses, waiting, .. }) = find(&self.held, socket) {
            self.net.leave(addresses, waiting);
            self.held[socket.index as usize] = None;
        }
    }

    fn local_addr(&self, socket: SocketId) -> io::Result<SocketAddr> {
        find(&self.held, socket).map(|held| held.bound).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, ready: &mut Vec<SocketId>) -> Poll<io::Result<()>> {
        let mut told = lock(&self.ready);
        if told.sockets.is_empty() {
            told.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        ready.append(&mut told.sockets);
        for held in self.held.iter().flatten() {
            if let Bell::Worker { is_told: is_told @ false, socket, .. } = &mut lock(&held.waiting).bell {
                *is_told = self.chance.one_in(8);
                ready.extend(is_told.then_some(*socket));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn receive(&mut self, socket: SocketId, inbox: &mut Inbox) -> io::Result<Backlog> {
        let Self { held, chance, .. } = self;
        let held = find(held, socket).ok_or(io::ErrorKind::NotConnected)?;
        let mut waiting = lock(&held.waiting);
        for _ in 0..chance.length(0..=inbox.room()) {
            let Some(first) = waiting.datagrams.pop_front() else { break };
            let (len, mut bytes) = (first.bytes.len(), first.bytes);
            let mut count = 1;
            let is_joining = !chance.one_in(3);
            // As where the kernel puts datagrams of one flow together: all of one size, but for the last.
            while is_joining && bytes.len() == len * count && count < RUN_DATAGRAMS_MAX {
                let next = waiting.datagrams.front().filter(|next| {
                    let is_same = (next.source, next.to) == (first.source, first.to);
                    let has_room = bytes.len() + next.bytes.len() <= RUN_BYTES_MAX;
                    is_same && has_room && (1..=len).contains(&next.bytes.len())
                });
                let Some(next) = next else { break };
                bytes.extend_from_slice(&next.bytes);
                waiting.datagrams.pop_front();
                count += 1;
            }
            let local = held.bound.ip().is_unspecified().then_some(first.to.ip());
            let segment = if count > 1 || chance.one_in(4) { len } else { 0 };
            assert!(inbox.push(first.source, local, &bytes, segment), "a datagram fits a slot");
        }
        let is_more = !waiting.datagrams.is_empty() || chance.one_in(4);
        if let Bell::Worker { is_told, .. } = &mut waiting.bell {
            *is_told = is_more;
        }
        Ok(if is_more { Backlog::More } else { Backlog::Drained })
    }

    fn send(&mut self, socket: SocketId, parcels: &[Parcel<'_>]) -> Sent {
        let mut sent = Sent::default();
        let held = find(&self.held, socket);
        for parcel in parcels {
            let to = parcel.to.or(held.and_then(|held| held.peer));
            let from = held.zip(to).and_then(|(held, to)| {
                let own = Some(held.bound.ip()).filter(|ip| !ip.is_unspecified());
                let ip = own.or(parcel.from).or_else(|| self.speaks_with(to.ip()))?;
                Some(SocketAddr::new(ip, held.bound.port())).filter(|from| from.is_ipv4() == to.is_ipv4())
            });
            let (Some(to), Some(from)) = (to, from) else {
                sent.failed += parcel.count();
                continue;
            };
            let is_run = parcel.count() > 1;
            assert!(!is_run || parcel.bytes.len() <= RUN_BYTES_MAX, "a run is one datagram to the kernel");
            assert!(parcel.count() <= RUN_DATAGRAMS_MAX, "the kernel cuts no longer runs");
            let len = if parcel.segment == 0 { parcel.bytes.len().max(1) } else { parcel.segment };
            let empty = parcel.bytes.is_empty().then_some(parcel.bytes);
            for datagram in parcel.bytes.chunks(len).chain(empty) {
                if datagram.len() > DATAGRAM_BYTES_MAX {
                    sent.oversized += 1;
                    continue;
                }
                self.net.send(from, to, datagram);
                sent.datagrams += 1;
            }
        }
        sent
    }
}

fn find(held: &[Option<Held>], socket: SocketId) -> Option<&Held> {
    let held = held.get(usize::try_from(socket.index).ok()?)?.as_ref();
    held.filter(|held| held.generation == socket.generation)
}

impl Drop for SimDatagrams {
    fn drop(&mut self) {
        for held in self.held.iter().flatten() {
            self.net.leave(&held.addresses, &held.waiting);
        }
    }
}

impl fmt::Debug for SimDatagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDatagrams").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What IPv4 carries in one datagram.
const DATAGRAM_BYTES_MAX: usize = 65_507;
