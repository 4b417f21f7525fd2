//! `socks5://` URLs: a proxy of somebody else on the way out.
//!
//! ```text
//!  socks5://  [ percent(name) ":" percent(password) "@" ]  host  [ ":" port ]  [ "/" ]
//! ```

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::address::{Address, AddressError};
use crate::users::{Credentials, UsersError};

/// A SOCKS5 proxy as a URL names it. Names of targets are always left to it, as `socks5h://` says elsewhere.
#[derive(Clone, Debug)]
pub struct ParentUrl {
    /// Where it is.
    pub address: Address,
    /// Who we are to it, should it ask.
    pub login: Option<Credentials>,
}

/// Why text is not such a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentUrlError {
    /// It does not start with `socks5://`.
    Scheme,
    /// A percent-encoded part is not UTF-8.
    NotText,
    /// There is a name before the `@` and no password.
    NoPassword,
    /// Name or password are impossible.
    Login(UsersError),
    /// Something follows the port.
    Path,
    /// The address is wrong.
    Address(AddressError),
}

impl FromStr for ParentUrl {
    type Err = ParentUrlError;

    fn from_str(text: &str) -> Result<Self, ParentUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(ParentUrlError::Scheme)?;
        if !SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
            return Err(ParentUrlError::Scheme);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, host) = match rest.rsplit_once('@') {
            Some((login, host)) => (Some(read_login(login)?), host),
            None => (None, rest),
        };
        if host.contains(['/', '?', '#']) {
            return Err(ParentUrlError::Path);
        }
        let has_port = !host.ends_with(']') && host.contains(':');
        let address = if has_port { host.parse() } else { Address::from_host(host, PORT_DEFAULT) };
        Ok(Self { address: address.map_err(ParentUrlError::Address)?, login })
    }
}

fn read_login(text: &str) -> Result<Credentials, ParentUrlError> {
    let (name, password) = text.split_once(':').ok_or(ParentUrlError::NoPassword)?;
    Credentials::new(&decode(name)?, &decode(password)?).map_err(ParentUrlError::Login)
}

fn decode(text: &str) -> Result<Zeroizing<String>, ParentUrlError> {
    let bytes = Zeroizing::new(percent_decode_str(text).collect::<Vec<u8>>());
    Ok(Zeroizing::new(str::from_utf8(&bytes).map_err(|_| ParentUrlError::NotText)?.into()))
}

impl fmt::Display for ParentUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("the URL does not start with socks5://"),
            Self::NotText => f.write_str("a part of the URL does not decode to UTF-8 text"),
            Self::NoPassword => f.write_str("the URL has a name before the @ and no password"),
            Self::Login(why) => write!(f, "the URL's login: {why}"),
            Self::Path => f.write_str("nothing may follow the port"),
            Self::Address(why) => write!(f, "the URL's address: {why}"),
        }
    }
}

impl std::error::Error for ParentUrlError {}

const SCHEMES: [&str; 2] = ["socks5", "socks5h"];

/// The port that SOCKS has (RFC 1928, section 3).
const PORT_DEFAULT: u16 = 1080;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn proxies_with_and_without_a_login_and_a_port_read() {
        for (text, address, login) in [
            ("socks5://127.0.0.1:1081", "127.0.0.1:1081", None),
            ("SOCKS5H://proxy.example", "proxy.example:1080", None),
            ("socks5://[::1]:9/", "[::1]:9", None),
            ("socks5://[::1]", "[::1]:1080", None),
            ("socks5://me:a%3Ab%40c@proxy.example:1", "proxy.example:1", Some(("me", "a:b@c"))),
            ("socks5://me:a@b@proxy.example:1", "proxy.example:1", Some(("me", "a@b"))),
        ] {
            let url: ParentUrl = text.parse().unwrap();
            assert_eq!(url.address.to_string(), address, "{text}");
            let read = url
                .login
                .as_ref()
                .map(|login| (login.name().as_str(), str::from_utf8(login.password()).unwrap()));
            assert_eq!(read, login, "{text}");
        }
    }

    #[test]
    fn each_way_of_being_wrong_is_told_apart() {
        for (text, error) in [
            ("", ParentUrlError::Scheme),
            ("127.0.0.1:1080", ParentUrlError::Scheme),
            ("http://127.0.0.1:1080", ParentUrlError::Scheme),
            ("socks5://a:%ff@h:1", ParentUrlError::NotText),
            ("socks5://a@h:1", ParentUrlError::NoPassword),
            ("socks5://:b@h:1", ParentUrlError::Login(UsersError::EmptyName)),
            ("socks5://a:@h:1", ParentUrlError::Login(UsersError::EmptyPassword)),
            ("socks5://h:1/path", ParentUrlError::Path),
            ("socks5://h:x", ParentUrlError::Address(AddressError::BadPort)),
            ("socks5://", ParentUrlError::Address(AddressError::EmptyName)),
        ] {
            assert_eq!(text.parse::<ParentUrl>().unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_url_does_not_print_its_login() {
        let url: ParentUrl = "socks5://someone:hunter2@h:1".parse().unwrap();
        let printed = format!("{url:?}");
        assert!(!printed.contains("hunter2") && !printed.contains("someone"), "{printed}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            let _ = text.parse::<ParentUrl>();
            let _ = format!("socks5://{text}").parse::<ParentUrl>();
        }
    }
}
