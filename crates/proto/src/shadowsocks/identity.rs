//! Identity headers (SIP023): how a SIP022 client says whose it is, and to whom of several servers in a row.
//!
//! ```text
//!  salt | [16 for the first server] [16 for the second] … | sealed fixed header …
//!
//!  header n = AES(subkey of identity key n and the salt; first 16 bytes of BLAKE3 of the next key)
//! ```
//!
//! The next key is the next server's identity key, and behind the last of these the user's own. Each server opens and takes
//! away the first header; what is left is what the next one expects.

use std::fmt;

use super::block::{BLOCK_BYTES, BlockKey};
use super::key::{Key, KeyError};
use super::stream::{HeadReads, Opener, Sealer};
use super::{Generation, Method, Salt};
use crate::address::Address;
use crate::limits::IDENTITY_KEYS_MAX;

/// What a client holds of a server: its own key, and the identity keys of the servers that have to find it by name.
#[derive(Clone, Debug)]
pub struct Credentials {
    identities: Box<[Key]>,
    key: Key,
}

/// Why a password makes no credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsError {
    /// The only key is none.
    Key(KeyError),
    /// One of several keys is none.
    Part {
        /// Which, counted from 1.
        part: usize,
        /// Of how many.
        parts: usize,
        /// What is wrong with it.
        error: KeyError,
    },
    /// Several keys, for a method that has no identity headers.
    NoIdentities(Method),
    /// More servers in a row than anybody has.
    TooMany {
        /// Identity keys that were given.
        given: usize,
        /// Identity keys that are possible.
        max: usize,
    },
}

/// What an identity header says: the start of a key's BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct IdentityHash([u8; IDENTITY_BYTES]);

/// Bytes of an identity header.
pub(super) const IDENTITY_BYTES: usize = BLOCK_BYTES;

/// Whether `method` has identity headers: SIP023 is for the methods of SIP022 that have AES.
pub fn has_identities(method: Method) -> bool {
    matches!(method, Method::Blake3Aes128Gcm | Method::Blake3Aes256Gcm)
}

impl Credentials {
    /// Makes credentials from what the user wrote: what makes a [`Key`], or, where the method has identity headers, several
    /// of them joined with colons, the user's own last.
    pub fn from_password(method: Method, password: &str) -> Result<Self, CredentialsError> {
        match method.generation() {
            // A password of SIP004 may have colons; base64 has none.
            Generation::Aead2022 if password.contains(':') => Self::several(method, password),
            Generation::Stream | Generation::Aead | Generation::Aead2022 => {
                Key::from_password(method, password).map(Self::from).map_err(CredentialsError::Key)
            }
        }
    }

    fn several(method: Method, password: &str) -> Result<Self, CredentialsError> {
        if !has_identities(method) {
            return Err(CredentialsError::NoIdentities(method));
        }
        let parts = password.split(':').count();
        if parts - 1 > IDENTITY_KEYS_MAX {
            return Err(CredentialsError::TooMany { given: parts - 1, max: IDENTITY_KEYS_MAX });
        }
        let part = |(before, text)| {
            let part = before + 1;
            Key::from_password(method, text).map_err(|error| CredentialsError::Part { part, parts, error })
        };
        let mut keys = password.split(':').enumerate().map(part).collect::<Result<Vec<_>, _>>()?;
        let Some(key) = keys.pop() else { return Err(CredentialsError::Key(KeyError::Empty)) };
        Ok(Self { identities: keys.into(), key })
    }

    /// The method of all keys.
    pub fn method(&self) -> Method {
        self.key.method()
    }

    /// The key that seals.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The identity keys, the first server's first.
    pub fn identities(&self) -> &[Key] {
        &self.identities
    }

    /// The direction to the server: begins with `salt`, the identity headers and the target. `salt` must never have been
    /// used with these keys.
    pub fn request(&self, salt: Salt, target: &Address) -> Sealer {
        Sealer::request(&self.key, salt, target).named(self.headers(&salt))
    }

    /// The same with one-time authentication where the method has no tags of its own.
    pub fn request_with_one_time_auth(&self, salt: Salt, target: &Address) -> Sealer {
        Sealer::request_with_one_time_auth(&self.key, salt, target).named(self.headers(&salt))
    }

    /// The direction from the server, bound to the request that began with `request_salt`. Nobody on the way touches it.
    pub fn response(&self, request_salt: Salt, head: HeadReads) -> Opener {
        Opener::response(&self.key, request_salt, head)
    }

    /// The identity headers of the stream that begins with `salt`, end to end.
    fn headers(&self, salt: &Salt) -> Vec<u8> {
        let named = self.identities.iter().skip(1).chain([&self.key]);
        let mut headers = Vec::with_capacity(self.identities.len() * IDENTITY_BYTES);
        for (identity, next) in self.identities.iter().zip(named) {
            let IdentityHash(mut block) = IdentityHash::of(next);
            BlockKey::identity(identity, salt).encrypt(&mut block);
            headers.extend_from_slice(&block);
        }
        headers
    }
}

/// No identity: the server has one key.
impl From<Key> for Credentials {
    fn from(key: Key) -> Self {
        Self { identities: Box::new([]), key }
    }
}

impl IdentityHash {
    pub(super) fn of(key: &Key) -> Self {
        let mut hash = [0; IDENTITY_BYTES];
        hash.copy_from_slice(&blake3::hash(key.secret()).as_bytes()[..IDENTITY_BYTES]);
        Self(hash)
    }

    /// What the identity header `block` says to the holder of `identity`.
    pub(super) fn open(identity: &Key, salt: &Salt, mut block: [u8; IDENTITY_BYTES]) -> Self {
        BlockKey::identity(identity, salt).decrypt(&mut block);
        Self(block)
    }

    /// What the identity header `block` of a packet says to the holder of `identity`. `header` is the packet's separate
    /// header, in the clear.
    pub(super) fn of_packet(
        identity: &BlockKey,
        header: &[u8; BLOCK_BYTES],
        mut block: [u8; IDENTITY_BYTES],
    ) -> Self {
        identity.decrypt(&mut block);
        Self(xor(block, *header))
    }

    /// The identity header of a packet, which says this to the holder of `identity`.
    pub(super) fn to_packet(self, identity: &BlockKey, header: &[u8; BLOCK_BYTES]) -> [u8; IDENTITY_BYTES] {
        let mut block = xor(self.0, *header);
        identity.encrypt(&mut block);
        block
    }
}

fn xor(one: [u8; IDENTITY_BYTES], other: [u8; IDENTITY_BYTES]) -> [u8; IDENTITY_BYTES] {
    (u128::from_ne_bytes(one) ^ u128::from_ne_bytes(other)).to_ne_bytes()
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::Part { part, parts, error } => write!(f, "key {part} of {parts}: {error}"),
            Self::NoIdentities(method) => write!(
                f,
                "several keys, and {method} has no identity headers; use 2022-blake3-aes-256-gcm at both ends"
            ),
            Self::TooMany { given, max } => write!(f, "{given} identity keys, and {max} are possible"),
        }
    }
}

impl std::error::Error for CredentialsError {}

#[cfg(test)]
#[path = "tests/identity.rs"]
mod tests;
