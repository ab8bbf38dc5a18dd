//! What the article on KCP describes, thing by thing: each test drives one end packet by packet in virtual time.
//!
//! What a single part decides is tested beside it: presets and `nc` in `config`, SRTT, RTTVAR and back-off in `rtt`,
//! growth of the window in `congestion::loss`, the order of acks in `acks`. The wrap of `ts` is in `tests/kcp`.

use std::time::{Duration, Instant};

use super::{
    Config, CongestionKind, HEADER_LEN, Kcp, Messages, Nodelay, Source, Stats, Stream,
    segment::{Command, Header, split},
    tests::{ms, start},
};

const MSS: usize = 100;
const PACKET: u64 = 124;

/// `nodelay` 1, `resend` 2, `nc` 1, without an interval.
fn config() -> Config {
    let config = Config { mss: MSS, overhead: 0, ..Config::ikcp().with_windows(1000, 1000) };
    config.with_knobs(Nodelay::On, Duration::ZERO, 2, true)
}

/// One end, and a peer that does what the test says.
struct End {
    kcp: Kcp,
    source: Messages,
    now: Instant,
}

impl End {
    fn new(config: Config) -> Self {
        let now = start();
        let source = Messages::new(&config, 1 << 20);
        Self { kcp: Kcp::new(7, config, now), source, now }
    }

    /// Writes `count` messages, each a full segment.
    fn write(&mut self, count: usize) {
        for _ in 0..count {
            self.source.push(&[0x5a; MSS]).unwrap();
        }
    }

    /// What leaves now: each segment's header and payload.
    fn leave(&mut self) -> Vec<(Header, Vec<u8>)> {
        let packets = packets(&mut self.kcp, &mut self.source, self.now);
        packets.iter().flat_map(|packet| segments(packet)).collect()
    }

    /// The numbers of the data segments that leave now.
    fn pushed(&mut self) -> Vec<u32> {
        let segments = self.leave().into_iter();
        segments.filter(|(header, _)| header.command == Command::Push).map(|(header, _)| header.sn).collect()
    }

    fn handle(&mut self, command: Command, [sn, ts, una]: [u32; 3], wnd: u16) {
        let header = Header { conv: 7, command, frg: 0, wnd, ts, sn, una };
        self.kcp.handle_packet(&header.encode(0), self.now).unwrap();
    }

    /// The peer acknowledges `sn`, of the copy sent at `ts`.
    fn ack(&mut self, sn: u32, ts: u32, una: u32) {
        self.handle(Command::Ack, [sn, ts, una], 1000);
    }

    /// Time passes, without a timer being looked at.
    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Goes to the next timer and says how much time that took.
    fn wake(&mut self) -> Duration {
        let at = self.kcp.poll_timeout().unwrap().max(self.now);
        let passed = at - self.now;
        self.now = at;
        passed
    }

    fn stats(&self) -> Stats {
        self.kcp.stats()
    }
}

fn packets(kcp: &mut Kcp, source: &mut dyn Source, now: Instant) -> Vec<Vec<u8>> {
    let one = || {
        let mut packet = Vec::new();
        kcp.poll_transmit(4 * (MSS + HEADER_LEN) + 50, source, &mut packet, now).then_some(packet)
    };
    std::iter::from_fn(one).take(10_000).collect()
}

fn segments(mut packet: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut segments = Vec::new();
    while !packet.is_empty() {
        let (header, payload, rest) = split(packet, 7).unwrap();
        segments.push((header, payload.to_vec()));
        packet = rest;
    }
    segments
}

/// 7.2: SRTT ← 7/8 SRTT + 1/8 RTT, RTTVAR ← 3/4 RTTVAR + 1/4 |SRTT − RTT|, RTO = SRTT + 4 RTTVAR.
#[test]
fn rto_follows_the_round_trips_measured_by_echoed_time_stamps() {
    let mut end = End::new(config());
    assert_eq!((end.stats().srtt, end.stats().rto), (None, ms(200)));
    for (sn, rtt, srtt, rto) in [(0, 100, 100, 300), (1, 180, 110, 340)] {
        end.write(1);
        let sent = end.leave();
        end.pass(ms(rtt));
        end.ack(sn, sent[0].0.ts, sn + 1);
        assert_eq!((end.stats().srtt, end.stats().rto), (Some(ms(srtt)), ms(rto)));
    }
}

