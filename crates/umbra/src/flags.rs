//! The command line, made from the table in [`reference`](crate::reference).

mod url;
mod ways;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};
use tracing::level_filters::LevelFilter;
use umbra_proto::shadowsocks::Method;
use zeroize::Zeroizing;

pub(crate) use self::url::{Servers, Url};
pub(crate) use self::ways::{Asked, Session, Tried};
use crate::raw::{Settings, Value};
use crate::reference::{Flag, Id, Kind, Reach, SETTINGS, Setting};
use crate::secret::names_variable;

/// What the user wants.
pub(crate) enum Command {
    /// `umbra local`, `umbra server`: run one end.
    Run(Role, Options),
    /// `umbra check`: say what is wrong with a configuration. Without a role, its content decides.
    Check(Option<Role>, Options),
    /// `umbra up`: both ends in one process.
    Up(Up),
    /// `umbra key METHOD`.
    Key(Method),
    /// `umbra url`: links.
    Url(Url),
    /// `umbra route`: which way a session would take.
    Route(Asked),
    /// `umbra probe`: which ways work.
    Probe(Tried),
}

/// Which end a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// SOCKS5 comes in, Shadowsocks goes out.
    Client,
    /// Shadowsocks comes in.
    Server,
}

/// What both ends take from the command line.
pub(crate) struct Options {
    /// The configuration file.
    pub(crate) config: Option<PathBuf>,
    /// An `ss://` link, which holds a password.
    pub(crate) url: Option<Zeroizing<String>>,
    /// Flags that set keys.
    pub(crate) settings: Settings,
    /// What is logged.
    pub(crate) level: LevelFilter,
}

/// What `umbra up` takes.
pub(crate) struct Up {
    /// The SOCKS5 port; 0 for a free one.
    pub(crate) socks_port: u16,
    /// The Shadowsocks port; 0 for a free one.
    pub(crate) server_port: u16,
    /// The method between the two.
    pub(crate) method: Method,
    /// The machine to which the server half will be put.
    pub(crate) host: Option<String>,
    /// What else is said of its server.
    pub(crate) settings: Settings,
    /// Draw the QR code even where nobody seems to look.
    pub(crate) draw_qr: bool,
    /// What is logged.
    pub(crate) level: LevelFilter,
}

impl Role {
    /// The word of the command line and of the start line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Client => "local",
            Self::Server => "server",
        }
    }
}

/// Understands `args`, of which the first is the program's name: a link named `sslocal` or `ssserver` is that program.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let mut args = args.into_iter().peekable();
    let name = args.peek().and_then(|path| Path::new(path).file_stem()).and_then(OsStr::to_str);
    match name {
        Some("sslocal") => parse_end(Role::Client, "sslocal", args),
        Some("ssserver") => parse_end(Role::Server, "ssserver", args),
        Some("sstunnel") => {
            let mut command = tunnel("sstunnel").version(VERSION_OF_LINK);
            let matches = command.try_get_matches_from_mut(args)?;
            read_tunnel(&mut command, matches)
        }
        Some(_) | None => parse_umbra(args),
    }
}

