//! What is forbidden, in every form that it has.

use super::*;
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Every form in IPv6 of an IPv4 address; `noise` is what a form leaves open.
fn forms(address: Ipv4Addr, noise: u128) -> Vec<IpAddr> {
    let v4 = u128::from(address.to_bits());
    let open = |bits: u128, mask: u128| bits | (noise & mask);
    let forms = [
        0xffff << 32 | v4,
        v4,
        0xffff << 48 | v4,
        0x0064_ff9b << 96 | v4,
        // A site's translator, whose prefix has 96, 64, 56 and 48 bits.
        open(0x0064_ff9b_0001 << 80 | v4, 0x00ff_ffff_ffff << 32),
        open(0x0064_ff9b_0001 << 80 | v4 << 24, 0xffff << 64 | 0xff << 56 | 0x00ff_ffff),
        open(
            0x0064_ff9b_0001 << 80 | (v4 >> 24) << 64 | (v4 & 0x00ff_ffff) << 32,
            0xff << 72 | 0xff << 56 | 0xffff_ffff,
        ),
        open(0x0064_ff9b_0001 << 80 | (v4 >> 16) << 64 | (v4 & 0xffff) << 40, 0xff << 56 | 0xff_ffff_ffff),
        open(0x2002 << 112 | v4 << 80, (1 << 80) - 1),
        open(0x2001_0000 << 96 | v4 << 64, (1 << 64) - 1),
        open(0x2001_0000 << 96 | (v4 ^ 0xffff_ffff), 0xffff_ffff_ffff_ffff << 32),
        open(0x5efe << 32 | v4, 0xffff_ffff_ffff_ffff << 64 | 0x0200 << 48),
    ];
    forms.into_iter().map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))).collect()
}

#[test]
fn what_no_client_has_business_with_is_forbidden_by_default() {
    let table = [
        ("127.0.0.1", Rule::Loopback),
        ("127.255.255.255", Rule::Loopback),
        ("::1", Rule::Loopback),
        ("0.0.0.0", Rule::Unspecified),
        ("0.1.2.3", Rule::Unspecified),
        ("::", Rule::Unspecified),
        ("169.254.0.1", Rule::LinkLocal),
        ("169.254.42.42", Rule::LinkLocal),
        ("fe80::1", Rule::LinkLocal),
        ("febf:ffff::1", Rule::LinkLocal),
        ("169.254.169.254", Rule::Metadata),
        ("169.254.170.2", Rule::Metadata),
        ("fd00:ec2::254", Rule::Metadata),
        ("fd00:ec2::23", Rule::Metadata),
        ("fd20:ce::254", Rule::Metadata),
        ("fd00:c1::a9fe:a9fe", Rule::Metadata),
        ("fd00:42::42", Rule::Metadata),
        ("fd00:a9fe:a9fe::1", Rule::Metadata),
        ("fd00:100::100:200", Rule::Metadata),
        ("100.100.100.200", Rule::Metadata),
        ("168.63.129.16", Rule::Metadata),
        ("192.0.0.192", Rule::Metadata),
        ("224.0.0.1", Rule::Multicast),
        ("239.255.255.250", Rule::Multicast),
        ("ff02::1", Rule::Multicast),
        ("255.255.255.255", Rule::Broadcast),
    ];
    for (text, rule) in table {
        assert_eq!(Forbidden::standard().check(ip(text)), Some(rule), "{text}");
        assert_eq!(Forbidden::NOTHING.check(ip(text)), None, "{text}");
    }
}

#[test]
fn every_way_past_the_list_that_was_ever_found_is_closed() {
    let table = [
        ("0.0.0.0", Rule::Unspecified),
        ("::", Rule::Unspecified),
        ("::ffff:127.0.0.1", Rule::Loopback),
        ("::ffff:0.0.0.0", Rule::Unspecified),
        ("::127.0.0.1", Rule::Loopback),
        ("::ffff:7f00:2", Rule::Loopback),
        ("::ffff:0:127.0.0.1", Rule::Loopback),
        ("64:ff9b::127.0.0.1", Rule::Loopback),
        ("64:ff9b::169.254.169.254", Rule::Metadata),
        ("64:ff9b:1::127.0.0.1", Rule::Loopback),
        ("64:ff9b:1:fffe::169.254.169.254", Rule::Metadata),
        ("64:ff9b:1:7f00:0:100::", Rule::Loopback),
        ("2002:7f00:1::", Rule::Loopback),
        ("2002:a9fe:a9fe::1", Rule::Metadata),
        ("2001:0:7f00:1::1", Rule::Loopback),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", Rule::Loopback),
        ("2001:db8::5efe:127.0.0.1", Rule::Loopback),
        ("2001:db8::200:5efe:7f00:1", Rule::Loopback),
        ("::ffff:224.0.0.1", Rule::Multicast),
        ("::ffff:255.255.255.255", Rule::Broadcast),
    ];
    for (text, rule) in table {
        assert_eq!(Forbidden::standard().check(ip(text)), Some(rule), "{text}");
    }
}

