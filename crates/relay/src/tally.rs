//! What came of the sessions that took a path, counted: one addition for each of them, which nothing waits for.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::{Cause, Failure, Stage};
use crate::group::Outcome;

/// The counters of a path.
#[derive(Debug)]
pub(crate) struct Tally {
    reached: Counter,
    declined: Counter,
    abandoned: Counter,
    /// For each hop.
    hops: Box<[HopTally]>,
    pub(crate) datagrams: DatagramTally,
}

/// What went wrong at one hop.
#[derive(Debug, Default)]
struct HopTally {
    resolve: Counter,
    connect: Counter,
    negotiate: Counter,
    denied: Counter,
}

/// The associations that sent datagrams along a path.
#[derive(Debug, Default)]
pub(crate) struct DatagramTally {
    /// Something came back.
    pub(crate) reached: Counter,
    /// The path could not be taken, or broke.
    failed: Counter,
    /// For each hop, of those failures that happened at one.
    hops: Box<[HopTally]>,
}

/// A number that only grows, and that any thread may add to. Nothing is ordered by it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

/// A session that tries a path, counted when it is known what came of it. Dropped before that, it was given up.
#[derive(Debug)]
#[must_use = "what came of it is to be counted"]
pub(crate) struct Tried<'t>(&'t Tally);

/// What has been counted of a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions that it led to their targets.
    pub reached: u64,
    /// Sessions whose targets were to blame: all of the path answered as it should.
    pub declined: u64,
    /// Sessions that nobody waited for any more, or for which our own machine had nothing left. They say nothing about the path.
    pub abandoned: u64,
    /// Sessions that it failed, for each hop.
    pub hops: Vec<HopCounts>,
    /// Associations that have had an answer along it; one more for each time that it has come back.
    pub datagrams_reached: u64,
    /// Times that it could not be taken by an association, or broke.
    pub datagrams_failed: u64,
    /// Those of them that happened at a hop, for each. One that lets go of an association, or says nothing, may be any.
    pub datagram_hops: Vec<HopCounts>,
}

/// Sessions that failed at one hop, by what was under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HopCounts {
    /// The hop's name has no address.
    pub resolve: u64,
    /// There was no connection to it.
    pub connect: u64,
    /// It was silent, broke off or spoke nonsense; TLS with it failed.
    pub negotiate: u64,
    /// It said no.
    pub denied: u64,
}

impl Counter {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    /// Of a path with so many hops, which nobody has taken.
    pub(crate) fn new(hops: usize) -> Self {
        Self {
            reached: Counter::default(),
            declined: Counter::default(),
            abandoned: Counter::default(),
            hops: none_failed(hops),
            datagrams: DatagramTally { hops: none_failed(hops), ..DatagramTally::default() },
        }
    }

    /// A session begins to try the path.
    pub(crate) fn begin(&self) -> Tried<'_> {
        Tried(self)
    }

    /// What has been counted so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            reached: self.reached.get(),
            declined: self.declined.get(),
            abandoned: self.abandoned.get(),
            hops: self.hops.iter().map(HopTally::counts).collect(),
            datagrams_reached: self.datagrams.reached.get(),
            datagrams_failed: self.datagrams.failed.get(),
            datagram_hops: self.datagrams.hops.iter().map(HopTally::counts).collect(),
        }
    }

    fn counter(&self, outcome: Outcome, failure: Option<&Failure>) -> &Counter {
        match outcome {
            Outcome::Reached { .. } => &self.reached,
            Outcome::Declined => &self.declined,
            Outcome::Abandoned => &self.abandoned,
            // Whoever is to blame, it was this hop that said no, or nothing.
            Outcome::Failed | Outcome::Doubtful | Outcome::Silent => {
                let hop = failure.and_then(|failure| counter_at(&self.hops, failure));
                // What went wrong nowhere is held against nobody.
                hop.unwrap_or(&self.declined)
            }
        }
    }
}

impl DatagramTally {
    /// The path could not be taken, or broke: at this hop, if it is known at which.
    pub(crate) fn fail(&self, why: &Failure) {
        self.failed.add();
        if let Some(at_hop) = counter_at(&self.hops, why) {
            at_hop.add();
        }
    }
}

fn none_failed(hops: usize) -> Box<[HopTally]> {
    (0..hops).map(|_| HopTally::default()).collect()
}

/// What counts `failure` at the hop that it has happened at.
fn counter_at<'h>(hops: &'h [HopTally], failure: &Failure) -> Option<&'h Counter> {
    let number = failure.at.as_ref()?.hop;
    Some(hops.get(number.checked_sub(1)?)?.counter(failure))
}

impl HopTally {
    fn counter(&self, failure: &Failure) -> &Counter {
        match (failure.stage, &failure.cause) {
            (Stage::Resolve, _) => &self.resolve,
            (Stage::Connect, _) => &self.connect,
            (_, Cause::Parent(error)) if error.is_denial() => &self.denied,
            // It was asked, and does not know the command.
            (_, Cause::Command(_)) => &self.denied,
            (Stage::Handshake | Stage::Route | Stage::Negotiate | Stage::Answer | Stage::Relay, _) => {
                &self.negotiate
            }
        }
    }

