//! One direction of a stream, sealing or opening, whatever the method.
//!
//! - `records`: SIP004 and SIP022, texts of announced length with a tag each.
//! - `flat`: the methods without records.
//! - `ota`: the same with one-time authentication.
//!
//! A [`Sealer`] seals in place: the caller reads payload into a slot that leaves [`Sealer::head_len`] bytes free before
//! it and [`Sealer::tail_len`] after it, whatever comes first on the wire. An [`Opener`] opens where the bytes lie.

mod flat;
mod ota;
mod records;

use std::fmt;
use std::ops::Range;

pub(super) use super::cipher::TAG_BYTES;
use super::cipher::flat::{Flat, Way};
use super::cipher::{BadTag, Cipher};
use super::key::Key;
use super::one_time_auth::AUTH_BYTES;
use super::{Generation, Salt, UnixTime};
use crate::address::Address;
use crate::limits::OTA_PAYLOAD_BYTES_MAX;
use crate::wire::Input;
pub(super) use records::{RECORD_HEAD_BYTES, REQUEST_FIXED_BYTES, TYPE_REQUEST, check_time};
use records::{check_response, response_fixed_len};

/// Seals one direction of a stream.
pub struct Sealer(SealerForm);

enum SealerForm {
    Records(records::Sealer),
    Flat(flat::Sealer),
    // Boxed, so that who does without it does not carry it.
    Ota(Box<ota::Sealer>),
}

impl Sealer {
    /// The client's direction: begins with `salt` and the target. `salt` must never have been used with this key.
    pub fn request(key: &Key, salt: Salt, target: &Address) -> Self {
        let mut address = Vec::with_capacity(target.encoded_len());
        target.encode(&mut address);
        match key.method().generation() {
            Generation::Stream => Self::flat(key, &salt, flat::Opening::Request { salt, address }),
            Generation::Aead => Self::records(key, &salt, records::Opening::Request { salt, address }),
            Generation::Aead2022 => {
                let identities = Vec::new();
                Self::records(key, &salt, records::Opening::Request2022 { salt, identities, address })
            }
        }
    }

    /// The same with one-time authentication where the method has no tags of its own.
    pub fn request_with_one_time_auth(key: &Key, salt: Salt, target: &Address) -> Self {
        match key.method().generation() {
            Generation::Stream => {
                let mut address = Vec::with_capacity(target.encoded_len() + AUTH_BYTES);
                target.encode(&mut address);
                let cipher = Flat::new(key, &salt, Way::Seal);
                Self(SealerForm::Ota(Box::new(ota::Sealer::new(cipher, key, salt, address))))
            }
            Generation::Aead | Generation::Aead2022 => Self::request(key, salt, target),
        }
    }

    /// The server's direction, in answer to the request that began with `request_salt`. `salt` must be fresh.
    pub fn response(key: &Key, salt: Salt, request_salt: Salt) -> Self {
        match key.method().generation() {
            Generation::Stream => Self::flat(key, &salt, flat::Opening::Response { salt }),
            Generation::Aead => Self::records(key, &salt, records::Opening::Response { salt }),
            Generation::Aead2022 => {
                Self::records(key, &salt, records::Opening::Response2022 { salt, request_salt })
            }
        }
    }

    fn records(key: &Key, salt: &Salt, opening: records::Opening) -> Self {
        Self(SealerForm::Records(records::Sealer::new(key, salt, opening)))
    }

    fn flat(key: &Key, salt: &Salt, opening: flat::Opening) -> Self {
        Self(SealerForm::Flat(flat::Sealer::new(Flat::new(key, salt, Way::Seal), opening)))
    }

    /// The same request with identity headers (SIP023), if nothing of it has been sealed.
    pub(super) fn named(self, headers: Vec<u8>) -> Self {
        Self(match self.0 {
            SealerForm::Records(sealer) => SealerForm::Records(sealer.named(headers)),
            unnamed @ (SealerForm::Flat(_) | SealerForm::Ota(_)) => unnamed,
        })
    }

    /// Whether this is a request of which nothing has been sealed: the server does not know the target yet.
    pub fn owes_request(&self) -> bool {
        match &self.0 {
            SealerForm::Records(sealer) => sealer.owes_request(),
            SealerForm::Flat(sealer) => sealer.owes_request(),
            SealerForm::Ota(sealer) => sealer.owes_request(),
        }
    }

