//! The servers of a configuration as links.

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::identity::has_identities;
use umbra_proto::url::ServerUrl;
use zeroize::Zeroizing;

use super::hosts::{by_password, server_addresses, split_ports};
use super::online::names_server;
use super::{Online, SERVER_IDS, Sources, entries, guess_role};
use crate::flags::Role;
use crate::link::link_settings;
use crate::plugin::make_plugin_a_clients;
use crate::raw::{Settings, Value};
use crate::reference::{Id, LISTS};
use crate::report::Report;

/// A link for each server that `sources` describe, for a client as well as for a server. `host` takes the place of all
/// their addresses, since a server often knows only where it listens.
pub(crate) fn describe_servers(
    mut sources: Sources,
    host: Option<&str>,
    report: &mut Report,
) -> Vec<ServerUrl> {
    split_ports(&mut sources, report);
    let role = guess_role(&sources);
    let Sources { file, url, flags, online } = sources;
    // A link among the flags has its own.
    let name = file.root.only(&[Id::Remarks]).beaten_by(&flags.only(&[Id::Remarks]));
    let (is_single, is_link) = (file.servers.is_none(), url.is_some());
    let ids = [SERVER_IDS, &[Id::Users]].concat();
    let mut servers = Vec::new();
    let is_alone = online.iter().any(|online| online.subscription.alone)
        || (!online.is_empty() && !names_server(&file, &flags));
    if let Some(url) = url {
        servers.push(link_settings(url, "", "--server-url", report));
    } else if !is_alone {
        servers.extend(entries(&ids, LISTS[0], &file.root, file.servers, &flags, report));
    }
    let own = servers.len();
    servers.extend(further_servers(online, report));
    let mut urls = Vec::new();
    for (index, mut settings) in servers.into_iter().enumerate() {
        if is_single && index < own {
            settings = name.clone().beaten_by(&settings);
            if role == Role::Client {
                // These are of the client's own door.
                settings.remove(Id::Users);
            }
        }
        if let Some(host) = host {
            settings.insert(Id::Server, "--host", Value::Text(Zeroizing::new(host.into())));
        }
        // What a link or a document asks for is a client's already.
        if index < own && !is_link {
            make_plugin_a_clients(&mut settings, report);
        }
        warn_of_what_is_lost(&settings, report);
        for settings in by_password(&settings, role, report) {
            urls.extend(links_of(&settings, report));
        }
    }
    urls
}

/// What a client has to know of a server and a link has no place for.
fn warn_of_what_is_lost(settings: &Settings, report: &mut Report) {
    for said in NO_PLACE.iter().filter_map(|id| settings.get(*id)) {
        match said.value {
            // What is switched off is what a link says.
            Value::Switch(false) => {}
            Value::Switch(true)
            | Value::Text(_)
            | Value::Key(_)
            | Value::Number(_)
            | Value::List(_)
            | Value::Objects(_)
            | Value::Object(_) => {
                report.warn(
                    &said.place,
                    "left out: a link has no place for it; say it once more where the link is used",
                );
            }
        }
    }
}

/// The servers of documents, without those that lack something.
fn further_servers(online: Vec<Online>, report: &mut Report) -> Vec<Settings> {
    let mut servers = Vec::new();
    for Online { subscription, loaded } in online {
        match loaded {
            Some(Ok(document)) => {
                report.warnings.extend(document.faults.warnings);
                servers.extend(document.entries.into_iter().map(|entry| entry.settings));
            }
            Some(Err(why)) => report.error(subscription.place, format!("the document of servers {why}")),
            None => {}
        }
    }
    servers
}

/// A secret for a link, and what whoever holds it is called.
struct Holder<'a> {
    password: Zeroizing<String>,
    name: Option<&'a str>,
}

