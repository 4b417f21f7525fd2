//! The start of a request from somebody who holds the key and says anything at all, then a bit flipped on the way.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_fuzz::{NOW, REQUEST_SALT, forge, key, method, pieces, serve};
use umbra_proto::shadowsocks::stream::HeadReads;

#[derive(Arbitrary, Debug)]
struct Session {
    method: u8,
    texts: Vec<Text>,
    tail: Vec<u8>,
    flip: (u16, u8),
    cuts: Vec<u16>,
}

#[derive(Arbitrary, Debug)]
enum Text {
    /// Anything.
    Bytes(Vec<u8>),
    /// A record in order: its length, then itself.
    Record(Vec<u8>),
    /// A length with nothing behind it.
    Length(u16),
    /// A SIP022 header in order but for its type and time, then the variable header it announces.
    Header { kind: bool, skew: i8, address: Vec<u8>, padding_len: u16, rest: Vec<u8> },
    /// The same for a target that is one.
    Good { name: [u8; 3], padding_len: u8, payload: Vec<u8> },
}

fuzz_target!(|session: Session| {
    let method = method(session.method);
    let key = key(method);
    let mut texts = Vec::new();
    for text in session.texts {
        text.put(&mut texts);
    }
    let said: usize = texts.iter().map(Vec::len).sum();
    let mut wire = forge(method, REQUEST_SALT, &texts);
    wire.extend(session.tail);

    let whole = serve(&key, HeadReads::Many, &[&wire]).settled();
    assert!(whole.said().len() <= said);
    assert_eq!(serve(&key, HeadReads::Many, &pieces(&wire, &session.cuts)).settled(), whole);
    assert_eq!(serve(&key, HeadReads::Many, &wire.chunks(1).collect::<Vec<_>>()).settled(), whole);
    assert_eq!(serve(&key, HeadReads::One, &[&wire]).target, whole.target);

    // A flipped bit takes away everything from its record on and adds nothing.
    let (at, bit) = session.flip;
    let at = usize::from(at) % wire.len();
    let before = serve(&key, HeadReads::Many, &[&wire[..at]]);
    wire[at] ^= 1 << (bit % 8);
    let flipped = serve(&key, HeadReads::Many, &[&wire]);
    assert_eq!((flipped.said(), flipped.target), (before.said(), before.target));
});

impl Text {
    fn put(self, texts: &mut Vec<Vec<u8>>) {
        match self {
            Self::Bytes(bytes) => texts.push(bytes),
            Self::Record(bytes) => {
                texts.push(wire_len(bytes.len()));
                texts.push(bytes);
            }
            Self::Length(len) => texts.push(len.to_be_bytes().to_vec()),
            Self::Header { kind, skew, address, padding_len, rest } => {
                let variable = [&address[..], &padding_len.to_be_bytes(), &rest].concat();
                let stamp = NOW.0.saturating_add_signed(i64::from(skew));
                texts.push([&[u8::from(kind)], &stamp.to_be_bytes()[..], &wire_len(variable.len())].concat());
                texts.push(variable);
            }
            Self::Good { name, padding_len, payload } => {
                let variable = [
                    &[3, 3],
                    &name[..],
                    &[0, 80, 0, padding_len],
                    &vec![0; usize::from(padding_len)],
                    &payload,
                ]
                .concat();
                texts.push([&[0], &NOW.0.to_be_bytes()[..], &wire_len(variable.len())].concat());
                texts.push(variable);
            }
        }
    }
}

fn wire_len(len: usize) -> Vec<u8> {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes().to_vec()
}
