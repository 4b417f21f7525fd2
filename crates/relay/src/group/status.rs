//! What is told of a group's members.

use std::time::Duration;

use tokio::time::Instant;

use super::State;

/// What is known of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// How it is.
    pub condition: Condition,
    /// How long it takes to reach it, smoothed.
    pub latency: Option<Duration>,
    /// Attempts of sessions that have reached it.
    pub sessions_reached: u64,
    /// Attempts of sessions that have failed at it, each of several tries counted.
    pub sessions_failed: u64,
    /// Probes that have reached it.
    pub probes_good: u64,
    /// Probes that have failed.
    pub probes_failed: u64,
}

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It serves.
    Up,
    /// It serves, and has failed.
    Failing {
        /// So often.
        failures: u32,
        /// So many mark it down.
        threshold: u32,
    },
    /// It serves a growing part of the sessions.
    Returning {
        /// It has been back for so long.
        back: Duration,
    },
    /// It is left alone.
    Down {
        /// Since when.
        since: Instant,
        /// For how much longer, before a session tries it.
        retry_in: Duration,
        /// Whether a session is trying it.
        is_on_trial: bool,
        /// Whether it is so on no more than a suspicion: it is tried for want of others.
        is_suspected: bool,
    },
}

impl Condition {
    /// How it is, in a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Failing { .. } => "failing",
            Self::Returning { .. } => "returning",
            Self::Down { is_on_trial: true, .. } => "trial",
            Self::Down { is_suspected: true, .. } => "suspected",
            Self::Down { is_suspected: false, .. } => "down",
        }
    }
}

impl State {
    /// What is known of each member, in the list's order.
    pub fn describe(&self, now: Instant) -> Vec<Status> {
        self.records.iter().map(|record| record.status(&self.settings.health, now)).collect()
    }
}
