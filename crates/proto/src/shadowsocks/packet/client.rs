//! A client's end: what is shared by all associations with one server, and one association.

use std::fmt;
use std::sync::Arc;

use super::body::{HEADER_BYTES, Header, REQUEST_BYTES, nonce, read_client, read_response, write_request};
use super::salted::Ahead;
use super::servers::Servers;
use super::stock::StockId;
use super::{Chance, Datagram, Form, PacketError, SessionId, flat, salted};
use crate::address::AddressBlock;
use crate::shadowsocks::UnixTime;
use crate::shadowsocks::block::BlockKey;
use crate::shadowsocks::cipher::TAG_BYTES;
use crate::shadowsocks::cipher::packet::{EXTENDED_NONCE_BYTES, ExtendedCipher, SessionCipher};
use crate::shadowsocks::identity::{Credentials, IDENTITY_BYTES, IdentityHash};
use crate::shadowsocks::key::Key;

/// What all associations with one server share: the keys, and what is expanded of them once.
pub struct PacketHop {
    credentials: Credentials,
    kind: HopKind,
    stock: StockId,
}

enum HopKind {
    Flat { auth: bool },
    Salted,
    Separate(Chain),
    Extended(ExtendedCipher),
}

/// The keys for single blocks.
struct Chain {
    /// Of the identity keys, the first server's first, each with what it says of the next key (SIP023).
    identities: Box<[(BlockKey, IdentityHash)]>,
    /// Of the client's own key.
    own: BlockKey,
}

/// A client's end of one association with one server.
pub struct ClientSession {
    hop: Arc<PacketHop>,
    /// Unless every packet is by itself.
    session: Option<Box<Session>>,
}

/// A packet from a server with its header in the clear, which names the server's session (SIP022). Nothing of it is proved by that.
pub struct Uncovered<'p> {
    header: Header,
    body: Body<'p>,
}

enum Body<'p> {
    Sealed(&'p mut [u8]),
    Opened(&'p [u8]),
}

/// A session of SIP022.
struct Session {
    id: SessionId,
    next: u64,
    uplink: Option<SessionCipher>,
    servers: Servers,
}

impl PacketHop {
    /// The server that `credentials` are for. With `auth`, packets have one-time authentication if their method has no tags
    /// of its own.
    pub fn new(credentials: &Credentials, auth: bool) -> Self {
        let kind = match Form::of(credentials.method()) {
            Form::Flat => HopKind::Flat { auth },
            Form::Salted => HopKind::Salted,
            Form::Separate => HopKind::Separate(Chain::new(credentials)),
            Form::Extended => HopKind::Extended(ExtendedCipher::new(credentials.key())),
        };
        Self { credentials: credentials.clone(), kind, stock: StockId::reserve(1) }
    }

    /// Bytes of a packet to the server beside its payload, for an address block of `address_len` bytes.
    pub fn overhead(&self, address_len: usize) -> usize {
        let method = self.key().method();
        address_len
            + match &self.kind {
                HopKind::Flat { auth } => flat::overhead(method, *auth),
                HopKind::Salted => salted::overhead(method),
                HopKind::Separate(chain) => {
                    HEADER_BYTES + chain.identities.len() * IDENTITY_BYTES + REQUEST_BYTES + TAG_BYTES
                }
                HopKind::Extended(_) => EXTENDED_NONCE_BYTES + HEADER_BYTES + REQUEST_BYTES + TAG_BYTES,
            }
    }

    /// To be kept while `packets` from the server, [`AHEAD_MAX`](super::AHEAD_MAX) at most, are opened one after the other, whichever of its
    /// associations they are for, and no other: they may cost less so.
    #[expect(single_use_lifetimes, reason = "one without a name is not stable here")]
    pub fn ahead<'p>(&self, packets: impl Iterator<Item = &'p [u8]>) -> Option<Ahead> {
        match &self.kind {
            HopKind::Salted => Ahead::derive(self.key(), packets),
            HopKind::Flat { .. } | HopKind::Separate(_) | HopKind::Extended(_) => None,
        }
    }

    /// Uncovers the header of a packet from the server, where it lies. Methods before SIP022 have none.
    pub fn uncover<'p>(&self, packet: &'p mut [u8]) -> Result<Uncovered<'p>, PacketError> {
        match &self.kind {
            HopKind::Separate(chain) => {
                let (header, sealed) =
                    packet.split_first_chunk_mut::<HEADER_BYTES>().ok_or(PacketError::Truncated)?;
                chain.own.decrypt(header);
                Ok(Uncovered { header: Header::read(*header), body: Body::Sealed(sealed) })
            }
            HopKind::Extended(cipher) => {
                let (header, body) = open_extended(cipher, packet)?;
                Ok(Uncovered { header, body: Body::Opened(body) })
            }
            HopKind::Flat { .. } | HopKind::Salted => Err(PacketError::OtherSession),
        }
    }

    /// Which client's session the packet is for. Opens a copy of it in `scratch`, with a key that is made for it alone: to be asked
    /// only while it is not known whose the server's session is.
    pub fn client_of(&self, packet: &Uncovered<'_>, scratch: &mut Vec<u8>) -> Result<SessionId, PacketError> {
        match &packet.body {
            Body::Opened(body) => read_client(body),
            Body::Sealed(sealed) => {
                scratch.clear();
                scratch.extend_from_slice(sealed);
                let cipher = SessionCipher::new(self.key(), &packet.header.session.0);
                read_client(cipher.open(nonce(&packet.header.bytes()), scratch)?)
            }
        }
    }

    fn key(&self) -> &Key {
        self.credentials.key()
    }
}

