//! Our pair and each peer's pair in one run, turn by turn, on the same pinned cores.

mod bulk;
mod datagrams;
mod hold;
mod pair;
mod report;
mod rows;
mod sessions;
mod trip;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::child::pin;
use crate::peers::{Peer, Tools};
use crate::workspace;
use pair::{Door, Pair};
use report::Results;
use rows::{Cast, Figure, Plan, Row, Work};

/// `cargo xtask bench`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One round of little of everything, under two minutes (the default)
    #[arg(long, conflicts_with = "full")]
    short: bool,
    /// Three rounds at full size
    #[arg(long)]
    full: bool,
    /// Whom to run beside umbra: pairs, and in the rows `plain-` and `parent-` proxies by themselves
    #[arg(long, value_delimiter = ',', default_values = ["shadowsocks-rust", "shadowsocks-libev", "microsocks", "danted"])]
    peers: Vec<Peer>,
    /// How many times everything is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// Only rows whose name contains one of these; those of every method begin with `method-` and run only when named with that
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    row: Vec<String>,
    /// How long one measurement takes
    #[arg(long)]
    secs: Option<f64>,
    /// An umbra to measure, built already
    #[arg(long, value_name = "PATH")]
    umbra: Option<PathBuf>,
    /// One from before, measured beside it
    #[arg(long, value_name = "PATH", conflicts_with = "write")]
    before: Option<PathBuf>,
    /// Measure the peers alone
    #[arg(long, conflicts_with = "umbra")]
    without_umbra: bool,
    /// A `limits` binary: bulk rows then also say how far each pair is from an ideal one
    #[arg(long, value_name = "PATH")]
    limits: Option<PathBuf>,
    /// Also write every measurement here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Refresh docs/benchmarks.md
    #[arg(long)]
    write: bool,
    /// Only list the rows
    #[arg(long)]
    list: bool,
}

/// Load and targets run here.
const LOAD_CPU: usize = 0;
/// Proxies run here.
const PROXY_CPU: usize = 1;

/// What the largest row wants; whoever may raise the limit gets it.
const OPEN_FILES: u64 = 300_000;

/// Measures, and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let every = rows::all().into_iter().chain(rows::methods());
    let rows: Vec<Row> = every.filter(|row| args.wants(row)).collect();
    if args.list {
        rows.iter().for_each(|row| println!("{}", row.name));
        return Ok(());
    }
    if rows.is_empty() {
        bail!("no row is named like {}; see --list", args.row.join(", "));
    }
    let umbra = match &args.umbra {
        Some(path) => Some(path.clone()),
        None if args.without_umbra => None,
        None => Some(workspace::build_umbra()?),
    };
    let tools = Tools::find(umbra.as_deref()).with_earlier(args.before.as_deref());
    let peers = args.present(&tools);
    raise_open_files()?;
    pin(LOAD_CPU)?;
    let results = measure(args, &rows, &tools, &peers);
    println!("{}", results.tables(&peers));
    println!("machine: {}", report::machine());
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&results.json())?;
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    }
    if args.write {
        let command = std::env::args().skip(1).map(without_folder).collect::<Vec<_>>().join(" ");
        let command = format!("cargo xtask {command}");
        let (page, head) = if rows.iter().all(Row::is_method) {
            ("docs/benchmarks-methods.md", report::METHODS_HEAD)
        } else {
            ("docs/benchmarks.md", report::PAGE_HEAD)
        };
        results.write_page(&workspace::root().join(page), head, &command, &peers)?;
    }
    if results.failures().is_empty() {
        return Ok(());
    }
    bail!("not everything could be measured:\n{}", results.failures().join("\n"))
}

impl Args {
    fn wants(&self, row: &Row) -> bool {
        if self.row.is_empty() {
            return !row.is_method();
        }
        let names = |part: &String| row.name.contains(part.as_str());
        self.row.iter().filter(|part| !row.is_method() || part.starts_with("method-")).any(names)
    }

