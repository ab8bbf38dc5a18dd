//! Random operations of both ends against a plain model: for each stream two byte counts and what
//! became of each direction.
//!
//! Each end is told of everything once, and of nothing else; whoever waits for bytes or for room is told; a stream that neither
//! end resets and no bound ends carries every byte of both.

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
    /// The writer aborted behind what it had written.
    is_aborted: bool,
    /// The reader was told of bytes, and has not read all of them.
    is_readable: bool,
    /// The writer had no room for all that it had, and was not told of room since.
    awaits_room: bool,
    /// How often it may be told: once more than it waits, if it wrote while the news was on its way.
    news_of_room: u8,
}

/// A stream, as it must be; index of a direction = the end that writes it.
#[derive(Debug, Default)]
struct Expected {
    opener: usize,
    directions: [Direction; 2],
    /// Which ends may write.
    is_open: [bool; 2],
    /// The opener was told that the other accepted.
    was_opened: bool,
    /// The other was told of it, and has not answered.
    is_offered: bool,
    /// Which ends have reset it or heard so.
    is_reset: [bool; 2],
    /// What each end said when it reset the stream.
    code: [Option<ResetCode>; 2],
}

struct World {
    pair: Pair,
    rng: StdRng,
    /// Messages on the way *to* each end.
    wires: [VecDeque<Vec<u8>>; 2],
    streams: BTreeMap<StreamId, Expected>,
    /// Which ends said `GOAWAY`, and which were told.
    has_left: [bool; 2],
    was_left: [bool; 2],
    /// Bounds are met, which end streams.
    is_tight: bool,
}

