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
    start + since_boot().saturating_sub(booted)
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
    use std::process::Command;

    use super::*;

    /// A time namespace looks like a machine that has slept (time_namespaces(7)); only a new process enters one.
    #[test]
    fn a_suspend_is_time_that_has_passed() {
        const SLEPT: Duration = Duration::from_secs(3600);
        const INSIDE: &str = "VPN_TEST_HAS_SLEPT";
        if std::env::var_os(INSIDE).is_some() {
            let awake = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
            let asleep = since_boot().saturating_sub(awake);
            assert!(asleep >= SLEPT, "{asleep:?}");
            return;
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--time", "--boottime", &SLEPT.as_secs().to_string()]);
        unshare.arg(std::env::current_exe().unwrap()).env(INSIDE, "1");
        unshare.args(["--exact", "io::clock::tests::a_suspend_is_time_that_has_passed"]);
        let output = unshare.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 passed"), "{said}");
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
