//! Finding targets and hops: what takes time, and reports in a letter.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use tokio::time::timeout;
use umbra_proto::address::{Address, AddressBlock};
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::Command;

use super::budget::Lent;
use super::lanes::LaneId;
use super::letter::{Letter, Letters};
use super::link::Search;
use super::outside::WayOut;
use super::turns::Turn;
use crate::config::{Hop, Names, Parent, Path};
use crate::conn::Conn;
use crate::dial::resolve;
use crate::door::Door;
use crate::drive::Inbox;
use crate::failure::{Cause, Failure, Stage};
use crate::limits::{ADDRESSES_OF_RULES_MAX, RESOLVE_SECS_MAX};
use crate::net::{Net, Socket};
use crate::path::{Errand, travel_through};

/// Looks up the name of a target, which a client has sent something to. The first address that nobody forbids and that there is a
/// route to.
pub(super) fn look_up<N: Net>(way: &WayOut<'_, N>, letters: &Letters, target: AddressBlock<'_>, turn: Turn) {
    let (door, letters, id) = (Arc::clone(way.door), letters.clone(), way.id);
    let (block, target) = (target.as_bytes().into(), target.to_address());
    drop(tokio::spawn(async move {
        let address = first_in_turn(&door, &target, &door.inbound.forbidden, turn).await;
        letters.send(Letter::Named { id, block, addresses: address.into_iter().collect() });
    }));
}

/// Looks up the name of a target for whichever lane is taken then: all of its addresses, since it is enough for a rule that one is in its
/// networks. Those come first that there is a route to. Whether anybody is led there is theirs to say, and what is forbidden is judged
/// when it is sent to.
pub(super) fn look_up_all<N: Net>(
    door: &Arc<Door<N>>,
    letters: &Letters,
    id: LaneId,
    target: AddressBlock<'_>,
    turn: Turn,
) {
    let (door, letters) = (Arc::clone(door), letters.clone());
    let (block, target) = (target.as_bytes().into(), target.to_address());
    drop(tokio::spawn(async move {
        let mut addresses = all_in_turn(&door, &target, turn).await.unwrap_or_default();
        addresses.truncate(ADDRESSES_OF_RULES_MAX);
        addresses.sort_by_cached_key(|address| door.net.source_towards(address.ip()).is_err());
        letters.send(Letter::Named { id, block, addresses: addresses.into() });
    }));
}

/// Looks up the first hop of a path, which the operator has named.
pub(super) fn find<N: Net>(way: &WayOut<'_, N>, letters: &Letters, hop: Address, turn: Turn) -> Search {
    let (door, letters, path, id) = (Arc::clone(way.door), letters.clone(), Arc::clone(way.path), way.id);
    let task = tokio::spawn(async move {
        let found = first_in_turn(&door, &hop, &Forbidden::NOTHING, turn).await;
        let address = found.ok_or_else(|| nowhere(&path, 0));
        letters.send(Letter::Reached { id, address, stops: Box::default() });
    });
    Search::new(task, None)
}