#[test]
fn what_is_public_is_reached_in_every_form() {
    let all = Forbidden::standard().with_private();
    for text in [
        "1.1.1.1",
        "8.8.8.8",
        "128.0.0.1",
        "126.255.255.255",
        "169.253.1.1",
        "172.32.0.1",
        "172.15.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "192.167.0.1",
        "11.0.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450:4001:81c::200e",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::8.8.8.8",
        "2002:808:808::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "64:ff9b:1:808:8:800::",
    ] {
        assert_eq!(all.check(ip(text)), None, "{text}");
    }
}

#[test]
fn private_networks_are_forbidden_where_it_is_asked_for() {
    let table = [
        ("10.0.0.1", Rule::Private),
        ("172.16.0.1", Rule::Private),
        ("172.31.255.255", Rule::Private),
        ("192.168.1.1", Rule::Private),
        ("198.18.0.1", Rule::Private),
        ("192.0.0.8", Rule::Private),
        ("240.0.0.1", Rule::Private),
        ("fec0::1", Rule::Private),
        ("100.64.0.1", Rule::Cgnat),
        ("100.127.255.255", Rule::Cgnat),
        ("fc00::1", Rule::UniqueLocal),
        ("fdff::1", Rule::UniqueLocal),
        ("::ffff:10.0.0.1", Rule::Private),
        ("64:ff9b::192.168.1.1", Rule::Private),
        ("2002:a00:1::", Rule::Private),
    ];
    for (text, rule) in table {
        assert_eq!(Forbidden::standard().check(ip(text)), None, "{text}");
        assert_eq!(Forbidden::standard().with_private().check(ip(text)), Some(rule), "{text}");
        assert_eq!(Forbidden::listed(vec![]).with_private().check(ip(text)), Some(rule), "{text}");
    }
    let all = Forbidden::standard().with_private();
    assert_eq!(all.check(ip("100.100.100.200")), Some(Rule::Metadata), "the narrower rule is named");
}

#[test]
fn a_list_takes_the_place_of_the_standard_one_and_knows_all_forms() {
    let list = Forbidden::listed(networks(&["192.0.2.7/24", "192.0.2.0/28", "2001:db8::/32", "10.0.0.1/32"]));
    for text in ["192.0.2.255", "::ffff:192.0.2.1", "64:ff9b::192.0.2.1", "2001:db8:ffff::1", "10.0.0.1"] {
        assert_eq!(list.check(ip(text)), Some(Rule::Listed), "{text}");
    }
    for text in
        ["192.0.1.255", "192.0.3.0", "10.0.0.0", "10.0.0.2", "127.0.0.1", "2001:db7::1", "2001:db9::1"]
    {
        assert_eq!(list.check(ip(text)), None, "{text}");
    }
}

#[test]
fn mapped_networks_mean_those_of_ipv4_and_their_whole_range_is_only_a_form() {
    let list = Forbidden::listed(networks(&["::ffff:10.0.0.0/104"]));
    assert_eq!(list.check(ip("10.1.2.3")), Some(Rule::Listed));
    assert_eq!(list.check(ip("::ffff:10.1.2.3")), Some(Rule::Listed));
    let form = Forbidden::listed(networks(&["::ffff:0:0/96"]));
    assert_eq!(form.check(ip("::ffff:8.8.8.8")), Some(Rule::Listed));
    assert_eq!(form.check(ip("8.8.8.8")), None);
    let all = Forbidden::listed(networks(&["::/0"]));
    assert_eq!(all.check(ip("::ffff:8.8.8.8")), Some(Rule::Listed));
    assert_eq!(all.check(ip("8.8.8.8")), None);
}

