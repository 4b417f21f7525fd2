//! AES of one block, for what SIP022 and SIP023 hide without a tag.

use std::sync::LazyLock;

use aws_lc_rs::cipher::{
    AES_128, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey,
};
use zeroize::Zeroizing;

use super::key::Key;
use super::{Method, Salt};

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 16;

/// The key under which an identity header is hidden (SIP023). The method must be one [with identity
/// headers](super::identity::has_identities).
pub(crate) struct IdentityKey {
    algorithm: &'static Algorithm,
    len: usize,
    subkey: Zeroizing<[u8; 32]>,
}

impl IdentityKey {
    /// The key for the stream that begins with `salt`.
    pub(crate) fn new(key: &Key, salt: &Salt) -> Self {
        let mut subkey = Zeroizing::new([0; 32]);
        let mut hasher = IDENTITY_SUBKEY.clone();
        hasher.update(key.secret()).update(salt.as_bytes());
        hasher.finalize_xof().fill(&mut *subkey);
        Self { algorithm: algorithm(key.method()), len: key.method().key_len(), subkey }
    }

    /// Hides `block`.
    pub(crate) fn encrypt(&self, block: &mut [u8; BLOCK_BYTES]) {
        let encrypted = EncryptingKey::ecb(self.unbound()).and_then(|key| key.encrypt(block));
        encrypted.expect("a whole block under a key of the algorithm's length can be encrypted");
    }

    /// What `block` hides: something, whether or not it was made with this key.
    pub(crate) fn decrypt(&self, block: &mut [u8; BLOCK_BYTES]) {
        let decrypted = DecryptingKey::ecb(self.unbound())
            .and_then(|key| key.decrypt(block, DecryptionContext::None).map(drop));
        decrypted.expect("a whole block under a key of the algorithm's length can be decrypted");
    }

    fn unbound(&self) -> UnboundCipherKey {
        UnboundCipherKey::new(self.algorithm, &self.subkey[..self.len])
            .expect("the subkey has the algorithm's length")
    }
}

fn algorithm(method: Method) -> &'static Algorithm {
    // The output of BLAKE3 can be cut anywhere, so a key of 16 bytes is the start of one of 32.
    if method.key_len() == 16 { &AES_128 } else { &AES_256 }
}

static IDENTITY_SUBKEY: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("shadowsocks 2022 identity subkey"));

#[cfg(test)]
mod tests {
    use super::super::vectors::unhex;
    use super::*;

    /// FIPS 197, appendix C.1 and C.3.
    #[test]
    fn the_block_cipher_is_that_of_fips_197() {
        for (algorithm, len, answer) in [
            (&AES_128, 16, "69c4e0d86a7b0430d8cdb78070b4c55a"),
            (&AES_256, 32, "8ea2b7ca516745bfeafc49904b496089"),
        ] {
            let mut subkey = Zeroizing::new([0; 32]);
            for (byte, number) in subkey.iter_mut().zip(0..) {
                *byte = number;
            }
            let key = IdentityKey { algorithm, len, subkey };
            let plain: [u8; 16] = unhex("00112233445566778899aabbccddeeff").try_into().unwrap();
            let mut block = plain;
            key.encrypt(&mut block);
            assert_eq!(block[..], unhex(answer));
            key.decrypt(&mut block);
            assert_eq!(block, plain);
        }
    }
}
