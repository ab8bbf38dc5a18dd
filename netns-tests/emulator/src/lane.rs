//! One direction of a line: queue, loss, corruption, duplication, delay and order.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::loss::Dice;
use crate::middlebox::Frame;
use crate::packet::{Flow, Layer};
use crate::pool::Pool;
use crate::profile::Profile;
use crate::stats::{Cause, Stats};
use crate::table::Table;

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

    /// Whether nothing that arrives gets through.
    pub(crate) fn is_dark(&self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        self.blackout || self.profile.blackouts.is_some_and(|blackouts| blackouts.covers(elapsed))
    }

    /// Takes a frame that begins its way.
    pub(crate) fn enqueue(&mut self, frame: Frame, now: Instant, pool: &mut Pool) {
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
        self.travelling.next().map(|(due, _)| due)
    }

    /// The next frame if it is due.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(Instant, Frame)> {
        self.travelling.pop(now)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.travelling.len()
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
        let departure = start + transmission_time(bytes, rate);
        self.busy_until = Some(departure);
        Some(departure)
    }

    /// What happens behind the bottleneck to a frame that is not lost.
    fn propagate(&mut self, mut frame: Frame, departure: Instant, pool: &mut Pool) {
        if self.travelling.len() >= MAX_IN_FLIGHT {
            self.drop(frame, Cause::Overflow, pool);
            return;
        }
        let flow = self.slow_flow(&frame);
        if self.random.random_bool(self.profile.corrupt) {
            self.stats.corrupted += 1;
            self.flip_bits(&mut frame.bytes);
        }
        let jitter = self.profile.jitter.most.mul_f64(self.random.random_range(0.0..1.0));
        let due = departure + self.profile.delay + jitter;
        let reorder = self.profile.reorder;
        if self.random.random_bool(reorder.share) && reorder.distance > 0 {
            self.stats.reordered += 1;
            self.travelling.hold(frame, due + reorder.longest, reorder.distance);
            return;
        }
        let slow = flow.and_then(|flow| self.slow.get_mut(&flow));
        let (extra, last_due) =
            slow.map_or((Duration::ZERO, &mut self.last_due), |slow| (slow.extra, &mut slow.last_due));
        let keeps_order = self.profile.jitter.keeps_order;
        let due = due + extra;
        let earliest = if keeps_order { last_due.map_or(due, |last| due.max(last)) } else { due };
        *last_due = Some(last_due.map_or(earliest, |last| last.max(earliest)));
        self.travelling.push(frame, earliest);
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

/// The frames under way, in the order in which they are due; those due at the same time in the order in which they came.
///
/// Most frames come in that order and stand in a queue; a heap is there for those that overtake.
#[derive(Debug, Default)]
struct Travelling {
    ordered: VecDeque<Entry>,
    overtaking: BinaryHeap<Reverse<Entry>>,
    held: Vec<Held>,
    count: u64,
}

impl Travelling {
    fn len(&self) -> usize {
        self.ordered.len() + self.overtaking.len() + self.held.len()
    }

    /// Adds a frame, and behind it the held frames that it is the last to overtake.
    fn push(&mut self, frame: Frame, due: Instant) {
        self.insert(frame, due);
        for held in &mut self.held {
            held.distance -= 1;
        }
        let mut n = 0;
        while n < self.held.len() {
            if self.held[n].distance == 0 {
                let frame = self.held.remove(n).entry.frame;
                self.insert(frame, due);
            } else {
                n += 1;
            }
        }
    }

    /// Keeps a frame until `distance` others have come, or until `due`.
    fn hold(&mut self, frame: Frame, due: Instant, distance: u32) {
        let entry = self.entry(frame, due);
        self.held.push(Held { distance, entry });
    }

    fn insert(&mut self, frame: Frame, due: Instant) {
        let entry = self.entry(frame, due);
        if self.ordered.back().is_none_or(|last| last.due <= due) {
            self.ordered.push_back(entry);
        } else {
            self.overtaking.push(Reverse(entry));
        }
    }

    fn entry(&mut self, frame: Frame, due: Instant) -> Entry {
        self.count += 1;
        Entry { due, number: self.count, frame }
    }

    /// When the next frame is due, and where it stands.
    fn next(&self) -> Option<(Instant, Place)> {
        let ordered = self.ordered.front().map(|entry| (entry.key(), Place::Ordered));
        let overtaking = self.overtaking.peek().map(|Reverse(entry)| (entry.key(), Place::Overtaking));
        let held = self.held.iter().enumerate().map(|(n, held)| (held.entry.key(), Place::Held(n)));
        let first = ordered.into_iter().chain(overtaking).chain(held).min_by_key(|(key, _)| *key);
        first.map(|((due, _), place)| (due, place))
    }

    fn pop(&mut self, now: Instant) -> Option<(Instant, Frame)> {
        let (due, place) = self.next().filter(|(due, _)| *due <= now)?;
        let entry = match place {
            Place::Ordered => self.ordered.pop_front()?,
            Place::Overtaking => self.overtaking.pop()?.0,
            Place::Held(n) => self.held.remove(n).entry,
        };
        Some((due, entry.frame))
    }
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Ordered,
    Overtaking,
    Held(usize),
}

/// A frame that waits to be overtaken; its time is the latest at which it goes on.
#[derive(Debug)]
struct Held {
    distance: u32,
    entry: Entry,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    number: u64,
    frame: Frame,
}

impl Entry {
    const fn key(&self) -> (Instant, u64) {
        (self.due, self.number)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// How long `bytes` take at `rate` bit/s.
fn transmission_time(bytes: usize, rate: u64) -> Duration {
    Duration::from_nanos((bytes as u64 * 8).saturating_mul(NANOSECONDS) / rate.max(1))
}

/// Bound on the frames under way in one direction: one second of full packets at 786 Mbit/s, 100 MB.
pub const MAX_IN_FLIGHT: usize = 65_536;

/// Bound on the flows that are slower than the others.
const MAX_SLOW_FLOWS: usize = 1024;

/// A corrupted frame has one to so many bits flipped: our choice; a single one is what checksums find best.
const MOST_FLIPS: u32 = 4;

const NANOSECONDS: u64 = 1_000_000_000;
