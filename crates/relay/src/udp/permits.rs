//! Whose datagrams a SOCKS5 door takes: those from where a client holds a control connection (RFC 1928, section 7).
//!
//! A control connection that has named its port has the datagrams from there. Which of the others a datagram belongs to is a guess: those
//! that one user holds at one address are a [`Party`], in which one may have been taken for another. What an association lives by is a
//! [`Claim`], which is one control connection's until that ends, and then another's of the party, or the whole party's.
//!
//! One address may have very many of both, and whoever asks need not be anybody's client: each step is done for one of them, whatever there
//! is besides, but that the end of a connection is told to each association that it may end, once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::association::AssociationId;
use super::letter::{Letter, Letters};

/// The control connections of a door.
#[derive(Debug, Default)]
pub(crate) struct Permits(Arc<Mutex<Book>>);

/// A control connection's right, which ends with it.
#[derive(Debug)]
pub(crate) struct Permit {
    book: Arc<Mutex<Book>>,
    ip: IpAddr,
    number: Number,
    shared: Arc<Shared>,
}

/// What an association lives by. It is given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    book: Arc<Mutex<Book>>,
    ip: IpAddr,
    held: Arc<Held>,
}

/// Whether an association may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its connection is there.
    Good,
    /// One of the party has ended that may have been its own: only if the client shows that it is there may it go on.
    Doubtful,
    /// None is there any more that could be its own.
    Ended,
}

/// From how many ports the client of one control connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sources {
    /// The one that comes first: behind the same address there may be others, who have no password.
    One,
    /// Any, as clients do that know of nothing but the door.
    Many,
}

/// A name for a connection, a claim or a bundle. The later one is the greater, and none comes twice.
type Number = u64;

#[derive(Debug, Default)]
struct Book {
    numbers: Number,
    addresses: HashMap<IpAddr, Clients>,
}

/// The control connections from one address.
#[derive(Debug, Default)]
struct Clients {
    controls: BTreeMap<Number, Control>,
    named: HashMap<u16, BTreeSet<Number>>,
    /// Those that nothing has come by.
    unused: BTreeSet<Number>,
    unused_unnamed: BTreeSet<Number>,
    parties: HashMap<Option<Box<str>>, Party>,
    bundles: HashMap<Number, Bundle>,
}

#[derive(Debug)]
struct Control {
    /// The port that the client said it will send from; 0 if it does not know.
    port: u16,
    /// What has come by it, if anything has.
    bundle: Option<Number>,
    shared: Arc<Shared>,
}

/// The control connections of one user at one address that have named no port.
#[derive(Debug)]
struct Party {
    live: usize,
    unused: BTreeSet<Number>,
    /// What was those's that have ended, and may be of those that are there.
    surplus: Option<Number>,
    shared: Arc<Shared>,
}

/// Claims that stand and fall together.
#[derive(Debug, Default)]
struct Bundle {
    /// By whose end; the party's last one's, where there is none.
    owner: Option<Number>,
    claims: HashMap<Number, Arc<Held>>,
}

/// What is known of a party, or of one connection that has named its port, without asking the book.
#[derive(Debug, Default)]
struct Shared {
    /// Who the client is, at a door that asks.
    user: Option<Box<str>>,
    /// Datagrams in either direction, so that control connections see whether they are still of use.
    carried: AtomicU64,
    /// How often one has ended and left what came by it in doubt.
    doubts: AtomicU64,
}

/// A claim, as far as the book knows of it. What is no atomic is changed under the book's lock.
#[derive(Debug)]
struct Held {
    number: Number,
    shared: Arc<Shared>,
    bundle: AtomicU64,
    /// Whom to tell when it falls.
    reader: Mutex<Option<(Letters, AssociationId)>>,
    has_ended: AtomicBool,
    /// It is the party's, and not one connection's.
    is_surplus: AtomicBool,
    /// How many doubts its association knows of.
    noted: AtomicU64,
}

impl Permits {
    /// Lets datagrams from `ip` in for as long as the permit is held. The client is `user`, and has named `port`, or 0.
    pub(crate) fn grant(&self, ip: IpAddr, port: u16, user: Option<Box<str>>) -> Permit {
        let ip = ip.to_canonical();
        let mut book = lock(&self.0);
        let number = book.next();
        let shared = book.addresses.entry(ip).or_default().add(number, port, user);
        Permit { book: Arc::clone(&self.0), ip, number, shared }
    }

