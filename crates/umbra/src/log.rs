//! The log: one event, one line, on the standard error output.
//!
//! ```text
//! 2026-01-31 23:59:59 INFO     starting local at 127.0.0.1:1080
//! ```
//! Time is UTC. Tools read these lines, so a message without fields is followed by nothing.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts to log what is at least as weighty as `level`.
pub(crate) fn start(level: LevelFilter) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // Where the log cannot be written, there is no one to be told.
        .log_internal_errors(false)
        .event_format(Line)
        .init();
}

struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (word, color) = level_word(*event.metadata().level());
        write_time(&mut writer, since_epoch.as_secs())?;
        if writer.has_ansi_escapes() {
            write!(writer, " \x1b[{color}m{word:<8}\x1b[0m ")?;
        } else {
            write!(writer, " {word:<8} ")?;
        }
        let mut parts = Parts::default();
        event.record(&mut parts);
        write_escaped(&mut writer, &parts.message)?;
        write_escaped(&mut writer, &parts.fields)?;
        writer.write_char('\n')
    }
}

/// Message and fields, apart, since they come in any order.
#[derive(Default)]
struct Parts {
    message: String,
    fields: String,
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if value.is_empty() || value.contains([' ', '"', '=']) {
            self.record_debug(field, &value);
        } else {
            self.record_debug(field, &format_args!("{value}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _infallible = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

/// Names come from peers: what could end the line, colour the terminal or turn its direction is shown as its code.
fn write_escaped(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => write!(out, "{}", c.escape_unicode())?,
            control if control.is_control() => write!(out, "{}", control.escape_default())?,
            plain => out.write_char(plain)?,
        }
    }
    Ok(())
}

fn level_word(level: Level) -> (&'static str, u8) {
    match level {
        Level::ERROR => ("ERROR", 31),
        Level::WARN => ("WARNING", 33),
        Level::INFO => ("INFO", 32),
        Level::DEBUG => ("DEBUG", 34),
        Level::TRACE => ("TRACE", 35),
    }
}

/// Date and time of the Gregorian calendar, UTC, by Howard Hinnant's days-to-civil algorithm.
fn write_time(out: &mut impl fmt::Write, since_epoch_secs: u64) -> fmt::Result {
    let (days, secs) = (since_epoch_secs / 86_400, since_epoch_secs % 86_400);
    // Counted from 1 March of the year 0, so that a leap day ends its year and its era of 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Sink {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What is logged by `events`, without its time.
    fn logged(events: impl FnOnce()) -> String {
        let sink = Sink::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .event_format(Line)
            .with_writer(sink.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, events);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| format!("{}\n", &line[19..])).collect()
    }

    fn time(secs: u64) -> String {
        let mut text = String::new();
        write_time(&mut text, secs).unwrap();
        text
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(time(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(time(1_709_251_199), "2024-02-29 23:59:59");
        assert_eq!(time(4_107_542_400), "2100-03-01 00:00:00");
    }

    #[test]
    fn levels_are_padded_and_a_message_without_fields_is_followed_by_nothing() {
        let lines = logged(|| {
            tracing::info!("starting local at 127.0.0.1:1080");
            tracing::warn!("doubtful");
            tracing::error!("can not parse header when handling connection from 192.0.2.1:5");
        });
        assert_eq!(
            lines,
            " INFO     starting local at 127.0.0.1:1080\n WARNING  doubtful\n \
             ERROR    can not parse header when handling connection from 192.0.2.1:5\n"
        );
    }

    #[test]
    fn fields_follow_the_message_wherever_they_were_said() {
        let lines = logged(|| tracing::debug!(stage = "dial", why = "timed out", n = 3, "session ended"));
        assert_eq!(lines, " DEBUG    session ended stage=dial why=\"timed out\" n=3\n");
    }

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        let lines = logged(|| tracing::info!(name = %"a\nb\x1b[31m\u{202e}", "told\r\nand more"));
        assert_eq!(lines, " INFO     told\\r\\nand more name=a\\nb\\u{1b}[31m\\u{202e}\n");
    }
}
