//! Two ends coupled in memory: what each command and each frame does.

mod fairness;
mod hostile;
mod model;
mod overview;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::frame::{Frame, Writer};
use super::*;

/// Bytes of a full message, as a KCP segment of a 1400-byte packet leaves them.
const MESSAGE: usize = 1300;

/// Two coupled ends under a virtual clock, the client's index 0 and the server's 1.
struct Pair {
    ends: [Mux; 2],
    now: Instant,
}

impl Pair {
    fn new(limits: Limits) -> Self {
        Self { ends: [Mux::new(Role::Client, limits), Mux::new(Role::Server, limits)], now: start() }
    }

    /// Moves one message from end `from` to the other; false when there was none.
    fn step(&mut self, from: usize) -> bool {
        let mut buffer = [0; MESSAGE];
        let len = self.ends[from].fill(&mut buffer, self.now);
        self.ends[1 - from].handle_message(&buffer[..len], self.now).unwrap();
        len > 0
    }

    /// Moves messages until neither end has any.
    fn settle(&mut self) {
        while self.step(0) | self.step(1) {}
    }

    fn events(&mut self, end: usize) -> Vec<Event> {
        std::iter::from_fn(|| self.ends[end].poll_event()).collect()
    }

    fn read_all(&mut self, end: usize, id: StreamId) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let bytes = self.ends[end].readable(id).to_vec();
            if bytes.is_empty() {
                return all;
            }
            self.ends[end].consume(id, bytes.len(), self.now);
            all.extend(bytes);
        }
    }

    /// A stream that both ends agreed on, opened by the client.
    fn connect(&mut self) -> StreamId {
        let id = self.ends[0].open(target(), self.now).unwrap();
        self.settle();
        self.ends[1].accept(id);
        self.settle();
        assert!(self.events(0).contains(&Event::Opened { id }));
        assert!(self.events(1).is_empty());
        id
    }
}

#[expect(clippy::disallowed_methods, reason = "any start will do for a test's own clock")]
fn start() -> Instant {
    Instant::now()
}

fn target() -> SocketAddr {
    "203.0.113.9:443".parse().unwrap()
}

fn id(id: u32) -> StreamId {
    StreamId::new(id).unwrap()
}

/// A message of these frames.
fn message(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut buffer = vec![0; 100_000];
    let mut out = Writer::new(&mut buffer);
    assert!(frames.iter().all(|frame| out.put(*frame)));
    let len = out.len();
    buffer.truncate(len);
    buffer
}

/// The frames an end wants to send in one message.
fn sent_by(mux: &mut Mux) -> Vec<String> {
    let mut buffer = [0; MESSAGE];
    let len = mux.fill(&mut buffer, start());
    let (mut rest, mut frames) = (&buffer[..len], Vec::new());
    while !rest.is_empty() {
        let frame = Frame::decode(&mut rest).unwrap();
        frames.push(if let Frame::Data { id, bytes } = frame {
            format!("Data {id} {}", bytes.len())
        } else {
            format!("{frame:?}")
        });
    }
    frames
}

fn small_limits() -> Limits {
    Limits { streams: 10, session_buffer: 1 << 20, ..Limits::default() }
}

