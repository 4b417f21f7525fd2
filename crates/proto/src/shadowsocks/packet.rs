//! One Shadowsocks datagram, here called a packet: sealing and opening, whatever the method.
//!
//! ```text
//!  before SIP004          IV   | text                          text = address | payload
//!  SIP004                 salt | sealed text | tag
//!  SIP022, AES            separate header | [identity headers] | sealed body | tag
//!  SIP022, ChaCha         nonce | sealed (separate header | body) | tag
//! ```
//!
//! - [`client`]: a client's end of an association, and what all its associations with one server share.
//! - [`door`]: a server's end for everybody: whose packet is it?
//! - [`server`]: a server's end of one association.
//! - [`body`]: what SIP022 seals.
//! - [`salted`]: packets of SIP004, and the [`stock`] of keys for those to come; [`flat`]: packets before it.
//! - [`servers`]: which of a server's sessions a client listens to.
//!
//! Everything is sealed at the end of the caller's buffer and opened where it lies. Keys are expanded once for a session
//! and not for a packet, wherever a method lets them.

mod body;
pub mod client;
pub mod door;
mod flat;
mod salted;
pub mod server;
mod servers;
mod stock;

use std::fmt;

pub use client::{ClientSession, PacketHop, Uncovered};
pub use door::{Look, PacketDoor};
pub use salted::{AHEAD_MAX, Ahead};
pub use server::ServerSession;

use super::cipher::BadTag;
use super::identity::has_identities;
use super::window::WindowRefusal;
use super::{Generation, Method};
use crate::address::{AddressBlock, AddressError};
use crate::wire::Stop;

/// What the sender of a direction calls its session, drawn at random (SIP022, 3.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; SESSION_ID_BYTES]);

/// Bytes of a session id.
pub const SESSION_ID_BYTES: usize = 8;

/// An opened packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'p> {
    /// The target, or whom an answer is from.
    pub address: AddressBlock<'p>,
    /// What is for it, or from it; may be empty.
    pub payload: &'p [u8],
}

/// Why a packet is dropped. Nobody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// It ends within something that has to be there.
    Truncated,
    /// A tag does not fit: wrong key, or touched bytes.
    Unauthentic,
    /// The identity header names nobody (SIP023).
    UnknownIdentity,
    /// It is for another server, which alone can open it.
    Elsewhere,
    /// It is of another session than the one that was asked to open it.
    OtherSession,
    /// A packet of the other direction (SIP022, 3.2.3).
    WrongType,
    /// The clocks differ by more than SIP022 allows, or it is a replay.
    BadTime,
    /// Its id cannot come any more, or not again.
    Window(WindowRefusal),
    /// The server has begun sessions faster than they can be forgotten safely.
    TooManyServers,
    /// Its address is none.
    Address(AddressError),
    /// One-time authentication is demanded, and not there.
    NoOneTimeAuth,
    /// One-time authentication is wrong.
    BadOneTimeAuth,
}

/// How a method's packets are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// An IV, and a cipher without tags.
    Flat,
    /// A salt, and with it a key for each packet.
    Salted,
    /// A separate header, and a key for each session.
    Separate,
    /// A long nonce, and one key for all.
    Extended,
}

impl Form {
    fn of(method: Method) -> Self {
        match method.generation() {
            Generation::Stream => Self::Flat,
            Generation::Aead => Self::Salted,
            Generation::Aead2022 if has_identities(method) => Self::Separate,
            Generation::Aead2022 => Self::Extended,
        }
    }
}

/// Where the randomness of packets comes from.
pub trait Chance {
    /// Fills `room`. Called once for a packet, with as many bytes as its session has [asked for](ClientSession::chance_bytes) before, or
    /// not at all where that is none.
    fn fill(&mut self, room: &mut [u8]);

    /// Fills `room` for packets to come, if there is more to be had: what is given is never given again.
    fn more(&mut self, room: &mut [u8]) -> bool {
        let _ = room;
        false
    }
}

/// Enough for one packet.
impl<F: FnMut(&mut [u8])> Chance for F {
    fn fill(&mut self, room: &mut [u8]) {
        self(room);
    }
}

/// Splits an opened text into address and payload.
fn split(text: &[u8]) -> Result<Datagram<'_>, PacketError> {
    let (address, payload) = AddressBlock::split(text)?;
    Ok(Datagram { address, payload })
}

/// A packet of SIP022 with any body: what a holder of the key could send.
#[cfg(test)]
pub(super) fn forged(key: &super::key::Key, session: SessionId, packet: u64, body: &[u8]) -> Vec<u8> {
    use super::block::BlockKey;
    use super::cipher::packet::{ExtendedCipher, SessionCipher};

    let mut header = body::Header { session, packet }.bytes();
    if Form::of(key.method()) == Form::Separate {
        let mut text = body.to_vec();
        let tag = SessionCipher::new(key, &session.0).seal(body::nonce(&header), &mut text);
        BlockKey::of(key).encrypt(&mut header);
        return [&header[..], &text, &tag].concat();
    }
    let (nonce, mut text) = ([7; 24], [&header[..], body].concat());
    let tag = ExtendedCipher::new(key).seal(&nonce, &mut text);
    [&nonce[..], &text, &tag].concat()
}

impl From<BadTag> for PacketError {
    fn from(_: BadTag) -> Self {
        Self::Unauthentic
    }
}

impl From<WindowRefusal> for PacketError {
    fn from(refusal: WindowRefusal) -> Self {
        Self::Window(refusal)
    }
}

impl From<Stop<AddressError>> for PacketError {
    fn from(stop: Stop<AddressError>) -> Self {
        match stop {
            Stop::Incomplete => Self::Truncated,
            Stop::Malformed(error) => Self::Address(error),
        }
    }
}

/// Session ids are not printed: they tie log lines to captured traffic.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "a packet that ends within a field",
            Self::Unauthentic => "wrong key, or touched bytes",
            Self::UnknownIdentity => "wrong identity key, or an unknown user",
            Self::Elsewhere => "a packet for another server",
            Self::OtherSession => "a packet of another session",
            Self::WrongType => "a packet of the other direction",
            Self::BadTime => "clocks differ by more than 30 seconds, or a replay",
            Self::Window(WindowRefusal::Seen) => "a packet that has been here",
            Self::Window(WindowRefusal::Old) => "a packet that comes too late",
            Self::TooManyServers => "a server that begins too many sessions",
            Self::Address(error) => return error.fmt(f),
            Self::NoOneTimeAuth => "no one-time authentication",
            Self::BadOneTimeAuth => "wrong one-time authentication",
        })
    }
}

impl std::error::Error for PacketError {}
