//! Many flows at once, TCP and UDP over both versions of IP, and a flood of pings.
//!
//! ```text
//!   client (iperf3 -c) ──── router ──── server ──── (iperf3 -s) target
//!            vpn up  ════ tunnel ════  vpn serve
//! ```

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER_V6, TARGET, TARGET_V6, TUNNEL_SERVER, TUNNEL_SERVER_V6};
use netns_tests::process::Process;
use netns_tests::scenario::scenario;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::Vpn;
use netns_tests::wait;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn flows_in_parallel_get_through_over_ipv4() {
    scenario("flows_in_parallel_get_through_over_ipv4", Setup::PLAIN, |topology| {
        flows_get_through(topology, &Vpn::prepare(topology)?)
    });
}

#[test]
fn flows_in_parallel_get_through_over_ipv6() {
    scenario("flows_in_parallel_get_through_over_ipv6", Setup::PLAIN, |topology| {
        flows_get_through(topology, &Vpn::prepare_for(topology, SERVER_V6)?)
    });
}

fn flows_get_through(topology: &Topology, vpn: &Vpn) -> Result<()> {
    let _serve = vpn.serve(topology)?;
    vpn.up(topology, 0, "")?;
    for (host, runs) in [
        (IpAddr::from(TARGET), [(4, ""), (50, "--reverse")]),
        (TARGET_V6.into(), [(50, ""), (5, "--reverse")]),
    ] {
        let mut iperf = Iperf::start(topology, host)?;
        for (flows, way) in runs {
            iperf.tcp(flows, way)?;
            iperf.udp(way)?;
        }
    }
    for host in [IpAddr::from(TARGET), TARGET_V6.into(), TUNNEL_SERVER.into(), TUNNEL_SERVER_V6.into()] {
        flood(topology, host)?;
    }
    vpn.down(topology, 0)?.expect_code(0)?;
    Ok(())
}

/// iperf3 on the target, and those that ask it.
struct Iperf<'a> {
    topology: &'a Topology,
    host: IpAddr,
    server: Process,
    runs: usize,
}

impl<'a> Iperf<'a> {
    /// Bound to its address: of two that the target has in one direction, UDP would answer from the other.
    fn start(topology: &'a Topology, host: IpAddr) -> Result<Self> {
        let server =
            topology.target.program("iperf3")?.words(&format!("-s -B {host} --forceflush")).start()?;
        Ok(Self { topology, host, server, runs: 0 })
    }

    /// In a few seconds, every one of `flows` carries something: on a busy machine one of many may wait for a second.
    fn tcp(&mut self, flows: usize, way: &str) -> Result<()> {
        // iperf3 counts what has arrived when its own time is up, so a number of bytes would be a matter of luck.
        let report = self.run(&format!("-P {flows} -t 3 {way}"))?;
        let streams = report["end"]["streams"].as_array().context("no streams in iperf3's report")?;
        ensure!(streams.len() == flows, "{} of {flows} flows", streams.len());
        let carried = |stream: &&Value| stream["receiver"]["bytes"].as_u64().unwrap_or(0) > 0;
        let carried = streams.iter().filter(carried).count();
        ensure!(carried == flows, "{carried} of {flows} flows {way} to {} carried something", self.host);
        Ok(())
    }

    /// Datagrams at a modest rate; a busy machine loses many of them.
    fn udp(&mut self, way: &str) -> Result<()> {
        let report = self.run(&format!("-u -b 20M -l 1200 -n {UDP_BYTES} {way}"))?;
        let sum = &report["end"]["sum"];
        let count = |key: &str| sum[key].as_u64().unwrap_or(0);
        let (packets, lost) = (count("packets"), count("lost_packets"));
        ensure!(packets * 1200 >= UDP_BYTES * 9 / 10, "{packets} datagrams {way} to {}: {sum}", self.host);
        let arrived = packets.saturating_sub(lost);
        ensure!(
            arrived * 1200 >= UDP_BYTES / 10,
            "{lost} of {packets} datagrams {way} to {} were lost",
            self.host
        );
        Ok(())
    }

    fn run(&mut self, words: &str) -> Result<Value> {
        self.runs += 1;
        wait::until("iperf3 to listen, for the first time or again", LIMIT, || {
            let (output, _) = self.server.logs()?;
            Ok((output.matches("Server listening").count() == self.runs).then_some(()))
        })?;
        let client = self.topology.client().program("iperf3")?.words(&format!("-c {} --json", self.host));
        let finished = client.words(words).run(LIMIT)?;
        let report: Value = serde_json::from_str(&finished.stdout).context("iperf3's report")?;
        ensure!(report["error"].is_null(), "iperf3 {words} to {}: {}", self.host, report["error"]);
        Ok(report)
    }
}

/// As fast as the answers come; a busy machine loses some.
fn flood(topology: &Topology, host: IpAddr) -> Result<()> {
    let ping =
        topology.client().program("ping")?.words(&format!("-n -q -f -c 500 -W 2 {host}")).run(LIMIT)?;
    let ping = ping.expect_code(0)?;
    let received = ping.stdout.split(", ").find_map(|part| part.strip_suffix(" received"));
    let received: u32 = received.context("no count in ping's output")?.parse()?;
    ensure!(received >= 250, "{host} answered {received} of 500 pings");
    Ok(())
}

/// Not quite a second's worth.
const UDP_BYTES: u64 = 2 << 20;