    /// Whether the next record carries a timestamp; otherwise the time given to [`seal`](Self::seal) does not matter.
    pub fn needs_time(&self) -> bool {
        match &self.0 {
            SealerForm::Records(sealer) => sealer.needs_time(),
            SealerForm::Flat(_) | SealerForm::Ota(_) => false,
        }
    }

    /// Bytes to leave free before the payload of the next record.
    pub fn head_len(&self) -> usize {
        match &self.0 {
            SealerForm::Records(sealer) => sealer.head_len(),
            SealerForm::Flat(sealer) => sealer.head_len(),
            SealerForm::Ota(sealer) => sealer.head_len(),
        }
    }

    /// Bytes to leave free before the payload of a record that is not the first.
    pub fn record_head_len(&self) -> usize {
        match &self.0 {
            SealerForm::Records(_) => RECORD_HEAD_BYTES,
            SealerForm::Flat(_) => 0,
            SealerForm::Ota(_) => ota::CHUNK_HEAD_BYTES,
        }
    }

    /// Bytes to leave free behind the payload of every record.
    pub fn tail_len(&self) -> usize {
        match &self.0 {
            SealerForm::Records(_) => TAG_BYTES,
            SealerForm::Flat(_) | SealerForm::Ota(_) => 0,
        }
    }

    /// The longest payload of the next record.
    pub fn payload_max(&self) -> usize {
        match &self.0 {
            SealerForm::Records(sealer) => sealer.payload_max(),
            SealerForm::Flat(_) => usize::MAX,
            SealerForm::Ota(_) => OTA_PAYLOAD_BYTES_MAX,
        }
    }

    /// The longest payload of a record that is not the first.
    pub fn record_payload_max(&self) -> usize {
        match &self.0 {
            SealerForm::Records(sealer) => sealer.record_payload_max(),
            SealerForm::Flat(_) => usize::MAX,
            SealerForm::Ota(_) => OTA_PAYLOAD_BYTES_MAX,
        }
    }

    /// Seals `record` in place: [`head_len`](Self::head_len) free bytes, 1 to [`payload_max`](Self::payload_max) bytes of
    /// payload, [`tail_len`](Self::tail_len) free bytes. All of it is then ready for the wire.
    ///
    /// # Panics
    /// If the record has another shape than the one asked for.
    pub fn seal(&mut self, record: &mut [u8], now: UnixTime) {
        let payload_len = record.len().checked_sub(self.head_len() + self.tail_len());
        let fits = payload_len.is_some_and(|len| (1..=self.payload_max()).contains(&len));
        assert!(fits, "a record carries 1 to payload_max bytes");
        match &mut self.0 {
            SealerForm::Records(sealer) => sealer.seal(record, now),
            SealerForm::Flat(sealer) => sealer.seal(record),
            SealerForm::Ota(sealer) => sealer.seal(record),
        }
    }

    /// Appends the start of a request that has no payload yet. `padding` is a random number that the padding's length is
    /// drawn from (SIP022, 3.1.3: without payload there MUST be padding). Does nothing unless a request is
    /// [owed](Self::owes_request).
    pub fn seal_request_without_payload(&mut self, padding: u16, now: UnixTime, output: &mut Vec<u8>) {
        match &mut self.0 {
            SealerForm::Records(sealer) => sealer.seal_request_without_payload(padding, now, output),
            SealerForm::Flat(sealer) => sealer.seal_request_without_payload(output),
            SealerForm::Ota(sealer) => sealer.seal_request_without_payload(output),
        }
    }
}

/// Opens one direction of a stream.
pub struct Opener(OpenerForm);

