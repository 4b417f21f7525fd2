//! Groups over real sockets: whatever is wrong with a parent, the next one is tried in the same session before anything has been promised,
//! and every attempt is one connection.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

#[expect(dead_code, reason = "shared with other tests")]
mod common;
#[path = "common/parents.rs"]
mod parents;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use umbra_proto::address::Address;
use umbra_proto::shadowsocks::Method;
use umbra_proto::shadowsocks::identity::Credentials;
use umbra_proto::shadowsocks::stream::HeadReads;
use umbra_proto::socks4::client::UserId;
use umbra_relay::Relay;
use umbra_relay::config::{
    Candidate, Deadlines, Group, Hop, Mode, Parent, ParentProtocol, Path, Probe, ProbeKind, Protocol,
    ProxyDoor, Route, Server,
};
use umbra_relay::group::{Condition, Health, NoneLeft, Policy, Probing, Rounds, Settings};

use common::{inbound, run};
use parents::{Scripted, ask, hear_socks5, nobody, reset};

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// The path through the SOCKS5 proxies at `addresses`, which have little time.
fn path(name: &str, addresses: &[SocketAddr]) -> Candidate {
    let hops: Vec<_> =
        addresses.iter().map(|address| Hop::Parent(Parent::socks5((*address).into(), None))).collect();
    let mut path = Path::new(name, hops);
    path.deadlines = Deadlines { connect: SOON, negotiate: SOON };
    path.into()
}

/// The path through a Shadowsocks server, which is reached when it is connected to.
fn through_server(address: SocketAddr) -> Candidate {
    let server = Server {
        address: address.into(),
        mode: Mode::Streams,
        credentials: Credentials::from_password(Method::Aes256Gcm, "long enough").unwrap(),
        heads: HeadReads::One,
        one_time_auth: false,
    };
    Path::new("server", [Hop::Shadowsocks(server)]).into()
}

fn door(group: &Arc<Group>) -> Relay {
    run(inbound(PROXY, Route::Group(Arc::clone(group))))
}

/// A target that echoes to all that come.
fn echo() -> Scripted {
    Scripted::start(|mut stream| {
        let mut bytes = [0; 512];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            stream.write_all(&bytes[..count]).unwrap();
        }
    })
}

/// Whether a session passes.
fn passes(relay: &Relay, target: SocketAddr) -> bool {
    let (code, mut near) = ask(relay.addresses()[0], &target.into());
    if code != 0 {
        return false;
    }
    near.write_all(b"words").unwrap();
    let mut heard = [0; 5];
    near.read_exact(&mut heard).is_ok() && heard == *b"words"
}

