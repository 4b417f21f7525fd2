//! What was said, by a file or by flags, before anything is checked beyond its kind.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::reference::{Id, Kind};

/// A configuration file as it is written.
#[derive(Default)]
pub(crate) struct Raw {
    /// The outermost object.
    pub(crate) root: Settings,
    /// The servers of the extended form.
    pub(crate) servers: Option<Vec<Settings>>,
    /// The inbounds of the extended form (`locals[]`).
    pub(crate) inbounds: Option<Vec<Settings>>,
}

/// The settings of one object of the file, or of the command line.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    /// The object's key path: empty for the outermost, `servers[1]` in a list.
    pub(crate) path: String,
    said: BTreeMap<Id, Said>,
}

/// One value and where it was written. It may be a secret, so it cannot be printed.
#[derive(Clone)]
pub(crate) struct Said {
    /// The key path or flag.
    pub(crate) place: String,
    /// The value.
    pub(crate) value: Value,
}

/// A value of the right kind.
#[derive(Clone)]
pub(crate) enum Value {
    /// Text, wiped when dropped since it may be a password.
    Text(Zeroizing<String>),
    /// The bytes of a key in base64 (SIP006), wiped likewise. It cannot be taken for a password, which is something else.
    Key(Zeroizing<String>),
    /// A number.
    Number(u64),
    /// A switch.
    Switch(bool),
    /// A list of any of these, each with its own place.
    List(Vec<Said>),
    /// Objects of a list; or ports with their passwords.
    Objects(Vec<Settings>),
    /// An object inside another.
    Object(Settings),
}

impl Settings {
    /// Nothing said yet, by the object at `path`.
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), said: BTreeMap::new() }
    }

    /// The key path of `key` in this object.
    pub(crate) fn key_path(&self, key: &str) -> String {
        key_path(&self.path, key)
    }

    /// Sets `id` and returns what was said before, if anything was.
    pub(crate) fn insert(&mut self, id: Id, place: impl Into<String>, value: Value) -> Option<Said> {
        self.said.insert(id, Said { place: place.into(), value })
    }

    /// What was said of `id`.
    pub(crate) fn get(&self, id: Id) -> Option<&Said> {
        self.said.get(&id)
    }

    /// Text, with its place.
    pub(crate) fn text(&self, id: Id) -> Option<(&str, &str)> {
        self.get(id)?.text()
    }

    /// One text, or all of a list, each with its place.
    pub(crate) fn texts(&self, id: Id) -> Option<Vec<(&str, &str)>> {
        Some(self.get(id)?.each().iter().filter_map(Said::text).collect())
    }

    /// A key in base64, with its place.
    pub(crate) fn key(&self, id: Id) -> Option<(&str, &str)> {
        let said = self.get(id)?;
        match &said.value {
            Value::Key(key) => Some((key, &said.place)),
            Value::Text(_)
            | Value::Number(_)
            | Value::Switch(_)
            | Value::List(_)
            | Value::Objects(_)
            | Value::Object(_) => None,
        }
    }

    /// What was said of `id`, text by text and object by object, each in `wrap` if it is text.
    pub(crate) fn objects_or(&self, id: Id, wrap: impl Fn(&str, &str) -> Self) -> Option<Vec<Self>> {
        let said = self.get(id)?;
        Some(match &said.value {
            Value::Text(text) => vec![wrap(text, &said.place)],
            Value::Object(object) => vec![object.clone()],
            Value::Objects(objects) => objects.clone(),
            Value::Key(_) | Value::Number(_) | Value::Switch(_) | Value::List(_) => Vec::new(),
        })
    }

    /// A number, with its place.
    pub(crate) fn number(&self, id: Id) -> Option<(u64, &str)> {
        self.get(id)?.number()
    }

    /// One number, or all of a list, each with its place.
    pub(crate) fn numbers(&self, id: Id) -> Option<Vec<(u64, &str)>> {
        Some(self.get(id)?.each().iter().filter_map(Said::number).collect())
    }

    /// A switch.
    pub(crate) fn switch(&self, id: Id) -> Option<bool> {
        match self.get(id)?.value {
            Value::Switch(switch) => Some(switch),
            Value::Text(_)
            | Value::Key(_)
            | Value::Number(_)
            | Value::List(_)
            | Value::Objects(_)
            | Value::Object(_) => None,
        }
    }

    /// The objects of a list.
    pub(crate) fn objects(&self, id: Id) -> Option<&[Self]> {
        match &self.get(id)?.value {
            Value::Objects(objects) => Some(objects),
            Value::Text(_)
            | Value::Key(_)
            | Value::Number(_)
            | Value::Switch(_)
            | Value::List(_)
            | Value::Object(_) => None,
        }
    }

    /// An object inside this one.
    pub(crate) fn object(&self, id: Id) -> Option<&Self> {
        match &self.get(id)?.value {
            Value::Object(object) => Some(object),
            Value::Text(_)
            | Value::Key(_)
            | Value::Number(_)
            | Value::Switch(_)
            | Value::List(_)
            | Value::Objects(_) => None,
        }
    }

    /// What was said of `id`, to change it.
    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut Said> {
        self.said.get_mut(&id)
    }

    /// Takes back what was said of `id`.
    pub(crate) fn remove(&mut self, id: Id) -> Option<Said> {
        self.said.remove(&id)
    }

    /// The part of the settings that speaks of `ids`.
    pub(crate) fn only(&self, ids: &[Id]) -> Self {
        let said = self.said.iter().filter(|(id, _)| ids.contains(id));
        Self { path: self.path.clone(), said: said.map(|(id, said)| (*id, said.clone())).collect() }
    }

    /// These settings, with those of `stronger` in their place where both speak.
    pub(crate) fn beaten_by(mut self, stronger: &Self) -> Self {
        self.said.extend(stronger.said.iter().map(|(id, said)| (*id, said.clone())));
        self
    }

    /// These settings, and of `weaker` what they do not speak of.
    pub(crate) fn or(mut self, weaker: &Self) -> Self {
        for (id, said) in &weaker.said {
            self.said.entry(*id).or_insert_with(|| said.clone());
        }
        self
    }

    /// The places of everything said.
    pub(crate) fn places(&self) -> impl Iterator<Item = &str> {
        self.said.values().map(|said| said.place.as_str())
    }
}

