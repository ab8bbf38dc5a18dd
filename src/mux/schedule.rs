//! Which stream's bytes leave next.
//!
//! 1. Streams that owe a control frame (`OPENED`, `CREDIT`), then those whose `OPEN` waits: in order.
//! 2. *Fresh* streams, one frame each in turn: those that rested, for their first
//!    [`FRESH_BYTES`]. Requests, answers and keystrokes pass every bulk transfer.
//! 3. *Bulk* streams by deficit round robin (Shreedhar and Varghese, 1995): each may send
//!    [`QUANTUM`] bytes a round. As in fq_codel (RFC 8290, section 4.2) a frame may overdraw its
//!    stream's deficit and the round pays it back, so frames are never cut short to fit it.
//!
//! A stream is in the lists only while it has something to say: idle ones cost nothing. Lists hold
//! ids and are cleaned lazily; ids are never reused, so one of a forgotten stream is harmless.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::StreamId;
use super::stream::{Stream, Streams};

/// A list of stream ids, each at most once while its stream lives.
#[derive(Debug, Default)]
pub(super) struct IdList {
    ids: VecDeque<StreamId>,
}

impl IdList {
    pub(super) fn push(&mut self, id: StreamId) {
        self.ids.push_back(id);
    }

    pub(super) fn front(&self) -> Option<StreamId> {
        self.ids.front().copied()
    }

    pub(super) fn pop(&mut self) {
        self.ids.pop_front();
    }

    /// Ids in the list, those of forgotten streams included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Moves the front to the back.
    fn rotate(&mut self) {
        if let Some(id) = self.ids.pop_front() {
            self.ids.push_back(id);
        }
    }

    /// Drops the ids of forgotten streams once they are the larger part. A list so never holds more
    /// than twice the streams there are and a slack, which spares small lists the work.
    pub(super) fn compact(&mut self, streams: &Streams) {
        if self.ids.len() > 2 * streams.len() + COMPACT_SLACK {
            self.ids.retain(|id| streams.contains_key(id));
            self.ids.shrink_to(2 * self.ids.len());
        }
    }
}

/// A stream's place among those that have bytes to send.
#[derive(Debug)]
pub(super) struct Turn {
    place: Place,
    /// Bytes it may still send as a fresh stream.
    fresh: usize,
    /// Bytes it may send before the round goes on; negative after it overdrew.
    deficit: i64,
    /// Since when it has had nothing to send; `None` while it has, even if it lacks credit.
    rested_since: Option<Instant>,
}

impl Default for Turn {
    fn default() -> Self {
        Self { place: Place::Nowhere, fresh: FRESH_BYTES, deficit: 0, rested_since: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In no list.
    Nowhere,
    /// In the fresh list, but it may have no right to be there.
    Arrived,
    Fresh,
    Bulk,
}

/// The lists of streams that have something to send.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Streams that owe a control frame.
    pub(super) owing: IdList,
    /// Streams whose `OPEN` waits, in the order of their ids.
    pub(super) opening: IdList,
    fresh: IdList,
    bulk: IdList,
    /// Fresh frames since the last bulk one.
    fresh_run: u32,
}

impl Schedule {
    /// Lists a stream that may have become able to send.
    pub(super) fn activate(&mut self, id: StreamId, stream: &mut Stream) {
        if stream.turn.place == Place::Nowhere && stream.can_send() {
            stream.turn.place = Place::Arrived;
            self.fresh.push(id);
        }
    }

    /// Lists a stream that owes a control frame.
    pub(super) fn owe(&mut self, id: StreamId, stream: &mut Stream) {
        if !stream.owes.is_listed {
            stream.owes.is_listed = true;
            self.owing.push(id);
        }
    }

    /// Lets the next stream `send` one frame (it returns the bytes sent) and names it; `None` when
    /// no stream can send.
    pub(super) fn serve(
        &mut self,
        streams: &mut Streams,
        now: Instant,
        send: impl FnOnce(StreamId, &mut Stream) -> usize,
    ) -> Option<StreamId> {
        loop {
            let is_fresh = self.next_is_fresh();
            let list = if is_fresh { &mut self.fresh } else { &mut self.bulk };
            let id = list.front()?;
            let Some(stream) = streams.get_mut(&id) else {
                list.pop();
                continue;
            };
            if !stream.can_send() {
                list.pop();
                stream.turn.leave(stream.send.queue.is_empty(), now);
                continue;
            }
            let is_due = if is_fresh { stream.turn.is_fresh(now) } else { stream.turn.is_due() };
            if !is_due {
                list.pop();
                stream.turn.place = Place::Bulk;
                self.bulk.push(id);
                continue;
            }
            let sent = send(id, stream);
            self.on_sent(is_fresh, stream, sent, now);
            return Some(id);
        }
    }

    /// Drops the ids of forgotten streams where they are many.
    pub(super) fn compact(&mut self, streams: &Streams) {
        for list in [&mut self.owing, &mut self.opening, &mut self.fresh, &mut self.bulk] {
            list.compact(streams);
        }
    }

