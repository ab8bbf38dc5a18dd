//! Up, files both ways, and down: the right bytes, and both hosts as they were before.
//!
//! ```text
//!   client ──[ 100 Mbit/s, 40 ms, 0 or 5 % loss ]── router ── server ── target
//!     as before                                               as before
//! ```

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER_BACK, TARGET, TARGET_V6, client};
use netns_tests::emulator::Profile;
use netns_tests::host_state::HostState;
use netns_tests::process::Process;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PROGRAM, Vpn};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 20 << 20;

/// KCP's clock is one of milliseconds; above, what a busy machine adds to the shortest of many: less than once more.
const BELIEVABLE_RTT_MS: Range<f64> = 39.0..80.0;

fn link(loss: f64) -> Setup {
    Setup::link(Profile::long_line(100_000_000, Duration::from_millis(40), loss))
}

#[test]
fn files_are_right_both_ways_without_loss() {
    scenario("files_are_right_both_ways_without_loss", link(0.0), files_both_ways);
}

#[test]
fn files_are_right_both_ways_at_five_percent_loss() {
    scenario("files_are_right_both_ways_at_five_percent_loss", link(0.05), files_both_ways);
}

fn files_both_ways(topology: &Topology) -> Result<()> {
    let services = Services::start(topology, SIZE)?;
    let vpn = Vpn::prepare(topology)?;
    let _serve = vpn.serve(topology)?;
    vpn.up(topology, 0, "")?;
    for host in [IpAddr::from(TARGET), IpAddr::from(TARGET_V6)] {
        services.download(topology.client(), host, LIMIT)?;
        services.upload(topology.client(), host, LIMIT)?;
    }
    for node in [topology.client(), &topology.server] {
        let kcp = vpn.kcp(node)?;
        let (rtt, sent) = (kcp["min_rtt_ms"].as_f64(), kcp["payload_sent_bytes"].as_u64());
        let is_of_link = rtt.is_some_and(|rtt| BELIEVABLE_RTT_MS.contains(&rtt));
        ensure!(is_of_link && sent >= Some(2 * SIZE as u64), "{} says of KCP {kcp}", node.role());
    }
    vpn.down(topology, 0)?.expect_code(0)?;
    Ok(())
}

#[test]
fn vpn_down_undoes_everything() {
    leaves_nothing("vpn_down_undoes_everything", |topology, vpn| {
        vpn.up(topology, 0, "")?;
        uses_the_tunnel(topology)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        vpn.wait_for_end(topology.client())
    });
}

#[test]
fn sigterm_in_the_background_undoes_everything() {
    leaves_nothing("sigterm_in_the_background_undoes_everything", |topology, vpn| {
        vpn.up(topology, 0, "")?;
        uses_the_tunnel(topology)?;
        ensure!(topology.client().signal_all(PROGRAM, Signal::TERM)? > 0, "no vpn runs in the background");
        vpn.wait_for_end(topology.client())
    });
}

#[test]
fn sigint_in_the_foreground_undoes_everything_and_exits_zero() {
    leaves_nothing("sigint_in_the_foreground_undoes_everything_and_exits_zero", |topology, vpn| {
        let up = foreground(topology, vpn)?;
        uses_the_tunnel(topology)?;
        up.signal(Signal::INT)?;
        up.finish(LIMIT)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_second_up_is_refused_and_harms_nothing() {
    leaves_nothing("a_second_up_is_refused_and_harms_nothing", |topology, vpn| {
        vpn.up(topology, 0, "")?;
        vpn.try_up(topology.client(), &vpn.client_path(0), "")?.expect_code(1)?.expect_text("already up")?;
        uses_the_tunnel(topology)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        vpn.down(topology, 0)?.expect_code(6)?;
        Ok(())
    });
}

/// Runs `body` with a server, ends the server by SIGTERM, and compares both hosts with what they were.
fn leaves_nothing(name: &str, body: impl FnOnce(&Topology, &Vpn) -> Result<()>) {
    scenario(name, link(0.0), |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let server = HostState::of(&topology.server)?;
        let serve = vpn.serve(topology)?;
        let before = HostState::of(topology.client())?;
        body(topology, &vpn)?;
        before.expect_unchanged(topology.client())?;
        ensure!(
            services::seen_from(topology.client(), TARGET, LIMIT)? == client(0),
            "the client's own way does not work"
        );
        serve.signal(Signal::TERM)?;
        serve.finish(LIMIT)?.expect_code(0)?;
        server.expect_unchanged(&topology.server)
    });
}

fn foreground(topology: &Topology, vpn: &Vpn) -> Result<Process> {
    let up = vpn.program(topology.client())?.arg("up").arg(vpn.client_path(0)).arg("--foreground").start()?;
    netns_tests::wait::until("the tunnel to be up", LIMIT, || {
        let status = vpn.status(topology.client())?;
        Ok((status["tunnels"][0]["state"] == "up").then_some(()))
    })?;
    Ok(up)
}

fn uses_the_tunnel(topology: &Topology) -> Result<()> {
    let seen = services::seen_from(topology.client(), TARGET, LIMIT)?;
    ensure!(seen == SERVER_BACK, "the target sees {seen}, not the server");
    Ok(())
}
