//! Bad manners at the SOCKS5 door.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::stage::{
    Chance, End, METHODS, Pair, Umbra, accept, connect, echo, eventually, greeting, listener, pattern,
    read_to_end, reset, silent_listener,
};

/// Sends `bytes` and ends; gives all that comes back.
fn told(door: SocketAddr, bytes: &[u8]) -> (Vec<u8>, End) {
    let mut client = connect(door);
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_to_end(&mut client)
}

/// A request with this command and address block, behind a greeting.
fn asking(command: u8, address: &[u8]) -> Vec<u8> {
    [&[5, 1, 0, 5, command, 0], address].concat()
}

fn refusal(reply: u8) -> Vec<u8> {
    vec![5, 0, 5, reply, 0, 1, 0, 0, 0, 0, 0, 0]
}

#[test]
fn what_is_not_offered_is_refused_in_words() {
    let local = Umbra::local(METHODS[0], "127.0.0.1:1".parse().unwrap(), &["--mode", "tcp_only"]);
    let nowhere = [1, 127, 0, 0, 1, 0, 80];
    let before = local.descriptors();
    for (case, said, answer) in [
        ("BIND", asking(2, &nowhere), refusal(7)),
        ("UDP ASSOCIATE", asking(3, &nowhere), refusal(7)),
        ("an unknown command", asking(0x5a, &nowhere), refusal(7)),
        ("a bad address type", asking(1, &[2, 1, 2, 3, 4, 0, 80]), refusal(8)),
        ("address type 0", asking(1, &[0; 7]), refusal(8)),
        ("an empty name", asking(1, &[3, 0, 0, 80]), refusal(8)),
        ("SOCKS4", b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00".to_vec(), vec![0, 91, 0, 0, 0, 0, 0, 0]),
        ("no method of ours", vec![5, 2, 1, 2], vec![5, 0xff]),
        ("no method at all", vec![5, 0], vec![5, 0xff]),
        ("254 methods, none ours", [&[5, 254][..], &[2; 254]].concat(), vec![5, 0xff]),
        ("a server that is not there", asking(1, &nowhere), refusal(5)),
        ("255 methods", [&[5, 255][..], &[0; 255], &asking(1, &nowhere)[3..]].concat(), refusal(5)),
        ("half a greeting", vec![5], vec![]),
        ("half a request", asking(1, &nowhere[..5]), vec![5, 0]),
    ] {
        assert_eq!(told(local.address, &said), (answer, End::Orderly), "{case}");
    }
    let (answer, _) = told(local.address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "a request that is for no proxy");
    // Unread bytes turn the close into a reset; what counts is that nothing is said.
    assert_eq!(told(local.address, &[0xff; 100]).0, vec![], "garbage");
    // Whoever goes on talking after that is not listened to for long.
    let mut talkers: Vec<_> = [&asking(2, &nowhere)[..], &[5, 1, 9], &[4]]
        .into_iter()
        .map(|said| {
            let mut client = connect(local.address);
            client.write_all(said).unwrap();
            client
        })
        .collect();
    eventually(|| {
        talkers.retain_mut(|client| client.write(&[5; 4096]).is_ok());
        if talkers.is_empty() { Ok(()) } else { Err("it still listens".into()) }
    });
    eventually(|| if local.descriptors() <= before { Ok(()) } else { Err("something stays".into()) });
}

#[test]
fn a_drip_feed_and_a_flood_are_both_served() {
    let pair = Pair::start(METHODS[0]);
    let target = echo();
    let bytes = [greeting(target), b"drop by drop".to_vec()].concat();
    let mut client = connect(pair.local.address);
    for byte in bytes {
        client.write_all(&[byte]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(&mut client).0.ends_with(b"drop by drop"));

    let payload = pattern(3_000_000);
    let bytes = [greeting(target), payload.clone()].concat();
    let mut client = connect(pair.local.address);
    let mut writer = client.try_clone().unwrap();
    let writing = thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let (got, end) = read_to_end(&mut client);
    writing.join().unwrap();
    assert_eq!(end, End::Orderly);
    assert!(got[12..] == payload);
}

#[test]
fn random_bytes_at_the_door_kill_nothing_and_leave_nothing() {
    let mut pair = Pair::start(METHODS[1]);
    pair.assert_serves();
    let before = pair.descriptors();
    let mut chance = Chance(7);
    let valid = [greeting(listener().local_addr().unwrap()), vec![9; 40]].concat();
    for number in 0..1500 {
        let mut bytes = valid.clone();
        for _ in 0..=chance.below(3) {
            let at = chance.below(bytes.len());
            bytes[at] = chance.bytes(1)[0];
        }
        // Names and far addresses would leave this machine.
        bytes[3] = 5;
        if bytes[6] == 3 || bytes[6] == 4 {
            bytes[6] = 2;
        }
        bytes[7] = 127;
        bytes.truncate(chance.below(bytes.len() + 1));
        let mut client = connect(pair.local.address);
        let _refused_early = client.write_all(&bytes);
        if number % 3 == 0 { reset(client) } else { drop(client) }
    }
    assert!(pair.local.is_alive() && pair.server.is_alive());
    pair.assert_serves();
    pair.assert_descriptors_return_to(before);
    for log in [pair.local.log(), pair.server.log()] {
        assert!(!log.contains("panic"), "{log}");
    }
}

/// A name that has no address, one that is too long for any, and ones that try to write the log.
#[test]
fn names_that_lead_nowhere_end_as_resets_and_forge_no_log_line() {
    let pair = Pair::with(METHODS[0], &["-vv"], &["-vv"]);
    for name in [
        &[b'x'; 255][..],
        b"nowhere.invalid",
        b"a\n2026-01-01 00:00:00 ERROR    forged from 192.0.2.9:1",
        b"\x1b[2J\r\n\xe2\x80\xae",
        b"\xff\xfe",
        b"nul\0nul",
    ] {
        let len = u8::try_from(name.len()).unwrap();
        let mut client = connect(pair.local.address);
        client.write_all(&asking(1, &[&[3, len], name, &[0, 80]].concat())).unwrap();
        client.write_all(b"x").unwrap();
        let (got, end) = read_to_end(&mut client);
        // The way to the server stands; what lies behind it has no words to say so.
        let answers: [&[u8]; 3] = [&refusal(0), &refusal(8), &[]];
        assert!(answers.contains(&&got[..]), "{got:?}, {end:?} for {name:?}");
        assert!(end == End::Reset || got == refusal(8), "{got:?}, {end:?} for {name:?}");
    }
    pair.assert_serves();
    for log in [pair.local.log(), pair.server.log()] {
        let begins_well =
            |line: &str| line.starts_with("20") && !line.contains('\x1b') && !line.contains('\r');
        assert!(log.lines().all(begins_well), "{log}");
        assert!(!log.lines().any(|line| line[20..].starts_with("ERROR")), "{log}");
    }
}

/// The same dials from a client whose server is what cannot be reached: it is told the truth.
#[test]
fn a_server_that_cannot_be_reached_is_told_as_such() {
    let said = asking(1, &[1, 127, 0, 0, 1, 0, 80]);
    let no_name = Umbra::start(&[
        "local",
        "-s",
        "nowhere.invalid",
        "-p",
        "1",
        "-l",
        "0",
        "-m",
        METHODS[0],
        "-k",
        crate::stage::SECRET,
    ]);
    assert_eq!(told(no_name.address, &said), (refusal(4), End::Orderly));

    let (full, _waiting) = silent_listener();
    let silent = Umbra::local(METHODS[0], full.local_addr().unwrap(), &[]);
    let started = Instant::now();
    assert_eq!(told(silent.address, &said), (refusal(4), End::Orderly));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn targets_that_are_nothing_or_the_proxy_itself_are_bounded() {
    let pair = Pair::start(METHODS[0]);
    pair.assert_serves();
    let before = pair.descriptors();
    let mut port_zero = connect(pair.local.address);
    port_zero.write_all(&asking(1, &[1, 127, 0, 0, 1, 0, 0])).unwrap();
    port_zero.write_all(b"x").unwrap();
    let (_, end) = read_to_end(&mut port_zero);
    assert_eq!(end, End::Reset);

    // Through itself ten times: each turn is asked for by the client, and all go with it.
    let target = listener();
    let mut client = connect(pair.local.address);
    for _ in 0..10 {
        client.write_all(&greeting(pair.local.address)).unwrap();
    }
    client.write_all(&greeting(target.local_addr().unwrap())).unwrap();
    client.write_all(b"out at last").unwrap();
    let mut far = accept(&target);
    let mut got = [0; 11];
    std::io::Read::read_exact(&mut far, &mut got).unwrap();
    assert_eq!(&got, b"out at last");
    reset(client);
    assert_eq!(read_to_end(&mut far).1, End::Reset);

    // To the server's own door: its own stream is a stranger to it.
    let mut client = pair.open(pair.server.address);
    client.write_all(&[1; 100]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), (vec![], End::Orderly));
    pair.assert_serves();
    pair.assert_descriptors_return_to(before);
}
