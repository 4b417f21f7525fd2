//! The way to a target, dialled hop by hop.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::timeout;
use tracing::debug;
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::Command;

use crate::config::{Group, Hop, Names, Parent, Path, Route, Server, Tcp};
use crate::conn::Conn;
use crate::dial::{dial, dial_target, resolve};
use crate::door::Door;
use crate::drive::Inbox;
use crate::failure::{At, Cause, Failure, Stage};
use crate::inbound::ClientSide;
use crate::limits::REACH_SECS_MAX;
use crate::net::{Net, Socket};
use crate::parent::negotiate;
use crate::pipe::{Pipe, pipe};
use crate::pump::{Reader, Writer};
use crate::session::Session;
use crate::tls::wrap;

/// Who wants what of whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand<'e> {
    /// A connection, one from outside, or datagrams.
    pub(crate) command: Command,
    /// Where to.
    pub(crate) target: &'e Address,
    /// Where a direct path does not lead.
    pub(crate) forbidden: &'e Forbidden,
}

/// The target's half of a session.
pub(crate) struct TargetSide<S> {
    pub(crate) socket: Conn<S>,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// What the target has already said.
    pub(crate) inbox: Inbox,
    bound: Bound,
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
        Self { socket, reader: Reader::Plain, writer: Writer::Plain, inbox, bound: Bound::Ours }
    }
}

/// Dials the door's way towards the target of `errand`.
pub(crate) async fn reach<N: Net>(
    door: &Arc<Door<N>>,
    errand: Errand<'_>,
) -> Result<TargetSide<N::Socket>, Failure> {
    match door.inbound.routes.route() {
        Route::Path(path) => travel(door, path, errand, door.inbound.tcp).await,
        Route::Group(group) => match timeout(REACH_SECS_MAX, any(door, group, errand)).await {
            Ok(reached) => reached,
            Err(_) => Err(Failure::outbound(Stage::Connect, Cause::Deadline)),
        },
    }
}

/// Along a random path of `group`, or the next that leads there: nothing has been promised to the client while they are tried.
async fn any<N: Net>(
    door: &Arc<Door<N>>,
    group: &Group,
    errand: Errand<'_>,
) -> Result<TargetSide<N::Socket>, Failure> {
    let paths = group.snapshot();
    let fitting = paths.iter().filter(|path| path.has_streams());
    let count = fitting.clone().count();
    // A dead hop would count as reached, and the next path would never be tried.
    let tcp = Tcp { fast_open: door.inbound.tcp.fast_open && count == 1, ..door.inbound.tcp };
    let mut failure = Failure::outbound(Stage::Connect, Cause::NoAddress);
    for path in fitting.cycle().skip(random_below(&door.net, count)).take(count) {
        debug!(path = %path.name, "chosen path");
        match travel(door, path, errand, tcp).await {
            Ok(reached) => return Ok(reached),
            Err(refused) => failure = refused,
        }
    }
    Err(failure)
}

/// A number below `count`, each as likely as the others; 0 if there is none, or no chance to be had.
pub(crate) fn random_below<N: Net>(net: &N, count: usize) -> usize {
    let mut random = [0; 8];
    match (u64::try_from(count), net.fill_random(&mut random)) {
        (Ok(count), Ok(())) if count > 1 => {
            usize::try_from(u64::from_le_bytes(random) % count).unwrap_or_default()
        }
        (Ok(_) | Err(_), Ok(()) | Err(_)) => 0,
    }
}

/// Dials `path` hop by hop. A Shadowsocks server counts as reached when the connection to it stands, a parent when it has agreed.
pub(crate) async fn travel<N: Net>(
    door: &Arc<Door<N>>,
    path: &Arc<Path>,
    errand: Errand<'_>,
    tcp: Tcp,
) -> Result<TargetSide<N::Socket>, Failure> {
    let at = |hop| move |failure: Failure| failure.at(At { path: Arc::clone(&path.name), hop });
    let Some(first) = path.hops.first() else {
        // Fast open would say "connected" before anything has been sent, and nothing is sent to a target that speaks first.
        let tcp = Tcp { fast_open: false, ..tcp };
        if errand.command != Command::Connect {
            return Err(Failure::handshake(Cause::Command(errand.command)));
        }
        let dialled = dial_target(&door.net, errand.target, tcp, errand.forbidden, path.deadlines.connect);
        return dialled.await.map(|socket| TargetSide::direct(Conn::Socket(socket)));
    };
    // Whoever is asked in the open answers before anything else is said, so that nothing is promised too early; and a Shadowsocks
    // server is always spoken to first.
    let tcp = Tcp { fast_open: tcp.fast_open && path.hops.len() == 1, ..tcp };
    let dialled = dial(&door.net, first.address(), tcp, path.deadlines.connect).await.map_err(at(1))?;
    let mut reached = TargetSide::direct(Conn::Socket(dialled));
    for (index, hop) in path.hops.iter().enumerate() {
        if let Reader::Sealed(_) = reached.reader {
            // What is behind it speaks through a layer that has to be sealed and opened first.
            let inside = layer(door, reached, At { path: Arc::clone(&path.name), hop: index });
            reached = TargetSide::direct(Conn::Pipe(inside));
        }
        let (command, next) = match path.hops.get(index + 1) {
            Some(after) => (Command::Connect, after.address()),
            None => (errand.command, errand.target),
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
        (Names::ResolvedHere, Address::Name(name, port)) => {
            let addresses = resolve(&door.net, name.as_str(), *port).await?;
            addresses.first().map(|address| Address::Ip(*address))
        }
        (Names::ResolvedHere, Address::Ip(_)) | (Names::PassedOn, _) => None,
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
    let bound = negotiate(&socket, &mut inbox, &parent.protocol, command, next).await.map_err(failure)?;
    let bound = bound.map(|bound| reachable(bound, command, &parent.address));
    Ok(TargetSide { inbox, bound: Bound::Theirs(bound), ..TargetSide::direct(socket) })
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
fn layer<N: Net>(door: &Arc<Door<N>>, outside: TargetSide<N::Socket>, at: At) -> Pipe {
    let (inside, theirs) = pipe();
    let epitaph = theirs.epitaph();
    let session = Session::new(theirs, ClientSide::plain(), Inbox::default(), None, outside);
    let door = Arc::clone(door);
    drop(tokio::spawn(async move {
        if let Err(failure) = session.run(&door).await {
            epitaph.write(&failure.at(at));
        }
    }));
    inside
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
        let errand = Errand { command: Command::Connect, target: &target, forbidden: &Forbidden::NOTHING };
        let outcome = reach(&door, errand).await;
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
