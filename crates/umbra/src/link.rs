//! Links as settings of servers and as JSON.

use umbra_proto::address::Address;
use umbra_proto::url::{ServerUrl, UrlError};
use zeroize::Zeroizing;

use crate::raw::{Settings, Value};
use crate::reference::Id;
use crate::report::Report;
use crate::secret::escape_password;
use crate::variable::{Part, refuse_in_host, warn_of_variable};

/// The servers of all links in `text`, one on each line. What is wrong with one goes into `report`, without its secret.
pub(crate) fn read_links(text: &str, report: &mut Report) -> Vec<ServerUrl> {
    let mut urls = Vec::new();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    for (line, number) in lines.zip(1..) {
        match line.parse() {
            Ok(url) => {
                warn_of_prefix(&url, &format!("link {number}"), report);
                urls.push(url);
            }
            Err(error) => report.error(format!("link {number}"), explain(error)),
        }
    }
    urls
}

/// Whether `text` means to be a link.
pub(crate) fn is_link(text: &str) -> bool {
    text.split_at_checked(5).is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("ss://"))
}

/// What is wrong with a link, and what one looks like.
pub(crate) fn explain(error: UrlError) -> String {
    format!("{error}; it looks like ss://METHOD:PASSWORD@HOST:PORT#NAME")
}

/// What a link says, as an object at `path` whose values were all written at `place`. What looks like a variable in it is told.
pub(crate) fn link_settings(url: ServerUrl, path: &str, place: &str, report: &mut Report) -> Settings {
    let host = match &url.address {
        Address::Ip(address) => address.ip().to_string(),
        Address::Name(name, _) => name.as_str().into(),
    };
    warn_of_variable(&url.password, Part::LinkPassword, place, report);
    warn_of_prefix(&url, place, report);
    if let Err(why) = refuse_in_host(&host) {
        report.error(place, why);
    }
    let mut settings = Settings::new(path);
    let mut say = |id, text| settings.insert(id, place, Value::Text(text));
    say(Id::Server, Zeroizing::new(host));
    say(Id::Method, Zeroizing::new(url.method.into()));
    say(Id::Password, url.password);
    if let Some(plugin) = url.plugin {
        let (name, options) = split_plugin(&plugin);
        say(Id::Plugin, Zeroizing::new(name.into()));
        if let Some(options) = options {
            say(Id::PluginOpts, Zeroizing::new(options.into()));
        }
    }
    if let Some(tag) = url.tag {
        say(Id::Remarks, Zeroizing::new(tag.into()));
    }
    settings.insert(Id::ServerPort, place, Value::Number(url.address.port().into()));
    settings
}

/// With Outline's prefix a session begins like one of another protocol. Without it the server understands just as much, but the way to it may
/// not bear it.
fn warn_of_prefix(url: &ServerUrl, place: &str, report: &mut Report) {
    if url.has_prefix {
        report.warn(place, "prefix is left aside: what a session begins with is drawn at random, and cannot look like another protocol");
    }
}

/// A configuration that describes the same servers: the single form for one, the extended form for several.
pub(crate) fn to_json(urls: &[ServerUrl]) -> Zeroizing<String> {
    let mut json = Zeroizing::new(String::new());
    if let [url] = urls {
        write_server(url, "", &mut json);
    } else {
        json.push_str("{\n    \"servers\": [\n");
        for (index, url) in urls.iter().enumerate() {
            json.push_str(if index == 0 { "        " } else { ",\n        " });
            write_server(url, "        ", &mut json);
        }
        json.push_str("\n    ]\n}");
    }
    json.push('\n');
    json
}

fn write_server(url: &ServerUrl, indent: &str, json: &mut Zeroizing<String>) {
    let host = match &url.address {
        Address::Ip(address) => address.ip().to_string(),
        Address::Name(name, _) => name.as_str().into(),
    };
    let plugin = url.plugin.as_deref().map(split_plugin);
    // A link is somebody else's: its password must not become a value of whoever reads the file.
    let password = escape_password(&url.password);
    let texts = [
        ("method", Some(&*url.method)),
        ("password", Some(password.as_str())),
        ("plugin", plugin.map(|(name, _)| name)),
        ("plugin_opts", plugin.and_then(|(_, options)| options)),
        ("remarks", url.tag.as_deref()),
    ];
    json.push_str(&format!("{{\n{indent}    \"server\": "));
    write_text(&host, json);
    json.push_str(&format!(",\n{indent}    \"server_port\": {}", url.address.port()));
    for (key, text) in texts {
        if let Some(text) = text {
            json.push_str(&format!(",\n{indent}    \"{key}\": "));
            write_text(text, json);
        }
    }
    json.push_str(&format!("\n{indent}}}"));
}

/// A JSON string (RFC 8259, section 7).
pub(crate) fn write_text(text: &str, json: &mut Zeroizing<String>) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
}

