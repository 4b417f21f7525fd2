//! `ss://` links: SIP002, and the form before it.
//!
//! ```text
//!  ss://  base64url(method ":" password)        @  host ":" port  [ "/" ]  [ "?plugin=" … ]  [ "#" tag ]
//!  ss://  percent(method) ":" percent(password) @  host ":" port  [ "/" ]  [ "?plugin=" … ]  [ "#" tag ]
//!  ss://  base64(method ":" password "@" host ":" port)                                      [ "#" tag ]   (before SIP002)
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{
    GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD, URL_SAFE_NO_PAD,
};
use base64::engine::{DecodePaddingMode, GeneralPurpose as Decoder};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::address::{Address, AddressError};

/// A Shadowsocks server as a link names it. Its password is wiped when dropped and not printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// The method's name, which need not be one that we know.
    pub method: Box<str>,
    /// The password, or the key in base64.
    pub password: Zeroizing<String>,
    /// Where the server is.
    pub address: Address,
    /// The plugin and its options, `name;key=value`, in the form of SIP003.
    pub plugin: Option<Box<str>>,
    /// What people call the server.
    pub tag: Option<Box<str>>,
    /// Whether it asks for a `prefix`, with which Outline has a session begin. It is not followed, and not written.
    pub has_prefix: bool,
}

/// Why text is not an `ss://` link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// It does not start with `ss://`.
    NoScheme,
    /// What should be base64 is not.
    NotBase64,
    /// A percent-encoded or base64 part is not UTF-8.
    NotText,
    /// There is no `@` between the secret and the server.
    NoServer,
    /// There is no `:` between method and password.
    NoPassword,
    /// The method holds a `:`, which no method's name does and which base64 forms could not keep.
    BadMethod,
    /// Something follows the port that is neither `?plugin=…` nor a `#tag`.
    BadPath,
    /// It names its plugin in a way of one program (`v2ray-plugin=`), and the server cannot be spoken with as if there were none.
    ForeignPlugin,
    /// The server's address is wrong.
    BadAddress(AddressError),
}

impl ServerUrl {
    /// Writes the link in the form that SIP002 asks for: plain for SIP022 methods, base64url for all others.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::from("ss://"));
        if self.method.starts_with("2022-") {
            text.extend(utf8_percent_encode(&self.method, ENCODED));
            text.push(':');
            text.extend(utf8_percent_encode(&self.password, ENCODED));
        } else {
            let user = Zeroizing::new(format!("{}:{}", self.method, *self.password));
            URL_SAFE_NO_PAD.encode_string(user.as_bytes(), &mut text);
        }
        text.push('@');
        match &self.address {
            Address::Ip(address) => text.push_str(&address.to_string()),
            Address::Name(name, port) => {
                text.extend(utf8_percent_encode(name.as_str(), ENCODED));
                text.push_str(&format!(":{port}"));
            }
        }
        if let Some(plugin) = &self.plugin {
            text.push_str("/?plugin=");
            text.extend(utf8_percent_encode(plugin, ENCODED));
        }
        self.write_tag(&mut text);
        text
    }

    /// Writes the link in the form before SIP002, for programs that read nothing newer. It has no place for a plugin.
    pub fn to_legacy_text(&self) -> Option<Zeroizing<String>> {
        if self.plugin.is_some() {
            return None;
        }
        let body = Zeroizing::new(format!("{}:{}@{}", self.method, *self.password, self.address));
        let mut text = Zeroizing::new(String::from("ss://"));
        STANDARD_NO_PAD.encode_string(body.as_bytes(), &mut text);
        self.write_tag(&mut text);
        Some(text)
    }

    fn write_tag(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push('#');
            text.extend(utf8_percent_encode(tag, ENCODED));
        }
    }
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_at_checked(SCHEME.len()).ok_or(UrlError::NoScheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(UrlError::NoScheme);
        }
        let (rest, tag) = match rest.split_once('#') {
            Some((rest, tag)) => (rest, Some(decode_tag(tag)?)),
            None => (rest, None),
        };
        let (body, query) = rest.split_once('?').unwrap_or((rest, ""));
        let server = match body.rsplit_once('@') {
            Some((user, host)) => parse_sip002(user, host)?,
            None => parse_legacy(body)?,
        };
        let has_prefix = find_value(query, "prefix").is_some_and(|prefix| !prefix.is_empty());
        Ok(Self { plugin: find_plugin(query)?, tag, has_prefix, ..server })
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerUrl")
            .field("method", &self.method)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoScheme => f.write_str("the link does not start with ss://"),
            Self::NotBase64 => f.write_str("the part after ss:// is not base64"),
            Self::NotText => f.write_str("a part of the link does not decode to UTF-8 text"),
            Self::NoServer => f.write_str("the link names no server after an @"),
            Self::NoPassword => f.write_str("the link has no : between method and password"),
            Self::BadMethod => f.write_str("the link's method holds a :, and no method does"),
            Self::BadPath => f.write_str("only ?plugin=… or #name may follow the port"),
            Self::ForeignPlugin => f.write_str(
                "the link asks for its plugin with v2ray-plugin=…, which only the program that wrote it reads; write what that says in the \
                 form of SIP003, ?plugin=v2ray-plugin;mode=…;host=…;path=…",
            ),
            Self::BadAddress(why) => write!(f, "the link's server: {why}"),
        }
    }
}

