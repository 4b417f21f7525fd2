//! `records.config`: the settings of SOCKS among all the others.
//!
//! ```text
//!  CONFIG proxy.config.socks.socks_version INT 5
//! ```

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::parents::read_parents;
use super::{Findings, ParentAt, is_blank, shown};
use crate::reference::{is_nearly, nearest};
use crate::report::Report;

/// What a `records.config` says of SOCKS; the default is what holds where it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Records {
    /// Whether anything goes through a parent at all; see [`Records::check_needed`].
    pub(crate) socks_needed: bool,
    /// What parents speak.
    pub(crate) version: Version,
    /// For each send or receive of the negotiation with a parent.
    pub(crate) socks_timeout: Duration,
    /// Until a connection to a parent stands.
    pub(crate) server_connect_timeout: Duration,
    /// Tries at one parent before the next has its turn.
    pub(crate) per_server_connection_attempts: NonZeroU32,
    /// Tries for one session, all parents together.
    pub(crate) connection_attempts: NonZeroU32,
    /// The parents of every target that no rule is for, in order, as with `round_robin=false`. Without any, such a target is refused.
    pub(crate) default_servers: Vec<ParentAt>,
    /// How long a parent that is down is left alone.
    pub(crate) server_retry_time: Duration,
    /// Failures within that time that make a parent count as down.
    pub(crate) server_fail_threshold: NonZeroU32,
    /// Whether clients are to be served.
    pub(crate) accept_enabled: bool,
    /// Where, if so.
    pub(crate) accept_port: u16,
    /// The port whose sessions Traffic Server would hand to its HTTP cache. There is none here: every port is a session like others.
    pub(crate) http_port: u16,
    /// Where the rules are; relative to the directory of the file that says it.
    pub(crate) config_file: PathBuf,
    /// Where `socks_needed` was said: the line, or else the file.
    needed_place: String,
}

/// What parents speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V5,
}

impl Records {
    /// Reads the text of `file`, which is named so in what goes into `report`. What is not about SOCKS is somebody else's.
    pub(crate) fn read(text: &str, file: &str, report: &mut Report) -> Option<Self> {
        let mut findings = Findings::new(file);
        let mut records = Self { needed_place: file.into(), ..Self::default() };
        let mut said = Vec::new();
        let mut is_other_format = None;
        findings.read_lines(text, |line, findings| match Line::split(line) {
            Some(line) => {
                is_other_format = Some(false);
                if line.name.to_ascii_lowercase().starts_with(PREFIX) {
                    records.read_line(&line, &mut said, findings);
                }
            }
            None => {
                is_other_format.get_or_insert(true);
                if line.to_ascii_lowercase().contains(PREFIX) {
                    findings.error(format!("is not like the lines of records.config; {WANTED}"));
                }
            }
        });
        if is_other_format == Some(true) && findings.found.errors.is_empty() {
            let text = format!("has no line of records.config, and records.yaml is not read; {WANTED}");
            findings.found.error(file, text);
        }
        findings.finish(records, report)
    }

    /// An error if the file does not ask for parents: sessions would go direct that its owner has parents for.
    pub(crate) fn check_needed(&self, report: &mut Report) {
        if !self.socks_needed {
            report.error(
                &self.needed_place,
                "the file says socks_needed 0, or does not say it, so nothing would go through a parent: write CONFIG \
                 proxy.config.socks.socks_needed INT 1, or take the key out",
            );
        }
    }

    /// Reads a line about SOCKS; `said` are the names of those before it.
    fn read_line(&mut self, line: &Line<'_>, said: &mut Vec<Name>, findings: &mut Findings<'_>) {
        let short = &line.name[PREFIX.len()..];
        let Some((known, name)) = NAMES.into_iter().find(|(known, _)| *known == short) else {
            let unknown = format!("unknown name {}", shown(line.name));
            return match nearest(short, NAMES.into_iter().map(|(known, _)| known)) {
                // Left aside, one letter would make a line say nothing of what it was written for: parents, or that they are needed.
                Some(near) if is_nearly(short, near) => {
                    findings
                        .error(format!("{unknown}; did you mean {PREFIX}{near}? correct it, or take it out"));
                }
                Some(near) => {
                    findings.warn(format!("{unknown}, which is left aside; did you mean {PREFIX}{near}?"));
                }
                None => findings.warn(format!("{unknown}, which is left aside")),
            };
        };
        if said.contains(&name) {
            findings.warn(format!("{known} was said before; this is what counts"));
        }
        said.push(name);
        if !line.kind.eq_ignore_ascii_case(name.kind()) {
            return findings.error(format!(
                "{known} is of type {}, not {}; write CONFIG {PREFIX}{known} {} VALUE",
                name.kind(),
                if line.kind.is_empty() { "none".into() } else { shown(line.kind) },
                name.kind()
            ));
        }
        self.take(name, Value { name: known, text: line.value }, findings);
    }

