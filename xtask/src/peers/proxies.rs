//! Proxies that speak SOCKS or HTTP and nothing of Shadowsocks: parents of ours, clients of ours, and whom plain relaying is
//! measured beside.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Peer, Tools, free_port};
use crate::child::{Guard, Program};

/// A name with its password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Login {
    /// The name.
    pub(crate) name: &'static str,
    /// Its password.
    pub(crate) password: &'static str,
}

/// A proxy, and what it is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proxy {
    /// Which program.
    pub(crate) peer: Peer,
    /// Where it listens.
    pub(crate) ip: IpAddr,
    /// Who is let in; everybody, if nobody is named.
    pub(crate) login: Option<Login>,
    /// The SOCKS5 proxy behind it.
    pub(crate) next: Option<SocketAddr>,
}

/// Traffic Server with SOCKS parents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cache<'a> {
    /// What its parents speak: 4 or 5.
    pub(crate) version: u8,
    /// Its parents where no rule fits.
    pub(crate) default_servers: &'a str,
    /// The text of its `socks.config`.
    pub(crate) socks_config: &'a str,
}

/// Traffic Server, running.
#[derive(Debug)]
pub(crate) struct RunningCache {
    /// The process.
    pub(crate) guard: Guard,
    /// Where it is an HTTP proxy.
    pub(crate) http: SocketAddr,
    /// Where it is a SOCKS proxy.
    pub(crate) socks: SocketAddr,
    /// The file of its settings, which are there while it runs.
    pub(crate) records: PathBuf,
}

impl Proxy {
    /// `peer` on 127.0.0.1, for everybody.
    pub(crate) fn of(peer: Peer) -> Self {
        Self { peer, ip: Ipv4Addr::LOCALHOST.into(), login: None, next: None }
    }

    /// How it is started on `port`.
    fn program(self, place: &Path, port: u16) -> Result<Program> {
        let Self { peer, ip, login, next } = self;
        let program = |args: Vec<String>| Program::new(format!("{peer} as a proxy"), place.to_owned(), args);
        match peer {
            Peer::Microsocks => {
                let mut args = vec!["-i".to_owned(), ip.to_string(), "-p".to_owned(), port.to_string()];
                args.extend(
                    login
                        .into_iter()
                        .flat_map(|login| ["-u", login.name, "-P", login.password].map(str::to_owned)),
                );
                Ok(program(args))
            }
            Peer::Danted if login.is_some() => bail!("{DANTED_ASKS_THE_SYSTEM}"),
            Peer::Danted => {
                let folder = tempfile::tempdir().context("a folder for danted")?;
                let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
                fs::write(file("danted.conf"), danted(ip, port, next))?;
                let args = ["-f", &file("danted.conf"), "-p", &file("pid")].map(str::to_owned);
                Ok(program(args.into()).with_folder(folder))
            }
            Peer::Tinyproxy => program(vec!["-d".to_owned(), "-c".to_owned()])
                .with_file("tinyproxy.conf", &tinyproxy(ip, port, login)),
            Peer::Umbra
            | Peer::Earlier
            | Peer::ShadowsocksRust
            | Peer::ShadowsocksLibev
            | Peer::V2ray
            | Peer::Python
            | Peer::TrafficServer => bail!("{peer} is started in another way"),
        }
    }
}

/// Why danted lets everybody in here.
pub(crate) const DANTED_ASKS_THE_SYSTEM: &str =
    "danted knows no users but those of the system, which are left alone";

