//! The bytes one session may hold, over all its streams.
//!
//! The bound is cut in two, a quarter for what is to be sent and three for what was received, so that
//! readers that stopped here cannot keep this end from sending, nor the other way round. What is
//! received gets more, because windows grow from it: over a long line that loses much, a stream needs
//! a window of several bandwidth-delay products.
//!
//! - *Send*: each of the streams owns a small floor, so that none can be starved. The rest is
//!   shared: above its floor a stream may hold an eighth of what is free (dynamic thresholds,
//!   Choudhury and Hahne 1998). Busy streams so converge to equal parts, and those whose peer
//!   stopped reading leave something to the others.
//! - *Receive*: every byte that waits for its reader counts. Two thirds of it are the pool from
//!   which windows grow; first windows may promise more than the rest, and the bound holds all the
//!   same.

use super::credit::Windows;

/// The session's byte bounds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) send: SendBudget,
    pub(super) receive: ReceiveBudget,
    pub(super) windows: Windows,
}

impl Budget {
    pub(super) fn new(limits: &super::Limits) -> Self {
        let send = limits.session_buffer / 4;
        let receive = limits.session_buffer - send;
        Self {
            send: SendBudget::new(send, limits.send_buffer, limits.streams),
            receive: ReceiveBudget { left: receive, held: 0 },
            windows: Windows::new(limits.receive_window_initial, limits.receive_window_max, receive / 3 * 2),
        }
    }
}

/// Bytes that wait to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SendBudget {
    /// The most one stream may hold.
    stream: usize,
    /// What every stream may hold whatever the others do.
    floor: usize,
    /// What is left for those above their floor.
    shared: usize,
    held: usize,
}

impl SendBudget {
    fn new(bytes: usize, stream: usize, streams: usize) -> Self {
        // At least one byte: a stream that can write nothing would never be told to go on.
        let floor = (bytes / 2 / streams.max(1)).clamp(1, stream.max(1));
        let shared = bytes.saturating_sub(floor.saturating_mul(streams));
        Self { stream: stream.max(1), floor, shared, held: 0 }
    }

    /// How many bytes a stream that holds `held` may add.
    pub(super) fn room(&self, held: usize) -> usize {
        self.share().saturating_sub(held)
    }

    /// Whether a stream that holds `held` has so much room again that it is worth telling.
    pub(super) fn has_recovered(&self, held: usize) -> bool {
        held == 0 || self.room(held) >= self.share().div_ceil(4)
    }

    /// How many bytes any one stream may hold now.
    fn share(&self) -> usize {
        self.stream.min(self.floor + self.shared / SHARE)
    }

    /// Bytes held by all streams.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// A stream holds `now` bytes instead of `before`.
    pub(super) fn resize(&mut self, before: usize, now: usize) {
        self.held = (self.held + now).saturating_sub(before);
        self.shared = (self.shared + self.above_floor(before)).saturating_sub(self.above_floor(now));
    }

    fn above_floor(&self, held: usize) -> usize {
        held.saturating_sub(self.floor)
    }
}

/// Bytes that wait to be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReceiveBudget {
    left: usize,
    held: usize,
}

impl ReceiveBudget {
    /// Takes room for `n` bytes; false, and nothing taken, when there is none.
    #[must_use]
    pub(super) fn take(&mut self, n: usize) -> bool {
        let Some(left) = self.left.checked_sub(n) else {
            return false;
        };
        self.left = left;
        self.held += n;
        true
    }

    /// Gives `n` bytes back.
    pub(super) fn give(&mut self, n: usize) {
        self.left += n;
        self.held = self.held.saturating_sub(n);
    }

    /// Bytes held by all streams.
    pub(super) fn held(&self) -> usize {
        self.held
    }
}

/// The part of what is free that one stream may hold: an eighth (our choice: 100 busy streams still
/// use 93 % of it, 30 streams that stopped leave a fiftieth).
const SHARE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stream_alone_gets_its_whole_buffer() {
        let budget = SendBudget::new(32 << 20, 256 << 10, 10_000);
        assert_eq!(budget.room(0), 256 << 10);
        assert_eq!(budget.room(256 << 10), 0);
    }

    #[test]
    fn streams_that_stopped_leave_room_for_every_other_and_never_pass_the_bound() {
        let (bytes, streams) = (1 << 20, 100);
        let mut budget = SendBudget::new(bytes, 256 << 10, streams);
        let unused = (0, budget.room(0));
        let mut held = vec![0; streams];
        for round in 0..5 {
            for stream in &mut held {
                let room = budget.room(*stream);
                assert!(*stream > 0 || room >= bytes / 2 / streams, "starved in round {round}");
                budget.resize(*stream, *stream + room);
                *stream += room;
            }
        }
        assert_eq!(held.iter().sum::<usize>(), budget.held());
        assert!(budget.held() <= bytes);
        for stream in held {
            budget.resize(stream, 0);
        }
        assert_eq!((budget.held(), budget.room(0)), unused);
    }

    #[test]
    fn busy_streams_converge_to_equal_parts() {
        let mut budget = SendBudget::new(32 << 20, 1 << 20, 10_000);
        let mut held = vec![0_usize; 100];
        for _ in 0..1000 {
            for stream in &mut held {
                let drained = stream.saturating_sub(10_000);
                let next = drained + budget.room(drained);
                budget.resize(*stream, next);
                *stream = next;
            }
        }
        let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
        assert!(*least > 120_000 && most - least < 20_000, "{least} {most}");
    }

    #[test]
    fn takes_no_byte_more_than_the_bound() {
        let mut budget = ReceiveBudget { left: 10, held: 0 };
        assert!(budget.take(10));
        assert!(!budget.take(1));
        budget.give(4);
        assert!(budget.take(4));
        assert_eq!(budget.held(), 10);
    }

    #[test]
    fn even_a_budget_smaller_than_its_streams_lets_each_write_a_byte() {
        let budget = SendBudget::new(10, 1000, 100);
        assert_eq!(budget.room(0), 1);
        assert_eq!(budget.room(1), 0);
    }
}
