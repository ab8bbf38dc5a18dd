//! What the demo shows, held as a test: real programs over a bad link.
//!
//! ```text
//!   client ──[ 100 Mbit/s, 100 ms, 2 % loss each way, no UDP ]── router ── server ── target
//!        vpn up  ═══════════════════ tunnel ═══════════════════  vpn serve
//! ```

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{
    SERVER_BACK, SERVER_BACK_V6, TARGET, TARGET_V6, TUNNEL_SERVER, TUNNEL_SERVER_V6, UNREACHABLE,
    UNREACHABLE_V6, url,
};
use netns_tests::emulator::Profile;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, NO_ROUTE, REFUSED, Services, fail_to_connect};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::Vpn;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 20_000_000;

/// A round trip of the link, one more for a lost packet, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn real_programs_work_over_a_bad_link() {
    let profile = Profile::long_line(100_000_000, Duration::from_millis(100), 0.02);
    scenario("real_programs_work_over_a_bad_link", Setup::link(profile).without_udp(), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        goes_through_the_server(topology)?;
        for host in [IpAddr::from(TARGET), IpAddr::from(TARGET_V6)] {
            services.download(topology.client(), host, LIMIT)?;
        }
        services::dig(topology.client(), 3)?;
        for host in [TARGET.into(), TARGET_V6.into(), TUNNEL_SERVER.into(), IpAddr::from(TUNNEL_SERVER_V6)] {
            let (answered, _) = services::ping(topology.client(), host, 20)?;
            ensure!(answered >= 0.5, "{host} answered {answered} of the pings");
        }
        fails_as_the_target_does(topology)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

fn goes_through_the_server(topology: &Topology) -> Result<()> {
    let seen = services::seen_from(topology.client(), TARGET, LIMIT)?;
    ensure!(seen == SERVER_BACK, "the target sees {seen}");
    let seen = services::seen_from(topology.client(), TARGET_V6, LIMIT)?;
    ensure!(seen == SERVER_BACK_V6, "the target sees {seen}");
    Ok(())
}

fn fails_as_the_target_does(topology: &Topology) -> Result<()> {
    for host in [IpAddr::from(TARGET), IpAddr::from(TARGET_V6)] {
        fail_to_connect(topology.client(), &url(host, 81, "/"), REFUSED, LIMIT)?.expect_within(SOON)?;
    }
    for host in [IpAddr::from(UNREACHABLE), IpAddr::from(UNREACHABLE_V6)] {
        fail_to_connect(topology.client(), &url(host, 80, "/"), NO_ROUTE, LIMIT)?.expect_within(SOON)?;
    }
    Ok(())
}
