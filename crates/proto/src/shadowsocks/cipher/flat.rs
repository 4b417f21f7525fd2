//! Ciphers without records and without tags, as the first Shadowsocks had them: a byte goes in, a byte comes out.

use chacha20::{ChaCha20LegacyCore, hchacha};
use cipher::array::Array;
use cipher::consts::U16;
use cipher::{
    Block, BlockCipherEncrypt, BlockModeDecrypt as _, BlockModeEncrypt as _, BlockSizeUser, InnerIvInit as _,
    KeyInit, KeyIvInit, StreamCipher, StreamCipherCoreWrapper,
};
use md5::{Digest as _, Md5};
use zeroize::Zeroize;

use super::super::Salt;
use super::super::key::Key;
use super::super::method::Suite;
use super::salsa::Salsa20;
use super::table::Substitution;

/// One direction of a stream, under a cipher without records.
pub(crate) struct Flat(Box<dyn Transform>);

/// Which way a direction goes: most ciphers do not care, those that feed back what is on the wire do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From clear to sealed.
    Seal,
    /// From sealed to clear.
    Open,
}

/// Turns bytes in place, each piece going on where the one before ended.
pub(crate) trait Transform: Send + Sync {
    /// Turns all of `bytes`.
    fn apply(&mut self, bytes: &mut [u8]);
}

/// Makes one direction's cipher from the key and what comes first on the wire.
pub(crate) type MakeFlat = fn(&Key, &[u8], Way) -> Box<dyn Transform>;

impl Flat {
    /// The cipher of the direction that begins with `iv`.
    pub(crate) fn new(key: &Key, iv: &Salt, way: Way) -> Self {
        match key.method().suite() {
            Suite::Flat(make) => Self(make(key, iv.as_bytes(), way)),
            Suite::Aead(_) => unreachable!("a cipher without records is asked of methods that have one"),
        }
    }

    /// Turns the next bytes of the stream.
    pub(crate) fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply(bytes);
    }
}

/// No cipher at all.
pub(crate) fn none(_: &Key, _: &[u8], _: Way) -> Box<dyn Transform> {
    Box::new(Plain)
}

/// The substitution that the key holds.
pub(crate) fn table(key: &Key, _: &[u8], way: Way) -> Box<dyn Transform> {
    Box::new(Substitution::new(key.substitutions().expect("a key of the method has them"), way))
}

/// A cipher whose keystream is made from key and IV alone.
pub(crate) fn keystream<C: KeyIvInit + StreamCipher + Send + Sync + 'static>(
    key: &Key,
    iv: &[u8],
    _: Way,
) -> Box<dyn Transform> {
    Box::new(Stream(C::new_from_slices(key.secret(), iv).expect(LENGTHS)))
}

/// RC4, which has no IV: the same keystream every time.
pub(crate) fn rc4(key: &Key, _: &[u8], _: Way) -> Box<dyn Transform> {
    Box::new(Stream(rc4::Rc4::new_from_slice(key.secret()).expect(LENGTHS)))
}

/// RC4 under the MD5 hash of key and IV.
pub(crate) fn rc4_md5(key: &Key, iv: &[u8], _: Way) -> Box<dyn Transform> {
    let mut hash = Md5::new_with_prefix(key.secret()).chain_update(iv).finalize();
    let cipher = rc4::Rc4::new_from_slice(&hash).expect(LENGTHS);
    hash.as_mut_slice().zeroize();
    Box::new(Stream(cipher))
}

/// Salsa20, with a counter of 64 bits.
pub(crate) fn salsa20(key: &Key, iv: &[u8], _: Way) -> Box<dyn Transform> {
    let (key, nonce) = (key.secret().try_into().expect(LENGTHS), iv.try_into().expect(LENGTHS));
    Box::new(Salsa20::new(key, nonce))
}

/// ChaCha20 as it was first: a counter of 64 bits, and a nonce of as many.
pub(crate) fn chacha20(key: &Key, iv: &[u8], _: Way) -> Box<dyn Transform> {
    chacha20_from(key.secret(), 0, iv)
}

