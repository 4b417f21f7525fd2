//! A link as the settings of a server.

use umbra_proto::address::Address;
use umbra_proto::url::ServerUrl;
use zeroize::Zeroizing;

use crate::raw::{Settings, Value};
use crate::reference::Id;

/// What a link says, as an object at `path` whose values were all written at `place`.
pub(crate) fn link_settings(url: ServerUrl, path: &str, place: &str) -> Settings {
    let host = match &url.address {
        Address::Ip(address) => address.ip().to_string(),
        Address::Name(name, _) => name.as_str().into(),
    };
    let mut settings = Settings::new(path);
    let mut say = |id, text| settings.insert(id, place, Value::Text(text));
    say(Id::Server, Zeroizing::new(host));
    say(Id::Method, Zeroizing::new(url.method.into()));
    say(Id::Password, url.password);
    if let Some(plugin) = url.plugin {
        let (name, options) = plugin.split_once(';').unwrap_or((&plugin, ""));
        say(Id::Plugin, Zeroizing::new(name.into()));
        if !options.is_empty() {
            say(Id::PluginOpts, Zeroizing::new(options.into()));
        }
    }
    if let Some(tag) = url.tag {
        say(Id::Remarks, Zeroizing::new(tag.into()));
    }
    settings.insert(Id::ServerPort, place, Value::Number(url.address.port().into()));
    settings
}
