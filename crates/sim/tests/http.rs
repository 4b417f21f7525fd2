//! Forwarded requests over networks from many seeds: whole messages arrive whole, whatever breaks off is known to have broken off,
//! and nothing is kept for longer than the door's idle time.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use umbra_proto::shadowsocks::Method;
use umbra_relay::limits::REFUSAL_SECS_MAX;
use umbra_sim::Chance;
use umbra_sim::link::{Fault, FaultKind, Link};
use umbra_sim::peer::{Ending, Peer};
use umbra_sim::seed::{each_seed, note, one_seed};
use umbra_sim::street::{Hop, Plan, Street};

/// How the target says where its answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunks,
    /// By ending.
    End,
}

/// One request and its answer.
#[derive(Debug)]
struct Exchange {
    upload: Vec<u8>,
    download: Vec<u8>,
    framing: Framing,
}

fn plan(chance: &mut Chance) -> Plan {
    let mut plan = match chance.within(0..=2) {
        0 => Plan::direct(),
        1 => Plan::pair(*chance.choose(&Method::COMMON)),
        _ => Plan { hops: vec![Hop::Socks5], ..Plan::pair(Method::Aes128Gcm) },
    };
    for link in &mut plan.links {
        *link = Link::random(chance).widened(chance).with_whole_start();
    }
    plan
}

fn exchange(chance: &mut Chance) -> Exchange {
    let mut bytes = || {
        let len = chance.uneven_length(1..=300_000);
        chance.bytes(len)
    };
    let (upload, download) = (bytes(), bytes());
    Exchange { upload, download, framing: *chance.choose(&[Framing::Length, Framing::Chunks, Framing::End]) }
}

/// What came to the client's ears: the body, and whether it was told that this is all.
async fn visit(client: &Peer, exchange: &Exchange) -> (Vec<u8>, bool) {
    let len = exchange.upload.len();
    let target = Street::target();
    let head = format!("POST http://{target}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n");
    let speak = async {
        client.say(head.as_bytes()).await?;
        client.say(&exchange.upload).await
    };
    let listen = async {
        let Ok(head) = client.hear_head().await else { return (Vec::new(), false) };
        let head = String::from_utf8(head).unwrap().to_lowercase();
        if !head.starts_with("http/1.1 200 ") {
            return (Vec::new(), false);
        }
        let mut body = Vec::new();
        if let Some(line) = head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
            let is_whole = hear_onto(client, &mut body, line.parse().unwrap()).await;
            return (body, is_whole);
        }
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        loop {
            let Some(len) = hear_chunk_head(client).await else { return (body, false) };
            if !hear_onto(client, &mut body, len).await || client.hear(2).await.is_err() {
                return (body, false);
            }
            if len == 0 {
                return (body, true);
            }
        }
    };
    let (_, heard) = tokio::join!(speak, listen);
    heard
}

