//! What holds whatever the network does to datagrams.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::{Generation, Method};
use umbra_sim::Chance;
use umbra_sim::datagrams::{Impairments, Seen};
use umbra_sim::net::Name;
use umbra_sim::seed::{each_seed, note};
use umbra_sim::street::door;

use crate::route::{
    ATTACKER, Arrivals, Client, METHODS, Plan, Route, asks_for_other_port, message, number_of, other_port,
    target_at, target6_at,
};

/// Messages that clients have sent, by number.
#[derive(Default)]
struct Sent(HashMap<u64, Message>);

struct Message {
    /// Which client.
    client: usize,
    /// Where it is to arrive.
    target: SocketAddr,
    bytes: Vec<u8>,
}

/// A target, as clients name it, and where it is.
type Target = (Address, SocketAddr);

/// Targets of either family and with a name.
fn targets(route: &Route, arrivals: &Arrivals) -> Vec<Target> {
    let named = target_at(3);
    let name = Name { addresses: vec![named.ip()], delay: Duration::from_millis(30) };
    route.net.name("target.example", name);
    let targets = vec![
        (Address::Ip(target_at(1)), target_at(1)),
        (Address::Ip(target6_at(2)), target6_at(2)),
        (Address::from_host("target.example", named.port()).unwrap(), named),
    ];
    for (_, address) in &targets {
        arrivals.echo(&route.air, *address);
    }
    targets
}

/// Sends a burst of messages from random clients to random targets.
fn burst(chance: &mut Chance, clients: &[Client], targets: &[Target], sent: &mut Sent) {
    for _ in 0..chance.length(1..=10) {
        let client = chance.length(0..=clients.len() - 1);
        let (name, address) = chance.choose(targets).clone();
        let number = sent.0.len() as u64;
        let filler = if chance.one_in(20) { chance.length(0..=9000) } else { chance.uneven_length(0..=1200) };
        let bytes = message(chance, number, filler);
        clients[client].send(&name, &bytes);
        sent.0.insert(number, Message { client, target: address, bytes });
    }
}

async fn clients(route: &Route, chance: &mut Chance) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..chance.within(1..=4) {
        clients.push(route.associate(1000 + u16::try_from(number).unwrap()).await);
    }
    clients
}

/// Targets have got what was sent to them, and clients the answers to what they sent, from where these came. Gives how often each
/// message came to its target, and its answer to the client.
fn judge(
    sent: &Sent,
    arrivals: &Arrivals,
    clients: &[Client],
    heard: &mut HashMap<u64, usize>,
) -> HashMap<u64, usize> {
    for (number, client) in clients.iter().enumerate() {
        for (source, bytes) in client.received() {
            let message = sent.0.get(&number_of(&bytes)).expect("an answer to what nobody sent");
            assert_eq!(message.client, number, "an answer to what another client sent");
            assert!(message.bytes == bytes, "an answer to what was never said");
            let is_other = asks_for_other_port(&bytes);
            assert_eq!(source, if is_other { other_port(message.target) } else { message.target });
            *heard.entry(number_of(&bytes)).or_default() += 1;
        }
    }
    let mut came = HashMap::new();
    for (number, arrivals) in arrivals.all() {
        let message = sent.0.get(&number).expect("nobody sent this");
        for arrival in &arrivals {
            assert_eq!(arrival.at, message.target, "it came to another target");
            assert!(arrival.bytes == message.bytes, "it came as something else");
        }
        came.insert(number, arrivals.len());
    }
    came
}

#[test]
fn on_a_wire_without_loss_everything_arrives_once() {
    each_seed(40, |net, mut chance| async move {
        let mut plan = Plan::new(*chance.choose(&METHODS));
        plan.workers = chance.length(1..=3);
        note(format!("{plan:?}"));
        let route = Route::lay(&net, &mut chance, plan);
        route.air.impair(Impairments::delays(Duration::from_millis(*chance.choose(&[0, 0, 3, 100]))));
        let (arrivals, mut sent) = (Arrivals::default(), Sent::default());
        let (targets, clients) = (targets(&route, &arrivals), clients(&route, &mut chance).await);
        for _ in 0..chance.length(1..=10) {
            burst(&mut chance, &clients, &targets, &mut sent);
            sleep(Duration::from_millis(chance.within(0..=300))).await;
        }
        sleep(Duration::from_secs(5)).await;
        let mut heard = HashMap::new();
        let came = judge(&sent, &arrivals, &clients, &mut heard);
        for number in sent.0.keys() {
            assert_eq!(came.get(number), Some(&1), "message {number} at its target");
            assert_eq!(heard.get(number), Some(&1), "the answer to message {number}");
        }
        route.assert_is_whole();
    });
}

#[test]
fn on_a_wire_without_delays_an_association_keeps_the_order() {
    each_seed(20, |net, mut chance| async move {
        let plan = Plan::new(*chance.choose(&METHODS));
        note(format!("{plan:?}"));
        let route = Route::lay(&net, &mut chance, plan);
        let (arrivals, target) = (Arrivals::default(), target_at(1));
        arrivals.echo(&route.air, target);
        let clients = clients(&route, &mut chance).await;
        let mut last = 0;
        for _ in 0..5 {
            for _ in 0..chance.length(1..=200) {
                let mut bytes = message(&mut chance, last, 40);
                bytes[8] = 0;
                bytes.truncate(9 + chance.length(0..=40));
                last += 1;
                chance.choose(&clients).send(&Address::Ip(target), &bytes);
            }
            sleep(Duration::from_millis(10)).await;
        }
        let mut count = 0;
        for client in &clients {
            let numbers: Vec<_> = client.received().iter().map(|(_, bytes)| number_of(bytes)).collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
            count += numbers.len() as u64;
        }
        assert_eq!(count, last);
    });
}

