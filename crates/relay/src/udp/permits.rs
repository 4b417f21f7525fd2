//! Whose datagrams a SOCKS5 door takes: those from where a client holds a control connection (RFC 1928, section 7).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    live: AtomicBool,
    /// Datagrams in either direction, so that the control connection sees whether it is still of use.
    carried: AtomicU64,
    associations: AtomicUsize,
    /// Whom to tell when it ends.
    claims: Mutex<Vec<(Letters, AssociationId)>>,
}

/// A control connection's right, which ends with it.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    permits: &'a Permits,
    ip: IpAddr,
    control: Arc<Control>,
}

impl Permits {
    /// Lets datagrams from `ip` in for as long as the permit is held. The client has named `port`, or 0.
    pub(crate) fn grant(&self, ip: IpAddr, port: u16) -> Permit<'_> {
        let ip = ip.to_canonical();
        let control = Arc::new(Control {
            port,
            live: AtomicBool::new(true),
            carried: AtomicU64::new(0),
            associations: AtomicUsize::new(0),
            claims: Mutex::default(),
        });
        lock(&self.0).entry(ip).or_default().push(Arc::clone(&control));
        Permit { permits: self, ip, control }
    }

    /// The control connection that a datagram from `source` belongs to, if there is any: one that has named its port, or else one
    /// that has no association yet, or else the latest, unless [`Sources::One`].
    pub(super) fn claim(&self, source: SocketAddr, sources: Sources) -> Option<Arc<Control>> {
        let controls = lock(&self.0);
        let controls = controls.get(&source.ip().to_canonical())?;
        let named = controls.iter().find(|control| control.port == source.port());
        let unused = || controls.iter().find(|control| control.associations.load(Ordering::Relaxed) == 0);
        let found = named.or_else(unused).or_else(|| match sources {
            Sources::One => None,
            Sources::Many => controls.last(),
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

    /// Counts a datagram.
    pub(super) fn count(&self) {
        self.carried.fetch_add(1, Ordering::Relaxed);
    }

    /// An association lives by this connection from here on.
    pub(super) fn hold(&self, letters: &Letters, id: AssociationId) {
        self.associations.fetch_add(1, Ordering::Relaxed);
        lock(&self.claims).push((letters.clone(), id));
        // The connection may have ended while this was done.
        if !self.is_live() {
            letters.send(Letter::End(id));
        }
    }

    /// The association has ended.
    pub(super) fn release(&self, id: AssociationId) {
        self.associations.fetch_sub(1, Ordering::Relaxed);
        lock(&self.claims).retain(|(_, held)| *held != id);
    }
}

impl Permit<'_> {
    /// Datagrams that have passed.
    pub(crate) fn carried(&self) -> u64 {
        self.control.carried.load(Ordering::Relaxed)
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
        drop(controls);
        for (letters, id) in lock(&self.control.claims).drain(..) {
            letters.send(Letter::End(id));
        }
    }
}

/// What is kept under these locks is whole between any two calls.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
