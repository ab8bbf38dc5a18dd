//! Small traffic: how long an echo takes, beside the crate `kcp` at its fastest.

use std::time::Duration;

use crate::harness::cells::{Echoes, Race, crate_fast, median, ours};
use crate::harness::ms;
use crate::harness::world::Engine;

fn race(race: &Race, engines: [Engine; 2], seeds: u64) -> Echoes {
    let runs: Vec<Echoes> = (1..=seeds).map(|seed| race.run(engines, seed)).collect();
    let middle = |of: fn(&Echoes) -> Duration| median(runs.iter().map(of).collect());
    Echoes {
        average: middle(|run| run.average),
        p99: middle(|run| run.p99),
        max: middle(|run| run.max),
        sent_bytes: median(runs.iter().map(|run| run.sent_bytes).collect()),
    }
}

#[test]
fn ikcps_own_test_takes_a_fifth_less_time_than_ikcp_does() {
    for keeps_order in [true, false] {
        let echoes = race(&Race::of_ikcp(keeps_order), ours(), 20);
        assert!(echoes.average <= ms(112), "seeds 1 to 20, order kept {keeps_order}: {echoes:?}");
        assert!(echoes.max <= ms(380), "seeds 1 to 20, order kept {keeps_order}: {echoes:?}");
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
