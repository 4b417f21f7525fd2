//! The ways out, as data: a hop, a path of hops, a group of paths, and the rules by which a session takes one of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use umbra_proto::address::Address;
use umbra_proto::http::client::BasicLogin;
pub use umbra_proto::request::Names;
use umbra_proto::request::{Command, Refusal};
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::packet::PacketHop;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::socks4::client::UserId;
use umbra_proto::users::Credentials as Login;

use crate::config::Mode;
use crate::failure::At;
use crate::group::{Member, Policy, Settings, Shared, Status};
use crate::limits::{CONNECT_SECS_MAX, NEGOTIATE_SECS_MAX};
use crate::probe::Probe;
use crate::router::{Decision, Query, Router, Verdict};
use crate::tally::{Counts, Tally};
use crate::tls::Tls;

/// Which route a session takes: rules in order, and a route where none fits. Clones share them.
#[derive(Clone, Debug)]
pub struct Routes(Arc<Router<Route>>);

/// A way out, or none.
#[derive(Clone, Debug)]
pub enum Route {
    /// This path and no other.
    Path(Arc<Path>),
    /// One of several paths, and another one where that leads nowhere.
    Group(Arc<Group>),
    /// Nowhere, for this reason.
    Refuse(Refusal),
}

/// Paths that lead to the same places, and what is known of their health. Streams and datagrams are counted apart: a path may carry
/// the ones and lose the others. The members can be replaced while sessions run; those keep theirs.
#[derive(Debug)]
pub struct Group {
    /// What the operator calls it.
    pub name: Arc<str>,
    /// Those of its paths that carry streams.
    pub(crate) streams: Shared<Path>,
    /// Those that carry datagrams.
    pub(crate) datagrams: Shared<Path>,
    /// How members are probed, if they are.
    pub(crate) probe: Option<Probe>,
    /// Whether somebody probes them.
    is_probed: AtomicBool,
}

/// A path in a group.
#[derive(Debug)]
pub struct Candidate {
    /// The path.
    pub path: Arc<Path>,
    /// Its share of the sessions, where the group's policy knows shares.
    pub weight: NonZeroU16,
}

/// The proxies on the way to a target, in the order in which they are dialled. Without any, the way is direct.
#[derive(Debug)]
pub struct Path {
    /// What the operator calls it.
    pub name: Arc<str>,
    /// By what its health is known, whatever it is called.
    key: Arc<str>,
    /// The proxies.
    pub hops: Box<[Hop]>,
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// What datagrams need of each hop, made once.
    packets: OnceLock<Box<[Option<Arc<PacketHop>>]>>,
    /// What came of the sessions that took it; a path that takes another's place in a group goes on with it.
    pub(crate) tally: Arc<Tally>,
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
    /// SOCKS4, or 4a where names are passed on.
    Socks4(UserId),
    /// SOCKS5, with a login should it ask for one.
    Socks5(Option<Login>),
    /// HTTP with CONNECT, and a login that is said at once.
    Http(Option<BasicLogin>),
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

impl Routes {
    /// These rules.
    pub fn new(router: Router<Route>) -> Self {
        Self(Arc::new(router))
    }

    /// The route where no rule fits.
    pub fn otherwise(&self) -> &Route {
        &self.0.otherwise
    }

    /// Whether there are rules, so that two sessions may go different ways.
    pub fn has_rules(&self) -> bool {
        !self.0.rules.is_empty()
    }

    /// Whether these are the same rules, and not others that say the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Every route that sessions may take, those of the rules first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Route> {
        self.0.rules.iter().map(|rule| &rule.verdict).chain([&self.0.otherwise])
    }

    /// Whether who the user is may decide about a session; see [`Router::asks_who`].
    pub fn asks_who(&self, query: &Query<'_>, addresses: Option<&[SocketAddr]>) -> bool {
        self.0.asks_who(query, addresses)
    }

