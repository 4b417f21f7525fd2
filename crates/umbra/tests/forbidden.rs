//! Where the real program leads nobody, and how it says so.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test program uses a part of it")]
mod running;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use running::{PATIENCE, Umbra, assert_echoes, echo, eventually};

const SERVER: &[&str] = &["server", "-s", "127.0.0.1:0", "-m", "aes-128-gcm", "-k", "long-enough"];

fn server(extra: &[&str]) -> Umbra {
    Umbra::start(&[SERVER, extra].concat())
}

fn local(server: &Umbra) -> Umbra {
    let server = server.address.to_string();
    Umbra::start(&["local", "-s", &server, "-l", "0", "-m", "aes-128-gcm", "-k", "long-enough"])
}

/// A client that goes to its targets by itself.
fn direct(extra: &[&str]) -> Umbra {
    Umbra::start(&[&["local", "--direct", "-l", "0"], extra].concat())
}

/// A request of SOCKS5 for an address or a name, greeting included.
fn request(host: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 5, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            bytes.push(1);
            bytes.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            bytes.push(4);
            bytes.extend(address.octets());
        }
        Err(_) => {
            bytes.extend([3, u8::try_from(host.len()).unwrap()]);
            bytes.extend(host.as_bytes());
        }
    }
    bytes.extend(port.to_be_bytes());
    bytes
}

fn open(door: &Umbra, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(door.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// All that comes until the connection ends or is reset, which is soon.
fn answer(door: &Umbra, bytes: &[u8]) -> Vec<u8> {
    let began = Instant::now();
    let mut answer = Vec::new();
    let _reset_is_an_end_too = open(door, bytes).read_to_end(&mut answer);
    assert!(began.elapsed() < Duration::from_secs(5), "refused at once");
    answer
}

/// A service of this machine's own, on every address that it has.
fn own_service() -> (TcpListener, u16) {
    // An IPv6 socket takes IPv4 as well; where there is no IPv6, IPv4 is all there is.
    let listener = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    (listener, port)
}

/// The machine's own addresses, in the forms that have got past such lists, and names for them.
const OWN: [&str; 19] = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:0.0.0.0",
    "::127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::127.0.0.1",
    "2002:7f00:1::",
    "2001:0:7f00:1::1",
    "localhost",
    // The system's resolver reads these as numbers.
    "127.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "0",
];

#[test]
fn a_server_leads_nobody_to_itself_by_any_spelling() {
    let (service, port) = own_service();
    let server = server(&["-v"]);
    let client = local(&server);
    for host in OWN {
        let got = answer(&client, &[request(host, port), b"GET / HTTP/1.0\r\n\r\n".to_vec()].concat());
        assert!(got.len() <= 12, "{host}: nothing but the reply to SOCKS5: {got:?}");
        assert!(service.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{host}");
    }
    let log = server.log();
    assert!(log.contains("IP 127.0.0.1 is in forbidden list, reject"), "{log}");
    assert!(log.contains("the target is in forbidden list (loopback), reject"), "{log}");
    assert!(log.contains("the target is in forbidden list (unspecified), reject"), "{log}");
    eventually(|| match server.log().matches("session failed").count() {
        lines if lines == OWN.len() => Ok(()),
        lines => Err(format!("{lines} lines")),
    });
}

#[test]
fn the_line_that_is_always_written_names_the_rule_and_not_the_target() {
    let server = server(&[]);
    let client = local(&server);
    answer(&client, &request("169.254.169.254", 80));
    server.wait_for("the target is in forbidden list (cloud metadata), reject");
    assert!(!server.log().contains("169.254"), "{}", server.log());
}

#[test]
fn what_is_allowed_is_reached() {
    let target = echo();
    for extra in [
        &["--forbidden-ip="][..],
        &["--forbidden-ip", ""],
        &["--forbidden-ip", "192.0.2.0/24, 2001:db8::/32"],
        &["--allowed-ip", "127.0.0.1"],
        &["--forbid-private", "--allowed-ip=127.0.0.0/8"],
        &["--forbidden-ip=", "--forbid-private"],
    ] {
        let server = server(extra);
        assert_echoes(local(&server).address, target);
        let warned = server.log().contains("clients reach what this machine and its cloud keep");
        assert_eq!(warned, extra[0].starts_with("--forbidden-ip"), "{extra:?}");
    }
    let (service, port) = own_service();
    let client = local(&server(&["--allowed-ip", "192.0.2.0/24"]));
    answer(&client, &request("127.0.0.1", port));
    assert!(service.accept().is_err(), "an exemption is for its own addresses");
}

#[test]
fn a_direct_client_forbids_what_it_is_told_and_tells_each_protocol_so() {
    let target = echo();
    assert_echoes(direct(&[]).address, target);
    for extra in [&["--forbidden-ip", "127.0.0.0/8,::1"][..], &["--forbid-private"]] {
        let door = direct(extra);
        for host in ["127.0.0.1", "::ffff:127.0.0.1", "localhost", "127.1"] {
            let told = answer(&door, &request(host, target.port()));
            assert_eq!(told.get(..4), Some(&[5, 0, 5, 2][..]), "{host}");
        }
        let socks4 = [&[4, 1][..], &target.port().to_be_bytes(), &[127, 0, 0, 1, 0]].concat();
        assert_eq!(answer(&door, &socks4).get(..2), Some(&[0, 91][..]));
        for words in [
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"),
            format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"),
        ] {
            let told = answer(&door, words.as_bytes());
            assert!(told.starts_with(b"HTTP/1.1 403 "), "{words}: {}", String::from_utf8_lossy(&told));
        }
    }
}

#[test]
fn a_new_pair_keeps_to_the_public_network_and_says_how_to() {
    let (service, port) = own_service();
    let mut up = Command::new(env!("CARGO_BIN_EXE_umbra"));
    let bad = up.args(["up", "--forbidden-ip=10.0.0.0/33"]).output().unwrap();
    assert_eq!(bad.status.code(), Some(1));
    let said = String::from_utf8_lossy(&bad.stderr);
    assert!(said.contains("error: --forbidden-ip: Not a valid CIDR notation: 10.0.0.0/33"), "{said}");

    let up = Umbra::start(&["up"]);
    for address in
        [Ipv4Addr::LOCALHOST.to_string(), "10.255.255.1".into(), "100.64.0.1".into(), "fd00::1".into()]
    {
        answer(&up, &request(&address, port));
    }
    assert!(service.accept().is_err());
    for rule in ["loopback", "private", "CGNAT", "unique local"] {
        up.wait_for(&format!("the target is in forbidden list ({rule}), reject"));
    }
}
