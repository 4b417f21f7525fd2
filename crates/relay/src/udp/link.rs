//! The way of an association to one hop, which has to be found before it can be sent to.

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::queue::{NoRoom, Queue};
use crate::net::datagram::SocketId;

/// How far the way to a hop has come.
#[derive(Debug, Default)]
pub(super) enum Link {
    /// Nobody has asked.
    #[default]
    Unasked,
    /// It is being looked for; what is to be sent there waits.
    Waiting(Queue, Search),
    /// There: what is sent from this socket goes to the hop and nowhere else.
    Open {
        /// From where.
        socket: SocketId,
        /// What keeps the way open.
        _search: Option<Search>,
    },
    /// It was not found; looked for again after this.
    Failed(Instant),
}

/// Work that ends when nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Search(pub(super) JoinHandle<()>);

/// What to do with a datagram for the hop.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send it from this socket.
    Send(SocketId),
    /// Keep it with [`Link::keep`].
    Keep,
    /// Look for the hop, then keep it.
    Search,
    /// There is no way now.
    Drop,
}

impl Link {
    /// What is to be done with a datagram at this moment.
    pub(super) fn next(&self, now: Instant) -> Next {
        match self {
            Self::Unasked => Next::Search,
            Self::Waiting(..) => Next::Keep,
            Self::Open { socket, .. } => Next::Send(*socket),
            Self::Failed(until) if now < *until => Next::Drop,
            Self::Failed(_) => Next::Search,
        }
    }

    /// Keeps a datagram, ready to be sent, until the way is open.
    pub(super) fn keep(&mut self, datagram: &[u8]) -> Result<(), NoRoom> {
        match self {
            Self::Waiting(queue, _) => queue.push(datagram),
            Self::Unasked | Self::Open { .. } | Self::Failed(_) => Err(NoRoom),
        }
    }

    /// The socket, once there is one.
    pub(super) fn socket(&self) -> Option<SocketId> {
        match self {
            Self::Open { socket, .. } => Some(*socket),
            Self::Unasked | Self::Waiting(..) | Self::Failed(_) => None,
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.0.abort();
    }
}
