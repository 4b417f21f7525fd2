//! SOCKS5 (RFC 1928) with a user name and password (RFC 1929), the client's side: how we ask a proxy behind us.

use std::fmt;

use super::{
    COMMAND_BIND, COMMAND_CONNECT, COMMAND_UDP_ASSOCIATE, LOGIN_VERSION, LOGIN_WELCOME, METHOD_LOGIN,
    METHOD_NONE, METHOD_UNACCEPTABLE, VERSION,
};
use crate::address::{Address, AddressError};
use crate::request::Command;
use crate::users::Credentials;
use crate::wire::{Input, Reader, Stop};
use crate::{Handshake, Step};

/// A client named after what it waits for.
#[derive(Debug)]
pub enum Client<'c> {
    /// The server's choice of a method.
    ExpectChoice {
        /// What will be asked for.
        request: Request<'c>,
        /// Who we are, if the server wants to know.
        credentials: Option<&'c Credentials>,
    },
    /// Whether we may come in.
    ExpectWelcome {
        /// What will be asked for.
        request: Request<'c>,
    },
    /// The answer.
    ExpectReply(ExpectReply),
}

/// What we ask for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'c> {
    /// A connection, an address for one from outside, or datagrams.
    pub command: Command,
    /// Where to, or from where.
    pub target: &'c Address,
}

/// A client that waits for a reply: the last state of [`Client`], and by itself for the second reply to BIND.
#[derive(Debug, Default)]
pub struct ExpectReply;

/// A success, with the address that the server told: what the target sees, where the server listens, or who came. `None`
/// where it told a name that is none; it is of use to few, and no reason to give up a way that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The address, as the server wrote it; often all zeros.
    pub bound: Option<Address>,
}

/// Why the server gives us no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// It said no, with this reply code.
    Denied(u8),
    /// It wants none of the methods that we offered.
    MethodRefused,
    /// It chose a method that we did not offer.
    MethodNotOffered(u8),
    /// It does not know our name or password.
    LoginRefused,
    /// Its choice, its login answer or its reply begins with another version.
    Version(u8),
    /// Its reply names no address.
    Address(AddressError),
}

impl<'c> Client<'c> {
    /// Begins by offering what we have: no authentication, and a login if there are credentials.
    pub fn new(request: Request<'c>, credentials: Option<&'c Credentials>, output: &mut Vec<u8>) -> Self {
        match credentials {
            None => output.extend_from_slice(&[VERSION, 1, METHOD_NONE]),
            Some(_) => output.extend_from_slice(&[VERSION, 2, METHOD_NONE, METHOD_LOGIN]),
        }
        Self::ExpectChoice { request, credentials }
    }
}

impl Handshake for Client<'_> {
    type Done = Granted;
    type Error = ClientError;

    fn advance(mut self, input: &mut Input<'_>, output: &mut Vec<u8>) -> Result<Step<Self>, ClientError> {
        loop {
            let outcome = match &self {
                Self::ExpectChoice { request, credentials } => choose(*request, *credentials, input, output),
                Self::ExpectWelcome { request } => enter(*request, input, output),
                Self::ExpectReply(expect) => {
                    return Ok(expect.receive(input)?.map(Self::ExpectReply, |granted| granted));
                }
            };
            match outcome {
                Ok(next) => self = next,
                Err(Stop::Incomplete) => return Ok(Step::Wait(self)),
                Err(Stop::Malformed(error)) => return Err(error),
            }
        }
    }
}

impl Handshake for ExpectReply {
    type Done = Granted;
    type Error = ClientError;

    fn advance(self, input: &mut Input<'_>, _output: &mut Vec<u8>) -> Result<Step<Self>, ClientError> {
        self.receive(input)
    }
}

impl ExpectReply {
    fn receive(&self, input: &mut Input<'_>) -> Result<Step<Self>, ClientError> {
        match input.decode(reply) {
            Ok(granted) => Ok(Step::Done(granted)),
            Err(Stop::Incomplete) => Ok(Step::Wait(Self)),
            Err(Stop::Malformed(error)) => Err(error),
        }
    }
}