/// What is wrong with a parent.
fn broken() -> Vec<(&'static str, Scripted)> {
    let mut all = vec![
        ("silent", Scripted::silent()),
        ("silent after its choice", Scripted::saying(b"\x05\x00")),
        ("silent in its reply", Scripted::saying(b"\x05\x00\x05\x00\x00")),
        ("wants none of our methods", Scripted::saying(b"\x05\xff")),
        ("wants a login that we have not", Scripted::saying(b"\x05\x02")),
        ("speaks HTTP", Scripted::saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        ("speaks without end", Scripted::saying(&[5; 70_000])),
        ("ends at once", Scripted::start(drop)),
        ("resets at once", Scripted::start(reset)),
        (
            "ends after the request",
            Scripted::start(|mut stream| {
                let _request = hear_socks5(&mut stream);
            }),
        ),
        (
            "resets in its reply",
            Scripted::start(|mut stream| {
                let _request = hear_socks5(&mut stream);
                let _gone_already = stream.write_all(&[5, 0, 0, 1]);
                reset(stream);
            }),
        ),
    ];
    all.extend([1, 2, 7, 9, 255].map(|code| ("denies", Scripted::answering(code))));
    all
}

#[test]
fn whatever_a_parent_does_wrong_the_next_one_serves_the_same_session() {
    let (good, target) = (run(inbound(PROXY, Route::direct())), echo());
    let trials = broken().into_iter().map(|(what, bad)| {
        let (good, target) = (good.addresses()[0], target.address);
        thread::spawn(move || {
            let settings = Settings { attempts_per_member: number(2), ..Settings::default() };
            let members = vec![path("bad", &[bad.address]), path("good", &[good])];
            let group = Arc::new(Group::new("parents", settings, members));
            let relay = door(&group);
            assert!(passes(&relay, target), "{what}");
            assert_eq!(bad.came(), 2, "{what}: each try is a connection");
            let health = group.health();
            assert_eq!((health[0].sessions_failed, health[1].sessions_reached), (2, 1), "{what}");
            assert_eq!(health[0].condition, Condition::Failing { failures: 1, threshold: 2 }, "{what}");
            relay.stop();
        })
    });
    let trials: Vec<_> = trials.collect();
    trials.into_iter().for_each(|trial| trial.join().unwrap());
    good.stop();
}

#[test]
fn parents_that_are_not_there_are_followed_by_the_next() {
    let (good, target) = (run(inbound(PROXY, Route::direct())), echo());
    let (full, _queued, _listening) = parents::full();
    for bad in [nobody(), full, "240.0.0.1:1".parse().unwrap()] {
        let members = vec![path("bad", &[bad]), path("good", &good.addresses()[..1])];
        let group = Arc::new(Group::new("parents", Settings::default(), members));
        let relay = door(&group);
        assert!(passes(&relay, target.address), "{bad}");
        assert_eq!(group.health()[0].sessions_failed, 1, "{bad}");
        relay.stop();
    }
    good.stop();
}

#[test]
fn attempts_are_as_many_as_are_allowed_and_no_more() {
    let bad = [(); 3].map(|()| Scripted::answering(1));
    let settings =
        Settings { attempts_per_member: number(2), attempts_max: number(5), ..Settings::default() };
    let members = bad.iter().map(|bad| path(&bad.address.to_string(), &[bad.address])).collect();
    let relay = door(&Arc::new(Group::new("parents", settings, members)));
    assert_eq!(ask(relay.addresses()[0], &"9.9.9.9:9".parse().unwrap()).0, 1);
    assert_eq!(bad.each_ref().map(Scripted::came), [2, 2, 1]);
    relay.stop();
}

#[test]
fn a_target_that_is_to_blame_is_asked_for_once_at_each_parent_and_nobody_is_held_to_it() {
    let bad = [8, 5, 1].map(Scripted::answering);
    let settings = Settings { attempts_per_member: number(2), ..Settings::default() };
    let members = bad[..2].iter().map(|bad| path(&bad.address.to_string(), &[bad.address]));
    let group = Arc::new(Group::new("parents", settings, members.collect()));
    let relay = door(&group);
    for session in 1..=3 {
        assert_eq!(ask(relay.addresses()[0], &"9.9.9.9:9".parse().unwrap()).0, 5);
        assert_eq!(bad.each_ref().map(Scripted::came), [session, session, 0]);
    }
    assert!(group.health().iter().all(|member| member.condition == Condition::Up));
    relay.stop();
    // What one of them says of the target is told, and not what is wrong with another.
    let members = bad[1..].iter().map(|bad| path(&bad.address.to_string(), &[bad.address]));
    let settings = Settings { attempts_max: number(2), ..settings };
    let settings = Settings { attempts_per_member: number(1), ..settings };
    let relay = door(&Arc::new(Group::new("parents", settings, members.collect())));
    assert_eq!(ask(relay.addresses()[0], &"9.9.9.9:9".parse().unwrap()).0, 5);
    assert_eq!(bad[2].came(), 1);
    relay.stop();
}

#[test]
fn what_may_be_said_of_the_target_is_held_against_nobody_unless_another_leads_there() {
    let (good, target) = (run(inbound(PROXY, Route::direct())), echo());
    let dead: Address = "9.9.9.9:9".parse().unwrap();
    let socks4 = || {
        Scripted::start(|mut stream| {
            let _request = stream.read(&mut [0; 512]);
            let _gone_already = stream.write_all(&[0, 91, 0, 0, 0, 0, 0, 0]);
        })
    };
    let http = |status: &'static str| {
        Scripted::start(move |mut stream| {
            let _request = stream.read(&mut [0; 512]);
            let _gone_already = write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
        })
    };
    let doubtful = [
        (ParentProtocol::Socks5(None), Scripted::answering(1)),
        (ParentProtocol::Socks5(None), Scripted::answering(2)),
        (ParentProtocol::Socks4(UserId::default()), socks4()),
        (ParentProtocol::Http(None), http("403")),
        (ParentProtocol::Http(None), http("500")),
    ];
    for (protocol, scripted) in doubtful {
        let doubtful = || {
            let parent =
                Parent { protocol: protocol.clone(), ..Parent::socks5(scripted.address.into(), None) };
            Candidate::from(Path::new("doubtful", [Hop::Parent(parent)]))
        };
        let other = Scripted::answering(5);
        let members = vec![doubtful(), path("other", &[other.address])];
        let group = Arc::new(Group::new("parents", Settings::default(), members));
        let relay = door(&group);
        for _ in 0..5 {
            assert_ne!(ask(relay.addresses()[0], &dead).0, 0);
        }
        assert_eq!((scripted.came(), other.came()), (5, 5), "each is asked by each session");
        let health = group.health();
        assert!(health.iter().all(|member| member.condition == Condition::Up && member.sessions_failed == 0));
        assert_eq!(group.paths()[0].counts().failed(), 5, "and it is counted that it has said no");
        relay.stop();
        let members = vec![doubtful(), path("good", &good.addresses()[..1])];
        let group = Arc::new(Group::new("parents", Settings::default(), members));
        let relay = door(&group);
        for _ in 0..3 {
            assert!(passes(&relay, target.address));
        }
        assert!(matches!(group.health()[0].condition, Condition::Down { .. }), "{:?}", group.health()[0]);
        assert_eq!(scripted.came(), 7, "and then it is left alone");
        relay.stop();
    }
    good.stop();
}

