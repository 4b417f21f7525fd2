//! How a server understands the start of a request, in either generation.
//!
//! Two steps with a gate between them: [`ExpectHead`] ends when the first sealed bytes have proved that the peer holds
//! a key, and whose; [`Authentic::admit`] then checks time and salt and only now changes the salt store (SIP022, 3.1.4: open,
//! check type, check timestamp, check salt, add); [`ExpectTarget`] reads where to go. A stream that names somebody whose
//! streams another server understands ends in [`Head::Forward`] (SIP023).

mod flat;

use std::fmt;
use std::ops::Range;

use super::cipher::Cipher;
use super::identity::{IDENTITY_BYTES, IdentityHash};
use super::keyring::{Holder, Keyring, Rule, TrialOrder};
use super::one_time_auth::OneTimeAuth;
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
use flat::{ExpectAddress, Progress};

/// A server waiting for salt and first sealed bytes.
#[derive(Debug)]
pub struct ExpectHead<'k> {
    keyring: &'k Keyring,
    order: TrialOrder,
    reads: HeadReads,
    one_time_auth: OneTimeAuth,
    begun: Begun<'k>,
}

/// How much of a head has been taken.
#[derive(Debug)]
enum Begun<'k> {
    /// Nothing: what is sealed is opened all at once.
    Nothing,
    /// The IV, and part of an address that is turned as it comes.
    Address(Box<ExpectAddress<'k>>),
}

/// What the start of a stream turned out to be.
#[derive(Debug)]
pub enum Head {
    /// For this server.
    Authentic(Authentic),
    /// For another one.
    Forward(Forward),
}

/// The peer holds a key; time and salt are still to be judged.
#[must_use = "a head that is not admitted opens nothing"]
pub struct Authentic {
    method: Method,
    start: Start,
    proof: Proof,
}

/// The peer has named somebody whose streams another server understands. That it may do so is for that server to judge, and
/// so are time and salt. The stream as it is to be sent there has been left in the input: the salt, then all that follows
/// the identity header.
#[derive(Debug)]
pub struct Forward {
    /// Who was named.
    pub holder: Holder,
    /// The server that understands.
    pub to: Address,
}

/// What the first sealed bytes said.
enum Proof {
    /// Before SIP004: the target, which is all that speaks for the peer.
    Target(Address, Opener),
    /// SIP004: the length of the first record's payload.
    Length(Cipher, usize),
    /// SIP022: the timestamp and the length of the variable header.
    Fixed { cipher: Cipher, stamp: [u8; 8], variable_len: usize },
}

/// A server waiting for the target, everything before it admitted.
#[derive(Debug)]
pub struct ExpectTarget {
    start: Start,
    state: TargetState,
}

/// How a stream began.
#[derive(Clone, Copy, Debug)]
struct Start {
    holder: Holder,
    salt: Salt,
}

enum TargetState {
    /// Before SIP004: it is known.
    Known(Box<(Address, Opener)>),
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
    /// Whose key opened it; a response is sealed with the same.
    pub holder: Holder,
}

/// Why the start of a request is refused. The peer is never told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The record layer refuses it.
    Open(OpenError),
    /// The identity header names nobody (SIP023).
    UnknownIdentity,
    /// The salt has been seen, or cannot be remembered.
    Salt(SaltRefusal),
    /// The target is not an address.
    Address(AddressError),
    /// The variable header ends inside its address or padding.
    Truncated,
    /// The request is not authenticated, and has to be.
    NoOneTimeAuth,
    /// The request says that it is authenticated, and is not.
    BadOneTimeAuth,
    /// Neither payload nor padding (SIP022, 3.1.3: MUST be rejected).
    NoPayloadNoPadding,
}

impl<'k> ExpectHead<'k> {
    /// A server at the start of a stream. `order` says which of the keys that are tried come first, and is of this keyring.
    pub fn new(keyring: &'k Keyring, order: TrialOrder, reads: HeadReads) -> Self {
        Self { keyring, order, reads, one_time_auth: OneTimeAuth::Honoured, begun: Begun::Nothing }
    }

    /// The same with another attitude to one-time authentication, which counts for the methods without tags only.
    pub fn with_one_time_auth(self, one_time_auth: OneTimeAuth) -> Self {
        Self { one_time_auth, ..self }
    }
}

impl Handshake for ExpectHead<'_> {
    type Done = Head;
    type Error = HeadError;

    fn advance(self, input: &mut Input<'_>, _: &mut Vec<u8>) -> Result<Step<Self>, HeadError> {
        match self.keyring.method().generation() {
            Generation::Stream => self.turn(input),
            Generation::Aead => self.open(RECORD_HEAD_BYTES, first_length, input),
            Generation::Aead2022 => self.open(REQUEST_FIXED_BYTES + TAG_BYTES, fixed_header, input),
        }
    }
}

