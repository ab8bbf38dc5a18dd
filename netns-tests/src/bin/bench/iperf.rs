//! iperf3 between a client and the target.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::node::Node;
use netns_tests::process::Process;
use netns_tests::topology::Topology;

/// Which way the bulk of a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Down,
    Up,
}

impl Way {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

/// Starts the server on the target.
pub(crate) fn start_iperf(topology: &Topology) -> Result<Process> {
    let iperf = topology.target.program("iperf3")?.arg("-s").start()?;
    topology.target.wait_for_listener(IPERF_PORT, Duration::from_secs(10))?;
    Ok(iperf)
}

/// What the receiver of one TCP flow got, in bit/s, after `warm_up`.
pub(crate) fn iperf(client: &Node, way: Way, time: Duration, warm_up: Duration) -> Result<f64> {
    let words = format!("-c {TARGET} -J -t {} -O {}", time.as_secs(), warm_up.as_secs());
    let program = client.program("iperf3")?.words(&words);
    let program = if way == Way::Down { program.arg("-R") } else { program };
    let report = report(program, time + warm_up)?;
    report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 reported no rate")
}

/// Runs an iperf3 client for `time` and gives back its report.
pub(crate) fn report(program: netns_tests::process::Program, time: Duration) -> Result<serde_json::Value> {
    let finished = program.run(time + Duration::from_secs(60))?;
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).context("iperf3's report")?;
    ensure!(report["error"].is_null(), "iperf3: {}", report["error"]);
    Ok(report)
}

/// iperf3's own port.
const IPERF_PORT: u16 = 5201;
