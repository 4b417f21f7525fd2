//! `umbra route`: which way a session would take, and why.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;

use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::Refusal;
use umbra_relay::config::{Inbound, Path, Protocol, Route};
use umbra_relay::router::{Decision, Dial, Fit, Query, Reason, Rule, Transport};

use crate::flags::{Asked, Session};
use crate::probe::{Purpose, Row, dial_all, paths_of, rows_of, rows_of_servers, table};
use crate::reference::nearest;
use crate::report::Report;
use crate::resolve::Plan;
use crate::run::{plan_of, tell};

/// Explains what was asked for.
pub(crate) fn run(asked: Asked) -> ExitCode {
    let Asked { role, options, session, dials } = asked;
    let mut report = Report::default();
    let plan = plan_of(role, options, &mut report);
    let inbound = plan.as_ref().and_then(|plan| find_inbound(plan, &session, &mut report));
    let inbound = inbound.filter(|inbound| knows_user(inbound, &session, &mut report));
    let inbound = inbound.filter(|inbound| lets_in(inbound, &session, look_up, &mut report));
    tell(&report);
    let (Some(plan), Some(inbound)) = (&plan, inbound) else { return ExitCode::FAILURE };
    let Explained { text, mut rows, purpose } = explain(plan, inbound, &session, dials, look_up);
    // What is known already should not wait for a proxy that is silent.
    let _unheard = io::stdout().write_all(text.as_bytes());
    if let Some(purpose) = purpose.filter(|_| dials) {
        dial_all(&mut rows, &purpose, &inbound.forbidden);
    }
    if !rows.is_empty() {
        let _unheard = write!(io::stdout(), "\n{}", table(&rows));
    }
    ExitCode::SUCCESS
}

fn find_inbound<'p>(plan: &'p Plan, session: &Session, report: &mut Report) -> Option<&'p Inbound> {
    let inbounds = &plan.config.inbounds;
    let Some(name) = &session.inbound else { return inbounds.first() };
    let found = inbounds.iter().find(|inbound| *inbound.name == **name);
    if found.is_none() {
        let known: Vec<_> = inbounds.iter().map(|inbound| &*inbound.name).collect();
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", known.join(", ")),
        };
        report.error("--inbound", format!("there is no inbound {name}; {hint}"));
    }
    found
}

/// Whether the session is one that could come in there: of nobody in particular, or of a user.
fn knows_user(inbound: &Inbound, session: &Session, report: &mut Report) -> bool {
    let Some(user) = &session.user else { return true };
    let known = inbound.users();
    if known.contains(&user.as_str()) {
        return true;
    }
    let hint = match nearest(user, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if known.is_empty() => "nobody logs in there, so leave it out".into(),
        None => format!("there are {}", some_of(&known)),
    };
    report.error("--user", format!("there is no user {user} at {}; {hint}", inbound.name));
    false
}

/// As many of the `known` users as are told.
fn some_of(known: &[&str]) -> String {
    match known.split_at_checked(USERS_TOLD_MAX) {
        Some((told, more @ [_, ..])) => format!("{} and {} more", told.join(", "), more.len()),
        Some(_) | None => known.join(", "),
    }
}

/// Whether such a session could come in there at all.
fn lets_in(
    inbound: &Inbound,
    session: &Session,
    look_up: impl Fn(&Address) -> Vec<SocketAddr>,
    report: &mut Report,
) -> bool {
    let name = &inbound.name;
    let (carries, what, other) = if session.is_udp {
        (inbound.mode.datagrams().is_some(), "datagrams", "ask without it")
    } else {
        (inbound.mode.has_streams(), "streams", "ask with --udp")
    };
    if !carries {
        report.error(
            if session.is_udp { "--udp" } else { "TARGET" },
            format!("{name} carries no {what}; {other}, say another --inbound, or change its mode"),
        );
        return false;
    }
    if session.user.is_none() && must_log_in(inbound) && asks_who(inbound, session, look_up) {
        let users = some_of(&inbound.users());
        report.error(
            "--user",
            format!(
                "whoever comes in at {name} is one of its users, and a rule asks which; say one: {users}"
            ),
        );
        return false;
    }
    let Some((meant, whose)) = meant_for_all(inbound, session) else { return true };
    if *meant != session.target {
        report.error(
            "TARGET",
            format!("{whose} at {name} leads to {meant}, whatever is asked for; ask for that"),
        );
        return false;
    }
    true
}

