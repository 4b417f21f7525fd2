//! Which of a server's sessions a client listens to (SIP022, 3.2.4).
//!
//! A server that restarts answers under a new session id, with packet ids from 0, so a client has to take up new sessions.
//! Two are listened to, the one before being given the time to fall silent. What a third one displaces is remembered by
//! name until the timestamps of its packets can no longer be good: otherwise a recorded packet of it would be the start of a
//! session with an empty window, and displace a live one. SIP022 would let a client refuse a third session for that minute
//! instead; this way a server that restarts twice is heard at once.

use super::{PacketError, SessionId};
use crate::limits::{SERVER_SESSION_MEMORY_SECS, SERVER_SESSIONS_FORGOTTEN_MAX};
use crate::shadowsocks::UnixTime;
use crate::shadowsocks::cipher::packet::SessionCipher;
use crate::shadowsocks::window::Window;

/// The sessions of one server within one association of a client.
#[derive(Default)]
pub(super) struct Servers {
    /// The one taken up last comes first.
    live: [Option<Server>; 2],
    forgotten: [Option<(SessionId, UnixTime)>; SERVER_SESSIONS_FORGOTTEN_MAX],
}

struct Server {
    id: SessionId,
    heard: UnixTime,
    window: Window,
    cipher: Option<SessionCipher>,
}

/// A session that may be listened to, if the packet turns out to be authentic.
pub(super) struct Entry<'s> {
    servers: &'s mut Servers,
    place: Place,
    packet: u64,
}

enum Place {
    /// It is listened to already.
    Known(usize),
    /// It is not known.
    New { id: SessionId, cipher: Option<SessionCipher> },
}

impl Servers {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Whether packet `packet` of session `id` may come. Nothing changes.
    pub(super) fn look(
        &mut self,
        id: SessionId,
        packet: u64,
        now: UnixTime,
    ) -> Result<Entry<'_>, PacketError> {
        let known = self.live.iter().position(|server| server.as_ref().is_some_and(|server| server.id == id));
        let place = match known {
            Some(at) => {
                if let Some(server) = &self.live[at] {
                    server.window.check(packet)?;
                }
                Place::Known(at)
            }
            None if self.remembers(id, now) => return Err(PacketError::OtherSession),
            None => Place::New { id, cipher: None },
        };
        Ok(Entry { servers: self, place, packet })
    }

    /// Forgets expanded keys.
    pub(super) fn cool(&mut self) {
        for server in self.live.iter_mut().flatten() {
            server.cipher = None;
        }
    }

    fn remembers(&self, id: SessionId, now: UnixTime) -> bool {
        self.forgotten.iter().flatten().any(|(forgotten, heard)| *forgotten == id && is_recent(*heard, now))
    }

    /// Takes up a session, in the place of the one that has been silent for longest.
    fn take_up(&mut self, server: Server, now: UnixTime) -> Result<(), PacketError> {
        let silent = match &self.live {
            [Some(newer), Some(older)] if newer.heard < older.heard => 0,
            [Some(_), Some(_) | None] | [None, _] => 1,
        };
        if let Some(Server { id, heard, .. }) = self.live[silent]
            && is_recent(heard, now)
        {
            let is_free = |place: &&mut Option<(SessionId, UnixTime)>| {
                place.is_none_or(|(_, heard)| !is_recent(heard, now))
            };
            let free = self.forgotten.iter_mut().find(is_free).ok_or(PacketError::TooManyServers)?;
            *free = Some((id, heard));
        }
        let other = self.live[1 - silent].take();
        self.live = [Some(server), other];
        Ok(())
    }
}

impl Entry<'_> {
    /// The cipher of the session, which `make` makes unless it is there.
    pub(super) fn cipher(&mut self, make: impl FnOnce() -> SessionCipher) -> &SessionCipher {
        let cipher = match &mut self.place {
            Place::Known(at) => self.servers.live[*at].as_mut().map(|server| &mut server.cipher),
            Place::New { cipher, .. } => Some(cipher),
        };
        cipher.expect("a known session has a place").get_or_insert_with(make)
    }

    /// Enters the packet, which has proved good.
    pub(super) fn enter(self, now: UnixTime) -> Result<(), PacketError> {
        match self.place {
            Place::Known(at) => {
                if let Some(server) = &mut self.servers.live[at] {
                    server.window.insert(self.packet)?;
                    server.heard = server.heard.max(now);
                }
                Ok(())
            }
            Place::New { id, cipher } => {
                let mut window = Window::new();
                window.insert(self.packet)?;
                self.servers.take_up(Server { id, heard: now, window, cipher }, now)
            }
        }
    }
}

fn is_recent(heard: UnixTime, now: UnixTime) -> bool {
    // A clock set back must not end a memory early, so only progress counts.
    now.0.saturating_sub(heard.0) <= SERVER_SESSION_MEMORY_SECS
}
