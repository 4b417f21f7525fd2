//! The one place that knows the crypto libraries: AEAD with a counting nonce, and the two ways to a session's key.

use std::sync::LazyLock;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use hkdf::Hkdf;
use sha1::Sha1;
use zeroize::Zeroizing;

use super::key::Key;
use super::{Generation, Method, Salt};

/// Bytes of an AEAD tag, the same for every method.
pub(crate) const TAG_BYTES: usize = 16;

/// The AEAD of one direction of a stream: each use takes the next nonce, which counts from 0, little-endian, 12 bytes
/// (SIP004; SIP022, 3.1.1).
pub(crate) struct Cipher {
    key: LessSafeKey,
    uses: u64,
}

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

    fn with_subkey(method: Method, subkey: &[u8]) -> Self {
        let unbound =
            UnboundKey::new(algorithm(method), subkey).expect("the subkey has the method's key length");
        Self { key: LessSafeKey::new(unbound), uses: 0 }
    }

    /// Seals `text` in place and writes its tag.
    pub(crate) fn seal(&mut self, text: &mut [u8], tag: &mut [u8]) {
        let nonce = self.next_nonce();
        self.key
            .seal_in_place_scatter(nonce, Aad::empty(), text, &[], tag)
            .expect("a record is far below the AEAD's length limit and the tag room is 16 bytes");
    }

    /// Opens `sealed`, text and tag, in place; the text is then at its front.
    pub(crate) fn open(&mut self, sealed: &mut [u8]) -> Result<(), BadTag> {
        let nonce = self.next_nonce();
        self.key.open_in_place(nonce, Aad::empty(), sealed).map(drop).map_err(|_| BadTag)
    }

    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.uses.to_le_bytes());
        self.uses += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Fills `subkey` with the key of the stream that begins with `salt` (SIP007; SIP022, 2.2).
fn derive(key: &Key, salt: &Salt, subkey: &mut [u8]) {
    match key.method().generation() {
        Generation::Aead => Hkdf::<Sha1>::new(Some(salt.as_bytes()), key.secret())
            .expand(b"ss-subkey", subkey)
            .expect("32 bytes are within what HKDF-SHA1 can give"),
        Generation::Aead2022 => {
            let mut hasher = SESSION_SUBKEY.clone();
            hasher.update(key.secret()).update(salt.as_bytes());
            hasher.finalize_xof().fill(subkey);
        }
    }
}

fn algorithm(method: Method) -> &'static Algorithm {
    match method {
        Method::Aes128Gcm | Method::Blake3Aes128Gcm => &AES_128_GCM,
        Method::Aes256Gcm | Method::Blake3Aes256Gcm => &AES_256_GCM,
        Method::Chacha20IetfPoly1305 | Method::Blake3Chacha20Poly1305 => &CHACHA20_POLY1305,
    }
}

// Hashing the context string costs as much as the derivation itself, so it is done once and cloned.
static SESSION_SUBKEY: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("shadowsocks 2022 session subkey"));

#[cfg(test)]
#[path = "tests/cipher.rs"]
mod tests;
