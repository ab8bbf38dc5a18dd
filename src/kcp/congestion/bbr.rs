//! A model-based congestion control after BBR (draft-cardwell-iccrg-bbr-congestion-control).
//!
//! ```text
//! Startup ──(bandwidth stands still, or a queue stands)──> Drain ──(in flight ≤ BDP)──> Cruise ──> Up ──> Down ──> Cruise …
//!                       Up again <──(it paid)── Down    any but Startup ──(min RTT is old)──> ProbeRtt ──> Cruise
//! ```
//!
//! Where it departs from the draft, and why:
//!
//! - *Loss is made up for.* Bandwidth is what is delivered, so on a path that loses p it is 1 − p of what the path takes, and a
//!   sender at that rate leaves p of it unused. The pacing rate is the bandwidth ÷ (1 − p), with p counted only on what left
//!   while the queue was being emptied (Down, ProbeRtt), and given back as soon as delay says that a queue stands. Loss by
//!   itself never lowers the rate (the draft's `BBRLossThresh` is 2 %): these paths lose 20 %.
//! - *Delay is listened to.* Cruise slows down to 0.85 as a queue builds up, and Up ends when one is seen: the draft lets a
//!   queue of a whole bandwidth-delay product stand, and then everybody in the tunnel waits for it.
//! - *Startup ends when a queue stands*, even if the application was the limit all the time: streams with windows of their own
//!   cannot fill 2.77 times the path, and the draft waits for samples that are not limited.
//! - *Up is repeated while it pays*, which takes the place of the draft's faster and faster probing (`bw_probe_up_acks`).
//! - *Cycles* are six to nine round trips, as in the first draft, and not two to three seconds: on a short path a change is
//!   found sooner. So is the queue that Up makes, so it lasts two thirds of a round trip and not a whole one.
//! - *Cruise gives way to a queue*, and the sooner the more of the path it has, which brings those who share it to equal parts.
//! - *Nothing bounds what is in flight* but twice the bandwidth-delay product and room for a batch of acks: there is no
//!   `inflight_hi`, `bw_lo` or `extra_acked`, because loss and late acks are ordinary here. A timeout changes no estimate.
//! - *ProbeRtt* goes down to a quarter of the bandwidth-delay product (the draft: half), so that a queue that is shared
//!   empties, for one round trip once it is there. It is skipped when little is in flight anyway, so no key stroke waits for
//!   it; and it is not put off by samples near the shortest while much is lost, because a queue that is always full looks
//!   like a longer path that loses. In Startup the shortest lately is taken without it.

use std::time::{Duration, Instant};

use super::{
    Acks, Congestion, Phase,
    estimate::{Bandwidth, ONE, PathLoss, RecentRtt},
};
use crate::kcp::rate::Rate;

/// The model of the path and the phase of probing it.
#[derive(Debug)]
pub(crate) struct Bbr {
    packet: u64,
    mode: Mode,
    mode_since: Instant,
    bandwidth: Bandwidth,
    min_rtt: Option<Duration>,
    min_rtt_at: Instant,
    /// When the last acks came.
    acked_at: Instant,
    recent: RecentRtt,
    loss: PathLoss,
    round: u64,
    /// The round ends when what was delivered by then exceeds this.
    round_ends: u64,
    /// How many round trips this cycle cruises.
    cruise: u32,
    random: u32,
    /// The bandwidth before Up, or at the end of Startup.
    before_up: Rate,
}

impl Bbr {
    /// Starts with an unknown path; `seed` varies the cycle, so that sessions do not probe in step.
    pub(crate) fn new(packet: u64, seed: u32, now: Instant) -> Self {
        Self {
            packet,
            mode: Mode::Startup(Startup::default()),
            mode_since: now,
            bandwidth: Bandwidth::default(),
            min_rtt: None,
            min_rtt_at: now,
            acked_at: now,
            recent: RecentRtt::default(),
            loss: PathLoss::default(),
            round: 0,
            round_ends: 0,
            cruise: CRUISE_ROUNDS,
            random: seed | 1,
            before_up: Rate::default(),
        }
    }

    /// Whether this batch begins a new round trip.
    fn count_round(&mut self, acks: &Acks) -> bool {
        let begins = acks.delivered_at_departure.is_some_and(|delivered| delivered >= self.round_ends);
        if begins {
            self.round += 1;
            self.round_ends = acks.delivered;
        }
        begins
    }

