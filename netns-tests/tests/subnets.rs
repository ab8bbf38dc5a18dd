//! Which packets go through the tunnel: those of the routes, and never its own.
//!
//! ```text
//!   client ══ tunnel ══ server ── target (192.0.2.10)
//!     └────── router ───────────── target (203.0.113.10)
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{
    ROUTER, SERVER, SERVER_BACK, TARGET, TARGET_BACK, TARGET_V6, client, client_v6,
};
use netns_tests::emulator::{Direction, Profile};
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::Vpn;

const LIMIT: Duration = Duration::from_secs(60);

fn link() -> Setup {
    Setup::link(Profile { delay: Duration::from_millis(10), ..Profile::CLEAR })
}

#[test]
fn only_the_given_subnet_goes_through_the_tunnel() {
    scenario("only_the_given_subnet_goes_through_the_tunnel", link(), |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "--route 192.0.2.0/24")?;
        expect_seen(topology, TARGET, SERVER_BACK)?;
        expect_seen(topology, TARGET_BACK, client(0))?;
        expect_seen(topology, TARGET_V6, client_v6(0))?;
        vpn.down(topology, 0)?.expect_code(0)?;
        expect_seen(topology, TARGET, client(0))
    });
}

#[test]
fn what_is_excluded_stays_outside() {
    scenario("what_is_excluded_stays_outside", link(), |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "--exclude 203.0.113.0/24")?;
        expect_seen(topology, TARGET, SERVER_BACK)?;
        expect_seen(topology, TARGET_BACK, client(0))?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn the_carrier_of_a_full_tunnel_does_not_loop_into_it() {
    scenario("the_carrier_of_a_full_tunnel_does_not_loop_into_it", link(), |topology| {
        let services = Services::start(topology, 10 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        let route = topology.client().ip(&format!("route get {TARGET}"))?;
        ensure!(route.contains("dev vpn0"), "{route}");
        // The server itself and the network on the way: a marked packet goes outside, an ordinary one inside.
        for host in [SERVER, ROUTER] {
            let route = topology.client().ip(&format!("route get {host}"))?;
            ensure!(route.contains("dev vpn0"), "{route}");
        }
        let before = bytes_out(topology)?;
        services.upload(topology.client(), TARGET, LIMIT)?;
        let share = (bytes_out(topology)? - before) as f64 / f64::from(10 << 20);
        // Once through the link, with headers; a loop would carry every packet until something breaks.
        ensure!((1.0..1.5).contains(&share), "{share} bytes on the link for each byte sent");
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

fn bytes_out(topology: &Topology) -> Result<u64> {
    Ok(topology.link().stats()?.get(Direction::Out.index()).context("no lane")?.forwarded_bytes)
}

fn expect_seen(
    topology: &Topology,
    host: impl Into<std::net::IpAddr>,
    from: impl Into<std::net::IpAddr>,
) -> Result<()> {
    let (host, from) = (host.into(), from.into());
    let seen = services::seen_from(topology.client(), host, LIMIT)?;
    ensure!(seen == from, "{host} sees {seen}, not {from}");
    Ok(())
}
