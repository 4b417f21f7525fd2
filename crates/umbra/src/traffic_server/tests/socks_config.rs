//! `socks.config`, line by line: what is followed, what is refused, and what is never shown.

use std::net::Ipv6Addr;
use std::num::NonZeroU16;

use proptest::prelude::*;
use umbra_proto::address::Address;
use umbra_proto::users::Users;

use super::*;

fn read(text: &str) -> (Option<SocksConfig>, Report) {
    let mut report = Report::default();
    let config = SocksConfig::read(text, "socks.config", &mut report);
    assert_eq!(config.is_some(), report.errors.is_empty(), "{report:?}");
    (config, report)
}

fn good(text: &str) -> SocksConfig {
    let (config, report) = read(text);
    assert!(report.warnings.is_empty(), "{report:?}");
    config.unwrap_or_else(|| panic!("{text}: {report:?}"))
}

fn errors(text: &str) -> Vec<String> {
    let (config, report) = read(text);
    assert!(config.is_none(), "{text} was taken");
    report.errors.iter().map(ToString::to_string).collect()
}

fn error(text: &str) -> String {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors[0].clone()
}

fn addresses(rule: &DestRule) -> Vec<String> {
    rule.parents.iter().map(|parent| parent.address.to_string()).collect()
}

fn is_login(config: &SocksConfig, name: &str, password: &str) -> bool {
    let users = Users::new([7; 32], config.auth.clone()).unwrap();
    users.check(name.as_bytes(), password.as_bytes()).is_some()
}

#[test]
fn a_file_of_comments_says_nothing() {
    let shipped = "#\n#\n# no_socks <comma separated list>\n#   auth u <user_name> <password>\n# \tThis supports only \"dest_ip\"\n#\n\
                   # dest_ip=10.0.0.0-10.255.255.255 parent=\"internal.example.com:1080\"\n\n   # indented\n \t\n####";
    for text in ["", "\n", shipped, &shipped.replace('\n', "\r\n"), "\u{feff}# a mark at the start"] {
        let config = good(text);
        assert_eq!(config.no_socks_networks(), ["127.0.0.1/32".parse().unwrap()], "{text}");
        assert!(config.rules.is_empty() && config.auth.is_none());
    }
}

