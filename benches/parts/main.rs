//! The parts of the data path alone, each under a virtual clock and without system calls: `cargo bench --bench parts`, or
//! `cargo bench --bench parts kcp` for some. Each asserts that it does what it is to measure before and after it is timed.

mod carrier;
mod crypto;
mod flow;
mod kcp;
mod mux;
mod session;
mod tcp;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};

/// Where every virtual clock starts.
#[expect(clippy::disallowed_methods, reason = "a virtual clock must start somewhere")]
fn start() -> Instant {
    Instant::now()
}

/// Short, because the parts are quick and their figures steady.
fn settings() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = parts;
    config = settings();
    targets = carrier::bench, crypto::bench, kcp::bench, mux::bench, flow::bench, session::bench
}
criterion_main!(parts);