impl ExpectHead<'_> {
    /// Without tags: the address is all there is to be judged.
    fn turn(self, input: &mut Input<'_>) -> Result<Step<Self>, HeadError> {
        let begun = match self.begun {
            Begun::Address(expect) => Some(*expect),
            Begun::Nothing => ExpectAddress::begin(self.keyring.key(Holder::ONLY), self.one_time_auth, input),
        };
        let Some(expect) = begun else {
            return Ok(Step::Wait(Self { begun: Begun::Nothing, ..self }));
        };
        match expect.advance(input)? {
            Progress::Wait(expect) => {
                Ok(Step::Wait(Self { begun: Begun::Address(Box::new(expect)), ..self }))
            }
            Progress::Done(salt, target, opener) => {
                let (method, start) = (self.keyring.method(), Start { holder: Holder::ONLY, salt });
                let proof = Proof::Target(target, opener);
                Ok(Step::Done(Head::Authentic(Authentic { method, start, proof })))
            }
        }
    }

    /// With tags: the first sealed text, `sealed_len` bytes with its tag, is opened with one key or several, and `read`.
    fn open(
        self,
        sealed_len: usize,
        read: fn(Cipher, &[u8]) -> Result<Proof, HeadError>,
        input: &mut Input<'_>,
    ) -> Result<Step<Self>, HeadError> {
        let method = self.keyring.method();
        let identity_len = self.identity_len();
        let before = method.salt_len() + identity_len;
        let arrived = input.rest().len();
        let (Some(salt), Some(sealed)) =
            (Salt::read(method, input.rest()), input.rest().get(before..before + sealed_len))
        else {
            let cut = method.generation() == Generation::Aead2022 && self.reads == HeadReads::One;
            return if cut && arrived > 0 { Err(OpenError::ShortHead.into()) } else { Ok(Step::Wait(self)) };
        };
        let mut attempt = Attempt { salt, sealed, text: [0; SEALED_BYTES_MAX] };
        let (holder, cipher) = match self.keyring.rule() {
            Rule::One => attempt.open(self.keyring, Holder::ONLY),
            Rule::Trial => self.order.holders().find_map(|holder| attempt.open(self.keyring, holder)),
            Rule::Identified(identified) => {
                let header = input.rest()[method.salt_len()..].first_chunk().ok_or(HeadError::Truncated)?;
                let hash = IdentityHash::open(&identified.port, &salt, *header);
                let holder = identified.find(&hash).ok_or(HeadError::UnknownIdentity)?;
                if let Some(to) = self.keyring.forward(holder) {
                    pass_on(input, method);
                    return Ok(Step::Done(Head::Forward(Forward { holder, to: to.clone() })));
                }
                attempt.open(self.keyring, holder)
            }
        }
        .ok_or(OpenError::BadTag)?;
        let text = attempt.text;
        input.take(before + sealed_len);
        let proof = read(cipher, &text)?;
        Ok(Step::Done(Head::Authentic(Authentic { method, start: Start { holder, salt }, proof })))
    }

    /// Bytes of the identity header. What it names makes no difference, so that the length at which a head is judged tells
    /// nothing.
    fn identity_len(&self) -> usize {
        match self.keyring.rule() {
            Rule::One | Rule::Trial => 0,
            Rule::Identified(_) => IDENTITY_BYTES,
        }
    }
}

/// A head, opened with one key after the other: always in a copy, since what one key fails to open is gone.
struct Attempt<'a> {
    salt: Salt,
    sealed: &'a [u8],
    text: [u8; SEALED_BYTES_MAX],
}

impl Attempt<'_> {
    /// The text is then at the front of [`text`](Self::text).
    fn open(&mut self, keyring: &Keyring, holder: Holder) -> Option<(Holder, Cipher)> {
        let text = &mut self.text[..self.sealed.len()];
        text.copy_from_slice(self.sealed);
        let mut cipher = Cipher::new(keyring.key(holder), &self.salt);
        cipher.open(text).ok().map(|()| (holder, cipher))
    }
}

/// Takes the identity header away: the salt moves up to what follows it.
fn pass_on(input: &mut Input<'_>, method: Method) {
    input.rest_mut().copy_within(..method.salt_len(), IDENTITY_BYTES);
    input.take(IDENTITY_BYTES);
}

/// ```text
///  +------+-----------+--------+
///  | type | timestamp | length |    SIP022, 3.1.3; the length is that of the variable header
///  |  1   |     8     |   2    |
///  +------+-----------+--------+
/// ```
fn fixed_header(cipher: Cipher, text: &[u8]) -> Result<Proof, HeadError> {
    let mut reader = Reader::new(text);
    let fields = (|| Ok::<_, Stop<HeadError>>((reader.u8()?, reader.array()?, reader.u16()?)))();
    match fields {
        Ok((TYPE_REQUEST, stamp, len)) => Ok(Proof::Fixed { cipher, stamp, variable_len: usize::from(len) }),
        Ok(_) => Err(OpenError::BadType.into()),
        Err(_) => Err(HeadError::Truncated),
    }
}

