//! The programs Umbra is run beside: where they are, how each is started in each role, and how to get them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::child::{Guard, Program};
use crate::install;

/// The release of shadowsocks-rust that figures are compared with.
pub(crate) const SHADOWSOCKS_RUST_VERSION: &str = "1.25.0";

/// A program with a client and a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Peer {
    /// The binary of this workspace.
    Umbra,
    /// Built once with cargo into the cache.
    ShadowsocksRust,
    /// Installed by the system.
    ShadowsocksLibev,
}

/// What a session is sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method {
    /// The specification's name.
    pub(crate) name: &'static str,
    /// A password that fits: the 2022 methods want a key of their length in base64.
    pub(crate) password: &'static str,
    /// Another one that fits as well.
    pub(crate) wrong_password: &'static str,
}

/// Which end to start.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    /// The SOCKS side, dialling this server.
    Client(SocketAddr),
    /// The side that dials targets.
    Server,
}

/// Where the programs are; what is `None` is not installed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tools {
    umbra: Option<PathBuf>,
    shadowsocks_rust: Option<PathBuf>,
    shadowsocks_libev: Option<PathBuf>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Umbra => "umbra",
            Self::ShadowsocksRust => "shadowsocks-rust",
            Self::ShadowsocksLibev => "shadowsocks-libev",
        })
    }
}

impl Peer {
    /// Whether it speaks `method`.
    pub(crate) fn speaks(self, method: Method) -> bool {
        match self {
            Self::Umbra | Self::ShadowsocksRust => true,
            Self::ShadowsocksLibev => !method.name.starts_with("2022-"),
        }
    }

    /// What to type when it is missing.
    pub(crate) fn how_to_get(self) -> String {
        match self {
            Self::Umbra => "cargo build --release --package umbra".to_owned(),
            Self::ShadowsocksRust => {
                let root = shadowsocks_rust_root();
                format!(
                    "cargo install shadowsocks-rust --version {SHADOWSOCKS_RUST_VERSION} --locked --features full --root {}",
                    root.display()
                )
            }
            Self::ShadowsocksLibev => "apt-get install shadowsocks-libev".to_owned(),
        }
    }
}

impl Tools {
    /// Looks for every peer; `umbra` is where our own binary is.
    pub(crate) fn find(umbra: Option<&Path>) -> Self {
        let cached = shadowsocks_rust_root().join("bin");
        Self {
            umbra: umbra.filter(|path| path.is_file()).map(Path::to_owned),
            shadowsocks_rust: Some(cached).filter(|bin| bin.join("ssserver").is_file()),
            shadowsocks_libev: in_path("ss-server").and_then(|path| Some(path.parent()?.to_owned())),
        }
    }

    /// Looks for every peer, and installs what is missing where nothing may be left out.
    pub(crate) fn provide(umbra: Option<&Path>) -> Result<Self> {
        install::missing_peers(&Self::find(umbra))?;
        Ok(Self::find(umbra))
    }

    /// Whether `peer` can be started.
    pub(crate) fn has(&self, peer: Peer) -> bool {
        self.place(peer).is_some()
    }

    /// Starts one end of `peer` on a port of the kernel's choosing and waits until it listens.
    pub(crate) fn start(
        &self,
        peer: Peer,
        role: Role,
        method: Method,
        password: &str,
        cpu: Option<usize>,
    ) -> Result<(Guard, SocketAddr)> {
        let place = self.place(peer).with_context(|| format!("{peer} is missing: {}", peer.how_to_get()))?;
        let mut failure = None;
        // ssserver refuses port 0, so it is given a port that was free a moment ago; another program may take it first.
        for _ in 0..3 {
            let program = program(peer, place, role, method, password)?;
            let mut guard = Guard::start(&program, cpu)?;
            match guard.listening() {
                Ok(address) => return Ok((guard, address)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no attempt was made")?)
    }

    fn place(&self, peer: Peer) -> Option<&Path> {
        match peer {
            Peer::Umbra => self.umbra.as_deref(),
            Peer::ShadowsocksRust => self.shadowsocks_rust.as_deref(),
            Peer::ShadowsocksLibev => self.shadowsocks_libev.as_deref(),
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
    cache().join("peers").join(format!("shadowsocks-rust-{SHADOWSOCKS_RUST_VERSION}"))
}

/// The path of an installed program.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn program(peer: Peer, place: &Path, role: Role, method: Method, password: &str) -> Result<Program> {
    let (path, line) = match (peer, role) {
        (Peer::Umbra, Role::Client(server)) => {
            (place.to_owned(), format!("local -s {server} -b 127.0.0.1:0 -m {} -k", method.name))
        }
        (Peer::Umbra, Role::Server) => {
            (place.to_owned(), format!("server -s 127.0.0.1:0 -m {} -k", method.name))
        }
        (Peer::ShadowsocksRust, Role::Client(server)) => {
            (place.join("sslocal"), format!("-s {server} -b 127.0.0.1:0 -m {} -k", method.name))
        }
        (Peer::ShadowsocksRust, Role::Server) => {
            (place.join("ssserver"), format!("-s 127.0.0.1:{} -m {} -k", free_port()?, method.name))
        }
        (Peer::ShadowsocksLibev, Role::Client(server)) => {
            let (ip, port) = (server.ip(), server.port());
            (place.join("ss-local"), format!("-s {ip} -p {port} -b 127.0.0.1 -l 0 -m {} -k", method.name))
        }
        (Peer::ShadowsocksLibev, Role::Server) => {
            (place.join("ss-server"), format!("-s 127.0.0.1 -p 0 -m {} -k", method.name))
        }
    };
    let mut args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    args.push(password.to_owned());
    let side = match role {
        Role::Client(_) => "client",
        Role::Server => "server",
    };
    Ok(Program { name: format!("{peer} {side}"), path, args })
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).context("look for a free port")?;
    Ok(listener.local_addr()?.port())
}

const KEY_16: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const KEY_16_WRONG: &str = "ZmVkY2JhOTg3NjU0MzIxMA==";
const KEY_32: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const KEY_32_WRONG: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

const fn method(name: &'static str, password: &'static str, wrong_password: &'static str) -> Method {
    Method { name, password, wrong_password }
}

/// SIP004 with a 16-byte key.
pub(crate) const AES_128_GCM: Method = method("aes-128-gcm", "a password", "another password");
/// SIP004 with a 32-byte key.
pub(crate) const AES_256_GCM: Method = method("aes-256-gcm", "a password", "another password");
/// SIP004 without AES.
pub(crate) const CHACHA20: Method = method("chacha20-ietf-poly1305", "a password", "another password");
/// SIP022 with a 16-byte key.
pub(crate) const AES_128_2022: Method = method("2022-blake3-aes-128-gcm", KEY_16, KEY_16_WRONG);
/// SIP022 with a 32-byte key.
pub(crate) const AES_256_2022: Method = method("2022-blake3-aes-256-gcm", KEY_32, KEY_32_WRONG);
/// SIP022 without AES.
pub(crate) const CHACHA20_2022: Method = method("2022-blake3-chacha20-poly1305", KEY_32, KEY_32_WRONG);

/// Every method that a peer speaks as well.
pub(crate) const METHODS: [Method; 6] =
    [AES_128_GCM, AES_256_GCM, CHACHA20, AES_128_2022, AES_256_2022, CHACHA20_2022];
