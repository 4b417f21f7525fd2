//! Where sessions go, of which one is enough: names, suffixes, words and patterns in names, and networks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use ipnet::IpNet;
use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};
use umbra_proto::address::Address;
use umbra_proto::limits::DOMAIN_NAME_BYTES_MAX;

use super::domains::{Domains, DomainsBuilder, Kind, Name};
use super::{Networks, Target};
use crate::limits::{
    KEYWORD_BYTES_MAX, KEYWORDS_MAX, PATTERN_BYTES_MAX, PATTERN_PROGRAM_BYTES_MAX, PATTERNS_CACHE_BYTES_MAX,
    PATTERNS_MAX, PATTERNS_PROGRAM_BYTES_MAX, RULE_ENTRIES_MAX,
};

/// Names, suffixes, words, patterns and networks. Nothing at all fits where all are empty.
///
/// Letters are compared without regard to case in ASCII, and one dot at the end of a name counts for nothing. An IP address is in
/// networks or is not; no name, word or pattern fits it.
#[derive(Default)]
pub struct Targets {
    domains: Domains,
    keywords: Option<Keywords>,
    patterns: Option<RegexSet>,
    networks: Networks,
}

/// Targets that are still being said.
#[derive(Default)]
pub struct TargetsBuilder {
    domains: DomainsBuilder,
    keywords: Vec<Box<str>>,
    keyword_bytes: usize,
    patterns: Vec<Box<str>>,
    networks: Vec<IpNet>,
}

struct Keywords {
    texts: Box<[Box<str>]>,
    search: AhoCorasick,
}

