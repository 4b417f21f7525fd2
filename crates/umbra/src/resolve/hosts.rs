//! Where a server is, in all the ways of saying so: addresses with and without a port, lists, and a password for each port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use umbra_proto::address::Address;
use zeroize::Zeroizing;

use super::Sources;
use crate::flags::Role;
use crate::raw::{Said, Settings, Value};
use crate::reference::Id;
use crate::report::Report;

/// Takes ports out of addresses, voice by voice, so that each may say them its own way.
pub(super) fn split_ports(sources: &mut Sources, report: &mut Report) {
    let Sources { file, flags, .. } = sources;
    let lists = file.servers.iter_mut().chain(file.inbounds.iter_mut()).flatten();
    for settings in lists.chain([&mut file.root, &mut *flags]) {
        split_port(settings, Id::Server, Id::ServerPort, report);
        split_port(settings, Id::LocalAddress, Id::LocalPort, report);
        split_port(settings, Id::ForwardAddress, Id::ForwardPort, report);
    }
    if flags.get(Id::ServerPort).is_some() {
        for settings in file.servers.iter_mut().flatten().chain([&mut file.root]) {
            take_ports_off(settings, Id::Server);
        }
    }
}

/// The settings once for each password. The ports of `port_password` are as many servers, which differ in port and password only.
pub(super) fn by_password(settings: &Settings, role: Role, report: &mut Report) -> Vec<Settings> {
    let mut rest = settings.clone();
    let Some(Said { place, value: Value::Objects(ports) }) = rest.remove(Id::PortPassword) else {
        return vec![rest];
    };
    let has_password = rest.get(Id::Password).is_some();
    if ports.is_empty() {
        if has_password {
            return vec![rest];
        }
        // Of those that could not be read it is told already.
        if !report.speaks_of(&place) {
            report.error(place, "password or port_password not specified; write { \"8388\": \"…\", … }");
        }
        return Vec::new();
    }
    if has_password && role == Role::Client {
        report.warn(place, "left aside: on a client, server_port and password beside it count");
        return vec![rest];
    }
    if has_password || rest.get(Id::ServerPort).is_some() {
        let text = "port_password should not be used with server_port and password. server_port and password will be ignored";
        report.warn_as_ever(place, text);
    }
    take_ports_off(&mut rest, Id::Server);
    ports.iter().map(|port| rest.clone().beaten_by(port)).collect()
}

/// Each host with each port.
pub(super) fn server_addresses(settings: &Settings, report: &mut Report) -> Vec<Address> {
    if settings.get(Id::Server).is_none() {
        let text =
            "missing; say where the server is, with -s ADDRESS:PORT, with --server-url, or in the file of -c";
        report.error(settings.key_path("server"), text);
    }
    let ports = read_server_ports(settings);
    let mut addresses = Vec::new();
    for host in read_hosts(settings, report) {
        let own = host.port.map(|port| vec![(port, host.place.to_owned())]);
        for (port, port_place) in own.as_ref().unwrap_or(&ports) {
            if *port == 0 {
                report.error(
                    port_place,
                    "0 is no port to connect to; give the one on which the server listens",
                );
            }
            addresses.extend(server_address(&host, *port, report));
        }
    }
    addresses
}

/// Each address with each port, and the key that gave it.
pub(super) fn server_listens(settings: &Settings, report: &mut Report) -> Vec<(SocketAddr, String)> {
    let ports = read_server_ports(settings);
    let mut listens = Vec::new();
    if settings.get(Id::Server).is_none() {
        let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        listens.extend(ports.iter().map(|(port, place)| (SocketAddr::new(any, *port), place.clone())));
    }
    for host in read_hosts(settings, report) {
        let Some(ip) = listen_ip(Some((host.name, host.place)), Ipv4Addr::UNSPECIFIED, report) else {
            continue;
        };
        let own = host.port.map(|port| vec![(port, host.place.to_owned())]);
        let ports = own.as_ref().unwrap_or(&ports);
        listens.extend(ports.iter().map(|(port, place)| (SocketAddr::new(ip, *port), place.clone())));
    }
    listens
}

