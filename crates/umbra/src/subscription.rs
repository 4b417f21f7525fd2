//! Servers from a document that is kept elsewhere (SIP008): where it is, what it says, and how it is kept fresh.
//!
//! Whoever knows the address of such a document knows the passwords in it. It is never printed whole: a host or the name of a file
//! stands for it.

mod document;
mod fetch;
mod refresh;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use ureq::http::Uri;
use zeroize::Zeroizing;

pub(crate) use document::{Document, Usage, left_out};
pub(crate) use refresh::{Refresher, Shelves};

use crate::raw::Settings;
use crate::reference::Id;
use crate::report::Report;

/// A document to be loaded, and how often.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Where it is.
    pub(crate) source: Source,
    /// From one load to the next.
    pub(crate) interval: Duration,
    /// Where it was asked for.
    pub(crate) place: String,
    /// Whether its servers take the place of those in the file.
    pub(crate) alone: bool,
}

/// Where a document is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file of this machine.
    File(PathBuf),
    /// Somewhere else.
    Web(Web),
}

/// Why there is no document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unloaded {
    why: String,
    /// It may be another matter a while later, without anybody's doing: the network is down, or whoever keeps the document is.
    pub(crate) may_pass: bool,
}

/// A URL, which is a secret but for its host.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Web {
    url: Zeroizing<String>,
    host: String,
    /// Whether TLS protects it.
    is_https: bool,
}

impl Subscription {
    /// What `online_config` of a file asks for.
    pub(crate) fn from_settings(root: &Settings, report: &mut Report) -> Option<Self> {
        Self::from_object(root.object(Id::OnlineConfig)?, report)
    }

    /// What an object with `config_url` asks for.
    pub(crate) fn from_object(object: &Settings, report: &mut Report) -> Option<Self> {
        let Some((text, place)) = object.text(Id::ConfigUrl).filter(|(text, _)| !text.is_empty()) else {
            report.error(object.key_path("config_url"), "missing; say where the document is: https://…");
            return None;
        };
        Self::named(text, place, object, report)
    }

    /// The document at `text`, as often as `object` says, if it says so.
    pub(crate) fn named(text: &str, place: &str, object: &Settings, report: &mut Report) -> Option<Self> {
        let interval = Duration::from_secs(read_interval(object, report));
        let source = read_source(text, place, report)?;
        Some(Self { source, interval, place: place.into(), alone: false })
    }

    /// What is given with `--server-url` and is no `ss://` link.
    pub(crate) fn from_flag(text: &str, report: &mut Report) -> Option<Self> {
        let named = Self::named(text, "--server-url", &Settings::default(), report)?;
        Some(Self { alone: true, ..named })
    }

    /// Loads the document. An error does not say where it is, beyond its host.
    pub(crate) fn load(&self) -> Result<Document, Unloaded> {
        let text = match &self.source {
            Source::File(path) => crate::file::read_text(path, DOCUMENT_BYTES_MAX)
                .map_err(|error| format!("cannot be read: {error}"))?,
            Source::Web(web) => fetch::fetch(web)?,
        };
        Ok(Document::parse(text, &self.source.to_string())?)
    }
}

fn read_interval(object: &Settings, report: &mut Report) -> u64 {
    let Some((secs, place)) = object.number(Id::UpdateInterval) else { return INTERVAL_SECS_DEFAULT };
    if !(1..=INTERVAL_SECS_MAX).contains(&secs) {
        report.error(place, format!("{secs} is no interval; use 1 to {INTERVAL_SECS_MAX} seconds"));
    } else if secs < INTERVAL_SECS_SHORT {
        report.warn(place, "more than once a minute; whoever keeps the document may not like it");
    }
    secs
}

/// So many servers, in words.
pub(crate) fn count_servers(count: usize) -> String {
    if count == 1 { "1 server".into() } else { format!("{count} servers") }
}

/// Whether text in the place of an address means a document: no name and no address has a slash.
pub(crate) fn names_document(text: &str) -> bool {
    text.contains('/')
}

fn read_source(text: &str, place: &str, report: &mut Report) -> Option<Source> {
    match Source::parse(text) {
        Ok(source) => {
            if let Source::Web(Web { is_https: false, .. }) = &source {
                report.warn(place, "without https, which is for trying things on this machine only");
            }
            Some(source)
        }
        Err(why) => {
            report.error(place, why);
            None
        }
    }
}

