//! The keys of many packets of SIP004 derived in step, each in a lane of its own: HKDF-SHA1 as in `subkey`, of which this is the same
//! for many salts.
//!
//! A processor that has instructions for SHA-1 has them for one block at a time, and they take 143 cycles for it. Sixteen lanes in the
//! registers of AVX-512 take fewer than 50 for each; those of AVX2 would take about as long (docs/decisions/0006).

use std::ops::Deref;

use multiversion::multiversion;
use zeroize::optimization_barrier;

use super::super::Salt;
use super::super::key::Key;

/// How many are derived at a time.
pub(crate) const LANES: usize = 16;

/// From how many on all lanes together cost less than one after the other.
pub(crate) const WORTH_IT: usize = 6;

/// A key for each lane, at the front of its 32 bytes. Wiped when dropped.
pub(crate) struct Subkeys([[u8; 32]; LANES]);

/// Whether it is worth it on this processor.
pub(crate) fn is_faster() -> bool {
    #[cfg(target_arch = "x86_64")]
    let is_wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
    #[cfg(not(target_arch = "x86_64"))]
    let is_wide = false;
    is_wide
}

/// The keys that `key` leads to with `salts`.
pub(crate) fn derive(key: &Key, salts: &[Salt; LANES]) -> Subkeys {
    let words = key.method().key_len() / 4;
    let mut secret = [[0; LANES]; 5 + 3];
    for (word, bytes) in secret.iter_mut().zip(key.secret().as_chunks().0) {
        *word = [u32::from_be_bytes(*bytes); LANES];
    }
    let mut salt_block = [[0; LANES]; 16];
    for (lane, salt) in salts.iter().enumerate() {
        for (word, bytes) in salt_block.iter_mut().zip(salt.as_bytes().as_chunks().0) {
            word[lane] = u32::from_be_bytes(*bytes);
        }
    }
    let extract = Hmac::new(&salt_block);
    let mut said = message(&secret[..words], &[]);
    let mut pseudorandom = extract.tag(&said);
    let mut expand = Hmac::new(&message_words(&pseudorandom));
    let mut first = expand.tag(&message(&[], b"ss-subkey\x01"));
    let mut second = expand.tag(&message(&first, b"ss-subkey\x02"));
    let mut subkeys = Subkeys([[0; 32]; LANES]);
    for (lane, subkey) in subkeys.0.iter_mut().enumerate() {
        for (bytes, word) in subkey.chunks_exact_mut(4).zip(first.iter().chain(&second)).take(words) {
            bytes.copy_from_slice(&word[lane].to_be_bytes());
        }
    }
    for state in [&mut first, &mut second, &mut expand.inner, &mut expand.outer, &mut pseudorandom] {
        wipe(state);
    }
    wipe(&mut secret);
    wipe(&mut said);
    subkeys
}

