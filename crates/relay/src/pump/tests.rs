//! Bulk between sockets of the kernel, which the simulation has none of.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::yield_now;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::shadowsocks::{Method, Salt};

use super::*;
use crate::failure::{self, Cause, Failure};
use crate::net::os::conduit::{allow_conduits, conduits};
use crate::pipe::pipe;

/// More than has to be carried before a conduit is used, twice.
const LONG: usize = 24 * 1024 * 1024;

const IDLE: Duration = Duration::from_secs(60);

struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> UnixTime {
        UnixTime(0)
    }

    fn padding(&self) -> u16 {
        0
    }
}

/// A peer, and our end of the connection with it.
async fn connection() -> (TcpStream, OsSocket) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    (peer, OsSocket::register(ours.into_std().unwrap().into()).unwrap())
}

/// Bytes whose order can be told from them.
fn pattern(len: usize) -> Vec<u8> {
    // Its length has no divisor, so that it stands nowhere as it stands at another place.
    let block: Vec<u8> =
        (0_u32..65_537).map(|byte| byte.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let mut bytes = block.repeat(len / block.len() + 1);
    bytes.truncate(len);
    bytes
}

/// Runs a client and a target with the pump between them, where a worker may have `allowed` conduits.
fn with_pump<C: Future, T: Future>(
    allowed: usize,
    client: impl FnOnce(TcpStream) -> C,
    target: impl FnOnce(TcpStream) -> T,
) -> (Ended, C::Output, T::Output) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        allow_conduits(allowed);
        let ((one, client_side), (other, target_side)) = (connection().await, connection().await);
        let flow = || Flow::new(Reader::Plain, Writer::Plain, None, 0..0);
        let carrying = async {
            let (mut uplink, mut downlink) = (flow(), flow());
            let ended = pump(&client_side, &target_side, &mut uplink, &mut downlink, &NoClock, IDLE).await;
            drop((uplink, downlink, client_side, target_side));
            ended
        };
        tokio::join!(carrying, client(one), target(other))
    })
}

async fn send(mut peer: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let (mut reading, mut writing) = peer.split();
    let mut got = Vec::new();
    let sending = async {
        writing.write_all(bytes).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(sending, reading.read_to_end(&mut got));
    read.unwrap();
    got
}

#[test]
fn bulk_comes_through_whole_both_ways_and_the_conduits_come_back() {
    let (up, down) = (pattern(LONG), pattern(LONG + 4321));
    let (ended, answer, request) = with_pump(4, |client| send(client, &up), |target| send(target, &down));
    assert!(matches!(ended, Ended::Whole), "{ended:?}");
    assert!(request == up && answer == down, "what came is what was sent");
    let (in_use, free) = conduits();
    assert_eq!(in_use, 0);
    assert!((1..=2).contains(&free), "each way used one: {free}");
}

#[test]
fn flows_beyond_the_conduits_come_through_as_well() {
    for allowed in [0, 1] {
        let (up, down) = (pattern(LONG), pattern(LONG - 1));
        let (ended, answer, request) =
            with_pump(allowed, |client| send(client, &up), |target| send(target, &down));
        assert!(matches!(ended, Ended::Whole), "{ended:?}");
        assert!(request == up && answer == down, "what came is what was sent");
        assert_eq!(conduits(), (0, allowed));
    }
}

/// Lets others do what they can until `done`, which cannot take for ever.
async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1_000_000 {
        if done() {
            return;
        }
        yield_now().await;
    }
    panic!("{what} has not come");
}

/// Reads until the way up holds a conduit that it cannot empty, then waits for `next`.
async fn stall(target: &mut TcpStream, is_stuck: &AtomicBool) -> Vec<u8> {
    let mut got = vec![0; LONG / 2];
    target.read_exact(&mut got).await.unwrap();
    until("a full way", || is_stuck.load(Ordering::Relaxed) && conduits().0 == 1).await;
    got
}

