//! Hosts that are busy with something else: packets and timers are handled late, and many at once.

use crate::harness::cells::{Bulk, Load, Path, bulk, ours};
use crate::harness::ms;

fn busy(mean: u64, path: Path, span: [u64; 2]) -> Bulk {
    bulk(ours(), path, Some(Load { mean: ms(mean), longest: ms(20) }), span, 1)
}

#[test]
fn a_host_that_wakes_late_sends_no_less_for_it() {
    for mean in [1, 5, 10] {
        for loss in [0, 5] {
            let path = Path::new(100, 100, loss);
            let bulk = busy(mean, path, [3, 9]);
            assert!(bulk.goodput >= 0.9, "wakes each {mean} ms, {path}: {bulk:?}");
            assert!(bulk.cost <= 1.08, "wakes each {mean} ms, {path}: {bulk:?}");
        }
    }
}

#[test]
fn a_host_that_wakes_late_for_a_whole_round_trip_sends_little_less() {
    let path = Path::new(100, 20, 1);
    let bulk = busy(5, path, [3, 9]);
    assert!(bulk.goodput >= 0.8, "{path}: {bulk:?}");
    assert!(bulk.cost <= 1.1, "{path}: {bulk:?}");
}
