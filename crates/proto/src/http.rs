//! The head of a request to an HTTP proxy (RFC 9110, RFC 9112), the server's side; the client's is in [`client`].
//!
//! CONNECT is answered here. A request in absolute form (`GET http://host/path`) is only looked at: all of it is left
//! where it is, for an HTTP library that knows of bodies and of the requests that follow.

pub mod client;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::{Zeroize as _, Zeroizing};

use crate::address::{Address, AddressError};
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};
use crate::users::{UserName, Users};
use crate::wire::Input;
use crate::{Handshake, Step};

/// A server that waits for the end of a request's head.
#[derive(Debug)]
pub struct Server<'u> {
    users: Option<&'u Users>,
    /// Bytes of the head that have been looked through for its end.
    searched: usize,
}

/// A request whose head is understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// CONNECT: the head is taken, and the client waits for an answer.
    Tunnel(Pending),
    /// Anything else in absolute form: nothing is taken.
    Forward(Forward),
}

/// A CONNECT request that is understood and not yet answered.
#[must_use = "the client waits for an answer"]
#[derive(Debug, PartialEq, Eq)]
pub struct Pending {
    target: Address,
    user: Option<UserName>,
}

/// A request that is to be forwarded, with all its bytes still in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Whose resource it is. Later requests on the connection may name others.
    pub target: Address,
    /// Who the client is, at a door that asks.
    pub user: Option<UserName>,
}

/// What a client is told when it gets no tunnel (RFC 9110, section 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 400
    BadRequest,
    /// 403
    Forbidden,
    /// 407
    ProxyAuthenticationRequired,
    /// 431
    HeadTooLarge,
    /// 501
    NotImplemented,
    /// 502
    BadGateway,
    /// 503
    ServiceUnavailable,
    /// 504
    GatewayTimeout,
}

/// How a client can be wrong; it has been told so, and the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not the head of an HTTP/1.0 or 1.1 request, or one that could be read in two ways.
    Malformed,
    /// The head is longer than 16 KiB, or has more than 100 header lines.
    TooLarge,
    /// The target is not one for a proxy, or names no address.
    Target(TargetError),
    /// No name and password, or none that anybody has.
    Login,
}

/// Why a request's target leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// Neither `host:port` with CONNECT nor `http://…` with another method.
    Form,
    /// The authority names no address.
    Address(AddressError),
}

impl<'u> Server<'u> {
    /// A server at the start of a connection, for these users only, if there are any.
    pub fn new(users: Option<&'u Users>) -> Self {
        Self { users, searched: 0 }
    }
}

impl Handshake for Server<'_> {
    type Done = Request;
    type Error = Error;

    fn advance(mut self, input: &mut Input<'_>, output: &mut Vec<u8>) -> Result<Step<Self>, Error> {
        let outcome = match head_len(input.rest(), &mut self.searched) {
            Ok(None) => return Ok(Step::Wait(self)),
            Ok(Some(len)) => understand(&input.rest()[..len], self.users).map(|request| (request, len)),
            Err(error) => Err(Refused { error, has_body: true }),
        };
        match outcome {
            Ok((Request::Tunnel(pending), len)) => {
                // The buffer goes on to other uses; the password does not.
                if let Some(head) = input.take(len) {
                    head.zeroize();
                }
                Ok(Step::Done(Request::Tunnel(pending)))
            }
            Ok((Request::Forward(forward), _)) => Ok(Step::Done(Request::Forward(forward))),
            Err(Refused { error, has_body }) => {
                error.status().answer(has_body, output);
                Err(error)
            }
        }
    }
}

/// Length of the head with the empty line that ends it, once that has arrived.
///
/// Lines end with CR LF and nothing else: RFC 9112, section 2.2 lets a recipient take a bare LF for a line end, and two recipients
/// that differ in it can be made to see different requests.
fn head_len(bytes: &[u8], searched: &mut usize) -> Result<Option<usize>, Error> {
    if bytes.first().is_some_and(|byte| !is_token(*byte)) {
        return Err(Error::Malformed);
    }
    let bytes = &bytes[..bytes.len().min(HTTP_HEAD_BYTES_MAX)];
    while let Some(offset) = bytes[*searched..].iter().position(|byte| *byte == b'\n') {
        let line_end = *searched + offset;
        if !bytes[..line_end].ends_with(b"\r") {
            return Err(Error::Malformed);
        }
        *searched = line_end + 1;
        if bytes[..line_end].ends_with(b"\r\n\r") {
            return Ok(Some(*searched));
        }
    }
    *searched = bytes.len();
    if bytes.len() == HTTP_HEAD_BYTES_MAX { Err(Error::TooLarge) } else { Ok(None) }
}

/// A request that is answered with an error. To HEAD an answer has no body (RFC 9110, section 9.3.2).
struct Refused {
    error: Error,
    has_body: bool,
}

