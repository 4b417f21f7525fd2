//! What is measured, and what each figure must reach.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::bulk::{Flow, carry};
use super::datagrams::Load;
use super::hold::{Blocked, idle, slow};
use super::pair::{Each, Onward, Pair, listen};
use super::sessions::{Close, churn};
use super::trip::{self, TRIP_BYTES};
use crate::peers::{self, AES_128_GCM, AES_256_2022, AES_256_GCM, CHACHA20, MODERN, Method, Peer};

/// One line of the bench: a workload with a name to ask for it by.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What `--row` matches.
    pub(crate) name: String,
    /// Who does it.
    pub(crate) cast: Cast,
    /// What is done.
    pub(crate) work: Work,
}

/// Whom a row measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cast {
    /// A client and a server of one peer, with this method between them.
    Pair(Method),
    /// A proxy by itself, with nothing sealed on either side.
    Alone(Onward),
}

/// A workload.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// Bytes one way.
    Bulk { flows: usize, way: Way, write_bytes: usize },
    /// 64 bytes there and back.
    Trips { sessions: usize },
    /// Connect, 64 bytes there and back, close.
    Sessions { close: Close },
    /// Sessions that do nothing.
    Idle,
    /// Sessions whose reader does not read.
    Slow { blocked: Blocked },
    /// Something with datagrams, which wants a pair of its own kind.
    Datagrams(Load),
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Client to target.
    Up,
    /// Target to client.
    Down,
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// How long each measurement with a clock takes.
    pub(crate) time: Duration,
    /// How many short sessions.
    pub(crate) churned: usize,
    /// How many sessions are held.
    pub(crate) held: usize,
    /// How many sessions are blocked: their kernel memory meets a limit of the machine at about a thousand.
    pub(crate) blocked: usize,
    /// How long idle sessions are watched.
    pub(crate) watch: Duration,
    /// How many associations are held.
    pub(crate) associations: usize,
    /// How many stand around while a few are at work.
    pub(crate) crowd: usize,
}

/// One number of a row.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// What it is, with its unit.
    pub(crate) label: &'static str,
    /// The number.
    pub(crate) value: f64,
    /// What ours must reach.
    pub(crate) goal: Goal,
}

/// What a figure must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// None is set.
    Open,
    /// At most this share of what shadowsocks-rust measures in the same run.
    Share(f64),
    /// At most this share of what the best other measures in the same run.
    Best(f64),
    /// At most this.
    Most(f64),
    /// At least so many times what shadowsocks-rust measures in the same run.
    Times(f64),
}

const GIB: f64 = (1u64 << 30) as f64;
const KIB_PER_MIB: f64 = 1024.0;

/// Every row, in the order of the table.
pub(crate) fn all() -> Vec<Row> {
    let row = |name: String, method, work| Row { name, cast: Cast::Pair(method), work };
    let bulk = |flows, way, write_bytes| Work::Bulk { flows, way, write_bytes };
    let ways = [(Way::Up, "up"), (Way::Down, "down")];
    let mut rows = Vec::new();
    for method in [AES_256_GCM, AES_256_2022, CHACHA20, AES_128_GCM] {
        for (way, text) in ways {
            rows.push(row(format!("bulk-{text}-{}", method.name), method, bulk(1, way, 256 * 1024)));
        }
    }
    for flows in [16, 64] {
        for (way, text) in ways {
            rows.push(row(format!("flows-{flows}-{text}"), AES_256_GCM, bulk(flows, way, 256 * 1024)));
        }
    }
    rows.push(row("small-writes".to_owned(), AES_256_GCM, bulk(4, Way::Up, 512)));
    for sessions in [1, 64] {
        rows.push(row(format!("trips-{sessions}"), AES_256_GCM, Work::Trips { sessions }));
    }
    for (close, text) in [(Close::Fin, "fin"), (Close::Rst, "rst")] {
        rows.push(row(format!("sessions-{text}"), AES_256_GCM, Work::Sessions { close }));
    }
    rows.push(row("idle".to_owned(), AES_256_GCM, Work::Idle));
    for (blocked, text) in [(Blocked::Downlink, "down"), (Blocked::Uplink, "up")] {
        rows.push(row(format!("slow-{text}"), AES_256_GCM, Work::Slow { blocked }));
    }
    rows.extend(datagrams());
    rows.extend(alone());
    rows
}

/// Proxies by themselves.
fn alone() -> impl Iterator<Item = Row> {
    let bulk = |flows, way| Work::Bulk { flows, way, write_bytes: 256 * 1024 };
    let rows = [
        ("plain-up", Onward::Direct, bulk(1, Way::Up)),
        ("plain-down", Onward::Direct, bulk(1, Way::Down)),
        ("plain-flows-16", Onward::Direct, bulk(16, Way::Up)),
        ("plain-trips-1", Onward::Direct, Work::Trips { sessions: 1 }),
        ("plain-sessions-fin", Onward::Direct, Work::Sessions { close: Close::Fin }),
        ("parent-up", Onward::Parent, bulk(1, Way::Up)),
        ("parent-down", Onward::Parent, bulk(1, Way::Down)),
        ("parent-sessions-fin", Onward::Parent, Work::Sessions { close: Close::Fin }),
    ];
    rows.into_iter().map(|(name, onward, work)| Row {
        name: name.to_owned(),
        cast: Cast::Alone(onward),
        work,
    })
}

