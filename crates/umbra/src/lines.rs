//! On which line of its file each key of a configuration stands.

use std::collections::HashMap;

use jsonc_parser::ast::{Array, Object, Value as Json};
use jsonc_parser::common::Ranged as _;

use crate::raw::key_path;
use crate::reference::{LISTS, SETTINGS};

/// The lines of one file of JSON by key path, made once when it is read. No value is in it, so no secret is.
#[derive(Debug)]
pub(crate) struct Lines {
    file: String,
    /// What stands before the key paths of this file in notes. Nothing, for the configuration itself.
    prefix: String,
    by_path: HashMap<String, usize>,
}

impl Lines {
    /// The lines of `root`, which `text` was read as, in the file that is called `file`.
    pub(crate) fn of(file: &str, prefix: &str, text: &str, root: &Object<'_>) -> Self {
        let mut walk = Walk { text: text.as_bytes(), offset: 0, line: 1, by_path: HashMap::new() };
        walk.note(String::new(), root.range.start);
        walk.object("", root);
        Self { file: file.into(), prefix: prefix.into(), by_path: walk.by_path }
    }

    /// `place` with its file and line, if it is a key of this file, or one that an object of it should have.
    pub(crate) fn locate(&self, place: &str) -> Option<String> {
        let path = place.strip_prefix(&self.prefix)?;
        let line = self.line(path)?;
        Some(format!("{}:{line}: {path}", self.file))
    }

    fn line(&self, path: &str) -> Option<usize> {
        if path.is_empty() {
            return None;
        }
        if let Some(line) = self.by_path.get(path) {
            return Some(*line);
        }
        let (object, missing) = path.rsplit_once('.').unwrap_or(("", path));
        self.by_path.get(object).copied().filter(|_| is_key(missing))
    }
}

/// Whether a note may miss `key`: flags and names of files are not followed by anything that is one.
fn is_key(key: &str) -> bool {
    let mut known = SETTINGS.iter().flat_map(|setting| setting.aliases.iter().chain([&setting.key]));
    known.any(|known| *known == key) || LISTS.contains(&key)
}

/// Goes through a file from its beginning to its end, so that no line is counted twice.
struct Walk<'t> {
    text: &'t [u8],
    offset: usize,
    line: usize,
    by_path: HashMap<String, usize>,
}

impl Walk<'_> {
    fn object(&mut self, path: &str, object: &Object<'_>) {
        for property in &object.properties {
            let path = key_path(path, property.name.as_str());
            self.note(path.clone(), property.range.start);
            self.value(&path, &property.value);
        }
    }

    fn array(&mut self, path: &str, array: &Array<'_>) {
        for (index, element) in array.elements.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.note(path.clone(), element.range().start);
            self.value(&path, element);
        }
    }

    fn value(&mut self, path: &str, value: &Json<'_>) {
        match value {
            Json::Object(object) => self.object(path, object),
            Json::Array(array) => self.array(path, array),
            Json::StringLit(_) | Json::NumberLit(_) | Json::BooleanLit(_) | Json::NullKeyword(_) => {}
        }
    }

    fn note(&mut self, path: String, offset: usize) {
        let passed = self.text.get(self.offset..offset).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count();
        self.offset = self.offset.max(offset);
        self.by_path.insert(path, self.line);
    }
}

#[cfg(test)]
mod tests {
    use crate::file::parse;
    use crate::report::Report;

    /// Where the first error of `text` is, as it is told.
    fn told(text: &str, place: &str) -> String {
        let mut report = Report::default();
        parse("c.json", text, &mut report).unwrap();
        report.errors.clear();
        report.error(place, "wrong");
        report.told_errors().next().unwrap().to_string()
    }

    #[test]
    fn every_key_and_every_entry_of_a_list_is_told_with_its_line() {
        let text = "\u{feff}// a file\n{\n  \"server\": [\"a\",\n    \"b\"], /* two\n lines */ \"mode\": \"x\",\r\n  \"servers\": [\n    {\"server\":\n\n\"x\", \"users\": [{}, {\"name\": \"n\"}]}\n  ]\n}\n";
        for (place, expected) in [
            ("server", "c.json:3: server: wrong"),
            ("server[0]", "c.json:3: server[0]: wrong"),
            ("server[1]", "c.json:4: server[1]: wrong"),
            ("mode", "c.json:5: mode: wrong"),
            ("servers[0]", "c.json:7: servers[0]: wrong"),
            ("servers[0].users[1].name", "c.json:9: servers[0].users[1].name: wrong"),
        ] {
            assert_eq!(told(text, place), expected);
        }
    }

    #[test]
    fn a_key_that_is_missing_has_the_line_of_the_object_that_should_have_it() {
        let text = "{\n\"servers\": [\n{\"server\": \"a\"}]}";
        assert_eq!(told(text, "servers[0].password"), "c.json:3: servers[0].password: wrong");
        assert_eq!(told(text, "otherwise"), "c.json:1: otherwise: wrong");
        assert_eq!(told(text, "locals"), "c.json:1: locals: wrong");
    }

    #[test]
    fn flags_and_other_files_have_no_line_here() {
        let text = "{\"server\": \"a\", \"acl\": \"acl\", \"rules\": [{}]}";
        for place in
            ["-s", "--outbound-proxy", "socks.config:12", "rules.json", "acl.txt", "a.json: rules[0]"]
        {
            assert_eq!(told(text, place), format!("{place}: wrong"));
        }
        assert_eq!(told(text, ""), "wrong");
    }

    #[test]
    fn of_a_key_that_is_said_twice_the_second_is_told() {
        let mut report = Report::default();
        parse("c.json", "{\"mode\": \"a\",\n\"mode\": \"b\"}", &mut report);
        let told = report.told_errors().next().unwrap().to_string();
        assert!(told.starts_with("c.json:2: mode: says again"), "{told}");
    }
}
