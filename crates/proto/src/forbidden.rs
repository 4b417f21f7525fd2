//! Targets that a server does not lead to: which addresses are whose, however they are written.
//!
//! An IPv4 address has several forms in IPv6, and translators and tunnels on the way take them for what is inside. So each
//! address is judged with everything that is inside it, and one form that is forbidden is enough.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why an address is forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The machine itself.
    Loopback,
    /// "This host", for which systems put the machine itself (RFC 1122, 3.2.1.3).
    Unspecified,
    /// The services by which clouds tell a machine its secrets.
    Metadata,
    /// The link, on which only its neighbours are (RFC 3927, RFC 4291).
    LinkLocal,
    /// Many machines at once.
    Multicast,
    /// All machines of the link.
    Broadcast,
    /// Private, reserved and test networks (RFC 1918, RFC 6890).
    Private,
    /// What providers share among their customers (RFC 6598).
    Cgnat,
    /// Private networks of IPv6 (RFC 4193).
    UniqueLocal,
    /// A list of the operator's own.
    Listed,
    /// A name of which only who resolves it can say what it stands for: letters beyond ASCII are made others, some digits and dots (UTS 46).
    BeyondAscii,
}

/// What is forbidden, and what is exempt from that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forbidden {
    ranges: Vec<(Rule, IpNet)>,
    listed: Networks,
    exempt: Networks,
}

impl Forbidden {
    /// Nothing at all.
    pub const NOTHING: Self = Self { ranges: Vec::new(), listed: Networks::NONE, exempt: Networks::NONE };

    /// What no client of a server has business with: the server's machine, its links, and the services of its cloud.
    pub fn standard() -> Self {
        Self { ranges: STANDARD.to_vec(), ..Self::NOTHING }
    }

    /// These networks in place of all others.
    pub fn listed(networks: Vec<IpNet>) -> Self {
        Self { listed: Networks::new(networks), ..Self::NOTHING }
    }

    /// Private networks of all kinds as well.
    #[must_use]
    pub fn with_private(mut self) -> Self {
        self.ranges.extend_from_slice(PRIVATE);
        self
    }

    /// All of it but these networks. One of IPv4 exempts all forms of its addresses.
    #[must_use]
    pub fn except(self, networks: Vec<IpNet>) -> Self {
        Self { exempt: Networks::new(networks), ..self }
    }

    /// The rule that forbids `address`, if one does.
    pub fn check(&self, address: IpAddr) -> Option<Rule> {
        let inside = match address {
            IpAddr::V4(_) => [None; FORMS_MAX],
            IpAddr::V6(address) => inside(address),
        };
        let forms = std::iter::once(address).chain(inside.into_iter().flatten().map(IpAddr::V4));
        forms.into_iter().find_map(|form| self.rule_of(form).or_else(|| self.rule_of(where_it_leads(form)?)))
    }

    /// The rule that forbids `name` as far as that can be told without asking anybody: names that stand for this machine or for its
    /// cloud's secrets everywhere, and numbers that resolvers take for an address. For whoever passes names on to be resolved elsewhere.
    /// Names beyond ASCII cannot be told from these, and their other form, `xn--…`, is what programs ask for.
    pub fn check_name(&self, name: &str) -> Option<Rule> {
        if self.is_empty() {
            return None;
        }
        if !name.is_ascii() {
            return Some(Rule::BeyondAscii);
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        let last = name.rsplit('.').next().unwrap_or(name);
        let stands_for = |ip: IpAddr| self.check(ip);
        if last.eq_ignore_ascii_case("localhost")
            || LOCAL_NAMES.iter().any(|alias| name.eq_ignore_ascii_case(alias))
        {
            return stands_for(Ipv4Addr::LOCALHOST.into()).or_else(|| stands_for(Ipv6Addr::LOCALHOST.into()));
        }
        if is_of_metadata(name) {
            return stands_for(Ipv4Addr::new(169, 254, 169, 254).into());
        }
        stands_for(numbers(name)?.into())
    }

    /// The networks of a machine and its cloud that [`Forbidden::standard`] has and that are reached here, in part at least, without being
    /// exempt: for a warning, where a list has taken the place of the standard one.
    pub fn missing_of_standard(&self) -> impl Iterator<Item = (Rule, IpNet)> {
        let own = STANDARD.iter().copied().filter(|(rule, _)| match rule {
            Rule::Loopback | Rule::Metadata | Rule::LinkLocal => true,
            Rule::Unspecified
            | Rule::Multicast
            | Rule::Broadcast
            | Rule::Private
            | Rule::Cgnat
            | Rule::UniqueLocal
            | Rule::Listed
            | Rule::BeyondAscii => false,
        });
        own.filter(|(_, network)| {
            let ends = [network.network(), network.broadcast()];
            !ends.into_iter().all(|end| self.exempt.contains(end) || self.check(end).is_some())
        })
    }

    /// Whether nothing is forbidden at all.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.listed.0.is_empty()
    }

