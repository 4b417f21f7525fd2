//! Associations whose datagrams go several ways, over real sockets.

mod trunks;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use umbra_proto::address::{Address, AddressBlock, IpBlock};
use umbra_proto::request::Refusal;
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::one_time_auth::OneTimeAuth;
use umbra_proto::shadowsocks::packet::{PacketDoor, ServerSession, SessionId};
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::shadowsocks::{Method, UnixTime};
use umbra_proto::socks5::udp as socks5;
use umbra_proto::users::{Credentials as Login, Users};

use crate::config::{
    Config, Hop, Inbound, Mode, Parent, Path, Protocol, ProxyDoor, ProxyHeader, Route, Routes, Server, Tcp,
    Udp,
};
use crate::limits::LANES_PER_ASSOCIATION_MAX;
use crate::net::os::OsNet;
use crate::net::os::datagram::OsDatagrams;
use crate::router::{Conditions, Router, Rule, TargetsBuilder};
use crate::{Budget, Door, Engine, Relay, Workers};

const PATIENCE: Duration = Duration::from_secs(5);

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn at(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// Where a datagram comes from.
fn heard(socket: &UdpSocket) -> SocketAddr {
    socket.recv_from(&mut [0; 999]).unwrap().1
}

fn inbound(routes: Routes) -> Inbound {
    Inbound {
        name: "door".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        protocol: Protocol::Proxy(ProxyDoor::MIXED),
        routes,
        mode: Mode::Both(Udp::default()),
        forbidden: Arc::default(),
        idle: Duration::from_secs(60),
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    }
}

fn run(routes: Routes) -> Relay {
    Relay::start(&Config { inbounds: vec![inbound(routes)], workers: NonZeroUsize::MIN }).unwrap()
}

/// A SOCKS5 client's side of an association.
struct Client {
    _control: TcpStream,
    socket: UdpSocket,
    relay: SocketAddr,
}

impl Client {
    fn associate(relay: &Relay) -> Self {
        let mut control = TcpStream::connect(relay.addresses()[0]).unwrap();
        control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut answer = [0; 2 + 10];
        control.read_exact(&mut answer).unwrap();
        let (address, _) = AddressBlock::split(&answer[5..]).unwrap();
        Self { _control: control, socket: socket(), relay: address.ip().unwrap() }
    }

    fn associate_as(relay: &Relay, name: &str) -> Self {
        let mut control = TcpStream::connect(relay.addresses()[0]).unwrap();
        let len = u8::try_from(name.len()).unwrap();
        let login = [&[1, len][..], name.as_bytes(), &[6], b"secret"].concat();
        control.write_all(&[&[5, 1, 2][..], &login, &[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]].concat()).unwrap();
        let mut answer = [0; 2 + 2 + 10];
        control.read_exact(&mut answer).unwrap();
        let (address, _) = AddressBlock::split(&answer[7..]).unwrap();
        Self { _control: control, socket: socket(), relay: address.ip().unwrap() }
    }

    fn send(&self, target: &Address, payload: &[u8]) {
        let mut bytes = vec![0; 3];
        target.encode(&mut bytes);
        bytes.extend_from_slice(payload);
        self.socket.send_to(&bytes, self.relay).unwrap();
    }

    fn receive(&self) -> Vec<u8> {
        let mut bytes = [0; 999];
        let (len, _) = self.socket.recv_from(&mut bytes).unwrap();
        socks5::open(&bytes[..len]).unwrap().1.to_vec()
    }

    fn hears_nothing(&self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let heard = self.socket.recv_from(&mut [0; 1]);
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        heard.is_err()
    }
}

/// A path through a server at `socket`, of whose packets only the source is looked at.
fn through(socket: &UdpSocket) -> Route {
    through_holder(socket, "long enough")
}

/// A path through a server at `socket` that holds a key.
fn through_holder(socket: &UdpSocket, password: &str) -> Route {
    let address = Address::Ip(at(socket));
    let server = Server {
        mode: Mode::Datagrams(address.clone()),
        address,
        credentials: Credentials::from_password(Method::Aes256Gcm, password).unwrap(),
        heads: HeadReads::One,
        one_time_auth: false,
    };
    Route::Path(Arc::new(Path::new("through", [Hop::Shadowsocks(server)])))
}

fn target(number: usize) -> Address {
    Address::from_host("target.example", port(number)).unwrap()
}

fn port(number: usize) -> u16 {
    u16::try_from(number + 1).unwrap()
}

/// Direct, but for these ports.
fn by_port(exceptions: impl IntoIterator<Item = (u16, Route)>) -> Routes {
    let rule = |(port, route)| {
        let conditions = Conditions { ports: Some(vec![port..=port]), ..Conditions::default() };
        Rule { name: port.to_string().into(), conditions, verdict: route }
    };
    Routes::new(Router { rules: exceptions.into_iter().map(rule).collect(), otherwise: Route::direct() })
}

#[test]
fn each_target_goes_its_way_and_past_the_bound_the_lane_goes_that_was_used_the_longest_time_ago() {
    let servers: Vec<_> = (0..=LANES_PER_ASSOCIATION_MAX).map(|_| socket()).collect();
    let routes = by_port(servers.iter().enumerate().map(|(number, server)| (port(number), through(server))));
    let relay = run(routes);
    let client = Client::associate(&relay);
    let (past, most) = servers.split_last().unwrap();
    let sources: Vec<_> = most
        .iter()
        .enumerate()
        .map(|(number, server)| {
            client.send(&target(number), b"one");
            heard(server)
        })
        .collect();
    let distinct: std::collections::HashSet<_> = sources.iter().collect();
    assert_eq!(distinct.len(), LANES_PER_ASSOCIATION_MAX, "each lane has a socket of its own");
    client.send(&target(0), b"used again");
    assert_eq!(heard(&servers[0]), sources[0]);
    client.send(&target(LANES_PER_ASSOCIATION_MAX), b"one past the bound");
    heard(past);
    for number in [0, 2] {
        client.send(&target(number), b"still there");
        assert_eq!(heard(&servers[number]), sources[number]);
    }
    client.send(&target(1), b"made again");
    assert_ne!(heard(&servers[1]), sources[1]);
}

#[test]
fn answers_are_opened_by_the_lane_that_they_come_through_and_all_that_goes_direct_has_one() {
    let [server, one, other] = [(); 3].map(|()| socket());
    let routes = by_port([(at(&other).port(), Route::direct()), (port(0), through(&server))]);
    let relay = run(routes);
    let client = Client::associate(&relay);
    client.send(&Address::Ip(at(&one)), b"direct");
    let direct = heard(&one);
    client.send(&target(0), b"through a server");
    let sealed = heard(&server);
    client.send(&Address::Ip(at(&other)), b"direct by a rule");
    assert_eq!(heard(&other), direct);
    assert_ne!(sealed, direct);
    // In the open, what is no packet is an answer; through the server, nothing but its packets are.
    server.send_to(b"no packet", sealed).unwrap();
    assert!(client.hears_nothing());
    other.send_to(b"an answer", direct).unwrap();
    assert_eq!(client.receive(), b"an answer");
    client.send(&Address::Ip(at(&one)), b"direct again");
    assert_eq!(heard(&one), direct);
}

/// A tunnel's door to `target` by `routes`, and its socket.
fn tunnel(target: &UdpSocket, routes: Routes) -> (Arc<Door<OsNet>>, UdpSocket) {
    let protocol = Protocol::Tunnel { target: at(target).into() };
    let udp = Udp { associations_per_source_max: NonZeroUsize::new(1000), ..Udp::default() };
    let inbound = Inbound { protocol, mode: Mode::Both(udp), ..inbound(routes) };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    (Arc::new(Door::new(inbound, OsNet, 1).with_datagrams(at(&socket), Workers::One)), socket)
}

/// Does `work` beside an engine of tunnels to `target`, each by its routes, which may have so many sockets. It is told where they are.
fn beside_tunnels(
    target: &UdpSocket,
    routes: impl IntoIterator<Item = Routes>,
    sockets_max: usize,
    work: impl FnOnce(Vec<SocketAddr>) + Send + 'static,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut sockets = OsDatagrams::new().unwrap();
        let doors = routes.into_iter().map(|routes| tunnel(target, routes));
        let doors: Vec<_> =
            doors.map(|(door, socket)| (door, at(&socket), sockets.adopt(socket).unwrap())).collect();
        let addresses = doors.iter().map(|(_, address, _)| *address).collect();
        let doors = doors.into_iter().map(|(door, _, socket)| (door, socket)).collect();
        let engine = Engine::new(doors, sockets, Budget::new(sockets_max));
        tokio::select! {
            never = Box::pin(engine.run()) => match never {},
            done = tokio::task::spawn_blocking(move || work(addresses)) => done.unwrap(),
        }
    });
}

