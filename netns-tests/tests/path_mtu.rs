//! Links with room for more, for just enough, and for less than an outer packet.
//!
//! ```text
//!   client ──── [ 9000 | 1420 | 1400 | 1280 bytes ] ──── router ──── server ──── target
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER_V6, TARGET, TARGET_V6};
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 5 << 20;

/// What an `up` or a download may take to find out what fits: a few round trips and timeouts.
const SOON: Duration = Duration::from_secs(6);

#[test]
fn files_are_right_over_links_with_big_frames() {
    scenario("files_are_right_over_links_with_big_frames", Setup::PLAIN, |topology| {
        for (node, interface) in [
            (&topology.router, "client0"),
            (&topology.router, "server"),
            (&topology.router, "target"),
            (&topology.server, "eth0"),
            (&topology.server, "target"),
            (&topology.target, "eth0"),
            (&topology.target, "eth1"),
            (topology.client(), "eth0"),
        ] {
            node.ip(&format!("link set {interface} mtu 9000"))?;
        }
        expect_files_both_ways(topology, &Vpn::prepare(topology)?)
    });
}

#[test]
fn an_outer_packet_over_ipv4_fits_a_path_of_1400_bytes() {
    scenario("an_outer_packet_over_ipv4_fits_a_path_of_1400_bytes", Setup::PLAIN, |topology| {
        narrow(topology, 1400)?;
        expect_files_both_ways(topology, &Vpn::prepare(topology)?)
    });
}

#[test]
fn an_outer_packet_over_ipv6_fits_a_path_of_1420_bytes() {
    scenario("an_outer_packet_over_ipv6_fits_a_path_of_1420_bytes", Setup::PLAIN, |topology| {
        narrow(topology, 1420)?;
        expect_files_both_ways(topology, &Vpn::prepare_for(topology, SERVER_V6)?)
    });
}

#[test]
fn files_are_right_over_a_path_of_1280_bytes() {
    scenario("files_are_right_over_a_path_of_1280_bytes", Setup::PLAIN, |topology| {
        let vpn = Vpn::prepare(topology)?;
        let services = Services::start(topology, SIZE)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download(topology.client(), TARGET, LIMIT).context("over the path as it was")?;
        vpn.down(topology, 0)?.expect_code(0)?;
        narrow(topology, 1280)?;
        let _up =
            vpn.program(topology.client())?.args(["up", "--foreground"]).arg(vpn.client_path(0)).start()?;
        wait::until("a tunnel over a path of 1280 bytes", SOON, || {
            Ok((vpn.status(topology.client())?["tunnels"][0]["state"] == "up").then_some(()))
        })?;
        services.download(topology.client(), TARGET, LIMIT)?;
        services.upload(topology.client(), TARGET, LIMIT)?;
        Ok(())
    });
}

#[test]
fn a_download_survives_a_path_that_swallows_what_is_above_1280_bytes() {
    let name = "a_download_survives_a_path_that_swallows_what_is_above_1280_bytes";
    scenario(name, Setup::PLAIN, |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download(topology.client(), TARGET, LIMIT).context("over the path as it was")?;
        // Nobody is told: an ICMP that somebody filters is as good as none.
        let rules = format!(
            "table ip narrow {{ chain forward {{ type filter hook forward priority 0; tcp dport {PORT} meta length > 1280 drop; \
             tcp sport {PORT} meta length > 1280 drop; }}; }}"
        );
        topology.router.program("nft")?.arg("-f").arg("-").input(rules).output()?;
        services::seen_from(topology.client(), TARGET, LIMIT).context("what is small passes")?;
        let swallowed = services.download(topology.client(), TARGET, SOON);
        swallowed.context("over the path that swallows large packets")?;
        Ok(())
    });
}

/// Makes the link between the client and the router one of so many bytes.
fn narrow(topology: &Topology, mtu: u32) -> Result<()> {
    for (node, interface) in [(topology.client(), "eth0"), (&topology.router, "client0")] {
        // A merged packet would pass whole: what is on a real wire has its own size.
        node.run(&format!("ethtool -K {interface} tso off gso off gro off"))?;
        node.ip(&format!("link set {interface} mtu {mtu}"))?;
    }
    Ok(())
}

fn expect_files_both_ways(topology: &Topology, vpn: &Vpn) -> Result<()> {
    let services = Services::start(topology, SIZE)?;
    let _serve = vpn.serve(topology)?;
    vpn.up(topology, 0, "")?;
    services.download(topology.client(), TARGET, LIMIT)?;
    services.upload(topology.client(), TARGET_V6, LIMIT)?;
    // What never occurred is not listed.
    let drops = &vpn.tunnel(topology.client())?["drops"];
    ensure!(drops.is_object() && drops["send_lost"].is_null(), "packets were too big for the link: {drops}");
    vpn.down(topology, 0)?.expect_code(0)?;
    Ok(())
}
