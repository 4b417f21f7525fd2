//! What a document says (SIP008): servers, and how much of an allowance is used.
//!
//! ```json
//! { "version": 1, "bytes_used": 1, "bytes_remaining": 2, "servers": [
//!     { "id": "27b8a625-…", "remarks": "…", "server": "…", "server_port": 8388, "password": "…", "method": "…",
//!       "plugin": "…", "plugin_opts": "…" } ] }
//! ```
//! An object with the keys of one server is one as well, as `ssconf://` links lead to. Everything else in it is somebody's own and left aside. It comes from elsewhere, so it may set nothing but its servers.

use std::fmt;

use jsonc_parser::ast::{Object, Value as Json};
use jsonc_parser::{CollectOptions, parse_to_ast};
use zeroize::Zeroizing;

use crate::file::STRICT_JSON;
use crate::link::{link_settings, read_links};
use crate::raw::{Settings, Value};
use crate::reference::{Id, Kind};
use crate::report::Report;

/// The servers of a document, each as settings that are still to be judged.
#[derive(Default)]
pub(crate) struct Document {
    /// One for each server that has everything it needs.
    pub(crate) entries: Vec<Entry>,
    /// What is used of an allowance.
    pub(crate) usage: Option<Usage>,
    /// What is wrong with others.
    pub(crate) faults: Report,
    text: Zeroizing<String>,
}

/// A server of a document.
pub(crate) struct Entry {
    /// What stays the same when the rest changes.
    pub(crate) id: Option<String>,
    /// What it says.
    pub(crate) settings: Settings,
}

/// How much has been carried, and how much may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Bytes so far.
    pub(crate) used: u64,
    /// Bytes to come, if they are limited.
    pub(crate) remaining: Option<u64>,
}

impl Document {
    /// Reads a document that is called `name` in messages; `Err` if it is none. Links, one on each line, are one as well.
    pub(crate) fn parse(text: Zeroizing<String>, name: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('\u{feff}').unwrap_or(&text).trim();
        let mut document =
            if bare.starts_with("ss://") { parse_links(bare, name) } else { parse_json(bare, name)? };
        document.text = text;
        Ok(document)
    }

    /// Whether both were the same text.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

fn parse_links(text: &str, name: &str) -> Document {
    let mut document = Document::default();
    let mut found = Report::default();
    for (index, url) in read_links(text, &mut found).into_iter().enumerate() {
        let path = format!("{name} server {}", index + 1);
        let mut told = Report::default();
        let settings = link_settings(url, &path, &path, &mut told);
        document.faults.warnings.append(&mut told.warnings);
        if let Some(fault) = told.errors.first() {
            document.faults.warn(&fault.place, left_out(&fault.text));
        } else {
            document.entries.push(Entry { id: None, settings });
        }
    }
    for fault in found.errors {
        document.faults.warn(format!("{name} {}", fault.place), left_out(&fault.text));
    }
    document
}

fn parse_json(text: &str, name: &str) -> Result<Document, String> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT_JSON).map_err(|error| {
        format!("is no JSON: line {}, column {}", error.line_display(), error.column_display())
    })?;
    let Some(Json::Object(root)) = parsed.value else {
        return Err("is no object with a list of servers (SIP008)".into());
    };
    let mut document = Document::default();
    if root.get("servers").is_none() && root.get("server").is_some() {
        document.entries.extend(read_entry(name, &root, &mut document.faults));
        return Ok(document);
    }
    if root.get("servers").is_none()
        && let Some(message) = provider_error(&root)
    {
        return Err(format!("is an error of its provider: {message}"));
    }
    match number(&root, "version") {
        Some(1) => {}
        Some(other) => return Err(format!("is of version {other}, and only version 1 is known")),
        None => document.faults.warn(name, "does not say \"version\": 1, and is read as if it did"),
    }
    let Some(servers) = root.get("servers").and_then(|property| property.value.as_array()) else {
        return Err("has no list of servers (SIP008)".into());
    };
    for (index, element) in servers.elements.iter().enumerate() {
        let path = format!("{name} servers[{index}]");
        match element.as_object() {
            Some(object) => document.entries.extend(read_entry(&path, object, &mut document.faults)),
            None => document.faults.warn(path, left_out("is no object")),
        }
    }
    let used = number(&root, "bytes_used");
    document.usage = used.map(|used| Usage { used, remaining: number(&root, "bytes_remaining") });
    Ok(document)
}

