//! From what was said to what will be done: the one place of precedence and defaults.
//!
//! A flag beats the file; in the file, an entry of `servers[]` or `locals[]` beats the outermost object. A link given with
//! `--server-url` takes the place of all servers of the file. Everything wrong is found in one go, and then nothing
//! starts.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::url::ServerUrl;
use umbra_relay::config::{
    Config, Inbound, Path, Protocol, ProxyDoor, ProxyHeader, Server, Servers, ShadowsocksDoor, Tcp,
};
use zeroize::Zeroizing;

use crate::flags::Role;
use crate::raw::{Raw, Settings, Value};
use crate::reference::{Id, LISTS};
use crate::report::Report;
use crate::secret::read_key;

/// Everything that was said, from the weakest voice to the strongest.
#[derive(Default)]
pub(crate) struct Sources {
    /// The file.
    pub(crate) file: Raw,
    /// The link.
    pub(crate) url: Option<ServerUrl>,
    /// The flags.
    pub(crate) flags: Settings,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The relay.
    pub(crate) config: Config,
    /// Descriptors to ask the system for; as many as it allows if nothing was said.
    pub(crate) nofile: Option<u64>,
}

/// Works out what `role` is to do. There is a plan only if `report` holds no error.
pub(crate) fn resolve(role: Role, mut sources: Sources, report: &mut Report) -> Option<Plan> {
    split_ports(&mut sources, report);
    warn_of_visible_secrets(&sources, report);
    let common = read_common(&sources, report);
    let inbounds = match role {
        Role::Client => client_inbounds(sources, &common, report),
        Role::Server => server_inbounds(sources, &common, report),
    };
    find_shared_doors(&inbounds, report);
    let inbounds = inbounds.into_iter().map(|door| door.inbound).collect();
    let plan = Plan { config: Config { inbounds, workers: common.workers }, nofile: common.nofile };
    report.errors.is_empty().then_some(plan)
}

/// The end that a configuration is for, judged by what it speaks of.
pub(crate) fn guess_role(sources: &Sources) -> Role {
    let Sources { file, url, flags } = sources;
    let speaks_of_client = |settings: &Settings| CLIENT_IDS.iter().any(|id| settings.get(*id).is_some());
    if url.is_some() || file.inbounds.is_some() || speaks_of_client(&file.root) || speaks_of_client(flags) {
        Role::Client
    } else {
        Role::Server
    }
}

/// An inbound, and the key that gave its address.
struct Door {
    place: String,
    inbound: Inbound,
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
}

impl Common {
    /// The idle time of an entry; that of the single form has no timeout of its own.
    fn idle_of(&self, entry: &Settings, report: &mut Report) -> Duration {
        let own = read_idle(entry, report);
        self.idle_flag.or(own).or(self.idle).unwrap_or(Duration::from_secs(IDLE_SECS_DEFAULT))
    }
}

fn read_common(sources: &Sources, report: &mut Report) -> Common {
    let (root, flags) = (&sources.file.root, &sources.flags);
    let idle = read_idle(root, report);
    let idle_flag = read_idle(flags, report);
    check_mode(root, report);
    let both = root.clone().beaten_by(flags);
    let tcp = Tcp {
        no_delay: both.switch(Id::NoDelay).unwrap_or(true),
        fast_open: both.switch(Id::FastOpen).unwrap_or(false),
    };
    Common { idle, idle_flag, tcp, workers: read_workers(&both, report), nofile: read_nofile(&both, report) }
}

fn client_inbounds(sources: Sources, common: &Common, report: &mut Report) -> Vec<Door> {
    let Sources { file, url, flags } = sources;
    let servers = match url {
        Some(url) => vec![link_settings(url, report)],
        None => entries(SERVER_IDS, LISTS[0], &file.root, file.servers, &flags, report),
    };
    let mut paths = Vec::new();
    for settings in &servers {
        check_mode(settings, report);
        if !settings.path.is_empty()
            && let Some((_, place)) = settings.number(Id::Timeout)
        {
            report.warn(
                place,
                "left aside: on a client, the timeout of locals[] or at the top of the file counts",
            );
        }
        let (address, key) = (
            client_server_address(settings, report),
            read_key(settings, Role::Client, NO_CLIENT_SECRET, report),
        );
        if let (Some(address), Some(key)) = (address, key) {
            paths.push(Server { address, key, heads: read_heads(settings), one_time_auth: false });
        }
    }
    let path = Path::Shadowsocks(Servers::new(paths));
    let locals = entries(CLIENT_IDS, LISTS[1], &file.root, file.inbounds, &flags, report);
    let doors = locals.iter().filter_map(|settings| client_door(settings, &path, common, report));
    doors.collect()
}

