//! A server's associations: packets of our client and of others that hold a key, through a network that flips, cuts, repeats,
//! reorders and invents.
#![no_main]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_fuzz::packet::{Body, From, forge, read};
use umbra_fuzz::{NOW, SECRET, key};
use umbra_proto::address::{Address, AddressBlock};
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::key::{Key, encode_password};
use umbra_proto::shadowsocks::keyring::{Keyring, User};
use umbra_proto::shadowsocks::one_time_auth::OneTimeAuth;
use umbra_proto::shadowsocks::packet::{
    ClientSession, Look, PacketDoor, PacketHop, ServerSession, SessionId,
};
use umbra_proto::shadowsocks::{Generation, Method};

#[derive(Arbitrary, Debug)]
struct Script {
    method: u8,
    /// Whether the port knows others, where its method can tell them apart.
    users: bool,
    auth: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Our client says something more.
    Seal {
        payload: Vec<u8>,
        name_len: u8,
    },
    /// Something that has been sealed arrives, perhaps not as it was.
    Deliver {
        which: u8,
        flip: Option<(u16, u8)>,
        cut: Option<u16>,
    },
    Noise(Vec<u8>),
    /// Somebody who holds the key builds a packet by hand.
    Forged {
        session: u8,
        packet: u64,
        body: Body,
    },
    Answer(Vec<u8>),
    Cool,
}

const CLIENT: SessionId = SessionId([7; 8]);

/// Who opens what: at most one association for each session, and one for all that have none.
struct Server {
    door: PacketDoor,
    sessions: HashMap<Option<SessionId>, ServerSession>,
}

impl Server {
    fn serve(&mut self, packet: &[u8]) -> Option<(Address, Vec<u8>)> {
        let mut packet = packet.to_vec();
        let look = self.door.look(&mut packet).ok()?;
        let id = match look {
            Look::Session { id, .. } => Some(id),
            Look::Source => None,
            Look::Forward { start, .. } => {
                assert!(start <= packet.len());
                return None;
            }
        };
        let datagram = match self.sessions.get_mut(&id) {
            Some(session) => session.open(&self.door, look, &mut packet, NOW).ok()?,
            None => {
                let own = SessionId([9; 8]);
                let (session, datagram) =
                    ServerSession::begin(&self.door, look, &mut packet, NOW, own).ok()?;
                self.sessions.insert(id, session);
                datagram
            }
        };
        Some((datagram.address.to_address(), datagram.payload.to_vec()))
    }
}