/// SIP004: the length of the first record.
fn first_length(cipher: Cipher, text: &[u8]) -> Result<Proof, HeadError> {
    let len = Reader::new(text).u16().map_err(|_: Stop<HeadError>| HeadError::Truncated)?;
    Ok(Proof::Length(cipher, usize::from(len)))
}

impl Authentic {
    /// Whose key opened it.
    pub fn holder(&self) -> Holder {
        self.start.holder
    }

    /// Judges time and salt, and remembers the salt if both are good.
    pub fn admit(self, store: &mut SaltStore, now: UnixTime) -> Result<ExpectTarget, HeadError> {
        let payload_max = self.method.payload_max();
        if let Proof::Fixed { stamp, .. } = &self.proof {
            check_time(stamp, now)?;
        }
        store.insert(self.start.salt, now).map_err(HeadError::Salt)?;
        let state = match self.proof {
            Proof::Target(target, opener) => TargetState::Known(Box::new((target, opener))),
            Proof::Length(cipher, len) => TargetState::Records {
                opener: Opener::within_record(cipher, len, payload_max)?,
                address: Vec::new(),
            },
            Proof::Fixed { cipher, variable_len, .. } => {
                TargetState::Variable { cipher, len: variable_len, payload_max }
            }
        };
        Ok(ExpectTarget { start: self.start, state })
    }
}

impl Handshake for ExpectTarget {
    type Done = Request;
    type Error = HeadError;

    fn advance(self, input: &mut Input<'_>, _: &mut Vec<u8>) -> Result<Step<Self>, HeadError> {
        match self.state {
            TargetState::Known(known) => {
                let (target, opener) = *known;
                let here = input.taken();
                Ok(Step::Done(self.start.request(target, here..here, opener)))
            }
            TargetState::Records { opener, address } => read_records(self.start, opener, address, input),
            TargetState::Variable { cipher, len, payload_max } => {
                read_variable(self.start, cipher, len, payload_max, input)
            }
        }
    }
}

impl Start {
    fn request(self, target: Address, early: Range<usize>, opener: Opener) -> Request {
        Request { target, early, opener, salt: self.salt, holder: self.holder }
    }
}

fn read_records(
    start: Start,
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
                return Ok(Step::Done(start.request(target, early, opener)));
            }
            // An address that needs more is shorter than any address can be, so this stays bounded.
            Err(Stop::Incomplete) => {}
            Err(Stop::Malformed(error)) => return Err(HeadError::Address(error)),
        }
    }
    Ok(Step::Wait(ExpectTarget { start, state: TargetState::Records { opener, address } }))
}

fn read_variable(
    start: Start,
    mut cipher: Cipher,
    len: usize,
    payload_max: usize,
    input: &mut Input<'_>,
) -> Result<Step<ExpectTarget>, HeadError> {
    let place = input.taken();
    let Some(sealed) = input.take(len + TAG_BYTES) else {
        let state = TargetState::Variable { cipher, len, payload_max };
        return Ok(Step::Wait(ExpectTarget { start, state }));
    };
    cipher.open(sealed).map_err(OpenError::from)?;
    let mut reader = Reader::new(&sealed[..len]);
    let target = variable_header(&mut reader).map_err(|stop| match stop {
        Stop::Incomplete => HeadError::Truncated,
        Stop::Malformed(error) => error,
    })?;
    let early = place + reader.taken()..place + len;
    Ok(Step::Done(start.request(target, early, Opener::records(cipher, payload_max))))
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
            Self::Known(_) => "Known(..)",
            Self::Records { .. } => "Records(..)",
            Self::Variable { .. } => "Variable(..)",
        })
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::UnknownIdentity => f.write_str("wrong identity key, or an unknown user"),
            Self::Salt(SaltRefusal::Replayed) => f.write_str("a replayed salt"),
            Self::Salt(SaltRefusal::Full) => f.write_str("no room to remember another salt"),
            Self::Address(error) => error.fmt(f),
            Self::Truncated => f.write_str("a header that ends inside a field"),
            Self::NoOneTimeAuth => f.write_str("no one-time authentication"),
            Self::BadOneTimeAuth => f.write_str("wrong one-time authentication"),
            Self::NoPayloadNoPadding => f.write_str("neither payload nor padding"),
        }
    }
}

impl std::error::Error for HeadError {}

const SEALED_BYTES_MAX: usize = REQUEST_FIXED_BYTES + TAG_BYTES;

#[cfg(test)]
#[path = "tests/head.rs"]
mod tests;
