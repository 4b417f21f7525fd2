//! Which way a datagram goes.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;
use umbra_proto::address::{Address, AddressBlock};

use super::association::Association;
use super::dropped::Why;
use super::lanes::{LaneNumber, Lanes};
use super::outside::Outside;
use super::way::Way;
use crate::config::{Group, Path, Route};
use crate::door::Door;
use crate::group::Wanted;
use crate::net::Net;
use crate::net::datagram::Datagrams;
use crate::path::chance;
use crate::probe::{tell, wake};
use crate::router::{Decision, Query, Transport};

/// The lane of a datagram to `target`: the one that is there along the path that it takes, or a further one.
pub(super) fn choose<N: Net, D: Datagrams>(
    door: &Arc<Door<N>>,
    outside: &mut Outside<D>,
    association: &mut Association,
    target: AddressBlock<'_>,
    now: Instant,
) -> Result<LaneNumber, Why> {
    let path = path_for(door, association, target, now)?;
    let has_rules = door.inbound.routes.has_rules();
    let lanes = &mut association.lanes;
    let (number, left) = match lanes.along(&path) {
        Some(lane) => {
            lane.has_failed = false;
            (lane.number(), None)
        }
        None => {
            let way = Way::along(&path, &door.net)?;
            // Where there is one route, one lane is all that there is.
            let other = lanes.first().filter(|_| !has_rules).and_then(|other| lanes.remove(other));
            let number = outside.numbers.next();
            (number, lanes.push(number, path, way).or(other))
        }
    };
    if has_rules {
        lanes.settle(target.as_bytes(), number);
    }
    if let Some(lane) = left {
        outside.leave(&lane);
    }
    Ok(number)
}

/// The path of a datagram to `target`.
fn path_for<N: Net>(
    door: &Arc<Door<N>>,
    association: &mut Association,
    target: AddressBlock<'_>,
    now: Instant,
) -> Result<Arc<Path>, Why> {
    let target = target.to_address();
    let source = association.client.address.ip();
    match route_for(door, &target, source)? {
        Route::Path(path) => Ok(Arc::clone(path)),
        Route::Group(group) => {
            let wanted = Wanted { target: &target, source, chance: chance(&door.net) };
            member(door, &mut association.lanes, group, &wanted, now)
        }
        Route::Refuse(_) => Err(Why::Forbidden),
    }
}

/// The route of a datagram to `target` by the door's rules. Where a rule has to know the addresses of a name, nobody has looked for
/// them, and the datagram goes nowhere rather than past the rule.
fn route_for<'d, N: Net>(door: &'d Door<N>, target: &Address, source: IpAddr) -> Result<&'d Route, Why> {
    let routes = &door.inbound.routes;
    if !routes.has_rules() {
        return Ok(routes.otherwise());
    }
    let query = Query { target, transport: Transport::Udp, source, inbound: &door.inbound.name, user: None };
    match routes.decide(&query, None) {
        Decision::Take { verdict, .. } => Ok(verdict),
        Decision::Resolve | Decision::Unresolvable { .. } => Err(Why::Unroutable),
    }
}

/// The member of `group` that was chosen for this association, or another one if that has failed.
fn member<N: Net>(
    door: &Arc<Door<N>>,
    lanes: &mut Lanes,
    group: &Arc<Group>,
    wanted: &Wanted<'_>,
    now: Instant,
) -> Result<Arc<Path>, Why> {
    let has_rules = door.inbound.routes.has_rules();
    let chosen = lanes.chosen(group, has_rules).map(Arc::clone);
    if let Some(path) = &chosen
        && lanes.along(path).is_none_or(|lane| !lane.has_failed)
    {
        return Ok(Arc::clone(path));
    }
    let has_failed = |path: &Arc<Path>| chosen.as_ref().is_some_and(|failed| Arc::ptr_eq(failed, path));
    let mut attempts = group.datagrams.begin(wanted, now);
    if attempts.wakes() {
        wake(door, group);
    }
    let mut other = None;
    while let Some(held) = group.datagrams.next(&mut attempts, now) {
        if !has_failed(held.member()) {
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
    note(door, lanes, &path, true, now);
}

/// The path of the lane `number` could not be taken, or has broken: if it is one of several, another is chosen for the next datagram.
pub(super) fn path_failed<N: Net>(door: &Arc<Door<N>>, lanes: &mut Lanes, number: LaneNumber, now: Instant) {
    let Some(lane) = lanes.get_mut(number) else { return };
    debug!(path = %lane.path.name, "path for datagrams failed");
    (lane.has_failed, lane.has_answered) = (true, false);
    let path = Arc::clone(&lane.path);
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
