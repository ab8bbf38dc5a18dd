//! The emulated line, and how long packets wait in its queues.

use std::time::{Duration, Instant};

use link_emulator::{Direction, Emulator, Layer, Line, Profile};

use super::OVERHEAD;

/// A line between numbered ends: even ones at its client's side, odd ones at its router's.
#[derive(Debug)]
pub(crate) struct Link {
    emulator: Emulator,
    lanes: [Lane; 2],
}

impl Link {
    pub(crate) fn new(profiles: [Profile; 2], seed: u64, now: Instant) -> Self {
        let line = Line { profiles, ..Line::new(Profile::CLEAR) };
        Self {
            emulator: Emulator::new(line, Layer::Ip, seed, now),
            lanes: profiles.map(|profile| Lane::new(&profile, now)),
        }
    }

    /// An empty packet of end `from`; KCP's bytes are appended.
    pub(crate) fn packet(from: usize, mut buffer: Vec<u8>) -> Vec<u8> {
        buffer.clear();
        buffer.resize(OVERHEAD, 0);
        // The version of no IP, so that nothing of it is looked at.
        buffer[1] = u8::try_from(from).unwrap_or(u8::MAX);
        buffer
    }

    pub(crate) fn send(&mut self, packet: &[u8], now: Instant) {
        let direction = Direction::BOTH[usize::from(packet[1] & 1)];
        self.lanes[direction.index()].enqueue(packet.len(), now);
        self.emulator.handle_frame(direction, packet, now);
    }

    /// The next packet that arrives, and the end it is for.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(usize, Vec<u8>)> {
        let (_, packet) = self.emulator.poll_frame(now)?;
        Some((usize::from(packet[1] ^ 1), packet))
    }

    pub(crate) fn recycle(&mut self, packet: Vec<u8>) {
        self.emulator.recycle(packet);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.emulator.poll_timeout()
    }

    pub(crate) fn set_blackout(&mut self, blackout: bool) {
        for direction in Direction::BOTH {
            self.emulator.set_blackout(direction, blackout);
        }
    }

    /// How long each packet waited in the queue of a direction since this was asked last.
    ///
    /// # Panics
    /// If the emulator dropped other packets than were reckoned with here.
    pub(crate) fn take_waits(&mut self, direction: Direction) -> Vec<Duration> {
        let (lane, stats) = (&mut self.lanes[direction.index()], self.emulator.stats(direction));
        assert!(stats.blackout > 0 || stats.queue_full == lane.dropped, "the queue is reckoned wrongly");
        assert_eq!(stats.overflow, 0, "more was under way than the emulator holds");
        std::mem::take(&mut lane.waits)
    }

    /// Packets that found the queue of a direction full.
    pub(crate) fn dropped(&self, direction: Direction) -> u64 {
        self.emulator.stats(direction).queue_full
    }
}

/// The same queue as the emulator's, which does not say how long a packet waits.
#[derive(Debug)]
struct Lane {
    rate: Option<u64>,
    queue: Duration,
    free_at: Instant,
    waits: Vec<Duration>,
    dropped: u64,
}

impl Lane {
    fn new(profile: &Profile, now: Instant) -> Self {
        Self { rate: profile.rate, queue: profile.queue, free_at: now, waits: Vec::new(), dropped: 0 }
    }

    fn enqueue(&mut self, bytes: usize, now: Instant) {
        let Some(rate) = self.rate else { return };
        let start = self.free_at.max(now);
        if start - now > self.queue {
            self.dropped += 1;
            return;
        }
        self.waits.push(start - now);
        self.free_at = start + Duration::from_nanos(bytes as u64 * 8_000_000_000 / rate.max(1));
    }
}
