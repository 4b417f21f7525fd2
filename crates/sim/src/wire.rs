//! Both directions of a connection: bytes on their way, who waits for them, and who knows what of the other end.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::chance::Chance;
use crate::link::{FaultKind, Link, Manners};
use crate::socket::Record;

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The one that dialled.
    Dialler,
    /// The one that was dialled.
    Acceptor,
}

/// A connection.
pub(crate) struct Wire {
    uplink: Pipe,
    downlink: Pipe,
    dialler: Health,
    acceptor: Health,
    /// Who waits for the dialling end to break, and who for the other one.
    watchers: [Option<Waker>; 2],
    chance: Chance,
    record: Option<Arc<Mutex<Record>>>,
}

/// Whether an end has learnt of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    /// The next call is told.
    Reset,
    /// One call was told; as on Linux, reads now find an end, and writes a broken pipe.
    Told,
}

/// One direction.
struct Pipe {
    manners: Manners,
    segments: VecDeque<Segment>,
    queued_bytes: usize,
    passed_bytes: u64,
    last_due: Instant,
    outlet: Outlet,
    /// When the reader finds the orderly end.
    end_due: Option<Instant>,
    reader: Waiting,
    writer: Waiting,
}

/// What becomes of bytes that are written to a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlet {
    /// They arrive.
    Open,
    /// They pile up and never arrive.
    Silent,
    /// Nobody is there to read them, and the answer is a reset.
    Gone,
    /// The writer has ended: there are none.
    Ended,
}

/// Bytes of one write on their way.
struct Segment {
    bytes: Vec<u8>,
    taken: usize,
    due: Instant,
    /// Given to one read as far as it has room, whatever the manners.
    whole: bool,
}

/// Who waits at one side of a pipe, and the time that it may have to wait for.
#[derive(Default)]
struct Waiting {
    waker: Option<Waker>,
    timer: Option<Pin<Box<Sleep>>>,
    /// After a false readiness the next one, true or not, takes until then.
    stalled_until: Option<Instant>,
    /// Has been told of a readiness that nothing stood behind.
    lied_to: bool,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

impl Wire {
    pub(crate) fn new(link: Link, chance: Chance, record: Option<Arc<Mutex<Record>>>) -> Self {
        let (uplink, downlink) = (Pipe::new(link.uplink), Pipe::new(link.downlink));
        let (dialler, acceptor, watchers) = (Health::Well, Health::Well, [None, None]);
        Self { uplink, downlink, dialler, acceptor, watchers, chance, record }
    }

