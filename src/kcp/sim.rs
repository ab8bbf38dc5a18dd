//! A seeded link in virtual time between two [`Kcp`]s: delay, rate with a drop-tail queue, loss, reordering, duplication.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use super::{Config, Kcp, Source, tests::start};

/// One direction of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) delay: Duration,
    /// Wire bytes per second; 0 = no limit.
    pub(crate) rate: u64,
    /// Wire bytes that may wait.
    pub(crate) queue: u64,
    /// Chances in a thousand.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// How much later a reordered packet (one in ten) may come.
    pub(crate) jitter: Duration,
}

impl Link {
    /// A link of `rate` with a queue of one BDP for a round-trip time of `rtt`.
    pub(crate) fn new(rate: u64, rtt: Duration, loss: u64) -> Self {
        Self {
            delay: rtt / 2,
            rate,
            queue: rate * u64::try_from(rtt.as_micros()).unwrap() / 1_000_000,
            loss,
            duplication: 0,
            jitter: Duration::ZERO,
        }
    }
}

/// Two ends and what is under way between them; data flows from end 0, and from end 1 if its source has any.
pub(crate) struct Sim {
    pub(crate) ends: [Kcp; 2],
    pub(crate) sources: [Bytes; 2],
    pub(crate) received: [Received; 2],
    pub(crate) now: Instant,
    /// Packets leave neither end while set.
    pub(crate) blackout: bool,
    /// How long each packet of end 0 waited in the queue, in the order sent.
    pub(crate) queued: Vec<Duration>,
    links: [Link; 2],
    free_at: [Instant; 2],
    under_way: BinaryHeap<Reverse<Arrival>>,
    random: u64,
    count: u64,
    overhead: u64,
    max: usize,
}

impl Sim {
    pub(crate) fn new(config: Config, links: [Link; 2], seed: u64) -> Self {
        let now = start();
        Self {
            ends: [Kcp::new(7, config, now), Kcp::new(7, config, now)],
            sources: [Bytes::default(), Bytes::default()],
            received: [Received::default(), Received::default()],
            now,
            blackout: false,
            queued: Vec::new(),
            links,
            free_at: [now; 2],
            under_way: BinaryHeap::new(),
            random: seed,
            count: 0,
            overhead: u64::try_from(config.overhead).unwrap(),
            max: config.mss + super::HEADER_LEN,
        }
    }

    /// Lets `time` pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.transmit();
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.deliver();
            self.transmit();
        }
        self.now = end;
    }

    /// Runs until all was received and acknowledged; panics with `context` after `limit`.
    pub(crate) fn finish(&mut self, limit: Duration, context: &str) {
        let end = self.now + limit;
        while !self.is_done() {
            assert!(self.now < end, "{context}: not done, {:?}", self.ends);
            self.run(Duration::from_millis(10));
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.sources[0].left == 0 && self.sources[1].left == 0 && !self.ends.iter().any(Kcp::has_unacked)
    }

    fn next(&self) -> Option<Instant> {
        let timers = self.ends.iter().filter_map(Kcp::poll_timeout);
        let arrival = self.under_way.peek().map(|Reverse((at, ..))| *at);
        timers.chain(arrival).min()
    }

    fn deliver(&mut self) {
        while self.under_way.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            let Some(Reverse((_, _, to, packet))) = self.under_way.pop() else {
                return;
            };
            self.ends[to].handle_packet(&packet, self.now).unwrap();
            while let Some(message) = self.ends[to].poll_message() {
                self.received[to].take(&message);
            }
        }
    }

    fn transmit(&mut self) {
        for from in 0..2 {
            let mut packets = 0;
            loop {
                let mut packet = Vec::new();
                let source = &mut self.sources[from];
                if !self.ends[from].poll_transmit(self.max, source, &mut packet, self.now) {
                    break;
                }
                assert!(packet.len() <= self.max);
                packets += 1;
                assert!(packets < 1_000_000, "never says false");
                self.send(from, packet);
            }
        }
    }

    fn send(&mut self, from: usize, packet: Vec<u8>) {
        let link = self.links[from];
        let bytes = u64::try_from(packet.len()).unwrap() + self.overhead;
        let lost = self.chance(link.loss) || self.blackout;
        let mut leaves = self.now;
        if link.rate > 0 {
            let waits = self.free_at[from].saturating_duration_since(self.now);
            let waiting = u128::from(link.rate) * waits.as_nanos() / 1_000_000_000;
            if waiting + u128::from(bytes) > u128::from(link.queue.max(2 * bytes)) {
                return;
            }
            if from == 0 {
                self.queued.push(waits);
            }
            leaves += waits + Duration::from_nanos(bytes * 1_000_000_000 / link.rate);
            self.free_at[from] = leaves;
        }
        // Lost beyond the bottleneck, so that what is lost takes its share of the rate.
        if lost {
            return;
        }
        let copies = if self.chance(link.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let late = if link.jitter > Duration::ZERO && self.chance(100) {
                link.jitter * u32::try_from(self.random() % 1000).unwrap() / 1000
            } else {
                Duration::ZERO
            };
            self.count += 1;
            let at = leaves + link.delay + late;
            self.under_way.push(Reverse((at, self.count, 1 - from, packet.clone())));
        }
    }

    fn chance(&mut self, in_a_thousand: u64) -> bool {
        in_a_thousand > 0 && self.random() % 1000 < in_a_thousand
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// When, which of those at the same time, at which end, what.
type Arrival = (Instant, u64, usize, Vec<u8>);

/// A source of `left` bytes, each of which says where it stands.
#[derive(Debug, Default)]
pub(crate) struct Bytes {
    pub(crate) left: u64,
    sent: u64,
    /// The most bytes it gives at once; 0 = as many as fit.
    at_once: usize,
}

impl Bytes {
    /// `left` bytes, at most `at_once` in a segment.
    pub(crate) fn in_pieces(left: u64, at_once: usize) -> Self {
        Self { left, sent: 0, at_once }
    }
}

impl Source for Bytes {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let most = if self.at_once == 0 { buffer.len() } else { self.at_once };
        let left = usize::try_from(self.left).unwrap();
        let len = buffer.len().min(most).min(left);
        for byte in &mut buffer[..len] {
            *byte = pattern(self.sent);
            self.sent += 1;
        }
        self.left -= u64::try_from(len).unwrap();
        len
    }
}

/// Checks that bytes come in order, without holes.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
}

impl Received {
    fn take(&mut self, message: &[u8]) {
        for byte in message {
            assert_eq!(*byte, pattern(self.bytes), "at byte {}", self.bytes);
            self.bytes += 1;
        }
    }
}

/// The byte at a position; its period of 251 × 256 is no multiple of any segment size.
fn pattern(position: u64) -> u8 {
    u8::try_from((position % 251) ^ ((position / 251) & 0xff)).unwrap()
}
