//! Which way a session takes: rules in order, of which the first that fits decides.
//!
//! All of it is pure: what a name resolves to is told by the caller, and what a verdict means is the caller's as well.
//!
//! - `conditions`: when a rule fits; alternatives within one condition, and all conditions together.
//! - `targets`: names, words, patterns and networks, of which one is enough.
//! - `domains`, `networks`: the two sets that may be very long.
//! - `lines`, `list`, [`acl`]: files of them, and what is wrong with one.

pub mod acl;
mod conditions;
mod domains;
mod lines;
pub mod list;
mod networks;
mod targets;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;

pub use conditions::{Conditions, Reason};
use domains::Name;
pub use lines::{FileError, FileErrors, Why};
pub use networks::Networks;
pub use targets::{EntryError, Fit, Targets, TargetsBuilder, parse_network};

/// What is known of a session that looks for its way.
#[derive(Clone, Copy, Debug)]
pub struct Query<'q> {
    /// Where it wants to go.
    pub target: &'q Address,
    /// What it is made of.
    pub transport: Transport,
    /// Whose it is.
    pub source: IpAddr,
    /// The name of the inbound through which it came.
    pub inbound: &'q str,
    /// Who has logged in, or whose key it was.
    pub user: Option<&'q str>,
}

/// What a session is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What a rule decides.
pub trait Verdict {
    /// Whether nobody is led anywhere by it. Such a rule must not be passed by for want of an answer.
    fn refuses(&self) -> bool;
}

/// A verdict, and when it is given.
#[derive(Debug)]
pub struct Rule<V> {
    /// For people: `rules[3]`, `acl.txt:12`.
    pub name: Box<str>,
    /// When it fits.
    pub conditions: Conditions,
    /// What is done then.
    pub verdict: V,
}

/// Rules in order, and what happens where none fits.
#[derive(Debug)]
pub struct Router<V> {
    /// The first that fits decides.
    pub rules: Vec<Rule<V>>,
    /// What is done where none fits.
    pub otherwise: V,
}

/// What a router says to a query.
pub enum Decision<'r, V> {
    /// It is decided.
    Take {
        /// The rule that fits; where there is none, nothing did.
        rule: Option<&'r Rule<V>>,
        /// What is done.
        verdict: &'r V,
        /// What may be dialled, if anything is.
        dial: Dial<'r>,
    },
    /// A rule about addresses comes first, and the target is a name: it is to be resolved, and the router asked again with
    /// the addresses, or with none if there are none.
    Resolve,
    /// The name has no address, and this rule would refuse some. Nobody is led there: a server or parent on the way may know
    /// an address, and it may be one of them.
    Unresolvable {
        /// The rule that cannot be passed by.
        rule: &'r Rule<V>,
    },
}

/// What is dialled after a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial<'r> {
    /// The target, as it was asked for: no rule had to know its addresses.
    Target,
    /// The addresses that the name was resolved to, and no others: rules looked at them and let them pass. With none of them,
    /// a direct path has nothing to dial, and must not ask again; a path through a server may hand on the name.
    Addresses,
    /// Those of the addresses that are in these networks.
    Within(&'r Networks),
}

impl Dial<'_> {
    /// Whether `address`, to which the name was resolved, may be dialled.
    pub fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Target | Self::Addresses => true,
            Self::Within(networks) => networks.contains(address),
        }
    }

    /// The one of `addresses` that a datagram is sent to, of those that it allows: rather one that is not `forbidden` than one that is.
    pub fn one_of(self, addresses: &[SocketAddr], forbidden: &Forbidden) -> Option<SocketAddr> {
        let mut allowed = addresses.iter().filter(|address| self.allows(address.ip()));
        let first = allowed.clone().next();
        allowed.find(|address| forbidden.check(address.ip()).is_none()).or(first).copied()
    }
}