/// The byte at `offset` of what `end` writes to a stream.
fn byte(id: StreamId, end: usize, offset: usize) -> u8 {
    let mixed = (u32::from(id) as usize + 7 * end).wrapping_mul(31).wrapping_add(offset);
    mixed.wrapping_mul(0x9e37_79b9).to_le_bytes()[2]
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let is_tight = seed % 4 == 3;
        let limits = Limits {
            streams: rng.random_range(5..50),
            opens_per_second: 5_000,
            send_buffer: rng.random_range(1000..200_000),
            receive_window_initial: rng.random_range(0..200_000),
            receive_window_max: rng.random_range(0..1_000_000),
            session_buffer: if is_tight { rng.random_range(150_000..600_000) } else { 64 << 20 },
        };
        Self {
            pair: Pair::new(limits),
            rng,
            wires: Default::default(),
            streams: BTreeMap::new(),
            has_left: [false; 2],
            was_left: [false; 2],
            is_tight,
        }
    }

    fn operate(&mut self) {
        let end = self.rng.random_range(0..2);
        match self.rng.random_range(0..1000) {
            0..40 => self.open(end),
            40..300 => self.write(end),
            300..480 => self.read(end),
            480..510 => self.finish(end),
            510..515 => self.reset(end),
            515..520 => self.abort(end),
            520..560 => self.answer_one(end),
            560..730 => self.fill(end),
            730..880 => self.deliver(end),
            880..970 => self.hear(end),
            970..980 => self.pair.ends[end].set_rtt(Duration::from_millis(self.rng.random_range(0..300))),
            // Late: nothing is opened after it.
            980 if self.streams.len() > 60 => self.leave(end),
            _ => self.pair.now += Duration::from_millis(self.rng.random_range(0..200)),
        }
        self.check_bounds();
    }

    fn leave(&mut self, end: usize) {
        self.has_left[end] = true;
        self.pair.ends[end].go_away();
    }

    fn any_stream(&mut self) -> Option<StreamId> {
        let count = self.streams.len();
        // Mostly the last ones, which are alive.
        let back = self.rng.random_range(0..10).min(count.checked_sub(1)?);
        self.streams.keys().nth(count - 1 - back).copied()
    }

    fn open(&mut self, end: usize) {
        let opened = self.pair.ends[end].open(target(), self.pair.now);
        assert!(opened.is_err() || !(self.has_left[end] || self.was_left[end]), "{opened:?}");
        if let Ok(id) = opened {
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
        if may_write {
            // Also when it looked and there was none, whatever it wanted to write.
            let is_short = taken < len || taken == room;
            direction.awaits_room |= is_short;
            direction.news_of_room = (direction.news_of_room + u8::from(is_short)).min(2);
        }
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
        direction.is_readable &= !self.pair.ends[end].readable(id).is_empty();
    }

    fn finish(&mut self, end: usize) {
        let Some(id) = self.any_stream() else { return };
        let expected = self.streams.get_mut(&id).unwrap();
        if expected.is_open[end] {
            expected.directions[end].is_finished |= !expected.is_reset[end];
            expected.directions[end].awaits_room = false;
            self.pair.ends[end].finish(id);
        }
    }

    fn reset(&mut self, end: usize) {
        let Some(id) = self.any_stream() else { return };
        let expected = self.streams.get_mut(&id).unwrap();
        if expected.is_open[end] && !expected.is_reset[end] {
            expected.give_up(end, ResetCode::Reset);
            self.pair.ends[end].reset(id, ResetCode::Reset);
        }
    }

    /// Behind the bytes that were written; no news of it means anything after that.
    fn abort(&mut self, end: usize) {
        let Some(id) = self.any_stream() else { return };
        let expected = self.streams.get_mut(&id).unwrap();
        let direction = &mut expected.directions[end];
        if expected.is_open[end] && !expected.is_reset[end] && !direction.is_finished {
            // Whoever opened it and aborts before its OPEN left is never heard of.
            direction.is_aborted = true;
            expected.give_up(end, ResetCode::Timeout);
            self.pair.ends[end].abort(id, ResetCode::Timeout);
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
        // What came before a reset is there until that is polled.
        let aborted = self.streams.iter().filter(|(_, expected)| expected.directions[1 - end].is_aborted);
        let aborted: Vec<_> =
            aborted.filter(|(_, expected)| !expected.is_reset[end]).map(|(id, _)| *id).collect();
        aborted.into_iter().for_each(|id| self.read_up_to(end, id, usize::MAX));
        while let Some(event) = self.pair.ends[end].poll_event() {
            self.hear_one(end, event);
        }
        // Whatever can be read was told.
        for (id, expected) in self.streams.iter().rev().take(20) {
            let is_ready = !self.pair.ends[end].readable(*id).is_empty();
            let is_mine = expected.is_open[end] && !expected.is_reset[end];
            assert!(!is_ready || !is_mine || expected.directions[1 - end].is_readable, "{id} {expected:?}");
        }
    }

    fn hear_one(&mut self, end: usize, event: Event) {
        if event == Event::GoAway {
            assert!(self.has_left[1 - end] && !self.was_left[end], "nobody said so, or once");
            self.was_left[end] = true;
            return;
        }
        let (Event::Open { id, .. }
        | Event::Opened { id }
        | Event::Readable { id }
        | Event::Writable { id }
        | Event::Finished { id }
        | Event::Reset { id, .. }) = event
        else {
            unreachable!("named above");
        };
        let expected = self.streams.get_mut(&id).unwrap();
        if expected.directions[end].is_aborted {
            return;
        }
        assert!(!expected.is_reset[end], "{event:?} behind the end of it: {expected:?}");
        let (mine, theirs) = {
            let [client, server] = &mut expected.directions;
            if end == 0 { (client, server) } else { (server, client) }
        };
        match event {
            Event::Open { target: told, .. } => {
                assert!(
                    expected.opener != end && !expected.is_open[end] && !expected.is_offered,
                    "{id} is told twice"
                );
                assert_eq!(told, target());
                expected.is_offered = true;
            }
            Event::Opened { .. } => {
                assert!(
                    expected.opener == end && expected.is_open[1 - end] && !expected.was_opened,
                    "{expected:?}"
                );
                expected.was_opened = true;
            }
            Event::Readable { .. } => {
                assert!(expected.is_open[end] && !theirs.was_told, "{id} {theirs:?}");
                assert!(expected.opener != end || expected.was_opened, "bytes of {id} before it was opened");
                theirs.is_readable = true;
            }
            Event::Writable { .. } => {
                assert!(mine.news_of_room > 0 && !mine.is_finished, "{id} {mine:?}");
                mine.awaits_room = false;
                mine.news_of_room -= 1;
            }
            Event::Finished { .. } => {
                assert!(theirs.is_finished && !theirs.was_told, "{id} {theirs:?}");
                assert_eq!(theirs.read, theirs.written, "{id}");
                theirs.was_told = true;
            }
            Event::Reset { code, .. } => {
                let said = expected.code[1 - end];
                let by_bound = code == ResetCode::Limit;
                assert!(by_bound || said == Some(code), "{id} {code:?} and not {said:?}");
                expected.is_reset[end] = true;
            }
            Event::GoAway => {}
        }
    }

    /// Some time after an end was told of a stream, it answers.
    fn answer_one(&mut self, end: usize) {
        let offered = |expected: &Expected| expected.opener != end && expected.is_offered;
        let Some((&id, _)) = self.streams.iter().find(|(_, expected)| offered(expected)) else { return };
        let expected = self.streams.get_mut(&id).unwrap();
        expected.is_offered = false;
        if expected.is_reset[end] {
            return;
        }
        expected.is_open[end] = true;
        if self.rng.random_range(0..5) == 0 {
            expected.give_up(end, ResetCode::Refused);
            self.pair.ends[end].reset(id, ResetCode::Refused);
        } else {
            self.pair.ends[end].accept(id);
        }
    }

    fn check_bounds(&self) {
        for mux in &self.pair.ends {
            let (stats, limits) = (mux.stats(), mux.limits);
            assert!(stats.streams <= limits.streams, "{stats:?}");
            // A byte for each stream is beyond the bound on what is to be sent, if that is smaller than this.
            assert!(stats.send_buffered <= limits.session_buffer / 4 + limits.streams, "{stats:?}");
            assert!(stats.receive_buffered <= limits.session_buffer / 4 * 3, "{stats:?}");
        }
    }

    /// Answers and reads everything until nothing moves any more; `and_finish`: the writers end, too.
    fn conclude(&mut self, and_finish: bool) {
        let ids: Vec<_> = self.streams.keys().copied().collect();
        let mut quiet = 0;
        while quiet < 3 {
            let before = self.progress();
            for end in 0..2 {
                self.hear(end);
                while self.streams.values().any(|expected| expected.opener != end && expected.is_offered) {
                    self.answer_one(end);
                }
                for id in &ids {
                    // Only who was told looks.
                    if self.streams[id].directions[1 - end].is_readable {
                        self.read_up_to(end, *id, usize::MAX);
                    }
                    let expected = self.streams.get_mut(id).unwrap();
                    if and_finish && expected.is_open[end] && !expected.is_reset[end] {
                        expected.directions[end].is_finished = true;
                        expected.directions[end].awaits_room = false;
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

    /// Everybody has read everything.
    fn check_calm(&self) {
        for (id, expected) in self.streams.iter().filter(|(_, expected)| !expected.is_over()) {
            for (end, direction) in expected.directions.iter().enumerate() {
                assert_eq!(direction.read, direction.written, "{id} {expected:?}");
                let is_waiting = direction.awaits_room && expected.is_open[end];
                assert!(!is_waiting, "{id} waits for room that there is: {expected:?}");
            }
        }
    }

    fn progress(&self) -> ([Stats; 2], [usize; 2]) {
        (self.pair.ends.each_ref().map(Mux::stats), self.wires.each_ref().map(VecDeque::len))
    }

    fn check(&mut self) {
        // The only thing in a budget that is not a balance.
        self.pair.ends.iter_mut().for_each(|mux| mux.set_rtt(Duration::from_millis(100)));
        for (id, expected) in &self.streams {
            if expected.is_over() {
                self.check_reset(*id, expected);
                continue;
            }
            assert!(expected.was_opened && expected.is_open == [true; 2], "{id} {expected:?}");
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
            assert_eq!(offences, 0, "{stats:?}");
            assert!(self.is_tight || stats.over_budget == 0, "{stats:?}");
            assert!(mux.schedule.is_idle());
            assert_eq!(mux.budget, Budget::new(&mux.limits), "not all was given back");
        }
    }
}

impl World {
    /// One end gave a stream up: the other knows why, unless the end of it crossed another.
    fn check_reset(&self, id: StreamId, expected: &Expected) {
        for end in 0..2 {
            let other = &expected.directions[1 - end];
            let knows = expected.is_reset[end]
                || other.was_told
                || (expected.opener != end && !expected.is_open[end]);
            assert!(knows, "{id} is open for end {end} only: {expected:?}");
            // What was written before is not lost, as far as nobody had to ask for more credit.
            if other.is_aborted && expected.code[end].is_none() && expected.was_opened && !self.is_tight {
                assert!(other.read >= other.written.min(64 << 10), "{id} {expected:?}");
            }
        }
    }
}

impl Expected {
    fn give_up(&mut self, end: usize, code: ResetCode) {
        self.is_reset[end] = true;
        self.code[end] = Some(code);
    }

    fn is_over(&self) -> bool {
        self.is_reset.contains(&true)
    }
}

#[test]
fn every_stream_receives_exactly_what_was_sent() {
    for seed in 0..200 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..3000 {
                world.operate();
            }
            world.conclude(false);
            world.check_calm();
            world.conclude(true);
            world.check();
            let bytes = world.pair.ends[0].stats().received_bytes;
            (world.streams.len(), bytes)
        });
        let (streams, bytes) = outcome.unwrap_or_else(|_| panic!("seed {seed} fails"));
        assert!(streams > 5 && bytes > 10_000, "seed {seed} did little: {streams}, {bytes}");
    }
}
