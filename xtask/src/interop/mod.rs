//! Real programs both ways: our client with their server, their client with our server, and ours with ours.

mod checks;
mod http;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::child::Guard;
use crate::peers::{self, AES_256_2022, AES_256_GCM, MODERN, Method, Peer, Role, Tools};
use crate::tally::Tally;
use crate::workspace;
use checks::{Check, Outcome};
use http::Web;

/// `cargo xtask interop`
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Two methods, fewer bytes and fewer sessions
    #[arg(long)]
    pub(crate) light: bool,
    /// Refresh docs/interop.md
    #[arg(long)]
    pub(crate) write: bool,
    /// An umbra to run, built already
    #[arg(long, value_name = "PATH")]
    pub(crate) umbra: Option<PathBuf>,
    /// Run each peer with itself, to tell what a peer cannot do
    #[arg(long)]
    pub(crate) peers_alone: bool,
    /// Only methods whose name contains this
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,
}

/// Who talks to whom, and how it is sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leg {
    client: Peer,
    server: Peer,
    method: Method,
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    bytes: usize,
    sessions: usize,
}

/// A leg whose ends are running.
pub(crate) struct Ends<'a> {
    leg: Leg,
    proxy: SocketAddr,
    server_address: SocketAddr,
    client: Guard,
    server: Guard,
    tools: &'a Tools,
    web: &'a Web,
    size: Size,
}

/// Runs everything and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let tally = tally(args)?;
    println!("{tally}");
    tally.verdict()
}

/// Runs everything, prints the table, and counts.
pub(crate) fn tally(args: &Args) -> Result<Tally> {
    let umbra = match &args.umbra {
        Some(path) => Some(path.clone()),
        None if args.peers_alone => None,
        None => Some(workspace::build_umbra_for_tests()?),
    };
    let tools = Tools::provide(umbra.as_deref())?;
    let web = Web::start()?;
    let mut tally = Tally::default();
    let mut table = Table::default();
    for leg in legs(args) {
        let outcomes = match leg.missing(&tools) {
            Some(why) => Check::ALL.map(|_| Outcome::Skipped(why.clone())),
            None => leg.run(&tools, &web, Size::of(leg.method, args.light)),
        };
        for outcome in &outcomes {
            match outcome {
                Outcome::Passed => tally.passed += 1,
                Outcome::Failed(_) => tally.failed += 1,
                Outcome::Skipped(_) => tally.skipped += 1,
            }
        }
        table.add(leg, &outcomes);
    }
    println!("{}", table.text());
    if args.write {
        let file = workspace::root().join("docs/interop.md");
        fs::write(&file, format!("{PAGE_HEAD}{}", table.text()))
            .with_context(|| format!("write {}", file.display()))?;
    }
    Ok(tally)
}

fn legs(args: &Args) -> Vec<Leg> {
    let methods: Vec<Method> = if args.light {
        vec![AES_256_GCM, AES_256_2022]
    } else {
        MODERN.into_iter().chain(peers::others()).collect()
    };
    let wanted =
        |method: &Method| args.method.as_ref().is_none_or(|part| method.name.contains(part.as_str()));
    let mut legs = Vec::new();
    for method in methods.into_iter().filter(wanted) {
        let mut leg = |client, server| legs.push(Leg { client, server, method });
        if !args.peers_alone && !Peer::Umbra.speaks(method) {
            continue;
        }
        if !args.peers_alone {
            leg(Peer::Umbra, Peer::Umbra);
        }
        for peer in Peer::OTHERS.into_iter().filter(|peer| peer.speaks(method)) {
            if args.peers_alone {
                leg(peer, peer);
            } else {
                leg(Peer::Umbra, peer);
                leg(peer, Peer::Umbra);
            }
        }
    }
    legs
}

impl Leg {
    fn missing(self, tools: &Tools) -> Option<String> {
        [self.client, self.server].into_iter().find_map(|peer| tools.lack(peer))
    }

