//! A transfer that never ends: the cells of `benches/links.md`, shorter.

use vpn::kcp::CongestionKind;

use crate::harness::cells::{Path, bulk, ours};
use crate::harness::world::Engine;
use crate::harness::{ms, tunnel};

#[test]
fn bbr_fills_a_line_whatever_it_loses_and_sends_little_in_vain() {
    for round_trip in [20, 100, 200] {
        for (loss, least) in [(0, 0.95), (1, 0.95), (5, 0.95), (10, 0.95), (20, 0.90)] {
            let path = Path::new(50, round_trip, loss);
            let bulk = bulk(ours(), path, None, [3, 10], 1);
            assert!(bulk.goodput >= least - COARSE, "{path}: {bulk:?}");
            assert!(bulk.cost <= 1.05 + COARSE, "{path}: {bulk:?}");
        }
    }
}

#[test]
fn bbr_leaves_the_queue_short() {
    for (loss, longest) in [(0, ms(30)), (1, ms(30)), (5, ms(30)), (10, ms(30)), (20, ms(35))] {
        let path = Path::new(50, 100, loss);
        let bulk = bulk(ours(), path, None, [3, 13], 1);
        assert!(bulk.queue[0] <= ms(10) && bulk.queue[1] <= longest, "{path}: {bulk:?}");
    }
}

#[test]
fn bbr_fills_a_fast_short_line() {
    let path = Path::new(1000, 1, 0);
    let bulk = bulk(ours(), path, None, [1, 2], 1);
    assert!(bulk.goodput >= 0.95, "{path}: {bulk:?}");
}

#[test]
fn loss_fills_a_line_that_loses_nothing() {
    let path = Path::new(100, 100, 0);
    let bulk = bulk([Engine::Ours(tunnel(CongestionKind::Loss)); 2], path, None, [3, 9], 1);
    assert!(bulk.goodput >= 0.7, "{path}: {bulk:?}");
}

/// The cells of the table last 30 s; in seven, what waits for a lost segment when the time is up counts for more.
const COARSE: f64 = 0.03;