#[test]
fn carries_bytes_both_ways_and_closes_each_way_on_its_own() {
    let mut pair = Pair::new(Limits::default());
    let stream = pair.ends[0].open(target(), pair.now).unwrap();
    pair.settle();
    assert_eq!(pair.events(1), [Event::Open { id: stream, target: target() }]);
    assert_eq!(pair.events(0), []);
    pair.ends[1].accept(stream);
    pair.settle();
    assert_eq!(pair.events(0), [Event::Opened { id: stream }]);

    assert_eq!(pair.ends[0].write(stream, b"request"), 7);
    pair.ends[0].finish(stream);
    assert_eq!(pair.ends[0].write(stream, b"more"), 0);
    pair.settle();
    assert_eq!(pair.events(1), [Event::Readable { id: stream }]);
    assert_eq!(pair.read_all(1, stream), b"request");
    assert_eq!(pair.events(1), [Event::Finished { id: stream }]);

    for _ in 0..3 {
        assert_eq!(pair.ends[1].write(stream, b"answer"), 6);
        pair.settle();
        assert_eq!(pair.read_all(0, stream), b"answer");
    }
    assert_eq!((pair.ends[0].stats().streams, pair.ends[1].stats().streams), (1, 1));
    pair.ends[1].finish(stream);
    pair.settle();
    assert_eq!(pair.events(0), [Event::Readable { id: stream }, Event::Finished { id: stream }]);
    assert_eq!((pair.ends[0].stats().streams, pair.ends[1].stats().streams), (0, 0));
}

#[test]
fn tells_the_end_only_after_the_last_byte_was_read() {
    let mut pair = Pair::new(Limits::default());
    let stream = pair.connect();
    pair.ends[0].write(stream, &[1; 100]);
    pair.ends[0].finish(stream);
    pair.settle();
    assert_eq!(pair.events(1), [Event::Readable { id: stream }]);
    pair.ends[1].consume(stream, 99, pair.now);
    assert_eq!(pair.events(1), []);
    pair.ends[1].consume(stream, 1, pair.now);
    assert_eq!(pair.events(1), [Event::Finished { id: stream }]);
}

#[test]
fn a_refusal_carries_its_reason() {
    for code in [ResetCode::Refused, ResetCode::NetUnreachable, ResetCode::Timeout] {
        let mut pair = Pair::new(Limits::default());
        let stream = pair.ends[0].open(target(), pair.now).unwrap();
        pair.settle();
        pair.ends[1].reset(stream, code);
        pair.settle();
        assert_eq!(pair.events(0), [Event::Reset { id: stream, code }]);
        assert_eq!((pair.ends[0].stats().streams, pair.ends[1].stats().streams), (0, 0));
    }
}

#[test]
fn bytes_may_travel_with_the_open_and_are_told_after_it_is_accepted() {
    let mut pair = Pair::new(Limits::default());
    let stream = pair.ends[0].open(target(), pair.now).unwrap();
    pair.ends[0].write(stream, b"hello");
    pair.ends[0].finish(stream);
    assert!(pair.step(0));
    assert!(!pair.step(0));
    assert_eq!(pair.events(1), [Event::Open { id: stream, target: target() }]);
    assert_eq!(pair.ends[1].write(stream, b"too early"), 0);
    pair.ends[1].accept(stream);
    assert_eq!(pair.events(1), [Event::Readable { id: stream }]);
    assert_eq!(pair.read_all(1, stream), b"hello");
    assert_eq!(pair.events(1), [Event::Finished { id: stream }]);
}

#[test]
fn opened_leaves_before_the_first_byte_of_the_answer() {
    let mut pair = Pair::new(Limits::default());
    let stream = pair.ends[0].open(target(), pair.now).unwrap();
    pair.settle();
    pair.ends[1].accept(stream);
    pair.ends[1].write(stream, b"hi");
    pair.ends[1].finish(stream);
    assert_eq!(sent_by(&mut pair.ends[1]), ["Opened(StreamId(1))", "Data 1 2", "Fin(StreamId(1))"]);
}

#[test]
fn control_leaves_before_open_and_open_before_data() {
    let mut pair = Pair::new(Limits::default());
    let (bulk, doomed) = (pair.connect(), pair.connect());
    pair.ends[0].write(bulk, &[0; 10_000]);
    let new = pair.ends[0].open(target(), pair.now).unwrap();
    pair.ends[0].write(new, b"x");
    pair.ends[0].reset(doomed, ResetCode::Reset);
    pair.ends[0].handle_message(&message(&[Frame::Ping(7)]), pair.now).unwrap();
    pair.ends[0].go_away();
    let frames = sent_by(&mut pair.ends[0]);
    assert_eq!(frames[..2], ["GoAway", "Pong(7)"]);
    assert_eq!(frames[2], format!("Reset {{ id: {doomed:?}, code: Reset }}"));
    assert!(frames[3].starts_with("Open {"), "{frames:?}");
}

