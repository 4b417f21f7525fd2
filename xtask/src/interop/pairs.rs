//! A client and a server that are not both ours, and ours with ours, for every method they share.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;

use super::checks::{Check, Course};
use super::report::Report;
use super::site::Site;
use super::{Args, Outcome};
use crate::child::Guard;
use crate::peers::{
    self, AES_128_2022, AES_256_2022, AES_256_CFB, AES_256_GCM, CHACHA20, Family, MODERN, Method, Peer, Role,
    Spec, Tools, User,
};

/// Who talks to whom, and how it is sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leg {
    /// The side with the SOCKS door.
    pub(super) client: Peer,
    /// The side that dials targets.
    pub(super) server: Peer,
    /// What both speak.
    pub(super) method: Method,
    /// What lies between them, or stands before the server.
    pub(super) dress: Dress,
}

/// More than a method and a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dress {
    /// Nothing more.
    Bare,
    /// A plugin at both ends, in one of its two disguises.
    Obfs(&'static str),
    /// Every piece of a stream with a check of its own, which no peer has any more.
    OneTimeAuth,
    /// The server has several users, and the client is one of them.
    Users,
    /// A relay of ours that knows the server's key and not its users'.
    Relayed,
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(super) bytes: usize,
    pub(super) sessions: usize,
    /// Whether pages are large as well.
    pub(super) is_full: bool,
}

/// A leg whose ends are running.
pub(crate) struct Ends<'a> {
    pub(super) leg: Leg,
    pub(super) proxy: SocketAddr,
    server_address: SocketAddr,
    client: Guard,
    server: Guard,
    _relay: Option<Guard>,
    pub(super) tools: &'a Tools,
    pub(super) site: &'a Site,
    pub(super) size: Size,
}

/// Tries every leg.
pub(crate) fn run(args: &Args, tools: &Tools, site: &Site, report: &mut Report) {
    let head: Vec<&str> =
        ["client", "server", "method"].into_iter().chain(Check::ALL.map(Check::name)).collect();
    report.begin("Pairs", &head);
    for leg in legs(args) {
        let outcomes = match leg.missing(tools) {
            Some(why) => Check::ALL.map(|_| Outcome::Skipped(why.clone())),
            None => leg.run(tools, site, Size::of(leg.method, args.light)),
        };
        report.add(&[&leg.client.to_string(), &leg.server.to_string(), &leg.label()], &outcomes);
    }
}

fn legs(args: &Args) -> Vec<Leg> {
    let methods: Vec<Method> = if args.light {
        vec![AES_256_GCM, AES_256_2022, AES_256_CFB]
    } else {
        MODERN.into_iter().chain(peers::others()).collect()
    };
    let mut legs = Vec::new();
    for method in methods {
        let mut leg = |client, server| legs.push(Leg { client, server, method, dress: Dress::Bare });
        if !args.peers_alone && !Peer::Umbra.speaks(method) {
            continue;
        }
        if !args.peers_alone {
            leg(Peer::Umbra, Peer::Umbra);
        }
        for peer in Peer::OTHERS.into_iter().filter(|peer| peer.speaks(method)) {
            if args.peers_alone {
                leg(peer, peer);
            } else {
                leg(Peer::Umbra, peer);
                leg(peer, Peer::Umbra);
            }
        }
    }
    if !args.peers_alone {
        legs.extend(dressed(args.light).into_iter().filter(|leg| Peer::Umbra.speaks(leg.method)));
    }
    if let Some(part) = &args.method {
        legs.retain(|leg| leg.label().contains(part.as_str()));
    }
    legs
}