    /// A claim to the control connection that a datagram from `source` belongs to, if there is any: one that has named its port, or else one
    /// that has named none and has no association yet. With [`Sources::Many`] any without an association, or the latest, will do.
    pub(super) fn claim(&self, source: SocketAddr, sources: Sources) -> Option<Claim> {
        let ip = source.ip().to_canonical();
        let mut book = lock(&self.0);
        let clients = book.addresses.get(&ip)?;
        let control = clients.meant(source.port(), sources)?;
        let (number, bundle) = (book.next(), book.next());
        let held = book.addresses.get_mut(&ip)?.hold(control, number, bundle)?;
        Some(Claim { book: Arc::clone(&self.0), ip, held })
    }
}

impl Claim {
    /// Whether the association may go on.
    pub(super) fn standing(&self) -> Standing {
        let Held { shared, has_ended, is_surplus, noted, .. } = &*self.held;
        if has_ended.load(Ordering::Relaxed) {
            Standing::Ended
        } else if is_surplus.load(Ordering::Relaxed)
            && noted.load(Ordering::Relaxed) != shared.doubts.load(Ordering::Relaxed)
        {
            Standing::Doubtful
        } else {
            Standing::Good
        }
    }

    /// The association knows that it is in doubt, and goes on if the client shows itself.
    pub(super) fn note_doubt(&self) {
        self.held.noted.store(self.held.shared.doubts.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Who has asked for it, if the door knows its clients.
    pub(super) fn user(&self) -> Option<&str> {
        self.held.shared.user.as_deref()
    }

    /// Counts a datagram.
    pub(super) fn count(&self) {
        self.held.shared.carried.fetch_add(1, Ordering::Relaxed);
    }

    /// The association is this one: what becomes of the claim is told in `letters`.
    pub(super) fn tell(&self, letters: &Letters, id: AssociationId) {
        let book = lock(&self.book);
        *lock(&self.held.reader) = Some((letters.clone(), id));
        let standing = self.standing();
        drop(book);
        // The connection may have ended while this was done.
        if standing != Standing::Good {
            letters.send(Letter::End(id));
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(clients) = lock(&self.book).addresses.get_mut(&self.ip) {
            clients.release(&self.held);
        }
    }
}

impl Permit {
    /// Datagrams that have passed, among them those that may be this client's and were taken for another's.
    pub(crate) fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut book = lock(&self.book);
        let Some(clients) = book.addresses.get_mut(&self.ip) else { return };
        let concerned = clients.end(self.number);
        if clients.controls.is_empty() {
            book.addresses.remove(&self.ip);
        }
        let readers = concerned.iter().filter_map(|held| lock(&held.reader).clone());
        let readers: Vec<_> = readers.collect();
        drop(book);
        for (letters, id) in readers {
            letters.send(Letter::End(id));
        }
    }
}

impl Book {
    fn next(&mut self) -> Number {
        self.numbers += 1;
        self.numbers
    }
}

impl Clients {
    fn add(&mut self, number: Number, port: u16, user: Option<Box<str>>) -> Arc<Shared> {
        let shared = if port == 0 {
            let new = |user: &Option<Box<str>>| Party {
                live: 0,
                unused: BTreeSet::new(),
                surplus: None,
                shared: Arc::new(Shared { user: user.clone(), ..Shared::default() }),
            };
            let party = self.parties.entry(user).or_insert_with_key(new);
            party.live += 1;
            Arc::clone(&party.shared)
        } else {
            self.named.entry(port).or_default().insert(number);
            Arc::new(Shared { user, ..Shared::default() })
        };
        self.controls.insert(number, Control { port, bundle: None, shared: Arc::clone(&shared) });
        self.set_unused(number, true);
        shared
    }

    /// The connection that a datagram from `port` is taken for.
    fn meant(&self, port: u16, sources: Sources) -> Option<Number> {
        let named = self.named.get(&port).and_then(BTreeSet::first);
        let found = named.or_else(|| self.unused_unnamed.first());
        let found = found.or_else(|| match sources {
            Sources::One => None,
            Sources::Many => self.unused.first().or_else(|| Some(self.controls.last_key_value()?.0)),
        });
        found.copied()
    }

    /// A claim with this `number` to `control`, in a `bundle` with this number if it has none.
    fn hold(&mut self, control: Number, number: Number, bundle: Number) -> Option<Arc<Held>> {
        self.set_unused(control, false);
        let Control { bundle: place, shared, .. } = self.controls.get_mut(&control)?;
        let bundle = *place.get_or_insert(bundle);
        let held = Arc::new(Held {
            number,
            shared: Arc::clone(shared),
            bundle: AtomicU64::new(bundle),
            reader: Mutex::default(),
            has_ended: AtomicBool::new(false),
            is_surplus: AtomicBool::new(false),
            noted: AtomicU64::new(0),
        });
        let bundle = self.bundles.entry(bundle).or_default();
        bundle.owner = Some(control);
        bundle.claims.insert(number, Arc::clone(&held));
        Some(held)
    }

    fn release(&mut self, held: &Held) {
        let number = held.bundle.load(Ordering::Relaxed);
        let Some(bundle) = self.bundles.get_mut(&number) else { return };
        bundle.claims.remove(&held.number);
        if !bundle.claims.is_empty() {
            return;
        }
        let owner = bundle.owner;
        self.bundles.remove(&number);
        match owner {
            Some(owner) => {
                if let Some(control) = self.controls.get_mut(&owner) {
                    control.bundle = None;
                    self.set_unused(owner, true);
                }
            }
            None => {
                let party = self.parties.get_mut(&held.shared.user);
                if let Some(party) = party.filter(|party| party.surplus == Some(number)) {
                    party.surplus = None;
                }
            }
        }
    }

    /// The connection with this number has ended. Gives the claims that fall with it or are in doubt.
    fn end(&mut self, number: Number) -> Vec<Arc<Held>> {
        self.set_unused(number, false);
        let Some(Control { port, bundle, shared }) = self.controls.remove(&number) else { return Vec::new() };
        if port != 0 {
            if let Some(same) = self.named.get_mut(&port) {
                same.remove(&number);
                if same.is_empty() {
                    self.named.remove(&port);
                }
            }
            return self.fall(bundle);
        }
        let Some(party) = self.parties.get_mut(&shared.user) else { return Vec::new() };
        party.live -= 1;
        if party.live == 0 {
            let surplus = party.surplus;
            self.parties.remove(&shared.user);
            let mut fallen = self.fall(bundle);
            fallen.append(&mut self.fall(surplus));
            return fallen;
        }
        let Some(left) = bundle else { return Vec::new() };
        // Which connection an association came by was a guess. Where the client has others it may have been one of these: first of all one
        // that nothing has come by, but two may also have been taken for each other.
        if let Some(heir) = party.unused.first().copied() {
            self.set_unused(heir, false);
            if let (Some(control), Some(bundle)) = (self.controls.get_mut(&heir), self.bundles.get_mut(&left))
            {
                (control.bundle, bundle.owner) = (Some(left), Some(heir));
            }
            return Vec::new();
        }
        // A bundle that nobody owns any more is as good as a new one.
        let surplus = *party.surplus.get_or_insert(left);
        shared.doubts.fetch_add(1, Ordering::Relaxed);
        let claims = self.bundles.get_mut(&left).map(|bundle| std::mem::take(&mut bundle.claims));
        if surplus != left {
            self.bundles.remove(&left);
        }
        let claims = claims.unwrap_or_default();
        for held in claims.values() {
            held.bundle.store(surplus, Ordering::Relaxed);
            held.is_surplus.store(true, Ordering::Relaxed);
        }
        let concerned = claims.values().cloned().collect();
        let bundle = self.bundles.entry(surplus).or_default();
        bundle.owner = None;
        bundle.claims.extend(claims);
        concerned
    }

    /// All that is in a bundle ends.
    fn fall(&mut self, bundle: Option<Number>) -> Vec<Arc<Held>> {
        let bundle = bundle.and_then(|bundle| self.bundles.remove(&bundle)).unwrap_or_default();
        let fallen: Vec<_> = bundle.claims.into_values().collect();
        for held in &fallen {
            held.has_ended.store(true, Ordering::Relaxed);
        }
        fallen
    }

    /// Whether nothing has come by a connection.
    fn set_unused(&mut self, number: Number, is_unused: bool) {
        let Some(Control { port, shared, .. }) = self.controls.get(&number) else { return };
        let set = |numbers: &mut BTreeSet<Number>| {
            if is_unused {
                numbers.insert(number)
            } else {
                numbers.remove(&number)
            };
        };
        set(&mut self.unused);
        if *port == 0 {
            set(&mut self.unused_unnamed);
            if let Some(party) = self.parties.get_mut(&shared.user) {
                set(&mut party.unused);
            }
        }
    }
}

/// What is kept under these locks is whole between any two calls.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::udp::letter::Mailbox;
    use crate::udp::table::{Bounds, Table};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn from(port: u16) -> SocketAddr {
        SocketAddr::new(HERE, port)
    }

    /// Names of so many associations.
    fn associations(count: usize) -> Vec<AssociationId> {
        let mut table = Table::new(Bounds { total: count, per_source: count });
        let id = |key| {
            let (handle, _) = table.insert(key, HERE, tokio::time::Instant::now(), ());
            AssociationId { post: 0, handle }
        };
        (0..count).map(id).collect()
    }

    fn told(mailbox: &mut Mailbox) -> Vec<AssociationId> {
        let mut told = Vec::new();
        while let Ok(letter) = mailbox.try_recv() {
            let Letter::End(id) = letter else { panic!("{letter:?}") };
            told.push(id);
        }
        told
    }

    /// By which connection a claim stands.
    fn owner(permits: &Permits, claim: &Claim) -> Option<Number> {
        let book = lock(&permits.0);
        let number = claim.held.bundle.load(Ordering::Relaxed);
        book.addresses[&HERE].bundles[&number].owner
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
            assert_eq!(owner(&permits, &claimed), Some(unnamed.number));
        }
        assert!(permits.claim("192.0.2.2:1000".parse().unwrap(), Sources::Many).is_none());
        let mapped = "[::ffff:192.0.2.1]:1000".parse().unwrap();
        assert!(permits.claim(mapped, Sources::One).is_some());
    }