/// 7.2: the shortest RTO is 30 ms in nodelay mode and 100 ms otherwise.
#[test]
fn rto_is_never_below_the_minimum_of_its_mode() {
    for (nodelay, least) in [(Nodelay::Off, 100), (Nodelay::On, 30), (Nodelay::Linear, 30)] {
        let mut end = End::new(config().with_knobs(nodelay, Duration::ZERO, 2, true));
        for sn in 0..50 {
            end.write(1);
            let sent = end.leave();
            end.pass(ms(1));
            end.ack(sn, sent[0].0.ts, sn + 1);
        }
        assert_eq!(end.stats().rto, ms(least), "{nodelay:?}");
    }
}

/// 7.3: which copy of a retransmitted segment was acknowledged is told by the `ts` its ack echoes.
#[test]
fn an_ack_of_a_retransmitted_segment_measures_the_copy_that_arrived() {
    for (copy, rtt, spurious) in [(0, 250, 1), (1, 50, 0)] {
        let mut end = End::new(config());
        end.write(1);
        let first = end.leave()[0].0.ts;
        assert_eq!(end.wake(), ms(200));
        let second = end.leave()[0].0.ts;
        assert_eq!((first, second), (0, 200));
        end.pass(ms(50));
        end.ack(0, [first, second][copy], 1);
        assert_eq!((end.stats().srtt, end.stats().spurious), (Some(ms(rtt)), spurious));
    }
}

/// 7.3, the other half: `una` alone does not say which copy arrived, and so measures nothing.
#[test]
fn una_measures_no_round_trip() {
    let mut end = End::new(config());
    end.write(1);
    end.leave();
    end.wake();
    assert_eq!(end.pushed(), [0]);
    end.pass(ms(50));
    end.handle(Command::Tell, [0, 0, 1], 1000);
    assert_eq!((end.stats().srtt, end.kcp.has_unacked()), (None, false));
}

/// 7.3 and 7.4: with each timeout RTO doubles; in nodelay mode it grows by half (`nodelay` 2: by half of the first).
#[test]
fn rto_grows_with_each_timeout_as_the_mode_says() {
    for (nodelay, gaps) in [
        (Nodelay::Off, [400, 800, 1600, 3200]),
        (Nodelay::On, [300, 450, 675, 1012]),
        (Nodelay::Linear, [300, 400, 500, 600]),
    ] {
        let mut end = End::new(config().with_knobs(nodelay, Duration::ZERO, 2, true));
        end.write(1);
        end.leave();
        let mut timeouts = Vec::new();
        while timeouts.len() < 5 {
            end.wake();
            let before = end.stats().timeouts;
            end.leave();
            if end.stats().timeouts > before {
                timeouts.push(end.now);
            }
        }
        let between: Vec<_> = timeouts.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        assert_eq!(between, gaps, "{nodelay:?}");
    }
}

/// 7.5 and 7.6: an ack takes its own segment out, `una` all before it.
#[test]
fn acks_are_selective_and_una_is_cumulative() {
    let mut end = End::new(config().with_knobs(Nodelay::On, Duration::ZERO, 0, true));
    end.write(5);
    assert_eq!(end.pushed(), [0, 1, 2, 3, 4]);
    end.ack(2, 0, 0);
    assert_eq!((end.stats().span, end.stats().in_flight), (5, 4 * PACKET));
    end.ack(3, 0, 1);
    assert_eq!((end.stats().span, end.stats().in_flight), (4, 2 * PACKET));
    end.handle(Command::Tell, [0, 0, 2], 1000);
    assert_eq!((end.stats().span, end.stats().in_flight), (1, PACKET));
}