    /// What is decided about a session; see [`Router::route`].
    pub fn decide(&self, query: &Query<'_>, addresses: Option<&[SocketAddr]>) -> Decision<'_, Route> {
        self.0.route(query, addresses)
    }
}

impl From<Route> for Routes {
    fn from(otherwise: Route) -> Self {
        Self::new(Router { rules: Vec::new(), otherwise })
    }
}

impl Verdict for Route {
    fn refuses(&self) -> bool {
        match self {
            Self::Refuse(_) => true,
            Self::Path(_) | Self::Group(_) => false,
        }
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

    /// Through one of `servers`, any first.
    pub fn servers(servers: Vec<Server>) -> Self {
        Self::Group(Arc::new(Group::of_servers(servers)))
    }

    /// Whether it leads straight to the target, whatever happens.
    pub fn is_direct(&self) -> bool {
        match self {
            Self::Path(path) => path.hops.is_empty(),
            Self::Group(_) | Self::Refuse(_) => false,
        }
    }
}

impl Path {
    /// These hops, with the usual deadlines.
    pub fn new(name: impl Into<Arc<str>>, hops: impl Into<Box<[Hop]>>) -> Self {
        let deadlines = Deadlines { connect: CONNECT_SECS_MAX, negotiate: NEGOTIATE_SECS_MAX };
        let (name, hops) = (name.into(), hops.into());
        let tally = Arc::new(Tally::new(hops.len()));
        Self { key: Arc::clone(&name), name, hops, deadlines, packets: OnceLock::new(), tally }
    }

    /// No hop: straight to the target.
    pub fn direct() -> Self {
        Self::new("direct", [])
    }

    /// The keys of the hop at `index`, expanded for datagrams, if it is a Shadowsocks server.
    pub(crate) fn packet_hop(&self, index: usize) -> Option<&Arc<PacketHop>> {
        let expand = |hop: &Hop| match hop {
            Hop::Shadowsocks(server) => {
                Some(Arc::new(PacketHop::new(&server.credentials, server.one_time_auth)))
            }
            Hop::Parent(_) => None,
        };
        self.packets.get_or_init(|| self.hops.iter().map(expand).collect()).get(index)?.as_ref()
    }

    /// Where each hop takes datagrams, if nobody has to be asked for that.
    pub(crate) fn datagram_addresses(&self) -> Option<Vec<Address>> {
        let address = |hop: &Hop| match hop {
            Hop::Shadowsocks(server) => server.mode.datagrams().cloned(),
            Hop::Parent(_) => None,
        };
        self.hops.iter().map(address).collect()
    }

    /// What came of the sessions that took it.
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// Its hop at `index`, as it is told of.
    pub(crate) fn at(&self, index: usize) -> At {
        At { path: Arc::clone(&self.name), hop: index + 1 }
    }

    /// As what groups know it.
    pub(crate) fn member(&self) -> Member {
        Member::named(&self.key)
    }

    /// Whether names of targets are resolved here: where nobody is asked for them, or somebody who is told addresses alone.
    pub fn resolves_names(&self) -> bool {
        match self.hops.last() {
            Some(Hop::Parent(parent)) => parent.names == Names::ResolveHere,
            Some(Hop::Shadowsocks(_)) => false,
            None => true,
        }
    }

    /// Whether streams pass.
    pub fn has_streams(&self) -> bool {
        self.hops.iter().all(Hop::has_streams)
    }