/// Whether it depends on the user where the session goes. Names are asked for only if that could settle it.
fn asks_who(inbound: &Inbound, session: &Session, look_up: impl Fn(&Address) -> Vec<SocketAddr>) -> bool {
    let query = query_of(inbound, session);
    inbound.routes.asks_who(&query, None) && inbound.routes.asks_who(&query, Some(&look_up(&session.target)))
}

/// Whether nobody comes in there without being one of its users.
fn must_log_in(inbound: &Inbound) -> bool {
    match &inbound.protocol {
        Protocol::Proxy(door) => door.users.is_some(),
        Protocol::Shadowsocks(door) => door.keys.holders().all(|holder| door.keys.name(holder).is_some()),
        Protocol::Tunnel { .. } => false,
    }
}

/// What rules are asked about it.
fn query_of<'q>(inbound: &'q Inbound, session: &'q Session) -> Query<'q> {
    let Session { target, is_udp, source, user, inbound: _ } = session;
    let transport = if *is_udp { Transport::Udp } else { Transport::Tcp };
    Query { target, transport, source: *source, inbound: &inbound.name, user: user.as_deref() }
}

/// Where everything goes that comes in there, or that the user sends, and what it is that leads there.
fn meant_for_all<'i>(inbound: &'i Inbound, session: &Session) -> Option<(&'i Address, String)> {
    match &inbound.protocol {
        Protocol::Tunnel { target } => Some((target, "the tunnel".into())),
        Protocol::Shadowsocks(door) => {
            let user = session.user.as_deref()?;
            let holder = door.keys.holders().find(|holder| door.keys.name(*holder) == Some(user))?;
            Some((door.keys.forward(holder)?, format!("the forward of {user}")))
        }
        Protocol::Proxy(_) => None,
    }
}

/// What there is to say, the paths that a session may take, and what they are dialled for, if a session would get so far.
struct Explained {
    text: String,
    rows: Vec<Row>,
    purpose: Option<Purpose>,
}

/// Explains what becomes of `session`, for which `look_up` gives the addresses of names as the system does. Where nothing is dialled,
/// names are asked for only if a rule has to know.
fn explain(
    plan: &Plan,
    inbound: &Inbound,
    session: &Session,
    dials: bool,
    look_up: impl Fn(&Address) -> Vec<SocketAddr>,
) -> Explained {
    let query = query_of(inbound, session);
    let transport = query.transport;
    let what = match transport {
        Transport::Tcp => "a stream",
        Transport::Udp => "datagrams",
    };
    let mut lines = Lines::default();
    let user = session.user.as_ref().map_or_else(String::new, |user| format!(" of {user}"));
    lines.say(
        "target",
        format!("{}, {what}{user} from {} through {}", session.target, session.source, inbound.name),
    );
    let mut found = None;
    let decision = match inbound.routes.decide(&query, None) {
        Decision::Resolve => {
            let addresses = found.insert(look_up(&session.target));
            lines.say("address", in_words(addresses));
            inbound.routes.decide(&query, Some(addresses))
        }
        decided @ (Decision::Take { .. } | Decision::Unresolvable { .. }) => decided,
    };
    match decision {
        Decision::Take { rule, verdict, dial } => {
            lines.say("rule", rule_in_words(rule, &query, found.as_deref().unwrap_or_default()));
            let rows = follow(plan, transport, verdict, &mut lines);
            let allowed = found.and_then(|found| allowed_by(dial, found));
            tell_who_resolves(inbound, session, &rows, allowed.is_some(), &mut lines);
            let judged = match &allowed {
                Some(allowed) => allowed.clone(),
                None if matches!(session.target, Address::Ip(_)) => look_up(&session.target),
                None if dials && rows.iter().any(|row| row.resolves_here()) => look_up(&session.target),
                None => Vec::new(),
            };
            if !rows.is_empty() {
                tell_forbidden(inbound, session, &judged, &mut lines);
            }
            let purpose = if session.is_udp {
                ask(verdict, &inbound.forbidden, session, allowed, &mut lines).map(Purpose::Datagrams)
            } else {
                if verdict.is_direct() && allowed.as_ref().is_some_and(Vec::is_empty) {
                    lines.say("", "where the name has no address to connect to, so every one fails".into());
                }
                Some(Purpose::Stream { target: session.target.clone(), addresses: allowed })
            };
            Explained { text: lines.0, rows, purpose }
        }
        Decision::Unresolvable { rule } => {
            let why = "which refuses some addresses, and the name has none";
            lines.say("rule", format!("{}, {why}", rule.name));
            lines.say("way", "refused".into());
            Explained { text: lines.0, rows: Vec::new(), purpose: None }
        }
        Decision::Resolve => Explained { text: lines.0, rows: Vec::new(), purpose: None },
    }
}