async fn hear_onto(peer: &Peer, body: &mut Vec<u8>, len: usize) -> bool {
    let mut left = len;
    while left > 0 {
        match peer.hear_some(left).await {
            Ok(some) if !some.is_empty() => {
                left -= some.len();
                body.extend(some);
            }
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

async fn hear_chunk_head(peer: &Peer) -> Option<usize> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(peer.hear(1).await.ok()?);
    }
    usize::from_str_radix(str::from_utf8(&line).unwrap().trim(), 16).ok()
}

/// The target's side of one exchange. Says whether it came to its end.
async fn serve(target: &Peer, exchange: &Exchange) -> std::io::Result<()> {
    let head = String::from_utf8(target.hear_head().await?).unwrap();
    assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
    let heard = target.hear(exchange.upload.len()).await?;
    assert!(heard == exchange.upload);
    let len = exchange.download.len();
    match exchange.framing {
        Framing::Length => {
            target.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").as_bytes()).await?;
            target.say(&exchange.download).await
        }
        Framing::End => {
            target.say(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            target.say(&exchange.download).await?;
            target.end()
        }
        Framing::Chunks => {
            target.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            for part in exchange.download.chunks(len.div_ceil(7)) {
                target.say(format!("{:X}\r\n", part.len()).as_bytes()).await?;
                target.say(part).await?;
                target.say(b"\r\n").await?;
            }
            target.say(b"0\r\n\r\n").await
        }
    }
}

#[test]
fn without_faults_every_exchange_of_a_conversation_is_whole() {
    each_seed(150, |net, mut chance| async move {
        let plan = plan(&mut chance);
        let exchanges: Vec<_> = (0..3).map(|_| exchange(&mut chance)).collect();
        let mut street = Street::lay(&net, &plan);
        note(format!("{plan:#?}"));
        let client = street.enter().await;
        let dials = Cell::new(0);
        let targets = async {
            let mut kept: Option<Peer> = None;
            for exchange in &exchanges {
                let target = match kept.take() {
                    Some(target) => target,
                    None => {
                        dials.set(dials.get() + 1);
                        street.arrive().await
                    }
                };
                serve(&target, exchange).await.unwrap();
                kept = Some(target).filter(|_| exchange.framing != Framing::End);
            }
            kept
        };
        let clients = async {
            for exchange in &exchanges {
                let (body, is_whole) = visit(&client, exchange).await;
                assert!(is_whole && body == exchange.download, "{} bytes", body.len());
            }
        };
        let (kept, ()) = tokio::join!(targets, clients);
        let ends = exchanges[..2].iter().filter(|exchange| exchange.framing == Framing::End).count();
        assert_eq!(dials.get(), 1 + ends, "connections are kept");
        drop((client, kept));
        street.empties(REFUSAL_SECS_MAX * 3).await;
    });
}

#[test]
fn after_a_fault_a_part_of_an_answer_is_known_to_be_one() {
    each_seed(300, |net, mut chance| async move {
        let mut plan = plan(&mut chance);
        let exchange = exchange(&mut chance);
        let number = chance.length(0..=plan.links.len() - 1);
        let link = &mut plan.links[number];
        let manners = *chance.choose(&[true, false]);
        let manners = if manners { &mut link.uplink } else { &mut link.downlink };
        let kind = *chance.choose(&[FaultKind::Reset, FaultKind::Silence]);
        manners.fault = Some(Fault { at_byte: chance.uneven_length(0..=300_000) as u64, kind });
        let mut street = Street::lay(&net, &plan);
        note(format!("{plan:#?} {:?}", exchange.framing));
        let client = street.enter().await;
        let far = async {
            if let Ok(target) = timeout(PATIENCE, street.arrive()).await {
                drop(timeout(PATIENCE, serve(&target, &exchange)).await);
            }
        };
        let near = async {
            if let Ok((body, is_whole)) = timeout(PATIENCE, visit(&client, &exchange)).await {
                assert!(exchange.download.starts_with(&body));
                assert!(!is_whole || body == exchange.download, "{} bytes as the whole", body.len());
            }
        };
        tokio::join!(far, near);
        drop(client);
        street.empties(plan.idle_of_all() + Duration::from_secs(60)).await;
    });
}

#[test]
fn a_conversation_in_which_nothing_moves_ends_with_the_idle_time() {
    for framing in [Framing::Length, Framing::End] {
        one_seed(1, |net, mut chance| async move {
            let plan = Plan::pair(Method::Blake3Aes256Gcm);
            let mut street = Street::lay(&net, &plan);
            let client = street.enter().await;
            let upload = chance.bytes(10);
            let exchange = Exchange { upload, download: chance.bytes(100), framing };
            let far = async {
                let target = street.arrive().await;
                serve(&target, &exchange).await.unwrap();
                target
            };
            let (target, _) = tokio::join!(far, visit(&client, &exchange));
            let began = Instant::now();
            assert_eq!(client.hear_out().await.ending, Ending::Reset);
            assert!(began.elapsed().abs_diff(plan.idle) < Duration::from_millis(10), "{:?}", began.elapsed());
            drop((client, target));
            street.empties(REFUSAL_SECS_MAX * 2).await;
        });
    }
}

/// Longer than all doors together wait for a byte.
const PATIENCE: Duration = Duration::from_secs(3600);
