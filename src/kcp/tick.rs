//! The interval: gathers what leaves to multiples of it since the start (`ikcp_update`), and wakes for no other.
//!
//! ikcp is called at every multiple and flushes then. Here a flush is arranged when something begins to wait: at the
//! next multiple if it came from outside, at the multiple that follows if a timer ran out.

use std::time::{Duration, Instant};

/// When the next flush may begin.
#[derive(Debug)]
pub(crate) struct Tick {
    /// Zero: nothing is gathered.
    interval: Duration,
    started: Instant,
    /// The flush that is arranged; once it has come all may leave until nothing does.
    flush_at: Option<Instant>,
    /// When the last flush ended. Timers that ran out before were made later than they say.
    flushed: Instant,
}

impl Tick {
    /// Counts the multiples of `interval` from `now`.
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, started: now, flush_at: None, flushed: now }
    }

    /// Notes that something came from outside that has to leave.
    pub(crate) fn arrange(&mut self, now: Instant) {
        if !self.interval.is_zero() && self.flush_at.is_none() {
            self.flush_at = Some(self.after(now));
        }
    }

    /// Whether anything may leave now. `due` is the earliest timer, `waits` whether something from outside waits.
    pub(crate) fn may_flush(&mut self, due: Option<Instant>, waits: bool, now: Instant) -> bool {
        if self.interval.is_zero() {
            return true;
        }
        if self.flush_at.is_none() {
            self.flush_at = match due.filter(|at| *at <= now) {
                Some(at) if at > self.flushed => Some(self.at_or_after(at)),
                overtaken => (waits || overtaken.is_some()).then(|| self.after(now)),
            };
        }
        self.flush_at.is_some_and(|at| at <= now)
    }

    /// Notes that nothing more could leave in this flush.
    pub(crate) fn on_flushed(&mut self, now: Instant) {
        self.flush_at = None;
        self.flushed = now;
    }

    /// When a flush is to begin for timers of which the earliest is `due`.
    pub(crate) fn poll_timeout(&self, due: Option<Instant>) -> Option<Instant> {
        if self.interval.is_zero() {
            return due;
        }
        let for_timer = |at| if at > self.flushed { self.at_or_after(at) } else { self.after(self.flushed) };
        self.flush_at.or_else(|| due.map(for_timer))
    }

    fn at_or_after(&self, at: Instant) -> Instant {
        self.after(at.checked_sub(Duration::from_nanos(1)).unwrap_or(at))
    }

    /// The first multiple after `at`.
    fn after(&self, at: Instant) -> Instant {
        let interval = self.interval.as_nanos().max(1);
        let past = at.saturating_duration_since(self.started).as_nanos() % interval;
        at.max(self.started) + Duration::from_nanos(u64::try_from(interval - past).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::tests::start;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn lets_all_leave_at_once_without_an_interval() {
        let now = start();
        let mut tick = Tick::new(Duration::ZERO, now);
        tick.arrange(now);
        assert!(tick.may_flush(None, false, now));
        assert_eq!(tick.poll_timeout(None), None);
        assert_eq!(tick.poll_timeout(Some(now + MS)), Some(now + MS));
    }

    #[test]
    fn gathers_what_comes_from_outside_to_the_next_multiple() {
        let now = start();
        let mut tick = Tick::new(10 * MS, now);
        tick.arrange(now + 33 * MS);
        tick.arrange(now + 39 * MS);
        assert_eq!(tick.poll_timeout(Some(now)), Some(now + 40 * MS));
        assert!(!tick.may_flush(Some(now), true, now + 39 * MS));
        assert!(tick.may_flush(Some(now), true, now + 41 * MS));
        assert!(tick.may_flush(Some(now), true, now + 41 * MS));
        tick.on_flushed(now + 41 * MS);
        assert!(!tick.may_flush(None, true, now + 41 * MS));
        assert_eq!(tick.poll_timeout(None), Some(now + 50 * MS));
    }

    #[test]
    fn flushes_at_the_multiple_that_follows_a_timer() {
        let now = start();
        let mut tick = Tick::new(10 * MS, now);
        for (at, flush) in [(31, 40), (40, 40), (41, 50)] {
            assert_eq!(tick.poll_timeout(Some(now + at * MS)), Some(now + flush * MS));
        }
        assert!(!tick.may_flush(Some(now + 31 * MS), false, now + 31 * MS));
        assert!(tick.may_flush(Some(now + 31 * MS), false, now + 40 * MS));
    }

    #[test]
    fn arranges_nothing_when_nothing_waits() {
        let now = start();
        let mut tick = Tick::new(10 * MS, now);
        assert!(!tick.may_flush(None, false, now + 5 * MS));
        assert_eq!(tick.poll_timeout(None), None);
    }

    #[test]
    fn does_not_spin_for_a_timer_that_a_flush_could_not_serve() {
        let now = start();
        let mut tick = Tick::new(10 * MS, now);
        assert!(tick.may_flush(Some(now + MS), false, now + 10 * MS));
        tick.on_flushed(now + 10 * MS);
        assert_eq!(tick.poll_timeout(Some(now + MS)), Some(now + 20 * MS));
    }
}