#[test]
fn a_crowd_at_one_door_makes_room_for_somebody_at_another() {
    let target = socket();
    let hearing = target.try_clone().unwrap();
    beside_tunnels(&target, [Route::direct().into(), Route::direct().into()], 3, move |doors| {
        let clients: [_; 4] = std::array::from_fn(|_| socket());
        let speaks = |number: usize, door: usize| {
            clients[number].send_to(b"word", doors[door]).unwrap();
            heard(&hearing)
        };
        let crowd = [0, 1, 2].map(|number| speaks(number, 0));
        let other = speaks(3, 1);
        assert!(!crowd.contains(&other));
        assert_eq!([1, 2].map(|number| speaks(number, 0)), crowd[1..], "they were not idle longest");
        assert_eq!(speaks(3, 1), other, "neither was the one at the other door");
        assert_ne!(speaks(0, 0), crowd[0], "it has made room, and begins anew");
        assert_ne!(speaks(1, 0), crowd[1]);
        assert_eq!(speaks(3, 1), other);
    });
}

#[test]
fn answers_to_many_clients_through_two_servers_reach_them_in_order_however_many_wait_together() {
    let (target, servers, passwords) = (socket(), [socket(), socket()], ["long enough", "longer still"]);
    let routes = [0, 1].map(|number| through_holder(&servers[number], passwords[number]).into());
    beside_tunnels(&target, routes, 100, move |doors| {
        let keys = passwords.map(|password| Key::from_password(Method::Aes256Gcm, password).unwrap());
        let ends = keys.map(|key| PacketDoor::new(Arc::new(key.into()), OneTimeAuth::Honoured));
        let mut bytes = [0; 999];
        let mut clients: Vec<_> = (0..40)
            .map(|number| {
                let (client, at) = (socket(), number % 2);
                client.send_to(b"a question", doors[at]).unwrap();
                let (len, source) = servers[at].recv_from(&mut bytes).unwrap();
                let (end, packet) = (&ends[at], &mut bytes[..len]);
                let look = end.look(packet).unwrap();
                let own = SessionId([0; 8]);
                let (session, _) = ServerSession::begin(end, look, packet, UnixTime(0), own).unwrap();
                (client, at, source, session)
            })
            .collect();
        let block = IpBlock::from(SocketAddr::from(([192, 0, 2, 1], 53)));
        // One client has more than are opened together, others have none.
        let is_for = |turn: u8, number: usize| number == 7 || usize::from(turn) < number % 4;
        for turn in 0..40 {
            let these = clients.iter_mut().enumerate().filter(|(number, _)| is_for(turn, *number));
            for (number, (_, at, source, session)) in these {
                let (salt, mut packet) = ([turn, u8::try_from(number).unwrap()], Vec::new());
                let fill = |room: &mut [u8]| room[..2].copy_from_slice(&salt);
                session.seal(&ends[*at], block.block(), &salt, UnixTime(0), fill, &mut packet);
                servers[*at].send_to(&packet, *source).unwrap();
            }
        }
        for (number, (client, ..)) in clients.iter().enumerate() {
            for turn in (0..40).filter(|turn| is_for(*turn, number)) {
                let (len, _) = client.recv_from(&mut bytes).unwrap();
                assert_eq!(bytes[..len], [turn, u8::try_from(number).unwrap()]);
            }
        }
    });
}

