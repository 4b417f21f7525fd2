//! Members of groups that fail, return and are on trial, as associations find them.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use umbra_proto::address::Address;
use umbra_relay::config::{self, Candidate, Group, Hop, Parent, Path};
use umbra_relay::group::{Health, Policy, Settings};
use umbra_relay::limits::HOP_RETRY_DELAY;
use umbra_relay::router::{Conditions, Router, Rule};
use umbra_sim::datagrams::DatagramPeer;
use umbra_sim::link::Link;
use umbra_sim::log::{Line, events_of};
use umbra_sim::peer::Peer;
use umbra_sim::seed::one_seed;
use umbra_sim::street::door;

use crate::life::WHILE;
use crate::route::{Client, Plan, Route, other_port, target_at};

/// How long a member rests that is down.
const REST: Duration = Duration::from_secs(5);

/// Through the parents at the doors 8 and 9, in order; one failure marks a member down.
fn group(name: &str) -> Arc<Group> {
    group_of(name, &parents())
}

fn parents() -> [Arc<Path>; 2] {
    [8, 9].map(|number| {
        let hop = Hop::Parent(Parent::socks5(door(number).into(), None));
        Arc::new(Path::new(format!("parent {number}"), [hop]))
    })
}

fn group_of(name: &str, members: &[Arc<Path>]) -> Arc<Group> {
    let health = Health { fail_threshold: NonZeroU32::MIN, retry_time: REST, ..Health::default() };
    let settings = Settings { policy: Policy::Ordered, health, ..Settings::default() };
    let member = |path: &Arc<Path>| Candidate { path: Arc::clone(path), weight: NonZeroU16::MIN };
    Arc::new(Group::new(name, settings, members.iter().map(member).collect()))
}

/// Opens a parent that answers each datagram itself, after `delay` and as if its target did, or never. Aborted, it has gone with all of its
/// associations.
pub(crate) fn open(route: &Route, number: usize, delay: Option<Duration>) -> AbortHandle {
    let mut listener = route.net.listen(door(number), Link::plain());
    let accepting = tokio::spawn(async move {
        let mut associations = JoinSet::new();
        while let Some((socket, _)) = listener.accept().await {
            associations.spawn(agree(Peer::new(socket), number));
        }
    });
    let speaker = Arc::new(DatagramPeer::new(&route.air, door(number)));
    drop(tokio::spawn(async move {
        loop {
            let (from, bytes) = speaker.receive().await;
            let Some(delay) = delay else { continue };
            let speaker = Arc::clone(&speaker);
            drop(tokio::spawn(async move {
                sleep(delay).await;
                speaker.send(from, &bytes);
            }));
        }
    }));
    accepting.abort_handle()
}

/// Agrees to an association, which lives as long as its control connection.
async fn agree(peer: Peer, number: usize) {
    let IpAddr::V4(ip) = door(number).ip() else { return };
    let _gone = peer.hear(3).await;
    let _gone = peer.say(&[5, 0]).await;
    let _gone = peer.hear(10).await;
    let bound = [&ip.octets()[..], &door(number).port().to_be_bytes()].concat();
    let _gone = peer.say(&[&[5, 0, 0, 1][..], &bound].concat()).await;
    peer.hear_out().await;
}

/// Whether what the client sends is answered in a short while.
async fn is_served(client: &Client) -> bool {
    is_served_at(client, target_at(1)).await
}

async fn is_served_at(client: &Client, target: SocketAddr) -> bool {
    client.send(&Address::Ip(target), b"hello");
    client.receive_within(WHILE).await.is_some()
}

/// Lines that have these words in them.
fn told<'l>(lines: &'l [Line], words: &str) -> Vec<&'l str> {
    lines.iter().map(|line| &*line.text).filter(|text| text.contains(words)).collect()
}

#[test]
fn a_trial_that_ends_with_its_association_is_counted_and_told_if_an_answer_was_due() {
    for (patience, failed) in [(Duration::from_millis(500), 0), (Duration::from_secs(4), 1)] {
        let lines = events_of(|| {
            one_seed(1, |net, mut chance| async move {
                let group = group("g");
                let routes = config::Route::Group(Arc::clone(&group)).into();
                let route = Route::lay(&net, &mut chance, Plan { routes: Some(routes), ..Plan::new(None) });
                open(&route, 9, Some(Duration::ZERO));
                assert!(is_served(&route.associate(1000).await).await, "by the other");
                let counts = || group.paths_of_datagrams()[0].counts();
                assert_eq!(counts().datagrams_failed, 1, "nobody is there");
                open(&route, 8, None);
                sleep(REST + WHILE).await;
                let trial = route.associate(1001).await;
                assert!(!is_served(&trial).await, "it tries the one that says nothing");
                sleep(patience).await;
                drop(trial);
                sleep(WHILE).await;
                assert_eq!(counts().datagrams_failed, 1 + failed);
            });
        });
        let down = told(&lines, "path tried again and still down");
        assert_eq!(down.len(), usize::try_from(failed).unwrap(), "{down:?}");
        let why = "why=relay failed, outbound side: no answer came";
        assert!(down.iter().all(|line| line.contains(why)), "{down:?}");
    }
}

