//! Carriers in the making: where the next one goes, when it may begin, and how fast new source ports follow one another.
//!
//! ```text
//!  poll_request ──> the shell reserves a port ──> take_request ──> dials ──> accepted, or given up
//!                                           └──> on_failure
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::dial::{Dial, Reach};
use super::servers::Servers;
use crate::carrier::Mode;
use crate::crypto::Timestamp;

/// All dials of a client, and those that wait for a port.
#[derive(Debug)]
pub(crate) struct Dialing {
    pub(crate) servers: Servers,
    /// Each has a port.
    pub(crate) dials: Vec<Dial>,
    /// The shell was asked for a port for each.
    requests: Vec<Request>,
    next: Instant,
    /// How far earlier dials came.
    reach: Reach,
    /// The server knows a later timestamp of ours.
    above: Option<Timestamp>,
    attempts: u32,
    failures: u32,
}

/// A dial that waits for its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Counts the dials of a session; a carrier's number.
    pub(crate) attempt: u32,
    pub(crate) remote: SocketAddr,
    pub(crate) mode: Mode,
}

impl Dialing {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            servers: Servers::default(),
            dials: Vec::new(),
            requests: Vec::new(),
            next: now,
            reach: Reach::None,
            above: None,
            attempts: 0,
            failures: 0,
        }
    }

    /// The next dial that a port is wanted for, if one may begin. Ask only if a carrier is needed.
    pub(crate) fn poll_request(&mut self, mode: Mode, now: Instant) -> Option<Request> {
        if self.is_busy() || self.next > now {
            return None;
        }
        let remote = self.servers.next_address()?;
        self.attempts += 1;
        let request = Request { attempt: self.attempts, remote, mode };
        self.requests.push(request);
        Some(request)
    }

    /// The dial that the shell has a port for now; `None` if it is not wanted any more.
    pub(crate) fn take_request(&mut self, attempt: u32) -> Option<Request> {
        let at = self.requests.iter().position(|request| request.attempt == attempt)?;
        Some(self.requests.swap_remove(at))
    }

    /// Takes the dial of this attempt out: it has become a carrier.
    pub(crate) fn take(&mut self, attempt: u32) -> Option<Dial> {
        let at = self.dials.iter().position(|dial| dial.number() == attempt)?;
        Some(self.dials.swap_remove(at))
    }

    /// Takes a dial out that came to nothing, and remembers how far it came.
    pub(crate) fn give_up(&mut self, attempt: u32) -> Option<Dial> {
        let dial = self.take(attempt)?;
        self.reach = self.reach.max(dial.reach());
        Some(dial)
    }

    /// A dial whose time is over.
    pub(crate) fn expired(&self, now: Instant) -> Option<u32> {
        self.dials.iter().find(|dial| dial.deadline() <= now).map(Dial::number)
    }

    /// Packets make the round trip: nothing is wanted, and the next time begins afresh.
    pub(crate) fn on_settled(&mut self, now: Instant) {
        self.requests.clear();
        (self.next, self.failures) = (now, 0);
    }

    /// Whether nothing is in the making, nor went wrong lately.
    pub(crate) fn is_settled(&self) -> bool {
        !self.is_busy() && self.failures == 0
    }

    /// Nothing is wanted any more.
    pub(crate) fn forget_requests(&mut self) {
        self.requests.clear();
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
    }

    /// The dial came to nothing, or could not begin.
    pub(crate) fn on_failure(&mut self, now: Instant) {
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

    /// How far the dials came that are over.
    pub(crate) fn past_reach(&self) -> Reach {
        self.reach
    }

    /// How far towards the server any dial came.
    pub(crate) fn reach(&self) -> Reach {
        self.dials.iter().map(Dial::reach).fold(self.reach, Reach::max)
    }

    /// When something is due, if a carrier is `needed`.
    pub(crate) fn poll_timeout(&self, needed: bool) -> Option<Instant> {
        let may_begin = needed && !self.is_busy() && !self.servers.is_empty();
        let dials = self.dials.iter().map(Dial::poll_timeout);
        dials.chain(may_begin.then_some(self.next)).min()
    }

    /// One at a time.
    fn is_busy(&self) -> bool {
        !self.dials.is_empty() || !self.requests.is_empty()
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

    #[test]
    fn a_port_that_comes_when_none_is_wanted_any_more_is_not_used() {
        let now = Instant::now();
        let mut dialing = Dialing::new(now);
        dialing.servers.set(vec![vec!["192.0.2.1:443".parse().unwrap()]]);
        let request = dialing.poll_request(Mode::default(), now).unwrap();
        assert_eq!(dialing.poll_request(Mode::default(), now), None, "one at a time");
        dialing.on_settled(now);
        assert_eq!(dialing.take_request(request.attempt), None);
    }
}