    fn take_rtt(&mut self, rtt: Duration, now: Instant) {
        let min_rtt = self.min_rtt.unwrap_or(rtt);
        self.recent.on_sample(rtt, min_rtt / 2, now);
        let is_same = rtt <= min_rtt + (min_rtt / SAME_RTT).max(SAME_RTT_AT_LEAST);
        // A queue that is always full looks like a longer path, and then what it drops looks like the path's own loss.
        if rtt < min_rtt || (is_same && self.path_loss() < SUSPICIOUS_LOSS) {
            self.min_rtt_at = now;
        }
        self.min_rtt = Some(min_rtt.min(rtt));
        if let Mode::ProbeRtt(ProbeRtt { drained_at: Some(_), shortest }) = &mut self.mode {
            *shortest = Some(shortest.map_or(rtt, |shortest| shortest.min(rtt)));
        }
    }

    fn advance(&mut self, acks: &Acks, round_begins: bool, now: Instant) {
        let Some(min_rtt) = self.min_rtt else {
            return;
        };
        let lasted = now.saturating_duration_since(self.mode_since);
        match self.mode {
            Mode::Startup(startup) => self.leave_startup(startup, acks, round_begins, now),
            Mode::Drain => {
                if acks.in_flight <= self.bdp() || lasted >= 3 * min_rtt {
                    self.enter(Mode::Down, now);
                }
            }
            Mode::Cruise => {
                if lasted >= min_rtt * self.cruise {
                    self.go_up(now);
                }
            }
            Mode::Up => {
                let queued = self.queue_delay() > self.long_queue();
                if lasted >= min_rtt * UP_LASTS.0 / UP_LASTS.1 || (queued && lasted >= min_rtt / 2) {
                    self.enter(Mode::Down, now);
                }
            }
            Mode::Down => {
                let emptied = self.queue_delay() <= self.short_queue();
                if (lasted >= min_rtt && emptied) || lasted >= 2 * min_rtt {
                    self.leave_down(emptied, now);
                }
            }
            Mode::ProbeRtt(probe) => self.leave_probe_rtt(probe, acks, now),
        }
        self.renew_min_rtt(acks, now);
    }

    /// Ends Startup when the bandwidth stands still or, whatever the application does, when a queue does: streams with
    /// windows of their own cannot fill a rate of 2.77 times the path's, and would leave Startup at it for ever.
    fn leave_startup(&mut self, startup: Startup, acks: &Acks, round_begins: bool, now: Instant) {
        if !round_begins {
            return;
        }
        let Startup { best, still, queued } = startup;
        let bandwidth = self.bandwidth.best().unwrap_or_default();
        let limited = acks.rate.is_none_or(|rate| rate.app_limited);
        let has_grown = bandwidth >= best.scaled(5, 4);
        let still = if has_grown { 0 } else { still + u32::from(!limited) };
        let min_rtt = self.min_rtt.unwrap_or_default();
        // What a thin flow waits for is jitter.
        let is_bulk = bandwidth >= self.little_rate();
        let has_queue =
            is_bulk && acks.srtt.is_some_and(|srtt| srtt > min_rtt + (min_rtt / 4).max(self.long_queue()));
        let queued = if has_queue { queued + 1 } else { 0 };
        if still >= STILL_ROUNDS || (still >= 1 && has_queue) || queued >= QUEUED_ROUNDS {
            self.before_up = bandwidth;
            self.enter(Mode::Drain, now);
        } else {
            let best = if has_grown && !limited { bandwidth } else { best };
            self.mode = Mode::Startup(Startup { best, still, queued });
        }
    }

    fn go_up(&mut self, now: Instant) {
        self.before_up = self.bandwidth.best().unwrap_or_default();
        self.enter(Mode::Up, now);
    }

    /// Goes up again at once while that pays: a path that was slow once, or an application that sent little, must not
    /// keep a session slow for a minute.
    fn leave_down(&mut self, emptied: bool, now: Instant) {
        let bandwidth = self.bandwidth.best().unwrap_or_default();
        if emptied && bandwidth >= self.before_up.scaled(PAYS.0, PAYS.1) {
            self.go_up(now);
        } else {
            self.enter(Mode::Cruise, now);
        }
    }