#[test]
fn who_cannot_reach_what_another_reaches_has_failed_unless_it_has_not_its_family() {
    let (good, target) = (run(inbound(PROXY, Route::direct())), echo());
    let http = |status: &'static str| {
        Scripted::start(move |mut stream| {
            let _request = stream.read(&mut [0; 512]);
            let _gone_already = write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
        })
    };
    let socks5 = |code| (ParentProtocol::Socks5(None), Scripted::answering(code), code != 8);
    let of_http = |status| (ParentProtocol::Http(None), http(status), true);
    let all = [3, 4, 5, 6, 8].map(socks5).into_iter().chain(["502", "503", "504"].map(of_http));
    for (protocol, scripted, is_blamed) in all {
        let parent = Parent { protocol, ..Parent::socks5(scripted.address.into(), None) };
        let settings = Settings { attempts_per_member: number(2), ..Settings::default() };
        let members =
            vec![Path::new("bad", [Hop::Parent(parent)]).into(), path("good", &good.addresses()[..1])];
        let group = Arc::new(Group::new("parents", settings, members));
        let relay = door(&group);
        for _ in 0..5 {
            assert!(passes(&relay, target.address));
        }
        let is_down = matches!(group.health()[0].condition, Condition::Down { .. });
        assert_eq!(is_down, is_blamed, "{:?}", group.health()[0]);
        assert_eq!(scripted.came(), if is_blamed { 2 } else { 5 }, "each session asks it once");
        relay.stop();
    }
    good.stop();
}

#[test]
fn whoever_asks_for_names_that_are_not_there_takes_out_no_http_parent() {
    for (status, told) in [("400", 1), ("404", 4), ("410", 4), ("451", 2), ("503", 1), ("407", 1)] {
        let parent = || {
            Scripted::start(move |mut stream| {
                let mut request = [0; 512];
                let length = stream.read(&mut request).unwrap_or(0);
                let status =
                    if request[..length].starts_with(b"CONNECT 127.0.0.1:") { "200" } else { status };
                let _gone_already = write!(stream, "HTTP/1.1 {status} Word\r\n\r\n");
                parents::wait(stream);
            })
        };
        let both = [parent(), parent()];
        let members = both.iter().map(|one| {
            let protocol = ParentProtocol::Http(None);
            let parent = Parent { protocol, ..Parent::socks5(one.address.into(), None) };
            Path::new(one.address.to_string(), [Hop::Parent(parent)]).into()
        });
        let settings = Settings { none_left: NoneLeft::Fail, ..Settings::default() };
        let group = Arc::new(Group::new("parents", settings, members.collect()));
        let relay = door(&group);
        for _ in 0..3 {
            assert_eq!(ask(relay.addresses()[0], &"nowhere.invalid:80".parse().unwrap()).0, told, "{status}");
        }
        let is_about_us = status == "407";
        let code = ask(relay.addresses()[0], &nobody().into()).0;
        assert_eq!(code != 0, is_about_us, "{status}: {:?}", group.health());
        relay.stop();
    }
}

