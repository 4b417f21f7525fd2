//! An association's trial of a group's member that was down: a session has its answer when it ends, while datagrams have theirs whenever
//! one comes back.

use std::sync::Arc;

use tokio::time::Instant;

use crate::config::{Group, Path};
use crate::failure::{Cause, Failure, Stage};
use crate::group::{Attempt, Ending, Held, Kind, Outcome};
use crate::limits::ANSWER_SECS;
use crate::notice::Notices;

/// An association's trial of a member that is down: nobody else tries that until an answer has come, the path has failed or the lane is
/// left, which it is not before an answer is due. One that ends earlier without an answer says nothing. A later one leaves the member
/// suspected: its targets may have swallowed the datagrams, and nobody is out of reach for that. However it ends, it tells by itself what has
/// come of it: the group, the counts of the path, and the operator.
#[derive(Debug)]
pub(super) struct Trial {
    group: Arc<Group>,
    path: Arc<Path>,
    notices: Arc<Notices>,
    since: Instant,
    /// Until it is known what has come of it.
    attempt: Option<Attempt>,
}

impl Trial {
    /// The one that an attempt in `group` is, if its member is down.
    pub(super) fn of(
        held: Held<'_, Path>,
        group: &Arc<Group>,
        notices: &Arc<Notices>,
        since: Instant,
    ) -> Option<Self> {
        match held.kind() {
            Kind::Trial => {
                let (group, path) = (Arc::clone(group), Arc::clone(held.member()));
                let (notices, attempt) = (Arc::clone(notices), held.into_attempt());
                Some(Self { group, path, notices, since, attempt })
            }
            Kind::Regular | Kind::LastResort => None,
        }
    }

    /// Whether a path is tried for `group`.
    pub(super) fn is_for(&self, group: &Arc<Group>) -> bool {
        Arc::ptr_eq(&self.group, group)
    }

    /// Whether `path` is tried for `group`.
    pub(super) fn is_of(&self, path: &Arc<Path>, group: &Arc<Group>) -> bool {
        self.is_for(group) && Arc::ptr_eq(&self.path, path)
    }

    /// Whether it is too early to give up.
    pub(super) fn may_be_answered(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < ANSWER_SECS
    }

    /// An answer has come, of which the group learns as of any other.
    pub(super) fn succeed(mut self, now: Instant) {
        let Some(attempt) = self.attempt.take() else { return };
        let change = self.group.datagrams.with_state(|state| {
            state.abandon(attempt, now);
            state.note(self.path.member(), true, now)
        });
        self.notices.change(&self.group, &self.path, change, None);
    }

    /// The path could not be taken, or has broken.
    pub(super) fn fail(mut self, why: &Failure, now: Instant) {
        self.end_failed(why, now);
    }

    /// Its lane is left, and no answer has come.
    pub(super) fn leave(mut self, now: Instant) {
        self.end_unanswered(now);
    }

    /// It says nothing about the member.
    pub(super) fn abandon(mut self, now: Instant) {
        self.end_abandoned(now);
    }

    fn end_unanswered(&mut self, now: Instant) {
        if self.may_be_answered(now) {
            return self.end_abandoned(now);
        }
        let Some(attempt) = self.attempt.take() else { return };
        let why = Failure::outbound(Stage::Relay, Cause::Unanswered);
        self.path.tally.datagrams.fail(&why);
        let change = self.group.datagrams.with_state(|state| {
            let doubt = state.doubt(attempt, Outcome::Silent, now);
            state.settle(doubt, Ending::Untold, now)
        });
        self.notices.change(&self.group, &self.path, change, Some(&why));
    }

    fn end_failed(&mut self, why: &Failure, now: Instant) {
        let Some(attempt) = self.attempt.take() else { return };
        self.path.tally.datagrams.fail(why);
        let change = self.group.datagrams.with_state(|state| state.report(attempt, Outcome::Failed, now));
        self.notices.change(&self.group, &self.path, change, Some(why));
    }

    fn end_abandoned(&mut self, now: Instant) {
        if let Some(attempt) = self.attempt.take() {
            self.group.datagrams.with_state(|state| state.abandon(attempt, now));
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.end_unanswered(Instant::now());
    }
}
