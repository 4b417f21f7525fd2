//! The way through a SOCKS5 proxy, which is told the target's own address.

use std::net::SocketAddr;

use umbra_proto::address::Address;
use umbra_proto::request::Command;
use umbra_proto::socks5::client::{Client, ClientError, Granted, Request};

use crate::config::Parent;
use crate::dial::dial;
use crate::door::Door;
use crate::drive::{DriveError, Inbox, drive, write_all};
use crate::failure::{Cause, Failure, Stage};
use crate::net::Net;

/// A connection that a proxy has agreed to.
pub(crate) struct Agreed<S> {
    /// The connection to the proxy.
    pub(crate) socket: S,
    /// What came behind its answer belongs to whoever is at the other end.
    pub(crate) inbox: Inbox,
    /// The address that it told.
    pub(crate) bound: Option<SocketAddr>,
}

/// Asks `parent` for `command` towards `target`. No deadline: whoever waits has one.
pub(crate) async fn ask<N: Net>(
    door: &Door<N>,
    parent: &Parent,
    command: Command,
    target: &Address,
) -> Result<Agreed<N::Socket>, Failure> {
    let socket = dial(&door.net, &parent.address, door.inbound.tcp).await?;
    let failure = |cause| Failure::outbound(Stage::Connect, cause);
    let mut hello = Vec::new();
    let client = Client::new(Request { command, target }, parent.login.as_ref(), &mut hello);
    write_all(&socket, &hello).await.map_err(|error| failure(Cause::Io(error)))?;
    let mut inbox = Inbox::default();
    let (granted, _) = drive(client, &socket, &mut inbox).await.map_err(|error| failure(error.into()))?;
    Ok(Agreed { socket, inbox, bound: told(&granted) })
}

/// The address in an answer, where it is one.
pub(crate) fn told(granted: &Granted) -> Option<SocketAddr> {
    match granted.bound {
        Some(Address::Ip(address)) => Some(address),
        Some(Address::Name(..)) | None => None,
    }
}

impl From<DriveError<ClientError>> for Cause {
    fn from(error: DriveError<ClientError>) -> Self {
        Self::of_drive(error, Self::Parent)
    }
}
