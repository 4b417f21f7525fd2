//! Which way a datagram goes.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;
use umbra_proto::address::AddressBlock;

use super::association::{Association, AssociationId, Face};
use super::dropped::Why;
use super::front::Front;
use super::lanes::{Chosen, Lane, LaneId, LaneNumber, Lanes};
use super::member_trial::Trial;
use super::names::Found;
use super::outside::Outside;
use super::search;
use super::way::Way;
use crate::config::{Group, Path, Route};
use crate::door::Door;
use crate::failure::Failure;
use crate::group::{Kind, Wanted};
use crate::limits::REVIEW_SECS;
use crate::net::Net;
use crate::net::datagram::Datagrams;
use crate::path::chance;
use crate::probe::wake;
use crate::router::{Decision, Dial, Query, Transport};

/// A datagram that looks for its way.
pub(super) struct Wayfarer<'w> {
    /// Whose it is, and where that is.
    pub(super) id: AssociationId,
    pub(super) source: IpAddr,
    pub(super) target: AddressBlock<'w>,
    pub(super) payload: &'w [u8],
}

/// The lane of a datagram: the one that is there along the path that it takes, or a further one. None, if the datagram waits for its
/// target's address, which a rule has to know.
pub(super) fn choose<N: Net, D: Datagrams>(
    door: &Arc<Door<N>>,
    outside: &mut Outside<D>,
    association: &mut Association,
    wayfarer: &Wayfarer<'_>,
    now: Instant,
) -> Result<Option<Chosen>, Why> {
    let Some((route, seen)) = route_for(door, outside, association, wayfarer, now)? else {
        return Ok(None);
    };
    let target = wayfarer.target;
    let Pick { path, due, trial } = path_along(door, association, route, target, now)?;
    let address = match seen {
        Seen::At(address) => Some(address),
        // Nobody here may look for another address than the rules have seen, and there is none.
        Seen::Nowhere if path.resolves_names() => return Err(Why::Unroutable),
        Seen::Nowhere | Seen::Unasked => None,
    };
    let has_rules = door.inbound.routes.has_rules();
    let lanes = &mut association.lanes;
    let (number, left) = match lanes.along(&path) {
        Some(lane) => {
            // As long as nobody looks for it again, others had better not take it for a way that may serve.
            lane.has_failed &= lane.rests(now);
            if trial.is_some() {
                // What has come of it before is no answer to a trial.
                lane.has_answered = false;
            }
            (lane.number(), None)
        }
        None => {
            let way = Way::along(&path, &door.net)?;
            // Where there is one route, one lane is all that there is.
            let other = lanes.first().filter(|_| !has_rules).and_then(|other| lanes.remove(other));
            let number = outside.numbers.next();
            (number, lanes.push(Lane::new(number, path, way)).or(other))
        }
    };
    if let Some(trial) = trial {
        lanes.begin_trial(number, trial);
    }
    let chosen = Chosen { number, address, due };
    if has_rules {
        lanes.settle(target.as_bytes(), chosen);
    } else {
        lanes.settle_all(due);
    }
    if let Some(lane) = left {
        outside.leave(&lane);
    }
    Ok(Some(chosen))
}

/// What rules have seen of where a datagram goes.
enum Seen {
    /// None had to know.
    Unasked,
    /// This address, which is sent to.
    At(SocketAddr),
    /// The name has no address, or none that the route is for.
    Nowhere,
}

/// A path that was picked.
struct Pick {
    path: Arc<Path>,
    /// When to ask again whether it is still well, if it was picked in a group. What is in use all the time would never be picked anew.
    due: Option<Instant>,
    trial: Option<Trial>,
}

/// The path of a datagram to `target` along `route`.
fn path_along<N: Net>(
    door: &Arc<Door<N>>,
    association: &mut Association,
    route: &Route,
    target: AddressBlock<'_>,
    now: Instant,
) -> Result<Pick, Why> {
    match route {
        Route::Path(path) => Ok(Pick { path: Arc::clone(path), due: None, trial: None }),
        Route::Group(group) => {
            let (target, source) = (target.to_address(), association.client.address.ip());
            let wanted = Wanted { target: &target, source, chance: chance(&door.net) };
            member(door, &mut association.lanes, group, &wanted, now)
        }
        Route::Refuse(_) => Err(Why::Forbidden),
    }
}

