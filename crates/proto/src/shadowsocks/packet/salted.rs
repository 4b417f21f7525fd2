//! Packets of SIP004: a salt, and a key of its own for each.
//!
//! ```text
//!  +----------+------------------------+-----+
//!  |   salt   | sealed address,payload | tag |    the nonce is zero
//!  | 16 .. 32 |        5 ..            | 16  |
//!  +----------+------------------------+-----+
//! ```

use std::cell::RefCell;
use std::ops::Range;

use super::stock::StockId;
use super::{Chance, Datagram, PacketError, split};
use crate::address::AddressBlock;
use crate::limits::ADDRESS_BYTES_MIN;
use crate::shadowsocks::cipher::subkeys::{self, LANES, Subkeys};
use crate::shadowsocks::cipher::{Cipher, TAG_BYTES};
use crate::shadowsocks::key::Key;
use crate::shadowsocks::keyring::{Holder, Keyring};
use crate::shadowsocks::{Method, SALT_BYTES_MAX, Salt};

/// Bytes beside address and payload.
pub(super) fn overhead(method: Method) -> usize {
    method.salt_len() + TAG_BYTES
}

/// Appends a packet.
pub(super) fn seal(
    key: &Key,
    stock: StockId,
    address: AddressBlock<'_>,
    payload: &[u8],
    chance: impl Chance,
    out: &mut Vec<u8>,
) {
    let (salt, mut cipher) = stock.take(key, chance);
    out.extend_from_slice(salt.as_bytes());
    let start = out.len();
    out.extend_from_slice(address.as_bytes());
    out.extend_from_slice(payload);
    let mut tag = [0; TAG_BYTES];
    cipher.seal(&mut out[start..], &mut tag);
    out.extend_from_slice(&tag);
}

/// How many packets are opened with what is derived [`Ahead`] for them, at most.
pub const AHEAD_MAX: usize = LANES;

/// Keys of packets that are about to be opened, derived together; forgotten when dropped.
pub struct Ahead(());

impl Ahead {
    /// The keys with which `key` opens the first [`AHEAD_MAX`] of `packets`, if it is worth it.
    #[expect(single_use_lifetimes, reason = "one without a name is not stable here")]
    pub(super) fn derive<'p>(key: &Key, packets: impl Iterator<Item = &'p [u8]>) -> Option<Self> {
        let worth_it = subkeys::worth_it()?;
        let mut salts = [Salt::new(key.method(), [0; SALT_BYTES_MAX]); LANES];
        let mut count = 0;
        let known = packets.filter_map(|packet| Salt::read(key.method(), packet));
        for (room, salt) in salts.iter_mut().zip(known) {
            *room = salt;
            count += 1;
        }
        if count < worth_it {
            return None;
        }
        let subkeys = subkeys::derive(key, &salts);
        AHEAD.set(Some(Known { salts, subkeys, count, next: 0 }));
        Some(Self(()))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        AHEAD.set(None);
    }
}

/// What was derived ahead, in the order in which it is wanted.
struct Known {
    salts: [Salt; LANES],
    subkeys: Subkeys,
    count: usize,
    next: usize,
}

impl Known {
    /// The cipher of the packet that begins with `salt`.
    fn cipher(&mut self, method: Method, salt: &Salt) -> Option<Cipher> {
        // What is left out in between was no packet.
        let rest = &self.salts[self.next..self.count];
        let at = self.next + rest.iter().position(|known| known == salt)?;
        self.next = at + 1;
        Some(Cipher::with_subkey(method, &self.subkeys[at][..method.key_len()]))
    }
}

/// Opens a packet where it lies. What lies there after a failure is nothing. While there is an [`Ahead`] on this thread, `key` is the one
/// that it was made with.
pub(super) fn open<'p>(key: &Key, packet: &'p mut [u8]) -> Result<Datagram<'p>, PacketError> {
    let text = open_text(key, packet, |salt| {
        let ahead = AHEAD.with_borrow_mut(|known| known.as_mut()?.cipher(key.method(), salt));
        ahead.unwrap_or_else(|| Cipher::new(key, salt))
    })?;
    split(&packet[text])
}

/// Finds the first of several holders whose key opens a packet, with where its text then lies; if none does, the packet is as
/// it was.
pub(super) fn search(
    keyring: &Keyring,
    holders: impl IntoIterator<Item = Holder>,
    packet: &mut [u8],
) -> Result<(Holder, Range<usize>), PacketError> {
    SPARE.with_borrow_mut(|spare| {
        spare.clear();
        spare.extend_from_slice(packet);
        for holder in holders {
            let key = keyring.key(holder);
            match open_text(key, packet, |salt| Cipher::new(key, salt)) {
                Ok(text) => return Ok((holder, text)),
                Err(PacketError::Unauthentic) => packet.copy_from_slice(spare),
                Err(other) => return Err(other),
            }
        }
        Err(PacketError::Unauthentic)
    })
}

