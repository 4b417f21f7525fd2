//! A router against the plainest one that could be written, and what peers may try on it.

mod speed;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use proptest::prelude::*;
use umbra_proto::address::DomainName;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Path(u8),
    Refuse,
}

impl Verdict for Way {
    fn refuses(&self) -> bool {
        *self == Self::Refuse
    }
}

/// What a decision comes to, by the number of the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Take { rule: Option<usize>, way: Way, dialled: Dialled },
    Resolve,
    Unresolvable(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Dialled {
    Target,
    Addresses(Vec<IpAddr>),
}

fn outcome(router: &Router<Way>, query: &Query<'_>, addresses: Option<&[SocketAddr]>) -> Outcome {
    let number = |rule: &Rule<Way>| rule.name.parse::<usize>().unwrap();
    match router.route(query, addresses) {
        Decision::Resolve => Outcome::Resolve,
        Decision::Unresolvable { rule } => Outcome::Unresolvable(number(rule)),
        Decision::Take { rule, verdict, dial } => {
            let dialled = match dial {
                Dial::Target => Dialled::Target,
                Dial::Addresses | Dial::Within(_) => {
                    let addresses = addresses.unwrap().iter().map(SocketAddr::ip);
                    Dialled::Addresses(addresses.filter(|address| dial.allows(*address)).collect())
                }
            };
            Outcome::Take { rule: rule.map(number), way: *verdict, dialled }
        }
    }
}

/// One rule as a person would say it.
#[derive(Clone, Debug)]
struct Plain {
    entries: Option<Vec<Entry>>,
    ports: Option<Vec<(u16, u16)>>,
    source: Option<Vec<IpNet>>,
    inbounds: Option<Vec<String>>,
    users: Option<Vec<String>>,
    transport: Option<bool>,
    way: Way,
}

#[derive(Clone, Debug)]
enum Entry {
    Exact(String),
    Suffix(String),
    Keyword(String),
    /// A pattern: begins with this, ends with that.
    Ends(String, String),
    Network(IpNet),
}

impl Entry {
    fn add(&self, targets: &mut TargetsBuilder) {
        match self {
            Self::Exact(name) => targets.exact(name),
            Self::Suffix(name) => targets.suffix(name),
            Self::Keyword(word) => targets.keyword(word),
            Self::Ends(start, end) => targets.pattern(&format!("^{start}.*{end}$")),
            Self::Network(network) => targets.network(*network),
        }
        .unwrap();
    }

    fn has_name(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => *name == exact.to_lowercase(),
            Self::Suffix(suffix) => {
                let suffix = suffix.to_lowercase();
                name == suffix || name.ends_with(&format!(".{suffix}"))
            }
            Self::Keyword(word) => name.contains(&word.to_lowercase()),
            Self::Ends(start, end) => {
                let rest = name.strip_prefix(start.as_str());
                rest.is_some_and(|rest| rest.ends_with(end.as_str()))
            }
            Self::Network(_) => false,
        }
    }

    fn has_address(&self, address: IpAddr) -> bool {
        matches!(self, Self::Network(network) if network.contains(&address.to_canonical()))
    }
}

fn router(rules: &[Plain]) -> Router<Way> {
    let boxed = |texts: &Vec<String>| texts.iter().map(|text| text.as_str().into()).collect();
    let rule = |(number, plain): (usize, &Plain)| {
        let target = plain.entries.as_ref().map(|entries| {
            let mut targets = TargetsBuilder::default();
            entries.iter().for_each(|entry| entry.add(&mut targets));
            targets.build().unwrap()
        });
        let conditions = Conditions {
            target,
            ports: plain.ports.as_ref().map(|ports| ports.iter().map(|(from, to)| *from..=*to).collect()),
            source: plain.source.as_ref().map(|networks| Networks::new(networks.iter().copied())),
            inbounds: plain.inbounds.as_ref().map(boxed),
            users: plain.users.as_ref().map(boxed),
            transport: plain.transport.map(transport),
        };
        Rule { name: number.to_string().into(), conditions, verdict: plain.way }
    };
    Router { rules: rules.iter().enumerate().map(rule).collect(), otherwise: Way::Path(0) }
}