enum OpenerForm {
    ExpectResponse(Box<ExpectResponse>),
    Records(records::Opener),
    Flat(flat::Opener),
    Ota(Box<ota::Opener>),
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
        Self(OpenerForm::ExpectResponse(Box::new(expect)))
    }

    pub(super) fn records(cipher: Cipher, payload_max: usize) -> Self {
        Self(OpenerForm::Records(records::Opener::new(cipher, payload_max)))
    }

    /// A SIP004 request's receiving direction, the length of its first record already opened.
    pub(super) fn within_record(cipher: Cipher, len: usize, payload_max: usize) -> Result<Self, OpenError> {
        records::Opener::within_record(cipher, len, payload_max).map(OpenerForm::Records).map(Self)
    }

    /// A request's receiving direction without records, the address already opened.
    pub(super) fn flat(cipher: Flat) -> Self {
        Self(OpenerForm::Flat(flat::Opener::new(cipher)))
    }

    /// The same with one-time authentication.
    pub(super) fn ota(cipher: Flat, iv: Salt) -> Self {
        Self(OpenerForm::Ota(Box::new(ota::Opener::new(cipher, iv))))
    }

    /// Opens what is at the front of `input`: a record, if it is all there, or all that has arrived where there are no records.
    /// `now` matters for a response's header only.
    ///
    /// Each call that follows a read counts as one read of the head.
    pub fn open(&mut self, input: &mut Input<'_>, now: UnixTime) -> Result<Opened, OpenError> {
        loop {
            match &mut self.0 {
                OpenerForm::Records(opener) => return opener.open(input),
                OpenerForm::Flat(opener) => return Ok(opener.open(input)),
                OpenerForm::Ota(opener) => return opener.open(input),
                OpenerForm::Failed => return Err(OpenError::BadTag),
                OpenerForm::ExpectResponse(_) => {}
            }
            let form = std::mem::replace(&mut self.0, OpenerForm::Failed);
            let OpenerForm::ExpectResponse(expect) = form else { return Err(OpenError::BadTag) };
            let (next, found) = expect.advance(input, now)?;
            self.0 = next;
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// Whether a timestamp is still to be judged; otherwise the time given to [`open`](Self::open) does not matter.
    pub fn needs_time(&self) -> bool {
        matches!(self.0, OpenerForm::ExpectResponse(_))
    }

    /// Whether the stream may end here: between records, or before the first byte of a response.
    ///
    /// `unopened` is the number of bytes that have arrived and were not taken.
    pub fn may_end(&self, unopened: usize) -> bool {
        unopened == 0
            && match &self.0 {
                OpenerForm::ExpectResponse(_) | OpenerForm::Flat(_) => true,
                OpenerForm::Records(opener) => opener.is_between_records(),
                OpenerForm::Ota(opener) => opener.is_between_chunks(),
                OpenerForm::Failed => false,
            }
    }
}

impl ExpectResponse {
    fn advance(
        self: Box<Self>,
        input: &mut Input<'_>,
        now: UnixTime,
    ) -> Result<(OpenerForm, Option<Opened>), OpenError> {
        let method = self.key.method();
        let salt_len = method.salt_len();
        let needed = match method.generation() {
            Generation::Stream | Generation::Aead => salt_len,
            Generation::Aead2022 => salt_len + response_fixed_len(&self.request_salt) + TAG_BYTES,
        };
        if input.rest().len() < needed {
            let cut = method.generation() == Generation::Aead2022 && self.head == HeadReads::One;
            if cut && !input.rest().is_empty() {
                return Err(OpenError::ShortHead);
            }
            return Ok((OpenerForm::ExpectResponse(self), Some(Opened::Incomplete(needed))));
        }
        let Some(salt) = Salt::read(method, input.rest()) else { return Err(OpenError::ShortHead) };
        // Before SIP022 there is no type byte: without this, a request that is sent back opens as its own response.
        if salt_len > 0 && salt == self.request_salt {
            return Err(OpenError::BadType);
        }
        let Some(head) = input.take(needed) else { return Err(OpenError::ShortHead) };
        let payload_max = method.payload_max();
        let next = match method.generation() {
            Generation::Stream => OpenerForm::Flat(flat::Opener::new(Flat::new(&self.key, &salt, Way::Open))),
            Generation::Aead => {
                OpenerForm::Records(records::Opener::new(Cipher::new(&self.key, &salt), payload_max))
            }
            Generation::Aead2022 => {
                let mut cipher = Cipher::new(&self.key, &salt);
                let fixed = &mut head[salt_len..];
                cipher.open(fixed)?;
                let len = check_response(fixed, &self.request_salt, now)?;
                OpenerForm::Records(records::Opener::within_record(cipher, len, payload_max)?)
            }
        };
        Ok((next, None))
    }
}

/// Copies `field` to the front of `room` and gives what is left of it.
fn put<'a>(room: &'a mut [u8], field: &[u8]) -> &'a mut [u8] {
    let (front, rest) = room.split_at_mut(field.len());
    front.copy_from_slice(field);
    rest
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

#[cfg(test)]
#[path = "tests/stream.rs"]
mod tests;
