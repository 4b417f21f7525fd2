//! Lists of names and lists of networks, one entry on each line.

use std::io::BufRead;

use super::lines::Lines;
use super::{EntryError, FileErrors, TargetsBuilder, Why};

/// Adds the names of a list to `targets`. `file` is what the list is called in errors. A list without an entry is an error as well: a
/// rule about it would fit nothing, and whoever names one means something.
///
/// ```text
/// full:www.example.com      this name
/// domain:example.org        this name and all below it
/// example.net               the same
/// keyword:example           every name with this word in it
/// regexp:^ads?\d*\.         every name with this pattern in it
/// example.com @ads          marks of v2fly's lists are left aside, as is what follows #
/// ```
pub fn read_names(file: &str, reader: impl BufRead, targets: &mut TargetsBuilder) -> Result<(), FileErrors> {
    read(file, reader, targets, read_name)
}

/// Adds the networks and addresses of a list to `targets`, likewise.
pub fn read_networks(
    file: &str,
    reader: impl BufRead,
    targets: &mut TargetsBuilder,
) -> Result<(), FileErrors> {
    read(file, reader, targets, |targets, text| targets.network_text(text).map_err(Why::Entry))
}

fn read(
    file: &str,
    reader: impl BufRead,
    targets: &mut TargetsBuilder,
    read_entry: fn(&mut TargetsBuilder, &str) -> Result<(), Why>,
) -> Result<(), FileErrors> {
    let mut lines = Lines::new(file, reader);
    let mut has_entries = false;
    let mut errors = lines.read_all(|text, _| {
        has_entries = true;
        read_entry(targets, text)
    });
    if !has_entries && errors.is_empty() {
        errors.add(lines.wrong_at(1, Why::NoEntries));
    }
    errors.or(())
}

fn read_name(targets: &mut TargetsBuilder, text: &str) -> Result<(), Why> {
    if !text.bytes().any(|byte| byte == b':' || byte.is_ascii_whitespace()) {
        return targets.suffix(text).map_err(Why::Entry);
    }
    let (text, marks) = text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""));
    if marks.split_whitespace().any(|mark| !mark.starts_with('@')) {
        return Err(Why::Entry(EntryError::Character(' ')));
    }
    let Some((prefix, rest)) = text.split_once(':') else {
        return targets.suffix(text).map_err(Why::Entry);
    };
    // Lists that were put together by programs have their marks behind one more colon.
    let (name, mark) = rest.split_once(':').unwrap_or((rest, "@"));
    let name = if mark.starts_with('@') { name } else { rest };
    let added = match prefix {
        "full" => targets.exact(name),
        "domain" => targets.suffix(name),
        "keyword" => targets.keyword(name),
        "regexp" => targets.pattern(rest.rsplit_once(":@").map_or(rest, |(pattern, _)| pattern)),
        "include" => return Err(Why::Include),
        _ if text.parse::<std::net::Ipv6Addr>().is_ok() => Err(EntryError::AddressAsName),
        _ => return Err(Why::Prefix(prefix.into())),
    };
    added.map_err(Why::Entry)
}

#[cfg(test)]
mod tests {
    use umbra_proto::address::Address;

    use super::super::{FileError, Fit, Targets};
    use super::*;

    fn names(text: &str) -> Result<Targets, FileErrors> {
        let mut targets = TargetsBuilder::default();
        read_names("names.txt", text.as_bytes(), &mut targets)?;
        Ok(targets.build().unwrap())
    }