/// What a provider of Outline says in the place of servers: `{ "error": { "message": "…" } }`. It is told to people as one short line.
fn provider_error(root: &Object<'_>) -> Option<String> {
    let message = root.get_object("error")?.get_string("message")?;
    let words = message.value.split(|c: char| c.is_control()).filter(|part| !part.trim().is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    let told: String = line.chars().take(MESSAGE_CHARS_MAX).collect();
    let cut = if told.len() < line.len() { "…" } else { "" };
    (!told.is_empty()).then(|| format!("{told}{cut}"))
}

fn read_entry(path: &str, object: &Object<'_>, faults: &mut Report) -> Option<Entry> {
    let mut settings = Settings::new(path);
    let mut is_whole = true;
    for (id, key, kind, need) in KEYS {
        let place = settings.key_path(key);
        match read_value(object, key, kind) {
            Ok(Some(value)) => {
                settings.insert(id, place, value);
            }
            Ok(None) if need == Need::Said => {
                faults.warn(place, left_out("is missing"));
                is_whole = false;
            }
            Ok(None) => {}
            Err(why) if need == Need::Nothing => faults.warn(place, format!("{why}; it is left aside")),
            Err(why) => {
                faults.warn(place, left_out(why));
                is_whole = false;
            }
        }
    }
    let id = object.get("id").and_then(|property| property.value.as_string_lit());
    is_whole.then(|| Entry { id: id.map(|id| id.value.to_string()), settings })
}

fn read_value(object: &Object<'_>, key: &str, kind: Kind) -> Result<Option<Value>, &'static str> {
    let Some(property) = object.get(key) else { return Ok(None) };
    match &property.value {
        Json::NullKeyword(_) => Ok(None),
        Json::StringLit(text) if text.value.len() > TEXT_BYTES_MAX => {
            Err("is longer than anything it could be")
        }
        Json::StringLit(text) => Value::from_text(kind, &text.value).map(Some),
        Json::NumberLit(number) if kind == Kind::Port => {
            // Some programs know no other numbers than fractions.
            let whole = number.value.strip_suffix(".0").unwrap_or(number.value);
            Value::from_text(kind, whole).map(Some)
        }
        Json::NumberLit(_) | Json::BooleanLit(_) | Json::Object(_) | Json::Array(_) => Err(kind.wanted()),
    }
}

/// A number, in quotes or not; of a fraction what is whole.
fn number(object: &Object<'_>, key: &str) -> Option<u64> {
    let text: &str = match &object.get(key)?.value {
        Json::NumberLit(number) => number.value,
        Json::StringLit(text) => text.value.trim(),
        Json::BooleanLit(_) | Json::NullKeyword(_) | Json::Object(_) | Json::Array(_) => return None,
    };
    text.parse().ok().or_else(|| format!("{:.0}", text.parse::<f64>().ok()?.trunc()).parse().ok())
}

/// What is wrong with one server of many.
pub(crate) fn left_out(why: &str) -> String {
    format!("{why}; this server is left out")
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_bytes(f, self.used)?;
        f.write_str(" used")?;
        if let Some(remaining) = self.remaining {
            f.write_str(", ")?;
            write_bytes(f, remaining)?;
            f.write_str(" left")?;
        }
        Ok(())
    }
}

/// To a tenth, in the largest unit of which there is one.
fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: u64) -> fmt::Result {
    let mut unit = (1_u64, "bytes");
    for (power, name) in [(10, "KiB"), (20, "MiB"), (30, "GiB"), (40, "TiB")] {
        if bytes >> power > 0 {
            unit = (1 << power, name);
        }
    }
    let (size, name) = unit;
    match size {
        1 => write!(f, "{bytes} {name}"),
        _ => write!(f, "{}.{} {name}", bytes / size, u128::from(bytes % size) * 10 / u128::from(size)),
    }
}

