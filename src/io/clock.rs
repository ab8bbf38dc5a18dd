//! The clocks; only the shells read them, for the sans-IO layers.

use std::time::{Instant, SystemTime};

use crate::crypto::Timestamp;

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the one place where the shells read this clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, as a handshake says it.
#[expect(clippy::disallowed_methods, reason = "the one place where the shells read this clock")]
pub fn wall() -> Timestamp {
    Timestamp::from_unix(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
