//! The proxies on a way out, as URLs and as objects.

use std::net::SocketAddr;

use umbra_proto::address::Address;
use umbra_proto::http::client::BasicLogin;
use umbra_proto::parent_url::{ParentUrl, Scheme};
use umbra_proto::socks4::client::UserId;
use umbra_proto::users::Credentials as Login;
use umbra_relay::config::{Hop, Mode, Names, Parent, ParentProtocol, Server};
use umbra_relay::tls::Tls;

use super::hosts::{server_addresses, split_port};
use super::trust::Trust;
use super::{place_of, read_heads, read_one_time_auth};
use crate::link::{explain, is_link, link_settings};
use crate::raw::{Said, Settings, Value};
use crate::reference::{Id, nearest};
use crate::report::Report;
use crate::secret::{InsecureMethods, expand_url, read_credentials, url_user};
use crate::variable::{Part, refuse_in_host, warn_of_variable};

/// What is said once for all hops.
pub(super) struct HopReader {
    /// What is done about methods that are not safe.
    pub(super) insecure: InsecureMethods,
    /// Whom proxies within TLS are checked by.
    pub(super) trust: Trust,
}

/// What a hop speaks, as an object says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Socks4(Names),
    Socks5(Names),
    Http,
    Https,
    Shadowsocks,
}

/// A parent, before its TLS is known.
struct Draft {
    address: Address,
    protocol: ParentProtocol,
    names: Names,
    is_https: bool,
}

impl HopReader {
    /// The proxies that `hops` describe, if each of them can be one. `ca_file` counts where a hop has none of its own.
    pub(super) fn read(
        &mut self,
        hops: Vec<Settings>,
        ca_file: Option<(&str, &str)>,
        report: &mut Report,
    ) -> Option<Vec<Hop>> {
        let places: Vec<_> = hops.iter().map(|hop| hop.path.clone()).collect();
        let read: Vec<_> = hops.into_iter().map(|hop| self.read_hop(hop, ca_file, report)).collect();
        let hops: Vec<_> = read.into_iter().collect::<Option<_>>()?;
        for (pair, place) in hops.windows(2).zip(&places) {
            if let [Hop::Parent(Parent { protocol: ParentProtocol::Socks4(_), .. }), next] = pair
                && let Address::Ip(SocketAddr::V6(_)) = next.address()
            {
                let text = format!(
                    "SOCKS4 leads to no IPv6 address, and the next hop is {}; use socks5, or the next hop's name",
                    next.address()
                );
                report.error(place, text);
                return None;
            }
        }
        Some(hops)
    }

    fn read_hop(
        &mut self,
        mut hop: Settings,
        ca_file: Option<(&str, &str)>,
        report: &mut Report,
    ) -> Option<Hop> {
        // A link is more than an address, wherever it stands.
        if let Some((text, _)) = hop.text(Id::Server)
            && text.contains('/')
            && hop.get(Id::HopUrl).is_none()
            && let Some(Said { place, value }) = hop.remove(Id::Server)
        {
            hop.insert(Id::HopUrl, place, value);
        }
        let draft = if let Some(Said { place, value: Value::Text(url) }) = hop.remove(Id::HopUrl) {
            let parts = [Id::HopProtocol, Id::Server, Id::ServerPort, Id::UserName, Id::Password, Id::Method];
            let is_alone = refuse(&hop, &parts, "the URL says it already; keep one of them", report);
            if is_link(&url) {
                let link = read_link(&url, &hop.path, &place, report)?;
                return self.read_server(&mut hop.or(&link), report).filter(|_| is_alone);
            }
            // What a flag says is what it says.
            let url = if place.starts_with('-') { Ok(url) } else { expand_url(url) };
            let url = url.map_err(|why| report.error(&place, why)).ok()?;
            read_url(&url, &place, report).filter(|_| is_alone)
        } else {
            let spoken = read_spoken(&hop, report)?;
            if spoken == Spoken::Shadowsocks {
                return self.read_server(&mut hop, report);
            }
            read_object(spoken, &mut hop, report)
        };
        let of_servers = [Id::Method, Id::SegmentedHeads, Id::OneTimeAuth];
        let is_good =
            refuse(&hop, &of_servers, "is for Shadowsocks; leave it out, or change protocol", report);
        let Draft { address, protocol, names, is_https } = draft.filter(|_| is_good)?;
        let tls = self.read_tls(is_https, &hop, &address, ca_file, report)?;
        Some(Hop::Parent(Parent { address, protocol, names, tls }))
    }

