//! Files of rules, line by line, and what is wrong with one.

use std::fmt;
use std::io::{BufRead, Read as _};

use super::EntryError;
use super::acl::SectionError;
use crate::limits::{LIST_BYTES_MAX, LIST_ERRORS_MAX, LIST_LINE_BYTES_MAX};

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The name of the file.
    pub file: Box<str>,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub why: Why,
}

/// Everything that is wrong with a file, in the order of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileErrors {
    /// The first of it, 20 at most.
    pub first: Vec<FileError>,
    /// How much more there is.
    pub more: usize,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The file cannot be read on, and the system's words for it.
    Read(Box<str>),
    /// The file is longer than files of rules may be.
    LongFile,
    /// So is this line.
    LongLine,
    /// It is not text.
    NotUtf8,
    /// What stands there cannot be a target.
    Entry(EntryError),
    /// There is none in the whole file.
    NoEntries,
    /// It includes another file.
    Include,
    /// A prefix that has no meaning.
    Prefix(Box<str>),
    /// A section of an access list.
    Section(SectionError),
}

/// Reads one line after the other, and no more of a line or of all than is allowed.
pub(super) struct Lines<R> {
    file: Box<str>,
    reader: R,
    line: usize,
    left: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(file: &str, reader: R) -> Self {
        Self { file: file.into(), reader, line: 0, left: LIST_BYTES_MAX, buffer: Vec::new() }
    }

    /// What stands in the next line that says anything, and its number: without the comment, which `#` begins, and without space
    /// around it.
    fn next(&mut self) -> Result<Option<(&str, usize)>, FileError> {
        loop {
            self.line += 1;
            if !self.fill()? {
                return Ok(None);
            }
            if !meaning(&self.buffer).is_empty() {
                // Asked again, since what a loop returns would be borrowed for all of it.
                let text = str::from_utf8(meaning(&self.buffer));
                return text.map(|text| Some((text, self.line))).map_err(|_| self.wrong(Why::NotUtf8));
            }
        }
    }

    /// Gives every line that says anything to `take`, with its number, and goes on where one is wrong, as far as that makes sense.
    pub(super) fn read_all(&mut self, mut take: impl FnMut(&str, usize) -> Result<(), Why>) -> FileErrors {
        let mut errors = FileErrors::default();
        loop {
            let taken = match self.next() {
                Ok(None) => return errors,
                Ok(Some((text, line))) => take(text, line).map_err(|why| self.wrong(why)),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                let is_last = error.why.ends_reading();
                errors.add(error);
                if is_last {
                    return errors;
                }
            }
        }
    }

    /// Something is wrong with the line that was read last.
    fn wrong(&self, why: Why) -> FileError {
        self.wrong_at(self.line, why)
    }

    pub(super) fn wrong_at(&self, line: usize, why: Why) -> FileError {
        FileError { file: self.file.clone(), line, why }
    }

