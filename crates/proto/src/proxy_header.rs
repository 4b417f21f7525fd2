//! The PROXY protocol, versions 1 and 2: whose connection it is, told by whoever passes it on.
//!
//! Its receiver has to know that there is a header: where that is guessed, any client can forge its address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crc::{CRC_32_ISCSI, Crc};

use crate::limits::{PROXY_V1_LINE_BYTES_MAX, PROXY_V2_BLOCK_BYTES_MAX};
use crate::wire::{Input, Reader, Stop};
use crate::{Handshake, Step};

/// A receiver that waits for the end of the header.
#[derive(Debug, Default)]
pub struct ExpectHeader;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Nothing: the sender speaks for itself, or does not know. The connection's own addresses are the true ones.
    Unknown,
    /// Whose connection it is.
    Proxied {
        /// The client's address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
}

/// Which of the two forms to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How a sender can be wrong. It is told nothing; the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first bytes are neither version's.
    Signature,
    /// A line of version 1 that is not exactly as it has to be.
    Line,
    /// A line of version 1 of more than 107 bytes.
    LongLine,
    /// A version, command, family or transport of version 2 that does not exist.
    Fixed,
    /// A header of version 2 with more behind it than we take.
    LongBlock(u16),
    /// A block of version 2 that is too short for its addresses, or whose attributes do not fit.
    Block,
    /// The header's checksum is another.
    Checksum,
}

impl Handshake for ExpectHeader {
    type Done = Header;
    type Error = Error;

    fn advance(self, input: &mut Input<'_>, _output: &mut Vec<u8>) -> Result<Step<Self>, Error> {
        match input.decode(decode) {
            Ok(header) => Ok(Step::Done(header)),
            Err(Stop::Incomplete) => Ok(Step::Wait(self)),
            Err(Stop::Malformed(error)) => Err(error),
        }
    }
}

fn decode(reader: &mut Reader<'_>) -> Result<Header, Stop<Error>> {
    let bytes = reader.rest();
    let begins = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        bytes[..common] == signature[..common]
    };
    if begins(V1_SIGNATURE) {
        decode_v1(reader)
    } else if begins(&V2_SIGNATURE) {
        decode_v2(reader)
    } else {
        Err(Stop::Malformed(Error::Signature))
    }
}

/// ```text
///  PROXY TCP4 192.0.2.1 192.0.2.11 56324 443 CR LF
///  PROXY TCP6 2001:db8::1 2001:db8::11 56324 443 CR LF
///  PROXY UNKNOWN anything CR LF
/// ```
fn decode_v1(reader: &mut Reader<'_>) -> Result<Header, Stop<Error>> {
    let bytes = reader.rest();
    let bytes = &bytes[..bytes.len().min(PROXY_V1_LINE_BYTES_MAX)];
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let long = bytes.len() == PROXY_V1_LINE_BYTES_MAX;
        return Err(if long { Stop::Malformed(Error::LongLine) } else { Stop::Incomplete });
    };
    let line = reader.slice(end + 1)?;
    let line = str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n"));
    line.and_then(understand_line).ok_or(Stop::Malformed(Error::Line))
}

fn understand_line(line: &str) -> Option<Header> {
    if line.contains('\r') {
        return None;
    }
    let mut fields = line.split(' ');
    if fields.next() != Some("PROXY") {
        return None;
    }
    let family = fields.next()?;
    if family == "UNKNOWN" {
        return Some(Header::Unknown);
    }
    let (source, destination, source_port, destination_port) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() {
        return None;
    }
    let (source, destination) = match family {
        "TCP4" => (ip::<Ipv4Addr>(source)?, ip::<Ipv4Addr>(destination)?),
        "TCP6" => (ip::<Ipv6Addr>(source)?, ip::<Ipv6Addr>(destination)?),
        _ => return None,
    };
    Some(Header::Proxied {
        source: SocketAddr::new(source, port(source_port)?),
        destination: SocketAddr::new(destination, port(destination_port)?),
    })
}

fn ip<A: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<A>().ok().map(Into::into)
}

/// Decimal without heading zeros, which could be taken for octal.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().ok() } else { None }
}

/// ```text
///  +-----------+---------+---------+-----------+--------+-----------+------------+
///  | signature | version | command |  family,  | length | addresses | attributes |
///  |           |    2    | 0 or 1  | transport |        |           |            |
///  |    12     | 4 bits  | 4 bits  |     1     |   2    | 0 to 216  |  variable  |
///  +-----------+---------+---------+-----------+--------+-----------+------------+
/// ```
fn decode_v2(reader: &mut Reader<'_>) -> Result<Header, Stop<Error>> {
    let whole = reader.rest();
    reader.slice(V2_SIGNATURE.len())?;
    let is_local = match reader.u8()? {
        0x20 => true,
        0x21 => false,
        _ => return Err(Stop::Malformed(Error::Fixed)),
    };
    let kind = reader.u8()?;
    if kind >> 4 > 3 || kind & 0xf > 2 {
        return Err(Stop::Malformed(Error::Fixed));
    }
    let len = reader.u16()?;
    if usize::from(len) > PROXY_V2_BLOCK_BYTES_MAX {
        return Err(Stop::Malformed(Error::LongBlock(len)));
    }
    let block = reader.slice(usize::from(len))?;
    // Of LOCAL the receiver MUST discard the block, and of an unspecified family it ignores the addresses.
    if is_local || kind >> 4 == 0 {
        return Ok(Header::Unknown);
    }
    let mut block = Reader::new(block);
    let header = addresses(&mut block, kind).map_err(|_| Stop::Malformed(Error::Block))?;
    check_attributes(&whole[..reader.taken()], block.rest()).map_err(Stop::Malformed)?;
    Ok(header)
}

