//! What one packet costs, and how large an association is. Not a test of anything:
//! `CARGO_PROFILE_RELEASE_LTO=off cargo test --release -p umbra-proto packet_speed -- --ignored --nocapture`

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Method;
use super::keyring::Keyring;
use super::one_time_auth::OneTimeAuth;
use super::packet::{AHEAD_MAX, Chance, ClientSession, PacketDoor, PacketHop, ServerSession, SessionId};
use super::vectors::{NOW, key};
use crate::address::IpBlock;

const PACKETS: usize = 256;
const ROUNDS: u32 = 2_000;

#[test]
#[ignore = "a measurement, to be run optimised and alone"]
fn packet_speed() {
    println!("client {} bytes, server {}", size_of::<ClientSession>(), size_of::<ServerSession>());
    println!(
        "{:30} {:>6} {:>10} {:>10} {:>10} {:>10}   ns",
        "method", "bytes", "c seal", "s open", "s seal", "c open"
    );
    for method in [
        Method::Aes256Gcm,
        Method::Blake3Aes256Gcm,
        Method::Chacha20IetfPoly1305,
        Method::Blake3Chacha20Poly1305,
    ] {
        for len in [64, 1200] {
            let [c_seal, s_open, s_seal, c_open] =
                measure(method, len).map(|time| time.as_secs_f64() * 1e9 / 256.0);
            println!("{:30} {len:6} {c_seal:10.0} {s_open:10.0} {s_seal:10.0} {c_open:10.0}", method.name());
        }
    }
}

/// As much chance as anybody wants, at no cost.
struct Numbers(u64);

impl Chance for &mut Numbers {
    fn fill(&mut self, room: &mut [u8]) {
        self.0 += 1;
        room.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]));
    }

    fn more(&mut self, room: &mut [u8]) -> bool {
        self.fill(room);
        true
    }
}

/// The best round's times, so that what else the machine does matters little.
fn measure(method: Method, len: usize) -> [Duration; 4] {
    let door = PacketDoor::new(Arc::new(Keyring::from(key(method))), OneTimeAuth::Honoured);
    let hop = Arc::new(PacketHop::new(&key(method).into(), false));
    let mut client = ClientSession::new(Arc::clone(&hop), SessionId([1; 8]));
    let block = IpBlock::from("192.0.2.1:443".parse::<std::net::SocketAddr>().unwrap());
    let payload = vec![0x5a; len];
    let (mut numbers, mut server) = (Numbers(0), None);
    let mut times = [Duration::MAX; 4];
    let mut out = Vec::new();
    for _ in 0..ROUNDS {
        out.clear();
        let began = now();
        for _ in 0..PACKETS {
            client.seal(block.block(), &payload, NOW, &mut numbers, &mut out);
        }
        times[0] = times[0].min(began.elapsed());
        let wire_len = out.len() / PACKETS;
        let began = now();
        for batch in out.chunks_mut(wire_len * AHEAD_MAX) {
            let _ahead = door.ahead(batch.chunks(wire_len));
            for packet in batch.chunks_mut(wire_len) {
                let look = door.look(packet).unwrap();
                if let Some(server) = &mut server {
                    let server: &mut ServerSession = server;
                    assert_eq!(server.open(&door, look, packet, NOW).unwrap().payload.len(), len);
                    continue;
                }
                server = Some(ServerSession::begin(&door, look, packet, NOW, SessionId([2; 8])).unwrap().0);
            }
        }
        times[1] = times[1].min(began.elapsed());
        out.clear();
        let server = server.as_mut().unwrap();
        let began = now();
        for _ in 0..PACKETS {
            server.seal(&door, block.block(), &payload, NOW, &mut numbers, &mut out);
        }
        times[2] = times[2].min(began.elapsed());
        let wire_len = out.len() / PACKETS;
        let began = now();
        for batch in out.chunks_mut(wire_len * AHEAD_MAX) {
            let _ahead = hop.ahead(batch.chunks(wire_len));
            for packet in batch.chunks_mut(wire_len) {
                assert_eq!(client.open(packet, NOW).unwrap().payload.len(), len);
            }
        }
        times[3] = times[3].min(began.elapsed());
    }
    times
}

#[expect(clippy::disallowed_methods, reason = "a measurement, not a protocol")]
fn now() -> Instant {
    Instant::now()
}
