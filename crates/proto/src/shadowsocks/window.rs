//! Which packets of a session have been seen: the newest ids exactly, in the manner of RFC 6479.

use std::fmt;

use crate::limits::PACKET_WINDOW_IDS;

/// The ids of one session's packets. An id is [checked](Self::check) before its packet is opened, and only
/// [entered](Self::insert) when all of it has proved good (SIP022, 3.2.4), so that strangers cannot move the window.
///
/// Each id has the bit whose number is its remainder; those between the newest id and the next newer one are cleared when
/// that one comes, so that no bit ever stands for two ids.
#[derive(Clone)]
pub struct Window {
    newest: u64,
    seen: [u64; WORDS],
}

/// Why an id is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowRefusal {
    /// It has been seen.
    Seen,
    /// It is older than what is remembered.
    Old,
}

impl Window {
    /// Nothing seen.
    pub fn new() -> Self {
        Self { newest: 0, seen: [0; WORDS] }
    }

    /// Everything up to `newest` seen: of a session of which only that is remembered.
    pub fn after(newest: u64) -> Self {
        Self { newest, seen: [u64::MAX; WORDS] }
    }

    /// The newest id that has been entered; nought also when there is none.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether a packet of this id may still come; nothing changes.
    pub fn check(&self, id: u64) -> Result<(), WindowRefusal> {
        if id > self.newest {
            return Ok(());
        }
        if self.newest - id >= PACKET_WINDOW_IDS {
            return Err(WindowRefusal::Old);
        }
        let (word, bit) = place(id);
        if self.seen[word] & bit == 0 { Ok(()) } else { Err(WindowRefusal::Seen) }
    }

    /// Enters the id of a packet that has proved good.
    pub fn insert(&mut self, id: u64) -> Result<(), WindowRefusal> {
        self.check(id)?;
        if id > self.newest {
            self.move_to(id);
        }
        let (word, bit) = place(id);
        self.seen[word] |= bit;
        Ok(())
    }

    fn move_to(&mut self, id: u64) {
        if id - self.newest >= PACKET_WINDOW_IDS {
            self.seen = [0; WORDS];
        } else {
            let mut clear = self.newest + 1;
            while clear <= id {
                // A word at a time, where a whole one lies between.
                let (word, bit) = place(clear);
                if bit == 1 && id - clear >= WORD_IDS {
                    self.seen[word] = 0;
                    clear += WORD_IDS;
                } else {
                    self.seen[word] &= !bit;
                    // Once beyond the newest id that there can be, nothing is left to be cleared.
                    let Some(next) = clear.checked_add(1) else { break };
                    clear = next;
                }
            }
        }
        self.newest = id;
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window(newest {})", self.newest)
    }
}

fn place(id: u64) -> (usize, u64) {
    let slot = id % PACKET_WINDOW_IDS;
    // A window has far fewer words than there are numbers.
    (usize::try_from(slot / WORD_IDS).unwrap_or(0), 1 << (slot % WORD_IDS))
}

const WORD_IDS: u64 = 64;
const WORDS: usize = (PACKET_WINDOW_IDS / WORD_IDS) as usize;

#[cfg(test)]
#[path = "tests/window.rs"]
mod tests;
