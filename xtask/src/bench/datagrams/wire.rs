//! Datagrams by the batch, as programs move them that care for speed.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

/// A socket that takes runs which the kernel has put together (`UDP_GRO`).
#[derive(Debug)]
pub(crate) struct Wire {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// What came with one call, and the room for it. One serves many sockets.
#[derive(Debug)]
pub(crate) struct Inbox {
    room: Vec<u8>,
    datagrams: Vec<(SocketAddr, Range<usize>)>,
}

/// Runs that one call takes.
const SLOTS: usize = 16;

/// As long as a run can be.
const SLOT_BYTES: usize = 64 * 1024;

/// Datagrams that one call sends.
const SENT_MAX: usize = 64;

/// Enough that nothing is lost at the ends of the load, which would be blamed on the proxies.
const BUFFER_BYTES: usize = 4 << 20;

impl Wire {
    /// A socket with room for everything that may be in flight.
    pub(crate) fn new(socket: UdpSocket) -> Result<Self> {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
        setsockopt(&socket, sockopt::SndBuf, &BUFFER_BYTES)?;
        let state = UdpSocketState::new((&socket).into()).context("the options of a socket")?;
        Ok(Self { socket, state })
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Takes what waits, at most a batch of it, and says how many datagrams that was.
    pub(crate) fn receive(&self, inbox: &mut Inbox) -> Result<usize> {
        inbox.datagrams.clear();
        let mut metas = [RecvMeta::default(); SLOTS];
        let mut slots = inbox.room.chunks_mut(SLOT_BYTES);
        let mut slots: [_; SLOTS] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().expect("there is room for every slot")));
        let count = match self.state.recv((&self.socket).into(), &mut slots, &mut metas) {
            Ok(count) => count,
            Err(error) if is_nothing(&error) => 0,
            Err(error) => return Err(error).context("receive"),
        };
        for (slot, meta) in metas[..count].iter().enumerate() {
            let (start, end) = (slot * SLOT_BYTES, slot * SLOT_BYTES + meta.len);
            let step = meta.stride.max(1);
            let pieces = (start..end).step_by(step).map(|at| at..end.min(at + step));
            inbox.datagrams.extend(pieces.map(|piece| (meta.addr, piece)));
        }
        Ok(inbox.datagrams.len())
    }

    /// Waits until something is there to be received, or `patience` has passed.
    pub(crate) fn wait(&self, patience: Duration) -> Result<bool> {
        let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(patience).context("a patience that poll can hold")?;
        Ok(poll(&mut waiting, timeout)? == 1)
    }

    /// Sends each datagram by itself, to where it says or to where the socket is connected; how many went.
    #[expect(single_use_lifetimes, reason = "a lifetime inside impl cannot be left out")]
    pub(crate) fn send<'a>(
        &self,
        datagrams: impl Iterator<Item = (Option<SocketAddr>, &'a [u8])>,
    ) -> Result<usize> {
        let (mut targets, mut payloads) = (Vec::new(), Vec::new());
        for (target, payload) in datagrams {
            targets.push(target.map(|target| target.as_any()));
            payloads.push([IoSlice::new(payload)]);
        }
        let mut sent = 0;
        while sent < payloads.len() {
            match self.send_some(&targets[sent..], &payloads[sent..]) {
                Ok(count) => sent += count,
                Err(error) if is_nothing(&error) => break,
                Err(error) => return Err(error).context("send"),
            }
        }
        Ok(sent)
    }

    fn send_some(
        &self,
        targets: &[Option<SocketAddrAny>],
        payloads: &[[IoSlice<'_>; 1]],
    ) -> io::Result<usize> {
        // Often it is a few, which should not cost as much as many.
        let count = payloads.len().min(SENT_MAX);
        let mut controls: Vec<_> = (0..count).map(|_| SendAncillaryBuffer::default()).collect();
        let parts = targets.iter().zip(payloads).zip(&mut controls);
        let mut messages: Vec<_> = parts
            .map(|((target, payload), control)| match target {
                Some(target) => MMsgHdr::new_with_addr(target, payload, control),
                None => MMsgHdr::new(payload, control),
            })
            .collect();
        Ok(sendmmsg(&self.socket, &mut messages, SendFlags::empty())?)
    }

    /// Sends `run` as datagrams of `segment_bytes` that the kernel cuts (`UDP_SEGMENT`).
    pub(crate) fn send_run(&self, run: &[u8], segment_bytes: usize, destination: SocketAddr) -> Result<bool> {
        let transmit = Transmit {
            destination,
            ecn: None,
            contents: run,
            segment_size: Some(segment_bytes),
            src_ip: None,
        };
        match self.state.try_send((&self.socket).into(), &transmit) {
            Ok(()) => Ok(true),
            Err(error) if is_nothing(&error) => Ok(false),
            Err(error) => Err(error).context("send a run"),
        }
    }
}

impl Inbox {
    /// Room for one batch.
    pub(crate) fn new() -> Self {
        Self { room: vec![0; SLOTS * SLOT_BYTES], datagrams: Vec::new() }
    }

    /// What came, with its sources.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.datagrams.iter().map(|(from, range)| (*from, &self.room[range.clone()]))
    }
}

/// Nothing there, no room, or word of a datagram from before that met a closed port.
fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, WouldBlock};
    matches!(error.kind(), WouldBlock | ConnectionRefused)
}
