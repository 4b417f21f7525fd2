//! Which way a datagram goes.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;
use umbra_proto::address::AddressBlock;

use super::association::{Association, AssociationId, Face};
use super::dropped::Why;
use super::front::Front;
use super::lanes::{Chosen, Lane, LaneId, LaneNumber, Lanes};
use super::names::Found;
use super::outside::Outside;
use super::search;
use super::way::Way;
use crate::config::{Group, Path, Route};
use crate::door::Door;
use crate::group::Wanted;
use crate::limits::REVIEW_SECS;
use crate::net::Net;
use crate::net::datagram::Datagrams;
use crate::path::chance;
use crate::probe::{tell, wake};
use crate::router::{Decision, Query, Transport};

/// A datagram that looks for its way.
pub(super) struct Wayfarer<'w> {
    /// Whose it is.
    pub(super) id: AssociationId,
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
    let Some((route, address)) = route_for(door, outside, association, wayfarer, now)? else {
        return Ok(None);
    };
    let target = wayfarer.target;
    let path = path_along(door, association, route, target, now)?;
    let review = matches!(route, Route::Group(_)).then(|| now + REVIEW_SECS);
    let has_rules = door.inbound.routes.has_rules();
    let lanes = &mut association.lanes;
    let (number, left) = match lanes.along(&path) {
        Some(lane) => {
            if !lane.is_good(now) {
                (lane.has_failed, lane.review) = (false, review);
            }
            (lane.number(), None)
        }
        None => {
            let way = Way::along(&path, &door.net)?;
            // Where there is one route, one lane is all that there is.
            let other = lanes.first().filter(|_| !has_rules).and_then(|other| lanes.remove(other));
            let number = outside.numbers.next();
            (number, lanes.push(Lane::new(number, path, way, review)).or(other))
        }
    };
    let chosen = Chosen { number, address };
    if has_rules {
        lanes.settle(target.as_bytes(), chosen);
    }
    if let Some(lane) = left {
        outside.leave(&lane);
    }
    Ok(Some(chosen))
}

/// The path of a datagram to `target` along `route`.
fn path_along<N: Net>(
    door: &Arc<Door<N>>,
    association: &mut Association,
    route: &Route,
    target: AddressBlock<'_>,
    now: Instant,
) -> Result<Arc<Path>, Why> {
    match route {
        Route::Path(path) => Ok(Arc::clone(path)),
        Route::Group(group) => {
            let (target, source) = (target.to_address(), association.client.address.ip());
            let wanted = Wanted { target: &target, source, chance: chance(&door.net) };
            member(door, &mut association.lanes, group, &wanted, now)
        }
        Route::Refuse(_) => Err(Why::Forbidden),
    }
}

/// The route of a datagram by the door's rules. Where a rule has to know the address of its target's name, that comes with it and is what
/// is sent to; until it is found, the datagram waits, and nothing is given.
fn route_for<'d, N: Net, D: Datagrams>(
    door: &'d Arc<Door<N>>,
    outside: &mut Outside<D>,
    association: &mut Association,
    wayfarer: &Wayfarer<'_>,
    now: Instant,
) -> Result<Option<(&'d Route, Option<SocketAddr>)>, Why> {
    let routes = &door.inbound.routes;
    if !routes.has_rules() {
        return Ok(Some((routes.otherwise(), None)));
    }
    let Association { client, face, lanes, .. } = association;
    let Wayfarer { id, target, payload } = *wayfarer;
    let (address, source, user) = (target.to_address(), client.address.ip(), user_of(door, face));
    let query =
        Query { target: &address, transport: Transport::Udp, source, inbound: &door.inbound.name, user };
    match routes.decide(&query, None) {
        Decision::Take { verdict, .. } => return Ok(Some((verdict, None))),
        Decision::Unresolvable { .. } => return Err(Why::Unroutable),
        Decision::Resolve => {}
    }
    let names = lanes.names_of_rules();
    let known = match outside.find(names, target, payload, now) {
        Found::At(address) => Some(address),
        Found::Nowhere => None,
        Found::Crowded => return Err(Why::NoRoom),
        Found::Waits { ask: false } => return Ok(None),
        Found::Waits { ask: true } => {
            let Some(turn) = outside.turn() else {
                names.forget(target.as_bytes());
                return Err(Why::NoRoom);
            };
            let rules = LaneId { association: id, number: LaneNumber::RULES };
            search::look_up_for_rules(door, &outside.letters, rules, target, turn);
            return Ok(None);
        }
    };
    match routes.decide(&query, Some(known.as_slice())) {
        // Nobody may look for another address than the rules have seen, and there is none.
        Decision::Take { verdict, .. } if known.is_none() && verdict.is_direct() => Err(Why::Unroutable),
        Decision::Take { verdict, .. } => Ok(Some((verdict, known))),
        Decision::Resolve | Decision::Unresolvable { .. } => Err(Why::Unroutable),
    }
}