#[test]
fn an_exemption_holds_for_all_forms_of_its_addresses_and_for_no_others() {
    let mostly =
        Forbidden::standard().with_private().except(networks(&["127.0.0.1/32", "10.1.0.0/16", "::1/128"]));
    for text in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::10.1.2.3", "10.1.0.1", "::1"] {
        assert_eq!(mostly.check(ip(text)), None, "{text}");
    }
    for text in ["127.0.0.2", "10.2.0.1", "0.0.0.0", "::"] {
        assert!(mostly.check(ip(text)).is_some(), "{text}");
    }
    // What is inside an exempt IPv6 network stays what it is.
    let tunnels = Forbidden::standard().except(networks(&["::/0"]));
    assert_eq!(tunnels.check(ip("::ffff:127.0.0.1")), Some(Rule::Loopback));
    assert_eq!(tunnels.check(ip("2002:7f00:1::")), Some(Rule::Loopback));
    assert_eq!(tunnels.check(ip("::1")), None);
}

proptest! {
    #[test]
    fn no_form_of_a_forbidden_address_gets_through(
        place in 0..STANDARD.len() + PRIVATE.len(), offset: u32, noise: u128,
    ) {
        let all = Forbidden::standard().with_private();
        let (_, network) = STANDARD.iter().chain(PRIVATE).nth(place).unwrap();
        let IpNet::V4(network) = network else { return Ok(()) };
        let address = Ipv4Addr::from_bits(network.addr().to_bits() | (offset & network.hostmask().to_bits()));
        prop_assert!(all.check(address.into()).is_some(), "{}", address);
        for (at, form) in forms(address, noise).into_iter().enumerate() {
            // What has the form of padding is padding, and two compatible forms are addresses of their own.
            let padding = (4..8).contains(&at) && address.octets()[0] == 0;
            prop_assert!(padding || all.check(form).is_some(), "{} as {}", address, form);
        }
    }

    #[test]
    fn no_spelling_of_a_loopback_address_gets_through(host in 0..0x0100_0000_u32, noise: u128) {
        let address = Ipv4Addr::from_bits(0x7f00_0000 | host);
        prop_assert_eq!(Forbidden::standard().check(address.into()), Some(Rule::Loopback));
        for form in forms(address, noise) {
            prop_assert!(Forbidden::standard().check(form).is_some(), "{} as {}", address, form);
        }
    }

    #[test]
    fn a_list_of_any_order_and_overlap_says_what_its_entries_say(
        entries in proptest::collection::vec((any::<u32>(), 0..=32_u8), 0..40), address: u32,
    ) {
        let networks: Vec<IpNet> = entries
            .into_iter()
            // Few enough addresses that entries meet.
            .map(|(bits, len)| IpNet::new(Ipv4Addr::from_bits(bits & 0xf000_00ff).into(), len).unwrap())
            .collect();
        let address = IpAddr::V4(Ipv4Addr::from_bits(address & 0xf000_00ff));
        let expected = networks.iter().any(|network| network.contains(&address));
        prop_assert_eq!(Forbidden::listed(networks).check(address).is_some(), expected);
    }
}

#[test]
fn a_name_that_stands_for_an_address_is_judged_by_it() {
    let standard = Forbidden::standard();
    for (name, rule) in [
        ("localhost", Rule::Loopback),
        ("LocalHost.", Rule::Loopback),
        ("anything.localhost", Rule::Loopback),
        ("ip6-loopback", Rule::Loopback),
        ("127.1", Rule::Loopback),
        ("127.0.1", Rule::Loopback),
        ("2130706433", Rule::Loopback),
        ("0x7f000001", Rule::Loopback),
        ("0X7F.0.0.0x1", Rule::Loopback),
        ("017700000001", Rule::Loopback),
        ("0177.0.0.01", Rule::Loopback),
        ("0", Rule::Unspecified),
        ("localhost.localdomain", Rule::Loopback),
        ("Localhost4", Rule::Loopback),
        ("localhost6.localdomain6.", Rule::Loopback),
        ("１２７.0.0.1", Rule::BeyondAscii),
        ("127。0。0。1", Rule::BeyondAscii),
        ("ⓛocalhost", Rule::BeyondAscii),
        ("bücher.example", Rule::BeyondAscii),
        ("metadata.google.internal", Rule::Metadata),
        ("2852039166", Rule::Metadata),
        ("169.254.43518", Rule::Metadata),
        ("0xa9fea9fe.", Rule::Metadata),
    ] {
        assert_eq!(standard.check_name(name), Some(rule), "{name}");
        assert_eq!(Forbidden::NOTHING.check_name(name), None, "{name}");
    }
    for name in [
        "",
        ".",
        "example.com",
        "localhost.example",
        "notlocalhost",
        "1.2.3.4.5",
        "127.0.0.256",
        "256.1.1.1",
        "4294967296",
        "0x1ffffffff",
        "127.0.65536",
        "08",
        "-1",
        "+127.1",
        "0x",
        "1..2",
        "127.0.0.1.example",
        "8.8.8.8",
        "a.b.c.d",
        "xn--bcher-kva.example",
    ] {
        assert_eq!(standard.check_name(name), None, "{name}");
    }
    let exempt = Forbidden::standard().except(networks(&["127.0.0.0/8", "::1/128"]));
    assert_eq!(exempt.check_name("localhost"), None);
}

