//! An open inbound: its configuration, and what its sessions share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::head::{Authentic, ExpectHead, ExpectTarget, HeadError};
use umbra_proto::shadowsocks::keyring::{Keyring, TrialOrder};
use umbra_proto::shadowsocks::one_time_auth::OneTimeAuth;
use umbra_proto::shadowsocks::replay::SaltStore;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::shadowsocks::{Generation, Method, SALT_BYTES_MAX, Salt, UnixTime};

use crate::config::{Inbound, Protocol, ProxyDoor, ShadowsocksDoor};
use crate::failure::Cause;
use crate::net::Net;
use crate::notice::Notices;
use crate::places::{Place, Places};
use crate::pump::Clock;
use crate::udp::directory::Home;
use crate::udp::front::{Front, Workers};
use crate::udp::permits::Sources;

/// What all sessions of one inbound share, on every worker.
#[derive(Debug)]
pub struct Door<N> {
    pub(crate) inbound: Inbound,
    pub(crate) net: N,
    /// Shared with what outlives a call: a trial of a group's member tells what has come of it whenever that is.
    pub(crate) notices: Arc<Notices>,
    pub(crate) speech: Speech,
    /// What is spoken in datagrams, if any are taken.
    pub(crate) front: Option<Front>,
    /// Who takes datagrams.
    pub(crate) workers: Workers,
    /// Where datagrams come in.
    pub(crate) datagrams_at: Option<SocketAddr>,
    /// Who carries datagrams of our own, once somebody does.
    pub(crate) engine: OnceLock<Home>,
    places: Places,
}

/// What is spoken at a door, with what its sessions share for it.
#[derive(Debug)]
pub(crate) enum Speech {
    /// What proxies speak.
    Proxy(ProxyDoor),
    /// Nothing: every connection goes to this target.
    Tunnel(Address),
    /// Shadowsocks, as the server.
    Shadowsocks(ServerSide),
}

/// A Shadowsocks server's keys and its memory.
#[derive(Debug)]
pub(crate) struct ServerSide {
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) heads: HeadReads,
    one_time_auth: OneTimeAuth,
    /// One order for all workers: a user's next session may come to any of them.
    order: Mutex<TrialOrder>,
    /// One store for all workers: a replay may come to any of them.
    salts: Mutex<SaltStore>,
}

impl ServerSide {
    fn new(door: &ShadowsocksDoor) -> Self {
        let keyring = Arc::clone(&door.keys);
        let one_time_auth = if door.one_time_auth { OneTimeAuth::Demanded } else { OneTimeAuth::Honoured };
        let order = Mutex::new(TrialOrder::new(&keyring));
        let salts = Mutex::new(SaltStore::new(keyring.method()));
        Self { keyring, heads: door.heads, one_time_auth, order, salts }
    }

    /// The machine that reads the start of a stream.
    pub(crate) fn expect_head(&self) -> ExpectHead<'_> {
        ExpectHead::new(&self.keyring, lock(&self.order).clone(), self.heads)
            .with_one_time_auth(self.one_time_auth)
    }

    /// Judges an authenticated head's time and salt, and lets its user be found sooner the next time.
    pub(crate) fn admit(&self, head: Authentic, now: UnixTime) -> Result<ExpectTarget, HeadError> {
        let holder = head.holder();
        let admitted = head.admit(&mut lock(&self.salts), now)?;
        if self.keyring.is_tried() {
            lock(&self.order).promote(holder);
        }
        Ok(admitted)
    }

    /// Remembers a salt of ours where nothing else shows that our own answer is sent back to us: SIP022 has a type byte for that.
    pub(crate) fn remember(&self, salt: Salt, now: UnixTime) {
        match self.keyring.method().generation() {
            Generation::Stream | Generation::Aead => {}
            Generation::Aead2022 => return,
        }
        // A fresh random salt that was already there, or no room for it, changes nothing for this session.
        let _ = lock(&self.salts).insert(salt, now);
    }
}

