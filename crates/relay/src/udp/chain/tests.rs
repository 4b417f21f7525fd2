//! A chain against the servers' side of each of its layers.

use super::*;
use proptest::prelude::*;
use std::sync::Arc;

use umbra_proto::address::IpBlock;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::key::{Key, encode_password};
use umbra_proto::shadowsocks::packet::{PacketDoor, PacketHop, ServerSession, SessionId};

const NOW: UnixTime = UnixTime(1_700_000_000);

/// The other end of one layer.
enum Far {
    Server(PacketDoor, Option<ServerSession>),
    Parent,
}

fn key(method: Method, byte: u8) -> Key {
    Key::from_password(method, &encode_password(&vec![byte; method.key_len()])).unwrap()
}

/// A chain through hops that speak a method or, without one, SOCKS5, at ports 1, 2, 3, …; and the other ends.
fn chain(methods: &[Option<Method>]) -> (Chain, Vec<Far>) {
    let byte = |index: usize| u8::try_from(index + 1).unwrap();
    let speech = |(index, method): (usize, &Option<Method>)| match method {
        None => Speech::Parent,
        Some(method) => {
            let hop = Arc::new(PacketHop::new(&key(*method, byte(index)).into(), false));
            Speech::Server(ClientSession::new(hop, SessionId([byte(index); 8])))
        }
    };
    let far = |(index, method): (usize, &Option<Method>)| match method {
        None => Far::Parent,
        Some(method) => {
            let keys = Arc::new(key(*method, byte(index)).into());
            Far::Server(
                PacketDoor::new(keys, umbra_proto::shadowsocks::one_time_auth::OneTimeAuth::Honoured),
                None,
            )
        }
    };
    let mut chain = Chain::new(methods.iter().enumerate().map(speech).collect());
    let stops: Vec<Address> = (1..methods.len()).map(ports).collect();
    chain.found(&stops);
    (chain, methods.iter().enumerate().map(far).collect())
}

/// The hop behind `number` others.
fn stop(number: u16) -> Address {
    Address::Ip(SocketAddr::from(([192, 0, 2, 1], number + 1)))
}

fn block(address: &Address) -> OwnedBlock {
    address.into()
}

fn sealed(chain: &mut Chain, scratch: &mut Scratch, target: &Address, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    scratch.chances = (1..)
        .zip(&chain.layers)
        .map(|(byte, layer)| Random::constant(byte, layer.speech.chance_bytes_max()))
        .collect();
    chain.seal(block(target).block(), payload, NOW, scratch, &mut out);
    out
}

impl Far {
    /// What the hop sends on, and where.
    fn open(&mut self, bytes: &mut [u8]) -> (Address, Vec<u8>) {
        match self {
            Self::Parent => {
                let (target, payload) = socks5::open(bytes).unwrap();
                (target.to_address(), payload.to_vec())
            }
            Self::Server(door, session) => {
                let look = door.look(bytes).unwrap();
                let opened = match session {
                    Some(session) => session.open(door, look, bytes, NOW).unwrap(),
                    None => {
                        let own = SessionId(*b"a server");
                        let (begun, opened) =
                            ServerSession::begin_after(door, look, bytes, NOW, own, None).unwrap();
                        *session = Some(begun);
                        opened
                    }
                };
                (opened.address.to_address(), opened.payload.to_vec())
            }
        }
    }

    /// An answer that has come to the hop from `source`.
    fn seal(&mut self, source: &Address, payload: &[u8]) -> Vec<u8> {
        let (block, mut out) = (block(source), Vec::new());
        match self {
            Self::Parent => {
                socks5::head(block.block(), &mut out);
                out.extend_from_slice(payload);
            }
            Self::Server(door, session) => {
                let session = session.as_mut().unwrap();
                session.seal(door, block.block(), payload, NOW, |random: &mut [u8]| random.fill(9), &mut out);
            }
        }
        out
    }
}

/// An answer in all layers. Each hop says that it is from `source(number of the next)`.
fn answer(fars: &mut [Far], source: impl Fn(usize) -> Address, payload: &[u8]) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    for (index, far) in fars.iter_mut().enumerate().rev() {
        bytes = far.seal(&source(index + 1), &bytes);
    }
    bytes
}

fn ports(index: usize) -> Address {
    stop(u16::try_from(index).unwrap())
}

const SPEECHES: [Option<Method>; 5] = [
    None,
    Some(Method::Aes256Gcm),
    Some(Method::Blake3Aes128Gcm),
    Some(Method::Blake3Chacha20Poly1305),
    Some(Method::Chacha20IetfPoly1305),
];

