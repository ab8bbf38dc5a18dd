//! The tables.

use std::fmt::Write as _;
use std::time::Duration;

use crate::harness::cells::{Bulk, Echoes, Load, Path, Race, Share, bulk, crate_fast, median, ours, share};
use crate::harness::ms;
use crate::harness::world::Engine;
use crate::jobs::in_parallel;

pub(crate) const HEAD: &str = "\
# KCP over emulated lines

Printed by `cargo bench --bench links`: two ends of KCP over the emulator of `netns-tests/emulator` in virtual time, 64 bytes
of headers around each packet (1400 in all with a full segment of 1312), a queue of exactly one bandwidth-delay product, the
same loss each way. The same code gives the same table on any machine.
";

/// Prints one section.
type Section = fn() -> String;

/// The sections and how each is made.
pub(crate) const ALL: [(&str, Section); 6] = [
    ("matrix", matrix),
    ("queue", queue),
    ("gigabit", gigabit),
    ("share", sharing),
    ("echoes", echoes),
    ("stalls", stalls),
];

fn matrix() -> String {
    let paths = [20, 100, 200].map(|round_trip| LOSSES.map(|loss| Path::new(100, round_trip, loss)));
    let title = "## 100 Mbit/s\n\nGoodput of rate × (1 − loss) × payload share, over seconds 3 to 33; KCP bytes sent in the \
                 data's direction of delivered ÷ (1 − loss); time in the queue. Median of three seeds, the worst in brackets.";
    bulk_table(title, &paths.concat())
}

fn queue() -> String {
    let paths = LOSSES.map(|loss| Path::new(50, 100, loss));
    bulk_table("## 50 Mbit/s, 100 ms", &paths)
}

fn gigabit() -> String {
    bulk_table("## 1 Gbit/s, 200 ms", &[Path::new(1000, 200, 1)])
}

fn bulk_table(title: &str, paths: &[Path]) -> String {
    let mut out = format!(
        "{title}\n\n| line | goodput | bytes | queue p50 ms | p99 ms | queue full | spurious | timeouts |\n|---|---|---|---|---|---|---|---|\n"
    );
    let jobs = paths.iter().flat_map(|path| SEEDS.map(|seed| (*path, seed))).collect();
    let bulks = in_parallel(jobs, |(path, seed)| bulk(ours(), path, None, [3, 33], seed));
    for (path, bulks) in paths.iter().zip(bulks.chunks(SEEDS.len())) {
        writeln!(out, "| {path} {}", bulk_row(bulks)).expect("a string takes it");
    }
    out
}

fn bulk_row(bulks: &[Bulk]) -> String {
    let floats = |of: fn(&Bulk) -> f64| bulks.iter().map(of).collect::<Vec<_>>();
    let (goodput, cost) = (floats(|bulk| bulk.goodput), floats(|bulk| bulk.cost));
    let wait = |n: usize| bulks.iter().map(|bulk| bulk.queue[n]).collect::<Vec<_>>();
    let count = |of: fn(&Bulk) -> u64| median(bulks.iter().map(of).collect());
    format!(
        "| {:.3} ({:.3}) | {:.3} ({:.3}) | {} ({}) | {} ({}) | {} | {} | {} |",
        median(goodput.clone()),
        goodput.into_iter().fold(f64::INFINITY, f64::min),
        median(cost.clone()),
        cost.into_iter().fold(0.0, f64::max),
        millis(median(wait(0))),
        millis(wait(0).into_iter().max().unwrap_or_default()),
        millis(median(wait(1))),
        millis(wait(1).into_iter().max().unwrap_or_default()),
        count(|bulk| bulk.dropped),
        count(|bulk| bulk.stats.map_or(0, |stats| stats.spurious)),
        count(|bulk| bulk.stats.map_or(0, |stats| stats.timeouts)),
    )
}

fn sharing() -> String {
    let mut out = String::from(
        "## Two sessions on one line of 100 Mbit/s, the second started 5 s after the first\n\n\
         The first one's share of both over seconds 20 to 80 for five seeds; both together, of the limit; time in the queue.\n\n\
         | line | share of the first | goodput | queue p50 ms | p99 ms |\n|---|---|---|---|---|\n",
    );
    let paths: Vec<Path> = [20, 100, 200]
        .into_iter()
        .flat_map(|round_trip| [0, 5].map(|loss| Path::new(100, round_trip, loss)))
        .collect();
    let jobs = paths.iter().flat_map(|path| (1..=5).map(|seed| (*path, seed))).collect();
    let shares = in_parallel(jobs, |(path, seed)| share(path, seed));
    for (path, shares) in paths.iter().zip(shares.chunks(5)) {
        writeln!(out, "| {path} | {}", share_row(shares)).expect("a string takes it");
    }
    out
}

