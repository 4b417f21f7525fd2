//! Umbra's checks, tests, interop runs and benchmarks, so that no other tool is needed.

mod bench;
mod check;
mod child;
mod fuzz;
mod install;
mod interop;
mod peers;
mod released;
mod socks;
mod tally;
mod test;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about)]
enum Task {
    /// Format, lints and dependencies
    Check,
    /// Everything: check, the workspace's tests, and real programs
    Test(test::Args),
    /// Real programs both ways, for every shared method
    Interop(interop::Args),
    /// The release build: it answers as the build for tests, and `umbra up` carries a session
    Released,
    /// Feed the protocol machines made-up input
    Fuzz(fuzz::Args),
    /// Write the generated parts of docs/ anew
    Docs,
    /// Measure our pair beside the peers' pairs
    Bench(bench::Args),
    /// Whether data goes in a SYN, in a network that may be changed (used by interop)
    #[command(hide = true)]
    FastOpen(interop::fast_open::Args),
    /// Become a program that dies with this one (used by the other tasks)
    #[command(hide = true)]
    Launch {
        /// The only core to run on
        #[arg(long)]
        cpu: Option<usize>,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Check => check::run(),
        Task::Test(args) => test::run(&args),
        Task::Interop(args) => interop::run(&args),
        Task::Released => released::run(),
        Task::Fuzz(args) => fuzz::fuzz(&args),
        Task::Docs => docs(),
        Task::Bench(args) => bench::run(&args),
        Task::FastOpen(args) => interop::fast_open::try_here(&args),
        Task::Launch { cpu, command } => child::launch(cpu, &command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}

/// The command line's reference is written by the test that otherwise compares it.
fn docs() -> Result<()> {
    let mut command = workspace::cargo(&["test", "--quiet", "--package", "umbra", "reference"]);
    workspace::run(command.env("UMBRA_WRITE_DOCS", "1"))
}
