//! The kernel's datagrams: one descriptor tells a worker of all its sockets, and one call moves many datagrams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::messages;
use crate::limits::{
    DOOR_BUFFER_BYTES, HOP_BUFFER_BYTES, INBOX_SLOTS, MESSAGES_MAX, NETWORK_ERRORS_MAX, SEGMENTED_BYTES_MAX,
    SEGMENTS_MAX, SOCKET_EVENTS_MAX,
};
use crate::net::datagram::{Backlog, Binding, Datagrams, Inbox, Parcel, Sent, SocketId};

/// The sockets of one worker, watched through one descriptor of its runtime.
#[derive(Debug)]
pub struct OsDatagrams {
    watch: AsyncFd<mio::Poll>,
    events: Events,
    sockets: Vec<Option<Held>>,
    /// Places in `sockets` that are free.
    free: Vec<usize>,
    /// How many sockets there have been.
    generation: u32,
    /// Whether the kernel cuts runs into datagrams.
    is_cutting: bool,
}

/// An open socket.
#[derive(Debug)]
struct Held {
    socket: UdpSocket,
    generation: u32,
    family: Family,
    /// It has one peer, so that the network's word about an earlier datagram comes in the place of a later one.
    is_connected: bool,
    /// The network may cut its datagrams.
    is_fragmenting: bool,
    /// The kernel cuts its runs.
    is_cutting: bool,
    /// It has been told ready, and not been drained since.
    is_told: bool,
    /// It has brought more than a few messages when it was received from last, or has not been yet.
    is_busy: bool,
}

/// Which addresses a socket understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    /// IPv4 addresses are written as IPv6 ones.
    V6,
}

/// One message to the kernel: a datagram, or a run of them that it cuts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) to: Option<SocketAddr>,
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "the routes choose it there"))]
    pub(super) from: Option<IpAddr>,
    pub(super) bytes: &'a [u8],
    /// Bytes of each datagram of a run but the last.
    pub(super) segment: Option<u16>,
}

/// Opens a door: `sockets` of them on one address, among which the kernel divides those who come. Elsewhere than on Linux it is one.
///
/// The first is bound alone, so that an address in use is an error; only then are the others let in beside it. A second process that
/// does as we do is therefore refused, while for TCP the same option would have let it in.
pub fn bind_door(address: SocketAddr, sockets: usize, fragments: bool) -> io::Result<Vec<UdpSocket>> {
    let first = door(address)?;
    first.bind(&address.into())?;
    let bound = first.local_addr()?;
    let mut opened = vec![first];
    if cfg!(target_os = "linux") && sockets > 1 {
        opened[0].set_reuse_port(true)?;
        for _ in 1..sockets {
            let other = door(address)?;
            other.set_reuse_port(true)?;
            other.bind(&bound)?;
            opened.push(other);
        }
    }
    for socket in &opened {
        let family = Family::of(address.ip());
        messages::set_fragments(socket, family, fragments)?;
        if address.ip().is_unspecified() {
            messages::tell_local(socket, family)?;
        }
    }
    Ok(opened.into_iter().map(Into::into).collect())
}

fn door(address: SocketAddr) -> io::Result<Socket> {
    let socket = udp_socket(address.ip())?;
    // The kernel gives what it allows, and that will do.
    let _ = socket.set_recv_buffer_size(DOOR_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(DOOR_BUFFER_BYTES);
    Ok(socket)
}

fn udp_socket(ip: IpAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(ip, 0));
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // A kernel that cannot gives one datagram after the other.
    let _ = messages::join_segments(&socket);
    Ok(socket)
}