/// The route of a datagram by the door's rules. Where a rule has to know the address of its target's name, that comes with it; until it is
/// found, the datagram waits, and nothing is given.
fn route_for<'d, N: Net, D: Datagrams>(
    door: &'d Arc<Door<N>>,
    outside: &mut Outside<D>,
    association: &mut Association,
    wayfarer: &Wayfarer<'_>,
    now: Instant,
) -> Result<Option<(&'d Route, Seen)>, Why> {
    let routes = &door.inbound.routes;
    if !routes.has_rules() {
        return Ok(Some((routes.otherwise(), Seen::Unasked)));
    }
    let Association { client, face, lanes, .. } = association;
    let (address, source, user) = (wayfarer.target.to_address(), client.address.ip(), user_of(door, face));
    let query =
        Query { target: &address, transport: Transport::Udp, source, inbound: &door.inbound.name, user };
    match routes.decide(&query, None) {
        Decision::Take { verdict, .. } => return Ok(Some((verdict, Seen::Unasked))),
        Decision::Unresolvable { .. } => return Err(Why::Unroutable),
        Decision::Resolve => {}
    }
    with_addresses(door, outside, lanes, wayfarer, now, |known| match routes.decide(&query, Some(known)) {
        Decision::Take { verdict, dial, .. } => {
            let address = dial.one_of(known, &door.inbound.forbidden);
            Ok((verdict, address.map_or(Seen::Nowhere, Seen::At)))
        }
        Decision::Resolve | Decision::Unresolvable { .. } => Err(Why::Unroutable),
    })
}

/// The address of a target that has a name, for somebody who is asked to send there and told addresses alone: one that nobody forbids, if
/// there is any. None, if the datagram waits for it.
pub(super) fn address_of<N: Net, D: Datagrams>(
    door: &Arc<Door<N>>,
    outside: &mut Outside<D>,
    lanes: &mut Lanes,
    wayfarer: &Wayfarer<'_>,
    now: Instant,
) -> Result<Option<SocketAddr>, Why> {
    with_addresses(door, outside, lanes, wayfarer, now, |known| {
        Dial::Target.one_of(known, &door.inbound.forbidden).ok_or(Why::Unroutable)
    })
}

/// Does `work` with the addresses of a target that has a name, of which there may be none. Until they are found, the datagram waits, and
/// nothing is done.
fn with_addresses<N: Net, D: Datagrams, T>(
    door: &Arc<Door<N>>,
    outside: &mut Outside<D>,
    lanes: &mut Lanes,
    wayfarer: &Wayfarer<'_>,
    now: Instant,
    work: impl FnOnce(&[SocketAddr]) -> Result<T, Why>,
) -> Result<Option<T>, Why> {
    let Wayfarer { id, source, target, payload } = *wayfarer;
    let names = lanes.names();
    match outside.find(names, target, payload, now) {
        Found::At(addresses) => work(addresses).map(Some),
        Found::Nowhere => work(&[]).map(Some),
        Found::Crowded => Err(Why::NoRoom),
        Found::Waits { ask: false } => Ok(None),
        Found::Waits { ask: true } => {
            let Some(turn) = outside.turn(source) else {
                names.forget(target.as_bytes());
                return Err(Why::NoRoom);
            };
            let all = LaneId { association: id, number: LaneNumber::ALL };
            search::look_up_all(door, &outside.letters, all, target, turn);
            Ok(None)
        }
    }
}

/// What the operator calls the client, if it is one of several users.
fn user_of<'a, N>(door: &'a Door<N>, face: &'a Face) -> Option<&'a str> {
    match (face, &door.front) {
        (Face::Socks(claim), _) => claim.user(),
        (Face::Shadowsocks(session), Some(Front::Shadowsocks { packets, .. })) => {
            packets.keyring().name(session.holder())
        }
        (Face::Shadowsocks(_) | Face::Tunnel | Face::Relayed { .. } | Face::Probe(_), _) => None,
    }
}

