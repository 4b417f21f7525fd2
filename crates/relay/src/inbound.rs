//! Learns what a client wants, and lets go of one that is wrong.

use std::future::{pending, poll_fn};
use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::ops::Range;

use tokio::time::{Instant, timeout_at};
use umbra_proto::address::Address;
use umbra_proto::detect::{self, Pending};
use umbra_proto::forbidden::Forbidden;
use umbra_proto::http;
use umbra_proto::request::Command;
use umbra_proto::shadowsocks::head::{Forward, Head, HeadError, Request};
use umbra_proto::shadowsocks::stream::Sealer;
use umbra_proto::users::{UserName, Users};

use crate::batch::{Batch, Size};
use crate::config::ProxyDoor;
use crate::dial::NOTHING_FORBIDDEN;
use crate::door::{Door, ServerSide, Speech};
use crate::drive::{DriveError, Inbox, drive, write_all};
use crate::failure::{Cause, Failure};
use crate::limits::{DISCARDED_BYTES_MAX, REFUSAL_SECS_MAX};
use crate::net::{Net, Socket};
use crate::origin::Origin;
use crate::path::{Asker, TargetSide, Who};
use crate::pump::{Reader, Writer};

/// What a client wants, understood and not yet answered.
pub(crate) enum Wish<'d> {
    /// Of a client that waits for an answer in its protocol's words.
    Proxy(Pending),
    /// Of an HTTP client: to have requests forwarded, the first of which lies untouched in the inbox.
    Forward {
        /// Whose resource the first one is.
        target: Address,
        /// Who may ask.
        users: Option<&'d Users>,
    },
    /// Of whoever comes to a tunnel, and is told nothing.
    Tunnel(&'d Address),
    /// Of a Shadowsocks client, which has been told nothing and expects nothing before the target speaks.
    Shadowsocks {
        /// The request.
        request: Request,
        /// Whose keys it was opened with.
        server: &'d ServerSide,
    },
    /// Of a Shadowsocks client whom another server understands: what it sent is in the inbox, ready to be sent there.
    PassOn {
        /// Who and where.
        forward: Forward,
        /// Whose identity key named them.
        server: &'d ServerSide,
    },
}

/// The client's half of a session's two flows.
pub(crate) struct ClientSide {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// Where payload lies in the inbox that has already been opened.
    pub(crate) early: Range<usize>,
}

/// Speaks with the client, and with a load balancer before it, until it has said what it wants.
pub(crate) async fn understand<'d, N: Net>(
    door: &'d Door<N>,
    client: &N::Socket,
    origin: &mut Origin,
    inbox: &mut Inbox,
) -> Result<Wish<'d>, Cause> {
    origin.learn(door, client, inbox).await?;
    match &door.speech {
        Speech::Tunnel(target) => Ok(Wish::Tunnel(target)),
        Speech::Proxy(proxy) => {
            let (request, _) = drive(detect::Server::new(options(proxy)), client, inbox).await?;
            match request {
                detect::Request::Tunnel(pending) => Ok(Wish::Proxy(pending)),
                detect::Request::Forward(http::Forward { target, .. }) => {
                    Ok(Wish::Forward { target, users: proxy.users.as_deref() })
                }
            }
        }
        Speech::Shadowsocks(server) => {
            let head = match drive(server.expect_head(), client, inbox).await? {
                (Head::Authentic(head), _) => head,
                (Head::Forward(forward), _) => return Ok(Wish::PassOn { forward, server }),
            };
            let expect = server.admit(head, door.net.unix_time()).map_err(Cause::Head)?;
            let (mut request, start) = drive(expect, client, inbox).await?;
            request.early = start + request.early.start..start + request.early.end;
            Ok(Wish::Shadowsocks { request, server })
        }
    }
}

fn options(door: &ProxyDoor) -> detect::Options<'_> {
    let ProxyDoor { socks4, socks5, http, ref users } = *door;
    detect::Options { socks4, socks5, http, users: users.as_deref() }
}