impl OsDatagrams {
    /// No sockets yet. To be called on the worker's runtime.
    #[expect(unsafe_code, reason = "the runtime cannot see that a poll keeps its descriptor")]
    pub fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        // SAFETY: a mio::Poll owns one descriptor, gives the same one each time, and closes it only when dropped, which AsyncFd does
        // after it has stopped watching.
        let watch = unsafe { AsyncFd::register_with_interest(poll, tokio::io::Interest::READABLE) };
        let probe =
            udp_socket(Ipv4Addr::UNSPECIFIED.into()).or_else(|_| udp_socket(Ipv6Addr::UNSPECIFIED.into()))?;
        Ok(Self {
            watch: watch.map_err(io::Error::from)?,
            events: Events::with_capacity(SOCKET_EVENTS_MAX),
            sockets: Vec::new(),
            free: Vec::new(),
            generation: 0,
            is_cutting: messages::cuts_segments(&probe),
        })
    }

    /// Watches a socket of a door.
    pub fn adopt(&mut self, socket: UdpSocket) -> io::Result<SocketId> {
        let family = Family::of(socket.local_addr()?.ip());
        let is_fragmenting = messages::may_fragment(&socket)?;
        self.hold(socket, family, false, is_fragmenting)
    }

    fn hold(
        &mut self,
        socket: UdpSocket,
        family: Family,
        is_connected: bool,
        is_fragmenting: bool,
    ) -> io::Result<SocketId> {
        let place = self.place();
        let index = u32::try_from(place).map_err(io::Error::other)?;
        let fd = socket.as_raw_fd();
        self.watch.get_ref().registry().register(&mut SourceFd(&fd), Token(place), Interest::READABLE)?;
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let is_cutting = self.is_cutting;
        let (is_told, is_busy) = (false, true);
        let held = Some(Held {
            socket,
            generation,
            family,
            is_connected,
            is_fragmenting,
            is_cutting,
            is_told,
            is_busy,
        });
        match self.sockets.get_mut(place) {
            Some(free) => {
                *free = held;
                self.free.pop();
            }
            None => self.sockets.push(held),
        }
        Ok(SocketId { index, generation })
    }

    /// Where the next socket goes: the last of `free`, or the end.
    fn place(&mut self) -> usize {
        loop {
            match self.free.last() {
                // The table has been cut off before it.
                Some(place) if *place >= self.sockets.len() => self.free.pop(),
                Some(place) => return *place,
                None => return self.sockets.len(),
            };
        }
    }

    /// Gives the memory of a crowd back once it has gone.
    fn shrink(&mut self) {
        while let Some(None) = self.sockets.last() {
            self.sockets.pop();
        }
        if self.sockets.len() < self.sockets.capacity() / 4 {
            let len = self.sockets.len();
            self.free.retain(|place| *place < len);
            self.free.shrink_to(len);
            self.sockets.shrink_to(2 * len);
        }
    }

    fn held(&self, socket: SocketId) -> Option<&Held> {
        let held = self.sockets.get(usize::try_from(socket.index).ok()?)?.as_ref();
        held.filter(|held| held.generation == socket.generation)
    }

    fn held_mut(&mut self, socket: SocketId) -> Option<&mut Held> {
        let held = self.sockets.get_mut(usize::try_from(socket.index).ok()?)?.as_mut();
        held.filter(|held| held.generation == socket.generation)
    }
}

impl Datagrams for OsDatagrams {
    fn open(&mut self, binding: Binding) -> io::Result<SocketId> {
        let Binding::Outgoing { ip, peer, fragments, is_shared } = binding;
        let socket = udp_socket(ip)?;
        let family = Family::of(ip);
        messages::set_fragments(&socket, family, fragments)?;
        if family == Family::V6 {
            // The other family has a socket of its own.
            socket.set_only_v6(true)?;
        }
        socket.bind(&SocketAddr::new(ip, 0).into())?;
        if let Some(peer) = peer {
            // All that a client's targets send comes through this one, as fast as a hop can.
            let _ = socket.set_recv_buffer_size(if is_shared { DOOR_BUFFER_BYTES } else { HOP_BUFFER_BYTES });
            if is_shared {
                let _ = socket.set_send_buffer_size(DOOR_BUFFER_BYTES);
            }
            socket.connect(&peer.into())?;
        }
        self.hold(socket.into(), family, peer.is_some(), fragments)
    }

    fn close(&mut self, socket: SocketId) {
        if let (Some(_), Ok(place)) = (self.held(socket), usize::try_from(socket.index)) {
            // The kernel stops watching what is closed.
            self.sockets[place] = None;
            self.free.push(place);
            self.shrink();
        }
    }

