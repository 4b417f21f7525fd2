//! Bad manners at the doors that proxies speak through: greedy clients, hostile targets, and strangers among users.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::stage::{Umbra, connect, echo, echoes, eventually, reset, target};

/// A client without a server before a configuration of these lines, or with only these.
fn alone(lines: &str, extra: &[&str]) -> (Umbra, tempfile::TempDir) {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, format!(r#"{{"direct": true, "local_port": 0{lines}}}"#)).unwrap();
    (Umbra::start(&[&["local", "-c", path.to_str().unwrap()], extra].concat()), folder)
}

/// A target that answers every request and never ends.
fn staying() -> SocketAddr {
    target(|mut stream| {
        let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            heard.extend_from_slice(&piece[..count]);
            if heard.ends_with(b"\r\n\r\n") {
                heard.clear();
                let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
        thread::sleep(Duration::from_secs(20));
    })
}

fn get(target: SocketAddr) -> String {
    format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// Reads an answer of which the end is known.
fn hear(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    while !heard.ends_with(end) {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        assert_ne!(count, 0, "an end after {:?}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&piece[..count]);
    }
    heard
}

#[test]
fn a_client_that_asks_for_many_targets_over_one_connection_holds_one_of_them() {
    let (umbra, _folder) = alone("", &["--nofile", "200"]);
    let targets = [staying(), staying()];
    let before = umbra.descriptors();
    let mut client = connect(umbra.address);
    for number in 0..500 {
        client.write_all(get(targets[number % 2]).as_bytes()).unwrap();
        let answer = hear(&mut client, b"ok");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        assert!(umbra.descriptors() <= before + 4, "{} descriptors", umbra.descriptors());
    }
    drop(client);
    returns_to(&umbra, before);
}

/// Waits until no more descriptors are open than before.
fn returns_to(umbra: &Umbra, before: usize) {
    eventually(|| match umbra.descriptors() {
        some if some <= before => Ok(()),
        some => Err(format!("{before} descriptors have become {some}")),
    });
}

#[test]
fn clients_that_leave_at_once_give_their_place_only_with_all_that_was_opened_for_them() {
    let (umbra, _folder) = alone("", &["--nofile", "200"]);
    let mute = target(|_stream| thread::sleep(Duration::from_secs(20)));
    let (before, echo) = (umbra.descriptors(), echo());
    for _ in 0..600 {
        let mut client = connect(umbra.address);
        client.write_all(get(mute).as_bytes()).unwrap();
        reset(client);
    }
    assert!(echoes(umbra.address, echo), "somebody else is served meanwhile");
    let log = umbra.log();
    assert!(!log.contains("Too many open files"), "{log}");
    returns_to(&umbra, before);
}
