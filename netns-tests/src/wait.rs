//! The clock and waiting for conditions: the only place that pauses.
#![expect(
    clippy::disallowed_methods,
    reason = "the shell around real programs; a condition outside this process can only be asked for again and again"
)]

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};

/// The time now.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The machine's monotonic clock, the same in every process.
#[must_use]
pub fn uptime() -> Duration {
    read_clock(ClockId::Monotonic)
}

/// The time of the kernel's stamps, since the epoch.
#[must_use]
pub(crate) fn wall_clock() -> Duration {
    read_clock(ClockId::Realtime)
}

/// The CPU time that the calling thread has used.
pub(crate) fn thread_cpu() -> Duration {
    read_clock(ClockId::ThreadCPUTime)
}

fn read_clock(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
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
