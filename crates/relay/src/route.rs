//! The ways out, as data: a hop, a path of hops, a group of paths, and which of them a session takes.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::packet::PacketHop;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::users::Credentials as Login;

use crate::config::Mode;
use crate::limits::{CONNECT_SECS_MAX, NEGOTIATE_SECS_MAX};
use crate::tls::Tls;

/// Which route a session takes.
#[derive(Clone, Debug)]
pub struct Routes {
    /// The way of every session.
    otherwise: Route,
}

/// A way out.
#[derive(Clone, Debug)]
pub enum Route {
    /// This path and no other.
    Path(Arc<Path>),
    /// One of several paths.
    Group(Group),
}

/// The proxies on the way to a target, in the order in which they are dialled. Without any, the way is direct.
#[derive(Debug)]
pub struct Path {
    /// What the operator calls it.
    pub name: Arc<str>,
    /// The proxies.
    pub hops: Box<[Hop]>,
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// What datagrams need of the first hop, made once.
    packets: OnceLock<Option<Arc<PacketHop>>>,
}

/// How long the steps along a path may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Until a connection to one address stands.
    pub connect: Duration,
    /// Until a proxy has agreed, TLS included.
    pub negotiate: Duration,
}

/// One proxy on the way.
#[derive(Clone, Debug)]
pub enum Hop {
    /// A Shadowsocks server.
    Shadowsocks(Server),
    /// A proxy that is asked in the open.
    Parent(Parent),
}

/// A proxy that is asked in SOCKS or HTTP.
#[derive(Clone, Debug)]
pub struct Parent {
    /// Its address; a name is resolved at each dial, by whoever connects to it.
    pub address: Address,
    /// What it speaks.
    pub protocol: ParentProtocol,
    /// Who resolves the names of what is behind it.
    pub names: Names,
    /// What protects the connection to it, if anything does.
    pub tls: Option<Tls>,
}

/// What a parent speaks, and who we are to it.
#[derive(Clone, Debug)]
pub enum ParentProtocol {
    /// SOCKS5, with a login should it ask for one.
    Socks5(Option<Login>),
}

/// Who resolves the name of what is behind a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The parent.
    PassedOn,
    /// We do; the parent is told an address.
    ResolvedHere,
}

/// A Shadowsocks server on the way to a target.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its address; a name is resolved at each dial.
    pub address: Address,
    /// What may pass through it, and where datagrams for it are sent: a plugin may stand at `address`, which carries streams only.
    pub mode: Mode<Address>,
    /// The secret shared with it, and with those on the way to it.
    pub credentials: Credentials,
    /// Whether its answers may begin in several reads.
    pub heads: HeadReads,
    /// Whether stream ciphers authenticate what they carry.
    pub one_time_auth: bool,
}

/// Paths of which a session takes one: a random one first, then the others in order, until a target is reached. They can be replaced
/// while sessions run; those keep theirs. Clones are the same group.
#[derive(Clone, Debug)]
pub struct Group(Arc<RwLock<Arc<[Arc<Path>]>>>);

impl Routes {
    /// The route of a session.
    pub(crate) fn route(&self) -> &Route {
        &self.otherwise
    }

    /// The way of every session that no rule is for.
    pub fn otherwise(&self) -> &Route {
        &self.otherwise
    }
}

impl From<Route> for Routes {
    fn from(otherwise: Route) -> Self {
        Self { otherwise }
    }
}

impl Route {
    /// Straight to the target.
    pub fn direct() -> Self {
        Self::Path(Arc::new(Path::direct()))
    }

    /// Through `parent`.
    pub fn parent(parent: Parent) -> Self {
        Self::Path(Arc::new(Path::new("parent", [Hop::Parent(parent)])))
    }

    /// Through one of `servers`, a random one first.
    pub fn servers(servers: Vec<Server>) -> Self {
        Self::Group(Group::of_servers(servers))
    }

    /// Whether it leads straight to the target, whatever happens.
    pub fn is_direct(&self) -> bool {
        match self {
            Self::Path(path) => path.hops.is_empty(),
            Self::Group(_) => false,
        }
    }
}

impl Path {
    /// These hops, with the usual deadlines.
    pub fn new(name: impl Into<Arc<str>>, hops: impl Into<Box<[Hop]>>) -> Self {
        let deadlines = Deadlines { connect: CONNECT_SECS_MAX, negotiate: NEGOTIATE_SECS_MAX };
        Self { name: name.into(), hops: hops.into(), deadlines, packets: OnceLock::new() }
    }

    /// No hop: straight to the target.
    pub fn direct() -> Self {
        Self::new("direct", [])
    }

    /// The keys of a lone Shadowsocks server, expanded for datagrams; nothing for any other path.
    pub(crate) fn packet_hop(&self) -> Option<&Arc<PacketHop>> {
        let expand = || match &*self.hops {
            [Hop::Shadowsocks(server)] => {
                Some(Arc::new(PacketHop::new(&server.credentials, server.one_time_auth)))
            }
            _ => None,
        };
        self.packets.get_or_init(expand).as_ref()
    }

    /// Whether streams pass.
    pub(crate) fn has_streams(&self) -> bool {
        self.hops.iter().all(|hop| match hop {
            Hop::Shadowsocks(server) => server.mode.has_streams(),
            Hop::Parent(_) => true,
        })
    }

    /// Whether datagrams pass.
    pub(crate) fn has_datagrams(&self) -> bool {
        match &*self.hops {
            [] => true,
            [Hop::Shadowsocks(server)] => server.mode.datagrams().is_some(),
            [Hop::Parent(Parent { protocol: ParentProtocol::Socks5(_), .. })] => true,
            _ => false,
        }
    }
}

impl Hop {
    /// Where it is.
    pub fn address(&self) -> &Address {
        match self {
            Self::Shadowsocks(server) => &server.address,
            Self::Parent(parent) => &parent.address,
        }
    }
}

impl Parent {
    /// A SOCKS5 proxy that resolves names itself.
    pub fn socks5(address: Address, login: Option<Login>) -> Self {
        Self { address, protocol: ParentProtocol::Socks5(login), names: Names::PassedOn, tls: None }
    }
}

impl Group {
    /// A group of `paths`. Without one, no target can be reached.
    pub fn new(paths: Vec<Path>) -> Self {
        Self(Arc::new(RwLock::new(share(paths))))
    }

    /// A path for each of `servers`.
    pub fn of_servers(servers: Vec<Server>) -> Self {
        Self::new(paths_through(servers))
    }

    /// Puts `paths` in the place of those that were there, for all clones and every session that begins after this.
    pub fn replace(&self, paths: Vec<Path>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = share(paths);
    }

    /// Puts a path for each of `servers` in the place of those that were there.
    pub fn replace_servers(&self, servers: Vec<Server>) {
        self.replace(paths_through(servers));
    }

    /// The paths of this moment.
    pub fn snapshot(&self) -> Arc<[Arc<Path>]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn share(paths: Vec<Path>) -> Arc<[Arc<Path>]> {
    paths.into_iter().map(Arc::new).collect()
}

/// Each server is a path of its own, named after its place in the list.
fn paths_through(servers: Vec<Server>) -> Vec<Path> {
    let path = |(index, server)| Path::new(format!("servers[{index}]"), [Hop::Shadowsocks(server)]);
    servers.into_iter().enumerate().map(path).collect()
}
