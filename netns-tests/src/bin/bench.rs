//! Measures the whole tunnel between real kernels, beside the direct path, and prints tables. `scripts/bench` runs this.
//!
//! Parts: `bulk` (one TCP flow on plain wires), `loss` (one TCP flow over a long line), `emulator` (the link itself, without a VPN).
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::emulator::{Direction, Profile};
use netns_tests::node::Node;
use netns_tests::process::Process;
use netns_tests::services;
use netns_tests::table::Table;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PROGRAM, Vpn};

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
        "emulator" => emulator(),
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

/// What the link does in real time, beside what it was asked for.
fn emulator() -> Result<()> {
    println!("The link emulator in real time:\n");
    let mut table = Table::new(&["", "asked", "measured"]);
    let lossy = Profile { delay: ROUND_TRIP / 2, loss: 0.05, ..Profile::CLEAR };
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

/// Which way the bulk of a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Down,
    Up,
}

impl Way {
    const fn label(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

fn start_iperf(topology: &Topology) -> Result<Process> {
    let iperf = topology.target.program("iperf3")?.arg("-s").start()?;
    topology.target.wait_for_listener(IPERF_PORT, Duration::from_secs(10))?;
    Ok(iperf)
}

/// What the receiver of one TCP flow got, in bit/s, after `warm_up`.
fn iperf(client: &Node, way: Way, time: Duration, warm_up: Duration) -> Result<f64> {
    let words = format!("-c {TARGET} -J -t {} -O {}", time.as_secs(), warm_up.as_secs());
    let program = client.program("iperf3")?.words(&words);
    let program = if way == Way::Down { program.arg("-R") } else { program };
    let report = report(program, time + warm_up)?;
    report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 reported no rate")
}

/// Sends full UDP packets at `rate`, in bit/s of IP packets.
fn load_with_udp(client: &Node, rate: u64) -> Result<()> {
    let payload = rate * UDP_PAYLOAD / FULL_PACKET;
    let words = format!("-u -c {TARGET} -J -t {} -b {payload} -l {UDP_PAYLOAD}", BULK_TIME.as_secs());
    report(client.program("iperf3")?.words(&words), BULK_TIME)?;
    Ok(())
}

fn report(program: netns_tests::process::Program, time: Duration) -> Result<serde_json::Value> {
    let finished = program.run(time + Duration::from_secs(60))?;
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).context("iperf3's report")?;
    ensure!(report["error"].is_null(), "iperf3: {}", report["error"]);
    Ok(report)
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

/// User and system time of a process so far (proc(5), fields 14 and 15 of `stat`).
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    // The second field is the name in parentheses, which may hold spaces.
    let (_, fields) = stat.rsplit_once(") ").context("no name in /proc/PID/stat")?;
    let mut times = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    let (user, system) = (times.next().context("no user time")??, times.next().context("no system time")??);
    Ok((user + system) / rustix::param::clock_ticks_per_second() as f64)
}

const PARTS: [&str; 3] = ["emulator", "bulk", "loss"];

/// The long line of the table.
const RATE: u64 = 100_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// What the emulator must carry on one core, and a line that leaves room for it.
const FAST_LOAD: u64 = 500_000_000;
const FAST: u64 = 600_000_000;

const BULK_TIME: Duration = Duration::from_secs(5);
const LOSS_TIME: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(3);

/// iperf3's own port.
const IPERF_PORT: u16 = 5201;

/// An IPv4 packet of an ordinary link, and the payload of UDP in it.
const FULL_PACKET: u64 = 1500;
const UDP_PAYLOAD: u64 = FULL_PACKET - 20 - 8;