fn transport(tcp: bool) -> Transport {
    if tcp { Transport::Tcp } else { Transport::Udp }
}

/// The same decision, one thing after the other.
fn plainly(rules: &[Plain], query: &Query<'_>, addresses: Option<&[SocketAddr]>) -> Outcome {
    let mut looked = false;
    let all = || addresses.unwrap_or_default().iter().map(SocketAddr::ip);
    let dialled = |looked: bool| if looked { Dialled::Addresses(all().collect()) } else { Dialled::Target };
    for (number, rule) in rules.iter().enumerate() {
        let port = query.target.port();
        let beside = rule.ports.as_ref().is_none_or(|p| p.iter().any(|(a, b)| *a <= port && port <= *b))
            && rule
                .source
                .as_ref()
                .is_none_or(|s| s.iter().any(|n| n.contains(&query.source.to_canonical())))
            && rule.inbounds.as_ref().is_none_or(|i| i.iter().any(|inbound| inbound == query.inbound))
            && rule.users.as_ref().is_none_or(|u| u.iter().any(|user| Some(user.as_str()) == query.user))
            && rule.transport.is_none_or(|tcp| transport(tcp) == query.transport);
        if !beside {
            continue;
        }
        let take = |dialled: Dialled| Outcome::Take { rule: Some(number), way: rule.way, dialled };
        let Some(entries) = &rule.entries else { return take(dialled(looked)) };
        match query.target {
            Address::Ip(target) => {
                if entries.iter().any(|entry| entry.has_address(target.ip())) {
                    return take(Dialled::Target);
                }
            }
            Address::Name(name, _) => {
                let name = name.as_str().to_lowercase();
                let name = name.strip_suffix('.').unwrap_or(&name);
                if entries.iter().any(|entry| entry.has_name(name)) {
                    return take(dialled(looked));
                }
                if !entries.iter().any(|entry| matches!(entry, Entry::Network(_))) {
                    continue;
                }
                if addresses.is_none() {
                    return Outcome::Resolve;
                }
                if all().count() == 0 && rule.way == Way::Refuse {
                    return Outcome::Unresolvable(number);
                }
                let within: Vec<IpAddr> =
                    all().filter(|address| entries.iter().any(|entry| entry.has_address(*address))).collect();
                if !within.is_empty() {
                    return take(Dialled::Addresses(within));
                }
                looked = true;
            }
        }
    }
    Outcome::Take { rule: None, way: Way::Path(0), dialled: dialled(looked) }
}

// Few letters and few bits, so that much fits much.

fn name() -> impl Strategy<Value = String> {
    "[abA]{1,2}(\\.[abB]{1,2}){0,3}"
}

fn address() -> impl Strategy<Value = IpAddr> {
    (0..8_u32, any::<bool>(), any::<bool>()).prop_map(|(bits, v6, mapped)| {
        let v4 = Ipv4Addr::from(0x0a00_0000 | bits << 20);
        match (v6, mapped) {
            (false, _) => v4.into(),
            (true, true) => v4.to_ipv6_mapped().into(),
            (true, false) => std::net::Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(bits) << 64).into(),
        }
    })
}

