//! Is the carrier alive? Only a round trip says so: an answer to our own ping.
//!
//! "Something arrived" proves one direction, and the other is the one that ISPs cut. While there is traffic a ping
//! goes out once a second, or at once when what was sent stays unacknowledged; an idle tunnel pings every
//! [`IDLE_INTERVAL`]. Unanswered pings are repeated, fast while a flow is open, and after [`suspect_after`] the carrier
//! is suspect: the owner opens another beside it. The pings go on, so a path that comes back is found by them too.

use std::time::{Duration, Instant};

/// The ping schedule of one carrier.
#[derive(Debug)]
pub(crate) struct Liveness {
    last_round_trip: Instant,
    busy: bool,
    unacked_since: Option<Instant>,
    srtt: Option<Duration>,
    ping: Option<Ping>,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    token: u64,
    first_sent: Instant,
    last_sent: Instant,
    sent: u32,
}

impl Liveness {
    /// A carrier whose handshake was just answered, `rtt` after it was asked.
    pub(crate) fn new(rtt: Duration, now: Instant) -> Self {
        Self { last_round_trip: now, busy: true, unacked_since: None, srtt: Some(rtt), ping: None }
    }

    /// Data was sent or received: the path is in use.
    pub(crate) fn on_traffic(&mut self) {
        self.busy = true;
    }

    /// Whether KCP waits for an acknowledgement, and made no progress since it was last told.
    pub(crate) fn on_unacked(&mut self, waiting: bool, progressed: bool, now: Instant) {
        if !waiting {
            self.unacked_since = None;
        } else if progressed || self.unacked_since.is_none() {
            self.unacked_since = Some(now);
        }
    }

    /// Takes an answer; returns the measured round trip if it answers the ping that waits.
    pub(crate) fn on_pong(&mut self, token: u64, now: Instant) -> Option<Duration> {
        let ping = self.ping.filter(|ping| ping.token == token)?;
        self.ping = None;
        self.busy = false;
        self.unacked_since = None;
        self.last_round_trip = now;
        let since = if ping.sent == 1 { ping.first_sent } else { ping.last_sent };
        let sample = now.saturating_duration_since(since);
        if ping.sent == 1 {
            self.srtt = Some(self.srtt.map_or(sample, |srtt| (srtt * 7 + sample) / 8));
        }
        Some(sample)
    }

    /// Makes a ping due at once.
    pub(crate) fn ask_now(&mut self, now: Instant) {
        self.unacked_since = now.checked_sub(MAX_PATIENCE);
    }

    /// The token of the ping to send now, if one is due. `urgent` says that a flow is open.
    pub(crate) fn poll_ping(&mut self, urgent: bool, fresh_token: u64, now: Instant) -> Option<u64> {
        if self.ping_due(urgent) > now {
            return None;
        }
        let ping =
            self.ping.get_or_insert(Ping { token: fresh_token, first_sent: now, last_sent: now, sent: 0 });
        ping.last_sent = now;
        ping.sent = ping.sent.saturating_add(1);
        Some(ping.token)
    }

    /// When [`Self::poll_ping`] has something to say.
    pub(crate) fn ping_due(&self, urgent: bool) -> Instant {
        match self.ping {
            Some(ping) if urgent || ping.sent < FAST_PINGS => ping.last_sent + REPEAT_INTERVAL,
            Some(ping) => ping.last_sent + backed_off(ping.sent - FAST_PINGS),
            None => {
                let interval = if self.busy { BUSY_INTERVAL } else { IDLE_INTERVAL };
                let due = self.last_round_trip + interval;
                self.unacked_since.map_or(due, |since| due.min(since + self.patience()))
            }
        }
    }

    /// Whether a ping has waited too long for its answer.
    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_at().is_some_and(|at| at <= now)
    }

    /// When the carrier becomes suspect if no answer comes.
    pub(crate) fn suspect_at(&self) -> Option<Instant> {
        self.ping.map(|ping| ping.first_sent + self.patience() + REPEAT_INTERVAL)
    }

    /// The smoothed round-trip time of pings.
    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// How long an answer may take before its absence means something.
    fn patience(&self) -> Duration {
        (self.srtt.unwrap_or(MIN_PATIENCE) * 2).clamp(MIN_PATIENCE, MAX_PATIENCE)
    }
}

