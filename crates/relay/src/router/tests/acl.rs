//! Access lists as people have them, in both roles, and lists that must not be half understood.

use std::net::{IpAddr, SocketAddr};

use umbra_proto::address::Address;

use super::super::{Decision, Dial, FileError, Query, Transport};
use super::*;

fn acl(text: &str) -> Acl {
    Acl::read("acl.txt", text.as_bytes()).unwrap()
}

fn wrong(text: &str) -> FileError {
    let errors = Acl::read("acl.txt", text.as_bytes()).unwrap_err();
    assert_eq!((errors.first.len(), errors.more), (1, 0), "{errors}");
    errors.first[0].clone()
}

/// What becomes of a session from `source` to `target`, where every name resolves to `resolved`; and whether it was resolved.
fn ask(
    router: &Router<AclVerdict>,
    source: &str,
    target: &str,
    resolved: &[&str],
) -> (Option<AclVerdict>, bool) {
    let target = Address::from_host(target, 443).unwrap();
    let source = source.parse::<IpAddr>().unwrap();
    let query = Query { target: &target, transport: Transport::Tcp, source, inbound: "", user: None };
    let addresses: Vec<SocketAddr> =
        resolved.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 443)).collect();
    let (decision, asked) = match router.route(&query, None) {
        Decision::Resolve => (router.route(&query, Some(&addresses)), true),
        decided @ (Decision::Take { .. } | Decision::Unresolvable { .. }) => (decided, false),
    };
    match decision {
        Decision::Take { verdict, .. } => (Some(*verdict), asked),
        Decision::Unresolvable { .. } => (None, asked),
        Decision::Resolve => panic!("asked twice"),
    }
}

const LISTS: &str = "
[proxy_list]
||proxied.example
(^|\\.)both\\.example$
198.51.100.0/24
203.0.113.0/25
[bypass_list]
|direct.example
^direct\\d+\\.
||both.example
192.0.2.0/24
203.0.113.0/24
";

#[test]
fn a_client_that_proxies_all_goes_directly_where_the_bypass_list_says() {
    use AclVerdict::{Direct, Proxy};
    for mode in ["[proxy_all]", "[accept_all]", ""] {
        let router = acl(&format!("{mode}{LISTS}")).client();
        let ask = |target, resolved: &[&str]| ask(&router, "::1", target, resolved);
        assert_eq!(ask("direct.example", &[]), (Some(Direct), false));
        assert_eq!(ask("DIRECT7.example.", &[]), (Some(Direct), false));
        assert_eq!(ask("a.both.example", &[]), (Some(Direct), false), "the bypass list wins");
        assert_eq!(ask("a.proxied.example", &[]), (Some(Proxy), false), "a listed name is not looked up");
        assert_eq!(ask("x.direct.example", &["192.0.2.1"]), (Some(Direct), true));
        assert_eq!(ask("other.example", &["10.0.0.1", "192.0.2.1"]), (Some(Direct), true));
        assert_eq!(ask("other.example", &["198.51.100.1"]), (Some(Proxy), true));
        assert_eq!(ask("other.example", &[]), (Some(Proxy), true), "the server may find what we do not");
        assert_eq!(ask("192.0.2.1", &[]), (Some(Direct), false));
        assert_eq!(ask("::ffff:192.0.2.1", &[]), (Some(Direct), false));
        assert_eq!(ask("203.0.113.1", &[]), (Some(Direct), false), "the bypass list wins");
        assert_eq!(ask("10.0.0.1", &[]), (Some(Proxy), false));
    }
}

#[test]
fn a_client_that_bypasses_all_goes_through_a_server_where_the_proxy_list_says() {
    use AclVerdict::{Direct, Proxy};
    for mode in ["[bypass_all]", "[reject_all]"] {
        let router = acl(&format!("{mode}{LISTS}")).client();
        let ask = |target, resolved: &[&str]| ask(&router, "::1", target, resolved);
        assert_eq!(ask("proxied.example", &[]), (Some(Proxy), false));
        assert_eq!(ask("a.both.example", &[]), (Some(Proxy), false), "the proxy list wins");
        assert_eq!(ask("direct.example", &[]), (Some(Direct), false), "a listed name is not looked up");
        assert_eq!(ask("other.example", &["10.0.0.1", "198.51.100.1"]), (Some(Proxy), true));
        assert_eq!(ask("other.example", &["10.0.0.1"]), (Some(Direct), true));
        assert_eq!(ask("203.0.113.1", &[]), (Some(Proxy), false), "the proxy list wins");
        assert_eq!(ask("10.0.0.1", &[]), (Some(Direct), false));
    }
}

