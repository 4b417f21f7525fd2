//! One datagram for each system call, where the system has nothing better that we know of.

use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::slice::ChunksMut;

use socket2::SockRef;

use super::datagram::{Family, Message};
use crate::net::datagram::Filled;

/// Receives into `slots` until nothing is left, and tells of each that is filled. Gives their number, which is not nought.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    slots: ChunksMut<'_, u8>,
    mut told: impl FnMut(Filled),
) -> io::Result<usize> {
    let mut received = 0;
    for slot in slots {
        match rustix::net::recvfrom(socket, slot, rustix::net::RecvFlags::empty()) {
            Ok((_, len, source)) => {
                received += 1;
                let source = source.and_then(|source| SocketAddr::try_from(source).ok());
                let source = source.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
                let source = match source {
                    SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
                        SocketAddr::new(source.ip().to_canonical(), source.port())
                    }
                    SocketAddr::V4(_) | SocketAddr::V6(_) => source,
                };
                told(Filled { source, local: None, len, segment: 0, is_truncated: false });
            }
            Err(_) if received > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(received)
}

/// Sends the first of `messages`. Gives their number: one.
pub(super) fn send(socket: BorrowedFd<'_>, family: Family, messages: &[Message<'_>]) -> io::Result<usize> {
    let Some(message) = messages.first() else { return Ok(0) };
    let socket = SockRef::from(&socket);
    match (message.to, family) {
        (Some(SocketAddr::V4(to)), Family::V6) => {
            let to = SocketAddr::from(SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0));
            socket.send_to(message.bytes, &to.into())?
        }
        (Some(to), Family::V4 | Family::V6) => socket.send_to(message.bytes, &to.into())?,
        (None, Family::V4 | Family::V6) => socket.send(message.bytes)?,
    };
    Ok(1)
}

/// The system decides.
pub(super) fn set_fragments(_: impl AsFd, _: Family, _: bool) -> io::Result<()> {
    Ok(())
}

/// Nobody knows.
pub(super) fn may_fragment(_: impl AsFd) -> io::Result<bool> {
    Ok(true)
}

/// Answers leave from the address that the routes choose.
pub(super) fn tell_local(_: impl AsFd, _: Family) -> io::Result<()> {
    Ok(())
}

/// Nothing is put together.
pub(super) fn join_segments(_: impl AsFd) -> io::Result<()> {
    Ok(())
}

/// Nothing is cut.
pub(super) fn cuts_segments(_: impl AsFd) -> bool {
    false
}
