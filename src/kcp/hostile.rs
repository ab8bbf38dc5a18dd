//! A peer that sends anything: what makes no sense is counted and changes nothing, and every bound holds.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{
    Config, CongestionKind, HEADER_LEN, Kcp, Malformed, Messages, Nodelay, Source, Stats, Stream,
    acks::MOST_ACKS,
    segment::{Command, Header, distance, split},
    tests::{ms, start},
};

const MSS: usize = 100;
const FULL: usize = MSS + HEADER_LEN;
const WINDOW: u16 = 64;
const BUFFER: usize = 5000;

fn config() -> Config {
    Config {
        mss: MSS,
        send_window: WINDOW,
        receive_window: WINDOW,
        send_buffer: BUFFER,
        receive_buffer: BUFFER,
        ..Config::ikcp().with_knobs(Nodelay::On, Duration::ZERO, 2, true)
    }
}

const HEADER: Header = Header { conv: 7, command: Command::Push, frg: 0, wnd: 128, ts: 0, sn: 0, una: 0 };

fn segment(header: Header, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    [&header.encode(len), payload].concat()
}

fn command(command: Command) -> Header {
    Header { command, ..HEADER }
}

/// An end that has sent `count` full segments and heard nothing.
fn sender(count: usize, now: Instant) -> Kcp {
    let mut kcp = Kcp::new(7, config(), now);
    let mut source = Stream::new(1 << 20);
    source.write(&vec![0; count * MSS]);
    transmit(&mut kcp, &mut source, now);
    assert_eq!(usize::try_from(kcp.stats().span).unwrap(), count);
    kcp
}

fn transmit(kcp: &mut Kcp, source: &mut dyn Source, now: Instant) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    loop {
        let mut packet = Vec::new();
        if !kcp.poll_transmit(2 * FULL, source, &mut packet, now) {
            return packets;
        }
        packets.push(packet);
        assert!(packets.len() < 10_000, "sending never ends");
    }
}

/// All that a peer can change, but for counters and the pacer's clock.
fn insides(kcp: &Kcp) -> String {
    let receiver = (kcp.receiver.una(), kcp.receiver.window(), kcp.receiver.buffered());
    format!("{:?} {receiver:?} {:?} {:?} {:?}", kcp.sender, kcp.acks, kcp.probe, kcp.peer_window)
}

/// The counters without those of what was refused.
fn accepted(stats: Stats) -> Stats {
    Stats { bad_una: 0, bad_acks: 0, outside_window: 0, received_bytes: 0, acks_received: 0, ..stats }
}

fn refused(stats: &Stats) -> [u64; 3] {
    [stats.bad_una, stats.bad_acks, stats.outside_window]
}

/// Hands over a packet that is to be refused, and says which of its counters grew.
fn refuse(kcp: &mut Kcp, packet: &[u8], now: Instant) -> [u64; 3] {
    let (before, inside) = (kcp.stats(), insides(kcp));
    kcp.handle_packet(packet, now).unwrap();
    let after = kcp.stats();
    assert_eq!(accepted(after), accepted(before));
    assert_eq!(insides(kcp), inside);
    [0, 1, 2].map(|counter| refused(&after)[counter] - refused(&before)[counter])
}

#[test]
fn a_packet_of_which_any_part_is_malformed_changes_nothing() {
    let now = start();
    let mut kcp = sender(4, now);
    let good = segment(Header { una: 2, wnd: 9, ..command(Command::Ack) }, b"");
    let mut foreign = good.clone();
    foreign[0] ^= 1;
    let mut unknown = good.clone();
    unknown[4] = 80;
    let beyond = HEADER.encode(1).to_vec();
    let huge = HEADER.encode(u32::MAX).to_vec();
    let inside = insides(&kcp);
    for (count, (bad, error)) in [
        (foreign, Malformed::Conversation),
        (unknown, Malformed::Command),
        (beyond, Malformed::Length),
        (huge, Malformed::Length),
        (good[..23].to_vec(), Malformed::Truncated),
        (good[..1].to_vec(), Malformed::Truncated),
    ]
    .into_iter()
    .enumerate()
    {
        let packet = [&good, &bad[..]].concat();
        let before = kcp.stats();
        assert_eq!(kcp.handle_packet(&packet, now), Err(error));
        assert_eq!(kcp.stats(), Stats { malformed: before.malformed + 1, ..before }, "{count}");
        assert_eq!(insides(&kcp), inside);
    }
    assert_eq!(kcp.handle_packet(&[], now), Err(Malformed::Truncated));
}

