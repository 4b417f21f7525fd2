//! Any bytes as a SOCKS5 client, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_fuzz::pieces;
use umbra_proto::address::Address;
use umbra_proto::socks5::{Error, Reply, Server};
use umbra_proto::wire::Input;
use umbra_proto::{Handshake, Step};

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    target: Result<Option<Address>, Error>,
    output: Vec<u8>,
    leftover: Vec<u8>,
}

fuzz_target!(|session: (Vec<u8>, Vec<u16>)| {
    let (bytes, cuts) = session;
    let whole = run(&[&bytes]);
    assert!(whole.output.len() <= 2 + 10);
    assert!(bytes.ends_with(&whole.leftover));
    assert_eq!(run(&pieces(&bytes, &cuts)), whole);
    assert_eq!(run(&bytes.chunks(1).collect::<Vec<_>>()), whole);
});

fn run(pieces: &[&[u8]]) -> Outcome {
    let (mut leftover, mut output) = (Vec::new(), Vec::new());
    let mut server = Some(Server::new());
    let mut target = Ok(None);
    for piece in pieces {
        leftover.extend_from_slice(piece);
        let Some(machine) = server.take() else { continue };
        let mut input = Input::new(&mut leftover);
        match machine.advance(&mut input, &mut output) {
            Ok(Step::Wait(next)) => server = Some(next),
            Ok(Step::Done(pending)) => {
                target = Ok(Some(pending.target().clone()));
                let mut answer = Vec::new();
                pending.reject(Reply::GeneralFailure, &mut answer);
                assert_eq!(answer.len(), 10);
            }
            Err(error) => target = Err(error),
        }
        let taken = input.taken();
        leftover.drain(..taken);
    }
    // What follows a refused request is nobody's.
    if target.is_err() {
        leftover.clear();
    }
    Outcome { target, output, leftover }
}
