//! The timestamp of message 1: TAI64N, 12 bytes that sort as the times do.
//!
//! ```text
//!      0                         8             12
//!      | 2^62 + 10 + Unix seconds | nanoseconds |     both big-endian
//! ```
//!
//! Source: <https://cr.yp.to/libtai/tai64.html>. Leap seconds are left out, as WireGuard does: only
//! the order matters.

use std::time::Duration;

/// A point in time by the sender's clock. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: u64,
    nanoseconds: u32,
}

impl Timestamp {
    /// Converts what a clock shows: the time since the Unix epoch.
    pub fn from_unix(since_epoch: Duration) -> Self {
        Self {
            seconds: UNIX_EPOCH.saturating_add(since_epoch.as_secs()),
            nanoseconds: since_epoch.subsec_nanos(),
        }
    }

    /// Returns max(now, last + 1 ns): the timestamp to send after `last`, whatever the clock did.
    pub fn after(last: Option<Self>, now: Self) -> Self {
        last.map_or(now, |last| now.max(last.next()))
    }

    /// Returns the timestamp one nanosecond later; the last one there is stays.
    pub fn next(self) -> Self {
        if self.nanoseconds < NANOSECONDS - 1 {
            return Self { nanoseconds: self.nanoseconds + 1, ..self };
        }
        match self.seconds.checked_add(1) {
            Some(seconds) => Self { seconds, nanoseconds: 0 },
            None => self,
        }
    }

    /// Writes the 12 bytes.
    pub fn to_bytes(self) -> [u8; TIMESTAMP_LEN] {
        let mut bytes = [0; TIMESTAMP_LEN];
        bytes[..8].copy_from_slice(&self.seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&self.nanoseconds.to_be_bytes());
        bytes
    }

    /// Reads 12 bytes. `None` if they hold a whole second of nanoseconds or more.
    pub fn from_bytes(bytes: [u8; TIMESTAMP_LEN]) -> Option<Self> {
        let (seconds, nanoseconds) = (bytes.first_chunk()?, bytes.last_chunk()?);
        let nanoseconds = u32::from_be_bytes(*nanoseconds);
        (nanoseconds < NANOSECONDS).then_some(Self { seconds: u64::from_be_bytes(*seconds), nanoseconds })
    }
}

/// Bytes of a TAI64N label.
pub const TIMESTAMP_LEN: usize = 12;

/// TAI64's label of 1970-01-01 00:00:00 UTC: 2^62, and the 10 s that TAI was ahead.
const UNIX_EPOCH: u64 = (1 << 62) + 10;

const NANOSECONDS: u32 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanoseconds: u32) -> Timestamp {
        Timestamp::from_unix(Duration::new(seconds, nanoseconds))
    }

    #[test]
    fn writes_tai64n() {
        // 1992-06-02 08:06:43 UTC: 400000002a2b2c2d on the TAI64 page, with 16 leap seconds more.
        let bytes = at(707_472_403, 5).to_bytes();
        assert_eq!(bytes, [0x40, 0, 0, 0, 0x2a, 0x2b, 0x2c, 0x1d, 0, 0, 0, 5]);
    }

    #[test]
    fn sorts_as_its_bytes_do() {
        let times = [at(0, 0), at(0, 999_999_999), at(1, 0), at(1 << 40, 1)];
        for pair in times.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].to_bytes() < pair[1].to_bytes());
            assert_eq!(Timestamp::from_bytes(pair[0].to_bytes()), Some(pair[0]));
        }
    }

    #[test]
    fn grows_even_where_the_clock_goes_back() {
        assert_eq!(Timestamp::after(None, at(5, 0)), at(5, 0));
        assert_eq!(Timestamp::after(Some(at(4, 0)), at(5, 0)), at(5, 0));
        assert_eq!(Timestamp::after(Some(at(5, 0)), at(5, 0)), at(5, 1));
        assert_eq!(Timestamp::after(Some(at(9, 999_999_999)), at(5, 0)), at(10, 0));
    }

    #[test]
    fn stays_at_the_last_timestamp_there_is() {
        let last = Timestamp { seconds: u64::MAX, nanoseconds: NANOSECONDS - 1 };
        assert_eq!(last.next(), last);
        assert_eq!(Timestamp::from_unix(Duration::MAX).seconds, u64::MAX);
    }

    #[test]
    fn refuses_a_second_of_nanoseconds() {
        let mut bytes = at(1, 0).to_bytes();
        bytes[8..].copy_from_slice(&NANOSECONDS.to_be_bytes());
        assert_eq!(Timestamp::from_bytes(bytes), None);
    }
}
