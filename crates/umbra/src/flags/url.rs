//! The command line of `umbra url`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};
use tracing::level_filters::LevelFilter;
use zeroize::Zeroizing;

use super::{Options, base, config_flag, read_settings, setting_flag, url_flag};
use crate::reference::{Id, SETTINGS};

/// What is to be done with links.
pub(crate) enum Url {
    /// Write servers as links.
    Encode(Servers),
    /// Show links as a configuration. Each is a link, or `-` for those of the standard input.
    Decode(Vec<Zeroizing<String>>),
    /// Draw links as QR codes, likewise.
    Draw(Vec<Zeroizing<String>>),
    /// Draw servers as QR codes.
    DrawServers(Servers),
}

/// The servers of a configuration, and how they become links.
pub(crate) struct Servers {
    /// Where they are described.
    pub(crate) options: Options,
    /// The name or address that clients know, in place of those of the configuration.
    pub(crate) host: Option<String>,
    /// What people are to call the server.
    pub(crate) tag: Option<String>,
    /// The form before SIP002.
    pub(crate) legacy: bool,
}

pub(super) fn command() -> Clap {
    let file = Arg::new("file")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .conflicts_with("config")
        .help("The configuration file, as with -c");
    let links = Arg::new("links")
        .value_name("LINK")
        .num_args(1..)
        .help("A link; - reads links from the standard input, where other users cannot see them");
    let draw = base("qr", "Draw links, or the servers of a configuration, as QR codes")
        .arg(links.clone().conflicts_with_all(DESCRIBING));
    Clap::new("url")
        .about("Write servers as ss:// links, read links, and draw them as QR codes")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(describing(
            base("encode", "Write the servers of a configuration as links, one on each line").arg(file),
        ))
        .subcommand(base("decode", "Show links as a configuration").arg(links.required(true)))
        .subcommand(describing(draw))
}

fn describing(command: Clap) -> Clap {
    let text = |name, value, help| Arg::new(name).long(name).value_name(value).help(help);
    let settings = SETTINGS.iter().filter(|setting| OF_LINKS.contains(&setting.id));
    settings
        .filter_map(|setting| setting_flag(None, setting))
        .fold(command.arg(config_flag()).arg(url_flag().conflicts_with_all(BESIDE_URL)), Clap::arg)
        .arg(text("host", "NAME", "The name or address that clients know, in place of the configuration's"))
        .arg(text("tag", "TEXT", "What people are to call the server"))
        .arg(
            Arg::new("legacy")
                .long("legacy")
                .action(ArgAction::SetTrue)
                .help("Write the form before SIP002, for programs that read nothing newer"),
        )
}

pub(super) fn read(mut matches: ArgMatches) -> Option<Url> {
    let (name, mut matches) = matches.remove_subcommand()?;
    let links = matches.try_remove_many::<String>("links").ok().flatten();
    let links = links.map(|links| links.map(Zeroizing::new).collect());
    match (name.as_str(), links) {
        ("decode", links) => Some(Url::Decode(links.unwrap_or_default())),
        ("qr", Some(links)) => Some(Url::Draw(links)),
        ("qr", None) => Some(Url::DrawServers(read_servers(matches))),
        _ => Some(Url::Encode(read_servers(matches))),
    }
}

fn read_servers(mut matches: ArgMatches) -> Servers {
    let file = matches.try_remove_one::<PathBuf>("file").ok().flatten();
    let config = matches.remove_one::<PathBuf>("config").or(file);
    let url = matches.remove_one::<String>("server-url").map(Zeroizing::new);
    let settings = read_settings(&mut matches);
    Servers {
        options: Options { config, url, settings, level: LevelFilter::OFF },
        host: matches.remove_one("host"),
        tag: matches.remove_one("tag"),
        legacy: matches.get_flag("legacy"),
    }
}

/// What a link can say.
const OF_LINKS: &[Id] = &[Id::Server, Id::ServerPort, Id::Password, Id::Method, Id::Plugin, Id::PluginOpts];

/// What `--server-url` says as well.
const BESIDE_URL: [&str; 7] = ["server", "server-port", "password", "key", "method", "plugin", "plugin-opts"];

/// The flags that describe servers, which do not go with links that are there.
const DESCRIBING: [&str; 12] = [
    "config",
    "server-url",
    "server",
    "server-port",
    "password",
    "key",
    "method",
    "plugin",
    "plugin-opts",
    "host",
    "tag",
    "legacy",
];
