//! The programs Umbra is run beside: where they are, how each is started in each role, and how to get them.

mod commands;
mod methods;
mod proxies;
pub(crate) mod python;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::child::Guard;
use crate::install;
pub(crate) use methods::*;
pub(crate) use proxies::{Cache, DANTED_ASKS_THE_SYSTEM, Login, Proxy};

/// The release of shadowsocks-rust that figures are compared with.
pub(crate) const SHADOWSOCKS_RUST_VERSION: &str = "1.25.0";

/// What it is built with: all it does by default, and the AEAD methods beyond the specification.
pub(crate) const SHADOWSOCKS_RUST_FEATURES: &str = "full,aead-cipher-extra,aead-cipher-2022-extra";

/// A program with a client and a server, or a proxy that is one end of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Peer {
    /// The binary of this workspace.
    Umbra,
    /// One from before, to see what a change costs.
    #[value(skip)]
    Earlier,
    /// Built once with cargo into the cache.
    ShadowsocksRust,
    /// Installed by the system.
    ShadowsocksLibev,
    /// Installed by the system.
    V2ray,
    /// Installed from PyPI into the cache.
    Python,
    /// A SOCKS5 proxy with a thread for each session; installed by the system.
    Microsocks,
    /// A SOCKS proxy of many processes; installed by the system.
    Danted,
    /// An HTTP proxy; installed by the system.
    Tinyproxy,
    /// An HTTP cache that can be a client of SOCKS proxies and one itself; installed by the system.
    TrafficServer,
}

/// Which end to start.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    /// The SOCKS side, dialling this server.
    Client(SocketAddr),
    /// The side that leads everything to one target.
    Tunnel {
        /// The server to dial.
        server: SocketAddr,
        /// Where it leads.
        target: SocketAddr,
    },
    /// The side that dials targets.
    Server,
}

/// What both ends must agree about, as one of them is told it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec<'a> {
    /// How sessions are sealed.
    pub(crate) method: Method,
    /// A client's password, or the one of a server; empty where only users have one.
    pub(crate) password: &'a str,
    /// Who may use a server, where it is not whoever knows its password.
    pub(crate) users: &'a [User],
    /// The disguise that simple-obfs puts on.
    pub(crate) obfs: Option<&'static str>,
    /// Whether clients add one-time auth, and servers want it.
    pub(crate) one_time_auth: bool,
    /// Whether datagrams pass as well, where that is not always so.
    pub(crate) datagrams: bool,
}

/// A user of a server.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// What the server calls it.
    pub(crate) name: &'static str,
    /// Its own password.
    pub(crate) password: &'static str,
    /// The server to which its sessions are passed on.
    pub(crate) forward: Option<SocketAddr>,
}

impl Spec<'static> {
    /// Nothing but a method, with its password.
    pub(crate) fn of(method: Method) -> Self {
        Self {
            method,
            password: method.password,
            users: &[],
            obfs: None,
            one_time_auth: false,
            datagrams: false,
        }
    }
}

/// Where each program is, or why it cannot be run.
#[derive(Debug, Clone)]
pub(crate) struct Tools(BTreeMap<Peer, Result<PathBuf, String>>);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Umbra => "umbra",
            Self::Earlier => "umbra before",
            Self::ShadowsocksRust => "shadowsocks-rust",
            Self::ShadowsocksLibev => "shadowsocks-libev",
            Self::V2ray => "v2ray",
            Self::Python => "python",
            Self::Microsocks => "microsocks",
            Self::Danted => "danted",
            Self::Tinyproxy => "tinyproxy",
            Self::TrafficServer => "traffic-server",
        })
    }
}

impl Peer {
    /// Everyone but ours that has both ends.
    pub(crate) const OTHERS: [Self; 4] =
        [Self::ShadowsocksRust, Self::ShadowsocksLibev, Self::V2ray, Self::Python];

    /// Proxies, which know nothing of Shadowsocks.
    pub(crate) const PROXIES: [Self; 4] =
        [Self::Microsocks, Self::Danted, Self::Tinyproxy, Self::TrafficServer];