    /// Whether datagrams pass. A parent is asked for them on a connection, which the hops before it have to carry.
    pub fn has_datagrams(&self) -> bool {
        let asked = self.hops.iter().rposition(|hop| matches!(hop, Hop::Parent(_))).unwrap_or(0);
        self.hops.iter().all(Hop::has_datagrams) && self.hops.iter().take(asked).all(Hop::has_streams)
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

    /// Whether it has words for `command`.
    pub(crate) fn knows(&self, command: Command) -> bool {
        let protocol = match self {
            Self::Shadowsocks(_) => return command == Command::Connect,
            Self::Parent(parent) => &parent.protocol,
        };
        match (protocol, command) {
            (_, Command::Connect) | (ParentProtocol::Socks5(_), _) => true,
            (ParentProtocol::Socks4(_), Command::Bind) => true,
            (ParentProtocol::Socks4(_), Command::UdpAssociate) | (ParentProtocol::Http(_), _) => false,
        }
    }

    fn has_streams(&self) -> bool {
        match self {
            Self::Shadowsocks(server) => server.mode.has_streams(),
            Self::Parent(_) => true,
        }
    }

    fn has_datagrams(&self) -> bool {
        match self {
            Self::Shadowsocks(server) => server.mode.datagrams().is_some(),
            // Datagrams would go beside the TLS that the operator asks for, in the open.
            Self::Parent(Parent { protocol: ParentProtocol::Socks5(_), tls, .. }) => tls.is_none(),
            Self::Parent(Parent {
                protocol: ParentProtocol::Socks4(_) | ParentProtocol::Http(_), ..
            }) => false,
        }
    }
}

impl Parent {
    /// A SOCKS5 proxy that resolves names itself.
    pub fn socks5(address: Address, login: Option<Login>) -> Self {
        Self { address, protocol: ParentProtocol::Socks5(login), names: Names::PassOn, tls: None }
    }
}

impl Group {
    /// A group of `members`. Without one, no target can be reached.
    pub fn new(name: impl Into<Arc<str>>, settings: Settings, members: Vec<Candidate>) -> Self {
        let (streams, datagrams) = sides(members);
        Self {
            name: name.into(),
            streams: Shared::new(settings, streams),
            datagrams: Shared::new(settings, datagrams),
            probe: None,
            is_probed: AtomicBool::new(false),
        }
    }

    /// The same, with active probes as its settings time them.
    #[must_use]
    pub fn with_probe(self, probe: Probe) -> Self {
        Self { probe: Some(probe), ..self }
    }

    /// A path for each of `servers`, of which a session takes any.
    pub fn of_servers(servers: Vec<Server>) -> Self {
        let settings = Settings { policy: Policy::Random, ..Settings::default() };
        Self::new("servers", settings, paths_through(servers, &[]))
    }

    /// Puts `members` in the place of those that were there, for every session that begins after this. Those that stay keep their
    /// health, and are known by their names.
    pub fn replace(&self, members: Vec<Candidate>) {
        let now = Instant::now();
        let (streams, datagrams) = sides(members);
        self.streams.replace(streams, now);
        self.datagrams.replace(datagrams, now);
    }

    /// Puts a path for each of `servers` in the place of those that were there. What was counted of a server goes on.
    pub fn replace_servers(&self, servers: Vec<Server>) {
        let known = [self.paths(), self.paths_of_datagrams()].concat();
        self.replace(paths_through(servers, &known));
    }

    /// The paths that carry streams, in order.
    pub fn paths(&self) -> Vec<Arc<Path>> {
        self.streams.members()
    }

    /// The paths that carry datagrams, in order.
    pub fn paths_of_datagrams(&self) -> Vec<Arc<Path>> {
        self.datagrams.members()
    }

    /// What is known of them, for streams.
    pub fn health(&self) -> Vec<Status> {
        self.members().into_iter().map(|(_, status)| status).collect()
    }

    /// The paths that carry streams with what is known of each.
    pub(crate) fn members(&self) -> Vec<(Arc<Path>, Status)> {
        self.streams.describe(Instant::now())
    }

    /// The paths that carry datagrams with what is known of each.
    pub(crate) fn members_for_datagrams(&self) -> Vec<(Arc<Path>, Status)> {
        self.datagrams.describe(Instant::now())
    }