    /// Whether no list names any stream.
    pub(super) fn is_idle(&self) -> bool {
        [&self.owing, &self.opening, &self.fresh, &self.bulk].iter().all(|list| list.ids.is_empty())
    }

    /// Fresh before bulk, but a flood of fresh streams does not stop bulk altogether.
    fn next_is_fresh(&self) -> bool {
        let has_bulk = self.bulk.front().is_some();
        self.fresh.front().is_some() && !(has_bulk && self.fresh_run >= FRESH_RUN)
    }

    /// The stream at the front sent `sent` bytes.
    fn on_sent(&mut self, is_fresh: bool, stream: &mut Stream, sent: usize, now: Instant) {
        let turn = &mut stream.turn;
        let list = if is_fresh {
            self.fresh_run = self.fresh_run.saturating_add(1);
            turn.fresh = turn.fresh.saturating_sub(sent);
            &mut self.fresh
        } else {
            self.fresh_run = 0;
            turn.deficit -= i64::try_from(sent).unwrap_or(i64::MAX);
            &mut self.bulk
        };
        if !stream.can_send() {
            list.pop();
            stream.turn.leave(stream.send.queue.is_empty(), now);
        } else if is_fresh {
            list.rotate();
        }
    }
}

impl Turn {
    /// Whether a stream in the fresh list may stay there. One that rested begins anew.
    fn is_fresh(&mut self, now: Instant) -> bool {
        if self.place == Place::Arrived {
            self.place = Place::Fresh;
            let rested = self.rested_since.take().map(|since| now.saturating_duration_since(since));
            if rested.is_some_and(|rested| rested >= FRESH_AFTER) {
                self.fresh = FRESH_BYTES;
            }
        }
        self.fresh > 0
    }

    /// Whether a stream in the bulk list may send in this round; if not, it is ready for the next.
    fn is_due(&mut self) -> bool {
        let is_due = self.deficit > 0;
        if !is_due {
            self.deficit += QUANTUM;
        }
        is_due
    }

    /// The stream leaves the lists, with nothing to send or without credit. Debts stay.
    fn leave(&mut self, is_empty: bool, now: Instant) {
        self.place = Place::Nowhere;
        self.deficit = self.deficit.min(0);
        self.rested_since = is_empty.then_some(now);
    }
}

/// What a stream may send ahead of the bulk ones: about TCP's initial window (RFC 6928).
const FRESH_BYTES: usize = 16 * 1024;

/// How long a stream must have had nothing to send to count as fresh again: longer than the gaps of
/// a bulk writer, shorter than those of a person (our choice).
const FRESH_AFTER: Duration = Duration::from_millis(100);

/// Fresh frames after which a bulk stream has its turn (our choice: 3 % for bulk at worst).
const FRESH_RUN: u32 = 32;

/// What a bulk stream may send in one round: about three full frames (our choice: few switches
/// between streams, and 100 streams take turns within 40 ms at 100 Mbit/s).
const QUANTUM: i64 = 4096;

/// Ids of forgotten streams that a list may hold in any case (our choice).
const COMPACT_SLACK: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::credit::Windows;
    use super::super::stream::Phase;
    use super::*;

    const FRAME: usize = 1300;

    #[expect(clippy::disallowed_methods, reason = "any start will do for a test's own clock")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Streams with endless credit, a schedule, and what each stream sent.
    struct Bench {
        streams: Streams,
        schedule: Schedule,
        now: Instant,
        last: StreamId,
    }

    impl Bench {
        fn new() -> Self {
            let (streams, schedule) = (Streams::new(), Schedule::default());
            Self { streams, schedule, now: start(), last: StreamId::first(true) }
        }

        fn add(&mut self, bytes: usize) -> StreamId {
            let target = "192.0.2.1:80".parse().unwrap();
            let mut stream = Stream::new(Phase::Open, target, &Windows::new(0, 0, 0), self.now);
            stream.send.credit.raise(u64::MAX).unwrap();
            let id = self.last;
            self.last = id.next().unwrap();
            self.streams.insert(id, Box::new(stream));
            self.write(id, bytes);
            id
        }

        fn write(&mut self, id: StreamId, bytes: usize) {
            let stream = self.streams.get_mut(&id).unwrap();
            stream.send.queue.push(&vec![0; bytes]);
            self.schedule.activate(id, stream);
        }

        /// One frame of at most `FRAME` bytes.
        fn serve(&mut self) -> Option<(StreamId, usize)> {
            self.serve_frame(|_| FRAME)
        }

        /// One frame of at most as many bytes as frames of its stream have.
        fn serve_frame(&mut self, size: impl Fn(StreamId) -> usize) -> Option<(StreamId, usize)> {
            let mut sent = 0;
            let id = self.schedule.serve(&mut self.streams, self.now, |id, stream| {
                sent = stream.send.queue.consume(size(id));
                sent
            })?;
            Some((id, sent))
        }

