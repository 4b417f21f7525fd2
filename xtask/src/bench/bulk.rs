//! Bytes as fast as they go: a source and a sink on the load's core, each with all flows in one epoll.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, recv};

/// One way through a proxy.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Where bytes are written.
    pub(crate) source: TcpStream,
    /// Where they come out.
    pub(crate) sink: TcpStream,
}

/// What went through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carried {
    /// Bytes that came out, which are as many as went in.
    pub(crate) bytes: u64,
    /// From the first write to the last end of stream.
    pub(crate) wall: Duration,
}

/// Writes `write_bytes` at a time into every flow for `time`, ends them, and waits until the last byte is out.
pub(crate) fn carry(flows: &[Flow], write_bytes: usize, time: Duration) -> Result<Carried> {
    let started = Instant::now();
    let (written, arrived) = thread::scope(|scope| {
        let sink = scope.spawn(|| drain(flows));
        let written = fill(flows, write_bytes, time);
        let arrived = finish(sink);
        (written, arrived)
    });
    let (written, arrived) = (written?, arrived?);
    ensure!(written == arrived, "{written} bytes were written and {arrived} arrived");
    Ok(Carried { bytes: arrived, wall: started.elapsed() })
}

fn fill(flows: &[Flow], write_bytes: usize, time: Duration) -> Result<u64> {
    let payload: Vec<u8> = (0..=250).cycle().take(write_bytes).collect();
    let epoll = watch(flows.iter().map(|flow| &flow.source), EpollFlags::EPOLLOUT)?;
    let mut events = [EpollEvent::empty(); 64];
    let deadline = Instant::now() + time;
    let mut total = 0;
    while Instant::now() < deadline {
        let ready = epoll.wait(&mut events, 100u16)?;
        for event in &events[..ready] {
            match (&flows[index(event)].source).write(&payload) {
                Ok(n) => total += n as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("write into a flow"),
            }
        }
    }
    for flow in flows {
        flow.source.shutdown(Shutdown::Write).context("end a flow")?;
    }
    Ok(total)
}

fn drain(flows: &[Flow]) -> Result<u64> {
    let epoll = watch(flows.iter().map(|flow| &flow.sink), EpollFlags::EPOLLIN)?;
    let mut events = [EpollEvent::empty(); 64];
    let mut chunk = vec![0; 1 << 20];
    let (mut open, mut total) = (flows.len(), 0);
    while open > 0 {
        let ready = epoll.wait(&mut events, 20_000u16)?;
        ensure!(ready > 0, "nothing arrived for 20 s on {open} flows after {total} bytes");
        for event in &events[..ready] {
            let sink = &flows[index(event)].sink;
            // MSG_TRUNC takes the bytes off the socket without a copy, so that the sink costs next to nothing.
            match recv(sink.as_raw_fd(), &mut chunk, MsgFlags::MSG_TRUNC) {
                Ok(0) => {
                    epoll.delete(sink)?;
                    open -= 1;
                }
                Ok(n) => total += n as u64,
                Err(Errno::EAGAIN) => {}
                Err(error) => bail!("read from a flow: {error}"),
            }
        }
    }
    Ok(total)
}

/// An epoll over sockets, each told apart by its place in the list.
#[expect(single_use_lifetimes, reason = "a lifetime inside impl cannot be left out")]
pub(crate) fn watch<'a>(sockets: impl Iterator<Item = &'a TcpStream>, flags: EpollFlags) -> Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (at, socket) in sockets.enumerate() {
        socket.set_nonblocking(true)?;
        epoll.add(socket, EpollEvent::new(flags, at as u64))?;
    }
    Ok(epoll)
}

/// The place in the list that [`watch`] was given.
pub(crate) fn index(event: &EpollEvent) -> usize {
    usize::try_from(event.data()).expect("it was made from a usize")
}

/// What a thread of the load has to say.
pub(crate) fn finish<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("a thread of the load panicked"))
}