/// Writes as much as goes, and says when nothing more does while nobody reads.
async fn press(client: &mut TcpStream, bytes: &[u8], is_stuck: &AtomicBool) -> usize {
    let (mut sent, mut refused) = (0, 0);
    while sent < bytes.len() && refused < 10_000 {
        match client.try_write(&bytes[sent..]) {
            Ok(count) => (sent, refused) = (sent + count, 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                refused += 1;
                yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    is_stuck.store(true, Ordering::Relaxed);
    sent
}

#[test]
fn a_reader_that_rests_gets_all_of_it_and_then_the_end() {
    let (bytes, is_stuck) = (pattern(2 * LONG), AtomicBool::new(false));
    let (ended, _, got) = with_pump(
        2,
        async |mut client| {
            let sent = press(&mut client, &bytes, &is_stuck).await;
            client.write_all(&bytes[sent..]).await.unwrap();
            client.shutdown().await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap()
        },
        async |mut target| {
            let mut got = stall(&mut target, &is_stuck).await;
            target.read_to_end(&mut got).await.unwrap();
            got
        },
    );
    assert!(matches!(ended, Ended::Whole), "{ended:?}");
    assert!(got == bytes, "what came is what was sent");
}

#[test]
fn a_sink_that_is_reset_in_the_middle_ends_it_and_takes_what_was_under_way_with_it() {
    let (bytes, is_stuck) = (pattern(2 * LONG), AtomicBool::new(false));
    let (ended, _, ()) = with_pump(
        2,
        async |mut client| {
            press(&mut client, &bytes, &is_stuck).await;
            // What ends it is not the client's end.
            let mut nothing = Vec::new();
            client.read_to_end(&mut nothing).await.map(|_| nothing)
        },
        async |mut target| {
            stall(&mut target, &is_stuck).await;
            socket2::SockRef::from(&target).set_linger(Some(Duration::ZERO)).unwrap();
        },
    );
    assert!(
        matches!(ended, Ended::Uplink(FlowError::Write(_)) | Ended::Downlink(FlowError::Read(_))),
        "{ended:?}"
    );
    assert_eq!(conduits(), (0, 0), "no conduit with bytes in it is kept");
}

#[test]
fn a_source_that_is_reset_in_the_middle_is_no_end_in_order() {
    let (bytes, is_stuck) = (pattern(2 * LONG), AtomicBool::new(false));
    let (ended, (), _) = with_pump(
        2,
        async |mut client| {
            press(&mut client, &bytes, &is_stuck).await;
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        },
        async |mut target| {
            let mut got = stall(&mut target, &is_stuck).await;
            target.read_to_end(&mut got).await.map(|_| got)
        },
    );
    assert!(
        matches!(ended, Ended::Uplink(FlowError::Read(_)) | Ended::Downlink(FlowError::Write(_))),
        "{ended:?}"
    );
}

#[test]
fn an_urgent_byte_in_the_middle_neither_stops_what_is_behind_it_nor_cuts_it_off() {
    let bytes = pattern(2 * LONG);
    let (before, behind) = bytes.split_at(LONG);
    let (ended, _, got) = with_pump(
        2,
        async |mut client| {
            client.write_all(before).await.unwrap();
            client.writable().await.unwrap();
            let urgent = || Ok(rustix::net::send(&client, b"!", rustix::net::SendFlags::OOB)?);
            while let Err(error) = client.try_io(tokio::io::Interest::WRITABLE, urgent) {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                client.writable().await.unwrap();
            }
            client.write_all(behind).await.unwrap();
            client.shutdown().await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap()
        },
        async |mut target| {
            let mut got = Vec::new();
            target.read_to_end(&mut got).await.unwrap();
            got
        },
    );
    assert!(matches!(ended, Ended::Whole), "{ended:?}");
    assert_eq!(got.len(), bytes.len());
    assert!(got == bytes, "the urgent byte alone is left out, as by whoever reads");
}

/// What a client hears, over pipes, of a target that has said `said` and may take nothing any more.
fn with_pipes(said: &[u8], mut downlink: Flow, takes_nothing: bool) -> (Ended, Vec<u8>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ((client, client_side), (target_side, target)) = (pipe(), pipe());
        target.try_write(&[IoSlice::new(said)]).unwrap();
        if takes_nothing {
            target.epitaph().write(&Failure::outbound(failure::Stage::Relay, Cause::Truncated));
            client.try_write(&[IoSlice::new(b"nobody hears this")]).unwrap();
        }
        let mut uplink = Flow::new(Reader::Plain, Writer::Plain, None, 0..0);
        let ended = pump(&client_side, &target_side, &mut uplink, &mut downlink, &NoClock, IDLE).await;
        let mut heard = vec![0; 2 * said.len()];
        let count = client.try_read(&mut [IoSliceMut::new(&mut heard)]).unwrap_or(0);
        heard.truncate(count);
        (ended, heard)
    })
}

#[test]
fn what_a_target_had_said_is_carried_though_it_takes_nothing_any_more() {
    let said = pattern(30_000);
    let flow = Flow::new(Reader::Plain, Writer::Plain, None, 0..0);
    let (ended, heard) = with_pipes(&said, flow, true);
    assert!(matches!(ended, Ended::Uplink(FlowError::Write(_))), "{ended:?}");
    assert!(heard == said, "{} bytes of it", heard.len());
}

fn record(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    let head_len = sealer.head_len();
    let mut record = vec![0; head_len + payload.len() + sealer.tail_len()];
    record[head_len..][..payload.len()].copy_from_slice(payload);
    sealer.seal(&mut record, UnixTime(0));
    record
}

#[test]
fn records_that_come_with_a_bad_one_are_carried_to_the_last_that_is_good() {
    let key = Key::from_bytes(Method::Aes256Gcm, &[7; 32]).unwrap();
    let salts = [1, 2].map(|byte| Salt::new(Method::Aes256Gcm, [byte; 32]));
    let mut sealer = Sealer::response(&key, salts[0], salts[1]);
    let mut said = record(&mut sealer, &[b'a'; 5000]);
    said.extend(record(&mut sealer, &[b'b'; 5000]));
    let mut bad = record(&mut sealer, b"changed on the way");
    *bad.last_mut().unwrap() ^= 1;
    said.extend(bad);
    let opener = Opener::response(&key, salts[1], HeadReads::Many);
    let flow = Flow::new(Reader::Sealed(opener), Writer::Plain, None, 0..0);
    let (ended, heard) = with_pipes(&said, flow, false);
    assert!(matches!(ended, Ended::Downlink(FlowError::Open(OpenError::BadTag))), "{ended:?}");
    assert!(heard == [[b'a'; 5000], [b'b'; 5000]].concat(), "{} bytes", heard.len());
}
