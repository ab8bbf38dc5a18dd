//! Finished packets that wait for the shell to take them: bounded, and what does not fit is dropped and counted.

use std::collections::VecDeque;

/// A queue of whole packets.
#[derive(Debug)]
pub(crate) struct Outbox {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
    bound: usize,
    dropped: u64,
}

impl Outbox {
    /// An empty queue for at most `bound` packets of [`ORDINARY`] bytes, or fewer larger ones.
    pub(crate) fn new(bound: usize) -> Self {
        Self { packets: VecDeque::new(), bytes: 0, bound, dropped: 0 }
    }

    /// Appends a packet, if there is one.
    pub(crate) fn push(&mut self, packet: Option<Vec<u8>>) {
        let Some(packet) = packet else { return };
        if self.packets.len() < self.bound && self.bytes + packet.len() <= self.bound * ORDINARY {
            self.bytes += packet.len();
            self.packets.push_back(packet);
        } else {
            self.dropped += 1;
        }
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
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

/// Bytes of an ordinary packet; our choice.
const ORDINARY: usize = 1536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_large_packets_fill_it_too() {
        let mut outbox = Outbox::new(100);
        for _ in 0..3 {
            outbox.push(Some(vec![0; 65_520]));
        }
        assert_eq!((outbox.len(), outbox.dropped()), (2, 1));
        outbox.pop();
        outbox.push(Some(vec![0; 65_520]));
        assert_eq!((outbox.len(), outbox.dropped()), (2, 1));
    }

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