    fn run(self, tools: &Tools, web: &Web, size: Size) -> [Outcome; Check::ALL.len()] {
        let mut ends = match Ends::start(self, tools, web, size) {
            Ok(ends) => ends,
            Err(error) => {
                eprintln!("{self}: {error:#}");
                let why = format!("{error:#}");
                return Check::ALL.map(|_| Outcome::Failed(anyhow::anyhow!("{why}")));
            }
        };
        Check::ALL.map(|check| {
            let outcome = check.run(&ends);
            let outcome = if ends.are_alive() { outcome } else { Outcome::Failed(ends.death(outcome)) };
            if let Outcome::Failed(error) = &outcome {
                let logs = format!("{}{}", ends.client.log_tail(30), ends.server.log_tail(30));
                eprintln!("{self}: {} failed: {error:#}\n{logs}", check.name());
            }
            outcome
        })
    }
}

impl std::fmt::Display for Leg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}, {}", self.client, self.server, self.method.name)
    }
}

impl Size {
    /// Full size for the methods that people should use.
    fn of(method: Method, light: bool) -> Self {
        let full = !light && MODERN.contains(&method);
        if !full { Self { bytes: 2_000_003, sessions: 50 } } else { Self { bytes: 8_000_003, sessions: 500 } }
    }
}

impl<'a> Ends<'a> {
    fn start(leg: Leg, tools: &'a Tools, web: &'a Web, size: Size) -> Result<Self> {
        let (method, password) = (leg.method, leg.method.password);
        let (server, server_address) = tools.start(leg.server, Role::Server, method, password, None)?;
        let (client, proxy) =
            tools.start(leg.client, Role::Client(server_address), method, password, None)?;
        Ok(Self { leg, proxy, server_address, client, server, tools, web, size })
    }

    /// A client of the same server that knows another password.
    fn start_stranger(&self) -> Result<(Guard, SocketAddr)> {
        let (role, method) = (Role::Client(self.server_address), self.leg.method);
        self.tools.start(self.leg.client, role, method, method.wrong_password, None)
    }

    fn are_alive(&mut self) -> bool {
        self.client.is_alive() && self.server.is_alive()
    }

    fn death(&mut self, outcome: Outcome) -> anyhow::Error {
        let who = if self.server.is_alive() { "the client" } else { "the server" };
        match outcome {
            Outcome::Failed(error) => error.context(format!("{who} has died")),
            Outcome::Passed | Outcome::Skipped(_) => anyhow::anyhow!("{who} has died"),
        }
    }
}

/// The rows as they will be shown.
#[derive(Debug, Default)]
struct Table {
    rows: String,
    notes: Vec<String>,
}

impl Table {
    fn add(&mut self, leg: Leg, outcomes: &[Outcome]) {
        let (client, server) = (leg.client.to_string(), leg.server.to_string());
        let mut row = format!("| {client:<17} | {server:<17} | {:<29} |", leg.method.name);
        for (check, outcome) in Check::ALL.iter().zip(outcomes) {
            let width = check.name().len().max("skipped".len());
            let cell = match outcome {
                Outcome::Passed => "passed",
                Outcome::Failed(_) => "FAILED",
                Outcome::Skipped(why) => {
                    self.note(why);
                    "skipped"
                }
            };
            row.push_str(&format!(" {cell:<width$} |"));
        }
        eprintln!("{row}");
        self.rows.push_str(&row);
        self.rows.push('\n');
    }

    fn note(&mut self, why: &str) {
        if !self.notes.iter().any(|note| note == why) {
            self.notes.push(why.to_owned());
        }
    }

    fn text(&self) -> String {
        let mut head = format!("| {:<17} | {:<17} | {:<29} |", "client", "server", "method");
        let mut rule = format!("| {:-<17} | {:-<17} | {:-<29} |", "", "", "");
        for check in Check::ALL {
            let width = check.name().len().max("skipped".len());
            head.push_str(&format!(" {:<width$} |", check.name()));
            rule.push_str(&format!(" {:-<width$} |", ""));
        }
        let mut text = format!("{head}\n{rule}\n{}", self.rows);
        for note in &self.notes {
            text.push_str(&format!("\nSkipped: {note}\n"));
        }
        text
    }
}

/// Bytes that are the same in every run and different for every seed.
pub(crate) fn payload(bytes: usize, seed: usize) -> Vec<u8> {
    let mut payload = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut payload);
    payload
}

const PAGE_HEAD: &str = "# Interoperation

The last run of `cargo xtask interop --write`: real programs over loopback, both ways, every shared method.

";
