//! Methods and passwords as people write them: which are good, and what to do about the others.

use std::env::{self, VarError};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use umbra_proto::shadowsocks::identity::{Credentials, CredentialsError};
use umbra_proto::shadowsocks::key::{Key, KeyError};
use umbra_proto::shadowsocks::{Generation, Method};
use zeroize::Zeroizing;

use crate::flags::Role;
use crate::key::maker;
use crate::raw::Settings;
use crate::reference::{Id, nearest};
use crate::report::Report;

/// What is done about a method that is not safe and that somebody has named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InsecureMethods {
    /// It runs, with a warning.
    Warn,
    /// It is an error.
    Deny,
}

/// The method that `settings` name; one that is not safe is warned of, or refused.
pub(crate) fn read_method(
    settings: &Settings,
    insecure: InsecureMethods,
    report: &mut Report,
) -> Option<Method> {
    let Some((name, place)) = settings.text(Id::Method) else { return Some(Method::Chacha20IetfPoly1305) };
    match name.parse::<Method>() {
        Ok(method) if !method.is_insecure() => Some(method),
        Ok(method) => match insecure {
            InsecureMethods::Warn => {
                // The two that have always been warned of are found by their words alone.
                let known = matches!(method, Method::Rc4 | Method::Table);
                report.warn(if known { "" } else { place }, explain_insecure(method));
                Some(method)
            }
            InsecureMethods::Deny => {
                let why = explain_insecure(method);
                report.error(place, format!("{why}; security.insecure_methods is deny"));
                None
            }
        },
        Err(_) => {
            report.error(place, explain_method(name));
            None
        }
    }
}

/// What a client holds of the server that `settings` describe; what is wrong with it goes into `report`. `missing` says what
/// to do when there is no password at all.
pub(crate) fn read_credentials(
    settings: &Settings,
    insecure: InsecureMethods,
    missing: &str,
    report: &mut Report,
) -> Option<Credentials> {
    let method = read_method(settings, insecure, report);
    let Some((secret, place)) = said_secret(settings, method) else {
        report.error_missing(settings.key_path("password"), missing);
        return None;
    };
    let is_2022 = method.is_some_and(|method| method.generation() == Generation::Aead2022);
    let password = match secret {
        Secret::Password(password) if is_2022 && password.contains(':') => password,
        Secret::Password(_) | Secret::Key(_) => {
            return judge_secret(method, secret, place, Role::Client, report).map(Credentials::from);
        }
    };
    let method = method?;
    let credentials = match Credentials::from_password(method, password) {
        Ok(credentials) => credentials,
        Err(error) => {
            report.error(place, explain_credentials(method, password, error));
            return None;
        }
    };
    for (part, key) in password.split(':').zip(credentials.identities().iter().chain([credentials.key()])) {
        if EXAMPLES.contains(&part) {
            report.error(place, explain_example(Some(method), Secret::Password(part)));
            return None;
        }
        if let Some(weakness) = weakness_of(key, Secret::Password(part)) {
            report.warn(place, explain_weakness(weakness, method, Secret::Password(part)));
        }
    }
    Some(credentials)
}

/// The secret of a server, as somebody has written it.
#[derive(Clone, Copy)]
pub(crate) enum Secret<'a> {
    /// A password, or the key of a method of 2022 in base64.
    Password(&'a str),
    /// The bytes of any other method's key in base64 (SIP006).
    Key(&'a str),
}

impl<'a> Secret<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Password(text) | Self::Key(text) => text,
        }
    }

    /// The command that makes one like it for `method`.
    fn command(self, method: Option<Method>) -> String {
        let Some(method) = method else { return "umbra key METHOD".into() };
        match self {
            Self::Password(_) => format!("umbra key {}", maker(method)),
            Self::Key(_) => format!("openssl rand -base64 {}", method.key_len()),
        }
    }
}

