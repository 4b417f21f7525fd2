//! The method `table`: one fixed substitution of bytes, made from the password.

use std::sync::Arc;

use zeroize::Zeroize as _;

use super::flat::{Transform, Way};

/// What a password makes of the bytes. Making it takes milliseconds, so a key does it once.
pub(crate) struct Substitutions {
    sealed: [u8; 256],
    opened: [u8; 256],
}

/// One direction of a stream.
pub(super) struct Substitution {
    both: Arc<Substitutions>,
    way: Way,
}

impl Substitutions {
    /// The substitutions of the password whose MD5 hash is `hash`.
    pub(crate) fn new(hash: &[u8]) -> Self {
        let sealed = shuffled(hash);
        let mut opened = [0; 256];
        for (clear, sealed) in (0..=u8::MAX).zip(sealed) {
            opened[usize::from(sealed)] = clear;
        }
        Self { sealed, opened }
    }
}

impl Substitution {
    pub(super) fn new(both: &Arc<Substitutions>, way: Way) -> Self {
        Self { both: Arc::clone(both), way }
    }
}

impl Transform for Substitution {
    fn apply(&mut self, bytes: &mut [u8]) {
        let table = match self.way {
            Way::Seal => &self.both.sealed,
            Way::Open => &self.both.opened,
        };
        for byte in bytes {
            *byte = table[usize::from(*byte)];
        }
    }
}

impl Drop for Substitutions {
    fn drop(&mut self) {
        self.sealed.zeroize();
        self.opened.zeroize();
    }
}

/// All bytes, sorted 1023 times by what is left of a number when it is divided by byte and turn: the number being the first 8
/// bytes of the hash, little-endian.
fn shuffled(hash: &[u8]) -> [u8; 256] {
    let number = hash.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    let mut bytes = std::array::from_fn(|at| u8::try_from(at).unwrap_or(0));
    for turn in 1..1024 {
        bytes.sort_by_key(|byte| number % (u64::from(*byte) + turn));
    }
    bytes
}
