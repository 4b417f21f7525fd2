//! Groups: paths of which a session takes one.

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::time::Duration;

use umbra_proto::address::{Address, DomainName};
use umbra_relay::config::{Candidate, Deadlines, DnsProbe, Group, Hop, HttpProbe, Probe, ProbeKind};
use umbra_relay::group::{NoneLeft, Policy, Probing, Rounds, Settings as Choice};

use super::hops::HopReader;
use super::rules::read_range;
use super::ways::{Ways, read_number, read_secs};
use crate::probe::DNS_NAME;
use crate::raw::Settings;
use crate::reference::{Id, nearest};
use crate::report::Report;

/// The group that `settings` describe, if all of it is right.
pub(super) fn read_group(
    name: &str,
    settings: &Settings,
    ways: &Ways,
    reader: &mut HopReader,
    report: &mut Report,
) -> Option<Group> {
    let errors = report.errors.len();
    let mut choice = read_choice(settings, report);
    let members = read_members(settings, choice.policy, ways, reader, report);
    choice.patience = read_secs(settings, Id::Patience, 1..=600, report).unwrap_or(choice.patience);
    warn_of_impatience(choice.patience, &members, settings, report);
    let probe = settings.object(Id::Probe).and_then(|probe| {
        let (probing, probe) = read_probe(probe, report)?;
        choice.health.probing = Some(probing);
        warn_of_blindness(&probe.kind, &members, settings.object(Id::Probe)?, report);
        Some(probe)
    });
    if report.errors.len() > errors {
        return None;
    }
    let group = Group::new(name, choice, members);
    Some(match probe {
        Some(probe) => group.with_probe(probe),
        None => group,
    })
}

fn read_members(
    settings: &Settings,
    policy: Policy,
    ways: &Ways,
    reader: &mut HopReader,
    report: &mut Report,
) -> Vec<Candidate> {
    let members = settings.objects(Id::Members).unwrap_or_default();
    let place = settings.key_path("members");
    if members.is_empty() && !report.speaks_of(&place) {
        report.error(place, "empty; name the paths in the group");
    }
    let mut seen = HashSet::new();
    let mut candidates = Vec::new();
    for member in members {
        let weight = read_number(member, Id::Weight, 1..=u64::from(u16::MAX), "weight", report);
        if let (Some(said), false) = (member.get(Id::Weight), knows_weights(policy)) {
            report.warn(
                &said.place,
                "left aside: the policy knows no weights; weighted, target_hash and source_hash do",
            );
        }
        let Some((name, place)) = member.text(Id::Name) else {
            report.error(member.key_path("name"), "missing; name a path, or direct");
            continue;
        };
        if !seen.insert(name) {
            // A link is not repeated.
            let what = if name.contains("://") { "it" } else { name };
            report.error(place, format!("{what} is in the group already; keep one of them"));
            continue;
        }
        let weight = weight.and_then(|weight| NonZeroU16::new(u16::try_from(weight).ok()?));
        if let Some(path) = ways.find_member(name, place, reader, report) {
            candidates.push(Candidate { path, weight: weight.unwrap_or(NonZeroU16::MIN) });
        }
    }
    candidates
}

fn knows_weights(policy: Policy) -> bool {
    match policy {
        Policy::Weighted | Policy::TargetHash | Policy::SourceHash => true,
        Policy::Ordered
        | Policy::RoundRobin
        | Policy::AddressModulo
        | Policy::Latched
        | Policy::LeastLatency
        | Policy::Random => false,
    }
}

