//! What tools that nobody here wrote make of a busy tunnel, from `up` to `down`, seen by a strict router.
//!
//! ```text
//!   client ──[ 20 Mbit/s, 40 ms ]── router (tcpdump) ── server ── target
//!                              masquerade, be_liberal=0, ct state invalid drop
//! ```
//!
//! A busy time is: several flows up and down, nothing at all, a flow that a box kills for good (so another carrier takes over),
//! loss, an upload, small things. `JUDGED_SECONDS` makes it longer, `JUDGED_FILE` keeps the capture: `scripts/judge --minute` says both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::emulator::Profile;
use netns_tests::firewall;
use netns_tests::process::Process;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, IPERF_PORT, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(90);
const SIZE: usize = 1 << 20;

#[test]
fn judges_believe_a_busy_tunnel() {
    judged("judges_believe_a_busy_tunnel", "handshake+advance");
}

#[test]
fn judges_find_fixed_numbers_and_nothing_else() {
    judged("judges_find_fixed_numbers_and_nothing_else", "handshake+fixed");
}

#[test]
fn judges_miss_the_handshake_of_a_bare_carrier_and_nothing_else() {
    judged("judges_miss_the_handshake_of_a_bare_carrier_and_nothing_else", "bare+advance");
}

#[test]
fn judges_find_a_bare_carrier_with_fixed_numbers_and_nothing_else() {
    judged("judges_find_a_bare_carrier_with_fixed_numbers_and_nothing_else", "bare+fixed");
}

fn judged(name: &str, mode: &str) {
    scenario(name, Setup::link(line(0.0)), |topology| {
        firewall::raise(&topology.router, mode.starts_with("bare"))?;
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let config = vpn.client_config(0, &format!("[carrier]\nmode = \"{mode}\""));
        vpn.write("client0/client.toml", &config)?;
        let _serve = vpn.serve(topology)?;
        let capture = topology.router.capture("server", &format!("tcp port {PORT}"))?;
        vpn.up(topology, 0, "")?;
        busy(topology, &services, &vpn)?;
        let carriers = 1 + vpn.migrations(topology.client())?;
        vpn.down(topology, 0)?.expect_code(0)?;
        let capture = capture.finish_file()?;
        if let Some(kept) = std::env::var_os("JUDGED_FILE") {
            std::fs::copy(&capture, PathBuf::from(kept))?;
        }
        let invalid = firewall::invalid(&topology.router)?;
        ensure!(invalid == 0, "{invalid} packets were invalid");
        let judgement = judge(topology, mode, &capture)?;
        let connections = judgement.lines().find_map(|line| line.trim().strip_prefix("connections: "));
        let connections: u64 = connections.context("no connections")?.parse()?;
        ensure!(connections >= carriers && carriers > 1, "{connections} connections of {carriers} carriers");
        Ok(())
    });
}

/// A sixth of the time each.
fn busy(topology: &Topology, services: &Services, vpn: &Vpn) -> Result<()> {
    let (client, sixth) = (topology.client(), seconds().div_ceil(6));
    let _iperf = services::serve_iperf(&topology.target, TARGET)?;
    services::iperf(client, TARGET, &format!("--bidir -P 2 -t {sixth}"), LIMIT)?;
    wait::pass(Duration::from_secs(sixth));
    // Killed in mid-download, while others lose packets.
    topology.link().set_profiles([line(0.01), line(0.01)])?;
    let download = begin_download(topology, 2 * sixth)?;
    let before = vpn.migrations(client)?;
    wait::pass(Duration::from_secs(1));
    topology.link().kill_newest_tcp_flow()?;
    wait::until("another carrier to take over", LIMIT, || {
        Ok((vpn.migrations(client)? > before).then_some(()))
    })?;
    download.finish(LIMIT)?.expect_code(0)?;
    services::iperf(client, TARGET, &format!("-P 2 -t {sixth}"), LIMIT)?;
    topology.link().set_profiles([line(0.0), line(0.0)])?;
    services.download(client, TARGET, LIMIT)?;
    services::dig(client, 3)?;
    services::ping(client, TARGET, 20)?;
    Ok(())
}

fn begin_download(topology: &Topology, seconds: u64) -> Result<Process> {
    let words = format!("-R -P 3 -t {seconds} -p {IPERF_PORT} -c {TARGET}");
    topology.client().program("iperf3")?.words(&words).start()
}

/// What `scripts/judge` says, if it finds nothing amiss.
fn judge(topology: &Topology, mode: &str, capture: &Path) -> Result<String> {
    let judge = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/judge");
    let words = format!("--only tshark,ndpi,p0f,census --mode {mode}");
    let finished =
        topology.router.program(judge)?.words(&words).arg(capture).run(LIMIT * 4)?.expect_code(0)?;
    Ok(finished.stdout.clone())
}

fn line(loss: f64) -> Profile {
    Profile::long_line(20_000_000, Duration::from_millis(40), loss)
}

/// How long it is busy, about.
fn seconds() -> u64 {
    let asked = std::env::var("JUDGED_SECONDS").ok();
    asked.and_then(|seconds| seconds.parse().ok()).unwrap_or(SECONDS)
}

const SECONDS: u64 = 12;
