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

use super::{Datagram, PacketError, split};
use crate::address::AddressBlock;
use crate::limits::ADDRESS_BYTES_MIN;
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
    address: AddressBlock<'_>,
    payload: &[u8],
    fill: impl FnOnce(&mut [u8]),
    out: &mut Vec<u8>,
) {
    let mut random = [0; SALT_BYTES_MAX];
    fill(&mut random[..key.method().salt_len()]);
    let salt = Salt::new(key.method(), random);
    out.extend_from_slice(salt.as_bytes());
    let start = out.len();
    out.extend_from_slice(address.as_bytes());
    out.extend_from_slice(payload);
    let mut tag = [0; TAG_BYTES];
    Cipher::new(key, &salt).seal(&mut out[start..], &mut tag);
    out.extend_from_slice(&tag);
}

/// Opens a packet where it lies. What lies there after a failure is nothing.
pub(super) fn open<'p>(key: &Key, packet: &'p mut [u8]) -> Result<Datagram<'p>, PacketError> {
    let text = open_text(key, packet)?;
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
            match open_text(keyring.key(holder), packet) {
                Ok(text) => return Ok((holder, text)),
                Err(PacketError::Unauthentic) => packet.copy_from_slice(spare),
                Err(other) => return Err(other),
            }
        }
        Err(PacketError::Unauthentic)
    })
}

fn open_text(key: &Key, packet: &mut [u8]) -> Result<Range<usize>, PacketError> {
    let salt = Salt::read(key.method(), packet).ok_or(PacketError::Truncated)?;
    let start = salt.as_bytes().len();
    // What cannot hold an address is not worth a key.
    if packet.len() < start + ADDRESS_BYTES_MIN + TAG_BYTES {
        return Err(PacketError::Truncated);
    }
    Cipher::new(key, &salt).open(&mut packet[start..])?;
    Ok(start..packet.len() - TAG_BYTES)
}

thread_local! {
    /// Sealed bytes, for the time of an attempt: the libraries wipe what they cannot open.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
