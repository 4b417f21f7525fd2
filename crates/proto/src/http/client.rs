//! CONNECT (RFC 9110, section 9.3.6), the client's side: how we ask an HTTP proxy behind us.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use zeroize::Zeroizing;

use super::BASE64;
use crate::address::Address;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_INTERIM_HEADS_MAX};
use crate::users::Credentials;
use crate::wire::Input;
use crate::{Handshake, Step};

/// What we ask for: a connection.
#[derive(Clone, Copy, Debug)]
pub struct Request<'c> {
    /// Where to.
    pub target: &'c Address,
    /// Who we are. It is said at once: many proxies close where nobody says it.
    pub login: Option<&'c BasicLogin>,
}

/// A name and a password in the form in which HTTP carries them (RFC 7617). Wiped when dropped; not printed.
#[derive(Clone)]
pub struct BasicLogin(Zeroizing<Vec<u8>>);

/// Why a name and a password cannot be said in HTTP (RFC 7617, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginError {
    /// The name has a colon, at which it would end.
    Colon,
    /// Name or password have a control character.
    Control,
}

/// Why a target has no place in a request line; nothing has been said to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The name has other characters than a URI's host has (RFC 3986, section 3.2.2).
    Name,
    /// No connection has port 0, and servers MUST refuse it.
    Port,
}

/// A client that waits for the end of the answer's head.
#[derive(Debug)]
pub struct ExpectHead {
    /// Bytes of the head that have been looked through for its end.
    searched: usize,
    /// Heads with a status of 1xx that may still come before the answer.
    interim_left: usize,
}

/// Why the server gives us no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// It said no, with this status.
    Denied(u16),
    /// It said 407: it wants a name and a password, or others than ours.
    Login,
    /// Not the head of an HTTP/1.0 or 1.1 answer.
    Malformed,
    /// The head is longer than 16 KiB, or has more than 100 header lines.
    TooLarge,
    /// It says nothing but that it has not answered yet.
    Interim,
}

impl BasicLogin {
    /// Puts them into their form, if they have one.
    pub fn new(credentials: &Credentials) -> Result<Self, LoginError> {
        let (name, password) = (credentials.name().as_str().as_bytes(), credentials.password());
        if name.contains(&b':') {
            return Err(LoginError::Colon);
        }
        if [name, password].iter().any(|field| field.iter().any(u8::is_ascii_control)) {
            return Err(LoginError::Control);
        }
        let pair = Zeroizing::new([name, b":", password].concat());
        let mut text = Zeroizing::new(vec![0; pair.len().div_ceil(3) * 4]);
        BASE64.encode_slice(&*pair, &mut text).expect("base64 makes four letters of three bytes");
        Ok(Self(text))
    }
}

impl Request<'_> {
    /// Says it, if it can be said.
    ///
    /// ```text
    ///  CONNECT host:port HTTP/1.1 CR LF
    ///  Host: host:port CR LF
    ///  [ Proxy-Authorization: Basic base64(name ":" password) CR LF ]
    ///  CR LF
    /// ```
    pub fn send(self, output: &mut Vec<u8>) -> Result<ExpectHead, RequestError> {
        let authority = authority(self.target)?;
        let authority = authority.as_bytes();
        let (before_login, login, behind_login) = match self.login {
            Some(login) => (LOGIN_START, &login.0[..], LINE_END),
            None => (&b""[..], &b""[..], &b""[..]),
        };
        let parts = [
            b"CONNECT ",
            authority,
            b" HTTP/1.1\r\nHost: ",
            authority,
            LINE_END,
            before_login,
            login,
            behind_login,
            LINE_END,
        ];
        // A buffer that grows leaves copies of what it held behind.
        output.reserve(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| output.extend_from_slice(part));
        Ok(ExpectHead { searched: 0, interim_left: HTTP_INTERIM_HEADS_MAX })
    }
}

/// `host ":" port`, as RFC 9112, section 3.2.3 has it.
fn authority(target: &Address) -> Result<String, RequestError> {
    let port = target.port();
    if port == 0 {
        return Err(RequestError::Port);
    }
    match target {
        // Written by hand: the text of a socket address may have a zone, which is known on this machine alone.
        Address::Ip(address) => match address.ip().to_canonical() {
            IpAddr::V4(ip) => Ok(format!("{ip}:{port}")),
            IpAddr::V6(ip) => Ok(format!("[{ip}]:{port}")),
        },
        Address::Name(name, _) if name.as_str().bytes().all(is_reg_name) => {
            Ok(format!("{}:{port}", name.as_str()))
        }
        Address::Name(..) => Err(RequestError::Name),
    }
}

