//! The start of a request, good and bad, cut anywhere.

use super::super::bench::{Served, Server, forged, sealed, serve};
use super::super::cipher::flat::{Flat, Way};
use super::super::key::Key;
use super::super::stream::Sealer;
use super::super::vectors::{AEAD, AEAD_2022, HELLO, NOW, key, methods, salt, sound, target, unhex};
use super::*;

fn request_salt(method: Method) -> Salt {
    salt(method, 0x80)
}

fn address() -> Vec<u8> {
    let mut address = Vec::new();
    target().encode(&mut address);
    address
}

/// A SIP022 request with this fixed header, variable header, and then records of these texts.
fn request(method: Method, fixed: (u8, u64, usize), variable: &[u8]) -> Vec<u8> {
    let (kind, stamp, len) = fixed;
    let len = u16::try_from(len).unwrap().to_be_bytes();
    let fixed = [&[kind], &stamp.to_be_bytes()[..], &len].concat();
    forged(&key(method), request_salt(method), &[&fixed, variable])
}

/// A SIP022 request whose headers are in order, and its variable header is this.
fn request_with(method: Method, variable: &[u8]) -> Vec<u8> {
    request(method, (0, NOW.0, variable.len()), variable)
}

/// A request as our client writes it, in two records.
fn ours(method: Method) -> Vec<u8> {
    let mut sealer = Sealer::request(&key(method), request_salt(method), &target());
    [sealed(&mut sealer, HELLO), sealed(&mut sealer, b"world")].concat()
}

fn refused(error: HeadError) -> Served {
    Served { error: Some(error), ..Served::default() }
}

#[test]
fn the_sip004_vectors_open() {
    for vector in AEAD {
        let served = serve(&key(vector.method), &unhex(vector.wire));
        let expected = Served { target: Some(target()), payload: HELLO.to_vec(), ..Served::default() };
        assert_eq!(served, expected, "{}", vector.method);
    }
}

#[test]
fn the_sip022_vectors_open_in_one_read() {
    for vector in AEAD_2022 {
        let secret = key(vector.method);
        let mut server = Server::new(&secret);
        server.head = HeadReads::One;
        let expected = Served {
            target: Some(target()),
            early: HELLO.to_vec(),
            payload: b"world".to_vec(),
            ..Served::default()
        };
        assert_eq!(server.serve(&[&unhex(vector.request)]), expected, "{}", vector.method);
    }
}

#[test]
fn any_flipped_bit_of_a_request_ends_it_and_releases_only_what_came_before() {
    let vectors = AEAD.iter().map(|vector| (vector.method, unhex(vector.wire)));
    let vectors = vectors.chain(AEAD_2022.iter().map(|vector| (vector.method, unhex(vector.request))));
    for (method, wire) in vectors {
        let secret = key(method);
        for at in 0..wire.len() {
            let before = serve(&secret, &wire[..at]);
            assert_eq!(before.error, None);
            for bit in 0..8 {
                let mut flipped = wire.clone();
                flipped[at] ^= 1 << bit;
                let served = serve(&secret, &flipped);
                assert_eq!(served.error, Some(OpenError::BadTag.into()), "{method} byte {at} bit {bit}");
                assert_eq!(
                    (&served.target, &served.early, &served.payload),
                    (&before.target, &before.early, &before.payload),
                    "{method} byte {at} bit {bit}"
                );
            }
        }
    }
}

#[test]
fn another_key_opens_nothing() {
    for method in sound() {
        let other = Key::from_bytes(method, &vec![9; method.key_len()]).unwrap();
        assert_eq!(serve(&other, &ours(method)).error, Some(OpenError::BadTag.into()));
    }
}

