//! Addresses from one to another: `A`, `A-B` and `A/LEN`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// Addresses of one family, both ends included; the first is never behind the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    V4(RangeInclusive<Ipv4Addr>),
    V6(RangeInclusive<Ipv6Addr>),
}

/// Why text is no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeError {
    /// An address is missing: `A -`.
    Missing,
    /// One of the forms of `inet_aton`: `1.2.3`, `0x7f.1`, `010.0.0.1`.
    Short,
    /// Something that is no address.
    NotAddress,
    /// The length behind the slash is none.
    PrefixLen,
    /// One end is IPv4 and the other IPv6.
    Families,
    /// The last address is before the first.
    Backwards,
}

impl Range {
    /// The one address.
    pub(crate) fn single(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address..=address),
            IpAddr::V6(address) => Self::V6(address..=address),
        }
    }

    /// The fewest networks that together are this range, in order.
    pub(crate) fn networks(&self) -> Vec<IpNet> {
        match self {
            Self::V4(range) => Ipv4Subnets::new(*range.start(), *range.end(), 0).map(IpNet::V4).collect(),
            Self::V6(range) => Ipv6Subnets::new(*range.start(), *range.end(), 0).map(IpNet::V6).collect(),
        }
    }

    fn between(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        // IPv4 addresses in the form of IPv6 are IPv4 to whoever asks.
        let range = match (first.to_canonical(), last.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Self::V4(first..=last),
            _ => match (first, last) {
                (IpAddr::V6(first), IpAddr::V6(last)) => Self::V6(first..=last),
                _ => return Err(RangeError::Families),
            },
        };
        let is_empty = match &range {
            Self::V4(range) => range.is_empty(),
            Self::V6(range) => range.is_empty(),
        };
        if is_empty { Err(RangeError::Backwards) } else { Ok(range) }
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        if let Some((address, len)) = text.split_once('/') {
            let address = read_address(address)?;
            let is_number = len.bytes().all(|byte| byte.is_ascii_digit());
            let len = len.parse().ok().filter(|_| is_number).ok_or(RangeError::PrefixLen)?;
            // Bits behind the prefix are left aside, as Traffic Server does.
            let network = IpNet::new(address, len).map_err(|_| RangeError::PrefixLen)?;
            return Self::between(network.network(), network.broadcast());
        }
        match text.split_once('-') {
            Some((first, last)) => Self::between(read_address(first)?, read_address(last)?),
            None => read_address(text).map(Self::single),
        }
    }
}

fn read_address(text: &str) -> Result<IpAddr, RangeError> {
    let text = text.trim_matches(super::is_blank);
    if text.is_empty() {
        return Err(RangeError::Missing);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let of_numbers = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | 'x' | 'X');
    let is_short = bare.chars().all(of_numbers) && is_number_like(bare);
    bare.parse().map_err(|_| if is_short { RangeError::Short } else { RangeError::NotAddress })
}

/// Whether `inet_aton` could take `text` for an address: its last part is a number. A name never ends so.
pub(crate) fn is_number_like(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or(text);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(range) => write!(f, "{}-{}", range.start(), range.end()),
            Self::V6(range) => write!(f, "{}-{}", range.start(), range.end()),
        }
    }
}

