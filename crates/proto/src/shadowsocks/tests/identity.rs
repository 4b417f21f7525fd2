//! Credentials as people write them, and identity headers against the vectors.

use super::*;
use crate::shadowsocks::key::encode_password;

const METHOD: Method = Method::Blake3Aes128Gcm;

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| encode_password(&[*byte; 16]).to_string()).collect::<Vec<_>>().join(":")
}

fn error(method: Method, password: &str) -> CredentialsError {
    Credentials::from_password(method, password).unwrap_err()
}

#[test]
fn the_last_key_is_the_users_own_and_those_before_it_are_identities() {
    let credentials = Credentials::from_password(METHOD, &text(&[1, 2, 3])).unwrap();
    let identities: Vec<u8> = credentials.identities().iter().map(|key| key.secret()[0]).collect();
    assert_eq!((identities, credentials.key().secret()[0]), (vec![1, 2], 3));
    let credentials = Credentials::from_password(METHOD, &text(&[3])).unwrap();
    assert!(credentials.identities().is_empty());
}

#[test]
fn a_password_with_colons_is_one_password_where_keys_are_not_base64() {
    let credentials = Credentials::from_password(Method::Aes256Gcm, "a:b:c").unwrap();
    assert!(credentials.identities().is_empty());
    let whole = Key::from_password(Method::Aes256Gcm, "a:b:c").unwrap();
    assert_eq!(credentials.key().secret(), whole.secret());
}

#[test]
fn a_wrong_part_is_told_by_its_number() {
    let long = encode_password(&[7; 32]);
    let part = |part, error| CredentialsError::Part { part, parts: 2, error };
    let length = KeyError::WrongLength { wanted: 16, given: 32 };
    assert_eq!(error(METHOD, &format!("{}:{}", text(&[1]), *long)), part(2, length));
    assert_eq!(error(METHOD, &format!("{}:{}", *long, text(&[1]))), part(1, length));
    assert_eq!(error(METHOD, &format!("{}:", text(&[1]))), part(2, KeyError::Empty));
    assert_eq!(error(METHOD, "AAAA=:BBBB"), part(1, KeyError::NotBase64));
    assert_eq!(
        error(METHOD, &format!("{}:{}", *long, text(&[1]))).to_string(),
        "key 1 of 2: wants 16 bytes in base64, got 32"
    );
    assert_eq!(error(METHOD, "correct horse"), CredentialsError::Key(KeyError::NotBase64));
    assert_eq!(error(METHOD, ""), CredentialsError::Key(KeyError::Empty));
}

#[test]
fn several_keys_are_refused_where_nothing_can_carry_them() {
    let method = Method::Blake3Chacha20Poly1305;
    assert_eq!(error(method, "AAAA:BBBB"), CredentialsError::NoIdentities(method));
    let many = text(&[5; IDENTITY_KEYS_MAX + 2]);
    let wanted = CredentialsError::TooMany { given: IDENTITY_KEYS_MAX + 1, max: IDENTITY_KEYS_MAX };
    assert_eq!(error(METHOD, &many), wanted);
    assert!(Credentials::from_password(METHOD, &text(&[5; IDENTITY_KEYS_MAX + 1])).is_ok());
}

#[test]
fn credentials_do_not_print_their_keys() {
    let credentials = Credentials::from_password(METHOD, &text(&[0xab, 0xab])).unwrap();
    let printed = format!("{credentials:?}");
    assert!(!printed.contains("171") && !printed.contains("ab, ") && !printed.contains("q6ur"), "{printed}");
}
