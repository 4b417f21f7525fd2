//! The table beside a plain list, at its bounds, after a flood, and by the clock.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::*;

const WIDE: Bounds = Bounds { total: usize::MAX, per_source: usize::MAX };

fn ip(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

/// The same without any art: a list in order of activity.
#[derive(Debug)]
struct Naive {
    bounds: Bounds,
    list: VecDeque<Plain>,
}

#[derive(Clone, Debug, PartialEq)]
struct Plain {
    key: u8,
    source: IpAddr,
    active: Instant,
    is_settled: bool,
    value: u32,
    handle: Handle,
}

impl Naive {
    fn place(&self, handle: Handle) -> Option<usize> {
        self.list.iter().position(|plain| plain.handle == handle)
    }

    fn remove(&mut self, place: Option<usize>) -> Option<(Handle, u32)> {
        self.list.remove(place?).map(|plain| (plain.handle, plain.value))
    }

    fn displaced(&mut self, key: u8, source: IpAddr) -> Option<(Handle, u32)> {
        let same = self.list.iter().position(|plain| plain.key == key);
        if same.is_some() {
            return self.remove(same);
        }
        let of_source = self.list.iter().filter(|plain| plain.source == source).count();
        if of_source >= self.bounds.per_source {
            let oldest = self.list.iter().position(|plain| plain.source == source);
            return self.remove(oldest);
        }
        if self.list.len() >= self.bounds.total { self.remove(Some(0)) } else { None }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Insert { key: u8, source: u8 },
    Touch(usize),
    Remove(usize),
    Look,
    Pass(u64),
    Expire,
    Settle,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..24_u8, 0..5_u8).prop_map(|(key, source)| Act::Insert { key, source }),
        6 => any::<usize>().prop_map(Act::Touch),
        2 => any::<usize>().prop_map(Act::Remove),
        1 => Just(Act::Look),
        4 => (0..40_u64).prop_map(Act::Pass),
        2 => Just(Act::Expire),
        2 => Just(Act::Settle),
    ];
    prop::collection::vec(act, 0..400)
}

const TIMEOUT: Duration = Duration::from_millis(100);
const DELAY: Duration = Duration::from_millis(30);

fn play(bounds: Bounds, acts: Vec<Act>) {
    let mut now = Instant::now();
    let mut table = Table::new(bounds);
    let mut naive = Naive { bounds, list: VecDeque::new() };
    // Every handle there ever was: those of the dead must mean nobody.
    let mut handles: Vec<Handle> = Vec::new();
    for (number, act) in (0_u32..).zip(acts) {
        let chosen = |at: usize| if handles.is_empty() { None } else { Some(handles[at % handles.len()]) };
        match act {
            Act::Insert { key, source } => {
                let (handle, displaced) = table.insert(key, ip(source), now, number);
                assert_eq!(displaced, naive.displaced(key, ip(source)));
                let (source, value) = (ip(source), number);
                naive.list.push_back(Plain { key, source, active: now, is_settled: false, value, handle });
                handles.push(handle);
            }
            Act::Touch(at) => {
                let Some(handle) = chosen(at) else { continue };
                table.touch(handle, now);
                let Some(place) = naive.place(handle) else { continue };
                if naive.list[place].active < now {
                    let mut plain = naive.list.remove(place).unwrap();
                    (plain.active, plain.is_settled) = (now, false);
                    naive.list.push_back(plain);
                }
            }
            Act::Remove(at) => {
                let Some(handle) = chosen(at) else { continue };
                let place = naive.place(handle);
                assert_eq!(table.remove(handle), naive.remove(place).map(|(_, value)| value));
            }
            Act::Look => {
                let plain = || naive.list.iter().map(|plain| (plain.handle, plain.active, &plain.value));
                assert!(table.by_age(None).eq(plain()));
                let is_bounded = bounds.per_source < bounds.total;
                let of_source = |at: &usize| !is_bounded || naive.list[*at].source == ip(1);
                let places = (0..naive.list.len()).filter(of_source);
                assert!(table.by_age(Some(ip(1))).eq(places.filter_map(|at| plain().nth(at))));
            }
            Act::Pass(millis) => now += Duration::from_millis(millis),
            Act::Expire => {
                while let Some(expired) = table.expire(now, TIMEOUT) {
                    assert!(now - naive.list[0].active >= TIMEOUT);
                    assert_eq!(Some(expired), naive.remove(Some(0)));
                }
                assert!(naive.list.iter().all(|plain| now - plain.active < TIMEOUT));
            }
            Act::Settle => {
                for plain in &mut naive.list {
                    if !plain.is_settled && now - plain.active >= DELAY {
                        plain.is_settled = true;
                        assert_eq!(table.settle(now, DELAY).copied(), Some(plain.value));
                    }
                }
                assert_eq!(table.settle(now, DELAY), None);
            }
        }
        agree(&mut table, &naive, &handles);
    }
}

