//! Records and responses against the vectors, and every way of being wrong.

use super::super::Method;
use super::super::bench::{Received, forged, receive, sealed, serve};
use super::super::vectors::{AEAD, AEAD_2022, HELLO, NOW, key, methods, salt, sound, target, unhex};
use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn request_salt(method: Method) -> Salt {
    salt(method, 0x80)
}

fn response_salt(method: Method) -> Salt {
    salt(method, 0xc0)
}

fn client(method: Method, head: HeadReads) -> Opener {
    Opener::response(&key(method), request_salt(method), head)
}

fn receive_whole(method: Method, wire: &[u8]) -> Received {
    receive(&mut client(method, HeadReads::One), NOW, &[wire])
}

/// A SIP022 response header with these fields, then `payload` as the first text.
fn response(method: Method, kind: u8, stamp: u64, echoed: Salt, len: u16, payload: &[u8]) -> Vec<u8> {
    let mut fixed = vec![kind];
    fixed.extend_from_slice(&stamp.to_be_bytes());
    fixed.extend_from_slice(echoed.as_bytes());
    fixed.extend_from_slice(&len.to_be_bytes());
    forged(&key(method), response_salt(method), &[&fixed, payload])
}

#[test]
fn sealing_reproduces_the_sip004_vectors() {
    for vector in AEAD {
        let mut sealer = Sealer::request(&key(vector.method), salt(vector.method, 0), &target());
        assert!(sealer.owes_request());
        let mut wire = Vec::new();
        sealer.seal_request_without_payload(77, NOW, &mut wire);
        assert!(!sealer.owes_request());
        wire.extend_from_slice(&sealed(&mut sealer, HELLO));
        assert_eq!(wire, unhex(vector.wire), "{}", vector.method);
    }
}

/// The vectors' requests have padding and payload, of which our sealer sends one at a time.
#[test]
fn sealing_a_sip022_request_differs_from_the_vector_by_the_padding_alone() {
    for vector in AEAD_2022 {
        let method = vector.method;
        let mut address = Vec::new();
        target().encode(&mut address);
        let variable = |padding: &[u8], payload: &[u8]| {
            let padding_len = u16::try_from(padding.len()).unwrap().to_be_bytes();
            [&address, &padding_len[..], padding, payload].concat()
        };
        let expected = |variable: &[u8]| {
            let fixed =
                [&[0], &NOW.0.to_be_bytes()[..], &u16::try_from(variable.len()).unwrap().to_be_bytes()]
                    .concat();
            forged(&key(method), request_salt(method), &[&fixed, variable, &[0, 5], b"world"])
        };
        assert_eq!(expected(&variable(&[0, 0x11, 0x22], HELLO)), unhex(vector.request), "{method}");

        let mut sealer = Sealer::request(&key(method), request_salt(method), &target());
        let wire = [sealed(&mut sealer, HELLO), sealed(&mut sealer, b"world")].concat();
        assert_eq!(wire, expected(&variable(&[], HELLO)), "{method}");

        let mut sealer = Sealer::request(&key(method), request_salt(method), &target());
        let mut wire = Vec::new();
        sealer.seal_request_without_payload(2, NOW, &mut wire);
        wire.extend_from_slice(&sealed(&mut sealer, b"world"));
        assert_eq!(wire, expected(&variable(&[0, 0, 0], &[])), "{method}");
    }
}

#[test]
fn sealing_reproduces_the_sip022_responses() {
    for vector in AEAD_2022 {
        let method = vector.method;
        let mut sealer = Sealer::response(&key(method), response_salt(method), request_salt(method));
        let wire = [sealed(&mut sealer, b"hi"), sealed(&mut sealer, b"again")].concat();
        assert_eq!(wire, unhex(vector.response), "{method}");
    }
}

#[test]
fn a_sip004_response_is_its_records_after_the_salt() {
    for method in methods(Generation::Aead) {
        let mut sealer = Sealer::response(&key(method), response_salt(method), request_salt(method));
        let wire = [sealed(&mut sealer, b"hi"), sealed(&mut sealer, b"again")].concat();
        let texts: [&[u8]; 4] = [&[0, 2], b"hi", &[0, 5], b"again"];
        assert_eq!(wire, forged(&key(method), response_salt(method), &texts), "{method}");
        assert_eq!(receive_whole(method, &wire).payload, b"hiagain");
    }
}

