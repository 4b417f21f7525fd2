//! Getting what is missing: tools and peers, once, into a folder outside the tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::peers::{
    Peer, SHADOWSOCKS_RUST_FEATURES, SHADOWSOCKS_RUST_VERSION, Tools, cache, in_owners_path, in_path, python,
    shadowsocks_rust_root,
};
use crate::workspace;

const CARGO_DENY_VERSION: &str = "0.20.2";

/// Whether this is a run that must not leave anything out.
pub(crate) fn must_be_complete() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Programs that are not peers, and the packages that have them.
const CLIENTS: [(&str, &str); 9] = [
    ("curl", "curl"),
    ("python3", "python3-pip"),
    ("ncat", "ncat"),
    ("dig", "bind9-dnsutils"),
    ("proxychains4", "proxychains4"),
    ("chromium", "chromium"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("obfs-local", "simple-obfs"),
];

/// Installs every missing peer and client when nothing may be left out.
pub(crate) fn missing_peers(tools: &Tools) -> Result<()> {
    if !must_be_complete() {
        return Ok(());
    }
    let mut packages = Vec::new();
    let peers = Peer::OTHERS.into_iter().chain(Peer::PROXIES).filter(|peer| !tools.has(*peer));
    packages.extend(peers.filter_map(Peer::package));
    let is_missing = |name| in_owners_path(name).is_none();
    packages.extend(CLIENTS.into_iter().filter(|(name, _)| is_missing(name)).map(|(_, package)| package));
    if !packages.is_empty() {
        system_packages(&packages)?;
    }
    if !tools.has(Peer::ShadowsocksRust) {
        let root = shadowsocks_rust_root();
        let args = [
            "install",
            "shadowsocks-rust",
            "--version",
            SHADOWSOCKS_RUST_VERSION,
            "--locked",
            "--features",
            SHADOWSOCKS_RUST_FEATURES,
        ];
        cargo_install(&args, root)?;
    }
    if !tools.has(Peer::Python) {
        // It is run where it runs: what stands in its way is told with the legs that are skipped for it.
        python::install().unwrap_or_else(|why| eprintln!("python cannot be installed: {why:#}"));
    }
    Ok(())
}

/// Where cargo's own tools are kept.
pub(crate) fn tools() -> PathBuf {
    cache().join("tools")
}

/// Where cargo-deny is, after installing it if need be.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let root = tools();
    let installed = root.join("bin").join("cargo-deny");
    if installed.is_file() {
        return Ok(installed);
    }
    if let Some(present) = in_path("cargo-deny") {
        return Ok(present);
    }
    // Unoptimised: it runs for a second, and is built in half the time.
    cargo_install(&["install", "cargo-deny", "--version", CARGO_DENY_VERSION, "--locked", "--debug"], root)?;
    Ok(installed)
}

fn cargo_install(args: &[&str], root: PathBuf) -> Result<()> {
    let mut command = workspace::cargo(args);
    // Away from the workspace, whose settings are not meant for other people's crates.
    command.arg("--root").arg(root).current_dir(std::env::temp_dir());
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("CARGO_TARGET_DIR");
    eprintln!("installing once: {}", workspace::shown(&command));
    workspace::run(&mut command)
}

/// Installs packages of the system, whose services stay as they are: what runs here is started by us, and ended.
fn system_packages(packages: &[&str]) -> Result<()> {
    let Some(apt) = in_path("apt-get") else {
        bail!("{} must be installed by hand: there is no apt-get here", packages.join(" and "));
    };
    let root = nix::unistd::Uid::effective().is_root();
    let owner = |program: &Path| {
        let mut command = if root { Command::new(program) } else { Command::new("sudo") };
        if !root {
            command.arg(program);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    // Lists that cannot be refreshed may still be good enough.
    workspace::run(owner(&apt).arg("update")).ok();
    let shell = Path::new("/bin/sh");
    workspace::run(owner(shell).args(["-c", WITHOUT_SERVICES, "install"]).arg(&apt).args(packages))
        .context("install the missing peers")
}

/// A policy that is asked before a service is started says no to all (Debian's `invoke-rc.d`, with systemd and without), unless
/// there is one already; it goes with the installation.
const WITHOUT_SERVICES: &str = "
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
fi
apt=$1
shift
$apt install --yes --no-install-recommends \"$@\"";
