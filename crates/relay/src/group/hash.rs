//! Numbers out of names and addresses: the same in every process, so that a source meets the same member after a restart.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use umbra_proto::address::Address;

/// A number for some bytes (FNV-1a, then mixed).
pub(super) fn of_bytes(bytes: impl IntoIterator<Item = u8>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    mix(bytes.into_iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME)))
}

/// Spreads a number over all bits (the last step of SplitMix64); no two numbers come to the same.
pub(super) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A number for a target's host, whatever its port and however a name's letters are written.
pub(super) fn of_target(target: &Address) -> u64 {
    match target {
        Address::Ip(address) => of_ip(address.ip().to_canonical()),
        Address::Name(name, _) => of_bytes(name.as_str().bytes().map(|byte| byte.to_ascii_lowercase())),
    }
}

/// A number for a source.
pub(super) fn of_source(source: IpAddr) -> u64 {
    of_ip(canonical(source))
}

/// A source as it is remembered. A client's IPv6 addresses change within its network (RFC 8981), so the network stands for it.
pub(super) fn canonical(source: IpAddr) -> IpAddr {
    const NETWORK: u128 = u128::MAX << 64;
    match source.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into(),
    }
}

/// How much a member is meant for `seed`: whoever has the most is chosen, so a member that goes takes only its own share with it
/// (rendezvous hashing, with the weights of Schindelhauer and Schomaker).
pub(super) fn affinity(seed: u64, key: u64, weight: NonZeroU16) -> f64 {
    const STEPS: f64 = (1_u64 << 53) as f64;
    let between_nought_and_one = ((mix(seed ^ key) >> 11) as f64 + 0.5) / STEPS;
    -f64::from(weight.get()) / between_nought_and_one.ln()
}

fn of_ip(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => of_bytes(ip.octets()),
        IpAddr::V6(ip) => of_bytes(ip.octets()),
    }
}
