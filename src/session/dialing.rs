//! When the client opens another carrier, and how fast new source ports follow one another.

use std::time::{Duration, Instant};

use super::dial::{Dial, Reach};
use crate::crypto::Timestamp;

/// The one carrier in the making, or when the next may begin.
#[derive(Debug)]
pub(crate) struct Dialing {
    pub(crate) dial: Option<Dial>,
    /// The shell was asked for a port.
    pub(crate) wanted: bool,
    pub(crate) next: Instant,
    /// How far earlier dials came.
    pub(crate) reach: Reach,
    /// The server knows a later timestamp of ours.
    pub(crate) above: Option<Timestamp>,
    failures: u32,
}

impl Dialing {
    pub(crate) fn new(now: Instant) -> Self {
        Self { dial: None, wanted: false, next: now, reach: Reach::None, above: None, failures: 0 }
    }

    /// How many came to nothing, or to a carrier that has not proved itself yet.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The dial became a carrier. Where handshakes pass and data does not, the next one still waits its time.
    pub(crate) fn on_accepted(&mut self, now: Instant) {
        self.back_off(now);
    }

    /// The server knows a later timestamp of ours: above it another dial may begin at once. One that is stale again, too,
    /// waits: the server would have us open port after port.
    pub(crate) fn on_stale(&mut self, above: Timestamp, now: Instant) {
        self.next = now;
        if self.above.replace(above).is_some() {
            self.back_off(now);
        }
    }

    /// The dial was answered long before its lifetime ended, and another must not follow at that pace.
    fn back_off(&mut self, now: Instant) {
        self.next = now + self.lifetime();
        self.failures += 1;
        self.wanted = false;
    }

    /// The dial came to nothing, or could not begin.
    pub(crate) fn on_failure(&mut self, now: Instant) {
        self.wanted = false;
        self.failures += 1;
        // A dial that ran its lifetime has waited long enough; one that could not start has not.
        self.next = now + FIRST_DIAL / 4;
    }

    /// How long the next dial may take: only new source ports back off.
    pub(crate) fn lifetime(&self) -> Duration {
        (FIRST_DIAL * (1 << self.failures.min(4))).min(MAX_DIAL)
    }

    /// The timestamp of the next message 1.
    pub(crate) fn timestamp(&self, wall: Timestamp) -> Timestamp {
        self.above.map_or(wall, |above| wall.max(above.next()))
    }

    /// When something is due, if a carrier is `needed`.
    pub(crate) fn poll_timeout(&self, needed: bool) -> Option<Instant> {
        match &self.dial {
            Some(dial) => Some(dial.poll_timeout()),
            None => (needed && !self.wanted).then_some(self.next),
        }
    }
}

/// Our choice: long enough for a SYN, its first repeat and two round trips of a bad path.
const FIRST_DIAL: Duration = Duration::from_secs(2);

/// Our choice: at most six new source ports a minute, so that no NAT's table is flooded.
const MAX_DIAL: Duration = Duration::from_secs(10);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use super::*;

    #[test]
    fn asks_again_at_once_when_stale_but_not_on_and_on() {
        let now = Instant::now();
        let mut dialing = Dialing::new(now);
        let mut above = Timestamp::from_unix(Duration::from_secs(1));
        let mut waits = Vec::new();
        for _ in 0..5 {
            dialing.on_stale(above, now);
            above = dialing.timestamp(above);
            waits.push((dialing.next - now).as_secs());
        }
        assert_eq!(waits, [0, 2, 4, 8, 10]);
        assert!(above > Timestamp::from_unix(Duration::from_secs(1)));
    }
}
