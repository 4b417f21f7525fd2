//! Datagrams from a client through doors to targets and back, over a network that loses, doubles, delays and reorders.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod bounds;
mod forms;
mod life;
mod members;
mod names;
mod route;
mod rules;
mod told;
mod wire;
