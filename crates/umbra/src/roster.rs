//! The servers of a client with the plugins on the way to them, and the plugins in front of a server's doors.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_relay::config::{Server, Servers};
use umbra_relay::{Relay, StartError};

use crate::plugin::{Keeper, Plugin, Side, end_all};

/// A server as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// The server, at its own address.
    pub(crate) server: Server,
    /// What stands before it.
    pub(crate) plugin: Option<Plugin>,
}

/// A door as it was asked for, which now listens on loopback only.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    /// Which of the relay's inbounds it is.
    pub(crate) inbound: usize,
    /// The address where clients come.
    pub(crate) listen: SocketAddr,
    /// What listens there.
    pub(crate) plugin: Plugin,
}

/// The servers that sessions find, kept true while plugins come and go.
pub(crate) struct Roster {
    servers: Servers,
    posts: Mutex<Posts>,
}

#[derive(Default)]
struct Posts {
    current: Vec<Post>,
    /// Plugins of servers that are not listed any more, for the sessions that still run through them.
    retired: Vec<Keeper>,
}

/// A server of the list, and how it is reached.
struct Post {
    listed: Listed,
    keeper: Option<Keeper>,
}

impl Roster {
    /// Starts the plugins of `listed` and fills `servers`.
    pub(crate) fn start(servers: Servers, listed: Vec<Listed>) -> Result<Arc<Self>, String> {
        let roster = Arc::new(Self { servers, posts: Mutex::default() });
        let posts = listed.into_iter().map(|listed| roster.hire(listed)).collect::<Result<_, _>>()?;
        let mut all = roster.lock();
        all.current = posts;
        roster.publish(&all);
        drop(all);
        Ok(roster)
    }

    /// Ends all plugins.
    pub(crate) fn end(&self) {
        let posts = std::mem::take(&mut *self.lock());
        let current = posts.current.into_iter().filter_map(|post| post.keeper);
        end_all(current.chain(posts.retired).collect());
    }

    fn hire(self: &Arc<Self>, listed: Listed) -> Result<Post, String> {
        let Some(plugin) = listed.plugin.clone() else {
            return Ok(Post { listed, keeper: None });
        };
        let side = Side::BeforeServer(listed.server.address.clone());
        let roster = Arc::downgrade(self);
        let keeper = Keeper::start(plugin, side, move || {
            if let Some(roster) = Weak::upgrade(&roster) {
                roster.publish(&roster.lock());
            }
        })?;
        Ok(Post { listed, keeper: Some(keeper) })
    }

    /// Tells sessions that begin from here on where the servers are to be found.
    fn publish(&self, posts: &Posts) {
        self.servers.replace(posts.current.iter().map(Post::server).collect());
    }

    fn lock(&self) -> MutexGuard<'_, Posts> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Post {
    fn server(&self) -> Server {
        let server = self.listed.server.clone();
        match &self.keeper {
            // What a plugin hands on may be cut anywhere.
            Some(keeper) => Server { address: keeper.near().into(), heads: HeadReads::Many, ..server },
            None => server,
        }
    }
}

/// The plugins in front of a server's doors.
pub(crate) struct Fronts {
    keepers: Vec<Keeper>,
}

impl Fronts {
    /// Finds out whether the plugins will be able to listen, and where: port 0 becomes a free one.
    pub(crate) fn prepare(fronts: &mut [Front]) -> Result<(), StartError> {
        for front in fronts {
            let listen = front.listen;
            front.listen = TcpListener::bind(listen)
                .and_then(|listener| listener.local_addr())
                .map_err(|source| StartError { what: format!("listen on {listen}"), source })?;
        }
        Ok(())
    }

    /// Starts the plugins in front of the doors of `relay`.
    pub(crate) fn start(fronts: &[Front], relay: &Relay) -> Result<Self, String> {
        let mut keepers = Vec::new();
        for Front { inbound, listen, plugin } in fronts {
            let door = *relay.addresses().get(*inbound).ok_or("a door is missing")?;
            let side = Side::BeforeDoor { listen: *listen, door };
            keepers.push(Keeper::start(plugin.clone(), side, || {})?);
        }
        Ok(Self { keepers })
    }

    /// Ends all plugins.
    pub(crate) fn end(self) {
        end_all(self.keepers);
    }
}