    fn local_addr(&self, socket: SocketId) -> io::Result<SocketAddr> {
        self.held(socket).ok_or_else(closed)?.socket.local_addr()
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, ready: &mut Vec<SocketId>) -> Poll<io::Result<()>> {
        let Self { watch, events, sockets, .. } = self;
        let before = ready.len();
        loop {
            let mut guard = ready!(watch.poll_read_ready_mut(cx))?;
            match guard.get_inner_mut().poll(events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            let mut count = 0;
            for event in events.iter() {
                count += 1;
                let Token(place) = event.token();
                // The kernel says it at every arrival. Whoever cannot keep up must not be told ever more.
                let held = sockets.get_mut(place).and_then(Option::as_mut).filter(|held| !held.is_told);
                if let (Some(held), Ok(index)) = (held, u32::try_from(place)) {
                    held.is_told = true;
                    ready.push(SocketId { index, generation: held.generation });
                }
            }
            // Fewer than there was room for: whatever happens next makes the descriptor ready anew.
            if count < SOCKET_EVENTS_MAX {
                guard.clear_ready();
            }
            if ready.len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn receive(&mut self, socket: SocketId, inbox: &mut Inbox) -> io::Result<Backlog> {
        let held = self.held_mut(socket).ok_or_else(closed)?;
        let backlog = held.receive(inbox)?;
        held.is_told = backlog == Backlog::More;
        Ok(backlog)
    }

    fn send(&mut self, socket: SocketId, parcels: &[Parcel<'_>]) -> Sent {
        let mut sent = Sent::default();
        let Some(held) = self.held_mut(socket) else {
            sent.failed = parcels.iter().map(Parcel::count).sum();
            return sent;
        };
        let is_cutting = held.is_cutting;
        let mut posting = Posting { held, is_full: false, sent };
        let mut messages = parcels.iter().flat_map(|parcel| messages_of(parcel, is_cutting));
        let Some(first) = messages.next() else { return sent };
        match messages.next() {
            Some(second) => posting.deliver_all(&[first, second], messages),
            // As often as not it is one.
            None => posting.deliver(&[first]),
        }
        posting.sent
    }
}

impl Held {
    fn receive(&mut self, inbox: &mut Inbox) -> io::Result<Backlog> {
        let mut tries = 0;
        loop {
            let free = inbox.room();
            if free == 0 {
                return Ok(Backlog::More);
            }
            let (slots, told) = inbox.fill();
            let socket = self.socket.as_fd();
            // What is laid out for a message costs about as much as receiving it, and a client's own socket has one or two at a time.
            let (received, room) = if self.is_busy {
                (messages::receive::<INBOX_SLOTS>(socket, slots, told), free)
            } else {
                (messages::receive::<FEW>(socket, slots, told), free.min(FEW))
            };
            let error = match received {
                Ok(received) => {
                    self.is_busy = received >= FEW;
                    // A batch that came short has drained the socket. If it was the network's word about an earlier datagram that cut it
                    // short, then that word came meanwhile, and has made the socket ready anew.
                    return Ok(if received < room { Backlog::Drained } else { Backlog::More });
                }
                Err(error) => error,
            };
            match Trouble::of(&error) {
                Trouble::WouldBlock => return Ok(Backlog::Drained),
                Trouble::Interrupted => {}
                // Said once for each datagram that it is about; the next call receives.
                _ if tries < NETWORK_ERRORS_MAX => tries += 1,
                Trouble::Network | Trouble::TooLong => return Ok(Backlog::More),
                Trouble::NoRoom | Trouble::NoOffload | Trouble::Invalid | Trouble::Other => {
                    return Err(error);
                }
            }
        }
    }
}

/// Messages that are few for a socket.
const FEW: usize = 4;

/// A parcel as the kernel takes it.
fn messages_of<'p>(parcel: &Parcel<'p>, is_cutting: bool) -> impl Iterator<Item = Message<'p>> + use<'p> {
    let Parcel { to, from, bytes, segment } = *parcel;
    let (single, runs) = if segment == 0 || bytes.len() <= segment {
        (Some(Message { to, from, bytes, segment: None }), None)
    } else {
        let together = if is_cutting { SEGMENTS_MAX.min(SEGMENTED_BYTES_MAX / segment).max(1) } else { 1 };
        let runs = bytes.chunks(together * segment).map(move |run| {
            let segment = if run.len() > segment { u16::try_from(segment).ok() } else { None };
            Message { to, from, bytes: run, segment }
        });
        (None, Some(runs))
    };
    single.into_iter().chain(runs.into_iter().flatten())
}

/// Messages on their way into the kernel, through one socket.
struct Posting<'h> {
    held: &'h mut Held,
    /// The socket has no room for anything more.
    is_full: bool,
    sent: Sent,
}

impl Posting<'_> {
    fn deliver_all<'p>(&mut self, first: &[Message<'p>], others: impl Iterator<Item = Message<'p>>) {
        let nothing = Message { to: None, from: None, bytes: &[], segment: None };
        let mut batch = [nothing; MESSAGES_MAX];
        let mut count = 0;
        for message in first.iter().copied().chain(others) {
            batch[count] = message;
            count += 1;
            if count == MESSAGES_MAX {
                self.deliver(&batch);
                count = 0;
            }
        }
        self.deliver(&batch[..count]);
    }

    fn deliver(&mut self, mut messages: &[Message<'_>]) {
        let mut is_second_try = false;
        while let [first, others @ ..] = messages {
            if self.is_full {
                self.sent.crowded += count(messages);
                return;
            }
            let error = match messages::send(self.held.socket.as_fd(), self.held.family, messages) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(went) => {
                    let (gone, left) = messages.split_at(went.min(messages.len()));
                    self.sent.datagrams += count(gone);
                    (messages, is_second_try) = (left, false);
                    continue;
                }
                Err(error) => error,
            };
            match Trouble::of(&error) {
                Trouble::Interrupted => continue,
                Trouble::WouldBlock => {
                    self.is_full = true;
                    continue;
                }
                // It may be the network's word about an earlier datagram, which is said once.
                _ if self.held.is_connected && !is_second_try => {
                    is_second_try = true;
                    continue;
                }
                trouble if first.segment.is_some() => self.deliver_singly(first, trouble),
                Trouble::NoRoom => self.sent.crowded += 1,
                Trouble::TooLong => self.sent.oversized += 1,
                Trouble::Network | Trouble::NoOffload | Trouble::Invalid | Trouble::Other => {
                    self.sent.failed += 1;
                }
            }
            (messages, is_second_try) = (others, false);
        }
    }

    /// Sends the datagrams of a run that the kernel has not taken as one: it may be unable to cut it, or the datagrams are too long.
    fn deliver_singly(&mut self, run: &Message<'_>, trouble: Trouble) {
        let segment = run.segment.map_or(run.bytes.len(), usize::from).max(1);
        let single = |bytes| Message { bytes, segment: None, ..*run };
        let (head, rest) = run.bytes.split_at(segment.min(run.bytes.len()));
        let before = self.sent;
        self.deliver(&[single(head)]);
        let rest = rest.chunks(segment).map(single);
        if self.sent.oversized > before.oversized {
            for message in rest {
                // So is whatever is as long and goes there.
                if message.bytes.len() == segment {
                    self.sent.oversized += 1;
                } else {
                    self.deliver(&[message]);
                }
            }
            return;
        }
        let has_gone = self.sent.datagrams > before.datagrams;
        // Some kernels say the same about a datagram too long for the way, which goes alone where it may be cut there.
        let is_inability =
            trouble == Trouble::NoOffload || trouble == Trouble::Invalid && !self.held.is_fragmenting;
        if has_gone && is_inability {
            self.held.is_cutting = false;
        }
        self.deliver_all(&[], rest);
    }
}