    fn renew_min_rtt(&mut self, acks: &Acks, now: Instant) {
        let old = now.saturating_duration_since(self.min_rtt_at) >= MIN_RTT_LASTS;
        if !old || matches!(self.mode, Mode::ProbeRtt(_)) {
            return;
        }
        let was_idle = now.saturating_duration_since(self.acked_at) >= IDLE;
        let is_thin = acks.in_flight <= self.probe_rtt_window();
        if was_idle || is_thin || matches!(self.mode, Mode::Startup(_)) {
            // There is no queue of ours, or Startup will soon show it: what was seen lately is the best guess.
            self.min_rtt = self.recent.shortest().or(self.min_rtt);
            self.min_rtt_at = now;
        } else {
            self.enter(Mode::ProbeRtt(ProbeRtt::default()), now);
        }
    }

    /// Ends ProbeRtt a round trip after so little is in flight as it is to be.
    fn leave_probe_rtt(&mut self, mut probe: ProbeRtt, acks: &Acks, now: Instant) {
        let min_rtt = self.min_rtt.unwrap_or_default();
        if probe.drained_at.is_none() && acks.in_flight <= self.probe_rtt_window() {
            probe.drained_at = Some(now);
            self.mode = Mode::ProbeRtt(probe);
        }
        let lasts = min_rtt + PROBE_RTT_AT_LEAST;
        let is_over = probe.drained_at.is_some_and(|at| now.saturating_duration_since(at) >= lasts);
        // If nothing else: who cannot empty the queue in so long shares it with others.
        if is_over || now.saturating_duration_since(self.mode_since) >= 4 * lasts {
            self.min_rtt = probe.shortest.or(self.min_rtt);
            self.min_rtt_at = now;
            self.enter(Mode::Cruise, now);
        }
    }

    fn enter(&mut self, mode: Mode, now: Instant) {
        if matches!(mode, Mode::Down | Mode::ProbeRtt(_)) {
            self.loss.open(now);
        } else {
            self.loss.close(now);
        }
        if mode == Mode::Cruise {
            // A linear congruential step is random enough to keep sessions apart (Numerical Recipes).
            self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            self.cruise = CRUISE_ROUNDS + (self.random >> 16) % CRUISE_VARIES;
        }
        self.mode = mode;
        self.mode_since = now;
    }

    /// How long packets seem to wait in the queue of the path.
    fn queue_delay(&self) -> Duration {
        let recent = self.recent.shortest().unwrap_or_default();
        recent.saturating_sub(self.min_rtt.unwrap_or_default())
    }

    /// Below this there is no queue worth the name.
    fn short_queue(&self) -> Duration {
        (self.min_rtt.unwrap_or_default() / 32).max(SHORT_QUEUE_AT_LEAST)
    }

    /// Above this a queue stands.
    fn long_queue(&self) -> Duration {
        (self.min_rtt.unwrap_or_default() / 8).max(LONG_QUEUE_AT_LEAST)
    }

    fn path_loss(&self) -> u64 {
        self.loss.share(BELIEVED_PACKETS * self.packet)
    }

    /// What to send so that the bandwidth arrives.
    fn sending_rate(&self) -> Option<Rate> {
        Some(self.bandwidth.best()?.scaled(ONE, ONE - self.path_loss()))
    }

    /// The sending rate, or what a path is believed to take until more is known.
    fn believed_rate(&self) -> Option<Rate> {
        let first = self.first_rate()?;
        let rate = self.sending_rate().unwrap_or(first);
        Some(if matches!(self.mode, Mode::Startup(_)) { rate.max(first) } else { rate })
    }

    /// What any path takes: the first window of RFC 6928 in a round trip, or in [`LITTLE_IN`] if that is longer.
    fn little_rate(&self) -> Rate {
        let rtt = self.min_rtt.unwrap_or_default().max(LITTLE_IN);
        Rate::of(LITTLE_PACKETS * self.packet, rtt).unwrap_or_default()
    }

    /// The first flight in a round trip.
    fn first_rate(&self) -> Option<Rate> {
        let rtt = self.min_rtt.unwrap_or(ASSUMED_RTT).max(SHORTEST_RTT);
        Rate::of(INITIAL_PACKETS * self.packet, rtt)
    }

    /// The bytes that fill the path without a queue.
    fn bdp(&self) -> u64 {
        match (self.sending_rate(), self.min_rtt) {
            (Some(rate), Some(min_rtt)) => rate.bytes_in(min_rtt),
            _ => INITIAL_PACKETS * self.packet,
        }
    }

