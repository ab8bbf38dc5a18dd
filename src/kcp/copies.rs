//! Early copies: while the tunnel sends little, each segment is sent again before anyone knows whether it was lost.
//!
//! In a bulk transfer what follows a segment tells within a round trip that it was lost, and nobody waits for a single one.
//! A key stroke or a request has nothing behind it: its loss costs whoever waits at least a round trip and a timer. So a
//! segment that is sent while the path has much to spare is followed by a copy, with the next packet that leaves or by
//! itself after srtt/4, and by more copies on a path that loses more. The peer sees retransmissions, like any other.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::rate::Rate;

/// Which segments are to be copied, and when.
#[derive(Debug)]
pub(crate) struct Copies {
    waiting: VecDeque<Planned>,
    /// A clock that runs ahead by the time that what was sent takes at the spare rate.
    busy_until: Instant,
    /// Bytes of copies that may be sent of what was lost again and again, however busy the path is; times [`URGENT_SHARE`].
    urgent_credit: u64,
    /// Share of first transmissions overtaken by their copy, in parts of [`ONE`].
    loss: u32,
}

impl Copies {
    /// Starts with nothing to copy.
    pub(crate) fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), busy_until: now, urgent_credit: 0, loss: 0 }
    }

    /// Notes that segment `sn` left in `bytes` on the wire; `spare` is the rate below which copies cost nobody anything.
    pub(crate) fn on_sent(&mut self, sn: u32, bytes: u64, spare: Option<Rate>, srtt: Duration, now: Instant) {
        let Some(spare) = spare else {
            return;
        };
        self.urgent_credit = (self.urgent_credit + bytes).min(MOST_URGENT_CREDIT);
        self.charge(bytes, spare, srtt, now);
        if !self.is_busy(srtt, now) && self.waiting.len() < MOST_WAITING {
            let (delay, left) = (delay(srtt), self.count());
            self.waiting.push_back(Planned { sn, sent_at: now, due: now + delay, left });
        }
    }

    /// Notes that segment `sn` left in `bytes` on the wire for at least the third time. All that was sent after it waits for
    /// it by now, so it is copied on a busy path, too, within a small share of what is sent.
    pub(crate) fn on_sent_again(&mut self, sn: u32, bytes: u64, srtt: Duration, now: Instant) {
        let cost = bytes * URGENT_SHARE;
        if self.urgent_credit >= cost && self.waiting.len() < MOST_WAITING {
            self.urgent_credit -= cost;
            self.waiting.push_back(Planned { sn, sent_at: now, due: now + delay(srtt), left: 1 });
        }
    }

    /// Notes what became of a segment of which a copy was sent: whether the first transmission did it.
    pub(crate) fn on_outcome(&mut self, first_arrived: bool) {
        let sample = if first_arrived { 0 } else { ONE };
        self.loss = (self.loss * (MEMORY - 1) + sample) / MEMORY;
    }

    /// Forgets segments at the front that `is_wanted` says need no copy, so that nothing wakes for them.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(u32) -> bool) {
        while self.waiting.front().is_some_and(|copy| !is_wanted(copy.sn)) {
            self.waiting.pop_front();
        }
    }

    /// The segment to copy now: one that is due, or, if a packet leaves anyway, one that left at least [`SHORTEST_DELAY`] ago.
    pub(crate) fn peek(&self, beside_data: bool, now: Instant) -> Option<u32> {
        let copy = self.waiting.front()?;
        (copy.due <= now || (beside_data && copy.sent_at + SHORTEST_DELAY <= now)).then_some(copy.sn)
    }

    /// Takes what [`Self::peek`] showed, of `bytes` on the wire, and plans the next copy of it, if there is to be one.
    pub(crate) fn on_copied(&mut self, bytes: u64, spare: Option<Rate>, srtt: Duration, now: Instant) {
        let Some(copy) = self.waiting.pop_front() else {
            return;
        };
        if let Some(spare) = spare {
            self.charge(bytes, spare, srtt, now);
        }
        if copy.left > 1 && spare.is_some() && !self.is_busy(srtt, now) {
            self.waiting.push_back(Planned {
                sent_at: now,
                due: now + delay(srtt),
                left: copy.left - 1,
                ..copy
            });
        }
    }

    /// When a copy is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.front().map(|copy| copy.due)
    }

    /// Lets the clock run ahead, but not so far that a transfer long over still counts.
    fn charge(&mut self, bytes: u64, spare: Rate, srtt: Duration, now: Instant) {
        let takes = spare.time_for(bytes);
        self.busy_until = (self.busy_until.max(now) + takes).min(now + srtt + srtt.max(takes));
    }

    /// Whether more was sent in the last round trip than the spare rate carries.
    fn is_busy(&self, srtt: Duration, now: Instant) -> bool {
        self.busy_until > now + srtt
    }

    /// Enough copies that all of them are lost about once in a thousand times. More loss than that is no accident but a
    /// line that is overrun, by copies among others.
    fn count(&self) -> u8 {
        match self.loss {
            0..40 => 1,
            40..120 => 2,
            120..220 => 3,
            220..400 => 4,
            _ => 1,
        }
    }
}

/// A segment that is to be copied.
#[derive(Debug, Clone, Copy)]
struct Planned {
    sn: u32,
    sent_at: Instant,
    due: Instant,
    left: u8,
}

fn delay(srtt: Duration) -> Duration {
    (srtt / 4).max(SHORTEST_DELAY)
}

