//! A method and its secret: from a password (SIP004 and before) or from base64 (SIP006, SIP022).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use zeroize::{Zeroize as _, Zeroizing};

use super::cipher::table::Substitutions;
use super::{Generation, Method};
use crate::url::decode_any_base64;

/// A method with the secret that both ends hold. Wiped when dropped; prints as its method only.
#[derive(Clone)]
pub struct Key {
    method: Method,
    bytes: [u8; KEY_BYTES_MAX],
    /// For the method `table` alone.
    substitutions: Option<Arc<Substitutions>>,
}

/// Why a password is no key for a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// There is no password.
    Empty,
    /// SIP022 keys are base64 of the standard alphabet, padded; those of SIP006 base64 of either alphabet.
    NotBase64,
    /// Keys in base64 have exactly the method's length.
    WrongLength {
        /// Bytes that the method wants.
        wanted: usize,
        /// Bytes that were given.
        given: usize,
    },
}

impl Key {
    /// Makes the key of `method` from what the user wrote: a password, or for SIP022 base64.
    pub fn from_password(method: Method, password: &str) -> Result<Self, KeyError> {
        if password.is_empty() && method.key_len() > 0 {
            return Err(KeyError::Empty);
        }
        match method.generation() {
            Generation::Stream | Generation::Aead => Ok(Self::derive(method, password.as_bytes())),
            Generation::Aead2022 => Self::decode(method, password),
        }
    }

    /// Makes the key of `method` from its bytes in base64, of either alphabet and with or without padding: the `key` that SIP006 has in
    /// place of a password, from which nothing is derived.
    pub fn from_base64(method: Method, text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        let secret = decode_any_base64(text).ok_or(KeyError::NotBase64)?;
        Self::from_bytes(method, &secret)
    }

    /// The key of `method` with exactly these bytes.
    pub fn from_bytes(method: Method, secret: &[u8]) -> Result<Self, KeyError> {
        let (wanted, given) = (method.key_len(), secret.len());
        if given != wanted {
            return Err(KeyError::WrongLength { wanted, given });
        }
        let mut bytes = [0; KEY_BYTES_MAX];
        bytes[..wanted].copy_from_slice(secret);
        Ok(Self::new(method, bytes))
    }

    /// The method that the key is for.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Whether every byte is the same: a placeholder that nobody drew at random.
    pub fn is_placeholder(&self) -> bool {
        self.secret().iter().all(|byte| *byte == self.bytes[0])
    }

    /// The secret, as many bytes as the method wants.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.bytes[..self.method.key_len()]
    }

    /// What the method `table` makes of the password.
    pub(super) fn substitutions(&self) -> Option<&Arc<Substitutions>> {
        self.substitutions.as_ref()
    }

    /// `EVP_BytesToKey` of OpenSSL with MD5, no salt and one round (SIP004).
    fn derive(method: Method, password: &[u8]) -> Self {
        let mut bytes = [0; KEY_BYTES_MAX];
        let mut digest = Zeroizing::new([0_u8; 16]);
        for (round, block) in bytes[..method.key_len()].chunks_mut(16).enumerate() {
            let mut hasher = Md5::new();
            if round > 0 {
                hasher.update(*digest);
            }
            hasher.update(password);
            hasher.finalize_into((&mut *digest).into());
            block.copy_from_slice(&digest[..block.len()]);
        }
        Self::new(method, bytes)
    }

    fn new(method: Method, bytes: [u8; KEY_BYTES_MAX]) -> Self {
        let substitutions = (method == Method::Table).then(|| Arc::new(Substitutions::new(&bytes)));
        Self { method, bytes, substitutions }
    }

    fn decode(method: Method, text: &str) -> Result<Self, KeyError> {
        let secret = Zeroizing::new(STANDARD.decode(text).map_err(|_| KeyError::NotBase64)?);
        Self::from_bytes(method, &secret)
    }
}

/// Writes `secret` as a SIP022 password: base64 of the standard alphabet, padded.
pub fn encode_password(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(secret))
}

