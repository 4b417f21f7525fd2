//! A client and a server of one peer, and what the kernel says they have cost.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};

use crate::child::Guard;
use crate::peers::{Method, Peer, Role, Spec, Tools};
use crate::socks;

/// Both ends of one peer, running on the proxies' core.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Where the client listens for SOCKS.
    pub(crate) proxy: SocketAddr,
    /// Where the server listens.
    pub(crate) server_address: SocketAddr,
    client: Guard,
    server: Guard,
}

/// A session through the pair: the ends that the proxies lie between.
#[derive(Debug)]
pub(crate) struct Session {
    /// The program behind the client.
    pub(crate) client: TcpStream,
    /// The service that the server dialled.
    pub(crate) target: TcpStream,
}

/// One figure of each process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Each {
    /// The client's.
    pub(crate) client: f64,
    /// The server's.
    pub(crate) server: f64,
}

/// What the client of a pair is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Door {
    /// A proxy for streams.
    Streams,
    /// A proxy that relays datagrams as well.
    Datagrams,
    /// A tunnel to this target, for both.
    Tunnel(SocketAddr),
}

impl Each {
    /// Both together.
    pub(crate) fn sum(self) -> f64 {
        self.client + self.server
    }

    /// What was added since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { client: self.client - earlier.client, server: self.server - earlier.server }
    }
}

impl Pair {
    /// Starts both ends of `peer`.
    pub(crate) fn start(tools: &Tools, peer: Peer, method: Method, door: Door, cpu: usize) -> Result<Self> {
        let (datagrams, target) = match door {
            Door::Streams => (false, None),
            Door::Datagrams => (true, None),
            Door::Tunnel(target) => (true, Some(target)),
        };
        let spec = Spec { datagrams, ..Spec::of(method) };
        let (server, address) = tools.start(peer, Role::Server, spec, Some(cpu))?;
        let role = target.map_or(Role::Client(address), |target| Role::Tunnel { server: address, target });
        let (client, proxy) = tools.start(peer, role, spec, Some(cpu))?;
        Ok(Self { proxy, server_address: address, client, server })
    }

    /// CPU seconds each process has used, to the nanosecond.
    pub(crate) fn cpu_secs(&self) -> Result<Each> {
        Ok(Each { client: cpu_secs(&self.client)?, server: cpu_secs(&self.server)? })
    }

    /// Resident KiB of each process.
    pub(crate) fn resident_kib(&self) -> Result<Each> {
        Ok(Each { client: resident_kib(&self.client)?, server: resident_kib(&self.server)? })
    }

    /// Descriptors that the server holds.
    pub(crate) fn server_descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.server.pid()))?.count())
    }

    /// The process ids, client first.
    pub(crate) fn pids(&self) -> [u32; 2] {
        [self.client.pid(), self.server.pid()]
    }

    /// What both have logged last.
    pub(crate) fn logs(&self) -> String {
        format!("{}{}", self.client.log_tail(8), self.server.log_tail(8))
    }

    /// Opens one session to `target`; a first byte has gone up, because some clients dial only then.
    pub(crate) fn open(&self, target: &TcpListener) -> Result<Session> {
        let mut client = socks::connect(self.proxy, target.local_addr()?)?;
        client.write_all(&[1])?;
        let mut target = socks::accept(target, socks::PATIENCE)?;
        target.read_exact(&mut [0]).context("the first byte at the target")?;
        Ok(Session { client, target })
    }
}

/// A target on loopback.
pub(crate) fn listen() -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen as a target")
}

fn cpu_secs(process: &Guard) -> Result<f64> {
    let clock = clock_getcpuclockid(process.kernel_pid()?).context("the clock of a proxy that has ended")?;
    let used = std::time::Duration::from(clock_gettime(clock)?);
    Ok(used.as_secs_f64())
}

/// From the pages themselves: the counter in `status` lags behind by some hundred KiB per core.
fn resident_kib(process: &Guard) -> Result<f64> {
    let pages = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid()))?;
    let line = pages.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss in smaps_rollup")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
