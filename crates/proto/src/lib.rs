//! Umbra's protocols, pure: bytes in, bytes out.
//!
//! No socket, no clock, no randomness and no task lives here; what a protocol needs of them is an argument. So every
//! machine can be split anywhere in a test, fuzzed, and replayed.
//!
//! - [`wire`]: bytes that have arrived, and the difference between "not yet" and "never".
//! - [`address`]: where a session goes.
//! - [`socks5`]: the SOCKS5 door.
//! - [`shadowsocks`]: methods, keys, the two AEAD generations, replay memory.
//! - [`url`]: `ss://` links.
//! - [`limits`]: every bound, with its reason.

#![forbid(unsafe_code)]

pub mod address;
pub mod limits;
pub mod shadowsocks;
pub mod socks5;
pub mod url;
pub mod wire;

use wire::Input;

/// A negotiation with one peer.
///
/// Taken by value: one that failed or finished cannot be spoken to again.
pub trait Handshake: Sized {
    /// What the negotiation yields.
    type Done;
    /// The ways in which a peer can be wrong.
    type Error;

    /// Takes whole messages off the front of `input` and appends answers to `output`.
    ///
    /// Each call stands for one read from the peer. What belongs to the next layer stays in `input`. On an error,
    /// `output` holds what the peer is still to be told.
    fn advance(self, input: &mut Input<'_>, output: &mut Vec<u8>) -> Result<Step<Self>, Self::Error>;
}

/// How far a negotiation has come.
#[derive(Debug)]
pub enum Step<H: Handshake> {
    /// The peer has to speak next.
    Wait(H),
    /// Agreed.
    Done(H::Done),
}
