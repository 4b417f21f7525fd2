//! The doors of a client, and the way behind them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use umbra_proto::address::Address;
use umbra_relay::config::{Inbound, Protocol, ProxyDoor, Server};

use super::beside::read_proxy_header;
use super::datagrams::{DATAGRAM_IDS, door_mode, server_mode, wants_datagrams};
use super::hosts::{by_password, listen_ip, read_port, server_addresses};
use super::online::{names_server, subscribe};
use super::routes::says_where;
use super::users::read_door_users;
use super::{
    CLIENT_IDS, Common, DOOR_IDS, Door, Out, SERVER_IDS, Sources, Way, entries, place_of, read_heads,
    read_one_time_auth,
};
use crate::flags::Role;
use crate::link::link_settings;
use crate::plugin::{Plugin, refuse_strange_plugin};
use crate::raw::Settings;
use crate::reference::{Id, LISTS, nearest};
use crate::report::Report;
use crate::roster::Listed;
use crate::secret::{InsecureMethods, read_credentials};

/// The servers of a client, as far as it is to have any. Those that need no plugin are on its way already.
pub(super) fn client_way(sources: &mut Sources, common: &Common, report: &mut Report) -> Way {
    let Sources { file, url, flags, online } = sources;
    if let Some(said) = file.root.get(Id::Manager) {
        report.warn(&said.place, "left aside: it is for a server");
    }
    if let Some(said) = file.root.get(Id::Obfuscation) {
        report.warn(&said.place, "unknown key, left aside; a plugin changes how streams look on the way");
    }
    let has_servers = names_server(file, flags);
    let (url, online, listed) = (url.take(), std::mem::take(online), file.servers.take());
    let mut way = Way::default();
    if let Some((_, by)) = &common.way {
        refuse_servers(by, &file.root, listed.as_deref(), url.is_some(), flags, report);
        for online in online {
            report.error(online.subscription.place, beside(by));
        }
        return way;
    }
    let both = file.root.clone().beaten_by(flags);
    let has_ways = says_where(&both) || both.get(Id::Paths).or(both.get(Id::Groups)).is_some();
    if has_ways && !has_servers && url.is_none() && online.is_empty() {
        return way;
    }
    way.is_wanted = true;
    let is_alone =
        online.iter().any(|online| online.subscription.alone) || (!online.is_empty() && !has_servers);
    let servers = match url {
        None if is_alone => Vec::new(),
        Some(url) => {
            let settings = link_settings(url, "", "--server-url", report);
            refuse_strange_plugin(&settings, report);
            vec![settings]
        }
        None => entries(SERVER_IDS, LISTS[0], &file.root, listed, flags, report),
    };
    let servers: Vec<_> = servers.into_iter().map(|settings| common.with_voices(settings)).collect();
    way.listed.extend(servers.iter().flat_map(|settings| client_servers(settings, common.insecure, report)));
    way.online = subscribe(online, !is_alone, common.insecure, report);
    let further = way.online.iter().flat_map(|online| &online.listed);
    let plain = way.listed.iter().chain(further).filter(|listed| listed.plugin.is_none());
    way.servers.replace_servers(plain.map(|listed| listed.server.clone()).collect());
    way
}

/// A door for each inbound.
pub(super) fn client_doors(sources: Sources, out: &Out, common: &Common, report: &mut Report) -> Vec<Door> {
    let Sources { file, flags, .. } = sources;
    let ids = [CLIENT_IDS, DOOR_IDS].concat();
    let locals = entries(&ids, LISTS[1], &file.root, file.inbounds, &flags, report);
    locals.iter().filter_map(|settings| client_door(settings, out, common, report)).collect()
}

/// Whoever asks for a way without a server and names one may mean either.
fn refuse_servers(
    by: &str,
    root: &Settings,
    servers: Option<&[Settings]>,
    has_url: bool,
    flags: &Settings,
    report: &mut Report,
) {
    let (root, flags) = (root.only(SERVER_IDS), flags.only(SERVER_IDS));
    let places = root.places().chain(flags.places());
    let places = places.chain(servers.map(|_| LISTS[0])).chain(has_url.then_some("--server-url"));
    for place in places {
        report.error(place, beside(by));
    }
}

fn beside(by: &str) -> String {
    format!("cannot stand beside {by}, which wants no server; keep one of them")
}

/// The servers that an entry describes.
pub(super) fn client_servers(
    settings: &Settings,
    insecure: InsecureMethods,
    report: &mut Report,
) -> Vec<Listed> {
    let of_doors = DATAGRAM_IDS.iter().filter(|id| **id != Id::Mode).chain(DOOR_IDS).chain(&[Id::Timeout]);
    for said in of_doors.filter_map(|id| settings.get(*id)) {
        if !settings.path.is_empty() && said.place.starts_with(&settings.path) {
            report.warn(
                &said.place,
                "left aside: on a client, what stands in locals[] or at the top of the file counts",
            );
        }
    }
    let plugin = Plugin::read(settings, report);
    let mode = server_mode(settings, plugin.is_some(), report);
    let mut servers = Vec::new();
    for settings in by_password(settings, Role::Client, report) {
        let addresses = server_addresses(&settings, report);
        let credentials = read_credentials(&settings, insecure, NO_CLIENT_SECRET, report);
        if let Some(credentials) = credentials {
            let (heads, one_time_auth) = (read_heads(&settings), read_one_time_auth(&settings));
            servers.extend(addresses.into_iter().map(|address| {
                let mode = mode.map(|()| address.clone());
                let server = Server { address, mode, credentials: credentials.clone(), heads, one_time_auth };
                Listed { id: None, server, plugin: plugin.clone() }
            }));
        }
    }
    servers
}

