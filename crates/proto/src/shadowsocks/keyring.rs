//! The secrets of a server's port, and who holds them.
//!
//! - One key, nobody's in particular.
//! - SIP004 has no word for who is speaking, so with several users their keys are tried, the one that opened last first
//!   ([`TrialOrder`]). A stranger costs as many attempts as there are keys, which is why these are few.
//! - SIP022 names its user in an identity header (SIP023): the port has a key of its own, which opens that header, and the
//!   user is looked up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use super::identity::{IdentityHash, has_identities};
use super::key::Key;
use super::{Generation, Method};
use crate::address::Address;
use crate::limits::{IDENTIFIED_USERS_MAX, TRIAL_KEYS_MAX};

/// Who may use a port, and with which secrets: at least one key, all of one method, no two the same.
#[derive(Clone)]
pub struct Keyring {
    method: Method,
    users: Box<[Held]>,
    rule: Rule,
}

/// One who may use a port.
#[derive(Clone, Debug)]
pub struct User {
    /// What the operator calls them; never on the wire.
    pub name: Box<str>,
    /// Their secret.
    pub key: Key,
    /// Who understands the rest of their streams, where this server is only a relay on their way (SIP023).
    pub forward: Option<Address>,
}

/// Which key of a keyring somebody was found to hold; of no meaning for another keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder(u32);

/// The order in which the keys of SIP004 users are tried. A clone is a snapshot, and costs next to nothing.
#[derive(Clone, Debug)]
pub struct TrialOrder(Arc<[u32]>);

/// A key with what is known of its holder.
#[derive(Clone)]
struct Held {
    /// `None` for the port's own key.
    name: Option<Box<str>>,
    key: Key,
    forward: Option<Address>,
}

/// How the holder of a stream is found.
#[derive(Clone)]
pub(super) enum Rule {
    /// There is one key.
    One,
    /// Every key is tried.
    Trial,
    /// The stream says whose it is, sealed for the port's own key.
    Identified(Box<Identified>),
}

/// SIP023, as a server knows it.
#[derive(Clone)]
pub(super) struct Identified {
    pub(super) port: Key,
    // The hash tells who, it does not prove it: the key does. So an ordinary lookup is enough.
    users: HashMap<IdentityHash, Holder>,
}

/// Why keys and users make no keyring. The names are those of the users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyringError {
    /// Neither a key of the port nor a user.
    Empty,
    /// A key is of another method than the port.
    OtherMethod {
        /// The port's method.
        wanted: Method,
        /// The key's.
        given: Method,
    },
    /// Under SIP022 the port needs a key of its own before it can have users.
    NoPortKey,
    /// The method has no way to tell users apart.
    NoUsers(Method),
    /// More users than the method's way of telling them apart can bear.
    TooMany {
        /// Users that were given.
        given: usize,
        /// Users that are possible.
        max: usize,
    },
    /// Two users have one name.
    SameName(Box<str>),
    /// Two users have one key.
    SameKey(Box<str>, Box<str>),
    /// A user has the port's own key, so everybody would be this user.
    PortKey(Box<str>),
    /// Only streams that say whose they are can be forwarded (SIP023).
    NoForward(Box<str>),
}

impl Keyring {
    /// The keyring of a port of `method` with `users`, and with a key of its own in `port`.
    ///
    /// Without users there is only that key. With users it is the identity key that their streams name them under (SIP022
    /// with AES), or one more key that opens (SIP004), which then need not be there.
    pub fn new(method: Method, port: Option<Key>, users: Vec<User>) -> Result<Self, KeyringError> {
        check_methods(method, port.as_ref(), &users)?;
        match (port, users.is_empty()) {
            (None, true) => Err(KeyringError::Empty),
            (Some(key), true) => Ok(Self::from(key)),
            (port, false) => match method.generation() {
                Generation::Aead => Self::tried(method, port, users),
                Generation::Aead2022 if has_identities(method) => {
                    Self::identified(method, port.ok_or(KeyringError::NoPortKey)?, users)
                }
                // Without a tag nothing tells which of several keys is the right one.
                Generation::Stream | Generation::Aead2022 => Err(KeyringError::NoUsers(method)),
            },
        }
    }

    fn tried(method: Method, port: Option<Key>, users: Vec<User>) -> Result<Self, KeyringError> {
        let given = users.len() + usize::from(port.is_some());
        if given > TRIAL_KEYS_MAX {
            return Err(KeyringError::TooMany { given, max: TRIAL_KEYS_MAX });
        }
        if let Some(user) = users.iter().find(|user| user.forward.is_some()) {
            return Err(KeyringError::NoForward(user.name.clone()));
        }
        index(port.as_ref(), &users)?;
        let port = port.map(|key| Held { name: None, key, forward: None });
        let users = port.into_iter().chain(users.into_iter().map(Held::from)).collect();
        Ok(Self { method, users, rule: Rule::Trial })
    }

    fn identified(method: Method, port: Key, users: Vec<User>) -> Result<Self, KeyringError> {
        if users.len() > IDENTIFIED_USERS_MAX {
            return Err(KeyringError::TooMany { given: users.len(), max: IDENTIFIED_USERS_MAX });
        }
        let by_hash = index(Some(&port), &users)?;
        let rule = Rule::Identified(Box::new(Identified { port, users: by_hash }));
        Ok(Self { method, users: users.into_iter().map(Held::from).collect(), rule })
    }