    fn rule_of(&self, form: IpAddr) -> Option<Rule> {
        let range = self.ranges.iter().find(|(_, network)| network.contains(&form));
        let rule =
            range.map(|(rule, _)| *rule).or_else(|| self.listed.contains(form).then_some(Rule::Listed));
        rule.filter(|_| !self.exempt.contains(form))
    }
}

/// What files of hosts call the machine itself beside the `localhost` that RFC 6761 reserves.
const LOCAL_NAMES: [&str; 7] = [
    "localhost.localdomain",
    "localhost4",
    "localhost4.localdomain4",
    "localhost6",
    "localhost6.localdomain6",
    "ip6-localhost",
    "ip6-loopback",
];

/// What clouds call the service that tells a machine its secrets.
const METADATA_NAMES: [&str; 3] = ["metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"];

/// The first labels of these, which the search domains of such a machine complete.
const METADATA_LABELS: [&str; 2] = ["metadata", "instance-data"];

/// Where EC2 has its names in all regions but the first: `instance-data.eu-west-1.compute.internal`.
const EC2_REGIONS: &str = ".compute.internal";

fn is_of_metadata(name: &str) -> bool {
    let is_among = |known: &[&str]| known.iter().any(|known| name.eq_ignore_ascii_case(known));
    let (first, rest) = name.split_at(name.find('.').unwrap_or(name.len()));
    is_among(&METADATA_NAMES)
        || is_among(&METADATA_LABELS)
        || first.eq_ignore_ascii_case("instance-data") && rest.to_ascii_lowercase().ends_with(EC2_REGIONS)
}

/// Where systems connect to instead of the unspecified address (RFC 1122, 3.2.1.3).
fn where_it_leads(form: IpAddr) -> Option<IpAddr> {
    form.is_unspecified().then(|| match form {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    })
}

/// The address that `text` is in the manner of `inet_aton`: one to four numbers, of which the last fills what the others leave, each decimal,
/// octal after `0` or hexadecimal after `0x`.
fn numbers(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').take(5).map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 0xff) {
        return None;
    }
    let bits = 8 * u32::try_from(4 - first.len()).ok()?;
    if u64::from(*last) >= 1 << bits {
        return None;
    }
    let high = (0..).zip(first).fold(0, |high, (place, part)| high | part << (24 - 8 * place));
    Some(Ipv4Addr::from(high | last))
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix('0') {
        None | Some("") => (text, 10),
        Some(rest) => match rest.strip_prefix(['x', 'X']) {
            Some(hex) => (hex, 16),
            None => (rest, 8),
        },
    };
    // What is parsed may have a sign.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, radix).ok())?
}

/// Networks of which none lies in another, in order, so that long lists are searched fast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Networks(Vec<IpNet>);

impl Networks {
    const NONE: Self = Self(Vec::new());

    fn new(networks: Vec<IpNet>) -> Self {
        let mut networks = networks.into_iter().map(plain).collect::<Vec<_>>();
        networks.sort_unstable();
        networks.dedup_by(|inner, outer| outer.contains(&*inner));
        Self(networks)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let behind = self.0.partition_point(|network| network.addr() <= address);
        let nearest = behind.checked_sub(1).and_then(|before| self.0.get(before));
        nearest.is_some_and(|network| network.contains(&address))
    }
}

/// A network by its first address. One that is inside the IPv4-mapped addresses is a network of IPv4.
fn plain(network: IpNet) -> IpNet {
    let network = network.trunc();
    let (IpAddr::V6(address), Some(len)) = (network.addr(), network.prefix_len().checked_sub(MAPPED_BITS))
    else {
        return network;
    };
    match address.to_ipv4_mapped() {
        // All of them at once is rather a form that is forbidden than all of IPv4.
        Some(address) if len > 0 => IpNet::new(address.into(), len).unwrap_or(network),
        Some(_) | None => network,
    }
}

