//! ikcp's own congestion control (RFC 5681 in spirit): slow start, congestion avoidance, ssthresh; paced.
//!
//! Unlike ikcp it grows by what was acknowledged and not by calls, and halves once a round trip, not once a flush.

use std::time::{Duration, Instant};

use super::{Acks, Congestion};
use crate::kcp::rate::Rate;

/// A window that grows with acks and halves with losses.
#[derive(Debug)]
pub(crate) struct Loss {
    packet: u64,
    most: u64,
    window: u64,
    slow_start_threshold: u64,
    /// Losses of what was sent before belong to the last reduction.
    reduced_at: Option<Instant>,
    srtt: Option<Duration>,
}

impl Loss {
    /// Starts with a few packets of `packet` wire bytes; never grows above `most`.
    pub(crate) fn new(packet: u64, most: u64) -> Self {
        Self {
            packet,
            most,
            window: INITIAL_PACKETS * packet,
            slow_start_threshold: most,
            reduced_at: None,
            srtt: None,
        }
    }
}

impl Congestion for Loss {
    fn on_acks(&mut self, acks: &Acks, _now: Instant) {
        self.srtt = acks.srtt;
        let growth = if self.window < self.slow_start_threshold {
            acks.bytes
        } else {
            self.packet * acks.bytes / self.window.max(1)
        };
        self.window = (self.window + growth).min(self.most);
    }

    fn on_loss(&mut self, _bytes: u64, sent_at: Instant, now: Instant) {
        if self.reduced_at.is_some_and(|reduced| sent_at < reduced) {
            return;
        }
        self.reduced_at = Some(now);
        self.slow_start_threshold = (self.window / 2).max(FEWEST_PACKETS * self.packet);
        self.window = self.slow_start_threshold;
    }

    fn on_timeout(&mut self, now: Instant) {
        self.reduced_at = Some(now);
        self.slow_start_threshold = (self.window / 2).max(FEWEST_PACKETS * self.packet);
        self.window = self.packet;
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn bounds_span(&self) -> bool {
        true
    }

    fn pacing_rate(&self) -> Option<Rate> {
        let per_round = Rate::of(self.window, self.srtt?)?;
        Some(per_round.scaled(PACING_GAIN.0, PACING_GAIN.1))
    }
}

/// RFC 6928: the first window.
const INITIAL_PACKETS: u64 = 10;
/// `IKCP_THRESH_MIN`.
const FEWEST_PACKETS: u64 = 2;
/// A little faster than the window in a round trip, so that the window stays the limit.
const PACING_GAIN: (u64, u64) = (5, 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::tests::start;

    fn acks(bytes: u64) -> Acks {
        Acks {
            bytes,
            delivered: 0,
            delivered_at_departure: None,
            in_flight: 0,
            rtt: None,
            srtt: Some(Duration::from_millis(100)),
            rate: None,
        }
    }

    #[test]
    fn doubles_in_slow_start_and_adds_a_packet_a_round_after() {
        let now = start();
        let mut loss = Loss::new(1000, 1_000_000);
        loss.on_acks(&acks(10_000), now);
        assert_eq!(loss.window(), 20_000);
        loss.on_loss(1000, now, now);
        assert_eq!(loss.window(), 10_000);
        loss.on_acks(&acks(10_000), now);
        assert_eq!(loss.window(), 11_000);
    }

    #[test]
    fn halves_once_for_the_losses_of_a_round() {
        let now = start();
        let later = now + Duration::from_millis(100);
        let mut loss = Loss::new(1000, 1_000_000);
        loss.on_loss(1000, now, later);
        loss.on_loss(1000, now, later);
        assert_eq!(loss.window(), 5000);
        loss.on_loss(1000, later, later);
        assert_eq!(loss.window(), 2500);
    }

    #[test]
    fn starts_over_from_one_packet_after_a_timeout() {
        let mut loss = Loss::new(1000, 1_000_000);
        loss.on_timeout(start());
        assert_eq!((loss.window(), loss.slow_start_threshold), (1000, 5000));
    }

    #[test]
    fn paces_the_window_over_a_round_trip() {
        let mut loss = Loss::new(1000, 1_000_000);
        assert_eq!(loss.pacing_rate(), None);
        loss.on_acks(&acks(0), start());
        assert_eq!(loss.pacing_rate(), Some(Rate::per_second(125_000)));
    }
}