fn network() -> impl Strategy<Value = IpNet> {
    (address(), 8..=16_u8, 60..=66_u8).prop_map(|(address, v4, v6)| {
        let address = address.to_canonical();
        IpNet::new(address, if address.is_ipv4() { v4 } else { v6 }).unwrap()
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        name().prop_map(Entry::Exact),
        name().prop_map(Entry::Suffix),
        "[abB]{1,3}".prop_map(Entry::Keyword),
        ("[ab]{1,2}", "[ab]{1,2}").prop_map(|(start, end)| Entry::Ends(start, end)),
        network().prop_map(Entry::Network),
    ]
}

fn sometimes<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<Vec<S::Value>>>
where
    S::Value: Clone,
{
    prop::option::weighted(0.3, prop::collection::vec(strategy, 0..3))
}

fn plain() -> impl Strategy<Value = Plain> {
    let entries = prop::option::weighted(0.9, prop::collection::vec(entry(), 0..6));
    let way = prop_oneof![(1..4_u8).prop_map(Way::Path), Just(Way::Refuse)];
    let who = (sometimes("[ab]"), sometimes("[ab]"), prop::option::weighted(0.2, any::<bool>()));
    let ports = sometimes((0..4_u16, 0..4_u16));
    (entries, ports, sometimes(network()), who, way).prop_map(|(entries, ports, source, who, way)| {
        let (inbounds, users, transport) = who;
        Plain { entries, ports, source, inbounds, users, transport, way }
    })
}

fn target() -> impl Strategy<Value = Address> {
    let named = (name(), any::<bool>(), 0..4_u16).prop_map(|(name, dot, port)| {
        Address::from_host(&format!("{name}{}", if dot { "." } else { "" }), port).unwrap()
    });
    let ip = (address(), 0..4_u16).prop_map(|(ip, port)| Address::Ip(SocketAddr::new(ip, port)));
    prop_oneof![3 => named, 1 => ip]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_router_decides_as_the_plainest_one_would(
        rules in prop::collection::vec(plain(), 0..8),
        target in target(),
        tcp: bool,
        source in address(),
        inbound in "[ab]",
        user in prop::option::of("[ab]"),
        addresses in prop::option::of(prop::collection::vec(address(), 0..4)),
    ) {
        let query =
            Query { target: &target, transport: transport(tcp), source, inbound: &inbound, user: user.as_deref() };
        let addresses: Option<Vec<_>> =
            addresses.map(|ips| ips.into_iter().map(|ip| SocketAddr::new(ip, 9)).collect());
        let router = router(&rules);
        let decided = outcome(&router, &query, addresses.as_deref());
        prop_assert_eq!(&decided, &plainly(&rules, &query, addresses.as_deref()));
        prop_assert!(decided != Outcome::Resolve || addresses.is_none(), "nobody is asked twice");
        if let Some(addresses) = &addresses && outcome(&router, &query, None) != Outcome::Resolve {
            prop_assert_eq!(decided, outcome(&router, &query, None), "{:?} change nothing", addresses);
        }
    }
}

fn rule(way: Way, entries: &[Entry]) -> Plain {
    Plain {
        entries: Some(entries.to_vec()),
        ports: None,
        source: None,
        inbounds: None,
        users: None,
        transport: None,
        way,
    }
}

fn lead(rules: &[Plain], target: &str, addresses: Option<&[&str]>) -> Outcome {
    let target = Address::from_host(target, 443).unwrap();
    let source = IpAddr::from([192, 0, 2, 1]);
    let query = Query { target: &target, transport: Transport::Tcp, source, inbound: "", user: None };
    let addresses: Option<Vec<_>> =
        addresses.map(|texts| texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 443)).collect());
    outcome(&router(rules), &query, addresses.as_deref())
}

fn private() -> Entry {
    Entry::Network("10.0.0.0/8".parse().unwrap())
}

#[test]
fn a_name_that_cannot_be_resolved_is_not_led_past_a_rule_that_refuses_addresses() {
    let rules = [rule(Way::Path(1), &[private()]), rule(Way::Refuse, &[private()])];
    assert_eq!(lead(&rules, "a.example", None), Outcome::Resolve);
    assert_eq!(lead(&rules, "a.example", Some(&[])), Outcome::Unresolvable(1));
    let passed = lead(&rules[..1], "a.example", Some(&[]));
    let nothing = Dialled::Addresses(Vec::new());
    assert_eq!(passed, Outcome::Take { rule: None, way: Way::Path(0), dialled: nothing });
}

