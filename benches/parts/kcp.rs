//! KCP: what a segment costs, however many others are in flight, and how much a pair carries on one core.
//!
//! Ours beside the published crate `kcp`, in batches of [`BATCH`] as one system call brings them. The payload is small,
//! so that what is compared is the work for a segment and not the memory that payloads fill; `pair` has full segments.

mod ours;
mod pair;
mod theirs;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use rustix::time::{ClockId, clock_gettime};
use vpn::kcp::{Config, CongestionKind};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut table = Vec::new();
    cost::<ours::Sending, ours::Receiving, ours::Waiting>(criterion, "ours", &mut table);
    cost::<theirs::Sending, theirs::Receiving, theirs::Waiting>(criterion, "crate", &mut table);
    pair::bench(criterion, &mut table);
    report(&table);
}

/// A sender with segments in flight that arrive in order.
trait Sending {
    fn new(in_flight: usize) -> Self;
    /// Sends a multiple of [`BATCH`].
    fn send(&mut self, count: usize);
    /// Takes the acks of a multiple of [`BATCH`], a packet of them for each batch.
    fn acknowledge(&mut self, count: usize);
    /// Asserts that nothing but what is measured happened.
    fn check(&self);
}

/// A receiver that holds segments which wait for one that is lost.
trait Receiving {
    fn new() -> Self;
    /// Takes `count` segments, all but the first of them, then the first; acknowledges and reads them.
    fn receive(&mut self, count: usize);
}

/// A sender whose segments are all lost, each with a deadline of its own.
trait Waiting {
    fn new(in_flight: usize) -> Self;
    /// Lets all deadlines pass, one after the other; returns how many there were.
    fn fire(&mut self) -> usize;
}

fn cost<S: Sending, R: Receiving, W: Waiting>(criterion: &mut Criterion, who: &str, table: &mut Vec<Row>) {
    let mut group = criterion.benchmark_group(format!("kcp/{who}"));
    group.sample_size(20).warm_up_time(WARM_UP).measurement_time(MEASURED);
    for in_flight in IN_FLIGHT {
        let mut sending = S::new(in_flight);
        let mut least = Least::default();
        group.bench_function(BenchmarkId::new("sent", in_flight), |bencher| {
            bencher.iter_custom(|wanted| {
                least.measure(wanted, || {
                    let from = clock();
                    sending.send(ROUND);
                    let took = clock() - from;
                    sending.acknowledge(ROUND);
                    (took, ROUND)
                })
            });
        });
        table.push(least.row(who, "sent", in_flight));
        let mut least = Least::default();
        group.bench_function(BenchmarkId::new("acked", in_flight), |bencher| {
            bencher.iter_custom(|wanted| {
                least.measure(wanted, || {
                    sending.send(ROUND);
                    let from = clock();
                    sending.acknowledge(ROUND);
                    (clock() - from, ROUND)
                })
            });
        });
        table.push(least.row(who, "acked", in_flight));
        sending.check();
        let mut receiving = R::new();
        let mut least = Least::default();
        group.bench_function(BenchmarkId::new("received", in_flight), |bencher| {
            bencher.iter_custom(|wanted| {
                least.measure(wanted, || {
                    let from = clock();
                    receiving.receive(in_flight);
                    (clock() - from, in_flight)
                })
            });
        });
        table.push(least.row(who, "received", in_flight));
        let mut least = Least::default();
        group.bench_function(BenchmarkId::new("timer", in_flight), |bencher| {
            bencher.iter_custom(|wanted| {
                least.measure(wanted, || {
                    let mut waiting = W::new(in_flight);
                    let from = clock();
                    let fired = waiting.fire();
                    (clock() - from, fired)
                })
            });
        });
        table.push(least.row(who, "timer", in_flight));
    }
    group.finish();
}

/// The least that an operation cost: what others on the machine add is no part of it.
#[derive(Default)]
struct Least(Option<f64>);

