//! Programs of all kinds at the doors of our client, with a server of ours behind it.

mod trials;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::programs::Visitor;
use super::report::Report;
use super::site::Site;
use super::{Args, Outcome};
use crate::child::{Guard, Program};
use crate::peers::{AES_256_GCM, Peer, Role, Spec, Tools};

/// A way to set up the client's inbound, and what is tried there.
struct Plan {
    name: &'static str,
    /// What stands in the configuration's `locals[]`, beside the address.
    local: Value,
    trials: for<'a> fn(&'a Door<'a>) -> Vec<Trial<'a>>,
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
    site: &'a Site,
    address: SocketAddr,
    client: Guard,
    server: Guard,
}

/// Tries every visitor at every door.
pub(super) fn run(args: &Args, tools: &Tools, site: &Site, report: &mut Report) {
    report.begin("Doors", &["door", "program", "way", "what must come", "result"]);
    let wanted = |plan: &Plan| args.door.as_ref().is_none_or(|part| plan.name.contains(part.as_str()));
    for plan in plans(site).into_iter().filter(wanted) {
        if ["with users", "behind a balancer"].contains(&plan.name) {
            let why = format!("no door is {} yet", plan.name);
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
            if args.light && matches!(trial.visitor, Visitor::Chromium | Visitor::Ssh) {
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

fn plans(site: &Site) -> Vec<Plan> {
    let users = json!([
        { "name": "alice", "password": trials::ALICE },
        { "name": "bob", "password": trials::BOB },
    ]);
    vec![
        Plan { name: "one port for all", local: json!({}), trials: trials::open },
        Plan { name: "with users", local: json!({ "users": users }), trials: trials::guarded },
        Plan {
            name: "tunnel",
            local: json!({
                "protocol": "tunnel", "forward_address": "127.0.0.1", "forward_port": site.port(),
            }),
            trials: trials::tunnel,
        },
        Plan {
            name: "behind a balancer",
            local: json!({ "accept_proxy_protocol": "127.0.0.1", "send_proxy_protocol": "v2" }),
            trials: trials::balanced,
        },
    ]
}

impl<'a> Door<'a> {
    fn open(plan: &Plan, tools: &Tools, site: &'a Site) -> Result<Self> {
        let method = AES_256_GCM;
        let (server, behind) = tools.start(Peer::Umbra, Role::Server, Spec::of(method), None)?;
        let mut local = plan.local.clone();
        local["local_address"] = json!("127.0.0.1");
        local["local_port"] = json!(0);
        let config = json!({
            "servers": [{
                "server": behind.ip(), "server_port": behind.port(),
                "method": method.name, "password": method.password,
            }],
            "locals": [local],
        });
        let args = vec!["local".to_owned(), "-c".to_owned()];
        let umbra = tools.path(Peer::Umbra)?.to_owned();
        let program = Program::new(format!("umbra {}", plan.name), umbra, args).with_config(&config)?;
        let mut client = Guard::start(program, None)?;
        let address = client.listening().context("a door")?;
        Ok(Self { site, address, client, server })
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
