//! Any bytes as a SOCKS4 server, and as its second answer, cut anywhere; any user id and any target in a request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_fuzz::handshake::run;
use umbra_proto::address::{Address, DomainName};
use umbra_proto::request::{Command, Names};
use umbra_proto::socks4::Server;
use umbra_proto::socks4::client::{ExpectReply, Request, UserId};

/// What the server says, where it is cut; what is asked for, as whom; a target with its port.
type Session = (Vec<u8>, Vec<u16>, u8, Vec<u8>, Result<[u8; 16], String>, u16);

fuzz_target!(|session: Session| {
    let (bytes, cuts, kind, user_id, target, port) = session;
    hear(&bytes, &cuts);
    let Some((target, user_id)) = read(&target, port).zip(UserId::new(&user_id).ok()) else { return };
    let command = [Command::Connect, Command::Bind, Command::UdpAssociate][usize::from(kind >> 1) % 3];
    let names = if kind & 1 == 0 { Names::ResolveHere } else { Names::PassOn };
    let mut output = Vec::new();
    let asked = Request { command, target: &target, names, user_id: &user_id }.send(&mut output);
    if asked.is_err() {
        assert!(output.is_empty(), "an error comes before anything is said");
        return;
    }
    assert!(output.len() <= 8 + 256 + 256);
    let outcome = run(|_| Server::new(), &output, &cuts);
    let pending = outcome.done.expect("what we ask for is well-formed").expect("and whole");
    assert!(outcome.leftover.is_empty() && pending.command() == command);
    assert_eq!(pending.target().port(), port);
    assert_eq!(pending.user_id().is_empty(), user_id.is_empty());
});

fn hear(bytes: &[u8], cuts: &[u16]) {
    let outcome = run(|_| ExpectReply, bytes, cuts);
    assert!(outcome.output.is_empty());
    match outcome.done {
        Ok(Some(granted)) => {
            assert!(bytes.starts_with(b"\x00\x5a") && outcome.leftover == bytes[8..]);
            assert_eq!(granted.bound.port().to_be_bytes(), bytes[2..4]);
            assert_eq!(granted.bound.ip().octets(), bytes[4..8]);
            run(|_| ExpectReply, &outcome.leftover, cuts);
        }
        Ok(None) => assert!(bytes.len() < 8),
        Err(_) => assert!(!bytes.starts_with(b"\x00\x5a")),
    }
}

fn read(target: &Result<[u8; 16], String>, port: u16) -> Option<Address> {
    match target {
        Ok(ip) => Some(Address::Ip((*ip, port).into())),
        Err(name) => DomainName::new(name).ok().map(|name| Address::Name(name, port)),
    }
}
