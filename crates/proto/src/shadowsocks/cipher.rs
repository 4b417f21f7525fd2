//! The one place that knows the crypto libraries: AEAD with a counting nonce, and the two ways to a session's key.
//!
//! - [`software`]: the AEADs that the main library does not have.
//! - [`packet`]: AEADs whose nonce is on the wire.
//! - [`flat`]: the ciphers without records; [`seed`], `salsa` and [`table`] below them are our own.

pub(crate) mod flat;
pub(crate) mod packet;
mod salsa;
pub(crate) mod seed;
pub(crate) mod software;
mod subkey;
pub(crate) mod subkeys;
pub(crate) mod table;

use std::sync::LazyLock;

use aws_lc_rs::aead::{Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize as _, Zeroizing};

use super::key::Key;
use super::method::Suite;
use super::{Generation, Method, Salt};
use software::InPlace;

/// Bytes of an AEAD tag, the same for every method.
pub(crate) const TAG_BYTES: usize = 16;

/// The AEAD of one direction of a stream: each use takes the next nonce, which counts from 0, little-endian (SIP004;
/// SIP022, 3.1.1).
pub(crate) struct Cipher {
    aead: Aead,
    uses: u64,
}

/// Whose code seals.
pub(crate) enum Aead {
    /// The main library's, with a nonce of 12 bytes.
    Main(LessSafeKey),
    /// The others'.
    Software(Box<dyn InPlace>),
}

/// Makes an AEAD from a session's key.
pub(crate) type MakeAead = fn(&[u8]) -> Aead;

/// A tag that does not fit: wrong key, or touched bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadTag;

impl Cipher {
    /// The cipher of the direction that begins with `salt`.
    pub(crate) fn new(key: &Key, salt: &Salt) -> Self {
        let mut subkey = Zeroizing::new([0_u8; 32]);
        let subkey = &mut subkey[..key.method().key_len()];
        derive(key, salt, subkey);
        Self::with_subkey(key.method(), subkey)
    }

    /// The cipher with a key that has been derived for it.
    pub(crate) fn with_subkey(method: Method, subkey: &[u8]) -> Self {
        match method.suite() {
            Suite::Aead(make) => Self { aead: make(subkey), uses: 0 },
            Suite::Flat(_) => unreachable!("records are asked of methods that have them"),
        }
    }

    /// Seals `text` in place and writes its tag.
    pub(crate) fn seal(&mut self, text: &mut [u8], tag: &mut [u8]) {
        let uses = self.next_use();
        match &self.aead {
            Aead::Main(key) => key
                .seal_in_place_scatter(nonce(uses), Aad::empty(), text, &[], tag)
                .expect("a record is far below the AEAD's length limit and the tag room is 16 bytes"),
            Aead::Software(cipher) => tag.copy_from_slice(&cipher.seal(uses, text)),
        }
    }

    /// Opens `sealed`, text and tag, in place; the text is then at its front.
    pub(crate) fn open(&mut self, sealed: &mut [u8]) -> Result<(), BadTag> {
        let uses = self.next_use();
        match &self.aead {
            Aead::Main(key) => {
                key.open_in_place(nonce(uses), Aad::empty(), sealed).map(drop).map_err(|_| BadTag)
            }
            // Some libraries open before they judge.
            Aead::Software(cipher) => cipher.open(uses, sealed).inspect_err(|_| sealed.zeroize()),
        }
    }

    fn next_use(&mut self) -> u64 {
        let uses = self.uses;
        self.uses += 1;
        uses
    }
}

/// A cipher of the main library.
pub(crate) fn main(algorithm: &'static Algorithm, subkey: &[u8]) -> Aead {
    let key = UnboundKey::new(algorithm, subkey).expect("the subkey has the method's key length");
    Aead::Main(LessSafeKey::new(key))
}

fn nonce(uses: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&uses.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Fills `subkey` with the key of the stream that begins with `salt` (SIP007; SIP022, 2.2).
fn derive(key: &Key, salt: &Salt, subkey: &mut [u8]) {
    match key.method().generation() {
        Generation::Stream => subkey.copy_from_slice(key.secret()),
        Generation::Aead => subkey::derive(key, salt, subkey),
        Generation::Aead2022 => derive_2022(key, salt.as_bytes(), subkey),
    }
}

/// Fills `subkey` with the key of the stream or of the packets that begin with `start` (SIP022, 2.2 and 3.2.1).
fn derive_2022(key: &Key, start: &[u8], subkey: &mut [u8]) {
    let mut hasher = SESSION_SUBKEY.clone();
    hasher.update(key.secret()).update(start);
    hasher.finalize_xof().fill(subkey);
}

// Hashing the context string costs as much as the derivation itself, so it is done once and cloned.
static SESSION_SUBKEY: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("shadowsocks 2022 session subkey"));

#[cfg(test)]
#[path = "tests/cipher.rs"]
mod tests;
