//! A bad network between a client and a server, in virtual time and from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt as _, SeedableRng as _};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Up,
    Down,
}

/// What the network does to packets; shares are of 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) delay: Duration,
    /// Added at random to the delay of each packet, so that packets overtake one another.
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    pub(crate) corruption: f64,
    /// Nothing passes this way.
    pub(crate) blackout: [bool; 2],
    /// How likely a packet begins a burst in which most are lost.
    pub(crate) bursts: f64,
    /// Bytes per second each way; what waits longer than [`QUEUE`] is dropped.
    pub(crate) rate: Option<u32>,
}

impl Weather {
    pub(crate) const FAIR: Self = Self {
        delay: Duration::from_millis(50),
        jitter: Duration::ZERO,
        loss: 0.0,
        duplication: 0.0,
        corruption: 0.0,
        blackout: [false; 2],
        bursts: 0.0,
        rate: None,
    };

    pub(crate) fn lossy(loss: f64) -> Self {
        Self { loss, ..Self::FAIR }
    }

    /// Anything, but survivable.
    pub(crate) fn random(rng: &mut StdRng) -> Self {
        Self {
            delay: Duration::from_millis(rng.random_range(1..150)),
            jitter: Duration::from_millis(rng.random_range(0..40)),
            loss: rng.random_range(0.0..0.2),
            duplication: rng.random_range(0.0..0.1),
            corruption: rng.random_range(0.0..0.05),
            bursts: if rng.random_bool(0.3) { rng.random_range(0.0..0.01) } else { 0.0 },
            rate: rng.random_bool(0.3).then(|| rng.random_range(100_000..5_000_000)),
            ..Self::FAIR
        }
    }
}

/// When a packet arrives, its number, its way, its bytes.
type Travelling = (Instant, u64, Way, Vec<u8>);

/// What was done to packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) lost: u64,
    pub(crate) dropped_at_rate: u64,
    pub(crate) duplicated: u64,
    pub(crate) corrupted: u64,
}

/// Packets on their way.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    rng: StdRng,
    queue: BinaryHeap<Reverse<Travelling>>,
    sent: u64,
    pub(crate) counts: Counts,
    /// Packets left of the burst that goes on.
    burst: [u32; 2],
    /// When the link is free again.
    free_at: [Option<Instant>; 2],
    /// 4-tuples that nothing passes any more, by the client's port.
    pub(crate) dead_ports: Vec<u16>,
    /// A 4-tuple whose packets are this much later, by the client's port.
    pub(crate) slow_port: Option<(u16, Duration)>,
}

impl Network {
    pub(crate) fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            rng: StdRng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            sent: 0,
            counts: Counts::default(),
            burst: [0; 2],
            free_at: [None; 2],
            dead_ports: Vec::new(),
            slow_port: None,
        }
    }

    pub(crate) fn send(&mut self, way: Way, packet: &[u8], now: Instant) {
        let weather = self.weather;
        let port = client_port(way, packet);
        if weather.blackout[way as usize] || self.dead_ports.contains(&port) || self.is_lost(way) {
            self.counts.lost += 1;
            return;
        }
        let Some(leaves) = self.queue_at_rate(way, packet.len(), now) else {
            self.counts.dropped_at_rate += 1;
            return;
        };
        let slow = self.slow_port.filter(|(slow, _)| *slow == port).map_or(Duration::ZERO, |(_, by)| by);
        let copies = 1 + u64::from(self.rng.random_bool(weather.duplication));
        self.counts.duplicated += copies - 1;
        for _ in 0..copies {
            let mut packet = packet.to_vec();
            if self.rng.random_bool(weather.corruption) {
                self.counts.corrupted += 1;
                corrupt(&mut packet, &mut self.rng);
            }
            let jitter = weather.jitter.mul_f64(self.rng.random_range(0.0..1.0));
            self.sent += 1;
            self.queue.push(Reverse((leaves + weather.delay + slow + jitter, self.sent, way, packet)));
        }
    }

    fn is_lost(&mut self, way: Way) -> bool {
        if self.rng.random_bool(self.weather.bursts) {
            self.burst[way as usize] = self.rng.random_range(2..50);
        }
        let burst = &mut self.burst[way as usize];
        let in_burst = *burst > 0 && self.rng.random_bool(0.9);
        *burst = burst.saturating_sub(1);
        in_burst || self.rng.random_bool(self.weather.loss)
    }

    /// When a packet has left over the link; `None` if the queue is full.
    fn queue_at_rate(&mut self, way: Way, length: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.weather.rate else { return Some(now) };
        let free = self.free_at[way as usize].map_or(now, |at| at.max(now));
        let leaves = free + Duration::from_secs(length as u64).mul_f64(f64::from(rate).recip());
        (free - now < QUEUE).then(|| *self.free_at[way as usize].insert(leaves))
    }

    /// Packets sent so far, lost ones not counted.
    pub(crate) fn packets(&self) -> u64 {
        self.sent
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn receive(&mut self, now: Instant) -> Option<(Way, Vec<u8>)> {
        if self.next_arrival()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse((_, _, way, packet))| (way, packet))
    }
}

/// Flips a bit, or cuts the end off.
fn corrupt(packet: &mut Vec<u8>, rng: &mut impl Rng) {
    if rng.random_bool(0.2) {
        packet.truncate(rng.random_range(0..packet.len()));
    } else {
        let position = rng.random_range(0..packet.len());
        packet[position] ^= 1 << rng.random_range(0..8);
    }
}

/// The client's port in an IPv4 TCP packet without IP options.
fn client_port(way: Way, packet: &[u8]) -> u16 {
    let offset = match way {
        Way::Up => 20,
        Way::Down => 22,
    };
    u16::from_be_bytes([packet[offset], packet[offset + 1]])
}

/// What the queue before a slow link holds.
const QUEUE: Duration = Duration::from_millis(100);
