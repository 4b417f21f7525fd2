//! Configuration files: JSON with comments and trailing commas, read into [`Raw`].

mod strangers;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use jsonc_parser::ast::{Array, Object, Value as Json};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use zeroize::Zeroizing;

use self::strangers::{is_managers, is_obfuscation, judge_stranger};
use crate::lines::Lines;
use crate::link::{explain as explain_link, is_link, link_settings};
use crate::plugin::refuse_strange_plugin;
use crate::raw::{Raw, Said, Settings, Value};
use crate::reference::{Id, Kind, LISTS, Place, Setting};
use crate::report::Report;
use crate::secret::expand_password;
use crate::variable::{Part, refuse_in_host, warn_of_variable};

/// Reads the file at `path`. What is wrong with it goes into `report`; there is no `Raw` if it cannot be read at all.
pub(crate) fn read(path: &Path, report: &mut Report) -> Option<Raw> {
    let name = path.display().to_string();
    match read_text(path, FILE_BYTES_MAX) {
        Ok(text) => parse(&name, &text, report),
        Err(error) => {
            report.error(name, format!("cannot be read: {}", explain(&error, &CONFIG_FILE)));
            None
        }
    }
}

/// Reads the users of the file at `path`, which is named at `place` and is one of shadowsocks-rust's: `{ "password": { "users": [ … ] } }`.
/// There are none if it cannot be read, which is told.
pub(crate) fn read_users(path: &Path, place: &str, report: &mut Report) -> Option<Vec<Settings>> {
    if path.as_os_str().is_empty() {
        report.error(place, NO_PATH);
        return None;
    }
    let name = path.display().to_string();
    let text = match read_text(path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) => {
            report.error(place, format!("{name} cannot be read: {}", explain(&error, &USERS_FILE)));
            return None;
        }
    };
    let prefix = format!("{name}: ");
    parse_root(&name, &prefix, &text, report, |root, report| {
        let users = root.get_object("password").and_then(|password| password.get_array("users"));
        let Some(users) = users else {
            let wanted = r#"wants { "password": { "users": [ { "user_name": …, "password": … }, … ] } }"#;
            report.error(format!("{prefix}password"), wanted);
            return None;
        };
        Some(read_entries(&format!("{prefix}password.users"), Place::User, users, report))
    })?
}

/// Reads the text of a configuration that is called `name` in messages.
pub(crate) fn parse(name: &str, text: &str, report: &mut Report) -> Option<Raw> {
    parse_root(name, "", text, report, read_root)
}

/// Reads the outermost object of `text` with `read`, which puts `prefix` before its key paths.
fn parse_root<T>(
    name: &str,
    prefix: &str,
    text: &str,
    report: &mut Report,
    read: impl FnOnce(&Object<'_>, &mut Report) -> T,
) -> Option<T> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = match parse_to_ast(text, &CollectOptions::default(), &JSON_WITH_COMMENTS) {
        Ok(parsed) => parsed,
        Err(error) => {
            let place = format!("{name}:{}:{}", error.line_display(), error.column_display());
            report.error(place, format!("{}; {SYNTAX}", lower_first(&error.kind().to_string())));
            return None;
        }
    };
    match parsed.value {
        Some(Json::Object(root)) => {
            report.lines.push(Lines::of(name, prefix, text, &root));
            Some(read(&root, report))
        }
        Some(_) => {
            report.error(format!("{name}:1:1"), "wants an object: { \"server\": …, \"password\": … }");
            None
        }
        None => {
            report
                .error(format!("{name}:1:1"), "the file is empty; docs/configuration.md shows what to write");
            None
        }
    }
}

fn read_root(root: &Object<'_>, report: &mut Report) -> Raw {
    let [servers, inbounds] = LISTS;
    Raw {
        root: read_object("", Place::Root, root, report),
        servers: read_list(servers, Place::Server, root, report),
        inbounds: read_list(inbounds, Place::Inbound, root, report),
    }
}

