//! Any text as an access list and as a list of names: what is wrong has its line and a remedy, and what is right never lets through
//! what it blocks.
#![no_main]

use std::io::BufReader;
use std::net::{IpAddr, SocketAddr};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_proto::address::{Address, DomainName};
use umbra_relay::router::acl::{Acl, AclVerdict};
use umbra_relay::router::list::read_names;
use umbra_relay::router::{Decision, FileErrors, Query, Router, TargetsBuilder, Transport};

#[derive(Arbitrary, Debug)]
struct Session {
    lines: Vec<Line>,
    name: String,
    source: IpAddr,
    resolved: Vec<IpAddr>,
    room: u8,
}

/// Most random text is one pattern.
#[derive(Arbitrary, Debug)]
enum Line {
    Section(u8),
    Exact(String),
    Suffix(String),
    Network(IpAddr, u8),
    Known(u8),
    Any(String),
}

const SECTIONS: [&str; 12] = [
    "[proxy_all]",
    "[bypass_all]",
    "[accept_all]",
    "[reject_all]",
    "[proxy_list]",
    "[bypass_list]",
    "[white_list]",
    "[black_list]",
    "[outbound_allow_all]",
    "[outbound_block_all]",
    "[outbound_block_list]",
    "[outbound_allow_list]",
];

const KNOWN: [&str; 6] =
    ["||blocked.example", "10.0.0.0/8", "::/0", r"(^|\.)example$", "full:blocked.example", "regexp:^b.*d"];

/// Whatever stands before it, this is blocked.
const BLOCK: &str = "\n[outbound_block_list]\n||blocked.example\n10.9.8.0/24\n";

fuzz_target!(|session: Session| {
    let text = session.lines.iter().map(Line::text).collect::<String>();
    let lines = text.split('\n').count();
    check(read_names("list", text.as_bytes(), &mut TargetsBuilder::default()), lines);
    let cut = BufReader::with_capacity(usize::from(session.room) + 1, text.as_bytes());
    let cut = Acl::read("list", cut).map(|acl| format!("{acl:?}"));
    let whole = Acl::read("list", text.as_bytes());
    assert_eq!(cut, whole.as_ref().map(|acl| format!("{acl:?}")).map_err(FileErrors::clone));
    let Some(acl) = check(whole, lines) else { return };
    route(&acl.client(), &session, &session.name);

    let Ok(acl) = Acl::read("list", [&text, BLOCK].concat().as_bytes()) else {
        panic!("a good list with a good section behind it is good");
    };
    let server = acl.server();
    route(&server, &session, &session.name);
    for blocked in ["blocked.example", "a.BLOCKED.example.", "10.9.8.7", "::ffff:10.9.8.7"] {
        assert_eq!(route(&server, &session, blocked), Some(AclVerdict::Block), "{blocked}");
    }
});

impl Line {
    fn text(&self) -> String {
        match self {
            Self::Section(number) => format!("{}\n", SECTIONS[usize::from(*number) % SECTIONS.len()]),
            Self::Exact(name) => format!("|{name}\n"),
            Self::Suffix(name) => format!("||{name}\n"),
            Self::Network(address, len) => format!("{address}/{len}\n"),
            Self::Known(number) => format!("{}\n", KNOWN[usize::from(*number) % KNOWN.len()]),
            Self::Any(text) => format!("{text}\n"),
        }
    }
}

fn check<T>(read: Result<T, FileErrors>, lines: usize) -> Option<T> {
    if let Err(errors) = &read {
        assert!(
            !errors.first.is_empty() && errors.first.len() + errors.more <= lines + SECTIONS.len(),
            "{errors}"
        );
        for error in &errors.first {
            assert!((1..=lines).contains(&error.line) && !error.why.remedy().is_empty(), "{error}");
        }
    }
    read.ok()
}

/// The verdict on a session to `host`, if it is known.
fn route(router: &Router<AclVerdict>, session: &Session, host: &str) -> Option<AclVerdict> {
    let target = Address::from_host(host, 443).ok()?;
    let query =
        Query { target: &target, transport: Transport::Tcp, source: session.source, inbound: "", user: None };
    let resolved: Vec<_> = session.resolved.iter().map(|ip| SocketAddr::new(*ip, 443)).collect();
    let decision = match router.route(&query, None) {
        Decision::Resolve => {
            assert!(matches!(&target, Address::Name(name, _) if DomainName::new(name.as_str()).is_ok()));
            router.route(&query, Some(&resolved))
        }
        decided @ (Decision::Take { .. } | Decision::Unresolvable { .. }) => decided,
    };
    match decision {
        Decision::Take { verdict, .. } => Some(*verdict),
        Decision::Unresolvable { .. } => None,
        Decision::Resolve => unreachable!("nobody is asked twice"),
    }
}
