//! The send side: what is in flight, what was lost, and the timers that find out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    config::Nodelay,
    congestion::{self, Congestion},
    copies::Copies,
    delivery::{Delivery, Snapshot},
    recovery::Recovery,
    ring::{Acknowledged, Departure, Ring, Sent, State},
    rtt::{MAX_RTO, Rtt},
    segment::distance,
};

/// Keeps segments until they are acknowledged and says which to send again.
#[derive(Debug)]
pub(crate) struct Sender {
    ring: Ring,
    rtt: Rtt,
    nodelay: Nodelay,
    dead_link: u32,
    dead: bool,
    delivery: Delivery,
    recovery: Recovery,
    copies: Copies,
    congestion: Box<dyn Congestion>,
    /// Segments lost for the first time, in the order to send them; those acknowledged meanwhile are passed over. Here and
    /// in `lost_again` there are never more than the send window: nothing fresh is sent while any waits.
    lost: VecDeque<u32>,
    /// Segments lost again: all that was sent after them waits for these, so they go first.
    lost_again: VecDeque<u32>,
    /// Transmissions that neither window nor pacer holds back.
    credit: u32,
    /// Timeouts in a row.
    backoff: u32,
    last_timeout: Option<Instant>,
    last_progress: Option<Instant>,
    /// The tail was probed since the last progress.
    tail_probed: bool,
    batch: Batch,
    packet: u64,
    counters: Counters,
}

impl Sender {
    /// Starts with nothing sent.
    pub(crate) fn new(setup: Setup, congestion: Box<dyn Congestion>, now: Instant) -> Self {
        Self {
            ring: Ring::new(setup.overhead),
            rtt: Rtt::new(setup.min_rto, setup.interval),
            nodelay: setup.nodelay,
            dead_link: setup.dead_link,
            dead: false,
            delivery: Delivery::new(now),
            recovery: Recovery::new(setup.fast_resend, setup.fast_limit),
            copies: Copies::new(now),
            congestion,
            lost: VecDeque::new(),
            lost_again: VecDeque::new(),
            credit: 0,
            backoff: 0,
            last_timeout: None,
            last_progress: None,
            tail_probed: false,
            batch: Batch::default(),
            packet: setup.packet,
            counters: Counters::default(),
        }
    }

