//! How a server understands the start of a request, in either generation.
//!
//! Two steps with a gate between them: [`ExpectHead`] ends when the first sealed bytes have proved that the peer holds
//! the key; [`Authentic::admit`] then checks time and salt and only now changes the salt store (SIP022, 3.1.4: open,
//! check type, check timestamp, check salt, add); [`ExpectTarget`] reads where to go.

use std::fmt;
use std::ops::Range;

use super::cipher::Cipher;
use super::key::Key;
use super::replay::{SaltRefusal, SaltStore};
use super::stream::{
    HeadReads, OpenError, Opened, Opener, RECORD_HEAD_BYTES, REQUEST_FIXED_BYTES, TAG_BYTES, TYPE_REQUEST,
    check_time,
};
use super::{Generation, Method, Salt, UnixTime};
use crate::address::{Address, AddressError};
use crate::limits::ADDRESS_BYTES_MAX;
use crate::wire::{Input, Reader, Stop};
use crate::{Handshake, Step};

/// A server waiting for salt and first sealed bytes.
#[derive(Debug)]
pub struct ExpectHead<'k> {
    key: &'k Key,
    reads: HeadReads,
}

/// The peer holds the key; time and salt are still to be judged.
#[must_use = "a head that is not admitted opens nothing"]
pub struct Authentic {
    method: Method,
    salt: Salt,
    cipher: Cipher,
    proof: Proof,
}

/// What the first sealed bytes said.
enum Proof {
    /// SIP004: the length of the first record's payload.
    Length(usize),
    /// SIP022: the timestamp and the length of the variable header.
    Fixed { stamp: [u8; 8], variable_len: usize },
}

/// A server waiting for the target, everything before it admitted.
#[derive(Debug)]
pub struct ExpectTarget {
    salt: Salt,
    state: TargetState,
}

enum TargetState {
    /// SIP004: the address may be spread over records; `address` holds what the earlier ones carried of it.
    Records { opener: Opener, address: Vec<u8> },
    /// SIP022: one sealed variable header.
    Variable { cipher: Cipher, len: usize, payload_max: usize },
}

/// An understood request.
#[derive(Debug)]
pub struct Request {
    /// Where the client wants to go.
    pub target: Address,
    /// Payload that came with the target, in the clear, at this place in the input's buffer; may be empty.
    pub early: Range<usize>,
    /// Opens what follows.
    pub opener: Opener,
    /// The request's salt, which a response has to name (SIP022).
    pub salt: Salt,
}

/// Why the start of a request is refused. The peer is never told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The record layer refuses it.
    Open(OpenError),
    /// The salt has been seen, or cannot be remembered.
    Salt(SaltRefusal),
    /// The target is not an address.
    Address(AddressError),
    /// The variable header ends inside its address or padding.
    Truncated,
    /// Neither payload nor padding (SIP022, 3.1.3: MUST be rejected).
    NoPayloadNoPadding,
}

impl<'k> ExpectHead<'k> {
    /// A server at the start of a stream.
    pub fn new(key: &'k Key, reads: HeadReads) -> Self {
        Self { key, reads }
    }
}

impl Handshake for ExpectHead<'_> {
    type Done = Authentic;
    type Error = HeadError;

    fn advance(self, input: &mut Input<'_>, _: &mut Vec<u8>) -> Result<Step<Self>, HeadError> {
        let method = self.key.method();
        let salt_len = method.salt_len();
        let sealed_len = match method.generation() {
            Generation::Aead => RECORD_HEAD_BYTES,
            Generation::Aead2022 => REQUEST_FIXED_BYTES + TAG_BYTES,
        };
        let arrived = input.rest().len();
        if arrived < salt_len + sealed_len {
            let cut = method.generation() == Generation::Aead2022 && self.reads == HeadReads::One;
            return if cut && arrived > 0 { Err(OpenError::ShortHead.into()) } else { Ok(Step::Wait(self)) };
        }
        let (Some(salt), Some(head)) = (Salt::read(method, input.rest()), input.take(salt_len + sealed_len))
        else {
            return Ok(Step::Wait(self));
        };
        let mut cipher = Cipher::new(self.key, &salt);
        let sealed = &mut head[salt_len..];
        cipher.open(sealed).map_err(OpenError::from)?;
        let proof = match method.generation() {
            Generation::Aead => Proof::Length(usize::from(u16::from_be_bytes([sealed[0], sealed[1]]))),
            Generation::Aead2022 => fixed_header(sealed)?,
        };
        Ok(Step::Done(Authentic { method, salt, cipher, proof }))
    }
}

/// ```text
///  +------+-----------+--------+
///  | type | timestamp | length |    SIP022, 3.1.3; the length is that of the variable header
///  |  1   |     8     |   2    |
///  +------+-----------+--------+
/// ```
fn fixed_header(text: &[u8]) -> Result<Proof, HeadError> {
    let mut reader = Reader::new(text);
    let fields = (|| Ok::<_, Stop<HeadError>>((reader.u8()?, reader.array()?, reader.u16()?)))();
    match fields {
        Ok((TYPE_REQUEST, stamp, len)) => Ok(Proof::Fixed { stamp, variable_len: usize::from(len) }),
        Ok(_) => Err(OpenError::BadType.into()),
        Err(_) => Err(HeadError::Truncated),
    }
}

