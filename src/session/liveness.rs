//! Is the carrier alive? Only a round trip says so: an answer to our own ping.
//!
//! ```text
//!            busy: a quarter of a second, idle: 20 s
//!  quiet ─────────────────────────────────────────────> asking ──answer──> quiet
//!    │   nothing acknowledged, or an inflow stopped       │ no answer for an RTO
//!    └────────────────────────────────────────> doubting <┘
//!                                                 │ asked fast, and so often that loss explains it no more
//!                                                 └──> suspect: another is opened beside it; the asking goes on
//! ```
//!
//! "Something arrived" proves one direction, and the other is the one that ISPs cut. How many pings must stay unanswered
//! depends on how many the path loses anyway. A path that comes back is found by the pings, too.

use std::time::{Duration, Instant};

/// The ping schedule of one carrier.
#[derive(Debug)]
pub(crate) struct Liveness {
    last_round_trip: Instant,
    busy: bool,
    /// Something was sent or received since the last ping was first asked.
    busy_since_ping: bool,
    unacked_since: Option<Instant>,
    inflow: Inflow,
    srtt: Duration,
    variation: Duration,
    ping: Option<Ping>,
    /// Pings in a row that loss alone would not swallow.
    enough: u32,
    /// The owner wants to know at once …
    asked: bool,
    /// … because something speaks against the path.
    asked_in_doubt: bool,
}

/// A question that waits: each time it is asked its token is one higher, so that an answer names the asking.
#[derive(Clone, Copy, Debug)]
struct Ping {
    token: u64,
    first_sent: Instant,
    last_sent: Instant,
    sent: u32,
    /// Something speaks for an answer that will not come: it is asked fast.
    doubt: bool,
    /// When it had been asked often enough.
    enough_at: Option<Instant>,
    /// The verdict was put off, because we ourselves had stood still.
    postponed: bool,
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

/// What comes towards us, and whether it has a reason to go on.
#[derive(Clone, Copy, Debug, Default)]
struct Inflow {
    last: Option<Instant>,
    usual_gap: Duration,
    largest: usize,
    /// The last packet was full: more was to follow.
    open: bool,
}

impl Inflow {
    fn on_packet(&mut self, length: usize, now: Instant) {
        if let Some(last) = self.last {
            let gap = now.saturating_duration_since(last).min(LONGEST_GAP);
            self.usual_gap = (self.usual_gap * 7 + gap) / 8;
        }
        self.last = Some(now);
        self.learn_largest(length);
        self.open = length + length / 8 >= self.largest;
    }

    /// What a full packet is: the path may come to carry less than it did.
    fn learn_largest(&mut self, length: usize) {
        if length >= self.largest {
            self.largest = length;
        } else if length >= self.largest - self.largest / 4 {
            self.largest -= (self.largest - length).div_ceil(8);
        }
    }

    /// When its silence means something.
    fn quiet_at(&self, srtt: Duration) -> Option<Instant> {
        let last = self.last.filter(|_| self.open)?;
        Some(last + (2 * srtt).max(4 * self.usual_gap).max(SHORTEST_QUIET))
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
            inflow: Inflow::default(),
            srtt: rtt,
            variation: rtt / 4,
            ping: None,
            enough: pings_beyond(UNKNOWN_LOSS),
            asked: false,
            asked_in_doubt: false,
        }
    }

    /// Data was sent: the path is in use.
    pub(crate) fn on_traffic(&mut self) {
        self.busy = true;
        self.busy_since_ping = true;
    }