#[test]
fn bulk_data_fills_the_buffer_to_the_last_byte() {
    let mut pair = Pair::new(Limits::default());
    let stream = pair.connect();
    pair.ends[0].write(stream, &[0; 10_000]);
    let mut buffer = [0; MESSAGE];
    assert_eq!(pair.ends[0].fill(&mut buffer, pair.now), MESSAGE);
}

#[test]
fn a_full_buffer_takes_nothing_and_tells_once_when_a_quarter_is_free() {
    let limits = Limits { send_buffer: 40_000, ..Limits::default() };
    let mut pair = Pair::new(limits);
    let stream = pair.connect();
    assert_eq!(pair.ends[0].write(stream, &[0; 50_000]), 40_000);
    assert_eq!(pair.ends[0].write_room(stream), 0);
    assert_eq!(pair.ends[0].write(stream, &[0]), 0);
    let mut told_at = Vec::new();
    while pair.step(0) {
        if pair.events(0).contains(&Event::Writable { id: stream }) {
            told_at.push(pair.ends[0].write_room(stream));
        }
    }
    assert_eq!(told_at.len(), 1);
    assert!((10_000..10_000 + MESSAGE).contains(&told_at[0]), "{told_at:?}");
}

#[test]
fn a_write_that_fills_the_buffer_or_a_look_at_a_full_one_is_followed_by_an_event() {
    let limits = Limits { send_buffer: 40_000, ..Limits::default() };
    let mut pair = Pair::new(limits);
    let stream = pair.connect();
    assert_eq!(pair.ends[0].write(stream, &[0; 40_000]), 40_000);
    pair.settle();
    assert_eq!(pair.events(0), [Event::Writable { id: stream }]);
    pair.ends[0].write(stream, &[0; 40_000]);
    pair.settle();
    pair.events(0);
    // What is left of the credit has been sent; the rest waits for the reader.
    while pair.ends[0].write(stream, &[0; 40_000]) > 0 {}
    pair.ends[0].streams.get_mut(&stream).unwrap().send.is_awaited = false;
    assert_eq!(pair.ends[0].write_room(stream), 0);
    pair.read_all(1, stream);
    pair.settle();
    assert_eq!(pair.events(0), [Event::Writable { id: stream }]);
}

#[test]
fn a_stream_that_both_ends_finished_needs_no_reset() {
    let mut pair = Pair::new(Limits::default());
    let stream = pair.connect();
    pair.ends[1].write(stream, b"never read");
    pair.ends[0].finish(stream);
    pair.ends[1].finish(stream);
    pair.settle();
    pair.ends[0].reset(stream, ResetCode::Reset);
    assert_eq!(sent_by(&mut pair.ends[0]), [""; 0]);
    assert_eq!(pair.ends[0].stats().streams, 0);
}

#[test]
fn a_write_that_leaves_room_is_followed_by_no_event() {
    let mut pair = Pair::new(Limits::default());
    let stream = pair.connect();
    pair.ends[0].write(stream, &[0; 50_000]);
    pair.settle();
    assert_eq!(pair.events(0), []);
}

#[test]
fn a_reset_discards_what_is_unsent_and_frames_that_cross_it_are_ignored() {
    let mut pair = Pair::new(Limits::default());
    let stream = pair.connect();
    pair.ends[0].write(stream, &[0; 50_000]);
    pair.ends[1].write(stream, &[0; 5_000]);
    pair.ends[0].reset(stream, ResetCode::Reset);
    assert_eq!(pair.ends[0].stats().send_buffered, 0);
    assert!(pair.step(1));
    assert!(pair.ends[0].stats().frames_for_closed > 0);
    pair.settle();
    assert_eq!(pair.events(1), [Event::Reset { id: stream, code: ResetCode::Reset }]);
    assert_eq!(pair.events(0), []);
    assert_eq!(pair.ends[1].stats(), Stats { streams: 0, send_buffered: 0, ..pair.ends[1].stats() });
}

