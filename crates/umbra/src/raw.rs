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
    /// A number.
    Number(u64),
    /// A switch.
    Switch(bool),
}

impl Settings {
    /// Nothing said yet, by the object at `path`.
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), said: BTreeMap::new() }
    }

    /// The key path of `key` in this object.
    pub(crate) fn key_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
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
        match self.get(id)? {
            Said { place, value: Value::Text(text) } => Some((text, place)),
            Said { value: Value::Number(_) | Value::Switch(_), .. } => None,
        }
    }

    /// A number, with its place.
    pub(crate) fn number(&self, id: Id) -> Option<(u64, &str)> {
        match self.get(id)? {
            Said { place, value: Value::Number(number) } => Some((*number, place)),
            Said { value: Value::Text(_) | Value::Switch(_), .. } => None,
        }
    }

    /// A switch.
    pub(crate) fn switch(&self, id: Id) -> Option<bool> {
        match self.get(id)?.value {
            Value::Switch(switch) => Some(switch),
            Value::Text(_) | Value::Number(_) => None,
        }
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

    /// The places of everything said.
    pub(crate) fn places(&self) -> impl Iterator<Item = &str> {
        self.said.values().map(|said| said.place.as_str())
    }
}

impl Value {
    /// Reads text as a value of `kind`: numbers and switches may stand in quotes.
    pub(crate) fn from_text(kind: Kind, text: &str) -> Result<Self, &'static str> {
        match kind {
            Kind::Text | Kind::Secret => Ok(Self::Text(Zeroizing::new(text.into()))),
            Kind::Port => match text.trim().parse::<u16>() {
                Ok(port) => Ok(Self::Number(port.into())),
                Err(_) => Err("wants a port: a whole number from 0 to 65535"),
            },
            Kind::Number => text.trim().parse().map(Self::Number).map_err(|_| "wants a whole number"),
            Kind::Switch => text.trim().parse().map(Self::Switch).map_err(|_| "wants true or false"),
        }
    }
}
