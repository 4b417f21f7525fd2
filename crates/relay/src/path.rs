//! The way to a target, dialled hop by hop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::time::{Instant, timeout};
use tracing::debug;
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::{Command, Refusal};

use crate::config::{Group, Hop, Names, Parent, ParentProtocol, Path, Route, Server, Tcp};
use crate::conn::Conn;
use crate::dial::{dial, dial_any, dial_target, resolve};
use crate::door::Door;
use crate::drive::Inbox;
use crate::failure::{At, Cause, Failure, Side, Stage};
use crate::group::{Outcome, Wanted};
use crate::inbound::ClientSide;
use crate::net::{Net, Socket};
use crate::parent::{Agreed, Visitor, arrival, negotiate};
use crate::pipe::{Pipe, pipe};
use crate::probe::{tell, wake};
use crate::pump::{Reader, Writer};
use crate::router::{Decision, Dial, Query, Transport};
use crate::session::Session;
use crate::tls::wrap;

/// Whose errand it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who<'e> {
    /// A client's, for whom the rules are.
    Client(Asker<'e>),
    /// The operator's own.
    Operator,
}

/// A client, as rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'e> {
    /// Where it comes from.
    pub(crate) source: IpAddr,
    /// Who it is, if it has said so.
    pub(crate) user: Option<&'e str>,
}

/// What is wanted of whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand<'e> {
    /// A connection, one from outside, or datagrams.
    pub(crate) command: Command,
    /// Where to.
    pub(crate) target: &'e Address,
    /// The addresses of the target's name, where it has been resolved: these are meant, and no others.
    pub(crate) addresses: Option<&'e [SocketAddr]>,
    /// Where a direct path does not lead.
    pub(crate) forbidden: &'e Forbidden,
}

impl Who<'_> {
    fn source(&self) -> IpAddr {
        match self {
            Self::Client(asker) => asker.source,
            Self::Operator => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
}

impl<'e> Errand<'e> {
    /// One that no client has asked for.
    pub(crate) fn of_our_own(command: Command, target: &'e Address) -> Self {
        Self { command, target, addresses: None, forbidden: &NOTHING_FORBIDDEN }
    }
}

static NOTHING_FORBIDDEN: Forbidden = Forbidden::NOTHING;

/// The target's half of a session.
pub(crate) struct TargetSide<S> {
    pub(crate) socket: Conn<S>,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// What the target has already said.
    pub(crate) inbox: Inbox,
    bound: Bound,
    /// How a parent tells who has come, where it was asked to wait for somebody.
    visitor: Option<Visitor>,
}

/// The address that a target sees.
enum Bound {
    /// That of our own socket.
    Ours,
    /// One that a proxy on the way has told, or has not.
    Theirs(Option<SocketAddr>),
}

impl<S: Socket> TargetSide<S> {
    /// The address that the target sees, where we know it.
    pub(crate) fn bound(&self) -> Option<SocketAddr> {
        match self.bound {
            Bound::Ours => self.socket.local_addr().ok(),
            Bound::Theirs(told) => told,
        }
    }

    /// A target at the other end of `socket`.
    pub(crate) fn direct(socket: Conn<S>) -> Self {
        let inbox = Inbox::default();
        let (reader, writer) = (Reader::Plain, Writer::Plain);
        Self { socket, reader, writer, inbox, bound: Bound::Ours, visitor: None }
    }

    /// Waits for whom a parent was asked to wait for. Gives the visitor's address, if the parent tells it.
    pub(crate) async fn arrival(&mut self) -> Result<Option<SocketAddr>, Cause> {
        match self.visitor {
            Some(words) => arrival(&self.socket, &mut self.inbox, words).await,
            None => Err(Cause::Command(Command::Bind)),
        }
    }
}

/// Dials the way towards the target of `errand` that the door's rules have for `who`.
pub(crate) async fn reach<N: Net>(
    door: &Arc<Door<N>>,
    who: Who<'_>,
    errand: Errand<'_>,
) -> Result<TargetSide<N::Socket>, Failure> {
    let (route, addresses) = decide(door, who, errand.target).await?;
    let errand = Errand { addresses: addresses.as_deref(), ..errand };
    match route {
        Route::Path(path) => travel(door, path, errand, door.inbound.tcp).await,
        Route::Group(group) => match timeout(group.patience, through(door, group, who, errand)).await {
            Ok(reached) => reached,
            Err(_) => Err(Failure::outbound(Stage::Connect, Cause::Deadline)),
        },
        // Such a route is decided about before it comes here.
        Route::Refuse(refusal) => Err(refused("otherwise", *refusal)),
    }
}

/// The route of a session, and the addresses that may be dialled for its name, where a rule had to know them.
async fn decide<'d, N: Net>(
    door: &'d Door<N>,
    who: Who<'_>,
    target: &Address,
) -> Result<(&'d Route, Option<Vec<SocketAddr>>), Failure> {
    let routes = &door.inbound.routes;
    if !routes.has_rules() {
        return Ok((routes.otherwise(), None));
    }
    let Asker { source, user } = match who {
        Who::Client(asker) => asker,
        Who::Operator => return Ok((routes.otherwise(), None)),
    };
    let query = Query { target, transport: Transport::Tcp, source, inbound: &door.inbound.name, user };
    match (routes.decide(&query, None), target) {
        (Decision::Resolve, Address::Name(name, port)) => {
            let addresses = resolve(&door.net, name.as_str(), *port).await.unwrap_or_default();
            taken(routes.decide(&query, Some(&addresses)), Some(addresses))
        }
        (decision, _) => taken(decision, None),
    }
}

