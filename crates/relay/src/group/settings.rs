//! What an operator chooses for a group, and what is chosen where nothing is said.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::limits::{ANSWER_SECS, PROBE_INTERVAL_SECS_MAX, PROBE_INTERVAL_SECS_MIN, REACH_SECS_MAX};

/// How a group chooses among its members, and what it holds against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// In which order members are tried.
    pub policy: Policy,
    /// How often a session tries a member before the next one.
    pub attempts_per_member: NonZeroU32,
    /// How many attempts a session has in all, exactly.
    pub attempts_max: NonZeroU32,
    /// How long a session may look for a member that leads to its target.
    pub patience: Duration,
    /// Whether members have further turns when all have had one.
    pub rounds: Rounds,
    /// What a session does that has nobody left to try.
    pub none_left: NoneLeft,
    /// For how long after its last session a source stays with the member that served it.
    pub sticky: Option<Duration>,
    /// What is held against members.
    pub health: Health,
}

/// In which order members are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// In the list's order (`round_robin=false`).
    Ordered,
    /// From the next in turn for each session (`round_robin=strict`).
    RoundRobin,
    /// From the one that the target's IPv4 address, as a number, stands for (`round_robin=true`); other targets by their hash.
    AddressModulo,
    /// From the one that is in use until it fails (`round_robin=latched`).
    Latched,
    /// By the target: the same one for the same host (`round_robin=consistent_hash`).
    TargetHash,
    /// By the source: the same one for the same client.
    SourceHash,
    /// The one that is reached fastest.
    LeastLatency,
    /// In turn, each as often as its weight says.
    Weighted,
    /// Any, each as likely as the others.
    Random,
}

/// How many turns a member has in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounds {
    /// One: who has just failed would fail again.
    One,
    /// As many as the attempts are enough for.
    UntilAttemptsEnd,
}

/// What a session does when every member is down or has failed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoneLeft {
    /// It fails at once, and members that are down are left alone.
    Fail,
    /// It tries those that are down as well, each once.
    TryAll,
}

/// What is held against members, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// So many failures within the window mark a member down.
    pub fail_threshold: NonZeroU32,
    /// A failure that is longer ago than this after the first one begins a count of its own.
    pub fail_window: Duration,
    /// How long a member that is down is left alone. Then one session tries it.
    pub retry_time: Duration,
    /// From when that time counts.
    pub retry_from: RetryFrom,
    /// Whether a session that is served takes back what was counted before.
    pub success_clears: bool,
    /// For how long a member that has come back gets a growing part of its sessions.
    pub slow_start: Duration,
    /// How many of the members may be down at a time, in percent. Of several members one may always be, unless this is nought.
    pub ejected_percent_max: u8,
    /// Whether members are probed.
    pub probing: Option<Probing>,
}

/// From when the time counts for which a member is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryFrom {
    /// From the first failure of those that marked it down.
    FirstFailure,
    /// From when it was marked down.
    Marking,
}

/// When members are probed while the group is in use, and what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// From one probe of a member to the next, on average.
    pub interval: Duration,
    /// By how much of the interval a probe comes earlier or later, at most, in percent.
    pub jitter_percent: u8,
    /// A group without a session for so many intervals is not in use.
    pub unused_intervals: u32,
    /// So many good probes in a row bring a member back.
    pub rise: NonZeroU32,
    /// So many failed ones in a row take it out.
    pub fall: NonZeroU32,
}

impl Settings {
    /// The share of a session's time that one of `count` members has: if each takes no more, all can be asked. More than an answer takes is
    /// no share of anybody's, however much time there is.
    pub(super) fn share(&self, count: usize) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        (self.patience / count).min(ANSWER_SECS)
    }

    /// What Traffic Server does unless it is told otherwise, for those that come from there; attempts are counted exactly.
    pub fn like_traffic_server(policy: Policy) -> Self {
        let retry_time = Duration::from_secs(300);
        Self {
            policy,
            attempts_per_member: NonZeroU32::MIN,
            attempts_max: ATTEMPTS_OF_TRAFFIC_SERVER,
            patience: REACH_SECS_MAX,
            rounds: Rounds::UntilAttemptsEnd,
            none_left: NoneLeft::Fail,
            sticky: None,
            health: Health {
                fail_window: retry_time,
                retry_time,
                retry_from: RetryFrom::FirstFailure,
                success_clears: false,
                ..Health::default()
            },
        }
    }
}

impl Default for Settings {
    /// In order, with every member tried before a session fails.
    fn default() -> Self {
        Self {
            policy: Policy::Ordered,
            attempts_per_member: NonZeroU32::MIN,
            attempts_max: ATTEMPTS,
            patience: REACH_SECS_MAX,
            rounds: Rounds::One,
            none_left: NoneLeft::TryAll,
            sticky: None,
            health: Health::default(),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            fail_threshold: TWO,
            fail_window: Duration::from_secs(60),
            retry_time: Duration::from_secs(30),
            retry_from: RetryFrom::Marking,
            success_clears: true,
            slow_start: Duration::ZERO,
            ejected_percent_max: 100,
            probing: None,
        }
    }
}

impl Default for Probing {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            jitter_percent: 50,
            unused_intervals: 4,
            rise: TWO,
            fall: THREE,
        }
    }
}

impl Health {
    /// How many of `count` members may be down at a time.
    pub(super) fn ejected_max(&self, count: usize) -> usize {
        let percent = usize::from(self.ejected_percent_max.min(100));
        let least = usize::from(percent > 0 && count > 1);
        (count.saturating_mul(percent) / 100).max(least)
    }
}

impl Probing {
    pub(super) fn interval(&self) -> Duration {
        self.interval.clamp(PROBE_INTERVAL_SECS_MIN, PROBE_INTERVAL_SECS_MAX)
    }
}

const TWO: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
const THREE: NonZeroU32 = TWO.saturating_add(1);

/// `proxy.config.socks.connection_attempts`.
const ATTEMPTS_OF_TRAFFIC_SERVER: NonZeroU32 = THREE.saturating_add(1);

/// As many as there are addresses of a name that are tried.
const ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(15);