#[test]
fn the_unspecified_address_is_judged_as_the_loopback_that_systems_make_of_it() {
    let listed = Forbidden::listed(networks(&["127.0.0.0/8", "::1/128"]));
    for text in ["0.0.0.0", "::", "::ffff:0.0.0.0", "64:ff9b::"] {
        assert_eq!(listed.check(ip(text)), Some(Rule::Listed), "{text}");
    }
    assert_eq!(listed.check_name("0x0"), Some(Rule::Listed));
    assert_eq!(listed.check(ip("0.1.2.3")), None);
    let elsewhere = Forbidden::listed(networks(&["10.0.0.0/8"]));
    assert_eq!(elsewhere.check(ip("0.0.0.0")), None);
    let exempt = listed.except(networks(&["127.0.0.1/32", "::1/128"]));
    assert_eq!((exempt.check(ip("0.0.0.0")), exempt.check(ip("::"))), (None, None));
}

proptest! {
    #[test]
    fn no_text_is_too_much_for_the_numbers(text in "[0-9a-fxX.+-]{0,40}") {
        let _judged = Forbidden::standard().check_name(&text);
    }

    #[test]
    fn an_address_is_found_in_each_manner_of_writing_it(address: u32) {
        let [a, b, c, d] = address.to_be_bytes();
        let tail = u32::from_be_bytes([0, b, c, d]);
        for text in [
            format!("{address}"), format!("0x{address:x}"), format!("0{address:o}"), format!("{a}.{tail}"),
            format!("{a}.{b}.{}", u16::from_be_bytes([c, d])), format!("0x{a:X}.0{b:o}.{c}.{d}"),
        ] {
            prop_assert_eq!(numbers(&text), Some(Ipv4Addr::from(address)), "{}", text);
        }
    }
}

#[test]
fn a_list_in_place_of_the_standard_one_knows_what_it_lets_through() {
    let missing = |forbidden: &Forbidden| {
        let networks: Vec<_> =
            forbidden.missing_of_standard().map(|(_, network)| network.to_string()).collect();
        networks
    };
    assert_eq!(missing(&Forbidden::standard()), [""; 0]);
    assert_eq!(missing(&Forbidden::standard().except(networks(&["127.0.0.0/8", "169.254.0.0/16"]))), [""; 0]);
    let all = missing(&Forbidden::NOTHING);
    assert!(all.contains(&"127.0.0.0/8".into()) && all.contains(&"169.254.169.254/32".into()), "{all:?}");
    let loopback = missing(&Forbidden::listed(networks(&["127.0.0.0/8", "::1/128"])));
    assert!(!loopback.contains(&"127.0.0.0/8".into()) && loopback.contains(&"169.254.0.0/16".into()));
    assert_eq!(loopback.len(), all.len() - 2);
    let half = missing(&Forbidden::listed(networks(&["127.0.0.0/9"])));
    assert!(half.contains(&"127.0.0.0/8".into()), "the other half is reached");
    assert_eq!(missing(&Forbidden::listed(networks(&["0.0.0.0/0", "::/0"]))), [""; 0]);
    let exempt = Forbidden::listed(networks(&["10.0.0.0/8"])).except(networks(&["0.0.0.0/0", "::/0"]));
    assert_eq!(missing(&exempt), [""; 0], "what is exempt is meant to be");
}

#[test]
fn the_names_of_a_clouds_metadata_are_known_in_every_form() {
    let (standard, exempt) =
        (Forbidden::standard(), Forbidden::standard().except(networks(&["169.254.169.254/32"])));
    for name in [
        "metadata.google.internal",
        "METADATA.goog",
        "metadata.goog.",
        "metadata",
        "metadata.",
        "instance-data",
        "Instance-Data.ec2.internal",
        "instance-data.eu-west-1.compute.internal",
    ] {
        assert_eq!(standard.check_name(name), Some(Rule::Metadata), "{name}");
        assert_eq!(exempt.check_name(name), None, "{name}");
        assert_eq!(Forbidden::NOTHING.check_name(name), None, "{name}");
    }
    for name in [
        "metadata.example",
        "x.metadata",
        "metadata.goog.example",
        "instance-data.example",
        "xmetadata",
        "compute.internal",
    ] {
        assert_eq!(standard.check_name(name), None, "{name}");
    }
}
