//! AES of one block, for what SIP022 and SIP023 hide without a tag.

use std::sync::LazyLock;

use aes::cipher::{BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};
use aes::{Aes128, Aes256};
use zeroize::Zeroizing;

use super::Salt;
use super::key::Key;

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 16;

/// A key for single blocks, expanded. The method must be one [with identity headers](super::identity::has_identities).
pub(crate) enum BlockKey {
    /// Of 16 bytes.
    Short(Box<Aes128>),
    /// Of 32 bytes.
    Long(Box<Aes256>),
}

impl BlockKey {
    /// The key itself, under which the headers of packets are hidden.
    pub(crate) fn of(key: &Key) -> Self {
        Self::new(key.secret())
    }

    /// The key under which the stream that begins with `salt` hides its identity header (SIP023).
    pub(crate) fn identity(key: &Key, salt: &Salt) -> Self {
        let mut subkey = Zeroizing::new([0; 32]);
        let mut hasher = IDENTITY_SUBKEY.clone();
        hasher.update(key.secret()).update(salt.as_bytes());
        // The output of BLAKE3 can be cut anywhere, so a key of 16 bytes is the start of one of 32.
        hasher.finalize_xof().fill(&mut *subkey);
        Self::new(&subkey[..key.method().key_len()])
    }

    fn new(secret: &[u8]) -> Self {
        match secret.first_chunk::<32>() {
            Some(secret) => Self::Long(Box::new(Aes256::new(secret.into()))),
            None => {
                let key = Aes128::new_from_slice(secret).expect("the methods' keys have 16 or 32 bytes");
                Self::Short(Box::new(key))
            }
        }
    }

    /// Hides `block`.
    pub(crate) fn encrypt(&self, block: &mut [u8; BLOCK_BYTES]) {
        match self {
            Self::Short(key) => key.encrypt_block(block.into()),
            Self::Long(key) => key.encrypt_block(block.into()),
        }
    }

    /// What `block` hides: something, whether or not it was made with this key.
    pub(crate) fn decrypt(&self, block: &mut [u8; BLOCK_BYTES]) {
        match self {
            Self::Short(key) => key.decrypt_block(block.into()),
            Self::Long(key) => key.decrypt_block(block.into()),
        }
    }
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
        for (len, answer) in
            [(16, "69c4e0d86a7b0430d8cdb78070b4c55a"), (32, "8ea2b7ca516745bfeafc49904b496089")]
        {
            let secret: Vec<u8> = (0..len).collect();
            let key = BlockKey::new(&secret);
            let plain: [u8; 16] = unhex("00112233445566778899aabbccddeeff").try_into().unwrap();
            let mut block = plain;
            key.encrypt(&mut block);
            assert_eq!(block[..], unhex(answer));
            key.decrypt(&mut block);
            assert_eq!(block, plain);
        }
    }
}