/// The member of `group` that was chosen for this association, or another one if that has failed or is down.
fn member<N: Net>(
    door: &Arc<Door<N>>,
    lanes: &mut Lanes,
    group: &Arc<Group>,
    wanted: &Wanted<'_>,
    now: Instant,
) -> Result<Pick, Why> {
    let has_rules = door.inbound.routes.has_rules();
    let chosen = lanes.chosen(group, has_rules);
    // It may serve for all that its group believes.
    let mut may_serve = false;
    if let Some((path, due)) = &chosen {
        // Also where it has failed: it was due at once then, and there was nobody else.
        if due.is_some_and(|due| now < due) {
            return Ok(Pick { path: Arc::clone(path), due: *due, trial: None });
        }
        may_serve = lanes.along(path).is_none_or(|lane| !lane.has_failed);
    }
    // Whoever probed the group may have ended with its own relay, however much it is in use.
    wake(door, group);
    let due = Some(now + REVIEW_SECS);
    let pick = |path: Arc<Path>, trial, lanes: &mut Lanes| {
        if has_rules {
            lanes.choose(group, &path, due);
        }
        Pick { path, due, trial }
    };
    if let Some((path, _)) = chosen.as_ref().filter(|_| may_serve) {
        let is_up = group.datagrams.with_state(|state| state.keep(path.member(), now));
        // One that is on trial is down until it has answered, and is given the time for that.
        if is_up || lanes.awaits_answer(path, group, now) {
            return Ok(pick(Arc::clone(path), None, lanes));
        }
    }
    let chosen = chosen.map(|(path, _)| path);
    let is_left = |path: &Arc<Path>| chosen.as_ref().is_some_and(|left| Arc::ptr_eq(left, path));
    let mut attempts = group.datagrams.begin(wanted, now);
    let (mut other, mut resting) = (None, None);
    while let Some(held) = group.datagrams.next(&mut attempts, now) {
        let path = Arc::clone(held.member());
        // One that is believed to be down as well is no better.
        let is_better = !may_serve || held.kind() == Kind::Regular;
        if !is_better || is_left(&path) {
            continue;
        }
        // It has just failed this association, which took it by another group or rule.
        if lanes.along(&path).is_some_and(|lane| lane.rests(now)) {
            resting = resting.or(Some(path));
            continue;
        }
        other = Some((path, Trial::of(held, group, &door.notices, now)));
        break;
    }
    // If what was chosen was on trial, no answer has come in time, and others may take it for want of another one, as this association may.
    if let Some(trial) = chosen.as_ref().and_then(|left| lanes.end_trial(left, group)) {
        trial.leave(now);
    }
    // If all others are down as well, it may be well again.
    let last = chosen.or(resting).map(|path| (path, None));
    let (path, trial) = other.or(last).ok_or(Why::Unroutable)?;
    debug!(path = %path.name, "chosen path");
    Ok(pick(path, trial, lanes))
}

/// Something has come back by the lane `number` for the first time: its path is well.
pub(super) fn path_answered<N: Net>(
    door: &Arc<Door<N>>,
    lanes: &mut Lanes,
    number: LaneNumber,
    now: Instant,
) {
    let Some(lane) = lanes.get_mut(number) else { return };
    (lane.has_failed, lane.has_answered) = (false, true);
    lane.path.tally.datagrams.reached.add();
    for trial in tell(door, lanes, number, None, now) {
        trial.succeed(now);
    }
}

