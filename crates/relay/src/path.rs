//! The way to a target, dialled.

use std::net::SocketAddr;

use tokio::time::timeout;
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::stream::{Opener, Sealer};

use crate::config::{Path, Server};
use crate::dial::{dial, is_refusal};
use crate::door::Door;
use crate::failure::{Cause, Failure, Stage};
use crate::limits::REACH_SECS_MAX;
use crate::net::{Net, Socket};
use crate::pump::{Reader, Writer};

/// The target's half of a session.
pub(crate) struct TargetSide<S> {
    pub(crate) socket: S,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

impl<S: Socket> TargetSide<S> {
    /// The address that the target sees, where we know it.
    pub(crate) fn bound(&self) -> Option<SocketAddr> {
        match self.writer {
            Writer::Plain => self.socket.local_addr().ok(),
            Writer::Sealed(_) => None,
        }
    }
}

/// Dials the door's path towards `target`.
pub(crate) async fn reach<N: Net>(
    door: &Door<N>,
    target: &Address,
) -> Result<TargetSide<N::Socket>, Failure> {
    match &door.inbound.path {
        Path::Direct => {
            let socket = dial(&door.net, target, door.inbound.tcp).await?;
            Ok(TargetSide { socket, reader: Reader::Plain, writer: Writer::Plain })
        }
        Path::Shadowsocks(servers) => {
            match timeout(REACH_SECS_MAX, through_first(door, servers, target)).await {
                Ok(reached) => reached,
                Err(_) => Err(Failure::outbound(Stage::Connect, Cause::Deadline)),
            }
        }
    }
}

/// Through the first server that can be reached: nothing has been promised to the client while they are tried.
async fn through_first<N: Net>(
    door: &Door<N>,
    servers: &[Server],
    target: &Address,
) -> Result<TargetSide<N::Socket>, Failure> {
    let mut failure = Failure::outbound(Stage::Connect, Cause::NoAddress);
    for server in servers {
        match dial(&door.net, &server.address, door.inbound.tcp).await {
            Ok(socket) => return request(door, server, socket, target),
            Err(refused) if is_refusal(&refused.cause) => failure = refused,
            Err(other) => return Err(other),
        }
    }
    Err(failure)
}

fn request<N: Net>(
    door: &Door<N>,
    server: &Server,
    socket: N::Socket,
    target: &Address,
) -> Result<TargetSide<N::Socket>, Failure> {
    let salt = door.salt(server.key.method()).map_err(|cause| Failure::outbound(Stage::Connect, cause))?;
    let writer = Writer::Sealed(Sealer::request(&server.key, salt, target));
    let reader = Reader::Sealed(Opener::response(&server.key, salt, server.heads));
    Ok(TargetSide { socket, reader, writer })
}
