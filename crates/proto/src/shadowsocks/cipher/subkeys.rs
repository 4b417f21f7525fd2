//! The keys of many packets of SIP004 derived in step, each in a lane of its own: HKDF-SHA1 as in `subkey`, of which this is the same
//! for many salts.
//!
//! A processor that has instructions for SHA-1 has them for one block at a time, and they take 143 cycles for it. Sixteen lanes in the
//! registers of AVX-512 take about 30 for each, twice eight in those of AVX2 about 60 (docs/decisions/0006).

use std::hint::black_box;
use std::ops::Deref;

use multiversion::multiversion;
use zeroize::optimization_barrier;

use super::super::Salt;
use super::super::key::Key;

/// How many are derived at a time.
pub(crate) const LANES: usize = 16;

/// A key for each lane, at the front of its 32 bytes. Wiped when dropped.
pub(crate) struct Subkeys([[u8; 32]; LANES]);

/// From how many on all lanes together cost less than one key after the other on this processor, if they ever do.
pub(crate) fn worth_it() -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
        return Some(5);
    } else if is_x86_feature_detected!("avx2") {
        return Some(8);
    }
    None
}

/// The keys that `key` leads to with `salts`.
pub(crate) fn derive(key: &Key, salts: &[Salt; LANES]) -> Subkeys {
    let mut subkeys = Subkeys([[0; 32]; LANES]);
    let mut said = Block::message(key.secret());
    let mut salt_block = Block::default();
    for (lane, salt) in salts.iter().enumerate() {
        for (word, bytes) in salt_block.own.iter_mut().zip(salt.as_bytes().as_chunks().0) {
            word[lane] = u32::from_be_bytes(*bytes);
        }
    }
    expand(&said, &salt_block, &mut subkeys.0, key.method().key_len());
    wipe(&mut said.own);
    subkeys
}