    /// Whether it is of this workspace, now or before.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Umbra | Self::Earlier)
    }

    /// Whether one way can end and the other go on.
    pub(crate) fn half_closes(self) -> bool {
        match self {
            Self::Umbra | Self::Earlier | Self::ShadowsocksRust | Self::Danted => true,
            Self::ShadowsocksLibev | Self::V2ray | Self::Python => false,
            Self::Microsocks | Self::Tinyproxy | Self::TrafficServer => false,
        }
    }

    /// What to type when it is missing.
    fn how_to_get(self) -> String {
        match self {
            Self::Umbra | Self::Earlier => "cargo build --release --package umbra".to_owned(),
            Self::ShadowsocksRust => {
                let root = shadowsocks_rust_root();
                format!(
                    "cargo install shadowsocks-rust --version {SHADOWSOCKS_RUST_VERSION} --locked --features {SHADOWSOCKS_RUST_FEATURES} --root {}",
                    root.display()
                )
            }
            Self::Python => python::how_to_get(),
            Self::ShadowsocksLibev
            | Self::V2ray
            | Self::Microsocks
            | Self::Danted
            | Self::Tinyproxy
            | Self::TrafficServer => {
                format!("apt-get install {}", self.package().unwrap_or_default())
            }
        }
    }

    /// The system's package that has it; none where it comes from elsewhere.
    pub(crate) fn package(self) -> Option<&'static str> {
        match self {
            Self::Umbra | Self::Earlier | Self::ShadowsocksRust | Self::Python => None,
            Self::ShadowsocksLibev => Some("shadowsocks-libev"),
            Self::V2ray => Some("v2ray"),
            Self::Microsocks => Some("microsocks"),
            Self::Danted => Some("dante-server"),
            // The program without the service.
            Self::Tinyproxy => Some("tinyproxy-bin"),
            Self::TrafficServer => Some("trafficserver"),
        }
    }

    fn find(self, umbra: Option<&Path>) -> Result<PathBuf, String> {
        let found = match self {
            Self::Umbra | Self::Earlier => umbra.filter(|path| path.is_file()).map(Path::to_owned),
            Self::ShadowsocksRust => {
                Some(shadowsocks_rust_root().join("bin")).filter(|bin| bin.join("ssserver").is_file())
            }
            Self::ShadowsocksLibev => in_path("ss-server").and_then(|path| Some(path.parent()?.to_owned())),
            Self::V2ray => in_path("v2ray"),
            Self::Python => return python::find(),
            Self::Microsocks => in_path("microsocks"),
            Self::Danted => in_owners_path("danted"),
            Self::Tinyproxy => in_owners_path("tinyproxy"),
            Self::TrafficServer => in_owners_path("traffic_server"),
        };
        found.ok_or_else(|| format!("is missing; to get it: {}", self.how_to_get()))
    }
}

impl Tools {
    /// Looks for every peer; `umbra` is where our own binary is.
    pub(crate) fn find(umbra: Option<&Path>) -> Self {
        let everyone = [Peer::Umbra].into_iter().chain(Peer::OTHERS).chain(Peer::PROXIES);
        Self(everyone.map(|peer| (peer, peer.find(umbra))).collect())
    }

    /// With an earlier binary of ours beside them.
    pub(crate) fn with_earlier(mut self, umbra: Option<&Path>) -> Self {
        self.0.insert(Peer::Earlier, Peer::Earlier.find(umbra));
        self
    }

    /// Looks for every peer, and installs what is missing where nothing may be left out.
    pub(crate) fn provide(umbra: Option<&Path>) -> Result<Self> {
        install::missing_peers(&Self::find(umbra))?;
        Ok(Self::find(umbra))
    }

    /// Whether `peer` can be started.
    pub(crate) fn has(&self, peer: Peer) -> bool {
        self.place(peer).is_ok()
    }

    /// Why `peer` cannot be started; nothing when it can.
    pub(crate) fn lack(&self, peer: Peer) -> Option<String> {
        self.place(peer).err()
    }

    /// Where `peer` is.
    pub(crate) fn path(&self, peer: Peer) -> Result<&Path> {
        self.place(peer).map_err(anyhow::Error::msg)
    }

    /// Starts one end of `peer` on a port that is free and waits until it listens.
    pub(crate) fn start(
        &self,
        peer: Peer,
        role: Role,
        spec: Spec<'_>,
        cpu: Option<usize>,
    ) -> Result<(Guard, SocketAddr)> {
        let place = self.path(peer)?;
        let mut failure = None;
        // Some refuse port 0 and are given a port that was free a moment ago; another program may take it first.
        for _ in 0..3 {
            let mut guard = Guard::start(commands::program(peer, place, role, spec)?, cpu)?;
            match guard.listening().and_then(|address| match (spec.obfs, role) {
                // In front of a server is its plugin, and a client is not ready before its own.
                (Some(_), Role::Server) => guard.child_listening(),
                (Some(_), Role::Client(_) | Role::Tunnel { .. }) => guard.child_listening().map(|_| address),
                (None, _) => Ok(address),
            }) {
                Ok(address) => return Ok((guard, address)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no attempt was made")?)
    }

    fn place(&self, peer: Peer) -> Result<&Path, String> {
        match self.0.get(&peer) {
            Some(Ok(place)) => Ok(place),
            Some(Err(why)) => Err(format!("{peer} {why}")),
            None => Err(format!("{peer} was not looked for")),
        }
    }
}

/// The folder outside the tree where peers and tools are kept between runs.
pub(crate) fn cache() -> PathBuf {
    if let Some(place) = std::env::var_os("UMBRA_CACHE") {
        return PathBuf::from(place);
    }
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    home.join(".cache").join("umbra")
}

/// Where shadowsocks-rust is installed; its version is in the name, so that another one is built beside it.
pub(crate) fn shadowsocks_rust_root() -> PathBuf {
    cache().join("peers").join(format!("shadowsocks-rust-{SHADOWSOCKS_RUST_VERSION}-extra"))
}

/// The path of an installed program.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The same, also where it is meant for the machine's owner and so not in everybody's path.
pub(crate) fn in_owners_path(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/local/sbin"];
    let beside = folders.into_iter().map(|folder| Path::new(folder).join(name)).find(|file| file.is_file());
    in_path(name).or(beside)
}

/// A port of 127.0.0.1 that was free a moment ago, for streams and for datagrams.
pub(crate) fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("look for a free port")?;
        let address = listener.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address.port());
        }
    }
    bail!("no port is free for streams and datagrams")
}