fn share_row(shares: &[Share]) -> String {
    let firsts: Vec<String> = shares.iter().map(|share| format!("{:.2}", share.first)).collect();
    let goodput = median(shares.iter().map(|share| share.goodput).collect());
    let wait = |n: usize| millis(median(shares.iter().map(|share| share.queue[n]).collect()));
    format!("{} | {:.3} | {} | {} |", firsts.join(" "), goodput, wait(0), wait(1))
}

fn echoes() -> String {
    let mut out = String::from(
        "## Echoes, one each 20 ms, beside the crate `kcp`\n\n\
         Medians of 20 seeds (1 to 20), in ms. The crate is set as ikcp's \"fast\": nodelay 1, interval 10, resend 1, nc 1, minrto \
         10, windows 128.\n\n| test | | average | p99 | max | KCP bytes an echo |\n|---|---|---|---|---|---|\n",
    );
    let races = [
        ("ikcp's, order kept".to_owned(), Race::of_ikcp(true)),
        ("ikcp's, each packet for itself".to_owned(), Race::of_ikcp(false)),
        ("kcp-go's, 10 %".to_owned(), Race::of_kcp_go(10, 1000)),
        ("kcp-go's, 20 %".to_owned(), Race::of_kcp_go(20, 1000)),
        ("kcp-go's, 30 %".to_owned(), Race::of_kcp_go(30, 1000)),
    ];
    for (name, race) in &races {
        for (who, engines) in [("ours", ours()), ("crate kcp", crate_fast())] {
            writeln!(out, "| {name} | {who} | {}", echo_row(race, engines)).expect("a string takes it");
        }
    }
    out
}

fn echo_row(race: &Race, engines: [Engine; 2]) -> String {
    let runs = in_parallel((1..=20).collect(), |seed| race.run(engines, seed));
    let middle = |of: fn(&Echoes) -> Duration| millis(median(runs.iter().map(of).collect()));
    let bytes = median(runs.iter().map(|run| run.sent_bytes / race.echoes).collect());
    format!(
        "{} | {} | {} | {bytes} |",
        middle(|run| run.average),
        middle(|run| run.p99),
        middle(|run| run.max)
    )
}

fn stalls() -> String {
    let mut out = String::from(
        "## Busy hosts, 100 Mbit/s, 100 ms\n\n\
         Each end handles packets and timers only at moments that are 0 to 20 ms apart, exponentially, with that mean. Seconds \
         3 to 33, median of three seeds.\n\n\
         | mean ms | loss % | goodput | bytes | queue p50 ms | p99 ms | min RTT ms | srtt ms | bandwidth Mbit/s | pacing Mbit/s \
         | spurious | timeouts |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let cells: Vec<(u64, u32)> =
        [0, 1, 2, 5, 10].into_iter().flat_map(|mean| [0, 1, 5, 20].map(|loss| (mean, loss))).collect();
    let jobs = cells.iter().flat_map(|cell| SEEDS.map(|seed| (*cell, seed))).collect();
    let bulks = in_parallel(jobs, |((mean, loss), seed)| {
        let load = (mean > 0).then_some(Load { mean: ms(mean), longest: ms(20) });
        bulk(ours(), Path::new(100, 100, loss), load, [3, 33], seed)
    });
    for ((mean, loss), bulks) in cells.iter().zip(bulks.chunks(SEEDS.len())) {
        writeln!(out, "| {mean} | {loss} {}", stall_row(bulks)).expect("a string takes it");
    }
    out
}

fn stall_row(bulks: &[Bulk]) -> String {
    let mut bulks: Vec<&Bulk> = bulks.iter().collect();
    bulks.sort_by(|a, b| a.goodput.total_cmp(&b.goodput));
    let bulk = bulks[bulks.len() / 2];
    let stats = bulk.stats.expect("it is ours");
    let megabits = |bytes: Option<u64>| bytes.unwrap_or_default() * 8 / 1_000_000;
    format!(
        "| {:.3} | {:.3} | {} | {} | {} | {} | {} | {} | {} | {} |",
        bulk.goodput,
        bulk.cost,
        millis(bulk.queue[0]),
        millis(bulk.queue[1]),
        millis(stats.min_rtt.unwrap_or_default()),
        millis(stats.srtt.unwrap_or_default()),
        megabits(stats.bandwidth),
        megabits(stats.pacing_rate),
        stats.spurious,
        stats.timeouts
    )
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

const LOSSES: [u32; 5] = [0, 1, 5, 10, 20];
const SEEDS: [u64; 3] = [1, 2, 3];
