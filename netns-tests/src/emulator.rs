//! The link emulator's core: what a bad link does to frames, in virtual time.
//!
//! Sans-IO: feed frames with [`Emulator::handle_frame`], take those that are due with [`Emulator::poll_frame`], read
//! [`Emulator::poll_timeout`], wait. Each direction is a lane of its own:
//!
//! ```text
//!   frame ──> blackout? ──> killed flow? ──> UDP dropped? ──> queue (rate, drop-tail) ──> loss? ──> delay ──> out
//! ```
//!
//! Loss comes after the queue, as on a radio or a long line behind the bottleneck: a lost frame has used its share of the rate.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::frame::{self, Flow};

/// What one direction of a link does to its frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Propagation delay, added after the queue.
    pub delay: Duration,
    /// Share of frames lost at random, 0 to 1.
    pub loss: f64,
    /// Bits per second of IP packets; `None` does not limit.
    pub rate: Option<u64>,
    /// The longest time a frame may wait for the rate; one that would wait longer is dropped (drop-tail).
    pub queue: Duration,
    /// Whether every UDP packet is dropped.
    pub drop_udp: bool,
}

impl Profile {
    /// A lane that passes everything at once.
    pub const CLEAR: Self =
        Self { delay: Duration::ZERO, loss: 0.0, rate: None, queue: Duration::ZERO, drop_udp: false };

    /// One direction of a link of `rate` bit/s with half of `round_trip` as its delay, `loss`, and a queue of one
    /// bandwidth-delay product, at least 50 ms.
    #[must_use]
    pub fn long_line(rate: u64, round_trip: Duration, loss: f64) -> Self {
        Self {
            delay: round_trip / 2,
            loss,
            rate: Some(rate),
            queue: round_trip.max(SHORTEST_QUEUE),
            drop_udp: false,
        }
    }

    /// The same lane with every UDP packet dropped.
    #[must_use]
    pub const fn without_udp(self) -> Self {
        Self { drop_udp: true, ..self }
    }
}

/// A direction over the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client side to the router.
    Out,
    /// From the router to the client side.
    In,
}

impl Direction {
    /// Both directions, in the order of their lanes.
    pub const BOTH: [Self; 2] = [Self::Out, Self::In];

    /// The lane's place in an array of both.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Out => 0,
            Self::In => 1,
        }
    }
}

/// What happened to the frames of one direction, by cause. Every frame is in `received`, and in one of the rest or in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that entered the lane.
    pub received: u64,
    /// Frames that came out.
    pub forwarded: u64,
    /// Bytes of IP packets that came out.
    pub forwarded_bytes: u64,
    /// Lost at random.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Dropped because they were UDP.
    pub udp: u64,
    /// Dropped by a blackout.
    pub blackout: u64,
    /// Dropped because their flow was killed.
    pub killed: u64,
    /// Dropped because more frames than [`MAX_IN_FLIGHT`] were under way: the emulator's own limit, not the link's.
    pub overflow: u64,
}

/// Both directions of one link.
#[derive(Debug)]
pub struct Emulator {
    lanes: [Lane; 2],
    killed: HashSet<Flow>,
    newest_tcp: Option<Flow>,
}

impl Emulator {
    /// A link with one profile for each of [`Direction::BOTH`]; `seed` decides every random choice.
    #[must_use]
    pub fn new(profiles: [Profile; 2], seed: u64) -> Self {
        // Each lane draws from a generator of its own, so the losses of one do not depend on the traffic of the other.
        let [out, inward] = profiles;
        let lanes =
            [Lane::new(out, seed.wrapping_mul(2)), Lane::new(inward, seed.wrapping_mul(2).wrapping_add(1))];
        Self { lanes, killed: HashSet::new(), newest_tcp: None }
    }

    /// Takes a frame that arrives at the link.
    pub fn handle_frame(&mut self, direction: Direction, bytes: &[u8], now: Instant) {
        let flow = frame::flow(bytes);
        let lane = &mut self.lanes[direction.index()];
        lane.stats.received += 1;
        if lane.blackout {
            lane.stats.blackout += 1;
        } else if flow.is_some_and(|flow| self.killed.contains(&flow)) {
            lane.stats.killed += 1;
        } else if lane.profile.drop_udp && frame::protocol(bytes) == Some(frame::UDP) {
            lane.stats.udp += 1;
        } else {
            lane.enqueue(bytes, now);
        }
        self.newest_tcp = flow
            .filter(|flow| flow.protocol == frame::TCP && !self.killed.contains(flow))
            .or(self.newest_tcp);
    }

