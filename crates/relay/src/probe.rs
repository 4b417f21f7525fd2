//! Active probes of a group's members, by a task that lives only while the group is in use.

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;
use umbra_proto::address::{Address, DomainName};
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::Command;

use crate::config::{Hop, Inbound, Mode, Protocol, ProxyHeader, Route, Tcp, Udp};
use crate::dial::{dial, judge as judge_address};
use crate::door::Door;
use crate::failure::{At, Cause, Failure, Stage};
use crate::group::{Errand as Duty, Outcome, Shared};
use crate::http::Io;
use crate::limits::DNS_SECS_MAX;
use crate::net::Net;
use crate::net::os::OsNet;
use crate::path::{Errand, chance, in_time, inside, travel};
use crate::route::{Claim, Group, Path};
use crate::udp::budget::Budget;
use crate::udp::front::Workers;
use crate::worker::DatagramDoors;

/// How a member is probed.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What has to go well.
    pub kind: ProbeKind,
    /// How long it may take.
    pub patience: Duration,
}

/// What has to go well.
#[derive(Clone, Debug)]
pub enum ProbeKind {
    /// A connection to the first hop.
    Connect,
    /// A connection to this target, as a session would have it: every parent on the way has to agree.
    Handshake(Address),
    /// An answer to a request through the path.
    Http(HttpProbe),
    /// An answer to a question in a datagram through the path.
    Dns(DnsProbe),
}

/// A question to a name server through a path. Any answer is good: it is the path that is asked about, not the name.
#[derive(Clone, Debug)]
pub struct DnsProbe {
    /// Who is asked.
    pub server: Address,
    /// The name that is asked for.
    pub name: DomainName,
}

impl ProbeKind {
    /// The paths of `group` that it is for: a path may carry streams and lose datagrams.
    fn side<'g>(&self, group: &'g Group) -> &'g Shared<Path> {
        match self {
            Self::Connect | Self::Handshake(_) | Self::Http(_) => &group.streams,
            Self::Dns(_) => &group.datagrams,
        }
    }

    /// Whether one takes as long as a session takes to reach a target along `path`: other times would not compare with those of sessions.
    fn measures(&self, path: &Path) -> bool {
        match self {
            Self::Connect => matches!(*path.hops, [Hop::Shadowsocks(_)]),
            Self::Handshake(_) => true,
            Self::Http(_) => false,
            // Nothing else measures paths for datagrams.
            Self::Dns(_) => true,
        }
    }
}

/// A request through a path, and what has to come of it.
#[derive(Clone, Debug)]
pub struct HttpProbe {
    /// Who is asked.
    pub target: Address,
    /// The host as the request names it.
    pub host: Box<str>,
    /// What is asked for: a path, and a query.
    pub path: Box<str>,
    /// The statuses that are good: those in any of these.
    pub expect: Box<[RangeInclusive<u16>]>,
}

/// Has the members of `group` probed, if nobody does, until it is in use no more.
pub(crate) fn wake<N: Net>(door: &Arc<Door<N>>, group: &Arc<Group>) {
    let Some(claim) = group.probe.as_ref().and_then(|_| group.claim_probes()) else { return };
    drop(tokio::spawn(keep_probing(Arc::clone(door), claim)));
}

async fn keep_probing<N: Net>(door: Arc<Door<N>>, claim: Claim) {
    let group = &claim.0;
    let Some(probe) = &group.probe else { return };
    loop {
        match probe.kind.side(group).next_probe(Instant::now(), chance(&door.net)) {
            Duty::Probe(ticket, path) => {
                let (door, group, probe) = (Arc::clone(&door), Arc::clone(group), probe.clone());
                // One that is silent keeps nobody waiting.
                drop(tokio::spawn(async move {
                    let (outcome, failure) = match run(&door, &path, &probe, Bounds::NONE).await {
                        Ok(latency) => {
                            let latency = probe.kind.measures(&path).then_some(latency);
                            (Outcome::Reached { latency }, None)
                        }
                        Err(failure) => (judge(&failure, path.hops.len()), Some(failure)),
                    };
                    if let Some(failure) = &failure {
                        debug!(path = %path.name, %failure, "probe failed");
                    }
                    let change = probe.kind.side(&group).probed(ticket, outcome, Instant::now());
                    let why = failure.as_ref().map(|failure| failure as &dyn Display);
                    door.notices.change(&group, &path, change, why);
                }));
            }
            Duty::At(next) => sleep_until(next).await,
            Duty::Unused => return,
        }
    }
}

