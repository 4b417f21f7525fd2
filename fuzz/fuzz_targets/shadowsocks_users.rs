//! Streams to a port with several users: of one of them, of somebody on the way to another server, of nobody, and bits flipped.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_fuzz::{REQUEST_SALT, Record, Served, carry, crumbs, pieces, salt, serve_holders};
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::key::{Key, encode_password};
use umbra_proto::shadowsocks::keyring::{Keyring, User};
use umbra_proto::shadowsocks::stream::HeadReads;

#[derive(Arbitrary, Debug)]
struct Session {
    method: Kind,
    /// The keys of the client, its own last; each one of a few.
    keys: Vec<u8>,
    script: Vec<Record>,
    flip: Option<(u16, u8)>,
    cuts: Vec<u16>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Tried,
    Short,
    Long,
}

const PORT: u8 = 0;
const USERS: [u8; 3] = [1, 2, 3];
const NEXT: u8 = 4;
/// More keys than the port knows.
const KEYS: u8 = 6;

fuzz_target!(|session: Session| {
    let Session { method, keys, script, flip, cuts } = session;
    let keyring = keyring(method.method());
    let keys: Vec<u8> = keys.into_iter().take(4).map(|key| key % KEYS).collect();
    let Some(credentials) = credentials(method, &keys) else { return };
    let target: Address = "a.example:1".parse().expect("a name and a port");
    let mut sealer = credentials.request(salt(method.method(), REQUEST_SALT), &target);
    let (mut wire, said) = carry(&mut sealer, &script);
    if let (Some((at, bit)), false) = (flip, wire.is_empty()) {
        let at = usize::from(at) % wire.len();
        wire[at] ^= 1 << (bit % 8);
    }

    let serve = |pieces: &[&[u8]]| serve_holders(&keyring, HeadReads::Many, pieces).settled();
    let whole = serve(&[&wire]);
    assert_eq!(serve(&pieces(&wire, &cuts)), whole);
    assert_eq!(serve(&crumbs(&wire)), whole);
    judge(method, &keys, &whole, &wire);
    if flip.is_none() {
        assert!(whole.target.is_none() || whole.said() == said);
    }
});

/// Nobody gets further than their keys bring them.
fn judge(method: Kind, keys: &[u8], served: &Served, wire: &[u8]) {
    let expected = match (method, keys) {
        (Kind::Tried, [PORT]) => Some(String::new()),
        (Kind::Tried, [own]) | (Kind::Short | Kind::Long, [PORT, own]) if USERS.contains(own) => {
            Some(own.to_string())
        }
        _ => None,
    };
    if let Some(target) = &served.target {
        assert_eq!(target.to_string(), "a.example:1");
        assert_eq!(Some(served.user.clone().unwrap_or_default()), expected);
    }
    if served.forward.is_some() {
        assert_eq!(served.user.as_deref(), Some("next"));
        assert_eq!(served.leftover.len() + 16, wire.len(), "one header less, and all of the rest");
    }
}

impl Kind {
    fn method(self) -> Method {
        match self {
            Self::Tried => Method::Aes128Gcm,
            Self::Short => Method::Blake3Aes128Gcm,
            Self::Long => Method::Blake3Aes256Gcm,
        }
    }
}

fn key(method: Method, number: u8) -> Key {
    Key::from_bytes(method, &vec![number + 1; method.key_len()]).expect("a key of the method's length")
}

fn keyring(method: Method) -> Keyring {
    let user = |number: u8| User { name: number.to_string().into(), key: key(method, number), forward: None };
    let mut users: Vec<_> = USERS.map(user).into();
    if method != Method::Aes128Gcm {
        let forward = Some("b.example:2".parse().expect("a name and a port"));
        users.push(User { name: "next".into(), key: key(method, NEXT), forward });
    }
    Keyring::new(method, Some(key(method, PORT)), users).expect("no two keys are the same")
}

fn credentials(method: Kind, keys: &[u8]) -> Option<Credentials> {
    match (method, keys) {
        (Kind::Tried, [own]) => Some(key(method.method(), *own).into()),
        (Kind::Tried, _) | (Kind::Short | Kind::Long, []) => None,
        (Kind::Short | Kind::Long, keys) => {
            let len = method.method().key_len();
            let text = |key: &u8| encode_password(&vec![key + 1; len]).to_string();
            let password = keys.iter().map(text).collect::<Vec<_>>().join(":");
            Some(Credentials::from_password(method.method(), &password).expect("keys of the method's length"))
        }
    }
}
