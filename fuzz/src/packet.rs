//! Packets sealed by a second hand, and what is to be read in them.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, UnboundCipherKey};
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::Method;
use umbra_proto::wire::Reader;

use crate::{NOW, SECRET};

/// Of which end a packet is.
#[derive(Clone, Copy, Debug)]
pub enum From {
    Client,
    /// With the session of the client that it is for.
    Server([u8; 8]),
}

/// A packet of SIP022 with exactly this body: what a holder of the key could send. It shares no code with what is tested.
pub fn forge(method: Method, session: [u8; 8], packet: u64, body: &[u8]) -> Vec<u8> {
    let (aead, block, key_len) = match method {
        Method::Blake3Aes128Gcm => (&AES_128_GCM, &AES_128, 16),
        Method::Blake3Aes256Gcm => (&AES_256_GCM, &AES_256, 32),
        other => unreachable!("{other} has no separate header"),
    };
    let secret = &SECRET[..key_len];
    let mut header = [session, packet.to_be_bytes()].concat();
    let subkey = blake3::derive_key("shadowsocks 2022 session subkey", &[secret, &session].concat());
    let cipher = UnboundKey::new(aead, &subkey[..key_len]).expect("a key of the algorithm's length");
    let nonce = Nonce::try_assume_unique_for_key(&header[4..]).expect("12 bytes");
    let mut sealed = body.to_vec();
    LessSafeKey::new(cipher)
        .seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed)
        .expect("a short text");
    let hide =
        UnboundCipherKey::new(block, secret).and_then(EncryptingKey::ecb).expect("a key of the length");
    hide.encrypt(&mut header).expect("a whole block");
    header.extend(sealed);
    header
}

/// What an honest reader finds in a body.
pub fn read(from: From, body: &[u8]) -> Option<(Address, Vec<u8>)> {
    let (kind, body) = body.split_first()?;
    let (stamp, body) = body.split_first_chunk::<8>()?;
    let body = match from {
        From::Client if *kind == 0 => body,
        From::Server(client) if *kind == 1 => body.strip_prefix(&client)?,
        From::Client | From::Server(_) => return None,
    };
    let (padding_len, body) = body.split_first_chunk::<2>()?;
    let rest = body.get(usize::from(u16::from_be_bytes(*padding_len))..)?;
    let skew = i128::from(u64::from_be_bytes(*stamp)) - i128::from(NOW.0);
    let mut reader = Reader::new(rest);
    let address = Address::decode(&mut reader).ok()?;
    (-30..=30).contains(&skew).then(|| (address, reader.rest().to_vec()))
}

/// A body that is nearly one.
#[derive(arbitrary::Arbitrary, Debug)]
pub struct Body {
    kind: u8,
    skew: i8,
    client: Option<[u8; 8]>,
    padding_len: u16,
    rest: Vec<u8>,
    cut: Option<u8>,
}

impl Body {
    /// The bytes of it.
    pub fn bytes(&self, from: From) -> Vec<u8> {
        let stamp = NOW.0.saturating_add_signed(self.skew.into()).to_be_bytes();
        let named = match from {
            From::Client => Vec::new(),
            From::Server(client) => self.client.unwrap_or(client).to_vec(),
        };
        let kind = match from {
            From::Client => self.kind >> 6,
            From::Server(_) => self.kind >> 6 ^ 1,
        };
        // Small paddings come up often, so that they lie within the body.
        let padding_len = if self.padding_len & 3 == 0 { self.padding_len } else { self.padding_len >> 10 };
        let mut bytes = [&[kind][..], &stamp, &named, &padding_len.to_be_bytes(), &self.rest].concat();
        if let Some(cut) = self.cut {
            bytes.truncate(cut.into());
        }
        bytes
    }
}
