//! The record layer of one direction of a stream, for both generations.
//!
//! ```text
//!  SIP004    salt | [2+16 len][payload 16] [2+16 len][payload 16] …        request payload starts with the address
//!  SIP022    request:   salt | [11+16 fixed][variable 16] records …        variable: address, padding, payload
//!                       (identity headers of SIP023 are between salt and fixed header)
//!            response:  salt | [11+salt+16 fixed][payload 16] records …
//!            records as above
//! ```
//!
//! A [`Sealer`] seals in place: the caller reads payload into a slot that leaves [`Sealer::head_len`] bytes free before
//! it and [`TAG_BYTES`] after it, whatever comes first on the wire. An [`Opener`] opens whole records where they lie.

use std::fmt;
use std::ops::Range;

use super::cipher::{BadTag, Cipher};
use super::key::Key;
use super::{Generation, Salt, UnixTime};
use crate::address::Address;
use crate::limits::{CLOCK_SKEW_SECS_MAX, PADDING_BYTES_MAX};
use crate::wire::Input;

/// Bytes of the tag after each sealed text.
pub const TAG_BYTES: usize = super::cipher::TAG_BYTES;

/// Bytes before the payload of a record that is not the first: its sealed length.
pub const RECORD_HEAD_BYTES: usize = 2 + TAG_BYTES;

/// Seals one direction of a stream.
pub struct Sealer {
    cipher: Cipher,
    payload_max: usize,
    opening: Option<Box<Opening>>,
}

/// What goes out ahead of the first payload.
enum Opening {
    Request { salt: Salt, identities: Vec<u8>, address: Vec<u8>, generation: Generation },
    Response { salt: Salt },
    Response2022 { salt: Salt, request_salt: Salt },
}

impl Sealer {
    /// The client's direction: begins with `salt` and the target. `salt` must never have been used with this key.
    pub fn request(key: &Key, salt: Salt, target: &Address) -> Self {
        let mut address = Vec::with_capacity(target.encoded_len());
        target.encode(&mut address);
        let generation = key.method().generation();
        Self::new(key, &salt, Opening::Request { salt, identities: Vec::new(), address, generation })
    }

    /// The same request with identity headers (SIP023), if nothing of it has been sealed.
    pub(super) fn named(mut self, headers: Vec<u8>) -> Self {
        if let Some(Opening::Request { identities, .. }) = self.opening.as_deref_mut() {
            *identities = headers;
        }
        self
    }

    /// The server's direction, in answer to the request that began with `request_salt`. `salt` must be fresh.
    pub fn response(key: &Key, salt: Salt, request_salt: Salt) -> Self {
        let opening = match key.method().generation() {
            Generation::Aead => Opening::Response { salt },
            Generation::Aead2022 => Opening::Response2022 { salt, request_salt },
        };
        Self::new(key, &salt, opening)
    }

    fn new(key: &Key, salt: &Salt, opening: Opening) -> Self {
        Self {
            cipher: Cipher::new(key, salt),
            payload_max: key.method().payload_max(),
            opening: Some(Box::new(opening)),
        }
    }

    /// Whether this is a request of which nothing has been sealed: the server does not know the target yet.
    pub fn owes_request(&self) -> bool {
        matches!(self.opening.as_deref(), Some(Opening::Request { .. }))
    }

    /// Whether the next record carries a timestamp; otherwise the time given to [`seal`](Self::seal) does not matter.
    pub fn needs_time(&self) -> bool {
        self.opening.is_some()
    }

    /// The longest payload of a record that is not the first.
    pub fn record_payload_max(&self) -> usize {
        self.payload_max
    }

    /// Bytes to leave free before the payload of the next record.
    pub fn head_len(&self) -> usize {
        match self.opening.as_deref() {
            None => RECORD_HEAD_BYTES,
            Some(Opening::Request { salt, address, generation: Generation::Aead, .. }) => {
                salt.as_bytes().len() + RECORD_HEAD_BYTES + address.len()
            }
            Some(Opening::Request { salt, identities, address, generation: Generation::Aead2022 }) => {
                let before = salt.as_bytes().len() + identities.len();
                before + REQUEST_FIXED_BYTES + TAG_BYTES + address.len() + 2
            }
            Some(Opening::Response { salt }) => salt.as_bytes().len() + RECORD_HEAD_BYTES,
            Some(Opening::Response2022 { salt, request_salt }) => {
                salt.as_bytes().len() + response_fixed_len(request_salt) + TAG_BYTES
            }
        }
    }