/// The IPv4 addresses that `address` may be taken for.
///
/// ```text
///  0      2      4      6      8     10     12     14     16
/// ┌──────┬──────┬──────┬──────┬──────┬──────┬──────┬──────┐
/// │                    0                    │     IPv4    │ compatible (RFC 4291, 2.5.5.1)
/// │                    0             │ FFFF │     IPv4    │ mapped (RFC 4291, 2.5.5.2)
/// │                    0      │ FFFF │   0  │     IPv4    │ translated (RFC 2765, 2.1)
/// │ 0064 │ FF9B │             0             │     IPv4    │ NAT64 (RFC 6052, 2.1)
/// │ 0064 │ FF9B │ 0001 │       as the translator likes    │ NAT64 of a site (RFC 8215)
/// │ 2002 │     IPv4    │               any               │ 6to4 (RFC 3056, 2)
/// │ 2001 │   0  │    server   │     any     │  IPv4 ⊕ 1s  │ Teredo (RFC 4380, 4)
/// │            any            │ 0|200│ 5EFE │     IPv4    │ ISATAP (RFC 5214, 6.1)
/// └──────┴──────┴──────┴──────┴──────┴──────┴──────┴──────┘
/// ```
fn inside(address: Ipv6Addr) -> [Option<Ipv4Addr>; FORMS_MAX] {
    let octets = address.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    let last = at([12, 13, 14, 15]);
    let [first, second, third, fourth] = match address.segments() {
        // The unspecified address and the loopback's have the form of compatible ones, and are none.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 4],
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            [Some(last), None, None, None]
        }
        // A translator's prefix may have 48, 56, 64 or 96 bits, and octet 8 is skipped (RFC 6052, 2.2). What comes out as
        // 0.0.0.0/8 is the padding of another length, and leads nowhere behind a translator.
        [0x64, 0xff9b, 1, ..] => [at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12]), last]
            .map(|address| Some(address).filter(|address| address.octets()[0] != 0)),
        [0x2002, ..] => [Some(at([2, 3, 4, 5])), None, None, None],
        [0x2001, 0, ..] => [Some(at([4, 5, 6, 7])), Some(Ipv4Addr::from_bits(!last.to_bits())), None, None],
        _ => [None; 4],
    };
    let isatap = matches!(address.segments(), [.., 0 | 0x200, 0x5efe, _, _]).then_some(last);
    [first, second, third, fourth, isatap]
}

const FORMS_MAX: usize = 5;

/// The bits before an IPv4 address in its mapped form.
const MAPPED_BITS: u8 = 96;

/// The first that fits names the rule.
const STANDARD: &[(Rule, IpNet)] = &[
    (Rule::Loopback, v4([127, 0, 0, 0], 8)),
    (Rule::Loopback, v6([0, 0, 0, 0, 0, 0, 0, 1], 128)),
    (Rule::Unspecified, v4([0, 0, 0, 0], 8)),
    (Rule::Unspecified, v6([0; 8], 128)),
    // Most clouds, and what containers get in ECS and EKS.
    (Rule::Metadata, v4([169, 254, 169, 254], 32)),
    (Rule::Metadata, v4([169, 254, 170, 2], 32)),
    (Rule::Metadata, v4([169, 254, 170, 23], 32)),
    // AWS: IMDS, EKS and all else that it has in a machine.
    (Rule::Metadata, v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32)),
    // Google Cloud.
    (Rule::Metadata, v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128)),
    // Azure's WireServer.
    (Rule::Metadata, v4([168, 63, 129, 16], 32)),
    // Alibaba Cloud.
    (Rule::Metadata, v4([100, 100, 100, 200], 32)),
    (Rule::Metadata, v6([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200], 128)),
    // Oracle Cloud.
    (Rule::Metadata, v4([192, 0, 0, 192], 32)),
    (Rule::Metadata, v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128)),
    // Scaleway.
    (Rule::Metadata, v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128)),
    // Akamai, once Linode.
    (Rule::Metadata, v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], 128)),
    (Rule::LinkLocal, v4([169, 254, 0, 0], 16)),
    (Rule::LinkLocal, v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10)),
    (Rule::Multicast, v4([224, 0, 0, 0], 4)),
    (Rule::Multicast, v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8)),
    (Rule::Broadcast, v4([255, 255, 255, 255], 32)),
];

/// What a network of one's own may have behind it.
const PRIVATE: &[(Rule, IpNet)] = &[
    (Rule::Private, v4([10, 0, 0, 0], 8)),
    (Rule::Private, v4([172, 16, 0, 0], 12)),
    (Rule::Private, v4([192, 168, 0, 0], 16)),
    (Rule::Private, v4([192, 0, 0, 0], 24)),
    (Rule::Private, v4([198, 18, 0, 0], 15)),
    (Rule::Private, v4([240, 0, 0, 0], 4)),
    // What came before unique local addresses (RFC 3879).
    (Rule::Private, v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10)),
    (Rule::Cgnat, v4([100, 64, 0, 0], 10)),
    (Rule::UniqueLocal, v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7)),
];

const fn v4([a, b, c, d]: [u8; 4], len: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), len)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], len: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), len)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback",
            Self::Unspecified => "unspecified",
            Self::Metadata => "cloud metadata",
            Self::LinkLocal => "link-local",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Private => "private",
            Self::Cgnat => "CGNAT",
            Self::UniqueLocal => "unique local",
            Self::Listed => "forbidden_ip",
            Self::BeyondAscii => "name beyond ASCII",
        })
    }
}

#[cfg(test)]
#[path = "tests/forbidden.rs"]
mod tests;
