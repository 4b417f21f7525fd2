//! What is tried through every pair of ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::datagrams;
use super::pairs::{Dress, Ends};
use super::{Outcome, payload};
use crate::peers::{Family, Peer};
use crate::socks::{self, PATIENCE};

/// One thing to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// curl downloads a page by address and by name.
    Curl,
    /// Megabytes both ways at once.
    Megabytes,
    /// Many short sessions, some at a time.
    Sessions,
    /// The client ends its way first and is answered after that.
    HalfClose,
    /// The target speaks first.
    Banner,
    /// The target sends and closes at once; a slow reader gets it all.
    EarlyClose,
    /// A stranger gets nothing and disturbs nobody.
    WrongPassword,
    /// Datagrams of many lengths, there and back.
    Datagrams,
    /// One association, several targets, of both families and by name.
    Targets,
    /// Somebody who was never sent anything answers.
    ThirdParty,
}

/// Where sessions of our own go in and come out, and how much goes through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    /// The SOCKS5 door.
    pub(super) proxy: SocketAddr,
    /// Where targets are put.
    pub(super) target: IpAddr,
    /// How much a large session carries.
    pub(super) bytes: usize,
    /// How many short sessions there are.
    pub(super) sessions: usize,
}

/// How soon a target is heard that speaks first.
pub(super) const AT_ONCE: Duration = Duration::from_millis(250);

/// When whoever waits for a client's first payload has given up waiting.
const LATER: Duration = Duration::from_secs(2);

impl Check {
    /// Every check, in the order of the table.
    pub(crate) const ALL: [Self; 10] = [
        Self::Curl,
        Self::Megabytes,
        Self::Sessions,
        Self::HalfClose,
        Self::Banner,
        Self::EarlyClose,
        Self::WrongPassword,
        Self::Datagrams,
        Self::Targets,
        Self::ThirdParty,
    ];

    /// The column's head.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Megabytes => "megabytes",
            Self::Sessions => "sessions",
            Self::HalfClose => "half-close",
            Self::Banner => "banner",
            Self::EarlyClose => "early close",
            Self::WrongPassword => "wrong password",
            Self::Datagrams => "datagrams",
            Self::Targets => "their targets",
            Self::ThirdParty => "third parties",
        }
    }

    /// Tries it.
    pub(crate) fn run(self, ends: &Ends<'_>) -> Outcome {
        if let Some(why) = self.not_for(ends) {
            return Outcome::Skipped(why);
        }
        let held = match self {
            Self::Curl => curl(ends),
            Self::Megabytes => megabytes(&ends.course()),
            Self::Sessions => sessions(&ends.course()),
            Self::HalfClose => half_close(&ends.course()),
            // Other clients hold the request back for half a second, hoping for a first payload to send along.
            Self::Banner if ends.leg.client == Peer::Umbra => banner(&ends.course(), AT_ONCE),
            // A request of 2022 without payload has to have padding. Once in 901 times this one draws none, and servers, its own among
            // them, have to refuse that.
            Self::Banner if ends.leg.client == Peer::ShadowsocksRust => {
                banner(&ends.course(), LATER).or_else(|_| banner(&ends.course(), LATER))
            }
            Self::Banner => banner(&ends.course(), LATER),
            Self::EarlyClose => early_close(&ends.course()),
            Self::WrongPassword => wrong_password(ends),
            Self::Datagrams => datagrams::lengths(ends),
            Self::Targets => datagrams::targets(ends),
            Self::ThirdParty => datagrams::third_party(ends),
        };
        held.into()
    }

    /// Why a check makes no sense between these ends.
    fn not_for(self, ends: &Ends<'_>) -> Option<String> {
        let peers = [ends.leg.client, ends.leg.server];
        match self {
            Self::Curl if crate::peers::in_path("curl").is_none() => {
                Some("curl is missing: apt-get install curl".to_owned())
            }
            Self::HalfClose if matches!(ends.leg.dress, Dress::Obfs(_)) => {
                Some("simple-obfs ends both ways when one has ended".to_owned())
            }
            Self::HalfClose => {
                let blunt = peers.into_iter().find(|peer| !peer.half_closes())?;
                Some(format!("{blunt} ends both ways when one has ended"))
            }
            Self::EarlyClose if peers.contains(&Peer::Python) => {
                Some("python forgets what it has not sent yet when one way has ended".to_owned())
            }
            Self::WrongPassword => match ends.leg.method.family {
                Family::Edition2022 | Family::Aead => None,
                Family::Stream => {
                    Some("stream ciphers cannot tell another password from another target".to_owned())
                }
                Family::Plain => Some("without a cipher there is no password".to_owned()),
            },
            Self::Datagrams | Self::Targets | Self::ThirdParty if !ends.leg.carries_datagrams() => {
                Some("simple-obfs carries no datagrams".to_owned())
            }
            Self::ThirdParty if peers.contains(&Peer::V2ray) => {
                Some("v2ray lets nobody answer who was not asked".to_owned())
            }
            Self::Curl | Self::Megabytes | Self::Sessions | Self::Banner | Self::EarlyClose => None,
            Self::Datagrams | Self::Targets | Self::ThirdParty => None,
        }
    }
}

