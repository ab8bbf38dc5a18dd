//! The link itself, without a VPN: what it was asked for, and what comes out of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::emulator::{Blackouts, Jitter, Line, Loss, Profile, Reorder};
use netns_tests::probe::{Outcome, Probe};
use netns_tests::services;
use netns_tests::table::Table;
use netns_tests::topology::{Setup, Topology};

use crate::iperf::{Way, iperf, start_iperf};

/// What the link does in real time, beside what it was asked for.
pub(crate) fn emulator() -> Result<()> {
    println!("The link emulator in real time, from numbered datagrams of the client to the target:\n");
    let mut table = Table::new(&["", "asked", "measured"]);
    let topology = Topology::build(Setup::line(Line::new(Profile::CLEAR)))?;
    Feature::ALL.iter().try_for_each(|feature| feature.measure(&topology, &mut table))?;
    full_load(&topology, &mut table)?;
    drop(topology);
    programs(&mut table)?;
    println!("{table}");
    Ok(())
}

/// Something that a line does to datagrams.
struct Feature {
    profile: Profile,
    probe: Probe,
    rows: fn(&Outcome) -> Vec<[String; 3]>,
}

impl Feature {
    const ALL: [Self; 7] = [
        Self {
            profile: Profile { delay: DELAY, ..Profile::CLEAR },
            probe: Probe { count: 2000, gap: Duration::from_millis(1), size: 100 },
            rows: |outcome| {
                let [least, median, most] = [0.0, 0.5, 0.99].map(|share| milliseconds(outcome.delay(share)));
                vec![row("delay", "50 ms", format!("{median} ms ({least} to {most}, 99 % of them)"))]
            },
        },
        Self {
            profile: Profile { delay: DELAY, jitter: Jitter::unordered(JITTER), ..Profile::CLEAR },
            probe: Probe { count: 2000, gap: Duration::from_millis(1), size: 100 },
            rows: |outcome| {
                let delays = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| milliseconds(outcome.delay(share)));
                vec![row("delay with jitter, quartiles", "50, 55, 60, 65, 70 ms", delays.join(", "))]
            },
        },
        Self {
            profile: Profile { loss: Loss::Random(0.05), ..Profile::CLEAR },
            probe: MANY,
            rows: |outcome| vec![row("random loss", "5 %", percent(outcome.loss()))],
        },
        Self {
            profile: Profile { loss: Loss::bursts(0.05, 8.0), ..Profile::CLEAR },
            probe: MANY,
            rows: |outcome| {
                let losses = outcome.losses();
                let mean = f64::from(losses.iter().sum::<u32>()) / losses.len().max(1) as f64;
                vec![
                    row("loss in bursts", "5 %", percent(outcome.loss())),
                    row("mean length of a burst", "8", format!("{mean:.1}")),
                ]
            },
        },
        Self {
            profile: Profile { reorder: Reorder::new(0.02, 5), duplicate: 0.03, ..Profile::CLEAR },
            probe: MANY,
            rows: |outcome| {
                let overtaken = outcome.overtaken();
                let share = overtaken.len() as f64 / outcome.arrivals.len().max(1) as f64;
                let mean = overtaken.iter().sum::<usize>() as f64 / overtaken.len().max(1) as f64;
                vec![
                    row("overtaken by others", "2 %", percent(share)),
                    row("by how many", "5", format!("{mean:.1}")),
                    row("duplicated", "3 %", percent(outcome.duplicated())),
                ]
            },
        },
        Self {
            profile: Profile { rate: Some(RATE), queue: QUEUE, ..Profile::CLEAR },
            // Twice the rate.
            probe: Probe { count: 5000, gap: Duration::from_micros(300), size: FULL },
            rows: |outcome| {
                vec![
                    row("rate", "20 Mbit/s", format!("{:.2} Mbit/s", outcome.rate() / 1e6)),
                    row(
                        "longest wait in the queue",
                        "100 ms",
                        format!("{} ms", milliseconds(outcome.delay(0.99))),
                    ),
                ]
            },
        },
        Self {
            profile: Profile { blackouts: Some(Blackouts::once(BLACKOUT, BLACKOUT)), ..Profile::CLEAR },
            probe: Probe { count: 3000, gap: Duration::from_micros(500), size: 100 },
            rows: |outcome| {
                let (surely, at_most) = outcome.longest_silence();
                let measured = format!("{} to {} ms", milliseconds(surely), milliseconds(at_most));
                vec![row("blackout by schedule", "500 ms", measured)]
            },
        },
    ];

    fn measure(&self, topology: &Topology, table: &mut Table) -> Result<()> {
        topology.link().set_profiles([self.profile, Profile::CLEAR])?;
        let outcome = self.probe.run(topology.client(), &topology.target, TARGET)?;
        (self.rows)(&outcome).into_iter().for_each(|row| table.row(row.to_vec()));
        expect_carried_by_the_shell(topology)
    }
}

