//! Boxes on the way that punish flows: those that have carried much, that are fast, that are old, that look odd, or that are UDP.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 40 ms ]──(box)── router ── server ── target
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::emulator::{Middlebox, Profile, Stats};
use netns_tests::services;
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 8 << 20;

fn line() -> Setup {
    lossy(0.0)
}

fn lossy(loss: f64) -> Setup {
    Setup::link(Profile::long_line(50_000_000, Duration::from_millis(40), loss))
}

#[test]
fn files_survive_a_box_that_kills_every_flow_after_two_megabytes() {
    let kill = Middlebox::KillFlow { after_bytes: Some(2 << 20), after_time: None };
    let name = "files_survive_a_box_that_kills_every_flow_after_two_megabytes";
    tunnel_scenario(name, line().with(kill), SIZE, |tunnel| {
        tunnel.download()?;
        let after_download = migrations(tunnel)?;
        ensure!(after_download >= 3, "8 MiB with {after_download} migrations");
        tunnel.upload()?;
        let after_upload = migrations(tunnel)?;
        ensure!(
            after_upload >= after_download + 3,
            "8 MiB with {after_upload} - {after_download} migrations"
        );
        Ok(())
    });
}

#[test]
fn a_download_survives_a_box_that_kills_every_flow_after_a_second() {
    let kill = Middlebox::KillFlow { after_bytes: None, after_time: Some(Duration::from_secs(1)) };
    let name = "a_download_survives_a_box_that_kills_every_flow_after_a_second";
    tunnel_scenario(name, line().with(kill), 3 * SIZE / 2, |tunnel| {
        tunnel.download()?;
        let migrations = migrations(tunnel)?;
        ensure!(migrations >= 2, "{migrations} migrations in more than two seconds");
        Ok(())
    });
}

#[test]
fn files_are_right_when_each_connection_is_policed() {
    let police = Middlebox::Police { rate: 20_000_000, burst: 60_000 };
    tunnel_scenario(
        "files_are_right_when_each_connection_is_policed",
        line().with(police),
        SIZE / 2,
        |tunnel| {
            tunnel.download()?;
            tunnel.upload()?;
            let policed = counted(tunnel, |stats| stats.policed)?;
            ensure!(policed.iter().all(|count| *count > 0), "nothing was policed");
            Ok(())
        },
    );
}

#[test]
fn a_box_that_wants_a_handshake_and_honest_windows_finds_nothing_wrong() {
    let boxes = lossy(0.05).with(Middlebox::RequireHandshake).with(Middlebox::RequireWindow);
    let name = "a_box_that_wants_a_handshake_and_honest_windows_finds_nothing_wrong";
    tunnel_scenario(name, boxes, SIZE, |tunnel| {
        tunnel.download()?;
        tunnel.upload()?;
        for odd in
            [counted(tunnel, |stats| stats.no_handshake)?, counted(tunnel, |stats| stats.out_of_window)?]
        {
            ensure!(odd == [0, 0], "{odd:?} packets were dropped");
        }
        Ok(())
    });
}

#[test]
fn a_limit_for_udp_limits_nothing_in_the_tunnel() {
    let limit = Middlebox::LimitUdp { rate: 500_000, burst: 5000 };
    tunnel_scenario("a_limit_for_udp_limits_nothing_in_the_tunnel", line().with(limit), 1, |tunnel| {
        let (through, _) = (bulk_udp(tunnel)?, expect_limited(tunnel, false)?);
        ensure!(through < 5.0, "{through} % of the datagrams were lost in the tunnel");
        tunnel.vpn.down(tunnel.topology, 0)?.expect_code(0)?;
        let (beside, _) = (bulk_udp(tunnel)?, expect_limited(tunnel, true)?);
        ensure!(beside > 50.0, "only {beside} % of the datagrams were lost beside the tunnel");
        tunnel.vpn.up(tunnel.topology, 0, "")?;
        Ok(())
    });
}

#[test]
fn a_download_survives_a_nat_that_rebinds() {
    let nat = Middlebox::Nat { every: None, addresses: Vec::new() };
    tunnel_scenario("a_download_survives_a_nat_that_rebinds", line().with(nat), SIZE, |tunnel| {
        let before = remote_seen_by_server(tunnel)?;
        tunnel.download_through(|| tunnel.topology.link().rebind())?;
        let after = remote_seen_by_server(tunnel)?;
        ensure!(before != after, "the server still sees {before}");
        ensure!(
            counted(tunnel, |stats| stats.translated)?.iter().all(|count| *count > 0),
            "nothing was translated"
        );
        Ok(())
    });
}

fn bulk_udp(tunnel: &Tunnel<'_>) -> Result<f64> {
    let _iperf = services::serve_iperf(&tunnel.topology.target, TARGET)?;
    let report = services::iperf(tunnel.client(), TARGET, "-u -b 5M -l 1200 -n 1M", LIMIT)?;
    report["end"]["sum"]["lost_percent"].as_f64().context("no loss in iperf3's report")
}

fn expect_limited(tunnel: &Tunnel<'_>, limited: bool) -> Result<()> {
    let dropped = counted(tunnel, |stats| stats.udp_limited)?;
    ensure!((dropped[0] > 0) == limited, "{dropped:?} datagrams met the limit");
    Ok(())
}

/// A counter of both directions of the client's link.
fn counted(tunnel: &Tunnel<'_>, counter: fn(&Stats) -> u64) -> Result<[u64; 2]> {
    Ok(tunnel.topology.link().stats()?.map(|stats| counter(&stats)))
}

fn migrations(tunnel: &Tunnel<'_>) -> Result<u64> {
    tunnel.vpn.tunnel(tunnel.client())?["migrations"].as_u64().context("no migrations in status --json")
}

fn remote_seen_by_server(tunnel: &Tunnel<'_>) -> Result<String> {
    let status = tunnel.vpn.tunnel(&tunnel.topology.server)?;
    Ok(status["peers"][0]["remote"].as_str().context("no remote in status --json")?.to_owned())
}
