//! The Shadowsocks servers that carry datagrams, with what is made of their keys once.

use std::sync::Arc;

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::packet::PacketHop;

use crate::config::Server;

/// Servers as they were last seen. They may be replaced at any time; associations keep theirs.
#[derive(Default)]
pub(super) struct Hops {
    of: Option<Arc<[Server]>>,
    hops: Vec<(Arc<PacketHop>, Address)>,
}

impl Hops {
    /// Those of `servers` that datagrams can be sent to, and where.
    pub(super) fn of(&mut self, servers: Arc<[Server]>) -> &[(Arc<PacketHop>, Address)] {
        if !self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &servers)) {
            let hop = |server: &Server| {
                let hop = PacketHop::new(&server.credentials, server.one_time_auth);
                server.mode.datagrams().map(|address| (Arc::new(hop), address.clone()))
            };
            self.hops = servers.iter().filter_map(hop).collect();
            self.of = Some(servers);
        }
        &self.hops
    }
}