/// What a failed probe says: all of it is the path's fault, unless it is our own machine's.
fn judge(failure: &Failure, hops: usize) -> Outcome {
    match failure.outcome(hops) {
        Outcome::Abandoned => Outcome::Abandoned,
        Outcome::Failed | Outcome::Declined | Outcome::Doubtful | Outcome::Silent => Outcome::Failed,
        Outcome::Reached { .. } => Outcome::Failed,
    }
}

/// What holds for whoever is led along a path.
#[derive(Clone, Copy, Debug)]
struct Bounds<'b> {
    /// Where nobody is led.
    forbidden: &'b Forbidden,
    /// The addresses of the target's name, where rules have looked at them: these are meant, and no others.
    addresses: Option<&'b [SocketAddr]>,
}

impl Bounds<'_> {
    /// As for the operator.
    const NONE: Self = Self { forbidden: &Forbidden::NOTHING, addresses: None };
}

/// Probes `path` once, as for somebody for whom `bounds` hold. Gives how long it took.
async fn run<N: Net>(
    door: &Arc<Door<N>>,
    path: &Arc<Path>,
    probe: &Probe,
    bounds: Bounds<'_>,
) -> Result<Duration, Failure> {
    let began = Instant::now();
    let until = began + probe.patience;
    // Each step is held to the time itself, and knows what it has waited for; this is for what is none of them.
    match timeout_at(until + STEP_GRACE, attempt(door, path, &probe.kind, bounds, until)).await {
        Ok(outcome) => outcome.map(|()| began.elapsed()),
        Err(_) => Err(Failure::outbound(Stage::Connect, Cause::Deadline)),
    }
}

/// Enough for a step to say that its time is over.
const STEP_GRACE: Duration = Duration::from_secs(1);

async fn attempt<N: Net>(
    door: &Arc<Door<N>>,
    path: &Arc<Path>,
    kind: &ProbeKind,
    Bounds { forbidden, addresses }: Bounds<'_>,
    until: Instant,
) -> Result<(), Failure> {
    // Fast open would call a connection good before anything has been sent.
    let tcp = Tcp { fast_open: false, ..door.inbound.tcp };
    let errand =
        |target| Errand { addresses, until: Some(until), ..Errand::new(Command::Connect, target, forbidden) };
    match kind {
        ProbeKind::Connect => match path.hops.first() {
            Some(first) => {
                let at = At { path: Arc::clone(&path.name), hop: 1 };
                let dialling = pin!(dial(&door.net, first.address(), tcp, path.deadlines.connect));
                let dialled = in_time(Some(until), Stage::Connect, dialling).await;
                dialled.map(drop).map_err(|failure| failure.at(at))
            }
            None => Ok(()),
        },
        ProbeKind::Handshake(target) => Box::pin(travel(door, path, &errand(target), tcp)).await.map(drop),
        ProbeKind::Http(http) => {
            let reached = Box::pin(travel(door, path, &errand(&http.target), tcp)).await?;
            let at = At { path: Arc::clone(&path.name), hop: path.hops.len() };
            let stream = Io::new(inside(door, reached, at.clone()), None);
            let answered = timeout_at(until, Box::pin(ask(stream, http))).await;
            let answered = answered.unwrap_or(Err(Cause::Deadline));
            answered.map_err(|cause| Failure::outbound(Stage::Relay, cause).at(at))
        }
        ProbeKind::Dns(dns) => {
            let rule = match &dns.server {
                Address::Ip(address) => judge_address(*address, forbidden).err(),
                Address::Name(name, _) => forbidden.check_name(name.as_str()),
            };
            if let Some(rule) = rule {
                return Err(Failure::outbound(Stage::Connect, Cause::Forbidden(rule)));
            }
            let [low, high, ..] = chance(&door.net).to_le_bytes();
            let question = question([low, high], &dns.name);
            let at = At { path: Arc::clone(&path.name), hop: path.hops.len() };
            let patience = DNS_SECS_MAX.min(until.saturating_duration_since(Instant::now()));
            let answer = door.ask_along(Arc::clone(path), &dns.server, &question, patience).await;
            match answer {
                Some(answer) if is_answer(&question, &answer) => Ok(()),
                Some(_) | None => Err(Failure::outbound(Stage::Relay, Cause::Unanswered).at(at)),
            }
        }
    }
}

