//! The lanes of an association: each path that its datagrams take, with the way along it. Nearly always it is one.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::association::AssociationId;
use super::member_trial::Trial;
use super::names::Names;
use super::way::Way;
use crate::config::{Group, Path};
use crate::limits::LANES_PER_ASSOCIATION_MAX;

/// A lane, whatever becomes of it: a name that no other ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneId {
    pub(super) association: AssociationId,
    pub(super) number: LaneNumber,
}

/// Which of the lanes that its engine has ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneNumber(u32);

/// How many lanes an engine has had.
#[derive(Debug, Default)]
pub(super) struct LaneNumbers(u32);

/// Where a target's datagrams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) number: LaneNumber,
    /// The address of the target's name that a rule has looked at: it is meant, and no other.
    pub(super) address: Option<SocketAddr>,
    /// When it is to be chosen again.
    pub(super) due: Option<Instant>,
}

/// One path, and how far the way along it has come.
#[derive(Debug)]
pub(super) struct Lane {
    number: LaneNumber,
    /// The path could not be taken when that was tried last, and nobody has tried again.
    pub(super) has_failed: bool,
    /// Something has come back along it.
    pub(super) has_answered: bool,
    pub(super) path: Arc<Path>,
    pub(super) way: Way,
}

/// The lanes of one association.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// There from the first datagram on.
    first: Option<Lane>,
    /// When the only lane is to be chosen again, where no rules tell targets apart, unless that is when it fails.
    due: Option<Instant>,
    further: Option<Box<Further>>,
}

/// What only an association has whose datagrams go several ways.
#[derive(Debug, Default)]
struct Further {
    lanes: Vec<Lane>,
    /// All lanes, the one that was used last at the end.
    order: Vec<LaneNumber>,
    /// What was chosen in groups, and when it is to be chosen again: at once, where that is not said.
    choices: Vec<(Arc<Group>, Arc<Path>, Option<Instant>)>,
    /// The last target, and where it has gone.
    settled: Option<(Vec<u8>, Chosen)>,
    /// Names whose addresses rules have to know, or somebody who is asked to send on and told addresses alone.
    names: Names,
    /// Lanes by which members are tried that are down, and that no other association tries meanwhile.
    trials: Vec<(LaneNumber, Trial)>,
}

impl Lane {
    pub(super) fn new(number: LaneNumber, path: Arc<Path>, way: Way) -> Self {
        Self { number, has_failed: false, has_answered: false, path, way }
    }

    pub(super) fn number(&self) -> LaneNumber {
        self.number
    }

    /// Whether nothing goes there for now.
    pub(super) fn rests(&mut self, now: Instant) -> bool {
        self.way.link().is_some_and(|link| link.rests(now))
    }

    /// Whether somebody is asked there who is told addresses alone.
    pub(super) fn wants_address(&self) -> bool {
        !self.path.hops.is_empty() && self.path.resolves_names()
    }

    /// Whether it leads along `path`. Everything that goes direct goes one way, so that anybody may answer to one address.
    fn is_along(&self, path: &Arc<Path>) -> bool {
        Arc::ptr_eq(&self.path, path) || (self.path.hops.is_empty() && path.hops.is_empty())
    }
}

impl LaneNumber {
    /// No lane's: what is looked up for it is for all of them, and for the rules, which choose among them.
    pub(super) const ALL: Self = Self(0);
}

impl LaneNumbers {
    /// The number of one more.
    pub(super) fn next(&mut self) -> LaneNumber {
        self.0 = self.0.wrapping_add(1).max(1);
        LaneNumber(self.0)
    }
}

impl Lanes {
    /// One lane, and no other.
    pub(super) fn one(number: LaneNumber, path: Arc<Path>, way: Way) -> Self {
        Self { first: Some(Lane::new(number, path, way)), due: None, further: None }
    }

    /// The lane of a datagram to the target `block`, where that needs no choice: that of the last one to the same target, or the only
    /// one where no rules tell targets apart. A lane that has failed, or whose choice is due, is chosen again.
    pub(super) fn settled(&mut self, block: &[u8], has_rules: bool, now: Instant) -> Option<Chosen> {
        let chosen = if has_rules {
            let (target, chosen) = self.further.as_ref()?.settled.as_ref()?;
            (**target == *block).then_some(*chosen)?
        } else {
            Chosen { due: self.due, ..self.only()? }
        };
        if chosen.due.is_some_and(|due| now >= due) {
            return None;
        }
        self.get_mut(chosen.number).filter(|lane| !lane.has_failed).map(|_| chosen)
    }