impl Drop for Key {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key<{}>(..)", self.method)
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the password is empty"),
            Self::NotBase64 => f.write_str("not base64 (standard alphabet, with padding)"),
            Self::WrongLength { wanted, given } => write!(f, "wants {wanted} bytes in base64, got {given}"),
        }
    }
}

impl std::error::Error for KeyError {}

const KEY_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn passwords_give_the_keys_of_openssl() {
        let key = |method, password| hex(Key::from_password(method, password).unwrap().secret());
        assert_eq!(key(Method::Aes128Gcm, "foobar"), "3858f62230ac3c915f300c664312c63f");
        assert_eq!(
            key(Method::Aes256Gcm, "foobar"),
            "3858f62230ac3c915f300c664312c63f568378529614d22ddb49237d2f60bfdf"
        );
        assert_eq!(
            key(Method::Chacha20IetfPoly1305, "barfoo!"),
            "b3adc47839e047eb228870526dc8fc30b347287ffca3045dcea06b3fdf090acb"
        );
        assert_eq!(
            key(Method::Aes256Gcm, "test"),
            "098f6bcd4621d373cade4e832627b4f60a9172716ae6428409885b8b829ccb05"
        );
    }

    #[test]
    fn a_password_is_anything_but_nothing_save_where_nothing_is_encrypted() {
        for method in Method::ALL {
            let made = Key::from_password(method, "").map(|key| key.secret().len());
            let expected = if method == Method::Plain { Ok(0) } else { Err(KeyError::Empty) };
            assert_eq!(made, expected, "{method}");
        }
        assert!(Key::from_password(Method::Rc4, " ").is_ok());
    }

    #[test]
    fn a_2022_key_is_base64_of_the_exact_length_and_nothing_else() {
        let method = Method::Blake3Aes128Gcm;
        for given in [15, 17, 31, 33] {
            let text = encode_password(&vec![7; given]);
            assert_eq!(
                Key::from_password(method, &text).unwrap_err(),
                KeyError::WrongLength { wanted: 16, given }
            );
        }
        assert_eq!(Key::from_password(method, "correct horse").unwrap_err(), KeyError::NotBase64);
        assert_eq!(Key::from_password(method, "").unwrap_err(), KeyError::Empty);
        // URL-safe alphabet, and missing padding.
        assert_eq!(Key::from_password(method, "____________________-A==").unwrap_err(), KeyError::NotBase64);
        assert_eq!(Key::from_password(method, "AAAAAAAAAAAAAAAAAAAAAA").unwrap_err(), KeyError::NotBase64);
        assert_eq!(Key::from_password(method, &encode_password(&[7; 16])).unwrap().secret(), [7; 16]);
    }

    #[test]
    fn a_key_of_sip006_is_its_bytes_in_either_alphabet_with_or_without_padding() {
        let secret: Vec<u8> = (0..32).map(|byte| 0xff - byte).collect();
        let padded = encode_password(&secret);
        let url_safe = padded.replace('+', "-").replace('/', "_");
        assert_ne!(*padded, url_safe);
        for method in [Method::Aes256Gcm, Method::Chacha20IetfPoly1305, Method::Aes256Cfb] {
            for text in [&padded, padded.trim_end_matches('='), &url_safe, url_safe.trim_end_matches('=')] {
                assert_eq!(Key::from_base64(method, text).unwrap().secret(), secret, "{method} {text}");
            }
        }
        let method = Method::Aes128Gcm;
        for given in [15, 17, 32] {
            let error = Key::from_base64(method, &encode_password(&vec![7; given])).unwrap_err();
            assert_eq!(error, KeyError::WrongLength { wanted: 16, given });
        }
        for text in ["correct horse", "=", "AAAA AAAA", "A"] {
            assert_eq!(Key::from_base64(method, text).unwrap_err(), KeyError::NotBase64, "{text}");
        }
        assert_eq!(Key::from_base64(method, "").unwrap_err(), KeyError::Empty);
    }

    #[test]
    fn a_key_does_not_print_itself() {
        let key = Key::from_password(Method::Aes256Gcm, "secret words").unwrap();
        assert_eq!(format!("{key:?}"), "Key<aes-256-gcm>(..)");
    }
}
