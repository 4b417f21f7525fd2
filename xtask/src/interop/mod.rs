//! Real programs: servers and clients of others with ours, both ways, and programs of all kinds at our front doors.

mod checks;
mod datagrams;
mod doors;
pub(crate) mod fast_open;
mod names;
mod pairs;
mod parents;
mod programs;
mod report;
mod site;

use std::path::PathBuf;

use anyhow::Result;

use crate::peers::Tools;
use crate::tally::Tally;
use crate::workspace;
use report::Report;
use site::Site;

/// `cargo xtask interop`
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// A few methods, fewer bytes and fewer sessions, no browser
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
    /// Only pairs whose method contains this, plugins and users included, and no doors
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,
    /// Only doors whose name contains this, and no pairs
    #[arg(long, value_name = "NAME", conflicts_with = "method")]
    pub(crate) door: Option<String>,
    /// Only parents whose names, or how they are asked, contain this, and nothing else
    #[arg(long, value_name = "NAME", conflicts_with_all = ["method", "door"])]
    pub(crate) parent: Option<String>,
}

/// What came of trying something.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It held.
    Passed,
    /// It did not.
    Failed(anyhow::Error),
    /// It could not be tried.
    Skipped(String),
}

impl From<Result<()>> for Outcome {
    fn from(held: Result<()>) -> Self {
        held.map_or_else(Self::Failed, |()| Self::Passed)
    }
}

/// Runs everything and prints the tables.
pub(crate) fn run(args: &Args) -> Result<()> {
    let tally = tally(args)?;
    println!("{tally}");
    tally.verdict()
}

/// Runs everything, prints the tables, and counts.
pub(crate) fn tally(args: &Args) -> Result<Tally> {
    let umbra = match &args.umbra {
        Some(path) => Some(path.clone()),
        None if args.peers_alone => None,
        None => Some(workspace::build_umbra_for_tests()?),
    };
    let tools = Tools::provide(umbra.as_deref())?;
    let site = Site::start()?;
    let mut report = Report::default();
    let [method, door, parent] = [&args.method, &args.door, &args.parent].map(Option::is_none);
    if door && parent {
        pairs::run(args, &tools, &site, &mut report);
    }
    if method && parent && !args.peers_alone {
        doors::run(args, &tools, &site, &mut report);
        fast_open::run(&tools, &mut report);
    }
    if method && door && !args.peers_alone {
        parents::run(args, &tools, &site, &mut report);
    }
    println!("{report}");
    if args.write {
        report.write_page(&workspace::root().join("docs/interop.md"))?;
    }
    Ok(report.tally())
}

/// Bytes that are the same in every run and different for every seed.
pub(crate) fn payload(bytes: usize, seed: usize) -> Vec<u8> {
    let mut payload = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut payload);
    payload
}
