//! One direction of a line: queue, loss, corruption, duplication, delay and order.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::frame::Frame;
use crate::ip::{Flow, Layer};
use crate::loss::Dice;
use crate::pool::Pool;
use crate::profile::Profile;
use crate::stats::{Cause, Stats};
use crate::table::Table;
use crate::travelling::Travelling;

/// One direction.
#[derive(Debug)]
pub(crate) struct Lane {
    layer: Layer,
    profile: Profile,
    /// When the profile was set.
    since: Instant,
    pub(crate) blackout: bool,
    pub(crate) stats: Stats,
    dice: Dice,
    random: StdRng,
    /// When the bottleneck has sent all that it was given.
    busy_until: Option<Instant>,
    /// When the last frame that keeps the order is due.
    last_due: Option<Instant>,
    slow: Table<Flow, SlowFlow>,
    travelling: Travelling,
    /// Frames that have left the lane and wait to be taken, or have not reached it yet.
    pub(crate) waiting: usize,
}

impl Lane {
    pub(crate) fn new(layer: Layer, profile: Profile, seed: u64, now: Instant) -> Self {
        Self {
            layer,
            profile,
            since: now,
            blackout: false,
            stats: Stats::default(),
            dice: Dice::default(),
            random: StdRng::seed_from_u64(seed),
            busy_until: None,
            last_due: None,
            slow: Table::new(MAX_SLOW_FLOWS),
            travelling: Travelling::default(),
            waiting: 0,
        }
    }

    pub(crate) const fn profile(&self) -> Profile {
        self.profile
    }

    pub(crate) fn set_profile(&mut self, profile: Profile, now: Instant) {
        self.profile = profile;
        self.since = now;
    }

    pub(crate) fn set_flow_delay(&mut self, flow: Flow, extra: Duration) {
        let last_due = self.slow.get(&flow).and_then(|slow| slow.last_due);
        self.slow.insert(flow, SlowFlow { extra, last_due });
    }

    /// Whether nothing that begins its way gets through.
    fn is_dark(&self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        self.blackout || self.profile.blackouts.is_some_and(|blackouts| blackouts.covers(elapsed))
    }

    /// Takes a frame that begins its way.
    pub(crate) fn enqueue(&mut self, frame: Frame, now: Instant, pool: &mut Pool) {
        if self.is_dark(now) {
            self.drop(frame, Cause::Blackout, pool);
            return;
        }
        let outcome = match self.departure(self.layer.wire_bytes(&frame.bytes), now) {
            None => Err(Cause::QueueFull),
            Some(_) if self.dice.is_lost(&self.profile.loss, &mut self.random) => Err(Cause::Lost),
            Some(departure) => Ok(departure),
        };
        match outcome {
            Err(cause) => self.drop(frame, cause, pool),
            Ok(departure) => {
                if self.random.random_bool(self.profile.duplicate) {
                    self.stats.duplicated += 1;
                    let copy = frame.copy(pool);
                    self.propagate(copy, departure, pool);
                }
                self.propagate(frame, departure, pool);
            }
        }
    }