fn client_door(settings: &Settings, out: &Out, common: &Common, report: &mut Report) -> Option<Door> {
    let place = place_of(settings, Id::LocalAddress, "local_address");
    let ip = listen_ip(settings.text(Id::LocalAddress), Ipv4Addr::LOCALHOST, report);
    let idle = common.idle_of(settings, report);
    let mut users = Vec::new();
    let protocol = read_protocol(settings, &mut users, report);
    let port = match protocol {
        Some(Protocol::Tunnel { .. }) => read_tunnel_port(settings),
        Some(Protocol::Proxy(_) | Protocol::Shadowsocks(_)) | None => {
            read_port(settings, Id::LocalPort, LOCAL_PORT_DEFAULT)
        }
    };
    let (listen, protocol) = (SocketAddr::new(ip?, port), protocol?);
    let mode = door_mode(settings, common, idle, &protocol, report);
    if !listen.ip().is_loopback() && !asks_who(&protocol) {
        let text = format!(
            "local set to listen on {}, it's not safe: there is no authentication, so anyone who reaches it may use it",
            listen.ip()
        );
        report.warn_as_ever(&place, text);
    }
    let proxy_header = read_proxy_header(settings, report);
    let name = settings.text(Id::Name).map_or_else(|| format!("local-{port}"), |(name, _)| name.into());
    let wants_datagrams = wants_datagrams(settings, common, &mode);
    let inbound = Inbound {
        name: name.into(),
        listen,
        protocol,
        mode,
        routes: out.routes.clone(),
        forbidden: Arc::clone(&out.forbidden),
        idle,
        tcp: common.tcp,
        proxy_header,
    };
    Some(Door { place, inbound, plugin: None, users, wants_datagrams })
}

/// What is spoken at a door; who may come in is added to `names`.
fn read_protocol(settings: &Settings, names: &mut Vec<String>, report: &mut Report) -> Option<Protocol> {
    let (protocol, place) = settings.text(Id::Protocol).unwrap_or(("mixed", ""));
    let proxy = match protocol {
        "tunnel" => {
            for said in [Id::Users, Id::UsersFile].into_iter().filter_map(|id| settings.get(id)) {
                report.error(
                    &said.place,
                    "a tunnel cannot ask who comes in; listen on 127.0.0.1, and leave it out",
                );
            }
            return read_tunnel(settings, report).map(|target| Protocol::Tunnel { target });
        }
        "mixed" => ProxyDoor::MIXED,
        "socks" => ProxyDoor { http: false, ..ProxyDoor::MIXED },
        "http" => ProxyDoor { socks4: false, socks5: false, ..ProxyDoor::MIXED },
        other => {
            let near = nearest(other, PROTOCOLS.into_iter());
            let hint = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
            let text = format!("unknown protocol {other}; {hint}the protocols are {}", PROTOCOLS.join(", "));
            report.error(place, text);
            return None;
        }
    };
    for id in [Id::ForwardAddress, Id::ForwardPort, Id::TunnelPort] {
        let Some(said) = settings.get(id) else { continue };
        if said.place.starts_with('-') {
            report.error(&said.place, "is for a tunnel; start umbra tunnel, or add --protocol tunnel");
        } else {
            report.warn(
                &said.place,
                "left aside: this inbound is no tunnel; \"protocol\": \"tunnel\" makes it one",
            );
        }
    }
    let users = read_door_users(settings, names, report);
    Some(Protocol::Proxy(ProxyDoor { users, ..proxy }))
}

/// Whether a door lets in only whom it knows.
fn asks_who(protocol: &Protocol) -> bool {
    match protocol {
        Protocol::Proxy(door) => door.users.is_some(),
        Protocol::Tunnel { .. } | Protocol::Shadowsocks(_) => false,
    }
}

fn read_tunnel(settings: &Settings, report: &mut Report) -> Option<Address> {
    let Some((host, place)) = settings.text(Id::ForwardAddress) else {
        let text = "missing; say where the tunnel leads, with -f HOST:PORT or in the file of -c";
        report.error(settings.key_path("forward_address"), text);
        return None;
    };
    let port = match settings.number(Id::ForwardPort) {
        Some((port, place)) => match u16::try_from(port) {
            Ok(port) if port != 0 => port,
            Ok(_) | Err(_) => {
                report.error(place, format!("{port} is no port to connect to"));
                return None;
            }
        },
        // The first implementation has this default, and files rely on it.
        None if place.ends_with("tunnel_remote") => TUNNEL_REMOTE_PORT_DEFAULT,
        None => {
            report.error(place, "has no port; say where the tunnel leads as HOST:PORT");
            return None;
        }
    };
    match Address::from_host(host, port) {
        Ok(address) => Some(address),
        Err(error) => {
            report.error(place, format!("{error}; say where the tunnel leads as HOST:PORT"));
            None
        }
    }
}

/// `tunnel_port` is the port of a tunnel in files that also have a `local_port` for another program. A flag beats both.
fn read_tunnel_port(settings: &Settings) -> u16 {
    let local = settings.number(Id::LocalPort);
    let id = match local {
        Some((_, place)) if place.starts_with('-') => Id::LocalPort,
        Some(_) | None if settings.get(Id::TunnelPort).is_some() => Id::TunnelPort,
        Some(_) | None => Id::LocalPort,
    };
    read_port(settings, id, LOCAL_PORT_DEFAULT)
}

const PROTOCOLS: [&str; 4] = ["mixed", "socks", "http", "tunnel"];

const LOCAL_PORT_DEFAULT: u16 = 1080;
const TUNNEL_REMOTE_PORT_DEFAULT: u16 = 53;

const NO_CLIENT_SECRET: &str = "missing; give the secret that the server has, with -k or in the file of -c";
