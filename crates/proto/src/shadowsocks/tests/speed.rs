//! How fast each method is by itself. Not a test of anything:
//! `CARGO_PROFILE_RELEASE_LTO=off cargo test --release -p umbra-proto speed -- --ignored --nocapture`

use std::fs;
use std::hint::black_box;
use std::time::Duration;

use super::Method;
use super::bench::sealed;
use super::cipher::Cipher;
use super::cipher::subkeys::{self, LANES};
use super::stream::{HeadReads, Opened, Opener, Sealer};
use super::vectors::{NOW, key, salt};
use crate::wire::Input;

const PIECE_BYTES: usize = 16 * 1024 - 1;
const MEASURED: Duration = Duration::from_millis(150);

#[test]
#[ignore = "a measurement, to be run optimised and alone"]
fn speed_of_every_method() {
    println!("{:30} {:>12} {:>12}   MB/s", "method", "seal", "open");
    for method in Method::ALL {
        let payload = vec![0x5a; PIECE_BYTES];
        let mut sealer = Sealer::response(&key(method), salt(method, 2), salt(method, 1));
        let mut opener = Opener::response(&key(method), salt(method, 1), HeadReads::One);
        let (mut sealing, mut opening, mut bytes) = (Duration::ZERO, Duration::ZERO, 0.0);
        let mut first = sealed(&mut sealer, &payload);
        open(&mut opener, &mut first);
        let mut records = vec![vec![0; sealer.head_len() + PIECE_BYTES + sealer.tail_len()]; 16];
        while sealing + opening < 2 * MEASURED {
            let began = on_cpu();
            for record in &mut records {
                sealer.seal(record, NOW);
            }
            sealing += on_cpu() - began;
            let began = on_cpu();
            for record in &mut records {
                open(&mut opener, record);
            }
            opening += on_cpu() - began;
            bytes += 16.0 * 16_383.0 * 1e-6;
        }
        let (seal, open) = (bytes / sealing.as_secs_f64(), bytes / opening.as_secs_f64());
        println!("{:30} {seal:12.0} {open:12.0}", method.name());
    }
}

/// The keys of SIP004's packets, in step and one by one.
#[test]
#[ignore = "a measurement, to be run optimised and alone"]
fn speed_of_packet_keys() {
    let method = Method::Aes256Gcm;
    let (key, mut salts) = (key(method), [salt(method, 1); LANES]);
    let each = |turns: u32, keys: u128, work: &mut dyn FnMut(u8)| {
        let began = on_cpu();
        (0..turns).for_each(|turn| work(turn.to_le_bytes()[0]));
        (on_cpu() - began).as_nanos() / u128::from(turns) / keys
    };
    for _ in 0..5 {
        let together = each(10_000, LANES as u128, &mut |turn| {
            salts[0] = salt(method, turn);
            black_box(subkeys::derive(&key, &salts));
        });
        let whole = each(100_000, 1, &mut |turn| drop(black_box(Cipher::new(&key, &salt(method, turn)))));
        let rest = each(100_000, 1, &mut |turn| drop(black_box(Cipher::with_subkey(method, &[turn; 32]))));
        println!("in step {together} ns, alone {} ns, expansion {rest} ns", whole.saturating_sub(rest));
    }
}

/// The cost of a record that is almost nothing but itself.
#[test]
#[ignore = "a measurement, to be run optimised and alone"]
fn speed_of_small_records() {
    for method in [Method::Aes256Gcm, Method::Blake3Aes256Gcm, Method::Chacha20IetfPoly1305] {
        let mut sealer = Sealer::response(&key(method), salt(method, 2), salt(method, 1));
        let mut opener = Opener::response(&key(method), salt(method, 1), HeadReads::One);
        open(&mut opener, &mut sealed(&mut sealer, b"x"));
        let mut record = vec![0; 18 + 1 + 16];
        let began = on_cpu();
        for _ in 0..1_000_000 {
            sealer.seal(&mut record, NOW);
            open(&mut opener, &mut record);
        }
        println!(
            "{:30} {:6.1} ns for sealing and opening one byte",
            method.name(),
            (on_cpu() - began).as_secs_f64() * 1e3
        );
    }
}

fn open(opener: &mut Opener, bytes: &mut [u8]) {
    let mut input = Input::new(bytes);
    loop {
        match opener.open(&mut input, NOW) {
            Ok(Opened::Payload(_)) => {}
            Ok(Opened::Incomplete(_)) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What this thread has had of a processor, however many others want one.
fn on_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
