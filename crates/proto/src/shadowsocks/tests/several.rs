//! Several users of a port: the streams of SIP023 and SIP004, whole, cut anywhere, passed on and refused.

use proptest::prelude::*;

use super::bench::{Served, Server, cuts, sealed};
use super::head::HeadError;
use super::identity::Credentials;
use super::key::Key;
use super::keyring::{Keyring, User};
use super::stream::{HeadReads, OpenError};
use super::vectors::{HELLO, key, salt, target, unhex};
use super::{Method, Salt};
use crate::address::Address;

/// A session of SIP023: identity keys a0 a1 …, 40 41 …, the user's key 00 01 …, request salt 80 81 …; `hello`, then `world`.
struct Identified {
    method: Method,
    /// Through one server.
    one: &'static str,
    /// Through two.
    two: &'static str,
}

fn counted(method: Method, first: u8) -> Key {
    let bytes: [u8; 32] = std::array::from_fn(|at| first + u8::try_from(at).unwrap());
    Key::from_bytes(method, &bytes[..method.key_len()]).unwrap()
}

fn user(name: &str, key: Key) -> User {
    User { name: name.into(), key, forward: None }
}

fn next_server() -> Address {
    "192.0.2.7:8388".parse().unwrap()
}

/// A server whose port has the key that counts from `port`, and the user of the vectors among others.
fn last_server(method: Method, port: u8) -> Server {
    let users =
        vec![user("eve", counted(method, 1)), user("ann", key(method)), user("bob", counted(method, 2))];
    Server::with(Keyring::new(method, Some(counted(method, port)), users).unwrap())
}

/// A server that passes on whoever is named by the second identity key of the vectors.
fn front_server(method: Method) -> Server {
    let next = User { name: "next".into(), key: counted(method, 0x40), forward: Some(next_server()) };
    let users = vec![user("eve", counted(method, 1)), next];
    Server::with(Keyring::new(method, Some(counted(method, 0xa0)), users).unwrap())
}

fn hello_world() -> Served {
    let (early, payload) = (HELLO.to_vec(), b"world".to_vec());
    Served { target: Some(target()), early, payload, ..Served::default() }
}

fn name_of(server: &Server) -> Option<String> {
    server.holder.and_then(|holder| server.keyring.name(holder)).map(Into::into)
}

#[test]
fn the_sip023_vectors_open_for_the_user_they_name() {
    for Identified { method, one, .. } in SIP023 {
        let wire = unhex(one);
        let mut server = last_server(method, 0xa0);
        server.head = HeadReads::One;
        assert_eq!(server.serve(&[&wire]), hello_world(), "{method}");
        assert_eq!(name_of(&server).as_deref(), Some("ann"));
        for pieces in cuts(&wire) {
            assert_eq!(last_server(method, 0xa0).serve(&pieces), hello_world(), "{method} {pieces:?}");
        }
    }
}

#[test]
fn a_server_on_the_way_takes_its_header_off_and_leaves_the_rest() {
    for Identified { method, two, .. } in SIP023 {
        let wire = unhex(two);
        let salt_len = method.salt_len();
        let rest = [&wire[..salt_len], &wire[salt_len + 16..]].concat();
        for pieces in cuts(&wire) {
            let mut server = front_server(method);
            let served = server.serve(&pieces);
            assert_eq!((served.forward, served.error), (Some(next_server()), None), "{method} {pieces:?}");
            assert_eq!(served.leftover, rest, "{method} {pieces:?}");
            assert_eq!((served.target, name_of(&server).as_deref()), (None, Some("next")));
            assert!(server.store.is_empty(), "that is for the last server to judge");
        }
        assert_eq!(last_server(method, 0x40).serve(&[&rest]), hello_world(), "{method}");
    }
}

#[test]
fn our_streams_begin_as_the_vectors_do() {
    for Identified { method, one, two } in SIP023 {
        let text = |key: &Key| super::key::encode_password(key.secret()).to_string();
        let (first, second, own) = (counted(method, 0xa0), counted(method, 0x40), key(method));
        for (keys, wire) in [(vec![&first, &own], unhex(one)), (vec![&first, &second, &own], unhex(two))] {
            let password = keys.iter().map(|key| text(key)).collect::<Vec<_>>().join(":");
            let credentials = Credentials::from_password(method, &password).unwrap();
            let mut sealer = credentials.request(salt(method, 0x80), &target());
            let ours = [sealed(&mut sealer, HELLO), sealed(&mut sealer, b"world")].concat();
            let headers_end = method.salt_len() + 16 * (keys.len() - 1);
            assert_eq!(ours[..headers_end], wire[..headers_end], "{method}");
            if keys.len() == 2 {
                assert_eq!(last_server(method, 0xa0).serve(&[&ours]), hello_world());
            }
        }
    }
}

#[test]
fn any_flipped_bit_before_the_records_names_nobody_and_is_not_remembered() {
    for Identified { method, one, .. } in SIP023 {
        let wire = unhex(one);
        for at in 0..method.salt_len() + 16 + 11 {
            let mut flipped = wire.clone();
            flipped[at] ^= 1 << (at % 8);
            let mut server = last_server(method, 0xa0);
            let served = server.serve(&[&flipped]);
            let is_refused =
                matches!(served.error, Some(HeadError::UnknownIdentity | HeadError::Open(OpenError::BadTag)));
            assert!(is_refused, "{method} byte {at}: {served:?}");
            assert_eq!((served.target, server.store.is_empty()), (None, true));
        }
    }
}