    /// The longest payload of the next record.
    pub fn payload_max(&self) -> usize {
        match self.opening.as_deref() {
            None | Some(Opening::Response { .. } | Opening::Response2022 { .. }) => self.payload_max,
            Some(Opening::Request { address, generation: Generation::Aead, .. }) => {
                self.payload_max - address.len()
            }
            Some(Opening::Request { address, generation: Generation::Aead2022, .. }) => {
                self.payload_max - address.len() - 2
            }
        }
    }

    /// Seals `record` in place: [`head_len`](Self::head_len) free bytes, 1 to [`payload_max`](Self::payload_max) bytes of
    /// payload, [`TAG_BYTES`] free bytes. All of it is then ready for the wire.
    ///
    /// # Panics
    /// If the record has another shape than the one asked for.
    pub fn seal(&mut self, record: &mut [u8], now: UnixTime) {
        let (head, rest) = record.split_at_mut(self.head_len());
        let payload_len = rest.len() - TAG_BYTES;
        assert!((1..=self.payload_max()).contains(&payload_len), "a record carries 1 to payload_max bytes");
        match self.opening.take().map(|opening| *opening) {
            None => {
                self.seal_length(head, payload_len);
                self.seal_text(rest);
            }
            Some(opening) => self.seal_first(&opening, record, 0, now),
        }
    }

    /// Appends the start of a request that has no payload yet. `padding` is a random number that the padding's length is
    /// drawn from (SIP022, 3.1.3: without payload there MUST be padding). Does nothing unless a request is
    /// [owed](Self::owes_request).
    pub fn seal_request_without_payload(&mut self, padding: u16, now: UnixTime, output: &mut Vec<u8>) {
        let Some(Opening::Request { generation, .. }) = self.opening.as_deref() else { return };
        // Servers reject length 0 here although some clients draw it.
        let padding_len = match generation {
            Generation::Aead => 0,
            Generation::Aead2022 => 1 + padding % PADDING_BYTES_MAX,
        };
        let start = output.len();
        output.resize(start + self.head_len() + usize::from(padding_len) + TAG_BYTES, 0);
        if let Some(opening) = self.opening.take() {
            self.seal_first(&opening, &mut output[start..], padding_len, now);
        }
    }

    /// `record` is the head room, zeroed padding or payload, and the tag room; never both padding and payload.
    fn seal_first(&mut self, opening: &Opening, record: &mut [u8], padding_len: u16, now: UnixTime) {
        match opening {
            Opening::Request { salt, address, generation: Generation::Aead, .. } => {
                let chunk = put(record, salt.as_bytes());
                let (length, text) = chunk.split_at_mut(RECORD_HEAD_BYTES);
                self.seal_length(length, text.len() - TAG_BYTES);
                put(text, address);
                self.seal_text(text);
            }
            Opening::Request { salt, identities, address, generation: Generation::Aead2022 } => {
                let rest = put(put(record, salt.as_bytes()), identities);
                let (fixed, variable) = rest.split_at_mut(REQUEST_FIXED_BYTES + TAG_BYTES);
                let after = put(fixed, &[TYPE_REQUEST]);
                put(put(after, &now.0.to_be_bytes()), &wire_len(variable.len() - TAG_BYTES));
                self.seal_text(fixed);
                put(put(variable, address), &padding_len.to_be_bytes());
                self.seal_text(variable);
            }
            Opening::Response { salt } => {
                let chunk = put(record, salt.as_bytes());
                let (length, text) = chunk.split_at_mut(RECORD_HEAD_BYTES);
                self.seal_length(length, text.len() - TAG_BYTES);
                self.seal_text(text);
            }
            Opening::Response2022 { salt, request_salt } => {
                let rest = put(record, salt.as_bytes());
                let (fixed, text) = rest.split_at_mut(response_fixed_len(request_salt) + TAG_BYTES);
                let after = put(put(fixed, &[TYPE_RESPONSE]), &now.0.to_be_bytes());
                put(put(after, request_salt.as_bytes()), &wire_len(text.len() - TAG_BYTES));
                self.seal_text(fixed);
                self.seal_text(text);
            }
        }
    }

    fn seal_length(&mut self, head: &mut [u8], payload_len: usize) {
        head[..2].copy_from_slice(&wire_len(payload_len));
        self.seal_text(head);
    }

    fn seal_text(&mut self, text_and_tag: &mut [u8]) {
        let (text, tag) = text_and_tag.split_at_mut(text_and_tag.len() - TAG_BYTES);
        self.cipher.seal(text, tag);
    }
}

