//! The kernel's datagrams, over loopback.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use umbra_relay::net::datagram::{Backlog, Binding, Datagrams, Inbox, Parcel, Sent, SocketId};
use umbra_relay::net::os::datagram::{OsDatagrams, bind_door};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

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
        self.sockets.open(Binding::Outgoing { ip, peer, fragments: false, is_shared: false }).unwrap()
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
            self.inbox.clear();
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

    async fn lengths(&mut self, socket: SocketId, count: usize) -> Vec<usize> {
        let mut lengths = Vec::new();
        for _ in 0..count {
            lengths.push(self.next(socket).await.bytes.len());
        }
        assert!(self.came.is_empty());
        lengths
    }
}

fn parcel(to: SocketAddr, bytes: &[u8], segment: usize) -> Parcel<'_> {
    Parcel { to: Some(to), from: None, bytes, segment }
}

fn went(datagrams: usize) -> Sent {
    Sent { datagrams, ..Sent::default() }
}

/// A socket as others have it.
fn plain(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
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

#[tokio::test]
async fn segments_of_an_unequal_end_come_as_they_were_sent_in_one_call() {
    let mut bench = Bench::at(V4);
    let out = bench.outgoing(V4, None);
    let bytes = pattern(70_000);
    // More pieces than go in one run, more bytes than go in one run, one piece, none, and pieces of one byte.
    let cases: &[(usize, usize)] =
        &[(200 * 10 + 3, 10), (70_000, 1400), (5, 9), (0, 0), (0, 7), (64, 1), (65, 1), (40_000, 39_999)];
    for (len, segment) in cases {
        let run = parcel(bench.address, &bytes[..*len], *segment);
        assert_eq!(bench.sockets.send(out, &[run]), went(run.count()));
        let mut expected: Vec<_> = bytes[..*len].chunks((*segment).max(1)).map(<[u8]>::len).collect();
        if *len == 0 {
            expected.push(0);
        }
        assert_eq!(bench.lengths(bench.door, expected.len()).await, expected, "{len} bytes by {segment}");
    }
}

#[tokio::test]
async fn one_call_sends_runs_and_single_datagrams_to_several_places() {
    let mut bench = Bench::at(V4);
    let others: Vec<_> = (0..3).map(|_| plain(V4)).collect();
    let bytes = pattern(3000);
    let mut parcels = Vec::new();
    for _ in 0..4 {
        for (other, segment) in others.iter().zip([0, 100, 999]) {
            parcels.push(parcel(other.local_addr().unwrap(), &bytes, segment));
        }
    }
    assert_eq!(bench.sockets.send(bench.door, &parcels), went(4 * (1 + 30 + 4)));
    let mut room = [0; 4000];
    for (other, lengths) in others.iter().zip([&[3000][..], &[100; 30], &[999, 999, 999, 3]]) {
        for len in std::iter::repeat_n(lengths, 4).flatten() {
            assert_eq!(other.recv_from(&mut room).unwrap(), (*len, bench.address));
        }
    }
}

#[tokio::test]
async fn the_longest_datagram_goes_through_and_a_longer_one_is_counted() {
    let mut bench = Bench::at(V4);
    let out = bench.outgoing(V4, None);
    let bytes = pattern(65_508);
    let mut parcels = vec![parcel(bench.address, &bytes[..65_507], 0)];
    parcels.push(parcel(bench.address, &bytes, 0));
    parcels.push(parcel(bench.address, &bytes[..9], 0));
    let sent = bench.sockets.send(out, &parcels);
    assert_eq!(sent, Sent { oversized: 1, ..went(2) });
    assert_eq!(bench.next(bench.door).await.bytes, &bytes[..65_507]);
    assert_eq!(bench.next(bench.door).await.bytes, &bytes[..9]);
    // The same over IPv6, whose head is longer.
    let mut bench = Bench::at(V6);
    let out = bench.outgoing(V6, Some(bench.address));
    let longest = Parcel { to: None, from: None, bytes: &bytes[..65_488], segment: 0 };
    assert_eq!(bench.sockets.send(out, &[longest]), went(1));
    assert_eq!(bench.next(bench.door).await.bytes.len(), 65_488);
}

#[tokio::test]
async fn a_run_whose_pieces_are_too_long_is_counted_and_its_end_goes() {
    let mut bench = Bench::at(V6);
    let out = bench.outgoing(V6, None);
    // Two pieces of 65 500 bytes do not fit the way, nor a run; what remains does.
    let bytes = pattern(2 * 65_500 + 11);
    let run = parcel(bench.address, &bytes, 65_500);
    assert_eq!(bench.sockets.send(out, &[run]), Sent { oversized: 2, ..went(1) });
    assert_eq!(bench.next(bench.door).await.bytes.len(), 11);
}

#[tokio::test]
async fn a_refusal_of_the_peer_ends_nothing() {
    let mut bench = Bench::at(V4);
    let closed = plain(V4);
    let peer = closed.local_addr().unwrap();
    let out = bench.outgoing(V4, Some(peer));
    drop(closed);
    let one = Parcel { to: None, from: None, bytes: b"one", segment: 0 };
    let two = Parcel { to: None, from: None, bytes: b"twotwotw", segment: 3 };
    for _ in 0..10 {
        // Each is refused, and the word about it comes in the place of the next.
        assert_eq!(bench.sockets.send(out, &[one, two, one]), went(5));
    }
    assert_eq!(bench.drain(out).unwrap(), 0);
    // The peer is back.
    let peer = UdpSocket::bind(peer).unwrap();
    assert_eq!(bench.sockets.send(out, &[one]), went(1));
    let mut room = [0; 10];
    let (len, source) = peer.recv_from(&mut room).unwrap();
    peer.send_to(&room[..len], source).unwrap();
    assert_eq!(bench.next(out).await.bytes, b"one");
}

#[tokio::test]
async fn datagrams_before_and_after_a_refusal_are_told() {
    let mut bench = Bench::at(V4);
    let mut peer = plain(V4);
    let address = peer.local_addr().unwrap();
    let out = bench.outgoing(V4, Some(address));
    let source = bench.sockets.local_addr(out).unwrap();
    let one = Parcel { to: None, from: None, bytes: b"one", segment: 0 };
    for round in 0..50 {
        peer.send_to(&[round, 0], source).unwrap();
        drop(peer);
        assert_eq!(bench.sockets.send(out, &[one]), went(1));
        peer = UdpSocket::bind(address).unwrap();
        peer.send_to(&[round, 1], source).unwrap();
        assert_eq!(bench.next(out).await.bytes, [round, 0]);
        assert_eq!(bench.next(out).await.bytes, [round, 1]);
    }
}

#[tokio::test]
async fn an_answer_leaves_from_the_address_that_was_asked() {
    let asked = Ipv4Addr::new(127, 0, 0, 2);
    for ip in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
        let mut bench = Bench::at(ip);
        let client = plain(V4);
        let address = SocketAddr::new(asked.into(), bench.address.port());
        client.send_to(b"ask", address).unwrap();
        let came = bench.next(bench.door).await;
        let source = client.local_addr().unwrap();
        assert_eq!(came, Came { source, local: Some(asked.into()), bytes: b"ask".to_vec() });
        for (bytes, segment) in [(&b"answer"[..], 0), (b"answer", 4)] {
            let answer = Parcel { to: Some(source), from: came.local, bytes, segment };
            assert_eq!(bench.sockets.send(bench.door, &[answer]), went(answer.count()));
            for piece in bytes.chunks(if segment == 0 { 9 } else { segment }) {
                let mut room = [0; 9];
                let (len, from) = client.recv_from(&mut room).unwrap();
                assert_eq!((&room[..len], from), (piece, address));
            }
        }
    }
}

