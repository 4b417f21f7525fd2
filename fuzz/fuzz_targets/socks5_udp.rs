//! The head of a datagram from anybody.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_proto::address::{Address, IpBlock};
use umbra_proto::socks5::udp::{UdpError, head, open};
use umbra_proto::wire::Reader;

fuzz_target!(|datagram: &[u8]| {
    let decoded = datagram.get(3..).map(|block| {
        let mut reader = Reader::new(block);
        Address::decode(&mut reader).map(|address| (address, reader.rest()))
    });
    match open(datagram) {
        Ok((block, payload)) => {
            assert_eq!(decoded, Some(Ok((block.to_address(), payload))));
            let mut again = Vec::new();
            head(block, &mut again);
            again.extend_from_slice(payload);
            assert_eq!(again[3..], datagram[3..]);
            if let Some(ip) = block.ip() {
                assert_eq!(IpBlock::from(ip).block().to_address(), block.to_address());
            }
        }
        Err(UdpError::Fragment) => assert_ne!(datagram[2], 0),
        Err(UdpError::Truncated | UdpError::Address(_)) => assert!(decoded.is_none_or(|read| read.is_err())),
    }
});
