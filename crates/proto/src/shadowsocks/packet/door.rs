//! A server's end for everybody: whose packet is it, before anything is known of it?

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::body::{HEADER_BYTES, Header, RESPONSE_BYTES};
use super::client::open_extended;
use super::salted::Ahead;
use super::stock::StockId;
use super::{Datagram, Form, PacketError, SessionId, flat, salted};
use crate::address::Address;
use crate::shadowsocks::block::BlockKey;
use crate::shadowsocks::cipher::TAG_BYTES;
use crate::shadowsocks::cipher::packet::{EXTENDED_NONCE_BYTES, ExtendedCipher};
use crate::shadowsocks::identity::{IDENTITY_BYTES, IdentityHash};
use crate::shadowsocks::key::Key;
use crate::shadowsocks::keyring::{Holder, Keyring, Rule, TrialOrder};
use crate::shadowsocks::one_time_auth::OneTimeAuth;

/// A server's end for all clients of a port, shared by all who serve it.
pub struct PacketDoor {
    keyring: Arc<Keyring>,
    pub(super) kind: DoorKind,
    /// Of the first holder's key.
    stocks: StockId,
}

pub(super) enum DoorKind {
    Flat(OneTimeAuth),
    /// Keys are tried, where there are several, in an order that changes with whoever comes; not for every packet.
    Salted(Option<Mutex<TrialOrder>>),
    Separate(Blocks),
    Extended(ExtendedCipher),
}

/// The keys for single blocks.
pub(super) struct Blocks {
    /// Of the key that separate headers are hidden with.
    pub(super) port: BlockKey,
    /// Of those whose packets another server understands (SIP023).
    forwards: HashMap<Holder, BlockKey>,
    /// Whether a packet names its holder, behind the separate header.
    pub(super) identified: bool,
}

/// What a packet turns out to be at first sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look<'d> {
    /// SIP022: a packet of this session, whoever sends it. Holders have sessions of their own: an id that two of them use is
    /// two sessions. The separate header has been opened in place, and with the `ChaCha` methods all of the packet.
    Session {
        /// The client's.
        id: SessionId,
        /// Who the packet says it is from; that it is, is not proved.
        holder: Holder,
    },
    /// Nothing is said of a session: the association is that of the address which the packet came from.
    Source,
    /// SIP023: a packet that another server understands. From `start` on it is as it is to be sent there. Nothing of it has
    /// been proved, and that server's answers are for whoever sends this session's packets, as they come.
    Forward {
        /// The server that understands.
        to: &'d Address,
        /// Where in the packet what is to be sent begins.
        start: usize,
        /// The client's session.
        session: SessionId,
        /// Who was named.
        holder: Holder,
        /// Its id. The identity header fits this id in this session and no other: whoever has no key of the port's can send
        /// it again, and cannot make another one.
        packet: u64,
    },
}

impl PacketDoor {
    /// The door of those who hold a key of `keyring`; `auth` is for methods without tags.
    pub fn new(keyring: Arc<Keyring>, auth: OneTimeAuth) -> Self {
        let kind = match Form::of(keyring.method()) {
            Form::Flat => DoorKind::Flat(auth),
            Form::Salted => {
                DoorKind::Salted(keyring.is_tried().then(|| Mutex::new(TrialOrder::new(&keyring))))
            }
            Form::Separate => DoorKind::Separate(Blocks::new(&keyring)),
            Form::Extended => DoorKind::Extended(ExtendedCipher::new(keyring.key(Holder::ONLY))),
        };
        let stocks = StockId::reserve(keyring.len());
        Self { keyring, kind, stocks }
    }

