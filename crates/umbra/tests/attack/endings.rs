//! Very many sessions, and the end of the program in the middle of them.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use crate::stage::{METHODS, Pair, Umbra, echo, reset, target};

#[test]
fn thousands_of_short_sessions_all_work_and_leave_nothing() {
    const SESSIONS: usize = 5000;
    let pair = Pair::start(METHODS[0]);
    let echo = echo();
    // A target that ends as soon as it has answered, so that resets do not pile up there.
    let answering = target(|mut stream| {
        let _a_reset_may_come_first = stream.read_exact(&mut [0; 64]);
        let _the_same = stream.write_all(&[7; 64]);
    });
    let round = |sessions: usize| {
        thread::scope(|scope| {
            for lane in 0..4 {
                let (pair, share) = (&pair, sessions / 4);
                scope.spawn(move || {
                    for number in 0..share {
                        let orderly = (number + lane) % 2 == 0;
                        let mut client = pair.open(if orderly { echo } else { answering });
                        client.write_all(&[7; 64]).unwrap();
                        client.read_exact(&mut [0; 64]).unwrap();
                        if orderly {
                            client.shutdown(Shutdown::Write).unwrap();
                            assert_eq!(client.read(&mut [0]).unwrap(), 0);
                        } else {
                            reset(client);
                        }
                    }
                });
            }
        });
    };
    let descriptors = pair.descriptors();
    round(400);
    let resident = pair.resident_kib();
    round(SESSIONS);
    pair.assert_descriptors_return_to(descriptors);
    pair.assert_memory_returns_to(resident, 4 << 10);
}

#[test]
fn an_end_among_hundreds_of_live_sessions_is_quick_and_frees_the_port() {
    let echo = echo();
    for which in ["server", "local"] {
        let mut pair = Pair::start(METHODS[1]);
        let mut clients: Vec<_> = (0..500)
            .map(|number| {
                let mut client = pair.open(echo);
                client.write_all(&[1; 1000]).unwrap();
                // Some have bytes under way, some are quiet.
                if number % 2 == 1 {
                    client.read_exact(&mut [0; 1000]).unwrap();
                }
                client
            })
            .collect();
        let (ending, again) = if which == "server" {
            let address = pair.server.address.to_string();
            (&mut pair.server, vec!["server".into(), "--forbidden-ip=".into(), "-s".into(), address])
        } else {
            let address = pair.local.address.to_string();
            (&mut pair.local, vec!["local".into(), "-s".into(), "127.0.0.1:1".into(), "-b".into(), address])
        };
        let before = ending.address;
        let (code, took) = ending.end();
        assert_eq!(code, Some(0), "{which}");
        assert!(took < Duration::from_millis(1500), "{which}: {took:?}");
        let mut again: Vec<&str> = again.iter().map(String::as_str).collect();
        again.extend(["-m", METHODS[1], "-k", crate::stage::SECRET]);
        let successor = Umbra::start(&again);
        assert_eq!(successor.address, before, "{which}: the port is free at once");
        clients.truncate(1);
        assert!(clients[0].read_to_end(&mut Vec::new()).is_err(), "{which}: cut off is not the end");
        if which == "server" {
            pair.assert_serves();
        }
    }
}
