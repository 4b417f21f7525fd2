//! The servers of a configuration as links.

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::Method;
use umbra_proto::url::ServerUrl;
use zeroize::Zeroizing;

use super::hosts::{by_password, server_addresses, split_ports};
use super::{SERVER_IDS, Sources, entries, guess_role};
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
    let Sources { file, flags, .. } = sources;
    let name = file.root.only(&[Id::Remarks]);
    let is_single = file.servers.is_none();
    let mut urls = Vec::new();
    for mut settings in entries(SERVER_IDS, LISTS[0], &file.root, file.servers, &flags, report) {
        if is_single {
            settings = name.clone().beaten_by(&settings);
        }
        if let Some(host) = host {
            settings.insert(Id::Server, "--host", Value::Text(Zeroizing::new(host.into())));
        }
        for settings in by_password(&settings, role, report) {
            urls.extend(links_of(&settings, report));
        }
    }
    urls
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
    let Some((password, _)) = settings.text(Id::Password) else {
        report.error(settings.key_path("password"), "missing; a link holds the password");
        return Vec::new();
    };
    let text = |id| settings.text(id).map(|(text, _)| text).filter(|text| !text.is_empty());
    let method = text(Id::Method).unwrap_or(Method::Chacha20IetfPoly1305.name());
    let plugin = text(Id::Plugin).map(|name| match text(Id::PluginOpts) {
        Some(options) => format!("{name};{options}").into(),
        None => Box::from(name),
    });
    let url = |address| ServerUrl {
        method: method.to_lowercase().into(),
        password: Zeroizing::new(password.into()),
        address,
        plugin: plugin.clone(),
        tag: text(Id::Remarks).map(Into::into),
    };
    addresses.into_iter().map(url).collect()
}
