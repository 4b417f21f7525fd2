//! Who may come in: the users of a client's doors, and of a server's ports.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::keyring::{Keyring, KeyringError, User};
use umbra_proto::users::{Credentials, DIGEST_KEY_BYTES, Users, UsersError};

use crate::file;
use crate::flags::Role;
use crate::key::maker;
use crate::raw::Settings;
use crate::reference::Id;
use crate::report::Report;
use crate::secret::{Secret, judge_secret, said_secret};

/// Who may come in at a client's inbound, whose names are added to `names`. `None` if nothing was said of users, so that everybody may.
pub(super) fn read_door_users(
    settings: &Settings,
    names: &mut Vec<String>,
    report: &mut Report,
) -> Option<Arc<Users>> {
    let mut places = Vec::new();
    let mut users = Vec::new();
    if let Some(listed) = settings.objects(Id::Users) {
        places.extend(settings.get(Id::Users).map(|said| said.place.as_str()));
        users.extend_from_slice(listed);
    }
    if let Some((path, place)) = settings.text(Id::UsersFile) {
        places.push(place);
        // Without the file nobody knows who is meant, and it has been told why there is none.
        users.extend(file::read_users(Path::new(path), place, report)?);
    }
    let place = places.first()?;
    names.extend(user_names(&users));
    let credentials: Vec<_> = users.iter().filter_map(|user| read_login(user, report)).collect();
    let mut key = [0; DIGEST_KEY_BYTES];
    if let Err(error) = getrandom::fill(&mut key) {
        report.error(*place, format!("the system gives no random numbers: {error}"));
    }
    match Users::new(key, credentials) {
        Ok(users) => return Some(Arc::new(users)),
        Err(UsersError::NoUsers) if !users.is_empty() => {}
        Err(UsersError::NoUsers) => {
            report.error(*place, "nobody could come in; add a user");
        }
        Err(UsersError::DuplicateName) => {
            let mut seen = HashSet::new();
            let names = users.iter().filter_map(|user| user.text(Id::UserName));
            for (name, place) in names.filter(|(name, _)| !seen.insert(name.to_owned())) {
                report.error(place, format!("there is another user {name}; give each a name of their own"));
            }
        }
        Err(
            error @ (UsersError::EmptyName
            | UsersError::LongName
            | UsersError::EmptyPassword
            | UsersError::LongPassword),
        ) => report.error(*place, error.to_string()),
    }
    None
}

/// What `users` are called.
pub(super) fn user_names(users: &[Settings]) -> impl Iterator<Item = String> {
    users.iter().filter_map(|user| user.text(Id::UserName)).map(|(name, _)| name.into())
}

fn read_login(user: &Settings, report: &mut Report) -> Option<Credentials> {
    if let Some(said) = user.get(Id::UserForward) {
        report.warn(&said.place, "left aside: it is for the users of a server");
    }
    let (name, name_place) = read_part(user, Id::UserName, "name", report)?;
    let (password, password_place) = read_part(user, Id::Password, "password", report)?;
    match Credentials::new(name, password) {
        Ok(credentials) => Some(credentials),
        Err(error @ (UsersError::EmptyPassword | UsersError::LongPassword)) => {
            report.error(password_place, error.to_string());
            None
        }
        Err(
            error @ (UsersError::EmptyName
            | UsersError::LongName
            | UsersError::NoUsers
            | UsersError::DuplicateName),
        ) => {
            report.error(name_place, error.to_string());
            None
        }
    }
}

fn read_part<'a>(user: &'a Settings, id: Id, key: &str, report: &mut Report) -> Option<(&'a str, &'a str)> {
    let part = user.text(id);
    if part.is_none() {
        report.error_missing(user.key_path(key), "missing; each user has a name and a password");
    }
    part
}

