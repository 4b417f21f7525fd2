//! Flows of datagrams there and back, each with so many in flight.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::wire::{Inbox, Wire};
use crate::bench::bulk::{finish, index};
use crate::bench::pair::{Each, Pair};
use crate::socks::{self, Association};

/// A target that sends everything back.
#[derive(Debug)]
pub(crate) struct Echo {
    wire: Wire,
    /// Datagrams that have come.
    arrived: AtomicU64,
    stop: AtomicBool,
}

/// A program with an association of its own.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Connected to the proxy's relay.
    pub(crate) wire: Wire,
    /// The next datagram's number.
    next: u64,
    /// One more than the highest number that has come back. What is missing before it has been lost.
    returned: u64,
    /// Datagrams that have come back.
    received: u64,
    /// When one last did.
    heard: Instant,
    /// Ends with the flow.
    _association: Association,
}

/// What was sent, and what became of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carried {
    /// Datagrams that the flows sent.
    pub(crate) sent: u64,
    /// Those that came back to them.
    pub(crate) returned: u64,
    /// Those that reached the target, and those that came back.
    pub(crate) delivered: u64,
    /// How long it took.
    pub(crate) wall: Duration,
    /// CPU seconds of the proxies.
    pub(crate) cpu_secs: Each,
}

/// How long nothing must come back before all that is in flight is lost: longer than the longest queue.
pub(crate) const LOST_AFTER: Duration = Duration::from_millis(250);

impl Echo {
    /// A target on loopback.
    pub(crate) fn new() -> Result<Self> {
        let wire = Wire::new(UdpSocket::bind("127.0.0.1:0").context("a target")?)?;
        Ok(Self { wire, arrived: AtomicU64::new(0), stop: AtomicBool::new(false) })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.wire.socket().local_addr()?)
    }

    /// Datagrams that have come.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Answers on another thread while `work` runs.
    pub(crate) fn answer_during<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        thread::scope(|scope| {
            let answering = scope.spawn(|| self.answer());
            let done = work();
            self.stop.store(true, Ordering::Relaxed);
            finish(answering)?;
            done
        })
    }

    fn answer(&self) -> Result<()> {
        let mut inbox = Inbox::new();
        while !self.stop.load(Ordering::Relaxed) {
            if !self.wire.wait(Duration::from_millis(20))? {
                continue;
            }
            let count = self.wire.receive(&mut inbox)?;
            self.arrived.fetch_add(count as u64, Ordering::Relaxed);
            self.wire.send(inbox.datagrams().map(|(from, payload)| (Some(from), payload)))?;
        }
        Ok(())
    }
}

impl Flow {
    /// A new association of the client's.
    pub(crate) fn open(proxy: SocketAddr) -> Result<Self> {
        let association = socks::associate(proxy)?;
        let socket = UdpSocket::bind("127.0.0.1:0").context("a flow")?;
        socket.connect(association.relay)?;
        let (wire, heard) = (Wire::new(socket)?, Instant::now());
        Ok(Self { wire, next: 0, returned: 0, received: 0, heard, _association: association })
    }

    /// Sends until `window` are in flight. The numbers go into the payloads of `sheet`.
    fn fill(&mut self, window: usize, sheet: &mut Sheet) -> Result<()> {
        let in_flight = usize::try_from(self.next - self.returned).unwrap_or(usize::MAX);
        let count = window.saturating_sub(in_flight);
        let datagrams = sheet.number(count, self.next);
        self.next += self.wire.send(datagrams)? as u64;
        Ok(())
    }

    fn hear(&mut self, inbox: &mut Inbox, sheet: &Sheet) -> Result<()> {
        if self.wire.receive(inbox)? == 0 {
            return Ok(());
        }
        self.heard = Instant::now();
        for (_, datagram) in inbox.datagrams() {
            let number = sheet.number_of(datagram)?;
            ensure!(number < self.next, "datagram {number} came back and was never sent");
            self.received += 1;
            self.returned = self.returned.max(number + 1);
        }
        Ok(())
    }

    /// What has not come back by now does not come any more.
    fn give_up(&mut self) {
        self.returned = self.next;
        self.heard = Instant::now();
    }
}

/// Datagrams of one length for one target, to be numbered and sent.
#[derive(Debug)]
pub(crate) struct Sheet {
    bytes: Vec<u8>,
    head_bytes: usize,
    datagram_bytes: usize,
}