    /// When the next frame is due; `None` when none is under way.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.travelling.due()
    }

    /// The next frame if it is due.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(Instant, Frame)> {
        self.travelling.pop(now)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.travelling.len() + self.waiting
    }

    pub(crate) fn is_full(&self) -> bool {
        self.in_flight() >= MAX_IN_FLIGHT
    }

    pub(crate) fn drop(&mut self, frame: Frame, cause: Cause, pool: &mut Pool) {
        self.stats.count(cause);
        pool.recycle(frame.bytes);
    }

    /// When the bottleneck will have sent `bytes` more; `None` if its queue is full.
    fn departure(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.profile.rate else {
            return Some(now);
        };
        let start = self.busy_until.map_or(now, |busy| busy.max(now));
        if start - now > self.profile.queue {
            return None;
        }
        let departure = start + transmission_time(bytes as u64, rate);
        self.busy_until = Some(departure);
        Some(departure)
    }

    /// What happens behind the bottleneck to a frame that is not lost.
    fn propagate(&mut self, mut frame: Frame, departure: Instant, pool: &mut Pool) {
        if self.is_full() {
            self.drop(frame, Cause::Overflow, pool);
            return;
        }
        let flow = self.slow_flow(&frame);
        if self.random.random_bool(self.profile.corrupt) {
            self.stats.corrupted += 1;
            self.flip_bits(&mut frame.bytes);
        }
        let jitter = self.profile.jitter.most.mul_f64(self.random.random_range(0.0..1.0));
        let slow = flow.and_then(|flow| self.slow.get_mut(&flow));
        let (extra, last_due) =
            slow.map_or((Duration::ZERO, &mut self.last_due), |slow| (slow.extra, &mut slow.last_due));
        let due = departure + self.profile.delay + extra + jitter;
        let reorder = self.profile.reorder;
        if self.random.random_bool(reorder.share) && reorder.distance > 0 {
            self.stats.reordered += 1;
            self.travelling.hold(frame, due + reorder.longest, reorder.distance);
            return;
        }
        let last = last_due.unwrap_or(due);
        let due = if self.profile.jitter.keeps_order { due.max(last) } else { due };
        *last_due = Some(last.max(due));
        self.travelling.push(frame, due);
    }

    /// The frame's flow if it has a delay of its own.
    fn slow_flow(&self, frame: &Frame) -> Option<Flow> {
        if self.slow.is_empty() {
            return None;
        }
        let flow = self.layer.parse(&frame.bytes)?.flow(&frame.bytes)?;
        self.slow.contains(&flow).then_some(flow)
    }

    fn flip_bits(&mut self, frame: &mut [u8]) {
        let Some(packet) = frame.get_mut(self.layer.header()..).filter(|packet| !packet.is_empty()) else {
            return;
        };
        for _ in 0..self.random.random_range(1..=MOST_FLIPS) {
            let at = self.random.random_range(0..packet.len());
            packet[at] ^= 1 << self.random.random_range(0..8);
        }
    }
}

/// A flow that is slower than the others; it keeps its own order and holds nobody up.
#[derive(Debug)]
struct SlowFlow {
    extra: Duration,
    last_due: Option<Instant>,
}

