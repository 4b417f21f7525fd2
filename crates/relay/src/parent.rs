//! Asks a parent, a proxy on the way, for the next hop or the target.

use std::net::SocketAddr;

use umbra_proto::address::Address;
use umbra_proto::request::Command;
use umbra_proto::socks5::client::{Client, ClientError, Granted, Request};
use zeroize::Zeroizing;

use crate::config::ParentProtocol;
use crate::drive::{DriveError, Inbox, drive, write_all};
use crate::failure::Cause;
use crate::net::Socket;

/// Asks the parent at the other end of `socket` for `command` towards `target`. Gives the address that it tells; what came behind its
/// answer stays in `inbox`, and belongs to whoever is at the other end. No deadline: whoever waits has one.
pub(crate) async fn negotiate<S: Socket>(
    socket: &S,
    inbox: &mut Inbox,
    protocol: &ParentProtocol,
    command: Command,
    target: &Address,
) -> Result<Option<SocketAddr>, Cause> {
    let mut hello = Zeroizing::new(Vec::new());
    match protocol {
        ParentProtocol::Socks5(login) => {
            let client = Client::new(Request { command, target }, login.as_ref(), &mut hello);
            write_all(socket, &hello).await.map_err(Cause::Io)?;
            let (granted, _) = drive(client, socket, inbox).await?;
            Ok(told(&granted))
        }
    }
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
