//! HKDF-SHA1 (RFC 5869) as SIP007 uses it: with "ss-subkey", and key, salt and subkey of one length.
//!
//! A stream needs it twice and a datagram once, which is more work there than all else that is done to it. As every length is known,
//! each message of each HMAC is one block; laid out in words over the library's compression function it takes two thirds of the time
//! that code for any lengths takes (docs/decisions/0006).

use sha1::block_api::compress;
use zeroize::Zeroize as _;

use super::super::Salt;
use super::super::key::Key;

/// Fills `subkey`, which is as long as key and salt: 16, 24 or 32 bytes.
pub(super) fn derive(key: &Key, salt: &Salt, subkey: &mut [u8]) {
    let mut secret = Block::of_bytes(key.secret());
    let extract = Hmac::new(&Block::of_bytes(salt.as_bytes()));
    let pseudorandom = extract.tag(&mut secret);
    let mut expand = Hmac::new(&Block::of_words(&pseudorandom, &[]));
    let first = expand.tag(&mut Block::of_words(&[], b"ss-subkey\x01"));
    let second = expand.tag(&mut Block::of_words(&first, b"ss-subkey\x02"));
    for (bytes, word) in subkey.chunks_exact_mut(4).zip(first.iter().chain(&second)) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    secret.words.zeroize();
    expand.inner.zeroize();
    expand.outer.zeroize();
    [pseudorandom, first, second].zeroize();
}

/// The state of SHA-1, and what it gives.
type State = [u32; 5];

/// HMAC-SHA1 (RFC 2104) with its key taken in.
struct Hmac {
    inner: State,
    outer: State,
}

/// One block of SHA-1, big-endian, with as many bytes of it used as `len` says.
struct Block {
    words: [u32; 16],
    len: usize,
}

impl Hmac {
    /// With a key that is not longer than a block.
    fn new(key: &Block) -> Self {
        let keyed = |pad: u32| {
            let mut state = START;
            absorb(&mut state, &key.words.map(|word| word ^ pad));
            state
        };
        Self { inner: keyed(0x3636_3636), outer: keyed(0x5c5c_5c5c) }
    }

    /// The tag over the message in `block`.
    fn tag(&self, block: &mut Block) -> State {
        let hash = |mut state: State, block: &mut Block| {
            block.end();
            absorb(&mut state, &block.words);
            state
        };
        let inner = hash(self.inner, block);
        hash(self.outer, &mut Block::of_words(&inner, &[]))
    }
}

impl Block {
    /// `words`, and behind them a few `bytes`.
    fn of_words(words: &[u32], bytes: &[u8]) -> Self {
        let mut block = Self { words: [0; 16], len: 4 * words.len() };
        block.words[..words.len()].copy_from_slice(words);
        block.push(bytes);
        block
    }

    /// The words that `bytes` are.
    fn of_bytes(bytes: &[u8]) -> Self {
        let mut block = Self { words: [0; 16], len: bytes.len() };
        for (word, bytes) in block.words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        block
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.words[self.len / 4] |= u32::from(*byte) << (24 - 8 * (self.len % 4));
            self.len += 1;
        }
    }

    /// Ends a message before which there was one block, as in an HMAC.
    fn end(&mut self) {
        let bits = 8 * (BLOCK_BYTES + self.len);
        self.push(&[0x80]);
        self.words[15] = u32::try_from(bits).expect("a block and a message that fits another are short");
    }
}

fn absorb(state: &mut State, words: &[u32; 16]) {
    let mut block = [0; BLOCK_BYTES];
    for (bytes, word) in block.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    compress(state, &[block]);
}

const BLOCK_BYTES: usize = 64;

/// FIPS 180-4, section 5.3.1.
const START: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

#[cfg(test)]
mod tests {
    use hkdf::Hkdf;
    use proptest::prelude::*;
    use sha1::Sha1;

    use super::super::super::Method;
    use super::*;

    #[test]
    fn the_subkey_is_that_of_the_original() {
        let key = Key::from_password(Method::Aes256Gcm, "foobar").unwrap();
        let salt = Salt::new(Method::Aes256Gcm, std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let mut subkey = [0; 32];
        derive(&key, &salt, &mut subkey);
        assert_eq!(
            subkey.map(|byte| format!("{byte:02x}")).concat(),
            "c4f0e9818348b2f30188d82b37a4cddc9f5ea531070ec67225160209faff573c"
        );
    }

    proptest! {
        #[test]
        fn it_is_the_librarys_hkdf(secret: [u8; 32], salt: [u8; 32]) {
            for method in [Method::Aes128Gcm, Method::Aes192Gcm, Method::Aes256Gcm] {
                let len = method.key_len();
                let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
                derive(&Key::from_bytes(method, &secret[..len]).unwrap(), &Salt::new(method, salt), &mut ours);
                let library = Hkdf::<Sha1>::new(Some(&salt[..len]), &secret[..len]);
                library.expand(b"ss-subkey", &mut theirs).unwrap();
                prop_assert_eq!(ours, theirs);
            }
        }
    }
}
