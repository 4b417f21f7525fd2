//! Holds `docs/requirements.md` to the tree: every test that it names exists, and no row is missing.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails there")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Places whose functions are run by `cargo xtask interop`.
const TRIED_BY_INTEROP: [&str; 7] =
    ["interop", "visitors", "exchanged", "cached", "parented", "chosen", "syn"];

/// Rows of the second part, in order and without gaps.
const ROWS: usize = 118;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/requirements.md")).unwrap()
}

/// Everything in backticks, in order.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The list at the top: what each place's name stands for, as the text of its file.
fn places(page: &str) -> HashMap<&str, String> {
    let lines = page.lines().filter(|line| line.starts_with("- `") && line.contains("` = `"));
    lines
        .map(|line| {
            let mut words = quoted(line);
            let (name, path) = (words.next().unwrap(), words.next().unwrap());
            let text =
                fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            (name, text)
        })
        .collect()
}

/// Whether `text` has the function, as a test. What interop tries are functions of their own kind.
fn has_test(text: &str, place: &str, name: &str) -> bool {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let heads = ["", "async ", "pub(super) "].map(|before| format!("{before}fn {name}"));
    lines.iter().enumerate().any(|(at, line)| {
        let rest = heads.iter().find_map(|head| line.strip_prefix(head.as_str()));
        let named = rest.is_some_and(|rest| rest.starts_with(['(', '<']));
        let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        let is_test = attributes.into_iter().any(|line| line.contains("test"));
        named && (is_test || TRIED_BY_INTEROP.contains(&place))
    })
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split(" | ").map(str::trim).collect()
}

fn tests_in(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    quoted(cell).filter_map(|word| word.split_once("::"))
}

#[test]
fn every_test_that_is_named_exists() {
    let page = page();
    let places = places(&page);
    assert!(places.len() > 20, "the list of places is read");
    let mut named = 0;
    for (place, name) in page.lines().filter(|line| line.starts_with('|')).flat_map(tests_in) {
        let text = places.get(place).unwrap_or_else(|| panic!("{place}::{name}: there is no such place"));
        assert!(has_test(text, place, name), "{place}::{name}: there is no such test");
        named += 1;
    }
    assert!(named > 100, "the rows are read");
    for place in places.keys() {
        assert!(page.contains(&format!("`{place}::")), "{place}: no row names it");
    }
}

#[test]
fn every_row_is_there_and_says_what_it_is() {
    let page = page();
    let rows = page.lines().filter(|line| line.starts_with("| ")).map(cells);
    let numbered: Vec<_> =
        rows.filter(|cells| cells[0].parse::<usize>().is_ok() && cells.len() == 4).collect();
    for (row, number) in numbered.iter().zip(1..) {
        assert_eq!(row[0], number.to_string(), "rows come in order");
        let tests = tests_in(row[3]).count();
        match row[2] {
            "held" => assert!(tests > 0, "row {number} is held by nothing"),
            "partly" => assert!(!row[3].is_empty(), "row {number} does not say what is missing"),
            "not yet" => {
                assert!(row[3].starts_with('('), "row {number} does not say to which work it belongs");
            }
            other => panic!("row {number} is {other}"),
        }
    }
    assert_eq!(numbered.len(), ROWS);
}
