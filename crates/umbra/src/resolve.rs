//! From what was said to what will be done: the one place of precedence and defaults.
//!
//! A flag beats the file; in the file, an entry of `servers[]` or `locals[]` beats the outermost object. A link given with
//! `--server-url` takes the place of all servers of the file. Everything wrong is found in one go, and then nothing
//! starts.

mod beside;
mod client;
mod datagrams;
mod forbidden;
mod groups;
mod hops;
mod hosts;
mod links;
mod online;
mod parents;
mod routes;
mod rules;
mod server;
mod trust;
mod users;
mod ways;

use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use umbra_proto::forbidden::Forbidden;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::url::ServerUrl;
use umbra_relay::config::{Config, Group, Inbound, Path, Protocol, Route, Routes, Tcp};

use self::beside::read_outbound_proxy;
use self::client::{client_doors, client_way};
use self::datagrams::{DATAGRAM_IDS, find_shared_doors};
pub(crate) use self::forbidden::{Leads, read_forbidden};
use self::hops::HopReader;
use self::hosts::split_ports;
pub(crate) use self::links::describe_servers;
use self::online::names_server;
pub(crate) use self::online::read_document;
use self::routes::{read_routes, says_where};
use self::server::server_doors;
use self::trust::Trust;
use crate::flags::Role;
use crate::plugin::Plugin;
use crate::raw::{Raw, Settings};
use crate::reference::Id;
use crate::report::Report;
use crate::roster::{Front, Listed};
use crate::secret::InsecureMethods;
use crate::subscription::{Document, Source, Subscription, Unloaded, Usage, count_servers};

/// Everything that was said, from the weakest voice to the strongest.
#[derive(Default)]
pub(crate) struct Sources {
    /// The file.
    pub(crate) file: Raw,
    /// The link.
    pub(crate) url: Option<ServerUrl>,
    /// The flags.
    pub(crate) flags: Settings,
    /// The documents of servers that the file or a flag asks for.
    pub(crate) online: Vec<Online>,
}

/// A document of servers, loaded or not.
pub(crate) struct Online {
    /// Where it is.
    pub(crate) subscription: Subscription,
    /// What it says, or why it could not be loaded. Nothing, where it is not wanted.
    pub(crate) loaded: Option<Result<Document, Unloaded>>,
}

/// What to run.
pub(crate) struct Plan {
    /// The relay.
    pub(crate) config: Config,
    /// Descriptors to ask the system for; as many as it allows if nothing was said.
    pub(crate) nofile: Option<u64>,
    /// The servers of a client, of which those behind plugins are not among its `config`'s until their plugins run.
    pub(crate) listed: Vec<Listed>,
    /// Where `config` has them.
    pub(crate) servers: Arc<Group>,
    /// What stands in front of inbounds of `config`.
    pub(crate) fronts: Vec<Front>,
    /// Further servers, which change.
    pub(crate) online: Vec<Subscribed>,
    /// What is used of an allowance, where the file is a document of servers itself.
    pub(crate) usage: Option<Usage>,
    /// The ways out that are not among the servers.
    pub(crate) paths: Vec<Arc<Path>>,
}

/// A document of servers that is in use.
pub(crate) struct Subscribed {
    /// Where it is.
    pub(crate) subscription: Subscription,
    /// What it says.
    pub(crate) document: Document,
    /// Its servers.
    pub(crate) listed: Vec<Listed>,
    /// What is done about methods that it names and that are not safe.
    pub(crate) insecure: InsecureMethods,
}

impl Plan {
    /// Every plugin that it starts.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        let of_servers = self.listed.iter().filter_map(|listed| listed.plugin.as_ref());
        of_servers.chain(self.fronts.iter().map(|front| &front.plugin))
    }
}

impl Subscribed {
    /// Lines about what is in use, and what is used of an allowance.
    pub(crate) fn summary(&self) -> Vec<String> {
        let name = &self.subscription.source;
        let servers = format!("{name}: {}", count_servers(self.listed.len()));
        let usage = self.document.usage.map(|usage| format!("{name}: {usage}"));
        [Some(servers), usage].into_iter().flatten().collect()
    }
}