fn understand(head: &[u8], users: Option<&Users>) -> Result<Request, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let refuse = |error| Refused { error, has_body: true };
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(refuse(Error::Malformed)),
        Err(httparse::Error::TooManyHeaders) => return Err(refuse(Error::TooLarge)),
        Err(_) => return Err(refuse(Error::Malformed)),
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(refuse(Error::Malformed));
    };
    let refuse = |error| Refused { error, has_body: method != "HEAD" };
    let headers = &*parsed.headers;
    // Whoever has no password learns nothing of what is wrong besides.
    let user = match users {
        None => None,
        Some(users) => Some(log_in(users, headers).ok_or(Error::Login).map_err(refuse)?),
    };
    if method == "CONNECT" {
        if !has_no_content(headers) {
            return Err(refuse(Error::Malformed));
        }
        let target = connect_target(target).map_err(Error::Target).map_err(refuse)?;
        Ok(Request::Tunnel(Pending { target, user }))
    } else {
        let target = forward_target(target).map_err(Error::Target).map_err(refuse)?;
        Ok(Request::Forward(Forward { target, user }))
    }
}

/// Whether nothing that follows a CONNECT could be taken for its content: what follows is the tunnel's.
fn has_no_content(headers: &[httparse::Header<'_>]) -> bool {
    headers.iter().all(|header| {
        !header.name.eq_ignore_ascii_case("transfer-encoding")
            && (!header.name.eq_ignore_ascii_case("content-length") || header.value == b"0")
    })
}

/// Who has the name and password of the one `Proxy-Authorization` line.
fn log_in(users: &Users, headers: &[httparse::Header<'_>]) -> Option<UserName> {
    let mut lines = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("proxy-authorization"));
    let value = match (lines.next(), lines.next()) {
        (Some(header), None) => header.value,
        (None, _) | (Some(_), Some(_)) => b"",
    };
    check_basic(users, value).cloned()
}

/// Who has the name and password of a `Proxy-Authorization` value (RFC 7617). A missing line is an empty value.
///
/// The name ends at the first colon, so one that has a colon in it cannot come in here.
pub fn check_basic<'u>(users: &'u Users, value: &[u8]) -> Option<&'u UserName> {
    let text = decode_basic(value).unwrap_or_default();
    // Also a value that is none is checked: it takes the time of a wrong password.
    match text.iter().position(|byte| *byte == b':') {
        Some(colon) => users.check(&text[..colon], &text[colon + 1..]),
        None => users.check(&text, b""),
    }
}

fn decode_basic(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, rest) = value.split_at_checked(BASIC.len())?;
    if !scheme.eq_ignore_ascii_case(BASIC) || !rest.starts_with(b" ") {
        return None;
    }
    BASE64.decode(rest.trim_ascii()).ok().map(Zeroizing::new)
}

/// The target of CONNECT: `host:port` and nothing else; there is no default port (RFC 9112, section 3.2.3).
pub fn connect_target(authority: &str) -> Result<Address, TargetError> {
    split_authority(authority, None)
}

/// The target of an absolute `http` URI (RFC 9112, section 3.2.2); port 80 where none is named.
pub fn forward_target(uri: &str) -> Result<Address, TargetError> {
    let rest = match uri.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
        Some(_) | None => return Err(TargetError::Form),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    split_authority(&rest[..end], Some(80))
}

/// `host [ ":" port ]`. A user's name before the host is refused: RFC 9110, section 4.2.4, takes it for an attempt to deceive.
fn split_authority(authority: &str, port_default: Option<u16>) -> Result<Address, TargetError> {
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of a bare IPv6 address in brackets is no port's.
        Some((host, port)) if !authority.ends_with(']') => (host, port),
        Some(_) | None => (authority, ""),
    };
    let port = match (port, port_default) {
        ("", default) => default,
        (digits, _) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        (_, _) => None,
    };
    let port = port.filter(|port| *port != 0).ok_or(TargetError::Address(AddressError::BadPort))?;
    let target = Address::from_host(host, port).map_err(TargetError::Address)?;
    // Brackets are an IPv6 address's, and an IPv6 address has brackets.
    let is_v6 = matches!(target, Address::Ip(SocketAddr::V6(_)));
    if is_v6 == host.starts_with('[') { Ok(target) } else { Err(TargetError::Address(AddressError::BadName)) }
}

/// Whether a header line is for the next hop alone and is not forwarded (RFC 9110, section 7.6.1), in any case of letters.
/// The names that a `Connection` line lists are so too: [`list_members`].
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// What a `Max-Forwards` value leaves for whoever is next (RFC 9110, section 7.6.2): nothing where the request goes no further. A number
/// that is too large for us is the largest one that is not. Fails where it is no number.
pub fn forwards_left(value: &[u8]) -> Result<Option<u32>, Error> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Error::Malformed);
    }
    let number = digits
        .iter()
        .try_fold(0_u32, |number, digit| number.checked_mul(10)?.checked_add(u32::from(digit - b'0')));
    Ok(number.map_or(Some(u32::MAX), |number| number.checked_sub(1)))
}

