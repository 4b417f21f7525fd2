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
    let command = match reader.u8()? {
        0x20 => Command::Local,
        0x21 => Command::Proxy,
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
    match command {
        Command::Proxy if kind >> 4 != 0 => {}
        Command::Proxy | Command::Local => return Ok(Header::Unknown),
    }
    let mut block = Reader::new(block);
    let header = addresses(&mut block, kind).map_err(|_| Stop::Malformed(Error::Block))?;
    check_attributes(&whole[..reader.taken()], block.rest()).map_err(Stop::Malformed)?;
    Ok(header)
}

/// Whose connection it is.
enum Command {
    /// The sender's own.
    Local,
    /// Somebody's, passed on.
    Proxy,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Outcome, run, run_cut};
    use proptest::prelude::*;

    fn receive(session: &[u8]) -> Outcome<Header, Error> {
        let outcome = run_cut(|_| ExpectHeader, session);
        assert_eq!(outcome.output, b"", "the protocol has no answers");
        outcome
    }

    fn proxied(source: &str, destination: &str) -> Header {
        Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A header of version 2 with this command, family and transport, and block.
    fn v2(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
        let len = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&V2_SIGNATURE[..], &[command, kind], &len, block].concat()
    }

    /// 192.0.2.1:56324 to 192.0.2.11:443.
    const V4_BLOCK: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 11, 0xdc, 0x04, 0x01, 0xbb];

    #[test]
    fn lines_are_understood_and_what_follows_is_left() {
        for (line, header) in [
            (
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
                proxied("192.168.0.1:56324", "192.168.0.11:443"),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 0 65535\r\n",
                proxied("[2001:db8::1]:0", "[::ffff:1.2.3.4]:65535"),
            ),
            ("PROXY UNKNOWN\r\n", Header::Unknown),
            ("PROXY UNKNOWN anything  at\tall 99999\r\n", Header::Unknown),
        ] {
            let outcome = receive(format!("{line}GET /\r\n").as_bytes());
            assert_eq!(
                (outcome.done, &outcome.leftover[..]),
                (Ok(Some(header)), &b"GET /\r\n"[..]),
                "{line}"
            );
        }
        // The longest line that the protocol's authors could think of.
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let line = format!("PROXY UNKNOWN {all} {all} 65535 65535\r\n");
        assert_eq!(line.len(), PROXY_V1_LINE_BYTES_MAX);
        assert_eq!(receive(line.as_bytes()).done, Ok(Some(Header::Unknown)));
    }

    #[test]
    fn a_line_that_is_not_exact_is_refused() {
        for line in [
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 \r\n",
            "PROXY TCP4  192.168.0.1 192.168.0.11 56324 443\r\n",
            "PROXY  TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 5\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
            "PROXY TCP4 192.168.0.1\t192.168.0.11 56324 443\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11\r56324 443\r\n",
            "PROXY UNKNOWN a\rb\r\n",
            "PROXY UNKNOWN\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 +80 443\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 080 443\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 00 443\r\n",
            "PROXY TCP4 192.168.0.1 192.168.0.11 -1 443\r\n",
            "PROXY TCP4 192.168.0.01 192.168.0.11 56324 443\r\n",
            "PROXY TCP4 192.168.0.256 192.168.0.11 56324 443\r\n",
            "PROXY TCP4 192.168.1 192.168.0.11 56324 443\r\n",
            "PROXY TCP4 ::1 ::1 56324 443\r\n",
            "PROXY TCP6 192.168.0.1 192.168.0.11 56324 443\r\n",
            "PROXY TCP6 [::1] ::1 56324 443\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n",
            "PROXY UDP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            "PROXY tcp4 192.168.0.1 192.168.0.11 56324 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY TCP4\r\n",
        ] {
            assert_eq!(receive(line.as_bytes()).done, Err(Error::Line), "{line:?}");
        }
        assert_eq!(receive(b"PROXY UNKNOWN \xff\r\n").done, Err(Error::Line));
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(PROXY_V1_LINE_BYTES_MAX - 15));
        assert_eq!(receive(long.as_bytes()).done, Err(Error::LongLine));
    }

    #[test]
    fn what_begins_otherwise_is_no_header() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"\x05\x01\x00", b"proxy TCP4", b"PROXYTCP4", b"\r\n\r\n\r", b"\n"]
        {
            assert_eq!(receive(bytes).done, Err(Error::Signature), "{bytes:?}");
        }
        for bytes in [&b""[..], b"P", b"PROXY", b"\r", b"\r\n\r\n\0\r\nQUIT"] {
            assert_eq!(receive(bytes).done, Ok(None), "{bytes:?}");
        }
    }

    #[test]
    fn binary_headers_are_understood_and_what_follows_is_left() {
        let told = proxied("192.0.2.1:56324", "192.0.2.11:443");
        let v6_block = [&[0x20; 16][..], &[0x30; 16], &[0, 1, 0, 2]].concat();
        let v6_told = proxied(
            "[2020:2020:2020:2020:2020:2020:2020:2020]:1",
            "[3030:3030:3030:3030:3030:3030:3030:3030]:2",
        );
        let attributes = b"\x04\x00\x02\x00\x00\xe0\x00\x00\x02\x00\x03a.b";
        for (bytes, header) in [
            (v2(0x21, 0x11, V4_BLOCK), told),
            (v2(0x21, 0x11, &[V4_BLOCK, attributes].concat()), told),
            (v2(0x21, 0x21, &v6_block), v6_told),
            // Datagrams over a connection, and paths: real, but not this connection's addresses.
            (v2(0x21, 0x12, V4_BLOCK), Header::Unknown),
            (v2(0x21, 0x10, V4_BLOCK), Header::Unknown),
            (v2(0x21, 0x31, &[b'/'; 216]), Header::Unknown),
            (v2(0x21, 0x00, b""), Header::Unknown),
            (v2(0x21, 0x01, b"anything"), Header::Unknown),
            // The block of LOCAL is discarded, whatever it is.
            (v2(0x20, 0x00, b""), Header::Unknown),
            (v2(0x20, 0x11, V4_BLOCK), Header::Unknown),
            (v2(0x20, 0x21, b"short"), Header::Unknown),
        ] {
            let outcome = receive(&[&bytes[..], b"\x05\x01\x00"].concat());
            assert_eq!(
                (outcome.done, &outcome.leftover[..]),
                (Ok(Some(header)), &b"\x05\x01\x00"[..]),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_binary_header_that_is_wrong_is_refused() {
        let with = |attributes: &[u8]| v2(0x21, 0x11, &[V4_BLOCK, attributes].concat());
        let mut long = v2(0x21, 0x11, &[0; PROXY_V2_BLOCK_BYTES_MAX + 1]);
        for (bytes, error) in [
            (v2(0x11, 0x11, V4_BLOCK), Error::Fixed),
            (v2(0x31, 0x11, V4_BLOCK), Error::Fixed),
            (v2(0x22, 0x11, V4_BLOCK), Error::Fixed),
            (v2(0x2f, 0x11, V4_BLOCK), Error::Fixed),
            (v2(0x21, 0x41, V4_BLOCK), Error::Fixed),
            (v2(0x21, 0x13, V4_BLOCK), Error::Fixed),
            (v2(0x21, 0x11, &V4_BLOCK[..11]), Error::Block),
            (v2(0x21, 0x21, V4_BLOCK), Error::Block),
            (v2(0x21, 0x31, V4_BLOCK), Error::Block),
            (v2(0x21, 0x11, b""), Error::Block),
            (with(b"\x04"), Error::Block),
            (with(b"\x04\x00"), Error::Block),
            (with(b"\x04\x00\x02\x00"), Error::Block),
            (with(b"\x03\x00\x03\x00\x00\x00"), Error::Block),
            (with(b"\x03\x00\x00"), Error::Block),
            (with(b"\x03\x00\x04\x00\x00\x00\x00"), Error::Checksum),
        ] {
            assert_eq!(receive(&bytes).done, Err(error), "{bytes:?}");
        }
        // Without waiting for what is too long.
        long.truncate(16);
        assert_eq!(receive(&long).done, Err(Error::LongBlock(4097)));
        let most = v2(0x20, 0x00, &[0; PROXY_V2_BLOCK_BYTES_MAX]);
        assert_eq!(run(|_| ExpectHeader, &[&most]).done, Ok(Some(Header::Unknown)));
    }

    /// CRC-32C bit by bit, to be another hand than the crate's.
    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(
                crc ^ u32::from(*byte),
                |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 },
            )
        })
    }

    #[test]
    fn a_checksum_is_checked_over_the_whole_header() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of the catalogue");
        let attributes = b"\x04\x00\x01\xaa\x03\x00\x04\x00\x00\x00\x00\xea\x00\x01\xbb";
        let mut bytes = v2(0x21, 0x11, &[V4_BLOCK, attributes].concat());
        let at = bytes.len() - 8;
        let sum = crc32c(&bytes).to_be_bytes();
        bytes[at..at + 4].copy_from_slice(&sum);
        assert_eq!(receive(&bytes).done, Ok(Some(proxied("192.0.2.1:56324", "192.0.2.11:443"))));
        for place in 16..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                let outcome = run(|_| ExpectHeader, &[&flipped]).done;
                // A flip in the checksum's own head makes it another attribute, and that is no checksum.
                if !(at - 3..at).contains(&place) && place != 28 + 1 && place != 28 + 2 {
                    assert!(outcome.is_err(), "place {place}, bit {bit}: {outcome:?}");
                }
            }
        }
    }

    #[test]
    fn a_split_anywhere_changes_nothing() {
        receive(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nmore");
        receive(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 4430000\r\nmore");
        receive(&[&v2(0x21, 0x11, V4_BLOCK)[..], b"more"].concat());
        receive(&[&v2(0x21, 0x11, b"too short")[..], b"more"].concat());
    }

    #[test]
    fn what_is_written_is_exact() {
        let write = |header: Header, version| {
            let mut output = Vec::new();
            header.encode(version, &mut output);
            output
        };
        let four = proxied("192.168.0.1:56324", "192.168.0.11:443");
        assert_eq!(write(four, Version::V1), b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
        let block = [192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb];
        assert_eq!(write(four, Version::V2), v2(0x21, 0x11, &block));
        let six = proxied("[2001:db8::1]:1", "[2001:db8::2]:2");
        assert_eq!(write(six, Version::V1), b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
        assert_eq!(write(six, Version::V2).len(), 16 + 36);
        assert_eq!(write(Header::Unknown, Version::V1), b"PROXY UNKNOWN\r\n");
        assert_eq!(write(Header::Unknown, Version::V2), v2(0x20, 0x00, b""));
        // One family for both, and the simpler one where both are IPv4 in truth.
        let mixed = proxied("192.0.2.1:1", "[2001:db8::2]:2");
        assert_eq!(write(mixed, Version::V1), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
        let mapped = proxied("[::ffff:192.0.2.1]:1", "192.0.2.2:2");
        assert_eq!(write(mapped, Version::V1), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, opening in 0..5_usize, cut: prop::sample::Index) {
            let openings = [
                b"".to_vec(),
                b"PROXY ".to_vec(),
                b"PROXY TCP4 1.2.3.4 ".to_vec(),
                V2_SIGNATURE.to_vec(),
                v2(0x21, 0x11, &[V4_BLOCK, b"\x03\x00\x04"].concat()),
            ];
            let mut bytes = [&openings[opening][..], &bytes].concat();
            if opening == 4 {
                let len = u16::try_from(bytes.len() - 16).unwrap().to_be_bytes();
                bytes[14..16].copy_from_slice(&len);
            }
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(run(|_| ExpectHeader, &[head, tail]), run(|_| ExpectHeader, &[&bytes]));
        }

        #[test]
        fn what_is_written_reads_as_itself(
            v4: [[u8; 4]; 2], v6: [[u8; 16]; 2], ports: [u16; 2], is_v4: bool, is_text: bool, behind: Vec<u8>,
        ) {
            let ips = if is_v4 { v4.map(IpAddr::from) } else { v6.map(IpAddr::from) };
            let [source, destination] = [0, 1].map(|end| SocketAddr::new(ips[end], ports[end]));
            let header = Header::Proxied { source, destination };
            let mut bytes = Vec::new();
            header.encode(if is_text { Version::V1 } else { Version::V2 }, &mut bytes);
            bytes.extend_from_slice(&behind);
            let outcome = run(|_| ExpectHeader, &[&bytes]);
            prop_assert_eq!(outcome.done, Ok(Some(header)));
            prop_assert_eq!(outcome.leftover, behind);
        }
    }
}