    /// The only lane is good for all targets until it is `due`.
    pub(super) fn settle_all(&mut self, due: Option<Instant>) {
        self.due = due;
    }

    /// The only lane of an association whose way was not chosen, or of one without rules.
    pub(super) fn only(&self) -> Option<Chosen> {
        self.first().map(|number| Chosen { number, address: None, due: None })
    }

    /// The names whose addresses are for all lanes, and for rules.
    pub(super) fn names(&mut self) -> &mut Names {
        &mut self.further().names
    }

    /// How many datagrams wait for the address of their target before they go by any lane.
    pub(super) fn waiting(&self) -> usize {
        self.further.as_ref().map_or(0, |further| further.names.waiting())
    }

    /// Keeps the lane of the target `block` in mind.
    pub(super) fn settle(&mut self, block: &[u8], chosen: Chosen) {
        let further = self.further();
        let mut target = further.settled.take().map_or_else(Vec::new, |(target, _)| target);
        target.clear();
        target.extend_from_slice(block);
        further.settled = Some((target, chosen));
        self.touch(chosen.number);
    }

    /// Something goes or has come by this lane: it is the last to make room.
    pub(super) fn touch(&mut self, number: LaneNumber) {
        if let Some(further) = &mut self.further
            && further.order.last() != Some(&number)
        {
            further.order.retain(|other| *other != number);
            further.order.push(number);
        }
    }

    pub(super) fn get_mut(&mut self, number: LaneNumber) -> Option<&mut Lane> {
        match &mut self.first {
            Some(first) if first.number == number => Some(first),
            Some(_) | None => self.further.as_mut()?.lanes.iter_mut().find(|lane| lane.number == number),
        }
    }

    /// The only lane of an association whose way was not chosen.
    pub(super) fn first(&self) -> Option<LaneNumber> {
        self.first.as_ref().map(|lane| lane.number)
    }

    /// The lane along `path`.
    pub(super) fn along(&mut self, path: &Arc<Path>) -> Option<&mut Lane> {
        self.iter_mut().find(|lane| lane.is_along(path))
    }

    /// Adds a lane. One that has to go for it, the one that was used the longest time ago, is given to whoever can close it.
    pub(super) fn push(&mut self, lane: Lane) -> Option<Lane> {
        let number = lane.number;
        if self.first.is_none() {
            self.first = Some(lane);
            return None;
        }
        let further = self.further();
        let displaced = if further.lanes.len() + 1 < LANES_PER_ASSOCIATION_MAX {
            None
        } else {
            further.order.first().copied()
        };
        further.lanes.push(lane);
        further.order.push(number);
        displaced.and_then(|displaced| self.remove(displaced))
    }

    /// Takes a lane out.
    pub(super) fn remove(&mut self, number: LaneNumber) -> Option<Lane> {
        if let Some(further) = &mut self.further {
            further.order.retain(|other| *other != number);
            further.trials.retain(|(other, _)| *other != number);
            if let Some(at) = further.lanes.iter().position(|lane| lane.number == number) {
                return Some(further.lanes.remove(at));
            }
        }
        let removed = self.first.take_if(|lane| lane.number == number);
        // There is a first one for as long as there are any.
        if let (None, Some(further)) = (&self.first, &mut self.further) {
            self.first = further.lanes.pop();
        }
        removed
    }

    /// What was chosen in `group` for this association. Without rules there is one route, and one lane along what was chosen in it.
    pub(super) fn chosen(&self, group: &Arc<Group>, has_rules: bool) -> Option<(Arc<Path>, Option<Instant>)> {
        if !has_rules {
            return self.first.as_ref().map(|lane| (Arc::clone(&lane.path), self.due));
        }
        let choices = &self.further.as_ref()?.choices;
        let (_, path, due) = choices.iter().find(|(known, ..)| Arc::ptr_eq(known, group))?;
        Some((Arc::clone(path), *due))
    }

    /// Keeps in mind what was chosen in `group`, until it is `due`.
    pub(super) fn choose(&mut self, group: &Arc<Group>, path: &Arc<Path>, due: Option<Instant>) {
        let choices = &mut self.further().choices;
        choices.retain(|(known, ..)| !Arc::ptr_eq(known, group));
        if choices.len() >= LANES_PER_ASSOCIATION_MAX {
            choices.remove(0);
        }
        choices.push((Arc::clone(group), Arc::clone(path), due));
    }

