//! The methods: one table of their names, families and lengths.

use std::fmt;
use std::str::FromStr;

use crate::limits::{AEAD_2022_PAYLOAD_BYTES_MAX, AEAD_PAYLOAD_BYTES_MAX};

/// Which specification a method's wire form follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// SIP004, amended by SIP007: password keys, no timestamps.
    Aead,
    /// SIP022, "Shadowsocks 2022": random keys, timestamps, replies bound to requests.
    Aead2022,
}

/// What the table says of a method.
struct Facts {
    name: &'static str,
    aliases: &'static [&'static str],
    generation: Generation,
    key_len: usize,
    salt_len: usize,
}

/// Makes the enum and its table from the same rows: name, other names, generation, bytes of the key, bytes of the salt.
macro_rules! methods {
    ($($(#[$doc:meta])* $method:ident = $name:literal, [$($alias:literal),*], $generation:ident, $key:literal, $salt:literal;)*) => {
        /// How a stream is encrypted; the two ends must agree on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $($(#[$doc])* $method,)*
        }

        impl Method {
            /// Every method, the recommended ones first.
            pub const ALL: [Self; TABLE.len()] = [$(Self::$method),*];
        }

        const TABLE: &[Facts] = &[$(Facts {
            name: $name,
            aliases: &[$($alias),*],
            generation: Generation::$generation,
            key_len: $key,
            salt_len: $salt,
        }),*];
    };
}

methods! {
    /// AES-256-GCM of SIP022.
    Blake3Aes256Gcm = "2022-blake3-aes-256-gcm", [], Aead2022, 32, 32;
    /// AES-128-GCM of SIP022.
    Blake3Aes128Gcm = "2022-blake3-aes-128-gcm", [], Aead2022, 16, 16;
    /// ChaCha20-Poly1305 of SIP022.
    Blake3Chacha20Poly1305 = "2022-blake3-chacha20-poly1305", [], Aead2022, 32, 32;
    /// ChaCha12-Poly1305, with fewer rounds, of SIP022's optional methods.
    Blake3Chacha12Poly1305 = "2022-blake3-chacha12-poly1305", [], Aead2022, 32, 32;
    /// ChaCha8-Poly1305, with fewer rounds, of SIP022's optional methods.
    Blake3Chacha8Poly1305 = "2022-blake3-chacha8-poly1305", [], Aead2022, 32, 32;
    /// ChaCha20-Poly1305 (RFC 8439) of SIP004.
    Chacha20IetfPoly1305 = "chacha20-ietf-poly1305", ["aead_chacha20_poly1305"], Aead, 32, 32;
    /// AES-256-GCM of SIP004.
    Aes256Gcm = "aes-256-gcm", ["aead_aes_256_gcm", "sodium:aes-256-gcm", "mbedtls:aes-256-gcm"], Aead, 32, 32;
    /// AES-128-GCM of SIP004.
    Aes128Gcm = "aes-128-gcm", ["aead_aes_128_gcm", "mbedtls:aes-128-gcm"], Aead, 16, 16;
    /// AES-192-GCM.
    Aes192Gcm = "aes-192-gcm", ["mbedtls:aes-192-gcm"], Aead, 24, 24;
    /// ChaCha20-Poly1305 with a nonce of 24 bytes.
    Xchacha20IetfPoly1305 = "xchacha20-ietf-poly1305", ["aead_xchacha20_poly1305"], Aead, 32, 32;
    /// ChaCha20-Poly1305 as it was before RFC 8439: a nonce of 8 bytes, another padding of the MAC.
    Chacha20Poly1305 = "chacha20-poly1305", [], Aead, 32, 32;
    /// AES-128-OCB (RFC 7253).
    Aes128Ocb = "aes-128-ocb", [], Aead, 16, 16;
    /// AES-192-OCB (RFC 7253).
    Aes192Ocb = "aes-192-ocb", [], Aead, 24, 24;
    /// AES-256-OCB (RFC 7253).
    Aes256Ocb = "aes-256-ocb", [], Aead, 32, 32;
    /// AES-128-CCM (RFC 3610) with a nonce of 12 bytes and a tag of 16.
    Aes128Ccm = "aes-128-ccm", [], Aead, 16, 16;
    /// AES-192-CCM (RFC 3610) with a nonce of 12 bytes and a tag of 16.
    Aes192Ccm = "aes-192-ccm", [], Aead, 24, 24;
    /// AES-256-CCM (RFC 3610) with a nonce of 12 bytes and a tag of 16.
    Aes256Ccm = "aes-256-ccm", [], Aead, 32, 32;
    /// AES-128-GCM-SIV (RFC 8452).
    Aes128GcmSiv = "aes-128-gcm-siv", [], Aead, 16, 16;
    /// AES-256-GCM-SIV (RFC 8452).
    Aes256GcmSiv = "aes-256-gcm-siv", [], Aead, 32, 32;
}

/// A method name that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownMethod;

impl Method {
    /// The methods that every maintained implementation has, the recommended ones first.
    pub const COMMON: [Self; 6] = [
        Self::Blake3Aes256Gcm,
        Self::Blake3Aes128Gcm,
        Self::Blake3Chacha20Poly1305,
        Self::Chacha20IetfPoly1305,
        Self::Aes256Gcm,
        Self::Aes128Gcm,
    ];

    /// The name in configurations and links.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The specification it follows.
    pub fn generation(self) -> Generation {
        self.facts().generation
    }

    /// Bytes of the key: 16, 24 or 32.
    pub fn key_len(self) -> usize {
        self.facts().key_len
    }

    /// Bytes of the salt: as many as the key has.
    pub fn salt_len(self) -> usize {
        self.facts().salt_len
    }

    /// The longest payload of one record.
    pub fn payload_max(self) -> usize {
        match self.generation() {
            Generation::Aead => AEAD_PAYLOAD_BYTES_MAX,
            Generation::Aead2022 => AEAD_2022_PAYLOAD_BYTES_MAX,
        }
    }

    fn facts(self) -> &'static Facts {
        &TABLE[self as usize]
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    /// Names are matched without regard to case; other names that programs have for a method are accepted.
    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        let is_named = |method: &Self| {
            let Facts { name: known, aliases, .. } = method.facts();
            std::iter::once(known).chain(*aliases).any(|known| known.eq_ignore_ascii_case(name))
        };
        Self::ALL.into_iter().find(is_named).ok_or(UnknownMethod)
    }
}