/// Says where `route` leads, and gives the paths along it that a session of `transport` may take.
fn follow(plan: &Plan, transport: Transport, route: &Route, lines: &mut Lines) -> Vec<Row> {
    let (what, lost) = match transport {
        Transport::Tcp => ("streams", "every one is refused"),
        Transport::Udp => ("datagrams", "they are dropped"),
    };
    match route {
        Route::Refuse(refusal) => {
            lines.say("way", format!("refused: {}", refusal_in_words(*refusal)));
            Vec::new()
        }
        Route::Path(path) => {
            lines.say("way", format!("path {}", path.name));
            let carries = match transport {
                Transport::Tcp => path.has_streams(),
                Transport::Udp => path.has_datagrams(),
            };
            if !carries {
                lines.say("", format!("which carries no {what}, so {lost}"));
            }
            rows_of(&[Arc::clone(path)])
        }
        Route::Group(group) => {
            let rows = if Arc::ptr_eq(group, &plan.servers) {
                rows_of_servers(plan, Some(transport))
            } else {
                rows_of(&paths_of(group, Some(transport)))
            };
            lines.say("way", format!("group {}, one of {} paths", group.name, rows.len()));
            if rows.is_empty() {
                lines.say("", format!("of which none carries {what}, so {lost}"));
            }
            rows
        }
    }
}

/// Says which of the paths leave the name of the target to a proxy, which finds addresses that nobody here sees. Where a rule had to know
/// them, none does.
fn tell_who_resolves(inbound: &Inbound, session: &Session, rows: &[Row], is_known: bool, lines: &mut Lines) {
    let Address::Name(..) = &session.target else { return };
    let left = rows.iter().filter(|row| !row.resolves_here()).count();
    if is_known || left == 0 {
        return;
    }
    let whose = match (left, rows.len()) {
        (1, 1) => "whose last proxy resolves the name".to_owned(),
        (left, all) if left == all => "of which each has its last proxy resolve the name".to_owned(),
        (left, _) => format!("of which {left} have their last proxy resolve the name"),
    };
    // What is said below of addresses is not said of these.
    let unjudged = if inbound.forbidden.is_empty() { "" } else { ", to addresses that are not judged here" };
    lines.say("", format!("{whose}{unjudged}"));
}

fn tell_forbidden(inbound: &Inbound, session: &Session, addresses: &[SocketAddr], lines: &mut Lines) {
    if let Address::Name(name, _) = &session.target
        && let Some(rule) = inbound.forbidden.check_name(name.as_str())
    {
        lines.say("", format!("{} is forbidden ({rule}), and nobody is led there", name.as_str()));
        return;
    }
    let judged = addresses.iter().map(|address| (address.ip(), inbound.forbidden.check(address.ip())));
    for (address, rule) in judged.filter_map(|(address, rule)| Some((address, rule?))) {
        lines.say("", format!("{address} is forbidden ({rule}), and nobody is led there"));
    }
}

/// Whom datagrams along `route` are sent to, where rules have left these addresses of the name. Nothing, if they are dropped.
fn ask(
    route: &Route,
    forbidden: &Forbidden,
    session: &Session,
    left: Option<Vec<SocketAddr>>,
    lines: &mut Lines,
) -> Option<Address> {
    let paths = || paths_of_datagrams(route).into_iter();
    let target = match left.map(|left| one_of(left, forbidden)) {
        // Nobody here may look for another address than the rules have seen, and there is none.
        Some(None) if paths().all(|path| path.resolves_names()) => {
            lines.say("", "where the name has no address to send to, so they are dropped".into());
            return None;
        }
        Some(None) if paths().any(|path| path.resolves_names()) => {
            lines.say(
                "",
                "the name has no address to send to, so a path that resolves it here drops them".into(),
            );
            session.target.clone()
        }
        Some(Some(address)) => Address::Ip(address),
        Some(None) | None => session.target.clone(),
    };
    let rule = match &target {
        Address::Ip(address) => forbidden.check(address.ip()),
        Address::Name(name, _) => forbidden.check_name(name.as_str()),
    };
    rule.is_none().then_some(target)
}