/// Who may use a server's port: whoever has the port's own key, and its users. Without users, only the former.
pub(super) fn read_keyring(
    settings: &Settings,
    method: Option<Method>,
    missing: &str,
    report: &mut Report,
) -> Option<Keyring> {
    let said = said_secret(settings, method);
    let own = said.map(|(secret, place)| judge_secret(method, secret, place, Role::Server, report));
    let Some(listed) = settings.objects(Id::Users) else {
        if said.is_none() {
            report.error_missing(settings.key_path("password"), missing);
        }
        return own.flatten().map(Keyring::from);
    };
    let users: Vec<_> = listed.iter().map(|user| read_user(user, method, report)).collect();
    let (users, method) = (users.into_iter().collect::<Option<Vec<_>>>()?, method?);
    let place = settings.get(Id::Users).map_or("users", |said| said.place.as_str());
    if users.is_empty() {
        report.error(place, "empty; add a user, or leave it out if there are none");
        return None;
    }
    let port: Option<Key> = match own {
        Some(key) => Some(key?),
        None => None,
    };
    match Keyring::new(method, port, users) {
        Ok(keyring) => Some(keyring),
        Err(error) => {
            let (place, text) = explain(&error, method, settings, listed, place);
            report.error(place, text);
            None
        }
    }
}

fn read_user(user: &Settings, method: Option<Method>, report: &mut Report) -> Option<User> {
    let name = read_part(user, Id::UserName, "name", report);
    let password = read_part(user, Id::Password, "password", report);
    let forward = match user.text(Id::UserForward) {
        Some((text, place)) => Some(read_forward(text, place, report)?),
        None => None,
    };
    let (password, place) = password?;
    let key = judge_secret(method, Secret::Password(password), place, Role::Server, report)?;
    Some(User { name: name?.0.into(), key, forward })
}

fn read_forward(text: &str, place: &str, report: &mut Report) -> Option<Address> {
    match text.parse::<Address>() {
        Ok(address) if address.port() != 0 => return Some(address),
        Ok(_) => report.error(place, "0 is no port to connect to"),
        Err(error) => report.error(place, format!("{error}; say the next server as HOST:PORT")),
    }
    None
}

/// Where the mistake was made, and what to do about it.
fn explain(
    error: &KeyringError,
    method: Method,
    settings: &Settings,
    users: &[Settings],
    place: &str,
) -> (String, String) {
    let place_of = |name: &str, id| {
        let named =
            users.iter().rev().find(|user| user.text(Id::UserName).is_some_and(|(said, _)| said == name));
        named.and_then(|user| user.get(id)).map_or_else(|| place.to_owned(), |said| said.place.clone())
    };
    match error {
        KeyringError::NoPortKey => (
            settings.key_path("password"),
            format!(
                "missing; with users, {method} wants a key of the port as well; make one with: umbra key {method}"
            ),
        ),
        KeyringError::NoUsers(_) => (
            place.into(),
            format!(
                "{method} cannot tell users apart; use 2022-blake3-aes-256-gcm, or chacha20-ietf-poly1305"
            ),
        ),
        KeyringError::TooMany { given, max } => (
            place.into(),
            format!("{given} keys, and {method} bears {max}; spread the users over several ports"),
        ),
        KeyringError::SameName(name) => (
            place_of(name, Id::UserName),
            format!("there is another user {name}; give each a name of their own"),
        ),
        KeyringError::SameKey(one, other) => (
            place_of(other, Id::Password),
            format!("{one} has the same; make one for {other} with: umbra key {}", maker(method)),
        ),
        KeyringError::PortKey(name) => (
            place_of(name, Id::Password),
            format!("the port has the same; make one for {name} with: umbra key {}", maker(method)),
        ),
        KeyringError::NoForward(name) => (
            place_of(name, Id::UserForward),
            "only 2022-blake3-aes-256-gcm and 2022-blake3-aes-128-gcm can be passed on (SIP023)".into(),
        ),
        KeyringError::Empty | KeyringError::OtherMethod { .. } => (place.into(), error.to_string()),
    }
}
