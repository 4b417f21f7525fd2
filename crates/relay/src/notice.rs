//! The log lines that strangers can cause, each held to a rate.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info};

use crate::failure::Failure;
use crate::group::{Change, Event};
use crate::limits::{
    BAN_LINES_PER_MINUTE, BAN_SOURCES_MAX, CHANGE_LINES_PER_SECOND, FAILURE_LINES_PER_SECOND,
};
use crate::route::{Group, Path};

/// Counts lines and holds them to their rates.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    sources: Mutex<HashMap<IpAddr, Window>>,
    failures: Mutex<Option<Window>>,
    changes: Mutex<Option<Window>>,
}

/// Lines since a moment.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    lines: u32,
    withheld: u64,
}

impl Notices {
    /// Tells that a session failed: stage, side and cause, and nobody's address.
    pub(crate) fn failure(&self, failure: &Failure) {
        let admitted = lock(&self.failures)
            .get_or_insert_with(Window::new)
            .admit(Duration::from_secs(1), FAILURE_LINES_PER_SECOND);
        // Written after the lock is free: a log that stalls stalls one session only.
        let Failure { stage, side, cause, at, path } = failure;
        let Some(withheld) = admitted else { return };
        let withheld = (withheld > 0).then_some(withheld);
        let path = at.as_ref().map(|at| &*at.path).or(path.as_deref());
        let hop = at.as_ref().map(|at| at.hop);
        info!(%stage, %side, path, hop, %cause, withheld, "session failed");
    }

    /// Says what has become of a member, and why: what the operator has to see.
    pub(crate) fn change(
        &self,
        group: &Group,
        path: &Path,
        change: Option<Change>,
        why: Option<&dyn Display>,
    ) {
        let Some(Change { event, .. }) = change else { return };
        let admitted = lock(&self.changes)
            .get_or_insert_with(Window::new)
            .admit(Duration::from_secs(1), CHANGE_LINES_PER_SECOND);
        let Some(withheld) = admitted else { return };
        let withheld = (withheld > 0).then_some(withheld);
        let why = why.map(tracing::field::display);
        let (group, path) = (&*group.name, &*path.name);
        match event {
            Event::Failing => info!(group, path, why, withheld, "path initially marked as failing"),
            Event::MarkedDown { failures } => info!(group, path, failures, why, withheld, "path marked down"),
            Event::Suspected { failures } => {
                info!(group, path, failures, why, withheld, "path suspected, and tried after the others");
            }
            Event::Spared { failures } => {
                let told = "path failed too often, and is kept since too many are down";
                info!(group, path, failures, why, withheld, "{told}");
            }
            Event::TrialFailed => info!(group, path, why, withheld, "path tried again and still down"),
            Event::Ejected { probes } => {
                info!(group, path, probes, why, withheld, "path marked down by probes");
            }
            Event::Restored => info!(group, path, withheld, "path restored"),
        }
    }

    /// Names a source that did not know the key, in the words that autoban and fail2ban look for: the address is the last
    /// thing on the line.
    pub(crate) fn bad_head(&self, source: SocketAddr) {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        if self.admits_line_about(source.ip()) {
            error!("can not parse header when handling connection from {source}");
        }
    }

    fn admits_line_about(&self, source: IpAddr) -> bool {
        let mut sources = lock(&self.sources);
        if sources.len() >= BAN_SOURCES_MAX {
            sources.retain(|_, window| window.since.elapsed() < MINUTE);
        }
        if sources.len() >= BAN_SOURCES_MAX {
            return false;
        }
        sources.entry(source).or_insert_with(Window::new).admit(MINUTE, BAN_LINES_PER_MINUTE).is_some()
    }
}

impl Window {
    fn new() -> Self {
        Self { since: Instant::now(), lines: 0, withheld: 0 }
    }

    /// Whether one more line may be written; then also how many were withheld before it.
    fn admit(&mut self, period: Duration, lines_max: u32) -> Option<u64> {
        if self.since.elapsed() >= period {
            *self = Self { withheld: self.withheld, ..Self::new() };
        }
        if self.lines >= lines_max {
            self.withheld += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.withheld))
    }
}

/// A counter is whole whatever its last user did.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_window_withholds_and_then_says_how_many() {
        let mut window = Window::new();
        assert_eq!(window.admit(MINUTE, 2), Some(0));
        assert_eq!(window.admit(MINUTE, 2), Some(0));
        assert_eq!(window.admit(MINUTE, 2), None);
        assert_eq!(window.admit(MINUTE, 2), None);
        tokio::time::advance(MINUTE).await;
        assert_eq!(window.admit(MINUTE, 2), Some(2));
        assert_eq!(window.admit(MINUTE, 2), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn sources_are_bounded() {
        let notices = Notices::default();
        for number in 0..u32::try_from(BAN_SOURCES_MAX + 10).unwrap() {
            notices.bad_head(SocketAddr::new(std::net::Ipv4Addr::from(number).into(), 1));
        }
        assert!(lock(&notices.sources).len() <= BAN_SOURCES_MAX);
    }
}
