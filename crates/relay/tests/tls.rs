//! TLS to a parent over real sockets: whom it is trusted to be, what is thrown away, and what becomes of ends and of what is left over.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[expect(dead_code, reason = "shared with other tests")]
mod common;
#[expect(dead_code, reason = "shared with other tests")]
#[path = "common/parents.rs"]
mod parents;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;
use umbra_relay::Relay;
use umbra_relay::config::{Hop, Inbound, Names, Parent, ParentProtocol, Path, Protocol, ProxyDoor, Route};
use umbra_relay::tls::Tls;

use common::{inbound, run};
use parents::{Scripted, ask, hear_socks5, reset};

/// Who vouches for parents, and a parent's own certificate for `parent.example` and 127.0.0.1.
struct Authority {
    trusting: Arc<ClientConfig>,
    parent: Arc<ServerConfig>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let trusting = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = KeyPair::generate().unwrap();
        let names = ["parent.example".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let parent = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Self { trusting: Arc::new(trusting), parent: Arc::new(parent) }
    }

    /// A parent that agrees to everything over TLS, and then does `script`.
    fn parent(
        &self,
        script: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Send + Sync + 'static,
    ) -> Scripted {
        let config = Arc::clone(&self.parent);
        Scripted::start(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    return;
                }
                head.extend(byte);
            }
            assert!(head.starts_with(b"CONNECT "));
            script(stream);
        })
    }

    /// The hop through the parent at `address`, if it can show that it is `name`.
    fn hop(&self, address: SocketAddr, name: &str) -> Hop {
        let tls = Some(Tls::new(Arc::clone(&self.trusting), name).unwrap());
        let protocol = ParentProtocol::Http(None);
        Hop::Parent(Parent { address: address.into(), protocol, names: Names::PassOn, tls })
    }
}

fn door(hops: impl Into<Box<[Hop]>>) -> Relay {
    let mut path = Path::new("parents", hops);
    path.deadlines.negotiate = Duration::from_secs(1);
    run(inbound(PROXY, Route::Path(Arc::new(path))))
}

/// Grants the way with a banner glued to it, hears the question out, answers, and ends.
fn serve(mut stream: StreamOwned<ServerConnection, TcpStream>) {
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbanner").unwrap();
    let mut question = Vec::new();
    stream.read_to_end(&mut question).unwrap();
    assert_eq!(question, vec![b'q'; 300_000]);
    stream.write_all(&vec![b'a'; 300_000]).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
}

/// A session with [`serve`] at the other end.
fn converse(relay: &Relay) {
    let (code, mut near) = ask(relay.addresses()[0], &TARGET.parse().unwrap());
    assert_eq!(code, 0);
    let mut banner = [0; 6];
    near.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"banner");
    near.write_all(&vec![b'q'; 300_000]).unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, vec![b'a'; 300_000]);
}

#[test]
fn a_parent_that_shows_its_name_is_spoken_with_in_secret_and_ends_pass_both_ways() {
    let authority = Authority::new();
    let parent = authority.parent(serve);
    for name in ["parent.example", "127.0.0.1"] {
        let relay = door([authority.hop(parent.address, name)]);
        converse(&relay);
        relay.stop();
    }
}

#[test]
fn a_parent_with_another_name_or_without_a_voucher_gets_no_request() {
    let (ours, others) = (Authority::new(), Authority::new());
    for (authority, name) in [(&ours, "another.example"), (&ours, "127.0.0.2"), (&others, "parent.example")] {
        let parent = authority.parent(|_| panic!("it was asked"));
        let relay = door([ours.hop(parent.address, name)]);
        assert_eq!(ask(relay.addresses()[0], &TARGET.parse().unwrap()).0, 1, "{name}");
        assert_eq!(parent.came(), 1);
        relay.stop();
    }
}

#[test]
fn a_parent_that_does_not_speak_tls_is_no_parent() {
    for words in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"\x05\x00", b"\x16\x03\x01\x00"] {
        let parent = Scripted::saying(words);
        let relay = door([Authority::new().hop(parent.address, "parent.example")]);
        let code = ask(relay.addresses()[0], &TARGET.parse().unwrap()).0;
        assert!([1, 4].contains(&code), "{code}");
        relay.stop();
    }
}