    /// Whatever was chosen along the lane `number` is due.
    pub(super) fn revoke(&mut self, number: LaneNumber) {
        let Self { first, due, further } = self;
        *due = None;
        let Some(Further { lanes, choices, .. }) = further.as_deref_mut() else { return };
        let Some(lane) = first.iter().chain(&*lanes).find(|lane| lane.number == number) else { return };
        for (_, path, due) in choices {
            if lane.is_along(path) {
                *due = None;
            }
        }
    }

    /// The member of the lane `number` is tried by it.
    pub(super) fn begin_trial(&mut self, number: LaneNumber, trial: Trial) {
        self.further().trials.push((number, trial));
    }

    /// Whether `path` is on trial for `group`, and may be answered yet.
    pub(super) fn awaits_answer(&self, path: &Arc<Path>, group: &Arc<Group>, now: Instant) -> bool {
        let trials = self.further.iter().flat_map(|further| &further.trials);
        trials.map(|(_, trial)| trial).any(|trial| trial.is_of(path, group) && trial.may_be_answered(now))
    }

    /// The trial of `path` for `group`, if it is one, for whoever says what has come of it.
    pub(super) fn end_trial(&mut self, path: &Arc<Path>, group: &Arc<Group>) -> Option<Trial> {
        let trials = &mut self.further.as_mut()?.trials;
        let at = trials.iter().position(|(_, trial)| trial.is_of(path, group))?;
        Some(trials.swap_remove(at).1)
    }

    /// All trials by the lane `number`: one for each group in which its path was down.
    pub(super) fn end_trials(&mut self, number: LaneNumber) -> Vec<Trial> {
        let trials = self
            .further
            .iter_mut()
            .flat_map(|further| further.trials.extract_if(.., |(other, _)| *other == number));
        trials.map(|(_, trial)| trial).collect()
    }

    /// The groups in which a path was chosen that the lane `number` leads along, each with what it calls that path.
    pub(super) fn chosen_along(&self, number: LaneNumber) -> impl Iterator<Item = (&Arc<Group>, &Arc<Path>)> {
        let choices = self.further.iter().flat_map(|further| &further.choices);
        let lane = self.iter().find(|lane| lane.number == number);
        let is_along = move |path| lane.is_some_and(|lane| lane.is_along(path));
        choices.map(|(group, path, _)| (group, path)).filter(move |(_, path)| is_along(path))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.first.iter().chain(self.further.iter().flat_map(|further| &further.lanes))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.first.iter_mut().chain(self.further.iter_mut().flat_map(|further| &mut further.lanes))
    }