#[test]
fn the_examples_of_its_comments_read() {
    let config = good(
        "no_socks   123.14.15.1 - 123.14.17.4, 113.14.18.2\n\
         no_socks   123.14.30.1 - 123.14.63.4, 122.43.15.2\n\
         auth u traffic_server inktomi\n\
         dest_ip=10.0.0.0-10.255.255.255 parent=\"internal.example.com:1080\"\n\
         dest_ip=216.32.0.0-216.32.255.255 parent=\"socks1:4080; socks2:1080\" round_robin=strict\n",
    );
    assert_eq!(config.no_socks.len(), 5);
    assert!(is_login(&config, "traffic_server", "inktomi"));
    let [first, second] = config.rules.as_slice() else { panic!() };
    assert_eq!((first.line, first.round_robin), (4, RoundRobin::False));
    assert_eq!(first.range.networks(), ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(addresses(second), ["socks1:4080", "socks2:1080"]);
    assert_eq!((second.line, second.round_robin), (5, RoundRobin::Strict));
}

#[test]
fn no_socks_takes_addresses_and_ranges_and_always_has_127_0_0_1_alone() {
    let config =
        good("no_socks 10.0.0.1,192.168.0.0-192.168.255.255 ,2001:db8::/32,[::1], 203.0.113.0/24,\n");
    let networks: Vec<_> = config.no_socks_networks().iter().map(ToString::to_string).collect();
    for wanted in
        ["127.0.0.1/32", "10.0.0.1/32", "192.168.0.0/16", "2001:db8::/32", "::1/128", "203.0.113.0/24"]
    {
        assert!(networks.iter().any(|network| network == wanted), "{wanted} in {networks:?}");
    }
    assert_eq!(networks.len(), 6);
}

#[test]
fn a_no_socks_entry_that_is_wrong_refuses_the_file() {
    for (list, why) in [
        ("10.0.0.1 -", "an address is missing"),
        ("10.0.0.1 - , 10.0.0.2", "an address is missing"),
        ("10.0.0.1,,10.0.0.2", "an address is missing"),
        ("10.0.0.1 10.0.0.2", "is no address"),
        ("10.0.0.9 - 10.0.0.1", "ends before it begins"),
        ("1.2.3", "write all four numbers"),
        ("example.com", "is no address"),
        ("10.0.0.1 # mine", "is no address"),
    ] {
        let told = error(&format!("# one\nno_socks 192.0.2.1, {list}"));
        assert!(told.starts_with("socks.config:2: no_socks: ") && told.contains(why), "{told}");
    }
    assert!(error(" no_socks 10.0.0.1").contains("blanks before no_socks"));
    let (config, report) = read("no_socks");
    assert_eq!((config.unwrap().no_socks.len(), report.warnings.len()), (1, 1));
}

#[test]
fn a_login_is_two_words_as_they_are() {
    let config = good("  auth   u\tal\"ice \u{a0}p#=,;| \r\n");
    assert!(is_login(&config, "al\"ice", "\u{a0}p#=,;|"));
    let most = "x".repeat(255);
    assert!(is_login(&good(&format!("auth u {most} {most}")), &most, &most));
}

#[test]
fn a_login_that_is_wrong_is_refused_and_never_shown() {
    let long = "hunter2".repeat(40);
    for (text, why) in [
        ("auth", "the only kind"),
        ("auth u", "are missing"),
        ("auth u hunter2", "are missing"),
        ("auth x alice hunter2", "the only kind"),
        ("auth u alice hunter2 hunter2", "more than a user and a password"),
        ("auth u alice LONG", "longer than 255 bytes"),
        ("auth u LONG hunter2", "longer than 255 bytes"),
        ("auht u alice hunter2", "unknown directive auht; did you mean auth?"),
        ("Auth u alice hunter2", "unknown directive Auth; did you mean auth?"),
        ("auth=u alice hunter2", "unknown key auth"),
        ("user=alice password=hunter2", "unknown key"),
        ("dest_ip=10.0.0.1 parent=a:1 auth u alice hunter2", "a word without ="),
        ("dest_ip=10.0.0.1 parent=alice:hunter2@a:1", "no login of their own"),
        ("dest_ip=10.0.0.1 parent=\"alice:hunter2", "a quote is not closed"),
    ] {
        let told = errors(&text.replace("LONG", &long)).join("\n");
        assert!(told.contains(why), "{text}: {told}");
        assert!(!told.contains("hunter2"), "{text}: {told}");
    }
    let told = error("auth u alice hunter2\nauth u bob hunter3");
    assert!(told.starts_with("socks.config:2: auth: there is a login already"), "{told}");
    let printed = format!("{:?}", good("auth u alice hunter2"));
    assert!(!printed.contains("hunter2") && !printed.contains("alice"), "{printed}");
}

#[test]
fn a_rule_reads_with_every_separator_with_quotes_and_without() {
    for line in [
        "dest_ip=10.0.0.0/8 parent=\"a:1; b:2\"",
        "dest_ip=10.0.0.0/8 parent=\"a:1,b:2\"",
        "dest_ip=10.0.0.0/8 parent=\"a:1 b:2\"",
        "dest_ip=10.0.0.0/8 parent=a:1;b:2",
        "  dest_ip=10.0.0.0-10.255.255.255\tparent=a:1,b:2  ",
        "parent=\"a:1;b:2\"dest_ip=\"10.0.0.0 - 10.255.255.255\"",
        "DEST_IP=10.1.2.3/8 Parent=a:1;b:2 Round_Robin=FALSE go_direct=false",
        "dest_ip=10.0.0.0/8 primary_parent=\"\\a:1;b:\\2\"",
    ] {
        let config = good(line);
        let [rule] = config.rules.as_slice() else { panic!("{line}") };
        assert_eq!(rule.range.networks(), ["10.0.0.0/8".parse().unwrap()], "{line}");
        assert_eq!(addresses(rule), ["a:1", "b:2"], "{line}");
        assert_eq!(rule.round_robin, RoundRobin::False, "{line}");
    }
    let one = &good("dest_ip=2001:db8::1 parent=[2001:db8::2]:1080").rules[0];
    assert_eq!(one.range.networks(), ["2001:db8::1/128".parse().unwrap()]);
    assert_eq!(addresses(one), ["[2001:db8::2]:1080"]);
}

#[test]
fn every_round_robin_is_told_apart() {
    for (word, wanted) in ROUND_ROBINS {
        let config = good(&format!("dest_ip=10.0.0.1 parent=a:1 round_robin={word}"));
        assert_eq!(config.rules[0].round_robin, wanted);
    }
    let told = error("dest_ip=10.0.0.1 parent=a:1 round_robin=yes");
    assert!(told.contains("round_robin: yes is none; use false, strict"), "{told}");
}

#[test]
fn weights_are_kept_and_a_hash_is_a_warning() {
    let (config, report) = read("dest_ip=10.0.0.1 parent=\"a:1|3; b:2&x\" round_robin=consistent_hash");
    let weights: Vec<_> = config.unwrap().rules[0].parents.iter().map(|parent| parent.weight.get()).collect();
    assert_eq!(weights, [3, 1]);
    assert!(report.warnings[0].to_string().starts_with("socks.config:1: parent: b:2&x: the text behind &"));
}

#[test]
fn where_ranges_overlap_the_later_line_is_asked_first() {
    let config = good(
        "dest_ip=10.0.0.0/8 parent=wide:1\n\ndest_ip=10.0.0.0-10.0.0.9 parent=narrow:1\ndest_ip=10.0.0.5 parent=last:1",
    );
    let lines: Vec<_> = config.rules_as_asked().map(|rule| rule.line).collect();
    assert_eq!(lines, [4, 3, 1]);
}

#[test]
fn a_rule_that_is_wrong_refuses_the_file_with_its_line_and_a_remedy() {
    for (line, why) in [
        ("dest_ip=10.0.0.1", "has no parent; add parent="),
        ("parent=a:1", "add dest_ip="),
        ("dest_ip=10.0.0.1 parent=a", "parent: a: has no port; write it like socks.example:1080"),
        ("dest_ip=10.0.0.1 parent=\"b:1; a\"", "parent: a: has no port"),
        ("dest_ip=10.0.0.1 parent=", "the list is empty"),
        ("dest_ip=10.0.0.1 parent=\" ; \"", "the list is empty"),
        ("dest_ip= parent=a:1", "an address is missing"),
        ("dest_ip=1.2.3 parent=a:1", "write all four numbers"),
        ("dest_ip=10.0.0.1- parent=a:1", "an address is missing"),
        ("dest_ip=10.0.0.9-10.0.0.1 parent=a:1", "ends before it begins"),
        ("dest_ip=10.0.0.1,10.0.0.2 parent=a:1", "write a line for each range"),
        ("dest_ip=10.0.0.0 - 10.0.0.9 parent=a:1", "without blanks around ="),
        ("dest_ip=10.0.0.1 parent=a:1 # mine", "comments on lines of their own"),
        ("dest_ip=10.0.0.1 parent=a:1 parent=b:1", "parent twice"),
        ("dest_ip=10.0.0.1 dest_ip=10.0.0.2 parent=a:1", "dest_ip twice"),
        ("dest_ip=10.0.0.1 parent=a:1 go_direct=true", "use no_socks"),
        ("dest_ip=10.0.0.1 parent=a:1 port=80", "unknown key port"),
        ("dest_ip=10.0.0.1 parent=a:1 secondary_parent=b:1", "unknown key secondary_parent"),
        ("dest_ip=10.0.0.1 parent=a:1 roundrobin=strict", "did you mean round_robin?"),
        ("dest_domain=. parent=a:1", "unknown key dest_domain"),
        ("nosocks 10.0.0.1", "did you mean no_socks?"),
        (
            "dest_ip = 10.0.0.1 parent=a:1",
            "dest_ip: there are blanks before =; write key=value without blanks around =",
        ),
        ("dest_ip =10.0.0.1 parent=a:1", "dest_ip: there are blanks before =; "),
        ("Parent\t=a:1 dest_ip=10.0.0.1", "Parent: there are blanks before =; "),
        ("dest_ip 10.0.0.1 parent=a:1", "dest_ip: there is no = behind it; write key=value"),
        ("parents a:1", "unknown directive parents"),
    ] {
        let told = errors(&format!("no_socks 192.0.2.1\n{line}"));
        assert!(told.iter().all(|told| told.starts_with("socks.config:2: ")), "{told:?}");
        assert!(told.iter().any(|told| told.contains(why)), "{line}: {told:?}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_no_more_than_helps() {
    let told = errors("no_socks 1.2.3, x\ndest_ip=y parent=a\nauth\nwhat");
    assert_eq!(told.len(), 6, "{told:#?}");
    let told = errors(&"x\n".repeat(200_000));
    assert_eq!(told.len(), FINDINGS_EXPECTED + 1);
    assert!(told.last().unwrap().contains("what follows was not read"));
    assert!(
        error(&format!("no_socks 10.0.0.1{}\n", ", 10.0.0.1".repeat(2000))).contains("write several lines")
    );
    assert!(error(&"#\n".repeat(600_000)).contains("is this the right file?"));
    let told = error(&"é".repeat(1000));
    assert!(told.chars().count() < 200, "{told}");
}

const FINDINGS_EXPECTED: usize = 100;

fn ranges() -> impl Strategy<Value = Range> {
    let four = any::<(u32, u32)>()
        .prop_map(|(a, b)| Range::V4(Ipv4Addr::from_bits(a.min(b))..=Ipv4Addr::from_bits(a.max(b))));
    // Far from the IPv4 addresses in the form of IPv6, which read as IPv4.
    let six = any::<(u64, u64)>().prop_map(|(a, b)| {
        let at = |low: u64| Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(low));
        Range::V6(at(a.min(b))..=at(a.max(b)))
    });
    prop_oneof![four, six]
}

fn parents() -> impl Strategy<Value = Vec<ParentAt>> {
    let host = prop_oneof![
        "[a-z][a-z0-9_-]{0,9}(\\.[a-z][a-z0-9]{0,5}){0,2}",
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_string()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).to_string()),
    ];
    let parent = (host, 1..=u16::MAX, 1..=u16::MAX).prop_map(|(host, port, weight)| ParentAt {
        address: Address::from_host(&host, port).unwrap(),
        weight: NonZeroU16::new(weight).unwrap(),
    });
    prop::collection::vec(parent, 1..5)
}

