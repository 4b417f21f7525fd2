//! Access lists of Shadowsocks (ACL files), as shadowsocks-libev and shadowsocks-rust read them, made into rules.
//!
//! ```text
//!  section                            client                      server
//!  [proxy_all]    [accept_all]        what is in no list goes     clients in no list are served (the default)
//!                                     through a server (the default)
//!  [bypass_all]   [reject_all]        it goes directly            they are not
//!  [bypass_list]  [black_list]        targets that go directly    clients that are not served
//!  [proxy_list]   [white_list]        targets through a server    clients that are
//!  [outbound_allow_all], [outbound_block_all]                     targets in no list are let through (the default), or not
//!  [outbound_block_list]                                          targets that are not let through
//!  [outbound_allow_list]                                          targets that are
//! ```
//!
//! Both names of a section mean the same, and entries before the first section are in the bypass list. Where the two programs
//! differ, the stricter one is followed; where both pass over what they cannot read, nothing starts.
//!
//! - `meant`: what a line was meant to be that could be a pattern as well.

mod meant;

use std::fmt;
use std::io::BufRead;

use ipnet::IpNet;

use super::lines::Lines;
use super::targets::parse_network;
use super::{
    Conditions, EntryError, FileErrors, Networks, Router, Rule, Targets, TargetsBuilder, Verdict, Why,
};
use crate::limits::RULE_ENTRIES_MAX;

/// What an access list says.
#[derive(Debug)]
pub struct Acl {
    file: Box<str>,
    /// What is done with those that are in no list: targets of a client, clients of a server.
    strangers: Strangers,
    /// The same for targets of a server.
    outbound: Strangers,
    bypass: List,
    proxy: List,
    block: List,
    allow: List,
}

/// What becomes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclVerdict {
    /// It goes to its target directly.
    Direct,
    /// It goes through a server.
    Proxy,
    /// It goes nowhere.
    Block,
}

/// A part of an access list that says nothing where it is used, for a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAside {
    /// The file and the line at which the part begins.
    pub place: Box<str>,
    /// Why it says nothing.
    pub why: &'static str,
}

/// What is wrong with a section, or with a line that could be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionError {
    /// There is no such section, or more than the section stands on the line.
    Unknown(Box<str>),
    /// The opposite was said before.
    Contradiction(Box<str>, usize),
}

/// Accepting and proxying is one thing in these files, and so is rejecting and bypassing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strangers {
    Pass,
    Stop,
}

/// The targets or clients of one section.
#[derive(Debug)]
struct List {
    /// For people: file, line and section.
    name: Box<str>,
    names: Targets,
    networks: Networks,
}

impl Verdict for AclVerdict {
    fn refuses(&self) -> bool {
        match self {
            Self::Block => true,
            Self::Direct | Self::Proxy => false,
        }
    }
}

impl Acl {
    /// Reads all of a file, which is called `file` in errors. One that says nothing at all is an error as well: whoever names one means
    /// something.
    pub fn read(file: &str, reader: impl BufRead) -> Result<Self, FileErrors> {
        let mut lines = Lines::new(file, reader);
        let mut sections = Sections::default();
        let mut is_empty = true;
        let mut errors = lines.read_all(|text, line| {
            is_empty = false;
            sections.take(text, line)
        });
        if is_empty && errors.is_empty() {
            errors.add(lines.wrong_at(1, Why::NoEntries));
        }
        let Sections { strangers, outbound, lists, .. } = sections;
        let mut build = |list: Reading, names: &str| {
            let line = list.line.unwrap_or(1);
            let section = list.section.as_deref().unwrap_or(names);
            let names = list.names.build().unwrap_or_else(|error| {
                errors.add(lines.wrong_at(line, Why::Entry(error)));
                Targets::default()
            });
            let name = format!("{file}:{line} {section}").into();
            List { name, names, networks: Networks::new(list.networks) }
        };
        let [bypass, proxy, block, allow] = lists;
        let acl = Self {
            file: file.into(),
            strangers: strangers.map_or(Strangers::Pass, |(strangers, _)| strangers),
            outbound: outbound.map_or(Strangers::Pass, |(strangers, _)| strangers),
            bypass: build(bypass, "[bypass_list]"),
            proxy: build(proxy, "[proxy_list]"),
            block: build(block, "[outbound_block_list]"),
            allow: build(allow, "[outbound_allow_list]"),
        };
        errors.or(acl)
    }

