//! Streams without records: the IV, then everything turned byte by byte. Nothing is authenticated.
//!
//! ```text
//!  request    IV | address, payload …
//!  response   IV | payload …
//! ```

use super::{Opened, put};
use crate::shadowsocks::Salt;
use crate::shadowsocks::cipher::flat::Flat;
use crate::wire::Input;

/// Turns one direction from clear to sealed.
pub(super) struct Sealer {
    cipher: Flat,
    opening: Option<Box<Opening>>,
}

/// What goes out ahead of the first payload.
pub(super) enum Opening {
    Request { salt: Salt, address: Vec<u8> },
    Response { salt: Salt },
}

impl Sealer {
    pub(super) fn new(cipher: Flat, opening: Opening) -> Self {
        Self { cipher, opening: Some(Box::new(opening)) }
    }

    pub(super) fn owes_request(&self) -> bool {
        matches!(self.opening.as_deref(), Some(Opening::Request { .. }))
    }

    pub(super) fn head_len(&self) -> usize {
        match self.opening.as_deref() {
            None => 0,
            Some(Opening::Request { salt, address }) => salt.as_bytes().len() + address.len(),
            Some(Opening::Response { salt }) => salt.as_bytes().len(),
        }
    }

    /// `record` is the head room and what follows it.
    pub(super) fn seal(&mut self, record: &mut [u8]) {
        match self.opening.take().as_deref() {
            None => self.cipher.apply(record),
            Some(Opening::Request { salt, address }) => {
                let text = put(record, salt.as_bytes());
                put(text, address);
                self.cipher.apply(text);
            }
            Some(Opening::Response { salt }) => self.cipher.apply(put(record, salt.as_bytes())),
        }
    }

    pub(super) fn seal_request_without_payload(&mut self, output: &mut Vec<u8>) {
        if self.owes_request() {
            let start = output.len();
            output.resize(start + self.head_len(), 0);
            self.seal(&mut output[start..]);
        }
    }
}

/// Turns one direction from sealed to clear.
pub(super) struct Opener {
    cipher: Flat,
}

impl Opener {
    pub(super) fn new(cipher: Flat) -> Self {
        Self { cipher }
    }

    pub(super) fn open(&mut self, input: &mut Input<'_>) -> Opened {
        let (start, len) = (input.taken(), input.rest().len());
        match input.take(len) {
            Some(bytes) if len > 0 => {
                self.cipher.apply(bytes);
                Opened::Payload(start..start + len)
            }
            Some(_) | None => Opened::Incomplete(1),
        }
    }
}
