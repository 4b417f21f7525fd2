//! What is spoken in datagrams at a door, with what all workers share for it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use umbra_proto::shadowsocks::one_time_auth::OneTimeAuth;
use umbra_proto::shadowsocks::packet::PacketDoor;

use super::directory::Directory;
use super::displaced::Displaced;
use super::permits::Permits;
use crate::config::{Protocol, ShadowsocksDoor};

/// What is spoken.
#[derive(Debug)]
pub(crate) enum Front {
    /// SOCKS5, with whoever holds a control connection.
    Proxy(Permits),
    /// Nothing: every datagram goes to the target with this address block.
    Tunnel(Box<[u8]>),
    /// Shadowsocks, as the server.
    Shadowsocks {
        /// Keys, and whose packets are whose.
        packets: Box<PacketDoor>,
        /// Where several workers share the door: who has whom.
        directory: Option<Directory>,
        /// Whose packets must not come again though their association has gone.
        displaced: Displaced,
    },
}

impl Front {
    /// What is spoken in datagrams where `protocol` is spoken in streams.
    pub(crate) fn new(protocol: &Protocol, workers: Workers) -> Self {
        match protocol {
            Protocol::Proxy(_) => Self::Proxy(Permits::default()),
            Protocol::Tunnel { target } => {
                let mut block = Vec::with_capacity(target.encoded_len());
                target.encode(&mut block);
                Self::Tunnel(block.into())
            }
            Protocol::Shadowsocks(door) => {
                let directory = match workers {
                    Workers::One => None,
                    Workers::Several(_) => Some(Directory::default()),
                };
                let packets = Box::new(PacketDoor::new(Arc::clone(&door.keys), one_time_auth(door)));
                Self::Shadowsocks { packets, directory, displaced: Displaced::default() }
            }
        }
    }
}

/// Who takes a door's datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One worker.
    One,
    /// So many, each with a socket of its own at the door's address.
    Several(NonZeroUsize),
}

impl Workers {
    /// How many they are.
    pub(super) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Several(count) => count.get(),
        }
    }
}

impl From<usize> for Workers {
    fn from(count: usize) -> Self {
        NonZeroUsize::new(count).filter(|count| count.get() > 1).map_or(Self::One, Self::Several)
    }
}

/// What a server demands of methods without tags.
fn one_time_auth(door: &ShadowsocksDoor) -> OneTimeAuth {
    if door.one_time_auth { OneTimeAuth::Demanded } else { OneTimeAuth::Honoured }
}
