//! `umbra up`: both ends in one process, with a fresh key, and the words to try them and to take them apart.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use tracing::{info, warn};
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::url::ServerUrl;
use umbra_relay::Relay;
use umbra_relay::config::{Config, Inbound, Path, Protocol, Server, Tcp};
use zeroize::Zeroizing;

use crate::flags::Up;
use crate::process::{Farewell, raise_nofile};
use crate::run::explain_start;
use crate::{fail, key, log};

/// Runs both ends until told to end.
pub(crate) fn run(up: &Up) -> ExitCode {
    log::start(up.level);
    match start(up) {
        Ok(code) => code,
        Err(why) => fail(&why),
    }
}

fn start(up: &Up) -> Result<ExitCode, String> {
    let host = Address::from_host(up.host.as_deref().unwrap_or("127.0.0.1"), 0)
        .map_err(|error| format!("--host: {error}; give a name or an IP address without a port"))?;
    let secret =
        key::make(up.method).map_err(|error| format!("the system gives no random numbers: {error}"))?;
    let key = Key::from_password(up.method, &secret)
        .map_err(|error| format!("the fresh key is no key: {error}"))?;
    if let Err(why) = raise_nofile(None) {
        warn!("{why}");
    }
    let mut farewell = Farewell::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let server =
        Relay::start(&server_config(up, &key)).map_err(|error| explain_start(&error, "--server-port"))?;
    let server_address = first_address(&server)?;
    let client = match Relay::start(&client_config(up, key, server_address)) {
        Ok(client) => client,
        Err(error) => {
            server.stop();
            return Err(explain_start(&error, "--socks-port"));
        }
    };
    let client_address = first_address(&client)?;
    info!("starting server at {server_address}");
    info!("starting local at {client_address}");
    let url = link(up, &secret, &host, server_address.port());
    print(&[&guide(up, &secret, &url, client_address), &draw(up, &url)]);
    farewell.wait();
    client.stop();
    server.stop();
    Ok(ExitCode::SUCCESS)
}

fn server_config(up: &Up, key: &Key) -> Config {
    config(up.server_port, Protocol::Shadowsocks(Arc::new(key.clone())), Path::Direct)
}

fn client_config(up: &Up, key: Key, server: SocketAddr) -> Config {
    let servers = [Server { address: server.into(), key }];
    config(up.socks_port, Protocol::Socks5, Path::Shadowsocks(Arc::new(servers)))
}

fn config(port: u16, protocol: Protocol, path: Path) -> Config {
    let inbound = Inbound {
        listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        protocol,
        path,
        idle: Duration::from_secs(300),
        tcp: Tcp { no_delay: true, fast_open: false },
    };
    Config { inbounds: vec![inbound], workers: NonZeroUsize::MIN }
}

fn first_address(relay: &Relay) -> Result<SocketAddr, String> {
    relay.addresses().first().copied().ok_or_else(|| "the relay has no address".into())
}

fn link(up: &Up, secret: &Zeroizing<String>, host: &Address, port: u16) -> ServerUrl {
    let address = match host {
        Address::Ip(ip) => Address::Ip(SocketAddr::new(ip.ip(), port)),
        Address::Name(name, _) => Address::Name(name.clone(), port),
    };
    let method = up.method.name().into();
    ServerUrl { method, password: secret.clone(), address, plugin: None, tag: Some("umbra".into()) }
}

fn guide(up: &Up, secret: &str, url: &ServerUrl, socks: SocketAddr) -> Zeroizing<String> {
    let there = match &up.host {
        Some(_) => ServerUrl { address: with_port(&url.address, PUBLIC_PORT), ..url.clone() },
        None => ServerUrl { address: placeholder(), ..url.clone() },
    };
    let method = up.method;
    Zeroizing::new(format!(
        "
Both ends run on this machine. Try them:

    curl --socks5-hostname {socks} https://example.com/

A page means that SOCKS5, the encrypted stream between the two ends and the way out all work.

The server as a link for this and other clients:

    {url}

To put the server half on another machine, run there:

    umbra server -s 0.0.0.0:{PUBLIC_PORT} -m {method} -k '{secret}'

and here, with that machine's name or address in the link:

    umbra local --server-url '{there}'

Ctrl-C ends both. The key was made for this run; the next run makes another.
",
        url = *url.to_text(),
        there = *there.to_text(),
    ))
}