/// Room for the longest options of plugins; keeps whoever gives the document from filling the log with what it calls a method.
const TEXT_BYTES_MAX: usize = 4096;

/// A line or two, which is what providers say.
const MESSAGE_CHARS_MAX: usize = 200;

/// What a server needs of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// There is no reaching it without.
    Said,
    /// What is said has to be right: without its plugin it would be spoken to in another way.
    Right,
    /// It is for people.
    Nothing,
}

/// What a server of a document may say.
const KEYS: [(Id, &str, Kind, Need); 7] = [
    (Id::Server, "server", Kind::Text, Need::Said),
    (Id::ServerPort, "server_port", Kind::Port, Need::Said),
    (Id::Password, "password", Kind::Secret, Need::Said),
    (Id::Method, "method", Kind::Text, Need::Said),
    (Id::Remarks, "remarks", Kind::Text, Need::Nothing),
    (Id::Plugin, "plugin", Kind::Text, Need::Right),
    (Id::PluginOpts, "plugin_opts", Kind::Secret, Need::Right),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::write_text;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Document, String> {
        Document::parse(Zeroizing::new(text.into()), "a.example")
    }

    fn faults(document: &Document) -> Vec<String> {
        assert!(document.faults.errors.is_empty());
        document.faults.warnings.iter().map(ToString::to_string).collect()
    }

    /// The example of SIP008, with values of its own.
    const EXAMPLE: &str = r#"{
        "version": 1,
        "servers": [
            {
                "id": "27b8a625-4f4b-4428-9f0f-8a2317db7c79",
                "remarks": "Name of the server",
                "server": "example.com",
                "server_port": 8388,
                "password": "example",
                "method": "chacha20-ietf-poly1305",
                "plugin": "xxx",
                "plugin_opts": "xxxxx",
                "group_id": 1
            },
            {"id": "7842c068-c667-41f2-8f7d-04feece3cb67", "remarks": "", "server": "::1", "server_port": "8389",
             "password": "p", "method": "aes-128-gcm"}
        ],
        "bytes_used": 274877906944,
        "bytes_remaining": 824633720832,
        "custom": {"local_port": 1}
    }"#;

    #[test]
    fn the_published_form_reads() {
        let document = parse(EXAMPLE).unwrap();
        assert_eq!(faults(&document), Vec::<String>::new());
        let [first, second] = document.entries.as_slice() else { panic!() };
        assert_eq!(first.id.as_deref(), Some("27b8a625-4f4b-4428-9f0f-8a2317db7c79"));
        assert_eq!(first.settings.text(Id::Server), Some(("example.com", "a.example servers[0].server")));
        assert_eq!(first.settings.number(Id::ServerPort).unwrap().0, 8388);
        assert_eq!(first.settings.text(Id::PluginOpts).unwrap().0, "xxxxx");
        assert_eq!(second.settings.number(Id::ServerPort).unwrap().0, 8389);
        assert_eq!(second.settings.text(Id::Plugin), None);
        assert_eq!(document.usage.unwrap().to_string(), "256.0 GiB used, 768.0 GiB left");
        let unlimited = parse(&EXAMPLE.replace("\"bytes_remaining\"", "\"x\"")).unwrap();
        assert_eq!(unlimited.usage, Some(Usage { used: 274_877_906_944, remaining: None }));
    }

    #[test]
    fn a_server_that_is_wrong_is_named_and_leaves_the_others() {
        let text = r#"{"version": 1, "servers": [
            {"server": "a", "server_port": 1, "password": "hunter2"},
            {"server": "a", "server_port": 70000, "password": "hunter2", "method": "m"},
            7,
            {"server": ["a"], "server_port": true, "password": 5, "method": "m"},
            {"server": "a", "server_port": 1, "password": "hunter2", "method": "m", "plugin": null},
            {"server": "a", "server_port": 1, "password": "hunter2", "method": "LONG"}
        ]}"#;
        let document = parse(&text.replace("LONG", &"m".repeat(4097))).unwrap();
        assert_eq!(document.entries.len(), 1);
        let faults = faults(&document);
        let expected = [
            "a.example servers[0].method: is missing; this server is left out",
            "a.example servers[1].server_port: wants a port",
            "a.example servers[2]: is no object",
            "a.example servers[3].server: wants text",
            "a.example servers[3].server_port: wants a port",
            "a.example servers[3].password: wants text",
            "a.example servers[5].method: is longer than anything it could be; this server is left out",
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.starts_with(expected), "{fault} / {expected}");
            assert!(!fault.contains("hunter2"));
        }
    }

    #[test]
    fn what_is_no_document_is_told_apart() {
        for (text, why) in [
            ("", "is no object"),
            ("<html>", "is no JSON"),
            ("[]", "is no object"),
            ("{}", "has no list of servers"),
            (r#"{"version": 2, "servers": []}"#, "is of version 2"),
            (r#"{"version": 1, "servers": {}}"#, "has no list of servers"),
            (r#"{"version": 1, "servers": [],}"#, "is no JSON"),
            (r#"{"version": 1, /* */ "servers": []}"#, "is no JSON"),
            ("dmVyc2lvbg==", "is no JSON"),
            (
                r#"{"error": {"message": "Your key\n\u001b[31m has expired\u0000", "details": "…"}}"#,
                "is an error of its provider: Your key [31m has expired",
            ),
            (r#"{"error": {"message": "\n"}}"#, "has no list of servers"),
            (r#"{"error": "gone"}"#, "has no list of servers"),
        ] {
            let Err(told) = parse(text) else { panic!("{text} was taken") };
            assert!(told.starts_with(why), "{text}: {told}");
        }
        let Err(told) = parse(&format!(r#"{{"error": {{"message": "{}"}}}}"#, "ü".repeat(100_000))) else {
            panic!()
        };
        assert!(told.ends_with("üü…") && told.chars().count() < 240, "{told}");
        assert!(parse(&"[".repeat(1_000_000)).is_err());
        assert!(parse(&"{\"a\":".repeat(200_000)).is_err());
        assert!(parse(&format!("{{\"servers\": {}", "[[{\"a\":".repeat(100_000))).is_err());
        let unversioned = parse(r#"{"servers": []}"#).unwrap();
        assert_eq!(unversioned.faults.warnings.len(), 1);
    }

    #[test]
    fn numbers_are_read_however_they_are_written() {
        let with = |version: &str, port: &str, used: &str| {
            parse(&format!(
                r#"{{"version": {version}, "bytes_used": {used}, "servers": [{{"server": "a", "server_port": {port}, "password": "p", "method": "m"}}]}}"#
            ))
        };
        for (version, port, used, bytes) in [
            ("1", "8388", "1024", 1024),
            (r#""1""#, r#""8388""#, r#""1024""#, 1024),
            ("1.0", "8388.0", "1024.9", 1024),
            ("1", "8388", "1.5e3", 1500),
        ] {
            let document = with(version, port, used).unwrap();
            assert_eq!(faults(&document), Vec::<String>::new(), "{version} {port} {used}");
            assert_eq!(document.entries[0].settings.number(Id::ServerPort).unwrap().0, 8388);
            assert_eq!(document.usage.unwrap().used, bytes);
        }
        for (port, used) in [("8388.5", "-1"), ("83880", "1e300"), ("-1", r#""many""#)] {
            let document = with("1", port, used).unwrap();
            assert_eq!((document.entries.len(), document.usage), (0, None), "{port} {used}");
        }
    }

    #[test]
    fn a_wrong_note_for_people_costs_no_server_and_a_wrong_plugin_does() {
        let with = |key: &str| {
            let entry = r#""server": "a", "server_port": 1, "password": "p", "method": "m""#;
            parse(&format!(r#"{{"version": 1, "servers": [{{{entry}, "{key}": 5}}]}}"#)).unwrap()
        };
        let document = with("remarks");
        assert_eq!(document.entries.len(), 1);
        assert_eq!(
            faults(&document),
            ["a.example servers[0].remarks: wants text in quotes; it is left aside"]
        );
        for key in ["plugin", "plugin_opts"] {
            assert_eq!(with(key).entries.len(), 0, "{key}");
        }
    }

    #[test]
    fn one_server_is_a_document_too() {
        let text = r#"{"server": "a", "server_port": "443", "password": "p", "method": "m", "prefix": "x", "local_port": 1}"#;
        let document = parse(text).unwrap();
        assert_eq!(document.entries.len(), 1);
        assert_eq!(document.entries[0].settings.number(Id::ServerPort), Some((443, "a.example.server_port")));
        assert_eq!(document.entries[0].settings.number(Id::LocalPort), None);
        assert!(faults(&document).is_empty());
        assert_eq!(faults(&parse(r#"{"server": "a"}"#).unwrap()).len(), 3);
    }

    #[test]
    fn links_are_a_document_too() {
        let text = "ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888#x\r\nss://aes-128-gcm:hunter2@host\n";
        let document = parse(text).unwrap();
        assert_eq!(document.entries.len(), 1);
        assert_eq!(document.entries[0].settings.text(Id::Method).unwrap().0, "aes-128-gcm");
        let faults = faults(&document);
        assert!(faults[0].starts_with("a.example link 2: ") && !faults[0].contains("hunter2"), "{faults:?}");
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        let told = |used| Usage { used, remaining: None }.to_string();
        assert_eq!(told(0), "0 bytes used");
        assert_eq!(told(1023), "1023 bytes used");
        assert_eq!(told(1536), "1.5 KiB used");
        assert_eq!(told(u64::MAX), "16777215.9 TiB used");
    }

    /// What stands behind a key.
    #[derive(Clone, Debug)]
    enum Stands {
        Nowhere,
        Null,
        Text(String),
        Number(u32),
        Other(&'static str),
    }

    impl Stands {
        fn write(&self, key: &str, json: &mut Zeroizing<String>) {
            let value = match self {
                Self::Nowhere => return,
                Self::Null => "null".into(),
                Self::Text(text) => {
                    let mut quoted = Zeroizing::new(String::new());
                    write_text(text, &mut quoted);
                    quoted.to_string()
                }
                Self::Number(number) => number.to_string(),
                Self::Other(json) => (*json).into(),
            };
            json.push_str(&format!(r#""{key}": {value}, "#));
        }

        /// Its text, if it is one that a server can have; `Err` if it is something else.
        fn text(&self) -> Result<Option<&str>, ()> {
            match self {
                Self::Nowhere | Self::Null => Ok(None),
                Self::Text(text) if text.len() <= TEXT_BYTES_MAX => Ok(Some(text)),
                Self::Text(_) | Self::Number(_) | Self::Other(_) => Err(()),
            }
        }

        fn port(&self) -> Option<u64> {
            let port: Option<u16> = match self {
                Self::Number(number) => u16::try_from(*number).ok(),
                Self::Text(text) => text.trim().parse().ok(),
                Self::Nowhere | Self::Null | Self::Other(_) => None,
            };
            port.map(u64::from)
        }
    }

    fn stands(good: &'static str) -> impl Strategy<Value = Stands> {
        let other =
            prop::sample::select(vec!["true", "[]", "{}", "8388.5", "-1", "1e3", r#"{"server": "a"}"#]);
        prop_oneof![
            8 => good.prop_map(Stands::Text),
            1 => "\\PC{0,20}|[\"\\\\\u{0}-\u{1f}]{1,5}".prop_map(Stands::Text),
            1 => Just(Stands::Text("x".repeat(TEXT_BYTES_MAX + 1))),
            1 => any::<u32>().prop_map(|number| Stands::Number(number % 100_000)),
            1 => other.prop_map(Stands::Other),
            1 => Just(Stands::Null),
            1 => Just(Stands::Nowhere),
        ]
    }

    /// A server in a document, its values in the order of [`KEYS`].
    fn server() -> impl Strategy<Value = Vec<Stands>> {
        let strings = [
            "[a-z.]{1,9}",
            "[1-9][0-9]{0,3}",
            "hidden[a-z]{3}",
            "[a-z-]{1,9}",
            "\\PC{0,9}",
            "[a-z]{0,9}",
            "[a-z=;]{0,9}",
        ];
        Vec::from(strings.map(stands))
    }

    fn write(servers: &[Vec<Stands>]) -> Zeroizing<String> {
        let mut json = Zeroizing::new(String::from(r#"{"version": 1, "servers": ["#));
        for (index, server) in servers.iter().enumerate() {
            json.push_str(if index == 0 { "{" } else { ", {" });
            for ((_, key, ..), value) in KEYS.iter().zip(server) {
                value.write(key, &mut json);
            }
            json.push_str(r#""custom": [1]}"#);
        }
        json.push_str("]}");
        json
    }

    /// What `server` should be read as.
    fn expected(server: &[Stands]) -> Option<Vec<Option<String>>> {
        let mut values = Vec::new();
        for ((_, _, kind, need), value) in KEYS.iter().zip(server) {
            let text = if *kind == Kind::Port {
                Some(value.port()?.to_string())
            } else {
                match (value.text(), *need) {
                    (Ok(Some(text)), _) => Some(text.to_owned()),
                    (Ok(None), Need::Said) | (Err(()), Need::Said | Need::Right) => return None,
                    (Ok(None), Need::Right | Need::Nothing) | (Err(()), Need::Nothing) => None,
                }
            };
            values.push(text);
        }
        Some(values)
    }

    fn read(entry: &Entry) -> Vec<Option<String>> {
        let value = |id| {
            let text = entry.settings.text(id).map(|(text, _)| text.to_owned());
            text.or_else(|| entry.settings.number(id).map(|(number, _)| number.to_string()))
        };
        KEYS.iter().map(|(id, ..)| value(*id)).collect()
    }

    /// Whatever a document says, what is told of it is short, and not what it says.
    fn assert_bounded(document: &Document, elements_max: usize) {
        assert!(document.entries.len() <= elements_max);
        let faults = faults(document);
        assert!(faults.len() <= elements_max * KEYS.len() + 1, "{} faults", faults.len());
        for fault in faults {
            assert!(fault.len() < 200 && !fault.contains("hidden"), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn a_document_is_read_as_what_it_says_and_nothing_else(servers in prop::collection::vec(server(), 0..6)) {
            let document = parse(&write(&servers)).unwrap();
            let expected: Vec<_> = servers.iter().filter_map(|server| expected(server)).collect();
            prop_assert_eq!(document.entries.iter().map(read).collect::<Vec<_>>(), expected);
            assert_bounded(&document, servers.len());
        }

        #[test]
        fn a_damaged_document_is_refused_or_read_within_bounds(
            servers in prop::collection::vec(server(), 1..4),
            damage in prop::collection::vec((any::<prop::sample::Index>(), 0..9_usize, "[\\[\\]{}\",: 0-9a-z\\\\]{0,3}"), 1..6),
        ) {
            let mut text: Vec<char> = write(&servers).chars().collect();
            for (at, removed, put) in damage {
                let at = at.index(text.len());
                let end = text.len().min(at + removed);
                text.splice(at..end, put.chars());
                if text.is_empty() {
                    text.push('{');
                }
            }
            let text: String = text.into_iter().collect();
            match parse(&text) {
                Ok(document) => {
                    assert_bounded(&document, text.matches('{').count() + text.matches(',').count());
                    for entry in &document.entries {
                        let said = read(entry);
                        prop_assert!(said[..4].iter().all(Option::is_some), "a server has all that it needs");
                    }
                }
                Err(why) => prop_assert!(why.len() < 100 && !why.contains("hidden"), "{}", why),
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String, cut in 0..EXAMPLE.len(), put in "\\PC{0,3}") {
            let _ = parse(&text);
            let _ = parse(&format!("{}{put}{}", &EXAMPLE[..cut], &EXAMPLE[cut..]));
            let _ = parse(&EXAMPLE[..cut]);
        }
    }
}