#[test]
fn one_refused_address_refuses_the_name_and_one_that_leads_is_dialled_alone() {
    let both = ["203.0.113.1", "10.1.1.1"];
    let refused = lead(&[rule(Way::Refuse, &[private()])], "a.example", Some(&both));
    assert!(matches!(refused, Outcome::Take { rule: Some(0), way: Way::Refuse, .. }));
    let led = lead(&[rule(Way::Path(1), &[private()])], "a.example", Some(&both));
    let dialled = Dialled::Addresses(vec!["10.1.1.1".parse().unwrap()]);
    assert_eq!(led, Outcome::Take { rule: Some(0), way: Way::Path(1), dialled });
}

#[test]
fn addresses_that_were_looked_at_are_those_that_are_dialled_by_any_later_rule() {
    let name = Entry::Suffix("example".into());
    let rules = [rule(Way::Refuse, &[private()]), rule(Way::Path(1), &[name])];
    let led = lead(&rules, "a.example", Some(&["203.0.113.1"]));
    let dialled = Dialled::Addresses(vec!["203.0.113.1".parse().unwrap()]);
    assert_eq!(led, Outcome::Take { rule: Some(1), way: Way::Path(1), dialled });
    let first = [rules[1].clone(), rules[0].clone()];
    let led = lead(&first, "a.example", None);
    assert_eq!(led, Outcome::Take { rule: Some(0), way: Way::Path(1), dialled: Dialled::Target });
}

#[test]
fn a_condition_that_is_empty_fits_nothing() {
    let whatever = rule(Way::Refuse, &[]);
    let empty = [
        whatever.clone(),
        Plain { entries: None, ports: Some(Vec::new()), ..whatever.clone() },
        Plain { entries: None, source: Some(Vec::new()), ..whatever.clone() },
        Plain { entries: None, inbounds: Some(Vec::new()), ..whatever.clone() },
        Plain { entries: None, users: Some(Vec::new()), ..whatever.clone() },
    ];
    assert!(matches!(lead(&empty, "a.example", None), Outcome::Take { rule: None, .. }));
    let everything = Plain { entries: None, ..whatever };
    assert!(matches!(lead(&[everything], "a.example", None), Outcome::Take { rule: Some(0), .. }));
}

#[test]
fn numbers_that_a_resolver_takes_for_an_address_are_names_until_they_are_resolved() {
    let rules = [rule(Way::Refuse, &[private()])];
    for tricky in ["0x0a.1.1.1", "167837953", "012.1.1.1", "10.1.1.1."] {
        assert_eq!(lead(&rules, tricky, None), Outcome::Resolve, "{tricky}");
        let refused = lead(&rules, tricky, Some(&["10.1.1.1"]));
        assert!(matches!(refused, Outcome::Take { way: Way::Refuse, .. }), "{tricky}");
    }
    assert!(matches!(lead(&rules, "[::ffff:10.1.1.1]", None), Outcome::Take { way: Way::Refuse, .. }));
}

#[test]
fn names_of_every_shape_are_compared_without_harm() {
    let suffix = Entry::Suffix("xn--bcher-kva.example".into());
    let pattern = Entry::Ends("a".into(), "z".into());
    let rules = [rule(Way::Path(1), &[suffix, Entry::Keyword("ads".into()), pattern])];
    let deep = "a.".repeat(113) + "xn--bcher-KVA.example.";
    let fits = ["xn--bcher-kva.example", "XN--BCHER-KVA.EXAMPLE.", &deep, "müll.ADS.example", "aüz"];
    for name in fits {
        assert!(matches!(lead(&rules, name, None), Outcome::Take { rule: Some(0), .. }), "{name}");
    }
    let long = "b".repeat(255);
    let dots = ".".repeat(255);
    for name in ["bücher.example", ".", "..", &long, &dots, "xn--bcher-kva.example..", "\u{130}.example"] {
        assert!(matches!(lead(&rules, name, None), Outcome::Take { rule: None, .. }), "{name}");
    }
    assert_eq!(Name::new(&DomainName::new(&long).unwrap()).as_bytes().len(), 255);
}

