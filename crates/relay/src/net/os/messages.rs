//! Many datagrams in one system call, each with its own addresses and its own size of pieces. The other file that may speak to the
//! operating system without the compiler's protection.
//!
//! Everything that the kernel reads or writes besides the datagrams is laid out here as bytes, on the stack, anew for each call.

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::slice::ChunksMut;

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

use super::datagram::{Family, Message};
use crate::limits::MESSAGES_MAX;
use crate::net::datagram::Filled;

/// `struct sockaddr_in` or `struct sockaddr_in6`.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
struct Name([u8; 28]);

/// Control messages of one message: at most a packet info and a size of pieces.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES as usize]);

/// Receives into the first `N` of `slots`, one message each, and tells of each that is filled. Gives their number, which is not nought.
pub(super) fn receive<const N: usize>(
    socket: BorrowedFd<'_>,
    slots: ChunksMut<'_, u8>,
    told: impl FnMut(Filled),
) -> io::Result<usize> {
    let mut names = [Name([0; 28]); N];
    let mut controls = [Control([0; CONTROL_BYTES as usize]); N];
    let mut pieces = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; N];
    let mut headers = empty_headers::<N>();
    let mut wanted = 0;
    let places = headers.iter_mut().zip(&mut names).zip(&mut controls).zip(&mut pieces);
    for ((((header, name), control), piece), slot) in places.zip(slots) {
        *piece = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        header.msg_hdr.msg_name = (&raw mut *name).cast();
        header.msg_hdr.msg_namelen = NAME_BYTES.into();
        header.msg_hdr.msg_iov = piece;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = (&raw mut *control).cast();
        header.msg_hdr.msg_controllen = CONTROL_BYTES.into();
        wanted += 1;
    }
    #[expect(
        unsafe_code,
        reason = "no library receives many messages with what the kernel says about each, again and again"
    )]
    // SAFETY: the first `wanted` headers point at a name, a control buffer and one piece each, of the lengths that they say; the pieces
    // are slices that are borrowed mutably, and exclusively, beyond this call. All of it outlives the call, and nobody else looks at it
    // meanwhile. No time-out is given.
    let received =
        unsafe { libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), wanted, 0, std::ptr::null_mut()) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let filled = headers.iter().zip(&names).zip(&controls).take(received);
    filled.map(|((header, name), control)| understand(header, name, control)).for_each(told);
    Ok(received)
}

/// Sends `messages`, as many as go before one does not. Gives their number; an error is that of the first.
pub(super) fn send(socket: BorrowedFd<'_>, family: Family, messages: &[Message<'_>]) -> io::Result<usize> {
    // Kilobytes that need not be cleared for one message.
    if messages.len() <= FEW {
        send_up_to::<FEW>(socket, family, messages)
    } else {
        send_up_to::<MESSAGES_MAX>(socket, family, messages)
    }
}

