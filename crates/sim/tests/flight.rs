//! How quickly sessions begin: addresses that do not answer, servers that speak first, and payload that rides with the head.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::shadowsocks::{Generation, Method};
use umbra_relay::config::{Inbound, Mode, Protocol, ProxyDoor, ProxyHeader, Route, Server, Tcp};
use umbra_relay::limits::{ATTEMPT_DELAY, FIRST_FLIGHT};
use umbra_sim::house::House;
use umbra_sim::link::Link;
use umbra_sim::net::{Absence, Name};
use umbra_sim::peer::{Peer, socks5_request};
use umbra_sim::seed::one_seed;
use umbra_sim::street::{Plan, Street, TARGET, door, key_of};

fn assert_is_at(after: Duration, moment: Duration) {
    assert!((moment..=moment + Duration::from_millis(3)).contains(&after), "after {after:?}, not {moment:?}");
}

#[test]
fn a_silent_address_of_a_target_is_overtaken_after_a_quarter_second() {
    let silent: IpAddr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).into();
    for plan in [Plan::direct(), Plan::pair(Method::Aes256Gcm)] {
        let plan = &plan;
        one_seed(1, |net, _| async move {
            net.absent(SocketAddr::new(silent, TARGET.port()), Absence::Silent);
            net.name("two.example", Name { addresses: vec![silent, TARGET.ip()], delay: Duration::ZERO });
            let mut street = Street::lay(&net, plan);
            let client = street.enter().await;
            client.say(&socks5_request(&"two.example:443".parse().unwrap())).await.unwrap();
            client.say(b"words").await.unwrap();
            let target = street.arrive().await;
            assert_is_at(net.elapsed(), ATTEMPT_DELAY);
            assert_eq!(target.hear(5).await.unwrap(), b"words");
            // The attempt that lost is gone: only a session's sockets are left.
            assert_eq!(net.live_sockets(), plan.links.len() * 2);
            drop((client, target));
            street.empties(Duration::from_secs(1)).await;
        });
    }
}

#[test]
fn a_silent_address_of_a_server_is_overtaken_and_a_refusing_server_is_followed_at_once() {
    one_seed(1, |net, _| async move {
        let method = Method::Blake3Aes256Gcm;
        let mut street = Street::lay(&net, &Plan::pair(method));
        let silent: IpAddr = Ipv4Addr::new(192, 0, 2, 99).into();
        net.absent(SocketAddr::new(silent, door(1).port()), Absence::Silent);
        net.name("server.example", Name { addresses: vec![silent, door(1).ip()], delay: Duration::ZERO });
        let server = |text: &str| Server {
            address: text.parse().unwrap(),
            mode: Mode::Streams,
            credentials: key_of(method, 0).into(),
            heads: HeadReads::One,
            one_time_auth: false,
        };
        let inbound = Inbound {
            name: "door".into(),
            listen: door(50),
            protocol: Protocol::Proxy(ProxyDoor::MIXED),
            routes: Route::servers(vec![server("192.0.2.98:1"), server("server.example:8388")]).into(),
            mode: Mode::Streams,
            forbidden: Arc::default(),
            idle: Duration::from_secs(60),
            tcp: Tcp { no_delay: true, fast_open: false },
            proxy_header: ProxyHeader::default(),
        };
        let house = House::new(&net);
        house.open(inbound, Link::plain());
        let client = Peer::new(net.dial(door(50)).await.unwrap());
        assert_eq!(client.ask_socks5(&Street::target(), b"words").await.unwrap(), 0);
        assert_is_at(net.elapsed(), ATTEMPT_DELAY);
        let target = street.arrive().await;
        assert_eq!(target.hear(5).await.unwrap(), b"words");
    });
}

#[test]
fn a_banner_comes_with_no_wait_worth_noticing() {
    for method in Method::COMMON {
        one_seed(1, |net, _| async move {
            let mut street = Street::lay(&net, &Plan::pair(method));
            let client = street.enter().await;
            assert_eq!(client.ask_socks5(&Street::target(), b"").await.unwrap(), 0);
            assert_is_at(net.elapsed(), Duration::ZERO);
            let target = street.arrive().await;
            target.say(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
            assert_eq!(client.hear(21).await.unwrap(), b"SSH-2.0-OpenSSH_9.9\r\n");
            assert!(net.elapsed() <= FIRST_FLIGHT * 2 + Duration::from_millis(1), "{:?}", net.elapsed());
        });
    }
}

#[test]
fn first_payload_leaves_with_the_head_in_one_write() {
    for method in Method::COMMON {
        for pause in [None, Some(Duration::ZERO), Some(FIRST_FLIGHT - Duration::from_millis(2))] {
            one_seed(1, |net, _| async move {
                net.record();
                let mut street = Street::lay(&net, &Plan::pair(method));
                let client = street.enter().await;
                let early: &[u8] = if pause.is_none() { b"first payload" } else { b"" };
                assert_eq!(client.ask_socks5(&Street::target(), early).await.unwrap(), 0);
                if let Some(pause) = pause {
                    sleep(pause).await;
                    client.say(b"first payload").await.unwrap();
                }
                let target = street.arrive().await;
                assert_eq!(target.hear(13).await.unwrap(), b"first payload");
                let began = Instant::now();
                target.say(b"first answer").await.unwrap();
                assert_eq!(client.hear(12).await.unwrap(), b"first answer");
                assert_is_at(began.elapsed(), Duration::ZERO);
                let address_len = Address::from(TARGET).encoded_len();
                let (request, response) = match method.generation() {
                    Generation::Stream => (address_len + 13, 12),
                    Generation::Aead => (18 + address_len + 13 + 16, 18 + 12 + 16),
                    Generation::Aead2022 => {
                        (27 + address_len + 2 + 13 + 16, 1 + 8 + method.salt_len() + 2 + 16 + 12 + 16)
                    }
                };
                let lens = |writes: &[Vec<u8>]| writes.iter().map(Vec::len).collect::<Vec<_>>();
                let record = net.records().remove(1);
                assert_eq!(lens(&record.uplink), [method.salt_len() + request], "{method}, {pause:?}");
                assert_eq!(lens(&record.downlink), [method.salt_len() + response], "{method}, {pause:?}");
            });
        }
    }
}