/// The secret that `settings` have, with its place. A method that does not encrypt needs none.
pub(crate) fn said_secret(settings: &Settings, method: Option<Method>) -> Option<(Secret<'_>, &str)> {
    let none_needed = method == Some(Method::Plain);
    let password = settings.text(Id::Password).map(|(password, place)| (Secret::Password(password), place));
    let key = || settings.key(Id::Password).map(|(key, place)| (Secret::Key(key), place));
    password.or_else(key).or(none_needed.then_some((Secret::Password(""), "")))
}

/// The password that `text` of a file stands for: the value of a variable of the environment where all of it is `${NAME}`, as in files of
/// shadowsocks-rust; `${NAME}` itself where all of it is `$${NAME}`, with one `$` less for every number of them; and otherwise `text`.
/// Where there is no such value it is an error, which says what is wrong and what to do: whoever has read an example would know what is
/// written. It may be a secret after all, so it is repeated only as far as it looks like the name of a variable.
pub(crate) fn expand_password(text: Zeroizing<String>) -> Result<Zeroizing<String>, String> {
    let name = match braced(&text) {
        None => return Ok(text),
        Some(("$", name)) => name,
        Some((_, _)) => return Ok(Zeroizing::new(text[1..].into())),
    };
    let why = match env::var(name).map(Zeroizing::new) {
        Ok(value) if !value.is_empty() => return Ok(value),
        Ok(_) => "is empty",
        Err(VarError::NotPresent) => "is not set",
        Err(VarError::NotUnicode(value)) => {
            drop(Zeroizing::new(value.into_encoded_bytes()));
            "is not UTF-8 text"
        }
    };
    let is_usual = |name: &str| {
        !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let name = if is_usual(name) && !name.is_empty() { name } else { "between the braces" };
    Err(format!(
        "the environment variable {name}, whose value this is to be, {why}; set it where umbra is started, or write one more $ in front \
         if the secret itself is written with ${{ and }}"
    ))
}

/// What [`expand_password`] makes `text` of.
pub(crate) fn escape_password(text: &str) -> Zeroizing<String> {
    let dollar = if braced(text).is_some() { "$" } else { "" };
    Zeroizing::new([dollar, text].concat())
}

/// The URL of a proxy as a file has it, with the password in it that its own stands for.
pub(crate) fn expand_url(url: Zeroizing<String>) -> Result<Zeroizing<String>, String> {
    let Some((before, password, behind)) = url_password(&url) else { return Ok(url) };
    if braced(password).is_none() {
        return Ok(url);
    }
    let password = expand_password(Zeroizing::new(password.into()))?;
    // A string that grows leaves copies of what it held behind.
    let mut expanded = Zeroizing::new(String::with_capacity(url.len() + 3 * password.len()));
    expanded.push_str(before);
    expanded.extend(utf8_percent_encode(&password, NON_ALPHANUMERIC));
    expanded.push_str(behind);
    Ok(expanded)
}

/// Whether `text` of the command line, a password or the URL of a proxy, names a variable in the place of the password. Nobody puts the
/// value there but a shell, which has not.
pub(crate) fn names_variable(text: &str) -> bool {
    let password = url_password(text).map_or(text, |(_, password, _)| password);
    [text, password].iter().any(|text| braced(text).is_some_and(|(dollars, _)| dollars == "$"))
}

/// The password in the URL of a proxy, with what is before and behind it.
fn url_password(url: &str) -> Option<(&str, &str, &str)> {
    let login = url.find("://")? + "://".len();
    let host = url.rfind('@')?;
    let password = login + url.get(login..host)?.find(':')? + ':'.len_utf8();
    Some((&url[..password], &url[password..host], &url[host..]))
}

/// The name in the URL of a proxy, as it is written there.
pub(crate) fn url_user(url: &str) -> Option<&str> {
    let login = url.find("://")? + "://".len();
    let login = url.get(login..url.rfind('@')?)?;
    Some(login.split_once(':').map_or(login, |(name, _)| name))
}

/// The `$` and what stands between the braces, where all of `text` is `${NAME}` with one or more `$`.
pub(crate) fn braced(text: &str) -> Option<(&str, &str)> {
    let rest = text.trim_start_matches('$');
    let (dollars, _) = text.split_at(text.len() - rest.len());
    let name = rest.strip_prefix('{')?.strip_suffix('}')?;
    (!dollars.is_empty()).then_some((dollars, name))
}

/// The key of `method` that `secret` is. A short password is warned of at either end, since servers have run with theirs for
/// years and each of their clients would have to change with them. With a key that is none, a server, which whoever likes may knock at,
/// does not start; a client has to take what its server has. Without a method, what can be said of the secret alone is said.
pub(crate) fn judge_secret(
    method: Option<Method>,
    secret: Secret<'_>,
    place: &str,
    role: Role,
    report: &mut Report,
) -> Option<Key> {
    if EXAMPLES.contains(&secret.text()) && method != Some(Method::Plain) {
        report.error(place, explain_example(method, secret));
        return None;
    }
    let method = method?;
    let key = match secret {
        Secret::Password(password) => {
            Key::from_password(method, password).map_err(|error| explain_key(method, password, error))
        }
        Secret::Key(key) => decode_key(method, key),
    };
    let key = match key {
        Ok(key) => key,
        Err(why) => {
            report.error(place, why);
            return None;
        }
    };
    let Some(weakness) = weakness_of(&key, secret) else { return Some(key) };
    let text = explain_weakness(weakness, method, secret);
    match (weakness, role) {
        (Weakness::Short, Role::Client | Role::Server) | (Weakness::Placeholder, Role::Client) => {
            report.warn(place, text);
            Some(key)
        }
        (Weakness::Placeholder, Role::Server) => {
            report.error(place, text);
            None
        }
    }
}

/// Why a key that fits its method can be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weakness {
    /// It is derived from fewer than [`PASSWORD_CHARS_MIN`] characters.
    Short,
    /// It is one byte throughout, as in a configuration that waits for its key.
    Placeholder,
}

