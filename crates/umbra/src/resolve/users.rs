//! Who may come in: the users of a client's doors.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use umbra_proto::users::{Credentials, DIGEST_KEY_BYTES, Users, UsersError};

use crate::file;
use crate::raw::Settings;
use crate::reference::Id;
use crate::report::Report;

/// Who may come in at a client's inbound. `None` if nothing was said of users, so that everybody may.
pub(super) fn read_door_users(settings: &Settings, report: &mut Report) -> Option<Arc<Users>> {
    let mut places = Vec::new();
    let mut users = Vec::new();
    if let Some(listed) = settings.objects(Id::Users) {
        places.extend(settings.get(Id::Users).map(|said| said.place.as_str()));
        users.extend_from_slice(listed);
    }
    if let Some((path, place)) = settings.text(Id::UsersFile) {
        places.push(place);
        users.extend(file::read_users(Path::new(path), report).unwrap_or_default());
    }
    let place = places.first()?;
    let credentials: Vec<_> = users.iter().filter_map(|user| read_login(user, report)).collect();
    let mut key = [0; DIGEST_KEY_BYTES];
    if let Err(error) = getrandom::fill(&mut key) {
        report.error(*place, format!("the system gives no random numbers: {error}"));
    }
    match Users::new(key, credentials) {
        Ok(users) => return Some(Arc::new(users)),
        Err(UsersError::NoUsers) if !users.is_empty() => {}
        Err(UsersError::NoUsers) => {
            report.error(*place, "nobody could come in; add a user, or leave it out to let everybody in");
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
        report.error(user.key_path(key), "missing; each user has a name and a password");
    }
    part
}
