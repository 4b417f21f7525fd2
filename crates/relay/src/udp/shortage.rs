//! Who makes room where sockets are spent: whoever has been idle for the longest time of those who hold one, at any door.

use std::net::IpAddr;

use tokio::time::Instant;

use super::association::{Association, AssociationId, Face};
use super::core::{Core, Moment, Post};
use super::dropped::Why;
use super::table::Handle;
use crate::limits::IDLE_LOOKS_MAX;
use crate::net::Net;
use crate::net::datagram::Datagrams;

impl<N: Net, D: Datagrams> Core<N, D> {
    /// Does `work` for the association `id`; for as long as that lacks a socket, others make room and it is done again.
    pub(super) fn with_room<T>(
        &mut self,
        id: AssociationId,
        now: Moment,
        mut work: impl FnMut(&mut Self) -> Result<T, Why>,
    ) -> Result<T, Why> {
        loop {
            match work(self) {
                Err(Why::Spent) if self.make_room(id, now) => {}
                Err(Why::Spent) => return Err(Why::NoRoom),
                done => return done,
            }
        }
    }

    /// Ends an association other than `id`, so that there is a socket more; false if nobody can make room.
    fn make_room(&mut self, id: AssociationId, now: Moment) -> bool {
        let table = &mut self.posts[id.post].table;
        let per_source = table.bounds().per_source;
        let source = match table.get_mut(id.handle) {
            // Nobody has to make room for a question of our own.
            Some(Association { face: Face::Probe(_), .. }) | None => return false,
            Some(association) => association.client.address.ip(),
        };
        // Associations may have several sockets each: a source that has more than its share makes room itself.
        let among = (self.outside.budget.held_by(source) > per_source).then_some(source);
        let mut oldest = None;
        for post in 0..self.posts.len() {
            let found = loop {
                match self.posts[post].idle_longest(among, |handle| AssociationId { post, handle } == id) {
                    Idle::Holds(handle, active) => break Some((active, AssociationId { post, handle })),
                    Idle::Nobody => break None,
                    Idle::Crowd(crowd) => {
                        for handle in crowd {
                            self.remove_displaced(AssociationId { post, handle }, now);
                        }
                    }
                }
            };
            oldest = oldest.into_iter().chain(found).min_by_key(|(active, _)| *active);
        }
        oldest.is_some_and(|(_, oldest)| self.remove_displaced(oldest, now))
    }

    fn remove_displaced(&mut self, id: AssociationId, now: Moment) -> bool {
        let removed = self.posts[id.post].table.remove(id.handle);
        removed.inspect(|association| self.displace(id, association, now)).is_some()
    }
}

/// Who could make room at a door.
enum Idle {
    /// This one, which was active then.
    Holds(Handle, Instant),
    /// Nobody holds a socket.
    Nobody,
    /// So many hold none that nobody behind them is found soon. They have been idle for longer, and go.
    Crowd(Vec<Handle>),
}

impl<N: Net> Post<N> {
    fn idle_longest(&self, among: Option<IpAddr>, is_spared: impl Fn(Handle) -> bool) -> Idle {
        let looked_at = || self.table.by_age(among).take(IDLE_LOOKS_MAX);
        let others = || looked_at().filter(|(handle, ..)| !is_spared(*handle));
        if let Some((handle, active, _)) = others().find(|(_, _, association)| association.holds_socket()) {
            return Idle::Holds(handle, active);
        }
        if looked_at().count() < IDLE_LOOKS_MAX {
            return Idle::Nobody;
        }
        Idle::Crowd(others().map(|(handle, ..)| handle).collect())
    }
}
