//! How much a path loses: measured from two counters, of what was sent and of what arrived.
//!
//! A carrier that is throttled to death loses more and more first. [`LossHistory`] says when that is far more than the session
//! is used to, so that another can be opened before.

use std::time::{Duration, Instant};

/// Packets of one direction of one carrier, since its first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Up to the last that is known to have been sent.
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
}

impl Counts {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { sent: self.sent + other.sent, arrived: self.arrived + other.arrived }
    }
}

/// The loss of one direction of one carrier, window by window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LossMeter {
    begun: Counts,
    begun_at: Instant,
    latest: Counts,
    recent: Option<f64>,
}

impl LossMeter {
    pub(crate) fn new(now: Instant) -> Self {
        Self { begun: Counts::default(), begun_at: now, latest: Counts::default(), recent: None }
    }

    /// Takes the counters as they are now; returns the share lost in the window that this completes, of 1.
    pub(crate) fn on_counts(&mut self, counts: Counts, now: Instant) -> Option<f64> {
        // Counters that a reordered report brings late say nothing new.
        if counts.sent < self.latest.sent || counts.arrived > counts.sent {
            return None;
        }
        self.latest = counts;
        let sent = counts.sent - self.begun.sent;
        let time = now.saturating_duration_since(self.begun_at);
        if time < SHORTEST_WINDOW || sent < FEWEST_PACKETS {
            return None;
        }
        let lost = share_lost(sent, counts.arrived.saturating_sub(self.begun.arrived));
        (self.begun, self.begun_at) = (counts, now);
        self.recent = Some(lost);
        Some(lost)
    }

    /// The share lost lately, or before the first window is complete at all, of 1.
    pub(crate) fn share(&self) -> f64 {
        self.recent.unwrap_or_else(|| share_lost(self.latest.sent, self.latest.arrived))
    }

    /// The same, if there is enough to measure by.
    pub(crate) fn measured(&self) -> Option<f64> {
        self.recent
    }
}

/// What a session's carriers have lost so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LossHistory {
    usual: Option<f64>,
    /// Bad windows in a row.
    bad: u32,
}

impl LossHistory {
    /// Takes the loss of a window of the carrier in use; returns whether it has climbed so far, and for so long, that another
    /// carrier is worth a try.
    pub(crate) fn on_window(&mut self, lost: f64) -> bool {
        let Some(usual) = self.usual else {
            self.usual = Some(lost);
            return false;
        };
        if lost < CLIMB_FACTOR * usual + CLIMB_LEAST {
            self.bad = 0;
            self.usual = Some(usual + (lost - usual) / MEMORY);
            return false;
        }
        self.bad += 1;
        self.bad >= BAD_WINDOWS
    }

    /// Another carrier was tried: what it loses is usual from now on.
    pub(crate) fn on_replaced(&mut self) {
        *self = Self::default();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share_lost(sent: u64, arrived: u64) -> f64 {
    if sent == 0 { 0.0 } else { sent.saturating_sub(arrived) as f64 / sent as f64 }
}

/// Our choice: long enough that one lost burst does not fill it.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

/// Our choice: a share of fewer means nothing.
const FEWEST_PACKETS: u64 = 50;

/// Our choice: lost lines vary by less than this from window to window, an ISP that throttles a flow takes more.
const CLIMB_FACTOR: f64 = 3.0;
const CLIMB_LEAST: f64 = 0.15;
const BAD_WINDOWS: u32 = 3;

/// Our choice: the usual loss follows in so many windows.
const MEMORY: f64 = 8.0;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use super::*;

    #[test]
    fn measures_window_by_window() {
        let start = Instant::now();
        let mut meter = LossMeter::new(start);
        let second = |n| start + Duration::from_secs(n);
        assert_eq!(meter.on_counts(Counts { sent: 10, arrived: 5 }, second(1)), None, "too few");
        assert!((meter.share() - 0.5).abs() < 1e-9);
        assert_eq!(meter.on_counts(Counts { sent: 100, arrived: 90 }, second(2)), Some(0.1));
        assert_eq!(meter.on_counts(Counts { sent: 90, arrived: 85 }, second(4)), None, "an old report");
        assert_eq!(meter.on_counts(Counts { sent: 200, arrived: 190 }, second(4)), Some(0.0));
        assert_eq!(meter.measured(), Some(0.0));
    }

    #[test]
    fn counters_that_cannot_be_are_ignored() {
        let mut meter = LossMeter::new(Instant::now());
        assert_eq!(meter.on_counts(Counts { sent: 1, arrived: u64::MAX }, Instant::now()), None);
        assert!(meter.share().abs() < 1e-9);
    }

    #[test]
    fn a_loss_that_climbs_and_stays_is_worth_another_carrier() {
        let mut history = LossHistory::default();
        let climbs: Vec<_> =
            [0.01, 0.02, 0.6, 0.01, 0.5, 0.6, 0.7].map(|lost| history.on_window(lost)).into();
        assert_eq!(climbs, [false, false, false, false, false, false, true]);
    }

    #[test]
    fn a_path_that_was_bad_from_the_start_is_as_it_is() {
        let mut history = LossHistory::default();
        assert!((0..1000).all(|n| !history.on_window(if n % 2 == 0 { 0.15 } else { 0.3 })));
    }
}