/// Asks every SOCKS5 proxy on `path` for an association of its own, and keeps their control connections for as long as the search is
/// kept. Each is one of the sockets that associations may have, and lent to it.
pub(super) fn ask<N: Net>(
    door: &Arc<Door<N>>,
    letters: &Letters,
    id: LaneId,
    path: Arc<Path>,
    lent: Lent,
) -> Search {
    let (door, letters) = (Arc::clone(door), letters.clone());
    let task = tokio::spawn(async move {
        // Boxed: what waits for the end of the connections is small, and lives as long as the association.
        let asked = Box::pin(ask_each(&door, &path)).await;
        let Asked { first, stops, controls } = match asked {
            Ok(asked) => asked,
            Err(failure) => {
                return letters.send(Letter::Reached { id, address: Err(failure), stops: Box::default() });
            }
        };
        drop((door, path));
        letters.send(Letter::Reached { id, address: Ok(first), stops: stops.into() });
        let mut ends: Vec<_> = controls.into_iter().map(|control| Box::pin(end(control))).collect();
        poll_fn(|cx| {
            let has_ended = ends.iter_mut().any(|end| end.as_mut().poll(cx).is_ready());
            if has_ended { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        letters.send(Letter::Lost(id));
    });
    Search::new(task, Some(lent))
}

/// Nothing is looked for: it has failed before, which is told as what takes time would tell it.
pub(super) fn give_up(letters: &Letters, id: LaneId, why: Box<Failure>) -> Search {
    let letters = letters.clone();
    let task = tokio::spawn(async move {
        letters.send(Letter::Reached { id, address: Err(why), stops: Box::default() });
    });
    Search::new(task, None)
}

/// Where the hops of a path take datagrams.
struct Asked<S> {
    first: SocketAddr,
    stops: Vec<Address>,
    /// For as long as these live.
    controls: Vec<Conn<S>>,
}

/// The hop of `path` at `index` is at no address that could be sent to.
fn nowhere(path: &Path, index: usize) -> Box<Failure> {
    Box::new(Failure::outbound(Stage::Resolve, Cause::NoAddress).at(path.at(index)))
}

async fn ask_each<N: Net>(door: &Arc<Door<N>>, path: &Arc<Path>) -> Result<Asked<N::Socket>, Box<Failure>> {
    let (mut first, mut stops, mut controls) = (None, Vec::new(), Vec::new());
    let mut before: Option<&Hop> = None;
    for (index, hop) in path.hops.iter().enumerate() {
        let nowhere = || nowhere(path, index);
        let address = match hop {
            Hop::Shadowsocks(server) => server.mode.datagrams().ok_or_else(nowhere)?.clone(),
            Hop::Parent(parent) => {
                let (address, control) = associate(door, path, index, parent).await?;
                controls.push(control);
                address
            }
        };
        match before {
            None => {
                first = Some(first_address(door, &address, &Forbidden::NOTHING).await.ok_or_else(nowhere)?);
            }
            Some(Hop::Parent(Parent { names: Names::ResolveHere, .. })) => {
                let address = first_address(door, &address, &Forbidden::NOTHING).await;
                stops.push(address.ok_or_else(nowhere)?.into());
            }
            Some(Hop::Parent(_) | Hop::Shadowsocks(_)) => stops.push(address),
        }
        before = Some(hop);
    }
    Ok(Asked { first: first.ok_or_else(|| nowhere(path, 0))?, stops, controls })
}

/// Asks `parent`, the hop of `path` at `index`, through those before it. Gives where it takes datagrams, and the control connection.
async fn associate<N: Net>(
    door: &Arc<Door<N>>,
    path: &Arc<Path>,
    index: usize,
    parent: &Parent,
) -> Result<(Address, Conn<N::Socket>), Box<Failure>> {
    let nowhere = || nowhere(path, index);
    let target = unknown_beside(&parent.address);
    let errand = Errand::of_our_own(Command::UdpAssociate, &target);
    let hops = path.hops.get(..=index).ok_or_else(nowhere)?;
    let agreed = travel_through(door, path, hops, &errand, door.inbound.tcp).await.map_err(Box::new)?;
    let bound = agreed.bound().ok_or_else(nowhere)?;
    // One that knows of one family alone speaks of the other's addresses in its words.
    let bound = SocketAddr::new(bound.ip().to_canonical(), bound.port());
    let address = match &parent.address {
        Address::Name(name, _) if bound.ip().is_unspecified() => Address::Name(name.clone(), bound.port()),
        // It does not know where it can be reached: it is where its control connection goes.
        Address::Ip(address) if bound.ip().is_unspecified() => {
            SocketAddr::new(address.ip(), bound.port()).into()
        }
        Address::Ip(_) | Address::Name(..) => bound.into(),
    };
    Ok((address, agreed.socket))
}

/// Ends when a control connection does. Nothing is to be said on it any more.
async fn end<S: Socket>(control: Conn<S>) {
    let mut said = Inbox::default();
    while said.make_room() && said.read(&control).await.is_ok_and(|count| count > 0) {}
}

async fn first_address<N: Net>(
    door: &Door<N>,
    address: &Address,
    forbidden: &Forbidden,
) -> Option<SocketAddr> {
    let addresses = match address {
        Address::Ip(address) => return Some(*address),
        Address::Name(name, port) => resolve(&door.net, name.as_str(), *port).await.ok()?,
    };
    first_fit(door, addresses, forbidden)
}

/// The same with one of the lookups that may be under way.
async fn first_in_turn<N: Net>(
    door: &Arc<Door<N>>,
    address: &Address,
    forbidden: &Forbidden,
    turn: Turn,
) -> Option<SocketAddr> {
    if let Address::Ip(address) = address {
        return Some(*address);
    }
    first_fit(door, all_in_turn(door, address, turn).await?, forbidden)
}

/// All addresses of `address`. The system goes on with a lookup that nobody waits for any more, and its turn lasts as long as that.
async fn all_in_turn<N: Net>(door: &Arc<Door<N>>, address: &Address, turn: Turn) -> Option<Vec<SocketAddr>> {
    let (name, port) = match address {
        Address::Ip(address) => return Some(vec![*address]),
        Address::Name(name, port) => (name.clone(), *port),
    };
    let asking = Arc::clone(door);
    let asked = tokio::spawn(async move {
        let _turn = turn;
        asking.net.resolve(name.as_str(), port).await
    });
    timeout(RESOLVE_SECS_MAX, asked).await.ok()?.ok()?.ok()
}

fn first_fit<N: Net>(
    door: &Door<N>,
    addresses: Vec<SocketAddr>,
    forbidden: &Forbidden,
) -> Option<SocketAddr> {
    let is_fit = |address: &SocketAddr| {
        forbidden.check(address.ip()).is_none() && door.net.source_towards(address.ip()).is_ok()
    };
    addresses.into_iter().find(is_fit)
}

/// Where our datagrams will come from, which nobody knows yet, in the family of the parent: one that has no address of the other family
/// refuses to be asked from there, as danted does.
fn unknown_beside(parent: &Address) -> Address {
    let ip = match parent {
        Address::Ip(SocketAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Address::Ip(SocketAddr::V4(_)) | Address::Name(..) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    Address::Ip(SocketAddr::new(ip, 0))
}
