//! The ways out by name: paths and groups, and who uses them.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use umbra_relay::config::{Group, Hop, Path, Route};

use super::groups::read_group;
use super::hops::HopReader;
use super::place_of;
use crate::file::text_settings;
use crate::raw::Settings;
use crate::reference::{Id, nearest};
use crate::report::Report;

/// Every way that has a name.
pub(super) struct Ways {
    named: Vec<Named>,
    direct: Arc<Path>,
    servers: Option<Arc<Group>>,
    /// The names that something leads to.
    used: RefCell<HashSet<String>>,
}

/// A path or a group as it was written.
struct Named {
    name: String,
    /// Where it stands: `paths[1]`.
    place: String,
    /// Nothing, where it is wrong in itself; that is told already.
    route: Option<Route>,
}

impl Ways {
    /// The paths and groups that `root` describes, beside the client's `servers`.
    pub(super) fn read(
        root: &Settings,
        servers: Option<Arc<Group>>,
        reader: &mut HopReader,
        report: &mut Report,
    ) -> Self {
        let direct = Arc::new(Path::direct());
        let mut ways = Self { named: Vec::new(), direct, servers, used: RefCell::default() };
        for settings in in_use(root, Id::Paths) {
            let name = ways.read_name(settings, report);
            let path = read_path(name.as_deref().unwrap_or_default(), settings, reader, report);
            ways.add(name, settings, path.map(|path| Route::Path(Arc::new(path))));
        }
        // A group of groups is found out by whoever reads a group: none of the names is a path's.
        for settings in in_use(root, Id::Groups) {
            let name = ways.read_name(settings, report);
            let group = read_group(name.as_deref().unwrap_or_default(), settings, &ways, reader, report);
            ways.add(name, settings, group.map(|group| Route::Group(Arc::new(group))));
        }
        ways
    }

    /// Where `name`, which was said at `place`, leads. `refuse` is for whoever asks to know.
    pub(super) fn find(&self, name: &str, place: &str, report: &mut Report) -> Option<Route> {
        if name.contains("://") {
            // It is not repeated, since it may have a password in it.
            report.error(place, "wants the name of a way, and this is a URL; write it into hops of paths[], and its name here");
            return None;
        }
        if name == DIRECT {
            return Some(Route::Path(Arc::clone(&self.direct)));
        }
        if name == SERVERS {
            let Some(servers) = &self.servers else {
                report
                    .error(place, "there are no servers here; describe them in servers[], or lead elsewhere");
                return None;
            };
            self.used.borrow_mut().insert(name.into());
            return Some(Route::Group(Arc::clone(servers)));
        }
        if let Some(named) = self.named.iter().find(|named| named.name == name) {
            self.used.borrow_mut().insert(name.into());
            return named.route.clone();
        }
        report.error(place, format!("there is no way {name}; {}", self.hint(name)));
        None
    }

    /// The path that `name`, a member of a group, stands for: one by that name, or one through the proxy or server of that URL.
    pub(super) fn find_member(
        &self,
        name: &str,
        place: &str,
        reader: &mut HopReader,
        report: &mut Report,
    ) -> Option<Arc<Path>> {
        if name.contains("://") {
            let hops = reader.read(vec![text_settings(place, Id::HopUrl, name)], None, report)?;
            return Some(Arc::new(Path::new(place, hops)));
        }
        if [REFUSE, SERVERS].contains(&name) {
            report.error(place, format!("{name} cannot be in a group; members are paths, and direct"));
            return None;
        }
        match self.find(name, place, report)? {
            Route::Path(path) => Some(path),
            Route::Group(_) | Route::Refuse(_) => {
                report.error(
                    place,
                    format!("{name} is a group, and a group has no groups in it; name its paths"),
                );
                None
            }
        }
    }

    /// The paths that have a name.
    pub(super) fn paths(&self) -> Vec<Arc<Path>> {
        let paths = self.named.iter().filter_map(|named| match &named.route {
            Some(Route::Path(path)) => Some(Arc::clone(path)),
            Some(Route::Group(_) | Route::Refuse(_)) | None => None,
        });
        paths.collect()
    }

    /// Everything that nothing leads to is probably there by mistake.
    pub(super) fn warn_of_unused(&self, report: &mut Report) {
        let used = self.used.borrow();
        for named in self.named.iter().filter(|named| !used.contains(&named.name)) {
            report.warn(
                &named.place,
                format!("nothing leads to {}; name it in a rule, a group or otherwise", named.name),
            );
        }
    }

    /// Whether something leads to the client's servers.
    pub(super) fn uses_servers(&self) -> bool {
        self.used.borrow().contains(SERVERS)
    }

