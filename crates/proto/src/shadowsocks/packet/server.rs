//! A server's end of one association.

use std::fmt;

use super::body::{HEADER_BYTES, Header, nonce, read_request, write_response};
use super::door::{Blocks, DoorKind};
use super::{Chance, Datagram, Look, PacketDoor, PacketError, SessionId, flat, salted};
use crate::address::AddressBlock;
use crate::shadowsocks::UnixTime;
use crate::shadowsocks::block::BlockKey;
use crate::shadowsocks::cipher::TAG_BYTES;
use crate::shadowsocks::cipher::packet::{EXTENDED_NONCE_BYTES, SessionCipher};
use crate::shadowsocks::identity::IDENTITY_BYTES;
use crate::shadowsocks::key::Key;
use crate::shadowsocks::keyring::Holder;
use crate::shadowsocks::window::Window;

/// A server's end of one association. The door that it is used with is the one that it began at.
pub struct ServerSession {
    holder: Holder,
    /// Unless every packet is by itself.
    session: Option<Box<Session>>,
}

/// A session of SIP022.
struct Session {
    client: SessionId,
    own: SessionId,
    next: u64,
    window: Window,
    uplink: Option<SessionCipher>,
    downlink: Option<SessionCipher>,
    /// What the headers of answers are hidden with, where that is not the port's key.
    answers: Option<BlockKey>,
}

impl ServerSession {
    /// The first packet of an association: finds out whose it is, opens and judges it. `own` is a fresh random session id,
    /// for answers. After a failure nothing is left behind, and the packet is of no more use.
    pub fn begin<'p>(
        door: &PacketDoor,
        look: Look<'_>,
        packet: &'p mut [u8],
        now: UnixTime,
        own: SessionId,
    ) -> Result<(Self, Datagram<'p>), PacketError> {
        Self::begin_after(door, look, packet, now, own, None)
    }

    /// The same where keys are tried, and nobody's but this `holder`'s is. If it does not open the packet, that is as it was.
    pub fn begin_as<'p>(
        door: &PacketDoor,
        holder: Holder,
        packet: &'p mut [u8],
    ) -> Result<(Self, Datagram<'p>), PacketError> {
        if !door.is_tried() {
            return Err(PacketError::OtherSession);
        }
        Ok((Self { holder, session: None }, door.open_salted(holder, packet)?))
    }

    /// The same for a client that may have had an association with the same session: packets up to the id `after` are refused.
    pub fn begin_after<'p>(
        door: &PacketDoor,
        look: Look<'_>,
        packet: &'p mut [u8],
        now: UnixTime,
        own: SessionId,
        after: Option<u64>,
    ) -> Result<(Self, Datagram<'p>), PacketError> {
        let (id, holder) = match look {
            Look::Session { id, holder } => (id, holder),
            Look::Forward { .. } => return Err(PacketError::Elsewhere),
            Look::Source => {
                let (holder, datagram) = match &door.kind {
                    DoorKind::Flat(demand) => {
                        (Holder::ONLY, flat::open_request(door.key(Holder::ONLY), *demand, packet)?)
                    }
                    DoorKind::Salted(_) | DoorKind::Separate(_) | DoorKind::Extended(_) => {
                        door.find(packet)?
                    }
                };
                return Ok((Self { holder, session: None }, datagram));
            }
        };
        let mut session = Session {
            client: id,
            own,
            next: 0,
            window: after.map_or_else(Window::new, Window::after),
            uplink: None,
            downlink: None,
            answers: None,
        };
        let datagram = session.open(door, door.key(holder), packet, now)?;
        Ok((Self { holder, session: Some(Box::new(session)) }, datagram))
    }

    /// Opens a further packet of the association. Nothing changes unless it is authentic, and under SIP022 fresh and of an
    /// id that has not been here.
    pub fn open<'p>(
        &mut self,
        door: &PacketDoor,
        look: Look<'_>,
        packet: &'p mut [u8],
        now: UnixTime,
    ) -> Result<Datagram<'p>, PacketError> {
        let key = door.key(self.holder);
        match (look, &mut self.session) {
            (Look::Session { id, holder }, Some(session))
                if id == session.client && holder == self.holder =>
            {
                session.open(door, key, packet, now)
            }
            (Look::Source, None) => match &door.kind {
                DoorKind::Flat(demand) => flat::open_request(key, *demand, packet),
                DoorKind::Salted(_) | DoorKind::Separate(_) | DoorKind::Extended(_) => {
                    door.open_salted(self.holder, packet)
                }
            },
            (Look::Session { .. } | Look::Source, _) => Err(PacketError::OtherSession),
            (Look::Forward { .. }, _) => Err(PacketError::Elsewhere),
        }
    }

    /// How many bytes of chance the next packet is sealed with, 32 at most, if this thread seals no other one before. None where its
    /// session numbers it, or its salt has been drawn already.
    pub fn chance_bytes(&self, door: &PacketDoor) -> usize {
        let method = door.key(self.holder).method();
        match &door.kind {
            DoorKind::Flat(_) => method.salt_len(),
            DoorKind::Salted(_) if door.stock(self.holder).has_ready() => 0,
            DoorKind::Salted(_) => method.salt_len(),
            DoorKind::Separate(_) => 0,
            DoorKind::Extended(_) => EXTENDED_NONCE_BYTES,
        }
    }

    /// Appends one packet to the client.
    pub fn seal(
        &mut self,
        door: &PacketDoor,
        source: AddressBlock<'_>,
        payload: &[u8],
        now: UnixTime,
        mut chance: impl Chance,
        out: &mut Vec<u8>,
    ) {
        out.reserve(door.overhead(source.as_bytes().len()) + payload.len());
        let key = door.key(self.holder);
        match (&door.kind, &mut self.session) {
            (DoorKind::Flat(_), _) => {
                flat::seal(key, false, source, payload, |room| chance.fill(room), out);
            }
            (DoorKind::Separate(blocks), Some(session)) => {
                session.seal_separate(key, blocks, source, payload, now, out);
            }
            (DoorKind::Extended(cipher), Some(session)) => {
                let header = session.next_header();
                let mut nonce = [0; EXTENDED_NONCE_BYTES];
                chance.fill(&mut nonce);
                out.extend_from_slice(&nonce);
                let text = out.len();
                out.extend_from_slice(&header);
                write_response(session.client, source, payload, now, out);
                let tag = cipher.seal(&nonce, &mut out[text..]);
                out.extend_from_slice(&tag);
            }
            (DoorKind::Salted(_), _) | (DoorKind::Separate(_) | DoorKind::Extended(_), None) => {
                salted::seal(key, door.stock(self.holder), source, payload, chance, out);
            }
        }
    }

    /// The newest packet's id, where packets have any (SIP022).
    pub fn newest(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.window.newest())
    }

    /// Whose key opened the first packet.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Forgets expanded keys, which the next packet expands anew: an association in which nothing moves stays small.
    pub fn cool(&mut self) {
        if let Some(session) = &mut self.session {
            session.uplink = None;
            session.downlink = None;
            session.answers = None;
        }
    }
}