/// What is kept under these locks is whole between any two calls, so a panic elsewhere has not harmed it.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<N: Net> Door<N> {
    /// A door over `net` for at most `sessions_max` sessions at a time.
    pub fn new(inbound: Inbound, net: N, sessions_max: usize) -> Self {
        let places = Places::share(sessions_max, 1).remove(0);
        Self::among(inbound, net, places)
    }

    /// One of several doors, which share places.
    pub(crate) fn among(inbound: Inbound, net: N, places: Places) -> Self {
        let speech = match &inbound.protocol {
            Protocol::Proxy(door) => Speech::Proxy(door.clone()),
            Protocol::Tunnel { target } => Speech::Tunnel(target.clone()),
            Protocol::Shadowsocks(door) => Speech::Shadowsocks(ServerSide::new(door)),
        };
        let notices = Arc::default();
        Self {
            inbound,
            net,
            notices,
            speech,
            front: None,
            workers: Workers::One,
            datagrams_at: None,
            engine: OnceLock::new(),
            places,
        }
    }

    /// The same, with datagrams that come in at `address`, to an [`Engine`](crate::Engine) on each of these workers.
    pub fn with_datagrams(self, address: SocketAddr, workers: Workers) -> Self {
        let front = Front::new(&self.inbound.protocol, workers);
        Self { front: Some(front), workers, datagrams_at: Some(address), ..self }
    }

    /// From how many ports a client with a control connection may send datagrams.
    pub(crate) fn sources(&self) -> Sources {
        match &self.inbound.protocol {
            Protocol::Proxy(ProxyDoor { users: Some(_), .. }) => Sources::One,
            Protocol::Proxy(ProxyDoor { users: None, .. })
            | Protocol::Tunnel { .. }
            | Protocol::Shadowsocks(_) => Sources::Many,
        }
    }

    /// A place for one more session, as soon as there is one. Tells `short` each time that there is none.
    pub async fn place(&self, mut short: impl FnMut()) -> Place {
        loop {
            if let Some(place) = self.places.take() {
                return place;
            }
            short();
            if let Some(place) = self.places.make_room().await {
                return place;
            }
        }
    }

    /// A fresh salt for what we send.
    pub(crate) fn salt(&self, method: Method) -> Result<Salt, Cause> {
        let mut random = [0; SALT_BYTES_MAX];
        self.net.fill_random(&mut random).map_err(Cause::Io)?;
        Ok(Salt::new(method, random))
    }
}

/// The clock and the chance that sealing needs, from a network.
#[derive(Debug)]
pub(crate) struct NetClock<'a, N>(pub(crate) &'a N);

impl<N: Net> Clock for NetClock<'_, N> {
    fn now(&self) -> UnixTime {
        self.0.unix_time()
    }

    fn padding(&self) -> u16 {
        let mut random = [0; 2];
        // Without chance the padding has a constant length, which is still a valid one.
        let _ = self.0.fill_random(&mut random);
        u16::from_le_bytes(random)
    }
}

#[cfg(test)]
mod tests {
    use umbra_proto::shadowsocks::head::Head;
    use umbra_proto::shadowsocks::key::Key;
    use umbra_proto::shadowsocks::keyring::User;
    use umbra_proto::shadowsocks::stream::Sealer;
    use umbra_proto::wire::Input;
    use umbra_proto::{Handshake, Step};

    use super::*;

    const METHOD: Method = Method::Aes256Gcm;
    const NOW: UnixTime = UnixTime(1_700_000_000);

    fn key(user: u8) -> Key {
        Key::from_bytes(METHOD, &[user; 32]).unwrap()
    }

    fn server(users: u8) -> ServerSide {
        let user = |byte: u8| User { name: byte.to_string().into(), key: key(byte), forward: None };
        let keys = Arc::new(Keyring::new(METHOD, None, (0..users).map(user).collect()).unwrap());
        ServerSide::new(&ShadowsocksDoor { keys, heads: HeadReads::One, one_time_auth: false })
    }

    fn names_in_order(server: &ServerSide) -> Vec<String> {
        let order = lock(&server.order);
        order.holders().filter_map(|holder| server.keyring.name(holder).map(Into::into)).collect()
    }

    /// What `user` sends with this salt, as far as it is authentic to `server`.
    fn head(server: &ServerSide, user: u8, salt: u8) -> Authentic {
        let mut sealer = Sealer::request(
            &key(user),
            Salt::new(METHOD, [salt; SALT_BYTES_MAX]),
            &"a.example:80".parse().unwrap(),
        );
        let mut bytes = Vec::new();
        sealer.seal_request_without_payload(0, NOW, &mut bytes);
        match server.expect_head().advance(&mut Input::new(&mut bytes), &mut Vec::new()).unwrap() {
            Step::Done(Head::Authentic(head)) => head,
            Step::Done(Head::Forward(_)) | Step::Wait(_) => panic!("a whole head of one of the users"),
        }
    }

    #[test]
    fn a_user_who_was_let_in_is_found_at_the_first_attempt_the_next_time() {
        let server = server(5);
        assert_eq!(names_in_order(&server), ["0", "1", "2", "3", "4"]);
        server.admit(head(&server, 4, 1), NOW).unwrap();
        assert_eq!(names_in_order(&server), ["4", "0", "1", "2", "3"]);
        server.admit(head(&server, 2, 2), NOW).unwrap();
        server.admit(head(&server, 4, 3), NOW).unwrap();
        assert_eq!(names_in_order(&server), ["4", "2", "0", "1", "3"]);
    }

    #[test]
    fn a_replay_moves_nobody_to_the_front() {
        let server = server(3);
        server.admit(head(&server, 2, 1), NOW).unwrap();
        server.admit(head(&server, 1, 2), NOW).unwrap();
        assert!(server.admit(head(&server, 2, 1), NOW).is_err());
        assert_eq!(names_in_order(&server), ["1", "2", "0"]);
    }
}
