//! A set of names: exact ones, and suffixes that fit themselves and every name below them.
//!
//! All names lie one behind the other in one text, and a hash table knows where each one is. A name that is looked for is
//! hashed once, from its end, so that the hash of each of its suffixes comes by on the way.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use umbra_proto::address::DomainName;
use umbra_proto::limits::DOMAIN_NAME_BYTES_MAX;

/// The set.
#[derive(Debug, Default)]
pub(super) struct Domains {
    text: Box<str>,
    table: HashTable<Entry>,
    /// For each number of dots, whether a name in the set has so many: a name of a hundred labels costs no more lookups than
    /// the set has depths.
    depths: u128,
}

/// Names that are still being said. The table is made when their number is known: one that grows is filled twice.
#[derive(Debug, Default)]
pub(super) struct DomainsBuilder {
    text: String,
    entries: Vec<Entry>,
}

/// Eight bytes for each name, and its text.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    len: u8,
    kinds: u8,
}

/// How a name in the set is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It alone.
    Exact,
    /// It and all below it.
    Suffix,
}

impl Kind {
    fn bit(self) -> u8 {
        match self {
            Self::Exact => 1,
            Self::Suffix => 2,
        }
    }
}

/// The name of a target as rules see it: in small letters, and without a dot at its end.
pub(super) struct Name {
    bytes: [u8; DOMAIN_NAME_BYTES_MAX],
    len: usize,
}

