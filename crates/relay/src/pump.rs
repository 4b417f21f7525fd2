//! Carries bytes both ways until both ways have ended.
//!
//! One direction is a [`Flow`]: wait for readiness with nothing in hand, take a buffer, read once, seal or open in place,
//! write once, give the buffer back. Sealing reads payload straight into the slots between the room for lengths and tags, where
//! the method has them;
//! opening writes payload from where it was opened.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use umbra_proto::shadowsocks::UnixTime;
use umbra_proto::shadowsocks::stream::{OpenError, Opened, Opener, Sealer};
use umbra_proto::wire::Input;

use crate::batch::{Batch, Size};
use crate::limits::{
    BATCH_MARGIN_BYTES, BATCHES_PER_TURN, CONDUIT_BYTES, GATHERED_PAYLOAD_BYTES_MAX, IO_PIECES_MAX,
    LARGE_AFTER_BYTES, RESEAL_BYTES, SHORT_READS_MAX,
};
use crate::net::Socket;
use crate::net::os::OsSocket;
use crate::net::os::conduit::Conduit;

/// How bytes of one direction come in.
#[derive(Debug)]
pub(crate) enum Reader {
    /// As they are.
    Plain,
    /// As sealed records.
    Sealed(Opener),
}

/// How bytes of one direction go out.
#[derive(Debug)]
pub(crate) enum Writer {
    /// As they are.
    Plain,
    /// As sealed records.
    Sealed(Sealer),
}

/// One direction of a session.
#[derive(Debug)]
pub(crate) struct Flow {
    reader: Reader,
    writer: Writer,
    /// Held only while something lies in it.
    batch: Option<Batch>,
    /// Held in its place, and for as long, where bytes go from one of the kernel's sockets to another as they are.
    conduit: Option<Conduit>,
    size: Size,
    short_reads: u8,
    /// Bytes that have to arrive, counted from the first unopened one, before anything more can be opened.
    needed: usize,
    stage: Stage,
    carried: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Bytes handed over by the handshake come first: opened ones here, then the arrived ones.
    Begin(Range<usize>),
    /// Read and write.
    Carry,
    /// The source has ended; what is in hand still leaves.
    End,
    /// The sink knows that the source has ended.
    Ended,
    /// What came next could not be opened; what came before it still leaves.
    Failed(OpenError),
}

/// Which socket of a flow failed, and how.
#[derive(Debug)]
pub(crate) enum FlowError {
    /// Reading from the source.
    Read(io::Error),
    /// Opening what was read.
    Open(OpenError),
    /// The source ended inside a record.
    Truncated,
    /// Writing to the sink.
    Write(io::Error),
}

/// How a session's pump came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both directions ended in order.
    Whole,
    /// Nothing moved for the idle time.
    Idle,
    /// The uplink failed.
    Uplink(FlowError),
    /// The downlink failed.
    Downlink(FlowError),
}

impl Ended {
    /// Whether it was the target that failed, so that nothing stands between the client and what had come before.
    pub(crate) fn is_targets(&self) -> bool {
        match self {
            Self::Whole | Self::Idle => false,
            Self::Uplink(error) => matches!(error, FlowError::Write(_)),
            Self::Downlink(error) => !matches!(error, FlowError::Write(_)),
        }
    }
}

impl Flow {
    /// A direction whose first bytes may already lie in `batch`: opened ones at `early`, then those that arrived.
    pub(crate) fn new(reader: Reader, writer: Writer, batch: Option<Batch>, early: Range<usize>) -> Self {
        let batch = batch.filter(|batch| !batch.is_spent() || !early.is_empty());
        let stage = Stage::Begin(early);
        Self {
            reader,
            writer,
            batch,
            conduit: None,
            size: Size::Small,
            short_reads: 0,
            needed: 0,
            stage,
            carried: 0,
        }
    }

    /// Payload and record bytes written to the sink so far.
    pub(crate) fn carried(&self) -> u64 {
        self.carried
    }

    /// Whether a request's head still waits for first payload to ride with it.
    pub(crate) fn owes_request(&self) -> bool {
        match &self.writer {
            Writer::Plain => false,
            Writer::Sealed(sealer) => self.batch.is_none() && sealer.owes_request(),
        }
    }

