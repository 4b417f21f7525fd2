//! A network on which nobody answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use umbra_proto::shadowsocks::UnixTime;

use crate::config::Tcp;
use crate::net::Net;
use crate::net::os::{OsListener, OsNet, OsSocket};

/// Refuses every connection and remembers how it was asked for; all else is the system's.
#[derive(Default)]
pub(crate) struct Refusing {
    /// What every name has.
    addresses: Vec<SocketAddr>,
    dialled: Mutex<Vec<(SocketAddr, Tcp)>>,
}

impl Refusing {
    /// One on which every name has these addresses.
    pub(crate) fn knowing(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, ..Self::default() }
    }

    /// Who was dialled, and how.
    pub(crate) fn dialled(&self) -> Vec<(SocketAddr, Tcp)> {
        self.dialled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Net for Refusing {
    type Socket = OsSocket;
    type Listener = OsListener;

    async fn connect(&self, address: SocketAddr, tcp: Tcp) -> io::Result<OsSocket> {
        self.dialled.lock().unwrap_or_else(PoisonError::into_inner).push((address, tcp));
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn listen(&self, ip: IpAddr, tcp: Tcp) -> io::Result<OsListener> {
        OsNet.listen(ip, tcp)
    }

    fn source_towards(&self, peer: IpAddr) -> io::Result<IpAddr> {
        OsNet.source_towards(peer)
    }

    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(self.addresses.clone())
    }

    fn unix_time(&self) -> UnixTime {
        OsNet.unix_time()
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        OsNet.fill_random(bytes)
    }
}