/// What in the targets of a rule fits, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit<'t> {
    /// The name itself.
    Exact(&'t str),
    /// The name, or one that it is below of.
    Suffix(&'t str),
    /// A word in the name.
    Keyword(&'t str),
    /// A pattern that the name has.
    Pattern(&'t str),
    /// The address, within this range.
    Range(IpAddr, IpAddr),
}

/// Why something cannot be a target of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// There is nothing in it.
    Empty,
    /// A name of more than 255 bytes, or a pattern that is longer than patterns may be.
    Long,
    /// A name in letters in which it is not asked for.
    NotAscii,
    /// No name has this.
    Character(char),
    /// Two dots meet, or one is at the start.
    EmptyLabel,
    /// An IP address where a name is wanted.
    AddressAsName,
    /// Neither a network nor an address.
    NoNetwork,
    /// A pattern that cannot be read, and why.
    Pattern(Box<str>),
    /// A pattern that would be too slow.
    LargePattern,
    /// A pattern that fits every name, as one does that fits no letters at all.
    FitsAll,
    /// More words or patterns, or more of everything, than one rule may have.
    TooMany,
}

impl TargetsBuilder {
    /// This name and no other.
    pub fn exact(&mut self, name: &str) -> Result<(), EntryError> {
        self.name(name, Kind::Exact)
    }

    /// This name and all names below it.
    pub fn suffix(&mut self, name: &str) -> Result<(), EntryError> {
        self.name(name, Kind::Suffix)
    }

    /// All names in which `word` is, wherever.
    pub fn keyword(&mut self, word: &str) -> Result<(), EntryError> {
        check_characters(word)?;
        self.keyword_bytes += word.len();
        if self.keywords.len() >= KEYWORDS_MAX || self.keyword_bytes > KEYWORD_BYTES_MAX {
            return Err(EntryError::TooMany);
        }
        self.keywords.push(word.into());
        Ok(())
    }

    /// All names that have `pattern`, a regular expression, somewhere. One that is a name or a suffix in other words becomes
    /// that.
    pub fn pattern(&mut self, pattern: &str) -> Result<(), EntryError> {
        if pattern.is_empty() {
            return Err(EntryError::Empty);
        }
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(EntryError::Long);
        }
        if !pattern.is_ascii() {
            return Err(EntryError::NotAscii);
        }
        if let Some((name, kind)) = plain_name(pattern)
            && self.name(&name, kind).is_ok()
        {
            return Ok(());
        }
        if self.patterns.len() >= PATTERNS_MAX {
            return Err(EntryError::TooMany);
        }
        let alone = RegexBuilder::new(pattern)
            .unicode(false)
            .case_insensitive(true)
            .size_limit(PATTERN_PROGRAM_BYTES_MAX)
            .build();
        let alone = alone.map_err(|error| explain_pattern(&error))?;
        if !EVERYTHING.contains(&pattern) && alone.is_match(b"") && alone.is_match(&ALL_CHARACTERS) {
            return Err(EntryError::FitsAll);
        }
        self.patterns.push(pattern.into());
        Ok(())
    }

    /// All addresses of `network`, and all names that have an address there.
    pub fn network(&mut self, network: IpNet) -> Result<(), EntryError> {
        self.check_room()?;
        self.networks.push(network);
        Ok(())
    }

    /// The same for a network or an address in text.
    pub fn network_text(&mut self, text: &str) -> Result<(), EntryError> {
        self.network(parse_network(text).ok_or(EntryError::NoNetwork)?)
    }

    /// All of it.
    pub fn build(self) -> Result<Targets, EntryError> {
        let patterns = (!self.patterns.is_empty()).then(|| {
            RegexSetBuilder::new(&self.patterns)
                .unicode(false)
                .case_insensitive(true)
                .size_limit(PATTERNS_PROGRAM_BYTES_MAX)
                .dfa_size_limit(PATTERNS_CACHE_BYTES_MAX)
                .build()
                // Each is good by itself.
                .map_err(|_| EntryError::TooMany)
        });
        let keywords = (!self.keywords.is_empty()).then(|| {
            AhoCorasick::builder()
                .ascii_case_insensitive(true)
                // The one of the three whose size is never far above that of the words.
                .kind(Some(AhoCorasickKind::ContiguousNFA))
                .build(self.keywords.iter().map(|word| word.as_bytes()))
                .map(|search| Keywords { texts: self.keywords.into(), search })
                .map_err(|_| EntryError::TooMany)
        });
        Ok(Targets {
            domains: self.domains.build(),
            keywords: keywords.transpose()?,
            patterns: patterns.transpose()?,
            networks: Networks::new(self.networks),
        })
    }

    fn name(&mut self, name: &str, kind: Kind) -> Result<(), EntryError> {
        let name = name.strip_suffix('.').unwrap_or(name);
        check_name(name)?;
        self.check_room()?;
        self.domains.insert(name, kind);
        Ok(())
    }

    fn check_room(&self) -> Result<(), EntryError> {
        let room = self.domains.len() + self.networks.len() < RULE_ENTRIES_MAX;
        room.then_some(()).ok_or(EntryError::TooMany)
    }
}

impl Targets {
    /// Networks alone.
    pub fn of_networks(networks: Networks) -> Self {
        Self { networks, ..Self::default() }
    }

    /// The same names, with these networks.
    #[must_use]
    pub fn with_networks(self, networks: Networks) -> Self {
        Self { networks, ..self }
    }

    /// Whether no name, word or pattern is among them.
    pub fn is_nameless(&self) -> bool {
        self.domains.len() == 0 && self.keywords.is_none() && self.patterns.is_none()
    }

    /// The networks among them.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// What it is among these by which a rule with them fits `target`, which is a name that resolves to `addresses`, or an IP
    /// address. Slower than a rule's own question, and meant for explaining.
    pub fn explain(&self, target: &Address, addresses: &[SocketAddr]) -> Option<Fit<'_>> {
        let range = |address| self.networks.range(address).map(|(first, last)| Fit::Range(first, last));
        match Target::new(target) {
            Target::Ip(address) => range(address),
            Target::Name(name) => {
                self.explain_name(&name).or_else(|| addresses.iter().find_map(|address| range(address.ip())))
            }
        }
    }

    pub(super) fn has_name(&self, name: &Name) -> bool {
        let name = name.as_bytes();
        self.domains.find(name).is_some()
            || self.keywords.as_ref().is_some_and(|keywords| keywords.search.is_match(name))
            || self.patterns.as_ref().is_some_and(|patterns| patterns.is_match(name))
    }

    fn explain_name(&self, name: &Name) -> Option<Fit<'_>> {
        let name = name.as_bytes();
        if let Some((kind, text)) = self.domains.find(name) {
            return Some(match kind {
                Kind::Exact => Fit::Exact(text),
                Kind::Suffix => Fit::Suffix(text),
            });
        }
        if let Some(keywords) = &self.keywords
            && let Some(found) = keywords.search.find(name)
        {
            return Some(Fit::Keyword(&keywords.texts[found.pattern().as_usize()]));
        }
        let patterns = self.patterns.as_ref()?;
        let first = patterns.matches(name).into_iter().next()?;
        Some(Fit::Pattern(&patterns.patterns()[first]))
    }
}