    /// The right to probe its members, if nobody has it.
    pub(crate) fn claim_probes(self: &Arc<Self>) -> Option<Claim> {
        // Every session asks; looking first keeps what all workers share from going back and forth between them.
        let is_free = !self.is_probed.load(Ordering::Relaxed) && !self.is_probed.swap(true, Ordering::AcqRel);
        is_free.then(|| Claim(Arc::clone(self)))
    }
}

/// The right to probe a group's members; free again when dropped.
#[derive(Debug)]
pub(crate) struct Claim(pub(crate) Arc<Group>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.is_probed.store(false, Ordering::Release);
    }
}

impl From<Path> for Candidate {
    fn from(path: Path) -> Self {
        Self { path: Arc::new(path), weight: NonZeroU16::MIN }
    }
}

/// The members that carry streams, and those that carry datagrams.
#[expect(clippy::type_complexity, reason = "two lists of what a group is made of")]
fn sides(members: Vec<Candidate>) -> (Vec<(Member, Arc<Path>)>, Vec<(Member, Arc<Path>)>) {
    let (mut streams, mut datagrams) = (Vec::new(), Vec::new());
    for Candidate { path, weight } in members {
        let member = path.member().with_weight(weight);
        if path.has_streams() {
            streams.push((member, Arc::clone(&path)));
        }
        if path.has_datagrams() {
            datagrams.push((member, path));
        }
    }
    (streams, datagrams)
}

/// Each server is a path of its own, named after its place in the list and known by its address. One that was among the `known` goes on
/// with what was counted of it.
fn paths_through(servers: Vec<Server>, known: &[Arc<Path>]) -> Vec<Candidate> {
    // Of several at one address the first is the first again, and the others begin anew.
    let mut tallies: HashMap<_, _> = known.iter().rev().map(|path| (&path.key, &path.tally)).collect();
    let path = |(index, server): (usize, Server)| {
        let key: Arc<str> = server.address.to_string().into();
        let mut path = Path::new(format!("servers[{index}]"), [Hop::Shadowsocks(server)]);
        if let Some(tally) = tallies.remove(&key) {
            path.tally = Arc::clone(tally);
        }
        Path { key, ..path }.into()
    };
    servers.into_iter().enumerate().map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_proto::shadowsocks::Method;

    fn server(mode: fn(Address) -> Mode<Address>) -> Hop {
        let address: Address = "127.0.0.1:1".parse().unwrap();
        Hop::Shadowsocks(Server {
            mode: mode(address.clone()),
            address,
            credentials: Credentials::from_password(Method::Aes256Gcm, "long enough").unwrap(),
            heads: HeadReads::One,
            one_time_auth: false,
        })
    }

    fn parent(protocol: ParentProtocol) -> Hop {
        let socks5 = Parent::socks5("127.0.0.1:1".parse().unwrap(), None);
        Hop::Parent(Parent { protocol, ..socks5 })
    }

    #[test]
    fn datagrams_pass_where_every_hop_carries_them_and_every_parent_can_be_asked() {
        let (both, datagrams) = (|| server(Mode::Both), || server(Mode::Datagrams));
        let streams = || server(|_| Mode::Streams);
        let socks5 = || parent(ParentProtocol::Socks5(None));
        let passing = [
            vec![],
            vec![datagrams()],
            vec![datagrams(), datagrams()],
            vec![socks5(), socks5()],
            vec![both(), socks5()],
            vec![both(), socks5(), datagrams()],
        ];
        for hops in passing {
            assert!(Path::new("passing", hops.clone()).has_datagrams(), "{hops:?}");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let tls = Some(Tls::new(Arc::new(config), "parent.example").unwrap());
        let protected = Parent { tls, ..Parent::socks5("127.0.0.1:1".parse().unwrap(), None) };
        let stuck = [
            vec![Hop::Parent(protected)],
            vec![streams()],
            vec![both(), streams()],
            // Nothing carries the control connection.
            vec![datagrams(), socks5()],
            vec![both(), datagrams(), socks5()],
            vec![parent(ParentProtocol::Http(None))],
            vec![socks5(), parent(ParentProtocol::Http(None)), socks5()],
        ];
        for hops in stuck {
            assert!(!Path::new("stuck", hops.clone()).has_datagrams(), "{hops:?}");
        }
    }
}
