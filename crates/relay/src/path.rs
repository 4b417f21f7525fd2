//! The way to a target, dialled hop by hop.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::debug;
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::{Command, Refusal};

use crate::config::{Group, Hop, Names, Parent, ParentProtocol, Path, Route, Server, Tcp};
use crate::conn::Conn;
use crate::dial::{NOTHING_FORBIDDEN, allowed, dial, dial_any, dial_target, judge, resolve};
use crate::door::Door;
use crate::drive::Inbox;
use crate::failure::{At, Cause, Failure, Side, Stage, Whereabouts};
use crate::group::{Doubtful, Ending, Held, Outcome, Wanted};
use crate::inbound::ClientSide;
use crate::net::{Net, Socket};
use crate::notice::Notices;
use crate::parent::{Agreed, Asked, Visitor, arrival, negotiate};
use crate::pipe::{Pipe, pipe};
use crate::probe::wake;
use crate::pump::{Reader, Writer};
use crate::router::{Decision, Dial, Query, Transport};
use crate::session::{Session, Unfinished};
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
    /// Where nobody is led, as far as it is known here where that is.
    pub(crate) forbidden: &'e Forbidden,
    /// When nobody waits for it any more, where that is before all the deadlines on the way have passed.
    pub(crate) until: Option<Instant>,
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
    /// One of whose target nothing more is known.
    pub(crate) fn new(command: Command, target: &'e Address, forbidden: &'e Forbidden) -> Self {
        Self { command, target, addresses: None, forbidden, until: None }
    }

    /// One that no client has asked for.
    pub(crate) fn of_our_own(command: Command, target: &'e Address) -> Self {
        Self::new(command, target, &NOTHING_FORBIDDEN)
    }
}

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
    /// Who is at the other end of the socket.
    pub(crate) whereabouts: Whereabouts,
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
        let whereabouts = Whereabouts::default();
        Self { socket, reader, writer, inbox, bound: Bound::Ours, visitor: None, whereabouts }
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
    follow(door, route, who, &Errand { addresses: addresses.as_deref(), ..errand }).await
}

/// What comes of `dialling`, unless `client`, for whom it is, is known to be gone before. An end of what it has to say is none of that: it
/// may have said all, and wait for the answer. What is dropped then has failed at nobody.
pub(crate) async fn unless_gone<S: Socket, T>(
    client: &S,
    dialling: Pin<&mut impl Future<Output = Result<T, Failure>>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        dialled = dialling => dialled,
        () = client.broken() => {
            let reset = Cause::Io(io::ErrorKind::ConnectionReset.into());
            Err(Failure::new(Stage::Connect, Side::Inbound, reset))
        }
    }
}

/// Dials the way towards the target of `errand` along `route`, which has been decided on for it.
pub(crate) async fn follow<N: Net>(
    door: &Arc<Door<N>>,
    route: &Route,
    who: Who<'_>,
    errand: &Errand<'_>,
) -> Result<TargetSide<N::Socket>, Failure> {
    match route {
        Route::Path(path) => {
            let tried = path.tally.begin();
            let reached = travel(door, path, errand, door.inbound.tcp).await;
            let reached = reached.map_err(|failure| failure.along(&path.name));
            match &reached {
                Ok(_) => tried.end(Outcome::Reached { latency: None }, None),
                Err(failure) => tried.end(failure.outcome(path.hops.len()), Some(failure)),
            }
            reached
        }
        Route::Group(group) => through(door, group, who, errand).await,
        // Such a route is decided about before it comes here.
        Route::Refuse(refusal) => Err(refused("otherwise", *refusal)),
    }
}

/// The route of a session, and the addresses that may be dialled for its name, where a rule had to know them.
pub(crate) async fn decide<'d, N: Net>(
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
            match Box::pin(resolve(&door.net, name.as_str(), *port)).await {
                Ok(addresses) => taken(&routes.decide(&query, Some(&addresses)), Some(addresses)),
                Err(failure) => match routes.decide(&query, Some(&[])) {
                    Decision::Unresolvable { .. } | Decision::Resolve => Err(failure),
                    decision @ Decision::Take { .. } => taken(&decision, None),
                },
            }
        }
        (decision, _) => taken(&decision, None),
    }
}

