//! A group for many workers, together with what its members are; an attempt that is dropped gives its place back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{
    Attempt, Attempts, Change, Doubt, Ending, Kind, Member, NextProbe, Outcome, Probe, Settings, State,
    Status, Wanted,
};

/// A group behind a lock, with an `M` for each member.
#[derive(Debug)]
pub struct Shared<M>(Mutex<Group<M>>);

#[derive(Debug)]
struct Group<M> {
    state: State,
    members: Vec<Arc<M>>,
}

/// An attempt that is given back, whatever happens to the session.
#[derive(Debug)]
#[must_use = "what came of it is to be reported"]
pub struct Held<'a, M> {
    group: &'a Shared<M>,
    member: Arc<M>,
    kind: Kind,
    attempt: Option<Attempt>,
}

/// An attempt whose member has not led to the target, and it is not known yet whether that was the target's fault. Nothing follows from one
/// that is dropped.
#[derive(Debug)]
#[must_use = "who was to blame is to be told"]
pub struct Doubtful<'a, M> {
    group: &'a Shared<M>,
    member: Arc<M>,
    doubt: Option<Doubt>,
}

/// What a prober is to do.
#[derive(Debug)]
pub enum Errand<M> {
    /// Probe this member, and then ask again.
    Probe(Probe, Arc<M>),
    /// Ask again at this time.
    At(Instant),
    /// Nothing, until the group is used again.
    Unused,
}

impl<M> Shared<M> {
    /// A group of whose members nothing is known.
    pub fn new(settings: Settings, members: Vec<(Member, Arc<M>)>) -> Self {
        let (names, members): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        Self(Mutex::new(Group { state: State::new(settings, &names), members }))
    }

    /// Exchanges the members, as [`State::replace`] does.
    pub fn replace(&self, members: Vec<(Member, Arc<M>)>, now: Instant) {
        let (names, members): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        let mut group = self.lock();
        group.state.replace(&names, now);
        group.members = members;
    }

    /// The members of this moment.
    pub fn members(&self) -> Vec<Arc<M>> {
        self.lock().members.clone()
    }

    /// The members of this moment with what is known of each.
    pub fn describe(&self, now: Instant) -> Vec<(Arc<M>, Status)> {
        let group = self.lock();
        group.members.iter().cloned().zip(group.state.describe(now)).collect()
    }

    /// Does something with the state: to look at it, or to change the settings. Nothing is to be waited for meanwhile.
    pub fn with_state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.lock().state)
    }

    /// A session's walk through the group, which has taken no step yet.
    pub fn begin(&self, wanted: &Wanted<'_>, now: Instant) -> Attempts {
        self.lock().state.begin(wanted, now)
    }

    /// The member that a session is to try next, or none if it has failed.
    pub fn next(&self, attempts: &mut Attempts, now: Instant) -> Option<Held<'_, M>> {
        let mut group = self.lock();
        let attempt = group.state.next(attempts, now)?;
        let member = Arc::clone(group.members.get(attempt.member())?);
        Some(Held { group: self, member, kind: attempt.kind(), attempt: Some(attempt) })
    }

    /// The next probe, or when to ask again, as [`State::next_probe`] says.
    pub fn next_probe(&self, now: Instant, chance: u64) -> Errand<M> {
        let mut group = self.lock();
        match group.state.next_probe(now, chance) {
            NextProbe::Due(probe) => match group.members.get(probe.member()) {
                Some(member) => Errand::Probe(probe, Arc::clone(member)),
                None => Errand::Unused,
            },
            NextProbe::At(next) => Errand::At(next),
            NextProbe::Unused => Errand::Unused,
        }
    }

    /// What came of a probe. Tells what has become of the member.
    pub fn probed(&self, probe: Probe, outcome: Outcome, now: Instant) -> Option<Change> {
        self.lock().state.probed(probe, outcome, now)
    }

    fn lock(&self) -> MutexGuard<'_, Group<M>> {
        // No step leaves the group in a state that the next could not go on from.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Held<'_, M> {
    /// The member that is to be tried.
    pub fn member(&self) -> &Arc<M> {
        &self.member
    }

    /// As what it is tried.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it has its share of the session's time by `at`, and can be judged by what it has not done in that.
    pub fn is_overdue(&self, at: Instant) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.is_overdue(at))
    }

    /// It has let a deadline pass, which is all that it should have had, however little that is.
    pub fn has_run_late(&mut self, now: Instant) {
        if let Some(attempt) = &mut self.attempt {
            attempt.due = attempt.due.min(now);
        }
    }

    /// Its session has no time for another try of the same turn: a failure counts.
    pub fn end_turn(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.counts = true;
        }
    }

    /// What came of it. Tells what has become of the member.
    pub fn report(mut self, outcome: Outcome, now: Instant) -> Option<Change> {
        let attempt = self.attempt.take()?;
        self.group.lock().state.report(attempt, outcome, now)
    }
}

impl<'a, M> Held<'a, M> {
    /// The attempt for whoever has it for longer, and reports to the group itself. It is the only try of its turn.
    pub fn into_attempt(mut self) -> Option<Attempt> {
        self.end_turn();
        self.attempt.take()
    }

    /// It said no or nothing, and it cannot be told yet whether the target is to blame.
    pub fn doubt(mut self, outcome: Outcome, now: Instant) -> Option<Doubtful<'a, M>> {
        let attempt = self.attempt.take()?;
        let doubt = Some(self.group.lock().state.doubt(attempt, outcome, now));
        Some(Doubtful { group: self.group, member: Arc::clone(&self.member), doubt })
    }
}

impl<M> Doubtful<'_, M> {
    /// Who has not led there.
    pub fn member(&self) -> &Arc<M> {
        &self.member
    }

    /// Another one, `reached`, has led to the target. Tells what has become of the member.
    pub fn blame(mut self, reached: Member, now: Instant) -> Option<Change> {
        let doubt = self.doubt.take()?;
        self.group.lock().state.blame(doubt, reached, now)
    }

    /// Nobody is known to. Tells what has become of the member.
    pub fn settle(mut self, ending: Ending, now: Instant) -> Option<Change> {
        let doubt = self.doubt.take()?;
        self.group.lock().state.settle(doubt, ending, now)
    }
}

impl<M> Drop for Doubtful<'_, M> {
    fn drop(&mut self) {
        if let Some(doubt) = self.doubt.take() {
            self.group.lock().state.abandon(doubt.attempt, Instant::now());
        }
    }
}

impl<M> Drop for Held<'_, M> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.group.lock().state.abandon(attempt, Instant::now());
        }
    }
}
