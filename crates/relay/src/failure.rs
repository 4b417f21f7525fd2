//! How and why a session failed: one value that is the log line, and, by one table, what the client is told in its protocol's words.

use std::fmt;
use std::io;
use std::sync::Arc;

use umbra_proto::forbidden::Rule;
use umbra_proto::request::{Command, Refusal};
use umbra_proto::shadowsocks::head::HeadError;
use umbra_proto::shadowsocks::stream::OpenError;
use umbra_proto::{detect, proxy_header};

use crate::group::Outcome;
use crate::parent::ParentError;

/// Where a session failed, on whose side, and why.
#[derive(Debug)]
pub struct Failure {
    /// What was under way.
    pub stage: Stage,
    /// Whose end it was.
    pub side: Side,
    /// What went wrong.
    pub cause: Cause,
    /// The hop that it went wrong at, if it was one.
    pub at: Option<At>,
    /// The path that was tried, where it went wrong at none of its hops: a direct one has none. The group, where none of its paths could be
    /// tried.
    pub path: Option<Arc<str>>,
}

/// A hop of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// What the operator calls the path.
    pub path: Arc<str>,
    /// The hop's number along it; the first is 1.
    pub hop: usize,
}

/// What is at the other end of a way, for whatever goes wrong there.
#[derive(Clone, Debug, Default)]
pub(crate) enum Whereabouts {
    /// Nothing that has a name.
    #[default]
    Unnamed,
    /// A hop.
    Hop(At),
    /// The target itself, to which this path leads without any.
    Target(Arc<str>),
}

/// A failure below, as whoever speaks through that layer meets it: an error of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Buried {
    kind: io::ErrorKind,
    cause: Arc<str>,
    at: Option<At>,
}

/// What a session was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Learning what the client wants.
    Handshake,
    /// Choosing a way.
    Route,
    /// Looking a name up.
    Resolve,
    /// Opening a connection.
    Connect,
    /// Asking a proxy on the way.
    Negotiate,
    /// Waiting for what a proxy on the way, which has answered all else, says of what it was asked for.
    Answer,
    /// Carrying bytes.
    Relay,
}

/// Which end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that came to us.
    Inbound,
    /// The one we went to.
    Outbound,
}

/// Why a stage failed. None of these names a target or a client.
#[derive(Debug)]
pub enum Cause {
    /// The system said no.
    Io(io::Error),
    /// It took too long.
    Deadline,
    /// It was silent for long, and somebody else wanted its place.
    Displaced,
    /// The peer ended before it had said what it wanted, or in the middle of a record.
    Truncated,
    /// The peer said more than any handshake needs.
    TooLong,
    /// The name has no address.
    NoAddress,
    /// A target to which nobody is led, or a name of nothing else.
    Forbidden(Rule),
    /// Not what is spoken at the door, or nobody who may come in.
    Proxy(detect::Error),
    /// No PROXY header where there has to be one.
    Header(proxy_header::Error),
    /// Not HTTP, or a message that broke off.
    Http(hyper::Error),
    /// A command that leads nowhere on this path.
    Command(Command),
    /// The proxy on the way refused, or is none.
    Parent(ParentError),
    /// A rule leads nobody to this target.
    Refused {
        /// What the operator calls the rule.
        rule: Box<str>,
        /// What is told of it.
        refusal: Refusal,
    },
    /// No path of the group carries streams, or all that do are down.
    NoPath,
    /// A question of our own was not answered.
    Unanswered,
    /// A probe got this status, which is none of those that it should.
    Probe(u16),
    /// Not the start of a Shadowsocks request with our key.
    Head(HeadError),
    /// Not a Shadowsocks record with our key.
    Open(OpenError),
}

impl Failure {
    /// A failure of the client's side before its wish was known.
    pub(crate) fn handshake(cause: Cause) -> Self {
        Self::new(Stage::Handshake, Side::Inbound, cause)
    }

    /// A failure at no hop, or at the one below whose layer has failed first.
    pub(crate) fn new(stage: Stage, side: Side, cause: Cause) -> Self {
        let at = match &cause {
            Cause::Io(error) => Buried::in_error(error).and_then(|buried| buried.at.clone()),
            Cause::Deadline | Cause::Displaced | Cause::Truncated | Cause::TooLong => None,
            Cause::NoAddress | Cause::Forbidden(_) | Cause::Proxy(_) | Cause::Header(_) => None,
            Cause::Http(_) | Cause::Command(_) | Cause::Parent(_) | Cause::Refused { .. } => None,
            Cause::NoPath | Cause::Unanswered | Cause::Probe(_) | Cause::Head(_) | Cause::Open(_) => None,
        };
        Self { stage, side, cause, at, path: None }
    }

