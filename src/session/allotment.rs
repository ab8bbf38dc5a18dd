//! What the sessions of a server may buffer: each a part of what the process may, kept for as long as it lives.
//!
//! ```text
//!  process ─┬─ connections towards clients (`towards`)
//!           ├─ a floor for each peer, connected or not, so that nobody finds nothing left
//!           └─ a pool, from which a session has its floor filled up to `session_buffer`
//! ```
//!
//! A session's windows are made from its part when it begins, so parts never change; and all of them together are within the
//! bound, whoever comes. A server with many peers of whom few are connected serves those as well as one with few peers.

/// What is left for sessions to come.
#[derive(Debug)]
pub(crate) struct Allotment {
    /// What one session has at most.
    most: usize,
    /// What it has at least.
    floor: usize,
    /// What is left beside all floors.
    pool: usize,
}

impl Allotment {
    /// Of `total` bytes for at most so many sessions, each with `most` at most.
    pub(crate) fn new(total: usize, most: usize, sessions: usize) -> Self {
        let sessions = sessions.max(1);
        let floor = (total / FLOORS / sessions).min(most);
        Self { most, floor, pool: total - floor * sessions }
    }

    /// The part of a session that begins.
    pub(crate) fn take(&mut self) -> usize {
        let more = (self.most - self.floor).min(self.pool / EAGER);
        self.pool -= more;
        self.floor + more
    }

    /// A session with this part has ended.
    pub(crate) fn give_back(&mut self, part: usize) {
        self.pool += part.saturating_sub(self.floor);
    }
}

/// Our choice: half of everything is floors.
const FLOORS: usize = 2;

/// Our choice: one session takes a quarter of what is left at most, so that those after it find something, too.
const EAGER: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn few_sessions_of_many_peers_have_all_that_one_may_have() {
        for peers in [1, 5, 100, 500] {
            let mut allotment = Allotment::new(896 * MIB, 64 * MIB, peers);
            for _ in 0..peers.min(4) {
                assert_eq!(allotment.take(), 64 * MIB, "{peers} peers");
            }
        }
    }

    #[test]
    fn all_sessions_together_stay_within_the_bound_and_none_has_nothing() {
        for (total, most, peers) in
            [(896 * MIB, 64 * MIB, 100), (MIB, MIB, 1), (2 * MIB, MIB, 7), (896 * MIB, 64 * MIB, 14)]
        {
            let mut allotment = Allotment::new(total, most, peers);
            let mut parts: Vec<_> = (0..peers).map(|_| allotment.take()).collect();
            for round in 0..1000 {
                let sum: usize = parts.iter().sum();
                assert!(sum <= total, "{sum} of {total}");
                let least = (total / peers / 2).min(most);
                assert!(parts.iter().all(|part| (least..=most).contains(part)), "{parts:?}");
                allotment.give_back(parts.remove(round * 7 % peers));
                parts.push(allotment.take());
            }
        }
    }

    #[test]
    fn what_was_given_back_is_there_for_the_next() {
        let mut allotment = Allotment::new(896 * MIB, 64 * MIB, 100);
        let parts: Vec<_> = (0..100).map(|_| allotment.take()).collect();
        assert!(parts[99] < 6 * MIB, "{} when everybody is there", parts[99]);
        parts.into_iter().for_each(|part| allotment.give_back(part));
        assert_eq!(allotment.take(), 64 * MIB);
    }
}
