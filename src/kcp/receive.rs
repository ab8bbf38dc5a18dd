//! The receive side: a ring indexed by sn, reassembly of messages, and the window we advertise.

use std::collections::VecDeque;

use super::{
    segment::distance,
    window::{Window, trim},
};

/// Puts segments in order and messages together.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// rcv_nxt, the first number not received.
    next: u32,
    /// What arrived at `next + index`; the front is always missing.
    ring: Window<Fragment>,
    ring_bytes: usize,
    /// Whole messages that wait to be read.
    messages: VecDeque<Message>,
    /// The message whose last fragment has not come.
    partial: Message,
    /// The `frg` the next fragment of `partial` must carry; `None` between messages.
    expected_frg: Option<u8>,
    /// The rest of a message that cannot be put together is skipped.
    skipping: bool,
    /// Segments and bytes in `messages` and `partial`.
    queued: usize,
    queued_bytes: usize,
    limits: Limits,
    counters: Counters,
}

impl Receiver {
    /// Starts at sn 0 with nothing received.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            next: 0,
            ring: Window::default(),
            ring_bytes: 0,
            messages: VecDeque::new(),
            partial: Message::default(),
            expected_frg: None,
            skipping: false,
            queued: 0,
            queued_bytes: 0,
            limits,
            counters: Counters::default(),
        }
    }

    /// Starts at `sn` instead.
    #[cfg(test)]
    pub(crate) fn start_at(&mut self, sn: u32) {
        self.next = sn;
    }

    /// Takes a data segment.
    pub(crate) fn handle_push(&mut self, sn: u32, frg: u8, payload: &[u8]) -> Push {
        let Ok(ahead) = usize::try_from(distance(sn, self.next)) else {
            self.counters.duplicates += 1;
            return Push::Acknowledged;
        };
        // Also in bytes: so there is always room for what is missing before it.
        if ahead >= usize::from(self.window()) {
            self.counters.outside_window += 1;
            return Push::Outside;
        }
        if self.ring.get(ahead).is_some() {
            self.counters.duplicates += 1;
            return Push::Acknowledged;
        }
        let may_enter = self.has_room(payload.len()) || (ahead == 0 && self.make_way());
        if !may_enter {
            self.counters.no_room += 1;
            return Push::NoRoom;
        }
        self.store(ahead, frg, payload);
        Push::Acknowledged
    }

    /// The next message, in order.
    pub(crate) fn poll_message(&mut self) -> Option<Vec<u8>> {
        let message = self.messages.pop_front()?;
        trim(&mut self.messages, KEPT_MESSAGES);
        self.release(&message);
        self.give_up_if_stuck();
        Some(message.bytes)
    }

    /// The window to advertise: the free segments from `una` on.
    pub(crate) fn window(&self) -> u16 {
        let segments = self.limits.window.saturating_sub(self.queued);
        let bytes = self.limits.bytes.saturating_sub(self.queued_bytes);
        let room = segments.min(bytes / self.limits.segment.max(1));
        u16::try_from(room).unwrap_or(u16::MAX)
    }

    /// Segments of so many bytes are to be expected: the window is a promise of room for them.
    pub(crate) fn on_segment_size(&mut self, bytes: usize) {
        self.limits.segment = self.limits.segment.max(bytes);
    }

    /// The first number not received.
    pub(crate) fn una(&self) -> u32 {
        self.next
    }

    /// Payload bytes held, in order or not.
    pub(crate) fn buffered(&self) -> usize {
        self.ring_bytes + self.queued_bytes
    }

    /// What was counted so far.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    fn has_room(&self, len: usize) -> bool {
        self.buffered() + len <= self.limits.bytes
    }

    /// Whether the missing front is taken beyond the bound. When nothing can be read it must be, else a full ring would
    /// never empty; a message that has no room beside the ring is dropped for it. Only a peer whose segments are larger
    /// than ours comes here.
    fn make_way(&mut self) -> bool {
        let is_stuck = self.messages.is_empty();
        if is_stuck && self.partial.segments > 0 {
            self.abandon();
            self.skipping = true;
        }
        is_stuck
    }

    fn store(&mut self, ahead: usize, frg: u8, payload: &[u8]) {
        self.counters.received += 1;
        let fragment = Fragment { frg, bytes: payload.to_vec() };
        if ahead == 0 && self.ring.is_empty() {
            return self.advance(fragment);
        }
        self.ring_bytes += payload.len();
        self.ring.put(ahead, fragment);
        while let Some(fragment) = self.ring.pop_front() {
            self.ring_bytes -= fragment.bytes.len();
            self.advance(fragment);
        }
    }

    /// Takes the fragment at `next`.
    fn advance(&mut self, fragment: Fragment) {
        self.next = self.next.wrapping_add(1);
        if self.expected_frg.is_some_and(|frg| frg != fragment.frg) {
            self.abandon();
        }
        if self.skipping || usize::from(fragment.frg) >= self.limits.window {
            self.counters.unassembled += 1;
            self.skipping = fragment.frg != 0;
            return;
        }
        self.queued += 1;
        self.queued_bytes += fragment.bytes.len();
        self.partial.segments += 1;
        if self.partial.bytes.is_empty() {
            self.partial.bytes = fragment.bytes;
        } else {
            self.partial.bytes.extend_from_slice(&fragment.bytes);
        }
        self.expected_frg = fragment.frg.checked_sub(1);
        if fragment.frg == 0 {
            self.messages.push_back(std::mem::take(&mut self.partial));
        } else {
            self.give_up_if_stuck();
        }
    }

    /// Drops the message being put together if nothing is left to read that could make room for the rest of it.
    fn give_up_if_stuck(&mut self) {
        if self.partial.segments > 0 && self.messages.is_empty() && self.window() == 0 {
            self.abandon();
            self.skipping = true;
        }
    }

    /// Drops the message being put together.
    fn abandon(&mut self) {
        let partial = std::mem::take(&mut self.partial);
        self.counters.unassembled += u64::try_from(partial.segments).unwrap_or(u64::MAX);
        self.release(&partial);
        self.expected_frg = None;
    }

    fn release(&mut self, message: &Message) {
        self.queued -= message.segments;
        self.queued_bytes -= message.bytes.len();
    }
}

