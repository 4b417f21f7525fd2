//! The Python Shadowsocks of 2015, which many configurations were written for, on today's Python and OpenSSL.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{cache, in_path};
use crate::workspace;

/// The last release on PyPI.
pub(crate) const VERSION: &str = "2.8.2";

/// Where it is installed.
pub(super) fn root() -> PathBuf {
    cache().join("peers").join(format!("shadowsocks-python-{VERSION}"))
}

/// What to type when it is missing.
pub(super) fn how_to_get() -> String {
    format!("python3 -m pip install --no-deps --target {} shadowsocks=={VERSION}", root().display())
}

/// Where it is, or why it does not run.
pub(super) fn find() -> Result<PathBuf, String> {
    if !root().join("shadowsocks").is_dir() {
        return Err(format!("is missing; to get it: {}", how_to_get()));
    }
    let probe = interpreter().and_then(|python| {
        let output = Command::new(&python).arg(launcher()).arg(root()).arg("probe").output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = said.lines().last().unwrap_or_default().to_owned();
        ensure!(output.status.success(), "python3 ends with {}: {last}", output.status);
        Ok(())
    });
    match probe {
        Ok(()) => Ok(root()),
        Err(why) => Err(format!("does not run here: {why:#}")),
    }
}

/// Gets it from PyPI with pip.
pub(crate) fn install() -> Result<()> {
    let mut command = Command::new(interpreter()?);
    command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(root());
    workspace::run(command.arg(format!("shadowsocks=={VERSION}")))
}

/// The interpreter and what comes before its own arguments.
pub(super) fn command(place: &Path, side: &str) -> Result<(PathBuf, Vec<String>)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok((interpreter()?, vec![text(&launcher()), text(place), side.to_owned()]))
}

fn interpreter() -> Result<PathBuf> {
    in_path("python3").context("there is no python3")
}

fn launcher() -> PathBuf {
    workspace::root().join("xtask/src/peers/launch.py")
}
