//! A transfer that never ends: the cells of `benches/links.md`, shorter.

use vpn::kcp::CongestionKind;

use crate::harness::cells::{Path, bulk, ours};
use crate::harness::ours::Sending;
use crate::harness::world::Engine;
use crate::harness::{SESSION_BUFFER, ms, tunnel};

#[test]
fn bbr_fills_a_line_whatever_it_loses_and_sends_little_in_vain() {
    for round_trip in [20, 100, 200] {
        for loss in [0, 1, 5, 10, 20] {
            let path = Path::new(50, round_trip, loss);
            let bulk = bulk(ours(), path, None, [3, 10], 1);
            assert!(bulk.goodput >= path.least_goodput() - COARSE, "{path}: {bulk:?}");
            assert!(bulk.cost <= 1.05 + COARSE, "{path}: {bulk:?}");
            assert!(bulk.stats.is_some_and(|stats| stats.spurious <= 1), "{path}: {bulk:?}");
        }
    }
}

#[test]
fn bbr_leaves_the_queue_short() {
    // With 20 % lost the aim of 30 ms is missed by a little, as the table says.
    for (loss, longest) in [(0, ms(30)), (1, ms(30)), (5, ms(30)), (10, ms(30)), (20, ms(33))] {
        let path = Path::new(50, 100, loss);
        // More than the ten seconds from one look for the shortest round trip to the next.
        let bulk = bulk(ours(), path, None, [3, 18], 1);
        assert!(bulk.queue[0] <= ms(10) && bulk.queue[1] <= longest, "{path}: {bulk:?}");
        // What Startup sends until it learns that the path is full: two bandwidth-delay products.
        assert!(bulk.dropped <= 1000, "{path}: {bulk:?}");
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
    let loss = Engine::Ours(tunnel(CongestionKind::Loss, SESSION_BUFFER), Sending::Pulled);
    let bulk = bulk([loss; 2], path, None, [3, 9], 1);
    assert!(bulk.goodput >= 0.7, "{path}: {bulk:?}");
}

/// The cells of the table last 30 s; in seven, one look for the shortest round trip counts for more.
const COARSE: f64 = 0.03;