/// The key of `method` that the base64 of SIP006 is, or what is wrong with it.
fn decode_key(method: Method, text: &str) -> Result<Key, String> {
    let wanted = method.key_len();
    if method == Method::Plain {
        return Err(format!(
            "{method} does not encrypt and has no key; take it out, or name a method that has"
        ));
    }
    if method.generation() == Generation::Aead2022 {
        return Err(format!(
            "with {method}, password is the key in base64 already; write password in place of key"
        ));
    }
    Key::from_base64(method, text).map_err(|error| {
        let what = match error {
            KeyError::Empty => "got none".into(),
            KeyError::NotBase64 => "this is not base64".into(),
            KeyError::WrongLength { given, .. } => format!("got {given}"),
        };
        format!(
            "{method} wants a key of {wanted} bytes in base64, and {what}; make one with: {}, or use password",
            Secret::Key(text).command(Some(method))
        )
    })
}

fn weakness_of(key: &Key, secret: Secret<'_>) -> Option<Weakness> {
    let method = key.method();
    let Secret::Password(password) = secret else {
        return key.is_placeholder().then_some(Weakness::Placeholder);
    };
    match method.generation() {
        Generation::Stream | Generation::Aead => {
            let is_short = password.chars().count() < PASSWORD_CHARS_MIN && method != Method::Plain;
            is_short.then_some(Weakness::Short)
        }
        Generation::Aead2022 => key.is_placeholder().then_some(Weakness::Placeholder),
    }
}

fn explain_example(method: Option<Method>, secret: Secret<'_>) -> String {
    let make = secret.command(method);
    format!("an example from the documentation, which everyone knows; make one with: {make}")
}

