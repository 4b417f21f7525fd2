//! The real outside. This file and `messages.rs` beside it are the only ones that may speak to the operating system without the
//! compiler's protection.

#[cfg_attr(not(target_os = "linux"), path = "os/no_conduit.rs")]
pub(crate) mod conduit;
pub mod datagram;
#[cfg_attr(not(target_os = "linux"), path = "os/plain.rs")]
mod messages;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream as StdTcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpSocket, TcpStream};
use umbra_proto::shadowsocks::UnixTime;
use zeroize::Zeroizing;

use super::{Listener, Net, Socket};
use crate::config::Tcp;
use crate::limits::{
    ACCEPT_LATE_SECS, BACKLOG, BIND_BACKLOG, KEEPALIVE_DELAY, KEEPALIVE_PERIOD, KEEPALIVES_MISSED_MAX,
    RANDOM_POOL_BYTES, UNSENT_BYTES_MAX,
};

/// The kernel's network.
#[derive(Clone, Copy, Debug)]
pub struct OsNet;

/// A TCP connection of the kernel, registered with the worker it was made on.
#[derive(Debug)]
pub struct OsSocket(TcpStream);

impl OsSocket {
    /// Registers an accepted connection with the calling worker.
    pub(crate) fn register(connection: OwnedFd) -> io::Result<Self> {
        TcpStream::from_std(StdTcpStream::from(connection)).map(Self)
    }
}

impl Socket for OsSocket {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(cx)
    }

    fn try_read(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let room = pieces.iter().map(|piece| piece.len()).sum();
        // The socket's own call is the shorter way through the kernel where there is one piece.
        transfer(&self.0, Interest::READABLE, room, || match pieces {
            [piece] => rustix::net::recv(&self.0, &mut **piece, RecvFlags::empty()).map(|(count, _)| count),
            pieces => rustix::io::readv(&self.0, pieces),
        })
    }

    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let room = pieces.iter().map(|piece| piece.len()).sum();
        transfer(&self.0, Interest::WRITABLE, room, || match pieces {
            [piece] => rustix::net::send(&self.0, piece, SendFlags::NOSIGNAL),
            pieces => rustix::io::writev(&self.0, pieces),
        })
    }

    fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(&self.0).shutdown(std::net::Shutdown::Write)
    }

    fn reset(&self) {
        // Linger of zero turns the close into a reset; if it fails the peer gets an orderly end, which is all that is left.
        let _ = SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }

    fn undelivered_bytes(&self) -> usize {
        unacknowledged_bytes(&self.0)
    }

    async fn broken(&self) {
        // What breaks a connection can be read of as well. Most have nothing to say meanwhile, and that is looked for at less cost.
        // An error of the registration is the end of its worker.
        let _ = poll_fn(|cx| self.poll_readable(cx)).await;
        let _ = self.0.ready(Interest::ERROR).await;
    }

    fn watch_peer(&self) {
        let signs = TcpKeepalive::new().with_time(KEEPALIVE_DELAY);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let signs = signs.with_interval(KEEPALIVE_PERIOD).with_retries(KEEPALIVES_MISSED_MAX);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = (KEEPALIVE_PERIOD, KEEPALIVES_MISSED_MAX);
        // Without it, an end that is never said is found out when somebody speaks.
        let _ = SockRef::from(&self.0).set_tcp_keepalive(&signs);
    }

    fn expect_bulk(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&self.0).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = UNSENT_BYTES_MAX;
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    fn kernel(&self) -> Option<&OsSocket> {
        Some(self)
    }
}

/// A listening socket of the kernel for what a client has asked for.
#[derive(Debug)]
pub struct OsListener(tokio::net::TcpListener);

impl Listener for OsListener {
    type Socket = OsSocket;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(OsSocket, SocketAddr)> {
        self.0.accept().await.map(|(stream, source)| (OsSocket(stream), source))
    }
}

