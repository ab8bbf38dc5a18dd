//! Random operations of both ends against a plain model: for each stream two byte counts and what
//! became of each direction.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// One direction of a stream, as it must be.
#[derive(Debug, Default)]
struct Direction {
    written: usize,
    read: usize,
    /// The writer finished.
    is_finished: bool,
    /// The reader was told of it.
    was_told: bool,
}

/// A stream, as it must be; index of a direction = the end that writes it.
#[derive(Debug, Default)]
struct Expected {
    opener: usize,
    directions: [Direction; 2],
    /// Which ends know that the stream is open.
    is_open: [bool; 2],
    /// Which ends have reset it or heard so.
    is_reset: [bool; 2],
}

struct World {
    pair: Pair,
    rng: StdRng,
    /// Messages on the way *to* each end.
    wires: [VecDeque<Vec<u8>>; 2],
    streams: BTreeMap<StreamId, Expected>,
}

/// The byte at `offset` of what `end` writes to a stream.
fn byte(id: StreamId, end: usize, offset: usize) -> u8 {
    let mixed = (u32::from(id) as usize + 7 * end).wrapping_mul(31).wrapping_add(offset);
    mixed.wrapping_mul(0x9e37_79b9).to_le_bytes()[2]
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let limits = Limits {
            streams: rng.random_range(5..50),
            opens_per_second: 5_000,
            send_buffer: rng.random_range(1000..200_000),
            receive_window_initial: rng.random_range(0..200_000),
            receive_window_max: rng.random_range(0..1_000_000),
            session_buffer: 64 << 20,
        };
        Self { pair: Pair::new(limits), rng, wires: Default::default(), streams: BTreeMap::new() }
    }

    fn operate(&mut self) {
        let end = self.rng.random_range(0..2);
        match self.rng.random_range(0..100) {
            0..4 => self.open(end),
            4..30 => self.write(end),
            30..50 => self.read(end),
            50..53 => self.finish(end),
            53..54 => self.reset(end),
            54..72 => self.fill(end),
            72..88 => self.deliver(end),
            88..97 => self.hear(end),
            _ => self.pair.now += Duration::from_millis(self.rng.random_range(0..200)),
        }
    }

    fn any_stream(&mut self) -> Option<StreamId> {
        let count = self.streams.len();
        // Mostly the last ones, which are alive.
        let back = self.rng.random_range(0..10).min(count.checked_sub(1)?);
        self.streams.keys().nth(count - 1 - back).copied()
    }

    fn open(&mut self, end: usize) {
        if let Ok(id) = self.pair.ends[end].open(target(), self.pair.now) {
            let mut expected = Expected { opener: end, ..Expected::default() };
            expected.is_open[end] = true;
            assert!(self.streams.insert(id, expected).is_none());
        }
    }

    fn write(&mut self, end: usize) {
        let Some(id) = self.any_stream() else { return };
        let len = self.rng.random_range(0..20_000);
        let expected = self.streams.get_mut(&id).unwrap();
        let direction = &mut expected.directions[end];
        let bytes: Vec<u8> = (0..len).map(|at| byte(id, end, direction.written + at)).collect();
        let room = self.pair.ends[end].write_room(id);
        let taken = self.pair.ends[end].write(id, &bytes);
        assert_eq!(taken, room.min(len), "{id}");
        let may_write = expected.is_open[end] && !expected.is_reset[end] && !direction.is_finished;
        assert!(may_write || taken == 0, "{id} {expected:?}");
        direction.written += taken;
    }

    fn read(&mut self, end: usize) {
        let Some(id) = self.any_stream() else { return };
        let limit = self.rng.random_range(0..30_000);
        self.read_up_to(end, id, limit);
    }

    fn read_up_to(&mut self, end: usize, id: StreamId, mut limit: usize) {
        let direction = &mut self.streams.get_mut(&id).unwrap().directions[1 - end];
        while limit > 0 && !self.pair.ends[end].readable(id).is_empty() {
            let bytes = self.pair.ends[end].readable(id);
            let n = limit.min(bytes.len());
            for (at, got) in bytes[..n].iter().enumerate() {
                assert_eq!(*got, byte(id, 1 - end, direction.read + at), "{id} {direction:?}");
            }
            self.pair.ends[end].consume(id, n, self.pair.now);
            direction.read += n;
            limit -= n;
            assert!(direction.read <= direction.written && !direction.was_told);
        }
    }

    fn finish(&mut self, end: usize) {
        let Some(id) = self.any_stream() else { return };
        let expected = self.streams.get_mut(&id).unwrap();
        if expected.is_open[end] {
            expected.directions[end].is_finished |= !expected.is_reset[end];
            self.pair.ends[end].finish(id);
        }
    }

    fn reset(&mut self, end: usize) {
        let Some(id) = self.any_stream() else { return };
        let expected = self.streams.get_mut(&id).unwrap();
        if expected.is_open[end] {
            expected.is_reset[end] = true;
            self.pair.ends[end].reset(id, ResetCode::Reset);
        }
    }

    fn fill(&mut self, end: usize) {
        let mut buffer = vec![0; self.rng.random_range(24..3000)];
        let len = self.pair.ends[end].fill(&mut buffer, self.pair.now);
        if len > 0 {
            buffer.truncate(len);
            self.wires[1 - end].push_back(buffer);
        }
    }

    fn deliver(&mut self, end: usize) {
        if let Some(message) = self.wires[end].pop_front() {
            self.pair.ends[end].handle_message(&message, self.pair.now).unwrap();
        }
    }

    fn hear(&mut self, end: usize) {
        while let Some(event) = self.pair.ends[end].poll_event() {
            match event {
                Event::Open { id, .. } => self.answer(end, id),
                Event::Opened { id } => assert_eq!(self.streams[&id].opener, end),
                Event::Readable { .. } | Event::Writable { .. } => {}
                Event::Finished { id } => {
                    let direction = &mut self.streams.get_mut(&id).unwrap().directions[1 - end];
                    assert!(direction.is_finished && !direction.was_told, "{id} {direction:?}");
                    assert_eq!(direction.read, direction.written, "{id}");
                    direction.was_told = true;
                }
                Event::Reset { id, .. } => {
                    let expected = self.streams.get_mut(&id).unwrap();
                    assert!(!expected.is_reset[end], "{id} is told twice");
                    expected.is_reset[end] = true;
                }
                Event::GoAway => panic!("nobody said so"),
            }
        }
    }

    fn answer(&mut self, end: usize, id: StreamId) {
        let expected = self.streams.get_mut(&id).unwrap();
        assert!(expected.opener != end && !expected.is_open[end], "{id} is told twice");
        expected.is_open[end] = true;
        if self.rng.random_range(0..5) == 0 {
            expected.is_reset[end] = true;
            self.pair.ends[end].reset(id, ResetCode::Refused);
        } else {
            self.pair.ends[end].accept(id);
        }
    }

    /// Finishes and reads everything until nothing moves any more.
    fn conclude(&mut self) {
        let ids: Vec<_> = self.streams.keys().copied().collect();
        let mut quiet = 0;
        while quiet < 3 {
            let before = self.progress();
            for end in 0..2 {
                self.hear(end);
                for id in &ids {
                    self.read_up_to(end, *id, usize::MAX);
                    let expected = self.streams.get_mut(id).unwrap();
                    if expected.is_open[end] && !expected.is_reset[end] {
                        expected.directions[end].is_finished = true;
                        self.pair.ends[end].finish(*id);
                    }
                }
                for _ in 0..20 {
                    self.fill(end);
                    self.deliver(1 - end);
                }
            }
            quiet = if before == self.progress() { quiet + 1 } else { 0 };
        }
    }

    fn progress(&self) -> ([Stats; 2], [usize; 2]) {
        (self.pair.ends.each_ref().map(Mux::stats), self.wires.each_ref().map(VecDeque::len))
    }

    fn check(&self) {
        for (id, expected) in &self.streams {
            if expected.is_reset.contains(&true) {
                continue;
            }
            for direction in &expected.directions {
                assert_eq!(direction.read, direction.written, "{id} {expected:?}");
                assert!(direction.is_finished && direction.was_told, "{id} {expected:?}");
            }
        }
        for mux in &self.pair.ends {
            let stats = mux.stats();
            let held = (stats.streams, stats.send_buffered, stats.receive_buffered);
            assert_eq!(held, (0, 0, 0), "{stats:?}");
            let offences = stats.data_after_fin + stats.credit_overruns + stats.credit_shrinks;
            assert_eq!(offences + stats.over_budget, 0, "{stats:?}");
            assert!(mux.schedule.is_idle());
            assert_eq!(mux.budget, Budget::new(&mux.limits), "not all was given back");
        }
    }
}

#[test]
fn every_stream_receives_exactly_what_was_sent() {
    for seed in 0..300 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..3000 {
                world.operate();
            }
            world.conclude();
            world.check();
            let bytes = world.pair.ends[0].stats().received_bytes;
            (world.streams.len(), bytes)
        });
        let (streams, bytes) = outcome.unwrap_or_else(|_| panic!("seed {seed} fails"));
        assert!(streams > 5 && bytes > 10_000, "seed {seed} did little: {streams}, {bytes}");
    }
}
