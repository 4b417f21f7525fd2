//! What an answer says: whom it is from, and what the client is to get.

use std::net::SocketAddr;

use umbra_proto::address::{AddressBlock, IpBlock};
use umbra_proto::shadowsocks::UnixTime;
use umbra_proto::shadowsocks::packet::Datagram;
use umbra_proto::socks5::udp as socks5;

use super::dropped::Why;
use super::way::Way;
use crate::config::Udp;

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

/// Opens what has come from `source` by `way`, where it lies. Nothing changes unless it may come.
pub(super) fn open<'p>(
    way: &mut Way,
    source: SocketAddr,
    udp: &Udp,
    bytes: &'p mut [u8],
    now: UnixTime,
) -> Result<(Source<'p>, &'p [u8]), Why> {
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
