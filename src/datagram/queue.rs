//! A queue of packets bounded in bytes and in time.
//!
//! Voice, games and DNS would rather lose a packet than get it late, so what waited longer than the
//! sojourn bound is dropped from the front, and what does not fit is dropped at the back. This is
//! the drop rule of CoDel (RFC 8289) in its simplest form: a fixed bound, no control law.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The bounds of a [`Queue`].
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes held at most, counting [`PACKET_OVERHEAD`] for each packet.
    pub bytes: usize,
    /// How long a packet may wait before it is dropped.
    pub sojourn: Duration,
}

impl Default for Limits {
    /// 256 KiB is 100 ms at 20 Mbit/s and holds four packets of the largest size; 100 ms is where
    /// conversation begins to suffer (ITU-T G.114 asks for less than 150 ms one way). Our choice.
    fn default() -> Self {
        Self { bytes: 256 * 1024, sojourn: Duration::from_millis(100) }
    }
}

/// What became of the packets given to a [`Queue`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that wait, each packet's [`PACKET_OVERHEAD`] included, now.
    pub held: usize,
    /// Packets taken in.
    pub queued: u64,
    /// Packets handed out.
    pub sent: u64,
    /// Packets refused because the queue was full.
    pub dropped_full: u64,
    /// Packets dropped because they had waited too long.
    pub dropped_late: u64,
}

impl std::ops::Add for Stats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            held: self.held + other.held,
            queued: self.queued + other.queued,
            sent: self.sent + other.sent,
            dropped_full: self.dropped_full + other.dropped_full,
            dropped_late: self.dropped_late + other.dropped_late,
        }
    }
}

/// Packets that wait to be sent, oldest first.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    packets: VecDeque<Waiting>,
    bytes: usize,
    stats: Stats,
}

#[derive(Debug)]
struct Waiting {
    packet: Vec<u8>,
    since: Instant,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            packets: VecDeque::new(),
            bytes: 0,
            stats: Stats { held: 0, queued: 0, sent: 0, dropped_full: 0, dropped_late: 0 },
        }
    }

    /// Appends a packet; whether it was taken. One that does not fit is dropped and counted, after
    /// what is late has made room.
    pub fn push(&mut self, packet: Vec<u8>, now: Instant) -> bool {
        self.drop_late(now);
        let cost = cost(&packet);
        if self.bytes + cost > self.limits.bytes {
            self.stats.dropped_full += 1;
            return false;
        }
        self.bytes += cost;
        self.stats.queued += 1;
        self.packets.push_back(Waiting { packet, since: now });
        true
    }

    /// Takes the oldest packet that is not late.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.drop_late(now);
        let packet = self.take_front()?;
        self.stats.sent += 1;
        Some(packet)
    }

    /// Moves the oldest packet to the end of another queue, where it goes on waiting; it is dropped and counted there if it does
    /// not fit.
    pub fn move_front_to(&mut self, other: &mut Self) {
        let Some(front) = self.packets.pop_front() else { return };
        let cost = cost(&front.packet);
        self.bytes -= cost;
        self.stats.queued -= 1;
        if other.bytes + cost > other.limits.bytes {
            other.stats.dropped_full += 1;
            return;
        }
        other.bytes += cost;
        other.stats.queued += 1;
        other.packets.push_back(front);
    }

    /// Length in bytes of the packet that [`Queue::pop`] would return: whether it fits is the
    /// caller's question.
    pub fn peek_length(&mut self, now: Instant) -> Option<usize> {
        self.drop_late(now);
        self.packets.front().map(|front| front.packet.len())
    }

    /// Whether nothing waits. Packets that are late but not yet dropped count as waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// What became of the packets so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        Stats { held: self.bytes, ..self.stats }
    }

    fn drop_late(&mut self, now: Instant) {
        while self
            .packets
            .front()
            .is_some_and(|front| now.saturating_duration_since(front.since) > self.limits.sojourn)
        {
            self.take_front();
            self.stats.dropped_late += 1;
        }
    }

    fn take_front(&mut self) -> Option<Vec<u8>> {
        let front = self.packets.pop_front()?;
        self.bytes -= cost(&front.packet);
        Some(front.packet)
    }
}

