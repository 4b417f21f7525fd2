//! Salsa20, many blocks at a time; the crate that has it makes one, at a quarter of the speed.

use multiversion::multiversion;
use zeroize::Zeroize as _;

use super::flat::Transform;

/// One direction of a stream.
pub(super) struct Salsa20 {
    /// The first block's input: constants, key, nonce, and between them the counter, 64 bits.
    input: [u32; 16],
    counter: u64,
    /// Keystream, of which this much has been used.
    made: [u8; BATCH_BYTES],
    used: usize,
}

/// One word of each of the blocks that are made together.
type Lanes = [u32; BLOCKS];

/// Four registers of AVX2 for each word: the compiler makes vectors of a loop over so many, and unrolls shorter ones into something slower.
const BLOCKS: usize = 32;
const BLOCK_BYTES: usize = 64;
const BATCH_BYTES: usize = BLOCKS * BLOCK_BYTES;

impl Salsa20 {
    /// The keystream of a key of 32 bytes and a nonce of 8, from its beginning.
    pub(super) fn new(key: &[u8; 32], nonce: &[u8; 8]) -> Self {
        let [a, b, c, d] = std::array::from_fn(|at| word(b"expand 32-byte k", at));
        let [k, l]: [[u32; 4]; 2] =
            std::array::from_fn(|half| std::array::from_fn(|at| word(key, 4 * half + at)));
        let input = [
            a,
            k[0],
            k[1],
            k[2],
            k[3],
            b,
            word(nonce, 0),
            word(nonce, 1),
            0,
            0,
            c,
            l[0],
            l[1],
            l[2],
            l[3],
            d,
        ];
        Self { input, counter: 0, made: [0; BATCH_BYTES], used: BATCH_BYTES }
    }

    /// Makes the next blocks of keystream.
    fn make(&mut self) {
        make(&self.input, self.counter, &mut self.made);
        self.counter = self.counter.wrapping_add(BLOCKS as u64);
    }
}

impl Transform for Salsa20 {
    fn apply(&mut self, bytes: &mut [u8]) {
        let begun = bytes.len().min(BATCH_BYTES - self.used);
        let (begun, rest) = bytes.split_at_mut(begun);
        xor(begun, &self.made[self.used..]);
        self.used += begun.len();
        let mut batches = rest.chunks_exact_mut(BATCH_BYTES);
        for batch in &mut batches {
            self.make();
            xor(batch, &self.made);
        }
        let tail = batches.into_remainder();
        if !tail.is_empty() {
            self.make();
            xor(tail, &self.made);
            self.used = tail.len();
        }
    }
}

impl Drop for Salsa20 {
    fn drop(&mut self) {
        self.input.zeroize();
        self.made.zeroize();
    }
}

fn xor(bytes: &mut [u8], keystream: &[u8]) {
    for (byte, key) in bytes.iter_mut().zip(keystream) {
        *byte ^= key;
    }
}

/// The blocks from `counter` on, for whatever vectors the processor turns out to have.
#[multiversion(targets("x86_64+avx2"))]
fn make(input: &[u32; 16], counter: u64, made: &mut [u8; BATCH_BYTES]) {
    let mut start = input.map(|word| [word; BLOCKS]);
    let counters: [[u8; 8]; BLOCKS] =
        std::array::from_fn(|block| counter.wrapping_add(block as u64).to_le_bytes());
    (start[8], start[9]) =
        (counters.map(|counter| word(&counter, 0)), counters.map(|counter| word(&counter, 1)));
    let mut state = start;
    for _ in 0..10 {
        double_round(&mut state);
    }
    for (quarter, (rows, start)) in state.chunks_exact(4).zip(start.chunks_exact(4)).enumerate() {
        for (block, bytes) in made.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            let sums: [u32; 4] = std::array::from_fn(|row| rows[row][block].wrapping_add(start[row][block]));
            let bytes = bytes[quarter * 16..][..16].chunks_exact_mut(4);
            bytes.zip(sums).for_each(|(bytes, sum)| bytes.copy_from_slice(&sum.to_le_bytes()));
        }
    }
}

/// A round over the columns, then one over the rows.
#[inline(always)]
fn double_round(s: &mut [Lanes; 16]) {
    quarter_round(s, [0, 4, 8, 12]);
    quarter_round(s, [5, 9, 13, 1]);
    quarter_round(s, [10, 14, 2, 6]);
    quarter_round(s, [15, 3, 7, 11]);
    quarter_round(s, [0, 1, 2, 3]);
    quarter_round(s, [5, 6, 7, 4]);
    quarter_round(s, [10, 11, 8, 9]);
    quarter_round(s, [15, 12, 13, 14]);
}

#[inline(always)]
fn quarter_round(s: &mut [Lanes; 16], [a, b, c, d]: [usize; 4]) {
    step(s, b, [a, d], 7);
    step(s, c, [b, a], 9);
    step(s, d, [c, b], 13);
    step(s, a, [d, c], 18);
}

#[inline(always)]
fn step(s: &mut [Lanes; 16], word: usize, [a, b]: [usize; 2], by: u32) {
    let (a, b) = (s[a], s[b]);
    for ((word, a), b) in s[word].iter_mut().zip(a).zip(b) {
        *word ^= a.wrapping_add(b).rotate_left(by);
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use cipher::{KeyIvInit as _, StreamCipher as _};

    #[test]
    fn salsa20_is_that_of_the_library_over_many_batches_however_it_is_cut() {
        let (key, nonce) = ([7; 32], [9; 8]);
        let mut expected = vec![0; 9000];
        salsa20::Salsa20::new(&key.into(), &nonce.into()).apply_keystream(&mut expected);
        for step in [1, 3, 63, 64, 2047, 2048, 2049, 3000, 9000] {
            let (mut ours, mut bytes) = (Salsa20::new(&key, &nonce), vec![0; 9000]);
            bytes.chunks_mut(step).for_each(|piece| ours.apply(piece));
            assert_eq!(bytes, expected, "{step} at a time");
        }
    }

    #[test]
    fn the_counter_goes_on_past_32_bits() {
        let (key, nonce) = ([7; 32], [9; 8]);
        let mut library = salsa20::Salsa20::new(&key.into(), &nonce.into());
        let at = u64::from(u32::MAX) - 1;
        cipher::StreamCipherSeek::seek(&mut library, at * 64);
        let (mut expected, mut bytes) = ([0; 256], [0; 256]);
        library.apply_keystream(&mut expected);
        let mut ours = Salsa20 { counter: at, ..Salsa20::new(&key, &nonce) };
        ours.apply(&mut bytes);
        assert_eq!(bytes, expected);
    }
}
