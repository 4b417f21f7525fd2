//! Any bytes as a SOCKS4 client, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_fuzz::handshake::run;
use umbra_proto::socks4::{Reply, Server};

fuzz_target!(|session: (Vec<u8>, Vec<u16>)| {
    let (bytes, cuts) = session;
    let outcome = run(|_| Server::new(), &bytes, &cuts);
    assert!(matches!(outcome.output.len(), 0 | 8));
    if let Ok(Some(pending)) = outcome.done {
        assert!(outcome.output.is_empty() && pending.user_id().len() <= 255);
        let mut answer = Vec::new();
        pending.reject(Reply::Rejected, &mut answer);
        assert_eq!(answer, [0, 91, 0, 0, 0, 0, 0, 0]);
    }
    assert!(!matches!(run(|_| Server::refusing(), &bytes, &cuts).done, Ok(Some(_))));
});
