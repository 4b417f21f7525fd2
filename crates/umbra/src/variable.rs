//! `${NAME}` where the environment is not asked: it is taken as it is, and whoever wrote it is told so.
//!
//! The environment is asked for passwords of files alone; see [`expand_password`](crate::secret::expand_password).

use crate::report::Report;
use crate::secret::braced;

/// What of a login is written as a variable and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The password in an `ss://` link, which is somebody else's more often than not.
    LinkPassword,
    /// The name of a user, of a door or at a proxy.
    User,
    /// The password in a `socks.config`.
    SocksConfigPassword,
}

/// Warns if all of `text`, which is `part` of what was written at `place`, is `${NAME}`.
pub(crate) fn warn_of_variable(text: &str, part: Part, place: impl Into<String>, report: &mut Report) {
    if let Some(why) = explain_variable(text, part) {
        report.warn(place, why);
    }
}

/// What there is to warn of, if all of `text` is `${NAME}`. The text may be a secret, and is not repeated.
pub(crate) fn explain_variable(text: &str, part: Part) -> Option<&'static str> {
    let is_variable = braced(text).is_some_and(|(dollars, _)| dollars == "$");
    is_variable.then_some(match part {
        Part::LinkPassword => {
            "the password in the link is taken as it is, ${ and all: the environment is not asked for links; write the server as an object \
             if its password is the value of a variable"
        }
        Part::User => {
            "the name of the user is taken as it is, ${ and all: the environment is asked for passwords alone; write what is meant"
        }
        Part::SocksConfigPassword => {
            "the password is taken as it is, ${ and all: the environment is not asked for Traffic Server's files; write what is meant"
        }
    })
}

/// What is wrong with `text` as a host, if a variable is in it. No host has these signs, and nobody would find it.
pub(crate) fn refuse_in_host(text: &str) -> Result<(), String> {
    if text.contains("${") {
        return Err(format!(
            "{text} is no host: the environment is asked for passwords alone; write the name or address"
        ));
    }
    Ok(())
}