    /// Sends the request's head alone.
    pub(crate) fn begin_without_payload(&mut self, clock: &impl Clock) {
        let Writer::Sealed(sealer) = &mut self.writer else { return };
        let mut head = Vec::new();
        sealer.seal_request_without_payload(clock.padding(), clock.now(), &mut head);
        let mut batch = Batch::take(Size::Small);
        batch.bytes[..head.len()].copy_from_slice(&head);
        batch.push_ready(0..head.len());
        self.batch = Some(batch);
    }

    fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Moves what can be moved from `source` to `sink`. Ready when the direction has ended. If it is the `last` one, the sink is
    /// not told so: it is about to be closed, which says the same.
    fn poll<S: Socket, T: Socket>(
        &mut self,
        cx: &mut Context<'_>,
        source: &S,
        sink: &T,
        clock: &impl Clock,
        last: bool,
    ) -> Poll<Result<(), FlowError>> {
        let mut turns = 0;
        loop {
            if let Stage::Begin(early) = &mut self.stage {
                let early = std::mem::take(early);
                self.stage = Stage::Carry;
                self.forward(early, clock);
            }
            ready!(self.flush(cx, sink))?;
            if let Stage::Failed(error) = &self.stage {
                return Poll::Ready(Err(FlowError::Open(*error)));
            }
            if self.stage == Stage::End {
                if self.owes_request() {
                    self.begin_without_payload(clock);
                    continue;
                }
                if !last {
                    shut_down(sink)?;
                }
                self.stage = Stage::Ended;
            }
            if self.stage == Stage::Ended {
                return Poll::Ready(Ok(()));
            }
            let readable = source.poll_readable(cx);
            // Readiness is a hint. What was thought to be first payload may be nothing, and the target may be the one to speak.
            if readable.is_pending() && self.owes_request() {
                self.begin_without_payload(clock);
                continue;
            }
            ready!(readable).map_err(FlowError::Read)?;
            if turns == BATCHES_PER_TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            turns += 1;
            match self.read(source, sink, clock) {
                Ok(Read { count: 0, .. }) => self.source_ended()?,
                Ok(read) => {
                    self.forward(0..0, clock);
                    if self.adapt(&read) {
                        sink.expect_bulk();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.drop_spent(),
                Err(error) => return Poll::Ready(Err(FlowError::Read(error))),
            }
        }
    }

    /// Writes what is ready, and gives what held it back when nothing is left in it.
    fn flush<T: Socket>(&mut self, cx: &mut Context<'_>, sink: &T) -> Poll<Result<(), FlowError>> {
        while let Some(written) = self.write(sink) {
            match written {
                Ok(0) => return Poll::Ready(Err(FlowError::Write(io::ErrorKind::WriteZero.into()))),
                Ok(count) => self.carried += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(sink.poll_writable(cx)).map_err(FlowError::Write)?;
                }
                Err(error) => return Poll::Ready(Err(FlowError::Write(error))),
            }
        }
        self.drop_spent();
        Poll::Ready(Ok(()))
    }

    /// One write of what is ready, if anything is.
    fn write<T: Socket>(&mut self, sink: &T) -> Option<io::Result<usize>> {
        if let Some(conduit) = self.conduit.as_mut().filter(|conduit| !conduit.is_empty()) {
            return sink.kernel().map(|sink| conduit.drain(sink));
        }
        let batch = self.batch.as_mut().filter(|batch| !batch.ready().is_empty())?;
        let written = write_ready(batch, sink);
        if let Ok(count) = written {
            batch.written(count);
        }
        Some(written)
    }

    fn drop_spent(&mut self) {
        self.batch.take_if(|batch| batch.is_spent());
        self.conduit.take_if(|conduit| conduit.is_empty());
    }

    fn source_ended(&mut self) -> Result<(), FlowError> {
        let unopened = self.batch.as_ref().map_or(0, |batch| batch.arrived.len());
        let whole = match &self.reader {
            Reader::Plain => true,
            Reader::Sealed(opener) => opener.may_end(unopened),
        };
        self.batch = None;
        self.stage = Stage::End;
        if whole { Ok(()) } else { Err(FlowError::Truncated) }
    }

    /// One read: past us, into the slots of a sealed batch, or behind what has already arrived.
    fn read<S: Socket, T: Socket>(&mut self, source: &S, sink: &T, clock: &impl Clock) -> io::Result<Read> {
        if let Some((source, conduit)) = self.conduit_between(source, sink) {
            match conduit.fill(source) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => self.conduit = None,
                filled => return filled.map(|count| Read { count, room: CONDUIT_BYTES }),
            }
        }
        let size = self.size;
        let batch = self.batch.get_or_insert_with(|| Batch::take(size));
        let spare = match (&self.reader, &mut self.writer) {
            (Reader::Plain, Writer::Sealed(sealer)) => return read_and_seal(source, batch, sealer, clock),
            (Reader::Plain | Reader::Sealed(_), Writer::Plain) => 0,
            (Reader::Sealed(_), Writer::Sealed(_)) => RESEAL_BYTES,
        };
        let needed = self.needed + spare;
        if !batch.make_room(needed.max(size.bytes())) && !batch.make_room(needed) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let end = batch.reach.max(needed) - spare;
        read_behind(source, batch, end)
    }

