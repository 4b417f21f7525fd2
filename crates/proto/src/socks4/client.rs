//! SOCKS4 and 4a, the client's side: how we ask a proxy behind us.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use zeroize::Zeroizing;

use super::{COMMAND_BIND, COMMAND_CONNECT, REPLY_VERSION, Reply, VERSION};
use crate::address::Address;
use crate::limits::SOCKS4_USER_ID_BYTES_MAX;
use crate::request::{Command, Names};
use crate::wire::{Input, Reader, Stop};
use crate::{Handshake, Step};

/// What we ask for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'c> {
    /// A connection, or an address for one from outside.
    pub command: Command,
    /// Where to, or from where.
    pub target: &'c Address,
    /// Whether the server takes names, which is what 4a adds to 4.
    pub names: Names,
    /// Who we say we are.
    pub user_id: &'c UserId,
}

/// The name that a client gives itself: at most 255 bytes, none of them NUL. Wiped when dropped and not printed, since
/// some servers take it for a password.
#[derive(Clone, Default)]
pub struct UserId(Zeroizing<Box<[u8]>>);

/// Why bytes are no user id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserIdError {
    /// They are more than 255.
    Long,
    /// One of them is NUL, which ends a user id.
    Nul,
}

/// Why a request cannot be put into the protocol's words; nothing has been said to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// There are no datagrams.
    Command,
    /// There is no IPv6.
    Ipv6,
    /// An address that begins with 0.0.0 is where a server of 4a reads that a name follows.
    ReservedIp,
    /// The target is a name, and the server takes none: it has to be resolved first.
    Name,
}

/// A client that waits for a reply: the one to its request, and by itself the second one to BIND.
#[derive(Debug, Default)]
pub struct ExpectReply;

/// A success, with the address that the server told: where it listens, or who came, for BIND. With CONNECT it says nothing,
/// and servers are known that put there what lay in their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The address, as the server wrote it; often all zeros, which is "where you reached me".
    pub bound: SocketAddrV4,
}

/// Why the server gives us no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// It said no, with this reply code.
    Denied(u8),
    /// Its reply begins with another byte than 0.
    Version(u8),
}

impl UserId {
    /// Checks length and bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, UserIdError> {
        if bytes.len() > SOCKS4_USER_ID_BYTES_MAX {
            return Err(UserIdError::Long);
        }
        if bytes.contains(&0) {
            return Err(UserIdError::Nul);
        }
        Ok(Self(Zeroizing::new(bytes.into())))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Request<'_> {
    /// Says it, if it can be said.
    ///
    /// ```text
    ///  +----+----+------+---------+---------+----+ - - - - +- - -+
    ///  | VN | CD | port |   IP    | user id | 00 |  name   |  00 |    the name only where IP is 0.0.0.1 (4a)
    ///  | 4  | 1  |  2   |    4    | 0..255  | 1  | 1..255  |  1  |
    ///  +----+----+------+---------+---------+----+ - - - - +- - -+
    /// ```
    pub fn send(self, output: &mut Vec<u8>) -> Result<ExpectReply, RequestError> {
        let command = match self.command {
            Command::Connect => COMMAND_CONNECT,
            Command::Bind => COMMAND_BIND,
            Command::UdpAssociate => return Err(RequestError::Command),
        };
        let (ip, name) = self.target()?;
        let user_id = &self.user_id.0;
        let named_len = name.map_or(0, |name| name.len() + 1);
        // A buffer that grows leaves copies of what it held behind.
        output.reserve(HEAD_BYTES + user_id.len() + 1 + named_len);
        output.extend_from_slice(&[VERSION, command]);
        output.extend_from_slice(&self.target.port().to_be_bytes());
        output.extend_from_slice(&ip.octets());
        output.extend_from_slice(user_id);
        output.push(0);
        if let Some(name) = name {
            output.extend_from_slice(name.as_bytes());
            output.push(0);
        }
        Ok(ExpectReply)
    }

    /// The address to write, and the name to write behind it.
    fn target(&self) -> Result<(Ipv4Addr, Option<&str>), RequestError> {
        let address = match (self.target, self.names) {
            (Address::Name(name, _), Names::PassOn) => return Ok((NAME_FOLLOWS, Some(name.as_str()))),
            (Address::Name(..), Names::ResolveHere) => return Err(RequestError::Name),
            (Address::Ip(address), _) => address,
        };
        match address.ip().to_canonical() {
            IpAddr::V6(_) => Err(RequestError::Ipv6),
            IpAddr::V4(ip) => match ip.octets() {
                [0, 0, 0, 1..=255] => Err(RequestError::ReservedIp),
                _ => Ok((ip, None)),
            },
        }
    }
}

