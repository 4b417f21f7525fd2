//! Where a session goes: an IP address or a name, with a port, in text and in the form that SOCKS5 and Shadowsocks share.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::limits::DOMAIN_NAME_BYTES_MAX;
use crate::wire::{Reader, Stop};

/// A target or a server: address and port, the name left unresolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A name and port.
    Name(DomainName, u16),
}

/// A host name of 1 to 255 bytes of UTF-8 without white space or control characters.
///
/// The narrow character set keeps line ends out of logs and NULs out of resolvers; names are otherwise passed on as they came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DomainName(Box<str>);

/// An address in the form that SOCKS5 and Shadowsocks share, where it lies in a datagram: checked as [`Address::decode`]
/// checks, and nothing allocated.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressBlock<'a>(&'a [u8]);

/// The block of an IP address and port, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpBlock {
    bytes: [u8; IPV6_BLOCK_BYTES],
    len: u8,
}

/// The block of any address, by itself.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedBlock(Box<[u8]>);

/// Why bytes or text are not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The address type is none of 1, 3, 4.
    UnknownType(u8),
    /// The name is empty.
    EmptyName,
    /// The name is longer than 255 bytes.
    LongName,
    /// The name has a byte that no host name has.
    BadName,
    /// The text has no port, or one that is not a number from 0 to 65535.
    BadPort,
}

impl Address {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }

    /// Makes an address of a host in text form (an IP literal, bracketed or not, or a name) and a port.
    pub fn from_host(host: &str, port: u16) -> Result<Self, AddressError> {
        match literal(host) {
            Some(ip) => Ok(Self::Ip(SocketAddr::new(ip, port))),
            None => Ok(Self::Name(DomainName::new(host)?, port)),
        }
    }

    /// Bytes that [`encode`](Self::encode) writes: 5 to 259.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Ip(SocketAddr::V4(_)) => 7,
            Self::Ip(SocketAddr::V6(_)) => 19,
            Self::Name(name, _) => 4 + name.0.len(),
        }
    }

    /// Appends the address block of RFC 1928, section 5.
    ///
    /// ```text
    ///  +------+----------+------+
    ///  | ATYP | address  | port |    ATYP 1: 4 bytes, 3: length byte and name, 4: 16 bytes
    ///  |  1   | variable |  2   |
    ///  +------+----------+------+
    /// ```
    pub fn encode(&self, output: &mut Vec<u8>) {
        match self {
            Self::Ip(SocketAddr::V4(address)) => {
                output.push(TYPE_IPV4);
                output.extend_from_slice(&address.ip().octets());
            }
            Self::Ip(SocketAddr::V6(address)) => {
                output.push(TYPE_IPV6);
                output.extend_from_slice(&address.ip().octets());
            }
            Self::Name(name, _) => {
                output.push(TYPE_NAME);
                output.push(name.wire_len());
                output.extend_from_slice(name.0.as_bytes());
            }
        }
        output.extend_from_slice(&self.port().to_be_bytes());
    }

    /// Reads an address block.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Stop<AddressError>> {
        match reader.u8()? {
            TYPE_IPV4 => {
                let ip = Ipv4Addr::from(reader.array::<4, _>()?);
                Ok(Self::Ip(SocketAddr::new(ip.into(), reader.u16()?)))
            }
            TYPE_IPV6 => {
                let ip = Ipv6Addr::from(reader.array::<16, _>()?);
                Ok(Self::Ip(SocketAddr::new(ip.into(), reader.u16()?)))
            }
            TYPE_NAME => {
                let len = reader.u8()?;
                if len == 0 {
                    return Err(Stop::Malformed(AddressError::EmptyName));
                }
                let bytes = reader.slice(usize::from(len))?;
                let text = str::from_utf8(bytes).map_err(|_| Stop::Malformed(AddressError::BadName))?;
                // Some programs send IP literals as names; one target must not have two forms.
                Self::from_host(text, reader.u16()?).map_err(Stop::Malformed)
            }
            other => Err(Stop::Malformed(AddressError::UnknownType(other))),
        }
    }
}

