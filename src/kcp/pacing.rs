//! The pacer: spreads packets over time at the rate congestion control asks for.
//!
//! A virtual clock `free_at` runs ahead by the time each packet takes at the rate; packets may leave while it is not
//! ahead of the real one. It may lag behind by one burst after idleness, and by a good deal more when packets waited for
//! the clock and the host woke late: what was missed is caught up with, or a busy host would sink the rate for ever.

use std::time::{Duration, Instant};

use super::rate::Rate;

/// Decides when the next packet may leave.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// `None`: unpaced.
    rate: Option<Rate>,
    free_at: Instant,
    /// The same clock for what leaves beside KCP, at [`BESIDE_SHARE`] of the rate.
    beside_free_at: Instant,
    /// Packets waited for the clock the last time it was asked.
    is_waited_for: bool,
    /// The longest lateness that is made up for.
    catch_up: Duration,
    /// Wire bytes of a full packet.
    packet: u64,
}

impl Pacer {
    /// Starts unpaced; `packet` is the wire size of a full packet.
    pub(crate) fn new(packet: u64, now: Instant) -> Self {
        Self {
            rate: None,
            free_at: now,
            beside_free_at: now,
            is_waited_for: false,
            catch_up: CATCH_UP,
            packet,
        }
    }

    /// Sets the rate from now on, on a path of `srtt`; no rate lets everything leave at once.
    pub(crate) fn set_rate(&mut self, rate: Option<Rate>, srtt: Option<Duration>, now: Instant) {
        self.catch_up = srtt.map_or(CATCH_UP, |srtt| CATCH_UP.min(srtt / 2));
        if let (Some(old), Some(new)) = (self.rate, rate) {
            // A debt is owed in bytes: it takes less time at a higher rate.
            let debt = old.bytes_in(self.free_at.saturating_duration_since(now));
            if debt > 0 {
                self.free_at = now + new.time_for(debt);
            }
        }
        self.rate = rate;
    }

    /// Whether a packet may leave now.
    pub(crate) fn may_send(&self, now: Instant) -> bool {
        self.rate.is_none() || self.free_at <= now
    }

    /// Notes that packets wait for the clock.
    pub(crate) fn on_waited_for(&mut self) {
        self.is_waited_for = true;
    }

    /// Notes that nothing waits any more: what leaves later has not been held back by the clock.
    pub(crate) fn on_idle(&mut self) {
        self.is_waited_for = false;
    }

    /// When the next packet may leave, after [`Self::may_send`] said no.
    ///
    /// A little later than the very first moment, so that a fast sender does not wake for each packet.
    pub(crate) fn release(&self) -> Instant {
        let Some(rate) = self.rate else {
            return self.free_at;
        };
        self.free_at + GATHER.min(rate.time_for(self.burst(rate) / 2))
    }

    /// Charges a packet of `bytes` on the wire.
    pub(crate) fn debit(&mut self, bytes: u64, now: Instant) {
        if let Some(rate) = self.rate {
            let burst = rate.time_for(self.burst(rate));
            let lag = if self.is_waited_for { burst.max(self.catch_up) } else { burst };
            let earliest = now.checked_sub(lag).unwrap_or(now);
            self.free_at = self.free_at.max(earliest) + rate.time_for(bytes);
        }
    }

    /// Charges what left beside KCP's data without asking; returns how many bytes were charged.
    ///
    /// At most [`BESIDE_SHARE`] of the rate is charged, so that a flood of it cannot silence KCP.
    pub(crate) fn debit_beside(&mut self, bytes: u64, now: Instant) -> u64 {
        let Some(rate) = self.rate else {
            return bytes;
        };
        if self.beside_free_at > now {
            return 0;
        }
        let share = rate.scaled(BESIDE_SHARE.0, BESIDE_SHARE.1);
        let earliest = now.checked_sub(rate.time_for(self.burst(rate)));
        let free_at = self.beside_free_at.max(earliest.unwrap_or(now));
        self.beside_free_at = free_at + share.time_for(bytes);
        self.debit(bytes, now);
        bytes
    }

