//! Opens a connection to an address or to the first address of a name that answers (RFC 8305).

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;
use umbra_proto::address::Address;
use umbra_proto::forbidden::{Forbidden, Rule};

use crate::config::Tcp;
use crate::failure::{Cause, Failure, Stage};
use crate::limits::{ADDRESSES_MAX, ATTEMPT_DELAY, DIAL_SECS_MAX, RESOLVE_SECS_MAX};
use crate::net::Net;

/// What the operator names may be anywhere.
pub(crate) static NOTHING_FORBIDDEN: Forbidden = Forbidden::NOTHING;

/// Connects to `address`, which the operator has named, resolving its name if it has one. Each of its addresses has `patience` to answer.
pub(crate) async fn dial<N: Net>(
    net: &N,
    address: &Address,
    tcp: Tcp,
    patience: Duration,
) -> Result<N::Socket, Failure> {
    dial_target(net, address, tcp, &NOTHING_FORBIDDEN, patience).await
}

/// Connects to `address`, which a client has named, unless it is forbidden. A name is judged by its addresses, the very ones that
/// are then dialled.
pub(crate) async fn dial_target<N: Net>(
    net: &N,
    address: &Address,
    tcp: Tcp,
    forbidden: &Forbidden,
    patience: Duration,
) -> Result<N::Socket, Failure> {
    let failure = |cause| Failure::outbound(Stage::Connect, cause);
    let connected = match address {
        Address::Ip(address) => {
            judge(*address, forbidden).map_err(|rule| failure(Cause::Forbidden(rule)))?;
            connect(net, *address, tcp, patience).await
        }
        Address::Name(name, port) => {
            let addresses = Box::pin(resolve(net, name.as_str(), *port)).await?;
            // Boxed: most targets have one address, and need no race.
            return Box::pin(dial_any(net, addresses, tcp, forbidden, patience)).await;
        }
    };
    connected.map_err(failure)
}

/// Connects to whichever of `addresses` answers first, but to none that is forbidden.
pub(crate) async fn dial_any<N: Net>(
    net: &N,
    addresses: Vec<SocketAddr>,
    tcp: Tcp,
    forbidden: &Forbidden,
    patience: Duration,
) -> Result<N::Socket, Failure> {
    let failure = |cause| Failure::outbound(Stage::Connect, cause);
    let addresses = allowed(addresses, forbidden).map_err(failure)?;
    let attempt = |to| connect(net, to, tcp, patience);
    match timeout(DIAL_SECS_MAX, race(interleave(&addresses), attempt)).await {
        Ok(connected) => connected.map_err(failure),
        Err(_) => Err(failure(Cause::Deadline)),
    }
}

/// Those of `addresses` that are not forbidden, of which there is one at least.
pub(crate) fn allowed(
    mut addresses: Vec<SocketAddr>,
    forbidden: &Forbidden,
) -> Result<Vec<SocketAddr>, Cause> {
    let mut broken = None;
    addresses.retain(|address| judge(*address, forbidden).map_err(|rule| broken = Some(rule)).is_ok());
    match broken {
        Some(rule) if addresses.is_empty() => Err(Cause::Forbidden(rule)),
        Some(_) | None => Ok(addresses),
    }
}

/// Which rule forbids `address`, if one does.
pub(crate) fn judge(address: SocketAddr, forbidden: &Forbidden) -> Result<(), Rule> {
    let Some(rule) = forbidden.check(address.ip()) else { return Ok(()) };
    // The words of the first implementation, and the one place that names the address.
    debug!(%rule, "IP {} is in forbidden list, reject", address.ip());
    Err(rule)
}

/// The addresses of a name, at least one.
pub(crate) async fn resolve<N: Net>(net: &N, name: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let failure = |cause| Failure::outbound(Stage::Resolve, cause);
    match timeout(RESOLVE_SECS_MAX, net.resolve(name, port)).await {
        Err(_) => Err(failure(Cause::Deadline)),
        // The system's resolver has no error kinds, and its text may hold the name.
        Ok(Err(_)) => Err(failure(Cause::NoAddress)),
        Ok(Ok(addresses)) if addresses.is_empty() => Err(failure(Cause::NoAddress)),
        Ok(Ok(addresses)) => Ok(addresses),
    }
}

async fn connect<N: Net>(
    net: &N,
    address: SocketAddr,
    tcp: Tcp,
    patience: Duration,
) -> Result<N::Socket, Cause> {
    match timeout(patience, net.connect(address, tcp)).await {
        Ok(connected) => connected.map_err(Cause::Io),
        Err(_) => Err(Cause::Deadline),
    }
}

/// Families in turn, the first address's family first, otherwise in the order given (RFC 8305, section 4).
fn interleave(addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let Some(first) = addresses.first() else { return VecDeque::new() };
    let (same, other): (Vec<_>, Vec<_>) =
        addresses.iter().partition::<Vec<SocketAddr>, _>(|address| address.is_ipv4() == first.is_ipv4());
    let mut order = VecDeque::with_capacity(addresses.len());
    for turn in 0..same.len().max(other.len()) {
        order.extend(same.get(turn));
        order.extend(other.get(turn));
    }
    order.truncate(ADDRESSES_MAX);
    order
}

