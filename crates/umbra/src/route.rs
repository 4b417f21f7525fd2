//! `umbra route`: which way a session would take, and why.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::Arc;

use umbra_proto::address::Address;
use umbra_proto::request::Refusal;
use umbra_relay::config::{Inbound, Protocol, Route};
use umbra_relay::router::{Decision, Dial, Fit, Query, Reason, Rule, Transport};

use crate::flags::{Asked, Session};
use crate::probe::{Purpose, Row, dial_all, rows_of, rows_of_servers, table};
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
    let inbound = inbound.filter(|inbound| lets_in(inbound, &session, &mut report));
    tell(&report);
    let (Some(plan), Some(inbound)) = (&plan, inbound) else { return ExitCode::FAILURE };
    let Explained { text, mut rows, addresses } = explain(plan, inbound, &session, dials);
    // What is known already should not wait for a proxy that is silent.
    let _unheard = io::stdout().write_all(text.as_bytes());
    if dials {
        let purpose = if session.is_udp {
            Purpose::Datagrams(session.target.clone())
        } else {
            Purpose::Stream { target: session.target.clone(), addresses }
        };
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
        None if known.len() > USERS_TOLD_MAX => {
            format!(
                "there are {} and {} more",
                known[..USERS_TOLD_MAX].join(", "),
                known.len() - USERS_TOLD_MAX
            )
        }
        None => format!("there are {}", known.join(", ")),
    };
    report.error("--user", format!("there is no user {user} at {}; {hint}", inbound.name));
    false
}

/// Whether such a session could come in there at all.
fn lets_in(inbound: &Inbound, session: &Session, report: &mut Report) -> bool {
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

/// What there is to say, the paths that a session may take, and the addresses that may be dialled for its name, where a rule had to know
/// them.
struct Explained {
    text: String,
    rows: Vec<Row>,
    addresses: Option<Vec<SocketAddr>>,
}

fn explain(plan: &Plan, inbound: &Inbound, session: &Session, dials: bool) -> Explained {
    let (transport, what) =
        if session.is_udp { (Transport::Udp, "datagrams") } else { (Transport::Tcp, "a stream") };
    let query = Query {
        target: &session.target,
        transport,
        source: session.source,
        inbound: &inbound.name,
        user: session.user.as_deref(),
    };
    let mut lines = Lines::default();
    let user = session.user.as_ref().map_or_else(String::new, |user| format!(" of {user}"));
    lines.say(
        "target",
        format!("{}, {what}{user} from {} through {}", session.target, session.source, inbound.name),
    );
    let (mut addresses, mut allowed) = (None, None);
    let decision = match inbound.routes.decide(&query, None) {
        Decision::Resolve => {
            let found = lookup(&session.target);
            lines.say("address", in_words(&found));
            inbound.routes.decide(&query, Some(addresses.insert(found)))
        }
        decided @ (Decision::Take { .. } | Decision::Unresolvable { .. }) => decided,
    };
    let rows = match decision {
        Decision::Take { rule, verdict, dial } => {
            lines.say("rule", rule_in_words(rule, &query, addresses.as_deref().unwrap_or_default()));
            allowed = addresses.and_then(|found| allowed_by(dial, found));
            let found = match &allowed {
                None if dials || matches!(session.target, Address::Ip(_)) => lookup(&session.target),
                known => known.clone().unwrap_or_default(),
            };
            follow(plan, inbound, session, verdict, &found, &mut lines)
        }
        Decision::Unresolvable { rule } => {
            let why = "which refuses some addresses, and the name has none";
            lines.say("rule", format!("{}, {why}", rule.name));
            lines.say("way", "refused".into());
            Vec::new()
        }
        Decision::Resolve => Vec::new(),
    };
    Explained { text: lines.0, rows, addresses: allowed }
}

/// Says where `route` leads, and gives the paths along it.
fn follow(
    plan: &Plan,
    inbound: &Inbound,
    session: &Session,
    route: &Route,
    addresses: &[SocketAddr],
    lines: &mut Lines,
) -> Vec<Row> {
    match route {
        Route::Refuse(refusal) => {
            lines.say("way", format!("refused: {}", refusal_in_words(*refusal)));
            Vec::new()
        }
        Route::Path(path) => {
            lines.say("way", format!("path {}", path.name));
            tell_forbidden(inbound, session, addresses, lines);
            if session.is_udp && !path.has_datagrams() {
                lines.say("", "which carries no datagrams, so they are dropped".into());
            }
            rows_of(&[Arc::clone(path)])
        }
        Route::Group(group) => {
            let rows = if Arc::ptr_eq(group, &plan.servers) {
                rows_of_servers(plan)
            } else if session.is_udp {
                rows_of(&group.paths_of_datagrams())
            } else {
                rows_of(&group.paths())
            };
            lines.say("way", format!("group {}, one of {} paths", group.name, rows.len()));
            tell_forbidden(inbound, session, addresses, lines);
            if session.is_udp && rows.is_empty() {
                lines.say("", "of which none carries datagrams, so they are dropped".into());
            }
            rows
        }
    }
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

/// The addresses of the target, asked of the system as a session would.
fn lookup(target: &Address) -> Vec<SocketAddr> {
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
mod tests {
    use super::*;
    use std::fs;

    use umbra_relay::router::Networks;

    use crate::flags::{Command, parse};

    /// What a session may dial for the name `localhost`, where these are the rules.
    fn allowed(rules: &str) -> Option<Vec<IpAddr>> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("umbra.json");
        fs::write(&path, format!(r#"{{"local_port": 0, "rules": [{rules}], "otherwise": "direct"}}"#))
            .unwrap();
        let words = ["umbra", "route", "-c", path.to_str().unwrap(), "localhost:7"];
        let Ok(Command::Route(asked)) = parse(words.map(Into::into)) else { panic!("it is about a route") };
        let plan = plan_of(asked.role, asked.options, &mut Report::default()).unwrap();
        let explained = explain(&plan, &plan.config.inbounds[0], &asked.session, asked.dials);
        Some(explained.addresses?.into_iter().map(|address| address.ip()).collect())
    }

    #[test]
    fn a_name_is_dialled_at_the_addresses_that_its_rules_have_looked_at_and_let_pass() {
        let found = ["127.0.0.1:7", "127.0.0.2:7"].map(|text| text.parse().unwrap());
        let networks = Networks::new(["127.0.0.2/32".parse().unwrap()]);
        assert_eq!(allowed_by(Dial::Within(&networks), found.to_vec()), Some(found[1..].to_vec()));
        assert_eq!(allowed_by(Dial::Addresses, found.to_vec()), Some(found.to_vec()));
        assert_eq!(allowed_by(Dial::Target, found.to_vec()), None);

        let known = ("localhost", 7).to_socket_addrs().unwrap();
        let known: Vec<IpAddr> = known.map(|address| address.ip()).filter(IpAddr::is_ipv4).collect();
        assert_eq!(allowed(r#"{"networks": "127.0.0.0/8", "to": "direct"}"#), Some(known));
        assert_eq!(allowed(r#"{"domains": "localhost", "to": "direct"}"#), None, "no rule had to know");
    }
}
