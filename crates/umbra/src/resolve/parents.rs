//! Traffic Server's files as rules: `dest_ip` leads to a group of parents, `no_socks` to the target itself, and the rest nowhere
//! unless somebody says where.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use umbra_proto::request::Refusal;
use umbra_proto::socks4::client::UserId;
use umbra_relay::config::{Candidate, Group, Hop, Names, Parent, ParentProtocol, Path, Route};
use umbra_relay::group::{Policy, Settings as Choice};
use umbra_relay::router::{Conditions, Networks, Router, Rule, Targets};
use zeroize::Zeroizing;

use crate::file::{NO_PATH, read_text};
use crate::raw::Settings;
use crate::reference::Id;
use crate::report::Report;
use crate::traffic_server::ParentAt;
use crate::traffic_server::records::{Records, Version};
use crate::traffic_server::socks_config::{RoundRobin, SocksConfig};

/// The rules of the files that `both` names. `otherwise` is where sessions go that they say nothing of, if that was said.
pub(super) fn read_parents(
    both: &Settings,
    direct: &Route,
    otherwise: Option<Route>,
    report: &mut Report,
) -> Option<Router<Route>> {
    let records = match both.text(Id::RecordsConfig) {
        Some((path, place)) => {
            let text = read(path, place, report);
            let records = text.and_then(|text| Records::read(&text, path, report));
            if let Some(records) = &records {
                records.check_needed(report);
                warn_of_door(both, records, place, report);
            }
            records
        }
        None => Some(Records::default()),
    };
    let (path, place) = match (both.text(Id::SocksConfig), both.text(Id::RecordsConfig)) {
        (Some((path, place)), _) => (path.to_owned(), place),
        (None, Some((beside, place))) => {
            let folder = FilePath::new(beside).parent().unwrap_or(FilePath::new(""));
            (folder.join(&records.as_ref()?.config_file).display().to_string(), place)
        }
        (None, None) => return None,
    };
    let config = read(&path, place, report).and_then(|text| SocksConfig::read(&text, &path, report));
    // Only now, so that what is wrong in either file is told.
    let (records, config) = (records?, config?);
    if config.auth.is_some() && records.version == Version::V4 {
        let text = "its login is left aside: SOCKS4 has none; say CONFIG proxy.config.socks.socks_version INT 5 in a records_config";
        report.warn(place, text);
    }
    if let (Some(said), false) = (both.get(Id::Otherwise), records.default_servers.is_empty()) {
        report.error(
            &said.place,
            "cannot stand beside default_servers of records_config, which say the same; keep one of them",
        );
    }
    // Whoever names a file means something, and all of it would go where `otherwise` leads.
    if records.default_servers.is_empty() && config.says_nothing() {
        let text = "there is no dest_ip line and no no_socks line in the file, and records_config has no default_servers, so no session would \
                    go through a parent; check the path and whether all of the file has come, or take the key out";
        report.error(format!("{path}:1"), text);
        return None;
    }
    let house = House { records: &records, config: &config };
    let otherwise = if records.default_servers.is_empty() {
        otherwise.unwrap_or(Route::Refuse(Refusal::NotAllowed))
    } else {
        house.group("default_servers", &records.default_servers, RoundRobin::False)
    };
    let mut rules = vec![rule(format!("{path} no_socks"), config.no_socks_networks(), direct.clone())];
    for dest in config.rules_as_asked() {
        let name = format!("{path}:{}", dest.line);
        let route = house.group(&name, &dest.parents, dest.round_robin);
        rules.push(rule(name, dest.range.networks(), route));
    }
    Some(Router { rules, otherwise })
}

/// What both files say of parents.
struct House<'a> {
    records: &'a Records,
    config: &'a SocksConfig,
}