fn datagrams() -> impl Iterator<Item = Row> {
    let flat = |flows, window, payload_bytes| Load::Flat { flows, window, payload_bytes };
    let loads = [
        ("udp-1200", AES_256_GCM, flat(4, 64, 1200)),
        ("udp-1200-2022-blake3-aes-256-gcm", AES_256_2022, flat(4, 64, 1200)),
        ("udp-64", AES_256_GCM, flat(4, 64, 64)),
        ("udp-64-2022-blake3-aes-256-gcm", AES_256_2022, flat(4, 64, 64)),
        ("udp-500", AES_256_GCM, flat(500, 2, 512)),
        ("udp-500-2022-blake3-aes-256-gcm", AES_256_2022, flat(500, 2, 512)),
        ("udp-gso", AES_256_GCM, Load::Runs),
        ("udp-gso-2022-blake3-aes-256-gcm", AES_256_2022, Load::Runs),
        ("udp-trip", AES_256_GCM, Load::Trips),
        ("udp-idle", AES_256_GCM, Load::Idle { by_socks: false }),
        ("udp-idle-socks", AES_256_GCM, Load::Idle { by_socks: true }),
        ("udp-many", AES_256_2022, Load::Many),
    ];
    loads.into_iter().map(|(name, method, load)| Row {
        name: name.to_owned(),
        cast: Cast::Pair(method),
        work: Work::Datagrams(load),
    })
}

/// A row for every method and way, all of them short; they are run when asked for.
pub(crate) fn methods() -> Vec<Row> {
    let methods = MODERN.into_iter().chain(peers::others()).filter(|method| Peer::Umbra.speaks(*method));
    let ways = [(Way::Up, "up"), (Way::Down, "down")];
    methods
        .flat_map(|method| {
            ways.map(|(way, text)| Row {
                name: format!("method-{}-{text}", method.name),
                cast: Cast::Pair(method),
                work: Work::Bulk { flows: 1, way, write_bytes: 256 * 1024 },
            })
        })
        .collect()
}

impl Cast {
    /// Whether `peer` can do it.
    pub(crate) fn has(self, peer: Peer) -> bool {
        match self {
            Self::Pair(method) => peer.speaks(method),
            Self::Alone(_) => peer.is_ours() || [Peer::Microsocks, Peer::Danted].contains(&peer),
        }
    }

    /// The goal of a figure that is to be this share of shadowsocks-rust's for pairs, and that has none for proxies alone.
    fn goal(self, share: f64) -> Goal {
        match self {
            Self::Pair(_) => Goal::Share(share),
            Self::Alone(_) => Goal::Open,
        }
    }
}

impl Row {
    /// Whether it is one of [`methods`].
    pub(crate) fn is_method(&self) -> bool {
        self.name.starts_with("method-")
    }

    /// Measures the row once on a fresh pair.
    pub(crate) fn measure(&self, pair: &Pair, plan: Plan, limits: Option<&Path>) -> Result<Vec<Figure>> {
        match self.work {
            Work::Bulk { flows, way, write_bytes } => {
                let mut figures = self.bulk(pair, flows, way, write_bytes, plan)?;
                if let (Some(limits), Cast::Pair(method)) = (limits.filter(|_| write_bytes > 512), self.cast)
                {
                    figures.push(against_ideal(pair, method, (flows, way), plan, limits)?);
                }
                Ok(figures)
            }
            Work::Trips { sessions } => self.trips(pair, sessions, plan),
            Work::Sessions { close } => self.sessions(pair, close, plan),
            Work::Idle => held(pair, plan),
            Work::Slow { blocked } => {
                let slow = slow(pair, plan.blocked, blocked)?;
                let labels = ["KiB per blocked way, client", "KiB per blocked way, server"];
                let mut figures = per_process(slow.resident_kib, labels, Goal::Most(64.0));
                figures.push(figure("KiB written per way", slow.written_kib, Goal::Open));
                Ok(figures)
            }
            Work::Datagrams(_) => bail!("a load of datagrams wants a pair of its own kind"),
        }
    }

    fn bulk(
        &self,
        pair: &Pair,
        flows: usize,
        way: Way,
        write_bytes: usize,
        plan: Plan,
    ) -> Result<Vec<Figure>> {
        let target = listen()?;
        let mut sides = Vec::with_capacity(flows);
        for _ in 0..flows {
            let session = pair.open(&target)?;
            sides.push(match way {
                Way::Up => Flow { source: session.client, sink: session.target },
                Way::Down => Flow { source: session.target, sink: session.client },
            });
        }
        let before = pair.cpu_secs()?;
        let carried = carry(&sides, write_bytes, plan.time)?;
        let cpu_secs = pair.cpu_secs()?.since(before).sum();
        let gib = carried.bytes as f64 / GIB;
        Ok(vec![
            figure("CPU s/GiB", cpu_secs / gib, self.bulk_goal(flows, write_bytes)),
            figure("GiB/s", gib / carried.wall.as_secs_f64(), Goal::Open),
        ])
    }