        fn serve_bytes(&mut self, total: usize) -> std::collections::BTreeMap<StreamId, usize> {
            let (mut left, mut shares) = (total, std::collections::BTreeMap::new());
            while left > 0 {
                let (id, sent) = self.serve().unwrap();
                *shares.entry(id).or_default() += sent;
                left = left.saturating_sub(sent);
            }
            shares
        }
    }

    #[test]
    fn bulk_streams_share_equally() {
        let mut bench = Bench::new();
        let ids: Vec<_> = (0..10).map(|_| bench.add(1 << 20)).collect();
        let shares = bench.serve_bytes(4 << 20);
        for id in ids {
            let share = shares[&id];
            assert!((400_000..440_000).contains(&share), "{share}");
        }
    }

    #[test]
    fn who_overdraws_its_turn_pays_in_the_next() {
        let mut bench = Bench::new();
        let (large, small) = (bench.add(4 << 20), bench.add(4 << 20));
        bench.serve_bytes(2 * FRESH_BYTES + 10_000);
        let mut shares = std::collections::BTreeMap::new();
        for _ in 0..600 {
            let size = |id| if id == large { 6000 } else { 1000 };
            let (id, sent) = bench.serve_frame(size).unwrap();
            *shares.entry(id).or_insert(0) += sent;
        }
        let (large, small) = (shares[&large], shares[&small]);
        assert!(large.abs_diff(small) < 12_000, "{large} and {small}");
    }

    #[test]
    fn who_leaves_in_its_turn_does_not_keep_the_rest_of_it() {
        let mut bench = Bench::new();
        let (one, _other) = (bench.add(FRESH_BYTES + 100_000), bench.add(1 << 20));
        while !bench.streams[&one].send.queue.is_empty() {
            bench.serve_frame(|_| 100).unwrap();
        }
        assert!(bench.serve_frame(|_| 100).is_some_and(|(id, _)| id != one));
        assert!(bench.streams[&one].turn.deficit <= 0, "{:?}", bench.streams[&one].turn);
    }

    #[test]
    fn a_small_stream_passes_bulk_at_once() {
        let mut bench = Bench::new();
        for _ in 0..100 {
            bench.add(1 << 20);
        }
        bench.serve_bytes(10 << 20);
        let small = bench.add(100);
        assert_eq!(bench.serve(), Some((small, 100)));
    }

    #[test]
    fn fresh_streams_take_turns() {
        let mut bench = Bench::new();
        let (first, second) = (bench.add(FRESH_BYTES), bench.add(FRESH_BYTES));
        let order: Vec<_> = (0..4).map(|_| bench.serve().unwrap().0).collect();
        assert_eq!(order, [first, second, first, second]);
    }

    #[test]
    fn a_stream_that_outgrew_its_freshness_takes_its_turn_among_bulk() {
        let mut bench = Bench::new();
        bench.add(1 << 20);
        bench.serve_bytes(100_000);
        let second = bench.add(1 << 20);
        let shares = bench.serve_bytes(FRESH_BYTES + 100_000);
        assert!(shares[&second] < FRESH_BYTES + 60_000, "{shares:?}");
        assert!(shares[&second] >= FRESH_BYTES + 40_000, "{shares:?}");
    }

    #[test]
    fn a_writer_that_keeps_draining_does_not_stay_fresh_but_one_that_rests_does() {
        let mut bench = Bench::new();
        bench.add(1 << 20);
        let other = bench.add(FRESH_BYTES);
        bench.serve_bytes(50_000);
        bench.write(other, 100);
        assert_ne!(bench.serve().unwrap().0, other);
        bench.serve_bytes(20_000);
        bench.now += FRESH_AFTER;
        bench.write(other, 100);
        assert_eq!(bench.serve(), Some((other, 100)));
    }

    #[test]
    fn a_flood_of_fresh_streams_does_not_stop_bulk() {
        let mut bench = Bench::new();
        let bulk = bench.add(1 << 20);
        bench.serve_bytes(50_000);
        let mut served = 0;
        for _ in 0..1000 {
            bench.add(100);
            served += usize::from(bench.serve().unwrap().0 == bulk);
        }
        assert!((25..40).contains(&served), "{served}");
    }

    #[test]
    fn idle_streams_are_in_no_list() {
        let mut bench = Bench::new();
        for _ in 0..1000 {
            bench.add(1);
        }
        bench.serve_bytes(1000);
        assert_eq!(bench.serve(), None);
        assert_eq!(bench.schedule.fresh.ids.len() + bench.schedule.bulk.ids.len(), 0);
    }

    #[test]
    fn lists_do_not_collect_forgotten_streams() {
        let mut bench = Bench::new();
        for _ in 0..10_000 {
            let id = bench.add(1);
            bench.streams.remove(&id);
            bench.schedule.compact(&bench.streams);
        }
        assert!(bench.schedule.fresh.ids.len() <= COMPACT_SLACK + 1);
    }
}
