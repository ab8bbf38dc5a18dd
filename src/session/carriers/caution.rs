//! What false alarms teach: losses come in bursts that no average tells of.

use std::time::{Duration, Instant};

/// How much longer than losses say an answer is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caution {
    level: u32,
    at: Instant,
}

impl Caution {
    /// None yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { level: 0, at: now }
    }

    /// How many pings more are waited for.
    pub(super) fn level(self, now: Instant) -> u32 {
        let forgotten = now.saturating_duration_since(self.at).as_secs() / FORGET_EVERY.as_secs();
        self.level.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// A carrier that was thought dead answered after all.
    pub(super) fn on_false_alarm(&mut self, now: Instant) {
        *self = Self { level: (self.level(now) + LESSON).min(MOST), at: now };
    }
}

/// Our choice: pings more after a false alarm …
const LESSON: u32 = 3;

/// … up to so many, which is a quarter of a second at 100 ms …
const MOST: u32 = 9;

/// … and fewer again after this long without one, each.
const FORGET_EVERY: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
    fn false_alarms_add_up_to_a_bound_and_are_forgotten_one_by_one() {
        let start = Instant::now();
        let mut caution = Caution::new(start);
        assert_eq!(caution.level(start), 0);
        for level in [3, 6, 9, 9] {
            caution.on_false_alarm(start);
            assert_eq!(caution.level(start), level);
        }
        assert_eq!(caution.level(start + FORGET_EVERY * 2), 7);
        assert_eq!(caution.level(start + FORGET_EVERY * 100), 0);
    }
}
