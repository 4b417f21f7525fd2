//! One-time authentication: the original's vectors, both ends cut anywhere, and every way of being wrong.

use super::bench::{Served, Server, sealed, serve};
use super::cipher::flat::{Flat, Way};
use super::head::HeadError;
use super::key::Key;
use super::one_time_auth::{OneTimeAuth, chunk_tag, head_tag};
use super::stream::{OpenError, Sealer};
use super::vectors::{HELLO, NOW, key, methods, salt, target, unhex};
use super::{Generation, Method, Salt};

/// A request in two chunks, as our client writes it.
fn ours(method: Method) -> Vec<u8> {
    let mut sealer = Sealer::request_with_one_time_auth(&key(method), salt(method, 1), &target());
    [sealed(&mut sealer, HELLO), sealed(&mut sealer, b"world")].concat()
}

fn demanding(key: &Key) -> Server {
    Server { one_time_auth: OneTimeAuth::Demanded, ..Server::new(key) }
}

/// The same bytes in clear.
fn clear(method: Method, wire: &[u8]) -> Vec<u8> {
    let mut text = wire[method.salt_len()..].to_vec();
    Flat::new(&key(method), &salt(method, 1), Way::Open).apply(&mut text);
    text
}

fn turned(method: Method, text: &[u8]) -> Vec<u8> {
    let mut turned = text.to_vec();
    Flat::new(&key(method), &salt(method, 1), Way::Seal).apply(&mut turned);
    [salt(method, 1).as_bytes(), &turned].concat()
}

#[test]
fn the_hmacs_are_those_of_the_original() {
    let method = Method::Aes256Cfb;
    let key = Key::from_password(method, "foobar").unwrap();
    let iv = Salt::new(method, std::array::from_fn(|at| u8::try_from(at).unwrap()));
    let head = [0x11, 127, 0, 0, 1, 0, 80];
    assert_eq!(head_tag(&iv, &key, &head)[..], unhex("9f64adf889cb7e318ac5"));
    assert_eq!(chunk_tag(&iv, 0, b"hello")[..], unhex("718653e7e97b8c0aea55"));
    assert_eq!(chunk_tag(&iv, 1, b"world!")[..], unhex("01953f97ed18f20a2ec8"));
    let datagram = [&head[..], b"hello"].concat();
    assert_eq!(head_tag(&iv, &key, &datagram)[..], unhex("e7538e66b11e87874d1a"));

    let mut sealer = Sealer::request_with_one_time_auth(&key, iv, &"127.0.0.1:80".parse().unwrap());
    let mut text = [sealed(&mut sealer, b"hello"), sealed(&mut sealer, b"world!")].concat().split_off(16);
    Flat::new(&key, &iv, Way::Open).apply(&mut text);
    let expected = "117f00000100509f64adf889cb7e318ac5\
                    0005718653e7e97b8c0aea5568656c6c6f\
                    000601953f97ed18f20a2ec8776f726c6421";
    assert_eq!(text, unhex(expected), "payload that came with the request is a chunk of its own");
}

#[test]
fn an_authenticated_request_cut_anywhere_is_the_same_request() {
    for method in methods(Generation::Stream) {
        let secret = key(method);
        let mut sealer = Sealer::request_with_one_time_auth(&secret, salt(method, 1), &target());
        let mut without_payload = Vec::new();
        sealer.seal_request_without_payload(0, NOW, &mut without_payload);
        assert!(!sealer.owes_request());
        let alone = serve(&secret, &without_payload);
        assert_eq!((alone.target, alone.error), (Some(target()), None));
        without_payload.extend(sealed(&mut sealer, HELLO));
        without_payload.extend(sealed(&mut sealer, b"world"));
        for session in [ours(method), without_payload] {
            let whole = demanding(&secret).serve(&[&session]);
            let expected =
                Served { target: Some(target()), payload: b"helloworld".to_vec(), ..Served::default() };
            assert_eq!(whole, expected, "{method}");
            for at in 0..=session.len() {
                let (head, tail) = session.split_at(at);
                assert_eq!(demanding(&secret).serve(&[head, tail]), expected, "{method} at {at}");
            }
            assert_eq!(Server::new(&secret).serve(&session.chunks(1).collect::<Vec<_>>()), expected);
        }
    }
}

#[test]
fn any_flipped_bit_of_an_authenticated_request_ends_it_and_releases_only_what_came_before() {
    // With a counter one flipped bit is one flipped bit.
    let method = Method::Aes256Ctr;
    let (secret, wire) = (key(method), ours(method));
    for at in method.salt_len() + 1..wire.len() {
        let before = serve(&secret, &wire[..at]);
        for bit in 0..8 {
            let mut flipped = wire.clone();
            flipped[at] ^= 1 << bit;
            let served = serve(&secret, &flipped);
            assert_eq!(
                (served.target, served.payload),
                (before.target.clone(), before.payload.clone()),
                "{at} {bit}"
            );
            // A longer name or chunk has not come to its end.
            let pending = served.error.is_none() && !served.leftover.is_empty() || before.target.is_none();
            assert!(served.error.is_some() || pending, "{at} {bit}");
        }
    }
}

#[test]
fn a_chunk_that_is_wrong_ends_the_request() {
    let method = Method::Chacha20;
    let secret = key(method);
    let head_len = clear(method, &ours(method)).len() - 2 * (12 + HELLO.len());
    let refuse = |text: &[u8], error| {
        let served = serve(&secret, &turned(method, text));
        assert_eq!((served.target, served.error), (Some(target()), Some(HeadError::Open(error))));
        assert!(served.payload.is_empty());
    };
    let text = clear(method, &ours(method));
    let (head, chunks) = text.split_at(head_len);
    let (first, second) = chunks.split_at(12 + HELLO.len());
    refuse(&[head, second, first].concat(), OpenError::BadTag);
    refuse(&[head, &[0, 0], &chunk_tag(&salt(method, 1), 0, b"")].concat(), OpenError::BadLength);
    let mut damaged = [head, first].concat();
    damaged[head_len + 12] ^= 1;
    refuse(&damaged, OpenError::BadTag);
}

#[test]
fn a_request_that_is_not_authenticated_is_refused_where_that_is_demanded_and_one_that_lies_everywhere() {
    for method in methods(Generation::Stream) {
        let secret = key(method);
        let plain = sealed(&mut Sealer::request(&secret, salt(method, 1), &target()), HELLO);
        let served = demanding(&secret).serve(&[&plain]);
        assert_eq!((served.target, served.error), (None, Some(HeadError::NoOneTimeAuth)), "{method}");
        assert_eq!(serve(&secret, &plain).error, None);
        let mut text = clear(method, &ours(method));
        let tag_at = text.len() - 2 * (12 + HELLO.len()) - 1;
        text[tag_at] ^= 1;
        let mut server = Server::new(&secret);
        let served = server.serve(&[&turned(method, &text)]);
        assert_eq!((served.target, served.error), (None, Some(HeadError::BadOneTimeAuth)), "{method}");
        assert!(server.store.is_empty());
    }
}

#[test]
fn a_method_with_tags_has_no_use_for_it() {
    for method in methods(Generation::Aead).chain(methods(Generation::Aead2022)) {
        let secret = key(method);
        let plain = sealed(&mut Sealer::request(&secret, salt(method, 1), &target()), HELLO);
        assert_eq!(ours(method)[..plain.len()], plain, "{method}");
        assert_eq!(demanding(&secret).serve(&[&plain]).target, Some(target()), "{method}");
    }
}