    fn take(&mut self, name: Name, value: Value<'_>, findings: &mut Findings<'_>) {
        match name {
            Name::SocksNeeded => {
                self.needed_place = findings.place();
                set(&mut self.socks_needed, value.switch(findings));
            }
            Name::SocksVersion => match value.text {
                "4" => self.version = Version::V4,
                "5" => self.version = Version::V5,
                _ => value.refuse("the versions of SOCKS are 4 and 5", findings),
            },
            Name::SocksConfigFile => self.take_config_file(value, findings),
            Name::SocksTimeout => set(&mut self.socks_timeout, value.secs(findings)),
            Name::ServerConnectTimeout => set(&mut self.server_connect_timeout, value.secs(findings)),
            Name::PerServerConnectionAttempts => {
                set(&mut self.per_server_connection_attempts, value.count(findings));
            }
            Name::ConnectionAttempts => set(&mut self.connection_attempts, value.count(findings)),
            Name::ServerRetryTimeout => {
                if value.secs(findings).is_some_and(|secs| secs != RETRY) {
                    findings.warn("server_retry_timeout is read by nothing, here and in Traffic Server; set server_retry_time");
                }
            }
            Name::DefaultServers => {
                self.default_servers = match value.string() {
                    "" => Vec::new(),
                    list => read_parents(value.name, list, findings),
                };
            }
            Name::ServerRetryTime => set(&mut self.server_retry_time, value.secs(findings)),
            Name::ServerFailThreshold => set(&mut self.server_fail_threshold, value.count(findings)),
            Name::AcceptEnabled => set(&mut self.accept_enabled, value.switch(findings)),
            Name::AcceptPort => set(&mut self.accept_port, value.port(findings)),
            Name::HttpPort => set(&mut self.http_port, value.port(findings)),
        }
    }

    fn take_config_file(&mut self, value: Value<'_>, findings: &mut Findings<'_>) {
        match value.string() {
            "" => value.refuse("it is the name of a file, such as socks.config", findings),
            name if name.to_ascii_lowercase().ends_with(".yaml") => {
                value.refuse("socks.yaml is not read; write the same as socks.config", findings);
            }
            name => self.config_file = name.into(),
        }
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

impl Default for Records {
    fn default() -> Self {
        Self {
            socks_needed: false,
            version: Version::V4,
            socks_timeout: Duration::from_secs(100),
            server_connect_timeout: Duration::from_secs(10),
            per_server_connection_attempts: NonZeroU32::MIN,
            connection_attempts: NonZeroU32::MIN.saturating_add(3),
            default_servers: Vec::new(),
            server_retry_time: RETRY,
            server_fail_threshold: NonZeroU32::MIN.saturating_add(1),
            accept_enabled: false,
            accept_port: 1080,
            http_port: 80,
            config_file: "socks.config".into(),
            needed_place: String::new(),
        }
    }
}

/// `CONFIG name TYPE value`; the value may have blanks.
struct Line<'a> {
    name: &'a str,
    kind: &'a str,
    value: &'a str,
}

impl<'a> Line<'a> {
    /// Nothing if it begins otherwise.
    fn split(line: &'a str) -> Option<Self> {
        let (scope, rest) = split_word(line);
        let (name, rest) = split_word(rest);
        let (kind, rest) = split_word(rest);
        let value = rest.trim_matches(is_blank);
        SCOPES.contains(&scope).then_some(Self { name, kind, value })
    }
}

fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches(is_blank);
    text.split_at(text.find(is_blank).unwrap_or(text.len()))
}

/// What is said of a name.
#[derive(Clone, Copy)]
struct Value<'a> {
    name: &'static str,
    text: &'a str,
}

impl<'a> Value<'a> {
    fn switch(self, findings: &mut Findings<'_>) -> Option<bool> {
        self.number(0..=1, "write 1 for on or 0 for off", findings).map(|number| number == 1)
    }