#[tokio::test]
async fn a_door_to_both_families_answers_each_from_where_it_was_asked() {
    let mut bench = Bench::at(Ipv6Addr::UNSPECIFIED);
    let client = plain(V6);
    let address = SocketAddr::new(V6, bench.address.port());
    client.send_to(b"ask", address).unwrap();
    let came = bench.next(bench.door).await;
    assert_eq!((came.source, came.local), (client.local_addr().unwrap(), Some(V6)));
    let answer = Parcel { to: Some(came.source), from: came.local, bytes: b"answer", segment: 0 };
    assert_eq!(bench.sockets.send(bench.door, &[answer]), went(1));
    let mut room = [0; 9];
    assert_eq!(client.recv_from(&mut room).unwrap(), (6, address));
}

#[tokio::test]
async fn what_was_put_together_tells_where_it_came_to() {
    let mut bench = Bench::at(Ipv6Addr::UNSPECIFIED);
    let out = bench.outgoing(V4, None);
    let to = SocketAddr::new(V4, bench.address.port());
    assert_eq!(bench.sockets.send(out, &[parcel(to, &pattern(95), 10)]), went(10));
    for _ in 0..10 {
        assert_eq!(bench.next(bench.door).await.local, Some(V4));
    }
}

#[tokio::test]
async fn a_closed_socket_means_nobody_though_its_place_is_taken_again() {
    let mut bench = Bench::at(V4);
    let first = bench.outgoing(V4, None);
    let address = bench.sockets.local_addr(first).unwrap();
    let sender = plain(V4);
    sender.send_to(b"late", address).unwrap();
    bench.wait().await;
    assert_eq!(std::mem::take(&mut bench.ready), [first]);
    bench.sockets.close(first);
    let second = bench.outgoing(V4, None);
    assert_eq!(first.index, second.index);
    assert_ne!(first, second);
    assert!(bench.drain(first).is_err());
    assert!(bench.sockets.local_addr(first).is_err());
    assert_eq!(bench.sockets.send(first, &[parcel(address, b"xyz", 1)]), Sent { failed: 3, ..went(0) });
    bench.sockets.close(first);
    assert!(bench.sockets.local_addr(second).is_ok());
    // What waits to be told of a socket that is closed is not told of its successor.
    let address = bench.sockets.local_addr(second).unwrap();
    sender.send_to(b"late", address).unwrap();
    bench.sockets.close(second);
    let third = bench.outgoing(V4, None);
    let to_third = bench.sockets.local_addr(third).unwrap();
    sender.send_to(b"right", to_third).unwrap();
    assert_eq!(bench.next(third).await.bytes, b"right");
}

