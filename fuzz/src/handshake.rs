//! Any handshake, driven in pieces.

use std::fmt;

use umbra_proto::users::{Credentials, Users};
use umbra_proto::wire::Input;
use umbra_proto::{Handshake, Step};

/// Everything a run leaves behind: outcome, answers, and the next layer's bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome<D, E> {
    pub done: Result<Option<D>, E>,
    pub output: Vec<u8>,
    pub leftover: Vec<u8>,
}

/// The outcome for `bytes`, which has to be the same whole, cut at these places, and byte by byte.
pub fn run<H: Handshake>(
    start: impl Fn(&mut Vec<u8>) -> H,
    bytes: &[u8],
    cuts: &[u16],
) -> Outcome<H::Done, H::Error>
where
    H::Done: PartialEq + fmt::Debug,
    H::Error: PartialEq + fmt::Debug,
{
    let whole = drive(&start, &[bytes]);
    assert_eq!(drive(&start, &crate::pieces(bytes, cuts)), whole);
    assert_eq!(drive(&start, &bytes.chunks(1).collect::<Vec<_>>()), whole);
    assert!(bytes.ends_with(&whole.leftover));
    whole
}

fn drive<H: Handshake>(start: impl Fn(&mut Vec<u8>) -> H, pieces: &[&[u8]]) -> Outcome<H::Done, H::Error> {
    let (mut leftover, mut output) = (Vec::new(), Vec::new());
    let mut machine = Some(start(&mut output));
    let mut done = Ok(None);
    for piece in pieces {
        leftover.extend_from_slice(piece);
        let Some(waiting) = machine.take() else { continue };
        let mut input = Input::new(&mut leftover);
        match waiting.advance(&mut input, &mut output) {
            Ok(Step::Wait(next)) => machine = Some(next),
            Ok(Step::Done(outcome)) => done = Ok(Some(outcome)),
            Err(error) => done = Err(error),
        }
        let taken = input.taken();
        leftover.drain(..taken);
    }
    // What follows a refused request is nobody's.
    if done.is_err() {
        leftover.clear();
    }
    Outcome { done, output, leftover }
}

/// A door's only user.
pub fn credentials() -> Credentials {
    Credentials::new("alice", "secret").expect("short and not empty")
}

/// A door's users: alice alone.
pub fn users() -> Users {
    Users::new([7; 32], [credentials()]).expect("one user")
}
