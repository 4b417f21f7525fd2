//! The manners of a connection: how each direction cuts, delays, withholds and breaks.

use std::time::Duration;

use crate::chance::Chance;

/// A connection's two directions, seen from whoever dials.
#[derive(Clone, Debug)]
pub struct Link {
    /// How long the connection takes to open.
    pub opening: Duration,
    /// From the dialling end.
    pub uplink: Manners,
    /// To the dialling end.
    pub downlink: Manners,
}

/// How one direction treats its bytes.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Bytes that are accepted before the reader has taken any.
    pub capacity_bytes: usize,
    /// The most that one write is accepted or one read is given of, a random part each time; none is all there is.
    pub part_bytes_max: Option<usize>,
    /// Whether the first write, as far as it fits, arrives as one read, as SIP022 asks of a transport.
    pub whole_start: bool,
    /// The longest that a write is under way.
    pub delay_max: Duration,
    /// One in so many tries finds, after readiness was told, that there is nothing to do yet; zero is never.
    pub false_readiness_one_in: u64,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

/// Something that goes wrong in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// After so many bytes.
    pub at_byte: u64,
    /// What.
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Both ends see a reset.
    Reset,
    /// The reader sees an orderly end that the writer never asked for; the writer's next bytes meet a reset.
    ForgedEnd,
    /// Nothing arrives any more, and nobody is told.
    Silence,
}

impl Link {
    /// Passes everything at once, a socket buffer at a time.
    pub fn plain() -> Self {
        Self { opening: Duration::ZERO, uplink: Manners::plain(), downlink: Manners::plain() }
    }

    /// Manners from a seed, without faults.
    pub fn random(chance: &mut Chance) -> Self {
        let opening = Duration::from_millis(chance.within(0..=200));
        Self { opening, uplink: Manners::random(chance), downlink: Manners::random(chance) }
    }

    /// The same, but no place in it is narrow: bytes come by the thousand, and large buffers fill.
    pub fn widened(mut self, chance: &mut Chance) -> Self {
        for manners in [&mut self.uplink, &mut self.downlink] {
            manners.capacity_bytes = chance.length(20_000..=700_000);
            manners.part_bytes_max = manners.part_bytes_max.map(|_| chance.length(2_000..=400_000));
        }
        self
    }

    /// The same, but the first write of either direction arrives in one piece.
    pub fn with_whole_start(mut self) -> Self {
        for manners in [&mut self.uplink, &mut self.downlink] {
            manners.whole_start = true;
            manners.capacity_bytes = manners.capacity_bytes.max(START_BYTES);
        }
        self
    }

    /// The same, but at most `bytes` are accepted from either end before the other takes any.
    pub fn with_capacity(mut self, bytes: usize) -> Self {
        self.uplink.capacity_bytes = bytes;
        self.downlink.capacity_bytes = bytes;
        self
    }
}

impl Manners {
    /// Passes everything at once, a socket buffer at a time.
    pub fn plain() -> Self {
        Self {
            capacity_bytes: 64 * 1024,
            part_bytes_max: None,
            whole_start: false,
            delay_max: Duration::ZERO,
            false_readiness_one_in: 0,
            fault: None,
        }
    }

    /// Manners from a seed, without a fault.
    pub fn random(chance: &mut Chance) -> Self {
        let capacity_bytes = chance.uneven_length(ANSWER_BYTES..=512 * 1024);
        let part_bytes_max = match chance.within(0..=2) {
            0 => None,
            1 => Some(capacity_bytes.div_ceil(8)),
            _ => Some(chance.uneven_length(1..=100_000).max(capacity_bytes / 200)),
        };
        Self {
            capacity_bytes,
            part_bytes_max,
            whole_start: false,
            delay_max: Duration::from_millis(*chance.choose(&[0, 0, 1, 30, 300])),
            false_readiness_one_in: *chance.choose(&[0, 0, 2, 5, 50]),
            fault: None,
        }
    }
}

/// No socket buffer is smaller than the longest answer of a handshake.
const ANSWER_BYTES: usize = 64;

/// Room for everything that SIP022 wants in one read.
const START_BYTES: usize = 256;
