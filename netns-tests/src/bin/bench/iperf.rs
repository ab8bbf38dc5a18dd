//! iperf3 between a client and the target.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::node::Node;
use netns_tests::process::{Process, Program};
use netns_tests::topology::Topology;

/// Which way the bulk of a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Down,
    Up,
}

/// Starts the server on the target.
pub(crate) fn start_iperf(topology: &Topology) -> Result<Process> {
    let iperf = topology.target.program("iperf3")?.arg("-s").start()?;
    topology.target.wait_for_listener(IPERF_PORT, Duration::from_secs(10))?;
    Ok(iperf)
}

/// What the receiver of one TCP flow got, in bit/s, after `warm_up`.
pub(crate) fn iperf(client: &Node, way: Way, time: Duration, warm_up: Duration) -> Result<f64> {
    iperf_to(client, SocketAddr::new(IpAddr::V4(TARGET), IPERF_PORT), way, time, warm_up)
}

/// The same by another way to the server.
pub(crate) fn iperf_to(
    client: &Node,
    server: SocketAddr,
    way: Way,
    time: Duration,
    warm_up: Duration,
) -> Result<f64> {
    let (host, port) = (server.ip(), server.port());
    let words = format!("-c {host} -p {port} -J -t {} -O {}", time.as_secs(), warm_up.as_secs());
    let program = client.program("iperf3")?.words(&words);
    let program = if way == Way::Down { program.arg("-R") } else { program };
    let report = report(program, time + warm_up)?;
    report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 reported no rate")
}

/// Runs an iperf3 client for `time` and gives back its report.
pub(crate) fn report(program: Program, time: Duration) -> Result<serde_json::Value> {
    let finished = program.run(time + Duration::from_secs(60))?;
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).context("iperf3's report")?;
    ensure!(report["error"].is_null(), "iperf3: {}", report["error"]);
    Ok(report)
}

/// iperf3's own port.
pub(crate) const IPERF_PORT: u16 = 5201;