impl Handshake for ExpectReply {
    type Done = Granted;
    type Error = ClientError;

    fn advance(self, input: &mut Input<'_>, _output: &mut Vec<u8>) -> Result<Step<Self>, ClientError> {
        match input.decode(reply) {
            Ok(granted) => Ok(Step::Done(granted)),
            Err(Stop::Incomplete) => Ok(Step::Wait(self)),
            Err(Stop::Malformed(error)) => Err(error),
        }
    }
}

/// ```text
///  +----+----+------+----+
///  | VN | CD | port | IP |    VN is 0
///  | 1  | 1  |  2   | 4  |
///  +----+----+------+----+
/// ```
fn reply(reader: &mut Reader<'_>) -> Result<Granted, Stop<ClientError>> {
    match reader.u8()? {
        REPLY_VERSION => {}
        other => return Err(Stop::Malformed(ClientError::Version(other))),
    }
    let code = reader.u8()?;
    // Not every server that says no goes on to the address.
    if code != Reply::Granted.wire() {
        return Err(Stop::Malformed(ClientError::Denied(code)));
    }
    let port = reader.u16()?;
    let ip = Ipv4Addr::from(reader.array::<4, _>()?);
    Ok(Granted { bound: SocketAddrV4::new(ip, port) })
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserId(..)")
    }
}

impl fmt::Display for UserIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Long => write!(f, "the user id is longer than {SOCKS4_USER_ID_BYTES_MAX} bytes"),
            Self::Nul => f.write_str("the user id has a NUL in it"),
        }
    }
}

impl std::error::Error for UserIdError {}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command => f.write_str("SOCKS4 has no datagrams"),
            Self::Ipv6 => f.write_str("SOCKS4 has no IPv6 addresses"),
            Self::ReservedIp => f.write_str("in SOCKS4 an address in 0.0.0.0/24 stands for a name"),
            Self::Name => f.write_str("SOCKS4 without the a has no names"),
        }
    }
}

impl std::error::Error for RequestError {}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(code) => write!(f, "the SOCKS4 server said no, with code {code}"),
            Self::Version(version) => {
                write!(f, "the SOCKS4 server answered with version {version}, where 0 is due")
            }
        }
    }
}

impl std::error::Error for ClientError {}

/// Version, command, port and address.
const HEAD_BYTES: usize = 1 + 1 + 2 + 4;

