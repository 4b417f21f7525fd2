//! TCP Fast Open between the two ends, in a network of its own: whether data goes in a SYN is the kernel's to allow, for a whole network.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::Outcome;
use super::report::Report;
use crate::child::{Guard, Program};
use crate::peers::{AES_256_GCM, Peer, Tools};
use crate::socks;
use crate::workspace;

/// The hidden `cargo xtask fast-open`, which is to run in a network that may be changed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The program for both ends
    umbra: PathBuf,
}

/// Sessions in a row: the first one fetches the cookie without which no data goes in a SYN.
const SESSIONS: u64 = 3;

/// Tries it in a network that is made for it and goes with it.
pub(super) fn run(tools: &Tools, report: &mut Report) {
    report.begin("Fast open", &["client", "server", "what must come", "result"]);
    let outcome = match lack() {
        Some(why) => Outcome::Skipped(why),
        None => in_a_network_of_its_own(tools).into(),
    };
    if let Outcome::Failed(error) = &outcome {
        eprintln!("fast open: {error:#}");
    }
    report.add(&["umbra", "umbra", "data in the SYN where the kernel allows it"], &[outcome]);
}

/// Why no network can be made here, if none can.
fn lack() -> Option<String> {
    let made = Command::new("unshare").args(["-rn", "ip", "link", "show", "lo"]).output();
    match made {
        Ok(made) if made.status.success() => None,
        Ok(_) | Err(_) => Some("unshare and ip make no network here".to_owned()),
    }
}

fn in_a_network_of_its_own(tools: &Tools) -> Result<()> {
    let itself = std::env::current_exe().context("our own program")?;
    let mut command = Command::new("unshare");
    command.arg("-rn").arg(itself).arg("fast-open").arg(tools.path(Peer::Umbra)?);
    workspace::run(&mut command)
}

/// Runs sessions through a pair that is told to use fast open, first where the kernel refuses it and then where it does not.
pub(crate) fn try_here(args: &Args) -> Result<()> {
    workspace::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    for is_allowed in [false, true] {
        // The ends ask when they begin to listen, and for each connection.
        fs::write(ALLOWANCE, if is_allowed { BOTH_ENDS } else { NO_END }).context("allow fast open")?;
        let before = counted()?;
        data_goes_in_the_syn(&args.umbra)?;
        let counted = counted()?;
        let [active, passive] = [0, 1].map(|at| counted[at] - before[at]);
        let expected = if is_allowed { SESSIONS - 1 } else { 0 };
        ensure!(
            active == expected && passive == expected,
            "of {SESSIONS} sessions {active} sent data in a SYN and {passive} took it; {expected} should have"
        );
    }
    Ok(())
}

/// Sessions through the pair, one after the other; what is in their SYNs is counted by the kernel.
fn data_goes_in_the_syn(umbra: &Path) -> Result<()> {
    let (method, password) = (AES_256_GCM.name, AES_256_GCM.password);
    let server = json!({
        "server": "127.0.0.1", "server_port": 0, "method": method, "password": password, "fast_open": true,
        // The target is on loopback.
        "forbidden_ip": "",
    });
    let (_server, behind) = start(umbra, "server", &server)?;
    let client = json!({
        "server": behind.ip(), "server_port": behind.port(), "method": method, "password": password,
        "local_address": "127.0.0.1", "local_port": 0, "fast_open": true,
    });
    let (_client, proxy) = start(umbra, "local", &client)?;
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let at = target.local_addr()?;
    for _ in 0..SESSIONS {
        thread::scope(|scope| -> Result<()> {
            let echoing = scope.spawn(|| -> Result<()> {
                let mut stream = socks::accept(&target, socks::PATIENCE)?;
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard)?;
                Ok(stream.write_all(&heard)?)
            });
            let mut stream = socks::connect(proxy, at)?;
            stream.write_all(b"there and back")?;
            stream.shutdown(Shutdown::Write)?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard)?;
            ensure!(heard == b"there and back", "{} bytes came back", heard.len());
            echoing.join().unwrap_or_else(|_| bail!("the target panicked"))
        })?;
    }
    Ok(())
}

fn start(umbra: &Path, role: &str, config: &serde_json::Value) -> Result<(Guard, SocketAddr)> {
    let args = vec![role.to_owned(), "-c".to_owned()];
    let program = Program::new(format!("umbra {role}"), umbra.to_owned(), args).with_config(config)?;
    let mut guard = Guard::start(program, None)?;
    let address = guard.listening()?;
    Ok((guard, address))
}

/// How many connections of this network have sent, and taken, data in a SYN.
fn counted() -> Result<[u64; 2]> {
    let page = fs::read_to_string("/proc/net/netstat").context("what the kernel counts")?;
    let mut lines = page.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let number = |wanted: &str| {
        let mut counts = names.split(' ').zip(numbers.split(' '));
        let (_, number) = counts.find(|(name, _)| *name == wanted).with_context(|| format!("no {wanted}"))?;
        number.parse().with_context(|| format!("{wanted} is {number}"))
    };
    Ok([number("TCPFastOpenActive")?, number("TCPFastOpenPassive")?])
}

const ALLOWANCE: &str = "/proc/sys/net/ipv4/tcp_fastopen";
const NO_END: &str = "0";
/// Clients (1) and servers (2).
const BOTH_ENDS: &str = "3";