#[test]
fn no_name_is_resolved_where_no_network_could_change_anything() {
    let router = acl("[proxy_all]\n[proxy_list]\n192.0.2.0/24\n[bypass_list]\n||a.example\n").client();
    assert_eq!(ask(&router, "::1", "b.example", &[]), (Some(AclVerdict::Proxy), false));
}

#[test]
fn a_client_dials_the_addresses_for_which_it_goes_directly() {
    let router = acl("192.0.2.0/24\n").client();
    let target = Address::from_host("a.example", 443).unwrap();
    let query = Query {
        target: &target,
        transport: Transport::Udp,
        source: IpAddr::from([127, 0, 0, 1]),
        inbound: "",
        user: None,
    };
    let addresses = ["10.0.0.1:443", "192.0.2.1:443"].map(|address| address.parse().unwrap());
    let Decision::Take { rule: Some(rule), dial: dial @ Dial::Within(_), .. } =
        router.route(&query, Some(&addresses))
    else {
        panic!("a rule about addresses decides");
    };
    assert_eq!(&*rule.name, "acl.txt:1 [bypass_list]");
    assert_eq!(addresses.map(|address: SocketAddr| dial.allows(address.ip())), [false, true]);
}

#[test]
fn a_server_serves_whom_its_lists_let_in() {
    use AclVerdict::{Block, Direct};
    let lists = "[black_list]\n10.0.0.0/8\n[white_list]\n10.1.0.0/16\n192.0.2.0/24\n";
    let accepting = acl(&format!("[accept_all]\n{lists}")).server();
    let rejecting = acl(&format!("[reject_all]\n{lists}")).server();
    for (source, accepted, rejected) in [
        ("10.2.0.1", Block, Block),
        ("::ffff:10.2.0.1", Block, Block),
        ("10.1.0.1", Block, Block),
        ("192.0.2.1", Direct, Direct),
        ("203.0.113.1", Direct, Block),
        ("2001:db8::1", Direct, Block),
    ] {
        assert_eq!(ask(&accepting, source, "a.example", &[]), (Some(accepted), false), "{source}");
        assert_eq!(ask(&rejecting, source, "a.example", &[]), (Some(rejected), false), "{source}");
    }
    let nobody = acl("[reject_all]\n").server();
    assert_eq!(
        ask(&nobody, "192.0.2.1", "a.example", &[]),
        (Some(Block), false),
        "an empty list lets nobody in"
    );
}

#[test]
fn a_server_leads_nobody_to_what_is_blocked_by_name_or_by_address() {
    use AclVerdict::{Block, Direct};
    let router = acl("[outbound_block_list]\n||bad.example\n10.0.0.0/8\n^ad\\d+\\.\n").server();
    let ask = |target, resolved: &[&str]| ask(&router, "192.0.2.1", target, resolved);
    assert_eq!(ask("a.BAD.example.", &["203.0.113.1"]), (Some(Block), false));
    assert_eq!(ask("ad12.example", &[]), (Some(Block), false));
    assert_eq!(ask("10.1.1.1", &[]), (Some(Block), false));
    assert_eq!(ask("::ffff:10.1.1.1", &[]), (Some(Block), false));
    assert_eq!(ask("good.example", &["203.0.113.1", "10.1.1.1"]), (Some(Block), true), "one is enough");
    assert_eq!(ask("good.example", &["203.0.113.1"]), (Some(Direct), true));
    assert_eq!(ask("good.example", &[]), (None, true), "nobody is led where nothing is known of");
}

#[test]
fn a_server_that_blocks_all_leads_to_what_is_allowed_and_not_blocked() {
    use AclVerdict::{Block, Direct};
    let router =
        acl("[outbound_block_all]\n[outbound_allow_list]\n||good.example\n192.0.2.0/24\n[outbound_block_list]\n|no.good.example\n192.0.2.7\n")
            .server();
    let ask = |target, resolved: &[&str]| ask(&router, "192.0.2.1", target, resolved);
    assert_eq!(ask("a.good.example", &["203.0.113.1"]), (Some(Direct), true));
    assert_eq!(ask("a.good.example", &["192.0.2.7"]), (Some(Block), true), "its address is blocked");
    assert_eq!(ask("no.good.example", &[]), (Some(Block), false));
    assert_eq!(ask("other.example", &["192.0.2.9"]), (Some(Direct), true));
    assert_eq!(ask("other.example", &["203.0.113.1"]), (Some(Block), true));
    assert_eq!(ask("203.0.113.1", &[]), (Some(Block), false));
}