impl Session {
    fn open<'p>(
        &mut self,
        door: &PacketDoor,
        key: &Key,
        packet: &'p mut [u8],
        now: UnixTime,
    ) -> Result<Datagram<'p>, PacketError> {
        match &door.kind {
            DoorKind::Separate(blocks) => {
                let (header, rest) =
                    packet.split_first_chunk_mut::<HEADER_BYTES>().ok_or(PacketError::Truncated)?;
                let named = if blocks.identified { IDENTITY_BYTES } else { 0 };
                let sealed = rest.get_mut(named..).ok_or(PacketError::Truncated)?;
                let id = Header::read(*header).packet;
                self.window.check(id)?;
                let cipher = self.uplink.get_or_insert_with(|| SessionCipher::new(key, &self.client.0));
                let body = cipher.open(nonce(header), sealed)?;
                let datagram = read_request(body, now)?;
                self.window.insert(id)?;
                Ok(datagram)
            }
            DoorKind::Extended(_) => {
                let text = packet.get(EXTENDED_NONCE_BYTES..).ok_or(PacketError::Truncated)?;
                let (text, _) = text.split_last_chunk::<TAG_BYTES>().ok_or(PacketError::Truncated)?;
                let (header, body) =
                    text.split_first_chunk::<HEADER_BYTES>().ok_or(PacketError::Truncated)?;
                let id = Header::read(*header).packet;
                self.window.check(id)?;
                let datagram = read_request(body, now)?;
                self.window.insert(id)?;
                Ok(datagram)
            }
            DoorKind::Flat(_) | DoorKind::Salted(_) => Err(PacketError::OtherSession),
        }
    }

    fn seal_separate(
        &mut self,
        key: &Key,
        blocks: &Blocks,
        source: AddressBlock<'_>,
        payload: &[u8],
        now: UnixTime,
        out: &mut Vec<u8>,
    ) {
        let header = self.next_header();
        let cipher = self.downlink.get_or_insert_with(|| SessionCipher::new(key, &self.own.0));
        let start = out.len();
        out.extend_from_slice(&header);
        write_response(self.client, source, payload, now, out);
        let tag = cipher.seal(nonce(&header), &mut out[start + HEADER_BYTES..]);
        out.extend_from_slice(&tag);
        let hide: &BlockKey = if blocks.identified {
            self.answers.get_or_insert_with(|| BlockKey::of(key))
        } else {
            &blocks.port
        };
        if let Some(header) = out[start..].first_chunk_mut() {
            hide.encrypt(header);
        }
    }

    fn next_header(&mut self) -> [u8; HEADER_BYTES] {
        let packet = self.next;
        self.next += 1;
        Header { session: self.own, packet }.bytes()
    }
}

impl fmt::Debug for ServerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSession(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With what it holds beside itself, once it has been cooled.
    #[test]
    fn an_idle_association_of_a_client_is_smaller_than_half_a_kibibyte() {
        assert!(size_of::<ServerSession>() + size_of::<Session>() <= 400);
    }
}