impl Tools {
    /// Starts `proxy` on a port that is free and waits until it listens.
    pub(crate) fn start_proxy(&self, proxy: Proxy, cpu: Option<usize>) -> Result<(Guard, SocketAddr)> {
        let place = self.path(proxy.peer)?;
        let mut failure = None;
        // The port was free a moment ago; another program may take it first.
        for _ in 0..3 {
            let port = free_port()?;
            let mut guard = Guard::start(proxy.program(place, port)?, cpu)?;
            match guard.listening_on(port) {
                Ok(()) => return Ok((guard, SocketAddr::new(proxy.ip, port))),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no attempt was made")?)
    }

    /// Starts Traffic Server and waits until it listens.
    pub(crate) fn start_cache(&self, cache: Cache<'_>) -> Result<RunningCache> {
        let place = self.path(Peer::TrafficServer)?;
        let (http, socks) = (free_port()?, free_port()?);
        let folder = tempfile::tempdir().context("a folder for Traffic Server")?;
        cache.lay_out(folder.path(), http, socks)?;
        let records = folder.path().join("etc/records.config");
        let args = vec![format!("--run-root={}", folder.path().display())];
        let program = Program::new(Peer::TrafficServer.to_string(), place.to_owned(), args);
        let mut guard = Guard::start(program.with_folder(folder), None)?;
        guard.listening_on(http)?;
        guard.listening_on(socks)?;
        let at = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        Ok(RunningCache { guard, http: at(http), socks: at(socks), records })
    }
}

impl Cache<'_> {
    /// All that it reads and writes, below one folder.
    fn lay_out(self, folder: &Path, http: u16, socks: u16) -> Result<()> {
        for name in ["etc", "var", "run", "log", "cache"] {
            fs::create_dir(folder.join(name)).context("a folder below Traffic Server's own")?;
        }
        let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let places = [
            ("prefix", "/usr".to_owned()),
            ("exec_prefix", "/usr".to_owned()),
            ("bindir", "/usr/bin".to_owned()),
            ("sbindir", "/usr/sbin".to_owned()),
            ("includedir", "/usr/include".to_owned()),
            ("libdir", "/usr/lib/trafficserver".to_owned()),
            ("libexecdir", "/usr/lib/trafficserver/modules".to_owned()),
            ("sysconfdir", at("etc")),
            ("datadir", at("cache")),
            ("localstatedir", at("var")),
            ("runtimedir", at("run")),
            ("logdir", at("log")),
            ("cachedir", at("cache")),
        ];
        let places: String = places.into_iter().map(|(name, place)| format!("{name}: {place}\n")).collect();
        fs::write(folder.join("runroot.yaml"), places)?;
        fs::write(folder.join("etc/records.config"), self.records(http, socks))?;
        fs::write(folder.join("etc/socks.config"), self.socks_config)?;
        // It starts with a cache or not at all.
        fs::write(folder.join("etc/storage.config"), format!("{} 32M\n", at("cache")))?;
        fs::write(folder.join("etc/ip_allow.yaml"), IP_ALLOW).context("Traffic Server's files")
    }

    /// By itself it never asks a parent that is on its own machine (`self_detect`), and here all of them are.
    fn records(self, http: u16, socks: u16) -> String {
        let Self { version, default_servers, .. } = self;
        let default_servers = if default_servers.is_empty() { "NULL" } else { default_servers };
        format!(
            "CONFIG proxy.config.http.server_ports STRING {http}:ip-in=127.0.0.1
CONFIG proxy.config.local.incoming_ip_to_bind STRING 127.0.0.1
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.crash_log_helper STRING NULL
CONFIG proxy.config.http.cache.http INT 0
CONFIG proxy.config.cache.ram_cache.size INT 1048576
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.url_remap.remap_required INT 0
CONFIG proxy.config.reverse_proxy.enabled INT 0
CONFIG proxy.config.http.parent_proxy.self_detect INT 0
CONFIG proxy.config.socks.socks_needed INT 1
CONFIG proxy.config.socks.socks_version INT {version}
CONFIG proxy.config.socks.socks_timeout INT 10
CONFIG proxy.config.socks.default_servers STRING {default_servers}
CONFIG proxy.config.socks.accept_enabled INT 1
CONFIG proxy.config.socks.accept_port INT {socks}
CONFIG proxy.config.socks.http_port INT 1
"
        )
    }
}

const IP_ALLOW: &str = "ip_allow:
  - apply: in
    ip_addrs: 127.0.0.1
    action: allow
    methods: ALL
";

/// Who is not root cannot change users, and danted does not start if it is told to.
fn danted(ip: IpAddr, port: u16, next: Option<SocketAddr>) -> String {
    let is_root = nix::unistd::Uid::effective().is_root();
    let users = if is_root { "user.privileged: root\nuser.unprivileged: nobody\n" } else { "" };
    let route = next.map_or_else(String::new, |next| {
        format!(
            "route {{
    from: 0/0 to: 0/0 via: {} port = {}
    proxyprotocol: socks_v5
    command: connect
}}
",
            next.ip(),
            next.port()
        )
    });
    format!(
        "logoutput: stderr
internal.protocol: ipv4 ipv6
internal: {ip} port = {port}
external.protocol: ipv4 ipv6
external: lo
clientmethod: none
socksmethod: none
{users}client pass {{
    from: 0/0 to: 0/0
}}
socks pass {{
    from: 0/0 to: 0/0
    command: bind connect udpassociate
    log: connect error
}}
socks pass {{
    from: 0/0 to: 0/0
    command: bindreply udpreply
}}
{route}"
    )
}

fn tinyproxy(ip: IpAddr, port: u16, login: Option<Login>) -> String {
    let login =
        login.map_or_else(String::new, |login| format!("BasicAuth {} {}\n", login.name, login.password));
    format!("Listen {ip}\nPort {port}\nTimeout 60\nMaxClients 200\nLogLevel Connect\n{login}")
}