    /// Numbers that wait to be sent again, with those acknowledged meanwhile.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lost.len() + self.lost_again.len()
    }

    /// Starts at `sn` instead.
    #[cfg(test)]
    pub(crate) fn start_at(&mut self, sn: u32) {
        self.ring.start_at(sn);
    }

    /// What a segment's `una` is worth.
    pub(crate) fn check_una(&self, una: u32) -> Una {
        if distance(self.ring.next(), una) < 0 {
            Una::Impossible
        } else if distance(una, self.ring.una()) < 0 {
            Una::Old
        } else {
            Una::New
        }
    }

    /// Takes the `una` of a packet (`ikcp_parse_una`), after its acks: they say more of the same segments.
    pub(crate) fn handle_una(&mut self, una: u32, now: Instant) {
        while self.ring.span() > 0 && distance(una, self.ring.una()) > 0 {
            if let Some(acked) = self.ring.acknowledge(self.ring.una()) {
                self.take_unambiguous(&acked, None, now);
            }
            self.ring.shrink();
        }
    }

    /// Takes an ack (`ikcp_parse_ack`); `false` if it acknowledges what was never sent or echoes a `ts` never sent.
    pub(crate) fn handle_ack(&mut self, sn: u32, ts: u32, clock: u32, now: Instant) -> bool {
        let ahead = distance(sn, self.ring.una());
        if ahead < 0 {
            return distance(sn, self.ring.una().wrapping_sub(OLDEST_ACK)) >= 0;
        }
        let Some(sent) = self.ring.get(sn) else {
            return false;
        };
        if distance(ts, sent.first_ts()) < 0 || distance(ts, sent.departure.ts) > 0 {
            return false;
        }
        let Some(acked) = self.ring.acknowledge(sn) else {
            return true;
        };
        self.ring.shrink();
        if acked.departure.ts != acked.base_ts {
            self.judge_copy(&acked, ts, clock);
        }
        if ts == acked.departure.ts {
            self.take_unambiguous(&acked, Some(ts), now);
        } else {
            self.take_earlier(&acked, ts, clock, now);
        }
        true
    }

    /// Ends a packet: what its acks say together.
    pub(crate) fn on_packet_end(&mut self, now: Instant) {
        let mut batch = std::mem::take(&mut self.batch);
        if batch.bytes == 0 {
            return;
        }
        batch.rtt = batch.rtt.filter(|rtt| *rtt <= MAX_RTO);
        self.last_progress = Some(now);
        (self.backoff, self.tail_probed) = (0, false);
        if let Some(rtt) = batch.rtt {
            self.rtt.on_sample(rtt);
        }
        self.delivery.on_delivered(batch.bytes, now);
        let rate = batch.newest.and_then(|newest| self.delivery.sample(&newest.snapshot, newest.sent_at));
        // Only here: a deadline that was named does not move while nothing arrives.
        self.recovery.relax(self.srtt(), now);
        self.detect_losses(now);
        self.copies.retain(|sn| self.ring.is_in(sn, State::InFlight));
        self.peek_retransmission();
        let acks = congestion::Acks {
            bytes: batch.bytes,
            delivered: self.delivery.delivered(),
            delivered_at_departure: batch.newest.map(|newest| newest.snapshot.delivered),
            in_flight: self.ring.in_flight(),
            rtt: batch.rtt,
            srtt: self.rtt.smoothed(),
            rate,
        };
        self.congestion.on_acks(&acks, now);
    }

    /// Does what is due: losses by time, the tail probe, the timeout.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.detect_losses(now);
        if self.tail_at().is_some_and(|at| at <= now) {
            self.probe_tail();
        } else if self.timeout_at().is_some_and(|at| at <= now) {
            self.time_out(now);
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.loss_at(), self.tail_at(), self.timeout_at()].into_iter().flatten().min()
    }

    /// When the next early copy is due, if the pacer lets it leave.
    pub(crate) fn copy_at(&self) -> Option<Instant> {
        self.copies.poll_timeout()
    }

    /// The next segment to send again, without taking it; forgets those at the front that were acknowledged meanwhile.
    pub(crate) fn peek_retransmission(&mut self) -> Option<u32> {
        for queue in [&mut self.lost_again, &mut self.lost] {
            while let Some(sn) = queue.front().copied() {
                if self.ring.is_in(sn, State::Lost) {
                    return Some(sn);
                }
                queue.pop_front();
            }
        }
        None
    }

    /// Whether a lost segment waits; it may have been acknowledged meanwhile.
    pub(crate) fn has_retransmission(&self) -> bool {
        !self.lost_again.is_empty() || !self.lost.is_empty()
    }

    /// Takes what [`Self::peek_retransmission`] showed and puts it in flight again.
    pub(crate) fn on_retransmitted(&mut self, sn: u32, ts: u32, now: Instant) {
        // What was shown stands at the front of one of them; a stale entry is passed over when its turn comes.
        if self.lost_again.pop_front().is_none() {
            self.lost.pop_front();
        }
        self.credit = self.credit.saturating_sub(1);
        self.counters.retransmitted += 1;
        let departure = self.departure(ts, now);
        self.ring.depart(sn, departure);
        self.plan_copy(sn, now);
        self.check_link(sn);
    }

    /// The segment to copy now, if any; see [`Copies::peek`].
    pub(crate) fn peek_copy(&mut self, beside_data: bool, now: Instant) -> Option<u32> {
        self.copies.retain(|sn| self.ring.is_in(sn, State::InFlight));
        self.copies.peek(beside_data, now)
    }

    /// Takes what [`Self::peek_copy`] showed.
    pub(crate) fn on_copied(&mut self, sn: u32, ts: u32, now: Instant) {
        self.counters.copied += 1;
        let (bytes, spare) = (self.ring.cost(sn), self.congestion.spare_rate());
        self.copies.on_copied(bytes, spare, self.srtt(), now);
        let departure = self.departure(ts, now);
        self.ring.copy(sn, departure);
        self.check_link(sn);
    }

    /// Puts a fresh segment in flight, `frg` fragments before the end of its message.
    pub(crate) fn on_sent(&mut self, payload: &[u8], frg: u8, ts: u32, now: Instant) {
        self.counters.sent += 1;
        let (sn, departure) = (self.ring.next(), self.departure(ts, now));
        self.ring.push(payload.into(), frg, departure);
        self.plan_copy(sn, now);
        self.check_link(sn);
    }

    /// Whether some segment was sent as often as says that the link is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Whether the window has room for one more segment.
    pub(crate) fn has_window(&self) -> bool {
        let window = self.congestion.window();
        let window = if self.backoff > 0 { window.min(PROBING_PACKETS * self.packet) } else { window };
        self.ring.in_flight() < window
    }

    /// Whether the window has room for fresh data, too.
    pub(crate) fn has_fresh_window(&self) -> bool {
        let span = u64::from(self.ring.span()) * self.packet;
        self.has_window() && !(self.congestion.bounds_span() && span >= self.congestion.window())
    }

    /// Whether the next retransmission leaves whatever window and pacer say.
    pub(crate) fn has_credit(&self) -> bool {
        self.credit > 0
    }

    /// Forgets back-offs and, if acks are overdue, sends the two ends of what is in flight at once, and after a long outage as much
    /// of its beginning as a new connection would (RFC 6928); their acks tell the rest.
    pub(crate) fn on_path_restored(&mut self, now: Instant) {
        let rto = self.rtt.rto();
        let is_overdue = self.ring.oldest().is_some_and(|(_, oldest)| oldest.departure.at + rto < now);
        let is_stalled = is_overdue || self.backoff > 0;
        let was_long = self.backoff >= LONG_OUTAGE;
        self.backoff = 0;
        self.last_timeout = None;
        // After a mere pause nothing is lost: what just left ended the silence itself, and its ack is on the way.
        if is_stalled {
            self.last_progress = Some(now);
            self.probe_tail();
            if was_long {
                self.lose_overdue(PROBING_PACKETS * self.packet, now);
            }
        }
    }

    /// Notes that nothing more waits to be sent.
    pub(crate) fn on_app_limited(&mut self) {
        if self.has_fresh_window() {
            self.delivery.on_app_limited(self.ring.in_flight());
        }
    }

    /// Counts what left beside the data as delivered.
    pub(crate) fn on_beside(&mut self, bytes: u64) {
        self.delivery.on_beside(bytes);
    }

    /// What is sent and not acknowledged.
    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The round-trip time.
    pub(crate) fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// The congestion control.
    pub(crate) fn congestion(&self) -> &dyn Congestion {
        self.congestion.as_ref()
    }

    /// What was counted so far.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Notes a dead link (`ikcp_flush`, `dead_link`).
    fn check_link(&mut self, sn: u32) {
        let attempts = self.ring.get(sn).map_or(0, Sent::attempts);
        self.dead |= self.dead_link > 0 && attempts >= self.dead_link;
    }

    /// Learns from a segment with early copies whether the first transmission was lost.
    fn judge_copy(&mut self, acked: &Acknowledged, ts: u32, clock: u32) {
        let since = Duration::from_millis(u64::try_from(distance(clock, acked.base_ts)).unwrap_or(0));
        if distance(ts, acked.base_ts) <= 0 {
            self.copies.on_outcome(true);
        } else if since > self.rtt.expected() {
            self.copies.on_outcome(false);
        }
        // Else it may only have been overtaken.
    }

    fn plan_copy(&mut self, sn: u32, now: Instant) {
        if self.backoff > 0 {
            // Nothing gets through, copies neither.
            return;
        }
        let (bytes, spare) = (self.ring.cost(sn), self.congestion.spare_rate());
        self.copies.on_sent(sn, bytes, spare, self.srtt(), now);
        let urgent = spare.is_some() && self.ring.get(sn).is_some_and(|sent| sent.attempts() >= URGENT);
        if urgent {
            self.copies.on_sent_again(sn, bytes, self.srtt(), now);
        }
    }

    fn srtt(&self) -> Duration {
        self.rtt.smoothed().unwrap_or_default()
    }

    fn departure(&mut self, ts: u32, now: Instant) -> Departure {
        let snapshot = self.delivery.on_sent(self.ring.in_flight() == 0, now);
        Departure { at: now, ts, snapshot }
    }

    /// Counts an arrival of which the last transmission is known to have been the one, if there were several.
    fn take_unambiguous(&mut self, acked: &Acknowledged, echo: Option<u32>, now: Instant) {
        self.batch.bytes += acked.bytes;
        if echo.is_none() && acked.transmissions > 1 {
            return;
        }
        let sent_at = acked.departure.at;
        let rtt = now.saturating_duration_since(sent_at);
        if rtt > MAX_RTO {
            // No path takes so long: one of the ends stood still meanwhile.
            return;
        }
        self.congestion.on_arrival(acked.bytes, sent_at);
        self.recovery.on_acked(acked.order, rtt);
        if self.batch.newest.is_none_or(|newest| newest.order < acked.order) {
            let snapshot = acked.departure.snapshot;
            self.batch.newest = Some(Newest { order: acked.order, sent_at, snapshot });
            // `una` alone may come long after the arrival.
            self.batch.rtt = echo.map(|_| rtt).or(self.batch.rtt);
        }
    }

    /// An earlier transmission arrived, so the last one was not needed: spurious, unless it was but an early copy.
    fn take_earlier(&mut self, acked: &Acknowledged, ts: u32, clock: u32, now: Instant) {
        self.batch.bytes += acked.bytes;
        if distance(ts, acked.base_ts) < 0 {
            self.counters.spurious += 1;
            self.recovery.on_spurious(now);
        }
        let Some(rtt) = u64::try_from(distance(clock, ts)).ok().map(Duration::from_millis) else { return };
        if distance(ts, acked.base_ts) >= 0 && rtt <= MAX_RTO {
            self.recovery.on_arrived(acked.base_order, rtt);
        }
        self.batch.rtt.get_or_insert(rtt);
    }

    fn detect_losses(&mut self, now: Instant) {
        while self.loss_at().is_some_and(|at| at <= now) {
            let Some((sn, sent)) = self.ring.oldest() else {
                return;
            };
            let sent_at = sent.departure.at;
            let span = u64::from(self.ring.span()) * self.packet;
            self.congestion.on_loss(self.ring.cost(sn), sent_at, span, now);
            self.lose(sn);
        }
    }

    fn lose(&mut self, sn: u32) {
        if self.ring.lose(sn) {
            self.counters.lost += 1;
            let again = self.ring.get(sn).is_some_and(|sent| sent.attempts() > 1);
            let queue = if again { &mut self.lost_again } else { &mut self.lost };
            queue.push_back(sn);
        }
    }

    fn loss_at(&self) -> Option<Instant> {
        let (_, sent) = self.ring.oldest()?;
        let srtt = self.srtt();
        self.recovery.lost_at(sent.order, sent.attempts(), sent.departure.at, srtt)
    }

    /// When the tail is probed: nothing came for what was sent last, and nothing else was sent since.
    fn tail_at(&self) -> Option<Instant> {
        let (_, newest) = self.ring.newest()?;
        (!self.tail_probed).then(|| newest.departure.at + self.rtt.rto())
    }

    /// Sends the first and the last in flight again (RFC 8985 §7: tail-loss probe); their acks tell about the others.
    fn probe_tail(&mut self) {
        self.tail_probed = true;
        let ends = (self.ring.oldest().map(|o| o.0), self.ring.newest().map(|n| n.0));
        for sn in [ends.0, ends.1].into_iter().flatten() {
            self.lose(sn);
        }
        self.credit = PROBES;
    }

    /// Takes for lost what has been in flight for longer than an RTO, the first of it up to `bytes`.
    fn lose_overdue(&mut self, bytes: u64, now: Instant) {
        let (rto, mut left) = (self.rtt.rto(), bytes);
        while let Some((sn, sent)) = self.ring.oldest() {
            if sent.departure.at + rto > now || left == 0 {
                break;
            }
            left = left.saturating_sub(self.ring.cost(sn));
            self.lose(sn);
        }
    }

    /// RFC 6298 §5: the timer runs from the last progress, backed off with each timeout.
    fn timeout_at(&self) -> Option<Instant> {
        let (_, oldest) = self.ring.oldest()?;
        let from = [self.last_progress, self.last_timeout]
            .into_iter()
            .flatten()
            .fold(oldest.departure.at, Instant::max);
        Some(from + self.rtt.backed_off(self.backoff, self.nodelay))
    }

    fn time_out(&mut self, now: Instant) {
        self.lose_overdue(u64::MAX, now);
        self.backoff = self.backoff.saturating_add(1);
        self.last_timeout = Some(now);
        self.credit = PROBES;
        self.counters.timeouts += 1;
        self.congestion.on_timeout(now);
    }
}

