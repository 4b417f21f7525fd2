//! One end, from its options to its end; and the check that stops short of starting it.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use tracing::{info, warn};
use umbra_relay::config::{Inbound, Protocol};
use umbra_relay::{Account, Relay, StartError, descriptors_min};

use crate::flags::{Options, Role, TUNNEL_PLACE};
use crate::link::{explain, is_link};
use crate::linked::find_linked;
use crate::process::{Hearing, nofile, raise_nofile};
use crate::report::Report;
use crate::resolve::{Online, Plan, Sources, Subscribed, guess_role, resolve};
use crate::roster::{Fronts, Roster};
use crate::subscription::{Refresher, Shelves, Subscription};
use crate::{fail, file, log, say};

/// Runs one end until it is told to end.
pub(crate) fn run(role: Role, mut options: Options) -> ExitCode {
    let mut report = Report::default();
    find_config(&mut options);
    let (level, config) = (options.level, options.config.clone());
    let sources = read(options, &mut report).map(|sources| load(role, sources));
    let Some(plan) = sources.and_then(|sources| plan(role, sources, &mut report)) else {
        tell(&report);
        return ExitCode::FAILURE;
    };
    log::start(level);
    if let Some(path) = config {
        info!("loading config from {}", path.display());
    }
    for warning in report.told_warnings() {
        warn!("warning: {warning}");
    }
    drop(report);
    if let Err(why) = raise_nofile(plan.nofile) {
        warn!("{why}");
    }
    match serve(role, plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

/// Starts what there is to start, and ends it when told to end.
fn serve(role: Role, mut plan: Plan) -> Result<(), String> {
    let needed = descriptors_min(&plan.config);
    let explain = |error| explain_start(&error, instead(role), needed);
    let mut hearing = Hearing::begin().map_err(|error| format!("cannot listen for signals: {error}"))?;
    Fronts::prepare(&mut plan.fronts).map_err(explain)?;
    for front in &plan.fronts {
        // The plugin takes the streams of this address, and the relay its datagrams.
        let inbound = plan.config.inbounds.get_mut(front.inbound);
        if let Some(udp) = inbound.and_then(|inbound| inbound.mode.datagrams_mut()) {
            udp.listen = Some(front.listen);
        }
    }
    let roster = Roster::start(plan.servers, plan.listed.clone())?;
    let shelves = Shelves::new(Arc::clone(&roster), plan.listed, &plan.online);
    if !plan.online.is_empty() {
        shelves.fill();
    }
    roster.wait_for_plugins(|| hearing.is_told_to_end());
    if hearing.is_told_to_end() {
        roster.end();
        return Ok(());
    }
    let relay = Relay::start(&plan.config).map_err(explain)?;
    let fronts = Fronts::start(&plan.fronts, &relay)?;
    fronts.wait_for_plugins(|| hearing.is_told_to_end());
    if hearing.is_told_to_end() {
        relay.stop();
        fronts.end();
        roster.end();
        return Ok(());
    }
    for (index, door) in relay.addresses().iter().enumerate() {
        let front = plan.fronts.iter().find(|front| front.inbound == index);
        let listen = front.map_or(door, |front| &front.listen);
        match plan.config.inbounds.get(index) {
            Some(Inbound { protocol: Protocol::Tunnel { target }, mode, .. }) => {
                let carried = [(mode.has_streams(), "tcp"), (mode.datagrams().is_some(), "udp")];
                for (_, word) in carried.iter().filter(|(is_carried, _)| *is_carried) {
                    info!("starting {word} tunnel at {listen} forward to {target}");
                }
            }
            Some(_) | None => info!("starting {} at {listen}", role.word()),
        }
    }
    for line in plan.online.iter().flat_map(Subscribed::summary) {
        info!("{line}");
    }
    let shelves = Arc::new(shelves);
    let refreshers = plan.online.into_iter().enumerate();
    let refreshers = refreshers.map(|(shelf, online)| Refresher::start(online, shelf, Arc::clone(&shelves)));
    let refreshers: Vec<_> = refreshers.collect::<Result<_, _>>()?;
    if let Some(usage) = plan.usage {
        info!("{usage}");
    }
    let account = Account::of(&plan.config.inbounds);
    hearing.wait(|| account.tell());
    drop(refreshers);
    relay.stop();
    // Now nothing is counted any more.
    account.tell_what_was_used();
    fronts.end();
    roster.end();
    Ok(())
}

/// Loads the documents of servers, all at a time, where some are asked for and wanted.
pub(crate) fn load(role: Role, mut sources: Sources) -> Sources {
    if role == Role::Client {
        thread::scope(|scope| {
            for online in &mut sources.online {
                scope.spawn(|| online.loaded = Some(online.subscription.load()));
            }
        });
    }
    sources
}

/// What is to be done, if all of it can be.
fn plan(role: Role, sources: Sources, report: &mut Report) -> Option<Plan> {
    let plan = resolve(role, sources, report)?;
    for plugin in plan.plugins() {
        if let Err(why) = plugin.find() {
            report.error(&plugin.place, why);
        }
    }
    report.errors.is_empty().then_some(plan)
}

/// What `role`, or the end that the content is for, would do; nothing, if there is an error.
pub(crate) fn plan_of(role: Option<Role>, mut options: Options, report: &mut Report) -> Option<Plan> {
    find_config(&mut options);
    let sources = read(options, report)?;
    let role = role.unwrap_or_else(|| guess_role(&sources));
    plan(role, load(role, sources), report)
}

/// Says everything that is wrong or doubtful.
pub(crate) fn check(role: Option<Role>, mut options: Options) -> ExitCode {
    let mut report = Report::default();
    find_config(&mut options);
    let config = options.config.clone();
    let Some(sources) = read(options, &mut report) else {
        tell(&report);
        return ExitCode::FAILURE;
    };
    let role = role.unwrap_or_else(|| guess_role(&sources));
    let plan = plan(role, load(role, sources), &mut report);
    tell(&report);
    let online = plan.iter().flat_map(|plan| &plan.online);
    let usage = plan.as_ref().and_then(|plan| plan.usage);
    for line in online.flat_map(Subscribed::summary).chain(usage.map(|usage| usage.to_string())) {
        let _unheard = writeln!(io::stdout(), "{line}");
    }
    let name = config.map_or_else(|| "the command line".into(), |path| path.display().to_string());
    let (errors, warnings) = (report.errors.len(), report.warnings.len());
    let verdict = if plan.is_some() { "good" } else { "bad" };
    let _unheard = writeln!(
        io::stdout(),
        "{name}: {verdict} for umbra {} (errors: {errors}, warnings: {warnings})",
        role.word()
    );
    if plan.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Why a relay did not start, and what to do about it: listen somewhere `instead`, or let the process have the descriptors `needed`.
pub(crate) fn explain_start(error: &StartError, instead: &str, needed: usize) -> String {
    let (what, kind) = (&error.what, error.source.kind());
    if kind == io::ErrorKind::AddrInUse {
        format!("cannot {what}: address in use; is another umbra running? choose another with {instead}")
    } else if kind == io::ErrorKind::PermissionDenied {
        format!(
            "cannot {what}: permission denied; choose a port above 1023 with {instead}, or grant CAP_NET_BIND_SERVICE"
        )
    } else if kind == io::ErrorKind::AddrNotAvailable {
        format!("cannot {what}: this machine has no such address; choose another with {instead}")
    } else if error.source.raw_os_error() == Some(Errno::MFILE.raw_os_error()) {
        let held = nofile().map_or_else(String::new, |held| format!("{held} "));
        format!(
            "cannot {what}: the {held}descriptors that this process may hold are too few; it needs {needed}, and two more for each \
             further session; raise them with ulimit -n, with LimitNOFILE in a unit of systemd, or with nofile, where the configuration says less"
        )
    } else {
        error.to_string()
    }
}

fn instead(role: Role) -> &'static str {
    match role {
        Role::Client => "-b or -l",
        Role::Server => "-s or -p",
    }
}

/// Whoever says nothing at all means the file `config.json` of the folder, as since the first Shadowsocks.
fn find_config(options: &mut Options) {
    let is_silent = options.settings.places().all(|place| place == TUNNEL_PLACE);
    let path = PathBuf::from(CONFIG_FOUND);
    if options.config.is_none() && options.url.is_none() && is_silent && path.is_file() {
        options.config = Some(path);
    }
}

/// Everything that was said. Nothing, if a part cannot be read at all.
pub(crate) fn read(options: Options, report: &mut Report) -> Option<Sources> {
    let file = match &options.config {
        Some(path) => file::read(path, report),
        None => Some(Default::default()),
    };
    let (mut file, mut flags) = (file?, options.settings);
    let linked = find_linked(&mut file, &mut flags, report);
    let (url, documents) = match &options.url {
        Some(text) if is_link(text) => match text.parse() {
            Ok(url) => (Some(url), Vec::new()),
            Err(error) => {
                report.error("--server-url", explain(error));
                return None;
            }
        },
        Some(text) => (None, vec![Subscription::from_flag(text, report)?]),
        None => (None, linked),
    };
    let online = documents.into_iter().map(|subscription| Online { subscription, loaded: None }).collect();
    Some(Sources { file, url, flags, online })
}

/// Says everything that is wrong or doubtful on the standard error output.
pub(crate) fn tell(report: &Report) {
    for error in report.told_errors() {
        say(&format!("error: {error}"));
    }
    for warning in report.told_warnings() {
        say(&format!("warning: {warning}"));
    }
}

/// The file that is read when nothing is said.
const CONFIG_FOUND: &str = "config.json";
