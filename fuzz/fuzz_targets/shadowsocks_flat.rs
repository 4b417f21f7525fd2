//! The methods without tags: our client's request through a network that cuts, with and without one-time authentication and
//! then damaged, and a server and a client that are sent anything.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_fuzz::{NOW, Payload, REQUEST_SALT, RESPONSE_SALT, flat_method, key, pieces, receive, salt, serve};
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::stream::{HeadReads, Sealer};

#[derive(Arbitrary, Debug)]
struct Session {
    method: u8,
    one_time_auth: bool,
    name_len: u8,
    alone: bool,
    payloads: Vec<Payload>,
    cuts: Vec<u16>,
    flip: (u16, u8),
    noise: Vec<u8>,
}

fuzz_target!(|session: Session| {
    let method = flat_method(session.method);
    let key = key(method);
    let name = "n".repeat(usize::from(session.name_len.max(1)));
    let target = Address::from_host(&name, 80).expect("a name of 1 to 255 letters");
    let iv = salt(method, REQUEST_SALT);
    let mut sealer = if session.one_time_auth {
        Sealer::request_with_one_time_auth(&key, iv, &target)
    } else {
        Sealer::request(&key, iv, &target)
    };
    let mut wire = Vec::new();
    if session.alone || session.payloads.is_empty() {
        sealer.seal_request_without_payload(0, NOW, &mut wire);
    }
    let said = say(&mut sealer, &session.payloads, &mut wire);
    let whole = serve(&key, HeadReads::One, &[&wire]);
    assert_eq!((whole.said(), whole.target.as_ref(), whole.error), (said.clone(), Some(&target), None));
    assert_eq!(serve(&key, HeadReads::One, &pieces(&wire, &session.cuts)), whole);

    // Behind the byte that says that there is one, an HMAC lets nothing through that was not said.
    let from = method.salt_len() + 1;
    if session.one_time_auth {
        let (at, bit) = session.flip;
        let at = from + usize::from(at) % (wire.len() - from);
        wire[at] ^= 1 << (bit % 8);
        let flipped = serve(&key, HeadReads::One, &[&wire]);
        assert!(said.starts_with(&flipped.said()) && flipped.target.is_none_or(|heard| heard == target));
    }

    let mut wire = Vec::new();
    let said =
        say(&mut Sealer::response(&key, salt(method, RESPONSE_SALT), iv), &session.payloads, &mut wire);
    assert_eq!(receive(&key, HeadReads::One, &pieces(&wire, &session.cuts)).payload, said);

    let whole = serve(&key, HeadReads::One, &[&session.noise]).settled();
    assert_eq!(serve(&key, HeadReads::One, &pieces(&session.noise, &session.cuts)).settled(), whole);
    let whole = receive(&key, HeadReads::One, &[&session.noise]).settled();
    assert_eq!(receive(&key, HeadReads::One, &pieces(&session.noise, &session.cuts)).settled(), whole);
});

/// Without records nothing changes with the length of a payload, a chunk's length has used both of its bytes by here, and what these
/// ciphers take for longer ones is better spent on more sessions.
const LONG: usize = 1024;

fn say(sealer: &mut Sealer, payloads: &[Payload], wire: &mut Vec<u8>) -> Vec<u8> {
    let mut said = Vec::new();
    for payload in payloads {
        let payload = payload.bytes(sealer.payload_max().min(LONG));
        let start = wire.len();
        wire.resize(start + sealer.head_len(), 0);
        wire.extend_from_slice(&payload);
        wire.resize(wire.len() + sealer.tail_len(), 0);
        sealer.seal(&mut wire[start..], NOW);
        said.extend(payload);
    }
    said
}
