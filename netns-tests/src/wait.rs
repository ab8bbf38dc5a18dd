//! The clock and waiting for conditions: the only place that pauses.
#![expect(
    clippy::disallowed_methods,
    reason = "the shell around real programs; a condition outside this process can only be asked for again and again"
)]

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The time now.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The machine's monotonic clock, the same in every process.
#[must_use]
pub fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Lets `time` pass, where a length of time is itself what is measured or tested, as that of a blackout.
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Asks `probe` until it gives a value.
///
/// # Errors
/// The probe's own error, or one that names `what` when `limit` is over.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if now() >= deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(PROBE_INTERVAL);
    }
}

/// Between two questions: short beside what programs take to start, long beside what a question costs.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
