//! Traffic Server's files as they are, read by Traffic Server and by us: the same parents for the same sessions.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::super::Outcome;
use super::super::report::Report;
use super::start_umbra;
use crate::child::{Guard, wait_until};
use crate::peers::{Cache, Peer, Proxy, Tools, free_port};
use crate::socks;

/// What a line of `socks.config` says of the order, and who of its parents is there.
#[derive(Debug, Clone, Copy)]
struct Case {
    round_robin: &'static str,
    is_up: [bool; 3],
}

/// The last numbers of the targets, which are told apart by them alone.
const TARGETS: [u8; 8] = [9, 10, 11, 10, 9, 9, 11, 10];

/// Tries every order, with all parents there and without one.
pub(super) fn run(tools: &Tools, report: &mut Report) {
    report.begin("Choices of parents", &["socks.config", "of three parents", "chosen", "the same by ours"]);
    let lack = [Peer::TrafficServer, Peer::Microsocks].into_iter().find_map(|peer| tools.lack(peer));
    for round_robin in ["false", "strict", "true", "latched"] {
        for is_up in [[true; 3], [false, true, true], [true, false, true]] {
            let case = Case { round_robin, is_up };
            let (chosen, outcome) = match &lack {
                Some(why) => (String::new(), Outcome::Skipped(why.clone())),
                None => case.outcome(tools),
            };
            report.add(&[&format!("round_robin={round_robin}"), case.parents(), &chosen], &[outcome]);
        }
    }
}

impl Case {
    fn parents(self) -> &'static str {
        match self.is_up {
            [false, ..] => "the first is down",
            [_, false, _] => "the second is down",
            [_, _, false] => "the third is down",
            [true, true, true] => "all are up",
        }
    }

    fn outcome(self, tools: &Tools) -> (String, Outcome) {
        match self.choices(tools) {
            Ok([theirs, ours]) => {
                let held = if theirs == ours {
                    Ok(())
                } else {
                    Err(anyhow::anyhow!("Traffic Server chose {theirs}, and ours {ours}"))
                };
                if let Err(error) = &held {
                    eprintln!("{self:?}: {error:#}");
                }
                (theirs, held.into())
            }
            Err(error) => {
                eprintln!("{self:?}: {error:#}");
                (String::new(), Outcome::Failed(error))
            }
        }
    }

    /// Which parents Traffic Server chooses, and which ours does that reads the same files.
    fn choices(self, tools: &Tools) -> Result<[String; 2]> {
        let mut parents = Vec::new();
        let mut addresses = Vec::new();
        for is_up in self.is_up {
            let (guard, address) = if is_up {
                let (guard, address) = tools.start_proxy(Proxy::of(Peer::Microsocks), None)?;
                (Some(guard), address)
            } else {
                (None, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), free_port()?))
            };
            parents.push(guard);
            addresses.push(address.to_string());
        }
        let socks_config = format!(
            "# Read by both.\ndest_ip=127.0.0.2-127.0.0.254 parent=\"{}\" round_robin={}\n",
            addresses.join("; "),
            self.round_robin
        );
        let cache = Cache { version: 5, default_servers: "", socks_config: &socks_config };
        let cache = tools.start_cache(cache)?;
        let theirs = sequence(cache.socks, &parents).with_context(|| cache.guard.log_tail(20))?;
        let config = json!({
            "locals": [{ "local_address": "127.0.0.1", "local_port": 0 }],
            "records_config": cache.records,
        });
        let (umbra, proxy) = start_umbra("local", &config, tools)?;
        let ours = sequence(proxy, &parents).with_context(|| umbra.log_tail(20))?;
        Ok([theirs, ours])
    }
}

/// The numbers of the parents that sessions through `proxy` come out of, one session after the other.
fn sequence(proxy: SocketAddr, parents: &[Option<Guard>]) -> Result<String> {
    let mut chosen = Vec::new();
    for host in TARGETS {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), 0))?;
        let target = listener.local_addr()?;
        let _session = socks::connect(proxy, target).with_context(|| format!("to {target}"))?;
        let words = format!("connected to {target}\n");
        let has_dialled =
            |parent: &Option<Guard>| parent.as_ref().is_some_and(|guard| guard.log().contains(&words));
        let asked = || parents.iter().position(has_dialled);
        let at = wait_until(Duration::from_secs(5), asked).context("no parent was asked")?;
        let all = parents.iter().filter(|parent| has_dialled(parent)).count();
        ensure!(all == 1, "{all} parents were asked for {target}");
        chosen.push((at + 1).to_string());
    }
    Ok(chosen.join(" "))
}