    /// The method of all keys.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The key that `holder` was found to hold.
    pub fn key(&self, holder: Holder) -> &Key {
        &self.held(holder).key
    }

    /// What the operator calls `holder`, unless it is whoever holds the port's own key.
    pub fn name(&self, holder: Holder) -> Option<&str> {
        self.held(holder).name.as_deref()
    }

    /// Who understands the rest of `holder`'s streams, if that is not this server.
    pub fn forward(&self, holder: Holder) -> Option<&Address> {
        self.held(holder).forward.as_ref()
    }

    /// Keys that may open a stream here.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// A keyring is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether users are found by trying keys, so that the order of trying matters.
    pub fn is_tried(&self) -> bool {
        matches!(self.rule, Rule::Trial)
    }

    /// Everybody who holds a key.
    pub fn holders(&self) -> impl Iterator<Item = Holder> {
        (0..self.users.len()).map(Holder::new)
    }

    pub(super) fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Where the key of `holder` stands among all of them.
    pub(super) fn place(&self, holder: Holder) -> usize {
        // The holder of another keyring is our own mistake; the first key then opens nothing that is not its own.
        if holder.index() < self.users.len() { holder.index() } else { 0 }
    }

    fn held(&self, holder: Holder) -> &Held {
        &self.users[self.place(holder)]
    }
}

/// One key, nobody's in particular.
impl From<Key> for Keyring {
    fn from(key: Key) -> Self {
        let method = key.method();
        Self { method, users: Box::new([Held { name: None, key, forward: None }]), rule: Rule::One }
    }
}

impl Identified {
    pub(super) fn find(&self, hash: &IdentityHash) -> Option<Holder> {
        self.users.get(hash).copied()
    }
}

impl Holder {
    /// The holder of the only key.
    pub(super) const ONLY: Self = Self(0);

    fn new(index: usize) -> Self {
        Self(u32::try_from(index).expect("a keyring has fewer keys than there are numbers"))
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

impl TrialOrder {
    /// The order of the keyring itself.
    pub fn new(keyring: &Keyring) -> Self {
        let count = if keyring.is_tried() { keyring.len() } else { 0 };
        Self((0..count).map(|index| Holder::new(index).0).collect())
    }

    /// Lets `holder`, whose stream has been admitted, be tried first from here on.
    pub fn promote(&mut self, holder: Holder) {
        let Some(place) = self.0.iter().position(|index| *index == holder.0) else { return };
        if place > 0 {
            Arc::make_mut(&mut self.0)[..=place].rotate_right(1);
        }
    }

    /// Whose keys are tried, one after the other.
    pub fn holders(&self) -> impl Iterator<Item = Holder> {
        self.0.iter().copied().map(Holder)
    }
}

fn check_methods(method: Method, port: Option<&Key>, users: &[User]) -> Result<(), KeyringError> {
    let mut keys = port.into_iter().chain(users.iter().map(|user| &user.key));
    match keys.find(|key| key.method() != method) {
        Some(key) => Err(KeyringError::OtherMethod { wanted: method, given: key.method() }),
        None => Ok(()),
    }
}

/// Users by the hash of their keys; refuses what two of them share.
fn index(port: Option<&Key>, users: &[User]) -> Result<HashMap<IdentityHash, Holder>, KeyringError> {
    let port = port.map(IdentityHash::of);
    let mut names = HashMap::with_capacity(users.len());
    let mut hashes: HashMap<IdentityHash, Holder> = HashMap::with_capacity(users.len());
    for (number, user) in users.iter().enumerate() {
        if names.insert(&*user.name, ()).is_some() {
            return Err(KeyringError::SameName(user.name.clone()));
        }
        let hash = IdentityHash::of(&user.key);
        // A server and the relay before it may share their identity key.
        if port == Some(hash) && user.forward.is_none() {
            return Err(KeyringError::PortKey(user.name.clone()));
        }
        match hashes.entry(hash) {
            Entry::Vacant(free) => drop(free.insert(Holder::new(number))),
            Entry::Occupied(taken) => {
                let other = users[taken.get().index()].name.clone();
                return Err(KeyringError::SameKey(other, user.name.clone()));
            }
        }
    }
    Ok(hashes)
}

impl From<User> for Held {
    fn from(user: User) -> Self {
        Self { name: Some(user.name), key: user.key, forward: user.forward }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring<{}, {}>(..)", self.method, self.users.len())
    }
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("neither a password nor a user"),
            Self::OtherMethod { wanted, given } => {
                write!(f, "a key is for {given}, and the port speaks {wanted}")
            }
            Self::NoPortKey => f.write_str(
                "users need a password of the port beside their own: it is their identity key (SIP023)",
            ),
            Self::NoUsers(method) => write!(
                f,
                "{method} cannot tell users apart; use 2022-blake3-aes-256-gcm, or one port for each user"
            ),
            Self::TooMany { given, max } => {
                write!(f, "{given} users with a password on one port, and {max} are possible; use more ports")
            }
            Self::SameName(name) => write!(f, "two users are called {name}"),
            Self::SameKey(one, other) => write!(f, "{one} and {other} have the same password"),
            Self::PortKey(name) => write!(f, "{name} has the password of the port itself"),
            Self::NoForward(name) => {
                write!(f, "{name} cannot be forwarded: only the AES methods of SIP022 say whose a stream is")
            }
        }
    }
}

impl std::error::Error for KeyringError {}

#[cfg(test)]
#[path = "tests/keyring.rs"]
mod tests;