/// The route of a client's errand to `target`.
pub(crate) async fn route<'d, N: Net>(
    door: &'d Door<N>,
    asker: Asker<'_>,
    target: &Address,
) -> Result<&'d Route, Failure> {
    decide(door, Who::Client(asker), target).await.map(|(route, _)| route)
}

fn taken(
    decision: Decision<'_, Route>,
    addresses: Option<Vec<SocketAddr>>,
) -> Result<(&Route, Option<Vec<SocketAddr>>), Failure> {
    match decision {
        Decision::Take { rule, verdict: Route::Refuse(refusal), .. } => {
            Err(refused(rule.map_or("otherwise", |rule| &rule.name), *refusal))
        }
        Decision::Take { verdict, dial: Dial::Target, .. } => Ok((verdict, None)),
        Decision::Take { verdict, dial, .. } => {
            let mut addresses = addresses.unwrap_or_default();
            addresses.retain(|address| dial.allows(address.ip()));
            Ok((verdict, Some(addresses)))
        }
        Decision::Unresolvable { .. } | Decision::Resolve => {
            Err(Failure::outbound(Stage::Resolve, Cause::NoAddress))
        }
    }
}

fn refused(rule: &str, refusal: Refusal) -> Failure {
    Failure::new(Stage::Route, Side::Inbound, Cause::Refused { rule: rule.into(), refusal })
}

/// Along one path of `group` after the other, as the group has them, until one leads to the target: nothing has been promised to the
/// client while they are tried.
async fn through<N: Net>(
    door: &Arc<Door<N>>,
    group: &Arc<Group>,
    who: Who<'_>,
    errand: Errand<'_>,
) -> Result<TargetSide<N::Socket>, Failure> {
    // A dead hop would count as reached, and the next path would never be tried.
    let is_alone = group.streams.with_state(|state| state.len() == 1);
    let tcp = Tcp { fast_open: door.inbound.tcp.fast_open && is_alone, ..door.inbound.tcp };
    let wanted = Wanted { target: errand.target, source: who.source(), chance: chance(&door.net) };
    let mut attempts = group.streams.begin(&wanted, Instant::now());
    if attempts.wakes() {
        wake(door, group);
    }
    let mut failure: Option<Failure> = None;
    while let Some(held) = group.streams.next(&mut attempts, Instant::now()) {
        if let Some(earlier) = failure.take() {
            door.notices.failure(&earlier);
        }
        let path = Arc::clone(held.member());
        debug!(path = %path.name, "chosen path");
        let began = Instant::now();
        let travelled = travel(door, &path, errand, tcp).await;
        let outcome = match &travelled {
            Ok(_) => Outcome::Reached { latency: Some(began.elapsed()) },
            Err(failure) => failure.outcome(),
        };
        tell(group, &path, held.report(outcome, Instant::now()));
        match travelled {
            Ok(reached) => return Ok(reached),
            Err(why) => failure = Some(why),
        }
    }
    Err(failure.unwrap_or_else(|| Failure::outbound(Stage::Connect, Cause::NoPath)))
}

/// A random number; 0 where there is no chance to be had.
pub(crate) fn chance<N: Net>(net: &N) -> u64 {
    let mut random = [0; 8];
    match net.fill_random(&mut random) {
        Ok(()) => u64::from_le_bytes(random),
        Err(_) => 0,
    }
}

