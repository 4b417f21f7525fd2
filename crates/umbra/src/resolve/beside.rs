//! Proxies beside us: load balancers in front, whose PROXY headers name the client, and a SOCKS5 proxy on the way out.

use std::net::IpAddr;

use ipnet::IpNet;
use umbra_proto::parent_url::{ParentUrl, Scheme};
use umbra_proto::proxy_header::Version;
use umbra_relay::config::{Parent, ProxyHeader, Route};

use crate::raw::Settings;
use crate::reference::Id;
use crate::report::Report;

/// Whose PROXY headers are read at an inbound, and which are sent.
pub(super) fn read_proxy_header(settings: &Settings, report: &mut Report) -> ProxyHeader {
    let mut networks: Vec<IpNet> = Vec::new();
    for (text, place) in settings.texts(Id::AcceptProxyProtocol).unwrap_or_default() {
        match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => report.error(
                place,
                format!("Not a valid CIDR notation: {text}; use one like 10.0.0.0/8, or an address"),
            ),
        }
    }
    let send = match settings.text(Id::SendProxyProtocol) {
        None | Some(("", _)) => None,
        Some(("v1", _)) => Some(Version::V1),
        Some(("v2", _)) => Some(Version::V2),
        Some((other, place)) => {
            report.error(place, format!("{other} is no version; use v1 or v2"));
            None
        }
    };
    ProxyHeader { expect_from: networks.into(), send }
}

/// The way through a SOCKS5 proxy, if there is to be one.
pub(super) fn read_outbound_proxy(settings: &Settings, report: &mut Report) -> Option<Route> {
    let (text, place) = settings.text(Id::OutboundProxy).filter(|(text, _)| !text.is_empty())?;
    match text.parse() {
        Ok(ParentUrl { address, .. }) if address.port() == 0 => {
            report.error(place, "0 is no port to connect to");
        }
        // Names are left to the proxy, whether or not the URL says so.
        Ok(ParentUrl { scheme: Scheme::Socks5 { login, names: _ }, address }) => {
            return Some(Route::parent(Parent::socks5(address, login)));
        }
        Ok(ParentUrl {
            scheme: Scheme::Socks4 { .. } | Scheme::Http { .. } | Scheme::Https { .. }, ..
        }) => {
            report.error(
                place,
                "sessions cannot leave through such a proxy yet; use one of SOCKS5, socks5://HOST:PORT",
            );
        }
        Err(error) => {
            report.error(place, format!("{error}; it looks like socks5://NAME:PASSWORD@HOST:PORT"));
        }
    }
    None
}
