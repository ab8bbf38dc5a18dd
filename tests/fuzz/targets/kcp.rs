//! KCP: against a peer that sends anything, and two of them over a path that loses, repeats and reorders.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use vpn::kcp::{
    Config, CongestionKind, HEADER_LEN, Kcp, Messages, Nodelay, Piece, Source, Stats, Stream, conversation,
};

use super::input::Input;
use super::start;

const CONV: u32 = 0x1122_3344;
const MSS: usize = 100;
const ROOM: usize = 3 * (MSS + HEADER_LEN);
/// Bytes that may wait to be sent.
const QUEUE: usize = 1 << 20;
/// The bit of the knobs that makes a stream of what is written.
const STREAM: u8 = 0x40;
/// The longest timeout; no round trip that takes longer is believed.
const MAX_RTO: Duration = Duration::from_secs(10);

/// `knobs u8`, then operations on one end: packets of its conversation and of none, reading, sending, time.
/// A packet that is none changes nothing but its counter, a segment that makes no sense neither; whatever comes, the
/// bounds hold, sending ends, and what is sent is KCP.
pub(crate) fn hostile(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let config = config(input.u8());
    let mut now = start();
    let (mut kcp, mut witness) = (Kcp::new(CONV, config, now), Kcp::new(CONV, config, now));
    let (mut source, mut longest) = (Messages::new(&config, QUEUE), 0);
    while let Some(operation) = input.operation() {
        match operation % 6 {
            number @ 0..=1 => {
                let packet =
                    if number == 0 { input.bytes().to_vec() } else { segments(&mut input, kcp.stats()) };
                longest = longest.max(packet.len().saturating_sub(HEADER_LEN));
                handle(&mut kcp, &packet, now);
            }
            2 => drop(source.push(&vec![0; usize::from(input.u16())])),
            3 => {
                kcp.poll_message();
            }
            4 => now += Duration::from_millis(u64::from(input.u16())),
            _ if input.bool() => kcp.on_path_restored(now),
            _ => kcp.on_datagram_sent(usize::from(input.u16()), now),
        }
        transmit(&mut kcp, &mut source, now, |packet| {
            assert_eq!(conversation(&packet), Some(CONV));
            witness.handle_packet(&packet, now).expect("what we send is KCP");
        });
        check(&kcp, &config, longest, now);
    }
}

fn handle(kcp: &mut Kcp, packet: &[u8], now: Instant) {
    let (before, timeout) = (kcp.stats(), kcp.poll_timeout());
    let outcome = kcp.handle_packet(packet, now);
    let after = kcp.stats();
    if outcome.is_err() {
        assert_eq!(after, Stats { malformed: before.malformed + 1, ..before });
        assert_eq!(kcp.poll_timeout(), timeout);
    } else if is_single(packet) && senseless(&after) > senseless(&before) {
        assert_eq!(senseless(&after), senseless(&before) + 1);
        assert_eq!(taken(after), taken(before));
    }
}

/// Whether a packet that is KCP holds one segment.
fn is_single(packet: &[u8]) -> bool {
    let length = packet[20..].first_chunk().map(|length| u32::from_le_bytes(*length));
    length.is_some_and(|length| length as usize == packet.len() - HEADER_LEN)
}

/// Segments that were refused because they make no sense.
fn senseless(stats: &Stats) -> u64 {
    stats.bad_una + stats.bad_acks + stats.outside_window
}

/// All but what counts packets and what was refused.
fn taken(stats: Stats) -> Stats {
    Stats { bad_una: 0, bad_acks: 0, outside_window: 0, received_bytes: 0, acks_received: 0, ..stats }
}

/// Up to four well-formed segments, numbered near what is right.
fn segments(input: &mut Input<'_>, stats: Stats) -> Vec<u8> {
    let mut packet = Vec::new();
    let una = u32::try_from(stats.sent).unwrap_or(0).wrapping_sub(stats.span);
    let next = u32::try_from(stats.received).unwrap_or(0);
    for _ in 0..=input.below(4) {
        let (command, frg, wnd) = (81 + input.u8() % 4, input.u8(), input.u16());
        let (ts, near) = (input.u32(), u32::from(input.u16()));
        let wild = input.u8() & 1 == 1;
        let base = if command == 82 { una } else { next };
        let sn = if wild { input.u32() } else { base.wrapping_add(near).wrapping_sub(4) };
        let acked = if wild { input.u32() } else { una.wrapping_add(u32::from(input.u8())) };
        let payload = if command == 81 { input.bytes() } else { &[] };
        packet.extend(segment([command, frg], wnd, [ts, sn, acked], payload));
    }
    packet
}

/// One segment of ikcp's format.
pub(crate) fn segment([command, frg]: [u8; 2], wnd: u16, [ts, sn, una]: [u32; 3], payload: &[u8]) -> Vec<u8> {
    segment_of(CONV, [command, frg], wnd, [ts, sn, una], payload)
}