/// Plugins, users and relays, each with those who know such a thing.
fn dressed(light: bool) -> Vec<Leg> {
    let (umbra, rust, libev) = (Peer::Umbra, Peer::ShadowsocksRust, Peer::ShadowsocksLibev);
    let with_one_of_ours = [(umbra, umbra), (umbra, rust), (rust, umbra), (umbra, libev), (libev, umbra)];
    let mut legs = Vec::new();
    let mut add = |dress, method, pairs: &[(Peer, Peer)]| {
        legs.extend(pairs.iter().map(|(client, server)| Leg {
            client: *client,
            server: *server,
            method,
            dress,
        }));
    };
    for disguise in ["http", "tls"] {
        add(
            Dress::Obfs(disguise),
            AES_256_GCM,
            if light { &with_one_of_ours[..1] } else { &with_one_of_ours },
        );
        add(Dress::Obfs(disguise), AES_256_2022, if light { &[] } else { &with_one_of_ours[..3] });
    }
    let outline = [(umbra, umbra), (rust, umbra), (libev, umbra), (Peer::V2ray, umbra)];
    add(Dress::OneTimeAuth, AES_256_CFB, &with_one_of_ours[..1]);
    add(Dress::Users, CHACHA20, if light { &outline[..2] } else { &outline });
    add(Dress::Users, AES_256_2022, &with_one_of_ours[..3]);
    add(Dress::Relayed, AES_256_2022, &with_one_of_ours[..3]);
    if !light {
        add(Dress::Users, AES_128_2022, &with_one_of_ours[..3]);
        add(Dress::Relayed, AES_128_2022, &with_one_of_ours[..3]);
    }
    legs
}

impl Leg {
    /// The method, and what more there is.
    fn label(self) -> String {
        format!("{}{}", self.method.name, self.dress)
    }

    /// Whether datagrams go the same way as streams.
    pub(super) fn carries_datagrams(self) -> bool {
        match self.dress {
            Dress::Bare | Dress::OneTimeAuth | Dress::Users | Dress::Relayed => true,
            Dress::Obfs(_) => false,
        }
    }

    fn missing(self, tools: &Tools) -> Option<String> {
        if matches!(self.dress, Dress::Obfs(_)) && peers::in_path("obfs-local").is_none() {
            return Some("simple-obfs is missing: apt-get install simple-obfs".to_owned());
        }
        [self.client, self.server].into_iter().find_map(|peer| tools.lack(peer))
    }

    /// What a client is told so that it is the user with `own` password.
    fn password(self, own: &str) -> String {
        let shared = self.method.password;
        match self.dress {
            Dress::Bare | Dress::Obfs(_) | Dress::OneTimeAuth => shared.to_owned(),
            Dress::Users if self.method.family == Family::Edition2022 => format!("{shared}:{own}"),
            Dress::Users => own.to_owned(),
            Dress::Relayed => format!("{}:{shared}:{own}", relay_key(self.method)),
        }
    }

    fn run(self, tools: &Tools, site: &Site, size: Size) -> [Outcome; Check::ALL.len()] {
        let mut ends = match Ends::start(self, tools, site, size) {
            Ok(ends) => ends,
            Err(error) => {
                eprintln!("{self}: {error:#}");
                let why = format!("{error:#}");
                return Check::ALL.map(|_| Outcome::Failed(anyhow::anyhow!("{why}")));
            }
        };
        Check::ALL.map(|check| {
            let outcome = check.run(&ends);
            let outcome = if ends.are_alive() { outcome } else { Outcome::Failed(ends.death(outcome)) };
            if let Outcome::Failed(error) = &outcome {
                let logs = format!("{}{}", ends.client.log_tail(30), ends.server.log_tail(30));
                eprintln!("{self}: {} failed: {error:#}\n{logs}", check.name());
            }
            outcome
        })
    }
}

impl std::fmt::Display for Leg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}, {}", self.client, self.server, self.label())
    }
}

impl std::fmt::Display for Dress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bare => Ok(()),
            Self::Obfs(disguise) => write!(f, ", obfs {disguise}"),
            Self::OneTimeAuth => f.write_str(", one-time auth"),
            Self::Users => f.write_str(", users"),
            Self::Relayed => f.write_str(", users behind a relay"),
        }
    }
}

impl Size {
    /// Full size for the methods that people should use.
    fn of(method: Method, light: bool) -> Self {
        if !light && MODERN.contains(&method) {
            return Self { bytes: 8_000_003, sessions: 500, is_full: true };
        }
        // A block of the cipher for every bit, in a binary that is quick to build and not to run.
        let bytes = if method.name.ends_with("-cfb1") { 40_003 } else { 1_000_003 };
        Self { bytes, sessions: 50, is_full: light }
    }
}

