//! What a running process tells of its ways out: what has been counted of each, and how the members of its groups are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tracing::info;

use crate::config::{Group, Inbound, Path, Route, Routes};
use crate::group::{Condition, Status};
use crate::tally::{Counts, HopCounts};

/// Every way out of some inbounds.
#[derive(Debug)]
pub struct Account {
    has_streams: bool,
    has_datagrams: bool,
    paths: Vec<Arc<Path>>,
    groups: Vec<Arc<Group>>,
}

impl Account {
    /// Of all that sessions of `inbounds` may take.
    pub fn of<'i, I: IntoIterator<Item = &'i Inbound>>(inbounds: I) -> Self {
        let (mut paths, mut groups) = (Distinct::default(), Distinct::default());
        let (mut has_streams, mut has_datagrams) = (false, false);
        let mut last: Option<&Routes> = None;
        for inbound in inbounds {
            has_streams |= inbound.mode.has_streams();
            has_datagrams |= inbound.mode.datagrams().is_some();
            // Thousands of ports share their rules.
            if last.replace(&inbound.routes).is_some_and(|last| last.is(&inbound.routes)) {
                continue;
            }
            for route in inbound.routes.all() {
                match route {
                    Route::Path(path) => paths.add(path),
                    Route::Group(group) => groups.add(group),
                    Route::Refuse(_) => {}
                }
            }
        }
        Self { has_streams, has_datagrams, paths: paths.all, groups: groups.all }
    }

    /// What has been counted of each path, by its name. Paths of one name are one: the same proxy may stand in several rules.
    pub fn counts(&self) -> Vec<(Arc<Path>, Counts)> {
        let mut paths = Distinct::default();
        self.paths.iter().for_each(|path| paths.add(path));
        for group in &self.groups {
            // It has other members than a moment ago where a document of servers has changed.
            group.paths().iter().chain(&group.paths_of_datagrams()).for_each(|path| paths.add(path));
        }
        let mut counts: Vec<(Arc<Path>, Counts)> = Vec::with_capacity(paths.all.len());
        let mut places = HashMap::new();
        for path in paths.all {
            let place = *places.entry(Arc::clone(&path.name)).or_insert(counts.len());
            match counts.get_mut(place) {
                Some((_, known)) => known.add(&path.counts()),
                None => counts.push((Arc::clone(&path), path.counts())),
            }
        }
        counts
    }

    /// Writes a line for each path, for each hop of one, and for each member of a group. No line names a client or a target.
    pub fn tell(&self) {
        self.tell_of(Telling::Everything);
    }

    /// The same for what anybody has gone by: of thousands of servers that may be a few.
    pub fn tell_what_was_used(&self) {
        self.tell_of(Telling::WhatWasUsed);
    }

    fn tell_of(&self, telling: Telling) {
        for (path, counts) in self.counts() {
            if self.has_streams && path.has_streams() && telling.is_about(counts.tried()) {
                tell_of_streams(&path.name, &counts);
            }
            let Counts { datagrams_reached: reached, datagrams_failed: failed, .. } = counts;
            if self.has_datagrams && path.has_datagrams() && telling.is_about(reached + failed) {
                info!(path = &*path.name, network = "udp", reached, failed, "counts of path");
                tell_of_parents(&path.name, "udp", &counts.datagram_hops);
            }
        }
        for group in &self.groups {
            if self.has_streams {
                tell_of_members(group, "tcp", &group.members(), telling);
            }
            if self.has_datagrams {
                tell_of_members(group, "udp", &group.members_for_datagrams(), telling);
            }
        }
    }
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    Everything,
    WhatWasUsed,
}

impl Telling {
    /// Whether something is told of that was used so often.
    fn is_about(self, uses: u64) -> bool {
        self == Self::Everything || uses > 0
    }
}

/// Each of several once, in the order in which they came.
struct Distinct<T> {
    seen: HashSet<*const T>,
    all: Vec<Arc<T>>,
}

