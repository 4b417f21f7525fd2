//! A response to our client: ours through a hostile network, or one from somebody who holds the key and says anything.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_fuzz::{
    NOW, Payload, REQUEST_SALT, RESPONSE_SALT, Record, carry, crumbs, forge, key, method, pieces, receive,
    salt,
};
use umbra_proto::shadowsocks::Generation;
use umbra_proto::shadowsocks::stream::{HeadReads, Sealer};

#[derive(Arbitrary, Debug)]
struct Session {
    method: u8,
    response: Response,
    cuts: Vec<u16>,
}

#[derive(Arbitrary, Debug)]
enum Response {
    Ours(Vec<Record>),
    Header { kind: u8, skew: i8, echoes_ours: bool, off_by: i8, payload: Payload },
    Texts { salt: u8, texts: Vec<Vec<u8>> },
}

fuzz_target!(|session: Session| {
    let method = method(session.method);
    let key = key(method);
    // The wire, and what the client must release where that is known.
    let (wire, said) = match session.response {
        Response::Ours(script) => {
            let salts = (salt(method, RESPONSE_SALT), salt(method, REQUEST_SALT));
            let (wire, said) = carry(&mut Sealer::response(&key, salts.0, salts.1), &script);
            (wire, Some(said))
        }
        Response::Header { kind, skew, echoes_ours, off_by, payload } => {
            let payload = payload.bytes(method.payload_max());
            let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            let announced = len.saturating_add_signed(off_by.into());
            let stamp = NOW.0.saturating_add_signed(skew.into());
            let echoed = salt(method, if echoes_ours { REQUEST_SALT } else { RESPONSE_SALT });
            let fixed =
                [&[kind], &stamp.to_be_bytes()[..], echoed.as_bytes(), &announced.to_be_bytes()].concat();
            let good = kind == 1 && skew.unsigned_abs() <= 30 && echoes_ours && announced == len;
            let said = match method.generation() {
                Generation::Stream | Generation::Aead => Vec::new(),
                Generation::Aead2022 if good => payload.clone(),
                Generation::Aead2022 => Vec::new(),
            };
            (forge(method, RESPONSE_SALT, &[fixed, payload]), Some(said))
        }
        Response::Texts { salt, texts } => {
            let said = (salt == REQUEST_SALT).then(Vec::new);
            (forge(method, salt, &texts), said)
        }
    };
    let whole = receive(&key, HeadReads::Many, &[&wire]).settled();
    if let Some(said) = said {
        assert_eq!(whole.payload, said);
    }
    assert!(whole.payload.len() <= wire.len());
    assert_eq!(receive(&key, HeadReads::Many, &pieces(&wire, &session.cuts)).settled(), whole);
    assert_eq!(receive(&key, HeadReads::Many, &crumbs(&wire)).settled(), whole);
    assert_eq!(receive(&key, HeadReads::One, &[&wire]).payload, whole.payload);
});
