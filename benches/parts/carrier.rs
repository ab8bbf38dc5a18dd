//! Fake TCP: reading and writing the headers of a full packet.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{Criterion, Throughput};
use vpn::carrier::{Flags, Repr, Seq, SynOptions, parse};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("carrier");
    for (family, source, destination) in
        [("v4", "192.0.2.1:50000", "198.51.100.2:443"), ("v6", "[2001:db8::1]:50000", "[2001:db8::2]:443")]
    {
        let [source, destination] = [source, destination].map(|text| text.parse().expect("an address"));
        let repr = data(source, destination);
        let mut packet = vec![0x5a; PACKET];
        repr.emit(&mut packet).expect("room for the headers");
        let segment = parse(&packet).expect("it was just written");
        assert_eq!((segment.source, segment.payload), (source, repr.header_len()..PACKET));
        group.throughput(Throughput::Bytes(PACKET as u64));
        group.bench_function(format!("parse/{family}"), |bencher| bencher.iter(|| parse(black_box(&packet))));
        group.bench_function(format!("emit/{family}"), |bencher| {
            bencher.iter(|| black_box(&repr).emit(black_box(&mut packet)));
        });
    }
    group.finish();
}

fn data(source: SocketAddr, destination: SocketAddr) -> Repr {
    Repr {
        source,
        destination,
        seq: Seq(1),
        ack: Seq(2),
        flags: Flags::ACK,
        window: 0xff00,
        options: SynOptions::NONE,
        hop_limit: 64,
        flow_label: 7,
        ip_id: 9,
    }
}

const PACKET: usize = 1400;