fn curl(ends: &Ends<'_>) -> Result<()> {
    let proxy = ends.proxy.to_string();
    for option in ["--socks5-hostname", "--socks5"] {
        for host in ends.site.hosts() {
            if ends.size.is_full {
                ends.site.download(&[option, &proxy], host)?;
            } else {
                ends.site.download_leaf(&[option, &proxy], host)?;
            }
        }
    }
    Ok(())
}

pub(super) fn megabytes(course: &Course) -> Result<()> {
    let (uplink, downlink) = (payload(course.bytes, 1), payload(course.bytes, 2));
    with_target(
        course,
        |client| exchange(client, &uplink, &downlink).context("at the client"),
        |target| exchange(target, &downlink, &uplink).context("at the target"),
    )
}

/// Sends and receives at once, and compares what came.
fn exchange(stream: &TcpStream, outgoing: &[u8], expected: &[u8]) -> Result<()> {
    thread::scope(|scope| {
        let mut writer = stream;
        let sending = scope.spawn(move || writer.write_all(outgoing).context("send"));
        let received = receive(stream, expected);
        sending.join().unwrap_or_else(|_| bail!("the sender panicked"))?;
        received
    })
}

fn receive(mut stream: &TcpStream, expected: &[u8]) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut missing = expected.len();
    while missing > 0 {
        let want = chunk.len().min(missing);
        let n =
            stream.read(&mut chunk[..want]).with_context(|| format!("receive, {missing} bytes missing"))?;
        ensure!(n > 0, "the stream ended {missing} bytes early");
        hasher.update(&chunk[..n]);
        missing -= n;
    }
    ensure!(hasher.finalize() == blake3::hash(expected), "{} other bytes came", expected.len());
    Ok(())
}

pub(super) fn sessions(course: &Course) -> Result<()> {
    const AT_ONCE: usize = 8;
    let listener = TcpListener::bind((course.target, 0))?;
    let target = listener.local_addr()?;
    let next = AtomicUsize::new(0);
    let one = |number: usize| -> Result<()> {
        let client = socks::connect(course.proxy, target)?;
        let question = payload(64 + number % 700, number);
        (&client).write_all(&question)?;
        receive(&client, &question).with_context(|| format!("session {number}"))
    };
    thread::scope(|scope| {
        let echoing = scope.spawn(|| {
            let mut echoes = Vec::new();
            for _ in 0..course.sessions {
                let stream = socks::accept(&listener, PATIENCE)?;
                echoes.push(scope.spawn(move || echo(&stream)));
            }
            echoes.into_iter().try_for_each(|echo| echo.join().unwrap_or_else(|_| bail!("an echo panicked")))
        });
        let clients: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let numbers =
                        || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < course.sessions);
                    std::iter::from_fn(numbers).try_for_each(one)
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap_or_else(|_| bail!("a client panicked"))?;
        }
        echoing.join().unwrap_or_else(|_| bail!("the target panicked"))
    })
}

