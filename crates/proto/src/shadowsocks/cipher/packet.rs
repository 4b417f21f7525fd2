//! The AEADs of SIP022's packets: their nonce is on the wire, and no two packets under one key have the same.

use aead::inout::InOutBuf;
use aead::{AeadInOut, KeyInit as _};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20::hchacha;
use chacha20poly1305::{XChaCha8Poly1305, XChaCha12Poly1305};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Aead, BadTag, TAG_BYTES, derive_2022};
use crate::shadowsocks::Method;
use crate::shadowsocks::key::Key;
use crate::shadowsocks::method::Suite;

/// Bytes of the nonce of a [`SessionCipher`].
pub(crate) const NONCE_BYTES: usize = 12;

/// Bytes of the nonce of an [`ExtendedCipher`].
pub(crate) const EXTENDED_NONCE_BYTES: usize = 24;

/// The AEAD of one direction of a session, under the methods with AES (SIP022, 3.2.1).
pub(crate) struct SessionCipher(LessSafeKey);

/// The AEAD of all packets under one key, whatever their session, under the methods with `ChaCha` (SIP022, 4).
pub(crate) enum ExtendedCipher {
    /// 20 rounds: the main library's, under a key made from the first 16 bytes of the nonce (draft-irtf-cfrg-xchacha, 2.3).
    Main(Zeroizing<[u8; 32]>),
    /// 12 rounds.
    Twelve(Box<XChaCha12Poly1305>),
    /// 8 rounds.
    Eight(Box<XChaCha8Poly1305>),
}

impl SessionCipher {
    /// The cipher of what the session's owner seals.
    pub(crate) fn new(key: &Key, session: &[u8; 8]) -> Self {
        let mut subkey = Zeroizing::new([0; 32]);
        let subkey = &mut subkey[..key.method().key_len()];
        derive_2022(key, session, subkey);
        match key.method().suite() {
            Suite::Aead(make) => match make(subkey) {
                Aead::Main(key) => Self(key),
                Aead::Software(_) => unreachable!("the main library has AES-GCM"),
            },
            Suite::Flat(_) => unreachable!("sessions are asked of methods that have them"),
        }
    }

    /// Seals `text` in place and gives its tag.
    pub(crate) fn seal(&self, nonce: [u8; NONCE_BYTES], text: &mut [u8]) -> [u8; TAG_BYTES] {
        seal(&self.0, nonce, text)
    }

    /// Opens `sealed`, text and tag, in place, and gives the text.
    pub(crate) fn open<'p>(
        &self,
        nonce: [u8; NONCE_BYTES],
        sealed: &'p mut [u8],
    ) -> Result<&'p mut [u8], BadTag> {
        open(&self.0, nonce, sealed)
    }
}

impl ExtendedCipher {
    /// The cipher of `key`.
    pub(crate) fn new(key: &Key) -> Self {
        let secret = key.secret();
        if key.method() == Method::Blake3Chacha8Poly1305 {
            Self::Eight(Box::new(XChaCha8Poly1305::new_from_slice(secret).expect(KEY_LEN)))
        } else if key.method() == Method::Blake3Chacha12Poly1305 {
            Self::Twelve(Box::new(XChaCha12Poly1305::new_from_slice(secret).expect(KEY_LEN)))
        } else {
            let mut copy = Zeroizing::new([0; 32]);
            copy.copy_from_slice(secret);
            Self::Main(copy)
        }
    }

    /// Seals `text` in place and gives its tag.
    pub(crate) fn seal(&self, nonce: &[u8; EXTENDED_NONCE_BYTES], text: &mut [u8]) -> [u8; TAG_BYTES] {
        match self {
            Self::Main(key) => {
                let (key, nonce) = shortened(key, nonce);
                seal(&key, nonce, text)
            }
            Self::Twelve(cipher) => software_seal(&**cipher, nonce, text),
            Self::Eight(cipher) => software_seal(&**cipher, nonce, text),
        }
    }

    /// Opens `sealed`, text and tag, in place, and gives the text.
    pub(crate) fn open<'p>(
        &self,
        nonce: &[u8; EXTENDED_NONCE_BYTES],
        sealed: &'p mut [u8],
    ) -> Result<&'p mut [u8], BadTag> {
        match self {
            Self::Main(key) => {
                let (key, nonce) = shortened(key, nonce);
                open(&key, nonce, sealed)
            }
            Self::Twelve(cipher) => software_open(&**cipher, nonce, sealed),
            Self::Eight(cipher) => software_open(&**cipher, nonce, sealed),
        }
    }
}

/// The key and nonce of RFC 8439 that stand for a key and a nonce of 24 bytes.
fn shortened(key: &[u8; 32], nonce: &[u8; EXTENDED_NONCE_BYTES]) -> (LessSafeKey, [u8; NONCE_BYTES]) {
    let (mut first, mut rest) = ([0; 16], [0; NONCE_BYTES]);
    first.copy_from_slice(&nonce[..16]);
    rest[4..].copy_from_slice(&nonce[16..]);
    let subkey = Zeroizing::new(hchacha::<chacha20::R20>(&(*key).into(), &first.into()).0);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &*subkey).expect("HChaCha20 gives 32 bytes");
    (LessSafeKey::new(key), rest)
}

fn seal(key: &LessSafeKey, nonce: [u8; NONCE_BYTES], text: &mut [u8]) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    key.seal_in_place_scatter(Nonce::assume_unique_for_key(nonce), Aad::empty(), text, &[], &mut tag)
        .expect("a packet is far below the AEAD's length limit and the tag room is 16 bytes");
    tag
}

fn open<'p>(
    key: &LessSafeKey,
    nonce: [u8; NONCE_BYTES],
    sealed: &'p mut [u8],
) -> Result<&'p mut [u8], BadTag> {
    key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), sealed).map_err(|_| BadTag)
}

fn software_seal<C: AeadInOut>(
    cipher: &C,
    nonce: &[u8; EXTENDED_NONCE_BYTES],
    text: &mut [u8],
) -> [u8; TAG_BYTES] {
    let nonce = aead::Nonce::<C>::try_from(&nonce[..]).expect(NONCE_LEN);
    let tag = cipher
        .encrypt_inout_detached(&nonce, b"", InOutBuf::from(text))
        .expect("a packet is far below the AEAD's length limit");
    std::array::from_fn(|at| tag[at])
}

fn software_open<'p, C: AeadInOut>(
    cipher: &C,
    nonce: &[u8; EXTENDED_NONCE_BYTES],
    sealed: &'p mut [u8],
) -> Result<&'p mut [u8], BadTag> {
    let nonce = aead::Nonce::<C>::try_from(&nonce[..]).expect(NONCE_LEN);
    let (text, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or(BadTag)?;
    let tag = aead::Tag::<C>::try_from(&tag[..]).map_err(|_| BadTag)?;
    match cipher.decrypt_inout_detached(&nonce, b"", InOutBuf::from(&mut *text), &tag) {
        Ok(()) => Ok(text),
        Err(_) => {
            // Some libraries open before they judge.
            text.zeroize();
            Err(BadTag)
        }
    }
}

const KEY_LEN: &str = "the key has the method's length";
const NONCE_LEN: &str = "an extended nonce has 24 bytes";
