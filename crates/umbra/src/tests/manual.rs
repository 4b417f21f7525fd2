//! The manual's page of keys and flags, written from the table and compared with the page in the tree.

use std::fmt::Write as _;
use std::path::Path;

use umbra_proto::shadowsocks::{Generation, Method};

use crate::foreign::{Foreign, IGNORED, OF_MANAGERS, REFUSED};
use crate::reference::{Kind, Place, Reach, SETTINGS, Setting};

#[test]
fn the_page_of_keys_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = page();
    if std::env::var_os("UMBRA_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/configuration.md is not what the table in reference/table.rs says; renew it with: \
         UMBRA_WRITE_DOCS=1 cargo test -p umbra the_page_of_keys"
    );
}

#[test]
fn every_key_is_in_the_table_once() {
    for place in Place::ALL {
        let here = || SETTINGS.iter().filter(|setting| setting.places.contains(&place));
        let mut names: Vec<_> =
            here().flat_map(|setting| setting.aliases.iter().chain([&setting.key])).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{place:?}");
    }
    let mut foreign: Vec<_> =
        IGNORED.iter().chain(REFUSED).chain(OF_MANAGERS).map(|foreign| foreign.key).collect();
    foreign.sort_unstable();
    let count = foreign.len();
    foreign.dedup();
    assert_eq!(foreign.len(), count);
    // In objects that are Umbra's own, a key may mean something else.
    let shared = |setting: &&Setting| setting.places.iter().any(|place| OTHERS_TOO.contains(place));
    let known = |key: &&str| {
        SETTINGS.iter().filter(shared).any(|setting| setting.key == *key || setting.aliases.contains(key))
    };
    assert_eq!(foreign.iter().find(|key| known(key)), None);
}

/// The objects that other implementations have as well.
const OTHERS_TOO: [Place; 3] = [Place::Root, Place::Server, Place::Inbound];

/// The methods by generation, safe ones first.
fn write_methods(page: &mut String) {
    page.push_str("| Method | Other names | Kind | Key |\n| --- | --- | --- | --- |\n");
    for method in Method::ALL {
        let kind = match method.generation() {
            Generation::Aead2022 => "SIP022",
            Generation::Aead => "SIP004",
            Generation::Stream => "**insecure**",
        };
        let names = method.aliases().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        writeln!(page, "| `{method}` | {names} | {kind} | {} bytes |", method.key_len()).unwrap();
    }
}

fn page() -> String {
    let mut page = String::from(HEAD);
    page.push_str("| Key | Where | Value | Default | Meaning |\n| --- | --- | --- | --- | --- |\n");
    for setting in SETTINGS {
        let (key, default, help) = (names(setting), setting.default, setting.help);
        let (places, kind) = (places(setting), kind(setting.kind));
        writeln!(page, "| {key} | {places} | {kind} | {default} | {help} |").unwrap();
    }
    page.push_str(METHODS);
    write_methods(&mut page);
    page.push_str(FLAGS);
    page.push_str("| Flag | Sets | Of |\n| --- | --- | --- |\n");
    for (setting, flag) in SETTINGS.iter().filter_map(|setting| Some((setting, setting.flag.as_ref()?))) {
        let value = if flag.value.is_empty() { String::new() } else { format!(" {}", flag.value) };
        let short = flag.short.map_or_else(String::new, |short| format!("`-{short}{value}`, "));
        let reach = match flag.reach {
            Reach::Both => "`umbra local`, `umbra server`",
            Reach::Client => "`umbra local`",
        };
        writeln!(page, "| {short}`--{}{value}` | `{}` | {reach} |", flag.long, setting.key).unwrap();
    }
    page.push_str(PRECEDENCE);
    page.push_str(REFUSED_HEAD);
    write_foreign(&mut page, OF_MANAGERS.iter().chain(REFUSED));
    page.push_str(IGNORED_HEAD);
    write_foreign(&mut page, IGNORED.iter());
    page
}

fn write_foreign(page: &mut String, keys: impl Iterator<Item = &'static Foreign>) {
    page.push_str("| Key | What Umbra says |\n| --- | --- |\n");
    for Foreign { key, why } in keys {
        writeln!(page, "| `{key}` | {why} |").unwrap();
    }
}

fn names(setting: &Setting) -> String {
    let mut text = format!("`{}`", setting.key);
    for alias in setting.aliases {
        write!(text, ", `{alias}`").unwrap();
    }
    text
}

fn places(setting: &Setting) -> String {
    let word = |place: &Place| match place {
        Place::Root => "top",
        Place::Server => "`servers[]`",
        Place::Inbound => "`locals[]`",
        Place::User => "`users[]`",
        Place::Security => "`security`",
        Place::Online => "`online_config`",
        Place::Path => "`paths[]`",
        Place::Hop => "`hops[]`",
        Place::Group => "`groups[]`",
        Place::Member => "`members[]`",
        Place::Probe => "`probe`",
        Place::Rule => "`rules[]`",
    };
    setting.places.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Secret => "text",
        Kind::Key => "base64",
        Kind::Port => "port",
        Kind::Number => "number",
        Kind::Switch => "`true` or `false`",
        Kind::Texts | Kind::Entries => "text, or a list",
        Kind::Networks => "text, or a list",
        Kind::Ports => "port, or a list",
        Kind::PortRanges | Kind::Statuses => "number or range, or a list",
        Kind::Hops => "text or object, or a list",
        Kind::PortPasswords | Kind::Object(_) => "object",
        Kind::Objects(_) => "list of objects",
    }
}

const HEAD: &str = r#"# Configuration

