//! Packets against the vectors, and against everything that must not open.

use std::sync::Arc;

use super::identity::Credentials;
use super::key::{Key, encode_password};
use super::keyring::{Keyring, User};
use super::one_time_auth::OneTimeAuth;
use super::packet::{
    ClientSession, Datagram, Look, PacketDoor, PacketError, PacketHop, ServerSession, SessionId,
};
use super::packet_vectors::{EXTENDED, SALTED, SEPARATE};
use super::vectors::{HELLO, NOW, key, target, unhex};
use super::window::WindowRefusal;
use super::{Generation, Method, UnixTime};
use crate::address::{Address, AddressBlock, AddressError, IpBlock};
use crate::limits::{PACKET_WINDOW_IDS, SERVER_SESSION_MEMORY_SECS, SERVER_SESSIONS_FORGOTTEN_MAX};

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

fn user(name: &str, key: Key, forward: Option<&str>) -> User {
    User { name: name.into(), key, forward: forward.map(|to| to.parse().unwrap()) }
}

fn key_from(method: Method, first: u8) -> Key {
    Key::from_bytes(method, &secret(method, first)).unwrap()
}

/// A session that has begun, with the door it began at.
fn pair(method: Method) -> (ClientSession, PacketDoor, ServerSession) {
    let (mut client, door) = (client(&key(method).into()), door(key(method)));
    let (server, _) = begin(&door, &mut request(&mut client, HELLO), NOW).unwrap();
    (client, door, server)
}

/// The methods whose packets have sessions.
fn with_sessions() -> impl Iterator<Item = Method> {
    Method::ALL.into_iter().filter(|method| method.generation() == Generation::Aead2022)
}

