//! A router that masks its clients and drops what its connection tracking finds invalid.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 40 ms ]── router ── server ── target
//!                              masquerade, be_liberal=0, loose=0,
//!                              ct state invalid drop, policy drop
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{ROUTER, SERVER};
use netns_tests::emulator::Profile;
use netns_tests::firewall;
use netns_tests::scenario::scenario;
use netns_tests::services::Services;
use netns_tests::topology::{Setup, Topology};
use netns_tests::tunnel::Tunnel;
use netns_tests::vpn::{PORT, Vpn};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 8 << 20;

#[test]
fn a_strict_router_finds_a_sound_connection_without_loss() {
    behind_a_strict_router("a_strict_router_finds_a_sound_connection_without_loss", 0.0, sound_both_ways);
}

#[test]
fn a_strict_router_finds_a_sound_connection_at_five_percent_loss() {
    behind_a_strict_router(
        "a_strict_router_finds_a_sound_connection_at_five_percent_loss",
        0.05,
        sound_both_ways,
    );
}

#[test]
fn a_download_survives_a_router_that_forgets_every_connection() {
    behind_a_strict_router("a_download_survives_a_router_that_forgets_every_connection", 0.0, |tunnel| {
        let router = &tunnel.topology.router;
        let (carrier, _) = carrier(tunnel)?;
        tunnel.download_through(|| firewall::forget(router))?;
        // What the client sends on is in the middle of nothing: only a new handshake is let through.
        let (now, _) = self::carrier(tunnel)?;
        ensure!(now != carrier, "the download went on from port {carrier}, which the router must not pass");
        ensure!(firewall::invalid(router)? > 0, "the router has let the old connection pass");
        Ok(())
    });
}

/// Files both ways; the router then knows one established connection and has found nothing wrong with any packet.
fn sound_both_ways(tunnel: &Tunnel<'_>) -> Result<()> {
    let router = &tunnel.topology.router;
    tunnel.download()?;
    tunnel.upload()?;
    let (_, connection) = carrier(tunnel)?;
    ensure!(connection.contains("[ASSURED]"), "{connection}");
    ensure!(connection.contains(&format!("src={SERVER} dst={ROUTER}")), "not masked: {connection}");
    let invalid = firewall::invalid(router)?;
    ensure!(invalid == 0, "{invalid} packets were invalid; {connection}");
    Ok(())
}

/// The port that the carrier in use comes from, and its connection as the router knows it. There may be others: a busy machine
/// stalls one, and another takes its place.
fn carrier(tunnel: &Tunnel<'_>) -> Result<(u16, String)> {
    wait::until("a carrier that the router knows as established", LIMIT, || {
        let Some((local, _)) = tunnel.vpn.carrier(tunnel.client())? else { return Ok(None) };
        let port = local.parse::<SocketAddr>().with_context(|| local.clone())?.port();
        let ports = format!(" sport={port} dport={PORT} ");
        let is_it = |connection: &String| connection.contains(" ESTABLISHED ") && connection.contains(&ports);
        let connections = firewall::connections(&tunnel.topology.router, PORT)?;
        Ok(connections.into_iter().find(is_it).map(|connection| (port, connection)))
    })
}

fn behind_a_strict_router(name: &str, loss: f64, body: impl FnOnce(&Tunnel<'_>) -> Result<()>) {
    let profile = Profile::long_line(50_000_000, Duration::from_millis(40), loss);
    scenario(name, Setup::link(profile), |topology| {
        firewall::raise(&topology.router, false)?;
        expect_strict(topology)?;
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        let tunnel = Tunnel { topology, services, vpn, serve };
        body(&tunnel)?;
        tunnel.vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

/// The rules do what they say: nobody comes in from outside. Without this, a firewall that was never asked would pass the rest.
fn expect_strict(topology: &Topology) -> Result<()> {
    let client = netns_tests::addresses::client(0);
    topology.server.ip(&format!("route replace {client} via {ROUTER}"))?;
    let ping = format!("-n -c 1 -W 1 {client}");
    topology.server.program("ping")?.words(&ping).run(LIMIT)?.expect_code(1)?;
    wait::until("the client's own way out", LIMIT, || {
        let ping = format!("-n -c 1 -W 1 {SERVER}");
        Ok(topology.client().program("ping")?.words(&ping).run(LIMIT)?.expect_code(0).ok().map(drop))
    })
}