    #[test]
    fn the_end_of_one_programs_connection_leaves_the_datagrams_of_another_alone() {
        let permits = Permits::default();
        let (ids, (letters, mut mailbox)) = (associations(1), Letters::new());
        let [one, other] = [(); 2].map(|()| permits.grant(HERE, 0, Some("user".into())));
        // The datagrams are those of whoever holds the other connection.
        let claimed = permits.claim(from(1000), Sources::One).unwrap();
        claimed.tell(&letters, ids[0]);
        assert_eq!((owner(&permits, &claimed), claimed.user()), (Some(one.number), Some("user")));
        drop(one);
        assert_eq!((told(&mut mailbox), claimed.standing()), (vec![], Standing::Good));
        assert_eq!(owner(&permits, &claimed), Some(other.number));
        assert!(permits.claim(from(2000), Sources::One).is_none(), "it has an association");
        drop(other);
        assert_eq!((told(&mut mailbox), claimed.standing()), (ids, Standing::Ended));
    }

    #[test]
    fn an_association_is_left_to_no_other_user_and_to_none_that_has_named_a_port() {
        let permits = Permits::default();
        let (ids, (letters, mut mailbox)) = (associations(1), Letters::new());
        let one = permits.grant(HERE, 0, Some("one".into()));
        let claimed = permits.claim(from(1000), Sources::One).unwrap();
        let _another_user = permits.grant(HERE, 0, Some("another".into()));
        let _named = permits.grant(HERE, 1000, Some("one".into()));
        claimed.tell(&letters, ids[0]);
        drop(one);
        assert_eq!((told(&mut mailbox), claimed.standing()), (ids, Standing::Ended));
    }