/// Full packets, as many as one core must carry.
fn full_load(topology: &Topology, table: &mut Table) -> Result<()> {
    let profile = Profile { delay: DELAY, ..Profile::CLEAR };
    topology.link().set_profiles([profile, Profile::CLEAR])?;
    let before = topology.link().shell_stats()?;
    let outcome = FULL_LOAD.run(topology.client(), &topology.target, TARGET)?;
    let after = topology.link().shell_stats()?;
    // A busy machine takes longer to send them.
    let time = FULL as f64 * 8.0 * outcome.arrivals.len() as f64 / outcome.rate();
    let cores = (after.cpu - before.cpu).as_secs_f64() / time;
    let offered = FULL as f64 * 8.0 / FULL_LOAD.gap.as_secs_f64();
    let [median, most] = [0.5, 0.99].map(|share| milliseconds(outcome.delay(share)));
    let [out, _] = topology.link().stats()?;
    let missed = after.overruns + after.unsent + out.overflow;
    table.row(row("full packets", megabits(offered), megabits(outcome.rate())).to_vec());
    table.row(row("  lost of them", "0 %", percent(outcome.loss())).to_vec());
    table.row(row("  CPU of the link's thread", "at most 1 core", format!("{cores:.2} cores")).to_vec());
    table.row(row("  their delay", "50 ms", format!("{median} ms (99 %: {most})")).to_vec());
    table.row(row("  the thread missed", "0", missed.to_string()).to_vec());
    Ok(())
}

/// What real programs see.
fn programs(table: &mut Table) -> Result<()> {
    let lossy = Profile { delay: DELAY, loss: Loss::Random(0.05), ..Profile::CLEAR };
    let topology = Topology::build(Setup::link(lossy))?;
    let (answered, mean) = services::ping(topology.client(), TARGET, 300)?;
    let mean = format!("{:.2} ms", mean.context("no answer")?);
    table.row(row("round trip of ping", "100 ms", mean).to_vec());
    table.row(row("pings answered at 5 % each way", "90.2 %", percent(answered)).to_vec());
    drop(topology);
    let line = Topology::build(Setup::link(Profile::long_line(LINE, DELAY * 2, 0.0)))?;
    let _iperf = start_iperf(&line)?;
    let rate = iperf(line.client(), Way::Down, TCP_TIME, WARM_UP)?;
    let asked = megabits(LINE as f64 * TCP_PAYLOAD / FULL as f64);
    table.row(row("one TCP flow of iperf3, 100 Mbit/s, 100 ms", asked, megabits(rate)).to_vec());
    expect_carried_by_the_shell(&line)
}

fn expect_carried_by_the_shell(topology: &Topology) -> Result<()> {
    let shell = topology.link().shell_stats()?;
    let overflow: u64 = topology.link().stats()?.iter().map(|stats| stats.overflow).sum();
    ensure!(
        shell.overruns == 0 && shell.unsent == 0 && overflow == 0,
        "the machine was too slow for the link: {shell:?}"
    );
    Ok(())
}

fn row(what: &str, asked: impl Into<String>, measured: impl Into<String>) -> [String; 3] {
    [what.to_owned(), asked.into(), measured.into()]
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn megabits(rate: f64) -> String {
    format!("{:.0} Mbit/s", rate / 1e6)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

const DELAY: Duration = Duration::from_millis(50);
const JITTER: Duration = Duration::from_millis(20);
const QUEUE: Duration = Duration::from_millis(100);
const BLACKOUT: Duration = Duration::from_millis(500);
const RATE: u64 = 20_000_000;

/// Small packets, enough of them to see a share of some percent.
const MANY: Probe = Probe { count: 40_000, gap: Duration::from_micros(50), size: 100 };

/// 500 Mbit/s for 5 s.
const FULL_LOAD: Probe = Probe { count: 208_333, gap: Duration::from_micros(24), size: FULL };

/// An IPv4 packet of an ordinary link.
const FULL: usize = 1500;

/// The data in a full TCP segment with timestamps.
const TCP_PAYLOAD: f64 = 1448.0;
const LINE: u64 = 100_000_000;
const TCP_TIME: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(3);
