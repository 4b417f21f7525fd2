//! Many short sessions: connect, 64 bytes there and back, close.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};

use super::bulk::{finish, index};
use super::pair::{Each, Pair, listen};
use crate::child::wait_until;
use crate::socks;

/// How the client ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// In order.
    Fin,
    /// At once, as a program that crashed.
    Rst,
}

/// What the sessions cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Churned {
    /// CPU seconds of the proxies.
    pub(crate) cpu_secs: Each,
    /// Sessions that did not get their bytes back.
    pub(crate) failed: usize,
    /// Targets that never learned that their session had ended.
    pub(crate) left: usize,
}

const IN_FLIGHT: usize = 64;
const PAYLOAD_BYTES: usize = 64;

/// Runs `count` sessions, 64 at a time.
pub(crate) fn churn(pair: &Pair, count: usize, close: Close) -> Result<Churned> {
    let listener = listen()?;
    listener.set_nonblocking(true)?;
    let target = listener.local_addr()?;
    let echo = Echo::default();
    thread::scope(|scope| {
        let answering = scope.spawn(|| echo.run(&listener));
        let before = pair.cpu_secs()?;
        let driven = Driver::new(pair.proxy, target, count, close).and_then(Driver::run);
        let open = || echo.accepted.load(Ordering::Relaxed) - echo.ended.load(Ordering::Relaxed);
        wait_until(Duration::from_secs(10), || (open() == 0).then_some(()));
        let cpu_secs = pair.cpu_secs().map(|after| after.since(before));
        let left = open();
        echo.stop.store(true, Ordering::Relaxed);
        finish(answering)?;
        Ok(Churned { cpu_secs: cpu_secs?, failed: driven?, left })
    })
}

/// The target: gives back what it gets until its session ends.
#[derive(Debug, Default)]
struct Echo {
    accepted: AtomicUsize,
    ended: AtomicUsize,
    stop: AtomicBool,
}

impl Echo {
    fn run(&self, listener: &TcpListener) -> Result<()> {
        const LISTENER: u64 = u64::MAX;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        let mut events = [EpollEvent::empty(); 128];
        let mut streams: Vec<Option<TcpStream>> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let ready = epoll.wait(&mut events, 20u8)?;
            for event in &events[..ready] {
                if event.data() == LISTENER {
                    self.accept(listener, &epoll, &mut streams)?;
                    continue;
                }
                let slot = &mut streams[index(event)];
                if slot.as_ref().is_some_and(|stream| !still_answers(stream)) {
                    *slot = None;
                    self.ended.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    fn accept(
        &self,
        listener: &TcpListener,
        epoll: &Epoll,
        streams: &mut Vec<Option<TcpStream>>,
    ) -> Result<()> {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, streams.len() as u64))?;
                    streams.push(Some(stream));
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error).context("accept as a target"),
            }
        }
    }
}

fn still_answers(mut stream: &TcpStream) -> bool {
    let mut chunk = [0; 1024];
    match stream.read(&mut chunk) {
        Ok(0) => false,
        Ok(n) => stream.write_all(&chunk[..n]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// All sessions of the client side, in one epoll.
struct Driver {
    proxy: SockaddrStorage,
    request: Vec<u8>,
    close: Close,
    count: usize,
    started: usize,
    failed: usize,
    epoll: Epoll,
    slots: Vec<Option<Session>>,
}

struct Session {
    stream: TcpStream,
    stage: Expect,
    input: Vec<u8>,
}

/// What a session waits for.
enum Expect {
    Connect,
    Choice,
    Reply,
    Echo { payload: [u8; PAYLOAD_BYTES] },
}

impl Driver {
    fn new(proxy: SocketAddr, target: SocketAddr, count: usize, close: Close) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let slots = std::iter::repeat_with(|| None).take(IN_FLIGHT.min(count)).collect();
        let (proxy, request) = (SockaddrStorage::from(proxy), socks::request(target));
        Ok(Self { proxy, request, close, count, started: 0, failed: 0, epoll, slots })
    }

    /// Says how many sessions failed.
    fn run(mut self) -> Result<usize> {
        for slot in 0..self.slots.len() {
            self.begin(slot)?;
        }
        let mut events = [EpollEvent::empty(); IN_FLIGHT];
        while self.slots.iter().any(Option::is_some) {
            let ready = self.epoll.wait(&mut events, 20_000u16)?;
            if ready == 0 {
                let stuck = self.slots.iter().flatten().count();
                return Ok(self.failed + stuck + self.count - self.started);
            }
            for slot in events[..ready].iter().map(index) {
                self.advance(slot)?;
            }
        }
        Ok(self.failed)
    }

    fn begin(&mut self, slot: usize) -> Result<()> {
        if self.started == self.count {
            return Ok(());
        }
        self.started += 1;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        socket::setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        match socket::connect(socket.as_raw_fd(), &self.proxy) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => bail!("connect to the proxy: {error}"),
        }
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.epoll.add(&socket, EpollEvent::new(flags, slot as u64))?;
        let stream = TcpStream::from(socket);
        self.slots[slot] = Some(Session { stream, stage: Expect::Connect, input: Vec::new() });
        Ok(())
    }

    fn advance(&mut self, slot: usize) -> Result<()> {
        let Some(session) = &mut self.slots[slot] else { return Ok(()) };
        let done = session.advance(&self.request, self.started as u64);
        if matches!(done, Ok(false)) {
            return Ok(());
        }
        self.failed += usize::from(done.is_err());
        if self.close == Close::Rst {
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            socket::setsockopt(&session.stream, sockopt::Linger, &at_once)?;
        }
        self.slots[slot] = None;
        self.begin(slot)
    }
}

impl Session {
    /// Goes on as far as the bytes allow; `true` when the echo is back.
    fn advance(&mut self, request: &[u8], number: u64) -> Result<bool> {
        let mut chunk = [0; 256];
        match self.stream.read(&mut chunk) {
            Ok(0) => bail!("the proxy ended the session"),
            Ok(n) => self.input.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        match self.stage {
            Expect::Connect => {
                self.stream.write_all(&socks::GREETING)?;
                self.stage = Expect::Choice;
            }
            Expect::Choice if self.input.len() >= 2 => {
                ensure!(self.input == [5, 0], "another login");
                self.input.clear();
                self.stream.write_all(request)?;
                self.stage = Expect::Reply;
            }
            Expect::Reply
                if self.input.len() >= 4 && self.input.len() >= socks::reply_bytes(&self.input)? =>
            {
                self.input.clear();
                let mut payload = [9; PAYLOAD_BYTES];
                payload[..8].copy_from_slice(&number.to_le_bytes());
                self.stream.write_all(&payload)?;
                self.stage = Expect::Echo { payload };
            }
            Expect::Echo { payload } if self.input.len() >= PAYLOAD_BYTES => {
                ensure!(self.input == payload, "other bytes came back");
                return Ok(true);
            }
            Expect::Choice | Expect::Reply | Expect::Echo { .. } => {}
        }
        Ok(false)
    }
}