impl Deref for Subkeys {
    type Target = [[u8; 32]; LANES];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Subkeys {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Overwrites `words`, many bytes at a time: one after the other, as the library does it, they took a sixth of the time of the keys.
fn wipe<T: Copy + Default>(words: &mut [T]) {
    words.fill(T::default());
    optimization_barrier(words);
}

/// One word of each lane.
type Words = [u32; LANES];

/// The states of SHA-1, and what they give.
type State = [Words; 5];

/// A block for each lane.
type Block = [Words; 16];

/// HMAC-SHA1 (RFC 2104) with its keys taken in.
struct Hmac {
    inner: State,
    outer: State,
}

impl Hmac {
    /// With keys that are not longer than a block.
    fn new(keys: &Block) -> Self {
        let keyed = |pad: u32| {
            let mut padded = *keys;
            padded.as_flattened_mut().iter_mut().for_each(|word| *word ^= pad);
            let mut state = START.map(|word| [word; LANES]);
            absorb(&mut state, &padded);
            wipe(&mut padded);
            state
        };
        Self { inner: keyed(0x3636_3636), outer: keyed(0x5c5c_5c5c) }
    }

    /// The tags over messages that are one block after the key.
    fn tag(&self, message_block: &Block) -> State {
        let (mut inner, mut outer) = (self.inner, self.outer);
        absorb(&mut inner, message_block);
        absorb(&mut outer, &message(&inner, &[]));
        wipe(&mut inner);
        outer
    }
}

/// `words` of each lane and behind them `bytes` of all, ended as a message before which there was one block.
fn message(words: &[Words], bytes: &[u8]) -> Block {
    let mut block = message_words(words);
    let len = 4 * words.len() + bytes.len();
    for (at, byte) in (4 * words.len()..).zip(bytes.iter().chain(&[0x80])) {
        let bits = u32::from(*byte) << (24 - 8 * (at % 4));
        block[at / 4].iter_mut().for_each(|word| *word |= bits);
    }
    let bits =
        u32::try_from(8 * (BLOCK_BYTES + len)).expect("a block and a message that fits another are short");
    block[15] = [bits; LANES];
    block
}

fn message_words(words: &[Words]) -> Block {
    let mut block = [[0; LANES]; 16];
    block[..words.len()].copy_from_slice(words);
    block
}

/// SHA-1's compression of a block of each lane (FIPS 180-4, section 6.1.2).
#[multiversion(targets("x86_64+avx2+avx512f+avx512vl"))]
fn absorb(state: &mut State, block: &Block) {
    let (mut said, mut now) = (*block, *state);
    for at in 0..80 {
        if at >= 16 {
            expand(&mut said, at);
        }
        let words = &said[at % 16];
        match at / 20 {
            0 => step(&mut now, words, 0x5a82_7999, |b, c, d| d ^ (b & (c ^ d))),
            1 => step(&mut now, words, 0x6ed9_eba1, |b, c, d| b ^ c ^ d),
            2 => step(&mut now, words, 0x8f1b_bcdc, |b, c, d| (b & c) | (d & (b | c))),
            _ => step(&mut now, words, 0xca62_c1d6, |b, c, d| b ^ c ^ d),
        }
    }
    for (before, after) in state.as_flattened_mut().iter_mut().zip(now.as_flattened()) {
        *before = before.wrapping_add(*after);
    }
}

#[inline(always)]
fn expand(said: &mut Block, at: usize) {
    let [x, y, z] = [13, 8, 2].map(|back| said[(at + back) % 16]);
    let words = &mut said[at % 16];
    for lane in 0..LANES {
        words[lane] = (words[lane] ^ x[lane] ^ y[lane] ^ z[lane]).rotate_left(1);
    }
}

#[inline(always)]
fn step(state: &mut State, words: &Words, constant: u32, choose: impl Fn(u32, u32, u32) -> u32) {
    let [a, b, c, d, e] = state;
    for lane in 0..LANES {
        let chosen = choose(b[lane], c[lane], d[lane]).wrapping_add(constant);
        let rest = e[lane].wrapping_add(words[lane]);
        let next = a[lane].rotate_left(5).wrapping_add(chosen).wrapping_add(rest);
        (e[lane], d[lane], c[lane]) = (d[lane], c[lane], b[lane].rotate_left(30));
        (b[lane], a[lane]) = (a[lane], next);
    }
}

const BLOCK_BYTES: usize = 64;

/// FIPS 180-4, section 5.3.1.
const START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::Method;
    use super::*;

    proptest! {
        #[test]
        fn each_is_what_it_would_be_alone(secret: [u8; 32], random: [[u8; 32]; LANES]) {
            for method in [Method::Aes128Gcm, Method::Aes192Gcm, Method::Aes256Gcm] {
                let len = method.key_len();
                let key = Key::from_bytes(method, &secret[..len]).unwrap();
                let salts = random.map(|random| Salt::new(method, random));
                for (salt, subkey) in salts.iter().zip(&*derive(&key, &salts)) {
                    let mut alone = [0; 32];
                    super::super::subkey::derive(&key, salt, &mut alone[..len]);
                    prop_assert_eq!(subkey, &alone);
                }
            }
        }
    }
}