#[test]
fn a_segment_that_makes_no_sense_changes_nothing_not_even_by_its_una_and_window() {
    let now = start();
    let mut kcp = sender(4, now);
    let wild = Header { wnd: 0, una: 2, ..HEADER };
    for (bad, counted) in [
        (Header { una: 5, ..wild }, [1, 0, 0]),
        (Header { una: 1 << 31, ..wild }, [1, 0, 0]),
        (Header { una: 5, command: Command::Tell, ..wild }, [1, 0, 0]),
        (Header { una: u32::MAX / 2, command: Command::Ask, ..wild }, [1, 0, 0]),
        (Header { una: 5, command: Command::Ack, ..wild }, [1, 0, 0]),
        // Acks of what was never sent, and of copies that never were.
        (Header { sn: 4, command: Command::Ack, ..wild }, [0, 1, 0]),
        (Header { sn: 1 << 31, command: Command::Ack, ..wild }, [0, 1, 0]),
        (Header { ts: 1, command: Command::Ack, ..wild }, [0, 1, 0]),
        (Header { ts: u32::MAX, command: Command::Ack, ..wild }, [0, 1, 0]),
        (Header { sn: u32::from(WINDOW), ..wild }, [0, 0, 1]),
        (Header { sn: u32::MAX / 2, ..wild }, [0, 0, 1]),
    ] {
        assert_eq!(refuse(&mut kcp, &segment(bad, b""), now), counted, "{bad:?}");
    }
}

#[test]
fn acks_that_come_again_and_again_change_nothing() {
    let now = start();
    let mut kcp = sender(4, now);
    let ack = segment(Header { sn: 2, ..command(Command::Ack) }, b"");
    kcp.handle_packet(&ack, now + ms(10)).unwrap();
    let (inside, before) = (insides(&kcp), accepted(kcp.stats()));
    for _ in 0..1000 {
        kcp.handle_packet(&ack.repeat(50), now + ms(20)).unwrap();
    }
    assert_eq!((insides(&kcp), accepted(kcp.stats())), (inside, before));
    assert_eq!(kcp.stats().acks_received, 50_001);
}

#[test]
fn acks_beside_a_una_that_covers_them_still_measure_and_count_once() {
    let now = start();
    let mut kcp = sender(4, now);
    let acks: Vec<u8> =
        (0..4).flat_map(|sn| segment(Header { sn, una: 4, ..command(Command::Ack) }, b"")).collect();
    kcp.handle_packet(&acks, now + ms(70)).unwrap();
    let stats = kcp.stats();
    assert_eq!((stats.srtt, stats.span, stats.in_flight), (Some(ms(70)), 0, 0));
    assert_eq!((stats.bad_acks, stats.spurious, stats.lost), (0, 0, 0));
}

#[test]
fn a_peer_that_flaps_its_window_makes_us_neither_ask_nor_send_more_than_the_window() {
    let mut now = start();
    let mut kcp = Kcp::new(7, config(), now);
    let mut source = Stream::new(1 << 20);
    source.write(&vec![0; 1 << 20]);
    let mut asks = 0;
    for step in 0..20_000 {
        let wnd = if step % 2 == 0 { 0 } else { u16::MAX };
        kcp.handle_packet(&segment(Header { wnd, ..command(Command::Tell) }, b""), now).unwrap();
        for packet in transmit(&mut kcp, &mut source, now) {
            let (header, ..) = split(&packet, 7).unwrap();
            asks += usize::from(header.command == Command::Ask);
        }
        now += ms(1);
    }
    let stats = kcp.stats();
    // Not the window, but the bound in bytes stops it.
    assert_eq!((asks, stats.sent), (0, u64::try_from(BUFFER / MSS).unwrap()));
    assert!(stats.retransmitted < 100, "{stats:?}");
}

