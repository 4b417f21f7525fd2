//! Any text as the URL of a proxy, and any login and address in one: what is read is what the proxy is told, and nothing is read that
//! the parts by themselves would not be.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_proto::Handshake as _;
use umbra_proto::address::Address;
use umbra_proto::http::client::BasicLogin;
use umbra_proto::parent_url::{ParentUrl, Scheme};
use umbra_proto::request::{Command, Names};
use umbra_proto::socks4::client::UserId;
use umbra_proto::users::Credentials;
use umbra_proto::wire::Input;
use umbra_proto::{http, socks4, socks5};

#[derive(Arbitrary, Debug)]
struct Session {
    text: String,
    scheme: u8,
    login: Option<(String, String)>,
    host: String,
    port: u16,
}

fuzz_target!(|session: Session| {
    let scheme = SCHEMES[usize::from(session.scheme) % SCHEMES.len()];
    // Most random text stops at the scheme.
    for text in [session.text.clone(), format!("{scheme}://{}", session.text)] {
        let Ok(url) = text.parse::<ParentUrl>() else { continue };
        let (before_address, _) = text.split_once("://").expect("a URL has a scheme");
        let alone: ParentUrl = format!("{before_address}://{}", encode(&url.address.to_string()))
            .parse()
            .expect("an address that was read is one");
        assert_eq!((alone.address, alone.scheme.names()), (url.address, url.scheme.names()));
        assert!(say(&url.scheme).len() <= 4 + 3 + 2 * 255 + 1024, "a login has an end");
    }
    build(scheme, &session);
});

/// A URL of these parts, in which nothing stands for anything but itself.
fn build(scheme: &str, Session { login, host, port, .. }: &Session) {
    let address = format!("{host}:{port}");
    let user = login.as_ref().map(|(name, password)| match scheme {
        "socks4" | "socks4a" => encode(name) + "@",
        _ => format!("{}:{}@", encode(name), encode(password)),
    });
    let text = format!("{scheme}://{}{}", user.unwrap_or_default(), encode(&address));
    let expected = expect(scheme, login.as_ref()).zip(address.parse::<Address>().ok());
    match (text.parse::<ParentUrl>(), expected) {
        (Ok(url), Some((scheme, address))) => {
            assert_eq!((&url.address, url.scheme.names()), (&address, scheme.names()));
            assert_eq!(say(&url.scheme), say(&scheme));
        }
        (Err(why), None) => assert!(why.to_string().len() < 256),
        (Ok(url), None) => panic!("{text} was read as {url:?}"),
        (Err(why), Some(_)) => panic!("{text} was not read: {why}"),
    }
}

/// The same without a URL.
fn expect(scheme: &str, login: Option<&(String, String)>) -> Option<Scheme> {
    let credentials = || login.map(|(name, password)| Credentials::new(name, password)).transpose().ok();
    let basic = || {
        let credentials = credentials()?;
        credentials.as_ref().map(BasicLogin::new).transpose().ok()
    };
    let user_id = || UserId::new(login.map_or("", |(name, _)| name).as_bytes()).ok();
    Some(match scheme {
        "socks4" => Scheme::Socks4 { names: Names::ResolveHere, user_id: user_id()? },
        "socks4a" => Scheme::Socks4 { names: Names::PassOn, user_id: user_id()? },
        "socks5" => Scheme::Socks5 { names: Names::ResolveHere, login: credentials()? },
        "socks5h" => Scheme::Socks5 { names: Names::PassOn, login: credentials()? },
        "http" => Scheme::Http { login: basic()? },
        "https" => Scheme::Https { login: basic()? },
        other => unreachable!("{other} is none of the schemes"),
    })
}

/// What a proxy is told that wants to know who asks.
fn say(scheme: &Scheme) -> Vec<u8> {
    let (command, target) = (Command::Connect, Address::Ip(([192, 0, 2, 1], 80).into()));
    let target = &target;
    let mut output = Vec::new();
    match scheme {
        Scheme::Socks4 { names, user_id } => {
            let request = socks4::client::Request { command, target, names: *names, user_id };
            request.send(&mut output).expect("SOCKS4 has words for it");
        }
        Scheme::Socks5 { login, names: _ } => {
            let request = socks5::client::Request { command, target };
            let client = socks5::client::Client::new(request, login.as_ref(), &mut output);
            let mut choice = [5, if login.is_some() { 2 } else { 0 }];
            client.advance(&mut Input::new(&mut choice), &mut output).expect("what was offered is chosen");
        }
        Scheme::Http { login } | Scheme::Https { login } => {
            let request = http::client::Request { target, login: login.as_ref() };
            request.send(&mut output).expect("HTTP has words for it");
        }
    }
    output
}

/// Every byte by its number.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

const SCHEMES: [&str; 6] = ["socks4", "socks4a", "socks5", "socks5h", "http", "https"];
