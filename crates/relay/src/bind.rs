//! BIND: a connection from the target to the client, in two answers: where it may come to, and who has come.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use tokio::time::{Instant, timeout};
use umbra_proto::address::Address;
use umbra_proto::detect::{Pending, PendingPeer};
use umbra_proto::forbidden::{Forbidden, Rule};
use umbra_proto::request::Command;
use umbra_proto::users::UserName;

use crate::config::Route;
use crate::conn::Conn;
use crate::dial::{NOTHING_FORBIDDEN, allowed, judge, resolve};
use crate::door::Door;
use crate::drive::{Inbox, write_all};
use crate::failure::{Cause, Failure, Stage};
use crate::inbound::see_off;
use crate::limits::{BIND_SECS_MAX, REFUSAL_SECS_MAX};
use crate::net::{Listener as _, Net, Socket};
use crate::origin::Origin;
use crate::path::{Asker, Errand, TargetSide, Who, decide, follow, unless_gone};
use crate::session::{Unfinished, Way};

/// Who waits for the target.
enum Waiting<N: Net> {
    /// We do, for one of these addresses, or for anybody whom the client might be led to.
    Here(N::Listener, Vec<IpAddr>),
    /// A proxy does.
    AtParent(TargetSide<N::Socket>),
}

/// Serves a BIND request up to where bytes are carried. Whatever fails, the client has been told.
pub(crate) async fn bind<N: Net>(
    door: &Arc<Door<N>>,
    client: N::Socket,
    mut inbox: Inbox,
    pending: Pending,
    origin: &Origin,
) -> Result<Way<N::Socket>, Failure> {
    let unanswered = Unfinished::new(&client);
    let user = pending.user().cloned();
    let asker = Asker { source: origin.source.ip(), user: user.as_ref().map(UserName::as_str) };
    let waiting = {
        let waiting = pin!(wait(door, &client, pending.target(), asker));
        unless_gone(&client, waiting).await
    };
    unanswered.finish();
    let mut answer = Vec::new();
    let (waiting, pending) = match waiting {
        Ok((waiting, listening)) => match pending.bound(listening, &mut answer) {
            Ok(pending) => (waiting, pending),
            // Nobody asks so over HTTP.
            Err(pending) => return Err(refuse_first(client, pending, unheard_of()).await),
        },
        Err(failure) => return Err(refuse_first(client, pending, failure).await),
    };
    write_all(&client, &answer).await.map_err(|error| Failure::handshake(Cause::Io(error)))?;
    let unanswered = Unfinished::new(&client);
    let arrived = tokio::select! {
        biased;
        arrived = timeout(BIND_SECS_MAX, waiting.arrival(door, asker)) => arrived,
        // Nobody is left to be told who came.
        why = departure(&client, &mut inbox) => return Err(Failure::handshake(why)),
    };
    unanswered.finish();
    let (target, peer) = match arrived.unwrap_or(Err(connect(Cause::Deadline))) {
        Ok(arrived) => arrived,
        Err(failure) => return Err(refuse_second(client, pending, failure).await),
    };
    answer.clear();
    pending.accept(peer, &mut answer);
    match write_all(&client, &answer).await {
        Ok(()) => Ok(Way { client, inbox, target }),
        Err(error) => {
            target.socket.reset();
            Err(Failure::handshake(Cause::Io(error)))
        }
    }
}

/// Ends when the client has gone. What it says meanwhile is the target's.
async fn departure<S: Socket>(client: &S, inbox: &mut Inbox) -> Cause {
    while inbox.make_room() {
        match inbox.read(client).await {
            Ok(0) => return Cause::Truncated,
            Ok(_) => {}
            Err(error) => return Cause::Io(error),
        }
    }
    // Whoever talks so much is there, and is bounded by the time.
    std::future::pending().await
}

/// Begins to wait for the target. Gives the address at which it may connect.
async fn wait<N: Net>(
    door: &Arc<Door<N>>,
    client: &N::Socket,
    target: &Address,
    asker: Asker<'_>,
) -> Result<(Waiting<N>, SocketAddr), Failure> {
    let who = Who::Client(asker);
    let forbidden = &door.inbound.forbidden;
    judge_target(target, forbidden).map_err(|rule| connect(Cause::Forbidden(rule)))?;
    let (route, known) = decide(door, who, target).await?;
    if route.is_direct() {
        let expected = addresses(door, target, known).await?;
        let listening = listen(door, client, expected.first());
        let (listener, address) = listening.map_err(|error| connect(Cause::Io(error)))?;
        return Ok((Waiting::Here(listener, expected), address));
    }
    // As an address to be led to, that of anybody may be forbidden.
    let forbidden = if expects_anybody(target) { &NOTHING_FORBIDDEN } else { &**forbidden };
    let errand = Errand { addresses: known.as_deref(), ..Errand::new(Command::Bind, target, forbidden) };
    let agreed = follow(door, route, who, &errand).await?;
    let address = agreed.bound().unwrap_or(UNKNOWN);
    Ok((Waiting::AtParent(agreed), address))
}

