//! Which peers are to be looked at, and what for.

use std::collections::VecDeque;

/// Peers that may have something, by who takes it.
#[derive(Debug)]
pub(super) struct Attention {
    /// Outer packets.
    pub(super) transmit: Turns,
    /// Events of streams that they opened, for the shell. MUX keeps those until they are asked for.
    pub(super) shell: Turns,
    /// Events of streams that we opened, for the flows.
    pub(super) flows: Turns,
}

/// Peers that wait for their turn, each at most once.
#[derive(Debug)]
pub(super) struct Turns {
    queue: VecDeque<usize>,
    /// By peer: it waits.
    waits: Vec<bool>,
}

impl Attention {
    /// Of so many peers, none of which has anything.
    pub(super) fn new(peers: usize) -> Self {
        Self { transmit: Turns::new(peers), shell: Turns::new(peers), flows: Turns::new(peers) }
    }

    /// A peer may have something to send or to tell.
    pub(super) fn touch(&mut self, peer: usize) {
        for turns in [&mut self.transmit, &mut self.shell, &mut self.flows] {
            turns.push(peer);
        }
    }
}

impl Turns {
    fn new(peers: usize) -> Self {
        Self { queue: VecDeque::new(), waits: vec![false; peers] }
    }

    fn push(&mut self, peer: usize) {
        if let Some(waits) = self.waits.get_mut(peer).filter(|waits| !**waits) {
            *waits = true;
            self.queue.push_back(peer);
        }
    }

    /// Whose turn it is.
    pub(super) fn front(&self) -> Option<usize> {
        self.queue.front().copied()
    }

    /// Takes whose turn it is: it has had it.
    pub(super) fn pop(&mut self) -> Option<usize> {
        let peer = self.queue.pop_front()?;
        if let Some(waits) = self.waits.get_mut(peer) {
            *waits = false;
        }
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_waits_once_however_often_it_is_touched() {
        let mut attention = Attention::new(3);
        for peer in [2, 0, 2, 2] {
            attention.touch(peer);
        }
        let turns = &mut attention.transmit;
        assert_eq!((turns.front(), turns.pop(), turns.pop(), turns.pop()), (Some(2), Some(2), Some(0), None));
        attention.touch(2);
        assert_eq!(attention.transmit.pop(), Some(2));
        assert_eq!(attention.shell.pop(), Some(2));
    }
}