    /// The same for whoever speaks through the layer that it has happened to.
    pub(crate) fn bury(&self) -> Buried {
        let kind = match &self.cause {
            Cause::Io(error) => error.kind(),
            Cause::Deadline => io::ErrorKind::TimedOut,
            Cause::Displaced | Cause::Truncated | Cause::TooLong => io::ErrorKind::ConnectionReset,
            Cause::NoAddress | Cause::Forbidden(_) | Cause::Proxy(_) | Cause::Header(_) => {
                io::ErrorKind::ConnectionReset
            }
            Cause::Http(_) | Cause::Command(_) | Cause::Parent(_) | Cause::Refused { .. } => {
                io::ErrorKind::ConnectionReset
            }
            Cause::NoPath | Cause::Unanswered | Cause::Probe(_) | Cause::Head(_) | Cause::Open(_) => {
                io::ErrorKind::ConnectionReset
            }
        };
        Buried { kind, cause: self.cause.to_string().into(), at: self.at.clone() }
    }

    /// The same at this hop, unless one is named already.
    pub(crate) fn at(self, at: At) -> Self {
        Self { at: self.at.or(Some(at)), ..self }
    }

    /// The same of somebody who had been asked already, and whose answer did not come, if that is what it is.
    pub(crate) fn of_asked(self) -> Self {
        match (&self.cause, self.stage) {
            (Cause::Io(_) | Cause::Deadline | Cause::Truncated, Stage::Negotiate) => {
                Self { stage: Stage::Answer, ..self }
            }
            _ => self,
        }
    }

    /// The same on this path, unless one is named already.
    pub(crate) fn along(self, path: &Arc<str>) -> Self {
        let is_named = self.at.is_some() || self.path.is_some();
        if is_named { self } else { Self { path: Some(Arc::clone(path)), ..self } }
    }

    /// A failure on the way to the target.
    pub(crate) fn outbound(stage: Stage, cause: Cause) -> Self {
        Self::new(stage, Side::Outbound, cause)
    }

    /// What the client is told, to be said in the words of its protocol (the table of `docs/protocols.md`).
    pub fn refusal(&self) -> Refusal {
        match (&self.cause, self.stage) {
            (Cause::Io(error), _) => refusal_of(error),
            (Cause::NoAddress, _) => Refusal::NameNotFound,
            (Cause::Forbidden(_), _) => Refusal::NotAllowed,
            (Cause::Deadline, Stage::Resolve | Stage::Connect | Stage::Negotiate | Stage::Answer) => {
                Refusal::TimedOut
            }
            (Cause::Command(_), _) => Refusal::CommandNotSupported,
            (Cause::Parent(error), _) => error.refusal(),
            (Cause::Refused { refusal, .. }, _) => *refusal,
            (Cause::Deadline, Stage::Handshake | Stage::Route | Stage::Relay)
            | (
                Cause::Displaced
                | Cause::Truncated
                | Cause::TooLong
                | Cause::Proxy(_)
                | Cause::Header(_)
                | Cause::Http(_)
                | Cause::NoPath
                | Cause::Unanswered
                | Cause::Probe(_)
                | Cause::Head(_)
                | Cause::Open(_),
                _,
            ) => Refusal::GeneralFailure,
        }
    }

    /// Whether a proxy on the way could not reach what it was asked for.
    pub(crate) fn is_unreached(&self) -> bool {
        matches!(&self.cause, Cause::Parent(error) if error.is_unreached())
    }

    /// Whether it is our own machine that has nothing left, which says nothing about anybody else.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(&self.cause, Cause::Io(error) if is_ours(error))
    }

    /// What it says about the path that it happened on, which has so many hops.
    pub(crate) fn outcome(&self, hops: usize) -> Outcome {
        match (&self.cause, &self.at) {
            // Our own want of something, or a command that this kind of path has no words for.
            (Cause::Command(_), _) => Outcome::Abandoned,
            (Cause::Io(error), _) if is_ours(error) => Outcome::Abandoned,
            // A direct path is as good as its target, and what a parent cannot reach is the target's fault as well.
            (_, None) => Outcome::Declined,
            // One that cannot reach the next hop is on a path that leads nowhere.
            (Cause::Parent(error), Some(at)) if at.hop == hops => error.outcome(),
            // It may still be waiting for the target, or have no words for what became of that.
            (_, Some(at)) if at.hop == hops && self.stage == Stage::Answer => Outcome::Silent,
            (_, Some(_)) => Outcome::Failed,
        }
    }
}

impl Whereabouts {
    /// A failure of whoever is there.
    pub(crate) fn of(&self, failure: Failure) -> Failure {
        match self {
            Self::Unnamed => failure,
            Self::Hop(at) => failure.at(at.clone()),
            Self::Target(path) => failure.along(path),
        }
    }
}

