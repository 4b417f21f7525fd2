//! What was tried and what came of it: a table for each part, the reasons of what was skipped, and the count.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Outcome;
use crate::tally::Tally;

/// Every part of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    tables: Vec<Table>,
    reasons: Vec<String>,
    tally: Tally,
}

#[derive(Debug)]
struct Table {
    title: &'static str,
    rows: Vec<Vec<String>>,
}

impl Report {
    /// Begins a part.
    pub(crate) fn begin(&mut self, title: &'static str, head: &[&str]) {
        let head = head.iter().map(|&cell| cell.to_owned()).collect();
        self.tables.push(Table { title, rows: vec![head] });
    }

    /// Adds a row: what was tried, and what came of it.
    pub(crate) fn add(&mut self, tried: &[&str], outcomes: &[Outcome]) {
        let mut row: Vec<String> = tried.iter().map(|&cell| cell.to_owned()).collect();
        row.extend(outcomes.iter().map(|outcome| self.count(outcome).to_owned()));
        eprintln!("{}", row.join(" | "));
        if let Some(table) = self.tables.last_mut() {
            table.rows.push(row);
        }
    }

    /// How many passed, failed and were skipped.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Refreshes the page of the last run.
    pub(crate) fn write_page(&self, file: &Path) -> Result<()> {
        fs::write(file, format!("{PAGE_HEAD}{self}\n{}.\n", self.tally))
            .with_context(|| format!("write {}", file.display()))
    }

    fn count(&mut self, outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Passed => {
                self.tally.passed += 1;
                "passed"
            }
            Outcome::Failed(_) => {
                self.tally.failed += 1;
                "FAILED"
            }
            Outcome::Skipped(why) => {
                self.tally.skipped += 1;
                if !self.reasons.contains(why) {
                    self.reasons.push(why.clone());
                }
                "skipped"
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(f, "\n## {}\n\n{table}", table.title)?;
        }
        if !self.reasons.is_empty() {
            writeln!(f, "\n## Skipped\n")?;
        }
        self.reasons.iter().try_for_each(|why| writeln!(f, "- {why}"))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| Some(row.get(column)?.len())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (at, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
            writeln!(f, "|{}", cells.collect::<String>())?;
            if at == 0 {
                let rule = widths.iter().map(|width| format!(" {} |", "-".repeat(*width)));
                writeln!(f, "|{}", rule.collect::<String>())?;
            }
        }
        Ok(())
    }
}

const PAGE_HEAD: &str = "# Interoperation

The last run of `cargo xtask interop --write`: real programs over loopback.
";