fn taken<'r>(
    decision: &Decision<'r, Route>,
    addresses: Option<Vec<SocketAddr>>,
) -> Result<(&'r Route, Option<Vec<SocketAddr>>), Failure> {
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
    errand: &Errand<'_>,
) -> Result<TargetSide<N::Socket>, Failure> {
    // A dead hop would count as reached, and the next path would never be tried.
    let is_alone = group.streams.with_state(|state| state.len() == 1);
    let tcp = Tcp { fast_open: door.inbound.tcp.fast_open && is_alone, ..door.inbound.tcp };
    let wanted = Wanted { target: errand.target, source: who.source(), chance: chance(&door.net) };
    let begun = Instant::now();
    let mut attempts = group.streams.begin(&wanted, begun);
    let until = attempts.until();
    let errand = Errand { until: Some(until), ..*errand };
    // Whoever probed it may have ended with its own relay, however much the group is in use.
    wake(door, group);
    let mut search = Search { group, notices: &door.notices, doubts: Vec::new(), told: None };
    let mut now = begun;
    while let Some(mut held) = group.streams.next(&mut attempts, now) {
        let path = Arc::clone(held.member());
        debug!(path = %path.name, "chosen path");
        let (tried, began) = (path.tally.begin(), now);
        let travelled = travel(door, &path, &errand, tcp).await;
        now = Instant::now();
        let failure = match travelled {
            Ok(reached) => {
                let outcome = Outcome::Reached { latency: Some(now.saturating_duration_since(began)) };
                tried.end(outcome, None);
                door.notices.change(group, &path, held.report(outcome, now), None);
                search.reached(&path, now);
                return Ok(reached);
            }
            Err(failure) => failure.along(&path.name),
        };
        let is_over = now >= until;
        // The time of the group, and not its own, has run out: it has not had enough of it to be judged, unless there was no more of it. If it
        // has had its share, others may be worth more of the next session's time.
        let is_short = now.saturating_duration_since(began) < path.deadlines.connect;
        let was_cut = is_over && is_short && !attempts.are_of_one_turn();
        let outcome = match (was_cut, held.is_overdue(until)) {
            (true, false) => Outcome::Abandoned,
            (true, true) => Outcome::Silent,
            (false, _) => failure.outcome(path.hops.len()),
        };
        tried.end(outcome, Some(&failure));
        if matches!(failure.cause, Cause::Deadline) {
            held.has_run_late(now);
        }
        if would_be_repeated(outcome) {
            attempts.leave();
        }
        if would_be_repeated(outcome) || is_over {
            held.end_turn();
        }
        search.failed(held, outcome, failure, now);
        if is_over {
            break;
        }
    }
    // Who came last when the time ran out has not been asked to the end.
    let has_asked_all = now < until && group.streams.with_state(|state| state.has_tried_all(&attempts, now));
    Err(search.ended(if has_asked_all { Ending::AllAsked } else { Ending::SomeLeft }, now))
}

/// Whether another one may lead to the target, and show who was to blame.
fn is_doubtful(outcome: Outcome, failure: &Failure) -> bool {
    match outcome {
        Outcome::Doubtful | Outcome::Silent => true,
        Outcome::Declined => failure.is_unreached(),
        Outcome::Failed | Outcome::Abandoned | Outcome::Reached { .. } => false,
    }
}

/// Whether whoever came to `outcome` would come to it again: the target is to blame, or we are.
fn would_be_repeated(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Failed | Outcome::Doubtful | Outcome::Silent => false,
        Outcome::Reached { .. } | Outcome::Declined | Outcome::Abandoned => true,
    }
}

/// What a session has found in a group while it looks for one who leads to its target.
struct Search<'g> {
    group: &'g Group,
    notices: &'g Notices,
    /// Those who have not led there, until it is known who was to blame.
    doubts: Vec<Doubt<'g>>,
    /// What the client is told if nobody does.
    told: Option<(Outcome, Failure)>,
}

/// That it is one of them who is to blame.
struct Doubt<'g> {
    whom: Doubtful<'g, Path>,
    why: String,
}

