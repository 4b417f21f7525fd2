//! What a line of an access list was meant to be, where it could be read as a pattern as well.
//!
//! Nearly every line is a regular expression, and a section that was misspelt is one that fits many names or none. What was to follow it
//! would then be in the section before: what was to be blocked passes, and what was to go through a server goes directly.

use std::net::IpAddr;

use super::SECTIONS;

/// Whether it was meant as a section. Who means a pattern that looks like one says so by `(?:…)`, and a name begins with `|`.
pub(super) fn is_section(text: &str) -> bool {
    if text.starts_with('|') || text.starts_with("(?") || is_address_in_brackets(text) {
        return false;
    }
    is_heading(text)
        || text.split(|c: char| c.is_whitespace() || c == ';').any(is_heading)
        || text.split("//").any(is_heading)
        || in_brackets(text).any(is_heading)
        || closes_what_is_not_open(text)
        || begins_with_a_set_that_is_none(text)
}

/// Whether it was meant as a network or an address. As a pattern it would fit no name, or not those that it looks like: no name has a slash,
/// a colon or a blank, and `300.1.1.1`, `192.168.*` and `10.0.0.1-10.0.0.9` are addresses that somebody got wrong. What has the signs of a
/// pattern is meant as one, but an address in brackets.
pub(super) fn is_network(text: &str) -> bool {
    let is_pattern = text.contains(['^', '$', '\\', '(', '[', '{', '|', '+', '?']);
    let in_no_name = |c: char| matches!(c, ':' | '%' | ',' | '!' | '@') || c.is_whitespace();
    let is_numbers = text.contains(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'*' | b'-'));
    text.contains('/')
        || is_numbers
        || is_address_in_brackets(text)
        || !is_pattern && text.contains(in_no_name)
}

/// Whether nothing is left but the name of a section when all brackets, punctuation and blanks are taken away.
fn is_heading(text: &str) -> bool {
    let letters = |text: &'static str| text.bytes().filter(u8::is_ascii_alphanumeric);
    let said = || text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    SECTIONS.iter().any(|(section, _)| letters(section).eq(said()))
}

/// What stands in brackets in it, as far as no bracket is inside.
fn in_brackets(text: &str) -> impl Iterator<Item = &str> {
    text.split('[').skip(1).filter_map(|rest| Some(rest.split_once(']')?.0))
}

/// `proxy_list]`: no name has a bracket, so a pattern has one only to close a set.
fn closes_what_is_not_open(text: &str) -> bool {
    text.split_once(']').is_some_and(|(before, _)| !before.contains('['))
}

/// Whether it begins with brackets that are no set of characters. A whole line in brackets would fit nearly every name; behind a set comes
/// what may come in a name or how often, and neither `:` nor `;` nor a blank; and nobody writes a set as two words.
fn begins_with_a_set_that_is_none(text: &str) -> bool {
    let Some((set, behind)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) else {
        return false;
    };
    let goes_on = |c: char| c.is_ascii_alphanumeric() || "+*?{\\.$^[(|-_".contains(c);
    // What has a set inside closes further behind.
    !set.contains('[') && (!behind.starts_with(goes_on) || is_two_words(set))
}

fn is_two_words(set: &str) -> bool {
    let is_word = |word: &str| word.len() >= 3 && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    set.contains('_') && set.split('_').all(is_word)
}

/// `[2001:db8::1]:443`, as URLs have it.
fn is_address_in_brackets(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|text| text.split_once(']'));
    inside.is_some_and(|(inside, _)| {
        inside.split(['/', '%']).next().is_some_and(|address| address.parse::<IpAddr>().is_ok())
    })
}
