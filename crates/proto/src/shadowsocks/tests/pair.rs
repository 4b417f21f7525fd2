//! Our client against our server in memory, and both cut anywhere.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::bench::{Received, Server, cuts, forged, receive, sealed, serve};
use super::key::Key;
use super::stream::{HeadReads, Opener, Sealer};
use super::vectors::{AEAD, AEAD_2022, HELLO, NOW, key, salt, sound, target, unhex};
use super::{Generation, Method, Salt};
use crate::address::Address;

#[test]
fn a_request_cut_anywhere_is_the_same_request() {
    for method in Method::ALL {
        let secret = key(method);
        let mut sealer = Sealer::request(&secret, salt(method, 1), &target());
        let mut ours = sealed(&mut sealer, HELLO);
        ours.extend(sealed(&mut sealer, b"world"));
        let unfinished = sealed(&mut sealer, b"unfinished");
        ours.extend(&unfinished[..unfinished.len().min(20)]);
        let mut sealer = Sealer::request(&secret, salt(method, 1), &target());
        let mut without_payload = Vec::new();
        sealer.seal_request_without_payload(5, NOW, &mut without_payload);
        without_payload.extend(sealed(&mut sealer, HELLO));
        let vectors = AEAD.iter().map(|vector| (vector.method, vector.wire));
        let vectors = vectors.chain(AEAD_2022.iter().map(|vector| (vector.method, vector.request)));
        let of_the_facts = vectors.filter(|(of, _)| *of == method).map(|(_, wire)| unhex(wire));
        for session in of_the_facts.chain([ours, without_payload]) {
            let whole = serve(&secret, &session);
            assert_eq!((&whole.target, whole.error), (&Some(target()), None));
            for pieces in cuts(&session) {
                assert_eq!(Server::new(&secret).serve(&pieces), whole, "{method} {pieces:?}");
            }
        }
    }
}

#[test]
fn a_response_cut_anywhere_is_the_same_response() {
    for method in Method::ALL {
        let secret = key(method);
        let mut sealer = Sealer::response(&secret, salt(method, 2), salt(method, 1));
        let mut session = sealed(&mut sealer, b"hi");
        session.extend(sealed(&mut sealer, b"again"));
        let unfinished = sealed(&mut sealer, b"unfinished");
        session.extend(&unfinished[..unfinished.len().min(20)]);
        let receive = |pieces: &[&[u8]]| {
            receive(&mut Opener::response(&secret, salt(method, 1), HeadReads::Many), NOW, pieces)
        };
        let whole = receive(&[&session]);
        match method.generation() {
            Generation::Stream => assert_eq!(whole.payload, b"hiagainunfinished"),
            Generation::Aead | Generation::Aead2022 => {
                assert_eq!((&whole.payload[..], whole.leftover.len()), (&b"hiagain"[..], 2));
            }
        }
        for pieces in cuts(&session) {
            assert_eq!(receive(&pieces), whole, "{method} {pieces:?}");
        }
    }
}

fn any_target() -> impl Strategy<Value = Address> {
    prop_oneof![
        ("[a-z0-9.-]{1,255}", any::<u16>()).prop_map(|(name, port)| Address::from_host(&name, port).unwrap()),
        any::<(std::net::IpAddr, u16)>().prop_map(|address| Address::Ip(address.into())),
    ]
}

/// Lengths of payloads: most are small, some as long as a record can be (cut to size where they are used).
fn any_lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![4 => 1..300_usize, 2 => 1..0x5000_usize, 1 => Just(usize::MAX)], 0..6)
}

fn any_session() -> impl Strategy<Value = (Method, [u8; 32], [u8; 32], [u8; 32])> {
    (select(&Method::ALL), any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 32]>())
        .prop_filter("salts are unique", |(_, _, request, response)| request[..8] != response[..8])
}

/// Seals payloads of these lengths; gives what was said and what went over the wire.
fn say(sealer: &mut Sealer, lengths: &[usize], wire: &mut Vec<u8>) -> Vec<u8> {
    let mut said = Vec::new();
    for length in lengths {
        let payload: Vec<u8> = (0..=250)
            .cycle()
            .skip(said.len())
            .take((*length).min(sealer.payload_max()).min(0x11000))
            .collect();
        wire.extend(sealed(sealer, &payload));
        said.extend(payload);
    }
    said
}

