//! Our client with other people's proxies behind it: one, one behind another, and behind our server.

mod checks;
mod choice;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::checks::Course;
use super::report::Report;
use super::site::Site;
use super::{Args, Outcome};
use crate::child::{Guard, Program};
use crate::peers::{AES_256_GCM, Cache, DANTED_ASKS_THE_SYSTEM, Login, Peer, Proxy, Tools};
use checks::Check;

/// A parent, and how it is asked.
#[derive(Debug, Clone, Copy)]
struct Hop {
    peer: Peer,
    /// What the URL begins with.
    scheme: &'static str,
    /// Where it listens, and its targets as well.
    ip: IpAddr,
    login: Option<Login>,
}

/// Parents in the order in which sessions pass them.
#[derive(Debug, Clone)]
struct Plan {
    hops: Vec<Hop>,
    asker: Asker,
}

/// Which of ours asks the parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// The client.
    Client,
    /// The server, which the client reaches through Shadowsocks.
    Server,
}

/// Parents that run, and ours before them.
struct Way<'a> {
    plan: &'a Plan,
    tools: &'a Tools,
    site: &'a Site,
    parents: Vec<Parent>,
    /// Ours, the client first.
    ours: Vec<Guard>,
    course: Course,
}

struct Parent {
    hop: Hop,
    guard: Guard,
    address: SocketAddr,
    /// What it cannot be without.
    _behind: Option<Guard>,
}

const ALICE: Login = Login { name: "alice", password: "correct-horse" };
const WRONG: Login = Login { name: "alice", password: "battery-staple" };

/// Tries every way.
pub(super) fn run(args: &Args, tools: &Tools, site: &Site, report: &mut Report) {
    let head: Vec<&str> =
        ["parents", "asked by", "how"].into_iter().chain(Check::ALL.map(Check::name)).collect();
    report.begin("Parents", &head);
    let wanted = |plan: &Plan| args.parent.as_ref().is_none_or(|part| plan.label().contains(part.as_str()));
    for plan in plans(args.light).into_iter().filter(wanted) {
        let outcomes = match plan.hops.iter().find_map(|hop| hop.lack(tools)) {
            Some(why) => Check::ALL.map(|_| Outcome::Skipped(why.clone())),
            None => plan.run(args, tools, site),
        };
        report.add(&[&plan.names(), plan.asker.name(), &plan.how()], &outcomes);
    }
    // Each of them starts Traffic Server, which takes its time.
    if !args.light && args.parent.as_ref().is_none_or(|part| "socks.config".contains(part.as_str())) {
        choice::run(tools, report);
    }
}

fn plans(light: bool) -> Vec<Plan> {
    let hop = |peer, scheme| Hop { peer, scheme, ip: Ipv4Addr::LOCALHOST.into(), login: None };
    let knows_alice = |hop: Hop| Hop { login: Some(ALICE), ..hop };
    let on_ipv6 = |hop: Hop| Hop { ip: Ipv6Addr::LOCALHOST.into(), ..hop };
    let plan = |hops: &[Hop], asker| Plan { hops: hops.to_vec(), asker };
    let (microsocks, danted) = (hop(Peer::Microsocks, "socks5"), hop(Peer::Danted, "socks5"));
    let tinyproxy = hop(Peer::Tinyproxy, "http");
    let mut plans = vec![
        plan(&[microsocks], Asker::Client),
        plan(&[knows_alice(microsocks)], Asker::Client),
        plan(&[danted], Asker::Client),
        plan(&[hop(Peer::Danted, "socks4")], Asker::Client),
        plan(&[knows_alice(tinyproxy)], Asker::Client),
        plan(&[danted], Asker::Server),
        plan(&[danted, knows_alice(microsocks)], Asker::Client),
    ];
    if !light {
        plans.extend([
            plan(&[knows_alice(danted)], Asker::Client),
            plan(&[on_ipv6(microsocks)], Asker::Client),
            plan(&[on_ipv6(danted)], Asker::Client),
            plan(&[hop(Peer::Danted, "socks5h")], Asker::Client),
            plan(&[hop(Peer::Microsocks, "socks5h")], Asker::Client),
            plan(&[tinyproxy], Asker::Client),
            plan(&[hop(Peer::Danted, "socks4"), microsocks], Asker::Client),
            plan(&[knows_alice(tinyproxy), danted], Asker::Client),
            plan(&[microsocks, tinyproxy, danted], Asker::Client),
            plan(&[danted, knows_alice(microsocks)], Asker::Server),
            plan(&[hop(Peer::TrafficServer, "socks5")], Asker::Client),
            plan(&[hop(Peer::TrafficServer, "socks4")], Asker::Client),
        ]);
    }
    plans
}

