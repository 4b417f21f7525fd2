//! `socks.config`: which addresses go direct, the login for parents, and which parents are for which addresses.
//!
//! ```text
//!  no_socks A, B - C, …
//!  auth u USER PASSWORD
//!  dest_ip=A-B parent="h1:p1; h2:p2|weight" round_robin=strict|true|false|latched|consistent_hash
//! ```

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use umbra_proto::users::Credentials as Login;

use super::parents::read_parents;
use super::{Findings, ParentAt, Range, is_blank, shown};
use crate::reference::nearest;
use crate::report::Report;
use crate::variable::{Part, explain_variable};

/// What a `socks.config` says.
#[derive(Clone, Debug)]
pub(crate) struct SocksConfig {
    /// Addresses that are reached directly, 127.0.0.1 the first of them. They come before every rule.
    pub(crate) no_socks: Vec<Range>,
    /// Who we are to every parent, should it ask. There is no other place for a login.
    pub(crate) auth: Option<Login>,
    /// The rules in the order of the file; see [`SocksConfig::rules_as_asked`].
    pub(crate) rules: Vec<DestRule>,
}

/// The parents of a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DestRule {
    /// Where it stands in the file.
    pub(crate) line: usize,
    /// Which targets it is for.
    pub(crate) range: Range,
    /// One at least.
    pub(crate) parents: Vec<ParentAt>,
    /// With which of them a target begins.
    pub(crate) round_robin: RoundRobin,
}

/// With which parent a target begins. If it does not do, the others follow in the order of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RoundRobin {
    /// Always the first: a group in order (`Ordered`).
    #[default]
    False,
    /// The next in turn (`RoundRobin`).
    Strict,
    /// The target's IPv4 address as a number, modulo the number of parents (`AddressModulo`): so one target has one parent.
    True,
    /// The one that did last, until it fails (`Latched`).
    Latched,
    /// By a hash of the target and the weights (`TargetHash`).
    ConsistentHash,
}

impl SocksConfig {
    /// Reads the text of `file`, which is named so in what goes into `report`. The text holds a password: whoever has read it wipes it.
    pub(crate) fn read(text: &str, file: &str, report: &mut Report) -> Option<Self> {
        let mut findings = Findings::new(file);
        let mut config = Self::default();
        findings.read_lines(text, |line, findings| config.read_line(line, findings));
        findings.finish(config, report)
    }

    /// The rules in the order in which to ask them, the first that matches being the one: where ranges overlap, the later line wins.
    pub(crate) fn rules_as_asked(&self) -> impl Iterator<Item = &DestRule> {
        self.rules.iter().rev()
    }

    /// Whether no line of it says where anything goes, as in a file of comments, or one that has come in part.
    pub(crate) fn says_nothing(&self) -> bool {
        self.rules.is_empty() && self.no_socks == Self::default().no_socks
    }

    /// The networks that are reached directly.
    pub(crate) fn no_socks_networks(&self) -> Vec<IpNet> {
        IpNet::aggregate(&self.no_socks.iter().flat_map(Range::networks).collect())
    }

    fn read_line(&mut self, line: &str, findings: &mut Findings<'_>) {
        let said = line.trim_start_matches(is_blank);
        let (first, rest) = said.split_once(is_blank).unwrap_or((said, ""));
        match first {
            "no_socks" if said.len() < line.len() => findings.error(
                "blanks before no_socks: Traffic Server passes over such a line; move it to the line's beginning, or take it out",
            ),
            "no_socks" => read_no_socks(rest, &mut self.no_socks, findings),
            "auth" => self.read_auth(rest, findings),
            _ if first.contains('=') => self.rules.extend(read_rule(said, findings)),
            key if KEYS.into_iter().any(|(known, _)| known.eq_ignore_ascii_case(key)) => {
                let what = if rest.trim_start_matches(is_blank).starts_with('=') {
                    "there are blanks before ="
                } else {
                    "there is no = behind it"
                };
                findings.error(format!("{}: {what}; {PAIRS}", shown(key)));
            }
            // The rest of a line that is not understood may be a login.
            unknown => {
                let hint = nearest(unknown, DIRECTIVES.into_iter())
                    .map_or_else(String::new, |near| format!("did you mean {near}? "));
                findings.error(format!(
                    "unknown directive {}; {hint}lines begin with no_socks, auth u, dest_ip= or #",
                    shown(unknown)
                ));
            }
        }
    }

    fn read_auth(&mut self, rest: &str, findings: &mut Findings<'_>) {
        let words: Vec<_> = rest.split(is_blank).filter(|word| !word.is_empty()).collect();
        let login = match *words.as_slice() {
            ["u", name, password] => {
                let parts = [(name, Part::User), (password, Part::SocksConfigPassword)];
                for why in parts.into_iter().filter_map(|(text, part)| explain_variable(text, part)) {
                    findings.warn(format!("auth: {why}"));
                }
                Login::new(name, password).map_err(|why| why.to_string())
            }
            ["u", _, _, ..] => {
                Err("more than a user and a password; neither can have blanks, and nothing follows them"
                    .into())
            }
            ["u", ..] => Err("a user and a password are missing".into()),
            _ => Err("the only kind of login is u, a user and a password".into()),
        };
        match login {
            Ok(_) if self.auth.is_some() => {
                findings.error("auth: there is a login already, and it is for all parents; take one out");
            }
            Ok(login) => self.auth = Some(login),
            Err(why) => findings.error(format!("auth: {why}; write: auth u USER PASSWORD")),
        }
    }
}

/// A file that says nothing: no rules, and direct only to 127.0.0.1.
impl Default for SocksConfig {
    fn default() -> Self {
        Self { no_socks: vec![Range::single(IpAddr::V4(Ipv4Addr::LOCALHOST))], auth: None, rules: Vec::new() }
    }
}

