//! The kernel's datagrams, over loopback.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use umbra_relay::net::datagram::{Backlog, Binding, Datagrams, Inbox, Parcel, Sent, SocketId};
use umbra_relay::net::os::datagram::{OsDatagrams, bind_door};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A datagram as it came.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    source: SocketAddr,
    local: Option<IpAddr>,
    bytes: Vec<u8>,
}

/// A worker's sockets, one of which is a door.
struct Bench {
    sockets: OsDatagrams,
    inbox: Inbox,
    ready: Vec<SocketId>,
    door: SocketId,
    address: SocketAddr,
    came: VecDeque<Came>,
}

impl Bench {
    fn at(ip: impl Into<IpAddr>) -> Self {
        let mut sockets = OsDatagrams::new().unwrap();
        let opened = bind_door(SocketAddr::new(ip.into(), 0), 1, false).unwrap();
        let door = sockets.adopt(opened.into_iter().next().unwrap()).unwrap();
        let address = sockets.local_addr(door).unwrap();
        Self { sockets, inbox: Inbox::new(), ready: Vec::new(), door, address, came: VecDeque::new() }
    }

    fn outgoing(&mut self, ip: IpAddr, peer: Option<SocketAddr>) -> SocketId {
        self.sockets.open(Binding::Outgoing { ip, peer, fragments: false }).unwrap()
    }

    /// The next datagram of `socket`, having waited for it.
    async fn next(&mut self, socket: SocketId) -> Came {
        while self.came.is_empty() {
            self.wait().await;
            assert_eq!(std::mem::take(&mut self.ready), [socket]);
            self.drain(socket).unwrap();
        }
        self.came.pop_front().unwrap()
    }

    async fn wait(&mut self) {
        let Self { sockets, ready, .. } = self;
        let told = poll_fn(|cx| sockets.poll_ready(cx, ready));
        tokio::time::timeout(Duration::from_secs(5), told).await.expect("a socket is ready").unwrap();
    }

    fn drain(&mut self, socket: SocketId) -> io::Result<usize> {
        let before = self.came.len();
        loop {
            let backlog = self.sockets.receive(socket, &mut self.inbox)?;
            self.came.extend(self.inbox.datagrams().map(|received| Came {
                source: received.source,
                local: received.local,
                bytes: received.bytes.to_vec(),
            }));
            if backlog == Backlog::Drained {
                return Ok(self.came.len() - before);
            }
        }
    }
}

fn parcel(to: SocketAddr, bytes: &[u8], segment: usize) -> Parcel<'_> {
    Parcel { to: Some(to), from: None, bytes, segment }
}

fn went(datagrams: usize) -> Sent {
    Sent { datagrams, ..Sent::default() }
}

/// Bytes that tell where they are from.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[tokio::test]
async fn a_batch_arrives_whole_and_in_order() {
    let mut bench = Bench::at(V4);
    let out = bench.outgoing(V4, None);
    let source = bench.sockets.local_addr(out).unwrap();
    let numbers: Vec<_> = (0..200_u8).map(|number| [number; 30]).collect();
    let parcels: Vec<_> = numbers.iter().map(|bytes| parcel(bench.address, bytes, 0)).collect();
    assert_eq!(bench.sockets.send(out, &parcels), went(200));
    for number in &numbers {
        assert_eq!(bench.next(bench.door).await, Came { source, local: None, bytes: number.to_vec() });
    }
}

#[tokio::test]
async fn a_run_is_cut_and_one_put_together_is_taken_apart_with_its_shorter_end() {
    let mut bench = Bench::at(V4);
    let out = bench.outgoing(V4, Some(bench.address));
    let bytes = pattern(10 * 1200 + 7);
    let run = Parcel { to: None, from: None, bytes: &bytes, segment: 1200 };
    assert_eq!(bench.sockets.send(out, &[run]), went(11));
    for piece in bytes.chunks(1200) {
        assert_eq!(bench.next(bench.door).await.bytes, piece);
    }
}
