//! SOCKS5 (RFC 1928) with a user name and password (RFC 1929), the client's side: how we ask a proxy behind us.

use std::fmt;

use super::{
    COMMAND_BIND, COMMAND_CONNECT, COMMAND_UDP_ASSOCIATE, LOGIN_VERSION, LOGIN_WELCOME, METHOD_LOGIN,
    METHOD_NONE, METHOD_UNACCEPTABLE, VERSION,
};
use crate::address::{Address, AddressError};
use crate::limits::CREDENTIAL_BYTES_MAX;
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
            // A buffer that grows leaves copies of what it held behind.
            output.reserve(LOGIN_BYTES_MAX);
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

/// Version, two lengths, name and password (RFC 1929).
const LOGIN_BYTES_MAX: usize = 1 + 2 * (1 + CREDENTIAL_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Outcome, run, run_cut};
    use proptest::prelude::*;

    struct Wanted {
        command: Command,
        target: Address,
        credentials: Option<Credentials>,
    }

    fn wanted(target: &str, login: bool) -> Wanted {
        let credentials = login.then(|| Credentials::new("alice", "secret").unwrap());
        Wanted { command: Command::Connect, target: target.parse().unwrap(), credentials }
    }

    impl Wanted {
        fn start(&self, output: &mut Vec<u8>) -> Client<'_> {
            let request = Request { command: self.command, target: &self.target };
            Client::new(request, self.credentials.as_ref(), output)
        }

        fn hear(&self, server: &[u8]) -> Outcome<Granted, ClientError> {
            run_cut(|output| self.start(output), server)
        }
    }

    fn bound(address: &str) -> Granted {
        Granted { bound: Some(address.parse().unwrap()) }
    }

    #[test]
    fn what_is_sent_is_what_the_references_send() {
        let outcome =
            wanted("203.0.113.9:8123", false).hear(b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00");
        assert_eq!(outcome.output, b"\x05\x01\x00\x05\x01\x00\x01\xcb\x00\x71\x09\x1f\xbb");
        assert_eq!(outcome.done, Ok(Some(bound("0.0.0.0:0"))));
        let with_login = wanted("203.0.113.9:8123", true);
        let outcome = with_login.hear(b"\x05\x02\x01\x00\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50");
        assert_eq!(
            outcome.output,
            b"\x05\x02\x00\x02\x01\x05alice\x06secret\x05\x01\x00\x01\xcb\x00\x71\x09\x1f\xbb"
        );
        assert_eq!(outcome.done, Ok(Some(bound("1.2.3.4:80"))));
        // A server may go without the login that we offered.
        let outcome = with_login.hear(b"\x05\x00\x05\x00\x00\x01\x01\x02\x03\x04\x00\x50");
        assert_eq!(outcome.output, b"\x05\x02\x00\x02\x05\x01\x00\x01\xcb\x00\x71\x09\x1f\xbb");
    }

    #[test]
    fn every_form_of_target_is_asked_for() {
        for target in ["1.2.3.4:80", "[2001:db8::1]:443", "example.com:65535"] {
            for (command, code) in [(Command::Connect, 1), (Command::Bind, 2), (Command::UdpAssociate, 3)] {
                let wanted = Wanted { command, ..wanted(target, false) };
                let mut request = vec![5, 1, 0, 5, code, 0];
                wanted.target.encode(&mut request);
                assert_eq!(wanted.hear(b"\x05\x00").output, request);
            }
        }
    }

    #[test]
    fn every_form_of_reply_is_taken_whole_and_what_is_glued_behind_it_is_left() {
        for (address, told) in [
            (&b"\x01\x01\x02\x03\x04\x00\x50"[..], Some("1.2.3.4:80")),
            (
                b"\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50",
                Some("[2001:db8::1]:80"),
            ),
            (b"\x03\x07gateway\x00\x50", Some("gateway:80")),
            (b"\x03\x00\x00\x50", None),
            (b"\x03\x03a b\x00\x50", None),
            (b"\x03\x02\xff\x00\x00\x50", None),
        ] {
            let session = [b"\x05\x00\x05\x00\x00", address, b"220 banner"].concat();
            let outcome = wanted("a:1", false).hear(&session);
            assert_eq!(outcome.done, Ok(Some(Granted { bound: told.map(|text| text.parse().unwrap()) })));
            assert_eq!(outcome.leftover, b"220 banner");
        }
    }

    #[test]
    fn a_split_anywhere_changes_nothing() {
        let session = b"\x05\x02\x01\x00\x05\x00\x00\x03\x07gateway\x00\x50more";
        assert!(wanted("a:1", true).hear(session).done.is_ok());
        assert_eq!(wanted("a:1", false).hear(session).done, Err(ClientError::MethodNotOffered(2)));
    }

    #[test]
    fn every_way_of_saying_no_is_an_error_of_its_own() {
        for (with_login, server, error) in [
            (false, &b"\x05\xff"[..], ClientError::MethodRefused),
            (true, b"\x05\xff", ClientError::MethodRefused),
            (false, b"\x05\x02", ClientError::MethodNotOffered(2)),
            (true, b"\x05\x01", ClientError::MethodNotOffered(1)),
            (true, b"\x05\x05", ClientError::MethodNotOffered(5)),
            (false, b"\x04\x00", ClientError::Version(4)),
            (false, b"HTTP/1.1 400", ClientError::Version(b'H')),
            (true, b"\x05\x02\x01\x01", ClientError::LoginRefused),
            (true, b"\x05\x02\x01\xff", ClientError::LoginRefused),
            (true, b"\x05\x02\x05\x00", ClientError::Version(5)),
            (false, b"\x05\x00\x04\x00", ClientError::Version(4)),
            (false, b"\x05\x00\x05\x00\x00\x02", ClientError::Address(AddressError::UnknownType(2))),
            (false, b"\x05\x00\x05\x05", ClientError::Denied(5)),
            (false, b"\x05\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00", ClientError::Denied(1)),
            (false, b"\x05\x00\x05\xff\x00\x09", ClientError::Denied(255)),
        ] {
            assert_eq!(wanted("a:1", with_login).hear(server).done, Err(error), "{server:?}");
        }
    }

    #[test]
    fn nothing_of_a_login_is_said_to_a_server_that_does_not_ask() {
        for server in [&b"\x05\x00"[..], b"\x05\xff", b"\x05\x01", b"\x04\x02", b""] {
            let outcome = wanted("a:1", true).hear(server);
            assert!(!outcome.output.windows(6).any(|window| window == b"secret"));
        }
    }

    #[test]
    fn the_second_reply_to_bind_is_heard_by_the_last_state_alone() {
        let wanted = Wanted { command: Command::Bind, ..wanted("1.2.3.4:80", false) };
        let first = wanted.hear(b"\x05\x00\x05\x00\x00\x01\x0a\x00\x00\x01\x01\x02\x05\x00\x00\x01\x0a");
        assert_eq!(first.done, Ok(Some(bound("10.0.0.1:258"))));
        assert_eq!(first.leftover, b"\x05\x00\x00\x01\x0a");
        let second = |server: &[u8]| run_cut(|_| ExpectReply, server);
        let outcome = second(b"\x05\x00\x00\x01\x0a\x00\x00\x02\x01\x03hello");
        assert_eq!((outcome.done, &outcome.leftover[..]), (Ok(Some(bound("10.0.0.2:259"))), &b"hello"[..]));
        assert_eq!(second(b"\x05\x04").done, Err(ClientError::Denied(4)));
    }

    #[test]
    fn our_client_and_our_server_understand_each_other() {
        let users = crate::testing::users();
        for (asks, has) in [(false, false), (false, true), (true, true)] {
            let wanted = wanted("example.com:80", has);
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let mut client = Some(wanted.start(&mut to_server));
            let mut server = Some(crate::socks5::Server::with_users(asks.then_some(&users)));
            let mut granted = None;
            while let Some(waiting) = client.take() {
                if let Some(machine) = server.take() {
                    let mut bytes = std::mem::take(&mut to_server);
                    match machine.advance(&mut Input::new(&mut bytes), &mut to_client).unwrap() {
                        Step::Wait(next) => server = Some(next),
                        Step::Done(pending) => {
                            assert_eq!(pending.user().is_some(), asks);
                            assert_eq!(pending.target(), &wanted.target);
                            pending.accept("10.0.0.1:1".parse().ok(), &mut to_client);
                        }
                    }
                }
                let mut bytes = std::mem::take(&mut to_client);
                match waiting.advance(&mut Input::new(&mut bytes), &mut to_server).unwrap() {
                    Step::Wait(next) => client = Some(next),
                    Step::Done(outcome) => granted = Some(outcome),
                }
            }
            assert_eq!(granted, Some(bound("10.0.0.1:1")));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_say_more_than_it_has_to_say(
            bytes: Vec<u8>, opening in 0..4_usize, cut: prop::sample::Index, has_login: bool,
        ) {
            let openings = [&b""[..], b"\x05\x00", b"\x05\x02\x01\x00", b"\x05\x00\x05\x00\x00"];
            let bytes = [openings[opening], &bytes].concat();
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            let wanted = wanted("example.com:80", has_login);
            let whole = run(|output| wanted.start(output), &[&bytes]);
            prop_assert!(whole.output.len() <= 4 + 14 + 3 + 15);
            prop_assert_eq!(run(|output| wanted.start(output), &[head, tail]), whole);
        }
    }
}