fn write_rule(range: &Range, parents: &[ParentAt], word: &str, separator: &str) -> String {
    let parents: Vec<_> =
        parents.iter().map(|parent| format!("{}|{}", parent.address, parent.weight)).collect();
    format!("dest_ip={range} parent=\"{}\" round_robin={word}\n", parents.join(separator))
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(
        text: String,
        lines in prop::collection::vec("(no_socks |auth u |dest_ip=|parent=|round_robin=|[a-z0-9.:;,=\"\\\\ |&/@-]{0,8}){0,6}", 0..6),
    ) {
        let _ = read(&text);
        let _ = read(&lines.join("\n"));
    }

    #[test]
    fn what_is_written_out_reads_back_equal(
        direct in prop::collection::vec(ranges(), 0..4),
        login in prop::option::of(("[!-~]{1,20}", "[!-~]{1,20}")),
        rules in prop::collection::vec((ranges(), parents(), 0..ROUND_ROBINS.len()), 0..5),
        separator in prop::sample::select(vec![";", ",", " ", "; ", " ,\t"]),
    ) {
        let mut text = String::from("# written\n");
        for range in &direct {
            text += &format!("no_socks {range}\n");
        }
        if let Some((name, password)) = &login {
            text += &format!("auth u {name} {password}\n");
        }
        let before = text.lines().count();
        for (range, parents, round_robin) in &rules {
            text += &write_rule(range, parents, ROUND_ROBINS[*round_robin].0, separator);
        }
        let config = good(&text);
        prop_assert_eq!(&config.no_socks[1..], direct.as_slice());
        prop_assert_eq!(config.auth.is_some(), login.is_some());
        if let Some((name, password)) = &login {
            prop_assert!(is_login(&config, name, password));
        }
        let expected: Vec<_> = rules.into_iter().enumerate().map(|(index, (range, parents, round_robin))| {
            DestRule { line: before + index + 1, range, parents, round_robin: ROUND_ROBINS[round_robin].1 }
        }).collect();
        prop_assert_eq!(config.rules, expected);
    }
}

#[test]
fn a_login_that_is_a_variable_is_taken_as_it_is_and_tells() {
    let mut report = Report::default();
    let config =
        SocksConfig::read("auth u ${USER} ${PW}\nno_socks 10.0.0.1\n", "socks.config", &mut report).unwrap();
    assert!(config.auth.is_some() && report.errors.is_empty());
    let told: Vec<_> = report.warnings.iter().map(ToString::to_string).collect();
    assert!(told[0].starts_with("socks.config:1: auth: the name of the user is taken as it is"), "{told:?}");
    assert!(told[1].starts_with("socks.config:1: auth: the password is taken as it is"), "{told:?}");
    assert!(told.len() == 2 && !told.concat().contains("PW"), "{told:?}");
    let mut report = Report::default();
    SocksConfig::read("auth u me x${PW}\nno_socks 10.0.0.1\n", "socks.config", &mut report).unwrap();
    assert_eq!(report.warnings, []);
}
