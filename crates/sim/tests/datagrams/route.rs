//! The way from SOCKS5 clients through a client's door and a server's to targets that answer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::socks5::udp as socks5;
use umbra_relay::config::{
    self, Inbound, Mode, Protocol, ProxyDoor, ProxyHeader, Server, ShadowsocksDoor, Tcp, Udp,
};
use umbra_sim::datagrams::{DatagramNet, DatagramPeer, SimDatagrams};
use umbra_sim::house::{House, Workforce};
use umbra_sim::net::DIALLER;
use umbra_sim::peer::Peer;
use umbra_sim::street::{door, key_of};
use umbra_sim::{Chance, SimNet};

/// Methods of every generation, and none: the client's door goes straight on.
pub(crate) const METHODS: [Option<Method>; 7] = [
    None,
    Some(Method::Blake3Aes128Gcm),
    Some(Method::Blake3Aes256Gcm),
    Some(Method::Blake3Chacha20Poly1305),
    Some(Method::Chacha20IetfPoly1305),
    Some(Method::Aes128Gcm),
    Some(Method::Aes256Cfb),
];

/// What a route is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The method between the two doors; without one there is only the first, which goes straight on.
    pub(crate) method: Option<Method>,
    /// Where the first door leads, if nothing is spoken there.
    pub(crate) tunnel: Option<Address>,
    /// How many workers the last door has.
    pub(crate) workers: usize,
    /// The settings of the first door, and of the last.
    pub(crate) udp: [Udp; 2],
    /// Datagrams that wait in each socket of the relay.
    pub(crate) capacity: usize,
    /// Outgoing sockets of the last door.
    pub(crate) sockets_max: usize,
    /// Where no door leads.
    pub(crate) forbidden: Arc<Forbidden>,
    /// Where the last door leads, if that is not straight to every target.
    pub(crate) routes: Option<config::Routes>,
}

impl Plan {
    pub(crate) fn new(method: Option<Method>) -> Self {
        let udp = [Udp::default(), Udp::default()];
        Self {
            method,
            tunnel: None,
            workers: 1,
            udp,
            capacity: 4096,
            sockets_max: 1000,
            forbidden: Arc::default(),
            routes: None,
        }
    }

    /// How many doors there are.
    pub(crate) fn doors(&self) -> usize {
        if self.method.is_some() { 2 } else { 1 }
    }
}

/// A way with its doors open.
pub(crate) struct Route {
    pub(crate) net: SimNet,
    pub(crate) air: DatagramNet,
    pub(crate) house: House,
    pub(crate) plan: Plan,
    pub(crate) engines: Vec<Workforce>,
}

/// A client with its control connection.
pub(crate) struct Client {
    pub(crate) control: Option<Peer>,
    pub(crate) peer: DatagramPeer,
    pub(crate) relay: SocketAddr,
}

impl Route {
    pub(crate) fn lay(net: &SimNet, chance: &mut Chance, plan: Plan) -> Self {
        let (house, air) = (House::new(net), DatagramNet::new(chance.fork()));
        let mut route = Self { net: net.clone(), air, house, plan, engines: Vec::new() };
        for number in 0..route.plan.doors() {
            route.open(number);
        }
        route
    }

    /// Opens a door.
    pub(crate) fn open(&mut self, number: usize) {
        let Plan { method, workers, capacity, .. } = self.plan;
        let is_last = number + 1 == self.plan.doors();
        let sockets_max = if is_last { self.plan.sockets_max } else { usize::MAX };
        let protocol = match (method, &self.plan.tunnel) {
            (Some(method), _) if number == 1 => shadowsocks(method),
            (_, Some(target)) => Protocol::Tunnel { target: target.clone() },
            (_, None) => Protocol::Proxy(ProxyDoor::MIXED),
        };
        let route = match method {
            Some(method) if !is_last => through(method),
            _ => config::Route::direct(),
        };
        let mut inbound = inbound(number, protocol, route, self.plan.udp[number].clone());
        inbound.forbidden = Arc::clone(&self.plan.forbidden);
        if let Some(routes) = self.plan.routes.as_ref().filter(|_| is_last) {
            inbound.routes = routes.clone();
        }
        let workers = if is_last { workers } else { 1 };
        let workers = (0..workers).map(|_| SimDatagrams::new(&self.air, &host(number), capacity)).collect();
        self.engines.push(self.house.open_for_datagrams(inbound, workers, sockets_max));
    }

    /// Ends the last door, and opens another like it that knows nothing of what was.
    pub(crate) async fn restart(&mut self) {
        self.engines.pop().unwrap().end().await;
        self.open(self.plan.doors() - 1);
    }

    /// Outgoing sockets of a door, of either family.
    pub(crate) fn sockets(&self, number: usize) -> usize {
        let is_last = number + 1 == self.plan.doors();
        let doors = if is_last { self.plan.workers } else { 1 };
        host(number).into_iter().map(|ip| self.air.open_at(ip)).sum::<usize>() - doors
    }

    /// A client that sends from `port`, with a control connection.
    pub(crate) async fn associate(&self, port: u16) -> Client {
        self.associate_saying(port, port).await
    }