    /// The keys, and who holds them.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// First look, without any state. Under SIP022 it opens what it looks at, so that a packet must be looked at once.
    pub fn look(&self, packet: &mut [u8]) -> Result<Look<'_>, PacketError> {
        match &self.kind {
            DoorKind::Flat(_) | DoorKind::Salted(_) => Ok(Look::Source),
            DoorKind::Separate(blocks) => self.look_separate(blocks, packet),
            DoorKind::Extended(cipher) => {
                let (header, _) = open_extended(cipher, packet)?;
                Ok(Look::Session { id: header.session, holder: Holder::ONLY })
            }
        }
    }

    fn look_separate(&self, blocks: &Blocks, bytes: &mut [u8]) -> Result<Look<'_>, PacketError> {
        let (header, rest) = bytes.split_first_chunk_mut::<HEADER_BYTES>().ok_or(PacketError::Truncated)?;
        blocks.port.decrypt(header);
        let Header { session: id, packet } = Header::read(*header);
        let Rule::Identified(identified) = self.keyring.rule() else {
            return Ok(Look::Session { id, holder: Holder::ONLY });
        };
        let block = rest.first_chunk_mut::<IDENTITY_BYTES>().ok_or(PacketError::Truncated)?;
        let hash = IdentityHash::of_packet(&blocks.port, header, *block);
        let holder = identified.find(&hash).ok_or(PacketError::UnknownIdentity)?;
        let Some((to, next)) = self.keyring.forward(holder).zip(blocks.forwards.get(&holder)) else {
            return Ok(Look::Session { id, holder });
        };
        // The separate header moves to where the identity header was, and is hidden for the next server.
        *block = *header;
        next.encrypt(block);
        Ok(Look::Forward { to, start: IDENTITY_BYTES, session: id, holder, packet })
    }

    /// To be kept while `packets`, [`AHEAD_MAX`](super::AHEAD_MAX) at most, are opened here one after the other: they may cost less so.
    #[expect(single_use_lifetimes, reason = "one without a name is not stable here")]
    pub fn ahead<'p>(&self, packets: impl Iterator<Item = &'p [u8]>) -> Option<Ahead> {
        match &self.kind {
            DoorKind::Salted(None) => Ahead::derive(self.key(Holder::ONLY), packets),
            // Whose key it is that opens them is not known before.
            DoorKind::Salted(Some(_)) => None,
            DoorKind::Flat(_) | DoorKind::Separate(_) | DoorKind::Extended(_) => None,
        }
    }

    /// Whether a packet that an association could not open may be of somebody else behind the same address, so that
    /// [`begin`](super::ServerSession::begin) is worth a try. The packet is then as it was.
    pub fn is_tried(&self) -> bool {
        matches!(self.kind, DoorKind::Salted(Some(_)))
    }

    /// Bytes of a packet to a client beside its payload, for an address block of `address_len` bytes.
    pub fn overhead(&self, address_len: usize) -> usize {
        let method = self.keyring.method();
        address_len
            + match &self.kind {
                DoorKind::Flat(_) => flat::overhead(method, false),
                DoorKind::Salted(_) => salted::overhead(method),
                DoorKind::Separate(_) => HEADER_BYTES + RESPONSE_BYTES + TAG_BYTES,
                DoorKind::Extended(_) => EXTENDED_NONCE_BYTES + HEADER_BYTES + RESPONSE_BYTES + TAG_BYTES,
            }
    }

    /// Opens a packet of SIP004 with the key of `holder`. If that is not the only key, a failure leaves the packet as it was.
    pub(super) fn open_salted<'p>(
        &self,
        holder: Holder,
        packet: &'p mut [u8],
    ) -> Result<Datagram<'p>, PacketError> {
        if !self.is_tried() {
            return salted::open(self.key(holder), packet);
        }
        let (_, text) = salted::search(&self.keyring, [holder], packet)?;
        super::split(&packet[text])
    }

    pub(super) fn stock(&self, holder: Holder) -> StockId {
        self.stocks.at(self.keyring.place(holder))
    }

    pub(super) fn key(&self, holder: Holder) -> &Key {
        self.keyring.key(holder)
    }

    /// Finds out whose key opens a packet of SIP004, the one that opened last being tried first.
    pub(super) fn find<'p>(&self, packet: &'p mut [u8]) -> Result<(Holder, Datagram<'p>), PacketError> {
        let DoorKind::Salted(Some(order)) = &self.kind else {
            return salted::open(self.key(Holder::ONLY), packet).map(|datagram| (Holder::ONLY, datagram));
        };
        let lock = || order.lock().unwrap_or_else(PoisonError::into_inner);
        // A snapshot: others are not to wait while strangers' packets are tried.
        let snapshot = lock().clone();
        let (holder, text) = salted::search(&self.keyring, snapshot.holders(), packet)?;
        drop(snapshot);
        lock().promote(holder);
        Ok((holder, super::split(&packet[text])?))
    }
}

impl Blocks {
    fn new(keyring: &Keyring) -> Self {
        let identified = match keyring.rule() {
            Rule::Identified(identified) => Some(identified),
            Rule::One | Rule::Trial => None,
        };
        let port = identified.map_or_else(|| keyring.key(Holder::ONLY), |identified| &identified.port);
        let forwarded = keyring.holders().filter(|holder| keyring.forward(*holder).is_some());
        let forwards = forwarded.map(|holder| (holder, BlockKey::of(keyring.key(holder)))).collect();
        Self { port: BlockKey::of(port), forwards, identified: identified.is_some() }
    }
}

impl fmt::Debug for PacketDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketDoor({:?})", self.keyring)
    }
}