impl Hop {
    /// Why it cannot be started.
    fn lack(&self, tools: &Tools) -> Option<String> {
        let asks_the_system = self.peer == Peer::Danted && self.login.is_some();
        asks_the_system.then(|| DANTED_ASKS_THE_SYSTEM.to_owned()).or_else(|| tools.lack(self.peer))
    }
}

impl Asker {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

impl Plan {
    /// The parents, the one that is dialled first.
    fn names(&self) -> String {
        let names: Vec<_> = self.hops.iter().map(|hop| hop.peer.to_string()).collect();
        names.join(", ")
    }

    /// What they speak.
    fn how(&self) -> String {
        let how = |hop: &Hop| {
            let login = hop.login.map_or("", |_| " with a password");
            let place = if hop.ip.is_ipv6() { " on ::1" } else { "" };
            format!("{}{login}{place}", hop.scheme)
        };
        self.hops.iter().map(how).collect::<Vec<_>>().join(", ")
    }

    fn label(&self) -> String {
        format!("{} {} {}", self.names(), self.asker.name(), self.how())
    }

    /// Why no datagram passes; nothing where they do.
    fn lack_of_datagrams(&self) -> Option<String> {
        let [hop] = self.hops.as_slice() else {
            return Some("in a row of parents there are streams alone".to_owned());
        };
        match (hop.peer, hop.scheme) {
            (Peer::Danted, "socks4") => Some("SOCKS4 has no words for datagrams".to_owned()),
            (Peer::Danted, _) => None,
            (peer, _) => Some(format!("{peer} relays no datagrams")),
        }
    }

    fn run(&self, args: &Args, tools: &Tools, site: &Site) -> [Outcome; Check::ALL.len()] {
        let mut way = match Way::start(self, args.light, tools, site) {
            Ok(way) => way,
            Err(error) => {
                let why = format!("{error:#}");
                eprintln!("{}: {why}", self.label());
                return Check::ALL.map(|_| Outcome::Failed(anyhow::anyhow!("{why}")));
            }
        };
        Check::ALL.map(|check| {
            let outcome = check.run(&way);
            let outcome = way.alive().map_or_else(Outcome::Failed, |()| outcome);
            if let Outcome::Failed(error) = &outcome {
                eprintln!("{}: {} failed: {error:#}\n{}", self.label(), check.name(), way.logs());
            }
            outcome
        })
    }
}

impl<'a> Way<'a> {
    fn start(plan: &'a Plan, light: bool, tools: &'a Tools, site: &'a Site) -> Result<Self> {
        let parents = plan.hops.iter().map(|hop| Parent::start(*hop, tools)).collect::<Result<Vec<_>>>()?;
        let urls: Vec<_> = parents.iter().map(|parent| parent.url(parent.hop.login)).collect();
        let (ours, proxy) = start_ours(plan, &urls, tools)?;
        let target = if plan.hops.iter().any(|hop| hop.ip.is_ipv6()) {
            Ipv6Addr::LOCALHOST.into()
        } else {
            IpAddr::from(Ipv4Addr::LOCALHOST)
        };
        let (bytes, sessions) = if light { (1_000_003, 50) } else { (10_000_003, 200) };
        let course = Course { proxy, target, bytes, sessions };
        Ok(Self { plan, tools, site, parents, ours, course })
    }

