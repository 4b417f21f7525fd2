//! Associations that share a socket to their server.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use umbra_proto::shadowsocks::UnixTime;
use umbra_proto::shadowsocks::keyring::Keyring;
use umbra_proto::shadowsocks::one_time_auth::OneTimeAuth;
use umbra_proto::shadowsocks::packet::{Look, PacketDoor, ServerSession, SessionId};

use super::*;
use crate::limits::IDLE_LOOKS_MAX;
use crate::net::datagram::{Backlog, Binding, Datagrams, Inbox, Parcel, Sent, SocketId};

const PASSWORD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn credentials(method: Method) -> Credentials {
    Credentials::from_password(method, PASSWORD).unwrap()
}

/// A way through a server at `socket`.
fn way_through(socket: &UdpSocket, method: Method) -> Routes {
    let address = Address::Ip(at(socket));
    let server = Server {
        mode: Mode::Datagrams(address.clone()),
        address,
        credentials: credentials(method),
        heads: HeadReads::One,
        one_time_auth: false,
    };
    let path = Path::new("through", [Hop::Shadowsocks(server)]);
    Route::Path(Arc::new(path)).into()
}

/// A relay whose only way is through a server at `socket`.
fn run_through(socket: &UdpSocket, method: Method) -> Relay {
    run(way_through(socket, method))
}

fn now() -> UnixTime {
    UnixTime(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs())
}

/// One session with a client, from the server's side.
struct Session {
    session: ServerSession,
    client: SocketAddr,
}

impl Session {
    /// The session of the next packet, which calls itself `id`.
    fn begin(socket: &UdpSocket, door: &PacketDoor, id: SessionId) -> Self {
        let mut bytes = [0; 999];
        let (len, client) = socket.recv_from(&mut bytes).unwrap();
        let packet = &mut bytes[..len];
        let look = door.look(packet).unwrap();
        let (session, _) = ServerSession::begin(door, look, packet, now(), id).unwrap();
        Self { session, client }
    }

    fn answer(&mut self, socket: &UdpSocket, door: &PacketDoor, payload: &[u8]) {
        let mut block = Vec::new();
        target(0).encode(&mut block);
        let (source, _) = AddressBlock::split(&block).unwrap();
        let mut packet = Vec::new();
        self.session.seal(door, source, payload, now(), |room: &mut [u8]| room.fill(payload[0]), &mut packet);
        socket.send_to(&packet, self.client).unwrap();
    }
}

fn door(method: Method) -> PacketDoor {
    let keyring = Keyring::from(credentials(method).key().clone());
    PacketDoor::new(Arc::new(keyring), OneTimeAuth::Honoured)
}

#[test]
fn those_who_go_through_one_server_of_sip022_share_a_socket_and_others_have_their_own() {
    for (method, is_shared) in [
        (Method::Blake3Aes256Gcm, true),
        (Method::Blake3Chacha20Poly1305, true),
        (Method::Aes256Gcm, false),
        (Method::Aes256Cfb, false),
    ] {
        let server = socket();
        let relay = run_through(&server, method);
        let sources = [(); 3].map(|()| {
            let client = Client::associate(&relay);
            client.send(&target(0), b"here");
            (heard(&server), client)
        });
        let [one, other, third] = sources.each_ref().map(|(source, _)| *source);
        assert_eq!(
            (one == other, other == third, one == third),
            (is_shared, is_shared, is_shared),
            "{method}"
        );
    }
}