    /// A conduit for a bulk flow that nothing is done to, and the kernel's socket that it comes from.
    fn conduit_between<'s, S: Socket, T: Socket>(
        &mut self,
        source: &'s S,
        sink: &T,
    ) -> Option<(&'s OsSocket, &mut Conduit)> {
        let (Reader::Plain, Writer::Plain, Size::Large, None) =
            (&self.reader, &self.writer, self.size, &self.batch)
        else {
            return None;
        };
        sink.kernel()?;
        let source = source.kernel()?;
        if self.conduit.is_none() {
            self.conduit = Conduit::take();
        }
        Some((source, self.conduit.as_mut()?))
    }

    /// Larger buffers while reads fill them, smaller ones when they have come short for a while. Says whether the flow has
    /// just outgrown the smallest.
    fn adapt(&mut self, read: &Read) -> bool {
        let before = self.size;
        if read.count == read.room {
            if before == Size::Small || self.carried >= LARGE_AFTER_BYTES {
                self.size = before.larger();
            }
            self.short_reads = 0;
        } else if read.count >= before.smaller().reach() {
            self.short_reads = 0;
        } else {
            self.short_reads += 1;
            if self.short_reads == SHORT_READS_MAX {
                self.size = before.smaller();
                self.short_reads = 0;
            }
        }
        before == Size::Small && self.size > Size::Small
    }

    /// Turns what has arrived, behind what a handshake has opened `early`, into pieces that are ready to leave. What comes before
    /// something that cannot be opened is as good as it was.
    fn forward(&mut self, early: Range<usize>, clock: &impl Clock) {
        let Some(batch) = &mut self.batch else { return };
        let nothing_plain = early.is_empty() && batch.arrived.is_empty();
        batch.push_ready(early);
        match &mut self.reader {
            Reader::Plain => {
                let arrived = std::mem::take(&mut batch.arrived);
                batch.push_ready(arrived);
            }
            Reader::Sealed(opener) => match open_arrived(batch, opener, clock) {
                Ok(needed) => self.needed = needed,
                Err(error) => self.stage = Stage::Failed(error),
            },
        }
        match &mut self.writer {
            Writer::Plain => {}
            // Then the pieces are records that `read_and_seal` has made.
            Writer::Sealed(_) if nothing_plain => {}
            Writer::Sealed(sealer) => seal_ready(batch, sealer, clock),
        }
    }
}

/// What one read gave, and what it had room for.
struct Read {
    count: usize,
    room: usize,
}

/// The two things of the outside that sealing needs.
pub(crate) trait Clock {
    /// The wall clock.
    fn now(&self) -> UnixTime;
    /// A random number for the length of padding.
    fn padding(&self) -> u16;
}

fn write_ready<T: Socket>(batch: &Batch, sink: &T) -> io::Result<usize> {
    if let [piece] = batch.ready() {
        return sink.try_write(&[IoSlice::new(&batch.bytes[piece.clone()])]);
    }
    let mut pieces = [IoSlice::new(&[]); IO_PIECES_MAX];
    let mut count = 0;
    for (slot, piece) in pieces.iter_mut().zip(batch.ready()) {
        *slot = IoSlice::new(&batch.bytes[piece.clone()]);
        count += 1;
    }
    sink.try_write(&pieces[..count])
}