    /// The next frame that is due, in the order of its time; `None` when nothing is.
    pub fn poll_frame(&mut self, now: Instant) -> Option<(Direction, Vec<u8>)> {
        let direction = Direction::BOTH
            .into_iter()
            .filter(|direction| self.due(*direction).is_some())
            .min_by_key(|direction| self.due(*direction))?;
        let lane = &mut self.lanes[direction.index()];
        lane.poll(now).map(|frame| (direction, frame))
    }

    /// When the next frame is due; `None` when none is under way.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        Direction::BOTH.into_iter().filter_map(|direction| self.due(direction)).min()
    }

    /// Changes what a direction does from now on; frames under way keep their time.
    pub fn set_profile(&mut self, direction: Direction, profile: Profile) {
        self.lanes[direction.index()].profile = profile;
    }

    /// The profile of a direction.
    #[must_use]
    pub const fn profile(&self, direction: Direction) -> Profile {
        self.lanes[direction.index()].profile
    }

    /// Begins or ends a blackout of one direction: everything that arrives meanwhile is dropped.
    pub fn set_blackout(&mut self, direction: Direction, blackout: bool) {
        self.lanes[direction.index()].blackout = blackout;
    }

    /// Drops every packet of `flow`, both ways and for good.
    pub fn kill_flow(&mut self, flow: Flow) {
        self.killed.insert(flow);
        self.newest_tcp = self.newest_tcp.filter(|newest| *newest != flow);
    }

    /// The TCP flow that sent last and is not killed.
    #[must_use]
    pub const fn newest_tcp_flow(&self) -> Option<Flow> {
        self.newest_tcp
    }

    /// What happened to the frames of a direction so far.
    #[must_use]
    pub const fn stats(&self, direction: Direction) -> Stats {
        self.lanes[direction.index()].stats
    }

    fn due(&self, direction: Direction) -> Option<Instant> {
        self.lanes[direction.index()].in_flight.front().map(|(due, _)| *due)
    }
}

/// One direction.
#[derive(Debug)]
struct Lane {
    profile: Profile,
    blackout: bool,
    /// When the bottleneck has sent all that it was given.
    busy_until: Option<Instant>,
    in_flight: VecDeque<(Instant, Vec<u8>)>,
    random: StdRng,
    stats: Stats,
}

impl Lane {
    fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile,
            blackout: false,
            busy_until: None,
            in_flight: VecDeque::new(),
            random: StdRng::seed_from_u64(seed),
            stats: Stats::default(),
        }
    }

    fn enqueue(&mut self, bytes: &[u8], now: Instant) {
        let Some(departure) = self.departure(frame::wire_bytes(bytes), now) else {
            self.stats.queue_full += 1;
            return;
        };
        if self.random.random_bool(self.profile.loss) {
            self.stats.lost += 1;
        } else if self.in_flight.len() >= MAX_IN_FLIGHT {
            self.stats.overflow += 1;
        } else {
            let due = departure + self.profile.delay;
            // A profile with less delay does not overtake what is under way: a line keeps its order.
            let due = self.in_flight.back().map_or(due, |(last, _)| due.max(*last));
            self.in_flight.push_back((due, bytes.to_vec()));
        }
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
        let departure = start + transmission_time(bytes, rate);
        self.busy_until = Some(departure);
        Some(departure)
    }

    fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.in_flight.front().filter(|(due, _)| *due <= now)?;
        let (_, frame) = self.in_flight.pop_front()?;
        self.stats.forwarded += 1;
        self.stats.forwarded_bytes += frame::wire_bytes(&frame) as u64;
        Some(frame)
    }
}

/// How long `bytes` take at `rate` bit/s.
fn transmission_time(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos((bytes as u64 * 8).saturating_mul(NANOSECONDS) / rate.max(1))
}

/// Bound on the frames under way in one direction: one second of full packets at 786 Mbit/s, 100 MB.
pub const MAX_IN_FLIGHT: usize = 65_536;

/// The shortest queue of [`Profile::long_line`]: what home routers have at least.
const SHORTEST_QUEUE: Duration = Duration::from_millis(50);

