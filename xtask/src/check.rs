//! `cargo xtask check`: what can be said without running anything.

use std::process::Command;

use anyhow::Result;

use crate::install;
use crate::tally::Tally;
use crate::workspace::{self, cargo};

/// Runs every check and prints the count.
pub(crate) fn run() -> Result<()> {
    let tally = tally();
    println!("{tally}");
    tally.verdict()
}

/// Runs every check, whatever becomes of the others, and counts.
pub(crate) fn tally() -> Tally {
    let mut tally = Tally::default();
    tally += step("format", &mut cargo(&["fmt", "--all", "--check"]));
    tally += step(
        "clippy",
        &mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
    );
    tally += fuzz_targets();
    tally += dependencies();
    tally
}

/// The fuzz targets are a workspace of their own; only a look keeps them from going stale unseen.
fn fuzz_targets() -> Tally {
    let manifest = ["--manifest-path", "fuzz/Cargo.toml"];
    let mut format = cargo(&["fmt", "--check"]);
    format.args(manifest);
    let mut check = cargo(&["clippy", "--quiet", "--target-dir", "target"]);
    // Nothing is linked, so the fuzzer's own library, which wants a C++ compiler, is not built either.
    check
        .args(manifest)
        .args(["--", "--deny", "warnings"])
        .env("CUSTOM_LIBFUZZER_PATH", "unused/libunused.a");
    let mut tally = step("format of the fuzz targets", &mut format);
    tally += step("the fuzz targets", &mut check);
    tally
}

/// Bans, licences and sources always; advisories where their database can be had.
fn dependencies() -> Tally {
    let deny = match install::cargo_deny() {
        Ok(deny) => deny,
        Err(why) if install::must_be_complete() => {
            println!("check dependencies: FAILED: {why:#}");
            return Tally { failed: 2, ..Tally::default() };
        }
        Err(why) => {
            println!("check dependencies, advisories: skipped, cargo-deny cannot be installed: {why:#}");
            return Tally { skipped: 2, ..Tally::default() };
        }
    };
    let deny = |checks: &[&str]| {
        let mut command = Command::new(&deny);
        command.args(["--log-level", "warn", "--workspace", "check", "--hide-inclusion-graph"]);
        command.args(checks).current_dir(workspace::root());
        command
    };
    let mut tally = step("dependencies", &mut deny(&["bans", "licenses", "sources"]));
    tally += advisories(deny(&["advisories"]));
    tally
}

fn advisories(mut command: Command) -> Tally {
    let output = match command.output() {
        Ok(output) => output,
        Err(why) => {
            println!("check advisories: FAILED: {why}");
            return Tally::step(false);
        }
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && said.contains("failed to fetch advisory database") {
        let why = said.lines().rev().find(|line| line.starts_with("fatal:")).unwrap_or("git is missing");
        println!("check advisories: skipped, their database cannot be reached: {why}");
        return Tally { skipped: 1, ..Tally::default() };
    }
    eprint!("{said}");
    println!("check advisories: {}", word(output.status.success()));
    Tally::step(output.status.success())
}

fn step(name: &str, command: &mut Command) -> Tally {
    let held = match workspace::run(command) {
        Ok(()) => true,
        Err(why) => {
            eprintln!("{why:#}");
            false
        }
    };
    println!("check {name}: {}", word(held));
    Tally::step(held)
}

fn word(held: bool) -> &'static str {
    if held { "passed" } else { "FAILED" }
}