fn with_port(address: &Address, port: u16) -> Address {
    match address {
        Address::Ip(ip) => Address::Ip(SocketAddr::new(ip.ip(), port)),
        Address::Name(name, _) => Address::Name(name.clone(), port),
    }
}

fn placeholder() -> Address {
    Address::from_host("SERVER", PUBLIC_PORT).expect("SERVER is a name of six letters")
}

/// The link as a QR code, light on dark as terminals are, where somebody can see it.
fn draw(up: &Up, url: &ServerUrl) -> Zeroizing<String> {
    let on_terminal = io::stdout().is_terminal();
    let mut drawn = Zeroizing::new(String::new());
    if !on_terminal && !up.draw_qr {
        return drawn;
    }
    let Ok(code) = QrCode::new(url.to_text().as_bytes()) else { return drawn };
    // Dark and light change places: on a dark terminal the character's ink is the light part.
    let image = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    for line in image.lines() {
        let (on, off) = if on_terminal { ("\x1b[97;40m", "\x1b[0m") } else { ("", "") };
        // Writing to a String does not fail.
        let _infallible = writeln!(drawn, "{on}{line}{off}");
    }
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
    use umbra_proto::shadowsocks::Method;

    fn up(host: Option<&str>) -> Up {
        Up {
            socks_port: 0,
            server_port: 0,
            method: Method::Blake3Aes256Gcm,
            host: host.map(Into::into),
            draw_qr: true,
            level: tracing::level_filters::LevelFilter::OFF,
        }
    }

    fn link_of(up: &Up) -> (Zeroizing<String>, ServerUrl) {
        let secret = key::make(up.method).unwrap();
        let host = Address::from_host(up.host.as_deref().unwrap_or("127.0.0.1"), 0).unwrap();
        let url = link(up, &secret, &host, 4321);
        (secret, url)
    }

    #[test]
    fn the_printed_link_reads_back_as_the_server() {
        for (host, address) in
            [(None, "127.0.0.1:4321"), (Some("::1"), "[::1]:4321"), (Some("a.example"), "a.example:4321")]
        {
            let (secret, url) = link_of(&up(host));
            let read: ServerUrl = url.to_text().parse().unwrap();
            assert_eq!(read.address.to_string(), address);
            assert_eq!(*read.password, *secret);
        }
    }

    #[test]
    fn the_guide_names_every_step() {
        let up = up(None);
        let (secret, url) = link_of(&up);
        let text = guide(&up, &secret, &url, "127.0.0.1:1080".parse().unwrap());
        assert!(text.contains("curl --socks5-hostname 127.0.0.1:1080 https://example.com/"));
        assert!(
            text.contains(&format!(
                "umbra server -s 0.0.0.0:8388 -m 2022-blake3-aes-256-gcm -k '{}'",
                *secret
            ))
        );
        assert!(text.contains("umbra local --server-url 'ss://2022-blake3-aes-256-gcm:"));
        assert!(text.contains("@SERVER:8388#umbra'"));
    }

    #[test]
    fn the_drawing_is_square_and_of_half_blocks() {
        let up = up(None);
        let (_, url) = link_of(&up);
        let drawn = draw(&up, &url);
        let widths: Vec<_> =
            drawn.lines().map(|line| line.chars().filter(|c| " ▀▄█".contains(*c)).count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
        assert!(widths[0].abs_diff(2 * widths.len()) <= 1);
    }
}
