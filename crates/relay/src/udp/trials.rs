//! How many keys a worker tries on packets of nobody that it knows (SIP004 with several users): strangers may send as many as they
//! like, and each costs as much as there are keys. Who has come from an address before is tried first, and whatever strangers send:
//! each query for a name is a new association, and mostly one more of the same user.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::time::Instant;
use umbra_proto::shadowsocks::keyring::Holder;

use super::queue::NoRoom;
use crate::limits::{RECALLED_SOURCES_MAX, TRIALS_BURST, TRIALS_PER_SEC};

/// A door, as the engine counts, and an address that packets come to it from.
type Source = (usize, IpAddr);

/// Keys that may be tried now, and since when more have come to be.
#[derive(Debug)]
pub(super) struct Trials {
    left: u64,
    since: Instant,
    /// Who has come from where, lately and before that.
    lately: HashMap<Source, Holder>,
    before: HashMap<Source, Holder>,
}

impl Trials {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: TRIALS_BURST, since: now, lately: HashMap::new(), before: HashMap::new() }
    }

    /// Whose packet the last good one from `source` was.
    pub(super) fn recall(&self, source: Source) -> Option<Holder> {
        self.lately.get(&source).or_else(|| self.before.get(&source)).copied()
    }

    /// A good packet of `holder` has come from `source`.
    pub(super) fn learn(&mut self, source: Source, holder: Holder) {
        if self.lately.len() >= RECALLED_SOURCES_MAX / 2 && !self.lately.contains_key(&source) {
            // Those that were not heard of in the meantime are forgotten with the next half.
            self.before = std::mem::take(&mut self.lately);
        }
        self.lately.insert(source, holder);
    }

    /// Takes leave to try `keys` of them.
    pub(super) fn take(&mut self, keys: usize, now: Instant) -> Result<(), NoRoom> {
        let micros = u64::try_from(now.duration_since(self.since).as_micros()).unwrap_or(u64::MAX);
        let more = micros.saturating_mul(TRIALS_PER_SEC) / 1_000_000;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(TRIALS_BURST);
            self.since = now;
        }
        self.left = self.left.checked_sub(keys as u64).ok_or(NoRoom)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use umbra_proto::shadowsocks::Method;
    use umbra_proto::shadowsocks::key::Key;
    use umbra_proto::shadowsocks::keyring::Keyring;

    #[test]
    fn who_has_come_from_where_is_known_for_as_many_sources_as_there_may_be() {
        let mut trials = Trials::new(Instant::now());
        let key = Key::from_password(Method::Aes256Gcm, "long enough").unwrap();
        let holder = Keyring::from(key).holders().next().unwrap();
        let source = |number: usize| (0, IpAddr::from(u32::try_from(number).unwrap().to_be_bytes()));
        let known =
            |trials: &Trials| (0..9999).filter(|number| trials.recall(source(*number)).is_some()).count();
        for number in 0..9999 {
            trials.learn(source(number), holder);
            assert!(trials.recall(source(number)).is_some());
            assert!(trials.recall((1, source(number).1)).is_none(), "another door has other users");
        }
        assert!((RECALLED_SOURCES_MAX / 2..=RECALLED_SOURCES_MAX).contains(&known(&trials)));
    }

    #[test]
    fn strangers_use_up_what_there_is_and_it_comes_back() {
        let now = Instant::now();
        let mut trials = Trials::new(now);
        let taken = (0..).take_while(|_| trials.take(1000, now).is_ok()).count();
        assert_eq!(taken as u64, TRIALS_BURST / 1000);
        assert_eq!(trials.take(1000, now + Duration::from_micros(100)), Err(NoRoom));
        let later = now + Duration::from_secs(1);
        assert_eq!(trials.take(1000, later), Ok(()));
        let again =
            (0..).take_while(|_| trials.take(1000, later + Duration::from_secs(3600)).is_ok()).count();
        assert_eq!(again as u64, TRIALS_BURST / 1000, "no more than a burst is saved up");
    }
}