impl House<'_> {
    fn group(&self, name: &str, parents: &[ParentAt], round_robin: RoundRobin) -> Route {
        let Records { server_retry_time, server_connect_timeout, connection_attempts, .. } = *self.records;
        let mut choice = Choice::like_traffic_server(match round_robin {
            RoundRobin::False => Policy::Ordered,
            RoundRobin::Strict => Policy::RoundRobin,
            RoundRobin::True => Policy::AddressModulo,
            RoundRobin::Latched => Policy::Latched,
            RoundRobin::ConsistentHash => Policy::TargetHash,
        });
        choice.attempts_per_member = self.records.per_server_connection_attempts;
        choice.attempts_max = connection_attempts;
        choice.health.fail_threshold = self.records.server_fail_threshold;
        choice.health.fail_window = server_retry_time;
        choice.health.retry_time = server_retry_time;
        let members = parents.iter().map(|parent| {
            let mut candidate = Candidate::from(self.path(parent));
            candidate.weight = parent.weight;
            candidate
        });
        let one = server_connect_timeout.saturating_add(self.negotiate_timeout());
        choice.patience = one.saturating_mul(connection_attempts.get()).min(PATIENCE_MAX);
        Route::Group(Arc::new(Group::new(name, choice, members.collect())))
    }

    fn path(&self, parent: &ParentAt) -> Path {
        let (protocol, names) = match self.records.version {
            Version::V4 => (ParentProtocol::Socks4(UserId::default()), Names::ResolveHere),
            Version::V5 => (ParentProtocol::Socks5(self.config.auth.clone()), Names::PassOn),
        };
        let address = parent.address.clone();
        let name = address.to_string();
        let mut path = Path::new(name, [Hop::Parent(Parent { address, protocol, names, tls: None })]);
        path.deadlines.connect = self.records.server_connect_timeout;
        path.deadlines.negotiate = self.negotiate_timeout();
        path
    }

    /// All steps of a negotiation together, each of which may take its time.
    fn negotiate_timeout(&self) -> Duration {
        let steps = match (self.records.version, &self.config.auth) {
            (Version::V4, _) => 1,
            (Version::V5, None) => 2,
            (Version::V5, Some(_)) => 3,
        };
        self.records.socks_timeout.saturating_mul(steps)
    }
}

fn rule(name: String, networks: Vec<IpNet>, verdict: Route) -> Rule<Route> {
    let target = Targets::of_networks(Networks::new(networks));
    Rule {
        name: name.into(),
        conditions: Conditions { target: Some(target), ..Conditions::default() },
        verdict,
    }
}

/// Where clients come in is said by this configuration.
fn warn_of_door(both: &Settings, records: &Records, place: &str, report: &mut Report) {
    let port = u64::from(records.accept_port);
    if records.accept_enabled && both.number(Id::LocalPort).is_none_or(|(said, _)| said != port) {
        let text = format!(
            "its accept_port is left aside: write \"local_port\": {port} if clients are to come in there"
        );
        report.warn(place, text);
    }
}

fn read(path: &str, place: &str, report: &mut Report) -> Option<Zeroizing<String>> {
    if path.is_empty() {
        report.error(place, NO_PATH);
        return None;
    }
    match read_text(FilePath::new(path), FILE_BYTES_MAX) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let line = line_that_is_no_text(path).map_or_else(String::new, |line| format!(":{line}"));
            report.error(
                format!("{path}{line}"),
                "the line is not UTF-8 text; check the path, and save the file as UTF-8",
            );
            None
        }
        Err(error) => {
            report.error(place, format!("{path} cannot be read: {error}; check the path"));
            None
        }
    }
}

/// The line of a file at which it is no UTF-8 text any more, counted from 1.
fn line_that_is_no_text(path: &str) -> Option<usize> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let good = str::from_utf8(&bytes).err()?.valid_up_to();
    Some(bytes[..good].iter().filter(|byte| **byte == b'\n').count() + 1)
}

/// Twice what the readers take, who say it better.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// No client waits for longer.
const PATIENCE_MAX: Duration = Duration::from_secs(600);