#[test]
fn a_stream_that_names_nobody_is_judged_at_the_length_of_a_good_one() {
    for Identified { method, one, .. } in SIP023 {
        let wire = unhex(one);
        let judged_at = method.salt_len() + 16 + 27;
        for port in [0xa0, 0x77] {
            // With another port key every name is unknown.
            let mut server = last_server(method, port);
            assert_eq!(server.serve(&[&wire[..judged_at - 1]]).error, None, "{method}");
            let error = last_server(method, port).serve(&[&wire[..judged_at]]).error;
            assert_eq!(error, (port != 0xa0).then_some(HeadError::UnknownIdentity), "{method}");
        }
    }
}

#[test]
fn every_sip004_user_is_found_by_trying_and_nobody_else() {
    for method in [Method::Aes128Gcm, Method::Aes256Gcm, Method::Chacha20IetfPoly1305] {
        let secret = |name: &str| Key::from_password(method, name).unwrap();
        let users = ["ann", "bob", "eve"].map(|name| user(name, secret(name))).into();
        let mut server = Server::with(Keyring::new(method, Some(secret("port")), users).unwrap());
        for (turn, name) in ["eve", "ann", "port", "bob", "bob", "ann"].into_iter().enumerate() {
            let mut sealer = super::stream::Sealer::request(
                &secret(name),
                salt(method, u8::try_from(turn).unwrap()),
                &target(),
            );
            let wire = [sealed(&mut sealer, HELLO), sealed(&mut sealer, b"world")].concat();
            for pieces in cuts(&wire) {
                server.store = super::replay::SaltStore::new(method);
                let served = server.serve(&pieces);
                assert_eq!((served.target, served.error), (Some(target()), None), "{method} {name}");
                assert_eq!([served.early, served.payload].concat(), b"helloworld");
                assert_eq!(name_of(&server).as_deref(), Some(name).filter(|name| *name != "port"));
            }
        }
        let mut stranger = super::stream::Sealer::request(&secret("mallory"), salt(method, 9), &target());
        let served = server.serve(&[&sealed(&mut stranger, HELLO)]);
        assert_eq!((served.target, served.error), (None, Some(OpenError::BadTag.into())));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_server_with_users_panic(
        salt_bytes: [u8; 32],
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        cut: prop::sample::Index,
    ) {
        for Identified { method, .. } in SIP023 {
            let salt = Salt::new(method, salt_bytes);
            let wire = [salt.as_bytes(), &bytes].concat();
            let (head, tail) = wire.split_at(cut.index(wire.len() + 1));
            let served = last_server(method, 0xa0).serve(&[head, tail]);
            prop_assert_eq!(served.target, None);
            let served = front_server(method).serve(&[head, tail]);
            prop_assert_eq!((served.target, served.forward), (None, None));
        }
    }
}

const SIP023: [Identified; 2] = [
    Identified {
        method: Method::Blake3Aes128Gcm,
        one: "808182838485868788898a8b8c8d8e8f116181e6ef999129d6e40530a7ea2fcba342d2422f3788104ccf99a6\
            3ea539bec9a223c70b16b7e5d217a129d3b0438a29361410a8bd8dcaf41e873bddda8d67e5ecb7439f8f04ed\
            5dbaa5b6c9aaf1349d37c8ce9d7b477a05eb980c9aea635220fa83a20ca522160459c692136a4c10da905cc0\
            c3590a46",
        two: "808182838485868788898a8b8c8d8e8f44f8f978e600ff3e2fc899c77d17ae0a30be55082fc7e892e0f7e284\
            3a3353ffa342d2422f3788104ccf99a63ea539bec9a223c70b16b7e5d217a129d3b0438a29361410a8bd8dca\
            f41e873bddda8d67e5ecb7439f8f04ed5dbaa5b6c9aaf1349d37c8ce9d7b477a05eb980c9aea635220fa83a2\
            0ca522160459c692136a4c10da905cc0c3590a46",
    },
    Identified {
        method: Method::Blake3Aes256Gcm,
        one: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f02962db8f45038d8e74ccb79\
            6c74131a4ee13038514af6dc2b590f321228a1115efadbc7f9b6958ed576a664413f06e7c767427ae7b001d9\
            2896ef3478ade522731eeb44466161cd72c4d135bdc85c64135ca81007e3c9fcc284f89e62ff3d1dde75c856\
            d4929b61a4014cb425ee0a7d367c80edd1d24662",
        two: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fd24b4be8c6a04b26201f6f1d\
            cfb8df1333d6ebfabf77668fa3e13f062c3468e04ee13038514af6dc2b590f321228a1115efadbc7f9b6958e\
            d576a664413f06e7c767427ae7b001d92896ef3478ade522731eeb44466161cd72c4d135bdc85c64135ca810\
            07e3c9fcc284f89e62ff3d1dde75c856d4929b61a4014cb425ee0a7d367c80edd1d24662",
    },
];
