//! Packets against the vectors, and against everything that must not open.

use std::sync::Arc;

use super::identity::Credentials;
use super::key::encode_password;
use super::keyring::Keyring;
use super::one_time_auth::OneTimeAuth;
use super::packet::{ClientSession, Datagram, PacketDoor, PacketError, PacketHop, ServerSession, SessionId};
use super::packet_vectors::{EXTENDED, SALTED, SEPARATE};
use super::vectors::{HELLO, NOW, key, target, unhex};
use super::{Method, UnixTime};
use crate::address::{Address, AddressBlock, IpBlock};

const CLIENT: SessionId = SessionId([1, 2, 3, 4, 5, 6, 7, 8]);
const SERVER: SessionId = SessionId([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);

fn block_of(address: &Address) -> Vec<u8> {
    let mut block = Vec::new();
    address.encode(&mut block);
    block
}

fn source() -> IpBlock {
    IpBlock::from("93.184.216.34:443".parse::<std::net::SocketAddr>().unwrap())
}

fn at(block: &[u8]) -> AddressBlock<'_> {
    AddressBlock::split(block).unwrap().0
}

/// Randomness that counts up from `first`.
fn count(first: u8) -> impl Fn(&mut [u8]) {
    move |bytes| bytes.iter_mut().zip(first..).for_each(|(byte, number)| *byte = number)
}

fn client(credentials: &Credentials) -> ClientSession {
    ClientSession::new(Arc::new(PacketHop::new(credentials, false)), CLIENT)
}

fn door(keyring: impl Into<Keyring>) -> PacketDoor {
    PacketDoor::new(Arc::new(keyring.into()), OneTimeAuth::Honoured)
}

fn request(client: &mut ClientSession, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    client.seal(at(&block_of(&target())), payload, NOW, count(0), &mut packet);
    packet
}

fn response(server: &mut ServerSession, door: &PacketDoor, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    server.seal(door, source().block(), payload, NOW, count(0x18), &mut packet);
    packet
}

fn begin<'p>(
    door: &PacketDoor,
    packet: &'p mut [u8],
    now: UnixTime,
) -> Result<(ServerSession, Datagram<'p>), PacketError> {
    let look = door.look(packet)?;
    ServerSession::begin(door, look, packet, now, SERVER)
}

fn open<'p>(
    server: &mut ServerSession,
    door: &PacketDoor,
    packet: &'p mut [u8],
    now: UnixTime,
) -> Result<Datagram<'p>, PacketError> {
    let look = door.look(packet)?;
    server.open(door, look, packet, now)
}

fn said(datagram: Datagram<'_>) -> (Address, Vec<u8>) {
    (datagram.address.to_address(), datagram.payload.to_vec())
}

/// Credentials of identity keys `named` (the first byte of each) before the key of the vectors.
fn named(method: Method, named: &[u8]) -> Credentials {
    let text = |first: u8| encode_password(&secret(method, first)).to_string();
    let keys: Vec<_> = named.iter().copied().chain([0]).map(text).collect();
    Credentials::from_password(method, &keys.join(":")).unwrap()
}

fn secret(method: Method, first: u8) -> Vec<u8> {
    (first..).take(method.key_len()).collect()
}

#[test]
fn packets_are_those_of_the_vectors() {
    for (method, wire) in SALTED {
        assert_eq!(request(&mut client(&key(method).into()), HELLO), unhex(wire), "{method}");
    }
    for vector in SEPARATE {
        let method = vector.method;
        assert_eq!(request(&mut client(&key(method).into()), HELLO), unhex(vector.request), "{method}");
        for (identities, wire) in [&[0xa0][..], &[0xa0, 0x40]].into_iter().zip(vector.named) {
            let credentials = named(method, identities);
            assert_eq!(request(&mut client(&credentials), HELLO), unhex(wire), "{method}");
        }
        let door = door(key(method));
        let (mut server, _) = begin(&door, &mut unhex(vector.request), NOW).unwrap();
        assert_eq!(response(&mut server, &door, b"hi"), unhex(vector.response), "{method}");
    }
    let method = Method::Blake3Chacha20Poly1305;
    assert_eq!(request(&mut client(&key(method).into()), HELLO), unhex(EXTENDED[0]));
    let door = door(key(method));
    let (mut server, _) = begin(&door, &mut unhex(EXTENDED[0]), NOW).unwrap();
    assert_eq!(response(&mut server, &door, b"hi"), unhex(EXTENDED[1]));
}

#[test]
fn the_packets_of_the_vectors_open() {
    let requests = SALTED.into_iter();
    let requests =
        requests.chain(SEPARATE.iter().flat_map(|v| [(v.method, v.request), (v.method, v.padded)]));
    for (method, wire) in requests.chain([(Method::Blake3Chacha20Poly1305, EXTENDED[0])]) {
        let mut wire = unhex(wire);
        let (_, datagram) = begin(&door(key(method)), &mut wire, NOW).unwrap();
        assert_eq!(said(datagram), (target(), HELLO.to_vec()), "{method}");
    }
    let responses = SEPARATE.iter().map(|vector| (vector.method, vector.response));
    for (method, wire) in responses.chain([(Method::Blake3Chacha20Poly1305, EXTENDED[1])]) {
        let (mut client, mut wire) = (client(&key(method).into()), unhex(wire));
        let datagram = client.open(&mut wire, NOW).unwrap();
        assert_eq!(said(datagram), (source().block().to_address(), b"hi".to_vec()), "{method}");
    }
}

#[test]
fn an_association_of_every_method_says_what_was_said_both_ways() {
    for method in Method::ALL {
        let door = door(key(method));
        let mut client = client(&key(method).into());
        let mut first = request(&mut client, HELLO);
        let (mut server, datagram) = begin(&door, &mut first, NOW).unwrap();
        assert_eq!(said(datagram), (target(), HELLO.to_vec()), "{method}");
        for payload in [&[][..], b"x", &[7; 1200], &[9; 65_000]] {
            let mut packet = request(&mut client, payload);
            assert_eq!(packet.len(), payload.len() + client.overhead(block_of(&target()).len()), "{method}");
            let datagram = open(&mut server, &door, &mut packet, NOW).unwrap();
            assert_eq!(said(datagram), (target(), payload.to_vec()), "{method}");

            let mut packet = response(&mut server, &door, payload);
            assert_eq!(packet.len(), payload.len() + door.overhead(7), "{method}");
            let datagram = client.open(&mut packet, NOW).unwrap();
            assert_eq!(said(datagram), (source().block().to_address(), payload.to_vec()), "{method}");
            client.cool();
            server.cool();
        }
    }
}