impl std::error::Error for UrlError {}

fn parse_sip002(user: &str, host: &str) -> Result<ServerUrl, UrlError> {
    let host = host.strip_suffix('/').unwrap_or(host);
    if host.contains('/') {
        return Err(UrlError::BadPath);
    }
    let address = parse_host(host)?;
    match user.split_once(':') {
        Some((method, password)) => server(&decode_percent(method)?, decode_percent(password)?, address),
        None => {
            let user = decode_base64(&decode_percent(user)?)?;
            let (method, password) = user.split_once(':').ok_or(UrlError::NoPassword)?;
            server(method, Zeroizing::new(password.into()), address)
        }
    }
}

/// A host in percent-encoded UTF-8 (RFC 3986, section 3.2.2) or as it is, and its port. The percent sign in an IPv6 address divides its zone.
fn parse_host(host: &str) -> Result<Address, UrlError> {
    let name = host.rsplit_once(':').filter(|(name, _)| !name.starts_with('[') && name.contains('%'));
    match name {
        Some((name, port)) => format!("{}:{port}", *decode_percent(name)?).parse(),
        None => host.parse(),
    }
    .map_err(UrlError::BadAddress)
}

/// The password stands there raw, so it may hold any of `@`, `:` and `/`: the last `@` and the first `:` divide.
fn parse_legacy(body: &str) -> Result<ServerUrl, UrlError> {
    let body = decode_base64(&decode_percent(body)?)?;
    let (user, host) = body.rsplit_once('@').ok_or(UrlError::NoServer)?;
    let (method, password) = user.split_once(':').ok_or(UrlError::NoPassword)?;
    let address = host.parse().map_err(UrlError::BadAddress)?;
    server(method, Zeroizing::new(password.into()), address)
}

fn server(method: &str, password: Zeroizing<String>, address: Address) -> Result<ServerUrl, UrlError> {
    if method.contains(':') {
        return Err(UrlError::BadMethod);
    }
    Ok(ServerUrl { method: method.into(), password, address, plugin: None, tag: None, has_prefix: false })
}

/// Unknown keys of the query are ignored, as SIP002 asks, but for one that is a plugin by another name.
fn find_plugin(query: &str) -> Result<Option<Box<str>>, UrlError> {
    let Some(value) = find_value(query, "plugin") else {
        return if find_value(query, "v2ray-plugin").is_some() {
            Err(UrlError::ForeignPlugin)
        } else {
            Ok(None)
        };
    };
    let plugin = decode_percent(value)?;
    Ok((!plugin.is_empty()).then(|| plugin.as_str().into()))
}

/// What the query says of `key`, encoded as it is.
fn find_value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(name, value)| (name == key).then_some(value))
}