    /// Ours with a password that no parent knows, and where they listen.
    fn start_stranger(&self) -> Result<(Vec<Guard>, SocketAddr)> {
        let login = |parent: &Parent| parent.hop.login.map(|_| WRONG);
        let urls: Vec<_> = self.parents.iter().map(|parent| parent.url(login(parent))).collect();
        start_ours(self.plan, &urls, self.tools)
    }

    fn alive(&mut self) -> Result<()> {
        ensure!(self.ours.iter_mut().all(Guard::is_alive), "one of ours has died");
        ensure!(self.parents.iter_mut().all(|parent| parent.guard.is_alive()), "a parent has died");
        Ok(())
    }

    fn logs(&self) -> String {
        let parents = self.parents.iter().map(|parent| &parent.guard);
        self.ours.iter().chain(parents).map(|guard| guard.log_tail(20)).collect()
    }
}

impl Parent {
    fn start(hop: Hop, tools: &Tools) -> Result<Self> {
        if hop.peer != Peer::TrafficServer {
            let proxy = Proxy { ip: hop.ip, login: hop.login, ..Proxy::of(hop.peer) };
            let (guard, address) = tools.start_proxy(proxy, None)?;
            return Ok(Self { hop, guard, address, _behind: None });
        }
        // It leads nobody anywhere without a parent of its own, and asks that one in its client's version.
        let behind = if hop.scheme == "socks4" { Peer::Danted } else { Peer::Microsocks };
        let (behind, next) = tools.start_proxy(Proxy::of(behind), None)?;
        let cache = Cache { version: 5, default_servers: &next.to_string(), socks_config: "" };
        let cache = tools.start_cache(cache)?;
        Ok(Self { hop, guard: cache.guard, address: cache.socks, _behind: Some(behind) })
    }

    fn url(&self, login: Option<Login>) -> String {
        let login = login.map_or_else(String::new, |login| format!("{}:{}@", login.name, login.password));
        format!("{}://{login}{}", self.hop.scheme, self.address)
    }
}

/// Our client with the parents behind it, or behind the server behind it.
fn start_ours(plan: &Plan, urls: &[String], tools: &Tools) -> Result<(Vec<Guard>, SocketAddr)> {
    let way_out = match urls {
        [url] => json!(url),
        urls => json!(urls),
    };
    let mode = if plan.lack_of_datagrams().is_none() { "tcp_and_udp" } else { "tcp_only" };
    let door = json!([{ "local_address": "127.0.0.1", "local_port": 0, "mode": mode }]);
    match plan.asker {
        Asker::Client => {
            let config = json!({ "locals": door, "outbound_proxy": way_out });
            let (client, proxy) = start_umbra("local", &config, tools)?;
            Ok((vec![client], proxy))
        }
        Asker::Server => {
            let (method, password) = (AES_256_GCM.name, AES_256_GCM.password);
            let server = json!({
                "server": "127.0.0.1", "server_port": 0, "method": method, "password": password,
                // The targets are on loopback.
                "outbound_proxy": way_out, "forbidden_ip": "",
            });
            let (server, address) = start_umbra("server", &server, tools)?;
            let client = json!({
                "server": address.ip(), "server_port": address.port(), "method": method, "password": password,
                "locals": door,
            });
            let (client, proxy) = start_umbra("local", &client, tools)?;
            Ok((vec![client, server], proxy))
        }
    }
}

fn start_umbra(role: &str, config: &Value, tools: &Tools) -> Result<(Guard, SocketAddr)> {
    let umbra = tools.path(Peer::Umbra)?.to_owned();
    let args = vec![role.to_owned(), "-c".to_owned()];
    let program = Program::new(format!("umbra {role}"), umbra, args).with_config(config)?;
    let mut guard = Guard::start(program, None)?;
    let address = guard.listening().context("ours before the parents")?;
    Ok((guard, address))
}