/// Dials `path` hop by hop. A Shadowsocks server counts as reached when the connection to it stands, a parent when it has agreed.
pub(crate) async fn travel<N: Net>(
    door: &Arc<Door<N>>,
    path: &Arc<Path>,
    errand: Errand<'_>,
    tcp: Tcp,
) -> Result<TargetSide<N::Socket>, Failure> {
    travel_through(door, path, &path.hops, errand, tcp).await
}

/// Dials `hops`, the first ones of `path`, as [`travel`] dials all of them.
pub(crate) async fn travel_through<N: Net>(
    door: &Arc<Door<N>>,
    path: &Path,
    hops: &[Hop],
    errand: Errand<'_>,
    tcp: Tcp,
) -> Result<TargetSide<N::Socket>, Failure> {
    let at = |hop| move |failure: Failure| failure.at(At { path: Arc::clone(&path.name), hop });
    let Some(first) = hops.first() else {
        // Fast open would say "connected" before anything has been sent, and nothing is sent to a target that speaks first.
        let tcp = Tcp { fast_open: false, ..tcp };
        if errand.command != Command::Connect {
            return Err(Failure::handshake(Cause::Command(errand.command)));
        }
        let (forbidden, patience) = (errand.forbidden, path.deadlines.connect);
        let dialled = match errand.addresses {
            None => dial_target(&door.net, errand.target, tcp, forbidden, patience).await,
            Some(addresses) => dial_any(&door.net, addresses.to_vec(), tcp, forbidden, patience).await,
        };
        return dialled.map(|socket| TargetSide::direct(Conn::Socket(socket)));
    };
    // A rule has looked at these addresses, so none of them is left to be found anew.
    let known = errand.addresses.and_then(|addresses| addresses.first()).map(|address| Address::Ip(*address));
    let target = known.as_ref().unwrap_or(errand.target);
    // Whoever is asked in the open answers before anything else is said, so that nothing is promised too early; and a Shadowsocks
    // server is always spoken to first.
    let tcp = Tcp { fast_open: tcp.fast_open && hops.len() == 1, ..tcp };
    let dialled = dial(&door.net, first.address(), tcp, path.deadlines.connect).await.map_err(at(1))?;
    let mut reached = TargetSide::direct(Conn::Socket(dialled));
    for (index, hop) in hops.iter().enumerate() {
        if let Reader::Sealed(_) = reached.reader {
            // What is behind it speaks through a layer that has to be sealed and opened first.
            let inside = inside(door, reached, At { path: Arc::clone(&path.name), hop: index });
            reached = TargetSide::direct(Conn::Pipe(inside));
        }
        let (command, next) = match hops.get(index + 1) {
            Some(after) => (Command::Connect, after.address()),
            None => (errand.command, target),
        };
        reached = match hop {
            Hop::Shadowsocks(server) => request(door, server, reached, command, next),
            Hop::Parent(parent) => {
                let here = At { path: Arc::clone(&path.name), hop: index + 1 };
                let asking = Box::pin(ask(door, parent, reached, (command, next), here));
                let agreed = timeout(path.deadlines.negotiate, asking).await;
                agreed.unwrap_or(Err(Failure::outbound(Stage::Negotiate, Cause::Deadline)))
            }
        }
        .map_err(at(index + 1))?;
    }
    Ok(reached)
}

/// Asks `parent`, at the other end of `reached`, for `command` towards `next`.
async fn ask<N: Net>(
    door: &Door<N>,
    parent: &Parent,
    reached: TargetSide<N::Socket>,
    (command, next): (Command, &Address),
    here: At,
) -> Result<TargetSide<N::Socket>, Failure> {
    let failure = |cause| Failure::outbound(Stage::Negotiate, cause);
    let resolved = match (parent.names, next) {
        (Names::ResolveHere, Address::Name(name, port)) => {
            let addresses = resolve(&door.net, name.as_str(), *port).await?;
            // SOCKS4 has no words for the others.
            let fits = |address: &&SocketAddr| match parent.protocol {
                ParentProtocol::Socks4(_) => address.is_ipv4(),
                ParentProtocol::Socks5(_) | ParentProtocol::Http(_) => true,
            };
            addresses.iter().find(fits).or(addresses.first()).map(|address| Address::Ip(*address))
        }
        (Names::ResolveHere, Address::Ip(_)) | (Names::PassOn, _) => None,
    };
    let next = resolved.as_ref().unwrap_or(next);
    let TargetSide { socket, mut inbox, .. } = reached;
    let socket = match &parent.tls {
        None => socket,
        Some(tls) => {
            // Whatever was said before the parent has shown who it is, somebody else may have said.
            inbox.clear();
            Conn::Pipe(wrap(socket, tls, here).await.map_err(failure)?)
        }
    };
    let Agreed { bound, visitor } =
        negotiate(&socket, &mut inbox, parent, command, next).await.map_err(failure)?;
    let bound = bound.map(|bound| reachable(bound, command, &parent.address));
    Ok(TargetSide { inbox, bound: Bound::Theirs(bound), visitor, ..TargetSide::direct(socket) })
}