/// What becomes of a data segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    /// It is here, now or before, and is to be acknowledged.
    Acknowledged,
    /// There is no room for its bytes; it will come again.
    NoRoom,
    /// It lies beyond the window: no peer that keeps to it sends that.
    Outside,
}

/// The bounds of the receive side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Segments from `una` on.
    pub(crate) window: usize,
    /// Payload bytes; beyond them only the segment that all others wait for is taken.
    pub(crate) bytes: usize,
    /// Payload bytes the peer's segments are taken to have.
    pub(crate) segment: usize,
}

/// What the receive side counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    /// Segments accepted.
    pub(crate) received: u64,
    /// Segments that had arrived before.
    pub(crate) duplicates: u64,
    /// Segments beyond the window.
    pub(crate) outside_window: u64,
    /// Segments for which there was no room in bytes.
    pub(crate) no_room: u64,
    /// Segments of messages that could not be put together.
    pub(crate) unassembled: u64,
}

#[derive(Debug)]
struct Fragment {
    frg: u8,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Message {
    bytes: Vec<u8>,
    segments: usize,
}

/// Places kept for the messages of the next batch; our choice: 32 KiB.
const KEPT_MESSAGES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(window: usize, bytes: usize) -> Receiver {
        Receiver::new(Limits { window, bytes, segment: 10 })
    }

    #[test]
    fn puts_segments_in_order() {
        let mut receiver = receiver(8, 1000);
        for sn in [2, 1, 4, 0, 3] {
            assert_eq!(receiver.handle_push(sn, 0, &[u8::try_from(sn).unwrap()]), Push::Acknowledged);
        }
        let messages: Vec<_> = std::iter::from_fn(|| receiver.poll_message()).collect();
        assert_eq!(messages, [[0], [1], [2], [3], [4]]);
        assert_eq!(receiver.una(), 5);
    }