#[test]
fn a_parent_that_is_back_and_cannot_reach_a_dead_target_is_up() {
    let (good, target) = (run(inbound(PROXY, Route::direct())), echo());
    let is_back = Arc::new(AtomicBool::new(false));
    let bad = Scripted::start({
        let is_back = Arc::clone(&is_back);
        move |mut stream| {
            if is_back.load(Ordering::SeqCst) && hear_socks5(&mut stream).is_some() {
                let _gone_already = stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
                parents::wait(stream);
            }
        }
    });
    let health = Health { fail_threshold: number(1), retry_time: SOON, ..Health::default() };
    let settings = Settings { health, ..Settings::default() };
    let members = vec![path("bad", &[bad.address]), path("good", &good.addresses()[..1])];
    let group = Arc::new(Group::new("parents", settings, members));
    let relay = door(&group);
    assert!(passes(&relay, target.address));
    is_back.store(true, Ordering::SeqCst);
    // It says the same of a target that another one reaches, and rests once more.
    eventually("a trial", || passes(&relay, target.address) && bad.came() == 2);
    assert!(matches!(group.health()[0].condition, Condition::Down { .. }), "{:?}", group.health()[0]);
    // Until then it is asked as well, since nobody else leads there; but not as one that is to show what it can.
    eventually("another trial", || {
        assert_eq!(ask(relay.addresses()[0], &nobody().into()).0, 5);
        group.health()[0].condition == Condition::Up
    });
    relay.stop();
    good.stop();
}

#[test]
fn a_shadowsocks_server_shows_nobody_to_be_wrong_about_a_target() {
    let listening = Scripted::silent();
    for bad in [1, 5].map(Scripted::answering) {
        let members = vec![path("honest", &[bad.address]), through_server(listening.address)];
        let group = Arc::new(Group::new("mixed", Settings::default(), members));
        let relay = door(&group);
        for session in 1..=5 {
            assert_eq!(ask(relay.addresses()[0], &nobody().into()).0, 0, "a server is taken at its word");
            assert_eq!(bad.came(), session);
        }
        assert_eq!(group.health()[0].condition, Condition::Up);
        relay.stop();
    }
}

#[test]
fn a_target_that_changes_its_mind_is_held_against_nobody() {
    // The first two sessions of every three are refused, whoever asks.
    let asked = Arc::new(AtomicUsize::new(0));
    let parent = || {
        let asked = Arc::clone(&asked);
        Scripted::start(move |mut stream| {
            if hear_socks5(&mut stream).is_some() {
                let code = u8::from(asked.fetch_add(1, Ordering::SeqCst) % 3 < 2);
                let _gone_already = stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
                parents::wait(stream);
            }
        })
    };
    let both = [parent(), parent()];
    let rounds = Rounds::UntilAttemptsEnd;
    let settings = Settings { attempts_max: number(4), rounds, ..Settings::default() };
    let members = both.iter().map(|one| path(&one.address.to_string(), &[one.address])).collect();
    let group = Arc::new(Group::new("parents", settings, members));
    let relay = door(&group);
    for _ in 0..5 {
        assert_eq!(ask(relay.addresses()[0], &nobody().into()).0, 0);
    }
    assert_eq!(both.each_ref().map(Scripted::came), [10, 5]);
    for member in group.health() {
        assert_eq!((member.condition, member.sessions_failed), (Condition::Up, 0));
    }
    relay.stop();
}

#[test]
fn a_hung_parent_is_left_alone_though_the_other_one_leads_to_each_target_at_the_second_try() {
    let (hung, asked) = (Scripted::saying(b"\x05\x00"), AtomicUsize::new(0));
    let wavering = Scripted::start(move |mut stream| {
        if hear_socks5(&mut stream).is_some() {
            let code = u8::from(asked.fetch_add(1, Ordering::SeqCst) % 2 == 0);
            let _gone_already = stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
            parents::wait(stream);
        }
    });
    let mut silent = Path::new("hung", [Hop::Parent(Parent::socks5(hung.address.into(), None))]);
    silent.deadlines = Deadlines { connect: SOON, negotiate: SOON };
    let settings = Settings { attempts_per_member: number(2), ..Settings::default() };
    let members = vec![silent.into(), path("wavering", &[wavering.address])];
    let group = Arc::new(Group::new("parents", settings, members));
    let relay = door(&group);
    for _ in 0..5 {
        assert_eq!(ask(relay.addresses()[0], &nobody().into()).0, 0);
    }
    assert_eq!([&hung, &wavering].map(Scripted::came), [4, 10], "two sessions find out");
    assert_eq!(group.health()[1].condition, Condition::Up);
    relay.stop();
}

