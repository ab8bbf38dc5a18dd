//! Inner TCP: a segment from the TUN into its stream, and the acknowledgement for the kernel, among so many flows.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use vpn::flow::{Event, FlowId, FlowLimits, Flows};

use crate::start;
use crate::tcp::Sender;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow");
    for (flows, size) in [(1, 1400), (100, 1400), (1000, 1400), (1, 60_000)] {
        let mut world = World::new(flows, size);
        assert_eq!(world.step(), size);
        group.throughput(Throughput::Bytes(size as u64));
        group
            .bench_function(format!("segment/{flows} flows/{size}"), |bencher| bencher.iter(|| world.step()));
        let stats = world.flows.stats();
        assert_eq!((stats.flows, stats.held, stats.resets_received), (usize::from(flows), 0, 0), "{stats:?}");
        assert_eq!(stats.dropped_beyond_window + stats.dropped_malformed, 0, "{stats:?}");
    }
    group.finish();
}

struct World {
    flows: Flows,
    apps: Vec<(Sender, FlowId)>,
    next: usize,
    now: Instant,
}

impl World {
    fn new(flows: u16, size: usize) -> Self {
        let now = start();
        let mut world =
            Self { flows: Flows::new(FlowLimits::default(), [3; 32], now), apps: Vec::new(), next: 0, now };
        for number in 0..flows {
            world.open(Sender::new(number, size));
        }
        world
    }

    fn open(&mut self, mut app: Sender) {
        self.flows.handle_packet(&app.syn(), self.now);
        let Some(Event::Connect { id, .. }) = self.flows.poll_event() else {
            panic!("no connection is asked for")
        };
        self.flows.accept(id, self.now);
        let syn_ack = self.flows.poll_packet(self.now).expect("a SYN-ACK");
        self.flows.handle_packet(&app.ack(&syn_ack), self.now);
        self.apps.push((app, id));
    }

    /// The next flow's next segment; returns how many bytes of it could be read.
    fn step(&mut self) -> usize {
        self.now += Duration::from_micros(10);
        self.next = (self.next + 1) % self.apps.len();
        let (app, id) = &mut self.apps[self.next];
        self.flows.handle_packet(app.data(), self.now);
        let mut length = 0;
        while self.flows.read(*id, |bytes| {
            length += bytes.len();
            bytes.len()
        }) > 0
        {}
        while self.flows.poll_event().is_some() {}
        while let Some(packet) = self.flows.poll_packet(self.now) {
            self.flows.recycle(packet);
        }
        length
    }
}
