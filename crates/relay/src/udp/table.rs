//! Associations of one door on one worker: by key and by handle, in the order of their last activity, and never more than may be.
//!
//! Pure: the time is told. Every step costs the same however many there are; expiry costs what expires.

mod slab;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{Hash, RandomState};
use std::iter::successors;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use slab::{Number, Slab};

/// One association, for whoever speaks of it later. It never means another one, also when this one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Handle {
    number: Number,
    generation: u32,
}

/// How many there may be; nought counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Of all clients.
    pub(crate) total: usize,
    /// Of clients at one address.
    pub(crate) per_source: usize,
}

/// Values by key, the longest idle one first.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    bounds: Bounds,
    /// Numbers by key. The hash is keyed: peers choose what goes into it.
    numbers: HashMap<K, Number, RandomState>,
    entries: Slab<Node, (K, V)>,
    /// The one that was looked for last: as often as not it is the next one as well.
    found: Option<Number>,
    /// Everybody, by last activity.
    order: Ends,
    /// The last one that `settle` has given, before which everybody has been given too.
    settled: Option<Number>,
    /// How many there have been.
    generation: u32,
    /// From when times are counted: the first time that was told.
    start: Option<Instant>,
    sources: Sources,
}

/// Who is how many, where that is bounded at all.
#[derive(Debug)]
struct Sources {
    numbers: HashMap<IpAddr, Number, RandomState>,
    list: Slab<(), Source>,
}

#[derive(Debug)]
struct Source {
    ip: IpAddr,
    count: usize,
    /// Those of this source, by last activity.
    order: Ends,
}

/// What finding and touching look at: half a line of the processor's cache.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    among_all: Links,
    among_source: Links,
    /// Its source's number, where sources are bounded.
    source: Option<Number>,
    /// Nought is nobody's.
    generation: u32,
    /// When it was active, in nanoseconds from the start: enough for five centuries.
    active: u64,
}

/// The ends of a list through the nodes.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    oldest: Option<Number>,
    newest: Option<Number>,
}

/// A node's neighbours in a list.
#[derive(Clone, Copy, Debug, Default)]
struct Links {
    older: Option<Number>,
    newer: Option<Number>,
}

/// Which of its two lists.
#[derive(Clone, Copy)]
enum List {
    All,
    Source,
}

