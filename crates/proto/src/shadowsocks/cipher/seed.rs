//! The block cipher SEED (RFC 4269), in the direction that CFB needs; no maintained crate has it.

use cipher::consts::{U1, U16};
use cipher::inout::InOut;
use cipher::{
    Block, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, Key, KeyInit,
    KeySizeUser, ParBlocksSizeUser,
};
use zeroize::{Zeroize as _, ZeroizeOnDrop};

/// SEED under one key: a pair of words for each round.
pub(crate) struct Seed {
    rounds: [[u32; 2]; 16],
}

impl KeySizeUser for Seed {
    type KeySize = U16;
}

impl KeyInit for Seed {
    /// Section 2.2. The round constants are the golden ratio, one bit further to the left each.
    fn new(key: &Key<Self>) -> Self {
        let [mut a, mut b, mut c, mut d] = words(&key.0);
        let mut rounds = [[0; 2]; 16];
        for (round, words) in rounds.iter_mut().enumerate() {
            let constant = GOLDEN_RATIO.rotate_left(u32::try_from(round).unwrap_or(0));
            *words =
                [g(a.wrapping_add(c).wrapping_sub(constant)), g(b.wrapping_sub(d).wrapping_add(constant))];
            if round % 2 == 0 {
                (a, b) = ((a >> 8) | (b << 24), (b >> 8) | (a << 24));
            } else {
                (c, d) = ((c << 8) | (d >> 24), (d << 8) | (c >> 24));
            }
        }
        Self { rounds }
    }
}

impl BlockSizeUser for Seed {
    type BlockSize = U16;
}

impl ParBlocksSizeUser for Seed {
    type ParBlocksSize = U1;
}

impl BlockCipherEncrypt for Seed {
    fn encrypt_with_backend(&self, f: impl BlockCipherEncClosure<BlockSize = U16>) {
        f.call(self);
    }
}

impl BlockCipherEncBackend for Seed {
    /// Sections 2 and 2.1: sixteen Feistel rounds, the halves not swapped after the last.
    fn encrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        let [mut l0, mut l1, mut r0, mut r1] = words(&block.get_in().0);
        for [k0, k1] in &self.rounds {
            let (c, d) = (r0 ^ k0, r1 ^ k1);
            let d = g(c ^ d);
            let c = g(c.wrapping_add(d));
            let d = g(d.wrapping_add(c));
            let c = c.wrapping_add(d);
            (l0, l1, r0, r1) = (r0, r1, l0 ^ c, l1 ^ d);
        }
        let output = block.get_out();
        for (bytes, word) in output.chunks_exact_mut(4).zip([r0, r1, l0, l1]) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.rounds.zeroize();
    }
}

impl ZeroizeOnDrop for Seed {}

fn words(bytes: &[u8; 16]) -> [u32; 4] {
    std::array::from_fn(|at| {
        u32::from_be_bytes([bytes[4 * at], bytes[4 * at + 1], bytes[4 * at + 2], bytes[4 * at + 3]])
    })
}

/// The function G of section 2.1: every byte through its box, spread over the word.
fn g(word: u32) -> u32 {
    let [a, b, c, d] = word.to_le_bytes().map(usize::from);
    G[0][a] ^ G[1][b] ^ G[2][c] ^ G[3][d]
}

const GOLDEN_RATIO: u32 = 0x9e37_79b9;

/// What each byte of a word contributes to G: its box's answer in every byte, other pairs of bits left out in each.
static G: [[u32; 256]; 4] = {
    let boxes = [substitution(247, 0xa9, MATRIX_1), substitution(251, 0x38, MATRIX_2)];
    let mut tables = [[0; 256]; 4];
    let (mut place, mut mask) = (0, 0x3fcf_f3fc_u32);
    while place < 4 {
        let mut byte = 0;
        while byte < 256 {
            tables[place][byte] = (boxes[place % 2][byte] * 0x0101_0101) & mask;
            byte += 1;
        }
        mask = mask.rotate_right(8);
        place += 1;
    }
    tables
};

/// The columns of the matrices of section 2.1.1.
const MATRIX_1: [u32; 8] = [0x2c, 0xd0, 0x69, 0xc2, 0x41, 0x44, 0x58, 0xe2];
const MATRIX_2: [u32; 8] = [0xd0, 0x2a, 0xe1, 0x2c, 0x21, 0x30, 0xa2, 0x6c];

/// A box of section 2.1.1: `matrix` times a power of the byte, plus a constant.
const fn substitution(exponent: u32, constant: u32, matrix: [u32; 8]) -> [u32; 256] {
    let mut answers = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut power, mut times) = (1, 0);
        while times < exponent {
            power = multiply(power, byte);
            times += 1;
        }
        let (mut answer, mut bit) = (constant, 0);
        while bit < 8 {
            answer ^= matrix[bit] * (power >> bit & 1);
            bit += 1;
        }
        answers[byte as usize] = answer;
        byte += 1;
    }
    answers
}

/// Multiplies in the field of 256 elements that x^8 + x^6 + x^5 + x + 1 makes.
const fn multiply(mut a: u32, b: u32) -> u32 {
    let (mut product, mut bit) = (0, 0);
    while bit < 8 {
        product ^= a * (b >> bit & 1);
        a = (a << 1) ^ (0x163 * (a >> 7));
        bit += 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::super::super::vectors::unhex;
    use super::*;

    /// RFC 4269, appendix B.
    #[test]
    fn seed_is_that_of_rfc_4269() {
        let cases = [
            (
                "00000000000000000000000000000000",
                "000102030405060708090a0b0c0d0e0f",
                "5ebac6e0054e166819aff1cc6d346cdb",
            ),
            (
                "000102030405060708090a0b0c0d0e0f",
                "00000000000000000000000000000000",
                "c11f22f20140505084483597e4370f43",
            ),
            (
                "4706480851e61be85d74bfb3fd956185",
                "83a2f8a288641fb9a4e9a5cc2f131c7d",
                "ee54d13ebcae706d226bc3142cd40d4a",
            ),
            (
                "28dbc3bc49ffd87dcfa509b11d422be7",
                "b41e6be2eba84a148e2eed84593c5ec7",
                "9b9b7bfcd1813cb95d0b3618f40f5122",
            ),
        ];
        for (key, text, sealed) in cases {
            let seed = Seed::new_from_slice(&unhex(key)).unwrap();
            let mut block = Block::<Seed>::try_from(&unhex(text)[..]).unwrap();
            BlockCipherEncrypt::encrypt_block(&seed, &mut block);
            assert_eq!(block[..], unhex(sealed));
        }
    }
}