/// How the group chooses, and what it holds against its members.
fn read_choice(settings: &Settings, report: &mut Report) -> Choice {
    let mut choice = Choice::default();
    if let Some((word, place)) = settings.text(Id::Policy) {
        match POLICIES.into_iter().find(|(known, _)| *known == word) {
            Some((_, policy)) => choice.policy = policy,
            None => {
                let known = POLICIES.map(|(known, _)| known);
                let near = nearest(word, known.into_iter());
                let hint = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
                report.error(
                    place,
                    format!("unknown policy {word}; {hint}the policies are {}", known.join(", ")),
                );
            }
        }
    }
    match settings.text(Id::WhenAllDown) {
        None | Some(("try_all", _)) => choice.none_left = NoneLeft::TryAll,
        Some(("fail", _)) => choice.none_left = NoneLeft::Fail,
        Some((other, place)) => report.error(place, format!("{other} is neither fail nor try_all")),
    }
    let mut count = |id, max, into: &mut NonZeroU32| {
        let read = read_number(settings, id, 1..=max, "number", report);
        *into = read.and_then(|count| NonZeroU32::new(u32::try_from(count).ok()?)).unwrap_or(*into);
    };
    count(Id::AttemptsPerMember, ATTEMPTS_MAX, &mut choice.attempts_per_member);
    count(Id::AttemptsMax, ATTEMPTS_MAX, &mut choice.attempts_max);
    if settings.get(Id::AttemptsMax).is_some() {
        // Whoever says how many are to be made means that many, as in Traffic Server. No number stands for what holds where nothing is
        // said, a turn for each member, since that depends on how many there are and which of them are up.
        choice.rounds = Rounds::UntilAttemptsEnd;
    }
    count(Id::FailThreshold, FAILURES_MAX, &mut choice.health.fail_threshold);
    let mut secs = |id, least, into: &mut Duration| {
        *into = read_secs(settings, id, least..=DAY_SECS, report).unwrap_or(*into);
    };
    secs(Id::FailWindow, 1, &mut choice.health.fail_window);
    secs(Id::RetryTime, 1, &mut choice.health.retry_time);
    secs(Id::SlowStart, 0, &mut choice.health.slow_start);
    let mut sticky = Duration::ZERO;
    secs(Id::Sticky, 0, &mut sticky);
    choice.sticky = Some(sticky).filter(|sticky| !sticky.is_zero());
    let percent = read_number(settings, Id::EjectedPercentMax, 0..=100, "percentage", report);
    if let Some(percent) = percent.and_then(|percent| u8::try_from(percent).ok()) {
        choice.health.ejected_percent_max = percent;
    }
    choice
}

fn read_probe(settings: &Settings, report: &mut Report) -> Option<(Probing, Probe)> {
    let mut probing = Probing::default();
    if let Some(interval) = read_secs(settings, Id::ProbeInterval, 1..=DAY_SECS, report) {
        probing.interval = interval;
    }
    let mut count = |id, into: &mut NonZeroU32| {
        let read = read_number(settings, id, 1..=FAILURES_MAX, "number", report);
        *into = read.and_then(|count| NonZeroU32::new(u32::try_from(count).ok()?)).unwrap_or(*into);
    };
    count(Id::ProbeRise, &mut probing.rise);
    count(Id::ProbeFall, &mut probing.fall);
    let patience = read_secs(settings, Id::ProbeTimeout, 1..=300, report).unwrap_or(PROBE_SECS);
    let kind = read_probe_kind(settings, report)?;
    Some((probing, Probe { kind, patience }))
}

/// A group that does not wait for its members as long as they may be waited for ends a session before another one is tried.
fn warn_of_impatience(patience: Duration, members: &[Candidate], settings: &Settings, report: &mut Report) {
    let longest = |candidate: &Candidate| {
        let Deadlines { connect, negotiate } = candidate.path.deadlines;
        let is_asked = candidate.path.hops.iter().any(|hop| matches!(hop, Hop::Parent(_)));
        let asking = if is_asked { negotiate } else { Duration::ZERO };
        let waits = [("negotiate_timeout", asking), ("connect_timeout", connect)];
        waits.into_iter().max_by_key(|(_, wait)| *wait).filter(|(_, wait)| patience <= *wait)
    };
    let slow = members.iter().find_map(|member| Some((&member.path.name, longest(member)?)));
    if let (Some((name, (key, wait))), 2..) = (slow, members.len()) {
        let (patience, wait) = (patience.as_secs(), wait.as_secs());
        report.warn(
            settings.key_path("patience"),
            format!(
                "{patience} s for a session, and {name} may take {wait} s ({key}): where it is silent, the session ends before another \
                 member is tried; make patience longer than that, or {key} shorter"
            ),
        );
    }
}