/// One system call, with the readiness it leaves behind: a transfer that came short has drained the kernel's buffer (or
/// filled it), so the next try would only hear "would block". Saying so at once saves that call.
fn transfer(
    stream: &TcpStream,
    interest: Interest,
    room: usize,
    call: impl FnOnce() -> Result<usize, Errno>,
) -> io::Result<usize> {
    let mut moved = 0;
    let outcome = stream.try_io(interest, || {
        moved = call()?;
        if 0 < moved && moved < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match outcome {
        Ok(()) => Ok(moved),
        Err(_) if moved > 0 => Ok(moved),
        // A signal, or a fast-open connection whose SYN is only now on its way.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INTR | Errno::INPROGRESS)) => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        Err(error) => Err(error),
    }
}

impl Net for OsNet {
    type Socket = OsSocket;
    type Listener = OsListener;

    async fn connect(&self, address: SocketAddr, tcp: Tcp) -> io::Result<OsSocket> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_nodelay(tcp.no_delay)?;
        if tcp.fast_open {
            open_fast(&socket);
        }
        socket.connect(address).await.map(OsSocket)
    }

    fn listen(&self, ip: IpAddr, tcp: Tcp) -> io::Result<OsListener> {
        let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_nodelay(tcp.no_delay)?;
        socket.bind(SocketAddr::new(ip, 0))?;
        socket.listen(BIND_BACKLOG).map(OsListener)
    }

    fn source_towards(&self, peer: IpAddr) -> io::Result<IpAddr> {
        let any: IpAddr =
            if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        // Of a datagram socket this only asks the routes; nothing is sent, to whatever port.
        socket.connect((peer, 9))?;
        Ok(socket.local_addr()?.ip())
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((name, port)).await?.collect())
    }

    fn unix_time(&self) -> UnixTime {
        UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        RANDOM.with_borrow_mut(|pool| pool.fill(bytes))
    }
}

/// Randomness for many salts at a time: a seed of the system's, expanded with ChaCha20, as the system would expand its own but slower.
/// What is given out is wiped here.
struct RandomPool {
    bytes: [u8; RANDOM_POOL_BYTES],
    used: usize,
}

impl RandomPool {
    fn fill(&mut self, wanted: &mut [u8]) -> io::Result<()> {
        if wanted.len() > self.bytes.len() {
            return getrandom::fill(wanted).map_err(io::Error::other);
        }
        if self.bytes.len() - self.used < wanted.len() {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *seed).map_err(io::Error::other)?;
            self.bytes.fill(0);
            ChaCha20::new((&*seed).into(), &[0; 12].into()).apply_keystream(&mut self.bytes);
            self.used = 0;
        }
        let given = &mut self.bytes[self.used..self.used + wanted.len()];
        wanted.copy_from_slice(given);
        given.fill(0);
        self.used += wanted.len();
        Ok(())
    }
}

thread_local! {
    static RANDOM: RefCell<RandomPool> =
        const { RefCell::new(RandomPool { bytes: [0; RANDOM_POOL_BYTES], used: RANDOM_POOL_BYTES }) };
}