/// ChaCha20 of RFC 8439. Its counter has 32 bits and goes on into the nonce, as OpenSSL's does; the RFC leaves open what
/// comes after 256 GiB.
pub(crate) fn chacha20_ietf(key: &Key, iv: &[u8], _: Way) -> Box<dyn Transform> {
    let (first, nonce) = iv.split_first_chunk().expect(LENGTHS);
    chacha20_from(key.secret(), u64::from(u32::from_le_bytes(*first)) << 32, nonce)
}

/// `ChaCha20` under a key made from the first 16 bytes of the nonce (draft-irtf-cfrg-xchacha, 2.3), with a counter of 64 bits.
pub(crate) fn xchacha20(key: &Key, iv: &[u8], _: Way) -> Box<dyn Transform> {
    let (first, nonce) = iv.split_at(16);
    let [secret, first] = [key.secret(), first];
    let mut subkey =
        hchacha::<chacha20::R20>(secret.try_into().expect(LENGTHS), first.try_into().expect(LENGTHS));
    let stream = chacha20_from(&subkey, 0, nonce);
    subkey.as_mut_slice().zeroize();
    stream
}

fn chacha20_from(key: &[u8], counter: u64, nonce: &[u8]) -> Box<dyn Transform> {
    let mut core = ChaCha20LegacyCore::new_from_slices(key, nonce).expect(LENGTHS);
    core.set_block_pos(counter);
    Box::new(Stream(StreamCipherCoreWrapper::from_core(core)))
}

/// A block cipher in CFB mode, whole blocks being fed back.
pub(crate) fn cfb<C: KeyInit + BlockCipherEncrypt + Send + Sync + 'static>(
    key: &Key,
    iv: &[u8],
    way: Way,
) -> Box<dyn Transform> {
    let (cipher, register) = block_cipher::<C>(key, iv);
    let used = register.len();
    Box::new(Cfb { cipher, register, used, way })
}

/// A block cipher in CFB mode, single bytes being fed back.
pub(crate) fn cfb8<C: KeyInit + BlockCipherEncrypt + Send + Sync + 'static>(
    key: &Key,
    iv: &[u8],
    way: Way,
) -> Box<dyn Transform> {
    let (cipher, register) = block_cipher::<C>(key, iv);
    match way {
        Way::Seal => Box::new(cfb8::Encryptor::inner_iv_init(cipher, &register)),
        Way::Open => Box::new(cfb8::Decryptor::inner_iv_init(cipher, &register)),
    }
}

/// A block cipher in CFB mode, single bits being fed back.
pub(crate) fn cfb1<
    C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync + 'static,
>(
    key: &Key,
    iv: &[u8],
    way: Way,
) -> Box<dyn Transform> {
    let (cipher, register) = block_cipher::<C>(key, iv);
    Box::new(Cfb1 { cipher, register: u128::from_be_bytes(register.into()), way })
}

fn block_cipher<C: KeyInit + BlockCipherEncrypt>(key: &Key, iv: &[u8]) -> (C, Block<C>) {
    (C::new_from_slice(key.secret()).expect(LENGTHS), Block::<C>::try_from(iv).expect(LENGTHS))
}

const LENGTHS: &str = "key and IV have the lengths of the method's row";

struct Plain;

impl Transform for Plain {
    fn apply(&mut self, _: &mut [u8]) {}
}

struct Stream<C>(C);

impl<C: StreamCipher + Send + Sync> Transform for Stream<C> {
    fn apply(&mut self, bytes: &mut [u8]) {
        // Counters have 64 bits or more. Where a peer's IV lets one begin close to its end it turns over, which takes that
        // peer's own session no further and must not end the process.
        self.0.unchecked_apply_keystream(bytes);
    }
}

/// The library's mode takes whole blocks; this keeps what was begun from one piece to the next.
struct Cfb<C: BlockCipherEncrypt> {
    cipher: C,
    /// The last block that went over the wire. Behind `used` bytes of the next one, the pad for the rest of it.
    register: Block<C>,
    used: usize,
    way: Way,
}