/// Opens one direction of a stream.
pub struct Opener {
    payload_max: usize,
    state: State,
}

enum State {
    ExpectResponse(Box<ExpectResponse>),
    ExpectLength(Cipher),
    ExpectPayload(Cipher, usize),
    /// Nothing can be opened after a failure.
    Failed,
}

/// A client waiting for the server's first bytes.
struct ExpectResponse {
    key: Key,
    request_salt: Salt,
    head: HeadReads,
}

/// Whether the start of a SIP022 stream may arrive in several reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadReads {
    /// Salt and fixed header come in one read; a shorter one is a probe (SIP022, 3.1.3).
    One,
    /// Any segmentation, for transports that cut the first write: plugins, parents, tests.
    Many,
}

/// What [`Opener::open`] found at the front of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Payload, in the clear, at this place in the input's buffer.
    Payload(Range<usize>),
    /// The next step needs this many bytes, counted from the first that was not taken.
    Incomplete(usize),
}

/// Why a stream cannot be opened any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// A tag does not fit: another key, or touched bytes.
    BadTag,
    /// A record's length is 0 or above the method's maximum.
    BadLength,
    /// The salt and fixed header did not come in one read.
    ShortHead,
    /// The header is of the other direction.
    BadType,
    /// The sender's clock is more than 30 seconds off, or the header is an old one.
    BadTime,
    /// The response answers another request.
    WrongRequest,
}

impl Opener {
    /// The client's receiving direction, bound to the request that began with `request_salt`.
    pub fn response(key: &Key, request_salt: Salt, head: HeadReads) -> Self {
        let expect = ExpectResponse { key: key.clone(), request_salt, head };
        Self { payload_max: key.method().payload_max(), state: State::ExpectResponse(Box::new(expect)) }
    }

    pub(super) fn records(cipher: Cipher, payload_max: usize) -> Self {
        Self { payload_max, state: State::ExpectLength(cipher) }
    }

    /// A SIP004 request's receiving direction, the length of its first record already opened.
    pub(super) fn within_record(cipher: Cipher, len: usize, payload_max: usize) -> Result<Self, OpenError> {
        let state = State::ExpectPayload(cipher, check_len(len, payload_max)?);
        Ok(Self { payload_max, state })
    }

