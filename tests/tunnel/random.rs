//! Runs of random transitions: some of fixed seeds always, as many as there is time for by `scripts/soak`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::runner::run;
use super::tally::Tally;

/// `VPN_SEED=N` runs that seed alone.
#[test]
fn whatever_happens_every_flow_sees_what_it_must_and_nothing_else() {
    let mut total = Tally::default();
    match number("VPN_SEED") {
        Some(seed) => total += run(seed).tally,
        None => (0..QUICK_SEEDS).for_each(|seed| total += run(seed).tally),
    }
    eprintln!("{total}");
}

#[test]
fn a_seed_gives_the_same_packets_at_the_same_times_again() {
    for seed in 1_000_000..1_000_003 {
        assert_eq!(run(seed).transcript, run(seed).transcript, "seed {seed}");
    }
}

/// Runs seed after seed for `VPN_SOAK_SECONDS`, from `VPN_SEED` on.
#[test]
#[ignore = "runs as long as it is told to: scripts/soak"]
#[expect(clippy::disallowed_methods, reason = "how long it runs is a matter of real time")]
fn soak() {
    let first = number("VPN_SEED").expect("VPN_SEED");
    let end = Instant::now() + Duration::from_secs(number("VPN_SOAK_SECONDS").expect("VPN_SOAK_SECONDS"));
    let (next, total) = (AtomicU64::new(first), Mutex::new(Tally::default()));
    let work = || {
        while Instant::now() < end {
            let report = run(next.fetch_add(1, Ordering::Relaxed));
            let mut total = total.lock().expect("no other run has failed");
            *total += report.tally;
            if total.seeds % PROGRESS_EVERY == 0 {
                eprintln!("{} seeds, {:.1} MB checked", total.seeds, total.bytes as f64 / 1e6);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    eprintln!("{}", total.into_inner().expect("no run has failed"));
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {value}")))
}

/// Our choice: about half a minute of the ordinary tests.
const QUICK_SEEDS: u64 = 150;

const PROGRESS_EVERY: u64 = 50;
