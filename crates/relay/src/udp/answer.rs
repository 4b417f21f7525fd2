//! What an answer says: whom it is from, and what the client is to get; and how it gets it.

use std::net::SocketAddr;

use umbra_proto::address::{AddressBlock, IpBlock};
use umbra_proto::shadowsocks::UnixTime;
use umbra_proto::shadowsocks::packet::{Datagram, PacketError, Uncovered};
use umbra_proto::socks5::udp as socks5;

use super::association::Face;
use super::core::Moment;
use super::dropped::Why;
use super::front::Front;
use super::outbox::Course;
use super::outside::Outside;
use super::random;
use super::way::Way;
use crate::config::Udp;
use crate::door::Door;
use crate::net::Net;
use crate::net::datagram::Datagrams;

/// Whom an answer is from.
pub(super) enum Source<'p> {
    /// It came from there.
    Address(IpBlock),
    /// A hop says so.
    Told(AddressBlock<'p>),
}

impl Source<'_> {
    pub(super) fn block(&self) -> AddressBlock<'_> {
        match self {
            Self::Address(block) => block.block(),
            Self::Told(block) => *block,
        }
    }
}

/// What has come back.
pub(super) enum Arrived<'p> {
    /// A datagram as it has come, and from where.
    Whole(SocketAddr, &'p mut [u8]),
    /// A server's packet that has been looked at to see whose it is.
    Uncovered(Uncovered<'p>),
}

/// Opens what has come by `way`, where it lies. Nothing changes unless it may come.
pub(super) fn open<'p>(
    way: &mut Way,
    arrived: Arrived<'p>,
    udp: &Udp,
    now: UnixTime,
) -> Result<(Source<'p>, &'p [u8]), Why> {
    let (source, bytes) = match (arrived, &mut *way) {
        (Arrived::Whole(source, bytes), _) => (source, bytes),
        (Arrived::Uncovered(packet), Way::Server(through)) => {
            let opened = through
                .session
                .open_uncovered(packet, now)
                .map_err(|why| if why == PacketError::OtherSession { Why::Stranger } else { why.into() });
            let Datagram { address, payload } = opened?;
            return Ok((Source::Told(address), payload));
        }
        (Arrived::Uncovered(_), _) => return Err(Why::Stranger),
    };
    match way {
        Way::Direct(direct) if direct.accepts(source.ip(), udp.filtering) => {
            Ok((Source::Address(IpBlock::from(source)), bytes))
        }
        Way::Direct(_) => Err(Why::Stranger),
        Way::Server(through) => {
            let Datagram { address, payload } = through.session.open(bytes, now)?;
            Ok((Source::Told(address), payload))
        }
        Way::Parent(_) => {
            let (source, payload) = socks5::open(bytes)?;
            Ok((Source::Told(source), payload))
        }
        Way::Chain(chain) => {
            let (source, payload) = chain.open(bytes, now)?;
            Ok((Source::Told(source), payload))
        }
        // Only the client can say whom it is from.
        Way::Relay(..) => Ok((Source::Address(IpBlock::from(source)), bytes)),
    }
}

/// Puts the client's part of an answer on its way, as the client is spoken with.
pub(super) fn give<N: Net, D: Datagrams>(
    face: &mut Face,
    door: &Door<N>,
    outside: &mut Outside<D>,
    course: Course,
    source: &Source<'_>,
    payload: &[u8],
    now: Moment,
) -> Result<(), Why> {
    match face {
        Face::Socks(claim) => {
            claim.count();
            outside.push(course, |out| {
                socks5::head(source.block(), out);
                out.extend_from_slice(payload);
            });
        }
        Face::Probe(answer) => {
            if let Some(answer) = answer.take() {
                // Whoever asked may wait no more.
                let _ = answer.send(payload.to_vec());
            }
        }
        Face::Tunnel | Face::Relayed { .. } => outside.push(course, |out| out.extend_from_slice(payload)),
        Face::Shadowsocks(session) => {
            let Some(Front::Shadowsocks { packets, .. }) = &door.front else { return Ok(()) };
            let chance = random::Source::draw(&door.net, session.chance_bytes(packets))?;
            outside.push(course, |out| {
                session.seal(packets, source.block(), payload, now.unix, &chance, out);
            });
        }
    }
    Ok(())
}
