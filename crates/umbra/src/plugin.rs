//! SIP003 plugins: programs that stand between the two ends and change how the stream looks on the way.
//!
//! ```text
//!  client's session ─► [plugin on loopback] ─► network ─► [plugin on the public address] ─► door on loopback
//! ```
//! What a plugin is and where its program lies is here, [`keeper`] keeps one running, [`listening`] waits until it listens, [`words`] logs
//! what it says.

mod keeper;
mod listening;
mod words;

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub(crate) use keeper::{Keeper, Side, end_all};
pub(crate) use listening::wait_until_listening;

use crate::raw::{Settings, Value};
use crate::reference::Id;
use crate::report::Report;

/// A program to start, with what it is told. Options often hold secrets: they are wiped when dropped and not printed.
#[derive(Clone)]
pub(crate) struct Plugin {
    /// The program's name, or its path.
    pub(crate) program: String,
    /// Its `SS_PLUGIN_OPTIONS`.
    pub(crate) options: Option<Zeroizing<String>>,
    /// Its arguments.
    pub(crate) args: Vec<Zeroizing<String>>,
    /// Where it was asked for, for messages.
    pub(crate) place: String,
}

impl Plugin {
    /// The plugin that `settings` ask for, if they do.
    pub(crate) fn read(settings: &Settings, report: &mut Report) -> Option<Self> {
        let Some((program, place)) = settings.text(Id::Plugin).filter(|(program, _)| !program.is_empty())
        else {
            for id in [Id::PluginOpts, Id::PluginArgs, Id::PluginMode] {
                if let Some(said) =
                    settings.get(id).filter(|_| settings.text(id).is_none_or(|(text, _)| !text.is_empty()))
                {
                    report.warn(&said.place, "left aside: without a plugin it has no effect");
                }
            }
            return None;
        };
        match settings.text(Id::PluginMode) {
            None | Some(("tcp_only", _)) => {}
            Some(("tcp_and_udp", place)) => {
                report.warn(place, "datagrams do not go through plugins, so this is tcp_only");
            }
            Some(("udp_only", place)) => {
                report.error(
                    place,
                    "datagrams do not go through plugins; use tcp_only, or take the plugin out",
                );
            }
            Some((other, place)) => {
                report.error(place, format!("{other} is no mode; use tcp_only"));
            }
        }
        let told = [Id::PluginOpts, Id::PluginArgs]
            .into_iter()
            .flat_map(|id| settings.texts(id).unwrap_or_default());
        for (_, place) in told.filter(|(text, _)| text.contains("${")) {
            let text = "the plugin is told ${ as it is: the environment is asked for passwords alone; write what is meant";
            report.warn(place, text);
        }
        let wiped = |text: &str| Zeroizing::new(text.to_owned());
        let options = settings.text(Id::PluginOpts).filter(|(options, _)| !options.is_empty());
        let args = settings.texts(Id::PluginArgs).unwrap_or_default();
        Some(Self {
            program: program_of(program).into(),
            options: options.map(|(options, _)| wiped(options)),
            args: args.into_iter().map(|(arg, _)| wiped(arg)).collect(),
            place: place.into(),
        })
    }

    /// Whether both are started in the same way.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.program == other.program && self.options == other.options && self.args == other.args
    }

    /// The name without folders, for messages.
    pub(crate) fn name(&self) -> &str {
        Path::new(&self.program).file_name().and_then(OsStr::to_str).unwrap_or(&self.program)
    }

    /// The program's file: at the path that was given, or of that name in a folder of `PATH`.
    pub(crate) fn find(&self) -> Result<PathBuf, String> {
        let program = &self.program;
        if program.contains('/') {
            let path = Path::new(program);
            return match path.metadata() {
                Ok(_) if is_program(path) => Ok(path.into()),
                Ok(_) => Err(format!("{program} cannot be executed; give a program's name or path")),
                Err(error) => {
                    Err(format!("there is no plugin at {program} ({error}); install it, or correct the path"))
                }
            };
        }
        let folders = env::var_os("PATH").unwrap_or_default();
        let found =
            env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| is_program(path));
        found.ok_or_else(|| {
            format!(
                "there is no program {program} in PATH; install the plugin, or give the path of its program"
            )
        })
    }
}

/// Whoever wrote a link or a document that came from elsewhere must not choose what is started here: any program of this machine
/// would do as they say. Such settings may only name programs that are known to be plugins.
pub(crate) fn refuse_strange_plugin(settings: &Settings, report: &mut Report) {
    if let Some((program, place)) = settings.text(Id::Plugin)
        && !program.is_empty()
        && !KNOWN.contains(&program)
    {
        let text = format!(
            "{program} is not among the plugins that a link may ask for ({}); if you know it, write the server into a file",
            KNOWN.join(", ")
        );
        report.error(place, text);
    }
}