    #[test]
    fn two_programs_that_were_taken_for_each_other_lose_nothing_by_the_end_of_one() {
        let permits = Permits::default();
        let (ids, (letters, mut mailbox)) = (associations(3), Letters::new());
        let [one, other, third] = [(); 3].map(|()| permits.grant(HERE, 0, Some("user".into())));
        // Whoever opened the second connection has sent first.
        let claimed = [1000, 2000, 3000].map(|port| permits.claim(from(port), Sources::One).unwrap());
        claimed.iter().zip(&ids).for_each(|(claimed, id)| claimed.tell(&letters, *id));
        let owners = claimed.each_ref().map(|claimed| owner(&permits, claimed));
        assert_eq!(owners, [&one, &other, &third].map(|permit| Some(permit.number)));
        let standings = || claimed.each_ref().map(Claim::standing);
        drop(one);
        assert_eq!(told(&mut mailbox), ids[..1]);
        assert_eq!(standings(), [Standing::Doubtful, Standing::Good, Standing::Good]);
        claimed[0].note_doubt();
        assert_eq!(standings(), [Standing::Good; 3]);
        // What has shown itself may have been this one's after all.
        drop(other);
        assert_eq!(told(&mut mailbox), ids[1..2]);
        assert_eq!(standings(), [Standing::Doubtful, Standing::Doubtful, Standing::Good]);
        let _fourth = permits.grant(HERE, 0, Some("user".into()));
        assert!(permits.claim(from(4000), Sources::One).is_some(), "what is left over takes no place");
        drop(third);
        assert_eq!((told(&mut mailbox), standings()[2]), (vec![], Standing::Good));
    }

