//! One datagram of our own along a path, and the first answer to it: what shows that datagrams pass there.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use umbra_proto::address::{Address, OwnedBlock};

use super::association::{Association, AssociationId, Client, Face};
use super::core::{Core, Key};
use super::directory::Home;
use super::dropped::Why;
use super::lanes::Lanes;
use super::letter::Letter;
use super::way::Way;
use crate::config::Path;
use crate::door::Door;
use crate::limits::PROBES_MAX;
use crate::net::Net;
use crate::net::datagram::Datagrams;

/// What is asked.
#[derive(Debug)]
pub(super) struct Question {
    /// The door by whose settings it goes, as the engine counts.
    post: usize,
    path: Arc<Path>,
    target: OwnedBlock,
    payload: Box<[u8]>,
    answer: Answer,
}

/// Whoever waits for the answer. Gone if nobody does.
pub(super) type Answer = oneshot::Sender<Vec<u8>>;

impl<N: Net> Door<N> {
    /// Sends `payload` to `target` along `path`, whatever the ways of this door, and gives the first answer, if there is one within
    /// `patience`. There is none where no engine takes the door's datagrams, or if `path` carries none.
    pub async fn ask_along(
        &self,
        path: Arc<Path>,
        target: &Address,
        payload: &[u8],
        patience: Duration,
    ) -> Option<Vec<u8>> {
        let Home { letters, post } = self.engine.get()?;
        let (answer, answered) = oneshot::channel();
        let question = Question { post: *post, path, target: target.into(), payload: payload.into(), answer };
        letters.send(Letter::Probe(Box::new(question)));
        timeout(patience, answered).await.ok()?.ok()
    }
}

impl<N: Net, D: Datagrams> Core<N, D> {
    /// Begins an association for one question.
    pub(super) fn probe(&mut self, question: Question) -> Result<(), Why> {
        let Question { post, path, target, payload, answer } = question;
        // Nobody has to make room for it.
        if self.probes.len() >= PROBES_MAX || self.outside.budget.is_spent() {
            return Err(Why::NoRoom);
        }
        let now = self.now();
        let way = Way::along(&path, &self.posts[post].door.net)?;
        self.probed = self.probed.wrapping_add(1);
        let (key, face) = (Key::Probe(self.probed), Face::Probe(Some(answer)));
        let client = Client { address: NOBODY, local: None };
        let lanes = Lanes::one(self.outside.numbers.next(), path, way);
        let association = Association::new(key, client, face, lanes);
        let handle = self.insert(post, key, association, now);
        let id = AssociationId { post, handle };
        self.probes.push(id);
        self.send_up(id, Some(target.block().as_bytes()), &payload, now).inspect_err(|_| self.end(id))
    }

    /// Ends the associations of questions whose answer nobody waits for any more.
    pub(super) fn sweep_probes(&mut self) {
        for id in std::mem::take(&mut self.probes) {
            let table = &mut self.posts[id.post].table;
            match table.get_mut(id.handle).map(|association| &association.face) {
                Some(Face::Probe(Some(answer))) if !answer.is_closed() => self.probes.push(id),
                Some(_) => self.end(id),
                None => {}
            }
        }
    }
}

/// Questions come from no client.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
