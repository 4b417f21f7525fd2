//! What tests of the running program stand on: the program, a target, and a session between them.

mod program;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

pub(crate) use program::{PATIENCE, Umbra, eventually};

/// A target that sends back what comes, until its end.
pub(crate) fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut copy = stream.try_clone().unwrap();
            thread::spawn(move || {
                let _a_reset_ends_it_too = std::io::copy(&mut copy, &mut stream);
                let _gone_already = stream.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

/// Sends `sent` through the SOCKS5 door at `door` to `target`, and gives what comes back.
pub(crate) fn exchange(door: SocketAddr, target: SocketAddr, sent: &[u8]) -> Result<Vec<u8>, String> {
    let SocketAddr::V4(target) = target else { panic!("an IPv4 target is wanted") };
    let io = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(door).map_err(io)?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = vec![5, 1, 0, 5, 1, 0, 1];
    request.extend(target.ip().octets());
    request.extend(target.port().to_be_bytes());
    stream.write_all(&request).map_err(io)?;
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).map_err(io)?;
    if reply[3] != 0 {
        return Err(format!("refused with {}", reply[3]));
    }
    let mut writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _the_reader_will_tell = writer.write_all(sent);
        });
        // Some plugins take the end of one direction for the end of both.
        let mut got = vec![0; sent.len()];
        stream.read_exact(&mut got).map_err(io)?;
        Ok(got)
    })
}

/// Waits until a few bytes come back: a plugin that is started again needs a moment before it listens.
pub(crate) fn assert_echoes(door: SocketAddr, target: SocketAddr) {
    eventually(|| match exchange(door, target, b"there and back") {
        Ok(got) if got == b"there and back" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