const NANOSECONDS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::ipv4_frame;
    use crate::frame::{TCP, UDP};

    const FULL: usize = 1500;
    const FRAMES: u32 = 100_000;

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant to count virtual time from; nothing reads the clock again"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    /// Sends `count` frames, one each `gap`, and returns how many came out and when each did, measured from its own sending.
    fn run(
        emulator: &mut Emulator,
        direction: Direction,
        frame: &[u8],
        count: u32,
        gap: Duration,
    ) -> Vec<Duration> {
        let epoch = start();
        let mut arrivals = Vec::new();
        for n in 0..count {
            let sent = epoch + gap * n;
            drain(emulator, sent, &mut arrivals);
            emulator.handle_frame(direction, frame, sent);
        }
        while let Some(due) = emulator.poll_timeout() {
            drain(emulator, due, &mut arrivals);
        }
        arrivals.into_iter().map(|arrival| arrival - epoch).collect()
    }

    fn drain(emulator: &mut Emulator, now: Instant, arrivals: &mut Vec<Instant>) {
        while let Some(due) = emulator.poll_timeout().filter(|due| *due <= now) {
            assert!(emulator.poll_frame(due).is_some());
            arrivals.push(due);
        }
    }

    fn both(profile: Profile) -> [Profile; 2] {
        [profile; 2]
    }

    #[test]
    fn gives_fifty_milliseconds_when_asked_for_fifty() {
        let profile = Profile { delay: Duration::from_millis(50), ..Profile::CLEAR };
        let mut emulator = Emulator::new(both(profile), 1);
        let frame = ipv4_frame(UDP, 1, 2, FULL);
        let arrivals = run(&mut emulator, Direction::Out, &frame, 1000, Duration::from_millis(1));
        assert_eq!(arrivals.len(), 1000);
        for (n, arrival) in (0..).zip(&arrivals) {
            assert_eq!(*arrival, Duration::from_millis(n + 50));
        }
    }

    #[test]
    fn loses_five_percent_when_asked_for_five_in_each_direction_and_whatever_the_seed() {
        let profile = Profile { loss: 0.05, ..Profile::CLEAR };
        for seed in 0..10 {
            for direction in Direction::BOTH {
                let mut emulator = Emulator::new(both(profile), seed);
                run(&mut emulator, direction, &ipv4_frame(UDP, 1, 2, 100), FRAMES, Duration::from_micros(10));
                let stats = emulator.stats(direction);
                // Four standard deviations of a binomial of 100,000 at 5 %.
                assert!((4724..=5276).contains(&stats.lost), "seed {seed}: {stats:?}");
                assert_eq!(stats.lost + stats.forwarded, u64::from(FRAMES), "seed {seed}");
            }
        }
    }

    #[test]
    fn loses_the_same_frames_again_with_the_same_seed() {
        let profile = Profile { loss: 0.2, ..Profile::CLEAR };
        let outcome = |seed| {
            run(
                &mut Emulator::new(both(profile), seed),
                Direction::In,
                &ipv4_frame(UDP, 1, 2, 100),
                1000,
                Duration::from_millis(1),
            )
        };
        assert_eq!(outcome(7), outcome(7));
        assert_ne!(outcome(7), outcome(8));
    }

    #[test]
    fn sends_at_the_rate_and_drops_what_the_queue_cannot_hold() {
        // 12 Mbit/s = one full packet a millisecond, offered at twice that for 1 s.
        let profile = Profile { rate: Some(12_000_000), queue: Duration::from_millis(100), ..Profile::CLEAR };
        let mut emulator = Emulator::new(both(profile), 1);
        let arrivals = run(
            &mut emulator,
            Direction::Out,
            &ipv4_frame(UDP, 1, 2, FULL),
            2000,
            Duration::from_micros(500),
        );
        for pair in arrivals.windows(2) {
            assert_eq!(pair[1] - pair[0], Duration::from_millis(1));
        }
        // What was sent in the second, and what the queue held at its end.
        assert!((1098..=1102).contains(&arrivals.len()), "{}", arrivals.len());
        assert_eq!(emulator.stats(Direction::Out).queue_full, 2000 - arrivals.len() as u64);
    }

    #[test]
    fn a_lost_frame_uses_its_share_of_the_rate() {
        let profile =
            Profile { rate: Some(12_000_000), queue: Duration::from_millis(50), loss: 0.5, ..Profile::CLEAR };
        let mut emulator = Emulator::new(both(profile), 3);
        run(&mut emulator, Direction::Out, &ipv4_frame(UDP, 1, 2, FULL), 4000, Duration::from_micros(500));
        let stats = emulator.stats(Direction::Out);
        assert!((2048..=2052).contains(&(stats.lost + stats.forwarded)), "{stats:?}");
        assert!((900..=1150).contains(&stats.forwarded), "{stats:?}");
    }

    #[test]
    fn drops_udp_and_nothing_else() {
        let mut emulator = Emulator::new(both(Profile::CLEAR.without_udp()), 1);
        let now = start();
        emulator.handle_frame(Direction::Out, &ipv4_frame(UDP, 1, 53, 60), now);
        emulator.handle_frame(Direction::Out, &ipv4_frame(TCP, 1, 53, 60), now);
        emulator.handle_frame(Direction::Out, &ipv4_frame(1, 0, 0, 60), now);
        assert_eq!(std::iter::from_fn(|| emulator.poll_frame(now)).count(), 2);
        assert_eq!(emulator.stats(Direction::Out).udp, 1);
    }

    #[test]
    fn a_blackout_drops_its_direction_until_it_ends() {
        let mut emulator = Emulator::new(both(Profile::CLEAR), 1);
        let now = start();
        let frame = ipv4_frame(TCP, 1, 2, 60);
        emulator.set_blackout(Direction::In, true);
        emulator.handle_frame(Direction::In, &frame, now);
        emulator.handle_frame(Direction::Out, &frame, now);
        assert_eq!(emulator.poll_frame(now).map(|(direction, _)| direction), Some(Direction::Out));
        assert_eq!(emulator.poll_frame(now), None);
        emulator.set_blackout(Direction::In, false);
        emulator.handle_frame(Direction::In, &frame, now);
        assert!(emulator.poll_frame(now).is_some());
        assert_eq!(emulator.stats(Direction::In).blackout, 1);
    }

    #[test]
    fn a_killed_flow_stays_dead_both_ways_while_others_pass() {
        let mut emulator = Emulator::new(both(Profile::CLEAR), 1);
        let now = start();
        emulator.handle_frame(Direction::Out, &ipv4_frame(TCP, 40000, 443, 60), now);
        assert!(emulator.poll_frame(now).is_some());
        let flow = emulator.newest_tcp_flow().unwrap();
        emulator.kill_flow(flow);
        for direction in Direction::BOTH {
            emulator.handle_frame(direction, &ipv4_frame(TCP, 40000, 443, 60), now);
            assert_eq!(emulator.poll_frame(now), None);
            assert_eq!(emulator.stats(direction).killed, 1);
        }
        assert_eq!(emulator.newest_tcp_flow(), None);
        emulator.handle_frame(Direction::Out, &ipv4_frame(TCP, 40001, 443, 60), now);
        assert!(emulator.poll_frame(now).is_some());
    }

    #[test]
    fn keeps_the_order_when_the_delay_shrinks() {
        let slow = Profile { delay: Duration::from_millis(50), ..Profile::CLEAR };
        let mut emulator = Emulator::new(both(slow), 1);
        let now = start();
        emulator.handle_frame(Direction::Out, &ipv4_frame(TCP, 1, 2, 60), now);
        emulator.set_profile(Direction::Out, Profile::CLEAR);
        emulator.handle_frame(Direction::Out, &ipv4_frame(TCP, 3, 4, 60), now);
        assert_eq!(emulator.poll_frame(now), None);
        let later = now + Duration::from_millis(50);
        let order: Vec<_> = std::iter::from_fn(|| emulator.poll_frame(later))
            .map(|(_, frame)| frame[ETHERNET_AND_IP + 1])
            .collect();
        assert_eq!(order, [1, 3]);
    }

    #[test]
    fn holds_a_bounded_number_of_frames() {
        let profile = Profile { delay: Duration::from_secs(10), ..Profile::CLEAR };
        let mut emulator = Emulator::new(both(profile), 1);
        let now = start();
        for _ in 0..=MAX_IN_FLIGHT {
            emulator.handle_frame(Direction::Out, &[0; 20], now);
        }
        assert_eq!(emulator.stats(Direction::Out).overflow, 1);
    }

    const ETHERNET_AND_IP: usize = frame::ETHERNET_HEADER + 20;
}