impl<K: Hash + Eq + Copy, V> Table<K, V> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds: Bounds { total: bounds.total.max(1), per_source: bounds.per_source.max(1) },
            numbers: HashMap::default(),
            entries: Slab::new(),
            found: None,
            order: Ends::default(),
            settled: None,
            generation: 0,
            start: None,
            sources: Sources { numbers: HashMap::default(), list: Slab::new() },
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Who has this key.
    pub(crate) fn find(&mut self, key: &K) -> Option<Handle> {
        let is_at = |number: &Number| self.entries.get(*number).is_some_and(|(known, _)| known == key);
        let number = match self.found.filter(is_at) {
            Some(number) => number,
            None => *self.numbers.get(key)?,
        };
        self.found = Some(number);
        self.handle(number)
    }

    #[cfg(test)]
    fn get(&self, handle: Handle) -> Option<&V> {
        self.node(handle)?;
        self.entries.get(handle.number).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut V> {
        self.node(handle)?;
        self.entries.get_mut(handle.number).map(|(_, value)| value)
    }

    /// Something has come or gone: it is the last to expire from here on.
    pub(crate) fn touch(&mut self, handle: Handle, now: Instant) {
        let (number, now) = (handle.number, self.nanos(now));
        // Whoever has been active at the same moment already stands among the last.
        let Some(node) = self.node_mut(handle).filter(|node| node.active < now) else { return };
        node.active = now;
        let source = node.source;
        if self.settled == Some(number) {
            self.settled = self.links(number, List::All).older;
        }
        if self.order.newest != Some(number) {
            let order = self.detach(number, List::All, self.order);
            self.order = self.append(number, List::All, order);
        }
        let Some(source) = source else { return };
        let order = self.source_order(source);
        if order.newest != Some(number) {
            let order = self.detach(number, List::Source, order);
            let order = self.append(number, List::Source, order);
            self.set_source_order(source, order);
        }
    }

    /// Adds an association. Gives its handle, and who had to go for it: whoever had the key, or the longest idle one of this source or
    /// of all.
    pub(crate) fn insert(
        &mut self,
        key: K,
        source: IpAddr,
        now: Instant,
        value: V,
    ) -> (Handle, Option<(Handle, V)>) {
        let displaced = self.displaced(&key, source);
        let displaced = displaced.and_then(|handle| Some((handle, self.remove(handle)?)));
        self.generation = self.generation.wrapping_add(1).max(1);
        let source = (self.bounds.per_source < self.bounds.total).then(|| self.sources.enter(source));
        self.start.get_or_insert(now);
        let (generation, active) = (self.generation, self.nanos(now));
        let number = self.entries.insert((key, value));
        self.numbers.insert(key, number);
        if let Some(node) = self.entries.node_mut(number) {
            *node = Node { source, generation, active, ..Node::default() };
        }
        self.order = self.append(number, List::All, self.order);
        if let Some(source) = source {
            let order = self.append(number, List::Source, self.source_order(source));
            self.set_source_order(source, order);
        }
        (Handle { number, generation }, displaced)
    }

    /// Who has to go for one more.
    fn displaced(&mut self, key: &K, source: IpAddr) -> Option<Handle> {
        if let Some(same) = self.find(key) {
            return Some(same);
        }
        if let Some(source) = self.sources.find(source)
            && source.count >= self.bounds.per_source
        {
            return self.handle(source.order.oldest?);
        }
        if self.len() >= self.bounds.total { self.handle(self.order.oldest?) } else { None }
    }

    pub(crate) fn remove(&mut self, handle: Handle) -> Option<V> {
        self.node(handle)?;
        self.take(handle.number).map(|(_, value)| value)
    }

    /// Everybody, or those of one source where sources are bounded, with the time of the last activity. Whoever has been idle for the
    /// longest time comes first.
    pub(crate) fn by_age(&self, source: Option<IpAddr>) -> impl Iterator<Item = (Handle, Instant, &V)> {
        let (list, oldest) = match source.filter(|_| self.bounds.per_source < self.bounds.total) {
            Some(source) => (List::Source, self.sources.find(source).and_then(|source| source.order.oldest)),
            None => (List::All, self.order.oldest),
        };
        let numbers = successors(oldest, move |number| self.links(*number, list).newer);
        numbers.filter_map(|number| {
            let Node { generation, active, .. } = *self.entries.node(number)?;
            let (_, value) = self.entries.get(number)?;
            Some((Handle { number, generation }, self.start? + Duration::from_nanos(active), value))
        })
    }

    /// Removes one that has been idle for `timeout`, the oldest first. To be called until there is none.
    pub(crate) fn expire(&mut self, now: Instant, timeout: Duration) -> Option<(Handle, V)> {
        let oldest = self.order.oldest?;
        if self.idle(oldest, now) < timeout { None } else { self.take(oldest) }
    }

    /// One that has been idle for `delay`, each once until it is active again. To be called until there is none.
    pub(crate) fn settle(&mut self, now: Instant, delay: Duration) -> Option<&mut V> {
        let next = match self.settled {
            Some(settled) => self.links(settled, List::All).newer,
            None => self.order.oldest,
        }?;
        if self.idle(next, now) < delay {
            return None;
        }
        self.settled = Some(next);
        self.entries.get_mut(next).map(|(_, value)| value)
    }

    /// A time as it is kept. The order is by time, also should the caller's clock go back.
    fn nanos(&self, now: Instant) -> u64 {
        let nanos = self.since_start(now).as_nanos();
        let newest = self.order.newest.and_then(|newest| self.entries.node(newest));
        u64::try_from(nanos).unwrap_or(u64::MAX).max(newest.map_or(0, |newest| newest.active))
    }

    fn idle(&self, number: Number, now: Instant) -> Duration {
        let active = self.entries.node(number).map_or(0, |node| node.active);
        self.since_start(now).saturating_sub(Duration::from_nanos(active))
    }

    fn since_start(&self, now: Instant) -> Duration {
        self.start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start))
    }

    fn node(&self, handle: Handle) -> Option<&Node> {
        self.entries.node(handle.number).filter(|node| node.generation == handle.generation)
    }

    fn node_mut(&mut self, handle: Handle) -> Option<&mut Node> {
        self.entries.node_mut(handle.number).filter(|node| node.generation == handle.generation)
    }

    fn handle(&self, number: Number) -> Option<Handle> {
        self.entries.node(number).map(|node| Handle { number, generation: node.generation })
    }

    fn take(&mut self, number: Number) -> Option<(Handle, V)> {
        let Node { source, generation, .. } = *self.entries.node(number)?;
        if self.settled == Some(number) {
            self.settled = self.links(number, List::All).older;
        }
        self.order = self.detach(number, List::All, self.order);
        if let Some(source) = source {
            let order = self.detach(number, List::Source, self.source_order(source));
            self.set_source_order(source, order);
            self.sources.leave(source);
        }
        let (key, value) = self.entries.remove(number)?;
        self.numbers.remove(&key);
        give_back(&mut self.numbers);
        Some((Handle { number, generation }, value))
    }

    fn links(&self, number: Number, list: List) -> Links {
        self.entries.node(number).map_or_else(Links::default, |node| match list {
            List::All => node.among_all,
            List::Source => node.among_source,
        })
    }

    fn links_mut(&mut self, number: Number, list: List) -> Option<&mut Links> {
        self.entries.node_mut(number).map(|node| match list {
            List::All => &mut node.among_all,
            List::Source => &mut node.among_source,
        })
    }

    /// Takes a node out of a list. Gives the ends that the list has then.
    fn detach(&mut self, number: Number, list: List, mut ends: Ends) -> Ends {
        let Links { older, newer } = self.links(number, list);
        match older.and_then(|older| self.links_mut(older, list)) {
            Some(links) => links.newer = newer,
            None => ends.oldest = newer,
        }
        match newer.and_then(|newer| self.links_mut(newer, list)) {
            Some(links) => links.older = older,
            None => ends.newest = older,
        }
        ends
    }

    /// Puts a node at the end of a list. Gives the ends that the list has then.
    fn append(&mut self, number: Number, list: List, mut ends: Ends) -> Ends {
        match ends.newest.and_then(|newest| self.links_mut(newest, list)) {
            Some(links) => links.newer = Some(number),
            None => ends.oldest = Some(number),
        }
        if let Some(links) = self.links_mut(number, list) {
            *links = Links { older: ends.newest, newer: None };
        }
        ends.newest = Some(number);
        ends
    }

    fn source_order(&self, source: Number) -> Ends {
        self.sources.list.get(source).map_or_else(Ends::default, |source| source.order)
    }

    fn set_source_order(&mut self, source: Number, order: Ends) {
        if let Some(source) = self.sources.list.get_mut(source) {
            source.order = order;
        }
    }
}