#[test]
fn parents_that_wait_for_a_silent_target_or_break_off_for_its_sake_are_out_of_reach_only_if_another_leads_there()
 {
    let http = |mut stream: TcpStream| {
        let _request = stream.read(&mut [0; 512]);
        parents::wait(stream);
    };
    let kinds = [
        (ParentProtocol::Socks5(None), Scripted::saying(b"\x05\x00")),
        (ParentProtocol::Socks5(None), Scripted::start(|mut stream| drop(hear_socks5(&mut stream)))),
        (ParentProtocol::Http(None), Scripted::start(http)),
        (ParentProtocol::Socks4(UserId::default()), Scripted::start(http)),
    ];
    let (good, target) = (run(inbound(PROXY, Route::direct())), echo());
    for (protocol, scripted) in kinds {
        let waiting = |name| {
            let parent =
                Parent { protocol: protocol.clone(), ..Parent::socks5(scripted.address.into(), None) };
            let mut path = Path::new(name, [Hop::Parent(parent)]);
            path.deadlines = Deadlines { connect: SOON, negotiate: SOON };
            Candidate::from(path)
        };
        let health = Health { fail_threshold: number(1), ..Health::default() };
        let settings = Settings { health, none_left: NoneLeft::Fail, ..Settings::default() };
        let group = Arc::new(Group::new("all", settings, vec![waiting("one"), waiting("two")]));
        let relay = door(&group);
        for session in 1..=3 {
            assert_ne!(ask(relay.addresses()[0], &nobody().into()).0, 0);
            assert_eq!(scripted.came(), 2 * session, "each is asked by every session");
        }
        relay.stop();
        let members = vec![waiting("one"), path("good", &good.addresses()[..1])];
        let group = Arc::new(Group::new("one", settings, members));
        let relay = door(&group);
        assert!(passes(&relay, target.address));
        assert!(matches!(group.health()[0].condition, Condition::Down { .. }), "another one leads there");
        relay.stop();
    }
    good.stop();
}

#[test]
fn parents_that_are_silent_behind_the_question_or_deny_all_hide_no_other_however_few_the_attempts() {
    let (good, target) = (run(inbound(PROXY, Route::direct())), echo());
    let hung = Scripted::silent();
    let denying = Scripted::answering(1);
    let http = |name: &str| {
        let parent =
            Parent { protocol: ParentProtocol::Http(None), ..Parent::socks5(hung.address.into(), None) };
        let mut path = Path::new(name, [Hop::Parent(parent)]);
        path.deadlines = Deadlines { connect: SOON, negotiate: SOON };
        Candidate::from(path)
    };
    let good_path = || path("good", &good.addresses()[..1]);
    let groups = [
        (vec![http("hung"), good_path()], 1),
        (vec![http("hung"), http("too"), good_path()], 2),
        (vec![path("denying", &[denying.address]), good_path()], 1),
    ];
    for (members, attempts) in groups {
        let settings = Settings {
            attempts_max: number(attempts),
            none_left: NoneLeft::Fail,
            rounds: Rounds::UntilAttemptsEnd,
            ..Settings::default()
        };
        let group = Arc::new(Group::new("parents", settings, members));
        let relay = door(&group);
        // As often as it takes to suspect them.
        for _ in 0..2 {
            assert!(!passes(&relay, target.address));
        }
        for _ in 0..3 {
            assert!(passes(&relay, target.address));
        }
        relay.stop();
    }
    good.stop();
}

#[test]
fn a_hung_parent_in_front_of_a_shadowsocks_server_costs_two_sessions_their_time_and_no_more() {
    let (hung, listening) = (Scripted::silent(), Scripted::silent());
    let parent = Parent { protocol: ParentProtocol::Http(None), ..Parent::socks5(hung.address.into(), None) };
    let mut silent = Path::new("hung", [Hop::Parent(parent)]);
    silent.deadlines = Deadlines { connect: SOON, negotiate: SOON };
    let members = vec![silent.into(), through_server(listening.address)];
    let group = Arc::new(Group::new("mixed", Settings::default(), members));
    let relay = door(&group);
    for _ in 0..5 {
        assert_eq!(ask(relay.addresses()[0], &nobody().into()).0, 0);
    }
    assert_eq!(hung.came(), 2, "and then it is left alone");
    assert!(matches!(group.health()[0].condition, Condition::Down { .. }));
    relay.stop();
}

