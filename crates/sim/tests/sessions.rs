//! Whole sessions over networks from many seeds, held against a model: what arrives is a prefix of what was sent, it is all of
//! it if the direction ends in order, and whatever goes wrong, everybody is told and nothing stays behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::cell::RefCell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use umbra_proto::address::Address;
use umbra_proto::proxy_header::Version;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::shadowsocks::{Generation, Method};
use umbra_relay::limits::LARGE_AFTER_BYTES;
use umbra_sim::link::{Fault, FaultKind, Link};
use umbra_sim::net::Name;
use umbra_sim::peer::{Ending, Entrance, Heard, Peer, Speech};
use umbra_sim::seed::{each_seed, note};
use umbra_sim::street::{Hop, Plan, Street, TARGET};
use umbra_sim::{Chance, SimNet};

/// What both ends do.
#[derive(Debug)]
struct Script {
    entrance: Entrance,
    /// What the target hears before the client's words.
    header_len: usize,
    /// What the client says to get in, in pieces.
    request: Speech,
    uplink: Speech,
    downlink: Speech,
    order: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Nobody waits for anybody.
    Together,
    /// The client says everything before it has heard the answer to its request.
    ClientEarly,
    /// The client speaks when it has heard something.
    TargetFirst,
    /// The target speaks when it has heard everything.
    ClientFirst,
}

/// What both ends heard.
#[derive(Debug)]
struct Outcome {
    uplink: Heard,
    downlink: Heard,
}

#[test]
fn without_faults_everything_arrives_and_ends_pass_through() {
    each_seed(800, |net, mut chance| async move {
        let plan = plan(&mut chance);
        let script = script(&mut chance, &net, &plan);
        let mut street = Street::lay(&net, &plan);
        note(format!("{plan:#?} {script:?}"));
        let outcome = Box::pin(play(&mut street, &script)).await;
        let expected = |speech: &Speech| Heard { bytes: words(speech), ending: Ending::End };
        assert!(outcome.uplink == expected(&script.uplink), "uplink {:?}", outcome.uplink);
        assert!(outcome.downlink == expected(&script.downlink), "downlink {:?}", outcome.downlink);
        street.empties(Duration::from_secs(5)).await;
    });
}

#[test]
fn after_a_fault_nobody_takes_a_part_for_the_whole() {
    each_seed(1_600, |net, mut chance| async move {
        let mut plan = plan(&mut chance);
        let mut script = script(&mut chance, &net, &plan);
        spoil(&mut chance, &mut plan, &mut script);
        let mut street = Street::lay(&net, &plan);
        note(format!("{plan:#?} {script:?}"));
        let outcome = Box::pin(play(&mut street, &script)).await;
        judge("uplink", &outcome.uplink, &script.uplink);
        judge("downlink", &outcome.downlink, &script.downlink);
        street.empties(plan.idle_of_all() + Duration::from_secs(60)).await;
    });
}

#[test]
fn all_that_a_target_says_before_it_breaks_off_reaches_the_client() {
    each_seed(800, |net, mut chance| async move {
        let mut plan = plan(&mut chance);
        // A terminator is somebody else, and so is the network behind the last door: there a reset overtakes what it will.
        for hop in &mut plan.hops {
            if let Hop::Https = hop {
                *hop = Hop::Http;
            }
        }
        let last = plan.links.len() - 1;
        plan.links[last].downlink.delay_max = Duration::ZERO;
        let mut script = script(&mut chance, &net, &plan);
        script.downlink.ending = Ending::Reset;
        let mut street = Street::lay(&net, &plan);
        note(format!("{plan:#?} {script:?}"));
        let outcome = Box::pin(play(&mut street, &script)).await;
        judge("uplink", &outcome.uplink, &script.uplink);
        let expected = Heard { bytes: words(&script.downlink), ending: Ending::Reset };
        assert!(outcome.downlink == expected, "downlink {:?}", outcome.downlink);
        street.empties(plan.idle_of_all() + Duration::from_secs(60)).await;
    });
}

#[test]
fn bulk_that_comes_to_fill_the_largest_buffers_arrives_whole() {
    each_seed(24, |net, mut chance| async move {
        let mut plan = plan(&mut chance);
        for link in &mut plan.links {
            *link = link.clone().widened(&mut chance);
        }
        let mut script = script(&mut chance, &net, &plan);
        let bulk = usize::try_from(LARGE_AFTER_BYTES).unwrap() + chance.length(1..=3_000_000);
        let bytes = chance.bytes(bulk);
        script.uplink = cut(&mut chance, &bytes);
        script.downlink = cut(&mut chance, &bytes);
        let mut street = Street::lay(&net, &plan);
        note(format!("{plan:#?} {script:?}"));
        let outcome = Box::pin(play(&mut street, &script)).await;
        for heard in [outcome.uplink, outcome.downlink] {
            assert!(heard.ending == Ending::End && heard.bytes == bytes, "{heard:?}");
        }
        street.empties(Duration::from_secs(5)).await;
    });
}