    /// A packet of so many bytes, headers included, brought data.
    pub(crate) fn on_inflow(&mut self, length: usize, now: Instant) {
        self.on_traffic();
        self.inflow.on_packet(length, now);
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

    /// The share of round trips that the path loses, of 1, and how many pings more than that explains are to be waited for.
    pub(crate) fn set_loss(&mut self, loss: f64, caution: u32) {
        self.enough = pings_beyond(loss) + caution;
    }

    /// Takes an answer; returns whether it was one to a ping that waits.
    pub(crate) fn on_pong(&mut self, token: u64, now: Instant) -> bool {
        let Some(ping) = self.ping.filter(|ping| ping.is_answered_by(token)) else { return false };
        if let Some(sent_at) = ping.sent_at(token) {
            self.on_sample(now.saturating_duration_since(sent_at));
        }
        self.on_round_trip(now);
        self.busy = self.busy_since_ping;
        true
    }

    /// RFC 6298 §2.
    fn on_sample(&mut self, sample: Duration) {
        self.variation = (self.variation * 3 + self.srtt.abs_diff(sample)) / 4;
        self.srtt = (self.srtt * 7 + sample) / 8;
    }

    /// KCP was acknowledged. What was sent after the first of the pings that wait made the round trip, if a round trip
    /// has passed since; then the pings themselves were merely lost.
    pub(crate) fn on_acknowledged(&mut self, now: Instant) {
        match self.ping {
            Some(ping) if now < ping.first_sent + self.rto() => {}
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
        (self.asked, self.asked_in_doubt) = (false, false);
        self.unacked_since = None;
        self.inflow.open = false;
        self.last_round_trip = now;
    }

    /// Makes a ping due at once.
    pub(crate) fn ask_now(&mut self) {
        self.asked = true;
    }

    /// Makes a ping due at once, and its answer urgent.
    pub(crate) fn ask_in_doubt(&mut self) {
        (self.asked, self.asked_in_doubt) = (true, true);
    }

    /// The token of the ping to send now, if one is due. `urgent` says that a flow is open.
    pub(crate) fn poll_ping(&mut self, urgent: bool, fresh_token: u64, now: Instant) -> Option<u64> {
        if self.ping_due(urgent) > now {
            return None;
        }
        let doubt = self.reason_at().is_some_and(|at| at <= now) || self.ping.is_some();
        let enough = self.enough;
        (self.asked, self.asked_in_doubt) = (false, false);
        let ping = self.ping.get_or_insert(Ping {
            token: fresh_token,
            first_sent: now,
            last_sent: now,
            sent: 0,
            doubt: false,
            enough_at: None,
            postponed: false,
        });
        self.busy_since_ping &= ping.sent > 0;
        let token = ping.token.wrapping_add(u64::from(ping.sent));
        ping.doubt |= doubt;
        ping.last_sent = now;
        ping.sent = ping.sent.saturating_add(1);
        if ping.sent >= enough {
            ping.enough_at.get_or_insert(now);
        }
        Some(token)
    }

    /// When [`Self::poll_ping`] has something to say.
    pub(crate) fn ping_due(&self, urgent: bool) -> Instant {
        let due = match self.ping {
            Some(ping) if !ping.doubt => {
                let due = ping.first_sent + self.rto();
                // What makes us doubt now need not have done so when we asked.
                self.reason_at().map_or(due, |at| due.min(at.max(ping.last_sent + self.fast_repeat())))
            }
            Some(ping) if ping.sent < self.enough.max(FAST_PINGS) => ping.last_sent + self.fast_repeat(),
            Some(ping) if urgent => ping.last_sent + REPEAT_INTERVAL,
            Some(ping) => ping.last_sent + backed_off(ping.sent - FAST_PINGS),
            None => {
                let interval = if self.busy { BUSY_INTERVAL.max(self.srtt) } else { IDLE_INTERVAL };
                let due = self.last_round_trip + interval;
                self.reason_at().map_or(due, |at| due.min(at))
            }
        };
        if self.asked { due.min(self.last_round_trip) } else { due }
    }

    /// When something speaks against the path, or did.
    fn reason_at(&self) -> Option<Instant> {
        let unacked = self.unacked_since.map(|since| since + self.rto());
        let asked = self.asked_in_doubt.then_some(self.last_round_trip);
        [unacked, self.inflow.quiet_at(self.srtt), asked].into_iter().flatten().min()
    }

    /// Whether too many pings have waited too long for their answer. Who looks too late to know waits once more: the answers
    /// may be there, unread.
    pub(crate) fn check_suspect(&mut self, now: Instant) -> bool {
        let late = self.suspect_at().is_some_and(|at| at + LATE < now);
        if let Some(ping) = self.ping.as_mut().filter(|ping| late && !ping.postponed) {
            ping.postponed = true;
            ping.enough_at = Some(now);
        }
        self.is_suspect(now)
    }

    /// Whether too many pings have waited too long for their answer.
    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_at().is_some_and(|at| at <= now)
    }

    /// When the carrier becomes suspect if no answer comes.
    pub(crate) fn suspect_at(&self) -> Option<Instant> {
        self.ping.and_then(|ping| ping.enough_at).map(|at| at + self.rto())
    }

    /// Whether the answer that is waited for is overdue, or something speaks against it.
    pub(crate) fn is_doubted(&self) -> bool {
        self.ping.is_some_and(|ping| ping.doubt)
    }

    /// Since when a ping waits for its answer.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.ping.map(|ping| ping.first_sent)
    }