fn count(messages: &[Message<'_>]) -> usize {
    messages.iter().map(Message::count).sum()
}

/// What an error of a datagram call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    WouldBlock,
    Interrupted,
    /// No memory for this one, in the system or in the device's queue.
    NoRoom,
    TooLong,
    /// The device cannot finish the heads of what would be cut.
    NoOffload,
    /// A run that this kernel does not cut, or an address that is none.
    Invalid,
    /// Something on the way to the peer, or the peer.
    Network,
    Other,
}

impl Trouble {
    fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::AGAIN) => Self::WouldBlock,
            Some(Errno::INTR) => Self::Interrupted,
            Some(Errno::NOBUFS | Errno::NOMEM) => Self::NoRoom,
            Some(Errno::MSGSIZE) => Self::TooLong,
            Some(Errno::IO) => Self::NoOffload,
            Some(Errno::INVAL) => Self::Invalid,
            Some(
                Errno::CONNREFUSED
                | Errno::CONNRESET
                | Errno::HOSTUNREACH
                | Errno::HOSTDOWN
                | Errno::NETUNREACH
                | Errno::NETDOWN
                | Errno::TIMEDOUT
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::ACCESS
                | Errno::PERM
                | Errno::OPNOTSUPP,
            ) => Self::Network,
            Some(_) | None => Self::Other,
        }
    }
}