impl<'g> Search<'g> {
    /// One has not led there.
    fn failed(&mut self, held: Held<'g, Path>, outcome: Outcome, failure: Failure, now: Instant) {
        debug!(path = %held.member().name, %failure, "path led nowhere");
        if is_doubtful(outcome, &failure) {
            let why = failure.to_string();
            self.doubts.extend(held.doubt(outcome, now).map(|whom| Doubt { whom, why }));
        } else {
            let path = Arc::clone(held.member());
            self.notices.change(self.group, &path, held.report(outcome, now), Some(&failure));
        }
        // What was heard of the target is truer than what goes wrong with somebody else on the way.
        let has_heard = |told: &(Outcome, Failure)| told.0 == Outcome::Declined;
        if outcome == Outcome::Declined || !self.told.as_ref().is_some_and(has_heard) {
            self.told = Some((outcome, failure));
        }
    }

    /// `reached` has been reached. If that shows that the target is there, it was not that which was to blame.
    fn reached(mut self, reached: &Arc<Path>, now: Instant) {
        // Whoever was in doubt itself has seen the target change its mind, which it may have done for the others as well.
        let doubts = self.doubts.len();
        self.doubts.retain(|doubt| !Arc::ptr_eq(doubt.whom.member(), reached));
        let has_changed = self.doubts.len() < doubts;
        if has_changed || !tells_of_targets(reached) {
            return self.settle(Ending::Untold, now);
        }
        for Doubt { whom, why } in self.doubts {
            let path = Arc::clone(whom.member());
            self.notices.change(self.group, &path, whom.blame(reached.member(), now), Some(&why));
        }
    }

    /// Nobody leads there, as far as the session has looked. Tells why.
    fn ended(mut self, ending: Ending, now: Instant) -> Failure {
        let told = self.told.take();
        // Where nobody is tried, no path has failed, and the operator has to know which group it is.
        let nobody = || Failure::outbound(Stage::Connect, Cause::NoPath).along(&self.group.name);
        let failure = told.map_or_else(nobody, |(_, failure)| failure);
        self.settle(ending, now);
        failure
    }

    /// Nobody is known to lead there. Some may be to blame all the same.
    fn settle(self, ending: Ending, now: Instant) {
        for Doubt { whom, why } in self.doubts {
            let path = Arc::clone(whom.member());
            self.notices.change(self.group, &path, whom.settle(ending, now), Some(&why));
        }
    }
}

/// Whether one who has been led along `path` has been led to the target: a Shadowsocks server says nothing of that.
fn tells_of_targets(path: &Path) -> bool {
    match path.hops.last() {
        None | Some(Hop::Parent(_)) => true,
        Some(Hop::Shadowsocks(_)) => false,
    }
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
pub(crate) fn travel<'e, N: Net>(
    door: &'e Arc<Door<N>>,
    path: &'e Path,
    errand: &'e Errand<'e>,
    tcp: Tcp,
) -> impl Future<Output = Result<TargetSide<N::Socket>, Failure>> + Send + use<'e, N> {
    travel_through(door, path, &path.hops, errand, tcp)
}

/// Dials `hops`, the first ones of `path`, as [`travel`] dials all of them.
pub(crate) async fn travel_through<N: Net>(
    door: &Arc<Door<N>>,
    path: &Path,
    hops: &[Hop],
    errand: &Errand<'_>,
    tcp: Tcp,
) -> Result<TargetSide<N::Socket>, Failure> {
    match (hops.first(), hops.last()) {
        (Some(first), Some(last)) => hop_by_hop(door, path, hops, (first, last), errand, tcp).await,
        (Some(_) | None, _) => {
            let reached = straight(door, errand, tcp, path.deadlines.connect).await?;
            Ok(TargetSide { whereabouts: Whereabouts::Target(Arc::clone(&path.name)), ..reached })
        }
    }
}

