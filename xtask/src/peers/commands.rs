//! How each peer is told what to do, in each role.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{Peer, Role, Spec, free_port, python};
use crate::child::Program;

/// One end of `peer`, which is at `place`.
pub(super) fn program(peer: Peer, place: &Path, role: Role, spec: Spec<'_>) -> Result<Program> {
    let name = match role {
        Role::Client(_) => format!("{peer} client"),
        Role::Tunnel { .. } => format!("{peer} tunnel"),
        Role::Server => format!("{peer} server"),
    };
    let method = spec.method.name;
    let line = |path: PathBuf, line: String| {
        let mut args = words(&line, role, spec);
        args.extend(datagrams_flag(peer).filter(|_| spec.datagrams).map(str::to_owned));
        Program::new(name.clone(), path, args)
    };
    Ok(match (peer, role) {
        (Peer::Umbra | Peer::Earlier, Role::Client(server)) => {
            line(place.to_owned(), format!("local -s {server} -b 127.0.0.1:0 -m {method}"))
        }
        (Peer::Umbra | Peer::Earlier, Role::Tunnel { server, target }) => {
            line(place.to_owned(), format!("tunnel -f {target} -s {server} -b 127.0.0.1:0 -m {method}"))
        }
        (Peer::Umbra | Peer::Earlier, Role::Server) if !spec.users.is_empty() => {
            let args = vec!["server".to_owned(), "-c".to_owned()];
            let mut config = with_users(spec, 0);
            config["forbidden_ip"] = json!("");
            Program::new(name, place.to_owned(), args).with_config(&config)?
        }
        (Peer::Umbra | Peer::Earlier, Role::Server) => {
            let port = port(spec)?;
            // The targets are on loopback.
            line(place.to_owned(), format!("server --forbidden-ip= -s 127.0.0.1:{port} -m {method}"))
        }
        (Peer::ShadowsocksRust, Role::Client(server)) => {
            let port = port(spec)?;
            line(place.join("sslocal"), format!("-s {server} -b 127.0.0.1:{port} -m {method}"))
        }
        (Peer::ShadowsocksRust, Role::Tunnel { server, target }) => {
            let port = port(spec)?;
            let tunnel = format!("--protocol tunnel -f {target}");
            line(place.join("sslocal"), format!("{tunnel} -s {server} -b 127.0.0.1:{port} -m {method}"))
        }
        (Peer::ShadowsocksRust, Role::Server) if !spec.users.is_empty() => {
            Program::new(name, place.join("ssserver"), vec!["-c".to_owned()])
                .with_config(&with_users(spec, free_port()?))?
        }
        (Peer::ShadowsocksRust, Role::Server) => {
            line(place.join("ssserver"), format!("-s 127.0.0.1:{} -m {method}", free_port()?))
        }
        (Peer::ShadowsocksLibev, Role::Client(server)) => {
            let (ip, port, own) = (server.ip(), server.port(), port(spec)?);
            line(place.join("ss-local"), format!("-s {ip} -p {port} -b 127.0.0.1 -l {own} -m {method}"))
        }
        (Peer::ShadowsocksLibev, Role::Tunnel { server, target }) => {
            let (ip, port, own) = (server.ip(), server.port(), port(spec)?);
            let line = |rest| line(place.join("ss-tunnel"), rest);
            line(format!("-L {target} -s {ip} -p {port} -b 127.0.0.1 -l {own} -m {method}"))
        }
        (Peer::ShadowsocksLibev, Role::Server) => {
            line(place.join("ss-server"), format!("-s 127.0.0.1 -p {} -m {method}", port(spec)?))
        }
        (Peer::V2ray, role) => {
            let config = v2ray(role, spec)?;
            Program::new(name, place.to_owned(), vec!["-config".to_owned()]).with_config(&config)?
        }
        (Peer::Python, Role::Client(server)) => {
            let (python, mut args) = python::command(place, "local")?;
            let (ip, port, own) = (server.ip(), server.port(), free_port()?);
            let line = format!("-s {ip} -p {port} -b 127.0.0.1 -l {own} -m {method}");
            args.extend(words(&line, role, spec));
            Program::new(name, python, args)
        }
        (Peer::Python, Role::Tunnel { .. }) => bail!("its last release has no tunnel"),
        (Peer::Python, Role::Server) => {
            let (python, mut args) = python::command(place, "server")?;
            // Its targets are on loopback, which it forbids unless told that nothing is forbidden.
            let line = format!("--forbidden-ip= -s 127.0.0.1 -p {} -m {method}", free_port()?);
            args.extend(words(&line, role, spec));
            Program::new(name, python, args)
        }
        (Peer::Microsocks | Peer::Danted | Peer::Tinyproxy | Peer::TrafficServer, _) => {
            bail!("{peer} is a proxy and neither end of anything")
        }
    })
}