    fn fill(&mut self) -> Result<bool, FileError> {
        self.buffer.clear();
        let line_max = u64::try_from(LIST_LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let mut reader = self.reader.by_ref().take(line_max + 1);
        match reader.read_until(b'\n', &mut self.buffer) {
            Ok(0) => return Ok(false),
            Ok(_) if self.buffer.len() > LIST_LINE_BYTES_MAX => return Err(self.wrong(Why::LongLine)),
            Ok(_) => {}
            Err(error) => return Err(self.wrong(Why::Read(error.to_string().into()))),
        }
        let left = u64::try_from(self.buffer.len()).ok().and_then(|len| self.left.checked_sub(len));
        self.left = left.ok_or_else(|| self.wrong(Why::LongFile))?;
        if self.line == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(true)
    }
}

impl FileErrors {
    pub(super) fn add(&mut self, error: FileError) {
        if self.first.len() < LIST_ERRORS_MAX {
            self.first.push(error);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// `value`, if nothing is wrong.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

fn meaning(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| *byte == b'#').unwrap_or(line.len());
    line[..end].trim_ascii()
}

impl Why {
    /// Whether what follows would be wrong for the same reason, each line of it.
    pub(super) fn ends_reading(&self) -> bool {
        match self {
            Self::Read(_) | Self::LongFile | Self::LongLine | Self::NotUtf8 | Self::NoEntries => true,
            Self::Entry(error) => *error == EntryError::TooMany,
            Self::Include | Self::Prefix(_) | Self::Section(_) => false,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read(_) => "check the path, and let the user that starts umbra read the file",
            Self::LongFile => "check the path; split a list that is really so long among several files",
            Self::LongLine => "check the path, and write one entry on each line",
            Self::NotUtf8 => "check the path, and save the file as UTF-8",
            Self::Entry(error) => error.remedy(),
            Self::NoEntries => "check the path and whether all of the file has come, or leave it out",
            Self::Include => "put what is included into the file, or give that file beside this one",
            Self::Prefix(_) => "write full:, domain:, keyword: or regexp:, or a name alone",
            Self::Section(error) => error.remedy(),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "the file cannot be read: {error}"),
            Self::LongFile => write!(f, "the file is longer than {} MiB", LIST_BYTES_MAX >> 20),
            Self::LongLine => write!(f, "the line is longer than {LIST_LINE_BYTES_MAX} bytes"),
            Self::NotUtf8 => f.write_str("the line is not UTF-8 text"),
            Self::Entry(error) => error.fmt(f),
            Self::NoEntries => f.write_str("there is no entry in the file, which would fit nothing"),
            Self::Include => f.write_str("other files are not included"),
            Self::Prefix(prefix) => write!(f, "unknown prefix {prefix:?}"),
            Self::Section(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, why } = self;
        write!(f, "{file}:{line}: {why}; {}", why.remedy())
    }
}

impl std::error::Error for FileError {}

/// A line for each, and one for what is not told.
impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.first.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        match (self.more, self.first.first()) {
            (0, _) | (_, None) => Ok(()),
            (more, Some(FileError { file, .. })) => write!(f, "\n{file}: {more} more lines are wrong"),
        }
    }
}

impl std::error::Error for FileErrors {}

#[cfg(test)]
mod tests {
    use std::io::{self, BufReader, Read};

    use super::*;

    fn all(reader: impl BufRead) -> Result<Vec<(usize, String)>, FileError> {
        let mut lines = Lines::new("list", reader);
        let mut read = Vec::new();
        while let Some((text, line)) = lines.next()? {
            read.push((line, text.to_owned()));
        }
        Ok(read)
    }

    #[test]
    fn comments_space_and_line_ends_of_every_kind_are_no_part_of_a_line() {
        let read = all("\u{feff}a # one\r\n\n  # two\n\tb\t\r\n#\nc".as_bytes());
        assert_eq!(read, Ok(vec![(1, "a".into()), (4, "b".into()), (6, "c".into())]));
        assert_eq!(all(&b""[..]), Ok(Vec::new()));
    }

    #[test]
    fn reads_that_are_cut_anywhere_change_nothing() {
        let text = "\u{feff}full:a.example # one\r\n\nb.example\n";
        for room in 1..text.len() {
            assert_eq!(all(BufReader::with_capacity(room, text.as_bytes())), all(text.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_list_is_refused_at_its_line() {
        let why = |reader: &mut dyn BufRead| all(reader).map_err(|error| (error.line, error.why));
        let longest = "x".repeat(LIST_LINE_BYTES_MAX - 1) + "\n";
        assert!(why(&mut longest.as_bytes()).is_ok());
        let long = format!("a\n{longest}x{longest}");
        assert_eq!(why(&mut long.as_bytes()), Err((3, Why::LongLine)));
        assert_eq!(why(&mut &b"a\nb\n\xff\n"[..]), Err((3, Why::NotUtf8)));
        let zeros = BufReader::new(io::repeat(0));
        assert_eq!(why(&mut { zeros }), Err((1, Why::LongLine)), "a device without an end is let go of");
        let mut failing = BufReader::new(Read::chain(&b"a\n"[..], Failing));
        assert_eq!(why(&mut failing), Err((2, Why::Read("gone".into()))));
    }

    #[test]
    fn a_file_without_an_end_is_let_go_of() {
        let mut lines = Lines::new("list", &b"a.example\n"[..]);
        lines.left = 9;
        assert_eq!(lines.next().map_err(|error| error.why), Err(Why::LongFile));
    }

    #[test]
    fn an_error_says_file_line_and_what_to_do() {
        let error = FileError { file: "a.txt".into(), line: 7, why: Why::Prefix("ful".into()) };
        let text = error.to_string();
        assert!(text.starts_with("a.txt:7: unknown prefix \"ful\"; write full:"), "{text}");
    }

    struct Failing;

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
}