    fn present(&self, tools: &Tools) -> Vec<Peer> {
        let mut peers = vec![Peer::Umbra];
        peers.extend(&self.peers);
        peers.extend(self.before.as_ref().map(|_| Peer::Earlier));
        peers.sort_unstable();
        peers.dedup();
        let (present, missing): (Vec<_>, Vec<_>) = peers.into_iter().partition(|peer| tools.has(*peer));
        for peer in missing {
            eprintln!("left out: {}", tools.lack(peer).unwrap_or_default());
        }
        present
    }

    fn plan(&self) -> Plan {
        let time = self.secs.map(Duration::from_secs_f64);
        let secs = |full: u64, short_millis: u64| {
            if self.full { Duration::from_secs(full) } else { Duration::from_millis(short_millis) }
        };
        let count = |full, short| if self.full { full } else { short };
        Plan {
            time: time.unwrap_or(secs(2, 400)),
            churned: count(10_000, 2500),
            held: count(4000, 1000),
            blocked: count(4000, 200),
            watch: secs(5, 1000),
            associations: count(5000, 1000),
            crowd: count(50_000, 5000),
        }
    }
}

fn measure(args: &Args, rows: &[Row], tools: &Tools, peers: &[Peer]) -> Results {
    let rounds = args.rounds.unwrap_or(if args.full { 3 } else { 1 });
    let plan = args.plan();
    let mut results = Results::default();
    for round in 0..rounds {
        for row in rows {
            for peer in in_turn(peers, round).into_iter().filter(|peer| row.cast.has(*peer)) {
                eprintln!("round {} of {rounds}: {}, {peer}", round + 1, row.name);
                match measure_once(row, tools, peer, plan, args.limits.as_deref()) {
                    Ok(figures) => results.add(row, peer, &figures),
                    Err(why) => results.fail(&row.name, peer, &why),
                }
            }
        }
    }
    results
}

/// The order of a round. Each starts with another peer, and every other one goes backwards: whoever runs behind a certain other one finds
/// the machine as that has left it, which has made one binary a fifth dearer than itself.
fn in_turn(peers: &[Peer], round: usize) -> Vec<Peer> {
    let mut order: Vec<Peer> = peers.iter().copied().cycle().skip(round / 2).take(peers.len()).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

fn measure_once(
    row: &Row,
    tools: &Tools,
    peer: Peer,
    plan: Plan,
    limits: Option<&std::path::Path>,
) -> Result<Vec<Figure>> {
    let pair = match (row.cast, row.work) {
        (Cast::Pair(method), Work::Datagrams(load)) => {
            return datagrams::measure(load, tools, peer, method, plan, PROXY_CPU);
        }
        (Cast::Pair(method), _) => Pair::start(tools, peer, method, Door::Streams, PROXY_CPU)?,
        (Cast::Alone(onward), _) => Pair::alone(tools, peer, onward, PROXY_CPU)?,
    };
    row.measure(&pair, plan, limits).with_context(|| pair.logs())
}

/// An argument as it may be published: where things lie on this machine is nobody's concern.
fn without_folder(arg: String) -> String {
    let name = std::path::Path::new(&arg).file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or(arg)
}

/// Thousands of sessions are two sockets each here, and two in each proxy, which inherits the limit.
fn raise_open_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < OPEN_FILES && setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES).is_ok() {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_runs_first_and_behind_everybody_else_equally_often() {
        let peers = [Peer::Umbra, Peer::Microsocks, Peer::Danted];
        let rounds: Vec<_> = (0..6).map(|round| in_turn(&peers, round)).collect();
        for one in peers {
            assert_eq!(rounds.iter().filter(|order| order[0] == one).count(), 2);
            for other in peers.into_iter().filter(|other| *other != one) {
                let follows = |order: &&Vec<Peer>| order.windows(2).any(|pair| *pair == [other, one]);
                assert_eq!(rounds.iter().filter(follows).count(), 2);
            }
        }
    }
}