impl Sheet {
    /// Room for `window` datagrams with `payload_bytes` each.
    pub(crate) fn new(target: SocketAddr, payload_bytes: usize, window: usize) -> Self {
        let head = socks::datagram_head(target);
        let payload: Vec<u8> = (0..=250).cycle().take(payload_bytes).collect();
        let datagram = [&head[..], &payload].concat();
        Self { bytes: datagram.repeat(window), head_bytes: head.len(), datagram_bytes: datagram.len() }
    }

    /// The first `count`, numbered from `first`.
    pub(crate) fn number(
        &mut self,
        count: usize,
        first: u64,
    ) -> impl Iterator<Item = (Option<SocketAddr>, &[u8])> {
        let len = self.datagram_bytes;
        for (datagram, number) in self.bytes.chunks_mut(len).take(count).zip(first..) {
            datagram[self.head_bytes..][..8].copy_from_slice(&number.to_le_bytes());
        }
        self.bytes.chunks(len).take(count).map(|datagram| (None, datagram))
    }

    /// The number of one that has come back, which has the same length still.
    pub(crate) fn number_of(&self, datagram: &[u8]) -> Result<u64> {
        let (expected, len) = (self.datagram_bytes, datagram.len());
        ensure!(len == expected, "a datagram of {expected} bytes came back with {len}");
        let number = datagram[self.head_bytes..].first_chunk().context("a number")?;
        Ok(u64::from_le_bytes(*number))
    }
}

/// Keeps `window` datagrams of `payload_bytes` in flight on each of so many flows for `time`.
pub(crate) fn carry(
    pair: &Pair,
    echo: &Echo,
    count: usize,
    window: usize,
    payload_bytes: usize,
    time: Duration,
) -> Result<Carried> {
    let mut sheet = Sheet::new(echo.address()?, payload_bytes, window);
    let mut flows = (0..count).map(|_| Flow::open(pair.proxy)).collect::<Result<Vec<_>>>()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (at, flow) in flows.iter().enumerate() {
        epoll.add(flow.wire.socket(), EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
    }
    echo.answer_during(|| {
        // What the first datagrams set up is not the price of those that follow.
        run(&mut flows, &epoll, window, &mut sheet, time / 8)?;
        let before = (pair.cpu_secs()?, totals(&flows), echo.arrived(), Instant::now());
        run(&mut flows, &epoll, window, &mut sheet, time)?;
        let (cpu, (sent, returned), arrived, started) = before;
        let (sent_after, returned_after) = totals(&flows);
        let returned = returned_after - returned;
        Ok(Carried {
            sent: sent_after - sent,
            returned,
            delivered: echo.arrived() - arrived + returned,
            wall: started.elapsed(),
            cpu_secs: pair.cpu_secs()?.since(cpu),
        })
    })
}

fn totals(flows: &[Flow]) -> (u64, u64) {
    let sum = |of: fn(&Flow) -> u64| flows.iter().map(of).sum();
    (sum(|flow| flow.next), sum(|flow| flow.received))
}

fn run(flows: &mut [Flow], epoll: &Epoll, window: usize, sheet: &mut Sheet, time: Duration) -> Result<()> {
    let mut inbox = Inbox::new();
    let mut events = [EpollEvent::empty(); 64];
    let (mut now, mut checked) = (Instant::now(), Instant::now());
    let deadline = now + time;
    for flow in &mut *flows {
        flow.heard = now;
        flow.fill(window, sheet)?;
    }
    while now < deadline {
        let ready = epoll.wait(&mut events, 20u16)?;
        for flow in events[..ready].iter().map(index) {
            let flow = &mut flows[flow];
            flow.hear(&mut inbox, sheet)?;
            flow.fill(window, sheet)?;
        }
        now = Instant::now();
        if now - checked > LOST_AFTER / 10 {
            checked = now;
            for flow in flows.iter_mut().filter(|flow| now - flow.heard > LOST_AFTER) {
                flow.give_up();
                flow.fill(window, sheet)?;
            }
        }
    }
    // Whatever is still on its way is neither lost nor part of the next run.
    while epoll.wait(&mut events, 100u16)? > 0 {
        for flow in flows.iter_mut() {
            flow.hear(&mut inbox, sheet)?;
        }
    }
    flows.iter_mut().for_each(Flow::give_up);
    Ok(())
}