#[test]
fn a_decision_does_not_print_where_it_leads() {
    let target: Address = "secret.example:443".parse().unwrap();
    let router = router(&[rule(Way::Path(1), &[Entry::Exact("secret.example".into())])]);
    let source = IpAddr::from([192, 0, 2, 1]);
    let query = Query { target: &target, transport: Transport::Tcp, source, inbound: "", user: None };
    assert_eq!(format!("{:?}", router.route(&query, None)), "Take(0: Path(1))");
    assert!(!format!("{router:?}").contains("secret"));
}

#[test]
fn verdicts_are_exchanged_and_rules_stay() {
    let router = router(&[rule(Way::Refuse, &[]), rule(Way::Path(3), &[])]);
    let mapped = router.map(|way| format!("{way:?}"));
    let verdicts: Vec<_> = mapped.rules.iter().map(|rule| rule.verdict.as_str()).collect();
    assert_eq!((verdicts, mapped.otherwise.as_str()), (vec!["Refuse", "Path(3)"], "Path(0)"));
}

#[test]
fn who_it_is_is_asked_only_where_the_decision_depends_on_it() {
    let rule = |conditions, verdict| Rule { name: "0".into(), conditions, verdict };
    let named = |name: &str| {
        let mut targets = TargetsBuilder::default();
        targets.suffix(name).unwrap();
        Conditions { target: Some(targets.build().unwrap()), ..Conditions::default() }
    };
    let within = |network: &str| {
        let networks = Networks::new(vec![network.parse().unwrap()]);
        Conditions { target: Some(Targets::of_networks(networks)), ..Conditions::default() }
    };
    let of_ann = |conditions| Conditions { users: Some(vec!["ann".into()]), ..conditions };
    let asks = |rules: Vec<Rule<Way>>, target: &str, found: Option<&[&str]>| {
        let router = Router { rules, otherwise: Way::Path(9) };
        let target = Address::from_host(target, 443).unwrap();
        let source = IpAddr::from(Ipv4Addr::LOCALHOST);
        let query = Query { target: &target, transport: Transport::Tcp, source, inbound: "", user: None };
        let found = found.map(|found| {
            found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 443)).collect::<Vec<_>>()
        });
        router.asks_who(&query, found.as_deref())
    };
    let early =
        || vec![rule(named("x.example"), Way::Path(1)), rule(of_ann(Conditions::default()), Way::Refuse)];
    assert!(!asks(early(), "a.x.example", None), "the first rule decides for everybody");
    assert!(asks(early(), "y.example", None));
    let late = || vec![rule(of_ann(named("x.example")), Way::Path(1)), rule(named("y.example"), Way::Refuse)];
    assert!(asks(late(), "x.example", None));
    assert!(
        !asks(late(), "y.example", None) && !asks(late(), "z.example", None),
        "no user's rule fits these"
    );
    let found =
        |way| vec![rule(within("10.0.0.0/8"), way), rule(of_ann(Conditions::default()), Way::Path(2))];
    for (addresses, asked) in [(None, true), (Some(&["10.0.0.1"][..]), false), (Some(&["192.0.2.1"]), true)] {
        assert_eq!(asks(found(Way::Path(1)), "x.example", addresses), asked, "{addresses:?}");
    }
    assert!(asks(found(Way::Path(1)), "x.example", Some(&[])));
    assert!(!asks(found(Way::Refuse), "x.example", Some(&[])), "nobody is led to a name without an address");
    let theirs = || vec![rule(of_ann(within("10.0.0.0/8")), Way::Path(1))];
    for (addresses, asked) in
        [(None, true), (Some(&["10.0.0.1"][..]), true), (Some(&["192.0.2.1"]), false), (Some(&[]), false)]
    {
        assert_eq!(asks(theirs(), "x.example", addresses), asked, "{addresses:?}");
    }
}
