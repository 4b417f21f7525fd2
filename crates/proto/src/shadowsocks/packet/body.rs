//! What SIP022 seals in a packet, and the header before it (SIP022, 3.2.2 and 3.2.3).
//!
//! ```text
//!  separate header:   session id 8 | packet id 8
//!
//!  to the server:     type 0 | timestamp 8 | padding length 2 | padding | address | payload
//!  to the client:     type 1 | timestamp 8 | client session id 8 | padding length 2 | padding | address | payload
//! ```

use super::{Datagram, PacketError, SESSION_ID_BYTES, SessionId, split};
use crate::address::AddressBlock;
use crate::limits::CLOCK_SKEW_SECS_MAX;
use crate::shadowsocks::UnixTime;
use crate::shadowsocks::cipher::packet::NONCE_BYTES;

/// Bytes of a separate header.
pub(super) const HEADER_BYTES: usize = SESSION_ID_BYTES + 8;

/// Bytes before the address of a packet to the server, without padding.
pub(super) const REQUEST_BYTES: usize = 1 + 8 + 2;

/// Bytes before the address of a packet to the client, without padding.
pub(super) const RESPONSE_BYTES: usize = REQUEST_BYTES + SESSION_ID_BYTES;

/// A separate header: whose packet, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) session: SessionId,
    pub(super) packet: u64,
}

impl Header {
    pub(super) fn read(bytes: [u8; HEADER_BYTES]) -> Self {
        let (mut session, mut packet) = ([0; SESSION_ID_BYTES], [0; 8]);
        session.copy_from_slice(&bytes[..SESSION_ID_BYTES]);
        packet.copy_from_slice(&bytes[SESSION_ID_BYTES..]);
        Self { session: SessionId(session), packet: u64::from_be_bytes(packet) }
    }

    pub(super) fn bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..SESSION_ID_BYTES].copy_from_slice(&self.session.0);
        bytes[SESSION_ID_BYTES..].copy_from_slice(&self.packet.to_be_bytes());
        bytes
    }
}

/// The nonce of the packet with this separate header: all of it but the first four bytes.
pub(super) fn nonce(header: &[u8; HEADER_BYTES]) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&header[HEADER_BYTES - NONCE_BYTES..]);
    nonce
}

/// Appends the body of a packet to the server.
pub(super) fn write_request(target: AddressBlock<'_>, payload: &[u8], now: UnixTime, out: &mut Vec<u8>) {
    out.push(TYPE_REQUEST);
    out.extend_from_slice(&now.0.to_be_bytes());
    write_rest(target, payload, out);
}

/// Appends the body of a packet to the client.
pub(super) fn write_response(
    client: SessionId,
    source: AddressBlock<'_>,
    payload: &[u8],
    now: UnixTime,
    out: &mut Vec<u8>,
) {
    out.push(TYPE_RESPONSE);
    out.extend_from_slice(&now.0.to_be_bytes());
    out.extend_from_slice(&client.0);
    write_rest(source, payload, out);
}

/// Without padding: nothing asks for it, and what fits a path should go through it.
fn write_rest(address: AddressBlock<'_>, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(address.as_bytes());
    out.extend_from_slice(payload);
}

/// Reads the body of a packet to the server.
pub(super) fn read_request(body: &[u8], now: UnixTime) -> Result<Datagram<'_>, PacketError> {
    read_rest(read_start(body, TYPE_REQUEST, now)?)
}

/// Reads the body of a packet to the client whose session is `client`.
pub(super) fn read_response(
    body: &[u8],
    client: SessionId,
    now: UnixTime,
) -> Result<Datagram<'_>, PacketError> {
    let rest = read_start(body, TYPE_RESPONSE, now)?;
    let (named, rest) = rest.split_first_chunk::<SESSION_ID_BYTES>().ok_or(PacketError::Truncated)?;
    if *named != client.0 {
        return Err(PacketError::OtherSession);
    }
    read_rest(rest)
}

/// Which session of a client the body of a packet to it is for.
pub(super) fn read_client(body: &[u8]) -> Result<SessionId, PacketError> {
    let named = body.get(RESPONSE_BYTES - 2 - SESSION_ID_BYTES..).and_then(|rest| rest.first_chunk());
    match (body.first(), named) {
        (Some(&TYPE_RESPONSE), Some(named)) => Ok(SessionId(*named)),
        (Some(&TYPE_RESPONSE) | None, _) => Err(PacketError::Truncated),
        (Some(_), _) => Err(PacketError::WrongType),
    }
}

fn read_start(body: &[u8], wanted: u8, now: UnixTime) -> Result<&[u8], PacketError> {
    let (kind, rest) = body.split_first().ok_or(PacketError::Truncated)?;
    if *kind != wanted {
        return Err(PacketError::WrongType);
    }
    let (stamp, rest) = rest.split_first_chunk().ok_or(PacketError::Truncated)?;
    // SIP022, 3.2.3: as with streams, a timestamp more than 30 seconds off MUST be treated as a replay.
    if u64::from_be_bytes(*stamp).abs_diff(now.0) > CLOCK_SKEW_SECS_MAX {
        return Err(PacketError::BadTime);
    }
    Ok(rest)
}

fn read_rest(rest: &[u8]) -> Result<Datagram<'_>, PacketError> {
    let (padding_len, rest) = rest.split_first_chunk().ok_or(PacketError::Truncated)?;
    let padding_len = usize::from(u16::from_be_bytes(*padding_len));
    split(rest.get(padding_len..).ok_or(PacketError::Truncated)?)
}

const TYPE_REQUEST: u8 = 0;
const TYPE_RESPONSE: u8 = 1;