#[test]
fn a_stream_reset_before_its_open_left_is_never_mentioned() {
    let mut pair = Pair::new(Limits::default());
    let first = pair.ends[0].open(target(), pair.now).unwrap();
    let second = pair.ends[0].open(target(), pair.now).unwrap();
    pair.ends[0].reset(first, ResetCode::Reset);
    pair.settle();
    assert_eq!(pair.events(1), [Event::Open { id: second, target: target() }]);
}

#[test]
fn what_arrived_before_a_reset_can_be_read_until_the_event_is_polled() {
    let mut pair = Pair::new(Limits::default());
    let stream = pair.connect();
    pair.ends[0].write(stream, b"last words");
    pair.settle();
    pair.ends[0].reset(stream, ResetCode::Reset);
    pair.settle();
    assert_eq!(pair.ends[1].poll_event(), Some(Event::Readable { id: stream }));
    assert_eq!(pair.ends[1].readable(stream), b"last words");
    assert_eq!(pair.ends[1].poll_event(), Some(Event::Reset { id: stream, code: ResetCode::Reset }));
    assert_eq!(pair.ends[1].readable(stream), b"");
}

#[test]
fn both_ends_open_streams_of_their_own_parity() {
    let mut pair = Pair::new(Limits::default());
    let odd: Vec<u32> = (0..3).map(|_| pair.ends[0].open(target(), pair.now).unwrap().into()).collect();
    let even: Vec<u32> = (0..3).map(|_| pair.ends[1].open(target(), pair.now).unwrap().into()).collect();
    assert_eq!((odd, even), (vec![1, 3, 5], vec![2, 4, 6]));
    pair.settle();
    assert_eq!((pair.events(0).len(), pair.events(1).len()), (3, 3));
}

#[test]
fn more_streams_than_the_bound_are_refused_at_both_ends() {
    let mut pair = Pair::new(Limits::default());
    pair.ends[1] = Mux::new(Role::Server, small_limits());
    let ids: Vec<_> = (0..15).map(|_| pair.ends[0].open(target(), pair.now).unwrap()).collect();
    pair.settle();
    assert_eq!(pair.events(1).len(), 10);
    let code = ResetCode::Limit;
    let refused: Vec<_> = ids[10..].iter().map(|id| Event::Reset { id: *id, code }).collect();
    assert_eq!(pair.events(0), refused);
    assert_eq!(pair.ends[1].stats().refused_opens, 5);
    assert_eq!(pair.ends[1].open(target(), pair.now), Err(TooManyStreams));
}

#[test]
fn bytes_beyond_the_sessions_bound_reset_their_own_stream() {
    let mut pair = Pair::new(Limits::default());
    pair.ends[1] = Mux::new(Role::Server, Limits { session_buffer: 140_000, ..small_limits() });
    let (first, second) = (pair.connect(), pair.connect());
    pair.ends[0].write(first, &[0; 60_000]);
    pair.settle();
    pair.ends[0].write(second, &[0; 60_000]);
    pair.settle();
    let reset = Event::Reset { id: second, code: ResetCode::Limit };
    assert_eq!(pair.events(0), [reset]);
    assert_eq!(pair.events(1), [Event::Readable { id: first }, reset]);
    let stats = pair.ends[1].stats();
    assert_eq!((stats.over_budget, stats.receive_buffered), (1, 60_000));
}

