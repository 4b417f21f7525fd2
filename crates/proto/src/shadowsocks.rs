//! Shadowsocks: methods, and what the generations share.
//!
//! - [`key`]: a method's secret, and where it comes from.
//! - [`head`]: how a server understands the start of a request, in either generation.
//! - [`stream`]: the record layer of one direction, sealing and opening.
//! - [`identity`]: how a client says whose it is (SIP023).
//! - [`keyring`]: the secrets of a server's port, and who holds them.
//! - [`replay`]: which salts have been seen.

pub(crate) mod cipher;
pub mod head;
pub mod identity;
pub mod key;
#[expect(dead_code, reason = "heads are not yet read with it")]
pub mod keyring;
pub mod replay;
pub mod stream;

#[cfg(test)]
#[path = "shadowsocks/tests/bench.rs"]
mod bench;
#[cfg(test)]
#[path = "shadowsocks/tests/pair.rs"]
mod pair_tests;
#[cfg(test)]
#[path = "shadowsocks/tests/vectors.rs"]
mod vectors;

use std::fmt;
use std::str::FromStr;

use crate::limits::{AEAD_2022_PAYLOAD_BYTES_MAX, AEAD_PAYLOAD_BYTES_MAX};

/// How a stream is encrypted; the two ends must agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// AES-128-GCM of SIP004.
    Aes128Gcm,
    /// AES-256-GCM of SIP004.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439) of SIP004.
    Chacha20IetfPoly1305,
    /// AES-128-GCM of SIP022.
    Blake3Aes128Gcm,
    /// AES-256-GCM of SIP022.
    Blake3Aes256Gcm,
    /// ChaCha20-Poly1305 of SIP022.
    Blake3Chacha20Poly1305,
}

/// Which specification a method's wire form follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// SIP004, amended by SIP007: password keys, no timestamps.
    Aead,
    /// SIP022, "Shadowsocks 2022": random keys, timestamps, replies bound to requests.
    Aead2022,
}

/// A method name that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownMethod;

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

impl Method {
    /// Every method, the recommended ones first.
    pub const ALL: [Self; 6] = [
        Self::Blake3Aes256Gcm,
        Self::Blake3Aes128Gcm,
        Self::Blake3Chacha20Poly1305,
        Self::Chacha20IetfPoly1305,
        Self::Aes256Gcm,
        Self::Aes128Gcm,
    ];

    /// The name in configurations and links.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Aes256Gcm => "aes-256-gcm",
            Self::Chacha20IetfPoly1305 => "chacha20-ietf-poly1305",
            Self::Blake3Aes128Gcm => "2022-blake3-aes-128-gcm",
            Self::Blake3Aes256Gcm => "2022-blake3-aes-256-gcm",
            Self::Blake3Chacha20Poly1305 => "2022-blake3-chacha20-poly1305",
        }
    }

    /// The specification it follows.
    pub fn generation(self) -> Generation {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm | Self::Chacha20IetfPoly1305 => Generation::Aead,
            Self::Blake3Aes128Gcm | Self::Blake3Aes256Gcm | Self::Blake3Chacha20Poly1305 => {
                Generation::Aead2022
            }
        }
    }

    /// Bytes of the key: 16 or 32.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm | Self::Blake3Aes128Gcm => 16,
            Self::Aes256Gcm
            | Self::Chacha20IetfPoly1305
            | Self::Blake3Aes256Gcm
            | Self::Blake3Chacha20Poly1305 => 32,
        }
    }

    /// Bytes of the salt: as many as the key has.
    pub fn salt_len(self) -> usize {
        self.key_len()
    }

    /// The longest payload of one record.
    pub fn payload_max(self) -> usize {
        match self.generation() {
            Generation::Aead => AEAD_PAYLOAD_BYTES_MAX,
            Generation::Aead2022 => AEAD_2022_PAYLOAD_BYTES_MAX,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    /// Names are matched without regard to case; the capital names of the IANA registry are accepted.
    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        let lower = name.to_ascii_lowercase();
        let known = match lower.as_str() {
            "aead_chacha20_poly1305" => "chacha20-ietf-poly1305",
            "aead_aes_256_gcm" => "aes-256-gcm",
            "aead_aes_128_gcm" => "aes-128-gcm",
            other => other,
        };
        Self::ALL.into_iter().find(|method| method.name() == known).ok_or(UnknownMethod)
    }
}

impl fmt::Display for UnknownMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown method")
    }
}

impl std::error::Error for UnknownMethod {}

impl Salt {
    /// A salt for `method` from as many of `random`'s first bytes as it needs.
    pub fn new(method: Method, random: [u8; SALT_BYTES_MAX]) -> Self {
        let len = method.salt_len();
        let mut bytes = [0; SALT_BYTES_MAX];
        bytes[..len].copy_from_slice(&random[..len]);
        Self { bytes, len: if len == SALT_BYTES_MAX { 32 } else { 16 } }
    }

    /// The salt of `method` at the front of `bytes`, if all of it is there.
    pub(crate) fn read(method: Method, bytes: &[u8]) -> Option<Self> {
        let source = bytes.get(..method.salt_len())?;
        let mut random = [0; SALT_BYTES_MAX];
        random[..source.len()].copy_from_slice(source);
        Some(Self::new(method, random))
    }

    /// The bytes on the wire: 16 or 32.
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
    fn every_name_is_its_methods_name_in_any_case() {
        for method in Method::ALL {
            assert_eq!(method.name().parse(), Ok(method));
            assert_eq!(method.name().to_uppercase().parse(), Ok(method));
        }
        assert_eq!("AEAD_CHACHA20_POLY1305".parse(), Ok(Method::Chacha20IetfPoly1305));
        assert_eq!("aes-256-cfb".parse::<Method>(), Err(UnknownMethod));
    }

    #[test]
    fn a_salt_does_not_print_itself() {
        let salt = Salt::new(Method::Aes128Gcm, [0xab; 32]);
        assert_eq!(salt.as_bytes(), [0xab; 16]);
        assert_eq!(format!("{salt:?}"), "Salt<16>(..)");
    }
}