/// Any 0.0.0.x but 0.0.0.0 would do.
const NAME_FOLLOWS: Ipv4Addr = Ipv4Addr::new(0, 0, 0, 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::DomainName;
    use crate::socks4::Server;
    use crate::testing::{Outcome, run, run_cut};
    use proptest::prelude::*;

    const GRANTED: &[u8] = b"\x00\x5a\x00\x00\x00\x00\x00\x00";

    fn sent(command: Command, target: &str, names: Names, user_id: &[u8]) -> Result<Vec<u8>, RequestError> {
        say(command, &target.parse().unwrap(), names, user_id)
    }

    /// What is sent; where nothing can be said, that nothing was.
    fn say(
        command: Command,
        target: &Address,
        names: Names,
        user_id: &[u8],
    ) -> Result<Vec<u8>, RequestError> {
        let user_id = UserId::new(user_id).unwrap();
        let mut output = Vec::new();
        let asked = Request { command, target, names, user_id: &user_id }.send(&mut output);
        assert!(asked.is_ok() || output.is_empty());
        asked.map(|ExpectReply| output)
    }

    fn hear(server: &[u8]) -> Outcome<Granted, ClientError> {
        run_cut(|_| ExpectReply, server)
    }

    fn bound(address: &str) -> Granted {
        Granted { bound: address.parse().unwrap() }
    }

    #[test]
    fn what_is_sent_is_what_the_references_send() {
        let connect = |target, names, user_id| sent(Command::Connect, target, names, user_id);
        let plain = b"\x04\x01\x1f\xbb\xcb\x00\x71\x09\x00";
        for names in [Names::ResolveHere, Names::PassOn] {
            assert_eq!(connect("203.0.113.9:8123", names, b"").as_deref(), Ok(&plain[..]));
        }
        assert_eq!(
            connect("203.0.113.9:8123", Names::ResolveHere, b"alice").as_deref(),
            Ok(&b"\x04\x01\x1f\xbb\xcb\x00\x71\x09alice\x00"[..])
        );
        assert_eq!(
            connect("example.com:80", Names::PassOn, b"me").as_deref(),
            Ok(&b"\x04\x01\x00\x50\x00\x00\x00\x01me\x00example.com\x00"[..])
        );
        assert_eq!(
            sent(Command::Bind, "1.2.3.4:0", Names::ResolveHere, b"").as_deref(),
            Ok(&b"\x04\x02\x00\x00\x01\x02\x03\x04\x00"[..])
        );
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_an_ipv4_address() {
        assert_eq!(
            sent(Command::Connect, "[::ffff:203.0.113.9]:8123", Names::ResolveHere, b"").as_deref(),
            Ok(&b"\x04\x01\x1f\xbb\xcb\x00\x71\x09\x00"[..])
        );
    }

    #[test]
    fn what_the_protocol_has_no_words_for_is_an_error_before_anything_is_said() {
        for names in [Names::ResolveHere, Names::PassOn] {
            let connect = |target| sent(Command::Connect, target, names, b"me").unwrap_err();
            for target in ["[2001:db8::1]:443", "[::1]:80", "[::]:0", "[::203.0.113.9]:80"] {
                assert_eq!(connect(target), RequestError::Ipv6, "{target}");
            }
            for target in ["0.0.0.1:80", "0.0.0.255:80", "[::ffff:0.0.0.7]:80"] {
                assert_eq!(connect(target), RequestError::ReservedIp, "{target}");
            }
            let datagrams = sent(Command::UdpAssociate, "1.2.3.4:80", names, b"");
            assert_eq!(datagrams, Err(RequestError::Command));
            // With BIND this is nobody in particular.
            assert!(sent(Command::Bind, "0.0.0.0:0", names, b"").is_ok());
        }
        for command in [Command::Connect, Command::Bind] {
            let named = sent(command, "example.com:80", Names::ResolveHere, b"");
            assert_eq!(named, Err(RequestError::Name));
        }
    }

    #[test]
    fn a_user_id_has_at_most_255_bytes_and_none_that_would_end_it() {
        assert!(UserId::new(&[b'x'; 255]).is_ok());
        assert_eq!(UserId::new(&[b'x'; 256]).err(), Some(UserIdError::Long));
        assert_eq!(UserId::new(b"a\0b").err(), Some(UserIdError::Nul));
        assert!(UserId::new(b"").unwrap().is_empty() && UserId::default().is_empty());
        assert!(!UserId::new(b"\xff").unwrap().is_empty());
        let printed = format!("{:?}", UserId::new(b"hunter2").unwrap());
        assert_eq!(printed, "UserId(..)");
    }

    #[test]
    fn the_room_for_a_request_is_made_at_once_so_that_no_copy_of_its_user_id_stays_behind() {
        for (target, user_id) in [("example.com:80", &[b'x'; 255][..]), ("1.2.3.4:80", b"me"), ("a:1", b"")] {
            let request = sent(Command::Connect, target, Names::PassOn, user_id).unwrap();
            assert_eq!(request.capacity(), request.len().max(8), "{target}");
        }
    }

    #[test]
    fn a_reply_is_taken_whole_and_what_is_glued_behind_it_is_left() {
        for (reply, told) in [
            (GRANTED, "0.0.0.0:0"),
            (b"\x00\x5a\x01\x02\x0a\x00\x00\x01", "10.0.0.1:258"),
            // What a cache was seen to leave in a buffer.
            (b"\x00\x5a\xff\xff\xff\xff\xff\xff", "255.255.255.255:65535"),
        ] {
            let outcome = hear(&[reply, b"220 banner"].concat());
            assert_eq!(outcome.done, Ok(Some(bound(told))));
            assert_eq!((&outcome.output[..], &outcome.leftover[..]), (&b""[..], &b"220 banner"[..]));
        }
    }

    #[test]
    fn a_split_anywhere_changes_nothing() {
        for server in [b"\x00\x5a\x01\x02\x0a\x00\x00\x01\x00\x5amore", &GRANTED[..7], b"\x00", b""] {
            assert!(hear(server).done.is_ok());
        }
        assert_eq!(hear(&GRANTED[..7]).done, Ok(None));
    }

    #[test]
    fn every_way_of_saying_no_is_an_error_of_its_own() {
        for (server, error) in [
            (&b"\x00\x5b\x00\x00\x00\x00\x00\x00"[..], ClientError::Denied(91)),
            (b"\x00\x5c\x00\x00\x00\x00\x00\x00", ClientError::Denied(92)),
            (b"\x00\x5d", ClientError::Denied(93)),
            (b"\x00\x00", ClientError::Denied(0)),
            (b"\x00\x5e\x00\x00\x00\x00\x00\x00", ClientError::Denied(94)),
            (b"\x00\xff", ClientError::Denied(255)),
            (b"\x04\x5a\x00\x00\x00\x00\x00\x00", ClientError::Version(4)),
            (b"\x05\xff", ClientError::Version(5)),
            (b"HTTP/1.1 400", ClientError::Version(b'H')),
        ] {
            assert_eq!(hear(server).done, Err(error), "{server:?}");
        }
    }

    #[test]
    fn the_second_reply_to_bind_is_heard_by_the_same_state() {
        let first = hear(b"\x00\x5a\x01\x02\x0a\x00\x00\x01\x00\x5a\x01\x03");
        assert_eq!(first.done, Ok(Some(bound("10.0.0.1:258"))));
        assert_eq!(first.leftover, b"\x00\x5a\x01\x03");
        let second = hear(b"\x00\x5a\x01\x03\x0a\x00\x00\x02hello");
        assert_eq!((second.done, &second.leftover[..]), (Ok(Some(bound("10.0.0.2:259"))), &b"hello"[..]));
        assert_eq!(hear(b"\x00\x5b").done, Err(ClientError::Denied(91)));
    }

    #[test]
    fn our_client_and_our_server_understand_each_other() {
        for (command, target, user_id) in [
            (Command::Connect, "example.com:80", &b""[..]),
            (Command::Connect, "203.0.113.9:65535", b"alice"),
            (Command::Bind, "1.2.3.4:0", &[0xff; 255]),
            (Command::Bind, "gateway:1", b"\x01"),
        ] {
            let mut request = sent(command, target, Names::PassOn, user_id).unwrap();
            let (mut input, mut answer) = (Input::new(&mut request), Vec::new());
            let Step::Done(pending) = Server::new().advance(&mut input, &mut answer).unwrap() else {
                panic!("{target}: the request is not whole");
            };
            assert_eq!(input.rest(), b"");
            assert_eq!((pending.command(), pending.user_id()), (command, user_id));
            assert_eq!(pending.target(), &target.parse().unwrap());
            pending.accept("10.0.0.1:1".parse().ok(), &mut answer);
            assert_eq!(hear(&answer).done, Ok(Some(bound("10.0.0.1:1"))));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_say_anything(
            bytes: Vec<u8>, opening in 0..3_usize, cut: prop::sample::Index,
        ) {
            let bytes = [[&b""[..], b"\x00", b"\x00\x5a"][opening], &bytes].concat();
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            let whole = run(|_| ExpectReply, &[&bytes]);
            prop_assert!(whole.output.is_empty());
            if let Ok(Some(_)) = whole.done {
                prop_assert_eq!(&whole.leftover[..], &bytes[8..]);
            }
            prop_assert_eq!(run(|_| ExpectReply, &[head, tail]), whole);
        }

        #[test]
        fn whatever_can_be_said_is_one_request_and_says_what_was_asked_for(
            name in "\\PC{1,60}", ip: [u8; 4], port: u16, is_named: bool, takes_names: bool, is_bind: bool,
            user_id in prop::collection::vec(1_u8.., 0..=255),
        ) {
            let command = if is_bind { Command::Bind } else { Command::Connect };
            let names = if takes_names { Names::PassOn } else { Names::ResolveHere };
            let target = match DomainName::new(&name) {
                Ok(name) if is_named => Address::Name(name, port),
                _ => Address::Ip((ip, port).into()),
            };
            if let Ok(request) = say(command, &target, names, &user_id) {
                let outcome = run(|_| Server::new(), &[&request]);
                let pending = outcome.done.unwrap().unwrap();
                prop_assert_eq!(outcome.leftover, b"");
                prop_assert_eq!((pending.command(), pending.user_id()), (command, &user_id[..]));
                // A name that is an IP literal is that IP to the server.
                prop_assert_eq!(pending.target().to_string(), target.to_string());
            }
        }
    }
}
