//! Any bytes as a PROXY header, cut anywhere; and any header written and read.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_fuzz::handshake::run;
use umbra_proto::proxy_header::{ExpectHeader, Header, Version};

#[derive(Arbitrary, Debug)]
enum Opening {
    Bytes,
    Line,
    Binary { kind: u8, len: u16 },
    Header { ends: [(IpAddr, u16); 2], is_text: bool },
}

fuzz_target!(|session: (Opening, Vec<u8>, Vec<u16>)| {
    let (opening, rest, cuts) = session;
    let mut bytes = Vec::new();
    match opening {
        Opening::Bytes => {}
        Opening::Line => bytes.extend_from_slice(b"PROXY TCP"),
        Opening::Binary { kind, len } => {
            bytes.extend_from_slice(b"\r\n\r\n\0\r\nQUIT\n\x21");
            bytes.push(kind & 0x33);
            bytes.extend_from_slice(&(len % 512).to_be_bytes());
        }
        Opening::Header { ends, is_text } => {
            let [source, destination] = ends.map(|(ip, port)| SocketAddr::new(ip, port));
            let header = Header::Proxied { source, destination };
            header.encode(if is_text { Version::V1 } else { Version::V2 }, &mut bytes);
            bytes.extend_from_slice(&rest);
            let outcome = run(|_| ExpectHeader, &bytes, &cuts);
            assert_eq!(outcome.leftover, rest);
            let Ok(Some(Header::Proxied { source: from, destination: to })) = outcome.done else {
                panic!("{:?}", outcome.done);
            };
            let canonical = |end: SocketAddr| (end.ip().to_canonical(), end.port());
            assert_eq!((canonical(from), canonical(to)), (canonical(source), canonical(destination)));
            return;
        }
    }
    bytes.extend_from_slice(&rest);
    let outcome = run(|_| ExpectHeader, &bytes, &cuts);
    assert!(outcome.output.is_empty());
    let taken = bytes.len() - outcome.leftover.len();
    if let Ok(Some(_)) = outcome.done {
        assert!(taken <= 16 + 4096);
        assert_eq!(run(|_| ExpectHeader, &bytes[..taken - 1], &cuts).done, Ok(None));
    }
});
