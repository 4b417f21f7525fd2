//! Which salts a key has seen: exact, bounded, and told only what has been authenticated.

use std::collections::HashSet;

use super::{Generation, Method, Salt, UnixTime};
use crate::limits::{AEAD_2022_SALTS_MAX, AEAD_SALTS_MAX, SALT_MEMORY_SECS};

/// The salts of one key, in two generations: what is full or old enough becomes the older one, and the older one goes.
///
/// SIP022, 3.1.4 forbids false positives, so whole salts are kept for both generations of the protocol. Under SIP022 a
/// salt is remembered for one to two times [`SALT_MEMORY_SECS`]; under SIP004, which has no timestamps, for the last
/// one to two times [`AEAD_SALTS_MAX`] salts.
#[derive(Debug)]
pub struct SaltStore {
    kind: Generation,
    recent: HashSet<Salt>,
    older: HashSet<Salt>,
    recent_since: UnixTime,
}

/// Why a salt was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaltRefusal {
    /// Seen before.
    Replayed,
    /// No room to remember it, so it cannot be let in (SIP022 only).
    Full,
}

impl SaltStore {
    /// An empty store for keys of `method`.
    pub fn new(method: Method) -> Self {
        Self {
            kind: method.generation(),
            recent: HashSet::new(),
            older: HashSet::new(),
            recent_since: UnixTime(0),
        }
    }

    /// Remembers a salt whose header has been authenticated, unless it is already known.
    pub fn insert(&mut self, salt: Salt, now: UnixTime) -> Result<(), SaltRefusal> {
        // `rc4`, `table` and `none` have nothing that could be seen again.
        if salt.as_bytes().is_empty() {
            return Ok(());
        }
        self.turn(now);
        if self.recent.contains(&salt) || self.older.contains(&salt) {
            return Err(SaltRefusal::Replayed);
        }
        if self.recent.len() >= AEAD_2022_SALTS_MAX {
            return Err(SaltRefusal::Full);
        }
        self.recent.insert(salt);
        Ok(())
    }

    /// Salts held.
    pub fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }

    /// Whether no salt is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn turn(&mut self, now: UnixTime) {
        match self.kind {
            Generation::Stream | Generation::Aead => {
                if self.recent.len() >= AEAD_SALTS_MAX {
                    self.older = std::mem::take(&mut self.recent);
                }
            }
            Generation::Aead2022 => {
                // A clock set back must not end a memory early, so only progress counts.
                let age = now.0.saturating_sub(self.recent_since.0);
                if age <= SALT_MEMORY_SECS {
                    return;
                }
                let recent = std::mem::take(&mut self.recent);
                // After two whole periods nothing in the younger generation is young enough to keep either.
                self.older = if age > 2 * SALT_MEMORY_SECS { HashSet::new() } else { recent };
                self.recent_since = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn salt(number: u32) -> Salt {
        let mut random = [0; 32];
        random[..4].copy_from_slice(&number.to_be_bytes());
        Salt::new(Method::Blake3Aes256Gcm, random)
    }

    #[test]
    fn a_salt_is_taken_once() {
        for method in Method::ALL {
            let mut store = SaltStore::new(method);
            assert_eq!(store.insert(salt(1), UnixTime(100)), Ok(()));
            assert_eq!(store.insert(salt(1), UnixTime(100)), Err(SaltRefusal::Replayed));
            assert_eq!(store.insert(salt(2), UnixTime(100)), Ok(()));
        }
    }

    #[test]
    fn an_aead_store_forgets_only_by_number() {
        let mut store = SaltStore::new(Method::Aes256Gcm);
        for number in 0..u32::try_from(2 * AEAD_SALTS_MAX).unwrap() {
            store.insert(salt(number), UnixTime(u64::from(number))).unwrap();
        }
        assert!(store.len() <= 2 * AEAD_SALTS_MAX);
        assert_eq!(store.insert(salt(0), UnixTime(0)), Ok(()), "the oldest made room");
        let last = u32::try_from(2 * AEAD_SALTS_MAX - 1).unwrap();
        assert_eq!(store.insert(salt(last), UnixTime(0)), Err(SaltRefusal::Replayed));
    }

    proptest! {
        // The model: a list of (salt, time) in which a salt younger than the memory is always found.
        #[test]
        fn a_2022_salt_is_never_forgotten_early(steps in prop::collection::vec((0_u32..20, 0_u64..40), 1..200)) {
            let mut store = SaltStore::new(Method::Blake3Aes256Gcm);
            let mut model: Vec<(u32, u64)> = Vec::new();
            let mut now = 1_000;
            for (number, pause) in steps {
                now += pause;
                let young = model.iter().any(|(seen, at)| *seen == number && now - at <= SALT_MEMORY_SECS);
                let outcome = store.insert(salt(number), UnixTime(now));
                if young {
                    prop_assert_eq!(outcome, Err(SaltRefusal::Replayed));
                }
                if outcome.is_ok() {
                    model.push((number, now));
                }
                let kept = model.iter().filter(|(_, at)| now - at <= 3 * SALT_MEMORY_SECS).count();
                prop_assert!(store.len() <= kept, "the store holds nothing beyond its memory");
            }
        }
    }
}
