//! Keeps one plugin running: starts it, watches it, starts it again after a rest, and ends it.
//!
//! Each plugin has a thread of its own, which starts it and waits for its end. The kernel ties the plugin to that thread, so
//! whatever becomes of the process, no plugin stays behind.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tracing::{debug, info, warn};
use umbra_proto::address::Address;
use umbra_relay::net::os::spawn_bound;

use super::{Plugin, words};

/// One plugin that is kept running. Dropping it ends the plugin.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// On which side of the network the plugin stands.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    /// The client's: it listens on a loopback port, another at each start, for what goes to this server.
    BeforeServer(Address),
    /// The server's: it listens at the public address, for the door behind it.
    BeforeDoor {
        /// The public address.
        listen: SocketAddr,
        /// Where the door listens.
        door: SocketAddr,
    },
}

/// What the keeper's thread and its owner both see.
struct Shared {
    plugin: Plugin,
    side: Side,
    state: Mutex<State>,
    changed: Condvar,
    /// Where the client's sessions find it.
    near: Mutex<SocketAddr>,
    /// Told whenever `near` is another address.
    moved: Box<dyn Fn() + Send + Sync>,
}

#[derive(Clone, Copy)]
enum State {
    /// It does not run, and will be started.
    Down,
    /// It runs.
    Up(Pid),
    /// It has been told to end and has not.
    Ending(Pid),
    /// It does not run, and will not be started.
    Over,
}

impl Keeper {
    /// Starts `plugin`, which is reported if it fails, and keeps it running from then on. `moved` is called from another
    /// thread whenever [`near`](Self::near) has changed.
    pub(crate) fn start(
        plugin: Plugin,
        side: Side,
        moved: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let near = match &side {
            Side::BeforeServer(_) => free_port().map_err(|error| format!("no free port: {error}"))?,
            Side::BeforeDoor { door, .. } => *door,
        };
        let (name, place) = (plugin.name().to_owned(), plugin.place.clone());
        let shared = Arc::new(Shared {
            plugin,
            side,
            state: Mutex::new(State::Down),
            changed: Condvar::new(),
            near: Mutex::new(near),
            moved: Box::new(moved),
        });
        let (started, told) = channel();
        let kept = Arc::clone(&shared);
        let thread = thread::Builder::new().name("plugin".into()).spawn(move || keep(&kept, &started));
        let keeper = Self { shared, thread: Mutex::new(Some(thread.map_err(|error| error.to_string())?)) };
        match told.recv() {
            Ok(Ok(())) => Ok(keeper),
            Ok(Err(why)) => Err(format!("{place}: {why}")),
            Err(_) => Err(format!("{place}: the plugin {name} was not started")),
        }
    }

    /// Where the plugin takes connections, on the client's side.
    pub(crate) fn near(&self) -> SocketAddr {
        self.shared.near()
    }

    /// Whether it keeps such a plugin before such a server.
    pub(crate) fn is_for(&self, plugin: &Plugin, server: &Address) -> bool {
        matches!(&self.shared.side, Side::BeforeServer(own) if own == server)
            && self.shared.plugin.is_same_as(plugin)
    }

    /// Where the plugin is to listen; nowhere, while it does not run.
    pub(super) fn awaited(&self) -> Option<SocketAddr> {
        let is_up = matches!(*self.shared.lock(), State::Up(_));
        is_up.then(|| match &self.shared.side {
            Side::BeforeServer(_) => self.near(),
            Side::BeforeDoor { listen, .. } => *listen,
        })
    }

    /// The plugin and its place, for the log.
    pub(super) fn subject(&self) -> String {
        self.shared.subject()
    }

    /// Tells the plugin to end; [`finish`](Self::finish) waits for it.
    fn tell(&self) {
        let mut state = self.shared.lock();
        *state = match *state {
            State::Down | State::Over => State::Over,
            State::Up(pid) | State::Ending(pid) => {
                signal(pid, Signal::TERM);
                State::Ending(pid)
            }
        };
        self.shared.changed.notify_all();
    }

    fn finish(&self, deadline: Instant) {
        let patience = deadline.saturating_duration_since(Instant::now());
        let is_ending = |state: &mut State| matches!(state, State::Ending(_));
        let state = self.shared.changed.wait_timeout_while(self.shared.lock(), patience, is_ending);
        let (state, _) = state.unwrap_or_else(PoisonError::into_inner);
        if let State::Ending(pid) = *state {
            warn!("plugin {} does not end when told to; killing it", self.shared.plugin.name());
            signal(pid, Signal::KILL);
        }
        drop(state);
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the keeper of a plugin ended with a panic");
        }
    }
}

