//! Whose datagrams a SOCKS5 door takes: those from where a client holds a control connection (RFC 1928, section 7).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::association::AssociationId;
use super::letter::{Letter, Letters};

/// The control connections of a door, by the address that they come from.
#[derive(Debug, Default)]
pub(crate) struct Permits(Mutex<HashMap<IpAddr, Vec<Arc<Control>>>>);

/// One control connection, as far as datagrams are concerned.
#[derive(Debug)]
pub(crate) struct Control {
    /// The port that the client said it will send from; 0 if it does not know.
    port: u16,
    /// Who the client is, at a door that asks.
    user: Option<Box<str>>,
    live: AtomicBool,
    /// Datagrams in either direction, so that the control connection sees whether it is still of use.
    carried: AtomicU64,
    associations: AtomicUsize,
    /// Whom to tell when it ends.
    claims: Mutex<Vec<(Letters, AssociationId)>>,
    /// Which connection has its associations since it has ended.
    heir: OnceLock<Heir>,
}

/// Who has the associations of a connection that has ended.
#[derive(Clone, Debug)]
pub(super) struct Heir {
    pub(super) control: Arc<Control>,
    /// It has some already: only if they were taken for each other's are these its own.
    pub(super) is_doubtful: bool,
}

/// A control connection's right, which ends with it.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    permits: &'a Permits,
    ip: IpAddr,
    control: Arc<Control>,
}

impl Permits {
    /// Lets datagrams from `ip` in for as long as the permit is held. The client is `user`, and has named `port`, or 0.
    pub(crate) fn grant(&self, ip: IpAddr, port: u16, user: Option<Box<str>>) -> Permit<'_> {
        let ip = ip.to_canonical();
        let control = Arc::new(Control {
            port,
            user,
            live: AtomicBool::new(true),
            carried: AtomicU64::new(0),
            associations: AtomicUsize::new(0),
            claims: Mutex::default(),
            heir: OnceLock::new(),
        });
        lock(&self.0).entry(ip).or_default().push(Arc::clone(&control));
        Permit { permits: self, ip, control }
    }

    /// The control connection that a datagram from `source` belongs to, if there is any: one that has named its port, or else one
    /// that has named none and has no association yet. With [`Sources::Many`] any without an association, or the latest, will do.
    pub(super) fn claim(&self, source: SocketAddr, sources: Sources) -> Option<Arc<Control>> {
        let controls = lock(&self.0);
        let controls = controls.get(&source.ip().to_canonical())?;
        let named = controls.iter().find(|control| control.port == source.port());
        let unnamed = || controls.iter().find(|control| control.port == 0 && control.is_unused());
        let found = named.or_else(unnamed).or_else(|| match sources {
            Sources::One => None,
            Sources::Many => controls.iter().find(|control| control.is_unused()).or_else(|| controls.last()),
        });
        found.map(Arc::clone)
    }
}

/// From how many ports the client of one control connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sources {
    /// The one that comes first: behind the same address there may be others, who have no password.
    One,
    /// Any, as clients do that know of nothing but the door.
    Many,
}

impl Control {
    /// Whether the connection is still there.
    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    /// Who has asked for it, if the door knows its clients.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Counts a datagram.
    pub(super) fn count(&self) {
        self.carried.fetch_add(1, Ordering::Relaxed);
    }

    /// An association lives by this connection from here on.
    pub(super) fn hold(&self, letters: &Letters, id: AssociationId) {
        let mut claims = lock(&self.claims);
        if let Some(heir) = self.heir.get() {
            drop(claims);
            return heir.control.hold(letters, id);
        }
        claims.push((letters.clone(), id));
        self.associations.store(claims.len(), Ordering::Relaxed);
        drop(claims);
        // The connection may have ended while this was done.
        if !self.is_live() {
            letters.send(Letter::End(id));
        }
    }

    /// The association has ended.
    pub(super) fn release(&self, id: AssociationId) {
        let mut claims = lock(&self.claims);
        if let Some(heir) = self.heir.get() {
            drop(claims);
            return heir.control.release(id);
        }
        claims.retain(|(_, held)| *held != id);
        self.associations.store(claims.len(), Ordering::Relaxed);
    }

