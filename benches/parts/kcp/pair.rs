//! A pair in one thread: full segments from a source to a reader, and the acks back.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use vpn::kcp::{CongestionKind, HEADER_LEN, Kcp, Source};

use super::{BATCH, CONV, IN_FLIGHT, Least, MEASURED, Row, WARM_UP, clock, config, number, ours::Nothing};
use crate::start;

pub(super) fn bench(criterion: &mut Criterion, table: &mut Vec<Row>) {
    let mut group = criterion.benchmark_group("kcp/pair");
    group.sample_size(20).warm_up_time(WARM_UP).measurement_time(MEASURED);
    group.throughput(Throughput::Bytes(MSS as u64));
    for (name, congestion) in [("none", CongestionKind::None), ("bbr", CongestionKind::Bbr)] {
        for in_flight in IN_FLIGHT {
            let mut least = Least::default();
            let mut pair = None;
            group.bench_function(BenchmarkId::new(name, in_flight), |bencher| {
                let pair = pair.get_or_insert_with(|| Pair::new(congestion, in_flight));
                bencher.iter_custom(|wanted| {
                    least.measure(wanted, || {
                        let (from, before) = (clock(), pair.read);
                        for _ in 0..32 {
                            pair.step();
                        }
                        (clock() - from, pair.read - before)
                    })
                });
            });
            if let Some(pair) = pair {
                let stats = pair.sender.stats();
                assert_eq!(stats.retransmitted, 0, "{stats:?}");
                let filled = pair.spans / pair.steps * 100 / in_flight;
                assert!((80..=120).contains(&filled), "{filled} % of {in_flight}: {stats:?}");
            }
            table.push(least.row("pair", name, in_flight));
        }
    }
    group.finish();
}

/// Two ends and a path of one rate and one delay, on which `in_flight` packets fit.
struct Pair {
    sender: Kcp,
    receiver: Kcp,
    /// When they arrive, and their headers: all have the same payload.
    under_way: VecDeque<(Instant, [u8; HEADER_LEN])>,
    /// A packet of which only the header is written anew.
    arriving: Vec<u8>,
    packet: Vec<u8>,
    delay: Duration,
    /// When the path takes the next packet.
    free_at: Instant,
    now: Instant,
    read: usize,
    steps: usize,
    /// The sum of what was in flight after each step.
    spans: usize,
}

impl Pair {
    fn new(congestion: CongestionKind, in_flight: usize) -> Self {
        let (now, config) = (start(), config(MSS, congestion, Duration::from_millis(200)));
        let mut pair = Self {
            sender: Kcp::new(CONV, config, now),
            receiver: Kcp::new(CONV, config, now),
            under_way: VecDeque::new(),
            arriving: vec![0x5a; ROOM],
            packet: Vec::with_capacity(ROOM),
            delay: EACH * u32::try_from(in_flight).expect("a window"),
            free_at: now,
            now,
            read: 0,
            steps: 0,
            spans: 0,
        };
        let settled = now + SETTLED.max(pair.delay * 40);
        while pair.now < settled {
            pair.step();
        }
        (pair.steps, pair.spans) = (0, 0);
        pair
    }

    /// The time of one batch passes.
    fn step(&mut self) {
        self.now += EACH * u32::try_from(BATCH).expect("a batch");
        while self.under_way.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, header)) = self.under_way.pop_front() else { return };
            self.arriving[..HEADER_LEN].copy_from_slice(&header);
            self.receiver.handle_packet(&self.arriving, self.now).expect("it is KCP");
            while let Some(message) = self.receiver.poll_message() {
                assert_eq!(message.len(), MSS);
                self.read += 1;
            }
        }
        while transmit(&mut self.receiver, &mut Nothing, &mut self.packet, self.now) {
            self.sender.handle_packet(&self.packet, self.now).expect("it is KCP");
        }
        // Without a pacer the path is what holds back.
        while self.free_at <= self.now && transmit(&mut self.sender, &mut Endless, &mut self.packet, self.now)
        {
            self.free_at = self.free_at.max(self.now - EACH * number(BATCH)) + EACH;
            let header = *self.packet.first_chunk().expect("a header");
            self.under_way.push_back((self.now + self.delay, header));
        }
        self.steps += 1;
        self.spans += self.under_way.len();
    }
}

fn transmit(end: &mut Kcp, source: &mut dyn Source, packet: &mut Vec<u8>, now: Instant) -> bool {
    packet.clear();
    end.poll_transmit(ROOM, source, packet, now)
}

/// A source that always has a full segment; writing it is no part of KCP.
struct Endless;

impl Source for Endless {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        buffer.len()
    }
}

const MSS: usize = 1400;
const ROOM: usize = MSS + HEADER_LEN;
/// Payload bits of a segment.
pub(super) const BITS: f64 = MSS as f64 * 8.0;
/// What the path takes for one packet: 5.6 Gbit/s.
const EACH: Duration = Duration::from_micros(2);
/// Until then the rate is still looked for.
const SETTLED: Duration = Duration::from_millis(500);