/// The addresses, if they are of an IP stream; others are skipped, and the connection's own are the true ones.
fn addresses(block: &mut Reader<'_>, kind: u8) -> Result<Header, Stop<Error>> {
    let (source, destination): (IpAddr, IpAddr) = match kind >> 4 {
        1 => (Ipv4Addr::from(block.array::<4, _>()?).into(), Ipv4Addr::from(block.array::<4, _>()?).into()),
        2 => (Ipv6Addr::from(block.array::<16, _>()?).into(), Ipv6Addr::from(block.array::<16, _>()?).into()),
        _ => {
            block.slice(UNIX_ADDRESSES_BYTES)?;
            return Ok(Header::Unknown);
        }
    };
    let source = SocketAddr::new(source, block.u16()?);
    let destination = SocketAddr::new(destination, block.u16()?);
    match kind & 0xf {
        1 => Ok(Header::Proxied { source, destination }),
        _ => Ok(Header::Unknown),
    }
}

/// Goes through `attributes`, the last part of `whole`, and checks a checksum if there is one.
fn check_attributes(whole: &[u8], attributes: &[u8]) -> Result<(), Error> {
    let mut reader = Reader::new(attributes);
    while !reader.rest().is_empty() {
        let start = whole.len() - reader.rest().len();
        let (kind, value) = attribute(&mut reader).map_err(|_| Error::Block)?;
        if kind == ATTRIBUTE_CRC32C {
            let told = value.try_into().map(u32::from_be_bytes).map_err(|_| Error::Block)?;
            let (before, after) = (&whole[..start + 3], &whole[start + 3 + 4..]);
            let mut digest = CRC32C.digest();
            digest.update(before);
            digest.update(&[0; 4]);
            digest.update(after);
            if digest.finalize() != told {
                return Err(Error::Checksum);
            }
        }
    }
    Ok(())
}

fn attribute<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8]), Stop<Error>> {
    let kind = reader.u8()?;
    let len = reader.u16()?;
    Ok((kind, reader.slice(usize::from(len))?))
}

impl Header {
    /// Appends the header: what goes to a target before anything else.
    ///
    /// Where only one address is an IPv6 one, the other is written as an IPv6 one too, for a header has one family.
    pub fn encode(&self, version: Version, output: &mut Vec<u8>) {
        match (version, self.family()) {
            (Version::V1, Family::Unknown) => output.extend_from_slice(b"PROXY UNKNOWN\r\n"),
            (Version::V1, Family::V4(source, destination)) => {
                line("TCP4", &source, &destination, output);
            }
            (Version::V1, Family::V6(source, destination)) => {
                line("TCP6", &source, &destination, output);
            }
            (Version::V2, Family::Unknown) => block(0x20, 0x00, &[], output),
            (Version::V2, Family::V4(source, destination)) => {
                let ips = [source.ip.octets(), destination.ip.octets()].concat();
                block(0x21, 0x11, &[&ips[..], &ports(source.port, destination.port)].concat(), output);
            }
            (Version::V2, Family::V6(source, destination)) => {
                let ips = [source.ip.octets(), destination.ip.octets()].concat();
                block(0x21, 0x21, &[&ips[..], &ports(source.port, destination.port)].concat(), output);
            }
        }
    }

    fn family(&self) -> Family {
        let Self::Proxied { source, destination } = self else { return Family::Unknown };
        let six = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        // An IPv4 client of a socket for both families is an IPv4 client.
        match (source.ip().to_canonical(), destination.ip().to_canonical()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                Family::V4(End { ip: from, port: source.port() }, End { ip: to, port: destination.port() })
            }
            (from, to) => Family::V6(
                End { ip: six(from), port: source.port() },
                End { ip: six(to), port: destination.port() },
            ),
        }
    }
}

/// Both ends in one family.
enum Family {
    Unknown,
    V4(End<Ipv4Addr>, End<Ipv4Addr>),
    V6(End<Ipv6Addr>, End<Ipv6Addr>),
}

struct End<A> {
    ip: A,
    port: u16,
}

fn line<A: fmt::Display>(family: &str, source: &End<A>, destination: &End<A>, output: &mut Vec<u8>) {
    let (from, to) = (&source.ip, &destination.ip);
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port, destination.port);
    output.extend_from_slice(line.as_bytes());
}

fn ports(source: u16, destination: u16) -> [u8; 4] {
    let [a, b] = source.to_be_bytes();
    let [c, d] = destination.to_be_bytes();
    [a, b, c, d]
}

fn block(command: u8, kind: u8, block: &[u8], output: &mut Vec<u8>) {
    output.extend_from_slice(&V2_SIGNATURE);
    output.extend_from_slice(&[command, kind]);
    let len = u16::try_from(block.len()).expect("two addresses with their ports are 36 bytes at most");
    output.extend_from_slice(&len.to_be_bytes());
    output.extend_from_slice(block);
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature => f.write_str("no PROXY header"),
            Self::Line => f.write_str("a PROXY line that is not exactly one"),
            Self::LongLine => write!(f, "a PROXY line of more than {PROXY_V1_LINE_BYTES_MAX} bytes"),
            Self::Fixed => f.write_str("a PROXY header of an unknown version, command or family"),
            Self::LongBlock(len) => write!(f, "a PROXY header with {len} bytes behind it"),
            Self::Block => f.write_str("a PROXY header whose addresses or attributes do not fit"),
            Self::Checksum => f.write_str("a PROXY header with a wrong checksum"),
        }
    }
}

impl std::error::Error for Error {}

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const UNIX_ADDRESSES_BYTES: usize = 2 * 108;
const ATTRIBUTE_CRC32C: u8 = 3;

/// CRC-32C, whose first use was iSCSI.
static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