impl Wish<'_> {
    /// Where the client wants to go.
    pub(crate) fn target(&self) -> &Address {
        match self {
            Self::Proxy(pending) => pending.target(),
            Self::Forward { target, .. } => target,
            Self::Tunnel(target) => target,
            Self::Shadowsocks { request, .. } => &request.target,
            Self::PassOn { forward, .. } => &forward.to,
        }
    }

    /// What the operator calls the client, if it is one of several users.
    pub(crate) fn user(&self) -> Option<&str> {
        match self {
            Self::Proxy(pending) => pending.user().map(UserName::as_str),
            // Each of its requests is somebody's.
            Self::Forward { .. } | Self::Tunnel(_) => None,
            Self::Shadowsocks { request, server } => server.keyring.name(request.holder),
            Self::PassOn { forward, server } => server.keyring.name(forward.holder),
        }
    }

    /// Where the client must not go. The next server on the way of a stream is the operator's choice, and no target.
    pub(crate) fn forbidden<'a, N: Net>(&self, door: &'a Door<N>) -> &'a Forbidden {
        match self {
            Self::PassOn { .. } => &NOTHING_FORBIDDEN,
            Self::Proxy(_) | Self::Forward { .. } | Self::Tunnel(_) | Self::Shadowsocks { .. } => {
                &door.inbound.forbidden
            }
        }
    }

    /// Whose errand it is, if the client is at `source`. The next server on the way of a stream is the operator's choice.
    pub(crate) fn who(&self, source: IpAddr) -> Who<'_> {
        match self {
            Self::PassOn { .. } => Who::Operator,
            Self::Proxy(_) | Self::Forward { .. } | Self::Tunnel(_) | Self::Shadowsocks { .. } => {
                Who::Client(Asker { source, user: self.user() })
            }
        }
    }

    /// What the client wants of the target.
    pub(crate) fn command(&self) -> Command {
        match self {
            Self::Proxy(pending) => pending.command(),
            Self::Forward { .. } | Self::Tunnel(_) | Self::Shadowsocks { .. } | Self::PassOn { .. } => {
                Command::Connect
            }
        }
    }

    /// Whether payload that came with the wish lies opened in the inbox.
    pub(crate) fn has_early(&self) -> bool {
        match self {
            Self::Proxy(_) | Self::Forward { .. } | Self::Tunnel(_) | Self::PassOn { .. } => false,
            Self::Shadowsocks { request, .. } => !request.early.is_empty(),
        }
    }

    /// The client's half of the session now that the way stands. Appends to `answer` what the client is to be told of that, if its
    /// protocol has words for it.
    pub(crate) fn accept<N: Net>(
        self,
        door: &Door<N>,
        target: &TargetSide<N::Socket>,
        answer: &mut Vec<u8>,
    ) -> Result<ClientSide, Cause> {
        match self {
            Self::Proxy(pending) => {
                pending.accept(target.bound(), answer);
                Ok(ClientSide::plain())
            }
            // Nobody comes here with requests: each of them is answered by itself.
            Self::Forward { .. } | Self::Tunnel(_) | Self::PassOn { .. } => Ok(ClientSide::plain()),
            Self::Shadowsocks { request, server } => {
                let salt = door.salt(server.keyring.method())?;
                server.remember(salt, door.net.unix_time());
                let key = server.keyring.key(request.holder);
                let writer = Writer::Sealed(Sealer::response(key, salt, request.salt));
                Ok(ClientSide { reader: Reader::Sealed(request.opener), writer, early: request.early })
            }
        }
    }

    /// Tells the client why there is no way, and lets it go.
    pub(crate) async fn reject<S: Socket>(self, client: &S, failure: &Failure) {
        match self {
            Self::Proxy(pending) => {
                let mut answer = Vec::new();
                pending.reject(failure.refusal(), &mut answer);
                if write_all(client, &answer).await.is_ok() {
                    see_off(client, Instant::now() + REFUSAL_SECS_MAX).await;
                }
            }
            // An orderly end would read as an empty answer of the target.
            Self::Forward { .. } | Self::Tunnel(_) | Self::Shadowsocks { .. } | Self::PassOn { .. } => {
                client.reset();
            }
        }
    }
}

impl ClientSide {
    /// Of a client whose bytes are carried as they are.
    pub(crate) fn plain() -> Self {
        Self { reader: Reader::Plain, writer: Writer::Plain, early: 0..0 }
    }
}

/// Lets go of a client whose handshake failed.
///
/// To a Shadowsocks server's peer every failure looks the same at every length: bytes are read and thrown away, nothing is
/// said, and the connection is reset when it is `over`, as it would be if the head were unfinished still (SIP022, 3.1.3). Only a peer
/// that ends first gets an end.
pub(crate) async fn dismiss<N: Net>(
    door: &Door<N>,
    client: &N::Socket,
    cause: &Cause,
    over: impl Future<Output = Cause>,
) {
    match (&door.speech, cause) {
        // A connection that is gone, or whose peer has ended it, has nobody to hide from.
        (_, Cause::Io(_) | Cause::Truncated) => {}
        // Whoever is trusted to send a header and does not is told nothing.
        (_, Cause::Header(_) | Cause::Displaced) => client.reset(),
        (Speech::Proxy(_), Cause::Proxy(detect::Error::Protocol(_))) => {}
        (Speech::Proxy(_) | Speech::Tunnel(_), _) => see_off(client, Instant::now() + REFUSAL_SECS_MAX).await,
        (Speech::Shadowsocks(_), Cause::Deadline) => client.reset(),
        (Speech::Shadowsocks(_), _) => {
            let ended = tokio::select! {
                biased;
                ended = discard(client) => ended.is_ok(),
                _ = over => false,
            };
            if !ended {
                client.reset();
            }
        }
    }
}

/// Ends our direction and waits for the peer to end its own, so that unread bytes do not turn the last words into a reset.
pub(crate) async fn see_off<S: Socket>(client: &S, deadline: Instant) {
    if client.shutdown_write().is_ok() {
        // Whether the peer ended or the time did, the connection closes now.
        let _ = timeout_at(deadline, discard(client)).await;
    }
}

/// Reads and throws away, up to a bound, until the peer ends; a peer that sends more is left to its closed window.
async fn discard<S: Socket>(client: &S) -> io::Result<()> {
    let mut left = DISCARDED_BYTES_MAX;
    while left > 0 {
        poll_fn(|cx| client.poll_readable(cx)).await?;
        let mut batch = Batch::take(Size::Small);
        match client.try_read(&mut [IoSliceMut::new(&mut batch.bytes)]) {
            Ok(0) => return Ok(()),
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    pending().await
}

impl From<DriveError<detect::Error>> for Cause {
    fn from(error: DriveError<detect::Error>) -> Self {
        Self::of_drive(error, Self::Proxy)
    }
}

impl From<DriveError<HeadError>> for Cause {
    fn from(error: DriveError<HeadError>) -> Self {
        Self::of_drive(error, Self::Head)
    }
}

impl Cause {
    /// What came of a handshake, where `peer` says what it means that the peer is wrong.
    pub(crate) fn of_drive<E>(error: DriveError<E>, peer: impl FnOnce(E) -> Self) -> Self {
        match error {
            DriveError::Io(error) => Self::Io(error),
            DriveError::Ended => Self::Truncated,
            DriveError::TooLong => Self::TooLong,
            DriveError::Peer(error) => peer(error),
        }
    }
}