/// A plugin's name and its options, as a link and SIP003 join them.
fn split_plugin(plugin: &str) -> (&str, Option<&str>) {
    let (name, options) = plugin.split_once(';').unwrap_or((plugin, ""));
    (name, Some(options).filter(|options| !options.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;
    use proptest::prelude::*;

    type Read = (String, u64, String, String, Option<String>, Option<String>, Option<String>);

    fn read_back(json: &str) -> Vec<Read> {
        let mut report = Report::default();
        let raw = file::parse("x.json", json, &mut report).unwrap();
        assert_eq!(report.errors, []);
        let text = |settings: &Settings, id| settings.text(id).map(|(text, _)| text.to_owned());
        let read = |settings: &Settings| {
            (
                text(settings, Id::Server).unwrap(),
                settings.number(Id::ServerPort).unwrap().0,
                text(settings, Id::Method).unwrap(),
                text(settings, Id::Password).unwrap(),
                text(settings, Id::Plugin),
                text(settings, Id::PluginOpts),
                text(settings, Id::Remarks),
            )
        };
        raw.servers.unwrap_or_else(|| vec![raw.root]).iter().map(read).collect()
    }

    #[test]
    fn a_link_that_is_wrong_is_told_by_its_number_and_without_its_secret() {
        let mut report = Report::default();
        let text =
            "\n ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888 \n\nss://aes-128-gcm:hunter2@host\nhttp://x\n";
        assert_eq!(read_links(text, &mut report).len(), 1);
        let errors: Vec<_> = report.errors.iter().map(ToString::to_string).collect();
        assert!(errors[0].starts_with("link 2: the link's server: "), "{errors:?}");
        assert!(errors[1].starts_with("link 3: the link does not start with ss://; it looks like"));
        assert!(!errors.concat().contains("hunter2"));
    }

    #[test]
    fn a_prefix_of_outline_is_warned_of_once_wherever_the_link_stands() {
        let text = "ss://YWVzLTEyOC1nY206dGVzdA@h:1/?outline=1&prefix=%16%03%01#x";
        let mut report = Report::default();
        let urls = read_links(text, &mut report);
        let told = |report: &Report| report.warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
        let warnings = told(&report);
        assert!(
            warnings.len() == 1 && warnings[0].starts_with("link 1: prefix is left aside"),
            "{warnings:?}"
        );
        let mut report = Report::default();
        link_settings(urls[0].clone(), "", "--server-url", &mut report);
        let warnings = told(&report);
        assert!(
            warnings.len() == 1 && warnings[0].starts_with("--server-url: prefix is left"),
            "{warnings:?}"
        );
        let mut report = Report::default();
        let text = "ss://YWVzLTEyOC1nY206dGVzdA@h:1/?v2ray-plugin=hunter2";
        assert!(read_links(text, &mut report).is_empty());
        let error = report.errors[0].to_string();
        assert!(error.contains("?plugin=v2ray-plugin;mode=") && !error.contains("hunter2"), "{error}");
    }

    proptest! {
        #[test]
        fn a_link_as_json_is_the_same_server(
            password in "\\PC{1,30}|[\"\\\\\n\t\u{7f}]{1,9}|[$]{1,3}[{][A-Z]{0,4}[}]",
            plugin in proptest::option::of("[a-z/.]{1,9}(;[a-z=;\\\\]{1,20})?"),
            tag in proptest::option::of("\\PC{1,20}"),
            count in 1..4_u16,
        ) {
            let url = |port| ServerUrl {
                method: "aes-128-gcm".into(),
                password: Zeroizing::new(password.clone()),
                address: Address::from_host("::1", port).unwrap(),
                plugin: plugin.as_deref().map(Into::into),
                tag: tag.as_deref().map(Into::into),
                has_prefix: false,
            };
            let urls: Vec<_> = (1..=count).map(url).collect();
            let parts = plugin.as_deref().map(split_plugin);
            let expected: Vec<_> = (1..=count).map(|port| (
                "::1".to_owned(), u64::from(port), "aes-128-gcm".to_owned(), password.clone(),
                parts.map(|(name, _)| name.to_owned()), parts.and_then(|(_, options)| options.map(str::to_owned)),
                tag.clone(),
            )).collect();
            prop_assert_eq!(&read_back(&to_json(&urls)), &expected);

            let settings: Vec<_> = urls.into_iter().map(|url| link_settings(url, "", "x", &mut Report::default())).collect();
            let text = |settings: &Settings, id| settings.text(id).map(|(text, _)| text.to_owned());
            for (settings, expected) in settings.iter().zip(expected) {
                prop_assert_eq!(text(settings, Id::Plugin), expected.4);
                prop_assert_eq!(text(settings, Id::PluginOpts), expected.5);
            }
        }
    }
}
