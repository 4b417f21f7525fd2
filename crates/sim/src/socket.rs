//! A connection of the simulated network: two bounded pipes with manners, and the ways in which TCP ends.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use umbra_relay::net::Socket;

use crate::chance::Chance;
use crate::link::Link;
use crate::wire::{End, Wire};

/// One end of a connection.
///
/// It tells readiness as the kernel does, sometimes falsely; it wakes whom it has told to wait, once, and nobody else. Dropped
/// with unread bytes it resets, dropped without it ends in order, and an error is told to one call only, as Linux does.
pub struct SimSocket {
    wire: Arc<Mutex<Wire>>,
    end: End,
    local: SocketAddr,
    ledger: Arc<Ledger>,
}

/// What all sockets of a network count together.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    live: AtomicUsize,
    operations: AtomicU64,
}

/// What has passed through a connection, write by write.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// From the dialling end.
    pub uplink: Vec<Vec<u8>>,
    /// To the dialling end.
    pub downlink: Vec<Vec<u8>>,
}

/// Makes a connection's two ends, the dialling one first.
pub(crate) fn connection(
    addresses: (SocketAddr, SocketAddr),
    link: Link,
    chance: Chance,
    ledger: &Arc<Ledger>,
    record: Option<Arc<Mutex<Record>>>,
) -> (SimSocket, SimSocket) {
    let wire = Arc::new(Mutex::new(Wire::new(link, chance, record)));
    let socket = |end, local| {
        ledger.live.fetch_add(1, Ordering::Relaxed);
        SimSocket { wire: Arc::clone(&wire), end, local, ledger: Arc::clone(ledger) }
    };
    (socket(End::Dialler, addresses.0), socket(End::Acceptor, addresses.1))
}

impl Ledger {
    /// Socket ends that have not been dropped.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Calls on sockets so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }
}

impl Socket for SimSocket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire().poll_readable(self.end, cx).map(Ok)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire().poll_writable(self.end, cx).map(Ok)
    }

    fn try_read(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let room = pieces.iter().map(|piece| piece.len()).sum();
        assert!(room > 0, "a read into nothing cannot be told from the end");
        let mut bytes = Vec::new();
        self.wire().read(self.end, room, &mut bytes)?;
        let mut rest = &bytes[..];
        for piece in pieces {
            let (now, later) = rest.split_at(piece.len().min(rest.len()));
            piece[..now.len()].copy_from_slice(now);
            rest = later;
        }
        Ok(bytes.len())
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let total = pieces.iter().map(|piece| piece.len()).sum();
        assert!(total > 0, "a write of nothing says nothing");
        self.wire().write(self.end, total, pieces)
    }

    fn shutdown_write(&self) -> io::Result<()> {
        self.wire().end(self.end)
    }

    fn reset(&self) {
        self.wire().abort(self.end);
    }

    fn undelivered_bytes(&self) -> usize {
        self.wire().undelivered_bytes(self.end)
    }

    async fn broken(&self) {
        poll_fn(|cx| self.wire().poll_broken(self.end, cx)).await;
    }

    fn expect_bulk(&self) {}

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl SimSocket {
    /// Bytes that have been written towards this end and not been read.
    pub fn unread_bytes(&self) -> usize {
        self.wire().unread_bytes(self.end)
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        let before = self.ledger.operations.fetch_add(1, Ordering::Relaxed);
        assert!(before < OPERATIONS_MAX, "sockets are tried without end: something spins");
        lock(&self.wire)
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.ledger.live.fetch_sub(1, Ordering::Relaxed);
        lock(&self.wire).close(self.end);
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSocket")
            .field("end", &self.end)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

/// A wire is whole whatever its last user did.
fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Far more calls than any scenario needs.
const OPERATIONS_MAX: u64 = 100_000_000;