    #[test]
    fn goes_on_across_the_wrap_of_sn() {
        let mut receiver = receiver(8, 1000);
        receiver.next = u32::MAX;
        assert_eq!(receiver.handle_push(0, 0, b"b"), Push::Acknowledged);
        assert_eq!(receiver.handle_push(u32::MAX, 0, b"a"), Push::Acknowledged);
        assert_eq!(receiver.poll_message().unwrap(), b"a");
        assert_eq!(receiver.poll_message().unwrap(), b"b");
        assert_eq!(receiver.una(), 1);
    }

    #[test]
    fn puts_the_fragments_of_a_message_together() {
        let mut receiver = receiver(8, 1000);
        receiver.handle_push(0, 2, b"ab");
        receiver.handle_push(2, 0, b"e");
        assert_eq!(receiver.poll_message(), None);
        receiver.handle_push(1, 1, b"cd");
        assert_eq!(receiver.poll_message().unwrap(), b"abcde");
        assert_eq!(receiver.window(), 8);
    }

    #[test]
    fn skips_a_message_whose_fragments_do_not_count_down() {
        let mut receiver = receiver(8, 1000);
        receiver.handle_push(0, 2, b"ab");
        receiver.handle_push(1, 0, b"x");
        assert_eq!(receiver.poll_message().unwrap(), b"x");
        assert_eq!(receiver.counters().unassembled, 1);
        assert_eq!(receiver.window(), 8);
    }

    #[test]
    fn skips_a_message_larger_than_the_window() {
        let mut receiver = receiver(3, 1000);
        for frg in (0..5).rev() {
            receiver.handle_push(receiver.una(), frg, b"ab");
        }
        receiver.handle_push(5, 0, b"next");
        assert_eq!(receiver.poll_message().unwrap(), b"next");
        assert_eq!(receiver.window(), 3);
    }

    #[test]
    fn skips_a_message_larger_than_the_buffer() {
        let mut receiver = receiver(300, 100);
        for frg in (0..20).rev() {
            receiver.handle_push(receiver.una(), frg, &[0; 10]);
        }
        receiver.handle_push(20, 0, b"next");
        assert_eq!(receiver.poll_message().unwrap(), b"next");
    }

    #[test]
    fn opens_again_when_the_rest_of_a_message_would_have_no_room_after_what_was_read() {
        let mut receiver = receiver(300, 100);
        assert_eq!(receiver.handle_push(0, 0, b"x"), Push::Acknowledged);
        for sn in 1..=9 {
            let len = if sn == 9 { 19 } else { 10 };
            receiver.handle_push(sn, u8::try_from(40 - sn).unwrap(), &[0; 19][..len]);
        }
        assert_eq!((receiver.una(), receiver.window()), (10, 0));
        assert_eq!(receiver.poll_message().unwrap(), b"x");
        assert!(receiver.window() > 0, "nobody can ever send or read again");
    }

    #[test]
    fn gives_its_memory_back_after_a_burst() {
        let mut receiver = receiver(65_535, 1 << 20);
        for sn in (0..60_000).rev() {
            assert_eq!(receiver.handle_push(sn, 0, b"x"), Push::Acknowledged);
        }
        assert!(receiver.ring.is_empty());
        assert!(receiver.messages.capacity() >= 60_000);
        assert_eq!(std::iter::from_fn(|| receiver.poll_message()).count(), 60_000);
        assert!(receiver.messages.capacity() <= KEPT_MESSAGES);
    }