/// Shares of [`Copies::loss`] are in parts of this.
const ONE: u32 = 1000;
/// Segments over which the loss is averaged; our choice.
const MEMORY: u32 = 32;
/// Segments that wait to be copied; our choice: more than that is not little.
const MOST_WAITING: usize = 64;
/// Copies of what was lost twice take one part in so many of what is sent; our choice.
const URGENT_SHARE: u64 = 64;
/// About 64 full segments' worth of copies.
const MOST_URGENT_CREDIT: u64 = 64 * FULL_PACKET * URGENT_SHARE;
const FULL_PACKET: u64 = 1400;
/// Loss comes in bursts, so a copy keeps some distance; our choice.
const SHORTEST_DELAY: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::tests::start;

    const SRTT: Duration = Duration::from_millis(80);
    const DELAY: Duration = Duration::from_millis(20);

    fn spare() -> Option<Rate> {
        Some(Rate::per_second(100_000))
    }

    #[test]
    fn copies_a_segment_with_the_next_packet_or_by_itself_after_a_quarter_of_a_round_trip() {
        let now = start();
        let mut copies = Copies::new(now);
        copies.on_sent(7, 100, spare(), SRTT, now);
        assert_eq!(copies.poll_timeout(), Some(now + DELAY));
        assert_eq!(copies.peek(true, now), None);
        assert_eq!(copies.peek(false, now + DELAY / 2), None);
        assert_eq!(copies.peek(true, now + DELAY / 2), Some(7));
        assert_eq!(copies.peek(false, now + DELAY), Some(7));
        copies.on_copied(100, spare(), SRTT, now + DELAY);
        assert_eq!(copies.poll_timeout(), None);
    }

    #[test]
    fn sends_more_copies_on_a_path_that_loses_more() {
        let now = start();
        let mut copies = Copies::new(now);
        for segment in 0..200 {
            copies.on_outcome(segment % 10 > 0);
        }
        copies.on_sent(7, 100, spare(), SRTT, now);
        copies.on_copied(100, spare(), SRTT, now + DELAY);
        assert_eq!(
            (copies.peek(false, now + 2 * DELAY), copies.poll_timeout()),
            (Some(7), Some(now + 2 * DELAY))
        );
        copies.on_copied(100, spare(), SRTT, now + 2 * DELAY);
        assert_eq!(copies.poll_timeout(), None);
    }

    #[test]
    fn copies_nothing_when_much_is_sent_or_no_rate_is_to_spare() {
        let now = start();
        let mut copies = Copies::new(now);
        copies.on_sent(1, 1000, None, SRTT, now);
        assert_eq!(copies.poll_timeout(), None);
        // 8000 bytes are what the spare rate carries in a round trip.
        copies.on_sent(2, 8000, spare(), SRTT, now);
        assert_eq!(copies.peek(false, now + DELAY), Some(2));
        copies.on_copied(100, spare(), SRTT, now + DELAY);
        copies.on_sent(3, 100, spare(), SRTT, now);
        assert_eq!(copies.poll_timeout(), None);
        copies.on_sent(4, 100, spare(), SRTT, now + SRTT);
        assert_eq!(copies.peek(false, now + SRTT + DELAY), Some(4));
    }

    #[test]
    fn copies_what_was_lost_again_within_its_share_of_what_is_sent() {
        let now = start();
        let mut copies = Copies::new(now);
        copies.on_sent_again(1, 1000, SRTT, now);
        assert_eq!(copies.poll_timeout(), None);
        for sn in 0..URGENT_SHARE {
            copies.on_sent(u32::try_from(sn).unwrap(), 1000, Some(Rate::per_second(1)), SRTT, now);
        }
        assert_eq!(copies.poll_timeout(), None);
        copies.on_sent_again(1, 1000, SRTT, now);
        copies.on_sent_again(2, 1000, SRTT, now);
        assert_eq!(copies.peek(false, now + DELAY), Some(1));
        copies.on_copied(100, spare(), SRTT, now + DELAY);
        assert_eq!(copies.poll_timeout(), None);
    }

    #[test]
    fn copies_again_a_second_after_a_long_transfer() {
        let mut now = start();
        let mut copies = Copies::new(now);
        for _ in 0..10_000 {
            copies.on_sent(1, 1000, spare(), SRTT, now);
            now += Duration::from_millis(1);
        }
        while copies.peek(false, now + DELAY).is_some() {
            copies.on_copied(100, spare(), SRTT, now);
        }
        now += Duration::from_secs(1);
        copies.on_sent(2, 100, spare(), SRTT, now);
        assert_eq!(copies.peek(false, now + DELAY), Some(2));
    }

    #[test]
    fn counts_copies_as_what_the_path_has_to_carry() {
        let now = start();
        let mut copies = Copies::new(now);
        copies.on_sent(1, 100, spare(), SRTT, now);
        copies.on_copied(7901, spare(), SRTT, now);
        copies.on_sent(2, 100, spare(), SRTT, now);
        assert_eq!(copies.poll_timeout(), None);
    }

    #[test]
    fn wakes_for_nothing_that_was_acknowledged() {
        let now = start();
        let mut copies = Copies::new(now);
        for sn in 1..4 {
            copies.on_sent(sn, 100, spare(), SRTT, now);
        }
        copies.retain(|sn| sn == 3);
        assert_eq!(copies.peek(false, now + DELAY), Some(3));
        copies.retain(|_| false);
        assert_eq!(copies.poll_timeout(), None);
    }
}
