//! The figures of a run side by side: medians, ratios, goals; as a table, as JSON, and as a page.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::rows::{Cast, Figure, Goal, Row};
use crate::peers::Peer;

/// All that was measured: rows and figures in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Results {
    lines: Vec<Line>,
    failures: Vec<String>,
}

#[derive(Debug)]
struct Line {
    row: String,
    cast: Cast,
    label: &'static str,
    goal: Goal,
    values: BTreeMap<Peer, Vec<f64>>,
}

impl Results {
    /// Takes in one measurement.
    pub(crate) fn add(&mut self, row: &Row, peer: Peer, figures: &[Figure]) {
        for figure in figures {
            let known = self.lines.iter().position(|line| line.row == row.name && line.label == figure.label);
            let at = known.unwrap_or_else(|| {
                let (row, cast, values) = (row.name.clone(), row.cast, BTreeMap::new());
                self.lines.push(Line { row, cast, label: figure.label, goal: figure.goal, values });
                self.lines.len() - 1
            });
            self.lines[at].values.entry(peer).or_default().push(figure.value);
        }
    }

    /// Remembers that a measurement could not be made.
    pub(crate) fn fail(&mut self, row: &str, peer: Peer, why: &anyhow::Error) {
        self.failures.push(format!("{row}, {peer}: {why:#}"));
    }

    /// What could not be measured.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Markdown tables, aligned for a terminal as well: the pairs, and the proxies by themselves.
    pub(crate) fn tables(&self, peers: &[Peer]) -> String {
        let (pairs, alone): (Vec<_>, Vec<_>) =
            self.lines.iter().partition(|line| matches!(line.cast, Cast::Pair(_)));
        let tables = [pairs, alone].into_iter().filter(|lines| !lines.is_empty());
        tables.map(|lines| table(&lines, peers)).collect::<Vec<_>>().join("\n")
    }

    /// Every measurement, and the medians.
    pub(crate) fn json(&self) -> Value {
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                let by_peer = |of: &dyn Fn(Peer) -> Value| -> Value {
                    line.values.keys().map(|peer| (peer.to_string(), of(*peer))).collect()
                };
                json!({
                    "row": line.row,
                    "figure": line.label,
                    "median": by_peer(&|peer| json!(line.median(peer))),
                    "rounds": by_peer(&|peer| json!(line.values[&peer])),
                    "goal": line.verdict(),
                })
            })
            .collect();
        json!({ "lines": lines, "failures": self.failures })
    }

    /// Refreshes the page of the last full run.
    pub(crate) fn write_page(&self, file: &Path, head: &str, command: &str, peers: &[Peer]) -> Result<()> {
        let mut page = String::from(head);
        page.push_str(HOW);
        writeln!(page, "Command: `{command}`\n\nMachine: {}\n", machine())?;
        page.push_str(&self.tables(peers));
        for failure in &self.failures {
            writeln!(page, "\nNot measured: {failure}")?;
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, page).with_context(|| format!("write {}", file.display()))
    }
}

impl Line {
    fn median(&self, peer: Peer) -> Option<f64> {
        let mut values = self.values.get(&peer)?.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        Some(if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        })
    }

    fn ratio(&self, peer: Peer) -> Option<f64> {
        Some(self.median(Peer::Umbra)? / self.median(peer)?).filter(|ratio| ratio.is_finite())
    }

    fn verdict(&self) -> String {
        let (goal, reached) = match self.goal {
            Goal::Open => return String::new(),
            Goal::Share(share) => {
                let ratio = self.ratio(Peer::ShadowsocksRust);
                (format!("<= {share:.2} x"), ratio.map(|ratio| ratio <= share))
            }
            Goal::Best(share) => {
                let others = self.values.keys().filter(|peer| !peer.is_ours());
                let ratio = others.filter_map(|peer| self.ratio(*peer)).max_by(f64::total_cmp);
                (format!("<= {share:.2} x best"), ratio.map(|ratio| ratio <= share))
            }
            Goal::Times(times) => {
                let ratio = self.ratio(Peer::ShadowsocksRust);
                (format!(">= {times:.1} x"), ratio.map(|ratio| ratio >= times))
            }
            Goal::Most(most) => (format!("<= {most}"), self.median(Peer::Umbra).map(|value| value <= most)),
        };
        match reached {
            Some(true) => format!("{goal} ok"),
            Some(false) => format!("{goal} MISSED"),
            None => goal,
        }
    }
}

