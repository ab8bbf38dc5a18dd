//! Finished packets that wait for the shell to take them: bounded, and what does not fit is dropped and counted.

use std::collections::VecDeque;

/// A queue of whole packets.
#[derive(Debug)]
pub(crate) struct Outbox {
    packets: VecDeque<Vec<u8>>,
    bound: usize,
    dropped: u64,
}

impl Outbox {
    /// An empty queue for at most `bound` packets.
    pub(crate) fn new(bound: usize) -> Self {
        Self { packets: VecDeque::new(), bound, dropped: 0 }
    }

    /// Appends a packet, if there is one.
    pub(crate) fn push(&mut self, packet: Option<Vec<u8>>) {
        if self.packets.len() < self.bound {
            self.packets.extend(packet);
        } else {
            self.dropped += u64::from(packet.is_some());
        }
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    /// How many did not fit so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_and_counts_what_does_not_fit() {
        let mut outbox = Outbox::new(2);
        for packet in [Some(vec![1]), None, Some(vec![2]), Some(vec![3]), None] {
            outbox.push(packet);
        }
        assert_eq!(outbox.dropped(), 1);
        assert_eq!([outbox.pop(), outbox.pop(), outbox.pop()], [Some(vec![1]), Some(vec![2]), None]);
    }
}