impl<'a> AddressBlock<'a> {
    /// The block at the front of `bytes`, and what follows it.
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Stop<AddressError>> {
        let len = match *bytes {
            [] => return Err(Stop::Incomplete),
            [TYPE_IPV4, ..] => IPV4_BLOCK_BYTES,
            [TYPE_IPV6, ..] => IPV6_BLOCK_BYTES,
            [TYPE_NAME] => return Err(Stop::Incomplete),
            [TYPE_NAME, 0, ..] => return Err(Stop::Malformed(AddressError::EmptyName)),
            [TYPE_NAME, len, ..] => NAME_BLOCK_BYTES + usize::from(len),
            [other, ..] => return Err(Stop::Malformed(AddressError::UnknownType(other))),
        };
        let (block, rest) = bytes.split_at_checked(len).ok_or(Stop::Incomplete)?;
        if let [TYPE_NAME, _, named @ ..] = block {
            let name = str::from_utf8(&named[..named.len() - 2])
                .map_err(|_| Stop::Malformed(AddressError::BadName))?;
            // Names are much more frequent than literals, and a name's letters are in no literal.
            if check_name(name).is_err() && literal(name).is_none() {
                return Err(Stop::Malformed(AddressError::BadName));
            }
        }
        Ok((Self(block), rest))
    }

    /// The block: 5 to 259 bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The IP address and port, unless it is a name. An IP literal that was sent as a name is an IP address.
    pub fn ip(self) -> Option<SocketAddr> {
        let (rest, port) = self.0.split_last_chunk()?;
        let ip = match *rest {
            [TYPE_IPV4, a, b, c, d] => IpAddr::from([a, b, c, d]),
            [TYPE_IPV6, ref ip @ ..] => IpAddr::from(*ip.first_chunk::<16>()?),
            [_, _, ref name @ ..] => literal(str::from_utf8(name).ok()?)?,
            [] | [_] => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
    }

    /// The port.
    pub fn port(self) -> u16 {
        self.0.last_chunk().map_or(0, |port| u16::from_be_bytes(*port))
    }

    /// The same address, owned.
    pub fn to_address(self) -> Address {
        Address::decode(&mut Reader::new(self.0)).expect("a block was checked as it is decoded")
    }
}

impl OwnedBlock {
    /// The block.
    pub fn block(&self) -> AddressBlock<'_> {
        AddressBlock(&self.0)
    }
}

impl From<&Address> for OwnedBlock {
    fn from(address: &Address) -> Self {
        let mut bytes = Vec::with_capacity(address.encoded_len());
        address.encode(&mut bytes);
        Self(bytes.into())
    }
}

impl IpBlock {
    /// The block.
    pub fn block(&self) -> AddressBlock<'_> {
        AddressBlock(&self.bytes[..usize::from(self.len)])
    }
}

impl From<SocketAddr> for IpBlock {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; IPV6_BLOCK_BYTES];
        let len: u8 = match address {
            SocketAddr::V4(address) => {
                bytes[0] = TYPE_IPV4;
                bytes[1..5].copy_from_slice(&address.ip().octets());
                7
            }
            SocketAddr::V6(address) => {
                bytes[0] = TYPE_IPV6;
                bytes[1..17].copy_from_slice(&address.ip().octets());
                19
            }
        };
        let end = usize::from(len);
        bytes[end - 2..end].copy_from_slice(&address.port().to_be_bytes());
        Self { bytes, len }
    }
}

/// Where people go is theirs: not printed beside what is printed of a datagram.
impl fmt::Debug for AddressBlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressBlock<{}>(..)", self.0.len())
    }
}

impl fmt::Debug for OwnedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.block().fmt(f)
    }
}

/// Bytes of the address block that `start` is the beginning of, as far as it says: more than are there, and never more than
/// belong to it. For a block that is not whole.
pub(crate) fn wanted_len(start: &[u8]) -> usize {
    match *start {
        [TYPE_IPV4, ..] => IPV4_BLOCK_BYTES,
        [TYPE_IPV6, ..] => IPV6_BLOCK_BYTES,
        [TYPE_NAME, len, ..] => NAME_BLOCK_BYTES + usize::from(len),
        _ => start.len() + 1,
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{}:{port}", name.0),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Ip(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::BadPort)?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::BadPort);
        }
        Self::from_host(host, port.parse().map_err(|_| AddressError::BadPort)?)
    }
}

