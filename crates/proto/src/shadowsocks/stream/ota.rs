//! Streams without records whose request is authenticated: chunks of payload, each behind its length and an HMAC. The
//! response has none of it.
//!
//! ```text
//!  IV | address, its type with a flag | HMAC 10 | chunk | chunk | …       everything behind the IV turned
//!
//!  chunk  +--------+---------+---------+
//!         | length | HMAC    | payload |
//!         |   2    |   10    |         |
//!         +--------+---------+---------+
//! ```

use super::{OpenError, Opened, put};
use crate::shadowsocks::Salt;
use crate::shadowsocks::cipher::flat::Flat;
use crate::shadowsocks::key::Key;
use crate::shadowsocks::one_time_auth::{AUTH_BYTES, AUTH_FLAG, check_chunk, chunk_tag, head_tag};
use crate::wire::Input;

/// Bytes before the payload of a chunk.
pub(super) const CHUNK_HEAD_BYTES: usize = 2 + AUTH_BYTES;

/// Authenticates and turns a request.
pub(super) struct Sealer {
    cipher: Flat,
    iv: Salt,
    number: u32,
    opening: Option<Vec<u8>>,
}

impl Sealer {
    pub(super) fn new(cipher: Flat, key: &Key, iv: Salt, mut address: Vec<u8>) -> Self {
        if let Some(kind) = address.first_mut() {
            *kind |= AUTH_FLAG;
        }
        // Over the head alone: what came with the request is a chunk like all that follows.
        let tag = head_tag(&iv, key, &address);
        address.extend_from_slice(&tag);
        Self { cipher, iv, number: 0, opening: Some(address) }
    }

    pub(super) fn owes_request(&self) -> bool {
        self.opening.is_some()
    }

    pub(super) fn head_len(&self) -> usize {
        self.opening_len() + CHUNK_HEAD_BYTES
    }

    fn opening_len(&self) -> usize {
        self.opening.as_ref().map_or(0, |head| self.iv.as_bytes().len() + head.len())
    }

    /// `record` is the head room and the payload.
    pub(super) fn seal(&mut self, record: &mut [u8]) {
        let (opening, chunk) = record.split_at_mut(self.opening_len());
        self.seal_opening(opening);
        let (head, payload) = chunk.split_at_mut(CHUNK_HEAD_BYTES);
        let len = u16::try_from(payload.len()).expect("a chunk's payload is at most payload_max bytes");
        put(put(head, &len.to_be_bytes()), &chunk_tag(&self.iv, self.number, payload));
        self.number = self.number.wrapping_add(1);
        self.cipher.apply(chunk);
    }

    pub(super) fn seal_request_without_payload(&mut self, output: &mut Vec<u8>) {
        let start = output.len();
        output.resize(start + self.opening_len(), 0);
        self.seal_opening(&mut output[start..]);
    }

    fn seal_opening(&mut self, room: &mut [u8]) {
        if let Some(head) = self.opening.take() {
            let text = put(room, self.iv.as_bytes());
            put(text, &head);
            self.cipher.apply(text);
        }
    }
}

/// Turns a request back and judges it.
pub(super) struct Opener {
    cipher: Flat,
    iv: Salt,
    number: u32,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    ExpectChunk,
    ExpectPayload {
        len: usize,
        tag: [u8; AUTH_BYTES],
    },
    /// Nothing can be opened after a failure.
    Failed,
}

impl Opener {
    pub(super) fn new(cipher: Flat, iv: Salt) -> Self {
        Self { cipher, iv, number: 0, state: State::ExpectChunk }
    }

    pub(super) fn is_between_chunks(&self) -> bool {
        matches!(self.state, State::ExpectChunk)
    }

    pub(super) fn open(&mut self, input: &mut Input<'_>) -> Result<Opened, OpenError> {
        loop {
            match std::mem::replace(&mut self.state, State::Failed) {
                State::ExpectChunk => match input.take(CHUNK_HEAD_BYTES) {
                    Some(head) => self.state = self.open_head(head)?,
                    None => {
                        self.state = State::ExpectChunk;
                        return Ok(Opened::Incomplete(CHUNK_HEAD_BYTES));
                    }
                },
                State::ExpectPayload { len, tag } => {
                    let start = input.taken();
                    let Some(payload) = input.take(len) else {
                        self.state = State::ExpectPayload { len, tag };
                        return Ok(Opened::Incomplete(len));
                    };
                    self.cipher.apply(payload);
                    check_chunk(&self.iv, self.number, payload, &tag)?;
                    self.number = self.number.wrapping_add(1);
                    self.state = State::ExpectChunk;
                    return Ok(Opened::Payload(start..start + len));
                }
                State::Failed => return Err(OpenError::BadTag),
            }
        }
    }

    fn open_head(&mut self, head: &mut [u8]) -> Result<State, OpenError> {
        self.cipher.apply(head);
        let len = usize::from(u16::from_be_bytes([head[0], head[1]]));
        if len == 0 {
            return Err(OpenError::BadLength);
        }
        Ok(State::ExpectPayload { len, tag: std::array::from_fn(|at| head[2 + at]) })
    }
}
