//! MUX: bytes of many streams through messages to the other end, with the credit that comes back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use vpn::mux::{Event, Limits, Mux, Role, StreamId};

use crate::start;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mux");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    for streams in [1, 100, 1000] {
        let mut pair = Pair::new(streams);
        let before = pair.ends[1].stats().received_bytes;
        pair.step();
        assert_eq!(pair.ends[1].stats().received_bytes, before + CHUNK as u64);
        group.bench_function(format!("write, fill, handle, consume/{streams}"), |bencher| {
            bencher.iter(|| pair.step());
        });
        assert_eq!((pair.ends[1].stats().streams, pair.ends[1].stats().receive_buffered), (streams, 0));
    }
    group.finish();
}

/// A client and a server with open streams.
struct Pair {
    ends: [Mux; 2],
    ids: Vec<StreamId>,
    next: usize,
    buffer: Vec<u8>,
    chunk: Vec<u8>,
    now: Instant,
}

impl Pair {
    fn new(streams: usize) -> Self {
        let ends = [Mux::new(Role::Client, Limits::default()), Mux::new(Role::Server, Limits::default())];
        let (buffer, chunk) = (vec![0; MESSAGE], vec![7; CHUNK]);
        let mut pair = Self { ends, ids: Vec::new(), next: 0, buffer, chunk, now: start() };
        let target = SocketAddr::from(([198, 51, 100, 7], 80));
        pair.ids = (0..streams).map(|_| pair.ends[0].open(target, pair.now).expect("room")).collect();
        while pair.pass(0) | pair.pass(1) {
            while let Some(event) = pair.ends[1].poll_event() {
                if let Event::Open { id, .. } = event {
                    pair.ends[1].accept(id);
                }
            }
        }
        while pair.ends[0].poll_event().is_some() {}
        pair
    }

    /// Messages of one end to the other; whether there were any.
    fn pass(&mut self, from: usize) -> bool {
        let mut any = false;
        loop {
            let length = self.ends[from].fill(&mut self.buffer, self.now);
            if length == 0 {
                return any;
            }
            any = true;
            self.ends[1 - from].handle_message(&self.buffer[..length], self.now).expect("an honest peer");
        }
    }

    /// A chunk of the next stream, to its reader.
    fn step(&mut self) {
        self.now += Duration::from_micros(10);
        self.next = (self.next + 1) % self.ids.len();
        assert_eq!(self.ends[0].write(self.ids[self.next], &self.chunk), CHUNK);
        self.pass(0);
        while let Some(event) = self.ends[1].poll_event() {
            if let Event::Readable { id } = event {
                while !self.ends[1].readable(id).is_empty() {
                    let length = self.ends[1].readable(id).len();
                    self.ends[1].consume(id, length, self.now);
                }
            }
        }
        self.pass(1);
    }
}

/// What one write of an app brings.
const CHUNK: usize = 16 << 10;

/// A KCP segment.
const MESSAGE: usize = 1309;