/// What a worker's engine without clients says to a question along a path through hops, or none, within `patience`. The target answers
/// twice, or not at all.
fn asked(
    hops: impl Into<Box<[Hop]>>,
    target: &UdpSocket,
    answers: bool,
    patience: Duration,
) -> Option<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = at(&socket);
        let door = Door::new(inbound(Route::direct().into()), OsNet, 1);
        let door = Arc::new(door.with_datagrams(address, Workers::One));
        let mut sockets = OsDatagrams::new().unwrap();
        let socket = sockets.adopt(socket).unwrap();
        let engine = Engine::new(vec![(Arc::clone(&door), socket)], sockets, Budget::new(2));
        let path = Arc::new(Path::new("probed", hops));
        let (address, target) = (Address::Ip(at(target)), target.try_clone().unwrap());
        let answering = tokio::task::spawn_blocking(move || {
            let mut bytes = [0; 99];
            let Ok((len, from)) = target.recv_from(&mut bytes) else { return };
            assert_eq!(&bytes[..len], b"a question");
            for answer in [&b"an answer"[..], b"another"].iter().filter(|_| answers) {
                target.send_to(answer, from).unwrap();
            }
        });
        let mut engine = Box::pin(engine.run());
        let asking = door.ask_along(Arc::clone(&path), &address, b"a question", patience);
        let answer = tokio::select! {
            never = &mut engine => match never {},
            answer = asking => answer,
        };
        if answers {
            answering.await.unwrap();
        }
        let counts = path.counts();
        assert_eq!((counts.datagrams_reached, counts.datagrams_failed), (0, 0), "it is no client's");
        answer
    })
}