impl Uncovered<'_> {
    /// What the server calls its session.
    pub fn server(&self) -> SessionId {
        self.header.session
    }
}

impl Chain {
    fn new(credentials: &Credentials) -> Self {
        let own = credentials.key();
        let next = credentials.identities().iter().skip(1).chain([own]);
        let named = credentials.identities().iter().zip(next);
        let identities =
            named.map(|(identity, next)| (BlockKey::of(identity), IdentityHash::of(next))).collect();
        Self { identities, own: BlockKey::of(own) }
    }

    /// Appends the header of a packet, in the clear, and the identity headers.
    fn begin(&self, header: &[u8; HEADER_BYTES], out: &mut Vec<u8>) {
        out.extend_from_slice(header);
        for (identity, says) in &self.identities {
            out.extend_from_slice(&says.to_packet(identity, header));
        }
    }

    /// The key that hides the header from everybody but the first server on the way.
    fn first(&self) -> &BlockKey {
        self.identities.first().map_or(&self.own, |(identity, _)| identity)
    }
}

impl ClientSession {
    /// An association with the server of `hop`. `id` is drawn at random; it matters under SIP022 alone.
    pub fn new(hop: Arc<PacketHop>, id: SessionId) -> Self {
        let session = match &hop.kind {
            HopKind::Flat { .. } | HopKind::Salted => None,
            HopKind::Separate(_) | HopKind::Extended(_) => {
                Some(Box::new(Session { id, next: 0, uplink: None, servers: Servers::new() }))
            }
        };
        Self { hop, session }
    }

    /// How many bytes of chance the next packet is sealed with, 32 at most, if this thread seals no other one before. None where its
    /// session numbers it, or its salt has been drawn already.
    pub fn chance_bytes(&self) -> usize {
        match &self.hop.kind {
            HopKind::Salted if self.hop.stock.has_ready() => 0,
            HopKind::Flat { .. } | HopKind::Salted | HopKind::Separate(_) | HopKind::Extended(_) => {
                self.chance_bytes_max()
            }
        }
    }

    /// The same whatever is sealed before.
    pub fn chance_bytes_max(&self) -> usize {
        match &self.hop.kind {
            HopKind::Flat { .. } | HopKind::Salted => self.hop.key().method().salt_len(),
            HopKind::Separate(_) => 0,
            HopKind::Extended(_) => EXTENDED_NONCE_BYTES,
        }
    }

    /// Appends one packet to `out`.
    pub fn seal(
        &mut self,
        target: AddressBlock<'_>,
        payload: &[u8],
        now: UnixTime,
        mut chance: impl Chance,
        out: &mut Vec<u8>,
    ) {
        out.reserve(self.overhead(target.as_bytes().len()) + payload.len());
        let key = self.hop.key();
        match (&self.hop.kind, &mut self.session) {
            (HopKind::Flat { auth }, _) => {
                flat::seal(key, *auth, target, payload, |room| chance.fill(room), out);
            }
            (HopKind::Separate(chain), Some(session)) => {
                let header = session.next_header();
                let id = session.id;
                let cipher = session.uplink.get_or_insert_with(|| SessionCipher::new(key, &id.0));
                let start = out.len();
                chain.begin(&header, out);
                let body = out.len();
                write_request(target, payload, now, out);
                let tag = cipher.seal(nonce(&header), &mut out[body..]);
                out.extend_from_slice(&tag);
                if let Some(header) = out[start..].first_chunk_mut() {
                    chain.first().encrypt(header);
                }
            }
            (HopKind::Extended(cipher), Some(session)) => {
                let header = session.next_header();
                let mut nonce = [0; EXTENDED_NONCE_BYTES];
                chance.fill(&mut nonce);
                out.extend_from_slice(&nonce);
                let text = out.len();
                out.extend_from_slice(&header);
                write_request(target, payload, now, out);
                let tag = cipher.seal(&nonce, &mut out[text..]);
                out.extend_from_slice(&tag);
            }
            (HopKind::Salted, _) | (HopKind::Separate(_) | HopKind::Extended(_), None) => {
                salted::seal(key, self.hop.stock, target, payload, chance, out);
            }
        }
    }