    fn burst(&self, rate: Rate) -> u64 {
        let most = MAX_BURST.max(2 * self.packet);
        rate.bytes_in(BURST).clamp(2 * self.packet, most)
    }
}

/// A burst is this much of the rate (what a NIC and a timer of 1 ms make of it anyway) …
const BURST: Duration = Duration::from_millis(1);
/// … and never more than one offloaded super-segment.
const MAX_BURST: u64 = 64 * 1024;
/// The longest lateness of the host that is made up for, or half a round trip: a queue is often as long as that, and has
/// emptied meanwhile. Our choice: longer than a scheduler's turns.
const CATCH_UP: Duration = Duration::from_millis(50);
/// How long packets are gathered before a blocked sender is woken; our choice: under a tenth of a percent of a long path.
const GATHER: Duration = Duration::from_micros(250);
/// The share of the rate that datagrams and pure acks can take from KCP's data; our choice.
const BESIDE_SHARE: (u64, u64) = (3, 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::tests::start;

    fn pacer(bytes_per_second: u64) -> (Pacer, Instant) {
        let now = start();
        let mut pacer = Pacer::new(1000, now);
        pacer.set_rate(Some(Rate::per_second(bytes_per_second)), None, now);
        (pacer, now)
    }

    fn drain(pacer: &mut Pacer, now: Instant) -> u64 {
        let mut sent = 0;
        while pacer.may_send(now) {
            pacer.debit(1000, now);
            sent += 1000;
        }
        sent
    }

    #[test]
    fn lets_a_burst_of_one_millisecond_leave_after_idleness() {
        let (mut pacer, now) = pacer(10_000_000);
        let later = now + Duration::from_secs(1);
        assert_eq!(drain(&mut pacer, later), 11_000);
    }

    #[test]
    fn holds_the_rate_over_time() {
        let (mut pacer, start) = pacer(1_000_000);
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(1) {
            sent += drain(&mut pacer, now);
            now = pacer.release();
        }
        assert!((995_000..=1_005_000).contains(&sent), "{sent}");
    }

    #[test]
    fn makes_up_for_a_host_that_wakes_late_but_not_for_idleness() {
        let (mut pacer, start) = pacer(1_000_000);
        let (mut now, mut sent) = (start, 0);
        while now < start + Duration::from_secs(1) {
            sent += drain(&mut pacer, now);
            pacer.on_waited_for();
            now = pacer.release() + Duration::from_millis(20);
        }
        assert!((950_000..=1_050_000).contains(&sent), "{sent}");
        pacer.on_idle();
        assert_eq!(drain(&mut pacer, now + Duration::from_secs(1)), 3000);
    }

    #[test]
    fn makes_up_for_no_more_than_a_queue_takes() {
        let (mut pacer, now) = pacer(1_000_000);
        drain(&mut pacer, now);
        pacer.on_waited_for();
        assert_eq!(drain(&mut pacer, now + Duration::from_secs(5)), 51_000);
    }

    #[test]
    fn may_send_at_the_release_it_named() {
        let (mut pacer, now) = pacer(1234);
        drain(&mut pacer, now);
        assert!(!pacer.may_send(now));
        assert!(pacer.may_send(pacer.release()));
    }

    #[test]
    fn a_flood_of_datagrams_leaves_a_quarter_to_kcp() {
        let (mut pacer, start) = pacer(1_000_000);
        let mut sent = 0;
        for step in 0..10_000 {
            let now = start + Duration::from_micros(100) * step;
            pacer.debit_beside(1000, now);
            sent += drain(&mut pacer, now);
        }
        assert!((200_000..300_000).contains(&sent), "{sent}");
    }

    #[test]
    fn does_not_hold_back_without_a_rate() {
        let now = start();
        let mut pacer = Pacer::new(1000, now);
        pacer.debit(1 << 40, now);
        assert!(pacer.may_send(now));
    }
}