/// 7.6, the article's own example: of 1, 2, 3, 4, 5 arrive 1, 2, 4, 5. The acks of 4 and 5 skip 3 twice: it is sent again
/// before its RTO, and nothing else is.
#[test]
fn a_segment_skipped_twice_is_sent_again_before_its_rto() {
    let mut end = End::new(config());
    end.write(6);
    assert_eq!(end.pushed(), [0, 1, 2, 3, 4, 5]);
    end.pass(ms(100));
    end.ack(0, 0, 1);
    let rto = end.stats().rto;
    for (sn, una) in [(1, 2), (2, 3), (4, 3)] {
        end.ack(sn, 0, una);
        assert!(end.pushed().is_empty());
    }
    end.ack(5, 0, 3);
    assert_eq!(end.pushed(), [3]);
    assert!(rto > ms(100), "{rto:?}");
    end.pass(ms(100));
    end.ack(3, 100, 6);
    assert!(!end.kcp.has_unacked() && end.stats().timeouts == 0, "{:?}", end.stats());
}

/// `resend` 0: skips alone make no loss.
#[test]
fn without_fast_resend_a_skipped_segment_waits_for_its_time() {
    let mut end = End::new(config().with_knobs(Nodelay::On, Duration::ZERO, 0, true));
    end.write(5);
    end.leave();
    end.pass(ms(100));
    for sn in 1..5 {
        end.ack(sn, 0, 0);
    }
    assert!(end.pushed().is_empty());
    end.wake();
    assert_eq!(end.pushed(), [0]);
}

/// `IKCP_FASTACK_LIMIT`: the sixth copy of a segment leaves for its skips no more, only when its time is over.
#[test]
fn skips_send_a_segment_again_five_times_at_most() {
    for (limit, fast) in [(5, 5), (3, 3), (0, 12)] {
        let mut end = End::new(Config { fast_limit: limit, dead_link: 0, ..config() });
        end.write(1);
        end.leave();
        let mut resent = 0;
        for round in 0..12 {
            end.write(2);
            let sent = end.leave();
            end.pass(ms(100));
            for number in [2 * round + 1, 2 * round + 2] {
                end.ack(number, sent[0].0.ts, 0);
            }
            if end.pushed() != [0] {
                break;
            }
            resent += 1;
        }
        assert_eq!(resent, fast, "limit {limit}");
        if limit > 0 {
            assert!(end.wake() <= ms(25));
            assert_eq!(end.pushed(), [0]);
        }
    }
}

/// 7.7: a closed window is asked for, ever more rarely, until the peer tells that it is open.
#[test]
fn asks_a_closed_window_with_back_off_until_it_is_told_to_be_open() {
    let mut end = End::new(config());
    end.handle(Command::Tell, [0; 3], 0);
    end.write(1);
    assert!(end.leave().is_empty());
    let mut waits = Vec::new();
    for _ in 0..4 {
        waits.push(end.wake().as_millis());
        let asked = end.leave();
        assert!(matches!(asked[..], [(Header { command: Command::Ask, .. }, _)]), "{asked:?}");
    }
    assert_eq!(waits, [500, 750, 1125, 1687]);
    end.handle(Command::Tell, [0; 3], 3);
    assert_eq!((end.pushed(), end.stats().peer_window), (vec![0], 3));
}

/// A closed window is nobody's business while there is nothing to send.
#[test]
fn does_not_ask_a_closed_window_when_nothing_waits_for_it() {
    let mut end = End::new(config());
    end.handle(Command::Tell, [0; 3], 0);
    assert!(end.leave().is_empty());
    assert_eq!(end.kcp.poll_timeout(), None);
}

/// 7.7, the other end: an ask is answered by one tell with the window as it is.
#[test]
fn answers_asks_with_one_tell() {
    let mut end = End::new(config());
    for _ in 0..100 {
        end.handle(Command::Ask, [0; 3], 128);
    }
    let told = end.leave();
    assert!(matches!(told[..], [(Header { command: Command::Tell, wnd: 1000, .. }, _)]), "{told:?}");
}

