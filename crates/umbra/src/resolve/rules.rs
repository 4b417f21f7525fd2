//! Rules: which session takes which way, and when a rule fits.

use std::fs::File;
use std::io::{self, BufReader};
use std::ops::RangeInclusive;

use umbra_proto::request::Refusal;
use umbra_relay::config::Route;
use umbra_relay::router::list::{read_names, read_networks as read_network_list};
use umbra_relay::router::{
    Conditions, EntryError, FileErrors, Networks, Rule, Targets, TargetsBuilder, Transport,
};

use super::forbidden::{entries, read_networks};
use super::ways::{REFUSE, Ways, carries_datagrams, in_use};
use crate::file::NO_PATH;
use crate::raw::Settings;
use crate::reference::{Id, nearest};
use crate::report::Report;

/// A name that a rule asks for, and where it was written.
pub(super) type Asked = (String, String);

/// Rules, and what has still to be compared with the doors.
#[derive(Default)]
pub(super) struct Rules {
    /// In the order of the list.
    pub(super) rules: Vec<Rule<Route>>,
    /// The inbounds that they ask for.
    pub(super) inbounds: Vec<Asked>,
    /// The users that they ask for.
    pub(super) users: Vec<Asked>,
}

impl Rules {
    /// The rules of `root`. One that is wrong is not among them; that is told.
    pub(super) fn read(root: &Settings, ways: &Ways, report: &mut Report) -> Self {
        let mut rules = Self::default();
        for settings in in_use(root, Id::Rules) {
            let conditions = rules.read_conditions(settings, report);
            let verdict = read_verdict(settings, conditions.as_ref(), ways, report);
            let name = settings.text(Id::Name).map_or(settings.path.as_str(), |(name, _)| name);
            if let (Some(conditions), Some(verdict)) = (conditions, verdict) {
                rules.rules.push(Rule { name: name.into(), conditions, verdict });
            }
        }
        rules
    }

    fn read_conditions(&mut self, settings: &Settings, report: &mut Report) -> Option<Conditions> {
        let errors = report.errors.len();
        if !CONDITIONS.iter().any(|id| settings.get(*id).is_some()) {
            let text = "says nothing of when it fits; add domains, networks, ports, sources, inbounds, users or network, or use \
                        otherwise";
            report.error(&settings.path, text);
        }
        let mut names = |id, all: &mut Vec<Asked>| {
            let said = texts(settings, id, report)?;
            all.extend(said.iter().map(|(name, place)| ((*name).to_owned(), (*place).to_owned())));
            Some(said.into_iter().map(|(name, _)| Box::from(name)).collect())
        };
        let inbounds = names(Id::FromInbounds, &mut self.inbounds);
        let users = names(Id::FromUsers, &mut self.users);
        let conditions = Conditions {
            target: read_targets(settings, report),
            ports: read_ports(settings, report),
            source: networks(settings, Id::FromNetworks, report).map(Networks::new),
            inbounds,
            users,
            transport: read_transport(settings, report),
        };
        (report.errors.len() == errors).then_some(conditions)
    }
}

/// Where the rule leads.
fn read_verdict(
    settings: &Settings,
    conditions: Option<&Conditions>,
    ways: &Ways,
    report: &mut Report,
) -> Option<Route> {
    let Some((to, place)) = settings.text(Id::To) else {
        let text = "missing; say where the rule leads: a path, a group, direct, servers or refuse";
        report.error(settings.key_path("to"), text);
        return None;
    };
    let reply = settings.text(Id::Reply);
    if to == REFUSE {
        return read_reply(reply, report).map(Route::Refuse);
    }
    if let Some((_, place)) = reply {
        report.error(place, "is for whoever is refused; leave it out, or lead to refuse");
    }
    let route = ways.find(to, place, report)?;
    if conditions.is_some_and(|conditions| conditions.transport == Some(Transport::Udp))
        && !carries_datagrams(&route)
    {
        report.error(
            place,
            format!("no datagram can go through {to}: of proxies, SOCKS5 and Shadowsocks carry them, alone and behind one another; lead elsewhere"),
        );
        return None;
    }
    Some(route)
}

fn read_reply(said: Option<(&str, &str)>, report: &mut Report) -> Option<Refusal> {
    let Some((word, place)) = said else { return Some(Refusal::NotAllowed) };
    let reply = REPLIES.into_iter().find(|(known, _)| *known == word);
    if reply.is_none() {
        let known = REPLIES.map(|(known, _)| known);
        let near = nearest(word, known.into_iter());
        let hint = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
        report.error(place, format!("unknown reply {word}; {hint}the replies are {}", known.join(", ")));
    }
    reply.map(|(_, refusal)| refusal)
}