impl<'a> Ends<'a> {
    fn start(leg: Leg, tools: &'a Tools, site: &'a Site, size: Size) -> Result<Self> {
        let users = users(leg.method);
        // A plugin carries streams only.
        let plain = Spec { datagrams: leg.carries_datagrams(), ..Spec::of(leg.method) };
        let spec = match leg.dress {
            Dress::Bare => plain,
            Dress::Obfs(disguise) => Spec { obfs: Some(disguise), ..plain },
            Dress::OneTimeAuth => Spec { one_time_auth: true, ..plain },
            Dress::Users | Dress::Relayed if leg.method.family == Family::Edition2022 => {
                Spec { users: &users, ..plain }
            }
            // As with Outline, the server has no password of its own.
            Dress::Users | Dress::Relayed => Spec { users: &users, password: "", ..plain },
        };
        let (server, address) = tools.start(leg.server, Role::Server, spec, None)?;
        let (relay, server_address) = match leg.dress {
            Dress::Relayed => {
                let next = User { name: "next", password: leg.method.password, forward: Some(address) };
                let spec = Spec { password: relay_key(leg.method), users: &[next], ..plain };
                let (relay, address) = tools.start(Peer::Umbra, Role::Server, spec, None)?;
                (Some(relay), address)
            }
            Dress::Bare | Dress::Obfs(_) | Dress::OneTimeAuth | Dress::Users => (None, address),
        };
        let password = leg.password(users[1].password);
        let spec = Spec { password: &password, users: &[], ..spec };
        let (client, proxy) = tools.start(leg.client, Role::Client(server_address), spec, None)?;
        Ok(Self { leg, proxy, server_address, client, server, _relay: relay, tools, site, size })
    }

    /// The way of our own sessions.
    pub(super) fn course(&self) -> Course {
        let Size { bytes, sessions, .. } = self.size;
        Course { proxy: self.proxy, target: Ipv4Addr::LOCALHOST.into(), bytes, sessions }
    }

    /// A client of the same server that knows another password.
    pub(super) fn start_stranger(&self) -> Result<(Guard, SocketAddr)> {
        let (role, method) = (Role::Client(self.server_address), self.leg.method);
        let obfs = match self.leg.dress {
            Dress::Obfs(disguise) => Some(disguise),
            Dress::Bare | Dress::OneTimeAuth | Dress::Users | Dress::Relayed => None,
        };
        let password = match self.leg.dress {
            Dress::Bare | Dress::Obfs(_) | Dress::OneTimeAuth => method.wrong_password.to_owned(),
            Dress::Users | Dress::Relayed => self.leg.password(method.wrong_password),
        };
        let datagrams = self.leg.carries_datagrams();
        let spec = Spec { password: &password, obfs, datagrams, ..Spec::of(method) };
        self.tools.start(self.leg.client, role, spec, None)
    }

    fn are_alive(&mut self) -> bool {
        self.client.is_alive() && self.server.is_alive()
    }

    fn death(&mut self, outcome: Outcome) -> anyhow::Error {
        let who = if self.server.is_alive() { "the client" } else { "the server" };
        match outcome {
            Outcome::Failed(error) => error.context(format!("{who} has died")),
            Outcome::Passed | Outcome::Skipped(_) => anyhow::anyhow!("{who} has died"),
        }
    }
}

/// Three users, with keys of the method's length or any passwords.
fn users(method: Method) -> [User; 3] {
    let passwords = match (method.family, method == AES_128_2022) {
        (Family::Edition2022, true) => {
            ["Zmlyc3QgdXNlcidzIGtleQ==", "c2Vjb25kIHVzZXJzIGtleQ==", "dGhpcmQgdXNlcidzIGtleQ=="]
        }
        (Family::Edition2022, false) => [
            "Zmlyc3QgdXNlcidzIGtleSBvZiAzMiBieXRlcy4uLi4=",
            "c2Vjb25kIHVzZXIncyBrZXkgb2YgMzIgYnl0ZXMuLi4=",
            "dGhpcmQgdXNlcidzIGtleSBvZiAzMiBieXRlcy4uLi4=",
        ],
        (Family::Aead | Family::Stream | Family::Plain, _) => {
            ["one of many", "another of many", "a third one"]
        }
    };
    let mut names = ["first", "second", "third"].into_iter();
    passwords.map(|password| User { name: names.next().unwrap_or_default(), password, forward: None })
}

/// The key of the relay itself.
fn relay_key(method: Method) -> &'static str {
    if method == AES_128_2022 {
        "a2V5IG9mIHRoZSByZWxheQ=="
    } else {
        "a2V5IG9mIHRoZSByZWxheSwgb2YgMzIgYnl0ZXMuLi4="
    }
}