/// HKDF of the secret in `said` (RFC 5869), with the keys as bytes.
#[multiversion(targets("x86_64+avx2+avx512f+avx512vl", "x86_64+avx2"))]
fn expand(said: &Block, salts: &Block, subkeys: &mut [[u8; 32]; LANES], key_len: usize) {
    let mut pseudorandom = Block::default();
    pseudorandom.take(&Hmac::new(salts).tag(said));
    let hmac = Hmac::new(&pseudorandom);
    wipe(&mut pseudorandom.own);
    let mut first = hmac.tag(&Block::message(b"ss-subkey\x01"));
    let mut rest = Block::message_after(&first, b"ss-subkey\x02");
    let mut second = if key_len > 20 { hmac.tag(&rest) } else { first };
    for (at, words) in first.iter().chain(&second).take(key_len / 4).enumerate() {
        for (subkey, word) in subkeys.iter_mut().zip(words) {
            subkey[4 * at..][..4].copy_from_slice(&word.to_be_bytes());
        }
    }
    wipe(&mut first);
    wipe(&mut second);
    wipe(&mut rest.own);
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

/// A block for each lane, of which the lanes have the words from a place on in common.
#[derive(Default)]
struct Block {
    own: [Words; OWN],
    common: [u32; 16 - OWN],
}

/// Words of a block that can be each lane's own: those of the longest salt.
const OWN: usize = 8;

/// HMAC-SHA1 (RFC 2104) with its keys taken in. Wiped when dropped.
struct Hmac {
    inner: State,
    outer: State,
}

impl Hmac {
    /// With keys that are not longer than a block.
    #[inline(always)]
    fn new(keys: &Block) -> Self {
        let mut hmac =
            Self { inner: START.map(|word| [word; LANES]), outer: START.map(|word| [word; LANES]) };
        absorb(&mut hmac.inner, keys, 0x3636_3636);
        absorb(&mut hmac.outer, keys, 0x5c5c_5c5c);
        hmac
    }

    /// The tags over messages that are one block after the key.
    #[inline(always)]
    fn tag(&self, message: &Block) -> State {
        let (mut inner, mut outer) = (self.inner, self.outer);
        absorb(&mut inner, message, 0);
        let mut digest = Block::message_after(&inner, &[]);
        absorb(&mut outer, &digest, 0);
        wipe(&mut inner);
        wipe(&mut digest.own);
        outer
    }
}

impl Drop for Hmac {
    fn drop(&mut self) {
        wipe(&mut self.inner);
        wipe(&mut self.outer);
    }
}

impl Block {
    /// `bytes` for all lanes, ended as a message before which there was one block.
    #[inline(always)]
    fn message(bytes: &[u8]) -> Self {
        Self::ended(Self::default(), 0, bytes)
    }

    /// The same with `words` before it.
    #[inline(always)]
    fn message_after(words: &State, bytes: &[u8]) -> Self {
        let mut block = Self::default();
        block.take(words);
        block.ended(words.len(), bytes)
    }

    #[inline(always)]
    fn take(&mut self, words: &State) {
        self.own[..words.len()].copy_from_slice(words);
    }

    /// Ends it after so many words and `bytes`.
    #[inline(always)]
    fn ended(mut self, words: usize, bytes: &[u8]) -> Self {
        let mut common = [0; 16];
        for (at, byte) in (4 * words..).zip(bytes.iter().chain(&[0x80])) {
            common[at / 4] |= u32::from(*byte) << (24 - 8 * (at % 4));
        }
        let bits = 8 * (BLOCK_BYTES + 4 * words + bytes.len());
        common[15] = u32::try_from(bits).expect("a block and a message that fits another are short");
        for (own, common) in self.own.iter_mut().zip(common).skip(words) {
            *own = [common; LANES];
        }
        self.common.copy_from_slice(&common[OWN..]);
        // There was a secret among it, at most as long as what each lane has for itself.
        wipe(&mut common);
        self
    }
}

/// SHA-1's compression of a block of each lane, with `pad` added to each word (FIPS 180-4, section 6.1.2).
///
/// Written out, so that all words and states stay in registers: as a loop over the steps it took twice as long.
#[multiversion(targets("x86_64+avx2+avx512f+avx512vl", "x86_64+avx2"))]
fn absorb(state: &mut State, block: &Block, pad: u32) {
    let (mut said, mut now) = ([[0; LANES]; 16], *state);
    let (own, common) = said.split_at_mut(OWN);
    for (words, block) in own.as_flattened_mut().iter_mut().zip(block.own.as_flattened()) {
        *words = block ^ pad;
    }
    for (words, common) in common.iter_mut().zip(block.common) {
        *words = [common ^ pad; LANES];
    }
    // Compilers add what they know last, where it would be waited for.
    let constants = black_box([0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6]);
    let steps = |at: usize| Steps { constant: constants[at], choose: |b, c, d| b ^ c ^ d };
    let first = Steps { constant: constants[0], choose: |b, c, d| d ^ (b & (c ^ d)) };
    twenty(&mut now, &mut said, 0, &first);
    twenty(&mut now, &mut said, 20, &steps(1));
    let third = Steps { constant: constants[2], choose: |b, c, d| (b & c) | (d & (b | c)) };
    twenty(&mut now, &mut said, 40, &third);
    twenty(&mut now, &mut said, 60, &steps(3));
    for (before, after) in state.as_flattened_mut().iter_mut().zip(now.as_flattened()) {
        *before = before.wrapping_add(*after);
    }
}

/// What twenty steps have in common.
struct Steps<F> {
    constant: u32,
    choose: F,
}

#[inline(always)]
fn twenty(state: &mut State, said: &mut [Words; 16], from: usize, steps: &Steps<impl Choose>) {
    five(state, said, from, steps);
    five(state, said, from + 5, steps);
    five(state, said, from + 10, steps);
    five(state, said, from + 15, steps);
}

/// After five steps each word of the state is in its place again.
#[inline(always)]
fn five(state: &mut State, said: &mut [Words; 16], at: usize, steps: &Steps<impl Choose>) {
    let [a, b, c, d, e] = state;
    steps.step(a, b, c, d, e, words(said, at));
    steps.step(e, a, b, c, d, words(said, at + 1));
    steps.step(d, e, a, b, c, words(said, at + 2));
    steps.step(c, d, e, a, b, words(said, at + 3));
    steps.step(b, c, d, e, a, words(said, at + 4));
}

/// The words of the step `at`: those of the block, and then what they lead to.
#[inline(always)]
fn words(said: &mut [Words; 16], at: usize) -> &Words {
    if at >= 16 {
        let [x, y, z] = [13, 8, 2].map(|back| said[(at + back) % 16]);
        let words = &mut said[at % 16];
        for lane in 0..LANES {
            words[lane] = (words[lane] ^ x[lane] ^ y[lane] ^ z[lane]).rotate_left(1);
        }
    }
    &said[at % 16]
}

/// FIPS 180-4, section 4.1.1.
trait Choose: Fn(u32, u32, u32) -> u32 {}

impl<F: Fn(u32, u32, u32) -> u32> Choose for F {}

impl<F: Choose> Steps<F> {
    #[inline(always)]
    fn step(&self, a: &Words, b: &mut Words, c: &Words, d: &Words, e: &mut Words, words: &Words) {
        for lane in 0..LANES {
            let known = e[lane].wrapping_add(words[lane]).wrapping_add(self.constant);
            let chosen = known.wrapping_add((self.choose)(b[lane], c[lane], d[lane]));
            e[lane] = chosen.wrapping_add(a[lane].rotate_left(5));
            b[lane] = b[lane].rotate_left(30);
        }
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
