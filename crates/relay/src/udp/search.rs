//! Finding targets and hops: what takes time, and reports in a letter.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use umbra_proto::address::{Address, AddressBlock};
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::Command;

use super::association::AssociationId;
use super::budget::Lent;
use super::letter::{Letter, Letters};
use super::link::Search;
use super::outside::WayOut;
use crate::config::Path;
use crate::dial::resolve;
use crate::door::Door;
use crate::drive::Inbox;
use crate::net::Net;
use crate::path::{Errand, travel};

/// Looks up the name of a target, which a client has sent something to. The first address that nobody forbids and that there is a
/// route to.
pub(super) fn look_up<N: Net>(
    way: &WayOut<'_, N>,
    letters: &Letters,
    target: AddressBlock<'_>,
    turn: OwnedSemaphorePermit,
) {
    let (door, letters, id) = (Arc::clone(way.door), letters.clone(), way.id);
    let (block, target) = (target.as_bytes().into(), target.to_address());
    drop(tokio::spawn(async move {
        let address = first_address(&door, &target, &door.inbound.forbidden).await;
        drop(turn);
        letters.send(Letter::Named { id, block, address });
    }));
}

/// Looks up a hop that the operator has named.
pub(super) fn find<N: Net>(
    door: &Arc<Door<N>>,
    letters: &Letters,
    id: AssociationId,
    hop: Address,
    turn: OwnedSemaphorePermit,
) -> Search {
    let (door, letters) = (Arc::clone(door), letters.clone());
    Search(tokio::spawn(async move {
        let address = first_address(&door, &hop, &Forbidden::NOTHING).await;
        drop(turn);
        letters.send(Letter::Reached { id, address });
    }))
}

/// Asks a SOCKS5 proxy for an association of its own, and keeps the control connection for as long as the search is kept. It is one of
/// the sockets that associations may have, and lent to it.
pub(super) fn ask_parent<N: Net>(
    door: &Arc<Door<N>>,
    letters: &Letters,
    id: AssociationId,
    path: Arc<Path>,
    control: Lent,
) -> Search {
    let (door, letters) = (Arc::clone(door), letters.clone());
    Search(tokio::spawn(async move {
        let _control = control;
        let (command, target) = (Command::UdpAssociate, &Address::Ip(UNKNOWN));
        let errand = Errand::of_our_own(command, target);
        let agreed = match travel(&door, &path, errand, door.inbound.tcp).await {
            Ok(agreed) => agreed,
            Err(failure) => {
                door.notices.failure(&failure);
                return letters.send(Letter::Reached { id, address: None });
            }
        };
        let address = match agreed.bound() {
            Some(bound) if !bound.ip().is_unspecified() => Some(bound),
            // It does not know where it can be reached: it is where its control connection goes.
            Some(bound) => match path.hops.last() {
                Some(parent) => first_address(&door, parent.address(), &Forbidden::NOTHING)
                    .await
                    .map(|address| SocketAddr::new(address.ip(), bound.port())),
                None => None,
            },
            None => None,
        };
        letters.send(Letter::Reached { id, address });
        let mut said = Inbox::default();
        // Nothing is to be said on it any more; its end is the association's.
        while said.make_room() && said.read(&agreed.socket).await.is_ok_and(|count| count > 0) {}
        letters.send(Letter::Lost(id));
    }))
}

async fn first_address<N: Net>(
    door: &Door<N>,
    address: &Address,
    forbidden: &Forbidden,
) -> Option<SocketAddr> {
    let is_fit = |address: &SocketAddr| {
        forbidden.check(address.ip()).is_none() && door.net.source_towards(address.ip()).is_ok()
    };
    match address {
        Address::Ip(address) => Some(*address),
        Address::Name(name, port) => {
            let addresses = resolve(&door.net, name.as_str(), *port).await.ok()?;
            addresses.into_iter().find(is_fit)
        }
    }
}

const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
