//! Programs of all kinds at the doors of our client, with a server of ours behind it.

mod cache;
mod trials;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::names;
use super::programs::Visitor;
use super::report::Report;
use super::site::Site;
use super::{Args, Outcome};
use crate::child::{Guard, Program};
use crate::peers::{AES_256_GCM, Peer, Role, Spec, Tools, free_port};

/// A way to set up the client's inbound, and what is tried there.
struct Plan {
    name: &'static str,
    /// What stands in the configuration's `locals[]`, beside the address.
    local: Value,
    way: Way,
    trials: for<'a> fn(&'a Door<'a>) -> Vec<Trial<'a>>,
}

/// Where sessions go from the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To our server.
    Server,
    /// To the first of three servers that is there, which is the last.
    ThirdServer,
    /// To a SOCKS5 proxy, which is shadowsocks-rust's client, and on to our server.
    Parent,
}

/// Something to try at a door.
struct Trial<'a> {
    visitor: Visitor,
    /// The way it goes.
    way: String,
    /// What must come of it.
    end: &'static str,
    run: Box<dyn Fn() -> Result<()> + 'a>,
}

/// An open door: our client, and our server behind it.
struct Door<'a> {
    tools: &'a Tools,
    site: &'a Site,
    address: SocketAddr,
    client: Guard,
    server: Guard,
    _parent: Option<Guard>,
}

/// Tries every visitor at every door.
pub(super) fn run(args: &Args, tools: &Tools, site: &Site, report: &mut Report) {
    report.begin("Doors", &["door", "program", "way", "what must come", "result"]);
    let wanted = |plan: &Plan| args.door.as_ref().is_none_or(|part| plan.name.contains(part.as_str()));
    let name_server = match names::serve() {
        Ok(address) => address,
        Err(error) => {
            report.add(&["", "", "", "a name server"], &[Outcome::Failed(error)]);
            return;
        }
    };
    for plan in plans(site, name_server).into_iter().filter(wanted) {
        if let Some(why) = tools.lack(Peer::ShadowsocksRust).filter(|_| plan.way == Way::Parent) {
            report.add(&[plan.name, "", "", "an open door"], &[Outcome::Skipped(why)]);
            continue;
        }
        let mut door = match Door::open(&plan, tools, site) {
            Ok(door) => door,
            Err(error) => {
                eprintln!("{}: {error:#}", plan.name);
                report.add(&[plan.name, "", "", "an open door"], &[Outcome::Failed(error)]);
                continue;
            }
        };
        let mut rows = Vec::new();
        for trial in (plan.trials)(&door) {
            if args.light
                && matches!(trial.visitor, Visitor::Chromium | Visitor::Ssh | Visitor::TrafficServer)
            {
                continue;
            }
            let outcome = trial.outcome();
            if let Outcome::Failed(error) = &outcome {
                let logs = format!("{}{}", door.client.log_tail(30), door.server.log_tail(30));
                eprintln!("{}, {} {}: {error:#}\n{logs}", plan.name, trial.visitor.name(), trial.way);
            }
            rows.push((trial.visitor, trial.way, trial.end, outcome));
        }
        for (visitor, way, end, outcome) in rows {
            report.add(&[plan.name, visitor.name(), &way, end], &[outcome]);
        }
        if !(door.client.is_alive() && door.server.is_alive()) {
            let death = anyhow::anyhow!("one of ours has died");
            report.add(&[plan.name, "", "", "both ends alive"], &[Outcome::Failed(death)]);
        }
    }
}

fn plans(site: &Site, name_server: SocketAddr) -> Vec<Plan> {
    let users = json!([
        { "name": "alice", "password": trials::ALICE },
        { "name": "bob", "password": trials::BOB },
        { "name": "cache", "password": cache::PASSWORD },
    ]);
    let tunnel = json!({
        "protocol": "tunnel", "forward_address": "127.0.0.1", "forward_port": site.port(),
    });
    let to_names = json!({ "protocol": "tunnel", "forward_address": name_server.to_string() });
    let balanced = json!({ "accept_proxy_protocol": "127.0.0.1", "send_proxy_protocol": "v2" });
    let plan = |name, local, trials| Plan { name, local, way: Way::Server, trials };
    vec![
        plan("one port for all", json!({}), trials::open),
        plan("with users", json!({ "users": users }), trials::guarded),
        plan("socks alone", json!({ "protocol": "socks" }), trials::socks_alone),
        plan("http alone", json!({ "protocol": "http" }), trials::http_alone),
        plan("tunnel", tunnel, trials::tunnel),
        plan("tunnel to a name server", to_names.clone(), trials::names),
        Plan { way: Way::Parent, ..plan("the same through a parent", to_names, trials::names) },
        plan("behind a balancer", balanced, trials::balanced),
        Plan { way: Way::ThirdServer, ..plan("two servers are down", json!({}), trials::brief) },
        Plan { way: Way::Parent, ..plan("a parent behind it", json!({}), trials::brief) },
    ]
}

impl<'a> Door<'a> {
    fn open(plan: &Plan, tools: &'a Tools, site: &'a Site) -> Result<Self> {
        let method = AES_256_GCM;
        let (server, behind) = tools.start(Peer::Umbra, Role::Server, Spec::of(method), None)?;
        let mut local = plan.local.clone();
        local["local_address"] = json!("127.0.0.1");
        local["local_port"] = json!(0);
        let entry = |port: u16| {
            json!({
                "server": behind.ip(), "server_port": port,
                "method": method.name, "password": method.password,
            })
        };
        let mut config = json!({ "locals": [local] });
        let mut parent = None;
        match plan.way {
            Way::Server => config["servers"] = json!([entry(behind.port())]),
            Way::ThirdServer => {
                let ports = [free_port()?, free_port()?, behind.port()];
                config["servers"] = json!(ports.map(entry));
            }
            Way::Parent => {
                let role = Role::Client(behind);
                let spec = Spec { datagrams: true, ..Spec::of(method) };
                let (guard, address) = tools.start(Peer::ShadowsocksRust, role, spec, None)?;
                config["outbound_proxy"] = json!(format!("socks5://{address}"));
                parent = Some(guard);
            }
        }
        let args = vec!["local".to_owned(), "-c".to_owned()];
        let umbra = tools.path(Peer::Umbra)?.to_owned();
        let program = Program::new(format!("umbra {}", plan.name), umbra, args).with_config(&config)?;
        let mut client = Guard::start(program, None)?;
        let address = client.listening().context("a door")?;
        Ok(Self { tools, site, address, client, server, _parent: parent })
    }
}

impl Trial<'_> {
    fn outcome(&self) -> Outcome {
        match self.visitor.lack() {
            Some(why) => Outcome::Skipped(why),
            None => (self.run)().into(),
        }
    }
}
