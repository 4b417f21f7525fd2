//! A set of networks, as ranges in order: however many there are, a search is a few steps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Networks of both families. An IPv4-mapped address (RFC 4291, 2.5.5.2) is the IPv4 address that it maps, in networks and in
/// what is looked for.
///
/// Other forms that hold an IPv4 address are addresses of their own here: which targets nobody is led to, in every form, is
/// what [`umbra_proto::forbidden`] judges when an address is dialled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<Ipv4Addr>,
    v6: Ranges<Ipv6Addr>,
}

impl Networks {
    /// The set of all addresses in `networks`.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            let network = network.trunc();
            match (network.addr(), network.broadcast()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first, last)),
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                        (Some(first), Some(last)) => v4.push((first, last)),
                        (Some(_) | None, Some(_) | None) => v6.push((first, last)),
                    }
                }
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                    unreachable!("a network is of one family")
                }
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }

    /// Whether one of the networks has `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address).is_some(),
            IpAddr::V6(address) => self.v6.find(address).is_some(),
        }
    }

    /// Whether there is no network in it.
    pub fn is_empty(&self) -> bool {
        self.v4.0.is_empty() && self.v6.0.is_empty()
    }

    /// First and last address of the range that has `address`. Networks that overlap are one range.
    pub(super) fn range(&self, address: IpAddr) -> Option<(IpAddr, IpAddr)> {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address).map(|(first, last)| (first.into(), last.into())),
            IpAddr::V6(address) => self.v6.find(address).map(|(first, last)| (first.into(), last.into())),
        }
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.v4.0.len() + self.v6.0.len()
    }
}

/// First and last addresses, in order, of which none has a part of another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<A>(Box<[(A, A)]>);

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<A: Copy + Ord> Ranges<A> {
    fn new(mut ranges: Vec<(A, A)>) -> Self {
        ranges.sort_unstable();
        ranges.dedup_by(|next, before| {
            let joined = next.0 <= before.1;
            if joined {
                before.1 = before.1.max(next.1);
            }
            joined
        });
        Self(ranges.into())
    }

    fn find(&self, address: A) -> Option<(A, A)> {
        let behind = self.0.partition_point(|(first, _)| *first <= address);
        let nearest = behind.checked_sub(1).and_then(|before| self.0.get(before))?;
        (address <= nearest.1).then_some(*nearest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(texts.iter().map(|text| text.parse::<IpNet>().unwrap()))
    }

    fn has(networks: &Networks, address: &str) -> bool {
        networks.contains(address.parse().unwrap())
    }

    #[test]
    fn mapped_addresses_are_the_ones_that_they_map() {
        let set = networks(&["10.0.0.0/8", "::ffff:192.0.2.0/120"]);
        for inside in ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3", "192.0.2.255", "::ffff:192.0.2.7"] {
            assert!(has(&set, inside), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "::10.1.2.3", "192.0.3.0", "::ffff:192.0.1.255"] {
            assert!(!has(&set, outside), "{outside}");
        }
        assert!(has(&networks(&["::ffff:0:0/96"]), "203.0.113.1"));
        assert!(!has(&networks(&["::/0"]), "203.0.113.1"), "all of IPv6 is nothing of IPv4");
    }

    #[test]
    fn the_whole_of_a_family_and_single_addresses_are_networks() {
        assert!(has(&networks(&["0.0.0.0/0"]), "255.255.255.255"));
        assert!(!has(&networks(&["0.0.0.0/0"]), "::"));
        assert!(has(&networks(&["::1/128"]), "::1") && !has(&networks(&["::1/128"]), "::2"));
        assert!(networks(&[]).is_empty() && !has(&networks(&[]), "0.0.0.0"));
    }

    #[test]
    fn bits_behind_the_prefix_count_for_nothing() {
        assert!(has(&networks(&["10.9.0.32/16"]), "10.9.255.1"));
    }

    fn network() -> impl Strategy<Value = IpNet> {
        // Few bits, so that networks meet and lie in one another.
        let v4 = (0..64_u32, 0..=32_u8)
            .prop_map(|(bits, len)| (IpAddr::from(Ipv4Addr::from(bits << 26 | bits)), len));
        let v6 = (0..64_u128, 0..=128_u8)
            .prop_map(|(bits, len)| (IpAddr::from(Ipv6Addr::from(bits << 122 | bits)), len));
        let mapped = (0..64_u32, 96..=128_u8)
            .prop_map(|(bits, len)| (IpAddr::from(Ipv4Addr::from(bits << 26).to_ipv6_mapped()), len));
        prop_oneof![v4, v6, mapped].prop_map(|(address, len)| IpNet::new(address, len).unwrap())
    }

    proptest! {
        #[test]
        fn ranges_say_what_the_networks_say(set in prop::collection::vec(network(), 0..20), probes in prop::collection::vec(network(), 1..20)) {
            let ranges = Networks::new(set.iter().copied());
            for probe in probes {
                for address in [probe.addr(), probe.network(), probe.broadcast()] {
                    let plain = address.to_canonical();
                    let slow = set.iter().any(|network| {
                        let mapped = match plain {
                            IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
                            IpAddr::V6(_) => plain,
                        };
                        network.contains(&plain)
                            || network.prefix_len() >= 96 && network.contains(&mapped)
                    });
                    prop_assert_eq!(ranges.contains(address), slow, "{} in {:?}", address, set);
                }
            }
        }
    }
}