#[test]
fn a_member_that_answers_late_is_waited_for_on_trial_and_one_that_is_silent_is_left() {
    for (delay, reached) in [(Some(Duration::from_millis(2200)), 1), (None, 0)] {
        let lines = events_of(|| {
            one_seed(1, |net, mut chance| async move {
                let group = group("g");
                let routes = config::Route::Group(Arc::clone(&group)).into();
                let route = Route::lay(&net, &mut chance, Plan { routes: Some(routes), ..Plan::new(None) });
                open(&route, 9, Some(Duration::ZERO));
                assert!(is_served(&route.associate(1000).await).await, "by the other");
                open(&route, 8, delay);
                sleep(REST + WHILE).await;
                let trial = route.associate(1001).await;
                // One that never rests, whatever comes back.
                for _ in 0..36 {
                    trial.send(&Address::Ip(target_at(1)), b"hello");
                    sleep(Duration::from_millis(100)).await;
                }
                assert!(!trial.received().is_empty(), "it is served, by whomever");
                let counts = group.paths_of_datagrams()[0].counts();
                assert_eq!((counts.datagrams_reached, counts.datagrams_failed), (reached, 2 - reached));
            });
        });
        let told =
            ["path restored", "path tried again and still down"].map(|words| told(&lines, words).len());
        assert_eq!(told, if reached == 1 { [1, 0] } else { [0, 1] }, "{delay:?}");
    }
}

/// A way that leads to one group where the target's port is that of `target`, and to the other everywhere else.
fn split(target: SocketAddr, [one, other]: &[Arc<Group>; 2]) -> config::Routes {
    let ports = Some(vec![target.port()..=target.port()]);
    let conditions = Conditions { ports, ..Conditions::default() };
    let verdict = config::Route::Group(Arc::clone(one));
    let rules = vec![Rule { name: "by port".into(), conditions, verdict }];
    config::Routes::new(Router { rules, otherwise: config::Route::Group(Arc::clone(other)) })
}

#[test]
fn a_path_that_has_failed_one_group_serves_no_other_of_the_same_association_before_it_is_tried_again() {
    let [one, other] = [target_at(1), other_port(target_at(1))];
    one_seed(1, |net, mut chance| async move {
        let paths = parents();
        let groups = ["g", "h"].map(|name| group_of(name, &paths));
        let plan = Plan { routes: Some(split(one, &groups)), ..Plan::new(None) };
        let route = Route::lay(&net, &mut chance, plan);
        open(&route, 9, Some(Duration::ZERO));
        let client = route.associate(1000).await;
        assert!(is_served_at(&client, one).await, "what has waited goes by the next member");
        assert!(is_served_at(&client, other).await, "which is there for the other group as well");
        assert_eq!(net.dials_to(door(8)), 1);
    });
}

#[test]
fn a_group_that_has_nobody_else_hides_from_no_other_that_their_path_has_failed() {
    let [one, other] = [target_at(1), other_port(target_at(1))];
    one_seed(1, |net, mut chance| async move {
        let paths = parents();
        let groups = [group_of("alone", &paths[..1]), group_of("both", &paths)];
        let plan = Plan { routes: Some(split(one, &groups)), ..Plan::new(None) };
        let route = Route::lay(&net, &mut chance, plan);
        let first = open(&route, 8, Some(Duration::ZERO));
        open(&route, 9, Some(Duration::ZERO));
        let client = route.associate(1000).await;
        for target in [one, other] {
            assert!(is_served_at(&client, target).await);
        }
        first.abort();
        sleep(WHILE).await;
        // Its only member is asked again, and then waited for.
        for _ in 0..3 {
            assert!(!is_served_at(&client, one).await);
        }
        assert!(is_served_at(&client, other).await);
        open(&route, 8, Some(Duration::ZERO));
        sleep(HOP_RETRY_DELAY).await;
        assert!(is_served_at(&client, one).await, "and tried once more");
    });
}
