//! A network from a seed: sockets, names, time and chance for tests of the relay, and peers to speak with it.
//!
//! Nothing here touches the system. Time is tokio's paused clock, chance is one generator, and everything runs on one
//! thread, so that a seed that fails once fails again. The relay runs as it is: its sessions, doors and pump, over
//! [`SimNet`] where the kernel would be.
//!
//! - [`seed`]: runs a scenario for each of many seeds, and says which one failed.
//! - [`chance`]: the generator.
//! - [`link`](mod@link): the manners of a connection: how it cuts, delays and breaks.
//! - [`socket`], [`net`]: connections with such manners, and the hosts and names that they lead to.
//! - [`datagrams`]: datagrams beside them, and who speaks in those.
//! - [`house`]: doors of the relay on the simulated network, with their sessions counted.
//! - [`street`]: ways from a client through doors to a target.
//! - [`tls`]: doors within TLS.
//! - [`peer`]: clients and targets, good and bad.
//! - [`log`](mod@log): what is logged meanwhile.

#![forbid(unsafe_code)]

pub mod chance;
pub mod datagrams;
pub mod house;
pub mod link;
pub mod log;
pub mod net;
pub mod peer;
pub mod seed;
pub mod socket;
pub mod street;
pub mod tls;
mod wire;

pub use chance::Chance;
pub use net::SimNet;
pub use socket::SimSocket;