/// What a `una` is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Una {
    /// It acknowledges what was never sent.
    Impossible,
    /// It was overtaken on the way.
    Old,
    /// It is not behind the last one.
    New,
}

/// How the send side is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Wire bytes around a payload.
    pub(crate) overhead: u64,
    /// Wire bytes of a full packet.
    pub(crate) packet: u64,
    /// Skips that make a loss; 0 = off.
    pub(crate) fast_resend: u32,
    /// Transmissions of a segment after which skips count no more; 0 = no limit.
    pub(crate) fast_limit: u32,
    /// The shortest RTO.
    pub(crate) min_rto: Duration,
    /// How long the peer may gather what it sends.
    pub(crate) interval: Duration,
    /// How RTO grows.
    pub(crate) nodelay: Nodelay,
    /// Transmissions of a segment that say that the link is dead; 0 = never.
    pub(crate) dead_link: u32,
}

/// What the send side counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    /// Fresh segments sent.
    pub(crate) sent: u64,
    /// Segments sent again.
    pub(crate) retransmitted: u64,
    /// Early copies sent.
    pub(crate) copied: u64,
    /// Retransmissions whose original had arrived.
    pub(crate) spurious: u64,
    /// Transmissions taken for lost.
    pub(crate) lost: u64,
    /// Timeouts.
    pub(crate) timeouts: u64,
}

/// What the acks of one packet add up to.
#[derive(Debug, Default)]
struct Batch {
    bytes: u64,
    rtt: Option<Duration>,
    newest: Option<Newest>,
}

/// The acknowledged segment that was sent last.
#[derive(Debug, Clone, Copy)]
struct Newest {
    order: u64,
    sent_at: Instant,
    snapshot: Snapshot,
}

/// Attempts from which on a segment is sent twice; our choice: with 5 % loss one in 400 comes so far.
const URGENT: u32 = 3;
/// Segments sent by a probe of the tail or a timeout, whatever the window says.
const PROBES: u32 = 2;
/// While timeouts go unanswered no more than this is in flight; our choice: enough for small traffic.
const PROBING_PACKETS: u64 = 10;
/// Timeouts in a row after which nothing of what is in flight can be under way; our choice: six RTOs in nodelay mode.
const LONG_OUTAGE: u32 = 4;
/// An ack this far behind `una` is a duplicate; further behind it is nonsense.
const OLDEST_ACK: u32 = 1 << 20;