/// A byte of a registered name (RFC 3986, section 3.2.2), unreserved or a delimiter within it. A percent sign is none here: whoever
/// decodes what follows it would go to another name than the one that was asked for.
fn is_reg_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

impl Handshake for ExpectHead {
    /// The server tells nothing about the way but that it stands.
    type Done = ();
    type Error = ClientError;

    fn advance(mut self, input: &mut Input<'_>, _output: &mut Vec<u8>) -> Result<Step<Self>, ClientError> {
        while let Some(len) = head_len(input.rest(), &mut self.searched)? {
            let status = read_status(&input.rest()[..len])?;
            match status {
                // 101 follows a wish for another protocol alone, and we had none.
                100 | 102..=199 => {}
                // Lengths and codings beside it MUST be ignored (RFC 9110, section 9.3.6): all that follows is the target's.
                200..=299 => {
                    input.take(len);
                    return Ok(Step::Done(()));
                }
                407 => return Err(ClientError::Login),
                other => return Err(ClientError::Denied(other)),
            }
            self.interim_left = self.interim_left.checked_sub(1).ok_or(ClientError::Interim)?;
            self.searched = 0;
            input.take(len);
        }
        Ok(Step::Wait(self))
    }
}

/// Length of the head with the empty line that ends it, once that has arrived.
///
/// Lines may end with a bare LF, which RFC 9112, section 2.2 lets a recipient take for a line end: nobody between us and the
/// proxy reads them another way, and old proxies write them.
fn head_len(bytes: &[u8], searched: &mut usize) -> Result<Option<usize>, ClientError> {
    let common = bytes.len().min(START.len());
    if bytes[..common] != START[..common] {
        return Err(ClientError::Malformed);
    }
    let bytes = &bytes[..bytes.len().min(HTTP_HEAD_BYTES_MAX)];
    while let Some(offset) = bytes[*searched..].iter().position(|byte| *byte == b'\n') {
        let line_end = *searched + offset;
        *searched = line_end + 1;
        if bytes[..line_end].ends_with(b"\n") || bytes[..line_end].ends_with(b"\n\r") {
            return Ok(Some(*searched));
        }
    }
    *searched = bytes.len();
    if bytes.len() == HTTP_HEAD_BYTES_MAX { Err(ClientError::TooLarge) } else { Ok(None) }
}

fn read_status(head: &[u8]) -> Result<u16, ClientError> {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => parsed.code.ok_or(ClientError::Malformed),
        Ok(_) => Err(ClientError::Malformed),
        Err(httparse::Error::TooManyHeaders) => Err(ClientError::TooLarge),
        Err(_) => Err(ClientError::Malformed),
    }
}

impl fmt::Debug for BasicLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicLogin(..)")
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Colon => "a name with a colon cannot be told to an HTTP proxy",
            Self::Control => "a name or password with a control character cannot be told to an HTTP proxy",
        })
    }
}

impl std::error::Error for LoginError {}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the name has a character that cannot stand in an HTTP request",
            Self::Port => "CONNECT has no port 0",
        })
    }
}

impl std::error::Error for RequestError {}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(status) => write!(f, "the HTTP proxy said no, with status {status}"),
            Self::Login => f.write_str("the HTTP proxy wants a name and a password, or others than ours"),
            Self::Malformed => f.write_str("the HTTP proxy's answer is none"),
            Self::TooLarge => write!(
                f,
                "the HTTP proxy's answer has a head of more than {HTTP_HEAD_BYTES_MAX} bytes or {HTTP_HEADERS_MAX} lines"
            ),
            Self::Interim => {
                write!(
                    f,
                    "the HTTP proxy said more than {HTTP_INTERIM_HEADS_MAX} times that it has no answer yet"
                )
            }
        }
    }
}

impl std::error::Error for ClientError {}

/// How an answer begins, whose server is one of HTTP.
const START: &[u8] = b"HTTP/1.";
const LINE_END: &[u8] = b"\r\n";
const LOGIN_START: &[u8] = b"Proxy-Authorization: Basic ";

#[cfg(test)]
mod tests;
