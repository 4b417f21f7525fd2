//! Slow readers, and time in which nothing happens.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::stage::{
    End, METHODS, Pair, accept, connect, echo, eventually, greeting, listener, pattern, read_to_end, target,
};

#[test]
fn two_hundred_slow_readers_cost_a_buffer_each_and_lose_nothing() {
    const READERS: usize = 200;
    const LEN: usize = 6 << 20;
    let pair = Pair::start(METHODS[0]);
    pair.assert_serves();
    let resident = pair.resident_kib();
    let payload = Arc::new(pattern(LEN));
    let (sent, written) = (Arc::clone(&payload), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&written);
    let source = target(move |mut stream| {
        for chunk in sent.chunks(1 << 16) {
            if stream.write_all(chunk).is_err() {
                return;
            }
            count.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    });
    let mut readers: Vec<_> = (0..READERS)
        .map(|_| {
            let mut client = connect(pair.local.address);
            client.write_all(&greeting(source)).unwrap();
            client
        })
        .collect();
    // Blocked, when no source has got rid of anything for a while.
    let (mut last, mut same) = (0, 0);
    eventually(|| {
        let so_far = written.load(Ordering::Relaxed);
        same = if so_far == last && so_far > 0 { same + 1 } else { 0 };
        last = so_far;
        if same > 40 { Ok(()) } else { Err(format!("{so_far} bytes and no standstill")) }
    });
    assert!(last < READERS * LEN, "nothing is blocked");
    let held = pair.resident_kib();
    for (held, before) in held.into_iter().zip(resident) {
        // 64 KiB for the blocked direction and 4 for the session; buffers that the two workers keep; the allocator's own.
        let bound = READERS * 68 + 2 * 16 * (256 + 64) + 4096;
        assert!(held - before < bound, "{} KiB of {bound}", held - before);
    }

    // Others go on, and so does the other direction of the same session.
    pair.assert_serves();
    let mut buffer = vec![0; LEN + 12];
    for reader in &mut readers {
        reader.read_exact(&mut buffer).unwrap();
        assert!(buffer[12..] == payload[..]);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
    drop(readers);
    pair.assert_memory_returns_to(resident, 6 << 10);
}

#[test]
fn a_blocked_direction_stops_neither_the_other_one_nor_other_sessions() {
    for method in METHODS {
        let pair = Pair::start(method);
        let target = listener();
        let mut near = pair.open(target.local_addr().unwrap());
        near.write_all(b"x").unwrap();
        let mut far = accept(&target);
        far.read_exact(&mut [0]).unwrap();
        // Downlink: as much as anything takes. Nobody reads it.
        let mut flooding = far.try_clone().unwrap();
        let flood = thread::spawn(move || flooding.write_all(&pattern(64 << 20)));
        eventually(|| {
            let waiting = near.peek(&mut [0; 1 << 16]).unwrap();
            if waiting == 1 << 16 { Ok(()) } else { Err(format!("{waiting} bytes wait")) }
        });
        let payload = pattern(8 << 20);
        let mut up = near.try_clone().unwrap();
        let sent = payload.clone();
        let writing = thread::spawn(move || {
            up.write_all(&sent).unwrap();
            up.shutdown(Shutdown::Write).unwrap();
        });
        let (got, end) = read_to_end(&mut far);
        writing.join().unwrap();
        assert!(got == payload && end == End::Orderly, "{method}: {} bytes, {end:?}", got.len());
        pair.assert_serves();
        assert!(!flood.is_finished());
        // The client goes; the flood finds nobody.
        drop(near);
        assert!(flood.join().unwrap().is_err());
    }
}

/// How long after `since` the stream ended.
fn ended_after(since: Instant, stream: &mut TcpStream) -> Duration {
    assert_eq!(read_to_end(stream), (vec![], End::Reset), "an idle session ends with a reset");
    since.elapsed()
}

#[test]
fn an_idle_session_ends_in_time_and_a_busy_one_does_not() {
    thread::scope(|scope| {
        scope.spawn(|| grow_idle(&Pair::with(METHODS[0], &["-t", "2"], &[])));
        scope.spawn(|| grow_idle(&Pair::with(METHODS[0], &[], &["-t", "2"])));
    });
}

fn grow_idle(pair: &Pair) {
    const IDLE: Duration = Duration::from_secs(2);
    let in_time = IDLE..IDLE + Duration::from_secs(1);
    let before = pair.descriptors();
    let target = listener();
    let echo = echo();
    let mut idle = pair.open(echo);
    let since = Instant::now();
    idle.write_all(b"x").unwrap();
    idle.read_exact(&mut [0]).unwrap();
    let idle = thread::spawn(move || ended_after(since, &mut idle));
    let mut chatty = pair.open(echo);
    let mut one_way = pair.open(target.local_addr().unwrap());
    one_way.write_all(b"x").unwrap();
    let mut far = accept(&target);
    let talking = Instant::now();
    let mut last = talking;
    while talking.elapsed() < 2 * IDLE {
        chatty.write_all(b"x").unwrap();
        chatty.read_exact(&mut [0]).unwrap();
        one_way.write_all(b"x").unwrap();
        // However long the pause comes to be on a machine that does something else.
        last = Instant::now();
        thread::sleep(IDLE / 8);
    }
    drop(chatty);
    let took = idle.join().unwrap();
    assert!(in_time.contains(&took), "{took:?}");
    let (got, end) = read_to_end(&mut far);
    let took = last.elapsed();
    assert!(got.len() > 10 && end == End::Reset);
    assert!(in_time.start - IDLE / 4 < took && took < in_time.end, "{took:?}");
    drop(one_way);
    pair.assert_descriptors_return_to(before);
}