impl<C: BlockCipherEncrypt + Send + Sync> Cfb<C> {
    /// Turns bytes that do not fill the block that was begun, or just do.
    fn within_block(&mut self, bytes: &mut [u8]) {
        for (byte, pad) in bytes.iter_mut().zip(&mut self.register[self.used..]) {
            let turned = *byte ^ *pad;
            *pad = match self.way {
                Way::Seal => turned,
                Way::Open => *byte,
            };
            *byte = turned;
        }
        self.used += bytes.len();
    }
}

impl<C: BlockCipherEncrypt + Send + Sync> Transform for Cfb<C> {
    fn apply(&mut self, bytes: &mut [u8]) {
        let begun = bytes.len().min(self.register.len() - self.used);
        let (begun, rest) = bytes.split_at_mut(begun);
        self.within_block(begun);
        let (blocks, tail) = Array::slice_as_chunks_mut(rest);
        if let Some(last) = blocks.last().cloned() {
            match self.way {
                Way::Seal => {
                    cfb_mode::Encryptor::inner_iv_init(&self.cipher, &self.register).encrypt_blocks(blocks);
                    self.register.clone_from(&blocks[blocks.len() - 1]);
                }
                Way::Open => {
                    cfb_mode::Decryptor::inner_iv_init(&self.cipher, &self.register).decrypt_blocks(blocks);
                    self.register = last;
                }
            }
        }
        if !tail.is_empty() {
            self.cipher.encrypt_block(&mut self.register);
            self.used = 0;
            self.within_block(tail);
        }
    }
}

impl<C: BlockCipherEncrypt + Send + Sync> Transform for cfb8::Encryptor<C> {
    fn apply(&mut self, bytes: &mut [u8]) {
        self.encrypt_blocks(Array::cast_slice_from_core_mut(bytes.as_chunks_mut().0));
    }
}

impl<C: BlockCipherEncrypt + Send + Sync> Transform for cfb8::Decryptor<C> {
    fn apply(&mut self, bytes: &mut [u8]) {
        self.decrypt_blocks(Array::cast_slice_from_core_mut(bytes.as_chunks_mut().0));
    }
}

struct Cfb1<C> {
    cipher: C,
    /// The last bits that went over the wire, as many as a block has.
    register: u128,
    way: Way,
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Cfb1<C> {
    /// Takes a bit that is on the wire; gives what is to be encrypted for it.
    fn feed(&mut self, bit: u8) -> Block<C> {
        let before = self.register;
        self.register = before << 1 | u128::from(bit);
        before.to_be_bytes().into()
    }

    /// One block after the other, since each wants the bit that the one before has made.
    fn seal(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            for at in 0..8 {
                let mut pad = Block::<C>::from(self.register.to_be_bytes());
                self.cipher.encrypt_block(&mut pad);
                *byte ^= (pad[0] & 0x80) >> at;
                self.feed(bit(*byte, at));
            }
        }
    }

    /// Many blocks at a time, since all bits that are fed back have come.
    fn open(&mut self, bytes: &mut [u8]) {
        let mut pads = [Block::<C>::default(); 8 * CFB1_PIECE_BYTES];
        for piece in bytes.chunks_mut(CFB1_PIECE_BYTES) {
            let pads = &mut pads[..8 * piece.len()];
            let bits = piece.iter().flat_map(|byte| (0..8).map(|at| bit(*byte, at)));
            pads.iter_mut().zip(bits).for_each(|(pad, bit)| *pad = self.feed(bit));
            self.cipher.encrypt_blocks(pads);
            for (byte, pads) in piece.iter_mut().zip(pads.chunks_exact(8)) {
                *byte ^= pads.iter().fold(0, |bits, pad| bits << 1 | pad[0] >> 7);
            }
        }
    }
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync> Transform for Cfb1<C> {
    fn apply(&mut self, bytes: &mut [u8]) {
        match self.way {
            Way::Seal => self.seal(bytes),
            Way::Open => self.open(bytes),
        }
    }
}

/// The bit of `byte` that comes at this place on the wire, the highest first.
fn bit(byte: u8, at: usize) -> u8 {
    byte >> (7 - at) & 1
}

/// So many that every block the processor can have under way at once is.
const CFB1_PIECE_BYTES: usize = 8;