fn with_congestion_control() -> Config {
    config().with_knobs(Nodelay::On, Duration::ZERO, 2, false)
}

/// 7.8: `nc` 0 begins with slow start: the window grows by what is acknowledged.
#[test]
fn slow_start_doubles_the_window_in_a_round_trip() {
    let mut end = End::new(with_congestion_control());
    end.write(100);
    assert_eq!(end.pushed().len(), 10);
    end.pass(ms(100));
    end.handle(Command::Ack, [9, 0, 10], 1000);
    assert_eq!(end.stats().window, 20 * PACKET);
    // It is paced over the round trip.
    let mut sent = 0;
    for _ in 0..100 {
        sent += end.pushed().len();
        end.pass(ms(1));
    }
    assert_eq!(sent, 20);
}

/// With an interval each flush takes what would be let go before the next.
#[test]
fn an_interval_does_not_slow_a_paced_sender() {
    let mut end = End::new(with_congestion_control().with_knobs(Nodelay::On, ms(20), 2, false));
    end.write(100);
    assert!(end.pushed().is_empty());
    end.wake();
    assert_eq!(end.pushed().len(), 10);
    end.pass(ms(100));
    end.handle(Command::Ack, [9, 20, 10], 1000);
    let mut sent = Vec::new();
    for _ in 0..100 {
        sent.push(end.pushed().len());
        end.pass(ms(1));
    }
    let flushes = sent.iter().filter(|count| **count > 0).count();
    assert_eq!(sent.iter().sum::<usize>(), 20, "in {flushes} flushes");
    assert!((2..=5).contains(&flushes), "{flushes}");
}

/// 7.8: a fast resend sets ssthresh to half of what is in flight, and the window to that and the skips; then it grows by
/// one segment in a round trip (congestion avoidance).
#[test]
fn a_fast_resend_halves_and_congestion_avoidance_follows() {
    let mut end = End::new(with_congestion_control());
    end.write(10);
    assert_eq!(end.pushed().len(), 10);
    end.pass(ms(100));
    for sn in [1, 2] {
        end.ack(sn, 0, 0);
    }
    // The ten sent count, not the ten and two that the window had grown to.
    assert_eq!(end.stats().window, (5 + 2) * PACKET + PACKET / 7);
    end.handle(Command::Tell, [0, 0, 10], 1000);
    let grown = end.stats().window;
    assert!((8 * PACKET..9 * PACKET).contains(&grown), "{grown}");
}

/// 7.8: a timeout sets ssthresh to half of the window, and the window to one segment; then slow start begins again.
#[test]
fn a_timeout_starts_over_from_one_segment() {
    let mut end = End::new(with_congestion_control());
    end.write(100);
    assert_eq!(end.pushed().len(), 10);
    while end.stats().timeouts == 0 {
        end.wake();
        end.leave();
    }
    assert_eq!(end.stats().window, PACKET);
    end.handle(Command::Tell, [0, 0, 3], 1000);
    assert_eq!(end.stats().window, 4 * PACKET);
    end.handle(Command::Tell, [0, 0, 5], 1000);
    // ssthresh is five segments: from there on it creeps.
    let grown = end.stats().window;
    assert!((5 * PACKET..=6 * PACKET).contains(&grown), "{grown}");
}

/// 7.8: `nc` 1 knows no window but those of the two ends, whatever is lost.
#[test]
fn without_congestion_control_only_the_two_windows_count() {
    let mut end = End::new(Config { send_window: 50, ..config() });
    assert_eq!(end.kcp.config.congestion, CongestionKind::None);
    end.write(300);
    assert_eq!(end.pushed().len(), 50);
    for _ in 0..5 {
        end.wake();
        end.leave();
    }
    assert_eq!(end.stats().window, 50 * PACKET);
    end.handle(Command::Tell, [0, 0, 50], 20);
    assert_eq!(end.pushed().len(), 20);
}

