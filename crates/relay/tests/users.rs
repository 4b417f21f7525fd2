//! Several users of one port, and servers that hand streams on to each other, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[expect(dead_code, reason = "shared with other tests")]
mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use common::{inbound, open, run, server_with, target, through_with};
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::key::{Key, encode_password};
use umbra_proto::shadowsocks::keyring::{Keyring, User};
use umbra_relay::Relay;
use umbra_relay::config::{Protocol, ProxyDoor, Route};

/// The secret that is one byte over and over.
fn secret(method: Method, byte: u8) -> Key {
    Key::from_bytes(method, &vec![byte; method.key_len()]).unwrap()
}

fn user(method: Method, name: &str, byte: u8) -> User {
    User { name: name.into(), key: secret(method, byte), forward: None }
}

/// What a client writes as its password: these secrets, joined.
fn credentials(method: Method, bytes: &[u8]) -> Credentials {
    let parts = bytes.iter().map(|byte| encode_password(&vec![*byte; method.key_len()]).to_string());
    Credentials::from_password(method, &parts.collect::<Vec<_>>().join(":")).unwrap()
}

fn client(server: SocketAddr, credentials: Credentials) -> Relay {
    run(inbound(Protocol::Proxy(ProxyDoor::MIXED), through_with(server, credentials)))
}

/// Connects through a SOCKS5 door without a word about success: whether the way is open shows in the answer of the target.
fn ask(door: SocketAddr, target: SocketAddr) -> TcpStream {
    let mut stream = open(door);
    let mut greeting = vec![5, 1, 0, 5, 1, 0];
    Address::Ip(target).encode(&mut greeting);
    stream.write_all(&greeting).unwrap();
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[3], 0);
    stream
}

/// Whether a whole conversation passes for the holder of `credentials`.
fn passes(server: SocketAddr, credentials: Credentials) {
    let (address, far) = target(|mut stream| {
        let mut question = vec![0; 100_000];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(&question).unwrap();
        question
    });
    let client = client(server, credentials);
    let mut stream = ask(client.addresses()[0], address);
    let question: Vec<u8> = (0..100_000_u32).map(|number| number.to_be_bytes()[3]).collect();
    stream.write_all(&question).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, question);
    assert_eq!(far.join().unwrap(), question);
    client.stop();
}

/// That the holder of `credentials` reaches nobody, and is not told why.
fn is_met_with_silence(server: SocketAddr, credentials: Credentials) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(server, credentials);
    let mut stream = ask(client.addresses()[0], listener.local_addr().unwrap());
    stream.write_all(b"question").unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let silence = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody came");
    client.stop();
}

#[test]
fn each_user_of_an_aead_port_gets_through_with_a_password_of_their_own() {
    let method = Method::Chacha20IetfPoly1305;
    let users = vec![user(method, "alice", 1), user(method, "bob", 2), user(method, "carol", 3)];
    let server = run(inbound(server_with(Keyring::new(method, None, users).unwrap()), Route::direct()));
    let at = server.addresses()[0];
    for byte in [3, 1, 2, 2] {
        passes(at, secret(method, byte).into());
    }
    is_met_with_silence(at, secret(method, 9).into());
    passes(at, secret(method, 1).into());
    server.stop();
}

#[test]
fn each_user_of_a_2022_port_gets_through_under_its_identity_key() {
    for method in [Method::Blake3Aes128Gcm, Method::Blake3Aes256Gcm] {
        let users = vec![user(method, "alice", 1), user(method, "bob", 2)];
        let keyring = Keyring::new(method, Some(secret(method, 100)), users).unwrap();
        let server = run(inbound(server_with(keyring), Route::direct()));
        let at = server.addresses()[0];
        passes(at, credentials(method, &[100, 2]));
        passes(at, credentials(method, &[100, 1]));
        is_met_with_silence(at, credentials(method, &[100, 9]));
        is_met_with_silence(at, credentials(method, &[99, 1]));
        is_met_with_silence(at, credentials(method, &[1]));
        server.stop();
    }
}

#[test]
fn a_server_hands_a_stream_on_to_the_one_that_understands_it() {
    let method = Method::Blake3Aes256Gcm;
    let far_keys = Keyring::new(method, Some(secret(method, 101)), vec![user(method, "alice", 1)]).unwrap();
    let far = run(inbound(server_with(far_keys), Route::direct()));
    let next =
        User { name: "far".into(), key: secret(method, 101), forward: Some(far.addresses()[0].into()) };
    let near_keys =
        Keyring::new(method, Some(secret(method, 100)), vec![next, user(method, "bob", 2)]).unwrap();
    let near = run(inbound(server_with(near_keys), Route::direct()));
    let at = near.addresses()[0];
    passes(at, credentials(method, &[100, 101, 1]));
    passes(at, credentials(method, &[100, 2]));
    is_met_with_silence(at, credentials(method, &[100, 101, 2]));
    is_met_with_silence(at, credentials(method, &[100, 102, 1]));
    near.stop();
    far.stop();
}