fn judge(direction: &str, heard: &Heard, said: &Speech) {
    let words = words(said);
    assert!(words.starts_with(&heard.bytes), "{direction}: {heard:?} are not what was said");
    if heard.ending == Ending::End {
        assert_eq!(said.ending, Ending::End, "{direction}: an end that nobody sent");
        let (part, whole) = (heard.bytes.len(), words.len());
        assert_eq!(part, whole, "{direction}: a part ends in order as if it were the whole");
    }
}

fn words(speech: &Speech) -> Vec<u8> {
    speech.pieces.iter().flat_map(|(_, piece)| piece.clone()).collect()
}

/// A way straight to the target, or through up to three hops, each behind the other or one inside the other.
fn plan(chance: &mut Chance) -> Plan {
    let hops = *chance.choose(&[0, 1, 1, 1, 2, 2, 3]);
    let hops: Vec<_> = (0..hops)
        .map(|_| match chance.within(0..=8) {
            0 | 1 => Hop::Socks5,
            2 => Hop::Socks4,
            3 => Hop::Http,
            4 => Hop::Https,
            _ => Hop::Shadowsocks(*chance.choose(&Method::COMMON)),
        })
        .collect();
    let is_chain = hops.len() > 1 && chance.one_in(2);
    // What is inside something else is cut as that is.
    let heads = if is_chain { HeadReads::Many } else { *chance.choose(&[HeadReads::One, HeadReads::Many]) };
    let wide = chance.one_in(3);
    let link = |chance: &mut Chance| {
        let link = Link::random(chance);
        if wide { link.widened(chance) } else { link }
    };
    let mut links = vec![link(chance)];
    for hop in &hops {
        let link = link(chance);
        let one_read =
            |method: &Method| method.generation() == Generation::Aead2022 && heads == HeadReads::One;
        links.push(match hop {
            Hop::Shadowsocks(method) if one_read(method) => link.with_whole_start(),
            Hop::Shadowsocks(_) | Hop::Socks5 | Hop::Socks4 | Hop::Http | Hop::Https => link,
        });
    }
    links.push(link(chance));
    let entrance = *chance.choose(&Entrance::ALL);
    let header = chance.one_in(4).then_some(Version::V2);
    Plan { entrance, hops, is_chain, header, links, heads, idle: Duration::from_secs(3600) }
}

fn script(chance: &mut Chance, net: &SimNet, plan: &Plan) -> Script {
    let target = match chance.within(0..=1) {
        0 => Address::Ip(TARGET),
        _ => {
            let delay = Duration::from_millis(chance.within(0..=2000));
            net.name("target.example", Name { addresses: vec![TARGET.ip()], delay });
            Address::from_host("target.example", TARGET.port()).unwrap()
        }
    };
    let order = [Order::Together, Order::ClientEarly, Order::TargetFirst, Order::ClientFirst];
    let request = plan.entrance.request(&target);
    Script {
        entrance: plan.entrance,
        header_len: if plan.header.is_some() { HEADER_BYTES } else { 0 },
        request: cut(chance, &request),
        uplink: speech(chance, plan),
        downlink: speech(chance, plan),
        order: *chance.choose(&order),
    }
}

fn speech(chance: &mut Chance, plan: &Plan) -> Speech {
    let manners = plan.links.iter().flat_map(|link| [&link.uplink, &link.downlink]);
    let steps =
        manners.map(|manners| manners.part_bytes_max.unwrap_or(usize::MAX).min(manners.capacity_bytes));
    // Much through a narrow place takes long and shows nothing that less does not.
    let most = (steps.min().unwrap_or(1) * 500).min(1_500_000);
    let len = match chance.within(0..=9) {
        0 => 0,
        1 | 2 => most,
        _ => chance.uneven_length(1..=most),
    };
    let bytes = chance.bytes(len);
    cut(chance, &bytes)
}

/// Pieces of any size, or none bigger than a byte for what is short, with pauses or none.
fn cut(chance: &mut Chance, bytes: &[u8]) -> Speech {
    let pieces_max = match chance.within(0..=2) {
        0 => 1,
        1 => 10,
        _ => 300,
    };
    let pause_max = *chance.choose(&[0, 0, 3, 400]);
    let piece_max = bytes.len().div_ceil(pieces_max).max(1);
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(chance.length(1..=piece_max * 2).min(rest.len()));
        pieces.push((Duration::from_millis(chance.within(0..=pause_max)), now.to_vec()));
        rest = later;
    }
    Speech { pieces, ending: Ending::End }
}

/// One thing goes wrong: somebody goes away, or a connection breaks or falls silent.
fn spoil(chance: &mut Chance, plan: &mut Plan, script: &mut Script) {
    match chance.within(0..=5) {
        0 => script.uplink.ending = Ending::Reset,
        1 => script.downlink.ending = Ending::Reset,
        kind => {
            let kind = if kind == 2 { FaultKind::Silence } else { FaultKind::Reset };
            let at_byte = chance.uneven_length(0..=200_000) as u64;
            let number = chance.length(0..=plan.links.len() - 1);
            let link = &mut plan.links[number];
            let manners = *chance.choose(&[true, false]);
            let manners = if manners { &mut link.uplink } else { &mut link.downlink };
            manners.fault = Some(Fault { at_byte, kind });
        }
    }
}

