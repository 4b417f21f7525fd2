//! Datagrams of the simulated network, beside its connections.
//!
//! - [`net`]: who is at an address, and what happens on the way there.
//! - [`sockets`]: a worker's sockets, for the relay's engine.
//! - [`peer`]: a socket for clients, targets and attackers.

pub mod net;
pub mod peer;
pub mod sockets;

pub use net::{Count, DatagramNet, Impairments, Seen};
pub use peer::DatagramPeer;
pub use sockets::SimDatagrams;