#[test]
fn the_vectors_responses_open_and_leave_the_rest() {
    for vector in AEAD_2022 {
        let mut wire = unhex(vector.response);
        wire.extend_from_slice(b"17 more bytes....");
        let received = receive_whole(vector.method, &wire);
        let expected =
            Received { payload: b"hiagain".to_vec(), leftover: b"17 more bytes....".to_vec(), error: None };
        assert_eq!(received, expected, "{}", vector.method);
    }
}

#[test]
fn any_flipped_bit_of_a_response_ends_it_and_releases_only_what_came_before() {
    for method in sound() {
        let mut sealer = Sealer::response(&key(method), response_salt(method), request_salt(method));
        let wire = [sealed(&mut sealer, b"hi"), sealed(&mut sealer, b"again")].concat();
        for at in 0..wire.len() {
            let before = receive(&mut client(method, HeadReads::Many), NOW, &[&wire[..at]]);
            assert_eq!(before.error, None);
            for bit in 0..8 {
                let mut flipped = wire.clone();
                flipped[at] ^= 1 << bit;
                let received = receive_whole(method, &flipped);
                assert_eq!(received.error, Some(OpenError::BadTag), "{method} byte {at} bit {bit}");
                assert_eq!(received.payload, before.payload, "{method} byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn nothing_opens_after_a_failure() {
    for method in sound() {
        let mut sealer = Sealer::response(&key(method), response_salt(method), request_salt(method));
        let (first, second) = (sealed(&mut sealer, b"hi"), sealed(&mut sealer, b"again"));
        let mut opener = client(method, HeadReads::One);
        let mut bad = second.clone();
        bad[0] ^= 1;
        let received = receive(&mut opener, NOW, &[&first, &bad]);
        assert_eq!((received.payload, received.error), (b"hi".to_vec(), Some(OpenError::BadTag)));
        for good in [&second, &first] {
            let received = receive(&mut opener, NOW, &[good]);
            assert_eq!((received.payload, received.error), (Vec::new(), Some(OpenError::BadTag)));
        }
        assert!(!opener.may_end(0));
    }
}

#[test]
fn a_response_is_thirty_seconds_good() {
    for method in methods(Generation::Aead2022) {
        let wire = response(method, 1, NOW.0, request_salt(method), 2, b"hi");
        for (now, error) in [
            (NOW.0 - 31, Some(OpenError::BadTime)),
            (NOW.0 - 30, None),
            (NOW.0 + 30, None),
            (NOW.0 + 31, Some(OpenError::BadTime)),
            (0, Some(OpenError::BadTime)),
            (u64::MAX, Some(OpenError::BadTime)),
        ] {
            let received = receive(&mut client(method, HeadReads::One), UnixTime(now), &[&wire]);
            assert_eq!(received.error, error, "{method} at {now}");
            assert_eq!(received.payload.is_empty(), error.is_some());
        }
        let far = response(method, 1, u64::MAX, request_salt(method), 2, b"hi");
        assert_eq!(receive_whole(method, &far).error, Some(OpenError::BadTime));
    }
}

#[test]
fn a_response_to_another_request_is_refused() {
    for method in methods(Generation::Aead2022) {
        let wire = response(method, 1, NOW.0, salt(method, 0x81), 2, b"hi");
        let received = receive_whole(method, &wire);
        assert_eq!((received.payload, received.error), (Vec::new(), Some(OpenError::WrongRequest)));
    }
}

#[test]
fn a_header_of_type_request_is_no_response() {
    for method in methods(Generation::Aead2022) {
        for kind in [0, 2, 255] {
            let wire = response(method, kind, NOW.0, request_salt(method), 2, b"hi");
            assert_eq!(receive_whole(method, &wire).error, Some(OpenError::BadType));
        }
    }
    for vector in AEAD_2022 {
        let received = receive_whole(vector.method, &unhex(vector.request));
        assert!(received.error.is_some() && received.payload.is_empty());
    }
}

/// Before SIP022 there is no type byte: the salt is all that tells a client its own bytes.
#[test]
fn a_request_sent_back_to_its_client_is_refused_where_it_has_a_salt() {
    for method in Method::ALL.into_iter().filter(|method| method.salt_len() > 0) {
        let mut sealer = Sealer::request(&key(method), request_salt(method), &target());
        let wire = [sealed(&mut sealer, HELLO), sealed(&mut sealer, &[0; 100])].concat();
        let received = receive_whole(method, &wire);
        assert_eq!((received.payload, received.error), (Vec::new(), Some(OpenError::BadType)), "{method}");
    }
}

#[test]
fn a_response_of_length_zero_is_refused() {
    for method in methods(Generation::Aead2022) {
        let wire = response(method, 1, NOW.0, request_salt(method), 0, b"");
        assert_eq!(receive_whole(method, &wire).error, Some(OpenError::BadLength));
    }
}

#[test]
fn a_record_length_is_from_one_to_the_methods_maximum() {
    for method in sound() {
        let header = match method.generation() {
            Generation::Stream | Generation::Aead => Vec::new(),
            Generation::Aead2022 => {
                let echoed = request_salt(method);
                let fixed = [&[1], &NOW.0.to_be_bytes()[..], echoed.as_bytes(), &[0, 1]].concat();
                vec![fixed, vec![7]]
            }
        };
        let received = |len: u16, payload: &[u8]| {
            let mut texts: Vec<&[u8]> = header.iter().map(Vec::as_slice).collect();
            let len = len.to_be_bytes();
            texts.extend([&len[..], payload]);
            receive_whole(method, &forged(&key(method), response_salt(method), &texts))
        };
        let max = u16::try_from(method.payload_max()).unwrap();
        assert_eq!(received(max, &vec![1; usize::from(max)]).error, None);
        assert_eq!(received(1, &[1]).error, None);
        assert_eq!(received(0, &[]).error, Some(OpenError::BadLength));
        if method.generation() == Generation::Aead {
            for len in [0x4000, 0xc000, 0x8001, 0xffff] {
                assert_eq!(received(len, &vec![1; usize::from(len)]).error, Some(OpenError::BadLength));
            }
        }
    }
}

#[test]
fn a_sip022_response_head_in_two_reads_is_refused_unless_allowed() {
    for method in methods(Generation::Aead2022) {
        let wire = response(method, 1, NOW.0, request_salt(method), 2, b"hi");
        let head_len = 2 * method.salt_len() + REQUEST_FIXED_BYTES + TAG_BYTES;
        for at in 1..head_len {
            let (head, tail) = wire.split_at(at);
            let one = receive(&mut client(method, HeadReads::One), NOW, &[head, tail]);
            assert_eq!(
                (one.payload, one.error),
                (Vec::new(), Some(OpenError::ShortHead)),
                "{method} at {at}"
            );
            let many = receive(&mut client(method, HeadReads::Many), NOW, &[head, tail]);
            assert_eq!((many.payload, many.error), (b"hi".to_vec(), None), "{method} at {at}");
        }
        // A look at an empty buffer is no read, and what follows the header may come in pieces.
        let (head, tail) = wire.split_at(head_len);
        let pieces: Vec<&[u8]> = [&b""[..], head].into_iter().chain(tail.chunks(1)).collect();
        assert_eq!(receive(&mut client(method, HeadReads::One), NOW, &pieces).payload, b"hi");
    }
}

#[test]
fn a_response_may_end_between_records_only() {
    for method in sound() {
        let mut sealer = Sealer::response(&key(method), response_salt(method), request_salt(method));
        let (first, second) = (sealed(&mut sealer, b"hi"), sealed(&mut sealer, b"again"));
        let wire = [first.as_slice(), &second].concat();
        for at in 0..=wire.len() {
            let mut opener = client(method, HeadReads::Many);
            let received = receive(&mut opener, NOW, &[&wire[..at]]);
            let mut whole = vec![0, first.len(), wire.len()];
            if method.generation() == Generation::Aead {
                whole.push(method.salt_len());
            }
            assert_eq!(opener.may_end(received.leftover.len()), whole.contains(&at), "{method} at {at}");
        }
    }
}

#[test]
fn the_first_record_is_as_long_as_its_room_says_for_every_target() {
    for method in sound() {
        for text in ["1.2.3.4:80", "[::1]:443", "example.com:443", &format!("{}:1", "n".repeat(255))] {
            let target: Address = text.parse().unwrap();
            let secret = key(method);
            let mut sealer = Sealer::request(&secret, request_salt(method), &target);
            let around = match method.generation() {
                Generation::Stream | Generation::Aead => 0,
                Generation::Aead2022 => 2,
            };
            let max = sealer.payload_max();
            assert_eq!(max + target.encoded_len() + around, method.payload_max());
            let payload: Vec<u8> = (0..=250).cycle().take(max).collect();
            let wire = sealed(&mut sealer, &payload);
            assert_eq!(
                (sealer.head_len(), sealer.payload_max()),
                (RECORD_HEAD_BYTES, sealer.record_payload_max())
            );
            assert_eq!(sealer.record_payload_max(), method.payload_max());
            let served = serve(&secret, &wire);
            assert_eq!((served.target, served.error), (Some(target), None));
            assert_eq!(served.early, payload);
        }
    }
}

#[test]
fn a_record_of_another_shape_than_asked_for_panics_before_anything_is_sealed() {
    for method in Method::ALL {
        let secret = key(method);
        let fresh = [
            Sealer::request(
                &secret,
                request_salt(method),
                &format!("{}:1", "n".repeat(255)).parse().unwrap(),
            ),
            Sealer::response(&secret, response_salt(method), request_salt(method)),
        ];
        for mut sealer in fresh {
            for later in [false, true] {
                let around = sealer.head_len() + sealer.tail_len();
                let long = (!method.is_insecure()).then(|| around + sealer.payload_max() + 1);
                for len in [Some(0), around.checked_sub(1), Some(around), long].into_iter().flatten() {
                    let mut record = vec![0; len];
                    let attempt = catch_unwind(AssertUnwindSafe(|| sealer.seal(&mut record, NOW)));
                    assert!(attempt.is_err(), "{method} {len}");
                    assert_eq!(record, vec![0; len]);
                }
                assert!(!later || sealer.head_len() == sealer.record_head_len());
                sealed(&mut sealer, b"a refused record costs the sealer nothing");
            }
        }
    }
}

#[test]
fn a_start_without_payload_exists_for_fresh_requests_only() {
    for method in Method::ALL {
        let mut output = b"kept".to_vec();
        let mut response = Sealer::response(&key(method), response_salt(method), request_salt(method));
        response.seal_request_without_payload(1, NOW, &mut output);
        assert!(!response.owes_request());
        let mut begun = Sealer::request(&key(method), request_salt(method), &target());
        assert!(begun.owes_request());
        sealed(&mut begun, HELLO);
        assert!(!begun.owes_request());
        begun.seal_request_without_payload(1, NOW, &mut output);
        assert_eq!(output, b"kept");
    }
}

#[test]
fn a_stream_without_records_is_its_iv_and_the_turned_bytes() {
    for method in methods(Generation::Stream) {
        let (mut turned, said) = (Vec::new(), [b"hi".to_vec(), vec![7; 70_000], b"again".to_vec()]);
        let mut sealer = Sealer::response(&key(method), response_salt(method), request_salt(method));
        for text in &said {
            turned.extend(sealed(&mut sealer, text));
            assert_eq!((sealer.head_len(), sealer.record_head_len(), sealer.tail_len()), (0, 0, 0));
        }
        let mut expected = said.concat();
        Flat::new(&key(method), &response_salt(method), Way::Seal).apply(&mut expected);
        assert_eq!(turned, [response_salt(method).as_bytes(), &expected].concat(), "{method}");
        assert_eq!(receive_whole(method, &turned).payload, said.concat(), "{method}");
    }
}

#[test]
fn padding_is_drawn_from_one_to_its_maximum_and_is_zeros() {
    for method in methods(Generation::Aead2022) {
        for (random, padding_len) in [(0, 1), (1, 2), (899, 900), (900, 1), (u16::MAX, 736)] {
            let mut sealer = Sealer::request(&key(method), request_salt(method), &target());
            let mut wire = Vec::new();
            sealer.seal_request_without_payload(random, NOW, &mut wire);
            let start = method.salt_len() + REQUEST_FIXED_BYTES + TAG_BYTES;
            assert_eq!(wire.len(), start + target().encoded_len() + 2 + padding_len + TAG_BYTES);
            let mut cipher = Cipher::new(&key(method), &request_salt(method));
            cipher.open(&mut wire[method.salt_len()..start]).unwrap();
            cipher.open(&mut wire[start..]).unwrap();
            let padding = &wire[start + target().encoded_len() + 2..][..padding_len];
            assert!(padding.iter().all(|byte| *byte == 0));
        }
    }
}
