//! Running out of descriptors slows accepting, does not spin, fails no session that was begun, and passes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::stage::{METHODS, Pair, Umbra, connect, echo, echoes, eventually, greeting};

/// How long the processes are watched while they are out of descriptors.
const WATCHED: Duration = Duration::from_millis(1500);

/// A crowd comes at once to a pair of which one is short of descriptors.
fn crowd(local: &[&str], server: &[&str], starved: fn(&mut Pair) -> &mut Umbra) {
    let mut pair = Pair::with(METHODS[0], local, server);
    let target = echo();
    pair.assert_serves();
    let before = pair.descriptors();
    let mut bytes = greeting(target);
    bytes.push(b'x');
    let mut clients: Vec<_> = (0..200)
        .map(|_| {
            let mut client = connect(pair.local.address);
            client.write_all(&bytes).unwrap();
            client
        })
        .collect();
    starved(&mut pair).wait_for("cannot accept for now");
    let busy = starved(&mut pair).cpu();
    let since = Instant::now();
    // Others come and go meanwhile.
    while since.elapsed() < WATCHED {
        connect(pair.local.address).write_all(&bytes).unwrap();
        thread::sleep(Duration::from_millis(10));
    }
    let spent = starved(&mut pair).cpu() - busy;
    assert!(spent < WATCHED / 5, "spent {spent:?} of {WATCHED:?}");

    // As some leave, others are served, and nobody is turned away.
    let mut served = 0;
    eventually(|| {
        for client in clients.extract_if(.., |client| is_answered(client)) {
            served += 1;
            drop(client);
        }
        if clients.is_empty() { Ok(()) } else { Err(format!("{served} served, {} wait", clients.len())) }
    });
    assert!(starved(&mut pair).is_alive());
    assert!(echoes(pair.local.address, target), "no recovery");
    pair.assert_descriptors_return_to(before);
    let log = starved(&mut pair).log();
    let complaints = log.lines().filter(|line| line.contains("cannot accept")).count();
    assert_eq!(complaints, 1, "{log}");
    assert!(!log.contains("Too many open files"), "{log}");
}

/// Whether a byte came back; a session that failed is the test's failure.
fn is_answered(mut client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let mut answer = [0; 13];
    match client.peek(&mut answer) {
        Ok(count) if count == answer.len() => {
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer[..4], [5, 0, 5, 0]);
            true
        }
        Ok(count) => {
            assert!(count == 2 || count == 12, "an end after {:?}", &answer[..count]);
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
            false
        }
    }
}

#[test]
fn a_server_short_of_descriptors_serves_a_crowd_bit_by_bit() {
    crowd(&[], &["--nofile", "64"], |pair| &mut pair.server);
}

#[test]
fn a_client_short_of_descriptors_serves_a_crowd_bit_by_bit() {
    crowd(&["--nofile", "64"], &[], |pair| &mut pair.local);
}
