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

/// How many blocks are made at a time: with AVX-512 a word of each fills a register.
const BLOCKS: usize = 16;
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

/// A word of each of the blocks that are made together, block by block.
type Lanes = [u32; BLOCKS];

/// The words of those blocks.
type State = [Lanes; 16];

/// Four of those words.
type Row = [Lanes; 4];

/// The words of a block in rows of which each column is worked on by itself. That is so in the rounds over a block's columns, and in those
/// over its rows once these have been turned.
const DIAGONALS: [[usize; 4]; 4] = [[0, 5, 10, 15], [4, 9, 14, 3], [8, 13, 2, 7], [12, 1, 6, 11]];

/// The blocks from `first` on, for whatever vectors the processor turns out to have.
///
/// The compiler makes vectors of a loop over so many that it does not unroll it before; that is why each goes over whole rows, or over all.
/// Of a loop over lanes within one over words it makes scattered loads and stores, which take longer than the rounds.
#[multiversion(targets("x86_64+avx2+avx512f+avx512vl", "x86_64+avx2"))]
fn make(input: &[u32; 16], first: u64, made: &mut [u8; BATCH_BYTES]) {
    let mut start = [[0; BLOCKS]; 16];
    for (at, word) in start.as_flattened_mut().iter_mut().enumerate() {
        *word = input[at / BLOCKS];
    }
    let counters: [_; BLOCKS] = std::array::from_fn(|block| first.wrapping_add(block as u64).to_le_bytes());
    (start[8], start[9]) =
        (counters.map(|counter| word(&counter, 0)), counters.map(|counter| word(&counter, 1)));
    let mut rows = DIAGONALS.map(|words| words.map(|word| start[word]));
    twenty_rounds(&mut rows);
    let mut state = [[0; BLOCKS]; 16];
    for (row, words) in rows.iter().zip(DIAGONALS) {
        row.iter().zip(words).for_each(|(lanes, word)| state[word] = *lanes);
    }
    for (word, start) in state.as_flattened_mut().iter_mut().zip(start.as_flattened()) {
        *word = word.wrapping_add(*start);
    }
    for _ in 0..4 {
        state = riffled(&state);
    }
    for (bytes, word) in made.as_chunks_mut().0.iter_mut().zip(state.as_flattened()) {
        *bytes = word.to_le_bytes();
    }
}

#[inline(always)]
fn twenty_rounds([a, b, c, d]: &mut [Row; 4]) {
    for _ in 0..10 {
        round([&mut *a, &mut *b, &mut *c, &mut *d]);
        (*b, *c, *d) = (turned(b, 3), turned(c, 2), turned(d, 1));
        round([&mut *a, &mut *d, &mut *c, &mut *b]);
        (*b, *c, *d) = (turned(b, 1), turned(c, 2), turned(d, 3));
    }
}

#[inline(always)]
fn round([a, b, c, d]: [&mut Row; 4]) {
    step(b, [a, d], 7);
    step(c, [b, a], 9);
    step(d, [c, b], 13);
    step(a, [d, c], 18);
}

#[inline(always)]
fn step(row: &mut Row, [a, b]: [&Row; 2], by: u32) {
    let others = a.as_flattened().iter().zip(b.as_flattened());
    for (word, (a, b)) in row.as_flattened_mut().iter_mut().zip(others) {
        *word ^= a.wrapping_add(*b).rotate_left(by);
    }
}

#[inline(always)]
fn turned(row: &Row, by: usize) -> Row {
    std::array::from_fn(|at| row[(at + by) % 4])
}

/// Both halves of all, a word from each in turn: the bits of a word's place go round by one. Gone round by the four that said which of the
/// sixteen it is, what was a lane is a block.
#[inline(always)]
fn riffled(state: &State) -> State {
    let (low, high) = state.as_flattened().split_at(8 * BLOCKS);
    let mut riffled = [[0; BLOCKS]; 16];
    let pairs = riffled.as_flattened_mut().as_chunks_mut().0;
    for ((pair, low), high) in pairs.iter_mut().zip(low).zip(high) {
        *pair = [*low, *high];
    }
    riffled
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
        for step in [1, 3, 63, 64, 1023, 1024, 1025, 3000, 9000] {
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