impl Least {
    /// Repeats `batch`, which says how long it took and how many operations it was, for at least `wanted` operations.
    fn measure(&mut self, wanted: u64, mut batch: impl FnMut() -> (Duration, usize)) -> Duration {
        let (mut total, mut done) = (Duration::ZERO, 0);
        while done < wanted {
            let (took, count) = batch();
            total += took;
            done += count as u64;
        }
        let each = total.as_secs_f64() / done as f64;
        self.0 = Some(self.0.map_or(each, |least| least.min(each)));
        Duration::from_secs_f64(each * wanted as f64)
    }

    fn row(&self, who: &str, what: &str, in_flight: usize) -> Row {
        Row { name: format!("{who}/{what}"), in_flight, nanos: self.0.map(|seconds| seconds * 1e9) }
    }
}

struct Row {
    name: String,
    in_flight: usize,
    /// `None`: not asked for.
    nanos: Option<f64>,
}

/// What criterion does not say: how the cost grows with what is in flight, and what a pair carries.
///
/// # Panics
/// If ours misses an aim.
fn report(table: &[Row]) {
    eprintln!("\nns per segment, the least of all samples; largest ÷ smallest; Gbit/s of full segments\n");
    let mut missed = Vec::new();
    for row in table.iter().filter(|row| row.in_flight == IN_FLIGHT[0]) {
        let same = table.iter().filter(|other| other.name == row.name).filter_map(|other| other.nanos);
        let costs: Vec<f64> = same.collect();
        let (least, most) =
            (costs.iter().copied().fold(f64::MAX, f64::min), costs.iter().copied().fold(0.0, f64::max));
        if costs.is_empty() {
            continue;
        }
        let cells: String = costs.iter().map(|nanos| format!(" {nanos:9.1}")).collect();
        let (growth, rate) = (most / least, pair::BITS / most);
        let (is_ours, is_pair) = (row.name.starts_with("ours/"), row.name.starts_with("pair/"));
        let carried = if is_pair { format!("   {rate:.1} Gbit/s") } else { String::new() };
        eprintln!("{:22}{cells}   ÷ {growth:.2}{carried}", row.name);
        if is_ours && growth > MOST_GROWTH || is_pair && rate < LEAST_GIGABITS {
            missed.push(&row.name);
        }
    }
    eprintln!();
    assert!(
        missed.is_empty(),
        "÷ {MOST_GROWTH} at most and {LEAST_GIGABITS} Gbit/s are asked for: {missed:?}"
    );
}

/// Nothing holds back but the windows, which are the widest there are.
fn config(mss: usize, congestion: CongestionKind, min_rto: Duration) -> Config {
    Config { congestion, min_rto, ..Config::full(mss, 64, 256 << 20) }
}

/// One segment of ikcp's format.
fn segment(command: u8, [ts, sn, una]: [u32; 3], payload: &[u8], packet: &mut Vec<u8>) {
    packet.extend_from_slice(&CONV.to_le_bytes());
    packet.extend_from_slice(&[command, 0, 0xff, 0xff]);
    for field in [ts, sn, una, u32::try_from(payload.len()).expect("a short payload")] {
        packet.extend_from_slice(&field.to_le_bytes());
    }
    packet.extend_from_slice(payload);
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a window")
}

/// The time this thread has computed: what it waited for others on the machine is no cost.
fn clock() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a clock that began at zero")
}

const CONV: u32 = 1;
const PUSH: u8 = 81;
const ACK: u8 = 82;
const TELL: u8 = 84;
const PAYLOAD: [u8; 16] = [0x5a; 16];
const IN_FLIGHT: [usize; 3] = [1_000, 16_000, 60_000];
const BATCH: usize = 32;
/// What is timed together, so that asking for the time is no part of it.
const ROUND: usize = 8 * BATCH;
/// The largest cost of ours by the smallest, of 1000 to 60,000 in flight.
const MOST_GROWTH: f64 = 1.5;
/// What a pair of ours carries at least on one core.
const LEAST_GIGABITS: f64 = 8.0;
const WARM_UP: Duration = Duration::from_millis(100);
const MEASURED: Duration = Duration::from_millis(400);