    fn read_server(&self, hop: &mut Settings, report: &mut Report) -> Option<Hop> {
        let mut is_good =
            refuse(hop, &[Id::UserName], "Shadowsocks knows nobody by name; leave it out", report);
        is_good &= refuse(
            hop,
            &[Id::Tls, Id::TlsName, Id::CaFile],
            "Shadowsocks brings its own encryption; leave it out",
            report,
        );
        is_good &= refuse(
            hop,
            &[Id::Plugin, Id::PluginOpts],
            "a plugin leads to one place only and cannot stand on a path; write the server into servers[]",
            report,
        );
        split_port(hop, Id::Server, Id::ServerPort, report);
        let addresses = server_addresses(hop, report);
        let credentials = read_credentials(hop, self.insecure, NO_SECRET, report)?;
        let address = addresses.into_iter().next().filter(|address| is_good && address.port() != 0)?;
        Some(Hop::Shadowsocks(Server {
            mode: Mode::Both(address.clone()),
            address,
            credentials,
            heads: read_heads(hop),
            one_time_auth: read_one_time_auth(hop),
        }))
    }

    /// What protects the connection; the outer `None` if something is wrong with it.
    #[expect(clippy::option_option, reason = "no protection is one thing, and a mistake another")]
    fn read_tls(
        &mut self,
        is_https: bool,
        hop: &Settings,
        address: &Address,
        ca_file: Option<(&str, &str)>,
        report: &mut Report,
    ) -> Option<Option<Tls>> {
        let said = hop.switch(Id::Tls);
        if is_https && said == Some(false) {
            report
                .error(place_of(hop, Id::Tls, "tls"), "https is HTTP within TLS; use http, or leave it out");
            return None;
        }
        let is_asked_for = is_https || said.unwrap_or(false);
        if !is_asked_for {
            let is_plain = refuse(
                hop,
                &[Id::TlsName, Id::CaFile],
                "is for TLS; add \"tls\": true, or leave it out",
                report,
            );
            return is_plain.then_some(None);
        }
        let own = hop.text(Id::CaFile);
        let host = match address {
            Address::Ip(address) => address.ip().to_string(),
            Address::Name(name, _) => name.as_str().into(),
        };
        let (name, name_place) = hop.text(Id::TlsName).unwrap_or((&host, &hop.path));
        let config = match self.trust.config(own.or(ca_file).map(|(path, _)| path)) {
            Ok(config) => config,
            Err(why) => {
                report.error(own.or(ca_file).map_or(hop.path.as_str(), |(_, place)| place), why);
                return None;
            }
        };
        match Tls::new(config, name) {
            Ok(tls) => Some(Some(tls)),
            Err(_) => {
                let text = format!(
                    "{name} is no name that a certificate could have; set tls_name to a host's name or an IP address"
                );
                report.error(name_place, text);
                None
            }
        }
    }
}

/// What an `ss://` link says.
fn read_link(url: &str, path: &str, place: &str, report: &mut Report) -> Option<Settings> {
    match url.parse() {
        Ok(url) => {
            let errors = report.errors.len();
            let settings = link_settings(url, path, place, report);
            (report.errors.len() == errors).then_some(settings)
        }
        Err(error) => {
            report.error(place, explain(error));
            None
        }
    }
}

fn read_url(url: &str, place: &str, report: &mut Report) -> Option<Draft> {
    if is_document(url) {
        let text = "a document of servers changes, and a hop is one server; name the document in servers[], and lead to servers, or give \
                    the link of one of its servers";
        report.error(place, text);
        return None;
    }
    let ParentUrl { scheme, address } = match url.parse() {
        Ok(url) => url,
        Err(error) => {
            report.error(place, format!("{error}; it looks like socks5://NAME:PASSWORD@HOST:PORT"));
            return None;
        }
    };
    if let Some(user) = url_user(url) {
        warn_of_variable(user, Part::User, place, report);
    }
    if let Address::Name(name, _) = &address
        && let Err(why) = refuse_in_host(name.as_str())
    {
        report.error(place, why);
        return None;
    }
    if address.port() == 0 {
        report.error(place, "0 is no port to connect to");
        return None;
    }
    let names = scheme.names();
    let (protocol, is_https) = match scheme {
        Scheme::Socks4 { user_id, names: _ } => (ParentProtocol::Socks4(user_id), false),
        Scheme::Socks5 { login, names: _ } => (ParentProtocol::Socks5(login), false),
        Scheme::Http { login } => (ParentProtocol::Http(login), false),
        Scheme::Https { login } => (ParentProtocol::Http(login), true),
    };
    Some(Draft { address, protocol, names, is_https })
}

/// Whether this is where a document is, and no proxy.
fn is_document(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once(':') else { return false };
    match scheme.to_ascii_lowercase().as_str() {
        "ssconf" | "file" => true,
        // Behind a proxy's port there is nothing, and a password with a slash in it stands before an @.
        "http" | "https" => {
            let path = rest.trim_start_matches('/').split_once('/').map_or("", |(_, path)| path);
            !path.is_empty() && !path.contains('@')
        }
        _ => false,
    }
}

