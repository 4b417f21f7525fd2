//! `umbra url`: servers as links, links as a configuration, and either as QR codes.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use umbra_proto::url::ServerUrl;
use zeroize::Zeroizing;

use crate::flags::{Role, Servers, Url, find_variable};
use crate::link::{read_links, to_json};
use crate::report::Report;
use crate::resolve::describe_servers;
use crate::run::{load, read, tell};
use crate::{fail, qr};

/// Does what was asked for, and tells everything that kept it from being done.
pub(crate) fn run(url: Url) -> ExitCode {
    let mut report = Report::default();
    let output = match url {
        Url::Encode(servers) => encode(servers, &mut report).map(|links| lines(&links)),
        Url::Decode(texts) => decode(&texts, &mut report).map(|urls| to_json(&urls)),
        Url::Draw(texts) => decode(&texts, &mut report).and_then(|urls| {
            let links = urls.into_iter().map(|url| (url.clone(), url.to_text()));
            draw(&links.collect::<Vec<_>>(), &mut report)
        }),
        Url::DrawServers(servers) => encode(servers, &mut report).and_then(|links| draw(&links, &mut report)),
    };
    tell(&report);
    let Some(output) = output.filter(|_| report.errors.is_empty()) else { return ExitCode::FAILURE };
    match io::stdout().write_all(output.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot print: {error}")),
    }
}

type Link = (ServerUrl, Zeroizing<String>);

/// Each server with its link, in the form that was asked for.
fn encode(servers: Servers, report: &mut Report) -> Option<Vec<Link>> {
    let Servers { options, host, tag, legacy } = servers;
    if let Some(complaint) = find_variable(&options.settings) {
        report.error("", complaint);
        return None;
    }
    let sources = load(Role::Client, read(options, report)?);
    let mut links = Vec::new();
    for mut url in describe_servers(sources, host.as_deref(), report) {
        if let Some(tag) = &tag {
            url.tag = Some(tag.as_str().into());
        }
        let text = if legacy { url.to_legacy_text() } else { Some(url.to_text()) };
        match text {
            // A host may hold what a link gives another meaning.
            Some(text) if text.parse().as_ref() == Ok(&url) => links.push((url, text)),
            Some(_) => report.error("", format!("the server at {} cannot be written as a link", url.address)),
            None => {
                report.error("--legacy", "the form before SIP002 has no place for a plugin; leave it out");
            }
        }
    }
    report.errors.is_empty().then_some(links)
}

fn lines(links: &[Link]) -> Zeroizing<String> {
    let mut output = Zeroizing::new(String::new());
    for (_, text) in links {
        output.push_str(text);
        output.push('\n');
    }
    output
}

/// The servers of all links; `-` stands for those of the standard input.
fn decode(texts: &[Zeroizing<String>], report: &mut Report) -> Option<Vec<ServerUrl>> {
    let mut urls = Vec::new();
    for text in texts {
        if text.as_str() == "-" {
            let mut input = Zeroizing::new(String::new());
            if let Err(error) = io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut input) {
                report.error("-", format!("the standard input cannot be read: {error}"));
            }
            urls.extend(read_links(&input, report));
        } else {
            urls.extend(read_links(text, report));
        }
    }
    if urls.is_empty() && report.errors.is_empty() {
        report.error("-", "there is no link in the standard input");
    }
    report.errors.is_empty().then_some(urls)
}

fn draw(links: &[Link], report: &mut Report) -> Option<Zeroizing<String>> {
    let mut output = Zeroizing::new(String::new());
    for (url, text) in links {
        match qr::draw(text) {
            Some(code) => {
                let name =
                    url.tag.as_deref().map_or_else(String::new, |tag| format!("{}, ", tag.escape_debug()));
                output.push_str(&format!("\n{name}{}\n\n", url.address));
                output.push_str(&code);
            }
            None => report.error("", format!("the link to {} is too long for a QR code", url.address)),
        }
    }
    report.errors.is_empty().then_some(output)
}

/// Thousands of links; keeps a mistaken pipe from filling memory.
const INPUT_BYTES_MAX: u64 = 4 * 1024 * 1024;
