//! The clocks; only the shells read them, for the sans-IO layers.

use std::time::{Duration, Instant, SystemTime};

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the one place where the shells read this clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place where the shells read this clock")]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
