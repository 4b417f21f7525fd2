//! What every attack stands on: the program as a process, a pair of them, clients, targets, and what the system knows of them.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(crate) use crate::program::{PATIENCE, Umbra, eventually};

pub(crate) const METHODS: [&str; 2] = ["aes-256-gcm", "2022-blake3-aes-256-gcm"];
/// A password for SIP004 and a key for SIP022: nothing else in a log looks like it.
pub(crate) const SECRET: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=";

impl Umbra {
    pub(crate) fn server(method: &str, extra: &[&str]) -> Self {
        let words = ["server", "-s", "127.0.0.1:0", "-m", method, "-k", SECRET, "--forbidden-ip="];
        Self::start(&[&words, extra].concat())
    }

    pub(crate) fn local(method: &str, server: SocketAddr, extra: &[&str]) -> Self {
        let server = server.to_string();
        Self::start(&[&["local", "-s", &server, "-l", "0", "-m", method, "-k", SECRET], extra].concat())
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Memory held by the process itself; the kernel's buffers are not in it.
    pub(crate) fn resident_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Processor time spent so far, which the kernel counts in hundredths of a second.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends the process without a chance to do anything.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Both ends, connected.
pub(crate) struct Pair {
    pub(crate) local: Umbra,
    pub(crate) server: Umbra,
}

impl Pair {
    pub(crate) fn start(method: &str) -> Self {
        Self::with(method, &[], &[])
    }

    pub(crate) fn with(method: &str, local: &[&str], server: &[&str]) -> Self {
        allow_many_descriptors();
        let server = Umbra::server(method, server);
        Self { local: Umbra::local(method, server.address, local), server }
    }

    pub(crate) fn open(&self, target: SocketAddr) -> TcpStream {
        open(self.local.address, target)
    }

    /// Carries a few bytes there and back through a session of their own.
    pub(crate) fn assert_serves(&self) {
        assert!(echoes(self.local.address, echo()), "a new session does not work");
    }

    pub(crate) fn descriptors(&self) -> [usize; 2] {
        [self.local.descriptors(), self.server.descriptors()]
    }

    pub(crate) fn resident_kib(&self) -> [usize; 2] {
        [self.local.resident_kib(), self.server.resident_kib()]
    }

    /// Waits until both processes hold no more descriptors than `before`.
    pub(crate) fn assert_descriptors_return_to(&self, before: [usize; 2]) {
        eventually(|| {
            let [local, server] = self.descriptors();
            if local <= before[0] && server <= before[1] {
                Ok(())
            } else {
                Err(format!("descriptors {before:?} have become {:?}", [local, server]))
            }
        });
    }

    /// Waits until both processes hold at most `more_kib` more than `before`.
    pub(crate) fn assert_memory_returns_to(&self, before: [usize; 2], more_kib: usize) {
        eventually(|| {
            let [local, server] = self.resident_kib();
            if local <= before[0] + more_kib && server <= before[1] + more_kib {
                Ok(())
            } else {
                Err(format!("resident KiB {before:?} have become {:?}", [local, server]))
            }
        });
    }
}

/// Lets this process and its children hold thousands of connections.
pub(crate) fn allow_many_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Greeting and request in one piece.
pub(crate) fn greeting(target: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(target) = target else { panic!("an IPv4 target is wanted") };
    let mut bytes = vec![5, 1, 0, 5, 1, 0, 1];
    bytes.extend(target.ip().octets());
    bytes.extend(target.port().to_be_bytes());
    bytes
}

/// Opens a session to `target` through the SOCKS5 door at `door`.
pub(crate) fn open(door: SocketAddr, target: SocketAddr) -> TcpStream {
    let mut stream = connect(door);
    stream.write_all(&greeting(target)).unwrap();
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], [5, 0, 5, 0]);
    stream
}

/// Whether a few bytes come back.
pub(crate) fn echoes(door: SocketAddr, target: SocketAddr) -> bool {
    let mut stream = connect(door);
    let mut answer = Vec::new();
    stream.write_all(&greeting(target)).is_ok()
        && stream.write_all(b"there and back").is_ok()
        && stream.shutdown(Shutdown::Write).is_ok()
        && stream.read_to_end(&mut answer).is_ok()
        && answer.ends_with(b"there and back")
}

/// Closes a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// A target that serves every connection with `script`, each on a thread of its own.
pub(crate) fn target(script: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, script) = (stream.unwrap(), Arc::clone(&script));
            thread::spawn(move || script(stream));
        }
    });
    address
}

/// A target that is served by the test itself.
pub(crate) fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// A listener whose queue is full, so that it answers no one, with what fills it.
pub(crate) fn silent_listener() -> (TcpListener, Vec<TcpStream>) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let fill = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let waiting = (0..8).map_while(|_| fill()).collect();
    (listener, waiting)
}

pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let stream = eventually(|| listener.accept().map_err(|error| format!("nobody comes: {error}"))).0;
    stream.set_nonblocking(false).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A target that sends back what comes, until its end.
pub(crate) fn echo() -> SocketAddr {
    target(|mut stream| {
        let mut copy = stream.try_clone().unwrap();
        let _a_reset_ends_it_too = std::io::copy(&mut copy, &mut stream);
    })
}

/// How a peer's stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Orderly,
    Reset,
}

/// Reads until the end: what came, and how it ended.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Ok(_) => (got, End::Orderly),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
            (got, End::Reset)
        }
        Err(error) => panic!("neither an end nor a reset after {} bytes: {error}", got.len()),
    }
}

/// Bytes that no shift of themselves equals.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut chance = Chance(1);
    (0..len.div_ceil(8)).flat_map(|_| chance.next().to_le_bytes()).take(len).collect()
}

/// Numbers from a seed (splitmix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}