/// The path of the lane `number` could not be taken, or has broken: if it is one of several, another is chosen for the next datagram.
pub(super) fn path_failed<N: Net>(
    door: &Arc<Door<N>>,
    lanes: &mut Lanes,
    number: LaneNumber,
    why: &Failure,
    now: Instant,
) {
    let Some(lane) = lanes.get_mut(number) else { return };
    debug!(path = %lane.path.name, "path for datagrams failed");
    (lane.has_failed, lane.has_answered) = (true, false);
    let path = Arc::clone(&lane.path);
    lanes.revoke(number);
    // As with streams: what our own machine has not is held against nobody.
    if why.is_ours() {
        return lanes.end_trials(number).into_iter().for_each(|trial| trial.abandon(now));
    }
    let trials = tell(door, lanes, number, Some(why), now);
    // Each trial counts itself.
    if trials.is_empty() {
        path.tally.datagrams.fail(why);
    }
    for trial in trials {
        trial.fail(why, now);
    }
}

/// How many there are to choose from where the path of the lane `number` was chosen; one, if that was in no group.
pub(super) fn choices<N: Net>(door: &Door<N>, lanes: &Lanes, number: LaneNumber) -> u32 {
    let members = |(group, _): (&Arc<Group>, _)| group.datagrams.with_state(|state| state.len());
    let members = groups_of(door, lanes, number).map(members).max();
    members.map_or(1, |members| u32::try_from(members).unwrap_or(u32::MAX))
}

/// The groups that the path of the lane `number` was chosen in, each with what it calls that path.
fn groups_of<'d, N: Net>(
    door: &'d Door<N>,
    lanes: &'d Lanes,
    number: LaneNumber,
) -> impl Iterator<Item = (&'d Arc<Group>, &'d Arc<Path>)> {
    let routes = &door.inbound.routes;
    let lane = lanes.iter().find(|lane| lane.number() == number);
    let only = match (routes.otherwise(), lane) {
        (Route::Group(group), Some(lane)) if !routes.has_rules() => Some((group, &lane.path)),
        (Route::Group(_) | Route::Path(_) | Route::Refuse(_), _) => None,
    };
    only.into_iter().chain(lanes.chosen_along(number))
}

