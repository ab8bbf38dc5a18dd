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
    /// Something was sent or received since the last ping was first asked.
    busy_since_ping: bool,
    unacked_since: Option<Instant>,
    srtt: Option<Duration>,
    ping: Option<Ping>,
}

/// A question that waits: each time it is asked its token is one higher, so that an answer names the asking.
#[derive(Clone, Copy, Debug)]
struct Ping {
    token: u64,
    first_sent: Instant,
    last_sent: Instant,
    sent: u32,
}

impl Ping {
    /// When the packet with this token left, if it is the first or the last; others are too old to measure by.
    fn sent_at(&self, token: u64) -> Option<Instant> {
        match token.wrapping_sub(self.token) {
            0 => Some(self.first_sent),
            n if n + 1 == u64::from(self.sent) => Some(self.last_sent),
            _ => None,
        }
    }

    fn is_answered_by(&self, token: u64) -> bool {
        token.wrapping_sub(self.token) < u64::from(self.sent)
    }
}

impl Liveness {
    /// A carrier whose handshake was just answered, `rtt` after it was asked.
    pub(crate) fn new(rtt: Duration, now: Instant) -> Self {
        Self {
            last_round_trip: now,
            busy: true,
            busy_since_ping: false,
            unacked_since: None,
            srtt: Some(rtt),
            ping: None,
        }
    }

    /// Data was sent or received: the path is in use.
    pub(crate) fn on_traffic(&mut self) {
        self.busy = true;
        self.busy_since_ping = true;
    }

    /// Whether KCP waits for an acknowledgement.
    pub(crate) fn on_unacked(&mut self, waiting: bool, now: Instant) {
        if !waiting {
            self.unacked_since = None;
        } else {
            self.on_traffic();
            self.unacked_since.get_or_insert(now);
        }
    }

    /// Takes an answer; returns whether it was one to a ping that waits.
    pub(crate) fn on_pong(&mut self, token: u64, now: Instant) -> bool {
        let Some(ping) = self.ping.filter(|ping| ping.is_answered_by(token)) else { return false };
        if let Some(sent_at) = ping.sent_at(token) {
            let sample = now.saturating_duration_since(sent_at);
            self.srtt = Some(self.srtt.map_or(sample, |srtt| (srtt * 7 + sample) / 8));
        }
        self.on_round_trip(now);
        self.busy = self.busy_since_ping;
        true
    }

    /// KCP was acknowledged. What was sent after the first of the pings that wait made the round trip, if a round trip
    /// has passed since; then the pings themselves were merely lost.
    pub(crate) fn on_acknowledged(&mut self, now: Instant) {
        let rtt = self.srtt.unwrap_or(MIN_PATIENCE);
        match self.ping {
            Some(ping) if now < ping.first_sent + rtt + REPEAT_INTERVAL => {}
            _ => self.on_round_trip(now),
        }
    }

    /// Something else that was asked at `asked`, in the place of a ping, was answered.
    pub(crate) fn on_answered(&mut self, asked: Instant, now: Instant) {
        if self.ping.is_some_and(|ping| ping.first_sent <= asked) {
            self.on_round_trip(now);
            self.busy = self.busy_since_ping;
        }
    }

    fn on_round_trip(&mut self, now: Instant) {
        self.ping = None;
        self.unacked_since = None;
        self.last_round_trip = now;
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
        self.busy_since_ping &= ping.sent > 0;
        let token = ping.token.wrapping_add(u64::from(ping.sent));
        ping.last_sent = now;
        ping.sent = ping.sent.saturating_add(1);
        Some(token)
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
        self.ping.map(|ping| ping.first_sent + self.patience() + 2 * REPEAT_INTERVAL)
    }

    /// Since when a ping waits for its answer.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.ping.map(|ping| ping.first_sent)
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
        assert!(liveness.on_pong(1, now + BUSY_INTERVAL + RTT));
        assert_eq!(liveness.srtt(), Some(RTT));
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
        for n in 1..100 {
            now = liveness.ping_due(true);
            assert_eq!(liveness.poll_ping(true, 777, now), Some(2 + n), "each asking has its own token");
        }
        assert!(liveness.is_suspect(now));
        assert_eq!(liveness.ping_due(true), now + REPEAT_INTERVAL);
        assert!(!liveness.on_pong(2 + 100, now + RTT), "that one was never asked");
        assert!(liveness.on_pong(2 + 99, now + RTT));
        assert!(!liveness.is_suspect(now + RTT));
        assert_eq!(liveness.srtt(), Some(RTT));
    }

    #[test]
    fn missing_acknowledgements_bring_the_ping_forward() {
        let start = Instant::now();
        let mut liveness = idle(start);
        let sent = start + BUSY_INTERVAL + 2 * RTT;
        liveness.on_unacked(true, sent);
        liveness.on_unacked(true, sent + RTT);
        assert_eq!(liveness.ping_due(true), sent + MIN_PATIENCE);
        liveness.on_acknowledged(sent + RTT);
        liveness.on_unacked(false, sent + RTT);
        assert_eq!(liveness.ping_due(true), sent + RTT + BUSY_INTERVAL);
    }

    #[test]
    fn acknowledgements_of_later_data_answer_for_lost_pings() {
        let start = Instant::now();
        let mut liveness = idle(start);
        let now = liveness.ping_due(false);
        assert_eq!(liveness.poll_ping(true, 9, now), Some(9));
        liveness.on_acknowledged(now + RTT / 2);
        assert_eq!(liveness.waiting_since(), Some(now), "that data may have left before the ping");
        liveness.on_acknowledged(now + RTT + REPEAT_INTERVAL);
        assert_eq!(liveness.waiting_since(), None);
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
        assert!(!liveness.on_pong(6, now));
    }
}
