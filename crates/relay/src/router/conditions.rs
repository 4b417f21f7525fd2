//! When a rule fits: alternatives within one condition, and all conditions together.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::{Fit, Networks, Query, Target, TargetFit, Targets, Transport};

/// What a session has to be for a rule to fit. A condition that is not there asks for nothing; one that is there and empty fits
/// nothing, so that a list that came out empty never becomes a rule for everybody.
#[derive(Debug, Default)]
pub struct Conditions {
    /// Where it goes.
    pub target: Option<Targets>,
    /// The port there.
    pub ports: Option<Vec<RangeInclusive<u16>>>,
    /// Whose it is, by address.
    pub source: Option<Networks>,
    /// The inbounds through which it may have come.
    pub inbounds: Option<Vec<Box<str>>>,
    /// The users; a session without one is none of theirs.
    pub users: Option<Vec<Box<str>>>,
    /// What it is made of.
    pub transport: Option<Transport>,
}

/// A condition, and what in it fits a session. For people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason<'c> {
    /// Where it goes.
    Target(Fit<'c>),
    /// The port there, within this range.
    Port(RangeInclusive<u16>),
    /// Whose it is, within this range of addresses.
    Source(IpAddr, IpAddr),
    /// The inbound through which it came.
    Inbound(&'c str),
    /// The user.
    User(&'c str),
    /// What it is made of.
    Transport(Transport),
}

impl Conditions {
    /// What it is in each condition by which a rule with them fits a session to a target that resolves to `addresses`, if it does.
    /// Slower than a rule's own question, and meant for explaining.
    pub fn explain(&self, query: &Query<'_>, addresses: &[SocketAddr]) -> Vec<Reason<'_>> {
        let target = self.target.as_ref().and_then(|targets| targets.explain(query.target, addresses));
        let port = query.target.port();
        let port = self.ports.as_ref().and_then(|ports| ports.iter().find(|range| range.contains(&port)));
        let source = self.source.as_ref().and_then(|networks| networks.range(query.source));
        let inbound = self.inbounds.as_ref().and_then(|names| find(names, query.inbound));
        let user = self.users.as_ref().and_then(|names| find(names, query.user?));
        let reasons = [
            target.map(Reason::Target),
            port.cloned().map(Reason::Port),
            source.map(|(first, last)| Reason::Source(first, last)),
            inbound.map(Reason::Inbound),
            user.map(Reason::User),
            self.transport.map(Reason::Transport),
        ];
        reasons.into_iter().flatten().collect()
    }

    /// All conditions but that on the target, which may cost a lookup and is asked last.
    pub(super) fn fit_beside_target(&self, query: &Query<'_>) -> bool {
        let port = query.target.port();
        let among = |names, name| find(names, name).is_some();
        self.transport.is_none_or(|transport| transport == query.transport)
            && self.ports.as_ref().is_none_or(|ports| ports.iter().any(|range| range.contains(&port)))
            && self.inbounds.as_ref().is_none_or(|inbounds| among(inbounds, query.inbound))
            && self.users.as_ref().is_none_or(|users| query.user.is_some_and(|user| among(users, user)))
            && self.source.as_ref().is_none_or(|networks| networks.contains(query.source))
    }

    pub(super) fn fit_target(&self, target: &Target, addresses: Option<&[SocketAddr]>) -> TargetFit<'_> {
        let Some(targets) = &self.target else { return TargetFit::Fits };
        let networks = targets.networks();
        match target {
            Target::Ip(address) if networks.contains(*address) => TargetFit::Fits,
            Target::Ip(_) => TargetFit::Misses,
            Target::Name(name) if targets.has_name(name) => TargetFit::Fits,
            Target::Name(_) if networks.is_empty() => TargetFit::Misses,
            Target::Name(_) => match addresses {
                None => TargetFit::Unasked,
                Some([]) => TargetFit::Unknown,
                Some(addresses) if addresses.iter().any(|address| networks.contains(address.ip())) => {
                    TargetFit::FitsWithin(networks)
                }
                Some(_) => TargetFit::MissesAddresses,
            },
        }
    }
}

fn find<'n>(names: &'n [Box<str>], name: &str) -> Option<&'n str> {
    names.iter().map(|one| &**one).find(|one| *one == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_named_and_nothing_else() {
        let conditions = Conditions {
            target: None,
            ports: Some(vec![1..=9, 80..=90]),
            source: Some(Networks::new(["10.0.0.0/8".parse().unwrap()])),
            inbounds: Some(vec!["desk".into(), "guests".into()]),
            users: Some(vec!["ann".into(), "bea".into()]),
            transport: Some(Transport::Tcp),
        };
        let target = "192.0.2.1:80".parse().unwrap();
        let query = Query {
            target: &target,
            transport: Transport::Tcp,
            source: "::ffff:10.1.2.3".parse().unwrap(),
            inbound: "guests",
            user: Some("bea"),
        };
        let range = ["10.0.0.0", "10.255.255.255"].map(|end| end.parse().unwrap());
        let expected = [
            Reason::Port(80..=90),
            Reason::Source(range[0], range[1]),
            Reason::Inbound("guests"),
            Reason::User("bea"),
            Reason::Transport(Transport::Tcp),
        ];
        assert_eq!(conditions.explain(&query, &[]), expected);
        assert_eq!(Conditions::default().explain(&query, &[]), []);
    }
}