/// Dials `hops`, of which these are the first and the last.
async fn hop_by_hop<N: Net>(
    door: &Arc<Door<N>>,
    path: &Path,
    hops: &[Hop],
    (first, last): (&Hop, &Hop),
    errand: &Errand<'_>,
    tcp: Tcp,
) -> Result<TargetSide<N::Socket>, Failure> {
    if !last.knows(errand.command) {
        return Err(Failure::handshake(Cause::Command(errand.command)));
    }
    let here = |number| At { path: Arc::clone(&path.name), hop: number };
    // Whom each hop is asked for. All of it is found before anybody is dialled, so that nobody is left in the middle of it.
    let mut nexts = Vec::with_capacity(hops.len() - 1);
    for (number, (hop, after)) in (2..).zip(hops.iter().zip(hops.iter().skip(1))) {
        let settling = pin!(settle(door, hop, after.address(), None, &NOTHING_FORBIDDEN));
        let settled = in_time(errand.until, Stage::Resolve, settling).await;
        nexts.push(settled.map_err(|failure| failure.at(here(number)))?);
    }
    // A target whose name has no address is no fault of any hop.
    let target = {
        let settling = pin!(settle(door, last, errand.target, errand.addresses, errand.forbidden));
        in_time(errand.until, Stage::Resolve, settling).await?
    };
    // Whoever is asked in the open answers before anything else is said, so that nothing is promised too early; and a Shadowsocks
    // server is always spoken to first.
    let tcp = Tcp { fast_open: tcp.fast_open && hops.len() == 1, ..tcp };
    let dialled = {
        let (patience, until) = deadlines_of_dial(first.address(), path.deadlines.connect, errand.until);
        let dialling = pin!(dial(&door.net, first.address(), tcp, patience));
        in_time(until, Stage::Connect, dialling).await
    };
    let dialled = dialled.map_err(|failure| failure.at(here(1)))?;
    // Only somebody who is to come back has to know.
    let is_awaited = errand.command != Command::Connect;
    if is_awaited {
        dialled.watch_peer();
    }
    let first_at = is_awaited.then(|| dialled.peer_addr().ok()).flatten().map(|address| address.ip());
    let mut reached = TargetSide::direct(Conn::Socket(dialled));
    for (number, (hop, next)) in (1..).zip(hops.iter().zip(nexts.iter().chain([&target]))) {
        if let Reader::Sealed(_) = reached.reader {
            // What is behind it speaks through a layer that has to be sealed and opened first.
            let inside = inside(door, reached, here(number - 1));
            reached = TargetSide::direct(Conn::inside(inside));
        }
        let command = if number == hops.len() { errand.command } else { Command::Connect };
        let agreed = match hop {
            Hop::Shadowsocks(server) => request(door, server, reached, command, next),
            Hop::Parent(parent) => {
                let own = Instant::now() + path.deadlines.negotiate;
                let until = errand.until.map_or(own, |until| until.min(own));
                let parent_at = first_at.filter(|_| number == 1);
                let TargetSide { socket, inbox, .. } = reached;
                let asked = Asked::default();
                let whom = Whom { parent, at: parent_at, asked: &asked };
                let asking = pin!(ask(door, whom, (socket, inbox), (command, next), || here(number)));
                let answer = in_time(Some(until), Stage::Negotiate, asking).await;
                answer.map_err(|failure| if asked.is_so() { failure.of_asked() } else { failure })
            }
        };
        reached = agreed.map_err(|failure| failure.at(here(number)))?;
        reached.whereabouts = Whereabouts::Hop(here(number));
    }
    Ok(reached)
}

/// How long each address may be waited for, and until when all of it, if that has to be looked to as well: where an address is all that
/// there is, one deadline is enough.
fn deadlines_of_dial(
    address: &Address,
    connect: Duration,
    until: Option<Instant>,
) -> (Duration, Option<Instant>) {
    match (address, until) {
        (Address::Ip(_), Some(until)) => (connect.min(until.saturating_duration_since(Instant::now())), None),
        (Address::Ip(_) | Address::Name(..), until) => (connect, until),
    }
}

/// Holds a step to `until`, if there is such a time. It stays where it lies: a future that is given away is there twice, for whoever
/// gives it and whoever has it.
pub(crate) async fn in_time<T>(
    until: Option<Instant>,
    stage: Stage,
    step: Pin<&mut impl Future<Output = Result<T, Failure>>>,
) -> Result<T, Failure> {
    match until {
        Some(until) => match timeout_at(until, step).await {
            Ok(done) => done,
            Err(_) => Err(Failure::outbound(stage, Cause::Deadline)),
        },
        None => step.await,
    }
}

