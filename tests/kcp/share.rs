//! Two sessions on one line.

use crate::harness::cells::{Path, share};
use crate::harness::ms;

#[test]
fn a_session_that_starts_later_gets_its_half() {
    for (round_trip, loss) in [(20, 0), (100, 0), (100, 5), (200, 0)] {
        for seed in 1..=2 {
            let path = Path::new(10, round_trip, loss);
            let share = share(path, seed);
            assert!((0.4..=0.6).contains(&share.first), "{path}, seed {seed}: {share:?}");
            assert!(share.goodput >= 0.9, "{path}, seed {seed}: {share:?}");
            // Where packets are lost, two sessions of 5 Mbit/s can keep the queue full.
            let is_short = share.queue[0] < ms(round_trip) / 2;
            assert!(is_short || loss > 0, "{path}, seed {seed}: {share:?}");
        }
    }
}
