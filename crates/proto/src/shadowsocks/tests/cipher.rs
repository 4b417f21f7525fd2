//! The cipher against published answers.

use super::super::vectors::{AEAD, AEAD_2022, key, salt, sound, unhex};
use super::*;
use aws_lc_rs::aead::CHACHA20_POLY1305;

fn subkey(method: Method, first_of_salt: u8) -> Vec<u8> {
    let mut subkey = vec![0; method.key_len()];
    derive(&key(method), &salt(method, first_of_salt), &mut subkey);
    subkey
}

#[test]
fn blake3_is_that_of_its_authors() {
    let empty = blake3::hash(b"");
    assert_eq!(empty.to_hex()[..], *"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    let derived = blake3::derive_key("BLAKE3 2019-12-27 16:29:52 test vectors context", b"");
    let expected = "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d";
    assert_eq!(derived[..], unhex(expected));
}

#[test]
fn chacha20_poly1305_is_that_of_rfc_8439_2_8_2() {
    let key: [u8; 32] = std::array::from_fn(|at| 0x80 + u8::try_from(at).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(&unhex("070000004041424344454647")).unwrap();
    let aad = Aad::from(unhex("50515253c0c1c2c3c4c5c6c7"));
    let mut text =
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it."
            .to_vec();
    for method in [Method::Chacha20IetfPoly1305, Method::Blake3Chacha20Poly1305] {
        let Aead::Main(cipher) = Cipher::with_subkey(method, &key).aead else { panic!("{method}") };
        assert_eq!(cipher.algorithm(), &CHACHA20_POLY1305);
    }
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
    let tag = key.seal_in_place_separate_tag(nonce, aad, &mut text).unwrap();
    assert_eq!(text[..16], unhex("d31a8d34648e60db7b86afbc53ef7ec2"));
    assert_eq!(tag.as_ref(), unhex("1ae10b594f09e26a7e902ecbd0600691"));
}

/// Test cases 1, 2, 7, 8, 13 and 14 of the GCM submission to NIST: key and nonce zero, text empty or one zero block.
#[test]
fn the_gcm_ciphers_are_those_of_nist() {
    let cases = [
        (
            [Method::Aes192Gcm, Method::Aes192Gcm],
            "cd33b28ac773f74ba00ed1f312572435",
            "98e7247c07f0fe411c267e4384b0f6002ff58d80033927ab8ef4d4587514f0fb",
        ),
        (
            [Method::Aes128Gcm, Method::Blake3Aes128Gcm],
            "58e2fccefa7e3061367f1d57a4e7455a",
            "0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf",
        ),
        (
            [Method::Aes256Gcm, Method::Blake3Aes256Gcm],
            "530f8afbc74536b9a963b4f1c4cb738b",
            "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
        ),
    ];
    for (methods, empty, block) in cases {
        for method in methods {
            let seal = |text_len: usize| {
                let mut sealed = vec![0; text_len + TAG_BYTES];
                let (text, tag) = sealed.split_at_mut(text_len);
                Cipher::with_subkey(method, &vec![0; method.key_len()]).seal(text, tag);
                sealed
            };
            assert_eq!(seal(0), unhex(empty), "{method}");
            assert_eq!(seal(16), unhex(block), "{method}");
        }
    }
}

/// What the library of another language (cryptography 48, over OpenSSL) makes of a key and a text that count up from zero, under a nonce of
/// zero.
#[test]
fn the_ocb_and_ccm_ciphers_are_those_of_another_library() {
    let cases = [
        (Method::Aes128Ocb, "01708547bad6976bb9121f2e427aa75f2b30d8e02ca7252eafdf2ddd0f6c6eb5d801dfea"),
        (Method::Aes192Ocb, "1dbed913fe2743049de7d27abf974795985ea6440a12414ec6843a4b9c0920f903f14102"),
        (Method::Aes256Ocb, "fdee3352464324e23ac0f031284ea40931b1a187eda6b2e4670a19d3e79ca83cefd1d994"),
        (Method::Aes128Ccm, "74bcd7e843b6c3735b13a26ef0ced0d1d80ba4bb36a514836fff6548b22e958a7cbd6d0f"),
        (Method::Aes192Ccm, "54e641e37f6a4b720d1787c83b05494fd5b68f4955c6bf523eaf550c3584a707ab12014a"),
        (Method::Aes256Ccm, "7684781e391d792ab11b28f0d020022bf67ff973b1cadb07bbb02f52cbd92824222bff79"),
    ];
    let count = |len: usize| (0..len).map(|at| u8::try_from(at).unwrap()).collect::<Vec<_>>();
    for (method, expected) in cases {
        let mut sealed = [count(20), vec![0; TAG_BYTES]].concat();
        let (text, tag) = sealed.split_at_mut(20);
        Cipher::with_subkey(method, &count(method.key_len())).seal(text, tag);
        assert_eq!(sealed, unhex(expected), "{method}");
    }
}

#[test]
fn session_keys_are_those_of_the_vectors() {
    for vector in AEAD {
        assert_eq!(subkey(vector.method, 0), unhex(vector.subkey), "{}", vector.method);
    }
    for vector in AEAD_2022 {
        assert_eq!(subkey(vector.method, 0x80), unhex(vector.request_subkey), "{}", vector.method);
        assert_eq!(subkey(vector.method, 0xc0), unhex(vector.response_subkey), "{}", vector.method);
    }
}

#[test]
fn nonces_count_little_endian_and_never_repeat() {
    let method = Method::Aes256Gcm;
    let mut cipher = Cipher::new(&key(method), &salt(method, 0));
    for expected in [0_u64, 1, 2] {
        assert_eq!(cipher.next_use(), expected);
    }
    assert_eq!(nonce(0x0100).as_ref(), &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_failed_opening_releases_no_text() {
    for method in sound() {
        let mut sealed = vec![0x5a; 64 + TAG_BYTES];
        let (text, tag) = sealed.split_at_mut(64);
        Cipher::new(&key(method), &salt(method, 0)).seal(text, tag);
        sealed[3] ^= 1;
        assert_eq!(Cipher::new(&key(method), &salt(method, 0)).open(&mut sealed), Err(BadTag));
        assert!(!sealed.windows(4).any(|window| window == [0x5a; 4]), "{method}");
    }
}