#[tokio::test]
async fn many_sockets_are_told_by_one_wait() {
    let mut bench = Bench::at(V4);
    let sender = plain(V4);
    let mut sockets: Vec<_> = (0..600).map(|_| bench.outgoing(V4, None)).collect();
    for socket in &sockets {
        sender.send_to(b"x", bench.sockets.local_addr(*socket).unwrap()).unwrap();
    }
    let mut waits = 0;
    while bench.ready.len() < 600 {
        bench.wait().await;
        waits += 1;
    }
    assert!(waits <= 3, "{waits} waits");
    let mut told = std::mem::take(&mut bench.ready);
    told.sort_unstable_by_key(|socket| socket.index);
    sockets.sort_unstable_by_key(|socket| socket.index);
    assert_eq!(told, sockets);
}

#[tokio::test]
async fn no_wake_up_is_lost_however_batches_and_arrivals_meet() {
    let mut bench = Bench::at(V4);
    let address = bench.address;
    let sender = std::thread::spawn(move || {
        let socket = plain(V4);
        socket.connect(address).unwrap();
        let mut room = [0; 1];
        // Bursts around the size of a batch; the next begins when the last has been heard of, or a little before.
        for round in 0..3000_u32 {
            let burst = 1 + round % 70;
            for _ in 0..burst {
                socket.send(&round.to_be_bytes()).unwrap();
            }
            socket.send(b"end").unwrap();
            let answers = [0, 1, 2];
            for _ in 0..answers[usize::try_from(round % 3).unwrap()] {
                socket.recv(&mut room).unwrap();
            }
        }
        (0..3000_u32).map(|round| 2 + round % 70).sum::<u32>()
    });
    let mut came = 0;
    let mut ends = 0;
    while ends < 3000 {
        let Came { source, bytes, .. } = bench.next(bench.door).await;
        came += 1;
        if bytes == b"end" {
            assert_eq!(bench.sockets.send(bench.door, &[parcel(source, b"!", 0)]), went(1));
            ends += 1;
        }
    }
    assert_eq!(came, sender.join().unwrap());
}