fn agree(table: &mut Table<u8, u32>, naive: &Naive, handles: &[Handle]) {
    assert_eq!(table.len(), naive.list.len());
    assert!(table.entries.places() <= table.bounds.total.saturating_add(63));
    for key in 0..24 {
        let plain = naive.list.iter().find(|plain| plain.key == key);
        assert_eq!(table.find(&key), plain.map(|plain| plain.handle));
    }
    for handle in handles {
        let value = naive.place(*handle).map(|place| naive.list[place].value);
        assert_eq!((table.get(*handle).copied(), table.get_mut(*handle).copied()), (value, value));
    }
    let mut order = Vec::new();
    let mut next = table.order.oldest;
    while let Some(number) = next {
        order.push(table.entries.get(number).unwrap().1);
        next = table.links(number, List::All).newer;
    }
    assert_eq!(order, naive.list.iter().map(|plain| plain.value).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_plain_list_does(total in 1..20_usize, per_source in 1..20_usize, acts in acts()) {
        play(Bounds { total, per_source }, acts);
    }
}

#[test]
fn at_the_bound_of_a_source_its_own_oldest_goes_and_others_stay() {
    let mut table = Table::new(Bounds { total: 10, per_source: 2 });
    let now = Instant::now();
    let (other, _) = table.insert(0, ip(1), now, 'a');
    let (first, _) = table.insert(1, ip(2), now, 'b');
    let (second, _) = table.insert(2, ip(2), now, 'c');
    table.touch(first, now + Duration::from_secs(1));
    let (_, displaced) = table.insert(3, ip(2), now + Duration::from_secs(2), 'd');
    assert_eq!(displaced, Some((second, 'c')));
    assert_eq!((table.get(other), table.get(first), table.get(second)), (Some(&'a'), Some(&'b'), None));
}

#[test]
fn at_the_bound_of_all_the_longest_idle_one_goes() {
    let mut table = Table::new(Bounds { total: 3, per_source: 3 });
    let now = Instant::now();
    let handles = [1, 2, 3].map(|key| table.insert(key, ip(key), now, key).0);
    table.touch(handles[0], now + Duration::from_secs(1));
    let (_, displaced) = table.insert(4, ip(4), now + Duration::from_secs(2), 4);
    assert_eq!(displaced, Some((handles[1], 2)));
    assert_eq!(table.len(), 3);
}

#[test]
fn a_late_word_about_one_that_is_gone_reaches_nobody() {
    let mut table = Table::new(WIDE);
    let now = Instant::now();
    let (gone, _) = table.insert(1, ip(1), now, 'a');
    assert_eq!(table.remove(gone), Some('a'));
    let (present, _) = table.insert(1, ip(1), now, 'b');
    assert_eq!(gone.number, present.number);
    table.touch(gone, now + Duration::from_secs(9));
    assert_eq!((table.get_mut(gone).copied(), table.remove(gone)), (None, None));
    assert_eq!(table.expire(now + TIMEOUT, TIMEOUT), Some((present, 'b')));
}

#[test]
fn two_hundred_thousand_come_and_expire_and_the_table_ends_as_it_began() {
    let bounds = Bounds { total: 20_000, per_source: 5_000 };
    let mut table = Table::new(bounds);
    let mut now = Instant::now();
    let mut gone = 0;
    for number in 0..200_000_u32 {
        let port = u16::try_from(number % 50_000).unwrap();
        let source = ip(u8::try_from(number % 7).unwrap());
        let (_, displaced) = table.insert((SocketAddr::new(source, port), number), source, now, [0_u8; 100]);
        gone += usize::from(displaced.is_some());
        now += Duration::from_micros(50);
        if number % 1000 == 0 {
            gone += std::iter::from_fn(|| table.expire(now, Duration::from_millis(900))).count();
        }
        assert!(table.len() <= bounds.total && table.entries.places() <= bounds.total + 63);
    }
    now += TIMEOUT + Duration::from_secs(1);
    gone += std::iter::from_fn(|| table.expire(now, TIMEOUT)).count();
    assert_eq!((gone, table.len()), (200_000, 0));
    assert_eq!((table.entries.places(), table.sources.list.places()), (0, 0));
    assert!(table.numbers.capacity() <= 2 * ROOM_KEPT && table.sources.numbers.capacity() <= 2 * ROOM_KEPT);
    assert!(table.order.oldest.is_none() && table.order.newest.is_none() && table.settled.is_none());
}

#[test]
#[ignore = "measures; run alone and with optimisation: --release -- --ignored --nocapture"]
fn lookups_cost_the_same_with_fifty_and_with_fifty_thousand() {
    for (count, per_source) in [(50, 50), (50_000, 50_000), (50, 49), (50_000, 49_999)] {
        let bounds = Bounds { total: count, per_source };
        let mut table = Table::new(bounds);
        let mut now = Instant::now();
        let keys: Vec<_> = (0..count)
            .map(|number| {
                let port = u16::try_from(number).unwrap();
                SocketAddr::new(ip(u8::try_from(number % 200).unwrap()), port)
            })
            .collect();
        for key in &keys {
            table.insert(*key, key.ip(), now, [0_u8; 300]);
        }
        let rounds = 2_000_000;
        let started = std::time::Instant::now();
        let mut random = 1_u64;
        for _ in 0..rounds {
            // No order that the processor could foresee (xorshift).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = usize::try_from(random % u64::try_from(count).unwrap()).unwrap();
            now += Duration::from_nanos(1);
            let handle = table.find(black_box(&keys[at])).unwrap();
            table.touch(handle, now);
            black_box(table.get_mut(handle)).unwrap()[0] ^= 1;
        }
        let each = started.elapsed().as_nanos() / rounds;
        println!("{count} associations, per source {per_source}: {each} ns for a lookup and a touch");
    }
}
