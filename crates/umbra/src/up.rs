//! `umbra up`: both ends in one process, with a fresh key, and the words to try them and to take them apart.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::url::ServerUrl;
use umbra_relay::config::{
    Config, Inbound, Mode, Protocol, ProxyDoor, ProxyHeader, Route, Server, ShadowsocksDoor, Tcp, Udp,
};
use umbra_relay::{Account, Relay, descriptors_min};
use zeroize::Zeroizing;

use crate::flags::{Role, Up};
use crate::process::{Hearing, raise_nofile};
use crate::raw::Value;
use crate::reference::Id;
use crate::report::Report;
use crate::resolve::{Leads, read_forbidden};
use crate::run::explain_start;
use crate::{fail, key, log, qr};

/// Runs both ends until told to end.
pub(crate) fn run(up: &Up) -> ExitCode {
    log::start(up.level);
    match start(up) {
        Ok(code) => code,
        Err(why) => fail(&why),
    }
}

fn start(up: &Up) -> Result<ExitCode, String> {
    let host = host_of(up)?;
    let forbidden = forbidden_of(up)?;
    let secret =
        key::make(up.method).map_err(|error| format!("the system gives no random numbers: {error}"))?;
    let key = Key::from_password(up.method, &secret)
        .map_err(|error| format!("the fresh key is no key: {error}"))?;
    if let Err(why) = raise_nofile(None) {
        warn!("{why}");
    }
    let mut hearing = Hearing::begin().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let server_config = server_config(up, &key, forbidden);
    let server = Relay::start(&server_config)
        .map_err(|error| explain_start(&error, "--server-port", descriptors_min(&server_config)))?;
    let server_address = first_address(&server)?;
    let client_config = client_config(up, key, server_address);
    let client = match Relay::start(&client_config) {
        Ok(client) => client,
        Err(error) => {
            server.stop();
            return Err(explain_start(&error, "--socks-port", descriptors_min(&client_config)));
        }
    };
    let client_address = first_address(&client)?;
    info!("starting server at {server_address}");
    info!("starting local at {client_address}");
    let links = Links::new(up, &secret, &host, server_address);
    print(&[&guide(up, &secret, &links, client_address), &draw(up, &links)]);
    let account = Account::of(client_config.inbounds.iter().chain(&server_config.inbounds));
    hearing.wait(|| account.tell());
    client.stop();
    server.stop();
    account.tell_what_was_used();
    Ok(ExitCode::SUCCESS)
}

fn server_config(up: &Up, key: &Key, forbidden: Forbidden) -> Config {
    let keys = Arc::new(key.clone().into());
    let protocol =
        Protocol::Shadowsocks(ShadowsocksDoor { keys, heads: HeadReads::One, one_time_auth: false });
    config(up.server_port, protocol, Route::direct(), forbidden)
}

fn client_config(up: &Up, key: Key, server: SocketAddr) -> Config {
    let servers = vec![Server {
        address: server.into(),
        mode: Mode::Both(server.into()),
        credentials: key.into(),
        heads: HeadReads::One,
        one_time_auth: false,
    }];
    let protocol = Protocol::Proxy(ProxyDoor::MIXED);
    config(up.socks_port, protocol, Route::servers(servers), Forbidden::NOTHING)
}

fn config(port: u16, protocol: Protocol, route: Route, forbidden: Forbidden) -> Config {
    let inbound = Inbound {
        name: "up".into(),
        listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        protocol,
        mode: Mode::Both(Udp::default()),
        routes: route.into(),
        forbidden: Arc::new(forbidden),
        idle: Duration::from_secs(300),
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    };
    Config { inbounds: vec![inbound], workers: NonZeroUsize::MIN }
}

fn first_address(relay: &Relay) -> Result<SocketAddr, String> {
    relay.addresses().first().copied().ok_or_else(|| "the relay has no address".into())
}

/// What every new server forbids, unless a list was given.
fn forbidden_of(up: &Up) -> Result<Forbidden, String> {
    let mut settings = up.settings.clone();
    if settings.get(Id::ForbiddenIp).is_none() {
        settings.insert(Id::ForbidPrivate, "", Value::Switch(true));
    }
    let mut report = Report::default();
    let forbidden = read_forbidden(Role::Server, Leads::Directly, &settings, &mut report);
    for warning in &report.warnings {
        warn!("warning: {warning}");
    }
    report.errors.first().map_or(Ok(forbidden), |error| Err(error.to_string()))
}

/// Where the server will be once it has moved.
fn host_of(up: &Up) -> Result<Address, String> {
    Address::from_host(up.host.as_deref().unwrap_or("SERVER"), PUBLIC_PORT)
        .map_err(|error| format!("--host: {error}; give a name or an IP address without a port"))
}