/// Everybody who may use a server.
fn holders<'a>(settings: &'a Settings, method: &str, report: &mut Report) -> Vec<Holder<'a>> {
    if let Some((_, place)) = settings.key(Id::Password) {
        report.error(
            place,
            "a link has no place for a key of SIP006, only for a password; use one at both ends",
        );
        return Vec::new();
    }
    let own = settings.text(Id::Password).map(|(password, _)| password);
    let users = settings.objects(Id::Users).unwrap_or_default();
    let is_identified = method.parse().is_ok_and(has_identities);
    let mut holders = Vec::new();
    if let Some(password) = own.filter(|_| users.is_empty() || !is_identified) {
        let name = settings.text(Id::Remarks).or(settings.text(Id::Name)).map(|(name, _)| name);
        holders.push(Holder { password: Zeroizing::new(password.into()), name });
    }
    for user in users {
        if let Some(said) = user.get(Id::UserForward) {
            report
                .warn(&said.place, "left out: the link of such a user is made of the next server's keys too");
            continue;
        }
        let (name, password) = (user.text(Id::UserName), user.text(Id::Password));
        let Some((password, _)) = password else {
            report.error_missing(user.key_path("password"), "missing; each user has a name and a password");
            continue;
        };
        let password = match own.filter(|_| is_identified) {
            Some(own) => format!("{own}:{password}"),
            None => password.into(),
        };
        holders.push(Holder { password: Zeroizing::new(password), name: name.map(|(name, _)| name) });
    }
    if holders.is_empty() && users.is_empty() {
        report.error_missing(settings.key_path("password"), "missing; a link holds the password");
    }
    holders
}

fn links_of(settings: &Settings, report: &mut Report) -> Vec<ServerUrl> {
    let addresses = server_addresses(settings, report);
    for address in &addresses {
        if let Address::Ip(ip) = address
            && ip.ip().is_unspecified()
        {
            let text = format!(
                "{} is where it listens; give the name or address that clients know with --host",
                ip.ip()
            );
            report.error(settings.key_path("server"), text);
        }
    }
    let text = |id| settings.text(id).map(|(text, _)| text).filter(|text| !text.is_empty());
    let method = text(Id::Method).unwrap_or(Method::Chacha20IetfPoly1305.name());
    // Other programs know fewer of the names that one method has.
    let method = method.parse().map_or_else(|_| method.to_lowercase(), |method: Method| method.name().into());
    let plugin = text(Id::Plugin).map(|name| match text(Id::PluginOpts) {
        Some(options) => format!("{name};{options}").into(),
        None => Box::from(name),
    });
    let mut urls = Vec::new();
    for holder in holders(settings, &method, report) {
        urls.extend(addresses.iter().map(|address| ServerUrl {
            method: method.as_str().into(),
            password: holder.password.clone(),
            address: address.clone(),
            plugin: plugin.clone(),
            tag: holder.name.filter(|name| !name.is_empty()).map(Into::into),
            has_prefix: false,
        }));
    }
    urls
}

const NO_PLACE: &[Id] = &[Id::OneTimeAuth, Id::SegmentedHeads, Id::PluginArgs, Id::PluginMode, Id::Mode];

#[cfg(test)]
mod tests {
    use super::*;

    fn link_with(method: &str) -> String {
        let file = format!(
            r#"{{"server": "a.example", "server_port": 1, "password": "long-enough", "method": "{method}"}}"#
        );
        let mut report = Report::default();
        let file = crate::file::parse("x.json", &file, &mut report).unwrap();
        let urls = describe_servers(Sources { file, ..Sources::default() }, None, &mut report);
        assert_eq!(report.errors, [], "{method}");
        urls[0].to_text().to_string()
    }

    #[test]
    fn a_link_has_the_name_that_every_program_knows() {
        for method in Method::ALL {
            let link = link_with(method.name());
            for alias in method.aliases() {
                assert_eq!(link_with(alias), link, "{alias}");
                assert_eq!(link_with(&alias.to_uppercase()), link, "{alias}");
            }
            let url: ServerUrl = link.parse().unwrap();
            assert_eq!(&*url.method, method.name());
        }
    }

    #[test]
    fn a_key_of_sip006_is_told_to_have_no_place_in_a_link() {
        let file = r#"{"server": "a.example", "server_port": 1, "key": "MDEyMzQ1Njc4OTAxMjM0NQ", "method": "aes-128-gcm"}"#;
        let mut report = Report::default();
        let file = crate::file::parse("x.json", file, &mut report).unwrap();
        assert!(describe_servers(Sources { file, ..Sources::default() }, None, &mut report).is_empty());
        let errors: Vec<_> = report.errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with("key: a link has no place for a key of SIP006"), "{errors:?}");
    }
}