    /// When a round trip was last made.
    pub(crate) fn last_round_trip(&self) -> Instant {
        self.last_round_trip
    }

    /// The smoothed round-trip time of pings.
    pub(crate) fn srtt(&self) -> Duration {
        self.srtt
    }

    /// How long an answer may take before its absence means something (RFC 6298 §2).
    fn rto(&self) -> Duration {
        (self.srtt + (4 * self.variation).max(SHORTEST_MARGIN)).clamp(MIN_PATIENCE, MAX_PATIENCE)
    }

    fn fast_repeat(&self) -> Duration {
        (self.srtt / 4).clamp(FASTEST_REPEAT, REPEAT_INTERVAL)
    }
}

/// How many pings in a row a path that loses this share of round trips swallows once in [`RARE`].
fn pings_beyond(loss: f64) -> u32 {
    let loss = loss.clamp(0.0, 0.9);
    let (mut pings, mut chance) = (1, loss);
    while chance > RARE && pings < MOST_PINGS {
        chance *= loss;
        pings += 1;
    }
    pings.max(FEWEST_PINGS)
}

fn backed_off(repeats: u32) -> Duration {
    (REPEAT_INTERVAL * (1 << repeats.min(6))).min(MAX_REPEAT)
}

/// Our choice: below the 60 s after which the shortest-lived NATs forget an established flow.
pub(crate) const IDLE_INTERVAL: Duration = Duration::from_secs(20);

/// Our choice: where packets leave anyway a ping costs 13 bytes, and an uplink that is cut is noticed half a second later.
const BUSY_INTERVAL: Duration = Duration::from_millis(250);

/// Our choice: small enough that a path's return is found within 0.3 s.
const REPEAT_INTERVAL: Duration = Duration::from_millis(250);

/// Our choice: in doubt, the fastest asking; on a path of a few milliseconds more would be a burst.
const FASTEST_REPEAT: Duration = Duration::from_millis(20);

/// Repeats before pings slow down: to their usual pace, or without a flow to a back-off.
const FAST_PINGS: u32 = 4;

const MAX_REPEAT: Duration = Duration::from_secs(10);
const MIN_PATIENCE: Duration = Duration::from_millis(100);
const MAX_PATIENCE: Duration = Duration::from_secs(3);

/// Our choice: what schedulers and timers of both ends may add to a round trip.
const SHORTEST_MARGIN: Duration = Duration::from_millis(60);

/// Our choice: an inflow's silence that means nothing whatever the path is.
const SHORTEST_QUIET: Duration = Duration::from_millis(100);

/// Our choice: a pause this long was one of the app.
const LONGEST_GAP: Duration = Duration::from_secs(1);

/// Our choice: how late a timer may be before we were the ones who stood still.
const LATE: Duration = Duration::from_millis(100);

