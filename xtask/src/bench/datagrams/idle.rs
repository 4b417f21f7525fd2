//! Associations that do nothing.

use std::io;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::flows::Echo;
use crate::bench::pair::{Each, Pair};
use crate::socks::{self, Association};

/// Opens `count` associations, sends a datagram there and back through each, and says how many KiB each process holds for one.
pub(crate) fn idle(pair: &Pair, echo: &Echo, by_socks: bool, count: usize) -> Result<Each> {
    let head = if by_socks { socks::datagram_head(echo.address()?) } else { Vec::new() };
    let datagram = [head, vec![9; 64]].concat();
    echo.answer_during(|| {
        let open = || open(pair, by_socks, &datagram);
        // What the first set up stays and is not the price of the next.
        let first = (0..16).map(|_| open()).collect::<Result<Vec<_>>>()?;
        thread::sleep(Duration::from_millis(300));
        let start = pair.resident_kib()?;
        let mut held = Vec::with_capacity(count);
        for at in 0..count {
            held.push(open().with_context(|| format!("association {at}"))?);
        }
        thread::sleep(Duration::from_millis(1500));
        let resident = pair.resident_kib()?.since(start);
        drop((first, held));
        Ok(Each { client: resident.client / count as f64, server: resident.server / count as f64 })
    })
}

/// A program, and its association if it needs one of its own.
fn open(pair: &Pair, by_socks: bool, datagram: &[u8]) -> Result<(Option<Association>, UdpSocket)> {
    let association = by_socks.then(|| socks::associate(pair.proxy)).transpose()?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(association.as_ref().map_or(pair.proxy, |association| association.relay))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut answer = vec![0; datagram.len() + 1];
    for _ in 0..5 {
        socket.send(datagram)?;
        match socket.recv(&mut answer) {
            Ok(len) => {
                ensure!(answer[..len] == *datagram, "another datagram came back than was sent");
                return Ok((association, socket));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("an answer"),
        }
    }
    anyhow::bail!("five datagrams were lost")
}
