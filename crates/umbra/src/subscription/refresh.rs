//! Loads a document again and again, and puts its servers in the place of those that were there.

use std::collections::HashSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::{Document, Subscription, count_servers, left_out};
use crate::report::Report;
use crate::resolve::{Subscribed, read_document};
use crate::roster::{Listed, Roster};
use crate::secret::InsecureMethods;

/// A thread that keeps the servers fresh, until this is dropped.
pub(crate) struct Refresher {
    _stop: Sender<()>,
}

/// All servers of a client, by where they come from.
pub(crate) struct Shelves {
    roster: Arc<Roster>,
    /// The servers that come from no document.
    fixed: Vec<Listed>,
    /// Those of each document.
    listed: Mutex<Vec<Vec<Listed>>>,
}

struct Task {
    subscription: Subscription,
    /// Where its servers are kept.
    shelf: usize,
    shelves: Arc<Shelves>,
    /// The document in use.
    last: Document,
    /// Its servers.
    listed: Vec<Listed>,
    insecure: InsecureMethods,
    /// The last one that could not be used, which need not be complained of again.
    bad: Option<Document>,
    /// Since the last good load.
    failures: u32,
}

impl Refresher {
    /// Begins, with the document that is in use, whose servers are on this shelf. A load under way is not waited for at the end.
    pub(crate) fn start(online: Subscribed, shelf: usize, shelves: Arc<Shelves>) -> Result<Self, String> {
        let Subscribed { subscription, document, listed, insecure } = online;
        let failures = u32::from(listed.is_empty());
        let (last, bad) = if failures > 0 { (Document::default(), Some(document)) } else { (document, None) };
        let mut task = Task { subscription, shelf, shelves, last, listed, insecure, bad, failures };
        let (stop, stopped) = channel();
        let run = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(task.rest()) {
                task.renew();
            }
        };
        thread::Builder::new().name("subscription".into()).spawn(run).map_err(|error| error.to_string())?;
        Ok(Self { _stop: stop })
    }
}

impl Shelves {
    /// A shelf for each of `online`, in order.
    pub(crate) fn new(roster: Arc<Roster>, fixed: Vec<Listed>, online: &[Subscribed]) -> Self {
        let listed = online.iter().map(|online| online.listed.clone()).collect();
        Self { roster, fixed, listed: Mutex::new(listed) }
    }

    /// Gives the roster everything there is, before anybody asks for it. Which plugins could not be started is told; their servers are left
    /// out.
    pub(crate) fn fill(&self) {
        self.change(|_| {}, || true);
    }

    fn put(&self, shelf: usize, servers: &[Listed]) {
        let change = |shelves: &mut Vec<Vec<_>>| {
            if let Some(place) = shelves.get_mut(shelf) {
                *place = servers.to_vec();
            }
        };
        self.change(change, || false);
    }

    /// The lock is held until the roster is told, so that of two documents neither takes back what the other brought.
    fn change(&self, change: impl FnOnce(&mut Vec<Vec<Listed>>), is_no_need_to_wait: impl FnMut() -> bool) {
        let mut shelves = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut shelves);
        let all = self.fixed.iter().chain(shelves.iter().flatten()).cloned().collect();
        for failure in self.roster.replace(all, is_no_need_to_wait) {
            warn!("{}", left_out(&failure));
        }
    }
}

impl Task {
    fn renew(&mut self) {
        let name = self.subscription.source.to_string();
        match self.subscription.load() {
            Ok(document) if document.is_same_as(&self.last) => {
                self.shelves.roster.dismiss();
                self.succeed(&name);
            }
            Ok(document) if self.bad.as_ref().is_some_and(|bad| document.is_same_as(bad)) => {
                self.fail(&name, NO_SERVER);
            }
            Ok(document) => {
                let mut found = Report::default();
                let listed = read_document(&document, self.insecure, &mut found);
                for note in &found.warnings {
                    warn!("{note}");
                }
                if listed.is_empty() {
                    self.fail(&name, NO_SERVER);
                    self.bad = Some(document);
                } else {
                    self.succeed(&name);
                    self.take(&name, document, listed);
                }
            }
            Err(why) => self.fail(&name, &why.to_string()),
        }
    }

    fn take(&mut self, name: &str, document: Document, listed: Vec<Listed>) {
        let change = Change::between(&self.listed, &listed);
        self.shelves.put(self.shelf, &listed);
        info!("{name}: {}, {} of them new, {} gone", count_servers(listed.len()), change.new, change.gone);
        if document.usage != self.last.usage
            && let Some(usage) = document.usage
        {
            info!("{name}: {usage}");
        }
        (self.last, self.listed) = (document, listed);
    }

    fn succeed(&mut self, name: &str) {
        if std::mem::take(&mut self.failures) > 0 {
            info!("{name}: the document of servers can be loaded again");
        } else {
            debug!("{name}: the document of servers was loaded");
        }
    }