#[test]
fn what_somebody_on_the_way_says_before_tls_is_thrown_away() {
    let authority = Authority::new();
    let parent = authority.parent(serve);
    let before = Scripted::start(move |mut stream| {
        let target = hear_socks5(&mut stream).unwrap();
        let mut onward = TcpStream::connect(target.to_string()).unwrap();
        // A good answer to the request that is still to come, in the open.
        stream.write_all(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00HTTP/1.1 200 OK\r\n\r\nbanned").unwrap();
        let (mut back, mut away) = (onward.try_clone().unwrap(), stream.try_clone().unwrap());
        let copying = std::thread::spawn(move || std::io::copy(&mut back, &mut away));
        let _copied = std::io::copy(&mut stream, &mut onward);
        let _ended = onward.shutdown(Shutdown::Write);
        let _copied = copying.join();
    });
    let first = Hop::Parent(Parent::socks5(before.address.into(), None));
    let relay = door([first, authority.hop(parent.address, "parent.example")]);
    converse(&relay);
    relay.stop();
}

#[test]
fn tls_within_tls_carries_both_ways() {
    let authority = Authority::new();
    let parent = authority.parent(serve);
    let onward = parent.address;
    let config = Arc::clone(&authority.parent);
    // The first one is a plain tunnel inside its own TLS.
    let first = Scripted::start(move |stream| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        stream.set_nonblocking(true).unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&config));
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap());
            }
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut onward = tokio::net::TcpStream::connect(onward).await.unwrap();
            let _ended = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
        });
    });
    let hops =
        [authority.hop(first.address, "parent.example"), authority.hop(parent.address, "parent.example")];
    let relay = door(hops);
    converse(&relay);
    relay.stop();
}

#[test]
fn an_end_without_a_farewell_is_a_reset_and_no_end() {
    let authority = Authority::new();
    let scripts: [fn(StreamOwned<ServerConnection, TcpStream>); 3] = [
        // The connection ends, and the secret one has not.
        |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbanner").unwrap();
            stream.flush().unwrap();
        },
        |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbanner").unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
            reset(stream.sock);
        },
        |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbanner").unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
            stream.sock.write_all(&[7; 100]).unwrap();
            parents::wait(stream.sock);
        },
    ];
    for script in scripts {
        let parent = authority.parent(script);
        let relay = door([authority.hop(parent.address, "parent.example")]);
        let (code, mut near) = ask(relay.addresses()[0], &TARGET.parse().unwrap());
        assert_eq!(code, 0);
        // A reset is told to one call only, and this may be the one.
        let said = near.write_all(b"more");
        let mut heard = Vec::new();
        let end = said.and_then(|()| near.read_to_end(&mut heard));
        let end = end.unwrap_err().kind();
        assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&end), "{end}");
        assert!(b"banner".starts_with(&heard));
        relay.stop();
    }
}

/// Everything of `near` up to its end, read by `room` bytes at a time, and that end.
fn hear_out(near: &mut TcpStream, room: usize) -> (Vec<u8>, Option<ErrorKind>) {
    let (mut heard, mut room) = (Vec::new(), vec![0; room]);
    loop {
        match near.read(&mut room) {
            Ok(0) => return (heard, None),
            Ok(count) => heard.extend_from_slice(&room[..count]),
            Err(error) => return (heard, Some(error.kind())),
        }
    }
}

#[test]
fn all_that_came_before_an_end_without_a_farewell_is_delivered_before_the_reset() {
    let authority = Authority::new();
    let parent = authority.parent(|mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        stream.write_all(&vec![b'a'; 2_000_000]).unwrap();
        stream.sock.shutdown(Shutdown::Write).unwrap();
        parents::wait(stream.sock);
    });
    let hop = || authority.hop(parent.address, "parent.example");
    // One more layer, and one more kernel, between the end and the client.
    let onward =
        run(inbound(common::shadowsocks_server(), Route::Path(Arc::new(Path::new("last", [hop()])))));
    let before = run(inbound(PROXY, common::through(onward.addresses()[0])));
    let relay = door([hop()]);
    // Whoever has little room takes little at a time, and most of it waits in our kernel.
    for (door, room) in [(&relay, 20_000), (&relay, 2_000), (&before, 20_000), (&before, 2_000)] {
        for _ in 0..5 {
            let (code, mut near) = ask(door.addresses()[0], &TARGET.parse().unwrap());
            assert_eq!(code, 0);
            SockRef::from(&near).set_recv_buffer_size(32 * room).unwrap();
            let (heard, end) = hear_out(&mut near, room);
            assert_eq!((heard.len(), end), (2_000_000, Some(ErrorKind::ConnectionReset)));
        }
    }
    [before, onward, relay].into_iter().for_each(Relay::stop);
}