    fn counts(&self) -> HopCounts {
        HopCounts {
            resolve: self.resolve.get(),
            connect: self.connect.get(),
            negotiate: self.negotiate.get(),
            denied: self.denied.get(),
        }
    }
}

impl Tried<'_> {
    /// What came of it, and why if it was no good.
    pub(crate) fn end(self, outcome: Outcome, failure: Option<&Failure>) {
        self.0.counter(outcome, failure).add();
        std::mem::forget(self);
    }
}

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        self.0.abandoned.add();
    }
}

impl Counts {
    /// Sessions that it failed.
    pub fn failed(&self) -> u64 {
        self.hops.iter().map(HopCounts::failed).sum()
    }

    /// Sessions that took it and came to some end.
    pub fn tried(&self) -> u64 {
        self.reached + self.declined + self.abandoned + self.failed()
    }

    /// Takes in what was counted of a path that has the same name.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { reached, declined, abandoned, hops, datagrams_reached, datagrams_failed, datagram_hops } =
            self;
        *reached += other.reached;
        *declined += other.declined;
        *abandoned += other.abandoned;
        *datagrams_reached += other.datagrams_reached;
        *datagrams_failed += other.datagrams_failed;
        for (hops, others) in [(hops, &other.hops), (datagram_hops, &other.datagram_hops)] {
            hops.resize(hops.len().max(others.len()), HopCounts::default());
            hops.iter_mut().zip(others).for_each(|(hop, other)| hop.add(other));
        }
    }
}

impl HopCounts {
    fn add(&mut self, other: &Self) {
        self.resolve += other.resolve;
        self.connect += other.connect;
        self.negotiate += other.negotiate;
        self.denied += other.denied;
    }

    /// All of them.
    pub fn failed(&self) -> u64 {
        self.resolve + self.connect + self.negotiate + self.denied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use umbra_proto::request::Command;
    use umbra_proto::socks5::client::ClientError;

    use crate::failure::At;
    use crate::parent::ParentError;

    fn failure(stage: Stage, cause: Cause, hop: usize) -> Failure {
        Failure::outbound(stage, cause).at(At { path: "path".into(), hop })
    }

    #[test]
    fn every_session_is_counted_once_at_the_hop_and_for_the_reason_that_it_ended_with() {
        let tally = Tally::new(2);
        let refused = || Cause::Io(io::ErrorKind::ConnectionRefused.into());
        let denied = || Cause::Parent(ParentError::Socks5(ClientError::Denied(2)));
        let nonsense = || Cause::Parent(ParentError::Socks5(ClientError::Version(9)));
        for (failure, times) in [
            (failure(Stage::Resolve, Cause::NoAddress, 1), 1),
            (failure(Stage::Connect, refused(), 1), 2),
            (failure(Stage::Negotiate, Cause::Deadline, 1), 3),
            (failure(Stage::Negotiate, denied(), 2), 4),
            (failure(Stage::Negotiate, nonsense(), 2), 5),
        ] {
            for _ in 0..times {
                tally.begin().end(failure.outcome(2), Some(&failure));
            }
        }
        tally.begin().end(Outcome::Reached { latency: None }, None);
        tally.begin().end(Outcome::Declined, None);
        drop(tally.begin());
        let counts = tally.counts();
        let hops = vec![
            HopCounts { resolve: 1, connect: 2, negotiate: 3, denied: 0 },
            HopCounts { resolve: 0, connect: 0, negotiate: 5, denied: 4 },
        ];
        let datagram_hops = vec![HopCounts::default(); 2];
        let expected =
            Counts { reached: 1, declined: 1, abandoned: 1, hops, datagram_hops, ..Counts::default() };
        assert_eq!(counts, expected);
        assert_eq!((counts.failed(), counts.tried()), (15, 18));
        let mut twice = Counts::default();
        twice.add(&counts);
        twice.add(&counts);
        assert_eq!((twice.reached, twice.failed(), twice.tried()), (2, 30, 36));
    }

    #[test]
    fn what_fails_datagrams_at_a_hop_is_counted_there_and_no_session() {
        let tally = Tally::new(2);
        tally.datagrams.fail(&failure(Stage::Resolve, Cause::NoAddress, 2));
        tally.datagrams.fail(&failure(Stage::Negotiate, Cause::Command(Command::UdpAssociate), 1));
        tally.datagrams.fail(&Failure::outbound(Stage::Relay, Cause::Truncated));
        let counts = tally.counts();
        let datagram_hops = vec![
            HopCounts { denied: 1, ..HopCounts::default() },
            HopCounts { resolve: 1, ..HopCounts::default() },
        ];
        let mut twice = counts.clone();
        twice.add(&counts);
        assert_eq!((counts.tried(), counts.datagrams_failed, counts.datagram_hops), (0, 3, datagram_hops));
        assert_eq!((twice.datagrams_failed, twice.datagram_hops[1].resolve), (6, 2));
    }
}