    /// Opens the record at the front of `input`, if it is all there. `now` matters for a response's header only.
    ///
    /// Each call that follows a read counts as one read of the head.
    pub fn open(&mut self, input: &mut Input<'_>, now: UnixTime) -> Result<Opened, OpenError> {
        loop {
            let state = std::mem::replace(&mut self.state, State::Failed);
            let (next, found) = match state {
                State::ExpectResponse(expect) => expect.advance(input, now)?,
                State::ExpectLength(cipher) => self.open_length(cipher, input)?,
                State::ExpectPayload(cipher, len) => open_payload(cipher, len, input)?,
                State::Failed => return Err(OpenError::BadTag),
            };
            self.state = next;
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// Whether a timestamp is still to be judged; otherwise the time given to [`open`](Self::open) does not matter.
    pub fn needs_time(&self) -> bool {
        matches!(self.state, State::ExpectResponse(_))
    }

    /// Whether the stream may end here: between records, or before the first byte of a response.
    ///
    /// `unopened` is the number of bytes that have arrived and were not taken.
    pub fn may_end(&self, unopened: usize) -> bool {
        unopened == 0 && matches!(self.state, State::ExpectResponse(_) | State::ExpectLength(_))
    }

    fn open_length(&self, mut cipher: Cipher, input: &mut Input<'_>) -> Result<Progress, OpenError> {
        let Some(head) = input.take(RECORD_HEAD_BYTES) else {
            return Ok((State::ExpectLength(cipher), Some(Opened::Incomplete(RECORD_HEAD_BYTES))));
        };
        cipher.open(head)?;
        let len = usize::from(u16::from_be_bytes([head[0], head[1]]));
        Ok((State::ExpectPayload(cipher, check_len(len, self.payload_max)?), None))
    }
}

/// An empty record is refused as well: nobody has a reason to send one, and it would be work without progress.
fn check_len(len: usize, payload_max: usize) -> Result<usize, OpenError> {
    if len == 0 || len > payload_max { Err(OpenError::BadLength) } else { Ok(len) }
}

type Progress = (State, Option<Opened>);

fn open_payload(mut cipher: Cipher, len: usize, input: &mut Input<'_>) -> Result<Progress, OpenError> {
    let start = input.taken();
    let Some(sealed) = input.take(len + TAG_BYTES) else {
        return Ok((State::ExpectPayload(cipher, len), Some(Opened::Incomplete(len + TAG_BYTES))));
    };
    cipher.open(sealed)?;
    Ok((State::ExpectLength(cipher), Some(Opened::Payload(start..start + len))))
}

impl ExpectResponse {
    fn advance(self: Box<Self>, input: &mut Input<'_>, now: UnixTime) -> Result<Progress, OpenError> {
        let method = self.key.method();
        let salt_len = method.salt_len();
        let needed = match method.generation() {
            Generation::Aead => salt_len,
            Generation::Aead2022 => salt_len + response_fixed_len(&self.request_salt) + TAG_BYTES,
        };
        if input.rest().len() < needed {
            let cut = method.generation() == Generation::Aead2022 && self.head == HeadReads::One;
            if cut && !input.rest().is_empty() {
                return Err(OpenError::ShortHead);
            }
            return Ok((State::ExpectResponse(self), Some(Opened::Incomplete(needed))));
        }
        let Some(salt) = Salt::read(method, input.rest()) else { return Err(OpenError::ShortHead) };
        // SIP004 has no type byte: without this, a request that is sent back opens as its own response.
        if salt == self.request_salt {
            return Err(OpenError::BadType);
        }
        let mut cipher = Cipher::new(&self.key, &salt);
        let Some(head) = input.take(needed) else { return Err(OpenError::ShortHead) };
        match method.generation() {
            Generation::Aead => Ok((State::ExpectLength(cipher), None)),
            Generation::Aead2022 => {
                let fixed = &mut head[salt_len..];
                cipher.open(fixed)?;
                let len = check_response(fixed, &self.request_salt, now)?;
                Ok((State::ExpectPayload(cipher, len), None))
            }
        }
    }
}

/// ```text
///  +------+-----------+--------------+--------+
///  | type | timestamp | request salt | length |    SIP022, 3.1.3
///  |  1   |     8     |   16 or 32   |   2    |
///  +------+-----------+--------------+--------+
/// ```
fn check_response(fixed: &[u8], request_salt: &Salt, now: UnixTime) -> Result<usize, OpenError> {
    let salt = request_salt.as_bytes();
    let (stamp, rest) = fixed[1..].split_at(8);
    let (echoed, length) = rest.split_at(salt.len());
    if fixed[0] != TYPE_RESPONSE {
        return Err(OpenError::BadType);
    }
    check_time(stamp, now)?;
    if echoed != salt {
        return Err(OpenError::WrongRequest);
    }
    match usize::from(u16::from_be_bytes([length[0], length[1]])) {
        0 => Err(OpenError::BadLength),
        len => Ok(len),
    }
}

/// SIP022, 3.1.3: a timestamp more than 30 seconds off MUST be treated as a replay.
pub(super) fn check_time(stamp: &[u8], now: UnixTime) -> Result<(), OpenError> {
    let stamp = stamp.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    if stamp.abs_diff(now.0) > CLOCK_SKEW_SECS_MAX {
        return Err(OpenError::BadTime);
    }
    Ok(())
}

fn response_fixed_len(request_salt: &Salt) -> usize {
    REQUEST_FIXED_BYTES + request_salt.as_bytes().len()
}

/// Copies `field` to the front of `room` and gives what is left of it.
fn put<'a>(room: &'a mut [u8], field: &[u8]) -> &'a mut [u8] {
    let (front, rest) = room.split_at_mut(field.len());
    front.copy_from_slice(field);
    rest
}

fn wire_len(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("a record's payload is at most 65535 bytes").to_be_bytes()
}

impl From<BadTag> for OpenError {
    fn from(BadTag: BadTag) -> Self {
        Self::BadTag
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(..)")
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadTag => "wrong key or damaged bytes",
            Self::BadLength => "a record of impossible length",
            Self::ShortHead => "the header did not come in one piece",
            Self::BadType => "a header of the other direction",
            Self::BadTime => "the clocks differ by more than 30 seconds, or a replay",
            Self::WrongRequest => "an answer to another request",
        })
    }
}

impl std::error::Error for OpenError {}

/// Type, timestamp, length.
pub(super) const REQUEST_FIXED_BYTES: usize = 1 + 8 + 2;
pub(super) const TYPE_REQUEST: u8 = 0;
const TYPE_RESPONSE: u8 = 1;

#[cfg(test)]
#[path = "tests/stream.rs"]
mod tests;