/// The peer may have torn the connection down already; then it needs no telling.
fn shut_down<T: Socket>(sink: &T) -> Result<(), FlowError> {
    match sink.shutdown_write() {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(FlowError::Write(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Reads behind what has arrived, up to the buffer's `end`th byte.
fn read_behind<S: Socket>(source: &S, batch: &mut Batch, end: usize) -> io::Result<Read> {
    let slab = &mut **batch;
    let piece = &mut slab.bytes[slab.arrived.end..end];
    let room = piece.len();
    let count = source.try_read(&mut [IoSliceMut::new(piece)])?;
    slab.arrived.end += count;
    Ok(Read { count, room })
}

/// One vectored read into the slots of a batch, each sealed where it lies.
fn read_and_seal<S: Socket>(
    source: &S,
    batch: &mut Batch,
    sealer: &mut Sealer,
    clock: &impl Clock,
) -> io::Result<Read> {
    let slab = &mut **batch;
    let layout = Layout::of(sealer, slab.reach);
    let count = {
        let mut pieces: [IoSliceMut<'_>; IO_PIECES_MAX] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut rest = &mut slab.bytes[..];
        let mut head_len = layout.first_head;
        let mut used = 0;
        for (piece, payload_len) in pieces.iter_mut().zip(layout.payloads()) {
            let (record, after) = rest.split_at_mut(head_len + payload_len + layout.tail);
            *piece = IoSliceMut::new(&mut record[head_len..head_len + payload_len]);
            rest = after;
            head_len = layout.record_head;
            used += 1;
        }
        source.try_read(&mut pieces[..used])?
    };
    if count > 0 {
        let sealed = seal_slots(&mut slab.bytes, &layout, count, sealer, clock);
        slab.push_ready(0..sealed);
    }
    Ok(Read { count, room: layout.room() })
}

/// Seals `count` payload bytes that lie in the slots of `layout`; gives the length of the records, which lie end to end.
fn seal_slots(
    bytes: &mut [u8],
    layout: &Layout,
    mut count: usize,
    sealer: &mut Sealer,
    clock: &impl Clock,
) -> usize {
    let now = if sealer.needs_time() { clock.now() } else { UnixTime(0) };
    let mut start = 0;
    for room in layout.payloads() {
        let payload_len = count.min(room);
        if payload_len == 0 {
            break;
        }
        count -= payload_len;
        let head_len = if start == 0 { layout.first_head } else { layout.record_head };
        let end = start + head_len + payload_len + layout.tail;
        sealer.seal(&mut bytes[start..end], now);
        start = end;
    }
    start
}

/// Where the payloads of a sealed batch lie: the first behind a head of its own length, the rest evenly.
struct Layout {
    first_head: usize,
    first_payload: usize,
    record_head: usize,
    tail: usize,
    payload_max: usize,
    bytes: usize,
}

impl Layout {
    fn of(sealer: &Sealer, bytes: usize) -> Self {
        let (first_head, record_head, tail) =
            (sealer.head_len(), sealer.record_head_len(), sealer.tail_len());
        let first_payload = sealer.payload_max().min(bytes - first_head - tail);
        Self { first_head, first_payload, record_head, tail, payload_max: sealer.record_payload_max(), bytes }
    }

    /// A buffer length that has room for `total` bytes of payload.
    fn bytes_for(total: usize, sealer: &Sealer) -> usize {
        let records = 2 + total / sealer.record_payload_max();
        let around = sealer.record_head_len() + sealer.tail_len();
        sealer.head_len() + total + records * around + BATCH_MARGIN_BYTES
    }

    /// The room for payload in each record.
    fn payloads(&self) -> impl Iterator<Item = usize> {
        let mut left = self.bytes - self.first_head - self.first_payload - self.tail;
        let around = self.record_head + self.tail;
        let rest = std::iter::from_fn(move || {
            let room = left.checked_sub(around)?.min(self.payload_max);
            left -= room + around;
            // A sliver at the end would only make a record that is mostly tags.
            (room >= BATCH_MARGIN_BYTES).then_some(room)
        });
        std::iter::once(self.first_payload).chain(rest).take(IO_PIECES_MAX)
    }

    fn room(&self) -> usize {
        self.payloads().sum()
    }
}

/// Opens every whole record that has arrived. Gives the bytes that the next one needs, counted from its first.
fn open_arrived(batch: &mut Batch, opener: &mut Opener, clock: &impl Clock) -> Result<usize, OpenError> {
    let now = if opener.needs_time() { clock.now() } else { UnixTime(0) };
    let slab = &mut **batch;
    loop {
        let start = slab.arrived.start;
        let mut input = Input::new(&mut slab.bytes[slab.arrived.clone()]);
        let opened = opener.open(&mut input, now)?;
        slab.arrived.start += input.taken();
        match opened {
            Opened::Payload(place) => {
                let piece = start + place.start..start + place.end;
                if piece.len() < GATHERED_PAYLOAD_BYTES_MAX {
                    slab.gather_ready(piece);
                } else {
                    slab.push_ready(piece);
                }
            }
            Opened::Incomplete(needed) => return Ok(needed),
        }
    }
}

/// Seals the ready pieces anew into a buffer of their own: for first payload that arrived with a handshake, and for the rare
/// way that comes in sealed and goes out sealed.
fn seal_ready(batch: &mut Batch, sealer: &mut Sealer, clock: &impl Clock) {
    let total: usize = batch.ready().iter().map(ExactSizeIterator::len).sum();
    if total == 0 {
        return;
    }
    let unopened = batch.arrived.clone();
    let len = Layout::bytes_for(total, sealer);
    let mut sealed = Batch::unpooled(len + unopened.len());
    let layout = Layout::of(sealer, len);
    let mut pieces = batch.ready().iter().map(|piece| &batch.bytes[piece.clone()]);
    let mut piece = pieces.next().unwrap_or_default();
    let mut start = layout.first_head;
    for room in layout.payloads() {
        let mut slot = &mut sealed.bytes[start..start + room];
        while !slot.is_empty() && !piece.is_empty() {
            let count = slot.len().min(piece.len());
            let (filled, free) = slot.split_at_mut(count);
            filled.copy_from_slice(&piece[..count]);
            slot = free;
            piece = &piece[count..];
            if piece.is_empty() {
                piece = pieces.next().unwrap_or_default();
            }
        }
        start += room + layout.tail + layout.record_head;
    }
    let slab = &mut *sealed;
    let end = seal_slots(&mut slab.bytes, &layout, total, sealer, clock);
    slab.push_ready(0..end);
    slab.arrived = end..end + unopened.len();
    slab.bytes[slab.arrived.clone()].copy_from_slice(&batch.bytes[unopened]);
    *batch = sealed;
}

/// Runs both directions between `client` and `target` until both have ended, one fails, or nothing moves for `idle`.
///
/// A target that takes nothing any more may have said something before, which the client still gets.
pub(crate) async fn pump<S: Socket, T: Socket>(
    client: &S,
    target: &T,
    uplink: &mut Flow,
    downlink: &mut Flow,
    clock: &impl Clock,
    idle: Duration,
) -> Ended {
    let mut deadline = Instant::now() + idle;
    let mut timer = pin!(sleep_until(deadline));
    let mut armed = false;
    // Why the target takes nothing any more.
    let mut refused = None;
    poll_fn(|cx| {
        let before = uplink.carried + downlink.carried;
        let mut up = Poll::Pending;
        if refused.is_none() {
            match uplink.poll(cx, client, target, clock, downlink.has_ended()) {
                Poll::Ready(Err(FlowError::Write(error))) => refused = Some(error),
                Poll::Ready(Err(error)) => return Poll::Ready(Ended::Uplink(error)),
                flowing @ (Poll::Ready(Ok(())) | Poll::Pending) => up = flowing,
            }
        }
        // A socket tells of a reset only once. What comes of the target after that may look like an orderly end, which is not passed on.
        let is_last = refused.is_some() || uplink.has_ended();
        let down = downlink.poll(cx, target, client, clock, is_last);
        if let Poll::Ready(Err(error @ FlowError::Write(_))) = down {
            return Poll::Ready(Ended::Downlink(error));
        }
        if let Some(error) = refused.take_if(|_| down.is_ready()) {
            return Poll::Ready(Ended::Uplink(FlowError::Write(error)));
        }
        if let Poll::Ready(Err(error)) = down {
            return Poll::Ready(Ended::Downlink(error));
        }
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ended::Whole);
        }
        if uplink.carried + downlink.carried != before {
            deadline = Instant::now() + idle;
        }
        // The timer is armed once and moved only when it fires, so that traffic costs it nothing.
        if armed && !timer.is_elapsed() {
            return Poll::Pending;
        }
        armed = true;
        while timer.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(Ended::Idle);
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests;