fn explain_credentials(method: Method, password: &str, error: CredentialsError) -> String {
    match error {
        CredentialsError::Key(error) => explain_key(method, password, error),
        CredentialsError::Part { part, parts, error } => {
            let which = if part == parts {
                "the user's".into()
            } else {
                format!("the identity key of server {part}")
            };
            format!("part {part} of {parts}, {which}: {}", explain_key(method, "", error))
        }
        CredentialsError::NoIdentities(_) | CredentialsError::TooMany { .. } => error.to_string(),
    }
}

fn explain_weakness(weakness: Weakness, method: Method, secret: Secret<'_>) -> String {
    let make = secret.command(Some(method));
    match weakness {
        Weakness::Short => format!(
            "shorter than {PASSWORD_CHARS_MIN} characters, so it can be guessed; make one with: {make}"
        ),
        Weakness::Placeholder => {
            format!("the same byte throughout, so it can be guessed; make one with: {make}")
        }
    }
}

fn explain_key(method: Method, password: &str, error: KeyError) -> String {
    let wanted = method.key_len();
    match error {
        KeyError::Empty => format!("empty; make one with: umbra key {}", maker(method)),
        KeyError::NotBase64 if password.contains(':') => {
            "a server's port has one key, and this looks like a client's, several joined with :; write users"
                .into()
        }
        KeyError::NotBase64 => format!(
            "{method} wants {wanted} bytes in base64 (standard alphabet, with padding), and this is not base64; make \
             one with: umbra key {method}"
        ),
        KeyError::WrongLength { wanted, given } => {
            format!("{method} wants {wanted} bytes in base64, got {given}; make one with: umbra key {method}")
        }
    }
}

fn explain_method(name: &str) -> String {
    let known = Method::ALL.into_iter().map(Method::name);
    let hint = nearest(&name.to_lowercase(), known)
        .map_or_else(String::new, |near| format!("did you mean {near}? "));
    let common = Method::COMMON.map(Method::name).join(", ");
    format!("unknown method {name}; {hint}the usual methods are {common}")
}

/// What is wrong with a method that is not safe, and what to use. The words of the first two are those that scripts look for.
pub(crate) fn explain_insecure(method: Method) -> String {
    let name = method.name();
    let instead = if name.contains("chacha20") || name.contains("salsa20") {
        Method::Chacha20IetfPoly1305
    } else {
        Method::Aes256Gcm
    };
    if method == Method::Rc4 {
        "RC4 is not safe; please use a safer cipher, like AES-256-GCM".into()
    } else if method == Method::Table {
        "table is not safe; please use a safer cipher, like AES-256-GCM".into()
    } else if method == Method::Plain {
        format!(
            "{name} does not encrypt: whoever is on the way reads and changes what it carries; use {instead} at both ends"
        )
    } else {
        format!(
            "{name} is insecure: whoever is on the way can change what it carries unnoticed, and can have the server open what was \
             recorded; use {instead} at both ends"
        )
    }
}

/// Fewer can be tried through by anyone who has captured one session.
const PASSWORD_CHARS_MIN: usize = 8;

