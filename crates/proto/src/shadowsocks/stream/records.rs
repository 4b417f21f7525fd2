//! Records: texts of announced length, each sealed with a tag (SIP004, SIP022).
//!
//! ```text
//!  SIP004    salt | [2+16 len][payload 16] [2+16 len][payload 16] …        request payload starts with the address
//!  SIP022    request:   salt | [11+16 fixed][variable 16] records …        variable: address, padding, payload
//!                       (identity headers of SIP023 are between salt and fixed header)
//!            response:  salt | [11+salt+16 fixed][payload 16] records …
//!            records as above
//! ```

use super::{OpenError, Opened, put};
use crate::limits::{CLOCK_SKEW_SECS_MAX, PADDING_BYTES_MAX};
use crate::shadowsocks::cipher::{Cipher, TAG_BYTES};
use crate::shadowsocks::key::Key;
use crate::shadowsocks::{Salt, UnixTime};
use crate::wire::Input;

/// Bytes before the payload of a record that is not the first: its sealed length.
pub(in crate::shadowsocks) const RECORD_HEAD_BYTES: usize = 2 + TAG_BYTES;

/// Seals records.
pub(super) struct Sealer {
    cipher: Cipher,
    payload_max: usize,
    opening: Option<Box<Opening>>,
}

/// What goes out ahead of the first payload.
pub(super) enum Opening {
    Request { salt: Salt, address: Vec<u8> },
    Request2022 { salt: Salt, identities: Vec<u8>, address: Vec<u8> },
    Response { salt: Salt },
    Response2022 { salt: Salt, request_salt: Salt },
}

impl Sealer {
    pub(super) fn new(key: &Key, salt: &Salt, opening: Opening) -> Self {
        Self {
            cipher: Cipher::new(key, salt),
            payload_max: key.method().payload_max(),
            opening: Some(Box::new(opening)),
        }
    }

    pub(super) fn named(mut self, headers: Vec<u8>) -> Self {
        if let Some(Opening::Request2022 { identities, .. }) = self.opening.as_deref_mut() {
            *identities = headers;
        }
        self
    }

    pub(super) fn owes_request(&self) -> bool {
        matches!(self.opening.as_deref(), Some(Opening::Request { .. } | Opening::Request2022 { .. }))
    }

    pub(super) fn needs_time(&self) -> bool {
        self.opening.is_some()
    }

    pub(super) fn record_payload_max(&self) -> usize {
        self.payload_max
    }

    pub(super) fn head_len(&self) -> usize {
        match self.opening.as_deref() {
            None => RECORD_HEAD_BYTES,
            Some(Opening::Request { salt, address }) => {
                salt.as_bytes().len() + RECORD_HEAD_BYTES + address.len()
            }
            Some(Opening::Request2022 { salt, identities, address }) => {
                let before = salt.as_bytes().len() + identities.len();
                before + REQUEST_FIXED_BYTES + TAG_BYTES + address.len() + 2
            }
            Some(Opening::Response { salt }) => salt.as_bytes().len() + RECORD_HEAD_BYTES,
            Some(Opening::Response2022 { salt, request_salt }) => {
                salt.as_bytes().len() + response_fixed_len(request_salt) + TAG_BYTES
            }
        }
    }

    pub(super) fn payload_max(&self) -> usize {
        match self.opening.as_deref() {
            None | Some(Opening::Response { .. } | Opening::Response2022 { .. }) => self.payload_max,
            Some(Opening::Request { address, .. }) => self.payload_max - address.len(),
            Some(Opening::Request2022 { address, .. }) => self.payload_max - address.len() - 2,
        }
    }

    /// `record` has the shape that was asked for.
    pub(super) fn seal(&mut self, record: &mut [u8], now: UnixTime) {
        match self.opening.take().map(|opening| *opening) {
            None => {
                let (head, rest) = record.split_at_mut(RECORD_HEAD_BYTES);
                self.seal_length(head, rest.len() - TAG_BYTES);
                self.seal_text(rest);
            }
            Some(opening) => self.seal_first(&opening, record, 0, now),
        }
    }

    pub(super) fn seal_request_without_payload(&mut self, padding: u16, now: UnixTime, output: &mut Vec<u8>) {
        // Servers reject length 0 here although some clients draw it.
        let padding_len = match self.opening.as_deref() {
            Some(Opening::Request { .. }) => 0,
            Some(Opening::Request2022 { .. }) => 1 + padding % PADDING_BYTES_MAX,
            None | Some(Opening::Response { .. } | Opening::Response2022 { .. }) => return,
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
            Opening::Request { salt, address } => {
                let chunk = put(record, salt.as_bytes());
                let (length, text) = chunk.split_at_mut(RECORD_HEAD_BYTES);
                self.seal_length(length, text.len() - TAG_BYTES);
                put(text, address);
                self.seal_text(text);
            }
            Opening::Request2022 { salt, identities, address } => {
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

/// Opens records.
pub(super) struct Opener {
    payload_max: usize,
    state: State,
}

enum State {
    ExpectLength(Cipher),
    ExpectPayload(Cipher, usize),
    /// Nothing can be opened after a failure.
    Failed,
}

impl Opener {
    pub(super) fn new(cipher: Cipher, payload_max: usize) -> Self {
        Self { payload_max, state: State::ExpectLength(cipher) }
    }

    /// The length of the first record is known already, and judged here.
    pub(super) fn within_record(cipher: Cipher, len: usize, payload_max: usize) -> Result<Self, OpenError> {
        let state = State::ExpectPayload(cipher, check_len(len, payload_max)?);
        Ok(Self { payload_max, state })
    }

    pub(super) fn open(&mut self, input: &mut Input<'_>) -> Result<Opened, OpenError> {
        loop {
            let state = std::mem::replace(&mut self.state, State::Failed);
            let (next, found) = match state {
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

    pub(super) fn is_between_records(&self) -> bool {
        matches!(self.state, State::ExpectLength(_))
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

/// ```text
///  +------+-----------+--------------+--------+
///  | type | timestamp | request salt | length |    SIP022, 3.1.3
///  |  1   |     8     |   16 or 32   |   2    |
///  +------+-----------+--------------+--------+
/// ```
pub(super) fn check_response(fixed: &[u8], request_salt: &Salt, now: UnixTime) -> Result<usize, OpenError> {
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
pub(in crate::shadowsocks) fn check_time(stamp: &[u8], now: UnixTime) -> Result<(), OpenError> {
    let stamp = stamp.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    if stamp.abs_diff(now.0) > CLOCK_SKEW_SECS_MAX {
        return Err(OpenError::BadTime);
    }
    Ok(())
}

pub(super) fn response_fixed_len(request_salt: &Salt) -> usize {
    REQUEST_FIXED_BYTES + request_salt.as_bytes().len()
}

fn wire_len(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("a record's payload is at most 65535 bytes").to_be_bytes()
}

/// Type, timestamp, length.
pub(in crate::shadowsocks) const REQUEST_FIXED_BYTES: usize = 1 + 8 + 2;
pub(in crate::shadowsocks) const TYPE_REQUEST: u8 = 0;
const TYPE_RESPONSE: u8 = 1;
