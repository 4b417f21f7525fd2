//! Runs a scenario for each of many seeds, and says which one failed.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::{Instant, timeout};

use crate::chance::Chance;
use crate::net::SimNet;

/// Runs `scenario` once for each seed, each time on a runtime and a network of its own whose clock stands still while anything
/// can move. `count` seeds from 0 on, or `UMBRA_SEEDS` of them, or the one that `UMBRA_SEED` names.
///
/// # Panics
/// If a scenario does, or if it is not done after [`HANG`] of its clock.
pub fn each_seed<F: Future<Output = ()>>(count: u64, scenario: impl Fn(SimNet, Chance) -> F) {
    let number_of = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number_of("UMBRA_SEED") {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..number_of("UMBRA_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        one_seed(seed, &scenario);
    }
}

/// Runs `scenario` for one seed.
///
/// # Panics
/// As [`each_seed`] does.
pub fn one_seed<F: Future<Output = ()>>(seed: u64, scenario: impl Fn(SimNet, Chance) -> F) {
    note(String::new());
    let told = Told(seed);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without input and output needs nothing of the system");
    runtime.block_on(async {
        let mut chance = Chance::new(seed);
        let net = SimNet::new(chance.fork());
        let started = Instant::now();
        let ended = timeout(HANG, scenario(net, chance)).await;
        assert!(ended.is_ok(), "hangs: not done after {:?} of its own time", started.elapsed());
    });
    drop(told);
}

/// Says on the way out of a panic which seed it was.
struct Told(u64);

/// Says `text` as well, if the scenario that calls this comes to fail.
pub fn note(text: String) {
    NOTE.set(text);
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", NOTE.take());
            eprintln!("failed with seed {0}; UMBRA_SEED={0} runs it alone", self.0);
        }
    }
}

/// Longer than every deadline of the relay and every idle time of a test together.
pub const HANG: Duration = Duration::from_secs(7 * 24 * 3600);

thread_local! {
    static NOTE: RefCell<String> = RefCell::default();
}
