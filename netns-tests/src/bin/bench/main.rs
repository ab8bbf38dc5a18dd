//! Measures the whole tunnel between real kernels, beside the direct path, and prints tables. `scripts/bench` runs this.
//!
//! Parts: `bulk` (one TCP flow on plain wires), `loss` (one TCP flow over a long line), `emulator` (the link itself, without a VPN).
#![expect(clippy::print_stdout, reason = "a program for people")]

mod emulator;
mod iperf;
mod usage;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use netns_tests::emulator::Profile;
use netns_tests::node::Node;
use netns_tests::table::Table;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PROGRAM, Vpn};

use crate::iperf::{Way, iperf, start_iperf};
use crate::usage::cpu_seconds;

fn main() -> ExitCode {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    let parts = if parts.is_empty() { PARTS.map(str::to_owned).to_vec() } else { parts };
    match parts.iter().try_for_each(|part| measure(part)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(part: &str) -> Result<()> {
    match part {
        "bulk" => bulk(),
        "loss" => loss(),
        "emulator" => emulator::emulator(),
        _ => bail!("no part {part}; there are {}", PARTS.join(", ")),
    }
}

/// One TCP flow on plain wires, each way, direct and through the tunnel.
fn bulk() -> Result<()> {
    println!(
        "One TCP flow on plain wires, {} s each (CPU seconds of each vpn process):\n",
        BULK_TIME.as_secs()
    );
    let topology = Topology::build(Setup::PLAIN)?;
    let _iperf = start_iperf(&topology)?;
    let direct = [Way::Down, Way::Up].map(|way| iperf(topology.client(), way, BULK_TIME, Duration::ZERO));
    let vpn = Vpn::prepare(&topology)?;
    let _serve = vpn.serve(&topology)?;
    vpn.up(&topology, 0, "")?;
    let mut table = Table::new(&[
        "",
        "direct Gbit/s",
        "VPN Gbit/s",
        "client CPU s",
        "server CPU s",
        "client s/GB",
        "server s/GB",
    ]);
    for (way, direct) in [Way::Down, Way::Up].into_iter().zip(direct) {
        let before = cpu_of_both(&topology)?;
        let rate = iperf(topology.client(), way, BULK_TIME, Duration::ZERO)?;
        let after = cpu_of_both(&topology)?;
        let gigabytes = rate * BULK_TIME.as_secs_f64() / 8e9;
        let cpu = [after[0] - before[0], after[1] - before[1]];
        let mut row =
            vec![way.label().to_owned(), format!("{:.2}", direct? / 1e9), format!("{:.2}", rate / 1e9)];
        row.extend(cpu.map(|seconds| format!("{seconds:.1}")));
        row.extend(cpu.map(|seconds| format!("{:.1}", seconds / gigabytes)));
        table.row(row);
    }
    vpn.down(&topology, 0)?.expect_code(0)?;
    println!("{table}");
    Ok(())
}

/// One TCP flow over a long line, as a share of what the line can carry.
fn loss() -> Result<()> {
    println!(
        "One TCP flow at {} Mbit/s and {:?}; goodput as a share of rate × (1 − loss):\n",
        RATE / 1_000_000,
        ROUND_TRIP
    );
    let mut table = Table::new(&["loss each way", "way", "direct", "VPN", "VPN Mbit/s"]);
    for loss in [0.0, 0.05] {
        let topology = Topology::build(Setup::link(Profile::long_line(RATE, ROUND_TRIP, loss)))?;
        let _iperf = start_iperf(&topology)?;
        let direct = [Way::Down, Way::Up].map(|way| iperf(topology.client(), way, LOSS_TIME, WARM_UP));
        let vpn = Vpn::prepare(&topology)?;
        let _serve = vpn.serve(&topology)?;
        vpn.up(&topology, 0, "")?;
        for (way, direct) in [Way::Down, Way::Up].into_iter().zip(direct) {
            let limit = RATE as f64 * (1.0 - loss);
            let rate = iperf(topology.client(), way, LOSS_TIME, WARM_UP)?;
            let percent = format!("{:.0} %", loss * 100.0);
            let share = |rate: f64| format!("{:.2}", rate / limit);
            table.row(vec![
                percent,
                way.label().to_owned(),
                share(direct?),
                share(rate),
                format!("{:.1}", rate / 1e6),
            ]);
        }
        vpn.down(&topology, 0)?.expect_code(0)?;
        expect_carried_by_the_shell(&topology)?;
    }
    println!("{table}");
    Ok(())
}

fn expect_carried_by_the_shell(topology: &Topology) -> Result<()> {
    let shell = topology.link().shell_stats()?;
    ensure!(shell.overruns == 0 && shell.unsent == 0, "the machine was too slow for the link: {shell:?}");
    Ok(())
}

/// The CPU seconds of every vpn on the client and on the server so far.
fn cpu_of_both(topology: &Topology) -> Result<[f64; 2]> {
    let of = |node: &Node| -> Result<f64> { node.pids_of(PROGRAM)?.into_iter().map(cpu_seconds).sum() };
    Ok([of(topology.client())?, of(&topology.server)?])
}

const PARTS: [&str; 3] = ["emulator", "bulk", "loss"];

/// The long line of the table.
const RATE: u64 = 100_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(100);

const BULK_TIME: Duration = Duration::from_secs(5);
const LOSS_TIME: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(3);
