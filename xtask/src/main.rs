//! Umbra's checks, tests, interop runs and benchmarks, so that no other tool is needed.

mod bench;
mod child;
mod peers;
mod socks;
mod workspace;

use std::ffi::OsString;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about)]
enum Task {
    /// Measure our pair beside the peers' pairs
    Bench(bench::Args),
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

fn main() -> Result<()> {
    match Task::parse() {
        Task::Bench(args) => bench::run(&args),
        Task::Launch { cpu, command } => child::launch(cpu, &command),
    }
}