/// Where the client or its target is to come. Some parents tell none but the port: it is where they are themselves.
fn reachable(bound: SocketAddr, command: Command, parent: &Address) -> SocketAddr {
    match (command, parent) {
        (Command::Bind | Command::UdpAssociate, Address::Ip(address)) if bound.ip().is_unspecified() => {
            SocketAddr::new(address.ip(), bound.port())
        }
        (Command::Connect | Command::Bind | Command::UdpAssociate, Address::Ip(_) | Address::Name(..)) => {
            bound
        }
    }
}

/// Begins a request to `server`, at the other end of `reached`, for `next`. It has no words for anything but a connection.
fn request<N: Net>(
    door: &Door<N>,
    server: &Server,
    reached: TargetSide<N::Socket>,
    command: Command,
    next: &Address,
) -> Result<TargetSide<N::Socket>, Failure> {
    if command != Command::Connect {
        return Err(Failure::handshake(Cause::Command(command)));
    }
    let credentials = &server.credentials;
    let salt = door.salt(credentials.method()).map_err(|cause| Failure::outbound(Stage::Connect, cause))?;
    let sealer = if server.one_time_auth {
        credentials.request_with_one_time_auth(salt, next)
    } else {
        credentials.request(salt, next)
    };
    let writer = Writer::Sealed(sealer);
    let reader = Reader::Sealed(credentials.response(salt, server.heads));
    Ok(TargetSide { reader, writer, bound: Bound::Theirs(None), ..reached })
}

/// Lets a task of its own seal and open what passes `outside`. What is inside is plain, and fails when the layer does, for its
/// reason.
pub(crate) fn inside<N: Net>(door: &Arc<Door<N>>, outside: TargetSide<N::Socket>, at: At) -> Pipe {
    let (ours, theirs) = pipe();
    let epitaph = theirs.epitaph();
    let session = Session::new(theirs, ClientSide::plain(), Inbox::default(), None, outside);
    let door = Arc::clone(door);
    drop(tokio::spawn(async move {
        if let Err(failure) = session.run(&door).await {
            epitaph.write(&failure.at(at));
        }
    }));
    ours
}
#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use umbra_proto::shadowsocks::Method;
    use umbra_proto::shadowsocks::identity::Credentials;

    use crate::config::{Inbound, Mode, Protocol, ProxyDoor, ProxyHeader};
    use crate::refusing::Refusing;

    /// Whether each dial of a path asks for fast open where the operator does.
    async fn fast_opens(route: Route) -> Vec<bool> {
        let inbound = Inbound {
            name: "door".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            protocol: Protocol::Proxy(ProxyDoor::MIXED),
            routes: route.into(),
            mode: Mode::Streams,
            forbidden: Arc::default(),
            idle: Duration::from_secs(1),
            tcp: Tcp { no_delay: true, fast_open: true },
            proxy_header: ProxyHeader::default(),
        };
        let door = Arc::new(Door::new(inbound, Refusing::default(), 1));
        let target = "127.0.0.1:1".parse().unwrap();
        let errand = Errand::of_our_own(Command::Connect, &target);
        let outcome = Box::pin(reach(&door, Who::Operator, errand)).await;
        assert!(outcome.is_err_and(|failure| matches!(failure.cause, Cause::Io(_))));
        door.net.dialled().into_iter().map(|(_, tcp)| tcp.fast_open).collect()
    }

    fn servers(count: u16) -> Route {
        let server = |number| Server {
            address: Address::from_host("127.0.0.1", number).unwrap(),
            mode: Mode::Streams,
            credentials: Credentials::from_password(Method::Aes256Gcm, "long enough").unwrap(),
            heads: umbra_proto::shadowsocks::stream::HeadReads::One,
            one_time_auth: false,
        };
        Route::servers((1..=count).map(server).collect())
    }

    #[tokio::test]
    async fn fast_open_is_for_a_lone_server_that_is_always_spoken_to_first() {
        assert_eq!(fast_opens(Route::direct()).await, [false]);
        assert_eq!(fast_opens(servers(1)).await, [true]);
        assert_eq!(
            fast_opens(servers(3)).await,
            [false; 3],
            "each is tried, and each has to say that it is there"
        );
    }
}
