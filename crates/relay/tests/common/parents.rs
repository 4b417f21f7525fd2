//! Proxies that do what a script says, and count who comes; and a client that asks for a way through a door.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use umbra_proto::address::Address;

/// A proxy that does the same with everybody.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    came: Arc<AtomicUsize>,
}

impl Scripted {
    /// One that does `script` with each connection.
    pub(crate) fn start(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::<AtomicUsize>::default();
        let (counted, script) = (Arc::clone(&came), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                stream.set_nodelay(true).unwrap();
                let script = Arc::clone(&script);
                thread::spawn(move || script(stream));
            }
        });
        Self { address, came }
    }

    /// One that says this to whatever it hears first, and then waits for the end.
    pub(crate) fn saying(words: &'static [u8]) -> Self {
        Self::start(move |mut stream| {
            let _whatever = stream.read(&mut [0; 512]);
            let _gone_already = stream.write_all(words);
            wait(stream);
        })
    }

    /// One that says nothing.
    pub(crate) fn silent() -> Self {
        Self::start(wait)
    }

    /// A SOCKS5 proxy that answers every request with this code, and serves nobody.
    pub(crate) fn answering(code: u8) -> Self {
        Self::start(move |mut stream| {
            if hear_socks5(&mut stream).is_some() {
                let _gone_already = stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
                wait(stream);
            }
        })
    }

    /// How many have come.
    pub(crate) fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

/// Listens and never accepts, with a queue that is full: who comes hears nothing. To be kept.
pub(crate) fn full() -> (SocketAddr, Vec<TcpStream>, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        queued.push(stream);
    }
    (address, queued, socket)
}

/// Where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Reads to the end, whatever comes.
pub(crate) fn wait(mut stream: TcpStream) {
    while stream.read(&mut [0; 512]).is_ok_and(|count| count > 0) {}
}

/// Makes the end of `stream` a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Greets a SOCKS5 client and hears its request; nothing, if it goes away.
pub(crate) fn hear_socks5(stream: &mut TcpStream) -> Option<Address> {
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).ok()?;
    stream.read_exact(&mut vec![0; greeting[1].into()]).ok()?;
    stream.write_all(&[5, 0]).ok()?;
    let mut head = [0; 5];
    stream.read_exact(&mut head).ok()?;
    let len = match head[3] {
        1 => 4,
        4 => 16,
        _ => usize::from(head[4]) + 1,
    };
    let mut rest = vec![0; len - 1 + 2];
    stream.read_exact(&mut rest).ok()?;
    let (host, port) = rest.split_at(rest.len() - 2);
    let port = u16::from_be_bytes([port[0], port[1]]);
    let host = match head[3] {
        1 => std::net::Ipv4Addr::new(head[4], host[0], host[1], host[2]).to_string(),
        4 => {
            let octets: Vec<u8> = std::iter::once(head[4]).chain(host.iter().copied()).collect();
            std::net::Ipv6Addr::from(*octets.first_chunk::<16>().unwrap()).to_string()
        }
        _ => String::from_utf8(host.to_vec()).unwrap(),
    };
    Some(Address::from_host(&host, port).unwrap())
}

/// Asks a SOCKS5 door for `target`. Gives the reply's code and the stream behind the reply.
pub(crate) fn ask(door: SocketAddr, target: &Address) -> (u8, TcpStream) {
    let mut stream = TcpStream::connect(door).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut request = vec![5, 1, 0, 5, 1, 0];
    target.encode(&mut request);
    stream.write_all(&request).unwrap();
    let mut head = [0; 2 + 4];
    stream.read_exact(&mut head).unwrap();
    let len = if head[5] == 4 { 16 } else { 4 };
    stream.read_exact(&mut vec![0; len + 2]).unwrap();
    (head[3], stream)
}