/// What the operator calls the client, if it is one of several users.
fn user_of<'a, N>(door: &'a Door<N>, face: &'a Face) -> Option<&'a str> {
    match (face, &door.front) {
        (Face::Socks(control), _) => control.user(),
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
) -> Result<Arc<Path>, Why> {
    let has_rules = door.inbound.routes.has_rules();
    let chosen = lanes.chosen(group, has_rules).map(Arc::clone);
    if let Some(path) = &chosen {
        let lane = lanes.along(path);
        if lane.as_ref().is_some_and(|lane| lane.is_good(now)) {
            return Ok(Arc::clone(path));
        }
        if lane.is_none_or(|lane| !lane.has_failed) {
            let kept = group.datagrams.with_state(|state| state.keep(path.member(), now));
            if kept.wakes {
                wake(door, group);
            }
            if kept.is_up {
                return Ok(Arc::clone(path));
            }
        }
    }
    let is_left = |path: &Arc<Path>| chosen.as_ref().is_some_and(|left| Arc::ptr_eq(left, path));
    let mut attempts = group.datagrams.begin(wanted, now);
    if attempts.wakes() {
        wake(door, group);
    }
    let mut other = None;
    while let Some(held) = group.datagrams.next(&mut attempts, now) {
        if !is_left(held.member()) {
            other = Some(Arc::clone(held.member()));
            break;
        }
    }
    // If all others are down as well, it may be well again.
    let path = other.or(chosen).ok_or(Why::Unroutable)?;
    debug!(path = %path.name, "chosen path");
    if has_rules {
        lanes.choose(group, &path);
    }
    Ok(path)
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
    let path = Arc::clone(&lane.path);
    path.tally.datagrams.reached.add();
    note(door, lanes, &path, true, now);
}

/// The path of the lane `number` could not be taken, or has broken: if it is one of several, another is chosen for the next datagram.
pub(super) fn path_failed<N: Net>(door: &Arc<Door<N>>, lanes: &mut Lanes, number: LaneNumber, now: Instant) {
    let Some(lane) = lanes.get_mut(number) else { return };
    debug!(path = %lane.path.name, "path for datagrams failed");
    (lane.has_failed, lane.has_answered) = (true, false);
    let path = Arc::clone(&lane.path);
    path.tally.datagrams.failed.add();
    note(door, lanes, &path, false, now);
}

/// Tells the group that `path` was chosen in, if it was in one, how it is.
fn note<N: Net>(door: &Arc<Door<N>>, lanes: &Lanes, path: &Arc<Path>, is_well: bool, now: Instant) {
    let routes = &door.inbound.routes;
    let group = match routes.otherwise() {
        Route::Group(group) if !routes.has_rules() => Some(group),
        Route::Group(_) | Route::Path(_) | Route::Refuse(_) => lanes.group_of(path),
    };
    if let Some(group) = group {
        let change = group.datagrams.with_state(|state| state.note(path.member(), is_well, now));
        tell(group, path, change, None);
    }
}
