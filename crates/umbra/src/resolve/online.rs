//! The servers of a document that is kept elsewhere (SIP008).

use super::client::client_servers;
use super::{Online, SERVER_IDS, Settings, Subscribed};
use crate::plugin::refuse_strange_plugin;
use crate::raw::Raw;
use crate::report::{Note, Report};
use crate::roster::Listed;
use crate::subscription::{Document, left_out};

/// The servers of `document` that can be used. What is wrong with others is doubtful and no more: they are somebody else's.
pub(crate) fn read_document(document: &Document, report: &mut Report) -> Vec<Listed> {
    report.warnings.extend(document.faults.warnings.iter().cloned());
    let (mut listed, mut plugins) = (Vec::new(), 0);
    for entry in &document.entries {
        let mut found = Report::default();
        refuse_strange_plugin(&entry.settings, &mut found);
        let mut servers = client_servers(&entry.settings, &mut found);
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
        report.warnings.append(&mut found.warnings);
        for Note { place, text } in found.errors {
            report.warn(place, left_out(&text));
        }
    }
    listed
}

/// The document in use, if it has servers; whether it must have any depends on whether there are `others`.
pub(super) fn subscribe(online: Online, others: bool, report: &mut Report) -> Option<Subscribed> {
    let Online { subscription, loaded } = online;
    let name = &subscription.source;
    let (why, document) = match loaded? {
        Ok(document) => {
            let listed = read_document(&document, report);
            if !listed.is_empty() {
                return Some(Subscribed { subscription, document, listed });
            }
            ("names no server that can be used".to_owned(), document)
        }
        Err(why) => (why, Document::default()),
    };
    let text = format!("the document of servers at {name} {why}");
    if others {
        report.warn(&subscription.place, format!("{text}; going on with the servers of the file"));
        return Some(Subscribed { subscription, document, listed: Vec::new() });
    }
    report.error(&subscription.place, text);
    None
}

/// Whether anything of the file or the flags speaks of a server.
pub(super) fn names_server(file: &Raw, flags: &Settings) -> bool {
    file.servers.is_some() || SERVER_IDS.iter().any(|id| file.root.get(*id).or(flags.get(*id)).is_some())
}

/// Each is a process.
const PLUGINS_MAX: usize = 32;