#[test]
fn a_peer_that_closes_its_window_for_ever_is_asked_every_twenty_seconds() {
    let mut now = start();
    let mut kcp = Kcp::new(7, config(), now);
    let mut source = Stream::new(1000);
    source.write(b"waits");
    kcp.handle_packet(&segment(Header { wnd: 0, ..command(Command::Tell) }, b""), now).unwrap();
    let mut packets = 0;
    let end = now + Duration::from_secs(3600);
    while now < end {
        packets += transmit(&mut kcp, &mut source, now).len();
        now = kcp.poll_timeout().unwrap();
    }
    assert!((180..200).contains(&packets), "{packets}");
}

#[test]
fn empty_segments_fill_the_window_and_no_more() {
    let now = start();
    let mut kcp = Kcp::new(7, config(), now);
    for sn in 0..10_000 {
        kcp.handle_packet(&segment(Header { sn, ..HEADER }, b""), now).unwrap();
    }
    let stats = kcp.stats();
    assert_eq!((stats.received, stats.receive_buffered), (u64::from(WINDOW), 0));
    assert_eq!(std::iter::from_fn(|| kcp.poll_message()).count(), usize::from(WINDOW));
}

#[test]
fn fragments_that_never_end_are_dropped_and_the_window_stays_open() {
    let now = start();
    for frg in [1, 63, 64, 255] {
        let mut kcp = Kcp::new(7, config(), now);
        for sn in 0..10_000 {
            kcp.handle_packet(&segment(Header { sn, frg, ..HEADER }, &[0; 90]), now).unwrap();
            let stats = kcp.stats();
            assert!(stats.receive_buffered <= BUFFER, "{stats:?}");
            assert_eq!((stats.received, kcp.poll_message()), (u64::from(sn) + 1, None), "{frg}");
        }
        assert!(kcp.stats().unassembled > 9_900, "{:?}", kcp.stats());
        let whole = segment(Header { sn: 10_000, ..HEADER }, b"a whole one");
        kcp.handle_packet(&whole, now).unwrap();
        kcp.handle_packet(&segment(Header { sn: 10_001, ..HEADER }, b"another"), now).unwrap();
        assert_eq!(std::iter::from_fn(|| kcp.poll_message()).last(), Some(b"another".to_vec()), "{frg}");
    }
}

#[test]
fn a_time_stamp_of_the_future_is_echoed_and_otherwise_ignored() {
    let now = start();
    let mut kcp = Kcp::new(7, config(), now);
    kcp.handle_packet(&segment(Header { ts: u32::MAX, ..HEADER }, b"x"), now).unwrap();
    let acks = transmit(&mut kcp, &mut Stream::new(0), now);
    let (header, ..) = split(&acks[0], 7).unwrap();
    assert_eq!((header.command, header.sn, header.ts), (Command::Ack, 0, u32::MAX));
    assert_eq!((kcp.poll_timeout(), kcp.stats().srtt), (None, None));
}

#[test]
fn asks_and_repeated_data_are_answered_once_for_each_time_we_send() {
    let now = start();
    let mut kcp = Kcp::new(7, config(), now);
    let ask = segment(command(Command::Ask), b"");
    for _ in 0..50_000 {
        kcp.handle_packet(&ask, now).unwrap();
        kcp.handle_packet(&segment(HEADER, b"x"), now).unwrap();
    }
    let sent: usize = transmit(&mut kcp, &mut Stream::new(0), now).iter().map(Vec::len).sum();
    assert!(sent <= (MOST_ACKS + 1) * HEADER_LEN, "{sent} bytes");
    assert_eq!(kcp.stats().acks_dropped, 50_000 - u64::try_from(MOST_ACKS).unwrap());
}

