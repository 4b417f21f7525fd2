//! Servers that are said by a link, or by a document that is kept elsewhere, where an address could stand: in `server`, in a list
//! there, in `servers[]`, and behind `-s`.

use zeroize::Zeroizing;

use crate::link::{explain, is_link, link_settings};
use crate::plugin::refuse_strange_plugin;
use crate::raw::{Raw, Said, Settings, Value};
use crate::reference::{Id, LISTS};
use crate::report::Report;
use crate::resolve::SERVER_IDS;
use crate::subscription::{Subscription, names_document};

/// Puts what links say where they stand, takes the documents out, and gives these. What is said with a flag takes the place of all
/// servers of the file.
pub(crate) fn find_linked(file: &mut Raw, flags: &mut Settings, report: &mut Report) -> Vec<Subscription> {
    let mut documents = Vec::new();
    let mut parts = expand(flags, &mut documents, report);
    if let Some(parts) = &mut parts {
        *flags = parts.pop().unwrap_or_else(|| without_server(flags));
        file.servers = None;
        file.root = without_server(&file.root);
        file.root.remove(Id::OnlineConfig);
        documents.iter_mut().for_each(|document| document.alone = true);
    }
    expand_root(file, &mut documents, report);
    expand_list(file, &mut documents, report);
    documents.extend(Subscription::from_settings(&file.root, report));
    refuse_too_many(&mut documents, report);
    documents
}

/// The outermost object is one server; what names several becomes a list.
fn expand_root(file: &mut Raw, documents: &mut Vec<Subscription>, report: &mut Report) {
    let Some(mut parts) = expand(&file.root, documents, report) else { return };
    let rest = without_server(&file.root);
    if file.servers.is_some() {
        for (_, place) in file.root.texts(Id::Server).unwrap_or_default() {
            report.error(place, format!("cannot stand beside {}[]; move it into that list", LISTS[0]));
        }
        file.root = rest;
    } else if parts.len() > 1 {
        let ids = [SERVER_IDS, &[Id::Remarks]].concat();
        file.servers = Some(parts.iter().map(|part| part.only(&ids)).collect());
        file.root = rest;
    } else {
        file.root = parts.pop().unwrap_or(rest);
    }
}

fn expand_list(file: &mut Raw, documents: &mut Vec<Subscription>, report: &mut Report) {
    let Some(servers) = file.servers.take() else { return };
    let documents_before = documents.len();
    let mut entries = Vec::new();
    for entry in servers {
        if entry.switch(Id::Disabled) == Some(true) {
            // What it names is neither read nor loaded.
            entries.push(without_server(&entry));
        } else if entry.get(Id::ConfigUrl).is_some() {
            refuse(&without(&entry, OF_DOCUMENTS), BESIDE_DOCUMENT, report);
            documents.extend(Subscription::from_object(&entry, report));
        } else {
            match expand(&entry, documents, report) {
                Some(parts) => entries.extend(parts),
                None => entries.push(entry),
            }
        }
    }
    // In a list of documents no server is missing.
    let is_of_documents = documents.len() > documents_before
        && entries.iter().all(|entry| entry.switch(Id::Disabled) == Some(true));
    file.servers = (!is_of_documents).then_some(entries);
}

/// The servers that an object describes, if it names any by a link or a document; of the latter there is nothing here.
fn expand(
    settings: &Settings,
    documents: &mut Vec<Subscription>,
    report: &mut Report,
) -> Option<Vec<Settings>> {
    let said = settings.texts(Id::Server)?;
    let (linked, addresses): (Vec<_>, Vec<_>) =
        said.into_iter().partition(|(text, _)| is_link(text) || names_document(text));
    if linked.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    if !addresses.is_empty() {
        let said = |(text, place): (&str, &str)| Said {
            place: place.into(),
            value: Value::Text(Zeroizing::new(text.into())),
        };
        let hosts = Value::List(addresses.into_iter().map(said).collect());
        let mut part = settings.clone();
        part.insert(Id::Server, settings.key_path("server"), hosts);
        parts.push(part);
    } else if linked.iter().any(|(text, _)| is_link(text)) {
        refuse(&settings.only(OF_LINKS), "the link says it already; keep one of them", report);
    } else if settings.path.is_empty() {
        let mut beside = settings.only(SERVER_IDS);
        beside.remove(Id::Server);
        refuse(&beside, BESIDE_DOCUMENT, report);
    } else {
        refuse(&without(settings, &[OF_DOCUMENTS, &[Id::Server]].concat()), BESIDE_DOCUMENT, report);
    }
    let rest = without(&without(settings, OF_LINKS), &[Id::Server]);
    for (text, place) in linked {
        if is_link(text) {
            parts.push(rest.clone().or(&read_link(text, &settings.path, place, report)));
        } else {
            match Subscription::named(text, place, settings, report) {
                Some(document) => documents.push(document),
                None => parts.push(stand_in(&settings.path, place)),
            }
        }
    }
    Some(parts)
}

fn read_link(text: &str, path: &str, place: &str, report: &mut Report) -> Settings {
    match text.parse() {
        Ok(url) => {
            let settings = link_settings(url, path, place, report);
            refuse_strange_plugin(&settings, report);
            settings
        }
        Err(error) => {
            report.error(place, explain(error));
            stand_in(path, place)
        }
    }
}

/// In the place of what is wrong, which is told already, so that nothing more is said of it.
fn stand_in(path: &str, place: &str) -> Settings {
    let url = "ss://aes-128-gcm:long-enough@localhost:1".parse().expect("it is a link");
    link_settings(url, path, place, &mut Report::default())
}

fn refuse_too_many(documents: &mut Vec<Subscription>, report: &mut Report) {
    for document in documents.iter().skip(DOCUMENTS_MAX) {
        report.error(&document.place, format!("more than {DOCUMENTS_MAX} documents; leave some out"));
    }
    documents.truncate(DOCUMENTS_MAX);
    for (index, document) in documents.iter().enumerate() {
        let earlier = documents.iter().take(index).find(|other| other.source == document.source);
        if let Some(earlier) = earlier {
            let text = format!("names the same document as {}; keep one of them", earlier.place);
            report.error(&document.place, text);
        }
    }
}

fn refuse(beside: &Settings, why: &str, report: &mut Report) {
    for place in beside.places() {
        report.error(place, why);
    }
}

fn without_server(settings: &Settings) -> Settings {
    without(settings, SERVER_IDS)
}

fn without(settings: &Settings, ids: &[Id]) -> Settings {
    let mut rest = settings.clone();
    for id in ids {
        rest.remove(*id);
    }
    rest
}

/// What a link says of a server, beside where it is.
const OF_LINKS: &[Id] =
    &[Id::ServerPort, Id::PortPassword, Id::Password, Id::Method, Id::Plugin, Id::PluginOpts];

/// What may be said of a document.
const OF_DOCUMENTS: &[Id] = &[Id::ConfigUrl, Id::UpdateInterval, Id::Name, Id::Remarks, Id::Disabled];

const BESIDE_DOCUMENT: &str =
    "cannot stand beside a document, which says what its servers need; leave it out";

/// Each is asked for at the start, and again and again; nobody has more providers.
const DOCUMENTS_MAX: usize = 16;