    fn fit<'t>(targets: &'t Targets, target: &str) -> Option<Fit<'t>> {
        targets.explain(&Address::from_host(target, 443).unwrap(), &[])
    }

    #[test]
    fn every_prefix_has_its_meaning_and_marks_have_none() {
        let list = "full:a.example @ads\ndomain:b.example:@cn\nc.example # three\nkeyword:ddd @x @y\nregexp:^e(?:\\d)$:@cn\n";
        let set = names(list).unwrap();
        assert_eq!(fit(&set, "a.example"), Some(Fit::Exact("a.example")));
        assert_eq!(fit(&set, "x.a.example"), None);
        assert_eq!(fit(&set, "x.b.example"), Some(Fit::Suffix("b.example")));
        assert_eq!(fit(&set, "x.c.example"), Some(Fit::Suffix("c.example")));
        assert_eq!(fit(&set, "xdddx"), Some(Fit::Keyword("ddd")));
        assert_eq!(fit(&set, "e7"), Some(Fit::Pattern("^e(?:\\d)$")));
    }

    #[test]
    fn what_would_be_passed_over_is_an_error_with_its_line() {
        let wrong = [
            ("ful:a.example", Why::Prefix("ful".into())),
            ("include:geolocation-cn", Why::Include),
            ("full:", Why::Entry(EntryError::Empty)),
            ("a.example b.example", Why::Entry(EntryError::Character(' '))),
            ("domain:a.example:443", Why::Entry(EntryError::Character(':'))),
            ("192.0.2.1", Why::Entry(EntryError::AddressAsName)),
            ("2001:db8::1", Why::Entry(EntryError::AddressAsName)),
            ("192.0.2.0/24", Why::Entry(EntryError::Character('/'))),
            ("0.0.0.0 a.example", Why::Entry(EntryError::Character(' '))),
            ("||a.example^", Why::Entry(EntryError::Character('|'))),
        ];
        for (line, why) in wrong {
            let errors = names(&format!("a.example\n\n{line}\nb.example")).unwrap_err();
            let error = FileError { file: "names.txt".into(), line: 3, why };
            assert_eq!(errors, FileErrors { first: vec![error], more: 0 }, "{line}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_up_to_what_helps() {
        let lines: String = (0..25).map(|number| format!("good{number}.example\nfull:\n")).collect();
        let errors = names(&lines).unwrap_err();
        let told: Vec<_> = errors.first.iter().map(|error| error.line).collect();
        assert_eq!((told, errors.more), ((1..=20).map(|number| number * 2).collect(), 5));
        let text = errors.to_string();
        assert!(
            text.starts_with("names.txt:2: ") && text.ends_with("\nnames.txt: 5 more lines are wrong"),
            "{text}"
        );
        let mut targets = TargetsBuilder::default();
        let errors = read_names("names.txt", &b"a b\n\xff\n||\n"[..], &mut targets).unwrap_err();
        assert_eq!(errors.first.len(), 2, "what is no text is not read on: {errors}");
    }

    #[test]
    fn a_list_without_an_entry_is_no_list() {
        for text in ["", "\n", "# nothing\n\n  # yet", "\u{feff}"] {
            let errors = names(text).unwrap_err();
            assert_eq!((errors.first[0].line, &errors.first[0].why), (1, &Why::NoEntries), "{text:?}");
            let mut targets = TargetsBuilder::default();
            assert!(read_networks("nets.txt", text.as_bytes(), &mut targets).is_err(), "{text:?}");
        }
    }

    #[test]
    fn networks_read_and_names_among_them_do_not() {
        let mut targets = TargetsBuilder::default();
        let read = |text: &str, targets: &mut _| read_networks("nets.txt", text.as_bytes(), targets);
        read("10.0.0.0/8 # ten\n2001:db8::1\n", &mut targets).unwrap();
        let errors =
            read("10.0.0.0/8\n010.0.0.0/8\n10.0.0.0/40\n", &mut TargetsBuilder::default()).unwrap_err();
        let told: Vec<_> = errors.first.into_iter().map(|error| (error.line, error.why)).collect();
        assert_eq!(told, [2, 3].map(|line| (line, Why::Entry(EntryError::NoNetwork))));
        let set = targets.build().unwrap();
        assert!(fit(&set, "10.1.1.1").is_some() && fit(&set, "2001:db8::1").is_some());
        assert_eq!(fit(&set, "2001:db8::2"), None);
    }
}