    /// The same, with another port said than the one that it sends from.
    pub(crate) async fn associate_saying(&self, port: u16, said: u16) -> Client {
        let peer = DatagramPeer::new(&self.air, client_at(port));
        let control = Peer::new(self.net.dial(door(0)).await.unwrap());
        control.say(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0]).await.unwrap();
        control.say(&said.to_be_bytes()).await.unwrap();
        assert_eq!(control.hear(2 + 4).await.unwrap(), [5, 0, 5, 0, 0, 1]);
        let bound = control.hear(4 + 2).await.unwrap();
        let ip = Ipv4Addr::new(bound[0], bound[1], bound[2], bound[3]);
        let relay = SocketAddr::new(ip.into(), u16::from_be_bytes([bound[4], bound[5]]));
        assert_eq!(relay, door(0));
        Client { control: Some(control), peer, relay }
    }

    pub(crate) fn assert_is_whole(&self) {
        assert!(self.engines.iter().all(Workforce::is_whole), "an engine has ended");
    }
}

impl Client {
    /// Sends to a target.
    pub(crate) fn send(&self, target: &Address, payload: &[u8]) {
        let mut datagram = vec![0; 3];
        target.encode(&mut datagram);
        datagram.extend_from_slice(payload);
        self.peer.send(self.relay, &datagram);
    }

    /// What has come so far: from whom, as the door says, and what.
    pub(crate) fn received(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        let received = self.peer.received().into_iter();
        received.map(|(from, datagram)| self.read(from, &datagram)).collect()
    }

    /// The next answer, if one comes in time.
    pub(crate) async fn receive_within(&self, time: Duration) -> Option<(SocketAddr, Vec<u8>)> {
        let (from, datagram) = self.peer.receive_within(time).await?;
        Some(self.read(from, &datagram))
    }

    fn read(&self, from: SocketAddr, datagram: &[u8]) -> (SocketAddr, Vec<u8>) {
        assert_eq!(from, self.relay, "answers come from where the client sends to");
        let (source, payload) = socks5::open(datagram).unwrap();
        (source.ip().unwrap(), payload.to_vec())
    }
}

/// What targets have been given, by the number of the message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals(Arc<Mutex<HashMap<u64, Vec<Arrival>>>>);

/// A message at a target.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

impl Arrivals {
    /// A target at `address`, which notes what comes and sends it back; where the message asks for it, from a port of its own.
    pub(crate) fn echo(&self, air: &DatagramNet, address: SocketAddr) {
        let arrivals = Arc::clone(&self.0);
        let (peer, other) = (DatagramPeer::new(air, address), DatagramPeer::new(air, other_port(address)));
        drop(tokio::spawn(async move {
            loop {
                let (from, bytes) = peer.receive().await;
                let arrival = Arrival { at: address, bytes: bytes.clone() };
                arrivals.lock().unwrap().entry(number_of(&bytes)).or_default().push(arrival);
                let speaker = if asks_for_other_port(&bytes) { &other } else { &peer };
                speaker.send(from, &bytes);
            }
        }));
    }

    pub(crate) fn all(&self) -> HashMap<u64, Vec<Arrival>> {
        self.0.lock().unwrap().clone()
    }

    /// Those of one message.
    pub(crate) fn of(&self, number: u64) -> Vec<Arrival> {
        self.0.lock().unwrap().get(&number).cloned().unwrap_or_default()
    }
}

/// A message with a number of its own, and `filler` bytes behind it.
pub(crate) fn message(chance: &mut Chance, number: u64, filler: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.push(u8::from(chance.one_in(4)));
    bytes.extend(chance.bytes(filler));
    bytes
}

/// The number of a message; the last of all for what is none.
pub(crate) fn number_of(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(u64::MAX, |number| u64::from_be_bytes(*number))
}

/// Whether the answer is to come from another port.
pub(crate) fn asks_for_other_port(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&1)
}

pub(crate) fn other_port(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + 1)
}

/// A client's address.
pub(crate) fn client_at(port: u16) -> SocketAddr {
    SocketAddr::new(DIALLER.into(), port)
}

/// The addresses of a door's host.
pub(crate) fn host(number: usize) -> Vec<IpAddr> {
    let last = u16::try_from(number).unwrap();
    let second = Ipv4Addr::new(192, 0, 2, 100 + u8::try_from(number).unwrap());
    vec![door(number).ip(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into(), second.into()]
}

/// A target's address.
pub(crate) fn target_at(number: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, number], 5300))
}

/// A target's address of the other family.
pub(crate) fn target6_at(number: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, number).into(), 5300)
}

pub(crate) fn inbound(number: usize, protocol: Protocol, route: config::Route, udp: Udp) -> Inbound {
    Inbound {
        name: "door".into(),
        listen: door(number),
        protocol,
        routes: route.into(),
        mode: Mode::Both(udp),
        forbidden: Arc::default(),
        idle: Duration::from_secs(24 * 3600),
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    }
}

fn shadowsocks(method: Method) -> Protocol {
    let keys = Arc::new(key_of(method, 0).into());
    Protocol::Shadowsocks(ShadowsocksDoor { keys, heads: HeadReads::One, one_time_auth: false })
}

fn through(method: Method) -> config::Route {
    config::Route::servers(vec![server_at(Address::Ip(door(1)), method)])
}

/// The server at `address` that a client knows.
pub(crate) fn server_at(address: Address, method: Method) -> Server {
    Server {
        mode: Mode::Both(address.clone()),
        address,
        credentials: key_of(method, 0).into(),
        heads: HeadReads::One,
        one_time_auth: false,
    }
}

/// Somebody who sees and says what is none of theirs.
pub(crate) const ATTACKER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 66)), 666);