    #[test]
    fn with_the_last_connection_all_ends_that_was_left_to_it() {
        let permits = Permits::default();
        let (ids, (letters, mut mailbox)) = (associations(3), Letters::new());
        let controls = [(); 3].map(|()| permits.grant(HERE, 0, None));
        let claimed = [1000, 2000, 3000].map(|port| permits.claim(from(port), Sources::One).unwrap());
        claimed.iter().zip(&ids).for_each(|(claimed, id)| claimed.tell(&letters, *id));
        drop(controls);
        let mut told = told(&mut mailbox);
        assert_eq!(told[..2], ids[..2]);
        told[2..].sort_by_key(|id| ids.iter().position(|known| known == id));
        assert_eq!(told[2..], ids);
        assert_eq!(claimed.each_ref().map(Claim::standing), [Standing::Ended; 3]);
        assert!(lock(&permits.0).addresses.is_empty());
    }

    #[test]
    fn what_may_be_a_programs_own_keeps_its_connection_though_it_was_taken_for_anothers() {
        let permits = Permits::default();
        let [silent, _busy] = [(); 2].map(|()| permits.grant(HERE, 0, None));
        let [named, another] =
            [(1000, None), (0, Some("user".into()))].map(|(port, user)| permits.grant(HERE, port, user));
        let before = [&silent, &named, &another].map(Permit::carried);
        permits.claim(from(2000), Sources::One).unwrap().count();
        let after = [&silent, &named, &another].map(Permit::carried);
        assert_eq!([0, 1, 2].map(|at| after[at] != before[at]), [true, false, false]);
    }

    #[test]
    fn what_ends_after_it_was_left_to_another_connection_leaves_that_unused() {
        let permits = Permits::default();
        let [one, _other] = [(); 2].map(|()| permits.grant(HERE, 0, None));
        let claimed = permits.claim(from(1000), Sources::One).unwrap();
        drop(one);
        assert!(permits.claim(from(2000), Sources::One).is_none());
        drop(claimed);
        assert!(permits.claim(from(2000), Sources::One).is_some());
    }

    #[test]
    fn whatever_ends_in_whatever_order_nobody_is_told_of_an_association_more_than_twice() {
        const MANY: usize = 20_000;
        let (ids, (letters, mut mailbox)) = (associations(MANY), Letters::new());
        // Each connection has an association, and all of them end one after the other.
        let permits = Permits::default();
        let mut controls = Vec::new();
        let mut claims = Vec::new();
        for (port, id) in (1..).zip(&ids) {
            controls.push(permits.grant(HERE, 0, None));
            claims.push(permits.claim(from(port), Sources::One).unwrap());
            claims.last().unwrap().tell(&letters, *id);
        }
        drop(controls);
        assert_eq!(told(&mut mailbox).len(), 2 * MANY - 1);
        assert!(claims.iter().all(|claim| claim.standing() == Standing::Ended));
        // All are of one connection, and it and many that nothing has come by end one after the other.
        let first = permits.grant(HERE, 0, None);
        for (claim, id) in claims.iter_mut().zip(&ids) {
            *claim = permits.claim(from(1), Sources::Many).unwrap();
            claim.tell(&letters, *id);
        }
        let others: Vec<_> = (0..MANY).map(|_| permits.grant(HERE, 0, None)).collect();
        drop(first);
        drop(others);
        assert_eq!(told(&mut mailbox).len(), MANY);
        // And what has no connection any more goes.
        drop(claims);
    }

