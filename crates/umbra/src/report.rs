//! What is wrong and what is doubtful in a configuration, all of it at once.

use std::fmt;

/// Everything found; the configuration is good if there are no errors.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What keeps Umbra from starting.
    pub(crate) errors: Vec<Note>,
    /// What the operator should know.
    pub(crate) warnings: Vec<Note>,
}

/// One finding: where it was written, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// The key path or flag: `servers[1].password`, `-k`. Empty where the text says it all.
    pub(crate) place: String,
    /// What is wrong, and the remedy.
    pub(crate) text: String,
}

impl Report {
    /// Adds everything that `other` holds.
    pub(crate) fn append(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
    }

    /// Adds an error. What is said already is not said again: one value may count for many ports.
    pub(crate) fn error(&mut self, place: impl Into<String>, text: impl Into<String>) {
        add(&mut self.errors, Note { place: place.into(), text: text.into() });
    }

    /// Adds a warning, likewise.
    pub(crate) fn warn(&mut self, place: impl Into<String>, text: impl Into<String>) {
        add(&mut self.warnings, Note { place: place.into(), text: text.into() });
    }
}

fn add(notes: &mut Vec<Note>, note: Note) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

/// Control characters in what the operator wrote are shown escaped, so that a note stays one line.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.place.is_empty() { "" } else { ": " };
        for part in [&self.place, separator, &self.text] {
            for c in part.chars() {
                if c.is_control() { c.escape_default().fmt(f)? } else { fmt::Write::write_char(f, c)? }
            }
        }
        Ok(())
    }
}