/// Turns the plugin of a server's file into what a link says of it, which a client starts. What cannot be turned is told.
pub(crate) fn make_plugin_a_clients(settings: &mut Settings, report: &mut Report) {
    let Some((program, place)) = settings.text(Id::Plugin).filter(|(program, _)| !program.is_empty()) else {
        return;
    };
    // Where the program lies on this machine says nothing of the client's.
    let name = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or(program);
    let name = if name == "obfs-server" { "obfs-local" } else { name };
    let Some(name) = KNOWN.into_iter().find(|known| *known == name) else {
        let text = format!(
            "{program} is not among the plugins that a link may ask for ({}), so clients may refuse the link; write what the client is \
             to start into its file",
            KNOWN.join(", ")
        );
        report.warn(place, text);
        return;
    };
    let place = place.to_owned();
    settings.insert(Id::Plugin, place, Value::Text(Zeroizing::new(name.into())));
    if !OF_BOTH_ENDS.contains(&name) {
        return;
    }
    let Some((options, place)) = settings.text(Id::PluginOpts) else { return };
    let all = split_options(options);
    let kept: Vec<_> = all.iter().copied().filter(|option| *option != "server").collect();
    if kept.len() == all.len() {
        return;
    }
    report.warn(place, format!("server is left out of the link: it makes {name} the server's end"));
    let (place, kept) = (place.to_owned(), Zeroizing::new(kept.join(";")));
    settings.insert(Id::PluginOpts, place, Value::Text(kept));
}

/// The options in SIP003's form, in which a backslash takes its meaning from the character behind it.
fn split_options(options: &str) -> Vec<&str> {
    let mut is_escaped = false;
    let ends_option = |c| {
        let ends = c == ';' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    };
    options.split(ends_option).collect()
}

/// The program that a name stands for. Links have the project's name for what both ends have programs of other names for; a link is read
/// by a client.
fn program_of(name: &str) -> &str {
    if name == "simple-obfs" { "obfs-local" } else { name }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("program", &self.program).finish_non_exhaustive()
    }
}

/// Those of the known plugins of which one program is both ends: it is the server's with the option `server`.
const OF_BOTH_ENDS: [&str; 3] = ["v2ray-plugin", "ss-v2ray-plugin", "xray-plugin"];