fn choose<'c>(
    request: Request<'c>,
    credentials: Option<&'c Credentials>,
    input: &mut Input<'_>,
    output: &mut Vec<u8>,
) -> Result<Client<'c>, Stop<ClientError>> {
    let method = input.decode(|reader| {
        version(reader.u8()?, VERSION)?;
        reader.u8()
    })?;
    match (method, credentials) {
        (METHOD_NONE, _) => Ok(request.send(output)),
        (METHOD_LOGIN, Some(credentials)) => {
            output.push(LOGIN_VERSION);
            for field in [credentials.name().as_str().as_bytes(), credentials.password()] {
                output.push(
                    u8::try_from(field.len()).expect("credentials were checked to fit when they were made"),
                );
                output.extend_from_slice(field);
            }
            Ok(Client::ExpectWelcome { request })
        }
        (METHOD_UNACCEPTABLE, _) => Err(Stop::Malformed(ClientError::MethodRefused)),
        (other, _) => Err(Stop::Malformed(ClientError::MethodNotOffered(other))),
    }
}

fn enter<'c>(
    request: Request<'c>,
    input: &mut Input<'_>,
    output: &mut Vec<u8>,
) -> Result<Client<'c>, Stop<ClientError>> {
    let status = input.decode(|reader| {
        version(reader.u8()?, LOGIN_VERSION)?;
        reader.u8()
    })?;
    if status != LOGIN_WELCOME {
        return Err(Stop::Malformed(ClientError::LoginRefused));
    }
    Ok(request.send(output))
}

impl Request<'_> {
    fn send<'c>(self, output: &mut Vec<u8>) -> Client<'c> {
        let command = match self.command {
            Command::Connect => COMMAND_CONNECT,
            Command::Bind => COMMAND_BIND,
            Command::UdpAssociate => COMMAND_UDP_ASSOCIATE,
        };
        output.extend_from_slice(&[VERSION, command, 0]);
        self.target.encode(output);
        Client::ExpectReply(ExpectReply)
    }
}

fn reply(reader: &mut Reader<'_>) -> Result<Granted, Stop<ClientError>> {
    version(reader.u8()?, VERSION)?;
    match reader.u8()? {
        0 => {}
        // Not every server that says no goes on to the address.
        code => return Err(Stop::Malformed(ClientError::Denied(code))),
    }
    reader.u8()?;
    let before = reader.clone();
    match Address::decode(reader) {
        Ok(bound) => Ok(Granted { bound: Some(bound) }),
        Err(Stop::Incomplete) => Err(Stop::Incomplete),
        Err(Stop::Malformed(error @ AddressError::UnknownType(_))) => {
            Err(Stop::Malformed(ClientError::Address(error)))
        }
        Err(Stop::Malformed(
            AddressError::EmptyName | AddressError::LongName | AddressError::BadName | AddressError::BadPort,
        )) => {
            *reader = before;
            reader.u8()?;
            let len = reader.u8()?;
            reader.slice(usize::from(len) + 2)?;
            Ok(Granted { bound: None })
        }
    }
}

fn version(byte: u8, wanted: u8) -> Result<(), Stop<ClientError>> {
    if byte == wanted { Ok(()) } else { Err(Stop::Malformed(ClientError::Version(byte))) }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(code) => write!(f, "the SOCKS5 server said no, with code {code}"),
            Self::MethodRefused => f.write_str("the SOCKS5 server wants none of our methods"),
            Self::MethodNotOffered(method) => {
                write!(f, "the SOCKS5 server chose method {method}, which was not offered")
            }
            Self::LoginRefused => f.write_str("the SOCKS5 server knows no such name and password"),
            Self::Version(version) => write!(f, "the SOCKS5 server answered in version {version}"),
            Self::Address(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {}
