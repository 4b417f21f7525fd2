//! A door with few places: who gets one, who keeps it, and who has to go.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use umbra_proto::shadowsocks::Method;
use umbra_relay::config::{Inbound, Mode, Protocol, ProxyDoor, ProxyHeader, Route, ShadowsocksDoor, Tcp};
use umbra_relay::limits::{HANDSHAKE_SECS_MAX, SILENCE_SECS_MAX};
use umbra_sim::SimNet;
use umbra_sim::house::House;
use umbra_sim::link::Link;
use umbra_sim::peer::{Ending, Peer};
use umbra_sim::seed::one_seed;
use umbra_sim::street::{Street, TARGET, door, key_of};

fn inbound(protocol: Protocol) -> Inbound {
    Inbound {
        name: "door".into(),
        listen: door(0),
        protocol,
        routes: Route::direct().into(),
        mode: Mode::Streams,
        forbidden: Arc::default(),
        idle: Duration::from_secs(3600),
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    }
}

fn proxy() -> Inbound {
    inbound(Protocol::Proxy(ProxyDoor::MIXED))
}

fn shadowsocks() -> Inbound {
    let keys = Arc::new(key_of(Method::Aes256Gcm, 0).into());
    let heads = umbra_proto::shadowsocks::stream::HeadReads::One;
    inbound(Protocol::Shadowsocks(ShadowsocksDoor { keys, heads, one_time_auth: false }))
}

async fn enter(net: &SimNet) -> Peer {
    Peer::new(net.dial(door(0)).await.unwrap())
}

#[test]
fn silent_strangers_at_a_full_door_make_room_the_oldest_first() {
    one_seed(1, |net, _| async move {
        let mut target = net.listen(TARGET, Link::plain());
        let house = House::new(&net);
        house.open_for(4, proxy(), Link::plain());
        let mut strangers = Vec::new();
        for _ in 0..4 {
            strangers.push(enter(&net).await);
            sleep(Duration::from_millis(100)).await;
        }
        let client = enter(&net).await;
        assert_eq!(client.ask_socks5(&Street::target(), b"words").await.unwrap(), 0);
        assert!(net.elapsed() <= SILENCE_SECS_MAX + Duration::from_millis(250), "{:?}", net.elapsed());
        let (far, _) = target.accept().await.unwrap();
        assert_eq!(Peer::new(far).hear(5).await.unwrap(), b"words");
        let first = strangers.remove(0);
        assert_eq!(first.hear_out().await.ending, Ending::Reset);
        for stranger in strangers {
            assert!(timeout(Duration::from_secs(1), stranger.hear_out()).await.is_err(), "others stay");
        }
    });
}

#[test]
fn nobody_who_has_got_an_answer_loses_it_to_a_crowd() {
    one_seed(1, |net, _| async move {
        let mut target = net.listen(TARGET, Link::plain());
        let house = House::new(&net);
        house.open_for(3, proxy(), Link::plain());
        let mut sessions = Vec::new();
        for _ in 0..3 {
            let client = enter(&net).await;
            assert_eq!(client.ask_socks5(&Street::target(), b"").await.unwrap(), 0);
            sessions.push((client, Peer::new(target.accept().await.unwrap().0)));
        }
        let waiting = enter(&net).await;
        waiting.say(&umbra_sim::peer::socks5_request(&Street::target())).await.unwrap();
        let mut crowd = Vec::new();
        for _ in 0..50 {
            crowd.push(enter(&net).await);
        }
        sleep(HANDSHAKE_SECS_MAX).await;
        assert_eq!(house.sessions(), 3);
        for (client, far) in &sessions {
            client.say(b"still").await.unwrap();
            assert_eq!(far.hear(5).await.unwrap(), b"still");
        }
        drop(sessions.pop());
        // Whoever came first is served first.
        let began = Instant::now();
        assert_eq!(waiting.hear_socks5_reply().await.unwrap(), 0);
        assert!(began.elapsed() < Duration::from_millis(250), "{:?}", began.elapsed());
    });
}

#[test]
fn failed_heads_make_room_as_silent_ones_do() {
    one_seed(1, |net, _| async move {
        let house = House::new(&net);
        house.open_for(8, shadowsocks(), Link::plain());
        let mut peers = Vec::new();
        for number in 0..8 {
            let peer = enter(&net).await;
            if number % 4 != 0 {
                peer.say(&[9; 200]).await.unwrap();
            }
            peers.push(peer);
        }
        sleep(SILENCE_SECS_MAX + Duration::from_millis(10)).await;
        let mut late = Vec::new();
        for _ in 0..8 {
            late.push(enter(&net).await);
        }
        sleep(Duration::from_secs(1)).await;
        for peer in &peers {
            assert_eq!(peer.hear_out().await.ending, Ending::Reset);
        }
        assert_eq!(house.sessions(), 8, "and those who came late are in");
        assert!(net.elapsed() < HANDSHAKE_SECS_MAX);
    });
}

#[test]
fn a_head_that_turns_bad_late_keeps_its_turn() {
    one_seed(1, |net, _| async move {
        // One place is this door's own; the other two are whoever's comes first.
        let house = House::new(&net);
        house.open_for(3, shadowsocks(), Link::plain());
        let _own = enter(&net).await;
        let first = enter(&net).await;
        sleep(Duration::from_millis(10)).await;
        let second = enter(&net).await;
        sleep(SILENCE_SECS_MAX + Duration::from_secs(1)).await;
        first.say(&[9; 200]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let _fourth = enter(&net).await;
        let heard = timeout(Duration::from_millis(10), first.hear_out()).await.unwrap();
        assert_eq!(heard.ending, Ending::Reset);
        assert!(timeout(Duration::from_secs(1), second.hear_out()).await.is_err(), "who came later stays");
        assert_eq!(house.sessions(), 3);
    });
}
