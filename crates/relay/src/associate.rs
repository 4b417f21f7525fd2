//! UDP ASSOCIATE: the control connection of a SOCKS5 client's datagrams, which live as long as it does.

use std::net::SocketAddr;

use tokio::time::{Instant, timeout_at};
use umbra_proto::detect::Pending;
use umbra_proto::request::Command;

use crate::door::Door;
use crate::drive::{Inbox, write_all};
use crate::failure::{Cause, Failure};
use crate::inbound::see_off;
use crate::limits::REFUSAL_SECS_MAX;
use crate::net::{Net, Socket};
use crate::origin::Origin;
use crate::session::Unfinished;
use crate::udp::front::Front;

/// Serves a UDP ASSOCIATE request until the client ends it, or nothing has been relayed for the idle time.
pub(crate) async fn associate<N: Net>(
    door: &Door<N>,
    client: N::Socket,
    mut inbox: Inbox,
    pending: Pending,
    origin: &Origin,
) -> Result<(), Failure> {
    let unanswered = Unfinished::new(&client);
    let mut answer = Vec::new();
    let (Some(Front::Proxy(permits)), Ok(bound)) = (&door.front, bound(door, &client)) else {
        unanswered.finish();
        let failure = Failure::handshake(Cause::Command(Command::UdpAssociate));
        pending.reject(failure.refusal(), &mut answer);
        if write_all(&client, &answer).await.is_ok() {
            see_off(&client, Instant::now() + REFUSAL_SECS_MAX).await;
        }
        return Err(failure);
    };
    client.watch_peer();
    // Before the answer, since the first datagram may overtake it. What the client says of its own address is its own idea of it, and
    // often another than we see; its port is worth a hint.
    let user = pending.user().map(|user| user.as_str().into());
    let permit = permits.grant(origin.source.ip(), pending.target().port(), user);
    pending.accept(Some(bound), &mut answer);
    write_all(&client, &answer).await.map_err(|error| Failure::handshake(Cause::Io(error)))?;
    let idle = door.inbound.udp_timeout().map_or(door.inbound.idle, |timeout| timeout.max(door.inbound.idle));
    let mut carried = 0;
    loop {
        let departure = depart(&client, &mut inbox);
        if timeout_at(Instant::now() + idle, departure).await.is_ok() {
            break;
        }
        // As a session that carries nothing, it ends; the client may ask again.
        if permit.carried() == std::mem::replace(&mut carried, permit.carried()) {
            break;
        }
    }
    unanswered.finish();
    Ok(())
}

/// Ends when the client has. Nothing is to be said on the connection any more, so what comes is thrown away.
async fn depart<S: Socket>(client: &S, inbox: &mut Inbox) {
    loop {
        inbox.clear();
        match inbox.read(client).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Where the client's datagrams are to go: our end of its connection is an address that it can reach.
fn bound<N: Net>(door: &Door<N>, client: &N::Socket) -> std::io::Result<SocketAddr> {
    let port = door.datagrams_at.ok_or(std::io::ErrorKind::Unsupported)?.port();
    Ok(SocketAddr::new(client.local_addr()?.ip().to_canonical(), port))
}
