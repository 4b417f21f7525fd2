//! What the process asks of the system: descriptors, and word of when to tell something and when to end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;

/// SIGINT, SIGTERM and SIGUSR1, heard from the moment that it is made.
pub(crate) struct Hearing {
    signals: Signals,
    ending: Arc<AtomicBool>,
    /// Asked to tell of itself before there was anything to tell.
    is_asked: bool,
}

impl Hearing {
    /// Begins to listen. A second signal to end, while the first is being followed, ends the process at once.
    pub(crate) fn begin() -> io::Result<Self> {
        // These come first: from the first handler on, a signal that nobody writes down is lost.
        let signals = Signals::new(ENDINGS.into_iter().chain([SIGUSR1]))?;
        let ending = Arc::new(AtomicBool::new(false));
        for signal in ENDINGS {
            register_conditional_shutdown(signal, 1, Arc::clone(&ending))?;
        }
        Ok(Self { signals, ending, is_asked: false })
    }

    /// Whether the process has been told to end so far. Does not block.
    pub(crate) fn is_told_to_end(&mut self) -> bool {
        for signal in self.signals.pending() {
            if signal == SIGUSR1 {
                self.is_asked = true;
            } else {
                self.ending.store(true, Ordering::SeqCst);
            }
        }
        self.ending.load(Ordering::SeqCst)
    }

    /// Blocks until the process is told to end. Tells of itself with `tell` whenever it is asked to.
    pub(crate) fn wait(&mut self, tell: impl Fn()) {
        let is_told_to_end = self.is_told_to_end();
        if std::mem::take(&mut self.is_asked) {
            tell();
        }
        if is_told_to_end {
            return;
        }
        for _asked in self.signals.forever().take_while(|signal| *signal == SIGUSR1) {
            tell();
        }
        self.ending.store(true, Ordering::SeqCst);
    }
}

/// How many descriptors the process may hold, if there is an end to them.
pub(crate) fn nofile() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Lets the process hold `wanted` descriptors open, or as many as the system allows. Returns what it got, or why not.
pub(crate) fn raise_nofile(wanted: Option<u64>) -> Result<Option<u64>, String> {
    let limit = getrlimit(Resource::Nofile);
    let current = wanted.or(limit.maximum);
    // Only a privileged process may lift the hard limit; `None` means no limit.
    let maximum = match (current, limit.maximum) {
        (Some(current), Some(maximum)) => Some(current.max(maximum)),
        (None, _) | (_, None) => None,
    };
    match setrlimit(Resource::Nofile, Rlimit { current, maximum }) {
        Ok(()) => Ok(current),
        Err(error) => {
            // Less than was wanted, and still the most that there is.
            let lifted =
                setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
            let held = if lifted.is_ok() { limit.maximum } else { limit.current };
            let show =
                |count: Option<u64>| count.map_or_else(|| "no end of".into(), |count| count.to_string());
            Err(format!(
                "cannot hold {} descriptors open: {error}; going on with {}",
                show(current),
                show(held)
            ))
        }
    }
}

const ENDINGS: [i32; 2] = [SIGINT, SIGTERM];

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn what_is_heard_before_the_wait_is_followed_in_it() {
        let mut hearing = Hearing::begin().unwrap();
        assert!(!hearing.is_told_to_end());
        raise(SIGUSR1).unwrap();
        assert!(!hearing.is_told_to_end());
        raise(SIGTERM).unwrap();
        assert!(hearing.is_told_to_end() && hearing.is_told_to_end());
        let told = Cell::new(0);
        hearing.wait(|| told.set(told.get() + 1));
        assert_eq!(told.get(), 1);
    }

    #[test]
    fn the_soft_limit_rises_to_the_hard_one_and_no_further_for_everyone() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_nofile(None), Ok(hard));
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
        assert_eq!(raise_nofile(Some(64)), Ok(Some(64)));
        assert!(raise_nofile(Some(u64::MAX / 2)).is_err());
        assert_eq!(
            getrlimit(Resource::Nofile).current,
            hard,
            "the most that there is, and other tests go on"
        );
    }
}