/// The server of this run, and the same server once it has moved to another machine.
struct Links {
    here: ServerUrl,
    there: ServerUrl,
}

impl Links {
    fn new(up: &Up, secret: &Zeroizing<String>, host: &Address, server: SocketAddr) -> Self {
        let method: Box<str> = up.method.name().into();
        let tag = Some("umbra".into());
        let here = ServerUrl {
            method,
            password: secret.clone(),
            address: server.into(),
            plugin: None,
            tag,
            has_prefix: false,
        };
        Self { there: ServerUrl { address: host.clone(), ..here.clone() }, here }
    }

    /// The link that is worth carrying to another device.
    fn to_carry(&self, up: &Up) -> &ServerUrl {
        if up.host.is_some() { &self.there } else { &self.here }
    }
}

fn guide(up: &Up, secret: &str, links: &Links, socks: SocketAddr) -> Zeroizing<String> {
    let method = up.method;
    let hint = if up.host.is_some() { "" } else { ", with that machine's name or address for SERVER" };
    Zeroizing::new(format!(
        "
Both ends run on this machine. Try them:

    curl --socks5-hostname {socks} https://example.com/

A page means that SOCKS5, the encrypted stream between the two ends and the way out all work.

The server as a link, for other clients on this machine:

    {here}

To put the server half on another machine, run there:

    umbra server -s 0.0.0.0:{PUBLIC_PORT} -m {method} --forbid-private -k '{secret}'

and here{hint}:

    umbra local --server-url '{there}'

Ctrl-C ends both. The key was made for this run; the next run makes another.
",
        here = *links.here.to_text(),
        there = *links.there.to_text(),
    ))
}

/// The link as a QR code, where somebody can see it.
fn draw(up: &Up, links: &Links) -> Zeroizing<String> {
    let mut drawn = Zeroizing::new(String::new());
    if !up.draw_qr && !io::stdout().is_terminal() {
        return drawn;
    }
    let url = links.to_carry(up);
    let Some(code) = qr::draw(&url.to_text()) else { return drawn };
    drawn.push_str(&format!("\nThe server at {} as a QR code:\n\n", url.address));
    drawn.push_str(&code);
    drawn
}

/// The guide is for people; where nobody reads it, both ends serve all the same.
fn print(parts: &[&Zeroizing<String>]) {
    let mut out = io::stdout().lock();
    for part in parts {
        let _unheard = out.write_all(part.as_bytes());
    }
    let _unheard = out.flush();
}

/// The port that Shadowsocks servers are known for.
const PUBLIC_PORT: u16 = 8388;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::Settings;
    use umbra_proto::shadowsocks::Method;

    fn up(host: Option<&str>) -> Up {
        Up {
            socks_port: 0,
            server_port: 0,
            method: Method::Blake3Aes256Gcm,
            host: host.map(Into::into),
            settings: Settings::new(""),
            draw_qr: true,
            level: tracing::level_filters::LevelFilter::OFF,
        }
    }

    fn links_of(up: &Up) -> (Zeroizing<String>, Links) {
        let secret = key::make(up.method).unwrap();
        let links = Links::new(up, &secret, &host_of(up).unwrap(), "127.0.0.1:4321".parse().unwrap());
        (secret, links)
    }

    #[test]
    fn the_printed_links_read_back_as_the_server() {
        for (host, there) in
            [(None, "SERVER:8388"), (Some("::1"), "[::1]:8388"), (Some("a.example"), "a.example:8388")]
        {
            let (secret, links) = links_of(&up(host));
            for (link, address) in [(&links.here, "127.0.0.1:4321"), (&links.there, there)] {
                let read: ServerUrl = link.to_text().parse().unwrap();
                assert_eq!(read.address.to_string(), address);
                assert_eq!(*read.password, *secret);
            }
        }
        assert!(host_of(&up(Some("a.example:1"))).is_err());
    }

    #[test]
    fn the_guide_names_every_step() {
        let up = up(None);
        let (secret, links) = links_of(&up);
        let text = guide(&up, &secret, &links, "127.0.0.1:1080".parse().unwrap());
        assert!(text.contains("curl --socks5-hostname 127.0.0.1:1080 https://example.com/"));
        assert!(text.contains(&format!(
            "umbra server -s 0.0.0.0:8388 -m 2022-blake3-aes-256-gcm --forbid-private -k '{}'",
            *secret
        )));
        assert!(text.contains("umbra local --server-url 'ss://2022-blake3-aes-256-gcm:"));
        assert!(text.contains("@SERVER:8388#umbra'"));
        assert!(text.contains("@127.0.0.1:4321#umbra"));
    }
}