#[test]
fn nobody_opens_streams_after_a_goaway() {
    let mut pair = Pair::new(Limits::default());
    let open = pair.connect();
    let crossing = pair.ends[0].open(target(), pair.now).unwrap();
    pair.ends[1].go_away();
    pair.settle();
    let refused = Event::Reset { id: crossing, code: ResetCode::Limit };
    assert_eq!(pair.events(0), [Event::GoAway, refused]);
    assert_eq!(pair.ends[0].open(target(), pair.now), Err(TooManyStreams));
    assert_eq!(pair.ends[1].open(target(), pair.now), Err(TooManyStreams));
    pair.ends[0].write(open, b"still here");
    pair.settle();
    assert_eq!(pair.read_all(1, open), b"still here");
}

#[test]
fn a_larger_first_window_is_granted_with_the_open() {
    let limits = Limits { receive_window_initial: 200_000, ..Limits::default() };
    let mut pair = Pair::new(limits);
    let stream = pair.connect();
    assert_eq!(pair.ends[0].write(stream, &[0; 200_000]), 200_000);
    pair.settle();
    assert_eq!(pair.ends[1].stats().receive_buffered, 200_000);
    pair.ends[0].write(stream, &[0]);
    assert!(!pair.step(0));
}

#[test]
fn unknown_ids_do_nothing() {
    let mut mux = Mux::new(Role::Client, Limits::default());
    let id = id(99);
    mux.accept(id);
    mux.finish(id);
    mux.consume(id, 10, start());
    mux.reset(id, ResetCode::Reset);
    assert_eq!((mux.write(id, b"x"), mux.write_room(id), mux.readable(id)), (0, 0, &b""[..]));
    assert_eq!(mux.fill(&mut [0; MESSAGE], start()), 0);
    assert_eq!(mux.poll_event(), None);
}

#[test]
fn the_window_grows_until_it_carries_the_path() {
    // 100 ms of round trip: a fixed window of 64 KiB carries 640 KiB/s.
    let mut pair = Pair::new(Limits::default());
    let stream = pair.connect();
    pair.ends[1].set_rtt(Duration::from_millis(100));
    pair.ends[0].write(stream, &[0; 100_000]);
    let mut received = 0;
    for _ in 0..30 {
        while pair.step(0) {
            pair.ends[0].write(stream, &[0; 16_384]);
        }
        pair.now += Duration::from_millis(50);
        received += pair.read_all(1, stream).len();
        pair.now += Duration::from_millis(50);
        while pair.step(1) {}
    }
    assert!(received > 100 << 20, "{received}");
}

#[test]
fn an_abort_lets_the_bytes_before_it_arrive() {
    let mut pair = Pair::new(Limits::default());
    let id = pair.connect();
    pair.events(1);
    assert_eq!(pair.ends[0].write(id, &[7; 5_000]), 5_000);
    pair.ends[0].abort(id, ResetCode::Reset);
    assert_eq!(pair.ends[0].write(id, &[8]), 0);
    pair.settle();
    assert_eq!(pair.ends[1].poll_event(), Some(Event::Readable { id }));
    assert_eq!(pair.read_all(1, id), [7; 5_000]);
    assert_eq!(pair.ends[1].poll_event(), Some(Event::Reset { id, code: ResetCode::Reset }));
    assert_eq!((pair.ends[0].stats().streams, pair.ends[0].stats().send_buffered), (0, 0));
}

#[test]
fn an_abort_does_not_wait_for_a_reader_that_stopped() {
    let mut pair = Pair::new(Limits::default());
    let id = pair.connect();
    pair.events(1);
    let written = pair.ends[0].write(id, &[7; 200_000]);
    pair.settle();
    pair.ends[0].abort(id, ResetCode::Reset);
    pair.settle();
    let events = pair.events(1);
    assert_eq!(events.last(), Some(&Event::Reset { id, code: ResetCode::Reset }), "{written} bytes");
    assert_eq!(pair.ends[0].stats().send_buffered, 0);
}