#[test]
fn a_client_who_is_not_let_in_causes_no_lookup() {
    let router =
        acl("[reject_all]\n[white_list]\n192.0.2.0/24\n[outbound_block_list]\n10.0.0.0/8\n").server();
    assert_eq!(ask(&router, "203.0.113.1", "a.example", &["10.0.0.1"]), (Some(AclVerdict::Block), false));
    assert_eq!(ask(&router, "192.0.2.1", "a.example", &["10.0.0.1"]), (Some(AclVerdict::Block), true));
    assert_eq!(ask(&router, "192.0.2.1", "a.example", &["11.0.0.1"]), (Some(AclVerdict::Direct), true));
}

#[test]
fn a_line_that_cannot_be_meant_is_refused_with_its_number_and_a_remedy() {
    let entry = |error| Why::Entry(error);
    let unknown = |text: &str| Why::Section(SectionError::Unknown(text.into()));
    for (line, why) in [
        ("[proxy_lst]", unknown("[proxy_lst]")),
        ("[Proxy_List]", unknown("[Proxy_List]")),
        ("[]", unknown("[]")),
        ("[a-z]", unknown("[a-z]")),
        ("10.0.0.0/33", entry(EntryError::NoNetwork)),
        ("300.1.1.1", entry(EntryError::NoNetwork)),
        ("2001:db8:::1", entry(EntryError::NoNetwork)),
        ("example.com/path", entry(EntryError::NoNetwork)),
        ("10.0.0.1-10.0.0.9", entry(EntryError::NoNetwork)),
        ("192.168.*", entry(EntryError::NoNetwork)),
        ("fe80::1%eth0", entry(EntryError::NoNetwork)),
        ("2001:db8::g", entry(EntryError::NoNetwork)),
        ("[2001:db8::1]", entry(EntryError::NoNetwork)),
        ("[2001:db8::1]:443", entry(EntryError::NoNetwork)),
        ("[2001:db8::]/32", entry(EntryError::NoNetwork)),
        ("10.0.0.1, 10.0.0.2", entry(EntryError::NoNetwork)),
        ("example.com example.org", entry(EntryError::NoNetwork)),
        ("!include others", entry(EntryError::NoNetwork)),
        ("||", entry(EntryError::Empty)),
        ("|", entry(EntryError::Empty)),
        ("|||a.example", entry(EntryError::Character('|'))),
        ("||*.example", entry(EntryError::Character('*'))),
        ("|192.0.2.1", entry(EntryError::AddressAsName)),
        ("||bücher.example", entry(EntryError::NotAscii)),
        ("bücher", entry(EntryError::NotAscii)),
        ("(a{999}){999}", entry(EntryError::LargePattern)),
    ] {
        let error = wrong(&format!("[bypass_list]\n# a comment\n{line}\n"));
        assert_eq!(error, FileError { file: "acl.txt".into(), line: 3, why });
        assert!(error.to_string().ends_with(error.why.remedy()) && !error.why.remedy().is_empty());
    }
    assert!(matches!(wrong("(?<!a)b").why, Why::Entry(EntryError::Pattern(_))));
    assert!(matches!(wrong("*.example.com").why, Why::Entry(EntryError::Pattern(_))));
}

#[test]
fn two_defaults_that_contradict_each_other_are_refused() {
    let contradiction = |text: &str, at| Why::Section(SectionError::Contradiction(text.into(), at));
    assert_eq!(wrong("[proxy_all]\n\n[reject_all]\n").why, contradiction("[reject_all]", 1));
    assert_eq!(
        wrong("[outbound_block_all]\n[outbound_allow_all]\n").why,
        contradiction("[outbound_allow_all]", 1)
    );
    acl("[proxy_all]\n[accept_all]\n[outbound_block_all]\n");
}

#[test]
fn patterns_in_brackets_are_patterns_where_they_are_more_than_that() {
    let router = acl("[a-z]+\\.example\n[0-9]+[a-z]\n(?:[q])\n").client();
    for direct in ["abc.example", "12x", "q"] {
        assert_eq!(ask(&router, "::1", direct, &[]).0, Some(AclVerdict::Direct), "{direct}");
    }
    assert_eq!(ask(&router, "::1", "12", &[]).0, Some(AclVerdict::Proxy));
}

