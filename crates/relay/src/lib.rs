//! Umbra's sessions: tokio and every socket live here.
//!
//! A session comes in through an inbound, says where it wants to go, the path there is dialled, and the pump carries bytes both
//! ways until both ways have ended. Read [`session`] first: it is that sentence as code.
//!
//! - [`config`]: what a relay is told to do.
//! - [`session`], `inbound`, `path`, `dial`, `drive`: from a client's first byte to an open way.
//! - `pump`, `batch`: the data path and its buffers.
//! - `door`, `worker`: what sessions share, and the threads they live on.
//! - [`net`]: the only door to the outside; a simulation stands in for it in tests.
//! - [`failure`], `notice`: how and why a session failed, and who is told.
//! - [`limits`]: every bound, with its reason.

#![deny(unsafe_code)]

mod batch;
mod bind;
pub mod config;
mod dial;
mod door;
mod drive;
pub mod failure;
mod first_flight;
mod http;
mod inbound;
pub mod limits;
pub mod net;
mod notice;
mod origin;
mod parent;
mod path;
mod pipe;
mod places;
mod pump;
pub mod session;
mod worker;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use tokio::sync::watch;

use config::{Config, Protocol};
pub use door::Door;
use limits::{DOOR_DESCRIPTORS, RESERVED_DESCRIPTORS, SESSION_DESCRIPTORS, WORKER_DESCRIPTORS};
use net::os::{self, OsNet, Watched};
pub use places::Place;
use places::Places;
use worker::{Accepting, Seat, Worker};

/// A running relay: its doors are open and its workers serve.
#[derive(Debug)]
pub struct Relay {
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<()>,
    workers: Vec<JoinHandle<()>>,
}

/// Why a relay did not start. Nothing is left running.
#[derive(Debug)]
pub struct StartError {
    /// What could not be done, in words: "listen on 127.0.0.1:1080".
    pub what: String,
    /// The system's answer.
    pub source: io::Error,
}

impl Relay {
    /// Opens every door, then starts the workers.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let (workers, seats) = hire(config.workers)?;
        let (addresses, mut accepting) = open_doors(config, &workers, &seats)?;
        let (stop, stopped) = watch::channel(());
        let mut relay = Self { addresses, stop, workers: Vec::new() };
        for (index, worker) in workers.into_iter().enumerate() {
            let (accepting, stopped) = (std::mem::take(&mut accepting), stopped.clone());
            let thread = Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker.run(accepting, stopped))
                .map_err(|source| StartError { what: "start a worker".into(), source })?;
            relay.workers.push(thread);
        }
        Ok(relay)
    }

    /// Where each inbound listens, in the configuration's order, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Closes the doors, ends every session and waits for the workers.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // A worker that is gone already needs no telling.
        let _ = self.stop.send(());
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker ended with a panic");
            }
        }
    }
}

fn hire(count: NonZeroUsize) -> Result<(Vec<Worker>, Arc<[Seat]>), StartError> {
    let hired = (0..count.get()).map(|_| Worker::new()).collect::<io::Result<Vec<_>>>();
    let (workers, seats): (Vec<_>, Vec<_>) =
        hired.map_err(|source| StartError { what: "make a worker".into(), source })?.into_iter().unzip();
    Ok((workers, seats.into()))
}

/// Opens every door for the first worker to watch.
fn open_doors(
    config: &Config,
    workers: &[Worker],
    seats: &Arc<[Seat]>,
) -> Result<(Vec<SocketAddr>, Vec<Accepting>), StartError> {
    let doors = config.inbounds.len();
    let reserved = RESERVED_DESCRIPTORS + workers.len() * WORKER_DESCRIPTORS + doors * DOOR_DESCRIPTORS;
    let sessions_max = os::descriptors_max().saturating_sub(reserved) / SESSION_DESCRIPTORS;
    let places = Places::share(sessions_max, doors);
    let _context = workers.first().map(|worker| worker.runtime.enter());
    let mut opened = (Vec::new(), Vec::new());
    for (inbound, places) in config.inbounds.iter().zip(places) {
        let speak_first = matches!(inbound.protocol, Protocol::Proxy(_));
        let (address, listener) = os::listen(inbound.listen, inbound.tcp, speak_first)
            .and_then(|listener| Ok((listener.local_addr()?, Watched::new(listener)?)))
            .map_err(|source| StartError { what: format!("listen on {}", inbound.listen), source })?;
        let door = Arc::new(Door::among(inbound.clone(), OsNet, places));
        opened.0.push(address);
        opened.1.push(Accepting { door, listener, seats: Arc::clone(seats) });
    }
    Ok(opened)
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.source)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