/// Dials the target itself.
async fn straight<N: Net>(
    door: &Door<N>,
    errand: &Errand<'_>,
    tcp: Tcp,
    patience: Duration,
) -> Result<TargetSide<N::Socket>, Failure> {
    // Fast open would say "connected" before anything has been sent, and nothing is sent to a target that speaks first.
    let tcp = Tcp { fast_open: false, ..tcp };
    if errand.command != Command::Connect {
        return Err(Failure::handshake(Cause::Command(errand.command)));
    }
    let dialling = pin!(async {
        match errand.addresses {
            None => dial_target(&door.net, errand.target, tcp, errand.forbidden, patience).await,
            Some(addresses) => {
                let addresses = addresses.to_vec();
                Box::pin(dial_any(&door.net, addresses, tcp, errand.forbidden, patience)).await
            }
        }
    });
    let dialled = in_time(errand.until, Stage::Connect, dialling).await?;
    Ok(TargetSide::direct(Conn::Socket(dialled)))
}

/// `address` as `hop` is to be asked for it. Where rules have looked at `addresses`, none of them is left to be found anew: one of
/// them is asked for; if there are none, nobody here may look for others, while a hop to which names are passed on is told the name.
/// What is `forbidden` no hop is asked for: it may be where we are, or next to us.
async fn settle<N: Net>(
    door: &Door<N>,
    hop: &Hop,
    address: &Address,
    addresses: Option<&[SocketAddr]>,
    forbidden: &Forbidden,
) -> Result<Address, Failure> {
    let refused = |cause| Failure::outbound(Stage::Connect, cause);
    let (name, port) = match address {
        Address::Ip(ip) => {
            judge(*ip, forbidden).map_err(|rule| refused(Cause::Forbidden(rule)))?;
            return Ok(address.clone());
        }
        Address::Name(name, port) => (name, port),
    };
    let (is_resolved_here, is_socks4) = match hop {
        Hop::Shadowsocks(_) => (false, false),
        Hop::Parent(parent) => {
            let is_socks4 = match parent.protocol {
                ParentProtocol::Socks4(_) => true,
                ParentProtocol::Socks5(_) | ParentProtocol::Http(_) => false,
            };
            (parent.names == Names::ResolveHere, is_socks4)
        }
    };
    let found;
    let addresses = match addresses {
        None if is_resolved_here => {
            found = resolve(&door.net, name.as_str(), *port).await?;
            &*found
        }
        None => &[],
        Some([]) if is_resolved_here => return Err(Failure::outbound(Stage::Resolve, Cause::NoAddress)),
        Some(addresses) => addresses,
    };
    if let Some(rule) = forbidden.check_name(name.as_str()) {
        return Err(refused(Cause::Forbidden(rule)));
    }
    let addresses = allowed(addresses.to_vec(), forbidden).map_err(refused)?;
    // SOCKS4 has no words for the others.
    let fits = |address: &&SocketAddr| address.is_ipv4() || !is_socks4;
    let chosen = addresses.iter().find(fits).or(addresses.first());
    Ok(chosen.map_or_else(|| address.clone(), |address| Address::Ip(*address)))
}

/// A parent that is asked.
struct Whom<'p> {
    parent: &'p Parent,
    /// Where it is, as far as that is known.
    at: Option<IpAddr>,
    /// Whether it has been.
    asked: &'p Asked,
}

/// Asks a parent, at the other end of `socket`, for `command` towards `next`.
async fn ask<N: Net>(
    door: &Door<N>,
    Whom { parent, at, asked }: Whom<'_>,
    (socket, mut inbox): (Conn<N::Socket>, Inbox),
    (command, next): (Command, &Address),
    here: impl FnOnce() -> At,
) -> Result<TargetSide<N::Socket>, Failure> {
    let failure = |cause| Failure::outbound(Stage::Negotiate, cause);
    let socket = match &parent.tls {
        None => socket,
        Some(tls) => {
            // Whatever was said before the parent has shown who it is, somebody else may have said.
            inbox.clear();
            let wrapped = Box::pin(wrap(socket, tls, here(), door.inbound.idle)).await;
            Conn::inside(wrapped.map_err(failure)?)
        }
    };
    // It may have agreed without our hearing of it, and whoever is behind it must not take our leaving for an end in order.
    let unanswered = Unfinished::new(&socket);
    let answer = negotiate(&socket, &mut inbox, parent, (command, next), asked).await;
    match &answer {
        Ok(_) | Err(Cause::Parent(_) | Cause::Command(_)) => unanswered.finish(),
        Err(_) => drop(unanswered),
    }
    let Agreed { bound, visitor } = answer.map_err(|cause| {
        let is_unknown = matches!(&cause, Cause::Parent(error) if error.is_unknown_command());
        // As when it is known before: it has no words for this, and is well.
        let is_well = is_unknown && command != Command::Connect;
        failure(if is_well { Cause::Command(command) } else { cause })
    })?;
    let parent_at = match &parent.address {
        Address::Ip(address) => Some(address.ip()),
        Address::Name(..) => at,
    };
    let bound = bound.map(|bound| reachable(bound, command, parent_at));
    Ok(TargetSide { inbox, bound: Bound::Theirs(bound), visitor, ..TargetSide::direct(socket) })
}

