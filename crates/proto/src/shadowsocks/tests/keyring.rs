//! Which keys and users make a keyring, and what is said of the others.

use super::*;

fn key(method: Method, byte: u8) -> Key {
    Key::from_bytes(method, &vec![byte; method.key_len()]).unwrap()
}

fn user(name: &str, method: Method, byte: u8) -> User {
    User { name: name.into(), key: key(method, byte), forward: None }
}

fn order(order: &TrialOrder) -> Vec<u32> {
    order.holders().map(|holder| holder.0).collect()
}

#[test]
fn one_key_is_nobodys_in_particular() {
    for method in Method::ALL {
        let keyring = Keyring::new(method, Some(key(method, 1)), Vec::new()).unwrap();
        assert_eq!((keyring.method(), keyring.len(), keyring.is_tried()), (method, 1, false));
        assert_eq!(keyring.name(Holder::ONLY), None);
        assert_eq!(keyring.key(Holder::ONLY).secret(), key(method, 1).secret());
        assert_eq!(Keyring::new(method, None, Vec::new()).unwrap_err(), KeyringError::Empty);
    }
}

#[test]
fn sip004_users_are_tried_with_the_ports_own_key_if_there_is_one() {
    let method = Method::Aes256Gcm;
    let users = vec![user("ann", method, 1), user("bob", method, 2)];
    let keyring = Keyring::new(method, None, users.clone()).unwrap();
    assert!(keyring.is_tried());
    assert_eq!((keyring.name(Holder(0)), keyring.name(Holder(1))), (Some("ann"), Some("bob")));
    let keyring = Keyring::new(method, Some(key(method, 9)), users).unwrap();
    assert_eq!((keyring.len(), keyring.name(Holder(0)), keyring.name(Holder(2))), (3, None, Some("bob")));
}

#[test]
fn sip022_users_need_a_port_key_and_a_method_with_identities() {
    let method = Method::Blake3Aes256Gcm;
    let users = vec![user("ann", method, 1)];
    assert_eq!(Keyring::new(method, None, users.clone()).unwrap_err(), KeyringError::NoPortKey);
    let keyring = Keyring::new(method, Some(key(method, 9)), users).unwrap();
    assert_eq!((keyring.len(), keyring.is_tried()), (1, false));
    let method = Method::Blake3Chacha20Poly1305;
    let refused = Keyring::new(method, Some(key(method, 9)), vec![user("ann", method, 1)]).unwrap_err();
    assert_eq!(refused, KeyringError::NoUsers(method));
    assert!(refused.to_string().contains("use 2022-blake3-aes-256-gcm"));
}

#[test]
fn what_two_users_share_is_refused_by_name() {
    for method in [Method::Chacha20IetfPoly1305, Method::Blake3Aes128Gcm] {
        let make = |users| Keyring::new(method, Some(key(method, 9)), users).unwrap_err();
        let same_key = make(vec![user("ann", method, 1), user("eve", method, 2), user("bob", method, 1)]);
        assert_eq!(same_key, KeyringError::SameKey("ann".into(), "bob".into()));
        let same_name = make(vec![user("ann", method, 1), user("ann", method, 2)]);
        assert_eq!(same_name, KeyringError::SameName("ann".into()));
        assert_eq!(make(vec![user("ann", method, 9)]), KeyringError::PortKey("ann".into()));
    }
}

#[test]
fn only_streams_that_say_whose_they_are_are_forwarded() {
    let onward = |method| User { forward: "192.0.2.1:1".parse().ok(), ..user("far", method, 1) };
    let method = Method::Aes128Gcm;
    let refused = Keyring::new(method, None, vec![onward(method)]).unwrap_err();
    assert_eq!(refused, KeyringError::NoForward("far".into()));
    let method = Method::Blake3Aes128Gcm;
    let keyring = Keyring::new(method, Some(key(method, 1)), vec![onward(method)]).unwrap();
    assert!(keyring.forward(Holder(0)).is_some());
}

#[test]
fn keys_of_another_method_and_too_many_keys_are_refused() {
    let method = Method::Aes256Gcm;
    let other = vec![user("ann", Method::Chacha20IetfPoly1305, 1)];
    assert_eq!(
        Keyring::new(method, None, other).unwrap_err(),
        KeyringError::OtherMethod { wanted: method, given: Method::Chacha20IetfPoly1305 }
    );
    let many = (0..=TRIAL_KEYS_MAX).map(|number| User {
        name: number.to_string().into(),
        key: Key::from_password(method, &number.to_string()).unwrap(),
        forward: None,
    });
    assert_eq!(
        Keyring::new(method, None, many.collect()).unwrap_err(),
        KeyringError::TooMany { given: TRIAL_KEYS_MAX + 1, max: TRIAL_KEYS_MAX }
    );
}

#[test]
fn whoever_was_let_in_last_is_tried_first_and_nobody_is_left_out() {
    let method = Method::Aes256Gcm;
    let users = (0..4).map(|byte| user(&byte.to_string(), method, byte)).collect();
    let keyring = Keyring::new(method, None, users).unwrap();
    let mut shared = TrialOrder::new(&keyring);
    assert_eq!(order(&shared), [0, 1, 2, 3]);
    shared.promote(Holder(2));
    let snapshot = shared.clone();
    shared.promote(Holder(3));
    shared.promote(Holder(3));
    assert_eq!((order(&shared), order(&snapshot)), (vec![3, 2, 0, 1], vec![2, 0, 1, 3]));
    shared.promote(Holder(77));
    assert_eq!(order(&shared), [3, 2, 0, 1]);
    assert_eq!(order(&TrialOrder::new(&key(method, 1).into())), []);
}

#[test]
fn a_keyring_does_not_print_its_keys_or_names() {
    let method = Method::Aes256Gcm;
    let keyring = Keyring::new(method, None, vec![user("ann", method, 0xab)]).unwrap();
    assert_eq!(format!("{keyring:?}"), "Keyring<aes-256-gcm, 1>(..)");
}
