//! The ways from a client to a target that tests send sessions down, laid on a network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use umbra_proto::address::Address;
use umbra_proto::proxy_header::Version;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::key::{Key, KeyError};
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::socks4::client::UserId;
use umbra_relay::config::{
    self, Inbound, Mode, Parent, ParentProtocol, Path, Protocol, ProxyDoor, ProxyHeader, Route, Server,
    ShadowsocksDoor, Tcp,
};

use crate::house::House;
use crate::link::Link;
use crate::net::{Listener, SimNet};
use crate::peer::{Entrance, Peer};
use crate::tls;

/// A way from clients to one target.
#[derive(Debug)]
pub struct Street {
    /// The network.
    pub net: SimNet,
    /// Its doors.
    pub house: House,
    target: Listener,
}

/// What stands between the first door and the target.
#[derive(Clone, Copy, Debug)]
pub enum Hop {
    /// A Shadowsocks server.
    Shadowsocks(Method),
    /// A SOCKS5 proxy.
    Socks5,
    /// A SOCKS4 proxy, which is told names as 4a has them.
    Socks4,
    /// An HTTP proxy.
    Http,
    /// An HTTP proxy within TLS.
    Https,
}

/// What a street is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What clients speak at the first door.
    pub entrance: Entrance,
    /// The hops on the way, from the client's side; none is a door that goes straight on.
    pub hops: Vec<Hop>,
    /// Whether the first door leads through all hops itself, one inside the other; else each door knows the next one only.
    pub is_chain: bool,
    /// Whether the first door tells the target who its client is.
    pub header: Option<Version>,
    /// The connections from the client to the first door, from there to the next, and so on to the target.
    pub links: Vec<Link>,
    /// Whether sealed streams may begin in several reads.
    pub heads: HeadReads,
    /// The idle time of every door.
    pub idle: Duration,
}

impl Plan {
    /// A client and a server of ours with `method`, over plain connections.
    pub fn pair(method: Method) -> Self {
        let links = vec![Link::plain(), Link::plain().with_whole_start(), Link::plain()];
        Self { hops: vec![Hop::Shadowsocks(method)], links, ..Self::direct() }
    }

    /// A door that goes straight on, over plain connections.
    pub fn direct() -> Self {
        let links = vec![Link::plain(); 2];
        let idle = Duration::from_secs(300);
        Self {
            entrance: Entrance::Socks5,
            hops: Vec::new(),
            is_chain: false,
            header: None,
            links,
            heads: HeadReads::One,
            idle,
        }
    }

    /// What is spoken at a door.
    fn protocol(&self, number: usize) -> Protocol {
        let proxy = || Protocol::Proxy(ProxyDoor::MIXED);
        let Some(hop) = number.checked_sub(1) else {
            return match self.entrance {
                Entrance::Socks5 | Entrance::Socks4 | Entrance::Connect => proxy(),
                Entrance::Tunnel => Protocol::Tunnel { target: Street::target() },
            };
        };
        match self.hops[hop] {
            Hop::Socks5 | Hop::Socks4 | Hop::Http | Hop::Https => proxy(),
            Hop::Shadowsocks(method) => Protocol::Shadowsocks(ShadowsocksDoor {
                keys: Arc::new(key_of(method, hop).into()),
                heads: self.heads,
                one_time_auth: false,
            }),
        }
    }

    /// The way on from a door.
    fn route(&self, number: usize) -> Route {
        let hops = match (self.is_chain, number) {
            (true, 0) => 0..self.hops.len(),
            (true, _) => 0..0,
            (false, _) => number..self.hops.len().min(number + 1),
        };
        let hops: Box<[_]> = hops.map(|number| self.hop(number)).collect();
        Route::Path(Arc::new(Path::new("way", hops)))
    }

    /// A hop, as whoever goes through it has it.
    fn hop(&self, number: usize) -> config::Hop {
        let address = Address::Ip(door(number + 1));
        let parent =
            |protocol| config::Hop::Parent(Parent { protocol, ..Parent::socks5(address.clone(), None) });
        match self.hops[number] {
            Hop::Socks5 => parent(ParentProtocol::Socks5(None)),
            Hop::Socks4 => parent(ParentProtocol::Socks4(UserId::new(b"").expect("nobody is somebody"))),
            Hop::Http => parent(ParentProtocol::Http(None)),
            Hop::Https => {
                let (protocol, tls) = (ParentProtocol::Http(None), Some(tls::trusting()));
                config::Hop::Parent(Parent { protocol, tls, ..Parent::socks5(address, None) })
            }
            Hop::Shadowsocks(method) => config::Hop::Shadowsocks(Server {
                address,
                mode: Mode::Streams,
                credentials: key_of(method, number).into(),
                heads: self.heads,
                one_time_auth: false,
            }),
        }
    }