/// What a probe of this kind cannot know of `members` is told, lest somebody relies on it.
fn warn_of_blindness(kind: &ProbeKind, members: &[Candidate], settings: &Settings, report: &mut Report) {
    let place = settings.text(Id::ProbeKind).map_or(&*settings.path, |(_, place)| place);
    let ends_in_server = |member: &&Candidate| matches!(member.path.hops.last(), Some(Hop::Shadowsocks(_)));
    match kind {
        ProbeKind::Handshake(_) => {
            if let Some(member) = members.iter().find(ends_in_server) {
                let name = &member.path.name;
                report.warn(
                    place,
                    format!(
                        "{name} ends in a Shadowsocks server, of which a handshake says only that it listens, \
                         whatever the password and the target; the kinds http and dns say more"
                    ),
                );
            }
        }
        ProbeKind::Dns(_) if !members.iter().any(|member| member.path.has_datagrams()) => {
            let text =
                "no member carries datagrams, so nobody is probed; use the kind http, or members that do";
            report.warn(place, text);
        }
        ProbeKind::Connect | ProbeKind::Http(_) | ProbeKind::Dns(_) => {}
    }
}

fn read_probe_kind(settings: &Settings, report: &mut Report) -> Option<ProbeKind> {
    let (target, url) = (settings.text(Id::ProbeTarget), settings.text(Id::ProbeUrl));
    let guessed = match (target, url) {
        (_, Some(_)) => "http",
        (Some(_), None) => "handshake",
        (None, None) => "connect",
    };
    let (kind, place) = settings.text(Id::ProbeKind).unwrap_or((guessed, &settings.path));
    let needless: &[(Id, &str)] = match kind {
        "connect" => &[
            (Id::ProbeTarget, "handshake"),
            (Id::ProbeUrl, "http"),
            (Id::ProbeExpect, "http"),
            (Id::ProbeName, "dns"),
        ],
        "handshake" => &[(Id::ProbeUrl, "http"), (Id::ProbeExpect, "http"), (Id::ProbeName, "dns")],
        "http" => &[(Id::ProbeTarget, "handshake"), (Id::ProbeName, "dns")],
        "dns" => &[(Id::ProbeUrl, "http"), (Id::ProbeExpect, "http")],
        other => {
            report.error(place, format!("unknown kind {other}; use connect, handshake, http or dns"));
            return None;
        }
    };
    for (id, of) in needless {
        if let Some(said) = settings.get(*id) {
            report.warn(&said.place, format!("left aside: it is for probes of the kind {of}"));
        }
    }
    match kind {
        "handshake" => {
            let Some((target, place)) = target else {
                report.error(
                    settings.key_path("target"),
                    "missing; say where the handshake leads, as HOST:PORT",
                );
                return None;
            };
            read_target(target, place, report).map(ProbeKind::Handshake)
        }
        "http" => {
            let Some((url, place)) = url else {
                report.error(settings.key_path("url"), "missing; say what is asked for, as http://HOST/PATH");
                return None;
            };
            let expect = read_expected(settings, report);
            let (target, host, path) = read_url(url, place, report)?;
            Some(ProbeKind::Http(HttpProbe { target, host, path, expect: expect? }))
        }
        "dns" => read_dns(settings, report).map(ProbeKind::Dns),
        _ => Some(ProbeKind::Connect),
    }
}

