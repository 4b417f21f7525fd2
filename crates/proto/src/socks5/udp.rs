//! The head of a datagram between a SOCKS5 client and its relay (RFC 1928, section 7), either way.
//!
//! ```text
//!  +-----+------+------+----------+------+---------+
//!  | RSV | FRAG | ATYP | address  | port | payload |    FRAG 0: by itself; else a part of a longer one
//!  |  2  |  1   |  1   | variable |  2   |   0..   |
//!  +-----+------+------+----------+------+---------+
//! ```

use std::fmt;

use crate::address::{AddressBlock, AddressError};
use crate::wire::Stop;

/// Why a datagram is dropped. Nobody is told (RFC 1928, section 7: "silently").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpError {
    /// It ends within its head.
    Truncated,
    /// It is a part of a longer one. A relay that does not put them together "MUST drop any datagram whose FRAG field is
    /// other than X'00'".
    Fragment,
    /// Its address is none.
    Address(AddressError),
}

/// Bytes of the head before the address.
pub const PREFIX_BYTES: usize = 3;

/// Splits a datagram into the address (the target, or whom an answer is from) and the payload. What is reserved may be
/// anything.
pub fn open(datagram: &[u8]) -> Result<(AddressBlock<'_>, &[u8]), UdpError> {
    let ([_, _, fragment], rest) = datagram.split_first_chunk::<PREFIX_BYTES>().ok_or(UdpError::Truncated)?;
    if *fragment != 0 {
        return Err(UdpError::Fragment);
    }
    AddressBlock::split(rest).map_err(|stop| match stop {
        Stop::Incomplete => UdpError::Truncated,
        Stop::Malformed(error) => UdpError::Address(error),
    })
}

/// Appends the head of a datagram to or from `address`; the payload follows it.
pub fn head(address: AddressBlock<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.extend_from_slice(address.as_bytes());
}

impl fmt::Display for UdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("a datagram that ends within its head"),
            Self::Fragment => f.write_str("a part of a longer datagram"),
            Self::Address(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UdpError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &[u8] = b"\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35query";

    #[test]
    fn a_datagram_is_split_into_address_and_payload() {
        let (address, payload) = open(WHOLE).unwrap();
        assert_eq!(address.ip(), Some("192.0.2.1:53".parse().unwrap()));
        assert_eq!(payload, b"query");
        let (address, payload) = open(b"\x00\x00\x00\x03\x01a\x00\x35").unwrap();
        assert_eq!(address.to_address(), "a:53".parse().unwrap());
        assert_eq!(payload, b"", "an empty datagram is one");
    }

    #[test]
    fn a_fragment_is_told_from_everything_else() {
        for fragment in [1, 0x7f, 0x80, 0xff] {
            let mut datagram = WHOLE.to_vec();
            datagram[2] = fragment;
            assert_eq!(open(&datagram), Err(UdpError::Fragment));
        }
    }

    #[test]
    fn a_datagram_cut_within_its_head_is_none() {
        for end in 0..10 {
            assert_eq!(open(&WHOLE[..end]), Err(UdpError::Truncated), "at {end}");
        }
        assert_eq!(open(b"\x00\x00\x00\x05"), Err(UdpError::Address(AddressError::UnknownType(5))));
        assert_eq!(open(b"\x00\x00\x00\x03\x00\x00\x00"), Err(UdpError::Address(AddressError::EmptyName)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _: Result<_, UdpError> = open(&bytes);
        }

        #[test]
        fn what_has_a_head_opens_to_itself(name in "[a-z]{1,20}", port: u16, payload: Vec<u8>) {
            let mut block = Vec::new();
            crate::address::Address::from_host(&name, port).unwrap().encode(&mut block);
            let (block, _) = AddressBlock::split(&block).unwrap();
            let mut datagram = Vec::new();
            head(block, &mut datagram);
            datagram.extend_from_slice(&payload);
            prop_assert_eq!(open(&datagram), Ok((block, &payload[..])));
        }
    }
}
