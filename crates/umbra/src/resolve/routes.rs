//! Which sessions go which way, put together: rules in any of their forms, where nothing fits, and whether that is possible at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use umbra_proto::request::Refusal;
use umbra_relay::config::{Mode, Path, Route, Routes};
use umbra_relay::router::Router;
use umbra_relay::router::acl::{Acl, AclVerdict};

use super::forbidden::Leads;
use super::parents::read_parents;
use super::rules::{Asked, Rules, open, tell_file_errors};
use super::ways::{DIRECT, REFUSE, SERVERS, Ways, carries_datagrams, leads_directly};
use super::{Common, Door, Way};
use crate::flags::Role;
use crate::raw::Settings;
use crate::reference::{Id, nearest};
use crate::report::Report;

/// What becomes of sessions.
pub(super) struct Plans {
    /// The rules.
    pub(super) routes: Routes,
    /// Whether they lead to targets without a proxy.
    pub(super) leads: Leads,
    /// Every path that has a name or is led to, but those to the client's servers.
    pub(super) paths: Vec<Arc<Path>>,
    /// Whether datagrams can go any of the ways, as far as that is known.
    carries_datagrams: bool,
    inbounds: Vec<Asked>,
    users: Vec<Asked>,
}

/// Whether `root` says itself where a client's sessions go, so that it needs no server.
pub(super) fn says_where(root: &Settings) -> bool {
    FORMS.iter().chain(&[Id::Otherwise]).any(|id| root.get(*id).is_some())
}

/// The rules of `both`, the outermost object and the flags, and where sessions go that none of them fits.
pub(super) fn read_routes(
    role: Role,
    both: &Settings,
    common: &mut Common,
    way: &Way,
    report: &mut Report,
) -> Plans {
    let servers = way.is_wanted.then(|| Arc::clone(&way.servers));
    let has_servers = servers.is_some();
    let ways = Ways::read(both, servers, &mut common.hops, report);
    refuse_several_forms(both, report);
    let is_elsewhere = both.get(Id::SocksConfig).or(both.get(Id::RecordsConfig)).is_some();
    let default = if is_elsewhere {
        refuse_other_way(both, common, report);
        both.text(Id::Otherwise).and_then(|(name, place)| find_default(name, place, &ways, report))
    } else {
        read_default(role, both, common, &ways, way, report)
    };
    let mut rules = Rules::default();
    let router = if let Some((path, place)) = both.text(Id::Acl) {
        default.as_ref().and_then(|default| read_acl(role, path, place, default, report))
    } else if is_elsewhere {
        read_parents(both, &Route::direct(), default, report)
    } else {
        rules = Rules::read(both, &ways, report);
        default.map(|otherwise| Router { rules: std::mem::take(&mut rules.rules), otherwise })
    };
    ways.warn_of_unused(report);
    if has_servers && says_where(both) && !ways.uses_servers() {
        report.warn("servers", "nothing leads to them; name them in a rule or otherwise");
    }
    // Without a router there is an error, and nothing starts. Of its ways nothing is known then, and nothing more is told.
    let is_known = router.is_some();
    let router =
        router.unwrap_or(Router { rules: Vec::new(), otherwise: Route::Refuse(Refusal::GeneralFailure) });
    let all: Vec<_> = router.rules.iter().map(|rule| &rule.verdict).chain([&router.otherwise]).collect();
    let proxies = |route: &&&Route| match route {
        Route::Path(path) => !path.hops.is_empty(),
        Route::Group(_) => true,
        Route::Refuse(_) => false,
    };
    let leads = match (all.iter().any(|route| leads_directly(route)), all.iter().any(|route| proxies(&route)))
    {
        (true, true) => Leads::Mixed,
        (true, false) | (false, false) => Leads::Directly,
        (false, true) if has_servers => Leads::ThroughServers,
        (false, true) => Leads::ThroughProxies,
    };
    let paths = list_paths(&ways, &all);
    let carries_datagrams = !is_known || all.iter().any(|route| carries_datagrams(route));
    let Rules { inbounds, users, .. } = rules;
    Plans { routes: Routes::new(router), leads, paths, carries_datagrams, inbounds, users }
}

/// The paths by name, and then those that `routes` lead to besides.
fn list_paths(ways: &Ways, routes: &[&Route]) -> Vec<Arc<Path>> {
    let mut paths = ways.paths();
    for route in routes {
        let led = match route {
            Route::Path(path) => vec![Arc::clone(path)],
            Route::Group(group) if &*group.name == SERVERS => Vec::new(),
            Route::Group(group) => group.paths(),
            Route::Refuse(_) => Vec::new(),
        };
        for path in led {
            if !paths.iter().any(|known| known.name == path.name) {
                paths.push(path);
            }
        }
    }
    paths
}