fn read_no_socks(list: &str, ranges: &mut Vec<Range>, findings: &mut Findings<'_>) {
    let list = list.trim_matches(is_blank);
    let list = list.strip_suffix(',').unwrap_or(list);
    if list.is_empty() {
        return findings.warn("no_socks lists nothing");
    }
    for entry in list.split(',').map(|entry| entry.trim_matches(is_blank)) {
        match entry.parse() {
            Ok(range) => ranges.push(range),
            Err(why) => findings.error(format!("no_socks: {}: {why}; commas part entries", shown(entry))),
        }
    }
}

/// What a rule's line has said so far.
#[derive(Default)]
struct Draft {
    range: Option<Range>,
    parents: Option<Vec<ParentAt>>,
    round_robin: Option<RoundRobin>,
    seen: Vec<Key>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    DestIp,
    Parent,
    RoundRobin,
    GoDirect,
}

/// The rule of a line; `None` if anything in it is wrong.
fn read_rule(line: &str, findings: &mut Findings<'_>) -> Option<DestRule> {
    let errors = findings.found.errors.len();
    let mut draft = Draft::default();
    let mut rest = line;
    while !rest.is_empty() {
        match split_pair(rest) {
            Ok((key, value, after)) => {
                draft.take(key, &value, findings);
                rest = after.trim_start_matches(is_blank);
            }
            Err(why) => {
                findings.error(why);
                return None;
            }
        }
    }
    if !draft.seen.contains(&Key::DestIp) {
        findings.error("says nothing of its targets; add dest_ip=A-B");
    }
    if !draft.seen.contains(&Key::Parent) {
        findings.error("has no parent; add parent=\"host:port\", or use no_socks for what is to go direct");
    }
    let (range, parents) =
        draft.range.zip(draft.parents).filter(|_| findings.found.errors.len() == errors)?;
    Some(DestRule { line: findings.line, range, parents, round_robin: draft.round_robin.unwrap_or_default() })
}

impl Draft {
    /// Takes one `key=value`.
    fn take(&mut self, name: &str, value: &str, findings: &mut Findings<'_>) {
        let Some((_, key)) = KEYS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
            let hint = nearest(name, KEYS.into_iter().map(|(known, _)| known))
                .map_or_else(String::new, |near| format!("did you mean {near}? "));
            return findings.error(format!(
                "unknown key {}; {hint}rules of SOCKS have dest_ip, parent and round_robin",
                shown(name)
            ));
        };
        if self.seen.contains(&key) {
            return findings.error(format!("{} twice on a line; write a line for each", shown(name)));
        }
        self.seen.push(key);
        match key {
            Key::DestIp => match value.parse() {
                Ok(range) => self.range = Some(range),
                Err(why) => {
                    findings.error(format!("dest_ip: {}: {why}; write a line for each range", shown(value)));
                }
            },
            Key::Parent => self.parents = read_rule_parents(value, findings),
            Key::RoundRobin => {
                match ROUND_ROBINS.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(value)) {
                    Some((_, round_robin)) => self.round_robin = Some(round_robin),
                    None => findings.error(format!(
                        "round_robin: {} is none; use false, strict, true, latched or consistent_hash",
                        shown(value)
                    )),
                }
            }
            // Traffic Server takes every rule of SOCKS as if it said so.
            Key::GoDirect if value.eq_ignore_ascii_case("false") => {}
            Key::GoDirect => {
                findings
                    .error("go_direct is followed by nothing here; use no_socks for what is to go direct");
            }
        }
    }
}

fn read_rule_parents(list: &str, findings: &mut Findings<'_>) -> Option<Vec<ParentAt>> {
    let errors = findings.found.errors.len();
    let parents = read_parents("parent", list, findings);
    if parents.is_empty() && findings.found.errors.len() == errors {
        findings.error("parent: the list is empty; write parent=\"host:port\"");
    }
    Some(parents).filter(|_| findings.found.errors.len() == errors)
}

/// The key in front of `line`, its value, and what follows. What is not understood is not shown, since it may be a login.
fn split_pair(line: &str) -> Result<(&str, String, &str), String> {
    let end = line.find(|c| c == '=' || is_blank(c)).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let Some(rest) = rest.strip_prefix('=') else {
        return Err(format!("a word without =; {PAIRS}"));
    };
    match rest.strip_prefix('"') {
        Some(quoted) => {
            let (value, after) =
                unquote(quoted).ok_or("a quote is not closed; write \" behind the value as well")?;
            Ok((key, value, after))
        }
        None => {
            let end = rest.find(is_blank).unwrap_or(rest.len());
            Ok((key, rest[..end].into(), &rest[end..]))
        }
    }
}

/// What is before the closing quote, a backslash taking the next character as it is, and what is behind it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            other => value.push(other),
        }
    }
    None
}

const PAIRS: &str = "write key=value without blanks around = and within ranges, put lists in quotes, and comments on lines of \
                     their own";

const DIRECTIVES: [&str; 3] = ["no_socks", "auth", "dest_ip"];

const KEYS: [(&str, Key); 5] = [
    ("dest_ip", Key::DestIp),
    ("parent", Key::Parent),
    ("primary_parent", Key::Parent),
    ("round_robin", Key::RoundRobin),
    ("go_direct", Key::GoDirect),
];

const ROUND_ROBINS: [(&str, RoundRobin); 5] = [
    ("false", RoundRobin::False),
    ("strict", RoundRobin::Strict),
    ("true", RoundRobin::True),
    ("latched", RoundRobin::Latched),
    ("consistent_hash", RoundRobin::ConsistentHash),
];

#[cfg(test)]
#[path = "tests/socks_config.rs"]
mod tests;
