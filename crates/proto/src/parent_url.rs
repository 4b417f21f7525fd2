//! URLs of proxies: one of somebody else on the way out.
//!
//! ```text
//!  socks4://  socks4a://                          [ percent(user id) "@" ]  host  [ ":" port ]  [ "/" ]
//!  socks5://  socks5h://  http://  https://       [ percent(name) ":" percent(password) "@" ]  host  [ ":" port ]  [ "/" ]
//! ```
//!
//! The schemes say what they say to curl: with `a` or `h` at the end names of targets are left to the proxy, without it
//! we find their addresses. A proxy that speaks HTTP gets the names.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::address::{Address, AddressError};
use crate::http::client::{BasicLogin, LoginError};
use crate::request::Names;
use crate::socks4::client::{UserId, UserIdError};
use crate::users::{Credentials, UsersError};

/// A proxy as a URL names it.
#[derive(Clone, Debug)]
pub struct ParentUrl {
    /// What is spoken there, and what it takes to speak it.
    pub scheme: Scheme,
    /// Where it is.
    pub address: Address,
}

/// What a proxy speaks.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// `socks4://`, `socks4a://`
    Socks4 {
        /// Who finds the addresses of names.
        names: Names,
        /// Who we say we are; empty where the URL says nothing.
        user_id: UserId,
    },
    /// `socks5://`, `socks5h://`
    Socks5 {
        /// Who finds the addresses of names.
        names: Names,
        /// Who we are, should it ask.
        login: Option<Credentials>,
    },
    /// `http://`: CONNECT.
    Http {
        /// Who we are.
        login: Option<BasicLogin>,
    },
    /// `https://`: CONNECT within TLS.
    Https {
        /// Who we are.
        login: Option<BasicLogin>,
    },
}

/// Why text is not such a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentUrlError {
    /// It does not start with one of the schemes.
    Scheme,
    /// A percent-encoded part is not UTF-8.
    NotText,
    /// There is a name before the `@` and no password.
    NoPassword,
    /// There is a password, and SOCKS4 has none.
    Password,
    /// The user id is impossible.
    UserId(UserIdError),
    /// Name or password are impossible.
    Login(UsersError),
    /// Name or password are impossible in HTTP.
    BasicLogin(LoginError),
    /// Something follows the port.
    Path,
    /// The address is wrong.
    Address(AddressError),
}

impl Scheme {
    /// Who finds the addresses of targets' names.
    pub fn names(&self) -> Names {
        match self {
            Self::Socks4 { names, .. } | Self::Socks5 { names, .. } => *names,
            Self::Http { .. } | Self::Https { .. } => Names::PassOn,
        }
    }

    fn port_default(&self) -> u16 {
        match self {
            Self::Socks4 { .. } | Self::Socks5 { .. } => 1080,
            Self::Http { .. } => 80,
            Self::Https { .. } => 443,
        }
    }
}

impl FromStr for ParentUrl {
    type Err = ParentUrlError;

    fn from_str(text: &str) -> Result<Self, ParentUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(ParentUrlError::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let scheme = read_scheme(scheme, user)?;
        if host.contains(['/', '?', '#']) {
            return Err(ParentUrlError::Path);
        }
        let host = decode(host);
        let host = as_text(&host)?;
        let has_port = !host.ends_with(']') && host.contains(':');
        let address = if has_port { host.parse() } else { Address::from_host(host, scheme.port_default()) };
        Ok(Self { scheme, address: address.map_err(ParentUrlError::Address)? })
    }
}

/// What is spoken, for whoever the part before the `@` says.
fn read_scheme(scheme: &str, user: Option<&str>) -> Result<Scheme, ParentUrlError> {
    let login = || user.map(read_login).transpose();
    let basic = || {
        let login = login()?;
        login.as_ref().map(BasicLogin::new).transpose().map_err(ParentUrlError::BasicLogin)
    };
    let user_id = || user.map_or_else(|| Ok(UserId::default()), read_user_id);
    Ok(match &*scheme.to_ascii_lowercase() {
        "socks4" => Scheme::Socks4 { names: Names::ResolveHere, user_id: user_id()? },
        "socks4a" => Scheme::Socks4 { names: Names::PassOn, user_id: user_id()? },
        "socks5" => Scheme::Socks5 { names: Names::ResolveHere, login: login()? },
        "socks5h" => Scheme::Socks5 { names: Names::PassOn, login: login()? },
        "http" => Scheme::Http { login: basic()? },
        "https" => Scheme::Https { login: basic()? },
        _ => return Err(ParentUrlError::Scheme),
    })
}

