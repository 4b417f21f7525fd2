//! Every method, and which peer speaks which.

use super::Peer;

/// What a session is sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method {
    /// The name that all who speak it share.
    pub(crate) name: &'static str,
    /// A password that fits: the 2022 methods want a key of their length in base64.
    pub(crate) password: &'static str,
    /// Another one that fits as well.
    pub(crate) wrong_password: &'static str,
    /// What can be expected of it.
    pub(crate) family: Family,
}

/// What methods have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// SIP022.
    Edition2022,
    /// SIP004.
    Aead,
    /// Stream ciphers and the table: nothing tells a forgery.
    Stream,
    /// No cipher, and so no password either.
    Plain,
}

impl Peer {
    /// Whether it speaks `method`.
    pub(crate) fn speaks(self, method: Method) -> bool {
        match self {
            Self::Umbra | Self::Earlier => true,
            Self::ShadowsocksRust => lists(RUST, method),
            Self::ShadowsocksLibev => lists(LIBEV, method),
            Self::V2ray => lists(V2RAY, method),
            Self::Python => lists(PYTHON, method),
            Self::Microsocks | Self::Danted | Self::Tinyproxy | Self::TrafficServer => false,
        }
    }
}

const fn method(name: &'static str, family: Family) -> Method {
    Method { name, password: "a password", wrong_password: "another password", family }
}

const fn keyed(name: &'static str, password: &'static str, wrong_password: &'static str) -> Method {
    Method { name, password, wrong_password, family: Family::Edition2022 }
}

const KEY_16: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const KEY_16_WRONG: &str = "ZmVkY2JhOTg3NjU0MzIxMA==";
const KEY_32: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const KEY_32_WRONG: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

/// SIP004 with a 16-byte key.
pub(crate) const AES_128_GCM: Method = method("aes-128-gcm", Family::Aead);
/// SIP004 with a 32-byte key.
pub(crate) const AES_256_GCM: Method = method("aes-256-gcm", Family::Aead);
/// SIP004 without AES.
pub(crate) const CHACHA20: Method = method("chacha20-ietf-poly1305", Family::Aead);
/// SIP022 with a 16-byte key.
pub(crate) const AES_128_2022: Method = keyed("2022-blake3-aes-128-gcm", KEY_16, KEY_16_WRONG);
/// SIP022 with a 32-byte key.
pub(crate) const AES_256_2022: Method = keyed("2022-blake3-aes-256-gcm", KEY_32, KEY_32_WRONG);
/// SIP022 without AES.
pub(crate) const CHACHA20_2022: Method = keyed("2022-blake3-chacha20-poly1305", KEY_32, KEY_32_WRONG);

/// The most common method of its time.
pub(crate) const AES_256_CFB: Method = method("aes-256-cfb", Family::Stream);

/// The methods that people should use; each is tried at full size.
pub(crate) const MODERN: [Method; 6] =
    [AES_128_GCM, AES_256_GCM, CHACHA20, AES_128_2022, AES_256_2022, CHACHA20_2022];

/// Every other method, each tried with less.
pub(crate) fn others() -> impl Iterator<Item = Method> {
    let reduced = ["2022-blake3-chacha12-poly1305", "2022-blake3-chacha8-poly1305"];
    let reduced = reduced.into_iter().map(|name| keyed(name, KEY_32, KEY_32_WRONG));
    let families = [(OTHER_AEAD, Family::Aead), (PLAIN, Family::Plain), (STREAM, Family::Stream)];
    let named = |(names, family): (&'static str, Family)| {
        names.split_whitespace().map(move |name| method(name, family))
    };
    reduced.chain(families.into_iter().flat_map(named))
}

fn lists(names: &str, method: Method) -> bool {
    names.split_whitespace().any(|name| name == method.name)
}

