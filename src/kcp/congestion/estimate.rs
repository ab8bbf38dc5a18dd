//! What the model of the path is made of: the highest delivery rate, the round-trip time lately, and the path's own loss.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::kcp::{delivery::Sample, rate::Rate};

/// The highest delivery rate of the last [`BANDWIDTH_ROUNDS`] round trips.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    /// Falling rates with the round they were seen in.
    best: VecDeque<(u64, Rate)>,
}

impl Bandwidth {
    /// Takes a sample of `round`; one limited by the application counts only if it is higher than all.
    pub(super) fn on_sample(&mut self, sample: &Sample, round: u64) {
        if sample.app_limited && self.best().is_some_and(|best| sample.rate < best) {
            return;
        }
        while self.best.back().is_some_and(|(_, rate)| *rate <= sample.rate) {
            self.best.pop_back();
        }
        match self.best.back() {
            // One entry a round is enough: the highest of the round stands before it.
            Some((last, _)) if *last == round => {}
            _ => self.best.push_back((round, sample.rate)),
        }
        while self.best.len() > 1
            && self.best.front().is_some_and(|(seen, _)| seen + BANDWIDTH_ROUNDS < round)
        {
            self.best.pop_front();
        }
    }

    /// The highest rate, once there is one.
    pub(super) fn best(&self) -> Option<Rate> {
        self.best.front().map(|(_, rate)| *rate)
    }
}

/// The shortest round-trip time of the last moments: jitter does not raise it, a queue does.
#[derive(Debug, Default)]
pub(super) struct RecentRtt {
    last: Option<Duration>,
    current: Option<Duration>,
    since: Option<Instant>,
}

impl RecentRtt {
    /// Takes a sample; `span` is how long half of the memory lasts.
    pub(super) fn on_sample(&mut self, rtt: Duration, span: Duration, now: Instant) {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= span) {
            self.last = self.current.take();
            self.since = Some(now);
        }
        self.current = Some(self.current.map_or(rtt, |current| current.min(rtt)));
    }

    /// The shortest of the memory.
    pub(super) fn shortest(&self) -> Option<Duration> {
        match (self.last, self.current) {
            (Some(last), Some(current)) => Some(last.min(current)),
            (last, current) => last.or(current),
        }
    }
}

/// The loss of the path itself, counted on what was sent while its queue was being emptied.
///
/// Loss that goes away when less is sent is congestion (a short queue, a policer) and is not counted.
#[derive(Debug, Default)]
pub(super) struct PathLoss {
    /// When the segments that count left; the end is open while it lasts.
    window: Option<(Instant, Option<Instant>)>,
    arrived: u64,
    lost: u64,
}

impl PathLoss {
    /// From now on segments count; what was counted before counts for less.
    pub(super) fn open(&mut self, now: Instant) {
        self.arrived = self.arrived * MEMORY.0 / MEMORY.1;
        self.lost = self.lost * MEMORY.0 / MEMORY.1;
        self.window = Some((now, None));
    }

    /// Segments sent from now on do not count.
    pub(super) fn close(&mut self, now: Instant) {
        if let Some((_, end @ None)) = &mut self.window {
            *end = Some(now);
        }
    }

    /// Counts a segment that arrived.
    pub(super) fn on_arrival(&mut self, bytes: u64, sent_at: Instant) {
        if self.covers(sent_at) {
            self.arrived += bytes;
        }
    }

    /// Counts a segment that was lost.
    pub(super) fn on_loss(&mut self, bytes: u64, sent_at: Instant) {
        if self.covers(sent_at) {
            self.lost += bytes;
        }
    }

    /// The loss in parts of [`ONE`], believed little while `prior` bytes or less were counted, at most [`MOST_LOSS`].
    pub(super) fn share(&self, prior: u64) -> u64 {
        (self.lost * ONE / (self.arrived + self.lost + prior).max(1)).min(MOST_LOSS)
    }

    fn covers(&self, sent_at: Instant) -> bool {
        self.window.is_some_and(|(from, to)| sent_at >= from && to.is_none_or(|to| sent_at < to))
    }
}

/// More is made up for by nobody: then it is rather many senders that overrun the path together.
const MOST_LOSS: u64 = 300_000;
/// Fractions are in parts of this.
pub(super) const ONE: u64 = 1_000_000;
/// A bandwidth is remembered for the longest probing cycle, so that what Up saw lasts to the next Up (BBR draft -00: 10 rounds).
const BANDWIDTH_ROUNDS: u64 = 12;
/// What a count keeps when the next window opens: about four cycles are remembered.
const MEMORY: (u64, u64) = (3, 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::tests::start;

    const MS: Duration = Duration::from_millis(1);

    fn sample(rate: u64, app_limited: bool) -> Sample {
        Sample { rate: Rate::per_second(rate), app_limited }
    }

    #[test]
    fn keeps_the_highest_rate_for_a_probing_cycle() {
        let mut bandwidth = Bandwidth::default();
        bandwidth.on_sample(&sample(100, false), 0);
        for round in 1..=BANDWIDTH_ROUNDS {
            bandwidth.on_sample(&sample(50, false), round);
            assert_eq!(bandwidth.best(), Some(Rate::per_second(100)));
        }
        bandwidth.on_sample(&sample(40, false), BANDWIDTH_ROUNDS + 1);
        assert_eq!(bandwidth.best(), Some(Rate::per_second(50)));
    }

    #[test]
    fn an_application_that_sends_little_does_not_lower_the_rate() {
        let mut bandwidth = Bandwidth::default();
        bandwidth.on_sample(&sample(100, false), 0);
        bandwidth.on_sample(&sample(10, true), 50);
        assert_eq!(bandwidth.best(), Some(Rate::per_second(100)));
        bandwidth.on_sample(&sample(200, true), 51);
        assert_eq!(bandwidth.best(), Some(Rate::per_second(200)));
    }

    #[test]
    fn forgets_a_short_round_trip_after_two_spans() {
        let now = start();
        let mut recent = RecentRtt::default();
        recent.on_sample(10 * MS, 5 * MS, now);
        recent.on_sample(30 * MS, 5 * MS, now + 5 * MS);
        assert_eq!(recent.shortest(), Some(10 * MS));
        recent.on_sample(20 * MS, 5 * MS, now + 10 * MS);
        assert_eq!(recent.shortest(), Some(20 * MS));
    }

    #[test]
    fn counts_only_what_left_inside_its_window() {
        let now = start();
        let mut loss = PathLoss::default();
        loss.on_loss(1000, now);
        loss.open(now + MS);
        loss.close(now + 2 * MS);
        loss.on_loss(1000, now);
        loss.on_loss(1000, now + 2 * MS);
        assert_eq!(loss.share(0), 0);
        loss.on_loss(100, now + MS);
        loss.on_arrival(900, now + MS);
        assert_eq!(loss.share(0), ONE / 10);
        assert_eq!(loss.share(1000), ONE / 20);
    }
}
