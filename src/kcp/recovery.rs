//! Loss detection: which segment in flight is lost, by count (fast resend) and by time (RACK, RFC 8985).
//!
//! Both look at the order of *transmissions*, not of sn, so a retransmission that is lost again is found in the same way.
//! A segment is lost when `fast_resend` transmissions made after it were acknowledged, or when it has been under way for
//! longer than the newest acknowledged transmission was, plus room for reordering. Of a segment that was sent more often
//! than the fast limit only its time counts; those sent after it may wait for that, a quarter of a round trip at most.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

/// The newest acknowledged transmissions and what they say about those before them.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// Skips that make a loss; 0 = only time does.
    fast_resend: usize,
    /// Transmissions of a segment after which only time does; 0 = no limit.
    fast_limit: u32,
    /// The `fast_resend` highest acknowledged transmissions.
    highest: BinaryHeap<Reverse<u64>>,
    /// The highest acknowledged transmission and how long it was under way.
    newest: Option<(u64, Duration)>,
    /// Grows with each retransmission that proves spurious: the path reorders.
    widening: u32,
    last_spurious: Option<Instant>,
}

impl Recovery {
    /// Starts with nothing acknowledged.
    pub(crate) fn new(fast_resend: u32, fast_limit: u32) -> Self {
        let most = fast_resend.min(MOST_SKIPS);
        Self {
            fast_resend: usize::try_from(most).unwrap_or(usize::MAX),
            fast_limit,
            highest: BinaryHeap::new(),
            newest: None,
            widening: 0,
            last_spurious: None,
        }
    }

    /// Notes that transmission `order` was acknowledged after `rtt`.
    pub(crate) fn on_acked(&mut self, order: u64, rtt: Duration) {
        if self.fast_resend > 0 {
            self.highest.push(Reverse(order));
            if self.highest.len() > self.fast_resend {
                self.highest.pop();
            }
        }
        self.on_arrived(order, rtt);
    }

    /// Notes that transmission `order`, or an early copy of it, took `rtt`: which of them is not known, so it counts as no skip.
    pub(crate) fn on_arrived(&mut self, order: u64, rtt: Duration) {
        if self.newest.is_none_or(|(newest, _)| newest < order) {
            self.newest = Some((order, rtt));
        }
    }

    /// Notes a retransmission whose original arrived after all.
    pub(crate) fn on_spurious(&mut self, now: Instant) {
        self.widening = (self.widening + 1).min(MOST_WIDENING);
        self.last_spurious = Some(now);
    }

    /// Lets the room for reordering shrink again once nothing was spurious for a while.
    pub(crate) fn relax(&mut self, srtt: Duration, now: Instant) {
        let Some(last) = self.last_spurious else {
            return;
        };
        if now.saturating_duration_since(last) >= (srtt * RELAX_ROUNDS).max(RELAX_AT_LEAST) {
            self.widening -= self.widening.min(1);
            self.last_spurious = (self.widening > 0).then_some(now);
        }
    }

    /// When transmission `order`, made at `sent_at`, is to be taken for lost, as far as the acks so far can say; it was
    /// the `count`th of its segment.
    pub(crate) fn lost_at(
        &self,
        order: u64,
        count: u32,
        sent_at: Instant,
        srtt: Duration,
    ) -> Option<Instant> {
        let (newest, rtt) = self.newest.filter(|(newest, _)| order < *newest)?;
        if self.may_resend_fast(count) && self.is_skipped(order) {
            return Some(sent_at);
        }
        debug_assert!(order < newest);
        Some(sent_at + rtt + self.reordering_window(srtt))
    }

    fn may_resend_fast(&self, count: u32) -> bool {
        self.fast_limit == 0 || count <= self.fast_limit
    }

    fn is_skipped(&self, order: u64) -> bool {
        self.fast_resend > 0
            && self.widening == 0
            && self.highest.len() == self.fast_resend
            && self.highest.peek().is_some_and(|lowest| order < lowest.0)
    }

    fn reordering_window(&self, srtt: Duration) -> Duration {
        (srtt / 4 * (1 + self.widening)).min(srtt).max(SHORTEST_REORDERING)
    }
}

/// Bound of `fast_resend`; more skips than this and RACK's time is sooner anyway.
const MOST_SKIPS: u32 = 32;
/// RFC 8985 §6.2 step 4: the window grows by srtt/4 up to srtt.
const MOST_WIDENING: u32 = 3;
/// The least room for reordering; our choice: what batching in NICs and timers does.
const SHORTEST_REORDERING: Duration = Duration::from_millis(3);
/// RFC 8985 keeps a widened window for 16 recoveries; here for 16 round trips …
const RELAX_ROUNDS: u32 = 16;
/// … and not less than this.
const RELAX_AT_LEAST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::tests::start;

    const RTT: Duration = Duration::from_millis(100);

    #[test]
    fn loses_a_segment_skipped_as_often_as_fast_resend_says() {
        let now = start();
        let mut recovery = Recovery::new(2, 0);
        assert_eq!(recovery.lost_at(0, 1, now, RTT), None);
        recovery.on_acked(2, RTT);
        assert_eq!(recovery.lost_at(0, 1, now, RTT), Some(now + RTT * 5 / 4));
        recovery.on_acked(1, RTT);
        assert_eq!(recovery.lost_at(0, 1, now, RTT), Some(now));
        assert_eq!(recovery.lost_at(3, 1, now, RTT), None);
    }

    #[test]
    fn loses_by_time_alone_what_was_sent_more_often_than_the_fast_limit() {
        let now = start();
        for (limit, count, by_count) in [(5, 5, true), (5, 6, false), (0, u32::MAX, true)] {
            let mut recovery = Recovery::new(1, limit);
            recovery.on_acked(9, RTT);
            let at = if by_count { now } else { now + RTT * 5 / 4 };
            assert_eq!(recovery.lost_at(0, count, now, RTT), Some(at), "{count} of {limit}");
        }
    }

    #[test]
    fn loses_by_time_alone_when_fast_resend_is_off() {
        let now = start();
        let mut recovery = Recovery::new(0, 0);
        for order in 1..10 {
            recovery.on_acked(order, RTT);
        }
        assert_eq!(recovery.lost_at(0, 1, now, RTT), Some(now + RTT * 5 / 4));
    }

    #[test]
    fn waits_longer_after_a_spurious_retransmission_and_forgets_it_later() {
        let now = start();
        let mut recovery = Recovery::new(1, 0);
        recovery.on_acked(9, RTT);
        recovery.on_spurious(now);
        assert_eq!(recovery.lost_at(0, 1, now, RTT), Some(now + RTT * 3 / 2));
        recovery.relax(RTT, now + RTT);
        assert_eq!(recovery.lost_at(0, 1, now, RTT), Some(now + RTT * 3 / 2));
        recovery.relax(RTT, now + RTT * 16);
        assert_eq!(recovery.lost_at(0, 1, now, RTT), Some(now));
    }
}
