//! The real program with a configuration, its log read line by line by the test itself.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use tempfile::TempDir;

/// A configuration file that goes when the test ends.
pub(crate) struct Config {
    _folder: TempDir,
    path: PathBuf,
}

impl Config {
    pub(crate) fn new(contents: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, contents).unwrap();
        Self { _folder: folder, path }
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// A started program, ended when the test ends.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) log: BufReader<ChildStderr>,
    /// What has been read of the log.
    pub(crate) seen: String,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::of(Command::new(env!("CARGO_BIN_EXE_umbra")).args(args))
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log, seen: String::new() }
    }

    /// Reads the log up to the line that has `mark`, and returns what follows the mark in it.
    pub(crate) fn wait_for(&mut self, mark: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "no «{mark}» in:\n{}", self.seen);
            self.seen.push_str(&line);
            if let Some((_, rest)) = line.split_once(mark) {
                return rest.trim_end().to_owned();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}