fn open_text(
    key: &Key,
    packet: &mut [u8],
    cipher: impl FnOnce(&Salt) -> Cipher,
) -> Result<Range<usize>, PacketError> {
    let salt = Salt::read(key.method(), packet).ok_or(PacketError::Truncated)?;
    let start = salt.as_bytes().len();
    // What cannot hold an address is not worth a key.
    if packet.len() < start + ADDRESS_BYTES_MIN + TAG_BYTES {
        return Err(PacketError::Truncated);
    }
    cipher(&salt).open(&mut packet[start..])?;
    Ok(start..packet.len() - TAG_BYTES)
}

thread_local! {
    /// Beside the packets, since they are opened one by one and in many places.
    static AHEAD: RefCell<Option<Known>> = const { RefCell::new(None) };

    /// Sealed bytes, for the time of an attempt: the libraries wipe what they cannot open.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Counts, so that nothing is given twice.
    struct Counter<'c>(&'c mut u64, bool);

    impl Chance for Counter<'_> {
        fn fill(&mut self, room: &mut [u8]) {
            *self.0 += 1;
            room[..8].copy_from_slice(&self.0.to_le_bytes());
        }

        fn more(&mut self, room: &mut [u8]) -> bool {
            if self.1 {
                self.fill(room);
            }
            self.1
        }
    }

    const METHODS: [Method; 4] =
        [Method::Aes128Gcm, Method::Aes192Gcm, Method::Aes256Gcm, Method::Chacha20IetfPoly1305];

    fn key(method: Method) -> Key {
        Key::from_bytes(method, &[5; 32][..method.key_len()]).unwrap()
    }

    /// Seals under other keys, as many as a thread has stocks for.
    fn displace(stock: StockId) {
        let others = StockId::reserve(100);
        let other = key(Method::Aes256Gcm);
        (0..100).for_each(|index| drop(others.at(index).take(&other, Counter(&mut (1 << 40), false))));
        assert!(!stock.has_ready());
    }

    fn packets(method: Method, count: u8, has_more: bool) -> Vec<Vec<u8>> {
        let (stock, mut counter) = (StockId::reserve(1), 0);
        let block = [1, 192, 0, 2, 1, 0, 53];
        let (address, _) = AddressBlock::split(&block).unwrap();
        let sealed = |number| {
            if number == 70 {
                displace(stock);
            }
            let mut packet = Vec::new();
            let chance = Counter(&mut counter, has_more);
            seal(&key(method), stock, address, &[number; 3], chance, &mut packet);
            packet
        };
        (0..count).map(sealed).collect()
    }

    #[test]
    fn no_salt_comes_twice_and_every_packet_opens_however_much_is_made_ahead() {
        for (method, has_more) in METHODS.into_iter().flat_map(|method| [(method, false), (method, true)]) {
            let mut salts = HashSet::new();
            for (number, mut packet) in (0..).zip(packets(method, 100, has_more)) {
                assert!(salts.insert(packet[..method.salt_len()].to_vec()), "{method}: {number}");
                assert_eq!(open(&key(method), &mut packet).unwrap().payload, [number; 3], "{method}");
            }
        }
    }

    #[test]
    fn keys_that_displace_each_other_are_not_mixed_up() {
        let method = Method::Aes256Gcm;
        let keys = [5, 6].map(|byte| Key::from_bytes(method, &[byte; 32]).unwrap());
        let (first, mut counter) = (StockId::reserve(65), 0);
        let block = [1, 192, 0, 2, 1, 0, 53];
        let (address, _) = AddressBlock::split(&block).unwrap();
        for number in 0..200 {
            let at = (number / 40) % 2;
            let (key, mut packet) = (&keys[at], Vec::new());
            seal(key, first.at(64 * at), address, b"!", Counter(&mut counter, true), &mut packet);
            assert!(open(key, &mut packet).is_ok(), "{number}");
        }
    }

    #[test]
    fn a_batch_opens_ahead_as_it_would_without_whatever_else_is_in_it() {
        for method in METHODS {
            let mut batch = packets(method, 60, true);
            batch.swap(20, 21);
            batch[7].truncate(method.salt_len() - 1);
            batch[8].truncate(method.salt_len() + 3);
            batch[9][40] ^= 1;
            batch[50] = batch[49].clone();
            let opened = |mut packet: Vec<u8>| {
                open(&key(method), &mut packet).map(|datagram| datagram.payload.to_vec())
            };
            let expected: Vec<_> = batch.iter().cloned().map(opened).collect();
            for (some, expected) in batch.chunks(AHEAD_MAX).zip(expected.chunks(AHEAD_MAX)) {
                let ahead = Ahead::derive(&key(method), some.iter().map(|packet| &packet[..]));
                assert_eq!(ahead.is_some(), subkeys::worth_it().is_some());
                assert_eq!(some.iter().cloned().map(opened).collect::<Vec<_>>(), expected);
                drop(ahead);
                assert!(AHEAD.with_borrow(Option::is_none), "it is forgotten with the batch");
            }
        }
    }

    #[test]
    fn few_packets_are_not_worth_a_batch() {
        let batch = packets(Method::Aes256Gcm, 4, true);
        let packets = batch.iter().map(|packet| &packet[..]);
        assert!(Ahead::derive(&key(Method::Aes256Gcm), packets).is_none());
    }
}