fn read_login(text: &str) -> Result<Credentials, ParentUrlError> {
    let (name, password) = text.split_once(':').ok_or(ParentUrlError::NoPassword)?;
    let (name, password) = (decode(name), decode(password));
    Credentials::new(as_text(&name)?, as_text(&password)?).map_err(ParentUrlError::Login)
}

/// A user id is bytes, and need not be text. A colon of its own is written `%3A`.
fn read_user_id(text: &str) -> Result<UserId, ParentUrlError> {
    if text.contains(':') {
        return Err(ParentUrlError::Password);
    }
    UserId::new(&decode(text)).map_err(ParentUrlError::UserId)
}

fn decode(text: &str) -> Zeroizing<Vec<u8>> {
    // A buffer that grows leaves copies of what it held behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    bytes.extend(percent_decode_str(text));
    bytes
}

fn as_text(bytes: &[u8]) -> Result<&str, ParentUrlError> {
    str::from_utf8(bytes).map_err(|_| ParentUrlError::NotText)
}

impl fmt::Display for ParentUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str(
                "the URL starts with none of socks5://, socks5h://, socks4://, socks4a://, http:// and https://",
            ),
            Self::NotText => f.write_str("a part of the URL does not decode to UTF-8 text; write % itself as %25"),
            Self::NoPassword => f.write_str(
                "the URL has a name before the @ and no password; write NAME:PASSWORD@, or leave the name out",
            ),
            Self::Password => f.write_str(
                "SOCKS4 has a user id and no password; leave the : out, write %3A where the user id has one, or use socks5://",
            ),
            Self::UserId(why) => write!(f, "the URL's user id: {why}; write another one, or leave it out"),
            Self::Login(why) => write!(f, "the URL's login: {why}; correct it, or leave NAME:PASSWORD@ out"),
            Self::BasicLogin(why) => write!(f, "{why}; use another login there, or socks5://"),
            Self::Path => f.write_str(
                "nothing may follow the port; leave it out, and write / ? # of a password as %2F %3F %23",
            ),
            Self::Address(why) => write!(f, "the URL's address: {why}; write HOST:PORT behind the @ or the //"),
        }
    }
}