/// Both ends, until neither will hear or say any more.
async fn play(street: &mut Street, script: &Script) -> Outcome {
    let (heard_up, heard_down) = (RefCell::default(), RefCell::default());
    let client = street.enter().await;
    let arrival = async {
        match timeout(PATIENCE, street.arrive()).await {
            Ok(target) => serve(target, script, &heard_up).await,
            Err(_) => (Ending::Reset, None),
        }
    };
    let ((up, target), (down, client)) = tokio::join!(arrival, visit(client, script, &heard_down));
    drop((target, client));
    let heard_up = without_header(heard_up.into_inner(), script.header_len);
    Outcome {
        uplink: Heard { bytes: heard_up, ending: up },
        downlink: Heard { bytes: heard_down.into_inner(), ending: down },
    }
}

/// What the target heard behind the PROXY header.
fn without_header(mut heard: Vec<u8>, header_len: usize) -> Vec<u8> {
    let rest = heard.split_off(header_len.min(heard.len()));
    if header_len > 0 && !heard.is_empty() {
        assert!(heard.starts_with(b"\r\n\r\n\0\r\nQUIT\n") || heard.len() < 12, "no header but {heard:?}");
    }
    rest
}

/// The client's side. It keeps its connection until the other end is done too, unless it tears it down.
async fn visit(client: Peer, script: &Script, heard: &RefCell<Vec<u8>>) -> (Ending, Option<Peer>) {
    let (accepted, spoken_to) = (Notify::new(), Notify::new());
    let speak = async {
        say_request(&client, &script.request).await?;
        match script.order {
            Order::ClientEarly => {}
            Order::Together | Order::ClientFirst => accepted.notified().await,
            Order::TargetFirst => spoken_to.notified().await,
        }
        client.deliver(&script.uplink).await
    };
    let listen = async {
        match client.hear_reply(script.entrance).await {
            Ok(true) => accepted.notify_one(),
            Ok(false) | Err(_) => return Ending::Reset,
        }
        hear_onto(&client, heard, &spoken_to).await
    };
    let talk = both(speak, listen, script.uplink.ending);
    // Behind a silent network nobody is ever told.
    let ending = timeout(PATIENCE, talk).await.unwrap_or(Ending::Reset);
    match script.uplink.ending {
        Ending::End => (ending, Some(client)),
        Ending::Reset => {
            client.reset();
            (Ending::Reset, None)
        }
    }
}

async fn say_request(client: &Peer, request: &Speech) -> std::io::Result<()> {
    for (pause, piece) in &request.pieces {
        sleep(*pause).await;
        client.say(piece).await?;
    }
    Ok(())
}

/// The target's side.
async fn serve(target: Peer, script: &Script, heard: &RefCell<Vec<u8>>) -> (Ending, Option<Peer>) {
    let (spoken_to, all_heard) = (Notify::new(), Notify::new());
    let speak = async {
        if script.order == Order::ClientFirst {
            all_heard.notified().await;
        }
        target.deliver(&script.downlink).await
    };
    let listen = async {
        let ending = hear_onto(&target, heard, &spoken_to).await;
        all_heard.notify_one();
        ending
    };
    let talk = both(speak, listen, script.downlink.ending);
    let ending = timeout(PATIENCE, talk).await.unwrap_or(Ending::Reset);
    match script.downlink.ending {
        Ending::End => (ending, Some(target)),
        Ending::Reset => {
            target.reset();
            (Ending::Reset, None)
        }
    }
}

/// Speaks and listens until both are done; one that will tear the connection down does so when it has spoken.
async fn both(
    speak: impl Future<Output = std::io::Result<()>>,
    listen: impl Future<Output = Ending>,
    ending: Ending,
) -> Ending {
    tokio::pin!(speak, listen);
    tokio::select! {
        biased;
        heard = &mut listen => {
            // A listener that was reset has nothing more to say; one that heard the end has.
            if heard == Ending::End {
                let _ = speak.await;
            }
            heard
        }
        spoken = &mut speak => match (spoken, ending) {
            (Ok(()), Ending::Reset) => Ending::Reset,
            (Ok(()), Ending::End) | (Err(_), _) => listen.await,
        }
    }
}

async fn hear_onto(peer: &Peer, heard: &RefCell<Vec<u8>>, spoken_to: &Notify) -> Ending {
    loop {
        let some = peer.hear_some(20_000).await;
        spoken_to.notify_one();
        match some {
            Ok(some) if some.is_empty() => return Ending::End,
            Ok(some) => heard.borrow_mut().extend_from_slice(&some),
            Err(_) => return Ending::Reset,
        }
    }
}

/// A PROXY header of version 2 between IPv4 addresses.
const HEADER_BYTES: usize = 16 + 12;

/// Longer than all doors together wait for a byte.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