/// What the value of a line such as `Connection` or `Upgrade` lists (RFC 9110, section 5.6.1).
pub fn list_members(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|name| name.trim_matches([' ', '\t'])).filter(|name| !name.is_empty())
}

impl Pending {
    /// Where the client wants to go.
    pub fn target(&self) -> &Address {
        &self.target
    }

    /// Who the client is, at a door that asks.
    pub fn user(&self) -> Option<&UserName> {
        self.user.as_ref()
    }

    /// Tells the client that the way stands. RFC 9110, section 9.3.6: there MUST NOT be a length or a coding.
    pub fn accept(self, output: &mut Vec<u8>) {
        output.extend_from_slice(b"HTTP/1.1 200 Connection established\r\n\r\n");
    }

    /// Tells the client why there is no way; the connection is to be closed.
    pub fn reject(self, why: Status, output: &mut Vec<u8>) {
        why.answer(true, output);
    }
}

impl Status {
    /// The three digits.
    pub fn code(self) -> u16 {
        self.words().0
    }

    /// The words beside the digits.
    pub fn reason(self) -> &'static str {
        self.words().1
    }

    /// A sentence for people, with its line end.
    pub fn text(self) -> &'static str {
        self.words().2
    }

    /// The header lines of the answer, in the order in which they are always told: those of a refusal in the middle of a conversation are
    /// the same as those that end one, but that a client which `may_go_on` is not told of an end.
    pub fn headers(self, may_go_on: bool) -> impl Iterator<Item = (&'static str, Cow<'static, str>)> {
        let challenge = match self {
            Self::ProxyAuthenticationRequired => Some(("Proxy-Authenticate", CHALLENGE.into())),
            Self::BadRequest
            | Self::Forbidden
            | Self::HeadTooLarge
            | Self::NotImplemented
            | Self::BadGateway
            | Self::ServiceUnavailable
            | Self::GatewayTimeout => None,
        };
        let content =
            [("Content-Type", "text/plain".into()), ("Content-Length", self.text().len().to_string().into())];
        let end = (!may_go_on || self.ends_conversation()).then_some(("Connection", "close".into()));
        challenge.into_iter().chain(content).chain(end)
    }

    /// Whether the client is let go with this whatever it has asked for: strangers are not kept, and where a head is not understood, neither
    /// is what follows it.
    fn ends_conversation(self) -> bool {
        match self {
            Self::BadRequest | Self::ProxyAuthenticationRequired | Self::HeadTooLarge => true,
            Self::Forbidden
            | Self::NotImplemented
            | Self::BadGateway
            | Self::ServiceUnavailable
            | Self::GatewayTimeout => false,
        }
    }

    /// The whole answer, after which the connection is closed. To HEAD it has no body.
    pub fn answer(self, has_body: bool, output: &mut Vec<u8>) {
        let (code, reason, text) = self.words();
        output.extend_from_slice(format!("HTTP/1.1 {code} {reason}\r\n").as_bytes());
        for (name, value) in self.headers(false) {
            output.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        output.extend_from_slice(b"\r\n");
        output.extend_from_slice(if has_body { text.as_bytes() } else { b"" });
    }

    fn words(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BadRequest => (400, "Bad Request", "This is a proxy; the request is not one for it.\n"),
            Self::Forbidden => (403, "Forbidden", "This target is not allowed.\n"),
            Self::ProxyAuthenticationRequired => {
                (407, "Proxy Authentication Required", "This proxy asks for a name and a password.\n")
            }
            Self::HeadTooLarge => {
                (431, "Request Header Fields Too Large", "The request's head is too large.\n")
            }
            Self::NotImplemented => (501, "Not Implemented", "This proxy cannot do that.\n"),
            Self::BadGateway => (502, "Bad Gateway", "The target cannot be reached.\n"),
            Self::ServiceUnavailable => {
                (503, "Service Unavailable", "There is no room for another session.\n")
            }
            Self::GatewayTimeout => (504, "Gateway Timeout", "The target did not answer in time.\n"),
        }
    }
}

impl Error {
    fn status(self) -> Status {
        match self {
            Self::Malformed | Self::Target(_) => Status::BadRequest,
            Self::TooLarge => Status::HeadTooLarge,
            Self::Login => Status::ProxyAuthenticationRequired,
        }
    }
}

/// A byte of a method or a header's name (RFC 9110, section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not the head of an HTTP request"),
            Self::TooLarge => {
                write!(f, "a head of more than {HTTP_HEAD_BYTES_MAX} bytes or {HTTP_HEADERS_MAX} lines")
            }
            Self::Target(error) => error.fmt(f),
            Self::Login => f.write_str("nobody has this name and this password"),
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("neither CONNECT with host and port nor an http URI"),
            Self::Address(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TargetError {}

/// The value of `Proxy-Authenticate`.
const CHALLENGE: &str = "Basic realm=\"umbra\"";

const SCHEME: &str = "http://";
const BASIC: &[u8] = b"basic";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const HOP_BY_HOP: [&str; 11] = [
    "connection",
    // RFC 7540, section 3.2.1.
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests;
