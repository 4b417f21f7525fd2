//! Elsewhere than on Linux bytes always come into this process.

use std::io;

use super::OsSocket;

/// There is none.
#[derive(Debug)]
pub(crate) enum Conduit {}

impl Conduit {
    /// None.
    pub(crate) fn take() -> Option<Self> {
        None
    }

    /// Whether nothing lies in it.
    pub(crate) fn is_empty(&self) -> bool {
        match *self {}
    }

    /// Moves in what `source` has.
    pub(crate) fn fill(&mut self, _: &OsSocket) -> io::Result<usize> {
        match *self {}
    }

    /// Moves on to `sink` as much as it takes.
    pub(crate) fn drain(&mut self, _: &OsSocket) -> io::Result<usize> {
        match *self {}
    }
}

/// However many are allowed, there are none.
pub(crate) fn allow_conduits(_: usize) {}

/// There is nothing to close.
pub(crate) fn close_free_conduits() {}