/// Ends all of them at once, so that together they take no longer than one.
pub(crate) fn end_all(keepers: &[Arc<Keeper>]) {
    for keeper in keepers {
        keeper.tell();
    }
    let deadline = Instant::now() + END_SECS_MAX;
    for keeper in keepers {
        keeper.finish(deadline);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if lock(&self.thread).is_some() {
            self.tell();
            self.finish(Instant::now() + END_SECS_MAX);
        }
    }
}

/// The life of a keeper's thread.
fn keep(shared: &Shared, started: &Sender<Result<(), String>>) {
    let mut rests = Rests::default();
    let mut first = true;
    loop {
        let began = Instant::now();
        let how = match shared.launch(first) {
            Ok(Some(running)) => {
                let _only_the_first_is_waited_for = started.send(Ok(()));
                explain(running.watch(shared))
            }
            Ok(None) => return,
            Err(why) if first => {
                let _the_owner_may_be_gone = started.send(Err(why));
                return;
            }
            Err(why) => why,
        };
        first = false;
        let (rest, subject) = (rests.after(began.elapsed()), shared.subject());
        if matches!(*shared.lock(), State::Over) {
            debug!("{subject} ended");
            return;
        }
        warn!(
            "{subject} ended by itself: {how}; nothing passes until it is started again in {} s",
            rest.as_secs()
        );
        let still_down = |state: &mut State| matches!(state, State::Down);
        let _waited = shared.changed.wait_timeout_while(shared.lock(), rest, still_down);
    }
}

/// A plugin that has just been started.
struct Running {
    child: Child,
    pid: Pid,
    words: Receiver<()>,
}

impl Shared {
    /// Starts the plugin, unless it is to be over.
    fn launch(&self, first: bool) -> Result<Option<Running>, String> {
        let name = self.plugin.name();
        let why = |error: io::Error| format!("the plugin {name} cannot be started: {error}");
        if !first && matches!(self.side, Side::BeforeServer(_)) {
            // Whatever ended it, its port may be somebody else's by now.
            *lock(&self.near) = free_port().map_err(why)?;
            (self.moved)();
        }
        let (output, words) = io::pipe().map_err(why)?;
        let command = self.command(words).map_err(why)?;
        let mut state = self.lock();
        if !matches!(*state, State::Down) {
            return Ok(None);
        }
        let child = spawn_bound(command).map_err(why)?;
        let pid = Pid::from_child(&child);
        *state = State::Up(pid);
        drop(state);
        info!("{} started", self.subject());
        let discreet = matches!(self.side, Side::BeforeDoor { .. });
        Ok(Some(Running { child, pid, words: words::listen(name.to_owned(), output, discreet) }))
    }

    fn command(&self, words: io::PipeWriter) -> io::Result<Command> {
        let program = self.plugin.find().map_err(io::Error::other)?;
        let (far_host, far_port) = match &self.side {
            Side::BeforeServer(Address::Name(name, port)) => (name.as_str().to_owned(), *port),
            Side::BeforeServer(Address::Ip(address)) | Side::BeforeDoor { listen: address, .. } => {
                (address.ip().to_string(), address.port())
            }
        };
        let near = self.near();
        let mut command = Command::new(program);
        command
            .args(self.plugin.args.iter().map(|arg| arg.as_str()))
            .env("SS_REMOTE_HOST", far_host)
            .env("SS_REMOTE_PORT", far_port.to_string())
            .env("SS_LOCAL_HOST", near.ip().to_string())
            .env("SS_LOCAL_PORT", near.port().to_string())
            .stdin(Stdio::null())
            .stdout(words.try_clone()?)
            .stderr(words)
            // A group of its own: Ctrl-C is for us, and what the plugin starts in turn ends with it.
            .process_group(0);
        match &self.plugin.options {
            Some(options) => command.env("SS_PLUGIN_OPTIONS", options.as_str()),
            // What our own environment says is not meant for it.
            None => command.env_remove("SS_PLUGIN_OPTIONS"),
        };
        Ok(command)
    }

