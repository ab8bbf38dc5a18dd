//! The operations of our own KCP.

use std::time::{Duration, Instant};

use vpn::kcp::{Config, CongestionKind, HEADER_LEN, Kcp, Piece, Source};

use super::{ACK, BATCH, CONV, PAYLOAD, PUSH, TELL, number, segment};
use crate::start;

pub(super) struct Sending {
    kcp: Kcp,
    start: Instant,
    sent: u32,
    acknowledged: u32,
    packet: Vec<u8>,
}

impl Sending {
    /// Every segment leaves a step after the one before it.
    fn departure(&self, sn: u32) -> Duration {
        STEP * (sn - sn % number(BATCH))
    }

    fn ts(&self, sn: u32) -> u32 {
        u32::try_from(self.departure(sn).as_millis()).expect("a short bench")
    }
}

impl super::Sending for Sending {
    fn new(in_flight: usize) -> Self {
        let start = start();
        let mut kcp = Kcp::new(CONV, config(), start);
        kcp.handle_packet(&tell(), start).expect("it is KCP");
        let mut sending = Self { kcp, start, sent: 0, acknowledged: 0, packet: Vec::new() };
        sending.send(in_flight.next_multiple_of(BATCH));
        sending
    }

    fn send(&mut self, count: usize) {
        for _ in 0..count {
            let now = self.start + self.departure(self.sent);
            self.packet.clear();
            assert!(self.kcp.poll_transmit(ROOM, &mut Endless, &mut self.packet, now));
            self.sent += 1;
        }
    }

    fn acknowledge(&mut self, count: usize) {
        for _ in 0..count / BATCH {
            self.packet.clear();
            let una = self.acknowledged + number(BATCH);
            for sn in self.acknowledged..una {
                segment(ACK, [self.ts(sn), sn, una], &[], &mut self.packet);
            }
            self.acknowledged = una;
            let now = self.start + self.departure(self.sent);
            self.kcp.handle_packet(&self.packet, now).expect("it is KCP");
        }
    }

    fn check(&self) {
        let stats = self.kcp.stats();
        assert_eq!((stats.span, stats.retransmitted), (self.sent - self.acknowledged, 0), "{stats:?}");
        assert_eq!((stats.bad_acks, stats.bad_una), (0, 0), "{stats:?}");
    }
}

pub(super) struct Receiving {
    kcp: Kcp,
    now: Instant,
    next: u32,
    packet: Vec<u8>,
}

impl Receiving {
    fn take(&mut self, sn: u32) {
        self.packet.clear();
        segment(PUSH, [0, sn, 0], &PAYLOAD, &mut self.packet);
        self.kcp.handle_packet(&self.packet, self.now).expect("it is KCP");
    }

    fn answer(&mut self) {
        loop {
            self.packet.clear();
            if !self.kcp.poll_transmit(ROOM, &mut Nothing, &mut self.packet, self.now) {
                return;
            }
        }
    }

    fn read(&mut self) -> usize {
        std::iter::from_fn(|| self.kcp.poll_message()).inspect(|m| assert_eq!(m.len(), PAYLOAD.len())).count()
    }
}

impl super::Receiving for Receiving {
    fn new() -> Self {
        let now = start();
        Self { kcp: Kcp::new(CONV, config(), now), now, next: 0, packet: Vec::new() }
    }

    fn receive(&mut self, count: usize) {
        for ahead in 1..count {
            self.take(self.next + u32::try_from(ahead).expect("a window"));
            if ahead % BATCH == 0 {
                self.answer();
            }
        }
        assert_eq!(self.read(), 0);
        self.take(self.next);
        self.answer();
        assert_eq!(self.read(), count);
        self.next += u32::try_from(count).expect("a window");
    }
}

pub(super) struct Waiting {
    kcp: Kcp,
    expected: u64,
    packet: Vec<u8>,
}

impl super::Waiting for Waiting {
    fn new(in_flight: usize) -> Self {
        let start = start();
        let mut kcp = Kcp::new(CONV, Config { fast_resend: 0, ..config() }, start);
        kcp.handle_packet(&tell(), start).expect("it is KCP");
        let (mut now, mut packet) = (start, Vec::new());
        for _ in 0..=in_flight {
            packet.clear();
            assert!(kcp.poll_transmit(ROOM, &mut Endless, &mut packet, now));
            now += STEP;
        }
        packet.clear();
        assert!(!kcp.poll_transmit(ROOM, &mut Nothing, &mut packet, now));
        // The last arrives: what was sent before it is lost when it has been under way for as long.
        let last = u32::try_from(in_flight).expect("a window");
        let ts = u32::try_from((STEP * last).as_millis()).expect("a short bench");
        segment(ACK, [ts, last, 0], &[], &mut packet);
        kcp.handle_packet(&packet, start + STEP * last + RTT).expect("it is KCP");
        assert_eq!(kcp.stats().lost, 0);
        Self { kcp, expected: u64::from(last), packet }
    }

    fn fire(&mut self) -> usize {
        let mut fired = 0;
        while fired < self.expected {
            let now = self.kcp.poll_timeout().expect("segments are lost");
            self.packet.clear();
            assert!(self.kcp.poll_transmit(ROOM, &mut Nothing, &mut self.packet, now));
            fired += 1;
        }
        let stats = self.kcp.stats();
        assert_eq!((stats.lost, stats.retransmitted, stats.timeouts), (fired, fired, 0), "{stats:?}");
        usize::try_from(fired).expect("a window")
    }
}

/// A source that always has a payload.
struct Endless;

impl Source for Endless {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        buffer[..PAYLOAD.len()].copy_from_slice(&PAYLOAD);
        PAYLOAD.len()
    }
}

pub(super) struct Nothing;

impl Source for Nothing {
    fn peek(&self) -> Option<Piece> {
        None
    }

    fn fill(&mut self, _: &mut [u8]) -> usize {
        0
    }
}

fn tell() -> Vec<u8> {
    let mut packet = Vec::new();
    segment(TELL, [0, 0, 0], &[], &mut packet);
    packet
}

fn config() -> Config {
    super::config(PAYLOAD.len(), CongestionKind::None, Duration::from_millis(30))
}

const ROOM: usize = PAYLOAD.len() + HEADER_LEN;
/// The widest window is a round trip of 120 ms, below the first RTO.
const STEP: Duration = Duration::from_micros(2);
/// A quarter of it is room for reordering, and longer than the widest window.
const RTT: Duration = Duration::from_millis(600);