#[test]
fn a_client_that_takes_nothing_before_a_reset_is_waited_for_no_longer_than_the_idle_time() {
    let authority = Authority::new();
    let parent = authority.parent(|mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        // The client reads none of it, and what the kernels have no room for stays with us.
        let _gone_already = stream.write_all(&vec![b'a'; 500_000]);
        let _gone_already = stream.sock.shutdown(Shutdown::Write);
        parents::wait(stream.sock);
    });
    let path = Path::new("parent", [authority.hop(parent.address, "parent.example")]);
    let idle = Duration::from_secs(1);
    let relay = run(Inbound { idle, ..inbound(PROXY, Route::Path(Arc::new(path))) });
    let (code, near) = ask(relay.addresses()[0], &TARGET.parse().unwrap());
    assert_eq!(code, 0);
    let mut broken = [PollFd::new(&near, PollFlags::empty())];
    let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(poll(&mut broken, Some(&patience)), Ok(1), "it is waited for");
    assert!(broken[0].revents().contains(PollFlags::ERR));
    relay.stop();
}

/// Asks a proxy at `door` for something of `http://192.0.2.1/`, and reads all that comes of that.
fn get(door: SocketAddr) -> (Vec<u8>, Option<ErrorKind>) {
    let mut near = common::open(door);
    near.write_all(b"GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    hear_out(&mut near, 20_000)
}

/// A parent that grants the way, hears a request without content out, answers it with `head` and a body, and ends without a farewell.
fn answering(authority: &Authority, head: &'static str, body: usize) -> Scripted {
    authority.parent(move |mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b'z'; body]).unwrap();
        stream.sock.shutdown(Shutdown::Write).unwrap();
        parents::wait(stream.sock);
    })
}

#[test]
fn an_answer_that_is_whole_stays_so_without_a_farewell_and_one_that_is_not_comes_as_far_as_it_went() {
    let authority = Authority::new();
    for (head, body, end) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 5, None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n", 300_000, None),
        // Only the end of the connection could say that this is all.
        ("HTTP/1.1 200 OK\r\n\r\n", 300_000, Some(ErrorKind::ConnectionReset)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 300001\r\n\r\n", 300_000, Some(ErrorKind::ConnectionReset)),
    ] {
        let parent = answering(&authority, head, body);
        let relay = door([authority.hop(parent.address, "parent.example")]);
        for _ in 0..20 {
            let (heard, ended) = get(relay.addresses()[0]);
            assert!(heard.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", heard.escape_ascii());
            let came = heard.iter().filter(|byte| **byte == b'z').count();
            assert_eq!((came, ended), (body, end), "{head}");
        }
        relay.stop();
    }
}

#[test]
fn nothing_is_left_of_a_parent_that_falls_silent_in_its_handshake_or_behind_it() {
    let authority = Authority::new();
    let (gone, left) = mpsc::channel();
    let (told, behind) = (gone.clone(), gone);
    let silent = Scripted::start(move |mut stream| {
        let end = std::io::copy(&mut stream, &mut std::io::sink());
        told.send(end.map_err(|error| error.kind())).unwrap();
    });
    let speechless = authority.parent(move |mut stream| {
        let end = std::io::copy(&mut stream.sock, &mut std::io::sink());
        behind.send(end.map_err(|error| error.kind())).unwrap();
    });
    for parent in [silent, speechless] {
        let relay = door([authority.hop(parent.address, "parent.example")]);
        assert_eq!(ask(relay.addresses()[0], &TARGET.parse().unwrap()).0, 4);
        let end = left.recv_timeout(Duration::from_secs(5)).expect("it is left");
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
        relay.stop();
    }
}

#[test]
fn nothing_is_left_of_a_session_whose_client_is_gone() {
    let authority = Authority::new();
    let (gone, left) = mpsc::channel();
    let parent = authority.parent(move |mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let end = stream.read_to_end(&mut Vec::new());
        gone.send(end.map_err(|error| error.kind())).unwrap();
    });
    let relay = door([authority.hop(parent.address, "parent.example")]);
    let (code, near) = ask(relay.addresses()[0], &TARGET.parse().unwrap());
    assert_eq!(code, 0);
    reset(near);
    let end = left.recv_timeout(Duration::from_secs(5)).expect("it is left");
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    relay.stop();
}

const PROXY: Protocol = Protocol::Proxy(ProxyDoor::MIXED);

const TARGET: &str = "192.0.2.1:443";
