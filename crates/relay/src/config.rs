//! What a relay is told to do. A value of [`Config`] cannot be wrong in itself: whoever makes one has checked it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::proxy_header::Version;
use umbra_proto::shadowsocks::Generation;
use umbra_proto::shadowsocks::keyring::Keyring;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::users::{UserName, Users};

use crate::limits::SIP022_SESSION_SECS_MIN;
pub use crate::probe::{DnsProbe, HttpProbe, Probe, ProbeKind};
pub use crate::route::{
    Candidate, Deadlines, Group, Hop, Names, Parent, ParentProtocol, Path, Route, Routes, Server,
};

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
    /// What the operator calls it; rules may ask for it.
    pub name: Arc<str>,
    /// Where to listen; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// What clients speak here.
    pub protocol: Protocol,
    /// What passes here: streams, datagrams or both.
    pub mode: Mode<Udp>,
    /// The ways out.
    pub routes: Routes,
    /// Where a direct way does not lead.
    pub forbidden: Arc<Forbidden>,
    /// A session that carries nothing for this long ends.
    pub idle: Duration,
    /// How its sockets behave.
    pub tcp: Tcp,
    /// Whether client addresses come in and go out in PROXY headers.
    pub proxy_header: ProxyHeader,
}

impl Inbound {
    /// What the operator calls those who may come in, if they are told apart.
    pub fn users(&self) -> Vec<&str> {
        match &self.protocol {
            Protocol::Proxy(door) => {
                door.users.iter().flat_map(|users| users.names().map(UserName::as_str)).collect()
            }
            Protocol::Shadowsocks(door) => {
                door.keys.holders().filter_map(|holder| door.keys.name(holder)).collect()
            }
            Protocol::Tunnel { .. } => Vec::new(),
        }
    }

    /// How long an association here may carry nothing in either direction. It is [`Udp::timeout`], except that a SIP022 server has to
    /// remember its sessions for 60 seconds (SIP022, 3.2.2), or what was sent in them could be sent again.
    pub fn udp_timeout(&self) -> Option<Duration> {
        let timeout = self.mode.datagrams()?.timeout;
        let remembers = match &self.protocol {
            Protocol::Shadowsocks(door) => door.keys.method().generation() == Generation::Aead2022,
            Protocol::Proxy(_) | Protocol::Tunnel { .. } => false,
        };
        Some(if remembers { timeout.max(SIP022_SESSION_SECS_MIN) } else { timeout })
    }
}

/// Streams, datagrams or both. What is to be known for datagrams comes with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode<D> {
    /// Streams only.
    Streams,
    /// Datagrams only. At a proxy door the control connections of associations still come in.
    Datagrams(D),
    /// Both.
    Both(D),
}

impl<D> Mode<D> {
    /// Whether streams pass.
    pub fn has_streams(&self) -> bool {
        match self {
            Self::Streams | Self::Both(_) => true,
            Self::Datagrams(_) => false,
        }
    }

    /// The same, with something else to be known for datagrams.
    pub fn map<E>(self, datagrams: impl FnOnce(D) -> E) -> Mode<E> {
        match self {
            Self::Streams => Mode::Streams,
            Self::Datagrams(known) => Mode::Datagrams(datagrams(known)),
            Self::Both(known) => Mode::Both(datagrams(known)),
        }
    }

    /// What is to be known for datagrams; nothing, if none pass.
    pub fn datagrams(&self) -> Option<&D> {
        match self {
            Self::Streams => None,
            Self::Datagrams(datagrams) | Self::Both(datagrams) => Some(datagrams),
        }
    }

    /// The same, to change it.
    pub fn datagrams_mut(&mut self) -> Option<&mut D> {
        match self {
            Self::Streams => None,
            Self::Datagrams(datagrams) | Self::Both(datagrams) => Some(datagrams),
        }
    }
}

/// How an inbound carries datagrams. An association is the relay of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Where they come in, if not at [`Inbound::listen`]: a plugin may stand there. With [`Inbound::listen`] on port 0, it is the
    /// port that the kernel chose for streams.
    pub listen: Option<SocketAddr>,
    /// An association that carries nothing for this long ends. [`Inbound::udp_timeout`] is what counts.
    pub timeout: Duration,
    /// Associations of this inbound at a time; for one more, the one that was idle longest goes. As many as the process's
    /// descriptors allow, if nothing is said.
    pub associations_max: Option<NonZeroUsize>,
    /// Associations of one source address at a time, likewise.
    pub associations_per_source_max: Option<NonZeroUsize>,
    /// From whom replies are let in.
    pub filtering: Filtering,
    /// Whether datagrams that are too long for a link may be cut into fragments on the way. Else they are lost, which is what path MTU
    /// discovery (RFC 8899) relies on.
    pub fragments: bool,
}

impl Default for Udp {
    fn default() -> Self {
        Self {
            listen: None,
            timeout: Duration::from_secs(300),
            associations_max: None,
            associations_per_source_max: None,
            filtering: Filtering::EndpointIndependent,
            fragments: false,
        }
    }
}

/// From whom an association lets datagrams in (RFC 4787, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// From anybody who sends to its address: what games and calls between peers need ("full cone").
    EndpointIndependent,
    /// Only from IP addresses that the client has sent to.
    AddressDependent,
}

/// What clients speak at an inbound.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// What proxies speak, told apart by the first byte.
    Proxy(ProxyDoor),
    /// Nothing: every connection goes to this target, which is dialled at once.
    Tunnel {
        /// Where every connection goes.
        target: Address,
    },
    /// Shadowsocks, in the role of the server.
    Shadowsocks(ShadowsocksDoor),
}

/// Which proxy protocols an inbound speaks, and with whom.
#[derive(Clone, Debug)]
pub struct ProxyDoor {
    /// SOCKS4 and SOCKS4a.
    pub socks4: bool,
    /// SOCKS5.
    pub socks5: bool,
    /// HTTP: CONNECT, and requests with an absolute target.
    pub http: bool,
    /// Who may come in; everybody if there are none. SOCKS4, which has no passwords, is then refused.
    pub users: Option<Arc<Users>>,
}

impl ProxyDoor {
    /// Every protocol on one port, for anybody.
    pub const MIXED: Self = Self { socks4: true, socks5: true, http: true, users: None };
}

/// A Shadowsocks server's secrets, and what it lets pass.
#[derive(Clone, Debug)]
pub struct ShadowsocksDoor {
    /// The secrets shared with clients.
    pub keys: Arc<Keyring>,
    /// Whether requests may begin in several reads.
    pub heads: HeadReads,
    /// Whether stream ciphers must authenticate what they carry.
    pub one_time_auth: bool,
}

/// The PROXY protocol of load balancers at an inbound. As it comes, it expects no header and sends none.
#[derive(Clone, Debug, Default)]
pub struct ProxyHeader {
    /// Connections from here must begin with a header; nobody else's is read.
    pub expect_from: Arc<[IpNet]>,
    /// What a target's stream begins with, so that it learns who its client is.
    pub send: Option<Version>,
}

/// Socket options of an inbound's sessions, on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// Send small writes at once (`TCP_NODELAY`).
    pub no_delay: bool,
    /// Carry the first payload in the SYN where the kernel allows it (RFC 7413).
    pub fast_open: bool,
}
