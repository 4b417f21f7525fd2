//! The servers of a document that is kept elsewhere (SIP008).

use super::client::client_servers;
use super::{Online, SERVER_IDS, Settings, Subscribed};
use crate::plugin::refuse_strange_plugin;
use crate::raw::Raw;
use crate::report::{Note, Report};
use crate::roster::Listed;
use crate::secret::InsecureMethods;
use crate::subscription::{Document, Subscription, Unloaded, left_out};

/// The servers of `document` that can be used. What is wrong with others is doubtful and no more: they are somebody else's.
pub(crate) fn read_document(
    document: &Document,
    insecure: InsecureMethods,
    report: &mut Report,
) -> Vec<Listed> {
    let mut notes = document.faults.warnings.clone();
    let (mut listed, mut plugins) = (Vec::new(), 0);
    for entry in &document.entries {
        let mut found = Report::default();
        refuse_strange_plugin(&entry.settings, &mut found);
        let mut servers = client_servers(&entry.settings, insecure, &mut found);
        for plugin in servers.iter().filter_map(|listed| listed.plugin.as_ref()) {
            plugins += 1;
            if let Err(why) = plugin.find() {
                found.error(&plugin.place, why);
            } else if plugins > PLUGINS_MAX {
                found.error(&plugin.place, format!("more than {PLUGINS_MAX} servers want a plugin"));
            }
        }
        if found.errors.is_empty() {
            servers.iter_mut().for_each(|listed| listed.id = entry.id.clone());
            listed.append(&mut servers);
        }
        notes.append(&mut found.warnings);
        notes.extend(
            found.errors.into_iter().map(|Note { place, text, .. }| Note::new(place, left_out(&text))),
        );
    }
    let more = notes.len().saturating_sub(NOTES_MAX);
    notes.truncate(NOTES_MAX);
    report.warnings.append(&mut notes);
    if more > 0 {
        report.warn("", format!("{more} more doubts about the document of servers"));
    }
    listed
}

/// The documents in use. Whether one must have servers depends on whether there are others, of the file (`has_own`) or of another
/// document, and on why it has none.
pub(super) fn subscribe(
    online: Vec<Online>,
    has_own: bool,
    insecure: InsecureMethods,
    report: &mut Report,
) -> Vec<Subscribed> {
    let mut read = Vec::new();
    for Online { subscription, loaded } in online {
        let (document, failure) = match loaded {
            Some(Ok(document)) => (document, None),
            Some(Err(why)) => (Document::default(), Some(why)),
            None => continue,
        };
        let listed = read_document(&document, insecure, report);
        read.push((Subscribed { subscription, document, listed, insecure }, failure));
    }
    let others = has_own || read.iter().any(|(subscribed, _)| !subscribed.listed.is_empty());
    let judged =
        read.into_iter().filter_map(|(subscribed, failure)| judge(subscribed, failure, others, report));
    judged.collect()
}

/// A document, if it is one that can be gone on with.
fn judge(
    subscribed: Subscribed,
    failure: Option<Unloaded>,
    others: bool,
    report: &mut Report,
) -> Option<Subscribed> {
    if !subscribed.listed.is_empty() {
        return Some(subscribed);
    }
    let may_pass = failure.as_ref().is_some_and(|why| why.may_pass);
    let why = failure.map_or_else(|| "names no server that can be used".to_owned(), |why| why.to_string());
    let Subscription { source, place, .. } = &subscribed.subscription;
    let text = format!("the document of servers at {source} {why}");
    let meanwhile = match (others, may_pass) {
        (true, _) => "going on with the other servers",
        // A machine that starts before its network does has to come to its servers by itself.
        (false, true) => "sessions are refused until it can be loaded, which is tried again and again",
        (false, false) => {
            report.error(place, text);
            return None;
        }
    };
    report.warn(place, format!("{text}; {meanwhile}"));
    Some(subscribed)
}

/// Whether anything of the file or the flags speaks of a server.
pub(super) fn names_server(file: &Raw, flags: &Settings) -> bool {
    file.servers.is_some() || SERVER_IDS.iter().any(|id| file.root.get(*id).or(flags.get(*id)).is_some())
}

/// Enough to see what is the matter; a document may have thousands of servers, and come every hour.
const NOTES_MAX: usize = 20;

/// Each is a process.
const PLUGINS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn read(entries: &[String]) -> (usize, Vec<String>) {
        let text = format!(r#"{{"version": 1, "servers": [{}]}}"#, entries.join(","));
        let document = Document::parse(Zeroizing::new(text), "x").unwrap();
        let mut report = Report::default();
        let listed = read_document(&document, InsecureMethods::Warn, &mut report);
        assert_eq!(report.errors, []);
        (listed.len(), report.warnings.iter().map(ToString::to_string).collect())
    }

    fn entry(rest: &str) -> String {
        format!(r#"{{"server": "a", "server_port": 1, "password": "long-enough", {rest}}}"#)
    }

    #[test]
    fn a_thousand_faults_are_not_a_thousand_lines() {
        let mut entries = vec![entry(r#""method": "zzz""#); 1000];
        entries.push(entry(r#""method": "aes-128-gcm""#));
        let (count, notes) = read(&entries);
        assert_eq!((count, notes.len()), (1, 21));
        assert_eq!(notes[20], "980 more doubts about the document of servers");
    }

    #[test]
    fn a_plugin_that_is_not_installed_leaves_out_its_server() {
        let (count, notes) = read(&[
            entry(r#""method": "aes-128-gcm", "plugin": "qtun-client""#),
            entry(r#""method": "aes-128-gcm", "plugin": """#),
        ]);
        assert_eq!(count, 1);
        assert!(
            notes[0].starts_with("x servers[0].plugin: there is no program qtun-client in PATH"),
            "{notes:?}"
        );
        assert!(notes[0].ends_with("; this server is left out"), "{notes:?}");
    }
}
