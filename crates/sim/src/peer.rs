//! Clients and targets: what they say, what they hear, and how they end.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::stream::Sealer;
use umbra_proto::shadowsocks::{Salt, UnixTime};
use umbra_relay::net::Socket;

use crate::socket::SimSocket;

/// One end of a connection in the hands of a test.
#[derive(Debug)]
pub struct Peer {
    socket: SimSocket,
    /// A socket tells of a reset only once, perhaps to whoever was speaking; listeners are to know of it too.
    broken: AtomicBool,
}

/// Everything that a peer was told, and how it ended.
#[derive(Clone, PartialEq, Eq)]
pub struct Heard {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What came behind them.
    pub ending: Ending,
}

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order.
    End,
    /// By a reset.
    Reset,
}

/// What a peer says, piece by piece.
#[derive(Clone)]
pub struct Speech {
    /// Pauses, each with what is said behind it.
    pub pieces: Vec<(Duration, Vec<u8>)>,
    /// How it ends.
    pub ending: Ending,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// SOCKS5.
    Socks5,
    /// SOCKS4, with names as 4a has them.
    Socks4,
    /// HTTP, with CONNECT.
    Connect,
    /// Nothing: the door knows where to go.
    Tunnel,
}

impl Entrance {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Socks5, Self::Socks4, Self::Connect, Self::Tunnel];

    /// What a client says to get to `target`, if it waits for nothing.
    pub fn request(self, target: &Address) -> Vec<u8> {
        match self {
            Self::Socks5 => socks5_request(target),
            Self::Socks4 => socks4_request(target),
            Self::Connect => format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes(),
            Self::Tunnel => Vec::new(),
        }
    }
}

impl Peer {
    /// A peer at an end of a connection.
    pub fn new(socket: SimSocket) -> Self {
        Self { socket, broken: AtomicBool::new(false) }
    }

    /// Says all of `bytes`.
    pub async fn say(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await.inspect_err(|_| self.broken.store(true, Ordering::Relaxed))
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.try_write(&[IoSlice::new(bytes)]) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.socket.poll_writable(cx)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says a speech to its end, which is an orderly one: whoever holds the peer makes it a reset.
    pub async fn deliver(&self, speech: &Speech) -> io::Result<()> {
        for (pause, piece) in &speech.pieces {
            if !pause.is_zero() {
                sleep(*pause).await;
            }
            self.say(piece).await?;
        }
        match speech.ending {
            Ending::End => self.end(),
            Ending::Reset => Ok(()),
        }
    }

    /// Waits for bytes and takes up to `max` of them; none is the end.
    pub async fn hear_some(&self, max: usize) -> io::Result<Vec<u8>> {
        let mut room = vec![0; max];
        loop {
            poll_fn(|cx| self.socket.poll_readable(cx)).await?;
            match self.socket.try_read(&mut [IoSliceMut::new(&mut room)]) {
                Ok(0) if self.broken.load(Ordering::Relaxed) => {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                Ok(count) => {
                    room.truncate(count);
                    return Ok(room);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Hears exactly `count` bytes.
    pub async fn hear(&self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let some = self.hear_some(count - bytes.len()).await?;
            if some.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&some);
        }
        Ok(bytes)
    }

    /// Hears everything up to the end.
    pub async fn hear_out(&self) -> Heard {
        let mut bytes = Vec::new();
        loop {
            match self.hear_some(32 * 1024).await {
                Ok(some) if some.is_empty() => return Heard { bytes, ending: Ending::End },
                Ok(some) => bytes.extend_from_slice(&some),
                Err(_) => return Heard { bytes, ending: Ending::Reset },
            }
        }
    }

    /// Says nothing more.
    pub fn end(&self) -> io::Result<()> {
        self.socket.shutdown_write()
    }

    /// Tears the connection down.
    pub fn reset(self) {
        self.socket.reset();
    }

    /// Bytes that have arrived or are under way and were not heard.
    pub fn unread_bytes(&self) -> usize {
        self.socket.unread_bytes()
    }

    /// Asks a SOCKS5 door for `target`, with `early` payload in the same breath. Gives the reply's code.
    pub async fn ask_socks5(&self, target: &Address, early: &[u8]) -> io::Result<u8> {
        let mut bytes = socks5_request(target);
        bytes.extend_from_slice(early);
        self.say(&bytes).await?;
        self.hear_socks5_reply().await
    }

    /// Hears the answer to a request. Says whether it is a good one.
    pub async fn hear_reply(&self, entrance: Entrance) -> io::Result<bool> {
        match entrance {
            Entrance::Socks5 => self.hear_socks5_reply().await.map(|code| code == 0),
            Entrance::Socks4 => self.hear(8).await.map(|reply| reply[..2] == [0, 90]),
            Entrance::Connect => self.hear_head().await.map(|head| head.starts_with(b"HTTP/1.1 200 ")),
            Entrance::Tunnel => Ok(true),
        }
    }

    /// Hears the head of an HTTP message.
    pub async fn hear_head(&self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.hear(1).await?);
        }
        Ok(head)
    }

    /// Hears the answers to a greeting and a request. Gives the reply's code.
    pub async fn hear_socks5_reply(&self) -> io::Result<u8> {
        let head = self.hear(2 + 4).await?;
        let address_len = match head[5] {
            1 => 4,
            4 => 16,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        self.hear(address_len + 2).await?;
        if head[..3] != [5, 0, 5] {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(head[3])
    }
}

/// Greeting and request of a SOCKS5 client that waits for nothing.
pub fn socks5_request(target: &Address) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 5, 1, 0];
    target.encode(&mut bytes);
    bytes
}

/// A CONNECT request of SOCKS4, or 4a where the target has a name.
fn socks4_request(target: &Address) -> Vec<u8> {
    let mut bytes = vec![4, 1];
    bytes.extend(target.port().to_be_bytes());
    match target {
        Address::Ip(address) => match address.ip() {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            // There is no form for it; the door is told so by an address that is none.
            IpAddr::V6(_) => bytes.extend([0, 0, 0, 0]),
        },
        Address::Name(..) => bytes.extend([0, 0, 0, 1]),
    }
    bytes.extend(b"user\0");
    if let Address::Name(name, _) = target {
        bytes.extend(name.as_str().as_bytes());
        bytes.push(0);
    }
    bytes
}

/// What a Shadowsocks client with `key` sends first: salt, head, and `payload` if there is some.
pub fn shadowsocks_request(
    key: &Key,
    salt: Salt,
    target: &Address,
    now: UnixTime,
    payload: &[u8],
) -> Vec<u8> {
    let mut sealer = Sealer::request(key, salt, target);
    let mut bytes = Vec::new();
    if payload.is_empty() {
        sealer.seal_request_without_payload(17, now, &mut bytes);
    } else {
        seal_onto(&mut sealer, payload, now, &mut bytes);
    }
    bytes
}

/// Appends one record.
pub fn seal_onto(sealer: &mut Sealer, payload: &[u8], now: UnixTime, bytes: &mut Vec<u8>) {
    let (start, head_len) = (bytes.len(), sealer.head_len());
    bytes.resize(start + head_len, 0);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len() + sealer.tail_len(), 0);
    sealer.seal(&mut bytes[start..], now);
}

impl std::fmt::Debug for Speech {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: usize = self.pieces.iter().map(|(_, piece)| piece.len()).sum();
        write!(f, "{bytes} bytes in {} pieces, then {:?}", self.pieces.len(), self.ending)
    }
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, then {:?}", self.bytes.len(), self.ending)
    }
}
