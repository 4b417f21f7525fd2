//! What the log says while people use it, and what it never says.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use crate::stage::{METHODS, Pair, accept, connect, echo, eventually, listener, open, read_to_end, reset};

/// Sessions that go well and ones that fail in every stage.
fn live(pair: &Pair) -> SocketAddr {
    let target = echo();
    let mut good = pair.open(target);
    good.write_all(b"payload-of-somebody").unwrap();
    good.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut good).0, b"payload-of-somebody");
    let closed = listener().local_addr().unwrap();
    let mut refused = pair.open(closed);
    refused.write_all(b"payload-of-somebody").unwrap();
    drop(read_to_end(&mut refused));
    let breaking = listener();
    let mut broken = pair.open(breaking.local_addr().unwrap());
    broken.write_all(b"payload-of-somebody").unwrap();
    let mut far = accept(&breaking);
    far.read_exact(&mut [0; 19]).unwrap();
    reset(far);
    drop(read_to_end(&mut broken));
    let mut name = connect(pair.local.address);
    name.write_all(
        b"\x05\x01\x00\x05\x01\x00\x03\x1bsomebody-private.invalid.tld\x00\x50payload-of-somebody",
    )
    .unwrap();
    name.shutdown(Shutdown::Write).unwrap();
    drop(read_to_end(&mut name));
    let mut wrong = connect(pair.local.address);
    // Letters alone could be the beginning of an HTTP request.
    wrong.write_all(b"\x16payload-of-somebody").unwrap();
    drop(read_to_end(&mut wrong));
    target
}

fn logs(verbosity: &[&str], mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for method in METHODS {
        let pair = Pair::with(method, verbosity, verbosity);
        let target = live(&pair);
        let mut stranger = connect(pair.server.address);
        let from = stranger.local_addr().unwrap();
        stranger.write_all(&[9; 200]).unwrap();
        let line = format!("ERROR    can not parse header when handling connection from {from}\n");
        pair.server.wait_for(&line);
        pair.server.wait_for(mark);
        eventually(|| if pair.local.log().contains(mark) { Ok(()) } else { Err(format!("no {mark}")) });
        let server = pair.server.log().replace(&line, "");
        for (log, own) in [(pair.local.log(), pair.local.address), (server, pair.server.address)] {
            for hidden in ["payload-of", crate::stage::SECRET, &crate::stage::SECRET[..20]] {
                assert!(!log.contains(hidden), "{hidden} in:\n{log}");
            }
            assert!(!log.contains("panic"), "{log}");
            found.push(
                log.replace(&format!("starting local at {own}"), "")
                    .replace(&format!("starting server at {own}"), ""),
            );
        }
        drop(open(pair.local.address, target));
    }
    found
}

#[test]
fn the_usual_log_says_what_failed_and_nobodys_address() {
    for log in logs(&[], "session failed") {
        let quiet = log.replace("listen on 127.0.0.1:0", "");
        assert!(!quiet.contains("127.0.0.1") && !quiet.contains("somebody"), "{log}");
    }
}

#[test]
fn the_talkative_logs_name_targets_but_keep_keys_and_payload() {
    for verbosity in ["-v", "-vv", "-vvv"] {
        logs(&[verbosity], "session failed");
    }
}