/// Our choice: one doubt in so many may be a false alarm.
const RARE: f64 = 1.0 / 500.0;
const FEWEST_PINGS: u32 = 3;
const MOST_PINGS: u32 = 12;

/// Our choice: what a carrier is thought to lose before it was measured.
const UNKNOWN_LOSS: f64 = 0.1;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    /// A carrier whose round trip is well known, at the moment of its last answer.
    fn known(start: Instant) -> (Liveness, Instant) {
        let mut liveness = Liveness::new(RTT, start);
        let mut now = start;
        for token in 0..40 {
            liveness.on_traffic();
            now = liveness.ping_due(true);
            assert_eq!(liveness.poll_ping(true, token, now), Some(token));
            now += RTT;
            assert!(liveness.on_pong(token, now));
        }
        assert_eq!(liveness.srtt(), RTT);
        (liveness, now)
    }

    fn idle(start: Instant) -> (Liveness, Instant) {
        let (mut liveness, _) = known(start);
        let now = liveness.ping_due(true);
        assert!(liveness.poll_ping(true, 1000, now).is_some());
        assert!(liveness.on_pong(1000, now + RTT));
        (liveness, now + RTT)
    }

    /// Nobody answers any more: how many pings leave until the carrier is suspect, and when that is.
    fn until_suspect(liveness: &mut Liveness, from: Instant) -> (u32, Instant) {
        let mut pings = 0;
        loop {
            let due = liveness.ping_due(true);
            match liveness.suspect_at() {
                Some(at) if at <= due => return (pings, at.max(from)),
                _ => assert!(liveness.poll_ping(true, 7, due.max(from)).is_some()),
            }
            pings += 1;
        }
    }

    #[test]
    fn an_idle_carrier_pings_every_twenty_seconds() {
        let (liveness, now) = idle(Instant::now());
        assert_eq!(liveness.ping_due(false), now + IDLE_INTERVAL);
    }

    #[test]
    fn a_busy_carrier_pings_every_quarter_of_a_second() {
        let (mut liveness, now) = idle(Instant::now());
        liveness.on_traffic();
        liveness.on_round_trip(now);
        assert_eq!(liveness.ping_due(false), now + BUSY_INTERVAL);
    }

    #[test]
    fn an_inflow_that_stops_is_asked_about_at_once_and_suspect_within_half_a_second() {
        let (mut liveness, mut now) = known(Instant::now());
        for _ in 0..100 {
            liveness.on_inflow(1300, now);
            now += Duration::from_millis(1);
        }
        // The busy carrier's next ping leaves meanwhile; it is what is not answered.
        let stopped = now;
        let (pings, suspect) = until_suspect(&mut liveness, now);
        assert!(suspect - stopped <= Duration::from_millis(500), "{:?}", suspect - stopped);
        assert!(pings >= FEWEST_PINGS, "{pings}");
    }

    #[test]
    fn an_inflow_that_ended_with_a_small_packet_is_not_asked_about() {
        let (mut liveness, now) = idle(Instant::now());
        (0..20).for_each(|_| liveness.on_inflow(1300, now));
        assert!(liveness.reason_at().is_some());
        liveness.on_inflow(200, now);
        assert_eq!(liveness.reason_at(), None);
    }

    #[test]
    fn a_path_that_carries_less_than_before_still_has_full_packets() {
        let (mut liveness, now) = idle(Instant::now());
        (0..20).for_each(|_| liveness.on_inflow(1500, now));
        (0..20).for_each(|_| liveness.on_inflow(1280, now));
        assert!(liveness.reason_at().is_some());
        (0..1000).for_each(|_| liveness.on_inflow(600, now));
        assert_eq!(liveness.reason_at(), None, "small packets are no full ones, however many");
    }

    #[test]
    fn a_slow_inflow_may_pause_for_longer() {
        let (mut liveness, mut now) = idle(Instant::now());
        for _ in 0..100 {
            now += Duration::from_millis(400);
            liveness.on_inflow(1300, now);
        }
        assert!(liveness.reason_at().unwrap() > now + Duration::from_millis(1200));
    }

    #[test]
    fn missing_acknowledgements_bring_the_ping_forward() {
        let (mut liveness, now) = idle(Instant::now());
        liveness.on_unacked(true, now);
        liveness.on_unacked(true, now + RTT);
        assert_eq!(liveness.reason_at(), Some(now + liveness.rto()));
        liveness.on_acknowledged(now + RTT);
        liveness.on_unacked(false, now + RTT);
        assert_eq!(liveness.reason_at(), None);
    }

    #[test]
    fn the_more_a_path_loses_the_more_pings_must_stay_unanswered() {
        let asked = [0.0, 0.1, 0.36, 0.6, 1.0].map(|loss| {
            let (mut liveness, now) = known(Instant::now());
            liveness.set_loss(loss, 0);
            until_suspect(&mut liveness, now).0
        });
        assert_eq!(asked, [4, 4, 7, 12, 12]);
    }

    #[test]
    fn the_asking_goes_on_and_an_answer_to_the_last_ends_it() {
        let (mut liveness, now) = known(Instant::now());
        let (pings, mut now) = until_suspect(&mut liveness, now);
        let first = 7;
        for n in pings.. {
            if n == 200 {
                break;
            }
            now = liveness.ping_due(true);
            assert_eq!(
                liveness.poll_ping(true, 777, now),
                Some(first + u64::from(n)),
                "each has its own token"
            );
        }
        assert!(liveness.is_suspect(now));
        assert_eq!(liveness.ping_due(true), now + REPEAT_INTERVAL);
        assert!(!liveness.on_pong(first + 200, now + RTT), "that one was never asked");
        assert!(liveness.on_pong(first + 199, now + RTT));
        assert!(!liveness.check_suspect(now + RTT));
        assert_eq!(liveness.srtt(), RTT);
    }

    #[test]
    fn who_stood_still_looks_for_answers_before_the_verdict() {
        let (mut liveness, now) = known(Instant::now());
        let (_, suspect) = until_suspect(&mut liveness, now);
        let late = suspect + LATE + Duration::from_millis(1);
        assert!(!liveness.check_suspect(late), "the answers may be there, unread");
        assert!(liveness.check_suspect(late + liveness.rto()));
        assert!(liveness.check_suspect(late + 100 * liveness.rto()), "it is put off once");
    }

    #[test]
    fn acknowledgements_of_later_data_answer_for_lost_pings() {
        let (mut liveness, _) = known(Instant::now());
        let now = liveness.ping_due(false);
        assert_eq!(liveness.poll_ping(true, 9, now), Some(9));
        liveness.on_acknowledged(now + RTT / 2);
        assert_eq!(liveness.waiting_since(), Some(now), "that data may have left before the ping");
        liveness.on_acknowledged(now + liveness.rto());
        assert_eq!(liveness.waiting_since(), None);
    }

    #[test]
    fn pings_of_a_tunnel_without_flows_back_off() {
        let (mut liveness, mut now) = idle(Instant::now());
        for _ in 0..30 {
            now = liveness.ping_due(false);
            assert!(liveness.poll_ping(false, 4, now).is_some());
        }
        assert_eq!(liveness.ping_due(false), now + MAX_REPEAT);
    }

    #[test]
    fn a_foreign_token_proves_nothing() {
        let (mut liveness, _) = known(Instant::now());
        let now = liveness.ping_due(false);
        assert_eq!(liveness.poll_ping(false, 5, now), Some(5));
        assert!(!liveness.on_pong(6, now));
    }

    #[test]
    fn a_question_of_the_owner_is_asked_at_once() {
        let (mut liveness, now) = idle(Instant::now());
        liveness.ask_in_doubt();
        assert!(liveness.ping_due(false) <= now);
        assert!(liveness.poll_ping(false, 3, now).is_some());
        assert!(liveness.ping_due(false) > now);
    }
}
