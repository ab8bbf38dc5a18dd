//! Property tests of [`Kcp::poll_timeout`]: no deadline is missed, none comes early, none wakes for nothing.

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

    /// Asks both ends between now and what comes next: neither does anything, but that the pacer gathers.
    fn look_early(&mut self, next: Instant) {
        self.now += next.saturating_duration_since(self.now) / 2;
        for end in 0..2 {
            let before = self.ends[end].stats();
            if before.pacing_rate.is_none() && self.ends[end].poll_timeout().is_none_or(|at| at > self.now) {
                assert!(!self.transmit(end), "{:?} was not announced", self.ends[end]);
                assert_eq!(self.ends[end].stats(), before);
            }
        }
    }

    fn arrive(&mut self, end: usize) -> bool {
        let mut any = false;
        while let Some((_, packet)) = self.wires[end].pop_front_if(|(at, _)| *at <= self.now) {
            self.ends[end].handle_packet(&packet, self.now).unwrap();
            any = true;
        }
        while self.reads && self.ends[end].poll_message().is_some() {
            any = true;
        }
        any
    }

    /// Lets everything leave; a deadline that has come must have been for something.
    fn poll<const ENDS: usize>(&mut self, ends: [usize; ENDS]) {
        for end in ends {
            let before = progress(&self.ends[end].stats());
            let was_due = self.ends[end].poll_timeout().is_some_and(|at| at <= self.now);
            while self.transmit(end) {}
            let after = &self.ends[end];
            assert!(!was_due || progress(&after.stats()) != before, "woken for nothing: {after:?}");
            assert!(after.poll_timeout().is_none_or(|at| at > self.now), "it spins: {after:?}");
        }
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
        delay in 0..150_000u64,
        window in 4..200u16,
        seed in any::<u64>(),
    ) {
        let mut config: Config = Mode::Fast3.config().with_mtu(MSS + HEADER_LEN).with_windows(window, 128);
        config.congestion = kind;
        config.interval = Duration::ZERO;
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
