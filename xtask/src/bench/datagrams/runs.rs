//! Runs of datagrams one way through a tunnel, sent as QUIC and WireGuard send them: one call, cut by the kernel.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::flows::{Carried, LOST_AFTER};
use super::wire::{Inbox, Wire};
use crate::bench::bulk::finish;
use crate::bench::pair::Pair;

/// A target that counts.
#[derive(Debug)]
pub(crate) struct Sink {
    wire: Wire,
    /// Datagrams that have come.
    arrived: AtomicU64,
    /// One more than the highest number that has come.
    reached: AtomicU64,
    stop: AtomicBool,
}

const SEGMENT_BYTES: usize = 1200;
const RUN_DATAGRAMS: usize = 32;

/// Runs in flight.
const RUNS: u64 = 4;

impl Sink {
    /// A target on loopback.
    pub(crate) fn new() -> Result<Self> {
        let wire = Wire::new(UdpSocket::bind("127.0.0.1:0").context("a target")?)?;
        let (arrived, reached) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { wire, arrived, reached, stop: AtomicBool::new(false) })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.wire.socket().local_addr()?)
    }

    fn count(&self, sender: &Thread) -> Result<()> {
        let mut inbox = Inbox::new();
        while !self.stop.load(Ordering::Relaxed) {
            if !self.wire.wait(Duration::from_millis(20))? {
                continue;
            }
            let count = self.wire.receive(&mut inbox)?;
            self.arrived.fetch_add(count as u64, Ordering::Relaxed);
            for (_, datagram) in inbox.datagrams() {
                ensure!(datagram.len() == SEGMENT_BYTES, "a datagram of {} bytes arrived", datagram.len());
                let number = u64::from_le_bytes(*datagram.first_chunk().context("a number")?);
                self.reached.fetch_max(number + 1, Ordering::Relaxed);
            }
            sender.unpark();
        }
        Ok(())
    }
}

/// Keeps some runs in flight through the tunnel of `pair` to `sink` for `time`.
pub(crate) fn carry(pair: &Pair, sink: &Sink, time: Duration) -> Result<Carried> {
    let wire = Wire::new(UdpSocket::bind("127.0.0.1:0").context("a sender")?)?;
    let sender = thread::current();
    thread::scope(|scope| {
        let counting = scope.spawn(|| sink.count(&sender));
        let sent = warm_and_send(pair, sink, &wire, time);
        sink.stop.store(true, Ordering::Relaxed);
        finish(counting)?;
        sent
    })
}

fn warm_and_send(pair: &Pair, sink: &Sink, wire: &Wire, time: Duration) -> Result<Carried> {
    let next = send(pair, sink, wire, 0, time / 8)?;
    let arrived = || sink.arrived.load(Ordering::Relaxed);
    let before = (pair.cpu_secs()?, arrived(), Instant::now());
    let end = send(pair, sink, wire, next, time)?;
    let delivered = arrived() - before.1;
    ensure!(delivered > 0, "nothing arrived");
    Ok(Carried {
        sent: end - next,
        returned: delivered,
        delivered,
        wall: before.2.elapsed(),
        cpu_secs: pair.cpu_secs()?.since(before.0),
    })
}

/// Sends from number `next` on, and says which would be the next after all.
fn send(pair: &Pair, sink: &Sink, wire: &Wire, mut next: u64, time: Duration) -> Result<u64> {
    let mut run = vec![7; RUN_DATAGRAMS * SEGMENT_BYTES];
    let reached = || sink.reached.load(Ordering::Relaxed);
    let (mut seen, mut heard, mut given_up) = (reached(), Instant::now(), next);
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        let now_reached = reached();
        if now_reached > seen {
            (seen, heard) = (now_reached, Instant::now());
        } else if heard.elapsed() > LOST_AFTER {
            (given_up, heard) = (next, Instant::now());
        }
        if next - seen.max(given_up) > (RUNS - 1) * RUN_DATAGRAMS as u64 {
            thread::park_timeout(Duration::from_millis(1));
            continue;
        }
        for (datagram, number) in run.chunks_mut(SEGMENT_BYTES).zip(next..) {
            datagram[..8].copy_from_slice(&number.to_le_bytes());
        }
        if wire.send_run(&run, SEGMENT_BYTES, pair.proxy)? {
            next += RUN_DATAGRAMS as u64;
        }
    }
    // What is on its way still arrives.
    thread::sleep(Duration::from_millis(50));
    Ok(next)
}
