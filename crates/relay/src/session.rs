//! The life of one stream, top to bottom: understand, reach, answer, carry.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;
use umbra_proto::request::Command;
use umbra_proto::shadowsocks::head::HeadError;
use umbra_proto::shadowsocks::replay::SaltRefusal;

use crate::associate::associate;
use crate::bind::bind;
use crate::conn::Conn;
use crate::door::{Door, NetClock};
use crate::drive::{Inbox, write_all};
use crate::failure::{Cause, Failure, Side, Stage, Whereabouts};
use crate::first_flight::first_flight;
use crate::http::converse;
use crate::inbound::{ClientSide, Wish, dismiss, understand};
use crate::limits::{DELIVERY_LOOK_DELAY, DELIVERY_LOOK_DELAY_MAX, HANDSHAKE_SECS_MAX, SILENCE_SECS_MAX};
use crate::net::{Net, Socket};
use crate::origin::Origin;
use crate::path::{Errand, TargetSide, reach, unless_gone};
use crate::places::Place;
use crate::pump::{Ended, Flow, FlowError, pump};

/// Both ends, connected and agreed.
pub(crate) struct Session<C, T> {
    client: C,
    target: T,
    uplink: Flow,
    downlink: Flow,
    /// Who is at the other end of the target's connection.
    whereabouts: Whereabouts,
}

/// A client that has been told that its way stands: bytes follow.
pub(crate) struct Way<S> {
    /// The client.
    pub(crate) client: S,
    /// What it has already said.
    pub(crate) inbox: Inbox,
    /// The target.
    pub(crate) target: TargetSide<S>,
}

/// Serves one client of `door` from its first byte to its last.
pub async fn run<N: Net>(door: Arc<Door<N>>, place: Place, client: N::Socket, source: SocketAddr) {
    // Boxed, so that what only the beginning needs is given back before the long part begins. And what a future owns twice, an idle
    // session pays twice: nothing of the outcome is left but the session.
    let mut session = match Box::pin(establish(&door, &place, client, source)).await {
        Ok(Some(session)) => session,
        Ok(None) | Err(Unserved::Told) => return,
        Err(Unserved::Failed(failure)) => return door.notices.failure(&failure),
    };
    session.first_flight(&door).await;
    let ended = session.carry(&door).await;
    if let Err(failure) = session.end(&door, ended).await {
        door.notices.failure(&failure);
    }
}

/// Why there is nothing to carry.
enum Unserved {
    /// This, which has not been told yet.
    Failed(Failure),
    /// It has been told, before a client was seen off that may take its time.
    Told,
}

impl From<Failure> for Unserved {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Up to where bytes are carried; nothing, if all that the client wanted was done on the way.
///
/// What is rare is boxed on its own, here and below, so that a session that is only connected does not have its size.
async fn establish<N: Net>(
    door: &Arc<Door<N>>,
    place: &Place,
    client: N::Socket,
    source: SocketAddr,
) -> Result<Option<Session<N::Socket, Conn<N::Socket>>>, Unserved> {
    let (mut origin, mut inbox) = (Origin::of_connection(source), Inbox::default());
    let wish = hear(door, place, &client, &mut origin, &mut inbox).await?;
    debug!(target = %wish.target(), source = %origin.source, user = wish.user(), "connecting");
    if !door.inbound.mode.has_streams() && wish.command() != Command::UdpAssociate {
        let failure = Failure::handshake(Cause::Command(wish.command()));
        return Err(Box::pin(turn_away(door, wish, &client, &failure)).await);
    }
    match wish {
        Wish::Forward { users, .. } => {
            Box::pin(async {
                let way = converse(door, users, client, &origin, inbox).await?;
                let Some(way) = way else { return Ok(None) };
                let header = origin.header(door, &way.client);
                Ok(Some(way.begin(header)))
            })
            .await
        }
        Wish::Proxy(pending) if pending.command() == Command::Bind => {
            Box::pin(async {
                let way = bind(door, client, inbox, pending, &origin).await?;
                // Whoever has come expects no header: to them we are the one who was called.
                Ok(Some(way.begin(None)))
            })
            .await
        }
        Wish::Proxy(pending) if pending.command() == Command::UdpAssociate => {
            Box::pin(associate(door, client, inbox, pending, &origin)).await?;
            Ok(None)
        }
        wish @ (Wish::Proxy(_) | Wish::Tunnel(_) | Wish::Shadowsocks { .. } | Wish::PassOn { .. }) => {
            let (side, target) = connect(door, wish, &client, &mut inbox, &origin).await?;
            let header = origin.header(door, &client);
            Ok(Some(Session::new(client, side, inbox, header, target)))
        }
    }
}

/// Hears what a client wants. Whoever says it wrong is dismissed.
async fn hear<'d, N: Net>(
    door: &'d Door<N>,
    place: &Place,
    client: &N::Socket,
    origin: &mut Origin,
    inbox: &mut Inbox,
) -> Result<Wish<'d>, Unserved> {
    // One for both, so that whoever is dismissed keeps the turn in which its place is wanted.
    let mut over = pin!(patience(place, Instant::now()));
    let understood = tokio::select! {
        biased;
        understood = understand(door, client, origin, inbox) => understood,
        cause = over.as_mut() => Err(cause),
    };
    let cause = match understood {
        Ok(wish) => return Ok(wish),
        Err(cause) => cause,
    };
    inbox.clear();
    blame(door, origin, &cause);
    let failure = Failure::handshake(cause);
    door.notices.failure(&failure);
    Box::pin(dismiss(door, client, &failure.cause, over)).await;
    Err(Unserved::Told)
}