/// ikcp's message mode: a message arrives whole, and its fragments count down.
#[test]
fn message_mode_keeps_the_bounds_of_what_was_written() {
    let mut end = End::new(config());
    let mut peer = Kcp::new(7, config(), end.now);
    end.handle(Command::Tell, [0; 3], 1000);
    let messages: Vec<Vec<u8>> = [1, 0, 100, 101, 250, 12_700].map(|len| pattern(0, len)).to_vec();
    for message in &messages {
        end.source.push(message).unwrap();
    }
    let packets = packets(&mut end.kcp, &mut end.source, end.now);
    let sent: Vec<_> = packets.iter().flat_map(|packet| segments(packet)).collect();
    let shapes: Vec<_> = sent.iter().take(8).map(|(header, payload)| (header.frg, payload.len())).collect();
    assert_eq!(shapes, [(0, 1), (0, 0), (0, 100), (1, 100), (0, 1), (2, 100), (1, 100), (0, 50)]);
    assert!(packets.iter().any(|packet| packet.len() % (MSS + HEADER_LEN) != 0), "some room is left over");
    for packet in packets.iter().rev() {
        peer.handle_packet(packet, end.now).unwrap();
    }
    let read: Vec<_> = std::iter::from_fn(|| peer.poll_message()).collect();
    assert!(read == messages, "{:?}", read.iter().map(Vec::len).collect::<Vec<_>>());
}

#[test]
fn an_empty_message_begins_the_next_packet_when_its_header_does_not_fit() {
    let mut end = End::new(config());
    end.write(1);
    end.source.push(&[]).unwrap();
    let mut lengths = Vec::new();
    let mut packet = Vec::new();
    while end.kcp.poll_transmit(MSS + HEADER_LEN + 23, &mut end.source, &mut packet, end.now) {
        lengths.push(std::mem::take(&mut packet).len());
    }
    assert_eq!(lengths, [MSS + HEADER_LEN, HEADER_LEN]);
}

/// A fragment that is sent again is the same fragment.
#[test]
fn a_fragment_keeps_its_number_when_it_is_sent_again() {
    let mut end = End::new(config());
    end.source.push(&pattern(0, 250)).unwrap();
    let sent = end.leave();
    end.wake();
    let again = end.leave();
    for (header, payload) in &again {
        let (first, original) = &sent[usize::try_from(header.sn).unwrap()];
        assert_eq!((header.frg, payload), (first.frg, original));
    }
    assert!(!again.is_empty());
}

/// ikcp's stream mode: segments are full, and what is written later joins what has not left.
#[test]
fn stream_mode_fills_segments_across_writes() {
    let now = start();
    let (mut kcp, mut peer) = (Kcp::new(7, config(), now), Kcp::new(7, config(), now));
    let mut stream = Stream::new(1 << 20);
    let closed = Header { conv: 7, command: Command::Tell, frg: 0, wnd: 0, ts: 0, sn: 0, una: 0 };
    kcp.handle_packet(&closed.encode(0), now).unwrap();
    for piece in 0..75 {
        assert_eq!(stream.write(&pattern(piece * 10, 10)), 10);
        assert!(packets(&mut kcp, &mut stream, now).is_empty());
    }
    kcp.handle_packet(&Header { wnd: 128, ..closed }.encode(0), now).unwrap();
    let packets = packets(&mut kcp, &mut stream, now);
    let lengths: Vec<_> =
        packets.iter().flat_map(|packet| segments(packet)).map(|(header, p)| (header.frg, p.len())).collect();
    // What is left of the first packet is no reason to send a small segment.
    assert_eq!(lengths, [100, 100, 100, 100, 100, 100, 100, 50].map(|len| (0, len)));
    for packet in &packets {
        peer.handle_packet(packet, now).unwrap();
    }
    let read: Vec<u8> = std::iter::from_fn(|| peer.poll_message()).flatten().collect();
    assert_eq!(read, pattern(0, 750));
}