impl fmt::Display for UnknownMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown method")
    }
}

impl std::error::Error for UnknownMethod {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_name_is_its_methods_name_in_any_case() {
        for method in Method::ALL {
            assert_eq!(method.name().parse(), Ok(method));
            assert_eq!(method.name().to_uppercase().parse(), Ok(method));
        }
        assert_eq!("AEAD_CHACHA20_POLY1305".parse(), Ok(Method::Chacha20IetfPoly1305));
        assert_eq!("sodium:aes-256-gcm".parse(), Ok(Method::Aes256Gcm));
        assert_eq!("mbedtls:AES-192-GCM".parse(), Ok(Method::Aes192Gcm));
        for unknown in ["", "aes-512-gcm", "sodium:", "mbedtls:aes-256-ocb", "salsa20-ctr"] {
            assert_eq!(unknown.parse::<Method>(), Err(UnknownMethod), "{unknown}");
        }
    }

    #[test]
    fn no_name_has_two_methods() {
        let mut seen = HashSet::new();
        for method in Method::ALL {
            let Facts { name, aliases, .. } = method.facts();
            for name in std::iter::once(name).chain(*aliases) {
                assert!(seen.insert(*name), "{name}");
                assert_eq!(*name, name.to_ascii_lowercase());
            }
        }
    }
}
