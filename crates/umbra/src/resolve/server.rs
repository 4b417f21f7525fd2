//! The doors of a server.

use std::net::IpAddr;
use std::sync::Arc;

use umbra_relay::config::{Inbound, Protocol, ShadowsocksDoor};

use super::beside::read_proxy_header;
use super::datagrams::{door_mode, door_mode_beside_plugin, wants_datagrams};
use super::hosts::{by_password, server_listens};
use super::users::{read_keyring, user_names};
use super::{Common, DOOR_IDS, Door, Out, SERVER_IDS, Sources, entries, read_heads, read_one_time_auth};
use crate::flags::Role;
use crate::plugin::Plugin;
use crate::raw::{Raw, Settings};
use crate::reference::{Id, LISTS};
use crate::report::Report;
use crate::secret::read_method;

/// A door for each port of each server.
pub(super) fn server_doors(sources: Sources, out: &Out, common: &Common, report: &mut Report) -> Vec<Door> {
    let Sources { file, flags, online, .. } = sources;
    refuse_manager(&file, &flags, report);
    refuse_shadowsocksr(&file.root, report);
    warn_of_outbound_address(&file.root, report);
    if file.inbounds.is_some() {
        report.warn(LISTS[1], "left aside: it is for umbra local");
    }
    for online in online {
        let place = online.subscription.place;
        if place.starts_with(ONLINE_CONFIG) {
            report.warn(place, "left aside: it is for umbra local");
        } else {
            report.error(place, "a document names the servers of a client; say where this one listens, with -s or in the file of -c");
        }
    }
    let ids = [SERVER_IDS, DOOR_IDS].concat();
    let servers = entries(&ids, LISTS[0], &file.root, file.servers, &flags, report);
    servers.iter().flat_map(|settings| entry_doors(settings, out, common, report)).collect()
}

/// Whoever has a manager counts on the ports that it opens, so that a server without it does not start; but those that are listed need none.
fn refuse_manager(file: &Raw, flags: &Settings, report: &mut Report) {
    let Some(manager) = file.root.get(Id::Manager) else { return };
    let said = |id| file.root.get(id).or(flags.get(id)).map(|said| said.place.as_str());
    let listed = file.servers.as_ref().map(|_| LISTS[0]);
    let listed = listed.or_else(|| said(Id::PortPassword)).or_else(|| said(Id::ServerPort));
    let text = match listed {
        Some(place) => {
            format!("managers are not supported yet; take it out: the ports in {place} are served without it")
        }
        None => {
            "managers are not supported yet; take it out, and list the ports in port_password or servers[]"
                .into()
        }
    };
    report.error(&manager.place, text);
}

/// ShadowsocksR wraps what Shadowsocks says once more, so that none of its clients would be understood. What it has for Shadowsocks as it is
/// (`origin` and `plain`) is no matter; a client of the same file has protocols of its own.
fn refuse_shadowsocksr(root: &Settings, report: &mut Report) {
    let protocol = root.text(Id::Protocol);
    let theirs = protocol.filter(|(name, _)| OF_SHADOWSOCKSR.iter().any(|start| name.starts_with(start)));
    let obfuscation = root.get(Id::Obfuscation).map(|said| said.place.as_str());
    for place in theirs.map(|(_, place)| place).into_iter().chain(obfuscation) {
        let text = "is of ShadowsocksR, whose clients a server of Shadowsocks does not understand; take it out, and have the clients say origin \
                    and plain";
        report.error(place, text);
    }
}

/// A server of other programs reaches its targets from its `local_address`. One that says no more than that a client on the same machine
/// listens there, or that any address will do, loses nothing.
fn warn_of_outbound_address(root: &Settings, report: &mut Report) {
    let Some((address, place)) = root.text(Id::LocalAddress) else { return };
    let ip = address.parse::<IpAddr>().map(|ip| ip.to_canonical());
    if ip.is_ok_and(|ip| !ip.is_loopback() && !ip.is_unspecified()) {
        report.warn(
            place,
            "left aside: connections to targets leave by the address that the system chooses; a route of the system can say which",
        );
    }
}

/// A door for each port of an entry; those with the same password share its keys.
fn entry_doors(settings: &Settings, out: &Out, common: &Common, report: &mut Report) -> Vec<Door> {
    let idle = common.idle_of(settings, report);
    let plugin = Plugin::read(settings, report);
    let proxy_header = read_proxy_header(settings, report);
    let name = settings.text(Id::Name).map(|(name, _)| name);
    let users: Vec<_> = user_names(settings.objects(Id::Users).unwrap_or_default()).collect();
    let mut doors = Vec::new();
    for settings in by_password(settings, Role::Server, report) {
        let listens = server_listens(&settings, report);
        let method = read_method(&settings, common.insecure, report);
        let Some(keys) = read_keyring(&settings, method, NO_SERVER_SECRET, report).map(Arc::new) else {
            continue;
        };
        doors.extend(listens.into_iter().map(|(listen, place)| {
            let (heads, one_time_auth) = (read_heads(&settings), read_one_time_auth(&settings));
            let door = ShadowsocksDoor { keys: Arc::clone(&keys), heads, one_time_auth };
            let protocol = Protocol::Shadowsocks(door);
            let mode = if plugin.is_some() {
                door_mode_beside_plugin(&settings, common, idle, report)
            } else {
                door_mode(&settings, common, idle, &protocol, report)
            };
            let wants_datagrams = wants_datagrams(&settings, common, &mode);
            let inbound = Inbound {
                name: name.map_or_else(|| format!("server-{}", listen.port()), Into::into).into(),
                listen,
                protocol,
                mode,
                routes: out.routes.clone(),
                forbidden: Arc::clone(&out.forbidden),
                idle,
                tcp: common.tcp,
                proxy_header: proxy_header.clone(),
            };
            Door { place, inbound, plugin: plugin.clone(), users: users.clone(), wants_datagrams }
        }));
    }
    // One is enough to say so; an entry may have thousands of ports.
    if let Some(door) = doors.iter().find(|door| door.inbound.listen.ip().is_loopback()) {
        report.warn_as_ever(
            &door.place,
            format!("server set to listen on {}, are you sure?", door.inbound.listen),
        );
    }
    doors
}

/// How the names of its protocols begin.
const OF_SHADOWSOCKSR: [&str; 2] = ["auth_", "verify_"];

/// Where a file that is meant for both ends has what is the client's alone.
const ONLINE_CONFIG: &str = "online_config";

const NO_SERVER_SECRET: &str =
    "missing; make one with: umbra key 2022-blake3-aes-256-gcm, and give it with -k or in the file of -c";
