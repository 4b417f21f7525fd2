//! What the tests of all handshakes share: a machine driven in pieces, cut everywhere.

use std::fmt;

use crate::users::{Credentials, Users};
use crate::wire::Input;
use crate::{Handshake, Step};

/// Everything a run leaves behind: outcome, answers, and the next layer's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome<D, E> {
    pub(crate) done: Result<Option<D>, E>,
    pub(crate) output: Vec<u8>,
    pub(crate) leftover: Vec<u8>,
}

/// Drives a fresh machine, each piece being one read.
pub(crate) fn run<H: Handshake>(
    start: impl Fn(&mut Vec<u8>) -> H,
    pieces: &[&[u8]],
) -> Outcome<H::Done, H::Error> {
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

/// The outcome of a session, which is the same whole, cut at every byte, and byte by byte.
pub(crate) fn run_cut<H: Handshake>(
    start: impl Fn(&mut Vec<u8>) -> H,
    session: &[u8],
) -> Outcome<H::Done, H::Error>
where
    H::Done: PartialEq + fmt::Debug,
    H::Error: PartialEq + fmt::Debug,
{
    let whole = run(&start, &[session]);
    for at in 0..=session.len() {
        let (head, tail) = session.split_at(at);
        assert_eq!(run(&start, &[head, tail]), whole, "split at {at}");
    }
    assert_eq!(run(&start, &session.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    whole
}

/// A door's users: alice with `secret`, bob with `hunter2`.
pub(crate) fn users() -> Users {
    let users = [("alice", "secret"), ("bob", "hunter2")];
    let credentials =
        users.map(|(name, password)| Credentials::new(name, password).expect("short and not empty"));
    Users::new([7; 32], credentials).expect("two names")
}