    /// What is done to a book.
    #[derive(Clone, Debug)]
    enum Step {
        Grant(u16, u8),
        Claim(u16, bool),
        End(prop::sample::Index),
        Release(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_u16, 0..2_u8).prop_map(|(port, user)| Step::Grant(port, user)),
            (1..6_u16, any::<bool>()).prop_map(|(port, many)| Step::Claim(port, many)),
            any::<prop::sample::Index>().prop_map(Step::End),
            any::<prop::sample::Index>().prop_map(Step::Release),
        ]
    }

    /// Each part of a book agrees with the others.
    fn check(permits: &Permits, claims: &[Claim]) -> Result<(), TestCaseError> {
        let book = lock(&permits.0);
        let Some(clients) = book.addresses.get(&HERE) else {
            prop_assert!(claims.iter().all(|claim| claim.standing() == Standing::Ended));
            return Ok(());
        };
        let unused = |is_named: bool| {
            let controls = clients.controls.iter();
            let unused = controls
                .filter(move |(_, control)| control.bundle.is_none() && (is_named || control.port == 0));
            unused.map(|(number, _)| *number).collect::<BTreeSet<_>>()
        };
        prop_assert_eq!(&clients.unused, &unused(true));
        prop_assert_eq!(&clients.unused_unnamed, &unused(false));
        let of_parties: BTreeSet<_> =
            clients.parties.values().flat_map(|party| &party.unused).copied().collect();
        prop_assert_eq!(of_parties, unused(false));
        let live: usize = clients.parties.values().map(|party| party.live).sum();
        prop_assert_eq!(live, clients.controls.values().filter(|control| control.port == 0).count());
        prop_assert_eq!(
            clients.named.values().map(BTreeSet::len).sum::<usize>() + live,
            clients.controls.len()
        );
        let mut found = 0;
        for (number, bundle) in &clients.bundles {
            prop_assert!(!bundle.claims.is_empty());
            match bundle.owner {
                Some(owner) => prop_assert_eq!(clients.controls[&owner].bundle, Some(*number)),
                None => {
                    let is_known = |party: &Party| party.surplus == Some(*number);
                    prop_assert_eq!(clients.parties.values().filter(|party| is_known(party)).count(), 1);
                }
            }
            for (claim, held) in &bundle.claims {
                prop_assert_eq!((held.number, held.bundle.load(Ordering::Relaxed)), (*claim, *number));
                prop_assert_eq!(held.is_surplus.load(Ordering::Relaxed), bundle.owner.is_none());
                found += 1;
            }
        }
        let living = claims.iter().filter(|claim| claim.standing() != Standing::Ended).count();
        prop_assert_eq!(living, found);
        Ok(())
    }

    proptest! {
        #[test]
        fn the_book_is_whole_after_each_step(steps in prop::collection::vec(step(), 1..60)) {
            let permits = Permits::default();
            let (mut controls, mut claims) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Grant(port, user) => {
                        controls.push(permits.grant(HERE, port, (user > 0).then(|| "user".into())));
                    }
                    Step::Claim(port, many) => {
                        let sources = if many { Sources::Many } else { Sources::One };
                        claims.extend(permits.claim(from(port), sources));
                    }
                    Step::End(at) if !controls.is_empty() => drop(controls.swap_remove(at.index(controls.len()))),
                    Step::Release(at) if !claims.is_empty() => drop(claims.swap_remove(at.index(claims.len()))),
                    Step::End(_) | Step::Release(_) => {}
                }
                check(&permits, &claims)?;
            }
            drop(controls);
            check(&permits, &claims)?;
            prop_assert!(lock(&permits.0).addresses.is_empty());
        }
    }
}
