//! Small questions and answers over sessions that stay open.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::bulk::{finish, index, watch};
use super::pair::{Each, Pair, Session};

/// How long a question is.
pub(crate) const TRIP_BYTES: usize = 64;

/// What the trips took.
#[derive(Debug, Clone)]
pub(crate) struct Trips {
    /// CPU seconds of the proxies while the trips were made.
    pub(crate) cpu_secs: Each,
    /// Every trip's time, shortest first.
    pub(crate) sorted: Vec<Duration>,
}

impl Trips {
    /// The time that `share` of the trips stayed under.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
        let at = (self.sorted.len() as f64 * share) as usize;
        self.sorted.get(at.min(self.sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Keeps one question in flight on every session for `time`.
pub(crate) fn make(pair: &Pair, sessions: &[Session], time: Duration) -> Result<Trips> {
    thread::scope(|scope| {
        let echo = scope.spawn(|| answer(sessions));
        let asked = ask(pair, sessions, time);
        for session in sessions {
            // Ends the echo, also after a failure; a session that is gone already has ended it.
            session.client.shutdown(Shutdown::Both).ok();
            if asked.is_err() {
                session.target.shutdown(Shutdown::Both).ok();
            }
        }
        let answered = finish(echo);
        let trips = asked?;
        answered?;
        Ok(trips)
    })
}

fn ask(pair: &Pair, sessions: &[Session], time: Duration) -> Result<Trips> {
    let epoll = watch(sessions.iter().map(|session| &session.client), EpollFlags::EPOLLIN)?;
    let question = [7; TRIP_BYTES];
    let before = pair.cpu_secs()?;
    let deadline = Instant::now() + time;
    let mut asked = Vec::with_capacity(sessions.len());
    for session in sessions {
        asked.push(Instant::now());
        (&session.client).write_all(&question).context("ask")?;
    }
    let mut missing = vec![TRIP_BYTES; sessions.len()];
    let mut sorted = Vec::with_capacity(1 << 16);
    let mut events = [EpollEvent::empty(); 64];
    let mut answer = [0; TRIP_BYTES];
    let mut in_flight = sessions.len();
    while in_flight > 0 {
        let ready = epoll.wait(&mut events, 20_000u16)?;
        ensure!(ready > 0, "no answer within 20 s");
        for at in events[..ready].iter().map(index) {
            let n = (&sessions[at].client).read(&mut answer[..missing[at]]).context("an answer")?;
            ensure!(n > 0, "a session ended by itself");
            missing[at] -= n;
            if missing[at] > 0 {
                continue;
            }
            let now = Instant::now();
            sorted.push(now - asked[at]);
            missing[at] = TRIP_BYTES;
            asked[at] = now;
            if now < deadline {
                (&sessions[at].client).write_all(&question).context("ask again")?;
            } else {
                in_flight -= 1;
            }
        }
    }
    let cpu_secs = pair.cpu_secs()?.since(before);
    sorted.sort_unstable();
    Ok(Trips { cpu_secs, sorted })
}

fn answer(sessions: &[Session]) -> Result<()> {
    let epoll = watch(sessions.iter().map(|session| &session.target), EpollFlags::EPOLLIN)?;
    let mut events = [EpollEvent::empty(); 64];
    let mut chunk = [0; 4096];
    let mut open = sessions.len();
    while open > 0 {
        let ready = epoll.wait(&mut events, 20_000u16)?;
        ensure!(ready > 0, "no question and no end within 20 s");
        for at in events[..ready].iter().map(index) {
            let mut target = &sessions[at].target;
            match target.read(&mut chunk) {
                Ok(n @ 1..) => target.write_all(&chunk[..n]).context("answer")?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => {
                    epoll.delete(target)?;
                    open -= 1;
                }
            }
        }
    }
    Ok(())
}
