//! A transfer that never ends: the cells of `benches/links.md`, shorter.

use vpn::kcp::CongestionKind;

use crate::harness::cells::{Path, bulk, ours};
use crate::harness::world::Engine;
use crate::harness::{ms, tunnel};

#[test]
fn bbr_fills_a_long_line_whatever_it_loses() {
    for (loss, least) in [(0, 0.85), (1, 0.85), (5, 0.85), (10, 0.85), (20, 0.80)] {
        let path = Path::new(100, 100, loss);
        let bulk = bulk(ours(), path, None, [3, 9], 1);
        assert!(bulk.goodput >= least, "{path}: {bulk:?}");
        assert!(bulk.queue[0] < ms(15) && bulk.queue[1] < ms(60), "{path}: {bulk:?}");
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