/// Lines of one cast side by side, with those of the peers that have a part in it.
fn table(lines: &[&Line], peers: &[Peer]) -> String {
    let takes_part = |peer: &Peer| lines.iter().any(|line| line.cast.has(*peer));
    let peers: Vec<Peer> = peers.iter().copied().filter(takes_part).collect();
    let others: Vec<Peer> = peers.iter().copied().filter(|peer| *peer != Peer::Umbra).collect();
    let mut head = vec!["row".to_owned(), "figure".to_owned()];
    head.extend(peers.iter().map(ToString::to_string));
    head.extend(others.iter().map(|peer| format!("umbra / {peer}")));
    head.push("goal".to_owned());
    let mut cells = vec![head];
    let mut last_row = "";
    for line in lines {
        let name = if line.row == last_row { "" } else { &line.row };
        last_row = &line.row;
        let mut row = vec![name.to_owned(), line.label.to_owned()];
        row.extend(peers.iter().map(|peer| line.median(*peer).map_or_else(dash, number)));
        row.extend(others.iter().map(|peer| line.ratio(*peer).map_or_else(dash, |r| format!("{r:.2}"))));
        row.push(line.verdict());
        cells.push(row);
    }
    align(&cells)
}

/// The processor, the kernel and the compiler, without a name or a date.
pub(crate) fn machine() -> String {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = file("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, m)| m.trim()));
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let rustc =
        Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    format!(
        "{}, {cores} cores; Linux {}; congestion control {}; {}",
        model.unwrap_or("unknown processor"),
        file("/proc/sys/kernel/osrelease").trim(),
        file("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
        String::from_utf8_lossy(&rustc).trim()
    )
}

fn align(cells: &[Vec<String>]) -> String {
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..columns).map(|at| cells.iter().map(|row| row[at].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (at, row) in cells.iter().enumerate() {
        let padded = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(&format!("| {} |\n", padded.collect::<Vec<_>>().join(" | ")));
        if at == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            text.push_str(&format!("| {} |\n", rules.join(" | ")));
        }
    }
    text
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 10.0 => format!("{value:.3}"),
        size if size < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// How the page of the main rows begins.
pub(crate) const PAGE_HEAD: &str = "# Benchmarks

The last full run; [every method](benchmarks-methods.md) has a page of its own. ";

/// How the page of the methods begins.
pub(crate) const METHODS_HEAD: &str = "# Benchmarks of every method

The last run of one flow for each method and way. ";

const HOW: &str = "Our pair and each peer's pair ran in the same run, turn by turn; proxies on one core, load and
targets on the other; every figure is the median of the rounds. CPU is that of both proxy processes together, from their own clocks.
Only the ratios carry over to another machine. Peers run with their default settings, and with datagrams where a row wants them.

A datagram counts once where it is delivered: one that goes there and back is two. Programs and targets take runs of them (`UDP_GRO`), and send each by itself but in `udp-gso`, where the
sender has the kernel cut them (`UDP_SEGMENT`). `udp-many` is the server alone, with 50 of all associations at work.

The rows `plain-` and `parent-` are of one proxy, SOCKS5 on the one side and nothing sealed on either: ours with `--direct`, or with microsocks as its parent, which is not counted. microsocks cannot have a
parent, and stands in those rows with what it costs without one. CPU is that of all processes of a proxy.

";

#[cfg(test)]
mod tests {
    use super::super::rows::{Way, Work};
    use super::*;
    use crate::peers::AES_256_GCM;

    fn row(name: &str) -> Row {
        let work = Work::Bulk { flows: 1, way: Way::Up, write_bytes: 1 };
        Row { name: name.to_owned(), cast: Cast::Pair(AES_256_GCM), work }
    }

    fn figure(value: f64, goal: Goal) -> Vec<Figure> {
        vec![Figure { label: "CPU", value, goal }]
    }

    #[test]
    fn a_goal_is_judged_by_medians() {
        let mut results = Results::default();
        for value in [9.0, 0.7, 0.6] {
            results.add(&row("bulk"), Peer::Umbra, &figure(value, Goal::Share(0.8)));
            results.add(&row("bulk"), Peer::ShadowsocksRust, &figure(1.0, Goal::Share(0.8)));
        }
        assert_eq!(results.lines[0].verdict(), "<= 0.80 x ok");
        results.add(&row("bulk"), Peer::Umbra, &figure(8.0, Goal::Share(0.8)));
        assert_eq!(results.lines[0].verdict(), "<= 0.80 x MISSED");
    }

    #[test]
    fn the_best_other_is_whom_to_beat() {
        let mut results = Results::default();
        let others = [(Peer::ShadowsocksRust, 2.0), (Peer::ShadowsocksLibev, 0.9)];
        for (peer, value) in [(Peer::Umbra, 1.0)].into_iter().chain(others) {
            results.add(&row("method"), peer, &figure(value, Goal::Best(1.0)));
        }
        assert_eq!(results.lines[0].verdict(), "<= 1.00 x best MISSED");
    }

    #[test]
    fn a_goal_without_the_peer_is_not_judged() {
        let mut results = Results::default();
        results.add(&row("bulk"), Peer::Umbra, &figure(1.0, Goal::Share(0.8)));
        assert_eq!(results.lines[0].verdict(), "<= 0.80 x");
    }
}