fn pieces<'w>(wire: &'w [u8], cuts: &[Index]) -> Vec<&'w [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
    places.sort_unstable();
    let starts = std::iter::once(0).chain(places.iter().copied());
    let ends = places.iter().copied().chain([wire.len()]);
    starts.zip(ends).map(|(start, end)| &wire[start..end]).collect()
}

proptest! {
    #[test]
    fn what_a_client_says_a_server_hears_and_back(
        (method, secret, request_salt, response_salt) in any_session(),
        target in any_target(),
        (with_payload, padding) in any::<(bool, u16)>(),
        (up, down) in (any_lengths(), any_lengths()),
        cuts in prop::collection::vec(any::<Index>(), 0..20),
    ) {
        let key = Key::from_bytes(method, &secret[..method.key_len()]).unwrap();
        let (request_salt, response_salt) = (Salt::new(method, request_salt), Salt::new(method, response_salt));
        let mut wire = Vec::new();
        let mut sealer = Sealer::request(&key, request_salt, &target);
        if !with_payload || up.is_empty() {
            sealer.seal_request_without_payload(padding, NOW, &mut wire);
        }
        let said = say(&mut sealer, &up, &mut wire);
        let served = Server::new(&key).serve(&pieces(&wire, &cuts));
        prop_assert_eq!([served.early, served.payload].concat(), said);
        prop_assert_eq!((served.target, served.leftover, served.error), (Some(target), Vec::new(), None));

        let mut wire = Vec::new();
        let said = say(&mut Sealer::response(&key, response_salt, request_salt), &down, &mut wire);
        let mut opener = Opener::response(&key, request_salt, HeadReads::Many);
        let received = receive(&mut opener, NOW, &pieces(&wire, &cuts));
        prop_assert_eq!(received, Received { payload: said, leftover: Vec::new(), error: None });
        prop_assert!(opener.may_end(0));
    }

    #[test]
    fn no_bytes_make_either_end_panic_or_speak(
        method in select(&Method::ALL),
        bytes: Vec<u8>,
        cuts in prop::collection::vec(any::<Index>(), 0..4),
    ) {
        let key = key(method);
        let served = Server::new(&key).serve(&pieces(&bytes, &cuts));
        let mut opener = Opener::response(&key, salt(method, 1), HeadReads::Many);
        let received = receive(&mut opener, NOW, &pieces(&bytes, &cuts));
        if !method.is_insecure() {
            prop_assert!(served.target.is_none() && served.payload.is_empty() && received.payload.is_empty());
        }
    }

    // As a holder of the key would do it: past the tags any text at all.
    #[test]
    fn no_sealed_texts_make_either_end_panic_or_hear_what_was_not_said(
        method in select(sound().collect::<Vec<_>>()),
        texts in prop::collection::vec(prop_oneof![
            any::<Vec<u8>>(),
            any::<u16>().prop_map(|len| len.to_be_bytes().to_vec()),
            (0..40_u8).prop_map(|len| vec![0, len]),
            (0..3_u8, any::<u16>()).prop_map(|(kind, len)| {
                [&[kind], &NOW.0.to_be_bytes()[..], &len.to_be_bytes()].concat()
            }),
            (0..40_u8).prop_map(|len| [&[0], &NOW.0.to_be_bytes()[..], &[0, len]].concat()),
            any::<(u8, Vec<u8>)>().prop_map(|(kind, rest)| [vec![kind % 6], rest].concat()),
        ], 0..5),
        cuts in prop::collection::vec(any::<Index>(), 0..4),
    ) {
        let key = key(method);
        let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        let wire = forged(&key, salt(method, 1), &texts);
        let said: usize = texts.iter().map(|text| text.len()).sum();
        let whole = serve(&key, &wire);
        let cut = Server::new(&key).serve(&pieces(&wire, &cuts));
        prop_assert_eq!((&cut.target, &cut.early, &cut.payload, cut.error), (&whole.target, &whole.early, &whole.payload, whole.error));
        prop_assert!(whole.early.len() + whole.payload.len() <= said);
        let mut opener = Opener::response(&key, salt(method, 2), HeadReads::Many);
        let received = receive(&mut opener, NOW, &pieces(&wire, &cuts));
        prop_assert!(received.payload.len() <= said);
        prop_assert!(method.generation() == Generation::Aead || received.payload.is_empty());
    }
}
