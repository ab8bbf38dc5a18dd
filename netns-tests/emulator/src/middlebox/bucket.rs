//! A token bucket in virtual time.

use std::time::Instant;

use crate::lane::transmission_time;

/// A token bucket, kept as the time that what has passed would have taken at the rate.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    paid_until: Option<Instant>,
}

impl Bucket {
    /// Whether `bytes` more may pass now at `rate` bit/s with at most `burst` bytes at once; then they are taken out.
    pub(crate) fn take(&mut self, bytes: usize, rate: u64, burst: u64, now: Instant) -> bool {
        let start = self.paid_until.map_or(now, |paid| paid.max(now));
        let end = start + transmission_time(bytes as u64, rate);
        let passes = end - now <= transmission_time(burst, rate);
        if passes {
            self.paid_until = Some(end);
        }
        passes
    }

    /// Two buckets, one for each direction.
    pub(crate) const PAIR: [Self; 2] = [Self { paid_until: None }; 2];
}
