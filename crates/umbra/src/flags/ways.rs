//! The command lines of `umbra route` and `umbra probe`.

use std::net::{IpAddr, Ipv4Addr};

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};
use umbra_proto::address::Address;

use super::{
    Options, Role, base, config_flag, level_flags, mode_flags, read_options, setting_flag, url_flag,
};
use crate::reference::SETTINGS;

/// What `umbra route` explains.
pub(crate) struct Asked {
    /// The end whose configuration it is; its content decides if nothing was said.
    pub(crate) role: Option<Role>,
    /// Where it is described.
    pub(crate) options: Options,
    /// What is to be explained.
    pub(crate) session: Session,
    /// Whether the paths are dialled.
    pub(crate) dials: bool,
}

/// A session that could be.
pub(crate) struct Session {
    /// Where it goes.
    pub(crate) target: Address,
    /// Whether it is made of datagrams.
    pub(crate) is_udp: bool,
    /// Where it comes from.
    pub(crate) source: IpAddr,
    /// Through which inbound; the first one, if nothing was said.
    pub(crate) inbound: Option<String>,
    /// Whose it is.
    pub(crate) user: Option<String>,
}

/// What `umbra probe` tries.
pub(crate) struct Tried {
    /// The end whose configuration it is.
    pub(crate) role: Option<Role>,
    /// Where it is described.
    pub(crate) options: Options,
    /// Where each path is to lead.
    pub(crate) target: Option<Address>,
}

pub(super) fn route() -> Clap {
    let text = |name, value, help| Arg::new(name).long(name).value_name(value).help(help);
    let switch = |name, help| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    describing(
        base("route", "Say which way a session would take, why, and how its paths are")
            .arg(target().required(true).help("Where the session goes; without a port, to 443"))
            .arg(switch("udp", "A session of datagrams; a target at port 53 is asked for a name"))
            .arg(
                text("source", "ADDRESS", "Where it comes from [default: 127.0.0.1]")
                    .value_parser(value_parser!(IpAddr)),
            )
            .arg(text("inbound", "NAME", "Through which inbound it comes [default: the first]"))
            .arg(text("user", "NAME", "Who has logged in [default: nobody]"))
            .arg(switch(
                "no-dial",
                "Connect to nothing and ask nothing; names are resolved if a rule has to know their addresses",
            )),
    )
}

pub(super) fn probe() -> Clap {
    let help = "Where each path is to lead; without it, each leads to the last of its proxies";
    describing(base("probe", "Dial every path, and say which of them work").arg(target().help(help)))
}

fn target() -> Arg {
    Arg::new("target").value_name("TARGET").value_parser(read_target)
}

fn describing(command: Clap) -> Clap {
    let end = Arg::new("as")
        .long("as")
        .value_name("END")
        .value_parser(PossibleValuesParser::new(["local", "server"]))
        .help("Which end the configuration is for; its content decides if this is left out");
    let command = command.arg(config_flag()).arg(end);
    let command = SETTINGS.iter().filter_map(|setting| setting_flag(None, setting)).fold(command, Clap::arg);
    command.args(mode_flags()).arg(url_flag()).args(level_flags())
}

pub(super) fn read_asked(command: &mut Clap, mut matches: ArgMatches) -> Result<Asked, clap::Error> {
    let Some(target) = matches.remove_one("target") else {
        return Err(command.error(ErrorKind::MissingRequiredArgument, "a target is wanted"));
    };
    let session = Session {
        target,
        is_udp: matches.get_flag("udp"),
        source: matches.remove_one("source").unwrap_or(Ipv4Addr::LOCALHOST.into()),
        inbound: matches.remove_one("inbound"),
        user: matches.remove_one("user"),
    };
    let (role, dials) = (read_role(&matches), !matches.get_flag("no-dial"));
    Ok(Asked { role, options: read_options(role, command, matches)?, session, dials })
}

pub(super) fn read_tried(command: &mut Clap, mut matches: ArgMatches) -> Result<Tried, clap::Error> {
    let (target, role) = (matches.remove_one("target"), read_role(&matches));
    Ok(Tried { target, role, options: read_options(role, command, matches)? })
}

pub(super) fn read_role(matches: &ArgMatches) -> Option<Role> {
    matches.get_one::<String>("as").map(|word| match word.as_str() {
        "server" => Role::Server,
        _ => Role::Client,
    })
}

/// `HOST`, or `HOST:PORT`.
fn read_target(text: &str) -> Result<Address, String> {
    let has_port = text.parse::<IpAddr>().is_err() && !text.ends_with(']') && text.contains(':');
    let target = if has_port { text.parse() } else { Address::from_host(text, TARGET_PORT_DEFAULT) };
    match target {
        Ok(target) if target.port() != 0 => Ok(target),
        Ok(_) => Err("0 is no port to connect to".into()),
        Err(error) => Err(format!("{error}; give HOST:PORT, with an IPv6 address in brackets")),
    }
}

/// Where most sessions go.
const TARGET_PORT_DEFAULT: u16 = 443;
