//! Runs a pure handshake over a socket, keeping whatever it does not take.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;

use umbra_proto::wire::Input;
use umbra_proto::{Handshake, Step};
use zeroize::Zeroizing;

use crate::batch::{Batch, Size};
use crate::limits::MEDIUM_BATCH_BYTES;
use crate::net::Socket;

/// Bytes that have arrived from a peer and belong to nobody yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Option<Batch>);

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(crate) enum DriveError<E> {
    /// The socket failed.
    Io(io::Error),
    /// The peer ended first.
    Ended,
    /// The peer fills the largest buffer without a message coming to its end.
    TooLong,
    /// The peer is wrong; it has been told what it is to be told.
    Peer(E),
}

impl Inbox {
    /// An inbox with `bytes` in it.
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        let mut batch = if bytes.len() <= Size::Small.bytes() {
            Batch::take(Size::Small)
        } else {
            Batch::unpooled(bytes.len())
        };
        batch.bytes[..bytes.len()].copy_from_slice(bytes);
        batch.arrived = 0..bytes.len();
        Self(Some(batch))
    }

    /// What is left for the session, if anything is.
    pub(crate) fn into_batch(self) -> Option<Batch> {
        self.0
    }

    /// The same behind `header`, which is as good as payload that came first: `early` payload lies behind it, and what is not
    /// opened behind that. Gives the place of all that is opened.
    pub(crate) fn into_batch_behind(self, header: &[u8], early: Range<usize>) -> (Batch, Range<usize>) {
        let (opened, unopened) = match &self.0 {
            Some(batch) => (&batch.bytes[early], &batch.bytes[batch.arrived.clone()]),
            None => (&[][..], &[][..]),
        };
        let start = header.len() + opened.len();
        let mut behind = Batch::unpooled(start + unopened.len());
        for (place, bytes) in [(0, header), (header.len(), opened), (start, unopened)] {
            behind.bytes[place..place + bytes.len()].copy_from_slice(bytes);
        }
        behind.arrived = start..start + unopened.len();
        (behind, 0..start)
    }

    /// Waits for bytes with nothing in hand, then reads once.
    pub(crate) async fn read<S: Socket>(&mut self, socket: &S) -> io::Result<usize> {
        loop {
            self.drop_spent();
            poll_fn(|cx| socket.poll_readable(cx)).await?;
            let batch = self.0.get_or_insert_with(|| Batch::take(Size::Small));
            let slab = &mut **batch;
            let room = &mut slab.bytes[slab.arrived.end..];
            match socket.try_read(&mut [IoSliceMut::new(room)]) {
                Ok(count) => {
                    slab.arrived.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Throws away what has arrived.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    /// Gives the buffer back if everything that arrived has been taken. Places in it that a machine has named are then gone.
    pub(crate) fn drop_spent(&mut self) {
        if self.0.as_ref().is_some_and(|batch| batch.is_spent()) {
            self.0 = None;
        }
    }

    /// Makes room for another read; `false` if the peer has used up all there is.
    pub(crate) fn make_room(&mut self) -> bool {
        let Some(batch) = &mut self.0 else { return true };
        let (len, capacity) = (batch.arrived.len(), batch.bytes.len());
        if len < capacity {
            return batch.make_room(capacity);
        }
        capacity < MEDIUM_BATCH_BYTES && batch.make_room(MEDIUM_BATCH_BYTES)
    }
}

/// Advances `machine` with what is in `inbox` and what `socket` brings, until it is done.
///
/// Gives the place where the last taken bytes began in the inbox's buffer: machines name places from there.
pub(crate) async fn drive<H: Handshake, S: Socket>(
    mut machine: H,
    socket: &S,
    inbox: &mut Inbox,
) -> Result<(H::Done, usize), DriveError<H::Error>> {
    // Towards a proxy on the way it may hold a password.
    let mut output = Zeroizing::new(Vec::new());
    loop {
        if let Some(batch) = &mut inbox.0 {
            let slab = &mut **batch;
            let start = slab.arrived.start;
            let mut input = Input::new(&mut slab.bytes[slab.arrived.clone()]);
            let outcome = machine.advance(&mut input, &mut output);
            slab.arrived.start += input.taken();
            if !output.is_empty() {
                write_all(socket, &output).await.map_err(DriveError::Io)?;
                output.clear();
            }
            match outcome.map_err(DriveError::Peer)? {
                Step::Done(done) => return Ok((done, start)),
                Step::Wait(next) => machine = next,
            }
        }
        if !inbox.make_room() {
            return Err(DriveError::TooLong);
        }
        if inbox.read(socket).await.map_err(DriveError::Io)? == 0 {
            return Err(DriveError::Ended);
        }
    }
}

/// Writes all of `bytes`.
pub(crate) async fn write_all<S: Socket>(socket: &S, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.try_write(&[IoSlice::new(bytes)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| socket.poll_writable(cx)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
