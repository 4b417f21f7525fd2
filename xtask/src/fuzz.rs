//! `cargo xtask fuzz`: every fuzz target for a while or for a number of executions, several at a time.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::workspace::{cargo, root, run};
use crate::{install, workspace};

/// `cargo xtask fuzz`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The target; all of them when left out
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    secs: u64,
    /// Executions of each target, however long they take
    #[arg(long, conflicts_with = "secs")]
    runs: Option<u64>,
    /// The longest input that is tried, in bytes; libFuzzer's own choice when left out: 4096, or the longest of the corpus
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    max_len: Option<u32>,
    /// How many targets run at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// What to build with: none is several times as fast, and memory is safe by itself where `unsafe` is forbidden
    #[arg(long, default_value = "none")]
    sanitizer: String,
    /// Only list the targets
    #[arg(long)]
    list: bool,
}

/// What became of one target.
#[derive(Debug)]
struct Fuzzed {
    target: String,
    executions: u64,
    per_sec: f64,
    /// The end of its log, when it found something.
    finding: Option<String>,
}

/// Fuzzes.
pub(crate) fn fuzz(args: &Args) -> Result<()> {
    let known = targets()?;
    if args.list {
        known.iter().for_each(|target| println!("{target}"));
        return Ok(());
    }
    let chosen = match &args.target {
        None => known,
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!("there is no fuzz target {target}; there are: {}", known.join(", ")),
    };
    build(args)?;
    let waiting = Mutex::new(chosen.into_iter());
    let next = || waiting.lock().ok().and_then(|mut targets| targets.next());
    let work = || std::iter::from_fn(next).map(|target| one(target, args)).collect::<Result<Vec<_>>>();
    let done = thread::scope(|scope| {
        let workers: Vec<_> = (0..args.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let done =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a job panicked")));
        done.collect::<Result<Vec<_>>>()
    })?;
    let mut done: Vec<Fuzzed> = done.into_iter().flatten().collect();
    done.sort_by(|a, b| a.target.cmp(&b.target));
    report(&done)
}

fn build(args: &Args) -> Result<()> {
    let mut command = with_tools(cargo(&["fuzz", "build", "--sanitizer", &args.sanitizer]));
    command.args(&args.target);
    if !with_tools(cargo(&["fuzz", "--version"])).output().is_ok_and(|output| output.status.success()) {
        bail!("cargo-fuzz is missing; to get it: cargo install cargo-fuzz --locked");
    }
    // Sanitizers are behind a flag that stable compilers refuse by themselves.
    run(command.env("RUSTC_BOOTSTRAP", "1"))
}

/// The command as it is, with the tools in the cache found as well.
fn with_tools(mut command: Command) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([install::tools().join("bin")]);
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    command
}

fn one(target: String, args: &Args) -> Result<Fuzzed> {
    let amount = args.runs.map_or_else(|| format!("{} s", args.secs), |runs| format!("{runs} executions"));
    println!("fuzz {target}: {amount}");
    let fuzz = root().join("fuzz");
    let (corpus, artifacts) = (fuzz.join("corpus").join(&target), fuzz.join("artifacts").join(&target));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let mut command = Command::new(binary(&target)?);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    // An input that takes this many seconds is a finding as well.
    command.args(["-timeout=10", "-print_final_stats=1"]);
    command.arg(match args.runs {
        Some(runs) => format!("-runs={runs}"),
        None => format!("-max_total_time={}", args.secs),
    });
    command.args(args.max_len.map(|bytes| format!("-max_len={bytes}")));
    let started = Instant::now();
    let output = command.arg(&corpus).output().with_context(|| workspace::shown(&command))?;
    let took = started.elapsed();
    let log = String::from_utf8_lossy(&output.stderr);
    let count = log.lines().rev().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let executions = count.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
    let fuzzed = Fuzzed {
        executions,
        per_sec: executions as f64 / took.as_secs_f64(),
        finding: (!output.status.success()).then(|| tail(&log, 40)),
        target,
    };
    println!("fuzz {}", fuzzed.line());
    Ok(fuzzed)
}

/// Where `cargo fuzz build` leaves a target; the folder above is named after the machine.
fn binary(target: &str) -> Result<PathBuf> {
    let built =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("fuzz/target"), PathBuf::from);
    let places = built.read_dir().with_context(|| format!("nothing is built in {}", built.display()))?;
    let candidates = places.flatten().map(|place| place.path().join("release").join(target));
    let newest = candidates
        .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file)))
        .max()
        .map(|(_, file)| file);
    newest.with_context(|| format!("{target} is not built"))
}

fn report(done: &[Fuzzed]) -> Result<()> {
    println!();
    done.iter().for_each(|fuzzed| println!("{}", fuzzed.line()));
    let findings: Vec<&Fuzzed> = done.iter().filter(|fuzzed| fuzzed.finding.is_some()).collect();
    for fuzzed in &findings {
        println!("\n--- {}\n{}", fuzzed.target, fuzzed.finding.as_deref().unwrap_or_default());
    }
    if !findings.is_empty() {
        bail!("{} of {} targets have a finding", findings.len(), done.len());
    }
    Ok(())
}

impl Fuzzed {
    fn line(&self) -> String {
        let verdict = if self.finding.is_some() { "A FINDING" } else { "nothing found" };
        let Self { target, executions, per_sec, .. } = self;
        format!("{target:<24} {executions:>12} executions {per_sec:>7.0} a second, {verdict}")
    }
}

fn tail(log: &str, lines_max: usize) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}

fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let entries =
        folder.read_dir().with_context(|| format!("there are no fuzz targets in {}", folder.display()))?;
    let mut targets: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    targets.sort();
    Ok(targets)
}