/// What a hostile peer and a careless owner may do.
#[derive(Debug, Clone)]
enum Step {
    Bytes(Vec<u8>),
    Packet(Vec<Wild>),
    Message(u16),
    Transmit(u16),
    Wait(u32),
    Read,
    Restored,
    Beside(u16),
}

/// A segment whose numbers stand near what is right, or nowhere.
#[derive(Debug, Clone)]
struct Wild {
    command: Command,
    frg: u8,
    wnd: u16,
    ts: Number,
    sn: Number,
    una: Number,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
enum Number {
    Near(i8),
    Any(u32),
}

impl Number {
    fn near(self, base: u32) -> u32 {
        match self {
            Self::Near(offset) => base.wrapping_add_signed(i32::from(offset)),
            Self::Any(number) => number,
        }
    }
}

impl Wild {
    fn header(&self, kcp: &Kcp, now: Instant) -> Header {
        let (una, next) = (kcp.sender.ring().una(), kcp.receiver.una());
        let base = if self.command == Command::Ack { una } else { next };
        // What it echoes is often right, so that acks are taken as well.
        let sn = self.sn.near(base);
        let echo = kcp.sender.ring().get(sn).map_or(kcp.clock(now), |sent| sent.departure.ts);
        Header {
            conv: 7,
            command: self.command,
            frg: self.frg,
            wnd: self.wnd,
            ts: self.ts.near(echo),
            sn,
            una: self.una.near(una),
        }
    }
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        4 => Just(Number::Near(0)),
        4 => (-3..8i8).prop_map(Number::Near),
        1 => any::<i8>().prop_map(Number::Near),
        1 => any::<u32>().prop_map(Number::Any),
    ]
}

fn wild() -> impl Strategy<Value = Wild> {
    let command = prop_oneof![
        4 => Just(Command::Push), 4 => Just(Command::Ack), 1 => Just(Command::Ask), 1 => Just(Command::Tell)
    ];
    let frg = prop_oneof![4 => Just(0), 2 => 0..4u8, 1 => any::<u8>()];
    let wnd = prop_oneof![1 => Just(0), 2 => 0..10u16, 2 => any::<u16>()];
    let len = prop_oneof![Just(0), 0..40usize, 0..2 * MSS];
    (command, frg, wnd, number(), number(), number(), len)
        .prop_map(|(command, frg, wnd, ts, sn, una, len)| Wild { command, frg, wnd, ts, sn, una, len })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Step::Bytes),
        8 => prop::collection::vec(wild(), 1..2).prop_map(Step::Packet),
        4 => prop::collection::vec(wild(), 2..5).prop_map(Step::Packet),
        3 => (0..1000u16).prop_map(Step::Message),
        4 => (124..500u16).prop_map(Step::Transmit),
        3 => (0..2_000_000u32).prop_map(Step::Wait),
        2 => Just(Step::Read),
        1 => Just(Step::Restored),
        1 => any::<u16>().prop_map(Step::Beside),
    ]
}

/// What makes no sense whatever was sent before, and the counter that says so.
fn senseless(kcp: &Kcp, header: &Header) -> Option<[u64; 3]> {
    let never_sent = |sn| distance(sn, kcp.sender.ring().next()) >= 0;
    let beyond = distance(header.sn, kcp.receiver.una()) >= i32::from(WINDOW);
    if distance(header.una, kcp.sender.ring().next()) > 0 {
        Some([1, 0, 0])
    } else if header.command == Command::Ack && never_sent(header.sn) {
        Some([0, 1, 0])
    } else if header.command == Command::Push && beyond {
        Some([0, 0, 1])
    } else {
        None
    }
}

/// An end under test, with what it is to send.
struct Subject {
    kcp: Kcp,
    source: Messages,
    now: Instant,
}