#[test]
fn an_answer_comes_to_the_one_that_it_is_for_whatever_the_server_calls_its_sessions() {
    for method in [Method::Blake3Aes256Gcm, Method::Blake3Chacha20Poly1305] {
        for ids in [[1, 2], [7, 7]] {
            let (server, door) = (socket(), door(method));
            let relay = run_through(&server, method);
            let mut clients = ids.map(|id| {
                let client = Client::associate(&relay);
                client.send(&target(0), b"here");
                (client, Session::begin(&server, &door, SessionId([id; 8])))
            });
            for turn in 0..6_u8 {
                for (client, session) in &mut clients {
                    // What is thought to be another's is lost until it is known that several are called so.
                    let attempts = if ids[0] == ids[1] && turn == 0 { 4 } else { 1 };
                    let came = (0..attempts).any(|_| {
                        session.answer(&server, &door, &[turn; 40]);
                        client.socket.set_read_timeout(Some(PATIENCE / attempts / 5)).unwrap();
                        let mut bytes = [0; 999];
                        let heard = client.socket.recv_from(&mut bytes);
                        heard.is_ok_and(|(len, _)| socks5::open(&bytes[..len]).unwrap().1 == [turn; 40])
                    });
                    assert!(came, "{method} {ids:?} {turn}");
                }
            }
            let [(one, _), (other, _)] = &clients;
            assert!(one.hears_nothing() && other.hears_nothing(), "nobody hears what is another's");
        }
    }
}

#[test]
fn whoever_is_left_keeps_the_socket_when_others_go() {
    let method = Method::Blake3Aes256Gcm;
    let (server, door) = (socket(), door(method));
    let relay = run_through(&server, method);
    let [gone, left] = [1, 2].map(|id| {
        let client = Client::associate(&relay);
        client.send(&target(0), b"here");
        (client, Session::begin(&server, &door, SessionId([id; 8])))
    });
    let ((gone, mut its_session), (left, mut session)) = (gone, left);
    its_session.answer(&server, &door, b"to the one that goes");
    assert_eq!(gone.receive(), b"to the one that goes");
    let Client { _control: control, socket: deaf, .. } = gone;
    drop(control);
    // Until its end is known it still hears; the other one does so for as long as it is there.
    deaf.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let is_over = (0..100).any(|_| {
        its_session.answer(&server, &door, b"to nobody");
        session.answer(&server, &door, b"still here");
        assert_eq!(left.receive(), b"still here");
        deaf.recv_from(&mut [0; 999]).is_err()
    });
    assert!(is_over, "it has ended with its control connection");
    left.send(&target(0), b"through the same");
    assert_eq!(heard(&server), session.client);
    let another = Client::associate(&relay);
    another.send(&target(0), b"so does one more");
    assert_eq!(heard(&server), session.client);
}

/// What the client of the next packet calls its session.
fn client_heard(server: &UdpSocket, door: &PacketDoor) -> SessionId {
    let mut bytes = [0; 999];
    let (len, _) = server.recv_from(&mut bytes).unwrap();
    session_of(door, &mut bytes[..len])
}

fn session_of(door: &PacketDoor, packet: &mut [u8]) -> SessionId {
    let Look::Session { id, .. } = door.look(packet).unwrap() else { panic!("a session") };
    id
}

#[test]
fn those_who_share_a_socket_make_no_room_where_others_hold_one_each() {
    let method = Method::Blake3Aes256Gcm;
    let [server, target] = [socket(), socket()];
    let routes = [way_through(&server, method), Route::direct().into()];
    let hearing = target.try_clone().unwrap();
    beside_tunnels(&target, routes, 3, move |doors| {
        let door = door(method);
        let crowd: Vec<_> =
            (0..2 * IDLE_LOOKS_MAX).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let speak = |client: &UdpSocket| {
            client.send_to(b"word", doors[0]).unwrap();
            client_heard(&server, &door)
        };
        let sessions: Vec<_> = crowd.iter().map(speak).collect();
        let others = [(); 3].map(|()| socket());
        let sources = others.each_ref().map(|other| {
            other.send_to(b"word", doors[1]).unwrap();
            heard(&hearing)
        });
        assert!(crowd.iter().map(speak).eq(sessions), "all are still there");
        others[0].send_to(b"word", doors[1]).unwrap();
        assert_ne!(heard(&hearing), sources[0], "it has made room for the third one");
    });
}

