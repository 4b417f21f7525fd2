//! The test bench: machines fed in pieces as the relay would feed them, and wire bytes that no machine of ours would write.

use std::sync::Arc;

use super::cipher::Cipher;
use super::head::{ExpectHead, ExpectTarget, Head, HeadError};
use super::key::Key;
use super::keyring::{Holder, Keyring, TrialOrder};
use super::one_time_auth::OneTimeAuth;
use super::replay::SaltStore;
use super::stream::{HeadReads, OpenError, Opened, Opener, Sealer, TAG_BYTES};
use super::vectors::NOW;
use super::{Salt, UnixTime};
use crate::address::Address;
use crate::wire::Input;
use crate::{Handshake, Step};

/// A server with its surroundings.
pub(super) struct Server {
    pub keyring: Arc<Keyring>,
    pub order: TrialOrder,
    pub head: HeadReads,
    pub one_time_auth: OneTimeAuth,
    pub store: SaltStore,
    pub now: UnixTime,
    /// Whose the last stream was.
    pub holder: Option<Holder>,
}

/// What a server made of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    pub target: Option<Address>,
    /// Where another server understands the stream; what is left over is then what is to be sent there.
    pub forward: Option<Address>,
    pub early: Vec<u8>,
    pub payload: Vec<u8>,
    pub leftover: Vec<u8>,
    pub error: Option<HeadError>,
}

/// What a client made of a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    pub payload: Vec<u8>,
    pub leftover: Vec<u8>,
    pub error: Option<OpenError>,
}

enum State<'k> {
    Head(ExpectHead<'k>),
    Target(ExpectTarget),
    Records(Opener),
    Forward,
}

impl Server {
    /// A server with one key that takes any segmentation, at the time of the vectors.
    pub(super) fn new(key: &Key) -> Self {
        Self::with(Keyring::from(key.clone()))
    }

    /// The same with any keyring.
    pub(super) fn with(keyring: Keyring) -> Self {
        let (order, store) = (TrialOrder::new(&keyring), SaltStore::new(keyring.method()));
        let one_time_auth = OneTimeAuth::Honoured;
        Self {
            keyring: Arc::new(keyring),
            order,
            head: HeadReads::Many,
            one_time_auth,
            store,
            now: NOW,
            holder: None,
        }
    }

    /// Feeds a whole session, each piece as one read.
    pub(super) fn serve(&mut self, pieces: &[&[u8]]) -> Served {
        let mut served = Served::default();
        let keyring = Arc::clone(&self.keyring);
        let expect = ExpectHead::new(&keyring, self.order.clone(), self.head);
        let mut state = State::Head(expect.with_one_time_auth(self.one_time_auth));
        for piece in pieces {
            let mut buffer = std::mem::take(&mut served.leftover);
            buffer.extend_from_slice(piece);
            let mut input = Input::new(&mut buffer);
            match self.read(state, &mut input, &mut served) {
                Ok(next) => state = next,
                Err(error) => {
                    served.error = Some(error);
                    return served;
                }
            }
            served.leftover = input.rest().to_vec();
        }
        served
    }

    fn read<'k>(
        &mut self,
        mut state: State<'k>,
        input: &mut Input<'_>,
        served: &mut Served,
    ) -> Result<State<'k>, HeadError> {
        loop {
            match state {
                State::Head(expect) => match expect.advance(input, &mut Vec::new())? {
                    Step::Wait(expect) => return Ok(State::Head(expect)),
                    Step::Done(Head::Forward(forward)) => {
                        served.forward = Some(forward.to);
                        self.holder = Some(forward.holder);
                        state = State::Forward;
                    }
                    Step::Done(Head::Authentic(authentic)) => {
                        let holder = authentic.holder();
                        state = State::Target(authentic.admit(&mut self.store, self.now)?);
                        self.order.promote(holder);
                    }
                },
                State::Target(expect) => match expect.advance(input, &mut Vec::new())? {
                    Step::Wait(expect) => return Ok(State::Target(expect)),
                    Step::Done(request) => {
                        served.target = Some(request.target);
                        self.holder = Some(request.holder);
                        served.early = input.opened(request.early).to_vec();
                        state = State::Records(request.opener);
                    }
                },
                State::Records(mut opener) => {
                    open_all(&mut opener, input, self.now, &mut served.payload)?;
                    return Ok(State::Records(opener));
                }
                State::Forward => return Ok(State::Forward),
            }
        }
    }
}

/// Serves a session in one read, with a fresh store.
pub(super) fn serve(key: &Key, wire: &[u8]) -> Served {
    Server::new(key).serve(&[wire])
}

/// Feeds a whole response, each piece as one read.
pub(super) fn receive(opener: &mut Opener, now: UnixTime, pieces: &[&[u8]]) -> Received {
    let mut received = Received::default();
    for piece in pieces {
        let mut buffer = std::mem::take(&mut received.leftover);
        buffer.extend_from_slice(piece);
        let mut input = Input::new(&mut buffer);
        if let Err(error) = open_all(opener, &mut input, now, &mut received.payload) {
            received.error = Some(error);
            return received;
        }
        received.leftover = input.rest().to_vec();
    }
    received
}

fn open_all(
    opener: &mut Opener,
    input: &mut Input<'_>,
    now: UnixTime,
    payload: &mut Vec<u8>,
) -> Result<(), OpenError> {
    loop {
        match opener.open(input, now)? {
            Opened::Payload(place) => payload.extend_from_slice(input.opened(place)),
            Opened::Incomplete(needed) => {
                assert!(needed > input.rest().len(), "what is all there is opened");
                return Ok(());
            }
        }
    }
}

/// One record of `payload`, as the relay seals it.
pub(super) fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    let mut record = vec![0; sealer.head_len()];
    record.extend_from_slice(payload);
    record.resize(record.len() + sealer.tail_len(), 0);
    sealer.seal(&mut record, NOW);
    record
}

/// A stream of exactly these texts, each sealed, after the salt.
pub(super) fn forged(key: &Key, salt: Salt, texts: &[&[u8]]) -> Vec<u8> {
    let mut cipher = Cipher::new(key, &salt);
    let mut wire = salt.as_bytes().to_vec();
    for text in texts {
        let (mut text, mut tag) = (text.to_vec(), [0; TAG_BYTES]);
        cipher.seal(&mut text, &mut tag);
        wire.extend_from_slice(&text);
        wire.extend_from_slice(&tag);
    }
    wire
}

/// Every way of cutting that a session is run with: whole, in two at every byte, byte by byte.
pub(super) fn cuts(session: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let in_two = (0..=session.len()).map(|at| {
        let (head, tail) = session.split_at(at);
        vec![head, tail]
    });
    in_two.chain([session.chunks(1).collect()])
}