impl Authentic {
    /// Judges time and salt, and remembers the salt if both are good.
    pub fn admit(self, store: &mut SaltStore, now: UnixTime) -> Result<ExpectTarget, HeadError> {
        let payload_max = self.method.payload_max();
        if let Proof::Fixed { stamp, .. } = &self.proof {
            check_time(stamp, now)?;
        }
        store.insert(self.salt, now).map_err(HeadError::Salt)?;
        let state = match self.proof {
            Proof::Length(len) => TargetState::Records {
                opener: Opener::within_record(self.cipher, len, payload_max)?,
                address: Vec::new(),
            },
            Proof::Fixed { variable_len, .. } => {
                TargetState::Variable { cipher: self.cipher, len: variable_len, payload_max }
            }
        };
        Ok(ExpectTarget { salt: self.salt, state })
    }
}

impl Handshake for ExpectTarget {
    type Done = Request;
    type Error = HeadError;

    fn advance(self, input: &mut Input<'_>, _: &mut Vec<u8>) -> Result<Step<Self>, HeadError> {
        match self.state {
            TargetState::Records { opener, address } => read_records(self.salt, opener, address, input),
            TargetState::Variable { cipher, len, payload_max } => {
                read_variable(self.salt, cipher, len, payload_max, input)
            }
        }
    }
}

fn read_records(
    salt: Salt,
    mut opener: Opener,
    mut address: Vec<u8>,
    input: &mut Input<'_>,
) -> Result<Step<ExpectTarget>, HeadError> {
    // The time matters for the header of a response only, which this is not.
    while let Opened::Payload(place) = opener.open(input, UnixTime(0))? {
        let text = input.opened(place.clone());
        let before = address.len();
        let tail = text.len().min(ADDRESS_BYTES_MAX);
        address.extend_from_slice(&text[..tail]);
        let mut reader = Reader::new(&address);
        match Address::decode(&mut reader) {
            Ok(target) => {
                let early = place.start + (reader.taken() - before)..place.end;
                return Ok(Step::Done(Request { target, early, opener, salt }));
            }
            // An address that needs more is shorter than any address can be, so this stays bounded.
            Err(Stop::Incomplete) => {}
            Err(Stop::Malformed(error)) => return Err(HeadError::Address(error)),
        }
    }
    Ok(Step::Wait(ExpectTarget { salt, state: TargetState::Records { opener, address } }))
}

fn read_variable(
    salt: Salt,
    mut cipher: Cipher,
    len: usize,
    payload_max: usize,
    input: &mut Input<'_>,
) -> Result<Step<ExpectTarget>, HeadError> {
    let start = input.taken();
    let Some(sealed) = input.take(len + TAG_BYTES) else {
        let state = TargetState::Variable { cipher, len, payload_max };
        return Ok(Step::Wait(ExpectTarget { salt, state }));
    };
    cipher.open(sealed).map_err(OpenError::from)?;
    let mut reader = Reader::new(&sealed[..len]);
    let target = variable_header(&mut reader).map_err(|stop| match stop {
        Stop::Incomplete => HeadError::Truncated,
        Stop::Malformed(error) => error,
    })?;
    let early = start + reader.taken()..start + len;
    Ok(Step::Done(Request { target, early, opener: Opener::records(cipher, payload_max), salt }))
}

/// ```text
///  +---------+----------------+---------+-----------------+
///  | address | padding length | padding | initial payload |    SIP022, 3.1.3
///  | 5..259  |       2        |  0..    |       0..       |
///  +---------+----------------+---------+-----------------+
/// ```
fn variable_header(reader: &mut Reader<'_>) -> Result<Address, Stop<HeadError>> {
    let target = Address::decode(reader).map_err(|stop| stop.map(HeadError::Address))?;
    let padding_len = reader.u16()?;
    reader.slice(usize::from(padding_len))?;
    if padding_len == 0 && reader.rest().is_empty() {
        return Err(Stop::Malformed(HeadError::NoPayloadNoPadding));
    }
    Ok(target)
}

impl From<OpenError> for HeadError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl fmt::Debug for Authentic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authentic(..)")
    }
}

impl fmt::Debug for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Records { .. } => "Records(..)",
            Self::Variable { .. } => "Variable(..)",
        })
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Salt(SaltRefusal::Replayed) => f.write_str("a replayed salt"),
            Self::Salt(SaltRefusal::Full) => f.write_str("no room to remember another salt"),
            Self::Address(error) => error.fmt(f),
            Self::Truncated => f.write_str("a header that ends inside a field"),
            Self::NoPayloadNoPadding => f.write_str("neither payload nor padding"),
        }
    }
}

impl std::error::Error for HeadError {}

#[cfg(test)]
#[path = "tests/head.rs"]
mod tests;