/// The plugins that clients are commonly told to use.
const KNOWN: [&str; 11] = [
    "obfs-local",
    "simple-obfs",
    "v2ray-plugin",
    "ss-v2ray-plugin",
    "xray-plugin",
    "ck-client",
    "gq-client",
    "kcptun",
    "gost-plugin",
    "simple-tls",
    "qtun-client",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(program: &str) -> Plugin {
        let options = Some(Zeroizing::new("key=hunter2hunter2".to_owned()));
        Plugin { program: program.into(), options, args: Vec::new(), place: "plugin".into() }
    }

    #[test]
    fn a_program_is_found_by_name_and_by_path() {
        let found = plugin("sh").find().unwrap();
        assert!(found.is_absolute() && found.ends_with("sh"), "{found:?}");
        assert_eq!(plugin(found.to_str().unwrap()).find(), Ok(found.clone()));
        assert_eq!(plugin(found.to_str().unwrap()).name(), "sh");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_with_the_remedy() {
        let why = |program| plugin(program).find().unwrap_err();
        assert!(why("no-such-plugin").contains("no program no-such-plugin in PATH; install the plugin"));
        assert!(why("/nonexistent/obfs").contains("no plugin at /nonexistent/obfs"));
        assert!(why("/etc/passwd").contains("cannot be executed"));
        assert!(why("/").contains("cannot be executed"));
    }

    #[test]
    fn a_link_starts_no_program_of_its_own_choice() {
        let judge = |program: &str| {
            let mut settings = Settings::new("");
            settings.insert(Id::Plugin, "--server-url", Value::Text(Zeroizing::new(program.into())));
            let mut report = Report::default();
            refuse_strange_plugin(&settings, &mut report);
            report.errors.len()
        };
        assert_eq!(["obfs-local", "v2ray-plugin", ""].map(judge), [0; 3]);
        assert_eq!(["poweroff", "/tmp/obfs-local", "./obfs-local", "obfs-local "].map(judge), [1; 4]);
    }

    #[test]
    fn a_link_asks_for_the_clients_end_of_a_servers_plugin() {
        for (program, options, asked, kept, warnings) in [
            ("obfs-server", "obfs=tls", "obfs-local", "obfs=tls", 0),
            ("/usr/bin/obfs-server", "obfs=tls", "obfs-local", "obfs=tls", 0),
            ("/usr/bin/obfs-local", "server", "obfs-local", "server", 0),
            ("v2ray-plugin", "server;tls;host=a", "v2ray-plugin", "tls;host=a", 1),
            ("xray-plugin", "tls;server", "xray-plugin", "tls", 1),
            ("v2ray-plugin", "server", "v2ray-plugin", "", 1),
            ("v2ray-plugin", r"path=a\;server;host=b", "v2ray-plugin", r"path=a\;server;host=b", 0),
            ("v2ray-plugin", r"path=a\\;server;host=b", "v2ray-plugin", r"path=a\\;host=b", 1),
            ("v2ray-plugin", "server=a", "v2ray-plugin", "server=a", 0),
            ("ck-server", "server", "ck-server", "server", 1),
            ("", "server", "", "server", 0),
        ] {
            let mut settings = Settings::new("");
            for (id, text) in [(Id::Plugin, program), (Id::PluginOpts, options)] {
                settings.insert(id, format!("{id:?}"), Value::Text(Zeroizing::new(text.into())));
            }
            let mut report = Report::default();
            make_plugin_a_clients(&mut settings, &mut report);
            let text = |id| settings.text(id).map(|(text, _)| text);
            assert_eq!((text(Id::Plugin), text(Id::PluginOpts)), (Some(asked), Some(kept)), "{program}");
            assert_eq!((report.errors.len(), report.warnings.len()), (0, warnings), "{report:?}");
        }
    }

    fn read(said: &[(Id, &str)]) -> (Option<Plugin>, Report) {
        let mut settings = Settings::new("");
        for (id, text) in said {
            settings.insert(*id, format!("{id:?}"), Value::Text(Zeroizing::new((*text).into())));
        }
        let mut report = Report::default();
        let plugin = Plugin::read(&settings, &mut report);
        (plugin, report)
    }

    #[test]
    fn a_plugin_is_read_with_its_options_and_only_for_streams() {
        let (plugin, report) = read(&[(Id::Plugin, "obfs-local"), (Id::PluginOpts, "obfs=http")]);
        let plugin = plugin.unwrap();
        assert_eq!(plugin.options.as_ref().map(|options| options.as_str()), Some("obfs=http"));
        assert!(report.errors.is_empty() && report.warnings.is_empty());
        for (mode, errors, warnings) in
            [("tcp_only", 0, 0), ("tcp_and_udp", 0, 1), ("udp_only", 1, 0), ("x", 1, 0)]
        {
            let (_, report) = read(&[(Id::Plugin, "obfs-local"), (Id::PluginMode, mode)]);
            assert_eq!((report.errors.len(), report.warnings.len()), (errors, warnings), "{mode}");
        }
    }

    #[test]
    fn a_variable_is_no_option_of_a_plugin() {
        let (plugin, report) = read(&[(Id::Plugin, "obfs-local"), (Id::PluginOpts, "key=${X}")]);
        assert_eq!(plugin.unwrap().options.unwrap().as_str(), "key=${X}");
        let told = report.warnings[0].to_string();
        assert!(told.starts_with("PluginOpts: the plugin is told ${ as it is: the environment"), "{told}");
    }

    #[test]
    fn the_name_of_a_project_is_its_clients_program() {
        let program = |name| read(&[(Id::Plugin, name)]).0.unwrap().program;
        assert_eq!(
            ["simple-obfs", "obfs-local", "obfs-server"].map(program),
            ["obfs-local", "obfs-local", "obfs-server"]
        );
    }

    #[test]
    fn options_without_a_plugin_are_doubtful() {
        let (plugin, report) = read(&[(Id::Plugin, ""), (Id::PluginOpts, "obfs=http")]);
        assert!(plugin.is_none());
        assert_eq!(
            report.warnings[0].to_string(),
            "PluginOpts: left aside: without a plugin it has no effect"
        );
        let (plugin, report) = read(&[(Id::Plugin, ""), (Id::PluginOpts, "")]);
        assert!(plugin.is_none() && report.warnings.is_empty());
    }

    #[test]
    fn a_plugin_does_not_print_its_options() {
        let printed = format!("{:?}", plugin("obfs-local"));
        assert!(printed.contains("obfs-local") && !printed.contains("hunter2"), "{printed}");
    }
}
