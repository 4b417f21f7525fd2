//! `cargo xtask test`: the checks, the workspace's tests, real programs, and the release build.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::tally::Tally;
use crate::workspace::{cargo, shown};
use crate::{check, interop, released};

/// `cargo xtask test`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Two methods and fewer sessions with real programs, and no release build
    #[arg(long)]
    light: bool,
}

/// Runs everything, whatever becomes of each part; the last line is the count.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut tally = check::tally();
    tally += workspace_tests();
    let interop = interop::Args { light: args.light, ..interop::Args::default() };
    tally += interop::tally(&interop).unwrap_or_else(|why| {
        println!("interop: FAILED: {why:#}");
        Tally::step(false)
    });
    if !args.light {
        tally += released::tally();
    }
    println!("\n{tally}");
    tally.verdict()
}

/// Unit, split, in-memory, simulation and end-to-end tests, and the examples in the documentation.
fn workspace_tests() -> Tally {
    let has_nextest = cargo(&["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut tally = if has_nextest {
        count(&mut cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail"]))
    } else {
        println!(
            "cargo-nextest is not here, cargo test does its work; to get it: cargo install cargo-nextest --locked"
        );
        count(&mut cargo(&["test", "--quiet", "--workspace", "--all-targets", "--no-fail-fast"]))
    };
    tally += count(&mut cargo(&["test", "--quiet", "--workspace", "--doc", "--no-fail-fast"]));
    tally
}

fn count(command: &mut Command) -> Tally {
    match counted(command) {
        Ok(tally) => tally,
        Err(why) => {
            println!("{}: FAILED: {why:#}", shown(command));
            Tally::step(false)
        }
    }
}

/// Runs a test command, its output shown, and reads its own count.
fn counted(command: &mut Command) -> Result<Tally> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("no output")?;
    let stderr = child.stderr.take().context("no error output")?;
    let tally = thread::scope(|scope| {
        let errors = scope.spawn(|| show_and_count(stderr));
        let mut tally = show_and_count(stdout);
        tally += errors.join().unwrap_or_default();
        tally
    });
    let status = child.wait()?;
    if !status.success() && tally.failed == 0 {
        bail!("{status}");
    }
    if status.success() && tally.failed > 0 {
        bail!("success was said, and failures were counted");
    }
    Ok(tally)
}

fn show_and_count(output: impl Read) -> Tally {
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        println!("{line}");
        tally += summary(&line);
    }
    tally
}

/// The counts in a summary of cargo-nextest or of the standard test harness; nothing in any other line.
fn summary(line: &str) -> Tally {
    let line = line.trim();
    let Some((_, counts)) = (if line.starts_with("Summary [") || line.starts_with("test result:") {
        line.split_once(if line.starts_with("Summary") { ": " } else { ". " })
    } else {
        None
    }) else {
        return Tally::default();
    };
    let mut tally = Tally::default();
    let mut before = "";
    for word in counts.split([' ', ',', ';', '(']).filter(|word| !word.is_empty()) {
        let number = before.parse().unwrap_or(0);
        match word {
            "passed" => tally.passed += number,
            "failed" | "timed" => tally.failed += number,
            "ignored" | "skipped" => tally.skipped += number,
            _ => {}
        }
        before = word;
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_nextest_is_read() {
        let line =
            "     Summary [   0.123s] 10 tests run: 8 passed (1 slow), 1 failed, 1 timed out, 2 skipped";
        assert_eq!(summary(line), Tally { passed: 8, failed: 2, skipped: 2 });
    }

    #[test]
    fn the_summary_of_the_harness_is_read() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(summary(line), Tally { passed: 3, failed: 1, skipped: 2 });
    }

    #[test]
    fn other_lines_count_for_nothing() {
        assert_eq!(summary("test a_test_that_says 3 passed ... ok"), Tally::default());
    }
}
