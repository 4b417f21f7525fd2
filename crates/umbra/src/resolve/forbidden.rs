//! Where no way leads.

use std::net::IpAddr;

use ipnet::IpNet;
use umbra_proto::forbidden::Forbidden;
use umbra_relay::router::parse_network;

use crate::flags::Role;
use crate::raw::Settings;
use crate::reference::Id;
use crate::report::Report;

/// Whether sessions reach their targets without a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leads {
    /// Without, all of them.
    Directly,
    /// Some without and some through proxies.
    Mixed,
    /// All through proxies, of a client that has no servers or of a server.
    ThroughProxies,
    /// All through proxies, of a client that has servers.
    ThroughServers,
}

/// Where `role` leads nobody. A server, which serves others, has a list by itself.
pub(crate) fn read_forbidden(
    role: Role,
    leads: Leads,
    settings: &Settings,
    report: &mut Report,
) -> Forbidden {
    let mut networks = |id| Some(read_networks(&entries(settings, id)?, report));
    let (listed, exempt) = (networks(Id::ForbiddenIp), networks(Id::AllowedIp).unwrap_or_default());
    let private = settings.switch(Id::ForbidPrivate).unwrap_or(false);
    match (role, leads) {
        (Role::Server | Role::Client, Leads::Directly) | (Role::Client, Leads::Mixed) => {}
        (Role::Server, Leads::Mixed | Leads::ThroughProxies | Leads::ThroughServers)
        | (Role::Client, Leads::ThroughProxies) => warn_of_proxies(settings, report),
        // The same file may be at both ends, but a flag is for this one.
        (Role::Client, Leads::ThroughServers) => {
            warn_of_flags(settings, report);
            return Forbidden::NOTHING;
        }
    }
    if let (Role::Server, Some(said)) = (role, settings.get(Id::ForbiddenIp))
        && entries(settings, Id::ForbiddenIp).is_some_and(|entries| entries.is_empty())
    {
        let text = "empty, so clients reach what this machine and its cloud keep for themselves";
        report.warn(&said.place, text);
    }
    let forbidden = match listed {
        Some(networks) => Forbidden::listed(networks),
        None if private || role == Role::Server => Forbidden::standard(),
        None => Forbidden::NOTHING,
    };
    let forbidden = if private { forbidden.with_private() } else { forbidden };
    let forbidden = forbidden.except(exempt);
    if private || role == Role::Server {
        warn_of_what_is_reached(&forbidden, settings, report);
    }
    forbidden
}

/// A list takes the place of all that would be forbidden without it, the addresses by which a cloud gives its secrets away among it.
fn warn_of_what_is_reached(forbidden: &Forbidden, settings: &Settings, report: &mut Report) {
    let listed = entries(settings, Id::ForbiddenIp).is_some_and(|entries| !entries.is_empty());
    let Some(said) = settings.get(Id::ForbiddenIp).filter(|_| listed) else { return };
    let mut rules = Vec::new();
    let mut networks = Vec::new();
    for (rule, network) in forbidden.missing_of_standard() {
        let rule = rule.to_string();
        if !rules.contains(&rule) {
            rules.push(rule);
        }
        networks.push(network);
    }
    if networks.is_empty() {
        return;
    }
    let networks: Vec<_> = IpNet::aggregate(&networks).iter().map(ToString::to_string).collect();
    let text = format!(
        "takes the place of the list that is there without it, so clients reach what this machine and its cloud keep for themselves ({}): \
         add {}, or name in allowed_ip what they may reach",
        rules.join(", "),
        networks.join(",")
    );
    report.warn(&said.place, text);
}

/// The entries of one text or of a list, each with its place, if anything was said.
pub(super) fn entries(settings: &Settings, id: Id) -> Option<Vec<(&str, &str)>> {
    let texts = settings.texts(id)?.into_iter();
    let split = texts.flat_map(|(text, place)| text.split(',').map(move |entry| (entry.trim(), place)));
    Some(split.filter(|(entry, _)| !entry.is_empty()).collect())
}

/// The networks that `entries` are; what is none is told.
pub(super) fn read_networks(entries: &[(&str, &str)], report: &mut Report) -> Vec<IpNet> {
    entries.iter().filter_map(|(entry, place)| read_network(entry, place, report)).collect()
}

fn read_network(text: &str, place: &str, report: &mut Report) -> Option<IpNet> {
    let Some(network) = parse_network(text) else {
        report.error(
            place,
            format!("Not a valid CIDR notation: {text}; use one like 10.0.0.0/8, or an address"),
        );
        return None;
    };
    // The first implementation took such an address for a network, whatever it said of it.
    if !text.contains('/')
        && let IpAddr::V4(address) = network.addr()
        && address.octets()[3] == 0
        && !address.is_unspecified()
    {
        report.warn(place, format!("{text} is one address; a network is said like {text}/24"));
    }
    Some(network)
}

fn warn_of_proxies(settings: &Settings, report: &mut Report) {
    for place in asked_for(settings) {
        report.warn(
            place,
            "held to addresses and to names that are resolved here: what a name means to a proxy that resolves it, only the proxy could refuse",
        );
    }
}

/// Where it was said that something is forbidden.
fn asked_for(settings: &Settings) -> Vec<&str> {
    let lists = entries(settings, Id::ForbiddenIp).is_some_and(|entries| !entries.is_empty());
    let private = settings.switch(Id::ForbidPrivate).unwrap_or(false);
    let followed = [(Id::ForbiddenIp, lists), (Id::ForbidPrivate, private)].into_iter();
    let said = followed.filter(|(_, asks)| *asks).filter_map(|(id, _)| settings.get(id));
    said.map(|said| said.place.as_str()).collect()
}

fn warn_of_flags(settings: &Settings, report: &mut Report) {
    for id in [Id::ForbiddenIp, Id::ForbidPrivate, Id::AllowedIp] {
        if let Some(said) = settings.get(id).filter(|said| said.place.starts_with('-')) {
            report.warn(&said.place, "left aside: it is for a server, or for a client without servers");
        }
    }
}