impl Buried {
    /// What lies in `error`, which may have passed through hands that wrapped it.
    fn in_error(error: &io::Error) -> Option<&Self> {
        let mut inner: &(dyn std::error::Error + 'static) = error.get_ref()?;
        loop {
            if let Some(buried) = inner.downcast_ref() {
                return Some(buried);
            }
            inner = match inner.downcast_ref::<io::Error>() {
                Some(error) => error.get_ref()?,
                None => inner.source()?,
            };
        }
    }
}

impl From<Buried> for io::Error {
    fn from(buried: Buried) -> Self {
        Self::new(buried.kind, buried)
    }
}

impl fmt::Display for Buried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for Buried {}

/// Whether it is our own machine that has nothing left, and says nothing about anybody else.
pub(crate) fn is_ours(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory || crate::net::os::is_exhaustion(error)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the system's kinds are many and open-ended")]
fn refusal_of(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Refusal::ConnectionRefused,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => Refusal::NetworkUnreachable,
        io::ErrorKind::HostUnreachable => Refusal::HostUnreachable,
        io::ErrorKind::TimedOut => Refusal::TimedOut,
        io::ErrorKind::PermissionDenied => Refusal::NotAllowed,
        // The others say nothing that a client could use.
        _ => Refusal::GeneralFailure,
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => "handshake",
            Self::Route => "route",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Negotiate => "negotiate",
            Self::Answer => "answer",
            Self::Relay => "relay",
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Deadline => f.write_str("deadline passed"),
            Self::Displaced => f.write_str("silent, and its place was wanted"),
            Self::Truncated => f.write_str("the peer ended too early"),
            Self::TooLong => f.write_str("a handshake without end"),
            Self::NoAddress => f.write_str("the name has no address"),
            Self::Forbidden(rule) => write!(f, "the target is in forbidden list ({rule}), reject"),
            Self::Proxy(error) => error.fmt(f),
            Self::Header(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Command(Command::Connect) => f.write_str("no way for CONNECT"),
            Self::Command(Command::Bind) => f.write_str("no way for BIND"),
            Self::Command(Command::UdpAssociate) => f.write_str("no way for UDP ASSOCIATE"),
            Self::Parent(error) => error.fmt(f),
            Self::Refused { rule, .. } => write!(f, "refused by {rule}"),
            Self::NoPath => f.write_str("no path of the group carries streams, or all that do are down"),
            Self::Unanswered => f.write_str("no answer came"),
            Self::Probe(status) => write!(f, "a probe was answered with status {status}"),
            Self::Head(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        write!(f, "{} failed, {} side: {}", self.stage, self.side, self.cause)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hop {} of {}", self.hop, self.path)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_proto::socks5::client::ClientError;

    #[test]
    fn clients_are_told_the_truth_about_a_dial() {
        let told = |cause| Failure::outbound(Stage::Connect, cause).refusal();
        let io = |kind: io::ErrorKind| told(Cause::Io(kind.into()));
        assert_eq!(io(io::ErrorKind::ConnectionRefused), Refusal::ConnectionRefused);
        assert_eq!(io(io::ErrorKind::NetworkUnreachable), Refusal::NetworkUnreachable);
        assert_eq!(io(io::ErrorKind::HostUnreachable), Refusal::HostUnreachable);
        assert_eq!(told(Cause::Io(io::Error::from_raw_os_error(24))), Refusal::GeneralFailure);
        assert_eq!(told(Cause::Deadline), Refusal::TimedOut);
        assert_eq!(
            told(Cause::Parent(ParentError::Socks5(ClientError::Denied(5)))),
            Refusal::ConnectionRefused
        );
        assert_eq!(
            told(Cause::Parent(ParentError::Socks5(ClientError::LoginRefused))),
            Refusal::GeneralFailure
        );
        assert_eq!(told(Cause::Forbidden(Rule::Loopback)), Refusal::NotAllowed);
        let unknown = Failure::outbound(Stage::Resolve, Cause::NoAddress).refusal();
        assert_eq!(unknown, Refusal::NameNotFound);
    }
    #[test]
    fn what_has_happened_below_keeps_its_place_and_its_words_however_often_it_is_passed_on() {
        let at = |hop| At { path: "way".into(), hop };
        let first = Failure::outbound(Stage::Relay, Cause::Truncated).at(at(1));
        let words = first.cause.to_string();
        let met = Cause::Io(io::Error::other(io::Error::from(first.bury())));
        let second = Failure::outbound(Stage::Negotiate, met).at(at(2));
        let third = Failure::outbound(Stage::Relay, Cause::Io(second.bury().into())).at(at(3));
        for failure in [second, third] {
            assert_eq!(failure.at, Some(at(1)));
            assert_eq!(failure.cause.to_string(), words);
            assert_eq!(failure.outcome(3), Outcome::Failed);
        }
    }

    #[test]
    fn a_parent_that_cannot_reach_the_next_hop_is_held_against_the_path() {
        let told = |hop| {
            let cause = Cause::Parent(ParentError::Socks5(ClientError::Denied(5)));
            Failure::outbound(Stage::Negotiate, cause).at(At { path: "way".into(), hop }).outcome(2)
        };
        assert_eq!((told(1), told(2)), (Outcome::Failed, Outcome::Declined));
    }
}
