//! The real program as a process, its log gathered while the test does other things.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running program, ended when the test ends.
pub(crate) struct Umbra {
    pub(crate) address: SocketAddr,
    pub(crate) child: Child,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Umbra {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    /// Starts the program in an environment and waits until its door is open.
    pub(crate) fn start_with(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut umbra = Self::launch(args, variables);
        umbra.wait_for_door(args[0]);
        umbra
    }

    /// Starts the program, whose address is not known yet.
    pub(crate) fn launch(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
        let command = command
            .args(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::<Log>::default();
        let sink = Arc::clone(&log);
        thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                let mut text = sink.text.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
                sink.grown.notify_all();
            }
        });
        Self { address: SocketAddr::from(([0, 0, 0, 0], 0)), child, log }
    }

    /// Waits until the door of a program that does `what` is open.
    pub(crate) fn wait_for_door(&mut self, what: &str) {
        let door = match what {
            // Of a pair, the client's.
            "up" => "local",
            "tunnel" => "tcp tunnel",
            other => other,
        };
        let line = self.wait_for(&format!("starting {door} at "));
        self.address = line.split(' ').next().unwrap().parse().unwrap();
    }

    /// Waits for a line that has `mark`, and gives what follows it.
    pub(crate) fn wait_for(&self, mark: &str) -> String {
        let text = self.log.text.lock().unwrap();
        let (text, waited) =
            self.log.grown.wait_timeout_while(text, PATIENCE, |text| !text.contains(mark)).unwrap();
        assert!(!waited.timed_out(), "no «{mark}» in:\n{text}");
        let (_, rest) = text.split_once(mark).unwrap();
        rest.lines().next().unwrap_or_default().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        self.log.text.lock().unwrap().clone()
    }

    /// Tells the process to end, and gives its exit code and how long it took.
    pub(crate) fn end(&mut self) -> (Option<i32>, Duration) {
        let told = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, told.elapsed())
    }
}

impl Drop for Umbra {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// Waits for a condition, with a bound; it fails with what the condition last said.
pub(crate) fn eventually<T>(mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "{why}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}