#[test]
fn a_question_of_our_own_has_its_first_answer_or_none_by_its_deadline() {
    let target = socket();
    target.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert_eq!(asked([], &target, true, PATIENCE).unwrap(), b"an answer");
    assert_eq!(asked([], &target, false, Duration::from_millis(100)), None);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let parent = Hop::Parent(Parent::socks5(nobody.into(), None));
    let since = Instant::now();
    assert_eq!(asked([parent], &target, false, 2 * PATIENCE), None);
    assert!(since.elapsed() < PATIENCE, "it is known at once that nobody is there");
}

/// Names with an address in `network` go by `route`, the others by `otherwise`.
fn by_network(network: &str, route: Route, otherwise: Route) -> Routes {
    let mut targets = TargetsBuilder::default();
    targets.network_text(network).unwrap();
    let conditions = Conditions { target: Some(targets.build().unwrap()), ..Conditions::default() };
    let rules = vec![Rule { name: network.into(), conditions, verdict: route }];
    Routes::new(Router { rules, otherwise })
}

#[test]
fn a_name_whose_address_a_rule_has_to_know_goes_where_its_address_does_and_what_waited_goes_first() {
    let [server, echo] = [socket(), socket()];
    let named = Address::from_host("localhost", at(&echo).port()).unwrap();

    let relay = run(by_network("127.0.0.0/8", through(&server), Route::direct()));
    let client = Client::associate(&relay);
    client.send(&named, b"by the rule");
    heard(&server);
    relay.stop();

    let relay = run(by_network("10.0.0.0/8", Route::Refuse(Refusal::NotAllowed), Route::direct()));
    let client = Client::associate(&relay);
    for payload in [&b"first"[..], b"second"] {
        client.send(&named, payload);
    }
    let mut bytes = [0; 99];
    for payload in [&b"first"[..], b"second"] {
        let (len, source) = echo.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], payload);
        echo.send_to(&bytes[..len], source).unwrap();
        assert_eq!(client.receive(), payload);
    }
    relay.stop();

    let relay = run(by_network("127.0.0.0/8", Route::Refuse(Refusal::NotAllowed), through(&server)));
    let client = Client::associate(&relay);
    client.send(&named, b"refused");
    // Nobody knows whether its address is one of those that are refused.
    client.send(&"no.such.name.invalid:9".parse().unwrap(), b"unknown");
    client.send(&"192.0.2.1:9".parse().unwrap(), b"elsewhere");
    heard(&server);
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(server.recv_from(&mut bytes).is_err(), "the last one alone has come");
    relay.stop();
}

#[test]
fn a_rule_for_a_user_is_for_the_datagrams_of_that_user_alone() {
    let [server, echo] = [socket(), socket()];
    let logins = ["ann", "bob"].map(|name| Login::new(name, "secret").unwrap());
    let users = Users::new([7; 32], logins).unwrap();
    let conditions = Conditions { users: Some(vec!["ann".into()]), ..Conditions::default() };
    let rules = vec![Rule { name: "ann".into(), conditions, verdict: through(&server) }];
    let routes = Routes::new(Router { rules, otherwise: Route::direct() });
    let protocol = Protocol::Proxy(ProxyDoor { users: Some(Arc::new(users)), ..ProxyDoor::MIXED });
    let inbounds = vec![Inbound { protocol, ..inbound(routes) }];
    let relay = Relay::start(&Config { inbounds, workers: NonZeroUsize::MIN }).unwrap();
    let ann = Client::associate_as(&relay, "ann");
    ann.send(&Address::Ip(at(&echo)), b"ann");
    heard(&server);
    drop(ann);
    let bob = Client::associate_as(&relay, "bob");
    bob.send(&Address::Ip(at(&echo)), b"bob");
    heard(&echo);
    relay.stop();
}