impl std::error::Error for ParentUrlError {}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;

    fn read(text: &str) -> ParentUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn login(url: &ParentUrl) -> Option<(&str, &str)> {
        let Scheme::Socks5 { login, .. } = &url.scheme else { panic!("{url:?}") };
        login.as_ref().map(|login| (login.name().as_str(), str::from_utf8(login.password()).unwrap()))
    }

    fn user_id(url: &ParentUrl) -> &[u8] {
        let Scheme::Socks4 { user_id, .. } = &url.scheme else { panic!("{url:?}") };
        user_id.as_bytes()
    }

    #[test]
    fn proxies_with_and_without_a_login_and_a_port_read() {
        for (text, address, expected) in [
            ("socks5://127.0.0.1:1081", "127.0.0.1:1081", None),
            ("SOCKS5H://proxy.example", "proxy.example:1080", None),
            ("socks5://[::1]:9/", "[::1]:9", None),
            ("socks5://[::1]", "[::1]:1080", None),
            ("socks5://me:a%3Ab%40c@proxy.example:1", "proxy.example:1", Some(("me", "a:b@c"))),
            ("socks5h://m%3Ae:a%25@proxy.example:1", "proxy.example:1", Some(("m:e", "a%"))),
            ("socks5://me:a@b@proxy.example:1", "proxy.example:1", Some(("me", "a@b"))),
            ("socks5://me:a/b@%70roxy.example:1", "proxy.example:1", Some(("me", "a/b"))),
        ] {
            let url = read(text);
            assert_eq!(url.address.to_string(), address, "{text}");
            assert_eq!(login(&url), expected, "{text}");
        }
    }

    #[test]
    fn each_scheme_has_its_port_and_says_who_finds_the_addresses_of_names() {
        for (scheme, port, names) in [
            ("socks4", 1080, Names::ResolveHere),
            ("socks4a", 1080, Names::PassOn),
            ("socks5", 1080, Names::ResolveHere),
            ("socks5h", 1080, Names::PassOn),
            ("http", 80, Names::PassOn),
            ("https", 443, Names::PassOn),
            ("HttpS", 443, Names::PassOn),
        ] {
            for host in ["h", "[::1]", "192.0.2.1"] {
                let url = read(&format!("{scheme}://{host}"));
                assert_eq!((url.address.port(), url.scheme.names()), (port, names), "{scheme}");
                assert_eq!(read(&format!("{scheme}://{host}:7/")).address.port(), 7);
            }
        }
        assert!(matches!(read("socks4a://h").scheme, Scheme::Socks4 { .. }));
        assert!(matches!(read("socks5h://h").scheme, Scheme::Socks5 { login: None, .. }));
        assert!(matches!(read("http://h").scheme, Scheme::Http { login: None }));
        assert!(matches!(read("http://a:b@h").scheme, Scheme::Http { login: Some(_) }));
        assert!(matches!(read("https://h").scheme, Scheme::Https { login: None }));
        assert!(matches!(read("https://a:b@h").scheme, Scheme::Https { login: Some(_) }));
    }

    #[test]
    fn socks4_has_a_user_id_of_any_bytes() {
        for (text, expected) in [
            ("socks4://h", &b""[..]),
            ("socks4://@h", b""),
            ("socks4a://me@h", b"me"),
            ("socks4://a%3Ab%40%ff@h", b"a:b@\xff"),
        ] {
            assert_eq!(user_id(&read(text)), expected, "{text}");
        }
    }

    #[test]
    fn each_way_of_being_wrong_is_told_apart() {
        for (text, error) in [
            ("", ParentUrlError::Scheme),
            ("127.0.0.1:1080", ParentUrlError::Scheme),
            ("socks://127.0.0.1:1080", ParentUrlError::Scheme),
            ("ftp://a:b@h", ParentUrlError::Scheme),
            ("socks5://a:%ff@h:1", ParentUrlError::NotText),
            ("socks5://%ff:1", ParentUrlError::NotText),
            ("socks5://a@h:1", ParentUrlError::NoPassword),
            ("https://a@h:1", ParentUrlError::NoPassword),
            ("socks4://a:b@h:1", ParentUrlError::Password),
            ("socks4a://a:@h:1", ParentUrlError::Password),
            ("socks4://a%00@h:1", ParentUrlError::UserId(UserIdError::Nul)),
            ("socks5://:b@h:1", ParentUrlError::Login(UsersError::EmptyName)),
            ("socks5://a:@h:1", ParentUrlError::Login(UsersError::EmptyPassword)),
            ("http://a:@h:1", ParentUrlError::Login(UsersError::EmptyPassword)),
            ("http://a%3Ab:c@h:1", ParentUrlError::BasicLogin(LoginError::Colon)),
            ("https://a%0D%0A:c@h:1", ParentUrlError::BasicLogin(LoginError::Control)),
            ("socks5://h:1/path", ParentUrlError::Path),
            ("http://h/?q", ParentUrlError::Path),
            ("socks5://h:x", ParentUrlError::Address(AddressError::BadPort)),
            ("http://h%2Fpath", ParentUrlError::Address(AddressError::BadName)),
            ("http://a%0D%0Ab", ParentUrlError::Address(AddressError::BadName)),
            ("socks5://", ParentUrlError::Address(AddressError::EmptyName)),
        ] {
            assert_eq!(text.parse::<ParentUrl>().unwrap_err(), error, "{text}");
        }
        let long = format!("socks4://{}@h", "x".repeat(256));
        assert_eq!(long.parse::<ParentUrl>().unwrap_err(), ParentUrlError::UserId(UserIdError::Long));
    }

    #[test]
    fn a_url_does_not_print_its_login() {
        for text in [
            "socks5://someone:hunter2@h:1",
            "http://someone:hunter2@h:1",
            "https://someone:hunter2@h:1",
            "socks4://someone%3Ahunter2@h:1",
        ] {
            let printed = format!("{:?}", read(text));
            assert!(!printed.contains("hunter2") && !printed.contains("someone"), "{printed}");
            // `someone:hunter2` in base64
            assert!(!printed.contains("c29tZW9uZTpodW50ZXIy"), "{printed}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_percent_encoded_is_read_as_it_was(
            name in "\\PC{1,40}", password in "\\PC{1,40}", id in prop::collection::vec(1_u8.., 0..=255),
        ) {
            let encode = |bytes: &[u8]| percent_encode(bytes, NON_ALPHANUMERIC).to_string();
            let (n, p) = (encode(name.as_bytes()), encode(password.as_bytes()));
            let url = read(&format!("socks5://{n}:{p}@h"));
            prop_assert_eq!(login(&url), Some((&*name, &*password)));
            let url = read(&format!("socks4://{}@h", encode(&id)));
            prop_assert_eq!(user_id(&url), &id[..]);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            let _ = text.parse::<ParentUrl>();
            for scheme in ["socks4", "socks4a", "socks5", "socks5h", "http", "https"] {
                let _ = format!("{scheme}://{text}").parse::<ParentUrl>();
            }
        }
    }
}