#[test]
fn a_request_is_thirty_seconds_good() {
    for method in methods(Generation::Aead2022) {
        let secret = key(method);
        for (now, error) in [
            (NOW.0 - 31, Some(OpenError::BadTime.into())),
            (NOW.0 - 30, None),
            (NOW.0 + 30, None),
            (NOW.0 + 31, Some(OpenError::BadTime.into())),
            (0, Some(OpenError::BadTime.into())),
            (u64::MAX, Some(OpenError::BadTime.into())),
        ] {
            let mut server = Server::new(&secret);
            server.now = UnixTime(now);
            let served = server.serve(&[&ours(method)]);
            assert_eq!(served.error, error, "{method} at {now}");
            assert_eq!(served.target.is_none(), error.is_some());
            assert_eq!(server.store.is_empty(), error.is_some(), "only what is in time is remembered");
        }
        let variable = [&address()[..], &[0, 0], HELLO].concat();
        for stamp in [0, u64::MAX] {
            let wire = request(method, (0, stamp, variable.len()), &variable);
            assert_eq!(serve(&secret, &wire), refused(OpenError::BadTime.into()));
        }
    }
}

#[test]
fn a_replay_is_refused_as_long_as_its_timestamp_is_good() {
    for method in Method::ALL.into_iter().filter(|method| method.salt_len() > 0) {
        let secret = key(method);
        let wire = ours(method);
        // The first comes as early as it can, so that the replays span the whole 60 seconds.
        for after in [0, 1, 30, 59, 60] {
            let mut server = Server::new(&secret);
            server.now = UnixTime(NOW.0 - 30);
            assert_eq!(server.serve(&[&wire]).error, None);
            server.now = UnixTime(NOW.0 - 30 + after);
            assert_eq!(server.serve(&[&wire]), refused(HeadError::Salt(SaltRefusal::Replayed)), "{method}");
        }
    }
}

#[test]
fn a_salt_is_remembered_only_once_its_head_is_authentic_and_of_this_direction() {
    for method in sound() {
        let secret = key(method);
        let mut server = Server::new(&secret);
        let mut damaged = ours(method);
        damaged[method.salt_len()] ^= 1;
        assert_eq!(server.serve(&[&damaged]), refused(OpenError::BadTag.into()));
        assert!(server.store.is_empty(), "strangers cannot burn a salt");
        assert_eq!(server.serve(&[&ours(method)]).error, None);
        assert_eq!(server.store.len(), 1);
    }
    for method in methods(Generation::Aead2022) {
        let secret = key(method);
        let mut server = Server::new(&secret);
        let wire = request(method, (1, NOW.0, 0), &[]);
        assert_eq!(server.serve(&[&wire]), refused(OpenError::BadType.into()));
        assert!(server.store.is_empty());
    }
}

#[test]
fn a_header_of_type_response_is_no_request() {
    for method in methods(Generation::Aead2022) {
        let variable = [&address()[..], &[0, 0], HELLO].concat();
        for kind in [1, 2, 255] {
            let wire = request(method, (kind, NOW.0, variable.len()), &variable);
            assert_eq!(serve(&key(method), &wire), refused(OpenError::BadType.into()));
        }
    }
    for vector in AEAD_2022 {
        let served = serve(&key(vector.method), &unhex(vector.response));
        assert_eq!(served, refused(OpenError::BadTag.into()));
    }
}

/// SIP004 has no type byte: a server that does not remember its own salts opens its responses as requests.
#[test]
fn a_sip004_response_sent_back_to_its_server_is_a_replay_if_its_salt_is_remembered() {
    for method in methods(Generation::Aead) {
        let secret = key(method);
        let response_salt = salt(method, 0xc0);
        let mut sealer = Sealer::response(&secret, response_salt, request_salt(method));
        let wire = sealed(&mut sealer, &[&address(), HELLO].concat());
        let mut server = Server::new(&secret);
        server.store.insert(response_salt, NOW).unwrap();
        assert_eq!(server.serve(&[&wire]), refused(HeadError::Salt(SaltRefusal::Replayed)));
    }
}

#[test]
fn a_variable_header_needs_payload_or_padding() {
    for method in methods(Generation::Aead2022) {
        let bare = [&address()[..], &[0, 0]].concat();
        let served = serve(&key(method), &request_with(method, &bare));
        assert_eq!(served, refused(HeadError::NoPayloadNoPadding));
        for good in [&[0, 0, 7][..], &[0, 1, 0], &[0, 1, 0, 7]] {
            let served = serve(&key(method), &request_with(method, &[&address(), good].concat()));
            assert_eq!((served.target, served.error), (Some(target()), None));
            assert_eq!(served.early, if good.ends_with(&[7]) { vec![7] } else { Vec::new() });
        }
    }
}

