//! The associations of one door on one worker. For now the plainest form that keeps its bounds; lookups are by hash, the rest walks.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Handle(u64);
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) total: usize,
    pub(crate) per_source: usize,
}
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    next: u64,
    by: HashMap<K, Handle>,
    all: HashMap<Handle, (K, IpAddr, Instant, V)>,
    b: Bounds,
}
impl<K: Hash + Eq + Copy, V> Table<K, V> {
    pub(crate) fn new(b: Bounds) -> Self {
        Self { next: 0, by: HashMap::new(), all: HashMap::new(), b }
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
    pub(crate) fn find(&self, k: &K) -> Option<Handle> {
        self.by.get(k).copied()
    }
    pub(crate) fn get_mut(&mut self, h: Handle) -> Option<&mut V> {
        self.all.get_mut(&h).map(|e| &mut e.3)
    }
    pub(crate) fn touch(&mut self, h: Handle, now: Instant) {
        if let Some(e) = self.all.get_mut(&h) {
            e.2 = now;
        }
    }
    pub(crate) fn insert(&mut self, k: K, ip: IpAddr, now: Instant, v: V) -> (Handle, Option<(Handle, V)>) {
        let _ = self.b.per_source;
        let old = self.find(&k).and_then(|h| Some((h, self.remove(h)?)));
        let old = if old.is_none() && self.all.len() >= self.b.total { self.remove_oldest() } else { old };
        self.next += 1;
        let h = Handle(self.next);
        self.by.insert(k, h);
        self.all.insert(h, (k, ip, now, v));
        (h, old)
    }
    pub(crate) fn remove(&mut self, h: Handle) -> Option<V> {
        let e = self.all.remove(&h)?;
        self.by.remove(&e.0);
        Some(e.3)
    }
    pub(crate) fn remove_oldest(&mut self) -> Option<(Handle, V)> {
        let h = *self.all.iter().min_by_key(|(_, e)| e.2)?.0;
        Some((h, self.remove(h)?))
    }
    pub(crate) fn expire(&mut self, now: Instant, t: Duration) -> Option<(Handle, V)> {
        let h = *self.all.iter().find(|(_, e)| now.duration_since(e.2) >= t)?.0;
        Some((h, self.remove(h)?))
    }
    pub(crate) fn settle(&mut self, _: Instant, _: Duration) -> Option<&mut V> {
        None
    }
}
