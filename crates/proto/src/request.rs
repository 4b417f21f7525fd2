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
    }
}