/// Reaches the target of a client that wants to be connected, and tells it so.
async fn connect<N: Net>(
    door: &Arc<Door<N>>,
    wish: Wish<'_>,
    client: &N::Socket,
    inbox: &mut Inbox,
    origin: &Origin,
) -> Result<(ClientSide, TargetSide<N::Socket>), Unserved> {
    if !wish.has_early() {
        inbox.drop_spent();
    }
    let target = match seek(door, &wish, client, origin).await {
        Ok(target) => target,
        Err(failure) => {
            inbox.clear();
            return Err(Box::pin(turn_away(door, wish, client, &failure)).await);
        }
    };
    let mut answer = Vec::new();
    let accepted = wish.accept(door, &target, &mut answer);
    let told = write_all(client, &answer).await.map_err(Cause::Io);
    match told.and(accepted) {
        Ok(side) => Ok((side, target)),
        Err(cause) => {
            // To the target an orderly end would be a client that had nothing to say.
            client.reset();
            target.socket.reset();
            Err(Failure::handshake(cause).into())
        }
    }
}

/// Reaches the target of `wish`, unless `client` is gone before.
async fn seek<N: Net>(
    door: &Arc<Door<N>>,
    wish: &Wish<'_>,
    client: &N::Socket,
    origin: &Origin,
) -> Result<TargetSide<N::Socket>, Failure> {
    let unanswered = Unfinished::new(client);
    let errand = Errand::new(wish.command(), wish.target(), wish.forbidden(door));
    let reaching = pin!(reach(door, wish.who(origin.source.ip()), errand));
    let reached = unless_gone(client, reaching).await;
    unanswered.finish();
    reached
}

/// Tells the operator and then the client why its wish is not granted.
async fn turn_away<N: Net>(
    door: &Door<N>,
    wish: Wish<'_>,
    client: &N::Socket,
    failure: &Failure,
) -> Unserved {
    door.notices.failure(failure);
    wish.reject(client, failure).await;
    Unserved::Told
}

impl<S: Socket> Way<S> {
    /// The session along this way. The target hears `header` first.
    fn begin(self, header: Option<Vec<u8>>) -> Session<S, Conn<S>> {
        let Self { client, inbox, target } = self;
        Session::new(client, ClientSide::plain(), inbox, header, target)
    }
}

/// Ends when a client that `connected` then and has not been understood is let go, and says why: at its deadline, or as soon as its
/// place is wanted once it has had its time to speak. Whoever has said something wrong waits here as if it had said too little.
async fn patience(place: &Place, connected: Instant) -> Cause {
    let mut over = pin!(sleep_until(connected + SILENCE_SECS_MAX));
    over.as_mut().await;
    over.as_mut().reset(connected + HANDSHAKE_SECS_MAX);
    let wanted = Box::pin(place.wanted());
    tokio::select! {
        biased;
        () = over => Cause::Deadline,
        () = wanted => Cause::Displaced,
    }
}

/// Names the source of a bad head to whoever bans such.
fn blame<N: Net>(door: &Door<N>, origin: &Origin, cause: &Cause) {
    match cause {
        // Our own want of room is nobody's to be banned for.
        Cause::Head(HeadError::Salt(SaltRefusal::Full)) => {}
        Cause::Head(_) => door.notices.bad_head(origin.source),
        Cause::Io(_) | Cause::Deadline | Cause::Displaced | Cause::Truncated | Cause::TooLong => {}
        Cause::NoAddress | Cause::Forbidden(_) | Cause::Proxy(_) | Cause::Header(_) | Cause::Http(_) => {}
        Cause::Command(_) | Cause::Parent(_) | Cause::Open(_) => {}
        Cause::Refused { .. } | Cause::NoPath | Cause::Unanswered | Cause::Probe(_) => {}
    }
}

impl<C: Socket, T: Socket> Session<C, Conn<T>> {
    /// Both ends with what has already been said. The target hears `header` first.
    pub(crate) fn new(
        client: C,
        side: ClientSide,
        inbox: Inbox,
        header: Option<Vec<u8>>,
        target: TargetSide<T>,
    ) -> Self {
        let (batch, early) = match header {
            None => (inbox.into_batch(), side.early),
            Some(header) => {
                let (batch, early) = inbox.into_batch_behind(&header, side.early);
                (Some(batch), early)
            }
        };
        let uplink = Flow::new(side.reader, target.writer, batch, early);
        let downlink = Flow::new(target.reader, side.writer, target.inbox.into_batch(), 0..0);
        Self { client, target: target.socket, uplink, downlink, whereabouts: target.whereabouts }
    }