/// Works out what `role` is to do. There is a plan only if `report` holds no error.
pub(crate) fn resolve(role: Role, mut sources: Sources, report: &mut Report) -> Option<Plan> {
    split_ports(&mut sources, report);
    warn_of_visible_secrets(&sources, report);
    let mut common = read_common(&sources, report);
    let usage = read_usage(&sources);
    let both = sources.file.root.clone().beaten_by(&sources.flags);
    let way = match role {
        Role::Client => client_way(&mut sources, &common, report),
        Role::Server => Way::default(),
    };
    let plans = read_routes(role, &both, &mut common, &way, report);
    let forbidden = Arc::new(read_forbidden(role, plans.leads, &both, report));
    let out = Out { routes: plans.routes.clone(), forbidden };
    let mut doors = match role {
        Role::Client => client_doors(sources, &out, &common, report),
        Role::Server => server_doors(sources, &out, &common, report),
    };
    plans.compare_with(&mut doors, report);
    find_shared_doors(&doors, report);
    let (inbounds, fronts) = put_behind_plugins(doors);
    let config = Config { inbounds, workers: common.workers };
    let Way { servers, listed, online, is_wanted: _ } = way;
    let paths = plans.paths;
    let plan = Plan { config, nofile: common.nofile, listed, servers, fronts, online, usage, paths };
    report.errors.is_empty().then_some(plan)
}

/// The end that a configuration is for, judged by what it speaks of.
pub(crate) fn guess_role(sources: &Sources) -> Role {
    let Sources { file, url, flags, online } = sources;
    let of_client = CLIENT_IDS.iter().chain(&[Id::Direct]);
    let speaks_of_client = |settings: &Settings| of_client.clone().any(|id| settings.get(*id).is_some());
    let is_document = file.root.get(Id::Version).is_some();
    let has_ways = [&file.root, flags]
        .into_iter()
        .any(|said| says_where(said) || WAY_IDS.iter().any(|id| said.get(*id).is_some()));
    if url.is_some()
        || !online.is_empty()
        || is_document
        || file.inbounds.is_some()
        || speaks_of_client(&file.root)
        || speaks_of_client(flags)
        || (has_ways && !names_server(file, flags))
    {
        Role::Client
    } else {
        Role::Server
    }
}

/// The servers of a client.
struct Way {
    /// Whether it has any, or should.
    is_wanted: bool,
    servers: Arc<Group>,
    listed: Vec<Listed>,
    online: Vec<Subscribed>,
}

impl Default for Way {
    fn default() -> Self {
        let servers = Arc::new(Group::of_servers(Vec::new()));
        Self { is_wanted: false, servers, listed: Vec::new(), online: Vec::new() }
    }
}

/// An inbound, and the key that gave its address.
struct Door {
    place: String,
    inbound: Inbound,
    plugin: Option<Plugin>,
    /// The names of those who may come in, as far as there are any.
    users: Vec<String>,
    /// Where it was said that datagrams come in.
    wants_datagrams: Option<String>,
}

/// Where whatever comes in goes.
struct Out {
    routes: Routes,
    /// Where direct ways do not lead.
    forbidden: Arc<Forbidden>,
}

/// Where a plugin listens, its door cannot: it moves to a loopback port that only the plugin is told.
fn put_behind_plugins(doors: Vec<Door>) -> (Vec<Inbound>, Vec<Front>) {
    let (mut inbounds, mut fronts) = (Vec::new(), Vec::new());
    for Door { mut inbound, plugin, .. } in doors {
        if let Some(plugin) = plugin {
            fronts.push(Front { inbound: inbounds.len(), listen: inbound.listen, plugin });
            inbound.listen = (Ipv4Addr::LOCALHOST, 0).into();
            if let Protocol::Shadowsocks(door) = &mut inbound.protocol {
                // What a plugin hands on may be cut anywhere.
                door.heads = HeadReads::Many;
            }
        }
        inbounds.push(inbound);
    }
    (inbounds, fronts)
}

/// What is said once for the whole process.
struct Common {
    /// The idle time of the outermost object.
    idle: Option<Duration>,
    /// The idle time of the flags.
    idle_flag: Option<Duration>,
    tcp: Tcp,
    workers: NonZeroUsize,
    nofile: Option<u64>,
    /// A way that needs no server, and what asked for it.
    way: Option<(Route, &'static str)>,
    insecure: InsecureMethods,
    /// What reads proxies on the way.
    hops: HopReader,
    /// What the outermost object says about datagrams.
    datagrams: Settings,
    /// What the flags say about them.
    datagrams_flags: Settings,
}

impl Common {
    /// The idle time of an entry; that of the single form has no timeout of its own.
    fn idle_of(&self, entry: &Settings, report: &mut Report) -> Duration {
        let own = read_idle(entry, report);
        self.idle_flag.or(own).or(self.idle).unwrap_or(Duration::from_secs(IDLE_SECS_DEFAULT))
    }

