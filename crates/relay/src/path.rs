//! The way to a target, dialled.

use std::net::SocketAddr;

use tokio::time::timeout;
use tracing::debug;
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::Command;

use crate::config::{Path, Server, Tcp};
use crate::dial::{dial, dial_target};
use crate::door::Door;
use crate::drive::Inbox;
use crate::failure::{Cause, Failure, Stage};
use crate::limits::REACH_SECS_MAX;
use crate::net::{Net, Socket};
use crate::parent::{Agreed, ask};
use crate::pump::{Reader, Writer};

/// The target's half of a session.
pub(crate) struct TargetSide<S> {
    pub(crate) socket: S,
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
    pub(crate) fn direct(socket: S) -> Self {
        let inbox = Inbox::default();
        Self { socket, reader: Reader::Plain, writer: Writer::Plain, inbox, bound: Bound::Ours }
    }

    /// A target behind a proxy that has agreed.
    pub(crate) fn behind(Agreed { socket, inbox, bound }: Agreed<S>) -> Self {
        Self { socket, reader: Reader::Plain, writer: Writer::Plain, inbox, bound: Bound::Theirs(bound) }
    }
}

/// Dials the door's path towards `target`, unless the path is direct and the target `forbidden`.
pub(crate) async fn reach<N: Net>(
    door: &Door<N>,
    target: &Address,
    forbidden: &Forbidden,
) -> Result<TargetSide<N::Socket>, Failure> {
    match &door.inbound.path {
        Path::Direct => {
            // Fast open would say "connected" before anything has been sent, and nothing is sent to a target that speaks first.
            let tcp = Tcp { fast_open: false, ..door.inbound.tcp };
            dial_target(&door.net, target, tcp, forbidden).await.map(TargetSide::direct)
        }
        Path::Shadowsocks(servers) => in_time(through_any(door, &servers.snapshot(), target)).await,
        Path::Socks5(parent) => {
            in_time(ask(door, parent, Command::Connect, target)).await.map(TargetSide::behind)
        }
    }
}

/// Holds a way with hops to its deadline.
pub(crate) async fn in_time<T>(reaching: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match timeout(REACH_SECS_MAX, reaching).await {
        Ok(reached) => reached,
        Err(_) => Err(Failure::outbound(Stage::Connect, Cause::Deadline)),
    }
}

/// Through a random server, or the next that can be reached: nothing has been promised to the client while they are tried.
async fn through_any<N: Net>(
    door: &Door<N>,
    servers: &[Server],
    target: &Address,
) -> Result<TargetSide<N::Socket>, Failure> {
    // A request is always written first, so fast open is safe on the way to a server; but a dead one would count as reached, and
    // the next would never be tried.
    let fitting = servers.iter().filter(|server| server.mode.has_streams());
    let count = fitting.clone().count();
    let tcp = Tcp { fast_open: door.inbound.tcp.fast_open && count == 1, ..door.inbound.tcp };
    let mut failure = Failure::outbound(Stage::Connect, Cause::NoAddress);
    for server in fitting.cycle().skip(random_below(&door.net, count)).take(count) {
        debug!(server = %server.address, "chosen server");
        match dial(&door.net, &server.address, tcp).await {
            Ok(socket) => return request(door, server, socket, target),
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

fn request<N: Net>(
    door: &Door<N>,
    server: &Server,
    socket: N::Socket,
    target: &Address,
) -> Result<TargetSide<N::Socket>, Failure> {
    let credentials = &server.credentials;
    let salt = door.salt(credentials.method()).map_err(|cause| Failure::outbound(Stage::Connect, cause))?;
    let sealer = if server.one_time_auth {
        credentials.request_with_one_time_auth(salt, target)
    } else {
        credentials.request(salt, target)
    };
    let writer = Writer::Sealed(sealer);
    let reader = Reader::Sealed(credentials.response(salt, server.heads));
    Ok(TargetSide { socket, reader, writer, inbox: Inbox::default(), bound: Bound::Theirs(None) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    use umbra_proto::shadowsocks::Method;
    use umbra_proto::shadowsocks::identity::Credentials;

    use crate::config::{Inbound, Mode, Protocol, ProxyDoor, ProxyHeader, Servers};
    use crate::refusing::Refusing;

    /// Whether each dial of a path asks for fast open where the operator does.
    async fn fast_opens(path: Path) -> Vec<bool> {
        let inbound = Inbound {
            listen: "127.0.0.1:0".parse().unwrap(),
            protocol: Protocol::Proxy(ProxyDoor::MIXED),
            path,
            mode: Mode::Streams,
            forbidden: Arc::default(),
            idle: Duration::from_secs(1),
            tcp: Tcp { no_delay: true, fast_open: true },
            proxy_header: ProxyHeader::default(),
        };
        let door = Box::new(Door::new(inbound, Refusing::default(), 1));
        let outcome = reach(&door, &"127.0.0.1:1".parse().unwrap(), &Forbidden::NOTHING).await;
        assert!(outcome.is_err_and(|failure| matches!(failure.cause, Cause::Io(_))));
        door.net.dialled().into_iter().map(|(_, tcp)| tcp.fast_open).collect()
    }

    fn servers(count: u16) -> Path {
        let server = |number| Server {
            address: Address::from_host("127.0.0.1", number).unwrap(),
            mode: Mode::Streams,
            credentials: Credentials::from_password(Method::Aes256Gcm, "long enough").unwrap(),
            heads: umbra_proto::shadowsocks::stream::HeadReads::One,
            one_time_auth: false,
        };
        Path::Shadowsocks(Servers::new((1..=count).map(server).collect()))
    }

    #[tokio::test]
    async fn fast_open_is_for_a_lone_server_that_is_always_spoken_to_first() {
        assert_eq!(fast_opens(Path::Direct).await, [false]);
        assert_eq!(fast_opens(servers(1)).await, [true]);
        assert_eq!(
            fast_opens(servers(3)).await,
            [false; 3],
            "each is tried, and each has to say that it is there"
        );
    }
}