<!-- Written from the tables in crates/umbra/src/reference/; a test compares the two. Renew it with:
     UMBRA_WRITE_DOCS=1 cargo test -p umbra the_page_of_keys -->

`umbra local` and `umbra server` read a file with `-c FILE`. It is JSON in UTF-8, in which `//` and `/* */` comments and trailing
commas may stand. `umbra check FILE` says everything that is wrong or doubtful in it and starts nothing.

**The single form** describes one server, and may be the same file at both ends:

```jsonc
{
    "server": "192.0.2.1",       // the client connects to it; the server listens on it
    "server_port": 8388,
    "method": "2022-blake3-aes-256-gcm",
    "password": "…",             // umbra key 2022-blake3-aes-256-gcm
    "forbid_private": true,      // the server leads nobody into private networks
    "local_address": "127.0.0.1",
    "local_port": 1080,
}
```

**The extended form** describes several. A client uses one of `servers[]`, chosen for each session, and the others where that cannot be reached;
it listens on each of `locals[]`. A server listens on each of `servers[]`.

```jsonc
{
    "servers": [
        { "server": "192.0.2.1", "server_port": 8388, "method": "2022-blake3-aes-256-gcm", "password": "…" },
        { "server": "a.example", "server_port": 8389, "password": "…", "disabled": true },
        "ss://…",
        "https://…",
    ],
    "locals": [
        { "local_address": "127.0.0.1", "local_port": 1080, "protocol": "mixed" },
    ],
    "timeout": 300,
}
```

**A link** may stand wherever a server is named: in `server` and its list, in `servers[]`, `hops[]`, `members[]` and `outbound_proxy`, and behind `-s`, `--server-url` and `--outbound-proxy`. It says port, method, password and
plugin as well, and nothing beside it may say them again. A plugin leads to one place only, so that a link with one is no hop and no member.

**A document of servers** (SIP008) may stand wherever a client has several: in `server` and its list, in `servers[]`, in `online_config`, and behind `-s` and `--server-url`. It is an `https` URL, a `file:` URL, or a path, which in
`server` and behind `-s` has a slash in it; each of up to 16 is loaded again and again, and what its provider has counted is shown. A hop and a member of a group are one server, and a server listens where it is told: there, a document is an error. Rules,
and whoever else leads to a way, lead to the servers of all documents as `servers`.

Where sessions go is said by `paths`, `groups` and `rules`: the [README](../README.md#ways-out) has an example, [routing.md](routing.md) tells when a rule fits, [groups.md](groups.md) what a
group holds against its members. `socks5` and `socks4` have names of targets resolved here, `socks5h` and `socks4a` leave them to the proxy; so does `outbound_proxy` with one proxy of SOCKS5, however it is written. 

An unknown key is an error in the objects that are Umbra's own (`paths[]`, `hops[]`, `groups[]`, `members[]`, `probe`, `rules[]`) and in `security`, and wherever it is spelled like a key that says where traffic goes or that
protects, such as `users`, `forbid_private` or `acl`. Elsewhere it is left aside with a warning, so that files of other programs can be read.

The methods are in [a table below](#methods). Numbers may stand in quotes. `null` is the same as nothing, but an error where a session could go elsewhere without a value: in `rules[]`,
and for whatever says where traffic goes (`acl`, `outbound_proxy`, `socks_config`, `rules`, `otherwise`, `servers`) or who may come in (`users`).

## Keys

"Top" is the file's outermost object.

"#;

const METHODS: &str = "
## Methods

Names are read without regard to case. Methods of SIP022 have a random key in base64, which `umbra key METHOD` makes; all others take any text, and make their key of it. One
that is insecure authenticates nothing: it runs only where it is named, with a warning, and not where `security.insecure_methods` is `deny`.

";

const FLAGS: &str = "
## Flags

`-c FILE` names the file. Without a word on the command line, `config.json` in the current folder is read. `-v` (twice for more) and `-q` (twice for less) set how much is logged: `-v` DEBUG, `-vv` TRACE, `-q` WARNING, `-qq` ERROR.
`--server-url URL` gives `umbra local` its server as an `ss://` link, or its servers as a document; `-s` takes both as well.

";

const PRECEDENCE: &str = "
## What beats what

1. A flag beats the file. Address and port are apart: `-s a.example` keeps the file's `server_port`, `-s a.example:8388` does not.
2. `--server-url`, and `-s` with a link or a document, takes the place of all servers of the file, and cannot stand beside `-p`, `-k` or `-m`.
3. In the file, `timeout`, `mode` and the keys of datagrams (`udp_…`) in an entry beat those at the top.
4. With `servers[]`, the keys of a server cannot stand at the top as well; with `locals[]`, neither can those of an inbound.
5. `otherwise` beats the servers, and cannot stand beside `outbound_proxy` or `direct`, which say the same.
6. A flag about a server or an inbound changes the only entry in use; if there are several, it is an error.

Every error is told at once, with its key and a remedy, and then nothing starts. Exit code 1: the configuration is bad, or the start failed; 2: the
command line is not understood; 0 otherwise, also after Ctrl-C or SIGTERM.

## Signals

SIGINT (Ctrl-C) and SIGTERM end the process, and a second one ends it at once. SIGUSR1 has it write what it has [counted](groups.md#what-is-counted) of its ways out to the log, at INFO, and it goes on.
";

const REFUSED_HEAD: &str = "
## Keys of other implementations that are errors

To leave these aside would be dangerous or wrong, so Umbra does not start with them, unless their value is `null`, `false`, `0` or empty.

";

const IGNORED_HEAD: &str = "
## Keys of other implementations that are left aside

Each is a warning. A key that nobody knows is a warning too, with the nearest key that is known.

";
