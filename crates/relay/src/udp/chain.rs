//! The way through several hops: each gets what is for it, and in that what it is to send to the next one.
//!
//! ```text
//!  to the first hop     Shadowsocks or SOCKS5, for the address of the second
//!  in that, as payload  Shadowsocks or SOCKS5, for the address of the third
//!  …
//!  in the last of them  Shadowsocks or SOCKS5, for the target: the client's payload
//! ```
//!
//! Answers come in the same layers, where each says that it is from the next hop.

use std::net::SocketAddr;

use umbra_proto::address::{Address, AddressBlock, OwnedBlock};
use umbra_proto::shadowsocks::UnixTime;
use umbra_proto::shadowsocks::packet::{ClientSession, Datagram};
use umbra_proto::socks5::udp as socks5;

use super::dropped::Why;
use super::link::Link;
use super::random::Random;
use super::uplink::place;
use crate::net::Net;

/// The hops of a path that has several.
#[derive(Debug)]
pub(super) struct Chain {
    /// The way to the first one. What waits for it is a target's address block and the payload, which can be wrapped only once it is
    /// known where each hop is.
    pub(super) link: Link,
    layers: Box<[Layer]>,
}

/// What is spoken with one hop.
#[derive(Debug)]
struct Layer {
    speech: Speech,
    /// Where it sends to, as soon as that is known; the last one sends to the target.
    next: Option<Stop>,
}

/// In what.
#[derive(Debug)]
pub(super) enum Speech {
    /// Shadowsocks.
    Server(ClientSession),
    /// SOCKS5.
    Parent,
}

/// Where a hop is, seen from the one before it.
#[derive(Debug)]
struct Stop {
    block: OwnedBlock,
    /// The address, unless the hop before it looks up its name.
    address: Option<SocketAddr>,
}

/// Memory for what lies in the outermost layer, kept from datagram to datagram, and the chance that is in all of them.
#[derive(Default)]
pub(super) struct Scratch {
    free: Vec<Vec<u8>>,
    chances: Vec<Random>,
}

impl Chain {
    /// Through hops that are spoken with so, the first one first.
    pub(super) fn new(speeches: Vec<Speech>) -> Self {
        let layers = speeches.into_iter().map(|speech| Layer { speech, next: None }).collect();
        Self { link: Link::default(), layers }
    }

    /// It is known where the hops behind the first one are.
    pub(super) fn found(&mut self, stops: &[Address]) {
        for (layer, stop) in self.layers.iter_mut().zip(stops) {
            layer.next = Some(Stop::at(stop));
        }
    }

    /// Draws the chance for one datagram.
    pub(super) fn draw<N: Net>(&self, net: &N, scratch: &mut Scratch) -> Result<(), Why> {
        scratch.chances.clear();
        for layer in &self.layers {
            scratch.chances.push(Random::draw(net, layer.speech.chance_bytes_max())?);
        }
        Ok(())
    }

    /// Appends `payload` for `target` in all layers, with the chance that has been drawn into `scratch`.
    pub(super) fn seal(
        &mut self,
        target: AddressBlock<'_>,
        payload: &[u8],
        now: UnixTime,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) {
        let Scratch { free, chances } = scratch;
        let core = Core { target, payload, now };
        seal(&mut self.layers, chances, &core, free, out);
        // It was for this one.
        chances.clear();
    }

    /// Opens an answer where it lies. Gives whom the last hop says that it is from, and the payload.
    pub(super) fn open<'p>(
        &mut self,
        bytes: &'p mut [u8],
        now: UnixTime,
    ) -> Result<(AddressBlock<'p>, &'p [u8]), Why> {
        let (mut part, mut said) = (0..bytes.len(), 0..0);
        for Layer { speech, next } in &mut self.layers {
            let (source, payload) = speech.open(&mut bytes[part], now)?;
            if next.as_ref().is_some_and(|next| !next.is(source)) {
                return Err(Why::Stranger);
            }
            let (source, payload) = (place(source.as_bytes()), place(payload));
            (said, part) = (source.within(bytes), payload.within(bytes));
        }
        let (source, _) = AddressBlock::split(&bytes[said]).map_err(|_| Why::Malformed)?;
        Ok((source, &bytes[part]))
    }

    /// Forgets expanded keys.
    pub(super) fn cool(&mut self) {
        for layer in &mut self.layers {
            match &mut layer.speech {
                Speech::Server(session) => session.cool(),
                Speech::Parent => {}
            }
        }
    }
}

/// What is in all layers.
struct Core<'c> {
    target: AddressBlock<'c>,
    payload: &'c [u8],
    now: UnixTime,
}

/// Appends what is in `layers`. What is for a SOCKS5 proxy is written where it stays; what is to be sealed and is no payload as it is
/// has to be written elsewhere before.
fn seal(
    layers: &mut [Layer],
    chances: &[Random],
    core: &Core<'_>,
    free: &mut Vec<Vec<u8>>,
    out: &mut Vec<u8>,
) {
    let Some((Layer { speech, next }, behind)) = layers.split_first_mut() else {
        return out.extend_from_slice(core.payload);
    };
    // There is one for each layer; a layer without is left out, and nobody understands what comes of it.
    let Some((chance, chances)) = chances.split_first() else { return };
    let next = next.as_ref().map_or(core.target, |stop| stop.block.block());
    match speech {
        Speech::Parent => {
            socks5::head(next, out);
            seal(behind, chances, core, free, out);
        }
        Speech::Server(session) if behind.is_empty() => {
            session.seal(next, core.payload, core.now, |room: &mut [u8]| chance.fill(room), out);
        }
        Speech::Server(session) => {
            let mut inside = free.pop().unwrap_or_default();
            inside.clear();
            seal(behind, chances, core, free, &mut inside);
            session.seal(next, &inside, core.now, |room: &mut [u8]| chance.fill(room), out);
            free.push(inside);
        }
    }
}

impl Speech {
    /// Each layer draws before any is sealed, and several may be sealed under one key.
    fn chance_bytes_max(&self) -> usize {
        match self {
            Self::Server(session) => session.chance_bytes_max(),
            Self::Parent => 0,
        }
    }

    fn open<'p>(&mut self, bytes: &'p mut [u8], now: UnixTime) -> Result<(AddressBlock<'p>, &'p [u8]), Why> {
        match self {
            Self::Server(session) => {
                let Datagram { address, payload } = session.open(bytes, now)?;
                Ok((address, payload))
            }
            Self::Parent => Ok(socks5::open(bytes)?),
        }
    }
}

impl Stop {
    fn at(address: &Address) -> Self {
        let ip = match address {
            Address::Ip(address) => Some(*address),
            Address::Name(..) => None,
        };
        Self { block: address.into(), address: ip }
    }

    /// Whether an answer that is said to be from `source` is from here. Of a name only the port is known: whom it means, the hop before
    /// it knows.
    fn is(&self, source: AddressBlock<'_>) -> bool {
        let same = |ours: SocketAddr, theirs: SocketAddr| {
            (ours.ip().to_canonical(), ours.port()) == (theirs.ip().to_canonical(), theirs.port())
        };
        match self.address {
            Some(ours) => {
                self.block.block() == source || source.ip().is_some_and(|theirs| same(ours, theirs))
            }
            None => self.block.block().port() == source.port(),
        }
    }
}

#[cfg(test)]
mod tests;