    /// The rules for a client: what goes directly, and what through a server.
    ///
    /// Names are asked first, and those of the list that is not the default's before the others. Then addresses, by that
    /// list alone: a name that a list has is not resolved here, and none is where no network could change anything.
    pub fn client(self) -> Router<AclVerdict> {
        let bypass = (self.bypass, AclVerdict::Direct);
        let proxy = (self.proxy, AclVerdict::Proxy);
        let ((first, verdict), (second, otherwise)) = match self.strangers {
            Strangers::Pass => (bypass, proxy),
            Strangers::Stop => (proxy, bypass),
        };
        let rules = [
            target_rule(&first.name, first.names, verdict),
            target_rule(&second.name, second.names, otherwise),
            target_rule(&first.name, Targets::of_networks(first.networks), verdict),
        ];
        Router { rules: rules.into_iter().flatten().collect(), otherwise }
    }

    /// The rules for a server: whom it serves, and where it leads them.
    ///
    /// A client of the bypass list is never served. A target of the block list is led to by no entry of the allow list, even if
    /// the one has its address and the other its name.
    pub fn server(self) -> Router<AclVerdict> {
        let otherwise = match self.outbound {
            Strangers::Pass => AclVerdict::Direct,
            Strangers::Stop => AclVerdict::Block,
        };
        let mut rules = Vec::new();
        if !self.bypass.networks.is_empty() {
            let conditions = Conditions { source: Some(self.bypass.networks), ..Conditions::default() };
            rules.push(Rule { name: self.bypass.name, conditions, verdict: AclVerdict::Block });
        }
        let block = self.block.names.with_networks(self.block.networks);
        let allow = self.allow.names.with_networks(self.allow.networks);
        let from = rules.len();
        rules.extend(target_rule(&self.block.name, block, AclVerdict::Block));
        rules.extend(target_rule(&self.allow.name, allow, AclVerdict::Direct));
        match self.strangers {
            Strangers::Pass => Router { rules, otherwise },
            Strangers::Stop => {
                let everything =
                    Rule { name: self.proxy.name, conditions: Conditions::default(), verdict: otherwise };
                rules.push(everything);
                for rule in &mut rules[from..] {
                    rule.conditions.source = Some(self.proxy.networks.clone());
                }
                Router { rules, otherwise: AclVerdict::Block }
            }
        }
    }

    /// What in the file says nothing to a client.
    pub fn left_aside_by_client(&self) -> Vec<LeftAside> {
        let mut aside = Vec::new();
        let why = "speaks of a server's targets, and is for the server's file";
        if self.outbound == Strangers::Stop {
            aside.push(LeftAside { place: format!("{}: [outbound_block_all]", self.file).into(), why });
        }
        let outbound = [&self.block, &self.allow].into_iter().filter(|list| !list.is_empty());
        aside.extend(outbound.map(|list| LeftAside { place: list.name.clone(), why }));
        aside
    }

    /// What in the file says nothing to a server.
    pub fn left_aside_by_server(&self) -> Vec<LeftAside> {
        let why = "names in it say nothing: a server knows its clients by their addresses; targets are named in [outbound_block_list]";
        let named = [&self.bypass, &self.proxy].into_iter().filter(|list| !list.names.is_nameless());
        named.map(|list| LeftAside { place: list.name.clone(), why }).collect()
    }
}

impl List {
    fn is_empty(&self) -> bool {
        self.names.is_nameless() && self.networks.is_empty()
    }
}

/// A rule about these targets, unless there are none.
fn target_rule(name: &str, targets: Targets, verdict: AclVerdict) -> Option<Rule<AclVerdict>> {
    let empty = targets.is_nameless() && targets.networks().is_empty();
    let conditions = Conditions { target: Some(targets), ..Conditions::default() };
    (!empty).then(|| Rule { name: name.into(), conditions, verdict })
}