    pub(crate) fn poll_broken(&mut self, end: End, cx: &mut Context<'_>) -> Poll<()> {
        if *self.health(end) != Health::Well {
            return Poll::Ready(());
        }
        *self.watcher(end) = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn poll_readable(&mut self, end: End, cx: &mut Context<'_>) -> Poll<()> {
        if *self.health(end) != Health::Well {
            return Poll::Ready(());
        }
        let pipe = self.inward(end);
        let arrival = pipe.segments.front().map(|segment| segment.due).or(pipe.end_due);
        if arrival.is_none() && self.lies_to_reader(end) {
            return Poll::Ready(());
        }
        self.inward(end).reader.poll(cx, arrival)
    }

    pub(crate) fn poll_writable(&mut self, end: End, cx: &mut Context<'_>) -> Poll<()> {
        if *self.health(end) != Health::Well {
            return Poll::Ready(());
        }
        let pipe = self.outward(end);
        let has_room = match pipe.outlet {
            Outlet::Open | Outlet::Silent => pipe.queued_bytes < pipe.manners.capacity_bytes,
            Outlet::Gone | Outlet::Ended => true,
        };
        pipe.writer.poll(cx, has_room.then(Instant::now))
    }

    /// Appends to `bytes` what one read with `room` finds: nothing is the end.
    pub(crate) fn read(&mut self, end: End, room: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        let health = *self.health(end);
        if health == Health::Well
            && let Some(until) = self.stall(self.manners_of(end.other()).false_readiness_one_in)
        {
            self.inward(end).reader.stalled_until = Some(until);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let part = self.part(end.other(), room);
        let pipe = self.inward(end);
        if pipe.deliver(part, room, bytes) {
            pipe.writer.wake();
            return Ok(());
        }
        let ended = pipe.segments.is_empty() && pipe.end_due.is_some_and(|due| due <= Instant::now());
        match health {
            // On Linux an end that has arrived is found even behind a reset.
            Health::Well | Health::Reset if ended => Ok(()),
            Health::Well => Err(io::ErrorKind::WouldBlock.into()),
            Health::Reset => {
                *self.health(end) = Health::Told;
                self.inward(end).clear();
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Health::Told => Ok(()),
        }
    }

    /// One write of `pieces`, which hold `total` bytes.
    pub(crate) fn write(&mut self, end: End, total: usize, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match (*self.health(end), self.outward(end).outlet) {
            (Health::Well, Outlet::Open | Outlet::Silent) => {}
            (Health::Well, Outlet::Gone) => {
                self.learn_of_reset(end);
                return Ok(total);
            }
            (Health::Reset, _) => {
                *self.health(end) = Health::Told;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            (Health::Told, _) | (Health::Well, Outlet::Ended) => {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        if let Some(until) = self.stall(self.manners_of(end).false_readiness_one_in) {
            self.outward(end).writer.stalled_until = Some(until);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.fail_if_due(end) {
            return self.write(end, total, pieces);
        }
        let part = self.part(end, total);
        let delay = self.delay(end);
        let pipe = self.outward(end);
        let count = pipe.admitted(part, total);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = gather(pieces, count);
        pipe.push(bytes.clone(), delay);
        pipe.reader.wake();
        self.note(end, bytes);
        self.fail_if_due(end);
        Ok(count)
    }

    /// Tells the other end, when everything before has arrived, that this one says no more.
    pub(crate) fn end(&mut self, end: End) -> io::Result<()> {
        if *self.health(end) != Health::Well {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let delay = self.delay(end);
        let pipe = self.outward(end);
        match pipe.outlet {
            Outlet::Open => pipe.end(delay),
            Outlet::Silent | Outlet::Gone | Outlet::Ended => {}
        }
        pipe.outlet = Outlet::Ended;
        Ok(())
    }

    /// This end goes, and the other one is told by a reset.
    pub(crate) fn abort(&mut self, end: End) {
        self.inward(end).outlet = Outlet::Gone;
        // What has arrived can be read; what is under way may be overtaken by the reset.
        if self.chance.one_in(2) {
            self.outward(end).lose_what_is_under_way();
        }
        *self.health(end) = Health::Told;
        self.learn_of_reset(end.other());
    }

    /// This end goes. Bytes that it has not read make it a reset.
    pub(crate) fn close(&mut self, end: End) {
        if *self.health(end) != Health::Well {
            return;
        }
        if self.inward(end).queued_bytes > 0 {
            return self.abort(end);
        }
        // It is well, so this cannot fail.
        let _ = self.end(end);
        let pipe = self.inward(end);
        if pipe.outlet != Outlet::Ended {
            pipe.outlet = Outlet::Gone;
            pipe.writer.wake();
        }
    }

    /// Bytes that this end has written and that have not arrived; a reset may overtake them.
    pub(crate) fn undelivered_bytes(&mut self, end: End) -> usize {
        if *self.health(end) != Health::Well {
            return 0;
        }
        let pipe = self.outward(end);
        match pipe.outlet {
            Outlet::Open | Outlet::Ended => pipe.bytes_under_way(),
            Outlet::Silent => pipe.queued_bytes,
            Outlet::Gone => 0,
        }
    }

    /// Bytes written towards this end and not read.
    pub(crate) fn unread_bytes(&mut self, end: End) -> usize {
        self.inward(end).queued_bytes
    }

    /// Lets the fault of this end's direction happen, if it is time for it. Says whether it did.
    fn fail_if_due(&mut self, end: End) -> bool {
        let pipe = self.outward(end);
        let due = pipe.manners.fault.take_if(|fault| fault.at_byte <= pipe.passed_bytes);
        let Some(fault) = due else { return false };
        match fault.kind {
            FaultKind::Reset => {
                self.learn_of_reset(end);
                self.learn_of_reset(end.other());
            }
            FaultKind::ForgedEnd => {
                let delay = self.delay(end);
                let pipe = self.outward(end);
                pipe.end(delay);
                pipe.outlet = Outlet::Gone;
            }
            FaultKind::Silence => pipe.outlet = Outlet::Silent,
        }
        true
    }

    fn learn_of_reset(&mut self, end: End) {
        if *self.health(end) == Health::Well {
            *self.health(end) = Health::Reset;
        }
        self.inward(end).reader.wake();
        self.outward(end).writer.wake();
        if let Some(watcher) = self.watcher(end).take() {
            watcher.wake();
        }
    }

    /// Whether a reader is told of readiness although nothing has come: at most once before something does.
    fn lies_to_reader(&mut self, end: End) -> bool {
        let one_in = self.manners_of(end.other()).false_readiness_one_in;
        let lies = self.chance.one_in(one_in);
        let reader = &mut self.inward(end).reader;
        lies && !std::mem::replace(&mut reader.lied_to, true)
    }

    fn stall(&mut self, one_in: u64) -> Option<Instant> {
        let stalls = self.chance.one_in(one_in);
        stalls.then(|| Instant::now() + Duration::from_millis(self.chance.within(0..=3)))
    }

    /// How much of `total` bytes the pipe that `end` writes to would move at once.
    fn part(&mut self, end: End, total: usize) -> usize {
        match self.manners_of(end).part_bytes_max {
            None => total,
            Some(max) => self.chance.length(1..=max.min(total)),
        }
    }

    fn delay(&mut self, end: End) -> Duration {
        let max = self.manners_of(end).delay_max.as_millis();
        Duration::from_millis(self.chance.within(0..=u64::try_from(max).unwrap_or(u64::MAX)))
    }

    fn note(&self, end: End, bytes: Vec<u8>) {
        let Some(record) = &self.record else { return };
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        match end {
            End::Dialler => record.uplink.push(bytes),
            End::Acceptor => record.downlink.push(bytes),
        }
    }

    fn watcher(&mut self, end: End) -> &mut Option<Waker> {
        match end {
            End::Dialler => &mut self.watchers[0],
            End::Acceptor => &mut self.watchers[1],
        }
    }

    fn health(&mut self, end: End) -> &mut Health {
        match end {
            End::Dialler => &mut self.dialler,
            End::Acceptor => &mut self.acceptor,
        }
    }

    /// The pipe that this end writes to.
    fn outward(&mut self, end: End) -> &mut Pipe {
        match end {
            End::Dialler => &mut self.uplink,
            End::Acceptor => &mut self.downlink,
        }
    }

    /// The pipe that this end reads from.
    fn inward(&mut self, end: End) -> &mut Pipe {
        self.outward(end.other())
    }

    /// The manners of the pipe that this end writes to.
    fn manners_of(&self, end: End) -> &Manners {
        match end {
            End::Dialler => &self.uplink.manners,
            End::Acceptor => &self.downlink.manners,
        }
    }
}

impl Pipe {
    fn new(manners: Manners) -> Self {
        Self {
            manners,
            segments: VecDeque::new(),
            queued_bytes: 0,
            passed_bytes: 0,
            last_due: Instant::now(),
            outlet: Outlet::Open,
            end_due: None,
            reader: Waiting::default(),
            writer: Waiting::default(),
        }
    }

    /// How much of a write of `total` bytes is taken, if the manners make it `part`.
    fn admitted(&self, part: usize, total: usize) -> usize {
        let starts = self.manners.whole_start && self.passed_bytes == 0;
        let wanted = if starts { total } else { part };
        let room = self.manners.capacity_bytes.saturating_sub(self.queued_bytes);
        let before_fault = self.manners.fault.map_or(u64::MAX, |fault| fault.at_byte - self.passed_bytes);
        wanted.min(room).min(usize::try_from(before_fault).unwrap_or(usize::MAX))
    }

    fn push(&mut self, bytes: Vec<u8>, delay: Duration) {
        let whole = self.manners.whole_start && self.passed_bytes == 0;
        self.queued_bytes += bytes.len();
        self.passed_bytes += bytes.len() as u64;
        if self.outlet == Outlet::Open {
            let due = self.due_after(delay);
            self.segments.push_back(Segment { bytes, taken: 0, due, whole });
        }
    }

    fn end(&mut self, delay: Duration) {
        self.end_due = Some(self.due_after(delay));
        self.reader.wake();
    }

    /// Nothing overtakes what was sent before it.
    fn due_after(&mut self, delay: Duration) -> Instant {
        self.last_due = self.last_due.max(Instant::now() + delay);
        self.last_due
    }

    /// Moves up to `part` arrived bytes, or a whole start up to `room`. Says whether there were any.
    fn deliver(&mut self, part: usize, room: usize, bytes: &mut Vec<u8>) -> bool {
        let now = Instant::now();
        let starts = self.segments.front().is_some_and(|segment| segment.whole);
        let limit = if starts { room } else { part };
        while let Some(segment) = self.segments.front_mut().filter(|segment| segment.due <= now) {
            let rest = &segment.bytes[segment.taken..];
            let count = rest.len().min(limit - bytes.len());
            bytes.extend_from_slice(&rest[..count]);
            segment.taken += count;
            self.queued_bytes -= count;
            if segment.taken < segment.bytes.len() {
                break;
            }
            self.segments.pop_front();
            if starts {
                break;
            }
        }
        !bytes.is_empty()
    }

    fn bytes_under_way(&self) -> usize {
        let now = Instant::now();
        let under_way = self.segments.iter().filter(|segment| segment.due > now);
        under_way.map(|segment| segment.bytes.len() - segment.taken).sum()
    }

    fn lose_what_is_under_way(&mut self) {
        let now = Instant::now();
        self.segments.retain(|segment| segment.due <= now);
        self.queued_bytes = self.segments.iter().map(|segment| segment.bytes.len() - segment.taken).sum();
    }

    fn clear(&mut self) {
        self.segments.clear();
        self.queued_bytes = 0;
    }
}

impl Waiting {
    /// Ready when `at` has come, if it is known, and no stall lasts longer.
    fn poll(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let now = Instant::now();
        let stalled = self.stalled_until.take_if(|until| *until > now);
        self.stalled_until = stalled;
        match at.map(|at| at.max(stalled.unwrap_or(now))) {
            Some(at) if at <= now => return Poll::Ready(()),
            Some(at) => {
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
                timer.as_mut().reset(at);
                if timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            None => self.timer = None,
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn wake(&mut self) {
        self.lied_to = false;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn gather(pieces: &[IoSlice<'_>], count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    for piece in pieces {
        let part = piece.len().min(count - bytes.len());
        bytes.extend_from_slice(&piece[..part]);
    }
    bytes
}