/// The network that `text` is; an address is one of itself alone. A number with a zero in front is read in several ways, and is none
/// here.
pub fn parse_network(text: &str) -> Option<IpNet> {
    let Some((address, len)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    // The standard library's addresses, since those of networks are read with zeros in front.
    let address = address.parse().ok()?;
    let is_number = len.bytes().all(|byte| byte.is_ascii_digit());
    let len = len.parse().ok().filter(|_| is_number)?;
    IpNet::new(address, len).ok()
}

fn check_name(name: &str) -> Result<(), EntryError> {
    check_characters(name)?;
    let mut before = b'.';
    for byte in name.bytes() {
        if byte == b'.' && before == b'.' {
            return Err(EntryError::EmptyLabel);
        }
        before = byte;
    }
    if before == b'.' {
        return Err(EntryError::EmptyLabel);
    }
    if before.is_ascii_digit() && name.parse::<IpAddr>().is_ok() {
        return Err(EntryError::AddressAsName);
    }
    Ok(())
}

fn check_characters(text: &str) -> Result<(), EntryError> {
    if text.is_empty() {
        return Err(EntryError::Empty);
    }
    if text.len() > DOMAIN_NAME_BYTES_MAX {
        return Err(EntryError::Long);
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match text.bytes().find(|byte| !good(*byte)) {
        None => Ok(()),
        Some(_) if !text.is_ascii() => Err(EntryError::NotAscii),
        Some(byte) => Err(EntryError::Character(byte.into())),
    }
}

/// How one says that every name is meant.
const EVERYTHING: [&str; 4] = [".*", "^.*$", "^.*", ".*$"];

/// What only a pattern has that fits all names: `^[^.]*$`, the names without a dot, fits none of them as well.
const ALL_CHARACTERS: [u8; 94] = {
    let mut all = [b'!'; 94];
    let mut index = 1;
    while index < all.len() {
        all[index] = all[index - 1] + 1;
        index += 1;
    }
    all
};

/// The name that `pattern` is in other words: `^a\.example$`, or `(^|\.)a\.example$` with all that is below it. Lists have
/// thousands of these, and a set of names takes them as they come.
fn plain_name(pattern: &str) -> Option<(String, Kind)> {
    let pattern = pattern.strip_suffix('$')?;
    let suffix = ["(^|\\.)", "(?:^|\\.)", "(\\.|^)", "(?:\\.|^)"].iter();
    let suffix = suffix.filter_map(|start| pattern.strip_prefix(start)).next();
    let (literal, kind) = match suffix {
        Some(literal) => (literal, Kind::Suffix),
        None => (pattern.strip_prefix('^')?, Kind::Exact),
    };
    let (mut name, mut chars) = (String::with_capacity(literal.len()), literal.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => name.push(chars.next().filter(|c| matches!(c, '.' | '-'))?),
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') => name.push(c),
            _ => return None,
        }
    }
    // A dot at the end would have to be in the name, where it counts for nothing.
    (!name.ends_with('.')).then_some((name, kind))
}

fn explain_pattern(error: &regex::Error) -> EntryError {
    if let regex::Error::CompiledTooBig(_) = error {
        return EntryError::LargePattern;
    }
    // The last line says what is wrong, those before it draw where.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    EntryError::Pattern(last.strip_prefix("error: ").unwrap_or(last).into())
}

impl EntryError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Empty => "write a name, or take the line out",
            Self::Long => "split it, or write a shorter one that fits the same names",
            Self::NotAscii => "write a name as programs ask for it: xn--…, which is punycode",
            Self::Character(_) => {
                "a name has letters, digits, '-', '_' and '.'; one that is written without '*' fits all below it as well"
            }
            Self::EmptyLabel => "write it without that dot: example.com fits all below it as well",
            Self::AddressAsName => "write it as a network: 192.0.2.1/32",
            Self::NoNetwork => {
                "write 192.0.2.0/24, 2001:db8::/32, or one address, in decimal without zeros in front, each on its own"
            }
            Self::Pattern(_) => {
                "write it in the syntax of Rust's regex, which has no look-around and no back-references"
            }
            Self::FitsAll => "take out the part of it that may be empty, or write .* if every name is meant",
            Self::LargePattern => "take out repetitions of repetitions, or split it",
            Self::TooMany => "split the list among several rules, or write suffixes in place of patterns",
        }
    }
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is nothing to compare with"),
            Self::Long => write!(
                f,
                "it is too long: a name has at most {DOMAIN_NAME_BYTES_MAX} bytes, a pattern {PATTERN_BYTES_MAX}"
            ),
            Self::NotAscii => f.write_str("it has letters that are not ASCII, and would fit no name"),
            Self::Character(c) => write!(f, "no name has {c:?}"),
            Self::EmptyLabel => f.write_str("a dot is at its start, or next to another one"),
            Self::AddressAsName => f.write_str("it is an IP address, which no rule about names fits"),
            Self::NoNetwork => f.write_str("it is neither a network nor an IP address"),
            Self::Pattern(why) => write!(f, "it is no regular expression: {why}"),
            Self::FitsAll => {
                f.write_str("the regular expression fits every name, since it fits one without letters")
            }
            Self::LargePattern => f.write_str("the regular expression is too large to be fast"),
            Self::TooMany => f.write_str("there are more entries than one rule may have"),
        }
    }
}