/// Names, words, patterns and networks together. One alone of them is enough, and only what is said counts.
fn read_targets(settings: &Settings, report: &mut Report) -> Option<Targets> {
    let is_said = [Id::Domains, Id::DomainFiles, Id::Networks, Id::NetworkFiles];
    let place = is_said.iter().find_map(|id| settings.get(*id)).map(|said| said.place.clone())?;
    let mut targets = TargetsBuilder::default();
    for (text, place) in texts(settings, Id::Domains, report).unwrap_or_default() {
        if let Err(why) = add_name(&mut targets, text) {
            report.error(place, why);
        }
    }
    for network in networks(settings, Id::Networks, report).unwrap_or_default() {
        if let Err(error) = targets.network(network) {
            report.error(&place, explain(&error));
        }
    }
    let mut read_files =
        |id, read: fn(&str, BufReader<File>, &mut TargetsBuilder) -> Result<(), FileErrors>| {
            for (path, place) in texts(settings, id, report).unwrap_or_default() {
                match open(path) {
                    Ok(reader) => {
                        if let Err(errors) = read(path, reader, &mut targets) {
                            tell_file_errors(place, &errors, report);
                        }
                    }
                    Err(why) => report.error(place, why),
                }
            }
        };
    read_files(Id::DomainFiles, read_names);
    read_files(Id::NetworkFiles, read_network_list);
    match targets.build() {
        Ok(targets) => Some(targets),
        Err(error) => {
            report.error(place, explain(&error));
            None
        }
    }
}

fn add_name(targets: &mut TargetsBuilder, text: &str) -> Result<(), String> {
    let added = match text.split_once(':') {
        None => targets.suffix(text),
        Some(("full", name)) => targets.exact(name),
        Some(("domain", name)) => targets.suffix(name),
        Some(("keyword", word)) => targets.keyword(word),
        Some(("regexp", pattern)) => targets.pattern(pattern),
        Some((prefix, _)) => {
            return Err(format!(
                "unknown prefix {prefix}; write full:, domain:, keyword: or regexp:, or a name alone"
            ));
        }
    };
    added.map_err(|error| explain(&error))
}

fn explain(error: &EntryError) -> String {
    format!("{error}; {}", error.remedy())
}

/// Tells what is wrong with the file that `place` names, line by line.
pub(super) fn tell_file_errors(place: &str, errors: &FileErrors, report: &mut Report) {
    for line in errors.to_string().lines() {
        report.error(place, line);
    }
}

/// A file to be read line by line.
pub(super) fn open(path: &str) -> Result<BufReader<File>, String> {
    if path.is_empty() {
        return Err(NO_PATH.into());
    }
    let opened = File::open(path).and_then(|file| {
        // A folder opens like a file, and reads like none.
        if file.metadata()?.is_dir() { Err(io::Error::from(io::ErrorKind::IsADirectory)) } else { Ok(file) }
    });
    opened.map(BufReader::new).map_err(|error| format!("{path} cannot be read: {error}; check the path"))
}

fn read_ports(settings: &Settings, report: &mut Report) -> Option<Vec<RangeInclusive<u16>>> {
    let said = texts(settings, Id::TargetPorts, report)?;
    let read = said.into_iter().filter_map(|(text, place)| {
        let range = read_range(text).filter(|range| *range.start() != 0);
        if range.is_none() {
            report.error(place, format!("{text} is no port; use one like 22, or a range like 8000-8999"));
        }
        range
    });
    Some(read.collect())
}

/// `A`, or `A-B` with A not behind B.
pub(super) fn read_range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| {
        let text = text.trim();
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some(first..=last)
}

fn read_transport(settings: &Settings, report: &mut Report) -> Option<Transport> {
    match settings.text(Id::Transport)? {
        ("tcp", _) => Some(Transport::Tcp),
        ("udp", _) => Some(Transport::Udp),
        (other, place) => {
            report.error(place, format!("{other} is neither tcp nor udp; leave it out for both"));
            None
        }
    }
}

/// The networks that `id` lists, one at least.
fn networks(settings: &Settings, id: Id, report: &mut Report) -> Option<Vec<ipnet::IpNet>> {
    let said = entries(settings, id)?;
    if said.is_empty() {
        refuse_empty(settings, id, report);
    }
    Some(read_networks(&said, report))
}

/// The texts that `id` lists, one at least: a list that was meant to have some must not become a rule for nothing.
fn texts<'a>(settings: &'a Settings, id: Id, report: &mut Report) -> Option<Vec<(&'a str, &'a str)>> {
    let said = settings.texts(id)?;
    if said.is_empty() {
        refuse_empty(settings, id, report);
    }
    Some(said)
}

fn refuse_empty(settings: &Settings, id: Id, report: &mut Report) {
    if let Some(said) = settings.get(id) {
        let place = said.place.clone();
        if !report.speaks_of(&place) {
            report.error(place, "empty, so the rule fits nothing; list something, or leave it out");
        }
    }
}

const CONDITIONS: [Id; 9] = [
    Id::Domains,
    Id::DomainFiles,
    Id::Networks,
    Id::NetworkFiles,
    Id::TargetPorts,
    Id::FromNetworks,
    Id::FromInbounds,
    Id::FromUsers,
    Id::Transport,
];

const REPLIES: [(&str, Refusal); 6] = [
    ("not_allowed", Refusal::NotAllowed),
    ("host_unreachable", Refusal::HostUnreachable),
    ("network_unreachable", Refusal::NetworkUnreachable),
    ("connection_refused", Refusal::ConnectionRefused),
    ("general_failure", Refusal::GeneralFailure),
    ("timed_out", Refusal::TimedOut),
];
