//! How many keys a worker tries on packets of nobody that it knows (SIP004 with several users): strangers may send as many as they
//! like, and each costs as much as there are keys.

use tokio::time::Instant;

use super::queue::NoRoom;
use crate::limits::{TRIALS_BURST, TRIALS_PER_SEC};

/// Keys that may be tried now, and since when more have come to be.
#[derive(Debug)]
pub(super) struct Trials {
    left: u64,
    since: Instant,
}

impl Trials {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: TRIALS_BURST, since: now }
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