fn cost(packet: &[u8]) -> usize {
    packet.len() + PACKET_OVERHEAD
}

/// What a packet costs beside its bytes, so that a flood of tiny ones is bounded too: the entry and
/// the allocator's header. Our estimate.
pub const PACKET_OVERHEAD: usize = 64;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test needs one instant to start from")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn queue(bytes: usize) -> Queue {
        Queue::new(Limits { bytes, sojourn: 20 * MS })
    }

    #[test]
    fn hands_out_packets_in_order() {
        let now = Instant::now();
        let mut queue = queue(1000);
        assert!(queue.push(vec![1], now) && queue.push(vec![2, 2], now));
        assert_eq!(queue.peek_length(now), Some(1));
        assert_eq!(queue.pop(now), Some(vec![1]));
        assert_eq!(queue.pop(now), Some(vec![2, 2]));
        assert_eq!(queue.pop(now), None);
        assert_eq!((queue.stats().queued, queue.stats().sent), (2, 2));
    }

    #[test]
    fn drops_what_waited_too_long_and_keeps_the_rest() {
        let now = Instant::now();
        let mut queue = queue(1000);
        queue.push(vec![1], now);
        queue.push(vec![2], now + 10 * MS);
        assert_eq!(queue.pop(now + 21 * MS), Some(vec![2]));
        assert_eq!(queue.stats().dropped_late, 1);
    }

    #[test]
    fn keeps_a_packet_that_waited_exactly_the_bound() {
        let now = Instant::now();
        let mut queue = queue(1000);
        queue.push(vec![1], now);
        assert_eq!(queue.pop(now + 20 * MS), Some(vec![1]));
    }

    #[test]
    fn refuses_what_does_not_fit_until_the_late_make_room() {
        let now = Instant::now();
        let mut queue = queue(2 * (PACKET_OVERHEAD + 10));
        assert!(queue.push(vec![0; 10], now) && queue.push(vec![0; 10], now));
        assert!(!queue.push(vec![0], now));
        assert_eq!(queue.stats().dropped_full, 1);
        assert!(queue.push(vec![0], now + 21 * MS));
        assert_eq!(queue.stats().dropped_late, 2);
    }

    #[test]
    fn refuses_a_packet_larger_than_the_queue() {
        assert!(!queue(100).push(vec![0; 101], Instant::now()));
    }

    #[test]
    fn a_packet_that_is_moved_goes_on_waiting_or_is_counted() {
        let now = Instant::now();
        let (mut queue, mut other) = (queue(1000), Queue::new(Limits { bytes: 100, sojourn: 20 * MS }));
        queue.push(vec![1; 30], now);
        queue.push(vec![2; 30], now);
        queue.move_front_to(&mut other);
        queue.move_front_to(&mut other);
        queue.move_front_to(&mut other);
        let (moved, left) = (other.stats(), queue.stats());
        assert_eq!((moved.queued, moved.dropped_full, moved.held), (1, 1, 30 + PACKET_OVERHEAD));
        assert_eq!((left.queued, left.held), (0, 0));
        assert_eq!((moved + left).queued, 1);
        assert_eq!(other.pop(now + 21 * MS), None, "its time did not begin anew");
    }

    proptest! {
        #[test]
        fn never_holds_more_than_its_bound_and_accounts_for_every_packet(
            steps in proptest::collection::vec((0usize..400, 0u32..30, any::<bool>()), 1..200),
        ) {
            let mut now = Instant::now();
            let mut queue = queue(1500);
            for (length, wait, is_pop) in steps {
                now += wait * MS;
                if is_pop {
                    queue.pop(now);
                } else {
                    queue.push(vec![0; length], now);
                }
                let held: usize = queue.packets.iter().map(|one| cost(&one.packet)).sum();
                prop_assert_eq!(held, queue.bytes);
                prop_assert!(held <= 1500);
                let stats = queue.stats();
                let waiting = u64::try_from(queue.packets.len()).unwrap();
                prop_assert_eq!(stats.queued, stats.sent + stats.dropped_late + waiting);
            }
        }
    }
}
