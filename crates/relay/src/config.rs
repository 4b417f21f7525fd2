//! What a relay is told to do. A value of [`Config`] cannot be wrong in itself: whoever makes one has checked it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::stream::HeadReads;

/// A whole process: its inbounds and how many workers serve them.
#[derive(Clone, Debug)]
pub struct Config {
    /// The doors. At least one, each with an address of its own.
    pub inbounds: Vec<Inbound>,
    /// Worker threads; a session stays on one of them.
    pub workers: NonZeroUsize,
}

/// One door: where it listens, what it speaks, and the way out for what comes in.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Where to listen; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// What clients speak here.
    pub protocol: Protocol,
    /// The way out.
    pub path: Path,
    /// A session that carries nothing for this long ends.
    pub idle: Duration,
    /// How its sockets behave.
    pub tcp: Tcp,
}

/// What clients speak at an inbound.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// SOCKS5 without authentication.
    Socks5,
    /// Shadowsocks, in the role of the server.
    Shadowsocks {
        /// The secret shared with clients.
        key: Arc<Key>,
        /// Whether requests may begin in several reads.
        heads: HeadReads,
    },
}

/// The way to a target.
#[derive(Clone, Debug)]
pub enum Path {
    /// Straight to the target.
    Direct,
    /// Through one of these Shadowsocks servers: the first that can be reached. At least one.
    Shadowsocks(Arc<[Server]>),
}

/// A Shadowsocks server on the way to a target.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its address; a name is resolved at each dial.
    pub address: Address,
    /// The secret shared with it.
    pub key: Key,
    /// Whether its answers may begin in several reads.
    pub heads: HeadReads,
}

/// Socket options of an inbound's sessions, on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// Send small writes at once (`TCP_NODELAY`).
    pub no_delay: bool,
    /// Carry the first payload in the SYN where the kernel allows it (RFC 7413).
    pub fast_open: bool,
}
