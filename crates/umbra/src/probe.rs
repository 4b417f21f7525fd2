//! Ways out dialled once, and what came of it as a table: all of them for `umbra probe`, those of a session for `umbra route`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use umbra_proto::address::{Address, DomainName};
use umbra_proto::forbidden::Forbidden;
use umbra_relay::config::{DnsProbe, Group, Hop, Names, Parent, ParentProtocol, Path, Probe, ProbeKind};
use umbra_relay::failure::{Cause, Failure};
use umbra_relay::router::Transport;
use umbra_relay::try_path;

use crate::flags::Tried;
use crate::report::Report;
use crate::resolve::Plan;
use crate::run::{plan_of, tell};

/// Dials everything there is.
pub(crate) fn run(tried: Tried) -> ExitCode {
    let mut report = Report::default();
    let plan = plan_of(tried.role, tried.options, &mut report);
    tell(&report);
    let Some(plan) = plan else { return ExitCode::FAILURE };
    let mut rows = rows_of(&plan.paths);
    rows.extend(rows_of_servers(&plan, None));
    // All inbounds of a role have the same list.
    let nothing = Arc::new(Forbidden::NOTHING);
    let forbidden = plan.config.inbounds.first().map_or(&nothing, |inbound| &inbound.forbidden);
    let purpose = match tried.target {
        Some(target) => Purpose::Stream { target, addresses: None },
        None => Purpose::LastHop,
    };
    dial_all(&mut rows, &purpose, forbidden);
    let _unheard = write!(io::stdout(), "{}", table(&rows));
    if rows.iter().any(Row::has_failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What every path is dialled for.
pub(crate) enum Purpose {
    /// To see whether its proxies are there.
    LastHop,
    /// A stream to a target.
    Stream {
        /// Where it leads.
        target: Address,
        /// The addresses of its name, where rules have looked at them: these are meant, and no others.
        addresses: Option<Vec<SocketAddr>>,
    },
    /// Datagrams to a target.
    Datagrams(Address),
}

/// A path, and what came of it.
pub(crate) struct Row {
    name: String,
    hops: String,
    /// Nothing, where it cannot be dialled.
    path: Option<Arc<Path>>,
    tried: String,
    result: String,
    time: Option<Duration>,
    has_failed: bool,
}

impl Row {
    fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether a session that takes it has the name of its target resolved here.
    pub(crate) fn resolves_here(&self) -> bool {
        self.path.as_ref().is_some_and(|path| path.resolves_names())
    }

    fn dial(&mut self, purpose: &Purpose, forbidden: &Arc<Forbidden>) {
        let Some(path) = &self.path else { return };
        let Attempt { path, kind, words, good } = match attempt(path, purpose) {
            Ok(attempt) => attempt,
            Err(why) => {
                self.result = why.into();
                return;
            }
        };
        self.tried = words;
        let addresses = match purpose {
            Purpose::Stream { addresses, .. } => addresses.as_deref(),
            Purpose::LastHop | Purpose::Datagrams(_) => None,
        };
        match try_path(&path, &Probe { kind, patience: PATIENCE }, forbidden, addresses) {
            Ok(time) => {
                self.result = good.into();
                self.time = Some(time);
            }
            Err(failure) => {
                self.result = diagnose(&path, &failure, forbidden).unwrap_or_else(|| explain(&failure));
                self.has_failed = true;
            }
        }
    }
}

/// Why a question along `path` was not answered, where that is one of its proxies: each is asked for the next.
fn diagnose(path: &Arc<Path>, failure: &Failure, forbidden: &Arc<Forbidden>) -> Option<String> {
    let Cause::Unanswered = failure.cause else { return None };
    let Attempt { path, kind, .. } = attempt(path, &Purpose::LastHop).ok()?;
    let tried = try_path(&path, &Probe { kind, patience: PATIENCE }, forbidden, None);
    tried.err().map(|failure| explain(&failure))
}

/// A row for each of `paths`.
pub(crate) fn rows_of(paths: &[Arc<Path>]) -> Vec<Row> {
    paths
        .iter()
        .map(|path| row(path.name.to_string(), hops_in_words(&path.hops), Some(Arc::clone(path))))
        .collect()
}

/// A row for each of a client's servers, or for each that carries `transport`. Those behind plugins have no way of their own while their
/// plugins do not run.
pub(crate) fn rows_of_servers(plan: &Plan, transport: Option<Transport>) -> Vec<Row> {
    let mut rows = rows_of(&paths_of(&plan.servers, transport));
    let further = plan.online.iter().flat_map(|online| &online.listed);
    for listed in plan.listed.iter().chain(further) {
        let mode = &listed.server.mode;
        let is_meant = match transport {
            Some(Transport::Tcp) => mode.has_streams(),
            Some(Transport::Udp) => mode.datagrams().is_some(),
            None => true,
        };
        if let Some(plugin) = listed.plugin.as_ref().filter(|_| is_meant) {
            let hops = format!("{} → ss://{}", plugin.name(), listed.server.address);
            let mut row = row("servers".into(), hops, None);
            row.result = "not tried: its plugin does not run".into();
            rows.push(row);
        }
    }
    rows
}

/// The paths of `group`, or those that carry `transport`: a session finds no others there.
pub(crate) fn paths_of(group: &Group, transport: Option<Transport>) -> Vec<Arc<Path>> {
    match transport {
        Some(Transport::Tcp) => group.paths(),
        Some(Transport::Udp) => group.paths_of_datagrams(),
        None => {
            let mut paths = group.paths();
            paths.extend(group.paths_of_datagrams().into_iter().filter(|path| !path.has_streams()));
            paths
        }
    }
}

fn row(name: String, hops: String, path: Option<Arc<Path>>) -> Row {
    Row { name, hops, path, tried: String::new(), result: String::new(), time: None, has_failed: false }
}

/// Dials all of them, some at a time, for somebody who is led to nothing `forbidden`.
pub(crate) fn dial_all(rows: &mut [Row], purpose: &Purpose, forbidden: &Arc<Forbidden>) {
    for some in rows.chunks_mut(DIALS_AT_ONCE) {
        thread::scope(|scope| {
            for row in some {
                scope.spawn(move || row.dial(purpose, forbidden));
            }
        });
    }
}

/// What is dialled.
struct Attempt {
    /// Along which part of the path.
    path: Arc<Path>,
    /// What has to go well.
    kind: ProbeKind,
    /// The same in words.
    words: String,
    /// What is known when it has gone well.
    good: &'static str,
}

/// What is dialled along which part of `path`, or why nothing is. Without a target that answers, every proxy but the last is asked for
/// the next.
fn attempt(path: &Arc<Path>, purpose: &Purpose) -> Result<Attempt, &'static str> {
    let otherwise = match purpose {
        Purpose::Stream { .. } if !path.has_streams() => return Err(NO_STREAMS),
        Purpose::Stream { target, .. } => {
            let kind = ProbeKind::Handshake(target.clone());
            let (path, silent) = (Arc::clone(path), dialled(&path.hops));
            return Ok(match silent {
                Some(words) => Attempt { path, kind, words, good: SILENT_OF_TARGET },
                None => Attempt { path, kind, words: target.to_string(), good: GOOD },
            });
        }
        Purpose::Datagrams(_) if !path.has_datagrams() => return Err(NO_DATAGRAMS),
        Purpose::Datagrams(server) if server.port() == DNS_PORT => {
            let words = format!("ask {server} for {DNS_NAME}");
            let name = DomainName::new(DNS_NAME).map_err(|_| NO_NAME_SERVER)?;
            let kind = ProbeKind::Dns(DnsProbe { server: server.clone(), name });
            return Ok(Attempt { path: Arc::clone(path), kind, words, good: GOOD });
        }
        Purpose::Datagrams(_) => NO_NAME_SERVER,
        Purpose::LastHop if !path.has_streams() => return Err(NO_STREAMS_AND_NO_TARGET),
        Purpose::LastHop => "nothing to dial without a target",
    };
    // A server for datagrams alone need not listen for a connection.
    let (last, before) = path.hops.split_last().filter(|_| path.has_streams()).ok_or(otherwise)?;
    let last = last.address();
    if before.is_empty() {
        let words = format!("connect {last}");
        return Ok(Attempt { path: Arc::clone(path), kind: ProbeKind::Connect, words, good: GOOD });
    }
    let mut shorter = Path::new(Arc::clone(&path.name), before);
    shorter.deadlines = path.deadlines;
    let (path, kind) = (Arc::new(shorter), ProbeKind::Handshake(last.clone()));
    Ok(match dialled(before) {
        Some(words) => Attempt { path, kind, words, good: SILENT_OF_NEXT },
        None => Attempt { path, kind, words: format!("reach {last}"), good: GOOD },
    })
}

/// What is done where `hops` end in Shadowsocks servers, in words: the first of these is connected to. None of them says anything until
/// there is an answer from behind the last.
fn dialled(hops: &[Hop]) -> Option<String> {
    let before = hops.iter().rposition(|hop| matches!(hop, Hop::Parent(_)));
    let first = hops.get(before.map_or(0, |parent| parent + 1))?.address();
    Some(if before.is_some() { format!("reach {first}") } else { format!("connect {first}") })
}

fn explain(failure: &Failure) -> String {
    // A direct way has no hop, and who has not answered is not known.
    let is_known = failure.at.as_ref().filter(|at| at.hop > 0 && !matches!(failure.cause, Cause::Unanswered));
    let at = is_known.map_or_else(String::new, |at| format!(" at hop {}", at.hop));
    format!("{} failed{at}: {}", failure.stage, failure.cause)
}

/// The proxies on the way, without who we are to them.
fn hops_in_words(hops: &[Hop]) -> String {
    if hops.is_empty() {
        return "none".into();
    }
    hops.iter().map(hop_in_words).collect::<Vec<_>>().join(" → ")
}

fn hop_in_words(hop: &Hop) -> String {
    let (scheme, address) = match hop {
        Hop::Shadowsocks(server) => ("ss", &server.address),
        Hop::Parent(Parent { address, protocol, names, tls }) => {
            let scheme = match (protocol, names, tls) {
                (ParentProtocol::Socks4(_), Names::ResolveHere, None) => "socks4",
                (ParentProtocol::Socks4(_), Names::ResolveHere, Some(_)) => "socks4+tls",
                (ParentProtocol::Socks4(_), Names::PassOn, None) => "socks4a",
                (ParentProtocol::Socks4(_), Names::PassOn, Some(_)) => "socks4a+tls",
                (ParentProtocol::Socks5(_), Names::ResolveHere, None) => "socks5",
                (ParentProtocol::Socks5(_), Names::ResolveHere, Some(_)) => "socks5+tls",
                (ParentProtocol::Socks5(_), Names::PassOn, None) => "socks5h",
                (ParentProtocol::Socks5(_), Names::PassOn, Some(_)) => "socks5h+tls",
                (ParentProtocol::Http(_), _, None) => "http",
                (ParentProtocol::Http(_), _, Some(_)) => "https",
            };
            (scheme, address)
        }
    };
    format!("{scheme}://{address}")
}

/// The rows under their heads, every column as wide as its widest, without columns that are empty.
pub(crate) fn table(rows: &[Row]) -> String {
    let heads = ["PATH", "HOPS", "TRIED", "RESULT", "TIME"].map(String::from);
    let cells = rows.iter().map(|row| {
        let time = row.time.map_or_else(String::new, |time| format!("{} ms", time.as_millis()));
        [row.name.clone(), row.hops.clone(), row.tried.clone(), row.result.clone(), time]
    });
    let lines: Vec<_> = [heads].into_iter().chain(cells).collect();
    let width = |column: usize| {
        let is_empty = lines.iter().skip(1).all(|line| line[column].is_empty());
        let widest = lines.iter().map(|line| line[column].chars().count()).max();
        widest.filter(|_| !is_empty).unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let mut padded = String::new();
        for (cell, width) in line.iter().zip(widths).filter(|(_, width)| *width > 0) {
            let _infallible = write!(padded, "{cell:width$}  ");
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

const GOOD: &str = "ok";
const SILENT_OF_TARGET: &str = "ok: connected; a Shadowsocks server says nothing of the target";
const SILENT_OF_NEXT: &str = "ok: connected; a Shadowsocks server says nothing of the next proxy";

const NO_STREAMS: &str = "not tried: it carries datagrams alone";
const NO_DATAGRAMS: &str = "not tried: it carries no datagrams";
const NO_NAME_SERVER: &str = "not tried: only a name server, at port 53, answers whoever asks";
const NO_STREAMS_AND_NO_TARGET: &str =
    "not tried: it carries datagrams alone; umbra route --udp NAMESERVER:53 asks along it";

/// As long as a session would look for its way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Each is a thread.
const DIALS_AT_ONCE: usize = 16;

const DNS_PORT: u16 = 53;

/// A name that every name server has an answer for.
pub(crate) const DNS_NAME: &str = "example.com";

#[cfg(test)]
mod tests {
    use super::*;

    use umbra_proto::shadowsocks::Method;
    use umbra_proto::shadowsocks::identity::Credentials;
    use umbra_proto::shadowsocks::stream::HeadReads;
    use umbra_relay::config::{Mode, Server};
    use umbra_relay::failure::{Side, Stage};

    /// A path through a server at a port where nobody takes connections.
    fn through(mode: fn(Address) -> Mode<Address>) -> Arc<Path> {
        let address = Address::Ip(std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let server = Server {
            mode: mode(address.clone()),
            address,
            credentials: Credentials::from_password(Method::Aes256Gcm, "long enough").unwrap(),
            heads: HeadReads::One,
            one_time_auth: false,
        };
        Arc::new(Path::new("server", [Hop::Shadowsocks(server)]))
    }

    #[test]
    fn a_server_for_datagrams_alone_is_not_to_blame_for_taking_no_connection() {
        let (stage, side) = (Stage::Relay, Side::Outbound);
        let failure = Failure { stage, side, cause: Cause::Unanswered, at: None, path: None };
        let diagnose = |mode| diagnose(&through(mode), &failure, &Arc::default());
        assert_eq!(diagnose(Mode::Datagrams), None);
        assert!(diagnose(Mode::Both).unwrap().contains("connect failed at hop 1"));
    }

    #[test]
    fn nothing_is_dialled_along_a_path_that_does_not_carry_it() {
        let why = |mode, purpose: &Purpose| attempt(&through(mode), purpose).err();
        let stream = Purpose::Stream { target: "192.0.2.1:80".parse().unwrap(), addresses: None };
        let datagrams = |port| Purpose::Datagrams(Address::from_host("192.0.2.1", port).unwrap());
        assert_eq!(why(Mode::Datagrams, &stream), Some(NO_STREAMS));
        assert_eq!(why(Mode::Datagrams, &Purpose::LastHop), Some(NO_STREAMS_AND_NO_TARGET));
        assert_eq!(why(Mode::Datagrams, &datagrams(53)), None);
        assert_eq!(why(Mode::Datagrams, &datagrams(9)), Some(NO_NAME_SERVER));
        let streams = |_| Mode::Streams;
        assert_eq!((why(streams, &stream), why(streams, &Purpose::LastHop)), (None, None));
        for port in [9, 53] {
            assert_eq!(why(streams, &datagrams(port)), Some(NO_DATAGRAMS));
        }
    }
}
