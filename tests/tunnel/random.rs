//! Runs of random transitions: some of fixed seeds always, as many as there is time for by `scripts/soak`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::runner::run;
use super::tally::Tally;

/// `VPN_SEED=N` runs that seed alone.
#[test]
fn whatever_happens_every_flow_sees_what_it_must_and_nothing_else() {
    let mut total = Tally::default();
    match number("VPN_SEED") {
        Some(seed) => total += run(seed).tally,
        None => {
            (0..QUICK_SEEDS).for_each(|seed| total += run(seed).tally);
            assert!(total.whole.flows >= LEAST_FLOWS, "too many flows were excused: {total}");
            assert!(total.whole.inbound >= LEAST_FLOWS / 10, "too few from the server's side: {total}");
            assert!(total.whole.bytes >= LEAST_BYTES, "too many bytes were excused: {total}");
        }
    }
    eprintln!("{total}");
}

#[test]
fn a_seed_gives_the_same_packets_at_the_same_times_again() {
    for seed in 1_000_000..1_000_003 {
        assert_eq!(run(seed).transcript, run(seed).transcript, "seed {seed}");
    }
}

/// Runs seed after seed for `VPN_SOAK_SECONDS`, from `VPN_SEED` on; ends with the first that fails.
#[test]
#[ignore = "runs as long as it is told to: scripts/soak"]
fn soak() {
    let first = number("VPN_SEED").expect("VPN_SEED");
    let seconds = number("VPN_SOAK_SECONDS").expect("VPN_SOAK_SECONDS");
    let soak = Soak::new(first, Duration::from_secs(seconds));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..workers).for_each(|_| {
            scope.spawn(|| soak.work());
        });
    });
    eprintln!("{}", soak.total.into_inner().expect("no run has failed"));
}

/// Seeds for many threads, and what came of them.
struct Soak {
    next: AtomicU64,
    end: Instant,
    has_failed: AtomicBool,
    total: Mutex<Tally>,
}

#[expect(clippy::disallowed_methods, reason = "how long it runs is a matter of real time")]
impl Soak {
    fn new(first: u64, time: Duration) -> Self {
        Self {
            next: AtomicU64::new(first),
            end: Instant::now() + time,
            has_failed: AtomicBool::new(false),
            total: Mutex::default(),
        }
    }

    fn work(&self) {
        let _guard = Failure(&self.has_failed);
        while Instant::now() < self.end && !self.has_failed.load(Ordering::Relaxed) {
            let report = run(self.next.fetch_add(1, Ordering::Relaxed));
            let mut total = self.total.lock().expect("nothing fails in here");
            *total += report.tally;
            if total.seeds.is_multiple_of(PROGRESS_EVERY) {
                eprintln!(
                    "{} seeds, {:.0} MB and {} datagrams checked",
                    total.seeds,
                    total.megabytes(),
                    total.datagrams
                );
            }
        }
    }
}

/// Tells the other threads that this one panics.
struct Failure<'a>(&'a AtomicBool);

impl Drop for Failure<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(std::thread::panicking(), Ordering::Relaxed);
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {value}")))
}

/// Our choice: about half a minute of the ordinary tests.
const QUICK_SEEDS: u64 = 150;

/// Flows that the quick seeds must leave without an excuse, with these bytes; else the model judges hardly anything.
const LEAST_FLOWS: u64 = 500;
const LEAST_BYTES: u64 = 200_000_000;

const PROGRESS_EVERY: u64 = 500;