    /// By which connection the associations of this one live, since it has ended.
    pub(super) fn successor(&self) -> Option<Heir> {
        let mut last = self.heir.get()?.clone();
        while let Some(next) = last.control.heir.get() {
            last = Heir { is_doubtful: last.is_doubtful || next.is_doubtful, ..next.clone() };
        }
        last.control.is_live().then_some(last)
    }

    /// Whether datagrams that were taken for this one's may be `other`'s: where no port is named, which is which is a guess.
    fn may_be_meant(&self, other: &Self) -> bool {
        (self.port, other.port) == (0, 0) && self.user == other.user
    }

    fn is_unused(&self) -> bool {
        self.associations.load(Ordering::Relaxed) == 0
    }
}

impl Permit<'_> {
    /// Datagrams that have passed, among them those that may be this client's and were taken for another's.
    pub(crate) fn carried(&self) -> u64 {
        let own = self.control.carried.load(Ordering::Relaxed);
        let controls = lock(&self.permits.0);
        let others = controls
            .get(&self.ip)
            .into_iter()
            .flatten()
            .filter(|other| !Arc::ptr_eq(other, &self.control) && self.control.may_be_meant(other));
        others.map(|other| other.carried.load(Ordering::Relaxed)).fold(own, u64::wrapping_add)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.control.live.store(false, Ordering::Relaxed);
        let mut controls = lock(&self.permits.0);
        if let Some(of_ip) = controls.get_mut(&self.ip) {
            of_ip.retain(|control| !Arc::ptr_eq(control, &self.control));
            if of_ip.is_empty() {
                controls.remove(&self.ip);
            }
        }
        // Which connection an association came by was a guess, unless a port was named. Where the client has others it may have been one
        // of these: first of all one that nothing has come by, but two may also have been taken for each other.
        let heir = controls.get(&self.ip).and_then(|of_ip| {
            let mut meant = of_ip.iter().filter(|other| self.control.may_be_meant(other));
            meant.clone().find(|other| other.is_unused()).or_else(|| meant.next())
        });
        let heir = heir.map(|heir| Heir { control: Arc::clone(heir), is_doubtful: !heir.is_unused() });
        let mut claims = lock(&self.control.claims);
        if let Some(heir) = heir.filter(|_| !claims.is_empty()) {
            let mut inherited = lock(&heir.control.claims);
            inherited.extend(claims.iter().cloned());
            heir.control.associations.store(inherited.len(), Ordering::Relaxed);
            drop(inherited);
            // It ends once, so that there is no other.
            let _ = self.control.heir.set(heir);
        }
        for (letters, id) in claims.drain(..) {
            letters.send(Letter::End(id));
        }
    }
}

