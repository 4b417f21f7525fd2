//! The group beside a plain telling of what Traffic Server does, except that attempts are counted exactly, and that a session has a second
//! retry only when nobody else is left.

use proptest::prelude::*;

use super::*;

/// A server list as its `ParentRoundRobin` keeps it.
#[derive(Debug)]
struct Plain {
    settings: Settings,
    servers: Vec<Server>,
    turn: usize,
    latched: usize,
}

/// Whom a session has been to.
#[derive(Default)]
struct Walked {
    visited: Vec<usize>,
    has_retried: bool,
}

#[derive(Clone, Debug, Default)]
struct Server {
    failed_at: Option<u64>,
    fail_count: u32,
}

impl Plain {
    fn is_usable(&self, index: usize, now: u64) -> Option<bool> {
        let server = &self.servers[index];
        match server.failed_at {
            Some(failed_at) if server.fail_count >= self.settings.health.fail_threshold.get() => {
                (failed_at + self.settings.health.retry_time.as_secs() < now).then_some(true)
            }
            Some(_) | None => Some(false),
        }
    }

    /// The next one that is up, or due for a retry. Where a session has had a retry, those that are up come first, once each, and then those
    /// that were passed over: another retry would cost it another attempt.
    fn walk(&self, begun: usize, walked: &Walked, now: u64) -> Option<(usize, bool)> {
        let count = self.servers.len();
        let start = if self.settings.policy == Policy::Latched { self.latched } else { begun };
        let around = || {
            let indices = (0..count).map(|step| (start + step) % count);
            indices.filter_map(|index| self.is_usable(index, now).map(|is_retry| (index, is_retry)))
        };
        let left = || around().filter(|(index, _)| !walked.visited.contains(index));
        let up = left().find(|(_, is_retry)| !(walked.has_retried && *is_retry));
        let again = || around().find(|(index, _)| walked.visited.last() != Some(index));
        up.or_else(|| left().next()).or_else(again).or_else(|| around().next())
    }

    fn mark_down(&mut self, index: usize, is_retry: bool, now: u64) {
        let window = self.settings.health.fail_window.as_secs();
        let server = &mut self.servers[index];
        match server.failed_at {
            Some(_) if is_retry => server.failed_at = Some(now),
            Some(failed_at) if failed_at + window >= now => server.fail_count += 1,
            Some(_) | None => *server = Server { failed_at: Some(now), fail_count: 1 },
        }
    }

    fn session(&mut self, target: u32, is_well: &[bool], now: u64) -> Told {
        let count = self.servers.len();
        let begun = match self.settings.policy {
            Policy::RoundRobin => {
                self.turn += 1;
                (self.turn - 1) % count
            }
            Policy::AddressModulo => target as usize % count,
            Policy::Latched => self.latched,
            Policy::Ordered
            | Policy::TargetHash
            | Policy::SourceHash
            | Policy::LeastLatency
            | Policy::Weighted
            | Policy::Random => 0,
        };
        let mut tried = Vec::new();
        let mut walked = Walked::default();
        while let Some((index, is_retry)) = self.walk(begun, &walked, now) {
            if walked.visited.contains(&index) {
                walked.visited.clear();
            }
            walked.visited.push(index);
            walked.has_retried |= is_retry;
            // One that is passed over by this session alone stays in use for the others.
            if self.settings.policy == Policy::Latched && self.is_usable(self.latched, now).is_none() {
                self.latched = index;
            }
            for _ in 0..self.settings.attempts_per_member.get() {
                tried.push(index);
                if is_well[index] {
                    if is_retry {
                        self.servers[index] = Server::default();
                    }
                    return Told { tried, reached: Some(index) };
                }
                if tried.len() == self.settings.attempts_max.get() as usize {
                    break;
                }
            }
            self.mark_down(index, is_retry, now);
            if self.settings.policy == Policy::Latched && index == self.latched {
                self.latched = (index + 1) % count;
            }
            if tried.len() == self.settings.attempts_max.get() as usize {
                break;
            }
        }
        Told { tried, reached: None }
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let policy = prop_oneof![
        Just(Policy::Ordered),
        Just(Policy::RoundRobin),
        Just(Policy::AddressModulo),
        Just(Policy::Latched),
    ];
    (policy, 1..4_u32, 1..12_u32, 1..4_u32, 1..40_u64).prop_map(
        |(policy, per_member, most, threshold, retry)| {
            let like = Settings::like_traffic_server(policy);
            let retry_time = Duration::from_secs(retry);
            Settings {
                attempts_per_member: some(per_member),
                attempts_max: some(most),
                health: Health {
                    fail_threshold: some(threshold),
                    fail_window: retry_time,
                    retry_time,
                    ..like.health
                },
                ..like
            }
        },
    )
}

proptest! {
    #[test]
    fn requests_try_the_servers_that_the_original_tries(
        settings in settings(),
        count in 1..6_usize,
        steps in prop::collection::vec((0..20_u64, any::<u32>(), any::<[bool; 6]>()), 1..60),
    ) {
        let mut world = World::new(settings, count);
        let mut plain =
            Plain { settings, servers: vec![Server::default(); count], turn: 0, latched: 0 };
        let mut now = 0;
        for (secs, target, is_well) in steps {
            now += secs;
            world.pass(secs);
            world.is_well = is_well.to_vec();
            world.target = Address::from_host(&Ipv4Addr::from_bits(target).to_string(), 1).unwrap();
            prop_assert_eq!(world.session(), plain.session(target, &is_well, now));
        }
    }
}
