//! The way of an association to one hop, which has to be found before it can be sent to.

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::budget::Lent;
use super::queue::{NoRoom, Queue};
use crate::limits::HOP_RETRY_DELAY;
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
        /// Since when.
        since: Instant,
        /// What keeps the way open.
        _search: Option<Search>,
    },
    /// It was not found; looked for again after this.
    Failed(Instant),
}

/// Work that ends when nobody waits for it any more, with the sockets that are lent to it.
#[derive(Debug)]
pub(super) struct Search(Box<Work>);

#[derive(Debug)]
struct Work {
    task: JoinHandle<()>,
    /// Here and not with the task, which lets go of what it has only when it has its next turn.
    lent: Option<Lent>,
}

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

    /// Whether it was not found a moment ago, so that nothing goes there for now.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.next(now) == Next::Drop
    }

    /// Keeps a datagram, ready to be sent, until the way is open.
    pub(super) fn keep(&mut self, datagram: &[u8]) -> Result<(), NoRoom> {
        match self {
            Self::Waiting(queue, _) => queue.push(datagram),
            Self::Unasked | Self::Open { .. } | Self::Failed(_) => Err(NoRoom),
        }
    }

    /// The way is open, from `socket`. Gives what waits, if anybody still does.
    pub(super) fn open(&mut self, socket: SocketId, now: Instant) -> Option<Queue> {
        self.stop_waiting(|search| Self::Open { socket, since: now, _search: Some(search) })
    }

    /// There is no way now. Gives what waits, if anybody still does.
    pub(super) fn fail(&mut self, now: Instant) -> Option<Queue> {
        self.stop_waiting(|_| Self::Failed(now + HOP_RETRY_DELAY))
    }

    fn stop_waiting(&mut self, then: impl FnOnce(Search) -> Self) -> Option<Queue> {
        match std::mem::take(self) {
            Self::Waiting(queue, search) => {
                *self = then(search);
                Some(queue)
            }
            other @ (Self::Unasked | Self::Open { .. } | Self::Failed(_)) => {
                *self = other;
                None
            }
        }
    }

    /// The hop has let go. One that does so as soon as it has been asked is not asked again at once. Gives what is to be closed.
    pub(super) fn lose(&mut self, now: Instant) -> Option<SocketId> {
        match self {
            Self::Open { since, .. } => {
                let since = *since;
                self.lose_since(since, now)
            }
            Self::Unasked | Self::Waiting(..) | Self::Failed(_) => None,
        }
    }

    /// The same where the way is older or younger than its part in it, as one is that others share.
    pub(super) fn lose_since(&mut self, since: Instant, now: Instant) -> Option<SocketId> {
        let socket = self.socket()?;
        let is_short = now.duration_since(since) < HOP_RETRY_DELAY;
        *self = if is_short { Self::Failed(now + HOP_RETRY_DELAY) } else { Self::Unasked };
        Some(socket)
    }

    /// The socket, once there is one.
    pub(super) fn socket(&self) -> Option<SocketId> {
        match self {
            Self::Open { socket, .. } => Some(*socket),
            Self::Unasked | Self::Waiting(..) | Self::Failed(_) => None,
        }
    }

    /// How many datagrams wait.
    pub(super) fn waiting(&self) -> usize {
        match self {
            Self::Waiting(queue, _) => queue.len(),
            Self::Unasked | Self::Open { .. } | Self::Failed(_) => 0,
        }
    }

    /// Whether somebody else could have a socket if it were closed.
    pub(super) fn holds_socket(&self) -> bool {
        match self {
            Self::Open { .. } => true,
            Self::Waiting(_, search) => search.0.lent.is_some(),
            Self::Unasked | Self::Failed(_) => false,
        }
    }
}

impl Search {
    pub(super) fn new(task: JoinHandle<()>, lent: Option<Lent>) -> Self {
        Self(Box::new(Work { task, lent }))
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.0.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::queue::Room;
    use super::*;

    #[test]
    fn a_hop_that_lets_go_at_once_is_asked_again_later_and_another_at_once() {
        let since = Instant::now();
        let socket = SocketId { index: 1, generation: 1 };
        let opened = || Link::Open { socket, since, _search: None };
        let (mut link, mut other) = (opened(), opened());
        let early = since + HOP_RETRY_DELAY / 2;
        assert_eq!(link.lose(early), Some(socket));
        assert_eq!((link.next(early), link.lose(early)), (Next::Drop, None));
        assert_eq!(link.next(early + HOP_RETRY_DELAY), Next::Search);
        let late = since + HOP_RETRY_DELAY;
        assert_eq!((other.lose(late), other.next(late)), (Some(socket), Next::Search));
    }

    #[tokio::test]
    async fn what_comes_late_of_a_search_changes_nothing_where_nobody_waits() {
        let (now, room) = (Instant::now(), Arc::<Room>::default());
        let (socket, later) = (SocketId { index: 1, generation: 1 }, SocketId { index: 2, generation: 1 });
        let search = || Search::new(tokio::spawn(std::future::pending()), None);
        let waiting = || {
            let mut link = Link::Waiting(Queue::new(&room), search());
            link.keep(b"kept").unwrap();
            link
        };
        let mut link = waiting();
        assert_eq!(link.open(socket, now).map(|queue| queue.len()), Some(1));
        assert!(link.open(later, now).is_none() && link.fail(now).is_none());
        assert_eq!(link.next(now), Next::Send(socket), "it is not lost for a word that comes late");
        let mut link = waiting();
        assert_eq!(link.fail(now).map(|queue| queue.len()), Some(1));
        assert!(link.open(socket, now).is_none() && link.fail(now + HOP_RETRY_DELAY).is_none());
        assert_eq!((link.next(now), link.next(now + HOP_RETRY_DELAY)), (Next::Drop, Next::Search));
        assert!(Link::Unasked.open(socket, now).is_none());
    }
}
