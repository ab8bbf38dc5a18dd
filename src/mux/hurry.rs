//! How fast the peer may open streams: each costs a socket of this host, and a connect to somebody.
//!
//! A token bucket in one number: when it would be full again (the "generic cell rate algorithm", ITU-T I.371).

use std::time::{Duration, Instant};

/// What is left of the peer's opens.
#[derive(Debug)]
pub(super) struct Hurry {
    every: Duration,
    full_at: Option<Instant>,
}

impl Hurry {
    /// At most `rate` opens a second, and [`BURST`] at once after a pause.
    pub(super) fn new(rate: u32) -> Self {
        Self { every: Duration::from_secs(1) / rate.max(1), full_at: None }
    }

    /// Takes one open, if one is left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        let has_left = full_at.saturating_duration_since(now) <= self.every * (BURST - 1);
        if has_left {
            self.full_at = Some(full_at + self.every);
        }
        has_left
    }
}

/// Our choice: as many as there may be streams, so that a program which opens all of them at once is not refused.
const BURST: u32 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any start will do for a test's own clock")]
    fn lets_a_burst_through_and_then_the_rate() {
        let (mut hurry, start) = (Hurry::new(5000), Instant::now());
        let mut granted = |now| (0..100_000).filter(|_| hurry.take(now)).count();
        assert_eq!(granted(start), 16_384);
        assert_eq!(granted(start + Duration::from_secs(1)), 5000);
        assert_eq!(granted(start + Duration::from_secs(1)), 0);
        assert_eq!(granted(start + Duration::from_secs(100)), 16_384);
    }
}
