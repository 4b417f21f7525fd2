//! Lists of parents: `h1:p1; h2:p2|weight&hash`.

use std::num::NonZeroU16;

use umbra_proto::address::{Address, AddressError};

use super::range::is_number_like;
use super::{Findings, is_blank, shown};

/// A parent and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParentAt {
    /// Where it is; a name is resolved at each dial. The port is not 0.
    pub(crate) address: Address,
    /// How much of the targets is its own, beside the others of its list. It has a meaning for `consistent_hash` alone.
    pub(crate) weight: NonZeroU16,
}

/// The parents of `list`, which `key` has, in order. What is wrong with any goes into `findings`.
pub(super) fn read_parents(key: &str, list: &str, findings: &mut Findings<'_>) -> Vec<ParentAt> {
    // A password may have separators in it, so no part of such a list is shown.
    if list.contains('@') {
        findings.error(format!(
            "{key}: parents have no login of their own (@); write host:port, and the login as: auth u USER PASSWORD in \
             socks.config"
        ));
        return Vec::new();
    }
    let separates = |c: char| matches!(c, ';' | ',') || is_blank(c);
    let entries = list.split(separates).filter(|entry| !entry.is_empty());
    entries.filter_map(|entry| read_parent(key, entry, findings)).collect()
}

fn read_parent(key: &str, entry: &str, findings: &mut Findings<'_>) -> Option<ParentAt> {
    let (rest, hash) = match entry.split_once('&') {
        Some((rest, hash)) => (rest, Some(hash)),
        None => (entry, None),
    };
    let (address, weight) = match rest.split_once('|') {
        Some((address, weight)) => (address, Some(weight)),
        None => (rest, None),
    };
    let parent = read_address(address).and_then(|address| {
        let weight = weight.map_or(Ok(NonZeroU16::MIN), read_weight)?;
        Ok(ParentAt { address, weight })
    });
    if hash.is_some() {
        findings.warn(format!(
            "{key}: {}: the text behind & is left aside; parents are told apart by their addresses",
            shown(entry)
        ));
    }
    parent.map_err(|why| findings.error(format!("{key}: {}: {why}", shown(entry)))).ok()
}

fn read_address(text: &str) -> Result<Address, &'static str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => return Err(NO_PORT),
    };
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !is_bracketed {
        return Err("an IPv6 address wants brackets, like [2001:db8::1]:1080");
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port.parse::<u16>() {
        Ok(port) if digits && port != 0 => port,
        _ if port.is_empty() => return Err(NO_PORT),
        _ => return Err("the port is no number from 1 to 65535"),
    };
    match Address::from_host(host, port) {
        Ok(Address::Ip(address)) => Ok(Address::Ip(address)),
        Ok(Address::Name(..)) if is_number_like(host) => Err(
            "is read in several ways; write all four numbers, 0 to 255, in decimal without zeros in front",
        ),
        Ok(Address::Name(name, port)) if name.as_str().chars().all(is_in_names) => {
            Ok(Address::Name(name, port))
        }
        Ok(Address::Name(..)) | Err(AddressError::BadName) => {
            Err("the host has a character that no host name has; write it like socks.example:1080")
        }
        Err(AddressError::EmptyName) => Err("the host is missing; write it like socks.example:1080"),
        Err(AddressError::LongName) => {
            Err("the host is longer than any name; write it like socks.example:1080")
        }
        Err(AddressError::BadPort | AddressError::UnknownType(_)) => Err(NO_PORT),
    }
}

/// Quotes and the signs of these lists are none of a name's, and would only be there by mistake.
fn is_in_names(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Whole numbers, with zeros behind a point or without.
fn read_weight(text: &str) -> Result<NonZeroU16, &'static str> {
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => text,
        None => text,
    };
    let digits = whole.bytes().all(|byte| byte.is_ascii_digit());
    whole
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or("the weight is no whole number from 1 to 65535; for 0.5 beside 1 write 1 beside 2")
}

const NO_PORT: &str = "has no port; write it like socks.example:1080";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    fn read(list: &str) -> (Vec<String>, Report) {
        let mut findings = Findings::new("socks.config");
        let parents = read_parents("parent", list, &mut findings);
        (
            parents.iter().map(|parent| format!("{}|{}", parent.address, parent.weight)).collect(),
            findings.found,
        )
    }

    #[test]
    fn all_three_separators_part_the_same_parents() {
        let expected = ["a:1|1", "10.0.0.1:1080|1", "[::1]:9|1"];
        for list in [
            "a:1;10.0.0.1:1080;[::1]:9",
            "a:1,10.0.0.1:1080,[::1]:9",
            "a:1 10.0.0.1:1080\t[::1]:9",
            " a:1 ;; 10.0.0.1:1080 , [::1]:9; ",
        ] {
            let (parents, report) = read(list);
            assert_eq!(parents, expected, "{list}");
            assert!(report.errors.is_empty() && report.warnings.is_empty(), "{report:?}");
        }
    }

    #[test]
    fn weights_are_whole_numbers_and_hashes_are_left_aside_with_a_warning() {
        let (parents, report) = read("a:1|2;b:2|1.0;c:3&x|y;d:4|3&z");
        assert_eq!(parents, ["a:1|2", "b:2|1", "c:3|1", "d:4|3"]);
        assert_eq!((report.errors.len(), report.warnings.len()), (0, 2), "{report:?}");
        for weight in ["", "0", "0.5", "1.5", "-1", "+1", "65536", "x", "1|2", ".0"] {
            let (parents, report) = read(&format!("a:1|{weight}"));
            assert!(parents.is_empty() && report.errors[0].text.contains("weight"), "{weight}");
        }
    }

    #[test]
    fn a_parent_that_is_wrong_is_shown_with_a_remedy() {
        for (entry, why) in [
            ("a", "has no port"),
            ("a:", "has no port"),
            ("[::1]", "has no port"),
            ("a:0", "the port is"),
            ("a:65536", "the port is"),
            ("a:+1", "the port is"),
            ("a:x", "the port is"),
            (":1", "the host is missing"),
            ("::1:1080", "wants brackets"),
            ("[a:1]:2", "has a character"),
            ("\"a:1", "has a character"),
            ("socks5://a:1", "wants brackets"),
            ("1.2.3:1080", "is read in several ways"),
            ("0x7f.1:1080", "is read in several ways"),
        ] {
            let (parents, report) = read(entry);
            assert!(parents.is_empty(), "{entry}");
            assert_eq!(report.errors.len(), 1, "{entry}");
            let text = &report.errors[0].text;
            assert!(text.starts_with(&format!("parent: {entry}: ")) && text.contains(why), "{text}");
        }
    }

    #[test]
    fn a_login_in_a_list_is_refused_and_not_shown() {
        for list in ["alice:hunter2@a:1", "socks5://alice:hunter2@a:1", "alice:hunter2,x@a:1; b:2"] {
            let (parents, report) = read(list);
            assert!(parents.is_empty() && report.errors.len() == 1, "{list}");
            assert!(!report.errors[0].text.contains("hunter2"), "{report:?}");
        }
    }
}
