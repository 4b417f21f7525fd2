//! Any bytes as a SOCKS5 client, with and without a login, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_fuzz::handshake::{run, users};
use umbra_proto::socks5::{Reply, Server};

fuzz_target!(|session: (bool, bool, Vec<u8>, Vec<u16>)| {
    let (asks, logs_in, bytes, cuts) = session;
    let bytes = [if logs_in { LOGIN } else { b"" }, &bytes].concat();
    let users = users();
    let outcome = run(|_| Server::with_users(asks.then_some(&users)), &bytes, &cuts);
    assert!(outcome.output.len() <= 2 + 2 + 10);
    if let Ok(Some(pending)) = outcome.done {
        assert_eq!(pending.user().is_some(), asks);
        assert_eq!(&outcome.output[..], if asks { &[5, 2, 1, 0][..] } else { &[5, 0] });
        let mut answer = Vec::new();
        pending.reject(Reply::GeneralFailure, &mut answer);
        assert_eq!(answer.len(), 10);
    }
});

/// What the fuzzer cannot find by itself, for it is compared as a digest.
const LOGIN: &[u8] = b"\x05\x01\x02\x01\x05alice\x06secret";
