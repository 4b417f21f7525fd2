//! The ways in and out beside SOCKS5 and a lone server: several servers, parents, tunnels, PROXY headers, HTTP; what each waits
//! for, and for how long.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_relay::config::{
    Group, Inbound, Mode, Parent, Protocol, ProxyDoor, ProxyHeader, Route, Server, ShadowsocksDoor, Tcp,
};
use umbra_relay::limits::{FIRST_FLIGHT, HANDSHAKE_SECS_MAX, NEGOTIATE_SECS_MAX, REFUSAL_SECS_MAX};
use umbra_sim::SimNet;
use umbra_sim::house::House;
use umbra_sim::link::Link;
use umbra_sim::net::{Absence, DIALLER};
use umbra_sim::peer::{Ending, Entrance, Heard, Peer};
use umbra_sim::seed::one_seed;
use umbra_sim::street::{Plan, Street, TARGET, door, key_of};

const METHOD: Method = Method::Aes256Gcm;

fn inbound(number: usize, protocol: Protocol, route: Route) -> Inbound {
    Inbound {
        name: "door".into(),
        listen: door(number),
        protocol,
        routes: route.into(),
        mode: Mode::Streams,
        forbidden: Arc::default(),
        idle: Duration::from_secs(3600),
        tcp: Tcp { no_delay: true, fast_open: false },
        proxy_header: ProxyHeader::default(),
    }
}

fn proxy() -> Protocol {
    Protocol::Proxy(ProxyDoor::MIXED)
}

fn shadowsocks() -> Protocol {
    let keys = Arc::new(key_of(METHOD, 0).into());
    Protocol::Shadowsocks(ShadowsocksDoor { keys, heads: HeadReads::One, one_time_auth: false })
}

fn server(number: usize) -> Server {
    let address = Address::Ip(door(number));
    Server {
        address,
        mode: Mode::Streams,
        credentials: key_of(METHOD, 0).into(),
        heads: HeadReads::One,
        one_time_auth: false,
    }
}

async fn enter(net: &SimNet) -> Peer {
    Peer::new(net.dial(door(0)).await.unwrap())
}

fn assert_is_at(after: Duration, moment: Duration) {
    assert!((moment..=moment + Duration::from_millis(3)).contains(&after), "after {after:?}, not {moment:?}");
}

#[test]
fn every_server_is_chosen_about_as_often_and_dead_ones_are_passed_over() {
    one_seed(1, |net, _| async move {
        let mut target = net.listen(TARGET, Link::plain());
        let house = House::new(&net);
        house.open(inbound(0, proxy(), Route::servers((1..=4).map(server).collect())), Link::plain());
        // The second is not there at all.
        for number in [1, 3, 4] {
            house.open(inbound(number, shadowsocks(), Route::direct()), Link::plain());
        }
        for _ in 0..400 {
            let client = enter(&net).await;
            assert_eq!(client.ask_socks5(&Street::target(), b"words").await.unwrap(), 0);
            let (far, _) = target.accept().await.unwrap();
            assert_eq!(Peer::new(far).hear(5).await.unwrap(), b"words");
        }
        let dials = |number| net.dials_to(door(number));
        for number in [1, 3, 4] {
            assert!((90..=180).contains(&dials(number)), "server {number}: {}", dials(number));
        }
        assert!((2..=10).contains(&dials(2)), "it is left alone once it is known to be dead: {}", dials(2));
    });
}

#[test]
fn servers_that_are_replaced_keep_their_sessions_and_get_no_more() {
    one_seed(1, |net, _| async move {
        let mut target = net.listen(TARGET, Link::plain());
        let house = House::new(&net);
        let servers = Arc::new(Group::of_servers(vec![server(1)]));
        house.open(inbound(0, proxy(), Route::Group(servers.clone())), Link::plain());
        for number in [1, 2] {
            house.open(inbound(number, shadowsocks(), Route::direct()), Link::plain());
        }
        let old = enter(&net).await;
        assert_eq!(old.ask_socks5(&Street::target(), b"a").await.unwrap(), 0);
        let old_far = Peer::new(target.accept().await.unwrap().0);
        servers.replace_servers(vec![server(2)]);
        let new = enter(&net).await;
        assert_eq!(new.ask_socks5(&Street::target(), b"b").await.unwrap(), 0);
        let new_far = Peer::new(target.accept().await.unwrap().0);
        assert_eq!((net.dials_to(door(1)), net.dials_to(door(2))), (1, 1));
        for (far, first) in [(&old_far, b"a"), (&new_far, b"b")] {
            assert_eq!(far.hear(1).await.unwrap(), first);
        }
        old_far.say(b"still").await.unwrap();
        assert_eq!(old.hear(5).await.unwrap(), b"still");
    });
}

#[test]
fn a_parent_that_says_nothing_is_given_up_in_time() {
    for (entrance, told) in [
        (Entrance::Socks5, &[5, 0, 5, 4][..]),
        (Entrance::Socks4, &[0, 91]),
        (Entrance::Connect, b"HTTP/1.1 504 "),
    ] {
        one_seed(1, |net, _| async move {
            let parent: SocketAddr = (Ipv4Addr::new(192, 0, 2, 77), 1080).into();
            let mut mute = net.listen(parent, Link::plain());
            let house = House::new(&net);
            let route = Route::parent(Parent::socks5(parent.into(), None));
            house.open(inbound(0, proxy(), route), Link::plain());
            let client = enter(&net).await;
            client.say(&entrance.request(&Street::target())).await.unwrap();
            let kept = mute.accept().await.unwrap();
            let heard = client.hear_out().await;
            assert_is_at(net.elapsed(), NEGOTIATE_SECS_MAX);
            assert!(heard.bytes.starts_with(told) && heard.ending == Ending::End, "{:?}", heard.bytes);
            drop((client, kept));
            house.empties(REFUSAL_SECS_MAX).await;
        });
    }
}

