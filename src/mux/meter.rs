//! How much moved on a stream lately, without a timer: nothing is done for a stream on which nothing moves.
//!
//! Bytes are counted in slots of a second of the stream's age, the present one and the one before:
//!
//! ```text
//!            |  before  |  present
//!   age  ────┼──────────┼────|───────>
//!                   '── now ─'   the last second: a share of the slot before, and the present one
//! ```

use std::time::Duration;

/// Bytes each way of one stream in its last second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// The stream's age in seconds when something last moved.
    slot: u32,
    sent: Slots,
    received: Slots,
}

/// Bytes one way; beyond 4 GiB a second they are counted as that.
#[derive(Clone, Copy, Debug, Default)]
struct Slots {
    present: u32,
    before: u32,
}

impl Meter {
    /// Counts `n` bytes to the peer; the stream is as old as `age`.
    pub(super) fn on_sent(&mut self, n: usize, age: Duration) {
        self.turn_to(age);
        self.sent.add(n);
    }

    /// Counts `n` bytes from the peer.
    pub(super) fn on_received(&mut self, n: usize, age: Duration) {
        self.turn_to(age);
        self.received.add(n);
    }

    /// Bytes sent and received in the second before the stream was as old as `age`.
    pub(super) fn lately(mut self, age: Duration) -> (u64, u64) {
        self.turn_to(age);
        (self.sent.lately(age), self.received.lately(age))
    }

    fn turn_to(&mut self, age: Duration) {
        let slot = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let passed = slot.saturating_sub(self.slot);
        if passed > 0 {
            self.slot = slot;
            self.sent.turn(passed);
            self.received.turn(passed);
        }
    }
}

impl Slots {
    fn add(&mut self, n: usize) {
        self.present = self.present.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
    }

    fn turn(&mut self, slots: u32) {
        self.before = if slots == 1 { self.present } else { 0 };
        self.present = 0;
    }

    fn lately(self, age: Duration) -> u64 {
        let left = u64::from(SECOND - age.subsec_nanos());
        u64::from(self.present) + u64::from(self.before) * left / u64::from(SECOND)
    }
}

/// In nanoseconds.
const SECOND: u32 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn says_what_moved_in_the_last_second() {
        let mut meter = Meter::default();
        meter.on_sent(1000, ms(300));
        meter.on_received(7, ms(900));
        assert_eq!(meter.lately(ms(900)), (1000, 7));
        // Of the slot before, as much as the last second reaches into it.
        assert_eq!(meter.lately(ms(1250)), (750, 5));
        assert_eq!(meter.lately(ms(1999)), (1, 0));
        assert_eq!(meter.lately(ms(2000)), (0, 0));
        assert_eq!(meter.lately(ms(500_000)), (0, 0));
    }

    #[test]
    fn a_steady_stream_has_its_rate_at_any_moment() {
        let mut meter = Meter::default();
        for tick in 0..5000 {
            meter.on_received(100, ms(tick));
            if tick >= 1000 {
                let (_, received) = meter.lately(ms(tick));
                assert!((99_900..=100_100).contains(&received), "{received} after {tick} ms");
            }
        }
    }

    #[test]
    fn counts_no_further_than_it_can() {
        let mut meter = Meter::default();
        meter.on_sent(usize::MAX, ms(0));
        meter.on_sent(usize::MAX, ms(1));
        assert_eq!(meter.lately(ms(1)), (u64::from(u32::MAX), 0));
        assert_eq!(meter.lately(Duration::MAX), (0, 0));
    }
}