const IDENTIFIED: [Method; 2] = [Method::Blake3Aes128Gcm, Method::Blake3Aes256Gcm];

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
        // A bit at a time takes its time.
        let longest = if method.is_insecure() { 3_000 } else { 65_000 };
        for payload in [&[][..], b"x", &[7; 1200], &vec![9; longest]] {
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

#[test]
fn no_flipped_bit_opens_and_none_takes_an_id() {
    for method in Method::ALL.into_iter().filter(|method| !method.is_insecure()) {
        let (mut client, door, mut server) = pair(method);
        let up = request(&mut client, HELLO);
        for place in 0..up.len() * 8 {
            let mut flipped = up.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            assert!(open(&mut server, &door, &mut flipped, NOW).is_err(), "{method} {place}");
            let mut flipped = up.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            assert!(begin(&door, &mut flipped, NOW).is_err(), "{method} {place}");
        }
        open(&mut server, &door, &mut up.clone(), NOW).unwrap();
        let down = response(&mut server, &door, HELLO);
        for place in 0..down.len() * 8 {
            let mut flipped = down.clone();
            flipped[place / 8] ^= 1 << (place % 8);
            assert!(client.open(&mut flipped, NOW).is_err(), "{method} {place}");
        }
        client.open(&mut down.clone(), NOW).unwrap();
    }
}

#[test]
fn a_packet_cut_anywhere_does_not_open() {
    for method in Method::ALL.into_iter().filter(|method| !method.is_insecure()) {
        let (mut client, door, mut server) = pair(method);
        let (up, down) = (request(&mut client, HELLO), response(&mut server, &door, HELLO));
        for end in 0..up.len() {
            assert!(open(&mut server, &door, &mut up[..end].to_vec(), NOW).is_err(), "{method} {end}");
            assert!(begin(&door, &mut up[..end].to_vec(), NOW).is_err(), "{method} {end}");
        }
        for end in 0..down.len() {
            assert!(client.open(&mut down[..end].to_vec(), NOW).is_err(), "{method} {end}");
        }
    }
}

#[test]
fn an_id_opens_once_and_not_when_it_is_too_old() {
    for method in with_sessions() {
        let (mut client, door, mut server) = pair(method);
        let packets: Vec<_> = (0..=PACKET_WINDOW_IDS).map(|_| request(&mut client, b"")).collect();
        let mut open = |number: usize| open(&mut server, &door, &mut packets[number].clone(), NOW).map(drop);
        let last = packets.len() - 1;
        assert_eq!(open(last), Ok(()), "a jump forward");
        assert_eq!(open(last), Err(PacketError::Window(WindowRefusal::Seen)), "{method}");
        assert_eq!(open(0), Err(PacketError::Window(WindowRefusal::Old)), "{method}");
        assert_eq!(open(1), Ok(()), "the oldest within the window");
        assert_eq!(open(1), Err(PacketError::Window(WindowRefusal::Seen)), "{method}");
        assert_eq!(open(last - 1), Ok(()));

        let packets: Vec<_> = (0..=PACKET_WINDOW_IDS).map(|_| response(&mut server, &door, b"")).collect();
        let mut open = |number: usize| client.open(&mut packets[number].clone(), NOW).map(drop);
        assert_eq!(open(last), Ok(()));
        assert_eq!(open(last), Err(PacketError::Window(WindowRefusal::Seen)), "{method}");
        assert_eq!(open(0), Err(PacketError::Window(WindowRefusal::Old)), "{method}");
        assert_eq!(open(1), Ok(()));
    }
}

#[test]
fn a_timestamp_is_good_for_thirty_seconds_either_way_and_a_bad_one_takes_no_id() {
    for method in with_sessions() {
        let (mut client, door, mut server) = pair(method);
        let (up, down) = (request(&mut client, HELLO), response(&mut server, &door, HELLO));
        for skew in [-31_i64, 31] {
            let now = UnixTime(NOW.0.saturating_add_signed(skew));
            assert_eq!(begin(&door, &mut up.clone(), now).map(drop), Err(PacketError::BadTime), "{method}");
            let opened = open(&mut server, &door, &mut up.clone(), now).map(drop);
            assert_eq!(opened, Err(PacketError::BadTime), "{method}");
            assert_eq!(client.open(&mut down.clone(), now).map(drop), Err(PacketError::BadTime), "{method}");
        }
        let (early, late) = (UnixTime(NOW.0 - 30), UnixTime(NOW.0 + 30));
        open(&mut server, &door, &mut up.clone(), early).unwrap();
        open(&mut server, &door, &mut request(&mut client, HELLO), late).unwrap();
        client.open(&mut down.clone(), late).unwrap();
        client.open(&mut response(&mut server, &door, HELLO), early).unwrap();
    }
}

#[test]
fn a_packet_of_the_other_direction_is_refused() {
    for method in with_sessions() {
        let (mut client, door, mut server) = pair(method);
        let (up, down) = (request(&mut client, HELLO), response(&mut server, &door, HELLO));
        assert_eq!(client.open(&mut up.clone(), NOW), Err(PacketError::WrongType), "{method}");
        assert_eq!(begin(&door, &mut down.clone(), NOW).map(drop), Err(PacketError::WrongType), "{method}");
    }
}

#[test]
fn a_packet_of_another_session_is_refused() {
    for method in with_sessions() {
        let (mut client, door, mut server) = pair(method);
        let hop = Arc::new(PacketHop::new(&key(method).into(), false));
        let mut other = ClientSession::new(hop, SessionId([9; 8]));
        let mut down = response(&mut server, &door, HELLO);
        assert_eq!(other.open(&mut down, NOW), Err(PacketError::OtherSession), "{method}");
        let mut up = request(&mut other, HELLO);
        assert_eq!(open(&mut server, &door, &mut up, NOW), Err(PacketError::OtherSession), "{method}");
        client.open(&mut response(&mut server, &door, HELLO), NOW).unwrap();
    }
}

#[test]
fn a_packet_says_whose_it_is_before_anybody_opens_it() {
    for method in with_sessions() {
        let (_, door, _) = pair(method);
        let hop = Arc::new(PacketHop::new(&key(method).into(), false));
        let mut scratch = Vec::new();
        for id in [SessionId([1; 8]), SessionId([2; 8])] {
            let mut client = ClientSession::new(Arc::clone(&hop), id);
            assert_eq!(client.id(), Some(id));
            let mut first = request(&mut client, HELLO);
            let (mut server, _) = begin(&door, &mut first, NOW).unwrap();
            let mut packet = response(&mut server, &door, HELLO);
            let mut again = packet.clone();
            let uncovered = hop.uncover(&mut packet).unwrap();
            let named = uncovered.server();
            assert_eq!(hop.client_of(&uncovered, &mut scratch), Ok(id), "{method}");
            let datagram = client.open_uncovered(uncovered, NOW).unwrap();
            assert_eq!(said(datagram), (source().block().to_address(), HELLO.to_vec()), "{method}");
            // It has been here.
            let uncovered = hop.uncover(&mut again).unwrap();
            assert_eq!(uncovered.server(), named);
            assert!(matches!(client.open_uncovered(uncovered, NOW), Err(PacketError::Window(_))), "{method}");
        }
        // What is not authentic is nobody's.
        let mut client = ClientSession::new(Arc::clone(&hop), SessionId([3; 8]));
        let (mut server, _) = begin(&door, &mut request(&mut client, HELLO), NOW).unwrap();
        let packet = response(&mut server, &door, HELLO);
        for place in 0..packet.len() {
            let mut flipped = packet.clone();
            flipped[place] ^= 1;
            let whose = hop.uncover(&mut flipped).and_then(|packet| hop.client_of(&packet, &mut scratch));
            assert_eq!(whose, Err(PacketError::Unauthentic), "{method} {place}");
        }
        // Nor is one of the other direction.
        let mut up = request(&mut client, HELLO);
        let whose = hop.uncover(&mut up).and_then(|packet| hop.client_of(&packet, &mut scratch));
        assert_eq!(whose, Err(PacketError::WrongType), "{method}");
    }
}

#[test]
fn packets_without_sessions_say_nothing_of_whose_they_are() {
    for method in Method::ALL.into_iter().filter(|method| with_sessions().all(|other| other != *method)) {
        let (client, ..) = pair(method);
        assert_eq!(client.id(), None, "{method}");
        let hop = PacketHop::new(&key(method).into(), false);
        assert_eq!(hop.uncover(&mut [0; 99]).map(drop), Err(PacketError::OtherSession), "{method}");
    }
}

#[test]
fn a_packet_under_another_key_does_not_open() {
    for method in Method::ALL.into_iter().filter(|method| !method.is_insecure()) {
        let (mut client, _, _) = pair(method);
        let door = door(key_from(method, 0x77));
        assert_eq!(
            begin(&door, &mut request(&mut client, HELLO), NOW).map(drop),
            Err(PacketError::Unauthentic)
        );
    }
}

/// Bodies that only a holder of the key could seal.
#[test]
fn padding_and_address_have_to_lie_within_the_body() {
    use super::packet::forged;
    let stamp = NOW.0.to_be_bytes();
    let address = block_of(&target());
    let body = |padding_len: u16, rest: &[u8]| [&[0][..], &stamp, &padding_len.to_be_bytes(), rest].concat();
    let cases: [(Vec<u8>, PacketError); 6] = [
        (Vec::new(), PacketError::Truncated),
        (vec![0; 5], PacketError::Truncated),
        (body(u16::MAX, &address), PacketError::Truncated),
        (body(1, &address), PacketError::Truncated),
        (body(0, &[5, 0, 0]), PacketError::Address(AddressError::UnknownType(5))),
        (body(0, b"\x03\x01 \0\0"), PacketError::Address(AddressError::BadName)),
    ];
    for method in with_sessions() {
        let (mut client, door, mut server) = pair(method);
        for (number, (body, expected)) in cases.iter().enumerate() {
            let mut packet = forged(&key(method), CLIENT, 1, body);
            let opened = open(&mut server, &door, &mut packet, NOW).map(drop);
            // With one byte of padding the name's length is read as the type.
            let expected =
                if number == 3 { PacketError::Address(AddressError::UnknownType(11)) } else { *expected };
            assert_eq!(opened, Err(expected), "{method} {number}");
        }
        let mut padded =
            forged(&key(method), CLIENT, 1, &body(900, &[&[0; 900][..], &address, HELLO].concat()));
        let datagram = open(&mut server, &door, &mut padded, NOW).unwrap();
        assert_eq!(said(datagram), (target(), HELLO.to_vec()), "the id was free, and padding is skipped");
        open(&mut server, &door, &mut request(&mut client, HELLO), NOW).unwrap_err();
    }
}

#[test]
fn the_identity_header_says_whose_a_packet_is() {
    for method in IDENTIFIED {
        let users = vec![user("a", key_from(method, 0x30), None), user("b", key(method), None)];
        let keyring = Keyring::new(method, Some(key_from(method, 0xa0)), users).unwrap();
        let door = door(keyring);
        let mut client = client(&named(method, &[0xa0]));
        let mut first = request(&mut client, HELLO);
        let (mut server, datagram) = begin(&door, &mut first, NOW).unwrap();
        assert_eq!(said(datagram), (target(), HELLO.to_vec()));
        assert_eq!(door.keyring().name(server.holder()), Some("b"));
        open(&mut server, &door, &mut request(&mut client, HELLO), NOW).unwrap();
        let mut down = response(&mut server, &door, b"hi");
        assert_eq!(said(client.open(&mut down, NOW).unwrap()).1, b"hi");
    }
}

#[test]
fn the_answer_to_an_identified_user_is_that_of_the_vectors() {
    for vector in SEPARATE {
        let method = vector.method;
        let users = vec![user("b", key(method), None)];
        let door = door(Keyring::new(method, Some(key_from(method, 0xa0)), users).unwrap());
        let (mut server, datagram) = begin(&door, &mut unhex(vector.named[0]), NOW)
            .map(|(server, datagram)| (server, said(datagram)))
            .unwrap();
        assert_eq!(datagram, (target(), HELLO.to_vec()));
        assert_eq!(response(&mut server, &door, b"hi"), unhex(vector.response), "{method}");
    }
}

#[test]
fn nobodys_identity_is_refused_and_so_is_somebody_elses_key_behind_it() {
    for method in IDENTIFIED {
        let users = vec![user("a", key_from(method, 0x30), None), user("b", key(method), None)];
        let door = door(Keyring::new(method, Some(key_from(method, 0xa0)), users).unwrap());
        for identities in [&[][..], &[0x40], &[0xa0, 0x40]] {
            let mut packet = request(&mut client(&named(method, identities)), HELLO);
            let opened = begin(&door, &mut packet, NOW).map(drop);
            assert_eq!(opened, Err(PacketError::UnknownIdentity), "{method} {identities:?}");
        }
        let mut packet = request(&mut client(&named(method, &[0xa0])), HELLO);
        let Look::Session { id, .. } = door.look(&mut packet).unwrap() else { panic!("a session") };
        let other = door.keyring().holders().next().unwrap();
        let look = Look::Session { id, holder: other };
        let opened = ServerSession::begin(&door, look, &mut packet, NOW, SERVER).map(drop);
        assert_eq!(opened, Err(PacketError::Unauthentic));
    }
}

#[test]
fn a_relay_hands_on_what_the_next_server_understands_and_its_answers_reach_the_client_untouched() {
    for vector in SEPARATE {
        let method = vector.method;
        let users = vec![user("next", key_from(method, 0x40), Some("b.example:2"))];
        let relay = door(Keyring::new(method, Some(key_from(method, 0xa0)), users).unwrap());
        let users = vec![user("b", key(method), None)];
        let server = door(Keyring::new(method, Some(key_from(method, 0x40)), users).unwrap());

        let mut packet = unhex(vector.named[1]);
        let Look::Forward { to, start, session, holder, packet: id } = relay.look(&mut packet).unwrap()
        else {
            panic!("for another server")
        };
        assert_eq!((to.to_string().as_str(), session, id), ("b.example:2", CLIENT, 0));
        assert_eq!(relay.keyring().name(holder), Some("next"));
        let look = Look::Forward { to, start, session, holder, packet: id };
        let mut copy = packet.clone();
        assert_eq!(
            ServerSession::begin(&relay, look, &mut copy, NOW, SERVER).map(drop),
            Err(PacketError::Elsewhere)
        );
        let (mut served, datagram) = begin(&server, &mut packet[start..], NOW)
            .map(|(served, datagram)| (served, said(datagram)))
            .unwrap();
        assert_eq!(datagram, (target(), HELLO.to_vec()));
        let mut client = client(&named(method, &[0xa0, 0x40]));
        assert_eq!(said(client.open(&mut response(&mut served, &server, b"hi"), NOW).unwrap()).1, b"hi");
        // What names the next server fits one id of one session.
        let [first, second] = [(); 2].map(|()| request(&mut client, HELLO));
        let id = |packet: &[u8]| match relay.look(&mut packet.to_vec())? {
            Look::Forward { packet, .. } => Ok(packet),
            Look::Session { .. } | Look::Source => panic!("for another server"),
        };
        assert_eq!([id(&first), id(&second)], [Ok(0), Ok(1)]);
        let mixed = [&second[..16], &first[16..]].concat();
        assert_eq!(id(&mixed), Err(PacketError::UnknownIdentity));
    }
}

#[test]
fn users_of_sip004_are_found_by_trying_and_what_nobody_opens_is_left_as_it_was() {
    for method in
        [Method::Aes128Gcm, Method::Chacha20IetfPoly1305, Method::Xchacha20IetfPoly1305, Method::Aes256Ocb]
    {
        let users = [0x30, 0x40, 0x50].map(|first| user(&first.to_string(), key_from(method, first), None));
        let door = door(Keyring::new(method, Some(key_from(method, 0x10)), users.into()).unwrap());
        assert!(door.is_tried());
        let mut sessions = Vec::new();
        for first in [0x50, 0x30, 0x40, 0x10] {
            let mut client = client(&key_from(method, first).into());
            let mut packet = request(&mut client, HELLO);
            let (server, datagram) = begin(&door, &mut packet, NOW).unwrap();
            assert_eq!(said(datagram), (target(), HELLO.to_vec()));
            let name = (first != 0x10).then(|| first.to_string());
            assert_eq!(door.keyring().name(server.holder()), name.as_deref());
            sessions.push((client, server));
        }
        // One whose holder is guessed.
        let (sender, known) = &mut sessions[1];
        let packet = request(sender, HELLO);
        for (holder, is_right) in [(door.keyring().holders().next().unwrap(), false), (known.holder(), true)]
        {
            let mut bytes = packet.clone();
            match ServerSession::begin_as(&door, holder, &mut bytes) {
                Ok((begun, datagram)) => {
                    assert_eq!((begun.holder(), said(datagram)), (holder, (target(), HELLO.to_vec())));
                    assert!(is_right);
                }
                Err(error) => {
                    assert_eq!((error, &bytes), (PacketError::Unauthentic, &packet));
                    assert!(!is_right);
                }
            }
        }
        // The second holder's packet, from where the first one's came.
        let (mut other, mut one) = (sessions.pop().unwrap().0, sessions.pop().unwrap().1);
        let packet = request(&mut other, HELLO);
        let mut opened = packet.clone();
        assert_eq!(open(&mut one, &door, &mut opened, NOW), Err(PacketError::Unauthentic));
        assert_eq!(opened, packet, "{method}");
        begin(&door, &mut opened, NOW).unwrap();
        let mut stranger = request(&mut client(&key_from(method, 0x77).into()), HELLO);
        let before = stranger.clone();
        assert_eq!(begin(&door, &mut stranger, NOW).map(drop), Err(PacketError::Unauthentic));
        assert_eq!(stranger, before, "{method}");
    }
}

#[test]
fn one_time_authentication_is_that_of_the_python_program() {
    let key = Key::from_password(Method::Aes256Cfb, "foobar").unwrap();
    let hop = Arc::new(PacketHop::new(&key.clone().into(), true));
    let mut client = ClientSession::new(hop, CLIENT);
    let block = block_of(&"127.0.0.1:80".parse().unwrap());
    let mut packet = Vec::new();
    client.seal(at(&block), HELLO, NOW, count(0), &mut packet);
    assert_eq!(packet.len(), HELLO.len() + client.overhead(block.len()));
    let iv = super::Salt::new(Method::Aes256Cfb, std::array::from_fn(|at| u8::try_from(at).unwrap()));
    let mut text = packet[16..].to_vec();
    super::cipher::flat::Flat::new(&key, &iv, super::cipher::flat::Way::Open).apply(&mut text);
    assert_eq!(text, unhex("117f000001005068656c6c6fe7538e66b11e87874d1a"));
}

#[test]
fn one_time_authentication_is_checked_where_it_is_and_demanded_where_it_must_be() {
    for method in Method::ALL.into_iter().filter(|method| method.is_insecure()) {
        let hop = Arc::new(PacketHop::new(&key(method).into(), true));
        let mut careful = ClientSession::new(hop, CLIENT);
        let mut careless = client(&key(method).into());
        let keyring = Arc::new(Keyring::from(key(method)));
        let demanding = PacketDoor::new(Arc::clone(&keyring), OneTimeAuth::Demanded);
        let honouring = PacketDoor::new(keyring, OneTimeAuth::Honoured);
        for door in [&demanding, &honouring] {
            let packet = request(&mut careful, HELLO);
            let mut whole = packet.clone();
            let (mut server, datagram) = begin(door, &mut whole, NOW).unwrap();
            assert_eq!(said(datagram), (target(), HELLO.to_vec()), "{method}");
            open(&mut server, door, &mut packet.clone(), NOW).unwrap();
            let mut touched = packet;
            *touched.last_mut().unwrap() ^= 1;
            assert_eq!(
                begin(door, &mut touched, NOW).map(drop),
                Err(PacketError::BadOneTimeAuth),
                "{method}"
            );
            let mut down = response(&mut server, door, b"hi");
            assert_eq!(said(careful.open(&mut down, NOW).unwrap()).1, b"hi", "answers have none");
        }
        let mut bare = request(&mut careless, HELLO);
        assert_eq!(begin(&demanding, &mut bare, NOW).map(drop), Err(PacketError::NoOneTimeAuth), "{method}");
        let mut bare = request(&mut careless, HELLO);
        begin(&honouring, &mut bare, NOW).unwrap();
    }
}

/// The server's session that answers `client` under the id `own`, after a restart if there was one before.
fn restarted(client: &mut ClientSession, door: &PacketDoor, own: u8, now: UnixTime) -> ServerSession {
    let mut packet = Vec::new();
    client.seal(at(&block_of(&target())), b"", now, count(0), &mut packet);
    let look = door.look(&mut packet).unwrap();
    ServerSession::begin(door, look, &mut packet, now, SessionId([own; 8])).unwrap().0
}

fn answer(server: &mut ServerSession, door: &PacketDoor, now: UnixTime) -> Vec<u8> {
    let mut packet = Vec::new();
    server.seal(door, source().block(), b"hi", now, count(0), &mut packet);
    packet
}

#[test]
fn a_restarted_server_is_heard_at_once_and_what_it_said_before_does_not_come_again() {
    for method in with_sessions() {
        let (mut client, door) = (client(&key(method).into()), door(key(method)));
        let (mut said, mut servers) = (Vec::new(), Vec::new());
        for own in 1..=4 {
            let mut server = restarted(&mut client, &door, own, NOW);
            for _ in 0..2 {
                let packet = answer(&mut server, &door, NOW);
                client.open(&mut packet.clone(), NOW).unwrap();
                said.push(packet);
            }
            servers.push(server);
        }
        for replayed in &said {
            assert!(client.open(&mut replayed.clone(), NOW).is_err(), "{method}");
        }
        // The last two are listened to; what the others still say is not the start of a session.
        for (server, is_heard) in servers.iter_mut().zip([false, false, true, true]) {
            let opened = client.open(&mut answer(server, &door, NOW), NOW).map(drop);
            assert_eq!(opened, if is_heard { Ok(()) } else { Err(PacketError::OtherSession) }, "{method}");
        }
    }
}

#[test]
fn the_server_before_a_restart_is_still_heard() {
    for method in with_sessions() {
        let (mut client, door) = (client(&key(method).into()), door(key(method)));
        let mut old = restarted(&mut client, &door, 1, NOW);
        let late = answer(&mut old, &door, NOW);
        client.open(&mut answer(&mut old, &door, NOW), NOW).unwrap();
        let mut new = restarted(&mut client, &door, 2, NOW);
        client.open(&mut answer(&mut new, &door, NOW), NOW).unwrap();
        client.open(&mut late.clone(), NOW).unwrap();
        client.open(&mut answer(&mut new, &door, NOW), NOW).unwrap();
    }
}

#[test]
fn a_server_that_restarts_without_end_waits_until_its_first_sessions_are_forgotten() {
    for method in with_sessions() {
        let (mut client, door) = (client(&key(method).into()), door(key(method)));
        let most = u8::try_from(2 + SERVER_SESSIONS_FORGOTTEN_MAX).unwrap();
        for own in 1..=most {
            let mut server = restarted(&mut client, &door, own, NOW);
            client.open(&mut answer(&mut server, &door, NOW), NOW).unwrap();
        }
        let mut server = restarted(&mut client, &door, most + 1, NOW);
        let mut refused = answer(&mut server, &door, NOW);
        assert_eq!(client.open(&mut refused, NOW), Err(PacketError::TooManyServers), "{method}");
        let later = UnixTime(NOW.0 + SERVER_SESSION_MEMORY_SECS + 1);
        client.open(&mut answer(&mut server, &door, later), later).unwrap();
    }
}

#[test]
fn nothing_prints_what_it_holds() {
    for method in Method::ALL {
        let (client, door, server) = pair(method);
        let hop = PacketHop::new(&key(method).into(), false);
        assert_eq!(format!("{client:?}"), format!("ClientSession<{method}>(..)"));
        assert_eq!(format!("{hop:?}"), format!("PacketHop<{method}>(..)"));
        assert_eq!(format!("{server:?}"), "ServerSession(..)");
        assert_eq!(format!("{door:?}"), format!("PacketDoor(Keyring<{method}, 1>(..))"));
    }
    assert_eq!(format!("{CLIENT:?}"), "SessionId(..)");
}
