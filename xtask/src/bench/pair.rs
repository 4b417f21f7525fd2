//! A client and a server of one peer, or a proxy alone, and what the kernel says they have cost.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::child::{Guard, Program};
use crate::peers::{Method, Peer, Proxy, Role, Spec, Tools};
use crate::socks;

/// Both ends of one peer, running on the proxies' core; or a proxy, as a client without a server.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Where the client listens for SOCKS.
    pub(crate) proxy: SocketAddr,
    /// Where the server listens; where the client does, if there is none.
    pub(crate) server_address: SocketAddr,
    client: Guard,
    server: Option<Guard>,
    /// What a proxy alone leads to, which is not measured.
    _parent: Option<Guard>,
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

/// Where a proxy alone leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Onward {
    /// To targets.
    Direct,
    /// To a SOCKS5 parent, the same for all.
    Parent,
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
        Ok(Self { proxy, server_address: address, client, server: Some(server), _parent: None })
    }

    /// Starts `peer` as a proxy for SOCKS5.
    pub(crate) fn alone(tools: &Tools, peer: Peer, onward: Onward, cpu: usize) -> Result<Self> {
        let (parent, next) = match onward {
            // It cannot have a parent; what stands beside the others is what it costs without one.
            _ if peer == Peer::Microsocks => (None, None),
            Onward::Direct => (None, None),
            Onward::Parent => {
                let (parent, address) = tools.start_proxy(Proxy::of(Peer::Microsocks), Some(cpu))?;
                (Some(parent), Some(address))
            }
        };
        let (client, proxy) = if peer.is_ours() {
            let mut args = ["local", "-b", "127.0.0.1:0"].map(str::to_owned).to_vec();
            match next {
                Some(next) => args.extend(["--outbound-proxy".to_owned(), format!("socks5://{next}")]),
                None => args.push("--direct".to_owned()),
            }
            let umbra = tools.path(peer)?.to_owned();
            let mut guard = Guard::start(Program::new("umbra alone".to_owned(), umbra, args), Some(cpu))?;
            let address = guard.listening()?;
            (guard, address)
        } else {
            tools.start_proxy(Proxy { next, ..Proxy::of(peer) }, Some(cpu))?
        };
        Ok(Self { proxy, server_address: proxy, client, server: None, _parent: parent })
    }

    /// CPU seconds each process has used, to the nanosecond.
    pub(crate) fn cpu_secs(&self) -> Result<Each> {
        self.each(cpu_secs)
    }

    /// Resident KiB of each process.
    pub(crate) fn resident_kib(&self) -> Result<Each> {
        self.each(resident_kib)
    }

    fn each(&self, of: impl Fn(&Guard) -> Result<f64>) -> Result<Each> {
        Ok(Each { client: of(&self.client)?, server: self.server.as_ref().map_or(Ok(0.0), of)? })
    }

    /// Descriptors that the server holds.
    pub(crate) fn server_descriptors(&self) -> Result<usize> {
        let server = self.server.as_ref().context("there is no server")?;
        Ok(fs::read_dir(format!("/proc/{}/fd", server.pid()))?.count())
    }

    /// The process ids, client first; none where there is no server.
    pub(crate) fn pids(&self) -> Option<[u32; 2]> {
        Some([self.client.pid(), self.server.as_ref()?.pid()])
    }

    /// What all have logged last.
    pub(crate) fn logs(&self) -> String {
        let server = self.server.as_ref().map_or_else(String::new, |server| server.log_tail(8));
        self.client.log_tail(8) + &server
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

/// What a process and those that it has started have used. Who has ended is counted with its parent, in ticks.
fn cpu_secs(process: &Guard) -> Result<f64> {
    let own = clock_secs(process.pid()).context("the clock of a proxy that has ended")?;
    let family = process.family();
    let [_, others @ ..] = family.as_slice() else { return Ok(own) };
    let others: f64 = others.iter().filter_map(|pid| clock_secs(*pid).ok()).sum();
    Ok(own + others + ended_secs(process.pid())?)
}

fn clock_secs(pid: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?;
    Ok(Duration::from(clock_gettime(clock)?).as_secs_f64())
}

/// The fields `cutime` and `cstime` of `/proc/PID/stat`, the fourteenth and the fifteenth behind the name.
fn ended_secs(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("a process without a name")?;
    let ticks = after_name.split_whitespace().skip(13).take(2).map(str::parse::<f64>);
    let per_sec = sysconf(SysconfVar::CLK_TCK)?.context("ticks in a second")?;
    Ok(ticks.sum::<Result<f64, _>>()? / per_sec as f64)
}

/// From the pages themselves: the counter in `status` lags behind by some hundred KiB per core.
fn resident_kib(process: &Guard) -> Result<f64> {
    let pages = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid()))?;
    let line = pages.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss in smaps_rollup")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