#[test]
fn a_variable_header_that_ends_inside_a_field_is_refused() {
    for method in methods(Generation::Aead2022) {
        let whole = [&address()[..], &[0, 3], &[0; 3]].concat();
        for len in 0..whole.len() {
            let served = serve(&key(method), &request_with(method, &whole[..len]));
            assert_eq!(served, refused(HeadError::Truncated), "{method} cut at {len}");
        }
        let long = [&address()[..], &[0xff, 0xff], HELLO].concat();
        assert_eq!(serve(&key(method), &request_with(method, &long)), refused(HeadError::Truncated));
    }
}

#[test]
fn a_target_that_is_no_address_is_refused_and_releases_nothing() {
    let unknown = HeadError::Address(AddressError::UnknownType(0x11));
    for method in methods(Generation::Aead2022) {
        let wire = request_with(method, b"\x11\x0bexample.com\x01\xbb\x00\x00hello");
        assert_eq!(serve(&key(method), &wire), refused(unknown));
    }
    for method in methods(Generation::Aead) {
        let wire = forged(&key(method), request_salt(method), &[&[0, 3], &[0x11, 1, 2]]);
        assert_eq!(serve(&key(method), &wire), refused(unknown));
        let wire = forged(&key(method), request_salt(method), &[&[0, 4], &[3, 0, 0, 80]]);
        assert_eq!(serve(&key(method), &wire), refused(HeadError::Address(AddressError::EmptyName)));
    }
}

#[test]
fn a_sip004_head_of_impossible_length_is_refused() {
    for method in methods(Generation::Aead) {
        for len in [0_u16, 0x4000, 0x8000, 0xc000, 0xffff] {
            let text = vec![1; usize::from(len)];
            let wire = forged(&key(method), request_salt(method), &[&len.to_be_bytes(), &text]);
            assert_eq!(serve(&key(method), &wire), refused(OpenError::BadLength.into()), "{method} {len:#x}");
        }
    }
}

#[test]
fn a_sip022_head_in_two_reads_is_refused_unless_allowed() {
    for method in methods(Generation::Aead2022) {
        let secret = key(method);
        let wire = ours(method);
        let head_len = method.salt_len() + REQUEST_FIXED_BYTES + TAG_BYTES;
        for at in 1..head_len {
            let (head, tail) = wire.split_at(at);
            let mut server = Server::new(&secret);
            assert_eq!(server.serve(&[head, tail]).error, None, "{method} at {at}");
            server = Server::new(&secret);
            server.head = HeadReads::One;
            let served = server.serve(&[head, tail]);
            assert_eq!(served.error, Some(OpenError::ShortHead.into()), "{method} at {at}");
            assert!(server.store.is_empty() && served.target.is_none());
        }
        // A look at an empty buffer is no read, and what follows the header may come in pieces.
        let (head, tail) = wire.split_at(head_len);
        let pieces: Vec<&[u8]> = [&b""[..], head].into_iter().chain(tail.chunks(1)).collect();
        let mut server = Server::new(&secret);
        server.head = HeadReads::One;
        assert_eq!(server.serve(&pieces), serve(&secret, &wire));
    }
}

#[test]
fn a_sip004_head_may_come_in_any_number_of_reads() {
    for method in methods(Generation::Aead) {
        let secret = key(method);
        let wire = ours(method);
        let mut server = Server::new(&secret);
        server.head = HeadReads::One;
        assert_eq!(server.serve(&wire.chunks(1).collect::<Vec<_>>()), serve(&secret, &wire));
    }
}