/// Secrets of manuals, guides and published links; scanners try them first.
const EXAMPLES: [&str; 24] = [
    "mypassword",
    "my-password",
    "my_password",
    "password",
    "password0",
    "password1",
    "passwd",
    "your-password",
    "your_password",
    "yourpassword",
    "YOUR_PASSWORD",
    "barfoo!",
    "barfoo",
    "foobar",
    "foobar1",
    "foobar2",
    "test",
    "changeme",
    "a long password",
    "the key",
    "hello-kitty",
    "hello-world",
    "YctPZ6U7xPPcU+gp3u+0tx/tRizJN9K8y+uKlW2qjlI=",
    "rwQc8qPXVsRpGx3uW+Y3Lj4Y42yF9Bs0xg1pmx8/+bo=",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::Value;

    const WARN: InsecureMethods = InsecureMethods::Warn;

    fn judge(method: &str, password: &str) -> Report {
        judge_for(Role::Client, method, password)
    }

    fn judge_for(role: Role, method: &str, password: &str) -> Report {
        let mut settings = Settings::new("servers[1]");
        for (id, key, text) in [(Id::Method, "method", method), (Id::Password, "password", password)] {
            settings.insert(id, settings.key_path(key), Value::Text(Zeroizing::new(text.into())));
        }
        let mut report = Report::default();
        let is_good = match role {
            Role::Client => read_credentials(&settings, WARN, "missing", &mut report).is_some(),
            Role::Server => {
                let method = read_method(&settings, WARN, &mut report);
                judge_secret(method, Secret::Password(password), "servers[1].password", role, &mut report)
                    .is_some()
            }
        };
        assert_eq!(is_good, report.errors.is_empty());
        report
    }

    fn error(method: &str, password: &str) -> String {
        let report = judge(method, password);
        assert_eq!(report.errors.len(), 1, "{report:?}");
        report.errors[0].to_string()
    }

    #[test]
    fn a_key_of_the_wrong_length_says_how_to_make_one() {
        assert_eq!(
            error("2022-blake3-aes-256-gcm", "AAAAAAAAAAAAAAAAAAAAAA=="),
            "servers[1].password: 2022-blake3-aes-256-gcm wants 32 bytes in base64, got 16; make one with: umbra key \
             2022-blake3-aes-256-gcm"
        );
        assert!(error("2022-blake3-aes-128-gcm", "correct horse").contains("this is not base64"));
        let several = error("2022-blake3-aes-128-gcm", "MDEyMzQ1Njc4OTAxMjM0NQ==:BBBB");
        assert!(
            several.contains("part 2 of 2, the user's: 2022-blake3-aes-128-gcm wants 16 bytes"),
            "{several}"
        );
        let first = error("2022-blake3-aes-128-gcm", "!:MDEyMzQ1Njc4OTAxMjM0NQ==");
        assert!(first.contains("part 1 of 2, the identity key of server 1: 2022"), "{first}");
        assert!(error("2022-blake3-chacha20-poly1305", "AAAA:BBBB").contains("has no identity headers"));
        let server = judge_for(Role::Server, "2022-blake3-aes-128-gcm", "AAAA:BBBB");
        assert!(server.errors[0].text.contains("a server's port has one key"));
        assert!(error("aes-256-gcm", "").contains("empty; make one"));
    }

    fn judge_sip006(role: Role, method: &str, key: &str) -> Report {
        let mut report = Report::default();
        let key = judge_secret(method.parse().ok(), Secret::Key(key), "key", role, &mut report);
        assert_eq!(key.is_some(), report.errors.is_empty());
        report
    }

    #[test]
    fn a_key_of_sip006_that_is_none_says_how_many_bytes_it_wants_and_what_to_do() {
        let error = |method: &str, key: &str| {
            let report = judge_sip006(Role::Client, method, key);
            assert_eq!(report.errors.len(), 1, "{report:?}");
            assert!(key.is_empty() || !format!("{report:?}").contains(key), "{report:?}");
            report.errors[0].to_string()
        };
        assert_eq!(
            error("aes-256-gcm", "MDEyMzQ1Njc4OTAxMjM0NQ"),
            "key: aes-256-gcm wants a key of 32 bytes in base64, and got 16; make one with: openssl rand -base64 32, or use password"
        );
        assert!(error("aes-128-cfb", "correct horse").contains("16 bytes in base64, and this is not base64"));
        assert!(error("aes-128-gcm", "").contains("16 bytes in base64, and got none"));
        let of_2022 = error("2022-blake3-aes-128-gcm", "MDEyMzQ1Njc4OTAxMjM0NQ==");
        assert!(
            of_2022.contains("password is the key in base64 already; write password in place"),
            "{of_2022}"
        );
        assert!(error("none", "MDEyMzQ1Njc4OTAxMjM0NQ==").contains("has no key; take it out"));
        let example = error("aes-256-gcm", "YctPZ6U7xPPcU+gp3u+0tx/tRizJN9K8y+uKlW2qjlI=");
        assert!(
            example.contains("which everyone knows; make one with: openssl rand -base64 32"),
            "{example}"
        );
    }

    #[test]
    fn a_key_of_sip006_is_not_short_whatever_it_looks_like_but_may_be_a_placeholder() {
        for role in [Role::Client, Role::Server] {
            let report = judge_sip006(role, "aes-128-gcm", "MDEyMzQ1Njc4OTAxMjM0NQ");
            assert_eq!((report.warnings.len(), report.errors.len()), (0, 0), "{role:?}");
            let zeros = judge_sip006(role, "aes-128-gcm", "AAAAAAAAAAAAAAAAAAAAAA");
            assert_eq!((zeros.warnings.len() + zeros.errors.len()), 1, "{role:?}");
            assert_eq!(zeros.errors.len(), usize::from(role == Role::Server));
        }
    }

    #[test]
    fn unknown_methods_name_a_good_one() {
        assert!(error("aes-256-gmc", "long enough").contains("did you mean aes-256-gcm?"));
        assert!(error("aes-256-cfb64", "long enough").contains("did you mean aes-256-cfb"));
        assert!(error("zzz", "long enough").contains("the usual methods are 2022-blake3-aes-256-gcm, "));
    }

    #[test]
    fn every_insecure_method_runs_with_a_warning_that_names_a_good_one_or_is_denied() {
        for method in Method::ALL {
            let password =
                if method == Method::Plain { "" } else { "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" };
            let mut settings = Settings::new("servers[1]");
            for (id, key, text) in
                [(Id::Method, "method", method.name()), (Id::Password, "password", password)]
            {
                settings.insert(id, settings.key_path(key), Value::Text(Zeroizing::new(text.into())));
            }
            let judge = |insecure| {
                let mut report = Report::default();
                let method = read_method(&settings, insecure, &mut report);
                (method, report)
            };
            let (warned, denied) = (judge(InsecureMethods::Warn), judge(InsecureMethods::Deny));
            assert_eq!((warned.0, denied.0), (Some(method), (!method.is_insecure()).then_some(method)));
            assert_eq!(warned.1.warnings.len(), usize::from(method.is_insecure()), "{method}");
            assert_eq!(denied.1.errors.len(), usize::from(method.is_insecure()), "{method}");
            for note in warned.1.warnings.iter().chain(&denied.1.errors) {
                let text = note.text.to_lowercase();
                assert!(text.contains("aes-256-gcm") || text.contains("chacha20-ietf-poly1305"), "{text}");
            }
        }
        assert_eq!(judge("rc4", "long enough").warnings[0].to_string(), RC4);
        assert_eq!(judge("TABLE", "long enough").warnings[0].to_string(), RC4.replace("RC4", "table"));
        assert!(judge("aes-128-cfb", "long enough").warnings[0].text.contains("use aes-256-gcm at both"));
        assert!(
            judge("salsa20", "long enough").warnings[0].text.contains("use chacha20-ietf-poly1305 at both")
        );
        assert!(judge("none", "test").warnings[0].text.contains("does not encrypt"));
    }

    const RC4: &str = "RC4 is not safe; please use a safer cipher, like AES-256-GCM";

    #[test]
    fn only_a_method_that_does_not_encrypt_needs_no_password() {
        for (name, wanted) in [("none", 0), ("plain", 0), ("aes-256-cfb", 1), ("aes-256-gcm", 1)] {
            let mut settings = Settings::new("");
            settings.insert(Id::Method, "method", Value::Text(Zeroizing::new(name.into())));
            let mut report = Report::default();
            let credentials = read_credentials(&settings, WARN, "missing", &mut report);
            assert_eq!((credentials.is_none(), report.errors.len()), (wanted == 1, wanted), "{name}");
        }
    }

    #[test]
    fn example_passwords_are_refused_and_short_ones_doubted() {
        for example in ["mypassword", "barfoo!", "YctPZ6U7xPPcU+gp3u+0tx/tRizJN9K8y+uKlW2qjlI="] {
            assert!(error("aes-256-gcm", example).contains("example"), "{example}");
        }
        assert_eq!(judge("aes-256-gcm", "7 chars").warnings.len(), 1);
        assert_eq!(judge("aes-256-gcm", "8 chars!").warnings, []);
    }

    #[test]
    fn a_short_password_is_warned_of_at_either_end() {
        for role in [Role::Client, Role::Server] {
            let report = judge_for(role, "aes-256-gcm", "7 chars");
            assert_eq!((report.warnings.len(), report.errors.len()), (1, 0), "{role:?}");
            let text = report.warnings[0].to_string();
            assert!(text.contains("can be guessed; make one with: umbra key aes-256-gcm"), "{text}");
        }
    }

    #[test]
    fn a_server_does_not_start_with_a_key_that_a_client_is_only_warned_of() {
        let (method, zeros) = ("2022-blake3-aes-128-gcm", "AAAAAAAAAAAAAAAAAAAAAA==");
        let (client, server) = (judge(method, zeros), judge_for(Role::Server, method, zeros));
        assert_eq!((client.warnings.len(), client.errors.len()), (1, 0));
        assert_eq!((server.warnings.len(), server.errors.len()), (0, 1));
        assert!(server.errors[0].to_string().contains("can be guessed; make one with: umbra key"));
    }

    #[test]
    fn every_password_can_be_written_in_a_file() {
        for text in [
            "", "$", "{x}", "${", "${HOME}", "$${HOME}", "$$${x}y}", "$x{HOME}", "x${HOME}", "${a}${b}",
            "${}",
        ] {
            let written = escape_password(text);
            let read = expand_password(written.clone());
            assert_eq!(read.as_deref().map(String::as_str), Ok(text), "{written:?}");
            let url = format!("socks5://me:{}@h:1", *written);
            let expanded = expand_url(Zeroizing::new(url.clone())).unwrap();
            let expected = utf8_percent_encode(text, NON_ALPHANUMERIC);
            let is_same = *expanded == url;
            assert!(
                is_same != (*written != *text)
                    && (is_same || *expanded == format!("socks5://me:{expected}@h:1")),
                "{url}"
            );
        }
        assert_eq!(escape_password("plain").as_str(), "plain");
    }

    #[test]
    fn what_may_be_a_secret_after_all_is_not_repeated() {
        let why = |text: &str| expand_password(Zeroizing::new(text.into())).unwrap_err();
        assert!(why("${UMBRA_NOT_SET}").starts_with("the environment variable UMBRA_NOT_SET, whose value"));
        for text in ["${hunter2!}", "${hunter2}${hunter2}", "${2hunter2}", "${hunter2\0}", "${hunter2=}"] {
            let why = why(text);
            assert!(why.contains("variable between the braces") && !why.contains("hunter2"), "{why}");
            assert!(why.contains("write one more $ in front"), "{why}");
        }
    }

    #[test]
    fn a_variable_on_the_command_line_is_seen_where_the_password_would_be() {
        for text in ["${X}", "socks5://me:${X}@h:1", "http://me:${X}@[::1]:1/"] {
            assert!(names_variable(text), "{text}");
        }
        for text in [
            "",
            "x${X}",
            "$${X}",
            "socks5://${X}@h",
            "socks5://me:x${X}@h",
            "socks5://h:1",
            "ss://h:1@x:${X}",
        ] {
            assert!(!names_variable(text), "{text}");
        }
    }

    #[test]
    fn no_finding_repeats_the_password() {
        for method in ["2022-blake3-aes-128-gcm", "aes-256-gcm", "zzz"] {
            let report = judge(method, "hunter2");
            let all = format!("{report:?}");
            assert!(!all.contains("hunter2"), "{all}");
        }
    }
}