impl Source {
    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        match scheme.to_lowercase().as_str() {
            "https" | "http" => Web::parse(text).map(Self::Web),
            "ssconf" => Web::parse(&format!("https://{rest}")).map(Self::Web),
            "file" => read_path(rest.strip_prefix("localhost").unwrap_or(rest)),
            "" if text.split_at_checked(6).is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("file:/")) => {
                read_path(&text[5..])
            }
            "" if Path::new(text).is_file() => Ok(Self::File(text.into())),
            // The text is not repeated: it may be a link, with a password in it, that has lost its scheme.
            _ => Err("neither a link (ss://METHOD:PASSWORD@HOST:PORT#NAME), nor the URL of a document of servers (https://…), \
                      nor a file that is there"
                .into()),
        }
    }
}

/// The path of a `file:` URL (RFC 8089), with and without an empty host.
fn read_path(encoded: &str) -> Result<Source, String> {
    let path = percent_decode_str(encoded).decode_utf8().map_err(|_| "its path is not UTF-8".to_owned())?;
    Ok(Source::File(PathBuf::from(&*path)))
}

impl Web {
    fn parse(text: &str) -> Result<Self, String> {
        // What follows # is for whoever asks, not for the server, and is no part of what is asked for.
        let text = text.split_once('#').map_or(text, |(text, _)| text);
        let uri: Uri = text.parse().map_err(|_| "is no URL".to_owned())?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err("is no URL".into());
        };
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !is_loopback(host) {
            return Err(
                "without https, everyone on the way could read and change the servers' passwords; use https"
                    .into(),
            );
        }
        Ok(Self { url: Zeroizing::new(text.into()), host: host.into(), is_https })
    }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

impl Unloaded {
    fn passing(why: String) -> Self {
        Self { why, may_pass: true }
    }
}

/// What is wrong and stays so until somebody does something about it.
impl From<String> for Unloaded {
    fn from(why: String) -> Self {
        Self { why, may_pass: false }
    }
}

impl fmt::Display for Unloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Web(web) => f.write_str(&web.host),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

/// An hour, as shadowsocks-rust has it.
const INTERVAL_SECS_DEFAULT: u64 = 3600;

/// Thirty days: whoever wants it rarer can start again by hand.
const INTERVAL_SECS_MAX: u64 = 30 * 86_400;

/// Below this, somebody's server is asked more often than it is likely to want.
const INTERVAL_SECS_SHORT: u64 = 60;

/// Thousands of servers; keeps whoever gives the document from filling memory.
const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart_and_only_their_host_is_shown() {
        for (text, shown) in [
            ("https://user:secret@example.com:8443/secret/path?token=secret#name", "example.com"),
            ("ssconf://example.com/secret#name", "example.com"),
            ("HTTPS://[2001:db8::1]/secret", "[2001:db8::1]"),
            ("http://127.0.0.1:8080/secret", "127.0.0.1"),
            ("http://localhost/secret", "localhost"),
            ("file:///etc/a%20b.json", "/etc/a b.json"),
            ("file://localhost/etc/x", "/etc/x"),
            ("FILE:/etc/a%20b.json", "/etc/a b.json"),
            ("/etc/passwd", "/etc/passwd"),
        ] {
            let source = Source::parse(text).unwrap();
            assert_eq!(source.to_string(), shown, "{text}");
            assert!(!format!("{source:?}").contains("secret"), "{source:?}");
        }
    }

    #[test]
    fn servers_are_counted_as_people_say_it() {
        assert_eq!([0, 1, 2].map(count_servers), ["0 servers", "1 server", "2 servers"]);
    }

    #[test]
    fn what_is_no_source_is_refused_without_repeating_it() {
        for text in [
            "http://example.com/secret",
            "ftp://example.com/secret",
            "secret@example.com:1",
            "https://",
            "https://exa mple/secret",
            "",
        ] {
            let why = Source::parse(text).unwrap_err();
            assert!(!why.contains("secret") && !why.contains("mple"), "{text}: {why}");
        }
        assert!(Source::parse("http://example.com").unwrap_err().contains("use https"));
    }
}
