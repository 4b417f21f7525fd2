//! A server with many associations, of which few are at work: what it costs to find one among the others.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::resource::{Resource, getrlimit};
use umbra_proto::address::IpBlock;
use umbra_proto::shadowsocks::UnixTime;
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::packet::{ClientSession, PacketHop, SessionId};

use super::flows::{Echo, LOST_AFTER};
use super::wire::{Inbox, Wire};
use crate::bench::pair::Pair;
use crate::peers::Method;

/// What a datagram costs the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Searched {
    /// CPU seconds for each with [`AT_WORK`] associations.
    pub(crate) among_few: f64,
    /// The same with many more that do nothing.
    pub(crate) among_many: f64,
    /// Sockets that the server holds then.
    pub(crate) held: usize,
}

/// Associations that carry something.
pub(crate) const AT_WORK: usize = 50;

const WINDOW: usize = 128;
const PAYLOAD_BYTES: usize = 64;

/// As many as were asked for, or as the machine's ports and this process's descriptors allow: the proxies inherit those, and ours keeps
/// a third of them for associations, half of which one address may have.
pub(crate) fn possible(wanted: usize) -> Result<usize> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let ends = range.split_whitespace().map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let ports = ends.last().zip(ends.first()).map_or(0, |(last, first)| last.saturating_sub(*first));
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    Ok(wanted.min(ports.saturating_sub(SPARE)).min(descriptors.saturating_sub(SPARE) / 6))
}

/// What everything else on the machine needs.
const SPARE: usize = 2000;

/// Measures [`AT_WORK`] associations alone, and again among `count`. All are SIP022 sessions of one socket.
pub(crate) fn search(
    pair: &Pair,
    echo: &Echo,
    method: Method,
    count: usize,
    time: Duration,
) -> Result<Searched> {
    let mut crowd = Crowd::new(pair, method, echo.address()?)?;
    echo.answer_during(|| {
        crowd.grow(AT_WORK)?;
        let among_few = crowd.work(pair, time)?;
        crowd.grow(count)?;
        let held = pair.server_descriptors()?;
        ensure!(held >= count, "the server holds {held} sockets for {count} associations");
        let among_many = crowd.work(pair, time)?;
        Ok(Searched { among_few, among_many, held })
    })
}

/// Sessions of one socket with one server.
struct Crowd {
    wire: Wire,
    hop: Arc<PacketHop>,
    sessions: Vec<ClientSession>,
    target: IpBlock,
    packets: Vec<u8>,
    inbox: Inbox,
}

impl Crowd {
    fn new(pair: &Pair, method: Method, target: SocketAddr) -> Result<Self> {
        let known = method.name.parse().map_err(|_| anyhow!("{} is no method of ours", method.name))?;
        let credentials = Credentials::from_password(known, method.password);
        let credentials = credentials.map_err(|error| anyhow!("{error}"))?;
        let socket = UdpSocket::bind("127.0.0.1:0").context("a socket for all sessions")?;
        socket.connect(pair.server_address)?;
        Ok(Self {
            wire: Wire::new(socket)?,
            hop: Arc::new(PacketHop::new(&credentials, false)),
            sessions: Vec::new(),
            target: target.into(),
            packets: Vec::new(),
            inbox: Inbox::new(),
        })
    }

    /// Adds sessions, each of which is answered once.
    fn grow(&mut self, count: usize) -> Result<()> {
        while self.sessions.len() < count {
            let first = self.sessions.len();
            let more = WINDOW.min(count - first);
            self.sessions.extend((first..first + more).map(|number| {
                // Spread as chance spreads them.
                let id = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                ClientSession::new(Arc::clone(&self.hop), SessionId(id.to_le_bytes()))
            }));
            self.send(first..first + more)?;
            let answered = self.hear(more)?;
            ensure!(answered * 2 > more, "{answered} of {more} new sessions are answered beside {first}");
        }
        Ok(())
    }

    /// Keeps datagrams of the first sessions in flight, and says how many CPU seconds the server took for each that came back.
    fn work(&mut self, pair: &Pair, time: Duration) -> Result<f64> {
        let (before, started) = (pair.cpu_secs()?, Instant::now());
        let (mut next, mut answered) = (0, 0);
        while started.elapsed() < time {
            // Half a window at a time, so that the server always has something to do.
            self.send((next..next + WINDOW / 2).map(|number| number % AT_WORK))?;
            next += WINDOW / 2;
            answered += self.hear(if next > WINDOW / 2 { WINDOW / 2 } else { 0 })?;
        }
        answered += self.hear(WINDOW / 2)?;
        ensure!(answered * 10 > next * 9, "{answered} of {next} datagrams came back");
        // Each is one there and one back.
        Ok(pair.cpu_secs()?.since(before).server / (2 * answered) as f64)
    }

    /// Sends a datagram of each of these sessions.
    fn send(&mut self, numbers: impl Iterator<Item = usize>) -> Result<()> {
        self.packets.clear();
        let mut ends = Vec::with_capacity(WINDOW);
        for number in numbers {
            let payload = [7; PAYLOAD_BYTES];
            // This method draws nothing for a packet.
            let fill = |random: &mut [u8]| random.fill(9);
            self.sessions[number].seal(self.target.block(), &payload, now(), fill, &mut self.packets);
            ends.push(self.packets.len());
        }
        let mut start = 0;
        let packets = ends.into_iter().map(|end| {
            let packet = &self.packets[start..end];
            start = end;
            (None, packet)
        });
        self.wire.send(packets)?;
        Ok(())
    }

    /// Takes `count` answers, or as many as come.
    fn hear(&mut self, count: usize) -> Result<usize> {
        let mut heard = 0;
        while heard < count && self.wire.wait(LOST_AFTER)? {
            heard += self.wire.receive(&mut self.inbox)?;
        }
        Ok(heard)
    }
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(since.as_secs())
}
