//! Thousands of doors in one process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use umbra_relay::Relay;
use umbra_relay::config::{Config, Protocol, Route};

use common::{before, inbound, open, shadowsocks_server, target};

/// Kilobytes of this process that are in memory.
fn resident_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn cpu() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).try_into().unwrap()
}

#[test]
fn two_thousand_doors_open_within_a_second_and_cost_nothing_while_nobody_comes() {
    // Two descriptors for each, and some for the rest.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let server = inbound(shadowsocks_server(), Route::direct());
    let config = Config { inbounds: vec![server; 2000], workers: NonZeroUsize::new(2).unwrap() };
    let empty = resident_kb();
    let began = Instant::now();
    let relay = Relay::start(&config).unwrap();
    let took = began.elapsed();
    let grown = resident_kb() - empty;
    std::thread::sleep(Duration::from_millis(300));
    let idle_from = cpu();
    std::thread::sleep(Duration::from_secs(1));
    let idle = cpu() - idle_from;
    eprintln!("{took:?} to open, {grown} KiB, {idle:?} in a second of rest");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(grown < 16 * 1024, "{grown} KiB");
    assert!(idle < Duration::from_millis(20), "{idle:?}");
    let (address, far) = target(|mut stream: TcpStream| {
        let mut heard = [0; 8];
        stream.read_exact(&mut heard).unwrap();
        heard
    });
    let pair = before(relay, 1234, Protocol::Tunnel { target: address.into() });
    open(pair.client.addresses()[0]).write_all(b"question").unwrap();
    assert_eq!(&far.join().unwrap(), b"question");
    pair.stop();
}