fn read_list(key: &str, place: Place, root: &Object<'_>, report: &mut Report) -> Option<Vec<Settings>> {
    let array = match &root.get(key)?.value {
        Json::Array(array) => array,
        Json::NullKeyword(_) => {
            report.error(key, NULL);
            return None;
        }
        Json::StringLit(_) | Json::NumberLit(_) | Json::BooleanLit(_) | Json::Object(_) => {
            report.error(key, format!("wants a list: \"{key}\": [ {{ … }}, … ]"));
            return None;
        }
    };
    Some(read_entries(key, place, array, report))
}

fn read_entries(key: &str, place: Place, array: &Array<'_>, report: &mut Report) -> Vec<Settings> {
    let mut entries = Vec::new();
    for (index, element) in array.elements.iter().enumerate() {
        let path = format!("{key}[{index}]");
        match (element, place) {
            (Json::Object(object), _) => entries.push(read_entry(&path, place, object, report)),
            (Json::StringLit(text), Place::Server) if is_link(&text.value) => {
                entries.extend(read_link(&path, &text.value, report));
            }
            (Json::StringLit(text), Place::Server) => {
                entries.push(text_settings(&path, Id::ConfigUrl, &text.value));
            }
            (Json::StringLit(text), Place::Hop) => {
                entries.push(text_settings(&path, Id::HopUrl, &text.value));
            }
            (Json::StringLit(text), Place::Member) => {
                entries.push(text_settings(&path, Id::Name, &text.value));
            }
            (_, Place::Server) => {
                report
                    .error(path, "wants an object, { … }, a link, \"ss://…\", or a document, \"https://…\"");
            }
            (_, Place::Hop) => report.error(path, "wants a proxy: a URL in quotes, or an object, { … }"),
            (_, Place::Member) => report.error(path, "wants a name in quotes, or an object, { … }"),
            (
                _,
                Place::Root
                | Place::Inbound
                | Place::User
                | Place::Security
                | Place::Online
                | Place::Path
                | Place::Group
                | Place::Probe
                | Place::Rule,
            ) => report.error(path, "wants an object: { … }"),
        }
    }
    entries
}

/// A server may stand in a list as a link.
fn read_link(path: &str, text: &str, report: &mut Report) -> Option<Settings> {
    match text.parse() {
        Ok(url) => {
            let settings = link_settings(url, path, path, report);
            refuse_strange_plugin(&settings, report);
            Some(settings)
        }
        Err(error) => {
            report.error(path, explain_link(error));
            None
        }
    }
}

/// An object that says one thing, as lists have it that may say more.
pub(crate) fn text_settings(path: &str, id: Id, text: &str) -> Settings {
    let mut settings = Settings::new(path);
    settings.insert(id, path, Value::Text(Zeroizing::new(text.into())));
    settings
}

/// What is wrong in an entry that is not in use keeps nothing from starting.
fn read_entry(path: &str, place: Place, object: &Object<'_>, report: &mut Report) -> Settings {
    let mut found = Report::default();
    let settings = read_object(path, place, object, &mut found);
    if settings.switch(Id::Disabled) == Some(true) {
        found.warnings.append(&mut found.errors);
    }
    report.append(found);
    settings
}

