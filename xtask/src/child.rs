//! Child processes that cannot be left behind, with their logs in hand and their listening port found.
//!
//! A child is started through `xtask launch`, which pins it to a core, asks the kernel to kill it when its parent dies,
//! and becomes the program: the process id stays the same, and nothing outlives a killed xtask.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// A program and what to give it.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    path: PathBuf,
    args: Vec<String>,
    folder: Option<TempDir>,
}

impl Program {
    /// `path` with `args`, called `name` in messages.
    pub(crate) fn new(name: String, path: PathBuf, args: Vec<String>) -> Self {
        Self { name, path, args, folder: None }
    }

    /// One more argument: the path of a file with this configuration, which is there while the program runs.
    pub(crate) fn with_config(self, config: &Value) -> Result<Self> {
        self.with_file("config.json", &config.to_string())
    }

    /// The same for a configuration that is not JSON.
    pub(crate) fn with_file(mut self, name: &str, text: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder for a configuration")?;
        let file = folder.path().join(name);
        fs::write(&file, text).context("write a configuration")?;
        self.args.push(file.to_string_lossy().into_owned());
        Ok(self.with_folder(folder))
    }

    /// A folder that is there while the program runs.
    pub(crate) fn with_folder(mut self, folder: TempDir) -> Self {
        self.folder = Some(folder);
        self
    }
}

/// A running child: killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    name: String,
    child: Child,
    log: File,
    /// Goes when the child has gone.
    _folder: Option<TempDir>,
}

impl Guard {
    /// Starts `program`, on core `cpu` when one is given.
    pub(crate) fn start(program: Program, cpu: Option<usize>) -> Result<Self> {
        let log = tempfile::tempfile().context("a file for the log")?;
        // The link names this very executable even when a build has replaced it on disk.
        let mut command = Command::new("/proc/self/exe");
        command.arg("launch");
        if let Some(cpu) = cpu {
            command.arg("--cpu").arg(cpu.to_string());
        }
        command.arg("--").arg(&program.path).args(&program.args);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        let child = command.spawn().with_context(|| format!("start {}", program.path.display()))?;
        Ok(Self { name: program.name, child, log, _folder: program.folder })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the child has said.
    pub(crate) fn log(&self) -> String {
        let mut text = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = self.log.read_at(&mut chunk, text.len() as u64) {
            text.extend_from_slice(&chunk[..n]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The last lines of the log under the child's name, for a report.
    pub(crate) fn log_tail(&self, lines_max: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(lines_max)..];
        format!("--- {} (pid {})\n{}\n", self.name, self.pid(), tail.join("\n"))
    }

    /// Whether the child still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the child listens on a TCP port, and says where.
    pub(crate) fn listening(&mut self) -> Result<SocketAddr> {
        let found = wait_until(Duration::from_secs(10), || {
            if !self.is_alive() {
                return Some(None);
            }
            self.listening_addresses().first().copied().map(Some)
        });
        match found.flatten() {
            Some(address) => Ok(address),
            None => bail!("{} does not listen\n{}", self.name, self.log_tail(20)),
        }
    }

    /// Waits until the child listens on TCP port `port`, which it was told of; it may listen on others before.
    pub(crate) fn listening_on(&mut self, port: u16) -> Result<()> {
        let found = wait_until(Duration::from_secs(20), || {
            if !self.is_alive() {
                return Some(false);
            }
            self.listening_addresses().iter().any(|address| address.port() == port).then_some(true)
        });
        if found != Some(true) {
            bail!("{} does not listen on port {port}\n{}", self.name, self.log_tail(20));
        }
        Ok(())
    }

    fn listening_addresses(&self) -> Vec<SocketAddr> {
        listening_addresses(self.pid(), std::process::id())
    }

    /// The child, its children, and theirs.
    pub(crate) fn family(&self) -> Vec<u32> {
        let mut family = vec![self.pid()];
        let mut at = 0;
        while let Some(member) = family.get(at) {
            let more = children(*member);
            family.extend(more);
            at += 1;
        }
        family
    }

    /// Waits until a child of the child listens on a TCP port, and says where.
    pub(crate) fn child_listening(&mut self) -> Result<SocketAddr> {
        let pid = self.pid();
        let found = wait_until(Duration::from_secs(10), || {
            children(pid).into_iter().find_map(|child| listening_addresses(child, pid).first().copied())
        });
        found.with_context(|| format!("no plugin of {} listens\n{}", self.name, self.log_tail(20)))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Not everybody ends its plugin when it is killed.
        for child in children(self.pid()).into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            kill(Pid::from_raw(child), Signal::SIGKILL).ok();
        }
        // Both fail only when the child is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Asks `condition` until it answers or `bound` has passed.
pub(crate) fn wait_until<T>(bound: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(answer) = condition() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The child's half of [`Guard::start`]: becomes the program.
pub(crate) fn launch(cpu: Option<usize>, command: &[OsString]) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("a death signal")?;
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    let (program, args) = command.split_first().context("nothing to launch")?;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("run {}", program.display()))
}

/// Keeps the calling thread, and what it starts, on one core.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).context("a core's number")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("pin to core {cpu}"))
}

/// The processes that `parent` has started.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before the parent's number stands in parentheses and may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, after)| after);
        after_name.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()) == Some(parent)
    };
    pids.filter(is_child).collect()
}

/// The TCP addresses that `pid` listens on, as the kernel tells them: no log format to know.
///
/// What its `parent` holds is not counted. The kernel lets a parent go on before it closes what a child is not to
/// inherit, so for a moment a new child seems to listen on all the sockets of its parent.
fn listening_addresses(pid: u32, parent: u32) -> Vec<SocketAddr> {
    let (mut sockets, inherited) = (sockets(pid), sockets(parent));
    sockets.retain(|socket| !inherited.contains(socket));
    let listens = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_one = fields.get(3) == Some(&"0A") && sockets.contains(*fields.get(9)?);
        if is_one { decode_address(fields.get(1)?) } else { None }
    };
    let table = |name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let tables = ["tcp", "tcp6"].map(table);
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(listens).collect()
}

/// The numbers of the sockets that `pid` has open.
fn sockets(pid: u32) -> BTreeSet<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

/// An address as `/proc/net/tcp` writes it: 32-bit words in the machine's byte order, in hex.
fn decode_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = (0..ip.len() / 8)
        .map(|i| u32::from_str_radix(&ip[8 * i..8 * i + 8], 16).map(u32::to_ne_bytes))
        .collect::<Result<_, _>>()
        .ok()?;
    let ip = match words.as_slice() {
        [word] => IpAddr::V4(Ipv4Addr::from(*word)),
        words => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?)),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_parent_listens_on_is_not_its_childs() -> Result<()> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let this = std::process::id();
        assert!(listening_addresses(this, 0).contains(&address), "nobody's child");
        assert!(!listening_addresses(this, this).contains(&address), "held by both");
        Ok(())
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_addresses_are_read() {
        assert_eq!(decode_address("0100007F:B205"), "127.0.0.1:45573".parse().ok());
        assert_eq!(decode_address("00000000000000000000000001000000:0050"), "[::1]:80".parse().ok());
        assert_eq!(decode_address("nonsense"), None);
    }
}
