//! The real program under attack: bad peers, cut lines, empty pockets, and the real kernel in between.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod datagrams;
mod descriptors;
mod doors;
mod endings;
mod pressure;
mod probing;
#[path = "../running/program.rs"]
mod program;
mod resets;
mod secrets;
mod socks;
mod stage;
mod tampering;