    fn fail(&mut self, name: &str, why: &str) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            warn!("{name}: the document of servers {why}; going on with the servers that were there");
        } else {
            debug!("{name}: the document of servers {why}");
        }
    }

    /// How long to wait for the next load: the interval, and less after a failure.
    fn rest(&self) -> Duration {
        let mut chance = [0; 1];
        let drawn = getrandom::fill(&mut chance).map_or(128, |()| chance[0]);
        rest(self.subscription.interval, self.failures, drawn)
    }
}

/// The interval, and after failures 30 s, twice as long each further time up to the interval; give or take a tenth, so that
/// not all clients of a document come at once.
fn rest(interval: Duration, failures: u32, chance: u8) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let due = if failures == 0 { interval } else { interval.min(RETRY_SECS_MIN * (1 << doublings)) };
    due.mul_f64(0.9 + 0.2 * f64::from(chance) / 255.0)
}

/// What has become of servers from one document to the next.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    new: usize,
    gone: usize,
}

impl Change {
    /// A server is the same as long as its id is; one without an id, as long as its address is.
    fn between(old: &[Listed], new: &[Listed]) -> Self {
        let identity =
            |listed: &Listed| listed.id.clone().unwrap_or_else(|| listed.server.address.to_string());
        let old: HashSet<_> = old.iter().map(identity).collect();
        let new: HashSet<_> = new.iter().map(identity).collect();
        Self { new: new.difference(&old).count(), gone: old.difference(&new).count() }
    }
}

const NO_SERVER: &str = "names no server that can be used";

/// A network that was gone for a moment.
const RETRY_SECS_MIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use umbra_relay::config::Group;

    use super::*;
    use crate::subscription::Source;

    #[test]
    fn failures_are_followed_sooner_and_sooner_becomes_later() {
        let hour = Duration::from_secs(3600);
        let secs = |failures| rest(hour, failures, 128).as_secs_f64().round();
        let rests: Vec<_> = (0..10).map(secs).collect();
        assert_eq!(
            rests.iter().map(|secs| (secs / 30.0).round()).collect::<Vec<_>>(),
            [120.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0, 120.0]
        );
        let second = Duration::from_secs(1);
        assert!(rest(second, 5, 255) <= second.mul_f64(1.1), "never later than without a failure");
        assert!(rest(hour, u32::MAX, 255) <= hour.mul_f64(1.1));
    }

    #[test]
    fn a_server_is_the_same_as_long_as_its_id_is() {
        let listed = |id: Option<&str>, host| {
            let text = format!(
                r#"{{"version": 1, "servers": [{{"id": {}, "server": "{host}", "server_port": 1,
                "password": "long-enough", "method": "aes-128-gcm"}}]}}"#,
                id.map_or("null".into(), |id| format!("\"{id}\""))
            );
            let document = Document::parse(zeroize::Zeroizing::new(text), "x").unwrap();
            read_document(&document, InsecureMethods::Warn, &mut Report::default()).remove(0)
        };
        let old = [listed(Some("1"), "a"), listed(Some("2"), "b"), listed(None, "c")];
        let new = [listed(Some("2"), "moved"), listed(Some("3"), "a"), listed(None, "c"), listed(None, "d")];
        assert_eq!(Change::between(&old, &new), Change { new: 2, gone: 1 });
    }

    #[test]
    fn a_document_that_comes_later_brings_no_method_that_is_denied() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let entry = |host, method| {
            format!(
                r#"{{"server": "{host}", "server_port": 1, "password": "long-enough", "method": "{method}"}}"#
            )
        };
        let write = |entries: &[String]| {
            let text = format!(r#"{{"version": 1, "servers": [{}]}}"#, entries.join(","));
            std::fs::write(file.path(), text).unwrap();
        };
        let servers = Arc::new(Group::of_servers(Vec::new()));
        let mut task = Task {
            subscription: Subscription {
                source: Source::File(file.path().into()),
                interval: RETRY_SECS_MIN,
                place: String::new(),
                alone: true,
            },
            shelf: 0,
            shelves: Arc::new(Shelves {
                roster: Roster::start(Arc::clone(&servers), Vec::new()).unwrap(),
                fixed: Vec::new(),
                listed: Mutex::new(vec![Vec::new()]),
            }),
            last: Document::default(),
            listed: Vec::new(),
            insecure: InsecureMethods::Deny,
            bad: None,
            failures: 0,
        };
        let mut listed_after = |entries: &[String]| {
            write(entries);
            task.renew();
            assert_eq!(servers.paths().len(), task.listed.len());
            task.listed.iter().map(|listed| listed.server.address.to_string()).collect::<Vec<_>>()
        };
        let good = [entry("a", "aes-128-gcm"), entry("b", "aes-256-gcm")];
        assert_eq!(listed_after(&good), ["a:1", "b:1"]);
        assert_eq!(listed_after(&[entry("c", "rc4-md5"), entry("d", "aes-128-gcm")]), ["d:1"]);
        assert_eq!(listed_after(&[entry("e", "table"), entry("f", "none")]), ["d:1"], "nothing better came");
    }

    #[test]
    fn clients_do_not_all_come_at_once() {
        let hour = Duration::from_secs(3600);
        assert_eq!(rest(hour, 0, 0), Duration::from_secs(3240));
        assert_eq!(rest(hour, 0, 255), Duration::from_secs(3960));
    }
}
