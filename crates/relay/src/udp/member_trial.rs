//! An association's trial of a group's member that was down: a session has its answer when it ends, while datagrams have theirs whenever
//! one comes back.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::{Group, Path};
use crate::group::{Attempt, Change, Held, Kind, Outcome};
use crate::limits::REVIEW_SECS;

/// An association's trial of a member that is down: nobody else tries that until an answer has come, the path has failed or the lane is
/// left. One that is left without an answer has failed, unless it was left before anybody could expect one.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) group: Arc<Group>,
    attempt: Option<Attempt>,
    since: Instant,
}

impl Trial {
    /// The one that an attempt is, if its member is down.
    pub(super) fn of(held: Held<'_, Path>, group: &Arc<Group>, since: Instant) -> Option<Self> {
        match held.kind() {
            Kind::Trial => {
                let (group, attempt) = (Arc::clone(group), held.into_attempt());
                Some(Self { group, attempt, since })
            }
            Kind::Regular | Kind::LastResort => None,
        }
    }

    /// An answer has come, of which the group is told as of any other.
    pub(super) fn succeed(mut self, now: Instant) {
        self.end(Outcome::Abandoned, now);
    }

    /// The path could not be taken, or has broken. Tells what has become of the member.
    pub(super) fn fail(&mut self, now: Instant) -> Option<Change> {
        self.end(Outcome::Failed, now)
    }

    /// Its lane is left. Tells what has become of the member.
    pub(super) fn leave(&mut self, now: Instant) -> Option<Change> {
        let is_early = now.saturating_duration_since(self.since) < REVIEW_SECS;
        self.end(if is_early { Outcome::Abandoned } else { Outcome::Failed }, now)
    }

    fn end(&mut self, outcome: Outcome, now: Instant) -> Option<Change> {
        let attempt = self.attempt.take()?;
        self.group.datagrams.with_state(|state| state.report(attempt, outcome, now))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.leave(Instant::now());
    }
}
