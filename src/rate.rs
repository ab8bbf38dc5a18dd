//! Token buckets: how often something may happen that others bring about, or that others must bear.

use std::time::{Duration, Instant};

/// One in each so much time, and so many at once after a pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    every: Duration,
    burst: u32,
}

impl Rate {
    /// `burst` is 1 at least.
    pub(crate) const fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst }
    }

    /// `count` and `burst` are 1 at least.
    pub(crate) const fn per_second(count: u32, burst: u32) -> Self {
        Self::new(Duration::from_nanos(1_000_000_000 / count as u64), burst)
    }

    /// How far ahead of the rate a burst may be.
    fn ahead(self) -> Duration {
        self.every * (self.burst - 1)
    }
}

/// A token bucket in one number: when it would be full again (the "generic cell rate algorithm", ITU-T I.371). It is full at
/// first, and asked with the same rate always.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// When there is one again, if there is none now.
    pub(crate) fn ready_at(self, rate: Rate, now: Instant) -> Option<Instant> {
        // Subtracted from a span: the clock may have begun less than a burst ago.
        let lead = self.full_at?.saturating_duration_since(now);
        lead.checked_sub(rate.ahead()).filter(|wait| !wait.is_zero()).map(|wait| now + wait)
    }

    pub(crate) fn has_left(self, rate: Rate, now: Instant) -> bool {
        self.ready_at(rate, now).is_none()
    }

    /// Takes so many, whether or not they are there.
    pub(crate) fn charge(&mut self, rate: Rate, count: u32, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |at| at.max(now)) + rate.every * count);
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let has_left = self.has_left(rate, now);
        if has_left {
            self.charge(rate, 1, now);
        }
        has_left
    }

    /// Gives one back that was taken.
    pub(crate) fn give_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.and_then(|at| at.checked_sub(rate.every));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any start will do for a test's own clock")]
    fn lets_a_burst_through_and_then_the_rate() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let rate = Rate::per_second(5000, 16_384);
        let mut granted = |now| (0..100_000).filter(|_| bucket.take(rate, now)).count();
        assert_eq!(granted(start), 16_384);
        assert_eq!(granted(start + Duration::from_secs(1)), 5000);
        assert_eq!(granted(start + Duration::from_secs(1)), 0);
        assert_eq!(granted(start + Duration::from_secs(100)), 16_384);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any start will do for a test's own clock")]
    fn says_when_there_is_one_again() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let rate = Rate::new(Duration::from_secs(3), 2);
        bucket.charge(rate, 4, start);
        assert_eq!(bucket.ready_at(rate, start), Some(start + Duration::from_secs(9)));
        bucket.give_back(rate);
        assert_eq!(bucket.ready_at(rate, start), Some(start + Duration::from_secs(6)));
        assert!(!bucket.has_left(rate, start + Duration::from_secs(5)));
        assert!(bucket.has_left(rate, start + Duration::from_secs(6)));
    }
}