/// Where sessions go that no rule fits. Nothing, if that is not said or wrong, which is told.
fn read_default(
    role: Role,
    both: &Settings,
    common: &Common,
    ways: &Ways,
    way: &Way,
    report: &mut Report,
) -> Option<Route> {
    if let Some((name, place)) = both.text(Id::Otherwise) {
        if let Some((_, by)) = common.way.as_ref().filter(|(_, by)| *by != DIRECT || name != DIRECT) {
            report.error(place, format!("cannot stand beside {by}, which says the same; keep one of them"));
        }
        return find_default(name, place, ways, report);
    }
    if let Some((route, _)) = &common.way {
        return Some(route.clone());
    }
    match role {
        Role::Server => Some(Route::direct()),
        Role::Client if way.is_wanted => ways.find(SERVERS, "", report),
        Role::Client => {
            let has_ways = [Id::Paths, Id::Groups].iter().any(|id| both.get(*id).is_some());
            if says_where(both) || has_ways {
                let text = "missing; say where sessions go that no rule fits: a path, a group, refuse, or direct if they may leave \
                            without a proxy";
                report.error("otherwise", text);
            }
            None
        }
    }
}

fn find_default(name: &str, place: &str, ways: &Ways, report: &mut Report) -> Option<Route> {
    if name == REFUSE { Some(Route::Refuse(Refusal::NotAllowed)) } else { ways.find(name, place, report) }
}

/// Traffic Server's files say where everything goes.
fn refuse_other_way(both: &Settings, common: &Common, report: &mut Report) {
    if let Some((_, by)) = &common.way {
        let id = if *by == DIRECT { Id::Direct } else { Id::OutboundProxy };
        let place = both.get(id).map_or(*by, |said| said.place.as_str());
        report
            .error(place, "cannot stand beside Traffic Server's files; say in otherwise where the rest goes");
    }
}

/// Two lists of rules have no order between them.
fn refuse_several_forms(both: &Settings, report: &mut Report) {
    let said: Vec<_> = FORMS.iter().filter_map(|id| both.get(*id)).collect();
    // The two files of Traffic Server belong together.
    let is_pair = both.get(Id::Rules).or(both.get(Id::Acl)).is_none();
    if let ([first, others @ ..], false) = (said.as_slice(), is_pair) {
        for other in others {
            report.error(&other.place, format!("cannot stand beside {}; keep one of them", first.place));
        }
    }
}

/// The rules of an access list, with `default` for what it sends on as usual.
fn read_acl(
    role: Role,
    path: &str,
    place: &str,
    default: &Route,
    report: &mut Report,
) -> Option<Router<Route>> {
    if role == Role::Client && default.is_direct() {
        let text =
            "has nothing to lead through where everything goes directly; leave it out, or describe a server";
        report.error(place, text);
        return None;
    }
    let acl = match open(path) {
        Ok(reader) => {
            Acl::read(path, reader).map_err(|errors| tell_file_errors(place, &errors, report)).ok()?
        }
        Err(why) => {
            report.error(place, why);
            return None;
        }
    };
    let (aside, router) = match role {
        Role::Client => (acl.left_aside_by_client(), acl.client()),
        Role::Server => (acl.left_aside_by_server(), acl.server()),
    };
    for part in aside {
        report.warn(&*part.place, format!("left aside: {}", part.why));
    }
    let direct = Route::direct();
    Some(router.map(|verdict| match (role, verdict) {
        (Role::Client, AclVerdict::Direct) => direct.clone(),
        (Role::Client, AclVerdict::Proxy) | (Role::Server, AclVerdict::Direct | AclVerdict::Proxy) => {
            default.clone()
        }
        (_, AclVerdict::Block) => Route::Refuse(Refusal::NotAllowed),
    }))
}

impl Plans {
    /// What only the doors can tell: whether there are the inbounds and users that rules ask for, and whether the datagrams that come
    /// in can leave. Where none can, and nobody has asked for any, none come in: whoever would send some is told so.
    pub(super) fn compare_with(&self, doors: &mut [Door], report: &mut Report) {
        let inbounds: BTreeSet<_> = doors.iter().map(|door| &*door.inbound.name).collect();
        let users: BTreeSet<_> = doors.iter().flat_map(|door| &door.users).map(String::as_str).collect();
        refuse_strangers(&self.inbounds, &inbounds, "inbound", report);
        refuse_strangers(&self.users, &users, "user", report);
        if self.carries_datagrams {
            return;
        }
        for door in doors {
            if let Some(place) = door.wants_datagrams.as_deref() {
                let text = "no datagram can leave: of proxies, SOCKS5 and Shadowsocks carry them, alone and behind one another; use tcp_only, or add a way";
                report.error(place, text);
            } else {
                door.inbound.mode = Mode::Streams;
            }
        }
    }
}

/// A rule for somebody who is not there fits nothing, which nobody means.
fn refuse_strangers(asked: &[Asked], known: &BTreeSet<&str>, what: &str, report: &mut Report) {
    for (name, place) in asked.iter().filter(|(name, _)| !known.contains(name.as_str())) {
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None if known.is_empty() => "there is none".into(),
            None => {
                let some: Vec<_> = known.iter().take(NAMES_SHOWN_MAX).copied().collect();
                format!("there are {}", some.join(", "))
            }
        };
        report.error(place, format!("there is no {what} {name}; {hint}"));
    }
}

/// The keys that each bring rules of their own.
const FORMS: [Id; 4] = [Id::Rules, Id::Acl, Id::SocksConfig, Id::RecordsConfig];

/// A server may have thousands of users.
const NAMES_SHOWN_MAX: usize = 12;