    /// What it shares with other associations.
    pub fn hop(&self) -> &Arc<PacketHop> {
        &self.hop
    }

    /// Opens a packet from the server where it lies. Nothing changes unless it is authentic, and under SIP022 fresh, for
    /// this session, and of an id that has not been here.
    pub fn open<'p>(&mut self, packet: &'p mut [u8], now: UnixTime) -> Result<Datagram<'p>, PacketError> {
        match &self.hop.kind {
            HopKind::Flat { .. } => flat::open(self.hop.key(), packet),
            HopKind::Salted => salted::open(self.hop.key(), packet),
            HopKind::Separate(_) | HopKind::Extended(_) => {
                let uncovered = self.hop.uncover(packet)?;
                self.open_uncovered(uncovered, now)
            }
        }
    }

    /// Opens a packet whose header the server's [`PacketHop`] has uncovered, as [`open`](Self::open) does.
    pub fn open_uncovered<'p>(
        &mut self,
        packet: Uncovered<'p>,
        now: UnixTime,
    ) -> Result<Datagram<'p>, PacketError> {
        let session = self.session.as_mut().ok_or(PacketError::OtherSession)?;
        let Uncovered { header, body } = packet;
        let mut entry = session.servers.look(header.session, header.packet, now)?;
        let body = match body {
            Body::Sealed(sealed) => {
                let cipher = entry.cipher(|| SessionCipher::new(self.hop.key(), &header.session.0));
                cipher.open(nonce(&header.bytes()), sealed)?
            }
            Body::Opened(body) => body,
        };
        let datagram = read_response(body, session.id, now)?;
        entry.enter(now)?;
        Ok(datagram)
    }

    /// What the client calls its session, where packets say whose they are (SIP022).
    pub fn id(&self) -> Option<SessionId> {
        self.session.as_ref().map(|session| session.id)
    }

    /// Bytes of a packet to the server beside its payload, for an address block of `address_len` bytes.
    pub fn overhead(&self, address_len: usize) -> usize {
        self.hop.overhead(address_len)
    }

    /// Forgets expanded keys, which the next packet expands anew: an association in which nothing moves stays small.
    pub fn cool(&mut self) {
        if let Some(session) = &mut self.session {
            session.uplink = None;
            session.servers.cool();
        }
    }
}

impl Session {
    fn next_header(&mut self) -> [u8; HEADER_BYTES] {
        let packet = self.next;
        self.next += 1;
        Header { session: self.id, packet }.bytes()
    }
}

/// Opens a packet whose separate header is sealed with its body.
pub(super) fn open_extended<'p>(
    cipher: &ExtendedCipher,
    packet: &'p mut [u8],
) -> Result<(Header, &'p [u8]), PacketError> {
    let (nonce, sealed) =
        packet.split_first_chunk_mut::<EXTENDED_NONCE_BYTES>().ok_or(PacketError::Truncated)?;
    if sealed.len() < HEADER_BYTES + TAG_BYTES {
        return Err(PacketError::Truncated);
    }
    let text = cipher.open(nonce, sealed)?;
    let (header, body) = text.split_first_chunk::<HEADER_BYTES>().ok_or(PacketError::Truncated)?;
    Ok((Header::read(*header), body))
}

impl fmt::Debug for PacketHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketHop<{}>(..)", self.key().method())
    }
}

impl fmt::Debug for Uncovered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uncovered({:?}, ..)", self.header)
    }
}

impl fmt::Debug for ClientSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientSession<{}>(..)", self.hop.key().method())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With what it holds beside itself, once it has been cooled.
    #[test]
    fn an_idle_association_with_a_server_is_smaller_than_a_kibibyte() {
        assert!(size_of::<ClientSession>() + size_of::<Session>() <= 800);
    }
}
