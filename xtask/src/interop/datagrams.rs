//! What is tried with datagrams through every pair of ends.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::pairs::Ends;
use super::payload;
use crate::peers::Peer;
use crate::socks::{self, Association};

/// A datagram may be lost, on loopback as well.
const TRIES: usize = 4;

/// How long one try waits.
const PATIENCE: Duration = Duration::from_millis(700);

/// Datagrams of many lengths, there and back.
pub(super) fn lengths(ends: &Ends<'_>) -> Result<()> {
    there_and_back(ends.proxy, &lengths_of(ends))
}

/// Datagrams of these lengths through the SOCKS5 door at `proxy`.
pub(super) fn there_and_back(proxy: SocketAddr, lengths: &[usize]) -> Result<()> {
    with_targets(&[Ipv4Addr::LOCALHOST.into()], |targets| {
        let program = Program::open(proxy)?;
        for (seed, len) in lengths.iter().copied().enumerate() {
            let payload = payload(len, seed);
            let (from, came) = program.ask(&socks::address_block(targets[0]), &payload)?;
            ensure!(came == payload, "{} other bytes came back for {len}", came.len());
            ensure!(from == Some(targets[0]), "the answer of {} comes from {from:?}", targets[0]);
        }
        Ok(())
    })
}

/// What the ends of a pair let pass, as they are by default.
fn lengths_of(ends: &Ends<'_>) -> Vec<usize> {
    let peers = [ends.leg.client, ends.leg.server];
    let mut lengths = vec![1, 512, 1400];
    // The one drops what is longer than its MTU, and the other panics.
    if !peers.iter().any(|peer| matches!(peer, Peer::ShadowsocksLibev | Peer::V2ray)) {
        // A block of the cipher for every bit takes longer than a try waits.
        let is_slow = ends.leg.method.name.ends_with("-cfb1");
        lengths.push(if is_slow { LONG_BYTES / 10 } else { LONG_BYTES });
    }
    // Nothing is a datagram as well, and the others drop it.
    if peers == [Peer::Umbra; 2] {
        lengths.push(0);
    }
    lengths
}

/// Far longer than any link, but for loopback.
const LONG_BYTES: usize = 20_000;

/// One association, several targets, of both families and by name.
pub(super) fn targets(ends: &Ends<'_>) -> Result<()> {
    let mut ips: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        ips.push(Ipv6Addr::LOCALHOST.into());
    }
    with_targets(&ips, |targets| {
        let program = Program::open(ends.proxy)?;
        for round in 0..3 {
            for (at, target) in targets.iter().enumerate() {
                let payload = payload(100, 10 * round + at);
                let (from, came) = program.ask(&socks::address_block(*target), &payload)?;
                let is_same = (from, &came) == (Some(*target), &payload);
                ensure!(is_same, "{target}: something else came from {from:?}");
            }
        }
        let payload = payload(100, 99);
        let (_, came) = program.ask(&socks::name_block("localhost", targets[0].port())?, &payload)?;
        ensure!(came == payload, "something else came back from a name");
        Ok(())
    })
}

/// Somebody who was never sent anything answers, and the answer says who that was.
pub(super) fn third_party(ends: &Ends<'_>) -> Result<()> {
    let (target, other) = (bind(Ipv4Addr::LOCALHOST.into())?, bind(Ipv4Addr::LOCALHOST.into())?);
    let program = Program::open(ends.proxy)?;
    let mut came = [0; 64];
    let block = socks::address_block(target.local_addr()?);
    for _ in 0..TRIES {
        program.send(&block, b"where am I seen?")?;
        let Some((_, seen)) = receive(&target, &mut came)? else { continue };
        for _ in 0..TRIES {
            other.send_to(b"here", seen)?;
            if let Some((from, answer)) = program.hear()? {
                ensure!(answer == b"here", "something else came");
                ensure!(from == Some(other.local_addr()?), "the answer is said to come from {from:?}");
                return Ok(());
            }
        }
        bail!("no answer came through")
    }
    bail!("nothing reached the target")
}

/// Somebody with an association.
struct Program {
    association: Association,
    socket: UdpSocket,
}

impl Program {
    fn open(proxy: SocketAddr) -> Result<Self> {
        let association = socks::associate(proxy)?;
        let socket = bind(if association.relay.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        })?;
        Ok(Self { association, socket })
    }

    fn send(&self, block: &[u8], payload: &[u8]) -> Result<()> {
        let datagram = [&[0; 3], block, payload].concat();
        self.socket.send_to(&datagram, self.association.relay).context("send to the relay")?;
        Ok(())
    }

    /// Sends until an answer comes that is as long as it should be: an earlier one may be late.
    fn ask(&self, block: &[u8], payload: &[u8]) -> Result<(Option<SocketAddr>, Vec<u8>)> {
        for _ in 0..TRIES {
            self.send(block, payload)?;
            let asked = Instant::now();
            while asked.elapsed() < PATIENCE {
                match self.hear()? {
                    Some((from, came)) if came.len() == payload.len() => return Ok((from, came)),
                    Some(_) => {}
                    None => break,
                }
            }
        }
        bail!("no answer to {} bytes after {TRIES} tries", payload.len())
    }

    fn hear(&self) -> Result<Option<(Option<SocketAddr>, Vec<u8>)>> {
        let mut datagram = vec![0; 65_536];
        let Some((len, _)) = receive(&self.socket, &mut datagram)? else { return Ok(None) };
        let (from, payload) = socks::read_datagram(&datagram[..len])?;
        Ok(Some((from, payload.to_vec())))
    }
}

fn bind(ip: IpAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0)).context("a socket on loopback")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Result<Option<(usize, SocketAddr)>> {
    match socket.recv_from(buffer) {
        Ok(received) => Ok(Some(received)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        // Word of an earlier datagram.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error).context("receive"),
    }
}

/// Targets at `ips` that send everything back while `work` runs.
fn with_targets(ips: &[IpAddr], work: impl FnOnce(&[SocketAddr]) -> Result<()>) -> Result<()> {
    let sockets = ips.iter().map(|ip| bind(*ip)).collect::<Result<Vec<_>>>()?;
    let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let is_over = &is_over;
        for socket in sockets {
            scope.spawn(move || {
                let mut datagram = vec![0; 65_536];
                socket.set_read_timeout(Some(Duration::from_millis(50))).ok();
                while !is_over.load(Ordering::Relaxed) {
                    if let Ok(Some((len, from))) = receive(&socket, &mut datagram) {
                        // Whoever misses it says so.
                        socket.send_to(&datagram[..len], from).ok();
                    }
                }
            });
        }
        let done = work(&addresses);
        is_over.store(true, Ordering::Relaxed);
        done
    })
}