fn read_object(path: &str, place: Place, object: &Object<'_>, report: &mut Report) -> Settings {
    let mut settings = Settings::new(path);
    for property in &object.properties {
        let key = property.name.as_str();
        let key_path = settings.key_path(key);
        if place == Place::Root && LISTS.contains(&key) {
            // The first of them would be read alone.
            if object.properties.iter().filter(|property| property.name.as_str() == key).count() > 1 {
                report.error(key_path, "is there twice; put all entries into one list");
            }
            continue;
        }
        let is_null = matches!(property.value, Json::NullKeyword(_));
        let Some(setting) = Setting::find(place, key) else {
            if place == Place::Root && is_managers(key, &property.value) {
                // What comes of it depends on the end. Of its two keys the first is told.
                if settings.get(Id::Manager).is_none() {
                    settings.insert(Id::Manager, key_path, Value::Switch(true));
                }
                continue;
            }
            if place == Place::Root && is_obfuscation(key, &property.value) {
                settings.insert(Id::Obfuscation, key_path, Value::Switch(true));
                continue;
            }
            if !is_null || place.is_strict() {
                judge_stranger(place, key, key_path, &property.value, report);
            }
            continue;
        };
        if is_null {
            if setting.id.wants_value(place) {
                report.error(key_path, NULL);
            }
            continue;
        }
        // Who has a password leaves the key of other programs' files empty.
        if setting.kind == Kind::Key
            && matches!(&property.value, Json::StringLit(text) if text.value.is_empty())
        {
            continue;
        }
        let Some(value) = read_value(setting, &key_path, &property.value, report) else { continue };
        if let Some(earlier) = settings.insert(setting.id, &key_path, value)
            && setting.key != "remarks"
        {
            report.error(key_path, format!("says again what {} said; keep one of them", earlier.place));
        }
    }
    settings
}

fn read_value(setting: &Setting, path: &str, value: &Json<'_>, report: &mut Report) -> Option<Value> {
    match (setting.kind, value) {
        (
            Kind::Texts | Kind::Networks | Kind::Ports | Kind::PortRanges | Kind::Statuses | Kind::Entries,
            Json::Array(array),
        ) => read_items(setting, path, array, report),
        (Kind::Hops, Json::Array(array)) => {
            Some(Value::Objects(read_entries(path, Place::Hop, array, report)))
        }
        (Kind::Hops, Json::Object(object)) => {
            Some(Value::Object(read_object(path, Place::Hop, object, report)))
        }
        (Kind::PortPasswords, Json::Object(object)) => {
            Some(Value::Objects(read_port_passwords(path, object, report)))
        }
        (Kind::Objects(place), Json::Array(array)) => {
            Some(Value::Objects(read_entries(path, place, array, report)))
        }
        (Kind::Object(place), Json::Object(object)) => {
            Some(Value::Object(read_object(path, place, object, report)))
        }
        (kind, value) => {
            match read_scalar(kind, setting.key, value).and_then(|value| expand(setting.id, value)) {
                Ok(value) => {
                    if let (Id::UserName, Value::Text(name)) = (setting.id, &value) {
                        warn_of_variable(name, Part::User, path, report);
                    }
                    Some(value)
                }
                Err(why) => {
                    report.error(path, why);
                    None
                }
            }
        }
    }
}

/// A password may stand in the environment. A host may not, and where one is looked for it is not to be found.
fn expand(id: Id, value: Value) -> Result<Value, String> {
    match (id, value) {
        (Id::Password, Value::Text(text)) => expand_password(text).map(Value::Text),
        (Id::Password, Value::Key(key)) => expand_password(key).map(Value::Key),
        // A link or a document that stands there is read later, each in its own way.
        (Id::Server | Id::LocalAddress | Id::ForwardAddress | Id::ProbeTarget, Value::Text(text))
            if !text.contains('/') =>
        {
            refuse_in_host(&text).map(|()| Value::Text(text))
        }
        (_, value) => Ok(value),
    }
}

