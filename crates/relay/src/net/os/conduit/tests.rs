//! Pipes between real connections of loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use rustix::event::{EventfdFlags, eventfd};
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::net::Socket as _;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A peer, and our end of the connection with it.
fn connection() -> (TcpStream, OsSocket) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (peer, OsSocket::register(ours.into()).unwrap())
}

/// Moves in what `source` has as soon as it has something.
async fn fill(conduit: &mut Conduit, source: &OsSocket) -> io::Result<usize> {
    loop {
        std::future::poll_fn(|cx| source.poll_readable(cx)).await?;
        match conduit.fill(source) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            filled => return filled,
        }
    }
}

#[test]
fn bytes_go_in_and_out_in_their_order_and_the_end_is_told() {
    let runtime = runtime();
    let _context = runtime.enter();
    allow_conduits(1);
    let ((mut from, source), (mut to, sink)) = (connection(), connection());
    let mut conduit = Conduit::take().unwrap();
    let mut seen = [0; 5];
    for said in [b"first", b"other"] {
        from.write_all(said).unwrap();
        assert_eq!(runtime.block_on(fill(&mut conduit, &source)).unwrap(), 5);
        assert!(!conduit.is_empty());
        assert_eq!(conduit.drain(&sink).unwrap(), 5);
        assert!(conduit.is_empty());
        to.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, said);
    }
    assert_eq!(conduit.fill(&source).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(from);
    assert_eq!(runtime.block_on(fill(&mut conduit, &source)).unwrap(), 0);
}

#[test]
fn there_are_as_many_as_are_allowed_and_empty_ones_come_back() {
    assert!(Conduit::take().is_none(), "nothing is allowed yet");
    allow_conduits(2);
    let held = [Conduit::take().unwrap(), Conduit::take().unwrap()];
    assert!(Conduit::take().is_none());
    assert_eq!(conduits(), (2, 0));
    drop(held);
    assert_eq!(conduits(), (0, 2));
    drop(Conduit::take().unwrap());
    assert_eq!(conduits(), (0, 2), "the one that was free is used again");
    close_free_conduits();
    assert_eq!(conduits(), (0, 0));
}

#[test]
fn what_lies_in_one_never_comes_out_in_another_session() {
    let runtime = runtime();
    let _context = runtime.enter();
    allow_conduits(1);
    let (mut from, source) = connection();
    let mut conduit = Conduit::take().unwrap();
    from.write_all(b"secret").unwrap();
    runtime.block_on(fill(&mut conduit, &source)).unwrap();
    drop(conduit);
    assert_eq!(conduits(), (0, 0), "it is closed with what lies in it");
    assert!(Conduit::take().unwrap().is_empty());
}

#[test]
fn a_source_that_was_reset_says_so() {
    let runtime = runtime();
    let _context = runtime.enter();
    allow_conduits(1);
    let (from, source) = connection();
    socket2::SockRef::from(&from).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(from);
    let mut conduit = Conduit::take().unwrap();
    let error = runtime.block_on(fill(&mut conduit, &source)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn what_lies_behind_an_urgent_byte_is_left_to_be_read() {
    let runtime = runtime();
    let _context = runtime.enter();
    allow_conduits(1);
    let (mut from, source) = connection();
    let mut conduit = Conduit::take().unwrap();
    rustix::net::send(&from, b"!", rustix::net::SendFlags::OOB).unwrap();
    from.write_all(b"behind").unwrap();
    drop(from);
    let error = runtime.block_on(fill(&mut conduit, &source)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    let mut seen = [0; 9];
    let count = source.try_read(&mut [io::IoSliceMut::new(&mut seen)]).unwrap();
    assert_eq!(&seen[..count], b"behind");
    assert_eq!(runtime.block_on(fill(&mut conduit, &source)).unwrap(), 0);
    drop(conduit);
    assert!(Conduit::take().is_some(), "others are moved as before");
}

#[test]
fn where_the_system_moves_nothing_so_no_conduit_is_given_any_more() {
    let runtime = runtime();
    let _context = runtime.enter();
    allow_conduits(2);
    // Something to read from that is no socket, and that this call is refused for.
    let counter = eventfd(1, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
    let source = OsSocket::register(counter).unwrap();
    let mut conduit = Conduit::take().unwrap();
    let error = runtime.block_on(fill(&mut conduit, &source)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    drop(conduit);
    assert!(Conduit::take().is_none());
    assert_eq!(conduits(), (0, 0));
}