/// Numbers are 32 bits and go on from 0.
#[test]
fn goes_on_across_the_wrap_of_sn() {
    let (config, now) = (config(), start());
    let begin = u32::MAX - 2;
    let mut end = End { kcp: Kcp::starting_at(begin, 7, config, now), ..End::new(config) };
    end.now = now;
    let mut peer = Kcp::starting_at(begin, 7, config, now);
    end.source.push(&pattern(0, 600)).unwrap();
    let sent = packets(&mut end.kcp, &mut end.source, now);
    let numbers: Vec<_> =
        sent.iter().flat_map(|packet| segments(packet)).map(|(header, _)| header.sn).collect();
    assert_eq!(numbers, [u32::MAX - 2, u32::MAX - 1, u32::MAX, 0, 1, 2]);
    end.pass(ms(50));
    // The last number before the wrap is lost; those after it skip it.
    for (header, payload) in sent.iter().flat_map(|packet| segments(packet)) {
        if header.sn != u32::MAX {
            let len = u32::try_from(payload.len()).unwrap();
            peer.handle_packet(&[&header.encode(len), &payload[..]].concat(), end.now).unwrap();
        }
    }
    assert_eq!(peer.poll_message(), None);
    for packet in packets(&mut peer, &mut Stream::new(0), end.now) {
        end.kcp.handle_packet(&packet, end.now).unwrap();
    }
    assert_eq!(end.stats().span, 4);
    for packet in packets(&mut end.kcp, &mut end.source, end.now) {
        assert_eq!(segments(&packet).first().map(|(header, _)| header.sn), Some(u32::MAX));
        peer.handle_packet(&packet, end.now).unwrap();
    }
    assert_eq!(peer.poll_message(), Some(pattern(0, 600)));
    for packet in packets(&mut peer, &mut Stream::new(0), end.now) {
        end.kcp.handle_packet(&packet, end.now).unwrap();
    }
    assert!(!end.kcp.has_unacked());
    assert_eq!((end.stats().bad_acks, end.stats().bad_una, peer.stats().outside_window), (0, 0, 0));
}

/// ikcp's `dead_link`: said once a segment was sent so often, and nothing stops for it.
#[test]
fn says_that_the_link_is_dead_after_twenty_transmissions_and_goes_on() {
    let mut end = End::new(config());
    end.write(1);
    let mut transmissions = end.pushed().len();
    while !end.kcp.is_dead() {
        end.wake();
        transmissions += end.pushed().len();
    }
    assert_eq!((transmissions, end.stats().dead), (20, true));
    end.wake();
    assert_eq!(end.pushed(), [0]);
    let mut never = End::new(Config { dead_link: 0, ..config() });
    never.write(1);
    never.leave();
    for _ in 0..100 {
        never.wake();
        never.leave();
    }
    assert!(!never.kcp.is_dead());
}

/// ikcp's `interval`: what leaves is gathered to the multiples of it, and a multiple where nothing waits passes unseen.
#[test]
fn all_that_leaves_is_gathered_to_multiples_of_the_interval() {
    let mut end = End::new(config().with_knobs(Nodelay::On, ms(40), 2, true));
    assert!(end.leave().is_empty());
    assert_eq!(end.kcp.poll_timeout(), None);
    end.pass(ms(1005));
    end.write(1);
    assert!(end.leave().is_empty());
    end.pass(ms(20));
    end.write(1);
    let push = Header { conv: 7, command: Command::Push, frg: 0, wnd: 128, ts: 9, sn: 0, una: 0 };
    end.kcp.handle_packet(&push.encode(0), end.now).unwrap();
    assert!(end.leave().is_empty());
    assert_eq!(end.wake(), ms(1040 - 1025));
    let left: Vec<_> = end.leave().iter().map(|(header, _)| (header.command, header.ts)).collect();
    assert_eq!(left, [(Command::Ack, 9), (Command::Push, 1040), (Command::Push, 1040)]);
    // The tail is probed 200 ms later, the next multiple after that being 1240.
    assert_eq!(end.wake(), ms(200));
    assert_eq!(end.pushed().len(), 2);
    end.pass(ms(7));
    end.handle(Command::Tell, [0, 0, 2], 1000);
    assert_eq!(end.kcp.poll_timeout(), None);
}

/// `len` bytes that tell where they stand.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}