fn read_scalar(kind: Kind, key: &str, value: &Json<'_>) -> Result<Value, String> {
    match (kind, value) {
        (_, Json::StringLit(text)) => Value::from_text(kind, &text.value).map_err(Into::into),
        (
            Kind::Port | Kind::Ports | Kind::Number | Kind::PortRanges | Kind::Statuses,
            Json::NumberLit(number),
        ) => Value::from_text(kind, number.value).map_err(Into::into),
        (Kind::Switch, Json::BooleanLit(switch)) => Ok(Value::Switch(switch.value)),
        // The digits of a number are a password as they are written; what a sign, a point or an exponent would be is not.
        (Kind::Secret, Json::NumberLit(number))
            if matches!(key, "password" | "port_password")
                && number.value.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Ok(Value::Text(Zeroizing::new(number.value.into())))
        }
        // A note for people may be anything.
        (Kind::Text, Json::NumberLit(number)) if matches!(key, "remarks" | "name") => {
            Ok(Value::Text(Zeroizing::new(number.value.into())))
        }
        (_, Json::Array(_)) => Err(format!("{}, not a list", kind.wanted())),
        (_, Json::NumberLit(_) | Json::BooleanLit(_) | Json::Object(_) | Json::NullKeyword(_)) => {
            Err(kind.wanted().into())
        }
    }
}

/// The elements of a list of texts or ports. An empty list is the same as nothing, but where it means none; and where a server listens
/// is not said by nothing, since that would be everywhere.
fn read_items(setting: &Setting, path: &str, array: &Array<'_>, report: &mut Report) -> Option<Value> {
    let mut items = Vec::new();
    for (index, element) in array.elements.iter().enumerate() {
        let place = format!("{path}[{index}]");
        match read_scalar(setting.kind, setting.key, element).and_then(|value| expand(setting.id, value)) {
            Ok(value) => items.push(Said { place, value }),
            Err(why) => report.error(place, why),
        }
    }
    if array.elements.is_empty() && matches!(setting.id, Id::Server | Id::ServerPort) {
        report.error(path, "empty; name one at least, or leave it out");
    }
    let may_be_empty =
        matches!(setting.kind, Kind::Networks | Kind::Entries | Kind::PortRanges | Kind::Statuses);
    (may_be_empty || !array.elements.is_empty()).then_some(Value::List(items))
}

/// Each port becomes an object of its own, with that port and its password.
fn read_port_passwords(path: &str, object: &Object<'_>, report: &mut Report) -> Vec<Settings> {
    let mut seen = HashSet::new();
    let mut ports = Vec::new();
    for property in &object.properties {
        let place = format!("{path}.{}", property.name.as_str());
        let port = match property.name.as_str().parse::<u16>() {
            Ok(port) if port != 0 => port,
            Ok(_) | Err(_) => {
                report.error(place, "is no port; the keys here are ports from 1 to 65535");
                continue;
            }
        };
        let password = read_scalar(Kind::Secret, "port_password", &property.value);
        match password.and_then(|password| expand(Id::Password, password)) {
            Ok(_) if !seen.insert(port) => report.error(place, "says the same port again; keep one of them"),
            Ok(password) => {
                let mut settings = Settings::new(&place);
                settings.insert(Id::ServerPort, &place, Value::Number(port.into()));
                settings.insert(Id::Password, &place, password);
                ports.push(settings);
            }
            Err(why) => report.error(place, why),
        }
    }
    ports
}

/// The text of a file of at most `bytes_max` bytes.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    // Room for all of it from the start: a string that grows leaves copies of passwords behind.
    let len = usize::try_from(file.metadata()?.len().min(bytes_max)).unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(len + 1));
    file.take(bytes_max + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > bytes_max) {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("longer than {} MiB", bytes_max >> 20),
        ));
    }
    Ok(text)
}

/// What to do where a file cannot be read, which depends on who has asked for it.
struct Remedies {
    /// There is none at the path.
    missing: &'static str,
    /// It is no file to be read.
    other: &'static str,
}

const CONFIG_FILE: Remedies = Remedies {
    missing: "check the path given with -c, or leave -c out and use -s, -k and -m",
    other: "-c wants a file of JSON",
};

const USERS_FILE: Remedies = Remedies {
    missing: "check the path that socks5_auth_config_path names",
    other: "socks5_auth_config_path wants a file of JSON",
};

