//! `cargo xtask fuzz`: every fuzz target for a while, or one for longer.

use anyhow::{Context, Result, bail};

use crate::workspace::{cargo, root, run};

/// `cargo xtask fuzz`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The target; all of them in turn when left out
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    secs: u64,
    /// Only list the targets
    #[arg(long)]
    list: bool,
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
    let has_cargo_fuzz = cargo(&["fuzz", "--version"]).output().is_ok_and(|output| output.status.success());
    if !has_cargo_fuzz {
        bail!("cargo-fuzz is missing; to get it: cargo install cargo-fuzz --locked");
    }
    for target in chosen {
        println!("fuzz {target} for {} s", args.secs);
        let mut command = cargo(&["fuzz", "run", &target, "--", &format!("-max_total_time={}", args.secs)]);
        // Sanitizers are behind a flag that stable compilers refuse by themselves.
        run(command.env("RUSTC_BOOTSTRAP", "1"))?;
    }
    Ok(())
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