    /// All that is left of a session.
    pub(crate) async fn run<N: Net>(mut self, door: &Door<N>) -> Result<(), Failure> {
        self.first_flight(door).await;
        let ended = self.carry(door).await;
        self.end(door, ended).await
    }

    /// Lets first payload ride with the request's head, if the client has some to send; one that waits for the server to speak
    /// first is not kept waiting.
    async fn first_flight<N: Net>(&mut self, door: &Door<N>) {
        if !self.uplink.owes_request() {
            return;
        }
        let begun = (Unfinished::new(&self.client), Unfinished::new(&self.target));
        tokio::select! {
            biased;
            // A failing client is the pump's to report.
            _ = poll_fn(|cx| self.client.poll_readable(cx)) => {}
            () = first_flight() => self.uplink.begin_without_payload(&NetClock(&door.net)),
        }
        begun.0.finish();
        begun.1.finish();
    }

    async fn carry<N: Net>(&mut self, door: &Door<N>) -> Ended {
        let Self { client, target, uplink, downlink, whereabouts: _ } = self;
        let ends = (Unfinished::new(client), Unfinished::new(target));
        let ended = pump(client, target, uplink, downlink, &NetClock(&door.net), door.inbound.idle).await;
        if let Ended::Whole = ended {
            ends.1.finish();
        }
        if ended.is_targets() || matches!(ended, Ended::Whole) {
            // Of what a failed target has said before, the client's reset would overtake what is still on its way: see `end`.
            ends.0.finish();
        }
        ended
    }

    /// Tells how the session has ended, and lets go of its ends.
    async fn end<N: Net>(mut self, door: &Door<N>, ended: Ended) -> Result<(), Failure> {
        debug!(uplink = self.uplink.carried(), downlink = self.downlink.carried(), "session ended");
        let is_targets = ended.is_targets();
        let failure = match ended {
            Ended::Whole => {
                self.target.finish();
                return Ok(());
            }
            Ended::Idle => Failure::new(Stage::Relay, Side::Inbound, Cause::Deadline),
            Ended::Uplink(error) => self.failure_of(error, Side::Inbound, Side::Outbound),
            Ended::Downlink(error) => self.failure_of(error, Side::Outbound, Side::Inbound),
        };
        if is_targets {
            let Self { client, .. } = self;
            Box::pin(reset_behind(&client, door.inbound.idle)).await;
        }
        Err(failure)
    }

    fn failure_of(&self, error: FlowError, source: Side, sink: Side) -> Failure {
        let (side, cause) = match error {
            FlowError::Read(error) => (source, Cause::Io(error)),
            FlowError::Open(error) => (source, Cause::Open(error)),
            FlowError::Truncated => (source, Cause::Truncated),
            FlowError::Write(error) => (sink, Cause::Io(error)),
        };
        let failure = Failure::new(Stage::Relay, side, cause);
        match side {
            Side::Outbound => self.whereabouts.of(failure),
            Side::Inbound => failure,
        }
    }
}

/// An end that may not take what it has got for the whole: it is reset unless this is finished, also where the process ends in
/// the middle of a session.
pub(crate) struct Unfinished<'a, S: Socket>(&'a S);

impl<'a, S: Socket> Unfinished<'a, S> {
    pub(crate) fn new(end: &'a S) -> Self {
        Self(end)
    }

    pub(crate) fn finish(self) {
        std::mem::forget(self);
    }
}

impl<S: Socket> Drop for Unfinished<'_, S> {
    fn drop(&mut self) {
        self.0.reset();
    }
}

/// Resets `client`, which is to have all that was written to it before: a reset discards what the kernel has not delivered. Nothing is waited
/// for where there is nothing of that kind, where the client has broken off, and for no longer than `patience` while it takes nothing.
pub(crate) async fn reset_behind<S: Socket>(client: &S, patience: Duration) {
    let _reset_then = Unfinished::new(client);
    let mut undelivered = client.undelivered_bytes();
    if undelivered == 0 {
        return;
    }
    let delivered = async {
        let (mut since, mut pause) = (Instant::now(), DELIVERY_LOOK_DELAY);
        while undelivered > 0 && since.elapsed() < patience {
            sleep(pause).await;
            let before = std::mem::replace(&mut undelivered, client.undelivered_bytes());
            if undelivered < before {
                (since, pause) = (Instant::now(), DELIVERY_LOOK_DELAY);
            } else {
                pause = (pause * 2).min(DELIVERY_LOOK_DELAY_MAX);
            }
        }
    };
    tokio::select! {
        biased;
        () = delivered => {}
        () = client.broken() => {}
    }
}
