//! ikcp's own congestion control (nc=0; RFC 5681 in spirit): slow start, congestion avoidance, ssthresh; paced.
//!
//! As in ikcp: a fast resend sets ssthresh to half of what lies between snd_una and snd_nxt, and the window to ssthresh
//! plus the skips that made it (those have left the network); a timeout sets ssthresh to half the window, and the
//! window to one segment; ssthresh is never below two.
//!
//! Unlike ikcp, and why:
//! - It grows by the bytes acknowledged and not by one for each packet that moves `una` (RFC 3465): one packet may
//!   acknowledge a whole batch, and ours do.
//! - It begins with 10 segments and an ssthresh of the full window (RFC 6928, RFC 5681 §3.1). ikcp begins with 1 and 2,
//!   so its slow start ends after a round trip, and a long path takes minutes to fill.
//! - Congestion avoidance adds one segment in a round trip. ikcp adds a sixteenth of a segment for each packet more,
//!   which makes growth exponential again above 16.
//! - It is reduced once for all losses of a round trip, as RFC 6582 asks. ikcp does it at each flush that resends, many
//!   times in a round trip.
//! - A loss found by time counts as a fast resend; ikcp finds none in that way.
//! - A timeout takes the whole tail at once, so it counts once and not for each segment.
//! - It is paced, a little faster than a window in a round trip.

use std::time::{Duration, Instant};

use super::{Acks, Congestion};
use crate::kcp::rate::Rate;

/// A window that grows with acks and halves with losses.
#[derive(Debug)]
pub(crate) struct Loss {
    packet: u64,
    most: u64,
    /// Bytes that have left the network when a segment is resent for its skips.
    skipped: u64,
    window: u64,
    slow_start_threshold: u64,
    /// Losses of what was sent before belong to the last reduction.
    reduced_at: Option<Instant>,
    srtt: Option<Duration>,
}

impl Loss {
    /// Starts with a few packets of `packet` wire bytes; never grows above `most`. `fast_resend` skips make a loss.
    pub(crate) fn new(packet: u64, most: u64, fast_resend: u32) -> Self {
        Self {
            packet,
            most,
            skipped: packet.saturating_mul(u64::from(fast_resend)),
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

    fn on_loss(&mut self, _bytes: u64, sent_at: Instant, span: u64, now: Instant) {
        if self.reduced_at.is_some_and(|reduced| sent_at < reduced) {
            return;
        }
        self.reduced_at = Some(now);
        self.slow_start_threshold = (span / 2).max(FEWEST_PACKETS * self.packet);
        self.window = self.slow_start_threshold.saturating_add(self.skipped).min(self.most);
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
    fn doubles_each_round_in_slow_start() {
        let mut loss = Loss::new(1000, 1_000_000, 2);
        for window in [20_000, 40_000, 80_000] {
            loss.on_acks(&acks(loss.window()), start());
            assert_eq!(loss.window(), window);
        }
    }

    #[test]
    fn adds_a_packet_each_round_in_congestion_avoidance() {
        let now = start();
        let mut loss = Loss::new(1000, 1_000_000, 0);
        loss.on_loss(1000, now, 20_000, now);
        for window in [11_000, 12_000, 13_000] {
            loss.on_acks(&acks(loss.window()), now);
            assert_eq!(loss.window(), window);
        }
    }

    #[test]
    fn slow_start_ends_at_ssthresh() {
        let now = start();
        let mut loss = Loss::new(1000, 1_000_000, 2);
        loss.on_timeout(now);
        let windows: Vec<_> = (0..6)
            .map(|_| {
                loss.on_acks(&acks(loss.window()), now);
                loss.window()
            })
            .collect();
        assert_eq!(windows, [2000, 4000, 8000, 9000, 10_000, 11_000]);
    }

    #[test]
    fn never_grows_above_the_send_window() {
        let mut loss = Loss::new(1000, 12_000, 2);
        loss.on_acks(&acks(10_000), start());
        assert_eq!(loss.window(), 12_000);
    }

    #[test]
    fn fast_resend_halves_what_is_in_flight_and_adds_what_skipped_it() {
        let now = start();
        let mut loss = Loss::new(1000, 1_000_000, 3);
        loss.on_loss(1000, now, 8000, now);
        assert_eq!((loss.slow_start_threshold, loss.window()), (4000, 7000));
        let mut least = Loss::new(1000, 1_000_000, 3);
        least.on_loss(1000, now, 1000, now);
        assert_eq!((least.slow_start_threshold, least.window()), (2000, 5000));
    }

    #[test]
    fn reduces_once_for_the_losses_of_a_round() {
        let now = start();
        let later = now + Duration::from_millis(100);
        let mut loss = Loss::new(1000, 1_000_000, 0);
        loss.on_loss(1000, now, 10_000, later);
        loss.on_loss(1000, now, 6000, later);
        assert_eq!(loss.window(), 5000);
        loss.on_loss(1000, later, 5000, later);
        assert_eq!(loss.window(), 2500);
    }

    #[test]
    fn starts_over_from_one_packet_after_a_timeout() {
        let mut loss = Loss::new(1000, 1_000_000, 2);
        loss.on_timeout(start());
        assert_eq!((loss.window(), loss.slow_start_threshold), (1000, 5000));
    }

    #[test]
    fn paces_the_window_over_a_round_trip() {
        let mut loss = Loss::new(1000, 1_000_000, 2);
        assert_eq!(loss.pacing_rate(), None);
        loss.on_acks(&acks(0), start());
        assert_eq!(loss.pacing_rate(), Some(Rate::per_second(125_000)));
    }
}
