//! Numbers that look random and are the same for the same seed.

use std::ops::RangeInclusive;

/// A splitmix64 generator: small, and good enough to choose among behaviours. Nothing here is secret.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `range`.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start()).saturating_add(1);
        range.start() + self.number() % span
    }

    /// A length of `range`.
    pub fn length(&mut self, range: RangeInclusive<usize>) -> usize {
        let wide = self.within(*range.start() as u64..=*range.end() as u64);
        usize::try_from(wide).unwrap_or(*range.end())
    }

    /// A length of `range` that is as likely to have few digits as many.
    pub fn uneven_length(&mut self, range: RangeInclusive<usize>) -> usize {
        let bits = usize::BITS - range.end().leading_zeros();
        let shift = self.within(0..=u64::from(bits));
        (self.length(range.clone()) >> shift).clamp(*range.start(), *range.end())
    }

    /// True once in `count` times; never for zero.
    pub fn one_in(&mut self, count: u64) -> bool {
        count > 0 && self.number().is_multiple_of(count)
    }

    /// One of `choices`.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.length(0..=choices.len() - 1)]
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let number = self.number().to_le_bytes();
            part.copy_from_slice(&number[..part.len()]);
        }
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    /// Another generator, whose numbers do not depend on how many this one has given since.
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_and_another_seed_something_else() {
        assert_eq!(Chance::new(7).bytes(100), Chance::new(7).bytes(100));
        assert_ne!(Chance::new(7).bytes(100), Chance::new(8).bytes(100));
    }

    #[test]
    fn numbers_stay_within_their_range() {
        let mut chance = Chance::new(1);
        for _ in 0..1000 {
            assert!((3..=5).contains(&chance.within(3..=5)));
            assert!((1..=40_000).contains(&chance.uneven_length(1..=40_000)));
        }
        assert!(!chance.one_in(0));
        assert!(chance.one_in(1));
    }
}