    fn further(&mut self) -> &mut Further {
        let first = self.first.as_ref().map(|lane| lane.number);
        self.further.get_or_insert_with(|| {
            Box::new(Further { order: first.into_iter().collect(), ..Further::default() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Hop, Parent};
    use crate::limits::REVIEW_SECS;

    fn path(name: &str) -> Arc<Path> {
        let parent = Parent::socks5("127.0.0.1:1".parse().unwrap(), None);
        Arc::new(Path::new(name, [Hop::Parent(parent)]))
    }

    fn to(number: LaneNumber) -> Option<Chosen> {
        Some(Chosen { number, address: None, due: None })
    }

    /// Adds a lane with the next number.
    fn add(lanes: &mut Lanes, path: &Arc<Path>) -> (LaneNumber, Option<Arc<Path>>) {
        let newest = lanes.iter().map(|lane| lane.number.0).max();
        let number = LaneNumbers(newest.unwrap_or_default()).next();
        let displaced = lanes.push(Lane::new(number, Arc::clone(path), Way::Direct(Box::default())));
        (number, displaced.map(|lane| lane.path))
    }

    #[test]
    fn a_lane_alone_needs_no_more_than_itself() {
        let (mut lanes, only) = (Lanes::default(), path("only"));
        assert_eq!(lanes.settled(b"target", false, Instant::now()), None);
        let (number, _) = add(&mut lanes, &only);
        assert_eq!(lanes.settled(b"target", false, Instant::now()), to(number));
        assert_eq!(lanes.settled(b"another", false, Instant::now()), to(number));
        assert_eq!(
            lanes.settled(b"target", true, Instant::now()),
            None,
            "with rules it is chosen for each target"
        );
        assert!(lanes.further.is_none());
    }

    #[test]
    fn a_lane_alone_is_small() {
        assert!(size_of::<Lanes>() <= 96);
    }

    #[test]
    fn a_target_keeps_its_lane_and_one_that_has_failed_is_chosen_again() {
        let mut lanes = Lanes::default();
        let [(one, _), (other, _)] = [path("one"), path("other")].map(|path| add(&mut lanes, &path));
        lanes.settle(b"target", to(other).unwrap());
        assert_eq!(lanes.settled(b"target", true, Instant::now()), to(other));
        assert_eq!(lanes.settled(b"targe", true, Instant::now()), None);
        lanes.settle(b"t", to(one).unwrap());
        assert_eq!(lanes.settled(b"t", true, Instant::now()), to(one));
        assert_eq!(lanes.settled(b"target", true, Instant::now()), None, "the last one is kept in mind");
        lanes.get_mut(one).unwrap().has_failed = true;
        assert_eq!(lanes.settled(b"t", true, Instant::now()), None);
    }

    #[test]
    fn a_choice_that_is_due_is_made_again() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let (number, way) = (LaneNumbers::default().next(), Way::Direct(Box::default()));
        lanes.push(Lane::new(number, path("one of a group"), way));
        let due = Some(now + REVIEW_SECS);
        let chosen = Chosen { number, address: None, due };
        lanes.settle_all(due);
        assert_eq!(lanes.settled(b"target", false, now), Some(chosen));
        assert_eq!(lanes.settled(b"target", false, now + REVIEW_SECS), None);
        lanes.settle(b"target", chosen);
        assert_eq!(lanes.settled(b"target", true, now), Some(chosen));
        assert_eq!(lanes.settled(b"target", true, now + REVIEW_SECS), None);
    }

    #[test]
    fn at_the_bound_the_lane_goes_that_was_used_the_longest_time_ago() {
        let mut lanes = Lanes::default();
        let paths: Vec<_> = (0..=LANES_PER_ASSOCIATION_MAX).map(|_| path("one of many")).collect();
        let (most, [past]) = paths.split_at(LANES_PER_ASSOCIATION_MAX) else { panic!() };
        let numbers: Vec<_> = most
            .iter()
            .map(|path| {
                let (number, displaced) = add(&mut lanes, path);
                assert!(displaced.is_none());
                number
            })
            .collect();
        assert_eq!(lanes.iter().count(), LANES_PER_ASSOCIATION_MAX);
        // The first is used again, so that the second is the one to go.
        lanes.settle(b"target", to(numbers[0]).unwrap());
        let (number, displaced) = add(&mut lanes, past);
        assert!(displaced.is_some_and(|displaced| Arc::ptr_eq(&displaced, &paths[1])));
        assert!(!numbers.contains(&number), "no later lane has its number");
        assert!(lanes.get_mut(numbers[1]).is_none());
        assert_eq!(lanes.iter().count(), LANES_PER_ASSOCIATION_MAX);
        assert_eq!(lanes.settled(b"target", true, Instant::now()), to(numbers[0]));
        for (index, path) in paths.iter().enumerate() {
            assert_eq!(lanes.along(path).is_some(), index != 1);
        }
    }

    #[test]
    fn the_first_lane_can_go_as_any_other() {
        let mut lanes = Lanes::default();
        let [one, other] = [path("one"), path("other")];
        let ((first, _), (second, _)) = (add(&mut lanes, &one), add(&mut lanes, &other));
        assert!(lanes.remove(first).is_some_and(|lane| Arc::ptr_eq(&lane.path, &one)));
        assert!(lanes.remove(first).is_none());
        assert_eq!((lanes.first(), lanes.iter().count()), (Some(second), 1));
        assert!(lanes.remove(second).is_some());
        assert_eq!(lanes.iter().count(), 0);
    }

    #[test]
    fn everything_that_goes_direct_has_one_lane() {
        let mut lanes = Lanes::default();
        let (number, _) = add(&mut lanes, &Arc::new(Path::direct()));
        let found = lanes.along(&Arc::new(Path::new("by another name", [])));
        assert_eq!(found.map(|lane| lane.number), Some(number));
        assert!(lanes.along(&path("not direct")).is_none());
    }

    #[test]
    fn what_was_chosen_in_a_group_stays_chosen() {
        let group = || Arc::new(Group::of_servers(vec![]));
        let [one, other] = [group(), group()];
        let [first, second] = [path("first"), path("second")];
        let mut lanes = Lanes::default();
        assert!(lanes.chosen(&one, true).is_none());
        lanes.choose(&one, &first, None);
        lanes.choose(&other, &second, None);
        lanes.choose(&Arc::clone(&one), &second, None);
        assert!(lanes.chosen(&one, true).is_some_and(|(path, _)| Arc::ptr_eq(&path, &second)));
        for _ in 0..2 * LANES_PER_ASSOCIATION_MAX {
            lanes.choose(&group(), &first, None);
        }
        assert!(lanes.further.unwrap().choices.len() <= LANES_PER_ASSOCIATION_MAX);
    }
}
