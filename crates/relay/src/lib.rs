//! Umbra's sessions: tokio and every socket live here.
//!
//! A session comes in through an inbound, says where it wants to go, the path there is dialled, and the pump carries bytes both
//! ways until both ways have ended. Read [`session`] first: it is that sentence as code.
//!
//! - [`config`]: what a relay is told to do.
//! - [`session`], `inbound`, `path`, `dial`, `drive`: from a client's first byte to an open way.
//! - [`group`]: which of several members a session tries, and what is remembered of their health.
//! - `pump`, `batch`: the data path and its buffers.
//! - `door`, `worker`: what sessions share, and the threads they live on.
//! - [`net`]: the only door to the outside; a simulation stands in for it in tests.
//! - [`router`]: which way a session takes, pure.
//! - [`Account`], `tally`: what is counted of the ways out, and told.
//! - [`failure`], `notice`: how and why a session failed, and who is told.
//! - [`limits`]: every bound, with its reason.

#![deny(unsafe_code)]

mod account;
mod associate;
mod batch;
mod bind;
pub mod config;
mod conn;
mod dial;
mod door;
mod drive;
pub mod failure;
mod first_flight;
pub mod group;
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
mod probe;
mod pump;
#[cfg(test)]
#[path = "tests/refusing.rs"]
mod refusing;
mod route;
pub mod router;
pub mod session;
mod tally;
pub mod tls;
mod udp;
mod worker;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use tokio::sync::watch;

pub use account::Account;
use config::{Config, Inbound, Protocol};
pub use door::Door;
use limits::{
    CONDUIT_DESCRIPTORS, CONDUIT_SHARE, CONDUITS_IN_ALL_MAX, CONDUITS_MAX, DATAGRAM_SHARE, DOOR_DESCRIPTORS,
    PORT_ATTEMPTS, RESERVED_DESCRIPTORS, SESSION_DESCRIPTORS, SHARED_DOORS_MAX, WORKER_DESCRIPTORS,
};
use net::os::datagram::bind_door;
use net::os::{self, OsNet, Watched};
pub use places::Place;
use places::Places;
pub use probe::try_path;
pub use tally::{Counts, HopCounts};
pub use udp::Engine;
pub use udp::budget::Budget;
pub use udp::front::Workers;
use worker::{Accepting, DatagramDoors, Duties, Seat, Worker};

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

/// Descriptors that a process needs for a relay of `config` to start and to serve one session; each further one takes two.
pub fn descriptors_min(config: &Config) -> usize {
    Reserved::of(config).total() + SESSION_DESCRIPTORS
}

impl Relay {
    /// Opens every door, then starts the workers.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let (workers, seats) = hire(config.workers)?;
        let mut opened = open_doors(config, &workers, &seats)?;
        let (stop, stopped) = watch::channel(());
        let mut relay = Self { addresses: opened.addresses, stop, workers: Vec::new() };
        let engines = opened.datagrams.iter().filter(|datagrams| !datagrams.is_empty()).count();
        let mut budgets = Budget::share(opened.outgoing, engines).into_iter();
        for (index, (worker, datagrams)) in workers.into_iter().zip(opened.datagrams).enumerate() {
            let datagrams = {
                let _context = worker.runtime.enter();
                let budget = if datagrams.is_empty() { None } else { budgets.next() };
                budget
                    .map(|budget| DatagramDoors::watch(datagrams, budget))
                    .transpose()
                    .map_err(|source| StartError { what: "watch for datagrams".into(), source })?
            };
            let duties = Duties {
                // The first worker accepts for all.
                accepting: std::mem::take(&mut opened.accepting),
                datagrams,
                conduits: opened.conduits,
                stopped: stopped.clone(),
            };
            let thread = Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker.run(duties))
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

/// Doors that are open, and who is to watch them.
struct Opened {
    addresses: Vec<SocketAddr>,
    /// For the first worker.
    accepting: Vec<Accepting>,
    /// For each worker.
    datagrams: Vec<Vec<(Arc<Door<OsNet>>, UdpSocket)>>,
    /// Outgoing sockets of associations.
    outgoing: usize,
    /// Pipes of the kernel for each worker.
    conduits: usize,
}

/// Opens every door.
fn open_doors(config: &Config, workers: &[Worker], seats: &Arc<[Seat]>) -> Result<Opened, StartError> {
    let inbounds = &config.inbounds;
    let reserved = Reserved::of(config);
    let shared_by = reserved.shared_by;
    let share = Share::of(os::descriptors_max(), &reserved);
    let places = Places::share(share.sessions, inbounds.len());
    let _context = workers.first().map(|worker| worker.runtime.enter());
    let mut opened = Opened {
        addresses: Vec::with_capacity(inbounds.len()),
        accepting: Vec::with_capacity(inbounds.len()),
        datagrams: workers.iter().map(|_| Vec::new()).collect(),
        outgoing: share.outgoing,
        conduits: share.conduits,
    };
    for (number, (inbound, places)) in inbounds.iter().zip(places).enumerate() {
        let Listening { address, streams, datagrams } = listen(inbound, shared_by)?;
        let mut door = Door::among(inbound.clone(), OsNet, places);
        if let Some(at) = datagrams.first().and_then(|socket| socket.local_addr().ok()) {
            door = door.with_datagrams(at, datagrams.len().into());
        }
        let door = Arc::new(door);
        opened.addresses.push(address);
        for (turn, socket) in datagrams.into_iter().enumerate() {
            let worker = (number + turn) % workers.len();
            opened.datagrams[worker].push((Arc::clone(&door), socket));
        }
        if let Some(listener) = streams {
            let listener = Watched::new(listener).map_err(|source| cannot_listen(inbound.listen, source))?;
            opened.accepting.push(Accepting { door, listener, seats: Arc::clone(seats) });
        }
    }
    Ok(opened)
}

/// What an inbound listens at.
struct Listening {
    address: SocketAddr,
    streams: Option<TcpListener>,
    /// One for each worker that shares the door's datagrams.
    datagrams: Vec<UdpSocket>,
}

/// Opens what `inbound` listens at: one port for streams and datagrams.
fn listen(inbound: &Inbound, shared_by: usize) -> Result<Listening, StartError> {
    let attempts = if inbound.listen.port() == 0 { PORT_ATTEMPTS } else { 1 };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let streams = listen_for_streams(inbound).map_err(|source| cannot_listen(inbound.listen, source))?;
        let of_streams = streams.as_ref().map(|(address, _)| *address);
        match listen_for_datagrams(inbound, of_streams, shared_by) {
            Ok(datagrams) => {
                let of_datagrams = datagrams.first().and_then(|socket| socket.local_addr().ok());
                let address = of_streams.or(of_datagrams).unwrap_or(inbound.listen);
                return Ok(Listening { address, streams: streams.map(|(_, listener)| listener), datagrams });
            }
            // The kernel chose a port that is free for streams alone.
            Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse && attempt < attempts => {}
            Err((at, source)) => {
                return Err(StartError { what: format!("listen on {at} for datagrams"), source });
            }
        }
    }
}