fn read_object(spoken: Spoken, hop: &mut Settings, report: &mut Report) -> Option<Draft> {
    split_port(hop, Id::Server, Id::ServerPort, report);
    let address = read_address(hop, spoken, report);
    let protocol = read_protocol(spoken, hop, report);
    let names = match spoken {
        Spoken::Socks4(names) | Spoken::Socks5(names) => names,
        Spoken::Http | Spoken::Https | Spoken::Shadowsocks => Names::PassOn,
    };
    Some(Draft { address: address?, protocol: protocol?, names, is_https: spoken == Spoken::Https })
}

fn read_spoken(hop: &Settings, report: &mut Report) -> Option<Spoken> {
    let known = WORDS.map(|(word, _)| word);
    let list = known.join(", ");
    let Some((word, place)) = hop.text(Id::HopProtocol) else {
        report.error(
            hop.key_path("protocol"),
            format!("missing; say what the proxy speaks: {list}; or give a url"),
        );
        return None;
    };
    let spoken = WORDS.into_iter().find(|(known, _)| *known == word);
    if spoken.is_none() {
        let near = nearest(word, known.into_iter())
            .map_or_else(String::new, |near| format!("did you mean {near}? "));
        report.error(place, format!("unknown protocol {word}; {near}the protocols are {list}"));
    }
    spoken.map(|(_, spoken)| spoken)
}

fn read_address(hop: &Settings, spoken: Spoken, report: &mut Report) -> Option<Address> {
    let Some((host, place)) = hop.text(Id::Server) else {
        report.error(hop.key_path("address"), "missing; say where the proxy is, as HOST:PORT");
        return None;
    };
    let port = match hop.number(Id::ServerPort) {
        Some((port, place)) => match u16::try_from(port) {
            Ok(port) if port != 0 => port,
            Ok(_) | Err(_) => {
                report.error(place, format!("{port} is no port to connect to"));
                return None;
            }
        },
        None => match spoken {
            Spoken::Socks4(_) | Spoken::Socks5(_) => 1080,
            Spoken::Http if hop.switch(Id::Tls) != Some(true) => 80,
            Spoken::Http | Spoken::Https => 443,
            Spoken::Shadowsocks => 8388,
        },
    };
    match Address::from_host(host, port) {
        Ok(address) => Some(address),
        Err(error) => {
            report.error(place, format!("{error}; give the proxy's name or IP address"));
            None
        }
    }
}

/// Who we are, in the words of what is spoken.
fn read_protocol(spoken: Spoken, hop: &Settings, report: &mut Report) -> Option<ParentProtocol> {
    let (name, password) = (hop.text(Id::UserName), hop.text(Id::Password));
    if let Spoken::Socks4(_) = spoken {
        if let Some((_, place)) = password {
            report.error(place, "SOCKS4 has no passwords; leave it out, or use socks5");
            return None;
        }
        let Some((name, place)) = name else { return Some(ParentProtocol::Socks4(UserId::default())) };
        let user_id = UserId::new(name.as_bytes()).map_err(|error| report.error(place, error.to_string()));
        return user_id.ok().map(ParentProtocol::Socks4);
    }
    let login = match (name, password) {
        (None, None) => None,
        (Some((name, _)), Some((password, place))) => match Login::new(name, password) {
            Ok(login) => Some((login, place)),
            Err(error) => {
                report.error(place, error.to_string());
                return None;
            }
        },
        (Some((_, place)), None) => {
            // What was said and could not be read is told already.
            if !report.speaks_of(&hop.key_path("password")) {
                report.error(place, "there is a name and no password; give both, or leave it out");
            }
            return None;
        }
        (None, Some((_, place))) => {
            report.error(place, "there is a password and no name; give both, or leave it out");
            return None;
        }
    };
    match spoken {
        Spoken::Http | Spoken::Https => {
            let login = login.map(|(login, place)| {
                BasicLogin::new(&login).map_err(|error| report.error(place, error.to_string()))
            });
            login.transpose().ok().map(ParentProtocol::Http)
        }
        Spoken::Socks4(_) | Spoken::Socks5(_) | Spoken::Shadowsocks => {
            Some(ParentProtocol::Socks5(login.map(|(login, _)| login)))
        }
    }
}

/// Whether nothing was said of `ids`; what was is an error.
fn refuse(hop: &Settings, ids: &[Id], why: &str, report: &mut Report) -> bool {
    let said: Vec<_> = ids.iter().filter_map(|id| hop.get(*id)).collect();
    for said in &said {
        report.error(&said.place, why);
    }
    said.is_empty()
}

/// As in URLs: with `a` or `h` at the end, names of targets are left to the proxy.
const WORDS: [(&str, Spoken); 8] = [
    ("socks5", Spoken::Socks5(Names::ResolveHere)),
    ("socks5h", Spoken::Socks5(Names::PassOn)),
    ("socks4", Spoken::Socks4(Names::ResolveHere)),
    ("socks4a", Spoken::Socks4(Names::PassOn)),
    ("http", Spoken::Http),
    ("https", Spoken::Https),
    ("shadowsocks", Spoken::Shadowsocks),
    ("ss", Spoken::Shadowsocks),
];

const NO_SECRET: &str = "missing; give the secret that the server has";