#[test]
fn whatever_the_wire_does_clients_get_answers_to_what_they_sent_and_nothing_else() {
    each_seed(60, |net, mut chance| async move {
        let mut plan = Plan::new(*chance.choose(&METHODS));
        plan.workers = chance.length(1..=3);
        plan.capacity = *chance.choose(&[1, 8, 4096]);
        for udp in &mut plan.udp {
            udp.timeout = Duration::from_secs(chance.within(1..=60));
        }
        note(format!("{plan:?}"));
        let mut route = Route::lay(&net, &mut chance, plan);
        route.air.impair(Impairments::random(&mut chance));
        let method = route.plan.method;
        let mut between = Impairments::random(&mut chance);
        if method.is_some_and(|method| method.generation() != Generation::Stream) {
            between.damaged_one_in = *chance.choose(&[0, 3, 20]);
        }
        route.air.impair_between(door(0).ip(), door(1).ip(), between);
        let (arrivals, mut sent) = (Arrivals::default(), Sent::default());
        let (targets, clients) = (targets(&route, &arrivals), clients(&route, &mut chance).await);
        let mut heard = HashMap::new();
        for _ in 0..chance.length(1..=15) {
            burst(&mut chance, &clients, &targets, &mut sent);
            sleep(Duration::from_millis(*chance.choose(&[0, 1, 50, 1000, 70_000]))).await;
            if chance.one_in(10) {
                route.restart().await;
            }
        }
        sleep(Duration::from_secs(5)).await;
        let came = judge(&sent, &arrivals, &clients, &mut heard);
        // Each of the three ways up may make two of one, and each of the three ways down.
        assert!(came.values().all(|count| *count <= 8), "{came:?}");
        assert!(heard.values().all(|count| *count <= 64), "{heard:?}");
        route.assert_is_whole();
        drop(clients);
        sleep(Duration::from_secs(120)).await;
        for number in 0..route.plan.doors() {
            assert_eq!(route.sockets(number), 0, "sockets of door {number} stay behind");
        }
    });
}

/// How often one message has come at most, and one answer, where the wire between the doors makes two of many, loses none otherwise,
/// and an attacker repeats what was said there.
async fn repeated(net: &umbra_sim::SimNet, chance: &mut Chance, method: Method) -> (usize, usize) {
    let mut plan = Plan::new(Some(method));
    plan.workers = chance.length(1..=3);
    let route = Route::lay(net, chance, plan);
    route.air.impair(Impairments::delays(Duration::from_millis(*chance.choose(&[0, 5]))));
    let between = Impairments { doubled_one_in: 2, ..Impairments::delays(Duration::from_millis(20)) };
    route.air.impair_between(door(0).ip(), door(1).ip(), between);
    let (arrivals, mut sent) = (Arrivals::default(), Sent::default());
    let (targets, clients) = (targets(&route, &arrivals), clients(&route, chance).await);
    route.air.record();
    let doors = (door(0).ip(), door(1).ip());
    let mut heard = HashMap::new();
    for _ in 0..5 {
        burst(chance, &clients, &targets, &mut sent);
        sleep(Duration::from_millis(300)).await;
        if method.generation() == Generation::Aead2022 {
            // What was said is said again, by its speakers as it seems or from elsewhere.
            for Seen { from, to, bytes } in route.air.seen() {
                let is_between = (from.ip(), to.ip()) == doors || (to.ip(), from.ip()) == doors;
                if is_between {
                    route.air.send(if chance.one_in(2) { from } else { ATTACKER }, to, &bytes);
                }
            }
            sleep(Duration::from_millis(300)).await;
        }
    }
    sleep(Duration::from_secs(2)).await;
    let came = judge(&sent, &arrivals, &clients, &mut heard);
    assert_eq!((came.len(), heard.len()), (sent.0.len(), sent.0.len()), "none is lost");
    (came.into_values().max().unwrap(), heard.into_values().max().unwrap())
}

#[test]
fn under_sip022_nothing_comes_twice_however_often_the_wire_or_an_attacker_says_it() {
    each_seed(20, |net, mut chance| async move {
        let methods = [Method::Blake3Aes128Gcm, Method::Blake3Aes256Gcm, Method::Blake3Chacha20Poly1305];
        let method = *chance.choose(&methods);
        assert_eq!(repeated(&net, &mut chance, method).await, (1, 1), "{method}");
    });
}

#[test]
fn without_sip022_nothing_comes_more_often_than_the_wire_says_it() {
    each_seed(10, |net, mut chance| async move {
        let method = *chance.choose(&[Method::Aes256Gcm, Method::Chacha20IetfPoly1305, Method::Aes256Cfb]);
        let (came, heard) = repeated(&net, &mut chance, method).await;
        assert!(came <= 2 && heard <= 2 * came, "{method}: {came} times, and {heard} answers");
    });
}