fn read_dns(settings: &Settings, report: &mut Report) -> Option<DnsProbe> {
    let Some((server, place)) = settings.text(Id::ProbeTarget) else {
        report.error(settings.key_path("target"), "missing; say which name server is asked, as HOST:PORT");
        return None;
    };
    let server = read_target(server, place, report);
    let (name, place) = settings.text(Id::ProbeName).unwrap_or((DNS_NAME, ""));
    match DomainName::new(name) {
        Ok(name) => Some(DnsProbe { server: server?, name }),
        Err(error) => {
            report.error(place, format!("{error}; say a name that the server knows, such as {DNS_NAME}"));
            None
        }
    }
}

fn read_target(text: &str, place: &str, report: &mut Report) -> Option<Address> {
    match text.parse::<Address>() {
        Ok(target) if target.port() != 0 => return Some(target),
        Ok(_) => report.error(place, "0 is no port to connect to"),
        Err(error) => report.error(place, format!("{error}; say it as HOST:PORT")),
    }
    None
}

/// Whom to ask, what the request calls it, and for what.
fn read_url(url: &str, place: &str, report: &mut Report) -> Option<(Address, Box<str>, Box<str>)> {
    let Some(rest) = url.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http://"))
    else {
        report.error(
            place,
            "a probe asks over http:// alone; write http://HOST/PATH, or use the kind handshake",
        );
        return None;
    };
    let rest = rest.1;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let path = match path.strip_prefix('?') {
        Some(_) => format!("/{path}"),
        None if path.is_empty() => "/".into(),
        None => path.to_owned(),
    };
    if host.contains('@') || path.contains('#') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        report.error(
            place,
            "is no URL that can be asked for; write http://HOST/PATH, with other letters as %XX",
        );
        return None;
    }
    if !host.is_ascii() {
        report.error(
            place,
            "has a host with other letters than ASCII; write it as programs ask for it: xn--…, which is punycode",
        );
        return None;
    }
    let has_port = !host.ends_with(']') && host.contains(':');
    let target = if has_port { host.parse() } else { Address::from_host(host, 80) };
    match target {
        Ok(target) if target.port() != 0 => Some((target, host.into(), path.into())),
        Ok(_) => {
            report.error(place, "0 is no port to connect to");
            None
        }
        Err(error) => {
            report.error(place, format!("{error}; write http://HOST/PATH"));
            None
        }
    }
}

fn read_expected(settings: &Settings, report: &mut Report) -> Option<Box<[RangeInclusive<u16>]>> {
    let Some(said) = settings.texts(Id::ProbeExpect) else { return Some([200..=399].into()) };
    if said.is_empty() {
        let place = settings.key_path("expect");
        // What was said and could not be read is told already.
        if !report.speaks_of(&place) {
            report.error(place, "empty; use statuses like 204, or ranges like 200-399");
        }
        return None;
    }
    let ranges = said.into_iter().map(|(text, place)| {
        let range = read_range(text).filter(|range| *range.start() >= 100 && *range.end() <= 599);
        if range.is_none() {
            report.error(place, format!("{text} is no status; use one like 204, or a range like 200-399"));
        }
        range
    });
    // Each that is wrong is told.
    ranges.collect::<Vec<_>>().into_iter().collect()
}

const POLICIES: [(&str, Policy); 9] = [
    ("ordered", Policy::Ordered),
    ("round_robin", Policy::RoundRobin),
    ("address_modulo", Policy::AddressModulo),
    ("latched", Policy::Latched),
    ("target_hash", Policy::TargetHash),
    ("source_hash", Policy::SourceHash),
    ("least_latency", Policy::LeastLatency),
    ("weighted", Policy::Weighted),
    ("random", Policy::Random),
];

/// Nobody waits for more.
const ATTEMPTS_MAX: u64 = 1000;

/// A member that may fail more often than this is never down.
const FAILURES_MAX: u64 = 1_000_000;

/// Whatever failed longer ago is forgotten.
const DAY_SECS: u64 = 86_400;

/// As long as a connection may take.
const PROBE_SECS: Duration = Duration::from_secs(10);