/// Asks what `probe` says, and judges the answer's status.
async fn ask<I>(stream: I, probe: &HttpProbe) -> Result<(), Cause>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(stream).await.map_err(Cause::Http)?;
    let request = Request::get(&*probe.path)
        .header(HOST, &*probe.host)
        .header(CONNECTION, "close")
        .body(String::new())
        .map_err(|_| Cause::Probe(0))?;
    let mut answering = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = answering.as_mut() => answer,
        // Whoever answers may end the connection in the same breath.
        _ = connection => answering.await,
    };
    let status = answer.map_err(Cause::Http)?.status().as_u16();
    if probe.expect.iter().any(|range| range.contains(&status)) { Ok(()) } else { Err(Cause::Probe(status)) }
}

/// A question for the address of `name` (RFC 1035, section 4.1).
fn question(id: [u8; 2], name: &DomainName) -> Vec<u8> {
    let mut question = id.to_vec();
    // A query that wants recursion, with one question.
    question.extend_from_slice(&[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.as_str().split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(DNS_LABEL_BYTES_MAX)];
        question.extend(u8::try_from(label.len()));
        question.extend_from_slice(label);
    }
    // The root; A; IN.
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    question
}

/// Whether `answer` is one to `question`: its id, and the bit that says that it is an answer.
fn is_answer(question: &[u8], answer: &[u8]) -> bool {
    answer.len() >= DNS_HEAD_BYTES && answer[..2] == question[..2] && answer[2] & 0x80 != 0
}

const DNS_HEAD_BYTES: usize = 12;
const DNS_LABEL_BYTES_MAX: usize = 63;

/// Probes `path` once over the system's network, as a group would, and waits for what comes of it: how long it took, or why it failed.
/// It leads to nothing that is `forbidden`; and where rules have looked at the `addresses` of the name that a stream is to lead to, to
/// these and no others.
///
/// # Errors
/// If the probe fails, or the system has nothing left to probe with.
pub fn try_path(
    path: &Arc<Path>,
    probe: &Probe,
    forbidden: &Arc<Forbidden>,
    addresses: Option<&[SocketAddr]>,
) -> Result<Duration, Failure> {
    let bounds = Bounds { forbidden, addresses };
    let starting = |error| Failure::outbound(Stage::Connect, Cause::Io(error));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(starting)?;
    let nowhere = Address::Ip((Ipv4Addr::UNSPECIFIED, 0).into());
    let inbound = Inbound {
        name: "probe".into(),
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        protocol: Protocol::Tunnel { target: nowhere },
        mode: Mode::Both(Udp::default()),
        routes: Route::Path(Arc::clone(path)).into(),
        forbidden: Arc::clone(forbidden),
        idle: probe.patience,
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    };
    let tried = runtime.block_on(Box::pin(async {
        match probe.kind {
            ProbeKind::Connect | ProbeKind::Handshake(_) | ProbeKind::Http(_) => {
                run(&Arc::new(Door::new(inbound, OsNet, 1)), path, probe, bounds).await
            }
            ProbeKind::Dns(_) => {
                let sockets = path.hops.len() + SOCKETS_BESIDE_HOPS;
                let (door, relaying) = relay_datagrams(inbound, sockets).map_err(starting)?;
                tokio::select! {
                    // The engine has to be there before it is asked.
                    biased;
                    never = relaying => match never {},
                    tried = run(&door, path, probe, bounds) => tried,
                }
            }
        }
    }));
    // A lookup under way is the system's, and is not waited for.
    runtime.shutdown_background();
    tried
}

