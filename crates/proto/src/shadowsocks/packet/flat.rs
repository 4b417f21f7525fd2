//! Packets of the methods before SIP004: an IV, and a cipher without a tag.
//!
//! ```text
//!  +---------+-------------------------------------------+
//!  |   IV    | address, payload, [one-time auth 10]      |    one-time authentication: to the server only, and the
//!  | 0 .. 32 |   5 ..                                    |    address type has its flag
//!  +---------+-------------------------------------------+
//! ```

use super::{Datagram, PacketError, split};
use crate::address::AddressBlock;
use crate::shadowsocks::cipher::flat::{Flat, Way};
use crate::shadowsocks::key::Key;
use crate::shadowsocks::one_time_auth::{AUTH_BYTES, AUTH_FLAG, OneTimeAuth, check_head, head_tag};
use crate::shadowsocks::{Method, SALT_BYTES_MAX, Salt};

/// Bytes beside address and payload.
pub(super) fn overhead(method: Method, auth: bool) -> usize {
    method.salt_len() + if auth { AUTH_BYTES } else { 0 }
}

/// Appends a packet, with one-time authentication or without.
pub(super) fn seal(
    key: &Key,
    auth: bool,
    address: AddressBlock<'_>,
    payload: &[u8],
    fill: impl FnOnce(&mut [u8]),
    out: &mut Vec<u8>,
) {
    let mut random = [0; SALT_BYTES_MAX];
    let iv_len = key.method().salt_len();
    if iv_len > 0 {
        fill(&mut random[..iv_len]);
    }
    let iv = Salt::new(key.method(), random);
    out.extend_from_slice(iv.as_bytes());
    let start = out.len();
    out.extend_from_slice(address.as_bytes());
    out.extend_from_slice(payload);
    if auth {
        out[start] |= AUTH_FLAG;
        let tag = head_tag(&iv, key, &out[start..]);
        out.extend_from_slice(&tag);
    }
    Flat::new(key, &iv, Way::Seal).apply(&mut out[start..]);
}

/// Opens a packet from a server, which has no one-time authentication.
pub(super) fn open<'p>(key: &Key, packet: &'p mut [u8]) -> Result<Datagram<'p>, PacketError> {
    let (_, text) = turn(key, packet)?;
    split(text)
}

/// Opens a packet from a client.
pub(super) fn open_request<'p>(
    key: &Key,
    demand: OneTimeAuth,
    packet: &'p mut [u8],
) -> Result<Datagram<'p>, PacketError> {
    let (iv, text) = turn(key, packet)?;
    let kind = *text.first().ok_or(PacketError::Truncated)?;
    if kind & !TYPE_BITS != AUTH_FLAG {
        return match demand {
            OneTimeAuth::Honoured => split(text),
            OneTimeAuth::Demanded => Err(PacketError::NoOneTimeAuth),
        };
    }
    let (said, tag) = text.split_last_chunk_mut::<AUTH_BYTES>().ok_or(PacketError::Truncated)?;
    check_head(&iv, key, said, tag).map_err(|_| PacketError::BadOneTimeAuth)?;
    *said.first_mut().ok_or(PacketError::Truncated)? &= TYPE_BITS;
    split(said)
}

fn turn<'p>(key: &Key, packet: &'p mut [u8]) -> Result<(Salt, &'p mut [u8]), PacketError> {
    let iv = Salt::read(key.method(), packet).ok_or(PacketError::Truncated)?;
    let text = &mut packet[iv.as_bytes().len()..];
    Flat::new(key, &iv, Way::Open).apply(text);
    Ok((iv, text))
}

/// Where in the first byte of an address block its type is, as these methods always had it.
const TYPE_BITS: u8 = 0x0f;