/// The paths along `route` that datagrams may take.
fn paths_of_datagrams(route: &Route) -> Vec<Arc<Path>> {
    match route {
        Route::Path(path) => vec![Arc::clone(path)],
        Route::Group(group) => group.paths_of_datagrams(),
        Route::Refuse(_) => Vec::new(),
    }
}

/// The one of `addresses` that datagrams are sent to, by the order of a session: those come first that there is a route to.
fn one_of(mut addresses: Vec<SocketAddr>, forbidden: &Forbidden) -> Option<SocketAddr> {
    addresses.sort_by_cached_key(|address| !has_route(*address));
    Dial::Addresses.one_of(&addresses, forbidden)
}

/// Whether the system knows a way to `address`. It sends nothing for that.
fn has_route(address: SocketAddr) -> bool {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address)).is_ok()
}

/// The addresses of the target, asked of the system as a session would.
fn look_up(target: &Address) -> Vec<SocketAddr> {
    match target {
        Address::Ip(address) => vec![*address],
        Address::Name(name, port) => {
            (name.as_str(), *port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
        }
    }
}

/// Those of the addresses that a session may dial; nothing, where the name may be asked for anew.
fn allowed_by(dial: Dial<'_>, addresses: Vec<SocketAddr>) -> Option<Vec<SocketAddr>> {
    match dial {
        Dial::Target => None,
        Dial::Addresses | Dial::Within(_) => {
            Some(addresses.into_iter().filter(|address| dial.allows(address.ip())).collect())
        }
    }
}

fn in_words(addresses: &[SocketAddr]) -> String {
    if addresses.is_empty() {
        return "none is known".into();
    }
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
}

/// Which rule it is, and what in it fits the session.
fn rule_in_words(rule: Option<&Rule<Route>>, query: &Query<'_>, addresses: &[SocketAddr]) -> String {
    let Some(rule) = rule else { return "none fits: otherwise".into() };
    let reasons = rule.conditions.explain(query, addresses);
    let reasons: Vec<_> = reasons.into_iter().map(reason_in_words).collect();
    match reasons.split_last() {
        None => rule.name.to_string(),
        Some((last, [])) => format!("{}, which has {last}", rule.name),
        Some((last, before)) => format!("{}, which has {} and {last}", rule.name, before.join(", ")),
    }
}

fn reason_in_words(reason: Reason<'_>) -> String {
    match reason {
        Reason::Target(Fit::Exact(name)) => format!("the name {name}"),
        Reason::Target(Fit::Suffix(name)) => format!("{name} with all below it"),
        Reason::Target(Fit::Keyword(word)) => format!("the word {word}"),
        Reason::Target(Fit::Pattern(pattern)) => format!("the pattern {pattern}"),
        Reason::Target(Fit::Range(first, last)) => range_in_words(first, last),
        Reason::Port(range) if range.start() == range.end() => format!("the port {}", range.start()),
        Reason::Port(range) => format!("the ports {} to {}", range.start(), range.end()),
        Reason::Source(first, last) => format!("the source {}", range_in_words(first, last)),
        Reason::Inbound(name) => format!("the inbound {name}"),
        Reason::User(name) => format!("the user {name}"),
        Reason::Transport(Transport::Tcp) => "the network tcp".into(),
        Reason::Transport(Transport::Udp) => "the network udp".into(),
    }
}

fn range_in_words(first: IpAddr, last: IpAddr) -> String {
    if first == last { first.to_string() } else { format!("{first} to {last}") }
}

fn refusal_in_words(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::GeneralFailure => "general failure",
        Refusal::Overloaded => "overloaded",
        Refusal::NotAllowed => "not allowed",
        Refusal::NetworkUnreachable => "network unreachable",
        Refusal::HostUnreachable => "host unreachable",
        Refusal::NameNotFound => "name not found",
        Refusal::ConnectionRefused => "connection refused",
        Refusal::TimedOut => "timed out",
        Refusal::CommandNotSupported => "command not supported",
        Refusal::AddressTypeNotSupported => "address type not supported",
    }
}

/// A port may have thousands.
const USERS_TOLD_MAX: usize = 10;

/// What is said, each line under its word.
#[derive(Default)]
struct Lines(String);

impl Lines {
    #[expect(clippy::needless_pass_by_value, reason = "each line is made for this")]
    fn say(&mut self, word: &str, line: String) {
        let _infallible = writeln!(self.0, "{word:8} {line}");
    }
}

#[cfg(test)]
#[path = "tests/route.rs"]
mod tests;