/// A file that is being read.
#[derive(Default)]
struct Sections {
    strangers: Option<(Strangers, usize)>,
    outbound: Option<(Strangers, usize)>,
    lists: [Reading; 4],
    /// Which of the lists the next entry is for.
    current: usize,
}

#[derive(Default)]
struct Reading {
    line: Option<usize>,
    section: Option<Box<str>>,
    names: TargetsBuilder,
    networks: Vec<IpNet>,
}

const BYPASS: usize = 0;
const PROXY: usize = 1;
const BLOCK: usize = 2;
const ALLOW: usize = 3;

impl Sections {
    fn take(&mut self, text: &str, line: usize) -> Result<(), Why> {
        let Some((_, section)) = SECTIONS.iter().find(|(name, _)| *name == text) else {
            if meant::is_section(text) {
                return Err(Why::Section(SectionError::Unknown(text.into())));
            }
            let list = &mut self.lists[self.current];
            list.line.get_or_insert(line);
            return list.add(text).map_err(Why::Entry);
        };
        match *section {
            Section::Strangers(said) => say_once(&mut self.strangers, said, text, line),
            Section::Outbound(said) => say_once(&mut self.outbound, said, text, line),
            Section::List(list) => {
                self.current = list;
                let list = &mut self.lists[list];
                list.line.get_or_insert(line);
                list.section.get_or_insert_with(|| text.into());
                Ok(())
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Section {
    Strangers(Strangers),
    Outbound(Strangers),
    List(usize),
}

const SECTIONS: [(&str, Section); 12] = [
    ("[proxy_all]", Section::Strangers(Strangers::Pass)),
    ("[accept_all]", Section::Strangers(Strangers::Pass)),
    ("[bypass_all]", Section::Strangers(Strangers::Stop)),
    ("[reject_all]", Section::Strangers(Strangers::Stop)),
    ("[outbound_allow_all]", Section::Outbound(Strangers::Pass)),
    ("[outbound_block_all]", Section::Outbound(Strangers::Stop)),
    ("[bypass_list]", Section::List(BYPASS)),
    ("[black_list]", Section::List(BYPASS)),
    ("[proxy_list]", Section::List(PROXY)),
    ("[white_list]", Section::List(PROXY)),
    ("[outbound_block_list]", Section::List(BLOCK)),
    ("[outbound_allow_list]", Section::List(ALLOW)),
];

/// The last of two that contradict each other would win by standing last, which nobody means.
fn say_once(
    place: &mut Option<(Strangers, usize)>,
    said: Strangers,
    text: &str,
    line: usize,
) -> Result<(), Why> {
    match *place {
        Some((before, at)) if before != said => {
            Err(Why::Section(SectionError::Contradiction(text.into(), at)))
        }
        Some(_) => Ok(()),
        None => {
            *place = Some((said, line));
            Ok(())
        }
    }
}

impl Reading {
    fn add(&mut self, entry: &str) -> Result<(), EntryError> {
        if let Some(name) = entry.strip_prefix("||") {
            return self.names.suffix(name);
        }
        if let Some(name) = entry.strip_prefix('|') {
            return self.names.exact(name);
        }
        if let Some(network) = parse_network(entry) {
            if self.networks.len() >= RULE_ENTRIES_MAX {
                return Err(EntryError::TooMany);
            }
            self.networks.push(network);
            return Ok(());
        }
        if meant::is_network(entry) {
            return Err(EntryError::NoNetwork);
        }
        self.names.pattern(entry)
    }
}

impl SectionError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unknown(_) => {
                "write a section alone on its line, and what is said of it behind #; sections are [proxy_all], [bypass_all], [proxy_list], [bypass_list] for a client; [accept_all], [reject_all], \
                 [white_list], [black_list], [outbound_allow_all], [outbound_block_all], [outbound_allow_list], \
                 [outbound_block_list] for a server; write a pattern that looks like one as (?:…)"
            }
            Self::Contradiction(..) => "keep one of them",
        }
    }
}

impl fmt::Display for SectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(section) => write!(f, "unknown section {section}"),
            Self::Contradiction(section, line) => {
                write!(f, "{section} says the opposite of line {line}")
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/acl.rs"]
mod tests;