fn explain(error: &io::Error, remedies: &Remedies) -> String {
    let what = lower_first(&error.to_string());
    if error.kind() == io::ErrorKind::NotFound {
        format!("{what}; {}", remedies.missing)
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        format!("{what}; let the user that starts umbra read it")
    } else if error.kind() == io::ErrorKind::InvalidData {
        "it is not UTF-8 text; save it as UTF-8".into()
    } else {
        format!("{what}; {}", remedies.other)
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// What is wrong with an empty path of a file that a key names.
pub(crate) const NO_PATH: &str = "empty; give the path of a file, or leave it out";

/// Far more than ten thousand servers need; keeps a mistaken path from filling memory.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

const NULL: &str = "null, which says nothing, and more or other traffic could go here than is meant; give it a value, or leave it out";

const SYNTAX: &str = "this is JSON, in which // and /* */ comments and trailing commas may stand";

const JSON_WITH_COMMENTS: ParseOptions =
    ParseOptions { allow_comments: true, allow_trailing_commas: true, ..STRICT_JSON };

/// JSON as the world writes it (RFC 8259).
pub(crate) const STRICT_JSON: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn read_good(text: &str) -> (Raw, Vec<String>) {
        let mut report = Report::default();
        let raw = parse("config.json", text, &mut report).unwrap();
        assert_eq!(report.errors, []);
        (raw, report.warnings.iter().map(ToString::to_string).collect())
    }

    pub(super) fn errors(text: &str) -> Vec<String> {
        let mut report = Report::default();
        parse("config.json", text, &mut report);
        report.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn comments_trailing_commas_and_quoted_numbers_read() {
        let (raw, warnings) = read_good(
            "\u{feff}{ // one\n /* two */ \"server\": \"::1\", \"server_port\": \"8388\", \"timeout\": 60,\n\
             \"fast_open\": true, \"plugin\": \"\", \"plugin_opts\": null, \"one_time_auth\": false, }",
        );
        assert_eq!(raw.root.text(Id::Server), Some(("::1", "server")));
        assert_eq!(raw.root.number(Id::ServerPort), Some((8388, "server_port")));
        assert_eq!(raw.root.number(Id::Timeout), Some((60, "timeout")));
        assert_eq!(raw.root.switch(Id::FastOpen), Some(true));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn lists_read_with_their_paths_and_both_names_of_a_key() {
        let (raw, _) =
            read_good(r#"{"servers": [{"server": "a"}, {"address": "b", "port": 1}], "locals": []}"#);
        let servers = raw.servers.unwrap();
        assert_eq!(servers[0].text(Id::Server), Some(("a", "servers[0].server")));
        assert_eq!(servers[1].text(Id::Server), Some(("b", "servers[1].address")));
        assert_eq!(servers[1].number(Id::ServerPort), Some((1, "servers[1].port")));
        assert!(raw.inbounds.unwrap().is_empty());
    }

    #[test]
    fn lists_and_objects_inside_keep_their_paths() {
        let (raw, warnings) = read_good(
            r#"{"server": ["a", "b"], "server_port": [1, "2"], "port_password": {"8388": "x", "8389": "y"},
                "servers": [{"users": [{"name": "z", "password": "s"}]}], "plugin_args": [],
                "online_config": {"config_url": "https://a.example/s", "update_interval": 60}}"#,
        );
        assert_eq!(raw.root.texts(Id::Server), Some(vec![("a", "server[0]"), ("b", "server[1]")]));
        assert_eq!(
            raw.root.numbers(Id::ServerPort),
            Some(vec![(1, "server_port[0]"), (2, "server_port[1]")])
        );
        assert_eq!(raw.root.text(Id::Server), None, "a list is not one text");
        let ports = raw.root.objects(Id::PortPassword).unwrap();
        assert_eq!(ports[1].number(Id::ServerPort), Some((8389, "port_password.8389")));
        assert_eq!(ports[1].text(Id::Password), Some(("y", "port_password.8389")));
        let servers = raw.servers.unwrap();
        let user = &servers[0].objects(Id::Users).unwrap()[0];
        assert_eq!(user.text(Id::Password), Some(("s", "servers[0].users[0].password")));
        assert!(raw.root.get(Id::PluginArgs).is_none(), "an empty list says nothing");
        let online = raw.root.object(Id::OnlineConfig).unwrap();
        assert_eq!(online.number(Id::UpdateInterval), Some((60, "online_config.update_interval")));
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_inside_a_list_or_an_object_is_told_with_its_path() {
        let found = errors(
            r#"{"server": ["a", 1], "server_port": [70000, 1, {}], "users": {"name": "x"}, "online_config": 7,
                "port_password": {"0": "a", "8388": "b", "8388": "c", "x": "d", "8389": 1e3, "08388": "e"},
                "servers": [{"users": [{"name": "a"}, 7, {"password": false, "password": "x", "name": "b", "name": "c"}]}]}"#,
        );
        let expected = [
            "server[1]: wants text in quotes, or a list",
            "server_port[0]: wants a port",
            "server_port[2]: wants a port",
            "users: wants a list of objects",
            "online_config: wants an object",
            "port_password.0: is no port",
            "port_password.8388: says the same port again",
            "port_password.x: is no port",
            "port_password.8389: wants text in quotes",
            "port_password.08388: says the same port again",
            "servers[0].users[1]: wants an object: {",
            "servers[0].users[2].password: wants text in quotes",
            "servers[0].users[2].name: says again",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} / {expected}");
        }
    }

    #[test]
    fn a_server_may_stand_in_the_list_as_a_link() {
        let (raw, _) = read_good(
            r#"{"servers": [{"server": "a"}, "ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888/?plugin=obfs-local%3Bobfs%3Dhttp#x"]}"#,
        );
        let server = &raw.servers.unwrap()[1];
        assert_eq!(server.text(Id::Server), Some(("192.168.100.1", "servers[1]")));
        assert_eq!(server.number(Id::ServerPort), Some((8888, "servers[1]")));
        assert_eq!(server.text(Id::PluginOpts), Some(("obfs=http", "servers[1]")));
        let found = errors(
            r#"{"servers": [7, "ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888/?plugin=rm"], "locals": ["ss://x"]}"#,
        );
        for (found, expected) in found.iter().zip([
            "servers[0]: wants an object, { … }, a link, \"ss://…\", or a document",
            "servers[1]: rm is not among the plugins",
            "locals[0]: wants an object: {",
        ]) {
            assert!(found.starts_with(expected), "{found} / {expected}");
        }
        assert_eq!(found.len(), 3, "{found:#?}");
    }

    #[test]
    fn a_broken_file_is_told_with_line_and_column() {
        assert!(
            errors("{\n  \"server\": \"a\"\n  \"password\": \"b\"\n}")[0]
                .starts_with("config.json:2:16: expected comma")
        );
        assert!(errors("")[0].contains("empty"));
        assert!(errors("[1]")[0].contains("wants an object"));
        assert!(errors("{'server': 1}")[0].contains("config.json:1:2: single-quoted"));
    }

    #[test]
    fn every_wrong_value_is_told_with_its_path() {
        let found = errors(
            r#"{"server_port": 70000, "timeout": -1, "fast_open": 3, "password": -12345678, "method": ["a"],
                "servers": [{"port": "x"}, 7], "locals": {}, "fwmark": 7, "mode": "a", "mode": "b"}"#,
        );
        let expected = [
            "server_port: wants a port",
            "timeout: wants a whole number",
            "fast_open: wants true or false",
            "password: wants text in quotes",
            "method: wants text in quotes, not a list",
            "fwmark: not supported yet",
            "mode: says again what mode said",
            "servers[0].port: wants a port",
            "servers[1]: wants an object",
            "locals: wants a list",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} / {expected}");
        }
    }

    #[test]
    fn null_says_nothing_where_other_programs_write_it_and_is_an_error_where_it_could_open() {
        let (_, warnings) = read_good(
            r#"{"port_password": null, "dns_server": null, "libopenssl": null, "plugin": null, "plugin_opts": null, "remarks": null,
                "forbidden_ip": null, "forbid_private": null, "password": null, "method": null, "timeout": null, "zzzz": null,
                "security": null, "rules": [{"name": null, "disabled": null, "ports": 1, "to": "direct"}],
                "paths": [{"name": "p", "hops": [{"address": "a", "user": null, "password": null}]}]}"#,
        );
        assert_eq!(warnings, Vec::<String>::new());
        let wanted = |text: &str, place: &str| {
            let found = errors(text);
            let error = format!("{place}: null, which says nothing");
            assert!(found.len() == 1 && found[0].starts_with(&error), "{text}: {found:?}");
            assert!(found[0].ends_with("give it a value, or leave it out"), "{found:?}");
        };
        for key in [
            "acl",
            "socks_config",
            "records_config",
            "outbound_proxy",
            "rules",
            "otherwise",
            "paths",
            "groups",
            "users",
            "socks5_auth_config_path",
            "server",
            "servers",
            "locals",
        ] {
            wanted(&format!(r#"{{"{key}": null}}"#), key);
        }
        for key in [
            "domains",
            "domain_files",
            "networks",
            "network_files",
            "ports",
            "sources",
            "inbounds",
            "users",
            "network",
            "to",
            "reply",
        ] {
            wanted(&format!(r#"{{"rules": [{{"{key}": null}}]}}"#), &format!("rules[0].{key}"));
        }
        wanted(r#"{"locals": [{"users": null}]}"#, "locals[0].users");
        wanted(r#"{"paths": [{"hops": [{"tls": null}]}]}"#, "paths[0].hops[0].tls");
        let found = errors(r#"{"rules": [{"domain": null}], "security": {"insecure": null}}"#);
        assert!(found.len() == 2 && found.iter().all(|error| error.contains("unknown key")), "{found:?}");
    }

    #[test]
    fn a_list_that_is_there_twice_is_not_half_read() {
        let found = errors(r#"{"servers": [{"server": "a"}], "locals": [], "servers": [{"server": "b"}]}"#);
        assert_eq!(found, ["servers: is there twice; put all entries into one list"]);
    }

    #[test]
    fn an_entry_that_is_not_in_use_is_only_doubtful() {
        let (raw, warnings) = read_good(r#"{"servers": [{"disabled": true, "acl": "x", "port": "x"}]}"#);
        assert_eq!(raw.servers.unwrap().len(), 1);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn a_password_of_digits_may_stand_without_quotes() {
        let (raw, _) = read_good(
            r#"{"password": 12345678901234567890123, "port_password": {"8388": 0},
                "servers": [{"users": [{"name": "z", "password": 1234}]}]}"#,
        );
        assert_eq!(raw.root.text(Id::Password), Some(("12345678901234567890123", "password")));
        let ports = raw.root.objects(Id::PortPassword).unwrap();
        assert_eq!(ports[0].text(Id::Password).unwrap().0, "0");
        let servers = raw.servers.unwrap();
        assert_eq!(servers[0].objects(Id::Users).unwrap()[0].text(Id::Password).unwrap().0, "1234");
        for number in ["-1", "1.5", "1e9", "0.0"] {
            let found = errors(&format!(r#"{{"password": {number}}}"#));
            assert_eq!(found, ["password: wants text in quotes"], "{number}");
        }
        assert_eq!(errors(r#"{"plugin_opts": 1, "key": 1}"#).len(), 2, "which are no passwords");
    }

    #[test]
    fn a_password_keeps_its_spaces() {
        let (raw, _) = read_good(r#"{"password": " two words "}"#);
        assert_eq!(raw.root.text(Id::Password), Some((" two words ", "password")));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        assert!(!errors(&"[".repeat(1_000_000)).is_empty());
    }
}