    #[test]
    fn counts_duplicates_and_what_lies_outside_the_window() {
        let mut receiver = receiver(4, 1000);
        assert_eq!(receiver.handle_push(0, 0, b"a"), Push::Acknowledged);
        assert_eq!(receiver.handle_push(0, 0, b"a"), Push::Acknowledged);
        assert_eq!(receiver.handle_push(2, 0, b"c"), Push::Acknowledged);
        assert_eq!(receiver.handle_push(2, 0, b"c"), Push::Acknowledged);
        assert_eq!(receiver.handle_push(5, 0, b"e"), Push::Outside);
        let counters = receiver.counters();
        assert_eq!((counters.received, counters.duplicates), (2, 2));
        assert_eq!(counters.outside_window, 1);
    }

    #[test]
    fn holds_no_more_segments_than_it_advertised_however_small() {
        let mut receiver = receiver(4, 1000);
        for sn in 0..10 {
            receiver.handle_push(sn, 0, &[]);
        }
        assert_eq!((receiver.una(), receiver.window()), (4, 0));
        assert!(receiver.poll_message().is_some());
        assert_eq!(receiver.handle_push(4, 0, &[]), Push::Acknowledged);
    }

    #[test]
    fn advertises_what_is_free_in_segments_and_in_bytes() {
        let mut receiver = receiver(8, 40);
        assert_eq!(receiver.window(), 4);
        receiver.handle_push(1, 0, &[0; 10]);
        assert_eq!(receiver.window(), 4);
        receiver.handle_push(0, 0, &[0; 10]);
        assert_eq!(receiver.window(), 2);
        receiver.poll_message();
        assert_eq!(receiver.window(), 3);
    }

    #[test]
    fn holds_its_byte_bound_yet_takes_the_missing_front_when_nothing_can_be_read() {
        let mut receiver = receiver(64, 100);
        for sn in 1..30 {
            receiver.handle_push(sn, 0, &[0; 20]);
        }
        assert_eq!((receiver.ring_bytes, receiver.window()), (100, 10));
        assert_eq!(receiver.handle_push(0, 0, &[0; 20]), Push::Acknowledged);
        assert_eq!((receiver.una(), receiver.window()), (6, 0));
        assert_eq!(receiver.handle_push(6, 0, &[0; 20]), Push::Outside);
    }

    #[test]
    fn keeps_room_for_what_is_missing() {
        let mut receiver = receiver(64, 100);
        receiver.handle_push(0, 1, &[0; 10]);
        receiver.handle_push(1, 0, &[0; 10]);
        receiver.handle_push(2, 2, &[0; 10]);
        assert_eq!(receiver.window(), 7);
        for sn in (4..30).rev() {
            receiver.handle_push(sn, 0, &[0; 10]);
        }
        assert_eq!((receiver.ring_bytes, receiver.counters().outside_window), (60, 20));
        receiver.handle_push(3, 1, &[0; 10]);
        assert_eq!((receiver.una(), receiver.window()), (10, 0));
        assert_eq!(receiver.counters().no_room, 0);
    }

    #[test]
    fn holds_its_byte_bound_when_nobody_reads_whatever_arrives_first() {
        let mut receiver = receiver(64, 100);
        for sn in (1..30).rev().chain(0..30) {
            receiver.handle_push(sn, 0, &[0; 10]);
            assert!(receiver.buffered() <= 100 + 10, "{} bytes", receiver.buffered());
        }
        let mut read = 0;
        while read < 30 {
            for sn in 0..30 {
                receiver.handle_push(sn, 0, &[0; 10]);
            }
            let before = read;
            read += std::iter::from_fn(|| receiver.poll_message()).count();
            assert!(read > before, "it is stuck after {read}");
        }
    }

    #[test]
    fn drops_a_message_that_has_no_room_beside_what_waits_out_of_order() {
        let mut receiver = receiver(300, 100);
        for sn in 5..10 {
            receiver.handle_push(sn, 0, &[0; 20]);
        }
        for frg in (0..5).rev() {
            assert_eq!(receiver.handle_push(receiver.una(), frg, &[0; 20]), Push::Acknowledged);
            assert!(receiver.buffered() <= 100 + 20, "{} bytes", receiver.buffered());
        }
        assert_eq!(std::iter::from_fn(|| receiver.poll_message()).count(), 5);
    }
}