/// The same, of any conversation.
pub(crate) fn segment_of(
    conv: u32,
    [command, frg]: [u8; 2],
    wnd: u16,
    [ts, sn, una]: [u32; 3],
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = conv.to_le_bytes().to_vec();
    bytes.extend([command, frg]);
    bytes.extend(wnd.to_le_bytes());
    for field in [ts, sn, una, u32::try_from(payload.len()).expect("a short payload")] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

fn transmit(kcp: &mut Kcp, source: &mut dyn Source, now: Instant, mut take: impl FnMut(Vec<u8>)) {
    for _ in 0..10_000 {
        let mut packet = Vec::new();
        if !kcp.poll_transmit(ROOM, source, &mut packet, now) {
            assert!(packet.is_empty());
            return;
        }
        assert!((HEADER_LEN..=ROOM).contains(&packet.len()));
        take(packet);
    }
    panic!("sending never ends: {:?}", kcp.stats());
}

/// `longest` bytes of payload had the longest segment so far, at most.
fn check(kcp: &Kcp, config: &Config, longest: usize, now: Instant) {
    let stats = kcp.stats();
    assert!(stats.span <= u32::from(config.send_window), "{stats:?}");
    let most = u64::from(stats.span) * (MSS + HEADER_LEN + config.overhead) as u64;
    assert!(stats.in_flight <= most, "{stats:?}");
    assert!(stats.payload_sent_bytes <= stats.sent * MSS as u64);
    assert!(kcp.poll_timeout().is_none_or(|at| at > now), "it spins: {stats:?}");
    assert!(stats.send_buffered < config.send_buffer + MSS, "{stats:?}");
    assert!(stats.receive_buffered <= config.receive_buffer + longest, "{stats:?}");
    assert!(stats.srtt.is_none_or(|srtt| srtt <= MAX_RTO), "{stats:?}");
    assert!((config.min_rto..=MAX_RTO).contains(&stats.rto), "{stats:?}");
}

/// `knobs u8`, then operations on two ends: data, packets that arrive, are lost, repeated or overtaken, time. Each end
/// reads exactly what the other wrote, message by message unless it is a stream, and at last all of it.
pub(crate) fn pair(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let knobs = input.u8();
    let config = config(knobs);
    let mut pair = Pair::new(config, knobs & STREAM != 0);
    while let Some(operation) = input.operation() {
        let end = usize::from(operation >> 7);
        match operation % 8 {
            0 | 1 => pair.sources[end].write(usize::from(input.u16() % 5000)),
            2 | 3 => pair.arrive(end, 0),
            4 => pair.arrive(end, usize::from(input.u8())),
            5 => drop(pair.lose(end, usize::from(input.u8()))),
            6 => pair.repeat(end, usize::from(input.u8())),
            _ => pair.now += Duration::from_millis(u64::from(input.u8())),
        }
        pair.transmit();
        pair.ends.iter().for_each(|end| check(end, &config, MSS, pair.now));
    }
    pair.conclude();
}

struct Pair {
    ends: [Kcp; 2],
    sources: [Written; 2],
    /// Bytes that each end has read.
    read: [u64; 2],
    /// Packets on their way to each end.
    wires: [Vec<Vec<u8>>; 2],
    now: Instant,
}

impl Pair {
    fn new(config: Config, stream: bool) -> Self {
        let now = start();
        Self {
            ends: [Kcp::new(CONV, config, now), Kcp::new(CONV, config, now)],
            sources: [Written::new(&config, stream), Written::new(&config, stream)],
            read: [0; 2],
            wires: Default::default(),
            now,
        }
    }

    fn transmit(&mut self) {
        for end in 0..2 {
            let wire = &mut self.wires[1 - end];
            transmit(&mut self.ends[end], &mut self.sources[end], self.now, |packet| wire.push(packet));
        }
    }

    fn lose(&mut self, end: usize, number: usize) -> Option<Vec<u8>> {
        let wire = &mut self.wires[end];
        (!wire.is_empty()).then(|| wire.remove(number % wire.len()))
    }

    fn arrive(&mut self, end: usize, number: usize) {
        let Some(packet) = self.lose(end, number) else { return };
        self.ends[end].handle_packet(&packet, self.now).expect("what the other end sends is KCP");
        while let Some(message) = self.ends[end].poll_message() {
            self.sources[1 - end].expect_message(message.len());
            for byte in message {
                assert_eq!(byte, pattern(self.read[end]), "at byte {} of end {end}", self.read[end]);
                self.read[end] += 1;
            }
        }
    }

    fn repeat(&mut self, end: usize, number: usize) {
        let wire = &mut self.wires[end];
        if let Some(packet) = (!wire.is_empty()).then(|| wire[number % wire.len()].clone()) {
            wire.push(packet);
        }
    }

    /// Without any further loss.
    fn conclude(&mut self) {
        for _ in 0..100_000 {
            while self.wires.iter().any(|wire| !wire.is_empty()) {
                (0..2).for_each(|end| self.arrive(end, 0));
                self.transmit();
            }
            let Some(next) = self.ends.iter().filter_map(Kcp::poll_timeout).min() else { break };
            self.now = next.max(self.now);
            self.transmit();
        }
        for end in 0..2 {
            let (read, written) = (self.read[end], self.sources[1 - end].written);
            assert_eq!(read, written, "{:?}", self.ends.each_ref().map(Kcp::stats));
        }
    }
}

/// What an end writes: every byte says where it stands.
struct Written {
    queue: Queue,
    /// Bytes written so far.
    written: u64,
    /// How long the messages are that were not read yet.
    lengths: VecDeque<usize>,
}

enum Queue {
    Messages(Messages),
    Stream(Stream),
}

impl Written {
    fn new(config: &Config, stream: bool) -> Self {
        let queue = if stream {
            Queue::Stream(Stream::new(QUEUE))
        } else {
            Queue::Messages(Messages::new(config, QUEUE))
        };
        Self { queue, written: 0, lengths: VecDeque::new() }
    }

    fn write(&mut self, length: usize) {
        let bytes: Vec<u8> = (self.written..).take(length).map(pattern).collect();
        let taken = match &mut self.queue {
            Queue::Messages(messages) => {
                let taken = messages.push(&bytes).is_ok();
                self.lengths.extend(taken.then_some(length));
                if taken { length } else { 0 }
            }
            Queue::Stream(stream) => stream.write(&bytes),
        };
        self.written += taken as u64;
    }

    /// Says that the other end has read a message of `length`.
    fn expect_message(&mut self, length: usize) {
        if matches!(self.queue, Queue::Messages(_)) {
            assert_eq!(Some(length), self.lengths.pop_front(), "the bounds of messages are kept");
        }
    }
}

impl Source for Written {
    fn peek(&self) -> Option<Piece> {
        match &self.queue {
            Queue::Messages(messages) => messages.peek(),
            Queue::Stream(stream) => stream.peek(),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        match &mut self.queue {
            Queue::Messages(messages) => messages.fill(buffer),
            Queue::Stream(stream) => stream.fill(buffer),
        }
    }
}

fn pattern(position: u64) -> u8 {
    u8::try_from((position % 251) ^ ((position / 251) & 0xff)).unwrap_or(0)
}

fn config(kind: u8) -> Config {
    let congestion = [CongestionKind::Bbr, CongestionKind::Loss, CongestionKind::None][usize::from(kind % 3)];
    Config {
        mss: MSS,
        send_window: 200,
        receive_window: 100,
        congestion,
        nodelay: [Nodelay::On, Nodelay::Off, Nodelay::Linear, Nodelay::On][usize::from(kind >> 2 & 3)],
        interval: Duration::from_millis(if kind & 0x80 == 0 { 0 } else { 20 }),
        fast_resend: u32::from(kind >> 4 & 7),
        fast_limit: 5,
        ack_repeats: kind & 3,
        min_rto: Duration::from_millis(30),
        dead_link: 20,
        overhead: 40,
        send_buffer: 10_000,
        receive_buffer: 8_000,
    }
}

pub(crate) fn hostile_seeds() -> Vec<Vec<u8>> {
    let send = [2, 0, 20];
    let raw = |packet: Vec<u8>| {
        let length = u16::try_from(packet.len()).expect("a short packet");
        [&[0], length.to_le_bytes().as_slice(), &packet].concat()
    };
    let near =
        |command: u8, near: u8| vec![1, 0, command, 0, 128, 0, 0, 0, 0, 0, near, 0, 0, 0, 3, 0, 7, 7, 7];
    let wait = [4, 40, 0];
    // Nobody reads: what comes out of order fills the buffer, then come those before it.
    let numbers = (10..15).chain(0..5);
    let filled = numbers.flat_map(|sn| raw(segment([81, 0], 128, [1, sn, 0], &[7; 1500])));
    let filled: Vec<u8> = [0x20].into_iter().chain(filled).collect();
    (0..3)
        .flat_map(|kind| {
            let begin = [kind | 0x20];
            [
                [&begin, raw(segment([81, 0], 128, [1, 0, 0], b"payload")).as_slice(), &[3]].concat(),
                [begin.as_slice(), &send, &near(1, 4), &near(1, 6), &wait, &near(1, 5)].concat(),
                [&begin, near(0, 4).as_slice(), &near(0, 6), &near(0, 5), &[3, 3, 3]].concat(),
                [begin.as_slice(), &send, &raw(segment([84, 0], 0, [0, 0, 0], b"")), &wait, &wait].concat(),
                [&begin, raw(segment([83, 3], 9, [0, 0, 0], b"")).as_slice(), &[5, 1, 5, 0, 0, 4]].concat(),
            ]
        })
        .chain([filled])
        .collect()
}

pub(crate) fn pair_seeds() -> Vec<Vec<u8>> {
    (0..3)
        .flat_map(|kind| {
            let calm = vec![kind, 0, 0, 8, 2, 0x82, 2, 0x82, 7, 20, 2, 0x82, 0x80, 9, 9, 2, 0x82];
            let rough = vec![
                kind | 0x20,
                0,
                0,
                16,
                5,
                0,
                0x85,
                1,
                4,
                3,
                0x84,
                2,
                6,
                0,
                0x86,
                0,
                7,
                200,
                0x80,
                200,
                200,
                5,
                0,
                7,
                255,
                4,
                9,
            ];
            [calm, rough]
        })
        .collect()
}