proptest! {
    #[test]
    fn what_goes_through_any_hops_arrives_and_so_does_the_answer(
        hops in prop::collection::vec(prop::sample::select(&SPEECHES[..]), 2..5),
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..4),
        name in "[a-z]{1,20}",
    ) {
        let (mut chain, mut fars) = chain(&hops);
        let target = Address::from_host(&name, 53).unwrap();
        let mut scratch = Scratch::default();
        for payload in payloads {
            let mut bytes = sealed(&mut chain, &mut scratch, &target, &payload);
            for (index, far) in fars.iter_mut().enumerate() {
                let (next, inside) = far.open(&mut bytes);
                prop_assert_eq!(next, if index + 1 < hops.len() { ports(index + 1) } else { target.clone() });
                bytes = inside;
            }
            prop_assert_eq!(&bytes, &payload);
            let mut back = answer(&mut fars, ports, &payload);
            let (source, opened) = chain.open(&mut back, NOW).unwrap();
            prop_assert_eq!(source.to_address(), ports(hops.len()));
            prop_assert_eq!(opened, &payload);
        }
    }

    #[test]
    fn no_answer_makes_it_panic(
        hops in prop::collection::vec(prop::sample::select(&SPEECHES[..]), 2..4),
        mut bytes: Vec<u8>,
    ) {
        let _: Result<_, Why> = chain(&hops).0.open(&mut bytes, NOW);
    }
}

#[test]
fn an_answer_from_anybody_but_the_next_hop_is_dropped_and_the_next_one_passes() {
    for hops in
        [[SPEECHES[0]; 3], [SPEECHES[1]; 3], [SPEECHES[2]; 3], [SPEECHES[2], SPEECHES[0], SPEECHES[3]]]
    {
        let (mut chain, mut fars) = chain(&hops);
        let mut bytes = sealed(&mut chain, &mut Scratch::default(), &stop(9), b"hello");
        for far in &mut fars {
            bytes = far.open(&mut bytes).1;
        }
        for liar in [1, 2] {
            let lies = |index| if index == liar { stop(99) } else { ports(index) };
            let mut lie = answer(&mut fars, lies, b"a lie");
            assert_eq!(chain.open(&mut lie, NOW), Err(Why::Stranger));
        }
        let mut touched = answer(&mut fars, ports, b"touched");
        if let Some(last) = touched.last_mut().filter(|_| hops[0].is_some()) {
            *last ^= 1;
            assert_eq!(chain.open(&mut touched, NOW), Err(Why::Malformed));
        }
        let mut truth = answer(&mut fars, ports, b"the truth");
        let (source, payload) = chain.open(&mut truth, NOW).unwrap();
        assert_eq!((source.to_address(), payload), (ports(3), &b"the truth"[..]));
        for end in 0..truth.len().min(40) {
            let mut cut = answer(&mut fars, ports, b"cut");
            assert!(chain.open(&mut cut[..end.min(12)], NOW).is_err(), "at {end}");
        }
    }
}

#[test]
fn a_hop_that_another_one_looks_up_is_known_by_its_port() {
    let named = Stop::at(&"second.example:8388".parse().unwrap());
    let ip = |text: &str| IpBlock::from(text.parse::<SocketAddr>().unwrap());
    assert!(named.is(ip("192.0.2.1:8388").block()));
    assert!(!named.is(ip("192.0.2.1:8389").block()));
    let known = Stop::at(&"192.0.2.1:8388".parse().unwrap());
    assert!(known.is(ip("192.0.2.1:8388").block()));
    assert!(known.is(ip("[::ffff:192.0.2.1]:8388").block()), "it is the same address");
    assert!(!known.is(ip("192.0.2.2:8388").block()));
    assert!(!known.is(ip("192.0.2.1:8389").block()));
    assert!(!known.is(block(&"second.example:8388".parse().unwrap()).block()));
}

#[test]
fn nothing_is_sealed_with_chance_that_was_drawn_for_another_datagram() {
    let (mut chain, _) = chain(&[SPEECHES[1], SPEECHES[1]]);
    let mut scratch = Scratch::default();
    let first = sealed(&mut chain, &mut scratch, &stop(9), b"payload");
    assert!(first.len() > 7);
    let mut out = Vec::new();
    chain.seal(block(&stop(9)).block(), b"payload", NOW, &mut scratch, &mut out);
    assert!(out.is_empty());
}

#[test]
fn memory_for_inner_layers_is_used_again() {
    let (mut chain, _) = chain(&[SPEECHES[1], SPEECHES[0], SPEECHES[2], SPEECHES[1]]);
    let mut scratch = Scratch::default();
    sealed(&mut chain, &mut scratch, &stop(9), &[7; 1000]);
    let kept: Vec<_> = scratch.free.iter().map(|free| (free.as_ptr(), free.capacity())).collect();
    assert_eq!(kept.len(), 2, "two layers are sealed from elsewhere");
    sealed(&mut chain, &mut scratch, &stop(9), &[7; 900]);
    assert_eq!(scratch.free.iter().map(|free| (free.as_ptr(), free.capacity())).collect::<Vec<_>>(), kept);
}
