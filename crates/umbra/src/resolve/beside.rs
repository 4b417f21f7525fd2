//! Proxies beside us: load balancers in front, whose PROXY headers name the client, and proxies in place of a server.

use std::sync::Arc;

use umbra_proto::proxy_header::Version;
use umbra_proto::request::Refusal;
use umbra_relay::config::{Hop, Names, Parent, ParentProtocol, Path, ProxyHeader, Route};

use super::forbidden::read_networks;
use super::hops::HopReader;
use super::ways::read_hops;
use crate::raw::{Settings, Value};
use crate::reference::Id;
use crate::report::Report;

/// Whose PROXY headers are read at an inbound, and which are sent.
pub(super) fn read_proxy_header(settings: &Settings, report: &mut Report) -> ProxyHeader {
    let senders = settings.texts(Id::AcceptProxyProtocol).unwrap_or_default();
    let networks = read_networks(&senders, report);
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

/// The way through proxies, if there is to be one. One that is wrong is told, and leads nowhere; so is an empty one, which is what is
/// left of a variable that was not set.
pub(super) fn read_outbound_proxy(
    settings: &Settings,
    reader: &mut HopReader,
    report: &mut Report,
) -> Option<Route> {
    let said = settings.get(Id::OutboundProxy)?;
    let is_empty = match &said.value {
        Value::Text(text) => text.is_empty(),
        Value::Objects(hops) => hops.is_empty() && !report.speaks_of(&said.place),
        Value::Key(_) | Value::Object(_) | Value::Number(_) | Value::Switch(_) | Value::List(_) => false,
    };
    if is_empty {
        report.error(
            &said.place,
            "empty; name a proxy, or leave it out to go direct, or a client through its servers",
        );
        return Some(Route::Refuse(Refusal::GeneralFailure));
    }
    Some(match read_hops(settings, Id::OutboundProxy, reader, report) {
        Some(mut hops) => {
            // Since before there was socks5h, names are left to the proxy whether or not its URL says so.
            if let [Hop::Parent(Parent { protocol: ParentProtocol::Socks5(_), names, .. })] =
                hops.as_mut_slice()
            {
                *names = Names::PassOn;
            }
            Route::Path(Arc::new(Path::new("outbound_proxy", hops)))
        }
        None => Route::Refuse(Refusal::GeneralFailure),
    })
}