impl Said {
    /// The elements of a list, or the one thing that was said.
    fn each(&self) -> &[Self] {
        match &self.value {
            Value::List(list) => list,
            Value::Text(_)
            | Value::Key(_)
            | Value::Number(_)
            | Value::Switch(_)
            | Value::Objects(_)
            | Value::Object(_) => std::slice::from_ref(self),
        }
    }

    fn text(&self) -> Option<(&str, &str)> {
        match &self.value {
            Value::Text(text) => Some((text, &self.place)),
            Value::Key(_)
            | Value::Number(_)
            | Value::Switch(_)
            | Value::List(_)
            | Value::Objects(_)
            | Value::Object(_) => None,
        }
    }

    fn number(&self) -> Option<(u64, &str)> {
        match &self.value {
            Value::Number(number) => Some((*number, &self.place)),
            Value::Text(_)
            | Value::Key(_)
            | Value::Switch(_)
            | Value::List(_)
            | Value::Objects(_)
            | Value::Object(_) => None,
        }
    }
}

/// The key path of `key` in the object at `object`.
pub(crate) fn key_path(object: &str, key: &str) -> String {
    if object.is_empty() { key.into() } else { format!("{object}.{key}") }
}

impl Value {
    /// Reads text as a value of `kind`: numbers and switches may stand in quotes.
    pub(crate) fn from_text(kind: Kind, text: &str) -> Result<Self, &'static str> {
        let read = match kind {
            Kind::Text
            | Kind::Secret
            | Kind::Texts
            | Kind::Networks
            | Kind::Entries
            | Kind::PortRanges
            | Kind::Statuses
            | Kind::Hops => Some(Self::Text(Zeroizing::new(text.into()))),
            Kind::Key => Some(Self::Key(Zeroizing::new(text.into()))),
            Kind::Port | Kind::Ports => text.trim().parse::<u16>().ok().map(|port| Self::Number(port.into())),
            Kind::Number => text.trim().parse().ok().map(Self::Number),
            Kind::Switch => text.trim().parse().ok().map(Self::Switch),
            Kind::PortPasswords | Kind::Objects(_) | Kind::Object(_) => None,
        };
        read.ok_or(kind.wanted())
    }
}
