//! The servers of a client with the plugins on the way to them, and the plugins in front of a server's doors.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_relay::config::{Group, Server};
use umbra_relay::{Relay, StartError};

use crate::plugin::{Keeper, Plugin, Side, end_all, wait_until_listening};

/// A server as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// What stays the same when a document of servers changes, if it says so.
    pub(crate) id: Option<String>,
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
    servers: Arc<Group>,
    posts: Mutex<Posts>,
}

#[derive(Default)]
struct Posts {
    current: Vec<Post>,
    /// Plugins of servers that are not listed any more, for the sessions that still run through them.
    retired: Vec<Arc<Keeper>>,
    /// Nothing is started any more.
    is_over: bool,
}

/// A server of the list, and how it is reached.
struct Post {
    listed: Listed,
    keeper: Option<Arc<Keeper>>,
}

impl Roster {
    /// Starts the plugins of `listed` and fills `servers`.
    pub(crate) fn start(servers: Arc<Group>, listed: Vec<Listed>) -> Result<Arc<Self>, String> {
        let roster = Arc::new(Self { servers, posts: Mutex::default() });
        let posts = listed.into_iter().map(|listed| roster.hire(listed)).collect::<Result<_, _>>()?;
        roster.install(posts);
        roster.publish(&roster.lock());
        Ok(roster)
    }

    /// Puts `listed` in the place of the servers that were there, and tells which plugins could not be started; their servers
    /// are not among them. A plugin that goes on has its sessions go on. One that is not wanted any more has until the next
    /// replacement. Until the new ones listen, for a while or until there `is_no_need` to wait, sessions find the servers of before.
    pub(crate) fn replace(
        self: &Arc<Self>,
        listed: Vec<Listed>,
        mut is_no_need: impl FnMut() -> bool,
    ) -> Vec<String> {
        let (mut posts, mut failures) = (Vec::new(), Vec::new());
        for listed in listed {
            match self.hire(listed) {
                Ok(post) => posts.push(post),
                Err(why) => failures.push(why),
            }
        }
        let newcomers = self.install(posts);
        wait_until_listening(&newcomers, || is_no_need() || self.lock().is_over);
        self.publish(&self.lock());
        failures
    }

    /// Blocks until the plugins of all servers listen, for a while, or until there `is_no_need` to wait.
    pub(crate) fn wait_for_plugins(&self, is_no_need: impl FnMut() -> bool) {
        let keepers = self.lock().keepers_of_current();
        wait_until_listening(&keepers, is_no_need);
    }

    /// Ends the plugins that were not wanted any more at the last replacement.
    pub(crate) fn dismiss(&self) {
        let leaving = std::mem::take(&mut self.lock().retired);
        end_all(&leaving);
    }

    /// Keeps `posts` from here on, and gives the plugins among them that were not there before.
    fn install(&self, posts: Vec<Post>) -> Vec<Arc<Keeper>> {
        let mut all = self.lock();
        let before = std::mem::replace(&mut all.current, posts);
        let before: Vec<_> = before.into_iter().filter_map(|post| post.keeper).collect();
        let mut newcomers = all.keepers_of_current();
        newcomers.retain(|keeper| !before.iter().any(|other| Arc::ptr_eq(other, keeper)));
        let unwanted: Vec<_> = before
            .into_iter()
            .filter(|keeper| all.find(|other| Arc::ptr_eq(other, keeper)).is_none())
            .collect();
        let mut leaving = std::mem::replace(&mut all.retired, unwanted);
        if all.is_over {
            leaving.extend(all.keepers());
        }
        // Their threads may be waiting for the lock.
        drop(all);
        end_all(&leaving);
        newcomers
    }

    /// Ends all plugins.
    pub(crate) fn end(&self) {
        let mut all = self.lock();
        all.is_over = true;
        let keepers = all.keepers();
        drop(all);
        end_all(&keepers);
    }

    fn hire(self: &Arc<Self>, listed: Listed) -> Result<Post, String> {
        let Some(plugin) = listed.plugin.clone() else {
            return Ok(Post { listed, keeper: None });
        };
        let server = &listed.server.address;
        if let Some(keeper) = self.lock().find(|keeper| keeper.is_for(&plugin, server)) {
            return Ok(Post { listed, keeper: Some(keeper) });
        }
        let side = Side::BeforeServer(listed.server.address.clone());
        let roster = Arc::downgrade(self);
        let keeper = Keeper::start(plugin, side, move || {
            if let Some(roster) = Weak::upgrade(&roster) {
                roster.publish(&roster.lock());
            }
        })?;
        Ok(Post { listed, keeper: Some(Arc::new(keeper)) })
    }

    /// Tells sessions that begin from here on where the servers are to be found.
    fn publish(&self, posts: &Posts) {
        self.servers.replace_servers(posts.current.iter().map(Post::server).collect());
    }

    fn lock(&self) -> MutexGuard<'_, Posts> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Posts {
    fn keepers(&self) -> Vec<Arc<Keeper>> {
        let mut all = self.keepers_of_current();
        all.extend(self.retired.iter().cloned());
        all
    }

    fn keepers_of_current(&self) -> Vec<Arc<Keeper>> {
        self.current.iter().filter_map(|post| post.keeper.clone()).collect()
    }

    /// A keeper that is at work, or was until a moment ago.
    fn find(&self, mut is_wanted: impl FnMut(&Arc<Keeper>) -> bool) -> Option<Arc<Keeper>> {
        self.current.iter().filter_map(|post| post.keeper.as_ref()).find(|keeper| is_wanted(keeper)).cloned()
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
    keepers: Vec<Arc<Keeper>>,
}

impl Fronts {
    /// Finds out whether the plugins will be able to listen, and where: port 0 becomes a free one.
    pub(crate) fn prepare(fronts: &mut [Front]) -> Result<(), StartError> {
        for front in fronts {
            let listen = front.listen;
            front.listen = match TcpListener::bind(listen).and_then(|listener| listener.local_addr()) {
                Ok(free) => free,
                // The plugin may be allowed what we are not.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => listen,
                Err(source) => return Err(StartError { what: format!("listen on {listen}"), source }),
            };
        }
        Ok(())
    }

    /// Starts the plugins in front of the doors of `relay`.
    pub(crate) fn start(fronts: &[Front], relay: &Relay) -> Result<Self, String> {
        let mut keepers = Vec::new();
        for Front { inbound, listen, plugin } in fronts {
            let door = *relay.addresses().get(*inbound).ok_or("a door is missing")?;
            let side = Side::BeforeDoor { listen: *listen, door };
            keepers.push(Arc::new(Keeper::start(plugin.clone(), side, || {})?));
        }
        Ok(Self { keepers })
    }

    /// Blocks until all plugins listen, for a while, or until there `is_no_need` to wait.
    pub(crate) fn wait_for_plugins(&self, is_no_need: impl FnMut() -> bool) {
        wait_until_listening(&self.keepers, is_no_need);
    }

    /// Ends all plugins.
    pub(crate) fn end(self) {
        end_all(&self.keepers);
    }
}