#[test]
fn a_parent_that_does_not_know_bind_is_well() {
    let parent = Scripted::answering(7);
    let group = Arc::new(Group::new("parents", Settings::default(), vec![path("one", &[parent.address])]));
    let relay = door(&group);
    for _ in 0..3 {
        let mut client = TcpStream::connect(relay.addresses()[0]).unwrap();
        client.write_all(b"\x05\x01\x00\x05\x02\x00\x01\x09\x09\x09\x09\x00\x09").unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer[3], 7);
    }
    assert_eq!((group.health()[0].condition, group.health()[0].sessions_failed), (Condition::Up, 0));
    relay.stop();
}

#[test]
fn a_path_whose_second_hop_is_dead_has_failed_whatever_the_first_one_says_of_it() {
    let (first, target) = (run(inbound(PROXY, Route::direct())), echo());
    let first_at = first.addresses()[0];
    let members = vec![path("broken", &[first_at, nobody()]), path("whole", &[first_at, first_at])];
    let group = Arc::new(Group::new("paths", Settings::default(), members));
    let relay = door(&group);
    assert!(passes(&relay, target.address));
    assert_eq!(group.health()[0].condition, Condition::Failing { failures: 1, threshold: 2 });
    relay.stop();
    first.stop();
}

#[test]
fn a_client_that_resets_while_a_silent_parent_is_tried_lets_go_of_it_and_does_not_count_against_it() {
    let (sender, gone) = mpsc::channel();
    let silent = Scripted::start(move |stream| {
        parents::wait(stream);
        sender.send(()).unwrap();
    });
    let mut path = Path::new("silent", [Hop::Parent(Parent::socks5(silent.address.into(), None))]);
    path.deadlines.negotiate = Duration::from_secs(600);
    let group = Arc::new(Group::new("parents", Settings::default(), vec![path.into()]));
    let relay = door(&group);
    let mut client = TcpStream::connect(relay.addresses()[0]).unwrap();
    client.write_all(b"\x05\x01\x00\x05\x01\x00\x01\x09\x09\x09\x09\x00\x09early words").unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
    eventually("the parent is asked", || silent.came() == 1);
    reset(client);
    gone.recv_timeout(Duration::from_secs(15)).unwrap();
    eventually("it is counted", || group.paths()[0].counts().abandoned == 1);
    assert_eq!((group.health()[0].condition, group.health()[0].sessions_failed), (Condition::Up, 0));
    relay.stop();
}

#[test]
fn a_client_that_has_said_all_and_ended_is_served_by_a_parent_that_takes_its_time() {
    let (sender, ended) = mpsc::channel();
    let ended = Mutex::new(ended);
    let slow = Scripted::start(move |mut stream| {
        let _request = hear_socks5(&mut stream);
        ended.lock().unwrap().recv().unwrap();
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        stream.write_all(&heard).unwrap();
    });
    let path = Path::new("slow", [Hop::Parent(Parent::socks5(slow.address.into(), None))]);
    let group = Arc::new(Group::new("parents", Settings::default(), vec![path.into()]));
    let relay = door(&group);
    let mut client = TcpStream::connect(relay.addresses()[0]).unwrap();
    client.write_all(b"\x05\x01\x00\x05\x01\x00\x01\x09\x09\x09\x09\x00\x09all there is").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    eventually("the parent is asked", || slow.came() == 1);
    sender.send(()).unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    assert_eq!((heard[3], &heard[2 + 10..]), (0, &b"all there is"[..]));
    relay.stop();
}