    fn secs(self, findings: &mut Findings<'_>) -> Option<Duration> {
        let secs = self.number(1..=SECS_MAX, Wanted("seconds", SECS_MAX), findings)?;
        Some(Duration::from_secs(secs.into()))
    }

    fn count(self, findings: &mut Findings<'_>) -> Option<NonZeroU32> {
        NonZeroU32::new(self.number(1..=COUNT_MAX, Wanted("a number", COUNT_MAX), findings)?)
    }

    fn port(self, findings: &mut Findings<'_>) -> Option<u16> {
        let most = u16::MAX.into();
        self.number(1..=most, Wanted("a port", most), findings)?.try_into().ok()
    }

    fn number(
        self,
        fit: RangeInclusive<u32>,
        remedy: impl fmt::Display,
        findings: &mut Findings<'_>,
    ) -> Option<u32> {
        let digits = self.text.bytes().all(|byte| byte.is_ascii_digit());
        let number = self.text.parse().ok().filter(|number| digits && fit.contains(number));
        if number.is_none() {
            self.refuse(remedy, findings);
        }
        number
    }

    /// The text without quotes around it; `NULL` is how Traffic Server writes that there is none.
    fn string(self) -> &'a str {
        let bare = self.text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let text = bare.unwrap_or(self.text);
        if text == "NULL" { "" } else { text }
    }

    fn refuse(self, remedy: impl fmt::Display, findings: &mut Findings<'_>) {
        let text = if self.text.is_empty() { "nothing".into() } else { shown(self.text) };
        findings.error(format!("{}: {text} does not do; {remedy}", self.name));
    }
}

/// A unit, from 1 to the most.
struct Wanted(&'static str, u32);

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write {} from 1 to {}", self.0, self.1)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    SocksNeeded,
    SocksVersion,
    SocksConfigFile,
    SocksTimeout,
    ServerConnectTimeout,
    PerServerConnectionAttempts,
    ConnectionAttempts,
    ServerRetryTimeout,
    DefaultServers,
    ServerRetryTime,
    ServerFailThreshold,
    AcceptEnabled,
    AcceptPort,
    HttpPort,
}

impl Name {
    fn kind(self) -> &'static str {
        match self {
            Self::SocksConfigFile | Self::DefaultServers => "STRING",
            Self::SocksNeeded
            | Self::SocksVersion
            | Self::SocksTimeout
            | Self::ServerConnectTimeout
            | Self::PerServerConnectionAttempts
            | Self::ConnectionAttempts
            | Self::ServerRetryTimeout
            | Self::ServerRetryTime
            | Self::ServerFailThreshold
            | Self::AcceptEnabled
            | Self::AcceptPort
            | Self::HttpPort => "INT",
        }
    }
}

const PREFIX: &str = "proxy.config.socks.";

const NAMES: [(&str, Name); 14] = [
    ("socks_needed", Name::SocksNeeded),
    ("socks_version", Name::SocksVersion),
    ("socks_config_file", Name::SocksConfigFile),
    ("socks_timeout", Name::SocksTimeout),
    ("server_connect_timeout", Name::ServerConnectTimeout),
    ("per_server_connection_attempts", Name::PerServerConnectionAttempts),
    ("connection_attempts", Name::ConnectionAttempts),
    ("server_retry_timeout", Name::ServerRetryTimeout),
    ("default_servers", Name::DefaultServers),
    ("server_retry_time", Name::ServerRetryTime),
    ("server_fail_threshold", Name::ServerFailThreshold),
    ("accept_enabled", Name::AcceptEnabled),
    ("accept_port", Name::AcceptPort),
    ("http_port", Name::HttpPort),
];

/// What lines of settings begin with. The others are for Traffic Server's own processes.
const SCOPES: [&str; 2] = ["CONFIG", "LOCAL"];

const WANTED: &str = "write CONFIG NAME TYPE VALUE";

/// Of both names: the one that is followed and the one that nothing reads.
const RETRY: Duration = Duration::from_secs(300);

/// A week. Whoever waits longer for a proxy means something else.
const SECS_MAX: u32 = 7 * 86_400;

/// More tries or failures than this are the same as without end.
const COUNT_MAX: u32 = 1000;

#[cfg(test)]
#[path = "tests/records.rs"]
mod tests;
