//! A client and a server that are not both ours, and ours with ours, for every method they share.

use std::net::SocketAddr;

use anyhow::Result;

use super::checks::Check;
use super::report::Report;
use super::site::Site;
use super::{Args, Outcome};
use crate::child::Guard;
use crate::peers::{self, AES_256_2022, AES_256_GCM, MODERN, Method, Peer, Role, Tools};

/// Who talks to whom, and how it is sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leg {
    /// The side with the SOCKS door.
    pub(super) client: Peer,
    /// The side that dials targets.
    pub(super) server: Peer,
    /// What both speak.
    pub(super) method: Method,
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(super) bytes: usize,
    pub(super) sessions: usize,
}

/// A leg whose ends are running.
pub(crate) struct Ends<'a> {
    pub(super) leg: Leg,
    pub(super) proxy: SocketAddr,
    server_address: SocketAddr,
    client: Guard,
    server: Guard,
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
        report.add(&[&leg.client.to_string(), &leg.server.to_string(), leg.method.name], &outcomes);
    }
}

fn legs(args: &Args) -> Vec<Leg> {
    let methods: Vec<Method> = if args.light {
        vec![AES_256_GCM, AES_256_2022]
    } else {
        MODERN.into_iter().chain(peers::others()).collect()
    };
    let wanted =
        |method: &Method| args.method.as_ref().is_none_or(|part| method.name.contains(part.as_str()));
    let mut legs = Vec::new();
    for method in methods.into_iter().filter(wanted) {
        let mut leg = |client, server| legs.push(Leg { client, server, method });
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
    legs
}

impl Leg {
    fn missing(self, tools: &Tools) -> Option<String> {
        [self.client, self.server].into_iter().find_map(|peer| tools.lack(peer))
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
        write!(f, "{} -> {}, {}", self.client, self.server, self.method.name)
    }
}

impl Size {
    /// Full size for the methods that people should use.
    fn of(method: Method, light: bool) -> Self {
        let full = !light && MODERN.contains(&method);
        if !full { Self { bytes: 2_000_003, sessions: 50 } } else { Self { bytes: 8_000_003, sessions: 500 } }
    }
}

impl<'a> Ends<'a> {
    fn start(leg: Leg, tools: &'a Tools, site: &'a Site, size: Size) -> Result<Self> {
        let (method, password) = (leg.method, leg.method.password);
        let (server, server_address) = tools.start(leg.server, Role::Server, method, password, None)?;
        let (client, proxy) =
            tools.start(leg.client, Role::Client(server_address), method, password, None)?;
        Ok(Self { leg, proxy, server_address, client, server, tools, site, size })
    }

    /// A client of the same server that knows another password.
    pub(super) fn start_stranger(&self) -> Result<(Guard, SocketAddr)> {
        let (role, method) = (Role::Client(self.server_address), self.leg.method);
        self.tools.start(self.leg.client, role, method, method.wrong_password, None)
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