    /// What is in flight in ProbeRtt; so little that the queue empties if all who share it do the same.
    fn probe_rtt_window(&self) -> u64 {
        (self.bdp() / 4).max(FEWEST_PACKETS * self.packet)
    }

    /// The pacing gain in thousandths.
    fn gain(&self) -> u64 {
        match self.mode {
            Mode::Startup(_) => STARTUP_GAIN,
            Mode::Drain => 1_000_000 / STARTUP_GAIN,
            Mode::Up => UP_GAIN,
            Mode::Down => DOWN_GAIN,
            Mode::ProbeRtt(_) => PROBE_RTT_GAIN,
            Mode::Cruise => self.cruise_gain(),
        }
    }

    /// The full rate on an empty queue, falling to [`QUEUED_GAIN`] as one builds up.
    fn cruise_gain(&self) -> u64 {
        let (short, long) = (self.short_queue(), self.own_queue());
        let excess = self.queue_delay().saturating_sub(short).min(long - short);
        let share = excess.as_nanos() * u128::from(1000 - QUEUED_GAIN) / (long - short).as_nanos().max(1);
        1000 - u64::try_from(share).unwrap_or(0)
    }

    /// How long packets may wait before all is given way: [`OWN_PACKETS`] of our own in the queue take so long. Who has more of
    /// the path has as many there sooner, so those who share it come to equal parts.
    fn own_queue(&self) -> Duration {
        let long = self.long_queue();
        let own = self.bandwidth.best().map_or(long, |rate| rate.time_for(OWN_PACKETS * self.packet));
        own.clamp(long * 3 / 8, long)
    }
}

impl Congestion for Bbr {
    fn on_acks(&mut self, acks: &Acks, now: Instant) {
        let round_begins = self.count_round(acks);
        if let Some(rtt) = acks.rtt {
            self.take_rtt(rtt, now);
        }
        if let Some(sample) = &acks.rate {
            self.bandwidth.on_sample(sample, self.round);
        }
        self.advance(acks, round_begins, now);
        self.acked_at = now;
    }

    fn on_arrival(&mut self, bytes: u64, sent_at: Instant) {
        self.loss.on_arrival(bytes, sent_at);
    }

    fn on_loss(&mut self, bytes: u64, sent_at: Instant, _span: u64, _now: Instant) {
        self.loss.on_loss(bytes, sent_at);
    }

    fn on_timeout(&mut self, _now: Instant) {}

    fn window(&self) -> u64 {
        if self.bandwidth.best().is_none() {
            return INITIAL_PACKETS * self.packet;
        }
        let gain = match self.mode {
            Mode::Startup(_) => STARTUP_GAIN,
            Mode::ProbeRtt(_) => return self.probe_rtt_window(),
            Mode::Drain | Mode::Cruise | Mode::Up | Mode::Down => WINDOW_GAIN,
        };
        (self.bdp() * gain / 1000).max(FEWEST_PACKETS * self.packet) + ACK_BATCH
    }

    fn bounds_span(&self) -> bool {
        false
    }

    fn pacing_rate(&self) -> Option<Rate> {
        let gain = if self.bandwidth.best().is_some() { self.gain() } else { 1000 };
        let rate = self.believed_rate()?.scaled(gain, 1000);
        let most = if self.mode == Mode::Down { self.bandwidth.best() } else { None };
        let most = most.map(|most| most.scaled(DOWN_MOST.0, DOWN_MOST.1));
        Some(most.map_or(rate, |most| rate.min(most)).max(self.slowest()))
    }

    fn spare_rate(&self) -> Option<Rate> {
        // What copies add must not stand in a queue, least of all in one that they make.
        let min_rtt = self.min_rtt.unwrap_or_default();
        if self.queue_delay() > min_rtt.max(self.long_queue()) {
            return None;
        }
        if matches!(self.mode, Mode::Startup(_)) {
            return Some(self.little_rate());
        }
        Some(self.bandwidth.best()?.scaled(SPARE.0, SPARE.1))
    }

    fn bandwidth(&self) -> Option<Rate> {
        self.bandwidth.best()
    }

    fn phase(&self) -> Option<Phase> {
        Some(match self.mode {
            Mode::Startup(_) => Phase::Startup,
            Mode::Drain => Phase::Drain,
            Mode::Cruise => Phase::Cruise,
            Mode::Up => Phase::Up,
            Mode::Down => Phase::Down,
            Mode::ProbeRtt(_) => Phase::ProbeRtt,
        })
    }

    fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }
}

impl Bbr {
    /// The rate at which a new estimate can still be made.
    fn slowest(&self) -> Rate {
        Rate::per_second(SLOWEST_PACKETS * self.packet)
    }
}

/// The phases; see the diagram at the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Sends 2.77 times the bandwidth until that stands still for some rounds, or a queue does.
    Startup(Startup),
    /// Empties the queue that Startup made.
    Drain,
    /// Sends what the path takes.
    Cruise,
    /// Tries whether it takes more.
    Up,
    /// Empties the queue that Up made, and counts the loss meanwhile.
    Down,
    /// Sends little, to see the round-trip time without a queue.
    ProbeRtt(ProbeRtt),
}

/// How ProbeRtt is going.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ProbeRtt {
    /// Since when as little is in flight as is to be.
    drained_at: Option<Instant>,
    /// The shortest round-trip time since then.
    shortest: Option<Duration>,
}

/// How Startup is going.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Startup {
    /// The bandwidth that is to grow by a quarter.
    best: Rate,
    /// For how many rounds it has not, though the application had more to send.
    still: u32,
    /// For how many rounds a queue has stood.
    queued: u32,
}

/// BBR draft: 4 ln 2, the least gain that doubles the rate each round, in thousandths.
const STARTUP_GAIN: u64 = 2770;
/// BBR draft: a quarter more …
const UP_GAIN: u64 = 1250;
/// … for so much of a round trip: the queue it makes is what others on the line wait for …
const UP_LASTS: (u32, u32) = (2, 3);
/// … and, to make up for it, a quarter less.
const DOWN_GAIN: u64 = 750;
/// While a queue stands.
const QUEUED_GAIN: u64 = 850;
/// Our choice: of 100 Mbit/s at 200 ms a flow that comes second has 0.45 in the mean over its first minute, with a bound on the delay
/// alone 0.42.
const OWN_PACKETS: u64 = 64;
/// With its copies a flow is thin while it takes no more than a quarter of the bandwidth; our choice.
const SPARE: (u64, u64) = (1, 4);
/// RFC 6928: the first window of a TCP.
const LITTLE_PACKETS: u64 = 10;
const LITTLE_IN: Duration = Duration::from_millis(100);
const PROBE_RTT_GAIN: u64 = 500;
/// What arrives, and a little less: loss that Down sees although it sends less than that is the path's own.
const DOWN_MOST: (u64, u64) = (9, 10);
/// BBR draft: cwnd_gain, room for acks that come late and together.
const WINDOW_GAIN: u64 = 2000;
/// Room for one burst of the pacer and one batch of acks; our choice.
const ACK_BATCH: u64 = 128 * 1024;
/// BBR draft: rounds without a quarter more bandwidth that end Startup.
const STILL_ROUNDS: u32 = 3;
/// Rounds with a queue that end Startup; our choice: one round may be a batch of the host's.
const QUEUED_ROUNDS: u32 = 2;
/// Up pays if the bandwidth is so much higher after it; our choice.
const PAYS: (u64, u64) = (9, 8);
/// BBR draft: a cycle is one round up, one down and six between; here six to nine.
const CRUISE_ROUNDS: u32 = 6;
const CRUISE_VARIES: u32 = 4;
/// BBR draft: how long the shortest round-trip time is believed.
const MIN_RTT_LASTS: Duration = Duration::from_secs(10);
/// No ack for so long: nothing was in flight; our choice.
const IDLE: Duration = Duration::from_secs(1);
/// ProbeRtt lasts a round trip and this, once little is in flight.
const PROBE_RTT_AT_LEAST: Duration = Duration::from_millis(20);
/// A sample within 1/64 of the shortest round-trip time confirms it …
const SAME_RTT: u32 = 64;
/// … or within this; our choice.
const SAME_RTT_AT_LEAST: Duration = Duration::from_micros(200);
/// … unless the path seems to lose more than this, in parts of [`ONE`]; our choice.
const SUSPICIOUS_LOSS: u64 = 80_000;
/// Timers and batches on the way add this much; our choice.
const SHORT_QUEUE_AT_LEAST: Duration = Duration::from_millis(1);
/// Our choice; below 10 ms nobody notices.
const LONG_QUEUE_AT_LEAST: Duration = Duration::from_millis(8);
/// Loss is believed by half once this many packets were counted; our choice.
const BELIEVED_PACKETS: u64 = 20;
/// The first flight; our choice: it is paced over a round trip.
const INITIAL_PACKETS: u64 = 32;
const FEWEST_PACKETS: u64 = 4;
/// Before the first sample.
const ASSUMED_RTT: Duration = Duration::from_millis(50);
const SHORTEST_RTT: Duration = Duration::from_millis(1);
/// Never slower than this many packets a second; our choice.
const SLOWEST_PACKETS: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::{delivery::Sample, tests::start};

    const PACKET: u64 = 1400;
    const RTT: Duration = Duration::from_millis(100);
    /// 100 Mbit/s.
    const RATE: u64 = 12_500_000;

    /// A path that carries [`RATE`], unless told else, and a sender that does as it is told, or less.
    struct Path {
        bbr: Bbr,
        now: Instant,
        delivered: u64,
        capacity: u64,
        /// What the application has, in bytes a second.
        application: u64,
        /// Time in the queue, seen by every ack.
        queue: Duration,
        in_flight: Option<u64>,
    }

    impl Path {
        fn new() -> Self {
            let now = start();
            let bbr = Bbr::new(PACKET, 1, now);
            Self {
                bbr,
                now,
                delivered: 0,
                capacity: RATE,
                application: u64::MAX,
                queue: Duration::ZERO,
                in_flight: None,
            }
        }

        /// A twentieth of a round trip and its acks.
        fn step(&mut self) {
            let wanted = self.bbr.pacing_rate().unwrap().bytes_per_second();
            let rate = wanted.min(self.capacity).min(self.application);
            let bytes = Rate::per_second(rate).bytes_in(RTT / 20);
            self.now += RTT / 20;
            self.delivered += bytes;
            let flight = Rate::per_second(rate).bytes_in(RTT);
            let app_limited = self.application < wanted;
            let acks = Acks {
                bytes,
                delivered: self.delivered,
                delivered_at_departure: Some(self.delivered.saturating_sub(flight)),
                in_flight: self.in_flight.unwrap_or(flight.min(self.bbr.window())),
                rtt: Some(RTT + self.queue),
                srtt: Some(RTT + self.queue),
                rate: Some(Sample { rate: Rate::per_second(rate), app_limited }),
            };
            self.bbr.on_acks(&acks, self.now);
        }

        /// Steps until it is in `phase`; panics after a minute.
        fn reach(&mut self, phase: Phase) -> Duration {
            let begun = self.now;
            while self.bbr.phase() != Some(phase) {
                self.step();
                let took = self.now - begun;
                assert!(took < Duration::from_secs(60), "never in {phase:?}: {:?}", self.bbr);
            }
            self.now - begun
        }

        /// The phases of the next `rounds` round trips, without repetitions.
        fn phases(&mut self, rounds: u32) -> Vec<Phase> {
            let mut phases: Vec<Phase> = Vec::new();
            for _ in 0..20 * rounds {
                self.step();
                phases.extend(self.bbr.phase());
                phases.dedup();
            }
            phases
        }
    }

    #[test]
    fn who_has_more_of_the_path_gives_way_sooner() {
        let share_of_its_rate = |capacity| {
            let mut path = Path { capacity, ..Path::new() };
            path.reach(Phase::Cruise);
            // In mid-queue: above a queue that is none, below one in which everyone gives way.
            path.queue = path.bbr.long_queue() / 2;
            (0..30).for_each(|_| path.step());
            path.bbr.cruise_gain()
        };
        let (much, little) = (share_of_its_rate(RATE), share_of_its_rate(RATE / 4));
        assert!(QUEUED_GAIN <= much && much < little && little < 1000, "{much} {little}");
    }

    #[test]
    fn finds_the_bandwidth_empties_the_queue_and_probes_in_cycles() {
        let mut path = Path::new();
        let took = path.reach(Phase::Drain);
        assert!(took < RTT * 12, "{took:?}");
        assert_eq!(path.bbr.bandwidth(), Some(Rate::per_second(RATE)));
        path.reach(Phase::Cruise);
        let phases = path.phases(12);
        assert!(phases.starts_with(&[Phase::Cruise, Phase::Up, Phase::Down, Phase::Cruise]), "{phases:?}");
    }

    #[test]
    fn ends_startup_when_a_queue_stands_though_the_application_is_the_limit() {
        let mut path = Path::new();
        path.application = RATE / 2;
        path.phases(40);
        assert_eq!(path.bbr.phase(), Some(Phase::Startup));
        path.queue = RTT / 2;
        let took = path.reach(Phase::Drain);
        assert!(took < RTT * 4, "{took:?}");
    }

    #[test]
    fn takes_the_jitter_of_a_thin_flow_for_no_queue() {
        let mut path = Path::new();
        path.application = 20_000;
        path.step();
        path.queue = RTT / 2;
        path.phases(40);
        assert_eq!(path.bbr.phase(), Some(Phase::Startup));
    }

    #[test]
    fn goes_up_again_at_once_while_that_pays() {
        let mut path = Path::new();
        path.reach(Phase::Cruise);
        path.bbr.bandwidth = Bandwidth::default();
        path.bbr
            .bandwidth
            .on_sample(&Sample { rate: Rate::per_second(RATE / 10), app_limited: false }, path.bbr.round);
        path.reach(Phase::Up);
        let begun = path.now;
        while path.bbr.bandwidth() < Some(Rate::per_second(RATE * 9 / 10)) {
            path.step();
            assert!(path.bbr.phase() != Some(Phase::Cruise), "{:?}", path.bbr);
        }
        assert!(path.now - begun < RTT * 30, "{:?}", path.now - begun);
    }

    #[test]
    fn looks_for_a_shorter_round_trip_after_ten_seconds_behind_a_queue() {
        let mut path = Path::new();
        path.reach(Phase::Cruise);
        path.queue = RTT / 4;
        let took = path.reach(Phase::ProbeRtt);
        assert!(took > Duration::from_secs(9), "{took:?}");
        assert!(path.bbr.window() <= path.bbr.bdp() / 4);
        // Only what left after the queue was emptied counts.
        path.in_flight = Some(RATE / 10);
        path.phases(2);
        assert_eq!(path.bbr.phase(), Some(Phase::ProbeRtt));
        path.in_flight = Some(PACKET);
        path.queue = RTT / 8;
        let took = path.reach(Phase::Cruise);
        assert!(took > RTT, "{took:?}");
        assert_eq!(path.bbr.min_rtt(), Some(RTT + RTT / 8));
    }

    #[test]
    fn a_path_that_became_longer_costs_a_thin_flow_nothing() {
        for application in [u64::MAX, 20_000] {
            let mut path = Path::new();
            path.application = application;
            path.phases(30);
            path.application = 20_000;
            path.queue = RTT;
            let phases = path.phases(400);
            assert!(!phases.contains(&Phase::ProbeRtt), "{phases:?}");
            assert_eq!(path.bbr.min_rtt(), Some(2 * RTT));
        }
    }

    #[test]
    fn what_leaves_after_idleness_waits_for_no_probe() {
        let mut path = Path::new();
        path.reach(Phase::Cruise);
        path.now += Duration::from_secs(60);
        path.queue = RTT / 4;
        let phases = path.phases(20);
        assert!(!phases.contains(&Phase::ProbeRtt), "{phases:?}");
    }

    #[test]
    fn makes_up_for_the_loss_that_down_sees_and_for_no_more_than_a_path_can_have() {
        let mut path = Path::new();
        path.reach(Phase::Cruise);
        for (lost, least, most) in [(200, 1.2, 1.3), (900, 1.4, 1.45)] {
            for _ in 0..10 {
                path.reach(Phase::Down);
                for packet in 0..1000 {
                    if packet < lost {
                        path.bbr.on_loss(PACKET, path.now, 0, path.now);
                    } else {
                        path.bbr.on_arrival(PACKET, path.now);
                    }
                }
                path.reach(Phase::Cruise);
            }
            let rate = path.bbr.sending_rate().unwrap().bytes_per_second() as f64 / RATE as f64;
            assert!((least..most).contains(&rate), "{rate} at {lost} in a thousand");
        }
    }

    #[test]
    fn copies_nothing_where_a_queue_stands() {
        let mut path = Path::new();
        path.application = 20_000;
        path.phases(5);
        assert!(path.bbr.spare_rate().is_some());
        path.queue = RTT * 2;
        path.phases(5);
        assert_eq!(path.bbr.spare_rate(), None);
    }
}