/// Tells every group that the path of the lane `number` was chosen in how it is: well, unless it has failed. Where it was on trial, that
/// is left to whoever is given the trial.
fn tell<N: Net>(
    door: &Arc<Door<N>>,
    lanes: &mut Lanes,
    number: LaneNumber,
    failure: Option<&Failure>,
    now: Instant,
) -> Vec<Trial> {
    let trials = lanes.end_trials(number);
    for (group, path) in groups_of(door, lanes, number) {
        if trials.iter().any(|trial| trial.is_for(group)) {
            continue;
        }
        let change = group.datagrams.with_state(|state| state.note(path.member(), failure.is_none(), now));
        door.notices.change(group, path, change, failure.map(|failure| failure as &dyn Display));
    }
    trials
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::num::{NonZeroU16, NonZeroUsize};
    use std::time::Duration;

    use umbra_proto::address::Address;
    use umbra_proto::request::Command;

    use super::*;
    use crate::config::{
        Candidate, Hop, Inbound, Mode, Parent, Probe, ProbeKind, Protocol, ProxyDoor, ProxyHeader, Routes,
        Tcp, Udp,
    };
    use crate::failure::{Cause, Stage};
    use crate::group::{Condition, NoneLeft, Settings};
    use crate::limits::ANSWER_SECS;
    use crate::refusing::Refusing;
    use crate::router::{Conditions, Router, Rule};
    use crate::udp::lanes::LaneNumbers;

    fn through(name: &str) -> Path {
        Path::new(name, [Hop::Parent(Parent::socks5("192.0.2.1:1080".parse().unwrap(), None))])
    }

    /// A group of two, and a door that leads to it, with rules or without.
    fn group_behind(has_rules: bool) -> (Arc<Group>, Arc<Door<Refusing>>) {
        let members = vec![through("one").into(), through("other").into()];
        let kind = ProbeKind::Handshake("192.0.2.7:7".parse().unwrap());
        let probe = Probe { kind, patience: Duration::from_secs(1) };
        let group = Arc::new(Group::new("any", Settings::default(), members).with_probe(probe));
        let otherwise = Route::Group(Arc::clone(&group));
        let rule =
            || Rule { name: "rule".into(), conditions: Conditions::default(), verdict: Route::direct() };
        let rules = if has_rules { vec![rule()] } else { Vec::new() };
        let inbound = Inbound {
            name: "door".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            protocol: Protocol::Proxy(ProxyDoor::MIXED),
            routes: Routes::new(Router { rules, otherwise }),
            mode: Mode::Datagrams(Udp { associations_max: NonZeroUsize::new(9), ..Udp::default() }),
            forbidden: Arc::default(),
            idle: Duration::from_secs(1),
            tcp: Tcp { no_delay: true, fast_open: false },
            proxy_header: ProxyHeader::default(),
        };
        (group, Arc::new(Door::new(inbound, Refusing::default(), 1)))
    }

    /// Another group of the same paths.
    fn beside(group: &Group) -> Arc<Group> {
        let member = |path| Candidate { path, weight: NonZeroU16::MIN };
        let members = group.paths_of_datagrams().into_iter().map(member).collect();
        Arc::new(Group::new("other", Settings::default(), members))
    }

    fn member_at(
        door: &Arc<Door<Refusing>>,
        lanes: &mut Lanes,
        group: &Arc<Group>,
        now: Instant,
    ) -> Arc<str> {
        let target: Address = "192.0.2.7:7".parse().unwrap();
        let wanted = Wanted { target: &target, source: "192.0.2.8".parse().unwrap(), chance: 7 };
        let Ok(Pick { path, due, trial }) = member(door, lanes, group, &wanted, now) else {
            panic!("nowhere")
        };
        if lanes.along(&path).is_none() {
            let other = lanes.first().filter(|_| !door.inbound.routes.has_rules());
            other.map(|other| lanes.remove(other));
            let mut numbers = LaneNumbers::default();
            let mut further = std::iter::repeat_with(|| numbers.next());
            let number = further.find(|number| lanes.get_mut(*number).is_none()).unwrap();
            lanes.push(Lane::new(number, Arc::clone(&path), Way::along(&path, &door.net).unwrap()));
        }
        if let Some(trial) = trial {
            let number = lanes.along(&path).unwrap().number();
            lanes.begin_trial(number, trial);
        }
        if !door.inbound.routes.has_rules() {
            lanes.settle_all(due);
        }
        Arc::clone(&path.name)
    }

    fn judge(group: &Group, at: usize, is_well: bool, now: Instant) {
        let member = group.paths_of_datagrams()[at].member();
        group.datagrams.with_state(|state| {
            // As often as it takes.
            for _ in 0..8 {
                state.note(member, is_well, now);
            }
        });
    }

    #[tokio::test]
    async fn what_serves_is_left_only_for_one_that_is_known_to_be_well() {
        for has_rules in [false, true] {
            let (group, door) = group_behind(has_rules);
            let (mut lanes, mut now) = (Lanes::default(), Instant::now());
            assert_eq!(&*member_at(&door, &mut lanes, &group, now), "one");
            for at in [0, 1] {
                judge(&group, at, false, now);
            }
            for _ in 0..5 {
                now += REVIEW_SECS;
                assert_eq!(&*member_at(&door, &mut lanes, &group, now), "one", "nobody is well");
            }
            judge(&group, 1, true, now);
            assert_eq!(
                &*member_at(&door, &mut lanes, &group, now),
                "one",
                "it is asked each second, no more"
            );
            assert_eq!(&*member_at(&door, &mut lanes, &group, now + REVIEW_SECS), "other");
        }
    }

    fn is_on_trial(group: &Group, now: Instant) -> bool {
        let [(_, status), _] = &group.datagrams.describe(now)[..] else { panic!("there are two") };
        matches!(status.condition, Condition::Down { is_on_trial: true, .. })
    }

    #[tokio::test]
    async fn each_choice_and_each_review_of_it_has_a_group_probed_that_nobody_probes() {
        for has_rules in [false, true] {
            let (group, door) = group_behind(has_rules);
            let (mut lanes, mut now) = (Lanes::default(), Instant::now());
            let take = |lanes: &mut Lanes, now| {
                assert_eq!(&*member_at(&door, lanes, &group, now), "one");
                group.claim_probes().is_none()
            };
            assert!(take(&mut lanes, now));
            for _ in 0..2 {
                // Whoever has begun to probe it finds that there is nothing to do, and ends.
                tokio::task::yield_now().await;
                assert!(!take(&mut lanes, now), "nothing is chosen");
                now += REVIEW_SECS;
                assert!(take(&mut lanes, now));
            }
        }
    }

    #[tokio::test]
    async fn what_our_own_machine_lacks_is_held_against_no_member() {
        let failure = |cause| Failure::outbound(Stage::Connect, cause);
        let lacking = || failure(Cause::Io(io::Error::from_raw_os_error(24)));
        let unable = || failure(Cause::Command(Command::UdpAssociate));
        for has_rules in [false, true] {
            let (group, door) = group_behind(has_rules);
            let (mut lanes, mut now) = (Lanes::default(), Instant::now());
            let failed = || {
                let of_path = group.paths_of_datagrams()[0].counts().datagrams_failed;
                (of_path, group.datagrams.describe(now)[0].1.sessions_failed)
            };
            assert_eq!(&*member_at(&door, &mut lanes, &group, now), "one");
            let number = lanes.first().unwrap();
            path_failed(&door, &mut lanes, number, &lacking(), now);
            assert_eq!(failed(), (0, 0));
            path_failed(&door, &mut lanes, number, &unable(), now);
            assert_eq!(failed(), (1, 1));
            // On trial it says as little.
            judge(&group, 0, false, now);
            let before = failed();
            now += Settings::default().health.retry_time + REVIEW_SECS;
            let mut lanes = Lanes::default();
            assert_eq!(&*member_at(&door, &mut lanes, &group, now), "one");
            assert!(is_on_trial(&group, now));
            let number = lanes.first().unwrap();
            path_failed(&door, &mut lanes, number, &lacking(), now);
            assert!(!is_on_trial(&group, now), "another may try it at once");
            let after = group.datagrams.describe(now)[0].1;
            assert_eq!(after.sessions_failed, before.1);
            assert!(
                matches!(after.condition, Condition::Down { retry_in: Duration::ZERO, .. }),
                "its rest is not renewed"
            );
        }
    }

    #[tokio::test]
    async fn whatever_becomes_of_a_lane_is_told_to_every_group_that_has_chosen_its_path() {
        let (one, door) = group_behind(true);
        let other = beside(&one);
        let (mut lanes, mut now) = (Lanes::default(), Instant::now());
        let groups = [&one, &other];
        let rest = Settings::default().health.retry_time + REVIEW_SECS;
        let choose_in_both = |lanes: &mut Lanes, now| {
            for group in groups {
                assert_eq!(&*member_at(&door, lanes, group, now), "one");
            }
            lanes.first().unwrap()
        };
        let is_up = |now| groups.map(|group| group.datagrams.describe(now)[0].1.condition == Condition::Up);
        let failed = || one.paths_of_datagrams()[0].counts().datagrams_failed;
        let refused =
            || Failure::outbound(Stage::Connect, Cause::Io(io::ErrorKind::ConnectionRefused.into()));

        let number = choose_in_both(&mut lanes, now);
        path_failed(&door, &mut lanes, number, &refused(), now);
        assert_eq!((is_up(now), failed()), ([false; 2], 1));
        groups.into_iter().for_each(|group| judge(group, 0, false, now));
        now += rest;
        // Both have it on trial, by one lane.
        let (mut lanes, mut next) = (Lanes::default(), Lanes::default());
        let number = choose_in_both(&mut lanes, now);
        assert_eq!(groups.map(|group| is_on_trial(group, now)), [true; 2]);
        path_failed(&door, &mut lanes, number, &refused(), now);
        assert_eq!(groups.map(|group| is_on_trial(group, now)), [false; 2]);
        assert_eq!((is_up(now), failed()), ([false; 2], 3), "each trial counts");
        now += rest;
        let number = choose_in_both(&mut next, now);
        path_answered(&door, &mut next, number, now);
        assert_eq!((is_up(now), failed()), ([true; 2], 3));
        assert_eq!(one.paths_of_datagrams()[0].counts().datagrams_reached, 1);
    }

    #[tokio::test]
    async fn a_trial_is_left_for_the_group_that_leaves_it_and_for_no_other() {
        let (one, door) = group_behind(true);
        let other = beside(&one);
        let (mut lanes, mut now) = (Lanes::default(), Instant::now());
        for group in [&one, &other] {
            judge(group, 0, false, now);
        }
        now += Settings::default().health.retry_time + REVIEW_SECS;
        assert_eq!(&*member_at(&door, &mut lanes, &one, now), "one");
        now += ANSWER_SECS;
        assert_eq!(&*member_at(&door, &mut lanes, &other, now), "one");
        assert_eq!(&*member_at(&door, &mut lanes, &one, now), "other", "it has had its time there");
        assert_eq!([&one, &other].map(|group| is_on_trial(group, now)), [false, true]);
    }

    #[tokio::test]
    async fn a_trial_without_an_answer_puts_nobody_out_of_reach() {
        let (group, door) = group_behind(true);
        let mut now = Instant::now();
        let settings = Settings { none_left: NoneLeft::Fail, ..Settings::default() };
        group.datagrams.with_state(|state| state.reconfigure(settings, now));
        judge(&group, 0, false, now);
        now += settings.health.retry_time + REVIEW_SECS;
        judge(&group, 1, false, now);
        let target: Address = "192.0.2.7:7".parse().unwrap();
        let wanted = Wanted { target: &target, source: "192.0.2.8".parse().unwrap(), chance: 7 };
        let mut attempts = group.datagrams.begin(&wanted, now);
        let held = group.datagrams.next(&mut attempts, now).unwrap();
        let trial = Trial::of(held, &group, &door.notices, now).unwrap();
        now += ANSWER_SECS;
        trial.leave(now);
        assert_eq!(group.paths_of_datagrams()[0].counts().datagrams_failed, 1);
        assert_eq!(&*member_at(&door, &mut Lanes::default(), &group, now), "one", "for want of others");
        judge(&group, 0, true, now);
        assert_eq!(group.datagrams.describe(now)[0].1.condition, Condition::Up);
    }

    #[tokio::test]
    async fn a_trial_that_has_had_its_time_keeps_others_away_no_longer_though_nobody_is_well() {
        for has_rules in [false, true] {
            let (group, door) = group_behind(has_rules);
            let (mut lanes, mut now) = (Lanes::default(), Instant::now());
            let settings = Settings { none_left: NoneLeft::Fail, ..Settings::default() };
            group.datagrams.with_state(|state| state.reconfigure(settings, now));
            judge(&group, 0, false, now);
            now += settings.health.retry_time + REVIEW_SECS;
            judge(&group, 1, false, now);
            assert_eq!(&*member_at(&door, &mut lanes, &group, now), "one");
            assert!(is_on_trial(&group, now));
            now += ANSWER_SECS;
            assert_eq!(&*member_at(&door, &mut lanes, &group, now), "one", "there is nobody else");
            assert!(!is_on_trial(&group, now));
            assert_eq!(&*member_at(&door, &mut Lanes::default(), &group, now), "one", "another association");
        }
    }

    #[tokio::test]
    async fn a_choice_in_a_group_is_made_again_though_a_rule_goes_the_same_way() {
        let (group, door) = group_behind(true);
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        // The lane is there by a rule that names the path itself.
        let path = Arc::clone(&group.paths_of_datagrams()[0]);
        let way = Way::along(&path, &door.net).unwrap();
        let number = LaneNumbers::default().next();
        lanes.push(Lane::new(number, path, way));
        lanes.settle(b"ruled", Chosen { number, address: None, due: None });
        assert_eq!(&*member_at(&door, &mut lanes, &group, now), "one");
        judge(&group, 0, false, now);
        assert_eq!(&*member_at(&door, &mut lanes, &group, now + REVIEW_SECS), "other");
        assert!(lanes.settled(b"ruled", true, now + REVIEW_SECS).is_some(), "a rule says what it says");
    }
}