const OTHER_AEAD: &str = "
    aes-192-gcm xchacha20-ietf-poly1305 chacha20-poly1305 aes-128-ocb aes-192-ocb aes-256-ocb
    aes-128-ccm aes-192-ccm aes-256-ccm aes-128-gcm-siv aes-256-gcm-siv";

const PLAIN: &str = "none plain";

const STREAM: &str = "
    aes-128-cfb aes-192-cfb aes-256-cfb aes-128-cfb1 aes-192-cfb1 aes-256-cfb1 aes-128-cfb8 aes-192-cfb8 aes-256-cfb8
    aes-128-ctr aes-192-ctr aes-256-ctr aes-128-ofb aes-192-ofb aes-256-ofb camellia-128-cfb camellia-192-cfb
    camellia-256-cfb bf-cfb cast5-cfb des-cfb idea-cfb rc2-cfb seed-cfb rc4 rc4-md5 salsa20 chacha20 chacha20-ietf
    xchacha20 table";

/// With `aead-cipher-extra` beside everything that is on by default.
const RUST: &str = "
    aes-128-gcm aes-256-gcm chacha20-ietf-poly1305
    2022-blake3-aes-128-gcm 2022-blake3-aes-256-gcm 2022-blake3-chacha20-poly1305
    2022-blake3-chacha8-poly1305 aes-128-ccm aes-256-ccm aes-128-gcm-siv aes-256-gcm-siv xchacha20-ietf-poly1305 none plain
    aes-128-cfb aes-192-cfb aes-256-cfb aes-128-cfb1 aes-192-cfb1 aes-256-cfb1 aes-128-cfb8 aes-192-cfb8 aes-256-cfb8
    aes-128-ctr aes-192-ctr aes-256-ctr aes-128-ofb aes-192-ofb aes-256-ofb camellia-128-cfb camellia-192-cfb
    camellia-256-cfb rc4 rc4-md5 chacha20-ietf table";

const LIBEV: &str = "
    aes-128-gcm aes-192-gcm aes-256-gcm chacha20-ietf-poly1305 xchacha20-ietf-poly1305 aes-128-cfb aes-192-cfb
    aes-256-cfb aes-128-ctr aes-192-ctr aes-256-ctr camellia-128-cfb camellia-192-cfb camellia-256-cfb bf-cfb rc4-md5
    salsa20 chacha20 chacha20-ietf";

const V2RAY: &str = "aes-128-gcm aes-256-gcm chacha20-ietf-poly1305 none plain";

/// Without idea-cfb, which the OpenSSL of most systems leaves out.
const PYTHON: &str = "
    aes-128-cfb aes-192-cfb aes-256-cfb aes-128-cfb1 aes-192-cfb1 aes-256-cfb1 aes-128-cfb8 aes-192-cfb8 aes-256-cfb8
    aes-128-ctr aes-192-ctr aes-256-ctr aes-128-ofb aes-192-ofb aes-256-ofb camellia-128-cfb camellia-192-cfb
    camellia-256-cfb bf-cfb cast5-cfb des-cfb rc2-cfb seed-cfb rc4 rc4-md5 salsa20 chacha20 table";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_method_of_ours_is_tried() {
        let tried: BTreeSet<&str> = MODERN.into_iter().chain(others()).map(|method| method.name).collect();
        let ours = umbra_proto::shadowsocks::Method::ALL.map(umbra_proto::shadowsocks::Method::name);
        let untried: Vec<_> = ours.iter().filter(|name| !tried.contains(*name)).collect();
        assert!(untried.is_empty(), "{untried:?}");
    }

    #[test]
    fn what_a_peer_speaks_is_a_method_of_ours() {
        let tried: BTreeSet<&str> = MODERN.into_iter().chain(others()).map(|method| method.name).collect();
        for name in [RUST, LIBEV, V2RAY, PYTHON].into_iter().flat_map(str::split_whitespace) {
            assert!(tried.contains(name), "{name}");
        }
    }
}