fn backed_off(repeats: u32) -> Duration {
    (REPEAT_INTERVAL * (1 << repeats.min(6))).min(MAX_REPEAT)
}

/// Our choice: below the 60 s after which the shortest-lived NATs forget an established flow.
pub(crate) const IDLE_INTERVAL: Duration = Duration::from_secs(20);

/// Our choice: an outage of one direction is noticed within about a second.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);

/// Our choice: small enough that a path's return is found within 0.3 s.
const REPEAT_INTERVAL: Duration = Duration::from_millis(250);

/// Repeats before an idle tunnel's pings back off.
const FAST_PINGS: u32 = 8;

const MAX_REPEAT: Duration = Duration::from_secs(10);
const MIN_PATIENCE: Duration = Duration::from_millis(250);
const MAX_PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    fn idle(now: Instant) -> Liveness {
        let mut liveness = Liveness::new(RTT, now);
        assert_eq!(liveness.poll_ping(true, 1, now + BUSY_INTERVAL), Some(1));
        assert_eq!(liveness.on_pong(1, now + BUSY_INTERVAL + RTT), Some(RTT));
        liveness
    }

    #[test]
    fn an_idle_carrier_pings_every_twenty_seconds() {
        let start = Instant::now();
        let liveness = idle(start);
        assert_eq!(liveness.ping_due(false), start + BUSY_INTERVAL + RTT + IDLE_INTERVAL);
    }

    #[test]
    fn a_busy_carrier_pings_every_second() {
        let start = Instant::now();
        let mut liveness = idle(start);
        liveness.on_traffic();
        assert_eq!(liveness.ping_due(false), start + BUSY_INTERVAL + RTT + BUSY_INTERVAL);
    }

    #[test]
    fn an_unanswered_ping_makes_the_carrier_suspect_and_goes_on() {
        let start = Instant::now();
        let mut liveness = idle(start);
        let mut now = liveness.ping_due(true);
        assert_eq!(liveness.poll_ping(true, 2, now), Some(2));
        assert!(!liveness.is_suspect(now + RTT));
        for _ in 0..100 {
            now = liveness.ping_due(true);
            assert_eq!(liveness.poll_ping(true, 3, now), Some(2), "the token stays until it is answered");
        }
        assert!(liveness.is_suspect(now));
        assert_eq!(liveness.ping_due(true), now + REPEAT_INTERVAL);
        assert!(liveness.on_pong(2, now + RTT).is_some());
        assert!(!liveness.is_suspect(now + RTT));
    }

    #[test]
    fn missing_acknowledgements_bring_the_ping_forward() {
        let start = Instant::now();
        let mut liveness = idle(start);
        let sent = start + Duration::from_secs(2);
        liveness.on_unacked(true, false, sent);
        assert_eq!(liveness.ping_due(true), sent + MIN_PATIENCE);
        liveness.on_unacked(true, true, sent + RTT);
        assert_eq!(liveness.ping_due(true), sent + RTT + MIN_PATIENCE);
        liveness.on_unacked(false, true, sent + RTT);
        assert_eq!(liveness.ping_due(true), liveness.last_round_trip + IDLE_INTERVAL);
    }

    #[test]
    fn pings_of_a_tunnel_without_flows_back_off() {
        let start = Instant::now();
        let mut liveness = idle(start);
        let mut now = start;
        for _ in 0..30 {
            now = liveness.ping_due(false);
            assert!(liveness.poll_ping(false, 4, now).is_some());
        }
        assert_eq!(liveness.ping_due(false), now + MAX_REPEAT);
    }

    #[test]
    fn a_foreign_token_proves_nothing() {
        let start = Instant::now();
        let mut liveness = idle(start);
        let now = liveness.ping_due(false);
        assert_eq!(liveness.poll_ping(false, 5, now), Some(5));
        assert_eq!(liveness.on_pong(6, now), None);
    }
}