#[test]
fn a_section_that_is_not_written_as_one_is_no_pattern() {
    for (word, _) in SECTIONS {
        let bare = word.trim_matches(['[', ']']);
        for (before, behind) in [
            ("[", "]:"),
            ("[", "] ;mine"),
            ("[", "];mine"),
            ("[", "] // mine"),
            ("[", "] mine"),
            ("[", "]mine"),
            ("[", "]+"),
            ("[", "]."),
            ("[", "]$"),
            ("[", ""),
            ("[[", "]]"),
            ("[ ", " ]:"),
            ("", ""),
            ("", "]"),
            ("", "] mine"),
            ("", "];"),
            ("", ":"),
            ("(", ")"),
            ("{", "}"),
            ("<", ">"),
            ("\"[", "]\""),
            ("- [", "]"),
            ("list: [", "]"),
            ("^", "$"),
            ("== ", " =="),
        ] {
            for bare in [bare.to_owned(), bare.to_uppercase(), bare.replace('_', "-"), bare.replace('_', "")]
            {
                let line = format!("{before}{bare}{behind}");
                let error = wrong(&format!("[proxy_all]\n{line}\n||secret.example\n"));
                assert_eq!(error.why, Why::Section(SectionError::Unknown(line.clone().into())), "{line}");
                assert_eq!(error.line, 2);
                assert!(error.to_string().contains("write a section alone on its line"), "{error}");
            }
        }
    }
    for line in
        ["[proxy_lst]:", "[proxy_lst].", "[prxy_list] x", "[outbound_blok_list];", "prxy_list]", "[a-z];x"]
    {
        let why = wrong(&format!("[proxy_all]\n{line}\n")).why;
        assert_eq!(why, Why::Section(SectionError::Unknown(line.into())), "{line}");
    }
}

#[test]
fn a_pattern_that_has_the_name_of_a_section_among_others_is_a_pattern() {
    for (line, name) in [
        (r"(^|\.)proxy_list\.example$", "a.proxy_list.example"),
        (r"[a-z0-9-]+\.example\.com", "a-1.example.com"),
        (r"[[:digit:]]+proxy_list", "1proxy_list"),
        (r"[^.]+\.black_list\.exa", "x.black_list.example"),
        (r"[_a-z]{2}\d-x", "a_1-x"),
        (r"[a-z]?[0-9]-cdn", "7-cdn"),
        (r"my_proxy_list", "my_proxy_list.example"),
        (r"(?:proxy_list)", "proxy_list.example"),
        (r"(?:[proxy_list])$", "x.example.s"),
        (r"|proxy_list", "proxy_list"),
    ] {
        let router = acl(&format!("[bypass_list]\n{line}\n")).client();
        assert_eq!(ask(&router, "::1", name, &[]).0, Some(AclVerdict::Direct), "{line}");
        assert_eq!(ask(&router, "::1", "other.EXAMPLE2", &[]).0, Some(AclVerdict::Proxy), "{line}");
    }
}

#[test]
fn comments_and_line_ends_of_both_programs_read() {
    let router = acl("\u{feff}[proxy_all] # mode\r\n  |a.example  # one\r\n\t192.0.2.1\r\n").client();
    assert_eq!(ask(&router, "::1", "a.example", &[]).0, Some(AclVerdict::Direct));
    assert_eq!(ask(&router, "::1", "192.0.2.1", &[]).0, Some(AclVerdict::Direct));
}

#[test]
fn what_says_nothing_in_a_role_is_told() {
    let list = acl("[outbound_block_all]\n[outbound_allow_list]\n||a.example\n[black_list]\n|b.example\n");
    let places = |aside: Vec<LeftAside>| aside.into_iter().map(|part| part.place).collect::<Vec<_>>();
    assert_eq!(
        places(list.left_aside_by_client()),
        ["acl.txt: [outbound_block_all]".into(), "acl.txt:2 [outbound_allow_list]".into()] as [Box<str>; 2]
    );
    assert_eq!(places(list.left_aside_by_server()), ["acl.txt:4 [black_list]".into()] as [Box<str>; 1]);
    assert_eq!(acl("[black_list]\n10.0.0.0/8\n").left_aside_by_server(), []);
}

#[test]
fn what_is_read_in_parts_is_the_same() {
    let text = format!("[bypass_all]{LISTS}[outbound_block_list]\n10.0.0.0/8\n");
    let whole = format!("{:?}", acl(&text));
    for room in 1..text.len() {
        let cut = std::io::BufReader::with_capacity(room, text.as_bytes());
        assert_eq!(format!("{:?}", Acl::read("acl.txt", cut).unwrap()), whole);
    }
}

#[test]
fn every_line_that_is_wrong_is_told_and_a_file_that_says_nothing_is_one_error() {
    let errors =
        Acl::read("acl.txt", &b"[proxy_al]\n[bypass_list]\n||a b\n||good.example\n010.0.0.1/8\n"[..])
            .unwrap_err();
    assert_eq!(errors.first.iter().map(|error| error.line).collect::<Vec<_>>(), [1, 3, 5]);
    for text in ["", "# nothing\n\n"] {
        assert_eq!(wrong(text).why, Why::NoEntries, "{text:?}");
    }
    Acl::read("acl.txt", &b"[proxy_all]\n"[..]).unwrap();
}
