//! What is tried through every way of parents.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::super::checks::{AT_ONCE, banner, early_close, half_close, megabytes, sessions};
use super::super::{Outcome, datagrams, payload};
use super::{Asker, Hop, Way};
use crate::child::wait_until;
use crate::peers::Peer;
use crate::socks;

/// One thing to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// curl downloads a page, and every parent's log says whom it has dialled.
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
    /// Who does not know a parent's password gets nowhere, and is told.
    WrongPassword,
    /// Datagrams of many lengths, there and back.
    Datagrams,
    /// A parent waits for a connection in our stead.
    Bind,
}

/// How long a refusal may take: the smallest of proxies says it by closing.
const REFUSAL: Duration = Duration::from_secs(5);

impl Check {
    /// Every check, in the order of the table.
    pub(super) const ALL: [Self; 9] = [
        Self::Curl,
        Self::Megabytes,
        Self::Sessions,
        Self::HalfClose,
        Self::Banner,
        Self::EarlyClose,
        Self::WrongPassword,
        Self::Datagrams,
        Self::Bind,
    ];

    /// The column's head.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Curl => "curl",
            Self::Megabytes => "megabytes",
            Self::Sessions => "sessions",
            Self::HalfClose => "half-close",
            Self::Banner => "banner",
            Self::EarlyClose => "early close",
            Self::WrongPassword => "wrong password",
            Self::Datagrams => "datagrams",
            Self::Bind => "BIND",
        }
    }

    /// Tries it.
    pub(super) fn run(self, way: &Way<'_>) -> Outcome {
        if let Some(why) = self.not_for(way) {
            return Outcome::Skipped(why);
        }
        let held = match self {
            Self::Curl => curl(way),
            Self::Megabytes => megabytes(&way.course),
            Self::Sessions => sessions(&way.course),
            Self::HalfClose => half_close(&way.course),
            Self::Banner => banner(&way.course, AT_ONCE),
            Self::EarlyClose => early_close(&way.course),
            Self::WrongPassword => wrong_password(way),
            Self::Datagrams => datagrams::there_and_back(way.course.proxy, &DATAGRAMS),
            Self::Bind => bind(way),
        };
        held.into()
    }

    /// Why a check makes no sense on this way.
    fn not_for(self, way: &Way<'_>) -> Option<String> {
        let hops = &way.plan.hops;
        match self {
            Self::Curl if crate::peers::in_path("curl").is_none() => {
                Some("curl is missing: apt-get install curl".to_owned())
            }
            Self::HalfClose => {
                let blunt = hops.iter().find(|hop| !hop.peer.half_closes())?.peer;
                Some(format!("{blunt} ends both ways when one has ended"))
            }
            Self::WrongPassword if hops.iter().all(|hop| hop.login.is_none()) => {
                Some("a parent that lets everybody in knows no wrong password".to_owned())
            }
            Self::Datagrams => way.plan.lack_of_datagrams(),
            Self::Bind if way.plan.asker == Asker::Server => {
                Some("Shadowsocks has no words for BIND".to_owned())
            }
            // Those before the last lead to it, and no further.
            Self::Bind => {
                let last = hops.last().filter(|hop| hop.peer != Peer::Danted)?.peer;
                Some(format!("{last} does not know BIND"))
            }
            Self::Curl | Self::Megabytes | Self::Sessions | Self::Banner | Self::EarlyClose => None,
            Self::WrongPassword => None,
        }
    }
}

const DATAGRAMS: [usize; 4] = [1, 512, 1400, 20_000];

fn curl(way: &Way<'_>) -> Result<()> {
    let proxy = way.course.proxy.to_string();
    for option in ["--socks5-hostname", "--socks5"] {
        for host in
            way.site.hosts().into_iter().filter(|host| way.plan.hops.iter().all(|hop| hop.reaches(host)))
        {
            way.site.download(&[option, &proxy], host)?;
        }
    }
    // Each has dialled the one behind it, and the last one the target.
    let site = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), way.site.port());
    let dialled = way.parents.iter().skip(1).map(|parent| parent.address).chain([site]);
    for (parent, next) in way.parents.iter().zip(dialled) {
        let Some(words) = parent.hop.words(next) else { continue };
        wait_until(REFUSAL, || parent.guard.log().contains(&words).then_some(()))
            .with_context(|| format!("{} does not say that it has dialled {next}", parent.hop.peer))?;
    }
    Ok(())
}

impl Hop {
    /// Whether targets at `host` can be said to it.
    fn reaches(&self, host: &str) -> bool {
        match (self.peer, self.scheme) {
            (Peer::TrafficServer, _) => host == "127.0.0.1",
            (_, "socks4") => host != "[::1]",
            _ => true,
        }
    }

    /// What its log says of a connection that it has made.
    fn words(&self, next: SocketAddr) -> Option<String> {
        let (ip, port) = (next.ip(), next.port());
        match self.peer {
            Peer::Danted => Some(format!(" {ip}.{port}")),
            Peer::Microsocks => Some(format!("connected to {ip}:{port}")),
            Peer::Tinyproxy => Some(format!("CONNECT {next} ")),
            Peer::TrafficServer => None,
            Peer::Umbra | Peer::Earlier => None,
            Peer::ShadowsocksRust | Peer::ShadowsocksLibev | Peer::V2ray | Peer::Python => None,
        }
    }
}

fn wrong_password(way: &Way<'_>) -> Result<()> {
    let listener = TcpListener::bind((way.course.target, 0))?;
    let (_ours, proxy) = way.start_stranger()?;
    let started = Instant::now();
    match (socks::connect(proxy, listener.local_addr()?), way.plan.asker) {
        (Err(_), Asker::Client) => {}
        (Ok(_), Asker::Client) => bail!("a stranger was told of success"),
        // Through Shadowsocks a refusal is an end without words.
        (Err(_), Asker::Server) => {}
        (Ok(mut client), Asker::Server) => {
            client.write_all(&payload(500, 6)).ok();
            match client.read(&mut [0; 64]) {
                Ok(0) => {}
                Ok(n) => bail!("{n} bytes came back to a stranger"),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error).context("a stranger's session does not end"),
            }
        }
    }
    ensure!(started.elapsed() < REFUSAL, "the refusal took {:?}", started.elapsed());
    ensure!(socks::accept(&listener, Duration::ZERO).is_err(), "a stranger's session reached the target");
    megabytes(&way.course).context("others, after a stranger came by")
}

/// The client asks for a place, a visitor comes there, and both speak.
fn bind(way: &Way<'_>) -> Result<()> {
    let expected = SocketAddr::new(way.course.target, 9);
    let waiting = socks::bind(way.course.proxy, expected)?;
    let mut visitor = TcpStream::connect(waiting.address).context("visit the parent")?;
    let own = visitor.local_addr()?;
    visitor.set_read_timeout(Some(socks::PATIENCE))?;
    let (mut client, told) = waiting.visitor()?;
    ensure!(told == own, "{own} came, and {told} is said to have come");
    let (there, back) = (payload(10_000, 7), payload(10_000, 8));
    client.write_all(&there)?;
    visitor.write_all(&back)?;
    for (stream, expected) in [(&mut client, &back), (&mut visitor, &there)] {
        let mut came = vec![0; expected.len()];
        stream.read_exact(&mut came).context("what the other has sent")?;
        ensure!(came == *expected, "other bytes came");
    }
    drop(visitor);
    ensure!(client.read(&mut [0]).context("the visitor's end")? == 0, "more than the visitor sent came");
    Ok(())
}