impl Subject {
    fn take(&mut self, step: Step) {
        match step {
            Step::Bytes(bytes) => self.bytes(&bytes),
            Step::Packet(segments) => self.packet(&segments),
            Step::Message(len) => drop(self.source.push(&vec![0; usize::from(len)])),
            Step::Transmit(max) => self.transmit(usize::from(max)),
            Step::Wait(micros) => self.now += Duration::from_micros(u64::from(micros)),
            Step::Read => drop(self.kcp.poll_message()),
            Step::Restored => self.kcp.on_path_restored(self.now),
            Step::Beside(bytes) => self.kcp.on_datagram_sent(usize::from(bytes), self.now),
        }
        self.check();
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (before, inside) = (self.kcp.stats(), insides(&self.kcp));
        if self.kcp.handle_packet(bytes, self.now).is_err() {
            assert_eq!(self.kcp.stats(), Stats { malformed: before.malformed + 1, ..before });
            assert_eq!(insides(&self.kcp), inside);
        }
    }

    fn packet(&mut self, segments: &[Wild]) {
        let headers: Vec<_> = segments.iter().map(|wild| wild.header(&self.kcp, self.now)).collect();
        let packet: Vec<u8> = headers
            .iter()
            .zip(segments)
            .flat_map(|(header, wild)| segment(*header, &vec![0; wild.len]))
            .collect();
        let [header] = headers[..] else {
            return self.kcp.handle_packet(&packet, self.now).unwrap();
        };
        let expected = senseless(&self.kcp, &header);
        let (before, inside) = (self.kcp.stats(), insides(&self.kcp));
        self.kcp.handle_packet(&packet, self.now).unwrap();
        let after = self.kcp.stats();
        let grown = [0, 1, 2].map(|counter| refused(&after)[counter] - refused(&before)[counter]);
        assert!(expected.is_none_or(|expected| grown == expected), "{header:?}: {grown:?}");
        if grown != [0; 3] {
            assert_eq!(accepted(after), accepted(before), "{header:?}");
            assert_eq!(insides(&self.kcp), inside, "{header:?}");
        }
    }

    fn transmit(&mut self, max: usize) {
        let mut count = 0;
        let mut out = Vec::new();
        while self.kcp.poll_transmit(max, &mut self.source, &mut out, self.now) {
            assert!((HEADER_LEN..=max).contains(&out.len()));
            out.clear();
            count += 1;
            assert!(count < 10_000, "sending never ends");
        }
        let Kcp { sender, acks, probe, .. } = &self.kcp;
        let timers = [sender.poll_timeout(), acks.waiting_since(), probe.poll_timeout(), self.kcp.release()]
            .map(|timer| timer.map(|at| at.checked_duration_since(self.now)));
        let timeout = self.kcp.poll_timeout();
        assert!(timeout.is_none_or(|at| at > self.now), "it spins: {timers:?}, {:?}", self.kcp.stats());
    }

    fn check(&self) {
        let stats = self.kcp.stats();
        assert!(stats.span <= u32::from(WINDOW), "{stats:?}");
        assert_eq!(stats.span == 0, !self.kcp.has_unacked());
        assert!(self.kcp.sender.waiting() <= usize::from(WINDOW), "{stats:?}");
        let most = u64::from(stats.span) * u64::try_from(FULL + config().overhead).unwrap();
        assert!(stats.in_flight <= most, "{stats:?}");
        assert!(stats.send_buffered < BUFFER + MSS, "{stats:?}");
        assert!(stats.receive_buffered <= BUFFER + 2 * MSS, "{stats:?}");
        assert!(stats.rto >= config().min_rto && stats.rto <= Duration::from_secs(10), "{stats:?}");
    }
}

proptest! {
    #[test]
    fn nothing_a_peer_sends_breaks_it_and_what_makes_no_sense_changes_nothing(
        steps in prop::collection::vec(step(), 1..200),
        kind in prop_oneof![
            Just(CongestionKind::Bbr), Just(CongestionKind::Loss), Just(CongestionKind::None)
        ],
        interval in prop_oneof![Just(0), Just(20)],
        begin in prop_oneof![Just(0), Just(u32::MAX - 5)],
    ) {
        let now = start();
        let config = Config { congestion: kind, interval: ms(interval), ..config() };
        let kcp = Kcp::starting_at(begin, 7, config, now);
        let mut subject = Subject { kcp, source: Messages::new(&config, 20_000), now };
        for step in steps {
            subject.take(step);
        }
    }
}
