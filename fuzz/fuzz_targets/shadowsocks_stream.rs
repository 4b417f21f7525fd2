//! Our client's request and records through a network that flips, cuts, loses, repeats and inserts.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_fuzz::{NOW, REQUEST_SALT, Record, carry, crumbs, key, pieces, salt, serve, sound_method};
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::stream::{HeadReads, Sealer};

#[derive(Arbitrary, Debug)]
struct Session {
    method: u8,
    name_len: u8,
    /// The random number for the padding of a start without payload.
    padding: Option<u16>,
    script: Vec<Record>,
    cuts: Vec<u16>,
}

fuzz_target!(|session: Session| {
    let method = sound_method(session.method);
    let key = key(method);
    let name = "n".repeat(usize::from(session.name_len.max(1)));
    let target = Address::from_host(&name, 80).expect("a name of 1 to 255 letters");
    let mut sealer = Sealer::request(&key, salt(method, REQUEST_SALT), &target);
    let mut wire = Vec::new();
    if let Some(padding) = session.padding {
        sealer.seal_request_without_payload(padding, NOW, &mut wire);
    }
    let (records, said) = carry(&mut sealer, &session.script);
    wire.extend(records);

    let whole = serve(&key, HeadReads::Many, &[&wire]).settled();
    assert_eq!(whole.said(), said);
    assert!(whole.target.as_ref().is_none_or(|heard| *heard == target));
    assert_eq!(serve(&key, HeadReads::Many, &pieces(&wire, &session.cuts)).settled(), whole);
    assert_eq!(serve(&key, HeadReads::Many, &crumbs(&wire)).settled(), whole);
});
