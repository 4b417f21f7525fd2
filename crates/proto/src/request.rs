//! What the clients of all doors ask for, and the reasons against it in each protocol's words.

use crate::{http, socks4, socks5};

/// What a client wants of the proxy. HTTP knows the first only, SOCKS4 the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A connection to the target.
    Connect,
    /// A connection from the target: an address where we listen, and two answers.
    Bind,
    /// Datagrams.
    UdpAssociate,
}

/// Who finds the addresses of a target's name, where a proxy behind us is asked for the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// We do, and the proxy is told an address.
    ResolveHere,
    /// The proxy does, and is told the name.
    PassOn,
}

/// Why there is no way to the target, in no protocol's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Something of ours failed.
    GeneralFailure,
    /// There is no room for another session.
    Overloaded,
    /// A rule, or the system, does not allow it.
    NotAllowed,
    /// There is no way to the target's network.
    NetworkUnreachable,
    /// There is no way to the target.
    HostUnreachable,
    /// The name has no address.
    NameNotFound,
    /// The target refused.
    ConnectionRefused,
    /// It took too long.
    TimedOut,
    /// The command is not one of ours.
    CommandNotSupported,
    /// The target has a form of address that we cannot reach.
    AddressTypeNotSupported,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::GeneralFailure,
        Self::Overloaded,
        Self::NotAllowed,
        Self::NetworkUnreachable,
        Self::HostUnreachable,
        Self::NameNotFound,
        Self::ConnectionRefused,
        Self::TimedOut,
        Self::CommandNotSupported,
        Self::AddressTypeNotSupported,
    ];

    /// The code of RFC 1928, section 6.
    pub fn socks5(self) -> socks5::Reply {
        self.words().0
    }

    /// The code of SOCKS4.
    pub fn socks4(self) -> socks4::Reply {
        self.words().1
    }

    /// The status of RFC 9110, section 15.
    pub fn http(self) -> http::Status {
        self.words().2
    }

    /// What a proxy behind us meant by its SOCKS5 reply code.
    pub fn of_socks5(code: u8) -> Self {
        match code {
            2 => Self::NotAllowed,
            3 => Self::NetworkUnreachable,
            4 => Self::HostUnreachable,
            5 => Self::ConnectionRefused,
            6 => Self::TimedOut,
            7 => Self::CommandNotSupported,
            8 => Self::AddressTypeNotSupported,
            _ => Self::GeneralFailure,
        }
    }

    /// What a proxy behind us meant by its SOCKS4 reply code.
    pub fn of_socks4(code: u8) -> Self {
        match code {
            // Both are about who asks: no daemon tells the user's name, or it tells another one.
            92 | 93 => Self::NotAllowed,
            // 91 stands for a rule as well as for a target that did not answer.
            _ => Self::GeneralFailure,
        }
    }

    /// What a proxy behind us meant by the status of its answer to CONNECT.
    ///
    /// What is wrong between us and the proxy (400, 407 and the like) says nothing of the target.
    pub fn of_http(status: u16) -> Self {
        match status {
            // 451: for legal reasons.
            403 | 451 => Self::NotAllowed,
            405 | 501 => Self::CommandNotSupported,
            // Proxies have one status for every way in which a target is not reached.
            // Some say of a name without an address that it is not found, or gone.
            404 | 410 | 502 => Self::HostUnreachable,
            429 | 503 => Self::Overloaded,
            504 => Self::TimedOut,
            _ => Self::GeneralFailure,
        }
    }

    fn words(self) -> (socks5::Reply, socks4::Reply, http::Status) {
        use http::Status;
        use socks4::Reply::Rejected;
        use socks5::Reply;
        match self {
            Self::GeneralFailure => (Reply::GeneralFailure, Rejected, Status::BadGateway),
            Self::Overloaded => (Reply::GeneralFailure, Rejected, Status::ServiceUnavailable),
            Self::NotAllowed => (Reply::NotAllowed, Rejected, Status::Forbidden),
            Self::NetworkUnreachable => (Reply::NetworkUnreachable, Rejected, Status::BadGateway),
            Self::HostUnreachable => (Reply::HostUnreachable, Rejected, Status::BadGateway),
            Self::NameNotFound => (Reply::HostUnreachable, Rejected, Status::BadGateway),
            Self::ConnectionRefused => (Reply::ConnectionRefused, Rejected, Status::BadGateway),
            // 06 speaks of hops, not of time.
            Self::TimedOut => (Reply::HostUnreachable, Rejected, Status::GatewayTimeout),
            Self::CommandNotSupported => (Reply::CommandNotSupported, Rejected, Status::NotImplemented),
            Self::AddressTypeNotSupported => (Reply::AddressTypeNotSupported, Rejected, Status::BadGateway),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_words_in_every_protocol() {
        let table = Refusal::ALL.map(|reason| {
            let mut bytes = Vec::new();
            socks5::testing::pending().reject(reason.socks5(), &mut bytes);
            (reason, bytes[1], reason.socks4(), reason.http().code())
        });
        let rejected = socks4::Reply::Rejected;
        assert_eq!(
            table,
            [
                (Refusal::GeneralFailure, 1, rejected, 502),
                (Refusal::Overloaded, 1, rejected, 503),
                (Refusal::NotAllowed, 2, rejected, 403),
                (Refusal::NetworkUnreachable, 3, rejected, 502),
                (Refusal::HostUnreachable, 4, rejected, 502),
                (Refusal::NameNotFound, 4, rejected, 502),
                (Refusal::ConnectionRefused, 5, rejected, 502),
                (Refusal::TimedOut, 4, rejected, 504),
                (Refusal::CommandNotSupported, 7, rejected, 501),
                (Refusal::AddressTypeNotSupported, 8, rejected, 502),
            ]
        );
    }

    #[test]
    fn what_a_parent_says_is_passed_on_with_the_same_code() {
        for code in 1..=8 {
            let mut bytes = Vec::new();
            socks5::testing::pending().reject(Refusal::of_socks5(code).socks5(), &mut bytes);
            // Time to live is the one that has no reason of its own here: it is told as a target that is not reached.
            let told = if code == 6 { 4 } else { code };
            assert_eq!(bytes[1], told);
        }
        for code in [0, 9, 0x5b, 0xff] {
            assert_eq!(Refusal::of_socks5(code), Refusal::GeneralFailure);
        }
        for status in [403, 501, 502, 503, 504] {
            assert_eq!(Refusal::of_http(status).http().code(), status);
        }
        for code in 91..=93 {
            assert_eq!(Refusal::of_socks4(code).socks4(), socks4::Reply::Rejected);
        }
    }

    #[test]
    fn a_socks4_parents_codes_tell_who_asks_from_what_is_asked_for() {
        for (code, reason) in [
            (91, Refusal::GeneralFailure),
            (92, Refusal::NotAllowed),
            (93, Refusal::NotAllowed),
            (0, Refusal::GeneralFailure),
            (5, Refusal::GeneralFailure),
            (90, Refusal::GeneralFailure),
            (94, Refusal::GeneralFailure),
            (255, Refusal::GeneralFailure),
        ] {
            assert_eq!(Refusal::of_socks4(code), reason, "{code}");
        }
    }

    #[test]
    fn an_http_parents_statuses_tell_the_target_from_what_is_between_us_and_the_parent() {
        for (status, reason) in [
            (403, Refusal::NotAllowed),
            (451, Refusal::NotAllowed),
            (405, Refusal::CommandNotSupported),
            (501, Refusal::CommandNotSupported),
            (404, Refusal::HostUnreachable),
            (410, Refusal::HostUnreachable),
            (502, Refusal::HostUnreachable),
            (429, Refusal::Overloaded),
            (503, Refusal::Overloaded),
            (504, Refusal::TimedOut),
        ] {
            assert_eq!(Refusal::of_http(status), reason, "{status}");
        }
        for status in [0, 101, 200, 302, 400, 401, 407, 408, 431, 500, 505, 999] {
            assert_eq!(Refusal::of_http(status), Refusal::GeneralFailure, "{status}");
        }
    }
}
