//! A client's association: packets of our server, which restarts, and of others that hold the key, through a network that
//! flips, cuts, repeats, reorders and invents.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_fuzz::packet::{Body, From, forge, read};
use umbra_fuzz::{NOW, key};
use umbra_proto::address::{Address, AddressBlock};
use umbra_proto::shadowsocks::keyring::Keyring;
use umbra_proto::shadowsocks::one_time_auth::OneTimeAuth;
use umbra_proto::shadowsocks::packet::{ClientSession, PacketDoor, PacketHop, ServerSession, SessionId};
use umbra_proto::shadowsocks::{Generation, Method, UnixTime};

#[derive(Arbitrary, Debug)]
struct Script {
    method: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Restart,
    /// One of the server's lives says something more.
    Seal {
        life: u8,
        payload: Vec<u8>,
    },
    Deliver {
        which: u8,
        flip: Option<(u16, u8)>,
        cut: Option<u16>,
    },
    Noise(Vec<u8>),
    Forged {
        session: u8,
        packet: u64,
        body: Body,
    },
    Wait(u8),
    Cool,
}

const CLIENT: [u8; 8] = [7; 8];

fuzz_target!(|script: Script| {
    let method = Method::ALL[usize::from(script.method) % Method::ALL.len()];
    let is_windowed = method.generation() == Generation::Aead2022;
    let door = PacketDoor::new(Arc::new(Keyring::from(key(method))), OneTimeAuth::Honoured);
    let mut client =
        ClientSession::new(Arc::new(PacketHop::new(&key(method).into(), false)), SessionId(CLIENT));
    let mut now = NOW;
    let mut lives = vec![begin(&door, &mut client, 0, now)];
    // What was sealed, what it says, when, and whether it has been heard.
    let mut sealed: Vec<(Vec<u8>, Vec<u8>, UnixTime, bool)> = Vec::new();
    let (mut forged, mut forged_ids) = (false, Vec::new());
    for step in script.steps.into_iter().take(40) {
        let wire = match step {
            Step::Restart => {
                lives.push(begin(&door, &mut client, lives.len() as u8, now));
                continue;
            }
            Step::Seal { life, payload } => {
                let life = usize::from(life) % lives.len();
                let mut wire = Vec::new();
                let salt = sealed.len() as u8;
                lives[life].seal(
                    &door,
                    source(),
                    &payload,
                    now,
                    |bytes: &mut [u8]| bytes.fill(salt),
                    &mut wire,
                );
                sealed.push((wire, payload, now, false));
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
                // Timestamps of bodies are about the time of the start.
                if matches!(method, Method::Blake3Aes128Gcm | Method::Blake3Aes256Gcm) && now == NOW {
                    let session = [100 + session % 4; 8];
                    let body = body.bytes(From::Server(CLIENT));
                    let opened = open(&mut client, &mut forge(method, session, packet, &body), now);
                    if opened.is_some() {
                        assert_eq!(opened, read(From::Server(CLIENT), &body));
                        assert!(!forged_ids.contains(&(session, packet)), "an id opens once");
                        forged_ids.push((session, packet));
                        forged = true;
                    }
                }
                continue;
            }
            Step::Wait(secs) => {
                now = UnixTime(now.0 + u64::from(secs));
                continue;
            }
            Step::Cool => {
                client.cool();
                lives.iter_mut().for_each(ServerSession::cool);
                continue;
            }
        };
        let opened = open(&mut client, &mut wire.clone(), now);
        if method.is_insecure() {
            continue;
        }
        match sealed.iter_mut().find(|(known, ..)| *known == wire) {
            Some((_, said, at, heard)) => {
                let is_due = !is_windowed || (!*heard && now.0 - at.0 <= 30);
                if let Some((_, payload)) = &opened {
                    assert!(is_due && payload == said);
                }
                // Two lives are listened to; of more it depends on what has been heard of them.
                assert!(opened.is_some() || !is_due || lives.len() > 2 || forged);
                *heard |= opened.is_some();
            }
            None => assert_eq!(opened, None),
        }
    }
});

fn open(client: &mut ClientSession, wire: &mut [u8], now: UnixTime) -> Option<(Address, Vec<u8>)> {
    let datagram = client.open(wire, now).ok()?;
    Some((datagram.address.to_address(), datagram.payload.to_vec()))
}

fn begin(door: &PacketDoor, client: &mut ClientSession, life: u8, now: UnixTime) -> ServerSession {
    let mut packet = Vec::new();
    client.seal(source(), b"", now, |bytes: &mut [u8]| bytes.fill(0), &mut packet);
    let look = door.look(&mut packet).expect("an honest client");
    ServerSession::begin(door, look, &mut packet, now, SessionId([life; 8])).expect("an honest client").0
}

fn source() -> AddressBlock<'static> {
    AddressBlock::split(b"\x01\xc0\x00\x02\x01\x00\x50").expect("an address").0
}