fuzz_target!(|script: Script| {
    let method = Method::ALL[usize::from(script.method) % Method::ALL.len()];
    let is_sound = !method.is_insecure();
    let mut server = Server { door: door(method, script.users), sessions: HashMap::new() };
    let is_named = is_identified(method, script.users);
    let credentials = if is_named { named(method) } else { key(method).into() };
    let mut client = ClientSession::new(Arc::new(PacketHop::new(&credentials, script.auth)), CLIENT);
    let mut sealed: Vec<Sealed> = Vec::new();
    let mut forged: HashSet<(u8, u64)> = HashSet::new();
    for step in script.steps.into_iter().take(40) {
        let wire = match step {
            Step::Seal { payload, name_len } => {
                let target =
                    Address::from_host(&"n".repeat(usize::from(name_len.max(1))), 80).expect("a name");
                let mut block = Vec::new();
                target.encode(&mut block);
                let (block, _) = AddressBlock::split(&block).expect("an address");
                let (mut wire, salt) = (Vec::new(), sealed.len() as u8);
                client.seal(block, &payload, NOW, |bytes: &mut [u8]| bytes.fill(salt), &mut wire);
                assert_eq!(wire.len(), client.overhead(block.as_bytes().len()) + payload.len());
                sealed.push((wire, (target, payload), false));
                continue;
            }
            Step::Deliver { which, flip, cut } => {
                if sealed.is_empty() {
                    continue;
                }
                let mut wire = sealed[usize::from(which) % sealed.len()].0.clone();
                if let (Some((at, bit)), false) = (flip, wire.is_empty()) {
                    let at = usize::from(at) % wire.len();
                    wire[at] ^= 1 << (bit % 8);
                }
                if let Some(cut) = cut {
                    wire.truncate(cut.into());
                }
                wire
            }
            Step::Noise(wire) => wire,
            Step::Forged { session, packet, body } => {
                if is_identified(method, true) && !is_named {
                    // Never our client's session, whose ids are its own.
                    let session = session % 4;
                    let body = body.bytes(From::Client);
                    let opened = server.serve(&forge(method, [session; 8], packet, &body));
                    let expected = read(From::Client, &body);
                    if forged.contains(&(session, packet)) {
                        assert_eq!(opened, None, "an id opens once");
                    } else if opened.is_some() {
                        assert_eq!(opened, expected);
                        forged.insert((session, packet));
                    } else {
                        // It may have come too late for the window.
                        let newest = forged.iter().filter(|(of, _)| *of == session).map(|(_, id)| *id).max();
                        let is_late = newest.is_some_and(|newest| newest.saturating_sub(packet) >= 2048);
                        assert!(expected.is_none() || is_late);
                    }
                }
                continue;
            }
            Step::Answer(payload) => {
                for session in server.sessions.values_mut() {
                    let source: Address = "192.0.2.1:80".parse().expect("an address");
                    let mut block = Vec::new();
                    source.encode(&mut block);
                    let (block, _) = AddressBlock::split(&block).expect("an address");
                    let mut wire = Vec::new();
                    session.seal(
                        &server.door,
                        block,
                        &payload,
                        NOW,
                        |bytes: &mut [u8]| bytes.fill(3),
                        &mut wire,
                    );
                    assert_eq!(wire.len(), server.door.overhead(block.as_bytes().len()) + payload.len());
                }
                continue;
            }
            Step::Cool => {
                server.sessions.values_mut().for_each(ServerSession::cool);
                continue;
            }
        };
        let opened = server.serve(&wire);
        if !is_sound {
            continue;
        }
        // A bit flipped in one packet may make another one, so what counts is what came over the wire.
        match sealed.iter_mut().find(|(known, ..)| *known == wire) {
            Some((_, said, heard)) => {
                let is_windowed = method.generation() == Generation::Aead2022;
                let expected = (!(is_windowed && *heard)).then(|| said.clone());
                assert_eq!(opened, expected);
                *heard = true;
            }
            None => assert_eq!(opened, None),
        }
    }
});

/// A packet, what it says, and whether it has been heard.
type Sealed = (Vec<u8>, (Address, Vec<u8>), bool);

fn is_identified(method: Method, users: bool) -> bool {
    users && matches!(method, Method::Blake3Aes128Gcm | Method::Blake3Aes256Gcm)
}

/// What the first of a port's users holds.
fn named(method: Method) -> Credentials {
    let port = encode_password(&SECRET[..method.key_len()]);
    let own = encode_password(&vec![1; method.key_len()]);
    Credentials::from_password(method, &format!("{}:{}", *port, *own)).expect("keys of the method's length")
}

/// The port of the fuzzed key's holder, alone or with others.
fn door(method: Method, users: bool) -> PacketDoor {
    let other =
        |byte: u8| Key::from_bytes(method, &vec![byte; method.key_len()]).expect("a key of the length");
    let user = |byte: u8, forward: Option<Address>| User {
        name: byte.to_string().into(),
        key: other(byte),
        forward,
    };
    let keyring = match method.generation() {
        Generation::Aead if users => {
            Keyring::new(method, Some(key(method)), vec![user(1, None), user(2, None)])
                .expect("different keys")
        }
        // Our client has the port's own key and names nobody.
        Generation::Aead2022 if is_identified(method, users) => {
            let to = "b.example:2".parse().expect("an address");
            Keyring::new(method, Some(key(method)), vec![user(1, None), user(2, Some(to))])
                .expect("different keys")
        }
        Generation::Stream | Generation::Aead | Generation::Aead2022 => key(method).into(),
    };
    PacketDoor::new(Arc::new(keyring), OneTimeAuth::Honoured)
}
