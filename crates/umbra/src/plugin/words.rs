//! What a plugin says on its two outputs, as lines of our log.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, info};

/// Logs what comes from `output` until its end, on a thread of its own. The answer is told, or dropped, once all has been
/// logged.
///
/// What a plugin says as it starts is about itself and told to everyone. Later, a server's plugin may name clients, so that
/// `discreet` lines are for debugging only.
pub(crate) fn listen(name: String, output: impl Read + Send + 'static, discreet: bool) -> Receiver<()> {
    let (done, told) = channel();
    let mut lines = Lines { name, window: Window::new(Instant::now()), discreet, began: Instant::now() };
    let _a_plugin_is_better_unheard_than_not_running =
        thread::Builder::new().name("plugin-words".into()).spawn(move || {
            lines.log_all(output);
            drop(done);
        });
    told
}

struct Lines {
    name: String,
    window: Window,
    discreet: bool,
    began: Instant,
}

impl Lines {
    /// The output is always read, since a plugin that cannot write would stand still.
    fn log_all(&mut self, output: impl Read) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match output.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => self.log(&String::from_utf8_lossy(&line)),
            }
        }
    }

    fn log(&mut self, line: &str) {
        let (name, line) = (&self.name, line.trim());
        if line.is_empty() {
            return;
        }
        let Some(withheld) = self.window.admit(Instant::now()) else { return };
        let mark = if withheld > 0 {
            format!(" ({withheld} lines before this one left out)")
        } else {
            String::new()
        };
        if self.discreet && self.began.elapsed() > ABOUT_ITSELF {
            debug!("plugin {name}: {line}{mark}");
        } else {
            info!("plugin {name}: {line}{mark}");
        }
    }
}

/// Lets so many lines of each second through.
struct Window {
    began: Instant,
    admitted: u32,
    withheld: u64,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { began: now, admitted: 0, withheld: 0 }
    }

    /// Whether a line may be logged, and how many before it were not.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.began) >= Duration::from_secs(1) {
            (self.began, self.admitted) = (now, 0);
        }
        if self.admitted == LINES_PER_SEC_MAX {
            self.withheld += 1;
            return None;
        }
        self.admitted += 1;
        Some(std::mem::take(&mut self.withheld))
    }
}

/// A longer line is logged as several: nobody's memory depends on how long a plugin talks.
const LINE_BYTES_MAX: u64 = 512;

/// More than any plugin says as it starts, and too few for one that speaks of every connection to drown the rest of the log.
const LINES_PER_SEC_MAX: u32 = 20;

/// After this long, what a plugin says may be about those who came.
const ABOUT_ITSELF: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_words_is_thinned_and_counted() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let admitted = (0..1000).filter(|_| window.admit(start).is_some()).count();
        assert_eq!(admitted, 20);
        assert_eq!(window.admit(start + Duration::from_secs(1)), Some(980));
        assert_eq!(window.admit(start + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn any_output_is_read_to_its_end() {
        let mut output = vec![b'x'; 100_000];
        output.extend(b"\n\n\xff\xfe\nno end");
        let done = listen("stand-in".into(), std::io::Cursor::new(output), false);
        assert!(
            done.recv_timeout(Duration::from_secs(20))
                .is_err_and(|why| why == std::sync::mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
