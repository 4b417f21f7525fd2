//! The methods: one table of their names, families and lengths.

use std::fmt;
use std::str::FromStr;

use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::aead::{
    AES_128_GCM, AES_128_GCM_SIV, AES_192_GCM, AES_256_GCM, AES_256_GCM_SIV, CHACHA20_POLY1305,
};
use blowfish::Blowfish;
use camellia::{Camellia128, Camellia192, Camellia256};
use cast5::Cast5;
use chacha20poly1305::{ChaCha8Poly1305, ChaCha12Poly1305};
use ctr::Ctr128BE;
use des::Des;
use idea::Idea;
use ofb::Ofb;
use rc2::Rc2;

use super::cipher::flat::{
    MakeFlat, cfb, cfb1, cfb8, chacha20, chacha20_ietf, keystream, none, rc4, rc4_md5, salsa20, table,
    xchacha20,
};
use super::cipher::seed::Seed;
use super::cipher::software::{Ccm, Ocb, chacha20_poly1305, software, xchacha20_poly1305};
use super::cipher::{MakeAead, main};
use crate::limits::{AEAD_2022_PAYLOAD_BYTES_MAX, AEAD_PAYLOAD_BYTES_MAX};

/// Which specification a method's wire form follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The first Shadowsocks: no records and no tags, so that nothing is authenticated. `none` is one of them.
    Stream,
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
    suite: Suite,
}

/// How a method's ciphers are made.
#[derive(Clone, Copy)]
pub(super) enum Suite {
    /// One that seals texts, each with its tag.
    Aead(MakeAead),
    /// One that turns bytes.
    Flat(MakeFlat),
}

