//! Any bytes as a SOCKS5 server, and as its second answer, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_fuzz::handshake::{credentials, run};
use umbra_proto::address::Address;
use umbra_proto::request::Command;
use umbra_proto::socks5::client::{Client, ExpectReply, Request};

fuzz_target!(|session: (bool, u8, Vec<u8>, Vec<u16>)| {
    let (has_login, command, bytes, cuts) = session;
    let commands = [Command::Connect, Command::Bind, Command::UdpAssociate];
    let command = commands[usize::from(command) % 3];
    let target: Address = "example.com:80".parse().expect("an address");
    let credentials = credentials();
    let credentials = has_login.then_some(&credentials);
    let start = |output: &mut Vec<u8>| Client::new(Request { command, target: &target }, credentials, output);
    let outcome = run(start, &bytes, &cuts);
    let mut request = Vec::new();
    target.encode(&mut request);
    assert!(outcome.output.len() <= 4 + 14 + 3 + request.len());
    if matches!(outcome.done, Ok(Some(_))) {
        assert!(outcome.output.ends_with(&request));
        run(|_| ExpectReply, &outcome.leftover, &cuts);
    }
});