impl Family {
    fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl Message<'_> {
    /// How many datagrams it is.
    fn count(&self) -> usize {
        self.segment.map_or(1, |segment| self.bytes.len().div_ceil(usize::from(segment).max(1)))
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;

    /// Sends runs over a socket with an option, to one that has none. Gives what became of each, the lengths of all that came, and
    /// whether the kernel is still asked to cut.
    fn send_with(
        ip: IpAddr,
        level: i32,
        option: i32,
        value: i32,
        fragments: bool,
        runs: &[(usize, usize)],
    ) -> (Vec<Sent>, Vec<usize>, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        let target = UdpSocket::bind((ip, 0)).unwrap();
        target.set_nonblocking(true).unwrap();
        let mut sockets = OsDatagrams::new().unwrap();
        let door = bind_door(SocketAddr::new(ip, 0), 1, fragments).unwrap().remove(0);
        messages::set_option(&door, level, option, value).unwrap();
        let door = sockets.adopt(door).unwrap();
        let bytes = vec![7; 60_000];
        let to = Some(target.local_addr().unwrap());
        let parcel =
            |(len, segment): (usize, usize)| Parcel { to, from: None, bytes: &bytes[..len], segment };
        let sent = runs.iter().map(|run| sockets.send(door, &[parcel(*run)])).collect();
        let mut room = vec![0; 70_000];
        let came = std::iter::from_fn(|| target.recv_from(&mut room).ok().map(|(len, _)| len)).collect();
        let is_cutting = sockets.held(door).unwrap().is_cutting;
        (sent, came, is_cutting)
    }

    fn went(datagrams: usize) -> Sent {
        Sent { datagrams, ..Sent::default() }
    }

    #[test]
    fn what_a_hop_sends_at_once_has_more_room_than_what_a_target_does() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _context = runtime.enter();
        let mut sockets = OsDatagrams::new().unwrap();
        let ip = Ipv4Addr::LOCALHOST.into();
        let hop = Some(SocketAddr::new(ip, 9));
        let [shared, to_hop, to_any] = [(hop, true), (hop, false), (None, false)].map(|(peer, is_shared)| {
            let binding = Binding::Outgoing { ip, peer, fragments: false, is_shared };
            let opened = sockets.open(binding).unwrap();
            let socket = socket2::SockRef::from(&sockets.held(opened).unwrap().socket);
            (socket.recv_buffer_size().unwrap(), socket.send_buffer_size().unwrap())
        });
        let ((to_hop, _), (to_any, unshared)) = (to_hop, to_any);
        let max = |of: &str| -> usize {
            std::fs::read_to_string(format!("/proc/sys/net/core/{of}")).unwrap().trim().parse().unwrap()
        };
        // The kernel counts what it adds itself.
        let [received, sent] = ["rmem_max", "wmem_max"].map(|of| 2 * DOOR_BUFFER_BYTES.min(max(of)));
        assert!(to_hop >= to_any.max(2 * HOP_BUFFER_BYTES.min(max("rmem_max"))), "{to_hop}, {to_any}");
        assert!(shared.0 >= to_hop.max(received) && shared.1 >= unshared.max(sent), "{shared:?}");
    }

    #[test]
    fn where_the_kernel_does_not_cut_every_datagram_goes_alone_and_it_is_not_asked_again() {
        // It cannot cut what has no checksum.
        let runs = [(1000, 300), (41, 1)];
        let (sent, came, is_cutting) =
            send_with(Ipv4Addr::LOCALHOST.into(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1, false, &runs);
        assert_eq!(sent, [went(4), went(41)]);
        assert_eq!(came, [&[300, 300, 300, 100][..], &[1; 41]].concat());
        assert!(!is_cutting);
    }

    #[test]
    fn pieces_too_long_for_the_way_are_counted_and_the_kernel_still_cuts_others() {
        let runs = [(5000, 1300), (5000, 1200), (1300, 0)];
        let (sent, came, is_cutting) =
            send_with(Ipv6Addr::LOCALHOST.into(), libc::IPPROTO_IPV6, libc::IPV6_MTU, 1280, false, &runs);
        assert_eq!(sent, [Sent { oversized: 3, ..went(1) }, went(5), Sent { oversized: 1, ..went(0) }]);
        assert_eq!(came, [1100, 1200, 1200, 1200, 1200, 200]);
        assert!(is_cutting);
    }

    #[test]
    fn what_is_too_long_for_the_way_is_cut_there_where_that_is_allowed() {
        let runs = [(5000, 0), (5000, 2000), (5000, 1200)];
        let (sent, came, is_cutting) =
            send_with(Ipv6Addr::LOCALHOST.into(), libc::IPPROTO_IPV6, libc::IPV6_MTU, 1280, true, &runs);
        assert_eq!(sent, [went(1), went(3), went(5)]);
        assert_eq!(came, [5000, 2000, 2000, 1000, 1200, 1200, 1200, 1200, 200]);
        assert!(is_cutting);
    }
}
