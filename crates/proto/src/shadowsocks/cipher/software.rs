//! The AEADs that the main library does not have, from the RustCrypto project's block ciphers, ChaCha20 and Poly1305.

use aead::inout::InOutBuf;
use aead::{AeadInOut, KeyInit};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use chacha20::ChaCha20Legacy;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use chacha20::hchacha;
use ocb3::consts::{U12, U16};
use poly1305::Poly1305;
use poly1305::universal_hash::UniversalHash as _;
use zeroize::Zeroizing;

use super::{Aead, BadTag, TAG_BYTES};

/// An AEAD under one key, whose nonce is the number of its uses, little-endian.
pub(crate) trait InPlace: Send + Sync {
    /// Seals `text` in place and gives its tag.
    fn seal(&self, uses: u64, text: &mut [u8]) -> [u8; TAG_BYTES];

    /// Opens `sealed`, text and tag, in place. What lies there after a failure is not to be read.
    fn open(&self, uses: u64, sealed: &mut [u8]) -> Result<(), BadTag>;
}

/// OCB keeps 16 bytes for each doubling of the length that it can seal: 2^17 bytes are more than any record or datagram has.
pub(crate) type Ocb<C> = ocb3::Ocb3<C, U12, U16, 13>;

/// CCM with the nonce and tag that the other methods have.
pub(crate) type Ccm<C> = ccm::Ccm<C, U16, U12>;

/// A cipher of one of the libraries.
pub(crate) fn software<C: AeadInOut + KeyInit + Send + Sync + 'static>(subkey: &[u8]) -> Aead {
    Aead::Software(Box::new(C::new_from_slice(subkey).expect("the subkey has the method's key length")))
}

/// ChaCha20-Poly1305 with a nonce of 24 bytes.
pub(crate) fn xchacha20_poly1305(subkey: &[u8]) -> Aead {
    Aead::Software(Box::new(XChacha20Poly1305 { key: key_of(subkey) }))
}

/// ChaCha20-Poly1305 as libsodium first had it.
pub(crate) fn chacha20_poly1305(subkey: &[u8]) -> Aead {
    Aead::Software(Box::new(Chacha20Poly1305 { key: key_of(subkey) }))
}

impl<C: AeadInOut + Send + Sync> InPlace for C {
    fn seal(&self, uses: u64, text: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self
            .encrypt_inout_detached(&nonce::<C>(uses), b"", InOutBuf::from(text))
            .expect("a record is far below the AEAD's length limit");
        std::array::from_fn(|at| tag[at])
    }

    fn open(&self, uses: u64, sealed: &mut [u8]) -> Result<(), BadTag> {
        let (text, tag) = split(sealed)?;
        let tag = aead::Tag::<C>::try_from(&tag[..]).map_err(|_| BadTag)?;
        self.decrypt_inout_detached(&nonce::<C>(uses), b"", InOutBuf::from(text), &tag).map_err(|_| BadTag)
    }
}

fn nonce<C: AeadInOut>(uses: u64) -> aead::Nonce<C> {
    let mut nonce = aead::Nonce::<C>::default();
    nonce[..8].copy_from_slice(&uses.to_le_bytes());
    nonce
}

/// The first 16 bytes of the nonce make a key of their own, under which the rest is the nonce of RFC 8439
/// (draft-irtf-cfrg-xchacha, 2.3).
struct XChacha20Poly1305 {
    key: Zeroizing<[u8; 32]>,
}

impl XChacha20Poly1305 {
    /// The count lies in the part of the nonce that makes the key, so every text has a key of its own, used with nonce 0.
    fn key_for(&self, uses: u64) -> LessSafeKey {
        let mut input = [0; 16];
        input[..8].copy_from_slice(&uses.to_le_bytes());
        let key = Zeroizing::new(hchacha::<chacha20::R20>(&(*self.key).into(), &input.into()).0);
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &*key).expect("HChaCha20 gives 32 bytes"))
    }
}

impl InPlace for XChacha20Poly1305 {
    fn seal(&self, uses: u64, text: &mut [u8]) -> [u8; TAG_BYTES] {
        let mut tag = [0; TAG_BYTES];
        self.key_for(uses)
            .seal_in_place_scatter(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), text, &[], &mut tag)
            .expect("a record is far below the AEAD's length limit and the tag room is 16 bytes");
        tag
    }

    fn open(&self, uses: u64, sealed: &mut [u8]) -> Result<(), BadTag> {
        self.key_for(uses)
            .open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), sealed)
            .map(drop)
            .map_err(|_| BadTag)
    }
}

/// A nonce of 8 bytes, a counter of 8, and a MAC over the text and the lengths without padding between them.
struct Chacha20Poly1305 {
    key: Zeroizing<[u8; 32]>,
}

impl Chacha20Poly1305 {
    /// The keystream from its second block on, the first being the key of the MAC.
    fn start(&self, uses: u64) -> (ChaCha20Legacy, Poly1305) {
        let mut stream = ChaCha20Legacy::new(&(*self.key).into(), &uses.to_le_bytes().into());
        let mut block = Zeroizing::new([0; 64]);
        stream.apply_keystream(&mut *block);
        let mac_key = poly1305::Key::try_from(&block[..32]).expect("32 bytes are 32 bytes");
        (stream, Poly1305::new(&mac_key))
    }
}

impl InPlace for Chacha20Poly1305 {
    fn seal(&self, uses: u64, text: &mut [u8]) -> [u8; TAG_BYTES] {
        let (mut stream, mac) = self.start(uses);
        stream.apply_keystream(text);
        tag_of(mac, text)
    }

    fn open(&self, uses: u64, sealed: &mut [u8]) -> Result<(), BadTag> {
        let (text, tag) = split(sealed)?;
        let (mut stream, mac) = self.start(uses);
        verify_slices_are_equal(&tag_of(mac, text), tag).map_err(|_| BadTag)?;
        stream.apply_keystream(text);
        Ok(())
    }
}

/// The tag over `text` alone, there being no associated data.
///
/// ```text
///  +--------------+------+--------------+
///  | 8 zero bytes | text | its length 8 |    the zeros are the length of the associated data
///  +--------------+------+--------------+
/// ```
fn tag_of(mut mac: Poly1305, text: &[u8]) -> [u8; TAG_BYTES] {
    let len = (text.len() as u64).to_le_bytes();
    let Some((first, rest)) = text.split_first_chunk::<8>() else {
        return mac.compute_unpadded(&[&[0; 8], text, &len].concat()).into();
    };
    let mut block = poly1305::Block::default();
    block[8..].copy_from_slice(first);
    mac.update(&[block]);
    let (blocks, tail) = poly1305::Block::slice_as_chunks(rest);
    mac.update(blocks);
    let mut last = [0; 24];
    last[..tail.len()].copy_from_slice(tail);
    last[tail.len()..tail.len() + 8].copy_from_slice(&len);
    mac.compute_unpadded(&last[..tail.len() + 8]).into()
}

fn key_of(subkey: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(subkey);
    key
}

fn split(sealed: &mut [u8]) -> Result<(&mut [u8], &[u8; TAG_BYTES]), BadTag> {
    let (text, tag) = sealed.split_last_chunk_mut().ok_or(BadTag)?;
    Ok((text, tag))
}