fn echo(mut stream: &TcpStream) -> Result<()> {
    let mut chunk = [0; 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => stream.write_all(&chunk[..n])?,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("the end of a session never reached its target"),
        }
    }
}

pub(super) fn half_close(course: &Course) -> Result<()> {
    let bytes = course.bytes / 5;
    let (question, answer) = (payload(bytes, 3), payload(bytes + 100, 4));
    with_target(
        course,
        |client| {
            let mut client = client;
            client.write_all(&question)?;
            client.shutdown(Shutdown::Write)?;
            receive(client, &answer)?;
            ensure!(
                client.read(&mut [0]).context("the end of the answer")? == 0,
                "more than the answer came"
            );
            Ok(())
        },
        |target| {
            let mut target = target;
            receive(target, &question)?;
            ensure!(
                target.read(&mut [0]).context("the end of the question")? == 0,
                "more than the question came"
            );
            Ok(target.write_all(&answer)?)
        },
    )
}

/// The target speaks first, and is heard within `bound`.
pub(super) fn banner(course: &Course, bound: Duration) -> Result<()> {
    const BANNER: &[u8] = b"220 ready when you are\r\n";
    // A machine that is busy may be late once; who waits for the client is late each time.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        with_target(
            course,
            |client| receive(client, BANNER),
            |target| {
                let mut target = target;
                Ok(target.write_all(BANNER)?)
            },
        )?;
        best = best.min(started.elapsed());
        if best <= bound {
            return Ok(());
        }
    }
    bail!("a server that speaks first was heard after {best:?}")
}

pub(super) fn early_close(course: &Course) -> Result<()> {
    let parting = payload(course.bytes, 5);
    with_target(
        course,
        |client| {
            let mut client = client;
            // The target has dialled by the time it hears the first byte.
            client.write_all(&[1])?;
            slowly_receive(client, &parting)?;
            ensure!(client.read(&mut [0]).context("the end")? == 0, "more than was sent came");
            Ok(())
        },
        |target| {
            let mut target = target;
            target.read_exact(&mut [0])?;
            Ok(target.write_all(&parting)?)
        },
    )
}

/// Takes 50 kB, rests, and so on: the sender is always ahead.
fn slowly_receive(client: &TcpStream, expected: &[u8]) -> Result<()> {
    for (at, part) in expected.chunks(50_000).enumerate() {
        receive(client, part).with_context(|| format!("part {at}"))?;
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn wrong_password(ends: &Ends<'_>) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (_stranger, proxy) = ends.start_stranger()?;
    // A refusal at the SOCKS side is as good an end as a later one.
    if let Ok(mut client) = socks::connect(proxy, listener.local_addr()?) {
        client.write_all(&payload(500, 6)).ok();
        client.shutdown(Shutdown::Write).ok();
        match client.read(&mut [0; 64]) {
            Ok(0) => {}
            Ok(n) => bail!("{n} bytes came back to a stranger"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error).context("a stranger's session does not end"),
        }
    }
    if socks::accept(&listener, Duration::ZERO).is_ok() {
        bail!("a stranger's session reached the target");
    }
    megabytes(&ends.course()).context("others, after a stranger came by")
}

/// Runs both ends of one session to a target of its own, and says what went wrong at either.
fn with_target(
    course: &Course,
    client: impl FnOnce(&TcpStream) -> Result<()>,
    target: impl FnOnce(&TcpStream) -> Result<()> + Send,
) -> Result<()> {
    let listener = TcpListener::bind((course.target, 0))?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let stream = socks::accept(&listener, PATIENCE)?;
            target(&stream)
        });
        let held = socks::connect(course.proxy, address).and_then(|stream| client(&stream));
        let served = serving.join().unwrap_or_else(|_| bail!("the target panicked"));
        match (held, served) {
            (Ok(()), Ok(())) => Ok(()),
            (Ok(()), Err(error)) | (Err(error), Ok(())) => Err(error),
            (Err(client), Err(target)) => Err(client.context(format!("target: {target:#}; client"))),
        }
    })
}