    /// The plugin and its place, for the log.
    fn subject(&self) -> String {
        let name = self.plugin.name();
        match &self.side {
            Side::BeforeServer(server) => format!("plugin {name} for {server} at {}", self.near()),
            Side::BeforeDoor { listen, door } => format!("plugin {name} at {listen} for the door at {door}"),
        }
    }

    fn near(&self) -> SocketAddr {
        *lock(&self.near)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Running {
    /// Waits until the plugin has ended and has been heard out.
    fn watch(mut self, shared: &Shared) -> io::Result<ExitStatus> {
        let is_unreaped = wait_until_ended(self.pid);
        let status = {
            let mut state = shared.lock();
            // Until it is reaped, its number is nobody else's. Whatever it has started would hold its port.
            if is_unreaped {
                signal(self.pid, Signal::KILL);
            }
            let status = self.child.wait();
            *state = match *state {
                State::Down | State::Up(_) => State::Down,
                State::Ending(_) | State::Over => State::Over,
            };
            shared.changed.notify_all();
            status
        };
        let _said_all_or_too_slow = self.words.recv_timeout(LAST_WORDS_WAIT);
        status
    }
}

/// Waits for the end of a child and leaves its number taken, so that nobody else can be hit by a signal that is meant for it.
/// False if somebody else took it all the same: whoever ignores SIGCHLD has the system do that.
fn wait_until_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    loop {
        match waitid(WaitId::Pid(pid), options) {
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn signal(group: Pid, signal: Signal) {
    // It fails only if nobody of the group is left, and then there is nothing to end.
    let _gone = kill_process_group(group, signal);
}

fn explain(outcome: io::Result<ExitStatus>) -> String {
    outcome.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// A loopback port for a plugin to listen on. It is free when it is looked for; a plugin that finds it taken ends, and gets
/// another.
///
/// The first choice lies below the range from which systems take ports for outgoing connections: nobody gets one by accident,
/// and a session that dials while the plugin is down cannot be connected to itself.
fn free_port() -> io::Result<SocketAddr> {
    for _ in 0..FREE_PORT_ATTEMPTS {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let port = CALM_PORTS_FIRST + u16::from_be_bytes(random) % CALM_PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// How long to rest before each start.
struct Rests {
    next: Duration,
}

impl Default for Rests {
    fn default() -> Self {
        Self { next: REST_SECS_MIN }
    }
}

impl Rests {
    /// The rest after a run of this length: twice the one before it, unless the run was a good one.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= GOOD_RUN_SECS {
            self.next = REST_SECS_MIN;
        }
        let rest = self.next;
        self.next = (rest * 2).min(REST_SECS_MAX);
        rest
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each value is whole at every moment, so a panic elsewhere has left nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A plugin that crashes once is back soon.
const REST_SECS_MIN: Duration = Duration::from_secs(1);

/// One that always crashes costs one start a minute.
const REST_SECS_MAX: Duration = Duration::from_secs(60);

/// After a run of this length, what went wrong before is forgotten.
const GOOD_RUN_SECS: Duration = Duration::from_secs(60);

/// What a plugin has to tidy up takes less.
const END_SECS_MAX: Duration = Duration::from_secs(2);

/// What a plugin said before its end is logged before it; something that outlives it may keep its output open for ever.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(200);

/// Ports that most systems hand to nobody: Linux begins at 32768, others at 49152.
const CALM_PORTS_FIRST: u16 = 20_000;
const CALM_PORTS: u16 = 12_768;

/// Enough unless nearly all are taken, and then the system is asked.
const FREE_PORT_ATTEMPTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_to_a_minute_and_a_good_run_ends_them() {
        let mut rests = Rests::default();
        let secs: Vec<_> = (0..8).map(|_| rests.after(Duration::ZERO).as_secs()).collect();
        assert_eq!(secs, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(rests.after(Duration::from_secs(59)).as_secs(), 60);
        assert_eq!(rests.after(Duration::from_secs(60)).as_secs(), 1);
        assert_eq!(rests.after(Duration::ZERO).as_secs(), 2);
    }

    #[test]
    fn a_free_port_is_free_and_not_one_that_others_get_by_chance() {
        for _ in 0..10 {
            let address = free_port().unwrap();
            assert!((20_000..32_768).contains(&address.port()) && address.ip().is_loopback(), "{address}");
            TcpListener::bind(address).unwrap();
        }
    }
}
