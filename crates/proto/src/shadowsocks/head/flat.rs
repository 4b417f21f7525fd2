//! The start of a request without records: an IV, and an address that is turned as it comes, perhaps with one-time
//! authentication.

use std::fmt;

use super::HeadError;
use crate::address::{Address, wanted_len};
use crate::shadowsocks::Salt;
use crate::shadowsocks::cipher::flat::{Flat, Way};
use crate::shadowsocks::key::Key;
use crate::shadowsocks::one_time_auth::{AUTH_BYTES, AUTH_FLAG, OneTimeAuth, check_head};
use crate::shadowsocks::stream::Opener;
use crate::wire::{Input, Reader, Stop};

/// A server that has the IV and waits for the rest of the address. Exactly the address is turned, so that whatever follows it
/// is opened like all that comes later.
pub(super) struct ExpectAddress<'k> {
    key: &'k Key,
    salt: Salt,
    cipher: Flat,
    demand: OneTimeAuth,
    /// What has come, without the flag of its first byte.
    text: Vec<u8>,
    flagged: bool,
}

/// How far the address has come.
pub(super) enum Progress<'k> {
    /// It needs more bytes.
    Wait(ExpectAddress<'k>),
    /// It is whole.
    Done(Salt, Address, Opener),
}

impl<'k> ExpectAddress<'k> {
    /// Begins with the IV at the front of `input`, if it is all there.
    pub(super) fn begin(key: &'k Key, demand: OneTimeAuth, input: &mut Input<'_>) -> Option<Self> {
        let salt = Salt::read(key.method(), input.rest())?;
        input.take(salt.as_bytes().len())?;
        let cipher = Flat::new(key, &salt, Way::Open);
        Some(Self { key, salt, cipher, demand, text: Vec::new(), flagged: false })
    }

    /// Takes what has arrived of the address.
    pub(super) fn advance(mut self, input: &mut Input<'_>) -> Result<Progress<'k>, HeadError> {
        loop {
            let mut reader = Reader::new(&self.text);
            let wanted = match Address::decode(&mut reader) {
                Ok(target) => {
                    let wanted = reader.taken() + if self.flagged { AUTH_BYTES } else { 0 };
                    if self.text.len() == wanted {
                        return self.finish(target);
                    }
                    wanted
                }
                Err(Stop::Malformed(error)) => return Err(HeadError::Address(error)),
                Err(Stop::Incomplete) => wanted_len(&self.text),
            };
            match input.take((wanted - self.text.len()).min(input.rest().len())) {
                Some(bytes) if !bytes.is_empty() => {
                    self.cipher.apply(bytes);
                    if self.text.is_empty() {
                        self.flagged = bytes[0] & !TYPE_BITS == AUTH_FLAG;
                        if self.flagged {
                            bytes[0] &= TYPE_BITS;
                        } else if self.demand == OneTimeAuth::Demanded {
                            return Err(HeadError::NoOneTimeAuth);
                        }
                    }
                    self.text.extend_from_slice(bytes);
                }
                Some(_) | None => return Ok(Progress::Wait(self)),
            }
        }
    }

    fn finish(mut self, target: Address) -> Result<Progress<'k>, HeadError> {
        let opener = if self.flagged {
            self.text[0] |= AUTH_FLAG;
            let (head, tag) = self.text.split_at(self.text.len() - AUTH_BYTES);
            check_head(&self.salt, self.key, head, tag).map_err(|_| HeadError::BadOneTimeAuth)?;
            Opener::ota(self.cipher, self.salt)
        } else {
            Opener::flat(self.cipher)
        };
        Ok(Progress::Done(self.salt, target, opener))
    }
}

impl fmt::Debug for ExpectAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExpectAddress(..)")
    }
}

/// Where in the first byte of an address block its type is, as these methods always had it.
const TYPE_BITS: u8 = 0x0f;