/// What lets datagrams pass beside streams, for those who do not let them pass by themselves.
fn datagrams_flag(peer: Peer) -> Option<&'static str> {
    match peer {
        Peer::ShadowsocksRust => Some("-U"),
        Peer::ShadowsocksLibev => Some("-u"),
        Peer::Umbra | Peer::Earlier | Peer::V2ray | Peer::Python => None,
        Peer::Microsocks | Peer::Danted | Peer::Tinyproxy | Peer::TrafficServer => None,
    }
}

/// A command line, with what every Shadowsocks understands.
fn words(line: &str, role: Role, spec: Spec<'_>) -> Vec<String> {
    let mut args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    args.extend(["-k".to_owned(), spec.password.to_owned()]);
    if spec.one_time_auth {
        args.push("-a".to_owned());
    }
    if let Some(disguise) = spec.obfs {
        let (plugin, options) = match role {
            Role::Client(_) | Role::Tunnel { .. } => {
                ("obfs-local", format!("obfs={disguise};obfs-host=site.example"))
            }
            Role::Server => ("obfs-server", format!("obfs={disguise}")),
        };
        args.extend(["--plugin".to_owned(), plugin.to_owned(), "--plugin-opts".to_owned(), options]);
    }
    args
}

/// A plugin cannot choose a port, which its server could; and of two sockets that both choose, one is not found.
fn port(spec: Spec<'_>) -> Result<u16> {
    if spec.obfs.is_some() || spec.datagrams { free_port() } else { Ok(0) }
}

/// A server's configuration, in which shadowsocks-rust and ours agree.
fn with_users(spec: Spec<'_>, port: u16) -> Value {
    let users = spec.users.iter().map(|user| {
        let mut entry = json!({ "name": user.name, "password": user.password });
        if let Some(forward) = user.forward {
            entry["forward"] = json!(forward.to_string());
        }
        entry
    });
    let mut server = json!({
        "server": "127.0.0.1", "server_port": port,
        "method": spec.method.name, "users": users.collect::<Vec<_>>(),
    });
    if !spec.password.is_empty() {
        server["password"] = json!(spec.password);
    }
    let mode = if spec.datagrams { "tcp_and_udp" } else { "tcp_only" };
    json!({ "servers": [server], "mode": mode })
}

fn v2ray(role: Role, spec: Spec<'_>) -> Result<Value> {
    let (port, method, password) = (free_port()?, spec.method.name, spec.password);
    let network = if spec.datagrams { "tcp,udp" } else { "tcp" };
    let outbound = |server: SocketAddr| {
        let server =
            json!({"address": server.ip(), "port": server.port(), "method": method, "password": password});
        json!({"protocol": "shadowsocks", "settings": {"servers": [server]}})
    };
    let (inbound, outbound) = match role {
        Role::Client(server) => {
            let settings = json!({"udp": spec.datagrams, "ip": "127.0.0.1"});
            (json!({"protocol": "socks", "settings": settings}), outbound(server))
        }
        Role::Tunnel { server, target } => {
            let settings = json!({"address": target.ip(), "port": target.port(), "network": network});
            (json!({"protocol": "dokodemo-door", "settings": settings}), outbound(server))
        }
        Role::Server => {
            let settings = json!({"method": method, "password": password, "network": network});
            (json!({"protocol": "shadowsocks", "settings": settings}), json!({"protocol": "freedom"}))
        }
    };
    let mut inbound = inbound;
    inbound["listen"] = json!("127.0.0.1");
    inbound["port"] = json!(port);
    Ok(json!({"log": {"loglevel": "warning"}, "inbounds": [inbound], "outbounds": [outbound]}))
}
