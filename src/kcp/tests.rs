//! Tests of the whole.
use std::time::Instant;

/// Some instant; virtual time is counted from it.
#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` cannot be made otherwise; nothing depends on which it is"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}
