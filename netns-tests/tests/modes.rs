//! The ways of looking like TCP, behind a router that drops what its connection tracking finds invalid.
//!
//! ```text
//!   client ──[ 40 ms ]── router ── server ── target
//!                 masquerade, be_liberal=0, ct state invalid drop
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER_BACK, TARGET};
use netns_tests::emulator::Profile;
use netns_tests::firewall;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};

const LIMIT: Duration = Duration::from_secs(20);
const SIZE: usize = 2 << 20;

#[test]
fn a_bare_carrier_passes_a_router_that_picks_up_connections() {
    through("a_bare_carrier_passes_a_router_that_picks_up_connections", "bare+advance", true);
}

#[test]
fn a_carrier_with_fixed_numbers_carries_files() {
    through("a_carrier_with_fixed_numbers_carries_files", "handshake+fixed", false);
}

#[test]
fn a_bare_carrier_with_fixed_numbers_carries_files() {
    through("a_bare_carrier_with_fixed_numbers_carries_files", "bare+fixed", true);
}

#[test]
fn a_bare_carrier_does_not_pass_a_router_that_wants_to_see_a_handshake() {
    let name = "a_bare_carrier_does_not_pass_a_router_that_wants_to_see_a_handshake";
    configured(name, "bare+advance", false, |topology, vpn| {
        let up = vpn.try_up(topology.client(), &vpn.client_path(0), "")?.expect_code(4)?;
        up.expect_text("asked without a SYN")?;
        ensure!(firewall::invalid(&topology.router)? > 0, "the router has not seen it");
        Ok(())
    });
}

#[test]
fn a_network_without_syns_is_passed_by_the_mode_that_needs_none() {
    let name = "a_network_without_syns_is_passed_by_the_mode_that_needs_none";
    configured(name, "auto", true, |topology, vpn| {
        let _services = Services::start(topology, SIZE)?;
        vpn.up(topology, 0, "").context("while SYNs pass")?;
        vpn.down(topology, 0)?.expect_code(0)?;
        let rule =
            format!("insert rule inet strict forward tcp dport {PORT} tcp flags & (syn | ack) == syn drop");
        topology.router.program("nft")?.arg(rule).output()?;
        // The third that is tried, each 1.5 s after the one before; and what a busy machine takes.
        vpn.up(topology, 0, "")?.expect_within(Duration::from_secs(6))?;
        let status = vpn.tunnel(topology.client())?;
        ensure!(status["carriers"][0]["mode"] == "bare+advance", "{status}");
        ensure!(services::seen_from(topology.client(), TARGET, LIMIT)? == SERVER_BACK);
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

/// Files both ways through a carrier that looks as was asked for, in which the router finds nothing wrong.
fn through(name: &str, mode: &str, loose: bool) {
    configured(name, mode, loose, |topology, vpn| {
        let services = Services::start(topology, SIZE)?;
        vpn.up(topology, 0, "")?;
        let status = vpn.tunnel(topology.client())?;
        ensure!(status["carriers"][0]["mode"] == mode, "{status}");
        ensure!(services::seen_from(topology.client(), TARGET, LIMIT)? == SERVER_BACK);
        services.download(topology.client(), TARGET, LIMIT)?;
        services.upload(topology.client(), TARGET, LIMIT)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        let invalid = firewall::invalid(&topology.router)?;
        ensure!(invalid == 0, "{invalid} packets were invalid");
        Ok(())
    });
}

fn configured(name: &str, mode: &str, loose: bool, body: impl FnOnce(&Topology, &Vpn) -> Result<()>) {
    let line = Setup::link(Profile { delay: Duration::from_millis(20), ..Profile::CLEAR });
    scenario(name, line, |topology| {
        firewall::raise(&topology.router, loose)?;
        let vpn = Vpn::prepare(topology)?;
        let config = vpn.client_config(0, &format!("[carrier]\nmode = \"{mode}\""));
        vpn.write("client0/client.toml", &config)?;
        let _serve = vpn.serve(topology)?;
        body(topology, &vpn)
    });
}