#[test]
fn where_all_sockets_are_shared_nobody_goes_for_one_more() {
    let method = Method::Blake3Aes256Gcm;
    let [server, target] = [socket(), socket()];
    let routes = [way_through(&server, method), Route::direct().into()];
    let hearing = target.try_clone().unwrap();
    beside_tunnels(&target, routes, 1, move |doors| {
        let door = door(method);
        let crowd: Vec<_> =
            (0..2 * IDLE_LOOKS_MAX).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let speak = |client: &UdpSocket| {
            client.send_to(b"word", doors[0]).unwrap();
            client_heard(&server, &door)
        };
        let sessions: Vec<_> = crowd.iter().map(speak).collect();
        socket().send_to(b"word", doors[1]).unwrap();
        assert!(crowd.iter().map(speak).eq(sessions), "all are still there");
        hearing.set_nonblocking(true).unwrap();
        assert!(hearing.recv_from(&mut [0; 1]).is_err(), "there was no socket for it");
    });
}

/// Sockets of a machine whose address changes: nothing goes through those that were opened before.
struct Roaming {
    sockets: OsDatagrams,
    /// The address has changed and nobody has been told.
    has_moved: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    opened: Vec<SocketId>,
    lame: Vec<SocketId>,
}

impl Datagrams for Roaming {
    fn open(&mut self, binding: Binding) -> io::Result<SocketId> {
        self.open.fetch_add(1, Ordering::Relaxed);
        let socket = self.sockets.open(binding)?;
        self.opened.push(socket);
        Ok(socket)
    }

    fn close(&mut self, socket: SocketId) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.sockets.close(socket);
    }

    fn local_addr(&self, socket: SocketId) -> io::Result<SocketAddr> {
        self.sockets.local_addr(socket)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, ready: &mut Vec<SocketId>) -> Poll<io::Result<()>> {
        self.sockets.poll_ready(cx, ready)
    }

    fn receive(&mut self, socket: SocketId, inbox: &mut Inbox) -> io::Result<Backlog> {
        self.sockets.receive(socket, inbox)
    }

    fn send(&mut self, socket: SocketId, parcels: &[Parcel<'_>]) -> Sent {
        if self.has_moved.swap(false, Ordering::Relaxed) {
            self.lame.append(&mut self.opened);
        }
        if self.lame.contains(&socket) {
            return Sent { failed: parcels.iter().map(Parcel::count).sum(), ..Sent::default() };
        }
        self.sockets.send(socket, parcels)
    }
}

#[test]
fn a_shared_socket_through_which_nothing_goes_is_left_for_another_by_all_and_their_sessions_go_on() {
    let method = Method::Blake3Aes256Gcm;
    let [server, target] = [socket(), socket()];
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (has_moved, open) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (tunnel, entry) = tunnel(&target, way_through(&server, method));
        let address = at(&entry);
        let mut sockets = OsDatagrams::new().unwrap();
        let entry = sockets.adopt(entry).unwrap();
        let (moves, count) = (Arc::clone(&has_moved), Arc::clone(&open));
        let sockets = Roaming { sockets, has_moved, open, opened: Vec::new(), lame: Vec::new() };
        let engine = Engine::new(vec![(tunnel, entry)], sockets, Budget::new(2));
        let work = move || {
            let door = door(method);
            // What is sent while nobody knows yet is lost, as on any way.
            let speak = |client: &UdpSocket| {
                let mut bytes = [0; 999];
                let heard = (0..100).find_map(|_| {
                    client.send_to(b"word", address).unwrap();
                    server.recv_from(&mut bytes).ok()
                });
                let (len, source) = heard.expect("a way");
                (session_of(&door, &mut bytes[..len]), source)
            };
            let clients = [(); 2].map(|()| socket());
            let [(one, source), (other, same)] = clients.each_ref().map(speak);
            assert_eq!(source, same);
            moves.store(true, Ordering::Relaxed);
            let [(after, source_after), (other_after, same_after)] = clients.each_ref().map(speak);
            assert!(after == one && other_after == other, "the server knows them by their sessions");
            assert_ne!(source_after, source);
            assert_eq!(source_after, same_after);
            assert_eq!(speak(&socket()).1, source_after, "a third one is led there as well");
            assert_eq!(count.load(Ordering::Relaxed), 1, "the one that nobody goes through is closed");
        };
        tokio::select! {
            never = Box::pin(engine.run()) => match never {},
            done = tokio::task::spawn_blocking(work) => done.unwrap(),
        }
    });
}
