//! KCP: one segment sent, received, acknowledged, with so many others in flight: the cost must not grow with them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use vpn::kcp::{Config, CongestionKind, HEADER_LEN, Kcp, Nodelay, Source};

use crate::start;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kcp");
    group.throughput(Throughput::Bytes(MSS as u64));
    for in_flight in [16, 1024, 16_384] {
        let mut path = Path::new(in_flight);
        group
            .bench_function(format!("segment/{in_flight} in flight"), |bencher| bencher.iter(|| path.step()));
        let stats = path.sender.stats();
        assert_eq!((stats.retransmitted, path.under_way.len()), (0, in_flight), "{stats:?}");
    }
    group.finish();
}

/// A sender whose packets arrive in order, `in_flight` packets later.
struct Path {
    sender: Kcp,
    receiver: Kcp,
    under_way: VecDeque<Vec<u8>>,
    spare: Vec<u8>,
    now: Instant,
}

impl Path {
    fn new(in_flight: usize) -> Self {
        let (now, config) = (start(), config());
        let mut path = Self {
            sender: Kcp::new(1, config, now),
            receiver: Kcp::new(1, config, now),
            under_way: VecDeque::new(),
            spare: Vec::new(),
            now,
        };
        // The window of the peer is known by what arrives.
        for _ in 0..1000 {
            while path.under_way.len() < in_flight && path.send() {}
            if path.under_way.len() == in_flight {
                return path;
            }
            path.arrive();
            path.now += STEP;
        }
        panic!("{in_flight} packets are never in flight: {:?}", path.sender.stats());
    }

    fn step(&mut self) {
        self.arrive();
        assert!(self.send());
        self.now += STEP;
    }

    fn send(&mut self) -> bool {
        let mut packet = std::mem::take(&mut self.spare);
        packet.clear();
        let sent = self.sender.poll_transmit(ROOM, &mut Endless, &mut packet, self.now);
        if sent {
            self.under_way.push_back(packet);
        }
        sent
    }

    fn arrive(&mut self) {
        let Some(mut packet) = self.under_way.pop_front() else { return };
        self.receiver.handle_packet(&packet, self.now).expect("it is KCP");
        assert!(self.receiver.poll_message().is_some_and(|message| message.len() == MSS));
        packet.clear();
        assert!(self.receiver.poll_transmit(ROOM, &mut Nothing, &mut packet, self.now));
        self.sender.handle_packet(&packet, self.now).expect("it is KCP");
        self.spare = packet;
    }
}

struct Endless;

impl Source for Endless {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        buffer.fill(0x5a);
        buffer.len()
    }
}

struct Nothing;

impl Source for Nothing {
    fn fill(&mut self, _: &mut [u8]) -> usize {
        0
    }
}

fn config() -> Config {
    Config {
        mss: MSS,
        send_window: u16::MAX,
        receive_window: u16::MAX,
        congestion: CongestionKind::None,
        nodelay: Nodelay::On,
        interval: Duration::ZERO,
        fast_resend: 2,
        fast_limit: 0,
        min_rto: Nodelay::On.min_rto(),
        overhead: 64,
        send_buffer: 256 << 20,
        receive_buffer: 256 << 20,
        ..Config::ikcp()
    }
}

const MSS: usize = 1309;
const ROOM: usize = MSS + HEADER_LEN;

/// 5 Gbit/s, so that the widest window is a round trip of 33 ms.
const STEP: Duration = Duration::from_micros(2);