    /// What a name could have been, or which there are.
    fn hint(&self, name: &str) -> String {
        let own = self.named.iter().map(|named| named.name.as_str());
        let servers = self.servers.iter().map(|_| SERVERS);
        let known: Vec<_> = own.chain([DIRECT, REFUSE]).chain(servers).collect();
        match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", known.join(", ")),
        }
    }

    fn read_name(&self, settings: &Settings, report: &mut Report) -> Option<String> {
        let Some((name, place)) = settings.text(Id::Name) else {
            report.error(
                settings.key_path("name"),
                "missing; give it a name, by which rules and groups lead to it",
            );
            return None;
        };
        if name.is_empty() || name.chars().any(char::is_control) {
            report.error(place, "is no name; use letters and digits");
        } else if RESERVED.contains(&name) {
            report.error(place, format!("{name} has a meaning of its own; choose another name"));
        } else if let Some(other) = self.named.iter().find(|named| named.name == name) {
            report.error(place, format!("{} has this name already; choose another", other.place));
        } else {
            return Some(name.into());
        }
        None
    }

    fn add(&mut self, name: Option<String>, settings: &Settings, route: Option<Route>) {
        if let Some(name) = name {
            self.named.push(Named { name, place: settings.path.clone(), route });
        }
    }
}

/// The entries of a list that are in use.
pub(super) fn in_use(root: &Settings, id: Id) -> impl Iterator<Item = &Settings> {
    let entries = root.objects(id).unwrap_or_default();
    entries.iter().filter(|entry| !entry.switch(Id::Disabled).unwrap_or(false))
}

/// Whether datagrams can go this way at all.
pub(super) fn carries_datagrams(route: &Route) -> bool {
    match route {
        Route::Path(path) => path.has_datagrams(),
        // Servers come and go.
        Route::Group(group) => {
            &*group.name == SERVERS || group.paths().iter().any(|path| path.has_datagrams())
        }
        Route::Refuse(_) => false,
    }
}

/// Whether some session could reach its target this way without a proxy.
pub(super) fn leads_directly(route: &Route) -> bool {
    match route {
        Route::Path(path) => path.hops.is_empty(),
        Route::Group(group) => group.paths().iter().any(|path| path.hops.is_empty()),
        Route::Refuse(_) => false,
    }
}

fn read_path(name: &str, settings: &Settings, reader: &mut HopReader, report: &mut Report) -> Option<Path> {
    let hops = read_hops(settings, Id::Hops, reader, report);
    let connect = read_secs(settings, Id::ConnectTimeout, 1..=300, report);
    let negotiate = read_secs(settings, Id::NegotiateTimeout, 1..=300, report);
    let mut path = Path::new(name, hops?);
    path.deadlines.connect = connect.unwrap_or(path.deadlines.connect);
    path.deadlines.negotiate = negotiate.unwrap_or(path.deadlines.negotiate);
    Some(path)
}

/// The proxies that `id` names, one at least.
pub(super) fn read_hops(
    settings: &Settings,
    id: Id,
    reader: &mut HopReader,
    report: &mut Report,
) -> Option<Vec<Hop>> {
    let url = |text: &str, place: &str| text_settings(place, Id::HopUrl, text);
    let hops = settings.objects_or(id, url).unwrap_or_default();
    if hops.is_empty() {
        let place = place_of(settings, id, "hops");
        // What was said and could not be read is told already.
        if !report.speaks_of(&place) {
            report.error(
                place,
                "empty; name the proxies, such as \"socks5h://10.0.0.1:1080\", or lead to direct",
            );
        }
        return None;
    }
    reader.read(hops, settings.text(Id::CaFile), report)
}

/// A number of seconds within `bounds`.
pub(super) fn read_secs(
    settings: &Settings,
    id: Id,
    bounds: std::ops::RangeInclusive<u64>,
    report: &mut Report,
) -> Option<Duration> {
    read_number(settings, id, bounds, "number of seconds", report).map(Duration::from_secs)
}

/// A number within `bounds`, which `what` names in words.
pub(super) fn read_number(
    settings: &Settings,
    id: Id,
    bounds: std::ops::RangeInclusive<u64>,
    what: &str,
    report: &mut Report,
) -> Option<u64> {
    let (number, place) = settings.number(id)?;
    if bounds.contains(&number) {
        return Some(number);
    }
    report.error(place, format!("{number} is no {what} here; use {} to {}", bounds.start(), bounds.end()));
    None
}

/// The way without a proxy.
pub(super) const DIRECT: &str = "direct";
/// No way.
pub(super) const REFUSE: &str = "refuse";
/// The servers of a client.
pub(super) const SERVERS: &str = "servers";

const RESERVED: [&str; 3] = [DIRECT, REFUSE, SERVERS];
