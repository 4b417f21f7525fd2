//! Traffic Server's files as they are: which of its words are followed, and what is wrong in a file.
//!
//! [`records`] is what `records.config` says of SOCKS, [`socks_config`] what `socks.config` says. Reading is pure: text in, a value
//! out or all errors at once. A file in which anything is wrong gives no value, so that no session goes direct because of a mistake.

mod parents;
mod range;
pub(crate) mod records;
pub(crate) mod socks_config;

pub(crate) use parents::ParentAt;
pub(crate) use range::Range;

use crate::report::Report;

/// What was found in a file so far, and the line that is being read.
struct Findings<'a> {
    file: &'a str,
    line: usize,
    found: Report,
}

impl<'a> Findings<'a> {
    /// Nothing so far in `file`, as the operator calls it.
    fn new(file: &'a str) -> Self {
        Self { file, line: 0, found: Report::default() }
    }

    /// Gives every line that is neither blank nor a comment to `read`, without the blanks behind it.
    fn read_lines(&mut self, text: &str, mut read: impl FnMut(&str, &mut Self)) {
        if text.len() > FILE_BYTES_MAX {
            let text = format!("has more than {FILE_BYTES_MAX} bytes; is this the right file?");
            return self.found.error(self.file, text);
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.split('\n').enumerate() {
            self.line = index + 1;
            let line = line.trim_end_matches(is_blank);
            if line.is_empty() || line.trim_start_matches(is_blank).starts_with('#') {
                continue;
            }
            if line.len() > LINE_BYTES_MAX {
                self.error(format!("longer than {LINE_BYTES_MAX} bytes; write several lines"));
            } else {
                read(line, self);
            }
            if self.found.errors.len() + self.found.warnings.len() >= FINDINGS_MAX {
                return self
                    .error("so much was found that what follows was not read; is this the right file?");
            }
        }
    }

    /// Where the line is: `socks.config:12`.
    fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// Adds an error of this line.
    fn error(&mut self, text: impl Into<String>) {
        let place = self.place();
        self.found.error(place, text);
    }

    /// Adds a warning of this line.
    fn warn(&mut self, text: impl Into<String>) {
        let place = self.place();
        self.found.warn(place, text);
    }

    /// Tells everything, and lets `value` through if nothing was wrong.
    fn finish<T>(self, value: T, report: &mut Report) -> Option<T> {
        let is_good = self.found.errors.is_empty();
        report.append(self.found);
        is_good.then_some(value)
    }
}

/// The white space of C, which is what the files are split at: a password may well have other kinds.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\x0b' | '\x0c')
}

/// `text`, as much of it as helps to find it.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// The largest files of their kind, comments included, have a tenth of this.
const FILE_BYTES_MAX: usize = 1 << 20;

/// What Traffic Server keeps for the parents of one line. Its comments promise 400, and its reader of logins takes 254.
const LINE_BYTES_MAX: usize = 16_384;

/// More than this is another kind of file, and nobody reads on.
const FINDINGS_MAX: usize = 100;

/// Room for every address; keeps a note one line on a screen.
const SHOWN_CHARS_MAX: usize = 64;
