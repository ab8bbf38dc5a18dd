//! A rate of bytes over time, in integers.

use std::time::Duration;

/// Bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rate(u64);

impl Rate {
    /// Makes a rate of `bytes` per second.
    pub(crate) const fn per_second(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The rate of `bytes` in `time`; `None` in no time at all.
    pub(crate) fn of(bytes: u64, time: Duration) -> Option<Self> {
        (u128::from(bytes) * NANOS).checked_div(time.as_nanos()).map(|rate| Self(saturate(rate)))
    }

    /// The rate in bytes per second.
    pub(crate) const fn bytes_per_second(self) -> u64 {
        self.0
    }

    /// The bytes that pass in `time`.
    pub(crate) fn bytes_in(self, time: Duration) -> u64 {
        saturate(u128::from(self.0) * time.as_nanos() / NANOS)
    }

    /// The time `bytes` take.
    pub(crate) fn time_for(self, bytes: u64) -> Duration {
        Duration::from_nanos(saturate(u128::from(bytes) * NANOS / u128::from(self.0.max(1))))
    }

    /// The rate times `numerator / denominator`.
    pub(crate) fn scaled(self, numerator: u64, denominator: u64) -> Self {
        Self(saturate(u128::from(self.0) * u128::from(numerator) / u128::from(denominator.max(1))))
    }
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_bytes_into_time_and_back() {
        let rate = Rate::of(12_500, Duration::from_millis(1)).unwrap();
        assert_eq!(rate.bytes_per_second(), 12_500_000);
        assert_eq!(rate.time_for(12_500), Duration::from_millis(1));
        assert_eq!(rate.bytes_in(Duration::from_secs(2)), 25_000_000);
        assert_eq!(rate.scaled(5, 4), Rate::per_second(15_625_000));
    }

    #[test]
    fn has_no_rate_in_no_time() {
        assert_eq!(Rate::of(1, Duration::ZERO), None);
    }
}