fn send_up_to<const N: usize>(
    socket: BorrowedFd<'_>,
    family: Family,
    messages: &[Message<'_>],
) -> io::Result<usize> {
    let mut names = [Name([0; 28]); N];
    let mut controls = [Control([0; CONTROL_BYTES as usize]); N];
    let mut pieces = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; N];
    let mut headers = empty_headers::<N>();
    let mut wanted = 0;
    let places = headers.iter_mut().zip(&mut names).zip(&mut controls).zip(&mut pieces);
    for ((((header, name), control), piece), message) in places.zip(messages) {
        *piece =
            libc::iovec { iov_base: message.bytes.as_ptr().cast_mut().cast(), iov_len: message.bytes.len() };
        header.msg_hdr.msg_iov = piece;
        header.msg_hdr.msg_iovlen = 1;
        if let Some(to) = message.to {
            header.msg_hdr.msg_namelen = name.set(to, family).into();
            header.msg_hdr.msg_name = (&raw mut *name).cast();
        }
        let used = control.set(message, family);
        if used > 0 {
            header.msg_hdr.msg_controllen = used.into();
            header.msg_hdr.msg_control = (&raw mut *control).cast();
        }
        wanted += 1;
    }
    #[expect(unsafe_code, reason = "no library sends many messages with control messages of their own")]
    // SAFETY: the first `wanted` headers point at one piece each, and at a name and a control buffer where they give a length for them;
    // all are as long as they say and outlive the call. The kernel only reads what pieces of this direction point at.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), wanted, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Whether the network may cut datagrams of this socket that are too long for it.
pub(super) fn set_fragments(socket: impl AsFd, family: Family, allowed: bool) -> io::Result<()> {
    let v4 = if allowed { Ipv4PathMtuDiscovery::DONT } else { Ipv4PathMtuDiscovery::DO };
    let v6 = if allowed { Ipv6PathMtuDiscovery::DONT } else { Ipv6PathMtuDiscovery::DO };
    if family == Family::V6 {
        sockopt::set_ipv6_mtu_discover(&socket, v6)?;
    }
    // An IPv6 socket may send over IPv4 as well.
    Ok(sockopt::set_ip_mtu_discover(&socket, v4)?)
}

/// Whether that has been allowed.
pub(super) fn may_fragment(socket: impl AsFd) -> io::Result<bool> {
    Ok(sockopt::ip_mtu_discover(socket)? != Ipv4PathMtuDiscovery::DO)
}

/// Asks the kernel to tell which of our addresses a datagram came to.
pub(super) fn tell_local(socket: impl AsFd, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        Family::V6 => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// Asks the kernel to put datagrams of one size together.
pub(super) fn join_segments(socket: impl AsFd) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Whether this kernel cuts runs into pieces. One that does not would send them as one datagram.
pub(super) fn cuts_segments(socket: impl AsFd) -> bool {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

pub(super) fn set_option(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    #[expect(unsafe_code, reason = "no safe wrapper in the tree has these options")]
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `len` bytes of `value`, which lives until the
    // call returns.
    let outcome = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn empty_headers<const N: usize>() -> [libc::mmsghdr; N] {
    #[expect(unsafe_code, reason = "the struct has fields without names on some systems, and no default")]
    // SAFETY: all of it are numbers and raw pointers, for which zero is a value: no name, no pieces, no control messages.
    unsafe {
        zeroed()
    }
}

fn understand(header: &libc::mmsghdr, name: &Name, control: &Control) -> Filled {
    let Told { local, segment } = control.told(len_of(header.msg_hdr.msg_controllen));
    let len = usize::try_from(header.msg_len).unwrap_or(0);
    let is_truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
    Filled { source: name.address(), local, len, segment, is_truncated }
}

/// Its type differs between C libraries.
fn len_of(len: impl TryInto<usize>) -> usize {
    len.try_into().unwrap_or(0)
}

impl Name {
    /// Writes an address, and gives its length.
    fn set(&mut self, address: SocketAddr, family: Family) -> u8 {
        match (address, family) {
            (SocketAddr::V4(address), Family::V4) => {
                self.0[..2].copy_from_slice(&family_bytes(libc::AF_INET));
                self.0[2..4].copy_from_slice(&address.port().to_be_bytes());
                self.0[4..8].copy_from_slice(&address.ip().octets());
                16
            }
            (SocketAddr::V4(address), Family::V6) => {
                self.set_v6(SocketAddrV6::new(address.ip().to_ipv6_mapped(), address.port(), 0, 0))
            }
            // A socket of the other family says so itself.
            (SocketAddr::V6(address), Family::V4 | Family::V6) => self.set_v6(address),
        }
    }

    fn set_v6(&mut self, address: SocketAddrV6) -> u8 {
        self.0[..2].copy_from_slice(&family_bytes(libc::AF_INET6));
        self.0[2..4].copy_from_slice(&address.port().to_be_bytes());
        self.0[8..24].copy_from_slice(&address.ip().octets());
        self.0[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
        28
    }

    fn address(&self) -> SocketAddr {
        let port = u16::from_be_bytes(take(&self.0, 2));
        if take(&self.0, 0) == family_bytes(libc::AF_INET) {
            return SocketAddrV4::new(Ipv4Addr::from(take::<4>(&self.0, 4)), port).into();
        }
        let ip = Ipv6Addr::from(take::<16>(&self.0, 8));
        match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddrV4::new(ip, port).into(),
            None => SocketAddrV6::new(ip, port, 0, u32::from_ne_bytes(take(&self.0, 24))).into(),
        }
    }
}

/// What the kernel has said about a message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    local: Option<IpAddr>,
    segment: usize,
}

// A control message is a `struct cmsghdr` and its data, each padded to the alignment of `size_t`:
//
//   | length of head and data: size_t | level: int | type: int | data ... |
impl Control {
    /// Writes what belongs to `message`, and gives the length.
    fn set(&mut self, message: &Message<'_>, family: Family) -> u8 {
        let mut used = 0;
        match (message.from, family) {
            // `struct in_pktinfo`: the interface, the address to send from, and one that is only told.
            (Some(IpAddr::V4(from)), Family::V4) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&from.octets());
                used = self.add(used, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            // `struct in6_pktinfo`: the address to send from and the interface.
            (Some(from), Family::V6) => {
                let mut info = [0; 20];
                let from = match from {
                    IpAddr::V4(from) => from.to_ipv6_mapped(),
                    IpAddr::V6(from) => from,
                };
                info[..16].copy_from_slice(&from.octets());
                used = self.add(used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            // No address of such a socket.
            (Some(IpAddr::V6(_)), Family::V4) | (None, _) => {}
        }
        if let Some(segment) = message.segment {
            used = self.add(used, libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        u8::try_from(used).unwrap_or(CONTROL_BYTES)
    }

    fn add(&mut self, at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
        let end = at + HEAD_BYTES + data.len();
        self.0[at..at + WORD].copy_from_slice(&(HEAD_BYTES + data.len()).to_ne_bytes());
        self.0[at + WORD..at + WORD + 4].copy_from_slice(&level.to_ne_bytes());
        self.0[at + WORD + 4..at + HEAD_BYTES].copy_from_slice(&kind.to_ne_bytes());
        self.0[at + HEAD_BYTES..end].copy_from_slice(data);
        end.next_multiple_of(WORD)
    }

    /// Reads what the kernel has written: `len` bytes.
    fn told(&self, len: usize) -> Told {
        let mut told = Told::default();
        let mut left = &self.0[..len.min(self.0.len())];
        while left.len() >= HEAD_BYTES {
            let len = usize::from_ne_bytes(take(left, 0));
            let Some(data) = left.get(HEAD_BYTES..len) else { break };
            let kind = (
                libc::c_int::from_ne_bytes(take(left, WORD)),
                libc::c_int::from_ne_bytes(take(left, WORD + 4)),
            );
            match (kind, data.len()) {
                // The address to answer from, which for a broadcast is not the one that was written to.
                ((libc::IPPROTO_IP, libc::IP_PKTINFO), 12..) => {
                    told.local = Some(Ipv4Addr::from(take::<4>(data, 4)).into());
                }
                ((libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), 20..) => {
                    told.local = Some(IpAddr::from(Ipv6Addr::from(take::<16>(data, 0))).to_canonical());
                }
                ((libc::SOL_UDP, libc::UDP_GRO), 4..) => {
                    let segment = libc::c_int::from_ne_bytes(take(data, 0));
                    told.segment = usize::try_from(segment).unwrap_or(0);
                }
                _ => {}
            }
            left = left.get(len.next_multiple_of(WORD)..).unwrap_or_default();
        }
        told
    }
}

/// `N` bytes from `at` on; whoever asks has checked that they are there.
fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("as many bytes as were asked for")
}

fn family_bytes(family: libc::c_int) -> [u8; 2] {
    libc::sa_family_t::try_from(family).unwrap_or(0).to_ne_bytes()
}

/// Messages that are few.
const FEW: usize = 2;

const WORD: usize = size_of::<usize>();
const HEAD_BYTES: usize = WORD + 8;
const NAME_BYTES: u8 = 28;

/// A packet info of IPv6 and a number, with their heads and padding.
const CONTROL_BYTES: u8 = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_written_as_they_are_read() {
        let cases = ["192.0.2.7:53", "[2001:db8::1]:443", "[fe80::1%7]:9", "[::1]:0", "0.0.0.0:65535"];
        for address in cases.map(|text| text.parse::<SocketAddr>().unwrap()) {
            for family in [Family::V4, Family::V6] {
                let mut name = Name([0; 28]);
                assert!(name.set(address, family) >= 16);
                assert_eq!(name.address(), address);
            }
        }
    }

    #[test]
    fn what_is_said_beside_a_message_reads_as_it_was_written() {
        for (from, family, local) in [
            (Some("192.0.2.7"), Family::V4, Some("192.0.2.7")),
            (Some("192.0.2.7"), Family::V6, Some("192.0.2.7")),
            (Some("2001:db8::1"), Family::V6, Some("2001:db8::1")),
            (Some("2001:db8::1"), Family::V4, None),
            (None, Family::V4, None),
        ] {
            let mut control = Control([0; CONTROL_BYTES as usize]);
            let from = from.map(|text| text.parse().unwrap());
            let message = Message { to: None, from, bytes: b"", segment: Some(1200) };
            let len = control.set(&message, family);
            // The size of pieces is told in another form than it is given in.
            let local = local.map(|text| text.parse().unwrap());
            assert_eq!(control.told(usize::from(len)), Told { local, segment: 0 });
            assert!(len.is_multiple_of(8));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_control_messages_panic(bytes in any::<[[u8; 32]; 2]>(), len in 0_usize..200, first in 0_usize..200) {
            let mut control = Control([0; CONTROL_BYTES as usize]);
            control.0.copy_from_slice(bytes.as_flattened());
            control.told(len);
            control.0[..WORD].copy_from_slice(&first.to_ne_bytes());
            control.told(len);
        }
    }
}
