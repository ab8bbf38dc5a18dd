//! Property tests of [`Kcp::poll_timeout`]: no deadline is missed, nothing leaves before it, and none wakes for nothing.
//!
//! With an interval a wake-up for nothing may happen (what was due when a flush was arranged may be acknowledged before it),
//! but only at its multiples.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{Config, CongestionKind, HEADER_LEN, Kcp, Messages, Mode, Stats, tests::start};

const MSS: usize = 100;

/// Two ends; a packet that is not lost arrives a while later.
struct Pair {
    ends: [Kcp; 2],
    sources: [Messages; 2],
    /// Packets to each end, in order of arrival.
    wires: [VecDeque<(Instant, Vec<u8>)>; 2],
    delay: Duration,
    /// Packets lost of a hundred.
    loss: u64,
    random: u64,
    reads: bool,
    interval: Duration,
    started: Instant,
    now: Instant,
}

impl Pair {
    fn new(config: Config, delay: Duration, loss: u64, seed: u64) -> Self {
        let now = start();
        Self {
            ends: [Kcp::new(7, config, now), Kcp::new(7, config, now)],
            sources: [Messages::new(&config, 1 << 20), Messages::new(&config, 1 << 20)],
            wires: Default::default(),
            delay,
            loss,
            random: seed | 1,
            reads: true,
            interval: config.interval,
            started: now,
            now,
        }
    }

    /// Lets `time` pass, from one arrival or deadline to the next.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.poll([0, 1]);
        loop {
            let arrival = self.wires.iter().filter_map(|wire| wire.front()).map(|(at, _)| *at).min();
            let deadline = self.ends.iter().filter_map(Kcp::poll_timeout).min();
            let Some(next) = arrival.into_iter().chain(deadline).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.look_early(next);
            assert!(next >= self.now, "a deadline has passed: {:?}", self.ends);
            self.now = next;
            let due = [0, 1].map(|end| self.ends[end].poll_timeout().is_some_and(|at| at <= next));
            for (end, is_due) in due.into_iter().enumerate() {
                if self.arrive(end) || is_due {
                    self.poll([end]);
                }
            }
        }
    }

    /// Asks both ends half-way to what comes next, before the pacer gathers for it, and right before it: neither does
    /// anything.
    fn look_early(&mut self, next: Instant) {
        let wait = next.saturating_duration_since(self.now);
        for left in [wait / 2, GATHER + NANO, NANO] {
            let look_at = next.checked_sub(left).unwrap_or(next);
            if look_at <= self.now || look_at == next {
                continue;
            }
            self.now = look_at;
            for end in 0..2 {
                self.expect_silence(end);
            }
        }
    }

    /// Expects that nothing leaves now, unless it may: a paced end gathers for a while before it asks to be woken.
    fn expect_silence(&mut self, end: usize) {
        if !self.interval.is_zero() && !self.sources[end].is_empty() {
            // To ask is to say that something new waits: a flush would be arranged.
            return;
        }
        let before = self.ends[end].stats();
        let gathered =
            if before.pacing_rate.is_some() && self.interval.is_zero() { GATHER } else { Duration::ZERO };
        if self.ends[end].poll_timeout().is_none_or(|at| at > self.now + gathered) {
            assert!(!self.transmit(end), "{:?} was not announced", self.ends[end]);
            assert_eq!(self.ends[end].stats(), before);
        }
    }

    fn arrive(&mut self, end: usize) -> bool {
        let arrived = self.wires[end].partition_point(|(at, _)| *at <= self.now);
        for (_, packet) in self.wires[end].drain(..arrived) {
            self.ends[end].handle_packet(&packet, self.now).unwrap();
        }
        let mut any = arrived > 0;
        while self.reads && self.ends[end].poll_message().is_some() {
            any = true;
        }
        any
    }

    /// Lets everything leave; a deadline that has come must have been for something. With an interval only a deadline lets
    /// anything leave.
    fn poll<const ENDS: usize>(&mut self, ends: [usize; ENDS]) {
        for end in ends {
            let before = progress(&self.ends[end].stats());
            let was_due = self.ends[end].poll_timeout().is_some_and(|at| at <= self.now);
            while self.transmit(end) {}
            let after = &self.ends[end];
            let moved = progress(&after.stats()) != before;
            if self.interval.is_zero() {
                assert!(!was_due || moved, "woken for nothing: {after:?}");
            } else {
                assert!(was_due || !moved, "between two flushes: {after:?}");
            }
            assert!(after.poll_timeout().is_none_or(|at| at > self.now), "it spins: {after:?}");
            assert!(after.poll_timeout().is_none_or(|at| self.is_multiple(at)), "{after:?}");
        }
    }

    fn is_multiple(&self, at: Instant) -> bool {
        self.interval.is_zero() || (at - self.started).as_nanos().is_multiple_of(self.interval.as_nanos())
    }

    fn transmit(&mut self, end: usize) -> bool {
        let mut packet = Vec::new();
        let sent =
            self.ends[end].poll_transmit(MSS + HEADER_LEN, &mut self.sources[end], &mut packet, self.now);
        if sent && self.random() % 100 >= self.loss {
            self.wires[1 - end].push_back((self.now + self.delay, packet));
        }
        sent
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// What a deadline is for: something leaves, or is found out to be lost.
fn progress(stats: &Stats) -> [u64; 3] {
    [stats.sent_bytes, stats.lost, stats.timeouts]
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize, usize),
    Run(u64),
    Loss(u64),
    Read(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2usize, 1..40usize).prop_map(|(end, count)| Step::Write(end, count)),
        4 => (1..400_000u64).prop_map(Step::Run),
        1 => prop_oneof![Just(0), Just(10), Just(50), Just(100)].prop_map(Step::Loss),
        1 => any::<bool>().prop_map(Step::Read),
    ]
}

proptest! {
    #[test]
    fn every_deadline_is_for_something_and_nothing_happens_before_it(
        steps in prop::collection::vec(step(), 1..40),
        kind in prop_oneof![
            Just(CongestionKind::Bbr), Just(CongestionKind::Loss), Just(CongestionKind::None)
        ],
        interval in prop_oneof![3 => Just(0), 1 => Just(10), 1 => Just(20), 1 => Just(40)],
        delay in 0..150_000u64,
        window in 4..200u16,
        seed in any::<u64>(),
    ) {
        let mut config: Config = Mode::Fast3.config().with_mtu(MSS + HEADER_LEN).with_windows(window, 128);
        config.congestion = kind;
        config.interval = Duration::from_millis(interval);
        config.receive_window = window;
        let mut pair = Pair::new(config, Duration::from_micros(delay), 0, seed);
        for step in steps {
            match step {
                Step::Write(end, count) => {
                    (0..count).for_each(|_| pair.sources[end].push(&[7; MSS]).unwrap());
                }
                Step::Run(micros) => pair.run(Duration::from_micros(micros)),
                Step::Loss(loss) => pair.loss = loss,
                Step::Read(reads) => pair.reads = reads,
            }
        }
        // In the end nothing wakes any more.
        (pair.loss, pair.reads) = (0, true);
        pair.run(Duration::from_secs(200));
        for end in &pair.ends {
            prop_assert_eq!(end.poll_timeout(), None, "{:?}", end);
            prop_assert!(!end.has_unacked());
        }
    }
}

/// How long before the deadline it names a paced end may let something leave (the pacer's `GATHER`).
const GATHER: Duration = Duration::from_micros(250);
const NANO: Duration = Duration::from_nanos(1);