/// Whether it is an address that is nobody's.
fn expects_anybody(target: &Address) -> bool {
    matches!(target, Address::Ip(address) if address.ip().is_unspecified())
}

/// Whom the client must not be led to it may not wait for either.
fn judge_target(target: &Address, forbidden: &Forbidden) -> Result<(), Rule> {
    match target {
        Address::Ip(_) if expects_anybody(target) => Ok(()),
        Address::Ip(address) => judge(*address, forbidden),
        Address::Name(name, _) => forbidden.check_name(name.as_str()).map_or(Ok(()), Err),
    }
}

/// Whom the client expects; nobody in particular, if it says so. A name at whose addresses rules have looked has those, and no others.
async fn addresses<N: Net>(
    door: &Door<N>,
    target: &Address,
    known: Option<Vec<SocketAddr>>,
) -> Result<Vec<IpAddr>, Failure> {
    match target {
        Address::Ip(_) if expects_anybody(target) => Ok(Vec::new()),
        Address::Ip(address) => Ok(vec![address.ip().to_canonical()]),
        Address::Name(name, port) => {
            let addresses = match known {
                None => resolve(&door.net, name.as_str(), *port).await?,
                Some(known) if known.is_empty() => {
                    return Err(Failure::outbound(Stage::Resolve, Cause::NoAddress));
                }
                Some(known) => known,
            };
            let addresses = allowed(addresses, &door.inbound.forbidden).map_err(connect)?;
            Ok(addresses.iter().map(|address| address.ip().to_canonical()).collect())
        }
    }
}

/// Listens where `peer` would see us; where that cannot be known, where the client does.
fn listen<N: Net>(
    door: &Door<N>,
    client: &N::Socket,
    peer: Option<&IpAddr>,
) -> std::io::Result<(N::Listener, SocketAddr)> {
    let ip = match peer {
        Some(peer) => door.net.source_towards(*peer)?,
        None => client.local_addr()?.ip().to_canonical(),
    };
    let listener = door.net.listen(ip, door.inbound.tcp)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl<N: Net> Waiting<N> {
    /// The target, once it has come, and its address.
    async fn arrival(
        self,
        door: &Door<N>,
        asker: Asker<'_>,
    ) -> Result<(TargetSide<N::Socket>, SocketAddr), Failure> {
        match self {
            Self::Here(mut listener, expected) => loop {
                let (socket, source) = listener.accept().await.map_err(|error| connect(Cause::Io(error)))?;
                let may_come = if expected.is_empty() {
                    route_to(door, asker, source).await.is_ok_and(Route::is_direct)
                } else {
                    expected.contains(&source.ip().to_canonical())
                };
                if may_come {
                    return Ok((TargetSide::direct(Conn::Socket(socket)), source));
                }
                // RFC 1928, section 4: others than the one who is expected are not let in.
                socket.reset();
            },
            Self::AtParent(mut agreed) => {
                let second = agreed.arrival().await.map_err(connect)?.unwrap_or(UNKNOWN);
                // A parent that does not tell who has come has to be trusted to let nobody else in.
                if !second.ip().is_unspecified()
                    && let Err(failure) = route_to(door, asker, second).await
                {
                    agreed.socket.reset();
                    return Err(failure);
                }
                Ok((agreed, second))
            }
        }
    }
}

/// By which way the client would be led to whoever has come from `source`, if it may be at all. Where anybody may come it is not known
/// before who will.
async fn route_to<'d, N: Net>(
    door: &'d Door<N>,
    asker: Asker<'_>,
    source: SocketAddr,
) -> Result<&'d Route, Failure> {
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    judge(source, &door.inbound.forbidden).map_err(|rule| connect(Cause::Forbidden(rule)))?;
    decide(door, Who::Client(asker), &source.into()).await.map(|(route, _)| route)
}

async fn refuse_first<S: Socket>(client: S, pending: Pending, failure: Failure) -> Failure {
    let mut answer = Vec::new();
    pending.reject(failure.refusal(), &mut answer);
    part(client, &answer).await;
    failure
}

async fn refuse_second<S: Socket>(client: S, pending: PendingPeer, failure: Failure) -> Failure {
    let mut answer = Vec::new();
    pending.reject(failure.refusal(), &mut answer);
    part(client, &answer).await;
    failure
}

/// Says the last words.
async fn part<S: Socket>(client: S, answer: &[u8]) {
    if write_all(&client, answer).await.is_ok() {
        see_off(&client, Instant::now() + REFUSAL_SECS_MAX).await;
    }
}

fn connect(cause: Cause) -> Failure {
    Failure::outbound(Stage::Connect, cause)
}

fn unheard_of() -> Failure {
    Failure::handshake(Cause::Command(Command::Bind))
}

const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