impl<V: Verdict> Router<V> {
    /// Decides about a session. `addresses` is what its name was resolved to, empty if that failed; a target that is an IP
    /// address needs none.
    pub fn route(&self, query: &Query<'_>, addresses: Option<&[SocketAddr]>) -> Decision<'_, V> {
        let target = Target::new(query.target);
        let mut dial = Dial::Target;
        for rule in &self.rules {
            if !rule.conditions.fit_beside_target(query) {
                continue;
            }
            match rule.conditions.fit_target(&target, addresses) {
                TargetFit::Fits => return rule.decide(dial),
                TargetFit::FitsWithin(networks) => return rule.decide(Dial::Within(networks)),
                TargetFit::Misses => {}
                TargetFit::MissesAddresses => dial = Dial::Addresses,
                TargetFit::Unasked => return Decision::Resolve,
                TargetFit::Unknown if rule.verdict.refuses() => return Decision::Unresolvable { rule },
                TargetFit::Unknown => dial = Dial::Addresses,
            }
        }
        Decision::Take { rule: None, verdict: &self.otherwise, dial }
    }

    /// Whether it depends on the user what is decided about the session of `query`, whose user is not known: a rule about users may fit it,
    /// and none before that decides for everybody. Where nobody has looked for the addresses of a name, what they could change may be so.
    pub fn asks_who(&self, query: &Query<'_>, addresses: Option<&[SocketAddr]>) -> bool {
        let target = Target::new(query.target);
        for Rule { conditions, verdict, .. } in &self.rules {
            let mut users = conditions.users.iter().flatten();
            let for_some =
                users.any(|user| conditions.fit_beside_target(&Query { user: Some(user), ..*query }));
            let for_all = conditions.fit_beside_target(query);
            if !for_some && !for_all {
                continue;
            }
            match conditions.fit_target(&target, addresses) {
                TargetFit::Fits | TargetFit::FitsWithin(_) => return for_some,
                TargetFit::Unknown if verdict.refuses() => return for_some,
                TargetFit::Unasked if for_some => return true,
                TargetFit::Unasked | TargetFit::Unknown | TargetFit::Misses | TargetFit::MissesAddresses => {}
            }
        }
        false
    }
}

impl<V> Router<V> {
    /// The same rules with other verdicts.
    pub fn map<W>(self, mut verdict: impl FnMut(V) -> W) -> Router<W> {
        let mut map = |rule: Rule<V>| Rule {
            name: rule.name,
            conditions: rule.conditions,
            verdict: verdict(rule.verdict),
        };
        let rules = self.rules.into_iter().map(&mut map).collect();
        Router { rules, otherwise: verdict(self.otherwise) }
    }
}

impl<V> Rule<V> {
    fn decide<'r>(&'r self, dial: Dial<'r>) -> Decision<'r, V> {
        Decision::Take { rule: Some(self), verdict: &self.verdict, dial }
    }
}

/// A target in the form in which rules compare it.
#[expect(clippy::large_enum_variant, reason = "it lives on the stack, for one question")]
enum Target {
    Ip(IpAddr),
    Name(Name),
}

impl Target {
    fn new(address: &Address) -> Self {
        match address {
            Address::Ip(address) => Self::Ip(address.ip().to_canonical()),
            Address::Name(name, _) => Self::Name(Name::new(name)),
        }
    }
}

/// What a rule's condition on the target says.
enum TargetFit<'r> {
    Fits,
    /// By the addresses of the name, those in the networks.
    FitsWithin(&'r Networks),
    Misses,
    /// Neither the name fits nor an address of it.
    MissesAddresses,
    /// The addresses are wanted, and nobody has looked for them.
    Unasked,
    /// The addresses are wanted, and there are none.
    Unknown,
}

/// Where people go is theirs: a decision prints by whom it was made and not about what.
impl<V: fmt::Debug> fmt::Debug for Decision<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Take { rule, verdict, .. } => {
                let name = rule.map_or("the default", |rule| &rule.name);
                write!(f, "Take({name}: {verdict:?})")
            }
            Self::Resolve => f.write_str("Resolve"),
            Self::Unresolvable { rule } => write!(f, "Unresolvable({})", rule.name),
        }
    }
}