    /// An entry with what the outermost object and the flags say about datagrams.
    fn with_voices(&self, entry: Settings) -> Settings {
        entry.or(&self.datagrams).beaten_by(&self.datagrams_flags)
    }
}

fn read_common(sources: &Sources, report: &mut Report) -> Common {
    let (root, flags) = (&sources.file.root, &sources.flags);
    let idle = read_idle(root, report);
    let idle_flag = read_idle(flags, report);
    let both = root.clone().beaten_by(flags);
    let tcp = Tcp {
        no_delay: both.switch(Id::NoDelay).unwrap_or(true),
        fast_open: both.switch(Id::FastOpen).unwrap_or(false),
    };
    let insecure = read_security(&both, report);
    let mut hops = HopReader { insecure, trust: Trust::default() };
    let way = read_way(&both, &mut hops, report);
    Common {
        idle,
        idle_flag,
        tcp,
        workers: read_workers(&both, report),
        nofile: read_nofile(&both, report),
        way,
        insecure,
        hops,
        datagrams: root.only(DATAGRAM_IDS),
        datagrams_flags: flags.only(DATAGRAM_IDS),
    }
}

/// The entries in use that the file and the flags describe together: those of the list, or one that the outermost
/// object and the flags make up.
fn entries(
    ids: &[Id],
    list_name: &str,
    root: &Settings,
    list: Option<Vec<Settings>>,
    flags: &Settings,
    report: &mut Report,
) -> Vec<Settings> {
    let (root, flags) = (root.only(ids), flags.only(ids));
    let Some(mut list) = list else {
        return vec![root.beaten_by(&flags)];
    };
    for place in root.places() {
        report.error(place, format!("cannot stand beside {list_name}[]; move it into one of its entries"));
    }
    list.retain(|entry| !entry.switch(Id::Disabled).unwrap_or(false));
    match list.as_mut_slice() {
        [] => report.error(list_name, "no entry is in use; add one, or take \"disabled\" from one"),
        [only] => *only = only.clone().beaten_by(&flags),
        several => {
            let count = several.len();
            for place in flags.places() {
                let text = format!(
                    "the file's {list_name}[] has {count} entries in use, and a flag cannot say which it means; change \
                     the file"
                );
                report.error(place, text);
            }
        }
    }
    list
}

/// The way out of whoever asks for none through a server.
fn read_way(settings: &Settings, hops: &mut HopReader, report: &mut Report) -> Option<(Route, &'static str)> {
    let direct = settings.switch(Id::Direct).unwrap_or(false).then_some((Route::direct(), "direct"));
    let parent = read_outbound_proxy(settings, hops, report).map(|route| (route, "outbound_proxy"));
    if let (Some(_), Some(_), Some(said)) = (&direct, &parent, settings.get(Id::OutboundProxy)) {
        report.error(&said.place, "cannot stand beside direct, which wants no proxy; keep one of them");
    }
    parent.or(direct)
}

/// Methods that are not safe are refused whatever it says, so both words are followed.
fn read_security(settings: &Settings, report: &mut Report) -> InsecureMethods {
    let security = settings.object(Id::Security);
    match security.and_then(|security| security.text(Id::InsecureMethods)) {
        None | Some(("warn", _)) => InsecureMethods::Warn,
        Some(("deny", _)) => InsecureMethods::Deny,
        Some((other, place)) => {
            report.error(place, format!("{other} is neither warn nor deny"));
            InsecureMethods::Deny
        }
    }
}

fn read_idle(settings: &Settings, report: &mut Report) -> Option<Duration> {
    let (secs, place) = settings.number(Id::Timeout)?;
    if !(1..=IDLE_SECS_MAX).contains(&secs) {
        let text = format!(
            "{secs} is no idle time in seconds; use 1 to {IDLE_SECS_MAX}, such as {IDLE_SECS_DEFAULT}"
        );
        report.error(place, text);
    } else if secs < IDLE_SECS_SHORT {
        report.warn_as_ever(place, format!("your timeout {secs} seems too short"));
    } else if secs > IDLE_SECS_LONG {
        report.warn_as_ever(place, format!("your timeout {secs} seems too long"));
    }
    Some(Duration::from_secs(secs))
}

fn read_workers(settings: &Settings, report: &mut Report) -> NonZeroUsize {
    let default = || available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let Some((count, place)) = settings.number(Id::Workers) else { return default() };
    let fitting = usize::try_from(count).ok().and_then(NonZeroUsize::new);
    match fitting.filter(|count| count.get() <= WORKERS_MAX) {
        Some(count) => count,
        None => {
            report.error(place, format!("{count} is no number of workers; use 1 to {WORKERS_MAX}"));
            default()
        }
    }
}

fn read_nofile(settings: &Settings, report: &mut Report) -> Option<u64> {
    let (count, place) = settings.number(Id::Nofile)?;
    if count < NOFILE_MIN {
        report.error(
            place,
            format!("{count} descriptors serve no one; use {NOFILE_MIN} or more, or leave it out"),
        );
    }
    Some(count)
}

/// Whether a stream without tags is authenticated: a client adds it, a server wants it.
fn read_one_time_auth(settings: &Settings) -> bool {
    settings.switch(Id::OneTimeAuth).unwrap_or(false)
}

fn read_heads(settings: &Settings) -> HeadReads {
    match settings.switch(Id::SegmentedHeads) {
        Some(true) => HeadReads::Many,
        Some(false) | None => HeadReads::One,
    }
}

fn place_of(settings: &Settings, id: Id, key: &str) -> String {
    settings.get(id).map_or_else(|| settings.key_path(key), |said| said.place.clone())
}

/// What the file says of an allowance, as a document of servers does.
fn read_usage(sources: &Sources) -> Option<Usage> {
    let number = |id| sources.file.root.number(id).map(|(number, _)| number);
    Some(Usage { used: number(Id::BytesUsed)?, remaining: number(Id::BytesRemaining) })
}

fn warn_of_visible_secrets(sources: &Sources, report: &mut Report) {
    let flags = &sources.flags;
    let parent = flags.text(Id::OutboundProxy).filter(|(url, _)| url.contains('@'));
    let own = flags.get(Id::Password).map(|said| said.place.as_str());
    let flag = own.or(parent.map(|(_, place)| place));
    let is_online = |online: &&Online| {
        online.subscription.alone && !matches!(online.subscription.source, Source::File(_))
    };
    let online = sources.online.iter().find(is_online).map(|online| online.subscription.place.as_str());
    let url = sources.url.as_ref().map(|_| "--server-url");
    if let Some(place) = flag.or(url).or(online) {
        report.warn(
            place,
            "other users of this machine can read the command line; a file given with -c keeps the secret",
        );
    }
}

/// The keys of a server that are no inbound's.
pub(crate) const SERVER_IDS: &[Id] = &[
    Id::Server,
    Id::ServerPort,
    Id::PortPassword,
    Id::Password,
    Id::Method,
    Id::SegmentedHeads,
    Id::OneTimeAuth,
    Id::Plugin,
    Id::PluginOpts,
    Id::PluginArgs,
    Id::PluginMode,
];
/// The keys of an inbound that a client and a server have in common.
const DOOR_IDS: &[Id] = &[Id::Users, Id::AcceptProxyProtocol, Id::SendProxyProtocol];

const CLIENT_IDS: &[Id] = &[
    Id::LocalAddress,
    Id::LocalPort,
    Id::Protocol,
    Id::ForwardAddress,
    Id::ForwardPort,
    Id::TunnelPort,
    Id::UsersFile,
];

/// The keys of ways out, which a client may have in place of a server.
const WAY_IDS: &[Id] = &[Id::OutboundProxy, Id::Paths, Id::Groups];

const IDLE_SECS_DEFAULT: u64 = 300;

/// A day: whatever is silent for longer is gone.
const IDLE_SECS_MAX: u64 = 86_400;

/// Outside of these two, Shadowsocks has always warned.
const IDLE_SECS_SHORT: u64 = 100;
const IDLE_SECS_LONG: u64 = 600;

/// More threads than any machine has processors for.
const WORKERS_MAX: usize = 1024;

/// The process itself needs some, and each session two.
const NOFILE_MIN: u64 = 64;

#[cfg(test)]
#[path = "tests/resolve.rs"]
mod tests;
