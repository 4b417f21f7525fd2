//! What is said about datagrams: whether they pass, and how.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use umbra_relay::config::{Filtering, Inbound, Mode, Protocol, Udp};

use super::{Common, Door};
use crate::raw::Settings;
use crate::reference::Id;
use crate::report::Report;

/// What passes a door that has no plugin in front of it, unless something else is said.
pub(super) fn door_mode(
    entry: &Settings,
    common: &Common,
    idle: Duration,
    protocol: &Protocol,
    report: &mut Report,
) -> Mode<Udp> {
    let said = common.with_voices(entry.only(DATAGRAM_IDS));
    let udp = read_udp(&said, idle, report);
    let (mode, place) = read_mode(&said, report).unwrap_or((Mode::Both(()), ""));
    if carries_datagrams(protocol) {
        return mode.map(|()| udp);
    }
    if mode == Mode::Datagrams(()) {
        report.error(place, "programs that speak HTTP send no datagrams; use tcp_only, or another protocol");
    }
    Mode::Streams
}

/// Where it was said that datagrams come in at a door that has them.
pub(super) fn wants_datagrams(entry: &Settings, common: &Common, mode: &Mode<Udp>) -> Option<String> {
    let said = common.with_voices(entry.only(DATAGRAM_IDS));
    mode.datagrams().and(said.get(Id::Mode)).map(|said| said.place.clone())
}

/// What passes a door behind a plugin, which carries streams only: datagrams come in beside it where somebody asks for them, since
/// whoever hides streams may not want them to be seen.
pub(super) fn door_mode_beside_plugin(
    entry: &Settings,
    common: &Common,
    idle: Duration,
    report: &mut Report,
) -> Mode<Udp> {
    let said = common.with_voices(entry.only(DATAGRAM_IDS));
    let udp = read_udp(&said, idle, report);
    mode_beside_plugin(&said, report).map(|()| udp)
}

/// What a server of a client is used for.
pub(super) fn server_mode(settings: &Settings, has_plugin: bool, report: &mut Report) -> Mode<()> {
    if has_plugin {
        return mode_beside_plugin(settings, report);
    }
    read_mode(settings, report).map_or(Mode::Both(()), |(mode, _)| mode)
}

/// Two doors cannot share an address, unless one has streams there and the other datagrams; port 0 is a new one each time.
pub(super) fn find_shared_doors(doors: &[Door], report: &mut Report) {
    let mut seen = HashSet::new();
    for Door { place, inbound, .. } in doors {
        let listen = inbound.listen;
        let (streams, datagrams) = (listens_for_streams(inbound), inbound.mode.datagrams().is_some());
        let is_shared =
            (streams && !seen.insert((listen, false))) | (datagrams && !seen.insert((listen, true)));
        if listen.port() != 0 && is_shared {
            report.error(place, format!("another entry listens on {listen} already; choose another port"));
        }
    }
}

fn listens_for_streams(inbound: &Inbound) -> bool {
    match inbound.protocol {
        Protocol::Proxy(_) => true,
        Protocol::Tunnel { .. } | Protocol::Shadowsocks(_) => inbound.mode.has_streams(),
    }
}

/// Of what proxies speak, only SOCKS5 has datagrams.
fn carries_datagrams(protocol: &Protocol) -> bool {
    match protocol {
        Protocol::Proxy(door) => door.socks5,
        Protocol::Tunnel { .. } | Protocol::Shadowsocks(_) => true,
    }
}

fn mode_beside_plugin(said: &Settings, report: &mut Report) -> Mode<()> {
    let Some((mode, place)) = read_mode(said, report) else { return Mode::Streams };
    match mode {
        Mode::Streams => {}
        Mode::Both(()) => {
            report.warn(place, "datagrams do not go through the plugin: they pass beside it, as they are");
        }
        Mode::Datagrams(()) => {
            report.error(place, "leaves a plugin nothing to carry; take the plugin out, or use tcp_and_udp");
        }
    }
    mode
}

fn read_mode<'a>(said: &'a Settings, report: &mut Report) -> Option<(Mode<()>, &'a str)> {
    let (word, place) = said.text(Id::Mode)?;
    let mode = match word {
        "tcp_only" => Mode::Streams,
        "tcp_and_udp" => Mode::Both(()),
        "udp_only" => Mode::Datagrams(()),
        other => {
            let text = format!("unknown mode {other}; use tcp_only, tcp_and_udp or udp_only");
            report.error(place, text);
            return None;
        }
    };
    Some((mode, place))
}

/// Where nothing is said of the idle time of datagrams, that of streams counts, as in the first implementation.
fn read_udp(said: &Settings, idle: Duration, report: &mut Report) -> Udp {
    Udp {
        listen: None,
        timeout: read_timeout(said, report).unwrap_or(idle),
        associations_max: read_max(said, Id::UdpMaxAssociations, report),
        associations_per_source_max: read_max(said, Id::UdpMaxAssociationsPerSource, report),
        filtering: read_filtering(said, report),
        fragments: said.switch(Id::UdpFragment).unwrap_or(false),
    }
}

fn read_timeout(said: &Settings, report: &mut Report) -> Option<Duration> {
    let (secs, place) = said.number(Id::UdpTimeout)?;
    if !(1..=TIMEOUT_SECS_MAX).contains(&secs) {
        let text = format!("{secs} is no idle time in seconds; use 1 to {TIMEOUT_SECS_MAX}, such as 300");
        report.error(place, text);
    }
    Some(Duration::from_secs(secs))
}

fn read_max(said: &Settings, id: Id, report: &mut Report) -> Option<NonZeroUsize> {
    let (count, place) = said.number(id)?;
    let max = usize::try_from(count).ok().and_then(NonZeroUsize::new);
    if max.is_none() {
        report.error(place, format!("{count} serves no one; use 1 or more, or \"mode\": \"tcp_only\""));
    }
    max
}

fn read_filtering(said: &Settings, report: &mut Report) -> Filtering {
    match said.text(Id::UdpFiltering) {
        None | Some(("endpoint_independent", _)) => Filtering::EndpointIndependent,
        Some(("address_dependent", _)) => Filtering::AddressDependent,
        Some((other, place)) => {
            report.error(place, format!("{other} is neither endpoint_independent nor address_dependent"));
            Filtering::AddressDependent
        }
    }
}

/// The keys about datagrams, which count wherever an inbound may be described.
pub(super) const DATAGRAM_IDS: &[Id] = &[
    Id::Mode,
    Id::UdpTimeout,
    Id::UdpMaxAssociations,
    Id::UdpMaxAssociationsPerSource,
    Id::UdpFiltering,
    Id::UdpFragment,
];

/// A day, as for streams.
const TIMEOUT_SECS_MAX: u64 = 86_400;