/// The whole command line, as `--help` shows it.
pub(crate) fn command() -> Clap {
    Clap::new("umbra")
        .version(env!("CARGO_PKG_VERSION"))
        .about("An encrypted SOCKS proxy: Shadowsocks at both ends")
        .after_help(
            "A link to this program named sslocal, ssserver or sstunnel is `umbra local`, `umbra server` or `umbra tunnel`.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(end(Role::Client, "local"))
        .subcommand(end(Role::Server, "server"))
        .subcommand(tunnel("tunnel"))
        .subcommand(up())
        .subcommand(key())
        .subcommand(check())
        .subcommand(ways::route())
        .subcommand(ways::probe())
        .subcommand(url::command())
}

fn parse_end(
    role: Role,
    name: &'static str,
    args: impl Iterator<Item = OsString>,
) -> Result<Command, clap::Error> {
    let mut command = end(role, name).version(VERSION_OF_LINK);
    let matches = command.try_get_matches_from_mut(args)?;
    Ok(Command::Run(role, read_options(Some(role), &mut command, matches)?))
}

fn parse_umbra(args: impl Iterator<Item = OsString>) -> Result<Command, clap::Error> {
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(args)?;
    let Some((name, matches)) = matches.remove_subcommand() else {
        return Err(command.error(ErrorKind::MissingSubcommand, "a command is wanted"));
    };
    let command = command.find_subcommand_mut(&name).expect("clap only yields what was declared");
    match name.as_str() {
        "local" => Ok(Command::Run(Role::Client, read_options(Some(Role::Client), command, matches)?)),
        "server" => Ok(Command::Run(Role::Server, read_options(Some(Role::Server), command, matches)?)),
        "tunnel" => read_tunnel(command, matches),
        "check" => {
            let role = ways::read_role(&matches);
            Ok(Command::Check(role, read_options(role, command, matches)?))
        }
        "route" => ways::read_asked(command, matches).map(Command::Route),
        "probe" => ways::read_tried(command, matches).map(Command::Probe),
        "key" => Ok(Command::Key(read_method(&matches))),
        "url" => match url::read(matches) {
            Some(url) => Ok(Command::Url(url)),
            None => Err(command.error(ErrorKind::MissingSubcommand, "encode, decode or qr is wanted")),
        },
        _ => Ok(Command::Up(read_up(matches))),
    }
}

fn end(role: Role, name: &'static str) -> Clap {
    let about = match role {
        Role::Client => "The client: SOCKS and HTTP programs come in, sessions go to a Shadowsocks server",
        Role::Server => "The server: Shadowsocks clients come in, sessions go to their targets",
    };
    let command = base(name, about).arg(config_flag());
    let command =
        SETTINGS.iter().filter_map(|setting| setting_flag(Some(role), setting)).fold(command, Clap::arg);
    command.args(mode_flags()).arg(url_flag().hide(role == Role::Server)).args(level_flags())
}

/// A client all of whose connections go to one target.
fn tunnel(name: &'static str) -> Clap {
    end(Role::Client, name)
        .about("A client all of whose connections go to one target, which -f or the file names")
        .mut_arg("protocol", |arg| arg.hide(true))
}

fn read_tunnel(command: &mut Clap, matches: ArgMatches) -> Result<Command, clap::Error> {
    let mut options = read_options(Some(Role::Client), command, matches)?;
    options.settings.insert(Id::Protocol, TUNNEL_PLACE, Value::Text(Zeroizing::new("tunnel".into())));
    Ok(Command::Run(Role::Client, options))
}

fn check() -> Clap {
    let command =
        base("check", "Say everything that is wrong or doubtful in a configuration, and start nothing")
            .arg(
                Arg::new("file")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .conflicts_with("config")
                    .help("The configuration file, as with -c"),
            )
            .arg(config_flag())
            .arg(
                Arg::new("as")
                    .long("as")
                    .value_name("END")
                    .value_parser(PossibleValuesParser::new(["local", "server"]))
                    .help("Which end it is for; its content decides if this is left out"),
            );
    let command = SETTINGS.iter().filter_map(|setting| setting_flag(None, setting)).fold(command, Clap::arg);
    command.args(mode_flags()).arg(url_flag()).args(level_flags())
}

fn up() -> Clap {
    let of_server = SETTINGS.iter().filter(|setting| [Id::ForbiddenIp, Id::AllowedIp].contains(&setting.id));
    let port = |name, help| {
        Arg::new(name)
            .long(name)
            .value_name("PORT")
            .value_parser(value_parser!(u16))
            .default_value("0")
            .help(help)
    };
    base("up", "Both ends in one process on this machine, with a fresh key, to try it")
        .arg(port("socks-port", "Where SOCKS5 programs come in; 0 for a free port"))
        .arg(port("server-port", "Where the Shadowsocks server listens; 0 for a free port"))
        .arg(method_arg("method").short('m').long("method").default_value(Method::Blake3Aes256Gcm.name()))
        .arg(
            Arg::new("host")
                .long("host")
                .value_name("NAME")
                .help("The machine to which you will put the server half, for the printed link"),
        )
        .arg(
            Arg::new("qr")
                .long("qr")
                .action(ArgAction::SetTrue)
                .help("Draw the QR code even outside a terminal"),
        )
        .args(of_server.filter_map(|setting| setting_flag(None, setting)))
        .args(level_flags())
}

fn key() -> Clap {
    base("key", "Make a fresh secret for a method").arg(method_arg("method").required(true))
}

fn base(name: &'static str, about: &'static str) -> Clap {
    Clap::new(name).about(about).args_override_self(true).infer_long_args(true)
}

fn method_arg(name: &'static str) -> Arg {
    let value = |method: Method| PossibleValue::new(method.name()).hide(!Method::COMMON.contains(&method));
    Arg::new(name)
        .value_name("METHOD")
        .value_parser(PossibleValuesParser::new(Method::ALL.map(value)))
        .ignore_case(true)
        .help("The method")
}

fn config_flag() -> Arg {
    Arg::new("config")
        .short('c')
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("The configuration file (JSON with comments); flags beat it")
}

fn url_flag() -> Arg {
    Arg::new("server-url")
        .long("server-url")
        .value_name("URL")
        .help("The server as an ss:// link, or servers as a document (SIP008) at an https:// URL or in a file; in place of -s, -p, -k \
               and -m and of the file's servers")
}

/// What the first implementations in C have for `--mode`.
fn mode_flags() -> [Arg; 2] {
    let short = |(short, mode): (char, &'static str)| {
        Arg::new(mode)
            .short(short)
            .action(ArgAction::SetTrue)
            .conflicts_with_all(
                MODE_FLAGS.map(|(_, mode)| mode).into_iter().filter(move |other| *other != mode),
            )
            .conflicts_with("mode")
            .help(format!("Short for --mode {mode}"))
    };
    MODE_FLAGS.map(short)
}

fn level_flags() -> [Arg; 2] {
    let count =
        |name, short, help| Arg::new(name).short(short).long(name).action(ArgAction::Count).help(help);
    [
        count("verbose", 'v', "Say more: -v DEBUG, -vv TRACE"),
        count("quiet", 'q', "Say less: -q WARNING, -qq ERROR"),
    ]
}

/// The flag of a setting. One that this end does not have is taken and hidden, so that its error can name the remedy.
fn setting_flag(role: Option<Role>, setting: &'static Setting) -> Option<Arg> {
    let flag = setting.flag.as_ref()?;
    let arg = Arg::new(flag.long).long(flag.long).aliases(flag.aliases.iter().copied());
    let arg = match flag.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    let arg = match setting.kind {
        Kind::Switch => arg.action(ArgAction::SetTrue),
        Kind::Port | Kind::Ports => arg.value_name(flag.value).value_parser(value_parser!(u16)),
        Kind::Number => arg.value_name(flag.value).value_parser(value_parser!(u64)),
        Kind::Text | Kind::Texts | Kind::Networks | Kind::Entries | Kind::PortRanges | Kind::Statuses => {
            arg.value_name(flag.value)
        }
        Kind::Secret | Kind::Hops => arg.value_name(flag.value).allow_hyphen_values(true),
        Kind::Key => arg.value_name(flag.value).allow_hyphen_values(true).conflicts_with("password"),
        // These have no form on a command line.
        Kind::PortPasswords | Kind::Objects(_) | Kind::Object(_) => return None,
    };
    let foreign = role == Some(Role::Server) && flag.reach == Reach::Client;
    Some(arg.hide(foreign).help(format!("{} [default: {}]", setting.help, setting.default)))
}

fn read_options(
    role: Option<Role>,
    command: &mut Clap,
    mut matches: ArgMatches,
) -> Result<Options, clap::Error> {
    let url = matches.remove_one::<String>("server-url").map(Zeroizing::new);
    let level = read_level(&matches);
    let positional = matches.try_remove_one::<PathBuf>("file").ok().flatten();
    let config = matches.remove_one::<PathBuf>("config").or(positional);
    let settings = read_settings(&mut matches);
    if let Some(complaint) = find_conflict(role, url.is_some(), &settings) {
        return Err(command.error(ErrorKind::ArgumentConflict, complaint));
    }
    if let Some(complaint) = find_variable(&settings) {
        return Err(command.error(ErrorKind::ValueValidation, complaint));
    }
    Ok(Options { config, url, settings, level })
}

fn read_settings(matches: &mut ArgMatches) -> Settings {
    let mut settings = Settings::new("");
    for setting in SETTINGS {
        let Some(flag) = &setting.flag else { continue };
        // Not every command has every flag. To ask for one that a command has not is an error in a debug build alone, so what is there is
        // looked through: a switch is there wherever it can be given.
        if !matches.ids().any(|id| id.as_str() == flag.long) {
            continue;
        }
        let value = match setting.kind {
            Kind::Switch => matches.get_flag(flag.long).then_some(Value::Switch(true)),
            Kind::Port | Kind::Ports => {
                matches.remove_one::<u16>(flag.long).map(|port| Value::Number(port.into()))
            }
            Kind::Number => matches.remove_one::<u64>(flag.long).map(Value::Number),
            Kind::Text
            | Kind::Texts
            | Kind::Networks
            | Kind::Entries
            | Kind::PortRanges
            | Kind::Statuses
            | Kind::Secret
            | Kind::Hops => {
                matches.remove_one::<String>(flag.long).map(|text| Value::Text(Zeroizing::new(text)))
            }
            Kind::Key => matches.remove_one::<String>(flag.long).map(|key| Value::Key(Zeroizing::new(key))),
            Kind::PortPasswords | Kind::Objects(_) | Kind::Object(_) => None,
        };
        if let Some(value) = value {
            settings.insert(setting.id, flag_name(flag), value);
        }
    }
    for (short, mode) in MODE_FLAGS {
        if matches.try_get_one(mode).is_ok_and(|said| said == Some(&true)) {
            settings.insert(Id::Mode, format!("-{short}"), Value::Text(Zeroizing::new(mode.into())));
        }
    }
    settings
}

/// Flags that cannot stand together, or not at this end.
fn find_conflict(role: Option<Role>, has_url: bool, settings: &Settings) -> Option<String> {
    if role == Some(Role::Server) {
        if has_url {
            return Some(
                "--server-url is for a client; tell a server where to listen with -s, and -m and -k".into(),
            );
        }
        for setting in SETTINGS {
            if let (Some(flag), Some(_)) = (&setting.flag, settings.get(setting.id))
                && flag.reach == Reach::Client
            {
                let name = flag_name(flag);
                let listens = matches!(setting.id, Id::LocalAddress | Id::LocalPort);
                let remedy = if listens { "; tell a server where to listen with -s and -p" } else { "" };
                return Some(format!("{name} is for a client{remedy}"));
            }
        }
    }
    let of_link = ["-s", "-p", "-k", "--key", "-m", "--plugin", "--plugin-opts"];
    let said = settings.places().find(|place| of_link.contains(place)).filter(|_| has_url)?;
    Some(format!("--server-url and {said} both describe the server; give one of them"))
}

/// A secret that was to be a variable's value, and would be what everybody can read in a manual; or a host that nobody would find.
pub(crate) fn find_variable(settings: &Settings) -> Option<String> {
    let hosts = [Id::Server, Id::LocalAddress, Id::ForwardAddress];
    let mut hosts = hosts.into_iter().filter_map(|id| settings.text(id));
    if let Some((_, place)) = hosts.find(|(text, _)| text.contains("${") && !text.contains('/')) {
        return Some(format!(
            "{place} has ${{…}} for a host, and no shell has put the value there; leave out the single quotes around it"
        ));
    }
    let said = [Id::Password, Id::OutboundProxy].into_iter().filter_map(|id| settings.text(id));
    let (_, place) = said.chain(settings.key(Id::Password)).find(|(text, _)| names_variable(text))?;
    Some(format!(
        "{place} has ${{…}} for a password, and no shell has put the value there; leave out the single quotes around it, or write it into \
         a file for -c, where the environment is asked for it"
    ))
}

fn flag_name(flag: &Flag) -> String {
    flag.short.map_or_else(|| format!("--{}", flag.long), |short| format!("-{short}"))
}

fn read_level(matches: &ArgMatches) -> LevelFilter {
    match i16::from(matches.get_count("verbose")) - i16::from(matches.get_count("quiet")) {
        ..=-2 => LevelFilter::ERROR,
        -1 => LevelFilter::WARN,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        2.. => LevelFilter::TRACE,
    }
}

fn read_method(matches: &ArgMatches) -> Method {
    let name = matches.get_one::<String>("method").expect("clap demands it or has a default");
    name.parse().expect("clap takes no other names than methods")
}

fn read_up(mut matches: ArgMatches) -> Up {
    let mut port = |name| matches.remove_one::<u16>(name).unwrap_or(0);
    Up {
        socks_port: port("socks-port"),
        server_port: port("server-port"),
        method: read_method(&matches),
        host: matches.remove_one("host"),
        settings: read_settings(&mut matches),
        draw_qr: matches.get_flag("qr"),
        level: read_level(&matches),
    }
}

/// Where it was said that a client is a tunnel.
pub(crate) const TUNNEL_PLACE: &str = "umbra tunnel";

/// The short flags of modes.
const MODE_FLAGS: [(char, &str); 2] = [('u', "tcp_and_udp"), ('U', "udp_only")];

const VERSION_OF_LINK: &str = concat!("(umbra) ", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Command, clap::Error> {
        parse(words.split(' ').map(OsString::from))
    }

    fn options(words: &str) -> Options {
        match parse_words(words) {
            Ok(Command::Run(_, options) | Command::Check(_, options)) => options,
            Ok(
                Command::Up(_) | Command::Key(_) | Command::Url(_) | Command::Route(_) | Command::Probe(_),
            ) => panic!("{words}"),
            Err(error) => panic!("{error}"),
        }
    }

    fn complaint(words: &str) -> String {
        match parse_words(words) {
            Ok(_) => panic!("{words} was taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_declaration_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn clusters_glued_values_and_prefixes_work_and_the_last_wins() {
        let options = options("umbra local -vv -kpw -t10 -s a -p1 -p2 -s b --fast --timeo 20");
        assert_eq!(options.level, LevelFilter::TRACE);
        assert_eq!(options.settings.text(Id::Password), Some(("pw", "-k")));
        assert_eq!(options.settings.number(Id::ServerPort), Some((2, "-p")));
        assert_eq!(options.settings.text(Id::Server), Some(("b", "-s")));
        assert_eq!(options.settings.switch(Id::FastOpen), Some(true));
        assert_eq!(options.settings.number(Id::Timeout), Some((20, "-t")));
    }

    #[test]
    fn quiet_and_verbose_cancel_each_other() {
        for (words, level) in [
            ("-q", LevelFilter::WARN),
            ("-qq", LevelFilter::ERROR),
            ("-q -q -q", LevelFilter::ERROR),
            ("-v -q", LevelFilter::INFO),
            ("-v", LevelFilter::DEBUG),
        ] {
            assert_eq!(options(&format!("umbra server {words}")).level, level, "{words}");
        }
    }

    #[test]
    fn a_password_may_begin_with_a_hyphen() {
        assert_eq!(options("umbra server -k -secret").settings.text(Id::Password), Some(("-secret", "-k")));
    }

    #[test]
    fn links_to_the_program_are_its_ends() {
        assert!(matches!(parse_words("/usr/bin/sslocal -s a"), Ok(Command::Run(Role::Client, _))));
        assert!(matches!(parse_words("ssserver -k x"), Ok(Command::Run(Role::Server, _))));
        assert!(complaint("sslocal --version").contains("sslocal (umbra) "));
    }

    #[test]
    fn a_tunnel_is_a_client_that_says_so() {
        for words in ["umbra tunnel -f a.example:80", "/opt/sstunnel -f a.example:80"] {
            let Ok(Command::Run(Role::Client, options)) = parse_words(words) else { panic!("{words}") };
            assert_eq!(options.settings.text(Id::Protocol), Some(("tunnel", "umbra tunnel")));
            assert_eq!(options.settings.text(Id::ForwardAddress), Some(("a.example:80", "-f")));
        }
        assert!(complaint("umbra server -f a:1").contains("-f is for a client"));
    }

    #[test]
    fn stray_and_conflicting_flags_name_the_remedy() {
        assert!(
            complaint("umbra server -b 1.2.3.4")
                .contains("-b is for a client; tell a server where to listen with -s")
        );
        assert!(complaint("umbra server --server-url ss://x").contains("--server-url is for a client"));
        assert!(
            complaint("umbra local --server-url ss://x -k pw").contains("--server-url and -k both describe")
        );
        assert!(complaint("umbra local -p abc").contains("abc"));
        assert!(complaint("umbra local stray").contains("stray"));
        assert!(complaint("umbra key aes-256-gmc").contains("aes-256-gcm"));
    }

    #[test]
    fn check_takes_the_file_with_and_without_c() {
        for words in ["umbra check a.json", "umbra check -c a.json", "umbra check --as server a.json"] {
            assert_eq!(options(words).config.as_deref(), Some(Path::new("a.json")), "{words}");
        }
    }
}