/// A door whose datagrams are relayed through so many `sockets`, beside its own, while the future is polled. Nobody is told of the socket where they would come in.
fn relay_datagrams(
    inbound: Inbound,
    sockets: usize,
) -> io::Result<(Arc<Door<OsNet>>, impl Future<Output = Infallible>)> {
    let socket = UdpSocket::bind(inbound.listen)?;
    socket.set_nonblocking(true)?;
    let door = Arc::new(Door::new(inbound, OsNet, 1).with_datagrams(socket.local_addr()?, Workers::One));
    let doors = DatagramDoors::watch(vec![(Arc::clone(&door), socket)], Budget::new(sockets))?;
    Ok((door, doors.relay()))
}

/// For a question of our own: the way out, and one to spare. Each hop may want a connection besides.
const SOCKETS_BESIDE_HOPS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    use umbra_proto::shadowsocks::Method;
    use umbra_proto::shadowsocks::identity::Credentials;
    use umbra_proto::shadowsocks::stream::HeadReads;

    use crate::config::{Parent, ProxyDoor, Server};
    use crate::refusing::Refusing;

    #[test]
    fn a_direct_way_is_tried_with_a_question_in_a_datagram() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let kind = ProbeKind::Dns(DnsProbe {
            server: Address::Ip(address),
            name: DomainName::new("a.example").unwrap(),
        });
        let answering = std::thread::spawn(move || {
            server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut bytes = [0; 512];
            let (len, from) = server.recv_from(&mut bytes).unwrap();
            bytes[2] |= 0x80;
            server.send_to(&bytes[..len], from).unwrap();
        });
        let (path, patience) = (Arc::new(Path::direct()), Duration::from_secs(10));
        let probe = Probe { kind, patience };
        assert!(try_path(&path, &probe, &Arc::new(Forbidden::NOTHING), None).is_ok());
        answering.join().unwrap();

        let server = UdpSocket::bind(address).unwrap();
        let failure = try_path(&path, &probe, &Arc::new(Forbidden::standard()), None).unwrap_err();
        assert!(matches!(failure.cause, Cause::Forbidden(_)), "{failure}");
        // What is forbidden no hop is asked for either.
        let hop = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let parent = Parent::socks5(hop.local_addr().unwrap().into(), None);
        let through = Arc::new(Path::new("through", [Hop::Parent(parent)]));
        let failure = try_path(&through, &probe, &Arc::new(Forbidden::standard()), None).unwrap_err();
        assert!(matches!(failure.cause, Cause::Forbidden(_)), "{failure}");
        server.set_nonblocking(true).unwrap();
        hop.set_nonblocking(true).unwrap();
        let asked = [server.recv_from(&mut [0; 512]).map(drop), hop.accept().map(drop)];
        for nothing in asked {
            assert_eq!(nothing.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    /// A door on a network on which every name has these addresses, and nobody answers.
    fn refusing(addresses: &[&str]) -> Arc<Door<Refusing>> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let inbound = Inbound {
            name: "door".into(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            protocol: Protocol::Proxy(ProxyDoor::MIXED),
            mode: Mode::Streams,
            routes: Route::direct().into(),
            forbidden: Arc::default(),
            idle: Duration::from_secs(1),
            tcp: Tcp { no_delay: true, fast_open: false },
            proxy_header: ProxyHeader::default(),
        };
        Arc::new(Door::new(inbound, Refusing::knowing(addresses), 1))
    }

    #[tokio::test]
    async fn a_stream_is_led_to_no_address_but_those_that_rules_have_let_pass() {
        let target = "name.example:1".parse().unwrap();
        let probe = Probe { kind: ProbeKind::Handshake(target), patience: Duration::from_secs(10) };
        let path = Arc::new(Path::direct());
        let dialled = async |addresses: Option<&[SocketAddr]>| {
            let door = refusing(&["192.0.2.1:1", "192.0.2.2:1"]);
            let bounds = Bounds { addresses, ..Bounds::NONE };
            assert!(run(&door, &path, &probe, bounds).await.is_err());
            door.net.dialled().into_iter().map(|(to, _)| to.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(dialled(None).await, ["192.0.2.1:1", "192.0.2.2:1"]);
        assert_eq!(dialled(Some(&["192.0.2.2:1".parse().unwrap()])).await, ["192.0.2.2:1"]);
        assert_eq!(dialled(Some(&[])).await, [""; 0], "nobody looks for others");
    }

    #[tokio::test]
    async fn a_probe_waits_for_its_connection_to_stand_though_sessions_need_not() {
        let server = Hop::Shadowsocks(Server {
            address: "192.0.2.1:1".parse().unwrap(),
            mode: Mode::Streams,
            credentials: Credentials::from_password(Method::Aes256Gcm, "long enough").unwrap(),
            heads: HeadReads::One,
            one_time_auth: false,
        });
        let path = Arc::new(Path::new("through", [server]));
        for kind in [ProbeKind::Connect, ProbeKind::Handshake("192.0.2.2:2".parse().unwrap())] {
            assert!(kind.measures(&path), "a session does no more");
            let mut door = refusing(&[]);
            Arc::get_mut(&mut door).unwrap().inbound.tcp.fast_open = true;
            let probe = Probe { kind, patience: Duration::from_secs(10) };
            assert!(run(&door, &path, &probe, Bounds::NONE).await.is_err());
            let [(_, tcp)] = door.net.dialled()[..] else { panic!("it is dialled once") };
            assert!(!tcp.fast_open, "{:?}", probe.kind);
        }
    }

    #[test]
    fn a_probe_that_runs_out_of_time_says_what_it_has_waited_for() {
        // The system accepts, and nobody says a word.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let hop = Hop::Parent(Parent::socks5(address.into(), None));
        let through = Arc::new(Path::new("through", [hop]));
        let http = HttpProbe {
            target: Address::Ip(address),
            host: "silent.example".into(),
            path: "/".into(),
            expect: [200..=299].into(),
        };
        let target = "192.0.2.1:1".parse().unwrap();
        for (path, kind, stage, hop) in [
            (through, ProbeKind::Handshake(target), Stage::Negotiate, 1),
            (Arc::new(Path::direct()), ProbeKind::Http(http), Stage::Relay, 0),
        ] {
            let probe = Probe { kind, patience: Duration::from_millis(200) };
            let failure = try_path(&path, &probe, &Arc::new(Forbidden::NOTHING), None).unwrap_err();
            assert!(matches!(failure.cause, Cause::Deadline), "{failure}");
            assert_eq!((failure.stage, failure.at.map(|at| at.hop)), (stage, Some(hop)));
        }
    }

    #[test]
    fn a_question_is_what_name_servers_read_and_only_its_own_answer_counts() {
        let name = DomainName::new("a.example").unwrap();
        let asked = question([7, 9], &name);
        let expected = b"\x07\x09\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x01\0\x01";
        assert_eq!(asked, expected);
        let mut answer = asked.clone();
        assert!(!is_answer(&asked, &answer), "it is the question");
        answer[2] |= 0x80;
        assert!(is_answer(&asked, &answer));
        assert!(!is_answer(&asked, &answer[..11]));
        answer[1] += 1;
        assert!(!is_answer(&asked, &answer), "it answers somebody else");
    }
}
