//! The link itself, without a VPN.

use std::time::Duration;

use anyhow::{Context, Result};
use netns_tests::addresses::TARGET;
use netns_tests::emulator::{Direction, Loss, Profile};
use netns_tests::node::Node;
use netns_tests::services;
use netns_tests::table::Table;
use netns_tests::topology::{Setup, Topology};

use crate::iperf::{Way, iperf, report, start_iperf};
use crate::usage::cpu_seconds;

/// What the link does in real time, beside what it was asked for.
pub(crate) fn emulator() -> Result<()> {
    println!("The link emulator in real time:\n");
    let mut table = Table::new(&["", "asked", "measured"]);
    let lossy = Profile { delay: ROUND_TRIP / 2, loss: Loss::Random(0.05), ..Profile::CLEAR };
    let topology = Topology::build(Setup::link(lossy))?;
    let (answered, mean) = services::ping(topology.client(), TARGET, 300)?;
    let [out, inward] = topology.link().stats()?;
    table.row(vec![
        "round trip".to_owned(),
        format!("{ROUND_TRIP:?}"),
        format!("{:.2} ms", mean.context("no answer")?),
    ]);
    table.row(vec!["pings answered".to_owned(), "90.2 %".to_owned(), format!("{:.1} %", answered * 100.0)]);
    let share = (out.lost + inward.lost) as f64 / (out.received + inward.received) as f64;
    table.row(vec!["loss, by its own count".to_owned(), "5 %".to_owned(), format!("{:.1} %", share * 100.0)]);
    drop(topology);

    let fast = Profile { delay: ROUND_TRIP / 2, rate: Some(FAST), queue: ROUND_TRIP, ..Profile::CLEAR };
    let topology = Topology::build(Setup::link(fast))?;
    let _iperf = start_iperf(&topology)?;
    let before = cpu_seconds(std::process::id())?;
    load_with_udp(topology.client(), FAST_LOAD)?;
    let cpu = (cpu_seconds(std::process::id())? - before) / BULK_TIME.as_secs_f64();
    let out = topology.link().stats()?[Direction::Out.index()];
    let rate = out.forwarded_bytes as f64 * 8.0 / BULK_TIME.as_secs_f64();
    let megabits = |rate: f64| format!("{:.0} Mbit/s", rate / 1e6);
    table.row(vec!["full UDP packets carried".to_owned(), megabits(FAST_LOAD as f64), megabits(rate)]);
    table.row(vec!["CPU for that".to_owned(), "at most one core".to_owned(), format!("{cpu:.2} cores")]);
    let shell = topology.link().shell_stats()?;
    table.row(vec![
        "frames sent late, at most".to_owned(),
        "0".to_owned(),
        format!("{:.2} ms", shell.latest.as_secs_f64() * 1e3),
    ]);
    table.row(vec![
        "frames the thread missed".to_owned(),
        "0".to_owned(),
        (shell.overruns + shell.unsent).to_string(),
    ]);
    table.row(vec!["frames the queue dropped".to_owned(), "0".to_owned(), out.queue_full.to_string()]);
    drop(topology);

    let line = Topology::build(Setup::link(Profile::long_line(RATE, ROUND_TRIP, 0.0)))?;
    let _iperf = start_iperf(&line)?;
    let rate = iperf(line.client(), Way::Down, LOSS_TIME, WARM_UP)?;
    table.row(vec![
        "one TCP flow (1448 of 1500 bytes)".to_owned(),
        megabits(RATE as f64 * 1448.0 / 1500.0),
        megabits(rate),
    ]);
    println!("{table}");
    Ok(())
}

/// Sends full UDP packets at `rate`, in bit/s of IP packets.
fn load_with_udp(client: &Node, rate: u64) -> Result<()> {
    let payload = rate * UDP_PAYLOAD / FULL_PACKET;
    let words = format!("-u -c {TARGET} -J -t {} -b {payload} -l {UDP_PAYLOAD}", BULK_TIME.as_secs());
    report(client.program("iperf3")?.words(&words), BULK_TIME)?;
    Ok(())
}

/// The long line of the table.
const RATE: u64 = 100_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// What the emulator must carry on one core, and a line that leaves room for it.
const FAST_LOAD: u64 = 500_000_000;
const FAST: u64 = 600_000_000;

const BULK_TIME: Duration = Duration::from_secs(5);
const LOSS_TIME: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(3);

/// An IPv4 packet of an ordinary link, and the payload of UDP in it.
const FULL_PACKET: u64 = 1500;
const UDP_PAYLOAD: u64 = FULL_PACKET - 20 - 8;
