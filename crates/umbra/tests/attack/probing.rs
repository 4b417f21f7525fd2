//! Strangers at the server's door learn nothing, cost little, and disturb nobody.
//!
//! That all of them end at the handshake's deadline is held by the simulation, whose clock costs no time.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use crate::stage::{
    Chance, End, METHODS, Pair, Umbra, accept, allow_many_descriptors, connect, eventually, listener, open,
    pattern, read_to_end, reset, target,
};

#[test]
fn thousands_of_strangers_hear_nothing_while_a_session_goes_on() {
    const BULK: usize = 32 << 20;
    let pair = Pair::start(METHODS[1]);
    pair.assert_serves();
    let source = target(|mut stream| drop(stream.write_all(&pattern(BULK))));
    let (descriptors, resident) = (pair.descriptors(), pair.resident_kib());
    let mut good = pair.open(source);
    let reading = thread::spawn(move || read_to_end(&mut good));
    let mut chance = Chance(4);
    let mut strangers = Vec::new();
    for number in 0..3000 {
        let mut stranger = connect(pair.server.address);
        if number % 10 != 0 {
            let len = chance.below(if number % 10 == 1 { 70_000 } else { 200 });
            // Beyond what is thrown away the window closes; what fits into the kernel is enough here.
            stranger.set_nonblocking(true).unwrap();
            let _taken = stranger.write(&chance.bytes(len));
        }
        strangers.push(stranger);
    }
    // The server has taken all of them in.
    eventually(|| match pair.server.descriptors() {
        some if some >= descriptors[1] + 3000 => Ok(()),
        some => Err(format!("{some} descriptors")),
    });
    let held = pair.server.resident_kib().saturating_sub(resident[1]);
    assert!(held < 24 << 10, "{held} KiB for 3000 strangers");
    let (got, end) = reading.join().unwrap();
    assert!(got == pattern(BULK) && end == End::Orderly);
    pair.assert_serves();
    for stranger in &mut strangers {
        stranger.set_nonblocking(true).unwrap();
        let heard = stranger.read(&mut [0]).unwrap_err();
        assert_eq!(heard.kind(), ErrorKind::WouldBlock, "{heard}");
    }
    // One that ends gets an end, whatever it has said; nothing is left of one that resets.
    for (number, stranger) in strangers.into_iter().enumerate() {
        if number % 2 == 0 { reset(stranger) } else { drop(stranger) }
    }
    pair.assert_descriptors_return_to(descriptors);
    pair.assert_memory_returns_to(resident, 6 << 10);
}

#[test]
fn a_stranger_that_ends_gets_an_end_whatever_it_said() {
    for method in METHODS {
        let server = Umbra::server(method, &[]);
        let mut chance = Chance(9);
        for len in [0, 1, 15, 16, 31, 32, 33, 49, 50, 51, 58, 59, 60, 75, 100, 500, 5000, 60_000] {
            let mut stranger = connect(server.address);
            stranger.write_all(&chance.bytes(len)).unwrap();
            stranger.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&mut stranger), (vec![], End::Orderly), "{method}, {len} bytes");
        }
    }
}

/// What our client says to open a session to `target`, as somebody on the line sees it, and the answer's first bytes.
fn overheard(method: &str, server: SocketAddr, target: &std::net::TcpListener) -> [Vec<u8>; 2] {
    let middle = listener();
    let local = Umbra::local(method, middle.local_addr().unwrap(), &[]);
    let mut near = open(local.address, target.local_addr().unwrap());
    near.write_all(b"pay 100 to bob").unwrap();
    let (mut from, mut to) = (accept(&middle), connect(server));
    let request = hand_on(&mut from, &mut to);
    let mut far = accept(target);
    far.read_exact(&mut [0; 14]).unwrap();
    far.write_all(b"paid, and bob says thank you for it").unwrap();
    let answer = hand_on(&mut to, &mut from);
    near.read_exact(&mut [0; 35]).unwrap();
    [request, answer]
}

fn hand_on(from: &mut TcpStream, to: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let count = from.read(&mut bytes).unwrap();
    bytes.truncate(count);
    to.write_all(&bytes).unwrap();
    bytes
}

#[test]
fn what_was_overheard_is_worth_nothing() {
    for method in METHODS {
        allow_many_descriptors();
        let server = Umbra::server(method, &[]);
        let target = listener();
        let [request, answer] = overheard(method, server.address, &target);
        let before = server.descriptors();
        let mut flipped = request.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let fakes = [request.clone(), answer, flipped, request[..request.len() - 1].to_vec()];
        let mut strangers: Vec<_> = fakes
            .iter()
            .map(|fake| {
                let mut stranger = connect(server.address);
                stranger.write_all(fake).unwrap();
                stranger
            })
            .collect();
        // A session between other people is done meanwhile, so the server has seen them all.
        let local = Umbra::local(method, server.address, &[]);
        assert!(crate::stage::echoes(local.address, crate::stage::echo()));
        for stranger in &mut strangers {
            stranger.set_nonblocking(true).unwrap();
            assert_eq!(stranger.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "{method}");
        }
        target.set_nonblocking(true).unwrap();
        assert!(target.accept().is_err(), "{method}: nobody comes to the target a second time");
        drop(strangers);
        eventually(|| if server.descriptors() <= before { Ok(()) } else { Err("something stays".into()) });
    }
}