    fn bulk_goal(&self, flows: usize, write_bytes: usize) -> Goal {
        if self.is_method() {
            return Goal::Best(1.0);
        }
        let method = match self.cast {
            Cast::Pair(method) => method,
            Cast::Alone(_) => return Goal::Best(0.70),
        };
        match (flows, method.name) {
            _ if write_bytes <= 512 => Goal::Share(0.75),
            (1, "aes-256-gcm") => Goal::Share(0.80),
            (1, "2022-blake3-aes-256-gcm") => Goal::Share(0.90),
            (1, "chacha20-ietf-poly1305") => Goal::Share(0.92),
            (16.., _) => Goal::Share(0.72),
            _ => Goal::Open,
        }
    }

    fn trips(&self, pair: &Pair, sessions: usize, plan: Plan) -> Result<Vec<Figure>> {
        let target = listen()?;
        let sessions = (0..sessions).map(|_| pair.open(&target)).collect::<Result<Vec<_>>>()?;
        let trips = trip::make(pair, &sessions, plan.time)?;
        let micros = |share| trips.quantile(share).as_secs_f64() * 1e6;
        const { assert!(TRIP_BYTES == 64) };
        Ok(vec![
            figure(
                "CPU us per trip",
                trips.cpu_secs.sum() * 1e6 / trips.sorted.len() as f64,
                self.cast.goal(0.85),
            ),
            figure("p50 us", micros(0.50), self.cast.goal(1.0)),
            figure("p99 us", micros(0.99), self.cast.goal(1.0)),
        ])
    }

    fn sessions(&self, pair: &Pair, close: Close, plan: Plan) -> Result<Vec<Figure>> {
        let churned = churn(pair, plan.churned, close)?;
        let per_10_000 = churned.cpu_secs.sum() * 10_000.0 / plan.churned as f64;
        Ok(vec![
            figure("CPU s per 10 000", per_10_000, self.cast.goal(0.65)),
            figure("failed", churned.failed as f64, Goal::Most(0.0)),
            figure("targets left open", churned.left as f64, Goal::Most(0.0)),
        ])
    }
}

/// Lets the tool at `limits` run an ideal pair beside this one, just before and just after its own measurement.
fn against_ideal(
    pair: &Pair,
    method: Method,
    (flows, way): (usize, Way),
    plan: Plan,
    limits: &Path,
) -> Result<Figure> {
    let way = if way == Way::Up { "up" } else { "down" };
    let cipher = match method.name {
        name if name.contains("aes-128") => "aes128",
        name if name.contains("aes-256") => "aes256",
        _ => "chacha",
    };
    let [client, server] = pair.pids().context("a pair without a server")?;
    let output = Command::new(limits)
        .args(["drive", "ref=ss", "cpu=0", "refcpu=1,1"])
        .arg(format!("socks5={}", pair.proxy))
        .arg(format!("pids={client},{server}"))
        .arg(format!("secs={}", plan.time.as_secs_f64()))
        .args([format!("conns={flows}"), format!("dir={way}"), format!("alg={cipher}")])
        .output()
        .with_context(|| format!("run {}", limits.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{} failed: {}",
        limits.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let line: serde_json::Value = serde_json::from_str(said.trim()).context("the tool's line")?;
    let ratio = line["x_limit"].as_f64().context("the tool's line has no x_limit")?;
    let goal = if flows == 1 && method == AES_256_GCM { Goal::Most(1.12) } else { Goal::Open };
    Ok(figure("x ideal pair", ratio, goal))
}

fn held(pair: &Pair, plan: Plan) -> Result<Vec<Figure>> {
    let idle = idle(pair, plan.held, plan.watch)?;
    let kept =
        Each { client: idle.kept_kib.client / KIB_PER_MIB, server: idle.kept_kib.server / KIB_PER_MIB };
    let mut figures = per_process(
        idle.resident_kib,
        ["KiB per session, client", "KiB per session, server"],
        Goal::Most(4.0),
    );
    figures.push(figure("CPU ms while idle", idle.cpu_secs.sum() * 1e3, Goal::Most(1.0)));
    figures.extend(per_process(kept, ["MiB kept after, client", "MiB kept after, server"], Goal::Most(4.0)));
    Ok(figures)
}

pub(crate) fn per_process(each: Each, labels: [&'static str; 2], goal: Goal) -> Vec<Figure> {
    vec![figure(labels[0], each.client, goal), figure(labels[1], each.server, goal)]
}

pub(crate) fn figure(label: &'static str, value: f64, goal: Goal) -> Figure {
    Figure { label, value, goal }
}