impl DomainName {
    /// Checks length and characters.
    pub fn new(text: &str) -> Result<Self, AddressError> {
        check_name(text)?;
        Ok(Self(text.into()))
    }

    /// The name as it came.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn wire_len(&self) -> u8 {
        u8::try_from(self.0.len()).expect("a name was checked to fit 255 bytes when it was made")
    }
}

/// The IP address that `host` is, bracketed or not.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn check_name(text: &str) -> Result<(), AddressError> {
    if text.is_empty() {
        return Err(AddressError::EmptyName);
    }
    if text.len() > DOMAIN_NAME_BYTES_MAX {
        return Err(AddressError::LongName);
    }
    let unfit = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '[' | ']' | ':' | '/' | '@');
    if text.contains(unfit) {
        return Err(AddressError::BadName);
    }
    Ok(())
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType(kind) => write!(f, "unknown address type {kind}"),
            Self::EmptyName => f.write_str("the host is empty"),
            Self::LongName => write!(f, "the host is longer than {DOMAIN_NAME_BYTES_MAX} bytes"),
            Self::BadName => f.write_str("the host has a character that no host name has"),
            Self::BadPort => f.write_str("the port is missing or not a number from 0 to 65535"),
        }
    }
}

impl std::error::Error for AddressError {}

const TYPE_IPV4: u8 = 1;
const TYPE_NAME: u8 = 3;
const TYPE_IPV6: u8 = 4;