/// Links in the wild write a space of the tag as `+`.
fn decode_tag(tag: &str) -> Result<Box<str>, UrlError> {
    Ok(decode_percent(&tag.replace('+', " "))?.as_str().into())
}

fn decode_percent(text: &str) -> Result<Zeroizing<String>, UrlError> {
    let bytes = Zeroizing::new(percent_decode_str(text).collect::<Vec<u8>>());
    Ok(Zeroizing::new(str::from_utf8(&bytes).map_err(|_| UrlError::NotText)?.into()))
}

fn decode_base64(text: &str) -> Result<Zeroizing<String>, UrlError> {
    let bytes = decode_any_base64(text).ok_or(UrlError::NotBase64)?;
    Ok(Zeroizing::new(str::from_utf8(&bytes).map_err(|_| UrlError::NotText)?.into()))
}

/// The bytes that base64 of either alphabet stands for, with or without padding: people have all four.
pub(crate) fn decode_any_base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let decoder = if text.contains(['-', '_']) { &URL_SAFE_ANY } else { &STANDARD_ANY };
    decoder.decode(text).ok().map(Zeroizing::new)
}

const SCHEME: &str = "ss://";

/// Everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_ANY: Decoder = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE_ANY: Decoder = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "YctPZ6U7xPPcU+gp3u+0tx/tRizJN9K8y+uKlW2qjlI=";

    fn url(method: &str, password: &str, plugin: Option<&str>, tag: Option<&str>) -> ServerUrl {
        ServerUrl {
            method: method.into(),
            password: Zeroizing::new(password.into()),
            address: "192.168.100.1:8888".parse().unwrap(),
            plugin: plugin.map(Into::into),
            tag: tag.map(Into::into),
            has_prefix: false,
        }
    }

    #[test]
    fn the_published_sip002_examples_read_and_write_to_the_letter() {
        let examples = [
            (
                "ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888#Example1",
                url("aes-128-gcm", "test", None, Some("Example1")),
            ),
            (
                "ss://cmM0LW1kNTpwYXNzd2Q@192.168.100.1:8888/?plugin=obfs-local%3Bobfs%3Dhttp#Example2",
                url("rc4-md5", "passwd", Some("obfs-local;obfs=http"), Some("Example2")),
            ),
            (
                "ss://2022-blake3-aes-256-gcm:YctPZ6U7xPPcU%2Bgp3u%2B0tx%2FtRizJN9K8y%2BuKlW2qjlI%3D@192.168.100.1:8888#Example3",
                url("2022-blake3-aes-256-gcm", KEY, None, Some("Example3")),
            ),
            (
                "ss://2022-blake3-aes-256-gcm:YctPZ6U7xPPcU%2Bgp3u%2B0tx%2FtRizJN9K8y%2BuKlW2qjlI%3D@192.168.100.1:8888/?plugin=v2ray-plugin%3Bserver#Example3",
                url("2022-blake3-aes-256-gcm", KEY, Some("v2ray-plugin;server"), Some("Example3")),
            ),
        ];
        for (text, expected) in examples {
            assert_eq!(text.parse::<ServerUrl>().as_ref(), Ok(&expected));
            assert_eq!(*expected.to_text(), text);
        }
    }

    #[test]
    fn a_host_is_percent_encoded_where_it_has_more_than_ascii_letters() {
        for (host, written) in [
            ("exämple.com", "ex%C3%A4mple.com"),
            ("例え.テスト", "%E4%BE%8B%E3%81%88.%E3%83%86%E3%82%B9%E3%83%88"),
            ("a_b-c.example", "a_b-c.example"),
            ("a#b?c%41", "a%23b%3Fc%2541"),
        ] {
            let mut url = url("aes-128-gcm", "test", None, None);
            url.address = Address::from_host(host, 8388).unwrap();
            let text = url.to_text();
            assert_eq!(*text, format!("ss://YWVzLTEyOC1nY206dGVzdA@{written}:8388"));
            assert_eq!(text.parse().as_ref(), Ok(&url), "{host}");
        }
        // As others write it, and with letters encoded that need not be.
        let address = |link: &str| link.parse::<ServerUrl>().map(|url| url.address.to_string());
        assert_eq!(address("ss://YWVzLTEyOC1nY206dGVzdA@exämple.com:1").as_deref(), Ok("exämple.com:1"));
        assert_eq!(address("ss://YWVzLTEyOC1nY206dGVzdA@%61.b:1").as_deref(), Ok("a.b:1"));
        for (host, error) in [
            ("%FF.b:1", UrlError::NotText),
            ("a%40b:1", UrlError::BadAddress(AddressError::BadName)),
            ("a%2Fb:1", UrlError::BadAddress(AddressError::BadName)),
            ("a%3A2:1", UrlError::BadAddress(AddressError::BadName)),
            ("%00:1", UrlError::BadAddress(AddressError::BadName)),
        ] {
            assert_eq!(address(&format!("ss://YWVzLTEyOC1nY206dGVzdA@{host}")), Err(error), "{host}");
        }
    }

    #[test]
    fn a_prefix_is_seen_and_a_plugin_by_another_name_is_refused() {
        let read = |query: &str| format!("ss://YWVzLTEyOC1nY206dGVzdA@h:1/{query}#x").parse::<ServerUrl>();
        for (query, has_prefix) in [
            ("?outline=1&prefix=POST%20", true),
            ("?prefix=%16%03%01", true),
            ("?prefix=", false),
            ("?xprefix=a&outline=1", false),
            ("", false),
        ] {
            let url = read(query).unwrap();
            assert_eq!(url.has_prefix, has_prefix, "{query}");
            assert!(!url.to_text().contains("prefix"));
        }
        assert_eq!(read("?v2ray-plugin=eyJtb2RlIjoid2Vic29ja2V0In0="), Err(UrlError::ForeignPlugin));
        let both = read("?v2ray-plugin=e30&plugin=v2ray-plugin%3Btls").unwrap();
        assert_eq!(both.plugin.as_deref(), Some("v2ray-plugin;tls"));
    }

    #[test]
    fn the_published_legacy_examples_read_and_write() {
        let tagged = "ss://YmYtY2ZiOnRlc3RAMTkyLjE2OC4xMDAuMTo4ODg4#example-server+1";
        let expected = url("bf-cfb", "test", None, Some("example-server 1"));
        assert_eq!(tagged.parse().as_ref(), Ok(&expected));
        assert_eq!(**expected.to_legacy_text().unwrap(), tagged.replace('+', "%20"));

        let plain = "ss://Y2hhY2hhMjAtaWV0Zi1wb2x5MTMwNTp0ZXN0LyFAIzpAMTkyLjE2OC4xMDAuMTo4ODg4";
        let expected = url("chacha20-ietf-poly1305", "test/!@#:", None, None);
        assert_eq!(plain.parse().as_ref(), Ok(&expected));
        assert_eq!(**expected.to_legacy_text().unwrap(), *plain);
    }

    #[test]
    fn escapes_inside_plugin_options_are_carried_as_they_are() {
        for options in [r"obfs-local;obfs-host=a\;b\=c\\d", "v2ray-plugin;path=/a b?c&d#e%2F+"] {
            let expected = url("aes-128-gcm", "test", Some(options), None);
            let text = expected.to_text();
            assert!(
                text.split_once("/?plugin=")
                    .is_some_and(|(_, plugin)| !plugin.contains([';', '\\', '&', '#', '+']))
            );
            assert_eq!(text.parse(), Ok(expected));
        }
    }

    #[test]
    fn the_form_before_sip002_has_no_place_for_a_plugin() {
        assert_eq!(url("aes-128-gcm", "test", Some("obfs-local"), None).to_legacy_text(), None);
    }

    #[test]
    fn what_people_write_reads_too() {
        let expected = url("aes-128-gcm", "test", None, None);
        for text in [
            "SS://YWVzLTEyOC1nY206dGVzdA==@192.168.100.1:8888",
            "ss://YWVzLTEyOC1nY206dGVzdA%3D%3D@192.168.100.1:8888/",
            "ss://aes-128-gcm:test@192.168.100.1:8888/?outline=1&plugin=",
        ] {
            assert_eq!(text.parse::<ServerUrl>().as_ref(), Ok(&expected), "{text}");
        }
        let padded = [
            "ss://YmYtY2ZiOnRlc3QhQDE5Mi4xNjguMTAwLjE6ODg4OA%3D%3D",
            "ss://YmYtY2ZiOnRlc3QhQDE5Mi4xNjguMTAwLjE6ODg4OA%3d%3d#x",
            "ss://YmYtY2ZiOnRlc3QhQDE5Mi4xNjguMTAwLjE6ODg4OA==",
        ];
        for text in padded {
            let tag = text.ends_with("#x").then_some("x");
            assert_eq!(text.parse::<ServerUrl>(), Ok(url("bf-cfb", "test!", None, tag)), "{text}");
        }
        let six: ServerUrl = "ss://YWVzLTEyOC1nY206dGVzdA@[2001:db8::1]:8388".parse().unwrap();
        assert_eq!(six.address.to_string(), "[2001:db8::1]:8388");
        let name: ServerUrl = "ss://YWVzLTEyOC1nY206dGVzdA@example.com:8388".parse().unwrap();
        assert_eq!(name.address.to_string(), "example.com:8388");
    }

    #[test]
    fn each_way_of_being_wrong_is_told_apart() {
        let wrong = [
            ("", UrlError::NoScheme),
            ("ss:/", UrlError::NoScheme),
            ("http://example.com", UrlError::NoScheme),
            ("ssé//YWVz", UrlError::NoScheme),
            ("ss://!!!", UrlError::NotBase64),
            ("ss://!!!@host:1", UrlError::NotBase64),
            ("ss://a:%ff@host:1", UrlError::NotText),
            ("ss://YWVzLTEyOC1nY206dGVzdA", UrlError::NoServer),
            ("ss://dGVzdA@host:1", UrlError::NoPassword),
            ("ss://a%3Ab:c@host:1", UrlError::BadMethod),
            ("ss://a:b@host:1/path", UrlError::BadPath),
            ("ss://a:b@host", UrlError::BadAddress(AddressError::BadPort)),
            ("ss://a:b@:1", UrlError::BadAddress(AddressError::EmptyName)),
        ];
        for (text, error) in wrong {
            assert_eq!(text.parse::<ServerUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_link_does_not_print_its_password() {
        let printed = format!("{:?}", url("aes-128-gcm", "hunter2hunter2", None, None));
        assert!(!printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn a_cut_link_is_an_error_or_another_link_and_never_a_panic() {
        let whole =
            "ss://2022-blake3-aes-256-gcm:YctPZ6U7%2Bgp3u@[::1]:8888/?plugin=v2ray-plugin%3Bserver#E%C3%A9";
        for end in 0..whole.len() {
            let _ = whole[..end].parse::<ServerUrl>();
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            method in "(2022-)?[a-z0-9-]{1,20}",
            password in "\\PC{1,40}",
            host in "[a-z][a-z0-9.-]{0,30}|\\[([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}\\]|[1-9]\\.2\\.3\\.4",
            port: u16,
            plugin in proptest::option::of("\\PC{1,40}"),
            tag in proptest::option::of("\\PC{0,20}"),
        ) {
            let link = ServerUrl {
                method: method.into(),
                password: Zeroizing::new(password),
                address: Address::from_host(&host, port).unwrap(),
                plugin: plugin.map(Into::into),
                tag: tag.map(Into::into),
                has_prefix: false,
            };
            let read = link.to_text().parse::<ServerUrl>();
            prop_assert_eq!(read.as_ref(), Ok(&link));
            let link = ServerUrl { plugin: None, ..link };
            prop_assert_eq!(link.to_legacy_text().unwrap().parse::<ServerUrl>(), Ok(link));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            let _ = text.parse::<ServerUrl>();
            let _ = format!("ss://{text}").parse::<ServerUrl>();
        }
    }
}
