//! Small traffic: how long an echo takes, beside the crate `kcp` at its fastest.

use crate::harness::cells::{Echoes, Race, crate_fast, ours};
use crate::harness::ms;
use crate::harness::world::Engine;

fn race(race: &Race, engines: [Engine; 2], seeds: u64) -> Echoes {
    let runs: Vec<Echoes> = (1..=seeds).map(|seed| race.run(engines, seed)).collect();
    Echoes::median(&runs)
}

#[test]
fn ikcps_own_test_takes_at_most_85_percent_of_the_crates_time() {
    for keeps_order in [true, false] {
        let test = Race::of_ikcp(keeps_order);
        let [mine, theirs] = [ours(), crate_fast()].map(|engines| race(&test, engines, 20));
        let context = format!("seeds 1 to 20, order kept {keeps_order}: {mine:?}, the crate {theirs:?}");
        assert!(mine.average <= theirs.average.mul_f64(0.85), "{context}");
        assert!(mine.average <= ms(112) && mine.max <= ms(380), "{context}");
    }
}

#[test]
fn echoes_are_quicker_than_the_crates_however_much_is_lost() {
    for loss in [10, 20, 30] {
        let test = Race::of_kcp_go(loss, 500);
        let [mine, theirs] = [ours(), crate_fast()].map(|engines| race(&test, engines, 5));
        assert!(mine.average < theirs.average, "{loss} %: {mine:?}, the crate {theirs:?}");
        assert!(mine.p99 < theirs.p99, "{loss} %: {mine:?}, the crate {theirs:?}");
    }
}