#[test]
fn a_way_that_is_broken_or_has_no_servers_yet_never_becomes_a_direct_one() {
    let nowhere = || Address::Ip(door(9));
    for route in [
        Route::parent(Parent::socks5(nowhere(), None)),
        Route::servers(vec![server(8), server(9)]),
        Route::servers(Vec::new()),
    ] {
        one_seed(1, |net, _| {
            let route = route.clone();
            async move {
                let _target = net.listen(TARGET, Link::plain());
                let house = House::new(&net);
                house.open(inbound(0, proxy(), route), Link::plain());
                for _ in 0..3 {
                    let client = enter(&net).await;
                    assert_ne!(client.ask_socks5(&Street::target(), b"").await.unwrap(), 0);
                }
                assert_eq!(net.dials_to(TARGET), 0);
                house.empties(REFUSAL_SECS_MAX).await;
            }
        });
    }
}

#[test]
fn a_tunnel_reaches_its_target_before_the_client_has_said_anything() {
    for plan in [Plan::direct(), Plan::pair(METHOD), Plan::pair(Method::Blake3Aes256Gcm)] {
        let plan = &Plan { entrance: Entrance::Tunnel, ..plan };
        one_seed(1, |net, _| async move {
            let mut street = Street::lay(&net, plan);
            let client = street.enter().await;
            let target = street.arrive().await;
            target.say(b"220 ready\r\n").await.unwrap();
            assert_eq!(client.hear(11).await.unwrap(), b"220 ready\r\n");
            assert!(net.elapsed() <= FIRST_FLIGHT * 2 + Duration::from_millis(1), "{:?}", net.elapsed());
        });
    }
}

#[test]
fn a_tunnel_whose_target_is_not_there_ends_with_a_reset() {
    one_seed(1, |net, _| async move {
        net.absent(TARGET, Absence::Refuses);
        let house = House::new(&net);
        house.open(inbound(0, Protocol::Tunnel { target: Street::target() }, Route::direct()), Link::plain());
        let heard = enter(&net).await.hear_out().await;
        assert_eq!(heard, Heard { bytes: Vec::new(), ending: Ending::Reset });
    });
}

#[test]
fn a_header_that_does_not_come_is_waited_for_as_long_as_any_handshake() {
    for protocol in [proxy(), shadowsocks(), Protocol::Tunnel { target: Street::target() }] {
        let protocol = &protocol;
        for said in [&b""[..], b"PROXY TCP4 192.0.2.1 "] {
            one_seed(1, |net, _| async move {
                let expect_from = Arc::new([format!("{DIALLER}/32").parse().unwrap()]);
                let proxy_header = ProxyHeader { expect_from, send: None };
                let house = House::new(&net);
                house.open(
                    Inbound { proxy_header, ..inbound(0, protocol.clone(), Route::direct()) },
                    Link::plain(),
                );
                let client = enter(&net).await;
                if !said.is_empty() {
                    client.say(said).await.unwrap();
                }
                assert!(client.hear_out().await.bytes.is_empty());
                assert_is_at(net.elapsed(), HANDSHAKE_SECS_MAX);
                assert_eq!(net.dials_to(TARGET), 0);
                drop(client);
                house.empties(REFUSAL_SECS_MAX).await;
            });
        }
    }
}

#[test]
fn an_http_head_without_end_is_let_go_at_the_deadline() {
    one_seed(1, |net, _| async move {
        let house = House::new(&net);
        house.open(inbound(0, proxy(), Route::direct()), Link::plain());
        let client = enter(&net).await;
        client.say(b"GET http://203.0.113.9/ HTTP/1.1\r\n").await.unwrap();
        let trickle = async {
            while client.say(b"A: b\r\n").await.is_ok() && net.elapsed() < HANDSHAKE_SECS_MAX {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let listen = async {
            assert!(client.hear_out().await.bytes.is_empty());
            assert_is_at(net.elapsed(), HANDSHAKE_SECS_MAX);
        };
        tokio::join!(trickle, listen);
        drop(client);
        house.empties(REFUSAL_SECS_MAX).await;
    });
}

#[test]
fn a_wrong_name_and_a_wrong_password_get_the_same_bytes_at_the_same_time() {
    let users = umbra_proto::users::Users::new(
        [1; 32],
        [umbra_proto::users::Credentials::new("alice", "secret").unwrap()],
    );
    let door = ProxyDoor { users: Some(Arc::new(users.unwrap())), ..ProxyDoor::MIXED };
    let protocol = &Protocol::Proxy(door);
    let requests: [[&[u8]; 3]; 2] = [
        [
            b"\x05\x01\x02\x01\x05alice\x05wrong",
            b"\x05\x01\x02\x01\x05alicf\x06secret",
            b"\x05\x01\x02\x01\x01x\x01y",
        ],
        [
            b"GET http://203.0.113.9/ HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6d3Jvbmc=\r\n\r\n",
            b"GET http://203.0.113.9/ HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2Y6c2VjcmV0\r\n\r\n",
            b"CONNECT 203.0.113.9:443 HTTP/1.1\r\n\r\n",
        ],
    ];
    for requests in requests {
        one_seed(1, |net, _| async move {
            let house = House::new(&net);
            house.open(inbound(0, protocol.clone(), Route::direct()), Link::plain());
            let mut told = Vec::new();
            for request in requests {
                let began = Instant::now();
                let client = enter(&net).await;
                client.say(request).await.unwrap();
                told.push((client.hear_out().await, began.elapsed()));
            }
            assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
            assert_eq!(net.dials_to(TARGET), 0);
        });
    }
}