/// Opens a listening socket. Its connections inherit `TCP_NODELAY`, which saves a call for each.
///
/// No `SO_REUSEPORT`: a port that somebody else listens on is an error, and no other process can share ours.
///
/// Where clients `speak_first`, the kernel keeps a connection to itself until it has something to read. Not for doors that
/// strangers look at: the repeated SYN-ACK would tell them apart.
pub(crate) fn listen(address: SocketAddr, tcp: Tcp, speak_first: bool) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(tcp.no_delay)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    if tcp.fast_open {
        accept_fast(&socket);
    }
    if speak_first {
        accept_late(&socket);
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A listening socket, watched by the worker it was made on. Its connections are not: they may go to any worker.
#[derive(Debug)]
pub(crate) struct Watched {
    listener: AsyncFd<TcpListener>,
    /// Whether one connection has come since it was last waited for: there may be others, or none.
    has_given: bool,
}

impl Watched {
    #[expect(unsafe_code, reason = "the runtime cannot see that a std listener keeps its descriptor")]
    pub(crate) fn new(listener: TcpListener) -> io::Result<Self> {
        // SAFETY: a TcpListener owns one descriptor, gives the same one each time, and closes it only when dropped, which
        // AsyncFd does after it has stopped watching.
        let watched = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
        Ok(Self { listener: watched.map_err(io::Error::from)?, has_given: false })
    }

    /// The next connection, non-blocking and closed on exec.
    pub(crate) async fn accept(&mut self) -> io::Result<(OwnedFd, SocketAddr)> {
        let Self { listener, has_given } = self;
        let next = |listener: &TcpListener| {
            // For a connection that is not there the kernel makes a socket and throws it away, ten times the price of a look.
            if std::mem::take(has_given) && !has_arrived(listener) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let accepted = accept(listener)?;
            *has_given = true;
            Ok(accepted)
        };
        listener.async_io(Interest::READABLE, next).await
    }
}

/// Whether a connection waits, as far as can be told; where it cannot, accepting will tell.
fn has_arrived(listener: &TcpListener) -> bool {
    let mut listeners = [PollFd::new(listener, PollFlags::IN)];
    !matches!(poll(&mut listeners, Some(&Timespec::default())), Ok(0))
}

fn accept(listener: &TcpListener) -> io::Result<(OwnedFd, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (connection, source) = rustix::net::acceptfrom_with(listener.as_fd(), flags)?;
    let source = source.and_then(|address| SocketAddr::try_from(address).ok());
    Ok((connection, source.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))))
}

/// Descriptors that this process may hold open.
pub(crate) fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Whether accepting failed for want of descriptors or memory, which passes, rather than for this one connection.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS))
}

#[cfg(target_os = "linux")]
fn open_fast(socket: &TcpSocket) {
    set_tcp_option(socket, libc::TCP_FASTOPEN_CONNECT, 1);
}

#[cfg(target_os = "linux")]
fn accept_fast(socket: &socket2::Socket) {
    // The number is how many SYNs with data may wait.
    set_tcp_option(socket, libc::TCP_FASTOPEN, 256);
}

#[cfg(target_os = "linux")]
fn accept_late(socket: &socket2::Socket) {
    let secs = libc::c_int::try_from(ACCEPT_LATE_SECS.as_secs()).unwrap_or(libc::c_int::MAX);
    set_tcp_option(socket, libc::TCP_DEFER_ACCEPT, secs);
}

#[cfg(not(target_os = "linux"))]
fn accept_late(_: &socket2::Socket) {
    // Elsewhere a connection is accepted when it is made.
    let _ = ACCEPT_LATE_SECS;
}

#[cfg(not(target_os = "linux"))]
fn open_fast(_: &TcpSocket) {}

#[cfg(not(target_os = "linux"))]
fn accept_fast(_: &socket2::Socket) {}

/// Fast open is a saving, not a promise: where the kernel refuses, connections open the usual way.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe wrapper has this option")]
fn set_tcp_option(socket: &impl AsFd, option: libc::c_int, value: libc::c_int) {
    use std::os::fd::AsRawFd;
    let len = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(4);
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `len` bytes of `value`, which
    // lives until the call returns.
    let _ = unsafe {
        let fd = socket.as_fd().as_raw_fd();
        libc::setsockopt(fd, libc::IPPROTO_TCP, option, (&raw const value).cast(), len)
    };
}

/// Bytes that the peer's system has not confirmed; what it has confirmed can be read there even behind a reset.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[expect(unsafe_code, reason = "no safe wrapper has this request")]
fn unacknowledged_bytes(socket: &impl AsFd) -> usize {
    use std::os::fd::AsRawFd;
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and of a TCP socket the kernel writes one `int` to `count`, which lives
    // until the call returns. SIOCOUTQ has the number of TIOCOUTQ.
    let told = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if told == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// Other systems have other ways to ask, or none.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn unacknowledged_bytes(_: &impl AsFd) -> usize {
    0
}