#[tokio::test]
async fn a_backlog_longer_than_a_batch_is_told_to_be_more() {
    let mut bench = Bench::at(V4);
    let sender = plain(V4);
    for number in 0..100_u8 {
        sender.send_to(&[number], bench.address).unwrap();
    }
    bench.wait().await;
    let mut came = Vec::new();
    let mut batches = 1;
    bench.inbox.clear();
    while bench.sockets.receive(bench.door, &mut bench.inbox).unwrap() == Backlog::More {
        came.extend(bench.inbox.datagrams().map(|received| received.bytes[0]));
        batches += 1;
        if batches == 2 {
            let full = bench.sockets.receive(bench.door, &mut bench.inbox).unwrap();
            assert_eq!((full, bench.inbox.room()), (Backlog::More, 0), "what has no room stays where it is");
        }
        bench.inbox.clear();
    }
    came.extend(bench.inbox.datagrams().map(|received| received.bytes[0]));
    assert_eq!((came, batches), ((0..100).collect::<Vec<_>>(), 4));
}

#[tokio::test]
async fn a_socket_is_told_again_only_once_it_has_been_drained() {
    let mut bench = Bench::at(V4);
    let (client, other) = (plain(V4), bench.outgoing(V4, None));
    let other_at = SocketAddr::new(V4, bench.sockets.local_addr(other).unwrap().port());
    client.send_to(b"first", bench.address).unwrap();
    bench.wait().await;
    for _ in 0..3 {
        client.send_to(b"meanwhile", bench.address).unwrap();
        client.send_to(b"elsewhere", other_at).unwrap();
        bench.wait().await;
        bench.drain(other).unwrap();
    }
    assert_eq!(std::mem::take(&mut bench.ready), [bench.door, other, other, other]);
    assert_eq!(bench.drain(bench.door).unwrap(), 1 + 3);
    client.send_to(b"after", bench.address).unwrap();
    bench.wait().await;
    assert_eq!(bench.ready, [bench.door]);
}

#[tokio::test]
async fn several_sockets_share_a_door_and_each_client_stays_with_one() {
    let opened = bind_door(SocketAddr::new(V4, 0), 4, false).unwrap();
    let address = opened[0].local_addr().unwrap();
    let mut sockets = OsDatagrams::new().unwrap();
    let doors: Vec<_> = opened.into_iter().map(|socket| sockets.adopt(socket).unwrap()).collect();
    assert_eq!(doors.len(), 4);
    let clients: Vec<_> = (0..64).map(|_| plain(V4)).collect();
    for _ in 0..10 {
        for client in &clients {
            client.send_to(b"x", address).unwrap();
        }
    }
    let mut inbox = Inbox::new();
    let mut seen = std::collections::HashMap::new();
    let mut came = 0;
    for door in &doors {
        loop {
            inbox.clear();
            let backlog = sockets.receive(*door, &mut inbox).unwrap();
            for received in inbox.datagrams() {
                came += 1;
                assert_eq!(*seen.entry(received.source).or_insert(*door), *door);
            }
            if backlog == Backlog::Drained {
                break;
            }
        }
    }
    let used: std::collections::HashSet<_> = seen.values().collect();
    assert_eq!((came, seen.len()), (640, 64));
    assert!(used.len() > 1);
}

#[tokio::test]
async fn a_door_in_use_is_refused_to_a_second_process() {
    for ip in [V4, V6, Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        let opened = bind_door(SocketAddr::new(ip, 0), 3, false).unwrap();
        let address = opened[0].local_addr().unwrap();
        for sockets in [1, 3] {
            let error = bind_door(address, sockets, false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
        drop(opened);
        assert_eq!(bind_door(address, 2, false).unwrap().len(), 2);
    }
}

#[tokio::test]
async fn the_table_of_sockets_is_short_again_after_a_crowd() {
    let mut bench = Bench::at(V4);
    for _ in 0..3 {
        let sockets: Vec<_> = (0..300).map(|_| bench.outgoing(V4, None)).collect();
        assert!(sockets.iter().all(|socket| socket.index <= 300));
        for socket in sockets {
            bench.sockets.close(socket);
        }
    }
    let next = bench.outgoing(V4, None);
    assert_eq!(next.index, 1);
    assert_ne!(bench.sockets.local_addr(next).unwrap().port(), 0);
}
