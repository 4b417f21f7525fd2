//! Waits until plugins listen, so that the first session finds them.
//!
//! Whether they do is read from the system's table of sockets. To connect would have a plugin dial its server, and to bind its port would
//! take the port away from it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::Keeper;

/// Blocks until each plugin listens or has ended, all of them together for [`LISTEN_SECS_MAX`] at most, or until there `is_no_need` to
/// wait. A plugin that does not listen by then is told of. Where the system has no table of sockets (Linux has), nothing is waited for.
pub(crate) fn wait_until_listening(keepers: &[Arc<Keeper>], mut is_no_need: impl FnMut() -> bool) {
    let began = Instant::now();
    let mut awaited: Vec<_> = keepers.iter().collect();
    while !awaited.is_empty() {
        let listeners = match listeners() {
            Ok(listeners) => listeners,
            Err(why) => {
                debug!("nobody knows whether plugins listen, so they are not waited for: {why}");
                return;
            }
        };
        awaited.retain(|keeper| keeper.awaited().is_some_and(|wanted| !listen_for(&listeners, wanted)));
        if is_no_need() {
            return;
        }
        if began.elapsed() >= LISTEN_SECS_MAX {
            break;
        }
        if !awaited.is_empty() {
            thread::sleep(LOOK_AGAIN_MS);
        }
    }
    for keeper in awaited {
        let (subject, secs) = (keeper.subject(), LISTEN_SECS_MAX.as_secs());
        warn!("{subject} does not listen after {secs} s; sessions fail until it does");
    }
}

/// Whether one of the sockets at `listeners` takes connections to `wanted`.
fn listen_for(listeners: &[SocketAddr], wanted: SocketAddr) -> bool {
    let wanted_ip = wanted.ip().to_canonical();
    listeners.iter().filter(|listener| listener.port() == wanted.port()).any(|listener| {
        let ip = listener.ip().to_canonical();
        // One at :: takes IPv4 as well, unless it has said otherwise, which the table does not tell.
        let is_at_all = ip.is_unspecified() && (ip.is_ipv6() || wanted_ip.is_ipv4());
        // Who is to listen everywhere may take that as it likes.
        is_at_all || ip == wanted_ip || wanted_ip.is_unspecified()
    })
}

/// Where sockets of this network listen for TCP.
fn listeners() -> io::Result<Vec<SocketAddr>> {
    let mut all = listeners_in(BufReader::new(File::open(TABLE_OF_IPV4)?))?;
    // A system without IPv6 has no such table.
    if let Ok(table) = File::open(TABLE_OF_IPV6) {
        all.extend(listeners_in(BufReader::new(table))?);
    }
    Ok(all)
}

/// The addresses of the sockets that listen, from a table as in proc_pid_net(5). What is no line of one is passed over.
fn listeners_in(table: impl BufRead) -> io::Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for line in table.lines() {
        all.extend(listener_in(&line?));
    }
    Ok(all)
}

/// The local address of the socket that a line is about, if it listens.
fn listener_in(line: &str) -> Option<SocketAddr> {
    // The number of the line, the local address, the remote one, the state.
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != STATE_LISTEN {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    Some(SocketAddr::new(read_ip(ip)?, u16::from_str_radix(port, 16).ok()?))
}

/// An address as the kernel prints it: each 32 bits of it as a number of this machine, in eight hexadecimal digits.
fn read_ip(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let number = u32::from_str_radix(digits.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(u32::from_be_bytes(number.to_ne_bytes()))
    };
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bits = (0..4).try_fold(0, |bits, at| Some(bits << 32 | u128::from(word(at)?)))?;
            Some(Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}

/// Slow ones take a few hundred milliseconds. One that takes longer may have its reasons, and the doors are wanted for other servers too.
const LISTEN_SECS_MAX: Duration = Duration::from_secs(5);

/// Nobody notices so short a delay, and on a quiet machine to look takes less than a hundredth of it.
const LOOK_AGAIN_MS: Duration = Duration::from_millis(10);

/// Of this process's network, which its plugins share.
const TABLE_OF_IPV4: &str = "/proc/self/net/tcp";
const TABLE_OF_IPV6: &str = "/proc/self/net/tcp6";

/// TCP_LISTEN of Linux.
const STATE_LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;

    /// An address as this machine's kernel prints it.
    fn printed(address: SocketAddr) -> String {
        let octets = match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let words = octets.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
        let words: String = words.map(|word| format!("{word:08X}")).collect();
        format!("{words}:{:04X}", address.port())
    }

    fn line(local: &str, state: &str) -> String {
        let local = printed(local.parse().unwrap());
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 12345 1\n"
        )
    }

    fn read(table: &str) -> Vec<String> {
        listeners_in(table.as_bytes()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_table_reads_as_the_kernel_writes_it() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:5208 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0\n   \
            1: 0100007F:5209 0100007F:5208 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1\n";
        assert_eq!(read(table), ["127.0.0.1:21000"]);
        let table = "   0: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 0:0\n   \
            1: B80D0120000000000000000001000000:01BC 00000000000000000000000000000000:0000 0A 0:0\n";
        assert_eq!(read(table), ["[::1]:443", "[2001:db8::1]:444"]);
    }

    #[test]
    fn only_sockets_that_listen_are_read_and_no_line_is_a_danger() {
        let states: String = (1..=12).map(|state| line("127.0.0.1:1", &format!("{state:02X}"))).collect();
        assert_eq!(read(&states), ["127.0.0.1:1"]);
        for bad in ["", "\n", "0:", "0: 1 2 0A", "0: :1 2 0A", "0: 0100007F:1F900 2 0A", "0: ×100007F:1 2 0A"]
        {
            assert!(read(bad).is_empty(), "{bad}");
        }
        for cut in 0..64 {
            let whole = line("[2001:db8::1]:8080", "0A");
            assert!(read(&whole[..cut]).iter().all(|address| address == "[2001:db8::1]:8080"), "{cut}");
        }
    }

    #[test]
    fn who_listens_at_all_addresses_or_at_the_one_that_is_wanted_counts() {
        let serves = |listener: &str, wanted: &str| {
            let listeners = [listener.parse().unwrap()];
            listen_for(&listeners, wanted.parse().unwrap())
        };
        for listener in ["127.0.0.1:5", "0.0.0.0:5", "[::]:5", "[::ffff:127.0.0.1]:5", "[::ffff:0.0.0.0]:5"] {
            assert!(serves(listener, "127.0.0.1:5"), "{listener}");
        }
        for listener in ["127.0.0.1:6", "[::]:6", "192.0.2.1:5", "127.0.0.2:5", "[::1]:5"] {
            assert!(!serves(listener, "127.0.0.1:5"), "{listener}");
        }
        assert!(serves("[2001:db8::1]:5", "[2001:db8::1]:5") && serves("[::]:5", "[2001:db8::1]:5"));
        assert!(!serves("0.0.0.0:5", "[2001:db8::1]:5"));
        assert!(serves("192.0.2.1:5", "0.0.0.0:5") && serves("0.0.0.0:5", "[::]:5"));
        assert!(!listen_for(&[], "127.0.0.1:5".parse().unwrap()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_of_this_machine_is_seen_as_soon_as_it_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listen_for(&listeners().unwrap(), address));
        let stream = std::net::TcpStream::connect(address).unwrap();
        let near = stream.local_addr().unwrap();
        assert!(!listen_for(&listeners().unwrap(), near), "it is connected and does not listen");
    }
}