/// Where the client or its target is to come. Some parents tell none but the port: it is where they are themselves.
fn reachable(bound: SocketAddr, command: Command, parent_at: Option<IpAddr>) -> SocketAddr {
    match (command, parent_at) {
        (Command::Bind | Command::UdpAssociate, Some(ip)) if bound.ip().is_unspecified() => {
            SocketAddr::new(ip, bound.port())
        }
        (Command::Connect | Command::Bind | Command::UdpAssociate, _) => bound,
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

    use umbra_proto::shadowsocks::Method;
    use umbra_proto::shadowsocks::identity::Credentials;

    use crate::config::{Inbound, Mode, Protocol, ProxyDoor, ProxyHeader};
    use crate::group::Settings;
    use crate::refusing::Refusing;

    /// Whether each dial of a path asks for fast open where the operator does.
    async fn fast_opens(route: Route) -> Vec<bool> {
        let door = Arc::new(Door::new(inbound(route), Refusing::default(), 1));
        let target = "127.0.0.1:1".parse().unwrap();
        let errand = Errand::of_our_own(Command::Connect, &target);
        let outcome = Box::pin(reach(&door, Who::Operator, errand)).await;
        assert!(outcome.is_err_and(|failure| matches!(failure.cause, Cause::Io(_))));
        door.net.dialled().into_iter().map(|(_, tcp)| tcp.fast_open).collect()
    }

    fn inbound(route: Route) -> Inbound {
        Inbound {
            name: "door".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            protocol: Protocol::Proxy(ProxyDoor::MIXED),
            routes: route.into(),
            mode: Mode::Streams,
            forbidden: Arc::default(),
            idle: Duration::from_secs(1),
            tcp: Tcp { no_delay: true, fast_open: true },
            proxy_header: ProxyHeader::default(),
        }
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

    /// What a parent is asked for when it is told addresses, and a name has these.
    async fn asked_for(texts: &[&str]) -> Result<Address, Cause> {
        let addresses = texts.iter().map(|text| text.parse().unwrap()).collect();
        let parent = Parent::socks5("192.0.2.9:1080".parse().unwrap(), None);
        let hop = Hop::Parent(Parent { names: Names::ResolveHere, ..parent });
        let door = Door::new(inbound(Route::direct()), Refusing::knowing(addresses), 1);
        let name = "name.example:1".parse().unwrap();
        let settled = settle(&door, &hop, &name, None, &Forbidden::standard()).await;
        settled.map_err(|failure| failure.cause)
    }

    #[tokio::test]
    async fn a_name_is_never_asked_for_by_an_address_that_is_forbidden() {
        let asked = asked_for(&["127.0.0.1:1", "192.0.2.1:1"]).await;
        assert_eq!(asked.unwrap(), "192.0.2.1:1".parse().unwrap());
        assert!(matches!(asked_for(&["[::1]:1", "127.0.0.1:1"]).await, Err(Cause::Forbidden(_))));
    }

    #[tokio::test]
    async fn a_group_of_which_nobody_is_left_is_named() {
        let group = Route::Group(Arc::new(Group::new("both", Settings::default(), Vec::new())));
        let door = Arc::new(Door::new(inbound(group), Refusing::default(), 1));
        let target = "127.0.0.1:1".parse().unwrap();
        let errand = Errand::of_our_own(Command::Connect, &target);
        let Err(failure) = Box::pin(reach(&door, Who::Operator, errand)).await else { panic!("reached") };
        assert!(matches!(failure.cause, Cause::NoPath), "{failure}");
        assert_eq!(failure.path.as_deref(), Some("both"));
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