impl std::error::Error for EntryError {}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Targets")
            .field("names", &self.domains.len())
            .field("keywords", &self.keywords.as_ref().map_or(0, |keywords| keywords.texts.len()))
            .field("patterns", &self.patterns.as_ref().map_or(0, RegexSet::len))
            .field("ranges", &self.networks.len())
            .finish()
    }
}

impl fmt::Debug for TargetsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetsBuilder")
            .field("names", &self.domains.len())
            .field("keywords", &self.keywords.len())
            .field("patterns", &self.patterns.len())
            .field("networks", &self.networks.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Add = fn(&mut TargetsBuilder, &str) -> Result<(), EntryError>;

    fn targets(entries: &[(Add, &str)]) -> Targets {
        let mut builder = TargetsBuilder::default();
        for (add, text) in entries {
            add(&mut builder, text).unwrap();
        }
        builder.build().unwrap()
    }

    fn fit<'t>(targets: &'t Targets, target: &str) -> Option<Fit<'t>> {
        targets.explain(&Address::from_host(target, 443).unwrap(), &[])
    }

    #[test]
    fn each_kind_of_entry_fits_what_it_should_and_says_so() {
        let set = targets(&[
            (TargetsBuilder::exact, "one.example."),
            (TargetsBuilder::suffix, "Two.example"),
            (TargetsBuilder::keyword, "Thr3e"),
            (TargetsBuilder::pattern, r"^four\d+\."),
            (TargetsBuilder::network_text, "192.0.2.7"),
        ]);
        assert_eq!(fit(&set, "ONE.example"), Some(Fit::Exact("one.example")));
        assert_eq!(fit(&set, "one.example."), Some(Fit::Exact("one.example")));
        assert_eq!(fit(&set, "a.tWo.eXample."), Some(Fit::Suffix("two.example")));
        assert_eq!(fit(&set, "xthr3ex"), Some(Fit::Keyword("Thr3e")));
        assert_eq!(fit(&set, "FOUR44.x"), Some(Fit::Pattern(r"^four\d+\.")));
        let address = "192.0.2.7".parse().unwrap();
        assert_eq!(fit(&set, "::ffff:192.0.2.7"), Some(Fit::Range(address, address)));
        for nothing in ["a.one.example", "xtwo.example", "four.x", "192.0.2.8", "one.example..", "."] {
            assert_eq!(fit(&set, nothing), None, "{nothing}");
        }
    }

    #[test]
    fn no_name_word_or_pattern_fits_an_address() {
        let set = targets(&[
            (TargetsBuilder::keyword, "192"),
            (TargetsBuilder::pattern, "."),
            (TargetsBuilder::keyword, "0"),
            (TargetsBuilder::suffix, "7"),
        ]);
        assert_eq!(fit(&set, "192.0.2.7"), None);
        assert_eq!(fit(&set, "2001:db8::192"), None);
        assert!(fit(&set, "192.0.2.7.example").is_some());
    }

    #[test]
    fn a_pattern_that_is_a_name_or_a_suffix_becomes_that_and_nothing_else_does() {
        let plain = |pattern| plain_name(pattern).map(|(name, kind)| (name, kind == Kind::Suffix));
        for pattern in [r"(^|\.)a-b\.example$", r"(?:^|\.)a\-b\.example$", r"(\.|^)a-b\.example$"] {
            assert_eq!(plain(pattern), Some(("a-b.example".into(), true)), "{pattern}");
        }
        assert_eq!(plain(r"^a\.example$"), Some(("a.example".into(), false)));
        for pattern in [
            r"(^|\.)a\.example",
            r"a\.example$",
            r"^a.example$",
            r"^a\.example\.$",
            r"^a\.(b|c)$",
            r"^a\w$",
            r"^a\\$",
            r"^a\",
        ] {
            assert_eq!(plain(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn what_would_fit_nothing_is_an_error_and_says_what_to_do() {
        let mut builder = TargetsBuilder::default();
        let long = "a".repeat(256);
        let wrong: [(Add, &str, EntryError); 20] = [
            (TargetsBuilder::exact, "", EntryError::Empty),
            (TargetsBuilder::exact, ".", EntryError::Empty),
            (TargetsBuilder::suffix, &long, EntryError::Long),
            (TargetsBuilder::suffix, "bücher.example", EntryError::NotAscii),
            (TargetsBuilder::suffix, "*.example", EntryError::Character('*')),
            (TargetsBuilder::suffix, "a.example:443", EntryError::Character(':')),
            (TargetsBuilder::suffix, ".example", EntryError::EmptyLabel),
            (TargetsBuilder::suffix, "a..example", EntryError::EmptyLabel),
            (TargetsBuilder::suffix, "example..", EntryError::EmptyLabel),
            (TargetsBuilder::exact, "192.0.2.1", EntryError::AddressAsName),
            (TargetsBuilder::keyword, "", EntryError::Empty),
            (TargetsBuilder::keyword, "a b", EntryError::Character(' ')),
            (TargetsBuilder::pattern, "", EntryError::Empty),
            (TargetsBuilder::pattern, "ü", EntryError::NotAscii),
            (TargetsBuilder::network_text, "10.0.0.0/33", EntryError::NoNetwork),
            (TargetsBuilder::network_text, "a.example", EntryError::NoNetwork),
            (TargetsBuilder::network_text, "010.0.0.1/8", EntryError::NoNetwork),
            (TargetsBuilder::network_text, "010.0.0.1", EntryError::NoNetwork),
            (TargetsBuilder::network_text, "10.0.0.0/+8", EntryError::NoNetwork),
            (TargetsBuilder::network_text, "10.0.0.0/", EntryError::NoNetwork),
        ];
        for (add, text, error) in wrong {
            assert_eq!(add(&mut builder, text), Err(error), "{text}");
        }
        for pattern in ["(", "a{2,1}", r"(?=a)", r"(a)\1", "[b-a]", "*"] {
            let error = builder.pattern(pattern).unwrap_err();
            assert!(matches!(error, EntryError::Pattern(_)) && !error.to_string().contains('\n'), "{error}");
        }
        assert_eq!(builder.pattern(&"a".repeat(PATTERN_BYTES_MAX + 1)), Err(EntryError::Long));
        assert!(builder.build().unwrap().is_nameless(), "what was wrong is not half taken");
    }

    #[test]
    fn patterns_that_would_be_slow_or_huge_are_refused_or_fast() {
        let mut builder = TargetsBuilder::default();
        for huge in ["(a{500}){500}", "((a{99}){99}){99}", "x{60000}"] {
            assert_eq!(builder.pattern(huge), Err(EntryError::LargePattern), "{huge}");
        }
        // What takes a search that goes back exponential time.
        for slow in ["^(a+)+$", "^(a|aa)+$", "^(a|a?)+$", "(.*)*(.*)*(.*)*z$", "^(([a-z])+.)+[A-Z]([a-z])+$"]
        {
            builder.pattern(slow).unwrap();
        }
        let set = builder.build().unwrap();
        assert!(fit(&set, &"a".repeat(255)).is_some());
        assert_eq!(fit(&set, &("a".repeat(126) + "-" + &"0".repeat(126) + "!")), None);
    }

    #[test]
    fn a_pattern_that_fits_every_name_is_said_as_such() {
        let mut builder = TargetsBuilder::default();
        for pattern in ["(a|)", "a*", "^a?", "(ads)?$", "a|", "()", "(?:)", "^", "$", "(.*)", r"\b|"] {
            assert_eq!(builder.pattern(pattern), Err(EntryError::FitsAll), "{pattern}");
        }
        for pattern in [".*", "^.*$", r"^[^.]*$", "^a*$", "^(ads)?$", ".", ".+", "^(a|)b$", "a*b"] {
            assert_eq!(builder.pattern(pattern), Ok(()), "{pattern}");
        }
        assert!(fit(&builder.build().unwrap(), "any.example").is_some());
    }

    #[test]
    fn there_is_an_end_to_words_and_patterns() {
        let mut builder = TargetsBuilder::default();
        let words = (0..).map(|number| format!("{number:0255}"));
        let refused = words.map(|word| builder.keyword(&word)).position(|added| added.is_err());
        assert_eq!(refused, Some(KEYWORD_BYTES_MAX / 255));
        builder.patterns = vec!["a".into(); PATTERNS_MAX];
        assert_eq!(builder.pattern("b+"), Err(EntryError::TooMany));
        assert_eq!(builder.pattern("^b$"), Ok(()), "a name in other words takes none of their room");
    }
}
