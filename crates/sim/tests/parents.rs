//! Parents that die and return, names that change, and layers that break: who is served all the same, what is asked of whom, and what is
//! told of it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use umbra_proto::address::Address;
use umbra_proto::forbidden::Forbidden;
use umbra_proto::request::Refusal;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::socks4::client::UserId;
use umbra_relay::config::{
    Candidate, Deadlines, Group, Hop, Inbound, Mode, Names, Parent, ParentProtocol, Path, Protocol,
    ProxyDoor, ProxyHeader, Route, Routes, Server, Tcp,
};
use umbra_relay::group::{Condition, Health, NoneLeft, Policy, Rounds, Settings};
use umbra_relay::limits::REACH_SECS_MAX;
use umbra_relay::router::{Conditions, Router, Rule, TargetsBuilder};
use umbra_sim::house::House;
use umbra_sim::link::{Fault, FaultKind, Link};
use umbra_sim::log::events_of;
use umbra_sim::net::{Absence, Name};
use umbra_sim::peer::{Ending, Entrance, Peer};
use umbra_sim::seed::{each_seed, note, one_seed};
use umbra_sim::street::{self, Plan, Street, TARGET, behind_tls, door};
use umbra_sim::{Chance, SimNet, tls};

fn inbound(number: usize, routes: impl Into<Routes>) -> Inbound {
    Inbound {
        name: "door".into(),
        listen: door(number),
        protocol: Protocol::Proxy(ProxyDoor::MIXED),
        routes: routes.into(),
        mode: Mode::Streams,
        forbidden: Arc::default(),
        idle: Duration::from_secs(3600),
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    }
}

/// The SOCKS5 proxy at a door, within TLS or not.
fn parent_at(number: usize, is_within_tls: bool) -> Parent {
    let tls = is_within_tls.then(tls::trusting);
    Parent { tls, ..Parent::socks5(door(number).into(), None) }
}

fn member(name: &str, parent: Parent) -> Candidate {
    let mut path = Path::new(name, [Hop::Parent(parent)]);
    path.deadlines = Deadlines { connect: STEP, negotiate: STEP };
    path.into()
}

async fn enter(net: &SimNet) -> Peer {
    Peer::new(net.dial(door(0)).await.unwrap())
}

/// How a parent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    Absent(Absence),
    /// Takes connections, and says nothing.
    Mute,
    /// Says no to everything.
    Denying,
    /// Says of every target that it cannot be reached.
    CutOff,
    /// Ends, or resets, in the middle of its answer.
    Breaking,
    /// Hears what it is asked for, and says nothing of it.
    Hung,
}

/// Parents whose health changes.
struct Parents {
    net: SimNet,
    house: House,
    health: Vec<State>,
    /// Whether each is spoken with within TLS.
    within_tls: Vec<bool>,
    /// Who serves in the place of those that are not well, and in front of those that are within TLS.
    stand_ins: Vec<Option<JoinHandle<()>>>,
}

impl Parents {
    /// So many, at doors of their own, to each of whom is said how it [is](Self::turn) before it is there.
    fn new(net: &SimNet, house: &House, count: usize) -> Self {
        Self {
            net: net.clone(),
            house: house.clone(),
            health: vec![State::Well; count],
            within_tls: vec![false; count],
            stand_ins: (0..count).map(|_| None).collect(),
        }
    }

    fn turn(&mut self, number: usize, health: State) {
        if let Some(stand_in) = self.stand_ins[number].take() {
            stand_in.abort();
        }
        self.health[number] = health;
        let at = door(number + 1);
        match health {
            State::Well if self.within_tls[number] => {
                let behind = behind_tls(number + 1);
                let inbound = Inbound { listen: behind, ..inbound(number + 1, Route::direct()) };
                self.house.open(inbound, Link::plain());
                self.stand_ins[number] = Some(tls::terminate(&self.net, at, Link::plain(), behind));
            }
            State::Well => self.house.open(inbound(number + 1, Route::direct()), Link::plain()),
            State::Absent(absence) => self.net.absent(at, absence),
            State::Mute | State::Denying | State::CutOff | State::Breaking | State::Hung => {
                let mut listener = self.net.listen(at, Link::plain());
                self.stand_ins[number] = Some(tokio::spawn(async move {
                    while let Some((socket, _)) = listener.accept().await {
                        drop(tokio::spawn(misbehave(Peer::new(socket), health)));
                    }
                }));
            }
        }
    }
}

