//! The clocks; only the shells read them, for the sans-IO layers.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock, which goes on while the machine is suspended: to the other end of a tunnel no less time has passed.
///
/// What is compared with it must come from here, too: [`Instant`] itself stands still in a suspend.
pub fn now() -> Instant {
    static START: OnceLock<(Instant, Duration)> = OnceLock::new();
    let &(start, booted) = START.get_or_init(|| (awake(), since_boot()));
    later(start, booted, since_boot())
}

/// The instant of a time since boot, given another one with its own.
fn later(start: Instant, booted: Duration, since_boot: Duration) -> Instant {
    start + since_boot.saturating_sub(booted)
}

/// CLOCK_BOOTTIME: as CLOCK_MONOTONIC, with the time of suspends (clock_gettime(2)).
fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "the one place where the shells read this clock")]
fn awake() -> Instant {
    Instant::now()
}

/// The time of day, since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place where the shells read this clock")]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspend_is_time_that_has_passed() {
        let start = awake();
        let booted = Duration::from_secs(100);
        // An hour's sleep, of which the processor has seen a second.
        let woken = later(start, booted, booted + Duration::from_secs(3600));
        assert_eq!(woken - start, Duration::from_secs(3600));
    }

    #[test]
    fn it_goes_on_and_never_back() {
        let mut last = now();
        for _ in 0..1000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
        assert!(last.saturating_duration_since(awake()) < Duration::from_secs(1));
    }
}
