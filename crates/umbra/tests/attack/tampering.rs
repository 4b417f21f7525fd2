//! Somebody on the line between our two ends: no changed byte is ever delivered, and what is cut short does not look whole.
//!
//! One thing cannot be seen: neither generation marks the end of a stream, so an end between two records reads as the end that
//! the peer meant.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use crate::stage::{End, METHODS, Umbra, accept, connect, listener, open, read_to_end, reset};

/// What is done to five records of [`PAYLOAD`] bytes each.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// One bit of the third record, at this byte.
    Flip(usize),
    /// The second and the third change places.
    Swap,
    /// The second goes missing.
    Drop,
    /// The second comes twice.
    Duplicate,
    /// The end comes within the third, after this many bytes.
    CutWithin(usize),
    /// The end comes after the second.
    CutBetween,
}

const ATTACKS: [Attack; 13] = [
    Attack::Flip(0),
    Attack::Flip(1),
    Attack::Flip(2),
    Attack::Flip(17),
    Attack::Flip(18),
    Attack::Flip(117),
    Attack::Flip(118),
    Attack::Flip(133),
    Attack::Swap,
    Attack::Drop,
    Attack::Duplicate,
    Attack::CutWithin(1),
    Attack::CutWithin(133),
];

const PAYLOAD: usize = 100;
const RECORD: usize = 2 + 16 + PAYLOAD + 16;

/// Both ends with the test between them, and a session up to its first record each way.
struct Line {
    near: TcpStream,
    to_local: TcpStream,
    to_server: TcpStream,
    far: TcpStream,
    _ends: [Umbra; 2],
}

impl Line {
    fn open(method: &str) -> Self {
        let (server, middle, target) = (Umbra::server(method, &[]), listener(), listener());
        let local = Umbra::local(method, middle.local_addr().unwrap(), &[]);
        Self::through(local, server, &middle, &target)
    }

    fn through(local: Umbra, server: Umbra, middle: &TcpListener, target: &TcpListener) -> Self {
        let mut near = open(local.address, target.local_addr().unwrap());
        let mut to_local = accept(middle);
        let mut to_server = connect(server.address);
        near.write_all(&[0; PAYLOAD]).unwrap();
        pass(&mut to_local, &mut to_server);
        let mut far = accept(target);
        far.read_exact(&mut [0; PAYLOAD]).unwrap();
        far.write_all(&[0; PAYLOAD]).unwrap();
        pass(&mut to_server, &mut to_local);
        near.read_exact(&mut [0; PAYLOAD]).unwrap();
        Self { near, to_local, to_server, far, _ends: [local, server] }
    }
}

/// Hands on what comes in one read: a head must not be cut.
fn pass(from: &mut TcpStream, to: &mut TcpStream) {
    let mut bytes = [0; 4096];
    let count = from.read(&mut bytes).unwrap();
    to.write_all(&bytes[..count]).unwrap();
}

/// Payload number `number`.
fn payload(number: u8) -> [u8; PAYLOAD] {
    [number; PAYLOAD]
}

/// The records of five payloads, each known to be one record because the next is sent after it has come.
fn records(source: &mut TcpStream, line: &mut TcpStream) -> Vec<Vec<u8>> {
    (1..=5)
        .map(|number| {
            source.write_all(&payload(number)).unwrap();
            let mut record = vec![0; RECORD];
            line.read_exact(&mut record).unwrap();
            record
        })
        .collect()
}

fn apply(attack: Attack, mut records: Vec<Vec<u8>>) -> Vec<u8> {
    match attack {
        Attack::Flip(at) => records[2][at] ^= 1,
        Attack::Swap => records.swap(1, 2),
        Attack::Drop => drop(records.remove(1)),
        Attack::Duplicate => records.insert(1, records[1].clone()),
        Attack::CutWithin(len) => {
            records.truncate(3);
            records[2].truncate(len);
        }
        Attack::CutBetween => records.truncate(2),
    }
    records.concat()
}

fn cuts(attack: Attack) -> bool {
    match attack {
        Attack::CutWithin(_) | Attack::CutBetween => true,
        Attack::Flip(_) | Attack::Swap | Attack::Drop | Attack::Duplicate => false,
    }
}

/// Applies `attack` to what `source` sends. Gives what arrived at `sink` and how it ended there, and how it ended for `source`.
fn attack(line: Line, attack: Attack, up: bool) -> (Vec<u8>, End, Option<End>) {
    let Line { mut near, mut to_local, mut to_server, mut far, _ends } = line;
    let (source, sink) = if up { (&mut near, &mut far) } else { (&mut far, &mut near) };
    let (from, to) = if up { (&mut to_local, &mut to_server) } else { (&mut to_server, &mut to_local) };
    let bytes = apply(attack, records(source, from));
    to.write_all(&bytes).unwrap();
    if cuts(attack) {
        to.shutdown(Shutdown::Write).unwrap();
    }
    let (got, end) = read_to_end(sink);
    if end == End::Orderly {
        return (got, end, None);
    }
    // The end that noticed has torn the line down; whoever is on it hands that on.
    assert_eq!(read_to_end(to).1, End::Reset);
    reset(if up { to_local } else { to_server });
    (got, end, Some(read_to_end(source).1))
}

#[test]
fn a_changed_line_delivers_nothing_changed_and_ends_in_resets() {
    let whole: Vec<u8> = (1..=5).flat_map(payload).collect();
    for method in METHODS {
        for up in [true, false] {
            for what in ATTACKS {
                let (got, end, other) = attack(Line::open(method), what, up);
                let case = format!("{method}, {what:?}, up: {up}");
                // A reset may overtake what was delivered before it.
                assert!(whole[..2 * PAYLOAD].starts_with(&got), "{case}: {} bytes arrived", got.len());
                assert_eq!((end, other), (End::Reset, Some(End::Reset)), "{case}");
            }
        }
    }
}

#[test]
fn an_end_between_records_is_taken_for_the_peers_own() {
    for method in METHODS {
        for up in [true, false] {
            let (got, end, _) = attack(Line::open(method), Attack::CutBetween, up);
            let whole: Vec<u8> = (1..=2).flat_map(payload).collect();
            assert_eq!((got, end), (whole, End::Orderly), "{method}, up: {up}");
        }
    }
}

/// A server that answers nothing at all has not answered with nothing.
#[test]
fn a_changed_answer_head_is_not_an_empty_answer() {
    for method in METHODS {
        for at in [0, 31, 32, 50, 65, 66, 100] {
            let (server, middle, target) = (Umbra::server(method, &[]), listener(), listener());
            let local = Umbra::local(method, middle.local_addr().unwrap(), &[]);
            let mut near = open(local.address, target.local_addr().unwrap());
            let mut to_local = accept(&middle);
            let mut to_server = connect(server.address);
            near.write_all(b"question").unwrap();
            pass(&mut to_local, &mut to_server);
            accept(&target).write_all(&[7; PAYLOAD]).unwrap();
            let mut answer = [0; 4096];
            let count = to_server.read(&mut answer).unwrap();
            answer[at] ^= 0x80;
            to_local.write_all(&answer[..count]).unwrap();
            assert_eq!(read_to_end(&mut near), (vec![], End::Reset), "{method}, byte {at}");
        }
    }
}
