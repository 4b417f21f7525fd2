//! A datagram socket for clients, targets and attackers.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::net::{Arrived, Bell, DatagramNet, Waiting, lock};

/// Somebody at an address.
pub struct DatagramPeer {
    net: DatagramNet,
    address: SocketAddr,
    waiting: Arc<Mutex<Waiting>>,
}

impl DatagramPeer {
    /// Somebody at `address`.
    pub fn new(net: &DatagramNet, address: SocketAddr) -> Self {
        let waiting =
            Waiting { datagrams: [].into(), capacity: PEER_DATAGRAMS_MAX, peer: None, bell: Bell::Own(None) };
        let waiting = Arc::new(Mutex::new(waiting));
        net.enter(&[address], &waiting);
        Self { net: net.clone(), address, waiting }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a datagram.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        self.net.send(self.address, to, bytes);
    }

    /// The next datagram, and where it comes from.
    pub async fn receive(&self) -> (SocketAddr, Vec<u8>) {
        poll_fn(|cx| {
            let mut waiting = lock(&self.waiting);
            if let Some(Arrived { source, bytes, .. }) = waiting.datagrams.pop_front() {
                return Poll::Ready((source, bytes));
            }
            waiting.bell = Bell::Own(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// What has come so far.
    pub fn received(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        lock(&self.waiting).datagrams.drain(..).map(|Arrived { source, bytes, .. }| (source, bytes)).collect()
    }

    /// The next datagram, if one comes in time.
    pub async fn receive_within(&self, time: Duration) -> Option<(SocketAddr, Vec<u8>)> {
        timeout(time, self.receive()).await.ok()
    }
}

impl Drop for DatagramPeer {
    fn drop(&mut self) {
        self.net.leave(&[self.address], &self.waiting);
    }
}

impl fmt::Debug for DatagramPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramPeer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What waits at a peer.
const PEER_DATAGRAMS_MAX: usize = 100_000;
