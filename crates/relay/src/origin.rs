//! Whose session it is: the address that the connection came from, or the one that a trusted load balancer tells in a PROXY header.

use std::net::SocketAddr;

use umbra_proto::proxy_header::{self, ExpectHeader, Header};

use crate::door::Door;
use crate::drive::{DriveError, Inbox, drive};
use crate::failure::Cause;
use crate::net::{Net, Socket};

/// Where a session comes from, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The client.
    pub(crate) source: SocketAddr,
    /// The address that the client connected to, if a load balancer has told it.
    destination: Option<SocketAddr>,
}

impl Origin {
    /// The end that the connection has.
    pub(crate) fn of_connection(source: SocketAddr) -> Self {
        Self { source, destination: None }
    }

    /// Reads the header that comes first from a trusted source; of anybody else it is not looked for.
    pub(crate) async fn learn<N: Net>(
        &mut self,
        door: &Door<N>,
        client: &N::Socket,
        inbox: &mut Inbox,
    ) -> Result<(), Cause> {
        let ip = self.source.ip().to_canonical();
        if !door.inbound.proxy_header.expect_from.iter().any(|trusted| trusted.contains(&ip)) {
            return Ok(());
        }
        match drive(ExpectHeader, client, inbox).await?.0 {
            // Its sender speaks for itself: a health check, mostly.
            Header::Unknown => {}
            Header::Proxied { source, destination } => {
                *self = Self { source, destination: Some(destination) };
            }
        }
        Ok(())
    }

    /// What the target's stream has to begin with, if it is to learn of `client`.
    pub(crate) fn header<N: Net>(&self, door: &Door<N>, client: &impl Socket) -> Option<Vec<u8>> {
        let version = door.inbound.proxy_header.send?;
        let header = match self.destination.or_else(|| client.local_addr().ok()) {
            Some(destination) => Header::Proxied { source: self.source, destination },
            None => Header::Unknown,
        };
        let mut bytes = Vec::new();
        header.encode(version, &mut bytes);
        Some(bytes)
    }
}

impl From<DriveError<proxy_header::Error>> for Cause {
    fn from(error: DriveError<proxy_header::Error>) -> Self {
        Self::of_drive(error, Self::Header)
    }
}