/// How long `bytes` take at `rate` bit/s.
pub(crate) fn transmission_time(bytes: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * BITS_TIMES_NANOSECONDS / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// Bound on the frames under way in one direction: one second of full packets at 786 Mbit/s, 100 MB.
pub const MAX_IN_FLIGHT: usize = 65_536;

/// Bound on the flows that are slower than the others.
const MAX_SLOW_FLOWS: usize = 1024;

/// A corrupted frame has one to so many bits flipped: our choice; a single one is what checksums find best.
const MOST_FLIPS: u32 = 4;

const BITS_TIMES_NANOSECONDS: u128 = 8 * 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::Loss;
    use crate::profile::{Blackouts, Jitter, Reorder};
    use crate::testing::{CLIENT, FULL, MILLISECOND, Rig, SERVER, ethernet, flow, number_of, numbered, udp};
    use crate::{Direction, Line, UDP};

    const FRAMES: u32 = 50_000;

    fn rig(profile: Profile) -> Rig {
        Rig::new(Line::new(profile))
    }

    /// The numbers of the packets, in the order in which they came out.
    fn order(arrivals: &[(Duration, Vec<u8>)]) -> Vec<u32> {
        arrivals.iter().map(|(_, packet)| number_of(packet)).collect()
    }

    /// How long each packet took, if one was sent each millisecond.
    fn delays(arrivals: &[(Duration, Vec<u8>)]) -> Vec<Duration> {
        arrivals.iter().map(|(at, packet)| *at - MILLISECOND * number_of(packet)).collect()
    }

    fn mean(delays: &[Duration]) -> f64 {
        delays.iter().map(Duration::as_secs_f64).sum::<f64>() / delays.len() as f64
    }

    #[test]
    fn gives_fifty_milliseconds_when_asked_for_fifty() {
        let profile = Profile { delay: MILLISECOND * 50, ..Profile::CLEAR };
        for layer in [Layer::Ip, Layer::Ethernet] {
            let mut rig = Rig::seeded(Line::new(profile), layer, 1);
            let frame = |n| if layer == Layer::Ip { numbered(n, FULL) } else { ethernet(&numbered(n, FULL)) };
            let arrivals = rig.run(Direction::Out, 1000, MILLISECOND, frame);
            assert_eq!(order(&arrivals), Vec::from_iter(0..1000));
            assert!(delays(&arrivals).iter().all(|delay| *delay == MILLISECOND * 50), "{layer:?}");
            assert_eq!(rig.stats(Direction::Out).forwarded_bytes, 1000 * FULL as u64);
        }
    }

    #[test]
    fn loses_five_percent_when_asked_for_five_in_each_direction_and_whatever_the_seed() {
        let profile = Profile { loss: Loss::Random(0.05), ..Profile::CLEAR };
        let packet = numbered(0, 100);
        for seed in 0..4 {
            for direction in Direction::BOTH {
                let mut rig = Rig::seeded(Line::new(profile), Layer::Ip, seed);
                rig.run(direction, FRAMES, Duration::from_micros(10), |_| packet.clone());
                let stats = rig.stats(direction);
                // Four standard deviations of a binomial of 50,000 at 5 %.
                assert!((2305..=2695).contains(&stats.lost), "seed {seed}: {stats:?}");
                assert_eq!(stats.lost + stats.forwarded, u64::from(FRAMES), "seed {seed}");
            }
        }
    }

    #[test]
    fn loses_in_bursts_as_long_as_asked() {
        let profile = Profile { loss: Loss::bursts(0.05, 8.0), ..Profile::CLEAR };
        let mut rig = rig(profile);
        let arrivals = rig.run(Direction::Out, FRAMES, Duration::from_micros(10), |n| numbered(n, 100));
        let bursts = order(&arrivals).windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        let lost = f64::from(FRAMES) - arrivals.len() as f64;
        assert!((0.042..0.058).contains(&(lost / f64::from(FRAMES))), "{lost}");
        assert!((7.0..9.0).contains(&(lost / bursts as f64)), "{lost} in {bursts}");
        assert!((lost - rig.stats(Direction::Out).lost as f64).abs() < 0.5);
    }

    #[test]
    fn loses_the_same_frames_again_with_the_same_seed_whatever_the_other_lane_carries() {
        let profile = Profile { loss: Loss::Random(0.2), ..Profile::CLEAR };
        let outcome = |seed, others| {
            let mut rig = Rig::seeded(Line::new(profile), Layer::Ip, seed);
            rig.run(Direction::Out, others, MILLISECOND, |n| numbered(n, 100));
            order(&rig.run(Direction::In, 1000, MILLISECOND, |n| numbered(n, 100)))
        };
        assert_eq!(outcome(7, 0), outcome(7, 0));
        assert_eq!(outcome(7, 0), outcome(7, 100));
        assert_ne!(outcome(7, 0), outcome(8, 0));
    }

    #[test]
    fn the_two_lanes_do_not_lose_the_same() {
        let mut rig = rig(Profile { loss: Loss::Random(0.2), ..Profile::CLEAR });
        let [out, inward] = Direction::BOTH
            .map(|direction| order(&rig.run(direction, 1000, MILLISECOND, |n| numbered(n, 100))));
        assert_ne!(out, inward);
    }

    #[test]
    fn sends_at_the_rate_and_drops_what_the_queue_cannot_hold() {
        // 12 Mbit/s = one full packet a millisecond, offered at twice that for 1 s.
        let profile = Profile { rate: Some(12_000_000), queue: MILLISECOND * 100, ..Profile::CLEAR };
        let mut rig = rig(profile);
        let arrivals = rig.run(Direction::Out, 2000, MILLISECOND / 2, |n| numbered(n, FULL));
        for pair in arrivals.windows(2) {
            assert_eq!(pair[1].0 - pair[0].0, MILLISECOND);
        }
        // What was sent in the second, and what the queue held at its end.
        assert!((1098..=1102).contains(&arrivals.len()), "{}", arrivals.len());
        assert_eq!(rig.stats(Direction::Out).queue_full, 2000 - arrivals.len() as u64);
        let waits = arrivals.iter().map(|(at, packet)| *at - MILLISECOND / 2 * number_of(packet));
        assert_eq!(waits.max(), Some(MILLISECOND * 101), "the queue, and the packet's own time");
    }

    #[test]
    fn a_lost_frame_uses_its_share_of_the_rate() {
        let loss = Loss::Random(0.5);
        let profile = Profile { rate: Some(12_000_000), queue: MILLISECOND * 50, loss, ..Profile::CLEAR };
        let mut rig = rig(profile);
        rig.run(Direction::Out, 4000, MILLISECOND / 2, |n| numbered(n, FULL));
        let stats = rig.stats(Direction::Out);
        assert!((2048..=2052).contains(&(stats.lost + stats.forwarded)), "{stats:?}");
        assert!((900..=1150).contains(&stats.forwarded), "{stats:?}");
    }

    #[test]
    fn a_blackout_drops_its_direction_until_it_ends() {
        let mut rig = rig(Profile::CLEAR);
        rig.emulator.set_blackout(Direction::In, true);
        assert!(!rig.passes(Direction::In, &numbered(1, 60)));
        assert!(rig.passes(Direction::Out, &numbered(2, 60)));
        rig.emulator.set_blackout(Direction::In, false);
        assert!(rig.passes(Direction::In, &numbered(3, 60)));
        assert_eq!(rig.stats(Direction::In).blackout, 1);
    }

    #[test]
    fn blackouts_come_as_scheduled_and_only_their_own_way() {
        let blackouts = Blackouts::every(MILLISECOND * 1000, MILLISECOND * 500, MILLISECOND * 100);
        let mut rig = rig(Profile::CLEAR);
        rig.wait(MILLISECOND * 300);
        let profile = Profile { blackouts: Some(blackouts), ..Profile::CLEAR };
        let now = rig.now();
        rig.emulator.set_profile(Direction::Out, profile, now);
        let arrivals = rig.run(Direction::Out, 3000, MILLISECOND, |n| numbered(n, 60));
        let dark = |n: u32| (500..600).contains(&(n % 1000));
        assert_eq!(order(&arrivals), Vec::from_iter((0..3000).filter(|n| !dark(*n))));
        assert_eq!(rig.stats(Direction::Out).blackout, 300);
        assert_eq!(rig.run(Direction::In, 1000, MILLISECOND, |n| numbered(n, 60)).len(), 1000);
    }

    #[test]
    fn what_is_under_way_survives_a_blackout() {
        let mut rig = rig(Profile { delay: MILLISECOND * 10, ..Profile::CLEAR });
        rig.send(Direction::Out, &numbered(1, 60));
        rig.emulator.set_blackout(Direction::Out, true);
        rig.wait(MILLISECOND * 10);
        assert_eq!(rig.take().len(), 1);
    }

    #[test]
    fn ordered_jitter_keeps_the_order_and_stays_within_its_bound() {
        let jitter = Jitter::ordered(MILLISECOND * 20);
        let mut rig = rig(Profile { delay: MILLISECOND * 50, jitter, ..Profile::CLEAR });
        let arrivals = rig.run(Direction::Out, 10_000, MILLISECOND, |n| numbered(n, 60));
        assert_eq!(order(&arrivals), Vec::from_iter(0..10_000));
        assert!(delays(&arrivals).iter().all(|delay| (50..=70).contains(&delay.as_millis())));
        // Far apart, no frame waits for another.
        let gap = MILLISECOND * 30;
        let arrivals = rig.run(Direction::Out, 10_000, gap, |n| numbered(n, 60));
        let delays: Vec<_> = arrivals.iter().map(|(at, packet)| *at - gap * number_of(packet)).collect();
        assert!((0.0597..0.0603).contains(&mean(&delays)), "{}", mean(&delays));
    }

    #[test]
    fn unordered_jitter_is_even_and_lets_frames_overtake() {
        let jitter = Jitter::unordered(MILLISECOND * 20);
        let mut rig = rig(Profile { delay: MILLISECOND * 50, jitter, ..Profile::CLEAR });
        let arrivals = rig.run(Direction::Out, 10_000, MILLISECOND, |n| numbered(n, 60));
        assert_eq!(arrivals.len(), 10_000);
        assert!(!order(&arrivals).is_sorted());
        assert!(arrivals.iter().map(|(at, _)| at).is_sorted());
        let delays = delays(&arrivals);
        assert!(delays.iter().all(|delay| (50..=70).contains(&delay.as_millis())));
        assert!((0.0597..0.0603).contains(&mean(&delays)), "{}", mean(&delays));
        let early = delays.iter().filter(|delay| **delay < MILLISECOND * 55).count();
        assert!((2300..2700).contains(&early), "a quarter in the first quarter: {early}");
    }

    #[test]
    fn reordered_frames_are_overtaken_by_as_many_as_asked() {
        let mut rig = rig(Profile { reorder: Reorder::new(0.02, 5), ..Profile::CLEAR });
        let arrivals = rig.run(Direction::Out, 50_000, MILLISECOND, |n| numbered(n, 60));
        let (mut held, mut highest) = (Vec::new(), None);
        for (place, n) in order(&arrivals).into_iter().enumerate() {
            if highest.is_some_and(|highest| n < highest) {
                held.push((place, n));
            }
            highest = highest.max(Some(n));
        }
        // 2 % of 50,000, four standard deviations of 31.
        assert!((875..=1125).contains(&held.len()), "{}", held.len());
        // A held frame may itself be overtaken by one that was held later; what overtakes it in all is five that went on.
        let five = held.iter().filter(|(place, n)| *place == *n as usize + 5).count();
        assert!(five * 10 > held.len() * 8, "{five} of {}", held.len());
        assert!(held.iter().all(|(place, n)| (4..=8).contains(&(*place - *n as usize))), "{held:?}");
        assert_eq!(rig.stats(Direction::Out).forwarded, 50_000);
        assert!(rig.stats(Direction::Out).reordered >= held.len() as u64);
    }

    #[test]
    fn a_held_frame_that_nothing_follows_comes_late() {
        let reorder = Reorder { longest: MILLISECOND * 30, ..Reorder::new(1.0, 3) };
        let mut rig = rig(Profile { delay: MILLISECOND * 10, reorder, ..Profile::CLEAR });
        let arrivals = rig.run(Direction::Out, 2, MILLISECOND, |n| numbered(n, 60));
        assert_eq!(delays(&arrivals), [MILLISECOND * 40; 2]);
    }

    #[test]
    fn duplicates_as_many_as_asked() {
        let mut rig = rig(Profile { duplicate: 0.1, ..Profile::CLEAR });
        let arrivals = rig.run(Direction::Out, 20_000, MILLISECOND, |n| numbered(n, 60));
        let order = order(&arrivals);
        let twice = order.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
        // 10 % of 20,000, four standard deviations of 42.
        assert!((1830..=2170).contains(&twice), "{twice}");
        assert_eq!(rig.stats(Direction::Out).duplicated, twice);
        assert_eq!(rig.stats(Direction::Out).forwarded, 20_000 + twice);
        assert!(order.is_sorted());
    }

    #[test]
    fn corrupts_as_many_as_asked_and_never_the_ethernet_header() {
        let line = Line::new(Profile { corrupt: 0.1, ..Profile::CLEAR });
        let mut rig = Rig::seeded(line, Layer::Ethernet, 4);
        let sent = ethernet(&udp(CLIENT, SERVER, 100));
        let arrivals = rig.run(Direction::In, 20_000, MILLISECOND, |_| sent.clone());
        let flips = |frame: &[u8]| -> u32 {
            frame.iter().zip(&sent).map(|(one, other)| (one ^ other).count_ones()).sum()
        };
        let bad: Vec<_> = arrivals.iter().filter(|(_, frame)| *frame != sent).collect();
        let count = rig.stats(Direction::In).corrupted;
        assert!((1830..=2170).contains(&count), "{count}");
        // Two flips may undo each other.
        assert!((count - 5..=count).contains(&(bad.len() as u64)), "{count} and {}", bad.len());
        assert!(bad.iter().all(|(_, frame)| (1..=4).contains(&flips(frame)) && frame.len() == sent.len()));
        assert!(arrivals.iter().all(|(_, frame)| frame[..14] == sent[..14]));
        for at in 14..sent.len() {
            assert!(bad.iter().any(|(_, frame)| frame[at] != sent[at]), "byte {at} is never hit");
        }
    }

    #[test]
    fn one_flow_can_be_slower_than_the_others() {
        let mut rig = rig(Profile { delay: MILLISECOND * 10, ..Profile::CLEAR });
        rig.emulator.set_flow_delay(flow(UDP), MILLISECOND * 25);
        let other = udp("10.0.0.2:40001", SERVER, 60);
        let arrivals = rig.run(Direction::Out, 1000, MILLISECOND, |n| {
            if n % 2 == 0 { numbered(n, 60) } else { [&other[..56], &n.to_be_bytes()].concat() }
        });
        for (at, packet) in &arrivals {
            let n = number_of(packet);
            let expected = if n.is_multiple_of(2) { 35 } else { 10 };
            assert_eq!(*at - MILLISECOND * n, MILLISECOND * expected, "{n}");
        }
        rig.emulator.set_flow_delay(flow(UDP), Duration::ZERO);
        assert_eq!(delays(&rig.run(Direction::In, 1, MILLISECOND, |n| numbered(n, 60))), [MILLISECOND * 10]);
    }

    #[test]
    fn a_flow_that_is_no_longer_slow_does_not_overtake_itself() {
        let mut rig = rig(Profile::CLEAR);
        rig.emulator.set_flow_delay(flow(UDP), MILLISECOND * 25);
        rig.send(Direction::Out, &numbered(0, 60));
        rig.emulator.set_flow_delay(flow(UDP), Duration::ZERO);
        rig.send(Direction::Out, &numbered(1, 60));
        assert!(rig.take().is_empty());
        rig.wait(MILLISECOND * 25);
        let order: Vec<u32> = rig.take().iter().map(|(_, packet)| number_of(packet)).collect();
        assert_eq!(order, [0, 1]);
    }

    #[test]
    fn keeps_the_order_when_the_delay_shrinks() {
        let mut rig = rig(Profile { delay: MILLISECOND * 50, ..Profile::CLEAR });
        rig.send(Direction::Out, &numbered(0, 60));
        let now = rig.now();
        rig.emulator.set_profile(Direction::Out, Profile::CLEAR, now);
        rig.send(Direction::Out, &numbered(1, 60));
        assert!(rig.take().is_empty());
        rig.wait(MILLISECOND * 50);
        let order: Vec<u32> = rig.take().iter().map(|(_, packet)| number_of(packet)).collect();
        assert_eq!(order, [0, 1]);
    }

    #[test]
    fn holds_a_bounded_number_of_frames() {
        for delay in [MILLISECOND * 1000, Duration::ZERO] {
            let mut rig = rig(Profile { delay, ..Profile::CLEAR });
            for _ in 0..=MAX_IN_FLIGHT {
                rig.send(Direction::Out, &[0; 20]);
            }
            assert_eq!(rig.stats(Direction::Out).overflow, 1, "{delay:?}");
            assert_eq!(rig.emulator.in_flight(Direction::Out), MAX_IN_FLIGHT, "{delay:?}");
        }
    }
}