#[test]
fn the_patience_of_a_group_ends_a_session_and_the_silent_one_is_still_held_to_it() {
    let silent = [(); 2].map(|()| Scripted::silent());
    let members = silent.iter().map(|bad| {
        let hop = Hop::Parent(Parent::socks5(bad.address.into(), None));
        let mut path = Path::new(bad.address.to_string(), [hop]);
        path.deadlines = Deadlines { connect: SOON, negotiate: Duration::from_secs(30) };
        path.into()
    });
    let settings = Settings { patience: SOON * 3, ..Settings::default() };
    let group = Arc::new(Group::new("parents", settings, members.collect()));
    let (relay, began) = (door(&group), Instant::now());
    assert_eq!(ask(relay.addresses()[0], &"9.9.9.9:9".parse().unwrap()).0, 4);
    assert!((SOON * 3..SOON * 20).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(silent.each_ref().map(Scripted::came), [1, 0]);
    assert_eq!(group.health()[0].sessions_failed, 1);
    relay.stop();
}

#[test]
fn a_silent_parent_that_takes_all_the_patience_of_a_group_fails_and_the_next_session_goes_on() {
    let (good, target) = (run(inbound(PROXY, Route::direct())), echo());
    let (full, _queued, _listening) = parents::full();
    for tries in [1, 3] {
        let hop = Hop::Parent(Parent::socks5(full.into(), None));
        let mut bad = Path::new("bad", [hop]);
        // A connection may take longer than the group waits in all.
        bad.deadlines.connect = Duration::from_secs(600);
        let members = vec![bad.into(), path("good", &good.addresses()[..1])];
        let attempts_per_member = number(tries);
        let settings = Settings { attempts_per_member, patience: SOON, ..Settings::default() };
        let group = Arc::new(Group::new("parents", settings, members));
        let relay = door(&group);
        for _ in 0..2 {
            assert_eq!(ask(relay.addresses()[0], &target.address.into()).0, 4, "{tries}");
        }
        assert!(passes(&relay, target.address), "{tries}");
        let health = group.health();
        assert!(matches!(health[0].condition, Condition::Down { .. }), "{tries}: {:?}", health[0]);
        assert_eq!((health[0].sessions_failed, group.paths()[0].counts().abandoned), (2, 0), "{tries}");
        relay.stop();
    }
    good.stop();
}

#[test]
fn who_comes_last_and_has_little_time_left_is_not_judged_by_it() {
    let silent = [(); 2].map(|()| Scripted::silent());
    let member = |(bad, negotiate): (&Scripted, _)| {
        let mut path =
            Path::new(bad.address.to_string(), [Hop::Parent(Parent::socks5(bad.address.into(), None))]);
        path.deadlines = Deadlines { connect: Duration::from_secs(600), negotiate };
        path.into()
    };
    let members = silent.iter().zip([SOON, Duration::from_secs(600)]).map(member);
    let settings = Settings { patience: SOON * 2, ..Settings::default() };
    let group = Arc::new(Group::new("parents", settings, members.collect()));
    let relay = door(&group);
    assert_eq!(ask(relay.addresses()[0], &"9.9.9.9:9".parse().unwrap()).0, 4);
    assert_eq!(silent.each_ref().map(Scripted::came), [1, 1]);
    assert_eq!(group.health()[1].sessions_failed, 0);
    assert_eq!(group.paths()[1].counts().abandoned, 1);
    relay.stop();
}

#[test]
fn the_death_of_a_parent_costs_no_session() {
    let (one, two, target) =
        (run(inbound(PROXY, Route::direct())), run(inbound(PROXY, Route::direct())), echo());
    let members = vec![path("one", &one.addresses()[..1]), path("two", &two.addresses()[..1])];
    let group = Arc::new(Group::new("parents", Settings::default(), members));
    let relay = door(&group);
    (0..20).for_each(|_| assert!(passes(&relay, target.address)));
    one.stop();
    (0..40).for_each(|_| assert!(passes(&relay, target.address)));
    let health = group.health();
    assert_eq!((health[0].sessions_reached, health[0].sessions_failed), (20, 2), "then it is left alone");
    assert_eq!(health[1].sessions_reached, 40);
    relay.stop();
    two.stop();
}

#[test]
fn members_that_are_replaced_serve_no_session_that_begins_after_it() {
    let (one, two) = (Scripted::answering(5), Scripted::answering(5));
    let group = Arc::new(Group::new("parents", Settings::default(), vec![path("one", &[one.address])]));
    let relay = door(&group);
    let target: Address = "9.9.9.9:9".parse().unwrap();
    assert_eq!(ask(relay.addresses()[0], &target).0, 5);
    group.replace(vec![path("two", &[two.address])]);
    assert_eq!(ask(relay.addresses()[0], &target).0, 5);
    assert_eq!((one.came(), two.came()), (1, 1));
    group.replace(Vec::new());
    assert_eq!(ask(relay.addresses()[0], &target).0, 1);
    relay.stop();
}

/// Settings with probes as often as they may be.
fn probed(policy: Policy) -> Settings {
    let probing = Probing {
        interval: Duration::from_secs(1),
        rise: number(1),
        fall: number(1),
        unused_intervals: 60,
        ..Probing::default()
    };
    let health =
        Health { probing: Some(probing), retry_time: Duration::from_secs(3600), ..Health::default() };
    Settings { policy, health, ..Settings::default() }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(15), "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn probes_of_every_kind_take_a_member_out_and_bring_it_back() {
    let target = Scripted::start(|mut stream| {
        let _request = stream.read(&mut [0; 512]);
        let _gone_already = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
    });
    let http = umbra_relay::config::HttpProbe {
        target: target.address.into(),
        host: "there.example".into(),
        path: "/".into(),
        expect: [200..=203, 204..=204].into(),
    };
    let kinds = [ProbeKind::Connect, ProbeKind::Handshake(target.address.into()), ProbeKind::Http(http)];
    let trials = kinds.map(|kind| {
        thread::spawn(move || {
            let first = run(inbound(PROXY, Route::direct()));
            let at = first.addresses()[0];
            let members = vec![path("probed", &[at])];
            let probe = Probe { kind: kind.clone(), patience: SOON };
            let group = Group::new("parents", probed(Policy::Ordered), members).with_probe(probe);
            let group = Arc::new(group);
            let relay = door(&group);
            thread::sleep(SOON);
            assert_eq!(group.health()[0].probes_good, 0, "{kind:?}: nobody uses it");
            let _code = ask(relay.addresses()[0], &nobody().into());
            eventually(&format!("a good probe, {kind:?}"), || group.health()[0].probes_good > 0);
            first.stop();
            eventually("out", || matches!(group.health()[0].condition, Condition::Down { .. }));
            let again = umbra_relay::config::Inbound { listen: at, ..inbound(PROXY, Route::direct()) };
            let again = run(again);
            eventually("back", || group.health()[0].condition == Condition::Up);
            relay.stop();
            again.stop();
        })
    });
    trials.into_iter().for_each(|trial| trial.join().unwrap());
}

#[test]
fn a_probe_measures_a_member_where_it_does_what_sessions_do_and_no_other() {
    let target = Scripted::saying(b"HTTP/1.1 204 No Content\r\n\r\n");
    let http = umbra_relay::config::HttpProbe {
        target: target.address.into(),
        host: "there.example".into(),
        path: "/".into(),
        expect: [204..=204].into(),
    };
    let kinds = [
        (ProbeKind::Connect, false),
        (ProbeKind::Handshake(target.address.into()), true),
        (ProbeKind::Http(http), false),
    ];
    let parent = run(inbound(PROXY, Route::direct()));
    for (kind, measures) in kinds {
        let members = vec![path("probed", &parent.addresses()[..1])];
        let probe = Probe { kind: kind.clone(), patience: SOON };
        let group = Group::new("parents", probed(Policy::LeastLatency), members).with_probe(probe);
        let group = Arc::new(group);
        let relay = door(&group);
        assert_ne!(ask(relay.addresses()[0], &nobody().into()).0, 0, "no session measures it");
        eventually(&format!("a good probe, {kind:?}"), || group.health()[0].probes_good > 0);
        assert_eq!(group.health()[0].latency.is_some(), measures, "{kind:?}");
        relay.stop();
    }
    parent.stop();
}

#[test]
fn probes_go_on_where_the_relay_that_sent_them_has_ended_and_end_with_the_last() {
    let member = Scripted::answering(5);
    let probe = Probe { kind: ProbeKind::Connect, patience: SOON };
    let members = vec![path("member", &[member.address])];
    let group = Arc::new(Group::new("parents", probed(Policy::Ordered), members).with_probe(probe));
    let (one, two) = (door(&group), door(&group));
    let target: Address = "9.9.9.9:9".parse().unwrap();
    let _code = ask(one.addresses()[0], &target);
    eventually("a probe", || group.health()[0].probes_good > 0);
    one.stop();
    let before = group.health()[0].probes_good;
    let _code = ask(two.addresses()[0], &target);
    eventually("another probe", || group.health()[0].probes_good > before);
    two.stop();
    let last = member.came();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(member.came(), last, "no probe outlives its relay");
}

const PROXY: Protocol = Protocol::Proxy(ProxyDoor::MIXED);

const SOON: Duration = Duration::from_millis(500);