/// Attempts one address after the other, the next one when an attempt fails or [`ATTEMPT_DELAY`] has passed; the first
/// connection wins and the other attempts are dropped. Gives the last failure if none wins.
async fn race<T, F: Future<Output = Result<T, Cause>>>(
    mut waiting: VecDeque<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, Cause> {
    let mut under_way: Vec<Pin<Box<F>>> = Vec::new();
    let mut failure = Cause::NoAddress;
    let mut next_at = pin!(sleep_until(Instant::now()));
    poll_fn(move |cx| {
        loop {
            let mut failed = false;
            let mut at = 0;
            while let Some(attempt) = under_way.get_mut(at) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(connection)) => return Poll::Ready(Ok(connection)),
                    Poll::Ready(Err(cause)) => {
                        failure = cause;
                        failed = true;
                        drop(under_way.swap_remove(at));
                    }
                    Poll::Pending => at += 1,
                }
            }
            let due = failed || under_way.is_empty() || next_at.as_mut().poll(cx).is_ready();
            if !due || waiting.is_empty() {
                break;
            }
            if let Some(address) = waiting.pop_front() {
                under_way.push(Box::pin(attempt(address)));
                next_at.as_mut().reset(Instant::now() + ATTEMPT_DELAY);
            }
        }
        if under_way.is_empty() {
            let last = std::mem::replace(&mut failure, Cause::NoAddress);
            return Poll::Ready(Err(last));
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::io;

    use crate::limits::CONNECT_SECS_MAX;
    use crate::refusing::Refusing;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| address(text)).collect()
    }

    #[test]
    fn families_take_turns() {
        let order = interleave(&addresses(&["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1"]));
        assert_eq!(order, addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
        assert!(interleave(&[]).is_empty());
    }

    /// Why a name with these addresses is not reached, and which of them were dialled.
    async fn dial_name(texts: &[&str], forbidden: &Forbidden) -> (Cause, Vec<SocketAddr>) {
        let net = Refusing::knowing(addresses(texts));
        let tcp = Tcp { no_delay: true, fast_open: false };
        let target = "name.example:1".parse().unwrap();
        let outcome = dial_target(&net, &target, tcp, forbidden, CONNECT_SECS_MAX).await;
        (outcome.err().unwrap().cause, net.dialled().into_iter().map(|(address, _)| address).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_names_forbidden_addresses_are_left_out_and_one_of_nothing_else_is_forbidden() {
        let standard = Forbidden::standard();
        let (cause, dialled) = dial_name(&["127.0.0.1:1", "[::]:1", "[64:ff9b::7f00:1]:1"], &standard).await;
        assert!(matches!(cause, Cause::Forbidden(_)), "{cause:?}");
        assert_eq!(dialled, []);

        let own: Vec<_> = (1..=99).map(|host| format!("127.0.0.{host}:1")).collect();
        let mut mixed: Vec<&str> = own.iter().map(String::as_str).collect();
        mixed.extend(["192.0.2.1:1", "[::1]:1", "[2001:db8::1]:1"]);
        let (cause, dialled) = dial_name(&mixed, &standard).await;
        assert!(matches!(cause, Cause::Io(_)), "it is the others' failure that is told: {cause:?}");
        assert_eq!(
            dialled,
            addresses(&["192.0.2.1:1", "[2001:db8::1]:1"]),
            "many do not crowd out the others"
        );

        let (cause, dialled) = dial_name(&["127.0.0.1:1"], &Forbidden::NOTHING).await;
        assert!(matches!(cause, Cause::Io(_)), "{cause:?}");
        assert_eq!(dialled, addresses(&["127.0.0.1:1"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_forbidden_address_is_not_dialled_and_a_hop_at_one_is() {
        let net = Refusing::default();
        let tcp = Tcp { no_delay: true, fast_open: false };
        let own = "127.0.0.1:1".parse().unwrap();
        let refused =
            dial_target(&net, &own, tcp, &Forbidden::standard(), CONNECT_SECS_MAX).await.err().unwrap();
        assert!(matches!(refused.cause, Cause::Forbidden(Rule::Loopback)), "{refused}");
        assert!(net.dialled().is_empty());
        let hop = dial(&net, &own, tcp, CONNECT_SECS_MAX).await.err().unwrap();
        assert!(matches!(hop.cause, Cause::Io(_)), "{hop}");
    }

    /// What each attempt does: answer after some milliseconds of the paused clock, well or not.
    async fn run(plan: &[(&str, u64, bool)]) -> (Result<SocketAddr, Cause>, Vec<(SocketAddr, u128)>) {
        let started = Instant::now();
        let log = RefCell::new(Vec::new());
        let order = plan.iter().map(|(to, ..)| address(to)).collect();
        let outcome = race(order, |to| {
            log.borrow_mut().push((to, started.elapsed().as_millis()));
            let (_, millis, good) = *plan.iter().find(|(text, ..)| address(text) == to).unwrap();
            async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                if good { Ok(to) } else { Err(Cause::Io(io::ErrorKind::ConnectionRefused.into())) }
            }
        })
        .await;
        (outcome, log.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_answer_wins_and_no_other_is_tried_needlessly() {
        let (outcome, log) = run(&[("1.1.1.1:1", 100, true), ("2.2.2.2:1", 1, true)]).await;
        assert_eq!(outcome.unwrap(), address("1.1.1.1:1"));
        assert_eq!(log, [(address("1.1.1.1:1"), 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_is_overtaken_after_a_quarter_second() {
        let (outcome, log) = run(&[("1.1.1.1:1", 9000, true), ("2.2.2.2:1", 10, true)]).await;
        assert_eq!(outcome.unwrap(), address("2.2.2.2:1"));
        assert_eq!(log[1], (address("2.2.2.2:1"), 250));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_address_is_followed_at_once_and_the_last_failure_is_told() {
        let (outcome, log) = run(&[("1.1.1.1:1", 1, false), ("2.2.2.2:1", 1, false)]).await;
        assert!(matches!(outcome, Err(Cause::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused));
        assert!(log[1].1 < 10);
    }
}