/// The address to listen on; `default` if nothing was said.
pub(super) fn listen_ip(
    host: Option<(&str, &str)>,
    default: Ipv4Addr,
    report: &mut Report,
) -> Option<IpAddr> {
    let Some((host, place)) = host else { return Some(default.into()) };
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    match bare_host(host).parse() {
        Ok(ip) => Some(ip),
        Err(_) => {
            let text = format!(
                "{host} is no IP address to listen on; use 127.0.0.1 for this machine only, or 0.0.0.0 or :: for all"
            );
            report.error(place, text);
            None
        }
    }
}

fn server_address(host: &Host<'_>, port: u16, report: &mut Report) -> Option<Address> {
    match Address::from_host(host.name, port) {
        Ok(address) => {
            if let Address::Ip(ip) = &address
                && ip.ip().is_unspecified()
            {
                report.warn(
                    host.place,
                    format!("{} is where a server listens; a client wants to know where it is", ip.ip()),
                );
            }
            Some(address)
        }
        Err(error) => {
            report.error(host.place, format!("{error}; give the server's name or IP address"));
            None
        }
    }
}

/// A host that was said, and the port with it if there was one.
struct Host<'a> {
    name: &'a str,
    port: Option<u16>,
    place: &'a str,
}

/// Everything that `server` names.
fn read_hosts<'a>(settings: &'a Settings, report: &mut Report) -> Vec<Host<'a>> {
    let mut hosts = Vec::new();
    for (text, place) in settings.texts(Id::Server).unwrap_or_default() {
        match divide(text) {
            Ok((host, port)) => hosts.push(Host { name: bare_host(host), port, place }),
            Err(()) => report.error(place, explain_bad_port(text)),
        }
    }
    hosts
}

/// Everything that `server_port` names, each with its place. A host of a list that has a port of its own does not need it.
fn read_server_ports(settings: &Settings) -> Vec<(u16, String)> {
    let said = settings.numbers(Id::ServerPort).unwrap_or_default();
    let ports = said.into_iter().filter_map(|(port, place)| Some((u16::try_from(port).ok()?, place.into())));
    let ports: Vec<_> = ports.collect();
    if ports.is_empty() { vec![(SERVER_PORT_DEFAULT, settings.key_path("server_port"))] } else { ports }
}

/// The port that was said of `id`.
pub(super) fn read_port(settings: &Settings, id: Id, default: u16) -> u16 {
    settings.number(id).and_then(|(port, _)| u16::try_from(port).ok()).unwrap_or(default)
}

/// Leaves out the ports of hosts in a list: something stronger says them.
fn take_ports_off(settings: &mut Settings, host_id: Id) {
    if let Some(Value::List(hosts)) = settings.get_mut(host_id).map(|said| &mut said.value) {
        for Said { value, .. } in hosts {
            if let Value::Text(text) = value
                && let Ok((host, Some(_))) = divide(text)
            {
                *value = Value::Text(Zeroizing::new(host.into()));
            }
        }
    }
}

fn explain_bad_port(text: &str) -> String {
    format!("{text} has no good port after its last colon; use one from 0 to 65535")
}

/// A port that stands behind an address, said as the key for it would say it.
pub(super) fn split_port(settings: &mut Settings, host_id: Id, port_id: Id, report: &mut Report) {
    let Some((text, place)) = settings.text(host_id).map(|(text, place)| (text.to_owned(), place.to_owned()))
    else {
        return;
    };
    let (host, port) = match divide(&text) {
        Ok(parts) => parts,
        Err(()) => {
            report.error(place, explain_bad_port(&text));
            return;
        }
    };
    if let Some(port) = port {
        let earlier = settings.insert(port_id, &place, Value::Number(port.into()));
        if let Some(earlier) = earlier
            && !matches!(earlier.value, Value::Number(said) if said == u64::from(port))
        {
            report.error(
                &place,
                format!("says port {port}, and {} says another; keep one of them", earlier.place),
            );
        }
    }
    settings.insert(host_id, place, Value::Text(Zeroizing::new(bare_host(host).into())));
}

/// Host and port of `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`, `name`, `name:80`.
fn divide(text: &str) -> Result<(&str, Option<u16>), ()> {
    let whole_host = text.parse::<IpAddr>().is_ok() || (text.starts_with('[') && text.ends_with(']'));
    match text.rsplit_once(':') {
        Some((host, port)) if !whole_host => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            Ok((host, Some(port.parse().ok().filter(|_| digits).ok_or(())?)))
        }
        Some(_) | None => Ok((text, None)),
    }
}

fn bare_host(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

const SERVER_PORT_DEFAULT: u16 = 8388;
