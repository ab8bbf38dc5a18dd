//! A token bucket for what costs public-key cryptography.

use std::time::{Duration, Instant};

/// How many handshakes may be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    tokens: u32,
    refilled: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: HANDSHAKE_BURST, refilled: now }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.refilled).as_millis() / HANDSHAKE_EVERY.as_millis();
        if let Ok(earned @ 1..) = u32::try_from(earned) {
            self.tokens = self.tokens.saturating_add(earned).min(HANDSHAKE_BURST);
            self.refilled = now;
        }
        let left = self.tokens.checked_sub(1);
        self.tokens = left.unwrap_or(0);
        left.is_some()
    }
}

/// Our choice: 200 handshakes a second, a twentieth of a core.
const HANDSHAKE_EVERY: Duration = Duration::from_millis(5);

/// Our choice: all clients of a small server at once.
const HANDSHAKE_BURST: u32 = 200;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use super::*;

    #[test]
    fn gives_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let taken = |budget: &mut Budget, now| (0..1000).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, start), 200);
        assert_eq!(taken(&mut budget, start + Duration::from_millis(50)), 10);
        assert_eq!(taken(&mut budget, start + Duration::from_secs(60)), 200);
    }
}