fn listen_for_streams(inbound: &Inbound) -> io::Result<Option<(SocketAddr, TcpListener)>> {
    // An association has a control connection, whatever else comes in.
    let has_control = matches!(inbound.protocol, Protocol::Proxy(_));
    if !inbound.mode.has_streams() && !has_control {
        return Ok(None);
    }
    let listener = os::listen(inbound.listen, inbound.tcp, has_control)?;
    Ok(Some((listener.local_addr()?, listener)))
}

fn listen_for_datagrams(
    inbound: &Inbound,
    of_streams: Option<SocketAddr>,
    sockets: usize,
) -> Result<Vec<UdpSocket>, (SocketAddr, io::Error)> {
    let Some(udp) = inbound.mode.datagrams() else { return Ok(Vec::new()) };
    let at = udp.listen.or(of_streams).unwrap_or(inbound.listen);
    bind_door(at, sockets, udp.fragments).map_err(|error| (at, error))
}

fn cannot_listen(at: SocketAddr, source: io::Error) -> StartError {
    StartError { what: format!("listen on {at}"), source }
}

/// What takes descriptors whether or not anybody comes.
struct Reserved {
    workers: usize,
    doors: usize,
    /// Workers that share the datagrams of a door.
    shared_by: usize,
    /// Sockets for the datagrams of doors.
    for_datagrams: usize,
}

impl Reserved {
    fn of(config: &Config) -> Self {
        let (workers, doors) = (config.workers.get(), config.inbounds.len());
        let with_datagrams =
            config.inbounds.iter().filter(|inbound| inbound.mode.datagrams().is_some()).count();
        // Where there are many doors, each of them is not worth a socket on every worker.
        let shared_by = if with_datagrams <= SHARED_DOORS_MAX { workers } else { 1 };
        Self { workers, doors, shared_by, for_datagrams: with_datagrams * shared_by }
    }

    /// Descriptors.
    fn total(&self) -> usize {
        RESERVED_DESCRIPTORS
            + self.workers * WORKER_DESCRIPTORS
            + self.doors * DOOR_DESCRIPTORS
            + self.for_datagrams
    }
}

/// How the process's descriptors are shared out.
struct Share {
    /// Sessions.
    sessions: usize,
    /// Outgoing sockets of associations.
    outgoing: usize,
    /// Pipes of the kernel, each of them two descriptors, for each worker.
    conduits: usize,
}

impl Share {
    fn of(descriptors: usize, reserved: &Reserved) -> Self {
        let &Reserved { workers, for_datagrams, .. } = reserved;
        let left = descriptors.saturating_sub(reserved.total());
        let in_all = (left / CONDUIT_SHARE / CONDUIT_DESCRIPTORS).min(CONDUITS_IN_ALL_MAX);
        let conduits = (in_all / workers.max(1)).min(CONDUITS_MAX);
        let left = left - workers * conduits * CONDUIT_DESCRIPTORS;
        let outgoing = if for_datagrams > 0 { left / DATAGRAM_SHARE } else { 0 };
        Self { sessions: (left - outgoing) / SESSION_DESCRIPTORS, outgoing, conduits }
    }
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