    /// Whether clients of a door come within TLS.
    fn is_within_tls(&self, number: usize) -> bool {
        let hop = number.checked_sub(1).and_then(|hop| self.hops.get(hop));
        matches!(hop, Some(Hop::Https))
    }

    /// The idle times of all doors, one after the other.
    pub fn idle_of_all(&self) -> Duration {
        self.idle * u32::try_from(self.links.len()).unwrap_or(u32::MAX)
    }
}

impl Street {
    /// Opens the doors of `plan` and the target behind the last.
    ///
    /// # Panics
    /// If the plan has not one connection more than doors.
    pub fn lay(net: &SimNet, plan: &Plan) -> Self {
        assert_eq!(
            plan.links.len(),
            plan.hops.len() + 2,
            "a connection before each door, and one to the target"
        );
        let house = House::new(net);
        for (number, link) in plan.links[..=plan.hops.len()].iter().enumerate() {
            let proxy_header =
                ProxyHeader { send: plan.header.filter(|_| number == 0), ..Default::default() };
            let (protocol, route) = (plan.protocol(number), plan.route(number));
            let tcp = Tcp { no_delay: true, fast_open: false };
            let (listen, link) = if plan.is_within_tls(number) {
                drop(tls::terminate(net, door(number), link.clone(), behind_tls(number)));
                (behind_tls(number), Link::plain())
            } else {
                (door(number), link.clone())
            };
            let inbound = Inbound {
                name: "door".into(),
                listen,
                protocol,
                routes: route.into(),
                mode: Mode::Streams,
                forbidden: Arc::default(),
                idle: plan.idle,
                tcp,
                proxy_header,
            };
            house.open(inbound, link);
        }
        let target = net.listen(TARGET, plan.links[plan.links.len() - 1].clone());
        Self { net: net.clone(), house, target }
    }

    /// A client at the first door.
    ///
    /// # Panics
    /// If the door is not open.
    pub async fn enter(&self) -> Peer {
        Peer::new(self.net.dial(door(0)).await.expect("the door is open as long as the network lives"))
    }

    /// The next connection that the target is given.
    ///
    /// # Panics
    /// If the network is gone.
    pub async fn arrive(&mut self) -> Peer {
        let (socket, _) = self.target.accept().await.expect("the network lives as long as the street");
        Peer::new(socket)
    }

    /// Where the target is.
    pub fn target() -> Address {
        Address::Ip(TARGET)
    }

    /// How often the target was dialled.
    pub fn target_dials(&self) -> usize {
        self.net.dials_to(TARGET)
    }

    /// Waits until nothing of any session is left.
    ///
    /// # Panics
    /// If something outlives `within`, or a socket stays behind.
    pub async fn empties(&self, within: Duration) -> Duration {
        let took = self.house.empties(within).await;
        // A layer and a terminator may have a last word to pass on, which takes its time on a slow connection.
        let began = Instant::now();
        while self.net.live_sockets() > 0 && began.elapsed() < within {
            sleep(Duration::from_millis(1).max(within / 1000)).await;
        }
        assert_eq!(self.net.live_sockets(), 0, "sockets stay behind");
        took
    }
}

/// Where a street's doors listen: 0 is the client's, the others are Shadowsocks servers.
pub fn door(number: usize) -> SocketAddr {
    let number = u8::try_from(number).unwrap_or(u8::MAX);
    SocketAddr::new(Ipv4Addr::new(192, 0, 2, number).into(), 8388)
}

/// Where the door listens that is within TLS at [`door`] of the same number.
pub fn behind_tls(number: usize) -> SocketAddr {
    SocketAddr::new(door(number).ip(), 8389)
}

/// The key of a street's server, counted from 0.
pub fn key_of(method: Method, server: usize) -> Key {
    key(method, u8::try_from(server).unwrap_or(u8::MAX)).expect("a key of the method's length is one")
}

/// A key that all of one byte makes.
pub fn key(method: Method, byte: u8) -> Result<Key, KeyError> {
    Key::from_bytes(method, &vec![byte; method.key_len()])
}

/// The target of every street.
pub const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 443);