impl<T> Default for Distinct<T> {
    fn default() -> Self {
        Self { seen: HashSet::new(), all: Vec::new() }
    }
}

impl<T> Distinct<T> {
    fn add(&mut self, one: &Arc<T>) {
        if self.seen.insert(Arc::as_ptr(one)) {
            self.all.push(Arc::clone(one));
        }
    }
}

fn tell_of_streams(path: &str, counts: &Counts) {
    let Counts { reached, declined, abandoned, .. } = *counts;
    let (tried, failed) = (counts.tried(), counts.failed());
    info!(path, network = "tcp", tried, reached, declined, failed, abandoned, "counts of path");
    tell_of_parents(path, "tcp", &counts.hops);
}

fn tell_of_parents(path: &str, network: &str, hops: &[HopCounts]) {
    for (hop, counts) in (1_usize..).zip(hops) {
        let HopCounts { resolve, connect, negotiate, denied } = *counts;
        let failed = counts.failed();
        info!(path, network, hop, failed, resolve, connect, negotiate, denied, "counts of parent");
    }
}

fn tell_of_members(group: &Group, network: &str, members: &[(Arc<Path>, Status)], telling: Telling) {
    let group = &*group.name;
    for (path, status) in members {
        let Status {
            condition,
            latency,
            sessions_reached: reached,
            sessions_failed: failed,
            probes_good,
            probes_failed,
        } = *status;
        if !telling.is_about(reached + failed + probes_good + probes_failed) {
            continue;
        }
        let (path, health) = (&*path.name, condition.word());
        let (failures, retry_in_s) = match condition {
            Condition::Up | Condition::Returning { .. } => (None, None),
            Condition::Failing { failures, .. } => (Some(failures), None),
            Condition::Down { retry_in, .. } => (None, Some(retry_in.as_secs())),
        };
        let latency_ms = latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
        info!(
            group,
            path,
            network,
            health,
            failures,
            retry_in_s,
            latency_ms,
            reached,
            failed,
            probes_good,
            probes_failed,
            "counts of member"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Candidate, Hop, Mode, Parent, Protocol, ProxyDoor, ProxyHeader, Tcp};
    use crate::group::{Outcome, Settings};
    use crate::router::{Conditions, Router, Rule};

    fn inbound(routes: Routes) -> Inbound {
        Inbound {
            name: "door".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            protocol: Protocol::Proxy(ProxyDoor::MIXED),
            mode: Mode::Streams,
            routes,
            forbidden: Arc::default(),
            idle: std::time::Duration::from_secs(1),
            tcp: Tcp { no_delay: true, fast_open: false },
            proxy_header: ProxyHeader::default(),
        }
    }

    #[test]
    fn every_path_is_counted_once_however_many_ways_lead_to_it_and_those_of_one_name_together() {
        let parent =
            || Path::new("parent", [Hop::Parent(Parent::socks5("127.0.0.1:1".parse().unwrap(), None))]);
        let (one, other) = (Arc::new(parent()), Arc::new(parent()));
        let member = Candidate { path: Arc::clone(&other), weight: std::num::NonZeroU16::MIN };
        let group = Arc::new(Group::new("group", Settings::default(), vec![member]));
        let to = |verdict| Rule { name: "rule".into(), conditions: Conditions::default(), verdict };
        let rules = vec![to(Route::Path(Arc::clone(&one))), to(Route::Path(Arc::clone(&one)))];
        let routes = Routes::new(Router { rules, otherwise: Route::Group(group) });
        let further = Routes::from(Route::Path(Arc::clone(&one)));
        let inbounds = [routes.clone(), routes, further, Route::direct().into()].map(inbound);
        for (path, times) in [(&one, 2), (&other, 3)] {
            for _ in 0..times {
                path.tally.begin().end(Outcome::Declined, None);
            }
        }
        let counts = Account::of(&inbounds).counts();
        let told: Vec<_> = counts.iter().map(|(path, counts)| (&*path.name, counts.declined)).collect();
        assert_eq!(told, [("parent", 5), ("direct", 0)]);
    }
}
