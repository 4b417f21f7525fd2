//! The only door to the outside: sockets, names, the clock and chance, so that a simulation can stand in for all of them.

pub mod datagram;
pub mod os;

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use umbra_proto::shadowsocks::UnixTime;

use crate::config::Tcp;

/// A connected byte stream, used by readiness: wait with nothing in hand, then try.
///
/// A session has one task, so one reader and one writer at a time wait on a socket.
pub trait Socket: Send + Sync + Unpin + 'static {
    /// Waits until a read may give something: bytes, the end, or an error.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Waits until a write may take something, or fail.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// One read into `pieces` in turn. `Ok(0)` is the end; [`io::ErrorKind::WouldBlock`] means wait.
    fn try_read(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// One write of `pieces` in turn, as much as fits. [`io::ErrorKind::WouldBlock`] means wait.
    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Tells the peer that nothing more will come; the other direction goes on.
    fn shutdown_write(&self) -> io::Result<()>;

    /// Lets the peer see a reset, not an orderly end, when this is dropped or at once. Nothing else is done with it after this.
    fn reset(&self);

    /// Bytes written here of which it is not known that they have arrived where the peer can read them: [`reset`](Self::reset) may discard
    /// them. None where that cannot be known, or where nothing is discarded.
    fn undelivered_bytes(&self) -> usize {
        0
    }

    /// Waits until the connection is known to be broken: reset by the peer, or given up by the system. What has arrived stays unread, and an
    /// end of what the peer has to say breaks nothing. Where that cannot be known it waits for ever.
    fn broken(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Little or nothing will be said here for long: lets the system find out whether the peer is still there, so that a read or [`broken`]
    /// tells of its end though it never said a word of it.
    ///
    /// [`broken`]: Self::broken
    fn watch_peer(&self) {}

    /// Tells the kernel that much will be written here: keep little of it unsent.
    fn expect_bulk(&self);

    /// Our end's address.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The other end's address, where it is known.
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    /// The kernel's socket, if it is one: bytes may go from one to another without coming into this process.
    fn kernel(&self) -> Option<&os::OsSocket> {
        None
    }
}

/// An address at which connections arrive that a client has asked for.
pub trait Listener: Send + 'static {
    /// What arrives.
    type Socket: Socket;

    /// The address.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The next connection and where it comes from.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>> + Send;
}

/// The outside as sessions see it.
pub trait Net: Send + Sync + 'static {
    /// Its streams.
    type Socket: Socket;

    /// Where its streams arrive.
    type Listener: Listener<Socket = Self::Socket>;

    /// Connects to an address. No deadline: whoever waits has one.
    fn connect(&self, address: SocketAddr, tcp: Tcp)
    -> impl Future<Output = io::Result<Self::Socket>> + Send;

    /// Listens for connections at `ip`, on a port of its own choice.
    fn listen(&self, ip: IpAddr, tcp: Tcp) -> io::Result<Self::Listener>;

    /// The address that `peer` would see if we connected to it.
    fn source_towards(&self, peer: IpAddr) -> io::Result<IpAddr>;

    /// The addresses of a name, the preferred one first.
    fn resolve(&self, name: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// The wall clock.
    fn unix_time(&self) -> UnixTime;

    /// Fills `bytes` with randomness that nobody can guess.
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()>;
}