fn client_door(settings: &Settings, path: &Path, common: &Common, report: &mut Report) -> Option<Door> {
    check_mode(settings, report);
    if let Some((protocol, place)) = settings.text(Id::Protocol)
        && protocol != "socks"
    {
        report.error(place, format!("{protocol} is not supported yet; the only protocol so far is socks"));
    }
    let place = place_of(settings, Id::LocalAddress, "local_address");
    let ip = listen_ip(settings.text(Id::LocalAddress), Ipv4Addr::LOCALHOST, report);
    let idle = common.idle_of(settings, report);
    let listen = SocketAddr::new(ip?, read_port(settings, Id::LocalPort, LOCAL_PORT_DEFAULT));
    if !listen.ip().is_loopback() {
        let text = format!(
            "local set to listen on {}, it's not safe: there is no authentication, so anyone who reaches it may use it",
            listen.ip()
        );
        report.warn("", text);
    }
    let protocol = Protocol::Proxy(ProxyDoor { socks4: false, socks5: true, http: false });
    let proxy_header = ProxyHeader::default();
    let inbound = Inbound { listen, protocol, path: path.clone(), idle, tcp: common.tcp, proxy_header };
    Some(Door { place, inbound })
}

fn server_inbounds(sources: Sources, common: &Common, report: &mut Report) -> Vec<Door> {
    let Sources { file, flags, .. } = sources;
    if file.inbounds.is_some() {
        report.warn(LISTS[1], "left aside: it is for umbra local");
    }
    let servers = entries(SERVER_IDS, LISTS[0], &file.root, file.servers, &flags, report);
    servers.iter().filter_map(|settings| server_door(settings, common, report)).collect()
}

