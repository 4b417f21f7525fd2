//! One-time authentication: HMAC-SHA1, cut to 10 bytes, over what goes through the methods without tags. The first
//! Shadowsocks was mended with it before SIP004; it is for those who still need it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::Salt;
use super::cipher::BadTag;
use super::key::Key;

/// Bytes of what is left of an HMAC.
pub(super) const AUTH_BYTES: usize = 10;

/// Set in the address type of a request that is authenticated.
pub(super) const AUTH_FLAG: u8 = 0x10;

/// Whether a server insists on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OneTimeAuth {
    /// A request may have it; one that says so has to be right.
    #[default]
    Honoured,
    /// A request without it is refused.
    Demanded,
}

/// The HMAC over the head of a request, or over a whole datagram: `iv` and key together are the key.
pub(super) fn head_tag(iv: &Salt, key: &Key, head: &[u8]) -> [u8; AUTH_BYTES] {
    cut(hmac(&[iv.as_bytes(), key.secret()], head))
}

/// Judges the HMAC over the head of a request, or over a whole datagram.
pub(super) fn check_head(iv: &Salt, key: &Key, head: &[u8], tag: &[u8]) -> Result<(), BadTag> {
    hmac(&[iv.as_bytes(), key.secret()], head).verify_truncated_left(tag).map_err(|_| BadTag)
}

/// The HMAC over a chunk of payload: `iv` and the chunk's number, from 0, are the key.
pub(super) fn chunk_tag(iv: &Salt, number: u32, payload: &[u8]) -> [u8; AUTH_BYTES] {
    cut(hmac(&[iv.as_bytes(), &number.to_be_bytes()], payload))
}

/// Judges the HMAC over a chunk of payload.
pub(super) fn check_chunk(iv: &Salt, number: u32, payload: &[u8], tag: &[u8]) -> Result<(), BadTag> {
    hmac(&[iv.as_bytes(), &number.to_be_bytes()], payload).verify_truncated_left(tag).map_err(|_| BadTag)
}

fn hmac(key: &[&[u8]], text: &[u8]) -> Hmac<Sha1> {
    let key = Zeroizing::new(key.concat());
    Hmac::new_from_slice(&key).expect("HMAC takes keys of any length").chain_update(text)
}

fn cut(hmac: Hmac<Sha1>) -> [u8; AUTH_BYTES] {
    let tag = hmac.finalize().into_bytes();
    std::array::from_fn(|at| tag[at])
}
