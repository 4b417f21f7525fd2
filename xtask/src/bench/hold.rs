//! Sessions that are held: idle ones, and ones whose reader does not read.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::pair::{Each, Pair, Session, listen};

/// What idle sessions cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// Resident KiB of each process per session.
    pub(crate) resident_kib: Each,
    /// CPU seconds used while nothing happened.
    pub(crate) cpu_secs: Each,
    /// Resident KiB of each process above the start, a while after the sessions have gone.
    pub(crate) kept_kib: Each,
}

/// Who does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// The target: bytes pile up on their way there.
    Uplink,
    /// The client.
    Downlink,
}

/// How long the processes may take to give memory back.
const SETTLE: Duration = Duration::from_secs(4);

/// Bytes that go each way before a session falls idle: enough that every buffer on the way has been used.
const FIRST_BYTES: usize = 16 * 1024;

/// Opens `count` sessions, lets some bytes go both ways, watches them do nothing for `watch`, and ends them.
pub(crate) fn idle(pair: &Pair, count: usize, watch: Duration) -> Result<Idle> {
    let target = listen()?;
    // What the first session sets up stays and is not the price of the next.
    exchange(&pair.open(&target)?)?;
    let start = pair.resident_kib()?;
    let mut sessions = Vec::with_capacity(count);
    for at in 0..count {
        let session = pair.open(&target).with_context(|| format!("idle session {at}"))?;
        exchange(&session)?;
        sessions.push(session);
    }
    settle_cpu(pair)?;
    let held = pair.resident_kib()?.since(start);
    let before = pair.cpu_secs()?;
    thread::sleep(watch);
    let cpu_secs = pair.cpu_secs()?.since(before);
    drop(sessions);
    thread::sleep(SETTLE);
    let kept_kib = pair.resident_kib()?.since(start);
    let per_session = |kib: f64| kib / count as f64;
    let resident_kib = Each { client: per_session(held.client), server: per_session(held.server) };
    Ok(Idle { resident_kib, cpu_secs, kept_kib })
}

/// What blocked sessions cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slow {
    /// Resident KiB of each process per session.
    pub(crate) resident_kib: Each,
    /// What a writer got rid of, most of which waits in the kernel.
    pub(crate) written_kib: f64,
}

/// Opens `count` sessions whose writers write all they can while nobody reads.
pub(crate) fn slow(pair: &Pair, count: usize, blocked: Blocked) -> Result<Slow> {
    let target = listen()?;
    exchange(&pair.open(&target)?)?;
    let start = pair.resident_kib()?;
    let mut sessions: Vec<Session> = Vec::with_capacity(count);
    for at in 0..count {
        let session = pair.open(&target).with_context(|| format!("slow session {at}"))?;
        let (writer, reader) = ends(&session, blocked);
        // Small ends, so that the kernel's memory for this many sessions stays within its limits.
        setsockopt(writer, sockopt::SndBuf, &(64 * 1024))?;
        setsockopt(reader, sockopt::RcvBuf, &(16 * 1024))?;
        writer.set_nonblocking(true)?;
        sessions.push(session);
    }
    let written = fill(&sessions, blocked)?;
    let held = pair.resident_kib()?.since(start);
    let resident_kib = Each { client: held.client / count as f64, server: held.server / count as f64 };
    Ok(Slow { resident_kib, written_kib: written as f64 / 1024.0 / count as f64 })
}

/// Writes into every session until none has taken a byte for a second; how many bytes they took.
fn fill(sessions: &[Session], blocked: Blocked) -> Result<u64> {
    let chunk = vec![5; 256 * 1024];
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut last_write = Instant::now();
    let mut total = 0;
    while last_write.elapsed() < Duration::from_secs(1) {
        ensure!(Instant::now() < deadline, "the proxies took bytes for two minutes while nobody read");
        let mut written = 0;
        for session in sessions {
            written += write_some(ends(session, blocked).0, &chunk)?;
        }
        if written > 0 {
            last_write = Instant::now();
            total += written as u64;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(total)
}

fn ends(session: &Session, blocked: Blocked) -> (&TcpStream, &TcpStream) {
    match blocked {
        Blocked::Uplink => (&session.client, &session.target),
        Blocked::Downlink => (&session.target, &session.client),
    }
}

fn write_some(mut writer: &TcpStream, chunk: &[u8]) -> Result<usize> {
    match writer.write(chunk) {
        Ok(n) => Ok(n),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error).context("write to a session that nobody reads"),
    }
}

fn exchange(session: &Session) -> Result<()> {
    let mut chunk = vec![3; FIRST_BYTES];
    (&session.client).write_all(&chunk)?;
    (&session.target).read_exact(&mut chunk).context("first bytes up")?;
    (&session.target).write_all(&chunk)?;
    (&session.client).read_exact(&mut chunk).context("first bytes down")
}

/// Waits until the last session's work is done: a tenth of a second in which the proxies did nothing, or two seconds.
fn settle_cpu(pair: &Pair) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let before = pair.cpu_secs()?;
        thread::sleep(Duration::from_millis(100));
        let used = pair.cpu_secs()?.since(before).sum();
        if used < 1e-4 || Instant::now() > deadline {
            return Ok(());
        }
    }
}