fn server_door(settings: &Settings, common: &Common, report: &mut Report) -> Option<Door> {
    check_mode(settings, report);
    let place = place_of(settings, Id::Server, "server");
    let ip = listen_ip(settings.text(Id::Server), Ipv4Addr::UNSPECIFIED, report);
    let key = read_key(settings, Role::Server, NO_SERVER_SECRET, report);
    let idle = common.idle_of(settings, report);
    let listen = SocketAddr::new(ip?, read_port(settings, Id::ServerPort, SERVER_PORT_DEFAULT));
    if listen.ip().is_loopback() {
        report.warn("", format!("server set to listen on {listen}, are you sure?"));
    }
    let protocol = Protocol::Shadowsocks(ShadowsocksDoor {
        key: Arc::new(key?),
        heads: read_heads(settings),
        one_time_auth: false,
    });
    let proxy_header = ProxyHeader::default();
    let inbound = Inbound { listen, protocol, path: Path::Direct, idle, tcp: common.tcp, proxy_header };
    Some(Door { place, inbound })
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

fn link_settings(url: ServerUrl, report: &mut Report) -> Settings {
    let place = "--server-url";
    if url.plugin.is_some() {
        report
            .error(place, "the link asks for a plugin, which is not supported yet; use a server without one");
    }
    let host = match &url.address {
        Address::Ip(address) => address.ip().to_string(),
        Address::Name(name, _) => name.as_str().into(),
    };
    let mut settings = Settings::new("");
    settings.insert(Id::Server, place, Value::Text(Zeroizing::new(host)));
    settings.insert(Id::ServerPort, place, Value::Number(url.address.port().into()));
    settings.insert(Id::Method, place, Value::Text(Zeroizing::new(url.method.into())));
    settings.insert(Id::Password, place, Value::Text(url.password));
    settings
}

fn client_server_address(settings: &Settings, report: &mut Report) -> Option<Address> {
    let Some((host, place)) = settings.text(Id::Server) else {
        let text =
            "missing; say where the server is, with -s ADDRESS:PORT, with --server-url, or in the file of -c";
        report.error(settings.key_path("server"), text);
        return None;
    };
    let port = read_port(settings, Id::ServerPort, SERVER_PORT_DEFAULT);
    if port == 0 {
        let place = place_of(settings, Id::ServerPort, "server_port");
        report.error(place, "0 is no port to connect to; give the one on which the server listens");
    }
    match Address::from_host(host, port) {
        Ok(address) => {
            if let Address::Ip(ip) = &address
                && ip.ip().is_unspecified()
            {
                report.warn(
                    place,
                    format!("{} is where a server listens; a client wants to know where it is", ip.ip()),
                );
            }
            Some(address)
        }
        Err(error) => {
            report.error(place, format!("{error}; give the server's name or IP address"));
            None
        }
    }
}

fn listen_ip(host: Option<(&str, &str)>, default: Ipv4Addr, report: &mut Report) -> Option<IpAddr> {
    let Some((host, place)) = host else { return Some(default.into()) };
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    match bare_host(host).parse() {
        Ok(ip) => Some(ip),
        Err(_) => {
            let text = format!(
                "{host} is no IP address to listen on; use 127.0.0.1 for this machine only, or 0.0.0.0 or :: for all"
            );
            report.error(place, text);
            None
        }
    }
}

/// Two doors cannot share an address; port 0 is a new one each time.
fn find_shared_doors(doors: &[Door], report: &mut Report) {
    let mut seen = HashSet::new();
    for door in doors {
        let listen = door.inbound.listen;
        if listen.port() != 0 && !seen.insert(listen) {
            report.error(
                &door.place,
                format!("another entry listens on {listen} already; choose another port"),
            );
        }
    }
}

fn read_heads(settings: &Settings) -> HeadReads {
    match settings.switch(Id::SegmentedHeads) {
        Some(true) => HeadReads::Many,
        Some(false) | None => HeadReads::One,
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
        report.warn("", format!("your timeout {secs} seems too short"));
    } else if secs > IDLE_SECS_LONG {
        report.warn("", format!("your timeout {secs} seems too long"));
    }
    Some(Duration::from_secs(secs))
}

fn check_mode(settings: &Settings, report: &mut Report) {
    match settings.text(Id::Mode) {
        None | Some(("tcp_only", _)) => {}
        Some(("tcp_and_udp", place)) => {
            report.warn(place, "datagrams are not carried yet, only streams; tcp_only says so");
        }
        Some(("udp_only", place)) => {
            report.error(place, "datagrams are not carried yet; use tcp_only");
        }
        Some((other, place)) => report.error(place, format!("unknown mode {other}; use tcp_only")),
    }
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

fn read_port(settings: &Settings, id: Id, default: u16) -> u16 {
    settings.number(id).and_then(|(port, _)| u16::try_from(port).ok()).unwrap_or(default)
}

fn place_of(settings: &Settings, id: Id, key: &str) -> String {
    settings.get(id).map_or_else(|| settings.key_path(key), |said| said.place.clone())
}

/// Takes ports out of addresses, voice by voice, so that each may say them its own way.
fn split_ports(sources: &mut Sources, report: &mut Report) {
    let Sources { file, flags, .. } = sources;
    let lists = file.servers.iter_mut().chain(file.inbounds.iter_mut()).flatten();
    for settings in lists.chain([&mut file.root, flags]) {
        split_port(settings, Id::Server, Id::ServerPort, report);
        split_port(settings, Id::LocalAddress, Id::LocalPort, report);
    }
}

fn split_port(settings: &mut Settings, host_id: Id, port_id: Id, report: &mut Report) {
    let Some((text, place)) = settings.text(host_id).map(|(text, place)| (text.to_owned(), place.to_owned()))
    else {
        return;
    };
    let (host, port) = match divide(&text) {
        Ok(parts) => parts,
        Err(()) => {
            report.error(
                place,
                format!("{text} has no good port after its last colon; use one from 0 to 65535"),
            );
            return;
        }
    };
    if let Some(port) = port {
        let earlier = settings.insert(port_id, &place, Value::Number(port.into()));
        if let Some(earlier) = earlier
            && !matches!(earlier.value, Value::Number(said) if said == u64::from(port))
        {
            report.error(
                &place,
                format!("says port {port}, and {} says another; keep one of them", earlier.place),
            );
        }
    }
    settings.insert(host_id, place, Value::Text(Zeroizing::new(bare_host(host).into())));
}

/// Host and port of `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`, `name`, `name:80`.
fn divide(text: &str) -> Result<(&str, Option<u16>), ()> {
    let whole_host = text.parse::<IpAddr>().is_ok() || (text.starts_with('[') && text.ends_with(']'));
    match text.rsplit_once(':') {
        Some((host, port)) if !whole_host => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            Ok((host, Some(port.parse().ok().filter(|_| digits).ok_or(())?)))
        }
        Some(_) | None => Ok((text, None)),
    }
}

fn bare_host(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

fn warn_of_visible_secrets(sources: &Sources, report: &mut Report) {
    let flag = sources.flags.text(Id::Password).map(|(_, place)| place);
    if let Some(place) = flag.or(sources.url.as_ref().map(|_| "--server-url")) {
        report.warn(
            place,
            "other users of this machine can read the command line; a file given with -c keeps the secret",
        );
    }
}

const SERVER_IDS: &[Id] = &[Id::Server, Id::ServerPort, Id::Password, Id::Method, Id::SegmentedHeads];
const CLIENT_IDS: &[Id] = &[Id::LocalAddress, Id::LocalPort, Id::Protocol];

const SERVER_PORT_DEFAULT: u16 = 8388;
const LOCAL_PORT_DEFAULT: u16 = 1080;
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

const NO_CLIENT_SECRET: &str = "missing; give the secret that the server has, with -k or in the file of -c";
const NO_SERVER_SECRET: &str =
    "missing; make one with: umbra key 2022-blake3-aes-256-gcm, and give it with -k or in the file of -c";

#[cfg(test)]
#[path = "tests/resolve.rs"]
mod tests;