/// What is wrong, and the remedy.
impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => {
                "an address is missing; write one like 10.0.0.1, or a range like 10.0.0.1-10.0.0.9"
            }
            Self::Short => {
                "is read in several ways; write all four numbers, 0 to 255, in decimal without zeros in front"
            }
            Self::NotAddress => "is no address; write one like 10.0.0.1 or 2001:db8::1",
            Self::PrefixLen => "wants a length behind the slash, 0 to 32 for IPv4 and 0 to 128 for IPv6",
            Self::Families => "goes from one address family to the other; write a range for each",
            Self::Backwards => "ends before it begins; write the lower address first",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(text: &str) -> Vec<String> {
        text.parse::<Range>().unwrap().networks().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn single_addresses_ranges_and_networks_of_both_families_read() {
        assert_eq!(networks("10.0.0.1"), ["10.0.0.1/32"]);
        assert_eq!(networks("10.0.0.0-10.255.255.255"), ["10.0.0.0/8"]);
        assert_eq!(
            networks("10.0.0.1 - 10.0.0.6"),
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]
        );
        assert_eq!(networks("10.1.2.3/8"), ["10.0.0.0/8"]);
        assert_eq!(networks("0.0.0.0-255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(networks("0.0.0.0/0"), ["0.0.0.0/0"]);
        assert_eq!(networks("255.255.255.255"), ["255.255.255.255/32"]);
        assert_eq!(networks("255.255.255.254-255.255.255.255"), ["255.255.255.254/31"]);
        assert_eq!(networks("2001:db8::/32"), ["2001:db8::/32"]);
        assert_eq!(networks("[2001:db8::1]-[2001:db8::2]"), ["2001:db8::1/128", "2001:db8::2/128"]);
        assert_eq!(networks("::/0"), ["::/0"]);
        assert_eq!(networks("::ffff:10.0.0.0-10.0.0.255"), ["10.0.0.0/24"]);
        assert_eq!(networks("::ffff:10.0.0.0/104"), ["10.0.0.0/8"]);
    }

    #[test]
    fn each_way_of_being_wrong_is_told_apart() {
        for (text, error) in [
            ("", RangeError::Missing),
            ("10.0.0.1 -", RangeError::Missing),
            ("10.0.0.1-", RangeError::Missing),
            ("-10.0.0.1", RangeError::Missing),
            ("/8", RangeError::Missing),
            ("1.2.3", RangeError::Short),
            ("1.2.3/8", RangeError::Short),
            ("16909060", RangeError::Short),
            ("0x7f.1", RangeError::Short),
            ("0x7f000001", RangeError::Short),
            ("010.0.0.1", RangeError::Short),
            ("10.0.0.256", RangeError::Short),
            ("localhost", RangeError::NotAddress),
            ("10.0.0.1:80", RangeError::NotAddress),
            ("10.0.0.1-10.0.0.2-10.0.0.3", RangeError::NotAddress),
            ("10.0.0.0/8-10.0.0.1", RangeError::PrefixLen),
            ("10.0.0.1--10.0.0.2", RangeError::NotAddress),
            ("fe80::1%1", RangeError::NotAddress),
            ("[::1", RangeError::NotAddress),
            ("10.0.0.0/33", RangeError::PrefixLen),
            ("10.0.0.0/+8", RangeError::PrefixLen),
            ("10.0.0.0/", RangeError::PrefixLen),
            ("::/129", RangeError::PrefixLen),
            ("10.0.0.1-::1", RangeError::Families),
            ("10.0.0.9-10.0.0.1", RangeError::Backwards),
            ("::2-::1", RangeError::Backwards),
        ] {
            assert_eq!(text.parse::<Range>(), Err(error), "{text}");
        }
    }

    /// Halves the network until every piece is inside or outside.
    fn naive(network: IpNet, first: IpAddr, last: IpAddr, found: &mut Vec<IpNet>) {
        if network.broadcast() < first || network.network() > last {
            return;
        }
        if network.network() >= first && network.broadcast() <= last {
            return found.push(network);
        }
        for half in network.subnets(network.prefix_len() + 1).unwrap() {
            naive(half, first, last, found);
        }
    }

    fn ends() -> impl Strategy<Value = (IpAddr, IpAddr)> {
        let near = any::<(u32, u8)>().prop_map(|(at, len)| (at, at.saturating_add(len.into())));
        let four = prop_oneof![any::<(u32, u32)>(), near, any::<u32>().prop_map(|at| (at, u32::MAX))]
            .prop_map(|(a, b)| (Ipv4Addr::from_bits(a).into(), Ipv4Addr::from_bits(b).into()));
        let six = prop_oneof![any::<(u128, u128)>(), any::<u128>().prop_map(|at| (at, u128::MAX))]
            .prop_map(|(a, b)| (Ipv6Addr::from_bits(a).into(), Ipv6Addr::from_bits(b).into()));
        prop_oneof![four, six]
    }

    proptest! {
        #[test]
        fn a_range_is_split_as_halving_would((a, b) in ends()) {
            let (first, last): (IpAddr, IpAddr) = (a.min(b), a.max(b));
            let range = format!("{first}-{last}").parse::<Range>().unwrap();
            let everything = if first.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            let mut expected = Vec::new();
            naive(everything.parse().unwrap(), first, last, &mut expected);
            prop_assert_eq!(range.networks(), expected);
            prop_assert_eq!(range.to_string().parse::<Range>(), Ok(range));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String, near in "[0-9a-f.:/ \\[\\]-]{0,40}") {
            let _ = text.parse::<Range>();
            let _ = near.parse::<Range>().map(|range| range.networks());
        }
    }
}
