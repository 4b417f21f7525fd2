//! Umbra's protocols, pure: bytes in, bytes out.
//!
//! No socket, no clock, no randomness and no task lives here; what a protocol needs of them is an argument. So every
//! machine can be split anywhere in a test, fuzzed, and replayed.
//!
//! - [`wire`]: bytes that have arrived, and the difference between "not yet" and "never".
//! - [`address`]: where a session goes.
//! - [`request`]: what the clients of all doors ask for, and the reasons against it.
//! - [`users`]: names and passwords.
//! - [`forbidden`]: which targets nobody is led to.
//! - [`detect`]: all doors on one port; [`socks5`], [`socks4`], [`http`]: each of them, and the client's side of each.
//! - [`proxy_header`]: whose connection it is, told by whoever passes it on.
//! - [`shadowsocks`]: methods, keys, the two AEAD generations, replay memory.
//! - [`url`]: `ss://` links; [`parent_url`]: URLs of proxies on the way out.
//! - [`limits`]: every bound, with its reason.

#![forbid(unsafe_code)]

pub mod address;
pub mod detect;
pub mod forbidden;
pub mod http;
pub mod limits;
pub mod parent_url;
pub mod proxy_header;
pub mod request;
pub mod shadowsocks;
pub mod socks4;
pub mod socks5;
#[cfg(test)]
mod testing;
pub mod url;
pub mod users;
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

impl<H: Handshake> Step<H> {
    /// The same step of a negotiation that contains this one.
    pub fn map<G: Handshake>(
        self,
        wait: impl FnOnce(H) -> G,
        done: impl FnOnce(H::Done) -> G::Done,
    ) -> Step<G> {
        match self {
            Self::Wait(machine) => Step::Wait(wait(machine)),
            Self::Done(outcome) => Step::Done(done(outcome)),
        }
    }
}
