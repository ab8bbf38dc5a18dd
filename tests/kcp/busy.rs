//! Hosts that are busy with something else: packets and timers are handled late, and many at once.

use crate::harness::cells::{Bulk, Load, Path, bulk, ours};
use crate::harness::ms;

/// Hosts that run on average each so many milliseconds, or whenever they like.
fn busy(mean: Option<u64>, path: Path) -> Bulk {
    bulk(ours(), path, mean.map(|mean| Load { mean: ms(mean), longest: ms(20) }), [3, 9], 1)
}

#[test]
fn a_host_that_wakes_late_sends_no_less_for_it() {
    for loss in [0, 5] {
        let path = Path::new(100, 100, loss);
        let free = busy(None, path);
        for mean in [1, 5, 10] {
            let bulk = busy(Some(mean), path);
            let context = format!("wakes each {mean} ms, {path}: {bulk:?}, without load {free:?}");
            assert!(bulk.goodput >= 0.93 * free.goodput && bulk.cost <= 1.08, "{context}");
        }
    }
}

#[test]
fn a_host_that_wakes_late_for_a_whole_round_trip_sends_little_less() {
    let path = Path::new(100, 20, 1);
    let (free, bulk) = (busy(None, path), busy(Some(5), path));
    let context = format!("{path}: {bulk:?}, without load {free:?}");
    assert!(bulk.goodput >= 0.93 * free.goodput && bulk.cost <= 1.1, "{context}");
}
