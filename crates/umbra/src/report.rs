//! What is wrong and what is doubtful in a configuration, all of it at once.

use std::fmt;

use crate::lines::Lines;

/// Everything found; the configuration is good if there are no errors.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What keeps Umbra from starting.
    pub(crate) errors: Vec<Note>,
    /// What the operator should know.
    pub(crate) warnings: Vec<Note>,
    /// On which lines the keys stand, of each file that was read.
    pub(crate) lines: Vec<Lines>,
}

/// One finding: where it was written, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// The key path or flag: `servers[1].password`, `-k`. Empty where the text says it all.
    pub(crate) place: String,
    /// What is wrong, and the remedy.
    pub(crate) text: String,
    /// Where the place is told.
    order: Order,
}

/// What of a note comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Where it was written.
    PlaceFirst,
    /// The text, which programs may wait for as it is since the first Shadowsocks has had it. The place follows if it is in a file.
    TextFirst,
}

impl Note {
    /// A note whose place is told before its text.
    pub(crate) fn new(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into(), order: Order::PlaceFirst }
    }
}

impl Report {
    /// Adds everything that `other` holds.
    pub(crate) fn append(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
        self.lines.extend(other.lines);
    }

    /// The errors as they are told: with file and line, where they are about a key of a file.
    pub(crate) fn told_errors(&self) -> impl Iterator<Item = Note> {
        self.errors.iter().map(|note| self.locate(note))
    }

    /// The warnings, likewise.
    pub(crate) fn told_warnings(&self) -> impl Iterator<Item = Note> {
        self.warnings.iter().map(|note| self.locate(note))
    }

    fn locate(&self, note: &Note) -> Note {
        let Some(place) = self.lines.iter().find_map(|lines| lines.locate(&note.place)) else {
            return note.clone();
        };
        match note.order {
            Order::PlaceFirst => Note { place, ..note.clone() },
            Order::TextFirst => Note { text: format!("{} ({place})", note.text), ..note.clone() },
        }
    }

    /// Whether an error is about `place` or something in it, so that no more has to be said of it.
    pub(crate) fn speaks_of(&self, place: &str) -> bool {
        self.errors.iter().any(|error| error.place.starts_with(place))
    }

    /// Adds an error. What is said already is not said again: one value may count for many ports.
    pub(crate) fn error(&mut self, place: impl Into<String>, text: impl Into<String>) {
        add(&mut self.errors, Note::new(place, text));
    }

    /// Adds an error about what is not at `place`, unless one says already what is wrong there.
    pub(crate) fn error_missing(&mut self, place: impl Into<String>, text: impl Into<String>) {
        let place = place.into();
        if !self.errors.iter().any(|error| error.place == place) {
            self.error(place, text);
        }
    }

    /// Adds a warning. What is said already is not said again.
    pub(crate) fn warn(&mut self, place: impl Into<String>, text: impl Into<String>) {
        add(&mut self.warnings, Note::new(place, text));
    }

    /// Adds a warning in the words of the first Shadowsocks.
    pub(crate) fn warn_as_ever(&mut self, place: impl Into<String>, text: impl Into<String>) {
        add(&mut self.warnings, Note { order: Order::TextFirst, ..Note::new(place, text) });
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
        let (place, separator) = match self.order {
            Order::PlaceFirst if !self.place.is_empty() => (self.place.as_str(), ": "),
            Order::PlaceFirst | Order::TextFirst => ("", ""),
        };
        for part in [place, separator, &self.text] {
            for c in part.chars() {
                if c.is_control() { c.escape_default().fmt(f)? } else { fmt::Write::write_char(f, c)? }
            }
        }
        Ok(())
    }
}
