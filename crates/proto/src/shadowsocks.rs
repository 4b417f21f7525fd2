//! Shadowsocks: what the methods and their generations share.
//!
//! - [`method`]: the table of methods.
//! - [`key`]: a method's secret, and where it comes from.
//! - [`head`]: how a server understands the start of a request, in either generation.
//! - [`stream`]: the record layer of one direction, sealing and opening.
//! - [`packet`]: one datagram, sealing and opening.
//! - [`identity`]: how a client says whose it is (SIP023).
//! - [`keyring`]: the secrets of a server's port, and who holds them.
//! - [`one_time_auth`]: what the methods without tags were mended with.
//! - [`replay`]: which salts have been seen; [`window`]: which packets of a session.

pub(crate) mod block;
pub(crate) mod cipher;
pub mod head;
pub mod identity;
pub mod key;
pub mod keyring;
pub mod method;
pub mod one_time_auth;
pub mod packet;
pub mod replay;
pub mod stream;
pub mod window;

#[cfg(test)]
#[path = "shadowsocks/tests/answers.rs"]
mod answers;
#[cfg(test)]
#[path = "shadowsocks/tests/bench.rs"]
mod bench;
#[cfg(test)]
#[path = "shadowsocks/tests/ota.rs"]
mod ota_tests;
#[cfg(test)]
#[path = "shadowsocks/tests/packet_properties.rs"]
mod packet_properties;
#[cfg(test)]
#[path = "shadowsocks/tests/packet_speed.rs"]
mod packet_speed;
#[cfg(test)]
#[path = "shadowsocks/tests/packet.rs"]
mod packet_tests;
#[cfg(test)]
#[path = "shadowsocks/tests/packet_vectors.rs"]
mod packet_vectors;
#[cfg(test)]
#[path = "shadowsocks/tests/pair.rs"]
mod pair_tests;
#[cfg(test)]
#[path = "shadowsocks/tests/several.rs"]
mod several_tests;
#[cfg(test)]
#[path = "shadowsocks/tests/speed.rs"]
mod speed;
#[cfg(test)]
#[path = "shadowsocks/tests/vectors.rs"]
mod vectors;

use std::fmt;

pub use method::{Generation, Method, UnknownMethod};

/// Seconds since the Unix epoch, as SIP022 writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub u64);

/// The random start of one direction of a stream; unique for the life of the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Salt {
    bytes: [u8; SALT_BYTES_MAX],
    len: u8,
}

/// Bytes of the longest salt.
pub const SALT_BYTES_MAX: usize = 32;

impl Salt {
    /// A salt for `method` from as many of `random`'s first bytes as it needs.
    pub fn new(method: Method, random: [u8; SALT_BYTES_MAX]) -> Self {
        let len = method.salt_len();
        let mut bytes = [0; SALT_BYTES_MAX];
        bytes[..len].copy_from_slice(&random[..len]);
        // A salt is at most 32 bytes, so its length never saturates.
        Self { bytes, len: u8::try_from(len).unwrap_or(u8::MAX) }
    }

    /// The salt of `method` at the front of `bytes`, if all of it is there.
    pub(crate) fn read(method: Method, bytes: &[u8]) -> Option<Self> {
        let source = bytes.get(..method.salt_len())?;
        let mut random = [0; SALT_BYTES_MAX];
        random[..source.len()].copy_from_slice(source);
        Some(Self::new(method, random))
    }

    /// The bytes on the wire: as many as the method's salts have.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Salts are not printed: they tie log lines to captured traffic.
impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Salt<{}>(..)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_does_not_print_itself() {
        let salt = Salt::new(Method::Aes128Gcm, [0xab; 32]);
        assert_eq!(salt.as_bytes(), [0xab; 16]);
        assert_eq!(format!("{salt:?}"), "Salt<16>(..)");
    }
}