#[test]
fn a_sip004_target_may_be_spread_over_records_in_any_way() {
    for method in methods(Generation::Aead) {
        let secret = key(method);
        for text in ["1.2.3.4:80", "[::1]:443", "example.com:443", &format!("{}:1", "n".repeat(255))] {
            let target: Address = text.parse().unwrap();
            let mut plain = Vec::new();
            target.encode(&mut plain);
            plain.extend_from_slice(HELLO);
            let lengths = [1, 2, 3, 5, plain.len() - 6, plain.len()];
            for record_len in lengths {
                let mut texts: Vec<Vec<u8>> = Vec::new();
                for text in plain.chunks(record_len) {
                    texts.push(u16::try_from(text.len()).unwrap().to_be_bytes().to_vec());
                    texts.push(text.to_vec());
                }
                let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
                let wire = forged(&secret, request_salt(method), &texts);
                let whole = serve(&secret, &wire);
                assert_eq!((&whole.target, whole.error), (&Some(target.clone()), None));
                assert_eq!([&whole.early[..], &whole.payload].concat(), HELLO, "{method} {record_len}");
                let bytes = Server::new(&secret).serve(&wire.chunks(1).collect::<Vec<_>>());
                assert_eq!(bytes, whole);
            }
        }
    }
}

#[test]
fn a_head_without_tags_is_judged_by_its_address_and_only_then_remembered() {
    for method in methods(Generation::Stream) {
        let secret = key(method);
        let turned = |address: &[u8]| {
            let mut text = address.to_vec();
            Flat::new(&secret, &request_salt(method), Way::Seal).apply(&mut text);
            [request_salt(method).as_bytes(), &text].concat()
        };
        let mut server = Server::new(&secret);
        let refusals = [
            (&[0x21, 1, 2, 3, 4, 0, 80][..], AddressError::UnknownType(0x21)),
            (&[2], AddressError::UnknownType(2)),
            (&[3, 0], AddressError::EmptyName),
            (&[3, 2, b'a', 10, 0, 80], AddressError::BadName),
        ];
        for (address, error) in refusals {
            let wire = turned(address);
            let pieces: [Vec<&[u8]>; 2] = [vec![&wire], wire.chunks(1).collect()];
            for pieces in pieces {
                assert_eq!(server.serve(&pieces), refused(HeadError::Address(error)), "{method} {address:?}");
            }
            assert!(server.store.is_empty(), "{method}");
        }
        let mut wire = turned(&address());
        assert_eq!(server.serve(&[&wire[..wire.len() - 1]]), Served::default(), "{method}: not yet");
        assert!(server.store.is_empty(), "{method}");
        wire.truncate(request_salt(method).as_bytes().len() + address().len());
        assert_eq!(server.serve(&[&wire]).target, Some(target()), "{method}: the target may speak first");
        assert_eq!(server.store.len(), usize::from(method.salt_len() > 0), "{method}");
    }
}

#[test]
fn nothing_prints_keys_salts_or_what_was_said() {
    for method in Method::ALL {
        // 171 and 205, in no other place; two bytes in a row are what a derived Debug would print in hex.
        let key = Key::from_bytes(method, &vec![0xab; method.key_len()]).unwrap();
        let salt = Salt::new(method, [0xcd; 32]);
        let mut sealer = Sealer::request(&key, salt, &target());
        let mut opener = Opener::response(&key, salt, HeadReads::One);
        let mut printed = vec![format!("{key:?} {salt:?} {sealer:?} {opener:?}")];
        let mut wire = sealed(&mut sealer, b"XYZZY");
        drop(opener.open(&mut Input::new(&mut [1; 200]), NOW));
        printed.push(format!("{sealer:?} {opener:?}"));

        let mut input = Input::new(&mut wire);
        let keyring = Keyring::from(key);
        let expect = ExpectHead::new(&keyring, TrialOrder::new(&keyring), HeadReads::One);
        printed.push(format!("{expect:?}"));
        let Ok(step) = expect.advance(&mut input, &mut Vec::new()) else { panic!("our own head") };
        printed.push(format!("{step:?}"));
        let Step::Done(Head::Authentic(authentic)) = step else { panic!("our own head") };
        let mut store = SaltStore::new(method);
        let expect = authentic.admit(&mut store, NOW).unwrap();
        printed.push(format!("{expect:?} {store:?}"));
        let Ok(step) = expect.advance(&mut input, &mut Vec::new()) else { panic!("our own head") };
        printed.push(format!("{step:?}"));

        let printed = printed.join("\n");
        for secret in ["171", "205", "abab", "ABAB", "0xab", "cdcd", "CDCD", "0xcd", "XYZZY", "88, 89"] {
            assert!(!printed.contains(secret), "{secret} is in {printed}");
        }
    }
}