/// What is kept under these locks is whole between any two calls.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::letter::Mailbox;
    use crate::udp::table::{Bounds, Table};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn from(port: u16) -> SocketAddr {
        SocketAddr::new(HERE, port)
    }

    /// Names of associations, and where letters about them arrive.
    fn associations() -> ([AssociationId; 2], Letters, Mailbox) {
        let mut table = Table::new(Bounds { total: 2, per_source: 2 });
        let ids = [1, 2].map(|key| {
            let (handle, _) = table.insert(key, HERE, tokio::time::Instant::now(), ());
            AssociationId { post: 0, handle }
        });
        let (letters, mailbox) = Letters::new();
        (ids, letters, mailbox)
    }

    fn told(mailbox: &mut Mailbox) -> Vec<AssociationId> {
        let mut told = Vec::new();
        while let Ok(letter) = mailbox.try_recv() {
            let Letter::End(id) = letter else { panic!("{letter:?}") };
            told.push(id);
        }
        told
    }

    #[test]
    fn whoever_has_named_another_port_is_not_taken_for_somebody_else() {
        let permits = Permits::default();
        let _named = permits.grant(HERE, 1000, None);
        assert!(permits.claim(from(2000), Sources::One).is_none());
        assert!(permits.claim(from(2000), Sources::Many).is_some());
        assert!(permits.claim(from(1000), Sources::One).is_some());
        let unnamed = permits.grant(HERE, 0, None);
        for sources in [Sources::One, Sources::Many] {
            let claimed = permits.claim(from(2000), sources).unwrap();
            assert!(Arc::ptr_eq(&claimed, &unnamed.control));
        }
        assert!(permits.claim("192.0.2.2:1000".parse().unwrap(), Sources::Many).is_none());
    }

    #[test]
    fn the_end_of_one_programs_connection_leaves_the_datagrams_of_another_alone() {
        let permits = Permits::default();
        let ([id, _], letters, mut mailbox) = associations();
        let [one, other] = [(); 2].map(|()| permits.grant(HERE, 0, Some("user".into())));
        // The datagrams are those of whoever holds the other connection.
        let claimed = permits.claim(from(1000), Sources::One).unwrap();
        claimed.hold(&letters, id);
        assert!(Arc::ptr_eq(&claimed, &one.control));
        drop(one);
        assert_eq!(told(&mut mailbox), [id]);
        let heir = claimed.successor().unwrap();
        assert!(!claimed.is_live() && Arc::ptr_eq(&heir.control, &other.control) && !heir.is_doubtful);
        assert!(permits.claim(from(2000), Sources::One).is_none(), "it has an association");
        drop(other);
        assert_eq!(told(&mut mailbox), [id]);
        assert!(claimed.successor().is_none());
    }

    #[test]
    fn an_association_is_left_to_no_other_user_and_to_none_that_has_named_a_port() {
        let permits = Permits::default();
        let ([id, _], letters, mut mailbox) = associations();
        let one = permits.grant(HERE, 0, Some("one".into()));
        one.control.hold(&letters, id);
        let _another_user = permits.grant(HERE, 0, Some("another".into()));
        let _named = permits.grant(HERE, 1000, Some("one".into()));
        let control = Arc::clone(&one.control);
        drop(one);
        assert_eq!(told(&mut mailbox), [id]);
        assert!(control.successor().is_none());
    }

    #[test]
    fn two_programs_that_were_taken_for_each_other_lose_nothing_by_the_end_of_one() {
        let permits = Permits::default();
        let ([id, other_id], letters, mut mailbox) = associations();
        let [one, other] = [(); 2].map(|()| permits.grant(HERE, 0, Some("user".into())));
        // Whoever opened the second connection has sent first.
        let claimed = [(1000, id), (2000, other_id)].map(|(port, id)| {
            let claimed = permits.claim(from(port), Sources::One).unwrap();
            claimed.hold(&letters, id);
            claimed
        });
        assert!(Arc::ptr_eq(&claimed[0], &one.control) && Arc::ptr_eq(&claimed[1], &other.control));
        drop(one);
        assert_eq!(told(&mut mailbox), [id]);
        let heir = claimed[0].successor().unwrap();
        assert!(Arc::ptr_eq(&heir.control, &other.control) && heir.is_doubtful);
        drop(other);
        assert_eq!(told(&mut mailbox), [other_id, id]);
        assert!(claimed[0].successor().is_none());
    }

    #[test]
    fn what_may_be_a_programs_own_keeps_its_connection_though_it_was_taken_for_anothers() {
        let permits = Permits::default();
        let [silent, _busy] = [(); 2].map(|()| permits.grant(HERE, 0, None));
        let [named, another] =
            [(1000, None), (0, Some("user".into()))].map(|(port, user)| permits.grant(HERE, port, user));
        let before = [&silent, &named, &another].map(Permit::carried);
        permits.0.lock().unwrap()[&HERE][1].count();
        let after = [&silent, &named, &another].map(Permit::carried);
        assert_eq!([0, 1, 2].map(|at| after[at] != before[at]), [true, false, false]);
    }

    #[test]
    fn what_ends_after_it_was_left_to_another_connection_leaves_that_unused() {
        let permits = Permits::default();
        let ([id, other_id], letters, _mailbox) = associations();
        let [one, other] = [(); 2].map(|()| permits.grant(HERE, 0, None));
        let control = Arc::clone(&one.control);
        control.hold(&letters, id);
        drop(one);
        control.hold(&letters, other_id);
        assert!(!other.control.is_unused());
        control.release(id);
        control.release(other_id);
        assert!(other.control.is_unused());
    }
}
