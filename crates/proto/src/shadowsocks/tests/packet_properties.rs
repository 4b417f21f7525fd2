//! Packets of anything to anywhere, and packets that are anything.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::Method;
use super::key::Key;
use super::keyring::{Keyring, User};
use super::one_time_auth::OneTimeAuth;
use super::packet::{Chance, ClientSession, PacketDoor, PacketHop, ServerSession, SessionId};
use super::vectors::{NOW, key};
use crate::address::{Address, AddressBlock};

fn methods() -> impl Strategy<Value = Method> {
    prop::sample::select(Method::ALL.to_vec())
}

fn addresses() -> impl Strategy<Value = Address> {
    prop_oneof![
        any::<(std::net::IpAddr, u16)>().prop_map(|ip| Address::Ip(ip.into())),
        ("[a-z][a-z0-9.-]{0,254}", any::<u16>())
            .prop_map(|(name, port)| Address::from_host(&name, port).unwrap()),
    ]
}

fn pair(method: Method, auth: bool) -> (ClientSession, PacketDoor) {
    let door = PacketDoor::new(Arc::new(Keyring::from(key(method))), OneTimeAuth::Honoured);
    let hop = Arc::new(PacketHop::new(&key(method).into(), auth));
    (ClientSession::new(hop, SessionId([1; 8])), door)
}

fn block_of(address: &Address) -> Vec<u8> {
    let mut block = Vec::new();
    address.encode(&mut block);
    block
}

fn serve(
    door: &PacketDoor,
    server: &mut Option<ServerSession>,
    packet: &mut [u8],
) -> Option<(Address, Vec<u8>)> {
    let look = door.look(packet).ok()?;
    let datagram = match server {
        Some(server) => server.open(door, look, packet, NOW).ok()?,
        None => {
            let (begun, datagram) = ServerSession::begin(door, look, packet, NOW, SessionId([2; 8])).ok()?;
            *server = Some(begun);
            datagram
        }
    };
    Some((datagram.address.to_address(), datagram.payload.to_vec()))
}

/// Chance of which it is noted how much a packet asks for.
struct Noted(usize);

impl Chance for &mut Noted {
    fn fill(&mut self, room: &mut [u8]) {
        self.0 += room.len();
        room.fill(7);
    }

    fn more(&mut self, room: &mut [u8]) -> bool {
        room.fill(9);
        true
    }
}

#[test]
fn a_packet_is_sealed_with_as_much_chance_as_was_asked_for_before() {
    for method in Method::ALL {
        let ((mut client, door), mut server) = (pair(method, false), None);
        let block = block_of(&Address::from_host("192.0.2.1", 53).unwrap());
        let (block, _) = AddressBlock::split(&block).unwrap();
        for number in 0..40 {
            let (mut noted, asked, mut out) = (Noted(0), client.chance_bytes(), Vec::new());
            assert!([0, client.chance_bytes_max()].contains(&asked));
            client.seal(block, b"?", NOW, &mut noted, &mut out);
            assert_eq!(noted.0, asked, "{method}, request {number}");
            assert!(serve(&door, &mut server, &mut out).is_some());
            let server = server.as_mut().unwrap();
            let (mut noted, asked) = (Noted(0), server.chance_bytes(&door));
            server.seal(&door, block, b"!", NOW, &mut noted, &mut Vec::new());
            assert_eq!(noted.0, asked, "{method}, answer {number}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_to_itself_after_whatever_stood_before_it(
        method in methods(), auth: bool, address in addresses(), payload: Vec<u8>, before: Vec<u8>, random: [u8; 32],
    ) {
        let (mut client, door) = pair(method, auth);
        let block = block_of(&address);
        let (block, _) = AddressBlock::split(&block).unwrap();
        let mut out = before.clone();
        let fill = |bytes: &mut [u8]| bytes.copy_from_slice(&random[..bytes.len()]);
        client.seal(block, &payload, NOW, fill, &mut out);
        prop_assert_eq!(&out[..before.len()], &before);
        prop_assert_eq!(out.len() - before.len(), payload.len() + client.overhead(block.as_bytes().len()));
        let mut server = None;
        let said = serve(&door, &mut server, &mut out[before.len()..]);
        prop_assert_eq!(said, Some((address.clone(), payload.clone())));

        let mut out = before.clone();
        server.unwrap().seal(&door, block, &payload, NOW, fill, &mut out);
        prop_assert_eq!(&out[..before.len()], &before);
        prop_assert_eq!(out.len() - before.len(), payload.len() + door.overhead(block.as_bytes().len()));
        let datagram = client.open(&mut out[before.len()..], NOW).unwrap();
        prop_assert_eq!((datagram.address.to_address(), datagram.payload), (address, &payload[..]));
    }

    #[test]
    fn no_bytes_make_either_end_panic_and_none_open_under_a_tag(
        method in methods(), packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..8),
    ) {
        let (mut client, door) = pair(method, false);
        let mut server = None;
        for packet in packets {
            let (up, down) = (serve(&door, &mut server, &mut packet.clone()), client.open(&mut packet.clone(), NOW).is_ok());
            prop_assert!(method.is_insecure() || (up.is_none() && !down));
        }
    }

    #[test]
    fn no_bytes_make_a_port_with_users_panic(
        tried: bool, packet in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let method = if tried { Method::Aes128Gcm } else { Method::Blake3Aes128Gcm };
        let key = |byte| Key::from_bytes(method, &[byte; 16]).unwrap();
        let users = (1..4).map(|byte| User { name: byte.to_string().into(), key: key(byte), forward: None }).collect();
        let keyring = Keyring::new(method, Some(key(9)), users).unwrap();
        let door = PacketDoor::new(Arc::new(keyring), OneTimeAuth::Honoured);
        prop_assert_eq!(serve(&door, &mut None, &mut { packet }), None);
    }

    // The network loses, repeats, reorders and touches packets; each that was sent is heard at most once, as it was sent.
    #[test]
    fn a_session_hears_each_packet_once_whatever_the_network_does(
        method in methods(), deliveries in prop::collection::vec((0_usize..20, prop::option::of(any::<(u16, u8)>())), 1..50),
        cool: bool,
    ) {
        let (mut client, door) = pair(method, false);
        let block = block_of(&"a.example:53".parse().unwrap());
        let (block, _) = AddressBlock::split(&block).unwrap();
        let mut sealed = Vec::new();
        for number in 0_u8..20 {
            let mut packet = Vec::new();
            client.seal(block, &[number; 3], NOW, |bytes: &mut [u8]| bytes.fill(number), &mut packet);
            sealed.push(packet);
        }
        let (mut server, mut heard) = (None, HashSet::new());
        let is_windowed = method.generation() == super::Generation::Aead2022;
        for (number, flip) in deliveries {
            let mut packet = sealed[number].clone();
            if let Some((at, bit)) = flip {
                if method.is_insecure() {
                    continue;
                }
                let at = usize::from(at) % packet.len();
                packet[at] ^= 1 << (bit % 8);
                prop_assert_eq!(serve(&door, &mut server, &mut packet), None);
                continue;
            }
            let said = serve(&door, &mut server, &mut packet).map(|(_, payload)| payload);
            let is_new = heard.insert(number);
            let expected = (is_new || !is_windowed).then(|| vec![u8::try_from(number).unwrap(); 3]);
            prop_assert_eq!(said, expected);
            if let (true, Some(server)) = (cool, &mut server) {
                server.cool();
            }
        }
    }
}