impl Name {
    pub(super) fn new(name: &DomainName) -> Self {
        let name = name.as_str();
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        let mut bytes = [0; DOMAIN_NAME_BYTES_MAX];
        bytes[..name.len()].copy_from_slice(name);
        bytes[..name.len()].make_ascii_lowercase();
        Self { bytes, len: name.len() }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DomainsBuilder {
    /// Adds a name of 1 to 255 bytes of ASCII. The text of all of them stays below 4 GiB by the bound on entries.
    pub(super) fn insert(&mut self, name: &str, kind: Kind) {
        let start = self.text.len();
        self.text.push_str(name);
        self.text[start..].make_ascii_lowercase();
        self.entries.push(Entry {
            start: u32::try_from(start).expect("entries are bounded, and each is short"),
            len: u8::try_from(name.len()).expect("a name has at most 255 bytes"),
            kinds: kind.bit(),
        });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn build(self) -> Domains {
        let Self { text, entries } = self;
        let bytes = text.as_bytes();
        let mut table = HashTable::with_capacity(entries.len());
        let mut depths = 0;
        for entry in entries {
            let name = entry.of(bytes);
            let dots = name.iter().filter(|byte| **byte == b'.').count();
            let same = |other: &Entry| other.of(bytes) == name;
            match table.entry(hash(name), same, |other| hash(other.of(bytes))) {
                Slot::Vacant(slot) => {
                    slot.insert(entry);
                }
                Slot::Occupied(mut slot) => slot.get_mut().kinds |= entry.kinds,
            }
            depths |= depth_bit(dots);
        }
        Domains { text: text.into(), table, depths }
    }
}

impl Domains {
    /// What in the set fits `name`, the shortest suffix first.
    pub(super) fn find(&self, name: &[u8]) -> Option<(Kind, &str)> {
        let (mut rolling, mut dots) = (Rolling::START, 0);
        for (at, byte) in name.iter().enumerate().rev() {
            if *byte == b'.' {
                if let Some((_, suffix)) = self.look_up(rolling, dots, &name[at + 1..], Kind::Suffix.bit()) {
                    return Some((Kind::Suffix, suffix));
                }
                dots += 1;
            }
            rolling = rolling.push(*byte);
        }
        let (kinds, whole) = self.look_up(rolling, dots, name, Kind::Exact.bit() | Kind::Suffix.bit())?;
        Some((if kinds & Kind::Suffix.bit() == 0 { Kind::Exact } else { Kind::Suffix }, whole))
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    fn look_up(&self, rolling: Rolling, dots: usize, name: &[u8], kinds: u8) -> Option<(u8, &str)> {
        if self.depths & depth_bit(dots) == 0 {
            return None;
        }
        let same = |entry: &Entry| entry.of(self.text.as_bytes()) == name;
        let entry = self.table.find(rolling.finish(), same).filter(|entry| entry.kinds & kinds != 0)?;
        Some((entry.kinds, &self.text[entry.range()]))
    }
}

impl Entry {
    fn range(self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + usize::from(self.len)
    }

    fn of(self, text: &[u8]) -> &[u8] {
        &text[self.range()]
    }
}

fn depth_bit(dots: usize) -> u128 {
    1 << dots.min(127)
}

fn hash(name: &[u8]) -> u64 {
    name.iter().rev().fold(Rolling::START, |rolling, byte| rolling.push(*byte)).finish()
}

/// FNV-1a, from the end of a name. What is in the set is the operator's, so nobody else can make its names meet in one place.
#[derive(Clone, Copy)]
struct Rolling(u64);

impl Rolling {
    const START: Self = Self(0xcbf2_9ce4_8422_2325);

    fn push(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    }

    /// The table takes its place from the low bits and a tag from the high ones: both have to depend on all.
    fn finish(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(names: &[(&str, Kind)]) -> Domains {
        let mut domains = DomainsBuilder::default();
        names.iter().for_each(|(name, kind)| domains.insert(name, *kind));
        domains.build()
    }

    #[test]
    fn a_suffix_fits_itself_and_what_is_below_it_at_the_borders_of_labels() {
        let set = set(&[("Example.COM", Kind::Suffix)]);
        for name in ["example.com", "a.example.com", "a.b.example.com", ".example.com", "a..example.com"] {
            assert_eq!(set.find(name.as_bytes()), Some((Kind::Suffix, "example.com")), "{name}");
        }
        for name in
            ["", ".", "com", "xexample.com", "example.com.net", "example.com.", "ample.com", "example"]
        {
            assert_eq!(set.find(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn an_exact_name_fits_itself_alone() {
        let set = set(&[("example.com", Kind::Exact)]);
        assert_eq!(set.find(b"example.com"), Some((Kind::Exact, "example.com")));
        assert_eq!(set.find(b"a.example.com"), None);
    }

    #[test]
    fn a_name_that_is_said_twice_is_held_once_and_means_both() {
        let set = set(&[("a.b", Kind::Exact), ("A.b", Kind::Exact), ("a.b", Kind::Suffix)]);
        assert_eq!(set.len(), 1);
        assert!(set.find(b"a.b").is_some() && set.find(b"x.a.b").is_some());
    }

    #[test]
    fn the_longest_and_the_deepest_names_are_found() {
        let deep = "a.".repeat(127) + "a";
        let long = "b".repeat(255);
        let set = set(&[(&deep, Kind::Exact), (&long, Kind::Exact), ("a.a", Kind::Exact)]);
        assert_eq!(set.find(deep.as_bytes()), Some((Kind::Exact, deep.as_str())));
        assert_eq!(set.find(long.as_bytes()), Some((Kind::Exact, long.as_str())));
        assert_eq!(set.find(&deep.as_bytes()[2..]), None);
    }

    proptest! {
        #[test]
        fn a_table_says_what_a_list_says(
            names in prop::collection::vec(("[ab]{1,2}(\\.[ab]{1,2}){0,3}", any::<bool>()), 0..12),
            probes in prop::collection::vec("[ab.]{0,10}", 1..12),
        ) {
            let kind = |suffix: bool| if suffix { Kind::Suffix } else { Kind::Exact };
            let mut set = DomainsBuilder::default();
            names.iter().for_each(|(name, suffix)| set.insert(name, kind(*suffix)));
            let set = set.build();
            for probe in probes {
                let slow = names.iter().any(|(name, suffix)| {
                    probe == *name || *suffix && probe.ends_with(&format!(".{name}"))
                });
                prop_assert_eq!(set.find(probe.as_bytes()).is_some(), slow, "{} in {:?}", probe, names);
            }
        }
    }
}
