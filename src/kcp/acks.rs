//! The list of acks to send (ikcp's `acklist`), each repeated in the ack packets that follow.
//!
//! A round begins with the first segment received after the last ack was taken. Each round carries its fresh acks, and
//! once more those of the rounds before that still lie at or above `una`: a lost ack packet then costs no retransmission.

use std::{collections::VecDeque, time::Instant};

use super::{segment::distance, window::trim};

/// One acknowledgement: a segment's number and the echo of its `ts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The segment received.
    pub(crate) sn: u32,
    /// Its time stamp, as it came.
    pub(crate) ts: u32,
}

/// Acks that wait, and acks that are to be repeated.
#[derive(Debug)]
pub(crate) struct Acks {
    /// How often each is sent again while above `una`.
    times: u8,
    fresh: VecDeque<Ack>,
    repeats: VecDeque<(Ack, u8)>,
    /// How many at the front of `repeats` belong to this round.
    due: usize,
    /// When the oldest fresh ack was asked for.
    since: Option<Instant>,
}

impl Acks {
    /// Starts with nothing to acknowledge; each ack is sent again `times` times while above `una`.
    pub(crate) fn new(times: u8) -> Self {
        Self { times, fresh: VecDeque::new(), repeats: VecDeque::new(), due: 0, since: None }
    }

    /// Adds the ack of a segment just received; `false` if the list is full and the ack was dropped.
    pub(crate) fn push(&mut self, ack: Ack, now: Instant) -> bool {
        if self.fresh.len() >= MOST_ACKS {
            return false;
        }
        if self.since.is_none() {
            self.since = Some(now);
            self.due = self.repeats.len();
        }
        self.fresh.push_back(ack);
        true
    }

    /// Takes the next ack of this round; `una` is our receiver's.
    pub(crate) fn pop(&mut self, una: u32) -> Option<Ack> {
        if let Some(ack) = self.fresh.pop_front() {
            if self.times > 0 && distance(ack.sn, una) >= 0 && self.repeats.len() < MOST_ACKS {
                self.repeats.push_back((ack, self.times));
            }
            return Some(ack);
        }
        self.since = None;
        trim(&mut self.fresh, KEPT_ACKS);
        while self.due > 0 {
            self.due -= 1;
            let (ack, left) = self.repeats.pop_front()?;
            if distance(ack.sn, una) >= 0 {
                if left > 1 {
                    self.repeats.push_back((ack, left - 1));
                }
                return Some(ack);
            }
        }
        trim(&mut self.repeats, KEPT_ACKS);
        None
    }

    /// Since when acks have waited; `None` if none does.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.since
    }
}

/// Bound of each of the two lists; our choice: 16 batches of 1024 segments.
pub(super) const MOST_ACKS: usize = 16 * 1024;
/// Places kept in each for the next batch; our choice: 20 KiB together.
const KEPT_ACKS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::tests::start;

    fn round(acks: &mut Acks, una: u32) -> Vec<u32> {
        std::iter::from_fn(|| acks.pop(una)).map(|ack| ack.sn).collect()
    }

    #[test]
    fn repeats_an_ack_above_una_in_the_next_two_rounds() {
        let mut acks = Acks::new(2);
        let mut rounds = Vec::new();
        for sn in 1..=4 {
            assert!(acks.push(Ack { sn, ts: 0 }, start()));
            rounds.push(round(&mut acks, 0));
        }
        assert_eq!(rounds, [vec![1], vec![2, 1], vec![3, 2, 1], vec![4, 3, 2]]);
        assert_eq!(acks.waiting_since(), None);
        assert!(round(&mut acks, 0).is_empty());
    }

    #[test]
    fn does_not_repeat_what_una_says() {
        let mut acks = Acks::new(2);
        acks.push(Ack { sn: u32::MAX, ts: 0 }, start());
        assert_eq!(round(&mut acks, 0), [u32::MAX]);
        acks.push(Ack { sn: 1, ts: 0 }, start());
        assert_eq!(round(&mut acks, 0), [1]);
        acks.push(Ack { sn: 0, ts: 0 }, start());
        assert_eq!(round(&mut acks, 2), [0]);
    }

    #[test]
    fn gives_its_memory_back_after_a_burst() {
        let mut acks = Acks::new(2);
        for sn in 1..10_000 {
            acks.push(Ack { sn, ts: 0 }, start());
        }
        assert_eq!(round(&mut acks, 0).len(), 9_999);
        assert!(acks.fresh.capacity() <= KEPT_ACKS);
        assert!(acks.repeats.capacity() >= 9_999);
        // The segment they all waited for.
        acks.push(Ack { sn: 0, ts: 0 }, start());
        assert_eq!(round(&mut acks, 10_000), [0]);
        assert!(acks.repeats.capacity() <= KEPT_ACKS);
    }

    #[test]
    fn is_bounded() {
        let mut acks = Acks::new(2);
        for _ in 0..MOST_ACKS {
            assert!(acks.push(Ack { sn: 0, ts: 0 }, start()));
        }
        assert!(!acks.push(Ack { sn: 0, ts: 0 }, start()));
    }
}
