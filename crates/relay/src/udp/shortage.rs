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
        loop {
            let (mut oldest, mut crowded) = (None, None);
            for post in 0..self.posts.len() {
                match self.posts[post].idle_longest(among, |handle| AssociationId { post, handle } == id) {
                    Idle::Holds(handle, active) => {
                        let found = (active, AssociationId { post, handle });
                        oldest = oldest.into_iter().chain([found]).min_by_key(|(active, _)| *active);
                    }
                    Idle::Crowd => crowded = crowded.or(Some(post)),
                    Idle::Nobody => {}
                }
            }
            if let Some((_, oldest)) = oldest {
                return self.remove_displaced(oldest, now);
            }
            // A crowd goes only to show who holds one behind it: whoever goes through a trunk is well, and there may be nobody else.
            let Some(post) = crowded.filter(|_| self.outside.budget.is_held_by_clients()) else {
                return false;
            };
            for handle in self.posts[post].crowd(among, |handle| AssociationId { post, handle } == id) {
                self.remove_displaced(AssociationId { post, handle }, now);
            }
            // Those who went may have been the last ones of a trunk.
            if !self.outside.budget.is_spent() {
                return true;
            }
        }
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
    /// So many hold none that nobody behind them is found soon. They have been idle for longer.
    Crowd,
}

impl<N: Net> Post<N> {
    fn idle_longest(&self, among: Option<IpAddr>, is_spared: impl Fn(Handle) -> bool) -> Idle {
        let looked_at = || self.table.by_age(among).take(IDLE_LOOKS_MAX);
        let mut others = looked_at().filter(|(handle, ..)| !is_spared(*handle));
        match others.find(|(_, _, association)| association.holds_socket()) {
            Some((handle, active, _)) => Idle::Holds(handle, active),
            None if looked_at().count() < IDLE_LOOKS_MAX => Idle::Nobody,
            None => Idle::Crowd,
        }
    }

    /// All who have been looked at.
    fn crowd(&self, among: Option<IpAddr>, is_spared: impl Fn(Handle) -> bool) -> Vec<Handle> {
        let looked_at = self.table.by_age(among).take(IDLE_LOOKS_MAX);
        looked_at.map(|(handle, ..)| handle).filter(|handle| !is_spared(*handle)).collect()
    }
}