impl Sources {
    fn find(&self, ip: IpAddr) -> Option<&Source> {
        self.list.get(*self.numbers.get(&ip)?)
    }

    /// Counts one more. Gives the source's number.
    fn enter(&mut self, ip: IpAddr) -> Number {
        let Self { numbers, list } = self;
        let number = *numbers
            .entry(ip)
            .or_insert_with(|| list.insert(Source { ip, count: 0, order: Ends::default() }));
        if let Some(source) = list.get_mut(number) {
            source.count += 1;
        }
        number
    }

    /// Counts one less.
    fn leave(&mut self, number: Number) {
        let Some(source) = self.list.get_mut(number) else { return };
        source.count -= 1;
        if source.count > 0 {
            return;
        }
        if let Some(source) = self.list.remove(number) {
            self.numbers.remove(&source.ip);
        }
        give_back(&mut self.numbers);
    }
}

/// Gives back the room of a crowd that has gone.
fn give_back<K: Hash + Eq>(numbers: &mut HashMap<K, Number, RandomState>) {
    if numbers.capacity() > ROOM_KEPT && numbers.len() < numbers.capacity() / 8 {
        numbers.shrink_to(2 * numbers.len());
    }
}

/// Room for so many keys is not given back: it would soon be wanted again.
const ROOM_KEPT: usize = 1024;
