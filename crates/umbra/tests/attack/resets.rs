//! Resets at every stage: the other ends see an error, nobody else notices, and nothing stays behind.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use crate::stage::{
    End, METHODS, Pair, accept, eventually, greeting, listener, pattern, read_to_end, reset, silent_listener,
    target,
};

#[test]
fn a_reset_at_any_byte_of_the_handshake_leaves_nothing_behind() {
    let pair = Pair::start(METHODS[1]);
    let sink = target(|mut stream| drop(read_to_end(&mut stream)));
    let mut said = greeting(sink);
    said.extend(b"first payload");
    let round = |sessions: usize| {
        for at in 0..sessions {
            let mut client = crate::stage::connect(pair.local.address);
            client.write_all(&said[..at % (said.len() + 1)]).unwrap();
            reset(client);
        }
    };
    round(200);
    pair.assert_serves();
    let (descriptors, resident) = (pair.descriptors(), pair.resident_kib());
    round(2000);
    pair.assert_serves();
    pair.assert_descriptors_return_to(descriptors);
    pair.assert_memory_returns_to(resident, 4096);
}

/// A session whose target is the test itself.
fn session(pair: &Pair) -> (TcpStream, TcpStream) {
    let target = listener();
    let mut near = pair.open(target.local_addr().unwrap());
    near.write_all(b"x").unwrap();
    let mut far = accept(&target);
    far.read_exact(&mut [0]).unwrap();
    (near, far)
}

/// Writes until nothing more is taken, so that every buffer on the way is full.
fn fill(mut stream: &TcpStream) -> usize {
    let chunk = pattern(1 << 16);
    let mut len = 0;
    stream.set_nonblocking(true).unwrap();
    let mut full = 0;
    eventually(|| {
        match stream.write(&chunk) {
            Ok(count) => {
                len += count;
                full = 0;
            }
            Err(_) => full += 1,
        }
        // A buffer on the way may still be draining into the next.
        if full > 20 { Ok(()) } else { Err("the way has no end".into()) }
    });
    stream.set_nonblocking(false).unwrap();
    len
}

#[test]
fn a_reset_in_mid_transfer_reaches_the_other_end_as_a_reset() {
    for method in METHODS {
        let pair = Pair::start(method);
        pair.assert_serves();
        let before = pair.descriptors();

        // One breaks off, the other one is reading.
        let (mut near, far) = session(&pair);
        (&far).write_all(b"part").unwrap();
        near.read_exact(&mut [0; 4]).unwrap();
        reset(far);
        assert_eq!(read_to_end(&mut near), (vec![], End::Reset), "{method}: the target breaks off");
        let (near, mut far) = session(&pair);
        (&near).write_all(b"part").unwrap();
        far.read_exact(&mut [0; 4]).unwrap();
        reset(near);
        assert_eq!(read_to_end(&mut far), (vec![], End::Reset), "{method}: the client breaks off");

        // The same with every buffer between them full.
        let (mut near, far) = session(&pair);
        let sent = fill(&far);
        reset(far);
        let (got, end) = read_to_end(&mut near);
        assert!(got.len() < sent && end == End::Reset, "{method}: {} of {sent}, {end:?}", got.len());
        let (near, mut far) = session(&pair);
        let sent = fill(&near);
        reset(near);
        let (got, end) = read_to_end(&mut far);
        assert!(got.len() < sent && end == End::Reset, "{method}: {} of {sent}, {end:?}", got.len());

        pair.assert_serves();
        pair.assert_descriptors_return_to(before);
    }
}

/// A process that is killed cannot say anything; what its kernel sends then is an orderly end. Between records, that is all that
/// the peer sees, and SIP004 has nothing that tells it from a whole answer; in the middle of one, it is known for what it is.
#[test]
fn a_download_through_a_server_that_is_killed_ends_with_a_reset() {
    for method in METHODS {
        let mut pair = Pair::start(method);
        let (mut near, far) = session(&pair);
        let sent = fill(&far);
        pair.server.kill();
        let (got, end) = read_to_end(&mut near);
        assert!(got.len() < sent && end == End::Reset, "{method}: {} of {sent}, {end:?}", got.len());
        assert!(pair.local.is_alive());
    }
}

/// Where we are told to end we can say it: neither a target nor a client may take a part for the whole.
#[test]
fn a_transfer_through_an_end_that_is_told_to_end_ends_with_a_reset() {
    for (side, up) in [("server", false), ("server", true), ("local", false), ("local", true)] {
        let mut pair = Pair::start(METHODS[0]);
        let (near, far) = session(&pair);
        let (source, mut sink) = if up { (near, far) } else { (far, near) };
        (&source).write_all(b"part").unwrap();
        sink.read_exact(&mut [0; 4]).unwrap();
        let ending = if side == "server" { &mut pair.server } else { &mut pair.local };
        assert_eq!(ending.end().0, Some(0));
        assert_eq!(read_to_end(&mut sink), (vec![], End::Reset), "{side} ends, the source is up: {up}");
        drop(source);
    }
}

/// Nor is a target that was never reached one that had nothing to say.
#[test]
fn a_dial_that_the_servers_end_breaks_off_ends_with_a_reset() {
    let mut pair = Pair::with(METHODS[0], &[], &["-vv"]);
    let (silent, _waiting) = silent_listener();
    let mut near = pair.open(silent.local_addr().unwrap());
    near.write_all(b"question").unwrap();
    pair.server.wait_for("connecting");
    assert_eq!(pair.server.end().0, Some(0));
    assert_eq!(read_to_end(&mut near), (vec![], End::Reset));
}

#[test]
fn resets_of_some_disturb_no_other_session() {
    let pair = Pair::start(METHODS[0]);
    let source = target(|mut stream| drop(stream.write_all(&pattern(16 << 20))));
    let ends = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&ends);
    // Held, so that the client alone decides how it ends.
    let silent = target(move |stream| kept.lock().unwrap().push(stream));
    let mut good = pair.open(source);
    let reading = std::thread::spawn(move || read_to_end(&mut good));
    while !reading.is_finished() {
        let mut other = pair.open(silent);
        other.write_all(b"x").unwrap();
        reset(other);
    }
    let (got, end) = reading.join().unwrap();
    assert_eq!(end, End::Orderly);
    assert!(got == pattern(16 << 20));
}