async fn misbehave(peer: Peer, health: State) {
    if health == State::Mute {
        peer.hear_out().await;
        return;
    }
    let _gone = peer.hear(3).await;
    let _gone = peer.say(&[5, 0]).await;
    let _gone = peer.hear(10).await;
    if health == State::Hung {
        peer.hear_out().await;
    } else if let Some(code) = code_of(health) {
        let _gone = peer.say(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    } else {
        let _gone = peer.say(&[5, 0, 0, 1]).await;
    }
}

/// What a parent says of every target, where it says anything.
fn code_of(health: State) -> Option<u8> {
    match health {
        State::Denying => Some(1),
        State::CutOff => Some(3),
        State::Well | State::Absent(_) | State::Mute | State::Breaking | State::Hung => None,
    }
}

/// Somebody who takes all that is said, and says nothing.
fn hole(net: &SimNet, at: SocketAddr) -> JoinHandle<()> {
    let mut listener = net.listen(at, Link::plain());
    tokio::spawn(async move {
        while let Some((socket, _)) = listener.accept().await {
            drop(tokio::spawn(async move { Peer::new(socket).hear_out().await }));
        }
    })
}

/// An echo at the target.
fn echo(net: &SimNet) -> JoinHandle<()> {
    let mut listener = net.listen(TARGET, Link::plain());
    tokio::spawn(async move {
        while let Some((socket, _)) = listener.accept().await {
            drop(tokio::spawn(async move {
                let peer = Peer::new(socket);
                while let Ok(some) = peer.hear_some(1000).await {
                    if some.is_empty() || peer.say(&some).await.is_err() {
                        break;
                    }
                }
                let _gone = peer.end();
            }));
        }
    })
}

fn settings(chance: &mut Chance, count: usize) -> Settings {
    let policies = [
        Policy::Ordered,
        Policy::RoundRobin,
        Policy::AddressModulo,
        Policy::Latched,
        Policy::TargetHash,
        Policy::SourceHash,
        Policy::LeastLatency,
        Policy::Weighted,
        Policy::Random,
    ];
    let per_member = u32::try_from(chance.within(1..=2)).unwrap();
    let count = u32::try_from(count).unwrap();
    let number = |number| NonZeroU32::new(number).unwrap();
    Settings {
        policy: *chance.choose(&policies),
        attempts_per_member: number(per_member),
        attempts_max: number(per_member * count),
        patience: REACH_SECS_MAX,
        rounds: *chance.choose(&[Rounds::One, Rounds::UntilAttemptsEnd]),
        none_left: NoneLeft::TryAll,
        sticky: *chance.choose(&[None, Some(Duration::from_secs(60))]),
        health: Health {
            fail_threshold: number(u32::try_from(chance.within(1..=3)).unwrap()),
            retry_time: Duration::from_secs(chance.within(1..=60)),
            ..Health::default()
        },
    }
}

#[test]
fn whoever_can_be_served_by_a_parent_that_is_well_is_served_in_time_and_within_the_attempts() {
    each_seed(150, |net, mut chance| async move {
        let count = chance.length(1..=4);
        let settings = settings(&mut chance, count);
        let house = House::new(&net);
        let mut parents = Parents {
            within_tls: (0..count).map(|_| chance.one_in(3)).collect(),
            ..Parents::new(&net, &house, count)
        };
        (0..count).for_each(|number| parents.turn(number, State::Well));
        let members = parents.within_tls.iter().enumerate().map(|(number, is_within_tls)| {
            member(&number.to_string(), parent_at(number + 1, *is_within_tls))
        });
        let group = Arc::new(Group::new("parents", settings, members.collect()));
        house.open(inbound(0, Route::Group(Arc::clone(&group))), Link::plain());
        let _echo = echo(&net);
        for _ in 0..30 {
            for number in 0..count {
                if chance.one_in(4) {
                    let healths = [
                        State::Well,
                        State::Well,
                        State::Absent(Absence::Refuses),
                        State::Absent(Absence::Unreachable),
                        State::Absent(Absence::Silent),
                        State::Mute,
                        State::Denying,
                        State::CutOff,
                        State::Breaking,
                        State::Hung,
                    ];
                    parents.turn(number, *chance.choose(&healths));
                }
            }
            note(format!("{settings:?} {:?} {:?}", parents.health, parents.within_tls));
            Box::pin(session(&net, &parents, &settings, &mut chance)).await;
            sleep(Duration::from_secs(chance.within(0..=40))).await;
        }
        house.empties(Duration::from_secs(5)).await;
    });
}

#[test]
fn no_target_that_nobody_reaches_keeps_a_session_from_a_parent_that_is_well() {
    each_seed(150, |net, mut chance| async move {
        let count = chance.length(2..=4);
        let settings = Settings {
            none_left: *chance.choose(&[NoneLeft::Fail, NoneLeft::TryAll]),
            // So that each can be asked.
            ..settings(&mut chance, count + 1)
        };
        let house = House::new(&net);
        let mut members = Vec::new();
        for number in 0..count {
            house.open(inbound(number + 1, Route::direct()), Link::plain());
            members.push(member(&number.to_string(), parent_at(number + 1, false)));
        }
        // A Shadowsocks server takes whatever it is told, and nobody knows what becomes of it.
        let _hole = hole(&net, door(count + 1));
        let has_server = chance.one_in(2);
        if has_server {
            let server = Server {
                address: door(count + 1).into(),
                mode: Mode::Streams,
                credentials: Credentials::from_password(Method::Aes256Gcm, "long enough").unwrap(),
                heads: HeadReads::One,
                one_time_auth: false,
            };
            members.push(Path::new("server", [Hop::Shadowsocks(server)]).into());
        }
        let group = Arc::new(Group::new("parents", settings, members));
        house.open(inbound(0, Route::Group(Arc::clone(&group))), Link::plain());
        for _ in 0..20 {
            let absence = *chance.choose(&[Absence::Refuses, Absence::Unreachable, Absence::Silent]);
            net.absent(TARGET, absence);
            note(format!("{settings:?}"));
            let down = || {
                let health = group.health();
                health.iter().filter(|member| matches!(member.condition, Condition::Down { .. })).count()
            };
            let before = down();
            let clients = (0..chance.length(1..=3)).map(|_| {
                let net = net.clone();
                tokio::spawn(async move {
                    let client = enter(&net).await;
                    timeout(Duration::from_secs(61), client.ask_socks5(&Street::target(), b"")).await
                })
            });
            for client in clients.collect::<Vec<_>>() {
                client.await.unwrap().expect("every session is answered by its deadline").unwrap();
            }
            // In front of a server nobody knows what became of the target.
            let may_be_suspected = has_server && absence == Absence::Silent;
            assert!(may_be_suspected || down() <= before, "a target that nobody reaches moves nobody");
            let echo = echo(&net);
            let client = enter(&net).await;
            let code = timeout(Duration::from_secs(61), client.ask_socks5(&Street::target(), b"")).await;
            assert_eq!(code.unwrap().unwrap(), 0, "after {absence:?}");
            drop(client);
            echo.abort();
            sleep(Duration::from_secs(chance.within(0..=40))).await;
        }
        house.empties(Duration::from_secs(5)).await;
    });
}

#[test]
fn whoever_is_well_is_found_in_the_end_however_few_the_attempts_of_a_session_are() {
    each_seed(150, |net, mut chance| async move {
        let count = chance.length(2..=5);
        let settings = settings(&mut chance, count);
        let health = Health { retry_time: Duration::from_secs(36_000), ..settings.health };
        let settings = Settings {
            attempts_max: NonZeroU32::new(u32::try_from(chance.within(1..=3)).unwrap()).unwrap(),
            none_left: *chance.choose(&[NoneLeft::Fail, NoneLeft::TryAll]),
            // None of these has a turn that never comes.
            policy: *chance.choose(&[
                Policy::Ordered,
                Policy::RoundRobin,
                Policy::Latched,
                Policy::TargetHash,
            ]),
            health: Health { fail_window: Duration::from_secs(36_000), ..health },
            ..settings
        };
        let house = House::new(&net);
        let mut parents = Parents::new(&net, &house, count);
        let well = chance.length(0..=count - 1);
        for number in 0..count {
            let sick = [
                State::Hung,
                State::Hung,
                State::Mute,
                State::Denying,
                State::CutOff,
                State::CutOff,
                State::Breaking,
            ];
            parents.turn(number, if number == well { State::Well } else { *chance.choose(&sick) });
        }
        let members = (0..count).map(|number| member(&number.to_string(), parent_at(number + 1, false)));
        let patience = Duration::from_millis(chance.within(1500..=9000));
        let group = Group::new("parents", Settings { patience, ..settings }, members.collect());
        house.open(inbound(0, Route::Group(Arc::new(group))), Link::plain());
        note(format!("{settings:?} {patience:?} {:?}", parents.health));
        // Each session holds something against one of them at least; where all are suspected, each is asked once for want of others, and once
        // more when one of them has served.
        let most = count * (usize::try_from(settings.health.fail_threshold.get()).unwrap() + 2);
        for absence in [Absence::Refuses, Absence::Silent, Absence::Refuses] {
            let echo = echo(&net);
            let mut codes = Vec::new();
            for _ in 0..most + 5 {
                codes.push(asked(&net).await);
            }
            assert_eq!(codes[most..], [0; 5], "{codes:?}");
            echo.abort();
            // A target that nobody reaches hides nobody for longer.
            net.absent(TARGET, absence);
            for _ in 0..most {
                asked(&net).await;
            }
        }
        house.empties(Duration::from_secs(15)).await;
    });
}

#[test]
fn targets_that_nobody_reaches_do_not_move_a_parent_that_is_well_behind_sick_ones() {
    each_seed(150, |net, mut chance| async move {
        let count = chance.length(3..=6);
        let settings = settings(&mut chance, count);
        let settings = Settings {
            policy: *chance.choose(&[Policy::Ordered, Policy::TargetHash]),
            attempts_per_member: NonZeroU32::MIN,
            // Not enough for all.
            attempts_max: NonZeroU32::new(u32::try_from(chance.length(2..=count - 1)).unwrap()).unwrap(),
            none_left: *chance.choose(&[NoneLeft::Fail, NoneLeft::TryAll]),
            sticky: None,
            ..settings
        };
        let house = House::new(&net);
        let mut parents = Parents::new(&net, &house, count);
        for number in 0..count {
            parents.turn(number, State::Well);
        }
        let members = (0..count).map(|number| member(&number.to_string(), parent_at(number + 1, false)));
        house.open(
            inbound(0, Route::Group(Arc::new(Group::new("parents", settings, members.collect())))),
            Link::plain(),
        );
        // Whoever is asked first for the target is well, and all others are not.
        let served = echo(&net);
        assert_eq!(asked(&net).await, 0);
        let first = (0..count).find(|number| net.dials_to(door(number + 1)) > 0).unwrap();
        let sick = [State::Hung, State::Mute, State::Denying, State::CutOff, State::Breaking];
        for number in (0..count).filter(|number| *number != first) {
            parents.turn(number, *chance.choose(&sick));
        }
        note(format!("{settings:?} {:?}", parents.health));
        served.abort();
        for _ in 0..10 {
            net.absent(TARGET, *chance.choose(&[Absence::Refuses, Absence::Unreachable]));
            for _ in 0..chance.length(1..=5) {
                asked(&net).await;
            }
            let served = echo(&net);
            assert_eq!(asked(&net).await, 0, "the target is there again");
            served.abort();
        }
        house.empties(Duration::from_secs(15)).await;
    });
}

#[test]
fn no_pattern_of_dead_targets_keeps_sessions_from_the_one_that_is_well() {
    each_seed(60, |net, mut chance| async move {
        let house = House::new(&net);
        let mut parents = Parents::new(&net, &house, 4);
        let well = chance.length(1..=3);
        for number in 0..4 {
            let sick = [State::CutOff, State::Hung, State::Denying, State::Mute];
            let health = if number == well { State::Well } else { *chance.choose(&sick) };
            parents.turn(number, if number == 0 { State::CutOff } else { health });
        }
        // Two attempts of four, and the first is spent each time.
        let settings = Settings { attempts_max: NonZeroU32::new(2).unwrap(), ..Settings::default() };
        let members = (0..4).map(|number| member(&number.to_string(), parent_at(number + 1, false)));
        let group = Group::new("parents", settings, members.collect());
        house.open(inbound(0, Route::Group(Arc::new(group))), Link::plain());
        let dead = chance.within(1..=4);
        note(format!("{dead} {:?}", parents.health));
        let mut served = 0;
        for _ in 0..40 {
            net.absent(TARGET, Absence::Refuses);
            for _ in 0..dead {
                asked(&net).await;
            }
            let target = echo(&net);
            served += usize::from(asked(&net).await == 0);
            target.abort();
        }
        assert!(served >= 25, "{served} of 40");
        house.empties(Duration::from_secs(60)).await;
    });
}

#[test]
fn one_that_has_no_time_left_to_answer_is_hidden_by_nobody_who_took_it() {
    // The first says that it cannot reach the target, or nothing; the other says yes.
    for (answer, after, patience) in [(Some(4), 900, 1000), (None, 0, 1200)] {
        one_seed(1, |net, _| async move {
            let house = House::new(&net);
            serve(&net, 1, move |parent| async move {
                sleep(Duration::from_millis(after)).await;
                if let Some(code) = answer {
                    let _gone = parent.say(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await;
                }
                parent.hear_out().await;
            });
            serve(&net, 2, |parent| async move {
                sleep(Duration::from_millis(300)).await;
                let _gone = parent.say(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await;
                parent.hear_out().await;
            });
            let members = [1, 2].map(|number| member(&number.to_string(), parent_at(number, false)));
            let settings = Settings { patience: Duration::from_millis(patience), ..Settings::default() };
            let group = Arc::new(Group::new("parents", settings, members.into()));
            house.open(inbound(0, Route::Group(group)), Link::plain());
            let mut codes = Vec::new();
            for _ in 0..4 {
                codes.push(asked(&net).await);
            }
            assert_eq!(codes[2..], [0; 2], "{codes:?}");
        });
    }
}

/// A SOCKS5 proxy at a door, which hears what it is asked for and then goes on as it likes.
fn serve<F: Future<Output = ()> + Send + 'static>(
    net: &SimNet,
    number: usize,
    go_on: impl Fn(Peer) -> F + Send + Sync + 'static,
) {
    let mut listener = net.listen(door(number), Link::plain());
    let go_on = Arc::new(go_on);
    drop(tokio::spawn(async move {
        while let Some((socket, _)) = listener.accept().await {
            let go_on = Arc::clone(&go_on);
            drop(tokio::spawn(async move {
                let peer = Peer::new(socket);
                let _gone = peer.hear(3).await;
                let _gone = peer.say(&[5, 0]).await;
                let _gone = peer.hear(10).await;
                go_on(peer).await;
            }));
        }
    }));
}

/// What a client is told of the target.
async fn asked(net: &SimNet) -> u8 {
    let client = enter(net).await;
    timeout(Duration::from_secs(61), client.ask_socks5(&Street::target(), b"")).await.unwrap().unwrap()
}

/// One session, judged.
async fn session(net: &SimNet, parents: &Parents, settings: &Settings, chance: &mut Chance) {
    let dials = |net: &SimNet| -> Vec<usize> {
        (0..parents.health.len()).map(|number| net.dials_to(door(number + 1))).collect()
    };
    let (before, began) = (dials(net), Instant::now());
    let client = enter(net).await;
    let code = timeout(Duration::from_secs(61), client.ask_socks5(&Street::target(), b"")).await;
    let code = code.expect("every session is answered by its deadline").unwrap();
    let is_servable = parents.health.contains(&State::Well);
    assert_eq!(code == 0, is_servable, "after {:?}", began.elapsed());
    let made: Vec<_> = dials(net).iter().zip(&before).map(|(after, before)| after - before).collect();
    let max = settings.attempts_max.get() as usize;
    assert!(made.iter().sum::<usize>() <= max, "{made:?}");
    if code == 0 {
        let words = chance.bytes(3000);
        client.say(&words).await.unwrap();
        client.end().unwrap();
        let heard = client.hear_out().await;
        assert!(heard.bytes == words && heard.ending == Ending::End, "{heard:?}");
    } else {
        assert!(client.hear_out().await.bytes.is_empty());
    }
}

/// What is told of sessions that failed on a way with hops.
fn failures_told(scenario: impl AsyncFn(SimNet)) -> Vec<String> {
    let lines = events_of(|| one_seed(1, |net, _| scenario(net)));
    lines
        .into_iter()
        .map(|line| line.text)
        .filter(|line| line.contains("session failed") && line.contains("path=\"way\""))
        .collect()
}

#[test]
fn a_layer_that_breaks_is_told_of_once_with_its_hop_and_its_reason() {
    let method = Method::Aes256Gcm;
    let (sealed, within_tls, open) =
        (street::Hop::Shadowsocks(method), street::Hop::Https, street::Hop::Socks5);
    let (inside, behind, nested) = (vec![sealed, open], vec![open, sealed], vec![sealed, sealed, open]);
    let secret = vec![within_tls, open];
    for (hops, broken, at_byte, kind, expected) in [
        // While the second hop is asked.
        (&inside, 1, 40, FaultKind::ForgedEnd, ["stage=negotiate", "hop=1", "the peer ended too early"]),
        (&inside, 1, 0, FaultKind::Reset, ["stage=negotiate", "hop=1", "reset"]),
        // While bytes are carried.
        (&inside, 1, 200, FaultKind::ForgedEnd, ["stage=relay", "hop=1", "the peer ended too early"]),
        (&inside, 1, 200, FaultKind::Reset, ["stage=relay", "hop=1", "reset"]),
        (&behind, 1, 200, FaultKind::Reset, ["stage=relay", "hop=2", "reset"]),
        (&nested, 1, 400, FaultKind::ForgedEnd, ["stage=relay", "hop=1", "the peer ended too early"]),
        // TLS: while it is agreed on, and while bytes are carried.
        (&secret, 1, 100, FaultKind::ForgedEnd, ["stage=negotiate", "hop=1", "eof"]),
        (&secret, 1, 100, FaultKind::Reset, ["stage=negotiate", "hop=1", "reset"]),
        (&secret, 1, 2000, FaultKind::ForgedEnd, ["stage=relay", "hop=1", "close_notify"]),
        (&secret, 1, 2000, FaultKind::Reset, ["stage=relay", "hop=1", "reset"]),
    ] {
        let lines = failures_told(async |net: SimNet| {
            let mut links = vec![Link::plain(); hops.len() + 2];
            links[broken].downlink.fault = Some(Fault { at_byte, kind });
            let plan =
                Plan { hops: hops.clone(), is_chain: true, links, heads: HeadReads::Many, ..Plan::direct() };
            let street = Street::lay(&net, &plan);
            let _echo = echo(&net);
            let client = street.enter().await;
            let code = client.ask_socks5(&Street::target(), &[7; 3000]).await.unwrap();
            assert_eq!(code == 0, expected[0] == "stage=relay", "{code}");
            if code == 0 {
                assert_eq!(client.hear_out().await.ending, Ending::Reset);
            }
            drop(client);
            street.house.empties(Duration::from_secs(3)).await;
            sleep(Duration::from_secs(1)).await;
            assert!(net.live_sockets() <= 1, "{} sockets stay behind", net.live_sockets());
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(expected.iter().all(|part| lines[0].contains(part)), "{expected:?} in {lines:?}");
    }
}

#[test]
fn a_request_whose_connection_breaks_is_told_of_once() {
    for is_end in [false, true] {
        let lines = events_of(|| {
            one_seed(1, |net, _| async move {
                let mut street = Street::lay(&net, &Plan::direct());
                let client = street.enter().await;
                client
                    .say(b"POST http://203.0.113.9:443/ HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
                    .await
                    .unwrap();
                let target = street.arrive().await;
                target.hear_head().await.unwrap();
                if is_end {
                    target.hear(1).await.unwrap();
                    drop(target);
                } else {
                    target.reset();
                }
                assert!(client.hear_head().await.unwrap().starts_with(b"HTTP/1.1 502 "));
            });
        });
        let failed: Vec<_> = lines.iter().filter(|line| line.text.contains("session failed")).collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(failed[0].text.contains(if is_end { "ended too early" } else { "reset" }), "{failed:?}");
        assert!(failed[0].text.contains("path=\"way\""), "{failed:?}");
    }
}

#[test]
fn a_target_that_breaks_off_is_told_of_with_the_path_that_led_there() {
    let lines = events_of(|| {
        one_seed(1, |net, _| async move {
            let mut street = Street::lay(&net, &Plan::direct());
            let client = street.enter().await;
            assert_eq!(client.ask_socks5(&Street::target(), b"").await.unwrap(), 0);
            let target = street.arrive().await;
            target.reset();
            client.hear_out().await;
        });
    });
    let failed: Vec<_> = lines.iter().filter(|line| line.text.contains("session failed")).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    for part in ["stage=relay", "side=outbound", "path=\"way\"", "reset"] {
        assert!(failed[0].text.contains(part), "{part}: {failed:?}");
    }
}

fn name(addresses: &[&str]) -> Name {
    Name { addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(), delay: Duration::ZERO }
}

fn rules(network: &str, verdict: Route, otherwise: Route) -> Routes {
    let mut targets = TargetsBuilder::default();
    targets.network_text(network).unwrap();
    let conditions = Conditions { target: Some(targets.build().unwrap()), ..Conditions::default() };
    Routes::new(Router { rules: vec![Rule { name: "rule".into(), conditions, verdict }], otherwise })
}

#[test]
fn a_name_that_changes_between_the_decision_and_the_dial_does_not_escape() {
    let target: Address = format!("shifty.example:{}", TARGET.port()).parse().unwrap();
    let innocent: SocketAddr = (TARGET.ip(), TARGET.port()).into();
    let forbidden: SocketAddr = ([10, 0, 0, 1], TARGET.port()).into();
    let parent = |names, protocol| {
        let parent = Parent { names, protocol, ..Parent::socks5(door(1).into(), None) };
        Route::parent(parent)
    };
    let socks4 = || ParentProtocol::Socks4(UserId::new(b"").unwrap());
    for (route, is_direct) in [
        (Route::direct(), true),
        (parent(Names::PassOn, ParentProtocol::Socks5(None)), false),
        (parent(Names::ResolveHere, ParentProtocol::Socks5(None)), false),
        (parent(Names::ResolveHere, ParentProtocol::Http(None)), false),
        (parent(Names::PassOn, socks4()), false),
    ] {
        let (route, target) = (&route, &target);
        one_seed(1, |net, _| async move {
            // What comes first in the second answer would lead inside.
            net.names("shifty.example", [name(&["2001:db8::1", "203.0.113.9"]), name(&["10.0.0.1"])]);
            let mut far = net.listen(innocent, Link::plain());
            let _inside = net.listen(forbidden, Link::plain());
            let house = House::new(&net);
            let routes = rules("10.0.0.0/8", Route::Refuse(Refusal::NotAllowed), route.clone());
            house.open(inbound(0, routes), Link::plain());
            house.open(inbound(1, Route::direct()), Link::plain());
            let client = enter(&net).await;
            let code = client.ask_socks5(target, b"").await.unwrap();
            let is_v4 = is_direct
                || matches!(route, Route::Path(path) if matches!(&path.hops[0],
                Hop::Parent(parent) if matches!(parent.protocol, ParentProtocol::Socks4(_))));
            if is_v4 {
                assert_eq!(code, 0);
                assert!(far.accept().await.is_some());
            }
            assert_eq!(net.dials_to(forbidden), 0);
            // And once it leads inside at the first look, nobody is dialled at all.
            let before = net.dials().len();
            let client = enter(&net).await;
            assert_eq!(client.ask_socks5(target, b"").await.unwrap(), 2);
            assert_eq!(net.dials().len(), before + 1, "but for the client itself");
        });
    }
}

#[test]
fn bind_waits_for_the_addresses_that_the_rules_have_seen() {
    one_seed(1, |net, _| async move {
        net.names("shifty.example", [name(&["198.51.100.77"]), name(&["10.0.0.1"])]);
        let house = House::new(&net);
        let routes = rules("10.0.0.0/8", Route::Refuse(Refusal::NotAllowed), Route::direct());
        house.open(inbound(0, routes), Link::plain());
        let client = enter(&net).await;
        client.say(b"\x05\x01\x00\x05\x02\x00\x03\x0eshifty.example\x00\x14").await.unwrap();
        let reply = client.hear(12).await.unwrap();
        assert_eq!(reply[..6], [5, 0, 5, 0, 0, 1]);
        let ip = <[u8; 4]>::try_from(&reply[6..10]).unwrap();
        let at: SocketAddr = (ip, u16::from_be_bytes([reply[10], reply[11]])).into();
        // Whoever dials in this network comes from the address that the name had first.
        let target = Peer::new(net.dial(at).await.unwrap());
        assert_eq!(client.hear(10).await.unwrap()[..2], [5, 0]);
        target.say(b"x").await.unwrap();
        assert_eq!(client.hear(1).await.unwrap(), b"x");
    });
}

#[test]
fn a_parent_is_not_asked_to_wait_for_a_name_whose_address_is_forbidden() {
    one_seed(1, |net, _| async move {
        net.name("inside.example", name(&["10.0.0.1"]));
        let house = House::new(&net);
        let parent = Parent { names: Names::ResolveHere, ..Parent::socks5(door(1).into(), None) };
        let forbidden = Arc::new(Forbidden::listed(vec!["10.0.0.0/8".parse().unwrap()]));
        house.open(Inbound { forbidden, ..inbound(0, Route::parent(parent)) }, Link::plain());
        let client = enter(&net).await;
        client.say(b"\x05\x01\x00\x05\x02\x00\x03\x0einside.example\x00\x14").await.unwrap();
        assert_eq!(client.hear(12).await.unwrap()[..4], [5, 0, 5, 2]);
        assert_eq!(net.dials_to(door(1)), 0);
    });
}

#[test]
fn a_target_without_an_address_is_no_parents_fault() {
    one_seed(1, |net, _| async move {
        net.name("nowhere.example", name(&[]));
        let house = House::new(&net);
        let parent = Parent { names: Names::ResolveHere, ..Parent::socks5(door(1).into(), None) };
        let settings = Settings {
            health: Health { fail_threshold: NonZeroU32::MIN, ..Health::default() },
            ..Settings::default()
        };
        let group = Arc::new(Group::new("parents", settings, vec![member("parent", parent)]));
        house.open(inbound(0, Route::Group(Arc::clone(&group))), Link::plain());
        house.open(inbound(1, Route::direct()), Link::plain());
        for _ in 0..3 {
            let client = enter(&net).await;
            assert_eq!(client.ask_socks5(&"nowhere.example:80".parse().unwrap(), b"").await.unwrap(), 4);
        }
        assert_eq!(net.dials_to(door(1)), 0);
        assert_eq!(group.health()[0].condition, Condition::Up);
        assert_eq!(group.health()[0].sessions_failed, 0);
        // A parent that cannot be found itself is another matter.
        let lost = Parent::socks5("nowhere.example:1080".parse().unwrap(), None);
        group.replace(vec![member("lost", lost)]);
        let client = enter(&net).await;
        assert_ne!(client.ask_socks5(&Street::target(), b"").await.unwrap(), 0);
        assert!(group.health()[0].sessions_failed > 0);
    });
}

#[test]
fn a_parent_is_looked_up_at_each_dial_and_tried_at_each_of_its_addresses() {
    one_seed(1, |net, _| async move {
        // Nobody answers at the first address, the second is a parent; and then there is another one.
        net.names("parent.example", [name(&["192.0.2.99", "192.0.2.1"]), name(&["192.0.2.2"])]);
        net.absent(door(99), Absence::Silent);
        let house = House::new(&net);
        let address = Address::from_host("parent.example", door(1).port()).unwrap();
        house.open(inbound(0, Route::parent(Parent::socks5(address, None))), Link::plain());
        (1..=2).for_each(|number| house.open(inbound(number, Route::direct()), Link::plain()));
        let _echo = echo(&net);
        for dialled in [[1, 1, 0], [1, 1, 1]] {
            let client = enter(&net).await;
            assert_eq!(client.ask_socks5(&Street::target(), b"").await.unwrap(), 0);
            assert_eq!([99, 1, 2].map(|number| net.dials_to(door(number))), dialled);
        }
    });
}

#[test]
fn parents_and_targets_may_have_ipv6_addresses() {
    for protocol in [ParentProtocol::Socks5(None), ParentProtocol::Http(None)] {
        let protocol = &protocol;
        one_seed(1, |net, _| async move {
            let (at, target): (SocketAddr, SocketAddr) =
                ("[2001:db8::1]:1080".parse().unwrap(), "[2001:db8::2]:443".parse().unwrap());
            let mut far = net.listen(target, Link::plain());
            let house = House::new(&net);
            let parent = Parent { protocol: protocol.clone(), ..Parent::socks5(at.into(), None) };
            house.open(inbound(0, Route::parent(parent)), Link::plain());
            house.open(Inbound { listen: at, ..inbound(1, Route::direct()) }, Link::plain());
            let client = enter(&net).await;
            assert_eq!(client.ask_socks5(&target.into(), b"words").await.unwrap(), 0);
            let far = Peer::new(far.accept().await.unwrap().0);
            assert_eq!(far.hear(5).await.unwrap(), b"words");
        });
    }
}

#[test]
fn a_client_that_goes_away_at_any_moment_leaves_nothing_behind() {
    each_seed(200, |net, mut chance| async move {
        let method = *chance.choose(&Method::COMMON);
        let kinds = [
            street::Hop::Socks5,
            street::Hop::Socks4,
            street::Hop::Http,
            street::Hop::Https,
            street::Hop::Shadowsocks(method),
        ];
        let hops: Vec<_> = (0..chance.length(1..=3)).map(|_| *chance.choose(&kinds)).collect();
        let links = (0..hops.len() + 2).map(|_| Link::random(&mut chance)).collect();
        let plan = Plan { hops, is_chain: true, links, heads: HeadReads::Many, ..Plan::direct() };
        note(format!("{plan:?}"));
        let street = Street::lay(&net, &plan);
        let echo = echo(&net);
        let client = street.enter().await;
        let visit = async {
            let _ended = client.ask_socks5(&Street::target(), b"some words").await;
            client.hear_out().await
        };
        let stay = Duration::from_millis(chance.within(0..=3000));
        let _gone = timeout(stay, visit).await;
        let within = if chance.one_in(2) {
            client.reset();
            Duration::from_secs(3)
        } else {
            drop(client);
            // Whoever has ended in order may wait still: the steps to the target are gone through, each within its time.
            Duration::from_secs(60)
        };
        street.house.empties(within).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(net.live_sockets(), 0, "sockets stay behind");
        echo.abort();
    });
}

/// A door behind which a group has one parent, and what that does with whoever comes.
fn behind_one_parent<F: Future<Output = ()> + Send + 'static>(
    net: &SimNet,
    serve: impl Fn(Peer) -> F + Send + 'static,
) -> (House, Arc<Group>) {
    let mut path = Path::new("parent", [Hop::Parent(Parent::socks5(door(1).into(), None))]);
    path.deadlines.negotiate = Duration::from_secs(30);
    let group = Arc::new(Group::new("parents", Settings::default(), vec![path.into()]));
    let house = House::new(net);
    house.open_for(1, inbound(0, Route::Group(Arc::clone(&group))), Link::plain());
    let mut listener = net.listen(door(1), Link::plain());
    drop(tokio::spawn(async move {
        while let Some((socket, _)) = listener.accept().await {
            drop(tokio::spawn(serve(Peer::new(socket))));
        }
    }));
    (house, group)
}

#[test]
fn a_client_that_resets_while_a_silent_parent_is_tried_frees_all_at_once_and_the_parent_has_not_failed() {
    one_seed(1, |net, _| async move {
        let (house, group) = behind_one_parent(&net, |parent| async move {
            parent.hear_out().await;
        });
        // CONNECT and BIND.
        for (visit, command) in [(1, 1), (2, 2)] {
            let client = enter(&net).await;
            let mut request = Entrance::Socks5.request(&Street::target());
            request[4] = command;
            client.say(&request).await.unwrap();
            client.say(b"early words").await.unwrap();
            assert_eq!(client.hear(2).await.unwrap(), [5, 0]);
            assert!(timeout(Duration::from_secs(2), client.hear(1)).await.is_err(), "the parent is silent");
            assert_eq!((house.sessions(), net.dials_to(door(1))), (1, visit), "there is one place");
            client.reset();
            house.empties(Duration::from_millis(10)).await;
            sleep(Duration::from_millis(10)).await;
            assert_eq!(net.live_sockets(), 0, "nothing is left of it");
        }
        let status = group.health()[0];
        assert_eq!((status.condition, status.sessions_failed), (Condition::Up, 0));
        let counts = group.paths()[0].counts();
        assert_eq!((counts.tried(), counts.abandoned), (2, 2));
    });
}

#[test]
fn a_client_that_has_said_all_and_ended_is_served_by_a_parent_that_takes_its_time() {
    one_seed(1, |net, _| async move {
        let (_house, group) = behind_one_parent(&net, |parent| async move {
            let _hello = parent.hear(3).await.unwrap();
            parent.say(&[5, 0]).await.unwrap();
            let _request = parent.hear(10).await.unwrap();
            sleep(Duration::from_secs(20)).await;
            parent.say(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            let heard = parent.hear_out().await;
            parent.say(&heard.bytes).await.unwrap();
        });
        let client = enter(&net).await;
        client.say(&Entrance::Socks5.request(&Street::target())).await.unwrap();
        client.say(b"all there is").await.unwrap();
        client.end().unwrap();
        assert_eq!(client.hear(2 + 10).await.unwrap()[3], 0);
        let heard = client.hear_out().await;
        assert!(heard.bytes == b"all there is" && heard.ending == Ending::End, "{heard:?}");
        assert_eq!(group.health()[0].sessions_reached, 1);
    });
}

#[test]
fn what_a_network_sees_of_tls_is_the_same_for_the_same_seed() {
    let run = |seed| {
        let seen = Mutex::new((Duration::ZERO, 0));
        one_seed(seed, |net, mut chance| {
            let seen = &seen;
            async move {
                let links = (0..4).map(|_| Link::random(&mut chance)).collect();
                let hops = vec![street::Hop::Https; 2];
                let plan = Plan { hops, is_chain: true, links, heads: HeadReads::Many, ..Plan::direct() };
                let street = Street::lay(&net, &plan);
                let _echo = echo(&net);
                let client = street.enter().await;
                if client.ask_socks5(&Street::target(), b"some words").await.unwrap() == 0 {
                    client.end().unwrap();
                    assert_eq!(client.hear_out().await.bytes, b"some words");
                }
                *seen.lock().unwrap() = (net.elapsed(), net.operations());
            }
        });
        seen.into_inner().unwrap()
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

/// How long each step along a path may take.
const STEP: Duration = Duration::from_secs(1);