/// Starts a program that the kernel kills as soon as the calling thread is gone, however it went: the end of a thread is the end
/// of what it started, even when the process had no chance to do anything. Elsewhere than on Linux the program stays.
///
/// The kernel forgets the bond if the program gains privileges as it starts (set-user-id, file capabilities).
pub fn spawn_bound(mut command: Command) -> io::Result<Child> {
    #[cfg(target_os = "linux")]
    bind_to_thread(&mut command);
    command.spawn()
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "what is done between fork and exec has no safe form")]
fn bind_to_thread(command: &mut Command) {
    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt as _;
    let parent = getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that went before the line above sends no signal any more.
        if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: between fork and exec only what is safe in a signal handler may be done: `bind` makes two system calls, takes no
    // lock, and allocates nothing, not even for its errors.
    let _ = unsafe { command.pre_exec(bind) };
}

/// Gives free memory of the allocator back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc has no other way to ask")]
pub(crate) fn release_free_memory() {
    // SAFETY: malloc_trim has no preconditions and takes the allocator's own locks.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Other allocators give memory back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn release_free_memory() {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const PROMPT: Tcp = Tcp { no_delay: true, fast_open: false };

    #[tokio::test]
    async fn sockets_are_prompt_reusable_and_never_wait() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), PROMPT, false).unwrap();
        let options = SockRef::from(&listener);
        assert!(options.reuse_address().unwrap() && options.nonblocking().unwrap());
        const { assert!(BACKLOG >= 1024) };
        let address = listener.local_addr().unwrap();
        let dialled = OsNet.connect(address, PROMPT).await.unwrap();
        let (accepted, source) = Watched::new(listener).unwrap().accept().await.unwrap();
        assert_eq!(source, dialled.0.local_addr().unwrap());
        for connection in [SockRef::from(&dialled.0), SockRef::from(&accepted)] {
            assert!(connection.tcp_nodelay().unwrap() && connection.nonblocking().unwrap());
        }
    }

    #[test]
    fn no_randomness_comes_twice_and_what_is_given_is_not_kept() {
        let salts: HashSet<[u8; 32]> = (0..1000)
            .map(|_| {
                let mut salt = [0; 32];
                OsNet.fill_random(&mut salt).unwrap();
                let used = RANDOM.with_borrow(|pool| pool.bytes[..pool.used].to_vec());
                assert!(used.iter().all(|byte| *byte == 0));
                salt
            })
            .collect();
        assert_eq!(salts.len(), 1000);
        // Each bit is set about as often as not: of 1000, 400 to 600 are within six deviations.
        for bit in 0..256 {
            let set = salts.iter().filter(|salt| salt[bit / 8] >> (bit % 8) & 1 == 1).count();
            assert!((400..=600).contains(&set), "bit {bit}: {set}");
        }
        let mut long = vec![0; 3 * RANDOM_POOL_BYTES];
        OsNet.fill_random(&mut long).unwrap();
        assert!(long.as_chunks::<32>().0.iter().collect::<HashSet<_>>().len() == long.len() / 32);
    }

    #[tokio::test]
    async fn whoever_listens_on_all_of_ipv6_is_reached_over_ipv4_as_well() {
        let listener = listen("[::]:0".parse().unwrap(), PROMPT, false).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut listener = Watched::new(listener).unwrap();
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let dialled = OsNet.connect(SocketAddr::new(ip, port), PROMPT).await.unwrap();
            let (_accepted, source) = listener.accept().await.unwrap();
            assert_eq!(source.port(), dialled.0.local_addr().unwrap().port());
            assert_eq!(source.ip().to_canonical(), ip);
        }
    }
}