/// Makes the enum and its table from the same rows: name, other names, bytes of the key, bytes of the salt or IV, cipher.
macro_rules! methods {
    ($($suite:ident $generation:ident {
        $($(#[$doc:meta])* $method:ident = $name:literal, [$($alias:literal),*], $key:literal, $salt:literal, $make:expr;)*
    })*) => {
        /// How a stream is encrypted; the two ends must agree on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $($($(#[$doc])* $method,)*)*
        }

        impl Method {
            /// Every method, the recommended ones first.
            pub const ALL: [Self; COUNT] = [$($(Self::$method,)*)*];
        }

        const COUNT: usize = [$($($name,)*)*].len();

        static TABLE: [Facts; COUNT] = [$($(Facts {
            name: $name,
            aliases: &[$($alias),*],
            generation: Generation::$generation,
            key_len: $key,
            salt_len: $salt,
            suite: Suite::$suite($make),
        },)*)*];
    };
}

methods! {
    Aead Aead2022 {
        /// AES-256-GCM of SIP022.
        Blake3Aes256Gcm = "2022-blake3-aes-256-gcm", [], 32, 32, |key| main(&AES_256_GCM, key);
        /// AES-128-GCM of SIP022.
        Blake3Aes128Gcm = "2022-blake3-aes-128-gcm", [], 16, 16, |key| main(&AES_128_GCM, key);
        /// ChaCha20-Poly1305 of SIP022.
        Blake3Chacha20Poly1305 = "2022-blake3-chacha20-poly1305", [], 32, 32, |key| main(&CHACHA20_POLY1305, key);
        /// ChaCha12-Poly1305, with fewer rounds, of SIP022's optional methods.
        Blake3Chacha12Poly1305 = "2022-blake3-chacha12-poly1305", [], 32, 32, software::<ChaCha12Poly1305>;
        /// ChaCha8-Poly1305, with fewer rounds, of SIP022's optional methods.
        Blake3Chacha8Poly1305 = "2022-blake3-chacha8-poly1305", [], 32, 32, software::<ChaCha8Poly1305>;
    }
    Aead Aead {
        /// ChaCha20-Poly1305 (RFC 8439) of SIP004.
        Chacha20IetfPoly1305 = "chacha20-ietf-poly1305", ["aead_chacha20_poly1305"], 32, 32, |key| main(&CHACHA20_POLY1305, key);
        /// AES-256-GCM of SIP004.
        Aes256Gcm = "aes-256-gcm", ["aead_aes_256_gcm", "sodium:aes-256-gcm", "mbedtls:aes-256-gcm"], 32, 32, |key| main(&AES_256_GCM, key);
        /// AES-128-GCM of SIP004.
        Aes128Gcm = "aes-128-gcm", ["aead_aes_128_gcm", "mbedtls:aes-128-gcm"], 16, 16, |key| main(&AES_128_GCM, key);
        /// AES-192-GCM.
        Aes192Gcm = "aes-192-gcm", ["mbedtls:aes-192-gcm"], 24, 24, |key| main(&AES_192_GCM, key);
        /// ChaCha20-Poly1305 with a nonce of 24 bytes.
        Xchacha20IetfPoly1305 = "xchacha20-ietf-poly1305", ["aead_xchacha20_poly1305", "xchacha20-poly1305"], 32, 32, xchacha20_poly1305;
        /// ChaCha20-Poly1305 as it was before RFC 8439: a nonce of 8 bytes, another padding of the MAC.
        Chacha20Poly1305 = "chacha20-poly1305", [], 32, 32, chacha20_poly1305;
        /// AES-128-OCB (RFC 7253).
        Aes128Ocb = "aes-128-ocb", [], 16, 16, software::<Ocb<Aes128>>;
        /// AES-192-OCB (RFC 7253).
        Aes192Ocb = "aes-192-ocb", [], 24, 24, software::<Ocb<Aes192>>;
        /// AES-256-OCB (RFC 7253).
        Aes256Ocb = "aes-256-ocb", [], 32, 32, software::<Ocb<Aes256>>;
        /// AES-128-CCM (RFC 3610) with a nonce of 12 bytes and a tag of 16.
        Aes128Ccm = "aes-128-ccm", [], 16, 16, software::<Ccm<Aes128>>;
        /// AES-192-CCM (RFC 3610) with a nonce of 12 bytes and a tag of 16.
        Aes192Ccm = "aes-192-ccm", [], 24, 24, software::<Ccm<Aes192>>;
        /// AES-256-CCM (RFC 3610) with a nonce of 12 bytes and a tag of 16.
        Aes256Ccm = "aes-256-ccm", [], 32, 32, software::<Ccm<Aes256>>;
        /// AES-128-GCM-SIV (RFC 8452).
        Aes128GcmSiv = "aes-128-gcm-siv", [], 16, 16, |key| main(&AES_128_GCM_SIV, key);
        /// AES-256-GCM-SIV (RFC 8452).
        Aes256GcmSiv = "aes-256-gcm-siv", [], 32, 32, |key| main(&AES_256_GCM_SIV, key);
    }
    Flat Stream {
        /// AES-128 in CFB mode.
        Aes128Cfb = "aes-128-cfb", ["aes-128-cfb128", "mbedtls:aes-128-cfb128"], 16, 16, cfb::<Aes128>;
        /// AES-128 in CFB with 8 bits fed back.
        Aes128Cfb8 = "aes-128-cfb8", [], 16, 16, cfb8::<Aes128>;
        /// AES-128 in CFB with one bit fed back.
        Aes128Cfb1 = "aes-128-cfb1", [], 16, 16, cfb1::<Aes128>;
        /// AES-128 in OFB mode.
        Aes128Ofb = "aes-128-ofb", [], 16, 16, keystream::<Ofb<Aes128>>;
        /// AES-128 in counter mode.
        Aes128Ctr = "aes-128-ctr", ["mbedtls:aes-128-ctr"], 16, 16, keystream::<Ctr128BE<Aes128>>;
        /// AES-192 in CFB mode.
        Aes192Cfb = "aes-192-cfb", ["aes-192-cfb128", "mbedtls:aes-192-cfb128"], 24, 16, cfb::<Aes192>;
        /// AES-192 in CFB with 8 bits fed back.
        Aes192Cfb8 = "aes-192-cfb8", [], 24, 16, cfb8::<Aes192>;
        /// AES-192 in CFB with one bit fed back.
        Aes192Cfb1 = "aes-192-cfb1", [], 24, 16, cfb1::<Aes192>;
        /// AES-192 in OFB mode.
        Aes192Ofb = "aes-192-ofb", [], 24, 16, keystream::<Ofb<Aes192>>;
        /// AES-192 in counter mode.
        Aes192Ctr = "aes-192-ctr", ["mbedtls:aes-192-ctr"], 24, 16, keystream::<Ctr128BE<Aes192>>;
        /// AES-256 in CFB mode.
        Aes256Cfb = "aes-256-cfb", ["aes-256-cfb128", "mbedtls:aes-256-cfb128"], 32, 16, cfb::<Aes256>;
        /// AES-256 in CFB with 8 bits fed back.
        Aes256Cfb8 = "aes-256-cfb8", [], 32, 16, cfb8::<Aes256>;
        /// AES-256 in CFB with one bit fed back.
        Aes256Cfb1 = "aes-256-cfb1", [], 32, 16, cfb1::<Aes256>;
        /// AES-256 in OFB mode.
        Aes256Ofb = "aes-256-ofb", [], 32, 16, keystream::<Ofb<Aes256>>;
        /// AES-256 in counter mode.
        Aes256Ctr = "aes-256-ctr", ["mbedtls:aes-256-ctr"], 32, 16, keystream::<Ctr128BE<Aes256>>;
        /// Camellia-128 in CFB mode.
        Camellia128Cfb = "camellia-128-cfb", ["camellia-128-cfb128", "mbedtls:camellia-128-cfb128"], 16, 16, cfb::<Camellia128>;
        /// Camellia-192 in CFB mode.
        Camellia192Cfb = "camellia-192-cfb", ["camellia-192-cfb128", "mbedtls:camellia-192-cfb128"], 24, 16, cfb::<Camellia192>;
        /// Camellia-256 in CFB mode.
        Camellia256Cfb = "camellia-256-cfb", ["camellia-256-cfb128", "mbedtls:camellia-256-cfb128"], 32, 16, cfb::<Camellia256>;
        /// Blowfish in CFB mode.
        BfCfb = "bf-cfb", [], 16, 8, cfb::<Blowfish>;
        /// CAST-128 in CFB mode.
        Cast5Cfb = "cast5-cfb", [], 16, 8, cfb::<Cast5>;
        /// IDEA in CFB mode.
        IdeaCfb = "idea-cfb", [], 16, 8, cfb::<Idea>;
        /// RC2 with 128 effective bits in CFB mode.
        Rc2Cfb = "rc2-cfb", [], 16, 8, cfb::<Rc2>;
        /// SEED in CFB mode.
        SeedCfb = "seed-cfb", [], 16, 16, cfb::<Seed>;
        /// DES in CFB mode.
        DesCfb = "des-cfb", [], 8, 8, cfb::<Des>;
        /// XChaCha20 with a counter of 64 bits.
        Xchacha20 = "xchacha20", [], 32, 24, xchacha20;
        /// ChaCha20 of RFC 8439.
        Chacha20Ietf = "chacha20-ietf", [], 32, 12, chacha20_ietf;
        /// ChaCha20 with a nonce of 8 bytes.
        Chacha20 = "chacha20", [], 32, 8, chacha20;
        /// Salsa20.
        Salsa20 = "salsa20", [], 32, 8, salsa20;
        /// RC4 under a key of its own for each stream.
        Rc4Md5 = "rc4-md5", [], 16, 16, rc4_md5;
        /// RC4, the same keystream for every stream.
        Rc4 = "rc4", [], 16, 0, rc4;
        /// A fixed substitution of bytes; the key is the MD5 hash of the password.
        Table = "table", [], 16, 0, table;
        /// No encryption.
        Plain = "none", ["plain"], 0, 0, none;
    }
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

    /// Other names that programs have for it.
    pub fn aliases(self) -> &'static [&'static str] {
        self.facts().aliases
    }

    /// The specification it follows.
    pub fn generation(self) -> Generation {
        self.facts().generation
    }

    /// Whether nothing that it carries is authenticated: whoever is on the way can change it unnoticed, and can have the
    /// server open it.
    pub fn is_insecure(self) -> bool {
        self.generation() == Generation::Stream
    }

    /// Bytes of the key: 32 at most.
    pub fn key_len(self) -> usize {
        self.facts().key_len
    }

    /// Bytes of the salt, which with the methods of [`Generation::Stream`] is called IV: 32 at most.
    pub fn salt_len(self) -> usize {
        self.facts().salt_len
    }

    /// The longest payload of one record; a stream without records has no such length.
    pub fn payload_max(self) -> usize {
        match self.generation() {
            Generation::Stream => usize::MAX,
            Generation::Aead => AEAD_PAYLOAD_BYTES_MAX,
            Generation::Aead2022 => AEAD_2022_PAYLOAD_BYTES_MAX,
        }
    }

    /// How its ciphers are made.
    pub(super) fn suite(self) -> Suite {
        self.facts().suite
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
        for unknown in ["", "aes-512-gcm", "sodium:", "mbedtls:aes-256-ocb", "salsa20-ctr"] {
            assert_eq!(unknown.parse::<Method>(), Err(UnknownMethod), "{unknown}");
        }
    }

    #[test]
    fn every_other_name_is_known_in_any_case() {
        let mut told = Vec::new();
        for method in Method::ALL {
            for alias in method.aliases() {
                assert_eq!(alias.parse(), Ok(method), "{alias}");
                assert_eq!(alias.to_uppercase().parse(), Ok(method), "{alias}");
                told.push((*alias, method.name()));
            }
        }
        assert_eq!(told, ALIASES);
    }

    const ALIASES: [(&str, &str); 25] = [
        ("aead_chacha20_poly1305", "chacha20-ietf-poly1305"),
        ("aead_aes_256_gcm", "aes-256-gcm"),
        ("sodium:aes-256-gcm", "aes-256-gcm"),
        ("mbedtls:aes-256-gcm", "aes-256-gcm"),
        ("aead_aes_128_gcm", "aes-128-gcm"),
        ("mbedtls:aes-128-gcm", "aes-128-gcm"),
        ("mbedtls:aes-192-gcm", "aes-192-gcm"),
        ("aead_xchacha20_poly1305", "xchacha20-ietf-poly1305"),
        ("xchacha20-poly1305", "xchacha20-ietf-poly1305"),
        ("aes-128-cfb128", "aes-128-cfb"),
        ("mbedtls:aes-128-cfb128", "aes-128-cfb"),
        ("mbedtls:aes-128-ctr", "aes-128-ctr"),
        ("aes-192-cfb128", "aes-192-cfb"),
        ("mbedtls:aes-192-cfb128", "aes-192-cfb"),
        ("mbedtls:aes-192-ctr", "aes-192-ctr"),
        ("aes-256-cfb128", "aes-256-cfb"),
        ("mbedtls:aes-256-cfb128", "aes-256-cfb"),
        ("mbedtls:aes-256-ctr", "aes-256-ctr"),
        ("camellia-128-cfb128", "camellia-128-cfb"),
        ("mbedtls:camellia-128-cfb128", "camellia-128-cfb"),
        ("camellia-192-cfb128", "camellia-192-cfb"),
        ("mbedtls:camellia-192-cfb128", "camellia-192-cfb"),
        ("camellia-256-cfb128", "camellia-256-cfb"),
        ("mbedtls:camellia-256-cfb128", "camellia-256-cfb"),
        ("plain", "none"),
    ];

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