const IPV4_BLOCK_BYTES: usize = 1 + 4 + 2;
const IPV6_BLOCK_BYTES: usize = 1 + 16 + 2;
/// Beside the name: type, length and port.
const NAME_BLOCK_BYTES: usize = 1 + 1 + 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(address: &Address) -> Vec<u8> {
        let mut output = Vec::new();
        address.encode(&mut output);
        output
    }

    #[test]
    fn the_block_of_the_test_vectors_is_reproduced() {
        let address: Address = "example.com:443".parse().unwrap();
        assert_eq!(encoded(&address), b"\x03\x0bexample.com\x01\xbb");
    }

    #[test]
    fn an_unknown_type_is_malformed_and_a_cut_anywhere_is_incomplete() {
        assert_eq!(
            Address::decode(&mut Reader::new(&[5, 0])),
            Err(Stop::Malformed(AddressError::UnknownType(5)))
        );
        for text in ["1.2.3.4:80", "[::1]:443", "example.com:443"] {
            let bytes = encoded(&text.parse().unwrap());
            for end in 0..bytes.len() {
                assert_eq!(
                    Address::decode(&mut Reader::new(&bytes[..end])),
                    Err(Stop::Incomplete),
                    "{text} at {end}"
                );
            }
        }
    }

    #[test]
    fn empty_and_dirty_names_are_malformed() {
        let decode = |bytes: &[u8]| Address::decode(&mut Reader::new(bytes));
        assert_eq!(decode(&[3, 0, 0, 80]), Err(Stop::Malformed(AddressError::EmptyName)));
        for dirty in [
            &b"\x03\x03a\nb\x00\x50"[..],
            b"\x03\x02a\x00\x00\x50",
            b"\x03\x01\xff\x00\x50",
            b"\x03\x03a b\x00\x50",
        ] {
            assert_eq!(decode(dirty), Err(Stop::Malformed(AddressError::BadName)));
        }
    }

    #[test]
    fn an_ip_literal_sent_as_a_name_is_an_ip() {
        let decode = |bytes: &[u8]| Address::decode(&mut Reader::new(bytes));
        assert_eq!(decode(b"\x03\x071.2.3.4\x00\x50"), Ok("1.2.3.4:80".parse().unwrap()));
        assert_eq!(decode(b"\x03\x03::1\x00\x50"), Ok("[::1]:80".parse().unwrap()));
        assert_eq!(decode(b"\x03\x05[::1]\x00\x50"), Ok("[::1]:80".parse().unwrap()));
        assert_eq!(decode(b"\x03\x03::g\x00\x50"), Err(Stop::Malformed(AddressError::BadName)));
    }

    #[test]
    fn text_without_a_good_port_is_refused() {
        for text in ["example.com", "example.com:", "example.com:65536", "example.com:+80", ":80", "a:b:80"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert_eq!(Address::from_host("::1", 80), "[::1]:80".parse());
        assert_eq!(Address::from_host("[::1]", 80), "[::1]:80".parse());
    }

    /// Anything, and what is nearly an address.
    fn blocks() -> impl Strategy<Value = Vec<u8>> {
        let named = |name: &str, port: u16, tail: Vec<u8>| {
            let len = u8::try_from(name.len()).unwrap();
            [&[3, len][..], name.as_bytes(), &port.to_be_bytes(), &tail].concat()
        };
        let tail = || prop::collection::vec(any::<u8>(), 0..4);
        let text = prop_oneof![
            "[a-z0-9.:\\[\\] ]{0,20}",
            any::<Ipv4Addr>().prop_map(|ip| ip.to_string()),
            any::<Ipv6Addr>().prop_map(|ip| format!("[{ip}]")),
            any::<Ipv6Addr>().prop_map(|ip| ip.to_string()),
        ];
        prop_oneof![
            any::<Vec<u8>>(),
            (1..=4_u8, prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(kind, rest)| [vec![kind], rest].concat()),
            (text, any::<u16>(), tail()).prop_map(move |(name, port, tail)| named(&name, port, tail)),
        ]
    }

    #[test]
    fn a_block_does_not_print_where_it_leads() {
        let block = IpBlock::from("192.0.2.1:80".parse::<SocketAddr>().unwrap());
        assert_eq!(format!("{:?}", block.block()), "AddressBlock<7>(..)");
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(name in "[a-z0-9_.-]{1,255}", port: u16, v4: [u8; 4], v6: [u8; 16]) {
            let addresses = [
                Address::from_host(&name, port).unwrap(),
                Address::Ip(SocketAddr::new(Ipv4Addr::from(v4).into(), port)),
                Address::Ip(SocketAddr::new(Ipv6Addr::from(v6).into(), port)),
            ];
            for address in addresses {
                let bytes = encoded(&address);
                prop_assert_eq!(bytes.len(), address.encoded_len());
                let owned = OwnedBlock::from(&address);
                prop_assert_eq!((owned.block().as_bytes(), owned.block().port()), (&bytes[..], port));
                let mut reader = Reader::new(&bytes);
                prop_assert_eq!(Address::decode(&mut reader).unwrap(), address.clone());
                prop_assert!(reader.rest().is_empty());
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            drop(Address::decode(&mut Reader::new(&bytes)));
        }

        #[test]
        fn a_block_is_what_the_decoder_takes_and_nothing_else(bytes in blocks()) {
            let mut reader = Reader::new(&bytes);
            let decoded = Address::decode(&mut reader);
            match AddressBlock::split(&bytes) {
                Ok((block, rest)) => {
                    prop_assert_eq!(block.as_bytes().len(), reader.taken());
                    prop_assert_eq!(rest, reader.rest());
                    let ip = if let Ok(Address::Ip(ip)) = decoded { Some(ip) } else { None };
                    prop_assert_eq!(block.ip(), ip);
                    prop_assert_eq!(Ok(block.to_address()), decoded);
                }
                // The decoder may call a name bad before its port has come.
                Err(_) => prop_assert!(decoded.is_err()),
            }
        }

        #[test]
        fn an_ip_block_is_the_encoded_address(v4: [u8; 4], v6: [u8; 16], port: u16) {
            for ip in [IpAddr::from(v4), IpAddr::from(v6)] {
                let address = SocketAddr::new(ip, port);
                let block = IpBlock::from(address);
                prop_assert_eq!(block.block().as_bytes(), encoded(&address.into()));
                prop_assert_eq!(block.block().ip(), Some(address));
            }
        }
    }
}
