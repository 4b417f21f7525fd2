//! Traffic Server as a client of ours: an HTTP cache that reaches the web through SOCKS.

use anyhow::Result;

use super::super::programs::Visitor;
use super::trials::{refused, trial};
use super::{Door, Trial};
use crate::peers::Cache;

/// What the cache is known by at the guarded door: its file parts words by blanks and knows no quotes.
pub(super) const PASSWORD: &str = "a-cache's-own";

/// Everybody is let in.
pub(super) fn open<'a>(door: &'a Door<'a>) -> Vec<Trial<'a>> {
    // What it is told of a login, and no door asks for, is kept to itself.
    let ways =
        [("version 4", 4, ""), ("version 5", 5, ""), ("version 5, a login", 5, "auth u cache secret\n")];
    ways.map(|(way, version, socks_config)| {
        trial(Visitor::TrafficServer, way, "the page", move || fetch(door, version, socks_config, true))
    })
    .into()
}

/// Only those who say a name with its password are let in.
pub(super) fn guarded<'a>(door: &'a Door<'a>) -> Vec<Trial<'a>> {
    let known = format!("auth u cache {PASSWORD}\n");
    let ways = [
        ("version 5, its login", 5, known.clone()),
        ("version 5, a wrong password", 5, "auth u cache another's\n".to_owned()),
        ("version 5, no login", 5, String::new()),
        ("version 4", 4, known.clone()),
    ];
    ways.map(|(way, version, socks_config)| {
        let is_known = version == 5 && socks_config == known;
        let end = if is_known { "the page" } else { "a refusal" };
        trial(Visitor::TrafficServer, way, end, move || fetch(door, version, &socks_config, is_known))
    })
    .into()
}

/// curl asks the cache for the page, and the cache asks us for the way.
fn fetch(door: &Door<'_>, version: u8, socks_config: &str, is_known: bool) -> Result<()> {
    let default_servers = door.address.to_string();
    let cache = Cache { version, default_servers: &default_servers, socks_config };
    let cache = door.tools.start_cache(cache)?;
    let proxy = format!("http://{}", cache.http);
    let download = || door.site.download(&["-x", &proxy], "127.0.0.1");
    if is_known { download() } else { refused(door, download).map(drop) }
}
